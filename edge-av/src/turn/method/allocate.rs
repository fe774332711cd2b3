//! Allocate: a relayed address for a client (RFC 8656 §7).

use std::sync::Arc;
use std::time::Duration;

use edge_common::limit::Source;
use edge_common::time::Now;

use crate::turn::allocation::{Allocation, Channels, Permissions, Phase, Places, Traffic};
use crate::turn::answer::Reply;
use crate::turn::refusal::Refusal;
use crate::turn::relayed::{Family, Relayed};
use crate::turn::{Request, Server};

impl Server {
    /// Opens a port for the client; its answer follows when the port is open.
    pub(in crate::turn) fn handle_allocate(
        &mut self,
        now: Now,
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        if let Some(allocation) = self.allocation_of(request.from) {
            return match (
                allocation.made_by == request.message.transaction(),
                allocation.phase,
            ) {
                // The answer was lost: the same request gets the same answer (RFC 8656 §7.2).
                (true, Phase::Open) => Ok(Reply::Allocated(
                    allocation.relayed,
                    allocation.first_lifetime,
                )),
                (true, Phase::Opening { .. }) => Ok(Reply::Later),
                (false, _) => Err(Refusal::AllocationMismatch),
            };
        }
        let family = wanted_family(request)?;
        if self.settings.policy.relay_address(family).is_none() {
            return Err(Refusal::FamilyNotSupported);
        }
        let lifetime = granted(request.fields.lifetime);
        let places = self.places(request)?;
        let port = self.port(family, request.fields.even_port)?;
        let relayed = Relayed { family, port };
        self.insert(Allocation {
            client: request.from,
            relayed,
            phase: Phase::Opening {
                tries: 1,
                algorithm: request.caller.algorithm,
                fingerprint: request.fields.fingerprint.is_some(),
            },
            username: request.caller.username.into(),
            key: Arc::clone(&request.caller.key),
            made_by: request.message.transaction(),
            first_lifetime: lifetime,
            since: now.mono,
            expires: now.mono + lifetime,
            permissions: Permissions::default(),
            channels: Channels::default(),
            traffic: Traffic::default(),
            places,
        });
        self.open(relayed);
        Ok(Reply::Later)
    }

    /// A port; the one above it is never kept for later, which 508 says (RFC 8656 §7.2).
    fn port(&mut self, family: Family, even: Option<bool>) -> Result<u16, Refusal> {
        let (ports, rng) = (&self.shared.ports[family], &mut *self.rng);
        let port = match even {
            None => ports.take(self.shard, rng),
            Some(false) => ports.take_even(self.shard, rng),
            Some(true) => None,
        };
        port.ok_or(Refusal::InsufficientCapacity)
    }

    fn places(&self, request: &Request<'_>) -> Result<Places, Refusal> {
        let user = request.caller.user.ok_or(Refusal::Unauthenticated)?;
        Ok(Places {
            user: self.shared.users.enter(user).ok_or(Refusal::QuotaReached)?,
            source: self
                .shared
                .sources
                .enter(Source::from(request.from.client.ip()))
                .ok_or(Refusal::QuotaReached)?,
            process: self
                .shared
                .allocations
                .enter()
                .ok_or(Refusal::InsufficientCapacity)?,
        })
    }
}

fn wanted_family(request: &Request<'_>) -> Result<Family, Refusal> {
    match request.fields.transport {
        None => return Err(Refusal::BadRequest),
        Some(UDP) => {}
        Some(_) => return Err(Refusal::TransportNotSupported),
    }
    match request.fields.family {
        None => Ok(Family::V4),
        Some(octet) => Family::from_wire(octet).ok_or(Refusal::FamilyNotSupported),
    }
}

/// The lifetime for what was asked: never below the default, never above the maximum (RFC 8656 §7.2).
pub(in crate::turn) fn granted(asked: Option<u32>) -> Duration {
    let asked = Duration::from_secs(asked.unwrap_or(0).into());
    asked.clamp(LIFETIME_DEFAULT, LIFETIME_MAX)
}

/// Protocol number of UDP.
const UDP: u8 = 17;
/// RFC 8656 §3.2.
pub(in crate::turn) const LIFETIME_DEFAULT: Duration = Duration::from_secs(600);
/// RFC 8656 §7.2 recommends one hour.
pub(in crate::turn) const LIFETIME_MAX: Duration = Duration::from_secs(3600);

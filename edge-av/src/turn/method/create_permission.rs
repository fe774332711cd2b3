//! CreatePermission: let these peers send (RFC 8656 §10).

use std::net::{IpAddr, SocketAddr};

use edge_common::time::Now;

use crate::turn::answer::Reply;
use crate::turn::peer_policy::Leg;
use crate::turn::refusal::Refusal;
use crate::turn::relayed::Family;
use crate::turn::{Request, Server};

impl Server {
    /// All of the peers get their permission, or none does.
    pub(in crate::turn) fn handle_create_permission(
        &mut self,
        now: Now,
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        let family = self
            .allocation_of(request.from)
            .ok_or(Refusal::AllocationMismatch)?
            .relayed
            .family;
        let peers: Option<Vec<SocketAddr>> = request.fields.peers().collect();
        let peers = peers
            .filter(|peers| !peers.is_empty())
            .ok_or(Refusal::BadRequest)?;
        let peers: Vec<IpAddr> = peers
            .into_iter()
            .map(|peer| self.admit(family, peer).map(|peer| peer.ip()))
            .collect::<Result<_, _>>()?;
        let limit = self.settings.limits.permissions;
        let allocation = self
            .allocation_of_mut(request.from)
            .ok_or(Refusal::AllocationMismatch)?;
        if !allocation.permissions.have_room(now.mono, &peers, limit) {
            return Err(Refusal::InsufficientCapacity);
        }
        for peer in peers {
            allocation.permissions.install(now.mono, peer);
        }
        Ok(Reply::Done)
    }

    /// A peer that the policy lets an allocation of `family` reach, in the form that the tables hold.
    pub(in crate::turn) fn admit(
        &self,
        family: Family,
        peer: SocketAddr,
    ) -> Result<SocketAddr, Refusal> {
        if Family::of(peer.ip()) != family {
            return Err(Refusal::PeerFamilyMismatch);
        }
        let peer = self.settings.policy.inward(peer);
        match self.settings.policy.judge(peer.ip()) {
            Leg::Hairpin | Leg::Outside => Ok(peer),
            Leg::Refused(_) => Err(Refusal::Forbidden),
        }
    }
}

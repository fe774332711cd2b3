//! What an operator may see of the broker, and change in it. Every list is bounded; numbers show as hashes.

use std::net::SocketAddr;
use std::time::Duration;

use edge_common::host_name::HostName;
use edge_common::time::Now;

use super::ClientId;
use super::ControlId;
use super::broker::Broker;
use super::client::Stage;
use crate::ewrp::Status;

/// Some of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// How many there are.
    pub total: usize,
    /// As many of them as were asked for.
    pub rows: Vec<T>,
}

/// A client past its match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Names it; the agent's log has it too.
    pub dial_id: u64,
    /// `lease`, `open_sent` or `relay`.
    pub stage: &'static str,
    /// Where it comes from.
    pub client: SocketAddr,
    /// Who serves it.
    pub agent: HostName,
    /// Under which registration.
    pub registration: Box<str>,
    /// The hash of what it showed.
    pub number: u64,
    /// Since it showed that.
    pub lasted: Duration,
}

/// An agent in session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// The name of its HELLO.
    pub agent: HostName,
    /// Tells two agents of one name apart.
    pub agent_id: [u8; 16],
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Since its HELLO.
    pub lasted: Duration,
    /// Parked data connections.
    pub parked: usize,
    /// Clients that wait for one.
    pub waiting: usize,
    /// Clients leased, opened or relayed.
    pub clients: usize,
    /// Numbers that it has admitted.
    pub admitted: usize,
    /// It takes no new clients.
    pub draining: bool,
    /// Names of what it has registered, with the clients there; at most [`REGISTRATIONS_MAX`].
    pub registrations: Vec<(Box<str>, usize)>,
}

/// An admitted number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionRow {
    /// Its hash.
    pub number: u64,
    /// Who has admitted it.
    pub agent: HostName,
    /// For which registration.
    pub registration: Box<str>,
    /// How often it may still be used.
    pub uses_left: u16,
    /// For how long.
    pub left: Duration,
}

impl Broker {
    /// Clients past their match.
    #[must_use]
    pub fn list_sessions(&self, now: Now, max: usize) -> Listed<SessionRow> {
        let past = self.by_number.iter().filter_map(|(number, id)| {
            let client = self.clients.get(id)?;
            let join = client.join()?;
            Some(SessionRow {
                dial_id: join.dial_id,
                stage: match &client.stage {
                    Stage::Preread(_) => "preread",
                    Stage::Lease(_) => "lease",
                    Stage::OpenSent(_) => "open_sent",
                    Stage::Relay { .. } => "relay",
                },
                client: client.address,
                agent: join.agent.clone(),
                registration: join.registration.clone(),
                number: number.hash(),
                lasted: now.mono.saturating_duration_since(join.matched_at),
            })
        });
        Listed {
            total: self.by_number.len(),
            rows: past.take(max).collect(),
        }
    }

    /// Agents in session.
    #[must_use]
    pub fn list_agents(&self, now: Now, max: usize) -> Listed<AgentRow> {
        let rows = self.sessions.iter().map(|(key, session)| AgentRow {
            agent: session.agent.clone(),
            agent_id: session.agent_id,
            address: self
                .controls
                .get(&session.control)
                .map(|it| it.peer.address),
            lasted: now.mono.saturating_duration_since(session.since),
            parked: session.pool.len(),
            waiting: session.waiting.len(),
            clients: session.conns,
            admitted: self.admission.share_of(*key),
            draining: session.draining,
            registrations: session.named().take(REGISTRATIONS_MAX).collect(),
        });
        Listed {
            total: self.sessions.len(),
            rows: rows.take(max).collect(),
        }
    }

    /// Admitted numbers, those whose time ends first in front.
    #[must_use]
    pub fn list_admissions(&self, now: Now, max: usize) -> Listed<AdmissionRow> {
        let rows = self.admission.soonest().filter_map(|entry| {
            let session = self.sessions.get(&entry.grant.session)?;
            Some(AdmissionRow {
                number: entry.grant.number.hash(),
                agent: session.agent.clone(),
                registration: session.registration_name(entry.grant.reg_id),
                uses_left: entry.uses_left,
                left: entry.expires.saturating_duration_since(now.mono),
            })
        });
        Listed {
            total: self.admission.len(),
            rows: rows.take(max).collect(),
        }
    }

    /// Closes one client; `false` when there is none of that id.
    pub fn cut_session(&mut self, now: Now, dial_id: u64) -> bool {
        let of_id = |(id, client): (&ClientId, &super::client::Client)| {
            let join = client.join()?;
            (join.dial_id == dial_id).then_some(*id)
        };
        let Some(id) = self.clients.iter().find_map(of_id) else {
            return false;
        };
        self.cut(now, id, Status::Shutdown);
        true
    }

    /// Ends the sessions of an agent, which may come back; tells how many there were.
    pub fn drop_agent(&mut self, now: Now, agent: &HostName) -> usize {
        let of_agent = self.sessions.values().filter(|it| it.agent == *agent);
        let controls: Vec<ControlId> = of_agent.map(|session| session.control).collect();
        for &id in &controls {
            self.dismiss(now, id, Status::Shutdown, "dropped by the operator");
        }
        controls.len()
    }

    /// Makes the number or token of that hash void, a token also if nobody has shown it yet; `cut`: and closes those that
    /// came in by it. Tells how many numbers and clients that concerned.
    pub fn revoke_hash(&mut self, now: Now, hash: u64, cut: bool) -> (usize, usize) {
        let of_hash = self.admission.soonest().map(|entry| entry.grant);
        let grants: Vec<_> = of_hash.filter(|it| it.number.hash() == hash).collect();
        for grant in &grants {
            self.admission.revoke(grant.session, grant.number);
        }
        let live = self.by_number.iter().filter(|(it, _)| it.hash() == hash);
        let users: Vec<_> = live.copied().collect();
        if grants.is_empty() {
            self.void_token(now, hash);
        }
        if cut {
            for &(_, id) in &users {
                self.cut(now, id, Status::TokenUnknown);
            }
        }
        (grants.len(), if cut { users.len() } else { 0 })
    }
}

/// Of one agent; it may have ten thousand conferences.
pub const REGISTRATIONS_MAX: usize = 64;

//! What the broker holds for one agent.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use edge_common::host_name::HostName;

use super::pool::Pool;
use super::sequence::Sequence;
use super::{ClientId, ControlId, DataId, Peer};
use crate::ewrp::control::{Register, RegistrationKind};
use crate::ewrp::{SessionName, SessionSecret, Status};

/// Names a session within the broker; never used twice, unlike the names that agents bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionKey(pub(super) u64);

/// A control connection.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) peer: Peer,
    /// What was received and is no whole frame yet; at most one frame.
    pub(super) received: Vec<u8>,
    /// `None` until its HELLO.
    pub(super) session: Option<SessionKey>,
}

/// A control connection after its HELLO.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) control: ControlId,
    /// The name of the HELLO: one of the certificate's, and trusted.
    pub(super) agent: HostName,
    pub(super) agent_id: [u8; 16],
    pub(super) epoch: u64,
    pub(super) since: Instant,
    /// What data connections name and sign with.
    pub(super) name: SessionName,
    pub(super) secret: SessionSecret,
    pub(super) sequence: Sequence,
    /// Every name of the certificate: data connections must show the same.
    pub(super) names: Vec<HostName>,
    /// Clients it takes at once.
    pub(super) max_conns: usize,
    pub(super) registrations: BTreeMap<u32, Registration>,
    pub(super) pool: Pool,
    /// Clients that wait for a data connection, the first first.
    pub(super) waiting: VecDeque<ClientId>,
    /// Clients leased, opened or relayed, wherever their data connection is now.
    pub(super) conns: usize,
    pub(super) heartbeat: Heartbeat,
    /// It asked for no new clients.
    pub(super) draining: bool,
}

impl Session {
    /// Whether a registration may have this name: a server or service must be named by the
    /// certificate or below it. A conference is named by a number that means something inside
    /// only, so there a trusted agent is believed.
    pub(super) fn may_register(&self, register: &Register) -> bool {
        match register.kind {
            RegistrationKind::Server | RegistrationKind::TcpService => register
                .name
                .parse::<HostName>()
                .is_ok_and(|name| self.names.iter().any(|proven| name.is_within(proven))),
            RegistrationKind::Conference => is_conference_id(&register.name),
        }
    }

    /// Adds a registration or replaces the one of that id. The count is per kind, as EWRP/1 has it.
    pub(super) fn register(&mut self, register: &Register) -> Status {
        if !self.may_register(register) {
            return Status::NameDenied;
        }
        let of_conferences = register.kind == RegistrationKind::Conference;
        let max = if of_conferences {
            CONFERENCES_MAX
        } else {
            SERVERS_MAX
        };
        let same_kind = |(id, other): &(&u32, &Registration)| {
            **id != register.reg_id && other.of_conferences == of_conferences
        };
        if self.registrations.iter().filter(same_kind).count() >= max {
            return Status::Limit;
        }
        let registration = Registration {
            name: register.name.clone(),
            of_conferences,
            weight: register.weight,
            max_conns: limit(register.max_conns),
            conns: self
                .registrations
                .get(&register.reg_id)
                .map_or(0, |old| old.conns),
        };
        self.registrations.insert(register.reg_id, registration);
        Status::Ok
    }

    /// Whether one more client fits.
    pub(super) fn has_room(&self, reg_id: u32) -> bool {
        let registration = self.registrations.get(&reg_id);
        self.conns < self.max_conns
            && registration.is_some_and(|registration| registration.conns < registration.max_conns)
    }

    /// What it has registered, with the clients there.
    pub(super) fn named(&self) -> impl Iterator<Item = (Box<str>, usize)> {
        let registrations = self.registrations.values();
        registrations.map(|registration| (registration.name.clone(), registration.conns))
    }

    /// The registrations of that name that take one more client, with their weights.
    pub(super) fn places(&self, name: &str) -> impl Iterator<Item = (u32, u16)> {
        let named = self
            .registrations
            .iter()
            .filter(move |(_, registration)| registration.name.eq_ignore_ascii_case(name));
        named
            .filter(|(reg_id, _)| !self.draining && self.has_room(**reg_id))
            .map(|(&reg_id, registration)| (reg_id, registration.weight))
    }

    pub(super) fn registration_name(&self, reg_id: u32) -> Box<str> {
        self.registrations
            .get(&reg_id)
            .map(|registration| registration.name.clone())
            .unwrap_or_default()
    }

    /// Counts a client in; [`Session::release`] counts it out.
    pub(super) fn occupy(&mut self, reg_id: u32) {
        self.conns += 1;
        if let Some(registration) = self.registrations.get_mut(&reg_id) {
            registration.conns += 1;
        }
    }

    pub(super) fn release(&mut self, reg_id: u32) {
        self.conns = self.conns.saturating_sub(1);
        if let Some(registration) = self.registrations.get_mut(&reg_id) {
            registration.conns = registration.conns.saturating_sub(1);
        }
    }
}

/// A server, a conference or a service behind the agent.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) name: Box<str>,
    of_conferences: bool,
    weight: u16,
    max_conns: usize,
    conns: usize,
}

/// The wire's 0 means no limit of the agent's own; the edge's limits count in any case.
pub(super) fn limit(max_conns: u32) -> usize {
    match max_conns {
        0 => usize::MAX,
        max => usize::try_from(max).unwrap_or(usize::MAX),
    }
}

/// Conference ids are 8 to 32 letters and digits (MS-CONFBAS).
fn is_conference_id(name: &str) -> bool {
    (8..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// PING and PONG of one session.
#[derive(Debug)]
pub(super) struct Heartbeat {
    nonce: u64,
    unanswered: u8,
}

impl Heartbeat {
    pub(super) const fn new() -> Self {
        Self {
            nonce: 0,
            unanswered: 0,
        }
    }

    /// The nonce of the next PING; `None` when the far end has missed too many.
    pub(super) const fn beat(&mut self) -> Option<u64> {
        if self.unanswered >= MISSED_MAX {
            return None;
        }
        self.unanswered += 1;
        self.nonce += 1;
        Some(self.nonce)
    }

    /// Only the answer to the latest PING counts: an older one comes from a line that is too slow
    /// to be of use, and the next beat asks again.
    pub(super) const fn answered(&mut self, nonce: u64) {
        if nonce == self.nonce {
            self.unanswered = 0;
        }
    }
}

/// A data connection that has not been leased.
#[derive(Debug)]
pub(super) enum Data {
    /// Its hello is not whole.
    Hello { peer: Peer, received: Vec<u8> },
    /// In the pool of a session.
    Parked { session: SessionKey },
}

/// The data connections of the process that are not in anybody's use.
pub(super) type DataTable = BTreeMap<DataId, Data>;

/// EWRP/1: time between two PINGs.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// EWRP/1: so many missed, and the session is dead.
const MISSED_MAX: u8 = 2;
/// EWRP/1: servers and services of one agent.
const SERVERS_MAX: usize = 64;
/// EWRP/1: conferences of one agent.
const CONFERENCES_MAX: usize = 10_000;
/// EWRP/1: numbers of one agent.
pub(super) const NUMBERS_MAX: usize = 100_000;
/// EWRP/1: the first frame of a control connection, and the hello of a data connection.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// When the next heartbeat is due.
pub(super) fn next_beat(now: Instant) -> Instant {
    now + HEARTBEAT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_missed_answers_are_the_end() {
        let mut heartbeat = Heartbeat::new();
        assert_eq!(heartbeat.beat(), Some(1));
        assert_eq!(heartbeat.beat(), Some(2));
        assert_eq!(heartbeat.beat(), None);
        heartbeat.answered(1);
        assert_eq!(heartbeat.beat(), None);
        heartbeat.answered(2);
        assert_eq!(heartbeat.beat(), Some(3));
    }

    #[test]
    fn conference_ids_are_letters_and_digits() {
        assert!(is_conference_id("abcd1234"));
        assert!(is_conference_id(&"A9".repeat(16)));
        for wrong in ["", "abcd123", "abcd-1234", "abcd123é"] {
            assert!(!is_conference_id(wrong), "{wrong}");
        }
        assert!(!is_conference_id(&"a".repeat(33)));
    }
}

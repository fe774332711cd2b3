//! What the broker holds for one client.

use std::net::SocketAddr;
use std::time::Instant;

use edge_common::host_name::HostName;

use super::Arrival;
use super::admission::{Admission, Grant, Verdict};
use crate::ewrp::{Number, Status};
use crate::scan::{Hit, Scanner};

/// One client, from the end of its TLS handshake.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) sni: Box<str>,
    pub(super) stage: Stage,
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// It has shown no admitted number yet.
    Preread(Box<Preread>),
    /// It waits for a data connection. No byte of it went inside.
    Lease(Join),
    /// Its OPEN was sent; the agent has not answered.
    OpenSent(Join),
    /// Its bytes flow, out of the broker's sight.
    Relay {
        join: Join,
        since: Instant,
        /// Why the broker cut it, when it did.
        ending: Option<Status>,
    },
}

/// A client on its way in.
#[derive(Clone, Debug)]
pub(super) struct Join {
    pub(super) grant: Grant,
    /// What it has sent so far, and OPEN announces.
    pub(super) preread_len: usize,
    pub(super) matched_at: Instant,
    pub(super) dial_id: u64,
    /// For the record, which may outlive the session.
    pub(super) agent: HostName,
    pub(super) registration: Box<str>,
}

impl Client {
    pub(super) fn new(arrival: Arrival) -> Self {
        Self {
            address: arrival.address,
            sni: arrival.sni,
            stage: Stage::Preread(Box::default()),
        }
    }

    /// The join, once there is one.
    pub(super) const fn join(&self) -> Option<&Join> {
        match &self.stage {
            Stage::Preread(_) => None,
            Stage::Lease(join) | Stage::OpenSent(join) | Stage::Relay { join, .. } => Some(join),
        }
    }
}

/// The search in the first bytes of a client.
#[derive(Debug, Default)]
pub(super) struct Preread {
    scanner: Scanner,
    seen: usize,
    /// Of the numbers that were shown and did not count, what comes nearest; for logs only.
    nearest: Option<Status>,
}

/// What the search came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One use of the number was taken.
    Number(Hit, Grant),
    /// A number may stand at the end; one more byte or a little time decides.
    Undecided,
    /// Nothing yet.
    More,
    /// Nothing, and the limit is reached.
    Nothing,
}

impl Preread {
    /// Searches what came; used and expired numbers are passed over like strangers'.
    pub(super) fn search(
        &mut self,
        now: Instant,
        bytes: &[u8],
        limit: usize,
        admission: &mut Admission,
    ) -> Found {
        let room = limit.saturating_sub(self.seen);
        let bytes = &bytes[..bytes.len().min(room)];
        self.seen += bytes.len();
        let (nearest, mut taken) = (&mut self.nearest, None);
        let accept = |number| take(now, number, admission, nearest, &mut taken);
        let hit = self.scanner.feed(bytes, accept);
        match hit.zip(taken) {
            Some((hit, grant)) => Found::Number(hit, grant),
            None if self.seen >= limit => self.finish(now, admission),
            None if self.scanner.is_undecided() => Found::Undecided,
            None => Found::More,
        }
    }

    /// Takes the end of what came for the end of a run of digits.
    pub(super) fn finish(&mut self, now: Instant, admission: &mut Admission) -> Found {
        let (nearest, mut taken) = (&mut self.nearest, None);
        let accept = |number| take(now, number, admission, nearest, &mut taken);
        let hit = self.scanner.finish(accept);
        hit.zip(taken)
            .map_or(Found::Nothing, |(hit, grant)| Found::Number(hit, grant))
    }

    /// Bytes that count against the limit so far.
    pub(super) const fn seen(&self) -> usize {
        self.seen
    }

    /// The status of a refusal, when `otherwise` is all that is known.
    pub(super) fn refusal(&self, otherwise: Status) -> Status {
        self.nearest.unwrap_or(otherwise)
    }
}

fn take(
    now: Instant,
    number: Number,
    admission: &mut Admission,
    nearest: &mut Option<Status>,
    taken: &mut Option<Grant>,
) -> bool {
    match admission.take(now, number) {
        Verdict::Granted(grant) => *taken = Some(grant),
        Verdict::Used => *nearest = Some(Status::TokenUsed),
        Verdict::Expired => *nearest = nearest.or(Some(Status::TokenExpired)),
        Verdict::Unknown => {}
    }
    taken.is_some()
}

//! What the broker holds for one client.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use edge_common::host_name::HostName;
use edge_common::join_token::{JoinToken, TokenError};
use edge_common::time::Now;

use super::admission::{Admission, Grant, Verdict};
use super::tokens::Tokens;
use super::{Arrival, Settings};
use crate::ewrp::{Number, Status};
use crate::preface::{self, LINE_LEN_MAX};
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
    /// So many of its first bytes are a preface.
    pub(super) skip: usize,
    /// What it has sent behind these so far, and OPEN announces.
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
    preface: Preface,
    seen: usize,
    /// Of the numbers that were shown and did not count, what comes nearest; for logs only.
    nearest: Option<Status>,
}

/// Whether the first bytes are a preface.
#[derive(Debug)]
enum Preface {
    /// They may become one.
    Open(Vec<u8>),
    /// They are none, or one that lets nobody in.
    Over,
}

impl Default for Preface {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

/// What decides about what a client shows.
pub(super) struct Judges<'a> {
    pub(super) settings: &'a Settings,
    pub(super) admission: &'a mut Admission,
    pub(super) tokens: &'a mut Tokens,
    /// Where the client comes from.
    pub(super) client: IpAddr,
}

/// What the search came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One use of the number was taken.
    Number(Hit, Grant),
    /// One use of the token was taken.
    Token {
        /// What it says.
        token: JoinToken,
        /// What stands for it.
        number: Number,
        /// The length of the line that showed it.
        line_len: usize,
    },
    /// A number may stand at the end; one more byte or a little time decides.
    Undecided,
    /// Nothing yet.
    More,
    /// Nothing, and the limit is reached.
    Nothing,
}

impl Preread {
    /// Searches what came; used and expired numbers are passed over like strangers', and so is a token that lets nobody
    /// in: what the client sees of it is the end of the limits, whatever was wrong.
    pub(super) fn search(
        &mut self,
        now: Now,
        bytes: &[u8],
        judges: &mut Judges<'_>,
    ) -> (Found, Option<TokenError>) {
        let limit = judges.settings.preread_limit();
        let room = limit.saturating_sub(self.seen);
        let bytes = &bytes[..bytes.len().min(room)];
        self.seen += bytes.len();
        match self.token(now, bytes, judges) {
            Ok(Some(found)) => (found, None),
            Ok(None) => (self.number(now, bytes, limit, judges), None),
            Err(error) => (self.number(now, bytes, limit, judges), Some(error)),
        }
    }

    fn number(&mut self, now: Now, bytes: &[u8], limit: usize, judges: &mut Judges<'_>) -> Found {
        if !judges.settings.scan {
            return if self.seen >= limit {
                Found::Nothing
            } else {
                Found::More
            };
        }
        let (nearest, mut taken) = (&mut self.nearest, None);
        let admission = &mut *judges.admission;
        let accept = |number| take(now.mono, number, admission, nearest, &mut taken);
        let hit = self.scanner.feed(bytes, accept);
        match hit.zip(taken) {
            Some((hit, grant)) => Found::Number(hit, grant),
            None if self.seen >= limit => self.finish(now.mono, admission),
            None if self.scanner.is_undecided() => Found::Undecided,
            None => Found::More,
        }
    }

    /// Looks for a preface; each connection has one line that may be one.
    fn token(
        &mut self,
        now: Now,
        bytes: &[u8],
        judges: &mut Judges<'_>,
    ) -> Result<Option<Found>, TokenError> {
        let keys = &judges.settings.trust.token_keys;
        let Preface::Open(line) = &mut self.preface else {
            return Ok(None);
        };
        let room = LINE_LEN_MAX.saturating_sub(line.len());
        line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let (token, line_len) = match preface::read(line) {
            preface::Step::NeedMore if !keys.is_empty() => return Ok(None),
            preface::Step::NeedMore | preface::Step::Absent => {
                self.preface = Preface::Over;
                return Ok(None);
            }
            preface::Step::Line { token, len } => (keys.open(token), len),
        };
        self.preface = Preface::Over;
        let token = token?;
        if let Err(error) = token.check(now.unix, judges.settings.token_lifetime, judges.client) {
            if error == TokenError::Expired {
                self.nearest = Some(Status::TokenExpired);
            }
            return Err(error);
        }
        match judges.tokens.take(now.unix, &token) {
            Ok(number) => Ok(Some(Found::Token {
                token,
                number,
                line_len,
            })),
            Err(status) => {
                self.nearest = Some(status);
                Ok(None)
            }
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

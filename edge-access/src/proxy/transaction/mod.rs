//! Transactions: timers, retransmissions, CANCEL and fail-over for the requests that are under way.
//!
//! ```text
//!            server machine            client machine
//!  sender ──► invite_server ──┐  ┌──► invite_client ──► next target ──► the one after it
//!         ──► other_server  ──┴──┴──► other_client
//!                     one entry of the table
//! ```
//!
//! The table is an optimisation: what routes a message is sealed in the message. A request that finds no
//! room, or whose answer comes back after a restart or to another member, goes on without an entry and
//! loses nothing but timers.
//!
//! Each machine is a pure function from (state, event) to a [`Cell`]: the next state, what is to be
//! done, and the section that says so. The files under `snapshots/` are these functions, printed.
//!
//! We speak over reliable streams only (TLS), so timers A, E and G are never set, and D, I, J and K are zero
//! (RFC 3261 §17): the states that they would keep are passed through.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod context;
pub mod invite_client;
pub mod invite_server;
pub mod other_client;
pub mod other_server;
pub mod table;

use std::time::Duration;

pub(super) use context::{Fate, Matched, NO_TRANSACTION};
pub use table::TransactionId;

/// One cell of a machine's table.
#[derive(Clone, Copy, Debug)]
pub struct Cell<S, A: 'static> {
    /// The state from now on.
    pub next: S,
    /// What is to be done, in that order.
    pub acts: &'static [A],
    /// The section that says so.
    pub by: &'static str,
}

/// What an entry waits for; it waits for one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Any answer to an INVITE (RFC 3261 §17.1.1.2).
    B,
    /// The next provisional answer to an INVITE, or its final one (RFC 3261 §16.6 step 11).
    C,
    /// The final answer to an INVITE that we have cancelled (RFC 3261 §9.1).
    Cancelled,
    /// The ACK of a failure (RFC 3261 §17.2.1).
    H,
    /// More 2xx of an INVITE; both machines wait as long (RFC 6026 §7.1, §7.2).
    LM,
    /// The final answer to another request, before its sender is told that we are trying (RFC 4320 §4.1).
    Patience,
    /// The final answer to another request (RFC 3261 §17.1.2.2).
    F,
    /// The answer to an OPTIONS of our own.
    Ping,
    /// Nothing: the connection that the request went over is gone, and that is to be looked at now.
    Lost,
}

impl Timer {
    /// How long.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            Self::B | Self::Cancelled | Self::H | Self::LM => Duration::from_millis(64 * T1_MS),
            Self::C => Duration::from_secs(185),
            Self::Patience => Duration::from_millis(PATIENCE_MS),
            Self::F => Duration::from_millis(64 * T1_MS - PATIENCE_MS),
            Self::Ping => Duration::from_secs(10),
            Self::Lost => Duration::ZERO,
        }
    }
}

/// A target's rank as one bit of the set of targets; there are no more than 8.
pub(super) const fn bit(rank: u8) -> u8 {
    if rank < 8 { 1 << rank } else { 0 }
}

/// RFC 3261 §17.1.1.1.
const T1_MS: u64 = 500;
/// How long a client that speaks UDP takes to slow down to T2: 0.5 + 1 + 2 s (RFC 4320 §4.1).
const PATIENCE_MS: u64 = 3500;
/// How long an INVITE waits for a target that says nothing at all while there is another one (RFC 3263 §4.3
/// leaves it to us): its sender has our 100 and waits with it.
pub(super) const SILENT_TARGET: Duration = Duration::from_secs(8);

/// The table of one machine as text, for its snapshot.
#[cfg(test)]
fn print<S: Copy + std::fmt::Debug, E: Copy + std::fmt::Debug, A: std::fmt::Debug>(
    states: &[S],
    events: &[E],
    step: fn(S, E) -> Cell<S, A>,
) -> String {
    use std::fmt::Write as _;
    let mut table = String::new();
    for &state in states {
        for &event in events {
            let Cell { next, acts, by } = step(state, event);
            writeln!(table, "{state:?} + {event:?}: {acts:?} -> {next:?} ({by})")
                .expect("a String takes everything");
        }
    }
    table
}

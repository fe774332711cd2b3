//! The client machine of any request but INVITE (RFC 3261 §17.1.2 as RFC 4320 changes it).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::Cell;

/// Where it stands. Completed is passed through: timer K is zero on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing has come back.
    Trying,
    /// A provisional answer has.
    Proceeding,
    /// Over.
    Ended,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A 100 to 199.
    Provisional,
    /// A final answer that is none of the following.
    Final,
    /// A 408, which nobody may say to such a request.
    Timeout,
    /// A 503.
    Unavailable,
    /// No final answer came.
    TimerF,
    /// The connection is gone.
    Lost,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Hand the answer up.
    Pass,
    /// Try the next target; when there is none, hand up what this one said.
    TryNext,
    /// Hand up that the way is gone.
    Fail,
    /// Hand up nothing.
    Silence,
    /// Keep of the request only what an answer of ours would need.
    Trim,
}

/// The table.
#[must_use]
pub const fn step(state: State, event: Event) -> Cell<State, Act> {
    use Event as E;
    use State::{Ended, Proceeding, Trying};
    let (acts, next, by): (&'static [Act], State, &'static str) = match (state, event) {
        (Trying | Proceeding, E::Provisional) => (
            &[Act::Trim],
            Proceeding,
            "RFC 3261 §17.1.2.2, RFC 4320 §4.1",
        ),
        (Trying | Proceeding, E::Final) => {
            (&[Act::Pass], Ended, "RFC 3261 §17.1.2.2, timer K is zero")
        }
        (Trying | Proceeding, E::Timeout) => (&[Act::Silence], Ended, "RFC 4320 §4.2"),
        (Trying | Proceeding, E::TimerF) => {
            (&[Act::Silence], Ended, "RFC 3261 §17.1.2.2, RFC 4320 §4.2")
        }
        (Trying, E::Unavailable) => (
            &[Act::TryNext],
            Ended,
            "RFC 3261 §16.7 step 6, RFC 3263 §4.3",
        ),
        (Trying, E::Lost) => (&[Act::TryNext], Ended, "RFC 3261 §16.9, RFC 3263 §4.3"),
        // Whoever has begun to work on it may have done it.
        (Proceeding, E::Unavailable) => (&[Act::Pass], Ended, "RFC 3261 §16.7 step 6"),
        (Proceeding, E::Lost) => (&[Act::Fail], Ended, "RFC 3261 §16.9"),
        (Ended, E::Provisional | E::Final | E::Timeout | E::Unavailable | E::TimerF | E::Lost) => {
            (&[], Ended, "over")
        }
    };
    Cell { next, acts, by }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_event_has_its_cell() {
        let states = [State::Trying, State::Proceeding, State::Ended];
        let events = [
            Event::Provisional,
            Event::Final,
            Event::Timeout,
            Event::Unavailable,
            Event::TimerF,
            Event::Lost,
        ];
        insta::assert_snapshot!(super::super::print(&states, &events, step));
    }
}

//! The server machine of any request but INVITE (RFC 3261 §17.2.2 as RFC 4320 changes it).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::Cell;

/// Where it stands. Completed is passed through: timer J is zero on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing has gone back.
    Trying,
    /// A 100 has.
    Proceeding,
    /// Over.
    Ended,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The request comes a second time.
    Request,
    /// The proxy hands up a 101 to 199.
    Provisional,
    /// The proxy hands up a final answer.
    Final,
    /// Nobody has answered for a while.
    Patience,
    /// Nobody has answered at all.
    Silence,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Say 100 Trying.
    Trying,
    /// Send the answer to the sender.
    Send,
    /// Wait for the rest of timer F.
    StartF,
}

/// The table.
#[must_use]
pub const fn step(state: State, event: Event) -> Cell<State, Act> {
    use Event as E;
    use State::{Ended, Proceeding, Trying};
    let (acts, next, by): (&'static [Act], State, &'static str) = match (state, event) {
        (Trying, E::Request) => (&[], Trying, "RFC 3261 §17.2.2"),
        (Trying, E::Patience) => (&[Act::Trying, Act::StartF], Proceeding, "RFC 4320 §4.1"),
        (Proceeding, E::Request) => (&[Act::Trying], Proceeding, "RFC 3261 §17.2.2"),
        (Proceeding, E::Patience) => (&[], Proceeding, "not set"),
        (Trying | Proceeding, E::Provisional) => (&[], state, "RFC 4320 §4.1"),
        (Trying | Proceeding, E::Final) => {
            (&[Act::Send], Ended, "RFC 3261 §17.2.2, timer J is zero")
        }
        (Trying | Proceeding, E::Silence) => (&[], Ended, "RFC 4320 §4.2"),
        (Ended, E::Final) => (&[], Ended, "RFC 4320 §4.3"),
        (Ended, E::Request | E::Provisional | E::Patience | E::Silence) => (&[], Ended, "over"),
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
            Event::Request,
            Event::Provisional,
            Event::Final,
            Event::Patience,
            Event::Silence,
        ];
        insta::assert_snapshot!(super::super::print(&states, &events, step));
    }
}

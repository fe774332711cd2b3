//! The server machine of an INVITE (RFC 3261 §17.2.1 as RFC 6026 §7.1 changes it).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::Cell;

/// Where it stands. Confirmed is passed through: timer I is zero on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No final answer has gone back.
    Proceeding,
    /// A 2xx has.
    Accepted,
    /// A failure has; its ACK is to come.
    Completed,
    /// Over.
    Ended,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The INVITE comes a second time.
    Invite,
    /// An ACK with the INVITE's branch.
    Ack,
    /// A CANCEL with the INVITE's branch.
    Cancel,
    /// The proxy hands up a 101 to 199.
    Provisional,
    /// The proxy hands up a 2xx.
    Success,
    /// The proxy hands up any other final answer.
    Failure,
    /// No ACK came.
    TimerH,
    /// No more 2xx are waited for.
    TimerL,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Say 100 Trying.
    Trying,
    /// Send the answer to the sender.
    Send,
    /// Send the ACK on: it is for whoever said 2xx.
    SendAck,
    /// Say 200 to the CANCEL.
    AnswerCancel,
    /// Tell the client machine to cancel.
    Cancel,
    /// Wait for the ACK.
    StartH,
    /// Wait for more 2xx.
    StartL,
}

/// The table.
#[must_use]
pub const fn step(state: State, event: Event) -> Cell<State, Act> {
    use Event as E;
    use State::{Accepted, Completed, Ended, Proceeding};
    let (acts, next, by): (&'static [Act], State, &'static str) = match (state, event) {
        (Proceeding, E::Invite) => (&[Act::Trying], Proceeding, "RFC 3261 §17.2.1"),
        (Proceeding, E::Provisional) => (&[Act::Send], Proceeding, "RFC 3261 §17.2.1"),
        (Proceeding, E::Success) => (&[Act::Send, Act::StartL], Accepted, "RFC 6026 §7.1"),
        (Proceeding, E::Failure) => (&[Act::Send, Act::StartH], Completed, "RFC 3261 §17.2.1"),
        (Proceeding, E::Cancel) => (
            &[Act::AnswerCancel, Act::Cancel],
            Proceeding,
            "RFC 3261 §9.2, §16.10",
        ),
        (Proceeding, E::Ack) => (
            &[],
            Proceeding,
            "RFC 3261 §17.2.1: there is nothing to acknowledge",
        ),
        (Accepted, E::Invite) => (&[], Accepted, "RFC 6026 §7.1"),
        (Accepted, E::Ack) => (&[Act::SendAck], Accepted, "RFC 6026 §7.1, RFC 3261 §16.11"),
        (Accepted, E::Success) => (&[Act::Send], Accepted, "RFC 6026 §7.1"),
        (Accepted, E::TimerL) => (&[], Ended, "RFC 6026 §7.1"),
        (Completed, E::Invite) => (
            &[],
            Completed,
            "RFC 3261 §17.2.1: a stream has not lost the answer",
        ),
        (Completed, E::Ack) => (&[], Ended, "RFC 3261 §17.2.1, timer I is zero"),
        (Completed, E::Success) => (&[Act::Send, Act::StartL], Accepted, "RFC 3261 §16.7 step 5"),
        (Completed, E::TimerH) => (&[], Ended, "RFC 3261 §17.2.1"),
        (Accepted | Completed, E::Cancel) => (&[Act::AnswerCancel], state, "RFC 3261 §9.2"),
        (Accepted | Completed, E::Provisional | E::Failure) => {
            (&[], state, "RFC 3261 §16.7 step 5")
        }
        (Proceeding | Completed, E::TimerL) | (Proceeding | Accepted, E::TimerH) => {
            (&[], state, "not set")
        }
        (
            Ended,
            E::Invite
            | E::Ack
            | E::Cancel
            | E::Provisional
            | E::Success
            | E::Failure
            | E::TimerH
            | E::TimerL,
        ) => (&[], Ended, "over"),
    };
    Cell { next, acts, by }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_event_has_its_cell() {
        let states = [
            State::Proceeding,
            State::Accepted,
            State::Completed,
            State::Ended,
        ];
        let events = [
            Event::Invite,
            Event::Ack,
            Event::Cancel,
            Event::Provisional,
            Event::Success,
            Event::Failure,
            Event::TimerH,
            Event::TimerL,
        ];
        insta::assert_snapshot!(super::super::print(&states, &events, step));
    }
}

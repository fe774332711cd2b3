//! The client machine of an INVITE (RFC 3261 §17.1.1 as RFC 6026 §7.2 changes it), with the proxy's timer C.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::Cell;

/// Where it stands. Completed is passed through: timer D is zero on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing has come back.
    Calling,
    /// A provisional answer has.
    Proceeding,
    /// A CANCEL has followed; the final answer is to come.
    Cancelling,
    /// A 2xx has come back.
    Accepted,
    /// Over.
    Ended,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A 100.
    Trying,
    /// A 101 to 199.
    Provisional,
    /// A 2xx.
    Success,
    /// A 503.
    Unavailable,
    /// Any other final answer.
    Failure,
    /// The sender has cancelled.
    Cancel,
    /// Nothing came back.
    TimerB,
    /// A provisional answer came, and nothing after it.
    TimerC,
    /// A CANCEL had no effect.
    CancelledInVain,
    /// No more 2xx are waited for.
    TimerM,
    /// The connection is gone.
    Lost,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Hand the answer up.
    Pass,
    /// Acknowledge the failure.
    Ack,
    /// Send CANCEL.
    Cancel,
    /// Keep the CANCEL until an answer shows that the INVITE is there.
    HoldCancel,
    /// Try the next target; when there is none, hand up what this one said.
    TryNext,
    /// Try the next target; when there is none, hand up 408.
    TryNextOrTimeout,
    /// Hand up 408.
    Timeout,
    /// Hand up that the way is gone.
    Fail,
    /// Wait for the next answer.
    StartC,
    /// Wait for the end after a CANCEL.
    StartCancelled,
    /// Wait for more 2xx.
    StartM,
}

/// The table.
#[must_use]
pub const fn step(state: State, event: Event) -> Cell<State, Act> {
    use Event as E;
    use State::{Accepted, Calling, Cancelling, Ended, Proceeding};
    let (acts, next, by): (&'static [Act], State, &'static str) = match (state, event) {
        (Calling, E::Trying) => (
            &[Act::StartC],
            Proceeding,
            "RFC 3261 §17.1.1.2, §16.7 step 5",
        ),
        (Calling, E::Provisional) => (
            &[Act::StartC, Act::Pass],
            Proceeding,
            "RFC 3261 §17.1.1.2, §16.7 step 2",
        ),
        (Calling, E::Cancel) => (&[Act::HoldCancel], Calling, "RFC 3261 §9.1"),
        (Calling, E::TimerB) => (
            &[Act::TryNextOrTimeout],
            Ended,
            "RFC 3261 §17.1.1.2, §16.8, RFC 3263 §4.3",
        ),
        (Calling, E::Lost) => (&[Act::TryNext], Ended, "RFC 3261 §16.9, RFC 3263 §4.3"),
        (Calling, E::Unavailable) => (
            &[Act::Ack, Act::TryNext],
            Ended,
            "RFC 3261 §16.7 step 6, RFC 3263 §4.3",
        ),
        (Proceeding, E::Provisional) => (
            &[Act::StartC, Act::Pass],
            Proceeding,
            "RFC 3261 §16.7 step 2",
        ),
        (Proceeding, E::Cancel) => (
            &[Act::Cancel, Act::StartCancelled],
            Cancelling,
            "RFC 3261 §9.1, §16.10",
        ),
        (Proceeding, E::TimerC) => (
            &[Act::Cancel, Act::StartCancelled],
            Cancelling,
            "RFC 3261 §16.8",
        ),
        (Cancelling, E::Provisional) => (&[Act::Pass], Cancelling, "RFC 3261 §16.7 step 5"),
        (Cancelling, E::CancelledInVain) => (&[Act::Timeout], Ended, "RFC 3261 §9.1"),
        (Proceeding | Cancelling, E::Trying) => (&[], state, "RFC 3261 §16.7 step 5"),
        (Proceeding | Cancelling, E::Lost) => (&[Act::Fail], Ended, "RFC 3261 §16.9"),
        // Whoever has begun to work on it may have let others know.
        (Proceeding | Cancelling, E::Unavailable) => {
            (&[Act::Ack, Act::Pass], Ended, "RFC 3261 §16.7 step 6")
        }
        (Calling | Proceeding | Cancelling, E::Success) => {
            (&[Act::Pass, Act::StartM], Accepted, "RFC 6026 §7.2")
        }
        (Calling | Proceeding | Cancelling, E::Failure) => (
            &[Act::Ack, Act::Pass],
            Ended,
            "RFC 3261 §17.1.1.2, timer D is zero",
        ),
        (Accepted, E::Success) => (&[Act::Pass], Accepted, "RFC 6026 §7.2"),
        (Accepted, E::TimerM) => (&[], Ended, "RFC 6026 §7.2"),
        (Accepted, E::Trying | E::Provisional | E::Unavailable | E::Failure) => {
            (&[], Accepted, "RFC 6026 §7.2")
        }
        (Accepted, E::Cancel) => (&[], Accepted, "RFC 3261 §9.1: too late"),
        (Accepted, E::Lost) => (&[], Accepted, "RFC 3261 §16.7 step 5: answered already"),
        (Cancelling, E::Cancel) => (&[], Cancelling, "RFC 3261 §9.1: done already"),
        (Ended, E::Success) => (&[Act::Pass], Ended, "RFC 3261 §16.7 step 5"),
        (Calling, E::TimerC | E::CancelledInVain | E::TimerM)
        | (Proceeding, E::TimerB | E::CancelledInVain | E::TimerM)
        | (Cancelling, E::TimerB | E::TimerC | E::TimerM)
        | (Accepted, E::TimerB | E::TimerC | E::CancelledInVain) => (&[], state, "not set"),
        (
            Ended,
            E::Trying
            | E::Provisional
            | E::Unavailable
            | E::Failure
            | E::Cancel
            | E::TimerB
            | E::TimerC
            | E::CancelledInVain
            | E::TimerM
            | E::Lost,
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
            State::Calling,
            State::Proceeding,
            State::Cancelling,
            State::Accepted,
            State::Ended,
        ];
        let events = [
            Event::Trying,
            Event::Provisional,
            Event::Success,
            Event::Unavailable,
            Event::Failure,
            Event::Cancel,
            Event::TimerB,
            Event::TimerC,
            Event::CancelledInVain,
            Event::TimerM,
            Event::Lost,
        ];
        insta::assert_snapshot!(super::super::print(&states, &events, step));
    }
}

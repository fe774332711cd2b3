//! What the broker waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::agent::SessionKey;
use super::{ClientId, ControlId, DataId};

/// One deadline; each can be armed once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The HELLO of a control connection.
    Hello(ControlId),
    /// The hello of a data connection.
    DataHello(DataId),
    /// The next PING, and the answers to the last two.
    Heartbeat(SessionKey),
    /// The pool of a session: asked connections that did not come, parked ones that nobody needs.
    Pool(SessionKey),
    /// The end of a registration that has an end.
    Registration(SessionKey, u32),
    /// The number of a client.
    Preread(ClientId),
    /// One more digit at the end of what a client sent.
    Settle(ClientId),
    /// A parked data connection for a client.
    Lease(ClientId),
    /// The answer to an OPEN.
    Open(ClientId),
    /// The end of the relays when the edge stops.
    Drain,
}

/// All deadlines, the nearest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Instant, Timer)>,
    armed: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets the deadline, or moves it.
    pub(super) fn arm(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.armed.insert(timer, at);
        self.by_time.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.armed.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Takes one deadline that has passed.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.armed.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn deadlines_come_in_order_and_a_moved_one_once() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.arm(Timer::Heartbeat(SessionKey(1)), at(3));
        timers.arm(Timer::Pool(SessionKey(1)), at(2));
        timers.arm(Timer::Heartbeat(SessionKey(1)), at(1));
        timers.arm(Timer::Drain, at(1));
        timers.cancel(Timer::Drain);

        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.pop_due(at(9)), Some(Timer::Heartbeat(SessionKey(1))));
        assert_eq!(timers.pop_due(at(9)), Some(Timer::Pool(SessionKey(1))));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!((timers.next(), timers.len()), (None, 0));
    }
}

//! Whether the member at the far end of a link is still there.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::time::{Duration, Instant};

/// The heartbeat of one link, on the side that dialled.
#[derive(Debug)]
pub struct Heart {
    interval: Duration,
    misses_max: u32,
    /// Pings since the last answer.
    unanswered: u32,
    next: Instant,
}

/// What a link does when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Not yet.
    Rest,
    /// Send a ping.
    Ask,
    /// Too many pings had no answer: the member is gone, whatever TCP says.
    Dead,
}

impl Heart {
    /// Asks at once, and then every `interval`; after `misses_max` pings without an answer the member is dead.
    #[must_use]
    pub const fn new(now: Instant, interval: Duration, misses_max: u32) -> Self {
        Self {
            interval,
            misses_max,
            unanswered: 0,
            next: now,
        }
    }

    /// Something came from there: it lives.
    pub const fn handle_answer(&mut self) {
        self.unanswered = 0;
    }

    /// The time that [`Self::poll_timeout`] told has come.
    pub fn handle_timeout(&mut self, now: Instant) -> Beat {
        if now < self.next {
            return Beat::Rest;
        }
        if self.unanswered >= self.misses_max {
            return Beat::Dead;
        }
        self.unanswered += 1;
        self.next = now + self.interval;
        Beat::Ask
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_pings_without_an_answer_are_the_end() {
        let began = Instant::now();
        let mut heart = Heart::new(began, 2 * SECOND, 3);
        let mut at = |second: u32, answered: bool| {
            let beat = heart.handle_timeout(began + SECOND * second);
            if answered {
                heart.handle_answer();
            }
            beat
        };
        assert_eq!(at(0, true), Beat::Ask);
        assert_eq!(at(1, false), Beat::Rest);
        assert_eq!(at(2, false), Beat::Ask);
        assert_eq!(at(4, false), Beat::Ask);
        assert_eq!(at(6, false), Beat::Ask);
        assert_eq!(at(7, false), Beat::Rest);
        assert_eq!(at(8, false), Beat::Dead);
    }

    #[test]
    fn a_late_answer_counts() {
        let began = Instant::now();
        let mut heart = Heart::new(began, 2 * SECOND, 1);
        assert_eq!(heart.handle_timeout(began), Beat::Ask);
        heart.handle_answer();
        assert_eq!(heart.handle_timeout(began + 9 * SECOND), Beat::Ask);
        assert_eq!(heart.poll_timeout(), began + 11 * SECOND);
    }
}

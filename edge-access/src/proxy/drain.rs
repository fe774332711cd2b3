//! How a member that ends in order lets its clients go: a few a second, each at a moment at which it notices at once.
//!
//! A client that has just sent a keep-alive is awake and waits for nothing; with its connection closed it signs in again,
//! and the balancer takes it to another member. All at once would be a storm there. Whoever gives no sign of life within a
//! minute, as partners do between two messages, is let go at the end of it.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::time::{Duration, Instant};

use edge_common::time::Now;

use super::token::{FlowKey, Realm};
use super::{CloseReason, Proxy};

/// How many connections may have been closed so far.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    since: Instant,
    /// Connections to clients and partners when it began.
    total: u64,
    percent_per_second: u32,
    closed: u64,
    /// When the silent ones are looked at next.
    sweep: Instant,
}

impl Budget {
    /// From now on, of `total` connections.
    #[must_use]
    pub const fn new(now: Instant, total: u64, percent_per_second: u32) -> Self {
        Self {
            since: now,
            total,
            percent_per_second,
            closed: 0,
            sweep: now,
        }
    }

    /// When the silent connections are to be looked at.
    #[must_use]
    pub const fn next_sweep(&self) -> Instant {
        self.sweep
    }

    /// Takes one connection out of it, if there is one left. What nobody used at its time is left for later.
    pub fn take(&mut self, now: Instant) -> bool {
        let millis = now.saturating_duration_since(self.since).as_millis();
        let share = u128::from(self.total) * u128::from(self.percent_per_second) * millis;
        // One at least: a handful of connections does not wait until their hundredth part is a whole one.
        let allowed = 1 + share / (100 * 1000);
        if u128::from(self.closed) >= allowed {
            return false;
        }
        self.closed += 1;
        true
    }
}

impl Proxy {
    /// No new work is taken on from here. In an array the others take it, and connections are closed little by little.
    pub fn handle_drain(&mut self, now: Now) {
        self.draining = true;
        if self.settings.is_balanced && self.drain.is_none() {
            let outside = |flow: &&super::flow::Flow| flow.peer.realm() != Realm::Inside;
            let total = self.flows.iter().filter(outside).count() as u64;
            let percent = self.settings.drain_percent_per_second;
            self.drain = Some(Budget::new(now.mono, total, percent));
        }
    }

    /// Closes silent connections as far as there is a budget left, once a second while this member drains.
    pub(super) fn let_go_silent(&mut self, now: Now) {
        let Some(drain) = self.drain.as_mut().filter(|drain| drain.sweep <= now.mono) else {
            return;
        };
        drain.sweep = now.mono + SWEEP_INTERVAL;
        let silent = |flow: &super::flow::Flow| {
            flow.peer.realm() != Realm::Inside
                && now.mono.saturating_duration_since(flow.heard) >= SILENT
        };
        let mut gone = Vec::new();
        for (key, _) in self.flows.entries().filter(|(_, flow)| silent(flow)) {
            if !drain.take(now.mono) {
                break;
            }
            gone.push(key);
        }
        for key in gone {
            self.close(key, CloseReason::Drained);
        }
    }

    /// Closes the connection of a keep-alive that was just answered, when this member drains and the client does
    /// nothing else.
    pub(super) fn let_go(&mut self, now: Now, key: FlowKey) {
        let Some(flow) = self.flows.get(key) else {
            return;
        };
        let quiet = now.mono.saturating_duration_since(flow.said) >= QUIET;
        if flow.peer.realm() == Realm::Inside || !quiet {
            return;
        }
        let taken = self
            .drain
            .as_mut()
            .is_some_and(|drain| drain.take(now.mono));
        if taken {
            self.close(key, CloseReason::Drained);
        }
    }
}

/// Whoever sent no message for that long waits for no answer: 64 × T1 (RFC 3261 §17.1.2.2).
const QUIET: Duration = Duration::from_secs(32);
/// Whoever sends keep-alives does so more often than this, and is let go at one of them.
const SILENT: Duration = Duration::from_secs(60);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundredth_a_second_goes_and_what_was_left_goes_later() {
        let began = Instant::now();
        let mut budget = Budget::new(began, 1000, 1);
        let mut taken = |second: u64| {
            let now = began + Duration::from_secs(second);
            (0..2000).filter(|_| budget.take(now)).count()
        };
        assert_eq!(taken(0), 1);
        assert_eq!(taken(1), 10);
        assert_eq!(taken(1), 0);
        assert_eq!(taken(3), 20);
        assert_eq!(taken(100), 970);
    }

    #[test]
    fn a_few_clients_go_one_after_the_other() {
        let began = Instant::now();
        let mut budget = Budget::new(began, 3, 1);
        assert!(budget.take(began));
        assert!(!budget.take(began + Duration::from_secs(33)));
        assert!(budget.take(began + Duration::from_secs(34)));
    }
}

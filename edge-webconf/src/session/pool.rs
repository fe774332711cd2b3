//! The parked data connections of one session, and when to ask for more.
//!
//! ```text
//!   target = max(pool_min, 2 × joins of the last second) + clients that wait, at most pool_max
//!   WANT     while parked + asked < target
//! ```

use std::time::{Duration, Instant};

use super::DataId;

/// One session's pool.
#[derive(Debug)]
pub(super) struct Pool {
    /// In the order of arrival.
    parked: Vec<Parked>,
    min: u16,
    max: u16,
    /// Asked for and not arrived.
    asked: u16,
    /// When asked ones count as lost, and when the next WANT may go out after a failure.
    asked_until: Option<Instant>,
    hold_until: Option<Instant>,
    joins: Joins,
}

#[derive(Debug)]
struct Parked {
    id: DataId,
    since: Instant,
}

impl Pool {
    pub(super) fn new(min: u16, max: u16, now: Instant) -> Self {
        Self {
            parked: Vec::new(),
            min: min.min(max),
            max,
            asked: 0,
            asked_until: None,
            hold_until: None,
            joins: Joins::new(now),
        }
    }

    /// Parks a connection; `false` when the pool is full.
    pub(super) fn park(&mut self, now: Instant, id: DataId) -> bool {
        self.asked = self.asked.saturating_sub(1);
        if self.parked.len() >= usize::from(self.max) {
            return false;
        }
        self.parked.push(Parked { id, since: now });
        true
    }

    /// Leases the youngest connection of that core, else the youngest of all: the oldest are the
    /// ones that a firewall on the way may have forgotten.
    pub(super) fn lease(&mut self, now: Instant, core: u16) -> Option<DataId> {
        self.joins.count(now);
        let own = |parked: &Parked| parked.id.0.core == core;
        let at = self.parked.iter().rposition(own);
        let at = at.or_else(|| self.parked.len().checked_sub(1))?;
        Some(self.parked.remove(at).id)
    }

    /// Forgets a connection that went away by itself; `false` when it was not here.
    pub(super) fn remove(&mut self, id: DataId) -> bool {
        let before = self.parked.len();
        self.parked.retain(|parked| parked.id != id);
        self.parked.len() < before
    }

    /// The agent could not dial so many; it is not asked again at once.
    pub(super) fn failed(&mut self, now: Instant, count: u16) {
        self.asked = self.asked.saturating_sub(count);
        self.hold_until = Some(now + HOLD);
    }

    /// How many to ask for now, of which the caller tells the agent. `waiting` clients have no
    /// connection yet.
    pub(super) fn want(&mut self, now: Instant, waiting: usize) -> u16 {
        if self.asked_until.is_some_and(|until| until <= now) {
            self.asked = 0;
            self.asked_until = None;
        }
        if self.hold_until.is_some_and(|until| now < until) {
            return 0;
        }
        self.hold_until = None;
        let target = self.target(now, waiting);
        let missing = target.saturating_sub(self.parked.len() + usize::from(self.asked));
        let room = usize::from(DIALS_MAX.saturating_sub(self.asked));
        let count = u16::try_from(missing.min(room)).expect("at most DIALS_MAX");
        if count > 0 {
            self.asked += count;
            self.asked_until = Some(now + WANT_DEADLINE);
        }
        count
    }

    fn target(&mut self, now: Instant, waiting: usize) -> usize {
        let busy = 2 * self.joins.last_second(now);
        let target = usize::from(self.min).max(busy) + waiting;
        target.min(usize::from(self.max))
    }

    /// Takes out the connections that nobody has needed for a while.
    pub(super) fn surplus(&mut self, now: Instant) -> Vec<DataId> {
        let keep = self.target(now, 0);
        let over = self.parked.len().saturating_sub(keep);
        let old = self.parked.iter().take(over);
        let count = old
            .take_while(|parked| parked.since + SURPLUS_LIFE <= now)
            .count();
        self.parked.drain(..count).map(|parked| parked.id).collect()
    }

    /// When to look again at [`Pool::want`] and [`Pool::surplus`].
    pub(super) fn next_look(&self) -> Option<Instant> {
        let over = self.parked.len() > usize::from(self.min);
        let oldest = self
            .parked
            .first()
            .map(|parked| parked.since + SURPLUS_LIFE);
        let surplus = oldest.filter(|_| over);
        [self.asked_until, self.hold_until, surplus]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn len(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = DataId> + '_ {
        self.parked.iter().map(|parked| parked.id)
    }
}

/// Joins in the last whole second, without a list of them.
#[derive(Debug)]
struct Joins {
    second: Instant,
    this: usize,
    last: usize,
}

impl Joins {
    const fn new(now: Instant) -> Self {
        Self {
            second: now,
            this: 0,
            last: 0,
        }
    }

    fn count(&mut self, now: Instant) {
        self.turn(now);
        self.this += 1;
    }

    fn last_second(&mut self, now: Instant) -> usize {
        self.turn(now);
        self.this.max(self.last)
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.second);
        if passed >= 2 * SECOND {
            (self.second, self.this, self.last) = (now, 0, 0);
        } else if passed >= SECOND {
            (self.second, self.this, self.last) = (self.second + SECOND, 0, self.this);
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// EWRP/1: the agent dials so many at once.
const DIALS_MAX: u16 = 64;
/// What the WANT says; an asked connection that did not come by then is asked for anew.
pub(super) const WANT_DEADLINE: Duration = Duration::from_secs(5);
/// After a failed dial.
const HOLD: Duration = SECOND;
/// EWRP/1: unused parked connections above the target live so long.
const SURPLUS_LIFE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::ConnId;
    use super::*;

    fn data(core: u16, serial: u64) -> DataId {
        DataId(ConnId { core, serial })
    }

    #[test]
    fn asks_up_to_the_target_and_not_twice() {
        let start = Instant::now();
        let mut pool = Pool::new(4, 8, start);
        assert_eq!(pool.want(start, 0), 4);
        assert_eq!(pool.want(start, 0), 0);
        assert!(pool.park(start, data(0, 1)));
        assert_eq!(pool.want(start, 0), 0);
        // Clients that wait raise the target, the greatest pool bounds it.
        assert_eq!(pool.want(start, 2), 2);
        assert_eq!(pool.want(start, 100), 2 - 1 + 1);
        // What did not come is asked for anew after the deadline.
        assert_eq!(pool.want(start + WANT_DEADLINE, 0), 3);
    }

    #[test]
    fn a_large_pool_is_asked_for_in_portions() {
        let start = Instant::now();
        let mut pool = Pool::new(500, 512, start);
        assert_eq!(pool.want(start, 0), DIALS_MAX);
        assert_eq!(pool.want(start, 0), 0);
        for serial in 0..10 {
            assert!(pool.park(start, data(0, serial)));
        }
        assert_eq!(pool.want(start, 0), 10);
    }

    #[test]
    fn the_pool_grows_with_the_rate_of_joins() {
        let start = Instant::now();
        let mut pool = Pool::new(2, 100, start);
        for serial in 0..20 {
            assert!(pool.park(start, data(0, serial)));
        }
        for _ in 0..20 {
            assert!(pool.lease(start, 0).is_some());
        }
        assert_eq!(pool.want(start, 0), 40);
        assert_eq!(pool.target(start + SECOND, 0), 40);
        assert_eq!(pool.target(start + 3 * SECOND, 0), 2);
    }

    #[test]
    fn a_full_pool_parks_nothing_more() {
        let start = Instant::now();
        let mut pool = Pool::new(1, 2, start);
        assert!(pool.park(start, data(0, 1)));
        assert!(pool.park(start, data(0, 2)));
        assert!(!pool.park(start, data(0, 3)));
        assert!(pool.remove(data(0, 1)));
        assert!(!pool.remove(data(0, 1)));
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_lease_prefers_the_own_core_and_the_youngest() {
        let start = Instant::now();
        let mut pool = Pool::new(1, 8, start);
        for id in [data(0, 1), data(1, 1), data(0, 2), data(1, 2)] {
            assert!(pool.park(start, id));
        }
        assert_eq!(pool.lease(start, 0), Some(data(0, 2)));
        assert_eq!(pool.lease(start, 0), Some(data(0, 1)));
        assert_eq!(pool.lease(start, 0), Some(data(1, 2)));
        assert_eq!(pool.lease(start, 0), Some(data(1, 1)));
        assert_eq!(pool.lease(start, 0), None);
    }

    #[test]
    fn a_failed_dial_is_not_repeated_at_once() {
        let start = Instant::now();
        let mut pool = Pool::new(4, 8, start);
        assert_eq!(pool.want(start, 0), 4);
        pool.failed(start, 4);
        assert_eq!(pool.want(start, 3), 0);
        assert_eq!(pool.next_look(), Some(start + HOLD));
        assert_eq!(pool.want(start + HOLD, 0), 4);
    }

    #[test]
    fn what_is_above_the_target_lives_a_minute() {
        let start = Instant::now();
        let mut pool = Pool::new(1, 8, start);
        for serial in 0..3 {
            assert!(pool.park(start + serial as u32 * SECOND, data(0, serial)));
        }
        assert_eq!(pool.next_look(), Some(start + SURPLUS_LIFE));
        assert_eq!(pool.surplus(start + SURPLUS_LIFE), [data(0, 0)]);
        let late = start + 2 * SURPLUS_LIFE;
        assert_eq!(pool.surplus(late), [data(0, 1)]);
        assert_eq!(pool.surplus(late), []);
        assert_eq!(pool.len(), 1);
    }
}

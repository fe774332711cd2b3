//! How many allocations each user holds: a table of fixed size that all shards count in, without a lock.
//!
//! ```text
//!   one slot, 64 bits │ fingerprint of the user (48) │ allocations (16) │
//! ```
//!
//! A user has two buckets of sixteen slots, by its hash, and is counted in one of these slots. That many are looked at and
//! no more, however many users came before. A slot whose count is zero may be taken over by anybody; a quarter of the
//! slots is enough for all, so that both buckets of a user are never full by chance.
//!
//! Two shards may at once enter a user who holds nothing yet, and choose different slots because one before became free
//! in that very moment. Each looks again after it has written; who sees the other gives way and counts with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a user in the table: a hash that a stranger cannot choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(pub u64);

/// The table; cheap to clone.
#[derive(Clone, Debug)]
pub struct UserQuota(Arc<Table>);

#[derive(Debug)]
struct Table {
    slots: Box<[AtomicU64]>,
    limit: u64,
}

/// One allocation counted for a user; dropping it gives it back.
#[derive(Debug)]
pub struct UserPlace {
    table: Arc<Table>,
    slot: usize,
}

impl UserQuota {
    /// Room for `allocations` users that hold one each, with three quarters of the slots free even then.
    #[must_use]
    pub fn new(allocations: usize, limit: usize) -> Self {
        let slots = (allocations * 4).next_power_of_two().max(4 * BUCKET);
        let limit = (limit as u64).min(COUNT_MASK);
        Self(Arc::new(Table {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            limit,
        }))
    }

    /// Counts one more for `user`; `None` when it has its share.
    #[must_use]
    pub fn enter(&self, user: UserId) -> Option<UserPlace> {
        let table = &self.0;
        for _ in 0..ROUNDS_MAX {
            let (place, newcomer) = self.count(user)?;
            if !newcomer || table.slots_of(user).take(2).count() == 1 {
                return Some(place);
            }
            // Somebody has entered the same user elsewhere: this place is given back, and the other is found.
            drop(place);
        }
        // Others came and went in every round. A user that is counted twice gets more than its share, none gets less.
        self.count(user).map(|(place, _)| place)
    }

    /// Users that hold something.
    #[must_use]
    pub fn users(&self) -> usize {
        let held = |slot: &&AtomicU64| slot.load(Ordering::Relaxed) & COUNT_MASK != 0;
        self.0.slots.iter().filter(held).count()
    }

    /// Slots of the table.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.slots.len()
    }

    /// One more for `user`, and whether it is the first.
    fn count(&self, user: UserId) -> Option<(UserPlace, bool)> {
        let (table, fingerprint) = (&self.0, user.fingerprint());
        loop {
            let slot = table.find(user)?;
            let seen = table.slots[slot].load(Ordering::SeqCst);
            let held = match seen & COUNT_MASK {
                0 => 0,
                count if seen & !COUNT_MASK == fingerprint => count,
                // Taken by another user since it was found.
                _ => continue,
            };
            if held >= table.limit {
                return None;
            }
            let more = fingerprint | (held + 1);
            if table.slots[slot]
                .compare_exchange(seen, more, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
            {
                let place = UserPlace {
                    table: Arc::clone(table),
                    slot,
                };
                return Some((place, held == 0));
            }
        }
    }
}

impl UserId {
    const fn fingerprint(self) -> u64 {
        self.0 & !COUNT_MASK
    }
}

impl Table {
    /// The slot that counts `user`, else the first free one on its way; `None` if all are taken by others.
    fn find(&self, user: UserId) -> Option<usize> {
        self.slots_of(user).next().or_else(|| {
            let free = |slot: &usize| self.slots[*slot].load(Ordering::SeqCst) & COUNT_MASK == 0;
            self.way(user).find(free)
        })
    }

    /// The slots that count `user`.
    fn slots_of(&self, user: UserId) -> impl Iterator<Item = usize> + '_ {
        self.way(user).filter(move |&slot| {
            let seen = self.slots[slot].load(Ordering::SeqCst);
            seen & COUNT_MASK != 0 && seen & !COUNT_MASK == user.fingerprint()
        })
    }

    /// Where `user` may be counted: its first bucket, then its second, which lies in the other half of the table.
    fn way(&self, user: UserId) -> impl Iterator<Item = usize> {
        let half = self.slots.len() / 2;
        let bucket = |hash: u64| hash as usize & (half - 1) & !(BUCKET - 1);
        let (first, second) = (bucket(user.0 >> 16), half + bucket(user.0 >> 40));
        (first..first + BUCKET).chain(second..second + BUCKET)
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        self.table.slots[self.slot].fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sixteen bits of count under forty-eight of fingerprint.
const COUNT_MASK: u64 = 0xFFFF;
/// Slots of a bucket: two lines of the cache.
const BUCKET: usize = 16;
/// How often two shards may get into each other's way.
const ROUNDS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_its_own_share() {
        let quota = UserQuota::new(100, 2);
        let (ann, bob) = (UserId(0xAAAA_0000_0000), UserId(0xAAAA_0040_0000));
        let held = [quota.enter(ann), quota.enter(ann), quota.enter(bob)];
        assert!(held.iter().all(Option::is_some));
        assert!(quota.enter(ann).is_none());
        drop(held);
        assert!(quota.enter(ann).is_some());
    }

    #[test]
    fn as_many_users_as_allocations_fit_and_leave_no_trace() {
        let quota = UserQuota::new(1000, 1);
        let hash = |n: u64| UserId(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for _ in 0..3 {
            let held: Vec<_> = (0..1000)
                .map(|n| quota.enter(hash(n)).expect("room for all"))
                .collect();
            assert!(
                (0..1000).all(|n| quota.enter(hash(n)).is_none()),
                "each has its share"
            );
            assert_eq!(quota.users(), 1000);
            drop(held);
        }
        assert_eq!(quota.users(), 0);
    }

    #[test]
    fn however_many_came_before_only_32_slots_are_looked_at() {
        let quota = UserQuota::new(10_000, 1);
        let hash = |n: u64| UserId(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for n in 0..200_000 {
            drop(quota.enter(hash(n)).expect("nobody else is there"));
        }
        let used = |slot: &AtomicU64| slot.load(Ordering::Relaxed) != 0;
        let ever_used = quota.0.slots.iter().filter(|slot| used(slot)).count();
        assert!(ever_used > 1000, "{ever_used}");
        for n in 0..1000 {
            let mut way: Vec<_> = quota.0.way(hash(n)).collect();
            way.sort_unstable();
            way.dedup();
            assert_eq!(way.len(), 2 * BUCKET);
            assert!(way.iter().all(|&slot| slot < quota.slots()));
        }
        // Those whose buckets are full are refused at once; the table does not grow or search.
        let crowd: Vec<_> = (0..40)
            .map(|n| quota.enter(UserId(n << 58 | 0xABC_0000)))
            .collect();
        assert!(crowd[..2 * BUCKET].iter().all(Option::is_some));
        assert!(crowd[2 * BUCKET..].iter().all(Option::is_none));
    }

    #[test]
    fn a_new_user_of_two_shards_is_counted_once_while_others_come_and_go() {
        use std::sync::Barrier;
        use std::sync::atomic::AtomicBool;
        let (quota, ended) = (UserQuota::new(64, 1), AtomicBool::new(false));
        let (begin, both) = (Barrier::new(2), Barrier::new(2));
        // All of them in the first bucket, so that slots before the newcomer's become free all the time.
        let other = |n: u64| UserId((n + 1) << 56 | 0x10_0000);
        let newcomer = UserId(0xFF << 56 | 0x10_0000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in (0..8).cycle() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    drop([quota.enter(other(n)), quota.enter(other(n + 8))]);
                }
            });
            let race = || {
                let mut got = Vec::new();
                for _ in 0..5000 {
                    begin.wait();
                    let place = quota.enter(newcomer);
                    both.wait();
                    got.push(place.is_some());
                }
                got
            };
            let rival = scope.spawn(race);
            let got = race();
            let rival = rival.join().expect("no panic");
            ended.store(true, Ordering::Relaxed);
            let twice = got.iter().zip(&rival).filter(|&(a, b)| *a && *b).count();
            assert_eq!(twice, 0);
        });
    }

    #[test]
    fn threads_that_race_for_one_user_stop_at_the_limit() {
        let quota = UserQuota::new(64, 50);
        let held: usize = std::thread::scope(|scope| {
            let enter = || {
                (0..40)
                    .filter_map(|_| quota.enter(UserId(0x1234_5678_0000)))
                    .collect::<Vec<_>>()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
            let places: Vec<_> = workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .collect();
            places.iter().map(Vec::len).sum()
        });
        assert_eq!(held, 50);
    }
}

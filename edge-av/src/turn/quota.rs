//! How many allocations each user holds: a table of fixed size that all shards count in, without a lock.
//!
//! ```text
//!   one slot, 64 bits │ fingerprint of the user (48) │ allocations (16) │
//! ```
//!
//! A user is looked for in the slots that follow its hash. A slot whose count is zero may be taken over by anybody.
//! Where two shards at once enter a user who holds nothing yet and a slot before becomes free in that very moment, the
//! user may be counted in two slots, each up to the limit; nobody ever gets less than the limit.

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
    /// Room for `allocations` users that hold one each, with half of the slots free even then.
    #[must_use]
    pub fn new(allocations: usize, limit: usize) -> Self {
        let slots = (allocations * 2).next_power_of_two().max(64);
        let limit = (limit as u64).min(COUNT_MASK);
        Self(Arc::new(Table {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            limit,
        }))
    }

    /// Counts one more for `user`; `None` when it has its share.
    #[must_use]
    pub fn enter(&self, user: UserId) -> Option<UserPlace> {
        let (table, fingerprint) = (&self.0, user.0 & !COUNT_MASK);
        loop {
            let slot = table.find(user)?;
            let seen = table.slots[slot].load(Ordering::Relaxed);
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
                .compare_exchange(seen, more, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return Some(UserPlace {
                    table: Arc::clone(table),
                    slot,
                });
            }
        }
    }
}

impl Table {
    /// The slot that counts `user`, else the first free one on its way; `None` if all are taken by others.
    fn find(&self, user: UserId) -> Option<usize> {
        let (mask, start, mut free) = (self.slots.len() - 1, (user.0 >> 16) as usize, None);
        for step in 0..self.slots.len() {
            let slot = (start + step) & mask;
            let seen = self.slots[slot].load(Ordering::Relaxed);
            match seen & COUNT_MASK {
                0 => {
                    free.get_or_insert(slot);
                    // A slot that never held anybody ends the way.
                    if seen == 0 {
                        break;
                    }
                }
                _ if seen & !COUNT_MASK == user.0 & !COUNT_MASK => return Some(slot),
                _ => {}
            }
        }
        free
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        // The fingerprint stays: it marks that the way to others may lead past here.
        self.table.slots[self.slot].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sixteen bits of count under forty-eight of fingerprint.
const COUNT_MASK: u64 = 0xFFFF;

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
            drop(held);
        }
        assert!(
            quota
                .0
                .slots
                .iter()
                .all(|slot| slot.load(Ordering::Relaxed) & COUNT_MASK == 0)
        );
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

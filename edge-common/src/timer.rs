//! A hierarchical timer wheel: many deadlines, O(1) to set and to cancel, one cheap question for the next wake-up.
//!
//! ```text
//!   level 0:  64 slots of 1 tick     │ deadline and current tick differ only in the lowest 6 bits
//!   level 1:  64 slots of 64 ticks   │ … in the next 6 bits
//!   …                                │ a slot of a higher level is dealt out to the lower ones when its time begins
//! ```
//!
//! Time comes in as an argument. A timer never fires early; it fires at most one tick late.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::time::{Duration, Instant};

/// Deadlines with a small key each. `K` says whose timer it is; the wheel does not look into it.
#[derive(Debug)]
pub struct Wheel<K> {
    start: Instant,
    tick: Duration,
    /// Ticks up to and including this one have been handed out.
    elapsed: u64,
    levels: [Level; LEVELS],
    entries: Vec<Entry<K>>,
    free: u32,
    due: List,
    len: usize,
    capacity: usize,
}

/// Names a timer that was set; using it after the timer has fired does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// As many timers are set as the wheel was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the timer wheel is full")]
pub struct WheelFull;

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Bit n: slot n is not empty.
    occupied: u64,
    slots: [List; SLOTS],
}

/// A doubly linked list through `Wheel::entries`.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Entry<K> {
    generation: u32,
    /// Free entries use it as the link of the free list.
    next: u32,
    previous: u32,
    expiry: u64,
    place: Place,
    key: Option<K>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Due,
    Slot { level: u8, slot: u8 },
}

impl<K> Wheel<K> {
    /// An empty wheel for at most `capacity` timers, with the resolution `tick`.
    #[must_use]
    pub fn new(now: Instant, tick: Duration, capacity: usize) -> Self {
        Self {
            start: now,
            tick: tick.max(Duration::from_micros(1)),
            elapsed: 0,
            levels: [Level::EMPTY; LEVELS],
            entries: Vec::new(),
            free: NONE,
            due: List::EMPTY,
            len: 0,
            capacity: capacity.min(NONE as usize),
        }
    }

    /// Sets a timer. A deadline in the past is due at the next [`Wheel::pop_due`].
    pub fn insert(&mut self, deadline: Instant, key: K) -> Result<TimerId, WheelFull> {
        if self.len == self.capacity {
            return Err(WheelFull);
        }
        let expiry = self.tick_after(deadline);
        let index = self.take_free();
        let entry = &mut self.entries[index as usize];
        entry.expiry = expiry;
        entry.key = Some(key);
        let generation = entry.generation;
        self.len += 1;
        self.place(index);
        Ok(TimerId { index, generation })
    }

    /// Takes a timer away before it fires; `None` if it has fired or was cancelled.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation != id.generation || entry.place == Place::Free {
            return None;
        }
        self.unlink(id.index);
        self.release(id.index)
    }

    /// Hands out one timer whose deadline has come. Call it until it gives `None`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.due.first == NONE {
            self.turn(now);
        }
        let index = self.due.first;
        if index == NONE {
            return None;
        }
        self.unlink(index);
        self.release(index)
    }

    /// When [`Wheel::pop_due`] wants to be asked again: never after the nearest deadline, and for a deadline that is
    /// far away perhaps before it (the wheel then deals a slot out and names a later moment).
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        if self.due.first != NONE {
            return Some(self.instant(self.elapsed));
        }
        self.next_slot().map(|slot| self.instant(slot.begins))
    }

    /// Timers that are set.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No timer is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves everything that is due at `now` into the due list.
    fn turn(&mut self, now: Instant) {
        let target = self.tick_before(now);
        while let Some(next) = self.next_slot() {
            if next.begins > target {
                break;
            }
            self.elapsed = next.begins.max(self.elapsed);
            let list = self.levels[next.level].take(next.slot);
            self.deal_out(list);
        }
        self.elapsed = self.elapsed.max(target);
    }

    fn deal_out(&mut self, list: List) {
        let mut index = list.first;
        while index != NONE {
            let next = self.entries[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    /// Puts an unlinked entry where its expiry belongs, seen from the current tick.
    fn place(&mut self, index: u32) {
        let expiry = self.entries[index as usize].expiry;
        let place = if expiry <= self.elapsed {
            Place::Due
        } else {
            slot_of(self.elapsed, expiry)
        };
        self.link(index, place);
    }

    fn next_slot(&self) -> Option<NextSlot> {
        // All deadlines of a level lie before all of the next one, so the first level that holds any decides.
        let (number, level) = self
            .levels
            .iter()
            .enumerate()
            .find(|(_, level)| level.occupied != 0)?;
        let shift = SLOT_BITS * number as u32;
        let current = (self.elapsed >> shift) as u32 % SLOTS as u32;
        let ahead = level.occupied.rotate_right(current).trailing_zeros();
        let begins = ((self.elapsed >> shift) + u64::from(ahead)) << shift;
        Some(NextSlot {
            level: number,
            slot: ((current + ahead) as usize) % SLOTS,
            begins,
        })
    }

    fn tick_after(&self, deadline: Instant) -> u64 {
        let since = deadline.saturating_duration_since(self.start).as_nanos();
        let ticks = since.div_ceil(self.tick.as_nanos());
        u64::try_from(ticks).map_or(EXPIRY_MAX, |ticks| ticks.min(EXPIRY_MAX))
    }

    fn tick_before(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_nanos();
        u64::try_from(since / self.tick.as_nanos()).map_or(EXPIRY_MAX, |t| t.min(EXPIRY_MAX))
    }

    fn instant(&self, ticks: u64) -> Instant {
        let nanos = u128::from(ticks) * self.tick.as_nanos();
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn take_free(&mut self) -> u32 {
        if self.free == NONE {
            self.entries.push(Entry {
                generation: 0,
                next: NONE,
                previous: NONE,
                expiry: 0,
                place: Place::Free,
                key: None,
            });
            return self.entries.len() as u32 - 1;
        }
        let index = self.free;
        self.free = self.entries[index as usize].next;
        index
    }

    fn release(&mut self, index: u32) -> Option<K> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = Place::Free;
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        entry.key.take()
    }

    fn link(&mut self, index: u32, place: Place) {
        let last = self.list(place).last;
        let entry = &mut self.entries[index as usize];
        entry.place = place;
        entry.previous = last;
        entry.next = NONE;
        if last == NONE {
            self.list(place).first = index;
        } else {
            self.entries[last as usize].next = index;
        }
        self.list(place).last = index;
        if let Place::Slot { level, slot } = place {
            self.levels[usize::from(level)].occupied |= 1 << slot;
        }
    }

    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (place, previous, next) = (entry.place, entry.previous, entry.next);
        match previous {
            NONE => self.list(place).first = next,
            before => self.entries[before as usize].next = next,
        }
        match next {
            NONE => self.list(place).last = previous,
            after => self.entries[after as usize].previous = previous,
        }
        if let Place::Slot { level, slot } = place
            && self.list(place).first == NONE
        {
            self.levels[usize::from(level)].occupied &= !(1 << slot);
        }
    }

    fn list(&mut self, place: Place) -> &mut List {
        match place {
            Place::Slot { level, slot } => {
                &mut self.levels[usize::from(level)].slots[usize::from(slot)]
            }
            // Free entries are never linked here; `Due` is the only other list.
            Place::Due | Place::Free => &mut self.due,
        }
    }
}

struct NextSlot {
    level: usize,
    slot: usize,
    begins: u64,
}

impl Level {
    const EMPTY: Self = Self {
        occupied: 0,
        slots: [List::EMPTY; SLOTS],
    };

    const fn take(&mut self, slot: usize) -> List {
        self.occupied &= !(1 << slot);
        std::mem::replace(&mut self.slots[slot], List::EMPTY)
    }
}

impl List {
    const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };
}

/// The level is where the highest bit lies in which the two differ.
const fn slot_of(elapsed: u64, expiry: u64) -> Place {
    let highest = 63 - ((elapsed ^ expiry) | 1).leading_zeros();
    let level = highest / SLOT_BITS;
    let slot = (expiry >> (SLOT_BITS * level)) % SLOTS as u64;
    Place::Slot {
        level: level as u8,
        slot: slot as u8,
    }
}

const NONE: u32 = u32::MAX;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 7;
/// 2^42 ticks: 139 years of milliseconds. Later deadlines count as this one.
const EXPIRY_MAX: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timers_fire_in_order_and_never_early() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, MS, 10);
        for millis in [300, 5, 70, 100_000, 4096] {
            wheel.insert(start + millis * MS, millis).expect("room");
        }
        assert!(due(&mut wheel, start + 4 * MS).is_empty());
        assert_eq!(due(&mut wheel, start + 5 * MS), [5]);
        assert_eq!(due(&mut wheel, start + 4095 * MS), [70, 300]);
        assert_eq!(due(&mut wheel, start + 99_999 * MS), [4096]);
        assert_eq!(due(&mut wheel, start + 100_000 * MS), [100_000]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, MS, 10);
        assert!(due(&mut wheel, start + 50 * MS).is_empty());
        wheel.insert(start + 10 * MS, 1).expect("room");
        assert_eq!(wheel.next_wake(), Some(start + 50 * MS));
        assert_eq!(due(&mut wheel, start + 50 * MS), [1]);
    }

    #[test]
    fn a_cancelled_timer_is_gone_and_its_id_names_no_later_one() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, MS, 10);
        let id = wheel.insert(start + 10 * MS, 1).expect("room");
        assert_eq!(wheel.cancel(id), Some(1));
        let later = wheel.insert(start + 10 * MS, 2).expect("room");
        assert_eq!(wheel.cancel(id), None);
        assert_eq!(due(&mut wheel, start + 10 * MS), [2]);
        assert_eq!(wheel.cancel(later), None);
    }

    #[test]
    fn a_full_wheel_refuses_and_keeps_what_it_has() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, MS, 1);
        wheel.insert(start + MS, 1).expect("room");
        assert_eq!(wheel.insert(start + MS, 2), Err(WheelFull));
        assert_eq!(due(&mut wheel, start + MS), [1]);
        assert!(wheel.insert(start + MS, 3).is_ok());
    }

    #[test]
    fn entries_are_used_again() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, MS, 1000);
        for round in 0..1000 {
            let id = wheel.insert(start + 5000 * MS, round).expect("room");
            assert_eq!(wheel.cancel(id), Some(round));
        }
        assert_eq!(wheel.entries.len(), 1);
    }

    proptest! {
        /// The oracle is a sorted list: at each step both agree on which timers are due, and the wheel never asks to be
        /// woken after the nearest deadline.
        #[test]
        fn agrees_with_a_sorted_list(steps in proptest::collection::vec(step(), 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut wheel = Wheel::new(start, MS, 1000);
            let mut list: Vec<(Instant, TimerId, usize)> = Vec::new();
            for (key, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(after) => {
                        let deadline = now + after * MS;
                        let id = wheel.insert(deadline, key).expect("room");
                        list.push((deadline, id, key));
                    }
                    Step::Cancel(which) if !list.is_empty() => {
                        let (_, id, key) = list.remove(which % list.len());
                        prop_assert_eq!(wheel.cancel(id), Some(key));
                    }
                    Step::Cancel(_) => {}
                    Step::Wait(millis) => now += millis * MS,
                }
                let nearest = list.iter().map(|entry| entry.0).min();
                prop_assert_eq!(wheel.next_wake().is_some(), nearest.is_some());
                prop_assert!(wheel.next_wake() <= nearest.map(|at| at.max(now)));
                let mut expected: Vec<_> = list.iter().filter(|t| t.0 <= now).map(|t| t.2).collect();
                list.retain(|timer| timer.0 > now);
                let mut fired = due(&mut wheel, now);
                fired.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(fired, expected);
                prop_assert_eq!(wheel.len(), list.len());
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32),
        Cancel(usize),
        Wait(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop_oneof![0u32..100, 0u32..10_000, 0u32..100_000_000].prop_map(Step::Insert),
            any::<usize>().prop_map(Step::Cancel),
            prop_oneof![0u32..10, 0u32..5_000, 0u32..1_000_000].prop_map(Step::Wait),
        ]
    }

    fn due<K>(wheel: &mut Wheel<K>, now: Instant) -> Vec<K> {
        std::iter::from_fn(|| wheel.pop_due(now)).collect()
    }

    const MS: Duration = Duration::from_millis(1);
}

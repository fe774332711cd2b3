//! What one discovered partner may send, counted where its connections live.
//!
//! A partner may have connections on several cores. All of them hold the same [`Meter`], which the owner of
//! the watch list made when it first proved the partner: a message costs a few atomic operations and no letter
//! to the owner, and the limits hold exactly over all cores together. The owner alone reads the responses out of it and
//! decides who is suspicious (`proxy::watch`).
//!
//! ```text
//!  request ─► blocked? ─► rate (20/s, 1/s when suspicious) ─► address new? ─► room for it? ─► passes
//! ```
//!
//! A meter takes 16 bytes for each local address that it may remember and 100 besides; there are at most
//! `limits.watch_list` of them.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_common::limit::{HashKey, Rate};

/// What an operator decided on one certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mode {
    /// The limits hold.
    #[default]
    Auto,
    /// No limit holds.
    Allow,
    /// Nothing is taken.
    Block,
}

impl Mode {
    /// The word for it in answers and files.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Allow => "allow",
            Self::Block => "block",
        }
    }

    const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Allow,
            2 => Self::Block,
            _ => Self::Auto,
        }
    }
}

/// What a discovered partner may do; the defaults are those of the product that partners know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests, as long as it behaves.
    pub rate: Rate,
    /// Requests, while it is suspicious.
    pub suspicious: Rate,
    /// Distinct local addresses within [`CONTACT_WINDOW`].
    pub contacts: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            rate: Rate {
                per_second: 20,
                burst: 40,
            },
            suspicious: Rate {
                per_second: 1,
                burst: 2,
            },
            contacts: 1000,
        }
    }
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// An operator blocked the certificate.
    Blocked,
    /// Too many requests a second.
    Rate,
    /// An address that it has not written to before, and it has written to too many.
    Contacts,
}

/// The counts of one certificate. All its connections share it.
#[derive(Debug)]
pub struct Meter {
    /// Moments are kept as nanoseconds after it.
    start: Instant,
    allowance: Allowance,
    mode: AtomicU8,
    suspect: AtomicBool,
    full_again: AtomicU64,
    contacts: Contacts,
    /// Responses since the owner last took them.
    good: AtomicU32,
    failed: AtomicU32,
    requests: AtomicU64,
    refused: [AtomicU64; 3],
}

/// What a meter has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests, those that were refused among them.
    pub requests: u64,
    /// Of these refused for their rate.
    pub over_rate: u64,
    /// Of these refused for a new address.
    pub over_contacts: u64,
    /// Of these refused because an operator said so.
    pub blocked: u64,
    /// Local addresses that it wrote to within the window.
    pub contacts: usize,
}

impl Meter {
    /// Counts from `now` on; `key` keeps strangers from choosing addresses that look alike to it.
    #[must_use]
    pub fn new(now: Instant, allowance: Allowance, key: HashKey) -> Self {
        Self {
            start: now,
            allowance,
            mode: AtomicU8::new(Mode::Auto as u8),
            suspect: AtomicBool::new(false),
            full_again: AtomicU64::new(0),
            contacts: Contacts::new(allowance.contacts, key),
            good: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            refused: Default::default(),
        }
    }

    /// Takes a request, or says why not. `address` is the local one that it is for, user and host; `None` within a dialog.
    pub fn admit(&self, now: Instant, address: Option<[&[u8]; 2]>) -> Result<(), Excess> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let taken = match self.mode() {
            Mode::Allow => Ok(()),
            Mode::Block => Err(Excess::Blocked),
            Mode::Auto if !self.spend(now) => Err(Excess::Rate),
            Mode::Auto => match address {
                Some(address) if !self.contacts.admit(self.minute(now), address) => {
                    Err(Excess::Contacts)
                }
                Some(_) | None => Ok(()),
            },
        };
        if let Err(excess) = taken {
            self.refused[excess as usize].fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Counts how one of its requests was answered.
    pub fn answered(&self, is_good: bool) {
        let counter = if is_good { &self.good } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What an operator decided.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::of(self.mode.load(Ordering::Relaxed))
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Whether the lower rate holds.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(super) fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    /// Good and failed responses since the last call.
    pub(super) fn take_responses(&self) -> (u32, u32) {
        let take = |counter: &AtomicU32| counter.swap(0, Ordering::Relaxed);
        (take(&self.good), take(&self.failed))
    }

    /// Forgets addresses that were not written to for the window, so that others have room.
    pub(super) fn sweep(&self, now: Instant) {
        self.contacts.sweep(self.minute(now));
    }

    /// Forgets all addresses, and that the rate was used up.
    pub(super) fn reset(&self) {
        self.contacts.clear();
        self.full_again.store(0, Ordering::Relaxed);
        self.take_responses();
    }

    /// What was counted.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let refused = |why: Excess| self.refused[why as usize].load(Ordering::Relaxed);
        Counted {
            requests: self.requests.load(Ordering::Relaxed),
            over_rate: refused(Excess::Rate),
            over_contacts: refused(Excess::Contacts),
            blocked: refused(Excess::Blocked),
            contacts: self.contacts.len(),
        }
    }

    /// As `limit::TokenBucket`, with its one moment in an atomic.
    fn spend(&self, now: Instant) -> bool {
        let rate = if self.is_suspect() {
            self.allowance.suspicious
        } else {
            self.allowance.rate
        };
        if rate.per_second == 0 {
            return false;
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(now.saturating_duration_since(self.start));
        let interval = nanos(Duration::from_secs(1)) / u64::from(rate.per_second);
        let tolerance = interval.saturating_mul(u64::from(rate.burst.max(1) - 1));
        self.full_again
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_again| {
                let from = full_again.max(now);
                (from <= now + tolerance).then(|| from + interval)
            })
            .is_ok()
    }

    /// Minutes since the start, from one on, as zero marks an empty place.
    fn minute(&self, now: Instant) -> u16 {
        let minutes = now.saturating_duration_since(self.start).as_secs() / 60;
        (minutes % u64::from(u16::MAX)) as u16 + 1
    }
}

/// Distinct addresses, as 48 bits of their keyed hash and the minute in which each was last seen.
///
/// Open addressing without deletion: a place is empty, or holds an address that is remembered or has expired; the next new
/// address on its way takes over an expired one.
#[derive(Debug)]
struct Contacts {
    key: HashKey,
    max: usize,
    places: Box<[AtomicU64]>,
    /// How many are remembered; exact after each sweep, at most a few too many in between.
    used: AtomicU32,
}

impl Contacts {
    fn new(max: usize, key: HashKey) -> Self {
        let places = (max.max(1) * 2).next_power_of_two();
        Self {
            key,
            max,
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
            used: AtomicU32::new(0),
        }
    }

    /// Remembers an address; `false` when it is new and there are too many.
    fn admit(&self, minute: u16, address: [&[u8]; 2]) -> bool {
        let hash = self.hash(address);
        let mask = self.places.len() - 1;
        let mut room = None;
        for step in 0..self.places.len() {
            let place = &self.places[(hash as usize).wrapping_add(step) & mask];
            let held = place.load(Ordering::Relaxed);
            if held != 0 && held >> MINUTE_BITS == hash {
                if is_fresh(held, minute) {
                    place.store(entry(hash, minute), Ordering::Relaxed);
                    return true;
                }
                room = room.or(Some((place, held)));
                break;
            }
            if held == 0 || !is_fresh(held, minute) {
                room = room.or(Some((place, held)));
            }
            if held == 0 {
                break;
            }
        }
        let Some((place, held)) = room.filter(|_| self.len() < self.max) else {
            return false;
        };
        // Another core may have been quicker; then this address is remembered when it comes next.
        let placed = place.compare_exchange(
            held,
            entry(hash, minute),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if placed.is_ok() {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn sweep(&self, minute: u16) {
        let fresh = |place: &&AtomicU64| {
            let held = place.load(Ordering::Relaxed);
            held != 0 && is_fresh(held, minute)
        };
        let used = self.places.iter().filter(fresh).count();
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        self.used.store(used, Ordering::Relaxed);
    }

    fn clear(&self) {
        for place in &self.places {
            place.store(0, Ordering::Relaxed);
        }
        self.used.store(0, Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.used.load(Ordering::Relaxed) as usize
    }

    fn hash(&self, [user, host]: [&[u8]; 2]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.key);
        hasher.write_usize(user.len());
        for byte in user.iter().chain(host) {
            hasher.write_u8(byte.to_ascii_lowercase());
        }
        hasher.finish() >> MINUTE_BITS
    }
}

const fn entry(hash: u64, minute: u16) -> u64 {
    hash << MINUTE_BITS | minute as u64
}

/// Whether an entry was seen within the window before `minute`; the count of minutes goes round after 45 days.
const fn is_fresh(held: u64, minute: u16) -> bool {
    let seen = (held & 0xffff) as u16;
    let age = if minute >= seen {
        minute - seen
    } else {
        minute + (u16::MAX - seen)
    };
    (age as u64) < CONTACT_WINDOW.as_secs() / 60
}

/// Addresses that were not written to for so long are no longer counted.
pub const CONTACT_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE_BITS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(start: Instant, contacts: usize) -> Meter {
        let allowance = Allowance {
            contacts,
            ..Allowance::default()
        };
        Meter::new(start, allowance, [7; 16])
    }

    #[test]
    fn twenty_a_second_pass_and_one_a_second_when_suspicious() {
        let start = Instant::now();
        let meter = meter(start, 10);
        let sent_in = |from: u64, seconds: u64| {
            (from * 1000..(from + seconds) * 1000)
                .step_by(10)
                .filter(|&ms| meter.admit(start + Duration::from_millis(ms), None).is_ok())
                .count()
        };
        assert_eq!(sent_in(0, 10), 239, "the burst, then 20 a second");
        assert_eq!(sent_in(10, 10), 200);
        meter.set_suspect(true);
        let slow = sent_in(20, 10);
        assert!((8..=10).contains(&slow), "{slow}");
        assert_eq!(meter.counted().requests, 3000);
        assert_eq!(
            meter.counted().over_rate,
            3000 - 439 - u64::try_from(slow).expect("few")
        );
    }

    #[test]
    fn so_many_addresses_are_known_and_a_new_one_waits_for_a_day() {
        let start = Instant::now();
        let meter = meter(start, 100);
        let write = |at: Duration, n: usize| {
            let user = format!("user{n}");
            meter.admit(start + at, Some([user.as_bytes(), b"contoso.test"]))
        };
        let second = |n: usize| Duration::from_secs(n as u64);
        for n in 0..100 {
            assert_eq!(write(second(n), n), Ok(()), "{n}");
        }
        assert_eq!(write(second(200), 100), Err(Excess::Contacts));
        assert_eq!(write(second(201), 99), Ok(()), "a known one passes");
        assert_eq!(
            meter.admit(start + second(202), Some([b"USER7", b"Contoso.test"])),
            Ok(()),
            "however it is written"
        );
        assert_eq!(meter.counted().contacts, 100);
        let tomorrow = CONTACT_WINDOW + second(120);
        meter.sweep(start + tomorrow);
        assert_eq!(meter.counted().contacts, 2, "those that were seen later");
        for n in 200..298 {
            assert_eq!(write(tomorrow + second(n), n), Ok(()), "{n}");
        }
        assert_eq!(write(tomorrow + second(300), 300), Err(Excess::Contacts));
    }

    #[test]
    fn an_operator_may_lift_the_limits_or_take_nothing() {
        let start = Instant::now();
        let meter = meter(start, 1);
        meter.set_mode(Mode::Allow);
        for n in 0..1000_u32 {
            assert_eq!(meter.admit(start, Some([&n.to_be_bytes(), b""])), Ok(()));
        }
        meter.set_mode(Mode::Block);
        assert_eq!(meter.admit(start, None), Err(Excess::Blocked));
        meter.set_mode(Mode::Auto);
        assert_eq!(meter.admit(start, Some([b"a", b""])), Ok(()));
        assert_eq!(meter.admit(start, Some([b"b", b""])), Err(Excess::Contacts));
        meter.reset();
        assert_eq!(meter.admit(start, Some([b"b", b""])), Ok(()));
    }

    #[test]
    fn months_of_other_addresses_fill_no_table_for_ever() {
        let start = Instant::now();
        let meter = meter(start, 8);
        for day in 0..60_u64 {
            let now = start + (CONTACT_WINDOW + Duration::from_secs(3600)) * day as u32;
            meter.sweep(now);
            for n in 0..8_u64 {
                let address = (day * 8 + n).to_be_bytes();
                assert_eq!(meter.admit(now, Some([&address, b""])), Ok(()), "day {day}");
            }
            assert_eq!(
                meter.admit(now, Some([b"one", b"more"])),
                Err(Excess::Contacts)
            );
        }
    }
}

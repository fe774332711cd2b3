//! Bounds with a name: how many at once, and how many a second, for all together and for each source.
//!
//! Three shapes cover every limit of the daemons:
//!
//! - [`TokenBucket`]: so many a second with a burst, for one thing that has an owner;
//! - [`Cap`]: so many at once, process-wide, given back when the [`Permit`] is dropped;
//! - [`SourceCap`] and [`SourceRate`]: the same two for each source address. They are tables of a fixed size, so
//!   a flood from many addresses costs no memory. Two sources that share a slot are counted together; each source
//!   has two slots, and it is refused only when both say so. The slots come from a keyed hash, so a
//!   stranger cannot choose whom he shares them with.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::time::Now;

/// So many events a second on average, and so many at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The average; 0 refuses everything.
    pub per_second: u32,
    /// How many may come in one moment; at least 1 is taken.
    pub burst: u32,
}

impl Rate {
    /// The time that one event uses up. A rate of 0 has none: see [`Rate::is_never`].
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }

    /// How far ahead of the clock the bucket may be spent.
    fn tolerance(self) -> Duration {
        self.interval() * (self.burst.max(1) - 1)
    }

    const fn is_never(self) -> bool {
        self.per_second == 0
    }
}

/// A rate limit with a burst, kept as one moment in time ("theoretical arrival time") instead of a token count.
///
/// ```text
///   clock ───────┬──────────────────► earliest moment at which the bucket is full again
///               now   ≤ tolerance
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: Rate,
    full_again: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_again: None,
        }
    }

    /// Takes one token, or says that there is none.
    pub fn take(&mut self, now: Now) -> bool {
        self.take_many(now, 1)
    }

    /// Takes `count` tokens, or none of them.
    pub fn take_many(&mut self, now: Now, count: u32) -> bool {
        if self.rate.is_never() {
            return false;
        }
        let spent_until = self.full_again.map_or(now.mono, |at| at.max(now.mono));
        let wanted = self.rate.interval() * count.saturating_sub(1);
        if spent_until + wanted > now.mono + self.rate.tolerance() {
            return false;
        }
        self.full_again = Some(spent_until + self.rate.interval() * count);
        true
    }

    /// When one token will be there; `None` if the rate is 0 and it never will.
    #[must_use]
    pub fn next_token(&self, now: Now) -> Option<Instant> {
        if self.rate.is_never() {
            return None;
        }
        let Some(full_again) = self.full_again else {
            return Some(now.mono);
        };
        let at = full_again
            .checked_sub(self.rate.tolerance())
            .unwrap_or(now.mono);
        Some(at.max(now.mono))
    }
}

/// So many at once. Cheap to clone; all clones count together, on every thread.
#[derive(Clone, Debug)]
pub struct Cap(Arc<CapState>);

#[derive(Debug)]
struct CapState {
    name: &'static str,
    max: usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

impl Cap {
    /// `name` is the one that the configuration key, the metric and the log line carry.
    #[must_use]
    pub fn new(name: &'static str, max: usize) -> Self {
        Self(Arc::new(CapState {
            name,
            max,
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Takes a place, or counts the refusal.
    #[must_use]
    pub fn enter(&self) -> Option<Permit> {
        let entered = take_one(&self.0.used, self.0.max);
        if entered {
            return Some(Permit(self.clone()));
        }
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The name given to [`Cap::new`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The most places that are ever given out at once.
    #[must_use]
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// Places taken now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// How often [`Cap::enter`] had to say no.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

/// A place under a [`Cap`]; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit(Cap);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who counts as one source: an IPv4 address, or an IPv6 /64, which is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(u64);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // The upper half keeps IPv4 apart from every /64 that is given out (0000::/8 is not).
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64),
        }
    }
}

/// A random key for the tables, from [`crate::random`]; a new one at each start.
pub type HashKey = [u8; 16];

/// So many at once for each source.
#[derive(Clone, Debug)]
pub struct SourceCap(Arc<SourceCapState>);

#[derive(Debug)]
struct SourceCapState {
    slots: Slots,
    max: u32,
    counts: Box<[AtomicU32]>,
    refused: AtomicU64,
}

impl SourceCap {
    /// `slots` is rounded up to a power of two; four times the expected number of live sources keeps accidental
    /// sharing of both slots under one in twenty. Four bytes a slot.
    #[must_use]
    pub fn new(key: HashKey, slots: usize, max: u32) -> Self {
        let slots = Slots::new(key, slots);
        Self(Arc::new(SourceCapState {
            slots,
            max,
            counts: (0..slots.len()).map(|_| AtomicU32::new(0)).collect(),
            refused: AtomicU64::new(0),
        }))
    }

    /// Takes a place for this source, or counts the refusal.
    #[must_use]
    pub fn enter(&self, source: Source) -> Option<SourcePermit> {
        let pair = self.0.slots.pair(source);
        let [first, second] = pair.map(|slot| self.0.counts[slot].load(Ordering::Relaxed));
        if first.min(second) >= self.0.max {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        // Two threads may both see the last free place. One connection too many for one source is no harm; a lock
        // around two slots would be.
        for slot in pair {
            self.0.counts[slot].fetch_add(1, Ordering::Relaxed);
        }
        Some(SourcePermit {
            cap: self.clone(),
            pair,
        })
    }

    /// How many places this source has, at most (a shared slot counts the others too).
    #[must_use]
    pub fn used(&self, source: Source) -> u32 {
        let [first, second] = self
            .0
            .slots
            .pair(source)
            .map(|slot| self.0.counts[slot].load(Ordering::Relaxed));
        first.min(second)
    }

    /// Slots of the table.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.counts.len()
    }

    /// Slots that count somebody; a walk through the table, for a scrape.
    #[must_use]
    pub fn slots_used(&self) -> usize {
        let counts = self.0.counts.iter();
        counts
            .filter(|count| count.load(Ordering::Relaxed) != 0)
            .count()
    }

    /// How often [`SourceCap::enter`] had to say no.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

/// A place under a [`SourceCap`]; dropping it gives the place back.
#[derive(Debug)]
pub struct SourcePermit {
    cap: SourceCap,
    pair: [usize; 2],
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        for slot in self.pair {
            self.cap.0.counts[slot].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// So many a second for each source; [`TokenBucket`]s in a table of fixed size that all threads may use.
#[derive(Clone, Debug)]
pub struct SourceRate(Arc<SourceRateState>);

#[derive(Debug)]
struct SourceRateState {
    slots: Slots,
    rate: Rate,
    /// Moments are kept as nanoseconds after it.
    start: Instant,
    full_again: Box<[AtomicU64]>,
    refused: AtomicU64,
}

impl SourceRate {
    /// Like [`SourceCap::new`], but eight bytes a slot; `now` is where its clock starts.
    #[must_use]
    pub fn new(key: HashKey, slots: usize, rate: Rate, now: Now) -> Self {
        let slots = Slots::new(key, slots);
        Self(Arc::new(SourceRateState {
            slots,
            rate,
            start: now.mono,
            full_again: (0..slots.len()).map(|_| AtomicU64::new(0)).collect(),
            refused: AtomicU64::new(0),
        }))
    }

    /// Takes one token of this source, or counts the refusal.
    pub fn take(&self, now: Now, source: Source) -> bool {
        self.take_many(now, source, 1)
    }

    /// Takes `count` tokens at once: a costly refusal may count double.
    pub fn take_many(&self, now: Now, source: Source, count: u32) -> bool {
        // Both slots are charged, also when one of them is spent: what is shared recovers by itself.
        let [first, second] = self
            .0
            .slots
            .pair(source)
            .map(|slot| self.0.charge(slot, now, count));
        let taken = first || second;
        if !taken {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Slots of the table.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.full_again.len()
    }

    /// Slots whose bucket is not full again yet; a walk through the table, for a scrape.
    #[must_use]
    pub fn slots_used(&self, now: Now) -> usize {
        let now = nanos(now.mono.saturating_duration_since(self.0.start));
        let moments = self.0.full_again.iter();
        moments
            .filter(|full_again| full_again.load(Ordering::Relaxed) > now)
            .count()
    }

    /// How often [`SourceRate::take`] had to say no.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

impl SourceRateState {
    fn charge(&self, slot: usize, now: Now, count: u32) -> bool {
        if self.rate.is_never() {
            return false;
        }
        let now = nanos(now.mono.saturating_duration_since(self.start));
        let interval = nanos(self.rate.interval());
        let latest = now + nanos(self.rate.tolerance());
        self.full_again[slot]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_again| {
                let spent_until = full_again.max(now);
                let wanted = interval * u64::from(count.saturating_sub(1));
                (spent_until + wanted <= latest).then(|| spent_until + interval * u64::from(count))
            })
            .is_ok()
    }
}

/// Nanoseconds since start fit 64 bits for 584 years.
const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn take_one(used: &AtomicUsize, max: usize) -> bool {
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        (used < max).then_some(used + 1)
    })
    .is_ok()
}

/// Where the two places of a source are: the first in the lower half of the table, the second in the upper.
#[derive(Clone, Copy, Debug)]
struct Slots {
    key: (u64, u64),
    half: usize,
}

impl Slots {
    fn new(key: HashKey, slots: usize) -> Self {
        let half = slots.clamp(2, SLOTS_MAX).next_power_of_two() / 2;
        let (low, high) = key.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b));
        Self {
            key: (word(low), word(high)),
            half,
        }
    }

    const fn len(self) -> usize {
        self.half * 2
    }

    const fn pair(self, source: Source) -> [usize; 2] {
        let hash = siphash_2_4(self.key, source.0);
        let mask = self.half - 1;
        [
            hash as usize & mask,
            self.half + ((hash >> 32) as usize & mask),
        ]
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of one 8-byte word. std has it only with a key of its own choice.
const fn siphash_2_4((k0, k1): (u64, u64), word: u64) -> u64 {
    let v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let v = absorb(v, word);
    let mut v = absorb(v, WORD_LEN << 56);
    v[2] ^= 0xff;
    let v = sip_round(sip_round(sip_round(sip_round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn absorb(mut v: [u64; 4], word: u64) -> [u64; 4] {
    v[3] ^= word;
    let mut v = sip_round(sip_round(v));
    v[0] ^= word;
    v
}

const fn sip_round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v0;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

const WORD_LEN: u64 = 8;
/// 32 MiB of counts; far above any use, it only stops a mistyped number.
const SLOTS_MAX: usize = 1 << 23;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixTime;

    const TEN_BURST_3: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = now();
        let mut bucket = TokenBucket::new(TEN_BURST_3);
        let taken = |bucket: &mut TokenBucket, at| (0..5).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 3);
        assert_eq!(taken(&mut bucket, start.plus(ms(99))), 0);
        assert_eq!(taken(&mut bucket, start.plus(ms(100))), 1);
        assert_eq!(taken(&mut bucket, start.plus(ms(60_000))), 3);
    }

    #[test]
    fn a_bucket_says_when_the_next_token_comes() {
        let start = now();
        let mut bucket = TokenBucket::new(TEN_BURST_3);
        assert_eq!(bucket.next_token(start), Some(start.mono));
        assert!(bucket.take_many(start, 3));
        let next = bucket.next_token(start).expect("the rate is not 0");
        assert_eq!(next, start.plus(ms(100)).mono);
        assert!(bucket.take(start.plus(ms(100))));
    }

    #[test]
    fn many_tokens_are_taken_together_or_not_at_all() {
        let start = now();
        let mut bucket = TokenBucket::new(TEN_BURST_3);
        assert!(!bucket.take_many(start, 4));
        assert!(bucket.take_many(start, 3));
        assert!(!bucket.take_many(start, 1));
    }

    #[test]
    fn a_rate_of_zero_gives_nothing() {
        let never = Rate {
            per_second: 0,
            burst: 9,
        };
        assert!(!TokenBucket::new(never).take(now()));
        assert_eq!(TokenBucket::new(never).next_token(now()), None);
        assert!(!SourceRate::new(KEY, 8, never, now()).take(now(), source("192.0.2.1")));
    }

    #[test]
    fn a_cap_refuses_counts_and_takes_back() {
        let cap = Cap::new("connections", 2);
        let (first, _second) = (cap.enter().expect("free"), cap.enter().expect("free"));
        assert!(cap.enter().is_none());
        assert_eq!((cap.used(), cap.refused()), (2, 1));
        drop(first);
        assert!(cap.enter().is_some());
    }

    #[test]
    fn one_source_at_its_cap_leaves_the_others_alone() {
        let cap = SourceCap::new(KEY, 1024, 2);
        let (a, b) = (source("192.0.2.1"), source("192.0.2.2"));
        let held = [cap.enter(a), cap.enter(a)];
        assert!(held.iter().all(Option::is_some));
        assert!(cap.enter(a).is_none());
        assert!(cap.enter(b).is_some());
        drop(held);
        assert_eq!(cap.used(a), 0);
        assert_eq!(cap.refused(), 1);
    }

    #[test]
    fn a_source_is_a_v4_address_or_a_v6_64() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn a_source_rate_is_a_bucket_for_each_source() {
        let start = now();
        let rate = SourceRate::new(KEY, 1024, TEN_BURST_3, start);
        let taken = |at, who| (0..5).filter(|_| rate.take(at, who)).count();
        assert_eq!(taken(start, source("192.0.2.1")), 3);
        assert_eq!(taken(start, source("192.0.2.2")), 3);
        assert_eq!(taken(start.plus(ms(100)), source("192.0.2.1")), 1);
        assert_eq!(rate.refused(), 2 + 2 + 4);
    }

    #[test]
    fn a_small_table_still_tells_most_sources_apart() {
        let cap = SourceCap::new(KEY, 4096, 1);
        let held: Vec<_> = (0..1000u32)
            .filter_map(|n| cap.enter(Source::from(IpAddr::from(n.to_be_bytes()))))
            .collect();
        assert!(held.len() > 850, "{} of 1000 entered", held.len());
    }

    #[test]
    fn siphash_agrees_with_the_paper() {
        // Appendix A of the paper has 15 bytes; the authors' vectors.h gives this one for bytes 0..8, key 0..16.
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(
            siphash_2_4(key, 0x0706_0504_0302_0100),
            0x93f5_f579_9a93_2462
        );
    }

    const KEY: HashKey = [7; 16];

    fn source(text: &str) -> Source {
        Source::from(text.parse::<IpAddr>().expect("test address"))
    }

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_800_000_000),
        }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
}

//! The relay ports of one address: an exact bitmap that all shards take from, and who holds which port.
//!
//! Exact means that every port can be in use at once: whoever asks gets one as long as one is free, whatever the order
//! of asking and whichever shard asks. A port is looked for from a random place on (RFC 8656 §7.2: hard to guess).

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use edge_common::ports::PortRange;
use edge_common::random::Random;

/// A shard of this process: one thread with its own sockets and its own server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u8);

/// Free and taken ports, shared by all shards; touched when an allocation begins and ends, read for a hairpin.
#[derive(Debug)]
pub struct PortPool {
    first: u16,
    count: usize,
    /// A set bit is a port in use; bits behind the last port are set for good.
    words: Box<[AtomicU64]>,
    /// The shard that holds a port, plus one; zero while nobody does.
    owners: Box<[AtomicU8]>,
    taken: AtomicU32,
}

impl PortPool {
    /// All ports of `range`, free.
    #[must_use]
    pub fn new(range: PortRange) -> Self {
        let count = range.iter().count();
        let word = |index: usize| match count - index * 64 {
            64.. => 0,
            left => u64::MAX << left,
        };
        Self {
            first: range.first(),
            count,
            words: (0..count.div_ceil(64))
                .map(|index| AtomicU64::new(word(index)))
                .collect(),
            owners: (0..count).map(|_| AtomicU8::new(0)).collect(),
            taken: AtomicU32::new(0),
        }
    }

    /// Takes a free port; `None` when there is none at all.
    pub fn take(&self, shard: ShardId, rng: &mut dyn Random) -> Option<u16> {
        self.take_of(u64::MAX, shard, rng)
    }

    /// Takes a free port with an even number, as RTP liked it (RFC 8656 §7.1).
    pub fn take_even(&self, shard: ShardId, rng: &mut dyn Random) -> Option<u16> {
        // A word holds an even number of ports, so the pattern is the same in all of them.
        self.take_of(
            if self.first.is_multiple_of(2) {
                EVEN_BITS
            } else {
                !EVEN_BITS
            },
            shard,
            rng,
        )
    }

    fn take_of(&self, wanted: u64, shard: ShardId, rng: &mut dyn Random) -> Option<u16> {
        let start = rng.below(self.count as u32) as usize;
        let (start_word, start_bit) = (start / 64, start % 64);
        // The first word is visited twice: from the start bit on, and at the end the bits below it.
        (0..=self.words.len()).find_map(|step| {
            let word = (start_word + step) % self.words.len();
            let from = if step == 0 { start_bit } else { 0 };
            self.take_in(word, wanted & (u64::MAX << from), shard)
        })
    }

    fn take_in(&self, word: usize, wanted: u64, shard: ShardId) -> Option<u16> {
        loop {
            let free = !self.words[word].load(Ordering::Relaxed) & wanted;
            if free == 0 {
                return None;
            }
            let bit = free.trailing_zeros();
            // Acquire meets the release below: the owner of the life before is cleared before ours is written.
            if self.words[word].fetch_or(1 << bit, Ordering::Acquire) & (1 << bit) == 0 {
                let index = word * 64 + bit as usize;
                self.owners[index].store(shard.0 + 1, Ordering::Relaxed);
                self.taken.fetch_add(1, Ordering::Relaxed);
                return Some(self.first + index as u16);
            }
        }
    }

    /// Gives a port back.
    pub fn release(&self, port: u16) {
        let Some(index) = self.index(port) else {
            return;
        };
        self.owners[index].store(0, Ordering::Relaxed);
        if self.words[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Release)
            & (1 << (index % 64))
            != 0
        {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Which shard relays for `port`.
    #[must_use]
    pub fn owner(&self, port: u16) -> Option<ShardId> {
        let owner = self.owners[self.index(port)?].load(Ordering::Relaxed);
        owner.checked_sub(1).map(ShardId)
    }

    /// Where `port` stands in the range, if it does.
    #[must_use]
    pub fn index(&self, port: u16) -> Option<usize> {
        let index = usize::from(port.checked_sub(self.first)?);
        (index < self.count).then_some(index)
    }

    /// The first port of the range.
    #[must_use]
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// Ports in the range.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether no port is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken() == 0
    }

    /// Ports in use.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Every second port of a word, from its first on.
const EVEN_BITS: u64 = 0x5555_5555_5555_5555;

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::random::Seeded;
    use std::collections::BTreeSet;

    fn pool(range: &str) -> PortPool {
        PortPool::new(range.parse().expect("a range"))
    }

    #[test]
    fn ten_thousand_of_ten_thousand_ports_can_be_in_use() {
        let pool = pool("50000-59999");
        let mut rng = Seeded::new(1);
        let ports: BTreeSet<u16> = (0..10_000)
            .map(|n| {
                pool.take(ShardId(n as u8 % 2), &mut rng)
                    .expect("one is free")
            })
            .collect();
        assert_eq!(
            (ports.len(), ports.first(), ports.last()),
            (10_000, Some(&50_000), Some(&59_999))
        );
        assert_eq!(pool.take(ShardId(0), &mut rng), None);
        pool.release(51_234);
        assert_eq!(pool.take(ShardId(1), &mut rng), Some(51_234));
        assert_eq!(pool.owner(51_234), Some(ShardId(1)));
    }

    #[test]
    fn threads_that_race_get_every_port_once() {
        let pool = pool("50000-50999");
        let taken = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|shard| {
                    let pool = &pool;
                    scope.spawn(move || {
                        let mut rng = Seeded::new(shard);
                        std::iter::from_fn(|| pool.take(ShardId(shard as u8), &mut rng))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().expect("no panic"))
                .collect::<Vec<_>>()
        });
        assert_eq!(taken.len(), 1000);
        assert_eq!(taken.into_iter().collect::<BTreeSet<_>>().len(), 1000);
    }

    #[test]
    fn even_ports_are_even_whatever_the_first_port_is() {
        for (range, evens) in [("50000-50199", 100), ("50001-50199", 99)] {
            let pool = pool(range);
            let mut rng = Seeded::new(2);
            let ports: Vec<u16> =
                std::iter::from_fn(|| pool.take_even(ShardId(0), &mut rng)).collect();
            assert_eq!(ports.len(), evens);
            assert!(ports.iter().all(|port| port.is_multiple_of(2)));
            assert!(
                pool.take(ShardId(0), &mut rng)
                    .is_some_and(|port| !port.is_multiple_of(2))
            );
        }
    }

    #[test]
    fn a_range_that_fills_no_whole_word_has_no_port_too_many() {
        let pool = pool("50000-50069");
        let mut rng = Seeded::new(3);
        let ports: Vec<u16> = std::iter::from_fn(|| pool.take(ShardId(0), &mut rng)).collect();
        assert_eq!(
            (ports.len(), ports.iter().max(), pool.taken()),
            (70, Some(&50_069), 70)
        );
        assert_eq!((pool.owner(50_070), pool.owner(49_999)), (None, None));
        ports.iter().for_each(|&port| pool.release(port));
        pool.release(50_000);
        assert!(pool.is_empty());
    }
}

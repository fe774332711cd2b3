#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! What happens to a packet between two nodes: delay, loss, duplication, other order.

use edge_common::random::Random;
use std::time::Duration;

/// The faults of a path; the default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// How long every packet takes at least.
    pub delay: Duration,
    /// How much longer it may take. Where this exceeds the gap between two packets, their order changes.
    pub jitter: Duration,
    /// Packets of a thousand that are lost.
    pub loss_per_mille: u32,
    /// Packets of a thousand that arrive twice.
    pub twice_per_mille: u32,
    /// A stream instead of datagrams: nothing is lost, doubled or overtaken, but what is sent at once
    /// arrives in pieces.
    pub stream: bool,
}

impl Link {
    /// The times after which copies of one packet arrive: none, one or two.
    pub fn carry(&self, rng: &mut dyn Random) -> Vec<Duration> {
        if rng.below(1000) < self.loss_per_mille {
            return Vec::new();
        }
        let copies = if rng.below(1000) < self.twice_per_mille {
            2
        } else {
            1
        };
        (0..copies).map(|_| self.delay + self.extra(rng)).collect()
    }

    /// Where a stream cuts what was sent at once: the lengths of the pieces.
    pub fn pieces(&self, len: usize, rng: &mut dyn Random) -> Vec<usize> {
        if !self.stream || len == 0 {
            return vec![len];
        }
        let mut pieces = Vec::new();
        let mut left = len;
        while left > 0 {
            // Mostly whole, sometimes down to single bytes.
            let longest = u32::try_from(left).unwrap_or(u32::MAX);
            let piece = match rng.below(4) {
                0 => 1 + rng.below(longest.min(3)),
                1 => 1 + rng.below(longest),
                _ => longest,
            };
            let piece = usize::try_from(piece).unwrap_or(left).min(left);
            pieces.push(piece);
            left -= piece;
        }
        pieces
    }

    /// How long one piece of a stream takes.
    pub fn stream_delay(&self, rng: &mut dyn Random) -> Duration {
        self.delay + self.extra(rng)
    }

    fn extra(&self, rng: &mut dyn Random) -> Duration {
        let micros = u32::try_from(self.jitter.as_micros()).unwrap_or(u32::MAX);
        Duration::from_micros(rng.below(micros.saturating_add(1)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::random::Seeded;

    #[test]
    fn a_perfect_link_delivers_each_packet_once_and_at_once() {
        let mut rng = Seeded::new(1);
        assert_eq!(Link::default().carry(&mut rng), [Duration::ZERO]);
    }

    #[test]
    fn the_pieces_of_a_stream_are_all_of_it() {
        let link = Link {
            stream: true,
            ..Link::default()
        };
        let mut rng = Seeded::new(3);
        let cuts: Vec<_> = (0..100).map(|_| link.pieces(500, &mut rng)).collect();
        assert!(
            cuts.iter()
                .all(|pieces| pieces.iter().sum::<usize>() == 500)
        );
        assert!(cuts.iter().any(|pieces| pieces.len() > 3));
        assert!(cuts.iter().any(|pieces| pieces.len() == 1));
    }

    #[test]
    fn losses_and_copies_come_at_their_rates_and_within_the_jitter() {
        let link = Link {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            loss_per_mille: 250,
            twice_per_mille: 100,
            stream: false,
        };
        let mut rng = Seeded::new(7);
        let carried: Vec<_> = (0..10_000).map(|_| link.carry(&mut rng)).collect();
        let with = |copies| carried.iter().filter(|times| times.len() == copies).count();
        assert!((2300..2700).contains(&with(0)), "{}", with(0));
        assert!((600..900).contains(&with(2)), "{}", with(2));
        let lawful = link.delay..=link.delay + link.jitter;
        assert!(carried.iter().flatten().all(|time| lawful.contains(time)));
    }
}

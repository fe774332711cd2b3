//! Randomness as an argument: pure code asks a [`Random`] that its caller brings.
//!
//! The daemons pass [`SystemRandom`]; a test or the simulated world passes [`Seeded`], so that a run can be repeated.

/// A source of random bytes.
pub trait Random {
    /// Overwrites all of `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);

    /// Four bytes of it as a number.
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    /// Eight bytes of it as a number.
    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// A number in `0..bound` with no value preferred; 0 when `bound` is 0.
    fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        // The multiply-shift map is fair once the short first stretch is thrown away.
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            let (low, high) = (product as u32, (product >> 32) as u32);
            if low >= unfair {
                return high;
            }
        }
    }
}

/// The operating system's generator by way of aws-lc.
#[cfg(feature = "io")]
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

#[cfg(feature = "io")]
impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes)
            .expect("aws-lc aborts the process itself when the system has no randomness left");
    }
}

/// A repeatable stream (SplitMix64) for tests and simulations; never for keys.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    /// Equal seeds give equal streams.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn step(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.step().to_be_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams_and_other_seeds_do_not() {
        let draw = |seed| {
            let mut bytes = [0; 21];
            Seeded::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn below_reaches_every_value_and_never_the_bound() {
        let mut rng = Seeded::new(1);
        let mut seen = [0u32; 5];
        for _ in 0..5_000 {
            seen[rng.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1_150).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[cfg(feature = "io")]
    #[test]
    fn the_system_does_not_repeat_itself() {
        let mut rng = SystemRandom;
        assert_ne!(rng.next_u64(), rng.next_u64());
    }
}

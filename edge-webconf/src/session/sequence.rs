//! Which sequence numbers of data connections were used.

/// A sliding window: connections are dialled side by side and may arrive out of order, but never
/// by more than the pool is wide. What lies behind the window counts as used.
#[derive(Debug)]
pub(super) struct Sequence {
    /// One more than the greatest that was used.
    end: u64,
    /// Bit `n % WIDTH`: whether `n` was used, for the last `WIDTH` numbers before `end`.
    used: [u64; WORDS],
}

impl Sequence {
    pub(super) const fn new() -> Self {
        Self {
            end: 0,
            used: [0; WORDS],
        }
    }

    /// Marks the number; `false` when it was used already or may have been.
    pub(super) fn take(&mut self, seq: u64) -> bool {
        if seq == u64::MAX || seq.saturating_add(WIDTH) < self.end {
            return false;
        }
        if seq >= self.end {
            self.advance(seq + 1);
        }
        let (word, bit) = place(seq);
        let fresh = self.used[word] & bit == 0;
        self.used[word] |= bit;
        fresh
    }

    fn advance(&mut self, end: u64) {
        if end - self.end >= WIDTH {
            self.used = [0; WORDS];
        } else {
            for seq in self.end..end {
                let (word, bit) = place(seq);
                self.used[word] &= !bit;
            }
        }
        self.end = end;
    }
}

const fn place(seq: u64) -> (usize, u64) {
    let at = seq % WIDTH;
    ((at / 64) as usize, 1 << (at % 64))
}

const WORDS: usize = 16;
/// Twice the default of `pool_max`.
const WIDTH: u64 = 64 * WORDS as u64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_good_once_in_any_order() {
        let mut sequence = Sequence::new();
        for seq in [1, 5, 3, 2, 0, WIDTH] {
            assert!(sequence.take(seq), "{seq}");
            assert!(!sequence.take(seq), "{seq} again");
        }
        assert!(sequence.take(4));
        assert!(!sequence.take(1));
    }

    #[test]
    fn what_lies_behind_the_window_counts_as_used() {
        let mut sequence = Sequence::new();
        assert!(sequence.take(10 * WIDTH));
        assert!(sequence.take(9 * WIDTH + 1));
        assert!(!sequence.take(9 * WIDTH));
        assert!(!sequence.take(0));
        assert!(!sequence.take(u64::MAX));
        assert!(sequence.take(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn never_takes_one_twice(seqs in proptest::collection::vec(0..3 * WIDTH, 0..200)) {
            let (mut sequence, mut taken) = (Sequence::new(), BTreeSet::new());
            for seq in seqs {
                if sequence.take(seq) {
                    prop_assert!(taken.insert(seq));
                }
            }
        }
    }
}

//! How much one connection of a partner may have us look up and write down, whatever domains it names.
//!
//! A certificate lets anybody in who wants to be discovered. What is looked up for him is room and time that all of
//! federation shares, and a verdict is a line in the log.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::limit::{Rate, TokenBucket};
use edge_common::time::Now;

/// The bounds of one connection.
#[derive(Clone, Debug)]
pub(super) struct Curb {
    /// Domains that are being looked up.
    pending: u8,
    /// Lookups in a row that proved nothing.
    failed: u8,
    lookups: TokenBucket,
    lines: TokenBucket,
}

impl Default for Curb {
    fn default() -> Self {
        Self {
            pending: 0,
            failed: 0,
            lookups: TokenBucket::new(LOOKUPS),
            lines: TokenBucket::new(LINES),
        }
    }
}

impl Curb {
    /// Begins to look a domain up, unless too many are under way or came lately.
    pub(super) fn begin(&mut self, now: Now) -> bool {
        let begins = self.pending < PENDING_MAX && self.lookups.take(now);
        self.pending += u8::from(begins);
        begins
    }

    /// What was begun is over, one way or the other.
    pub(super) const fn end(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// What a lookup said: who proves nothing time after time asks slowly from then on, until he proves something.
    pub(super) const fn judged(&mut self, is_proven: bool) {
        if is_proven {
            if self.failed >= FAILED_MAX {
                self.lookups = TokenBucket::new(LOOKUPS);
            }
            self.failed = 0;
            return;
        }
        self.failed = self.failed.saturating_add(1);
        if self.failed == FAILED_MAX {
            self.lookups = TokenBucket::new(LOOKUPS_OF_SUSPECT);
        }
    }

    /// Whether a refusal is worth a line of its own.
    pub(super) fn may_tell(&mut self, now: Now) -> bool {
        self.lines.take(now)
    }
}

/// Domains of one connection that are looked up at once.
pub(super) const PENDING_MAX: u8 = 8;
/// So many that prove nothing, one after the other, make a connection suspicious.
const FAILED_MAX: u8 = 8;
const LOOKUPS: Rate = Rate {
    per_second: 20,
    burst: 20,
};
const LOOKUPS_OF_SUSPECT: Rate = Rate {
    per_second: 1,
    burst: 1,
};
/// Refusals that are written to the log; all of them are counted.
const LINES: Rate = Rate {
    per_second: 1,
    burst: 10,
};

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::time::UnixTime;
    use std::time::{Duration, Instant};

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        }
    }

    #[test]
    fn eight_at_once_and_twenty_a_second() {
        let (mut curb, start) = (Curb::default(), now());
        assert_eq!((0..20).filter(|_| curb.begin(start)).count(), 8);
        (0..8).for_each(|_| curb.end());
        let begun = (0..30).filter(|_| {
            let begins = curb.begin(start);
            curb.end();
            begins
        });
        assert_eq!(begun.count(), 12, "the rest of the second's twenty");
    }

    #[test]
    fn who_proves_nothing_asks_once_a_second_until_he_proves_something() {
        let (mut curb, start) = (Curb::default(), now());
        (0..8).for_each(|_| curb.judged(false));
        let over = |curb: &mut Curb, seconds: u64| {
            let tries = (0..seconds * 10).filter(|tenth| {
                let begins = curb.begin(start.plus(Duration::from_millis(tenth * 100)));
                if begins {
                    curb.end();
                }
                begins
            });
            tries.count()
        };
        assert_eq!(over(&mut curb, 5), 5);
        curb.judged(true);
        assert_eq!(over(&mut curb, 1), 10);
    }

    #[test]
    fn a_flood_of_refusals_is_ten_lines_and_then_one_a_second() {
        let (mut curb, start) = (Curb::default(), now());
        assert_eq!((0..1000).filter(|_| curb.may_tell(start)).count(), 10);
        assert!(curb.may_tell(start.plus(Duration::from_secs(1))));
    }
}

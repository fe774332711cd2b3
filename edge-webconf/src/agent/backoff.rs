//! How long to wait before the next attempt.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::time::Duration;

use edge_common::random::Random;

/// Doubles its bound with each failure and draws from all of it (full jitter): the agents of an
/// edge that comes back do not come all at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub fn next(&mut self, rng: &mut dyn Random) -> Duration {
        let bound = FIRST * 2_u32.saturating_pow(self.failures.min(DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        let millis = u32::try_from(bound.min(LONGEST).as_millis()).expect("30 000");
        Duration::from_millis(rng.below(millis + 1).into())
    }

    /// It went well for a while.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
const DOUBLINGS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use edge_common::random::Seeded;

    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest_and_all_of_it_is_drawn() {
        let mut rng = Seeded::new(7);
        for (failures, bound_ms) in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
            .into_iter()
            .enumerate()
        {
            let draws: Vec<u128> = (0..200)
                .map(|_| {
                    let mut backoff = Backoff {
                        failures: failures as u32,
                    };
                    backoff.next(&mut rng).as_millis()
                })
                .collect();
            assert!(draws.iter().all(|&ms| ms <= bound_ms), "{failures}");
            assert!(draws.iter().any(|&ms| ms < bound_ms / 10), "{failures}");
            assert!(draws.iter().any(|&ms| ms > bound_ms * 9 / 10), "{failures}");
        }
    }

    #[test]
    fn it_starts_over_after_a_success() {
        let mut rng = Seeded::new(7);
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.next(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FIRST);
    }
}

//! Time is a value: whatever decides is handed a [`Now`] and asks no clock.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;
use std::ops::Add;
use std::time::{Duration, Instant};

/// One moment on both clocks: monotonic for timers, wall clock for what expires on a date.
///
/// Only `run::now` reads the two clocks. A test makes one `Now` and goes on from there with [`Now::plus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For timers and deadlines; never steps back.
    pub mono: Instant,
    /// For credentials, nonces, tokens, CRLs and tickets; may be set by an operator or NTP.
    pub unix: UnixTime,
}

impl Now {
    /// The moment `later` after this one, on both clocks.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self {
            mono: self.mono + later,
            unix: self.unix + later,
        }
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The start of 1970.
    pub const EPOCH: Self = Self(0);

    /// From whole seconds since 1970; more seconds than fit stay at the far end.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; `None` when it lies ahead, which a wall clock that was set back makes possible.
    #[must_use]
    pub const fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        match self.0.checked_sub(earlier.0) {
            Some(millis) => Some(Duration::from_millis(millis)),
            None => None,
        }
    }
}

/// Saturates, as no date in this program lies near the end of the range.
impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        let millis = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// Seconds and milliseconds, as in `1700000000.250`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.as_secs(), self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_on_together() {
        let start = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        };
        let later = start.plus(Duration::from_millis(90_250));
        assert_eq!(later.mono - start.mono, Duration::from_millis(90_250));
        assert_eq!(
            later.unix.checked_duration_since(start.unix),
            Some(Duration::from_millis(90_250))
        );
        assert_eq!(later.unix.to_string(), "1700000090.250");
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_negative_duration() {
        let (early, late) = (UnixTime::from_millis(999), UnixTime::from_millis(1000));
        assert_eq!(early.checked_duration_since(late), None);
        assert_eq!(early.as_secs(), 0);
        assert_eq!(late.as_secs(), 1);
    }

    #[test]
    fn the_far_end_saturates() {
        let end = UnixTime::from_secs(u64::MAX);
        assert_eq!(end.as_millis(), u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(UnixTime::EPOCH + Duration::MAX, end);
    }
}

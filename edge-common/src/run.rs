//! What every daemon does around its work: the clock, signals, readiness, drain and the exit code.

use std::time::{Duration, Instant, SystemTime};

use crate::time::{Now, UnixTime};

/// The only clock. Everything else is told the time.
#[must_use]
pub fn now() -> Now {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Now {
        mono: Instant::now(),
        unix: UnixTime::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)),
    }
}

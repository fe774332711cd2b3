//! Moments as people write them, in UTC.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::time::UnixTime;

use crate::issue::civil;

/// `2026-11-22`.
#[must_use]
pub fn date(at: UnixTime) -> String {
    let (year, month, day) = civil(at.as_secs() / DAY);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `12:34:56.789`.
#[must_use]
pub fn clock(at: UnixTime) -> String {
    let millis = at.as_millis() % 1000;
    let of_day = at.as_secs() % DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// `2026-11-22 12:34:56 UTC`.
#[must_use]
pub fn moment(at: UnixTime) -> String {
    let clock = clock(at);
    format!(
        "{} {} UTC",
        date(at),
        clock.split('.').next().unwrap_or_default()
    )
}

const DAY: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_date_prints_them() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (1_790_000_000, "2026-09-21 14:13:20 UTC"),
        ] {
            assert_eq!(moment(UnixTime::from_secs(secs)), text);
        }
        assert_eq!(clock(UnixTime::from_millis(61_007)), "00:01:01.007");
    }
}

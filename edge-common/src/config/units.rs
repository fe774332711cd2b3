//! Durations and sizes as an operator writes them: a number and its unit, `"20 min"`, `"64 KiB"`.

use std::time::Duration;

/// Bytes in a KiB.
pub const KIB: usize = 1024;
/// Bytes in a MiB.
pub const MIB: usize = 1024 * KIB;

/// Reads `"250 ms"`, `"5 s"`, `"20 min"`, `"8 h"` or `"2 d"`; the blank may be left out.
///
/// # Errors
/// What is expected there.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let millis = DURATION_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(UnitError::DurationUnit)?
        .1;
    number
        .checked_mul(millis)
        .filter(|total| *total <= DURATION_MAX_MILLIS)
        .map(Duration::from_millis)
        .ok_or(UnitError::TooLarge)
}

/// Reads `"512 B"`, `"64 KiB"`, `"4 MiB"` or `"1 GiB"`; the blank may be left out.
///
/// # Errors
/// What is expected there.
pub fn parse_size(text: &str) -> Result<usize, UnitError> {
    let (number, unit) = split(text)?;
    let bytes = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(UnitError::SizeUnit)?
        .1;
    number
        .checked_mul(bytes)
        .filter(|total| *total <= SIZE_MAX_BYTES)
        .and_then(|total| usize::try_from(total).ok())
        .ok_or(UnitError::TooLarge)
}

/// Writes a duration in the largest unit that needs no fraction.
#[must_use]
pub fn duration_text(value: Duration) -> String {
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    in_largest_unit(millis, &DURATION_UNITS)
}

/// Writes a size in the largest unit that needs no fraction.
#[must_use]
pub fn size_text(bytes: usize) -> String {
    in_largest_unit(bytes as u64, &SIZE_UNITS)
}

fn in_largest_unit(value: u64, units: &[(&str, u64)]) -> String {
    let whole = units
        .iter()
        .rev()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = whole.copied().unwrap_or((units[0].0, 1));
    format!("{} {unit}", value / factor)
}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number);
    }
    // Only digits are left, so it can only be too long.
    let number = number.parse().map_err(|_| UnitError::TooLarge)?;
    Ok((number, unit.trim_start_matches(' ')))
}

/// Why a text is no duration or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not begin with digits.
    #[error("a whole number followed by a unit is expected")]
    Number,
    /// No unit of time.
    #[error("the unit must be one of ms, s, min, h, d")]
    DurationUnit,
    /// No unit of size.
    #[error("the unit must be one of B, KiB, MiB, GiB")]
    SizeUnit,
    /// Beyond a year or a TiB nothing is meant.
    #[error("the value is too large")]
    TooLarge,
}

/// Smallest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
/// Smallest first.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const DURATION_MAX_MILLIS: u64 = 366 * 86_400_000;
const SIZE_MAX_BYTES: u64 = 1 << 40;

/// serde's face of a duration.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it with its unit.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::duration_text(*value))
    }

    /// Reads it with its unit.
    ///
    /// # Errors
    /// A text that is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// serde's face of a size.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it with its unit.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::size_text(*value))
    }

    /// Reads it with its unit.
    ///
    /// # Errors
    /// A text that is no size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_size(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes() {
        assert_eq!(parse_duration("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("20min"), Ok(Duration::from_secs(1200)));
        assert_eq!(parse_duration("2 d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(parse_size("64 KiB"), Ok(65_536));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse_duration("fast"), Err(UnitError::Number));
        assert_eq!(parse_duration("-5 s"), Err(UnitError::Number));
        assert_eq!(parse_duration("20"), Err(UnitError::DurationUnit));
        assert_eq!(parse_duration("1.5 h"), Err(UnitError::DurationUnit));
        assert_eq!(parse_duration("367 d"), Err(UnitError::TooLarge));
        assert_eq!(
            parse_duration("99999999999999999999 s"),
            Err(UnitError::TooLarge)
        );
        assert_eq!(parse_size("64 kB"), Err(UnitError::SizeUnit));
        assert_eq!(parse_size("1025 GiB"), Err(UnitError::TooLarge));
        assert_eq!(parse_size(""), Err(UnitError::Number));
    }

    #[test]
    fn the_largest_whole_unit_is_written() {
        assert_eq!(duration_text(Duration::from_secs(1200)), "20 min");
        assert_eq!(duration_text(Duration::from_millis(1500)), "1500 ms");
        assert_eq!(duration_text(Duration::ZERO), "0 ms");
        assert_eq!(size_text(5000 * KIB), "5000 KiB");
        assert_eq!(size_text(4 * MIB), "4 MiB");
    }

    proptest::proptest! {
        #[test]
        fn written_and_read_again(millis in 0..DURATION_MAX_MILLIS, bytes in 0..SIZE_MAX_BYTES) {
            let (duration, bytes) = (Duration::from_millis(millis), usize::try_from(bytes).expect("64 bits"));
            proptest::prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
            proptest::prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
    }
}

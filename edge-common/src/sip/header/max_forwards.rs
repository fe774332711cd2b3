//! `Max-Forwards` (RFC 3261 §20.22).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::Malformed;

/// What a proxy puts where the header is missing (RFC 3261 §16.6 step 3).
pub const DEFAULT: u8 = 70;

/// Reads 0 to 255; leading zeros count for nothing.
pub fn parse(text: &[u8]) -> Result<u8, Malformed> {
    const WRONG: Malformed = Malformed("Max-Forwards is not a number up to 255");
    if text.is_empty() {
        return Err(WRONG);
    }
    text.iter()
        .try_fold(0u8, |value, byte| {
            let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
            value.checked_mul(10)?.checked_add(digit)
        })
        .ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_of_hops_and_no_more() {
        assert_eq!(parse(b"0068"), Ok(68));
        assert_eq!(parse(b"255"), Ok(255));
        assert_eq!(parse(b"0"), Ok(0));
        for wrong in ["256", "300", "-1", "7 0", "", "7a"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

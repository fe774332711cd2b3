//! `CSeq: number METHOD` (RFC 3261 §20.16).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::{Malformed, is_lws};
use crate::sip::parse::is_token;

/// A request's place in its dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Less than 2^31 (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// The method, which a request repeats in its start line.
    pub method: &'a [u8],
}

impl<'a> CSeq<'a> {
    /// Reads the value; leading zeros count for nothing.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let digits_len = text.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = text.split_at(digits_len);
        let number = digits
            .iter()
            .try_fold(0u32, |value, digit| {
                value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
            })
            .filter(|&value| !digits.is_empty() && value < NUMBER_END)
            .ok_or(Malformed("CSeq is not a number below 2^31"))?;
        let method = rest.trim_ascii();
        if !rest.first().is_some_and(|&b| is_lws(b)) || !is_token(method) {
            return Err(Malformed("CSeq without a method"));
        }
        Ok(Self { number, method })
    }
}

const NUMBER_END: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_below_two_to_the_31() {
        let read = |text: &'static str| CSeq::parse(text.as_bytes()).map(|c| (c.number, c.method));
        assert_eq!(read("0009\r\n  INVITE"), Ok((9, &b"INVITE"[..])));
        assert_eq!(read("2147483647 ACK"), Ok((2_147_483_647, &b"ACK"[..])));
        for wrong in [
            "2147483648 ACK",
            "36893488147419103232 ACK",
            "-1 ACK",
            "ACK",
            "1",
            "1ACK",
            "1 A B",
            "",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

//! The number that lets one client in.

use std::fmt;

use aws_lc_rs::digest;

/// A number that the inside admits and the client echoes. It is a password, so what prints it
/// prints a hash of it: the same hash at the edge and at the agent, to follow a join by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub u64);

impl Number {
    /// Whether an agent may admit it: always 19 digits and never the top bit, so that a chance
    /// hit in what a stranger sends stays out of reach.
    #[must_use]
    pub const fn is_admissible(self) -> bool {
        self.0 >= LEAST && self.0 <= GREATEST
    }

    /// Whether it stands for a token: the top bit is set.
    #[must_use]
    pub const fn is_of_token(self) -> bool {
        self.0 > GREATEST
    }

    /// Makes an admissible number of random bits; `None` for the one draw in nine that is too small.
    #[must_use]
    pub fn from_random(bits: [u8; 8]) -> Option<Self> {
        let number = Self(u64::from_be_bytes(bits) & GREATEST);
        number.is_admissible().then_some(number)
    }

    /// What logs and records show instead of the number.
    #[must_use]
    pub fn hash(self) -> u64 {
        let digest = digest::digest(&digest::SHA256, &self.0.to_be_bytes());
        digest.as_ref()[..8]
            .iter()
            .fold(0, |hash, &byte| hash << 8 | u64::from(byte))
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number(#{:016x})", self.hash())
    }
}

/// 10^18, the least number of [`DIGITS`] digits.
pub const LEAST: u64 = 1_000_000_000_000_000_000;
/// 63 bits.
pub const GREATEST: u64 = i64::MAX.cast_unsigned();
/// Every admissible number has so many decimal digits.
pub const DIGITS: u8 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nineteen_digits_without_the_top_bit_are_admissible() {
        for (number, admissible) in [
            (0, false),
            (LEAST - 1, false),
            (LEAST, true),
            (GREATEST, true),
            (GREATEST + 1, false),
            (u64::MAX, false),
        ] {
            assert_eq!(Number(number).is_admissible(), admissible, "{number}");
        }
        assert_eq!(LEAST.to_string().len(), usize::from(DIGITS));
        assert_eq!(GREATEST.to_string().len(), usize::from(DIGITS));
    }

    #[test]
    fn random_bits_give_an_admissible_number_or_none() {
        assert_eq!(Number::from_random([0; 8]), None);
        assert_eq!(Number::from_random([0xff; 8]), Some(Number(GREATEST)));
        assert_eq!(Number::from_random([0x80; 8]), None);
    }

    #[test]
    fn what_is_printed_does_not_tell_the_number() {
        let number = Number(1_234_567_890_123_456_789);
        let printed = format!("{number:?}");
        assert!(!printed.contains("1234567890"), "{printed}");
        assert!(!printed.contains("112210f4"), "{printed}");
        assert_eq!(printed, format!("{:?}", Number(number.0)));
        assert_ne!(printed, format!("{:?}", Number(number.0 + 1)));
    }
}

//! What a datagram is, told by its first bytes (RFC 7983, RFC 8656 §12, and the MS-TURN cookie).
//!
//! ```text
//!  00 0F 00 04 72 C6 4B C6 at 20   MS-TURN, whatever stands at 4: its clients may set 2112A442 there
//!  FF 10                           multiplexed MS-TURN
//!  00..03, 2112A442 at 4           STUN and TURN
//!  00 01, no cookie                Binding of RFC 3489
//!  14..3F                          DTLS
//!  40..7F                          ChannelData
//! ```

use super::message::{HEADER_LEN, MAGIC_COOKIE};

/// The protocols that meet on UDP 3478.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// A message of RFC 8489 or RFC 8656.
    Stun,
    /// A Binding request of RFC 3489.
    ClassicBinding,
    /// A payload for a numbered peer.
    ChannelData,
    /// A control message of MS-TURN.
    MsTurn,
    /// MS-TURN of version 5 or 6, which this server never offers.
    MsMultiplexed,
    /// A DTLS record.
    Dtls,
    /// None of these.
    Unknown,
}

impl Datagram {
    /// Looks at the first 28 bytes at most.
    #[must_use]
    pub fn classify(bytes: &[u8]) -> Self {
        match bytes {
            [0x40..=0x7F, ..] => Self::ChannelData,
            [0x00..=0x3F, ..] if bytes.get(HEADER_LEN..HEADER_LEN + 8) == Some(&MS_COOKIE) => {
                Self::MsTurn
            }
            [0x00..=0x03, ..] if bytes.get(4..8) == Some(&MAGIC_COOKIE) => Self::Stun,
            [0x00, 0x01, ..] if bytes.len() >= HEADER_LEN => Self::ClassicBinding,
            [0x14..=0x3F, ..] => Self::Dtls,
            [0xFF, 0x10, ..] => Self::MsMultiplexed,
            _ => Self::Unknown,
        }
    }
}

/// The Magic Cookie attribute, which MS-TURN puts first (MS-TURN 2.2.2).
const MS_COOKIE: [u8; 8] = [0x00, 0x0F, 0x00, 0x04, 0x72, 0xC6, 0x4B, 0xC6];

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: [u8; 2], at_four: [u8; 4], rest: &[u8]) -> Vec<u8> {
        [&kind[..], &[0, 0], &at_four, &[7; 12], rest].concat()
    }

    #[test]
    fn each_protocol_is_told_by_its_first_bytes() {
        let cases = [
            (header([0, 1], MAGIC_COOKIE, b""), Datagram::Stun),
            (header([0, 3], MAGIC_COOKIE, &MS_COOKIE), Datagram::MsTurn),
            (header([0, 3], [9; 4], &MS_COOKIE), Datagram::MsTurn),
            (header([0, 3], [9; 4], &MS_COOKIE[..7]), Datagram::Unknown),
            (header([0, 1], [9; 4], b""), Datagram::ClassicBinding),
            (
                header([0, 1], [9; 4], b"")[..19].to_vec(),
                Datagram::Unknown,
            ),
            (header([0, 3], [9; 4], b""), Datagram::Unknown),
            (header([0x16, 0xFE], [9; 4], b""), Datagram::Dtls),
            (vec![0x40, 0, 0, 0], Datagram::ChannelData),
            (vec![0x7F, 0xFE], Datagram::ChannelData),
            (vec![0xFF, 0x10], Datagram::MsMultiplexed),
            (vec![0x80, 0], Datagram::Unknown),
            (vec![], Datagram::Unknown),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Datagram::classify(&bytes), expected, "{bytes:02x?}");
        }
    }
}

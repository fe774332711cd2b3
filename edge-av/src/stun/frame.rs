//! Cuts a TCP stream into STUN messages and ChannelData (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! The first bytes say what the sender speaks. TURN goes on; the others are named and refused:
//!
//! ```text
//!  16 03 01 00 2D 01 00 00 29 … 00 02 00 18   pseudo-TLS, fifty bytes with one cipher
//!  16 03 …                                    TLS
//!  02 00 │ 03 00                              MS framing
//!  00 01 … 21 12 A4 42 │ 40 00 …              STUN │ ChannelData, filled up to four bytes
//! ```
//!
//! The framer owns no buffer: it is shown all that was received and not yet consumed.

use super::message::{HEADER_LEN, MAGIC_COOKIE};

/// What stands at the front of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not enough to tell, or not all of it here.
    NeedMore,
    /// The first `len` bytes are one STUN message.
    Message {
        /// Bytes to hand on and to consume.
        len: usize,
    },
    /// The first `len` bytes are ChannelData.
    ChannelData {
        /// Bytes to hand on.
        len: usize,
        /// Bytes to consume: with the padding that a stream must have.
        padded: usize,
    },
}

/// Why the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// A TLS ClientHello on a port that speaks plain TURN.
    Tls,
    /// The fixed hello that MS clients send in front of bare frames.
    PseudoTls,
    /// Bare frames of MS-TURN.
    MsFraming,
    /// None of the protocols of this port.
    Unknown,
    /// Framing is lost in the middle of a stream.
    Lost,
    /// One message is longer than its sender may send.
    TooLong,
}

/// Where in the stream we are.
#[derive(Debug)]
pub struct Framer {
    state: State,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The sender has not yet said what it speaks.
    Opening,
    /// It speaks TURN; the next frame begins here.
    Frame,
    /// A frame of this many bytes has begun.
    Within(Step),
}

impl Framer {
    /// A framer for a connection whose sender has shown no credentials.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Opening,
            limit: STRANGER_FRAME_MAX,
        }
    }

    /// What the first bytes of a connection say: `None` while they do not yet, `Ok` for TURN in the clear.
    #[must_use]
    pub fn opening(received: &[u8]) -> Option<Result<(), FrameError>> {
        match opening(received) {
            Ok(Opening::Undecided) => None,
            Ok(Opening::Turn) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    }

    /// The sender holds an allocation: it may send whole datagrams.
    pub const fn trust(&mut self) {
        self.limit = FRAME_MAX;
    }

    /// Says what stands at the front of `received`. Consume it before the next call.
    pub fn next(&mut self, received: &[u8]) -> Result<Step, FrameError> {
        if self.state == State::Opening {
            match opening(received)? {
                Opening::Undecided => return Ok(Step::NeedMore),
                Opening::Turn => self.state = State::Frame,
            }
        }
        if self.state == State::Frame {
            match self.head(received)? {
                Step::NeedMore => return Ok(Step::NeedMore),
                step @ (Step::Message { .. } | Step::ChannelData { .. }) => {
                    self.state = State::Within(step);
                }
            }
        }
        let State::Within(step) = self.state else {
            return Ok(Step::NeedMore);
        };
        if received.len() < step.consumed() {
            return Ok(Step::NeedMore);
        }
        self.state = State::Frame;
        Ok(step)
    }

    fn head(&self, received: &[u8]) -> Result<Step, FrameError> {
        let step = match *received {
            [0x00..=0x3F, _, high, low, ref rest @ ..] => {
                if rest
                    .iter()
                    .zip(MAGIC_COOKIE)
                    .any(|(&byte, cookie)| byte != cookie)
                {
                    return Err(FrameError::Lost);
                }
                Step::Message {
                    len: HEADER_LEN + usize::from(u16::from_be_bytes([high, low])),
                }
            }
            [0x40..=0x7F, _, high, low, ..] => {
                let len = CHANNEL_HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
                Step::ChannelData {
                    len,
                    padded: len.next_multiple_of(4),
                }
            }
            [0x80..=0xFF, ..] => return Err(FrameError::Lost),
            _ => return Ok(Step::NeedMore),
        };
        if step.consumed() > self.limit {
            return Err(FrameError::TooLong);
        }
        // The cookie has to be seen whole before the length is believed.
        if matches!(step, Step::Message { .. }) && received.len() < HEADER_LEN {
            return Ok(Step::NeedMore);
        }
        Ok(step)
    }
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Step {
    /// Bytes that belong to this step.
    #[must_use]
    pub const fn consumed(self) -> usize {
        match self {
            Self::NeedMore => 0,
            Self::Message { len } => len,
            Self::ChannelData { padded, .. } => padded,
        }
    }
}

enum Opening {
    Undecided,
    Turn,
}

fn opening(received: &[u8]) -> Result<Opening, FrameError> {
    match received {
        [] | [0x16 | 0x02 | 0x03] => Ok(Opening::Undecided),
        [0x16, 0x03, ..] => tls(received),
        [0x02 | 0x03, 0x00, ..] => Err(FrameError::MsFraming),
        [0x00 | 0x01, ..] => match received.get(4..8) {
            None => Ok(Opening::Undecided),
            Some(cookie) if *cookie == MAGIC_COOKIE => Ok(Opening::Turn),
            Some(_) => Err(FrameError::Unknown),
        },
        [0x40..=0x7F, ..] => Ok(Opening::Turn),
        _ => Err(FrameError::Unknown),
    }
}

/// Both kinds of hello are refused here; they are told apart for whoever reads the counters.
fn tls(received: &[u8]) -> Result<Opening, FrameError> {
    let seen = received.len().min(PSEUDO_TLS_HEAD.len());
    if received[..seen] != PSEUDO_TLS_HEAD[..seen] {
        return Err(FrameError::Tls);
    }
    match received.get(PSEUDO_TLS_CIPHERS_AT..PSEUDO_TLS_CIPHERS_AT + PSEUDO_TLS_CIPHERS.len()) {
        None => Ok(Opening::Undecided),
        Some(ciphers) if *ciphers == PSEUDO_TLS_CIPHERS => Err(FrameError::PseudoTls),
        Some(_) => Err(FrameError::Tls),
    }
}

/// Record, version 3.1, 45 bytes, ClientHello, 41 bytes (MS-TURN 2.1).
const PSEUDO_TLS_HEAD: [u8; 9] = [0x16, 0x03, 0x01, 0x00, 0x2D, 0x01, 0x00, 0x00, 0x29];
const PSEUDO_TLS_CIPHERS_AT: usize = 44;
const PSEUDO_TLS_CIPHERS: [u8; 4] = [0x00, 0x02, 0x00, 0x18];
const CHANNEL_HEADER_LEN: usize = 4;
/// What anybody may make us hold before it has shown credentials.
pub const STRANGER_FRAME_MAX: usize = 1024;
/// The largest datagram that is relayed, with room for a Send indication around it.
pub const FRAME_MAX: usize = 8 * 1024 + 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream() -> Vec<u8> {
        let mut binding = vec![0, 1, 0, 0];
        binding.extend_from_slice(&MAGIC_COOKIE);
        binding.extend_from_slice(&[7; 12]);
        let mut longer = binding.clone();
        longer[3] = 8;
        longer.extend_from_slice(&[0x80, 0x22, 0, 4, b'e', b'd', b'g', b'e']);
        [
            &binding[..],
            &[0x40, 1, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0],
            &longer,
            &[0x7F, 0xFE, 0, 0],
            &binding,
        ]
        .concat()
    }

    #[test]
    fn every_cut_of_the_stream_gives_the_same_steps() {
        let stream = stream();
        let whole = steps(&[&stream]);
        assert_eq!(
            whole,
            [
                "message 20",
                "channel 9 of 12",
                "message 28",
                "channel 4 of 4",
                "message 20"
            ]
        );
        for cut in 0..stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(steps(&[head, tail]), whole, "cut at {cut}");
        }
        let drip: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(steps(&drip), whole);
    }

    #[test]
    fn what_is_not_turn_is_named_after_every_cut() {
        let mut pseudo = PSEUDO_TLS_HEAD.to_vec();
        pseudo.extend_from_slice(&[3, 1]);
        pseudo.extend_from_slice(&[5; 32]);
        pseudo.extend_from_slice(&[0, 0, 2, 0, 0x18, 1, 0]);
        assert_eq!(pseudo.len(), 50);
        let mut other_cipher = pseudo.clone();
        other_cipher[47] = 0x2F;
        let cases: [(&[u8], FrameError); 7] = [
            (&pseudo, FrameError::PseudoTls),
            (&other_cipher, FrameError::Tls),
            (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC], FrameError::Tls),
            (&[2, 0, 0, 3], FrameError::MsFraming),
            (&[3, 0, 0, 3], FrameError::MsFraming),
            (b"GET / HTTP/1.1\r\n", FrameError::Lost),
            (&[0, 1, 0, 0, 9, 9, 9, 9, 0, 0], FrameError::Unknown),
        ];
        for (bytes, expected) in cases {
            let mut framer = Framer::new();
            let named = (1..=bytes.len()).find_map(|seen| framer.next(&bytes[..seen]).err());
            // ASCII letters look like a channel until the length is read; then they are too long.
            let expected = if bytes.starts_with(b"GET") {
                FrameError::TooLong
            } else {
                expected
            };
            assert_eq!(named, Some(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_stranger_may_not_make_us_hold_much() {
        let announced = [0x40, 0, 0x20, 0];
        assert_eq!(Framer::new().next(&announced), Err(FrameError::TooLong));
        let mut trusted = Framer::new();
        trusted.trust();
        assert_eq!(trusted.next(&announced), Ok(Step::NeedMore));
    }

    #[test]
    fn a_stream_that_loses_its_framing_ends() {
        let mut framer = Framer::new();
        let stream = stream();
        assert_eq!(framer.next(&stream), Ok(Step::Message { len: 20 }));
        assert_eq!(framer.next(&[0xC0]), Err(FrameError::Lost));
        assert_eq!(framer.next(&[0, 1, 0, 0, 1]), Err(FrameError::Lost));
    }

    proptest! {
        #[test]
        fn no_stream_brings_the_framer_down(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mut framer, mut rest) = (Framer::new(), &bytes[..]);
            while let Ok(step) = framer.next(rest) {
                if step == Step::NeedMore {
                    break;
                }
                rest = &rest[step.consumed()..];
            }
        }
    }

    fn steps(arrivals: &[&[u8]]) -> Vec<String> {
        let (mut framer, mut pending, mut seen) = (Framer::new(), Vec::new(), Vec::new());
        for bytes in arrivals {
            pending.extend_from_slice(bytes);
            loop {
                let step = framer.next(&pending).expect("the stream is lawful");
                match step {
                    Step::NeedMore => break,
                    Step::Message { len } => seen.push(format!("message {len}")),
                    Step::ChannelData { len, padded } => {
                        seen.push(format!("channel {len} of {padded}"));
                    }
                }
                pending.drain(..step.consumed());
            }
        }
        seen
    }
}

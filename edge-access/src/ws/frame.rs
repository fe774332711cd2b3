//! Frames of a client, put together to messages (RFC 6455 §5).
//!
//! ```text
//!  │F│RSV│opcode│M│ length 7 (16, 64) │ mask 4 │ payload … │
//! ```
//!
//! The reader is shown everything that was received and not yet consumed, as the SIP framer is. Payloads are
//! unmasked into a buffer of the caller's; the reader keeps bytes only between the fragments of one message.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// What stands at the front of the stream; `len` bytes of it are to be consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Show more.
    NeedMore,
    /// A fragment was taken in; the message goes on.
    Fragment {
        /// Bytes to consume.
        len: usize,
    },
    /// The buffer holds a whole message.
    Message {
        /// Bytes to consume.
        len: usize,
    },
    /// The buffer holds what the pong has to repeat.
    Ping {
        /// Bytes to consume.
        len: usize,
    },
    /// An answer to our ping, or none to anything.
    Pong {
        /// Bytes to consume.
        len: usize,
    },
    /// The client ends it; nothing comes behind.
    Close {
        /// Bytes to consume.
        len: usize,
        /// The code to answer with (RFC 6455 §5.5.1).
        code: u16,
    },
}

/// The client does not keep to the protocol; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// An extension's bit, and none was agreed on.
    Reserved,
    /// An operation that RFC 6455 does not define.
    Opcode,
    /// A client masks every frame (RFC 6455 §5.1).
    Unmasked,
    /// A length that is not written in the fewest bytes (RFC 6455 §5.2).
    Length,
    /// A control frame in pieces or of more than 125 bytes (RFC 6455 §5.5).
    Control,
    /// A continuation of nothing, or a new message within another.
    Order,
    /// A message of more pieces than any client makes.
    Fragments,
    /// A message that is longer than allowed.
    TooLong,
    /// A text that is not UTF-8 (RFC 6455 §8.1).
    NotUtf8,
}

/// Puts the frames of one client together.
#[derive(Debug, Default)]
pub struct Reader {
    /// The message that is being put together.
    message: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    fragments: usize,
    bytes: Vec<u8>,
}

impl Reader {
    /// Says what stands at the front of `received`. A message has `message_max` bytes at most. `payload` holds what
    /// [`Step`] says, and nothing otherwise.
    pub fn next(
        &mut self,
        received: &[u8],
        message_max: usize,
        payload: &mut Vec<u8>,
    ) -> Result<Step, Fault> {
        payload.clear();
        let mut cursor = Cursor::new(received);
        let Some((header, payload_len)) = parse(&mut cursor)? else {
            return Ok(Step::NeedMore);
        };
        let header_len = cursor.position();
        let mask = check(&header, payload_len)?;
        let before = self.message.as_ref().map_or(0, |part| part.bytes.len());
        let payload_len = usize::try_from(payload_len)
            .ok()
            .filter(|len| before.saturating_add(*len) <= message_max || is_control(&header))
            .ok_or(Fault::TooLong)?;
        let start = header.len(payload_len as u64);
        if header_len != start as u64 {
            return Err(Fault::Length);
        }
        let len = start + payload_len;
        let Some(masked) = received.get(start..len) else {
            return self.in_order(&header).map(|()| Step::NeedMore);
        };
        self.in_order(&header)?;
        match header.opcode {
            OpCode::Control(control) => {
                unmask(masked, mask, payload);
                self.control(control, len, payload)
            }
            OpCode::Data(data) => self.data(data, header.is_final, (masked, mask), len, payload),
        }
    }

    /// Bytes kept of a message that is not whole.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.message.as_ref().map_or(0, |part| part.bytes.len())
    }

    fn in_order(&self, header: &FrameHeader) -> Result<(), Fault> {
        let continues = matches!(header.opcode, OpCode::Data(Data::Continue));
        if is_control(header) || continues == self.message.is_some() {
            Ok(())
        } else {
            Err(Fault::Order)
        }
    }

    fn control(&self, control: Control, len: usize, payload: &[u8]) -> Result<Step, Fault> {
        match control {
            Control::Ping => Ok(Step::Ping { len }),
            Control::Pong => Ok(Step::Pong { len }),
            Control::Close => close_code(payload).map(|code| Step::Close { len, code }),
            Control::Reserved(_) => Err(Fault::Opcode),
        }
    }

    fn data(
        &mut self,
        data: Data,
        is_final: bool,
        (masked, mask): (&[u8], [u8; 4]),
        len: usize,
        payload: &mut Vec<u8>,
    ) -> Result<Step, Fault> {
        let mut part = match self.message.take() {
            Some(part) => part,
            // Most messages are one frame and are unmasked straight into the caller's buffer.
            None => Partial {
                is_text: data == Data::Text,
                fragments: 0,
                bytes: if is_final {
                    std::mem::take(payload)
                } else {
                    Vec::new()
                },
            },
        };
        part.fragments += 1;
        if part.fragments > FRAGMENTS_MAX {
            return Err(Fault::Fragments);
        }
        unmask(masked, mask, &mut part.bytes);
        if !is_final {
            self.message = Some(part);
            return Ok(Step::Fragment { len });
        }
        if part.is_text && std::str::from_utf8(&part.bytes).is_err() {
            return Err(Fault::NotUtf8);
        }
        *payload = part.bytes;
        Ok(Step::Message { len })
    }
}

impl Fault {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Reserved => "websocket_reserved_bit",
            Self::Opcode => "websocket_opcode",
            Self::Unmasked => "websocket_unmasked",
            Self::Length => "websocket_length",
            Self::Control => "websocket_control",
            Self::Order => "websocket_order",
            Self::Fragments => "websocket_fragments",
            Self::TooLong => "websocket_too_long",
            Self::NotUtf8 => "websocket_not_utf8",
        }
    }

    /// What the client is told (RFC 6455 §7.4.1).
    #[must_use]
    pub fn code(self) -> u16 {
        let code = match self {
            Self::Reserved
            | Self::Opcode
            | Self::Unmasked
            | Self::Length
            | Self::Control
            | Self::Order => CloseCode::Protocol,
            Self::Fragments => CloseCode::Policy,
            Self::TooLong => CloseCode::Size,
            Self::NotUtf8 => CloseCode::Invalid,
        };
        code.into()
    }
}

fn parse(cursor: &mut Cursor<&[u8]>) -> Result<Option<(FrameHeader, u64)>, Fault> {
    // What is wrong can be said before the frame is whole.
    if let [first, second, ..] = cursor.get_ref() {
        if first & 0x70 != 0 {
            return Err(Fault::Reserved);
        }
        if second & 0x80 == 0 {
            return Err(Fault::Unmasked);
        }
    }
    FrameHeader::parse(cursor).map_err(|_| Fault::Opcode)
}

/// Checks what a header may say, and gives its mask.
fn check(header: &FrameHeader, payload_len: u64) -> Result<[u8; 4], Fault> {
    let mask = header.mask.ok_or(Fault::Unmasked)?;
    if is_control(header) && (!header.is_final || payload_len > CONTROL_MAX) {
        return Err(Fault::Control);
    }
    Ok(mask)
}

fn is_control(header: &FrameHeader) -> bool {
    matches!(header.opcode, OpCode::Control(_))
}

fn unmask(masked: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let unmasked = masked
        .iter()
        .enumerate()
        .map(|(at, byte)| byte ^ mask[at % mask.len()]);
    out.extend(unmasked);
}

/// The code that a close is answered with: the client's own, or that none was given.
fn close_code(payload: &[u8]) -> Result<u16, Fault> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(CloseCode::Normal.into())
        } else {
            Err(Fault::Control)
        };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(Fault::Control);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Fault::NotUtf8);
    }
    Ok(code)
}

/// RFC 6455 §5.5.
const CONTROL_MAX: u64 = 125;
/// Ours: a browser sends a message in one piece.
const FRAGMENTS_MAX: usize = 256;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | len as u8),
            len @ 126..0x1_0000 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(
            payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ mask[at % 4]),
        );
        bytes
    }

    const MAX: usize = 70_000;

    /// What a whole stream gives when it arrives in these pieces.
    fn steps(arrivals: &[&[u8]]) -> Vec<String> {
        let (mut reader, mut payload) = (Reader::default(), Vec::new());
        let (mut pending, mut seen) = (Vec::new(), Vec::new());
        for bytes in arrivals {
            pending.extend_from_slice(bytes);
            loop {
                let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
                let (name, len) = match reader.next(&pending, MAX, &mut payload) {
                    Ok(Step::NeedMore) => break,
                    Ok(Step::Fragment { len }) => ("fragment".to_owned(), len),
                    Ok(Step::Message { len }) => (format!("message {}", text(&payload)), len),
                    Ok(Step::Ping { len }) => (format!("ping {}", text(&payload)), len),
                    Ok(Step::Pong { len }) => ("pong".to_owned(), len),
                    Ok(Step::Close { len, code }) => (format!("close {code}"), len),
                    Err(fault) => {
                        seen.push(fault.label().to_owned());
                        return seen;
                    }
                };
                seen.push(name);
                pending.drain(..len);
            }
        }
        seen
    }

    #[test]
    fn every_cut_of_the_stream_gives_the_same_steps() {
        let long = "x".repeat(300);
        let stream = [
            frame(0x81, b"one"),
            frame(0x01, b"tw"),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, b"o"),
            frame(0x82, long.as_bytes()),
            frame(0x8a, b""),
            frame(0x88, &[0x03, 0xe9, b'b', b'y', b'e']),
        ]
        .concat();
        let whole = steps(&[&stream]);
        let expected = [
            "message one",
            "fragment",
            "ping are you there",
            "fragment",
            "message two",
            &format!("message {long}"),
            "pong",
            "close 1001",
        ];
        assert_eq!(whole, expected);
        for cut in 0..stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(steps(&[head, tail]), whole, "cut at {cut}");
        }
        let drip: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(steps(&drip), whole);
    }

    #[test]
    fn what_breaks_the_protocol_ends_with_its_code() {
        let unmasked = vec![0x81, 0x01, b'x'];
        let padded = [vec![0x82, 0xfe, 0, 1], vec![0; 4], vec![b'x']].concat();
        let huge = [
            vec![0x82, 0xff],
            u64::MAX.to_be_bytes().to_vec(),
            vec![0; 4],
        ]
        .concat();
        let pieces = [frame(0x01, b""), frame(0x00, b"").repeat(FRAGMENTS_MAX)].concat();
        for (bytes, fault, code) in [
            (unmasked, Fault::Unmasked, 1002),
            (frame(0xc1, b"x"), Fault::Reserved, 1002),
            (frame(0x83, b"x"), Fault::Opcode, 1002),
            (frame(0x8b, b"x"), Fault::Opcode, 1002),
            (padded, Fault::Length, 1002),
            (frame(0x09, b"x"), Fault::Control, 1002),
            (frame(0x89, &[0; 126]), Fault::Control, 1002),
            (frame(0x88, b"x"), Fault::Control, 1002),
            (frame(0x88, &[0x03, 0xed]), Fault::Control, 1002),
            (frame(0x80, b"x"), Fault::Order, 1002),
            (
                [frame(0x01, b"x"), frame(0x81, b"x")].concat(),
                Fault::Order,
                1002,
            ),
            (pieces, Fault::Fragments, 1008),
            (huge, Fault::TooLong, 1009),
            (frame(0x82, &vec![b'x'; MAX + 1]), Fault::TooLong, 1009),
            (
                [frame(0x02, &vec![0; MAX]), frame(0x80, b"x")].concat(),
                Fault::TooLong,
                1009,
            ),
            (frame(0x81, &[0xff]), Fault::NotUtf8, 1007),
        ] {
            assert_eq!(
                steps(&[&bytes]).last().map(String::as_str),
                Some(fault.label())
            );
            assert_eq!(fault.code(), code);
        }
        // Binary may be anything, and the longest message is one.
        assert_eq!(steps(&[&frame(0x82, &vec![0xff; MAX])]).len(), 1);
        assert_eq!(steps(&[&frame(0x88, b"")]), ["close 1000"]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_kept_beyond_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            super::super::content::fuzz_frames(&bytes);
        }
    }
}

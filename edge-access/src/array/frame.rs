//! What members of the array say to each other on the link.
//!
//! ```text
//!  length 4 │ kind 1 │ …                                     length: of what follows it, big-endian like all numbers
//!  hello     1 │ version 1 │ node 1 │ epoch 2                the first frame of the member that dialled
//!  ping      2 │
//!  pong      3 │
//!  request   4 │ to 11 │ outbound 1 │ message                to: epoch 2, core 1, slot 4, generation 4
//!  response  5 │ to 11 │ message
//! ```
//!
//! Messages go one way: from the member that dialled to the one that accepted, which answers pings and nothing else.
//! Each member dials every other one, so two members have a pair of links. What came over a link goes to a connection
//! of the member that it came to, or is refused: it is never put on a link again.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use crate::proxy::LinkedKind;
use crate::proxy::token::FlowKey;

/// One frame, as a view on what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Who dialled.
    Hello {
        /// Its number in the array.
        node: u8,
        /// Its run.
        epoch: u16,
    },
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// A SIP message for a connection of the receiver.
    Message {
        /// The run of the receiver that the connection belongs to.
        epoch: u16,
        /// The connection.
        to: FlowKey,
        /// What it is.
        kind: LinkedKind,
        /// The whole message.
        bytes: &'a [u8],
    },
}

/// What stands at the front of what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// Not enough yet.
    NeedMore,
    /// A whole frame; consume `len` bytes.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Its length with everything.
        len: usize,
    },
}

/// A member that says this is none, or of a release that cannot be spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than any message may be.
    TooLong(usize),
    /// Not of the layout above.
    Malformed,
    /// Another version of this protocol.
    Version(u8),
}

impl FrameError {
    /// A name from a short fixed list, for the label of a counter.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong(_) => "frame_too_long",
            Self::Malformed => "frame_malformed",
            Self::Version(_) => "version",
        }
    }
}

/// Says what stands at the front of `received`; no frame is longer than `len_max`, its length field apart.
pub fn cut(received: &[u8], len_max: usize) -> Result<Cut<'_>, FrameError> {
    let Some((length, rest)) = received.split_first_chunk::<LENGTH_LEN>() else {
        return Ok(Cut::NeedMore);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > len_max {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Cut::NeedMore);
    };
    Ok(Cut::Frame {
        frame: read(body)?,
        len: LENGTH_LEN + length,
    })
}

fn read(body: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (&kind, rest) = body.split_first().ok_or(FrameError::Malformed)?;
    match (kind, rest) {
        (HELLO, [VERSION, node, high, low]) => Ok(Frame::Hello {
            node: *node,
            epoch: u16::from_be_bytes([*high, *low]),
        }),
        (HELLO, [version, ..]) if *version != VERSION => Err(FrameError::Version(*version)),
        (PING, []) => Ok(Frame::Ping),
        (PONG, []) => Ok(Frame::Pong),
        (REQUEST, rest) => message(rest, |rest| {
            let (outbound, bytes) = match rest {
                [flag @ (0 | 1), bytes @ ..] => (*flag == 1, bytes),
                _ => return None,
            };
            Some((LinkedKind::Request { outbound }, bytes))
        }),
        (RESPONSE, rest) => message(rest, |rest| Some((LinkedKind::Response, rest))),
        (_, _) => Err(FrameError::Malformed),
    }
}

fn message<'a>(
    rest: &'a [u8],
    read: impl FnOnce(&'a [u8]) -> Option<(LinkedKind, &'a [u8])>,
) -> Result<Frame<'a>, FrameError> {
    let (to, rest) = rest
        .split_first_chunk::<TO_LEN>()
        .ok_or(FrameError::Malformed)?;
    let [e0, e1, core, s0, s1, s2, s3, g0, g1, g2, g3] = *to;
    let (kind, bytes) = read(rest).ok_or(FrameError::Malformed)?;
    Ok(Frame::Message {
        epoch: u16::from_be_bytes([e0, e1]),
        to: FlowKey {
            core,
            slot: u32::from_be_bytes([s0, s1, s2, s3]),
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
        },
        kind,
        bytes,
    })
}

impl Frame<'_> {
    /// Appends the frame. A message longer than `u32` can count fits no queue either.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_LEN]);
        match self {
            Self::Hello { node, epoch } => {
                out.extend_from_slice(&[HELLO, VERSION, *node]);
                out.extend_from_slice(&epoch.to_be_bytes());
            }
            Self::Ping => out.push(PING),
            Self::Pong => out.push(PONG),
            Self::Message {
                epoch,
                to,
                kind,
                bytes,
            } => {
                out.push(match kind {
                    LinkedKind::Request { .. } => REQUEST,
                    LinkedKind::Response => RESPONSE,
                });
                out.extend_from_slice(&epoch.to_be_bytes());
                out.push(to.core);
                out.extend_from_slice(&to.slot.to_be_bytes());
                out.extend_from_slice(&to.generation.to_be_bytes());
                if let LinkedKind::Request { outbound } = kind {
                    out.push(u8::from(*outbound));
                }
                out.extend_from_slice(bytes);
            }
        }
        let length = u32::try_from(out.len() - start - LENGTH_LEN).unwrap_or(u32::MAX);
        out[start..start + LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
    }
}

/// What a frame adds to its message.
pub const OVERHEAD: usize = LENGTH_LEN + 1 + TO_LEN + 1;

const LENGTH_LEN: usize = 4;
const TO_LEN: usize = 11;
const VERSION: u8 = 1;
const HELLO: u8 = 1;
const PING: u8 = 2;
const PONG: u8 = 3;
const REQUEST: u8 = 4;
const RESPONSE: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN_MAX: usize = 1000;

    fn kind() -> impl Strategy<Value = LinkedKind> {
        prop_oneof![
            any::<bool>().prop_map(|outbound| LinkedKind::Request { outbound }),
            Just(LinkedKind::Response),
        ]
    }

    fn written(frame: &Frame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(
            (epoch, core, slot, generation) in any::<(u16, u8, u32, u32)>(),
            kind in kind(),
            bytes in prop::collection::vec(any::<u8>(), 0..900),
        ) {
            let to = FlowKey { core, slot, generation };
            let frame = Frame::Message { epoch, to, kind, bytes: &bytes };
            let text = written(&frame);
            prop_assert!(text.len() <= bytes.len() + OVERHEAD);
            prop_assert_eq!(cut(&text, LEN_MAX), Ok(Cut::Frame { frame, len: text.len() }));
            for at in 0..text.len() {
                prop_assert_eq!(cut(&text[..at], LEN_MAX), Ok(Cut::NeedMore), "cut at {}", at);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _cut = cut(&bytes, LEN_MAX);
        }
    }

    #[test]
    fn short_frames_are_read_as_they_were_written() {
        for frame in [
            Frame::Hello {
                node: 7,
                epoch: 0x0102,
            },
            Frame::Ping,
            Frame::Pong,
        ] {
            let text = written(&frame);
            let len = text.len();
            assert_eq!(cut(&text, LEN_MAX), Ok(Cut::Frame { frame, len }));
        }
    }

    #[test]
    fn what_no_member_says_ends_the_link() {
        for (bytes, wrong) in [
            (&[0, 0, 4, 0][..], FrameError::TooLong(1024)),
            (&[0, 0, 0, 0], FrameError::Malformed),
            (&[0, 0, 0, 1, 9], FrameError::Malformed),
            (&[0, 0, 0, 2, PING, 0], FrameError::Malformed),
            (&[0, 0, 0, 5, HELLO, 2, 0, 0, 0], FrameError::Version(2)),
            (&[0, 0, 0, 3, HELLO, VERSION, 0], FrameError::Malformed),
            (&[0, 0, 0, 4, REQUEST, 0, 0, 0], FrameError::Malformed),
        ] {
            assert_eq!(cut(bytes, LEN_MAX), Err(wrong), "{bytes:?}");
        }
        let mut flag = [0; LENGTH_LEN + 1 + TO_LEN + 1];
        flag[3] = u8::try_from(flag.len() - LENGTH_LEN).expect("short");
        flag[4] = REQUEST;
        *flag.last_mut().expect("some") = 2;
        assert_eq!(cut(&flag, LEN_MAX), Err(FrameError::Malformed));
    }
}

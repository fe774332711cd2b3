//! Where a control frame begins and ends.
//!
//! ```text
//!  0         1         2                   4                                       8
//! ┌─────────┬─────────┬───────────────────┬───────────────────────────────────────┬ ─ ─ ─
//! │version=1│  type   │     flags = 0     │            length ≤ 16384             │ body
//! └─────────┴─────────┴───────────────────┴───────────────────────────────────────┴ ─ ─ ─
//! ```
//!
//! The framer owns no buffer. A wrong field is found as soon as it is there, so a peer that sends
//! nonsense is not given the time to complete it.

use super::VERSION;

/// The type byte of a control frame. The edge is E, the agent A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A>E: who the agent is. The first frame.
    Hello = 0x01,
    /// E>A: the session.
    HelloAck = 0x02,
    /// A>E: a server, a conference or a service behind the agent.
    Register = 0x03,
    /// E>A: what became of it.
    RegisterAck = 0x04,
    /// A>E: it is gone.
    Unregister = 0x05,
    /// A>E: let the client through that shows this number.
    Admit = 0x06,
    /// E>A: what became of it.
    AdmitAck = 0x07,
    /// A>E: the number is void.
    Revoke = 0x08,
    /// E>A: dial more data connections.
    Want = 0x10,
    /// A>E: so many of them did not come about.
    DialFail = 0x11,
    /// E>A: a relayed connection ended; for accounting.
    Closed = 0x12,
    /// Both: are you there.
    Ping = 0x20,
    /// Both: yes.
    Pong = 0x21,
    /// Both: nothing new, please, I am about to stop.
    Drain = 0x30,
    /// Both: heard.
    DrainAck = 0x31,
    /// Both: the last frame, and why.
    Goaway = 0x3f,
}

impl Kind {
    /// All of them, in order of their type bytes.
    pub const ALL: [Self; 16] = [
        Self::Hello,
        Self::HelloAck,
        Self::Register,
        Self::RegisterAck,
        Self::Unregister,
        Self::Admit,
        Self::AdmitAck,
        Self::Revoke,
        Self::Want,
        Self::DialFail,
        Self::Closed,
        Self::Ping,
        Self::Pong,
        Self::Drain,
        Self::DrainAck,
        Self::Goaway,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// What stands at the front of the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing whole yet.
    NeedMore,
    /// One frame. Consume `len` bytes before the next call.
    Frame {
        /// Its type.
        kind: Kind,
        /// What follows the head.
        body: &'a [u8],
        /// Head and body.
        len: usize,
    },
}

/// The stream cannot be framed any more; the session has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version than [`VERSION`].
    #[error("version {0} in the head of a frame")]
    Version(u8),
    /// A type that EWRP/1 does not have; a new one needs a new version or a capability bit.
    #[error("unknown type {0:#04x}")]
    UnknownType(u8),
    /// Flags are 0 in version 1.
    #[error("flags {0:#06x}")]
    Flags(u16),
    /// Longer than [`BODY_LEN_MAX`].
    #[error("a body of {0} bytes")]
    TooLong(u32),
}

/// Says what stands at the front of `received`.
pub fn next(received: &[u8]) -> Result<Step<'_>, FrameError> {
    let Some(head) = head(received)? else {
        return Ok(Step::NeedMore);
    };
    let len = HEAD_LEN + head.body_len;
    let Some(body) = received.get(HEAD_LEN..len) else {
        return Ok(Step::NeedMore);
    };
    Ok(Step::Frame {
        kind: head.kind,
        body,
        len,
    })
}

struct Head {
    kind: Kind,
    body_len: usize,
}

fn head(received: &[u8]) -> Result<Option<Head>, FrameError> {
    let [version, rest @ ..] = received else {
        return Ok(None);
    };
    if *version != VERSION {
        return Err(FrameError::Version(*version));
    }
    let [kind, rest @ ..] = rest else {
        return Ok(None);
    };
    let kind = Kind::from_byte(*kind).ok_or(FrameError::UnknownType(*kind))?;
    let Some((flags, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let flags = u16::from_be_bytes(*flags);
    if flags != 0 {
        return Err(FrameError::Flags(flags));
    }
    let Some((len, _)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*len);
    match usize::try_from(len) {
        Ok(body_len) if body_len <= BODY_LEN_MAX => Ok(Some(Head { kind, body_len })),
        Ok(_) | Err(_) => Err(FrameError::TooLong(len)),
    }
}

/// Appends a frame whose body `put_body` appends.
pub(super) fn emit(out: &mut Vec<u8>, kind: Kind, put_body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VERSION, kind as u8, 0, 0, 0, 0, 0, 0]);
    put_body(out);
    let body_len = out.len() - start - HEAD_LEN;
    debug_assert!(body_len <= BODY_LEN_MAX, "{kind:?} of {body_len} bytes");
    let body_len = u32::try_from(body_len).expect("our bodies are a few hundred bytes");
    out[start + 4..start + HEAD_LEN].copy_from_slice(&body_len.to_be_bytes());
}

/// Version, type, flags and length.
pub const HEAD_LEN: usize = 8;
/// EWRP/1: `length <= 16384`.
pub const BODY_LEN_MAX: usize = 16_384;
/// What a reader has to hold at most to see one frame whole.
pub const FRAME_LEN_MAX: usize = HEAD_LEN + BODY_LEN_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// PING, GOAWAY with a body of three bytes, WANT without one: framing does not look inside.
    const STREAM: &[u8] =
        b"\x01\x20\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01\x01\x3f\0\0\0\0\0\x03abc\x01\x10\0\0\0\0\0\0";

    #[test]
    fn every_cut_of_the_stream_gives_the_same_frames() {
        let whole = frames(&[STREAM]);
        assert_eq!(whole, ["Ping 8", "Goaway 3", "Want 0"]);

        for cut in 0..STREAM.len() {
            let (head, tail) = STREAM.split_at(cut);
            assert_eq!(frames(&[head, tail]), whole, "cut at {cut}");
        }
        let drip: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(frames(&drip), whole);
    }

    #[test]
    fn a_wrong_field_is_refused_with_its_last_byte_and_not_before() {
        let refused = |bytes: &[u8], error| {
            for cut in 0..bytes.len() {
                assert_eq!(next(&bytes[..cut]), Ok(Step::NeedMore), "cut at {cut}");
            }
            assert_eq!(next(bytes), Err(error));
        };
        refused(b"\x00", FrameError::Version(0));
        refused(b"\x02", FrameError::Version(2));
        refused(b"\x01\x00", FrameError::UnknownType(0));
        refused(b"\x01\x09", FrameError::UnknownType(9));
        refused(b"\x01\xff", FrameError::UnknownType(0xff));
        refused(b"\x01\x20\x00\x01", FrameError::Flags(1));
        refused(b"\x01\x20\x80\x00", FrameError::Flags(0x8000));
        refused(b"\x01\x20\0\0\0\0\x40\x01", FrameError::TooLong(16_385));
        refused(
            b"\x01\x20\0\0\xff\xff\xff\xff",
            FrameError::TooLong(u32::MAX),
        );
    }

    #[test]
    fn the_longest_body_is_framed() {
        let mut bytes = vec![VERSION, Kind::Ping as u8, 0, 0, 0, 0, 0x40, 0];
        bytes.resize(FRAME_LEN_MAX, 0);
        assert!(matches!(
            next(&bytes),
            Ok(Step::Frame {
                len: FRAME_LEN_MAX,
                ..
            })
        ));
        bytes.pop();
        assert_eq!(next(&bytes), Ok(Step::NeedMore));
    }

    #[test]
    fn every_type_byte_is_a_kind_or_refused() {
        let known = (0..=u8::MAX)
            .filter(|&byte| next(&[VERSION, byte]).is_ok())
            .count();
        assert_eq!(known, Kind::ALL.len());
    }

    fn frames(arrivals: &[&[u8]]) -> Vec<String> {
        let (mut pending, mut seen) = (Vec::new(), Vec::new());
        for bytes in arrivals {
            pending.extend_from_slice(bytes);
            loop {
                let len = match next(&pending).expect("stream is lawful") {
                    Step::NeedMore => break,
                    Step::Frame { kind, body, len } => {
                        seen.push(format!("{kind:?} {}", body.len()));
                        len
                    }
                };
                pending.drain(..len);
            }
        }
        seen
    }
}

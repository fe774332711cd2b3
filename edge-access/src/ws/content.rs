//! What one WebSocket message holds: one SIP message, or a keep-alive (RFC 7118 §5, §6).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::borrow::Cow;

use edge_common::sip::framer::{FrameError, Framer, Limits, Opener, Step};

/// What a WebSocket message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// One whole SIP message.
    Message(Cow<'a, [u8]>),
    /// CRLF CRLF, which RFC 5626 §3.5.1 answers with CRLF.
    Ping,
    /// Nothing that asks for anything.
    Nothing,
    /// A head that does not end.
    Incomplete,
}

/// Reads a whole WebSocket message.
///
/// Its frame says where it ends, so Content-Length may be missing (RFC 7118 §5.2); it is put in, because the next hop is
/// a stream. One that says something else than the frame is refused like two that differ.
pub fn read(payload: &[u8], limits: Limits) -> Result<Content<'_>, FrameError> {
    let mut framer = Framer::new(Opener::Remote, limits);
    let (mut rest, mut content) = (payload, Content::Nothing);
    loop {
        match framer.next(rest) {
            Ok(Step::Skip { len } | Step::Pong { len }) => rest = &rest[len..],
            Ok(Step::Ping { len }) => {
                content = Content::Ping;
                rest = &rest[len..];
            }
            Ok(Step::Message { len }) if len == rest.len() => {
                return Ok(Content::Message(Cow::Borrowed(rest)));
            }
            Ok(Step::Message { .. }) => return Err(FrameError::ContentLengthInvalid),
            Ok(Step::NeedMore) if rest.is_empty() || is_blank(rest) => return Ok(content),
            // The head is whole and the body is not, or the head is not.
            Ok(Step::NeedMore) => {
                return match head_len(rest) {
                    Some(_) => Err(FrameError::ContentLengthInvalid),
                    None => Ok(Content::Incomplete),
                };
            }
            Err(FrameError::ContentLengthMissing) => return with_length(rest, limits),
            Err(error) => return Err(error),
        }
    }
}

fn with_length(message: &[u8], limits: Limits) -> Result<Content<'_>, FrameError> {
    let Some(head) = head_len(message) else {
        return Ok(Content::Incomplete);
    };
    let (head, body) = message.split_at(head);
    if body.len() > limits.body {
        return Err(FrameError::BodyTooLong);
    }
    let mut whole = Vec::with_capacity(message.len() + LENGTH_ROOM);
    whole.extend_from_slice(&head[..head.len() - 2]);
    whole.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    whole.extend_from_slice(body);
    Ok(Content::Message(Cow::Owned(whole)))
}

fn head_len(message: &[u8]) -> Option<usize> {
    memchr::memmem::find(message, b"\r\n\r\n").map(|at| at + 4)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

const LENGTH_ROOM: usize = "Content-Length: 1234567890\r\n".len();

/// Body of the fuzz target: frames of a client and what their messages hold; no input panics, and no more is kept than
/// the longest message has.
#[doc(hidden)]
pub fn fuzz_frames(bytes: &[u8]) {
    const LIMITS: Limits = Limits {
        head: 400,
        body: 200,
    };
    const MAX: usize = 600;
    let (mut reader, mut payload) = (super::frame::Reader::default(), Vec::new());
    let mut rest = bytes;
    while let Ok(step) = reader.next(rest, MAX, &mut payload) {
        use super::frame::Step as Frame;
        assert!(reader.kept() <= MAX, "more is kept than a message may have");
        let len = match step {
            Frame::NeedMore | Frame::Close { .. } => return,
            Frame::Message { len } => {
                let planted = cfg!(planted_bug) && payload.len() > 130;
                assert!(!planted, "planted bug");
                if let Ok(Content::Message(message)) = read(&payload, LIMITS) {
                    let head = LIMITS.head + LENGTH_ROOM;
                    let mut framer = Framer::new(Opener::Remote, Limits { head, ..LIMITS });
                    let len = message.len();
                    assert_eq!(framer.next(&message), Ok(Step::Message { len }));
                }
                len
            }
            Frame::Fragment { len } | Frame::Ping { len } | Frame::Pong { len } => len,
        };
        rest = &rest[len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: 100,
        body: 10,
    };

    fn message(text: &str) -> Result<Content<'_>, FrameError> {
        Ok(Content::Message(Cow::Borrowed(text.as_bytes())))
    }

    #[test]
    fn a_frame_holds_one_message_and_says_where_it_ends() {
        let whole = "BYE sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(read(whole.as_bytes(), LIMITS), message(whole));
        let without = "BYE sip:a SIP/2.0\r\nCall-ID: x\r\n\r\nabc";
        let with = "BYE sip:a SIP/2.0\r\nCall-ID: x\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(read(without.as_bytes(), LIMITS), message(with));
        // Blank lines in front are not a message's.
        let blank = format!("\r\n{whole}");
        assert_eq!(read(blank.as_bytes(), LIMITS), message(whole));
    }

    #[test]
    fn a_length_that_is_not_the_frames_is_refused() {
        let invalid = Err(FrameError::ContentLengthInvalid);
        for text in [
            "BYE sip:a SIP/2.0\r\nl: 2\r\n\r\nabc",
            "BYE sip:a SIP/2.0\r\nl: 4\r\n\r\nabc",
            "BYE sip:a SIP/2.0\r\nl: 0\r\n\r\nBYE sip:a SIP/2.0\r\nl: 0\r\n\r\n",
            "BYE sip:a SIP/2.0\r\nl: -1\r\n\r\n",
        ] {
            assert_eq!(read(text.as_bytes(), LIMITS), invalid, "{text:?}");
        }
        let long = "BYE sip:a SIP/2.0\r\nCall-ID: x\r\n\r\n01234567890";
        assert_eq!(read(long.as_bytes(), LIMITS), Err(FrameError::BodyTooLong));
        let head = format!("BYE sip:a SIP/2.0\r\nSubject: {}\r\n\r\n", "x".repeat(100));
        assert_eq!(read(head.as_bytes(), LIMITS), Err(FrameError::HeadTooLong));
    }

    #[test]
    fn keep_alives_are_told_from_messages() {
        assert_eq!(read(b"\r\n\r\n", LIMITS), Ok(Content::Ping));
        assert_eq!(read(b"\r\n", LIMITS), Ok(Content::Nothing));
        assert_eq!(read(b"", LIMITS), Ok(Content::Nothing));
        assert_eq!(
            read(b"BYE sip:a SIP/2.0\r\n", LIMITS),
            Ok(Content::Incomplete)
        );
    }
}

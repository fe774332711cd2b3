#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! Netstrings, the frames of baresip's `ctrl_tcp`: `LEN:BYTES,`.

/// Frames `body`.
#[must_use]
pub fn emit(body: &[u8]) -> Vec<u8> {
    let mut frame = format!("{}:", body.len()).into_bytes();
    frame.extend_from_slice(body);
    frame.push(b',');
    frame
}

/// What stands at the front of the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The frame is not complete yet.
    NeedMore,
    /// One body; `len` bytes are to be consumed.
    Frame {
        /// The body without length and comma.
        body: &'a [u8],
        /// How long the whole frame is.
        len: usize,
    },
    /// These bytes are no netstring: the stream cannot be framed any more.
    Broken,
}

/// Looks at the front of `received`.
#[must_use]
pub fn next(received: &[u8]) -> Step<'_> {
    let Some(colon) = received.iter().position(|&byte| byte == b':') else {
        let lawful = received.len() <= DIGITS_MAX && received.iter().all(u8::is_ascii_digit);
        return if lawful { Step::NeedMore } else { Step::Broken };
    };
    let digits = &received[..colon];
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return Step::Broken;
    }
    let body_len = digits
        .iter()
        .fold(0, |len, digit| len * 10 + usize::from(digit - b'0'));
    let rest = &received[colon + 1..];
    match rest.get(body_len) {
        None => Step::NeedMore,
        Some(b',') => Step::Frame {
            body: &rest[..body_len],
            len: colon + body_len + 2,
        },
        Some(_) => Step::Broken,
    }
}

/// Ten megabytes less one: far more than any event, too few digits to overflow.
const DIGITS_MAX: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_the_stream_gives_the_same_frames() {
        let stream = [emit(b"one"), emit(b""), emit(b"3:x,")].concat();
        let whole = bodies(&[&stream]);
        assert_eq!(whole, [b"one".to_vec(), Vec::new(), b"3:x,".to_vec()]);
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(bodies(&[head, tail]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_netstring_is_said_to_be_broken() {
        for bytes in [&b"x"[..], b":", b"2:abc", b"12345678", b"-1:a,", b"1 :a,"] {
            assert_eq!(
                next(bytes),
                Step::Broken,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        for bytes in [&b""[..], b"1", b"1:", b"1:a"] {
            assert_eq!(
                next(bytes),
                Step::NeedMore,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    fn bodies(arrivals: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut pending, mut seen) = (Vec::new(), Vec::new());
        for bytes in arrivals {
            pending.extend_from_slice(bytes);
            while let Step::Frame { body, len } = next(&pending) {
                seen.push(body.to_vec());
                pending.drain(..len);
            }
        }
        seen
    }
}

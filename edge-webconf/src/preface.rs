//! The first line of a client whose own protocol cannot carry an admitted number.
//!
//! ```text
//!   E W C 1 ␠ TOKEN \r \n │ the stream        at most 1,024 bytes; the line is consumed, the rest is passed on
//! ```
//!
//! For services where the server speaks first, or whose clients would show the number inside TLS of their own. What a
//! token is, [`edge_common::join_token`] says; `edge-join` writes this line.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::join_token::TOKEN_LEN_MAX;

/// What the first bytes of a client say about a preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It may still become one.
    NeedMore,
    /// No preface begins here, whatever comes next.
    Absent,
    /// A whole line of `len` bytes; the stream begins behind it.
    Line {
        /// What stands for a token; nothing about it is checked yet.
        token: &'a [u8],
        /// The line with its end.
        len: usize,
    },
}

/// Says what stands at the front of `received`, which begins with the first byte of the stream.
#[must_use]
pub fn read(received: &[u8]) -> Step<'_> {
    let seen = received.len().min(MAGIC.len());
    if received[..seen] != MAGIC[..seen] {
        return Step::Absent;
    }
    let Some(rest) = received.get(MAGIC.len()..) else {
        return Step::NeedMore;
    };
    let within = &rest[..rest.len().min(TOKEN_LEN_MAX + END.len())];
    match within.iter().position(|&byte| !is_of_token(byte)) {
        None if within.len() > TOKEN_LEN_MAX => Step::Absent,
        None => Step::NeedMore,
        Some(end) if end == 0 || end > TOKEN_LEN_MAX => Step::Absent,
        Some(end) => match &within[end..] {
            [b'\r'] => Step::NeedMore,
            [b'\r', b'\n', ..] => Step::Line {
                token: &within[..end],
                len: MAGIC.len() + end + END.len(),
            },
            _ => Step::Absent,
        },
    }
}

/// The line that shows a token.
#[must_use]
pub fn line(token: &str) -> Vec<u8> {
    [MAGIC, token.as_bytes(), END].concat()
}

/// base64url and the dots between the parts.
const fn is_of_token(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

/// For fuzzing: whatever comes in whatever pieces, one answer that does not change once it is there.
///
/// # Panics
/// When an answer changes with what comes behind it, or reaches past what is there.
pub fn fuzz(bytes: &[u8]) {
    let whole = read(bytes);
    for cut in 0..bytes.len().min(LINE_LEN_MAX + 2) {
        let early = read(&bytes[..cut]);
        assert!(early == Step::NeedMore || early == whole, "cut at {cut}");
    }
    if let Step::Line { token, len } = whole {
        assert!(len <= LINE_LEN_MAX && len <= bytes.len());
        let text = std::str::from_utf8(token).expect("letters, digits, dots");
        assert_eq!(line(text), bytes[..len]);
        assert!(
            !(cfg!(planted_bug) && text.matches('.').count() > 2),
            "planted bug"
        );
        // Nobody has signed it.
        let keys = edge_common::join_token::VerifyingKeys::default();
        assert!(keys.open(token).is_err());
    }
}

const MAGIC: &[u8] = b"EWC1 ";
const END: &[u8] = b"\r\n";
/// The longest preface.
pub const LINE_LEN_MAX: usize = MAGIC.len() + TOKEN_LEN_MAX + END.len();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_cut_of_a_line_gives_the_same() {
        let mut stream = line("v1.0a1b2c3d.eyJ9.AA-_");
        let len = stream.len();
        stream.extend_from_slice(b"SSH-2.0-client\r\n");
        for cut in 0..len {
            assert_eq!(read(&stream[..cut]), Step::NeedMore, "cut at {cut}");
        }
        let token = &b"v1.0a1b2c3d.eyJ9.AA-_"[..];
        for cut in len..=stream.len() {
            assert_eq!(read(&stream[..cut]), Step::Line { token, len });
        }
        fuzz(&stream);
    }

    #[test]
    fn what_is_no_preface_is_known_with_its_first_wrong_byte() {
        for (wrong, at) in [
            (&b"GET / HTTP/1.1"[..], 1),
            (b"EWC2 a\r\n", 4),
            (b"EWC1\ta\r\n", 5),
            (b"EWC1 \r\n", 6),
            (b"EWC1 a b\r\n", 7),
            (b"EWC1 a\n", 7),
            (b"EWC1 a\rb", 8),
            (b"EWC1 a\r\r\n", 8),
        ] {
            for cut in 0..at {
                assert_eq!(
                    read(&wrong[..cut]),
                    Step::NeedMore,
                    "{wrong:?} cut at {cut}"
                );
            }
            for cut in at..=wrong.len() {
                assert_eq!(read(&wrong[..cut]), Step::Absent, "{wrong:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_line_has_a_longest() {
        let longest = line(&"a".repeat(TOKEN_LEN_MAX));
        assert!(matches!(read(&longest), Step::Line { .. }));
        assert_eq!(longest.len(), 1024);
        assert_eq!(longest.len(), LINE_LEN_MAX);
        let endless = [MAGIC, &[b'a'; TOKEN_LEN_MAX + 1]].concat();
        assert_eq!(read(&endless), Step::Absent);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            magic in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "[A-Za-z0-9._-]{0,40}(\r\n)?",
        ) {
            let front = if magic { MAGIC } else { b"" };
            fuzz(&[front, text.as_bytes(), &bytes].concat());
            fuzz(&[front, &bytes].concat());
        }
    }
}

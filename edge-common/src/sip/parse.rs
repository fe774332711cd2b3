//! Reads the head of one framed message into an index (RFC 3261 §7).
//!
//! The index holds offsets only and is reused from message to message, so reading allocates nothing.
//! Here only the shape of lines is judged: what leaves us unsure where a header starts or ends is an
//! error and ends the flow, what is merely wrong inside a value is for its typed reader to refuse.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::header::Name;

/// Where things stand in a message's head.
#[derive(Debug)]
pub struct Index {
    pub(super) start: Start,
    pub(super) headers: Vec<Slot>,
    /// The first byte of the body.
    pub(super) body: u32,
    headers_max: usize,
}

/// One header: its name, its value without the blanks around it, and its lines with their CRLF.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) name: Name,
    pub(super) line: u32,
    pub(super) name_end: u32,
    pub(super) value: u32,
    pub(super) value_end: u32,
    pub(super) end: u32,
}

/// The start line, cut at its blanks and nothing more: `first` up to the first, `last` from the last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    pub(super) response: bool,
    pub(super) first_end: u32,
    pub(super) middle: u32,
    pub(super) middle_end: u32,
    pub(super) last: u32,
    pub(super) end: u32,
}

/// The head cannot be cut into headers; the flow has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ParseError {
    /// The bytes end before the empty line, or are more than 4 GiB.
    #[error("the head does not end")]
    HeadIncomplete,
    /// The start line is empty or starts with a blank.
    #[error("the start line is empty or starts with a blank")]
    StartLineBlank,
    /// A line feed without its carriage return.
    #[error("a bare LF in the head")]
    BareLineFeed,
    /// A carriage return without its line feed.
    #[error("a bare CR in the head")]
    BareCarriageReturn,
    /// A NUL, which other implementations take for an end.
    #[error("a NUL in the head")]
    Nul,
    /// A header line that holds no colon.
    #[error("a header without a colon")]
    HeaderWithoutColon,
    /// A header whose name is not a token (RFC 3261 §25.1).
    #[error("a header name that is not a token")]
    HeaderNameInvalid,
    /// More headers than the index may hold.
    #[error("more headers than allowed")]
    TooManyHeaders,
}

impl Index {
    /// An index for messages of at most `headers_max` headers.
    #[must_use]
    pub fn new(headers_max: usize) -> Self {
        Self {
            start: Start::default(),
            headers: Vec::new(),
            body: 0,
            headers_max,
        }
    }

    /// Reads the head at the front of `bytes`; what it held before is forgotten.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), ParseError> {
        self.headers.clear();
        if u32::try_from(bytes.len()).is_err() {
            return Err(ParseError::HeadIncomplete);
        }
        let mut at = self.read_start(bytes)?;
        loop {
            let end = line_end(bytes, at)?;
            let next = end + CRLF_LEN;
            if end == at {
                self.body = offset(next);
                return Ok(());
            }
            if is_blank(bytes[at]) {
                self.fold(bytes, next)?;
            } else {
                self.add(bytes, at, end)?;
            }
            at = next;
        }
    }

    /// Reads what stands before the first fault; `false` when not even the start line does.
    pub(super) fn read_front(&mut self, bytes: &[u8]) -> bool {
        self.start = Start::default();
        if self.read(bytes).is_err() {
            self.body = offset(bytes.len());
        }
        self.start.end > 0
    }

    fn read_start(&mut self, bytes: &[u8]) -> Result<usize, ParseError> {
        let end = line_end(bytes, 0)?;
        let line = &bytes[..end];
        if line.first().is_none_or(|&b| is_blank(b)) {
            return Err(ParseError::StartLineBlank);
        }
        let response = line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/");
        let first_end = memchr::memchr(b' ', line).unwrap_or(end);
        let middle = (first_end + 1).min(end);
        // A reason phrase may hold blanks, a Request-URI may not.
        let middle_end = if response {
            memchr::memchr(b' ', &line[middle..]).map(|at| middle + at)
        } else {
            memchr::memrchr(b' ', &line[middle..]).map(|at| middle + at)
        }
        .unwrap_or(end);
        self.start = Start {
            response,
            first_end: offset(first_end),
            middle: offset(middle),
            middle_end: offset(middle_end),
            last: offset((middle_end + 1).min(end)),
            end: offset(end),
        };
        Ok(end + CRLF_LEN)
    }

    fn add(&mut self, bytes: &[u8], at: usize, end: usize) -> Result<(), ParseError> {
        if self.headers.len() == self.headers_max {
            return Err(ParseError::TooManyHeaders);
        }
        let line = &bytes[at..end];
        let colon = memchr::memchr(b':', line).ok_or(ParseError::HeaderWithoutColon)?;
        let written = line[..colon].trim_ascii_end();
        let name = Name::of(written);
        if name == Name::Other && !is_token(written) {
            return Err(ParseError::HeaderNameInvalid);
        }
        let (value, value_end) = trimmed(bytes, at + colon + 1, end);
        self.headers.push(Slot {
            name,
            line: offset(at),
            name_end: offset(at + written.len()),
            value: offset(value),
            value_end: offset(value_end),
            end: offset(end + CRLF_LEN),
        });
        Ok(())
    }

    /// A line that starts with a blank continues the header above it (RFC 3261 §7.3.1).
    fn fold(&mut self, bytes: &[u8], next: usize) -> Result<(), ParseError> {
        let slot = self
            .headers
            .last_mut()
            .ok_or(ParseError::HeaderWithoutColon)?;
        let (value, value_end) = trimmed(bytes, slot.value as usize, next);
        slot.value = offset(value);
        slot.value_end = offset(value_end);
        slot.end = offset(next);
        Ok(())
    }
}

/// The end of the line that starts at `at`, without its CRLF.
///
/// A NUL may stand escaped in a quoted string (RFC 4475 §3.1.1.2) and nowhere else.
fn line_end(bytes: &[u8], at: usize) -> Result<usize, ParseError> {
    let mut from = at;
    loop {
        let found =
            memchr::memchr3(b'\r', b'\n', 0, &bytes[from..]).ok_or(ParseError::HeadIncomplete)?;
        let end = from + found;
        match (bytes[end], bytes.get(end + 1)) {
            (b'\r', Some(b'\n')) => return Ok(end),
            (b'\r', Some(_)) => return Err(ParseError::BareCarriageReturn),
            (b'\r', None) => return Err(ParseError::HeadIncomplete),
            (b'\n', _) => return Err(ParseError::BareLineFeed),
            (_, _) if end > at && bytes[end - 1] == b'\\' => from = end + 1,
            (_, _) => return Err(ParseError::Nul),
        }
    }
}

/// `from..to` without the blanks and line ends at both ends.
fn trimmed(bytes: &[u8], from: usize, to: usize) -> (usize, usize) {
    let text = &bytes[from..to];
    let start = from + (text.len() - text.trim_ascii_start().len());
    (start, start + bytes[start..to].trim_ascii_end().len())
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("`read` refuses messages that pass u32")
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// token of RFC 3261 §25.1.
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token_byte(b))
}

/// One character of a token (RFC 3261 §25.1).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
        )
}

const CRLF_LEN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blurs_the_lines_is_an_error() {
        use ParseError::*;
        let cases: [(&[u8], ParseError); 14] = [
            (b"", HeadIncomplete),
            (b"BYE sip:a SIP/2.0", HeadIncomplete),
            (b"BYE sip:a SIP/2.0\r", HeadIncomplete),
            (b"BYE sip:a SIP/2.0\r\nA: b\r\n", HeadIncomplete),
            (b"\r\n\r\n", StartLineBlank),
            (b" BYE sip:a SIP/2.0\r\n\r\n", StartLineBlank),
            (b"BYE sip:a SIP/2.0\nA: b\r\n\r\n", BareLineFeed),
            (b"BYE sip:a SIP/2.0\r\nA: b\n\r\n", BareLineFeed),
            (b"BYE sip:a SIP/2.0\r\nA: b\rc\r\n\r\n", BareCarriageReturn),
            (b"BYE sip:a SIP/2.0\r\nA: b\0c\r\n\r\n", Nul),
            (b"BYE sip:a SIP/2.0\r\nA b\r\n\r\n", HeaderWithoutColon),
            (b"BYE sip:a SIP/2.0\r\n A: b\r\n\r\n", HeaderWithoutColon),
            (b"BYE sip:a SIP/2.0\r\n: b\r\n\r\n", HeaderNameInvalid),
            (b"BYE sip:a SIP/2.0\r\nA B: b\r\n\r\n", HeaderNameInvalid),
        ];
        for (bytes, error) in cases {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(Index::new(9).read(bytes), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_escaped_nul_is_data() {
        let head = b"BYE sip:a SIP/2.0\r\nTo: \"\\\0\\\x7f\" <sip:a>\r\n\r\n";
        assert_eq!(Index::new(9).read(head), Ok(()));
    }

    #[test]
    fn one_header_more_than_allowed_is_too_many() {
        let head = |n: usize| format!("BYE sip:a SIP/2.0\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert_eq!(Index::new(3).read(head(3).as_bytes()), Ok(()));
        assert_eq!(
            Index::new(3).read(head(4).as_bytes()),
            Err(ParseError::TooManyHeaders)
        );
    }
}

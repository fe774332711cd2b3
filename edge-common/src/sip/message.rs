//! A received message: the bytes as they came, and an index over its head.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::ops::Range;

use super::header::{Element, Name, elements};
use super::parse::{Index, ParseError, Slot};

/// A view on one whole message; it costs two pointers to copy.
///
/// ```text
///  SUBSCRIBE sip:… SIP/2.0 CRLF │ Via : a, b CRLF  c CRLF │ … │ CRLF │ body
///  └ method  └ uri └ version      └ name └── value ───┘    │
///                                 └─────── range ──────────┘
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    index: &'a Index,
}

/// The start line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// `METHOD uri SIP/2.0`; nothing is promised of its parts.
    Request {
        /// Up to the first blank.
        method: &'a [u8],
        /// Between the first and the last blank; a lawful one holds none.
        uri: &'a [u8],
        /// After the last blank.
        version: &'a [u8],
    },
    /// `SIP/2.0 code phrase`.
    Response {
        /// Up to the first blank.
        version: &'a [u8],
        /// 100 to 699, else `None`.
        status: Option<u16>,
        /// The phrase, which may be empty.
        reason: &'a [u8],
    },
}

/// One header of a message; a folded one keeps its folds.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    bytes: &'a [u8],
    slot: Slot,
}

/// A header that may stand once stands twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} stands more than once", .0.as_str())]
pub struct Repeated(pub Name);

impl<'a> Message<'a> {
    /// Reads the head of `bytes`, which hold one message as the framer cut it.
    pub fn parse(bytes: &'a [u8], index: &'a mut Index) -> Result<Self, ParseError> {
        index.read(bytes)?;
        Ok(Self { bytes, index })
    }

    /// Reads the head only as far as it can be read and the index has room, for an answer to who sent it:
    /// what comes after that is missing. `None` when not even the start line can be read.
    pub fn parse_front(bytes: &'a [u8], index: &'a mut Index) -> Option<Self> {
        let read = u32::try_from(bytes.len()).is_ok() && index.read_front(bytes);
        read.then_some(Self { bytes, index })
    }

    /// The whole message as it came.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the empty line.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.index.body as usize..]
    }

    /// The start line, cut into its parts.
    #[must_use]
    pub fn start(&self) -> StartLine<'a> {
        let start = self.index.start;
        let first = &self.bytes[..start.first_end as usize];
        let middle = &self.bytes[start.middle as usize..start.middle_end as usize];
        let last = &self.bytes[start.last as usize..start.end as usize];
        if start.response {
            StartLine::Response {
                version: first,
                status: status(middle),
                reason: last,
            }
        } else {
            StartLine::Request {
                method: first,
                uri: middle,
                version: last,
            }
        }
    }

    /// Whether this is a response, lawful or not.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.index.start.response
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> Option<&'a [u8]> {
        match self.start() {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// The Request-URI of a request.
    #[must_use]
    pub fn request_uri(&self) -> Option<&'a [u8]> {
        match self.start() {
            StartLine::Request { uri, .. } => Some(uri),
            StartLine::Response { .. } => None,
        }
    }

    /// Where the Request-URI stands, for an edit.
    #[must_use]
    pub fn request_uri_range(&self) -> Option<Range<usize>> {
        let start = self.index.start;
        (!start.response).then_some(start.middle as usize..start.middle_end as usize)
    }

    /// The status code of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.start() {
            StartLine::Response { status, .. } => status,
            StartLine::Request { .. } => None,
        }
    }

    /// Where a header can be put in front of all others.
    #[must_use]
    pub const fn headers_start(&self) -> usize {
        self.index.start.end as usize + 2
    }

    /// Where a header can be put behind all others: the empty line.
    #[must_use]
    pub const fn headers_end(&self) -> usize {
        self.index.body as usize - 2
    }

    /// All headers in the order they came.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = Header<'a>> + use<'a> {
        let bytes = self.bytes;
        self.index
            .headers
            .iter()
            .map(move |&slot| Header { bytes, slot })
    }

    /// The headers of one name, long and compact form alike.
    pub fn all(&self, name: Name) -> impl DoubleEndedIterator<Item = Header<'a>> + use<'a> {
        self.headers().filter(move |header| header.name() == name)
    }

    /// The first header of that name.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<Header<'a>> {
        self.all(name).next()
    }

    /// The header of that name, which may stand once at most.
    pub fn only(&self, name: Name) -> Result<Option<Header<'a>>, Repeated> {
        let mut all = self.all(name);
        let first = all.next();
        match all.next() {
            None => Ok(first),
            Some(_) => Err(Repeated(name)),
        }
    }

    /// Where a part that was read out of this message stands in it, for an edit.
    ///
    /// `part` must be a slice of [`Message::bytes`]; of anything else the place means nothing, and
    /// an edit there is clipped to the message.
    #[must_use]
    pub fn range_of(&self, part: &[u8]) -> Range<usize> {
        let start = (part.as_ptr() as usize).saturating_sub(self.bytes.as_ptr() as usize);
        start..start + part.len()
    }

    /// What to cut out so that the first `count` members of a list header are gone: whole headers
    /// where nothing is left of them.
    pub fn leading(
        &self,
        name: Name,
        count: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let mut left = count;
        self.all(name).map_while(move |header| {
            if left == 0 {
                return None;
            }
            let mut members = elements(header.bytes, header.value_range());
            let Some(first) = members.next() else {
                return Some(header.range());
            };
            let Some(kept) = members.nth(left - 1) else {
                left -= elements(header.bytes, header.value_range()).count();
                return Some(header.range());
            };
            left = 0;
            Some(first.range().start..kept.range().start)
        })
    }

    /// The members of a list header (Via, Route, Supported, …) over all its lines, in order.
    pub fn list(&self, name: Name) -> impl Iterator<Item = Element<'a>> + use<'a> {
        self.all(name)
            .flat_map(|header| elements(header.bytes, header.value_range()))
    }
}

impl<'a> Header<'a> {
    /// Which header it is.
    #[must_use]
    pub const fn name(&self) -> Name {
        self.slot.name
    }

    /// The name as it was written.
    #[must_use]
    pub fn written_name(&self) -> &'a [u8] {
        &self.bytes[self.slot.line as usize..self.slot.name_end as usize]
    }

    /// The value without the blanks around it.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        &self.bytes[self.value_range()]
    }

    /// Where the value stands in the message.
    #[must_use]
    pub const fn value_range(&self) -> Range<usize> {
        self.slot.value as usize..self.slot.value_end as usize
    }

    /// Where the header's lines stand in the message, the last CRLF included.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.slot.line as usize..self.slot.end as usize
    }
}

/// Three digits, 100 to 699 (RFC 3261 §7.2).
fn status(digits: &[u8]) -> Option<u16> {
    let &[a @ b'1'..=b'6', b, c] = digits else {
        return None;
    };
    if !b.is_ascii_digit() || !c.is_ascii_digit() {
        return None;
    }
    Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::edit::Edits;
    use proptest::prelude::*;

    const REQUEST: &[u8] = b"SUBSCRIBE sip:bob@contoso.test SIP/2.0\r\n\
        v: SIP/2.0/TLS a;branch=x ,\r\n\tSIP/2.0/TLS b\r\n\
        Subject :\r\n\
        X-Odd: \"a, b\"\r\n\
        VIA:SIP/2.0/TLS c\r\n\
        l: 2\r\n\r\nhi";

    #[test]
    fn headers_are_found_by_either_name_and_keep_their_bytes() {
        let mut index = Index::new(16);
        let message = Message::parse(REQUEST, &mut index).expect("lawful");
        assert_eq!(message.method(), Some(&b"SUBSCRIBE"[..]));
        assert_eq!(message.request_uri(), Some(&b"sip:bob@contoso.test"[..]));
        assert_eq!(message.body(), b"hi");
        assert_eq!(
            message.first(Name::Subject).map(|h| h.value()),
            Some(&b""[..])
        );
        let vias: Vec<_> = message.list(Name::Via).map(|e| e.text()).collect();
        assert_eq!(
            vias,
            [
                &b"SIP/2.0/TLS a;branch=x"[..],
                b"SIP/2.0/TLS b",
                b"SIP/2.0/TLS c"
            ]
        );
        assert_eq!(
            message.only(Name::Via).map(|_| ()),
            Err(Repeated(Name::Via))
        );
        let odd = message.headers().nth(2).expect("third");
        assert_eq!(
            (odd.name(), odd.written_name()),
            (Name::Other, &b"X-Odd"[..])
        );
        assert_eq!(&REQUEST[message.headers_end()..], b"\r\nhi");
        let lines: usize = message.headers().map(|h| h.range().len()).sum();
        assert_eq!(message.headers_start() + lines, message.headers_end());
    }

    #[test]
    fn leading_members_go_with_their_header_when_nothing_is_left_of_it() {
        let cut = |count| {
            let mut index = Index::new(16);
            let message = Message::parse(REQUEST, &mut index).expect("lawful");
            let mut edits = Edits::new();
            for range in message.leading(Name::Via, count) {
                edits.remove(range);
            }
            let mut out = Vec::new();
            edits.write(REQUEST, &mut out);
            let mut index = Index::new(16);
            let left = Message::parse(&out, &mut index).expect("still lawful");
            let vias = left
                .list(Name::Via)
                .map(|e| e.text().to_vec())
                .collect::<Vec<_>>();
            (left.headers().count(), vias.concat())
        };
        assert_eq!(
            cut(0).1,
            b"SIP/2.0/TLS a;branch=xSIP/2.0/TLS bSIP/2.0/TLS c"
        );
        assert_eq!(cut(1), (5, b"SIP/2.0/TLS bSIP/2.0/TLS c".to_vec()));
        assert_eq!(cut(2), (4, b"SIP/2.0/TLS c".to_vec()));
        assert_eq!(cut(3), (3, Vec::new()));
        assert_eq!(cut(9), (3, Vec::new()));
    }

    proptest! {
        /// What is not edited is written as it came, whatever the values hold.
        #[test]
        fn a_message_without_edits_is_written_as_it_came(
            headers in proptest::collection::vec(("[!-9;-~]{1,12}|v|Via|Contact", "[ \t]{0,2}", "([ -~]|\r\n[ \t]|[à-ü]){0,30}"), 0..12),
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = b"MESSAGE sip:a@b SIP/2.0\r\n".to_vec();
            for (name, blank, value) in &headers {
                bytes.extend_from_slice(format!("{name}{blank}:{value}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&body);
            let mut index = Index::new(16);
            let Ok(message) = Message::parse(&bytes, &mut index) else {
                // Only a name that is no token may be refused in these.
                let token = |h: &(String, String, String)| crate::sip::parse::is_token(h.0.as_bytes());
                prop_assert!(!headers.iter().all(token));
                return Ok(());
            };
            let mut out = Vec::new();
            Edits::new().write(message.bytes(), &mut out);
            prop_assert_eq!(&out, &bytes);
            // The index covers the head without a gap.
            let mut again = bytes[..message.headers_start()].to_vec();
            for header in message.headers() {
                again.extend_from_slice(&bytes[header.range()]);
            }
            again.extend_from_slice(b"\r\n");
            again.extend_from_slice(message.body());
            prop_assert_eq!(again, bytes);
        }

        /// Bytes from the network never panic a reader.
        #[test]
        fn any_bytes_are_read_or_refused(noise in proptest::collection::vec(any::<u8>(), 0..200), value in "\\PC{0,60}") {
            let mut bytes = format!("A {value} SIP/2.0\r\nVia: {value}\r\nFrom: {value}\r\nCSeq: {value}\r\n").into_bytes();
            bytes.extend_from_slice(&noise);
            bytes.extend_from_slice(b"\r\n\r\n");
            let mut index = Index::new(16);
            if let Ok(message) = Message::parse(&bytes, &mut index) {
                for header in message.headers() {
                    let value = header.value();
                    let mut read = 0;
                    read += usize::from(crate::sip::header::via::Via::parse(value).is_ok());
                    read += usize::from(crate::sip::header::name_addr::NameAddr::parse(value).is_ok());
                    read += usize::from(crate::sip::header::cseq::CSeq::parse(value).is_ok());
                    read += usize::from(crate::sip::header::max_forwards::parse(value).is_ok());
                    read += usize::from(crate::sip::uri::Uri::parse(value).is_ok());
                    prop_assert!(read <= 5);
                    prop_assert_eq!(message.range_of(value), header.value_range());
                }
            }
        }
    }

    #[test]
    fn a_head_with_a_fault_is_read_up_to_it() {
        let front = |text: &str| {
            let mut index = Index::new(2);
            let message = Message::parse_front(text.as_bytes(), &mut index)?;
            Some(message.headers().count())
        };
        assert_eq!(
            front("BYE sip:a SIP/2.0\r\nA: 1\r\nno colon\r\nB: 2\r\n\r\n"),
            Some(1)
        );
        assert_eq!(
            front("BYE sip:a SIP/2.0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"),
            Some(2)
        );
        assert_eq!(front("BYE sip:a SIP/2.0\r\n\r\nbody"), Some(0));
        assert_eq!(front("BYE sip:a\0 SIP/2.0\r\n\r\n"), None);
        assert_eq!(front(""), None);
    }

    #[test]
    fn a_status_is_three_digits() {
        let read = |line: &str| {
            let bytes = format!("{line}\r\n\r\n");
            let mut index = Index::new(1);
            let message = Message::parse(bytes.as_bytes(), &mut index).expect("shape is lawful");
            assert!(message.is_response());
            message.status()
        };
        assert_eq!(read("SIP/2.0 200 OK"), Some(200));
        assert_eq!(read("SIP/2.0 100 "), Some(100));
        assert_eq!(read("SIP/2.0 699"), Some(699));
        for wrong in [
            "SIP/2.0",
            "SIP/2.0 99 x",
            "SIP/2.0 700 x",
            "SIP/2.0 4294967301 x",
            "SIP/2.0  200 OK",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

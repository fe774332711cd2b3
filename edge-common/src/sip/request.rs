//! Requests of our own: what `edgectl probe` and the daemons send themselves.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::header::Name;

/// A request under construction; headers stand in the order they were given.
///
/// ```
/// use edge_common::sip::header::Name;
/// use edge_common::sip::request::Request;
///
/// let bytes = Request::new("OPTIONS", "sip:contoso.test")
///     .header(Name::Via, "SIP/2.0/TLS a.contoso.test;branch=z9hG4bK1")
///     .header(Name::CSeq, "1 OPTIONS")
///     .finish();
/// assert!(bytes.ends_with(b"CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"));
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts with the request line.
    #[must_use]
    pub fn new(method: &str, uri: &str) -> Self {
        let mut bytes = Vec::with_capacity(512);
        push_text(&mut bytes, method.as_bytes());
        bytes.push(b' ');
        push_text(&mut bytes, uri.as_bytes());
        bytes.extend_from_slice(b" SIP/2.0\r\n");
        Self { bytes }
    }

    /// Adds a header that we have a name for.
    #[must_use]
    pub fn header(self, name: Name, value: &str) -> Self {
        self.other(name.as_str(), value)
    }

    /// Adds any header. A line end in the value becomes a blank: no value makes a header of its own.
    #[must_use]
    pub fn other(mut self, name: &str, value: &str) -> Self {
        push_header(&mut self.bytes, name.as_bytes(), value.as_bytes());
        self
    }

    /// Ends the request without a body.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        push_end(&mut self.bytes, b"");
        self.bytes
    }

    /// Ends the request with a body.
    #[must_use]
    pub fn body(self, content_type: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.header(Name::ContentType, content_type).bytes;
        push_end(&mut bytes, body);
        bytes
    }
}

pub(super) fn push_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push_text(out, name);
    out.extend_from_slice(b": ");
    push_text(out, value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn push_end(out: &mut Vec<u8>, body: &[u8]) {
    push_header(out, b"Content-Length", body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().map(|&b| match b {
        b'\r' | b'\n' | 0 => b' ',
        other => other,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::framer::{Framer, Limits, Opener, Step};
    use crate::sip::message::Message;
    use crate::sip::parse::Index;

    #[test]
    fn a_request_of_ours_is_framed_and_read_back() {
        let bytes = Request::new("SERVICE", "sip:mras@contoso.test")
            .header(Name::CallId, "a\r\nEvil: yes")
            .body("text/plain", b"hi");
        let limits = Limits { head: 999, body: 9 };
        let step = Framer::new(Opener::Remote, limits).next(&bytes);
        assert_eq!(step, Ok(Step::Message { len: bytes.len() }));
        let mut index = Index::new(9);
        let message = Message::parse(&bytes, &mut index).expect("lawful");
        assert_eq!(message.headers().count(), 3);
        assert_eq!(
            message.first(Name::CallId).map(|h| h.value()),
            Some(&b"a  Evil: yes"[..])
        );
        assert_eq!(message.body(), b"hi");
    }
}

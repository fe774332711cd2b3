//! Responses of our own to a received request (RFC 3261 §8.2.6).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::header::Name;
use super::header::name_addr::NameAddr;
use super::message::Message;
use super::request::{push_end, push_header};

/// A response under construction.
///
/// Via, From, To, Call-ID and CSeq are copied as they came; what the request lacks the response lacks
/// too, so that even a request without a From gets its 400.
#[derive(Clone, Debug)]
pub struct Response {
    bytes: Vec<u8>,
}

impl Response {
    /// Starts a response. `to_tag` is put on a To that has none, unless the status is 100.
    #[must_use]
    pub fn to(request: &Message<'_>, status: u16, reason: &str, to_tag: &str) -> Self {
        let as_it_came = |via: &[u8], out: &mut Vec<u8>| out.extend_from_slice(via);
        Self::noting(request, status, reason, to_tag, as_it_came)
    }

    /// The same, with the topmost Via as `write_top` appends it: it is for the first hop to say where the
    /// request really came from (RFC 3261 §18.2.1).
    #[must_use]
    pub fn noting(
        request: &Message<'_>,
        status: u16,
        reason: &str,
        to_tag: &str,
        write_top: impl FnOnce(&[u8], &mut Vec<u8>),
    ) -> Self {
        let top = request
            .list(Name::Via)
            .next()
            .map(|element| element.range());
        let mut write_top = Some(write_top);
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(format!("SIP/2.0 {status} {reason}\r\n").as_bytes());
        for header in request.headers() {
            let name = header.name();
            if !COPIED.contains(&name) {
                continue;
            }
            let value = header.value();
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            match (&top, write_top.take()) {
                (Some(top), Some(write)) if header.value_range().contains(&top.start) => {
                    let all = request.bytes();
                    let range = header.value_range();
                    bytes.extend_from_slice(&all[range.start..top.start]);
                    write(&all[top.clone()], &mut bytes);
                    bytes.extend_from_slice(&all[top.end..range.end]);
                }
                (_, write) => {
                    write_top = write;
                    bytes.extend_from_slice(value);
                }
            }
            if name == Name::To && status > 100 && needs_tag(value) {
                bytes.extend_from_slice(b";tag=");
                bytes.extend_from_slice(to_tag.as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
        }
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

    /// Adds whole header lines as they are, CRLF included; they are ours, so nothing is looked for in them.
    #[must_use]
    pub fn line(mut self, lines: &[u8]) -> Self {
        self.bytes.extend_from_slice(lines);
        self
    }

    /// Ends the response without a body.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        push_end(&mut self.bytes, b"");
        self.bytes
    }

    /// Ends the response with a body.
    #[must_use]
    pub fn body(self, content_type: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.header(Name::ContentType, content_type).bytes;
        push_end(&mut bytes, body);
        bytes
    }
}

/// A To that we cannot read stays as it is: the response goes to whoever wrote it.
fn needs_tag(to: &[u8]) -> bool {
    NameAddr::parse(to).is_ok_and(|to| to.tag().is_none())
}

const COPIED: [Name; 5] = [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::parse::Index;

    const REQUEST: &[u8] = b"OPTIONS sip:b SIP/2.0\r\nv: SIP/2.0/TLS x;branch=1\r\nMax-Forwards: 0\r\n\
        t: <sip:b>\r\nf: <sip:a>;tag=1\r\nCSeq: 1\r\n OPTIONS\r\ni: c\r\nVia: SIP/2.0/TLS y\r\nl: 0\r\n\r\n";

    #[test]
    fn what_identifies_the_request_comes_back_and_to_gets_a_tag() {
        let mut index = Index::new(16);
        let request = Message::parse(REQUEST, &mut index).expect("lawful");
        let response = Response::to(&request, 483, "Too Many Hops", "t0")
            .header(Name::RetryAfter, "5")
            .finish();
        assert_eq!(
            String::from_utf8_lossy(&response),
            "SIP/2.0 483 Too Many Hops\r\nVia: SIP/2.0/TLS x;branch=1\r\nTo: <sip:b>;tag=t0\r\n\
             From: <sip:a>;tag=1\r\nCSeq: 1\r\n OPTIONS\r\nCall-ID: c\r\nVia: SIP/2.0/TLS y\r\n\
             Retry-After: 5\r\nContent-Length: 0\r\n\r\n"
        );
        let trying = Response::to(&request, 100, "Trying", "t0").finish();
        assert!(!String::from_utf8_lossy(&trying).contains("tag=t0"));
    }
}

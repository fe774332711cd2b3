//! `"display" <uri>;params` and the bare `uri;params`: From, To, Contact, Route (RFC 3261 §20.10, §25.1).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::params::{Params, quoted_len};
use super::{Malformed, is_lws};
use crate::sip::parse::is_token_byte;

/// An address with its header parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes included; empty when there is none.
    pub display: &'a [u8],
    /// The URI between the brackets, or the bare one; not judged further.
    pub uri: &'a [u8],
    /// The parameters of the header, not of the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one address; `*` of a Contact is none.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let text = text.trim_ascii();
        let display_len = if text.first() == Some(&b'"') {
            quoted_len(text).ok_or(Malformed("a display name whose quotes do not close"))?
        } else {
            match memchr::memchr(b'<', text) {
                Some(at) => at,
                None => return Self::bare(text),
            }
        };
        let (display, rest) = text.split_at(display_len);
        let lawful = |&b: &u8| is_token_byte(b) || is_lws(b) || !b.is_ascii();
        if display.first() != Some(&b'"') && !display.iter().all(lawful) {
            return Err(Malformed("a display name that needs quotes"));
        }
        let rest = rest.trim_ascii_start();
        let inner = rest
            .strip_prefix(b"<")
            .ok_or(Malformed("a display name without an address"))?;
        let close = memchr::memchr(b'>', inner)
            .ok_or(Malformed("an address whose bracket does not close"))?;
        let uri = &inner[..close];
        if uri.is_empty() || uri.iter().any(|&b| is_lws(b)) {
            return Err(Malformed("a blank or nothing between the brackets"));
        }
        Ok(Self {
            display: display.trim_ascii(),
            uri,
            params: Params::parse(&inner[close + 1..])?,
        })
    }

    /// Without brackets what follows a semicolon belongs to the header, and a URI with headers or a
    /// comma cannot stand (RFC 3261 §20).
    fn bare(text: &'a [u8]) -> Result<Self, Malformed> {
        let end = text
            .iter()
            .position(|&b| is_lws(b) || b == b';')
            .unwrap_or(text.len());
        let (uri, params) = text.split_at(end);
        if uri.is_empty() || uri.iter().any(|&b| matches!(b, b'?' | b',' | b'>' | b'"')) {
            return Err(Malformed("an address that needs brackets"));
        }
        Ok(Self {
            display: b"",
            uri,
            params: Params::parse(params)?,
        })
    }

    /// The tag of a From or To.
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.value("tag").filter(|tag| !tag.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_clients_send() {
        let cases: [(&str, &str, &str, Option<&str>); 6] = [
            ("<sip:a@b>", "", "sip:a@b", None),
            (
                "<sip:a@b;tag=no>;epid=01;tag=yes",
                "",
                "sip:a@b;tag=no",
                Some("yes"),
            ),
            ("sip:a@b;tag=x", "", "sip:a@b", Some("x")),
            ("Alice B<sip:a@b>", "Alice B", "sip:a@b", None),
            (
                "\"A \\\"<x>\\\" B\"\r\n <sip:a@b> \r\n ; tag = t",
                "\"A \\\"<x>\\\" B\"",
                "sip:a@b",
                Some("t"),
            ),
            ("Zoë <sip:z@b>", "Zoë", "sip:z@b", None),
        ];
        for (text, display, uri, tag) in cases {
            let read = NameAddr::parse(text.as_bytes()).expect(text);
            assert_eq!(
                (read.display, read.uri),
                (display.as_bytes(), uri.as_bytes()),
                "{text}"
            );
            assert_eq!(read.tag(), tag.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        for wrong in [
            "",
            "\"a <sip:a@b>",
            "\"a\" sip:a@b",
            "A, B <sip:a@b>",
            "<sip:a@b",
            "<>",
            "< sip:a@b >",
            "<sip:a @b>",
            "sip:a@b?x=y",
            "<sip:a@b> x",
            "<sip:a@b>;;tag=x",
            "sip:a@b,sip:c@d",
        ] {
            assert!(NameAddr::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

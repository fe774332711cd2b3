//! One member of `Via` (RFC 3261 §20.42).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::params::Params;
use super::{Malformed, is_lws};
use crate::sip::parse::is_token;

/// `SIP/2.0/TLS host:port;params`, with blanks wherever RFC 3261 lets them stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// As written: real clients send `tls` in lower case.
    pub transport: &'a [u8],
    /// Host and port as written, not judged: pidgin-sipe 1.25 sends `(null):0` before it knows its own.
    pub sent_by: &'a [u8],
    /// Among them `branch`, which may be missing (Communicator, pidgin-sipe in dialogs).
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one member of the list.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        const PROTOCOL: Malformed = Malformed("Via does not start with SIP/2.0 and a transport");
        let (name, rest) = until(text, b'/').ok_or(PROTOCOL)?;
        let (version, rest) = until(rest, b'/').ok_or(PROTOCOL)?;
        let rest = rest.trim_ascii_start();
        let transport_len = rest.iter().take_while(|&&b| !is_lws(b)).count();
        let (transport, rest) = rest.split_at(transport_len);
        if !name.eq_ignore_ascii_case(b"SIP") || version != b"2.0" || !is_token(transport) {
            return Err(PROTOCOL);
        }
        let rest = rest.trim_ascii();
        let sent_by_len = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let (sent_by, params) = rest.split_at(sent_by_len);
        if sent_by.trim_ascii().is_empty() {
            return Err(Malformed("Via without a sent-by"));
        }
        Ok(Self {
            transport,
            sent_by: sent_by.trim_ascii(),
            params: Params::parse(params)?,
        })
    }

    /// The branch, unless it is missing or empty.
    #[must_use]
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.value("branch").filter(|b| !b.is_empty())
    }
}

/// The text before `mark` without blanks around it, and what follows it.
fn until(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(mark, text)?;
    Some((text[..at].trim_ascii(), &text[at + 1..]))
}

/// What every branch of RFC 3261 starts with (§8.1.1.7); others are of RFC 2543 and not unique.
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_clients_send() {
        let cases: [(&str, &str, &str, Option<&str>); 5] = [
            (
                "SIP/2.0/TLS 192.0.2.1:64100",
                "TLS",
                "192.0.2.1:64100",
                None,
            ),
            ("SIP/2.0/tls (null):0", "tls", "(null):0", None),
            (
                "SIP/2.0/TLS a;branch=z9hG4bK1;rport",
                "TLS",
                "a",
                Some("z9hG4bK1"),
            ),
            (
                "SIP  /   2.0\r\n /UDP\r\n   [2001:db8::9]:5060 ; branch\r\n = x",
                "UDP",
                "[2001:db8::9]:5060",
                Some("x"),
            ),
            ("sip/2.0/SCTP a;branch=", "SCTP", "a", None),
        ];
        for (text, transport, sent_by, branch) in cases {
            let via = Via::parse(text.as_bytes()).expect(text);
            assert_eq!(
                (via.transport, via.sent_by),
                (transport.as_bytes(), sent_by.as_bytes())
            );
            assert_eq!(via.branch(), branch.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_via_is_refused() {
        for wrong in [
            "",
            "SIP/2.0 a",
            "SIP/2.0/TLS",
            "SIP/2.0/TLS ",
            "SIP/2.0/TLS ;branch=x",
            "SIP/3.0/TLS a",
            "HTTP/2.0/TLS a",
            "SIP/2.0/TLS a;;branch=x",
        ] {
            assert!(Via::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

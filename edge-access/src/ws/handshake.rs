//! The opening handshake (RFC 6455 §4.2), and who may open one.
//!
//! ```text
//!  GET /path HTTP/1.1             the configured path
//!  Host: sip.contoso.com          a name of ours, or DNS rebinding could lead a browser here
//!  Upgrade, Connection            websocket
//!  Sec-WebSocket-Version: 13
//!  Sec-WebSocket-Key: …           16 bytes in base64
//!  Sec-WebSocket-Protocol: sip    mandatory (RFC 7118 §4)
//!  Origin: https://…              the page that the browser runs (RFC 6454)
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use edge_common::config::{SipDomain, WebSocket};
use edge_common::host_name::HostName;
use httparse::{EMPTY_HEADER, Header, Request, Status};

/// Who may open a WebSocket, and how.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// What the operator wants.
    pub config: &'a WebSocket,
    /// The edge's name outside.
    pub host: &'a HostName,
    /// Our SIP domains; hosts below them are ours as well.
    pub domains: &'a [SipDomain],
}

/// A handshake that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The request's bytes; frames follow it.
    pub len: usize,
    /// The whole answer.
    pub answer: Vec<u8>,
}

/// Why no WebSocket is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denial {
    /// The operator wants none.
    Disabled,
    /// More than [`WebSocket::request_max`], or more headers than any browser sends.
    TooLong,
    /// Not HTTP, or a header that may stand once stands twice.
    Malformed,
    /// Not HTTP/1.1.
    HttpVersion,
    /// Another path.
    Path,
    /// Another host, or none.
    Host,
    /// A plain request: nothing else is served here.
    NoUpgrade,
    /// Another version of the protocol.
    Version,
    /// The key is not 16 bytes.
    Key,
    /// The client does not speak SIP over it.
    Subprotocol,
    /// The page is none of ours.
    OriginForeign,
    /// The request names no page.
    OriginMissing,
}

impl Rules<'_> {
    /// Reads what has been received so far; `None`: more has to come.
    pub fn read(&self, received: &[u8]) -> Result<Option<Upgrade>, Denial> {
        if !self.config.enabled {
            return Err(Denial::Disabled);
        }
        let Some(end) = memchr::memmem::find(received, HEAD_END) else {
            if received.len() >= self.config.request_max {
                return Err(Denial::TooLong);
            }
            return Ok(None);
        };
        let len = end + HEAD_END.len();
        if len > self.config.request_max {
            return Err(Denial::TooLong);
        }
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = Request::new(&mut headers);
        match request.parse(&received[..len]) {
            Ok(Status::Complete(read)) if read == len => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Denial::TooLong),
            Err(httparse::Error::Version) => return Err(Denial::HttpVersion),
            Ok(_) | Err(_) => return Err(Denial::Malformed),
        }
        self.judge(&request)
            .map(|answer| Some(Upgrade { len, answer }))
    }

    fn judge(&self, request: &Request<'_, '_>) -> Result<Vec<u8>, Denial> {
        let headers = &*request.headers;
        if request.version != Some(1) {
            return Err(Denial::HttpVersion);
        }
        if request.method != Some("GET") || has_body(headers)? {
            return Err(Denial::Malformed);
        }
        let target = request.path.unwrap_or_default();
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if path != self.config.path {
            return Err(Denial::Path);
        }
        let host = only(headers, "Host")?.ok_or(Denial::Host)?;
        if !self.is_ours(without_port(host)) {
            return Err(Denial::Host);
        }
        if !lists(headers, "Upgrade", is_websocket) || !lists(headers, "Connection", is_upgrade) {
            return Err(Denial::NoUpgrade);
        }
        if only(headers, "Sec-WebSocket-Version")? != Some("13") {
            return Err(Denial::Version);
        }
        let key = only(headers, "Sec-WebSocket-Key")?.ok_or(Denial::Key)?;
        if BASE64.decode(key).map_or(0, |key| key.len()) != KEY_LEN {
            return Err(Denial::Key);
        }
        // A browser compares our choice with its own list, letter by letter.
        if !lists(headers, "Sec-WebSocket-Protocol", |name| {
            name == SUBPROTOCOL
        }) {
            return Err(Denial::Subprotocol);
        }
        self.judge_origin(only(headers, "Origin")?)?;
        Ok(accept(key))
    }

    fn judge_origin(&self, origin: Option<&str>) -> Result<(), Denial> {
        let Some(origin) = origin else {
            return if self.config.origin_required {
                Err(Denial::OriginMissing)
            } else {
                Ok(())
            };
        };
        // `null`, pages from files and pages that anybody on their way may have changed are nobody's.
        let host = origin
            .strip_prefix("https://")
            .ok_or(Denial::OriginForeign)?;
        let host = without_port(host);
        let known = if self.config.origins.is_empty() {
            self.is_ours(host)
        } else {
            let name = host.parse::<HostName>();
            name.is_ok_and(|name| {
                self.config
                    .origins
                    .iter()
                    .any(|allowed| allowed.matches(&name))
            })
        };
        if known {
            Ok(())
        } else {
            Err(Denial::OriginForeign)
        }
    }

    /// The edge's own name, a SIP domain of ours, or a host below one.
    fn is_ours(&self, host: &str) -> bool {
        let Ok(host) = host.parse::<HostName>() else {
            return false;
        };
        host == *self.host || self.domains.iter().any(|own| host.is_within(&own.domain))
    }
}

impl Denial {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::HttpVersion => "http_version",
            Self::Path => "path",
            Self::Host => "host",
            Self::NoUpgrade => "no_upgrade",
            Self::Version => "version",
            Self::Key => "key",
            Self::Subprotocol => "subprotocol",
            Self::OriginForeign => "origin_foreign",
            Self::OriginMissing => "origin_missing",
        }
    }

    /// The whole answer; the connection ends behind it.
    #[must_use]
    pub fn answer(self) -> Vec<u8> {
        let (status, more) = match self {
            Self::Disabled | Self::Path => ("404 Not Found", ""),
            Self::TooLong => ("431 Request Header Fields Too Large", ""),
            Self::Malformed | Self::Key | Self::Subprotocol => ("400 Bad Request", ""),
            Self::HttpVersion => ("505 HTTP Version Not Supported", ""),
            Self::Host => ("421 Misdirected Request", ""),
            Self::NoUpgrade => ("426 Upgrade Required", "Upgrade: websocket\r\n"),
            Self::Version => ("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n"),
            Self::OriginForeign | Self::OriginMissing => ("403 Forbidden", ""),
        };
        format!("HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n")
            .into_bytes()
    }
}

/// For fuzzing: no request panics, and what is let in is let in at its last byte and not before.
///
/// # Panics
/// When a request is let in before it is whole.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let config = WebSocket {
        origin_required: false,
        ..WebSocket::default()
    };
    let domain = || "contoso.test".parse::<HostName>();
    let (Ok(host), Ok(domain)) = (domain(), domain()) else {
        return;
    };
    let domains = [SipDomain {
        domain,
        remote_users_here: true,
        remote_users_edge: None,
    }];
    let rules = Rules {
        config: &config,
        host: &host,
        domains: &domains,
    };
    let Ok(Some(upgrade)) = rules.read(bytes) else {
        return;
    };
    assert!(upgrade.len <= bytes.len());
    assert_eq!(rules.read(&bytes[..upgrade.len - 1]), Ok(None));
    let planted = cfg!(planted_bug) && memchr::memchr(b'?', &bytes[..upgrade.len]).is_some();
    assert!(!planted, "planted bug");
}

/// The answer that lets the client begin (RFC 6455 §4.2.2).
fn accept(key: &str) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    let accept = BASE64.encode(hash.finish());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
    .into_bytes()
}

/// The one value of a header; two are refused, as nobody could know which one counts.
fn only<'a>(headers: &[Header<'a>], name: &str) -> Result<Option<&'a str>, Denial> {
    let mut values = values(headers, name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => std::str::from_utf8(value)
            .map(|value| Some(value.trim_matches([' ', '\t'])))
            .map_err(|_| Denial::Malformed),
        (Some(_), Some(_)) => Err(Denial::Malformed),
    }
}

/// Whether a member of the header's list is what `wanted` looks for.
fn lists(headers: &[Header<'_>], name: &str, wanted: impl Fn(&str) -> bool) -> bool {
    values(headers, name)
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .any(|member| wanted(member.trim_matches([' ', '\t'])))
}

fn values<'a>(headers: &[Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

fn has_body(headers: &[Header<'_>]) -> Result<bool, Denial> {
    let length = only(headers, "Content-Length")?;
    Ok(length.is_some_and(|len| len != "0") || only(headers, "Transfer-Encoding")?.is_some())
}

fn is_websocket(member: &str) -> bool {
    member.eq_ignore_ascii_case("websocket")
}

fn is_upgrade(member: &str) -> bool {
    member.eq_ignore_ascii_case("upgrade")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        Some(_) | None => host,
    }
}

const HEAD_END: &[u8] = b"\r\n\r\n";
/// RFC 7118 §4.
const SUBPROTOCOL: &str = "sip";
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// RFC 6455 §4.1, before base64.
const KEY_LEN: usize = 16;
/// Browsers send about fifteen.
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(config: &WebSocket, request: &str) -> Result<Option<Upgrade>, Denial> {
        let name = |text: &str| text.parse::<HostName>().expect("lawful name");
        let domain = |text| SipDomain {
            domain: name(text),
            remote_users_here: true,
            remote_users_edge: None,
        };
        Rules {
            config,
            host: &name("sip.contoso.test"),
            domains: &[domain("contoso.test"), domain("other.test")],
        }
        .read(request.as_bytes())
    }

    fn read(request: &str) -> Result<Option<Upgrade>, Denial> {
        read_with(&WebSocket::default(), request)
    }

    /// The request of RFC 7118 §4.1 as a browser sends it; `change` is replaced by what follows it.
    fn request(change: &str, by: &str) -> String {
        let request = "GET / HTTP/1.1\r\nHost: sip.contoso.test\r\nUpgrade: websocket\r\n\
            Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Origin: https://phone.contoso.test\r\nSec-WebSocket-Protocol: sip\r\n\
            Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Version: 13\r\n\r\n";
        assert!(request.contains(change), "{change}");
        request.replacen(change, by, 1)
    }

    fn denied(change: &str, by: &str) -> Denial {
        match read(&request(change, by)) {
            Err(denial) => denial,
            Ok(read) => panic!("{by:?} was not denied: {read:?}"),
        }
    }

    #[test]
    fn a_browser_is_let_in_at_every_cut_and_not_before_the_last_byte() {
        let request = request("GET", "GET");
        for cut in 0..request.len() {
            assert_eq!(read(&request[..cut]), Ok(None));
        }
        let upgrade = read(&request).expect("lawful");
        let upgrade = upgrade.expect("whole");
        assert_eq!(upgrade.len, request.len());
        let answer = String::from_utf8(upgrade.answer).expect("ASCII");
        // The example of RFC 6455 §1.3.
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(answer.contains("\r\nSec-WebSocket-Protocol: sip\r\n"));
        assert!(!answer.contains("Extensions"));
    }

    #[test]
    fn what_is_not_a_handshake_for_sip_is_denied_with_its_reason() {
        for (change, by, denial) in [
            ("HTTP/1.1", "HTTP/1.0", Denial::HttpVersion),
            ("HTTP/1.1", "HTTP/9.9", Denial::HttpVersion),
            ("GET / ", "GET  ", Denial::Malformed),
            ("GET /", "GET /other", Denial::Path),
            ("Host: sip", "Host: evil.test\r\nX: ", Denial::Host),
            (
                "Host: sip",
                "Host: sip.contoso.test\r\nHost: sip",
                Denial::Malformed,
            ),
            ("Host: sip.contoso.test\r\n", "", Denial::Host),
            ("Upgrade: websocket\r\n", "", Denial::NoUpgrade),
            ("keep-alive, Upgrade", "keep-alive", Denial::NoUpgrade),
            ("Version: 13", "Version: 8", Denial::Version),
            (
                "Version: 13",
                "Version: 13\r\nSec-WebSocket-Version: 13",
                Denial::Malformed,
            ),
            ("dGhl", "dG", Denial::Key),
            ("Protocol: sip", "Protocol: xmpp, SIP", Denial::Subprotocol),
            (
                "Upgrade: web",
                "Content-Length: 4\r\nUpgrade: web",
                Denial::Malformed,
            ),
            (
                "Upgrade: web",
                "Transfer-Encoding: chunked\r\nUpgrade: web",
                Denial::Malformed,
            ),
            ("Host", "Bad Header", Denial::Malformed),
        ] {
            assert_eq!(denied(change, by), denial, "{by}");
        }
        let many = "X: y\r\n".repeat(HEADERS_MAX);
        assert_eq!(denied("Origin", &format!("{many}Origin")), Denial::TooLong);
        let long = format!("X: {}\r\nOrigin", "y".repeat(8 * 1024));
        assert_eq!(denied("Origin", &long), Denial::TooLong);
        assert_eq!(read(&"x".repeat(8 * 1024)), Err(Denial::TooLong));
        let off = WebSocket {
            enabled: false,
            ..WebSocket::default()
        };
        assert_eq!(read_with(&off, "GET /"), Err(Denial::Disabled));
    }

    #[test]
    fn the_page_has_to_be_ours_or_listed() {
        let origin = "https://phone.contoso.test";
        for own in [
            "https://sip.contoso.test:8443",
            "https://contoso.test",
            "https://a.b.OTHER.test",
        ] {
            let read = read(&request(origin, own));
            assert!(matches!(read, Ok(Some(_))), "{own}: {read:?}");
        }
        for foreign in [
            "https://evil.test",
            "https://notcontoso.test",
            "https://contoso.test.evil.test",
            "http://phone.contoso.test",
            "null",
            "https://",
            "https://192.0.2.1",
        ] {
            assert_eq!(denied(origin, foreign), Denial::OriginForeign, "{foreign}");
        }
        let missing = "Origin: https://phone.contoso.test\r\n";
        assert_eq!(denied(missing, ""), Denial::OriginMissing);

        let listed = WebSocket {
            origins: vec!["*.apps.test".parse().expect("lawful")],
            origin_required: false,
            ..WebSocket::default()
        };
        let read = |by: &str| read_with(&listed, &request(origin, by));
        assert!(matches!(read("https://one.apps.test"), Ok(Some(_))));
        assert_eq!(
            read("https://phone.contoso.test"),
            Err(Denial::OriginForeign)
        );
        let without = read_with(&listed, &request(missing, ""));
        assert!(matches!(without, Ok(Some(_))), "{without:?}");
    }

    #[test]
    fn every_denial_is_one_small_answer() {
        let answer = String::from_utf8(Denial::Version.answer()).expect("ASCII");
        assert!(
            answer.starts_with("HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n")
        );
        assert!(answer.ends_with("Connection: close\r\nContent-Length: 0\r\n\r\n"));
    }
}

//! SIP and SIPS URIs (RFC 3261 §19.1). Routing reads host and parameters; nothing is ever rewritten here.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::header::params::Params;

/// A `sip:` or `sips:` URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// Whether every hop has to be secure.
    pub secure: bool,
    /// What stands before the `@`, password included, as written.
    pub user: Option<&'a [u8]>,
    /// Where it points to.
    pub host: Host<'a>,
    /// The port, when one is given.
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params<'a>,
    /// What follows the `?`, if there is one.
    pub headers: Option<&'a [u8]>,
    /// Host and port as written.
    pub hostport: &'a [u8],
}

/// The host part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A DNS name as written, without a final dot.
    Name(&'a str),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, which stands in brackets.
    V6(Ipv6Addr),
    /// An IPv6 address with three colons in a row, which RFC 3261's own grammar once asked for
    /// (RFC 5118 §4.10). It may stand in what we hand on; nobody can be reached at it.
    Doubtful,
}

/// Why a text is no SIP URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// A URI, but not one of ours: the answer is 416.
    #[error("the URI's scheme is neither sip nor sips")]
    SchemeUnknown,
    /// Not a URI.
    #[error("{0}")]
    Malformed(&'static str),
}

impl<'a> Uri<'a> {
    /// Reads a whole URI, without brackets or blanks.
    pub fn parse(text: &'a [u8]) -> Result<Self, UriError> {
        if let Some(wrong) = text.iter().position(|&b| !VISIBLE[usize::from(b)]) {
            let blank = matches!(text[wrong], b' ' | b'\t' | b'\r' | b'\n');
            return Err(UriError::Malformed(if blank {
                "a blank in the URI"
            } else {
                "a character that no URI may hold"
            }));
        }
        let (secure, rest) = scheme(text)?;
        let (user, rest) = match memchr::memchr(b'@', rest) {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        if user.is_some_and(<[u8]>::is_empty) || memchr::memchr(b'@', rest).is_some() {
            return Err(UriError::Malformed("an @ too many in the URI"));
        }
        let (rest, headers) = match memchr::memchr(b'?', rest) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let hostport_len = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let (hostport, params) = rest.split_at(hostport_len);
        let (host, port) = self::hostport(hostport)?;
        let params = Params::parse(params).map_err(|wrong| UriError::Malformed(wrong.0))?;
        Ok(Self {
            secure,
            user,
            host,
            port,
            params,
            headers,
            hostport,
        })
    }
}

impl Host<'_> {
    /// Whether it is that DNS name, in any case.
    #[must_use]
    pub fn is_name(&self, name: &str) -> bool {
        matches!(self, Self::Name(host) if host.eq_ignore_ascii_case(name))
    }
}

/// What may stand in a URI at all; the rest has to be escaped (RFC 3261 §25.1).
const fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'<' | b'>' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'}' | b'|'
        )
}

/// [`is_visible`] of every byte: each character of each URI is looked up.
const VISIBLE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_visible(byte as u8);
        byte += 1;
    }
    table
};

fn scheme(text: &[u8]) -> Result<(bool, &[u8]), UriError> {
    let colon = memchr::memchr(b':', text).ok_or(UriError::Malformed("a URI without a scheme"))?;
    let (name, rest) = (&text[..colon], &text[colon + 1..]);
    if name.eq_ignore_ascii_case(b"sip") {
        return Ok((false, rest));
    }
    if name.eq_ignore_ascii_case(b"sips") {
        return Ok((true, rest));
    }
    let lawful = |&b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    if name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(lawful) {
        Err(UriError::SchemeUnknown)
    } else {
        Err(UriError::Malformed("a URI without a scheme"))
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
pub fn hostport(text: &[u8]) -> Result<(Host<'_>, Option<u16>), UriError> {
    const HOST: UriError = UriError::Malformed("a host that is neither a name nor an address");
    let text = std::str::from_utf8(text).map_err(|_| HOST)?;
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let (address, port) = inner.split_once(']').ok_or(HOST)?;
        (v6(address).ok_or(HOST)?, port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (name_or_v4(name).ok_or(HOST)?, port)
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(self::port(digits)?),
        None if port.is_empty() => None,
        None => return Err(HOST),
    };
    Ok((host, port))
}

/// Of two ways to read an address neither is ours to choose, so a doubtful one is kept without a value.
fn v6(text: &str) -> Option<Host<'static>> {
    if let Ok(address) = text.parse() {
        return Some(Host::V6(address));
    }
    let meant = text.replacen(":::", "::", 1);
    meant.parse::<Ipv6Addr>().ok()?;
    Some(Host::Doubtful)
}

fn name_or_v4(text: &str) -> Option<Host<'_>> {
    if text.starts_with(|first: char| first.is_ascii_digit())
        && let Ok(address) = text.parse()
    {
        return Some(Host::V4(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    (name.len() <= NAME_LEN_MAX && is_name(name)).then_some(Host::Name(name))
}

fn is_name(text: &str) -> bool {
    let (mut label_len, mut is_number) = (0, true);
    for byte in text.bytes() {
        match byte {
            b'.' if label_len == 0 => return false,
            b'.' => (label_len, is_number) = (0, true),
            _ if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) => return false,
            _ if label_len == LABEL_LEN_MAX => return false,
            _ => {
                label_len += 1;
                is_number &= byte.is_ascii_digit();
            }
        }
    }
    // A name whose last label is a number would be taken for an address by others.
    label_len > 0 && !is_number
}

fn port(digits: &str) -> Result<u16, UriError> {
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
        .ok_or(UriError::Malformed("a port that is not a number"))
}

/// RFC 1035 §2.3.4.
const LABEL_LEN_MAX: usize = 63;
const NAME_LEN_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_clients_send() {
        let parse = |text: &'static str| Uri::parse(text.as_bytes()).expect(text);

        let gruu = parse("sip:alice@contoso.test;opaque=user:epid:AbC;gruu");
        assert_eq!(gruu.user, Some(&b"alice"[..]));
        assert!(gruu.host.is_name("CONTOSO.test"));
        assert_eq!(gruu.params.value("opaque"), Some(&b"user:epid:AbC"[..]));
        assert!(gruu.params.get("gruu").is_some());

        let odd = parse("sip:user;par=u%40example.net@example.com.:5061?a=b&c=d");
        assert_eq!(odd.user, Some(&b"user;par=u%40example.net"[..]));
        assert_eq!(
            (odd.host, odd.port),
            (Host::Name("example.com"), Some(5061))
        );
        assert_eq!(odd.headers, Some(&b"a=b&c=d"[..]));

        let v6 = parse("SIPS:[2001:db8::10]:5070;transport=tls");
        assert!(v6.secure);
        assert_eq!(
            (v6.hostport, v6.port),
            (&b"[2001:db8::10]:5070"[..], Some(5070))
        );
        assert_eq!(parse("sip:[2001:db8::10:5070]").port, None);
        assert_eq!(
            parse("sip:192.0.2.1").host,
            Host::V4(Ipv4Addr::new(192, 0, 2, 1))
        );
    }

    #[test]
    fn three_colons_in_an_ipv6_address_are_read_and_name_no_address() {
        for text in ["sip:bob@[2001:db8:5:::198.51.100.7]", "sip:[:::1]:5061;lr"] {
            let uri = Uri::parse(text.as_bytes()).expect(text);
            assert_eq!(uri.host, Host::Doubtful, "{text}");
        }
        for wrong in ["sip:[2001:db8::::1]", "sip:[1:::2:::3]", "sip:[:::x]"] {
            assert!(Uri::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for wrong in [
            "",
            "contoso.test",
            "<sip:a@b>",
            "sip:",
            "sip:@a",
            "sip:a@",
            "sip:a@b@c",
            "sip:a b@c",
            "sip:a:x",
            "sip:a:",
            "sip:a:65536",
            "sip:a:+1",
            "sip:2001:db8::1",
            "sip:[2001:db8::1",
            "sip:[x]",
            "sip:a..b",
            "sip:1.2.3.400",
            "sip:a;;b",
            "sip:b\u{e9}",
            ":a",
        ] {
            assert!(
                matches!(Uri::parse(wrong.as_bytes()), Err(UriError::Malformed(_))),
                "{wrong}"
            );
        }
        for other in ["tel:+1", "http://a/", "nobodyKnows:x"] {
            assert_eq!(
                Uri::parse(other.as_bytes()),
                Err(UriError::SchemeUnknown),
                "{other}"
            );
        }
    }
}

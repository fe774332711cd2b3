//! `;name=value` lists of headers and URIs (RFC 3261 §25.1, generic-param).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::{Malformed, is_lws};

/// What follows a header's or URI's main part: empty, or text that starts with `;`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<'a>(&'a [u8]);

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// As written.
    pub name: &'a [u8],
    /// After the `=`, quotes included; `None` when there is no `=`.
    pub value: Option<&'a [u8]>,
    /// The whole of it from its `;` on.
    pub text: &'a [u8],
}

impl<'a> Params<'a> {
    /// Takes the text from its first `;` on; checks that names are there and quotes are closed.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let params = Self(text);
        let blank = text.iter().all(|&b| is_lws(b));
        if !blank && text.trim_ascii_start().first() != Some(&b';') {
            return Err(Malformed("text where a parameter should start"));
        }
        for param in params.iter() {
            if param.name.is_empty() {
                return Err(Malformed("a parameter without a name"));
            }
            if param.name.iter().any(|&b| is_lws(b) || b == b'"') {
                return Err(Malformed("a parameter's name is not a token"));
            }
            let unquoted = param.value.unwrap_or_default();
            if unquoted.first() == Some(&b'"') && !is_quoted(unquoted) {
                return Err(Malformed("a parameter's quotes do not close"));
            }
        }
        Ok(params)
    }

    /// The text as it stands.
    #[must_use]
    pub const fn text(&self) -> &'a [u8] {
        self.0
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let mut rest = self.0.trim_ascii_start();
        std::iter::from_fn(move || {
            let body = rest.strip_prefix(b";")?;
            let len = semicolon(body);
            let text = &rest[..=len];
            rest = &body[len..];
            Some(Param::read(text))
        })
    }

    /// The first parameter of that name, in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Param<'a>> {
        self.iter()
            .find(|param| param.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The value of the first parameter of that name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.get(name).and_then(|param| param.value)
    }
}

impl<'a> Param<'a> {
    fn read(text: &'a [u8]) -> Self {
        let body = &text[1..];
        let (name, value) = match memchr::memchr(b'=', body) {
            Some(at) => (&body[..at], Some(body[at + 1..].trim_ascii())),
            None => (body, None),
        };
        Self {
            name: name.trim_ascii(),
            value,
            text,
        }
    }
}

/// Where the next parameter starts: a semicolon outside quotes.
fn semicolon(text: &[u8]) -> usize {
    let from = match memchr::memchr2(b';', b'"', text) {
        Some(at) if text[at] == b'"' => at,
        Some(at) => return at,
        None => return text.len(),
    };
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in text.iter().enumerate().skip(from) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// One quoted string and nothing behind it.
pub(super) fn is_quoted(text: &[u8]) -> bool {
    quoted_len(text) == Some(text.len())
}

/// The length of the quoted string at the front, its quotes included.
pub(super) fn quoted_len(text: &[u8]) -> Option<usize> {
    let body = text.strip_prefix(b"\"")?;
    let mut escaped = false;
    for (at, &byte) in body.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 2),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_may_be_spread_over_folds() {
        let params = Params::parse(b" ;\r\n  tag = 98asjd8 ;epid;q=\"a;b\"").expect("lawful");
        assert_eq!(params.value("TAG"), Some(&b"98asjd8"[..]));
        assert_eq!(params.get("epid").map(|p| p.value), Some(None));
        assert_eq!(params.value("q"), Some(&b"\"a;b\""[..]));
        assert_eq!(params.get("b"), None);
        assert_eq!(params.get("q").map(|p| p.text), Some(&b";q=\"a;b\""[..]));
    }

    #[test]
    fn parameters_without_a_name_or_an_end_are_refused() {
        for wrong in [
            ";;a",
            ";",
            "; =b",
            "x;a",
            ";a b",
            ";a=\"b",
            ";a=\"b\"c",
            ";\"a\"=b",
        ] {
            assert!(Params::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Params::parse(b"  ").is_ok());
    }
}

//! DNS names as the edge uses them: checked once, lower case, ASCII.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::punycode::to_ascii;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A DNS host name (RFC 1123 §2.1) in lower case, without the dot of the root.
///
/// Two names are equal when DNS says so. An address is not a name: the last label holds a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Box<str>);

impl HostName {
    /// As `from_str`, and `_` may stand in a label.
    ///
    /// For servers inside, which this program does not get to name. No name of the edge itself holds one, as public
    /// certificate authorities and many resolvers refuse it.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn with_underscores(text: &str) -> Result<Self, HostNameError> {
        Self::parse(text, true)
    }

    /// As `with_underscores`, and labels in other scripts are taken in their ASCII form.
    ///
    /// For servers inside: DNS and certificates carry that form, whatever an operator types.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn of_server_inside(text: &str) -> Result<Self, HostNameError> {
        if text.is_ascii() {
            return Self::with_underscores(text);
        }
        let labels = text
            .split('.')
            .map(|label| to_ascii(label).ok_or(HostNameError::LabelTooLong));
        Self::with_underscores(&labels.collect::<Result<Vec<_>, _>>()?.join("."))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from the left.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Says whether this is `domain` itself or a name below it.
    #[must_use]
    pub fn is_within(&self, domain: &Self) -> bool {
        self.0
            .strip_suffix(&*domain.0)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Says whether the name has a dot; a single label means something else on every host.
    #[must_use]
    pub fn is_qualified(&self) -> bool {
        self.0.contains('.')
    }

    /// The name without its first label; `None` for a single label.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_once('.')?;
        Some(Self(rest.into()))
    }

    fn parse(text: &str, underscores: bool) -> Result<Self, HostNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(HostNameError::Empty);
        }
        if let Some(other) = name.chars().find(|c| !c.is_ascii()) {
            return Err(HostNameError::NotAscii(other));
        }
        if name.len() > NAME_LEN_MAX {
            return Err(HostNameError::TooLong);
        }
        for label in name.split('.') {
            check_label(label, underscores)?;
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HostNameError::Address);
        }
        Ok(Self(name.to_ascii_lowercase().into_boxed_str()))
    }
}

fn check_label(label: &str, underscores: bool) -> Result<(), HostNameError> {
    if label.is_empty() {
        return Err(HostNameError::EmptyLabel);
    }
    if label.len() > LABEL_LEN_MAX {
        return Err(HostNameError::LabelTooLong);
    }
    for c in label.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => {}
            '_' if underscores => {}
            '_' => return Err(HostNameError::Underscore),
            other => return Err(HostNameError::Character(other)),
        }
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(HostNameError::Hyphen);
    }
    Ok(())
}

/// Any case, with or without the dot of the root.
impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        Self::parse(text, false)
    }
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;

    /// For the configuration, which tells of underscores by itself where they are not wanted.
    fn try_from(text: String) -> Result<Self, HostNameError> {
        Self::with_underscores(&text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0.into()
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for HostName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HostName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "hostname" })
    }
}

/// Why a text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// Two dots in a row, or one in front.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// RFC 1035 §2.3.4.
    #[error("the name is longer than {NAME_LEN_MAX} characters")]
    TooLong,
    /// RFC 1035 §2.3.4.
    #[error("a label is longer than {LABEL_LEN_MAX} characters")]
    LabelTooLong,
    /// Names that use other scripts have an ASCII form.
    #[error("'{0}' is not ASCII; write the name in its xn-- form")]
    NotAscii(char),
    /// Public certificate authorities refuse it.
    #[error("'_' is not allowed in a host name")]
    Underscore,
    /// Neither letter, digit nor hyphen.
    #[error("{0:?} is not allowed in a host name")]
    Character(char),
    /// A label begins or ends with it.
    #[error("a label begins or ends with '-'")]
    Hyphen,
    /// The last label is a number.
    #[error("this is an address, not a name")]
    Address,
}

/// A host name and a port, written `name:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// The host.
    pub host: HostName,
    /// Its port; never 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = split_port(text)?;
        Ok(Self {
            host: host.parse()?,
            port,
        })
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    /// For the configuration, where it is a server inside.
    fn try_from(text: String) -> Result<Self, HostPortError> {
        let (host, port) = split_port(&text)?;
        Ok(Self {
            host: HostName::of_server_inside(host)?,
            port,
        })
    }
}

fn split_port(text: &str) -> Result<(&str, u16), HostPortError> {
    let (host, port) = text.rsplit_once(':').ok_or(HostPortError::PortMissing)?;
    // `parse` alone would take a sign.
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostPortError::PortInvalid);
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(HostPortError::PortInvalid),
        Ok(port) => Ok((host, port)),
    }
}

impl From<HostPort> for String {
    fn from(at: HostPort) -> Self {
        at.to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl JsonSchema for HostPort {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HostPort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "host-port" })
    }
}

/// Why a text is no `name:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// The part in front of the colon.
    #[error(transparent)]
    Host(#[from] HostNameError),
    /// No colon.
    #[error("the port is missing: write name:port")]
    PortMissing,
    /// Not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    PortInvalid,
}

/// Names a certificate may prove: one name, or all names one label below another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NamePattern {
    /// Exactly this name.
    Exact(HostName),
    /// `*.name`: one label in front of it, as in certificates (RFC 6125 §6.4.3).
    OneBelow(HostName),
}

impl NamePattern {
    /// Says whether `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::OneBelow(domain) => name
                .as_str()
                .split_once('.')
                .is_some_and(|(_, rest)| rest == domain.as_str()),
        }
    }

    /// The name in it, without the star.
    #[must_use]
    pub const fn name(&self) -> &HostName {
        match self {
            Self::Exact(name) | Self::OneBelow(name) => name,
        }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = HostNameError;

    /// For the configuration, where they are servers inside.
    fn try_from(text: String) -> Result<Self, HostNameError> {
        match text.strip_prefix("*.") {
            Some(domain) => Ok(Self::OneBelow(HostName::of_server_inside(domain)?)),
            None => Ok(Self::Exact(HostName::of_server_inside(&text)?)),
        }
    }
}

impl FromStr for NamePattern {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        text.to_owned().try_into()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::OneBelow(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl JsonSchema for NamePattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NamePattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "host-pattern" })
    }
}

/// RFC 1035 §2.3.4, as text and without the dot of the root.
const NAME_LEN_MAX: usize = 253;
/// RFC 1035 §2.3.4.
const LABEL_LEN_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().expect("a lawful name")
    }

    #[test]
    fn names_are_equal_as_in_dns() {
        assert_eq!(name("Edge1.Contoso.TEST."), name("edge1.contoso.test"));
        assert_eq!(name("a").to_string(), "a");
        assert!(!name("a").is_qualified());
        assert_eq!(name("a.b.c").parent(), Some(name("b.c")));
        assert_eq!(name("c").parent(), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refused = |text: &str| text.parse::<HostName>().expect_err(text);
        assert_eq!(refused(""), HostNameError::Empty);
        assert_eq!(refused("."), HostNameError::Empty);
        assert_eq!(refused("a..b"), HostNameError::EmptyLabel);
        assert_eq!(refused(".a"), HostNameError::EmptyLabel);
        assert_eq!(refused("edge_1.test"), HostNameError::Underscore);
        assert_eq!(
            refused("m\u{fc}nchen.test"),
            HostNameError::NotAscii('\u{fc}')
        );
        assert_eq!(refused("a b.test"), HostNameError::Character(' '));
        assert_eq!(refused("-a.test"), HostNameError::Hyphen);
        assert_eq!(refused("a-.test"), HostNameError::Hyphen);
        assert_eq!(refused("192.0.2.1"), HostNameError::Address);
        assert_eq!(refused(&"a".repeat(64)), HostNameError::LabelTooLong);
        assert_eq!(refused(&"abc.".repeat(64)), HostNameError::TooLong);
    }

    #[test]
    fn the_longest_name_has_253_characters() {
        let longest = "a.".repeat(127);
        assert_eq!(name(&longest).as_str().len(), NAME_LEN_MAX);
        assert_eq!(
            format!("b{longest}").parse::<HostName>(),
            Err(HostNameError::TooLong)
        );
    }

    #[test]
    fn within_stops_at_a_label() {
        assert!(name("sip.contoso.test").is_within(&name("contoso.test")));
        assert!(name("contoso.test").is_within(&name("contoso.test")));
        assert!(!name("evilcontoso.test").is_within(&name("contoso.test")));
        assert!(!name("test").is_within(&name("contoso.test")));
    }

    #[test]
    fn a_server_inside_may_be_named_in_another_script() {
        let inside = |text: &str| HostName::of_server_inside(text).map(|name| name.to_string());
        assert_eq!(
            inside("M\u{fc}nchen.contoso.test").as_deref(),
            Ok("xn--mnchen-3ya.contoso.test")
        );
        assert_eq!(
            inside("fe_1.contoso.test").as_deref(),
            Ok("fe_1.contoso.test")
        );
        assert_eq!(
            inside("m\u{fc}n chen.test"),
            Err(HostNameError::Character(' '))
        );
        assert_eq!(
            inside(&"\u{fc}".repeat(64)),
            Err(HostNameError::LabelTooLong)
        );
    }

    #[test]
    fn a_pattern_covers_one_label() {
        let pool: NamePattern = "*.pool.contoso.test".parse().expect("a pattern");
        assert!(pool.matches(&name("fe1.pool.contoso.test")));
        assert!(!pool.matches(&name("pool.contoso.test")));
        assert!(!pool.matches(&name("a.fe1.pool.contoso.test")));
        assert_eq!(pool.to_string(), "*.pool.contoso.test");
        let one: NamePattern = "Director.contoso.test".parse().expect("a pattern");
        assert!(one.matches(&name("director.contoso.test")));
    }

    #[test]
    fn host_and_port() {
        let at: HostPort = "director.contoso.test:5061".parse().expect("name:port");
        assert_eq!((at.host.as_str(), at.port), ("director.contoso.test", 5061));
        for (text, error) in [
            ("director", HostPortError::PortMissing),
            ("director:", HostPortError::PortInvalid),
            ("director:0", HostPortError::PortInvalid),
            ("director:+5", HostPortError::PortInvalid),
            ("director:65536", HostPortError::PortInvalid),
            ("a_b:5061", HostPortError::Host(HostNameError::Underscore)),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text}");
        }
    }
}

//! The names that a peer's certificate proves (RFC 5922 §7.1, RFC 6125).
//!
//! What counts: URIs `sip:domain` and dNSNames of the subjectAltName; the common name only when the
//! certificate has no identity in a subjectAltName at all. What does not: wildcards, SIP URIs with a user
//! part, addresses. Whether the *chain* is good is not asked here; that was the handshake's matter.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::host_name::{HostName, NamePattern};

/// Everything that a certificate proves, extracted once per connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProvenNames {
    /// Domains of `sip:` and `sips:` URIs.
    pub sip_domains: Vec<HostName>,
    /// dNSNames.
    pub dns: Vec<HostName>,
    /// The common name of a certificate that has no other identity.
    pub common_name: Option<HostName>,
}

impl ProvenNames {
    /// Reads a certificate that passed the handshake.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        if !rest.is_empty() {
            return Err(IdentityError::Certificate(format!(
                "{} bytes after its end",
                rest.len()
            )));
        }
        Self::from_parsed(&certificate)
    }

    /// As [`Self::from_certificate`] of one that is parsed already.
    pub(crate) fn from_parsed(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let extension = certificate
            .subject_alternative_name()
            .map_err(|error| IdentityError::AlternativeNames(error.to_string()))?;
        let mut names = Self::default();
        let mut has_identity = false;
        for name in extension
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            has_identity |= names.take(name)?;
        }
        if !has_identity {
            names.common_name = common_name(certificate);
        }
        Ok(names)
    }

    /// Takes one alternative name in; says whether it is an identity of a server, which silences the common name.
    fn take(&mut self, name: &GeneralName<'_>) -> Result<bool, IdentityError> {
        match name {
            GeneralName::DNSName(dns) => {
                self.dns.extend(exact(dns));
                Ok(true)
            }
            GeneralName::URI(uri) => {
                self.sip_domains.extend(sip_domain(uri));
                Ok(true)
            }
            GeneralName::IPAddress(_) => Ok(true),
            GeneralName::Invalid(tag, _) => Err(IdentityError::AlternativeNames(format!(
                "an invalid entry with tag {}",
                tag.0
            ))),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_) => Ok(false),
        }
    }

    /// Says whether the certificate was given to the host `name`: by dNSName, else by common name.
    #[must_use]
    pub fn proves_host(&self, name: &HostName) -> bool {
        self.hosts().any(|host| host == name)
    }

    /// Says whether the certificate was given to the SIP domain `name` itself (RFC 5922 §7.2): by URI or as a host of that name.
    #[must_use]
    pub fn proves_domain(&self, name: &HostName) -> bool {
        // Where a certificate names SIP domains, they alone are its domains; its dNSNames are hosts.
        if self.sip_domains.is_empty() {
            return self.proves_host(name);
        }
        self.sip_domains.contains(name)
    }

    /// Says whether `name` is among the names at all.
    #[must_use]
    pub fn proves(&self, name: &HostName) -> bool {
        self.all().any(|proven| proven == name)
    }

    /// The first host that one of the patterns allows.
    #[must_use]
    pub fn first_allowed(&self, patterns: &[NamePattern]) -> Option<&HostName> {
        self.hosts()
            .find(|host| patterns.iter().any(|pattern| pattern.matches(host)))
    }

    /// The hosts it was given to.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.dns.iter().chain(&self.common_name)
    }

    /// All names.
    pub fn all(&self) -> impl Iterator<Item = &HostName> {
        self.sip_domains.iter().chain(self.hosts())
    }

    /// Says whether nothing is proven.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// The names with commas between, for logs.
impl fmt::Display for ProvenNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.sip_domains.iter().enumerate() {
            write!(f, "{}sip:{name}", if at == 0 { "" } else { ", " })?;
        }
        for (at, name) in self.hosts().enumerate() {
            write!(
                f,
                "{}{name}",
                if at == 0 && self.sip_domains.is_empty() {
                    ""
                } else {
                    ", "
                }
            )?;
        }
        if self.is_empty() {
            f.write_str("(no name)")?;
        }
        Ok(())
    }
}

/// Why a certificate's names could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// The subjectAltName is broken or there twice: what it says cannot be relied upon.
    #[error("unreadable subjectAltName: {0}")]
    AlternativeNames(String),
}

/// Names one certificate as administrators do: who issued it, and under which number (RFC 5280 §4.1.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateId {
    /// The issuer's name as text, as in `C=US, O=Public CA, CN=R3`.
    pub issuer: String,
    /// The serial number, lower-case hexadecimal without separators.
    pub serial: String,
}

impl CertificateId {
    /// Of a certificate that passed the handshake.
    pub fn of(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let serial = certificate
            .raw_serial()
            .iter()
            .fold(String::new(), |mut text, byte| {
                use std::fmt::Write as _;
                // Writing to a String cannot fail.
                write!(text, "{byte:02x}").ok();
                text
            });
        Ok(Self {
            issuer: certificate.issuer().to_string(),
            serial,
        })
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.serial, self.issuer)
    }
}

/// SHA-256 over a certificate: tells certificates apart in caches and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of the certificate's DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// SHA-256 over a certificate's public key (SubjectPublicKeyInfo): tells whether two certificates have the same holder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

impl KeyFingerprint {
    /// Of the key in the certificate's DER; `None` when it cannot be read.
    #[must_use]
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate.public_key().raw).as_ref());
        Some(Self(bytes))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFingerprint({})", Fingerprint(self.0))
    }
}

/// A name without a wildcard. Servers inside may have an underscore.
fn exact(name: &str) -> Option<HostName> {
    HostName::with_underscores(name).ok()
}

/// RFC 5922 §7.1: `sip:domain` and nothing more; a URI with a user part names a user.
fn sip_domain(uri: &str) -> Option<HostName> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    exact(rest)
}

/// The last common name, being the most specific, if it is a host name.
fn common_name(certificate: &X509Certificate<'_>) -> Option<HostName> {
    let attribute = certificate.subject().iter_common_name().last()?;
    exact(attribute.as_str().ok()?)
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(Ia5String::try_from(text).unwrap())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text).unwrap())
    }

    fn certificate(common_name: &str, alternative: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = alternative;
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    fn names(common_name: &str, alternative: Vec<SanType>) -> ProvenNames {
        ProvenNames::from_certificate(&certificate(common_name, alternative)).unwrap()
    }

    #[test]
    fn the_common_name_counts_only_when_nothing_else_is_there() {
        assert!(names("Old.Contoso.test", vec![]).proves(&name("old.contoso.test")));
        assert!(
            !names("old.contoso.test", vec![dns("new.contoso.test")])
                .proves(&name("old.contoso.test"))
        );
        let mail = SanType::Rfc822Name(Ia5String::try_from("a@contoso.test").unwrap());
        assert!(names("old.contoso.test", vec![mail]).proves(&name("old.contoso.test")));
        for silencing in [
            uri("https://contoso.test"),
            SanType::IpAddress([192, 0, 2, 1].into()),
            dns("*.contoso.test"),
        ] {
            assert!(names("old.contoso.test", vec![silencing]).is_empty());
        }
        assert!(names("Contoso Ltd", vec![]).is_empty());
    }

    #[test]
    fn wildcards_prove_nothing() {
        let wild = names("x", vec![dns("*.contoso.test"), dns("f*.contoso.test")]);
        assert!(wild.is_empty(), "{wild}");
        assert!(!wild.proves(&name("sip.contoso.test")));
    }

    #[test]
    fn sip_uris_name_domains_and_not_users() {
        let both = names(
            "x",
            vec![
                uri("sip:Contoso.test"),
                uri("sip:bob@fabrikam.test"),
                uri("https://evil.test"),
                dns("edge.contoso.test"),
            ],
        );
        assert_eq!(both.sip_domains, [name("contoso.test")]);
        assert!(both.proves_domain(&name("contoso.test")));
        assert!(
            !both.proves_domain(&name("edge.contoso.test")),
            "its domains are named by URI"
        );
        assert!(both.proves_host(&name("edge.contoso.test")));
        assert!(!both.proves_host(&name("contoso.test")));
        assert!(!both.proves(&name("fabrikam.test")) && !both.proves(&name("evil.test")));
        assert_eq!(both.to_string(), "sip:contoso.test, edge.contoso.test");
    }

    #[test]
    fn a_host_name_is_also_a_domain_when_no_uri_names_one() {
        let only = names("x", vec![dns("contoso.test")]);
        assert!(only.proves_domain(&name("contoso.test")));
        assert!(!only.proves_domain(&name("sub.contoso.test")));
        assert!(!only.proves_domain(&name("test")));
    }

    #[test]
    fn patterns_pick_the_first_allowed_host() {
        let server = names("x", vec![dns("a.test"), dns("fe1.pool.contoso.test")]);
        let pool: [NamePattern; 1] = ["*.pool.contoso.test".parse().unwrap()];
        assert_eq!(
            server.first_allowed(&pool),
            Some(&name("fe1.pool.contoso.test"))
        );
        assert_eq!(server.first_allowed(&[]), None);
    }

    #[test]
    fn a_broken_certificate_is_refused_at_every_cut() {
        let whole = certificate("x", vec![dns("contoso.test")]);
        for len in 0..whole.len() {
            assert!(
                ProvenNames::from_certificate(&whole[..len]).is_err(),
                "cut at {len}"
            );
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert!(ProvenNames::from_certificate(&longer).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics() {
        let whole = certificate("x", vec![dns("contoso.test"), uri("sip:contoso.test")]);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            if let Ok(names) = ProvenNames::from_certificate(&changed) {
                assert!(names.all().count() <= 3);
            }
        }
    }
}

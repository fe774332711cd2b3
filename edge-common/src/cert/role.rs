//! What each of our certificates must hold, and what is wrong with one that does not.
//!
//! | role | names | used as |
//! |---|---|---|
//! | [`Role::AccessExternal`] | the Access Edge's name; `sip.<domain>` for every SIP domain | server, and client towards partners |
//! | [`Role::WebConfExternal`] | the Web Conferencing Edge's name | server |
//! | [`Role::AvExternal`] | the A/V Edge's name; without this certificate there is no TURN over TLS | server |
//! | [`Role::Internal`] | the internal names of all three services of the host | server and client |
//! | [`Role::AvAuthentication`] | any; nobody sees it, its key makes credentials | none |
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;
use std::time::Duration;

use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::identity::{IdentityError, ProvenNames};
use crate::config::Config;
use crate::host_name::HostName;
use crate::time::UnixTime;

/// What a certificate of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// TLS 443 and federation 5061 of the Access Edge.
    AccessExternal,
    /// TLS 443 of the Web Conferencing Edge.
    WebConfExternal,
    /// TURN over TLS.
    AvExternal,
    /// Every connection with the inside; one for all services of a host.
    Internal,
    /// Its private key derives A/V credentials; it is never shown.
    AvAuthentication,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [
        Self::AccessExternal,
        Self::WebConfExternal,
        Self::AvExternal,
        Self::Internal,
        Self::AvAuthentication,
    ];

    const fn is_shown(self) -> bool {
        !matches!(self, Self::AvAuthentication)
    }

    const fn is_client(self) -> bool {
        matches!(self, Self::AccessExternal | Self::Internal)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessExternal => "Access Edge, external",
            Self::WebConfExternal => "Web Conferencing Edge, external",
            Self::AvExternal => "A/V Edge, external",
            Self::Internal => "internal",
            Self::AvAuthentication => "A/V authentication",
        })
    }
}

/// What is asked of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its purpose; `None`: nothing is asked.
    pub role: Option<Role>,
    /// Hosts that it must prove.
    pub hosts: Vec<HostName>,
    /// SIP domains whose partners and users must be able to tie them to it.
    pub sip_domains: Vec<HostName>,
}

impl Wanted {
    /// For a role, with the hosts that it must prove.
    #[must_use]
    pub fn new(role: Role, hosts: impl IntoIterator<Item = HostName>) -> Self {
        let mut hosts: Vec<_> = hosts.into_iter().collect();
        hosts.sort();
        hosts.dedup();
        Self {
            role: Some(role),
            hosts,
            sip_domains: Vec::new(),
        }
    }

    /// With the SIP domains that the Access Edge serves.
    #[must_use]
    pub fn with_sip_domains(mut self, domains: impl IntoIterator<Item = HostName>) -> Self {
        self.sip_domains = domains.into_iter().collect();
        self
    }

    /// What `config` makes of a role on its member; `None` when the service does not run here.
    #[must_use]
    pub fn of(config: &Config, role: Role) -> Option<Self> {
        match role {
            Role::AccessExternal => config.access.as_ref().map(|access| {
                let domains = config
                    .organization
                    .sip_domains
                    .iter()
                    .map(|sip| sip.domain.clone());
                Self::new(role, [access.fqdn.clone()]).with_sip_domains(domains)
            }),
            Role::WebConfExternal => config
                .webconf
                .as_ref()
                .map(|webconf| Self::new(role, [webconf.fqdn.clone()])),
            Role::AvExternal => config
                .av
                .as_ref()
                .map(|av| Self::new(role, [av.fqdn.clone()])),
            Role::Internal => Some(Self::new(role, internal_hosts(config))),
            Role::AvAuthentication => config.av.as_ref().map(|_| Self::new(role, [])),
        }
    }

    /// Nothing is asked: a certificate of a test or a probe.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            role: None,
            hosts: Vec::new(),
            sip_domains: Vec::new(),
        }
    }
}

/// Under which names the inside knows the services of this host.
fn internal_hosts(config: &Config) -> Vec<HostName> {
    let member = config.local();
    let services = [
        config
            .access
            .as_ref()
            .map(|access| access.internal_fqdn.clone()),
        config
            .webconf
            .as_ref()
            .map(|_| member.webconf_internal_fqdn.clone()),
        config.av.as_ref().map(|av| av.internal_fqdn.clone()),
    ];
    let own = member.internal.fqdn.clone();
    services.into_iter().flatten().chain([own]).collect()
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whom it was given to.
    pub names: ProvenNames,
    /// The subject as text.
    pub subject: String,
    /// The issuer as text.
    pub issuer: String,
    /// Its key.
    pub key: KeyKind,
    /// Valid from.
    pub not_before: UnixTime,
    /// Valid to.
    pub not_after: UnixTime,
    /// Extended key usage; `None`: any.
    pub usage: Option<ExtendedUsage>,
    /// Key usage has digitalSignature, or there is no key usage.
    pub may_sign: bool,
    /// It may issue others.
    pub is_ca: bool,
    /// It says where its issuer publishes revocations.
    pub names_crl: bool,
    /// Signed with MD5 or SHA-1.
    pub weak_signature: bool,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
}

/// The purposes that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedUsage {
    /// TLS server.
    pub server: bool,
    /// TLS client.
    pub client: bool,
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with this many bits.
    Rsa(usize),
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// RFC 8410.
    Ed25519,
    /// Anything else.
    Other,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA-{bits}"),
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::P521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other => f.write_str("of an unknown kind"),
        }
    }
}

impl Facts {
    /// Reads a certificate.
    pub fn read(der: &[u8]) -> Result<Self, FactsError> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| FactsError::Certificate(error.to_string()))?;
        if !rest.is_empty() {
            return Err(FactsError::Certificate(format!(
                "{} bytes after its end",
                rest.len()
            )));
        }
        let extensions =
            |error: x509_parser::error::X509Error| FactsError::Extension(error.to_string());
        let usage = certificate.extended_key_usage().map_err(extensions)?;
        let key_usage = certificate.key_usage().map_err(extensions)?;
        Ok(Self {
            names: ProvenNames::from_parsed(&certificate)?,
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            key: key_kind(&certificate),
            not_before: unix_time(certificate.validity().not_before.timestamp()),
            not_after: unix_time(certificate.validity().not_after.timestamp()),
            usage: usage.map(|usage| ExtendedUsage {
                server: usage.value.server_auth || usage.value.any,
                client: usage.value.client_auth || usage.value.any,
            }),
            may_sign: key_usage.is_none_or(|usage| usage.value.digital_signature()),
            is_ca: certificate.is_ca(),
            names_crl: certificate
                .get_extension_unique(&oid::OID_X509_EXT_CRL_DISTRIBUTION_POINTS)
                .map_err(extensions)?
                .is_some(),
            weak_signature: WEAK_SIGNATURES.contains(&certificate.signature_algorithm.algorithm),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }
}

/// Why a certificate could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Not a certificate.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// An extension cannot be read.
    #[error("unreadable extension: {0}")]
    Extension(String),
    /// Its names cannot be read.
    #[error(transparent)]
    Names(#[from] IdentityError),
}

/// What is wrong with a certificate for its role, all at once.
#[must_use]
pub fn check(facts: &Facts, wanted: &Wanted, now: UnixTime) -> Vec<Problem> {
    let Some(role) = wanted.role else {
        return Vec::new();
    };
    let mut problems = key_problems(facts.key, role);
    problems.extend(date_problems(facts, role, now));
    if role.is_shown() {
        problems.extend(name_problems(facts, wanted));
        problems.extend(usage_problems(facts, role));
    }
    problems
}

fn key_problems(key: KeyKind, role: Role) -> Vec<Problem> {
    match key {
        KeyKind::Rsa(bits) if bits < RSA_BITS_MIN => vec![Problem::KeyShort { bits }],
        KeyKind::Rsa(bits) if bits > RSA_BITS_MAX => vec![Problem::KeyLong { bits }],
        KeyKind::Other => vec![Problem::KeyUnsupported],
        KeyKind::Ed25519 if role.is_shown() => vec![Problem::KeyUncommon],
        KeyKind::Rsa(_) | KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Ed25519 => {
            Vec::new()
        }
    }
}

fn date_problems(facts: &Facts, role: Role, now: UnixTime) -> Option<Problem> {
    // Nobody verifies the A/V authentication certificate; its key works on.
    if !role.is_shown() {
        return (facts.not_after <= now).then_some(Problem::ExpiredUnseen {
            since: facts.not_after,
        });
    }
    if facts.not_after <= now {
        return Some(Problem::Expired {
            since: facts.not_after,
        });
    }
    if facts.not_before > now {
        return Some(Problem::NotYetValid {
            from: facts.not_before,
        });
    }
    (facts.not_after <= now + EXPIRY_WARNING).then_some(Problem::ExpiresSoon {
        at: facts.not_after,
    })
}

fn name_problems(facts: &Facts, wanted: &Wanted) -> Vec<Problem> {
    let mut problems = Vec::new();
    if facts.names.common_name.is_some() {
        problems.push(Problem::NoAlternativeName);
    }
    for host in &wanted.hosts {
        if !facts.names.proves_host(host) {
            problems.push(Problem::HostMissing { host: host.clone() });
        }
    }
    for domain in &wanted.sip_domains {
        let expected: Option<HostName> = format!("sip.{domain}").parse().ok();
        if expected
            .as_ref()
            .is_some_and(|host| facts.names.proves_host(host))
        {
            continue;
        }
        let tied = facts.names.hosts().any(|host| host.is_within(domain));
        problems.push(Problem::SipNameMissing {
            domain: domain.clone(),
            tied,
        });
    }
    problems
}

fn usage_problems(facts: &Facts, role: Role) -> Vec<Problem> {
    let usage = facts.usage.unwrap_or(ExtendedUsage {
        server: true,
        client: true,
    });
    let all = [
        (facts.is_ca, Problem::Authority),
        (!usage.server, Problem::NotForServers),
        (role.is_client() && !usage.client, Problem::NotForClients),
        (!facts.may_sign, Problem::MayNotSign),
        (facts.weak_signature, Problem::WeakSignature),
        (!facts.names_crl, Problem::NoCrlLocation),
    ];
    all.into_iter()
        .filter_map(|(applies, problem)| applies.then_some(problem))
        .collect()
}

/// Whether a problem keeps the certificate from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// To look into.
    Warning,
    /// Peers would refuse the certificate, or the wrong ones accept it.
    Error,
}

/// Something wrong with a certificate for its role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// RSA below 2048 bits.
    #[error("an RSA key of {bits} bits; peers ask for {RSA_BITS_MIN} at least")]
    KeyShort {
        /// Its length.
        bits: usize,
    },
    /// RSA beyond what older peers take.
    #[error(
        "an RSA key of {bits} bits; some peers take {RSA_BITS_MAX} at most, and each handshake is slow"
    )]
    KeyLong {
        /// Its length.
        bits: usize,
    },
    /// No TLS with it.
    #[error("a kind of key that cannot be used; take ECDSA P-256 or RSA-2048")]
    KeyUnsupported,
    /// Few peers know it.
    #[error(
        "an Ed25519 key, which many SIP clients and servers do not know; take ECDSA P-256 or RSA-2048"
    )]
    KeyUncommon,
    /// Past its end.
    #[error("expired at {since}")]
    Expired {
        /// Its end.
        since: UnixTime,
    },
    /// Past its end, where nobody looks.
    #[error("expired at {since}; nobody verifies it, and its key goes on making credentials")]
    ExpiredUnseen {
        /// Its end.
        since: UnixTime,
    },
    /// Close to its end.
    #[error("expires at {at}, within {} days", EXPIRY_WARNING.as_secs() / 86_400)]
    ExpiresSoon {
        /// Its end.
        at: UnixTime,
    },
    /// Before its begin.
    #[error("not valid before {from}")]
    NotYetValid {
        /// Its begin.
        from: UnixTime,
    },
    /// Names only in the subject.
    #[error("no subjectAltName; clients of today do not look at the common name")]
    NoAlternativeName,
    /// Clients that connect to the host will refuse it.
    #[error("does not name {host} (wildcards do not count for SIP)")]
    HostMissing {
        /// What is missing.
        host: HostName,
    },
    /// Automatic sign-in and partners look for it.
    #[error("does not name sip.{domain}, which {}", if *tied { "clients try first" } else { "ties the edge to that SIP domain" })]
    SipNameMissing {
        /// The SIP domain.
        domain: HostName,
        /// Another name lies in the domain, so partners can tie the two by DNS SRV.
        tied: bool,
    },
    /// A CA's own certificate.
    #[error("this is the certificate of a CA")]
    Authority,
    /// Without serverAuth.
    #[error("extended key usage lacks serverAuth")]
    NotForServers,
    /// Without clientAuth.
    #[error("extended key usage lacks clientAuth: peers that insist on it refuse our connections")]
    NotForClients,
    /// Without digitalSignature.
    #[error("key usage lacks digitalSignature")]
    MayNotSign,
    /// MD5 or SHA-1.
    #[error("signed with MD5 or SHA-1")]
    WeakSignature,
    /// Without a CRL distribution point.
    #[error("names no place where its revocation is published")]
    NoCrlLocation,
}

impl Problem {
    /// Whether it keeps the certificate from being used.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::KeyShort { .. }
            | Self::KeyUnsupported
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::NoAlternativeName
            | Self::HostMissing { .. }
            | Self::SipNameMissing { tied: false, .. }
            | Self::Authority
            | Self::NotForServers
            | Self::MayNotSign
            | Self::WeakSignature => Severity::Error,
            Self::KeyLong { .. }
            | Self::KeyUncommon
            | Self::ExpiredUnseen { .. }
            | Self::ExpiresSoon { .. }
            | Self::SipNameMissing { tied: true, .. }
            | Self::NotForClients
            | Self::NoCrlLocation => Severity::Warning,
        }
    }
}

fn key_kind(certificate: &X509Certificate<'_>) -> KeyKind {
    let key = certificate.public_key();
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|p| p.as_oid().ok());
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => KeyKind::Rsa(rsa.key_size()),
        Ok(PublicKey::EC(_)) if curve == Some(oid::OID_EC_P256) => KeyKind::P256,
        Ok(PublicKey::EC(_)) if curve == Some(oid::OID_NIST_EC_P384) => KeyKind::P384,
        Ok(PublicKey::EC(_)) if curve == Some(oid::OID_NIST_EC_P521) => KeyKind::P521,
        _ if key.algorithm.algorithm == oid::OID_SIG_ED25519 => KeyKind::Ed25519,
        _ => KeyKind::Other,
    }
}

/// Dates before 1970 count as 1970: long expired either way.
fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::from_secs(u64::try_from(seconds).unwrap_or(0))
}

const RSA_BITS_MIN: usize = 2048;
/// What the peers of the time accept; larger ones only cost.
const RSA_BITS_MAX: usize = 4096;
/// Time enough to have a certificate renewed by hand.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);
const WEAK_SIGNATURES: [oid::Oid<'static>; 3] = [
    oid::OID_PKCS1_MD5WITHRSAENC,
    oid::OID_PKCS1_SHA1WITHRSA,
    ECDSA_WITH_SHA1,
];
/// RFC 3279 §2.2.3.
const ECDSA_WITH_SHA1: oid::Oid<'static> = x509_parser::der_parser::oid!(1.2.840.10045.4.1);

#[cfg(test)]
#[cfg(feature = "io")]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    use rcgen::{CrlDistributionPoint, IsCa, KeyPair, KeyUsagePurpose};

    use super::*;
    use crate::cert::test_pki::{TODAY, Wish};

    const EDGE: &str = "access.contoso.test";

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn wanted(role: Role) -> Wanted {
        Wanted::new(role, [name(EDGE)])
    }

    /// A certificate without fault for any role; `change` puts one in.
    fn facts(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Facts {
        facts_of(&KeyPair::generate().unwrap(), change)
    }

    fn facts_of(key: &KeyPair, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Facts {
        let mut params = Wish::named(EDGE).params();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec!["http://crl.test/a".into()],
        }];
        change(&mut params);
        Facts::read(params.self_signed(key).unwrap().der()).unwrap()
    }

    fn problems(facts: &Facts, role: Role) -> Vec<Problem> {
        check(facts, &wanted(role), UnixTime::from_secs(TODAY))
    }

    #[test]
    fn what_is_wanted_follows_from_the_configuration() {
        let example = include_str!("../../../deploy/examples/single.toml");
        let config = crate::config::check(example, None).config.unwrap();
        let asked = |role| {
            let wanted = Wanted::of(&config, role).unwrap();
            let names = |names: &[HostName]| {
                names
                    .iter()
                    .map(HostName::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (names(&wanted.hosts), names(&wanted.sip_domains))
        };
        let pair = |hosts: &str, domains: &str| (hosts.to_owned(), domains.to_owned());
        assert_eq!(
            asked(Role::AccessExternal),
            pair("sip.contoso.test", "contoso.test")
        );
        assert_eq!(
            asked(Role::WebConfExternal),
            pair("webconf.contoso.test", "")
        );
        assert_eq!(asked(Role::AvExternal), pair("av.contoso.test", ""));
        assert_eq!(
            asked(Role::Internal),
            pair("edge.contoso.internal edge1.contoso.internal", "")
        );
        assert_eq!(asked(Role::AvAuthentication), pair("", ""));
        let without_av = Config { av: None, ..config };
        assert_eq!(Wanted::of(&without_av, Role::AvAuthentication), None);
    }

    #[test]
    fn a_good_certificate_has_no_problem_in_any_role() {
        let good = facts(|_| {});
        for role in Role::ALL {
            assert_eq!(problems(&good, role), [], "{role}");
        }
    }

    #[test]
    fn each_fault_is_found_alone_and_with_its_weight() {
        use Severity::{Error, Warning};
        type Change = fn(&mut rcgen::CertificateParams);
        let cases: [(Change, Role, Problem, Severity); 6] = [
            (
                |p| p.extended_key_usages = vec![ClientAuth],
                Role::WebConfExternal,
                Problem::NotForServers,
                Error,
            ),
            (
                |p| p.extended_key_usages = vec![ServerAuth],
                Role::AccessExternal,
                Problem::NotForClients,
                Warning,
            ),
            (
                |p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment],
                Role::Internal,
                Problem::MayNotSign,
                Error,
            ),
            (
                |p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
                Role::AvExternal,
                Problem::Authority,
                Error,
            ),
            (
                |p| p.crl_distribution_points = vec![],
                Role::Internal,
                Problem::NoCrlLocation,
                Warning,
            ),
            (
                |p| p.subject_alt_names = Wish::named("other.test").params().subject_alt_names,
                Role::AvExternal,
                Problem::HostMissing { host: name(EDGE) },
                Error,
            ),
        ];
        for (change, role, expected, severity) in cases {
            assert_eq!(expected.severity(), severity);
            assert_eq!(problems(&facts(change), role), [expected]);
        }
    }

    #[test]
    fn a_server_only_certificate_serves_where_the_edge_never_dials() {
        let server = facts(|p| p.extended_key_usages = vec![ServerAuth]);
        assert_eq!(problems(&server, Role::WebConfExternal), []);
        assert_eq!(problems(&server, Role::AvExternal), []);
    }

    #[test]
    fn dates_are_judged_by_the_given_clock() {
        let good = facts(|_| {});
        let at = |time: UnixTime, role| check(&good, &wanted(role), time);
        let (begin, end) = (good.not_before, good.not_after);
        let before = |time: UnixTime, secs| UnixTime::from_secs(time.as_secs() - secs);
        assert_eq!(
            at(before(begin, 1), Role::Internal),
            [Problem::NotYetValid { from: begin }]
        );
        assert_eq!(at(begin, Role::Internal), []);
        assert_eq!(at(before(end, 14 * 86_400 + 1), Role::Internal), []);
        assert_eq!(
            at(before(end, 14 * 86_400), Role::Internal),
            [Problem::ExpiresSoon { at: end }]
        );
        assert_eq!(at(end, Role::Internal), [Problem::Expired { since: end }]);
        assert_eq!(
            at(end, Role::AvAuthentication),
            [Problem::ExpiredUnseen { since: end }]
        );
    }

    #[test]
    fn every_sip_domain_must_be_tied_to_the_access_edge() {
        let wanted = wanted(Role::AccessExternal)
            .with_sip_domains([name("contoso.test"), name("fabrikam.test")]);
        let found = |names: Vec<&'static str>| {
            let facts = facts(|p| {
                p.subject_alt_names = Wish {
                    names,
                    ..Wish::named(EDGE)
                }
                .params()
                .subject_alt_names;
            });
            check(&facts, &wanted, UnixTime::from_secs(TODAY))
        };
        let missing = |domain, tied| Problem::SipNameMissing {
            domain: name(domain),
            tied,
        };
        assert_eq!(
            found(vec![EDGE, "sip.contoso.test", "sip.fabrikam.test"]),
            []
        );
        assert_eq!(
            found(vec![EDGE, "sip.fabrikam.test"]),
            [missing("contoso.test", true)]
        );
        assert_eq!(
            found(vec![EDGE, "sip.contoso.test"]),
            [missing("fabrikam.test", false)]
        );
        assert_eq!(missing("a.test", true).severity(), Severity::Warning);
        assert_eq!(missing("a.test", false).severity(), Severity::Error);
    }

    #[test]
    fn a_common_name_alone_is_not_enough() {
        let old = facts(|p| {
            p.subject_alt_names = vec![];
            p.distinguished_name.push(rcgen::DnType::CommonName, EDGE);
        });
        assert_eq!(
            problems(&old, Role::WebConfExternal),
            [Problem::NoAlternativeName]
        );
    }

    #[test]
    fn keys_are_told_apart() {
        let kind = |algorithm| facts_of(&KeyPair::generate_for(algorithm).unwrap(), |_| {}).key;
        assert_eq!(kind(&rcgen::PKCS_ECDSA_P256_SHA256), KeyKind::P256);
        assert_eq!(kind(&rcgen::PKCS_ECDSA_P384_SHA384), KeyKind::P384);
        assert_eq!(kind(&rcgen::PKCS_RSA_SHA256), KeyKind::Rsa(2048));
        let ed25519 = facts_of(
            &KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
            |_| {},
        );
        assert_eq!(problems(&ed25519, Role::Internal), [Problem::KeyUncommon]);
        assert_eq!(problems(&ed25519, Role::AvAuthentication), []);
        assert_eq!(
            key_problems(KeyKind::Rsa(1024), Role::Internal),
            [Problem::KeyShort { bits: 1024 }]
        );
        assert_eq!(
            key_problems(KeyKind::Rsa(8192), Role::Internal),
            [Problem::KeyLong { bits: 8192 }]
        );
    }

    #[test]
    fn an_authentication_certificate_needs_no_name_and_no_usage() {
        let any = facts(|p| {
            p.subject_alt_names = vec![];
            p.extended_key_usages = vec![ClientAuth];
            p.crl_distribution_points = vec![];
        });
        assert_eq!(problems(&any, Role::AvAuthentication), []);
    }
}

//! Whom we believe at a mutual handshake: [`TrustStore`], [`PeerPolicy`] and the [`PeerVerifier`] made of them.
//!
//! The stock verifiers do not fit between organisations. Public CAs stopped issuing `clientAuth` in 2026, so
//! a partner's edge shows a `serverAuth` certificate when it connects to us; a CA with a new key breaks the
//! stock choice of revocation lists; and the stock name check knows neither the common name of older servers
//! nor that SIP has no wildcards (RFC 5922 §7.2).
//!
//! A partner with its own CA is believed by that CA only, and that CA is believed for that partner only. A
//! certificate that names such a partner and somebody else is believed by nobody: whichever CA were asked, it
//! would speak for a name that is not its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeIdIter, KeyUsage, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use super::identity::ProvenNames;
use super::revocation::{Crl, CrlStore};
use super::store::{self, LoadError, LoadFault};
use super::tls;
use crate::config::{ClientEku, Federation, Internal, Revocation, TrustRoots};
use crate::host_name::HostName;

/// What is asked of a peer beyond a good chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    /// When it connects to us. When we connect to it, it is always `serverAuth`.
    pub client_eku: ClientEku,
    /// Unless its [`PartnerTrust`] says otherwise.
    pub revocation: Revocation,
}

/// Who may issue certificates to our peers on one side of the host.
#[derive(Clone, Debug, Default)]
pub struct TrustStore {
    roots: Roots,
    partners: Vec<PartnerTrust>,
}

impl TrustStore {
    /// The CAs in a PEM file, and nobody else.
    pub fn from_pem_file(file: &Path) -> Result<Self, LoadError> {
        Ok(Self {
            roots: Roots::load(file)?,
            partners: Vec::new(),
        })
    }

    /// The CAs that the operating system trusts.
    pub fn system() -> Result<Self, LoadError> {
        Self::from_pem_file(Path::new(SYSTEM_ROOTS))
    }

    /// These CAs.
    pub fn of(authorities: &[CertificateDer<'_>]) -> Result<Self, LoadFault> {
        Ok(Self {
            roots: Roots::of(authorities)?,
            partners: Vec::new(),
        })
    }

    /// With rules of its own for one partner.
    #[must_use]
    pub fn with_partner(mut self, partner: PartnerTrust) -> Self {
        self.partners.push(partner);
        self
    }

    /// Those for partners: the configured roots, and each partner's own rules.
    pub fn federation(config: &Federation) -> Result<Self, LoadError> {
        let mut trust = match &config.trust_roots {
            TrustRoots::System => Self::system()?,
            TrustRoots::File(file) => Self::from_pem_file(file)?,
        };
        for partner in &config.partners {
            trust = trust.with_partner(PartnerTrust {
                domain: partner.domain.clone(),
                fqdn: partner.fqdn.clone(),
                roots: partner.ca.as_deref().map(Roots::load).transpose()?,
                pins: Vec::new(),
                revocation: partner.revocation,
            });
        }
        Ok(trust)
    }

    /// How many CAs are trusted for everybody.
    #[must_use]
    pub fn len(&self) -> usize {
        self.roots.0.roots.len()
    }

    /// Says whether no CA is trusted for everybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What holds for a certificate with these names; `None`: nobody may issue it.
    fn terms(&self, names: &ProvenNames, common: Revocation) -> Option<Terms<'_>> {
        let mut terms = Terms {
            roots: &self.roots,
            pins: &[],
            revocation: common,
        };
        let mut named = false;
        for partner in self
            .partners
            .iter()
            .filter(|partner| names.all().any(|name| partner.owns(name)))
        {
            terms.revocation = if named {
                stricter(terms.revocation, partner.revocation)
            } else {
                partner.revocation
            };
            named = true;
            if partner.roots.is_none() && partner.pins.is_empty() {
                continue;
            }
            if !names.all().all(|name| partner.owns(name)) {
                return None;
            }
            terms.roots = partner.roots.as_ref().unwrap_or(terms.roots);
            terms.pins = &partner.pins;
        }
        Some(terms)
    }
}

/// What one certificate is held to.
struct Terms<'a> {
    roots: &'a Roots,
    pins: &'a [[u8; 32]],
    revocation: Revocation,
}

const fn stricter(a: Revocation, b: Revocation) -> Revocation {
    match (a, b) {
        (Revocation::Hard, _) | (_, Revocation::Hard) => Revocation::Hard,
        (Revocation::Soft, _) | (_, Revocation::Soft) => Revocation::Soft,
        (Revocation::Off, Revocation::Off) => Revocation::Off,
    }
}

/// What holds for one partner instead of what holds for all.
#[derive(Clone, Debug)]
pub struct PartnerTrust {
    /// Its SIP domain; names within it are the partner's.
    pub domain: HostName,
    /// Its edge, when that lies elsewhere.
    pub fqdn: Option<HostName>,
    /// Its own CAs, which replace the common ones.
    pub roots: Option<Roots>,
    /// SHA-256 of the SubjectPublicKeyInfo of certificates that it may show; empty: any.
    pub pins: Vec<[u8; 32]>,
    /// Its own revocation rule.
    pub revocation: Revocation,
}

impl PartnerTrust {
    fn owns(&self, name: &HostName) -> bool {
        name.is_within(&self.domain) || self.fqdn.as_ref() == Some(name)
    }
}

/// CA certificates, ready for use.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Default for Roots {
    fn default() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }
}

impl Roots {
    /// The CAs in a PEM file.
    pub fn load(file: &Path) -> Result<Self, LoadError> {
        let authorities = store::read_chain(file).map_err(|fault| LoadError::new(file, fault))?;
        Self::of(&authorities).map_err(|fault| LoadError::new(file, fault))
    }

    /// These CAs. A bundle of public roots may hold some that cannot be used; what matters is that one can.
    pub fn of(authorities: &[CertificateDer<'_>]) -> Result<Self, LoadFault> {
        let mut store = RootCertStore::empty();
        let (usable, _) =
            store.add_parsable_certificates(authorities.iter().map(|ca| ca.clone().into_owned()));
        if usable == 0 {
            return Err(LoadFault::Nothing {
                wanted: "CERTIFICATE of a CA",
            });
        }
        Ok(Self(Arc::new(store)))
    }

    fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0.roots
    }
}

/// Verifies the peers of mutual TLS, as clients and as servers.
#[derive(Debug)]
pub struct PeerVerifier {
    trust: TrustStore,
    policy: PeerPolicy,
    crls: Arc<CrlStore>,
    /// Left empty: a hint would tell strangers whom we trust, and public edges have several certificates to choose from anyway.
    hints: Vec<DistinguishedName>,
    tally: VerifyTally,
}

/// Peers that were let in although their revocation state was not certain; counted since the start.
#[derive(Debug, Default)]
pub struct VerifyTally {
    /// No list covers them.
    pub revocation_unknown: AtomicU64,
    /// The list that covers them is out of date.
    pub revocation_stale: AtomicU64,
}

impl PeerVerifier {
    /// Puts the parts together.
    #[must_use]
    pub fn new(trust: TrustStore, policy: PeerPolicy, crls: Arc<CrlStore>) -> Arc<Self> {
        Arc::new(Self {
            trust,
            policy,
            crls,
            hints: Vec::new(),
            tally: VerifyTally::default(),
        })
    }

    /// For everything inside: the inside's CA and its lists, and nobody else's.
    ///
    /// Servers inside connect to us and we to them with the same certificates, so their extended key usage is
    /// held to the same measure as a partner's by default.
    pub fn inside(config: &Internal) -> Result<Arc<Self>, LoadError> {
        let policy = PeerPolicy {
            client_eku: ClientEku::ClientOrServer,
            revocation: config.revocation,
        };
        Ok(Self::new(
            TrustStore::from_pem_file(&config.ca)?,
            policy,
            CrlStore::load(&config.crls)?,
        ))
    }

    /// For partners; `crls` holds what was fetched from their CAs.
    pub fn federation(config: &Federation, crls: Arc<CrlStore>) -> Result<Arc<Self>, LoadError> {
        let policy = PeerPolicy {
            client_eku: config.client_eku,
            revocation: config.revocation,
        };
        Ok(Self::new(TrustStore::federation(config)?, policy, crls))
    }

    /// What was let pass.
    #[must_use]
    pub const fn tally(&self) -> &VerifyTally {
        &self.tally
    }

    /// The lists that are asked; reload them here.
    #[must_use]
    pub const fn crls(&self) -> &Arc<CrlStore> {
        &self.crls
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        names: &ProvenNames,
        usages: &[Usage],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let leaf = EndEntityCert::try_from(certificate).map_err(refusal)?;
        let terms = self
            .trust
            .terms(names, self.policy.revocation)
            .ok_or(CertificateError::ApplicationVerificationFailure)?;
        if !pinned(terms.pins, &leaf) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let path = Route {
            leaf: &leaf,
            intermediates,
            roots: terms.roots,
            now,
        };
        let usage = path.first_usage(usages)?;
        match terms.revocation {
            Revocation::Off => Ok(()),
            Revocation::Soft | Revocation::Hard => {
                let state = path.revocation(&self.crls.candidates(certificate), usage)?;
                self.judge(state, terms.revocation)
            }
        }
    }

    fn judge(&self, state: RevocationState, rule: Revocation) -> Result<(), rustls::Error> {
        let (counter, refusal) = match state {
            RevocationState::Good => return Ok(()),
            RevocationState::Revoked => return Err(CertificateError::Revoked.into()),
            RevocationState::Unknown => (
                &self.tally.revocation_unknown,
                CertificateError::UnknownRevocationStatus,
            ),
            RevocationState::Stale => (
                &self.tally.revocation_stale,
                CertificateError::ExpiredRevocationList,
            ),
        };
        if rule == Revocation::Hard {
            return Err(refusal.into());
        }
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let names = names(end_entity)?;
        let usages = match self.policy.client_eku {
            ClientEku::Client => &[Usage::Client][..],
            ClientEku::ClientOrServer => &[Usage::Client, Usage::Server],
            ClientEku::Any => &[Usage::Any],
        };
        self.verify(end_entity, intermediates, &names, usages, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &tls::provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &tls::provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// The certificate must have been given to the very host that was dialled.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let names = names(end_entity)?;
        self.verify(end_entity, intermediates, &names, &[Usage::Server], now)?;
        let dialled = HostName::with_underscores(&server_name.to_str())
            .map_err(|_| CertificateError::NotValidForName)?;
        if !names.proves_host(&dialled) {
            return Err(CertificateError::NotValidForNameContext {
                expected: server_name.to_owned(),
                presented: names.all().map(ToString::to_string).collect(),
            }
            .into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(self)
    }
}

/// One certificate on its way to a root.
struct Route<'a> {
    leaf: &'a EndEntityCert<'a>,
    intermediates: &'a [CertificateDer<'a>],
    roots: &'a Roots,
    now: UnixTime,
}

impl Route<'_> {
    /// The first usage for which the chain holds. A wrong usage is found before any signature is checked.
    fn first_usage(&self, usages: &[Usage]) -> Result<Usage, rustls::Error> {
        let mut last = webpki::Error::UnknownIssuer;
        for &usage in usages {
            match self.build(usage, None) {
                Ok(()) => return Ok(usage),
                Err(error) => last = error,
            }
        }
        Err(refusal(last))
    }

    /// Asks the lists, newest first; the first that speaks for the certificate decides.
    fn revocation(
        &self,
        candidates: &[Arc<Crl>],
        usage: Usage,
    ) -> Result<RevocationState, rustls::Error> {
        for crl in candidates {
            match self.build(usage, Some(asking(&[crl.list()]))) {
                Ok(()) if crl.is_stale(self.now) => return Ok(RevocationState::Stale),
                Ok(()) => return Ok(RevocationState::Good),
                Err(webpki::Error::CertRevoked) => return Ok(RevocationState::Revoked),
                Err(error) if speaks_for_another(&error) => {}
                Err(error) => return Err(refusal(error)),
            }
        }
        Ok(RevocationState::Unknown)
    }

    fn build(
        &self,
        usage: Usage,
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<(), webpki::Error> {
        self.leaf
            .verify_for_usage(
                tls::provider().signature_verification_algorithms.all,
                self.roots.anchors(),
                self.intermediates,
                self.now,
                usage,
                revocation,
                None,
            )
            .map(drop)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RevocationState {
    Good,
    Revoked,
    Unknown,
    Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    Client,
    Server,
    Any,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        match self {
            Self::Client => KeyUsage::client_auth().validate(purposes),
            Self::Server => KeyUsage::server_auth().validate(purposes),
            Self::Any => Ok(()),
        }
    }
}

/// Asks the lists about the certificate itself. Whether they are in date is judged later: one that is not
/// still tells who was revoked.
fn asking<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> RevocationOptions<'a> {
    RevocationOptionsBuilder::new(lists)
        .expect("the caller gives one list")
        .with_depth(RevocationCheckDepth::EndEntity)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Ignore)
        .build()
}

/// The list is of another key, or of another part of the issuer's certificates: the next one may speak.
fn speaks_for_another(error: &webpki::Error) -> bool {
    use webpki::Error as E;
    matches!(
        error,
        E::UnknownRevocationStatus
            | E::InvalidCrlSignatureForPublicKey
            | E::IssuerNotCrlSigner
            | E::UnsupportedCrlSignatureAlgorithmContext(_)
            | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
    )
}

fn names(certificate: &CertificateDer<'_>) -> Result<ProvenNames, rustls::Error> {
    ProvenNames::from_certificate(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn pinned(pins: &[[u8; 32]], leaf: &EndEntityCert<'_>) -> bool {
    let shown = digest(&SHA256, &leaf.subject_public_key_info());
    pins.is_empty() || pins.iter().any(|pin| pin == shown.as_ref())
}

/// What rustls makes an alert of and what the log shows.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is webpki's; whatever else it finds goes on as it is"
)]
fn refusal(error: webpki::Error) -> rustls::Error {
    use webpki::Error as E;
    let certificate = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::InvalidCertValidity => CertificateError::Expired,
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    certificate.into()
}

/// Debian's bundle.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

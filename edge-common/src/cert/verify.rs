//! Verifies peers at a mutual handshake, whether they connect to us or we to them.
//!
//! The stock verifiers do not fit between organisations. Public CAs stopped issuing `clientAuth` in 2026, so
//! a partner's edge shows a `serverAuth` certificate when it connects to us; a CA with a new key breaks the
//! stock choice of revocation lists; and the stock name check knows neither the common name of older servers
//! nor that SIP has no wildcards (RFC 5922 §7.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeIdIter, KeyUsage, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use super::identity::ProvenNames;
use super::revocation::{Crl, CrlStore};
use super::store::LoadError;
use super::tls;
use super::trust::{Roots, TrustStore};
use crate::config::{Callback, ClientEku, Federation, Internal, Revocation};
use crate::host_name::HostName;
use crate::observe::metrics::Metrics;

/// What is asked of a peer beyond a good chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    /// When it connects to us. When we connect to it, it is always `serverAuth`.
    pub client_eku: ClientEku,
    /// Unless its [`PartnerTrust`](super::trust::PartnerTrust) says otherwise.
    pub revocation: Revocation,
}

/// Verifies the peers of mutual TLS, as clients and as servers.
#[derive(Debug)]
pub struct PeerVerifier {
    trust: TrustStore,
    policy: PeerPolicy,
    callback: Callback,
    crls: Arc<CrlStore>,
    /// Left empty: peers choose well without, and all public CAs by name would be sent with every handshake.
    hints: Vec<DistinguishedName>,
    tally: Arc<VerifyTally>,
}

/// Peers that were let in although their revocation state was not certain; counted since the start.
#[derive(Debug, Default)]
pub struct VerifyTally {
    /// No list covers them.
    pub revocation_unknown: AtomicU64,
    /// The list that covers them is out of date.
    pub revocation_stale: AtomicU64,
}

impl VerifyTally {
    /// Shows it; `peers` says whose verifier it is.
    pub fn show_in(self: &Arc<Self>, peers: &str, metrics: &Metrics) {
        let passed = metrics.counters(
            "revocation_passed",
            "Peers let in although their revocation state was not certain",
            ["peers", "reason"],
        );
        let tally = Arc::clone(self);
        passed.watch([peers, "unknown"], move || {
            tally.revocation_unknown.load(Ordering::Relaxed)
        });
        let tally = Arc::clone(self);
        passed.watch([peers, "stale"], move || {
            tally.revocation_stale.load(Ordering::Relaxed)
        });
    }
}

impl PeerVerifier {
    /// Puts the parts together.
    #[must_use]
    pub fn new(trust: TrustStore, policy: PeerPolicy, crls: Arc<CrlStore>) -> Arc<Self> {
        Arc::new(Self {
            trust,
            policy,
            callback: Callback::Never,
            crls,
            hints: Vec::new(),
            tally: Arc::default(),
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
        let verifier = Self::new(TrustStore::federation(config)?, policy, crls);
        Ok(verifier.calling_back(config.callback))
    }

    /// Lets clients in that are called back before they may do anything. Only a verifier that nobody has yet can be
    /// changed.
    #[must_use]
    pub fn calling_back(mut self: Arc<Self>, callback: Callback) -> Arc<Self> {
        if let Some(own) = Arc::get_mut(&mut self) {
            own.callback = callback;
        }
        self
    }

    /// Whether a client that was let in with this chain, leaf first, has to be called back before it may do anything.
    ///
    /// The handshake tells nobody why it let somebody in, and a session that goes on was not looked at: hence once more.
    #[must_use]
    pub fn needs_callback(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        match self.callback {
            Callback::Never => false,
            Callback::Always => true,
            Callback::WhenNeeded => !chain
                .split_first()
                .is_some_and(|(leaf, rest)| self.is_good_client(leaf, rest, now)),
        }
    }

    fn is_good_client(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let Ok(leaf) = EndEntityCert::try_from(certificate) else {
            return false;
        };
        let Ok(names) = names(certificate) else {
            return false;
        };
        let Some(terms) = self.trust.terms(&names, self.policy.revocation) else {
            return false;
        };
        let path = Route {
            leaf: &leaf,
            intermediates,
            roots: terms.roots,
            now,
        };
        path.first_usage(self.client_usages()).is_ok()
    }

    const fn client_usages(&self) -> &'static [Usage] {
        match self.policy.client_eku {
            ClientEku::Client => &[Usage::Client],
            ClientEku::ClientOrServer => &[Usage::Client, Usage::Server],
            ClientEku::Any => &[Usage::Any],
        }
    }

    /// Counts in `tally`, which outlives it: a verifier is made anew when the configuration is read again. Only one that
    /// nobody has yet can be changed.
    #[must_use]
    pub fn counted_in(mut self: Arc<Self>, tally: &Arc<VerifyTally>) -> Arc<Self> {
        if let Some(own) = Arc::get_mut(&mut self) {
            own.tally = Arc::clone(tally);
        }
        self
    }

    /// What was let pass.
    #[must_use]
    pub fn tally(&self) -> &VerifyTally {
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
                self.crls.want(certificate);
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
        match self.verify(end_entity, intermediates, &names, self.client_usages(), now) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            // It is let in as nobody: see `needs_callback`.
            Err(error) if self.callback != Callback::Never && may_be_called_back(&error) => {
                Ok(ClientCertVerified::assertion())
            }
            Err(error) => Err(error),
        }
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

/// A certificate that is not for clients, or of an authority that we do not know, may be that of a server all the same.
/// One that is revoked, out of date or not the one that is pinned says enough.
const fn may_be_called_back(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose
                | CertificateError::UnknownIssuer
                // An authority that we know by name only: its key is another one.
                | CertificateError::BadSignature
        )
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

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    use rustls::{CertificateError, Error};

    use super::*;
    use crate::cert::test_handshake::{
        EDGE, Failed, PARTNER, Party, handshake, lenient, policy, trusting,
    };
    use crate::cert::test_pki::{Authority, TODAY, Wish};

    /// The edge of contoso listens; a partner with what `wish` says connects.
    fn partner_connects(
        wish: &Wish,
        policy: PeerPolicy,
        lists: impl FnOnce(&Authority) -> Vec<Crl>,
    ) -> Result<(), Error> {
        let authority = Authority::new("Public CA");
        let crls = CrlStore::of(lists(&authority));
        let edge = Party::with_lists(
            &authority.issue(&Wish::named(EDGE)),
            trusting(&authority),
            policy,
            crls,
        );
        let partner = Party::new(&authority.issue(wish), trusting(&authority), lenient());
        handshake(&partner.dialer(), &edge.listener(), EDGE)
            .map(drop)
            .map_err(|failed| failed.at_server())
    }

    #[test]
    fn who_is_called_back_is_let_in_and_told_apart_from_who_proved_himself() {
        let (authority, nobody) = (Authority::new("Public CA"), Authority::new("Nobody"));
        let wish = Wish::named(PARTNER);
        let mut server_only = Wish::named(PARTNER);
        server_only.usages = vec![ServerAuth];
        let mut revoked = Wish::named(PARTNER);
        revoked.serial = 4711;
        let shown = [
            ("good", authority.issue(&wish)),
            ("server", authority.issue(&server_only)),
            ("nobody", nobody.issue(&wish)),
            ("revoked", authority.issue(&revoked)),
        ];
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(TODAY));
        let told = |callback| {
            shown.each_ref().map(|(what, issued)| {
                let edge = PeerVerifier::new(
                    trusting(&authority),
                    policy(ClientEku::Client, Revocation::Soft),
                    CrlStore::of(vec![authority.crl(&[4711], (1, 30), true)]),
                )
                .calling_back(callback);
                let leaf = &issued.chain[0];
                let told = match edge.verify_client_cert(leaf, &[], now) {
                    Err(_) => "refused",
                    Ok(_) if edge.needs_callback(&issued.chain, now) => "called back",
                    Ok(_) => "proven",
                };
                (*what, told)
            })
        };
        let expected = |good, server, nobody| {
            [
                ("good", good),
                ("server", server),
                ("nobody", nobody),
                ("revoked", "refused"),
            ]
        };
        assert_eq!(
            told(Callback::Never),
            expected("proven", "refused", "refused")
        );
        assert_eq!(
            told(Callback::WhenNeeded),
            expected("proven", "called back", "called back")
        );
        let all = "called back";
        assert_eq!(told(Callback::Always), expected(all, all, all));
    }

    #[test]
    fn a_certificate_for_servers_is_taken_from_a_client_unless_the_policy_is_strict() {
        let mut wish = Wish::named(PARTNER);
        for (usages, strict, default, any) in [
            (vec![ServerAuth], false, true, true),
            (vec![ClientAuth], true, true, true),
            (vec![], true, true, true),
            (
                vec![rcgen::ExtendedKeyUsagePurpose::EmailProtection],
                false,
                false,
                true,
            ),
        ] {
            wish.usages.clone_from(&usages);
            for (eku, expected) in [
                (ClientEku::Client, strict),
                (ClientEku::ClientOrServer, default),
                (ClientEku::Any, any),
            ] {
                let outcome = partner_connects(&wish, policy(eku, Revocation::Off), |_| vec![]);
                match expected {
                    true => outcome.unwrap(),
                    false => assert_eq!(
                        outcome,
                        Err(CertificateError::InvalidPurpose.into()),
                        "{usages:?} {eku:?}"
                    ),
                }
            }
        }
    }

    #[test]
    fn a_server_must_have_a_certificate_for_servers() {
        let authority = Authority::new("CA");
        let mut wish = Wish::named(EDGE);
        wish.usages = vec![ClientAuth];
        let edge = Party::new(&authority.issue(&wish), trusting(&authority), lenient());
        let partner = Party::new(
            &authority.issue(&Wish::named(PARTNER)),
            trusting(&authority),
            policy(ClientEku::Any, Revocation::Off),
        );
        let failed = handshake(&partner.dialer(), &edge.listener(), EDGE).unwrap_err();
        assert_eq!(failed.at_client(), CertificateError::InvalidPurpose.into());
    }

    #[test]
    fn a_certificate_of_a_foreign_ca_is_refused_on_either_side() {
        let (ours, foreign) = (Authority::new("Ours"), Authority::new("Foreign"));
        let edge = Party::new(&ours.issue(&Wish::named(EDGE)), trusting(&ours), lenient());
        let stranger = Party::new(
            &foreign.issue(&Wish::named(PARTNER)),
            trusting(&ours),
            lenient(),
        );
        let failed = handshake(&stranger.dialer(), &edge.listener(), EDGE).unwrap_err();
        assert_eq!(failed.at_server(), CertificateError::UnknownIssuer.into());
        let failed = handshake(&edge.dialer(), &stranger.listener(), PARTNER).unwrap_err();
        assert_eq!(failed.at_client(), CertificateError::UnknownIssuer.into());
    }

    #[test]
    fn a_ca_of_the_same_name_with_another_key_is_foreign() {
        let (ours, forged) = (Authority::new("CA"), Authority::new("CA"));
        let edge = Party::new(&ours.issue(&Wish::named(EDGE)), trusting(&ours), lenient());
        let stranger = Party::new(
            &forged.issue(&Wish::named(PARTNER)),
            trusting(&ours),
            lenient(),
        );
        let failed = handshake(&stranger.dialer(), &edge.listener(), EDGE).unwrap_err();
        assert_eq!(failed.at_server(), CertificateError::BadSignature.into());
    }

    #[test]
    fn an_expired_or_future_certificate_is_refused() {
        for years in [(2020, 2025), (2027, 2028)] {
            let mut wish = Wish::named(PARTNER);
            wish.years = years;
            let refused = partner_connects(&wish, lenient(), |_| vec![])
                .unwrap_err()
                .to_string();
            let expected = if years.1 == 2025 {
                "expired"
            } else {
                "not valid yet"
            };
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn the_server_must_be_the_host_that_was_dialled() {
        let authority = Authority::new("CA");
        let dial = |wish: &Wish, name| {
            let edge = Party::new(&authority.issue(wish), trusting(&authority), lenient());
            handshake(&edge.dialer(), &edge.listener(), name)
                .map(drop)
                .map_err(Failed::at_client)
        };
        dial(&Wish::named(EDGE), EDGE).unwrap();
        assert!(matches!(
            dial(&Wish::named(EDGE), PARTNER),
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. }
            ))
        ));
        assert!(
            dial(&Wish::named("*.contoso.test"), EDGE).is_err(),
            "SIP has no wildcards"
        );
        let mut old = Wish::named(EDGE);
        (old.names, old.common_name) = (vec![], EDGE);
        dial(&old, EDGE).unwrap();
    }

    const IN_DATE: (u8, u8) = (10, 20);

    const OUT_OF_DATE: (u8, u8) = (1, 10);

    #[test]
    fn revocation_soft_and_hard() {
        let revoked = Err(CertificateError::Revoked.into());
        let unknown = Err(CertificateError::UnknownRevocationStatus.into());
        let stale = Err(CertificateError::ExpiredRevocationList.into());
        type Lists = fn(&Authority) -> Vec<Crl>;
        type Outcome = Result<(), Error>;
        let cases: [(&str, Lists, Outcome, Outcome); 6] = [
            (
                "clean",
                |ca| vec![ca.crl(&[1, 2], IN_DATE, true)],
                Ok(()),
                Ok(()),
            ),
            (
                "listed",
                |ca| vec![ca.crl(&[7], IN_DATE, true)],
                revoked.clone(),
                revoked.clone(),
            ),
            ("no list", |_| vec![], Ok(()), unknown.clone()),
            (
                "list of another CA",
                |_| vec![Authority::new("Other").crl(&[7], IN_DATE, true)],
                Ok(()),
                unknown,
            ),
            (
                "stale",
                |ca| vec![ca.crl(&[1], OUT_OF_DATE, true)],
                Ok(()),
                stale,
            ),
            (
                "stale and listed",
                |ca| vec![ca.crl(&[7], OUT_OF_DATE, true)],
                revoked.clone(),
                revoked,
            ),
        ];
        for (what, lists, soft, hard) in cases {
            let outcome = |rule| {
                partner_connects(
                    &Wish::named(PARTNER),
                    policy(ClientEku::ClientOrServer, rule),
                    lists,
                )
            };
            assert_eq!(outcome(Revocation::Off), Ok(()), "{what}");
            assert_eq!(outcome(Revocation::Soft), soft, "{what}");
            assert_eq!(outcome(Revocation::Hard), hard, "{what}");
        }
    }

    #[test]
    fn a_newer_list_of_the_same_key_wins() {
        let lists =
            |ca: &Authority| vec![ca.crl(&[], OUT_OF_DATE, true), ca.crl(&[7], IN_DATE, true)];
        let rule = policy(ClientEku::ClientOrServer, Revocation::Soft);
        let refused = partner_connects(&Wish::named(PARTNER), rule, lists);
        assert_eq!(refused, Err(CertificateError::Revoked.into()));
    }

    #[test]
    fn lists_of_a_ca_that_changed_its_key_are_told_apart_in_both_orders() {
        for key_ids in [true, false] {
            for (listed, expected) in [(7, Err(CertificateError::Revoked.into())), (8, Ok(()))] {
                let rekeyed = |ca: &Authority| {
                    let old = Authority::new("Public CA");
                    // Newer by a day, so that it is asked first; it lists what it may not speak of.
                    let of_the_old_key = old.crl(&[7, 8], (11, 20), key_ids);
                    vec![of_the_old_key, ca.crl(&[listed], IN_DATE, key_ids)]
                };
                let other_order = |ca: &Authority| {
                    let old = Authority::new("Public CA");
                    vec![
                        ca.crl(&[listed], (11, 20), key_ids),
                        old.crl(&[7, 8], IN_DATE, key_ids),
                    ]
                };
                let mut wish = Wish::named(PARTNER);
                wish.key_id = key_ids;
                for rule in [Revocation::Soft, Revocation::Hard] {
                    let rule = policy(ClientEku::ClientOrServer, rule);
                    assert_eq!(
                        partner_connects(&wish, rule, rekeyed),
                        expected,
                        "{key_ids}"
                    );
                    assert_eq!(
                        partner_connects(&wish, rule, other_order),
                        expected,
                        "{key_ids}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_intermediate_ca_is_followed_and_its_own_lists_are_asked() {
        let root = Authority::new("Root");
        let between = root.subordinate("Between");
        let hard = policy(ClientEku::ClientOrServer, Revocation::Hard);
        let connects = |with_chain: bool, lists: Vec<Crl>| {
            let edge = Party::with_lists(
                &root.issue(&Wish::named(EDGE)),
                trusting(&root),
                hard,
                CrlStore::of(lists),
            );
            let mut issued = between.issue(&Wish::named(PARTNER));
            if with_chain {
                issued.chain.push(between.certificate());
            }
            let partner = Party::new(&issued, trusting(&root), lenient());
            handshake(&partner.dialer(), &edge.listener(), EDGE)
                .map(drop)
                .map_err(Failed::at_server)
        };
        assert_eq!(
            connects(true, vec![between.crl(&[], IN_DATE, true)]),
            Ok(())
        );
        assert_eq!(
            connects(false, vec![between.crl(&[], IN_DATE, true)]),
            Err(CertificateError::UnknownIssuer.into())
        );
        assert_eq!(
            connects(true, vec![between.crl(&[7], IN_DATE, true)]),
            Err(CertificateError::Revoked.into())
        );
        let of_the_root = connects(true, vec![root.crl(&[7], IN_DATE, true)]);
        assert_eq!(
            of_the_root,
            Err(CertificateError::UnknownRevocationStatus.into()),
            "another issuer's serial 7"
        );
    }

    #[test]
    fn what_soft_lets_pass_is_counted() {
        let authority = Authority::new("CA");
        let issued = authority.issue(&Wish::named(EDGE));
        let soft = policy(ClientEku::ClientOrServer, Revocation::Soft);
        let edge = Party::new(&issued, trusting(&authority), soft);
        let partner = Party::new(&issued, trusting(&authority), lenient());
        handshake(&partner.dialer(), &edge.listener(), EDGE).unwrap();
        assert_eq!(
            edge.verifier
                .tally()
                .revocation_unknown
                .load(Ordering::Relaxed),
            1
        );
    }
}

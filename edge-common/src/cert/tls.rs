//! The TLS configurations of the product; the only place that calls rustls' builders.
//!
//! | configuration | peer shows | resumption |
//! |---|---|---|
//! | [`client_listener`] | nothing | TLS 1.3 tickets that all members of the array open |
//! | [`mutual_listener`] | a certificate, verified by [`PeerVerifier`] | none: it would skip revocation |
//! | [`dialer`] | a certificate, verified by [`PeerVerifier`]; we show ours | none |
//!
//! TLS 1.2 and 1.3, aws-lc-rs, no default provider: the process stays right if another crate brings its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::UnixTime;

pub use super::revocation::CrlStore;
pub use super::store::Store;
pub use super::tickets::ArrayTickets;
pub use super::trust::TrustStore;
pub use super::verify::{PeerPolicy, PeerVerifier, VerifyTally};
use crate::run;

/// For clients that show no certificate: port 443 of each service.
#[must_use]
pub fn client_listener(certificates: Arc<Store>, tickets: Arc<ArrayTickets>) -> Arc<ServerConfig> {
    client_listener_at(certificates, tickets, system_clock())
}

/// For peers that must show a certificate: federation, everything inside, and the agents.
///
/// `alpn` lists what a peer has to choose from; empty: not negotiated.
#[must_use]
pub fn mutual_listener(
    certificates: Arc<Store>,
    verifier: Arc<PeerVerifier>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    mutual_listener_at(certificates, verifier, alpn, system_clock())
}

/// For connections that we open; our certificate is always shown.
#[must_use]
pub fn dialer(
    certificates: Arc<Store>,
    verifier: Arc<PeerVerifier>,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    dialer_at(certificates, verifier, alpn, system_clock())
}

/// For a probe that comes as a client without a certificate.
#[must_use]
pub fn anonymous_dialer(verifier: Arc<PeerVerifier>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_details(provider(), system_clock())
        .with_protocol_versions(VERSIONS)
        .expect(PROVIDER_FITS)
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// For a probe that shows our certificate and judges the far end's by `verifier`, which looks on.
#[must_use]
pub fn watched_dialer(
    certificates: Arc<Store>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Arc<ClientConfig> {
    dialer_by(certificates, verifier, &[], system_clock())
}

/// [`client_listener`] with a clock of the caller's.
#[must_use]
pub fn client_listener_at(
    certificates: Arc<Store>,
    tickets: Arc<ArrayTickets>,
    clock: Arc<dyn TimeProvider>,
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(VERSIONS)
        .expect(PROVIDER_FITS)
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    // One is what a client needs to come back once; each costs a seal and 200 bytes on every handshake.
    config.send_tls13_tickets = 1;
    Arc::new(config)
}

/// [`mutual_listener`] with a clock of the caller's.
#[must_use]
pub fn mutual_listener_at(
    certificates: Arc<Store>,
    verifier: Arc<PeerVerifier>,
    alpn: &[&[u8]],
    clock: Arc<dyn TimeProvider>,
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(VERSIONS)
        .expect(PROVIDER_FITS)
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// [`dialer`] with a clock of the caller's.
#[must_use]
pub fn dialer_at(
    certificates: Arc<Store>,
    verifier: Arc<PeerVerifier>,
    alpn: &[&[u8]],
    clock: Arc<dyn TimeProvider>,
) -> Arc<ClientConfig> {
    dialer_by(certificates, verifier, alpn, clock)
}

fn dialer_by(
    certificates: Arc<Store>,
    verifier: Arc<dyn ServerCertVerifier>,
    alpn: &[&[u8]],
    clock: Arc<dyn TimeProvider>,
) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(VERSIONS)
        .expect(PROVIDER_FITS)
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(certificates);
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// aws-lc-rs, made once.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// The wall clock of the system, for certificates and tickets.
#[must_use]
pub fn system_clock() -> Arc<dyn TimeProvider> {
    Arc::new(RunClock)
}

/// The daemon's own clock, as rustls asks for it.
#[derive(Debug)]
struct RunClock;

impl TimeProvider for RunClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_1970 = Duration::from_millis(run::now().unix.as_millis());
        Some(UnixTime::since_unix_epoch(since_1970))
    }
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const PROVIDER_FITS: &str = "aws-lc-rs has suites for TLS 1.2 and 1.3";

#[cfg(test)]
mod tests {
    use rustls::{Error, HandshakeKind};

    use super::*;
    use crate::cert::test_handshake::{EDGE, PARTNER, Party, handshake, lenient, trusting};
    use crate::cert::test_pki::{Authority, FixedClock, TODAY, Wish};
    use crate::random::Seeded;
    use crate::secret::{ArraySecret, Secrets};

    #[test]
    fn two_edges_meet_with_certificates_on_both_sides() {
        let (ours, theirs) = (Authority::new("Ours"), Authority::new("Theirs"));
        let edge = Party::new(
            &ours.issue(&Wish::named(EDGE)),
            trusting(&theirs),
            lenient(),
        );
        let partner = Party::new(
            &theirs.issue(&Wish::named(PARTNER)),
            trusting(&ours),
            lenient(),
        );
        let (client, server) = handshake(&partner.dialer(), &edge.listener(), EDGE).unwrap();
        assert_eq!(server.peer_certificates().unwrap(), theirs_of(&partner));
        assert_eq!(client.peer_certificates().unwrap(), theirs_of(&edge));
        assert_eq!(
            server.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
    }

    fn theirs_of(party: &Party) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        party.shown.pairs()[0].certified.cert.clone()
    }

    #[test]
    fn a_client_without_a_certificate_is_refused() {
        let authority = Authority::new("CA");
        let edge = Party::new(
            &authority.issue(&Wish::named(EDGE)),
            trusting(&authority),
            lenient(),
        );
        let mut naked = ClientConfig::clone(&anonymous_dialer(Arc::clone(&edge.verifier), &[]));
        naked.time_provider = FixedClock::at(TODAY);
        let failed = handshake(&Arc::new(naked), &edge.listener(), EDGE).unwrap_err();
        assert_eq!(failed.at_server(), Error::NoCertificatesPresented);
    }

    #[test]
    fn nothing_is_resumed_with_a_mutual_listener_even_by_a_client_that_wants_to() {
        let authority = Authority::new("CA");
        let edge = Party::new(
            &authority.issue(&Wish::named(EDGE)),
            trusting(&authority),
            lenient(),
        );
        for version in [&TLS13, &TLS12] {
            let listener = edge.listener();
            let eager = eager_client(&edge, version, true);
            for _ in 0..3 {
                let (client, _) = handshake(&eager, &listener, EDGE).unwrap();
                assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            }
        }
    }

    /// A client that keeps every ticket and session id it is given.
    fn eager_client(
        party: &Party,
        version: &'static SupportedProtocolVersion,
        mutual: bool,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_details(provider(), FixedClock::at(TODAY))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&party.verifier) as _);
        Arc::new(match mutual {
            true => builder.with_client_cert_resolver(Arc::clone(&party.shown) as _),
            false => builder.with_no_client_auth(),
        })
    }

    fn client_listener_of(party: &Party, secrets: &Secrets) -> Arc<ServerConfig> {
        let clock = FixedClock::at(TODAY);
        let tickets = ArrayTickets::new(secrets, FixedClock::at(TODAY));
        client_listener_at(Arc::clone(&party.shown), tickets, clock)
    }

    #[test]
    fn a_client_resumes_at_another_member_of_the_array() {
        let authority = Authority::new("CA");
        let secret = |seed| Secrets::only(ArraySecret::generate(&mut Seeded::new(seed)));
        let member = || {
            Party::new(
                &authority.issue(&Wish::named(EDGE)),
                trusting(&authority),
                lenient(),
            )
        };
        let (first, second) = (member(), member());
        let client = eager_client(&first, &TLS13, false);
        let kind = |server: &Arc<ServerConfig>| {
            handshake(&client, server, EDGE).unwrap().0.handshake_kind()
        };

        assert_eq!(
            kind(&client_listener_of(&first, &secret(1))),
            Some(HandshakeKind::Full)
        );
        assert_eq!(
            kind(&client_listener_of(&second, &secret(1))),
            Some(HandshakeKind::Resumed)
        );
        assert_eq!(
            kind(&client_listener_of(&second, &secret(2))),
            Some(HandshakeKind::Full),
            "a foreign array"
        );
    }

    #[test]
    fn tls_1_2_works_and_is_not_resumed() {
        let authority = Authority::new("CA");
        let edge = Party::new(
            &authority.issue(&Wish::named(EDGE)),
            trusting(&authority),
            lenient(),
        );
        let client = eager_client(&edge, &TLS12, false);
        let listener = client_listener_of(
            &edge,
            &Secrets::only(ArraySecret::generate(&mut Seeded::new(1))),
        );
        for _ in 0..2 {
            let (client, _) = handshake(&client, &listener, EDGE).unwrap();
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(
                client.protocol_version(),
                Some(rustls::ProtocolVersion::TLSv1_2)
            );
        }
    }

    #[test]
    fn each_client_sees_the_certificate_that_it_can_verify() {
        use rustls::crypto::aws_lc_rs::cipher_suite::{
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TLS13_AES_128_GCM_SHA256,
        };
        let authority = Authority::new("CA");
        let ecdsa = authority.issue(&Wish::named(EDGE));
        let rsa = authority.issue(&Wish {
            algorithm: &rcgen::PKCS_RSA_SHA256,
            ..Wish::named(EDGE)
        });
        let edge = Party {
            shown: Store::of_pairs(&[
                (&rsa.chain, &rsa.private_key()),
                (&ecdsa.chain, &ecdsa.private_key()),
            ])
            .unwrap(),
            verifier: PeerVerifier::new(trusting(&authority), lenient(), CrlStore::empty()),
        };
        let listener = edge.listener();
        for (suite, expected) in [
            (TLS13_AES_128_GCM_SHA256, &ecdsa),
            (TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &ecdsa),
            (TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, &rsa),
        ] {
            let only = CryptoProvider {
                cipher_suites: vec![suite],
                ..CryptoProvider::clone(&provider())
            };
            let version = suite.version();
            let client = ClientConfig::builder_with_details(Arc::new(only), FixedClock::at(TODAY))
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&edge.verifier) as _)
                .with_client_cert_resolver(Arc::clone(&edge.shown) as _);
            let (client, _) = handshake(&Arc::new(client), &listener, EDGE).unwrap();
            assert_eq!(
                client.peer_certificates().unwrap(),
                expected.chain,
                "{suite:?}"
            );
        }
    }

    #[test]
    fn the_protocol_is_negotiated_where_one_is_listed() {
        let authority = Authority::new("CA");
        let edge = Party::new(
            &authority.issue(&Wish::named(EDGE)),
            trusting(&authority),
            lenient(),
        );
        let clock = || FixedClock::at(TODAY);
        let listener = mutual_listener_at(
            Arc::clone(&edge.shown),
            Arc::clone(&edge.verifier),
            &[b"ewrp/1"],
            clock(),
        );
        let dialer = |alpn: &[&[u8]]| {
            dialer_at(
                Arc::clone(&edge.shown),
                Arc::clone(&edge.verifier),
                alpn,
                clock(),
            )
        };
        let (client, _) = handshake(&dialer(&[b"ewrp/1"]), &listener, EDGE).unwrap();
        assert_eq!(client.alpn_protocol(), Some(&b"ewrp/1"[..]));
        assert!(handshake(&dialer(&[b"ewrp/2"]), &listener, EDGE).is_err());
    }
}

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

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

pub use super::revocation::CrlStore;
pub use super::store::Store;
pub use super::tickets::ArrayTickets;
pub use super::verify::{PeerPolicy, PeerVerifier, TrustStore};

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
    Arc::new(DefaultTimeProvider)
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const PROVIDER_FITS: &str = "aws-lc-rs has suites for TLS 1.2 and 1.3";

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    use rustls::{CertificateError, ClientConnection, Error, HandshakeKind, ServerConnection};

    use super::*;
    use crate::cert::revocation::Crl;
    use crate::cert::test_pki::{Authority, FixedClock, Issued, TODAY, Wish};
    use crate::cert::verify::{PartnerTrust, Roots};
    use crate::config::{ClientEku, Revocation};
    use crate::random::Seeded;
    use crate::secret::{ArraySecret, Secrets};

    const EDGE: &str = "sip.contoso.test";
    const PARTNER: &str = "sip.fabrikam.test";

    fn policy(client_eku: ClientEku, revocation: Revocation) -> PeerPolicy {
        PeerPolicy {
            client_eku,
            revocation,
        }
    }

    fn lenient() -> PeerPolicy {
        policy(ClientEku::ClientOrServer, Revocation::Off)
    }

    fn trusting(authority: &Authority) -> TrustStore {
        TrustStore::of(&[authority.certificate()]).unwrap()
    }

    /// One organisation: what it shows, and whom it believes.
    struct Party {
        shown: Arc<Store>,
        verifier: Arc<PeerVerifier>,
    }

    impl Party {
        fn new(shown: &Issued, trust: TrustStore, policy: PeerPolicy) -> Self {
            Self::with_lists(shown, trust, policy, CrlStore::empty())
        }

        fn with_lists(
            shown: &Issued,
            trust: TrustStore,
            policy: PeerPolicy,
            crls: Arc<CrlStore>,
        ) -> Self {
            Self {
                shown: shown.store(),
                verifier: PeerVerifier::new(trust, policy, crls),
            }
        }

        fn listener(&self) -> Arc<ServerConfig> {
            let clock = FixedClock::at(TODAY);
            mutual_listener_at(
                Arc::clone(&self.shown),
                Arc::clone(&self.verifier),
                &[],
                clock,
            )
        }

        fn dialer(&self) -> Arc<ClientConfig> {
            let clock = FixedClock::at(TODAY);
            dialer_at(
                Arc::clone(&self.shown),
                Arc::clone(&self.verifier),
                &[],
                clock,
            )
        }
    }

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

    #[derive(Debug)]
    enum Failed {
        AtClient(Box<Error>),
        AtServer(Box<Error>),
    }

    impl Failed {
        fn at_server(self) -> Error {
            match self {
                Self::AtServer(error) => *error,
                Self::AtClient(error) => panic!("refused by the client: {error}"),
            }
        }

        fn at_client(self) -> Error {
            match self {
                Self::AtClient(error) => *error,
                Self::AtServer(error) => panic!("refused by the server: {error}"),
            }
        }
    }

    /// Runs a handshake in memory, and on until tickets have arrived.
    #[expect(
        clippy::unwrap_in_result,
        reason = "an error is the refusal that a test asks about; all else fails it"
    )]
    fn handshake(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        name: &'static str,
    ) -> Result<(ClientConnection, ServerConnection), Failed> {
        let mut client =
            ClientConnection::new(Arc::clone(client), name.try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        for _ in 0..10 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut bytes.as_slice()).unwrap();
            if let Err(error) = server.process_new_packets() {
                return Err(Failed::AtServer(Box::new(error)));
            }
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut bytes.as_slice()).unwrap();
            if let Err(error) = client.process_new_packets() {
                return Err(Failed::AtClient(Box::new(error)));
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

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
    fn the_strictest_partner_in_a_certificate_decides_about_revocation() {
        let public = Authority::new("Public CA");
        let partner = |domain: &str, revocation| PartnerTrust {
            domain: domain.parse().unwrap(),
            fqdn: None,
            roots: None,
            pins: Vec::new(),
            revocation,
        };
        let trust = trusting(&public)
            .with_partner(partner("fabrikam.test", Revocation::Hard))
            .with_partner(partner("northwind.test", Revocation::Off));
        let edge = Party::new(
            &public.issue(&Wish::named(EDGE)),
            trust,
            policy(ClientEku::ClientOrServer, Revocation::Soft),
        );
        let connects = |names: &[&'static str]| {
            let mut wish = Wish::named(PARTNER);
            wish.names = names.to_vec();
            let peer = Party::new(&public.issue(&wish), trusting(&public), lenient());
            handshake(&peer.dialer(), &edge.listener(), EDGE)
                .map(drop)
                .map_err(Failed::at_server)
        };
        let unknown = Err(CertificateError::UnknownRevocationStatus.into());
        assert_eq!(connects(&["sip.northwind.test"]), Ok(()));
        assert_eq!(connects(&["sip.else.test"]), Ok(()));
        assert_eq!(connects(&[PARTNER]), unknown);
        assert_eq!(connects(&["sip.northwind.test", PARTNER]), unknown);
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
                .load(std::sync::atomic::Ordering::Relaxed),
            1
        );
    }

    fn partner_trust(authority: &Authority) -> PartnerTrust {
        PartnerTrust {
            domain: "fabrikam.test".parse().unwrap(),
            fqdn: None,
            roots: Some(Roots::of(&[authority.certificate()]).unwrap()),
            pins: Vec::new(),
            revocation: Revocation::Off,
        }
    }

    #[test]
    fn a_partners_own_ca_speaks_for_that_partner_only() {
        let (public, own) = (Authority::new("Public CA"), Authority::new("Fabrikam CA"));
        let trust = trusting(&public).with_partner(partner_trust(&own));
        let edge = Party::new(&public.issue(&Wish::named(EDGE)), trust, lenient());
        let connects = |ca: &Authority, names: &[&'static str]| {
            let mut wish = Wish::named(PARTNER);
            wish.names = names.to_vec();
            let peer = Party::new(&ca.issue(&wish), trusting(&public), lenient());
            handshake(&peer.dialer(), &edge.listener(), EDGE)
                .map(drop)
                .map_err(Failed::at_server)
        };
        let unknown = Err(CertificateError::UnknownIssuer.into());
        assert_eq!(connects(&own, &[PARTNER]), Ok(()));
        assert_eq!(
            connects(&public, &[PARTNER]),
            unknown,
            "its own CA replaces the public ones"
        );
        assert_eq!(connects(&own, &["sip.northwind.test"]), unknown);
        let nobody: Result<(), Error> =
            Err(CertificateError::ApplicationVerificationFailure.into());
        for ca in [&own, &public] {
            assert_eq!(connects(ca, &[PARTNER, "sip.northwind.test"]), nobody);
            assert_eq!(connects(ca, &[PARTNER, "sip:northwind.test"]), nobody);
        }
        assert_eq!(connects(&public, &["sip.northwind.test"]), Ok(()));
    }

    #[test]
    fn a_pin_holds_one_key() {
        let public = Authority::new("Public CA");
        let (pinned, other) = (
            public.issue(&Wish::named(PARTNER)),
            public.issue(&Wish::named(PARTNER)),
        );
        let facts = crate::cert::role::Facts::read(&pinned.chain[0]).unwrap();
        let mut partner = partner_trust(&public);
        partner
            .pins
            .push(crate::cert::identity::Fingerprint::of(&facts.public_key).0);
        let edge = Party::new(
            &public.issue(&Wish::named(EDGE)),
            trusting(&public).with_partner(partner),
            lenient(),
        );
        let connects = |shown: &Issued| {
            let peer = Party::new(shown, trusting(&public), lenient());
            handshake(&peer.dialer(), &edge.listener(), EDGE)
                .map(drop)
                .map_err(Failed::at_server)
        };
        assert_eq!(connects(&pinned), Ok(()));
        assert_eq!(
            connects(&other),
            Err(CertificateError::ApplicationVerificationFailure.into())
        );
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

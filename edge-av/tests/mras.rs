//! The A/V authentication service on a real socket: a server inside asks over mutual TLS, in pieces and several at once.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use edge_av::credentials::Credentials;
use edge_av::mras::CONTENT_TYPE;
use edge_av::mras::request::BODY_MAX;
use edge_av::mras::service::Service;
use edge_av::mras_listener;
use edge_av::observe::MrasFigures;
use edge_common::cert::revocation::CrlStore;
use edge_common::cert::tls::{self, PeerPolicy, PeerVerifier, Store, TrustStore};
use edge_common::config::{ClientEku, Revocation, check};
use edge_common::credential::{AvKeys, KeyRing};
use edge_common::net::core_runtime::Cores;
use edge_common::net::handshake;
use edge_common::net::stream::Stream;
use edge_common::observe::metrics::Metrics;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

/// The inside's authority, and what it has issued.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a certificate")
            .der()
            .clone();
        (
            certificate,
            key.serialize_der().try_into().expect("PKCS #8"),
        )
    }

    fn listener(&self) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue("edge.contoso.internal");
        let store = Store::of(vec![certificate], &key).expect("a pair");
        let trust = TrustStore::of(std::slice::from_ref(&self.certificate)).expect("an authority");
        let policy = PeerPolicy {
            client_eku: ClientEku::ClientOrServer,
            revocation: Revocation::Off,
        };
        tls::mutual_listener(
            store,
            PeerVerifier::new(trust, policy, CrlStore::empty()),
            &[],
        )
    }

    fn connect(
        &self,
        to: std::net::SocketAddr,
        (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has suites")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .expect("a pair");
        let host = "edge.contoso.internal".try_into().expect("a name");
        let session = ClientConnection::new(Arc::new(config), host).expect("a session");
        let stream = TcpStream::connect(to).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        StreamOwned::new(session, stream)
    }
}

fn service() -> Arc<Service> {
    let (config, _) = check(include_str!("relay.toml"), None)
        .into_result()
        .expect("a lawful file");
    let key = KeyPair::generate().expect("a key");
    let der: PrivateKeyDer<'_> = key.serialize_der().try_into().expect("PKCS #8");
    let keys = AvKeys::derive(&rcgen::PublicKeyData::subject_public_key_info(&key), &der)
        .expect("a usable key");
    let credentials = Arc::new(Credentials {
        ring: KeyRing::only(keys),
        rest: None,
    });
    Arc::new(Service::new(
        &config,
        config.av.as_ref().expect("it has [av]"),
        credentials,
    ))
}

/// Serves as the daemon does, without its gate.
fn serve(config: Arc<ServerConfig>, metrics: &Metrics) -> (std::net::SocketAddr, Cores) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    let (service, figures) = (service(), MrasFigures::new(metrics));
    let cores = Cores::start_with("mras", vec![listener], move |core, listener| {
        let (config, service, figures) =
            (Arc::clone(&config), Arc::clone(&service), figures.clone());
        async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let tasks = Rc::new(RefCell::new(Vec::new()));
            loop {
                let (tcp, remote) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("a connection"),
                    () = core.stopping() => return,
                };
                let stream = Stream::new(&core, tcp, remote, mras_listener::stream_options());
                let (config, service, figures) =
                    (Arc::clone(&config), Arc::clone(&service), figures.clone());
                tasks.borrow_mut().push(core.spawn(async move {
                    if handshake::server(&stream, config, Duration::from_secs(5))
                        .await
                        .is_ok()
                    {
                        mras_listener::serve(service, figures, stream).await;
                    }
                }));
            }
        }
    });
    (address, cores.expect("a thread"))
}

fn asked(call: &str) -> String {
    let body = "<?xml version=\"1.0\"?><request requestID=\"1\" version=\"2.0\" to=\"sip:edge@contoso.test\" \
        from=\"sip:ann@contoso.test\" xmlns=\"http://schemas.microsoft.com/2006/09/sip/mrasp\">\
        <credentialsRequest credentialsRequestID=\"1\"><identity>sip:ann@contoso.test</identity></credentialsRequest></request>";
    format!(
        "SERVICE sip:edge@contoso.test SIP/2.0\r\nVia: SIP/2.0/TLS d;branch=z9hG4bK{call}\r\nMax-Forwards: 70\r\n\
         From: <sip:ann@contoso.test>;tag=1\r\nTo: <sip:edge@contoso.test>\r\nCall-ID: {call}\r\nCSeq: 1 SERVICE\r\n\
         Content-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads until the text holds `count` documents that end.
fn answers(stream: &mut StreamOwned<ClientConnection, TcpStream>, count: usize) -> String {
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    while text.matches("</response>").count() < count {
        let len = stream.read(&mut bytes).expect("an answer in time");
        assert_ne!(len, 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&bytes[..len]).expect("text"));
    }
    text
}

#[test]
fn a_trusted_server_is_answered_however_its_bytes_arrive_and_another_is_forbidden() {
    let (authority, metrics) = (Authority::new(), Metrics::new("av"));
    let (address, cores) = serve(authority.listener(), &metrics);

    let mut director = authority.connect(address, authority.issue("director.contoso.internal"));
    // A keep-alive, then two requests of which the second is cut in its middle.
    let second = asked("two");
    let (head, tail) = second.split_at(second.len() / 2);
    director
        .write_all(format!("\r\n\r\n{}{head}", asked("one")).as_bytes())
        .expect("sent");
    let first = answers(&mut director, 1);
    assert!(
        first.contains("SIP/2.0 200 OK")
            && first.contains("Call-ID: one")
            && first.contains("reasonPhrase=\"OK\""),
        "{first}"
    );
    assert!(
        first.contains("<hostName>av.contoso.test</hostName>") && first.contains("<username>"),
        "{first}"
    );
    director.write_all(tail.as_bytes()).expect("sent");
    assert!(answers(&mut director, 1).contains("Call-ID: two"));

    let mut stranger = authority.connect(address, authority.issue("www.contoso.internal"));
    stranger.write_all(asked("three").as_bytes()).expect("sent");
    let refused = answers(&mut stranger, 1);
    assert!(
        refused.starts_with("SIP/2.0 403 Forbidden") && !refused.contains("<password>"),
        "{refused}"
    );

    // Too long is answered too, and the connection goes on.
    let body = "x".repeat(BODY_MAX + 1);
    let long = format!(
        "SERVICE sip:edge@contoso.test SIP/2.0\r\nVia: SIP/2.0/TLS d;branch=z9hG4bKlong\r\n\
         From: <sip:ann@contoso.test>;tag=1\r\nTo: <sip:edge@contoso.test>\r\nCall-ID: long\r\nCSeq: 1 SERVICE\r\n\
         Content-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    director.write_all(long.as_bytes()).expect("sent");
    assert!(answers(&mut director, 1).contains("Call-ID: long"));

    // Framing is lost: the connection ends, and the others go on.
    director
        .write_all(b"SERVICE sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n")
        .expect("sent");
    assert!(matches!(director.read(&mut [0; 16]), Ok(0) | Err(_)));
    stranger.write_all(asked("four").as_bytes()).expect("sent");
    assert!(answers(&mut stranger, 1).contains("Call-ID: four"));

    let text = metrics.text();
    assert!(
        text.contains("edge_av_mras_requests_total{result=\"ok\"} 2"),
        "{text}"
    );
    assert!(
        text.contains("edge_av_mras_requests_total{result=\"forbidden\"} 2"),
        "{text}"
    );
    for line in [
        "edge_av_mras_requests_total{result=\"too_large\"} 1",
        "edge_av_mras_connections_ended_total{reason=\"framing_lost\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    cores.stop();
    cores.join().expect("no core panics");
}

#[test]
fn who_shows_no_certificate_of_the_inside_is_not_even_heard() {
    let (authority, foreign, metrics) = (Authority::new(), Authority::new(), Metrics::new("av"));
    let (address, cores) = serve(authority.listener(), &metrics);
    let mut eve = authority.connect(address, foreign.issue("director.contoso.internal"));
    let told = eve
        .write_all(asked("one").as_bytes())
        .and_then(|()| eve.read(&mut [0; 16]));
    assert!(!matches!(told, Ok(len) if len > 0));
    assert!(
        metrics
            .text()
            .contains("edge_av_mras_requests_total{result=\"ok\"} 0")
    );
    cores.stop();
    cores.join().expect("no core panics");
}

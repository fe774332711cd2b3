//! Certificates and configurations for the tests of this folder: one CA, `edge.test` on the server's side, `client.test` on the
//! client's, TLS 1.2 or 1.3 as asked.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::task::LocalSet;

use super::bind::TcpOptions;
use super::core_runtime::CoreContext;
use super::stream::{Stream, StreamOptions};

pub(crate) const BOTH: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// What the two ends need, made anew for each test.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    version: &'static SupportedProtocolVersion,
}

impl Pki {
    pub(crate) fn new(version: &'static SupportedProtocolVersion) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("CA");
        Self { issuer, version }
    }

    /// Shows `edge.test`; asks for a client certificate if `mutual`.
    pub(crate) fn server(&self, mutual: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[self.version])
            .expect("version");
        let builder = if mutual {
            let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider());
            builder.with_client_cert_verifier(verifier.build().expect("roots"))
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = self.leaf("edge.test");
        let mut config = builder.with_single_cert(chain, key).expect("pair");
        config.alpn_protocols = vec![b"sip".to_vec()];
        Arc::new(config)
    }

    /// Shows `client.test` when asked.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client_trusting(self)
    }

    /// The same, but it trusts another CA than the one its certificate is from.
    pub(crate) fn client_trusting(&self, trusted: &Self) -> Arc<ClientConfig> {
        let verifier = WebPkiServerVerifier::builder_with_provider(trusted.roots(), provider())
            .build()
            .expect("roots");
        let (chain, key) = self.leaf("client.test");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[self.version])
            .expect("version")
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(chain, key)
            .expect("pair");
        config.alpn_protocols = vec![b"sip".to_vec()];
        Arc::new(config)
    }

    fn leaf(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new([name.to_owned()]).expect("name");
        let leaf = params.signed_by(&key, &self.issuer).expect("leaf");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        (vec![leaf.der().clone()], key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("CA");
        Arc::new(roots)
    }
}

pub(crate) fn edge_test() -> ServerName<'static> {
    ServerName::try_from("edge.test").expect("name")
}

/// Runs a test on a core of its own.
pub(crate) fn on_a_core<Fut: Future<Output = ()>>(test: impl FnOnce(CoreContext) -> Fut) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    LocalSet::new().block_on(&runtime, async { test(CoreContext::alone()).await });
}

/// Two plain streams that are one connection over loopback.
pub(crate) async fn pair(core: &CoreContext, options: StreamOptions) -> (Stream, Stream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("bound");
    let near = tokio::net::TcpStream::connect(address);
    let (near, far) = tokio::join!(near, listener.accept());
    let (near, (far, remote)) = (near.expect("connects"), far.expect("accepts"));
    // Small buffers in the kernel: the tests look at ours.
    let tcp = TcpOptions {
        socket_buffer: Some(64 * 1024),
        ..TcpOptions::default()
    };
    tcp.apply(&near)
        .and_then(|()| tcp.apply(&far))
        .expect("socket options");
    (
        Stream::new(core, near, address, options),
        Stream::new(core, far, remote, options),
    )
}

/// The same with TLS: the client's end, the server's end.
pub(crate) async fn tls_pair(
    core: &CoreContext,
    version: &'static SupportedProtocolVersion,
    options: StreamOptions,
) -> (Stream, Stream) {
    let pki = Pki::new(version);
    let (client, server) = pair(core, options).await;
    let within = std::time::Duration::from_secs(10);
    let (ours, theirs) = tokio::join!(
        super::handshake::client(&client, pki.client(), edge_test(), within),
        super::handshake::server(&server, pki.server(true), within),
    );
    ours.expect("the client's handshake");
    theirs.expect("the server's handshake");
    (client, server)
}

/// Reads until `len` bytes have come.
pub(crate) async fn read_exactly(stream: &Stream, len: usize) -> Vec<u8> {
    let got = Rc::new(RefCell::new(Vec::new()));
    while got.borrow().len() < len {
        let read = stream.read(|bytes| {
            let wanted = bytes.len().min(len - got.borrow().len());
            got.borrow_mut().extend_from_slice(&bytes[..wanted]);
            wanted
        });
        assert_eq!(read.await, Ok(super::stream::Read::Data));
    }
    got.take()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

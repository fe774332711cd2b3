//! The TLS configurations against OpenSSL, as most of our peers are built on it.
#![cfg(feature = "io")]
#![expect(clippy::unwrap_used, reason = "whatever fails here fails the test")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use edge_common::cert::store::Store;
use edge_common::cert::tls::{self, ArrayTickets, CrlStore, PeerPolicy, PeerVerifier, TrustStore};
use edge_common::config::{ClientEku, Revocation};
use edge_common::random::Seeded;
use edge_common::secret::{ArraySecret, Secrets};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;

const HOST: &str = "sip.contoso.test";

/// A CA, one certificate for everybody, and their files.
struct Pki {
    place: TempDir,
    store: Arc<Store>,
    verifier: Arc<PeerVerifier>,
}

impl Pki {
    fn new(usages: &[ExtendedKeyUsagePurpose]) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();

        let place = TempDir::new().unwrap();
        let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
        write("ca.pem", &authority.pem());
        write("chain.pem", &certificate.pem());
        write("key.pem", &key.serialize_pem());
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let store = Store::of(vec![certificate.der().clone()], &private).unwrap();
        let trust = TrustStore::of(&[authority.der().clone()]).unwrap();
        let policy = PeerPolicy {
            client_eku: ClientEku::ClientOrServer,
            revocation: Revocation::Soft,
        };
        let verifier = PeerVerifier::new(trust, policy, CrlStore::empty());
        Self {
            place,
            store,
            verifier,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn mutual(&self) -> Arc<ServerConfig> {
        tls::mutual_listener(Arc::clone(&self.store), Arc::clone(&self.verifier), &[])
    }
}

fn both() -> [ExtendedKeyUsagePurpose; 2] {
    [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ]
}

fn openssl() -> Command {
    Command::new("openssl")
}

/// Serves one connection after another and returns each line that it reads.
fn echo(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut reader = BufReader::new(StreamOwned::new(tls, stream));
            let mut line = String::new();
            if reader.read_line(&mut line).is_ok() {
                reader.get_mut().write_all(line.as_bytes()).unwrap();
                reader.get_mut().conn.send_close_notify();
                reader.get_mut().flush().unwrap();
            }
        }
    });
    address
}

/// Connects as a client that says one line.
fn s_client(pki: &Pki, server: SocketAddr, arguments: &[&str]) -> Output {
    let mut client = openssl()
        .args([
            "s_client",
            "-ign_eof",
            "-verify_return_error",
            "-verify_hostname",
            HOST,
            "-connect",
        ])
        .arg(server.to_string())
        .arg("-CAfile")
        .arg(pki.path("ca.pem"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed (tests/setup.sh does that)");
    // A server that refused may have closed the pipe already.
    drop(client.stdin.take().unwrap().write_all(b"over the edge\n"));
    client.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn credentials(pki: &Pki) -> [String; 4] {
    let path = |name| pki.path(name).display().to_string();
    [
        "-cert".into(),
        path("chain.pem"),
        "-key".into(),
        path("key.pem"),
    ]
}

#[test]
fn a_partner_on_openssl_connects_with_either_version_and_a_certificate_for_servers_only() {
    let pki = Pki::new(&[ExtendedKeyUsagePurpose::ServerAuth]);
    let server = echo(pki.mutual());
    let credentials = credentials(&pki);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut arguments: Vec<&str> = credentials.iter().map(String::as_str).collect();
        arguments.push(version);
        let shown = text(&s_client(&pki, server, &arguments));
        assert!(shown.contains("\nover the edge\n"), "{version}: {shown}");
        assert!(
            shown.contains("Verify return code: 0 (ok)"),
            "{version}: {shown}"
        );
    }
}

#[test]
fn a_client_on_openssl_without_a_certificate_is_refused() {
    let pki = Pki::new(&both());
    let server = echo(pki.mutual());
    for version in ["-tls1_2", "-tls1_3"] {
        let output = s_client(&pki, server, &[version]);
        assert!(!text(&output).contains("\nover the edge\n"), "{version}");
        assert!(!output.status.success(), "{version}");
    }
}

#[test]
fn a_client_on_openssl_resumes_at_another_member() {
    let pki = Pki::new(&both());
    let member = || {
        let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(1)));
        let tickets = ArrayTickets::new(&secrets, tls::system_clock());
        echo(tls::client_listener(Arc::clone(&pki.store), tickets))
    };
    let session = pki.path("session").display().to_string();
    let first = text(&s_client(
        &pki,
        member(),
        &["-tls1_3", "-sess_out", &session],
    ));
    assert!(
        first.contains("New, TLSv1.3") && first.contains("\nover the edge\n"),
        "{first}"
    );
    let second = text(&s_client(
        &pki,
        member(),
        &["-tls1_3", "-sess_in", &session],
    ));
    assert!(
        second.contains("Reused, TLSv1.3") && second.contains("\nover the edge\n"),
        "{second}"
    );
}

/// An OpenSSL server that insists on a client certificate and sends every line back reversed.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(pki: &Pki, version: &str) -> Self {
        let mut process = openssl()
            .args([
                "s_server",
                "-rev",
                "-Verify",
                "2",
                "-verify_return_error",
                "-accept",
                "127.0.0.1:0",
                version,
            ])
            .args(credentials(pki))
            .arg("-CAfile")
            .arg(pki.path("ca.pem"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed (tests/setup.sh does that)");
        // It prints "ACCEPT 127.0.0.1:port" when it listens.
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.parse().unwrap();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_server_on_openssl_accepts_our_certificate_as_a_client() {
    let pki = Pki::new(&both());
    let dialer = tls::dialer(Arc::clone(&pki.store), Arc::clone(&pki.verifier), &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let server = Server::start(&pki, version);
        let say = |name: &'static str| {
            let stream = TcpStream::connect(server.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let tls = ClientConnection::new(Arc::clone(&dialer), name.try_into().unwrap()).unwrap();
            let mut stream = StreamOwned::new(tls, stream);
            stream.write_all(b"egde eht revo\n")?;
            let mut answer = [0; 14];
            stream.read_exact(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        assert_eq!(&say(HOST).unwrap(), b"over the edge\n", "{version}");
        let refused = say("sip.fabrikam.test").unwrap_err().to_string();
        assert!(
            refused.contains("not valid for name"),
            "{version}: {refused}"
        );
    }
}

/// The files of the test exist as OpenSSL wants them; otherwise each refusal above would prove nothing.
#[test]
fn the_certificate_of_these_tests_is_good_for_openssl() {
    let pki = Pki::new(&both());
    let verify = |file: &Path| {
        let output = openssl()
            .arg("verify")
            .arg("-CAfile")
            .arg(pki.path("ca.pem"))
            .arg(file)
            .output()
            .unwrap();
        output.status.success()
    };
    assert!(verify(&pki.path("chain.pem")));
    assert!(!verify(&pki.path("key.pem")));
}

const PATIENCE: Duration = Duration::from_secs(10);

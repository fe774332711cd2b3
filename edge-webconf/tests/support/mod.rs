//! An edge, an agent and a server on loopback, all of them the real code, and what tests say to
//! them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edge_common::config::{Config, check};
use edge_common::net::core_runtime::Cores;
use edge_common::observe::http::Readiness;
use edge_common::observe::metrics::Metrics;
use edge_common::run::{Fault, Service, Shared};
use edge_webconf::agent::config::AgentConfig;
use edge_webconf::agent::service::WebconfAgent;
use edge_webconf::daemon::EdgeWebconf;
use edge_webconf::ewrp::control::Frame;
use edge_webconf::ewrp::frame::{self, Step};
use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub(crate) const CLIENT_PORT: u16 = 11_443;
pub(crate) const AGENT_PORT: u16 = 18_057;
pub(crate) const EDGE: &str = "edge1.contoso.internal";
const EDGE2: &str = "edge2.contoso.internal";
pub(crate) const AGENT: &str = "mcu1.contoso.internal";
const WEBCONF: &str = "webconf.contoso.test";

/// A certification authority with its files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    name: &'static str,
}

impl Authority {
    pub(crate) fn new(name: &'static str, directory: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let authority = Self {
            issuer,
            directory: directory.to_owned(),
            name,
        };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.name))
    }

    /// Makes NAME.pem and NAME.key for a host.
    pub(crate) fn issue(&self, file: &str, host: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain_file = self.directory.join(format!("{file}.pem"));
        let key_file = self.directory.join(format!("{file}.key"));
        std::fs::write(&chain_file, certificate.pem()).unwrap();
        private(&key_file, &key.serialize_pem());
        (chain_file, key_file)
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }
}

pub(crate) fn private(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What one test has of the world: addresses of its own, so that tests run side by side.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) inside: Authority,
    pub(crate) outside: Authority,
    net: u8,
    edge: Option<Process<Config>>,
}

impl World {
    /// An edge that serves, with `change` made to its configuration.
    pub(crate) fn new(net: u8, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inside = Authority::new("inside-ca", directory.path());
        let outside = Authority::new("public-ca", directory.path());
        inside.issue("internal", EDGE);
        outside.issue("webconf", WEBCONF);
        private(
            &directory.path().join("array.current"),
            &format!("{}\n", "0123456789abcdef".repeat(4)),
        );
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge-common/tests/data/keys");
        let key = std::fs::read_to_string(data.join("ed25519.pkcs8.pem")).unwrap();
        private(&directory.path().join("join.key"), &key);
        std::fs::copy(
            data.join("ed25519.pub.pem"),
            directory.path().join("join.pub"),
        )
        .unwrap();
        let mut world = Self {
            directory,
            inside,
            outside,
            net,
            edge: None,
        };
        let mut config = world.edge_config();
        change(&mut config);
        world.edge = Some(Process::start::<EdgeWebconf<false>>(config));
        world
    }

    /// Another edge of the same array, at addresses of its own.
    pub(crate) fn second_edge(&self) -> SecondEdge {
        let (chain, key) = self.inside.issue("internal2", EDGE2);
        let mut config = self.edge_config();
        config.internal.certificates[0].chain = chain;
        config.internal.certificates[0].key = key;
        let (external, internal) = ([127, 20, self.net, 3], [127, 20, self.net, 4]);
        let member = &mut config.members[0];
        member.internal.fqdn = EDGE2.parse().unwrap();
        member.webconf_internal_fqdn = EDGE2.parse().unwrap();
        member.external.webconf = vec![external.into()];
        member.internal.addresses = vec![IpNet::from(IpAddr::from(internal))];
        SecondEdge {
            process: Process::start::<EdgeWebconf<false>>(config),
            external: SocketAddr::from((external, CLIENT_PORT)),
            internal: SocketAddr::from((internal, AGENT_PORT)),
        }
    }

    /// The edge reads its file again, with `change` made to it.
    pub(crate) fn reload_edge(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut config = self.edge_config();
        change(&mut config);
        let reload = &mut self.edge.as_mut().unwrap().reload;
        reload(config).map_err(|fault| fault.to_string())
    }

    /// Ends the edge at once.
    pub(crate) fn kill_edge(&mut self) {
        self.edge = None;
    }

    /// Starts the edge again, as it was.
    pub(crate) fn restart_edge(&mut self) {
        self.edge = Some(Process::start::<EdgeWebconf<false>>(self.edge_config()));
    }

    pub(crate) fn external(&self) -> SocketAddr {
        SocketAddr::from(([127, 20, self.net, 1], CLIENT_PORT))
    }

    pub(crate) fn internal(&self) -> SocketAddr {
        SocketAddr::from(([127, 20, self.net, 2], AGENT_PORT))
    }

    fn edge_config(&self) -> Config {
        let text = format!(
            r#"
[organization]
sip_domains = [{{ domain = "contoso.test", remote_users_here = true }}]
topology = "single"
[[members]]
name = "edge1"
id = 0
external = {{ addresses = ["198.51.100.11/24"] }}
internal = {{ addresses = ["10.10.0.10/24"], fqdn = "{EDGE}" }}
[external]
interface = "ext"
gateway = ["198.51.100.1"]
[internal]
interface = "int"
networks = ["10.10.0.0/24"]
certificates = [{{ chain = "internal.pem", key = "internal.key" }}]
ca = "inside-ca.pem"
[array]
secrets = {{ current = "array.current" }}
[webconf]
fqdn = "{WEBCONF}"
port = {CLIENT_PORT}
agent_port = {AGENT_PORT}
certificates = [{{ chain = "webconf.pem", key = "webconf.key" }}]
preface_keys = ["join.pub"]
agents = ["{AGENT}"]
[webconf.limits]
preread_timeout = "1 s"
lease_timeout = "1 s"
pool_min = 4
[lab]
treat_as_public = ["198.51.100.0/24"]
[runtime]
cores = 2
"#
        );
        let mut config = check(&text, None).into_result().unwrap().0;
        config.rebase(self.directory.path());
        // The check knows no loopback; everything else is as an operator would have it.
        let member = &mut config.members[0];
        member.external.webconf = vec![self.external().ip()];
        let net = format!("{}/8", self.internal().ip());
        member.internal.addresses = vec![net.parse().unwrap()];
        config.external.interface = "lo".to_owned();
        config.internal.interface = "lo".to_owned();
        config
    }

    /// The agent of the trusted list, for a server at `target`.
    pub(crate) fn agent(&self, target: SocketAddr) -> Agent {
        self.agent_of(&self.inside, AGENT, target)
    }

    /// An agent with a certificate of that authority and name.
    pub(crate) fn agent_of(&self, authority: &Authority, name: &str, target: SocketAddr) -> Agent {
        self.agent_at(authority, name, target, &[self.internal()])
    }

    /// An agent of several edges, all of which show the same certificate.
    pub(crate) fn agent_at(
        &self,
        authority: &Authority,
        name: &str,
        target: SocketAddr,
        edges: &[SocketAddr],
    ) -> Agent {
        self.agent_with(authority, name, target, edges, "", "")
    }

    /// The same with more in its file: `top` before the tables, `of_server` in that of the server.
    pub(crate) fn agent_with(
        &self,
        authority: &Authority,
        name: &str,
        target: SocketAddr,
        edges: &[SocketAddr],
        top: &str,
        of_server: &str,
    ) -> Agent {
        let (chain, key) = authority.issue(name, name);
        let socket = self.directory.path().join(format!("{name}.sock"));
        let edges: Vec<String> = edges
            .iter()
            .zip([EDGE, EDGE2])
            .map(|(at, fqdn)| {
                let (ip, port) = (at.ip(), at.port());
                format!(
                    "{{ fqdn = \"{fqdn}\", address = \"{ip}\", port = {port}, clients = \"{WEBCONF}:443\" }}"
                )
            })
            .collect();
        let text = format!(
            "fqdn = \"{name}\"\ncertificate = {{ chain = {chain:?}, key = {key:?} }}\nca = {:?}\n\
             socket = {socket:?}\nedges = [{}]\n\
             {top}\nservers = [{{ name = \"{name}\", target = \"{target}\" {of_server} }}]\n",
            self.inside.file(),
            edges.join(", "),
        );
        let config = AgentConfig::check(&text, self.directory.path()).unwrap();
        Agent {
            process: Process::start::<WebconfAgent>(config),
            socket,
        }
    }

    /// A client whose TLS handshake is done.
    pub(crate) fn client(&self) -> Client {
        self.client_of(self.external())
    }

    /// A client of some edge of the array.
    pub(crate) fn client_of(&self, edge: SocketAddr) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.outside.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        connect(config, WEBCONF, edge)
    }

    /// A value of the edge's metrics; 0 when it is not there.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        self.edge.as_ref().unwrap().metric(line)
    }

    /// Waits until a metric has that value.
    pub(crate) fn until_metric(&self, line: &str, value: u64) {
        until(line, || self.metric(line) == value);
    }

    /// Tells the edge to drain.
    pub(crate) fn drain_edge(&self) {
        self.edge.as_ref().unwrap().cores.as_ref().unwrap().drain();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.edge.as_ref().unwrap().readiness.is_ready()
    }

    /// Waits until all cores of the edge have ended by themselves.
    pub(crate) fn until_edge_ended(&mut self) {
        let process = self.edge.as_mut().unwrap();
        process.cores.take().unwrap().join().unwrap();
    }
}

pub(crate) type Client = Raw;

/// The other member of an array.
pub(crate) struct SecondEdge {
    process: Process<Config>,
    pub(crate) external: SocketAddr,
    pub(crate) internal: SocketAddr,
}

impl SecondEdge {
    /// A value of its metrics; 0 when it is not there.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        self.process.metric(line)
    }
}

/// The cores of a service in this process.
pub(crate) struct Process<C> {
    cores: Option<Cores>,
    reload: Box<dyn FnMut(C) -> Result<(), Fault>>,
    metrics: Metrics,
    readiness: Readiness,
}

impl<C> Process<C> {
    fn start<S: Service<Config = C>>(config: C) -> Self {
        let shared = Shared {
            metrics: Metrics::new(S::METRICS),
            readiness: Readiness::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let running = runtime.block_on(S::start(config, &shared));
        let running = running.map_err(|fault| fault.to_string()).unwrap();
        Self {
            cores: Some(running.cores),
            reload: running.reload,
            metrics: shared.metrics,
            readiness: shared.readiness,
        }
    }
}

impl<C> Process<C> {
    /// The sum of the metrics whose line begins so.
    fn metric(&self, start: &str) -> u64 {
        let text = self.metrics.text();
        let lines = text.lines().filter(|line| line.starts_with(start));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap());
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }
}

impl<C> Drop for Process<C> {
    fn drop(&mut self) {
        if let Some(cores) = self.cores.take() {
            // `run_core` waits for the drain, and then for the stop.
            cores.drain();
            cores.stop();
            drop(cores.join());
        }
    }
}

/// An agent in this process.
pub(crate) struct Agent {
    process: Process<AgentConfig>,
    socket: PathBuf,
}

impl Agent {
    /// Asks for a number until an edge has acknowledged one.
    pub(crate) fn admit(&self, body: &str) -> String {
        let mut number = None;
        until("an admitted number", || {
            let (status, answer) = self.post("/admit", body);
            if status == 200 {
                assert_eq!(answer["edges"][0]["fqdn"], WEBCONF);
                assert_eq!(answer["edges"][0]["port"], 443);
                number = Some(answer["number"].as_str().unwrap().to_owned());
            }
            number.is_some()
        });
        number.unwrap()
    }

    /// A value of the agent's metrics; 0 when it is not there.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        self.process.metric(line)
    }

    /// Tells it to end in order; relays may go on.
    pub(crate) fn drain(&self) {
        self.process.cores.as_ref().unwrap().drain();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn until_ended(mut self) {
        self.process.cores.take().unwrap().join().unwrap();
    }

    /// Where it is asked.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// One request on the socket: the status and the JSON of the answer.
    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, serde_json::Value) {
        self.post_with(path, "", body)
    }

    /// The same with more headers.
    pub(crate) fn post_with(
        &self,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, serde_json::Value) {
        until("the socket", || self.socket.exists());
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: agent\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }
}

/// A connection to the agent port, spoken by hand.
pub(crate) type Raw = StreamOwned<ClientConnection, TcpStream>;

impl World {
    /// A TLS connection to the agent port with the certificate of a name. `Err` holds what TLS said.
    pub(crate) fn raw_agent(&self, name: &str, alpn: &[&[u8]]) -> Raw {
        self.raw_agent_over(name, alpn, rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn raw_agent_over(
        &self,
        name: &str,
        alpn: &[&[u8]],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Raw {
        let (chain, key) = self.inside.issue(&format!("raw-{name}"), name);
        let chain = CertificateDer::pem_file_iter(chain).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.inside.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        connect(config, EDGE, self.internal())
    }
}

fn connect(config: ClientConfig, name: &'static str, to: SocketAddr) -> Raw {
    let tls = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream
}

/// The next frame from the edge.
pub(crate) fn hear(stream: &mut Raw) -> Frame {
    let mut head = [0; frame::HEAD_LEN];
    stream.read_exact(&mut head).unwrap();
    let len = u32::from_be_bytes(head[4..].try_into().unwrap());
    let mut bytes = head.to_vec();
    bytes.resize(frame::HEAD_LEN + len as usize, 0);
    stream.read_exact(&mut bytes[frame::HEAD_LEN..]).unwrap();
    match frame::next(&bytes).unwrap() {
        Step::Frame { kind, body, .. } => Frame::parse(kind, body).unwrap(),
        Step::NeedMore => panic!("a whole frame was read"),
    }
}

/// A plain TCP server; each connection is handed to the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    arrivals: Receiver<TcpStream>,
    _accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, arrivals) = channel();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                if arrived.send(stream).is_err() {
                    return;
                }
            }
        });
        Self {
            address,
            arrivals,
            _accepting: accepting,
        }
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        self.arrivals.recv_timeout(PATIENCE).unwrap()
    }

    /// Nobody came up to now.
    pub(crate) fn is_untouched(&self) -> bool {
        self.arrivals.try_recv().is_err()
    }
}

/// Ends the client's direction: `close_notify` and FIN.
pub(crate) fn finish(client: &mut Client) {
    client.conn.send_close_notify();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut client.sock).unwrap();
    }
    client.sock.shutdown(Shutdown::Write).unwrap();
}

/// The client sees a proper close and not one byte. Gives how long that took.
pub(crate) fn assert_closed(client: &mut Client) -> Duration {
    let start = Instant::now();
    let mut byte = [0];
    // A `close_notify` reads as the end; a reset or a missing one would be an error.
    assert_eq!(client.read(&mut byte).unwrap(), 0);
    start.elapsed()
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes that no two places of the stream share.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend_from_slice(&(state >> 8).to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

//! The daemon itself, with two cores, and a Director for it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_access::daemon::{Daemon, Names, Reloader};
use edge_common::config::{Config, check};
use edge_common::config::{Partner, Revocation, TrustRoots, Verification};
use edge_common::net::core_runtime::Cores;
use edge_common::observe::http::Readiness;
use edge_common::observe::metrics::Metrics;
use edge_common::random::SystemRandom;
use edge_common::run::Shared;
use edge_common::secret::ArraySecret;

use super::dns::{NameServer, Record};
use super::peer::Peer;
use super::pki::Pki;

pub(crate) const EXTERNAL: &str = "127.0.1.10";
pub(crate) const INTERNAL: &str = "127.0.2.10";
const DIRECTOR: &str = "127.0.2.50";
pub(crate) const DIRECTOR_NAME: &str = "director.contoso.internal";

pub(crate) struct Edge {
    pub(crate) pki: Pki,
    pub(crate) shared: Shared,
    pub(crate) names: NameServer,
    pub(crate) config: Config,
    pub(crate) reloader: Reloader,
    pub(crate) director: TcpListener,
    cores: Option<Cores>,
    _directory: tempfile::TempDir,
}

impl Edge {
    pub(crate) fn start(records: BTreeMap<&'static str, Record>) -> Self {
        Self::start_with(records, |_| {})
    }

    /// The same with another configuration.
    pub(crate) fn start_with(
        records: BTreeMap<&'static str, Record>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = Pki::new();
        let director = TcpListener::bind((DIRECTOR, 0)).expect("a socket");
        let mut config = config(
            &pki,
            directory.path(),
            director.local_addr().expect("bound"),
        );
        change(&mut config);
        let names = NameServer::start(records);
        let mut settings = Names::of(&config);
        settings.external.servers = vec![names.address];
        let shared = Shared {
            metrics: Metrics::new("access"),
            readiness: Readiness::default(),
        };
        let daemon = Daemon::start(Arc::new(config.clone()), &settings, &shared).expect("started");
        let (cores, reloader) = daemon.into_parts();
        Self {
            pki,
            shared,
            names,
            config,
            reloader,
            director,
            cores: Some(cores),
            _directory: directory,
        }
    }

    /// The connections of both cores to the Director.
    pub(crate) fn next_hops(&self) -> Vec<Peer> {
        let accept = || Peer::accept(&self.director, self.pki.server(DIRECTOR_NAME));
        let peers = (0..CORES).map(|_| accept()).collect();
        self.until("ready", || self.shared.readiness.is_ready());
        peers
    }

    /// A remote user.
    pub(crate) fn client(&self) -> Peer {
        self.client_of(&self.pki)
    }

    /// A remote user who trusts that authority.
    pub(crate) fn client_of(&self, pki: &Pki) -> Peer {
        let to = self.at(EXTERNAL, self.access().client_port);
        Peer::dial(to, "sip.contoso.test", pki.anonymous())
    }

    /// A partner's edge, or somebody who says so.
    pub(crate) fn partner(&self, name: &str) -> Peer {
        self.partner_as(self.pki.client(name))
    }

    /// The same, with what it shows and trusts.
    pub(crate) fn partner_as(&self, tls: Arc<rustls::ClientConfig>) -> Peer {
        let to = self.at(EXTERNAL, self.access().federation_port);
        Peer::dial(to, "sip.contoso.test", tls)
    }

    /// A server inside, or somebody who says so.
    pub(crate) fn inside(&self, name: &str) -> Peer {
        let to = self.at(INTERNAL, self.access().internal_port);
        Peer::dial(to, "edge1.contoso.internal", self.pki.client(name))
    }

    pub(crate) fn client_port(&self) -> u16 {
        self.access().client_port
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !holds() {
            assert!(Instant::now() < end, "not {what} in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The value of one line of `/metrics`.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let text = self.shared.metrics.text();
        let found = text
            .lines()
            .find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_default()
    }

    fn access(&self) -> &edge_common::config::Access {
        self.config.access.as_ref().expect("configured")
    }

    fn at(&self, ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), port)
    }
}

impl Edge {
    /// Takes no new work, as after SIGTERM.
    pub(crate) fn drain(&self) {
        self.cores.as_ref().expect("running").drain();
    }

    /// Waits until the cores have ended by themselves.
    pub(crate) fn has_ended(&mut self) -> bool {
        let cores = self.cores.take().expect("running");
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(cores.join().is_ok()));
        told.recv_timeout(Duration::from_secs(5)) == Ok(true)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(cores) = self.cores.take() {
            cores.stop();
            assert!(cores.join().is_ok(), "no core panicked");
        }
    }
}

/// The example of a single edge, moved to loopback.
fn config(pki: &Pki, directory: &std::path::Path, director: SocketAddr) -> Config {
    const EXAMPLE: &str = include_str!("../../../deploy/examples/single.toml");
    let (mut config, _) = check(EXAMPLE, Some("edge1"))
        .into_result()
        .expect("the example is right");
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let member = &mut config.members[0];
    member.external.addresses = vec![format!("{EXTERNAL}/24").parse().expect("a network")];
    member.external.access = vec![ip(EXTERNAL)];
    member.internal.addresses = vec![format!("{INTERNAL}/24").parse().expect("a network")];
    (config.av, config.webconf) = (None, None);
    config.external.interface = "lo".to_owned();
    config.internal.interface = "lo".to_owned();
    config.internal.networks = vec!["127.0.2.0/24".parse().expect("a network")];
    config.internal.ca = directory.join("ca.pem");
    config.internal.next_hop = Some(
        format!("{DIRECTOR_NAME}:{}", director.port())
            .parse()
            .expect("a target"),
    );
    config.internal.next_hop_addresses = vec![director.ip()];
    config.internal.certificates = vec![pki.write(
        directory,
        "internal",
        &["edge1.contoso.internal", "edge.contoso.internal"],
    )];
    config.array.secrets.current = directory.join("secret");
    config.state.directory = directory.join("state");
    config.runtime.cores = CORES;
    config.lab.get_or_insert_default().treat_as_public =
        vec!["127.0.0.0/8".parse().expect("a network")];
    let access = config.access.as_mut().expect("in the example");
    access.certificates = vec![pki.write(directory, "access", &["sip.contoso.test"])];
    access.client_port = free_port(EXTERNAL);
    access.federation_port = free_port(EXTERNAL);
    access.internal_port = free_port(INTERNAL);
    access.federation.revocation = Revocation::Off;
    access.federation.trust_roots = TrustRoots::File(directory.join("ca.pem"));
    access.federation.partners = vec![Partner {
        domain: "fabrikam.test".parse().expect("a name"),
        fqdn: None,
        ca: None,
        revocation: Revocation::Off,
        pins: Vec::new(),
        verification: Verification::default(),
    }];
    pki.write_ca(&directory.join("ca.pem"));
    let secret = directory.join("secret");
    let text = ArraySecret::generate(&mut SystemRandom).to_hex();
    fs::write(&secret, text.as_bytes()).expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("private");
    config
}

fn free_port(ip: &str) -> u16 {
    let socket = TcpListener::bind((ip, 0)).expect("a socket");
    socket.local_addr().expect("bound").port()
}

const CORES: usize = 2;

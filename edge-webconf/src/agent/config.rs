//! `agent.toml`: what the operator of a conference server types.
//!
//! ```toml
//! fqdn = "mcu1.contoso.internal"             # a DNS name of the certificate
//! instance = "a"                             # where two agents have one fqdn; default: none
//! certificate = { chain = "mcu1.pem", key = "mcu1.key" }
//! ca = "inside-ca.pem"                       # who issued the edges' internal certificates
//! socket = "/run/edge-webconf-agent/admit.sock"
//! state = "/var/lib/edge-webconf-agent/numbers"   # numbers outlive the agent; default: they do not
//! admit_users = [1001]                       # user ids beside root and the agent's own
//! health = "127.0.0.1:9564"                  # /livez /readyz /metrics; default: none
//! edges = [
//!   { fqdn = "edge1.contoso.internal", port = 8057, clients = "webconf.contoso.com:443" },
//! ]
//! servers = [{ name = "mcu1.contoso.internal", target = "127.0.0.1:6000" }]
//! token_key = "join.key"                     # Ed25519; `POST /token` signs with it; default: none
//! http = { listen = "10.10.0.20:9565", token = "admit.token" }   # the same API over TCP; default: none
//! revocation = "soft"                        # off | soft | hard, by the lists in crls; default: off
//! crls = ["inside.crl"]
//!
//! [limits]
//! connections = 20000
//! ```
//!
//! Paths are relative to the directory of the file. What is wrong is said with line and column.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_common::config::{CertificateFiles, LogFormat, LogLevel, Revocation, units};
use edge_common::host_name::{HostName, HostPort};
use serde::Deserialize;
use toml::Spanned;

use crate::ewrp::control::RegistrationKind;

/// A checked `agent.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The name of the agent: a DNS name of its certificate that the edges trust.
    pub fqdn: HostName,
    /// Tells two agents of one name apart.
    pub instance: String,
    /// Shown to the edges.
    pub certificate: CertificateFiles,
    /// Who issued the certificates of the edges.
    pub ca: PathBuf,
    /// How the edges' certificates are looked up in `crls`.
    pub revocation: Revocation,
    /// Revocation lists of that CA.
    pub crls: Vec<PathBuf>,
    /// Signs tokens for clients whose protocol carries no number.
    pub token_key: Option<PathBuf>,
    /// The API over TCP too.
    pub http: Option<Http>,
    /// Where `POST /admit` is answered.
    pub socket: PathBuf,
    /// Where numbers are written down, so that they outlive the agent.
    pub state: Option<PathBuf>,
    /// Who may ask, beside root and the user that the agent runs as.
    pub admit_users: Vec<u32>,
    /// Where health and metrics are answered.
    pub health: Option<SocketAddr>,
    /// Every edge; at least one.
    pub edges: Vec<Edge>,
    /// What is served; at least one. The registration id of each is its place here, from 1.
    pub servers: Vec<Server>,
    /// What one agent takes on at most.
    pub limits: AgentLimits,
    /// What is told, and how.
    pub log: AgentLog,
}

/// The API over TCP, for a conference server on another host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where.
    pub listen: SocketAddr,
    /// The file with the bearer token; only its owner and group may read it.
    pub token: PathBuf,
}

/// One edge host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its internal name, which its certificate proves.
    pub fqdn: HostName,
    /// The address to dial; the name is looked up without it.
    pub address: Option<IpAddr>,
    /// Where it takes agents.
    pub port: u16,
    /// Where clients outside find it: what `/admit` lists.
    pub clients: HostPort,
}

/// One thing that clients are taken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What it registers as.
    pub name: Box<str>,
    /// What it is.
    pub kind: RegistrationKind,
    /// Where it listens. Fixed here: nothing from outside decides where the agent connects to.
    pub target: Target,
    /// What the server shows in a TLS handshake, if it is reached by TLS.
    pub tls: Option<TargetTls>,
    /// Whether it is told the client's address in a PROXY v2 header.
    pub proxy: bool,
    /// Share of the clients with a token among the agents that register this name; 0: only when there is no other.
    pub weight: u16,
    /// Clients at once; 0: no limit but the agent's.
    pub connections: u32,
    /// How often a token that this agent did not sign lets a client in; 0: never.
    pub token_uses: u16,
}

/// TLS with a server inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTls {
    /// Who issued its certificate.
    pub ca: PathBuf,
    /// The name in it.
    pub name: HostName,
}

/// A host and a port inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Dialled as it is.
    Address(SocketAddr),
    /// Looked up each time.
    Name(HostPort),
}

/// Bounds of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentLimits {
    /// Relayed connections of all edges at once.
    pub connections: u32,
    /// For TCP and TLS with an edge, and for TCP with a target.
    #[serde(with = "units::duration")]
    pub dial_timeout: Duration,
    /// How long `POST /admit` waits for the edges.
    #[serde(with = "units::duration")]
    pub admit_timeout: Duration,
    /// A relayed stream without a byte either way.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// The same after one direction has ended.
    #[serde(with = "units::duration")]
    pub half_close_timeout: Duration,
    /// Bytes held for each direction of a stream.
    #[serde(with = "units::size")]
    pub relay_buffer: usize,
    /// How long relays may go on when the agent is told to stop.
    #[serde(with = "units::duration")]
    pub drain_timeout: Duration,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            dial_timeout: Duration::from_secs(4),
            admit_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(4 * 3600),
            half_close_timeout: Duration::from_secs(30),
            relay_buffer: 64 * units::KIB,
            drain_timeout: Duration::from_secs(60),
        }
    }
}

/// What is told, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentLog {
    /// From which weight on.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

impl Default for AgentLog {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Auto,
        }
    }
}

/// What is wrong with the file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line and column, from 1; `None` when nothing in particular is wrong there.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Fault {}

impl AgentConfig {
    /// Reads and checks the file.
    pub fn load(file: &Path) -> Result<Self, Vec<Fault>> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            vec![Fault {
                place: None,
                message: format!("cannot read {}: {error}", file.display()),
            }]
        })?;
        Self::check(&text, file.parent().unwrap_or_else(|| Path::new("")))
    }

    /// Checks the text of a file that lies in `directory`, and tells all that is wrong at once.
    pub fn check(text: &str, directory: &Path) -> Result<Self, Vec<Fault>> {
        let typed: Typed = toml::from_str(text).map_err(|error| {
            vec![Fault {
                place: error.span().map(|span| place(text, span.start)),
                message: error.message().to_owned(),
            }]
        })?;
        let mut checker = Checker {
            text,
            faults: Vec::new(),
        };
        let config = typed.meaning(&mut checker, directory);
        if checker.faults.is_empty() {
            Ok(config)
        } else {
            Err(checker.faults)
        }
    }

    /// The id under which a server is registered.
    #[must_use]
    pub fn reg_id(index: usize) -> u32 {
        u32::try_from(index + 1).expect("at most SERVERS_MAX")
    }

    /// The server of a registration.
    #[must_use]
    pub fn server(&self, reg_id: u32) -> Option<&Server> {
        let index = usize::try_from(reg_id).ok()?.checked_sub(1)?;
        self.servers.get(index)
    }
}

/// What was typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    fqdn: HostName,
    #[serde(default)]
    instance: String,
    certificate: CertificateFiles,
    ca: PathBuf,
    #[serde(default = "unchecked")]
    revocation: Revocation,
    #[serde(default)]
    crls: Vec<PathBuf>,
    token_key: Option<PathBuf>,
    http: Option<Http>,
    socket: PathBuf,
    state: Option<PathBuf>,
    #[serde(default)]
    admit_users: Vec<u32>,
    health: Option<SocketAddr>,
    edges: Spanned<Vec<Spanned<TypedEdge>>>,
    servers: Spanned<Vec<Spanned<TypedServer>>>,
    #[serde(default)]
    limits: AgentLimits,
    #[serde(default)]
    log: AgentLog,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedEdge {
    fqdn: HostName,
    address: Option<IpAddr>,
    #[serde(default = "agent_port")]
    port: u16,
    clients: Option<HostPort>,
}

const fn unchecked() -> Revocation {
    Revocation::Off
}

const fn usual_weight() -> u16 {
    100
}

/// `webconf.port` of edge.toml, unless it says otherwise.
const CLIENTS_PORT: u16 = 443;

const fn agent_port() -> u16 {
    8057
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedServer {
    name: String,
    #[serde(default)]
    kind: TypedKind,
    target: Spanned<String>,
    tls: Option<TypedTls>,
    #[serde(default)]
    proxy: bool,
    #[serde(default = "usual_weight")]
    weight: u16,
    #[serde(default)]
    connections: u32,
    #[serde(default)]
    token_uses: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedTls {
    ca: PathBuf,
    name: Option<HostName>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TypedKind {
    #[default]
    Server,
    Conference,
    Tcp,
}

struct Checker<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(Fault {
            place: Some(place(self.text, at)),
            message: message.into(),
        });
    }
}

impl Typed {
    fn meaning(self, checker: &mut Checker<'_>, directory: &Path) -> AgentConfig {
        check_list(checker, &self.edges, "edges", EDGES_MAX);
        check_list(checker, &self.servers, "servers", SERVERS_MAX);
        let mut edges: Vec<Edge> = Vec::new();
        for edge in self.edges.into_inner() {
            let at = edge.span().start;
            let edge = edge.into_inner().meaning();
            if edges.iter().any(|other| other.fqdn == edge.fqdn) {
                checker.fault(at, format!("the edge {} is listed twice", edge.fqdn));
            }
            edges.push(edge);
        }
        let mut servers: Vec<Server> = Vec::new();
        for server in self.servers.into_inner() {
            let at = server.span().start;
            let server = server.into_inner();
            let Some(server) = server.meaning(checker, at, &self.fqdn, directory) else {
                continue;
            };
            if servers.iter().any(|other| other.name == server.name) {
                checker.fault(at, format!("the server {} is listed twice", server.name));
            }
            servers.push(server);
        }
        AgentConfig {
            fqdn: self.fqdn,
            instance: self.instance,
            certificate: CertificateFiles {
                chain: directory.join(self.certificate.chain),
                key: directory.join(self.certificate.key),
            },
            ca: directory.join(self.ca),
            revocation: self.revocation,
            crls: self.crls.iter().map(|path| directory.join(path)).collect(),
            token_key: self.token_key.map(|path| directory.join(path)),
            http: self.http.map(|http| Http {
                token: directory.join(http.token),
                ..http
            }),
            socket: directory.join(self.socket),
            state: self.state.map(|path| directory.join(path)),
            admit_users: self.admit_users,
            health: self.health,
            edges,
            servers,
            limits: self.limits,
            log: self.log,
        }
    }
}

fn check_list<T>(checker: &mut Checker<'_>, list: &Spanned<Vec<T>>, key: &str, max: usize) {
    let (at, len) = (list.span().start, list.get_ref().len());
    if len == 0 {
        checker.fault(at, format!("{key} is empty; the agent needs at least one"));
    } else if len > max {
        checker.fault(at, format!("{len} {key}; at most {max} are possible"));
    }
}

impl TypedEdge {
    fn meaning(self) -> Edge {
        let clients = self.clients.unwrap_or_else(|| HostPort {
            host: self.fqdn.clone(),
            port: CLIENTS_PORT,
        });
        Edge {
            fqdn: self.fqdn,
            address: self.address,
            port: self.port,
            clients,
        }
    }
}

impl TypedServer {
    fn meaning(
        self,
        checker: &mut Checker<'_>,
        at: usize,
        agent: &HostName,
        directory: &Path,
    ) -> Option<Server> {
        let kind = match self.kind {
            TypedKind::Server => RegistrationKind::Server,
            TypedKind::Conference => RegistrationKind::Conference,
            TypedKind::Tcp => RegistrationKind::TcpService,
        };
        if !name_fits(&self.name, kind, agent) {
            let what = match kind {
                RegistrationKind::Conference => "no conference id: 8 to 32 letters and digits",
                RegistrationKind::Server | RegistrationKind::TcpService => {
                    "neither the agent's fqdn nor below it, so no edge takes it"
                }
            };
            checker.fault(at, format!("{:?} is {what}", self.name));
        }
        let target_at = self.target.span().start;
        let target = self.target.into_inner();
        let parsed = target
            .parse()
            .map(Target::Address)
            .or_else(|_| target.parse().map(Target::Name));
        match parsed {
            Ok(target) => Some(Server {
                tls: self.tls.and_then(|tls| {
                    let name = tls.name.or_else(|| host_of(&target));
                    if name.is_none() {
                        let message = "tls needs a name where the target is an address";
                        checker.fault(target_at, message);
                    }
                    let ca = directory.join(tls.ca);
                    name.map(|name| TargetTls { ca, name })
                }),
                name: self.name.into(),
                kind,
                target,
                proxy: self.proxy,
                weight: self.weight,
                connections: self.connections,
                token_uses: self.token_uses,
            }),
            Err(error) => {
                checker.fault(target_at, format!("{target:?} is no host:port: {error}"));
                None
            }
        }
    }
}

fn host_of(target: &Target) -> Option<HostName> {
    match target {
        Target::Address(_) => None,
        Target::Name(at) => Some(at.host.clone()),
    }
}

/// As the edge checks it, with the one name that is certain to be in the certificate.
fn name_fits(name: &str, kind: RegistrationKind, agent: &HostName) -> bool {
    match kind {
        RegistrationKind::Server | RegistrationKind::TcpService => name
            .parse::<HostName>()
            .is_ok_and(|name| name.is_within(agent)),
        RegistrationKind::Conference => {
            (8..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
        }
    }
}

/// Line and column of a byte, from 1; the column counts characters.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

/// An array has as many members as a byte can count.
const EDGES_MAX: usize = 256;
/// EWRP/1: servers and services of one agent.
const SERVERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"fqdn = "mcu1.contoso.test"
certificate = { chain = "mcu1.pem", key = "mcu1.key" }
ca = "/etc/ca.pem"
socket = "admit.sock"
edges = [{ fqdn = "edge1.contoso.test", clients = "webconf.contoso.com:443" }]
servers = [{ name = "mcu1.contoso.test", target = "127.0.0.1:6000" }]
"#;

    fn check(text: &str) -> Result<AgentConfig, Vec<Fault>> {
        AgentConfig::check(text, Path::new("/etc/edge"))
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = check(GOOD).expect("a lawful file");
        assert_eq!(config.certificate.chain, Path::new("/etc/edge/mcu1.pem"));
        assert_eq!(config.ca, Path::new("/etc/ca.pem"));
        assert_eq!(config.edges[0].port, 8057);
        assert_eq!(
            config.edges[0].clients.to_string(),
            "webconf.contoso.com:443"
        );
        assert_eq!(config.server(1), Some(&config.servers[0]));
        assert_eq!((config.server(0), config.server(2)), (None, None));
        assert_eq!(config.limits, AgentLimits::default());
    }

    #[test]
    fn clients_find_an_edge_at_443_unless_the_file_says_otherwise() {
        let clients = ", clients = \"webconf.contoso.com:443\"";
        let config = check(&GOOD.replace(clients, "")).expect("a lawful file");
        let offered = config.edges[0].clients.to_string();
        assert_eq!(offered, "edge1.contoso.test:443");
    }

    #[test]
    fn the_example_says_what_the_defaults_are() {
        let text = include_str!("../../../deploy/examples/agent.toml");
        let config = check(text).expect("a lawful file");
        assert_eq!(config.limits, AgentLimits::default());
        assert_eq!(config.log, AgentLog::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (good, wrong, line, column, message) in [
            ("socket =", "sokcet =", 4, 1, "unknown field `sokcet`"),
            (
                "\"mcu1.contoso.test\"\ncert",
                "\"mcu 1\"\ncert",
                1,
                8,
                "' ' is not allowed",
            ),
            (
                "edges = [{",
                "edges = [{ port = 0.5,",
                5,
                19,
                "invalid type",
            ),
            (
                "[{ fqdn = \"edge1.contoso.test\", clients = \"webconf.contoso.com:443\" }]",
                "[]",
                5,
                9,
                "edges is empty",
            ),
            (
                "webconf.contoso.com:443",
                "webconf.contoso.com",
                5,
                51,
                "the port is missing",
            ),
            ("127.0.0.1:6000", "127.0.0.1", 6, 51, "is no host:port"),
            (
                "{ name = \"mcu1.contoso.test\"",
                "{ name = \"mcu2.contoso.test\"",
                6,
                12,
                "neither the agent's fqdn nor below it",
            ),
            (
                "{ name = \"mcu1.contoso.test\"",
                "{ kind = \"conference\", name = \"x\"",
                6,
                12,
                "no conference id",
            ),
            ("fqdn = \"mcu1", "fqdn = mcu1", 1, 8, ""),
            (
                "target =",
                "tls = { ca = \"ca.pem\" }, target =",
                6,
                76,
                "tls needs a name",
            ),
        ] {
            let text = GOOD.replace(good, wrong);
            assert_ne!(text, GOOD, "{good} is not in the file");
            let faults = check(&text).expect_err(wrong);
            let fault = &faults[0];
            assert_eq!(fault.place, Some((line, column)), "{wrong}: {fault}");
            assert!(fault.message.contains(message), "{fault}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let text = GOOD.replace(
            "servers = [",
            "servers = [{ name = \"a.test\", target = \"b\" }, ",
        );
        assert_eq!(check(&text).expect_err("two faults").len(), 2);
    }
}

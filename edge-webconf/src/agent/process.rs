//! The agent as a whole: what its tasks share, its start and its end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::digest;
use edge_common::cert::role::{Role, Wanted};
use edge_common::cert::tls::{self, CrlStore, PeerPolicy, PeerVerifier, Store, TrustStore};
use edge_common::config::ClientEku;
use edge_common::host_name::HostName;
use edge_common::join_token::SigningKey;
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::dial::DialTls;
use edge_common::observe::http::Condition;
use edge_common::observe::metrics::{Counter, Counters, Gauge, Metrics};
use edge_common::private_file;
use edge_common::run::now;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, mpsc};
use zeroize::Zeroizing;

use super::api;
use super::config::{AgentConfig, TargetTls};
use super::edge::{self, EdgeState};
use super::ledger::{Ledger, Line, NUMBERS_MAX};
use super::record;
use crate::ewrp::control::{Hello, Register};
use crate::ewrp::{ALPN_CONTROL, ALPN_DATA, Number, Status, VERSION};
use crate::relay::RelayLimits;

/// What the tasks of the agent share.
#[derive(Debug)]
pub struct Agent {
    /// The one core that it runs on.
    pub core: CoreContext,
    /// The checked file.
    pub config: AgentConfig,
    /// TLS of the connections to the edges and to servers.
    pub tls: AgentTls,
    /// What else is secret.
    pub secrets: AgentSecrets,
    /// What was admitted.
    pub ledger: RefCell<Ledger>,
    /// The edges, in the order of the file.
    pub edges: Vec<EdgeState>,
    /// Who waits for the answers to an ADMIT.
    pub waiting: RefCell<BTreeMap<Number, mpsc::Sender<Answer>>>,
    /// Relayed connections now.
    pub relays: Cell<u32>,
    /// The ledger is not written down as it is.
    changed: Notify,
    /// Holds while an edge has a session with it.
    pub ready: Condition,
    /// What is counted.
    pub counters: AgentCounters,
}

/// One edge's answer to an ADMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its place in the file.
    pub edge: usize,
    /// What it said.
    pub status: Status,
}

/// What the agent reads from files of its own.
#[derive(Debug, Default)]
pub struct AgentSecrets {
    /// Signs tokens.
    pub token_key: Option<SigningKey>,
    /// What a request over TCP has to bear.
    pub bearer: Option<Zeroizing<Vec<u8>>>,
}

impl AgentSecrets {
    /// Reads what the file names.
    pub fn load(config: &AgentConfig) -> anyhow::Result<Self> {
        let read = |path: &Path| {
            let what = || path.display().to_string();
            private_file::read(path, SECRET_LEN_MAX).with_context(what)
        };
        let token_key = match &config.token_key {
            Some(path) => {
                let key = SigningKey::from_pem(&read(path)?);
                Some(key.with_context(|| path.display().to_string())?)
            }
            None => None,
        };
        let bearer = match &config.http {
            Some(http) => {
                let bearer = Zeroizing::new(read(&http.token)?.trim_ascii().to_vec());
                let (path, len) = (http.token.display(), bearer.len());
                anyhow::ensure!(
                    len >= BEARER_LEN_MIN,
                    "{path}: {len} characters; a bearer token has at least {BEARER_LEN_MIN}"
                );
                Some(bearer)
            }
            None => None,
        };
        Ok(Self { token_key, bearer })
    }
}

/// TLS of the connections to the edges, which differ in ALPN only, and to servers.
#[derive(Clone, Debug)]
pub struct AgentTls {
    certificates: Arc<Store>,
    /// For control connections.
    pub control: Arc<ClientConfig>,
    /// For data connections.
    pub data: Arc<ClientConfig>,
    /// For the servers that are reached by TLS, in the order of the file.
    pub targets: Vec<Option<DialTls>>,
    crls: Arc<CrlStore>,
    crl_files: Vec<PathBuf>,
}

impl AgentTls {
    /// Loads the certificate of the agent and the CA of the edges.
    pub fn load(config: &AgentConfig) -> anyhow::Result<Self> {
        let files = std::slice::from_ref(&config.certificate);
        let wanted = Wanted::new(Role::Internal, [config.fqdn.clone()]);
        let (certificates, problems) = Store::load(files, wanted, now().unix)?;
        for problem in problems {
            tracing::warn!(%problem, "the agent's certificate");
        }
        let crls = CrlStore::load(&config.crls)?;
        let verifier = |ca: &Path| -> anyhow::Result<Arc<PeerVerifier>> {
            let policy = PeerPolicy {
                client_eku: ClientEku::ClientOrServer,
                revocation: config.revocation,
            };
            let trust = TrustStore::from_pem_file(ca)?;
            Ok(PeerVerifier::new(trust, policy, Arc::clone(&crls)))
        };
        let edges = verifier(&config.ca)?;
        let dialer = |alpn| tls::dialer(Arc::clone(&certificates), Arc::clone(&edges), &[alpn]);
        let target = |tls: &TargetTls| -> anyhow::Result<DialTls> {
            Ok(DialTls {
                config: tls::anonymous_dialer(verifier(&tls.ca)?, &[]),
                name: server_name(&tls.name)?,
            })
        };
        let targets = config.servers.iter();
        Ok(Self {
            control: dialer(ALPN_CONTROL),
            data: dialer(ALPN_DATA),
            targets: targets
                .map(|server| server.tls.as_ref().map(target).transpose())
                .collect::<Result<_, _>>()?,
            certificates,
            crl_files: config.crls.clone(),
            crls,
        })
    }

    /// Reads the certificate and the revocation lists again; connections that are there stay.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.crls.reload(&self.crl_files)?;
        self.certificates.reload(now().unix)?;
        Ok(())
    }
}

fn server_name(name: &HostName) -> anyhow::Result<ServerName<'static>> {
    Ok(ServerName::try_from(name.as_str().to_owned())?)
}

/// What the agent counts.
#[derive(Debug)]
pub struct AgentCounters {
    /// Bytes from clients to servers.
    pub relayed_in: Counter,
    /// Bytes from servers to clients.
    pub relayed_out: Counter,
    /// OPENs, by the answer.
    pub opens: Counters<1>,
    /// Answers to `POST /admit`, by HTTP status.
    pub admissions: Counters<1>,
    /// Data connections that could not be dialled.
    pub dials_failed: Counter,
    /// Times that the ledger was not written down.
    pub writes_failed: Counter,
    /// Control sessions that are up.
    pub sessions: Gauge,
    /// Relayed connections.
    pub relays: Gauge,
}

impl AgentCounters {
    /// Under the names of the agent.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let relayed = metrics.counters(
            "relayed_bytes",
            "Bytes of relayed streams; in is from clients to servers",
            ["direction"],
        );
        Self {
            relayed_in: relayed.with(["in"]),
            relayed_out: relayed.with(["out"]),
            opens: metrics.counters(
                "opens",
                "Clients that edges handed over, by the answer",
                ["status"],
            ),
            admissions: metrics.counters(
                "admit_requests",
                "Answers to POST /admit, by HTTP status",
                ["status"],
            ),
            dials_failed: metrics
                .counter("dials_failed", "Data connections that could not be opened"),
            writes_failed: metrics.counter(
                "state_writes_failed",
                "Times that the numbers could not be written down",
            ),
            sessions: metrics.gauge("sessions", "Control sessions with edges"),
            relays: metrics.gauge("relays", "Relayed connections"),
        }
    }
}

impl Agent {
    /// Puts the parts together; nothing runs yet.
    #[must_use]
    pub fn new(
        core: CoreContext,
        config: AgentConfig,
        tls: AgentTls,
        secrets: AgentSecrets,
        ready: Condition,
        metrics: &Metrics,
    ) -> Rc<Self> {
        Rc::new(Self {
            core,
            ready,
            tls,
            secrets,
            ledger: RefCell::new(Ledger::new(NUMBERS_MAX)),
            edges: config.edges.iter().cloned().map(EdgeState::new).collect(),
            waiting: RefCell::default(),
            relays: Cell::new(0),
            changed: Notify::new(),
            counters: AgentCounters::new(metrics),
            config,
        })
    }

    /// Enters what an earlier run has written down; edges are told of it when they are there.
    pub fn recall(&self, lines: &[Line]) {
        let (now, mut ledger) = (now(), self.ledger.borrow_mut());
        let recalled = lines.iter().filter(|line| ledger.restore(now, line));
        let numbers = recalled.count();
        tracing::info!(numbers, "numbers of the last run");
    }

    /// The ledger has changed.
    pub fn note(&self) {
        self.changed.notify_one();
    }

    /// Writes the ledger down a little after each change, for as long as the agent runs.
    async fn keep_record(self: Rc<Self>) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(BETWEEN_WRITES).await;
            self.write_down().await;
        }
    }

    async fn write_down(&self) {
        let Some(file) = self.config.state.clone() else {
            return;
        };
        self.ledger.borrow_mut().expire(now().mono);
        let text = record::text(self.ledger.borrow().lines(now()), &self.config);
        let text = Zeroizing::new(text);
        let written = tokio::task::spawn_blocking(move || record::write(&file, &text)).await;
        if let Ok(Err(error)) = written {
            self.counters.writes_failed.inc();
            tracing::error!(%error, "the numbers are not written down");
        }
    }

    /// Runs until the core is told to stop; at a drain it lets relays end.
    pub async fn run(self: Rc<Self>, socket: UnixListener, http: Option<TcpListener>) {
        for index in 0..self.edges.len() {
            self.core.spawn(edge::keep_up(Rc::clone(&self), index));
        }
        self.core.spawn(Rc::clone(&self).keep_record());
        let api = self.core.spawn(api::serve(Rc::clone(&self), socket));
        let http = http.map(|http| self.core.spawn(api::serve_tcp(Rc::clone(&self), http)));
        self.core.draining().await;
        if let Some(http) = http {
            http.abort();
        }
        api.abort();
        self.drain().await;
    }

    /// No new clients, and time for those that are there; then the edges are told that it was no accident.
    async fn drain(&self) {
        let within = self.config.limits.drain_timeout;
        for edge in &self.edges {
            edge.drain(within);
        }
        // A client may be on its way until the edge has said that there is none.
        let acknowledged = async {
            while !self.edges.iter().all(EdgeState::is_drained) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = acknowledged => {}
            () = tokio::time::sleep(FAREWELL) => tracing::warn!("an edge does not acknowledge the drain"),
            () = self.core.stopping() => {}
        }
        let idle = async {
            while self.relays.get() > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = idle => {}
            () = tokio::time::sleep(within) => {}
            () = self.core.stopping() => {}
        }
        for edge in &self.edges {
            edge.goodbye();
        }
        self.write_down().await;
        tokio::select! {
            () = self.core.streams_ended() => {}
            () = tokio::time::sleep(FAREWELL) => tracing::debug!("connections are left"),
        }
    }

    /// Relays have the bounds of the file.
    #[must_use]
    pub fn relay_limits(&self) -> RelayLimits {
        let limits = &self.config.limits;
        RelayLimits {
            buffer: limits.relay_buffer,
            idle_timeout: limits.idle_timeout,
            half_close_timeout: limits.half_close_timeout,
        }
    }

    /// What a new control connection says first. The epoch is the time: it grows over restarts.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            agent_id: agent_id(&self.config),
            epoch: now().unix.as_millis(),
            caps: 0,
            max_conns: self.config.limits.connections,
            fqdn: self.config.fqdn.as_str().into(),
        }
    }

    /// What it registers.
    #[must_use]
    pub fn registrations(&self) -> Vec<Register> {
        let servers = self.config.servers.iter().enumerate();
        servers
            .map(|(index, server)| Register {
                reg_id: AgentConfig::reg_id(index),
                kind: server.kind,
                weight: server.weight,
                max_conns: server.connections,
                ttl_s: 0,
                name: server.name.clone(),
            })
            .collect()
    }
}

/// The same after a restart, so that the edge knows the old session for dead.
fn agent_id(config: &AgentConfig) -> [u8; 16] {
    let text = format!("edge-webconf-agent\n{}\n{}", config.fqdn, config.instance);
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    id
}

/// Binds the socket of the API; a stale one of an earlier run is replaced.
pub fn bind_socket(config: &AgentConfig) -> anyhow::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    let path = &config.socket;
    let what = || format!("the socket {}", path.display());
    if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
        std::fs::remove_file(path).with_context(what)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).with_context(what)?;
    let mode = std::fs::Permissions::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode).with_context(what)?;
    listener.set_nonblocking(true).with_context(what)?;
    Ok(listener)
}

/// What a run that is cut short has not written down; a change waits so long for others.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// For the answers to DRAIN to come, and for GOAWAY and `close_notify` to leave.
const FAREWELL: Duration = Duration::from_secs(1);
const SECRET_LEN_MAX: u64 = 16 * 1024;
/// 128 bits, written in hex digits.
const BEARER_LEN_MIN: usize = 32;
/// Who gets as far as the check of the user id.
const SOCKET_MODE: u32 = 0o660;

//! The agent as a whole: what its tasks share, its start and its end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::digest;
use edge_common::cert::role::{Role, Wanted};
use edge_common::cert::tls::{self, CrlStore, PeerPolicy, PeerVerifier, Store, TrustStore};
use edge_common::config::{ClientEku, Revocation};
use edge_common::net::core_runtime::CoreContext;
use edge_common::observe::http::Condition;
use edge_common::observe::metrics::{Counter, Counters, Gauge, Metrics};
use edge_common::run::now;
use rustls::ClientConfig;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::api;
use super::config::AgentConfig;
use super::edge::{self, EdgeState};
use super::ledger::{Ledger, NUMBERS_MAX};
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
    /// TLS of the connections to the edges.
    pub tls: AgentTls,
    /// What was admitted.
    pub ledger: RefCell<Ledger>,
    /// The edges, in the order of the file.
    pub edges: Vec<EdgeState>,
    /// Who waits for the answers to an ADMIT.
    pub waiting: RefCell<BTreeMap<Number, mpsc::Sender<Answer>>>,
    /// Relayed connections now.
    pub relays: Cell<u32>,
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

/// TLS of the connections to the edges: they differ in ALPN only.
#[derive(Clone, Debug)]
pub struct AgentTls {
    certificates: Arc<Store>,
    /// For control connections.
    pub control: Arc<ClientConfig>,
    /// For data connections.
    pub data: Arc<ClientConfig>,
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
        let verifier = PeerVerifier::new(
            TrustStore::from_pem_file(&config.ca)?,
            PeerPolicy {
                client_eku: ClientEku::ClientOrServer,
                revocation: Revocation::Off,
            },
            CrlStore::empty(),
        );
        let dialer = |alpn| tls::dialer(Arc::clone(&certificates), Arc::clone(&verifier), &[alpn]);
        Ok(Self {
            control: dialer(ALPN_CONTROL),
            data: dialer(ALPN_DATA),
            certificates,
        })
    }

    /// Reads the certificate again; connections that are there stay.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.certificates.reload(now().unix)?;
        Ok(())
    }
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
        ready: Condition,
        metrics: &Metrics,
    ) -> Rc<Self> {
        Rc::new(Self {
            core,
            ready,
            tls,
            ledger: RefCell::new(Ledger::new(NUMBERS_MAX)),
            edges: config.edges.iter().cloned().map(EdgeState::new).collect(),
            waiting: RefCell::default(),
            relays: Cell::new(0),
            counters: AgentCounters::new(metrics),
            config,
        })
    }

    /// Runs until the core is told to stop; at a drain it lets relays end.
    pub async fn run(self: Rc<Self>, socket: UnixListener) {
        for index in 0..self.edges.len() {
            self.core.spawn(edge::keep_up(Rc::clone(&self), index));
        }
        let api = self.core.spawn(api::serve(Rc::clone(&self), socket));
        self.core.draining().await;
        api.abort();
        self.drain().await;
    }

    /// No new clients, and time for those that are there.
    async fn drain(&self) {
        let within = self.config.limits.drain_timeout;
        for edge in &self.edges {
            edge.drain(within);
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
                weight: 100,
                max_conns: 0,
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

/// Who gets as far as the check of the user id.
const SOCKET_MODE: u32 = 0o660;

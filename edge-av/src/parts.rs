//! Puts the parts together: what the configuration says becomes sockets, keys, servers and cores.

use std::cell::RefCell;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edge_common::cert::role::{Role, Wanted};
use edge_common::cert::tls::{self, ArrayTickets, PeerVerifier, Store};
use edge_common::config::{Av, AvLimits, Config};
use edge_common::limit::{Cap, HashKey, Rate, SourceCap, SourceRate};
use edge_common::net::accept::{self, Door, Gate, GateLimits, Security};
use edge_common::net::bind::{Bind, BindError, TcpOptions};
use edge_common::net::core_runtime::{CoreContext, Cores, core_count};
use edge_common::net::mailbox::{self, Mailboxes};
use edge_common::observe::metrics::Metrics;
use edge_common::ports::{self, PortRange, Purpose};
use edge_common::random::{Random as _, SystemRandom};
use edge_common::secret::{Label, Secrets};
use edge_common::secret_files;
use edge_common::side::{Side, SidePair};
use edge_common::time::Now;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::credentials::Credentials;
use crate::mras::service::Service;
use crate::mras_listener;
use crate::observe::{Figures, MrasFigures};
use crate::relay::crossing::{Crossings, ToShard};
use crate::relay::poller::Poller;
use crate::relay::shard::{self, Rules, Shard, shard_of};
use crate::relay::sockets::Sockets;
use crate::relay::tcp;
use crate::turn::authority::Authority;
use crate::turn::five_tuple::{Listener, ListenerId, Transport};
use crate::turn::nonce::Nonces;
use crate::turn::peer_policy::PeerPolicy;
use crate::turn::port_pool::PortPool;
use crate::turn::quota::UserQuota;
use crate::turn::relayed::FamilyPair;
use crate::turn::{Server, Settings, Shared};

/// All that the cores are started with.
#[derive(Debug)]
pub struct Parts {
    /// What the servers decide by.
    pub settings: Arc<Settings>,
    /// What the servers share.
    pub shared: Shared,
    /// Where clients arrive, in the order of `settings.listeners`.
    pub binds: Vec<Bind>,
    /// The interface of relayed sockets.
    pub relay_interface: Option<String>,
    /// For TURN over TLS.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    /// The A/V authentication service, when it is wanted.
    pub mras: Option<Mras>,
    /// Who speaks for others, on each side, and must say for whom.
    pub balancers: Vec<IpNet>,
    /// Client connections at once.
    pub tcp_connections: usize,
    /// Messages that wait between two cores.
    pub mailbox: usize,
    /// Cores; 0 for all.
    pub cores: usize,
}

/// The A/V authentication service and where it is asked.
#[derive(Debug)]
pub struct Mras {
    /// What answers.
    pub service: Arc<ArcSwap<Service>>,
    /// Where it listens.
    pub binds: Vec<Bind>,
    /// How it proves itself and whom it believes.
    pub tls: Arc<ArcSwap<ServerConfig>>,
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has no `[av]`.
    #[error("there is no [av] in the configuration: this host runs no A/V Edge")]
    NotHere,
    /// A key, certificate or secret.
    #[error(transparent)]
    Secret(#[from] secret_files::SecretFileError),
    /// A certificate or list.
    #[error(transparent)]
    Load(#[from] edge_common::cert::store::LoadError),
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread.
    #[error("the cores cannot be started: {0}")]
    Cores(#[from] io::Error),
}

/// What only a restart can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be changed while the daemon runs; restart it")]
pub struct NeedsRestart(&'static str);

/// Changes what running cores decide by.
#[derive(Debug)]
pub struct Changes {
    common: Arc<Common>,
    rules: watch::Sender<Rules>,
}

impl Changes {
    /// Puts what `new` says in force for all that comes from now on; allocations stay as they are.
    ///
    /// Limits of one allocation change at once. Those that all cores share have tables of their size and stay.
    pub fn apply(&self, new: Parts) -> Result<(), NeedsRestart> {
        let old = &self.common.parts;
        let same = |what, same: bool| {
            if same {
                Ok(())
            } else {
                Err(NeedsRestart(what))
            }
        };
        let range = |parts: &Parts| (parts.shared.ports.v4.first(), parts.shared.ports.v4.len());
        same(
            "a listener's address",
            old.binds == new.binds && old.settings.listeners == new.settings.listeners,
        )?;
        same("the range of relay ports", range(old) == range(&new))?;
        same(
            "whether TURN is offered over TLS",
            old.tls.is_some() == new.tls.is_some(),
        )?;
        if old.settings.limits != new.settings.limits {
            tracing::warn!(
                "limits of allocations, users, sources and connections change with the next start"
            );
        }
        if let (Some(old), Some(new)) = (&old.tls, &new.tls) {
            old.store(new.load_full());
        }
        if let (Some(old), Some(new)) = (&old.mras, &new.mras) {
            old.tls.store(new.tls.load_full());
            old.service.store(new.service.load_full());
        }
        self.rules.send_replace(new.rules());
        Ok(())
    }

    /// Allocations of all cores.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.common.parts.shared.allocations.used()
    }

    /// Relay ports of both families that are in use.
    #[must_use]
    pub fn ports_in_use(&self) -> u32 {
        let ports = &self.common.parts.shared.ports;
        ports.v4.taken() + ports.v6.taken()
    }
}

impl Parts {
    /// Reads the files that the configuration names and derives everything from them.
    pub fn load(config: &Config, now: Now) -> Result<Self, StartError> {
        let av = config.av.as_ref().ok_or(StartError::NotHere)?;
        let secrets = secret_files::array_secrets(&config.array.secrets)?;
        let internal = load_store(config, &config.internal.certificates, Role::Internal, now)?;
        let external = (!av.certificates.is_empty())
            .then(|| load_store(config, &av.certificates, Role::AvExternal, now))
            .transpose()?;
        let credentials = Arc::new(load_credentials(
            config,
            av,
            &internal,
            external.as_ref(),
            now,
        )?);
        let turn = config
            .listeners()
            .into_iter()
            .filter(|listener| purpose_of(listener).is_some());
        let (listeners, binds) = turn
            .filter_map(|listener| Some((purpose_of(&listener)?, bind_of(&listener))))
            .unzip();
        let authority: Arc<dyn Authority> = Arc::<Credentials>::clone(&credentials);
        Ok(Self {
            settings: Arc::new(Settings {
                realm: av.realm.clone(),
                listeners,
                policy: PeerPolicy::new(config, av),
                limits: av.limits.clone(),
            }),
            shared: shared(&av.limits, av.relay_ports, authority, &secrets, now),
            binds,
            relay_interface: Some(config.external.interface.clone()),
            tls: external.map(|store| {
                let tickets = ArrayTickets::new(&secrets, tls::system_clock());
                Arc::new(ArcSwap::new(tls::client_listener(store, tickets)))
            }),
            mras: Some(load_mras(config, av, credentials, internal)?),
            balancers: Side::BOTH
                .into_iter()
                .flat_map(|side| {
                    config.array.balancers[side]
                        .iter()
                        .copied()
                        .map(IpNet::from)
                })
                .collect(),
            tcp_connections: av.limits.tcp_connections,
            mailbox: av.limits.mailbox,
            cores: config.runtime.cores,
        })
    }

    /// Opens every socket and starts the cores: when this returns, clients are served.
    pub fn start(self, metrics: &Metrics, now: Now) -> Result<(Cores, Changes), StartError> {
        let cores = core_count(self.cores);
        let seeds = self.seeds(cores)?;
        self.watch(metrics);
        let gate = |name, limits| Gate::new(name, limits, hash_key(), now, metrics);
        let clients = gate_limits(self.tcp_connections);
        let gates = Gates {
            turn: SidePair {
                external: gate("turn_external", clients),
                internal: gate("turn_internal", clients),
            },
            mras: gate("mras", GateLimits::default()),
        };
        let (rules, seen) = watch::channel(self.rules());
        let common = Arc::new(Common {
            parts: self,
            metrics: metrics.clone(),
            gates,
        });
        let changes = Changes {
            common: Arc::clone(&common),
            rules,
        };
        let cores = Cores::start_with("av", seeds, move |core, seed| {
            let (common, seen) = (Arc::clone(&common), seen.clone());
            async move {
                if let Err(error) = serve(core, seed, &common, seen).await {
                    tracing::error!(%error, "a core of the relay has ended");
                }
            }
        })?;
        Ok((cores, changes))
    }

    fn rules(&self) -> Rules {
        Rules {
            settings: Arc::clone(&self.settings),
            authority: Arc::clone(&self.shared.authority),
            nonces: Arc::clone(&self.shared.nonces),
        }
    }

    fn seeds(&self, cores: usize) -> Result<Vec<Seed>, BindError> {
        let mailboxes = mailbox::mesh(cores, self.mailbox);
        let mut seeds: Vec<Seed> = mailboxes.into_iter().map(Seed::new).collect();
        for (listener, bind) in self.settings.listeners.iter().zip(&self.binds) {
            match listener.transport {
                Transport::Udp => {
                    for (seed, socket) in seeds.iter_mut().zip(bind.udp_sockets(cores)?) {
                        enlarge(&socket);
                        seed.udp.push(Some(socket));
                    }
                }
                Transport::Tcp => {
                    for (seed, socket) in seeds.iter_mut().zip(bind.tcp_listeners(cores)?) {
                        seed.tcp.push((ListenerId(seed.udp.len() as u8), socket));
                        seed.udp.push(None);
                    }
                }
            }
        }
        for bind in self.mras.iter().flat_map(|mras| &mras.binds) {
            for (seed, socket) in seeds.iter_mut().zip(bind.tcp_listeners(cores)?) {
                seed.mras.push(socket);
            }
        }
        Ok(seeds)
    }

    fn watch(&self, metrics: &Metrics) {
        let ports = Arc::clone(&self.shared.ports);
        let in_use = move || i64::from(ports.v4.taken()) + i64::from(ports.v6.taken());
        metrics
            .gauges("relay_ports", "Relay ports in use", [])
            .watch([], in_use);
    }
}

/// What one core begins with.
struct Seed {
    udp: Vec<Option<UdpSocket>>,
    tcp: Vec<(ListenerId, TcpListener)>,
    mras: Vec<TcpListener>,
    mailboxes: Mailboxes<ToShard>,
}

impl Seed {
    const fn new(mailboxes: Mailboxes<ToShard>) -> Self {
        Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            mras: Vec::new(),
            mailboxes,
        }
    }
}

/// What all cores look at.
#[derive(Debug)]
struct Common {
    parts: Parts,
    metrics: Metrics,
    gates: Gates,
}

#[derive(Debug)]
struct Gates {
    turn: SidePair<Gate>,
    mras: Gate,
}

/// What one core does.
async fn serve(
    core: CoreContext,
    seed: Seed,
    common: &Common,
    rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    let (parts, id) = (&common.parts, shard_of(&core));
    let Mailboxes { inbox, outbox } = seed.mailboxes;
    let poller = Poller::new()?;
    let shard = Rc::new(RefCell::new(Shard::new(
        Server::new(
            id,
            Arc::clone(&parts.settings),
            parts.shared.clone(),
            Box::new(SystemRandom),
        ),
        Sockets::new(seed.udp, Arc::clone(&parts.shared.ports)),
        Crossings::new(id, outbox, parts.mailbox),
        poller.registrar(),
        parts.relay_interface.clone(),
        Figures::new(&common.metrics, id),
    )?));
    for (listener, socket) in seed.tcp {
        let (shard, tls) = (Rc::clone(&shard), parts.tls.clone());
        let side = parts.settings.listeners[usize::from(listener.0)].side;
        let door = door(Security::Plain, parts.balancers.clone());
        let serve = accept::serve(
            core.clone(),
            socket,
            common.gates.turn[side].clone(),
            door,
            move |stream| tcp::serve(Rc::clone(&shard), listener, stream, tls.clone()),
        );
        spawn(&core, "turn", serve);
    }
    if let Some(mras) = &parts.mras {
        for socket in seed.mras {
            let door = door(Security::Tls(Arc::clone(&mras.tls)), Vec::new());
            let (service, figures) = (Arc::clone(&mras.service), MrasFigures::new(&common.metrics));
            let serve = accept::serve(
                core.clone(),
                socket,
                common.gates.mras.clone(),
                door,
                move |stream| mras_listener::serve(service.load_full(), figures.clone(), stream),
            );
            spawn(&core, "mras", serve);
        }
    }
    shard::run(core, shard, poller, inbox, rules).await
}

fn spawn(
    core: &CoreContext,
    listener: &'static str,
    serve: impl Future<Output = io::Result<()>> + 'static,
) {
    core.spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!(listener, %error, "a listener has ended");
        }
    });
}

fn door(security: Security, balancers: Vec<IpNet>) -> Door {
    Door {
        security,
        balancers,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        stream: tcp::stream_options(),
        tcp: TcpOptions::default(),
    }
}

/// The handles that all shards hold.
#[must_use]
pub fn shared(
    limits: &AvLimits,
    range: PortRange,
    authority: Arc<dyn Authority>,
    secrets: &Secrets,
    now: Now,
) -> Shared {
    let per_source = u32::try_from(limits.allocations_per_source).unwrap_or(u32::MAX);
    let answers = u32::try_from(limits.stranger_answers_per_second).unwrap_or(u32::MAX);
    let rate = Rate {
        per_second: answers,
        burst: answers,
    };
    Shared {
        ports: Arc::new(FamilyPair::from_fn(|_| PortPool::new(range))),
        allocations: Cap::new("allocations", limits.allocations),
        users: UserQuota::new(limits.allocations, limits.allocations_per_user),
        sources: SourceCap::new(hash_key(), limits.allocations * 4, per_source),
        strangers: SourceRate::new(hash_key(), STRANGER_SLOTS, rate, now),
        authority,
        nonces: Arc::new(Nonces::new(&secrets.derive(Label::TurnNonce))),
    }
}

fn load_store(
    config: &Config,
    files: &[edge_common::config::CertificateFiles],
    role: Role,
    now: Now,
) -> Result<Arc<Store>, StartError> {
    let wanted = Wanted::of(config, role).ok_or(StartError::NotHere)?;
    let (store, problems) = Store::load(files, wanted, now.unix)?;
    for problem in problems {
        tracing::warn!(%problem, "certificate");
    }
    Ok(store)
}

fn load_credentials(
    config: &Config,
    av: &Av,
    internal: &Store,
    external: Option<&Arc<Store>>,
    now: Now,
) -> Result<Credentials, StartError> {
    let wanted = Wanted::of(config, Role::AvAuthentication).ok_or(StartError::NotHere)?;
    let shown = [Some(internal.pairs()), external.map(|store| store.pairs())];
    let mut problems = Vec::new();
    let mut ring = None;
    // The key that mints may not be the key of any listener.
    for pairs in shown.iter().flatten() {
        let (read, more) = secret_files::av_key_ring(&av.authentication, &wanted, pairs, now.unix)?;
        (ring, problems) = (Some(read), more);
    }
    for problem in problems {
        tracing::warn!(%problem, "A/V authentication certificate");
    }
    Ok(Credentials {
        ring: ring.ok_or(StartError::NotHere)?,
        rest: av
            .rest_secrets
            .as_ref()
            .map(secret_files::rest_secrets)
            .transpose()?,
    })
}

fn load_mras(
    config: &Config,
    av: &Av,
    credentials: Arc<Credentials>,
    internal: Arc<Store>,
) -> Result<Mras, StartError> {
    let verifier = PeerVerifier::inside(&config.internal)?;
    let binds = config
        .listeners()
        .into_iter()
        .filter(|listener| listener.purpose == Purpose::Mras);
    Ok(Mras {
        service: Arc::new(ArcSwap::from_pointee(Service::new(config, av, credentials))),
        binds: binds.map(|listener| bind_of(&listener)).collect(),
        tls: Arc::new(ArcSwap::new(tls::mutual_listener(internal, verifier, &[]))),
    })
}

fn purpose_of(listener: &ports::Listener) -> Option<Listener> {
    let transport = match listener.purpose {
        Purpose::TurnUdp => Transport::Udp,
        Purpose::TurnTcp => Transport::Tcp,
        Purpose::Client
        | Purpose::Federation
        | Purpose::Internal
        | Purpose::NextHop
        | Purpose::Dns
        | Purpose::Crl
        | Purpose::Conference
        | Purpose::Agent
        | Purpose::Relay
        | Purpose::Mras
        | Purpose::TurnRest
        | Purpose::Health
        | Purpose::Link => return None,
    };
    Some(Listener {
        transport,
        side: listener.side,
        local: listener.address,
    })
}

fn bind_of(listener: &ports::Listener) -> Bind {
    Bind::on(listener.address, listener.interface.clone())
}

fn gate_limits(connections: usize) -> GateLimits {
    GateLimits {
        connections,
        ..GateLimits::default()
    }
}

fn hash_key() -> HashKey {
    let mut key = HashKey::default();
    SystemRandom.fill(&mut key);
    key
}

/// All clients of a core share one socket: it has to hold what arrives while the core is busy elsewhere.
fn enlarge(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    if let Err(error) = socket
        .set_recv_buffer_size(SOCKET_BUFFER)
        .and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER))
    {
        tracing::debug!(%error, "a socket keeps its buffers as they are");
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Enough for 16 000 sources at once before two of them share both of their slots by accident.
const STRANGER_SLOTS: usize = 64 * 1024;
/// The kernel gives what its own limit allows.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

//! Opens the sockets, starts the cores, and changes what they decide by while they run.

use std::cell::RefCell;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use edge_common::config::AvLimits;
use edge_common::limit::Rate;
use edge_common::net::accept::{self, Door, Gate, GateLimits, Security};
use edge_common::net::bind::{BindError, TcpOptions};
use edge_common::net::core_runtime::{CoreContext, Cores, core_count};
use edge_common::net::mailbox::{self, Mailboxes};
use edge_common::observe::metrics::Metrics;
use edge_common::random::SystemRandom;
use edge_common::run;
use edge_common::side::SidePair;
use edge_common::time::Now;
use ipnet::IpNet;
use tokio::sync::watch;

use crate::mras_listener;
use crate::observe::{Figures, MrasFigures};
use crate::parts::{Parts, StartError, hash_key};
use crate::relay::crossing::{Crossings, ToShard};
use crate::relay::poller::Poller;
use crate::relay::shard::{self, Rules, Shard, shard_of};
use crate::relay::sockets::Sockets;
use crate::relay::tcp::{self, Patience};
use crate::turn::five_tuple::{ListenerId, Transport};
use crate::turn::{Server, Shared};

impl Parts {
    /// Opens every socket and starts the cores: when this returns, clients are served.
    pub fn start(self, metrics: &Metrics, now: Now) -> Result<(Cores, Changes), StartError> {
        let cores = core_count(self.cores);
        let seeds = self.seeds(cores)?;
        self.watch(metrics);
        if let Some(seed) = seeds.first() {
            seed.mailboxes.outbox.show_in(metrics);
        }
        let gate = |name, limits| Gate::new(name, limits, hash_key(), now, metrics);
        let limits = &self.settings.limits;
        let clients = gate_limits(
            limits,
            limits.tcp_connections,
            limits.tcp_connections_per_source,
        );
        // Few servers, all of them ours.
        let servers = gate_limits(limits, limits.mras_connections, limits.mras_connections);
        let gates = Gates {
            turn: SidePair {
                external: gate("turn_external", clients),
                internal: gate("turn_internal", clients),
            },
            mras: gate("mras", servers),
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
        self.watch_tables(metrics);
    }

    fn watch_tables(&self, metrics: &Metrics) {
        let Shared {
            users,
            sources,
            strangers,
            stream_strangers,
            ..
        } = self.shared.clone();
        let slots = metrics.gauges("table_slots", "Slots of a table", ["table"]);
        let used = metrics.gauges("table_slots_used", "Slots of it in use", ["table"]);
        let each = [
            ("users", users.slots()),
            ("sources", sources.slots()),
            ("strangers", strangers.slots()),
            ("stream_strangers", stream_strangers.slots()),
        ];
        for (table, count) in each {
            slots.with([table]).set(count as i64);
        }
        used.watch(["users"], move || users.users() as i64);
        used.watch(["sources"], move || sources.slots_used() as i64);
        used.watch(["strangers"], move || {
            strangers.slots_used(run::now()) as i64
        });
        used.watch(["stream_strangers"], move || {
            stream_strangers.slots_used(run::now()) as i64
        });
    }
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
        let gate = common.gates.turn[side].clone();
        let patience = Patience::from(&parts.settings.limits);
        let serve = accept::serve(core.clone(), socket, gate.clone(), door, move |stream| {
            tcp::serve(
                Rc::clone(&shard),
                listener,
                stream,
                gate.clone(),
                patience,
                tls.clone(),
            )
        });
        spawn(&core, "turn", serve);
    }
    if let Some(mras) = &parts.mras {
        for socket in seed.mras {
            let door = Door {
                stream: mras_listener::stream_options(),
                ..door(
                    Security::Tls(Arc::clone(&mras.tls)),
                    parts.balancers.clone(),
                )
            };
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

fn gate_limits(limits: &AvLimits, connections: usize, per_source: usize) -> GateLimits {
    GateLimits {
        connections,
        per_source: u32::try_from(per_source).unwrap_or(u32::MAX),
        source_rate: Rate {
            per_second: limits.connections_per_second_per_source,
            burst: limits.connections_burst_per_source,
        },
        handshakes: limits.handshakes,
        handshakes_per_source: u32::try_from(limits.handshakes_per_source).unwrap_or(u32::MAX),
    }
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
/// The kernel gives what its own limit allows.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

//! The ways in: remote users, partners and servers inside each have their own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edge_common::cert::identity::KeyFingerprint;
use edge_common::cert::tls::PeerVerifier;
use edge_common::config::{AccessLimits, Config, Internal};
use edge_common::host_name::HostName;
use edge_common::limit::{Cap, HashKey, Rate};
use edge_common::net::accept::{self, Door, Gate, GateLimits, Security};
use edge_common::net::bind::{Bind, BindError, TcpOptions};
use edge_common::net::stream::Stream;
use edge_common::observe::metrics::Metrics;
use edge_common::ports::{Purpose, Service};
use edge_common::run;
use edge_common::side::{Side, SidePair};
use edge_common::sip::framer::Opener;
use ipnet::IpNet;
use rustls::pki_types::UnixTime;

use crate::connector::{client_stream, identity, partner, server_stream};
use crate::flow::Core;
use crate::proxy::flow::{Partner, Peer, Standing};
use crate::tls::Tls;

/// Who comes in by a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entrance {
    /// Remote and anonymous users.
    Client,
    /// Partners' edges.
    Federation,
    /// Servers inside.
    Internal,
    /// Other members of the array.
    Link,
}

impl Entrance {
    const ALL: [Self; 4] = [Self::Client, Self::Federation, Self::Internal, Self::Link];

    const fn purpose(self) -> Purpose {
        match self {
            Self::Client => Purpose::Client,
            Self::Federation => Purpose::Federation,
            Self::Internal => Purpose::Internal,
            Self::Link => Purpose::Link,
        }
    }

    const fn side(self) -> Side {
        match self {
            Self::Client | Self::Federation => Side::External,
            Self::Internal | Self::Link => Side::Internal,
        }
    }

    /// The label of its counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Federation => "federation",
            Self::Internal => "internal",
            Self::Link => "link",
        }
    }
}

/// One listening socket of one core with all that belongs to it.
#[derive(Debug)]
pub struct Listening {
    entrance: Entrance,
    socket: std::net::TcpListener,
    gate: Gate,
    door: Door,
}

/// Binds every socket, for `cores` cores; they are served when all of them are there.
pub fn bind(
    config: &Config,
    limits: &AccessLimits,
    tls: &Tls,
    key: HashKey,
    cores: usize,
    metrics: &Metrics,
) -> Result<Vec<Vec<Listening>>, BindError> {
    let mut bound: Vec<Vec<Listening>> = (0..cores).map(|_| Vec::new()).collect();
    let listeners = config.listeners();
    // Clients and partners share what is open at once; servers inside have as much for themselves, so that a flood
    // outside shuts out no Director.
    let caps = SidePair {
        external: Cap::new("access.limits.connections", limits.connections),
        internal: Cap::new("access.limits.connections", limits.connections),
    };
    for entrance in Entrance::ALL {
        let purpose = entrance.purpose();
        let gate = Gate::within(
            &caps[entrance.side()],
            entrance.label(),
            gate_limits(entrance, limits),
            key,
            run::now(),
            metrics,
        );
        let door = door(entrance, config, limits, tls);
        let ours = listeners
            .iter()
            .filter(|at| at.service == Service::Access && at.purpose == purpose);
        for at in ours {
            let bind = Bind::on(at.address, at.interface.as_str());
            for (core, socket) in bind.tcp_listeners(cores)?.into_iter().enumerate() {
                bound[core].push(Listening {
                    entrance,
                    socket,
                    gate: gate.clone(),
                    door: door.clone(),
                });
            }
        }
    }
    Ok(bound)
}

/// Serves one socket until the core drains.
pub async fn serve(
    core: Core,
    listening: Listening,
    config: Arc<ArcSwap<Config>>,
    partners: Arc<ArcSwap<PeerVerifier>>,
) {
    let entrance = listening.entrance;
    let context = core.context().clone();
    let core = Rc::new(core);
    let served = accept::serve(
        context,
        listening.socket,
        listening.gate,
        listening.door,
        move |stream| {
            let (core, config) = (Rc::clone(&core), Arc::clone(&config));
            let partners = Arc::clone(&partners);
            async move { welcome(&core, stream, entrance, &config, &partners).await }
        },
    )
    .await;
    if let Err(error) = served {
        tracing::error!(listener = entrance.label(), %error, "listener ended");
    }
}

async fn welcome(
    core: &Core,
    stream: Stream,
    entrance: Entrance,
    config: &ArcSwap<Config>,
    partners: &ArcSwap<PeerVerifier>,
) {
    let peer = match entrance {
        Entrance::Client => Some(Peer::Client(Standing::Newcomer {
            requests: 0,
            in_flight: 0,
        })),
        Entrance::Federation => calling(&stream, &partners.load()).map(Peer::Partner),
        Entrance::Link => return core.array().serve(core, stream).await,
        Entrance::Internal => {
            trusted_name(&stream, &config.load().internal).map(|name| Peer::Inside { name })
        }
    };
    let Some(peer) = peer else {
        core.observer().peer_refused(entrance.label());
        tracing::warn!(listener = entrance.label(), remote = %stream.remote(), "peer may not speak here");
        stream.close();
        return;
    };
    core.serve(stream, peer, Opener::Remote, |_| {}).await;
}

/// The partner who called. When its certificate is no proof, it is nobody until it was called back.
fn calling(stream: &Stream, verifier: &PeerVerifier) -> Option<Partner> {
    let partner = partner(stream, None)?;
    let chain = stream.peer_certificates();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(run::now().unix.as_secs()));
    if !verifier.needs_callback(&chain, now) {
        return Some(partner);
    }
    let key = KeyFingerprint::of(chain.first()?)?;
    Some(partner.to_call_back(key, stream.remote().ip()))
}

/// The proven name that lets a server speak from inside: that of the next hop or of a trusted server.
fn trusted_name(stream: &Stream, inside: &Internal) -> Option<HostName> {
    let (names, _) = identity(stream)?;
    let next_hop = inside.next_hop.as_ref().map(|hop| &hop.host);
    next_hop
        .filter(|host| names.proves_host(host))
        .or_else(|| names.first_allowed(&inside.trusted_servers))
        .cloned()
}

fn gate_limits(entrance: Entrance, limits: &AccessLimits) -> GateLimits {
    let common = GateLimits {
        connections: limits.connections,
        per_source: u32::try_from(limits.connections_per_source).unwrap_or(u32::MAX),
        source_rate: Rate {
            per_second: limits.connections_per_second_per_source,
            burst: limits.connections_burst_per_source,
        },
        handshakes: limits.handshakes,
        handshakes_per_source: u32::try_from(limits.handshakes_per_source).unwrap_or(u32::MAX),
    };
    match entrance {
        Entrance::Client | Entrance::Federation => common,
        // A few servers, all of them ours; only a mistake makes them come this fast.
        Entrance::Internal | Entrance::Link => GateLimits {
            source_rate: Rate {
                per_second: common.source_rate.per_second.saturating_mul(4),
                burst: common.source_rate.burst.saturating_mul(4),
            },
            ..common
        },
    }
}

fn door(entrance: Entrance, config: &Config, limits: &AccessLimits, tls: &Tls) -> Door {
    let (security, stream) = match entrance {
        Entrance::Client => (&tls.client, client_stream(limits)),
        Entrance::Federation => (&tls.federation, server_stream(limits)),
        Entrance::Internal | Entrance::Link => (&tls.internal, server_stream(limits)),
    };
    // Members dial each other.
    let balancers = match entrance {
        Entrance::Client | Entrance::Federation | Entrance::Internal => {
            &config.array.balancers[entrance.side()][..]
        }
        Entrance::Link => &[],
    };
    Door {
        security: Security::Tls(Arc::clone(security)),
        balancers: balancers.iter().copied().map(IpNet::from).collect(),
        handshake_timeout: limits.handshake_timeout,
        stream,
        tcp: TcpOptions::default(),
    }
}

//! What the configuration comes to: addresses, keys, rules and the handles that the cores share.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edge_common::cert::role::{Role, Wanted};
use edge_common::cert::tls::{self, ArrayTickets, PeerVerifier, Store};
use edge_common::config::{Av, AvLimits, Config};
use edge_common::limit::{Cap, HashKey, Rate, SourceCap, SourceRate};
use edge_common::net::bind::{Bind, BindError};
use edge_common::ports::{self, PortRange, Purpose};
use edge_common::random::{Random as _, SystemRandom};
use edge_common::secret::{Label, Secrets};
use edge_common::secret_files;
use edge_common::side::Side;
use edge_common::time::Now;
use ipnet::IpNet;
use rustls::ServerConfig;

use crate::credentials::Credentials;
use crate::mras::service::Service;
use crate::turn::authority::Authority;
use crate::turn::five_tuple::{Listener, Transport};
use crate::turn::nonce::Nonces;
use crate::turn::peer_policy::PeerPolicy;
use crate::turn::port_pool::PortPool;
use crate::turn::quota::UserQuota;
use crate::turn::relayed::FamilyPair;
use crate::turn::{Settings, Shared};

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
            mailbox: av.limits.mailbox,
            cores: config.runtime.cores,
        })
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
        stream_strangers: SourceRate::new(hash_key(), STRANGER_SLOTS, rate, now),
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
        | Purpose::Link
        | Purpose::Mirror => return None,
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

pub(crate) fn hash_key() -> HashKey {
    let mut key = HashKey::default();
    SystemRandom.fill(&mut key);
    key
}

/// Enough for 16 000 sources at once before two of them share both of their slots by accident.
const STRANGER_SLOTS: usize = 64 * 1024;

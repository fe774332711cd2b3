//! Connections that the edge opens: one of each core to the next hop, and those to partners' edges.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edge_common::cert::identity::{CertificateId, Fingerprint, KeyFingerprint, ProvenNames};
use edge_common::config::{AccessLimits, Config};
use edge_common::dns::SipResolver;
use edge_common::host_name::HostPort;
use edge_common::net::bind::{Bind, TcpOptions};
use edge_common::net::dial::{Dial, DialError, DialTls};
use edge_common::net::handshake::HandshakeError;
use edge_common::net::stream::{Stream, StreamError, StreamOptions};
use edge_common::net::tls_driver::TlsError;
use edge_common::random::{Random, SystemRandom};
use edge_common::sip::framer::Opener;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::flow::Core;
use crate::proxy::callback::{Call, Called, Fault, Vouched};
use crate::proxy::flow::{Partner, Peer};
use crate::proxy::refusal::Refusal;

/// One side of the host, as connections leave it.
#[derive(Clone, Debug)]
pub struct Exit {
    addresses: Vec<IpAddr>,
    interface: String,
    tls: Arc<ArcSwap<ClientConfig>>,
    handshake_timeout: Duration,
    stream: StreamOptions,
}

impl Exit {
    /// Towards partners.
    #[must_use]
    pub fn external(
        config: &Config,
        limits: &AccessLimits,
        tls: Arc<ArcSwap<ClientConfig>>,
    ) -> Self {
        Self {
            addresses: config.local().external.access.clone(),
            interface: config.external.interface.clone(),
            tls,
            handshake_timeout: limits.handshake_timeout,
            stream: server_stream(limits),
        }
    }

    /// Towards the inside.
    #[must_use]
    pub fn internal(
        config: &Config,
        limits: &AccessLimits,
        tls: Arc<ArcSwap<ClientConfig>>,
    ) -> Self {
        Self {
            addresses: config.local().internal.ips().collect(),
            interface: config.internal.interface.clone(),
            tls,
            handshake_timeout: limits.handshake_timeout,
            stream: server_stream(limits),
        }
    }

    /// Opens a connection to the first of `addresses` that takes one and proves the target's name.
    pub(crate) async fn open(
        &self,
        core: &Core,
        target: &HostPort,
        addresses: &[IpAddr],
    ) -> Result<Stream, Failure> {
        let mut failure = Failure::NoAddress;
        for &address in addresses {
            // A family that this side of the host does not have leads nowhere.
            let Some(from) = self.own_address(address) else {
                continue;
            };
            match self.open_one(core, target, from, address).await {
                Ok(stream) => return Ok(stream),
                Err(next) => failure = next,
            }
        }
        Err(failure)
    }

    fn own_address(&self, towards: IpAddr) -> Option<IpAddr> {
        let same_family = |own: &IpAddr| own.is_ipv4() == towards.is_ipv4();
        self.addresses.iter().copied().find(same_family)
    }

    async fn open_one(
        &self,
        core: &Core,
        target: &HostPort,
        from: IpAddr,
        address: IpAddr,
    ) -> Result<Stream, Failure> {
        let name = ServerName::try_from(target.host.to_string()).map_err(|_| Failure::NoAddress)?;
        let dial = Dial {
            from: Bind::on(SocketAddr::new(from, 0), self.interface.as_str()),
            to: SocketAddr::new(address, target.port),
            tls: Some(DialTls {
                config: self.tls.load_full(),
                name,
            }),
            connect_timeout: CONNECT_TIMEOUT,
            handshake_timeout: self.handshake_timeout,
            stream: self.stream,
            tcp: TcpOptions::default(),
        };
        // Boxed, so that the connection's task does not keep the room of its handshake.
        Box::pin(dial.open(core.context()))
            .await
            .map_err(Failure::Dial)
    }
}

/// Streams of servers: messages are long and queues deep.
#[must_use]
pub fn server_stream(limits: &AccessLimits) -> StreamOptions {
    stream_options(limits.server_queue, limits.head + limits.server_body)
}

/// Streams of clients.
#[must_use]
pub fn client_stream(limits: &AccessLimits) -> StreamOptions {
    stream_options(limits.client_queue, limits.head + limits.client_body)
}

fn stream_options(queue_max: usize, message_max: usize) -> StreamOptions {
    let options = StreamOptions::default();
    StreamOptions {
        queue_max,
        pending_max: message_max + options.read_max,
        ..options
    }
}

/// Why a connection could not be opened.
#[derive(Debug)]
pub(crate) enum Failure {
    NoAddress,
    Dial(DialError),
    /// The certificate does not prove what was asked for.
    Unproven,
}

impl Failure {
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::NoAddress => "no_address",
            Self::Dial(error) => error.reason(),
            Self::Unproven => "unproven",
        }
    }

    /// What whoever waits for the connection is told.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls' errors are not ours; all that is not about the certificate is one"
    )]
    const fn refusal(&self) -> Refusal {
        match self {
            Self::NoAddress => Refusal::HostUnresolved,
            Self::Unproven => Refusal::PartnerUntrusted,
            Self::Dial(DialError::Handshake { source, .. }) => match source {
                HandshakeError::Failed(StreamError::Tls(TlsError::Rustls(error))) => match error {
                    rustls::Error::InvalidCertificate(_)
                    | rustls::Error::NoCertificatesPresented => Refusal::PartnerUntrusted,
                    _ => Refusal::PartnerTls,
                },
                HandshakeError::Failed(_) | HandshakeError::Timeout => Refusal::PartnerTls,
            },
            Self::Dial(DialError::Bind(_) | DialError::Connect { .. } | DialError::Timeout(_)) => {
                Refusal::PartnerUnreachable
            }
        }
    }
}

impl Failure {
    /// What it means for a partner that is called back.
    const fn fault(&self) -> Fault {
        match self {
            Self::NoAddress => Fault::Unresolved,
            Self::Unproven => Fault::Untrusted,
            Self::Dial(_) if matches!(self.refusal(), Refusal::PartnerUntrusted) => {
                Fault::Untrusted
            }
            Self::Dial(_) => Fault::Unreachable,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("the host has no address that may be dialled from here"),
            Self::Dial(error) => error.fmt(f),
            Self::Unproven => f.write_str("the certificate does not prove the host"),
        }
    }
}

/// Opens connections to partners' edges for one core.
#[derive(Clone)]
pub struct Partners(Rc<(Exit, SipResolver)>);

impl fmt::Debug for Partners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Partners").field(&self.0.0).finish()
    }
}

impl Partners {
    /// Through `exit`, to addresses that `dns` finds and lets pass.
    #[must_use]
    pub fn new(exit: Exit, dns: SipResolver) -> Self {
        Self(Rc::new((exit, dns)))
    }

    /// Opens a connection and serves it, or tells the core why not.
    pub fn dial(&self, core: Core, target: HostPort) {
        let partners = self.clone();
        core.context().clone().spawn(async move {
            match partners.open(&core, &target).await {
                Ok((stream, partner)) => {
                    core.observer().dialled("partner", "open");
                    tracing::info!(%target, remote = %stream.remote(), "partner connected");
                    let peer = Peer::Partner(partner);
                    core.serve(stream, peer, Opener::Us, |_| {}).await;
                    tracing::info!(%target, "partner disconnected");
                }
                Err(failure) => {
                    core.observer().dialled("partner", failure.label());
                    tracing::warn!(%target, %failure, "partner not reached");
                    core.dial_failed(&target, failure.refusal());
                }
            }
        });
    }

    /// Connects to an edge and compares the key that it shows as a server, whose certificate has to hold for its name.
    pub async fn call_back(&self, core: &Core, call: &Call) -> Called {
        let opening = self.open(core, &call.target);
        let opened = tokio::time::timeout(CALLBACK_TIMEOUT, opening).await;
        let (stream, partner) = opened.map_err(|_| Fault::Timeout)?.map_err(|failure| {
            tracing::info!(target = %call.target, %failure, "partner not called back");
            failure.fault()
        })?;
        let chain = stream.peer_certificates();
        let key = chain.first().and_then(|leaf| KeyFingerprint::of(leaf));
        stream.close();
        if key != Some(call.key) {
            return Err(Fault::OtherKey);
        }
        Ok(Vouched {
            names: partner.names,
            certificate: partner.certificate,
        })
    }

    async fn open(&self, core: &Core, target: &HostPort) -> Result<(Stream, Partner), Failure> {
        let (exit, dns) = &*self.0;
        let addresses = dns.addresses(&target.host).await.map_err(|fault| {
            tracing::info!(%target, %fault, "partner's host not resolved");
            Failure::NoAddress
        })?;
        let stream = exit.open(core, target, &addresses.value).await?;
        let partner = partner(&stream, Some(target.clone())).ok_or(Failure::Unproven)?;
        if !partner.names.proves_host(&target.host) {
            stream.close();
            return Err(Failure::Unproven);
        }
        Ok((stream, partner))
    }
}

/// The partner at a connection's far end, as its certificate shows it; `dialled` when we opened it.
#[must_use]
pub fn partner(stream: &Stream, dialled: Option<HostPort>) -> Option<Partner> {
    let (names, fingerprint) = identity(stream)?;
    let chain = stream.peer_certificates();
    let certificate = CertificateId::of(chain.first()?).ok()?;
    Some(Partner::new(Arc::new(names), fingerprint, dialled).issued(certificate))
}

/// What the certificate of a connection's far end proves.
#[must_use]
pub fn identity(stream: &Stream) -> Option<(ProvenNames, Fingerprint)> {
    let chain = stream.peer_certificates();
    let certificate = chain.first()?;
    match ProvenNames::from_certificate(certificate) {
        Ok(names) => Some((names, Fingerprint::of(certificate))),
        Err(error) => {
            tracing::warn!(remote = %stream.remote(), %error, "certificate not understood");
            None
        }
    }
}

/// Keeps one connection of a core to one address of the next hop, for as long as the core lives.
///
/// A Director pool has one name and an address for each of its servers: each of them is a target of its own.
#[derive(Clone)]
pub struct NextHop {
    /// What is in force; read again before each attempt.
    pub config: Arc<ArcSwap<Config>>,
    /// The way there.
    pub exit: Exit,
    /// DNS inside, for a next hop whose addresses are not configured.
    pub dns: SipResolver,
    /// Which of the addresses, in their order; the first is taken while it works.
    pub rank: u8,
}

impl fmt::Debug for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextHop")
            .field("exit", &self.exit)
            .finish_non_exhaustive()
    }
}

impl NextHop {
    /// Dials, serves, and dials again; waits longer each time that it fails.
    pub async fn keep(self, core: Core) {
        let mut pause = PAUSE_MIN;
        loop {
            let config = self.config.load_full();
            let Some(target) = &config.internal.next_hop else {
                tracing::error!("internal.next_hop is not set");
                return;
            };
            match self
                .open(&core, target, &config.internal.next_hop_addresses)
                .await
            {
                Ok(Some(stream)) => {
                    pause = PAUSE_MIN;
                    core.observer().dialled("next_hop", "open");
                    serve_next_hop(&core, target, self.rank, stream).await;
                }
                Ok(None) => pause = PAUSE_MAX,
                Err(failure) => {
                    core.observer().dialled("next_hop", failure.label());
                    tracing::warn!(next_hop = %target, %failure, "next hop not reached");
                }
            }
            drop(config);
            tokio::time::sleep(spread(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// `None`: the next hop has fewer addresses than that.
    async fn open(
        &self,
        core: &Core,
        target: &HostPort,
        addresses: &[IpAddr],
    ) -> Result<Option<Stream>, Failure> {
        if !addresses.is_empty() {
            return self.open_ranked(core, target, addresses).await;
        }
        let found = self.dns.addresses(&target.host).await.map_err(|fault| {
            tracing::warn!(next_hop = %target, %fault, "next hop not resolved");
            Failure::NoAddress
        })?;
        self.open_ranked(core, target, &found.value).await
    }

    async fn open_ranked(
        &self,
        core: &Core,
        target: &HostPort,
        addresses: &[IpAddr],
    ) -> Result<Option<Stream>, Failure> {
        let ours = |address: &&IpAddr| self.exit.own_address(**address).is_some();
        match addresses.iter().filter(ours).nth(usize::from(self.rank)) {
            Some(&address) => self.exit.open(core, target, &[address]).await.map(Some),
            None if self.rank == 0 => Err(Failure::NoAddress),
            None => Ok(None),
        }
    }
}

async fn serve_next_hop(core: &Core, target: &HostPort, rank: u8, stream: Stream) {
    let index = core.context().index();
    tracing::info!(next_hop = %target, remote = %stream.remote(), core = index, "next hop connected");
    let peer = Peer::Inside {
        name: target.host.clone(),
    };
    // The count follows the connection even if this task is dropped with its core.
    let mut counted = None;
    core.serve(stream, peer, Opener::Us, |key| {
        core.next_hop(key, rank);
        counted = Some(Counted::new(core));
    })
    .await;
    drop(counted);
    tracing::info!(next_hop = %target, core = index, "next hop disconnected");
}

struct Counted<'a>(&'a Core);

impl<'a> Counted<'a> {
    fn new(core: &'a Core) -> Self {
        core.observer().next_hop(core.context().index(), true);
        Self(core)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.observer().next_hop(self.0.context().index(), false);
    }
}

/// Between half of it and all: the cores of all members do not come together.
pub(crate) fn spread(pause: Duration) -> Duration {
    let millis = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
    let random = SystemRandom.below(millis / 2 + 1);
    Duration::from_millis(u64::from(millis / 2 + random))
}

/// Addresses of the next hop that are connected; a transaction knows no more targets than that.
pub const NEXT_HOPS_MAX: u8 = 4;
/// Name, connection and handshake together; somebody waits for it.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

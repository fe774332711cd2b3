//! Connections that the edge opens: one of each core to the next hop, and those to partners' edges.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edge_common::cert::identity::{Fingerprint, ProvenNames};
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
    async fn open(
        &self,
        core: &Core,
        target: &HostPort,
        addresses: &[IpAddr],
    ) -> Result<Stream, Failure> {
        let mut failure = Failure::NoAddress;
        for &address in addresses {
            match self.open_one(core, target, address).await {
                Ok(stream) => return Ok(stream),
                Err(next) => failure = next,
            }
        }
        Err(failure)
    }

    async fn open_one(
        &self,
        core: &Core,
        target: &HostPort,
        address: IpAddr,
    ) -> Result<Stream, Failure> {
        let same_family = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
        let from = self
            .addresses
            .iter()
            .find(same_family)
            .ok_or(Failure::NoAddress)?;
        let name = ServerName::try_from(target.host.to_string()).map_err(|_| Failure::NoAddress)?;
        let dial = Dial {
            from: Bind::on(SocketAddr::new(*from, 0), self.interface.as_str()),
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
enum Failure {
    NoAddress,
    Dial(DialError),
    /// The certificate does not prove what was asked for.
    Unproven,
}

impl Failure {
    const fn label(&self) -> &'static str {
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

    async fn open(&self, core: &Core, target: &HostPort) -> Result<(Stream, Partner), Failure> {
        let (exit, dns) = &*self.0;
        let addresses = dns.addresses(&target.host).await.map_err(|fault| {
            tracing::info!(%target, %fault, "partner's host not resolved");
            Failure::NoAddress
        })?;
        let stream = exit.open(core, target, &addresses.value).await?;
        let (names, fingerprint) = identity(&stream).ok_or(Failure::Unproven)?;
        if !names.proves_host(&target.host) {
            stream.close();
            return Err(Failure::Unproven);
        }
        let partner = Partner::new(Arc::new(names), fingerprint, Some(target.clone()));
        Ok((stream, partner))
    }
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

/// Keeps one connection of a core to the next hop, for as long as the core lives.
#[derive(Clone)]
pub struct NextHop {
    /// Its name and port.
    pub target: HostPort,
    /// Its addresses, when the configuration names them.
    pub addresses: Vec<IpAddr>,
    /// The way there.
    pub exit: Exit,
    /// Else DNS inside is asked.
    pub dns: Option<SipResolver>,
}

impl fmt::Debug for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextHop")
            .field("target", &self.target)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl NextHop {
    /// Dials, serves, and dials again; waits longer each time that it fails.
    pub async fn keep(self, core: Core) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.open(&core).await {
                Ok(stream) => {
                    pause = PAUSE_MIN;
                    core.observer().dialled("next_hop", "open");
                    self.serve(&core, stream).await;
                }
                Err(failure) => {
                    core.observer().dialled("next_hop", failure.label());
                    tracing::warn!(next_hop = %self.target, %failure, "next hop not reached");
                }
            }
            tokio::time::sleep(spread(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn serve(&self, core: &Core, stream: Stream) {
        tracing::info!(next_hop = %self.target, remote = %stream.remote(), core = core.context().index(), "next hop connected");
        let peer = Peer::Inside {
            name: self.target.host.clone(),
        };
        // The count follows the connection even if this task is dropped with its core.
        let mut counted = None;
        core.serve(stream, peer, Opener::Us, |key| {
            core.next_hop(key);
            counted = Some(Counted::new(core));
        })
        .await;
        drop(counted);
        tracing::warn!(next_hop = %self.target, "next hop disconnected");
    }

    async fn open(&self, core: &Core) -> Result<Stream, Failure> {
        let Some(dns) = &self.dns else {
            return self.exit.open(core, &self.target, &self.addresses).await;
        };
        let found = dns.addresses(&self.target.host).await.map_err(|fault| {
            tracing::warn!(next_hop = %self.target, %fault, "next hop not resolved");
            Failure::NoAddress
        })?;
        self.exit.open(core, &self.target, &found.value).await
    }
}

struct Counted<'a>(&'a Core);

impl<'a> Counted<'a> {
    fn new(core: &'a Core) -> Self {
        core.observer().next_hop(true);
        Self(core)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.observer().next_hop(false);
    }
}

/// Between half of it and all: the cores of all members do not come together.
fn spread(pause: Duration) -> Duration {
    let millis = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
    let random = SystemRandom.below(millis / 2 + 1);
    Duration::from_millis(u64::from(millis / 2 + random))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

//! The way in: caps, the balancer's header, the handshake, and then the daemon's own code.
//!
//! ```text
//!   accept ─► caps ─► task ─► PROXY header? ─► TLS? ─► on_connection(Stream)
//!     │         └► reset        └── handshake deadline and cap ──┘
//!     └► no descriptors: pause, and go on with those that are there
//! ```
//!
//! Each core has a listener of its own on the same address; the caps of a [`Gate`] count over all cores. A stranger who
//! is refused costs no task and no answer. A slow handshake is a task of its own and never holds up the loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::bind::TcpOptions;
use super::core_runtime::CoreContext;
use super::handshake::{self, HandshakeError};
use super::proxy_protocol::{self, HeaderError, Origin, Step};
use super::stream::{Read, Stream, StreamError, StreamOptions};
use crate::limit::{Cap, HashKey, Permit, Rate, Source, SourceCap, SourcePermit, SourceRate};
use crate::observe::metrics::{Counter, Counters, Metrics};
use crate::time::Now;

/// Who may come in by one listener, counted over all cores. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateState>);

/// The bounds of a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one source.
    pub per_source: u32,
    /// New connections a second from one source.
    pub source_rate: Rate,
    /// Handshakes at once.
    pub handshakes: usize,
    /// Handshakes at once from one source.
    pub handshakes_per_source: u32,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            per_source: 256,
            source_rate: Rate {
                per_second: 20,
                burst: 60,
            },
            handshakes: 512,
            handshakes_per_source: 64,
        }
    }
}

#[derive(Debug)]
struct GateState {
    connections: Cap,
    sources: SourceCap,
    rate: SourceRate,
    handshakes: Cap,
    handshake_sources: SourceCap,
    accepted: Counter,
    refused: Counters<2>,
    handshakes_failed: Counters<2>,
    listener: &'static str,
}

/// Why a connection got no further than the loop, or than its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The cap of all connections.
    Connections,
    /// The cap of this source.
    Source,
    /// This source comes too often.
    Rate,
    /// The cap of all handshakes.
    Handshakes,
    /// The cap of this source's handshakes.
    SourceHandshakes,
    /// The process has no descriptor left, or the kernel no memory.
    Descriptors,
    /// The socket was gone before it could be set up.
    Socket,
    /// A balancer did not begin with a PROXY header.
    HeaderMissing,
    /// Somebody who is no balancer began with one.
    HeaderForbidden,
    /// A balancer's header was malformed.
    Header(HeaderError),
    /// A balancer's header did not come in time, or the connection ended first.
    HeaderIncomplete,
}

impl Refused {
    /// The label of the counter `connections_refused`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Source => "source",
            Self::Rate => "rate",
            Self::Handshakes => "handshakes",
            Self::SourceHandshakes => "source_handshakes",
            Self::Descriptors => "descriptors",
            Self::Socket => "socket",
            Self::HeaderMissing => "proxy_missing",
            Self::HeaderForbidden => "proxy_forbidden",
            Self::Header(error) => error.reason(),
            Self::HeaderIncomplete => "proxy_incomplete",
        }
    }
}

/// What everybody who comes in by one listener meets.
#[derive(Clone, Debug)]
pub struct Door {
    /// Plain or TLS.
    pub security: Security,
    /// Balancers: they must begin with a PROXY header, all others must not. Empty: there is no balancer.
    pub balancers: Vec<IpNet>,
    /// How long header and handshake may take together.
    pub handshake_timeout: Duration,
    /// The bounds of each connection.
    pub stream: StreamOptions,
    /// The behaviour of each socket.
    pub tcp: TcpOptions,
}

/// What a listener begins with.
#[derive(Clone, Debug)]
pub enum Security {
    /// Nothing: the daemon looks at the first bytes itself ([`Stream::peek`], then [`handshake::server`]).
    Plain,
    /// TLS. A new configuration is taken by the next connection.
    Tls(Arc<ArcSwap<ServerConfig>>),
}

impl Gate {
    /// `listener` is the label of its counters: `connections_accepted`, `connections_refused`, `handshakes_failed`.
    #[must_use]
    pub fn new(
        listener: &'static str,
        limits: GateLimits,
        key: HashKey,
        now: Now,
        metrics: &Metrics,
    ) -> Self {
        // Four slots for each source that there can be: see `SourceCap::new`.
        let slots = limits.connections.saturating_mul(4);
        let connections = Cap::new("connections", limits.connections);
        let open = connections.clone();
        metrics
            .gauges("connections", "Connections that are open", ["listener"])
            .watch([listener], move || open.used() as i64);
        let accepted = metrics.counters(
            "connections_accepted",
            "Connections that the kernel handed over",
            ["listener"],
        );
        Self(Arc::new(GateState {
            connections,
            sources: SourceCap::new(key, slots, limits.per_source),
            rate: SourceRate::new(key, slots, limits.source_rate, now),
            handshakes: Cap::new("handshakes", limits.handshakes),
            handshake_sources: SourceCap::new(
                key,
                limits.handshakes.saturating_mul(4),
                limits.handshakes_per_source,
            ),
            accepted: accepted.with([listener]),
            refused: metrics.counters(
                "connections_refused",
                "Connections that were ended before their first byte was served",
                ["listener", "reason"],
            ),
            handshakes_failed: metrics.counters(
                "handshakes_failed",
                "TLS handshakes that did not succeed",
                ["listener", "reason"],
            ),
            listener,
        }))
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.used()
    }

    /// Charges a source: for something beyond its connection that was costly (a wrong token counts double).
    pub fn charge(&self, now: Now, remote: IpAddr, count: u32) {
        // Whether there was anything left shows at its next connection.
        let _spent = self.0.rate.take_many(now, Source::from(remote), count);
    }

    fn refuse(&self, why: Refused) {
        self.0.refused.with([self.0.listener, why.reason()]).add(1);
    }

    fn handshake_failed(&self, error: &HandshakeError) {
        self.0
            .handshakes_failed
            .with([self.0.listener, error.reason()])
            .add(1);
    }

    fn enter(&self) -> Result<(Permit, Permit), Refused> {
        let connection = self.0.connections.enter().ok_or(Refused::Connections)?;
        let handshake = self.0.handshakes.enter().ok_or(Refused::Handshakes)?;
        Ok((connection, handshake))
    }

    fn enter_source(&self, now: Now, remote: IpAddr) -> Result<SourcePermits, Refused> {
        let source = Source::from(remote);
        if !self.0.rate.take(now, source) {
            return Err(Refused::Rate);
        }
        Ok(SourcePermits {
            connection: self.0.sources.enter(source).ok_or(Refused::Source)?,
            handshake: self
                .0
                .handshake_sources
                .enter(source)
                .ok_or(Refused::SourceHandshakes)?,
        })
    }
}

struct SourcePermits {
    connection: SourcePermit,
    handshake: SourcePermit,
}

/// Accepts until the core drains; each connection that gets through is handed to `on_connection`, whose future runs as
/// the connection's task. The listener is closed at the end, the connections are not.
pub async fn serve<F, Fut>(
    core: CoreContext,
    listener: std::net::TcpListener,
    gate: Gate,
    door: Door,
    on_connection: F,
) -> io::Result<()>
where
    F: Fn(Stream) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    let (door, on_connection) = (Rc::new(door), Rc::new(on_connection));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = core.draining() => return Ok(()),
        };
        match accepted {
            Ok((tcp, remote)) => {
                gate.0.accepted.add(1);
                let visitor = match Visitor::new(&core, &gate, &door, tcp, remote) {
                    Ok(visitor) => visitor,
                    Err(why) => {
                        gate.refuse(why);
                        continue;
                    }
                };
                let on_connection = Rc::clone(&on_connection);
                core.spawn(async move {
                    // Boxed, so that its room is given back before the connection's own code runs.
                    if let Some(stream) = Box::pin(visitor.welcome()).await {
                        on_connection(stream).await;
                    }
                });
            }
            Err(error) => {
                if let Some(pause) = pause_after(&error) {
                    gate.refuse(Refused::Descriptors);
                    tracing::warn!(listener = gate.0.listener, %error, "no connection can be accepted");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// A connection between the loop and the daemon's code.
struct Visitor {
    stream: Stream,
    gate: Gate,
    door: Rc<Door>,
    from_balancer: bool,
    _handshake: Permit,
    _source_handshake: Option<SourcePermit>,
}

impl Visitor {
    fn new(
        core: &CoreContext,
        gate: &Gate,
        door: &Rc<Door>,
        tcp: TcpStream,
        remote: SocketAddr,
    ) -> Result<Self, Refused> {
        let from_balancer = contains(&door.balancers, remote.ip());
        let entered = gate.enter().and_then(|permits| {
            // Behind a balancer the source is not known before its header has come.
            let source = if from_balancer {
                None
            } else {
                Some(gate.enter_source(crate::run::now(), remote.ip())?)
            };
            door.tcp.apply(&tcp).map_err(|_| Refused::Socket)?;
            Ok((permits, source))
        });
        let ((connection, handshake), source) = match entered {
            Ok(entered) => entered,
            Err(why) => {
                reset(&tcp);
                return Err(why);
            }
        };
        let stream = Stream::new(core, tcp, remote, door.stream);
        stream.hold(connection);
        let source_handshake = source.map(|source| {
            stream.hold(source.connection);
            source.handshake
        });
        Ok(Self {
            stream,
            gate: gate.clone(),
            door: Rc::clone(door),
            from_balancer,
            _handshake: handshake,
            _source_handshake: source_handshake,
        })
    }

    /// Header and handshake; `None` if the connection ended there, which is counted.
    async fn welcome(mut self) -> Option<Stream> {
        let begun = tokio::time::Instant::now();
        if !self.door.balancers.is_empty()
            && let Err(why) = self.read_header().await
        {
            self.gate.refuse(why);
            self.stream.abort();
            return None;
        }
        if let Security::Tls(config) = &self.door.security {
            let within = self.door.handshake_timeout.saturating_sub(begun.elapsed());
            let done = handshake::server(&self.stream, config.load_full(), within).await;
            if let Err(error) = done {
                tracing::debug!(listener = self.gate.0.listener, remote = %self.stream.remote(), %error, "handshake failed");
                self.gate.handshake_failed(&error);
                return None;
            }
        }
        Some(self.stream)
    }

    async fn read_header(&mut self) -> Result<(), Refused> {
        let within = self.door.handshake_timeout;
        let step = tokio::time::timeout(within, header(&self.stream))
            .await
            .unwrap_or(Err(Refused::HeaderIncomplete))?;
        match step {
            Step::Header { len, origin } if self.from_balancer => {
                self.consume(len).await?;
                if let Origin::Client { source, .. } = origin {
                    let permits = self.gate.enter_source(crate::run::now(), source.ip())?;
                    self.stream.hold(permits.connection);
                    self._source_handshake = Some(permits.handshake);
                    self.stream.set_remote(source);
                }
                Ok(())
            }
            Step::Header { .. } => Err(Refused::HeaderForbidden),
            Step::Absent if self.from_balancer => Err(Refused::HeaderMissing),
            Step::Absent => Ok(()),
            Step::NeedMore => Err(Refused::HeaderIncomplete),
        }
    }

    /// The header was only peeked at: it is shown once more, at once.
    async fn consume(&self, len: usize) -> Result<(), Refused> {
        let read = self.stream.read(|_| len).await;
        match read {
            Ok(Read::Data) => {
                self.stream.show_again();
                Ok(())
            }
            Ok(Read::End) | Err(_) => Err(Refused::HeaderIncomplete),
        }
    }
}

/// Waits until the first bytes say whether a header stands there.
async fn header(stream: &Stream) -> Result<Step, Refused> {
    let seen = stream
        .peek(|bytes| match proxy_protocol::read(bytes) {
            Ok(Step::NeedMore) => None,
            told => Some(told),
        })
        .await;
    match seen {
        Ok(Some(told)) => told.map_err(Refused::Header),
        Ok(None) | Err(StreamError::Truncated) => Err(Refused::HeaderIncomplete),
        Err(_) => Err(Refused::Socket),
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Leaves nothing behind in the kernel for somebody whom we do not serve.
fn reset(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_linger(Some(Duration::ZERO)) {
        tracing::trace!(%error, "a refused connection ends without a reset");
    }
}

/// How long to wait after an error of accept itself; `None`: the error was about that one connection.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error)?;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    ours.contains(&errno).then_some(BACK_OFF)
}

/// Long enough for connections to end, short enough that the backlog survives it.
const BACK_OFF: Duration = Duration::from_millis(100);

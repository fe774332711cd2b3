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
use rustls::{ProtocolVersion, ServerConfig};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::bind::TcpOptions;
use super::core_runtime::CoreContext;
use super::handshake::{self, HandshakeError};
use super::proxy_protocol::{self, HeaderError, Origin, Step};
use super::stream::{Read, Stream, StreamError, StreamOptions};
use crate::limit::{Cap, HashKey, Permit, Rate, Source, SourceCap, SourcePermit, SourceRate};
use crate::observe::metrics::{Counter, Counters, Histogram, Metrics};
use crate::time::Now;

/// Who may come in by one listener, counted over all cores. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateState>);

/// The bounds of a [`Gate`]; each comes from a key of the configuration.
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

#[derive(Debug)]
struct GateState {
    connections: Cap,
    /// Over all gates of the daemon.
    all: Cap,
    sources: SourceCap,
    rate: SourceRate,
    handshakes: Cap,
    handshake_sources: SourceCap,
    accepted: Counter,
    refused: Counters<2>,
    handshakes_failed: Counters<2>,
    handshakes_done: Counters<2>,
    handshake_seconds: Histogram,
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
        let all = Cap::new("connections", limits.connections);
        Self::within(&all, listener, limits, key, now, metrics)
    }

    /// One of several gates that have the cap of all connections in common.
    #[must_use]
    pub fn within(
        all: &Cap,
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
        let handshakes = Cap::new("handshakes", limits.handshakes);
        let pending = handshakes.clone();
        metrics
            .gauges(
                "handshakes",
                "Connections whose PROXY header or handshake is under way",
                ["listener"],
            )
            .watch([listener], move || pending.used() as i64);
        let accepted = metrics.counters(
            "connections_accepted",
            "Connections that the kernel handed over",
            ["listener"],
        );
        Self(Arc::new(GateState {
            connections,
            all: all.clone(),
            sources: SourceCap::new(key, slots, limits.per_source),
            rate: SourceRate::new(key, slots, limits.source_rate, now),
            handshakes,
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
            handshakes_done: metrics.counters(
                "handshakes_done",
                "TLS handshakes that succeeded, by the version of TLS",
                ["listener", "version"],
            ),
            handshake_seconds: metrics.histogram(
                "handshake_seconds",
                "How long TLS handshakes that succeeded took, on all listeners",
                HANDSHAKE_BOUNDS,
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

    /// A place among the handshakes, for a daemon that does them itself behind [`Security::Plain`]. A refusal is counted.
    #[must_use]
    pub fn begin_handshake(&self, remote: IpAddr) -> Option<Beginning> {
        let taken = self.enter_handshake(Source::from(remote));
        taken.map_err(|why| self.refuse(why)).ok()
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

    fn handshake_done(&self, version: Option<ProtocolVersion>, took: Duration) {
        let version = match version {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            Some(_) | None => "other",
        };
        let done = &self.0.handshakes_done;
        done.with([self.0.listener, version]).inc();
        self.0.handshake_seconds.observe(took);
    }

    fn enter(&self) -> Result<([Permit; 2], Permit), Refused> {
        let all = self.0.all.enter().ok_or(Refused::Connections)?;
        let own = self.0.connections.enter().ok_or(Refused::Connections)?;
        let handshake = self.0.handshakes.enter().ok_or(Refused::Handshakes)?;
        Ok(([all, own], handshake))
    }

    fn enter_handshake(&self, source: Source) -> Result<Beginning, Refused> {
        Ok(Beginning {
            _all: self.0.handshakes.enter().ok_or(Refused::Handshakes)?,
            _source: self
                .0
                .handshake_sources
                .enter(source)
                .ok_or(Refused::SourceHandshakes)?,
        })
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

/// A place among the handshakes; dropping it gives it back.
#[derive(Debug)]
pub struct Beginning {
    _all: Permit,
    _source: SourcePermit,
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
        let ((connections, handshake), source) = match entered {
            Ok(entered) => entered,
            Err(why) => {
                reset(&tcp);
                return Err(why);
            }
        };
        let stream = Stream::new(core, tcp, remote, door.stream);
        stream.hold(connections);
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
            let handshake_begun = tokio::time::Instant::now();
            let done = handshake::server(&self.stream, config.load_full(), within).await;
            if let Err(error) = done {
                tracing::debug!(listener = self.gate.0.listener, connection = %self.stream.id(), remote = %self.stream.remote(), %error, "handshake failed");
                self.gate.handshake_failed(&error);
                return None;
            }
            let version = self.stream.tls_version();
            self.gate.handshake_done(version, handshake_begun.elapsed());
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

/// A local handshake takes a millisecond, one over a satellite a second; deadlines end it at some seconds.
const HANDSHAKE_BOUNDS: &[f64] = &[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bind::Bind;
    use crate::net::dial::{Dial, DialError, DialTls};
    use crate::net::test_tls::{Pki, edge_test, on_a_core, read_exactly};
    use rustls::pki_types::ServerName;
    use std::cell::RefCell;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn a_client_gets_in_by_tls_and_is_answered() {
        on_a_core(async |core| {
            let edge = Edge::open(&core, |_, _| ());
            let stream = edge.dial(&core, edge_test()).await.expect("gets in");
            stream.queue(b"ping").expect("room");
            assert_eq!(read_exactly(&stream, 4).await, b"ping");
            assert_eq!(edge.gate.connections(), 1);
            assert_eq!(edge.counted("connections_accepted"), 1);
            stream.close();
            while edge.gate.connections() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_dialed_server_must_prove_its_name() {
        on_a_core(async |core| {
            let edge = Edge::open(&core, |_, _| ());
            let other = ServerName::try_from("other.test").expect("name");
            let error = edge.dial(&core, other).await.expect_err("wrong name");
            assert_eq!(error.reason(), "certificate_invalid");
            edge.until(|edge| edge.failed("alert_certificate") == 1)
                .await;
        });
    }

    #[test]
    fn a_silent_client_holds_up_nobody_and_is_ended_in_time() {
        on_a_core(async |core| {
            let edge = Edge::open(&core, |_, door| {
                door.handshake_timeout = Duration::from_millis(200);
            });
            let begun = Instant::now();
            let mut silent = edge.connect().await;
            edge.dial(&core, edge_test())
                .await
                .expect("the loop goes on");
            let mut nothing = Vec::new();
            let ended = silent.read_to_end(&mut nothing).await;
            assert!(ended.is_err() || nothing.is_empty());
            assert!(begun.elapsed() >= Duration::from_millis(200));
            assert_eq!(edge.failed("timeout"), 1);
        });
    }

    #[test]
    fn a_server_that_is_silent_is_given_up() {
        on_a_core(async |core| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let silent = Bind::to(any).tcp_listener().expect("binds");
            let dial = dial(
                silent.local_addr().expect("bound"),
                &Pki::new(TLS13),
                edge_test(),
            );
            let error = dial.open(&core).await.expect_err("nobody speaks");
            assert!(matches!(
                error,
                DialError::Handshake {
                    source: HandshakeError::Timeout,
                    ..
                }
            ));
        });
    }

    #[test]
    fn nobody_there_is_told_with_the_address() {
        on_a_core(async |core| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let gone = Bind::to(any).tcp_listener().expect("binds").local_addr();
            let dial = dial(gone.expect("bound"), &Pki::new(TLS13), edge_test());
            let error = dial.open(&core).await.expect_err("nobody listens");
            assert_eq!(error.reason(), "connect");
            assert!(error.to_string().contains("127.0.0.1:"));
        });
    }

    #[test]
    fn each_cap_refuses_the_next_one_and_says_which_it_was() {
        on_a_core(async |core| {
            type Change = fn(&mut GateLimits);
            let cases: [(&str, Change); 5] = [
                ("connections", |limits| limits.connections = 2),
                ("source", |limits| limits.per_source = 2),
                ("rate", |limits| limits.source_rate.burst = 2),
                ("handshakes", |limits| limits.handshakes = 2),
                ("source_handshakes", |limits| {
                    limits.handshakes_per_source = 2;
                }),
            ];
            for (reason, change) in cases {
                let edge = Edge::open(&core, |limits, _| {
                    limits.source_rate.per_second = 1;
                    change(limits);
                });
                let _silent = (edge.connect().await, edge.connect().await);
                edge.until(|edge| edge.counted("connections_accepted") == 2)
                    .await;
                for gauge in ["connections", "handshakes"] {
                    let line = format!("edge_test_{gauge}{{listener=\"client\"}} 2");
                    assert!(edge.metrics.text().contains(&line), "{line}");
                }
                let mut third = edge.connect().await;
                assert!(third.read_u8().await.is_err(), "{reason}");
                assert_eq!(edge.refused(reason), 1, "{reason}");
            }
        });
    }

    #[test]
    fn a_daemon_that_shakes_hands_itself_is_under_the_same_bounds() {
        let limits = GateLimits {
            handshakes: 3,
            handshakes_per_source: 2,
            ..LIMITS
        };
        let gate = gate(limits, &Metrics::new("test"));
        let refused = |reason| gate.0.refused.with(["client", reason]).get();
        let (ann, bob) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let held = [gate.begin_handshake(ann), gate.begin_handshake(ann)];
        assert!(held.iter().all(Option::is_some));
        assert!(gate.begin_handshake(ann).is_none());
        assert_eq!(refused("source_handshakes"), 1);
        let last = gate.begin_handshake(bob);
        assert!(last.is_some() && gate.begin_handshake(bob).is_none());
        assert_eq!(refused("handshakes"), 1);
        drop(held);
        assert!(gate.begin_handshake(ann).is_some());
    }

    #[test]
    fn a_balancer_tells_the_client_and_must_tell() {
        on_a_core(async |core| {
            let edge = Edge::open(&core, |_, door| {
                door.security = Security::Plain;
                door.balancers = vec!["127.0.0.1/32".parse().expect("network")];
            });
            let mut told = edge.connect().await;
            told.write_all(&[HEADER, b"ping"].concat())
                .await
                .expect("writes");
            assert_eq!(told.read_u8().await.expect("answered"), b'p');
            assert_eq!(*edge.seen.borrow(), ["192.0.2.7:40000"]);

            let mut silent_about_it = edge.connect().await;
            silent_about_it.write_all(b"ping").await.expect("writes");
            assert!(silent_about_it.read_u8().await.is_err());
            assert_eq!(edge.refused("proxy_missing"), 1);

            let mut broken = edge.connect().await;
            let mut header = HEADER.to_vec();
            header[13] = 0x12;
            broken.write_all(&header).await.expect("writes");
            assert!(broken.read_u8().await.is_err());
            assert_eq!(edge.refused("proxy_family"), 1);
        });
    }

    #[test]
    fn a_stranger_may_not_tell_another_address() {
        on_a_core(async |core| {
            let edge = Edge::open(&core, |_, door| {
                door.security = Security::Plain;
                door.balancers = vec!["192.0.2.250/32".parse().expect("network")];
            });
            let mut liar = edge.connect().await;
            liar.write_all(&[HEADER, b"ping"].concat())
                .await
                .expect("writes");
            assert!(liar.read_u8().await.is_err());
            assert_eq!(edge.refused("proxy_forbidden"), 1);

            let mut honest = edge.connect().await;
            honest.write_all(b"ping").await.expect("writes");
            assert_eq!(honest.read_u8().await.expect("answered"), b'p');
        });
    }

    #[test]
    fn a_balancer_that_only_checks_or_says_nothing_is_no_client() {
        on_a_core(async |core| {
            let edge = Edge::open(&core, |_, door| {
                door.security = Security::Plain;
                door.balancers = vec!["127.0.0.1/32".parse().expect("network")];
                door.handshake_timeout = Duration::from_millis(200);
            });
            let mut silent = edge.connect().await;
            assert!(silent.read_u8().await.is_err());
            assert_eq!(edge.refused("proxy_incomplete"), 1);

            let mut check = edge.connect().await;
            let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
            check.write_all(local).await.expect("writes");
            edge.until(|edge| edge.seen.borrow().len() == 1).await;
            assert!(edge.seen.borrow()[0].starts_with("127.0.0.1:"));
        });
    }

    #[test]
    fn a_new_configuration_is_taken_by_the_next_connection() {
        on_a_core(async |core| {
            let pki = Pki::new(TLS13);
            let config = Arc::new(ArcSwap::new(pki.server(false)));
            let edge = Edge::open(&core, |_, door| {
                door.security = Security::Tls(Arc::clone(&config));
            });
            let dial = dial(edge.address, &pki, edge_test());
            let earlier = dial.open(&core).await.expect("gets in");
            config.store(Pki::new(TLS13).server(false));
            let error = dial.open(&core).await.expect_err("another CA");
            assert_eq!(error.reason(), "certificate_invalid");
            earlier.queue(b"still here").expect("room");
            assert_eq!(read_exactly(&earlier, 10).await, b"still here");
        });
    }

    #[test]
    fn tls_begins_behind_a_header_in_the_same_segment() {
        on_a_core(async |core| {
            let edge = Edge::open(&core, |_, door| {
                door.balancers = vec!["127.0.0.1/32".parse().expect("network")];
            });
            let tcp = edge.connect().await;
            let stream = Stream::new(&core, tcp, edge.address, StreamOptions::default());
            // The header and the ClientHello leave together.
            stream.queue(HEADER).expect("room");
            let within = Duration::from_secs(5);
            stream.queued_below(0).await.expect("written");
            handshake::client(&stream, edge.pki.client(), edge_test(), within)
                .await
                .expect("shakes hands");
            stream.queue(b"ping").expect("room");
            assert_eq!(read_exactly(&stream, 4).await, b"ping");
            assert_eq!(*edge.seen.borrow(), ["192.0.2.7:40000"]);
        });
    }

    #[test]
    fn tls_and_plain_are_told_apart_by_the_first_byte() {
        on_a_core(async |core| {
            let (near, far) = crate::net::test_tls::pair(&core, StreamOptions::default()).await;
            let pki = Pki::new(TLS13);
            let within = Duration::from_secs(5);
            let server = async {
                let first = near.peek(|bytes| bytes.first().copied()).await;
                assert_eq!(first, Ok(Some(0x16)));
                handshake::server(&near, pki.server(false), within).await
            };
            let client = handshake::client(&far, pki.client(), edge_test(), within);
            let (server, client) = tokio::join!(server, client);
            assert_eq!((server, client), (Ok(()), Ok(())));
        });
    }

    #[test]
    fn draining_closes_the_listener_and_no_connection() {
        use crate::net::core_runtime::Cores;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Bind::to(any).tcp_listeners(2).expect("binds");
        let address = listeners[0].local_addr().expect("bound");
        let (gate, door) = (gate(LIMITS, &Metrics::new("test")), plain());
        let cores = Cores::start_with("accept-test", listeners, move |core, listener| {
            let served = serve(core.clone(), listener, gate.clone(), door.clone(), echo);
            async move {
                served.await.expect("a listener of ours");
                core.stopping().await;
            }
        })
        .expect("threads start");
        let mut client = std::net::TcpStream::connect(address).expect("connects");
        let mut ping = || {
            use std::io::{Read as _, Write as _};
            client.write_all(b"ping").expect("writes");
            client.read_exact(&mut [0; 4]).expect("answered");
        };
        ping();
        cores.drain();
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(10), "still listening");
        }
        ping();
        cores.stop();
        cores.join().expect("no panic");
    }

    #[test]
    fn only_a_lack_of_means_makes_the_loop_pause() {
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        assert_eq!(
            pause_after(&error(rustix::io::Errno::MFILE)),
            Some(BACK_OFF)
        );
        assert_eq!(
            pause_after(&error(rustix::io::Errno::NOMEM)),
            Some(BACK_OFF)
        );
        assert_eq!(pause_after(&error(rustix::io::Errno::CONNABORTED)), None);
    }

    /// A listener that echoes.
    struct Edge {
        gate: Gate,
        metrics: Metrics,
        pki: Pki,
        address: SocketAddr,
        /// Remote addresses of those that got through.
        seen: Rc<RefCell<Vec<String>>>,
    }

    impl Edge {
        fn open(core: &CoreContext, change: impl FnOnce(&mut GateLimits, &mut Door)) -> Self {
            let (metrics, pki) = (Metrics::new("test"), Pki::new(TLS13));
            let mut limits = LIMITS;
            let mut door = Door {
                security: Security::Tls(Arc::new(ArcSwap::new(pki.server(false)))),
                ..plain()
            };
            change(&mut limits, &mut door);
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = Bind::to(any).tcp_listener().expect("binds");
            let edge = Self {
                gate: gate(limits, &metrics),
                metrics,
                pki,
                address: listener.local_addr().expect("bound"),
                seen: Rc::default(),
            };
            let seen = Rc::clone(&edge.seen);
            let served = serve(
                core.clone(),
                listener,
                edge.gate.clone(),
                door,
                move |stream| {
                    seen.borrow_mut().push(stream.remote().to_string());
                    echo(stream)
                },
            );
            core.spawn(served);
            edge
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("connects")
        }

        async fn dial(
            &self,
            core: &CoreContext,
            name: ServerName<'static>,
        ) -> Result<Stream, DialError> {
            dial(self.address, &self.pki, name).open(core).await
        }

        async fn until(&self, holds: impl Fn(&Self) -> bool) {
            let begun = Instant::now();
            while !holds(self) {
                assert!(begun.elapsed() < Duration::from_secs(10), "never");
                tokio::task::yield_now().await;
            }
        }

        fn counted(&self, name: &str) -> u64 {
            self.metrics
                .counters(name, "", ["listener"])
                .with(["client"])
                .get()
        }

        fn refused(&self, reason: &str) -> u64 {
            self.gate.0.refused.with(["client", reason]).get()
        }

        fn failed(&self, reason: &str) -> u64 {
            self.gate.0.handshakes_failed.with(["client", reason]).get()
        }
    }

    async fn echo(stream: Stream) {
        loop {
            let read = stream.read(|bytes| {
                stream.queue(bytes).expect("small");
                bytes.len()
            });
            if read.await != Ok(Read::Data) {
                return;
            }
        }
    }

    fn dial(to: SocketAddr, pki: &Pki, name: ServerName<'static>) -> Dial {
        Dial {
            from: Bind::to(SocketAddr::from(([127, 0, 0, 2], 0))),
            to,
            tls: Some(DialTls {
                config: pki.client(),
                name,
            }),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_millis(500),
            stream: StreamOptions::default(),
            tcp: TcpOptions::default(),
        }
    }

    #[test]
    fn gates_within_one_cap_let_in_no_more_than_it_together() {
        let (metrics, all) = (Metrics::new("test"), Cap::new("connections", 3));
        let limits = LIMITS;
        let now = crate::run::now();
        let [client, inside] = ["client", "inside"]
            .map(|name| Gate::within(&all, name, limits, [1; 16], now, &metrics));
        let first = client.enter().expect("room");
        let _others = (client.enter().expect("room"), inside.enter().expect("room"));
        assert_eq!(inside.enter().err(), Some(Refused::Connections));
        drop(first);
        assert!(inside.enter().is_ok());
        assert_eq!((client.connections(), inside.connections()), (1, 1));
    }

    fn gate(limits: GateLimits, metrics: &Metrics) -> Gate {
        Gate::new("client", limits, [1; 16], crate::run::now(), metrics)
    }

    fn plain() -> Door {
        Door {
            security: Security::Plain,
            balancers: Vec::new(),
            handshake_timeout: Duration::from_secs(5),
            stream: StreamOptions::default(),
            tcp: TcpOptions::default(),
        }
    }

    const LIMITS: GateLimits = GateLimits {
        connections: 1000,
        per_source: 256,
        source_rate: Rate {
            per_second: 100,
            burst: 256,
        },
        handshakes: 512,
        handshakes_per_source: 64,
    };
    const TLS13: &rustls::SupportedProtocolVersion = &rustls::version::TLS13;
    /// 192.0.2.7:40000 to 198.51.100.10:443.
    const HEADER: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x0a\x9c\x40\x01\xbb";
}

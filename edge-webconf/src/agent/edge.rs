//! Keeps the control session with one edge up.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::net::bind::{Bind, TcpOptions};
use edge_common::net::core_runtime::Phase;
use edge_common::net::dial::{Dial, DialTls};
use edge_common::net::stream::{Read, Stream, StreamOptions};
use edge_common::random::SystemRandom;
use edge_common::run::now;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use super::backoff::Backoff;
use super::config::Edge;
use super::data;
use super::ledger::NUMBERS_MAX;
use super::link::{Link, Output};
use super::process::{Agent, Answer};
use crate::ewrp::control::Admit;
use crate::ewrp::{Number, Status};

/// One edge of the file, and the session with it.
#[derive(Debug)]
pub struct EdgeState {
    /// As it is in the file.
    pub config: Edge,
    link: RefCell<Option<Link>>,
    /// The link has something to send.
    wake: Notify,
    /// Data connections that are being dialled, or wait for a client.
    pub idle_data: Cell<u32>,
    /// The edge has acknowledged that the agent is about to stop.
    drained: Cell<bool>,
}

impl EdgeState {
    /// Not connected yet.
    #[must_use]
    pub fn new(config: Edge) -> Self {
        Self {
            config,
            link: RefCell::default(),
            wake: Notify::new(),
            idle_data: Cell::new(0),
            drained: Cell::new(false),
        }
    }

    /// Whether the session is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.borrow().as_ref().is_some_and(Link::is_up)
    }

    /// Asks the edge to admit a number; `false` when it cannot be asked now.
    pub fn admit(&self, admit: &Admit) -> bool {
        self.with(|link| {
            let admits = link.admits(admit.reg_id);
            if admits {
                link.admit(admit);
            }
            admits
        })
        .unwrap_or(false)
    }

    /// Whether the edge takes clients for this registration now.
    #[must_use]
    pub fn serves(&self, reg_id: u32) -> bool {
        let link = self.link.borrow();
        link.as_ref().is_some_and(|link| link.admits(reg_id))
    }

    /// Tells the edge that a number is void.
    pub fn revoke(&self, number: Number, cut: bool) {
        self.with(|link| link.revoke(number, cut));
    }

    /// Tells the edge that the agent stops.
    pub fn drain(&self, within: Duration) {
        self.with(|link| {
            if link.is_up() {
                link.drain(within);
            } else {
                link.goodbye();
            }
        });
    }

    /// Whether the edge sends no more clients.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained.get() || !self.is_up()
    }

    /// Ends the session in order.
    pub fn goodbye(&self) {
        self.with(Link::goodbye);
    }

    /// Tells the edge that a data connection did not come about.
    pub fn dial_failed(&self, count: u16) {
        self.with(|link| link.dial_failed(count));
    }

    /// The first bytes of a new data connection; `None` when the session is gone.
    pub fn data_hello(&self) -> Option<[u8; crate::ewrp::data::HELLO_LEN]> {
        self.with(Link::data_hello).flatten()
    }

    fn with<T>(&self, tell: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let told = self.link.borrow_mut().as_mut().map(tell);
        self.wake.notify_one();
        told
    }

    fn poll_output(&self) -> Option<Output> {
        self.link.borrow_mut().as_mut().and_then(Link::poll_output)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.link.borrow().as_ref().and_then(Link::poll_timeout)
    }
}

/// Connects to the edge, again and again, until the agent is about to stop; a session that is up goes on.
pub async fn keep_up(agent: Rc<Agent>, index: usize) {
    let state = &agent.edges[index];
    let mut backoff = Backoff::default();
    while agent.core.phase() == Phase::Serving {
        let connected = tokio::select! {
            connected = connect(&agent, &state.config, &agent.tls.control, CONTROL) => connected,
            () = agent.core.draining() => return,
        };
        match connected {
            Ok(stream) => {
                let began = Instant::now();
                session(&agent, index, &stream).await;
                state.link.replace(None);
                stream.close();
                if began.elapsed() >= STEADY {
                    backoff.reset();
                }
            }
            Err(error) => {
                tracing::warn!(edge = %state.config.fqdn, error, "cannot reach the edge");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next(&mut SystemRandom)) => {}
            () = agent.core.draining() => return,
        }
    }
}

/// Runs one control connection to its end.
async fn session(agent: &Rc<Agent>, index: usize, stream: &Stream) {
    let state = &agent.edges[index];
    let link = Link::new(now().mono, agent.hello(), agent.registrations());
    state.link.replace(Some(link));
    // Dropped at the end of the session: connections that wait for a client end with it.
    let (_alive, session_end) = watch::channel(());
    let mut counted = SessionGauge { agent, up: false };
    loop {
        while let Some(output) = state.poll_output() {
            if carry_out(agent, index, stream, output, &session_end, &mut counted).is_none() {
                return;
            }
        }
        let due = state.poll_timeout();
        let mut received = Vec::new();
        tokio::select! {
            biased;
            read = stream.read(|bytes| {
                received.extend_from_slice(bytes);
                bytes.len()
            }) => match read {
                Ok(Read::Data) => {
                    state.with(|link| link.handle_data(now().mono, &received));
                }
                Ok(Read::End) | Err(_) => {
                    tracing::warn!(edge = %state.config.fqdn, "the control connection broke");
                    return;
                }
            },
            () = state.wake.notified() => {}
            () = wait_until(due) => {
                state.with(|link| link.handle_timeout(now().mono));
            }
        }
    }
}

/// `None`: the session is over.
fn carry_out(
    agent: &Rc<Agent>,
    index: usize,
    stream: &Stream,
    output: Output,
    session_end: &watch::Receiver<()>,
    counted: &mut SessionGauge<'_>,
) -> Option<()> {
    let state = &agent.edges[index];
    let edge = &state.config.fqdn;
    match output {
        Output::Transmit(bytes) => return stream.queue(&bytes).ok(),
        Output::Up => {
            tracing::info!(%edge, "in session with the edge");
            counted.up();
            readmit(agent, state);
        }
        Output::Registered(reg_id, status) => {
            let server = agent.config.server(reg_id);
            let name = server.map_or("", |server| &server.name);
            if status == Status::Ok {
                tracing::info!(%edge, name, "registered");
            } else {
                tracing::error!(%edge, name, status = status.label(), "the edge does not take the registration");
            }
        }
        Output::Admitted(number, status) => {
            let waiting = agent.waiting.borrow();
            if let Some(waiter) = waiting.get(&number) {
                let answer = Answer {
                    edge: index,
                    status,
                };
                // There is room for one answer of each edge; a second one is not waited for.
                if waiter.try_send(answer).is_err() {
                    tracing::debug!(%edge, "an answer that nobody waits for");
                }
            }
        }
        Output::Dial(count) => dial_data(agent, index, count, session_end),
        Output::Closed(closed) => {
            let (bytes_in, bytes_out) = (closed.bytes_in, closed.bytes_out);
            let status = closed.status.label();
            tracing::debug!(%edge, dial_id = closed.dial_id, bytes_in, bytes_out, status, "the edge's account");
        }
        Output::Draining(drain) => {
            tracing::info!(%edge, deadline_ms = drain.deadline_ms, "the edge is about to stop");
        }
        Output::Drained => state.drained.set(true),
        Output::Down(Status::Shutdown, text) => {
            tracing::info!(%edge, text, "session ended");
            return None;
        }
        Output::Down(status, text) => {
            tracing::warn!(%edge, status = status.label(), text, "session ended");
            return None;
        }
    }
    Some(())
}

/// An edge forgets all numbers with the session.
fn readmit(agent: &Agent, state: &EdgeState) {
    let ledger = agent.ledger.borrow();
    for admit in ledger.still_open(now().mono) {
        state.with(|link| link.admit(&admit));
    }
    for number in ledger.revoked() {
        state.with(|link| link.revoke(number, false));
    }
}

fn dial_data(agent: &Rc<Agent>, index: usize, count: u16, session_end: &watch::Receiver<()>) {
    let state = &agent.edges[index];
    let room = IDLE_DATA_MAX.saturating_sub(state.idle_data.get());
    let count = u32::from(count);
    let dial = count.min(room).min(DIALS_MAX);
    for _ in 0..dial {
        let connection = data::run(Rc::clone(agent), index, session_end.clone());
        agent.core.spawn(connection);
    }
    if let Ok(refused) = u16::try_from(count - dial)
        && refused > 0
    {
        state.dial_failed(refused);
    }
}

/// Opens a connection to an edge.
pub async fn connect(
    agent: &Agent,
    edge: &Edge,
    config: &Arc<ClientConfig>,
    options: StreamOptions,
) -> Result<Stream, String> {
    let name = ServerName::try_from(edge.fqdn.as_str().to_owned());
    let tls = DialTls {
        config: Arc::clone(config),
        name: name.map_err(|error| error.to_string())?,
    };
    let addresses = match edge.address {
        Some(address) => vec![SocketAddr::new(address, edge.port)],
        None => look_up(edge.fqdn.as_str(), edge.port).await?,
    };
    dial_any(agent, &addresses, Some(tls), options).await
}

/// Tries the addresses in their order.
pub async fn dial_any(
    agent: &Agent,
    addresses: &[SocketAddr],
    tls: Option<DialTls>,
    stream: StreamOptions,
) -> Result<Stream, String> {
    let within = agent.config.limits.dial_timeout;
    let mut last = "the name has no address".to_owned();
    for &to in addresses {
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let dial = Dial {
            from: Bind::to(SocketAddr::new(any, 0)),
            to,
            tls: tls.clone(),
            connect_timeout: within,
            handshake_timeout: within,
            stream,
            tcp: TcpOptions {
                socket_buffer: Some(SOCKET_BUFFER),
                ..TcpOptions::default()
            },
        };
        match dial.open(&agent.core).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// The addresses of a name inside, by the resolver of the host.
pub async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!("cannot look up {host}: {error}")),
    }
}

/// Counts the session as long as it is up.
struct SessionGauge<'a> {
    agent: &'a Agent,
    up: bool,
}

impl SessionGauge<'_> {
    fn up(&mut self) {
        self.up = true;
        self.agent.counters.sessions.add(1);
        self.agent.ready.set(true);
    }
}

impl Drop for SessionGauge<'_> {
    fn drop(&mut self) {
        if self.up {
            self.agent.counters.sessions.add(-1);
            self.agent.ready.set(self.agent.counters.sessions.get() > 0);
        }
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// An edge that comes back is told all open numbers at once, 26 bytes each.
const CONTROL: StreamOptions = StreamOptions {
    queue_max: 40 * NUMBERS_MAX,
    pending_max: 256 * 1024,
    read_max: 64 * 1024,
};
/// Each way of each socket: what a stalled reader can hold in the kernel, as at the edge.
const SOCKET_BUFFER: usize = 256 * 1024;
/// A session that lasted so long was no failure.
const STEADY: Duration = Duration::from_secs(10);
/// EWRP/1: dials at once.
const DIALS_MAX: u32 = 64;
/// Data connections without a client; an edge's greatest pool is far below.
const IDLE_DATA_MAX: u32 = 4096;

//! MESSAGE transactions: so many clients, each signed in, with so many open requests, or at a given rate.

use super::target::{Dialer, Target};
use super::{PATIENCE, percentile, wire};
use crate::bench::procfs::Processes;
use anyhow::{Context as _, Result, bail};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::stream::{Read, Stream};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// How many transactions, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The proxy.
    pub target: Target,
    /// Its processes.
    pub server: Processes,
    /// The domain of the users.
    pub domain: String,
    /// Clients.
    pub connections: usize,
    /// Open requests of each client; not looked at with a rate.
    pub window: usize,
    /// Requests a second of all clients together, evenly spaced, whatever comes back; 0: as the window lets.
    pub rate: u32,
    /// Bytes of the body.
    pub body: usize,
    /// How long what is measured lasts, seconds.
    pub seconds: f64,
}

/// What it cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Transactions that ended with 200 in the window.
    pub transactions: u64,
    /// Answers with another status, and requests without an answer.
    pub failed: u64,
    /// Length of the window, seconds.
    pub seconds: f64,
    /// CPU of the server, seconds.
    pub server_cpu_s: f64,
    /// The same for each 10,000 transactions.
    pub server_cpu_s_per_10k: f64,
    /// Half of the answers came within, ms.
    pub p50_ms: f64,
    /// 99 % of the answers came within, ms.
    pub p99_ms: f64,
    /// Length of one request, bytes.
    pub request_len: usize,
    /// The most CPU that the load itself can use is the window; what it used, seconds.
    pub load_cpu_s: f64,
}

/// Signs all clients in, lets the load settle, and measures.
pub async fn run(core: &CoreContext, plan: &Plan) -> Result<Report> {
    let dialer = plan.target.dialer()?;
    let shared = Rc::new(Shared::default());
    let users = Users::of(&plan.domain);
    let mut clients = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let stream = users.sign_in(core, &dialer, number).await?;
        clients.push(Client::new(stream, number, plan, &users, &shared));
    }
    let readers: Vec<_> = clients
        .iter()
        .map(|client| core.spawn(client.clone().listen()))
        .collect();
    let pacer = if plan.rate == 0 {
        for client in &clients {
            client.fill(plan.window);
        }
        None
    } else {
        Some(core.spawn(pace(clients.clone(), plan.rate)))
    };
    sleep(SETTLE).await;
    let before = Edge::read(&shared, plan)?;
    shared.measures.set(true);
    sleep(Duration::from_secs_f64(plan.seconds)).await;
    shared.measures.set(false);
    let after = Edge::read(&shared, plan)?;
    shared.stops.set(true);
    if let Some(pacer) = pacer {
        pacer.abort();
    }
    let unanswered = drain(&shared).await;
    for (client, reader) in clients.iter().zip(readers) {
        client.0.stream.close();
        reader.abort();
    }
    report(plan, &shared, &before, &after, unanswered)
}

/// The counters at one edge of the window.
struct Edge {
    at: Instant,
    done: u64,
    server: f64,
    load: f64,
}

impl Edge {
    fn read(shared: &Shared, plan: &Plan) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            done: shared.done.get(),
            server: plan.server.cpu()?,
            load: Processes(vec![std::process::id()]).cpu()?,
        })
    }
}

fn report(
    plan: &Plan,
    shared: &Shared,
    before: &Edge,
    after: &Edge,
    unanswered: u64,
) -> Result<Report> {
    let transactions = after.done - before.done;
    if transactions == 0 {
        bail!("not one transaction was answered");
    }
    let mut latencies = shared.latencies.take();
    latencies.sort_unstable();
    let millis = |share| f64::from(percentile(&latencies, share)) / 1000.0;
    let used = after.server - before.server;
    Ok(Report {
        transactions,
        failed: shared.failed.get() + unanswered,
        seconds: (after.at - before.at).as_secs_f64(),
        server_cpu_s: used,
        server_cpu_s_per_10k: used / transactions as f64 * 1e4,
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        request_len: Users::of(&plan.domain)
            .message(0, 1, &vec![b'x'; plan.body])
            .len(),
        load_cpu_s: after.load - before.load,
    })
}

#[derive(Default)]
struct Shared {
    measures: Cell<bool>,
    stops: Cell<bool>,
    done: Cell<u64>,
    failed: Cell<u64>,
    open: Cell<u64>,
    /// Microseconds.
    latencies: RefCell<Vec<u32>>,
}

/// One signed-in client.
#[derive(Clone)]
struct Client(Rc<State>);

struct State {
    stream: Stream,
    number: usize,
    users: Users,
    body: Vec<u8>,
    closed_loop: bool,
    sequence: Cell<u64>,
    /// When the open requests left, the oldest first, with their numbers.
    sent: RefCell<VecDeque<(u64, Instant)>>,
    shared: Rc<Shared>,
}

impl Client {
    fn new(stream: Stream, number: usize, plan: &Plan, users: &Users, shared: &Rc<Shared>) -> Self {
        Self(Rc::new(State {
            stream,
            number,
            users: users.clone(),
            body: vec![b'x'; plan.body],
            closed_loop: plan.rate == 0,
            sequence: Cell::new(0),
            sent: RefCell::default(),
            shared: Rc::clone(shared),
        }))
    }

    fn fill(&self, window: usize) {
        for _ in 0..window {
            self.send(Instant::now());
        }
    }

    fn send(&self, now: Instant) {
        let state = &*self.0;
        let sequence = state.sequence.get() + 1;
        state.sequence.set(sequence);
        let bytes = state.users.message(state.number, sequence, &state.body);
        if state.stream.queue(&bytes).is_err() {
            state.shared.failed.set(state.shared.failed.get() + 1);
            return;
        }
        state.sent.borrow_mut().push_back((sequence, now));
        state.shared.open.set(state.shared.open.get() + 1);
    }

    async fn listen(self) {
        let stream = self.0.stream.clone();
        while let Ok(Read::Data) = stream.read(|bytes| self.take(bytes)).await {}
    }

    fn take(&self, bytes: &[u8]) -> usize {
        let now = Instant::now();
        let mut at = 0;
        while let Some((head, len)) = wire::first_message(&bytes[at..]) {
            at += len;
            let status = wire::status(head).unwrap_or_default();
            if status >= 200 {
                self.answered(head, status, now);
            }
        }
        at
    }

    fn answered(&self, head: &[u8], status: u16, now: Instant) {
        let state = &*self.0;
        let shared = &*state.shared;
        let Some(since) = wire::header(head, b"call-id")
            .and_then(wire::number_at_end)
            .and_then(|number| self.end(number))
        else {
            return;
        };
        shared.open.set(shared.open.get() - 1);
        if status == 200 {
            shared.done.set(shared.done.get() + 1);
        } else {
            shared.failed.set(shared.failed.get() + 1);
        }
        if shared.measures.get() {
            let micros = (now - since).as_micros();
            let mut latencies = shared.latencies.borrow_mut();
            latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
        }
        if state.closed_loop && !shared.stops.get() {
            self.send(now);
        }
    }

    /// Answers come in nearly the order of their requests.
    fn end(&self, number: u64) -> Option<Instant> {
        let mut sent = self.0.sent.borrow_mut();
        let at = sent.iter().position(|(sequence, _)| *sequence == number)?;
        sent.remove(at).map(|(_, since)| since)
    }
}

/// Sends at an even pace, each time from the next client; tokio's own timers are too coarse for it.
async fn pace(clients: Vec<Client>, rate: u32) -> Result<()> {
    let timer = timer(Duration::from_secs(1) / rate)?;
    let mut next = clients.iter().cycle();
    loop {
        let mut guard = timer.readable().await?;
        let mut ticks = [0; 8];
        match guard.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut ticks)?)) {
            Ok(read) => read?,
            Err(_stale) => continue,
        };
        let now = Instant::now();
        for client in next
            .by_ref()
            .take(usize::try_from(u64::from_ne_bytes(ticks))?)
        {
            client.send(now);
        }
    }
}

fn timer(period: Duration) -> Result<AsyncFd<OwnedFd>> {
    let timer = rustix::time::timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    let period = Timespec::try_from(period).context("a period")?;
    let times = Itimerspec {
        it_interval: period,
        it_value: period,
    };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
    watched(timer)
}

#[expect(
    deprecated,
    reason = "the descriptor is owned and never replaced; the newer call is unsafe, which this workspace denies"
)]
fn watched(timer: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    Ok(AsyncFd::new(timer)?)
}

/// Waits for the last answers; says how many never came.
async fn drain(shared: &Shared) -> u64 {
    let end = Instant::now() + LAST_ANSWERS;
    while shared.open.get() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(5)).await;
    }
    shared.open.get()
}

/// The users of one run. What they send differs from what those of other runs sent: a server that remembers
/// transactions would else take it for a retransmission.
#[derive(Clone, Debug)]
pub struct Users {
    domain: Rc<str>,
    run: u64,
}

impl Users {
    /// Users of that domain, for a new run.
    #[must_use]
    pub fn of(domain: &str) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            domain: domain.into(),
            run: since_1970.map_or(0, |since| since.as_micros() as u64),
        }
    }

    /// Connects and registers, as a client does that wants to be more than a stranger.
    pub async fn sign_in(
        &self,
        core: &CoreContext,
        dialer: &Dialer,
        number: usize,
    ) -> Result<Stream> {
        let stream = dialer.connect(core).await.context("connect")?;
        stream.queue(&self.register(number))?;
        let mut status = None;
        while status.is_none_or(|status| status < 200) {
            let read = stream.read(|bytes| {
                let mut at = 0;
                while let Some((head, len)) = wire::first_message(&bytes[at..]) {
                    at += len;
                    status = wire::status(head);
                }
                at
            });
            match tokio::time::timeout(PATIENCE, read).await {
                Ok(Ok(Read::Data)) => {}
                Ok(Ok(Read::End)) => bail!("client {number}: closed while signing in"),
                Ok(Err(error)) => bail!("client {number}: {error} while signing in"),
                Err(_) => bail!("client {number}: no answer to REGISTER"),
            }
        }
        if status != Some(200) {
            bail!("client {number}: REGISTER was answered with {status:?}");
        }
        Ok(stream)
    }

    fn register(&self, number: usize) -> Vec<u8> {
        let Self { domain, run } = self;
        format!(
            "REGISTER sip:{domain} SIP/2.0\r\n\
         Via: SIP/2.0/TLS 192.0.2.7:50000;branch=z9hG4bKr{run:x}x{number}\r\n\
         From: <sip:u{number}@{domain}>;tag=r{run:x};epid=abb2cb12b77f\r\n\
         To: <sip:u{number}@{domain}>\r\n\
         Max-Forwards: 70\r\n\
         CSeq: 1 REGISTER\r\n\
         Call-ID: r{run:x}-{number}\r\n\
         Contact: <sip:u{number}@192.0.2.7:50000;transport=tls>\r\n\
         Expires: 3600\r\n\
         Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    fn message(&self, number: usize, sequence: u64, body: &[u8]) -> Vec<u8> {
        let Self { domain, run } = self;
        let mut out = Vec::with_capacity(512 + body.len());
        let written = write!(
            out,
            "MESSAGE sip:bob@{domain} SIP/2.0\r\n\
         Via: SIP/2.0/TLS 192.0.2.7:50000;branch=z9hG4bK{run:x}x{number:x}x{sequence:x}\r\n\
         From: <sip:u{number}@{domain}>;tag=m{number};epid=abb2cb12b77f\r\n\
         To: <sip:bob@{domain}>\r\n\
         Max-Forwards: 70\r\n\
         CSeq: 1 MESSAGE\r\n\
         User-Agent: edge-bench\r\n\
         Call-ID: m{run:x}-{number}-{sequence}\r\n\
         Contact: <sip:u{number}@{domain};opaque=user:epid:MGUzMjQ3NTItZTFhYi01NmAA;gruu>\r\n\
         Content-Type: text/plain; charset=UTF-8\r\n\
         Content-Length: {}\r\n\r\n",
            body.len()
        );
        debug_assert!(written.is_ok(), "a Vec takes every write");
        out.extend_from_slice(body);
        out
    }
}

/// Long enough for the connection to the inside and for buffers to grow.
const SETTLE: Duration = Duration::from_millis(500);
const LAST_ANSWERS: Duration = Duration::from_secs(3);

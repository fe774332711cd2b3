//! One thread, one single-threaded runtime and one set of shared buffers for each core.
//!
//! A connection stays on the core that accepted it, so its state is `Rc` and needs no lock. What crosses cores goes by
//! [`super::mailbox`]. There is no work stealing: with it, the task that was to gather writes runs too early
//! and the gathering (one seal and one write per peer and turn) is lost.
//!
//! ```text
//!   Cores::start ─┬─ thread "access-0" ─ local runtime ─ main(CoreContext 0) + the core's flusher
//!                 └─ thread "access-1" ─ …
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::stream::Flushable;
use super::tls_driver::PARTIAL_MAX;
use crate::observe::log::{ConnectionId, ConnectionIds};

/// The threads of a daemon's cores, as the main thread holds them.
#[derive(Debug)]
pub struct Cores {
    threads: Vec<JoinHandle<()>>,
    phase: watch::Sender<Phase>,
    ended: watch::Receiver<usize>,
    hearts: Vec<Arc<Heart>>,
}

/// How far the daemon is in its life; every core sees the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// New work is welcome.
    Serving,
    /// No new work; what is there may end by itself.
    Draining,
    /// End now.
    Stopping,
}

impl Cores {
    /// Starts `count` threads (0: one for each CPU that the process may use) named `NAME-0`, `NAME-1`, … and runs `main`
    /// once on each. A core ends when its `main` returns; its other tasks are dropped then.
    pub fn start<F, Fut>(name: &str, count: usize, main: F) -> io::Result<Self>
    where
        F: Fn(CoreContext) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let seeds = vec![(); core_count(count)];
        Self::start_with(name, seeds, move |core, ()| main(core))
    }

    /// The same with something of its own for each core (its listeners, its mailboxes): one core for each seed.
    pub fn start_with<S, F, Fut>(name: &str, seeds: Vec<S>, main: F) -> io::Result<Self>
    where
        S: Send + 'static,
        F: Fn(CoreContext, S) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let (phase, phase_seen) = watch::channel(Phase::Serving);
        let (end, ended) = watch::channel(0);
        let count = seeds.len();
        let mut cores = Self {
            threads: Vec::with_capacity(count),
            phase,
            ended,
            hearts: (0..count).map(|_| Arc::default()).collect(),
        };
        for (index, seed) in seeds.into_iter().enumerate() {
            let (main, end) = (main.clone(), EndMark(end.clone()));
            let place = Place {
                index,
                count,
                phase: phase_seen.clone(),
                heart: Arc::clone(&cores.hearts[index]),
            };
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    let _end = end;
                    run_core(place, |core| main(core, seed));
                })?;
            cores.threads.push(thread);
        }
        Ok(cores)
    }

    /// How many cores were started.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hearts.len()
    }

    /// Tells every core to take no new work ([`CoreContext::draining`]).
    pub fn drain(&self) {
        self.enter(Phase::Draining);
    }

    /// Tells every core to end ([`CoreContext::stopping`]).
    pub fn stop(&self) {
        self.enter(Phase::Stopping);
    }

    /// Waits until a core has ended, by itself or by a panic.
    pub async fn any_ended(&self) {
        self.ended_at_least(1).await;
    }

    /// Waits until all cores have ended.
    pub async fn all_ended(&self) {
        self.ended_at_least(self.count()).await;
    }

    /// Whether each core's event loop still turns; free to move to another thread.
    #[must_use]
    pub fn heartbeats(&self) -> Heartbeats {
        Heartbeats(self.hearts.clone().into())
    }

    /// Waits for all threads. `Err` holds the numbers of the cores that panicked.
    pub fn join(self) -> Result<(), CoresPanicked> {
        let panicked: Vec<usize> = self
            .threads
            .into_iter()
            .enumerate()
            .filter_map(|(index, thread)| thread.join().is_err().then_some(index))
            .collect();
        if panicked.is_empty() {
            Ok(())
        } else {
            Err(CoresPanicked(panicked))
        }
    }

    /// Phases only go forward: a stop is not undone by a late drain.
    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }

    async fn ended_at_least(&self, count: usize) {
        let mut ended = self.ended.clone();
        // An error means that every core has dropped its mark: all ended.
        if ended.wait_for(|ended| *ended >= count).await.is_err() {
            tracing::trace!("all cores have ended");
        }
    }
}

/// Some cores ended by a panic: a fault of ours, told by the panic's own message before.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cores {0:?} panicked")]
pub struct CoresPanicked(pub Vec<usize>);

/// What runs on a core knows its core by this: cheap to clone, never leaves the thread.
#[derive(Clone, Debug)]
pub struct CoreContext(Rc<Core>);

struct Core {
    place: Place,
    buffers: Cell<Option<Box<Buffers>>>,
    /// Streams with something to write, each once.
    dirty: RefCell<Vec<Flushable>>,
    flusher: Cell<Option<Waker>>,
    /// Emptied queues of streams, to be used again by the next that fills.
    spare: RefCell<Vec<BytesMut>>,
    ids: RefCell<ConnectionIds>,
    /// Streams of this core that still hold their socket.
    streams: watch::Sender<usize>,
    ended: Cell<bool>,
    share: Cell<Share>,
}

/// The buffers that all connections of a core share; they hold bytes only while one connection takes its turn.
pub(crate) struct Buffers {
    /// What comes from a socket, behind what the TLS driver kept: [`PARTIAL_MAX`] + [`READ_MAX`] bytes.
    pub(crate) received: Box<[u8]>,
    /// Plaintext of one turn.
    pub(crate) plain: Vec<u8>,
    /// Records of one turn.
    pub(crate) sealed: Vec<u8>,
}

impl Buffers {
    fn new() -> Box<Self> {
        Box::new(Self {
            received: vec![0; PARTIAL_MAX + READ_MAX].into(),
            plain: Vec::with_capacity(READ_MAX),
            sealed: Vec::with_capacity(READ_MAX),
        })
    }
}

/// Where a core stands among the others.
#[derive(Debug)]
struct Place {
    index: usize,
    count: usize,
    phase: watch::Receiver<Phase>,
    heart: Arc<Heart>,
}

impl CoreContext {
    /// A core of its own on the current thread, for tests and small tools. Call it where local tasks can be spawned (a
    /// `LocalRuntime` or `LocalSet`).
    #[must_use]
    pub fn alone() -> Self {
        // The sender is dropped: such a core serves until its runtime ends.
        let (_, phase) = watch::channel(Phase::Serving);
        Self::enter(Place {
            index: 0,
            count: 1,
            phase,
            heart: Arc::default(),
        })
    }

    /// The number of this core, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0.place.index
    }

    /// How many cores there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.place.count
    }

    /// The daemon's phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.place.phase.borrow()
    }

    /// Waits until no new work shall be taken.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until the core shall end.
    pub async fn stopping(&self) {
        self.reached(Phase::Stopping).await;
    }

    /// How many connections the core has, lingering ones included.
    #[must_use]
    pub fn streams(&self) -> usize {
        *self.0.streams.borrow()
    }

    /// Waits until the core has no connection left: what a draining core does before it returns.
    pub async fn streams_ended(&self) {
        let mut streams = self.0.streams.subscribe();
        if streams.wait_for(|&count| count == 0).await.is_err() {
            tracing::trace!("the core counts no more");
        }
    }

    /// Starts a task on this core. A panic in it ends the task, not the core.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(task)
    }

    pub(crate) fn next_connection(&self) -> ConnectionId {
        self.0.ids.borrow_mut().take()
    }

    /// Lends the shared buffers for one turn of one connection. Nothing may wait while it has them.
    pub(crate) fn with_buffers<R>(&self, turn: impl FnOnce(&mut Buffers) -> R) -> R {
        // A turn within a turn (a callback that closes another connection) gets buffers of its own.
        let mut buffers = self.0.buffers.take().unwrap_or_else(Buffers::new);
        let result = turn(&mut buffers);
        buffers.plain.clear();
        buffers.sealed.clear();
        self.0.buffers.set(Some(buffers));
        result
    }

    /// The most that one read may take in this turn.
    pub(crate) fn read_share(&self) -> usize {
        self.0.share.get().size
    }

    /// A read gave `len` bytes.
    pub(crate) fn note_read(&self, len: usize) {
        SHORT_WAIT.set(SHORT_WAIT.get().read(len));
        if len >= BULK_READ {
            self.0.share.set(self.0.share.get().bulk());
        }
    }

    /// Puts a stream on the list of those to flush when the tasks that are ready now have run.
    pub(crate) fn flush_later(&self, stream: Flushable) {
        if self.has_ended() {
            return;
        }
        self.0.dirty.borrow_mut().push(stream);
        if let Some(flusher) = self.0.flusher.take() {
            flusher.wake();
        }
    }

    /// The core's tasks are being dropped: nothing more will be written.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.ended.get()
    }

    /// An empty queue, with room if another stream has just given one back.
    pub(crate) fn take_queue(&self) -> BytesMut {
        self.0.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back a queue that is done with.
    pub(crate) fn give_queue(&self, mut queue: BytesMut) {
        let mut spare = self.0.spare.borrow_mut();
        if spare.len() < SPARE_QUEUES && (1..=SPARE_LEN_MAX).contains(&queue.capacity()) {
            queue.clear();
            spare.push(queue);
        }
    }

    fn enter(place: Place) -> Self {
        let ids = RefCell::new(ConnectionIds::new(place.index));
        let core = Self(Rc::new(Core {
            place,
            buffers: Cell::new(None),
            dirty: RefCell::default(),
            flusher: Cell::new(None),
            spare: RefCell::default(),
            ids,
            streams: watch::Sender::new(0),
            ended: Cell::new(false),
            share: Cell::new(Share::new()),
        }));
        core.spawn(flush_dirty(Rc::downgrade(&core.0)));
        core
    }

    /// Whatever `main` queued or closed at last is given to the sockets that take it, before they are dropped.
    async fn farewell(&self) {
        for _ in 0..FAREWELL_TURNS {
            tokio::task::yield_now().await;
            if self.0.dirty.borrow().is_empty() {
                break;
            }
        }
    }

    async fn reached(&self, phase: Phase) {
        let mut seen = self.0.place.phase.clone();
        if seen.wait_for(|current| *current >= phase).await.is_err() {
            // Nobody is left who could change it.
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("index", &self.place.index)
            .field("count", &self.place.count)
            .finish_non_exhaustive()
    }
}

/// A core, seen from one of its connections, which it counts.
pub(crate) struct CountedCore(CoreContext);

impl CountedCore {
    pub(crate) fn new(core: &CoreContext) -> Self {
        core.0.streams.send_modify(|count| *count += 1);
        Self(core.clone())
    }
}

impl Drop for CountedCore {
    fn drop(&mut self) {
        self.0.0.streams.send_modify(|count| *count -= 1);
    }
}

impl Deref for CountedCore {
    type Target = CoreContext;

    fn deref(&self) -> &CoreContext {
        &self.0
    }
}

/// The core's flusher. It is woken by the first stream that gets something to write, which puts it behind all tasks
/// that were ready before: what they queue rides in the same records.
async fn flush_dirty(core: Weak<Core>) {
    let _end = FlusherEnd(Weak::clone(&core));
    let mut batch = Vec::new();
    loop {
        let gone = poll_fn(|context| {
            let Some(core) = core.upgrade() else {
                return Poll::Ready(true);
            };
            std::mem::swap(&mut batch, &mut core.dirty.borrow_mut());
            if batch.is_empty() {
                core.flusher.set(Some(context.waker().clone()));
                return Poll::Pending;
            }
            Poll::Ready(false)
        });
        if gone.await {
            return;
        }
        for stream in batch.drain(..) {
            stream.flush();
        }
        if let Some(core) = core.upgrade() {
            core.share.set(core.share.get().next_turn());
            if core.dirty.borrow().is_empty() {
                continue;
            }
        }
        // A stream that has more for another turn is on the list again; the others come first.
        tokio::task::yield_now().await;
    }
}

/// Streams on the list hold their core, and the core holds the list: the last to leave breaks the circle.
struct FlusherEnd(Weak<Core>);

impl Drop for FlusherEnd {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.ended.set(true);
            drop(core.dirty.take());
        }
    }
}

/// The number of cores for a configured `count`: 0 means all that the process may run on, up to [`CORES_MAX`].
#[must_use]
pub fn core_count(count: usize) -> usize {
    let wanted = match count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    wanted.min(CORES_MAX)
}

/// The number of a core stands in one byte of tokens and of the relay's tables, which keep one value for "nobody".
pub const CORES_MAX: usize = 255;

fn run_core<F, Fut>(place: Place, main: F)
where
    F: FnOnce(CoreContext) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS_PER_POLL)
        .on_thread_park(before_sleep)
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(core = place.index, %error, "the runtime of a core could not be made");
            return;
        }
    };
    shorten_timer_slack();
    runtime.block_on(async move {
        tokio::task::spawn_local(Arc::clone(&place.heart).beat());
        let core = CoreContext::enter(place);
        main(core.clone()).await;
        core.farewell().await;
    });
}

/// Counts that the end of a core leaves, however it ends.
struct EndMark(watch::Sender<usize>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.send_modify(|ended| *ended += 1);
    }
}

/// Tells which cores hang.
#[derive(Clone, Debug)]
pub struct Heartbeats(Arc<[Arc<Heart>]>);

impl Heartbeats {
    /// The numbers of the cores that have not turned for longer than `limit`.
    #[must_use]
    pub fn silent_for(&self, limit: Duration) -> Vec<usize> {
        let now = crate::run::now().mono;
        let hearts = self.0.iter().enumerate();
        hearts
            .filter_map(|(core, heart)| (heart.silence(now) > limit).then_some(core))
            .collect()
    }
}

/// What the main thread may see of a core's event loop.
#[derive(Debug)]
struct Heart {
    start: Instant,
    /// Milliseconds after `start`.
    last_beat: AtomicU64,
}

impl Default for Heart {
    fn default() -> Self {
        Self {
            start: crate::run::now().mono,
            last_beat: AtomicU64::new(0),
        }
    }
}

impl Heart {
    fn silence(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start)
            .saturating_sub(last)
    }

    /// The task of a core that shows that its tasks get their turn.
    async fn beat(self: Arc<Self>) {
        let mut interval = tokio::time::interval(HEARTBEAT);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let now = crate::run::now().mono;
            let since = now.saturating_duration_since(self.start).as_millis() as u64;
            self.last_beat.store(since, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static SHORT_WAIT: Cell<ShortWait> = const { Cell::new(ShortWait::new()) };
}

/// Runs each time the core has nothing left to do.
fn before_sleep() {
    let (wait, decided) = SHORT_WAIT.get().sleep(crate::run::now().mono);
    SHORT_WAIT.set(wait);
    if let Some(pause) = decided {
        std::thread::sleep(pause);
    }
}

/// The kernel's default slack of 50 µs would double the short wait. Without the right to change it we wait longer.
fn shorten_timer_slack() {
    if let Some(slack) = std::num::NonZeroU64::new(1_000)
        && let Err(error) = rustix::thread::set_current_timer_slack(Some(slack))
    {
        tracing::debug!(%error, "the timer slack stays as it is");
    }
}

/// Decides whether to wait a moment before sleeping in the kernel.
///
/// While many small messages arrive, each of them would wake the core and be written on its own. A pause of
/// 50 µs lets a few of them come together: a third less CPU at 4,000 messages a second, for 0.1 ms of delay. When
/// reads are long or rare the pause gains nothing, and there is none.
#[derive(Clone, Copy, Debug)]
struct ShortWait {
    window: Option<Instant>,
    reads: u32,
    bytes: usize,
    /// What the last full window said.
    busy: bool,
}

impl ShortWait {
    const fn new() -> Self {
        Self {
            window: None,
            reads: 0,
            bytes: 0,
            busy: false,
        }
    }

    const fn read(mut self, len: usize) -> Self {
        self.reads = self.reads.saturating_add(1);
        self.bytes = self.bytes.saturating_add(len);
        self
    }

    /// The core is about to sleep: what to remember, and how long to wait first.
    fn sleep(mut self, now: Instant) -> (Self, Option<Duration>) {
        let begun = *self.window.get_or_insert(now);
        let length = now.saturating_duration_since(begun);
        if length >= WINDOW {
            let often = f64::from(self.reads) >= READS_PER_SECOND * length.as_secs_f64();
            let short = self.bytes <= SHORT_READ * self.reads as usize;
            self = Self {
                window: Some(now),
                busy: often && short,
                ..Self::new()
            };
        }
        (self, self.busy.then_some(PAUSE))
    }
}

/// How much one read may take, so that a turn of the core stays short however many connections are busy.
///
/// A small message waits for the turn that is under way: 20 relays that take 64 KiB each way are 2.5 MB, some
/// milliseconds. The more reads of the last turn were long ones, the shorter are those of this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// Bytes of one read.
    size: usize,
    /// Long reads of this turn.
    bulk: usize,
}

impl Share {
    const fn new() -> Self {
        Self {
            size: READ_MAX,
            bulk: 0,
        }
    }

    const fn bulk(mut self) -> Self {
        self.bulk += 1;
        self
    }

    fn next_turn(self) -> Self {
        Self {
            size: (TURN_BUDGET / self.bulk.max(1)).clamp(SHARE_MIN, READ_MAX),
            bulk: 0,
        }
    }
}

/// The most that one read takes from a socket: the budget of a connection for one turn.
pub const READ_MAX: usize = 64 * 1024;
/// Bytes of long reads that one turn of a core aims at: half a millisecond of a relay's work.
const TURN_BUDGET: usize = 512 * 1024;
/// A full TLS record and its head: a smaller share would cut every record of a busy stream in two.
const SHARE_MIN: usize = 17 * 1024;
/// From here on a read counts as a long one.
const BULK_READ: usize = 8 * 1024;
const SPARE_QUEUES: usize = 32;
const SPARE_LEN_MAX: usize = 32 * 1024;

/// Tasks that run before the sockets are asked again for what is ready: with tokio's 61, a small message would wait for
/// as many full turns of busy relays.
const TASKS_PER_POLL: u32 = 16;
/// The flusher's list is empty after the first turn, unless somebody has megabytes to say.
const FAREWELL_TURNS: usize = 64;
const HEARTBEAT: Duration = Duration::from_millis(500);

const PAUSE: Duration = Duration::from_micros(50);
/// Long enough to count a few reads at the lowest rate that matters, short enough to stop soon after a burst.
const WINDOW: Duration = Duration::from_millis(10);
const READS_PER_SECOND: f64 = 2_000.0;
/// A SIP message or a small frame; bulk arrives in larger pieces and gathers by itself.
const SHORT_READ: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::stream::Stream;

    #[test]
    fn many_busy_connections_share_a_turn() {
        let few = (0..4).fold(Share::new(), |share, _| share.bulk());
        assert_eq!(few.next_turn().size, READ_MAX);
        let many = (0..20).fold(Share::new(), |share, _| share.bulk());
        assert_eq!(many.next_turn().size, TURN_BUDGET / 20);
        let crowd = (0..1000).fold(Share::new(), |share, _| share.bulk());
        assert_eq!(crowd.next_turn().size, SHARE_MIN);
        assert_eq!(crowd.next_turn().next_turn(), Share::new(), "and it passes");
    }

    #[test]
    fn every_core_runs_on_a_thread_of_its_own_with_its_name() {
        let (said, heard) = std::sync::mpsc::channel();
        let cores = Cores::start("net-test", 3, move |core| {
            let said = said.clone();
            async move {
                let name = std::thread::current().name().map(str::to_owned);
                said.send((core.index(), core.count(), name))
                    .expect("the test waits");
            }
        })
        .expect("threads start");
        cores.join().expect("no core panicked");
        let mut seen: Vec<_> = heard.iter().collect();
        seen.sort();
        let expected: Vec<_> = (0..3)
            .map(|n| (n, 3, Some(format!("net-test-{n}"))))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_last_words_of_a_core_are_written() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let cores = Cores::start("net-test", 1, move |core| async move {
            let tcp = tokio::net::TcpStream::connect(address).await;
            let options = crate::net::stream::StreamOptions::default();
            let stream = Stream::new(&core, tcp.expect("connects"), address, options);
            stream.queue(b"bye").expect("room");
            stream.close();
        })
        .expect("threads start");
        let (mut far, _) = listener.accept().expect("accepts");
        let mut words = Vec::new();
        io::Read::read_to_end(&mut far, &mut words).expect("a proper end");
        assert_eq!(words, b"bye");
        cores.join().expect("no core panicked");
    }

    #[test]
    fn phases_reach_every_core_and_never_go_back() {
        let cores = Cores::start("net-test", 2, |core| async move {
            core.draining().await;
            assert!(core.phase() >= Phase::Draining);
            core.stopping().await;
            assert_eq!(core.phase(), Phase::Stopping);
        })
        .expect("threads start");
        cores.drain();
        cores.stop();
        cores.drain();
        cores.join().expect("no core panicked");
    }

    #[test]
    fn a_panic_of_a_core_is_told_by_its_number() {
        let cores = Cores::start("net-test", 2, |core| async move {
            assert_ne!(core.index(), 1, "this panic is part of the test");
        })
        .expect("threads start");
        let runtime = Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(cores.all_ended());
        assert_eq!(cores.join(), Err(CoresPanicked(vec![1])));
    }

    #[test]
    fn a_panic_of_a_task_leaves_its_core_alive() {
        let cores = Cores::start("net-test", 1, |core| async move {
            let task = core.spawn(async { panic!("this panic is part of the test") });
            assert!(task.await.is_err());
        })
        .expect("threads start");
        cores.join().expect("the core lived on");
    }

    #[test]
    fn a_core_that_hangs_is_found_and_an_idle_one_is_not() {
        let cores = Cores::start("net-test", 2, |core| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if core.index() == 1 {
                std::thread::sleep(HEARTBEAT * 4);
            }
            core.stopping().await;
        })
        .expect("threads start");
        std::thread::sleep(HEARTBEAT * 3);
        assert_eq!(cores.heartbeats().silent_for(HEARTBEAT * 2), [1]);
        cores.stop();
        cores.join().expect("no core panicked");
    }

    #[test]
    fn the_pause_comes_with_many_short_reads_only() {
        let many_short = windows(40, 400);
        let many_long = windows(40, 16_384);
        let few = windows(4, 400);
        assert_eq!(
            (many_short, many_long, few),
            (Some(PAUSE), None, None),
            "reads in 10 ms, bytes each"
        );
    }

    #[test]
    fn the_pause_ends_with_the_burst() {
        let start = crate::run::now().mono;
        let mut wait = ShortWait::new().sleep(start).0;
        for _ in 0..100 {
            wait = wait.read(400);
        }
        let (wait, pause) = wait.sleep(start + WINDOW);
        assert_eq!(pause, Some(PAUSE));
        let (_, pause) = wait.sleep(start + WINDOW * 2);
        assert_eq!(pause, None);
    }

    /// One window with `reads` of `len` bytes, then the decision.
    fn windows(reads: usize, len: usize) -> Option<Duration> {
        let start = crate::run::now().mono;
        let mut wait = ShortWait::new().sleep(start).0;
        for _ in 0..reads {
            wait = wait.read(len);
        }
        wait.sleep(start + WINDOW).1
    }
}

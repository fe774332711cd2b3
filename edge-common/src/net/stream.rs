//! A connection: plain TCP or TLS, with one face.
//!
//! ```text
//!   socket ─► shared buffer ─► TLS driver ─► read(|bytes| …)         what is not consumed is kept and shown again
//!   queue(bytes) ─► queue ─► flusher: one seal, one write ─► socket   once for each stream and turn of the core
//! ```
//!
//! **Reading** lends the bytes to a closure, which says how many it has consumed. An idle connection holds no buffer.
//! One read takes at most 64 KiB, and a connection that has had that much in a row lets the others run.
//!
//! **Writing** never waits: [`Stream::queue`] takes the bytes or says that the queue is full. All that is queued while
//! the ready tasks run leaves in one run of records and one system call. Who wants back-pressure asks
//! [`Stream::queued_below`] before it reads more from the other side. While the far end takes nothing, the queue
//! stays plaintext: media in it can still be replaced by newer ([`Stream::queue_media`]).
//!
//! **Ending**: [`Stream::finish`] ends our direction (close_notify, FIN) behind what is queued, and leaves the other one
//! open. [`Stream::close`] ends both; so does dropping the last handle. [`Stream::abort`] throws the queue away and
//! resets the connection.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::core_runtime::{self, Buffers, CoreContext, CountedCore, READ_MAX};
use super::tls_driver::{TlsDriver, TlsError};
use crate::observe::log::ConnectionId;

/// A handle of a connection. Clones are the same connection; it never leaves its core.
pub struct Stream(Rc<Inner>);

/// The bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// The most bytes that wait to be written; what does not fit is refused. A relay that stops reading at a mark needs
    /// the mark and [`PLAIN_PER_READ_MAX`] on top.
    pub queue_max: usize,
    /// The most received bytes that wait to be consumed: the longest message, and the next read.
    pub pending_max: usize,
    /// The most that one read takes from the socket, up to [`READ_MAX`].
    pub read_max: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            queue_max: 256 * 1024,
            pending_max: 256 * 1024,
            read_max: READ_MAX,
        }
    }
}

/// What [`Stream::read`] met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes were shown.
    Data,
    /// The far end sends no more, and said so properly. We may still write.
    End,
}

/// Why a stream gives no more.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(io::ErrorKind),
    /// TLS failed; our alert was sent.
    #[error("TLS failed: {0}")]
    Tls(#[from] TlsError),
    /// The connection ended without close_notify: what came may not be all.
    #[error("the connection ended in the midst")]
    Truncated,
    /// More than [`StreamOptions::pending_max`] waits to be consumed.
    #[error("too many bytes wait to be consumed")]
    PendingFull,
    /// We ended it ourselves: [`Stream::close`] or [`Stream::abort`].
    #[error("the connection was closed by us")]
    Closed,
}

impl StreamError {
    /// A name from a short fixed list, for the label of a counter.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Socket(_) => "socket",
            Self::Tls(error) => error.reason(),
            Self::Truncated => "truncated",
            Self::PendingFull => "pending_full",
            Self::Closed => "closed",
        }
    }
}

/// Why [`Stream::queue`] took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The far end reads too slowly: what waits has reached [`StreamOptions::queue_max`].
    #[error("the outbound queue is full")]
    Full,
    /// Our direction has ended.
    #[error("the connection is closed for writing")]
    Closed,
}

/// What a stream has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Reads of the socket that gave bytes.
    pub reads: u32,
    /// Writes to the socket that took bytes.
    pub writes: u32,
    /// Runs of records made from queued plaintext.
    pub seals: u32,
    /// Bytes from the socket.
    pub bytes_in: u64,
    /// Bytes to the socket.
    pub bytes_out: u64,
    /// Bytes that callers queued and that were accepted.
    pub queued: u64,
    /// Frames that gave way in [`Stream::queue_media`].
    pub media_dropped: u32,
}

impl Stream {
    /// Takes a connected socket. It begins as plain TCP; `handshake` turns it into TLS.
    #[must_use]
    pub fn new(
        core: &CoreContext,
        tcp: TcpStream,
        remote: SocketAddr,
        options: StreamOptions,
    ) -> Self {
        Self(Rc::new(Inner {
            core: CountedCore::new(core),
            id: core.next_connection(),
            tcp,
            remote: Cell::new(remote),
            options,
            handles: Cell::new(1),
            guard: RefCell::new(None),
            state: RefCell::new(State::default()),
        }))
    }

    /// Waits for bytes and shows all that are not consumed yet; `show` says how many of them it has consumed. It is
    /// called once at most, and not at [`Read::End`].
    ///
    /// Bytes that were kept are shown again only together with new ones. Cancelling it loses nothing.
    pub async fn read(&self, show: impl FnOnce(&[u8]) -> usize) -> Result<Read, StreamError> {
        if self.0.owes_a_turn() {
            tokio::task::yield_now().await;
        }
        let mut show = Some(show);
        poll_fn(|context| self.0.poll_read(context, &mut show)).await
    }

    /// Reads without consuming: waits until `enough` says that it has seen what it needs. What was seen is shown again
    /// by the next [`Stream::read`], or goes into a handshake.
    pub async fn peek<T>(
        &self,
        mut enough: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, StreamError> {
        let mut seen = None;
        while seen.is_none() {
            let read = self
                .read(|bytes| {
                    seen = enough(bytes);
                    0
                })
                .await?;
            if read == Read::End {
                break;
            }
        }
        self.0.show_again();
        Ok(seen)
    }

    /// Puts bytes at the end of the outbound queue: all of them or none. They leave together with everything else that
    /// is queued in this turn.
    pub fn queue(&self, bytes: &[u8]) -> Result<(), QueueError> {
        self.0.queue(bytes, Kind::Kept)
    }

    /// Queues a frame that is worth little when it is late. If there is no room, the oldest such frames that still
    /// wait give way, down to half the queue; what [`Stream::queue`] put there stays.
    pub fn queue_media(&self, frame: &[u8]) -> Result<(), QueueError> {
        match self.0.queue(frame, Kind::Media) {
            Err(QueueError::Full) => {
                self.0
                    .state
                    .borrow_mut()
                    .drop_media(self.0.options.queue_max / 2);
                self.0.queue(frame, Kind::Media)
            }
            taken => taken,
        }
    }

    /// Bytes that wait to be written: queued ones, and records that the socket has not taken.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.state.borrow().waiting()
    }

    /// Waits until at most `mark` bytes wait to be written: what a relay does before it reads on.
    pub async fn queued_below(&self, mark: usize) -> Result<(), StreamError> {
        poll_fn(|context| {
            let mut state = self.0.state.borrow_mut();
            if let Some(error) = &state.failure {
                return Poll::Ready(Err(error.clone()));
            }
            if state.waiting() <= mark {
                return Poll::Ready(Ok(()));
            }
            state.wait_for_room(context);
            Poll::Pending
        })
        .await
    }

    /// Ends our direction behind what is queued: close_notify, then FIN. Reading goes on.
    pub fn finish(&self) {
        self.0.finish();
    }

    /// Waits until [`Stream::finish`] has been carried out to the last byte.
    pub async fn finished(&self) -> Result<(), StreamError> {
        poll_fn(|context| self.0.poll_finished(context)).await
    }

    /// Ends both directions: what is queued is still written, for at most [`LINGER`]. A read that waits gets
    /// [`StreamError::Closed`].
    pub fn close(&self) {
        self.0.close();
    }

    /// Throws away what is queued and resets the connection.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Its name in the log, unique in the life of the process.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// Where the far end is: behind a balancer, the address that the balancer told.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.0.remote.get()
    }

    /// The local end of the socket.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.0.tcp.local_addr()
    }

    /// The core that the connection belongs to.
    #[must_use]
    pub fn core(&self) -> &CoreContext {
        &self.0.core
    }

    /// TLS is up (or being set up) on this connection.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.tls(|_| ()).is_some()
    }

    /// The peer's chain, its own certificate first; empty if it showed none.
    #[must_use]
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0
            .tls(|driver| driver.peer_certificates().to_vec())
            .unwrap_or_default()
    }

    /// The application protocol that the handshake agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.0.tls(|driver| driver.alpn().map(<[u8]>::to_vec))?
    }

    /// The name that the client asked for.
    #[must_use]
    pub fn sni(&self) -> Option<String> {
        self.0.tls(|driver| driver.sni().map(str::to_owned))?
    }

    /// The TLS version in use.
    #[must_use]
    pub fn tls_version(&self) -> Option<ProtocolVersion> {
        self.0.tls(TlsDriver::version)?
    }

    /// Figures of this connection.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.0.state.borrow().stats
    }

    /// Bytes of buffers that this connection holds now; 0 when it is idle.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.0.state.borrow().buffered()
    }

    /// Keeps something (a permit, as a rule) for as long as the connection really exists, lingering included.
    pub fn hold(&self, guard: impl Any + Send) {
        let earlier = self.0.guard.take();
        let both: Box<dyn Any + Send> = Box::new((earlier, guard));
        self.0.guard.replace(Some(both));
    }

    /// The far end's own address, when a balancer in between has told it.
    pub fn set_remote(&self, remote: SocketAddr) {
        self.0.remote.set(remote);
    }

    /// What is pending counts as new: the next read shows it without waiting.
    pub(crate) fn show_again(&self) {
        self.0.show_again();
    }

    /// Makes it TLS: what was received and not consumed is the beginning of the handshake.
    pub(crate) fn start_tls(&self, driver: TlsDriver) -> Result<(), StreamError> {
        self.0.start_tls(driver)
    }

    /// Waits until the handshake is done and its last bytes are written.
    pub(crate) async fn handshaken(&self) -> Result<(), StreamError> {
        poll_fn(|context| self.0.poll_handshake(context)).await?;
        self.queued_below(0).await
    }
}

impl Clone for Stream {
    fn clone(&self) -> Self {
        self.0.handles.set(self.0.handles.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let left = self.0.handles.get() - 1;
        self.0.handles.set(left);
        if left == 0 {
            self.0.close();
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("remote", &self.remote())
            .field("tls", &self.is_tls())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

/// A connection on its way from one core to another: the socket, its TLS state and its guard.
pub struct Detached {
    tcp: std::net::TcpStream,
    tls: Option<Box<TlsDriver>>,
    remote: SocketAddr,
    options: StreamOptions,
    guard: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// A connection stays on its core, or is lost.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// It has other handles, has failed or ended, or bytes wait on either side. Here it is.
    #[error("the connection is in use")]
    Busy(Stream),
    /// The runtime did not give the socket back.
    #[error("the socket cannot leave its runtime: {0}")]
    Socket(io::Error),
}

impl Stream {
    /// Takes an idle connection off its core, to be attached to another.
    pub fn detach(self) -> Result<Detached, DetachError> {
        if !self.is_idle() {
            return Err(DetachError::Busy(self));
        }
        let inner = Rc::clone(&self.0);
        // The handle goes, the connection stays: its drop must not close it.
        inner.handles.set(2);
        drop(self);
        let inner = Rc::try_unwrap(inner).map_err(|inner| {
            inner.handles.set(1);
            DetachError::Busy(Self(inner))
        })?;
        Ok(Detached {
            tcp: inner.tcp.into_std().map_err(DetachError::Socket)?,
            tls: inner.state.into_inner().tls,
            remote: inner.remote.get(),
            options: inner.options,
            guard: inner.guard.into_inner(),
        })
    }

    /// Puts a detached connection on this core.
    pub fn attach(core: &CoreContext, detached: Detached) -> io::Result<Self> {
        let tcp = TcpStream::from_std(detached.tcp)?;
        let stream = Self::new(core, tcp, detached.remote, detached.options);
        stream.0.state.borrow_mut().tls = detached.tls;
        stream.0.guard.replace(detached.guard);
        Ok(stream)
    }

    fn is_idle(&self) -> bool {
        let state = self.0.state.borrow();
        let settled = state.failure.is_none() && !state.closed && !state.theirs_ended;
        let quiet = state.pending.is_empty() && !state.has_work() && !state.is_handshaking();
        settled && quiet && state.ours == Ours::Open && state.writer == Writer::Nobody
    }
}

/// A stream on the core's list of those to flush.
pub(crate) struct Flushable(Rc<Inner>);

impl Flushable {
    /// The stream's write of this turn.
    pub(crate) fn flush(self) {
        self.0.flush();
    }
}

struct Inner {
    core: CountedCore,
    id: ConnectionId,
    tcp: TcpStream,
    remote: Cell<SocketAddr>,
    options: StreamOptions,
    handles: Cell<usize>,
    guard: RefCell<Option<Box<dyn Any + Send>>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    tls: Option<Box<TlsDriver>>,
    /// Received and not consumed.
    pending: Vec<u8>,
    /// `pending` holds bytes that nobody was shown.
    pending_is_new: bool,
    /// Bytes read since the connection last had to wait for some.
    in_a_row: usize,
    /// Plaintext to write.
    queue: BytesMut,
    /// What the bytes of `queue` are, if some of them are media.
    frames: Option<Box<Frames>>,
    /// Bytes for the socket that it has not taken yet, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    writer: Writer,
    ours: Ours,
    theirs_ended: bool,
    closed: bool,
    failure: Option<StreamError>,
    reader: Option<Waker>,
    /// Who waits for the queue to become shorter.
    for_room: Vec<Waker>,
    stats: StreamStats,
}

/// Who will write next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Nobody,
    /// The core's flusher; the stream is on its list.
    Flusher,
    /// A task that waits for the socket.
    Drainer,
}

/// Our direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ours {
    #[default]
    Open,
    /// To be ended behind the queue.
    Finishing,
    /// close_notify stands behind all that was queued.
    Notified,
    /// FIN was sent.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kept,
    Media,
}

/// Boxed where it is rarely there: most streams never carry media, and all of them pay for the room.
#[derive(Debug, Default)]
struct Frames(VecDeque<Frame>);

#[derive(Clone, Copy, Debug)]
struct Frame {
    len: usize,
    kind: Kind,
}

/// What one read of the socket gave.
enum Received {
    /// Bytes were shown.
    Shown,
    /// Records without application data, or the end of the input, which the state now says.
    Nothing,
    /// The readiness was stale.
    NotReady,
}

/// What became of a turn's write.
enum Turn {
    Done,
    More,
    Blocked,
}

/// Reading.
impl Inner {
    fn poll_read<F: FnOnce(&[u8]) -> usize>(
        self: &Rc<Self>,
        context: &mut Context<'_>,
        show: &mut Option<F>,
    ) -> Poll<Result<Read, StreamError>> {
        loop {
            if self.state.borrow().pending_is_new {
                self.show_pending(show)?;
                return Poll::Ready(Ok(Read::Data));
            }
            if let Some(end) = self.state.borrow_mut().input_ended(context) {
                return Poll::Ready(end);
            }
            match ready!(self.poll_receive(context, show))? {
                Received::Shown => return Poll::Ready(Ok(Read::Data)),
                Received::Nothing | Received::NotReady => {}
            }
        }
    }

    fn poll_handshake(self: &Rc<Self>, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        loop {
            let mut state = self.state.borrow_mut();
            if !state.is_handshaking() && state.failure.is_none() {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = state.input_ended(context) {
                return Poll::Ready(end.and(Err(StreamError::Truncated)));
            }
            drop(state);
            // Nobody is there to see application data: it is kept for the first read.
            let mut show: Option<fn(&[u8]) -> usize> = None;
            ready!(self.poll_receive(context, &mut show))?;
        }
    }

    /// One read of the socket, as soon as it has bytes.
    fn poll_receive<F: FnOnce(&[u8]) -> usize>(
        self: &Rc<Self>,
        context: &mut Context<'_>,
        show: &mut Option<F>,
    ) -> Poll<Result<Received, StreamError>> {
        let Poll::Ready(readable) = self.tcp.poll_read_ready(context) else {
            self.state.borrow_mut().in_a_row = 0;
            return Poll::Pending;
        };
        let received = readable
            .map_err(|error| StreamError::Socket(error.kind()))
            .and_then(|()| {
                self.core
                    .with_buffers(|buffers| self.receive(buffers, show))
            });
        // Outside of the shared buffers, which the flush wants for itself.
        Poll::Ready(received.map_err(|error| self.fail_telling(error)))
    }

    fn receive<F: FnOnce(&[u8]) -> usize>(
        self: &Rc<Self>,
        buffers: &mut Buffers,
        show: &mut Option<F>,
    ) -> Result<Received, StreamError> {
        let mut state = self.state.borrow_mut();
        let start = match &state.tls {
            Some(driver) => driver.restore(&mut buffers.received),
            None => 0,
        };
        let end = start + self.options.read_max.clamp(1, READ_MAX);
        let len = match self.tcp.try_read(&mut buffers.received[start..end]) {
            Ok(0) => return state.end_of_input().map(|()| Received::Nothing),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Received::NotReady);
            }
            Err(error) => return Err(StreamError::Socket(error.kind())),
        };
        state.count_read(len);
        if state.tls.is_none() {
            drop(state);
            return self.show(&buffers.received[..len], show);
        }
        let Buffers {
            received,
            plain,
            sealed,
        } = buffers;
        let opened = state.open(&mut received[..start + len], plain, sealed);
        drop(state);
        self.answer(sealed);
        opened?;
        self.show(plain, show)
    }

    /// What the TLS driver has to say leaves with the writes of this turn.
    fn answer(self: &Rc<Self>, sealed: &[u8]) {
        if !sealed.is_empty() {
            self.state.borrow_mut().outgoing.extend_from_slice(sealed);
            self.mark_dirty();
        }
    }

    /// Our alert, if there is one, goes out while there is still somebody to tell.
    fn fail_telling(self: &Rc<Self>, error: StreamError) -> StreamError {
        self.flush();
        self.fail(error)
    }

    fn show<F: FnOnce(&[u8]) -> usize>(
        &self,
        bytes: &[u8],
        show: &mut Option<F>,
    ) -> Result<Received, StreamError> {
        if bytes.is_empty() {
            return Ok(Received::Nothing);
        }
        let mut state = self.state.borrow_mut();
        if show.is_none() || !state.pending.is_empty() {
            state.pending.extend_from_slice(bytes);
            state.pending_is_new = true;
            drop(state);
            // The caller's next round shows it, if anybody looks.
            return Ok(Received::Nothing);
        }
        drop(state);
        let consumed = show.take().map_or(0, |show| show(bytes)).min(bytes.len());
        self.keep(bytes[consumed..].to_vec())?;
        Ok(Received::Shown)
    }

    fn show_pending<F: FnOnce(&[u8]) -> usize>(
        &self,
        show: &mut Option<F>,
    ) -> Result<(), StreamError> {
        let mut state = self.state.borrow_mut();
        let mut pending = std::mem::take(&mut state.pending);
        state.pending_is_new = false;
        drop(state);
        let consumed = show
            .take()
            .map_or(0, |show| show(&pending))
            .min(pending.len());
        if consumed > 0 {
            // A copy of what is left gives the room of a long message back.
            pending = pending[consumed..].to_vec();
        }
        self.keep(pending)
    }

    /// Keeps what was not consumed until more comes.
    fn keep(&self, rest: Vec<u8>) -> Result<(), StreamError> {
        if rest.len() > self.options.pending_max {
            return Err(self.fail(StreamError::PendingFull));
        }
        self.state.borrow_mut().pending = rest;
        Ok(())
    }

    fn show_again(&self) {
        let mut state = self.state.borrow_mut();
        state.pending_is_new = !state.pending.is_empty();
    }

    /// The budget of a turn is used up: the other connections come first.
    fn owes_a_turn(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let owes = state.in_a_row >= READ_MAX;
        if owes {
            state.in_a_row = 0;
        }
        owes
    }

    fn start_tls(self: &Rc<Self>, mut driver: TlsDriver) -> Result<(), StreamError> {
        let mut early = Vec::new();
        let mut answers = Vec::new();
        let mut state = self.state.borrow_mut();
        let mut received = std::mem::take(&mut state.pending);
        let started = driver.receive(&mut received, &mut early, &mut answers);
        state.pending_is_new = !early.is_empty();
        state.pending = early;
        state.tls = Some(Box::new(driver));
        drop(state);
        self.answer(&answers);
        started.map_err(|error| self.fail_telling(error.into()))
    }

    fn tls<T>(&self, look: impl FnOnce(&TlsDriver) -> T) -> Option<T> {
        self.state.borrow().tls.as_deref().map(look)
    }
}

/// Writing.
impl Inner {
    fn queue(self: &Rc<Self>, bytes: &[u8], kind: Kind) -> Result<(), QueueError> {
        let mut state = self.state.borrow_mut();
        if state.ours != Ours::Open || state.failure.is_some() {
            return Err(QueueError::Closed);
        }
        if state.waiting() + bytes.len() > self.options.queue_max || state.frames_full() {
            return Err(QueueError::Full);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if state.queue.capacity() == 0 {
            state.queue = self.core.take_queue();
        }
        state.note_frame(bytes.len(), kind);
        state.queue.extend_from_slice(bytes);
        state.stats.queued += bytes.len() as u64;
        drop(state);
        self.mark_dirty();
        Ok(())
    }

    fn mark_dirty(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.writer == Writer::Nobody {
            state.writer = Writer::Flusher;
            drop(state);
            self.core.flush_later(Flushable(Rc::clone(self)));
        }
    }

    fn flush(self: &Rc<Self>) {
        if self.state.borrow().writer == Writer::Drainer {
            return;
        }
        match self.write_turn(Writer::Nobody) {
            Turn::Done => {}
            Turn::More => self.mark_dirty(),
            Turn::Blocked => {
                self.state.borrow_mut().writer = Writer::Drainer;
                self.core.spawn(Rc::clone(self).drain());
            }
        }
    }

    /// The task of a stream whose socket is full; there is none while the socket takes everything.
    async fn drain(self: Rc<Self>) {
        loop {
            if poll_fn(|context| self.poll_writable(context))
                .await
                .is_err()
            {
                return;
            }
            match self.write_turn(Writer::Drainer) {
                Turn::Done => break,
                Turn::More => tokio::task::yield_now().await,
                Turn::Blocked => {}
            }
        }
        self.state.borrow_mut().writer = Writer::Nobody;
        // Something may have been queued by those whom the last turn woke.
        if self.state.borrow().has_work() {
            self.mark_dirty();
        }
    }

    /// A failure ends the wait: a far end that takes nothing would else keep the socket open.
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut state = self.state.borrow_mut();
        if let Some(error) = &state.failure {
            return Poll::Ready(Err(error.clone()));
        }
        state.wait_for_room(context);
        drop(state);
        self.tcp
            .poll_write_ready(context)
            .map_err(|error| self.fail(StreamError::Socket(error.kind())))
    }

    /// One seal and one write; afterwards `writer` is on duty.
    fn write_turn(self: &Rc<Self>, writer: Writer) -> Turn {
        let result = self.core.with_buffers(|buffers| {
            let mut state = self.state.borrow_mut();
            state.writer = writer;
            let turn = self.seal_and_write(&mut state, &mut buffers.sealed);
            (turn, std::mem::take(&mut state.for_room))
        });
        let (turn, waiting) = result;
        waiting.into_iter().for_each(Waker::wake);
        turn.unwrap_or_else(|error| {
            self.fail(error);
            Turn::Done
        })
    }

    fn seal_and_write(&self, state: &mut State, shared: &mut Vec<u8>) -> Result<Turn, StreamError> {
        if state.failure.is_some() {
            return Ok(Turn::Done);
        }
        // Records that the socket has not taken come first; else the shared buffer does, and nothing is allocated.
        let own = !state.outgoing.is_empty();
        let mut run = std::mem::take(if own { &mut state.outgoing } else { shared });
        let from = std::mem::take(&mut state.written);
        let sealed = state.seal_queue(&self.core, &mut run, from);
        let written = self.write(&run[from..], &mut state.stats);
        let to = from + *written.as_ref().unwrap_or(&0);
        let blocked = to < run.len();
        match (own, blocked) {
            (true, false) => {}
            (true, true) => (state.outgoing, state.written) = (run, to),
            (false, _) => {
                state.outgoing = run[to..].to_vec();
                *shared = run;
            }
        }
        sealed?;
        written?;
        if blocked {
            return Ok(Turn::Blocked);
        }
        state.end_output(&self.tcp);
        Ok(if state.has_work() {
            Turn::More
        } else {
            Turn::Done
        })
    }

    fn write(&self, bytes: &[u8], stats: &mut StreamStats) -> Result<usize, StreamError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.tcp.try_write(bytes) {
            Ok(len) => {
                stats.writes = stats.writes.wrapping_add(1);
                stats.bytes_out += len as u64;
                Ok(len)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(StreamError::Socket(error.kind())),
        }
    }
}

/// Ending.
impl Inner {
    fn finish(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.ours == Ours::Open {
            state.ours = Ours::Finishing;
            drop(state);
            self.mark_dirty();
        }
    }

    fn close(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        state.pending = Vec::new();
        state.pending_is_new = false;
        let reader = state.reader.take();
        let all_ended = state.failure.is_some();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        if !all_ended && !self.core.has_ended() {
            self.finish();
            self.core.spawn(Rc::clone(self).linger());
        }
    }

    fn abort(&self) {
        if let Err(error) = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "the connection ends without a reset");
        }
        self.fail(StreamError::Closed);
    }

    /// Waits until all is written and the far end has ended too: if we closed before it did, the kernel would answer its
    /// last bytes with a reset, which can overtake our own last bytes.
    async fn linger(self: Rc<Self>) {
        let ended = tokio::time::timeout(LINGER, async {
            poll_fn(|context| self.poll_finished(context)).await?;
            if !self.state.borrow().theirs_ended {
                poll_fn(|context| self.poll_discard(context)).await?;
            }
            Ok::<(), StreamError>(())
        });
        match ended.await {
            Ok(Ok(()) | Err(_)) => {
                self.fail(StreamError::Closed);
            }
            Err(_) => self.abort(),
        }
    }

    fn poll_finished(&self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut state = self.state.borrow_mut();
        if let Some(error) = &state.failure {
            return Poll::Ready(Err(error.clone()));
        }
        if state.ours == Ours::Ended {
            return Poll::Ready(Ok(()));
        }
        state.wait_for_room(context);
        Poll::Pending
    }

    fn poll_discard(&self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        loop {
            let socket = |error: io::Error| StreamError::Socket(error.kind());
            ready!(self.tcp.poll_read_ready(context)).map_err(socket)?;
            let read = self
                .core
                .with_buffers(|buffers| self.tcp.try_read(&mut buffers.received));
            match read {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(socket(error))),
            }
        }
    }

    /// Ends everything; only the socket itself waits for the last handle.
    fn fail(&self, error: StreamError) -> StreamError {
        let mut state = self.state.borrow_mut();
        let error = state.failure.get_or_insert(error).clone();
        state.queue = BytesMut::new();
        state.frames = None;
        state.outgoing = Vec::new();
        state.written = 0;
        state.ours = Ours::Ended;
        let wakers: Vec<Waker> = std::mem::take(&mut state.for_room)
            .into_iter()
            .chain(state.reader.take())
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        error
    }
}

impl State {
    /// How reading ends, if it has; else remembers who reads.
    fn input_ended(&mut self, context: &Context<'_>) -> Option<Result<Read, StreamError>> {
        if self.closed {
            return Some(Err(StreamError::Closed));
        }
        if let Some(error) = &self.failure {
            return Some(Err(error.clone()));
        }
        if self.theirs_ended {
            return Some(Ok(Read::End));
        }
        let waker = context.waker();
        if !self
            .reader
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            self.reader = Some(waker.clone());
        }
        None
    }

    /// Remembers who waits; one task that asks again and again (in a `select!`) counts once.
    fn wait_for_room(&mut self, context: &Context<'_>) {
        let waker = context.waker();
        if !self.for_room.iter().any(|known| known.will_wake(waker)) {
            self.for_room.push(waker.clone());
        }
    }

    fn open(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let Some(driver) = &mut self.tls else {
            return Ok(());
        };
        let opened = driver.receive(received, plain, answers);
        self.theirs_ended |= driver.peer_closed();
        opened
    }

    /// FIN: over TLS it counts as the end only behind a close_notify.
    fn end_of_input(&mut self) -> Result<(), StreamError> {
        if self
            .tls
            .as_ref()
            .is_some_and(|driver| !driver.peer_closed())
        {
            return Err(StreamError::Truncated);
        }
        self.theirs_ended = true;
        Ok(())
    }

    fn count_read(&mut self, len: usize) {
        core_runtime::note_read(len);
        self.in_a_row += len;
        self.stats.reads = self.stats.reads.wrapping_add(1);
        self.stats.bytes_in += len as u64;
    }

    fn is_handshaking(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|driver| driver.is_handshaking())
    }

    fn waiting(&self) -> usize {
        self.queue.len() + self.outgoing.len() - self.written
    }

    fn buffered(&self) -> usize {
        self.pending.capacity()
            + self.queue.capacity()
            + self.outgoing.capacity()
            + self.tls.as_ref().map_or(0, |driver| driver.buffered())
    }

    /// A turn would write something, or end our direction.
    fn has_work(&self) -> bool {
        let to_end = matches!(self.ours, Ours::Finishing | Ours::Notified);
        let to_seal = !self.queue.is_empty() && !self.is_handshaking();
        self.written < self.outgoing.len() || to_seal || to_end
    }

    /// Adds what one turn may take of the queue to `run`, and behind the last of it the end of our direction.
    fn seal_queue(
        &mut self,
        core: &CoreContext,
        run: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), TlsError> {
        let handshaking = self.is_handshaking();
        let room = TURN_MAX.saturating_sub(run.len() - from);
        let len = self.queue.len().min(room);
        if len > 0 && !handshaking {
            match &mut self.tls {
                Some(driver) => driver.seal(&self.queue[..len], run)?,
                None => run.extend_from_slice(&self.queue[..len]),
            }
            self.stats.seals = self.stats.seals.wrapping_add(1);
            self.taken_from_queue(len, core);
        }
        if self.ours == Ours::Finishing && (self.queue.is_empty() || handshaking) {
            if let Some(driver) = &mut self.tls {
                driver.close(run)?;
            }
            self.ours = Ours::Notified;
        }
        Ok(())
    }

    fn taken_from_queue(&mut self, len: usize, core: &CoreContext) {
        if len == self.queue.len() {
            core.give_queue(std::mem::take(&mut self.queue));
            self.frames = None;
            return;
        }
        self.queue.advance(len);
        let Some(frames) = &mut self.frames else {
            return;
        };
        let mut left = len;
        while let Some(frame) = frames.0.front_mut()
            && left > 0
        {
            if frame.len <= left {
                left -= frame.len;
                frames.0.pop_front();
            } else {
                // Its beginning is on the way: the rest has to follow.
                frame.len -= left;
                frame.kind = Kind::Kept;
                left = 0;
            }
        }
    }

    fn end_output(&mut self, tcp: &TcpStream) {
        if self.ours != Ours::Notified {
            return;
        }
        self.ours = Ours::Ended;
        if let Err(error) = SockRef::from(tcp).shutdown(Shutdown::Write) {
            tracing::trace!(%error, "the far end was gone before our FIN");
        }
    }

    fn note_frame(&mut self, len: usize, kind: Kind) {
        if self.frames.is_none() && kind == Kind::Kept {
            return;
        }
        let queued = self.queue.len();
        let frames = self.frames.get_or_insert_with(|| {
            let before = Frame {
                len: queued,
                kind: Kind::Kept,
            };
            Box::new(Frames(VecDeque::from([before])))
        });
        match frames.0.back_mut() {
            Some(last) if last.kind == Kind::Kept && kind == Kind::Kept => last.len += len,
            Some(_) | None => frames.0.push_back(Frame { len, kind }),
        }
    }

    fn frames_full(&self) -> bool {
        self.frames
            .as_ref()
            .is_some_and(|frames| frames.0.len() >= FRAMES_MAX)
    }

    /// Drops media from the front of the queue until `target` bytes wait, or none is left.
    fn drop_media(&mut self, target: usize) {
        let Some(frames) = self.frames.take() else {
            return;
        };
        let mut excess = self.waiting().saturating_sub(target);
        let mut count = frames.0.len();
        let (mut kept_frames, mut kept) = (VecDeque::new(), BytesMut::new());
        for frame in frames.0 {
            let bytes = self.queue.split_to(frame.len);
            let too_many = excess > 0 || count > FRAMES_MAX / 2;
            if frame.kind == Kind::Media && too_many {
                excess = excess.saturating_sub(frame.len);
                count -= 1;
                self.stats.media_dropped = self.stats.media_dropped.wrapping_add(1);
            } else {
                kept.extend_from_slice(&bytes);
                kept_frames.push_back(frame);
            }
        }
        self.queue = kept;
        self.frames = Some(Box::new(Frames(kept_frames)));
    }
}

/// How long [`Stream::close`] goes on in the background.
pub const LINGER: Duration = Duration::from_secs(5);
/// The most plaintext that one [`Stream::read`] adds to what is pending: one read, and the end of a record before it.
pub const PLAIN_PER_READ_MAX: usize = READ_MAX + 17 * 1024;
/// The most that a stream writes in one turn.
const TURN_MAX: usize = 64 * 1024;
/// Each frame costs a mark; this many are a second of the fastest media with room to spare.
const FRAMES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_tls::{BOTH, on_a_core, pair, read_exactly, tls_pair};

    #[test]
    fn what_is_queued_in_a_turn_leaves_in_one_seal_and_one_write() {
        for version in BOTH {
            on_a_core(async |core| {
                let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
                let before = client.stats();
                for number in 0..50 {
                    let message = format!("MESSAGE sip:{number:04} SIP/2.0\r\n");
                    client.queue(message.as_bytes()).expect("room");
                }
                let got = read_exactly(&server, 50 * 26).await;
                assert!(got.starts_with(b"MESSAGE sip:0000 SIP/2.0\r\nMESSAGE sip:0001"));
                let after = client.stats();
                assert_eq!(after.seals - before.seals, 1);
                assert_eq!(after.writes - before.writes, 1);
            });
        }
    }

    #[test]
    fn messages_of_several_tasks_ride_together() {
        on_a_core(async |core| {
            let (near, far) = pair(&core, StreamOptions::default()).await;
            let tasks: Vec<_> = (0..10)
                .map(|_| {
                    let near = near.clone();
                    core.spawn(async move { near.queue(b"0123456789") })
                })
                .collect();
            assert_eq!(read_exactly(&far, 100).await, b"0123456789".repeat(10));
            for task in tasks {
                assert_eq!(task.await.expect("no panic"), Ok(()));
            }
            assert_eq!(near.stats().writes, 1);
        });
    }

    #[test]
    fn both_ends_know_who_the_other_is() {
        for version in BOTH {
            on_a_core(async |core| {
                let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
                assert_eq!(client.peer_certificates().len(), 1);
                assert_eq!(server.peer_certificates().len(), 1);
                assert_ne!(client.peer_certificates(), server.peer_certificates());
                assert_eq!(server.sni().as_deref(), Some("edge.test"));
                assert_eq!(server.alpn().as_deref(), Some(&b"sip"[..]));
                assert_eq!(client.tls_version(), Some(version.version));
            });
        }
    }

    #[test]
    fn a_queue_has_an_end_and_refuses_whole_messages() {
        for version in BOTH {
            on_a_core(async |core| {
                let options = StreamOptions {
                    queue_max: 100_000,
                    ..StreamOptions::default()
                };
                let (client, _server) = tls_pair(&core, version, options).await;
                let message = [7; 1000];
                // The far end never reads: what the kernel takes at first is all that leaves.
                let mut taken = 0;
                loop {
                    match client.queue(&message) {
                        Ok(()) => taken += 1000,
                        Err(QueueError::Full) if is_stuck(&client).await => break,
                        Err(QueueError::Full) => {}
                        Err(QueueError::Closed) => panic!("nobody closed it"),
                    }
                }
                assert!(client.queued() <= options.queue_max);
                assert!(client.queued() > options.queue_max - 2000);
                assert_eq!(client.stats().queued, taken);
                assert!(client.buffered() < 2 * options.queue_max + 2 * TURN_MAX);
            });
        }
    }

    #[test]
    fn each_direction_ends_by_itself() {
        for version in BOTH {
            on_a_core(async |core| {
                let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
                client.queue(b"request").expect("room");
                client.finish();
                assert_eq!(client.queue(b"more"), Err(QueueError::Closed));
                assert_eq!(read_exactly(&server, 7).await, b"request");
                assert_eq!(server.read(nothing).await, Ok(Read::End));

                server.queue(&[5; 200_000]).expect("room");
                server.finish();
                assert_eq!(read_exactly(&client, 200_000).await, vec![5; 200_000]);
                assert_eq!(client.read(nothing).await, Ok(Read::End));
                assert_eq!(client.finished().await, Ok(()));
                assert_eq!(server.finished().await, Ok(()));
            });
        }
    }

    #[test]
    fn plain_tcp_has_the_same_face() {
        on_a_core(async |core| {
            let (near, far) = pair(&core, StreamOptions::default()).await;
            near.queue(b"one").expect("room");
            near.finish();
            assert_eq!(read_exactly(&far, 3).await, b"one");
            assert_eq!(far.read(nothing).await, Ok(Read::End));
            far.queue(b"two").expect("room");
            assert_eq!(read_exactly(&near, 3).await, b"two");
            assert!(!near.is_tls() && near.peer_certificates().is_empty());
        });
    }

    #[test]
    fn an_end_without_close_notify_is_no_end() {
        for version in BOTH {
            on_a_core(async |core| {
                let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
                SockRef::from(&client.0.tcp)
                    .shutdown(Shutdown::Write)
                    .expect("FIN");
                assert_eq!(server.read(nothing).await, Err(StreamError::Truncated));
            });
        }
    }

    #[test]
    fn what_is_not_consumed_is_shown_again_with_more() {
        on_a_core(async |core| {
            let (near, far) = pair(&core, StreamOptions::default()).await;
            let mut seen = Vec::new();
            near.queue(b"INVITE").expect("room");
            let first = far.read(|bytes| {
                seen.push(bytes.to_vec());
                2
            });
            assert_eq!(first.await, Ok(Read::Data));
            near.queue(b" sip:").expect("room");
            let second = far.read(|bytes| {
                seen.push(bytes.to_vec());
                bytes.len()
            });
            assert_eq!(second.await, Ok(Read::Data));
            assert_eq!(seen, [b"INVITE".to_vec(), b"VITE sip:".to_vec()]);
            assert_eq!(far.buffered(), 0);
        });
    }

    #[test]
    fn too_much_that_nobody_consumes_ends_the_stream() {
        on_a_core(async |core| {
            let options = StreamOptions {
                pending_max: 100,
                ..StreamOptions::default()
            };
            let (near, far) = pair(&core, options).await;
            near.queue(&[1; 101]).expect("room");
            assert_eq!(far.read(|_| 0).await, Err(StreamError::PendingFull));
        });
    }

    #[test]
    fn an_idle_connection_holds_no_buffer() {
        for version in BOTH {
            on_a_core(async |core| {
                let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
                client.queue(&[1; 30_000]).expect("room");
                assert_eq!(read_exactly(&server, 30_000).await.len(), 30_000);
                server.queue(&[2; 30_000]).expect("room");
                assert_eq!(read_exactly(&client, 30_000).await.len(), 30_000);
                client.queued_below(0).await.expect("lives");
                assert_eq!((client.buffered(), server.buffered()), (0, 0));
            });
        }
        // What each connection costs before rustls: a change here is a change of the memory budget.
        assert!(size_of::<Inner>() <= 512, "{}", size_of::<Inner>());
    }

    #[test]
    fn a_relay_stops_reading_while_the_other_side_is_slow() {
        const MARK: usize = 16 * 1024;
        on_a_core(async |core| {
            let options = StreamOptions {
                queue_max: MARK + PLAIN_PER_READ_MAX,
                ..StreamOptions::default()
            };
            let (source, relay_in) = tls_pair(&core, &rustls::version::TLS13, options).await;
            let (relay_out, sink) = tls_pair(&core, &rustls::version::TLS12, options).await;
            core.spawn(pump(relay_in, relay_out.clone(), MARK));
            let sent = core.spawn(async move {
                for number in 0..600u32 {
                    source.queued_below(MARK).await.expect("lives");
                    source.queue(&[number as u8; 10_000]).expect("room");
                }
                source.finish();
                source.finished().await
            });
            // Nobody reads at the far end: the relay holds no more than its bound.
            while !is_stuck(&relay_out).await {
                assert!(relay_out.queued() <= MARK + PLAIN_PER_READ_MAX);
            }
            assert!(!sent.is_finished());
            let got = read_exactly(&sink, 6_000_000).await;
            assert!(
                got.chunks(10_000)
                    .zip(0..600u32)
                    .all(|(c, n)| c == [n as u8; 10_000])
            );
            assert_eq!(sink.read(nothing).await, Ok(Read::End));
            assert_eq!(sent.await.expect("no panic"), Ok(()));
        });
    }

    #[test]
    fn old_media_gives_way_to_new_and_answers_stay() {
        on_a_core(async |core| {
            let options = StreamOptions {
                queue_max: 10_000,
                ..StreamOptions::default()
            };
            let (near, far) = pair(&core, options).await;
            // All in one turn, so that nothing is written in between.
            near.queue(b"answer 1").expect("room");
            for number in 0..30u8 {
                near.queue_media(&[number; 1000])
                    .expect("old media gives way");
            }
            near.queue(b"answer 2")
                .expect("half the queue is free at least once");
            let dropped = near.stats().media_dropped as usize;
            let got = read_exactly(&far, 8 + (30 - dropped) * 1000 + 8).await;
            assert!(dropped >= 20);
            assert!(got.starts_with(b"answer 1") && got.ends_with(b"answer 2"));
            let media = &got[8..got.len() - 8];
            let numbers: Vec<u8> = media.chunks(1000).map(|frame| frame[0]).collect();
            assert!(media.chunks(1000).all(|frame| frame == [frame[0]; 1000]));
            assert_eq!(numbers, (dropped as u8..30).collect::<Vec<_>>());
        });
    }

    #[test]
    fn closing_writes_what_is_queued_and_ends_a_waiting_read() {
        on_a_core(async |core| {
            let (client, server) = tls_pair(&core, BOTH[1], StreamOptions::default()).await;
            let reader = core.spawn({
                let server = server.clone();
                async move { server.read(nothing).await }
            });
            tokio::task::yield_now().await;
            server
                .queue(b"SIP/2.0 403 Forbidden\r\n\r\n")
                .expect("room");
            server.close();
            assert_eq!(reader.await.expect("no panic"), Err(StreamError::Closed));
            assert_eq!(
                read_exactly(&client, 25).await,
                b"SIP/2.0 403 Forbidden\r\n\r\n"
            );
            assert_eq!(client.read(nothing).await, Ok(Read::End));
        });
    }

    #[test]
    fn dropping_the_last_handle_closes_and_frees_what_was_held() {
        on_a_core(async |core| {
            let (near, far) = pair(&core, StreamOptions::default()).await;
            let permit = std::sync::Arc::new(());
            near.hold(std::sync::Arc::clone(&permit));
            near.queue(b"bye").expect("room");
            drop(near);
            assert_eq!(read_exactly(&far, 3).await, b"bye");
            assert_eq!(far.read(nothing).await, Ok(Read::End));
            drop(far);
            while std::sync::Arc::strong_count(&permit) > 1 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_detached_connection_goes_on_elsewhere() {
        for version in BOTH {
            on_a_core(async |core| {
                let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
                client.queue(b"before").expect("room");
                let Err(DetachError::Busy(client)) = client.detach() else {
                    panic!("something is queued");
                };
                assert_eq!(read_exactly(&server, 6).await, b"before");
                let detached = server.detach().expect("idle");
                let server = Stream::attach(&core, detached).expect("a socket of ours");
                client.queue(b"after").expect("room");
                server.queue(b"answer").expect("room");
                assert_eq!(read_exactly(&server, 5).await, b"after");
                assert_eq!(read_exactly(&client, 6).await, b"answer");
                assert_eq!(server.sni().as_deref(), Some("edge.test"));
            });
        }
    }

    #[test]
    fn a_far_end_that_takes_nothing_cannot_keep_an_aborted_connection() {
        on_a_core(async |core| {
            let (near, _far) = pair(&core, StreamOptions::default()).await;
            while near.queue(&[0; 1000]).is_ok() || !is_stuck(&near).await {}
            near.abort();
            drop(near);
            let gone = async {
                while core.streams() > 1 {
                    tokio::task::yield_now().await;
                }
            };
            assert!(
                tokio::time::timeout(Duration::from_secs(5), gone)
                    .await
                    .is_ok()
            );
        });
    }

    #[test]
    fn a_core_knows_when_its_last_stream_is_gone() {
        on_a_core(async |core| {
            core.streams_ended().await;
            let (near, far) = pair(&core, StreamOptions::default()).await;
            assert_ne!(near.id(), far.id());
            assert_eq!(core.streams(), 2);
            near.queue(b"last words").expect("room");
            drop(near);
            let reader = core.spawn(async move {
                assert_eq!(read_exactly(&far, 10).await, b"last words");
                assert_eq!(far.read(nothing).await, Ok(Read::End));
            });
            core.streams_ended().await;
            assert_eq!(core.streams(), 0);
            reader.await.expect("no panic");
        });
    }

    #[test]
    fn asking_for_room_again_and_again_costs_one_place() {
        on_a_core(async |core| {
            let (near, _far) = pair(&core, StreamOptions::default()).await;
            near.queue(b"waits").expect("room");
            poll_fn(|context| {
                for _ in 0..100 {
                    let mut room = std::pin::pin!(near.queued_below(0));
                    assert!(room.as_mut().poll(context).is_pending());
                }
                Poll::Ready(())
            })
            .await;
            assert_eq!(near.0.state.borrow().for_room.len(), 1);
        });
    }

    #[test]
    fn an_abort_resets_the_connection() {
        on_a_core(async |core| {
            let (near, far) = pair(&core, StreamOptions::default()).await;
            near.queue(b"never sent").expect("room");
            near.abort();
            assert_eq!(near.queue(b"more"), Err(QueueError::Closed));
            drop(near);
            let reset = StreamError::Socket(io::ErrorKind::ConnectionReset);
            assert_eq!(far.read(nothing).await, Err(reset));
        });
    }

    #[test]
    fn bulk_on_one_connection_lets_another_have_its_turn() {
        on_a_core(async |core| {
            let options = StreamOptions {
                queue_max: 8 << 20,
                ..StreamOptions::default()
            };
            let (bulk, bulk_far) = pair(&core, options).await;
            let (small, small_far) = pair(&core, options).await;
            bulk.queue(&vec![0; 4 << 20]).expect("room");
            small.queue(b"ping").expect("room");
            let order = Rc::new(RefCell::new(Vec::new()));
            let (seen, log) = (Rc::clone(&order), Rc::clone(&order));
            let reader = core.spawn(async move {
                let mut left = 4 << 20;
                while left > 0 {
                    left -= read_some(&bulk_far).await;
                    seen.borrow_mut().push("bulk");
                }
            });
            core.spawn(async move {
                assert_eq!(read_exactly(&small_far, 4).await, b"ping");
                log.borrow_mut().push("small");
            });
            reader.await.expect("no panic");
            let at = order.borrow().iter().position(|&who| who == "small");
            assert!(at.is_some_and(|at| at < 8), "after {at:?} bulk reads");
        });
    }

    async fn read_some(stream: &Stream) -> usize {
        let mut len = 0;
        let read = stream.read(|bytes| {
            len = bytes.len();
            len
        });
        assert_eq!(read.await, Ok(Read::Data));
        len
    }

    /// What a relay does with one direction.
    async fn pump(from: Stream, to: Stream, mark: usize) -> Result<(), StreamError> {
        loop {
            let read = from.read(|bytes| {
                to.queue(bytes).expect("the mark keeps room");
                bytes.len()
            });
            if read.await? == Read::End {
                to.finish();
                return to.finished().await;
            }
            to.queued_below(mark).await?;
        }
    }

    /// The socket takes no more, also after a while.
    async fn is_stuck(stream: &Stream) -> bool {
        let before = stream.stats().bytes_out;
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.stats().bytes_out == before && stream.queued() > 0
    }

    fn nothing(bytes: &[u8]) -> usize {
        panic!("nothing should come, but {} bytes did", bytes.len())
    }
}

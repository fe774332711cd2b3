//! The working parts behind a [`super::Stream`]: reading, writing and ending one connection.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::outbound::{Kind, Outbound};
use super::{Flushable, LINGER, QueueError, Read, StreamError, StreamOptions, StreamStats};
use crate::net::core_runtime::{Buffers, CoreContext, CountedCore, READ_MAX};
use crate::net::tls_driver::{TlsDriver, TlsError};
use crate::observe::log::ConnectionId;

pub(super) struct Inner {
    pub(super) core: CountedCore,
    pub(super) id: ConnectionId,
    pub(super) tcp: TcpStream,
    pub(super) remote: Cell<SocketAddr>,
    pub(super) options: StreamOptions,
    pub(super) handles: Cell<usize>,
    pub(super) guard: RefCell<Option<Box<dyn Any + Send>>>,
    pub(super) state: RefCell<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) tls: Option<Box<TlsDriver>>,
    /// Received and not consumed.
    pub(super) pending: Vec<u8>,
    /// `pending` holds bytes that nobody was shown.
    pending_is_new: bool,
    /// Bytes read since the connection last had to wait for some.
    in_a_row: usize,
    /// Plaintext to write.
    pub(super) queue: Outbound,
    /// Bytes for the socket that it has not taken yet, from `written` on.
    outgoing: Vec<u8>,
    pub(super) written: usize,
    pub(super) writer: Writer,
    pub(super) ours: Ours,
    pub(super) theirs_ended: bool,
    pub(super) closed: bool,
    pub(super) failure: Option<StreamError>,
    reader: Option<Waker>,
    /// Who waits for the queue to become shorter.
    pub(super) for_room: Vec<Waker>,
    pub(super) stats: StreamStats,
}

/// Who will write next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Writer {
    #[default]
    Nobody,
    /// The core's flusher; the stream is on its list.
    Flusher,
    /// A task that waits for the socket.
    Drainer,
}

/// Our direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ours {
    #[default]
    Open,
    /// To be ended behind the queue.
    Finishing,
    /// close_notify stands behind all that was queued.
    Notified,
    /// FIN was sent.
    Ended,
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
    pub(super) fn poll_read<F: FnOnce(&[u8]) -> usize>(
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

    pub(super) fn poll_handshake(
        self: &Rc<Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
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
        let share = self.options.read_max.min(self.core.read_share());
        let end = start + share.clamp(1, READ_MAX);
        let len = match self.tcp.try_read(&mut buffers.received[start..end]) {
            Ok(0) => return state.end_of_input().map(|()| Received::Nothing),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Received::NotReady);
            }
            Err(error) => return Err(StreamError::Socket(error.kind())),
        };
        if len < end - start {
            self.drained();
        }
        self.core.note_read(len);
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

    /// A read that gave less than it might have has emptied the socket. The next one waits for news instead of asking
    /// the kernel in vain: it would be every second read of a connection that talks in small messages.
    fn drained(&self) {
        let nothing_more = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        if self.tcp.try_io(Interest::READABLE, nothing_more).is_ok() {
            tracing::trace!("an error is never a success");
        }
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

    pub(super) fn show_again(&self) {
        let mut state = self.state.borrow_mut();
        state.pending_is_new = !state.pending.is_empty();
    }

    /// The budget of a turn is used up: the other connections come first.
    pub(super) fn owes_a_turn(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let owes = state.in_a_row >= READ_MAX;
        if owes {
            state.in_a_row = 0;
        }
        owes
    }

    pub(super) fn start_tls(self: &Rc<Self>, mut driver: TlsDriver) -> Result<(), StreamError> {
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

    pub(super) fn tls<T>(&self, look: impl FnOnce(&TlsDriver) -> T) -> Option<T> {
        self.state.borrow().tls.as_deref().map(look)
    }
}

/// Writing.
impl Inner {
    pub(super) fn queue(self: &Rc<Self>, bytes: &[u8], kind: Kind) -> Result<(), QueueError> {
        let mut state = self.state.borrow_mut();
        if state.ours != Ours::Open || state.failure.is_some() {
            return Err(QueueError::Closed);
        }
        if state.waiting() + bytes.len() > self.options.queue_max || state.queue.is_fragmented() {
            return Err(QueueError::Full);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if state.queue.capacity() == 0 {
            state.queue.lend_room(self.core.take_queue());
        }
        state.queue.push(bytes, kind);
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

    pub(super) fn flush(self: &Rc<Self>) {
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
    pub(super) fn finish(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.ours == Ours::Open {
            state.ours = Ours::Finishing;
            drop(state);
            self.mark_dirty();
        }
    }

    pub(super) fn close(self: &Rc<Self>) {
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

    pub(super) fn abort(&self) {
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

    pub(super) fn poll_finished(&self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
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
        state.queue = Outbound::default();
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
    pub(super) fn wait_for_room(&mut self, context: &Context<'_>) {
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
        self.in_a_row += len;
        self.stats.reads = self.stats.reads.wrapping_add(1);
        self.stats.bytes_in += len as u64;
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|driver| driver.is_handshaking())
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.outgoing.len() - self.written
    }

    pub(super) fn buffered(&self) -> usize {
        self.pending.capacity()
            + self.queue.capacity()
            + self.outgoing.capacity()
            + self.tls.as_ref().map_or(0, |driver| driver.buffered())
    }

    /// A turn would write something, or end our direction.
    pub(super) fn has_work(&self) -> bool {
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
                Some(driver) => driver.seal(self.queue.front(len), run)?,
                None => run.extend_from_slice(self.queue.front(len)),
            }
            self.stats.seals = self.stats.seals.wrapping_add(1);
            if let Some(room) = self.queue.consume(len) {
                core.give_queue(room);
            }
        }
        if self.ours == Ours::Finishing && (self.queue.is_empty() || handshaking) {
            if let Some(driver) = &mut self.tls {
                driver.close(run)?;
            }
            self.ours = Ours::Notified;
        }
        Ok(())
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

    /// Drops media from the front of the queue until `target` bytes wait, or none is left.
    pub(super) fn drop_media(&mut self, target: usize) {
        let excess = self.waiting().saturating_sub(target);
        let dropped = self.queue.drop_media(excess);
        self.stats.media_dropped = self.stats.media_dropped.wrapping_add(dropped);
    }
}

/// The most that a stream writes in one turn.
pub(super) const TURN_MAX: usize = 64 * 1024;

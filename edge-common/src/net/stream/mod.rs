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

mod detach;
mod inner;
mod outbound;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;

pub use self::detach::{DetachError, Detached};
use self::inner::{Inner, State};
use self::outbound::Kind;
use super::core_runtime::{CoreContext, CountedCore, READ_MAX};
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

/// A stream on the core's list of those to flush.
pub(crate) struct Flushable(Rc<Inner>);

impl Flushable {
    /// The stream's write of this turn.
    pub(crate) fn flush(self) {
        self.0.flush();
    }
}

/// How long [`Stream::close`] goes on in the background.
pub const LINGER: Duration = Duration::from_secs(5);
/// The most plaintext that one [`Stream::read`] adds to what is pending: one read, and the end of a record before it.
pub const PLAIN_PER_READ_MAX: usize = READ_MAX + 17 * 1024;

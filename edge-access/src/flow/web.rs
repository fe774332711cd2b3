//! A browser's connection: the handshake, frames in, frames out, pings.
//!
//! Everything of it is in one future that only browsers have, so that a SIP connection pays nothing for it.

use edge_common::net::stream::{QueueError, Read, Stream};
use edge_common::run;
use edge_common::sip::framer::Limits;

use super::Core;
use crate::proxy::CloseReason;
use crate::proxy::token::{FlowKey, Realm};
use crate::ws::content::{self, Content};
use crate::ws::frame::{Reader, Step};
use crate::ws::handshake::{Denial, Upgrade};
use crate::ws::{self, write};

/// What one browser's task remembers.
#[derive(Debug)]
struct Web {
    reader: Reader,
    /// Bytes of the handshake that are still in front of the frames.
    skip: usize,
    /// Pings since something was last heard.
    pings: u8,
    /// Nothing that comes is looked at any more.
    over: bool,
}

impl Core {
    /// Whether a client begins with HTTP; it is served as a browser then. What was seen is shown again.
    pub(super) async fn begins_as_http(&self, key: FlowKey, stream: &Stream) -> bool {
        if self.0.proxy.borrow().realm(key) != Some(Realm::Client) {
            return false;
        }
        // Boxed, so that no connection holds room for it behind its first bytes.
        let seen = Box::pin(stream.peek(ws::begins_as_http)).await;
        matches!(seen, Ok(Some(true)))
    }

    /// Serves a browser until its connection ends.
    pub(super) async fn serve_websocket(&self, key: FlowKey, stream: &Stream) {
        match self.shake_hands(stream).await {
            None => {}
            Some(Err(denial)) => {
                self.0.observer.websocket(denial.label());
                tracing::debug!(?key, reason = denial.label(), "no WebSocket is opened");
                // The connection ends behind it; if it cannot be told, it ends all the same.
                self.count_lost(stream.queue(&denial.answer()));
            }
            Some(Ok(upgrade)) => self.exchange(key, stream, &upgrade).await,
        }
    }

    /// `None`: the connection ended before the request did.
    async fn shake_hands(&self, stream: &Stream) -> Option<Result<Upgrade, Denial>> {
        let outcome = stream
            .peek(|bytes| {
                let proxy = self.0.proxy.borrow();
                proxy.websocket_rules().read(bytes).transpose()
            })
            .await;
        outcome.ok().flatten()
    }

    fn becomes_web(
        &self,
        key: FlowKey,
        stream: &Stream,
        upgrade: &Upgrade,
    ) -> Result<(), QueueError> {
        stream.queue(&upgrade.answer)?;
        self.0.proxy.borrow_mut().handle_websocket(run::now(), key);
        if self.0.streams.borrow_mut().becomes_web(key) {
            self.0.observer.websockets(1);
        }
        self.0.observer.websocket("accepted");
        Ok(())
    }

    async fn exchange(&self, key: FlowKey, stream: &Stream, upgrade: &Upgrade) {
        if self.becomes_web(key, stream, upgrade).is_err() {
            return;
        }
        let mut web = Web {
            reader: Reader::default(),
            skip: upgrade.len,
            pings: 0,
            over: false,
        };
        while !web.over {
            self.hold_back(key).await;
            let interval = self.0.proxy.borrow().websocket_rules().config.ping_interval;
            let read = stream.read(|bytes| self.consume_frames(key, stream, &mut web, bytes));
            match tokio::time::timeout(interval, read).await {
                Ok(Ok(Read::Data)) => {}
                Ok(Ok(Read::End)) => return,
                Ok(Err(error)) => {
                    tracing::trace!(?key, %error, "connection ended");
                    return;
                }
                Err(_) if web.pings >= PINGS_MAX => {
                    self.0.observer.closed_by("websocket_silent");
                    return;
                }
                Err(_) => {
                    web.pings += 1;
                    self.tell(stream, write::ping);
                }
            }
        }
    }

    /// Takes whole frames off the front of what was received; says how many bytes they were.
    fn consume_frames(
        &self,
        key: FlowKey,
        stream: &Stream,
        web: &mut Web,
        received: &[u8],
    ) -> usize {
        let mut at = web.skip.min(received.len());
        web.skip -= at;
        web.pings = 0;
        let mut payload = Vec::new();
        let mut ping = None;
        while !web.over && self.0.streams.borrow().get(key).is_some() {
            let limits = self.0.proxy.borrow().frame_limits(key);
            let message_max = limits.head + limits.body;
            match web.reader.next(&received[at..], message_max, &mut payload) {
                Ok(Step::NeedMore) => break,
                Ok(Step::Fragment { len }) => {
                    at += len;
                    self.hear(key);
                }
                Ok(Step::Pong { len }) => {
                    at += len;
                    self.0.proxy.borrow_mut().handle_pong(run::now(), key);
                    self.settle();
                }
                Ok(Step::Message { len }) => {
                    at += len;
                    self.take_message(key, &payload, limits);
                }
                Ok(Step::Ping { len }) => {
                    at += len;
                    self.hear(key);
                    // Of several the last one is answered (RFC 6455 §5.5.3).
                    ping = Some(std::mem::take(&mut payload));
                }
                Ok(Step::Close { len, code }) => {
                    at += len;
                    web.over = true;
                    self.tell(stream, |frame| write::close(code, frame));
                }
                Err(fault) => {
                    at = received.len();
                    web.over = true;
                    tracing::debug!(?key, reason = fault.label(), "a frame cannot be taken");
                    self.0.observer.closed_by(fault.label());
                    self.tell(stream, |frame| write::close(fault.code(), frame));
                }
            }
        }
        if let Some(ping) = ping.filter(|_| !web.over) {
            self.tell(stream, |frame| write::pong(&ping, frame));
        }
        at
    }

    fn take_message(&self, key: FlowKey, payload: &[u8], limits: Limits) {
        let now = run::now();
        let mut proxy = self.0.proxy.borrow_mut();
        match content::read(payload, limits) {
            Ok(Content::Message(message)) => {
                proxy.handle_backlog(self.backlog());
                self.heard(now, key, &message);
                proxy.handle_message(now, key, &message);
            }
            Ok(Content::Ping) => proxy.handle_ping(now, key),
            Ok(Content::Nothing) => proxy.handle_pong(now, key),
            // It is no message, and is refused as such.
            Ok(Content::Incomplete) => proxy.handle_message(now, key, payload),
            Err(error) => proxy.handle_frame_error(key, payload, error),
        }
        drop(proxy);
        self.settle();
        self.0.recorder.decided();
    }

    fn hear(&self, key: FlowKey) {
        let mut proxy = self.0.proxy.borrow_mut();
        proxy.handle_sign_of_life(run::now(), key);
    }

    /// Queues a control frame; where there is no room for one, whoever reads so slowly misses it.
    fn tell(&self, stream: &Stream, write: impl FnOnce(&mut Vec<u8>)) {
        self.count_lost(self.queue_frame(stream, write));
    }

    fn count_lost(&self, queued: Result<(), QueueError>) {
        if queued == Err(QueueError::Full) {
            self.0.observer.dropped("queue_full");
        }
    }

    /// Queues what `write` appends, all of it or nothing.
    pub(super) fn queue_frame(
        &self,
        stream: &Stream,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), QueueError> {
        let mut frame = self.0.frame.borrow_mut();
        write(&mut frame);
        let queued = stream.queue(&frame);
        frame.clear();
        frame.shrink_to(FRAME_KEPT);
        queued
    }
}

/// What a browser is told when the edge closes its connection (RFC 6455 §7.4.1).
pub(super) const fn close_code(reason: CloseReason) -> u16 {
    if matches!(reason, CloseReason::Idle) {
        write::GOING_AWAY
    } else if matches!(reason, CloseReason::Frame(_) | CloseReason::Parse(_)) {
        write::PROTOCOL
    } else {
        write::POLICY
    }
}

/// Pings that a browser may leave unanswered.
const PINGS_MAX: u8 = 3;
/// Kept of a core's frame buffer between two messages.
const FRAME_KEPT: usize = 64 * 1024;

//! One core at work: its connections, its proxy, and the way from one to the other.
//!
//! ```text
//!  stream ─► framer ─► Proxy::handle_message ─┐
//!  mailbox ─► Proxy::handle_parcel, … ────────┼─► settle: poll_output until none
//!  timer ─► Proxy::handle_timeout ────────────┘      │
//!        stream.queue ◄── Transmit ◄─────────────────┤
//!        mailbox of another core ◄── Cross, Ask ◄────┤
//!        connector ◄── Dial ◄────────────────────────┘
//! ```
//!
//! The tasks of a core take turns on one thread, so the cells here are never borrowed across a wait.

mod table;
mod web;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::host_name::{HostName, HostPort};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::mailbox::{Full, Inbox, Outbox};
use edge_common::net::stream::{QueueError, Read, Stream};
use edge_common::run;
use edge_common::sip::framer::{Framer, Opener, Step};
use edge_common::time::Now;
use tokio::sync::Notify;

use self::table::{Place, Streams};
use crate::array::link::Array;
use crate::connections::{self, Filter, Page};
use crate::connector::Partners;
use crate::federation_admin;
use crate::observe::{Observer, Tables};
use crate::proxy::callback::{Call, Called};
use crate::proxy::federation::{Answer, Question, Resolved};
use crate::proxy::flow::Peer;
use crate::proxy::refusal::Refusal;
use crate::proxy::settings::Settings;
use crate::proxy::token::FlowKey;
use crate::proxy::{Linked, Output, Parcel, Proxy, Unlinked};
use crate::recorder::Recorder;
use crate::resolver::Verdicts;
use crate::ws::write;

/// What cores write to each other.
#[derive(Debug)]
pub enum Letter {
    /// A message for one of your connections.
    Parcel(Parcel),
    /// Another member handed this over for one of your connections.
    Linked(Linked),
    /// To the owner of the verdicts.
    Question(Question),
    /// From the owner of the verdicts.
    Answer(Question, Answer),
    /// The configuration was read again.
    Settings(Arc<Settings>),
    /// From the main thread: something to do here.
    Errand(Errand),
}

/// Something that is done on a core, between its other turns.
pub struct Errand(Box<dyn FnOnce(&Core) + Send>);

impl Errand {
    /// To be done once.
    pub fn new(work: impl FnOnce(&Core) + Send + 'static) -> Self {
        Self(Box::new(work))
    }
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errand")
    }
}

/// One core. Its clones are the same core.
#[derive(Clone, Debug)]
pub struct Core(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    context: CoreContext,
    proxy: RefCell<Proxy>,
    streams: RefCell<Streams>,
    outbox: Outbox<Letter>,
    observer: Observer,
    tables: Tables,
    recorder: Recorder,
    partners: Partners,
    array: Array,
    /// On the core that owns them.
    verdicts: Option<Verdicts>,
    /// Connections to the next hop; some may be gone.
    next_hops: RefCell<Vec<FlowKey>>,
    /// When the timer task wakes next.
    armed: Cell<Option<Instant>>,
    rearm: Notify,
    /// Where frames of WebSockets are put together.
    frame: RefCell<Vec<u8>>,
}

/// What could not be done while the proxy's outputs were being taken.
#[derive(Default)]
struct Later {
    stalled: Vec<FlowKey>,
    too_long: Vec<Vec<u8>>,
    congested: Vec<Vec<u8>>,
    undelivered: Vec<Parcel>,
    unlinked: Vec<(Linked, Unlinked)>,
    answers: Vec<(Question, Answer)>,
}

impl Core {
    /// A core without connections.
    #[must_use]
    pub fn new(
        context: CoreContext,
        proxy: Proxy,
        outbox: Outbox<Letter>,
        observer: Observer,
        recorder: Recorder,
        (partners, array): (Partners, Array),
        verdicts: Option<Verdicts>,
    ) -> Self {
        let tables = observer.tables(context.index());
        Self(Rc::new(Inner {
            context,
            tables,
            proxy: RefCell::new(proxy),
            streams: RefCell::default(),
            outbox,
            observer,
            recorder,
            partners,
            array,
            verdicts,
            next_hops: RefCell::default(),
            armed: Cell::new(None),
            rearm: Notify::new(),
            frame: RefCell::default(),
        }))
    }

    /// The runtime of this core.
    #[must_use]
    pub fn context(&self) -> &CoreContext {
        &self.0.context
    }

    /// The counters.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.0.observer
    }

    /// What is kept of the messages that pass.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// The connections that `filter` lets pass: at most `limit` from the place `from` on.
    #[must_use]
    pub fn connections(&self, filter: &Filter, from: u32, limit: usize) -> Page {
        let (proxy, streams) = (self.0.proxy.borrow(), self.0.streams.borrow());
        let queued = |key| streams.get(key).map_or(0, Stream::queued);
        let now = run::now().mono;
        connections::page(now, proxy.connections(), queued, filter, from, limit)
    }

    /// Serves a connection until it ends. `opened` is told its key first.
    pub async fn serve(
        &self,
        stream: Stream,
        peer: Peer,
        opener: Opener,
        opened: impl FnOnce(FlowKey),
    ) {
        let Some(key) = self.open(&stream, peer) else {
            self.0.observer.closed_by("table_full");
            stream.close();
            return;
        };
        opened(key);
        if self.begins_as_http(key, &stream).await {
            Box::pin(self.serve_websocket(key, &stream)).await;
        } else {
            self.serve_sip(key, &stream, opener).await;
        }
        self.closed(key);
        stream.close();
    }

    async fn serve_sip(&self, key: FlowKey, stream: &Stream, opener: Opener) {
        let limits = self.0.proxy.borrow().frame_limits(key);
        let mut framer = Framer::new(opener, limits);
        loop {
            self.hold_back(key).await;
            match stream
                .read(|bytes| self.consume(key, &mut framer, bytes))
                .await
            {
                Ok(Read::Data) => {}
                Ok(Read::End) => break,
                Err(error) => {
                    tracing::trace!(?key, %error, "connection ended");
                    break;
                }
            }
        }
    }

    /// Lets whoever feeds the next hop wait while that reads too slowly: TCP then tells the sender.
    pub(super) async fn hold_back(&self, key: FlowKey) {
        let limit = self.0.proxy.borrow().backlog_max();
        while self.backlog() > limit && !self.0.next_hops.borrow().contains(&key) {
            tokio::time::sleep(HELD_BACK).await;
        }
    }

    /// That connection leads to the next hop, or to the one of that rank.
    pub fn next_hop(&self, key: FlowKey, rank: u8) {
        self.0.proxy.borrow_mut().handle_next_hop(key, rank);
        self.0.next_hops.borrow_mut().push(key);
    }

    /// Bytes that wait in the fullest of the queues towards the next hop.
    fn backlog(&self) -> usize {
        let streams = self.0.streams.borrow();
        let hops = self.0.next_hops.borrow();
        hops.iter()
            .filter_map(|hop| streams.get(*hop))
            .map(Stream::queued)
            .max()
            .unwrap_or(0)
    }

    /// A partner's edge could not be reached.
    pub fn dial_failed(&self, target: &HostPort, refusal: Refusal) {
        let mut proxy = self.0.proxy.borrow_mut();
        proxy.handle_dial_failed(run::now(), target, refusal);
        drop(proxy);
        self.settle();
    }

    /// Reads the mailbox until the core ends.
    pub async fn read_mailbox(&self, mut inbox: Inbox<Letter>) {
        let mut letters = Vec::new();
        while inbox.recv_batch(&mut letters, LETTERS_PER_TURN).await > 0 {
            for letter in letters.drain(..) {
                self.open_letter(letter);
            }
        }
    }

    /// Closes connections whose time is over, until the core ends.
    pub async fn keep_time(&self) {
        loop {
            let armed = self.0.proxy.borrow().poll_timeout();
            self.0.armed.set(armed);
            let sleep = async {
                match armed {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {
                    self.0.proxy.borrow_mut().handle_timeout(run::now());
                    self.settle();
                }
                () = self.0.rearm.notified() => {}
            }
        }
    }

    /// Takes no new work.
    pub fn drain(&self) {
        self.0.proxy.borrow_mut().handle_drain(run::now());
    }

    /// Waits until nobody outside is connected any more.
    pub async fn deserted(&self) {
        while self.0.proxy.borrow().has_outsiders() {
            tokio::time::sleep(DESERTED_CHECK).await;
        }
    }

    /// Ends all connections, what is queued first.
    pub fn close_all(&self) {
        for place in self.0.streams.borrow().iter() {
            place.close(write::GOING_AWAY);
        }
    }

    /// Takes an answer of the owner of the verdicts, for this core or another.
    pub(crate) fn deliver_answer(&self, question: Question, answer: Answer) {
        let core = usize::from(question.core());
        if core == self.0.context.index() {
            let mut proxy = self.0.proxy.borrow_mut();
            proxy.handle_answer(run::now(), question, answer);
            drop(proxy);
            self.settle();
        } else if self
            .0
            .outbox
            .send(core, Letter::Answer(question, answer))
            .is_err()
        {
            // Whatever waits for it there gives up by itself.
            self.0.observer.dropped("mailbox_full");
        }
    }

    /// DNS has said what it knows of a domain's federation record.
    pub(crate) fn srv_resolved(&self, domain: &HostName, resolved: Resolved) {
        if let Some(verdicts) = &self.0.verdicts {
            verdicts.resolved(self, domain, resolved);
        }
    }

    /// A partner was called back.
    pub(crate) fn called_back(&self, call: &Call, called: &Called) {
        if let Some(verdicts) = &self.0.verdicts {
            verdicts.called_back(self, call, called);
        }
    }

    fn open(&self, stream: &Stream, peer: Peer) -> Option<FlowKey> {
        let mut proxy = self.0.proxy.borrow_mut();
        let realm = peer.realm();
        let key = proxy.handle_open(run::now(), stream.remote(), peer)?;
        drop(proxy);
        let mut streams = self.0.streams.borrow_mut();
        streams.insert(key, realm, stream.clone());
        drop(streams);
        self.0.observer.flows(1);
        self.settle();
        Some(key)
    }

    fn closed(&self, key: FlowKey) {
        self.0.proxy.borrow_mut().handle_closed(key);
        self.0.next_hops.borrow_mut().retain(|hop| *hop != key);
        drop(self.forget(key));
        self.settle();
    }

    /// Takes a flow's stream out of the table.
    fn forget(&self, key: FlowKey) -> Option<Place> {
        let place = self.0.streams.borrow_mut().remove(key)?;
        self.0.observer.flows(-1);
        if place.web {
            self.0.observer.websockets(-1);
        }
        Some(place)
    }

    /// Takes whole messages off the front of what was received; says how many bytes they were.
    fn consume(&self, key: FlowKey, framer: &mut Framer, received: &[u8]) -> usize {
        let now = run::now();
        let mut at = 0;
        while self.0.streams.borrow().get(key).is_some() {
            let mut proxy = self.0.proxy.borrow_mut();
            // The inside may have accepted the client since its last message.
            framer.set_limits(proxy.frame_limits(key));
            at += match framer.next(&received[at..]) {
                Ok(Step::NeedMore) => break,
                Ok(Step::Skip { len } | Step::Pong { len }) => len,
                Ok(Step::Ping { len }) => {
                    proxy.handle_ping(now, key);
                    len
                }
                Ok(Step::Message { len }) => {
                    proxy.handle_backlog(self.backlog());
                    self.heard(now, key, &received[at..at + len]);
                    proxy.handle_message(now, key, &received[at..at + len]);
                    len
                }
                Err(error) => {
                    let offset = framer.offset();
                    tracing::debug!(?key, %error, offset, "a message cannot be cut off the stream");
                    proxy.handle_frame_error(key, &received[at..], error);
                    received.len() - at
                }
            };
            drop(proxy);
            self.settle();
            self.0.recorder.decided();
        }
        at
    }

    /// Shows a message that came to whoever traces it.
    fn heard(&self, now: Now, key: FlowKey, message: &[u8]) {
        if self.0.recorder.is_on()
            && let Some((realm, stream)) = self.0.streams.borrow().with_realm(key)
        {
            self.0.recorder.received(now, key, realm, stream, message);
        }
    }

    fn open_letter(&self, letter: Letter) {
        let now = run::now();
        match letter {
            Letter::Parcel(parcel) => self.0.proxy.borrow_mut().handle_parcel(now, parcel),
            Letter::Linked(linked) => self.0.proxy.borrow_mut().handle_linked(now, linked),
            Letter::Answer(question, answer) => {
                self.0
                    .proxy
                    .borrow_mut()
                    .handle_answer(now, question, answer);
            }
            Letter::Question(question) => self.ask(question),
            Letter::Errand(Errand(work)) => work(self),
            Letter::Settings(settings) => {
                self.0.proxy.borrow_mut().handle_settings(settings);
                self.0.array.keep_all(self);
                if let Some(verdicts) = &self.0.verdicts {
                    verdicts.clear();
                }
            }
        }
        self.settle();
    }

    /// The verdicts and the watch list, on the core that owns them.
    pub(crate) fn verdicts(&self) -> Option<&Verdicts> {
        self.0.verdicts.as_ref()
    }

    /// The partners that are connected to this core, as operators are told.
    pub(crate) fn partners(&self) -> Vec<serde_json::Value> {
        let core = self.0.context.index();
        let proxy = self.0.proxy.borrow();
        let flows = proxy.flows();
        flows
            .filter_map(|flow| federation_admin::connection(core, flow))
            .collect()
    }

    /// Looks after the watch list until the core ends, if this core owns it.
    pub async fn keep_watch(&self) {
        if let Some(verdicts) = &self.0.verdicts {
            verdicts.keep_watch(self).await;
        }
    }

    /// The links to the other members of the array.
    pub(crate) fn array(&self) -> &Array {
        &self.0.array
    }

    /// Another member handed over a message; the core that has its connection takes it.
    pub(crate) fn linked(&self, linked: Linked) {
        let core = usize::from(linked.to.key.core);
        if core == self.0.context.index() || core >= self.0.outbox.cores() {
            let mut proxy = self.0.proxy.borrow_mut();
            proxy.handle_linked(run::now(), linked);
            drop(proxy);
            self.settle();
        } else if let Err(Full(Letter::Linked(linked))) =
            self.0.outbox.send(core, Letter::Linked(linked))
        {
            let mut proxy = self.0.proxy.borrow_mut();
            proxy.handle_unlinked(run::now(), &linked, Unlinked::Full);
            drop(proxy);
            self.settle();
        }
    }

    fn ask(&self, question: Question) {
        match &self.0.verdicts {
            Some(verdicts) => verdicts.ask(self, question),
            None => {
                tracing::error!(domain = %question.domain(), "a question came to a core that owns no verdicts");
            }
        }
    }

    /// Does everything that the proxy wants done.
    fn settle(&self) {
        loop {
            let mut later = Later::default();
            let mut questions = Vec::new();
            let mut proxy = self.0.proxy.borrow_mut();
            while let Some(output) = proxy.poll_output() {
                self.perform(output, &mut later, &mut questions);
            }
            let now = run::now();
            for key in later.stalled.drain(..) {
                proxy.handle_closed(key);
                self.drop_stream(key, "queue_full");
            }
            for bytes in later.too_long.drain(..) {
                proxy.handle_too_long(now, &bytes);
            }
            for bytes in later.congested.drain(..) {
                proxy.handle_congested(now, &bytes);
            }
            for parcel in later.undelivered.drain(..) {
                proxy.handle_undelivered(now, &parcel);
            }
            for (linked, why) in later.unlinked.drain(..) {
                proxy.handle_unlinked(now, &linked, why);
            }
            for (question, answer) in later.answers.drain(..) {
                proxy.handle_answer(now, question, answer);
            }
            let idle = !proxy.has_output();
            let wake = proxy.poll_timeout();
            let fill = proxy.fill();
            drop(proxy);
            for question in questions {
                self.ask(question);
            }
            if idle {
                self.0.tables.set(fill);
                self.rearm(wake);
                return;
            }
        }
    }

    fn perform(&self, output: Output<'_>, later: &mut Later, questions: &mut Vec<Question>) {
        match output {
            Output::Transmit { flow, bytes } => self.transmit(flow, bytes, later),
            Output::Close { flow, reason } => {
                self.0.observer.closed(reason);
                tracing::debug!(?flow, reason = reason.label(), "connection closed");
                if let Some(place) = self.forget(flow) {
                    place.close(web::close_code(reason));
                }
            }
            Output::Cross(parcel) => {
                let core = usize::from(parcel.to.core);
                self.0.recorder.crossed(&parcel);
                if let Err(Full(Letter::Parcel(parcel))) =
                    self.0.outbox.send(core, Letter::Parcel(parcel))
                {
                    later.undelivered.push(parcel);
                }
            }
            Output::Link(linked) => {
                if let Err(why) = self.0.array.send(&linked) {
                    later.unlinked.push((linked, why));
                }
            }
            Output::Dial(target) => self.0.partners.dial(self.clone(), target),
            Output::Ask(question) if self.0.verdicts.is_some() => questions.push(question),
            Output::Ask(question) => {
                let sent = self
                    .0
                    .outbox
                    .send(VERDICTS_CORE, Letter::Question(question));
                if let Err(Full(Letter::Question(question))) = sent {
                    let answer = Answer {
                        outcome: Err(Refusal::PartnerBusy),
                        until: run::now().mono,
                        meter: None,
                    };
                    later.answers.push((question, answer));
                }
            }
            Output::Event(event) => {
                self.0.recorder.event(&event);
                self.0.observer.event(&event);
            }
        }
    }

    fn transmit(&self, flow: FlowKey, bytes: &[u8], later: &mut Later) {
        let streams = self.0.streams.borrow();
        let Some(place) = streams.place(flow) else {
            self.0.observer.dropped("connection_gone");
            return;
        };
        let stream = &place.stream;
        let queued = if place.web {
            self.queue_frame(stream, |frame| write::message(bytes, frame))
        } else {
            stream.queue(bytes)
        };
        self.0
            .recorder
            .sent(flow, place.realm, stream, bytes, queued.as_ref().err());
        match queued {
            Ok(()) => {}
            // Not the reader is slow: the message takes more than half of the queue, or would never fit.
            Err(QueueError::Full) if stream.queued() <= bytes.len() => {
                later.too_long.push(bytes.to_vec());
            }
            // New work is refused and old work goes on; whether the next hop still lives shows in its answers.
            Err(QueueError::Full) if self.0.next_hops.borrow().contains(&flow) => {
                self.0.observer.dropped("next_hop_congested");
                later.congested.push(bytes.to_vec());
            }
            // Whoever reads so slowly holds up nobody but himself.
            Err(QueueError::Full) => {
                self.0.observer.dropped("queue_full");
                later.stalled.push(flow);
            }
            Err(QueueError::Closed) => self.0.observer.dropped("connection_gone"),
        }
    }

    fn drop_stream(&self, key: FlowKey, reason: &str) {
        if let Some(place) = self.forget(key) {
            self.0.observer.closed_by(reason);
            place.stream.abort();
        }
    }

    /// Wakes the timer task if it would sleep too long.
    fn rearm(&self, wake: Option<Instant>) {
        let sooner = match (wake, self.0.armed.get()) {
            (Some(wake), Some(armed)) => wake < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            self.0.rearm.notify_one();
        }
    }
}

/// How soon a sender that was held back is looked at again.
const HELD_BACK: Duration = Duration::from_millis(5);
/// A drain is no hurry.
const DESERTED_CHECK: Duration = Duration::from_millis(100);
/// The core that owns the verdicts on domains.
pub const VERDICTS_CORE: usize = 0;
/// Letters that are opened before the connections get their turn again.
const LETTERS_PER_TURN: usize = 64;

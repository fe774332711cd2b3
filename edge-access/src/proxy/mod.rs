//! The decide step of the Access Edge: who sent it, may it pass, where does it go.
//!
//! ```text
//!  client ──443──►┌────────────────────────────┐──5061──► next hop
//!                 │ request ─► policy ─► route │
//!  partner ─5061─►│    ─► forward (splices)    │──5061──► partner's edge
//!                 │ response ─► token ─► back  │
//!  inside ──5061─►└────────────────────────────┘──443───► client, over its own connection
//! ```
//!
//! One [`Proxy`] serves the connections of one core. It is told what arrived and says what to do; it
//! opens nothing, waits for nothing and knows no other core's connections: what is for one of those
//! leaves as a [`Parcel`]. What routes a message is in its [`token`]s; no state is kept per dialog, and that per
//! [`transaction`] may be lost.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod admission;
mod answer;
pub mod callback;
pub mod contact;
mod curb;
mod dispatch;
pub mod drain;
pub mod federation;
pub mod flow;
mod forward;
mod health;
pub mod hiding;
pub mod hygiene;
pub mod keep_alive;
mod linked;
pub mod meter;
pub mod output;
pub mod policy;
pub mod refusal;
pub mod request;
mod respond;
pub mod route;
pub mod settings;
pub mod token;
pub mod transaction;
pub mod trust;
pub mod via;
mod wait;
pub mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::host_name::{HostName, HostPort};
use edge_common::random::Random;
use edge_common::sip::edit::Edits;
use edge_common::sip::framer::{FrameError, Limits};
use edge_common::sip::header::Name;
use edge_common::sip::message::Message;
use edge_common::sip::parse::{Index, ParseError};
use edge_common::time::Now;
use edge_common::timer::Wheel;

use admission::{Admission, Load};
use federation::Answer;
use flow::{Flow, Flows, Peer, Standing};
pub use output::{
    CloseReason, Event, Linked, LinkedKind, Output, Parcel, ParcelKind, ResponseNote, Unlinked,
};
use refusal::{Drop, Refusal};
use request::Request;
use settings::Settings;
use token::{FlowKey, FlowRef, Realm, Tokens};
use transaction::TransactionId;
use transaction::table::Table;
use via::TableKey;
use wait::{Lanes, Link, Wait, Waiting};

use crate::ws::handshake::Rules;

/// The proxy of one core.
pub struct Proxy {
    settings: Arc<Settings>,
    tokens: Arc<Tokens>,
    core: u8,
    rng: Box<dyn Random>,
    flows: Flows,
    /// Those of partners, to find one that stands in for another.
    partners: BTreeSet<FlowKey>,
    timers: Wheel<FlowKey>,
    /// Our own connections to the Director, while they stand.
    next_hops: Vec<NextHop>,
    transactions: Table,
    transaction_timers: Wheel<TransactionId>,
    /// As many as `transaction_timers` has room for.
    transactions_max: usize,
    /// The transaction whose request is being sent anew, while it is routed.
    again: Option<TransactionId>,
    table_key: TableKey,
    /// How many registrations the Director takes.
    admission: Admission,
    /// How full what stands between us and the next hop is.
    load: Load,
    /// Connections to partners that we dialled, are dialling or could not dial.
    links: BTreeMap<HostPort, Link>,
    /// Connections beside the first one to the same edge; never more edges than `links`.
    lanes: BTreeMap<HostPort, Lanes>,
    /// Where domains have their edges, as the owner of the verdicts said.
    targets: BTreeMap<HostName, Answer>,
    /// Messages that cannot go on yet.
    waits: BTreeMap<Wait, Waiting>,
    /// How many bytes those are.
    held_bytes: usize,
    /// When each of `waits` ends, the next one first.
    expiries: BTreeSet<(Instant, Wait)>,
    draining: bool,
    /// Of what is closed meanwhile, in an array.
    drain: Option<drain::Budget>,
    outputs: VecDeque<Item>,
    /// The bytes of all `Item::Transmit`; emptied when all outputs were taken.
    outgoing: Vec<u8>,
    index: Index,
    edits: Edits,
}

/// How full the tables of a [`Proxy`] are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Things that messages wait for.
    pub waits: usize,
    /// Bytes of those messages.
    pub held_bytes: usize,
    /// Partners' edges that are connected, dialled or left alone.
    pub links: usize,
    /// Domains whose edge is remembered.
    pub targets: usize,
    /// Transactions under way.
    pub transactions: usize,
    /// Bytes of their requests.
    pub transaction_bytes: usize,
    /// Registrations a second that are let in.
    pub registration_rate: usize,
}

/// One of our connections to the Director.
#[derive(Clone, Copy, Debug)]
struct NextHop {
    flow: FlowKey,
    /// Its place in the order in which they are tried.
    rank: u8,
}

#[derive(Debug)]
enum Item {
    Transmit { flow: FlowKey, bytes: Range<usize> },
    Other(Output<'static>),
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("core", &self.core)
            .field("flows", &self.flows.len())
            .field("waits", &self.waits.len())
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy without connections.
    #[must_use]
    pub fn new(
        now: Now,
        core: u8,
        settings: Arc<Settings>,
        tokens: Arc<Tokens>,
        mut rng: Box<dyn Random>,
    ) -> Self {
        let connections = settings.limits.connections;
        let transactions_max = settings.limits.transactions;
        let mut table_key = TableKey::default();
        rng.fill(&mut table_key);
        Self {
            core,
            rng,
            flows: Flows::new(core, connections),
            partners: BTreeSet::new(),
            timers: Wheel::new(now.mono, TIMER_TICK, connections),
            next_hops: Vec::new(),
            transactions: Table::new(),
            // A connection that is suspect has one transaction of our own.
            transaction_timers: Wheel::new(now.mono, TIMER_TICK, transactions_max + connections),
            transactions_max,
            again: None,
            table_key,
            admission: Admission::new(now.mono, settings.limits.registrations_per_second),
            load: Load::default(),
            links: BTreeMap::new(),
            lanes: BTreeMap::new(),
            targets: BTreeMap::new(),
            waits: BTreeMap::new(),
            held_bytes: 0,
            expiries: BTreeSet::new(),
            draining: false,
            drain: None,
            outputs: VecDeque::new(),
            outgoing: Vec::new(),
            index: Index::new(settings.limits.headers),
            edits: Edits::new(),
            settings,
            tokens,
        }
    }

    /// New settings; connections go on under them.
    pub fn handle_settings(&mut self, settings: Arc<Settings>) {
        self.index = Index::new(settings.limits.headers);
        self.admission
            .set_max(settings.limits.registrations_per_second);
        self.settings = settings;
        // What was decided under other rules is decided anew.
        self.targets.clear();
        self.links
            .retain(|_, link| !matches!(link, Link::Failed(..)));
    }

    /// A connection has finished its handshake. `None`: the table is full, close it.
    ///
    /// A connection that we dialled to a partner lets go what waits for it.
    pub fn handle_open(&mut self, now: Now, remote: SocketAddr, peer: Peer) -> Option<FlowKey> {
        let dialled = match &peer {
            Peer::Partner(partner) => partner.dialled.clone(),
            Peer::Client(_) | Peer::Inside { .. } => None,
        };
        let is_partner = peer.realm() == Realm::Partner;
        let key = self.flows.insert(Flow::new(now.mono, remote, peer))?;
        if is_partner {
            self.partners.insert(key);
        }
        self.set_timer(now, key);
        if let Some(target) = dialled {
            self.link_up(now, target, key);
        }
        Some(key)
    }

    /// That connection of a client has become a WebSocket.
    pub fn handle_websocket(&mut self, now: Now, key: FlowKey) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.heard = now.mono;
            flow.web = true;
        }
    }

    /// Something came that was no message and asks for nothing.
    pub fn handle_sign_of_life(&mut self, now: Now, key: FlowKey) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.heard = now.mono;
        }
    }

    /// Something whole came that was no message and asks for nothing: the client is awake, and in the middle of nothing.
    pub fn handle_pong(&mut self, now: Now, key: FlowKey) {
        self.handle_sign_of_life(now, key);
        self.let_go(now, key);
    }

    /// The kind of far end of that connection, while it is there.
    #[must_use]
    pub fn realm(&self, key: FlowKey) -> Option<Realm> {
        self.flows.get(key).map(|flow| flow.peer.realm())
    }

    /// Who may open a WebSocket.
    #[must_use]
    pub fn websocket_rules(&self) -> Rules<'_> {
        Rules {
            config: &self.settings.websocket,
            host: &self.settings.external,
            domains: &self.settings.domains,
        }
    }

    /// That connection leads to the Director: what comes from outside goes there. Of several that of the lowest
    /// rank (0 to 7) is taken, and the others when it fails.
    pub fn handle_next_hop(&mut self, key: FlowKey, rank: u8) {
        self.next_hops.retain(|hop| hop.rank != rank);
        self.next_hops.push(NextHop { flow: key, rank });
        self.next_hops.sort_by_key(|hop| hop.rank);
    }

    /// Whether the Director can be reached.
    #[must_use]
    pub const fn has_next_hop(&self) -> bool {
        !self.next_hops.is_empty()
    }

    /// The far end closed the connection, or it broke.
    pub fn handle_closed(&mut self, key: FlowKey) {
        let Some(flow) = self.flows.remove(key) else {
            return;
        };
        if let Some(timer) = flow.timer {
            self.timers.cancel(timer);
        }
        self.lose(flow.pending);
        self.partners.remove(&key);
        self.next_hops.retain(|hop| hop.flow != key);
        if let Peer::Partner(partner) = flow.peer
            && let Some(target) = partner.dialled
        {
            self.link_down(&target, key);
        }
    }

    /// One whole message arrived, as the framer cut it.
    pub fn handle_message(&mut self, now: Now, key: FlowKey, bytes: &[u8]) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        flow.heard = now.mono;
        flow.said = now.mono;
        flow.spoke = true;
        self.receive(now, key, bytes);
    }

    /// A keep-alive arrived (RFC 5626 §3.5.1).
    pub fn handle_ping(&mut self, now: Now, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        flow.heard = now.mono;
        let recently = |at: Instant| now.mono.saturating_duration_since(at) < PONG_INTERVAL;
        if flow.ponged.is_some_and(recently) {
            return;
        }
        flow.ponged = Some(now.mono);
        self.transmit(key, |out| out.extend_from_slice(b"\r\n"));
        self.let_go(now, key);
    }

    /// The stream cannot be cut into messages any more; `received` starts with the message that was at fault.
    pub fn handle_frame_error(&mut self, key: FlowKey, received: &[u8], error: FrameError) {
        match error {
            FrameError::ContentLengthInvalid => {
                self.answer_head(
                    key,
                    received,
                    Refusal::Malformed("Content-Length is not one number"),
                );
            }
            FrameError::ContentLengthMissing => {
                self.answer_head(key, received, Refusal::Missing(Name::ContentLength));
            }
            FrameError::BodyTooLong => self.answer_head(key, received, Refusal::BodyTooLong),
            FrameError::BareLineFeed | FrameError::BareCarriageReturn => {
                let refusal = Refusal::Malformed("A line that does not end in CRLF");
                self.answer_front(key, received, refusal);
            }
            FrameError::HeadTooLong => {
                // The same answer, however much of it has come.
                let head = received.len().min(self.settings.limits.head);
                self.answer_front(key, &received[..head], Refusal::HeadTooLong);
            }
        }
        self.close(key, CloseReason::Frame(error));
    }

    /// Another core sent something for one of our connections.
    pub fn handle_parcel(&mut self, now: Now, parcel: Parcel) {
        match parcel.kind {
            ParcelKind::Response(note) => {
                self.deliver_response(now, parcel.to, note, &parcel.bytes);
            }
            ParcelKind::Request { .. } if self.is_web(parcel.to) => {
                // The core that made the parcel does not see what carries it.
                let (host, port) = self.own_address(Realm::Client);
                let mut bytes = Vec::with_capacity(parcel.bytes.len());
                via::carry_by_websocket(&parcel.bytes, host, port, &mut bytes);
                self.transmit(parcel.to, |out| out.extend_from_slice(&bytes));
            }
            ParcelKind::Request { .. } if self.is_client(parcel.to) => {
                self.transmit(parcel.to, |out| out.extend_from_slice(&parcel.bytes));
            }
            ParcelKind::Request { outbound } => {
                self.bounce(now, &parcel.bytes, Refusal::gone(outbound));
            }
        }
    }

    /// The parcel did not fit into the other core's mailbox.
    pub fn handle_undelivered(&mut self, now: Now, parcel: &Parcel) {
        match parcel.kind {
            ParcelKind::Response(_) => self.event(Event::Dropped(Drop::ResponseFlowGone)),
            ParcelKind::Request { .. } => self.bounce(now, &parcel.bytes, Refusal::Overload),
        }
    }

    /// A message did not fit the queue of its connection, which stands and is read well: the message is too long for it.
    pub fn handle_too_long(&mut self, now: Now, bytes: &[u8]) {
        if bytes.starts_with(b"SIP/") {
            self.event(Event::Dropped(Drop::ResponseTooLong));
        } else {
            self.bounce(now, bytes, Refusal::TooLong);
        }
    }

    /// A message did not fit the queue towards the next hop, which stands; what has waited longer goes first.
    pub fn handle_congested(&mut self, now: Now, bytes: &[u8]) {
        if bytes.starts_with(b"SIP/") {
            self.event(Event::Dropped(Drop::ResponseCongested));
        } else {
            self.bounce(now, bytes, Refusal::Overload);
        }
    }

    /// A deadline that [`Self::poll_timeout`] told has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire_waits(now);
        self.expire_transactions(now);
        self.let_go_silent(now);
        while let Some(key) = self.timers.pop_due(now.mono) {
            let Some(flow) = self.flows.get_mut(key) else {
                continue;
            };
            flow.timer = None;
            match deadline(flow, &self.settings) {
                Some((at, reason)) if at <= now.mono => self.close(key, reason),
                Some(_) | None => self.set_timer(now, key),
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; sooner does no harm.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.expiries.first().map(|(until, _)| *until);
        let transactions = self.transaction_timers.next_wake();
        let sweep = self.drain.as_ref().map(drain::Budget::next_sweep);
        [self.timers.next_wake(), transactions, expiry, sweep]
            .into_iter()
            .flatten()
            .min()
    }

    /// What to do next; drain it before the next input.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        match self.outputs.pop_front() {
            Some(Item::Transmit { flow, bytes }) => Some(Output::Transmit {
                flow,
                bytes: &self.outgoing[bytes],
            }),
            Some(Item::Other(output)) => Some(output),
            None => {
                self.outgoing.clear();
                self.outgoing.shrink_to(OUTGOING_KEPT);
                None
            }
        }
    }

    /// Whether there is something to do.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// How much one message of that connection may take at present.
    #[must_use]
    pub fn frame_limits(&self, key: FlowKey) -> Limits {
        let limits = &self.settings.limits;
        let body = match self.flows.get(key).map(|flow| &flow.peer) {
            Some(Peer::Client(Standing::Newcomer { .. })) | None => {
                self.settings.clients.newcomer_body.min(limits.client_body)
            }
            Some(Peer::Client(Standing::Promoted)) => limits.client_body,
            // A certificate alone makes nobody a partner.
            Some(Peer::Partner(partner)) if !partner.is_proven() => limits.client_body,
            Some(Peer::Inside { .. } | Peer::Partner(_)) => limits.server_body,
        };
        Limits {
            head: limits.head,
            body,
        }
    }

    /// Whether a client or a partner is connected.
    #[must_use]
    pub fn has_outsiders(&self) -> bool {
        self.flows
            .iter()
            .any(|flow| flow.peer.realm() != Realm::Inside)
    }

    /// How full the tables are that the network fills.
    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill {
            waits: self.waits.len(),
            held_bytes: self.held_bytes,
            links: self.links.len(),
            targets: self.targets.len(),
            transactions: self.transactions.len(),
            transaction_bytes: self.transactions.kept_bytes(),
            registration_rate: self.admission.rate() as usize,
        }
    }

    /// The connections at present, in the order of their places.
    pub fn connections(&self) -> impl Iterator<Item = (FlowKey, &Flow)> {
        self.flows.entries()
    }

    /// Connections at present.
    #[must_use]
    pub const fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// The connections at present, for whoever is asked about them.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter()
    }

    fn receive(&mut self, now: Now, key: FlowKey, bytes: &[u8]) {
        // The index is lent out, so that the view on the message does not borrow the proxy.
        let mut index = std::mem::replace(&mut self.index, Index::new(0));
        match Message::parse(bytes, &mut index) {
            Err(error) => self.refuse_unread(key, bytes, error, &mut index),
            Ok(message) if message.is_response() => self.respond(now, key, &message),
            Ok(message) => self.request(now, key, &message),
        }
        self.index = index;
    }

    /// A head that cannot be read to its end. Whoever sent a request is told, as the framer knows where it
    /// ends; the connection goes on only if it is certain where each header of the next one starts.
    fn refuse_unread(&mut self, key: FlowKey, bytes: &[u8], error: ParseError, index: &mut Index) {
        if !self.spend(key) {
            return self.close(key, CloseReason::NewcomerBudget);
        }
        let lawful_lines = error == ParseError::TooManyHeaders;
        let refusal = if lawful_lines {
            Refusal::TooManyHeaders
        } else {
            Refusal::Malformed("A line that is no header")
        };
        match Message::parse_front(bytes, index) {
            Some(message) if message.is_response() => {
                self.event(Event::Dropped(Drop::ResponseMalformed));
            }
            Some(message) if message.first(Name::Via).is_some() => {
                self.answer(key, &message, refusal);
            }
            // Nobody would know what the answer is to.
            Some(_) | None => {}
        }
        if !lawful_lines {
            self.close(key, CloseReason::Parse(error));
        }
    }

    /// Refuses a request that this proxy or another core has already edited: its topmost Via is ours,
    /// so the answer finds its way like any other response.
    fn bounce(&mut self, now: Now, request: &[u8], refusal: Refusal) {
        let mut index = Index::new(self.settings.limits.headers + EDITED_HEADERS);
        let Ok(message) = Message::parse(request, &mut index) else {
            return;
        };
        if let Some(drop) = Request::is_unanswered(&message) {
            self.event(Event::Dropped(drop));
            return;
        }
        let asked_by = self.top_token(&message).map(|token| token.realm);
        let realm = asked_by.unwrap_or(Realm::Inside);
        let Some(response) = self.compose(&message, realm, None, refusal) else {
            return;
        };
        self.event(Event::Answered(realm, refusal));
        let mut index = Index::new(self.settings.limits.headers + EDITED_HEADERS);
        if let Ok(message) = Message::parse(&response, &mut index) {
            self.pass_own(now, &message);
        }
    }

    fn flow_ref(&self, key: FlowKey) -> FlowRef {
        FlowRef {
            node: self.settings.node,
            epoch: self.settings.epoch,
            key,
        }
    }

    fn is_client(&self, key: FlowKey) -> bool {
        self.flows
            .get(key)
            .is_some_and(|flow| matches!(flow.peer, Peer::Client(_)))
    }

    /// Whether that is a client behind a WebSocket, on this core.
    fn is_web(&self, key: FlowKey) -> bool {
        self.flows.get(key).is_some_and(|flow| flow.web)
    }

    fn set_timer(&mut self, now: Now, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        if let Some(timer) = flow.timer.take() {
            self.timers.cancel(timer);
        }
        if let Some((at, _)) = deadline(flow, &self.settings) {
            // The wheel has room for every connection of the table, each with one timer.
            flow.timer = self.timers.insert(at.max(now.mono), key).ok();
        }
    }

    fn close(&mut self, key: FlowKey, reason: CloseReason) {
        self.handle_closed(key);
        self.push(Output::Close { flow: key, reason });
    }

    fn transmit(&mut self, flow: FlowKey, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.outgoing.len();
        write(&mut self.outgoing);
        let bytes = start..self.outgoing.len();
        self.outputs.push_back(Item::Transmit { flow, bytes });
    }

    fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    fn push(&mut self, output: Output<'static>) {
        self.outputs.push_back(Item::Other(output));
    }
}

/// Why a request does not go on at once.
#[derive(Clone, Debug)]
enum Stop {
    Refuse(Refusal),
    Wait(Wait),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// The nearest of a connection's deadlines. Timers are looked at lazily: a byte that comes moves the
/// deadline, not the timer.
fn deadline(flow: &Flow, settings: &Settings) -> Option<(Instant, CloseReason)> {
    let limits = &settings.limits;
    let patience = flow.keep_alive.map_or(limits.idle_timeout, |agreed| {
        keep_alive::patience(agreed).min(limits.idle_timeout)
    });
    let idle = (flow.heard + patience, CloseReason::Idle);
    let silent = (
        flow.opened + limits.first_message_timeout,
        CloseReason::FirstMessageTimeout,
    );
    match &flow.peer {
        // Servers inside keep their connections as long as they like.
        Peer::Inside { .. } => None,
        Peer::Client(Standing::Newcomer { .. }) => {
            let newcomer = (
                flow.opened + settings.clients.newcomer_time,
                CloseReason::NewcomerTimeout,
            );
            let first = if flow.spoke {
                newcomer
            } else {
                silent.min(newcomer)
            };
            Some(first.min(idle))
        }
        Peer::Partner(partner) if !flow.spoke && partner.dialled.is_none() => {
            Some(silent.min(idle))
        }
        Peer::Client(Standing::Promoted) | Peer::Partner(_) => Some(idle),
    }
}

/// Timers of connections are coarse.
const TIMER_TICK: Duration = Duration::from_millis(100);
/// A client that pings faster gets its CRLF no faster.
const PONG_INTERVAL: Duration = Duration::from_secs(10);
/// Kept of the outgoing buffer between two inputs.
const OUTGOING_KEPT: usize = 64 * 1024;
/// Headers that an edit adds at most: Via, two Record-Route, Path, Max-Forwards, trust.
const EDITED_HEADERS: usize = 6;

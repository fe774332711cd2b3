//! The TURN server of one shard: what it is told, what it decides, what it wants done (RFC 8656).
//!
//! ```text
//!   datagram ─► route_client ─► Route::Peer │ Client │ Shard │ Drop       media: a value, at once
//!                          └──► Control ─► handle_client ─► poll_output   everything else: outputs, in order
//!   relayed socket ─► route_peer ─► Route::Client │ Drop
//! ```
//!
//! One server for each core, with its own sockets and tables. Shared by all of them are only the handles in [`Shared`]:
//! ports, quotas and the budget of strangers, which are touched when an allocation begins or ends.
//!
//! Not spoken: RESERVATION-TOKEN and DONT-FRAGMENT are answered by 420 like any attribute that is not known, EVEN-PORT is
//! honoured but its request to keep the next port gets 508, ADDITIONAL-ADDRESS-FAMILY is optional and skipped, TCP
//! allocations get 442. Every relay mode grants UDP allocations: `open` and `pre_r2` relay to peers outside, under
//! `tcp_out` and `closed` a permission for them is refused by 403, and only other allocations of this edge can be reached.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod allocation;
mod answer;
mod authentication;
pub mod authority;
pub mod drop_reason;
pub mod five_tuple;
pub mod header;
mod method;
pub mod nonce;
mod opening;
pub mod output;
pub mod peer_policy;
pub mod port_pool;
pub mod quota;
pub mod refusal;
pub mod relayed;
pub mod route;
#[cfg(test)]
mod simulation;
mod tables;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use edge_common::config::AvLimits;
use edge_common::limit::{Cap, SourceCap, SourceRate};
use edge_common::random::Random;
use edge_common::time::Now;

use self::allocation::Allocation;
use self::answer::Reply;
use self::authentication::Caller;
use self::authority::Authority;
use self::drop_reason::Reason;
use self::five_tuple::{FiveTuple, Listener, ListenerId};
use self::nonce::Nonces;
pub use self::output::{Closed, Event, Output};
use self::peer_policy::PeerPolicy;
use self::port_pool::{PortPool, ShardId};
use self::quota::UserQuota;
use self::refusal::Refusal;
use self::relayed::{FamilyPair, Relayed};
use crate::stun::demux::Datagram;
use crate::stun::fields::Fields;
use crate::stun::message::{Class, HEADER_LEN, Message, Method};

/// What an operator has decided; replaced as a whole on reload.
#[derive(Debug)]
pub struct Settings {
    /// Stands in challenges and in every key.
    pub realm: String,
    /// Own addresses; a [`ListenerId`] is an index.
    pub listeners: Vec<Listener>,
    /// Which peers may be reached.
    pub policy: PeerPolicy,
    /// Bounds of the tables.
    pub limits: AvLimits,
}

/// Handles that all shards of the process hold.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Relay ports of each family.
    pub ports: Arc<FamilyPair<PortPool>>,
    /// Allocations at once.
    pub allocations: Cap,
    /// Of these for each user.
    pub users: UserQuota,
    /// Of these for each source address.
    pub sources: SourceCap,
    /// Answers to datagrams of sources that have shown no credentials.
    pub strangers: SourceRate,
    /// Answers to their streams.
    pub stream_strangers: SourceRate,
    /// Who knows the passwords.
    pub authority: Arc<dyn Authority>,
    /// Nonces of the array.
    pub nonces: Arc<Nonces>,
}

/// The server of one shard.
#[derive(Debug)]
pub struct Server {
    shard: ShardId,
    settings: Arc<Settings>,
    shared: Shared,
    rng: Box<dyn RandomSource>,
    clients: HashMap<FiveTuple, Relayed>,
    relays: FamilyPair<Box<[Option<Box<Allocation>>]>>,
    deadlines: BTreeSet<(Instant, Relayed)>,
    outputs: VecDeque<Output>,
    serial: u64,
    draining: bool,
}

/// Randomness that a shard can own.
pub trait RandomSource: Random + Send + std::fmt::Debug {}

impl<T: Random + Send + std::fmt::Debug> RandomSource for T {}

/// A request whose sender has proven who it is.
#[derive(Debug)]
struct Request<'a> {
    from: FiveTuple,
    message: Message<'a>,
    fields: &'a Fields<'a>,
    caller: Caller<'a>,
}

impl Server {
    /// A server without allocations.
    #[must_use]
    pub fn new(
        shard: ShardId,
        settings: Arc<Settings>,
        shared: Shared,
        rng: Box<dyn RandomSource>,
    ) -> Self {
        let relays = FamilyPair::from_fn(|family| {
            let ports = settings
                .policy
                .relay_address(family)
                .map_or(0, |_| shared.ports[family].len());
            (0..ports).map(|_| None).collect()
        });
        Self {
            shard,
            settings,
            shared,
            rng,
            clients: HashMap::new(),
            relays,
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
            serial: 0,
            draining: false,
        }
    }

    /// A datagram, or one message of a stream, that [`Server::route_client`] did not relay.
    pub fn handle_client(&mut self, now: Now, from: FiveTuple, bytes: &[u8]) {
        match Datagram::classify(bytes) {
            Datagram::Stun => self.handle_stun(now, from, bytes),
            Datagram::ClassicBinding => self.handle_stun(now, from, bytes),
            Datagram::ChannelData => self.drop(Reason::NoAllocation),
            Datagram::MsTurn => self.drop(Reason::MsTurn),
            Datagram::MsMultiplexed => self.drop(Reason::MsMultiplexed),
            Datagram::Dtls => self.drop(Reason::Dtls),
            Datagram::Unknown => self.drop(Reason::UnknownProtocol),
        }
    }

    /// [`Output::Close`] is done: only now may another shard have the port.
    pub fn handle_closed(&self, relayed: Relayed) {
        self.shared.ports[relayed.family].release(relayed.port);
    }

    /// The client's connection has ended, and with it what it held.
    pub fn handle_disconnect(&mut self, now: Now, from: FiveTuple) {
        if let Some(&relayed) = self.clients.get(&from) {
            self.close(now, relayed, Closed::Disconnected);
        }
    }

    /// Ends what has not been refreshed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(&(deadline, relayed)) = self.deadlines.first()
            && deadline <= now.mono
        {
            self.close(now, relayed, Closed::Expired);
        }
    }

    /// From now on the server makes no new allocations; those that are there go on.
    pub const fn handle_drain(&mut self) {
        self.draining = true;
    }

    /// Other rules for what comes from now on; allocations stay as they are.
    pub fn handle_settings(
        &mut self,
        settings: Arc<Settings>,
        authority: Arc<dyn Authority>,
        nonces: Arc<Nonces>,
    ) {
        self.settings = settings;
        self.shared.authority = authority;
        self.shared.nonces = nonces;
    }

    /// What is to be done next; drained before the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Server::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Allocations of this shard.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.clients.len()
    }

    /// Whether `from` holds an allocation.
    #[must_use]
    pub fn is_known(&self, from: FiveTuple) -> bool {
        self.clients.contains_key(&from)
    }

    /// The listener that a client uses.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.settings.listeners.get(usize::from(id.0))
    }

    fn handle_stun(&mut self, now: Now, from: FiveTuple, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else {
            return self.drop(Reason::Malformed);
        };
        let fields = Fields::read(message);
        if fields.fingerprint == Some(false) {
            return self.drop(Reason::Fingerprint);
        }
        match (message.class(), message.method()) {
            (Class::Request, Method::Binding) => self.handle_binding(now, from, message, &fields),
            (Class::Request, Method::Allocate) if bytes.len() == HEADER_LEN => {
                self.drop(Reason::BareAllocate);
            }
            (Class::Request, method) => self.handle_request(now, from, message, &fields, method),
            // Keepalives; Send has been relayed already.
            (Class::Indication, Method::Binding) => {}
            (Class::Indication | Class::Success | Class::Error, _) => self.drop(Reason::Unexpected),
        }
    }

    /// First who it is, then whether all is understood, then what it wants (RFC 8489 §6.3, §9.2.4).
    fn handle_request(
        &mut self,
        now: Now,
        from: FiveTuple,
        message: Message<'_>,
        fields: &Fields<'_>,
        method: Method,
    ) {
        let caller = match self.authenticate(now, from, fields) {
            Ok(caller) => caller,
            Err(refusal) => return self.refuse_stranger(now, from, message, fields, refusal),
        };
        let signer = Some((Arc::clone(&caller.key), caller.algorithm));
        let request = Request {
            from,
            message,
            fields,
            caller,
        };
        match self.decide(now, &request, method) {
            Ok(reply) => self.grant(&request, method, reply),
            Err(refusal) => self.refuse(from, message, fields, refusal, signer, now),
        }
    }

    fn decide(
        &mut self,
        now: Now,
        request: &Request<'_>,
        method: Method,
    ) -> Result<Reply, Refusal> {
        if !request.fields.unknown.is_empty() {
            return Err(Refusal::UnknownAttribute);
        }
        if request.fields.misshapen {
            return Err(Refusal::BadRequest);
        }
        if self
            .allocation_of(request.from)
            .is_some_and(|allocation| *allocation.username != *request.caller.username)
        {
            return Err(Refusal::WrongCredentials);
        }
        match method {
            Method::Allocate if self.draining && !self.is_known(request.from) => {
                Err(Refusal::InsufficientCapacity)
            }
            Method::Allocate => self.handle_allocate(now, request),
            Method::Refresh => self.handle_refresh(now, request),
            Method::CreatePermission => self.handle_create_permission(now, request),
            Method::ChannelBind => self.handle_channel_bind(now, request),
            Method::Binding | Method::Send | Method::Data | Method::Other(_) => {
                Err(Refusal::BadRequest)
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn drop(&mut self, reason: Reason) {
        self.event(Event::Dropped(reason));
    }

    const fn next_serial(&mut self) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}

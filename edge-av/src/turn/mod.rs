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
//! `tcp_out` and `closed` a permission for them is refused by 403 and
//! only other allocations of this edge can be reached.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod allocation;
pub mod authority;
pub mod drop_reason;
pub mod five_tuple;
pub mod header;
mod method;
pub mod nonce;
pub mod peer_policy;
pub mod port_pool;
pub mod quota;
pub mod refusal;
pub mod relayed;
pub mod route;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::config::AvLimits;
use edge_common::limit::{Cap, Source, SourceCap, SourceRate};
use edge_common::random::Random;
use edge_common::time::Now;

use self::allocation::{Allocation, Phase, Traffic};
use self::authority::Authority;
use self::drop_reason::Reason;
use self::five_tuple::{FiveTuple, Listener, ListenerId};
use self::nonce::Nonces;
use self::peer_policy::PeerPolicy;
use self::port_pool::{PortPool, ShardId};
use self::quota::{UserId, UserQuota};
use self::refusal::Refusal;
use self::relayed::{FamilyPair, Relayed};
use crate::stun::attribute::kind;
use crate::stun::demux::Datagram;
use crate::stun::fields::Fields;
use crate::stun::integrity::{Algorithm, Key};
use crate::stun::message::{Class, HEADER_LEN, Message, Method};
use crate::stun::writer::Writer;

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
    /// Answers to sources that have shown no credentials.
    pub strangers: SourceRate,
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

/// What the server wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this message to a client.
    Transmit {
        /// Which client.
        to: FiveTuple,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Open a relayed socket, and say what came of it: [`Server::handle_opened`].
    Open {
        /// The allocation that waits for it.
        relayed: Relayed,
        /// The address to bind.
        local: SocketAddr,
    },
    /// Close a relayed socket, and say when it is closed: [`Server::handle_closed`].
    Close {
        /// The allocation that it belonged to.
        relayed: Relayed,
    },
    /// Something that counters and logs want to know.
    Event(Event),
}

/// A fact for counters and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request was granted.
    Answered(Method),
    /// A request was refused.
    Refused(Method, Refusal),
    /// A datagram was neither answered nor relayed.
    Dropped(Reason),
    /// An allocation is in use.
    Opened {
        /// Whose it is.
        client: FiveTuple,
        /// What its peers see.
        relayed: SocketAddr,
    },
    /// An allocation has ended.
    Closed {
        /// Whose it was.
        client: FiveTuple,
        /// What its peers saw.
        relayed: SocketAddr,
        /// Why it ended.
        why: Closed,
        /// How long it was there.
        lasted: Duration,
        /// What it relayed.
        traffic: Traffic,
    },
}

/// Why an allocation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// It was not refreshed in time.
    Expired,
    /// The client asked for it.
    Released,
    /// The client's connection ended.
    Disconnected,
    /// No relayed socket could be opened.
    NotOpened,
}

/// A request whose sender has proven who it is.
#[derive(Debug)]
struct Request<'a> {
    from: FiveTuple,
    message: Message<'a>,
    fields: &'a Fields<'a>,
    caller: Caller<'a>,
}

#[derive(Debug)]
struct Caller<'a> {
    username: &'a [u8],
    key: Arc<Key>,
    algorithm: Algorithm,
    /// Known when the token was looked at, which an existing allocation makes unnecessary.
    user: Option<UserId>,
}

/// What a granted request gets.
enum Reply {
    /// Nothing but yes.
    Done,
    /// LIFETIME.
    Lifetime(Duration),
    /// The relayed address and what goes with it.
    Allocated(Relayed, Duration),
    /// The answer comes when the socket is open.
    Later,
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

    /// What came of [`Output::Open`].
    pub fn handle_opened(&mut self, now: Now, relayed: Relayed, opened: bool) {
        let Some(allocation) = self.allocation_at_mut(relayed) else {
            return;
        };
        let Phase::Opening {
            tries,
            algorithm,
            fingerprint,
        } = allocation.phase
        else {
            return;
        };
        if opened {
            allocation.phase = Phase::Open;
            self.greet(relayed, algorithm, fingerprint);
        } else if tries < OPEN_TRIES {
            self.try_another_port(
                now,
                relayed,
                Phase::Opening {
                    tries: tries + 1,
                    algorithm,
                    fingerprint,
                },
            );
        } else {
            self.give_up(now, relayed);
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

    /// The long-term mechanism of RFC 8489 §9.2.4, in its order.
    fn authenticate<'a>(
        &self,
        now: Now,
        from: FiveTuple,
        fields: &Fields<'a>,
    ) -> Result<Caller<'a>, Refusal> {
        let proof = fields.proof.ok_or(Refusal::Unauthenticated)?;
        let (Some(username), Some(realm), Some(nonce)) =
            (fields.username, fields.realm, fields.nonce)
        else {
            return Err(Refusal::BadRequest);
        };
        self.shared
            .nonces
            .check(now, from.client.ip(), nonce)
            .map_err(|_| Refusal::StaleNonce)?;
        if realm != self.settings.realm.as_bytes() {
            return Err(Refusal::Unauthenticated);
        }
        let (key, user) = match self.session_key(now, from, username) {
            Some(key) => (Some(key).filter(|key| fields.proven_by(key)), None),
            None => self.token_key(now, username, fields)?,
        };
        let key = key.ok_or(Refusal::Unauthenticated)?;
        Ok(Caller {
            username,
            key,
            algorithm: proof.algorithm,
            user,
        })
    }

    /// An allocation keeps its key: a call does not end because the token that began it has expired meanwhile. But a
    /// session ends some time.
    fn session_key(&self, now: Now, from: FiveTuple, username: &[u8]) -> Option<Arc<Key>> {
        let held = self.allocation_of(from)?;
        let current = *held.username == *username && now.mono < held.since + SESSION_MAX;
        current.then(|| Arc::clone(&held.key))
    }

    /// The key, among those that belong to the user name, that made the message's MAC.
    fn token_key(
        &self,
        now: Now,
        username: &[u8],
        fields: &Fields<'_>,
    ) -> Result<(Option<Arc<Key>>, Option<UserId>), Refusal> {
        let verified = self
            .shared
            .authority
            .verify(now, username)
            .map_err(|_| Refusal::Unauthenticated)?;
        let realm = self.settings.realm.as_bytes();
        let mut keys = verified
            .passwords
            .iter()
            .map(|password| Key::long_term(username, realm, password));
        Ok((
            keys.find(|key| fields.proven_by(key)).map(Arc::new),
            Some(verified.user),
        ))
    }

    fn grant(&mut self, request: &Request<'_>, method: Method, reply: Reply) {
        if matches!(reply, Reply::Later) {
            return;
        }
        let answer = Writer::new(method, Class::Success, request.message.transaction());
        let answer = match reply {
            Reply::Done | Reply::Later => answer,
            Reply::Lifetime(lifetime) => answer.attribute(kind::LIFETIME, &seconds(lifetime)),
            Reply::Allocated(relayed, lifetime) => {
                self.allocated(answer, relayed, lifetime, request.from)
            }
        };
        let answer = answer.integrity(request.caller.algorithm, &request.caller.key);
        self.event(Event::Answered(method));
        self.transmit(request.from, finish_like(answer, request.fields));
    }

    fn allocated(
        &self,
        answer: Writer,
        relayed: Relayed,
        lifetime: Duration,
        client: FiveTuple,
    ) -> Writer {
        let answer = match self.public_address(relayed) {
            Some(address) => answer.xor_address(kind::XOR_RELAYED_ADDRESS, address),
            None => answer,
        };
        answer
            .attribute(kind::LIFETIME, &seconds(lifetime))
            .xor_address(kind::XOR_MAPPED_ADDRESS, client.client)
    }

    /// The answer that an Allocate has waited for.
    fn greet(&mut self, relayed: Relayed, algorithm: Algorithm, fingerprint: bool) {
        let Some((allocation, address)) = self
            .allocation_at(relayed)
            .zip(self.public_address(relayed))
        else {
            return;
        };
        let (client, lifetime) = (allocation.client, allocation.first_lifetime);
        let answer = Writer::new(Method::Allocate, Class::Success, allocation.made_by);
        let answer = self
            .allocated(answer, relayed, lifetime, client)
            .integrity(algorithm, &allocation.key);
        self.event(Event::Answered(Method::Allocate));
        self.event(Event::Opened {
            client,
            relayed: address,
        });
        self.transmit(
            client,
            if fingerprint {
                answer.fingerprint()
            } else {
                answer
            },
        );
    }

    /// Somebody else on this host sits on the port: another one is taken before this one is given back.
    fn try_another_port(&mut self, now: Now, relayed: Relayed, phase: Phase) {
        let Some(port) = self.shared.ports[relayed.family].take(self.shard, &mut *self.rng) else {
            return self.give_up(now, relayed);
        };
        let Some(mut allocation) = self.remove(relayed) else {
            return;
        };
        self.shared.ports[relayed.family].release(relayed.port);
        allocation.relayed.port = port;
        allocation.phase = phase;
        let relayed = allocation.relayed;
        self.insert(*allocation);
        self.open(relayed);
    }

    fn give_up(&mut self, now: Now, relayed: Relayed) {
        let Some(allocation) = self.allocation_at(relayed) else {
            return;
        };
        let Phase::Opening {
            algorithm,
            fingerprint,
            ..
        } = allocation.phase
        else {
            return;
        };
        let (client, refusal) = (allocation.client, Refusal::InsufficientCapacity);
        let answer = Writer::new(Method::Allocate, Class::Error, allocation.made_by)
            .error_code(refusal.code())
            .integrity(algorithm, &allocation.key);
        self.event(Event::Refused(Method::Allocate, refusal));
        self.transmit(
            client,
            if fingerprint {
                answer.fingerprint()
            } else {
                answer
            },
        );
        self.close(now, relayed, Closed::NotOpened);
    }

    /// Somebody who has shown nothing gets few answers, unless it holds an allocation already.
    fn refuse_stranger(
        &mut self,
        now: Now,
        from: FiveTuple,
        message: Message<'_>,
        fields: &Fields<'_>,
        refusal: Refusal,
    ) {
        if !self.is_known(from)
            && !self
                .shared
                .strangers
                .take(now, Source::from(from.client.ip()))
        {
            return self.drop(Reason::StrangerBudget);
        }
        self.refuse(from, message, fields, refusal, None, now);
    }

    fn refuse(
        &mut self,
        from: FiveTuple,
        message: Message<'_>,
        fields: &Fields<'_>,
        refusal: Refusal,
        signer: Option<(Arc<Key>, Algorithm)>,
        now: Now,
    ) {
        let method = message.method();
        let mut answer =
            Writer::new(method, Class::Error, message.transaction()).error_code(refusal.code());
        if refusal == Refusal::UnknownAttribute {
            answer = answer.attribute(kind::UNKNOWN_ATTRIBUTES, &fields.unknown.to_bytes());
        }
        if refusal.is_challenge() {
            answer = answer
                .attribute(kind::REALM, self.settings.realm.as_bytes())
                .attribute(
                    kind::NONCE,
                    &self.shared.nonces.issue(now, from.client.ip()),
                );
        } else if let Some((key, algorithm)) = signer {
            answer = answer.integrity(algorithm, &key);
        }
        self.event(Event::Refused(method, refusal));
        self.transmit(from, finish_like(answer, fields));
    }

    fn transmit(&mut self, to: FiveTuple, answer: Writer) {
        self.outputs.push_back(Output::Transmit {
            to,
            bytes: answer.finish(),
        });
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

    fn allocation_of(&self, client: FiveTuple) -> Option<&Allocation> {
        self.allocation_at(*self.clients.get(&client)?)
    }

    fn allocation_of_mut(&mut self, client: FiveTuple) -> Option<&mut Allocation> {
        self.allocation_at_mut(*self.clients.get(&client)?)
    }

    fn allocation_at(&self, relayed: Relayed) -> Option<&Allocation> {
        let index = self.shared.ports[relayed.family].index(relayed.port)?;
        self.relays[relayed.family].get(index)?.as_deref()
    }

    fn allocation_at_mut(&mut self, relayed: Relayed) -> Option<&mut Allocation> {
        let index = self.shared.ports[relayed.family].index(relayed.port)?;
        self.relays[relayed.family].get_mut(index)?.as_deref_mut()
    }

    /// The three tables agree on every allocation; only this, [`Server::remove`] and [`Server::prolong`] write them.
    fn insert(&mut self, allocation: Allocation) {
        let relayed = allocation.relayed;
        let Some(index) = self.shared.ports[relayed.family].index(relayed.port) else {
            return;
        };
        self.clients.insert(allocation.client, relayed);
        self.deadlines.insert((allocation.expires, relayed));
        self.relays[relayed.family][index] = Some(Box::new(allocation));
        debug_assert_eq!(self.clients.len(), self.deadlines.len());
    }

    fn remove(&mut self, relayed: Relayed) -> Option<Box<Allocation>> {
        let index = self.shared.ports[relayed.family].index(relayed.port)?;
        let allocation = self.relays[relayed.family].get_mut(index)?.take()?;
        self.clients.remove(&allocation.client);
        self.deadlines.remove(&(allocation.expires, relayed));
        debug_assert_eq!(self.clients.len(), self.deadlines.len());
        Some(allocation)
    }

    fn prolong(&mut self, relayed: Relayed, expires: Instant) {
        let Some(allocation) = self.allocation_at_mut(relayed) else {
            return;
        };
        let before = std::mem::replace(&mut allocation.expires, expires);
        self.deadlines.remove(&(before, relayed));
        self.deadlines.insert((expires, relayed));
    }

    fn close(&mut self, now: Now, relayed: Relayed, why: Closed) {
        let Some(allocation) = self.remove(relayed) else {
            return;
        };
        self.outputs.push_back(Output::Close { relayed });
        if let Some(address) = self.public_address(relayed) {
            self.event(Event::Closed {
                client: allocation.client,
                relayed: address,
                why,
                lasted: now.mono.saturating_duration_since(allocation.since),
                traffic: allocation.traffic,
            });
        }
    }

    fn local_address(&self, relayed: Relayed) -> Option<SocketAddr> {
        let ip = self.settings.policy.relay_address(relayed.family)?;
        Some(SocketAddr::new(ip, relayed.port))
    }

    fn public_address(&self, relayed: Relayed) -> Option<SocketAddr> {
        self.local_address(relayed)
            .map(|local| self.settings.policy.outward(local))
    }
}

/// An answer carries FINGERPRINT when the request did.
fn finish_like(answer: Writer, request: &Fields<'_>) -> Writer {
    if request.fingerprint.is_some() {
        answer.fingerprint()
    } else {
        answer
    }
}

fn seconds(duration: Duration) -> [u8; 4] {
    (duration.as_secs() as u32).to_be_bytes()
}

/// Ports that are tried before a client is told that there is none.
const OPEN_TRIES: u8 = 8;
/// How long an allocation may be refreshed with a token that has expired meanwhile.
pub const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);

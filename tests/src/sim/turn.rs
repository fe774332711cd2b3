#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! The TURN server's core in the simulated world, with a client and a peer.

use super::world::{Address, Node, Packet};
use edge_av::stun::attribute::{kind, read_xor_address};
use edge_av::stun::fields::Fields;
use edge_av::stun::integrity::{Algorithm, Key};
use edge_av::stun::message::{Class, MAGIC_COOKIE, Message, Method, Transaction};
use edge_av::stun::writer::Writer;
use edge_av::turn::five_tuple::{FiveTuple, ListenerId, Transport};
use edge_av::turn::relayed::{Family, Relayed};
use edge_av::turn::route::{Route, Span};
use edge_av::turn::{Event, Output, Server};
use edge_common::time::Now;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// One shard of the relay: what its shell does, without sockets.
#[derive(Debug)]
pub struct Relay {
    server: Server,
    listen: Address,
    relay_ip: IpAddr,
    open: BTreeSet<Relayed>,
    out: VecDeque<Packet>,
    /// Everything that the server said.
    pub events: Vec<Event>,
}

impl Relay {
    /// `listen` is where clients send to; relayed sockets are on its address.
    #[must_use]
    pub const fn new(server: Server, listen: Address) -> Self {
        Self {
            server,
            listen,
            relay_ip: listen.ip(),
            open: BTreeSet::new(),
            out: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Allocations that the server holds.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.server.allocations()
    }

    /// Relayed sockets that are open.
    #[must_use]
    pub fn sockets(&self) -> Vec<Address> {
        self.open
            .iter()
            .map(|relayed| SocketAddr::new(self.relay_ip, relayed.port))
            .collect()
    }

    fn handle_client(&mut self, now: Now, packet: &Packet) {
        let from = FiveTuple {
            listener: ListenerId(0),
            client: packet.from,
        };
        match self.server.route_client(now, from, &packet.bytes) {
            Route::Control => self.server.handle_client(now, from, &packet.bytes),
            route @ (Route::Peer { .. }
            | Route::Client { .. }
            | Route::Shard { .. }
            | Route::Drop(_)) => {
                self.perform(now, route, &packet.bytes);
            }
        }
    }

    fn handle_peer(&mut self, now: Now, packet: &Packet) {
        let relayed = Relayed {
            family: Family::of(self.relay_ip),
            port: packet.to.port(),
        };
        if !self.open.contains(&relayed) {
            return;
        }
        let whole = Span {
            start: 0,
            len: u16::try_from(packet.bytes.len()).unwrap_or(u16::MAX),
        };
        let route = self.server.route_peer(now, relayed, packet.from, whole);
        self.perform(now, route, &packet.bytes);
    }

    fn perform(&mut self, now: Now, route: Route, packet: &[u8]) {
        let part = |span: Span| {
            let start = usize::from(span.start);
            packet[start..start + usize::from(span.len)].to_vec()
        };
        match route {
            Route::Peer { by, to, payload } => self.out.push_back(Packet {
                from: SocketAddr::new(self.relay_ip, by.port),
                to,
                bytes: part(payload),
            }),
            Route::Client {
                to,
                header,
                payload,
            } => {
                let mut bytes = vec![0; header.front_len()];
                header.write(&mut bytes, payload.len);
                bytes.extend(part(payload));
                let padding = header.padding(payload.len.into(), Transport::Udp);
                bytes.resize(bytes.len() + padding, 0);
                self.out.push_back(Packet {
                    from: self.listen,
                    to: to.client,
                    bytes,
                });
            }
            // One shard: a hairpin comes back to it.
            Route::Shard {
                relayed,
                from,
                payload,
                ..
            } => {
                let bytes = part(payload);
                let whole = Span {
                    start: 0,
                    len: payload.len,
                };
                let route = self.server.route_peer(now, relayed, from, whole);
                self.perform(now, route, &bytes);
            }
            Route::Drop(reason) => self.events.push(Event::Dropped(reason)),
            Route::Control => {}
        }
    }

    fn drain(&mut self, now: Now) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Transmit { to, bytes } => self.out.push_back(Packet {
                    from: self.listen,
                    to: to.client,
                    bytes,
                }),
                Output::Open { relayed, .. } => {
                    let fresh = self.open.insert(relayed);
                    self.server.handle_opened(now, relayed, fresh);
                }
                Output::Close { relayed } => {
                    self.open.remove(&relayed);
                    self.server.handle_closed(relayed);
                }
                Output::Event(event) => self.events.push(event),
            }
        }
    }
}

impl Node for Relay {
    fn handle_packet(&mut self, now: Now, packet: Packet) {
        if packet.to == self.listen {
            self.handle_client(now, &packet);
        } else {
            self.handle_peer(now, &packet);
        }
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.server.handle_timeout(now);
        self.drain(now);
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }
}

/// Sends back whatever comes.
#[derive(Debug, Default)]
pub struct Echo {
    out: VecDeque<Packet>,
    /// How many packets came.
    pub heard: u64,
}

impl Node for Echo {
    fn handle_packet(&mut self, _now: Now, packet: Packet) {
        self.heard += 1;
        self.out.push_back(Packet {
            from: packet.to,
            to: packet.from,
            bytes: packet.bytes,
        });
    }

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// What a client is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Challenge,
    Allocate,
    Bind,
    Talk,
    Release,
    Done,
    Failed,
}

/// One user: allocates, binds a channel, talks at a steady pace, releases. Requests are repeated as
/// RFC 8489 §6.2.1 says.
#[derive(Debug)]
pub struct Client {
    own: Address,
    server: Address,
    peer: Address,
    username: String,
    password: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    goal: Goal,
    /// The request under way, and when it is sent again.
    pending: Option<(Transaction, Vec<u8>)>,
    tries: u32,
    wake: Option<Instant>,
    serial: u64,
    left: u32,
    out: VecDeque<Packet>,
    /// Requests that were sent again.
    pub repeats: u32,
    /// The relayed address, once there is one.
    pub relayed: Option<Address>,
    /// Payloads that came back, by number.
    pub echoed: BTreeSet<u32>,
    /// Error codes that were answered, in order.
    pub errors: Vec<u16>,
}

impl Client {
    /// A client that will send `payloads` packets to `peer`, 20 ms apart.
    #[must_use]
    pub fn new(
        own: Address,
        server: Address,
        peer: Address,
        user: (&str, &str),
        payloads: u32,
    ) -> Self {
        Self {
            own,
            server,
            peer,
            username: user.0.to_owned(),
            password: user.1.to_owned(),
            realm: Vec::new(),
            nonce: Vec::new(),
            goal: Goal::Challenge,
            pending: None,
            tries: 0,
            wake: None,
            serial: 0,
            left: payloads,
            out: VecDeque::new(),
            repeats: 0,
            relayed: None,
            echoed: BTreeSet::new(),
            errors: Vec::new(),
        }
    }

    /// Sends the first request.
    pub fn start(&mut self, now: Now) {
        let request = Self::allocate_request(self.transaction()).finish();
        self.ask(now, request);
    }

    /// Whether it has done all that it wanted.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.goal == Goal::Done
    }

    /// Whether it gave up.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.goal == Goal::Failed
    }

    fn transaction(&mut self) -> Transaction {
        self.serial += 1;
        let mut id = [0; 16];
        id[..4].copy_from_slice(&MAGIC_COOKIE);
        id[8..].copy_from_slice(&self.serial.to_be_bytes());
        Transaction(id)
    }

    fn allocate_request(transaction: Transaction) -> Writer {
        Writer::new(Method::Allocate, Class::Request, transaction)
            .attribute(kind::REQUESTED_TRANSPORT, &[UDP_PROTOCOL, 0, 0, 0])
    }

    fn key(&self) -> Key {
        Key::long_term(
            self.username.as_bytes(),
            &self.realm,
            self.password.as_bytes(),
        )
    }

    fn signed(&self, request: Writer) -> Vec<u8> {
        request
            .attribute(kind::USERNAME, self.username.as_bytes())
            .attribute(kind::REALM, &self.realm)
            .attribute(kind::NONCE, &self.nonce)
            .integrity(Algorithm::Sha1, &self.key())
            .finish()
    }

    fn ask(&mut self, now: Now, bytes: Vec<u8>) {
        let id = bytes
            .get(4..20)
            .and_then(|id| id.try_into().ok())
            .map(Transaction);
        self.pending = id.map(|id| (id, bytes.clone()));
        self.tries = 1;
        self.wake = Some(now.mono + RTO);
        self.transmit(bytes);
    }

    fn transmit(&mut self, bytes: Vec<u8>) {
        self.out.push_back(Packet {
            from: self.own,
            to: self.server,
            bytes,
        });
    }

    fn next_request(&mut self, now: Now) {
        let transaction = self.transaction();
        let request = match self.goal {
            Goal::Challenge | Goal::Allocate => Self::allocate_request(transaction),
            Goal::Bind => Writer::new(Method::ChannelBind, Class::Request, transaction)
                .attribute(kind::CHANNEL_NUMBER, &[CHANNEL[0], CHANNEL[1], 0, 0])
                .xor_address(kind::XOR_PEER_ADDRESS, self.peer),
            Goal::Release => Writer::new(Method::Refresh, Class::Request, transaction)
                .attribute(kind::LIFETIME, &0_u32.to_be_bytes()),
            Goal::Talk | Goal::Done | Goal::Failed => return,
        };
        let bytes = self.signed(request);
        self.ask(now, bytes);
    }

    fn handle_answer(&mut self, now: Now, message: Message<'_>) {
        let fields = Fields::read(message);
        self.pending = None;
        self.wake = None;
        let find = |wanted| {
            message
                .attributes()
                .find(|attribute| attribute.kind == wanted)
        };
        if message.class() == Class::Error {
            let code = find(kind::ERROR_CODE).and_then(|error| {
                Some(u16::from(*error.value.get(2)?) * 100 + u16::from(*error.value.get(3)?))
            });
            // The second copy of the request found nothing to delete (RFC 8656 §7.3).
            if (self.goal, code) == (Goal::Release, Some(437)) {
                self.goal = Goal::Done;
                return;
            }
            self.errors.extend(code);
            self.nonce = fields.nonce.unwrap_or_default().to_vec();
            self.realm = fields.realm.unwrap_or_default().to_vec();
            let again = matches!(
                (self.goal, code),
                (Goal::Challenge, Some(401)) | (_, Some(438))
            );
            self.goal = match (self.goal, again) {
                (Goal::Challenge, true) => Goal::Allocate,
                (goal, true) => goal,
                (_, false) => Goal::Failed,
            };
            return self.next_request(now);
        }
        if !fields.proven_by(&self.key()) {
            self.goal = Goal::Failed;
            return;
        }
        match self.goal {
            Goal::Challenge | Goal::Allocate => {
                self.relayed = find(kind::XOR_RELAYED_ADDRESS)
                    .and_then(|found| read_xor_address(found.value, message.transaction()));
                self.goal = Goal::Bind;
                self.next_request(now);
            }
            Goal::Bind => {
                self.goal = Goal::Talk;
                self.wake = Some(now.mono);
            }
            Goal::Release => self.goal = Goal::Done,
            Goal::Talk | Goal::Done | Goal::Failed => {}
        }
    }

    fn talk(&mut self, now: Now) {
        if self.left == 0 {
            self.goal = Goal::Release;
            return self.next_request(now);
        }
        self.left -= 1;
        let mut bytes = CHANNEL.to_vec();
        bytes.extend(4_u16.to_be_bytes());
        bytes.extend(self.left.to_be_bytes());
        self.transmit(bytes);
        // After the last payload the echoes get a moment before the relay is given back.
        let gap = if self.left == 0 { LINGER } else { PACE };
        self.wake = Some(now.mono + gap);
    }

    fn repeat(&mut self, now: Now) {
        let Some((_, bytes)) = self.pending.clone() else {
            return;
        };
        if self.tries >= TRIES {
            self.goal = Goal::Failed;
            self.wake = None;
            return;
        }
        self.wake = Some(now.mono + RTO * 2_u32.pow(self.tries));
        self.tries += 1;
        self.repeats += 1;
        self.transmit(bytes);
    }
}

impl Node for Client {
    fn handle_packet(&mut self, now: Now, packet: Packet) {
        if let [a, b, _, _, payload @ ..] = packet.bytes.as_slice()
            && [*a, *b] == CHANNEL
        {
            let number = payload.get(..4).and_then(|number| number.try_into().ok());
            self.echoed.extend(number.map(u32::from_be_bytes));
            return;
        }
        let Ok(message) = Message::parse(&packet.bytes) else {
            return;
        };
        let expected = self.pending.as_ref().map(|(id, _)| *id);
        // An answer to what was answered already: the second copy of it.
        if expected == Some(message.transaction()) {
            self.handle_answer(now, message);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.wake = None;
        if self.goal == Goal::Talk {
            self.talk(now);
        } else {
            self.repeat(now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }
}

/// RFC 8489 §6.2.1: first pause, doubled each time, and how often a request is sent.
const RTO: Duration = Duration::from_millis(500);
const TRIES: u32 = 7;
const PACE: Duration = Duration::from_millis(20);
const LINGER: Duration = Duration::from_secs(1);
const UDP_PROTOCOL: u8 = 17;
const CHANNEL: [u8; 2] = [0x40, 0x01];

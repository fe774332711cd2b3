//! The simulated world: servers of several shards, clients, peers, a network between them and a clock that we move.

mod authentication;
mod lifetimes;
mod relaying;
mod states;
mod strangers;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::config::AvLimits;
use edge_common::limit::{Cap, Rate, SourceCap, SourceRate};
use edge_common::random::Seeded;
use edge_common::secret::{ArraySecret, Label, Secrets};
use edge_common::side::Side;
use edge_common::time::{Now, UnixTime};
use zeroize::Zeroizing;

use super::authority::{Authority, Denied, Verified};
use super::drop_reason::Reason;
use super::five_tuple::{FiveTuple, Listener, ListenerId, Transport};
use super::nonce::Nonces;
use super::peer_policy::PeerPolicy;
use super::port_pool::{PortPool, ShardId};
use super::quota::{UserId, UserQuota};
use super::relayed::{FamilyPair, Relayed};
use super::route::{Route, Span};
use super::{Event, Output, Server, Settings, Shared};
use crate::stun::attribute::{kind, read_xor_address};
use crate::stun::fields::Fields;
use crate::stun::integrity::{Algorithm, Key};
use crate::stun::message::{Class, MAGIC_COOKIE, Message, Method, Transaction};
use crate::stun::writer::Writer;

const REALM: &str = "contoso.test";
const RELAY_V4: &str = "198.51.100.12";
const RELAY_V6: &str = "2001:db8:100::10";
const UDP: ListenerId = ListenerId(0);

/// How a world differs from the usual one.
struct Plan {
    shards: u8,
    ports: &'static str,
    public: Option<IpAddr>,
    udp_leaves: bool,
    limits: AvLimits,
}

impl Default for Plan {
    fn default() -> Self {
        let limits = AvLimits {
            stranger_answers_per_second: 1_000_000,
            ..AvLimits::default()
        };
        Self {
            shards: 1,
            ports: "50000-59999",
            public: None,
            udp_leaves: true,
            limits,
        }
    }
}

struct World {
    now: Now,
    servers: Vec<Server>,
    shared: Shared,
    policy: PeerPolicy,
    /// Relayed sockets that are open.
    sockets: BTreeSet<Relayed>,
    /// Whether the shell takes its time to open sockets; then they wait here.
    slow: bool,
    waiting: Vec<(u8, Relayed)>,
    /// Ports that another process holds.
    occupied: BTreeSet<u16>,
    /// What clients got, in order.
    to_clients: Vec<(FiveTuple, Vec<u8>)>,
    /// What left by relayed sockets: from, to, payload.
    to_peers: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    events: Vec<Event>,
    drops: Vec<Reason>,
    /// Packets that went from one shard to another.
    crossed: usize,
}

/// Knows the users "ann", "bob" and so on, with the name in capitals as password; "old" has expired.
#[derive(Debug)]
struct Phonebook;

impl Authority for Phonebook {
    fn verify(&self, now: Now, username: &[u8]) -> Result<Verified, Denied> {
        let expired = username == b"old"
            || (username == b"brief" && now.unix > epoch() + Duration::from_secs(60));
        if expired {
            return Err(Denied::Expired);
        }
        if username.len() > 8 {
            return Err(Denied::Unknown);
        }
        let user = username
            .iter()
            .fold(0, |id, &byte| id << 8 | u64::from(byte))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let passwords = vec![
            Zeroizing::new(b"of the key before".to_vec()),
            Zeroizing::new(username.to_ascii_uppercase()),
        ];
        Ok(Verified {
            passwords,
            user: UserId(user),
        })
    }
}

fn epoch() -> UnixTime {
    UnixTime::from_secs(1_700_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

impl World {
    fn new(plan: &Plan) -> Self {
        let now = Now {
            mono: Instant::now(),
            unix: epoch(),
        };
        let net = |text: &str| text.parse().expect("a network");
        let policy = PeerPolicy {
            relays: FamilyPair {
                v4: Some(ip(RELAY_V4)),
                v6: Some(ip(RELAY_V6)),
            },
            public: plan.public,
            ours: [
                net("198.51.100.12/32"),
                net("198.51.100.10/32"),
                net("10.10.0.10/32"),
                net("10.10.0.0/16"),
            ]
            .into_iter()
            .chain(plan.public.map(ipnet::IpNet::from))
            .collect(),
            allowed: vec![
                net("203.0.113.0/24"),
                net("198.51.100.0/24"),
                net("2001:db8::/32"),
            ],
            udp_leaves: plan.udp_leaves,
        };
        let listener = |transport, side, local| Listener {
            transport,
            side,
            local: addr(local),
        };
        let settings = Arc::new(Settings {
            realm: REALM.into(),
            listeners: vec![
                listener(Transport::Udp, Side::External, "198.51.100.12:3478"),
                listener(Transport::Tcp, Side::External, "198.51.100.12:443"),
            ],
            policy: policy.clone(),
            limits: plan.limits.clone(),
        });
        let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(4)));
        let (limits, range) = (&plan.limits, plan.ports.parse().expect("a range"));
        let answers = limits.stranger_answers_per_second as u32;
        let rate = Rate {
            per_second: answers,
            burst: answers,
        };
        let shared = Shared {
            ports: Arc::new(FamilyPair::from_fn(|_| PortPool::new(range))),
            allocations: Cap::new("allocations", limits.allocations),
            users: UserQuota::new(limits.allocations, limits.allocations_per_user),
            sources: SourceCap::new([1; 16], 4096, limits.allocations_per_source as u32),
            strangers: SourceRate::new([2; 16], 4096, rate, now),
            stream_strangers: SourceRate::new([2; 16], 4096, rate, now),
            authority: Arc::new(Phonebook),
            nonces: Arc::new(Nonces::new(&secrets.derive(Label::TurnNonce))),
        };
        let server = |shard| {
            let rng = Box::new(Seeded::new(shard));
            Server::new(
                ShardId(shard as u8),
                Arc::clone(&settings),
                shared.clone(),
                rng,
            )
        };
        Self {
            now,
            servers: (0..u64::from(plan.shards)).map(server).collect(),
            shared: shared.clone(),
            policy,
            sockets: BTreeSet::new(),
            slow: false,
            waiting: Vec::new(),
            occupied: BTreeSet::new(),
            to_clients: Vec::new(),
            to_peers: Vec::new(),
            events: Vec::new(),
            drops: Vec::new(),
            crossed: 0,
        }
    }

    fn usual() -> Self {
        Self::new(&Plan::default())
    }

    fn client(&self, shard: u8, from: &str, username: &str) -> Client {
        let from = FiveTuple {
            listener: UDP,
            client: addr(from),
        };
        let password = username.to_ascii_uppercase();
        let key = Key::long_term(username.as_bytes(), REALM.as_bytes(), password.as_bytes());
        Client {
            shard,
            from,
            username: username.into(),
            key,
            nonce: Vec::new(),
            serial: 0,
        }
    }

    /// What the shell does with a packet from a client.
    fn client_sends(&mut self, shard: u8, from: FiveTuple, packet: &[u8]) {
        let now = self.now;
        let route = self.server(shard).route_client(now, from, packet);
        if route == Route::Control {
            self.server(shard).handle_client(now, from, packet);
            self.drain(shard);
        } else {
            self.perform(route, packet);
        }
    }

    /// What the shell does with a packet that arrives at a relayed socket.
    fn peer_sends(&mut self, shard: u8, relayed: SocketAddr, from: &str, payload: &[u8]) {
        let local = self.policy.inward(relayed);
        let relayed = Relayed {
            family: super::relayed::Family::of(local.ip()),
            port: local.port(),
        };
        assert!(
            self.sockets.contains(&relayed),
            "the kernel would have nowhere to deliver it"
        );
        let span = Span {
            start: 0,
            len: payload.len() as u16,
        };
        let now = self.now;
        let route = self
            .server(shard)
            .route_peer(now, relayed, addr(from), span);
        self.perform(route, payload);
    }

    fn perform(&mut self, route: Route, packet: &[u8]) {
        let part = |span: Span| {
            packet[usize::from(span.start)..usize::from(span.start + span.len)].to_vec()
        };
        match route {
            Route::Peer { by, to, payload } => {
                let from = SocketAddr::new(
                    self.policy.relay_address(by.family).expect("it relays"),
                    by.port,
                );
                self.to_peers.push((from, to, part(payload)));
            }
            Route::Client {
                to,
                header,
                payload,
            } => {
                let mut bytes = vec![0; header.front_len()];
                header.write(&mut bytes, payload.len);
                bytes.extend(part(payload));
                bytes.resize(
                    bytes.len() + header.padding(payload.len.into(), Transport::Udp),
                    0,
                );
                self.to_clients.push((to, bytes));
            }
            Route::Shard {
                shard,
                relayed,
                from,
                payload,
            } => {
                self.crossed += 1;
                let copy = part(payload);
                let span = Span {
                    start: 0,
                    len: payload.len,
                };
                let now = self.now;
                let route = self.server(shard.0).route_peer(now, relayed, from, span);
                self.perform(route, &copy);
            }
            Route::Drop(reason) => self.drops.push(reason),
            Route::Control => panic!("a peer's packet is never control"),
        }
    }

    fn drain(&mut self, shard: u8) {
        while let Some(output) = self.server(shard).poll_output() {
            match output {
                Output::Transmit { to, bytes } => self.to_clients.push((to, bytes)),
                Output::Open { relayed, .. } if self.slow => self.waiting.push((shard, relayed)),
                Output::Open { relayed, .. } => self.open(shard, relayed),
                Output::Close { relayed } => {
                    self.sockets.remove(&relayed);
                    self.server(shard).handle_closed(relayed);
                }
                Output::Event(Event::Dropped(reason)) => self.drops.push(reason),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn open(&mut self, shard: u8, relayed: Relayed) {
        let (now, opened) = (self.now, !self.occupied.contains(&relayed.port));
        if opened {
            assert!(self.sockets.insert(relayed), "two allocations on one port");
        }
        self.server(shard).handle_opened(now, relayed, opened);
    }

    /// The slow shell comes to the sockets that it was asked for.
    fn open_what_waits(&mut self) {
        for (shard, relayed) in std::mem::take(&mut self.waiting) {
            self.open(shard, relayed);
            self.drain(shard);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        for shard in 0..self.servers.len() {
            let now = self.now;
            self.servers[shard].handle_timeout(now);
            self.drain(shard as u8);
        }
    }

    fn server(&mut self, shard: u8) -> &mut Server {
        &mut self.servers[usize::from(shard)]
    }

    fn allocations(&self) -> usize {
        self.servers.iter().map(Server::allocations).sum()
    }

    /// The last thing that `client` got.
    fn received(&self, client: &Client) -> Option<&[u8]> {
        self.to_clients
            .iter()
            .rev()
            .find(|(to, _)| *to == client.from)
            .map(|(_, bytes)| bytes.as_slice())
    }
}

/// A client that follows the papers, unless a test makes it not to.
struct Client {
    shard: u8,
    from: FiveTuple,
    username: String,
    key: Key,
    nonce: Vec<u8>,
    serial: u64,
}

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: u16,
    relayed: Option<SocketAddr>,
    mapped: Option<SocketAddr>,
    lifetime: Option<u32>,
    signed: bool,
}

impl Client {
    fn transaction(&mut self) -> Transaction {
        self.serial += 1;
        let mut id = [0; 16];
        id[..4].copy_from_slice(&MAGIC_COOKIE);
        id[8..].copy_from_slice(&self.serial.to_be_bytes());
        Transaction(id)
    }

    fn begin(&mut self, method: Method) -> Writer {
        Writer::new(method, Class::Request, self.transaction())
    }

    fn sign(&self, request: Writer) -> Vec<u8> {
        request
            .attribute(kind::USERNAME, self.username.as_bytes())
            .attribute(kind::REALM, REALM.as_bytes())
            .attribute(kind::NONCE, &self.nonce)
            .integrity(Algorithm::Sha1, &self.key)
            .finish()
    }

    /// Sends one signed request and takes the answer apart; asks for a nonce first.
    fn ask(&mut self, world: &mut World, request: Writer) -> Answer {
        self.try_ask(world, request).expect("an answer")
    }

    /// The same where silence is an answer.
    fn try_ask(&mut self, world: &mut World, request: Writer) -> Option<Answer> {
        if self.nonce.is_empty() {
            self.fetch_nonce(world);
        }
        let bytes = self.sign(request);
        self.send(world, &bytes)
    }

    fn fetch_nonce(&mut self, world: &mut World) {
        let bytes = self
            .begin(Method::Allocate)
            .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .finish();
        let answer = self.send(world, &bytes).expect("a challenge");
        assert_eq!(answer.code, 401);
    }

    /// Sends bytes; `None` when the server stays silent.
    fn send(&mut self, world: &mut World, bytes: &[u8]) -> Option<Answer> {
        let before = world.to_clients.len();
        world.client_sends(self.shard, self.from, bytes);
        let (to, bytes) = world.to_clients.get(before)?.clone();
        assert_eq!(to, self.from);
        let message = Message::parse(&bytes).expect("the server writes lawful messages");
        let fields = Fields::read(message);
        if let Some(nonce) = fields.nonce {
            self.nonce = nonce.to_vec();
        }
        let find = |wanted| {
            message
                .attributes()
                .find(|attribute| attribute.kind == wanted)
        };
        let address = |kind| {
            find(kind).and_then(|found| read_xor_address(found.value, message.transaction()))
        };
        Some(Answer {
            code: find(kind::ERROR_CODE).map_or(0, |error| {
                u16::from(error.value[2]) * 100 + u16::from(error.value[3])
            }),
            relayed: address(kind::XOR_RELAYED_ADDRESS),
            mapped: address(kind::XOR_MAPPED_ADDRESS),
            lifetime: fields.lifetime,
            signed: fields.proven_by(&self.key),
        })
    }

    fn allocate(&mut self, world: &mut World) -> Answer {
        let request = self
            .begin(Method::Allocate)
            .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        self.ask(world, request)
    }

    /// Allocates and gives the relayed address.
    fn relay(&mut self, world: &mut World) -> SocketAddr {
        self.allocate(world).relayed.expect("a relayed address")
    }

    fn permit(&mut self, world: &mut World, peers: &[SocketAddr]) -> u16 {
        let mut request = self.begin(Method::CreatePermission);
        for &peer in peers {
            request = request.xor_address(kind::XOR_PEER_ADDRESS, peer);
        }
        self.ask(world, request).code
    }

    fn bind(&mut self, world: &mut World, number: u16, peer: SocketAddr) -> u16 {
        let [high, low] = number.to_be_bytes();
        let request = self
            .begin(Method::ChannelBind)
            .attribute(kind::CHANNEL_NUMBER, &[high, low, 0, 0])
            .xor_address(kind::XOR_PEER_ADDRESS, peer);
        self.ask(world, request).code
    }

    fn refresh(&mut self, world: &mut World, seconds: u32) -> Answer {
        let request = self
            .begin(Method::Refresh)
            .attribute(kind::LIFETIME, &seconds.to_be_bytes());
        self.ask(world, request)
    }

    fn send_data(&mut self, world: &mut World, peer: SocketAddr, data: &[u8]) {
        let transaction = self.transaction();
        let bytes = Writer::new(Method::Send, Class::Indication, transaction)
            .xor_address(kind::XOR_PEER_ADDRESS, peer)
            .attribute(kind::DATA, data)
            .finish();
        world.client_sends(self.shard, self.from, &bytes);
    }

    fn send_channel(&mut self, world: &mut World, number: u16, data: &[u8]) {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        world.client_sends(self.shard, self.from, &bytes);
    }
}

/// The payload and peer of a Data indication.
fn data_of(bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
    let message = Message::parse(bytes).ok()?;
    let fields = Fields::read(message);
    (message.method() == Method::Data).then_some((fields.peer?, fields.data?.to_vec()))
}

//! A client that the inside has accepted, the edge, and a server inside.

use crate::sim::sip::Edge;
use crate::sim::world::{Address, Node, Packet};
use edge_access::proxy::refusal::Drop;
use edge_access::proxy::settings::{FederationRules, Settings};
use edge_access::proxy::token::Tokens;
use edge_access::proxy::{Event, Proxy};
use edge_common::config::{
    AccessLimits, Clients, Disclosure, InsideRoutes, RegisterMode, SipDomain, WebSocket,
};
use edge_common::host_name::HostName;
use edge_common::random::Seeded;
use edge_common::secret::{ArraySecret, Secrets};
use edge_common::time::{Now, UnixTime};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::text::{Text, response};

/// The edge between its two connections.
#[derive(Debug)]
pub struct Stage {
    edge: Edge,
    now: Now,
    cut: Cut,
}

/// How the bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All at once.
    Whole,
    /// One after the other.
    Bytes,
}

/// What the edge did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Messages that it sent inside.
    pub inside: Vec<Vec<u8>>,
    /// Messages that it sent to the client.
    pub outside: Vec<Vec<u8>>,
    /// Why it closed the client's connection.
    pub closed: Option<&'static str>,
    /// Why it threw messages away.
    pub dropped: Vec<Drop>,
}

impl Stage {
    /// A stage whose client has signed in.
    pub fn set(cut: Cut) -> Result<Self, String> {
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        };
        let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(7)));
        let tokens = Arc::new(Tokens::new(&secrets));
        let rng = Box::new(Seeded::new(1));
        let proxy = Proxy::new(now, 0, Arc::new(settings()), tokens, rng);
        let director = (addr(DIRECTOR), name("director.edge.test"));
        let edge = Edge::new(now, proxy, addr(EDGE), addr(EDGE_INSIDE), director);
        let mut stage = Self { edge, now, cut };
        let inside = stage.own_request("REGISTER")?;
        let register = Text::of(&inside).ok_or("no whole REGISTER inside")?;
        stage.from_inside(&response(register, "200 OK"));
        let promoted = |event: &Event| matches!(event, Event::Promoted(_));
        if !stage.edge.events.iter().any(promoted) {
            return Err("the client could not sign in".to_owned());
        }
        stage.edge.events.clear();
        Ok(stage)
    }

    /// Sends a lawful request of ours; gives what arrives inside.
    pub fn own_request(&mut self, method: &str) -> Result<Vec<u8>, String> {
        let text = format!(
            "{method} sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TLS {CLIENT};branch=z9hG4bKown\r\n\
             Max-Forwards: 70\r\nFrom: <sip:own@{DOMAIN}>;tag=own\r\nTo: <sip:own@{DOMAIN}>\r\n\
             Call-ID: own\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        );
        let mut seen = self.from_outside(text.as_bytes());
        seen.inside
            .pop()
            .ok_or_else(|| format!("our own {method} did not go inside"))
    }

    /// The client sends these bytes.
    pub fn from_outside(&mut self, bytes: &[u8]) -> Seen {
        self.send(CLIENT, EDGE, bytes)
    }

    /// The server inside sends these bytes.
    pub fn from_inside(&mut self, bytes: &[u8]) -> Seen {
        self.send(DIRECTOR, EDGE_INSIDE, bytes)
    }

    /// Time passes, and nobody says anything.
    pub fn wait(&mut self, time: Duration) -> Seen {
        let end = self.now.mono + time;
        while let Some(at) = self.edge.poll_timeout().filter(|&at| at <= end) {
            // A wheel may ask to be turned at a moment that has passed.
            let step = at.saturating_duration_since(self.now.mono);
            self.now = self.now.plus(step.max(Duration::from_millis(1)));
            self.edge.handle_timeout(self.now);
        }
        self.now = self.now.plus(end.saturating_duration_since(self.now.mono));
        self.collect()
    }

    fn send(&mut self, from: &str, to: &str, bytes: &[u8]) -> Seen {
        let size = match self.cut {
            Cut::Whole => bytes.len().max(1),
            Cut::Bytes => 1,
        };
        for piece in bytes.chunks(size) {
            // What is sent to a connection that was closed arrives nowhere.
            if !self.edge.closed.is_empty() {
                break;
            }
            let packet = Packet {
                from: addr(from),
                to: addr(to),
                bytes: piece.to_vec(),
            };
            self.edge.handle_packet(self.now, packet);
        }
        self.collect()
    }

    fn collect(&mut self) -> Seen {
        let mut seen = Seen::default();
        while let Some(packet) = self.edge.poll_transmit() {
            // The edge's own word that it has an INVITE is no answer to it.
            if packet.bytes.starts_with(b"SIP/2.0 100 Trying") {
                continue;
            }
            if packet.to == addr(CLIENT) {
                seen.outside.push(packet.bytes);
            } else {
                seen.inside.push(packet.bytes);
            }
        }
        seen.closed = self.edge.closed.first().map(|&(_, reason)| reason);
        self.edge.events.retain(|event| {
            if let Event::Dropped(drop) = event {
                seen.dropped.push(*drop);
            }
            !matches!(event, Event::Dropped(_))
        });
        seen
    }
}

/// The domains of the messages are ours, so that who sends them hides nothing of how they are read.
fn settings() -> Settings {
    let own = |domain: &&str| SipDomain {
        domain: name(domain),
        remote_users_here: true,
        remote_users_edge: None,
    };
    Settings {
        node: 1,
        epoch: 1,
        external: name("sip.edge.test"),
        internal: name("inside.edge.test"),
        member: name(MEMBER),
        other_members: Vec::new(),
        inside_routes: InsideRoutes::Member,
        is_balanced: false,
        drain_percent_per_second: 1,
        client_port: 443,
        federation_port: 5061,
        internal_port: 5061,
        domains: SENDERS.iter().map(own).collect(),
        remote_users: true,
        anonymous_users: false,
        register_mode: RegisterMode::Path,
        websocket: WebSocket::default(),
        clients: Clients::default(),
        disclosure: Disclosure::default(),
        next_hop: Some("director.edge.test:5061".parse().expect("a next hop")),
        trusted_servers: Vec::new(),
        federation: FederationRules {
            port: 5061,
            pending: 1,
            ..FederationRules::default()
        },
        limits: AccessLimits::default(),
    }
}

fn name(text: &str) -> HostName {
    text.parse().expect("a host name")
}

fn addr(text: &str) -> Address {
    text.parse().expect("an address with a port")
}

/// The edge's name inside.
pub const MEMBER: &str = "edge1.edge.test";
/// Where the client's address and port are seen.
pub const CLIENT: &str = "203.0.113.77:50123";
const EDGE: &str = "198.51.100.10:443";
const EDGE_INSIDE: &str = "10.10.0.10:40000";
const DIRECTOR: &str = "10.10.0.50:5061";
const DOMAIN: &str = "example.com";
/// Whose users send the messages.
const SENDERS: [&str; 4] = [DOMAIN, "east.example.com", "example.net", "example.org"];

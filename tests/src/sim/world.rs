#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! Nodes, the links between them, and a clock that jumps from event to event.
//!
//! A run is a function of its seed: nothing here asks the system for time or randomness, and what is
//! walked over is ordered.

use super::link::Link;
use edge_common::random::Seeded;
use edge_common::time::Now;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One participant: a core of ours with a little shell around it, or a model of somebody else.
pub trait Node {
    /// A packet has arrived.
    fn handle_packet(&mut self, now: Now, packet: Packet);
    /// The time has come that [`Node::poll_timeout`] named.
    fn handle_timeout(&mut self, now: Now);
    /// What it sends next; asked until there is nothing more.
    fn poll_transmit(&mut self) -> Option<Packet>;
    /// When it wants to be woken.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// Bytes on their way. Addresses are whatever the scenario's nodes understand: sockets or flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Sender.
    pub from: Address,
    /// Receiver.
    pub to: Address,
    /// Content.
    pub bytes: Vec<u8>,
}

/// Where a packet comes from or goes to.
pub type Address = std::net::SocketAddr;

/// The simulated world.
pub struct World {
    now: Now,
    rng: Seeded,
    nodes: BTreeMap<Address, usize>,
    players: Vec<Rc<RefCell<dyn Node>>>,
    /// Links by sender and receiver; those not named use `default_link`.
    links: BTreeMap<(Address, Address), Link>,
    default_link: Link,
    /// Arrivals in order; the number keeps simultaneous ones apart.
    arrivals: BTreeMap<(Instant, u64), Packet>,
    /// When the latest piece of each stream arrives.
    streams: BTreeMap<(Address, Address), Instant>,
    sent: u64,
    serial: u64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("nodes", &self.nodes)
            .field("under_way", &self.arrivals.len())
            .finish_non_exhaustive()
    }
}

impl World {
    /// An empty world in which every path is `link`.
    #[must_use]
    pub fn new(now: Now, seed: u64, link: Link) -> Self {
        Self {
            now,
            rng: Seeded::new(seed),
            nodes: BTreeMap::new(),
            players: Vec::new(),
            links: BTreeMap::new(),
            default_link: link,
            arrivals: BTreeMap::new(),
            streams: BTreeMap::new(),
            sent: 0,
            serial: 0,
        }
    }

    /// Puts a node into the world under its addresses; the caller keeps a handle to look into it.
    pub fn add<N: Node + 'static>(&mut self, addresses: &[Address], node: N) -> Rc<RefCell<N>> {
        let node = Rc::new(RefCell::new(node));
        for &address in addresses {
            self.nodes.insert(address, self.players.len());
        }
        // Spelled out for the coercion to the trait object.
        let player: Rc<RefCell<dyn Node>> = Rc::<RefCell<N>>::clone(&node);
        self.players.push(player);
        node
    }

    /// Adds an address to the node that has `known`: a socket that it has opened meanwhile.
    pub fn alias(&mut self, known: Address, new: Address) {
        if let Some(&node) = self.nodes.get(&known) {
            self.nodes.insert(new, node);
        }
    }

    /// Replaces the path from one address to another.
    pub fn set_link(&mut self, from: Address, to: Address, link: Link) {
        self.links.insert((from, to), link);
    }

    /// The clock.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// Packets that nodes have sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Lets `time` pass. Everything due happens in order, each node drained before the next event.
    pub fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        self.drain();
        while let Some(next) = self.next_event().filter(|&next| next <= end) {
            self.now = self.now.plus(next.saturating_duration_since(self.now.mono));
            self.step();
            self.drain();
        }
        self.now = self.now.plus(end.saturating_duration_since(self.now.mono));
    }

    /// Lets time pass until `done`, at most `limit`; says whether it came to that.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let end = self.now.mono + limit;
        self.drain();
        while !done() {
            let Some(next) = self.next_event().filter(|&next| next <= end) else {
                return false;
            };
            self.now = self.now.plus(next.saturating_duration_since(self.now.mono));
            self.step();
            self.drain();
        }
        true
    }

    fn next_event(&self) -> Option<Instant> {
        let arrival = self.arrivals.keys().next().map(|&(at, _)| at);
        let timers = self
            .players
            .iter()
            .filter_map(|node| node.borrow().poll_timeout());
        arrival
            .into_iter()
            .chain(timers)
            .min()
            .map(|at| at.max(self.now.mono))
    }

    fn step(&mut self) {
        while let Some(entry) = self.arrivals.first_entry() {
            if entry.key().0 > self.now.mono {
                break;
            }
            let packet = entry.remove();
            if let Some(&node) = self.nodes.get(&packet.to) {
                self.players[node]
                    .borrow_mut()
                    .handle_packet(self.now, packet);
                self.drain();
            }
        }
        for node in &self.players {
            let mut node = node.borrow_mut();
            if node.poll_timeout().is_some_and(|at| at <= self.now.mono) {
                node.handle_timeout(self.now);
            }
        }
    }

    fn drain(&mut self) {
        let players = self.players.clone();
        for node in &players {
            while let Some(packet) = { node.borrow_mut().poll_transmit() } {
                self.dispatch(&packet);
            }
        }
    }

    fn dispatch(&mut self, packet: &Packet) {
        let link = self.links.get(&(packet.from, packet.to)).copied();
        let link = link.unwrap_or(self.default_link);
        if link.stream {
            return self.dispatch_stream(packet, link);
        }
        self.sent += 1;
        for delay in link.carry(&mut self.rng) {
            self.arrive(self.now.mono + delay, packet.clone());
        }
    }

    /// In pieces, none of which arrives before the one sent earlier.
    fn dispatch_stream(&mut self, packet: &Packet, link: Link) {
        let mut rest = packet.bytes.as_slice();
        for len in link.pieces(rest.len(), &mut self.rng) {
            let (piece, after) = rest.split_at(len);
            rest = after;
            self.sent += 1;
            let earlier = self.streams.get(&(packet.from, packet.to)).copied();
            let own = self.now.mono + link.stream_delay(&mut self.rng);
            let at = earlier.map_or(own, |earlier| earlier.max(own));
            self.streams.insert((packet.from, packet.to), at);
            let bytes = piece.to_vec();
            self.arrive(at, Packet { bytes, ..*packet });
        }
    }

    fn arrive(&mut self, at: Instant, packet: Packet) {
        self.serial += 1;
        self.arrivals.insert((at, self.serial), packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::time::UnixTime;
    use std::collections::VecDeque;

    /// Sends a number every 10 ms; notes the numbers that come.
    struct Counter {
        own: Address,
        other: Address,
        next: Option<Instant>,
        left: u8,
        out: VecDeque<Packet>,
        heard: Vec<u8>,
    }

    impl Node for Counter {
        fn handle_packet(&mut self, _now: Now, packet: Packet) {
            self.heard.extend(packet.bytes);
        }
        fn handle_timeout(&mut self, now: Now) {
            self.out.push_back(Packet {
                from: self.own,
                to: self.other,
                bytes: vec![self.left],
            });
            self.left -= 1;
            self.next = (self.left > 0).then(|| now.mono + Duration::from_millis(10));
        }
        fn poll_transmit(&mut self) -> Option<Packet> {
            self.out.pop_front()
        }
        fn poll_timeout(&self) -> Option<Instant> {
            self.next
        }
    }

    trait TakeHeard {
        fn take_heard(&self) -> Vec<u8>;
    }

    impl TakeHeard for Rc<RefCell<Counter>> {
        fn take_heard(&self) -> Vec<u8> {
            std::mem::take(&mut self.borrow_mut().heard)
        }
    }

    #[test]
    fn one_seed_gives_one_run() {
        let link = Link {
            delay: Duration::from_millis(15),
            jitter: Duration::from_millis(40),
            loss_per_mille: 200,
            twice_per_mille: 200,
            stream: false,
        };
        assert_eq!(heard(3, link), heard(3, link));
        assert_ne!(heard(3, link), heard(4, link));
    }

    #[test]
    fn a_perfect_link_keeps_the_order_and_the_clock_moves_by_events_only() {
        assert_eq!(
            heard(1, Link::default()),
            (1..=20).rev().collect::<Vec<u8>>()
        );
    }

    #[test]
    fn jitter_changes_the_order() {
        let link = Link {
            jitter: Duration::from_millis(50),
            ..Link::default()
        };
        let mut arrived = heard(1, link);
        assert_eq!(arrived.len(), 20);
        assert_ne!(arrived, (1..=20).rev().collect::<Vec<u8>>());
        arrived.sort_unstable();
        assert_eq!(arrived, (1..=20).collect::<Vec<u8>>());
    }

    fn heard(seed: u64, link: Link) -> Vec<u8> {
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        };
        let (a, b): (Address, Address) = (
            "192.0.2.1:1".parse().expect("a"),
            "192.0.2.2:1".parse().expect("b"),
        );
        let counter = |own, other, left, next| Counter {
            own,
            other,
            next,
            left,
            out: VecDeque::new(),
            heard: Vec::new(),
        };
        let mut world = World::new(now, seed, link);
        world.add(&[a], counter(a, b, 20, Some(now.mono)));
        let listener = world.add(&[b], counter(b, a, 0, None));
        world.run(Duration::from_secs(1));
        assert_eq!(world.now().mono, now.mono + Duration::from_secs(1));
        listener.take_heard()
    }
}

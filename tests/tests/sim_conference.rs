//! The conference broker's core with an agent inside and clients outside, over streams that arrive in
//! pieces.

use edge_common::random::Seeded;
use edge_common::time::{Now, UnixTime};
use edge_tests::sim::conference::{Agent, CONTROL_PORT, Client, Edge, FIRST_DATA_PORT};
use edge_tests::sim::link::Link;
use edge_tests::sim::world::{Address, World};
use edge_webconf::ewrp::Number;
use edge_webconf::session::{Broker, Event, Settings, Trust};
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[test]
fn every_client_with_a_number_is_served_however_the_streams_are_cut() {
    for seed in 0..20 {
        let mut stage = Stage::set(seed);
        let clients: Vec<_> = (0..10).map(|at| stage.client(at)).collect();
        stage.admit(0..10);
        for (at, client) in (0..).zip(&clients) {
            client
                .borrow_mut()
                .send(format!("hello {} world\n", number(at).0).as_bytes());
        }
        stage.world.run(Duration::from_secs(3));
        for client in &clients {
            client.borrow_mut().send(b"and more");
        }
        stage.world.run(Duration::from_secs(3));
        for (at, client) in (0..).zip(&clients) {
            let expected = format!("hello {} world\nand more", number(at).0);
            let heard = String::from_utf8_lossy(&client.borrow().heard).into_owned();
            assert_eq!(heard, expected, "seed {seed}, client {at}");
        }
        assert_eq!(stage.agent.borrow().opened.len(), 10, "seed {seed}");
    }
}

#[test]
fn no_byte_of_a_client_without_a_number_goes_inside() {
    let mut stage = Stage::set(1);
    stage.admit(0..1);
    let stranger = stage.client(0);
    // One digit off: as long as a number, and none.
    stranger
        .borrow_mut()
        .send(format!("{}\n", number(0).0 + 1).as_bytes());
    stage.world.run(Duration::from_secs(20));
    assert!(stranger.borrow().heard.is_empty());
    assert!(stage.agent.borrow().opened.is_empty());
    assert_eq!(stage.edge.borrow().closed, [address(0)]);
    let refused = |event: &Event| matches!(event, Event::Refused { .. });
    assert!(stage.edge.borrow().events.iter().any(refused));
}

#[test]
fn a_number_lets_one_client_in_and_is_forgotten_after_its_time() {
    let mut stage = Stage::set(2);
    stage.admit(0..2);
    let (first, second, late) = (stage.client(0), stage.client(1), stage.client(2));
    let show = |client: &Rc<RefCell<Client>>, at| {
        client
            .borrow_mut()
            .send(format!("{}\n", number(at).0).as_bytes());
    };
    show(&first, 0);
    stage.world.run(Duration::from_secs(2));
    show(&second, 0);
    stage.world.run(Duration::from_secs(70));
    show(&late, 1);
    stage.world.run(Duration::from_secs(20));
    assert!(!first.borrow().heard.is_empty());
    assert!(second.borrow().heard.is_empty(), "the number was used");
    assert!(late.borrow().heard.is_empty(), "the number has expired");
    assert_eq!(stage.agent.borrow().opened.len(), 1);
}

#[test]
fn a_lost_agent_takes_its_numbers_along() {
    let mut stage = Stage::set(3);
    stage.admit(0..1);
    let now = stage.world.now();
    stage.edge.borrow_mut().hang_up(now, control());
    let client = stage.client(0);
    client
        .borrow_mut()
        .send(format!("{}\n", number(0).0).as_bytes());
    stage.world.run(Duration::from_secs(20));
    assert!(client.borrow().heard.is_empty());
    assert!(stage.agent.borrow().opened.is_empty());
    assert_eq!(stage.edge.borrow().parked(), 0);
}

struct Stage {
    world: World,
    edge: Rc<RefCell<Edge>>,
    agent: Rc<RefCell<Agent>>,
}

impl Stage {
    fn set(seed: u64) -> Self {
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        };
        let path = Link {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(30),
            stream: true,
            ..Link::default()
        };
        let mut world = World::new(now, seed, path);
        let broker = Broker::new(settings(), Box::new(Seeded::new(seed)));
        let (outside, inside) = (addr(CLIENTS), addr(AGENTS));
        let name = AGENT.parse().expect("a host name");
        let edge = world.add(&[outside, inside], Edge::new(broker, outside, inside, name));
        let agent = world.add(&[control()], Agent::new(agent_host(), inside, AGENT));
        for port in 1..100 {
            world.alias(
                control(),
                Address::new(agent_host(), FIRST_DATA_PORT + port),
            );
        }
        agent.borrow_mut().start();
        world.run(Duration::from_secs(2));
        let mut stage = Self { world, edge, agent };
        assert!(stage.edge.borrow().parked() >= 4, "the pool is filled");
        stage.world.run(Duration::ZERO);
        stage
    }

    fn admit(&mut self, range: std::ops::Range<u64>) {
        for at in range.clone() {
            self.agent
                .borrow_mut()
                .admit(number(at), Duration::from_secs(60));
        }
        self.world.run(Duration::from_secs(1));
        let wanted: Vec<Number> = range.map(number).collect();
        assert_eq!(self.agent.borrow().admitted, wanted);
    }

    fn client(&mut self, at: u8) -> Rc<RefCell<Client>> {
        self.world
            .add(&[address(at)], Client::new(address(at), addr(CLIENTS)))
    }
}

fn settings() -> Settings {
    Settings {
        edge_id: [9; 16],
        trust: Trust {
            agents: vec![AGENT.parse().expect("a pattern")],
            ..Trust::default()
        },
        scan: true,
        clients: 100,
        preread: 4096,
        preread_timeout: Duration::from_secs(10),
        lease_timeout: Duration::from_secs(5),
        lease_queue: 16,
        admitted: 100,
        tokens: 100,
        token_lifetime: Duration::from_secs(3600),
        pool_min: 4,
        pool_max: 16,
    }
}

fn number(at: u64) -> Number {
    Number(1_234_567_890_123_456_000 + 2 * at)
}

fn address(at: u8) -> Address {
    addr(&format!("192.0.2.{}:5000", 100 + at))
}

fn control() -> Address {
    Address::new(agent_host(), CONTROL_PORT)
}

fn agent_host() -> IpAddr {
    "10.10.0.60".parse().expect("an address")
}

fn addr(text: &str) -> Address {
    text.parse().expect("an address with a port")
}

const CLIENTS: &str = "198.51.100.11:443";
const AGENTS: &str = "10.10.0.10:8057";
const AGENT: &str = "mcu1.contoso.internal";

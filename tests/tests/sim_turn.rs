//! The relay's core with clients over links that lose, delay, duplicate and reorder.

use edge_av::turn::authority::{Authority, Denied, Verified};
use edge_av::turn::five_tuple::{Listener, Transport};
use edge_av::turn::nonce::Nonces;
use edge_av::turn::peer_policy::PeerPolicy;
use edge_av::turn::port_pool::{PortPool, ShardId};
use edge_av::turn::quota::{UserId, UserQuota};
use edge_av::turn::relayed::FamilyPair;
use edge_av::turn::{Closed, Event, Server, Settings, Shared};
use edge_common::config::AvLimits;
use edge_common::limit::{Cap, Rate, SourceCap, SourceRate};
use edge_common::random::Seeded;
use edge_common::secret::{ArraySecret, Label, Secrets};
use edge_common::side::Side;
use edge_common::time::{Now, UnixTime};
use edge_tests::sim::link::Link;
use edge_tests::sim::turn::{Client, Echo, Relay};
use edge_tests::sim::world::{Address, World};
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

#[test]
fn a_call_over_a_perfect_path_needs_no_repeats_and_loses_nothing() {
    let mut stage = Stage::set(1, Link::default());
    let client = stage.client("192.0.2.10:5000", "ann", 50);
    assert!(stage.world.run_until(LIMIT, || client.borrow().is_done()));
    let client = client.borrow();
    assert_eq!((client.repeats, client.echoed.len()), (0, 50));
    assert_eq!(client.errors, [401]);
    assert_eq!(stage.relay.borrow().allocations(), 0);
    assert!(stage.relay.borrow().sockets().is_empty());
}

#[test]
fn lossy_paths_cost_repeats_but_no_allocation_is_lost_or_doubled() {
    for seed in 0..40 {
        let mut stage = Stage::set(seed, LOSSY);
        let users: Vec<_> = ["ann", "bob", "cat"]
            .into_iter()
            .zip(10..)
            .map(|(user, host)| stage.client(&format!("192.0.2.{host}:5000"), user, 100))
            .collect();
        let done = || users.iter().all(|user| user.borrow().is_done());
        assert!(stage.world.run_until(LIMIT, done), "seed {seed}: {users:?}");
        for user in &users {
            let user = user.borrow();
            // There and back: four links, each of which loses a tenth, in both directions.
            assert!(
                user.echoed.len() > 40,
                "seed {seed}: {} of 100",
                user.echoed.len()
            );
            // A repeated request is answered like the first (RFC 8489 §6.3.1), never by 437.
            assert_eq!(user.errors, [401], "seed {seed}");
        }
        let relay = stage.relay.borrow();
        let opened = relay
            .events
            .iter()
            .filter(|event| matches!(event, Event::Opened { .. }))
            .count();
        assert_eq!(opened, 3, "seed {seed}: one allocation a user");
        assert_eq!(relay.allocations(), 0, "seed {seed}");
        assert_eq!(stage.ports.taken(), 0, "seed {seed}: every port is back");
    }
}

#[test]
fn a_client_that_falls_silent_is_forgotten_after_its_lifetime_and_its_port_comes_back() {
    let mut stage = Stage::set(5, Link::default());
    let client = stage.client("192.0.2.10:5000", "ann", 10);
    assert!(
        stage
            .world
            .run_until(LIMIT, || !client.borrow().echoed.is_empty())
    );
    // The home loses its line: nothing leaves it any more.
    let dead = Link {
        loss_per_mille: 1000,
        ..Link::default()
    };
    stage
        .world
        .set_link(addr("192.0.2.10:5000"), addr(SERVER), dead);
    stage.world.run(Duration::from_secs(590));
    assert_eq!(
        stage.relay.borrow().allocations(),
        1,
        "600 s are its lifetime"
    );
    stage.world.run(Duration::from_secs(20));
    assert!(client.borrow().has_failed());
    assert_eq!(stage.relay.borrow().allocations(), 0);
    assert_eq!(stage.ports.taken(), 0);
    let expired = |event: &Event| {
        matches!(
            event,
            Event::Closed {
                why: Closed::Expired,
                ..
            }
        )
    };
    assert!(stage.relay.borrow().events.iter().any(expired));
}

#[test]
fn a_wrong_password_gets_no_allocation_however_often_it_is_tried() {
    let mut stage = Stage::set(6, LOSSY);
    let client = stage.client_with("192.0.2.10:5000", ("ann", "wrong"), 10);
    assert!(
        stage
            .world
            .run_until(LIMIT, || client.borrow().has_failed())
    );
    assert_eq!(client.borrow().errors, [401, 401]);
    assert_eq!(client.borrow().relayed, None);
    assert_eq!(stage.ports.taken(), 0);
}

struct Stage {
    world: World,
    relay: Rc<RefCell<Relay>>,
    ports: Arc<FamilyPair<PortPool>>,
}

trait Taken {
    fn taken(&self) -> u32;
}

impl Taken for Arc<FamilyPair<PortPool>> {
    fn taken(&self) -> u32 {
        self.v4.taken() + self.v6.taken()
    }
}

impl Stage {
    fn set(seed: u64, link: Link) -> Self {
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        };
        let shared = shared(now);
        let ports = Arc::clone(&shared.ports);
        let rng = Box::new(Seeded::new(seed));
        let server = Server::new(ShardId(0), Arc::new(settings()), shared, rng);
        let mut world = World::new(now, seed, link);
        let relay = world.add(&[addr(SERVER)], Relay::new(server, addr(SERVER)));
        for port in RELAY_PORTS {
            world.alias(addr(SERVER), Address::new(ip(RELAY), port));
        }
        world.add(&[addr(PEER)], Echo::default());
        Self {
            world,
            relay,
            ports,
        }
    }

    fn client(&mut self, own: &str, user: &str, payloads: u32) -> Rc<RefCell<Client>> {
        let password = user.to_uppercase();
        self.client_with(own, (user, &password), payloads)
    }

    fn client_with(&mut self, own: &str, user: (&str, &str), payloads: u32) -> Rc<RefCell<Client>> {
        let client = Client::new(addr(own), addr(SERVER), addr(PEER), user, payloads);
        let client = self.world.add(&[addr(own)], client);
        client.borrow_mut().start(self.world.now());
        client
    }
}

/// Everybody's password is the name in capitals.
#[derive(Debug)]
struct Capitals;

impl Authority for Capitals {
    fn verify(&self, _now: Now, username: &[u8]) -> Result<Verified, Denied> {
        let id = username
            .iter()
            .fold(0, |id, &byte| id << 8 | u64::from(byte));
        Ok(Verified {
            passwords: vec![Zeroizing::new(username.to_ascii_uppercase())],
            user: UserId(id.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        })
    }
}

fn settings() -> Settings {
    let net = |text: &str| text.parse().expect("a network");
    Settings {
        realm: "contoso.test".to_owned(),
        listeners: vec![Listener {
            transport: Transport::Udp,
            side: Side::External,
            local: addr(SERVER),
        }],
        policy: PeerPolicy {
            relays: FamilyPair {
                v4: Some(ip(RELAY)),
                v6: None,
            },
            public: None,
            ours: vec![net("198.51.100.12/32"), net("10.10.0.0/16")],
            allowed: vec![net("203.0.113.0/24")],
            udp_leaves: true,
        },
        limits: AvLimits::default(),
    }
}

fn shared(now: Now) -> Shared {
    let limits = AvLimits::default();
    let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(4)));
    let range = format!("{}-{}", RELAY_PORTS.start(), RELAY_PORTS.end());
    let rate = Rate {
        per_second: 1000,
        burst: 1000,
    };
    Shared {
        ports: Arc::new(FamilyPair::from_fn(|_| {
            PortPool::new(range.parse().expect("a range"))
        })),
        allocations: Cap::new("allocations", limits.allocations),
        users: UserQuota::new(limits.allocations, limits.allocations_per_user),
        sources: SourceCap::new([1; 16], 4096, 128),
        strangers: SourceRate::new([2; 16], 4096, rate, now),
        stream_strangers: SourceRate::new([2; 16], 4096, rate, now),
        authority: Arc::new(Capitals),
        nonces: Arc::new(Nonces::new(&secrets.derive(Label::TurnNonce))),
    }
}

fn addr(text: &str) -> Address {
    text.parse().expect("an address with a port")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const SERVER: &str = "198.51.100.12:3478";
const RELAY: &str = "198.51.100.12";
const PEER: &str = "203.0.113.7:4000";
const RELAY_PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_063;
const LIMIT: Duration = Duration::from_secs(120);
const LOSSY: Link = Link {
    delay: Duration::from_millis(30),
    jitter: Duration::from_millis(60),
    loss_per_mille: 100,
    twice_per_mille: 50,
    stream: false,
};

//! The proxy's core with phones and a Director, over streams that arrive in pieces.

use edge_access::proxy::Proxy;
use edge_access::proxy::settings::{FederationRules, Settings};
use edge_access::proxy::token::Tokens;
use edge_common::config::{AccessLimits, Clients, Disclosure, RegisterMode, SipDomain, WebSocket};
use edge_common::host_name::HostName;
use edge_common::random::Seeded;
use edge_common::secret::{ArraySecret, Secrets};
use edge_common::time::{Now, UnixTime};
use edge_tests::sim::link::Link;
use edge_tests::sim::sip::{Director, Edge, Phone};
use edge_tests::sim::world::{Address, World};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn every_phone_signs_in_and_every_message_arrives_once_however_the_streams_are_cut() {
    for seed in 0..20 {
        let mut stage = Stage::set(seed, 12);
        stage.world.run(Duration::from_secs(5));
        for phone in &stage.phones {
            assert!(phone.borrow().signed_in, "seed {seed}: {phone:?}");
        }
        for (from, phone) in stage.phones.iter().enumerate() {
            let to = (from + 1) % stage.phones.len();
            phone
                .borrow_mut()
                .message(&user(to), &format!("from {from}"));
        }
        stage.world.run(Duration::from_secs(5));
        for (at, phone) in stage.phones.iter().enumerate() {
            let from = (at + stage.phones.len() - 1) % stage.phones.len();
            let phone = phone.borrow();
            assert_eq!(
                phone.heard,
                [format!("from {from}")],
                "seed {seed}, phone {at}"
            );
            assert_eq!(phone.answers, [200], "seed {seed}, phone {at}");
        }
    }
}

#[test]
fn a_message_for_a_phone_that_has_hung_up_is_answered_and_reaches_nobody_else() {
    let mut stage = Stage::set(1, 3);
    stage.world.run(Duration::from_secs(5));
    let now = stage.world.now();
    stage.edge.borrow_mut().hang_up(now, address(1));
    stage.phones[0]
        .borrow_mut()
        .message(&user(1), "are you there?");
    stage.world.run(Duration::from_secs(5));
    let answers = stage.phones[0].borrow().answers.clone();
    assert!(matches!(answers[..], [400..=599]), "{answers:?}");
    assert!(
        stage
            .phones
            .iter()
            .all(|phone| phone.borrow().heard.is_empty())
    );
}

#[test]
fn a_stream_that_is_no_sip_is_closed_and_the_others_go_on() {
    let mut stage = Stage::set(2, 3);
    stage.world.run(Duration::from_secs(5));
    stage.phones[2]
        .borrow_mut()
        .send_raw(b"OPTIONS sip:x SIP/2.0\r\nContent-Length: none\r\n\r\n");
    stage.world.run(Duration::from_secs(1));
    assert_eq!(
        stage.edge.borrow().closed,
        [(address(2), "content_length_invalid")]
    );
    assert_eq!(stage.edge.borrow().clients(), 2);
    stage.phones[0].borrow_mut().message(&user(1), "still here");
    stage.world.run(Duration::from_secs(1));
    assert_eq!(stage.phones[1].borrow().heard, ["still here"]);
}

#[test]
fn a_client_whom_the_inside_never_accepts_is_gone_after_a_minute() {
    let mut stage = Stage::set(3, 0);
    let stranger = stage.phone("nobody", 40);
    // The inside answers, but by no 2xx.
    stranger.borrow_mut().message("ghost", "boo");
    stage.world.run(Duration::from_secs(30));
    assert_eq!(stranger.borrow().answers, [404]);
    assert_eq!(stage.edge.borrow().clients(), 1);
    stage.world.run(Duration::from_secs(40));
    assert_eq!(stage.edge.borrow().clients(), 0);
    let edge = stage.edge.borrow();
    assert_eq!(edge.closed.len(), 1, "{:?}", edge.closed);
}

struct Stage {
    world: World,
    edge: Rc<RefCell<Edge>>,
    phones: Vec<Rc<RefCell<Phone>>>,
    _director: Rc<RefCell<Director>>,
}

impl Stage {
    fn set(seed: u64, phones: usize) -> Self {
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        };
        let path = Link {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(40),
            stream: true,
            ..Link::default()
        };
        let mut world = World::new(now, seed, path);
        let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(7)));
        let tokens = Arc::new(Tokens::new(&secrets));
        let rng = Box::new(Seeded::new(seed));
        let proxy = Proxy::new(now, 0, Arc::new(settings()), tokens, rng);
        let (outside, inside, director) = (addr(EDGE), addr(EDGE_INSIDE), addr(DIRECTOR));
        let next_hop = (director, name("director.contoso.internal"));
        let edge = world.add(
            &[outside, inside],
            Edge::new(now, proxy, outside, inside, next_hop),
        );
        let director = world.add(&[director], Director::new(director, inside));
        let mut stage = Self {
            world,
            edge,
            phones: Vec::new(),
            _director: director,
        };
        for at in 0..phones {
            let phone = stage.phone(&user(at), at);
            phone.borrow_mut().register();
            stage.phones.push(phone);
        }
        stage
    }

    fn phone(&mut self, user: &str, at: usize) -> Rc<RefCell<Phone>> {
        self.world
            .add(&[address(at)], Phone::new(user, address(at), addr(EDGE)))
    }
}

fn user(at: usize) -> String {
    format!("user{at}")
}

fn address(at: usize) -> Address {
    addr(&format!("192.0.2.{}:5000", 100 + at))
}

fn settings() -> Settings {
    Settings {
        node: 1,
        epoch: 1,
        external: name("sip.contoso.test"),
        internal: name("edge.contoso.internal"),
        member: name("edge1.contoso.internal"),
        client_port: 443,
        federation_port: 5061,
        internal_port: 5061,
        domains: vec![SipDomain {
            domain: name("contoso.test"),
            remote_users_here: true,
            remote_users_edge: None,
        }],
        remote_users: true,
        anonymous_users: false,
        register_mode: RegisterMode::Path,
        websocket: WebSocket::default(),
        clients: Clients::default(),
        disclosure: Disclosure::default(),
        next_hop: Some(
            "director.contoso.internal:5061"
                .parse()
                .expect("a next hop"),
        ),
        trusted_servers: Vec::new(),
        federation: FederationRules {
            enabled: false,
            discovery: false,
            partners: Vec::new(),
            blocked: Vec::new(),
            port: 5061,
            pending: 1,
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

const EDGE: &str = "198.51.100.10:443";
const EDGE_INSIDE: &str = "10.10.0.10:40000";
const DIRECTOR: &str = "10.10.0.50:5061";

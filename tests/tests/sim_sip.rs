//! The proxy's core with phones and a Director, over streams that arrive in pieces.

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
use edge_tests::sim::link::Link;
use edge_tests::sim::sip::{Director, Edge, PartnerEdge, Phone};
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

#[test]
fn a_director_that_says_nothing_costs_a_call_a_408_and_a_message_its_answer() {
    let mut stage = Stage::set(4, 2);
    stage.world.run(Duration::from_secs(5));
    stage.director.borrow_mut().silent = true;
    stage.phones[0].borrow_mut().call(&user(1));
    stage.phones[1].borrow_mut().message(&user(0), "anybody?");
    stage.world.run(Duration::from_secs(36));
    let told = stage.phones[0].borrow().told.clone();
    assert_eq!(
        told,
        [(100, "INVITE".to_owned()), (408, "INVITE".to_owned())]
    );
    assert!(stage.phones[1].borrow().answers.is_empty(), "RFC 4320 §4.2");
    stage.world.run(Duration::from_secs(20));
    assert_eq!(stage.edge.borrow().closed, [(addr(DIRECTOR), "wedged")]);
    assert_eq!(stage.edge.borrow().transactions(), 0);
}

#[test]
fn what_a_dying_director_leaves_the_next_one_takes() {
    for seed in 0..10 {
        let mut stage = Stage::set(seed, 4);
        let reserve = stage.second_director();
        stage.world.run(Duration::from_secs(5));
        // What the first had learned; a pool shares it.
        let bindings = stage.director.borrow().bindings.clone();
        reserve.borrow_mut().bindings = bindings;
        stage.director.borrow_mut().silent = true;
        for (from, phone) in stage.phones.iter().enumerate() {
            phone.borrow_mut().message(&user((from + 1) % 4), "hello");
        }
        stage.world.run(Duration::from_secs(1));
        let now = stage.world.now();
        stage.edge.borrow_mut().hang_up(now, addr(DIRECTOR));
        stage.world.run(Duration::from_secs(2));
        for (at, phone) in stage.phones.iter().enumerate() {
            let phone = phone.borrow();
            assert_eq!(phone.heard, ["hello"], "seed {seed}, phone {at}");
            assert_eq!(phone.answers, [200], "seed {seed}, phone {at}");
        }
    }
}

#[test]
fn a_partners_second_edge_is_asked_when_the_first_has_no_time() {
    let mut stage = Stage::set(5, 1);
    let edges = [
        ("sip1", "203.0.113.1:5061", "503 Service Unavailable"),
        ("sip2", "203.0.113.2:5061", "200 OK"),
    ];
    let edges = edges.map(|(label, at, status)| {
        let name = format!("{label}.fabrikam.test:5061")
            .parse()
            .expect("a name with a port");
        let partner = PartnerEdge::new(addr(at), addr(EDGE), status);
        ((name, addr(at)), stage.world.add(&[addr(at)], partner))
    });
    let list = edges.iter().map(|(edge, _)| edge.clone()).collect();
    stage
        .edge
        .borrow_mut()
        .partners
        .insert(name("fabrikam.test"), list);
    stage.world.run(Duration::from_secs(5));
    stage.phones[0]
        .borrow_mut()
        .message_to("carol", "fabrikam.test", "hello");
    stage.world.run(Duration::from_secs(5));
    assert_eq!(stage.phones[0].borrow().answers, [200]);
    for (_, partner) in &edges {
        assert_eq!(
            partner.borrow().asked,
            ["MESSAGE sip:carol@fabrikam.test SIP/2.0"]
        );
    }
}

#[test]
fn a_cancel_that_crosses_the_answer_ends_in_one_answer_and_it_is_acknowledged() {
    let (mut answered, mut cancelled) = (0, 0);
    for seed in 0..60 {
        let mut stage = Stage::set(seed, 2);
        stage.phones[1].borrow_mut().rings = Duration::from_millis(400);
        stage.world.run(Duration::from_secs(5));
        stage.phones[0].borrow_mut().call(&user(1));
        stage.world.run(Duration::from_millis(300 + seed * 10));
        stage.phones[0].borrow_mut().cancel();
        stage.world.run(Duration::from_secs(5));
        let told = stage.phones[0].borrow().told.clone();
        let finals = |method: &str| -> Vec<u16> {
            let of_it = told
                .iter()
                .filter(|(status, of)| *status >= 200 && of == method);
            of_it.map(|(status, _)| *status).collect()
        };
        assert_eq!(finals("CANCEL"), [200], "seed {seed}: {told:?}");
        match finals("INVITE")[..] {
            [200] => answered += 1,
            [487] => cancelled += 1,
            _ => panic!("seed {seed}: {told:?}"),
        }
        assert_eq!(
            stage.phones[1].borrow().heard,
            ["ACK"],
            "seed {seed}: {told:?}"
        );
        stage.world.run(Duration::from_secs(40));
        assert_eq!(stage.edge.borrow().transactions(), 0, "seed {seed}");
    }
    assert!(
        answered > 5 && cancelled > 5,
        "{answered} and {cancelled}: they did cross"
    );
}

#[test]
fn a_full_table_delivers_all_the_same() {
    let mut stage = Stage::with(6, 12, |settings| settings.limits.transactions = 2);
    stage.world.run(Duration::from_secs(5));
    for (from, phone) in stage.phones.iter().enumerate() {
        phone.borrow_mut().message(&user((from + 1) % 12), "hello");
    }
    stage.world.run(Duration::from_secs(5));
    for phone in &stage.phones {
        assert_eq!(phone.borrow().heard, ["hello"]);
        assert_eq!(phone.borrow().answers, [200]);
    }
    let stateless = |event: &&Event| matches!(event, Event::Stateless(_));
    assert!(stage.edge.borrow().events.iter().filter(stateless).count() > 5);
}

#[test]
fn a_request_that_is_sent_twice_arrives_once() {
    let mut stage = Stage::set(7, 2);
    stage.world.run(Duration::from_secs(5));
    stage.phones[0].borrow_mut().message(&user(1), "once");
    for _ in 0..3 {
        stage.phones[0].borrow_mut().repeat();
    }
    stage.world.run(Duration::from_secs(5));
    assert_eq!(stage.phones[1].borrow().heard, ["once"]);
    assert_eq!(stage.phones[0].borrow().answers, [200]);
}

#[test]
fn phones_with_one_call_id_and_no_branch_get_their_own_answers() {
    for seed in 0..10 {
        let mut stage = Stage::set(seed, 6);
        stage.world.run(Duration::from_secs(5));
        for (from, phone) in stage.phones.iter().enumerate() {
            phone.borrow_mut().same_call_id = Some("1E68g10C9aA068iE".to_owned());
            // Every second one writes to nobody.
            let to = if from % 2 == 0 {
                user((from + 1) % 6)
            } else {
                "nobody".to_owned()
            };
            phone.borrow_mut().message(&to, "hello");
        }
        stage.world.run(Duration::from_secs(5));
        for (at, phone) in stage.phones.iter().enumerate() {
            let expected = if at % 2 == 0 { 200 } else { 404 };
            assert_eq!(
                phone.borrow().answers,
                [expected],
                "seed {seed}, phone {at}"
            );
        }
    }
}

#[test]
fn while_the_way_inside_is_full_calls_pass_and_messages_wait() {
    let mut stage = Stage::set(8, 2);
    stage.world.run(Duration::from_secs(5));
    let full = settings().limits.server_queue;
    stage.edge.borrow_mut().set_backlog(full / 100 * 75);
    stage.phones[0].borrow_mut().message(&user(1), "later");
    stage.phones[1].borrow_mut().call(&user(0));
    stage.world.run(Duration::from_secs(5));
    assert_eq!(stage.phones[0].borrow().answers, [503]);
    let told = stage.phones[1].borrow().told.clone();
    assert!(told.contains(&(200, "INVITE".to_owned())), "{told:?}");
    stage.edge.borrow_mut().set_backlog(0);
    stage.phones[0].borrow_mut().message(&user(1), "now");
    stage.world.run(Duration::from_secs(5));
    assert_eq!(stage.phones[0].borrow().answers, [503, 200]);
}

struct Stage {
    world: World,
    edge: Rc<RefCell<Edge>>,
    phones: Vec<Rc<RefCell<Phone>>>,
    director: Rc<RefCell<Director>>,
}

impl Stage {
    fn set(seed: u64, phones: usize) -> Self {
        Self::with(seed, phones, |_| {})
    }

    fn with(seed: u64, phones: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
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
        let proxy = Proxy::new(now, 0, Arc::new(settings), tokens, rng);
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
            director,
        };
        for at in 0..phones {
            let phone = stage.phone(&user(at), at);
            phone.borrow_mut().register();
            stage.phones.push(phone);
        }
        stage
    }

    /// One more Director, which is taken when the first fails.
    fn second_director(&mut self) -> Rc<RefCell<Director>> {
        let (near, far) = (addr("10.10.0.10:40001"), addr("10.10.0.51:5061"));
        let name = name("director.contoso.internal");
        let now = self.world.now();
        self.edge
            .borrow_mut()
            .add_next_hop(now, near, (far, name), 1);
        self.world.alias(addr(EDGE_INSIDE), near);
        self.world.add(&[far], Director::new(far, near))
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
        other_members: Vec::new(),
        inside_routes: InsideRoutes::Member,
        is_balanced: false,
        drain_percent_per_second: 1,
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
            enabled: true,
            partners: vec![(name("fabrikam.test"), None)],
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

const EDGE: &str = "198.51.100.10:443";
const EDGE_INSIDE: &str = "10.10.0.10:40000";
const DIRECTOR: &str = "10.10.0.50:5061";

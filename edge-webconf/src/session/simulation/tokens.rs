//! What happens to clients that begin with a preface.

use std::net::IpAddr;

use edge_common::join_token::{JoinToken, SigningKey};

use super::*;
use crate::preface;

const KEY: &[u8] = include_bytes!("../../../../edge-common/tests/data/keys/ed25519.pkcs8.pem");

impl World {
    fn token(&self, registration: &str, uses: u16) -> JoinToken {
        let expires = self.now.unix + 60 * SECOND;
        let mut rng = Seeded::new(self.serial);
        JoinToken::new(registration, expires, uses, None, &mut rng)
    }

    /// A client that begins with the token, and goes on with `stream`.
    fn bearer(&mut self, token: &JoinToken, stream: &[u8]) -> ClientId {
        let id = self.client();
        let line = line(token);
        self.shows(id, &[&line, stream].concat());
        id
    }
}

fn line(token: &JoinToken) -> Vec<u8> {
    preface::line(&token.signed_with(&SigningKey::from_pem(KEY).expect("a key")))
}

#[test]
fn a_token_leads_to_its_registration_and_its_line_stays_outside() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let data = world.park(&mut mcu, 0);
    let token = world.token(MCU, 1);
    let client = world.bearer(&token, b"SSH-2.0-x\r\n");
    let (of, with, open) = world.leases.pop().expect("a lease");
    assert_eq!((of, with), (client, data));
    assert_eq!(open.number, Number(token.number()));
    assert!(!open.number.is_admissible());
    assert_eq!((open.preread_len, open.reg_id), (11, 1));
    assert_eq!(world.skips, [line(&token).len()]);
    assert!(world.events.contains(&Event::Matched(Shown::Token)));
    world.act(|broker, now| broker.handle_open_ack(now, client, Status::Ok));
    assert_eq!(world.relayed, [client]);
    world.check();
}

#[test]
fn every_cut_of_a_preface_lets_the_client_in() {
    let mut world = World::with(Settings {
        tokens: 1000,
        ..settings()
    });
    let mut mcu = world.agent();
    let len = line(&world.token(MCU, 1)).len();
    for cut in 0..=len {
        world.park(&mut mcu, 0);
        let token = world.token(MCU, 1);
        let line = line(&token);
        let client = world.client();
        world.shows(client, &line[..cut]);
        world.shows(client, &line[cut..]);
        let (of, _, open) = world.leases.pop().expect("a lease");
        assert_eq!((of, open.preread_len), (client, 0), "cut at {cut}");
        world.act(|broker, now| broker.handle_client_lost(now, client));
    }
}

#[test]
fn a_token_that_lets_nobody_in_is_the_same_close_at_the_end_of_the_limits() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.park(&mut mcu, 0);
    let good = world.token(MCU, 1);
    let changed = |change: fn(&mut JoinToken)| {
        let mut token = good.clone();
        change(&mut token);
        line(&token)
    };
    let mut forged = line(&good);
    let at = forged.len() - 5;
    forged[at] ^= 1;
    for (what, line, error) in [
        ("a changed signature", forged, Some(TokenError::Signature)),
        (
            "an expired one",
            changed(|token| token.expires = UnixTime::from_secs(1_600_000_000)),
            Some(TokenError::Expired),
        ),
        (
            "one for ever",
            changed(|token| token.expires = UnixTime::from_secs(1_800_000_000)),
            Some(TokenError::TooLong),
        ),
        (
            "one for another source",
            changed(|token| token.source = Some("203.0.113.0/24".parse().expect("network"))),
            Some(TokenError::Source),
        ),
        (
            "no token",
            preface::line("v1.a.b.c"),
            Some(TokenError::Malformed),
        ),
        ("no preface", b"EWC1 \r\n".to_vec(), None),
        ("half a line", line(&good)[..40].to_vec(), None),
    ] {
        let client = world.client();
        let before = world.events.len();
        world.shows(client, &line);
        let told = world.events[before..].iter().find_map(|event| match event {
            Event::TokenRefused(error) => Some(*error),
            _ => None,
        });
        assert_eq!(told, error, "{what}");
        world.pass(10 * SECOND - Duration::from_millis(1));
        assert!(!world.is_closed(client.0), "{what} is told early");
        world.pass(Duration::from_millis(1));
        assert!(world.is_closed(client.0), "{what}");
        assert!(world.leases.is_empty(), "{what} went inside");
        for frame in world.heard(mcu.control) {
            if let Frame::Ping { nonce } = frame {
                world.say(mcu.control, &Frame::Pong { nonce });
            }
        }
        world.check();
    }
}

#[test]
fn a_token_is_used_up_and_given_back_only_when_nothing_went_inside() {
    let mut world = World::new();
    let token = world.token(MCU, 1);
    let alone = world.bearer(&token, b"");
    assert!(world.is_closed(alone.0));
    assert_eq!(world.refusal(), Some(Status::NoAgent));
    let mut mcu = world.agent();
    // It waits for a data connection that does not come.
    let waiting = world.bearer(&token, b"");
    world.pass(5 * SECOND);
    assert!(world.is_closed(waiting.0));
    assert_eq!(world.refusal(), Some(Status::DialTimeout));
    world.park(&mut mcu, 0);
    let client = world.bearer(&token, b"");
    assert_eq!(world.leases.len(), 1);
    world.act(|broker, now| broker.handle_open_ack(now, client, Status::UpstreamRefused));
    world.park(&mut mcu, 0);
    let again = world.bearer(&token, b"");
    assert_eq!(world.leases.len(), 1, "it went inside once");
    world.pass(10 * SECOND);
    assert!(world.is_closed(again.0));
    assert_eq!(world.refusal(), Some(Status::TokenUsed));
    assert_eq!(world.broker.gauges().tokens, 1);
}

#[test]
fn a_revoked_token_lets_nobody_in_whether_it_was_used_or_not() {
    for (cut, by_operator) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::new();
        let mut mcu = world.agent();
        for _ in 0..3 {
            world.park(&mut mcu, 0);
        }
        let (unused, used) = (world.token(MCU, 9), world.token("mcu1.test", 8));
        let inside = world.bearer(&used, b"");
        world.act(|broker, now| broker.handle_open_ack(now, inside, Status::Ok));
        assert_eq!(world.leases.len(), 1);
        for token in [&unused, &used] {
            let number = Number(token.number());
            if by_operator {
                world.act(|broker, now| {
                    broker.revoke_hash(now, number.hash(), cut);
                });
            } else {
                world.say(mcu.control, &Frame::Revoke { number, cut });
            }
        }
        assert_eq!(world.is_closed(inside.0), cut);
        for token in [&unused, &used] {
            let late = world.bearer(token, b"");
            world.pass(10 * SECOND);
            assert!(world.is_closed(late.0));
            assert_eq!(world.refusal(), Some(Status::TokenUsed));
            assert_eq!(world.charged.last(), Some(&late));
        }
        assert_eq!(world.leases.len(), 1);
        world.check();
    }
}

#[test]
fn who_finds_no_agent_is_not_charged_for_a_guess() {
    let mut world = World::new();
    let token = world.token(MCU, 1);
    let alone = world.bearer(&token, b"");
    assert!(world.is_closed(alone.0));
    assert!(world.charged.is_empty());
    let guess = world.visitor(number(7));
    world.pass(10 * SECOND);
    assert_eq!(world.charged, [guess]);
}

#[test]
fn a_full_table_of_tokens_takes_no_new_one() {
    let mut world = World::new();
    let mut mcu = world.agent();
    for n in 0..6 {
        world.park(&mut mcu, 0);
        let token = world.token(MCU, 2);
        let client = world.bearer(&token, b"");
        assert_eq!(world.leases.len(), (n + 1).min(5));
        if n == 5 {
            world.pass(10 * SECOND);
            assert!(world.is_closed(client.0));
            assert_eq!(world.refusal(), Some(Status::Limit));
        }
    }
    assert_eq!(world.broker.gauges().tokens, 5);
}

#[test]
fn agents_of_one_registration_get_clients_by_their_weight() {
    let mut world = World::with(Settings {
        clients: 1000,
        tokens: 1000,
        pool_max: 512,
        ..settings()
    });
    let service = "ssh.pool.test";
    let mut agents: Vec<Mcu> = (0..3).map(|_| world.agent_of_service(service)).collect();
    for (agent, weight) in agents.iter().zip([30, 10, 0]) {
        let Frame::Register(mut register) = register(1, RegistrationKind::TcpService, service)
        else {
            unreachable!("a REGISTER");
        };
        register.weight = weight;
        world.say(agent.control, &Frame::Register(register));
    }
    for agent in &mut agents {
        for _ in 0..400 {
            world.park(agent, 0);
        }
    }
    let parked = |world: &World, agent: &Mcu| {
        let key = world.broker.by_name[&agent.ack.session];
        world.broker.sessions[&key].pool.len()
    };
    for _ in 0..400 {
        let token = world.token(service, 1);
        world.bearer(&token, b"");
    }
    let got: Vec<usize> = agents
        .iter()
        .map(|agent| 400 - parked(&world, agent))
        .collect();
    assert!((260..=340).contains(&got[0]), "{got:?}");
    assert_eq!((got[0] + got[1], got[2]), (400, 0));
    // The spare serves when the others are gone, and a draining one gets nobody.
    let drain = Drain {
        deadline_ms: 1,
        reason: Status::Shutdown,
    };
    world.say(agents[0].control, &Frame::Drain(drain));
    let control = agents[1].control;
    world.act(|broker, now| broker.handle_control_closed(now, control));
    let token = world.token(service, 1);
    world.bearer(&token, b"");
    assert_eq!(parked(&world, &agents[2]), 399);
}

impl World {
    /// One more agent, told from the others by its id, all with one name.
    fn agent_of_service(&mut self, service: &str) -> Mcu {
        let control = self.control(&[service]);
        let Frame::Hello(mut hello) = hello(service, 1) else {
            unreachable!("a HELLO");
        };
        self.serial += 1;
        hello.agent_id[0] = self.serial as u8;
        self.say(control, &Frame::Hello(hello));
        let heard = self.heard(control);
        let Some(Frame::HelloAck(ack)) = heard.first().cloned() else {
            panic!("no HELLO_ACK: {heard:?}");
        };
        Mcu {
            control,
            name: service.to_owned(),
            ack,
            seq: 0,
        }
    }
}

#[test]
fn without_keys_no_token_counts_and_without_scan_no_number() {
    let mut world = World::with(Settings {
        scan: false,
        ..settings()
    });
    let mut mcu = world.agent();
    world.park(&mut mcu, 0);
    assert_eq!(world.admit(&mcu, number(1)), Status::Ok);
    let by_number = world.visitor(number(1));
    let token = world.token(MCU, 1);
    let trust = Trust {
        token_keys: VerifyingKeys::default(),
        ..trust(&[MCU])
    };
    world.act(|broker, now| broker.handle_trust(now, trust));
    let by_token = world.bearer(&token, b"");
    world.pass(10 * SECOND);
    assert!(world.is_closed(by_number.0) && world.is_closed(by_token.0));
    assert!(world.leases.is_empty());
    let flood = world.client();
    world.shows(flood, &[b'x'; 4096]);
    assert!(
        world.is_closed(flood.0),
        "the limit of bytes holds all the same"
    );
}

#[test]
fn a_token_for_a_source_lets_only_that_source_in() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.park(&mut mcu, 0);
    let mut token = world.token(MCU, 1);
    let client: IpAddr = "192.0.2.7".parse().expect("address");
    token.source = Some(client.into());
    world.bearer(&token, b"");
    assert_eq!(world.leases.len(), 1);
}

//! What happens to agents.

use super::*;

#[test]
fn the_pool_is_filled_when_a_session_begins_and_after_each_lease() {
    let mut world = World::new();
    let control = world.control(&[MCU]);
    world.say(control, &hello(MCU, 1));
    assert_eq!(wanted(&world.heard(control)), 2);
    world.act(|broker, now| broker.handle_control_closed(now, control));

    let mut mcu = world.agent_named(MCU, 2);
    world.park(&mut mcu, 0);
    world.park(&mut mcu, 0);
    world.admit(&mcu, number(1));
    world.visitor(number(1));
    // One gone, and one join in this second counts double.
    assert_eq!(wanted(&world.heard(mcu.control)), 1);
    world.say(
        mcu.control,
        &Frame::DialFail {
            count: 1,
            status: Status::DialTimeout,
        },
    );
    assert_eq!(wanted(&world.heard(mcu.control)), 0);
    world.pass(SECOND);
    assert_eq!(wanted(&world.heard(mcu.control)), 1);
    // What does not come is asked for again.
    world.pass(6 * SECOND);
    assert_eq!(wanted(&world.heard(mcu.control)), 1);
}

#[test]
fn the_newer_epoch_wins_and_another_agents_id_is_not_at_risk() {
    let mut world = World::new();
    let mut old = world.agent_named(MCU, 5);
    let parked = world.park(&mut old, 0);
    world.admit(&old, number(1));
    let newcomer = world.agent_named(MCU, 6);
    assert_eq!(goaway(&world.heard(old.control)), Some(Status::Limit));
    assert!(world.is_closed(old.control.0) && world.is_closed(parked.0));
    assert_eq!(world.broker.gauges().admitted, 0);
    assert_eq!(
        world.admit(&newcomer, number(1)),
        Status::Ok,
        "admitted anew"
    );

    let late = world.control(&[MCU]);
    world.say(late, &hello(MCU, 4));
    assert_eq!(goaway(&world.heard(late)), Some(Status::Limit));
    assert!(!world.is_closed(newcomer.control.0));

    // The same agent id under another name is another agent.
    world.agent_named("mcu2.pool.test", 99);
    assert!(!world.is_closed(newcomer.control.0));
    assert_eq!(world.broker.gauges().sessions, 2);
}

#[test]
fn a_hello_that_does_not_fit_is_dismissed() {
    let changed = |change: fn(&mut Hello)| {
        let Frame::Hello(mut hello) = hello(MCU, 1) else {
            unreachable!("a HELLO");
        };
        change(&mut hello);
        Frame::Hello(hello)
    };
    for (frame, status) in [
        (
            changed(|hello| (hello.version_min, hello.version_max) = (2, 3)),
            Status::Version,
        ),
        (
            changed(|hello| hello.fqdn = "mcu2.test".into()),
            Status::NotTrusted,
        ),
        (
            changed(|hello| hello.fqdn = "also.mcu1.test".into()),
            Status::NotTrusted,
        ),
        (changed(|hello| hello.fqdn = "_".into()), Status::NotTrusted),
        (Frame::Ping { nonce: 1 }, Status::Protocol),
        (register(1, RegistrationKind::Server, MCU), Status::Protocol),
    ] {
        let mut world = World::new();
        // A certificate of two names, of which one is trusted.
        let control = world.control(&[MCU, "also.mcu1.test"]);
        world.say(control, &frame);
        assert_eq!(goaway(&world.heard(control)), Some(status), "{frame:?}");
        assert_eq!(world.agent_refusal(), Some(status), "{frame:?}");
        assert!(world.is_closed(control.0));
        world.assert_empty();
    }
    let mut world = World::new();
    let control = world.control(&["stranger.test"]);
    assert_eq!(goaway(&world.heard(control)), Some(Status::NotTrusted));
    let silent = world.control(&[MCU]);
    world.pass(5 * SECOND);
    assert_eq!(goaway(&world.heard(silent)), Some(Status::Protocol));
    world.assert_empty();
}

#[test]
fn what_an_agent_may_not_say_ends_its_session_only() {
    let number = number(1);
    let status = Status::Ok;
    let frames = [
        hello(MCU, 2),
        Frame::RegisterAck { reg_id: 1, status },
        Frame::AdmitAck { number, status },
        Frame::Want {
            count: 1,
            deadline_ms: 1,
        },
        Frame::Closed(Closed {
            dial_id: 1,
            status,
            bytes_in: 0,
            bytes_out: 0,
        }),
    ];
    let mut wrong: Vec<Vec<u8>> = frames.iter().map(Frame::to_bytes).collect();
    wrong.extend([
        b"\x02".to_vec(),
        b"\x01\x09".to_vec(),
        b"\x01\x20\x00\x01".to_vec(),
        b"\x01\x20\0\0\xff\0\0\0".to_vec(),
        b"\x01\x20\0\0\0\0\0\x01x".to_vec(),
        b"\x01\x20\0\0\0\0\0\x09123456789".to_vec(),
    ]);
    for bytes in wrong {
        let mut world = World::new();
        let other = world.agent_named("mcu2.pool.test", 1);
        let mcu = world.agent();
        world.act(|broker, now| broker.handle_control_data(now, mcu.control, &bytes));
        let heard = world.heard(mcu.control);
        assert_eq!(goaway(&heard), Some(Status::Protocol), "{bytes:02x?}");
        assert!(world.is_closed(mcu.control.0));
        assert!(!world.is_closed(other.control.0));
        assert_eq!(world.broker.gauges().sessions, 1);
    }
}

#[test]
fn every_cut_of_an_agents_stream_is_the_same_session() {
    let stream: Vec<u8> = [
        hello(MCU, 1),
        register(1, RegistrationKind::Server, MCU),
        Frame::Admit(Admit {
            reg_id: 1,
            number: number(1),
            ttl_ms: 1000,
            uses: 1,
        }),
        Frame::Ping { nonce: 9 },
    ]
    .iter()
    .flat_map(Frame::to_bytes)
    .collect();
    for cut in 0..=stream.len() {
        let mut world = World::new();
        let control = world.control(&[MCU]);
        for part in [&stream[..cut], &stream[cut..]] {
            world.act(|broker, now| broker.handle_control_data(now, control, part));
        }
        let heard = world.heard(control);
        assert!(matches!(heard[0], Frame::HelloAck(_)), "cut at {cut}");
        assert!(heard.contains(&Frame::Pong { nonce: 9 }), "cut at {cut}");
        assert_eq!(world.broker.gauges().admitted, 1, "cut at {cut}");
    }
}

#[test]
fn registrations_are_bounded_by_the_certificate_and_in_number() {
    let mut world = World::new();
    let mcu = world.agent();
    let mut answer = |reg_id, kind, name: &str| {
        world.say(mcu.control, &register(reg_id, kind, name));
        let heard = world.heard(mcu.control);
        heard.into_iter().find_map(|frame| match frame {
            Frame::RegisterAck { reg_id: of, status } if of == reg_id => Some(status),
            _ => None,
        })
    };
    use RegistrationKind::{Conference, Server, TcpService};
    for (kind, name, status) in [
        (Server, "mcu1.test", Status::Ok),
        (Server, "a.mcu1.test", Status::Ok),
        (TcpService, "b.mcu1.test", Status::Ok),
        (Server, "test", Status::NameDenied),
        (Server, "mcu2.test", Status::NameDenied),
        (Server, "evilmcu1.test", Status::NameDenied),
        (TcpService, "mcu2.pool.test", Status::NameDenied),
        (Server, "", Status::NameDenied),
        (Conference, "abcd1234", Status::Ok),
        (Conference, "a.mcu1.test", Status::NameDenied),
        (Conference, "abc", Status::NameDenied),
    ] {
        assert_eq!(answer(1, kind, name), Some(status), "{kind:?} {name}");
    }
    for reg_id in 0..64 {
        assert_eq!(answer(100 + reg_id, Server, MCU), Some(Status::Ok));
    }
    assert_eq!(answer(200, TcpService, MCU), Some(Status::Limit));
    assert_eq!(
        answer(101, Server, "c.mcu1.test"),
        Some(Status::Ok),
        "replaces"
    );
    assert_eq!(answer(300, Conference, "abcd1234"), Some(Status::Ok));

    // A conference id says nothing about whose it is, so it takes a role.
    let other = world.agent_named("mcu2.pool.test", 1);
    world.say(other.control, &register(2, Conference, "abcd1234"));
    let denied = Frame::RegisterAck {
        reg_id: 2,
        status: Status::NameDenied,
    };
    assert!(world.heard(other.control).contains(&denied));
}

#[test]
fn numbers_that_may_not_be_admitted_are_answered_for() {
    let mut world = World::new();
    let mcu = world.agent();
    let other = world.agent_named("mcu2.pool.test", 1);
    assert_eq!(world.admit(&mcu, number(1)), Status::Ok);
    assert_eq!(world.admit(&mcu, number(1)), Status::Limit, "taken");
    assert_eq!(world.admit(&other, number(1)), Status::Limit, "by another");
    assert_eq!(world.admit(&mcu, Number(LEAST - 1)), Status::Limit);
    assert_eq!(world.admit(&mcu, Number(u64::MAX)), Status::Limit);
    assert_eq!(world.admit_with(&mcu, number(2), 0, 1), Status::Limit);
    assert_eq!(
        world.admit_with(&mcu, number(2), 3_600_001, 1),
        Status::Limit
    );
    assert_eq!(
        world.admit_with(&mcu, number(2), 3_600_000, 0),
        Status::Limit
    );
    assert_eq!(world.admit_with(&mcu, number(2), 3_600_000, 1), Status::Ok);
    for n in 3..=50 {
        assert_eq!(world.admit(&mcu, number(n)), Status::Ok);
    }
    assert_eq!(world.admit(&mcu, number(51)), Status::Limit, "full");
    world.pass_alive(&mcu, 60 * SECOND);
    assert_eq!(world.admit(&mcu, number(51)), Status::Ok, "room again");

    world.say(mcu.control, &Frame::Unregister { reg_id: 1 });
    assert_eq!(world.broker.gauges().admitted, 0);
    assert_eq!(world.admit(&mcu, number(60)), Status::NameDenied);
    world.check();
}

#[test]
fn a_registration_may_end_by_itself() {
    let mut world = World::new();
    let mcu = world.agent();
    let Frame::Register(mut short) = register(1, RegistrationKind::Server, MCU) else {
        unreachable!("a REGISTER");
    };
    short.ttl_s = 30;
    world.say(mcu.control, &Frame::Register(short));
    world.heard(mcu.control);
    assert_eq!(world.admit(&mcu, number(1)), Status::Ok);
    let waits = world.visitor(number(1));
    world.pass(SECOND);
    world.say(mcu.control, &Frame::Unregister { reg_id: 1 });
    assert!(world.is_closed(waits.0));
    assert_eq!(world.refusal(), Some(Status::NoAgent));
    world.check();

    let Frame::Register(mut short) = register(2, RegistrationKind::Server, MCU) else {
        unreachable!("a REGISTER");
    };
    short.ttl_s = 30;
    world.say(mcu.control, &Frame::Register(short));
    let registrations = |world: &World| -> usize {
        let sessions = world.broker.sessions.values();
        sessions.map(|session| session.registrations.len()).sum()
    };
    world.pass_alive(&mcu, 29 * SECOND);
    assert_eq!(registrations(&world), 1);
    world.pass(SECOND);
    assert_eq!(registrations(&world), 0);
}

#[test]
fn an_agent_and_a_registration_have_their_own_limits() {
    let mut world = World::new();
    let control = world.control(&[MCU]);
    let Frame::Hello(mut small) = hello(MCU, 1) else {
        unreachable!("a HELLO");
    };
    small.max_conns = 1;
    world.say(control, &Frame::Hello(small));
    world.say(control, &register(1, RegistrationKind::Server, MCU));
    let heard = world.heard(control);
    let Some(Frame::HelloAck(ack)) = heard.first().cloned() else {
        panic!("no HELLO_ACK");
    };
    let mut mcu = Mcu {
        control,
        name: MCU.to_owned(),
        ack,
        seq: 0,
    };
    let first = world.relayed(&mut mcu, number(1));
    world.admit(&mcu, number(2));
    world.park(&mut mcu, 0);
    let second = world.visitor(number(2));
    assert!(world.is_closed(second.0));
    assert_eq!(world.refusal(), Some(Status::Limit));
    let end = RelayEnd {
        bytes_in: 0,
        bytes_out: 0,
        status: Status::Ok,
    };
    world.act(|broker, now| broker.handle_relay_ended(now, first, end));
    world.visitor(number(2));
    assert_eq!(world.leases.len(), 2, "the number was not lost");
    world.check();
}

#[test]
fn a_revoked_number_is_void_and_may_cut() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let mut other = world.agent_named("mcu2.pool.test", 1);
    let theirs = world.relayed(&mut other, number(9));
    let relayed = world.relayed(&mut mcu, number(1));
    world.admit(&mcu, number(2));
    let revoke = |number, cut| Frame::Revoke { number, cut };
    world.say(mcu.control, &revoke(number(2), false));
    let late = world.visitor(number(2));
    world.pass(10 * SECOND);
    assert!(world.is_closed(late.0));

    world.say(mcu.control, &revoke(number(1), false));
    assert!(!world.is_closed(relayed.0));
    world.say(mcu.control, &revoke(number(1), true));
    assert!(world.is_closed(relayed.0));
    world.say(mcu.control, &revoke(number(9), true));
    assert!(!world.is_closed(theirs.0), "not this agent's");
    let end = RelayEnd {
        bytes_in: 5,
        bytes_out: 6,
        status: Status::Shutdown,
    };
    world.act(|broker, now| broker.handle_relay_ended(now, relayed, end));
    let Some(Event::Closed(record)) = world.events.last() else {
        panic!("no record");
    };
    assert_eq!(record.status, Status::TokenUnknown);
    world.check();
}

#[test]
fn an_agent_that_answers_no_ping_is_given_up() {
    let mut world = World::new();
    let mcu = world.agent();
    world.pass(15 * SECOND);
    assert!(world.heard(mcu.control).contains(&Frame::Ping { nonce: 1 }));
    world.say(mcu.control, &Frame::Pong { nonce: 1 });
    world.pass(30 * SECOND);
    assert!(!world.is_closed(mcu.control.0));
    world.pass(15 * SECOND);
    assert_eq!(goaway(&world.heard(mcu.control)), Some(Status::Idle));
    assert!(world.is_closed(mcu.control.0));
    world.assert_empty();
}

#[test]
fn a_data_connection_proves_its_session_or_is_closed() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let stranger = SessionSecret([1; 32]);
    let nobody: SessionName = [9; 16];
    let good = mcu.data_hello();
    let mut forged = good;
    forged[60] ^= 1;
    let long = [good.as_slice(), b"x"].concat();
    for (what, names, hello, status) in [
        ("a changed MAC", &[MCU][..], &forged[..], Status::Auth),
        (
            "another secret",
            &[MCU],
            &data::hello(&mcu.ack.session, 9, &stranger),
            Status::Auth,
        ),
        (
            "no such session",
            &[MCU],
            &data::hello(&nobody, 9, &mcu.ack.secret),
            Status::Auth,
        ),
        (
            "another certificate",
            &["mcu2.pool.test"],
            &good,
            Status::NotTrusted,
        ),
        (
            "one name more",
            &[MCU, "mcu2.pool.test"],
            &good,
            Status::NotTrusted,
        ),
        (
            "an untrusted name",
            &["stranger.test"],
            &good,
            Status::NotTrusted,
        ),
        ("bytes behind it", &[MCU], &long, Status::Protocol),
        ("no hello at all", &[MCU], b"GET /", Status::Protocol),
    ] {
        let id = world.data_with(names, hello, 0);
        assert!(world.is_closed(id.0), "{what}");
        assert_eq!(world.agent_refusal(), Some(status), "{what}");
        assert_eq!(world.broker.gauges().parked, 0, "{what}");
    }
    // None of that has used the number up; it is good once.
    let parked = world.data_with(&[MCU], &good, 0);
    assert!(!world.is_closed(parked.0));
    let replayed = world.data_with(&[MCU], &good, 0);
    assert!(world.is_closed(replayed.0));
    assert_eq!(world.agent_refusal(), Some(Status::Auth));

    // A parked connection has nothing to say.
    world.act(|broker, now| broker.handle_data_bytes(now, parked, b"x"));
    assert!(world.is_closed(parked.0));
    assert_eq!(world.broker.gauges().parked, 0);

    let silent = DataId(world.id(0));
    world.act(|broker, now| broker.handle_data(now, silent, peer(&[MCU])));
    world.pass(5 * SECOND);
    assert!(world.is_closed(silent.0));

    for _ in 0..8 {
        world.park(&mut mcu, 0);
    }
    let hello = mcu.data_hello();
    let ninth = world.data_with(&[MCU], &hello, 0);
    assert!(world.is_closed(ninth.0));
    assert_eq!(world.agent_refusal(), Some(Status::Limit));
    world.check();
}

#[test]
fn every_cut_of_a_data_hello_parks_it() {
    let mut world = World::new();
    let mut mcu = world.agent();
    for cut in 0..=data::HELLO_LEN {
        let hello = mcu.data_hello();
        let id = DataId(world.id(0));
        world.act(|broker, now| broker.handle_data(now, id, peer(&[MCU])));
        for part in [&hello[..cut], &hello[cut..]] {
            if !part.is_empty() {
                world.act(|broker, now| broker.handle_data_bytes(now, id, part));
            }
        }
        assert_eq!(world.broker.gauges().parked, 1, "cut at {cut}");
        world.act(|broker, now| broker.handle_data_closed(now, id));
        assert_eq!(world.broker.gauges().parked, 0);
    }
}

#[test]
fn what_nobody_needs_is_closed_after_a_minute() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let ids: Vec<DataId> = (0..4).map(|_| world.park(&mut mcu, 0)).collect();
    world.pass_alive(&mcu, 75 * SECOND);
    let closed = ids.iter().filter(|id| world.is_closed(id.0)).count();
    assert_eq!((closed, world.broker.gauges().parked), (2, 2));
}

#[test]
fn a_draining_agent_gets_no_new_clients() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let relayed = world.relayed(&mut mcu, number(1));
    world.admit(&mcu, number(2));
    let drain = Drain {
        deadline_ms: 60_000,
        reason: Status::Shutdown,
    };
    world.say(mcu.control, &Frame::Drain(drain));
    assert!(world.heard(mcu.control).contains(&Frame::DrainAck(drain)));
    let client = world.visitor(number(2));
    assert!(world.is_closed(client.0));
    assert_eq!(world.refusal(), Some(Status::Draining));
    assert!(!world.is_closed(relayed.0));
    assert_eq!(world.admit(&mcu, number(3)), Status::Draining);
    assert_eq!(world.broker.gauges().serving, 0);
    world.check();
}

#[test]
fn an_agent_off_the_list_is_cut_at_once() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let other = world.agent_named("mcu2.pool.test", 1);
    let parked = world.park(&mut mcu, 0);
    let list = trust(&["*.pool.test"]);
    world.act(|broker, now| broker.handle_trust(now, list));
    assert_eq!(goaway(&world.heard(mcu.control)), Some(Status::NotTrusted));
    assert!(world.is_closed(parked.0));
    assert!(!world.is_closed(other.control.0));
}

#[test]
fn the_name_of_its_hello_off_the_list_ends_a_session_whatever_else_it_is_called() {
    let mut world = World::new();
    let names = [MCU, "mcu2.pool.test"];
    let control = world.control(&names);
    world.say(control, &hello(MCU, 1));
    let list = trust(&["*.pool.test"]);
    world.act(|broker, now| broker.handle_trust(now, list));
    assert_eq!(goaway(&world.heard(control)), Some(Status::NotTrusted));
    let again = world.control(&names);
    world.say(again, &hello("mcu2.pool.test", 1));
    assert!(!world.is_closed(again.0));
}

#[test]
fn a_session_that_moves_to_another_host_is_told_of() {
    let mut world = World::new();
    world.agent_named(MCU, 1);
    world.agent_named(MCU, 2);
    let moved = |world: &World| {
        let events = world.events.iter();
        let moves = events.filter(|event| matches!(event, Event::AgentMoved { .. }));
        moves.count()
    };
    assert_eq!(moved(&world), 0, "the same host");
    let elsewhere = Peer {
        address: "10.10.0.99:1".parse().expect("address"),
        ..peer(&[MCU])
    };
    let id = ControlId(world.id(0));
    world.act(|broker, now| broker.handle_control(now, id, elsewhere));
    world.say(id, &hello(MCU, 3));
    assert_eq!(moved(&world), 1);
}

#[test]
fn one_name_has_eight_sessions() {
    let mut world = World::new();
    let mut last = None;
    for n in 0..9 {
        let control = world.control(&[MCU]);
        let Frame::Hello(mut hello) = hello(MCU, 1) else {
            unreachable!("a HELLO");
        };
        hello.agent_id[0] = n;
        world.say(control, &Frame::Hello(hello));
        last = Some(control);
    }
    assert_eq!(world.broker.gauges().sessions, 8);
    let heard = last.map(|control| world.heard(control)).unwrap_or_default();
    assert_eq!(goaway(&heard), Some(Status::Limit));
}

#[test]
fn an_operator_sees_what_there_is_and_may_end_it() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let relayed = world.relayed(&mut mcu, number(1));
    for n in 2..6 {
        assert_eq!(world.admit(&mcu, number(n)), Status::Ok);
    }
    world.pass(SECOND);
    let (now, broker) = (world.now, &world.broker);
    let sessions = broker.list_sessions(now, 10);
    assert_eq!((sessions.total, sessions.rows.len()), (1, 1));
    let row = &sessions.rows[0];
    assert_eq!((row.stage, row.lasted), ("relay", SECOND));
    assert_eq!(row.number, number(1).hash());
    let agents = broker.list_agents(now, 10);
    let agent = &agents.rows[0];
    assert_eq!(
        (agent.clients, agent.admitted, agent.draining),
        (1, 5, false)
    );
    assert_eq!(agent.registrations, [(MCU.into(), 1)]);
    let admissions = broker.list_admissions(now, 2);
    assert_eq!((admissions.total, admissions.rows.len()), (5, 2));
    assert_eq!(
        (admissions.rows[0].uses_left, admissions.rows[0].left),
        (0, 59 * SECOND)
    );
    let id = row.dial_id;

    world.act(|broker, now| assert!(!broker.cut_session(now, id + 1)));
    assert!(!world.is_closed(relayed.0));
    world.act(|broker, now| assert!(broker.cut_session(now, id)));
    assert!(world.is_closed(relayed.0));
    let hash = number(2).hash();
    world.act(|broker, now| assert_eq!(broker.revoke_hash(now, hash, true), (1, 0)));
    let late = world.visitor(number(2));
    assert_eq!(world.broker.gauges().admitted, 4);
    let name: HostName = MCU.parse().expect("a name");
    world.act(|broker, now| assert_eq!(broker.drop_agent(now, &name), 1));
    assert!(world.is_closed(mcu.control.0));
    assert_eq!(world.broker.gauges().sessions, 0);
    world.pass(10 * SECOND);
    assert!(world.is_closed(late.0));
    world.check();
}

#[test]
fn a_relay_that_outlived_its_session_is_accounted_for_and_cut_by_the_next_one() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let first = world.relayed(&mut mcu, number(1));
    let second = world.relayed(&mut mcu, number(2));
    let control = mcu.control;
    world.act(|broker, now| broker.handle_control_closed(now, control));
    assert!(!world.is_closed(first.0) && !world.is_closed(second.0));
    let again = world.agent_named(MCU, 2);
    let other = world.agent_named("mcu2.pool.test", 1);
    let end = RelayEnd {
        bytes_in: 3,
        bytes_out: 4,
        status: Status::Ok,
    };
    world.act(|broker, now| broker.handle_relay_ended(now, first, end));
    let accounts = |heard: Vec<Frame>| {
        let closed = heard
            .into_iter()
            .filter(|it| matches!(it, Frame::Closed(_)));
        closed.count()
    };
    assert_eq!(accounts(world.heard(again.control)), 1);
    let revoke = Frame::Revoke {
        number: number(2),
        cut: true,
    };
    world.say(other.control, &revoke);
    assert!(!world.is_closed(second.0), "not this agent's");
    world.say(again.control, &revoke);
    assert!(world.is_closed(second.0));
    assert_eq!(accounts(world.heard(other.control)), 0);
}

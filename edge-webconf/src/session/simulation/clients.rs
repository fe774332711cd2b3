//! What happens to clients.

use super::*;

#[test]
fn a_client_with_a_number_reaches_its_server_and_is_accounted_for() {
    let mut world = World::new();
    let mut mcu = world.agent();
    assert_eq!(world.admit(&mcu, number(1)), Status::Ok);
    let data = world.park(&mut mcu, 0);
    let client = world.client();
    assert_eq!(world.reads.last(), Some(&client.0));
    world.shows(client, b"PSOM ");
    world.shows(client, format!("{} rest", number(1).0).as_bytes());

    let (of, with, open) = world.leases.pop().expect("a lease");
    assert_eq!((of, with), (client, data));
    assert_eq!((open.reg_id, open.number), (1, number(1)));
    assert_eq!(open.client.to_string(), "192.0.2.7:51034");
    assert_eq!((open.preread_len, &*open.sni), (29, "webconf.test"));
    world.check();
    world.pass(SECOND);
    world.act(|broker, now| broker.handle_open_ack(now, client, Status::Ok));
    assert_eq!(world.relayed, [client]);
    world.pass_alive(&mcu, 60 * SECOND);
    let end = RelayEnd {
        bytes_in: 100,
        bytes_out: 2000,
        status: Status::Ok,
    };
    world.heard(mcu.control);
    world.act(|broker, now| broker.handle_relay_ended(now, client, end));
    let closed = Frame::Closed(Closed {
        dial_id: open.dial_id,
        status: Status::Ok,
        bytes_in: 100,
        bytes_out: 2000,
    });
    assert!(world.heard(mcu.control).contains(&closed));
    let Some(Event::Closed(record)) = world.events.last() else {
        panic!("no record: {:?}", world.events);
    };
    assert_eq!((record.bytes_in, record.bytes_out), (100, 2000));
    assert_eq!(record.agent.as_str(), MCU);
    assert_eq!((&*record.registration, record.number), (MCU, number(1)));
    assert_eq!(record.lasted, 60 * SECOND);
    world.check();

    world.act(|broker, now| broker.handle_control_closed(now, mcu.control));
    world.assert_empty();
}

#[test]
fn every_refusal_is_the_same_close() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.relayed(&mut mcu, number(1));
    world.admit_with(&mcu, number(2), 1000, 1);
    world.pass(2 * SECOND);
    assert_eq!(world.admit(&mcu, number(3)), Status::Ok);
    for (what, status) in [
        ("".to_owned(), Status::Preread),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Status::Preread),
        (shown(number(9)), Status::Preread),
        (shown(number(1)), Status::TokenUsed),
        (shown(number(2)), Status::Preread),
        (format!("{} ", number(3).0 / 10), Status::Preread),
        (format!("{}0 ", number(3).0), Status::Preread),
        (format!("1{} ", number(3).0), Status::Preread),
    ] {
        let client = world.client();
        world.shows(client, what.as_bytes());
        let sent = world.now;
        world.pass(10 * SECOND - Duration::from_millis(1));
        assert!(!world.is_closed(client.0), "{what:?} is told early");
        world.pass(Duration::from_millis(1));
        assert!(world.is_closed(client.0), "{what:?}");
        assert_eq!(world.now.mono - sent.mono, 10 * SECOND);
        assert_eq!(world.refusal(), Some(status), "{what:?}");
        assert!(world.leases.len() == 1, "{what:?} went inside");
        world.check();
    }
}

#[test]
fn the_search_ends_with_the_limit_of_bytes() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.admit(&mcu, number(1));
    world.park(&mut mcu, 0);
    let client = world.client();
    world.shows(client, &[b'x'; 4090]);
    assert!(!world.is_closed(client.0));
    // The number stands across the limit.
    world.shows(client, number(1).0.to_string().as_bytes());
    assert!(world.is_closed(client.0));
    assert_eq!(world.refusal(), Some(Status::TokenUnknown));

    // It ends exactly there, and nothing can follow it that counts.
    let client = world.client();
    world.shows(client, &[b'x'; 4096 - 19]);
    world.shows(client, number(1).0.to_string().as_bytes());
    assert_eq!(world.leases.last().map(|lease| lease.0), Some(client));
}

#[test]
fn a_number_at_the_end_counts_when_nothing_follows() {
    let mut world = World::new();
    let mut mcu = world.agent();
    for n in 1..=3 {
        world.admit(&mcu, number(n));
        world.park(&mut mcu, 0);
    }
    let digits = |n| number(n).0.to_string().into_bytes();
    // A moment later.
    let waits = world.client();
    world.shows(waits, &digits(1));
    assert!(world.leases.is_empty());
    world.pass(Duration::from_millis(200));
    assert_eq!(world.leases.len(), 1);
    // At the end of the client's direction.
    let ends = world.client();
    world.shows(ends, &digits(2));
    world.act(|broker, now| broker.handle_client_end(now, ends));
    assert_eq!(world.leases.len(), 2);
    // Unless a digit comes in time.
    let goes_on = world.client();
    world.shows(goes_on, &digits(3));
    world.pass(Duration::from_millis(199));
    world.shows(goes_on, b"0 ");
    world.pass(9 * SECOND);
    assert_eq!(world.leases.len(), 2);
    world.check();
}

#[test]
fn single_use_holds_for_clients_that_come_at_once() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.admit_with(&mcu, number(1), 60_000, 2);
    for _ in 0..4 {
        world.park(&mut mcu, 0);
    }
    let clients: Vec<ClientId> = (0..4).map(|_| world.client()).collect();
    for &client in &clients {
        world.shows(client, shown(number(1)).as_bytes());
    }
    assert_eq!(world.leases.len(), 2);
    world.pass(10 * SECOND);
    assert!(world.is_closed(clients[2].0) && world.is_closed(clients[3].0));
}

#[test]
fn a_client_waits_for_a_data_connection_and_its_number_is_not_lost() {
    let mut world = World::new();
    let mut mcu = world.agent();
    for n in 1..=4 {
        world.admit(&mcu, number(n));
    }
    world.heard(mcu.control);
    let (first, second) = (world.visitor(number(1)), world.visitor(number(2)));
    assert!(
        wanted(&world.heard(mcu.control)) >= 2,
        "asks for those who wait"
    );
    world.check();
    world.park(&mut mcu, 1);
    world.park(&mut mcu, 0);
    let served: Vec<ClientId> = world.leases.iter().map(|lease| lease.0).collect();
    assert_eq!(served, [first, second], "in the order of their arrival");
    for id in served {
        world.act(|broker, now| broker.handle_open_ack(now, id, Status::Ok));
    }

    // Nobody dials: the client goes, its number stays.
    let third = world.visitor(number(3));
    world.pass(5 * SECOND);
    assert!(world.is_closed(third.0));
    assert_eq!(world.refusal(), Some(Status::DialTimeout));
    let again = world.visitor(number(3));
    world.park(&mut mcu, 0);
    assert_eq!(world.leases.last().map(|lease| lease.0), Some(again));

    // The queue has an end.
    world.admit_with(&mcu, number(5), 60_000, 9);
    for _ in 0..4 {
        world.visitor(number(5));
    }
    assert_eq!(world.refusal(), Some(Status::Limit));
    assert_eq!(world.broker.gauges().waiting, 3);
    world.check();
}

#[test]
fn a_lease_that_fails_gets_another_connection() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.admit(&mcu, number(1));
    let (other, broken) = (world.park(&mut mcu, 0), world.park(&mut mcu, 0));
    let client = world.visitor(number(1));
    assert_eq!(world.leases.last().map(|lease| lease.1), Some(broken));
    world.act(|broker, now| broker.handle_lease_failed(now, client));
    assert_eq!(world.leases.last().map(|lease| lease.1), Some(other));
    world.act(|broker, now| broker.handle_lease_failed(now, client));
    assert_eq!(world.broker.gauges().waiting, 1);
    world.check();
}

#[test]
fn a_data_connection_that_breaks_while_it_is_leased_is_left_to_its_client() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.admit(&mcu, number(1));
    let data = world.park(&mut mcu, 0);
    world.visitor(number(1));
    // A close would overtake the lease, and the client would wait for nothing.
    world.act(|broker, now| broker.handle_data_closed(now, data));
    assert!(!world.is_closed(data.0));
    let parked = world.park(&mut mcu, 0);
    world.act(|broker, now| broker.handle_data_closed(now, parked));
    assert!(world.is_closed(parked.0));
    world.check();
}

#[test]
fn what_an_agent_refuses_is_refused_and_used() {
    let mut world = World::new();
    let mut mcu = world.agent();
    world.admit(&mcu, number(1));
    world.park(&mut mcu, 0);
    let client = world.visitor(number(1));
    world.act(|broker, now| broker.handle_open_ack(now, client, Status::UpstreamRefused));
    assert!(world.is_closed(client.0));
    assert_eq!(world.refusal(), Some(Status::UpstreamRefused));
    let again = world.visitor(number(1));
    world.pass(10 * SECOND);
    assert!(world.is_closed(again.0));
    assert_eq!(world.refusal(), Some(Status::TokenUsed));

    world.admit(&mcu, number(2));
    world.park(&mut mcu, 0);
    let silent = world.visitor(number(2));
    world.pass(5 * SECOND);
    assert!(world.is_closed(silent.0), "an OPEN without an answer");
    assert_eq!(world.refusal(), Some(Status::UpstreamRefused));
    world.check();
}

#[test]
fn a_lost_agent_takes_its_numbers_along_and_leaves_its_relays() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let relayed = world.relayed(&mut mcu, number(1));
    for n in 2..=3 {
        world.admit(&mcu, number(n));
    }
    let waits = world.visitor(number(2));
    let parked = world.broker.data.len();
    assert_eq!(parked, 0);
    world.act(|broker, now| broker.handle_control_closed(now, mcu.control));
    assert!(world.is_closed(waits.0));
    assert_eq!(world.refusal(), Some(Status::NoAgent));
    assert!(!world.is_closed(relayed.0));
    assert_eq!(world.broker.gauges().admitted, 0);
    let late = world.visitor(number(3));
    world.pass(10 * SECOND);
    assert!(world.is_closed(late.0));
    // The account goes to the record, there is nobody to send it to.
    let end = RelayEnd {
        bytes_in: 1,
        bytes_out: 2,
        status: Status::Ok,
    };
    world.act(|broker, now| broker.handle_relay_ended(now, relayed, end));
    assert!(matches!(world.events.last(), Some(Event::Closed(_))));
    world.assert_empty();
}

#[test]
fn a_draining_edge_waits_for_its_relays() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let relayed = world.relayed(&mut mcu, number(1));
    world.act(|broker, now| broker.handle_drain(now, 900 * SECOND));
    let drain = Frame::Drain(Drain {
        deadline_ms: 900_000,
        reason: Status::Shutdown,
    });
    assert!(world.heard(mcu.control).contains(&drain));
    assert_eq!(world.admit(&mcu, number(2)), Status::Draining);
    let newcomer = world.control(&["mcu2.pool.test"]);
    assert_eq!(goaway(&world.heard(newcomer)), Some(Status::Draining));
    assert!(!world.events.contains(&Event::Drained));

    let end = RelayEnd {
        bytes_in: 0,
        bytes_out: 0,
        status: Status::Ok,
    };
    world.act(|broker, now| broker.handle_relay_ended(now, relayed, end));
    assert_eq!(world.events.last(), Some(&Event::Drained));
    assert_eq!(goaway(&world.heard(mcu.control)), Some(Status::Shutdown));
    world.assert_empty();
}

#[test]
fn a_drain_has_an_end() {
    let mut world = World::new();
    let mut mcu = world.agent();
    let relayed = world.relayed(&mut mcu, number(1));
    let slow = world.client();
    world.act(|broker, now| broker.handle_drain(now, 20 * SECOND));
    world.pass(20 * SECOND);
    assert!(world.is_closed(relayed.0) && world.is_closed(slow.0));
    let end = RelayEnd {
        bytes_in: 0,
        bytes_out: 0,
        status: Status::Shutdown,
    };
    world.act(|broker, now| broker.handle_relay_ended(now, relayed, end));
    assert_eq!(world.events.last(), Some(&Event::Drained));
    world.assert_empty();

    // Also when nobody was relayed.
    let mut world = World::with(Settings {
        preread_timeout: 60 * SECOND,
        ..settings()
    });
    world.client();
    world.act(|broker, now| broker.handle_drain(now, 20 * SECOND));
    assert!(!world.events.contains(&Event::Drained));
    world.pass(20 * SECOND);
    assert_eq!(world.events.last(), Some(&Event::Drained));
    world.assert_empty();
}

#[test]
fn a_full_edge_refuses_new_clients_and_keeps_the_old() {
    let mut world = World::with(Settings {
        clients: 2,
        ..settings()
    });
    let first = world.client();
    world.client();
    let third = world.client();
    assert!(world.is_closed(third.0));
    assert_eq!(world.refusal(), Some(Status::Limit));
    assert!(!world.is_closed(first.0));
    world.act(|broker, now| broker.handle_client_lost(now, first));
    let fourth = world.client();
    assert!(!world.is_closed(fourth.0));
}

/// Every stage of a client meets every event; what comes of it is in the snapshot.
#[test]
fn every_stage_of_a_client_meets_every_event() {
    let stages = ["preread", "lease", "open_sent", "relay", "gone"];
    type Input = fn(&mut World, &Mcu, ClientId);
    let events: [(&str, Input); 12] = [
        ("data without a number", |world, _, id| {
            world.shows(id, b"hello ");
        }),
        ("data with a number", |world, _, id| {
            world.shows(id, shown(number(2)).as_bytes());
        }),
        ("the client's end", |world, _, id| {
            world.act(|broker, now| broker.handle_client_end(now, id));
        }),
        ("the client is lost", |world, _, id| {
            world.act(|broker, now| broker.handle_client_lost(now, id));
        }),
        ("OPEN_ACK ok", |world, _, id| {
            world.act(|broker, now| broker.handle_open_ack(now, id, Status::Ok));
        }),
        ("OPEN_ACK refused", |world, _, id| {
            let status = Status::UpstreamRefused;
            world.act(|broker, now| broker.handle_open_ack(now, id, status));
        }),
        ("the lease failed", |world, _, id| {
            world.act(|broker, now| broker.handle_lease_failed(now, id));
        }),
        ("the relay ended", |world, _, id| {
            let end = RelayEnd {
                bytes_in: 1,
                bytes_out: 2,
                status: Status::Ok,
            };
            world.act(|broker, now| broker.handle_relay_ended(now, id, end));
        }),
        ("REVOKE with cut", |world, mcu, _| {
            let revoke = Frame::Revoke {
                number: number(1),
                cut: true,
            };
            world.say(mcu.control, &revoke);
        }),
        ("the agent is lost", |world, mcu, _| {
            world.act(|broker, now| broker.handle_control_closed(now, mcu.control));
        }),
        ("the edge drains", |world, _, _| {
            world.act(|broker, now| broker.handle_drain(now, 60 * SECOND));
        }),
        ("twelve seconds", |world, mcu, _| {
            let mcu = mcu.control;
            world.pass(12 * SECOND);
            world.say(mcu, &Frame::Pong { nonce: 1 });
        }),
    ];
    let mut table = String::new();
    for stage in stages {
        for (event, input) in events {
            let mut world = World::new();
            let mut mcu = world.agent();
            let id = client_in(&mut world, &mut mcu, stage);
            let seen = (world.leases.len(), world.relayed.len(), world.events.len());
            assert!(!world.is_closed(id.0) || stage == "gone");
            world.closed.clear();
            input(&mut world, &mcu, id);
            world.check();
            let mut came = Vec::new();
            if world.leases.len() > seen.0 {
                came.push("lease".to_owned());
            }
            if world.relayed.len() > seen.1 {
                came.push("relay".to_owned());
            }
            if world.is_closed(id.0) {
                came.push("close".to_owned());
            }
            came.extend(
                world.events[seen.2..]
                    .iter()
                    .filter_map(|event| match event {
                        Event::Refused { status, .. } => {
                            Some(format!("refused {}", status.label()))
                        }
                        Event::Closed(record) => Some(format!("record {}", record.status.label())),
                        _ => None,
                    }),
            );
            let now = stage_of(&world, id);
            let came = came.join(", ");
            table.push_str(&format!("{stage:9} | {event:22} | {now:9} | {came}\n"));
        }
    }
    insta::assert_snapshot!(table);
}

fn client_in(world: &mut World, mcu: &mut Mcu, stage: &str) -> ClientId {
    world.admit(mcu, number(1));
    world.admit(mcu, number(2));
    if stage == "preread" {
        return world.client();
    }
    if stage != "lease" {
        world.park(mcu, 0);
    }
    let id = world.visitor(number(1));
    if stage == "relay" || stage == "gone" {
        world.act(|broker, now| broker.handle_open_ack(now, id, Status::Ok));
    }
    if stage == "gone" {
        let end = RelayEnd {
            bytes_in: 0,
            bytes_out: 0,
            status: Status::Ok,
        };
        world.act(|broker, now| broker.handle_relay_ended(now, id, end));
    }
    assert_eq!(stage_of(world, id), stage);
    id
}

pub(super) fn stage_of(world: &World, id: ClientId) -> &'static str {
    match world.broker.clients.get(&id).map(|client| &client.stage) {
        Some(client::Stage::Preread(_)) => "preread",
        Some(client::Stage::Lease(_)) => "lease",
        Some(client::Stage::OpenSent(_)) => "open_sent",
        Some(client::Stage::Relay { .. }) => "relay",
        None => "gone",
    }
}

//! Remote users at their edge: what it tells them itself, where it sends them, and whom it does not serve.

use std::time::Duration;

use edge_common::config::{Clients, SipDomain};

use super::world::{World, name, request, response, settings, status, values};
use crate::proxy::refusal::{Drop, Refusal};
use crate::proxy::settings::Settings;
use crate::proxy::token::{FlowKey, Realm};
use crate::proxy::{CloseReason, Event};

const ALICE: &str = "alice@contoso.test";

fn register(more: &[&str]) -> String {
    request("REGISTER", "sip:contoso.test", ALICE, ALICE, more)
}

/// Signs a client in that asks for keep-alives.
fn sign_in(world: &mut World, director: FlowKey, client: FlowKey) -> String {
    world.receive(client, register(&["ms-keep-alive: UAC;hop-hop=yes"]));
    let inside = world.sent(director).expect("forwarded");
    world.receive(director, response(&inside, "200 OK", &[]));
    world.sent(client).expect("answered")
}

#[test]
fn an_answer_of_the_edges_own_says_where_it_sees_the_client() {
    let mut world = World::new();
    let client = world.promoted(0);
    let via = "Via: SIP/2.0/tls (null):0;rport;received=10.9.9.9 , SIP/2.0/TLS z;branch=z9hG4bKz";
    world.receive(client, register(&[via]));
    let refused = world.sent(client).expect("no Director");
    assert_eq!(
        values(&refused, "Via"),
        [
            "SIP/2.0/tls (null):0;rport=40000;received=192.0.2.20;ms-received-port=40000;ms-received-cid=00000 , \
          SIP/2.0/TLS z;branch=z9hG4bKz"
        ]
    );
    let own = "sip:sip.contoso.test";
    world.receive(client, request("OPTIONS", own, ALICE, ALICE, &[]));
    let answer = world.sent(client).expect("ours");
    assert!(
        values(&answer, "Via")[0].ends_with(";ms-received-cid=00000"),
        "{answer}"
    );
    // Servers inside are their own first hop.
    let inside = world.inside(0);
    world.receive(
        inside,
        request("OPTIONS", "sip:edge.contoso.internal", "a@b", "a@b", &[]),
    );
    let answer = world.sent(inside).expect("ours");
    let via = values(&answer, "Via")[0];
    assert!(!via.contains("received"), "{via}");
}

#[test]
fn clients_are_told_different_times_and_are_let_go_after_two_of_theirs() {
    for core in [0, 1] {
        let mut world = World::new();
        let director = world.next_hop(core);
        let (first, second) = (world.client(core), world.client(core));
        let told: Vec<u64> = [first, second]
            .into_iter()
            .map(|client| {
                let welcome = sign_in(&mut world, director, client);
                let value = values(&welcome, "ms-keep-alive")[0].to_owned();
                let seconds = value
                    .strip_prefix("UAS; tcp=no; hop-hop=yes; end-end=no; timeout=")
                    .expect("the exact form");
                seconds.parse().expect("a number")
            })
            .collect();
        assert!(told[0] != told[1] && told.iter().all(|time| (270..=330).contains(time)));
        world.wait(Duration::from_secs(2 * told[0].min(told[1]) + 29));
        assert_eq!(world.closed, []);
        world.wait(Duration::from_secs(2 * told[0].abs_diff(told[1]) + 2));
        let mut gone: Vec<_> = world.closed.clone();
        gone.sort();
        assert_eq!(
            gone,
            [(first, CloseReason::Idle), (second, CloseReason::Idle)]
        );
    }
}

#[test]
fn a_time_is_given_to_whoever_asks_and_in_a_2xx_only() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    for (asks, status, given) in [
        ("ms-keep-alive: UAC;hop-hop=yes", "200 OK", 1),
        ("ms-keep-alive: UAC;hop-hop=yes", "401 Unauthorized", 0),
        ("ms-keep-alive: UAC;hop-hop=yes", "180 Ringing", 0),
        ("ms-keep-alive: UAC;hop-hop=no", "200 OK", 0),
        ("X-Other: a", "200 OK", 0),
    ] {
        let bob = "bob@contoso.test";
        world.receive(
            client,
            request("INVITE", "sip:bob@contoso.test", ALICE, bob, &[asks]),
        );
        let inside = world.sent(director).expect("forwarded");
        assert!(values(&inside, "ms-keep-alive").is_empty());
        // What a server says of keep-alives is said of another hop.
        world.receive(
            director,
            response(&inside, status, &["ms-keep-alive: UAS;timeout=5"]),
        );
        let answer = world.sent(client).expect("answered");
        let values = values(&answer, "ms-keep-alive");
        assert_eq!(values.len(), given, "{asks} {status}");
        assert!(values.iter().all(|value| !value.contains("timeout=5")));
        // The ACK of a failure.
        while world.sent(director).is_some() {}
    }
}

#[test]
fn nobody_answers_a_benotify_and_who_does_is_not_heard() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    world.receive(client, register(&[]));
    let inside = world.sent(director).expect("forwarded");
    let route = format!("Route: {}", values(&inside, "Path")[0]);
    let benotify = request(
        "BENOTIFY",
        "sip:alice@10.1.0.10",
        "x@contoso.test",
        ALICE,
        &[&route],
    );
    world.receive(director, &benotify);
    let outside = world.sent(client).expect("forwarded");
    assert!(outside.starts_with("BENOTIFY "));
    world.receive(client, response(&outside, "200 OK", &[]));
    assert_eq!(world.sent(director), None);
    assert!(
        world
            .events
            .contains(&Event::Dropped(Drop::BenotifyAnswered))
    );
    // Nor does the edge, when its client is gone.
    world.cores[0].handle_closed(client);
    world.receive(director, &benotify);
    assert_eq!(world.sent(director), None);
    assert!(world.events.contains(&Event::Dropped(Drop::Benotify)));
}

#[test]
fn users_of_another_site_are_sent_to_its_edge() {
    let mut settings = settings();
    settings.domains[1] = SipDomain {
        domain: name("other-site.test"),
        remote_users_here: false,
        remote_users_edge: Some("sip.other-site.test:443".parse().expect("lawful")),
    };
    let mut world = World::with(settings);
    let (director, client) = (world.next_hop(0), world.client(0));
    let bob = "bob@other-site.test";
    world.receive(
        client,
        request("REGISTER", "sip:other-site.test", bob, bob, &[]),
    );
    let answer = world.sent(client).expect("an answer");
    assert!(
        answer.starts_with("SIP/2.0 301 Moved Permanently\r\n"),
        "{answer}"
    );
    assert_eq!(
        values(&answer, "Contact"),
        ["<sip:sip.other-site.test:443;transport=tls>"]
    );
    world.receive(
        client,
        request("MESSAGE", "sip:alice@contoso.test", bob, ALICE, &[]),
    );
    assert_eq!(status(world.sent(client)), "403 Forbidden");
    assert_eq!(world.sent(director), None);
}

#[test]
fn a_client_signs_in_nowhere_else_through_us() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    for method in ["REGISTER", "SERVICE", "PUBLISH"] {
        world.receive(client, request(method, "sip:evil.test", ALICE, ALICE, &[]));
        assert_eq!(status(world.sent(client)), "403 Forbidden");
        assert_eq!(
            world.events.last(),
            Some(&Event::Answered(Realm::Client, Refusal::RelayDenied))
        );
    }
    assert_eq!(world.sent(director), None);
    // To other organisations he writes through his own server.
    let carol = "carol@fabrikam.test";
    let invite = || request("INVITE", "sip:carol@fabrikam.test", ALICE, carol, &[]);
    world.receive(client, invite());
    assert!(world.sent(director).is_some());

    let clients = Clients {
        any_domain: false,
        ..Clients::default()
    };
    let mut world = World::with(Settings {
        clients,
        ..settings()
    });
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, invite());
    assert_eq!(status(world.sent(client)), "403 Forbidden");
    assert_eq!(world.sent(director), None);
    world.receive(client, register(&[]));
    assert!(world.sent(director).is_some());
}

#[test]
fn an_anonymous_user_names_a_conference_by_its_gruu() {
    const FOCUS: &str = "sip:org@contoso.test;gruu;opaque=app:conf:focus:id:00";
    let guest = "g@anonymous.invalid";
    let ask = |world: &mut World, client, method: &str, uri: &str| {
        world.receive(client, request(method, uri, guest, "org@contoso.test", &[]));
        world.sent(client)
    };
    let mut world = World::new();
    let client = world.client(0);
    assert_eq!(
        status(ask(&mut world, client, "INVITE", FOCUS)),
        "403 Forbidden",
        "off by default"
    );

    let mut world = World::with(Settings {
        anonymous_users: true,
        ..settings()
    });
    let director = world.next_hop(0);
    for (method, uri) in [
        ("INVITE", "sip:org@contoso.test;opaque=app:conf:focus:id:00"),
        ("INVITE", "sip:org@contoso.test;gruu;opaque=user:epid:AAAA"),
        ("INVITE", "sip:org@contoso.test;gruu"),
        (
            "INVITE",
            "sip:org@evil.test;gruu;opaque=app:conf:focus:id:00",
        ),
        ("MESSAGE", FOCUS),
        ("REGISTER", FOCUS),
        ("REFER", FOCUS),
        ("BYE", FOCUS),
        ("NOTIFY", FOCUS),
        ("PUBLISH", FOCUS),
    ] {
        let client = world.client(0);
        let told = status(ask(&mut world, client, method, uri));
        assert_eq!(told, "403 Forbidden", "{method} {uri}");
        assert_eq!(world.sent(director), None);
    }
    for method in [
        "INVITE",
        "ACK",
        "CANCEL",
        "INFO",
        "SUBSCRIBE",
        "OPTIONS",
        "SERVICE",
    ] {
        let client = world.client(0);
        assert_eq!(ask(&mut world, client, method, FOCUS), None);
        assert!(world.sent(director).is_some(), "{method}");
    }
}

#[test]
fn a_stranger_hears_less_of_the_inside_than_a_user_on_either_core() {
    for core in [0, 1] {
        let mut world = World::new();
        let next_hops = [world.next_hop(0), world.next_hop(1)];
        let client = world.client(core);
        let told = [
            "ms-diagnostics: 4004;source=\"fe1.inner\"",
            "Server: RTC/3.5",
        ];
        for (status, hears) in [("401 Unauthorized", 0), ("200 OK", 1), ("200 OK", 1)] {
            world.receive(client, register(&[]));
            let inside = world.sent(next_hops[core]).expect("forwarded");
            // It may answer over any of its connections.
            world.receive(next_hops[1 - core], response(&inside, status, &told));
            let answer = world.sent(client).expect("answered");
            for header in ["ms-diagnostics", "Server"] {
                assert_eq!(values(&answer, header).len(), hears, "{status} {answer}");
            }
        }
    }
}

#[test]
fn nothing_that_the_edge_writes_into_a_message_holds_a_comma() {
    // pidgin-sipe 1.25 cuts Record-Route at every comma, quoted or not.
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    for round in 0..50 {
        let call = format!("Call-ID: c{round}");
        let contact = "Contact: <sip:a@10.1.0.10>;proxy=replace";
        world.receive(client, register(&[&call, contact]));
        let inside = world.sent(director).expect("forwarded");
        for header in [
            "Via",
            "Path",
            "Record-Route",
            "Contact",
            "ms-edge-proxy-message-trust",
        ] {
            for value in values(&inside, header) {
                assert!(!value.contains(','), "{value}");
            }
        }
        world.receive(director, response(&inside, "200 OK", &[]));
        world.sent(client);
    }
}

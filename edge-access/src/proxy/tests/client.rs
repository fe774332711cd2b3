//! Remote users: sign-in, budgets, and what never goes inside.

use std::time::Duration;

use edge_common::config::{Clients, RegisterMode};

use super::world::{World, request, response, settings, status, values};
use crate::proxy::token::FlowKey;
use crate::proxy::{CloseReason, Event};

fn register(more: &[&str]) -> String {
    let mut headers = vec!["Contact: <sip:alice@10.1.0.10:4000;transport=tls>;proxy=replace;q=1"];
    headers.extend_from_slice(more);
    request(
        "REGISTER",
        "sip:contoso.test",
        "alice@contoso.test",
        "alice@contoso.test",
        &headers,
    )
}

#[test]
fn a_sign_in_goes_to_the_director_and_its_answer_back_over_the_same_connection() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    world.receive(
        client,
        register(&[
            "ms-keep-alive: UAC;hop-hop=yes",
            "Authorization: NTLM a=\"b\"",
        ]),
    );

    let inside = world.sent(director).expect("forwarded");
    let via = values(&inside, "Via");
    assert!(
        via[0].starts_with("SIP/2.0/TLS edge1.contoso.internal:5061;branch=z9hG4bK"),
        "{inside}"
    );
    assert!(
        via[1].contains(";branch=z9hG4bKaa")
            && via[1]
                .ends_with(";received=192.0.2.10;ms-received-port=51034;ms-received-cid=10000"),
        "{inside}"
    );
    assert_eq!(values(&inside, "Max-Forwards"), ["69"]);
    assert_eq!(
        values(&inside, "ms-edge-proxy-message-trust"),
        [
            "ms-source-type=InternetUser;ms-ep-fqdn=edge.contoso.internal;ms-source-verified-user=verified"
        ]
    );
    assert!(values(&inside, "ms-keep-alive").is_empty());
    assert_eq!(values(&inside, "Authorization"), ["NTLM a=\"b\""]);
    let path = values(&inside, "Path");
    assert!(
        path[0].starts_with("<sip:")
            && path[0].ends_with("@edge1.contoso.internal:5061;transport=tls;lr>"),
        "{path:?}"
    );
    assert_eq!(values(&inside, "Record-Route").len(), 1);
    let contact = values(&inside, "Contact")[0];
    assert!(
        contact.starts_with("<sip:alice@192.0.2.10:51034;transport=tls;ms-received-cid="),
        "{contact}"
    );
    assert!(contact.ends_with(">;q=1"), "{contact}");

    world.receive(
        director,
        response(
            &inside,
            "401 Unauthorized",
            &["WWW-Authenticate: NTLM realm=\"x\""],
        ),
    );
    let challenge = world.sent(client).expect("the answer");
    assert_eq!(values(&challenge, "Via").len(), 1);
    assert_eq!(values(&challenge, "WWW-Authenticate"), ["NTLM realm=\"x\""]);
    assert!(
        values(&challenge, "ms-keep-alive").is_empty(),
        "only a 2xx agrees on keep-alives"
    );
    assert!(!world.events.contains(&Event::Promoted(client)));

    world.receive(
        client,
        register(&[
            "ms-keep-alive: UAC;hop-hop=yes",
            "Authorization: NTLM a=\"c\"",
        ]),
    );
    let inside = world.sent(director).expect("forwarded");
    world.receive(
        director,
        response(&inside, "200 OK", &["ms-user-logon-data: RemoteUser"]),
    );
    let welcome = world.sent(client).expect("the answer");
    assert_eq!(
        values(&welcome, "ms-keep-alive"),
        ["UAS; tcp=no; hop-hop=yes; end-end=no; timeout=325"]
    );
    assert_eq!(values(&welcome, "ms-user-logon-data"), ["RemoteUser"]);
    assert!(values(&welcome, "ms-edge-proxy-message-trust").is_empty());
    assert!(world.events.contains(&Event::Promoted(client)));
}

#[test]
fn the_register_mode_decides_which_route_the_registrar_gets() {
    for (mode, path, record_route) in [
        (RegisterMode::Path, 1, 0),
        (RegisterMode::RecordRoute, 0, 1),
        (RegisterMode::Both, 1, 1),
    ] {
        let mut world = World::with(crate::proxy::settings::Settings {
            register_mode: mode,
            ..settings()
        });
        let (director, client) = (world.next_hop(0), world.client(0));
        world.receive(client, register(&[]));
        let inside = world.sent(director).expect("forwarded");
        assert_eq!(
            (
                values(&inside, "Path").len(),
                values(&inside, "Record-Route").len()
            ),
            (path, record_route)
        );
    }
}

#[test]
fn what_a_client_signs_leaves_as_it_came() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    let odd = "MESSAGE sip:bob@contoso.test SIP/2.0\r\n\
        v : SIP/2.0/tls (null):0\r\n\
        f: \"Al,ice\" <sip:alice@contoso.test>;tag=F;epid=01\r\n\
        t:<sip:bob@contoso.test>;epid=02\r\n\
        i: odd\r\n\
        CSeq:  0009\r\n\t MESSAGE\r\n\
        Expires : 60\r\n\
        P-Asserted-Identity: <sip:alice@contoso.test>,<tel:+1>\r\n\
        Proxy-Authorization: NTLM qop=\"auth\",\r\n response=\"01\"\r\n\
        ms-edge-proxy-message-trust: ms-source-type=AuthorizedServer\r\n\
        Supported: adhoclist\r\nSupported: msrtc-event-categories\r\n\
        l: 5\r\n\r\nh\0i\n\r";
    world.receive(client, odd);
    let inside = world.sent(director).expect("forwarded");
    for line in odd
        .split("\r\n")
        .skip(2)
        .filter(|line| !line.starts_with("ms-edge"))
    {
        assert!(inside.contains(line), "{line:?} is missing in {inside}");
    }
    assert_eq!(values(&inside, "ms-edge-proxy-message-trust").len(), 1);
    assert!(!inside.contains("AuthorizedServer"));
    assert_eq!(
        values(&inside, "Max-Forwards"),
        ["70"],
        "the default, where the client set none"
    );
}

#[test]
fn a_client_may_send_only_as_a_user_who_signs_in_here() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    for from in [
        "mallory@evil.test",
        "bob@other-site.test",
        "x@anonymous.invalid",
        "a@10.0.0.1",
    ] {
        world.receive(
            client,
            request(
                "MESSAGE",
                "sip:bob@contoso.test",
                from,
                "bob@contoso.test",
                &[],
            ),
        );
        let answer = world.sent(client).expect("an answer");
        assert!(answer.starts_with("SIP/2.0 403 "), "{from}: {answer}");
        assert!(values(&answer, "ms-diagnostics-public")[0].starts_with("1012;reason="));
        assert!(!answer.contains("source="), "outsiders learn no name");
    }
    assert_eq!(world.sent(director), None);
}

#[test]
fn anonymous_users_join_conferences_and_nothing_else() {
    let mut world = World::with(crate::proxy::settings::Settings {
        anonymous_users: true,
        ..settings()
    });
    let (director, client) = (world.next_hop(0), world.client(0));
    let focus = "sip:organizer@contoso.test;gruu;opaque=app:conf:focus:id:00";
    world.receive(
        client,
        request(
            "INVITE",
            focus,
            "g@anonymous.invalid",
            "organizer@contoso.test",
            &[],
        ),
    );
    assert!(world.sent(director).is_some());
    world.receive(
        client,
        request(
            "INVITE",
            "sip:bob@contoso.test",
            "g@anonymous.invalid",
            "bob@contoso.test",
            &[],
        ),
    );
    assert_eq!(status(world.sent(client)), "403 Forbidden");
    world.receive(
        client,
        request(
            "REGISTER",
            focus,
            "g@anonymous.invalid",
            "g@anonymous.invalid",
            &[],
        ),
    );
    assert_eq!(status(world.sent(client)), "403 Forbidden");
}

#[test]
fn a_token_leads_an_anonymous_user_to_nobody_but_its_conference() {
    let mut world = World::with(crate::proxy::settings::Settings {
        anonymous_users: true,
        ..settings()
    });
    let (director, client, user) = (world.next_hop(0), world.client(0), world.promoted(0));
    let focus = "sip:organizer@contoso.test;gruu;opaque=app:conf:focus:id:00";
    let guest = "g@anonymous.invalid";
    let organizer = "organizer@contoso.test";
    world.receive(client, request("INVITE", focus, guest, organizer, &[]));
    let inside = world.sent(director).expect("forwarded");
    let own = format!("Route: {}", values(&inside, "Record-Route").join(", "));
    world.receive(user, register(&["Call-ID: c9"]));
    let inside = world.sent(director).expect("forwarded");
    let path = format!("Route: {}", values(&inside, "Path")[0]);

    let (plain, tagged) = (
        "To: <sip:bob@contoso.test>",
        "To: <sip:bob@contoso.test>;tag=t",
    );
    for (to, call_id, route, answer) in [
        (plain, "Call-ID: c1", &own, "403 "),
        (tagged, "Call-ID: c2", &own, "481 "),
        (tagged, "Call-ID: c1", &path, "403 "),
        (tagged, "Call-ID: c9", &path, "403 "),
    ] {
        let message = request(
            "INVITE",
            "sip:bob@contoso.test",
            guest,
            "",
            &[to, call_id, route],
        );
        world.receive(client, message);
        let told = status(world.sent(client));
        assert!(told.starts_with(answer), "{to} {call_id} {route}: {told}");
    }
    let chosen = "Route: <sip:sip.contoso.test;lr>, <sip:10.10.0.99;lr>";
    world.receive(
        client,
        request("INVITE", focus, guest, organizer, &[chosen]),
    );
    assert!(status(world.sent(client)).starts_with("481 "));
    assert_eq!(world.sent(director), None);

    let to = "To: <sip:organizer@contoso.test>;tag=t1";
    world.receive(
        client,
        request("BYE", "sip:10.10.0.60", guest, "", &[to, &own]),
    );
    assert!(world.sent(director).is_some(), "its own dialog goes on");
}

#[test]
fn without_the_director_a_client_is_told_when_to_come_back() {
    let mut world = World::new();
    let client = world.client(0);
    world.receive(client, register(&[]));
    let answer = world.sent(client).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 503 Service Unavailable\r\n"));
    let wait: u32 = values(&answer, "Retry-After")[0].parse().expect("a number");
    assert!((5..=30).contains(&wait));
    assert_eq!(
        values(&answer, "ms-diagnostics-public"),
        ["1007;reason=\"Temporarily cannot route\""]
    );
}

#[test]
fn a_newcomer_has_few_requests_in_flight_and_few_in_all() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    for _ in 0..Clients::default().newcomer_in_flight {
        world.receive(client, register(&[]));
    }
    let first = world.sent(director).expect("forwarded");
    world.receive(client, register(&[]));
    assert_eq!(status(world.sent(client)), "503 Service Unavailable");
    world.receive(director, response(&first, "401 Unauthorized", &[]));
    assert_eq!(status(world.sent(client)), "401 Unauthorized");
    world.receive(client, register(&[]));
    assert_eq!(world.sent(client), None, "one place is free again");
    for _ in 0..Clients::default().newcomer_requests {
        // What is refused is not free.
        world.receive(
            client,
            request("MESSAGE", "tel:+1", "a@contoso.test", "a@contoso.test", &[]),
        );
    }
    assert_eq!(world.closed, [(client, CloseReason::NewcomerBudget)]);
}

#[test]
fn timers_close_who_says_nothing_who_is_not_accepted_and_who_went_away() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let (silent, refused, user) = (world.client(0), world.client(0), world.promoted(0));
    world.receive(refused, register(&[]));
    let asked = world.sent(director).expect("forwarded");
    world.receive(director, response(&asked, "401 Unauthorized", &[]));
    world.wait(Duration::from_secs(11));
    assert_eq!(world.closed, [(silent, CloseReason::FirstMessageTimeout)]);
    world.wait(Duration::from_secs(50));
    assert_eq!(
        world.closed.last(),
        Some(&(refused, CloseReason::NewcomerTimeout))
    );
    world.wait(Duration::from_secs(15 * 60));
    world.cores[0].handle_ping(world.now, user);
    world.drain();
    assert_eq!(world.sent(user).as_deref(), Some("\r\n"));
    world.wait(Duration::from_secs(19 * 60));
    assert_eq!(world.closed.len(), 2, "a ping keeps the connection");
    world.wait(Duration::from_secs(2 * 60));
    assert_eq!(world.closed.last(), Some(&(user, CloseReason::Idle)));
    assert!(
        world.cores[0].has_next_hop(),
        "the Director may be silent: {director:?}"
    );
}

#[test]
fn pongs_are_not_given_faster_than_pings_make_sense() {
    let mut world = World::new();
    let user = world.promoted(0);
    for _ in 0..3 {
        world.cores[0].handle_ping(world.now, user);
    }
    world.drain();
    assert!(world.sent(user).is_some());
    assert_eq!(world.sent(user), None);
}

#[test]
fn the_ack_of_a_refusal_of_ours_goes_nowhere() {
    let mut world = World::new();
    let client = world.promoted(0);
    let invite = |method: &str, to: &str| {
        let (to, cseq) = (format!("To: {to}"), format!("CSeq: 1 {method}"));
        request(
            method,
            "sip:bob@contoso.test",
            "alice@contoso.test",
            "",
            &[&to, &cseq, "Via: SIP/2.0/TLS a;branch=z9hG4bK1"],
        )
    };
    world.receive(client, invite("INVITE", "<sip:bob@contoso.test>"));
    let refused = world.sent(client).expect("no Director yet");
    let director = world.next_hop(0);
    world.receive(client, invite("ACK", values(&refused, "To")[0]));
    assert_eq!(world.sent(director), None);
    world.receive(client, invite("ACK", "<sip:bob@contoso.test>;tag=theirs"));
    assert!(
        world.sent(director).is_some(),
        "other ACKs are not ours to keep"
    );
}

#[test]
fn a_response_counts_only_from_where_its_request_went() {
    let mut world = World::new();
    let (director, client, other) = (world.next_hop(0), world.client(0), world.promoted(0));
    world.receive(client, register(&[]));
    let inside = world.sent(director).expect("forwarded");
    world.receive(other, response(&inside, "200 OK", &[]));
    assert_eq!(world.sent(client), None);
    assert!(
        !world.events.contains(&Event::Promoted(client)),
        "nobody promotes himself"
    );
    let unknown = "SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS edge1.contoso.internal:5061;branch=z9hG4bKforged\r\n\
        From: <sip:a@b>\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n";
    world.receive(director, unknown);
    assert_eq!(world.sent(client), None);
}

#[test]
fn our_own_name_answers_options_and_negotiate_is_refused_here() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    world.receive(
        client,
        request(
            "OPTIONS",
            "sip:sip.contoso.test",
            "alice@contoso.test",
            "sip.contoso.test",
            &[],
        ),
    );
    assert_eq!(status(world.sent(client)), "200 OK");
    world.receive(
        client,
        request(
            "NEGOTIATE",
            "sip:192.0.2.1:443",
            "a@contoso.test",
            "a@contoso.test",
            &["Max-Forwards: 0"],
        ),
    );
    let answer = world.sent(client).expect("an answer");
    assert!(
        answer.starts_with("SIP/2.0 405 ") && values(&answer, "Allow").len() == 1,
        "{answer}"
    );
    assert_eq!(world.sent(director), None);
}

#[test]
fn two_users_with_the_same_call_id_and_branch_get_their_own_answers() {
    // pidgin-sipe 1.25 draws both from rand() seeded with the second in which it started.
    let mut world = World::new();
    let director = world.next_hop(0);
    let users: Vec<FlowKey> = (0..2).map(|_| world.promoted(0)).collect();
    for &user in &users {
        world.receive(user, register(&[]));
    }
    let asked = [world.sent(director), world.sent(director)].map(|sent| sent.expect("forwarded"));
    world.receive(director, response(&asked[1], "200 Second", &[]));
    world.receive(director, response(&asked[0], "200 First", &[]));
    assert_eq!(status(world.sent(users[0])), "200 First");
    assert_eq!(status(world.sent(users[1])), "200 Second");
}

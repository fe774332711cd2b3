//! Requests towards clients and inside dialogs: the token in Path and Record-Route leads the way.

use super::world::{World, request, response, settings, status, values};
use crate::proxy::token::FlowKey;
use crate::proxy::{Event, refusal::Refusal, token::Realm};

/// Registers a client and gives the Path that the Director got.
fn path_of(world: &mut World, director: FlowKey, client: FlowKey) -> String {
    world.receive(
        client,
        request(
            "REGISTER",
            "sip:contoso.test",
            "bob@contoso.test",
            "bob@contoso.test",
            &["Supported: path, outbound"],
        ),
    );
    let inside = world.sent(director).expect("forwarded");
    let path = values(&inside, "Path")[0].to_owned();
    world.receive(director, response(&inside, "200 OK", &[]));
    world.sent(client).expect("answered");
    path
}

fn invite(route: &str) -> String {
    request(
        "INVITE",
        "sip:bob@10.2.0.10:5061;transport=tls",
        "alice@contoso.test",
        "bob@contoso.test",
        &[
            &format!("Route: {route}"),
            "Via: SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir",
            "Record-Route: <sip:10.10.0.50:5061;transport=tls;lr>",
            "Contact: <sip:alice@10.1.0.10:5061;transport=tls>",
        ],
    )
}

#[test]
fn an_invite_reaches_the_client_over_its_own_connection_from_any_connection_inside() {
    // The Director opens its own connection, and the client lives on the other core.
    let mut world = World::new();
    let (next_hop, client) = (world.next_hop(1), world.client(1));
    let path = path_of(&mut world, next_hop, client);
    let director = world.inside(0);

    world.receive(director, invite(&path));
    let outside = world.sent(client).expect("over the client's connection");
    assert!(
        outside.starts_with("INVITE sip:bob@10.2.0.10:5061;transport=tls SIP/2.0\r\n"),
        "{outside}"
    );
    assert!(values(&outside, "Route").is_empty());
    let routes = values(&outside, "Record-Route");
    assert_eq!(routes.len(), 3);
    assert!(
        routes[0].ends_with("@sip.contoso.test:443;transport=tls;lr>"),
        "{routes:?}"
    );
    assert!(
        routes[1].ends_with("@edge1.contoso.internal:5061;transport=tls;lr>"),
        "{routes:?}"
    );
    assert_eq!(routes[2], "<sip:10.10.0.50:5061;transport=tls;lr>");
    assert!(values(&outside, "Via")[0].starts_with("SIP/2.0/TLS sip.contoso.test:443;branch="));
    assert!(values(&outside, "ms-edge-proxy-message-trust").is_empty());

    let ringing = response(
        &outside,
        "180 Ringing",
        &["Contact: <sip:bob@10.2.0.10:5061>"],
    );
    world.receive(client, &ringing);
    let back = world.sent(director).expect("where the INVITE came from");
    assert_eq!(
        values(&back, "Via"),
        ["SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir"]
    );
    assert_eq!(values(&back, "ms-edge-proxy-message-trust").len(), 1);
    assert_eq!(world.sent(next_hop), None);
}

#[test]
fn requests_in_the_dialog_follow_its_route_set_both_ways() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    let path = path_of(&mut world, director, client);
    world.receive(director, invite(&path));
    let outside = world.sent(client).expect("forwarded");
    let routes = values(&outside, "Record-Route");

    // The callee's route set is the Record-Route as it stands.
    let route = format!("Route: {}", routes.join(", "));
    let bye = request(
        "BYE",
        "sip:alice@10.1.0.10:5061",
        "bob@contoso.test",
        "alice@contoso.test",
        &[&route],
    );
    world.receive(client, bye);
    let inside = world.sent(director).expect("forwarded");
    assert_eq!(
        values(&inside, "Route"),
        ["<sip:10.10.0.50:5061;transport=tls;lr>"]
    );
    assert!(values(&inside, "Record-Route").is_empty());
    world.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(status(world.sent(client)), "200 OK");

    // The caller's is the reverse; the Director has taken its own off.
    let own = [
        format!("Route: {}", routes[1]),
        format!("Route: {}", routes[0]),
    ];
    let lines: Vec<&str> = own.iter().map(String::as_str).collect();
    world.receive(
        director,
        request(
            "ACK",
            "sip:bob@10.2.0.10",
            "alice@contoso.test",
            "bob@contoso.test",
            &lines,
        ),
    );
    let ack = world.sent(client).expect("forwarded");
    assert!(
        ack.starts_with("ACK ") && values(&ack, "Route").is_empty(),
        "{ack}"
    );
}

#[test]
fn a_spiral_keeps_the_routes_of_its_second_pass() {
    let mut world = World::new();
    let (director, alice, bob) = (world.next_hop(0), world.promoted(0), world.client(0));
    let path = path_of(&mut world, director, bob);
    world.receive(
        alice,
        request(
            "INVITE",
            "sip:bob@contoso.test",
            "alice@contoso.test",
            "bob@contoso.test",
            &[],
        ),
    );
    let first = world.sent(director).expect("forwarded");
    // A Director that does not record-route sends it back at once.
    let second = first
        .replacen("sip:bob@contoso.test SIP", "sip:bob@10.2.0.10 SIP", 1)
        .replacen(
            "Via: ",
            &format!("Route: {path}\r\nVia: SIP/2.0/TLS 10.10.0.50;branch=z9hG4bKdir\r\nVia: "),
            1,
        );
    world.receive(director, second);
    let outside = world.sent(bob).expect("a spiral is no loop");
    let routes = values(&outside, "Record-Route");
    assert_eq!(routes.len(), 4, "two for each pass");

    let route = format!("Route: {}", routes.join(","));
    world.receive(
        bob,
        request(
            "BYE",
            "sip:alice@10.1.0.10",
            "bob@contoso.test",
            "alice@contoso.test",
            &[&route],
        ),
    );
    let inside = world.sent(director).expect("forwarded");
    assert_eq!(
        values(&inside, "Route"),
        [routes[2..].join(",")],
        "one pass is taken off"
    );
    world.receive(
        director,
        inside.replacen(
            "Via: ",
            "Via: SIP/2.0/TLS 10.10.0.50;branch=z9hG4bKd2\r\nVia: ",
            1,
        ),
    );
    assert!(world.sent(alice).expect("forwarded").starts_with("BYE "));
}

#[test]
fn the_same_request_by_the_same_way_is_a_loop() {
    let mut world = World::new();
    let (director, bob) = (world.next_hop(0), world.client(0));
    let path = path_of(&mut world, director, bob);
    world.receive(director, invite(&path));
    let outside = world.sent(bob).expect("forwarded");
    let again = outside.replacen(
        "Via: ",
        &format!("Route: {path}\r\nVia: SIP/2.0/TLS x;branch=z9hG4bKx\r\nVia: "),
        1,
    );
    world.receive(director, again);
    assert_eq!(status(world.sent(director)), "482 Loop Detected");
}

#[test]
fn a_client_that_is_gone_is_reported_at_once_on_either_core() {
    let mut world = World::new();
    let (director, here, there) = (world.next_hop(0), world.client(0), world.client(1));
    let other = world.next_hop(1);
    let paths = [
        path_of(&mut world, director, here),
        path_of(&mut world, other, there),
    ];
    world.cores[0].handle_closed(here);
    world.cores[1].handle_closed(there);
    for path in paths {
        world.receive(director, invite(&path));
        let answer = world.sent(director).expect("an answer");
        assert!(
            answer.starts_with("SIP/2.0 430 Flow Failed\r\n"),
            "{answer}"
        );
        assert!(values(&answer, "ms-diagnostics")[0].starts_with("1004;"));
        assert_eq!(
            values(&answer, "Via"),
            ["SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir"]
        );
    }
    // The slot is used again: the old token does not lead to the new client.
    let newcomer = world.client(0);
    assert_eq!(newcomer.slot, here.slot);
}

#[test]
fn a_restart_costs_clients_their_connections_and_partners_nothing() {
    let mut before = World::new();
    let (director, client) = (before.next_hop(0), before.client(0));
    let path = path_of(&mut before, director, client);
    let partner = before.partner(0, "sip.fabrikam.test", None);
    let uri = "sip:bob@contoso.test";
    before.receive(
        partner,
        request(
            "INVITE",
            uri,
            "carol@fabrikam.test",
            "bob@contoso.test",
            &[],
        ),
    );
    let inside = before.sent(director).expect("forwarded");

    // The same array secret, another run: the slot of the client is in use again, by somebody else.
    let mut after = World::with(crate::proxy::settings::Settings {
        epoch: 8,
        ..settings()
    });
    let (director, other) = (after.next_hop(0), after.client(0));
    assert_eq!(other, client);
    after.receive(director, invite(&path));
    assert_eq!(status(after.sent(director)), "430 Flow Failed");
    assert_eq!(after.sent(other), None);

    let route = format!("Route: {}", values(&inside, "Record-Route").join(", "));
    after.receive(
        director,
        request(
            "BYE",
            "sip:carol@172.16.0.9",
            "bob@contoso.test",
            "carol@fabrikam.test",
            &[&route],
        ),
    );
    let partner = after.partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061"));
    assert!(after.sent(partner).expect("forwarded").starts_with("BYE "));
    // An answer to a request of the earlier run finds the Director by its name.
    after.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(
        after.sent(director),
        None,
        "the partner's old connection is gone"
    );
}

#[test]
fn a_forged_token_is_refused_wherever_it_comes_from() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    let path = path_of(&mut world, director, client);
    let at = path.find('@').expect("a user part");
    let changed = if path.as_bytes()[at - 1] == b'A' {
        "B"
    } else {
        "A"
    };
    let forged = format!("{}{changed}{}", &path[..at - 1], &path[at..]);
    for sender in [director, client] {
        world.receive(
            sender,
            request(
                "BYE",
                "sip:a@contoso.test",
                "bob@contoso.test",
                "a@contoso.test",
                &[&format!("Route: {forged}")],
            ),
        );
        assert_eq!(
            status(world.sent(sender)),
            "481 Call/Transaction Does Not Exist"
        );
    }
    world.receive(
        client,
        request(
            "ACK",
            "sip:a@contoso.test",
            "bob@contoso.test",
            "a@contoso.test",
            &[&format!("Route: {forged}")],
        ),
    );
    assert_eq!(world.sent(client), None, "nothing answers an ACK");
}

#[test]
fn a_contact_that_was_replaced_leads_back_without_a_route() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    let contact = "Contact: <sip:10.1.0.10:4000;transport=tls;ms-opaque=d3470f2e1d>;proxy=replace";
    world.receive(
        client,
        request(
            "REGISTER",
            "sip:contoso.test",
            "bob@contoso.test",
            "bob@contoso.test",
            &[contact],
        ),
    );
    let inside = world.sent(director).expect("forwarded");
    let uri = values(&inside, "Contact")[0]
        .trim_matches(['<', '>'])
        .to_owned();
    world.receive(
        director,
        request("NOTIFY", &uri, "srv@contoso.test", "bob@contoso.test", &[]),
    );
    assert!(
        world
            .sent(client)
            .expect("forwarded")
            .starts_with(&format!("NOTIFY {uri} SIP/2.0\r\n"))
    );
}

#[test]
fn what_nobody_is_known_for_is_not_found() {
    let mut world = World::new();
    let director = world.next_hop(0);
    for uri in ["sip:carol@contoso.test", "sip:carol@10.0.0.1"] {
        world.receive(
            director,
            request("MESSAGE", uri, "a@contoso.test", "carol@contoso.test", &[]),
        );
        let answer = world.sent(director).expect("an answer");
        assert!(answer.starts_with("SIP/2.0 404 "), "{answer}");
        assert!(values(&answer, "ms-edge-proxy-message-trust")[0].contains("EdgeProxyGenerated"));
    }
    assert!(
        world
            .events
            .contains(&Event::Answered(Realm::Inside, Refusal::Unroutable))
    );
}

#[test]
fn a_response_finds_the_director_on_a_new_connection() {
    let mut world = World::new();
    let (next_hop, client) = (world.next_hop(0), world.client(0));
    let path = path_of(&mut world, next_hop, client);
    let director = world.inside(0);
    world.receive(director, invite(&path));
    let outside = world.sent(client).expect("forwarded");
    world.cores[0].handle_closed(director);
    world.receive(client, response(&outside, "200 OK", &[]));
    assert!(
        world
            .sent(next_hop)
            .expect("over ours")
            .starts_with("SIP/2.0 200 OK")
    );
}

#[test]
fn while_draining_dialogs_go_on_and_new_ones_go_elsewhere() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    let path = path_of(&mut world, director, client);
    let now = world.now;
    world.cores[0].handle_drain(now);
    world.receive(
        client,
        request(
            "INVITE",
            "sip:a@contoso.test",
            "bob@contoso.test",
            "a@contoso.test",
            &[],
        ),
    );
    assert_eq!(status(world.sent(client)), "503 Service Unavailable");
    world.receive(
        client,
        request(
            "BYE",
            "sip:a@contoso.test",
            "bob@contoso.test",
            "a@contoso.test",
            &[&format!("Route: {path}")],
        ),
    );
    assert!(world.sent(director).is_some());
}

#[test]
fn a_message_too_long_for_its_client_is_refused_towards_its_sender() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    let path = path_of(&mut world, director, client);
    world.receive(director, invite(&path));
    let outside = world.sent(client).expect("forwarded");
    world.cores[0].handle_too_long(world.now, outside.as_bytes());
    world.drain();
    let answer = world.sent(director).expect("an answer");
    assert!(
        answer.starts_with("SIP/2.0 513 Message Too Large\r\n"),
        "{answer}"
    );
    assert_eq!(
        values(&answer, "Via"),
        ["SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir"]
    );
    let long = response(&outside, "200 OK", &[]);
    world.cores[0].handle_too_long(world.now, long.as_bytes());
    world.drain();
    assert_eq!(world.sent(director), None);
    assert!(world.events.contains(&Event::Dropped(
        crate::proxy::refusal::Drop::ResponseTooLong
    )));
    assert!(world.closed.is_empty(), "the connection stands");
}

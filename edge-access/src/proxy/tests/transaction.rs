//! Transactions: what the edge does on its own between a request and its answer.

use std::time::Duration;

use super::world::{World, request, response, settings, status, values};
use crate::proxy::CloseReason;
use crate::proxy::Event;
use crate::proxy::refusal::Drop;
use crate::proxy::settings::Settings;
use crate::proxy::token::FlowKey;

const BOB: &str = "bob@contoso.test";
const CAROL: &str = "carol@contoso.test";

/// All with one branch, unless `more` has a Via.
fn from_bob(method: &str, more: &[&str]) -> String {
    let text = request(method, "sip:carol@contoso.test", BOB, CAROL, more);
    with_branch(&text, "z9hG4bKbob")
}

fn with_branch(text: &str, branch: &str) -> String {
    let Some((before, rest)) = text.split_once("z9hG4bKaa") else {
        return text.to_owned();
    };
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{branch}{after}")
}

fn small(transactions: usize) -> World {
    let mut settings = settings();
    settings.limits.transactions = transactions;
    World::with(settings)
}

fn first_line(message: Option<String>) -> String {
    let message = message.expect("a message");
    message.lines().next().expect("a line").to_owned()
}

fn branch(message: &str) -> String {
    values(message, "Via")[0].to_owned()
}

/// Two Directors on core 0; the first is the one that is taken.
fn two_directors(world: &mut World) -> (FlowKey, FlowKey) {
    let (first, second) = (world.inside(0), world.inside(0));
    world.cores[0].handle_next_hop(second, 1);
    world.cores[0].handle_next_hop(first, 0);
    (first, second)
}

#[test]
fn an_invite_is_tried_at_once_and_the_directors_own_100_goes_no_further() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("INVITE", &[]));
    let trying = world.sent_any(client).expect("at once");
    assert!(trying.starts_with("SIP/2.0 100 Trying\r\n"), "{trying}");
    assert!(!values(&trying, "To")[0].contains("tag="));
    let inside = world.sent(director).expect("forwarded");
    world.receive(director, response(&inside, "100 Trying", &[]));
    assert_eq!(world.sent_any(client), None);
    world.receive(director, response(&inside, "180 Ringing", &[]));
    assert_eq!(status(world.sent(client)), "180 Ringing");
    // A fork inside may answer twice (RFC 6026 §7.1).
    for _ in 0..2 {
        world.receive(director, response(&inside, "200 OK", &[]));
        assert_eq!(status(world.sent(client)), "200 OK");
    }
    let ack = ["To: <sip:carol@contoso.test>;tag=t1"];
    world.receive(client, from_bob("ACK", &ack));
    let ack = world.sent(director).expect("the ACK of a 2xx goes on");
    assert_ne!(branch(&ack), branch(&inside), "as a request of its own");
    world.wait(Duration::from_secs(33));
    assert_eq!(world.cores[0].fill().transactions, 0);
}

#[test]
fn a_failure_is_acknowledged_by_us_and_its_ack_is_ours_to_swallow() {
    for via in ["Via: SIP/2.0/TLS a;branch=z9hG4bK7", "Via: SIP/2.0/TLS a"] {
        let mut world = World::new();
        let (director, client) = (world.next_hop(0), world.promoted(0));
        world.receive(client, from_bob("INVITE", &[via]));
        let inside = world.sent(director).expect("forwarded");
        world.receive(director, response(&inside, "486 Busy Here", &[]));
        let ack = world.sent(director).expect("the ACK");
        assert!(
            ack.starts_with("ACK sip:carol@contoso.test SIP/2.0\r\n"),
            "{ack}"
        );
        assert_eq!(values(&ack, "Via"), [branch(&inside)]);
        assert_eq!(values(&ack, "CSeq"), ["1 ACK"]);
        assert_eq!(values(&ack, "To"), ["<sip:carol@contoso.test>;tag=t1"]);
        assert_eq!(status(world.sent(client)), "486 Busy Here");
        world.receive(
            client,
            from_bob("ACK", &[via, "To: <sip:carol@contoso.test>;tag=t1"]),
        );
        assert_eq!(world.sent(director), None);
        assert!(world.events.contains(&Event::Dropped(Drop::AckAbsorbed)));
        assert_eq!(world.cores[0].fill().transactions, 0);
    }
}

#[test]
fn a_clients_failure_gets_the_senders_own_ack_because_only_that_is_signed() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(
        client,
        from_bob("REGISTER", &["Contact: <sip:bob@10.1.0.10>"]),
    );
    let path = values(&world.sent(director).expect("forwarded"), "Path")[0].to_owned();
    let route = format!("Route: {path}");
    let invite = |method: &str, more: &[&str]| {
        let mut all = vec![
            route.as_str(),
            "Call-ID: c2",
            "Via: SIP/2.0/TLS d;branch=z9hG4bKd",
        ];
        all.extend_from_slice(more);
        request(method, "sip:bob@10.1.0.10", CAROL, BOB, &all)
    };
    world.receive(director, invite("INVITE", &[]));
    let outside = world.sent(client).expect("forwarded");
    world.receive(client, response(&outside, "603 Decline", &[]));
    assert_eq!(status(world.sent(director)), "603 Decline");
    assert_eq!(world.sent(client), None, "nothing that we have not signed");
    let signed = [
        "To: <sip:bob@contoso.test>;tag=t1",
        "Authentication-Info: NTLM rspauth=\"1\"",
    ];
    world.receive(director, invite("ACK", &signed));
    let ack = world.sent(client).expect("the Director's ACK");
    assert_eq!(values(&ack, "Via"), [branch(&outside)]);
    assert_eq!(values(&ack, "Authentication-Info"), ["NTLM rspauth=\"1\""]);
}

#[test]
fn a_cancel_waits_for_a_provisional_answer_and_is_answered_by_us() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    let keep_alive = "ms-keep-alive: UAC;hop-hop=yes";
    world.receive(client, from_bob("INVITE", &[keep_alive]));
    let inside = world.sent(director).expect("forwarded");
    world.receive(client, from_bob("CANCEL", &["Authorization: NTLM a=\"b\""]));
    let answer = world.sent(client).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 200 OK\r\n"), "{answer}");
    assert_eq!(values(&answer, "CSeq"), ["1 CANCEL"]);
    assert_eq!(world.sent(director), None, "RFC 3261 §9.1");
    world.receive(director, response(&inside, "100 Trying", &[]));
    let cancel = world.sent(director).expect("now");
    assert!(
        cancel.starts_with("CANCEL sip:carol@contoso.test SIP/2.0\r\n"),
        "{cancel}"
    );
    assert_eq!(values(&cancel, "Via"), [branch(&inside)]);
    assert_eq!(
        values(&cancel, "Authorization"),
        ["NTLM a=\"b\""],
        "its sender's signature"
    );
    world.receive(director, response(&cancel, "200 OK", &[]));
    assert_eq!(world.sent(client), None, "it has its answer");
    world.receive(director, response(&inside, "487 Request Terminated", &[]));
    assert!(first_line(world.sent(director)).starts_with("ACK "));
    assert_eq!(status(world.sent(client)), "487 Request Terminated");
}

#[test]
fn a_cancel_that_crosses_the_200_changes_nothing() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("INVITE", &[]));
    let inside = world.sent(director).expect("forwarded");
    world.receive(director, response(&inside, "200 OK", &[]));
    world.receive(client, from_bob("CANCEL", &[]));
    assert_eq!(status(world.sent(client)), "200 OK", "to the INVITE");
    assert_eq!(status(world.sent(client)), "200 OK", "to the CANCEL");
    assert_eq!(world.sent(director), None);
    // And the other way round: it is on its way when the 200 comes.
    let call = ["Call-ID: c2"];
    world.receive(client, from_bob("INVITE", &call));
    let inside = world.sent(director).expect("forwarded");
    world.receive(director, response(&inside, "180 Ringing", &[]));
    assert_eq!(status(world.sent(client)), "180 Ringing");
    world.receive(client, from_bob("CANCEL", &call));
    assert_eq!(status(world.sent(client)), "200 OK", "to the CANCEL");
    assert!(first_line(world.sent(director)).starts_with("CANCEL "));
    world.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(
        values(&world.sent(client).expect("the 200"), "CSeq"),
        ["1 INVITE"]
    );
}

#[test]
fn a_cancel_without_its_invite_goes_on_as_it_always_did() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("CANCEL", &[]));
    assert!(
        first_line(world.sent(director)).starts_with("CANCEL "),
        "RFC 3261 §16.10"
    );
    assert_eq!(world.sent(client), None);
}

#[test]
fn a_silent_next_hop_costs_an_invite_a_408_and_a_message_its_answer() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("INVITE", &[]));
    world.receive(client, from_bob("MESSAGE", &["Call-ID: c2"]));
    assert!(first_line(world.sent(director)).starts_with("INVITE "));
    assert!(first_line(world.sent(director)).starts_with("MESSAGE "));
    world.wait(Duration::from_secs(4));
    assert!(
        first_line(world.sent_any(client)).starts_with("SIP/2.0 100 "),
        "to the INVITE"
    );
    let trying = world.sent_any(client).expect("to the MESSAGE");
    assert!(
        trying.starts_with("SIP/2.0 100 ") && trying.contains("1 MESSAGE"),
        "RFC 4320 §4.1"
    );
    world.wait(Duration::from_secs(30));
    assert_eq!(status(world.sent(client)), "408 Request Timeout");
    assert_eq!(world.sent(client), None, "RFC 4320 §4.2");
    let ack = ["To: <sip:carol@contoso.test>;tag=x"];
    world.receive(client, from_bob("ACK", &ack));
    world.wait(Duration::from_secs(11));
    assert_eq!(world.cores[0].fill().transactions, 0);
}

#[test]
fn timer_c_cancels_an_invite_that_rings_for_ever_and_ends_it() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(
        client,
        from_bob("INVITE", &["Content-Type: application/sdp"]),
    );
    let inside = world.sent(director).expect("forwarded");
    world.receive(director, response(&inside, "180 Ringing", &[]));
    world.wait(Duration::from_secs(180));
    world.receive(director, response(&inside, "180 Ringing", &[]));
    world.wait(Duration::from_secs(180));
    assert_eq!(
        world.sent(director),
        None,
        "each provisional answer starts it anew"
    );
    world.wait(Duration::from_secs(6));
    let cancel = world.sent(director).expect("RFC 3261 §16.8");
    assert!(cancel.starts_with("CANCEL "), "{cancel}");
    assert_eq!(values(&cancel, "Via"), [branch(&inside)]);
    for _ in 0..2 {
        assert_eq!(status(world.sent(client)), "180 Ringing");
    }
    world.wait(Duration::from_secs(33));
    assert_eq!(status(world.sent(client)), "408 Request Timeout");
}

#[test]
fn no_408_goes_back_to_what_is_no_invite_and_no_late_answer() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("MESSAGE", &[]));
    let inside = world.sent(director).expect("forwarded");
    world.receive(director, response(&inside, "408 Request Timeout", &[]));
    assert_eq!(world.sent(client), None, "RFC 4320 §4.2");
    world.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(world.sent(client), None, "RFC 4320 §4.3");
    assert!(world.events.contains(&Event::Dropped(Drop::ResponseLate)));
}

#[test]
fn a_503_tries_the_next_target_and_goes_back_as_500() {
    let mut world = World::new();
    let (first, second) = two_directors(&mut world);
    let client = world.promoted(0);
    let retry = ["Retry-After: 9"];
    for method in ["INVITE", "MESSAGE"] {
        world.receive(client, from_bob(method, &["Subject: the whole of it"]));
        let one = world.sent(first).expect("forwarded");
        world.receive(first, response(&one, "503 Service Unavailable", &retry));
        let two = world.sent(second).expect("sent to the next");
        assert_eq!(values(&two, "Subject"), ["the whole of it"]);
        assert_ne!(branch(&one), branch(&two), "RFC 3261 §16.6 step 8");
        assert_eq!(world.sent(client), None);
        world.receive(second, response(&two, "503 Service Unavailable", &retry));
        let answer = world.sent(client).expect("the answer");
        assert!(
            answer.starts_with("SIP/2.0 500 Server Internal Error\r\n"),
            "{answer}"
        );
        assert!(values(&answer, "Retry-After").is_empty());
        while world.sent(first).is_some() {}
        while world.sent(second).is_some() {}
    }
}

#[test]
fn a_signed_503_stays_what_its_signature_covers() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("MESSAGE", &[]));
    let inside = world.sent(director).expect("forwarded");
    let signed = ["Authentication-Info: NTLM rspauth=\"1\""];
    world.receive(
        director,
        response(&inside, "503 Service Unavailable", &signed),
    );
    assert_eq!(status(world.sent(client)), "503 Service Unavailable");
}

#[test]
fn a_next_hop_that_dies_is_replaced_by_the_next_one() {
    let mut world = World::new();
    let (first, second) = two_directors(&mut world);
    let client = world.promoted(0);
    for (call, method) in [("Call-ID: c1", "INVITE"), ("Call-ID: c2", "MESSAGE")] {
        world.receive(client, from_bob(method, &[call]));
    }
    world.receive(client, from_bob("INVITE", &["Call-ID: c3"]));
    world.sent(first).expect("c1");
    world.sent(first).expect("c2");
    let ringing = world.sent(first).expect("c3");
    world.receive(first, response(&ringing, "183 Session Progress", &[]));
    assert_eq!(status(world.sent(client)), "183 Session Progress");
    world.cores[0].handle_closed(first);
    world.wait(Duration::from_millis(200));
    let mut there: Vec<_> = [world.sent(second), world.sent(second)]
        .into_iter()
        .map(first_line)
        .collect();
    there.sort();
    assert!(
        there[0].starts_with("INVITE ") && there[1].starts_with("MESSAGE "),
        "{there:?}"
    );
    let lost = world.sent(client).expect("what had begun to ring is over");
    assert!(
        lost.starts_with("SIP/2.0 504 ") && values(&lost, "Call-ID") == ["c3"],
        "{lost}"
    );
    assert_eq!(
        world
            .events
            .iter()
            .filter(|event| **event == Event::FailedOver)
            .count(),
        2
    );
}

#[test]
fn newcomers_with_all_they_may_have_under_way_lose_none_of_it_with_a_next_hop() {
    let mut world = World::new();
    let (first, second) = two_directors(&mut world);
    let client = world.client(0);
    for call in 0..5 {
        world.receive(client, from_bob("MESSAGE", &[&format!("Call-ID: c{call}")]));
    }
    world.cores[0].handle_closed(first);
    world.wait(Duration::from_millis(200));
    let moved = std::iter::from_fn(|| world.sent(second)).count();
    assert_eq!(moved, 5);
    assert_eq!(world.sent(client), None);
}

#[test]
fn what_somebody_works_on_is_kept_in_short_and_still_answered() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    let body = "x".repeat(3000);
    let long = from_bob("MESSAGE", &["Content-Length: 3000"]) + &body;
    world.receive(client, &long);
    let inside = world.sent(director).expect("forwarded");
    world.receive(director, response(&inside, "100 Trying", &[]));
    assert!(world.cores[0].fill().transaction_bytes < 400);
    world.cores[0].handle_closed(director);
    world.wait(Duration::from_millis(200));
    let answer = world.sent(client).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 504 "), "{answer}");
    assert_eq!(values(&answer, "CSeq"), ["1 MESSAGE"]);
}

#[test]
fn an_invite_leaves_a_silent_next_hop_for_one_that_speaks() {
    let mut world = World::new();
    let (first, second) = two_directors(&mut world);
    let client = world.promoted(0);
    world.receive(client, from_bob("INVITE", &[]));
    let one = world.sent(first).expect("forwarded");
    world.wait(Duration::from_secs(9));
    let two = world.sent(second).expect("sent to the next");
    world.receive(second, response(&two, "200 OK", &[]));
    assert_eq!(status(world.sent(client)), "200 OK");
    world.receive(first, response(&one, "486 Busy Here", &[]));
    assert_eq!(world.sent(client), None, "nobody waits for that any more");
}

#[test]
fn of_several_failures_the_lowest_class_is_told() {
    let mut world = World::new();
    let (first, second) = two_directors(&mut world);
    let client = world.promoted(0);
    world.receive(client, from_bob("INVITE", &[]));
    world.sent(first).expect("forwarded");
    world.wait(Duration::from_secs(9));
    let two = world.sent(second).expect("sent to the next");
    world.receive(second, response(&two, "503 Service Unavailable", &[]));
    assert_eq!(
        status(world.sent(client)),
        "408 Request Timeout",
        "RFC 3261 §16.7 step 6"
    );
}

#[test]
fn a_partners_second_edge_gets_what_the_first_could_not_take() {
    let mut world = World::new();
    let edges = "sip1.fabrikam.test:5061 sip2.fabrikam.test:5061";
    world.dns.insert("fabrikam.test", edges);
    let director = world.next_hop(0);
    let message = request(
        "MESSAGE",
        "sip:c@fabrikam.test",
        BOB,
        "c@fabrikam.test",
        &[],
    );
    world.receive(director, &message);
    let first = world.partner(0, "sip1.fabrikam.test", Some("sip1.fabrikam.test:5061"));
    let one = world.sent(first).expect("forwarded");
    world.receive(first, response(&one, "503 Service Unavailable", &[]));
    assert_eq!(world.sent(director), None);
    assert_eq!(world.dialled.len(), 2, "the second is dialled only now");
    let second = world.partner(0, "sip2.fabrikam.test", Some("sip2.fabrikam.test:5061"));
    let two = world.sent(second).expect("sent to the next");
    world.receive(second, response(&two, "200 OK", &[]));
    assert_eq!(status(world.sent(director)), "200 OK");

    // The first breaks, the second cannot be reached: the sender is told.
    world.receive(director, &message);
    world.sent(first).expect("the first is asked first");
    world.cores[0].handle_closed(second);
    world.cores[0].handle_closed(first);
    world.wait(Duration::from_millis(200));
    world.dial_failed(
        0,
        "sip2.fabrikam.test:5061",
        crate::proxy::refusal::Refusal::PartnerUnreachable,
    );
    assert_eq!(status(world.sent(director)), "504 Server time-out");
    assert_eq!(world.cores[0].fill().transactions, 0);
}

#[test]
fn a_repeated_request_goes_on_once() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    for method in ["INVITE", "MESSAGE"] {
        for _ in 0..3 {
            world.receive(client, from_bob(method, &[]));
        }
        let inside = world.sent(director).expect("forwarded");
        assert_eq!(world.sent(director), None);
        world.receive(director, response(&inside, "200 OK", &[]));
        assert_eq!(status(world.sent(client)), "200 OK");
    }
    let again = |event: &&Event| **event == Event::Dropped(Drop::Retransmission);
    assert_eq!(world.events.iter().filter(again).count(), 4);
}

#[test]
fn equal_requests_of_two_connections_are_two_though_they_have_no_branch() {
    let mut world = World::new();
    let (director, one, two) = (world.next_hop(0), world.promoted(0), world.promoted(0));
    for method in ["INVITE", "MESSAGE"] {
        let message = from_bob(method, &["Via: SIP/2.0/tls 10.1.0.10:5061"]);
        world.receive(one, &message);
        world.receive(two, &message);
        let (first, second) = (world.sent(director), world.sent(director));
        let (first, second) = (first.expect("one's"), second.expect("two's"));
        assert_ne!(branch(&first), branch(&second));
        world.receive(director, response(&second, "486 Busy Here", &[]));
        assert_eq!(world.sent(one), None);
        assert_eq!(status(world.sent(two)), "486 Busy Here");
        world.receive(director, response(&first, "200 OK", &[]));
        assert_eq!(status(world.sent(one)), "200 OK");
        while world.sent(director).is_some() {}
    }
}

#[test]
fn a_full_table_costs_timers_and_nothing_else() {
    let mut world = small(1);
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("MESSAGE", &["Call-ID: c0"]));
    world.sent(director).expect("it has the only place");
    world.receive(client, from_bob("INVITE", &[]));
    let inside = world.sent(director).expect("forwarded all the same");
    assert_eq!(world.sent_any(client), None, "nobody promises anything");
    world.receive(director, response(&inside, "486 Busy Here", &[]));
    assert_eq!(status(world.sent(client)), "486 Busy Here");
    let to = ["To: <sip:carol@contoso.test>;tag=t1"];
    world.receive(client, from_bob("ACK", &to));
    assert_eq!(
        branch(&world.sent(director).expect("the sender's own ACK")),
        branch(&inside)
    );
    world.receive(client, from_bob("CANCEL", &[]));
    assert_eq!(
        branch(&world.sent(director).expect("and its CANCEL")),
        branch(&inside)
    );
    assert_eq!(world.cores[0].fill().transactions, 1);
}

#[test]
fn bytes_of_requests_are_bounded_too() {
    let mut settings = settings();
    settings.limits.transaction_bytes = 100;
    let mut world = World::with(settings);
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("MESSAGE", &[]));
    let inside = world.sent(director).expect("forwarded");
    assert_eq!(world.cores[0].fill().transactions, 0);
    world.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(status(world.sent(client)), "200 OK");
}

#[test]
fn an_answer_to_an_invite_that_is_over_still_arrives_if_it_is_a_2xx() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("INVITE", &[]));
    let inside = world.sent(director).expect("forwarded");
    world.wait(Duration::from_secs(20));
    world.cores[0].handle_ping(world.now, director);
    world.wait(Duration::from_secs(50));
    assert_eq!(status(world.sent(client)), "408 Request Timeout");
    assert_eq!(world.cores[0].fill().transactions, 0);
    world.receive(director, response(&inside, "486 Busy Here", &[]));
    assert_eq!(world.sent(client), None);
    world.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(
        status(world.sent(client)),
        "200 OK",
        "RFC 3261 §16.7 step 5"
    );
}

#[test]
fn a_call_across_cores_is_answered_cancelled_and_timed_like_any_other() {
    let mut world = World::new();
    let (next_hop, client) = (world.next_hop(1), world.promoted(1));
    let director = world.inside(0);
    world.receive(
        client,
        from_bob("REGISTER", &["Contact: <sip:bob@10.1.0.10>"]),
    );
    let path = values(&world.sent(next_hop).expect("forwarded"), "Path")[0].to_owned();
    let route = format!("Route: {path}");
    let invite = |method: &str, call: &str| {
        request(
            method,
            "sip:bob@10.1.0.10",
            CAROL,
            BOB,
            &[&route, call, "Via: SIP/2.0/TLS d;branch=z9hG4bKd"],
        )
    };
    world.receive(director, invite("INVITE", "Call-ID: c2"));
    let outside = world.sent(client).expect("forwarded");
    world.receive(client, response(&outside, "180 Ringing", &[]));
    assert_eq!(status(world.sent(director)), "180 Ringing");
    world.receive(director, invite("CANCEL", "Call-ID: c2"));
    assert_eq!(status(world.sent(director)), "200 OK");
    let cancel = world.sent(client).expect("the CANCEL");
    assert_eq!(values(&cancel, "Via"), [branch(&outside)]);
    world.receive(client, response(&cancel, "200 OK", &[]));
    world.receive(client, response(&outside, "487 Request Terminated", &[]));
    assert_eq!(status(world.sent(director)), "487 Request Terminated");
    assert_eq!(world.sent(director), None);

    world.receive(director, invite("INVITE", "Call-ID: c3"));
    world.sent(client).expect("forwarded");
    world.wait(Duration::from_secs(33));
    assert_eq!(status(world.sent(director)), "408 Request Timeout");
}

#[test]
fn a_connection_from_which_nothing_comes_is_asked_once_and_closed() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, from_bob("MESSAGE", &[]));
    world.sent(director).expect("forwarded");
    world.wait(Duration::from_secs(33));
    let ping = world.sent(director).expect("are you there?");
    assert!(
        ping.starts_with("OPTIONS sip:director.contoso.internal;transport=tls SIP/2.0\r\n"),
        "{ping}"
    );
    world.wait(Duration::from_secs(11));
    assert_eq!(world.closed, [(director, CloseReason::Wedged)]);

    // One that answers anything at all stands.
    let director = world.next_hop(0);
    world.receive(client, from_bob("MESSAGE", &[]));
    world.sent(director).expect("forwarded");
    world.wait(Duration::from_secs(33));
    let ping = world.sent(director).expect("are you there?");
    world.receive(director, response(&ping, "404 Not Found", &[]));
    world.wait(Duration::from_secs(60));
    assert_eq!(world.closed.len(), 1);
    assert_eq!(world.cores[0].fill().transactions, 0);
}

#[test]
fn a_client_that_answers_nothing_three_times_is_let_go() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(
        client,
        from_bob("REGISTER", &["Contact: <sip:bob@10.1.0.10>"]),
    );
    let path = values(&world.sent(director).expect("forwarded"), "Path")[0].to_owned();
    let route = format!("Route: {path}");
    for round in 0..3 {
        assert_eq!(world.closed.len(), 0, "round {round}");
        world.receive(
            director,
            request("MESSAGE", "sip:bob@10.1.0.10", CAROL, BOB, &[&route]),
        );
        assert!(
            world
                .sent(client)
                .expect("forwarded")
                .starts_with("MESSAGE ")
        );
        world.wait(Duration::from_secs(33));
    }
    assert_eq!(world.closed, [(client, CloseReason::Wedged)]);
}

#[test]
fn what_is_suspect_is_not_taken_while_there_is_another() {
    let mut world = World::new();
    let (first, second) = two_directors(&mut world);
    let client = world.promoted(0);
    world.receive(client, from_bob("MESSAGE", &[]));
    world.sent(first).expect("forwarded");
    world.wait(Duration::from_secs(33));
    world.receive(client, from_bob("MESSAGE", &[]));
    assert!(world.sent(second).is_some());
}

#[test]
fn requests_of_a_dialog_need_no_entry_while_the_way_works() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(
        client,
        from_bob("BYE", &["To: <sip:carol@contoso.test>;tag=t1"]),
    );
    let inside = world.sent(director).expect("forwarded");
    assert_eq!(world.cores[0].fill().transactions, 0);
    world.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(status(world.sent(client)), "200 OK");
    world.receive(client, from_bob("BENOTIFY", &[]));
    assert!(world.sent(director).is_some());
    assert_eq!(
        world.cores[0].fill().transactions,
        0,
        "nothing answers that"
    );
}

#[test]
fn after_a_restart_answers_find_their_way_without_the_table() {
    let mut world = World::new();
    let (next_hop, director) = (world.next_hop(0), world.inside(0));
    let client = world.promoted(0);
    world.receive(
        client,
        from_bob("REGISTER", &["Contact: <sip:bob@10.1.0.10>"]),
    );
    let path = values(&world.sent(next_hop).expect("forwarded"), "Path")[0].to_owned();
    let route = format!("Route: {path}");
    world.receive(
        director,
        request("MESSAGE", "sip:bob@10.1.0.10", CAROL, BOB, &[&route]),
    );
    let outside = world.sent(client).expect("forwarded");
    let mut later = World::with(Settings {
        epoch: 8,
        ..settings()
    });
    let (next_hop, _) = (later.next_hop(0), later.inside(0));
    let again = later.promoted(0);
    assert_eq!(again, client, "the same place in the table");
    later.receive(again, response(&outside, "200 OK", &[]));
    assert_eq!(status(later.sent(next_hop)), "200 OK");
}

#[test]
fn a_storm_of_registrations_is_let_in_at_the_directors_pace() {
    let mut settings = settings();
    settings.limits.registrations_per_second = 8;
    let mut world = World::with(settings);
    let director = world.next_hop(0);
    let register = request(
        "REGISTER",
        "sip:contoso.test",
        BOB,
        BOB,
        &["User-Agent: baresip"],
    );
    let storm = |world: &mut World| {
        let refused = (0..20).filter(|_| {
            let client = world.client(0);
            world.receive(client, &register);
            let Some(answer) = world.sent(client) else {
                return false;
            };
            assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
            let after: u32 = values(&answer, "Retry-After")[0].parse().expect("seconds");
            assert!((30..=60).contains(&after), "{after}");
            true
        });
        20 - refused.count()
    };
    assert_eq!(
        storm(&mut world),
        6,
        "a quarter is for those that have begun"
    );
    let user = world.promoted(0);
    world.receive(user, &register);
    assert_eq!(world.sent(user), None, "who is signed in stays so");
    let one = world.sent(director).expect("forwarded");
    world.receive(director, response(&one, "503 Service Unavailable", &[]));
    assert_eq!(world.cores[0].fill().registration_rate, 4);
    world.wait(Duration::from_secs(1));
    assert_eq!(storm(&mut world), 3);
}

#[test]
fn under_load_what_ends_work_passes_and_strangers_wait() {
    let mut world = World::new();
    let (director, user, stranger) = (world.next_hop(0), world.promoted(0), world.client(0));
    let in_dialog = "To: <sip:carol@contoso.test>;tag=t1";
    let passes = |world: &mut World, load: u8, on: FlowKey, method: &str, more: &[&str]| {
        let full = settings().limits.server_queue;
        world.cores[0].handle_backlog(full * usize::from(load) / 100);
        world.receive(
            on,
            request(method, "sip:carol@contoso.test", BOB, CAROL, more),
        );
        let passed = world.sent(director).is_some();
        if !passed && method != "BENOTIFY" {
            assert_eq!(status(world.sent(on)), "503 Service Unavailable");
        }
        passed
    };
    assert!(passes(&mut world, 40, stranger, "MESSAGE", &[]));
    assert!(!passes(&mut world, 41, stranger, "MESSAGE", &[]));
    assert!(!passes(&mut world, 51, user, "OPTIONS", &[]));
    assert!(!passes(&mut world, 61, user, "SUBSCRIBE", &[]));
    assert!(passes(&mut world, 70, user, "MESSAGE", &[]));
    assert!(!passes(&mut world, 71, user, "MESSAGE", &[]));
    assert!(passes(&mut world, 80, user, "INVITE", &[]));
    assert!(!passes(&mut world, 81, user, "INVITE", &[]));
    assert!(passes(&mut world, 90, user, "REGISTER", &[]));
    assert!(passes(&mut world, 95, user, "INFO", &[in_dialog]));
    for method in ["ACK", "BYE", "CANCEL"] {
        assert!(
            passes(&mut world, 100, user, method, &[in_dialog]),
            "{method}"
        );
    }
    assert!(!passes(&mut world, 100, user, "BENOTIFY", &[]));
    assert_eq!(world.sent(user), None, "nothing answers a BENOTIFY");
}

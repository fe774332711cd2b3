//! What the edge answers to messages that are wrong, and where it answers nothing.

use super::world::{World, request, values};
use crate::proxy::CloseReason;
use edge_common::sip::framer::FrameError;
use edge_common::sip::parse::ParseError;

/// One line of the table: what is wrong, the answer's first line without the version (empty: none).
struct Case(&'static str, String, &'static str);

fn with(more: &[&str]) -> String {
    request(
        "MESSAGE",
        "sip:bob@contoso.test",
        "alice@contoso.test",
        "bob@contoso.test",
        more,
    )
}

fn line(line: &str) -> String {
    with(&[]).replacen("MESSAGE sip:bob@contoso.test SIP/2.0", line, 1)
}

fn without(header: &str) -> String {
    let keep = |line: &&str| !line.starts_with(header);
    with(&[]).split_inclusive("\r\n").filter(keep).collect()
}

#[test]
fn local_answers_to_what_is_wrong() {
    const BAD: &str = "400 Bad Request";
    let vias = vec!["SIP/2.0/TLS a"; 65].join(", ");
    let cases = [
        Case(
            "another version",
            line("MESSAGE sip:bob@contoso.test SIP/7.0"),
            "505 Version Not Supported",
        ),
        Case("no version", line("MESSAGE sip:bob@contoso.test"), BAD),
        Case(
            "two blanks in the request line",
            line("MESSAGE  sip:bob@contoso.test SIP/2.0"),
            BAD,
        ),
        Case(
            "a blank at its end",
            line("MESSAGE sip:bob@contoso.test SIP/2.0 "),
            BAD,
        ),
        Case(
            "a blank in the Request-URI",
            line("MESSAGE sip:bob@contoso.test;x y SIP/2.0"),
            BAD,
        ),
        Case(
            "brackets around the Request-URI",
            line("MESSAGE <sip:bob@contoso.test> SIP/2.0"),
            BAD,
        ),
        Case(
            "headers in the Request-URI",
            line("MESSAGE sip:bob@contoso.test?Route=x SIP/2.0"),
            BAD,
        ),
        Case(
            "an IPv6 address without brackets",
            line("MESSAGE sip:bob@2001:db8::1 SIP/2.0"),
            BAD,
        ),
        Case(
            "an unknown scheme",
            line("MESSAGE unheard:of SIP/2.0"),
            "416 Unsupported URI Scheme",
        ),
        Case(
            "a telephone number",
            line("MESSAGE tel:+15550100 SIP/2.0"),
            "416 Unsupported URI Scheme",
        ),
        Case(
            "a method that is no token",
            line("MES@SAGE sip:bob@contoso.test SIP/2.0"),
            BAD,
        ),
        Case("no Via", without("Via"), BAD),
        Case("no From", without("From"), BAD),
        Case("no To", without("To"), BAD),
        Case("no Call-ID", without("Call-ID"), BAD),
        Case("no CSeq", without("CSeq"), BAD),
        Case(
            "two From",
            with(&["f: <sip:alice@contoso.test>;tag=2"]),
            BAD,
        ),
        Case("two Call-ID", with(&["i: c2"]), BAD),
        Case(
            "two Max-Forwards",
            with(&["Max-Forwards: 1", "Max-Forwards: 2"]),
            BAD,
        ),
        Case("an empty Call-ID", with(&["Call-ID:"]), BAD),
        Case("CSeq of another method", with(&["CSeq: 1 INVITE"]), BAD),
        Case(
            "CSeq out of range",
            with(&["CSeq: 36893488147419103232 MESSAGE"]),
            BAD,
        ),
        Case(
            "Max-Forwards out of range",
            with(&["Max-Forwards: 300"]),
            BAD,
        ),
        Case(
            "no hop left",
            with(&["Max-Forwards: 0"]),
            "483 Too Many Hops",
        ),
        Case(
            "more Via than a path has",
            with(&[&format!("Via: {vias}")]),
            "483 Too Many Hops",
        ),
        Case(
            "an empty Via member",
            with(&["Via: SIP/2.0/TLS a;branch=z9hG4bKx,,"]),
            BAD,
        ),
        Case(
            "an empty Via parameter",
            with(&["Via: SIP/2.0/TLS a;;branch=z9hG4bKx"]),
            BAD,
        ),
        Case(
            "quotes that do not close",
            with(&["To: \"Bob <sip:bob@contoso.test>"]),
            BAD,
        ),
        Case(
            "a display name that needs quotes",
            with(&["From: Doe, A <sip:alice@contoso.test>;tag=1"]),
            BAD,
        ),
        Case(
            "blanks in brackets",
            with(&["To: < sip:bob@contoso.test >"]),
            BAD,
        ),
        Case(
            "a Contact that needs brackets",
            with(&["Contact: sip:alice@h?x=y"]),
            BAD,
        ),
        Case(
            "an unknown Proxy-Require",
            with(&["Proxy-Require: ms-benotify, nothing-we-know"]),
            "420 Bad Extension",
        ),
        Case(
            "a known Proxy-Require",
            with(&["Proxy-Require: ms-benotify"]),
            "",
        ),
        Case(
            "a Route of ours that was not sealed",
            with(&["Route: <sip:x@sip.contoso.test;lr>"]),
            "481 Call/Transaction Does Not Exist",
        ),
        Case(
            "From of another scheme",
            with(&["From: <tel:+15550100>;tag=1"]),
            "403 Forbidden",
        ),
        Case(
            "an escaped REGISTER is no REGISTER",
            line("RE%47ISTER sip:contoso.test SIP/2.0"),
            BAD,
        ),
        Case(
            "proxy=replace with another value",
            with(&["Contact: <sip:a@h>;proxy=keep"]),
            BAD,
        ),
    ];
    for Case(what, message, answer) in cases {
        let mut world = World::new();
        let (director, client) = (world.next_hop(0), world.promoted(0));
        world.receive(client, &message);
        let sent = world.sent(client);
        let first = sent
            .as_deref()
            .and_then(|text| text.lines().next())
            .unwrap_or_default();
        assert_eq!(
            first.strip_prefix("SIP/2.0 ").unwrap_or_default(),
            answer,
            "{what}: {message}"
        );
        assert_eq!(world.sent(director).is_some(), answer.is_empty(), "{what}");
        if let Some(sent) = sent.filter(|_| answer.starts_with("420")) {
            assert_eq!(values(&sent, "Unsupported"), ["nothing-we-know"]);
        }
        // Nothing answers an ACK or a BENOTIFY, whatever is wrong with it.
        for method in ["ACK", "BENOTIFY"] {
            let mut world = World::new();
            let client = world.promoted(0);
            world.receive(
                client,
                message
                    .replace("MESSAGE ", &format!("{method} "))
                    .replace(" MESSAGE", &format!(" {method}")),
            );
            let escaped = message.starts_with("RE%") || message.starts_with("MES@");
            assert!(escaped || world.sent(client).is_none(), "{method}: {what}");
        }
    }
}

#[test]
fn a_response_that_is_wrong_is_thrown_away() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, with(&[]));
    let inside = world.sent(director).expect("forwarded");
    let good = super::world::response(&inside, "200 OK", &[]);
    for wrong in [
        good.replacen("200 OK", "4294967301 OK", 1),
        good.replacen("200 OK", "99 OK", 1),
        good.replacen("CSeq: 1 ", "CSeq: 4294967296 ", 1),
        good.split_inclusive("\r\n")
            .filter(|line| !line.contains("10.1.0.10"))
            .collect(),
    ] {
        world.receive(director, wrong);
        assert_eq!(world.sent(client), None);
    }
    world.receive(director, good);
    assert!(world.sent(client).is_some());
}

#[test]
fn a_head_without_certain_headers_ends_the_connection() {
    let mut world = World::new();
    let client = world.promoted(0);
    world.receive(client, with(&[]).replacen("Call-ID: c1", "Call-ID c1", 1));
    assert_eq!(
        world.closed,
        [(client, CloseReason::Parse(ParseError::HeaderWithoutColon))]
    );
    assert_eq!(world.cores[0].flow_count(), 0);
}

#[test]
fn whoever_sends_no_certain_length_is_told_before_the_connection_ends() {
    use FrameError::{ContentLengthInvalid, ContentLengthMissing};
    let cases = [
        (with(&["Content-Length: -7"]), ContentLengthInvalid, true),
        (
            with(&["Content-Length: 1", "l: 2"]),
            ContentLengthInvalid,
            true,
        ),
        (without("Content-Length"), ContentLengthMissing, true),
        // Nothing answers an ACK or a response, and nobody would know an answer without a Via.
        (
            without("Content-Length").replace("MESSAGE", "ACK"),
            ContentLengthMissing,
            false,
        ),
        (
            without("Content-Length").replace("Via:", "X-Via:"),
            ContentLengthMissing,
            false,
        ),
        (
            without("Content-Length").replacen(
                "MESSAGE sip:bob@contoso.test SIP/2.0",
                "SIP/2.0 200 OK",
                1,
            ),
            ContentLengthMissing,
            false,
        ),
    ];
    for (message, error, answered) in cases {
        let mut world = World::new();
        let (director, client) = (world.next_hop(0), world.promoted(0));
        world.cores[0].handle_frame_error(client, message.as_bytes(), error);
        world.drain();
        let sent = world.sent(client);
        assert_eq!(sent.is_some(), answered, "{message}");
        if let Some(answer) = sent {
            assert!(answer.starts_with("SIP/2.0 400 "), "{answer}");
            assert_eq!(values(&answer, "Call-ID"), values(&message, "Call-ID"));
        }
        assert_eq!(world.sent(director), None);
        assert_eq!(world.closed, [(client, CloseReason::Frame(error))]);
    }
}

#[test]
fn whoever_spoils_a_head_is_told_as_far_as_it_can_be_read() {
    use FrameError::{BareCarriageReturn, BareLineFeed, HeadTooLong};
    let after =
        |bad: &str| with(&[]).replacen("Call-ID: c1\r\n", &format!("Call-ID: c1\r\n{bad}"), 1);
    let before_via = |bad: &str| with(&[]).replacen("Via:", &format!("{bad}Via:"), 1);
    let long = format!("Subject: {}\r\n", "x".repeat(70_000));
    let cases = [
        (after("Subject: a\nb\r\n"), BareLineFeed, Some("400")),
        (after("Subject: a\rb\r\n"), BareCarriageReturn, Some("400")),
        (after(&long), HeadTooLong, Some("513")),
        (after(&long).replace("MESSAGE", "ACK"), HeadTooLong, None),
        // What stands behind the fault is nobody's Via.
        (before_via("Subject: a\nb\r\n"), BareLineFeed, None),
        (before_via(&long), HeadTooLong, None),
    ];
    for (message, error, status) in cases {
        let mut world = World::new();
        let (director, client) = (world.next_hop(0), world.promoted(0));
        world.cores[0].handle_frame_error(client, message.as_bytes(), error);
        world.drain();
        let sent = world.sent(client);
        let seen = sent.as_deref().map(|answer| &answer[8..11]);
        assert_eq!(seen, status, "{error}");
        if let Some(answer) = sent {
            assert!(
                !answer.replace("\r\n", "").contains(['\r', '\n']),
                "{answer}"
            );
            assert!(answer.len() < 4096);
        }
        assert_eq!(world.sent(director), None);
        assert_eq!(world.closed, [(client, CloseReason::Frame(error))]);
    }
}

#[test]
fn an_address_with_a_colon_too_many_passes_inwards_and_leads_nowhere() {
    const DOUBTFUL: &str = "sip:bob@[2001:db8:5:::198.51.100.7]";
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.promoted(0));
    world.receive(client, line(&format!("MESSAGE {DOUBTFUL} SIP/2.0")));
    let inside = world.sent(director).expect("forwarded");
    assert!(inside.starts_with(&format!("MESSAGE {DOUBTFUL} SIP/2.0\r\n")));
    world.receive(director, line(&format!("MESSAGE {DOUBTFUL} SIP/2.0")));
    let answer = super::world::status(world.sent(director));
    assert_eq!(answer, "404 Not Found");
    assert_eq!((world.sent(client), &world.dialled[..]), (None, &[][..]));
}

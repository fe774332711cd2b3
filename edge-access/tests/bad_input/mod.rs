//! Every odd and wrong message over real TLS to the real daemon, whole and byte by byte: what is answered, what is
//! counted, and that nothing goes on that may not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::dns::Record;
use crate::support::edge::Edge;
use crate::support::peer::Peer;
use crate::support::sip::{request, response, status, values};
use crate::support::torture::Must::{
    Answer, AnswerAndClose, Close, Drop, Forward, ForwardAndClose, Wait,
};
use crate::support::torture::Sender::{Director, Partner, Stranger, User};
use crate::support::torture::{Case, bytes, torture_cases, usual};

macro_rules! all {
    ($($name:ident: $sender:ident, $must:expr, $bytes:expr;)*) => {
        fn cases() -> Vec<Case> {
            use crate::support::torture::*;
            vec![$(Case { name: stringify!($name), sender: $sender, must: $must, bytes: $bytes }),*]
        }
    };
}

torture_cases!(all);

struct Stage {
    edge: Edge,
    next_hops: Vec<Peer>,
}

impl Stage {
    fn set() -> Self {
        let edge = Edge::start(BTreeMap::from([
            (
                "_sipfederationtls._tcp.fabrikam.test",
                Record::Srv(5061, "sip.fabrikam.test"),
            ),
            ("sip.fabrikam.test", Record::A(Ipv4Addr::new(127, 0, 4, 20))),
        ]));
        let next_hops = edge.next_hops();
        Self { edge, next_hops }
    }

    /// The connection of the two that brings the next message, and the message.
    fn inside(&mut self) -> (usize, String) {
        for _ in 0..200 {
            for (at, peer) in self.next_hops.iter_mut().enumerate() {
                if let Some(message) = peer.try_receive(Duration::from_millis(10)) {
                    return (at, message);
                }
            }
        }
        panic!("nothing came to the Director");
    }

    /// A client that has signed in.
    fn user(&mut self) -> Peer {
        let mut client = self.edge.client();
        let alice = "alice@contoso.test";
        client.send(request("REGISTER", "sip:contoso.test", alice, alice, &[]));
        let (core, asked) = self.inside();
        self.next_hops[core].send(response(&asked, "200 OK"));
        assert_eq!(status(&client.receive()), "200 OK");
        client
    }

    /// Takes what came to the Director off its connections.
    fn empty(&mut self) {
        for peer in &mut self.next_hops {
            while peer.try_receive_any(Duration::from_millis(2)).is_some() {}
        }
    }

    /// All lines of `/metrics` that start so, added up.
    fn sum(&self, start: &str) -> u64 {
        let text = self.edge.shared.metrics.text();
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    fn counted(&self, line: &str) -> u64 {
        self.sum(&format!("edge_access_{line}"))
    }

    fn forwarded(&self) -> u64 {
        self.counted("messages_forwarded_total")
    }
}

fn counters(case: &Case) -> Vec<String> {
    let refused = |status: u16, reason: &str| {
        let from = match case.sender {
            User | Stranger => "client",
            Partner => "partner",
            Director => "inside",
        };
        format!("requests_refused_total{{from=\"{from}\",status=\"{status}\",reason=\"{reason}\"}}")
    };
    let closed = |reason: &str| format!("connections_closed_total{{reason=\"{reason}\"}}");
    match case.must {
        Forward(_) | Wait => Vec::new(),
        ForwardAndClose(_, reason) | Close(reason) => vec![closed(reason)],
        Answer(status, reason) => vec![refused(status, reason)],
        AnswerAndClose(status, reason, why) => vec![refused(status, reason), closed(why)],
        Drop(reason) => vec![format!("messages_dropped_total{{reason=\"{reason}\"}}")],
    }
}

fn check(stage: &mut Stage, case: &Case, drip: bool) {
    let name = case.name;
    let mut sent = case.bytes.clone();
    let mut own = match case.sender {
        User => Some(stage.user()),
        Stranger => Some(stage.edge.client()),
        Partner => Some(stage.edge.partner("sip.fabrikam.test")),
        Director => None,
    };
    let mut core = 0;
    let mut asked_by = None;
    if case.sender == Director {
        let mut user = stage.user();
        user.send(bytes(&usual(crate::support::torture::M, ""), b""));
        let (at, asked) = stage.inside();
        core = at;
        let vias: String = values(&asked, "Via")
            .iter()
            .map(|via| format!("Via: {via}\r\n"))
            .collect();
        sent = String::from_utf8(sent)
            .expect("text")
            .replace("Via: @\r\n", &vias)
            .into_bytes();
        asked_by = Some(user);
    }
    let counters = counters(case);
    let before: Vec<u64> = counters.iter().map(|line| stage.counted(line)).collect();
    let forwarded = stage.forwarded();
    let sender = own.as_mut().unwrap_or(&mut stage.next_hops[core]);
    for piece in sent.chunks(if drip { 1 } else { sent.len() }) {
        sender.send_some(piece);
    }
    let (goes_on, answer, closes) = match case.must {
        Forward(count) => (count, None, false),
        ForwardAndClose(count, _) => (count, None, true),
        Answer(status, _) => (0, Some(status), false),
        AnswerAndClose(status, ..) => (0, Some(status), true),
        Close(_) => (0, None, true),
        Drop(_) | Wait => (0, None, false),
    };
    if let Some(status) = answer {
        let answer = sender.receive();
        assert!(
            answer.starts_with(&format!("SIP/2.0 {status} ")),
            "{name}: {answer}"
        );
    }
    if closes {
        assert!(sender.is_closed(), "{name}");
    } else if answer.is_none() && goes_on == 0 {
        let said = sender.try_receive_any(Duration::from_millis(20));
        assert_eq!(said, None, "{name}");
    }
    for (line, before) in counters.iter().zip(before) {
        stage.edge.until(&format!("{name} counted as {line}"), || {
            stage.counted(line) == before + 1
        });
    }
    let goes_on = forwarded + goes_on as u64;
    stage.edge.until(&format!("{name} forwarded"), || {
        stage.forwarded() >= goes_on
    });
    // A refusal is counted after whatever would have been sent before it.
    assert_eq!(stage.forwarded(), goes_on, "{name}");
    drop((own, asked_by));
    stage.empty();
}

fn run(drip: bool) {
    let mut stage = Stage::set();
    for case in cases() {
        // What a connection may send at most takes long byte by byte and shows no more.
        if !drip || case.bytes.len() < 8000 {
            check(&mut stage, &case, drip);
        }
    }
}

#[test]
fn wrong_messages_are_answered_counted_and_not_forwarded() {
    run(false);
}

#[test]
fn byte_by_byte_they_are_the_same() {
    run(true);
}

#[test]
fn a_token_replayed_from_another_connection_leads_nowhere() {
    let mut stage = Stage::set();
    let mut owner = stage.edge.client();
    let alice = "alice@contoso.test";
    let outbound = ["Supported: path, outbound"];
    owner.send(request(
        "REGISTER",
        "sip:contoso.test",
        alice,
        alice,
        &outbound,
    ));
    let (core, asked) = stage.inside();
    stage.next_hops[core].send(response(&asked, "200 OK"));
    owner.receive();
    let route = format!("Route: {}", values(&asked, "Path")[0]);
    let to_bob = |from: &str| {
        let bob = "bob@contoso.test";
        request("MESSAGE", "sip:bob@contoso.test", from, bob, &[&route])
    };
    // A partner is refused.
    let mut partner = stage.edge.partner("sip.fabrikam.test");
    let forwarded = stage.forwarded();
    partner.send(to_bob("carol@fabrikam.test"));
    assert!(status(&partner.receive()).starts_with("481 "));
    assert_eq!(stage.forwarded(), forwarded);
    let refused =
        "requests_refused_total{from=\"partner\",status=\"481\",reason=\"route_invalid\"}";
    assert_eq!(stage.counted(refused), 1);
    // Another client's request goes where all of its requests go, and not to the owner of the token.
    let mut other = stage.user();
    other.send(to_bob(alice));
    let (_, inside) = stage.inside();
    assert!(inside.starts_with("MESSAGE ") && values(&inside, "Route").is_empty());
    assert_eq!(owner.try_receive_any(Duration::from_millis(50)), None);
    // When its connection is gone, so is its use.
    let flows = stage.counted("flows");
    drop(owner);
    stage
        .edge
        .until("closed", || stage.counted("flows") < flows);
    let forwarded = stage.forwarded();
    stage.next_hops[core].send(to_bob(alice));
    assert!(status(&stage.next_hops[core].receive()).starts_with("430 "));
    assert_eq!(stage.forwarded(), forwarded);
    let gone = "requests_refused_total{from=\"inside\",status=\"430\",reason=\"flow_gone\"}";
    assert_eq!(stage.counted(gone), 1);
}

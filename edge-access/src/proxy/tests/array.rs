//! Two members of an array with a link between them, which may be down, full or lose what it carries.

use std::time::Duration;

use super::world::{World, name, request, response, settings, status, values};
use crate::proxy::refusal::{Drop, Refusal};
use crate::proxy::settings::Settings;
use crate::proxy::token::{FlowKey, Realm};
use crate::proxy::{CloseReason, Event, LinkedKind, Unlinked};
use edge_common::config::InsideRoutes;

/// The members `edge1` and `edge2` (3 and 4 in tokens), with the same secrets.
struct Pair {
    members: [World; 2],
    link: Link,
    /// Messages that went over the link.
    carried: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    Cut(Unlinked),
    /// Takes everything and delivers nothing.
    Lossy,
}

const ONE: usize = 0;
const TWO: usize = 1;

fn member(node: u8, own: &str, other: (u8, &str)) -> Settings {
    Settings {
        node,
        member: name(own),
        other_members: vec![(other.0, name(other.1))],
        inside_routes: InsideRoutes::Array,
        is_balanced: true,
        drain_percent_per_second: 50,
        ..settings()
    }
}

impl Pair {
    fn new() -> Self {
        let (one, two) = ("edge1.contoso.internal", "edge2.contoso.internal");
        Self {
            members: [
                World::with(member(3, one, (4, two))),
                World::with(member(4, two, (3, one))),
            ],
            link: Link::Up,
            carried: 0,
        }
    }

    fn receive(&mut self, at: usize, on: FlowKey, message: impl AsRef<[u8]>) {
        self.members[at].receive(on, message);
        self.carry();
    }

    /// Brings what left for the other member there, until nothing more does.
    fn carry(&mut self) {
        while let Some((from, linked)) = self.take() {
            let to = 1 - from;
            assert_eq!(
                linked.to.node,
                [3, 4][to],
                "to the other member and nobody else"
            );
            self.carried += 1;
            assert!(self.carried < 100, "a message goes round in circles");
            let core = usize::from(linked.to.key.core) % 2;
            match self.link {
                Link::Up => {
                    let world = &mut self.members[to];
                    world.cores[core].handle_linked(world.now, linked);
                }
                Link::Cut(why) => {
                    let world = &mut self.members[from];
                    world.cores[core].handle_unlinked(world.now, &linked, why);
                }
                Link::Lossy => {}
            }
            self.members[ONE].drain();
            self.members[TWO].drain();
        }
    }

    fn take(&mut self) -> Option<(usize, crate::proxy::Linked)> {
        (0..2).find_map(|at| {
            let linked = &mut self.members[at].linked;
            (!linked.is_empty()).then(|| (at, linked.remove(0)))
        })
    }

    /// Registers a client at a member; gives the Path that the Director got. Each member has its connection to it.
    fn path_of(&mut self, at: usize, client: FlowKey, director: FlowKey, more: &[&str]) -> String {
        let bob = "bob@contoso.test";
        let register = request("REGISTER", "sip:contoso.test", bob, bob, more);
        self.receive(at, client, register);
        let inside = self.members[at].sent(director).expect("forwarded");
        let path = values(&inside, "Path")[0].to_owned();
        self.receive(at, director, response(&inside, "200 OK", &[]));
        self.members[at].sent(client).expect("answered");
        path
    }

    /// A client of `ONE`, the Directors' connections of both, and the way to the client.
    fn with_client(&mut self, more: &[&str]) -> (FlowKey, [FlowKey; 2], String) {
        let directors = [self.members[ONE].next_hop(0), self.members[TWO].next_hop(0)];
        let client = self.members[ONE].client(0);
        let path = self.path_of(ONE, client, directors[ONE], more);
        (client, directors, path)
    }
}

fn towards_client(method: &str, route: &str, more: &[&str]) -> String {
    let route = format!("Route: {route}");
    let mut lines = vec![
        route.as_str(),
        "Via: SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir",
        "Contact: <sip:alice@10.1.0.10:5061;transport=tls>",
    ];
    lines.extend(more);
    request(
        method,
        "sip:bob@10.2.0.10:5061;transport=tls",
        "alice@contoso.test",
        "bob@contoso.test",
        &lines,
    )
}

const OUTBOUND: &[&str] = &["Supported: path, outbound"];

#[test]
fn a_call_reaches_a_client_of_another_member_and_its_answers_come_back() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(&[]);
    assert!(
        path.ends_with("@edge.contoso.internal:5061;transport=tls;lr>"),
        "any member will do: {path}"
    );

    pair.receive(TWO, directors[TWO], towards_client("INVITE", &path, &[]));
    let outside = pair.members[ONE].sent(client).expect("over the link");
    assert_eq!(values(&outside, "Via").len(), 2, "one Via for both members");
    assert!(values(&outside, "Route").is_empty());

    for answer in ["180 Ringing", "200 OK"] {
        let contact = &["Contact: <sip:bob@10.2.0.10:5061>;proxy=replace"];
        pair.receive(ONE, client, response(&outside, answer, contact));
        let back = pair.members[TWO].sent(directors[TWO]).expect("came back");
        assert!(back.starts_with(&format!("SIP/2.0 {answer}")), "{back}");
        assert_eq!(
            values(&back, "Via"),
            ["SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir"]
        );
        assert_eq!(values(&back, "ms-edge-proxy-message-trust").len(), 1);
    }
    assert_eq!(pair.members[ONE].sent(directors[ONE]), None);

    // The caller's route set is the Record-Route turned round; the BYE may come by either member.
    let mut routes = values(&outside, "Record-Route");
    routes.reverse();
    let dialog = ["To: <sip:bob@contoso.test>;tag=t1"];
    for at in [ONE, TWO] {
        let bye = towards_client("BYE", &routes.join(", "), &dialog);
        pair.receive(at, directors[at], bye);
        let outside = pair.members[ONE].sent(client).expect("the client has it");
        assert!(outside.starts_with("BYE "), "{outside}");
        pair.receive(ONE, client, response(&outside, "200 OK", &[]));
        let back = pair.members[at].sent(directors[at]);
        assert_eq!(status(back), "200 OK");
    }
}

#[test]
fn a_client_sends_by_a_member_that_did_not_see_its_dialog() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(&[]);
    pair.receive(TWO, directors[TWO], towards_client("INVITE", &path, &[]));
    let outside = pair.members[ONE].sent(client).expect("over the link");
    let routes = values(&outside, "Record-Route").join(", ");
    // Its own member has ended since, and the balancer took it to the other.
    let again = pair.members[TWO].promoted(1);
    let bye = request(
        "BYE",
        "sip:alice@10.1.0.10:5061",
        "bob@contoso.test",
        "alice@contoso.test",
        &[
            &format!("Route: {routes}"),
            "To: <sip:alice@contoso.test>;tag=f1",
        ],
    );
    let inside = pair.members[TWO].next_hop(1);
    pair.receive(TWO, again, bye);
    let bye = pair.members[TWO].sent(inside).expect("goes inside");
    assert!(
        values(&bye, "Route").is_empty(),
        "both our members are gone"
    );
}

#[test]
fn a_client_of_a_dead_member_is_told_to_those_who_understand_430_and_to_those_who_do_not() {
    for (more, answer) in [
        (OUTBOUND, "430 Flow Failed"),
        (&[][..], "480 Temporarily Unavailable"),
    ] {
        let mut pair = Pair::new();
        let (_, directors, path) = pair.with_client(more);
        pair.link = Link::Cut(Unlinked::Down);
        let message = towards_client("MESSAGE", &path, &[]);
        pair.receive(TWO, directors[TWO], message);
        let refused = pair.members[TWO].sent(directors[TWO]).expect("at once");
        assert!(
            refused.starts_with(&format!("SIP/2.0 {answer}")),
            "{refused}"
        );
        let diagnostics = values(&refused, "ms-diagnostics")[0];
        let number = if more.is_empty() { "1006;" } else { "1004;" };
        assert!(diagnostics.starts_with(number), "{diagnostics}");
    }
}

#[test]
fn a_connection_that_is_gone_at_its_member_is_told_over_the_link() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(OUTBOUND);
    pair.members[ONE].cores[0].handle_closed(client);
    pair.receive(TWO, directors[TWO], towards_client("MESSAGE", &path, &[]));
    assert_eq!(
        status(pair.members[TWO].sent(directors[TWO])),
        "430 Flow Failed"
    );
    assert_eq!(pair.carried, 2, "there and back, and no further");
    // Nothing answers an ACK.
    pair.receive(TWO, directors[TWO], towards_client("ACK", &path, &[]));
    assert_eq!(pair.members[TWO].sent(directors[TWO]), None);
}

#[test]
fn a_member_that_was_started_again_has_none_of_its_old_connections() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(&[]);
    let (one, two) = ("edge1.contoso.internal", "edge2.contoso.internal");
    pair.members[ONE] = World::with(Settings {
        epoch: 8,
        ..member(3, one, (4, two))
    });
    pair.members[ONE].next_hop(0);
    let again = pair.members[ONE].client(0);
    assert_eq!(client, again, "the same place in the table");
    pair.receive(TWO, directors[TWO], towards_client("MESSAGE", &path, &[]));
    assert_eq!(pair.members[ONE].sent(again), None);
    assert_eq!(
        status(pair.members[TWO].sent(directors[TWO])),
        "480 Temporarily Unavailable"
    );
}

#[test]
fn a_full_link_refuses_requests_and_drops_responses_and_both_are_counted() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(&[]);
    pair.receive(TWO, directors[TWO], towards_client("INVITE", &path, &[]));
    let outside = pair.members[ONE].sent(client).expect("over the link");
    pair.link = Link::Cut(Unlinked::Full);
    pair.receive(ONE, client, response(&outside, "200 OK", &[]));
    let full = Event::Dropped(Drop::ResponseLinkFull);
    assert!(pair.members[ONE].events.contains(&full));
    pair.receive(TWO, directors[TWO], towards_client("MESSAGE", &path, &[]));
    assert_eq!(
        status(pair.members[TWO].sent(directors[TWO])),
        "503 Service Unavailable"
    );
    let refused = Event::Answered(Realm::Inside, Refusal::Overload);
    assert!(pair.members[TWO].events.contains(&refused));
}

#[test]
fn what_a_link_loses_costs_its_own_transaction_and_nothing_else() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(&[]);
    pair.link = Link::Lossy;
    pair.receive(TWO, directors[TWO], towards_client("MESSAGE", &path, &[]));
    assert_eq!(pair.members[ONE].sent(client), None);
    pair.link = Link::Up;
    let next = ["CSeq: 2 MESSAGE", "Call-ID: c2"];
    pair.receive(TWO, directors[TWO], towards_client("MESSAGE", &path, &next));
    let outside = pair.members[ONE]
        .sent(client)
        .expect("the next one arrives");
    pair.receive(ONE, client, response(&outside, "200 OK", &[]));
    assert_eq!(status(pair.members[TWO].sent(directors[TWO])), "200 OK");
}

#[test]
fn what_came_over_a_link_goes_to_no_member_again() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(&[]);
    pair.receive(TWO, directors[TWO], towards_client("INVITE", &path, &[]));
    let outside = pair.members[ONE].sent(client).expect("over the link");
    let own = response(&outside, "200 OK", &[]);
    let linked = crate::proxy::Linked {
        to: crate::proxy::token::FlowRef {
            node: 4,
            epoch: 7,
            key: client,
        },
        kind: LinkedKind::Response,
        bytes: own.into_bytes(),
    };
    let mut foreign = linked.clone();
    // The Via on top is the second member's: the first has no business with it.
    foreign.to.node = 3;
    let one = &mut pair.members[ONE];
    one.cores[0].handle_linked(one.now, foreign);
    one.drain();
    assert!(one.linked.is_empty(), "{:?}", one.linked);
    let unknown = Event::Dropped(Drop::ResponseUnknown);
    assert!(one.events.contains(&unknown));
    // A request for a connection that is another member's is refused, not sent on.
    let request = crate::proxy::Linked {
        kind: LinkedKind::Request { outbound: false },
        bytes: outside.into_bytes(),
        to: crate::proxy::token::FlowRef {
            node: 3,
            ..linked.to
        },
    };
    let two = &mut pair.members[TWO];
    two.cores[0].handle_linked(two.now, request);
    two.drain();
    assert!(two.linked.is_empty(), "{:?}", two.linked);
    assert_eq!(
        status(two.sent(directors[TWO])),
        "480 Temporarily Unavailable"
    );
}

#[test]
fn the_client_of_another_member_cannot_answer_for_ours() {
    let mut pair = Pair::new();
    let (client, directors, path) = pair.with_client(&[]);
    // The same place in the other member's table.
    let stranger = pair.members[TWO].client(0);
    assert_eq!(
        client,
        FlowKey {
            slot: client.slot,
            ..stranger
        }
    );
    pair.receive(TWO, directors[TWO], towards_client("INVITE", &path, &[]));
    let outside = pair.members[ONE].sent(client).expect("over the link");
    pair.receive(TWO, stranger, response(&outside, "200 OK", &[]));
    let theft = Event::Dropped(Drop::ResponseNotFromPeer);
    assert!(pair.members[TWO].events.contains(&theft));
    assert_eq!(pair.members[TWO].sent(directors[TWO]), None);
}

#[test]
fn a_partners_dialog_goes_on_by_any_member() {
    let mut pair = Pair::new();
    let directors = [pair.members[ONE].next_hop(0), pair.members[TWO].next_hop(0)];
    let partner = pair.members[ONE].partner(0, "sip.fabrikam.test", None);
    let invite = request(
        "INVITE",
        "sip:bob@contoso.test",
        "carol@fabrikam.test",
        "bob@contoso.test",
        &["Contact: <sip:carol@203.0.113.50:5061>"],
    );
    pair.receive(ONE, partner, invite);
    let inside = pair.members[ONE].sent(directors[ONE]).expect("forwarded");
    let routes = values(&inside, "Record-Route");
    assert!(
        routes[0].contains("@edge.contoso.internal:5061;"),
        "a name that outlives the member: {routes:?}"
    );
    // The first member is gone. The Director's BYE comes to the second, which knows the partner by its token …
    let bye = request(
        "BYE",
        "sip:carol@203.0.113.50:5061",
        "bob@contoso.test",
        "carol@fabrikam.test",
        &[
            &format!("Route: {}", routes.join(", ")),
            "To: <sip:carol@fabrikam.test>;tag=f1",
            "Via: SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir",
        ],
    );
    pair.receive(TWO, directors[TWO], &bye);
    let dialled: Vec<_> = pair.members[TWO]
        .dialled
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(dialled, ["sip.fabrikam.test:5061"]);
    let again = pair.members[TWO].partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061"));
    let sent = pair.members[TWO].sent(again).expect("to the partner");
    assert!(sent.starts_with("BYE "), "{sent}");
    // … and what the partner sends within the dialog comes inside by it as well.
    let incoming = pair.members[TWO].partner(0, "sip.fabrikam.test", None);
    let mut turned = routes.clone();
    turned.reverse();
    let info = request(
        "INFO",
        "sip:bob@10.10.0.77:5061",
        "carol@fabrikam.test",
        "bob@contoso.test",
        &[
            &format!("Route: {}", turned.join(", ")),
            "To: <sip:bob@contoso.test>;tag=t1",
        ],
    );
    pair.receive(TWO, incoming, info);
    let inside = pair.members[TWO].sent(directors[TWO]).expect("goes inside");
    assert!(inside.starts_with("INFO "), "{inside}");
}

#[test]
fn a_member_that_drains_closes_quiet_clients_at_their_keep_alive_and_serves_the_others() {
    let mut pair = Pair::new();
    let world = &mut pair.members[ONE];
    let director = world.next_hop(0);
    let [quiet, second, busy] = [world.promoted(0), world.promoted(0), world.promoted(0)];
    world.wait(Duration::from_secs(60));
    let message = request(
        "MESSAGE",
        "sip:alice@contoso.test",
        "bob@contoso.test",
        "alice@contoso.test",
        &[],
    );
    world.cores[0].handle_drain(world.now);
    world.receive(busy, message);
    assert!(world.sent(director).is_some(), "what is new still goes on");
    for client in [busy, quiet, second] {
        world.cores[0].handle_ping(world.now, client);
    }
    world.drain();
    let drained = |flow| (flow, CloseReason::Drained);
    assert_eq!(
        world.closed,
        [drained(quiet)],
        "one at once, half a second later more"
    );
    assert_eq!(world.sent(quiet).as_deref(), Some("\r\n"));
    world.wait(Duration::from_secs(40));
    for client in [busy, second] {
        world.cores[0].handle_ping(world.now, client);
    }
    world.drain();
    assert_eq!(world.closed.len(), 3);
}

#[test]
fn a_member_that_drains_lets_browsers_go_at_their_pong_and_silent_partners_after_a_minute() {
    let mut pair = Pair::new();
    let world = &mut pair.members[ONE];
    let director = world.next_hop(0);
    let browser = world.promoted(0);
    world.wait(Duration::from_secs(40));
    let silent = [
        world.partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061")),
        world.partner(0, "sip.northwind.test", Some("sip.northwind.test:5061")),
    ];
    world.cores[0].handle_drain(world.now);
    world.cores[0].handle_pong(world.now, browser);
    world.drain();
    assert_eq!(world.closed, [(browser, CloseReason::Drained)]);
    // Nothing comes from them, and only a fraction of them goes each second.
    world.wait(Duration::from_secs(59));
    assert_eq!(world.closed.len(), 1);
    world.wait(Duration::from_secs(60));
    let closed: Vec<_> = world.closed.iter().map(|(flow, _)| *flow).collect();
    assert!(silent.iter().all(|flow| closed.contains(flow)));
    assert!(!closed.contains(&director), "servers inside stay");
}

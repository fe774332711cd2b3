//! What servers inside write into Via and Record-Route: a partner carries it and cannot read it.

use edge_common::config::HideTopology;
use edge_common::sip::header::Name;
use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;
use proptest::prelude::*;

use super::world::{World, name, request, response, settings, status, values};
use crate::proxy::Event;
use crate::proxy::hiding::{PARAM, SEALED_MAX, Step};
use crate::proxy::refusal::{Drop, Refusal};
use crate::proxy::settings::Settings;
use crate::proxy::token::{FlowKey, Realm};

/// One member of the array with its connections.
struct Member {
    world: World,
    /// Requests come and go here, on the core of the partner's connection.
    director: FlowKey,
    /// The same server's connection to the other core.
    other: FlowKey,
    /// The partner's connection, opened by us.
    partner: FlowKey,
}

/// Members of a stack, and which of them stand on the line of the one before.
type Stack = Vec<(String, bool)>;

fn discovering(node: u8) -> Settings {
    let mut settings = settings();
    settings.node = node;
    let member = |node: u8| name(&format!("edge{node}.contoso.internal"));
    settings.member = member(node);
    settings.other_members = vec![(3 - node, member(3 - node))];
    settings.federation.discovery = true;
    settings
}

impl Member {
    fn new(settings: Settings) -> Self {
        let mut world = World::with(settings);
        world.dns.insert("new.test", "sip.new.test:5061");
        let (director, other) = (world.next_hop(0), world.inside(1));
        let partner = world.partner(0, "sip.new.test", Some("sip.new.test:5061"));
        Self {
            world,
            director,
            other,
            partner,
        }
    }

    fn out(&mut self, message: &str) -> String {
        self.world.receive(self.director, message);
        self.sent_outside()
    }

    fn sent_outside(&mut self) -> String {
        self.world.sent(self.partner).expect("sent to the partner")
    }

    fn inwards(&mut self, message: &str) -> String {
        self.world.receive(self.partner, message);
        self.world.sent(self.director).expect("sent inside")
    }
}

/// Both members of an array, with a link between them.
struct Pair([Member; 2]);

impl Pair {
    fn new() -> Self {
        Self([1, 2].map(|node| Member::new(discovering(node))))
    }

    fn receive(&mut self, at: usize, on: FlowKey, message: &str) {
        self.0[at].world.receive(on, message);
        for (from, to) in [(at, 1 - at), (1 - at, at)] {
            for linked in std::mem::take(&mut self.0[from].world.linked) {
                let world = &mut self.0[to].world;
                let core = usize::from(linked.to.key.core) % 2;
                world.cores[core].handle_linked(world.now, linked);
                world.drain();
            }
        }
    }

    /// From inside to the partner, over one member.
    fn out(&mut self, at: usize, message: &str) -> String {
        self.receive(at, self.0[at].director, message);
        self.0[at].sent_outside()
    }

    /// From the partner to the inside, over one member.
    fn inwards(&mut self, at: usize, message: &str) -> String {
        self.receive(at, self.0[at].partner, message);
        self.sent_inside(at)
    }

    fn sent_inside(&mut self, at: usize) -> String {
        let member = &mut self.0[at];
        member.world.sent(member.director).expect("sent inside")
    }

    /// The answer of the inside to a request that came over `at`; it comes back over `by`.
    fn answered(&mut self, at: usize, (by, on): (usize, FlowKey), answer: &str) -> String {
        self.receive(by, on, answer);
        self.0[at].sent_outside()
    }
}

fn lines(name: &str, stack: &Stack) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (text, joined) in stack {
        match lines.last_mut() {
            Some(line) if *joined => *line += &format!(" ,{text}"),
            _ => lines.push(format!("{name}: {text}")),
        }
    }
    lines
}

fn list(message: &str, name: Name) -> Vec<String> {
    let mut index = Index::new(500);
    let message = Message::parse(message.as_bytes(), &mut index).expect("lawful");
    message
        .list(name)
        .map(|member| String::from_utf8_lossy(member.text()).into_owned())
        .collect()
}

fn texts(stack: &Stack) -> Vec<String> {
    stack.iter().map(|(text, _)| text.clone()).collect()
}

/// A request in a dialog of bob, who is ours, with carol, who is theirs.
fn in_dialog(method: &str, cseq: u32, from_us: bool, more: &[String]) -> String {
    let (us, them) = ("<sip:bob@contoso.test>", "<sip:carol@new.test>");
    let tags = |party: &str, tag| format!("{party};tag={tag}");
    let (from, to) = if from_us {
        (tags(us, "b"), tags(them, "c"))
    } else {
        (tags(them, "c"), tags(us, "b"))
    };
    let mut all = vec![
        format!("From: {from}"),
        format!("To: {to}"),
        format!("CSeq: {cseq} {method}"),
    ];
    all.extend_from_slice(more);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    request(method, "sip:x@192.0.2.77:5061", "", "", &all)
}

/// The first request of such a dialog.
fn initial(from_us: bool, more: &[String]) -> String {
    let (us, them) = ("bob@contoso.test", "carol@new.test");
    let (from, to) = if from_us { (us, them) } else { (them, us) };
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    request("INVITE", &format!("sip:{to}"), from, to, &more)
}

/// The answer to a request, whose servers on the way had put `routes` on top of its route.
fn answer(request: &str, routes: &[String]) -> String {
    let text = response(request, "200 OK", &[]);
    let on_top: String = routes.iter().map(|route| format!("{route}\r\n")).collect();
    text.replacen("\r\n", &format!("\r\n{on_top}"), 1)
}

fn route(members: impl IntoIterator<Item = String>) -> Vec<String> {
    let members: Vec<String> = members.into_iter().collect();
    if members.is_empty() {
        return Vec::new();
    }
    vec![format!("Route: {}", members.join(", "))]
}

fn assert_nothing_inside(message: &str) {
    for word in ["inside", "internal", "in, side", "in,si", "10.9.8.", "fd00"] {
        assert!(!message.contains(word), "{word} in {message}");
    }
}

fn vias() -> impl Strategy<Value = Stack> {
    let via = (0..4, any::<u8>()).prop_map(|(form, n)| match form {
        0 => format!("SIP/2.0/TLS s{n}.inside.internal:5061;branch=z9hG4bK{n:x}"),
        1 => format!("SIP/2.0/tcp 10.9.8.{n};received=10.9.8.1"),
        2 => format!("SIP / 2.0/TLS [fd00::{n}]:5061 ;branch=z9hG4bK2{n};x=\"in,si;de\""),
        _ => format!("SIP/2.0/TLS inside{n};branch=z9hG4bKc;{PARAM}=AAAA"),
    });
    proptest::collection::vec((via, any::<bool>()), 1..6)
}

fn routes(theirs: bool) -> impl Strategy<Value = Stack> {
    let route = (0..4, any::<u8>()).prop_map(move |(form, n)| match form {
        _ if theirs => format!("<sip:p{n}.new.test;transport=tls;lr>;hop={form}"),
        0 => format!("<sip:s{n}.inside.internal:5061;transport=tls;lr>"),
        1 => format!("<sip:u{n}@10.9.8.{n};lr;ms-opaque=inside>;x=1"),
        2 => format!("\"in, side\" <sip:inside{n};lr>"),
        _ => format!("<sips:[fd00::{n}]:5061;lr;{PARAM}=AAAA>"),
    });
    proptest::collection::vec((route, any::<bool>()), 0..5)
}

/// Both, as an INVITE has them.
fn stacks(vias: &Stack, routes: &Stack) -> Vec<String> {
    [lines("Via", vias), lines("Record-Route", routes)].concat()
}

/// What the partner's servers may make of ours.
fn ours_outside(message: &str) -> Vec<String> {
    let routes = list(message, Name::RecordRoute);
    let ours = |text: &String| text.contains("@sip.contoso.test:5061;transport=tls;lr");
    routes.into_iter().filter(ours).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_dialog_that_we_start_is_whole_inside_and_shows_nothing_outside(
        first in (vias(), routes(false)),
        again in (vias(), routes(false)),
        late in vias(),
        theirs in routes(true),
        // The member that each message comes to.
        by in proptest::array::uniform8(0..2usize),
    ) {
        let mut pair = Pair::new();
        let outside = pair.out(0, &initial(true, &stacks(&first.0, &first.1)));
        assert_nothing_inside(&outside);
        prop_assert_eq!(list(&outside, Name::Via).len(), 1);
        let hidden = list(&outside, Name::RecordRoute);
        prop_assert_eq!(hidden.len(), 1);
        prop_assert!(hidden[0].ends_with('>') && hidden[0].contains(";lr;hidden="), "{}", hidden[0]);
        prop_assert!(!hidden[0].contains([',', '"']));

        let theirs_on_top = lines("Record-Route", &theirs);
        pair.receive(by[0], pair.0[by[0]].partner, &answer(&outside, &theirs_on_top));
        let back = pair.sent_inside(0);
        prop_assert_eq!(list(&back, Name::Via), texts(&first.0));
        let all = list(&back, Name::RecordRoute);
        let (before, rest) = all.split_at(theirs.len());
        prop_assert_eq!(before, texts(&theirs));
        prop_assert!(rest[0].ends_with("@sip.contoso.test:5061;transport=tls;lr>"), "{}", rest[0]);
        prop_assert!(rest[1].ends_with("@edge.contoso.internal:5061;transport=tls;lr>"), "{}", rest[1]);
        prop_assert_eq!(&rest[2..], texts(&first.1));

        // From inside: its servers have taken theirs off the route.
        let remaining: Vec<String> = before.iter().rev().cloned().collect();
        let way_out = route([rest[1].clone(), rest[0].clone()].into_iter().chain(remaining.clone()));
        let ack = [way_out.clone(), lines("Via", &late)].concat();
        let outside = pair.out(by[1], &in_dialog("ACK", 1, true, &ack));
        assert_nothing_inside(&outside);
        prop_assert_eq!(list(&outside, Name::Route), remaining.clone());
        let more = [way_out.clone(), stacks(&again.0, &again.1)].concat();
        let outside = pair.out(by[2], &in_dialog("INVITE", 2, true, &more));
        assert_nothing_inside(&outside);
        pair.receive(by[3], pair.0[by[3]].partner, &answer(&outside, &theirs_on_top));
        let back = pair.sent_inside(by[2]);
        prop_assert_eq!(list(&back, Name::Via), texts(&again.0));
        prop_assert_eq!(&list(&back, Name::RecordRoute)[theirs.len() + 2..], texts(&again.1));

        // From outside: what is hidden leads through the servers inside.
        let (at, inside_by) = (by[4], by[5]);
        let more = [route(hidden.clone()), theirs_on_top].concat();
        let inside = pair.inwards(at, &in_dialog("INVITE", 7, false, &more));
        prop_assert_eq!(list(&inside, Name::Route), texts(&first.1));
        prop_assert_eq!(&list(&inside, Name::RecordRoute)[2..], texts(&theirs));
        let ok = answer(&inside, &lines("Record-Route", &again.1));
        let back = pair.answered(at, (inside_by, pair.0[inside_by].director), &ok);
        assert_nothing_inside(&back);
        prop_assert_eq!(&list(&back, Name::RecordRoute)[1..], texts(&theirs));
        let inside = pair.inwards(by[6], &in_dialog("ACK", 7, false, &route(hidden.clone())));
        prop_assert_eq!(list(&inside, Name::Route), texts(&first.1));
        let inside = pair.inwards(by[7], &in_dialog("BYE", 8, false, &route(hidden)));
        prop_assert_eq!(list(&inside, Name::Route), texts(&first.1));
        let ok = response(&inside, "200 OK", &[]);
        assert_nothing_inside(&pair.answered(by[7], (by[0], pair.0[by[0]].director), &ok));
    }

    #[test]
    fn a_dialog_that_a_partner_starts_shows_it_nothing_inside(
        inner in routes(false),
        late in (vias(), vias()),
        theirs in routes(true),
        by_other_core in any::<bool>(),
        by in proptest::array::uniform8(0..2usize),
    ) {
        let mut pair = Pair::new();
        let inside = pair.inwards(0, &initial(false, &lines("Record-Route", &theirs)));
        let ok = answer(&inside, &lines("Record-Route", &inner));
        let all = list(&ok, Name::RecordRoute);
        let member = &pair.0[by[0]];
        let on = if by_other_core { member.other } else { member.director };
        let outside = pair.answered(0, (by[0], on), &ok);
        assert_nothing_inside(&outside);
        let seen = list(&outside, Name::RecordRoute);
        prop_assert_eq!(&seen[1..], texts(&theirs));
        prop_assert_eq!(ours_outside(&outside).len(), 1);

        // Each server on the way takes off its own; ours is what is left, and leads on inside.
        let way_in = texts(&inner).into_iter().rev().collect::<Vec<_>>();
        for (method, cseq, at) in [("ACK", 1, by[1]), ("INVITE", 2, by[2]), ("ACK", 2, by[3])] {
            let inside = pair.inwards(at, &in_dialog(method, cseq, false, &route([seen[0].clone()])));
            prop_assert_eq!(list(&inside, Name::Route), way_in.clone(), "{}", method);
        }

        // From inside the route is what it would be without hiding.
        let way_out = route(all[inner.len()..].to_vec());
        for (method, cseq, vias, to, back_by) in [("INVITE", 4, &late.0, by[4], by[5]), ("BYE", 5, &late.1, by[6], by[7])] {
            let more = [way_out.clone(), stacks(vias, &inner)].concat();
            let outside = pair.out(to, &in_dialog(method, cseq, true, &more));
            assert_nothing_inside(&outside);
            prop_assert_eq!(list(&outside, Name::Route), texts(&theirs));
            pair.receive(back_by, pair.0[back_by].partner, &response(&outside, "200 OK", &[]));
            prop_assert_eq!(list(&pair.sent_inside(to), Name::Via), texts(vias));
        }
        let bye = pair.inwards(by[1], &in_dialog("BYE", 6, false, &route([seen[0].clone()])));
        prop_assert_eq!(list(&bye, Name::Route), way_in);
    }
}

fn simple_stacks() -> Vec<String> {
    vec![
        "Via: SIP/2.0/TLS pool.inside.internal;branch=z9hG4bKp".to_owned(),
        "Record-Route: <sip:pool.inside.internal;lr>".to_owned(),
    ]
}

/// The text with one character of what is hidden behind `at` changed.
fn tampered(text: &str, behind: &str) -> String {
    let start = text.find(behind).expect("there") + behind.len();
    let start = start + text[start..].find(";hidden=").expect("hidden") + ";hidden=".len() + 30;
    let other = if text.as_bytes()[start] == b'A' {
        "B"
    } else {
        "A"
    };
    format!("{}{other}{}", &text[..start], &text[start + 1..])
}

#[test]
fn what_is_altered_or_of_another_message_is_refused_and_counted() {
    let mut member = Member::new(discovering(1));
    let outside = member.out(&initial(true, &simple_stacks()));
    let ok = response(&outside, "200 OK", &[]);
    for spoilt in [tampered(&ok, "Via: "), tampered(&ok, "Record-Route: ")] {
        member.world.receive(member.partner, &spoilt);
        assert_eq!(member.world.sent(member.director), None, "{spoilt}");
        assert_eq!(
            member.world.events.last(),
            Some(&Event::Dropped(Drop::HiddenInvalid))
        );
    }
    // What was sealed for another call opens nothing here.
    let other = initial(true, &simple_stacks()).replace("Call-ID: c1", "Call-ID: c2");
    let other = member.out(&other);
    let of = |message: &str| list(message, Name::RecordRoute)[0].clone();
    let hidden = |route: &str| {
        let at = route.find(";hidden=").expect("hidden");
        (route[..at].to_owned(), route[at..].to_owned())
    };
    let mixed = hidden(&of(&outside)).0 + &hidden(&of(&other)).1;
    for wrong in [mixed, tampered(&of(&outside), "")] {
        member
            .world
            .receive(member.partner, in_dialog("BYE", 9, false, &route([wrong])));
        assert_eq!(
            status(member.world.sent(member.partner)),
            "481 Call/Transaction Does Not Exist"
        );
        let refused = Event::Answered(Realm::Partner, Refusal::HiddenInvalid);
        assert!(member.world.events.contains(&refused));
        assert_eq!(member.world.sent(member.director), None);
    }
    let back = member.inwards(&ok);
    assert!(values(&back, "Via")[0].starts_with("SIP/2.0/TLS pool.inside.internal"));
    let steps = [Step::Sealed, Step::Restored].map(Event::Topology);
    assert!(steps.iter().all(|step| member.world.events.contains(step)));
}

#[test]
fn a_stack_that_is_too_long_to_be_hidden_does_not_leave() {
    let mut member = Member::new(discovering(1));
    let long = |hops: usize| -> Vec<String> {
        (0..hops)
            .map(|n| format!("Via: SIP/2.0/TLS s{n:03}.inside.internal:5061;branch=z9hG4bK{n:090}"))
            .collect()
    };
    let outside = member.out(&initial(true, &long(21)));
    let via = &values(&outside, "Via")[0];
    let sealed = via.split(";hidden=").nth(1).expect("hidden").len();
    assert!((3500..=SEALED_MAX).contains(&sealed), "{sealed}");
    member.world.receive(
        member.director,
        initial(true, &long(25)).replace("Call-ID: c1", "Call-ID: c2"),
    );
    assert_eq!(
        status(member.world.sent(member.director)),
        "513 Message Too Large"
    );
    assert_eq!(member.world.sent(member.partner), None);

    let inside = member.inwards(&initial(false, &[]));
    let long: Vec<String> = (0..60)
        .map(|n| format!("Record-Route: <sip:s{n:045}.inside.internal;lr>"))
        .collect();
    member
        .world
        .receive(member.director, answer(&inside, &long));
    assert_eq!(member.world.sent(member.partner), None);
    let dropped = Event::Dropped(Drop::HiddenTooLong);
    assert!(member.world.events.contains(&dropped));
}

#[test]
fn who_is_listed_sees_the_stacks_as_they_are_unless_configured_otherwise() {
    let mut settings = discovering(1);
    settings.federation.partners = vec![
        (name("new.test"), Some(name("sip.new.test"))),
        (name("fabrikam.test"), None),
    ];
    let mut member = Member::new(settings.clone());
    let outside = member.out(&initial(true, &simple_stacks()));
    assert_eq!(
        values(&outside, "Via")[1],
        "SIP/2.0/TLS pool.inside.internal;branch=z9hG4bKp"
    );
    let routes = values(&outside, "Record-Route");
    assert_eq!(routes.len(), 3);
    assert!(!outside.contains(PARAM));
    let inside = member.inwards(&initial(false, &[]));
    let ok = answer(&inside, &simple_stacks()[1..]);
    member.world.receive(member.director, &ok);
    let back = member.sent_outside();
    assert_eq!(values(&back, "Record-Route"), values(&ok, "Record-Route"));

    // A dialog that began in the open goes on under the new rule.
    settings.federation.hide_topology = HideTopology {
        direct: true,
        ..HideTopology::default()
    };
    member.world.settings(settings);
    let mut more = route([routes[1].to_owned(), routes[0].to_owned()]);
    more.extend(simple_stacks());
    let outside = member.out(&in_dialog("INVITE", 2, true, &more));
    assert_nothing_inside(&outside);
    let back = member.inwards(&response(&outside, "200 OK", &[]));
    assert_eq!(values(&back, "Via").len(), 1);
    assert!(values(&back, "Via")[0].contains("pool.inside"));
}

#[test]
fn each_kind_of_partner_has_its_own_key() {
    use crate::proxy::flow::PartnerKind as K;
    let mut rules = settings().federation;
    rules.partners = vec![(name("listed.test"), None)];
    let hidden = |rules: &_, kind: K| kind.is_hidden_from(rules, Some("listed.test"));
    let kinds = [K::Direct, K::Automatic, K::HostingProvider, K::Discovered];
    assert_eq!(
        kinds.map(|kind| hidden(&rules, kind)),
        [false, false, false, true]
    );
    assert!(K::Automatic.is_hidden_from(&rules, Some("other.test")));
    for at in 0..kinds.len() {
        rules.hide_topology = HideTopology {
            direct: at == 0,
            allowed: at == 1,
            providers: at == 2,
            discovered: at == 3,
        };
        let only = kinds.map(|kind| hidden(&rules, kind));
        assert_eq!(only, [at == 0, at == 1, at == 2, at == 3]);
    }
}

#[test]
fn the_edges_own_answer_to_a_hidden_request_finds_its_way() {
    let mut member = Member::new(discovering(1));
    let outside = member.out(&initial(true, &simple_stacks()));
    let core = usize::from(member.partner.core);
    // The connection turns out to be too slow for it.
    let now = member.world.now;
    member.world.cores[core].handle_too_long(now, outside.as_bytes());
    member.world.drain();
    let answer = member.world.sent(member.director).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 513 "), "{answer}");
    assert_eq!(
        values(&answer, "Via"),
        ["SIP/2.0/TLS pool.inside.internal;branch=z9hG4bKp"]
    );
}

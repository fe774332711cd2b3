//! Other organisations: who is believed, who is reached, and what they may see.

use std::time::Duration;

use edge_common::config::{DefaultRoute, Flatten, Provider, Verification};

use super::world::{World, name, request, response, settings, status, values};
use crate::proxy::Event;
use crate::proxy::refusal::{Drop, Refusal};
use crate::proxy::settings::{FederationRules, Settings};
use crate::proxy::token::FlowKey;
use crate::proxy::watch::Decision;

fn from_partner(domain: &str, more: &[&str]) -> String {
    request(
        "INVITE",
        "sip:bob@contoso.test",
        &format!("carol@{domain}"),
        "bob@contoso.test",
        more,
    )
}

fn from_us(domain: &str) -> String {
    let to = format!("carol@{domain}");
    request(
        "MESSAGE",
        &format!("sip:{to}"),
        "bob@contoso.test",
        &to,
        &["ms-diagnostics: 1;source=\"inner\""],
    )
}

#[test]
fn a_partner_is_proven_once_and_its_dialog_runs_both_ways() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let partner = world.partner(1, "sip.fabrikam.test", None);
    world.next_hop(1);
    let next_hop = world.inside(1);
    world.cores[1].handle_next_hop(next_hop, 0);
    world.receive(
        partner,
        from_partner(
            "fabrikam.test",
            &["P-Asserted-Identity: <sip:ceo@contoso.test>"],
        ),
    );
    let inside = world.sent(next_hop).expect("forwarded");
    assert_eq!(
        values(&inside, "ms-edge-proxy-message-trust"),
        [
            "ms-source-type=AutoFederation;ms-ep-fqdn=edge.contoso.internal;ms-source-verified-user=unverified;\
         ms-source-network=federation;ms-remote-fqdn=sip.fabrikam.test"
        ]
    );
    assert!(values(&inside, "P-Asserted-Identity").is_empty());
    let routes = values(&inside, "Record-Route");
    assert!(
        routes[0].ends_with("@edge.contoso.internal:5061;transport=tls;lr>"),
        "{routes:?}"
    );
    assert!(
        routes[1].ends_with("@sip.contoso.test:5061;transport=tls;lr>"),
        "{routes:?}"
    );

    world.receive(
        next_hop,
        response(&inside, "200 OK", &["ms-diagnostics: 2;source=\"inner\""]),
    );
    let answer = world.sent(partner).expect("back to the partner");
    assert!(values(&answer, "ms-diagnostics").is_empty());

    // Inside the dialog: from the partner, whose route set is the reverse …
    let route = format!("Route: {}, {}", routes[1], routes[0]);
    let bye = request(
        "BYE",
        "sip:bob@10.2.0.10",
        "carol@fabrikam.test",
        "",
        &["To: <sip:bob@contoso.test>;tag=t1", &route],
    );
    world.receive(partner, bye);
    assert!(values(&world.sent(next_hop).expect("forwarded"), "Route").is_empty());
    assert_eq!(world.resolved, [name("fabrikam.test")], "DNS is asked once");

    // … and from inside, over a connection that we open to the proven edge.
    let route = format!(
        "Route: {}, {}, <sip:x@sip.fabrikam.test:5061;transport=tls;lr>",
        routes[0], routes[1]
    );
    let bye = request(
        "BYE",
        "sip:carol@172.16.0.9",
        "bob@contoso.test",
        "carol@fabrikam.test",
        &[&route],
    );
    world.receive(director, bye);
    assert_eq!(
        world.dialled,
        ["sip.fabrikam.test:5061".parse().expect("lawful")]
    );
    let ours = world.partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061"));
    let outside = world.sent(ours).expect("what waited for the connection");
    assert!(outside.starts_with("BYE sip:carol@172.16.0.9 "));
    assert_eq!(
        values(&outside, "Route"),
        ["<sip:x@sip.fabrikam.test:5061;transport=tls;lr>"]
    );
}

#[test]
fn whoever_does_not_prove_his_domain_is_refused_and_learns_nothing() {
    let mut world = World::new();
    world.dns.insert("liar.test", "sip.fabrikam.test:5061");
    let director = world.next_hop(0);
    let cases = [
        ("sip.fabrikam.test", "evil.test", "403 Forbidden"),
        ("sip.fabrikam.test", "northwind.test", "403 Forbidden"),
        ("sip.other.test", "fabrikam.test", "403 Forbidden"),
        ("sip.fabrikam.test", "contoso.test", "403 Forbidden"),
        ("sip.fabrikam.test", "anonymous.invalid", "403 Forbidden"),
        ("sip.fabrikam.test", "liar.test", "403 Forbidden"),
    ];
    for (certificate, domain, answer) in cases {
        let partner = world.partner(0, certificate, None);
        world.receive(partner, from_partner(domain, &[]));
        let sent = world.sent(partner).expect("an answer");
        assert!(
            sent.starts_with(&format!("SIP/2.0 {answer}\r\n")),
            "{certificate} as {domain}: {sent}"
        );
        let public = values(&sent, "ms-diagnostics-public");
        assert!(
            public[0].starts_with("1027;"),
            "all refusals look alike: {public:?}"
        );
    }
    assert_eq!(world.sent(director), None);
}

#[test]
fn a_listed_edge_needs_no_dns_and_is_called_direct() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let partner = world.partner(0, "edge.northwind.test", None);
    world.receive(partner, from_partner("northwind.test", &[]));
    let inside = world.sent(director).expect("forwarded");
    assert!(values(&inside, "ms-edge-proxy-message-trust")[0].contains("DirectPartner"));
    assert!(world.resolved.is_empty());
}

#[test]
fn discovery_lets_in_who_proves_himself() {
    let mut settings = settings();
    settings.federation.discovery = true;
    let mut world = World::with(settings);
    world.dns.insert("new.test", "sip.new.test:5061");
    let director = world.next_hop(0);
    let partner = world.partner(0, "sip.new.test", None);
    world.receive(partner, from_partner("new.test", &[]));
    assert!(world.sent(director).is_some());
    world.receive(partner, from_partner("evil.test", &[]));
    assert_eq!(
        status(world.sent(partner)),
        "403 Forbidden",
        "blocking wins over discovery"
    );
}

#[test]
fn a_partner_asks_only_for_us_and_only_by_methods_between_partners() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let partner = world.partner(0, "sip.fabrikam.test", None);
    for (method, uri, to) in [
        ("REGISTER", "sip:contoso.test", "bob@contoso.test"),
        ("SERVICE", "sip:mras@contoso.test", "mras@contoso.test"),
        ("MESSAGE", "sip:x@third.test", "x@third.test"),
        ("MESSAGE", "sip:x@contoso.test", "x@third.test"),
        ("MESSAGE", "sip:x@10.10.0.50", "x@contoso.test"),
    ] {
        world.receive(
            partner,
            request(method, uri, "carol@fabrikam.test", to, &[]),
        );
        assert_eq!(
            status(world.sent(partner)),
            "403 Forbidden",
            "{method} {uri}"
        );
    }
    assert_eq!(world.sent(director), None);
}

#[test]
fn a_message_for_another_domain_finds_its_edge_by_dns() {
    let mut world = World::new();
    let director = world.next_hop(0);
    world.receive(director, from_us("fabrikam.test"));
    world.receive(director, from_us("fabrikam.test"));
    assert_eq!(world.dialled.len(), 1, "one connection for all who wait");
    let ours = world.partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061"));
    let outside = world.sent(ours).expect("the first that waited");
    assert!(world.sent(ours).is_some(), "and the second");
    assert!(values(&outside, "Via")[0].starts_with("SIP/2.0/TLS sip.contoso.test:5061;branch="));
    assert!(values(&outside, "ms-diagnostics").is_empty());
    world.receive(ours, response(&outside, "200 OK", &[]));
    let back = world.sent(director).expect("the answer");
    assert!(back.starts_with("SIP/2.0 200 OK"));
    assert!(
        values(&back, "ms-edge-proxy-message-trust")[0]
            .contains("ms-remote-fqdn=sip.fabrikam.test")
    );
    world.receive(director, from_us("fabrikam.test"));
    assert!(world.sent(ours).is_some(), "the connection is used again");
    assert_eq!(world.dialled.len(), 1);
}

#[test]
fn what_cannot_be_reached_outside_is_said_with_its_reason() {
    let mut world = World::with(Settings {
        federation: FederationRules {
            discovery: true,
            ..settings().federation
        },
        ..settings()
    });
    world.dns.insert("conflict.test", "sip.elsewhere.test:5061");
    world.dns.insert("quiet.test", "silence");
    let director = world.next_hop(0);
    for (domain, answer, diagnostic) in [
        ("evil.test", "404 Not Found", "1005;"),
        ("conflict.test", "504 Server time-out", "1009;"),
        ("quiet.test", "504 Server time-out", "1008;"),
        ("nowhere.test", "504 Server time-out", "1008;"),
    ] {
        world.receive(director, from_us(domain));
        let sent = world.sent(director).expect("an answer");
        assert!(
            sent.starts_with(&format!("SIP/2.0 {answer}\r\n")),
            "{domain}: {sent}"
        );
        assert!(
            values(&sent, "ms-diagnostics")[0].starts_with(diagnostic),
            "{domain}: {sent}"
        );
    }
    world.receive(director, from_us("fabrikam.test"));
    world.dial_failed(0, "sip.fabrikam.test:5061", Refusal::PartnerUntrusted);
    let sent = world.sent(director).expect("an answer");
    assert!(
        values(&sent, "ms-diagnostics")[0].starts_with("1010;"),
        "{sent}"
    );
    world.receive(director, from_us("fabrikam.test"));
    assert_eq!(
        status(world.sent(director)),
        "504 Server time-out",
        "at once"
    );
    assert_eq!(world.dialled.len(), 1, "a host that failed is left alone");
    world.wait(Duration::from_secs(6));
    world.receive(director, from_us("fabrikam.test"));
    assert_eq!(world.dialled.len(), 2, "and then tried again");
}

#[test]
fn the_second_edge_of_a_domain_is_tried_when_the_first_is_not_there() {
    let mut world = World::new();
    world.dns.insert(
        "fabrikam.test",
        "sip1.fabrikam.test:5061 sip2.fabrikam.test:5061",
    );
    let director = world.next_hop(0);
    world.receive(director, from_us("fabrikam.test"));
    world.dial_failed(0, "sip1.fabrikam.test:5061", Refusal::PartnerUnreachable);
    assert_eq!(world.sent(director), None, "nobody is told yet");
    assert_eq!(
        world.dialled[1],
        "sip2.fabrikam.test:5061".parse().expect("lawful")
    );
    let second = world.partner(0, "sip2.fabrikam.test", Some("sip2.fabrikam.test:5061"));
    assert!(
        world
            .sent(second)
            .expect("forwarded")
            .starts_with("MESSAGE ")
    );
    world.cores[0].handle_closed(second);
    world.receive(director, from_us("fabrikam.test"));
    world.dial_failed(0, "sip2.fabrikam.test:5061", Refusal::PartnerTls);
    assert_eq!(
        status(world.sent(director)),
        "504 Server time-out",
        "and then there is none"
    );
}

#[test]
fn a_verdict_is_told_once_for_each_connection() {
    let mut world = World::new();
    world.next_hop(0);
    let partner = world.partner(0, "edge.northwind.test", None);
    for domain in [
        "northwind.test",
        "northwind.test",
        "evil.test",
        "evil.test",
        "fabrikam.test",
        "fabrikam.test",
    ] {
        world.receive(partner, from_partner(domain, &[]));
    }
    let verdicts = world.events.iter().filter_map(|event| match event {
        Event::Verdict {
            domain, outcome, ..
        } => Some((domain.as_str(), outcome.is_ok())),
        Event::Forwarded { .. }
        | Event::Answered(..)
        | Event::Dropped(_)
        | Event::Promoted(_)
        | Event::Stateless(_)
        | Event::FailedOver
        | Event::Topology(_)
        | Event::TimedOut => None,
    });
    assert_eq!(
        verdicts.collect::<Vec<_>>(),
        [
            ("northwind.test", true),
            ("evil.test", false),
            ("fabrikam.test", false)
        ]
    );
}

#[test]
fn only_so_many_messages_wait_for_one_edge() {
    let mut world = World::new();
    let director = world.next_hop(0);
    for _ in 0..3 {
        world.receive(director, from_us("fabrikam.test"));
    }
    assert_eq!(status(world.sent(director)), "503 Service Unavailable");
    assert!(world.events.contains(&Event::Answered(
        crate::proxy::token::Realm::Inside,
        Refusal::PartnerBusy
    )));
}

#[test]
fn nothing_waits_for_ever() {
    let mut world = World::new();
    let director = world.next_hop(0);
    world.receive(director, from_us("fabrikam.test"));
    world.wait(Duration::from_secs(14));
    assert_eq!(world.sent(director), None);
    world.wait(Duration::from_secs(2));
    assert_eq!(status(world.sent(director)), "504 Server time-out");
}

#[test]
fn long_messages_wait_only_up_to_a_sum_and_strangers_send_no_long_ones() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let body = "x".repeat(9 * 1024 * 1024);
    let long = from_us("fabrikam.test") + &body;
    world.receive(director, &long);
    assert_eq!(world.sent(director), None);
    world.receive(director, &long);
    assert_eq!(status(world.sent(director)), "503 Service Unavailable");
    world.dial_failed(0, "sip.fabrikam.test:5061", Refusal::PartnerTls);
    assert_eq!(status(world.sent(director)), "504 Server time-out");
    world.wait(Duration::from_secs(6));
    world.receive(director, &long);
    assert_eq!(world.sent(director), None, "what went gives its room back");

    let partner = world.partner(0, "sip.fabrikam.test", None);
    let limit = |world: &World| world.cores[0].frame_limits(partner).body;
    let stranger = limit(&world);
    world.receive(partner, from_partner("fabrikam.test", &[]));
    assert!(limit(&world) > stranger, "a proven partner is a server");
}

#[test]
fn federation_that_is_off_is_off_both_ways() {
    let mut settings = settings();
    settings.federation.enabled = false;
    let mut world = World::with(settings);
    let (director, partner) = (
        world.next_hop(0),
        world.partner(0, "sip.fabrikam.test", None),
    );
    world.receive(partner, from_partner("fabrikam.test", &[]));
    assert_eq!(status(world.sent(partner)), "403 Forbidden");
    world.receive(director, from_us("fabrikam.test"));
    assert_eq!(status(world.sent(director)), "403 Forbidden");
}

#[test]
fn a_partner_cannot_choose_a_server_inside() {
    let mut world = World::new();
    let (director, partner) = (
        world.next_hop(0),
        world.partner(0, "sip.fabrikam.test", None),
    );
    world.receive(
        partner,
        from_partner(
            "fabrikam.test",
            &["Route: <sip:sip.contoso.test;lr>, <sip:10.10.0.99;lr>"],
        ),
    );
    assert_eq!(
        status(world.sent(partner)),
        "481 Call/Transaction Does Not Exist"
    );
    assert_eq!(world.sent(director), None);
}

#[test]
fn a_partner_cannot_use_the_route_of_a_client_or_of_another_partner() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    world.receive(
        client,
        request(
            "REGISTER",
            "sip:contoso.test",
            "a@contoso.test",
            "a@contoso.test",
            &[],
        ),
    );
    let path = values(&world.sent(director).expect("forwarded"), "Path")[0].to_owned();
    let fabrikam = world.partner(0, "sip.fabrikam.test", None);
    world.receive(fabrikam, from_partner("fabrikam.test", &[]));
    let inside = world.sent(director).expect("forwarded");
    let theirs = values(&inside, "Record-Route")[1].to_owned();

    let northwind = world.partner(0, "edge.northwind.test", None);
    for (sender, domain, route) in [
        (fabrikam, "fabrikam.test", &path),
        (northwind, "northwind.test", &theirs),
    ] {
        world.receive(sender, from_partner(domain, &[&format!("Route: {route}")]));
        assert_eq!(
            status(world.sent(sender)),
            "481 Call/Transaction Does Not Exist"
        );
    }
    assert_eq!(world.sent(client), None);
    assert_eq!(world.sent(director), None);
}

#[test]
fn a_token_of_its_own_dialog_leads_a_partner_to_nobody_else() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let partner = world.partner(0, "sip.fabrikam.test", None);
    let invite = request(
        "INVITE",
        "sip:bob@contoso.test",
        "carol@fabrikam.test",
        "bob@contoso.test",
        &[],
    );
    world.receive(partner, invite);
    let inside = world.sent(director).expect("forwarded");
    let routes = values(&inside, "Record-Route").join(", ");
    let own = format!("Route: {routes}");
    let chosen = format!("Route: {routes}, <sip:10.10.0.99;lr>");
    let (plain, tagged) = ("To: <sip:x@third.test>", "To: <sip:x@third.test>;tag=t1");
    for (uri, to, call_id, route, answer) in [
        ("sip:x@third.test", plain, "c1", &own, "403 "),
        ("sip:x@10.10.0.99", plain, "c1", &own, "403 "),
        ("sip:x@third.test", tagged, "c2", &own, "481 "),
        ("sip:bob@contoso.test", plain, "c1", &chosen, "481 "),
    ] {
        let call_id = format!("Call-ID: {call_id}");
        let message = request(
            "MESSAGE",
            uri,
            "carol@fabrikam.test",
            "",
            &[to, &call_id, route],
        );
        world.receive(partner, message);
        let told = status(world.sent(partner));
        assert!(told.starts_with(answer), "{uri} {to} {call_id}: {told}");
    }
    assert_eq!(world.sent(director), None);
    // The same dialog goes on, and what the policy lets pass anyway passes.
    let ours = "To: <sip:bob@contoso.test>";
    for to in [format!("{ours};tag=t1"), ours.to_owned()] {
        let message = request(
            "MESSAGE",
            "sip:bob@contoso.test",
            "carol@fabrikam.test",
            "",
            &[&to, &own],
        );
        world.receive(partner, message);
        assert!(world.sent(director).is_some(), "{to}");
    }
}

/// A world in which anybody may prove himself, and `new.test` has.
fn discovered() -> (World, FlowKey, FlowKey) {
    let mut settings = settings();
    settings.federation.discovery = true;
    let mut world = World::with(settings);
    world.dns.insert("new.test", "sip.new.test:5061");
    let director = world.next_hop(0);
    let partner = world.partner(0, "sip.new.test", None);
    (world, director, partner)
}

fn to_user(user: usize, method: &str) -> String {
    let to = format!("user{user}@contoso.test");
    request(method, &format!("sip:{to}"), "carol@new.test", &to, &[])
}

#[test]
fn a_discovered_partner_over_its_rate_is_told_when_to_come_back() {
    let (mut world, director, partner) = discovered();
    for _ in 0..60 {
        world.receive(partner, to_user(1, "MESSAGE"));
    }
    let passed = std::iter::from_fn(|| world.sent(director)).count();
    assert_eq!(passed, 40, "the burst");
    for _ in 0..20 {
        let answer = world.sent(partner).expect("an answer");
        assert!(answer.starts_with("SIP/2.0 503 "), "{answer}");
        assert_eq!(values(&answer, "Retry-After").len(), 1);
        assert!(values(&answer, "ms-diagnostics-public")[0].starts_with("1007;"));
    }
    // What nothing answers is not answered.
    world.receive(partner, to_user(1, "BENOTIFY"));
    world.receive(partner, to_user(1, "ACK"));
    assert_eq!(world.sent(partner), None);
    world.wait(Duration::from_secs(1));
    for _ in 0..30 {
        world.receive(partner, to_user(1, "MESSAGE"));
    }
    let passed = std::iter::from_fn(|| world.sent(director)).count();
    assert_eq!(passed, 20, "a second's worth");
    // The same certificate on another connection of another core has no budget of its own.
    world.next_hop(1);
    let second = world.partner(1, "sip.new.test", None);
    world.receive(second, to_user(1, "MESSAGE"));
    assert_eq!(status(world.sent(second)), "503 Service Unavailable");
    // A listed partner has no limit.
    let listed = world.partner(0, "sip.fabrikam.test", None);
    for _ in 0..200 {
        world.receive(listed, from_partner("fabrikam.test", &[]));
    }
    assert_eq!(std::iter::from_fn(|| world.sent(director)).count(), 200);
}

#[test]
fn a_discovered_partner_that_tries_names_becomes_suspect_and_stops_at_a_thousand() {
    let (mut world, director, partner) = discovered();
    let mut user = 0;
    for _ in 0..4 {
        world.wait(Duration::from_secs(2));
        for _ in 0..20 {
            user += 1;
            world.receive(partner, to_user(user, "SUBSCRIBE"));
            let inside = world.sent(director).expect("passes");
            world.receive(director, response(&inside, "404 Not Found", &[]));
            assert_eq!(status(world.sent(partner)), "404 Not Found");
        }
    }
    world.review();
    let listed = world.watched();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].state.label(), listed[0].window),
        ("suspect", (0, 80))
    );
    world.wait(Duration::from_secs(10));
    for _ in 0..10 {
        world.receive(partner, to_user(1, "SUBSCRIBE"));
    }
    assert_eq!(std::iter::from_fn(|| world.sent(director)).count(), 2);

    let (mut world, director, partner) = discovered();
    let mut passed = 0;
    for user in 0..1001 {
        world.wait(Duration::from_millis(60));
        world.receive(partner, to_user(user, "SUBSCRIBE"));
        if let Some(inside) = world.sent(director) {
            passed += 1;
            world.receive(director, response(&inside, "200 OK", &[]));
            assert_eq!(status(world.sent(partner)), "200 OK");
        }
    }
    assert_eq!(passed, 1000);
    assert_eq!(status(world.sent(partner)), "403 Forbidden");
    world.receive(partner, to_user(7, "MESSAGE"));
    assert!(world.sent(director).is_some(), "a known one passes");
}

#[test]
fn a_certificate_that_an_operator_blocked_is_refused_without_any_dns() {
    let (mut world, director, partner) = discovered();
    world.receive(partner, to_user(1, "MESSAGE"));
    assert!(world.sent(director).is_some());
    let certificate = world.watched()[0].certificate.clone();
    world.decide(&certificate, Decision::Block);
    world.receive(partner, to_user(1, "MESSAGE"));
    assert_eq!(status(world.sent(partner)), "403 Forbidden");
    let asked = world.resolved.len();
    world.dns.insert("other.test", "sip.new.test:5061");
    let again = world.partner(0, "sip.new.test", None);
    world.receive(again, from_partner("other.test", &[]));
    assert_eq!(status(world.sent(again)), "403 Forbidden");
    assert_eq!(world.resolved.len(), asked, "nothing was asked for it");
    world.decide(&certificate, Decision::Reset);
    world.receive(partner, to_user(1, "MESSAGE"));
    assert!(world.sent(director).is_some());
}

/// The value of the header that tells the inside where a message came from.
fn trust(message: &str) -> &str {
    values(message, "ms-edge-proxy-message-trust")[0]
}

fn provider(name_of: &str, fqdn: &str, public: bool, domains: &[&str]) -> Provider {
    Provider {
        name: name_of.to_owned(),
        fqdn: name(fqdn),
        public,
        domains: domains.iter().map(|domain| name(domain)).collect(),
        verification: Verification::Source,
    }
}

fn with_rules(change: impl FnOnce(&mut FederationRules)) -> World {
    let mut settings = settings();
    change(&mut settings.federation);
    World::with(settings)
}

#[test]
fn a_sender_counts_as_verified_by_the_rule_of_his_partner() {
    let asserted = "ms-asserted-verification-level: ms-source-verified-user=verified";
    for (rule, header, word) in [
        (Verification::Source, None, "=unverified;"),
        (Verification::Source, Some(asserted), "=verified;"),
        (Verification::Always, None, "=verified;"),
        (Verification::Never, Some(asserted), "=unverified;"),
    ] {
        let mut world = with_rules(|rules| {
            rules.verification = vec![(name("fabrikam.test"), rule)];
        });
        let director = world.next_hop(0);
        let partner = world.partner(0, "sip.fabrikam.test", None);
        let more: Vec<_> = header.into_iter().collect();
        world.receive(partner, from_partner("fabrikam.test", &more));
        let inside = world.sent(director).expect("forwarded");
        assert!(trust(&inside).contains(word), "{rule:?} {header:?}");
        assert!(values(&inside, "ms-asserted-verification-level").is_empty());
        // What goes back out says that we verified who answers.
        world.receive(director, response(&inside, "200 OK", &[]));
        let back = world.sent(partner).expect("answered");
        assert!(back.contains(asserted), "{back}");
        // And so do answers that come in.
        world.receive(director, from_us("fabrikam.test"));
        let ours = world.partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061"));
        let outside = world.sent(ours).expect("sent");
        assert!(outside.contains(asserted), "{outside}");
        world.receive(ours, response(&outside, "200 OK", &more));
        let answer = world.sent(director).expect("answered");
        assert!(trust(&answer).contains(word), "{answer}");
    }
}

#[test]
fn a_provider_speaks_for_its_domains_and_for_those_that_name_it_in_dns() {
    let mut world = with_rules(|rules| {
        rules.providers = vec![
            provider("public", "edge.cloud.test", true, &["live.test"]),
            provider("host", "edge.host.test", false, &[]),
        ];
        rules.provider_edges = [name("edge.cloud.test"), name("edge.host.test")].into();
        rules.partners.push((name("hosted.test"), None));
    });
    world.dns.insert("hosted.test", "edge.host.test:5061");
    world.dns.insert("outlook.test", "edge.cloud.test:5061");
    world
        .dns
        .insert("elsewhere.test", "sip.elsewhere.test:5061");
    let director = world.next_hop(0);
    let cloud = world.partner(0, "edge.cloud.test", None);
    for domain in ["live.test", "outlook.test"] {
        world.receive(cloud, from_partner(domain, &[]));
        let inside = world.sent(director).expect("forwarded");
        assert!(trust(&inside).contains("=AuthorizedServer;"), "{domain}");
        assert!(trust(&inside).contains("=publiccloud;"), "{domain}");
    }
    let host = world.partner(0, "edge.host.test", None);
    world.receive(host, from_partner("hosted.test", &[]));
    let inside = world.sent(director).expect("forwarded");
    assert!(trust(&inside).contains("ms-source-type=AuthorizedServer;"));
    assert!(trust(&inside).contains("ms-source-network=federation;"));
    // Neither speaks for a domain of the other, nor for one that is elsewhere.
    for (from, domain) in [
        (host, "live.test"),
        (cloud, "hosted.test"),
        (cloud, "elsewhere.test"),
    ] {
        world.receive(from, from_partner(domain, &[]));
        assert_eq!(status(world.sent(from)), "403 Forbidden", "{domain}");
    }
    // Nor does the domain's own edge, as nobody listed the domain.
    let own = world.partner(0, "sip.elsewhere.test", None);
    world.receive(own, from_partner("elsewhere.test", &[]));
    assert_eq!(status(world.sent(own)), "403 Forbidden");
    // Outwards the same names are dialled.
    for domain in ["live.test", "hosted.test"] {
        world.receive(director, from_us(domain));
    }
    assert_eq!(
        world.dialled,
        ["edge.cloud.test:5061", "edge.host.test:5061"].map(|at| at.parse().expect("lawful"))
    );
    world.receive(director, from_us("elsewhere.test"));
    assert_eq!(status(world.sent(director)), "404 Not Found");
}

#[test]
fn everything_goes_through_the_default_route_but_what_is_listed_by_name() {
    let mut world = with_rules(|rules| {
        rules.default_route = Some(DefaultRoute {
            fqdn: name("edge.clearing.test"),
            public: false,
            verification: Verification::Always,
        });
    });
    let director = world.next_hop(0);
    let clearing = world.partner(0, "edge.clearing.test", None);
    for domain in ["fabrikam.test", "anybody.test"] {
        world.receive(clearing, from_partner(domain, &[]));
        let inside = world.sent(director).expect("forwarded");
        assert!(trust(&inside).contains("=DirectPartner;"), "{inside}");
        assert!(trust(&inside).contains("=verified;"), "{inside}");
    }
    world.receive(clearing, from_partner("evil.test", &[]));
    assert_eq!(status(world.sent(clearing)), "403 Forbidden", "blocked");
    let other = world.partner(0, "sip.fabrikam.test", None);
    world.receive(other, from_partner("fabrikam.test", &[]));
    assert_eq!(status(world.sent(other)), "403 Forbidden");
    for domain in ["fabrikam.test", "anybody.test", "northwind.test"] {
        world.receive(director, from_us(domain));
    }
    assert_eq!(
        world.dialled,
        ["edge.clearing.test:5061", "edge.northwind.test:5061"]
            .map(|at| at.parse().expect("lawful"))
    );
    assert!(world.resolved.is_empty(), "nobody asks DNS");
}

#[test]
fn a_connection_is_of_one_type_of_federation() {
    let mut world = with_rules(|rules| {
        rules
            .partners
            .push((name("shared.test"), Some(name("sip.fabrikam.test"))));
    });
    let director = world.next_hop(0);
    let partner = world.partner(0, "sip.fabrikam.test", None);
    world.receive(partner, from_partner("fabrikam.test", &[]));
    assert!(world.sent(director).is_some());
    world.receive(partner, from_partner("shared.test", &[]));
    let refused = world.sent(partner).expect("an answer");
    assert!(refused.starts_with("SIP/2.0 403 "), "{refused}");
    assert!(world.events.contains(&Event::Answered(
        crate::proxy::token::Realm::Partner,
        Refusal::TypeMismatch
    )));
    let direct = world.partner(0, "sip.fabrikam.test", None);
    world.receive(direct, from_partner("shared.test", &[]));
    assert!(world.sent(director).is_some(), "on a connection of its own");
}

#[test]
fn a_clearing_house_passes_messages_between_partners_that_are_listed_by_name() {
    let between = |from: &str, to: &str, more: &[&str]| {
        let to = format!("dave@{to}");
        let from = format!("carol@{from}");
        request("INVITE", &format!("sip:{to}"), &from, &to, more)
    };
    let listed = |rules: &mut FederationRules| {
        rules
            .partners
            .push((name("alpine.test"), Some(name("edge.alpine.test"))));
    };
    let mut world = with_rules(|rules| {
        listed(rules);
        rules.clearing_house = true;
    });
    let director = world.next_hop(0);
    let alpine = world.partner(0, "edge.alpine.test", None);
    world.receive(alpine, between("alpine.test", "northwind.test", &[]));
    let northwind = world.partner(0, "edge.northwind.test", Some("edge.northwind.test:5061"));
    let passed = world.sent(northwind).expect("passed on");
    let routes = values(&passed, "Record-Route");
    assert_eq!(routes.len(), 2, "{passed}");
    assert!(values(&passed, "ms-edge-proxy-message-trust").is_empty());
    assert!(
        values(&passed, "ms-asserted-verification-level").is_empty(),
        "alpine did not say so"
    );
    world.receive(northwind, response(&passed, "200 OK", &[]));
    assert_eq!(status(world.sent(alpine)), "200 OK");
    // The dialog goes on, also from the other side.
    let route = format!("Route: {}, {}", routes[0], routes[1]);
    let bye = request(
        "BYE",
        "sip:carol@172.16.0.9",
        "dave@northwind.test",
        "",
        &[
            "To: <sip:carol@alpine.test>;tag=f1",
            &route,
            "Via: SIP/2.0/TLS edge.northwind.test:5061;branch=z9hG4bKbye",
        ],
    );
    let theirs = world.partner(0, "edge.northwind.test", None);
    world.receive(theirs, bye);
    let back = world.partner(0, "edge.alpine.test", Some("edge.alpine.test:5061"));
    let bye = world.sent(back).expect("passed on");
    assert!(bye.starts_with("BYE sip:carol@172.16.0.9 "), "{bye}");
    assert!(values(&bye, "Route").is_empty());
    // Whoever is listed by domain only, or not at all, gets nothing passed on.
    for (host, from, to) in [
        ("sip.fabrikam.test", "fabrikam.test", "northwind.test"),
        ("edge.alpine.test", "alpine.test", "fabrikam.test"),
        ("edge.alpine.test", "alpine.test", "third.test"),
    ] {
        let partner = world.partner(0, host, None);
        world.receive(partner, between(from, to, &[]));
        assert_eq!(status(world.sent(partner)), "403 Forbidden", "{from} {to}");
    }
    assert_eq!(world.sent(director), None);
    // And nobody does when we are none.
    let mut world = with_rules(listed);
    let alpine = world.partner(0, "edge.alpine.test", None);
    world.receive(alpine, between("alpine.test", "northwind.test", &[]));
    assert_eq!(status(world.sent(alpine)), "403 Forbidden");
}

#[test]
fn partners_need_not_learn_who_exists_and_learn_that_messages_are_archived() {
    for (flatten, line) in [
        (Flatten::Off, "SIP/2.0 404 Not Found"),
        (Flatten::Forbidden, "SIP/2.0 403 Forbidden"),
        (Flatten::Unavailable, "SIP/2.0 480 Temporarily Unavailable"),
    ] {
        let mut world = with_rules(|rules| {
            rules.flatten_404 = flatten;
            rules.archiving_notice = Some("X-Archived: yes".to_owned());
        });
        let director = world.next_hop(0);
        let partner = world.partner(0, "sip.fabrikam.test", None);
        world.receive(partner, from_partner("fabrikam.test", &[]));
        let inside = world.sent(director).expect("forwarded");
        let public = "ms-diagnostics-public: 1003;reason=\"User does not exist\"";
        world.receive(director, response(&inside, "404 Not Found", &[public]));
        let answer = world.sent(partner).expect("answered");
        assert!(answer.starts_with(&format!("{line}\r\n")), "{answer}");
        assert_eq!(answer.contains("1003"), flatten == Flatten::Off);
        world.receive(director, from_us("fabrikam.test"));
        let ours = world.partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061"));
        let outside = world.sent(ours).expect("sent");
        assert_eq!(values(&outside, "X-Archived"), ["yes"]);
    }
}

#[test]
fn a_partner_that_gives_no_reason_is_named_to_the_inside() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let ours = world.partner(0, "sip.fabrikam.test", Some("sip.fabrikam.test:5061"));
    let public = "ms-diagnostics-public: 1003;reason=\"gone\"";
    for (more, expected) in [(&[][..], Some("1034;")), (&[public][..], None)] {
        world.receive(director, from_us("fabrikam.test"));
        let outside = world.sent(ours).expect("sent");
        world.receive(ours, response(&outside, "404 Not Found", more));
        let answer = world.sent(director).expect("answered");
        let told = values(&answer, "ms-diagnostics");
        assert_eq!(told.len(), usize::from(expected.is_some()), "{answer}");
        if let Some(start) = expected {
            assert!(told[0].starts_with(start), "{answer}");
            assert!(told[0].contains("PeerServer=\"sip.fabrikam.test\""));
            assert!(told[0].contains("Domain=\"fabrikam.test\""));
        }
    }
}

#[test]
fn a_busy_partner_gets_a_second_connection_and_each_dialog_stays_on_one() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let message = |call: usize| {
        let call = format!("Call-ID: call{call}");
        let to = "carol@fabrikam.test";
        request(
            "MESSAGE",
            "sip:carol@fabrikam.test",
            "bob@contoso.test",
            to,
            &[&call],
        )
    };
    world.receive(director, message(0));
    let target = Some("sip.fabrikam.test:5061");
    let first = world.partner(0, "sip.fabrikam.test", target);
    for call in 0..19 {
        world.receive(director, message(call));
    }
    assert_eq!(world.dialled.len(), 1, "not so much to do");
    for call in 0..10 {
        world.receive(director, message(call));
    }
    assert_eq!(world.dialled.len(), 2, "one more, and not two");
    let second = world.partner(0, "sip.fabrikam.test", target);
    while world.sent(first).is_some() {}
    for call in 0..40 {
        world.receive(director, message(call % 20));
    }
    let calls = |world: &mut World, on| -> Vec<String> {
        std::iter::from_fn(|| world.sent(on))
            .map(|sent| values(&sent, "Call-ID")[0].to_owned())
            .collect()
    };
    let (one, other) = (calls(&mut world, first), calls(&mut world, second));
    assert_eq!(one.len() + other.len(), 40);
    assert!(one.len() > 5 && other.len() > 5, "both work");
    assert!(one.iter().all(|call| !other.contains(call)));
    assert_eq!(world.dialled.len(), 2, "no more than the lanes");
    world.close(first);
    world.receive(director, message(0));
    assert!(world.sent(second).is_some(), "the other one takes over");
}

#[test]
fn a_domain_that_dns_says_nothing_of_is_waited_for_five_seconds() {
    let mut world = World::new();
    world.deaf = true;
    let director = world.next_hop(0);
    world.receive(director, from_us("fabrikam.test"));
    world.wait(Duration::from_millis(4900));
    assert_eq!(world.sent(director), None);
    world.wait(Duration::from_millis(200));
    let answer = world.sent(director).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 504 "), "{answer}");
    assert!(values(&answer, "ms-diagnostics")[0].starts_with("1007;"));
}

#[test]
fn a_verdict_that_is_renewed_is_no_news() {
    let mut world = World::new();
    world.next_hop(0);
    let partner = world.partner(0, "edge.northwind.test", None);
    let verdicts = |world: &World| {
        let is_verdict = |event: &&Event| matches!(event, Event::Verdict { .. });
        world.events.iter().filter(is_verdict).count()
    };
    for _ in 0..3 {
        world.receive(partner, from_partner("northwind.test", &[]));
        world.wait(Duration::from_secs(90));
    }
    assert_eq!(verdicts(&world), 1);
    let settings = Settings {
        federation: FederationRules {
            blocked: vec![name("northwind.test")],
            ..settings().federation
        },
        ..settings()
    };
    world.settings(settings);
    world.receive(partner, from_partner("northwind.test", &[]));
    assert_eq!(verdicts(&world), 2, "this one is");
}

#[test]
fn one_connection_has_so_many_domains_looked_up_and_others_go_on() {
    let (mut world, director, partner) = discovered();
    world.deaf = true;
    for n in 0..1000 {
        world.receive(partner, from_partner(&format!("d{n}.test"), &[]));
    }
    assert_eq!(world.cores[0].fill().waits, 8);
    let answers = std::iter::from_fn(|| world.sent(partner));
    let refused = answers.filter(|answer| answer.starts_with("SIP/2.0 503 "));
    assert_eq!(refused.count(), 992);
    assert!(world.events.contains(&Event::Answered(
        crate::proxy::token::Realm::Partner,
        Refusal::ProofRate
    )));
    world.deaf = false;
    let other = world.partner(0, "sip.fabrikam.test", None);
    world.receive(other, from_partner("fabrikam.test", &[]));
    assert!(world.sent(director).is_some(), "federation goes on");
    world.wait(Duration::from_secs(6));
    assert_eq!(world.cores[0].fill().waits, 0);
}

#[test]
fn who_only_fails_to_prove_asks_slowly_fills_no_log_and_is_on_the_watch_list() {
    let (mut world, _, _) = discovered();
    let liar = world.partner(0, "sip.liar.test", None);
    for n in 0..200 {
        world.receive(liar, from_partner(&format!("d{n}.test"), &[]));
        world.wait(Duration::from_millis(50));
    }
    let asked = world.resolved.len();
    assert!((8..=20).contains(&asked), "{asked} in ten seconds");
    let seen = world.watched();
    let seen = seen
        .iter()
        .find(|seen| seen.names.contains("sip.liar.test"));
    assert_eq!(seen.map(|seen| seen.unproven), Some(asked as u64));
    // What needs no lookup is counted and not written down line by line.
    let mut rules = settings();
    rules.federation.discovery = false;
    world.settings(rules);
    for n in 0..100 {
        world.receive(liar, from_partner(&format!("other{n}.test"), &[]));
    }
    let lines = world.events.iter().filter_map(|event| match event {
        Event::Verdict { is_one_of_many, .. } => Some(!is_one_of_many),
        Event::Forwarded { .. }
        | Event::Answered(..)
        | Event::Dropped(_)
        | Event::Promoted(_)
        | Event::Stateless(_)
        | Event::FailedOver
        | Event::Topology(_)
        | Event::TimedOut => None,
    });
    let (told, counted): (Vec<_>, Vec<_>) = lines.partition(|told| *told);
    assert!(told.len() <= 25, "{}", told.len());
    assert!(counted.len() >= 75, "{}", counted.len());
}

#[test]
fn a_short_wait_ends_before_a_long_one_that_began_earlier() {
    let mut world = World::new();
    let director = world.next_hop(0);
    world.receive(director, from_us("fabrikam.test"));
    assert_eq!(world.dialled.len(), 1, "fifteen seconds for this");
    world.deaf = true;
    let mut rules = settings();
    rules.federation.partners.push((name("slow.test"), None));
    world.settings(rules);
    world.receive(director, from_us("slow.test"));
    world.wait(Duration::from_millis(5200));
    assert_eq!(
        status(world.sent(director)),
        "504 Server time-out",
        "the domain's five seconds are over"
    );
    assert_eq!(world.sent(director), None, "the dial goes on");
    world.wait(Duration::from_secs(10));
    assert_eq!(status(world.sent(director)), "504 Server time-out");
    assert_eq!(world.cores[0].fill().waits, 0);
}

#[test]
fn edges_that_could_not_be_reached_are_remembered_up_to_a_number() {
    let mut world = World::new();
    for n in 0..1500 {
        world.dial_failed(0, &format!("sip.d{n}.test:5061"), Refusal::PartnerTls);
    }
    assert_eq!(world.cores[0].fill().links, 1024);
}

#[test]
fn refused_domains_do_not_change_what_a_connection_is_for() {
    let mut world = with_rules(|rules| {
        rules
            .partners
            .push((name("shared.test"), Some(name("sip.fabrikam.test"))));
    });
    let director = world.next_hop(0);
    let partner = world.partner(0, "sip.fabrikam.test", None);
    world.receive(partner, from_partner("fabrikam.test", &[]));
    assert!(world.sent(director).is_some());
    for n in 0..20 {
        world.receive(partner, from_partner(&format!("d{n}.test"), &[]));
        assert_eq!(status(world.sent(partner)), "403 Forbidden");
    }
    world.receive(partner, from_partner("shared.test", &[]));
    assert_eq!(status(world.sent(partner)), "403 Forbidden");
    assert!(world.events.contains(&Event::Answered(
        crate::proxy::token::Realm::Partner,
        Refusal::TypeMismatch
    )));
}

#[test]
fn a_partner_that_reconnects_gets_its_answer_on_the_new_connection() {
    for core in [0, 1] {
        let mut world = World::new();
        let director = world.next_hop(0);
        if core == 1 {
            world.next_hop(1);
        }
        let via = "Via: SIP/2.0/TLS sip.fabrikam.test:5061;branch=z9hG4bK-partner";
        let partner = world.partner(core, "sip.fabrikam.test", None);
        world.receive(partner, from_partner("fabrikam.test", &[via]));
        let inside = world.sent(director).or_else(|| {
            let hop = FlowKey {
                core: 1,
                ..director
            };
            world.sent(hop)
        });
        let inside = inside.expect("goes inside");
        world.close(partner);
        world.receive(director, response(&inside, "180 Ringing", &[]));
        assert!(
            world
                .events
                .contains(&Event::Dropped(Drop::ResponseFlowGone)),
            "nobody is there"
        );
        let stranger = world.partner(core, "sip.other.test", None);
        let again = world.partner(core, "sip.fabrikam.test", None);
        world.receive(director, response(&inside, "200 OK", &[]));
        assert_eq!(status(world.sent(again)), "200 OK");
        assert_eq!(world.sent(stranger), None);
    }
}

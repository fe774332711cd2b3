//! Partners whose certificate proves nothing by itself, and what they may do before and after a connection of ours to
//! their edge.

use edge_common::cert::identity::CertificateId;

use super::world::{World, name, request, settings, status, values};
use crate::proxy::Event;
use crate::proxy::refusal::Refusal;
use crate::proxy::token::{FlowKey, Realm};
use crate::proxy::watch::Decision;

fn message(domain: &str) -> String {
    request(
        "MESSAGE",
        "sip:bob@contoso.test",
        &format!("carol@{domain}"),
        "bob@contoso.test",
        &[],
    )
}

fn refusal(world: &mut World, partner: FlowKey, domain: &str) -> &'static str {
    world.events.clear();
    world.receive(partner, message(domain));
    assert!(status(world.sent(partner)).starts_with("403 "));
    let found = world.events.iter().find_map(|event| {
        if let Event::Answered(Realm::Partner, refusal) = event {
            return Some(refusal.label());
        }
        None
    });
    found.expect("a reason")
}

#[test]
fn whoever_holds_the_key_of_the_domains_edge_is_let_in_after_one_call() {
    let mut world = World::new();
    world.servers.insert("sip.fabrikam.test", (7, "4711"));
    let director = world.next_hop(0);
    let partner = world.unproven(0, "sip.fabrikam.test", 7);
    for _ in 0..2 {
        world.receive(partner, message("fabrikam.test"));
        let inside = world.sent(director).expect("forwarded");
        assert!(
            values(&inside, "ms-edge-proxy-message-trust")[0]
                .contains("ms-remote-fqdn=sip.fabrikam.test")
        );
    }
    let other_core = world.unproven(1, "sip.fabrikam.test", 7);
    world.next_hop(1);
    world.receive(other_core, message("fabrikam.test"));
    assert_eq!(world.called.len(), 1, "what was found is kept");
}

#[test]
fn a_name_without_its_key_a_silent_edge_and_a_foreign_name_are_told_apart() {
    let mut world = World::new();
    world.servers.insert("sip.fabrikam.test", (7, "4711"));
    let director = world.next_hop(0);
    let thief = world.unproven(0, "sip.fabrikam.test", 8);
    assert_eq!(
        refusal(&mut world, thief, "fabrikam.test"),
        "callback_other_key"
    );
    assert_eq!(
        refusal(&mut world, thief, "fabrikam.test"),
        "callback_other_key"
    );
    assert_eq!(world.called.len(), 1, "not called again for each message");
    let other = world.unproven(0, "www.fabrikam.test", 7);
    assert_eq!(
        refusal(&mut world, other, "fabrikam.test"),
        "not_in_certificate"
    );
    assert_eq!(
        world.called.len(),
        1,
        "a certificate for another name has nobody called"
    );
    world.servers.clear();
    let early = world.unproven(0, "sip.fabrikam.test", 9);
    assert_eq!(
        refusal(&mut world, early, "fabrikam.test"),
        "callback_unreachable"
    );
    assert!(world.sent(director).is_none());
}

#[test]
fn a_record_outside_its_domain_has_nobody_called() {
    let mut world = World::new();
    world.dns.insert("fabrikam.test", "sip.evil.test:5061");
    world.servers.insert("sip.evil.test", (7, "1"));
    world.next_hop(0);
    let partner = world.unproven(0, "sip.evil.test", 7);
    world.receive(partner, message("fabrikam.test"));
    assert!(status(world.sent(partner)).starts_with("504 "));
    assert!(world.called.is_empty());
}

#[test]
fn whoever_was_not_called_back_gets_no_answer_of_ours_and_takes_no_route() {
    let mut world = World::new();
    let director = world.next_hop(0);
    let partner = world.unproven(0, "sip.fabrikam.test", 7);
    let options = request(
        "OPTIONS",
        "sip:sip.contoso.test",
        "carol@fabrikam.test",
        "sip.contoso.test",
        &[],
    );
    world.receive(partner, options);
    assert!(!status(world.sent(partner)).starts_with("200 "));
    assert!(world.sent(director).is_none());
    assert!(world.called.is_empty(), "there is nothing to call for");
}

#[test]
fn a_partner_that_is_listed_by_name_is_called_at_that_name() {
    let mut settings = settings();
    let listed = (name("direct.test"), Some(name("edge.direct.test")));
    settings.federation.partners.push(listed);
    let mut world = World::with(settings);
    world.servers.insert("edge.direct.test", (7, "4711"));
    let director = world.next_hop(0);
    let thief = world.unproven(0, "edge.direct.test", 8);
    assert_eq!(
        refusal(&mut world, thief, "direct.test"),
        "callback_other_key"
    );
    let partner = world.unproven(0, "edge.direct.test", 7);
    world.receive(partner, message("direct.test"));
    let inside = world.sent(director).expect("forwarded");
    assert!(
        values(&inside, "ms-edge-proxy-message-trust")[0].contains("ms-source-type=DirectPartner")
    );
    let expected: Vec<_> = ["edge.direct.test:5061", "edge.direct.test:5061"]
        .map(|at| at.parse().expect("lawful"))
        .into();
    assert_eq!(world.called, expected);
    assert!(world.resolved.is_empty(), "nobody asks DNS");
}

#[test]
fn a_discovered_partner_is_watched_by_the_certificate_of_its_edge() {
    let mut settings = settings();
    settings.federation.discovery = true;
    let mut world = World::with(settings);
    world.dns.insert("alpine.test", "sip.alpine.test:5061");
    world.servers.insert("sip.alpine.test", (7, "4711"));
    let director = world.next_hop(0);
    let partner = world.unproven(0, "sip.alpine.test", 7);
    world.receive(partner, message("alpine.test"));
    assert!(world.sent(director).is_some());
    let edge = CertificateId {
        issuer: "CN=Public CA".to_owned(),
        serial: "4711".to_owned(),
    };
    // What it showed was of its own making, and would be another one tomorrow.
    world.decide(&edge, Decision::Block);
    let again = world.unproven(0, "sip.alpine.test", 7);
    assert_eq!(
        refusal(&mut world, again, "alpine.test"),
        Refusal::PartnerBlocked.label()
    );
}

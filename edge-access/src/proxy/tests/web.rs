//! Browsers: what differs when a client's messages come in frames of a WebSocket (RFC 7118).

use edge_common::config::RegisterMode;

use super::world::{World, request, response, settings, status, values};
use crate::proxy::settings::Settings;
use crate::proxy::token::FlowKey;

fn browser(world: &mut World, core: usize) -> FlowKey {
    let key = world.client(core);
    world.cores[core].handle_websocket(world.now, key);
    key
}

const VIA: &str = "Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK56sdasks";
const CONTACT: &str = "Contact: <sip:bob@df7jal23ls0d.invalid;transport=ws>;reg-id=1";

/// Registers a browser and gives the Path that the Director got.
fn path_of(world: &mut World, director: FlowKey, browser: FlowKey) -> String {
    let (uri, bob) = ("sip:contoso.test", "bob@contoso.test");
    world.receive(browser, request("REGISTER", uri, bob, bob, &[VIA, CONTACT]));
    let inside = world.sent(director).expect("forwarded");
    let vias = values(&inside, "Via");
    assert!(vias[0].starts_with("SIP/2.0/TLS edge1.contoso.internal:5061;"));
    assert!(vias[1].starts_with("SIP/2.0/WSS df7jal23ls0d.invalid;"));
    // What nobody can resolve is the registrar's to keep: the token leads back.
    assert_eq!(values(&inside, "Contact"), [&CONTACT["Contact: ".len()..]]);
    let path = values(&inside, "Path")[0].to_owned();
    world.receive(director, response(&inside, "200 OK", &[]));
    assert_eq!(status(world.sent(browser)), "200 OK");
    path
}

fn invite(more: &[&str]) -> String {
    let mut headers = vec!["Via: SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKdir"];
    headers.extend_from_slice(more);
    request(
        "INVITE",
        "sip:bob@df7jal23ls0d.invalid;transport=ws",
        "alice@contoso.test",
        "bob@contoso.test",
        &headers,
    )
}

#[test]
fn a_browser_sees_its_own_transport_whichever_core_sends_to_it() {
    for core in [0, 1] {
        let mut world = World::new();
        let (next_hop, browser) = (world.next_hop(1), browser(&mut world, 1));
        let path = path_of(&mut world, next_hop, browser);
        let director = world.inside(core);
        let route = format!("Route: {path}");
        world.receive(director, invite(&[&route]));
        let outside = world.sent(browser).expect("over the browser's connection");
        let (vias, routes) = (values(&outside, "Via"), values(&outside, "Record-Route"));
        assert!(
            vias[0].starts_with("SIP/2.0/WSS sip.contoso.test:443;"),
            "{outside}"
        );
        assert!(
            vias[1].starts_with("SIP/2.0/TLS 10.10.0.50:5061;"),
            "{outside}"
        );
        assert!(
            routes[0].ends_with("@sip.contoso.test:443;transport=ws;lr>"),
            "{outside}"
        );
        assert!(
            routes[1].ends_with("@edge1.contoso.internal:5061;transport=tls;lr>"),
            "{outside}"
        );

        world.receive(browser, response(&outside, "200 OK", &[]));
        assert_eq!(status(world.sent(director)), "200 OK");
    }
}

#[test]
fn the_route_of_a_browsers_own_call_names_its_transport() {
    let mut world = World::new();
    let (director, browser) = (world.next_hop(0), browser(&mut world, 0));
    let (bob, alice) = ("bob@contoso.test", "alice@contoso.test");
    world.receive(
        browser,
        request("INVITE", "sip:alice@contoso.test", bob, alice, &[VIA]),
    );
    let inside = world.sent(director).expect("forwarded");
    let routes = values(&inside, "Record-Route");
    assert!(
        routes[0].ends_with("@edge1.contoso.internal:5061;transport=tls;lr>"),
        "{inside}"
    );
    assert!(
        routes[1].ends_with("@sip.contoso.test:443;transport=ws;lr>"),
        "{inside}"
    );
}

#[test]
fn a_browser_gets_a_path_in_every_register_mode() {
    for mode in [
        RegisterMode::Path,
        RegisterMode::RecordRoute,
        RegisterMode::Both,
    ] {
        let mut world = World::with(Settings {
            register_mode: mode,
            ..settings()
        });
        let (director, browser) = (world.next_hop(0), browser(&mut world, 0));
        let path = path_of(&mut world, director, browser);
        assert!(path.ends_with(";transport=tls;lr>"), "{mode:?}: {path}");
    }
}

#[test]
fn without_its_token_nothing_finds_a_browser() {
    let mut world = World::new();
    let director = world.next_hop(0);
    world.receive(director, invite(&[]));
    assert_eq!(status(world.sent(director)), "430 Flow Failed");
    assert!(
        world.resolved.is_empty(),
        "no name ending in .invalid is looked up"
    );
}

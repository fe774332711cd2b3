//! The daemon on real sockets and real TLS: two cores, a Director, clients and partners, all on loopback.

#![cfg(feature = "io")]

mod bad_input;
mod operator;
mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge_common::config::Callback;
use support::dns::Record;
use support::edge::{DIRECTOR_NAME, EXTERNAL, Edge};
use support::peer::Peer;
use support::pki::Pki;
use support::sip::{request, response, status, values};
use tungstenite::WebSocket;

fn register(user: &str) -> String {
    let contact = format!("Contact: <sip:{user}@10.1.0.10:5061;transport=tls>");
    let address = format!("{user}@contoso.test");
    request(
        "REGISTER",
        "sip:contoso.test",
        &address,
        &address,
        &[&contact],
    )
}

/// The connection of the two that brings the next message, and the message.
fn either(peers: &mut [Peer]) -> (usize, String) {
    for _ in 0..100 {
        for (at, peer) in peers.iter_mut().enumerate() {
            if let Some(message) = peer.try_receive(Duration::from_millis(25)) {
                return (at, message);
            }
        }
    }
    panic!("nothing came to the Director");
}

#[test]
fn users_of_both_cores_sign_in_call_and_hang_up() {
    let edge = Edge::start(BTreeMap::new());
    let mut next_hops = edge.next_hops();
    let mut director = edge.inside(DIRECTOR_NAME);
    // The kernel spreads connections by their ports; twenty on one core of two do not happen.
    let mut users: Vec<Option<(Peer, String)>> = vec![None, None];
    for _ in 0..20 {
        let mut client = edge.client();
        client.send(register("bob"));
        let (core, asked) = either(&mut next_hops);
        next_hops[core].send(response(&asked, "401 Unauthorized"));
        assert_eq!(status(&client.receive()), "401 Unauthorized");
        client.send(register("bob"));
        let (again, asked) = either(&mut next_hops);
        assert_eq!(again, core, "a connection stays on its core");
        next_hops[core].send(response(&asked, "200 OK"));
        assert_eq!(status(&client.receive()), "200 OK");
        users[core] = Some((client, values(&asked, "Path")[0].to_owned()));
        if users.iter().all(Option::is_some) {
            break;
        }
    }

    // The Director's own connection is on one core; through it both users are reached.
    for (user, next_hop) in users.into_iter().zip(&mut next_hops) {
        let (mut client, path) = user.expect("a user on each core");
        let route = format!("Route: {path}");
        director.send(request(
            "INVITE",
            "sip:bob@10.1.0.10:5061",
            "alice@contoso.test",
            "bob@contoso.test",
            &[&route],
        ));
        let invite = client.receive();
        assert!(
            invite.starts_with("INVITE sip:bob@10.1.0.10:5061 SIP/2.0\r\n"),
            "{invite}"
        );
        client.send(response(&invite, "200 OK"));
        assert_eq!(status(&director.receive()), "200 OK");

        let routes = format!("Route: {}", values(&invite, "Record-Route").join(", "));
        let bye = request(
            "BYE",
            "sip:alice@10.1.0.20",
            "bob@contoso.test",
            "alice@contoso.test",
            &[&routes],
        );
        let of_dialog = |text: String, header: &str, value: &str| {
            let own = format!("{header}: {}\r\n", values(&text, header)[0]);
            text.replacen(&own, &format!("{header}: {value}\r\n"), 1)
        };
        let bye = of_dialog(bye, "Call-ID", values(&invite, "Call-ID")[0]);
        client.send(of_dialog(bye, "To", values(&invite, "From")[0]));
        let bye = next_hop.receive();
        assert!(
            bye.starts_with("BYE ") && values(&bye, "Route").is_empty(),
            "{bye}"
        );
        next_hop.send(response(&bye, "200 OK"));
        assert_eq!(status(&client.receive()), "200 OK");
    }
    assert!(edge.metric("edge_access_connections_accepted_total{listener=\"client\"}") >= 2);
    for shown in [
        "edge_access_dns_answered_total{side=\"external\"}",
        "edge_access_dns_faults_total{side=\"internal\",reason=\"timeout\"}",
        "edge_access_revocation_passed_total{peers=\"partners\",reason=\"unknown\"}",
        "edge_access_waits{core=\"1\"}",
        "edge_access_links{core=\"0\"}",
        "edge_access_verdict_domains",
        "edge_access_mailbox_messages{core=\"0\"}",
    ] {
        assert!(edge.shared.metrics.text().contains(shown), "{shown}");
    }
    assert_eq!(
        edge.metric("edge_access_connections_accepted_total{listener=\"internal\"}"),
        1
    );
}

#[test]
fn federation_runs_both_ways_and_only_for_who_proves_himself() {
    let theirs = TcpListener::bind("127.0.4.20:0").expect("a socket");
    let port = theirs.local_addr().expect("bound").port();
    let edge = Edge::start(BTreeMap::from([
        (
            "_sipfederationtls._tcp.fabrikam.test",
            Record::Srv(port, "sip.fabrikam.test"),
        ),
        ("sip.fabrikam.test", Record::A(Ipv4Addr::new(127, 0, 4, 20))),
    ]));
    let mut next_hops = edge.next_hops();

    let mut partner = edge.partner("sip.fabrikam.test");
    let message = || {
        request(
            "MESSAGE",
            "sip:bob@contoso.test",
            "carol@fabrikam.test",
            "bob@contoso.test",
            &[],
        )
    };
    partner.send(message());
    let (core, inside) = either(&mut next_hops);
    assert!(
        values(&inside, "ms-edge-proxy-message-trust")[0]
            .contains("ms-remote-fqdn=sip.fabrikam.test")
    );
    next_hops[core].send(response(&inside, "200 OK"));
    assert_eq!(status(&partner.receive()), "200 OK");
    let asked = edge.names.asked.load(Ordering::Relaxed);
    partner.send(message());
    either(&mut next_hops);
    assert_eq!(
        edge.names.asked.load(Ordering::Relaxed),
        asked,
        "a proof is kept"
    );

    let mut liar = edge.partner("sip.liar.test");
    liar.send(message());
    assert_eq!(status(&liar.receive()), "403 Forbidden");
    assert_eq!(
        edge.metric("edge_access_federation_verdicts_total{outcome=\"not_in_certificate\"}"),
        1
    );

    // The other way: over a connection that the edge opens and on which the partner proves its name.
    for next_hop in &mut next_hops {
        let server = edge.pki.server("sip.fabrikam.test");
        next_hop.send(request(
            "MESSAGE",
            "sip:carol@fabrikam.test",
            "bob@contoso.test",
            "carol@fabrikam.test",
            &[],
        ));
        let mut outside = Peer::accept(&theirs, server);
        let sent = outside.receive();
        assert!(
            sent.starts_with("MESSAGE sip:carol@fabrikam.test SIP/2.0\r\n"),
            "{sent}"
        );
        outside.send(response(&sent, "202 Accepted"));
        assert_eq!(status(&next_hop.receive()), "202 Accepted");
    }
}

#[test]
fn a_partner_whose_certificate_is_no_proof_is_called_back_at_its_edge() {
    let theirs = TcpListener::bind("127.0.4.22:0").expect("a socket");
    let port = theirs.local_addr().expect("bound").port();
    let records = BTreeMap::from([
        (
            "_sipfederationtls._tcp.fabrikam.test",
            Record::Srv(port, "sip.fabrikam.test"),
        ),
        ("sip.fabrikam.test", Record::A(Ipv4Addr::new(127, 0, 4, 22))),
    ]);
    let edge = Edge::start_with(records, |config| {
        let access = config.access.as_mut().expect("in the example");
        access.federation.callback = Callback::WhenNeeded;
    });
    let mut next_hops = edge.next_hops();
    let nobody = Pki::new();
    let (caller, server) = edge.pki.two_faces("sip.fabrikam.test", &nobody);
    let message = || {
        request(
            "MESSAGE",
            "sip:bob@contoso.test",
            "carol@fabrikam.test",
            "bob@contoso.test",
            &[],
        )
    };
    let mut partner = edge.partner_as(caller);
    partner.send(message());
    drop(Peer::accept(&theirs, Arc::clone(&server)));
    let (core, inside) = either(&mut next_hops);
    next_hops[core].send(response(&inside, "200 OK"));
    assert_eq!(status(&partner.receive()), "200 OK");
    partner.send(message());
    either(&mut next_hops);

    let mut thief = edge.partner_as(edge.pki.client_of("sip.fabrikam.test", &nobody));
    thief.send(message());
    drop(Peer::accept(&theirs, server));
    assert_eq!(status(&thief.receive()), "403 Forbidden");
    for outcome in ["proven", "callback_other_key"] {
        let line = format!("edge_access_federation_callbacks_total{{outcome=\"{outcome}\"}}");
        assert_eq!(edge.metric(&line), 1, "{outcome}");
    }
    // Somebody whose certificate is good needs no call.
    let mut good = edge.partner("sip.fabrikam.test");
    good.send(message());
    either(&mut next_hops);
}

#[test]
fn a_partner_with_a_certificate_for_another_name_gets_nothing() {
    let theirs = TcpListener::bind("127.0.4.21:0").expect("a socket");
    let port = theirs.local_addr().expect("bound").port();
    let edge = Edge::start(BTreeMap::from([
        (
            "_sipfederationtls._tcp.fabrikam.test",
            Record::Srv(port, "sip.fabrikam.test"),
        ),
        ("sip.fabrikam.test", Record::A(Ipv4Addr::new(127, 0, 4, 21))),
    ]));
    let mut next_hops = edge.next_hops();
    let wrong = edge.pki.server("sip.other.test");
    let outside = std::thread::spawn(move || {
        let (tcp, _) = theirs.accept().expect("a connection");
        let tls = rustls::ServerConnection::new(wrong).expect("a server");
        let mut stream = rustls::StreamOwned::new(tls, tcp);
        let mut byte = [0];
        std::io::Read::read(&mut stream, &mut byte)
    });
    next_hops[0].send(request(
        "MESSAGE",
        "sip:carol@fabrikam.test",
        "bob@contoso.test",
        "carol@fabrikam.test",
        &[],
    ));
    let answer = next_hops[0].receive();
    assert_eq!(status(&answer), "504 Server time-out");
    assert!(
        values(&answer, "ms-diagnostics")[0].starts_with("1010;"),
        "{answer}"
    );
    let read = outside.join().expect("the partner's thread");
    assert!(!matches!(read, Ok(1..)), "not a byte was told");
}

#[test]
fn the_edge_is_ready_only_with_the_director_and_says_so_to_clients() {
    let edge = Edge::start(BTreeMap::new());
    let mut next_hops = edge.next_hops();
    next_hops.clear();
    edge.until("unready", || !edge.shared.readiness.is_ready());
    let mut client = edge.client();
    client.send(register("bob"));
    let answer = client.receive();
    assert_eq!(status(&answer), "503 Service Unavailable");
    assert_eq!(values(&answer, "Retry-After").len(), 1);
    // The Director comes back, and so do we.
    let mut next_hops = edge.next_hops();
    client.send(register("bob"));
    either(&mut next_hops);
}

#[test]
fn whoever_may_not_speak_inside_is_shut_out() {
    let edge = Edge::start(BTreeMap::new());
    let mut stranger = edge.inside("printer.contoso.internal");
    assert!(stranger.is_closed());
    assert_eq!(
        edge.metric("edge_access_peers_refused_total{listener=\"internal\"}"),
        1
    );
}

#[test]
fn a_stream_that_cannot_be_framed_is_closed_and_counted() {
    let edge = Edge::start(BTreeMap::new());
    for (bytes, reason) in [
        (
            "OPTIONS sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n",
            "content_length_invalid",
        ),
        ("OPTIONS sip:a SIP/2.0\nl: 1\n\n", "bare_line_feed"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "content_length_missing",
        ),
        (
            "OPTIONS sip:a SIP/2.0\r\nno colon\r\nl: 0\r\n\r\n",
            "header_without_colon",
        ),
    ] {
        let mut client = edge.client();
        client.send(bytes);
        assert!(client.is_closed(), "{reason}");
        let line = format!("edge_access_connections_closed_total{{reason=\"{reason}\"}}");
        assert_eq!(edge.metric(&line), 1, "{}", edge.shared.metrics.text());
    }
    edge.until("empty", || edge.metric("edge_access_flows") == 0);
}

#[test]
fn a_client_that_does_not_read_is_let_go_and_nobody_else_waits() {
    let edge = Edge::start(BTreeMap::new());
    let mut next_hops = edge.next_hops();
    let mut client = edge.client();
    client.send(register("bob"));
    let (core, asked) = either(&mut next_hops);
    next_hops[core].send(response(&asked, "200 OK"));
    client.receive();
    let route = format!("Route: {}", values(&asked, "Path")[0]);
    let message = || {
        let head = request(
            "MESSAGE",
            "sip:bob@contoso.test",
            "alice@contoso.test",
            "bob@contoso.test",
            &[&route],
        );
        head.replace("Content-Length: 0", "Content-Length: 100000") + &"x".repeat(100_000)
    };
    let stalled = "edge_access_connections_closed_total{reason=\"queue_full\"}";
    // What the kernel takes for the client comes on top of our own queue.
    for _ in 0..400 {
        next_hops[core].send(message());
        if edge.metric(stalled) == 1 {
            break;
        }
    }
    assert_eq!(edge.metric(stalled), 1);
    next_hops[core].send(message());
    assert_eq!(
        status(&next_hops[core].receive()),
        "480 Temporarily Unavailable"
    );
    let mut other = edge.client();
    other.send(register("carol"));
    either(&mut next_hops);
}

#[test]
fn a_second_director_takes_what_the_first_leaves_unanswered() {
    let reserve = Ipv4Addr::new(127, 0, 2, 51);
    let edge = Edge::start_with(BTreeMap::new(), |config| {
        config.internal.next_hop_addresses.push(reserve.into());
    });
    let port = edge.director.local_addr().expect("bound").port();
    let second = TcpListener::bind((reserve, port)).expect("a socket");
    let mut first = edge.next_hops();
    let accept = || Peer::accept(&second, edge.pki.server(DIRECTOR_NAME));
    let mut others: Vec<Peer> = (0..2).map(|_| accept()).collect();
    edge.until("all connected", || {
        edge.metric("edge_access_next_hop_connections") == 4
    });
    let mut client = edge.client();
    client.send(register("bob"));
    let (core, _) = either(&mut first);
    drop(first.remove(core));
    let (core, asked) = either(&mut others);
    assert!(asked.starts_with("REGISTER "), "{asked}");
    others[core].send(response(&asked, "200 OK"));
    assert_eq!(status(&client.receive()), "200 OK");
    assert_eq!(edge.metric("edge_access_requests_failed_over_total"), 1);
    assert!(edge.shared.readiness.is_ready(), "each core still has one");
}

#[test]
fn a_director_that_does_not_read_costs_nobody_a_connection() {
    let edge = Edge::start_with(BTreeMap::new(), |config| {
        let access = config.access.as_mut().expect("configured");
        access.limits.server_queue = 300_000;
    });
    let mut next_hops = edge.next_hops();
    let mut client = edge.client();
    client.send(register("bob"));
    let (core, asked) = either(&mut next_hops);
    next_hops[core].send(response(&asked, "200 OK"));
    assert_eq!(status(&client.receive()), "200 OK");
    let message = || {
        let from = "bob@contoso.test";
        let head = request(
            "MESSAGE",
            "sip:carol@contoso.test",
            from,
            "carol@contoso.test",
            &[],
        );
        head.replace("Content-Length: 0", "Content-Length: 50000") + &"x".repeat(50_000)
    };
    // What the kernel takes for the Director comes on top of our own queue.
    let refused = "edge_access_requests_refused_total{from=\"client\",status=\"503\",reason=\"low_priority\"}";
    for _ in 0..400 {
        client.send(message());
        if edge.metric(refused) > 0 {
            break;
        }
    }
    assert_eq!(status(&client.receive()), "503 Service Unavailable");
    assert_eq!(edge.metric("edge_access_next_hop_connections"), 2);
    let whole = |peer: &mut Peer| peer.receive().starts_with("MESSAGE ");
    assert!(whole(&mut next_hops[core]), "it reads on where it stopped");
    while next_hops[core]
        .try_receive(Duration::from_millis(200))
        .is_some()
    {}
    client.send(message());
    assert!(whole(&mut next_hops[core]), "and all goes on");
}

#[test]
fn a_drain_lets_dialogs_end_and_then_the_daemon() {
    let mut edge = Edge::start(BTreeMap::new());
    let mut next_hops = edge.next_hops();
    let mut client = edge.client();
    client.send(register("bob"));
    let (core, asked) = either(&mut next_hops);
    next_hops[core].send(response(&asked, "200 OK"));
    client.receive();
    edge.drain();
    let to = std::net::SocketAddr::new(EXTERNAL.parse().expect("an address"), edge.client_port());
    edge.until("shut", || std::net::TcpStream::connect(to).is_err());
    client.send(request(
        "INVITE",
        "sip:alice@contoso.test",
        "bob@contoso.test",
        "alice@contoso.test",
        &[],
    ));
    assert_eq!(status(&client.receive()), "503 Service Unavailable");
    let route = format!("Route: {}", values(&asked, "Path")[0]);
    client.send(request(
        "BYE",
        "sip:alice@contoso.test",
        "bob@contoso.test",
        "alice@contoso.test",
        &[&route],
    ));
    let (_, bye) = either(&mut next_hops);
    next_hops[core].send(response(&bye, "200 OK"));
    assert_eq!(status(&client.receive()), "200 OK");
    drop(client);
    assert!(edge.has_ended());
}

#[test]
fn a_reload_changes_the_rules_for_connections_that_stand() {
    let edge = Edge::start(BTreeMap::new());
    let mut next_hops = edge.next_hops();
    let mut client = edge.client();
    client.send(register("bob"));
    either(&mut next_hops);
    let mut config = edge.config.clone();
    config.access.as_mut().expect("configured").remote_users = false;
    edge.reloader.reload(config.clone()).expect("reloaded");
    std::thread::sleep(Duration::from_millis(100));
    client.send(register("bob"));
    assert_eq!(status(&client.receive()), "403 Forbidden");
    // What cannot be used changes nothing.
    config.internal.ca = "/nowhere".into();
    config.access.as_mut().expect("configured").remote_users = true;
    assert!(edge.reloader.reload(config).is_err());
    client.send(register("bob"));
    assert_eq!(status(&client.receive()), "403 Forbidden");
}

fn handshake(origin: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: sip.contoso.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin}\r\n\
         Sec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

#[test]
fn a_browser_signs_in_on_the_port_of_all_clients_and_is_reached_through_its_frames() {
    let edge = Edge::start(BTreeMap::new());
    let mut next_hops = edge.next_hops();
    let mut director = edge.inside(DIRECTOR_NAME);
    let mut client = edge.client();
    let answer = client.http(&handshake("https://phone.contoso.test"));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(
        answer.contains("\r\nSec-WebSocket-Protocol: sip\r\n"),
        "{answer}"
    );
    let mut browser = client.into_websocket();
    let receive = |browser: &mut WebSocket<_>| loop {
        let message = browser.read().expect("a frame in time");
        if !message.is_pong() {
            assert!(message.is_text(), "{message:?}");
            return message.into_text().expect("UTF-8").to_string();
        }
    };
    let send = |browser: &mut WebSocket<_>, text: &str| {
        browser
            .send(tungstenite::Message::text(text))
            .expect("sent");
    };

    // A frame says where its message ends; a stream has to be told.
    let register = register("web").replace("Content-Length: 0\r\n", "");
    browser
        .send(tungstenite::Message::Ping("x".into()))
        .expect("sent");
    send(&mut browser, &register);
    let (core, asked) = either(&mut next_hops);
    assert_eq!(values(&asked, "Content-Length"), ["0"]);
    next_hops[core].send(response(&asked, "200 OK"));
    assert_eq!(status(&receive(&mut browser)), "200 OK");
    send(&mut browser, "\r\n\r\n");
    assert_eq!(receive(&mut browser), "\r\n");

    let route = format!("Route: {}", values(&asked, "Path")[0]);
    let (alice, web) = ("alice@contoso.test", "web@contoso.test");
    let uri = "sip:web@df7jal23ls0d.invalid;transport=ws";
    director.send(request("MESSAGE", uri, alice, web, &[&route]));
    let message = receive(&mut browser);
    assert!(
        values(&message, "Via")[0].starts_with("SIP/2.0/WSS sip.contoso.test:"),
        "{message}"
    );
    send(&mut browser, &response(&message, "200 OK"));
    assert_eq!(status(&director.receive()), "200 OK");
    assert_eq!(edge.metric("edge_access_websockets"), 1);

    // Two messages in one frame are one too many: the last word is a 400, then the reason.
    send(&mut browser, &register.repeat(2));
    browser.close(None).expect("not closed yet");
    edge.until("closed", || edge.metric("edge_access_websockets") == 0);
    assert_eq!(
        edge.metric("edge_access_websocket_handshakes_total{outcome=\"accepted\"}"),
        1
    );
}

#[test]
fn a_foreign_page_and_an_unmasked_frame_get_no_further() {
    let edge = Edge::start(BTreeMap::new());
    let mut client = edge.client();
    let answer = client.http(&handshake("https://evil.test"));
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(client.is_closed());
    let denied = "edge_access_websocket_handshakes_total{outcome=\"origin_foreign\"}";
    assert_eq!(edge.metric(denied), 1);

    let mut client = edge.client();
    client.http(&handshake("https://contoso.test"));
    client.send([0x81, 2, b'h', b'i']);
    assert!(client.is_closed());
    let closed = "edge_access_connections_closed_total{reason=\"websocket_unmasked\"}";
    assert_eq!(edge.metric(closed), 1);
}

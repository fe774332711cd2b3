//! What an operator asks a running Access Edge over its admin socket: who is connected, and how a call passed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use edge_common::config::Hep;

use edge_common::observe::admin::{AdminSocket, Changers};
use serde_json::{Value, json};

use crate::register;
use crate::support::dns::Record;
use crate::support::edge::{DIRECTOR_NAME, Edge};
use crate::support::peer::Peer;
use crate::support::pki::Pki;
use crate::support::sip::{request, response, status, values};

/// The admin socket of an edge, served as the daemon's main thread does it.
struct Admin {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Admin {
    fn of(edge: &Edge) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let (host, metrics, at) = (
            edge.reloader.host(),
            edge.shared.metrics.clone(),
            path.clone(),
        );
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let socket = AdminSocket::open(&at).expect("opens");
                tell.send(()).expect("heard");
                let commands = edge_access::admin::commands(&host);
                socket.serve(commands, Changers::default(), &metrics).await;
            });
        });
        told.recv().expect("a socket");
        Self {
            path,
            _directory: directory,
        }
    }

    fn ask(&self, request: &Value) -> Value {
        let mut peer = UnixStream::connect(&self.path).expect("connects");
        writeln!(peer, "{request}").expect("asks");
        let mut line = String::new();
        BufReader::new(peer).read_line(&mut line).expect("answers");
        serde_json::from_str(&line).expect("JSON")
    }

    fn result(&self, request: &Value) -> Value {
        let answer = self.ask(request);
        assert_eq!(answer["ok"], true, "{answer}");
        answer["result"].clone()
    }
}

/// Signs a client in; the answer tells over which connection of the Director, and the Path it got.
fn sign_in(next_hops: &mut [Peer], client: &mut Peer) -> (usize, String) {
    client.send(register("bob"));
    for _ in 0..100 {
        for (at, peer) in next_hops.iter_mut().enumerate() {
            if let Some(asked) = peer.try_receive(Duration::from_millis(25)) {
                peer.send(response(&asked, "200 OK"));
                assert_eq!(status(&client.receive()), "200 OK");
                return (at, values(&asked, "Path")[0].to_owned());
            }
        }
    }
    panic!("nothing came to the Director");
}

#[test]
fn connections_are_listed_filtered_and_paged() {
    let edge = Edge::start(BTreeMap::new());
    let admin = Admin::of(&edge);
    let mut next_hops = edge.next_hops();
    let mut bob = edge.client();
    sign_in(&mut next_hops, &mut bob);
    let mut others: Vec<_> = (0..5).map(|_| edge.client()).collect();
    others.push(edge.partner("sip.fabrikam.test"));
    // A handshake is done when something is said.
    for other in &mut others {
        other.send("\r\n\r\n");
    }
    edge.until("all there", || edge.metric("edge_access_flows") == 9);

    let all = admin.result(&json!({ "command": "connections" }));
    assert_eq!((&all["total"], &all["matching"]), (&json!(9), &json!(9)));
    assert_eq!(all["member"], "edge1");
    let rows = all["connections"].as_array().expect("rows");
    assert_eq!(rows.len(), 9);
    let count = |key: &str, word: &str| rows.iter().filter(|row| row[key] == word).count();
    assert_eq!(count("side", "client"), 6);
    assert_eq!(
        (count("state", "newcomer"), count("state", "promoted")),
        (5, 1)
    );
    assert_eq!(
        (count("state", "unproven"), count("state", "trusted")),
        (1, 2)
    );
    let theirs = rows
        .iter()
        .find(|row| row["side"] == "partner")
        .expect("the partner");
    assert_eq!(theirs["names"], json!(["sip.fabrikam.test"]));
    assert_eq!(
        (&theirs["opened_by"], &theirs["queued_bytes"]),
        (&json!("peer"), &json!(0))
    );

    let named = admin.result(&json!({ "command": "connections", "name": "fabrikam.test" }));
    assert_eq!(
        (&named["matching"], &named["total"]),
        (&json!(1), &json!(9))
    );
    let mut after = Value::Null;
    let mut seen = Vec::new();
    loop {
        let page = admin.result(&json!({ "command": "connections", "limit": 2, "after": after }));
        let rows = page["connections"].as_array().expect("rows");
        assert!(rows.len() <= 2);
        seen.extend(rows.iter().map(|row| row["flow"].to_string()));
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    let whole: Vec<_> = rows.iter().map(|row| row["flow"].to_string()).collect();
    assert_eq!(
        seen, whole,
        "pages side by side are the whole, with nothing twice"
    );

    for (wrong, word) in [
        (
            json!({ "command": "connections", "state": "happy" }),
            "newcomer",
        ),
        (json!({ "command": "connections", "limit": 0 }), "from 1 to"),
        (json!({ "command": "connections", "after": "x" }), "next"),
        (
            json!({ "command": "connections", "remote": "nobody" }),
            "no address",
        ),
    ] {
        let answer = admin.ask(&wrong);
        assert!(
            answer["error"].as_str().is_some_and(|e| e.contains(word)),
            "{answer}"
        );
    }
}

#[test]
fn a_call_across_the_cores_is_one_timeline() {
    let edge = Edge::start(BTreeMap::new());
    let admin = Admin::of(&edge);
    let mut next_hops = edge.next_hops();
    let mut director = edge.inside(DIRECTOR_NAME);
    let mut bob = edge.client();
    let (_, path) = sign_in(&mut next_hops, &mut bob);
    let nothing = admin.result(&json!({ "command": "trace" }));
    assert_eq!(
        (&nothing["held"], &nothing["recording"]),
        (&json!(0), &json!("off"))
    );

    admin.result(&json!({ "command": "trace.record", "for": "1 min" }));
    let route = format!("Route: {path}");
    director.send(request(
        "INVITE",
        "sip:bob@10.1.0.10:5061",
        "alice@contoso.test",
        "bob@contoso.test",
        &[&route],
    ));
    let invite = bob.receive();
    bob.send(response(&invite, "200 OK"));
    director.receive();
    // A route that nobody gave out is refused, and the trace says so.
    let stray = request(
        "BYE",
        "sip:alice@10.1.0.20",
        "bob@contoso.test",
        "alice@contoso.test",
        &[],
    );
    let stray = stray.replacen("BYE sip:alice@10.1.0.20", "BYE mailto:alice", 1);
    bob.send(&stray);
    assert_eq!(status(&bob.receive()), "416 Unsupported URI Scheme");

    let call_id = values(&invite, "Call-ID")[0];
    let told = admin.result(&json!({ "command": "trace", "call_id": call_id }));
    let lines: Vec<String> = told["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .filter(|entry| entry["direction"] != "across" && entry["message"] != "100")
        .map(|entry| {
            let word = |key: &str| entry[key].as_str().unwrap_or_default();
            format!("{} {} {}", word("direction"), word("message"), word("side"))
        })
        .collect();
    assert_eq!(
        lines[..4],
        [
            "in INVITE inside",
            "out INVITE client",
            "in 200 client",
            "out 200 inside"
        ],
        "{told:#}"
    );
    let stray_id = values(&stray, "Call-ID")[0];
    let told = admin.result(&json!({ "command": "trace", "call_id": stray_id }));
    let refused = &told["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .find(|e| e["message"] == "BYE");
    assert_eq!(
        refused.expect("the BYE")["outcome"],
        json!({ "kind": "refused", "status": 416, "reason": "scheme" })
    );
    let recent = admin.result(&json!({ "command": "trace", "limit": 10 }));
    assert!(
        recent["entries"]
            .as_array()
            .is_some_and(|calls| !calls.is_empty())
    );

    admin.result(&json!({ "command": "trace.record", "for": "off" }));
    let held = admin.result(&json!({ "command": "trace" }))["held"].clone();
    bob.send(&stray);
    bob.receive();
    assert_eq!(
        admin.result(&json!({ "command": "trace" }))["held"],
        held,
        "off is off"
    );
    let too_long = admin.ask(&json!({ "command": "trace.record", "for": "2 d" }));
    assert!(
        too_long["error"]
            .as_str()
            .is_some_and(|e| e.contains("access.trace.always"))
    );
}

/// Everything that a collector gets within a moment, as text.
fn collected(socket: &UdpSocket) -> String {
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("set");
    let (mut all, mut packet) = (String::new(), [0; 65_536]);
    while let Ok(len) = socket.recv(&mut packet) {
        assert!(packet.starts_with(b"HEP3"));
        all += &String::from_utf8_lossy(&packet[..len]);
    }
    all
}

#[test]
fn a_mirror_is_set_up_and_taken_away_while_the_edge_runs() {
    let edge = Edge::start(BTreeMap::new());
    let collector = UdpSocket::bind("127.0.2.60:0").expect("a socket");
    let mut next_hops = edge.next_hops();
    let mut bob = edge.client();
    sign_in(&mut next_hops, &mut bob);
    let mut config = edge.config.clone();
    config.access.as_mut().expect("configured").hep = Some(Hep {
        collector: "127.0.2.60".parse().expect("an address"),
        port: collector.local_addr().expect("bound").port(),
        percent: 100,
        bodies: false,
    });
    edge.reloader.reload(config).expect("reloaded");
    std::thread::sleep(Duration::from_millis(100));
    let answer = "Authorization: Digest response=\"SECRET\"";
    let message = request(
        "MESSAGE",
        "sip:a@contoso.test",
        "bob@contoso.test",
        "a@contoso.test",
        &[answer],
    );
    bob.send(message.replace(
        "Content-Length: 0\r\n\r\n",
        "Content-Length: 6\r\n\r\nSECRET",
    ));
    let all = collected(&collector);
    assert_eq!(
        all.matches("MESSAGE sip:a@contoso.test SIP/2.0").count(),
        2,
        "in and out: {all}"
    );
    assert!(
        all.contains("Digest withheld") && !all.contains("SECRET"),
        "{all}"
    );
    assert_eq!(edge.metric("edge_access_hep_packets_total"), 2);
    edge.reloader.reload(edge.config.clone()).expect("reloaded");
    std::thread::sleep(Duration::from_millis(100));
    bob.send(message);
    assert_eq!(collected(&collector), "");
}

/// A message of the partner, which has to arrive at the Director and to be answered.
fn speaks(next_hops: &mut [Peer], partner: &mut Peer) {
    partner.send(request(
        "MESSAGE",
        "sip:bob@contoso.test",
        "carol@fabrikam.test",
        "bob@contoso.test",
        &[],
    ));
    for _ in 0..100 {
        for peer in next_hops.iter_mut() {
            if let Some(asked) = peer.try_receive(Duration::from_millis(25)) {
                peer.send(response(&asked, "200 OK"));
                assert_eq!(status(&partner.receive()), "200 OK");
                return;
            }
        }
    }
    panic!("nothing came to the Director");
}

#[test]
fn certificates_and_authorities_are_replaced_twice_and_no_connection_notices() {
    let edge = Edge::start(BTreeMap::from([(
        "_sipfederationtls._tcp.fabrikam.test",
        Record::Srv(5061, "sip.fabrikam.test"),
    )]));
    let mut next_hops = edge.next_hops();
    // Generation after generation: an authority, a client and a partner that came under it.
    let mut living = Vec::new();
    let generations = [None, Some(Pki::new()), Some(Pki::new())];
    let files = edge
        .config
        .access
        .as_ref()
        .expect("configured")
        .certificates[0]
        .clone();
    let directory = files.chain.parent().expect("a directory");
    for (at, new) in generations.iter().enumerate() {
        let pki = new.as_ref().unwrap_or(&edge.pki);
        if new.is_some() {
            pki.write(directory, "access", &["sip.contoso.test"]);
            let inside = ["edge1.contoso.internal", "edge.contoso.internal"];
            pki.write(directory, "internal", &inside);
            pki.write_ca(&edge.config.internal.ca);
            edge.reloader.reload(edge.config.clone()).expect("reloaded");
        }
        let mut client = edge.client_of(pki);
        sign_in(&mut next_hops, &mut client);
        let mut partner = edge.partner_as(pki.client("sip.fabrikam.test"));
        speaks(&mut next_hops, &mut partner);
        living.push((client, partner));
        for (client, partner) in &mut living {
            sign_in(&mut next_hops, client);
            speaks(&mut next_hops, partner);
        }
        let Some(before) = at.checked_sub(1) else {
            continue;
        };
        let old = generations[before].as_ref().unwrap_or(&edge.pki);
        assert!(
            edge.client_of(old).is_closed(),
            "the new certificate is shown"
        );
        let late = pki.client_of("sip.fabrikam.test", old);
        assert!(
            edge.partner_as(late).is_closed(),
            "the old authority is no longer trusted"
        );
    }
    assert_eq!(
        edge.metric("edge_access_flows"),
        8,
        "six, and two to the Director"
    );
}

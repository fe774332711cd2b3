//! The daemon, the agent and a plain TCP server on loopback: what a client gets with the right
//! number, and what it gets with anything else.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

mod bad_input;
mod joins;
mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use edge_webconf::ewrp::control::{Frame, Hello, HelloAck};
use edge_webconf::ewrp::{Status, data};
use support::{Client, Raw, Server, World, assert_closed, finish, hear, pattern, until};

fn unchanged(_: &mut edge_common::config::Config) {}

/// A client that is relayed, with the server's end of the stream. The number has been read.
fn joined(world: &World, agent: &support::Agent, server: &Server) -> (Client, TcpStream) {
    let number = agent.admit("{}");
    let mut client = world.client();
    writeln!(client, "{number}").unwrap();
    let mut stream = server.accept();
    let mut shown = vec![0; number.len() + 1];
    stream.read_exact(&mut shown).unwrap();
    assert_eq!(shown, format!("{number}\n").as_bytes());
    let done = "edge_webconf_handshakes_done_total{listener=\"client\",version=\"1.3\"}";
    assert!(world.metric(done) > 0);
    assert!(world.metric("edge_webconf_handshake_seconds_count") > 0);
    (client, stream)
}

#[test]
fn ten_megabytes_go_each_way_unchanged() {
    const LEN: usize = 10 << 20;
    let world = World::new(1, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut client, stream) = joined(&world, &agent, &server);
    let (up, down) = (pattern(LEN, 1), pattern(LEN, 2));

    let (up_hash, down_hash) = (digest(&SHA256, &up), digest(&SHA256, &down));
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        sender.write_all(&down).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut receiver = stream;
    let receiving = std::thread::spawn(move || {
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).unwrap();
        received
    });
    // Both directions at once from one blocking client: a piece up, a piece down.
    let mut received = vec![0; LEN];
    for (piece, place) in up.chunks(64 << 10).zip(received.chunks_mut(64 << 10)) {
        client.write_all(piece).unwrap();
        client.read_exact(place).unwrap();
    }
    finish(&mut client);
    assert_closed(&mut client);
    sending.join().unwrap();
    let arrived = receiving.join().unwrap();
    assert_eq!(digest(&SHA256, &arrived).as_ref(), up_hash.as_ref());
    assert_eq!(digest(&SHA256, &received).as_ref(), down_hash.as_ref());

    world.until_metric("edge_webconf_relays_closed_total{status=\"ok\"}", 1);
    let exact = |direction: &str| {
        world.metric(&format!(
            "edge_webconf_relayed_bytes_total{{direction=\"{direction}\"}}"
        ))
    };
    // The number and its line end are part of the stream.
    assert_eq!(exact("in"), LEN as u64 + 20);
    assert_eq!(exact("out"), LEN as u64);
    until("the agent's account", || {
        agent.metric("edge_webconf_agent_relays ") == 0
    });
    for direction in ["in", "out"] {
        let counter =
            format!("edge_webconf_agent_relayed_bytes_total{{direction=\"{direction}\"}}");
        assert_eq!(agent.metric(&counter), exact(direction), "{direction}");
    }
    let accepted = "edge_webconf_connections_accepted_total{listener=\"client\"}";
    assert_eq!(world.metric(accepted), 1);
}

type Form = dyn Fn(&str) -> Vec<u8>;

#[test]
fn all_five_encodings_join() {
    let world = World::new(2, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let utf16 = |number: &str, be: bool| -> Vec<u8> {
        let units = number.encode_utf16();
        units
            .flat_map(|unit| {
                if be {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    };
    let integer = |number: &str| number.parse::<u64>().unwrap();
    let forms: [(&str, Box<Form>); 5] = [
        ("ascii", Box::new(|number| number.as_bytes().to_vec())),
        ("utf16le", Box::new(move |number| utf16(number, false))),
        ("utf16be", Box::new(move |number| utf16(number, true))),
        (
            "i64be",
            Box::new(move |number| integer(number).to_be_bytes().to_vec()),
        ),
        (
            "i64le",
            Box::new(move |number| integer(number).to_le_bytes().to_vec()),
        ),
    ];
    for (encoding, form) in forms {
        let number = agent.admit("{}");
        let shown = [b"PSOM".as_slice(), &form(&number)].concat();
        let mut client = world.client();
        // In two pieces, with the cut in the midst of the number; nothing follows it.
        client.write_all(&shown[..8]).unwrap();
        client.flush().unwrap();
        std::thread::sleep(Duration::from_millis(30));
        client.write_all(&shown[8..]).unwrap();
        let mut stream = server.accept();
        let mut seen = vec![0; shown.len()];
        stream.read_exact(&mut seen).unwrap();
        assert_eq!(seen, shown, "{encoding}");
        stream.write_all(b"welcome").unwrap();
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"welcome", "{encoding}");
        let counter = format!("edge_webconf_numbers_matched_total{{encoding=\"{encoding}\"}}");
        assert_eq!(world.metric(&counter), 1, "{encoding}");
    }
}

#[test]
fn anything_but_a_live_number_gets_the_same_close() {
    let world = World::new(3, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let used = agent.admit("{}");
    let mut first = world.client();
    writeln!(first, "{used}").unwrap();
    drop(server.accept());
    let expired = agent.admit("{\"ttl\":\"50 ms\"}");
    std::thread::sleep(Duration::from_millis(60));
    let live = agent.admit("{}");

    let attempts = [
        ("nothing", String::new()),
        ("a wrong number", "1234567890123456789 ".to_owned()),
        ("one digit short", format!("{} ", &live[..18])),
        ("one digit more", format!("{live}0 ")),
        ("a digit in front", format!("7{live} ")),
        ("a used number", format!("{used} ")),
        ("an expired number", format!("{expired} ")),
    ];
    let mut clients: Vec<_> = attempts
        .iter()
        .map(|(what, text)| {
            let mut client = world.client();
            client.write_all(text.as_bytes()).unwrap();
            client.flush().unwrap();
            (what, std::time::Instant::now(), client)
        })
        .collect();
    // Nobody is told before the time for a number is over, whatever was shown.
    for (what, sent, client) in &mut clients {
        assert_closed(client);
        let waited = sent.elapsed();
        assert!(waited >= Duration::from_millis(700), "{what}: {waited:?}");
    }
    let mut long = world.client();
    long.write_all(&[b'x'; 5000]).unwrap();
    assert!(assert_closed(&mut long) < Duration::from_millis(700));
    assert!(server.is_untouched());

    let refused = |status: &str| {
        world.metric(&format!(
            "edge_webconf_clients_refused_total{{status=\"{status}\"}}"
        ))
    };
    assert_eq!(refused("token_used"), 1);
    assert_eq!(refused("token_unknown"), 1);
    assert_eq!(refused("preread") + refused("token_expired"), 6);

    // The number that was played with is as good as before.
    let mut client = world.client();
    writeln!(client, "{live}").unwrap();
    drop(server.accept());
}

#[test]
fn each_end_may_close_its_direction_first() {
    let world = World::new(4, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);

    let (mut client, mut stream) = joined(&world, &agent, &server);
    client.write_all(b"question").unwrap();
    finish(&mut client);
    let mut question = String::new();
    stream.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    let answer = pattern(300_000, 3);
    stream.write_all(&answer).unwrap();
    drop(stream);
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == answer, "the answer behind a half-close");

    let (mut client, mut stream) = joined(&world, &agent, &server);
    stream.write_all(b"banner").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut banner = String::new();
    client.read_to_string(&mut banner).unwrap();
    assert_eq!(banner, "banner");
    let upload = pattern(300_000, 4);
    client.write_all(&upload).unwrap();
    finish(&mut client);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == upload, "the upload behind a half-close");
    world.until_metric("edge_webconf_relays_closed_total{status=\"ok\"}", 2);
}

#[test]
fn a_broken_client_breaks_the_servers_stream() {
    let world = World::new(5, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut client, mut stream) = joined(&world, &agent, &server);
    client.write_all(b"half a mess").unwrap();
    let mut seen = [0; 11];
    stream.read_exact(&mut seen).unwrap();
    // FIN without close_notify: the rest may have been cut off by somebody on the way.
    drop(client);
    let error = stream.read(&mut seen).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    world.until_metric("edge_webconf_relays ", 0);
    world.until_metric("edge_webconf_relays_closed_total{status=\"protocol\"}", 1);
}

#[test]
fn a_number_counts_its_uses() {
    let world = World::new(6, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let number = agent.admit("{\"uses\":2}");
    for _ in 0..2 {
        let mut client = world.client();
        writeln!(client, "{number}").unwrap();
        drop(server.accept());
    }
    let mut third = world.client();
    writeln!(third, "{number}").unwrap();
    assert_closed(&mut third);
    assert!(server.is_untouched());
}

#[test]
fn agents_that_the_inside_does_not_vouch_for_stay_out() {
    let world = World::new(7, unchanged);
    let server = Server::new();
    let rogue = support::Authority::new("rogue-ca", world.directory.path());
    let forged = world.agent_of(&rogue, support::AGENT, server.address);
    let failed = "edge_webconf_handshakes_failed_total{listener=\"agent\",reason=\"";
    until("the forged agent's attempt", || {
        forged.post("/admit", "{}").0 == 503 && world.metric(failed) > 0
    });
    drop(forged);
    let unlisted = world.agent_of(&world.inside, "mcu9.contoso.internal", server.address);
    let refused = "edge_webconf_agents_refused_total{status=\"not_trusted\"}";
    until("the unlisted agent's attempt", || world.metric(refused) > 0);
    assert_eq!(unlisted.post("/admit", "{}").0, 503);
    assert!(!world.is_ready());
    assert_eq!(world.metric("edge_webconf_agent_sessions "), 0);
}

#[test]
fn relays_outlive_their_session_and_end_a_drain() {
    let mut world = World::new(8, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut client, mut stream) = joined(&world, &agent, &server);
    until("ready", || world.is_ready());
    world.drain_edge();
    until("not ready", || !world.is_ready());
    assert_eq!(agent.post("/admit", "{}").0, 503);
    client.write_all(b"still here").unwrap();
    let mut seen = [0; 10];
    stream.read_exact(&mut seen).unwrap();
    assert!(TcpStream::connect(world.external()).is_err());
    drop(stream);
    finish(&mut client);
    assert_closed(&mut client);
    world.until_edge_ended();
}

#[test]
fn a_reader_that_stalls_holds_up_only_its_own_stream() {
    let world = World::new(9, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut stalled, flood) = joined(&world, &agent, &server);
    flood.set_nonblocking(true).unwrap();
    let chunk = pattern(64 << 10, 5);
    let mut sent = 0_u64;
    let mut quiet = 0;
    // The server sends until nothing has been taken for half a second.
    while quiet < 25 {
        match (&flood).write(&chunk) {
            Ok(len) => (sent, quiet) = (sent + len as u64, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                quiet += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let counter = "edge_webconf_relayed_bytes_total{direction=\"out\"}";
    let held = world.metric(counter);
    assert!(held < 3 << 20, "{held} bytes went into a stalled relay");
    assert!(sent < 32 << 20, "{sent} bytes were taken from the server");

    let (mut other, mut stream) = joined(&world, &agent, &server);
    stream.write_all(b"lively").unwrap();
    let mut seen = [0; 6];
    other.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"lively");

    // What was sent arrives once it is read.
    flood.shutdown(Shutdown::Write).unwrap();
    let mut arrived = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stalled.read(&mut buffer).unwrap() {
            0 => break,
            len => arrived += len as u64,
        }
    }
    assert_eq!(arrived, sent);
}

#[test]
fn clients_of_one_core_get_data_connections_of_another() {
    // One data connection at a time: by the law of large numbers half of the joins cross cores.
    let world = World::new(10, |config| {
        let limits = &mut config.webconf.as_mut().unwrap().limits;
        (limits.pool_min, limits.pool_max) = (1, 1);
    });
    let server = Server::new();
    let agent = world.agent(server.address);
    for round in 0..24 {
        let (mut client, mut stream) = joined(&world, &agent, &server);
        let sent = pattern(100_000, round);
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent, "round {round}");
        finish(&mut client);
    }
    let moved = world.metric("edge_webconf_leases_across_cores_total");
    assert!((1..24).contains(&moved), "{moved} of 24 leases crossed");
}

#[test]
fn a_number_is_used_up_for_all_edges_of_an_array() {
    let world = World::new(11, unchanged);
    let second = world.second_edge();
    let server = Server::new();
    let edges = [world.internal(), second.internal];
    let agent = world.agent_at(&world.inside, support::AGENT, server.address, &edges);
    let sessions = "edge_webconf_agent_sessions ";
    until("both sessions", || {
        world.metric(sessions) == 1 && second.metric(sessions) == 1
    });
    until("both edges in the answer", || {
        let (status, answer) = agent.post("/admit", "{}");
        status == 200 && answer["edges"].as_array().unwrap().len() == 2
    });
    let number = agent.admit("{\"uses\":2}");
    let held = "edge_webconf_admitted_numbers ";
    let before = world.metric(held);
    for edge in [world.external(), second.external] {
        let mut client = world.client_of(edge);
        writeln!(client, "{number}").unwrap();
        drop(server.accept());
    }
    // The second edge has its own count, and lets one more through; the agent does not.
    let mut again = world.client_of(second.external);
    writeln!(again, "{number}").unwrap();
    assert_closed(&mut again);
    let refused = "edge_webconf_clients_refused_total{status=\"token_used\"}";
    assert_eq!(second.metric(refused), 1);
    let opens = "edge_webconf_agent_opens_total{status=\"token_used\"}";
    assert_eq!(agent.metric(opens), 1);
    // The first edge was told that the number is spent.
    world.until_metric(held, before - 1);
    let mut late = world.client();
    writeln!(late, "{number}").unwrap();
    assert_closed(&mut late);
    assert_eq!(agent.metric(opens), 1);
    assert!(server.is_untouched());
}

#[test]
fn an_agent_that_stops_lets_its_streams_end_and_says_goodbye() {
    let world = World::new(21, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut client, mut stream) = joined(&world, &agent, &server);
    agent.drain();
    until("no more clients", || !world.is_ready());
    stream.write_all(b"still there").unwrap();
    let mut seen = [0; 11];
    client.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"still there");
    let ended = "edge_webconf_agent_sessions_ended_total{status=\"shutdown\"}";
    assert_eq!(world.metric(ended), 0);
    drop((client, stream));
    world.until_metric(ended, 1);
    agent.until_ended();
}

#[test]
fn an_agent_that_starts_again_admits_again_what_is_open_and_knows_what_was_used_and_revoked() {
    let world = World::new(22, unchanged);
    let server = Server::new();
    let file = world.directory.path().join("numbers");
    let edges = [world.internal()];
    let top = format!("state = {file:?}\ntoken_key = \"join.key\"");
    let start = || {
        let authority = &world.inside;
        let uses = ", token_uses = 9";
        world.agent_with(
            authority,
            support::AGENT,
            server.address,
            &edges,
            &top,
            uses,
        )
    };
    let agent = start();
    let open = agent.admit("{\"uses\":2}");
    let used = agent.admit("{}");
    for number in [&open, &used] {
        let mut client = world.client();
        writeln!(client, "{number}").unwrap();
        drop(server.accept());
    }
    let (status, minted) = agent.post("/token", "{}");
    assert_eq!(status, 200);
    let (token, number) = (minted["token"].as_str().unwrap(), &minted["number"]);
    let body = format!("{{\"number\":{number}}}");
    assert_eq!(agent.post("/revoke", &body).0, 200);
    agent.drain();
    agent.until_ended();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = start();
    world.until_metric("edge_webconf_admitted_numbers ", 1);
    let mut client = world.client();
    writeln!(client, "{open}").unwrap();
    drop(server.accept());
    for number in [&open, &used] {
        let mut late = world.client();
        writeln!(late, "{number}").unwrap();
        assert_closed(&mut late);
    }
    let mut late = world.client();
    write!(late, "EWC1 {token}\r\n").unwrap();
    assert_closed(&mut late);
    assert!(server.is_untouched());
    assert_eq!(again.metric("edge_webconf_agent_opens_total"), 1);
}

#[test]
fn an_edge_that_comes_back_is_told_the_open_numbers() {
    let mut world = World::new(12, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let number = agent.admit("{}");
    world.kill_edge();
    until("the agent has noticed", || {
        agent.metric("edge_webconf_agent_sessions ") == 0
    });
    assert_eq!(agent.post("/admit", "{}").0, 503);
    world.restart_edge();
    until("the number is there again", || {
        world.metric("edge_webconf_admitted_numbers ") == 1
    });
    let mut client = world.client();
    writeln!(client, "{number}").unwrap();
    drop(server.accept());
}

#[test]
fn a_lost_agent_leaves_no_way_in() {
    let world = World::new(13, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let number = agent.admit("{}");
    until("ready", || world.is_ready());
    drop(agent);
    until("not ready", || !world.is_ready());
    world.until_metric("edge_webconf_parked_connections ", 0);
    world.until_metric("edge_webconf_admitted_numbers ", 0);
    let mut client = world.client();
    writeln!(client, "{number}").unwrap();
    assert_closed(&mut client);
    assert!(server.is_untouched());
}

/// A control session by hand.
fn session(world: &World) -> (Raw, HelloAck) {
    let mut control = world.raw_agent(support::AGENT, &[b"ewrp/1"]);
    let hello = Frame::Hello(Hello {
        version_min: 1,
        version_max: 1,
        agent_id: [3; 16],
        epoch: 1,
        caps: 0,
        max_conns: 0,
        fqdn: support::AGENT.into(),
    });
    control.write_all(&hello.to_bytes()).unwrap();
    let Frame::HelloAck(ack) = hear(&mut control) else {
        panic!("no HELLO_ACK");
    };
    let wanted = Frame::Want {
        count: 4,
        deadline_ms: 5_000,
    };
    assert_eq!(hear(&mut control), wanted);
    (control, ack)
}

#[test]
fn data_connections_that_prove_nothing_are_closed() {
    let world = World::new(14, unchanged);
    let (_control, ack) = session(&world);
    let parked = "edge_webconf_parked_connections ";
    let dial = |hello: &[u8]| {
        let mut connection = world.raw_agent(support::AGENT, &[b"ewrp-data/1"]);
        connection.write_all(hello).unwrap();
        connection
    };
    let good = data::hello(&ack.session, 1, &ack.secret);
    let mut forged = good;
    forged[60] ^= 1;
    assert_closed(&mut dial(&forged));
    assert_closed(&mut dial(b"GET / HTTP/1.1\r\n"));
    assert_eq!(world.metric(parked), 0);

    let mut first = dial(&good);
    world.until_metric(parked, 1);
    assert_closed(&mut dial(&good));
    world.until_metric(parked, 1);
    let refused = "edge_webconf_agents_refused_total{status=\"auth\"}";
    assert_eq!(world.metric(refused), 2);
    // A parked connection has nothing to say.
    first.write_all(b"x").unwrap();
    assert_closed(&mut first);
    world.until_metric(parked, 0);
}

#[test]
fn what_is_not_ewrp_over_tls_1_3_is_closed() {
    let world = World::new(15, unchanged);
    assert_closed(&mut world.raw_agent(support::AGENT, &[]));
    let old = &[&rustls::version::TLS12];
    assert_closed(&mut world.raw_agent_over(support::AGENT, &[b"ewrp/1"], old));

    let mut control = world.raw_agent(support::AGENT, &[b"ewrp/1"]);
    control
        .write_all(b"\x01\x20\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01")
        .unwrap();
    let Frame::Goaway { status, text } = hear(&mut control) else {
        panic!("no GOAWAY");
    };
    assert_eq!((status, &*text), (Status::Protocol, "Ping before HELLO"));
    assert_closed(&mut control);
    let refused =
        |status: &str| format!("edge_webconf_agents_refused_total{{status=\"{status}\"}}");
    // Without ALPN, and with a frame too early.
    world.until_metric(&refused("protocol"), 2);
    world.until_metric(&refused("version"), 1);
}

#[test]
fn silence_ends_a_relay() {
    let world = World::new(16, |config| {
        let limits = &mut config.webconf.as_mut().unwrap().limits;
        limits.idle_timeout = Duration::from_millis(1500);
        limits.half_close_timeout = Duration::from_millis(500);
    });
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut client, stream) = joined(&world, &agent, &server);
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(2000) {
        client.write_all(b"tick").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let busy = "edge_webconf_relays ";
    assert_eq!(world.metric(busy), 1, "a byte now and then is no silence");
    world.until_metric("edge_webconf_relays_closed_total{status=\"idle\"}", 1);
    assert!(client.read(&mut [0]).is_err(), "not a proper end");

    let (_client, half) = joined(&world, &agent, &server);
    let start = std::time::Instant::now();
    half.shutdown(Shutdown::Write).unwrap();
    world.until_metric("edge_webconf_relays_closed_total{status=\"idle\"}", 2);
    assert!(start.elapsed() < Duration::from_millis(1400));
    drop(stream);
}

#[test]
fn a_reload_cuts_who_is_off_the_list_and_shows_new_certificates() {
    let mut world = World::new(17, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut client, mut stream) = joined(&world, &agent, &server);
    let before = world.client().conn.peer_certificates().unwrap().to_vec();

    // A bad file changes nothing.
    let broken = world.reload_edge(|config| {
        let webconf = config.webconf.as_mut().unwrap();
        webconf.agents.clear();
        webconf.certificates[0].chain = "/nowhere.pem".into();
    });
    assert!(broken.unwrap_err().contains("/nowhere.pem"));
    assert_eq!(world.metric("edge_webconf_agent_sessions "), 1);

    world.outside.issue("webconf", "webconf.contoso.test");
    world
        .reload_edge(|config| config.webconf.as_mut().unwrap().agents.clear())
        .unwrap();
    world.until_metric("edge_webconf_agent_sessions ", 0);
    let after = world.client().conn.peer_certificates().unwrap().to_vec();
    assert_ne!(before, after);
    assert_eq!(agent.post("/admit", "{}").0, 503);
    // What is relayed goes on.
    client.write_all(b"still here").unwrap();
    let mut seen = [0; 10];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"still here");

    world.reload_edge(unchanged).unwrap();
    until("the agent is back", || {
        world.metric("edge_webconf_agent_sessions ") == 1
    });
}

#[test]
fn a_revoked_number_is_void_and_may_cut_its_stream() {
    let world = World::new(18, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let revoke = |number: &str, cut: bool| {
        let body = format!("{{\"number\":\"{number}\",\"cut\":{cut}}}");
        assert_eq!(agent.post("/revoke", &body).0, 200);
    };
    let unused = agent.admit("{}");
    revoke(&unused, false);
    let mut late = world.client();
    writeln!(late, "{unused}").unwrap();
    assert_closed(&mut late);

    let number = agent.admit("{}");
    let mut client = world.client();
    writeln!(client, "{number}").unwrap();
    let mut stream = server.accept();
    let mut seen = [0; 20];
    stream.read_exact(&mut seen).unwrap();
    // The server has its stream before the edge knows it; what comes back shows that the relay runs. A client that is
    // cut earlier is refused like any other.
    stream.write_all(b"there").unwrap();
    client.read_exact(&mut seen[..5]).unwrap();
    revoke(&number, true);
    // Neither end may take what it has for all there is.
    assert!(client.read(&mut seen).is_err());
    let error = stream.read(&mut seen).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_edge_that_dies_leaves_no_stream_that_looks_whole() {
    let mut world = World::new(19, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let (mut client, mut stream) = joined(&world, &agent, &server);
    client.write_all(b"half").unwrap();
    let mut seen = [0; 4];
    stream.read_exact(&mut seen).unwrap();
    world.kill_edge();
    assert!(client.read(&mut seen).is_err());
    let error = stream.read(&mut seen).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

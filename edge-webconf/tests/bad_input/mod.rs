//! What strangers and rogue agents try over real sockets: nothing goes inside, the close is the same, a counter tells why.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use edge_webconf::ewrp::control::{Frame, Register, RegistrationKind};
use edge_webconf::ewrp::{Status, data};

use super::support::{self, Server, World, assert_closed, hear, until};
use super::{session, unchanged};

fn refused(status: &str) -> String {
    format!("edge_webconf_clients_refused_total{{status=\"{status}\"}}")
}

fn agents_refused(status: &str) -> String {
    format!("edge_webconf_agents_refused_total{{status=\"{status}\"}}")
}

#[test]
fn numbers_that_are_nearly_right_reach_nobody() {
    let world = World::new(40, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let number: u64 = agent.admit("{\"ttl\":\"60 s\"}").parse().unwrap();
    let digits = number.to_string();
    let mut straddling = vec![b'x'; 4096 - 10];
    straddling.extend_from_slice(digits.as_bytes());
    let attempts: Vec<(&str, Vec<u8>, &str)> = vec![
        ("one more", format!("{} ", number + 1).into(), "preread"),
        ("one less", format!("{} ", number - 1).into(), "preread"),
        (
            "a digit short",
            format!("{} ", &digits[1..]).into(),
            "preread",
        ),
        ("a digit in front", format!("1{digits} ").into(), "preread"),
        ("a digit behind", format!("{digits}1 ").into(), "preread"),
        (
            "as an integer, one more",
            (number + 1).to_be_bytes().into(),
            "preread",
        ),
        ("across the limit", straddling, "token_unknown"),
    ];
    for (what, bytes, status) in attempts {
        let before = world.metric(&refused(status));
        let mut client = world.client();
        client.write_all(&bytes).unwrap();
        assert_closed(&mut client);
        assert!(server.is_untouched(), "{what}");
        world.until_metric(&refused(status), before + 1);
    }
    // It was good all the time.
    let mut client = world.client();
    writeln!(client, "{number}").unwrap();
    drop(server.accept());
}

#[test]
fn an_expired_number_and_a_used_one_are_closed_at_the_same_moment() {
    let world = World::new(41, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let expired = agent.admit("{\"ttl\":1}");
    let used = agent.admit("{}");
    let mut first = world.client();
    writeln!(first, "{used}").unwrap();
    drop(server.accept());
    std::thread::sleep(Duration::from_millis(1100));
    let took = |what: &str| {
        let mut client = world.client();
        writeln!(client, "{what}").unwrap();
        assert_closed(&mut client)
    };
    let unknown = took("1111111111111111111");
    for other in [took(&expired), took(&used)] {
        let apart = other.abs_diff(unknown);
        assert!(apart < Duration::from_millis(300), "{other:?} {unknown:?}");
    }
    assert!(server.is_untouched());
    world.until_metric(&refused("token_used"), 1);
}

#[test]
fn dribbled_bytes_end_with_the_time_and_a_dribbled_number_joins() {
    let world = World::new(42, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    let number = agent.admit("{}");
    let mut slow = world.client();
    for byte in format!("{number} ").bytes() {
        slow.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(server.accept());
    let mut endless = world.client();
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(1500) && endless.write_all(b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
    world.until_metric(&refused("preread"), 1);
    assert!(server.is_untouched());
}

#[test]
fn other_protocols_and_silence_get_the_same_close() {
    let world = World::new(43, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    agent.admit("{}");
    let hello_in_hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".as_slice();
    let connect = format!("CONNECT {} HTTP/1.1\r\n\r\n", server.address);
    for (count, bytes) in [
        b"GET / HTTP/1.1\r\nHost: webconf.contoso.test\r\n\r\n".as_slice(),
        connect.as_bytes(),
        b"\x05\x01\x00",
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        hello_in_hello,
        b"EWC1 v1.00000000.e30.AAAA\r\n",
        b"",
    ]
    .iter()
    .enumerate()
    {
        let mut client = world.client();
        client.write_all(bytes).unwrap();
        let took = assert_closed(&mut client);
        assert!(
            took > Duration::from_millis(700),
            "{took:?} after {bytes:?}"
        );
        world.until_metric(&refused("preread"), count as u64 + 1);
    }
    assert!(server.is_untouched());
    let token = "edge_webconf_tokens_refused_total{reason=\"unknown_key\"}";
    assert_eq!(world.metric(token), 1);
}

#[test]
fn data_connections_with_a_foreign_certificate_are_closed() {
    let world = World::new(44, |config| {
        let agents = &mut config.webconf.as_mut().unwrap().agents;
        agents.push("mcu2.contoso.internal".parse().unwrap());
    });
    let (_control, ack) = session(&world);
    let hello = data::hello(&ack.session, 1, &ack.secret);
    // A trusted agent, and yet not the one of the session.
    let mut other = world.raw_agent("mcu2.contoso.internal", &[b"ewrp-data/1"]);
    other.write_all(&hello).unwrap();
    assert_closed(&mut other);
    // One that nobody has listed.
    let mut stranger = world.raw_agent("mcu9.contoso.internal", &[b"ewrp-data/1"]);
    stranger.write_all(&hello).ok();
    assert_closed(&mut stranger);
    world.until_metric(&agents_refused("not_trusted"), 2);
    assert_eq!(world.metric("edge_webconf_parked_connections "), 0);
    // Neither has used the sequence number up.
    let mut own = world.raw_agent(support::AGENT, &[b"ewrp-data/1"]);
    own.write_all(&hello).unwrap();
    world.until_metric("edge_webconf_parked_connections ", 1);
}

#[test]
fn control_frames_with_every_field_wrong_end_their_own_session_only() {
    let world = World::new(45, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    agent.admit("{}");
    let frames: [&[u8]; 9] = [
        b"\x02\x20\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01",
        b"\x01\x77\0\0\0\0\0\0",
        b"\x01\x20\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x01",
        b"\x01\x20\0\0\0\0\x40\x01",
        b"\x01\x20\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\0",
        b"\x01\x01\0\0\0\0\0\x04EWRX",
        b"\x01\x02\0\0\0\0\0\0",
        b"\x01\x06\0\0\0\0\0\x12\0\0\0\x01\x11\x22\x10\xf4\x7d\xe9\x81\x15\0\0\xea\x60\0\x01",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    let ended = agents_refused("protocol");
    for (count, frame) in frames.iter().enumerate() {
        let mut control = world.raw_agent(support::AGENT, &[b"ewrp/1"]);
        control.write_all(frame).unwrap();
        let Frame::Goaway { status, .. } = hear(&mut control) else {
            panic!("no GOAWAY after {frame:?}");
        };
        assert_eq!(status, Status::Protocol, "{frame:?}");
        assert_closed(&mut control);
        world.until_metric(&ended, count as u64 + 1);
    }
    let number = agent.admit("{}");
    let mut client = world.client();
    writeln!(client, "{number}").unwrap();
    drop(server.accept());
}

#[test]
fn a_registration_outside_the_name_of_the_certificate_is_denied() {
    let world = World::new(46, unchanged);
    let (mut control, _ack) = session(&world);
    for (kind, name) in [
        (RegistrationKind::Server, "mcu2.contoso.internal"),
        (RegistrationKind::TcpService, "contoso.internal"),
        (RegistrationKind::Server, "evilmcu1.contoso.internal"),
        // Without the role.
        (RegistrationKind::Conference, "abcd1234"),
    ] {
        let register = Frame::Register(Register {
            reg_id: 7,
            kind,
            weight: 100,
            max_conns: 0,
            ttl_s: 0,
            name: name.into(),
        });
        control.write_all(&register.to_bytes()).unwrap();
        let denied = Frame::RegisterAck {
            reg_id: 7,
            status: Status::NameDenied,
        };
        assert_eq!(hear(&mut control), denied, "{name}");
    }
    let counter = "edge_webconf_registrations_total{status=\"name_denied\"}";
    assert_eq!(world.metric(counter), 4);
}

#[test]
fn a_target_that_is_down_is_a_close_and_a_used_number() {
    let world = World::new(47, unchanged);
    let nobody: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let agent = world.agent(nobody);
    let number = agent.admit("{}");
    for status in ["upstream_refused", "token_used"] {
        let mut client = world.client();
        writeln!(client, "{number}").unwrap();
        assert_closed(&mut client);
        world.until_metric(&refused(status), 1);
    }
    assert_eq!(
        agent.metric("edge_webconf_agent_opens_total{status=\"upstream_refused\"}"),
        1
    );
}

#[test]
fn a_user_who_may_not_ask_is_not_answered() {
    let world = World::new(48, unchanged);
    let server = Server::new();
    let agent = world.agent(server.address);
    // The socket is for its owner and group; who is neither does not get as far as the question.
    until("the socket", || agent.socket().exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(agent.socket()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o660);
    let (status, answer) = agent.post_with("/admit", "Origin: https://evil.test\r\n", "{}");
    assert_eq!((status, answer["number"].as_str()), (403, None));
    let mut silence = world.client();
    let mut byte = [0];
    assert_eq!(silence.read(&mut byte).unwrap(), 0);
    assert!(server.is_untouched());
}

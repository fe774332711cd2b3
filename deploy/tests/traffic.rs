//! Packets against the rules: an edge host between an outside and an inside, each a network namespace, with the
//! rendered network settings and the rendered packet filter in force.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot prepare itself has failed"
)]

mod namespace;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use edge_common::config;
use edge_deploy::apply::Nft;
use edge_deploy::firewall::{self, Users};
use edge_deploy::network::{self, script};
use namespace::Namespace;

/// The three places.
struct World {
    host: Namespace,
    outside: Namespace,
    inside: Namespace,
}

impl World {
    fn new() -> Option<Self> {
        let world = Self {
            host: Namespace::new()?,
            outside: Namespace::new()?,
            inside: Namespace::new()?,
        };
        world.host.cable("ext", &world.outside, "far");
        world.host.cable("int", &world.inside, "far");
        world
            .outside
            .ip(&["address", "add", "198.51.100.1/24", "dev", "far"]);
        world.outside.ip(&[
            "address",
            "add",
            "2001:db8:100::1/64",
            "dev",
            "far",
            "nodad",
        ]);
        world
            .outside
            .ip(&["address", "add", "203.0.113.9/32", "dev", "lo"]);
        world
            .outside
            .ip(&["route", "add", "10.10.0.0/16", "via", "198.51.100.10"]);
        world
            .inside
            .ip(&["address", "add", "10.10.0.50/24", "dev", "far"]);
        world
            .inside
            .ip(&["route", "add", "default", "via", "10.10.0.10"]);
        world
            .inside
            .ip(&["address", "add", "192.0.2.200/32", "dev", "lo"]);

        // Who lies in his packets still has to ask for the host's hardware address truthfully.
        for liar in [&world.outside, &world.inside] {
            let output = liar.run("sysctl", &["-qw", "net.ipv4.conf.all.arp_announce=2"]);
            assert!(output.status.success(), "{output:?}");
        }

        world.settle();
        Some(world)
    }

    /// Puts the rendered network settings and the rendered packet filter into force.
    fn settle(&self) {
        let text = include_str!("../examples/single.toml");
        let config = config::check(text, None).config.unwrap();
        let script = script::script(&network::network(&config));
        let rules = firewall::ruleset(
            &config,
            Users {
                webconf: Some(WEBCONF_USER),
            },
        );
        self.host.enter(|| {
            let mut shell = Command::new("sh").stdin(Stdio::piped()).spawn().unwrap();
            shell
                .stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            assert!(shell.wait().unwrap().success());
            Nft::default().load(&rules).unwrap();
        });
    }

    /// Packets that a named counter has seen.
    fn counted(&self, counter: &str) -> u64 {
        let counters = self.host.enter(|| Nft::default().counters().unwrap());
        counters
            .get(counter)
            .unwrap_or_else(|| panic!("no counter {counter}"))
            .packets
    }

    /// Answers one connection with one word.
    fn listen(&self, address: &str) {
        let listener = self.host.enter(|| TcpListener::bind(address).unwrap());
        thread::spawn(move || {
            while let Ok((mut socket, _)) = listener.accept() {
                socket.write_all(b"edge").ok();
            }
        });
    }
}

/// A number that no user of this machine has.
const WEBCONF_USER: u32 = 64_990;

const PATIENCE: Duration = Duration::from_secs(1);

fn reaches(from: &Namespace, to: &str) -> bool {
    let to: SocketAddr = to.parse().unwrap();
    from.enter(|| {
        let Ok(mut socket) = TcpStream::connect_timeout(&to, PATIENCE) else {
            return false;
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut word = [0; 4];
        socket.read_exact(&mut word).is_ok() && word == *b"edge"
    })
}

#[test]
fn listeners_are_reached_from_their_side_only_and_each_opening_is_counted_once() {
    let Some(world) = World::new() else { return };
    for address in [
        "198.51.100.10:443",
        "[2001:db8:100::10]:443",
        "10.10.0.10:5061",
        "0.0.0.0:7777",
    ] {
        world.listen(address);
    }
    for _ in 0..3 {
        assert!(reaches(&world.outside, "198.51.100.10:443"));
    }
    assert!(reaches(&world.outside, "[2001:db8:100::10]:443"));
    assert_eq!(world.counted("access/ext/client"), 4);
    assert!(reaches(&world.inside, "10.10.0.10:5061"));
    assert_eq!(world.counted("access/int/sip"), 1);

    assert!(!reaches(&world.outside, "198.51.100.10:7777"));
    assert!(world.counted("in/ext/refused") > 0);
    assert!(!reaches(&world.inside, "10.10.0.10:7777"));
    assert!(world.counted("in/int/refused") > 0);
    // The same port at another service's address is another listener.
    assert!(!reaches(&world.outside, "198.51.100.12:5061"));
}

#[test]
fn the_internal_address_is_not_there_for_the_outside() {
    let Some(world) = World::new() else { return };
    world.listen("10.10.0.10:5061");
    assert!(!reaches(&world.outside, "10.10.0.10:5061"));
    assert!(world.counted("guard/ext/internal-address") > 0);
    assert_eq!(world.counted("access/int/sip"), 0);
}

#[test]
fn senders_that_belong_to_the_other_side_are_dropped_and_counted() {
    let Some(world) = World::new() else { return };
    let send = |from: &Namespace, source: &str, to: &str| {
        from.enter(|| {
            let socket = UdpSocket::bind((source, 4000)).unwrap();
            socket.send_to(b"?", to).unwrap();
        });
        thread::sleep(Duration::from_millis(100));
    };
    world
        .outside
        .ip(&["address", "add", "10.10.7.7/32", "dev", "lo"]);
    send(&world.outside, "10.10.7.7", "198.51.100.12:3478");
    assert_eq!(world.counted("guard/ext/spoofed"), 1);
    send(&world.inside, "192.0.2.200", "10.10.0.10:3478");
    assert_eq!(world.counted("guard/int/spoofed"), 1);
    assert_eq!(
        world.counted("av/ext/turn-udp") + world.counted("av/int/turn-udp"),
        0
    );
}

#[test]
fn media_passes_untracked_and_every_datagram_is_counted() {
    let Some(world) = World::new() else { return };
    let exchange = |from: &Namespace, to: &str| {
        let to: SocketAddr = to.parse().unwrap();
        let there = world.host.enter(|| UdpSocket::bind(to).unwrap());
        let here = from.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        here.set_read_timeout(Some(PATIENCE)).unwrap();
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 16];
        for _ in 0..5 {
            here.send_to(b"ping", to).unwrap();
            let (_, peer) = there.recv_from(&mut buffer).unwrap();
            there.send_to(b"pong", peer).unwrap();
            here.recv_from(&mut buffer).unwrap();
        }
    };
    exchange(&world.outside, "198.51.100.12:3478");
    exchange(&world.outside, "198.51.100.12:50000");
    exchange(&world.inside, "10.10.0.10:3478");
    for counter in [
        "av/ext/turn-udp",
        "av/ext/turn-udp/out",
        "av/ext/relay-udp-in",
        "av/ext/relay-udp-out",
        "av/int/turn-udp",
        "av/int/turn-udp/out",
    ] {
        assert_eq!(world.counted(counter), 5, "{counter}");
    }
    // Were one of them tracked, `established` would have taken the second datagram before its counter.
}

#[test]
fn the_host_dials_only_what_the_table_names_and_each_side_answers_by_its_own_wire() {
    let Some(world) = World::new() else { return };
    let dial = |source: &str, to: &str| {
        let (source, to): (SocketAddr, SocketAddr) = (source.parse().unwrap(), to.parse().unwrap());
        world.host.enter(|| {
            let kind = rustix::net::SocketType::STREAM;
            let socket = rustix::net::socket(rustix::net::AddressFamily::INET, kind, None).unwrap();
            rustix::net::bind(&socket, &source).unwrap();
            rustix::net::sockopt::set_socket_timeout(
                &socket,
                rustix::net::sockopt::Timeout::Send,
                Some(PATIENCE),
            )
            .unwrap();
            rustix::net::connect(&socket, &to).is_ok()
        })
    };
    let director = world
        .inside
        .enter(|| TcpListener::bind("10.10.0.50:5061").unwrap());
    let web = world
        .inside
        .enter(|| TcpListener::bind("10.10.0.50:80").unwrap());
    let partner = world
        .outside
        .enter(|| TcpListener::bind("203.0.113.9:5061").unwrap());
    assert!(dial("10.10.0.10:0", "10.10.0.50:5061"), "the next hop");
    assert!(
        !dial("10.10.0.10:0", "10.10.0.50:80"),
        "any other port inside"
    );
    assert!(dial("198.51.100.10:0", "203.0.113.9:5061"), "a partner");
    assert!(
        !dial("198.51.100.11:0", "203.0.113.9:5061"),
        "the conference edge never dials"
    );
    assert!(
        !dial("198.51.100.10:0", "10.10.0.50:5061"),
        "an outside address towards the inside"
    );
    assert!(
        !dial("10.10.0.10:0", "203.0.113.9:5061"),
        "an inside address towards the outside"
    );
    assert_eq!(world.counted("access/int/next-hop"), 1);
    assert_eq!(world.counted("access/ext/federation-out"), 1);
    drop((director, web, partner));
}

#[test]
fn the_host_forwards_nothing_and_answers_pings() {
    let Some(world) = World::new() else { return };
    let ping = |from: &Namespace, to: &str| {
        from.run("ping", &["-c", "1", "-W", "1", to])
            .status
            .success()
    };
    assert!(ping(&world.outside, "198.51.100.10"));
    assert!(ping(&world.outside, "2001:db8:100::10"));
    assert!(!ping(&world.inside, "198.51.100.1"));
    assert!(!ping(&world.outside, "10.10.0.50"));
}

#[test]
fn the_conference_edge_opens_no_connection_even_where_others_may() {
    let Some(world) = World::new() else { return };
    let director = world
        .inside
        .enter(|| TcpListener::bind("10.10.0.50:5061").unwrap());
    let add = ["address", "add", "10.10.0.53/24", "dev", "far"];
    world.inside.ip(&add);
    let resolver = world
        .inside
        .enter(|| UdpSocket::bind("10.10.0.53:53").unwrap());
    resolver.set_read_timeout(Some(PATIENCE)).unwrap();
    let run = |user: u32, script: &str| {
        let user = user.to_string();
        let words = [
            "--reuid",
            &user,
            "--clear-groups",
            "timeout",
            "1",
            "bash",
            "-c",
            script,
        ];
        world.host.run("setpriv", &words).status.success()
    };
    let counted = || world.counted("webconf/never-dials");
    let dial = "exec 3<>/dev/tcp/10.10.0.50/5061";
    assert!(run(WEBCONF_USER + 1, dial));
    assert_eq!(counted(), 0);
    assert!(!run(WEBCONF_USER, dial));
    let tcp = counted();
    assert!(tcp > 0);

    let send = "echo x > /dev/udp/10.10.0.53/53";
    let mut seen = [0; 16];
    assert!(run(WEBCONF_USER + 1, send));
    assert_eq!(resolver.recv(&mut seen).unwrap(), 2);
    assert_eq!(counted(), tcp);
    assert!(!run(WEBCONF_USER, send));
    assert!(resolver.recv(&mut seen).is_err());
    assert!(counted() > tcp);
    drop(director);
}

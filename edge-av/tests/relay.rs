//! The relay on real sockets: two cores on the loopback interface, clients and peers that count for themselves.
#![expect(
    clippy::tests_outside_test_module,
    reason = "all of this file is tests"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edge_av::cores::Changes;
use edge_av::parts::{Parts, shared};
use edge_av::stun::attribute::{kind, read_xor_address};
use edge_av::stun::fields::Fields;
use edge_av::stun::frame::{Framer, Step};
use edge_av::stun::integrity::{Algorithm, Key};
use edge_av::stun::message::{Class, MAGIC_COOKIE, Message, Method, Transaction};
use edge_av::stun::writer::Writer;
use edge_av::turn::Settings;
use edge_av::turn::authority::{Authority, Denied, Verified};
use edge_av::turn::five_tuple::{Listener, Transport};
use edge_av::turn::peer_policy::PeerPolicy;
use edge_av::turn::quota::UserId;
use edge_common::cert::tls::{self, ArrayTickets, Store};
use edge_common::config::{AvLimits, Config, Lab, check};
use edge_common::net::bind::Bind;
use edge_common::net::core_runtime::Cores;
use edge_common::observe::metrics::Metrics;
use edge_common::random::Seeded;
use edge_common::run;
use edge_common::secret::{ArraySecret, Secrets};
use edge_common::side::Side;
use edge_common::time::Now;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const REALM: &str = "contoso.test";
const CONFIG: &str = include_str!("relay.toml");

/// A relay with its own loopback address, so that tests run beside each other.
struct Relay {
    udp: SocketAddr,
    tcp: SocketAddr,
    metrics: Metrics,
    /// Of TURN over TLS.
    certificate: CertificateDer<'static>,
    cores: Option<Cores>,
    _changes: Changes,
}

#[derive(Debug)]
struct AnyUser;

impl Authority for AnyUser {
    fn verify(&self, _: Now, username: &[u8]) -> Result<Verified, Denied> {
        let user = UserId(
            username
                .iter()
                .fold(7, |id, &byte| id * 257 + u64::from(byte))
                << 16,
        );
        Ok(Verified {
            passwords: vec![b"secret".to_vec().into()],
            user,
        })
    }
}

impl Relay {
    fn start(host: u8) -> Self {
        let limits = AvLimits {
            stranger_answers_per_second: 1000,
            ..AvLimits::default()
        };
        Self::start_with(host, limits)
    }

    fn start_with(host: u8, limits: AvLimits) -> Self {
        let (mut config, _) = check(CONFIG, None)
            .into_result()
            .unwrap_or_else(|findings| {
                panic!(
                    "{}",
                    findings.iter().map(ToString::to_string).collect::<String>()
                )
            });
        let ip = format!("127.0.9.{host}");
        config.members[0].external.addresses = vec![format!("{ip}/32").parse().expect("a network")];
        config.members[0].external.av = vec![ip.parse().expect("an address")];
        config.lab = Some(Lab {
            treat_as_public: vec!["127.0.0.0/8".parse().expect("a network")],
        });
        let (udp, tcp) = (format!("{ip}:3478"), format!("{ip}:10443"));
        let (udp, tcp): (SocketAddr, SocketAddr) = (
            udp.parse().expect("an address"),
            tcp.parse().expect("an address"),
        );
        let metrics = Metrics::new("av");
        let key = rcgen::KeyPair::generate().expect("a key");
        let names =
            rcgen::CertificateParams::new(vec!["av.contoso.test".to_owned()]).expect("a name");
        let certificate = names
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .clone();
        let key: PrivateKeyDer<'_> = key.serialize_der().try_into().expect("PKCS #8");
        let store = Store::of(vec![certificate.clone()], &key).expect("a pair");
        let (cores, changes) = parts(&config, limits, udp, tcp, store)
            .start(&metrics, run::now())
            .expect("loopback has these ports");
        Self {
            udp,
            tcp,
            metrics,
            certificate,
            cores: Some(cores),
            _changes: changes,
        }
    }

    fn count(&self, line: &str) -> u64 {
        let text = self.metrics.text();
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {line} in {text}"))
    }

    /// Waits until a count is there: the relay counts a datagram after the kernel has taken it.
    fn reaches(&self, line: &str, count: u64) {
        wait_until(|| self.count(line) >= count);
        assert_eq!(self.count(line), count, "{line}");
    }
}

fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never comes to that");
}

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(relay.tcp).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.8.1:0").expect("a free port");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    peer
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(cores) = self.cores.take() {
            cores.stop();
            cores.join().expect("no core panics");
        }
    }
}

fn parts(
    config: &Config,
    limits: AvLimits,
    udp: SocketAddr,
    tcp: SocketAddr,
    store: Arc<Store>,
) -> Parts {
    let av = config.av.as_ref().expect("it has an A/V Edge");
    let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(1)));
    let listener = |transport, local| Listener {
        transport,
        side: Side::External,
        local,
    };
    Parts {
        shared: shared(
            &limits,
            av.relay_ports,
            Arc::new(AnyUser),
            &secrets,
            run::now(),
        ),
        settings: Arc::new(Settings {
            realm: REALM.into(),
            listeners: vec![listener(Transport::Udp, udp), listener(Transport::Tcp, tcp)],
            policy: PeerPolicy::new(config, av),
            limits,
        }),
        binds: vec![Bind::to(udp), Bind::to(tcp)],
        relay_interface: None,
        tls: Some(Arc::new(ArcSwap::new(tls::client_listener(
            store,
            ArrayTickets::new(&secrets, tls::system_clock()),
        )))),
        mras: None,
        balancers: Vec::new(),
        mailbox: 256,
        cores: 2,
    }
}

/// How a client reaches the relay.
enum Link {
    Udp(UdpSocket),
    Stream {
        stream: Box<dyn ReadWrite>,
        framer: Framer,
        pending: Vec<u8>,
    },
}

/// TCP, or TLS over it.
trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

struct Client {
    link: Link,
    key: Key,
    username: String,
    nonce: Vec<u8>,
    serial: u64,
    /// Datagrams or frames in both directions.
    sent: u64,
    received: u64,
}

impl Client {
    fn udp(relay: &Relay, username: &str) -> Self {
        let socket = UdpSocket::bind("127.0.7.1:0").expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.connect(relay.udp).expect("loopback");
        Self::new(Link::Udp(socket), username)
    }

    fn tcp(relay: &Relay, username: &str) -> Self {
        Self::over(Box::new(connect(relay)), username)
    }

    fn tls(relay: &Relay, username: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(relay.certificate.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has suites")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "av.contoso.test".try_into().expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a session");
        Self::over(
            Box::new(StreamOwned::new(session, connect(relay))),
            username,
        )
    }

    fn over(stream: Box<dyn ReadWrite>, username: &str) -> Self {
        let mut framer = Framer::new();
        framer.trust();
        Self::new(
            Link::Stream {
                stream,
                framer,
                pending: Vec::new(),
            },
            username,
        )
    }

    fn new(link: Link, username: &str) -> Self {
        let key = Key::long_term(username.as_bytes(), REALM.as_bytes(), b"secret");
        Self {
            link,
            key,
            username: username.into(),
            nonce: Vec::new(),
            serial: 0,
            sent: 0,
            received: 0,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.sent += 1;
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(bytes).expect("sent"), bytes.len()),
            // In two pieces, so that frames are cut somewhere.
            Link::Stream { stream, .. } => {
                let (head, tail) = bytes.split_at(bytes.len() / 2);
                stream
                    .write_all(head)
                    .and_then(|()| stream.write_all(tail))
                    .expect("sent");
            }
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        self.received += 1;
        match &mut self.link {
            Link::Udp(socket) => {
                let mut bytes = [0; 2048];
                let len = socket.recv(&mut bytes).expect("something comes in time");
                bytes[..len].to_vec()
            }
            Link::Stream {
                stream,
                framer,
                pending,
            } => loop {
                let step = framer.next(pending).expect("the relay frames well");
                if let Step::Message { len } | Step::ChannelData { len, .. } = step {
                    let frame = pending[..len].to_vec();
                    pending.drain(..step.consumed());
                    return frame;
                }
                let mut bytes = [0; 2048];
                let len = stream.read(&mut bytes).expect("something comes in time");
                assert_ne!(len, 0, "the relay has closed");
                pending.extend_from_slice(&bytes[..len]);
            },
        }
    }

    fn begin(&mut self, method: Method, class: Class) -> Writer {
        self.serial += 1;
        let mut id = [0; 16];
        id[..4].copy_from_slice(&MAGIC_COOKIE);
        id[8..].copy_from_slice(&self.serial.to_be_bytes());
        Writer::new(method, class, Transaction(id))
    }

    /// Sends a signed request, once more if the nonce was missing, and gives the answer.
    fn ask(&mut self, build: impl Fn(Writer) -> Writer, method: Method) -> Vec<u8> {
        for _ in 0..2 {
            let request = build(self.begin(method, Class::Request))
                .attribute(kind::USERNAME, self.username.as_bytes())
                .attribute(kind::REALM, REALM.as_bytes())
                .attribute(kind::NONCE, &self.nonce)
                .integrity(Algorithm::Sha1, &self.key)
                .fingerprint()
                .finish();
            self.send(&request);
            let answer = self.receive();
            let message = Message::parse(&answer).expect("lawful");
            match (message.class(), Fields::read(message).nonce) {
                (Class::Error, Some(nonce)) => self.nonce = nonce.to_vec(),
                _ => return answer,
            }
        }
        panic!("the relay does not know its own nonce");
    }

    fn granted(&mut self, build: impl Fn(Writer) -> Writer, method: Method) -> Vec<u8> {
        let answer = self.ask(build, method);
        assert_eq!(
            Message::parse(&answer).expect("lawful").class(),
            Class::Success,
            "{answer:02x?}"
        );
        answer
    }

    fn allocate(&mut self) -> SocketAddr {
        let answer = self.granted(
            |request| request.attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
            Method::Allocate,
        );
        let message = Message::parse(&answer).expect("lawful");
        let relayed = message
            .attributes()
            .find(|found| found.kind == kind::XOR_RELAYED_ADDRESS)
            .expect("it is there");
        read_xor_address(relayed.value, message.transaction()).expect("an address")
    }

    fn bind(&mut self, number: u16, peer: SocketAddr) {
        let [high, low] = number.to_be_bytes();
        self.granted(
            |request| {
                request
                    .attribute(kind::CHANNEL_NUMBER, &[high, low, 0, 0])
                    .xor_address(kind::XOR_PEER_ADDRESS, peer)
            },
            Method::ChannelBind,
        );
    }

    fn release(&mut self) {
        self.granted(
            |request| request.attribute(kind::LIFETIME, &[0; 4]),
            Method::Refresh,
        );
    }

    fn send_channel(&mut self, number: u16, payload: &[u8]) {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(payload);
        if matches!(self.link, Link::Stream { .. }) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.send(&bytes);
    }

    fn receive_channel(&mut self, number: u16) -> Vec<u8> {
        let bytes = self.receive();
        assert_eq!(bytes[..2], number.to_be_bytes(), "{bytes:02x?}");
        let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        bytes[4..4 + len].to_vec()
    }
}

#[test]
fn clients_of_two_cores_hear_each_other() {
    let relay = Relay::start(1);
    let mut clients: Vec<(Client, SocketAddr)> = (0..12)
        .map(|n| {
            let mut client = Client::udp(&relay, &format!("user{n}"));
            let relayed = client.allocate();
            (client, relayed)
        })
        .collect();
    // Twelve sources on two cores: that all share one has a chance of one in two thousand.
    assert!(
        (0..2).all(|shard| relay.count(&format!("edge_av_allocations{{shard=\"{shard}\"}}")) > 0)
    );
    let (mut hub, hub_relayed) = clients.remove(0);
    for (n, (client, relayed)) in clients.iter_mut().enumerate() {
        let number = 0x4000 + n as u16;
        hub.bind(number, *relayed);
        client.bind(0x4100, hub_relayed);
        for round in 0..20_u8 {
            let payload = vec![round; usize::from(round) * 40 + 1];
            hub.send_channel(number, &payload);
            assert_eq!(client.receive_channel(0x4100), payload);
            client.send_channel(0x4100, &payload);
            assert_eq!(hub.receive_channel(number), payload);
        }
    }
    let hairpins =
        |cores: &str| relay.count(&format!("edge_av_hairpins_total{{cores=\"{cores}\"}}"));
    let total = 11 * 20 * 2;
    wait_until(|| hairpins("one") + hairpins("two") == total);
    let two = hairpins("two");
    assert!(two > 0, "nobody was on the other core");
    assert_eq!(
        relay.count("edge_av_datagrams_total{port=\"relay\",side=\"external\",direction=\"out\"}"),
        0
    );
}

#[test]
fn the_counters_say_what_the_sockets_saw() {
    let relay = Relay::start(2);
    let peer = peer();
    let peer_address = peer.local_addr().expect("bound");
    let mut client = Client::udp(&relay, "ann");
    let relayed = client.allocate();
    client.bind(0x4001, peer_address);
    let mut bytes = [0; 2048];
    for n in 0..50_u8 {
        client.send_channel(0x4001, &[n; 172]);
        let (len, from) = peer.recv_from(&mut bytes).expect("it arrives");
        assert_eq!((&bytes[..len], from), (&[n; 172][..], relayed));
        peer.send_to(&[n; 33], relayed).expect("sent");
        assert_eq!(client.receive_channel(0x4001), [n; 33]);
    }
    client.release();
    let counts = [
        ("turn", "in", client.sent),
        ("turn", "out", client.received),
        ("relay", "in", 50),
        ("relay", "out", 50),
    ];
    for (port, direction, count) in counts {
        let line = format!(
            "edge_av_datagrams_total{{port=\"{port}\",side=\"external\",direction=\"{direction}\"}}"
        );
        relay.reaches(&line, count);
    }
    // The port is free again for whoever wants it.
    drop(UdpSocket::bind(relayed).expect("it is closed"));
}

#[test]
fn a_client_over_tcp_is_relayed_like_any_other() {
    let relay = Relay::start(3);
    let client = Client::tcp(&relay, "ann");
    over_a_stream(&relay, client);
}

#[test]
fn a_client_over_tls_is_relayed_on_the_same_port() {
    let relay = Relay::start(6);
    let client = Client::tls(&relay, "ann");
    over_a_stream(&relay, client);
}

fn over_a_stream(relay: &Relay, mut client: Client) {
    let peer = peer();
    let relayed = client.allocate();
    client.bind(0x4001, peer.local_addr().expect("bound"));
    let mut bytes = [0; 2048];
    for len in [0_usize, 1, 2, 3, 4, 171, 172, 1200] {
        let payload = vec![7; len];
        client.send_channel(0x4001, &payload);
        let (got, from) = peer.recv_from(&mut bytes).expect("it arrives");
        assert_eq!((&bytes[..got], from), (&payload[..], relayed));
        peer.send_to(&payload, relayed).expect("sent");
        assert_eq!(client.receive_channel(0x4001), payload);
    }
    // The connection takes the allocation with it.
    drop(client);
    relay.reaches("edge_av_allocations_closed_total{why=\"disconnected\"}", 1);
    assert_eq!(relay.count("edge_av_relay_ports"), 0);
}

#[test]
fn what_is_not_turn_is_closed_and_counted_by_its_name() {
    let relay = Relay::start(4);
    let cases: [(&[u8], &str); 3] = [
        (&[0x16, 3, 1, 0, 4, 1, 0, 1, 0xFC, 3, 3], "tls"),
        (&[2, 0, 0, 3], "ms_framing"),
        (b"\x80\x01SSH-2.0", "unknown_protocol"),
    ];
    for (bytes, reason) in cases {
        let mut stream = TcpStream::connect(relay.tcp).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(bytes).expect("sent");
        // A TLS alert may come first; then the end, or a reset.
        let mut told = Vec::new();
        let ended = stream.read_to_end(&mut told);
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
            "{reason}"
        );
        relay.reaches(
            &format!("edge_av_connections_ended_total{{reason=\"{reason}\"}}"),
            1,
        );
    }
}

#[test]
fn those_who_have_not_said_what_they_speak_are_few_for_each_source() {
    let limits = AvLimits {
        handshakes_per_source: 2,
        ..AvLimits::default()
    };
    let relay = Relay::start_with(7, limits);
    let _silent = (connect(&relay), connect(&relay), connect(&relay));
    let refused = "edge_av_connections_refused_total{listener=\"turn_external\",reason=\"source_handshakes\"} 1";
    wait_until(|| relay.metrics.text().contains(refused));
}

#[test]
fn a_byte_now_and_then_keeps_no_place_and_an_allocation_does() {
    let limits = AvLimits {
        stranger_silence: Duration::from_secs(2),
        stranger_stay: Duration::from_millis(1500),
        ..AvLimits::default()
    };
    let relay = Relay::start_with(8, limits);
    let mut ann = Client::tcp(&relay, "ann");
    ann.allocate();
    let mut trickle = connect(&relay);
    let begun = std::time::Instant::now();
    // The head of a message that never becomes whole.
    trickle
        .write_all(&[0, 1, 0, 96, 0x21, 0x12, 0xA4, 0x42])
        .expect("sent");
    trickle
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a timeout");
    let ended = (0..90).find(|_| {
        let gone = trickle.write_all(&[0]).is_err();
        gone || !matches!(trickle.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    assert!(ended.is_some());
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    relay.reaches(
        "edge_av_connections_ended_total{reason=\"no_allocation\"}",
        1,
    );
    ann.granted(|request| request, Method::Refresh);
}

#[test]
fn the_tables_tell_how_full_they_are() {
    let relay = Relay::start(9);
    let slots = |table| relay.count(&format!("edge_av_table_slots_used{{table=\"{table}\"}}"));
    assert_eq!(
        (slots("users"), slots("sources"), slots("strangers")),
        (0, 0, 0)
    );
    let (mut ann, mut bob) = (Client::udp(&relay, "ann"), Client::udp(&relay, "bob"));
    ann.allocate();
    bob.allocate();
    // Both come from one address, which has two slots.
    assert_eq!((slots("users"), slots("sources")), (2, 2));
    ann.release();
    bob.release();
    assert_eq!((slots("users"), slots("sources")), (0, 0));
    assert_eq!(
        relay.count("edge_av_table_slots{table=\"strangers\"}"),
        65_536
    );
}

#[test]
fn a_drain_waits_for_the_calls_there_are() {
    let mut relay = Relay::start(5);
    let mut ann = Client::udp(&relay, "ann");
    ann.allocate();
    let cores = relay.cores.take().expect("it runs");
    cores.drain();
    // The drain reaches each core by its own event loop.
    std::thread::sleep(Duration::from_millis(200));
    ann.granted(|request| request, Method::Refresh);
    ann.release();
    cores.join().expect("both cores end by themselves");
}

/// Far more than the loopback needs, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(10);

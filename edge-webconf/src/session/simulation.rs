//! The broker in a world of its own: agents and clients are a few lines, and the clock is moved by
//! hand.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one frame or event among all"
)]

mod agents;
mod clients;
mod random;
mod tokens;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_common::host_name::HostName;
use edge_common::random::Seeded;
use edge_common::time::{Now, UnixTime};

use super::*;
use crate::ewrp::control::{
    Admit, Closed, Drain, Frame, Hello, HelloAck, Register, RegistrationKind,
};
use crate::ewrp::data::{self, Open};
use crate::ewrp::frame::{self, Step};
use crate::ewrp::number::LEAST;
use crate::ewrp::{SessionName, SessionSecret};

const MCU: &str = "mcu1.test";
const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        edge_id: [0xed; 16],
        trust: trust(&[MCU, "*.pool.test"]),
        scan: true,
        clients: 100,
        preread: 4096,
        preread_timeout: 10 * SECOND,
        lease_timeout: 5 * SECOND,
        lease_queue: 3,
        admitted: 50,
        tokens: 5,
        token_lifetime: 3600 * SECOND,
        pool_min: 2,
        pool_max: 8,
    }
}

fn trust(agents: &[&str]) -> Trust {
    let mut token_keys = VerifyingKeys::default();
    let public = include_bytes!("../../../edge-common/tests/data/keys/ed25519.pub.pem");
    token_keys.add_pem(public).expect("a key");
    let pattern = |name: &&str| name.parse().expect("a pattern");
    Trust {
        agents: agents.iter().map(pattern).collect(),
        conference_agents: vec![pattern(&MCU)],
        token_keys,
    }
}

/// The broker, the clock, and what the shell would know.
struct World {
    broker: Broker,
    now: Now,
    serial: u64,
    /// Frames for each agent that it has not looked at.
    frames: BTreeMap<ControlId, Vec<Frame>>,
    closed: Vec<ConnId>,
    charged: Vec<ClientId>,
    reads: Vec<ConnId>,
    leases: Vec<(ClientId, DataId, Open)>,
    skips: Vec<usize>,
    relayed: Vec<ClientId>,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        Self {
            broker: Broker::new(settings, Box::new(Seeded::new(1))),
            now: Now {
                mono: Instant::now(),
                unix: UnixTime::from_secs(1_700_000_000),
            },
            serial: 0,
            frames: BTreeMap::new(),
            closed: Vec::new(),
            charged: Vec::new(),
            reads: Vec::new(),
            leases: Vec::new(),
            skips: Vec::new(),
            relayed: Vec::new(),
            events: Vec::new(),
        }
    }

    /// One input, then all its outputs.
    fn act(&mut self, input: impl FnOnce(&mut Broker, Now)) {
        input(&mut self.broker, self.now);
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Read(id) => self.reads.push(id),
                Output::Close(id) => self.closed.push(id),
                Output::Charge(id) => self.charged.push(id),
                Output::Transmit { to, bytes } => {
                    self.frames.entry(to).or_default().extend(read_all(&bytes));
                }
                Output::Lease {
                    client,
                    data,
                    open,
                    skip,
                    preread_len,
                } => {
                    self.skips.push(skip);
                    let (open, len) = Open::parse(&open).expect("lawful").expect("whole");
                    assert_eq!(open.preread_len as usize, preread_len);
                    assert_eq!(len, open.to_bytes().len());
                    self.leases.push((client, data, open));
                }
                Output::Relay(id) => self.relayed.push(id),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Lets time pass, with every deadline on the way met on time.
    fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(due) = self.broker.poll_timeout()
            && due <= end.mono
        {
            let wait = due.saturating_duration_since(self.now.mono);
            self.now = self.now.plus(wait);
            self.act(Broker::handle_timeout);
        }
        self.now = end;
    }

    /// Lets time pass for an agent that answers its PINGs.
    fn pass_alive(&mut self, mcu: &Mcu, time: Duration) {
        let end = self.now.mono + time;
        while self.now.mono < end {
            let left = end.saturating_duration_since(self.now.mono);
            self.pass(left.min(5 * SECOND));
            for frame in self.heard(mcu.control) {
                if let Frame::Ping { nonce } = frame {
                    self.say(mcu.control, &Frame::Pong { nonce });
                }
            }
        }
    }

    fn id(&mut self, core: u16) -> ConnId {
        self.serial += 1;
        ConnId {
            core,
            serial: self.serial,
        }
    }

    fn control(&mut self, names: &[&str]) -> ControlId {
        let id = ControlId(self.id(0));
        self.act(|broker, now| broker.handle_control(now, id, peer(names)));
        id
    }

    fn say(&mut self, id: ControlId, frame: &Frame) {
        let bytes = frame.to_bytes();
        self.act(|broker, now| broker.handle_control_data(now, id, &bytes));
    }

    fn heard(&mut self, id: ControlId) -> Vec<Frame> {
        self.frames.remove(&id).unwrap_or_default()
    }

    /// An agent in session, with a registration of its own name.
    fn agent(&mut self) -> Mcu {
        self.agent_named(MCU, 1)
    }

    fn agent_named(&mut self, name: &str, epoch: u64) -> Mcu {
        let control = self.control(&[name]);
        self.say(control, &hello(name, epoch));
        let heard = self.heard(control);
        let Some(Frame::HelloAck(ack)) = heard.first().cloned() else {
            panic!("no HELLO_ACK: {heard:?}");
        };
        self.say(control, &register(1, RegistrationKind::Server, name));
        let heard = self.heard(control);
        assert!(
            heard.contains(&Frame::RegisterAck {
                reg_id: 1,
                status: Status::Ok
            }),
            "{heard:?}"
        );
        Mcu {
            control,
            name: name.to_owned(),
            ack,
            seq: 0,
        }
    }

    fn data_with(&mut self, names: &[&str], hello: &[u8], core: u16) -> DataId {
        let id = DataId(self.id(core));
        self.act(|broker, now| broker.handle_data(now, id, peer(names)));
        self.act(|broker, now| broker.handle_data_bytes(now, id, hello));
        id
    }

    /// A data connection that is parked, or leased at once.
    fn park(&mut self, mcu: &mut Mcu, core: u16) -> DataId {
        let hello = mcu.data_hello();
        let id = self.data_with(&[&mcu.name], &hello, core);
        assert!(
            !self.is_closed(id.0),
            "not parked: {:?}",
            self.events.last()
        );
        id
    }

    fn admit(&mut self, mcu: &Mcu, number: Number) -> Status {
        self.admit_with(mcu, number, 60_000, 1)
    }

    fn admit_with(&mut self, mcu: &Mcu, number: Number, ttl_ms: u32, uses: u16) -> Status {
        let reg_id = 1;
        let admit = Frame::Admit(Admit {
            reg_id,
            number,
            ttl_ms,
            uses,
        });
        self.say(mcu.control, &admit);
        let heard = self.heard(mcu.control);
        let acked = heard.iter().find_map(|frame| match frame {
            Frame::AdmitAck { number: of, status } if *of == number => Some(*status),
            _ => None,
        });
        acked.expect("an ADMIT_ACK")
    }

    fn client(&mut self) -> ClientId {
        let id = ClientId(self.id(0));
        let arrival = Arrival {
            address: "192.0.2.7:51034".parse().expect("address"),
            sni: "webconf.test".into(),
        };
        self.act(|broker, now| broker.handle_client(now, id, arrival));
        id
    }

    fn shows(&mut self, id: ClientId, bytes: &[u8]) {
        self.act(|broker, now| broker.handle_client_data(now, id, bytes));
    }

    /// A client that shows the number.
    fn visitor(&mut self, number: Number) -> ClientId {
        let id = self.client();
        self.shows(id, shown(number).as_bytes());
        id
    }

    /// A client that is relayed.
    fn relayed(&mut self, mcu: &mut Mcu, number: Number) -> ClientId {
        assert_eq!(self.admit(mcu, number), Status::Ok);
        self.park(mcu, 0);
        let id = self.visitor(number);
        self.act(|broker, now| broker.handle_open_ack(now, id, Status::Ok));
        assert_eq!(self.relayed.last(), Some(&id));
        id
    }

    fn is_closed(&self, id: ConnId) -> bool {
        self.closed.contains(&id)
    }

    fn refusal(&self) -> Option<Status> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Refused { status, .. } => Some(*status),
            _ => None,
        })
    }

    fn agent_refusal(&self) -> Option<Status> {
        self.events.iter().rev().find_map(|event| match event {
            Event::AgentRefused { status, .. } => Some(*status),
            _ => None,
        })
    }

    /// What must hold between any two inputs.
    fn check(&self) {
        let broker = &self.broker;
        let gauges = broker.gauges();
        let of_stage = |wanted: fn(&client::Stage) -> bool| {
            let clients = broker.clients.values();
            clients.filter(|client| wanted(&client.stage)).count()
        };
        assert_eq!(
            gauges.relays,
            of_stage(|stage| matches!(stage, client::Stage::Relay { .. }))
        );
        assert_eq!(
            gauges.waiting,
            of_stage(|stage| matches!(stage, client::Stage::Lease(_)))
        );
        assert_eq!(
            gauges.prereading,
            of_stage(|stage| matches!(stage, client::Stage::Preread(_)))
        );
        let parked = broker.data.values();
        let parked = parked.filter(|data| matches!(data, agent::Data::Parked { .. }));
        assert_eq!(gauges.parked, parked.count());
        assert_eq!(broker.by_name.len(), broker.sessions.len());
        for (key, session) in &broker.sessions {
            let joins = broker.clients.values().filter_map(client::Client::join);
            let own = joins.filter(|join| join.grant.session == *key);
            assert_eq!(session.conns, own.count(), "clients of {key:?}");
            assert!(session.pool.len() <= usize::from(broker.settings.pool_max));
        }
        assert!(broker.clients.len() <= broker.settings.clients);
        assert!(gauges.waiting <= broker.settings.lease_queue);
        assert!(gauges.admitted <= broker.settings.admitted);
    }

    /// Nothing is left of anybody.
    fn assert_empty(&self) {
        let broker = &self.broker;
        assert_eq!(broker.gauges(), Gauges::default());
        assert!(broker.controls.is_empty() && broker.data.is_empty());
        assert!(broker.clients.is_empty() && broker.by_number.is_empty());
        assert_eq!((broker.timers.len(), broker.poll_timeout()), (0, None));
    }
}

/// An agent, as far as the broker can tell.
struct Mcu {
    control: ControlId,
    name: String,
    ack: HelloAck,
    seq: u64,
}

impl Mcu {
    fn data_hello(&mut self) -> [u8; data::HELLO_LEN] {
        self.seq += 1;
        data::hello(&self.ack.session, self.seq, &self.ack.secret)
    }
}

fn peer(names: &[&str]) -> Peer {
    let mut names: Vec<HostName> = names
        .iter()
        .map(|name| name.parse().expect("name"))
        .collect();
    names.sort_unstable();
    let address: SocketAddr = "10.10.0.20:40000".parse().expect("address");
    Peer { names, address }
}

fn hello(name: &str, epoch: u64) -> Frame {
    Frame::Hello(Hello {
        version_min: 1,
        version_max: 1,
        agent_id: [7; 16],
        epoch,
        caps: 0,
        max_conns: 0,
        fqdn: name.into(),
    })
}

fn register(reg_id: u32, kind: RegistrationKind, name: &str) -> Frame {
    Frame::Register(Register {
        reg_id,
        kind,
        weight: 100,
        max_conns: 0,
        ttl_s: 0,
        name: name.into(),
    })
}

fn number(n: u64) -> Number {
    Number(LEAST + n)
}

fn shown(number: Number) -> String {
    format!("JOIN {} NOW", number.0)
}

fn read_all(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Ok(Step::Frame { kind, body, len }) = frame::next(bytes) {
        frames.push(Frame::parse(kind, body).expect("the edge sends lawful frames"));
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "the edge sends whole frames");
    frames
}

fn goaway(frames: &[Frame]) -> Option<Status> {
    frames.iter().find_map(|frame| match frame {
        Frame::Goaway { status, .. } => Some(*status),
        _ => None,
    })
}

fn wanted(frames: &[Frame]) -> u16 {
    let counts = frames.iter().map(|frame| match frame {
        Frame::Want { count, .. } => *count,
        _ => 0,
    });
    counts.sum()
}

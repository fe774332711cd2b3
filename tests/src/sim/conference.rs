#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! The conference broker's core in the simulated world, with an agent inside and clients outside.
//!
//! Connections are streams that arrive in pieces. The agent is a model of its own: it registers one
//! server, admits numbers, keeps the pool that the edge asks for, and answers each client with an
//! echo of what it sent.

use super::world::{Address, Node, Packet};
use edge_common::host_name::HostName;
use edge_common::time::Now;
use edge_webconf::ewrp::control::{Admit, Frame, Hello, Register, RegistrationKind};
use edge_webconf::ewrp::data::{self, Open, OpenAck};
use edge_webconf::ewrp::frame::{self, Step};
use edge_webconf::ewrp::{Number, SessionName, SessionSecret, Status};
use edge_webconf::session::{
    Arrival, Broker, ClientId, ConnId, ControlId, DataId, Event, Output, Peer, RelayEnd,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The Web Conferencing Edge: what its shell does, without sockets.
#[derive(Debug)]
pub struct Edge {
    broker: Broker,
    client_port: Address,
    agent_port: Address,
    agent_name: HostName,
    connections: BTreeMap<Address, Connection>,
    far_ends: BTreeMap<ConnId, Address>,
    serial: u64,
    out: VecDeque<Packet>,
    /// Everything that the broker said.
    pub events: Vec<Event>,
    /// Far ends of the connections that it closed.
    pub closed: Vec<Address>,
}

#[derive(Debug)]
struct Connection {
    id: ConnId,
    stage: Stage,
    /// What came and was not shown to the broker yet.
    unread: Vec<u8>,
    /// The broker wants to see what comes next.
    reading: bool,
    /// All that a client has sent before it was relayed.
    preread: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Control,
    Parked,
    Client,
    /// A data connection with its client: waiting for the answer, then relaying.
    Leased {
        client: Address,
        opened: bool,
    },
    /// A client with its data connection.
    Relayed {
        data: Address,
        bytes: u64,
    },
}

impl Edge {
    /// An edge that takes clients and agents at these addresses; every agent is `agent_name`.
    #[must_use]
    pub const fn new(
        broker: Broker,
        client_port: Address,
        agent_port: Address,
        agent_name: HostName,
    ) -> Self {
        Self {
            broker,
            client_port,
            agent_port,
            agent_name,
            connections: BTreeMap::new(),
            far_ends: BTreeMap::new(),
            serial: 0,
            out: VecDeque::new(),
            events: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Data connections that wait for a client.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.broker.gauges().parked
    }

    /// The far end has closed this connection.
    pub fn hang_up(&mut self, now: Now, far: Address) {
        let Some(connection) = self.connections.remove(&far) else {
            return;
        };
        self.far_ends.remove(&connection.id);
        match connection.stage {
            Stage::Control => self
                .broker
                .handle_control_closed(now, ControlId(connection.id)),
            Stage::Parked => self.broker.handle_data_closed(now, DataId(connection.id)),
            Stage::Client => self.broker.handle_client_lost(now, ClientId(connection.id)),
            Stage::Relayed { bytes, .. } => {
                let end = RelayEnd {
                    bytes_in: bytes,
                    bytes_out: bytes,
                    status: Status::Ok,
                };
                self.broker
                    .handle_relay_ended(now, ClientId(connection.id), end);
            }
            Stage::Leased { .. } => {}
        }
        self.drain(now);
    }

    fn accept(&mut self, now: Now, packet: &Packet) {
        self.serial += 1;
        let id = ConnId {
            core: 0,
            serial: self.serial,
        };
        let stage = if packet.to == self.client_port {
            Stage::Client
        } else if packet.from.port() == CONTROL_PORT {
            // What ALPN tells in the real world.
            Stage::Control
        } else {
            Stage::Parked
        };
        self.far_ends.insert(id, packet.from);
        self.connections.insert(
            packet.from,
            Connection {
                id,
                stage,
                unread: Vec::new(),
                reading: false,
                preread: Vec::new(),
            },
        );
        let peer = Peer {
            names: vec![self.agent_name.clone()],
            address: packet.from,
        };
        match stage {
            Stage::Control => self.broker.handle_control(now, ControlId(id), peer),
            Stage::Parked => self.broker.handle_data(now, DataId(id), peer),
            Stage::Client | Stage::Leased { .. } | Stage::Relayed { .. } => {
                let arrival = Arrival {
                    address: packet.from,
                    sni: "webconf.contoso.test".into(),
                };
                self.broker.handle_client(now, ClientId(id), arrival);
            }
        }
        self.drain(now);
    }

    fn read(&mut self, now: Now, far: Address) {
        let Some(connection) = self.connections.get_mut(&far) else {
            return;
        };
        match connection.stage {
            Stage::Relayed { data, .. } => {
                let bytes = std::mem::take(&mut connection.unread);
                return self.forward(far, data, bytes);
            }
            Stage::Leased {
                client,
                opened: true,
            } => {
                let bytes = std::mem::take(&mut connection.unread);
                return self.send(self.client_port, client, bytes);
            }
            Stage::Leased {
                client,
                opened: false,
            } => return self.read_answer(now, far, client),
            Stage::Control | Stage::Parked | Stage::Client => {}
        }
        if !connection.reading || connection.unread.is_empty() {
            return;
        }
        connection.reading = false;
        let bytes = std::mem::take(&mut connection.unread);
        let (id, stage) = (connection.id, connection.stage);
        if stage == Stage::Client {
            connection.preread.extend_from_slice(&bytes);
            self.broker.handle_client_data(now, ClientId(id), &bytes);
        } else if stage == Stage::Control {
            self.broker.handle_control_data(now, ControlId(id), &bytes);
        } else {
            self.broker.handle_data_bytes(now, DataId(id), &bytes);
        }
        self.drain(now);
        self.read(now, far);
    }

    fn read_answer(&mut self, now: Now, far: Address, client: Address) {
        let Some(connection) = self.connections.get_mut(&far) else {
            return;
        };
        if connection.unread.len() < data::HEAD_LEN {
            return;
        }
        let status = match OpenAck::parse(&connection.unread) {
            Ok(Some(OpenAck(status))) => status,
            Ok(None) | Err(_) => Status::Protocol,
        };
        connection.unread.drain(..data::HEAD_LEN);
        connection.stage = Stage::Leased {
            client,
            opened: true,
        };
        if let Some(client) = self.connections.get(&client) {
            self.broker
                .handle_open_ack(now, ClientId(client.id), status);
        }
        self.drain(now);
        self.read(now, far);
    }

    fn forward(&mut self, client: Address, data: Address, sent: Vec<u8>) {
        if let Some(Connection {
            stage: Stage::Relayed { bytes, .. },
            ..
        }) = self.connections.get_mut(&client)
        {
            *bytes += u64::try_from(sent.len()).unwrap_or(u64::MAX);
        }
        self.send(self.agent_port, data, sent);
    }

    fn send(&mut self, from: Address, to: Address, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.out.push_back(Packet { from, to, bytes });
        }
    }

    fn drain(&mut self, now: Now) {
        let mut readable = Vec::new();
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Read(id) => {
                    let far = self.far_ends.get(&id).copied();
                    if let Some(connection) = far.and_then(|far| self.connections.get_mut(&far)) {
                        connection.reading = true;
                        readable.extend(far);
                    }
                }
                Output::Transmit { to, bytes } => {
                    if let Some(&far) = self.far_ends.get(&to.0) {
                        self.send(self.agent_port, far, bytes);
                    }
                }
                // The rate of its source is the shell's, which is not simulated.
                Output::Charge(_) => {}
                Output::Close(id) => {
                    if let Some(far) = self.far_ends.remove(&id) {
                        self.connections.remove(&far);
                        self.closed.push(far);
                    }
                }
                Output::Lease {
                    client,
                    data,
                    open,
                    skip,
                    preread_len,
                } => {
                    self.lease(client, data, open, skip, preread_len);
                }
                Output::Relay(client) => self.relay(client),
                // The account of guesses is kept by the listener, which is not part of this world.
                Output::Event(event) => self.events.push(event),
            }
        }
        for far in readable {
            self.read(now, far);
        }
    }

    fn lease(
        &mut self,
        client: ClientId,
        data: DataId,
        mut open: Vec<u8>,
        skip: usize,
        preread_len: usize,
    ) {
        let (Some(&client), Some(&data)) =
            (self.far_ends.get(&client.0), self.far_ends.get(&data.0))
        else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        // All of it goes inside; what stands behind the announced part is stream already.
        debug_assert!(skip + preread_len <= connection.preread.len());
        connection.preread.drain(..skip);
        open.append(&mut connection.preread);
        if let Some(leased) = self.connections.get_mut(&data) {
            leased.stage = Stage::Leased {
                client,
                opened: false,
            };
        }
        self.send(self.agent_port, data, open);
    }

    fn relay(&mut self, client: ClientId) {
        let Some(&far) = self.far_ends.get(&client.0) else {
            return;
        };
        let leased = |stage: Stage| matches!(stage, Stage::Leased { client, .. } if client == far);
        let data = self
            .connections
            .iter()
            .find(|(_, connection)| leased(connection.stage));
        let Some((&data, _)) = data else { return };
        if let Some(connection) = self.connections.get_mut(&far) {
            connection.stage = Stage::Relayed { data, bytes: 0 };
            let bytes = std::mem::take(&mut connection.unread);
            self.forward(far, data, bytes);
        }
    }
}

impl Node for Edge {
    fn handle_packet(&mut self, now: Now, packet: Packet) {
        if !self.connections.contains_key(&packet.from) {
            // What comes on a closed connection finds nobody.
            if self.closed.contains(&packet.from) {
                return;
            }
            self.accept(now, &packet);
        }
        if let Some(connection) = self.connections.get_mut(&packet.from) {
            connection.unread.extend(packet.bytes);
            self.read(now, packet.from);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.broker.handle_timeout(now);
        self.drain(now);
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.broker.poll_timeout()
    }
}

/// An agent with one server that echoes.
#[derive(Debug)]
pub struct Agent {
    host: std::net::IpAddr,
    edge: Address,
    name: String,
    received: Vec<u8>,
    session: Option<(SessionName, SessionSecret)>,
    /// Its data connections by their own address: what came, and whether OPEN was answered.
    data: BTreeMap<Address, (Vec<u8>, bool)>,
    next_port: u16,
    sequence: u64,
    out: VecDeque<Packet>,
    /// Numbers that the edge has acknowledged.
    pub admitted: Vec<Number>,
    /// OPENs that it answered.
    pub opened: Vec<Open>,
}

impl Agent {
    /// An agent on `host` that dials `edge`.
    #[must_use]
    pub fn new(host: std::net::IpAddr, edge: Address, name: &str) -> Self {
        Self {
            host,
            edge,
            name: name.to_owned(),
            received: Vec::new(),
            session: None,
            data: BTreeMap::new(),
            next_port: FIRST_DATA_PORT,
            sequence: 0,
            out: VecDeque::new(),
            admitted: Vec::new(),
            opened: Vec::new(),
        }
    }

    /// Opens the control connection.
    pub fn start(&mut self) {
        self.control(&Frame::Hello(Hello {
            version_min: 1,
            version_max: 1,
            agent_id: [1; 16],
            epoch: 1,
            caps: 0,
            max_conns: 0,
            fqdn: self.name.clone().into(),
        }));
    }

    /// Asks the edge to let one client with `number` in.
    pub fn admit(&mut self, number: Number, ttl: Duration) {
        self.control(&Frame::Admit(Admit {
            reg_id: REGISTRATION,
            number,
            ttl_ms: u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX),
            uses: 1,
        }));
    }

    fn control(&mut self, frame: &Frame) {
        let from = Address::new(self.host, CONTROL_PORT);
        let bytes = frame.to_bytes();
        self.out.push_back(Packet {
            from,
            to: self.edge,
            bytes,
        });
    }

    fn handle_frame(&mut self, frame: Frame) {
        match frame {
            Frame::HelloAck(ack) => {
                self.session = Some((ack.session, ack.secret));
                self.control(&Frame::Register(Register {
                    reg_id: REGISTRATION,
                    kind: RegistrationKind::Server,
                    weight: 1,
                    max_conns: 0,
                    ttl_s: 0,
                    name: self.name.clone().into(),
                }));
            }
            Frame::Want { count, .. } => (0..count).for_each(|_| self.dial()),
            Frame::AdmitAck {
                number,
                status: Status::Ok,
            } => self.admitted.push(number),
            Frame::Ping { nonce } => self.control(&Frame::Pong { nonce }),
            // The rest is accounts and goodbyes, which this agent has no use for.
            Frame::Hello(_)
            | Frame::Register(_)
            | Frame::RegisterAck { .. }
            | Frame::Unregister { .. }
            | Frame::Admit(_)
            | Frame::AdmitAck { .. }
            | Frame::Revoke { .. }
            | Frame::DialFail { .. }
            | Frame::Closed(_)
            | Frame::Pong { .. }
            | Frame::Drain(_)
            | Frame::DrainAck(_)
            | Frame::Goaway { .. } => {}
        }
    }

    fn dial(&mut self) {
        let Some((session, secret)) = &self.session else {
            return;
        };
        self.sequence += 1;
        self.next_port += 1;
        let from = Address::new(self.host, self.next_port);
        let bytes = data::hello(session, self.sequence, secret).to_vec();
        self.data.insert(from, (Vec::new(), false));
        self.out.push_back(Packet {
            from,
            to: self.edge,
            bytes,
        });
    }

    fn handle_data(&mut self, own: Address, bytes: Vec<u8>) {
        let Some((received, answered)) = self.data.get_mut(&own) else {
            return;
        };
        received.extend(bytes);
        let mut reply = Vec::new();
        if !*answered && let Ok(Some((open, len))) = Open::parse(received) {
            received.drain(..len);
            *answered = true;
            self.opened.push(open);
            reply.extend(OpenAck(Status::Ok).to_bytes());
        }
        if *answered {
            reply.append(received);
            self.out.push_back(Packet {
                from: own,
                to: self.edge,
                bytes: reply,
            });
        }
    }
}

impl Node for Agent {
    fn handle_packet(&mut self, _now: Now, packet: Packet) {
        if packet.to.port() != CONTROL_PORT {
            return self.handle_data(packet.to, packet.bytes);
        }
        self.received.extend(packet.bytes);
        while let Ok(Step::Frame { kind, body, len }) = frame::next(&self.received) {
            let parsed = Frame::parse(kind, body);
            self.received.drain(..len);
            if let Ok(frame) = parsed {
                self.handle_frame(frame);
            }
        }
    }

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// A client: sends what it is told and keeps what comes.
#[derive(Debug)]
pub struct Client {
    own: Address,
    edge: Address,
    out: VecDeque<Packet>,
    /// Everything that came back.
    pub heard: Vec<u8>,
}

impl Client {
    /// A client that connects from `own` to `edge`.
    #[must_use]
    pub const fn new(own: Address, edge: Address) -> Self {
        Self {
            own,
            edge,
            out: VecDeque::new(),
            heard: Vec::new(),
        }
    }

    /// Sends `bytes`; the first call connects.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.push_back(Packet {
            from: self.own,
            to: self.edge,
            bytes: bytes.to_vec(),
        });
    }
}

impl Node for Client {
    fn handle_packet(&mut self, _now: Now, packet: Packet) {
        self.heard.extend(packet.bytes);
    }

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// The agent's own port of its control connection, and the first of its data connections.
pub const CONTROL_PORT: u16 = 6000;
/// Data connections count up from here.
pub const FIRST_DATA_PORT: u16 = 7000;
const REGISTRATION: u32 = 1;

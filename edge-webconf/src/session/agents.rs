//! What agents do on their control connections.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use edge_common::host_name::{HostName, NamePattern};
use edge_common::join_token::SKEW;
use edge_common::time::Now;

use super::admission::{AdmitError, Grant};
use super::agent::{
    Control, HEARTBEAT, HELLO_TIMEOUT, Heartbeat, Session, SessionKey, limit, next_beat,
};
use super::broker::Broker;
use super::pool::{Pool, WANT_DEADLINE};
use super::sequence::Sequence;
use super::timers::Timer;
use super::{ClientId, ControlId, Event, Output, Peer};
use crate::ewrp::control::{Admit, Drain, Frame, Hello, HelloAck, Register, RegistrationKind};
use crate::ewrp::frame::{self, Step};
use crate::ewrp::{Number, SessionSecret, Status, VERSION};

/// Why an agent gets a GOAWAY.
struct Dismissal {
    status: Status,
    text: String,
}

impl Dismissal {
    fn new(status: Status, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    fn protocol(error: impl std::fmt::Display) -> Self {
        Self::new(Status::Protocol, error.to_string())
    }
}

impl Broker {
    /// A connection to the agent port has finished its TLS handshake as a control connection.
    pub fn handle_control(&mut self, now: Now, id: ControlId, peer: Peer) {
        let trusted = self.trusts(&peer.names);
        let full = self.controls.len() >= CONTROLS_MAX;
        let control = Control {
            peer,
            received: Vec::new(),
            session: None,
        };
        self.controls.insert(id, control);
        if !trusted {
            self.dismiss(now, id, Status::NotTrusted, "not a trusted agent");
        } else if full {
            self.dismiss(now, id, Status::Limit, "too many control connections");
        } else if self.is_draining() {
            self.dismiss(now, id, Status::Draining, "the edge stops");
        } else {
            self.timers.arm(Timer::Hello(id), now.mono + HELLO_TIMEOUT);
            self.push(Output::Read(id.0));
        }
    }

    /// Whether one of the names is that of a trusted agent.
    pub(super) fn trusts(&self, names: &[HostName]) -> bool {
        names.iter().any(|name| self.trusts_name(name))
    }

    pub(super) fn trusts_name(&self, name: &HostName) -> bool {
        is_one_of(&self.settings.trust.agents, name)
    }

    /// The next bytes of a control connection.
    pub fn handle_control_data(&mut self, now: Now, id: ControlId, bytes: &[u8]) {
        let Some(control) = self.controls.get_mut(&id) else {
            return;
        };
        let mut pending = std::mem::take(&mut control.received);
        pending.extend_from_slice(bytes);
        match self.frames(now, id, &pending) {
            Ok(consumed) => {
                pending.drain(..consumed);
                // A GOAWAY may have ended the connection.
                if let Some(control) = self.controls.get_mut(&id) {
                    control.received = pending;
                    self.push(Output::Read(id.0));
                }
            }
            Err(Dismissal { status, text }) => self.dismiss(now, id, status, &text),
        }
    }

    /// Takes all whole frames and says how long they were.
    fn frames(&mut self, now: Now, id: ControlId, received: &[u8]) -> Result<usize, Dismissal> {
        let mut consumed = 0;
        loop {
            match frame::next(&received[consumed..]).map_err(Dismissal::protocol)? {
                Step::NeedMore => return Ok(consumed),
                Step::Frame { kind, body, len } => {
                    let frame = Frame::parse(kind, body).map_err(Dismissal::protocol)?;
                    self.frame(now, id, frame)?;
                    consumed += len;
                }
            }
        }
    }

    fn frame(&mut self, now: Now, id: ControlId, frame: Frame) -> Result<(), Dismissal> {
        let Some(control) = self.controls.get(&id) else {
            return Ok(());
        };
        match (control.session, frame) {
            (None, Frame::Hello(hello)) => self.hello(now, id, &hello)?,
            (None, other) => {
                let text = format!("{:?} before HELLO", other.kind());
                return Err(Dismissal::new(Status::Protocol, text));
            }
            (Some(key), Frame::Register(register)) => self.register(now, key, &register),
            (Some(key), Frame::Unregister { reg_id }) => self.unregister(now, key, reg_id),
            (Some(key), Frame::Admit(admit)) => self.admit(now, key, &admit),
            (Some(key), Frame::Revoke { number, cut }) => self.revoke(now, key, number, cut),
            (Some(key), Frame::DialFail { count, status }) => {
                self.dial_failed(now, key, count, status);
            }
            (Some(key), Frame::Ping { nonce }) => self.transmit(key, &Frame::Pong { nonce }),
            (Some(key), Frame::Pong { nonce }) => {
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.heartbeat.answered(nonce);
                }
            }
            (Some(key), Frame::Drain(drain)) => self.agent_drains(key, drain),
            (Some(_), Frame::DrainAck(_)) => {}
            (Some(_), Frame::Goaway { status, .. }) => self.end_control(now, id, status),
            (
                Some(_),
                other @ (Frame::Hello(_)
                | Frame::HelloAck(_)
                | Frame::RegisterAck { .. }
                | Frame::AdmitAck { .. }
                | Frame::Want { .. }
                | Frame::Closed(_)),
            ) => {
                let text = format!("{:?} from an agent in session", other.kind());
                return Err(Dismissal::new(Status::Protocol, text));
            }
        }
        Ok(())
    }

    fn hello(&mut self, now: Now, id: ControlId, hello: &Hello) -> Result<(), Dismissal> {
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(Dismissal::new(Status::Version, "only version 1 is spoken"));
        }
        let names = match self.controls.get(&id) {
            Some(control) => control.peer.names.clone(),
            None => return Ok(()),
        };
        let agent = self.proven_agent(hello, &names)?;
        self.replace_older(now, id, &agent, hello)?;
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Dismissal::new(Status::Limit, "too many sessions"));
        }
        let of_name = self.sessions.values().filter(|it| it.agent == agent);
        if of_name.count() >= SESSIONS_PER_NAME_MAX {
            let text = "too many sessions of this name";
            return Err(Dismissal::new(Status::Limit, text));
        }
        self.open_session(now, id, agent, names, hello);
        Ok(())
    }

    /// The name of a HELLO counts only if the certificate proves it and the list has it.
    fn proven_agent(&self, hello: &Hello, names: &[HostName]) -> Result<HostName, Dismissal> {
        hello
            .fqdn
            .parse()
            .ok()
            .filter(|name| names.contains(name) && self.trusts_name(name))
            .ok_or_else(|| {
                let text = "the name is not one of the certificate, or not trusted";
                Dismissal::new(Status::NotTrusted, text)
            })
    }

    /// One session for each agent: the newer epoch wins. An equal epoch is the same agent on a
    /// new line, so the newcomer wins too. Another agent's id is not at risk: the name counts.
    fn replace_older(
        &mut self,
        now: Now,
        id: ControlId,
        agent: &HostName,
        hello: &Hello,
    ) -> Result<(), Dismissal> {
        let same =
            |session: &&Session| session.agent == *agent && session.agent_id == hello.agent_id;
        let Some(rival) = self.sessions.values().find(same) else {
            return Ok(());
        };
        if rival.epoch > hello.epoch {
            let text = "a session of a newer epoch is up";
            return Err(Dismissal::new(Status::Limit, text));
        }
        let control = rival.control;
        let address = |id| self.controls.get(&id).map(|it| it.peer.address);
        if let (Some(from), Some(to)) = (address(control), address(id))
            && from.ip() != to.ip()
        {
            let agent = agent.clone();
            self.event(Event::AgentMoved { agent, from, to });
        }
        self.dismiss(now, control, Status::Limit, "replaced by a newer session");
        Ok(())
    }

    fn open_session(
        &mut self,
        now: Now,
        id: ControlId,
        agent: HostName,
        names: Vec<HostName>,
        hello: &Hello,
    ) {
        let Some(control) = self.controls.get_mut(&id) else {
            return;
        };
        let key = SessionKey(self.next_session);
        self.next_session += 1;
        control.session = Some(key);
        let address = control.peer.address;
        let (mut name, mut secret) = ([0; 16], SessionSecret([0; 32]));
        self.rng.fill(&mut name);
        self.rng.fill(&mut secret.0);
        let session = Session {
            control: id,
            agent: agent.clone(),
            agent_id: hello.agent_id,
            epoch: hello.epoch,
            since: now.mono,
            name,
            secret: secret.clone(),
            sequence: Sequence::new(),
            names,
            max_conns: limit(hello.max_conns),
            registrations: BTreeMap::new(),
            pool: Pool::new(self.settings.pool_min, self.settings.pool_max, now.mono),
            waiting: VecDeque::new(),
            conns: 0,
            heartbeat: Heartbeat::new(),
            draining: false,
        };
        self.by_name.insert(name, key);
        self.sessions.insert(key, session);
        self.timers.cancel(Timer::Hello(id));
        self.timers.arm(Timer::Heartbeat(key), next_beat(now.mono));
        let ack = HelloAck {
            version: VERSION,
            edge_id: self.settings.edge_id,
            session: name,
            secret,
            heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).expect("15 000"),
            pool_min: self.settings.pool_min,
            pool_max: self.settings.pool_max,
            unix_ms: now.unix.as_millis(),
        };
        self.transmit(key, &Frame::HelloAck(ack));
        self.event(Event::AgentUp { agent, address });
        self.tend_pool(now, key);
    }

    fn register(&mut self, now: Now, key: SessionKey, register: &Register) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let reg_id = register.reg_id;
        let may_conferences = is_one_of(&self.settings.trust.conference_agents, &session.agent);
        let status = if register.kind == RegistrationKind::Conference && !may_conferences {
            Status::NameDenied
        } else {
            session.register(register)
        };
        let agent = session.agent.clone();
        let timer = Timer::Registration(key, reg_id);
        if status == Status::Ok {
            self.timers.cancel(timer);
            if register.ttl_s > 0 {
                let ttl = Duration::from_secs(register.ttl_s.into());
                self.timers.arm(timer, now.mono + ttl);
            }
        }
        self.event(Event::Registered {
            agent,
            name: register.name.clone(),
            status,
        });
        self.transmit(key, &Frame::RegisterAck { reg_id, status });
    }

    /// Its numbers go with it, and so do the clients that wait; relays go on.
    pub(super) fn unregister(&mut self, now: Now, key: SessionKey, reg_id: u32) {
        self.timers.cancel(Timer::Registration(key, reg_id));
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        if session.registrations.remove(&reg_id).is_none() {
            return;
        }
        self.admission.forget_registration(key, reg_id);
        let waiting: Vec<ClientId> = session.waiting.iter().copied().collect();
        for id in waiting {
            if self.registration_of(id) == Some(reg_id) {
                self.refuse(now, id, Status::NoAgent);
            }
        }
    }

    fn admit(&mut self, now: Now, key: SessionKey, admit: &Admit) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let agent = session.agent.clone();
        let grant = Grant {
            session: key,
            reg_id: admit.reg_id,
            number: admit.number,
        };
        let ttl = Duration::from_millis(admit.ttl_ms.into());
        let status = if self.is_draining() || session.draining {
            Status::Draining
        } else if session.registrations.contains_key(&admit.reg_id) {
            match self.admission.admit(now.mono, grant, ttl, admit.uses) {
                Ok(()) => Status::Ok,
                Err(AdmitError::Range | AdmitError::Taken | AdmitError::Full) => Status::Limit,
            }
        } else {
            Status::NameDenied
        };
        let number = admit.number;
        self.event(Event::Admitted {
            agent,
            number,
            status,
        });
        self.transmit(key, &Frame::AdmitAck { number, status });
    }

    fn revoke(&mut self, now: Now, key: SessionKey, number: Number, cut: bool) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let agent = session.agent.clone();
        self.admission.revoke(key, number);
        if number.is_of_token() {
            self.void_token(now, number.hash());
        }
        if !cut {
            return;
        }
        let nobody = |core, serial| ClientId(super::ConnId { core, serial });
        let range = (number, nobody(0, 0))..=(number, nobody(u16::MAX, u64::MAX));
        let users: Vec<ClientId> = self.by_number.range(range).map(|&(_, id)| id).collect();
        for id in users {
            // A relay may have outlived the session that let it in.
            if self.agent_of(id) == Some(&agent) {
                self.cut(now, id, Status::TokenUnknown);
            }
        }
    }

    /// No client comes in by the token any more, whether it was seen here before or not.
    pub(super) fn void_token(&mut self, now: Now, hash: u64) {
        let until = now.unix + (self.settings.token_lifetime + 2 * SKEW);
        if !self.tokens.void(now.unix, hash, until) {
            self.event(Event::RevocationLost);
        }
    }

    fn dial_failed(&mut self, now: Now, key: SessionKey, count: u16, status: Status) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.pool.failed(now.mono, count);
            let agent = session.agent.clone();
            self.event(Event::DialFailed {
                agent,
                count,
                status,
            });
            self.tend_pool(now, key);
        }
    }

    fn agent_drains(&mut self, key: SessionKey, drain: Drain) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.draining = true;
            self.transmit(key, &Frame::DrainAck(drain));
        }
    }

    /// Asks for as many data connections as are missing and closes those that nobody needs.
    pub(super) fn tend_pool(&mut self, now: Now, key: SessionKey) {
        let stopping = self.is_draining();
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        if stopping || session.draining {
            return;
        }
        let count = session.pool.want(now.mono, session.waiting.len());
        let surplus = session.pool.surplus(now.mono);
        // Not before a second: what is due now and still there will not go away by asking again.
        let look = session.pool.next_look();
        if let Some(look) = look.map(|look| look.max(now.mono + Duration::from_secs(1))) {
            self.timers.arm(Timer::Pool(key), look);
        }
        if count > 0 {
            let deadline_ms = u32::try_from(WANT_DEADLINE.as_millis()).expect("5 000");
            self.transmit(key, &Frame::Want { count, deadline_ms });
        }
        for id in surplus {
            self.data.remove(&id);
            self.push(Output::Close(id.0));
        }
    }

    pub(super) fn beat(&mut self, now: Now, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let control = session.control;
        match session.heartbeat.beat() {
            Some(nonce) => {
                self.timers.arm(Timer::Heartbeat(key), next_beat(now.mono));
                self.transmit(key, &Frame::Ping { nonce });
            }
            None => self.dismiss(now, control, Status::Idle, "two PINGs were not answered"),
        }
    }

    /// The control connection is gone.
    pub fn handle_control_closed(&mut self, now: Now, id: ControlId) {
        self.end_control(now, id, Status::NoAgent);
    }

    /// GOAWAY, then the end of this connection and of nothing else.
    pub(super) fn dismiss(&mut self, now: Now, id: ControlId, status: Status, text: &str) {
        let Some(control) = self.controls.get(&id) else {
            return;
        };
        if control.session.is_none() {
            let address = control.peer.address;
            self.event(Event::AgentRefused {
                address,
                status,
                detail: text.to_owned(),
            });
        }
        let goaway = Frame::Goaway {
            status,
            text: text.into(),
        };
        self.push(Output::Transmit {
            to: id,
            bytes: goaway.to_bytes(),
        });
        self.end_control(now, id, status);
    }

    fn end_control(&mut self, now: Now, id: ControlId, status: Status) {
        let Some(control) = self.controls.remove(&id) else {
            return;
        };
        self.timers.cancel(Timer::Hello(id));
        self.push(Output::Close(id.0));
        if let Some(key) = control.session {
            self.end_session(now, key, status);
        }
    }

    /// Numbers, registrations and parked connections of the session go at once; what is relayed
    /// goes on until its own connections end.
    fn end_session(&mut self, now: Now, key: SessionKey, status: Status) {
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        self.by_name.remove(&session.name);
        self.admission.forget_session(key);
        self.timers.cancel(Timer::Heartbeat(key));
        self.timers.cancel(Timer::Pool(key));
        for &reg_id in session.registrations.keys() {
            self.timers.cancel(Timer::Registration(key, reg_id));
        }
        for id in session.pool.ids() {
            self.data.remove(&id);
            self.push(Output::Close(id.0));
        }
        for id in session.waiting {
            self.refuse(now, id, Status::NoAgent);
        }
        self.event(Event::AgentDown {
            agent: session.agent,
            status,
        });
    }
}

fn is_one_of(agents: &[NamePattern], name: &HostName) -> bool {
    agents.iter().any(|agent| agent.matches(name))
}

/// Control connections at once, those before their HELLO included.
const CONTROLS_MAX: usize = 512;
/// Sessions of one name at once; each has an instance of its own.
const SESSIONS_PER_NAME_MAX: usize = 8;
/// Sessions at once.
const SESSIONS_MAX: usize = 256;

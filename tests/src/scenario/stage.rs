//! The edge of a scenario with everybody around it: two cores, the owner of the verdicts, a clock.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_access::proxy::callback::Fault;
use edge_access::proxy::federation::{self, Authority, Resolved};
use edge_access::proxy::flow::{Partner, Peer, Standing};
use edge_access::proxy::refusal::Refusal;
use edge_access::proxy::settings::{FederationRules, Settings};
use edge_access::proxy::token::{FlowKey, Tokens};
use edge_access::proxy::{Output, Proxy};
use edge_access::ws::content::{self, Content as Framed};
use edge_access::ws::frame::{Reader, Step};
use edge_access::ws::write;
use edge_common::cert::identity::{CertificateId, Fingerprint, ProvenNames};
use edge_common::config::{
    AccessLimits, Clients, Disclosure, InsideRoutes, RegisterMode, SipDomain, WebSocket,
};
use edge_common::host_name::{HostName, HostPort};
use edge_common::partner_proof::Rules;
use edge_common::random::Seeded;
use edge_common::secret::{ArraySecret, Secrets};
use edge_common::srv::{SrvAnswer, SrvRecord};
use edge_common::time::{Now, UnixTime};

use super::message::{self, Speaker};
use super::pattern::{self, Kept};
use super::script::{Content, Role, Setting, Text};

/// The world of one scenario.
pub(super) struct Stage {
    now: Now,
    cores: Vec<Proxy>,
    authority: Authority,
    srv: BTreeMap<String, String>,
    cast: BTreeMap<String, Actor>,
    /// What the edge did and no line has told yet.
    deeds: VecDeque<Deed>,
    kept: Kept,
    /// Connections to partners that were asked for, and by which core.
    dialled: Vec<(usize, HostPort)>,
}

/// Somebody with a connection.
struct Actor {
    speaker: Speaker,
    flow: FlowKey,
    /// It speaks in frames.
    web: Option<Reader>,
}

#[derive(Debug)]
enum Deed {
    Sent(String, String),
    HungUp(String, &'static str),
    Dialled(HostPort),
}

impl Stage {
    pub(super) fn new(start: Instant, changes: &[Setting]) -> Self {
        let now = Now {
            mono: start,
            unix: UnixTime::from_secs(1_790_000_000),
        };
        let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(7)));
        let (settings, tokens) = (Arc::new(settings(changes)), Arc::new(Tokens::new(&secrets)));
        let core = |core| {
            let rng = Box::new(Seeded::new(u64::from(core)));
            Proxy::new(now, core, Arc::clone(&settings), Arc::clone(&tokens), rng)
        };
        let srv = |setting: &Setting| match setting {
            Setting::Srv(domain, target) => Some((domain.clone(), target.clone())),
            Setting::Anonymous
            | Setting::Partner(..)
            | Setting::Blocked(_)
            | Setting::Discovery => None,
        };
        Self {
            now,
            cores: vec![core(0), core(1)],
            authority: Authority::new(Rules::default(), 5061, 10, 8),
            srv: changes.iter().filter_map(srv).collect(),
            cast: BTreeMap::new(),
            deeds: VecDeque::new(),
            kept: Kept::new(),
            dialled: Vec::new(),
        }
    }

    pub(super) fn play(&mut self, step: &Content) -> Result<(), String> {
        match step {
            Content::Receives(name, text) => return self.receives(name, text),
            Content::Dials(target) => return self.dials(target),
            Content::HungUp(name, reason) => return self.hung_up(name, reason),
            Content::Enters(..)
            | Content::Sends(..)
            | Content::Answers(..)
            | Content::Silent(_)
            | Content::HangsUp(_)
            | Content::After(_) => self.quiet()?,
        }
        match step {
            Content::Enters(name, role) => self.enters(name, role)?,
            Content::Sends(name, text) => self.sends(name, text)?,
            Content::Answers(target, name) => self.answers(target, name)?,
            Content::Silent(target) => self.silent(target)?,
            Content::HangsUp(name) => {
                let flow = self.actor(name)?.flow;
                self.core(flow).handle_closed(flow);
            }
            Content::After(time) => self.wait(*time),
            Content::Receives(..) | Content::Dials(_) | Content::HungUp(..) => {}
        }
        self.drain();
        Ok(())
    }

    /// Nothing is left that the edge did and the script does not say.
    pub(super) fn quiet(&mut self) -> Result<(), String> {
        self.deeds.retain(
            |deed| !matches!(deed, Deed::Sent(_, message) if message.starts_with("SIP/2.0 100 ")),
        );
        match self.deeds.front() {
            None => Ok(()),
            Some(deed) => Err(format!("before this the edge did more: {}", deed.tell())),
        }
    }

    fn enters(&mut self, name: &str, role: &Role) -> Result<(), String> {
        let newcomer = Peer::Client(Standing::Newcomer {
            requests: 0,
            in_flight: 0,
        });
        let inside = || Peer::Inside {
            name: host("director.contoso.internal"),
        };
        match role {
            Role::Client { address, core } => self.open(name, *core, address, newcomer),
            Role::Inside { core } => self.open(name, *core, INSIDE, inside()),
            Role::Partner { host } => self.open(name, 0, PARTNER, partner(host, None)),
            Role::NextHop => {
                self.open(name, 0, INSIDE, inside())?;
                let flow = self.actor(name)?.flow;
                self.core(flow).handle_next_hop(flow, 0);
                Ok(())
            }
        }
    }

    fn open(&mut self, name: &str, core: usize, remote: &str, peer: Peer) -> Result<(), String> {
        let remote: SocketAddr = remote
            .parse()
            .map_err(|_| format!("no address: {remote}"))?;
        let flow = self.cores[core].handle_open(self.now, remote, peer);
        let flow = flow.ok_or("the edge has no room for one more")?;
        // Who comes back remembers what was said to him.
        let mut speaker = self
            .cast
            .remove(name)
            .map_or_else(Speaker::default, |old| old.speaker);
        speaker.name = name.to_owned();
        speaker.transport = "TLS";
        let actor = Actor {
            speaker,
            flow,
            web: None,
        };
        self.cast.insert(name.to_owned(), actor);
        Ok(())
    }

    fn sends(&mut self, name: &str, text: &Text) -> Result<(), String> {
        let filled = Text {
            start: pattern::fill(&text.start, &self.kept),
            headers: text
                .headers
                .iter()
                .map(|line| pattern::fill(line, &self.kept))
                .collect(),
            body: text
                .body
                .as_ref()
                .map(|body| pattern::fill(body, &self.kept)),
        };
        let actor = self.cast.get_mut(name).ok_or_else(|| nobody(name))?;
        let flow = actor.flow;
        if filled.start.starts_with("GET ") {
            return self.knocks(name, &filled);
        }
        if filled.start == "CRLF CRLF" {
            let web = actor.web.is_some();
            return if web {
                self.frame(name, b"\r\n\r\n")
            } else {
                self.cores[usize::from(flow.core)].handle_ping(self.now, flow);
                Ok(())
            };
        }
        let message = actor.speaker.compose(&filled)?;
        if actor.web.is_some() {
            return self.frame(name, message.as_bytes());
        }
        self.cores[usize::from(flow.core)].handle_message(self.now, flow, message.as_bytes());
        Ok(())
    }

    /// A browser asks for a WebSocket.
    fn knocks(&mut self, name: &str, text: &Text) -> Result<(), String> {
        let mut request = format!("{}\r\n", text.start);
        for line in &text.headers {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let (flow, now) = (self.actor(name)?.flow, self.now);
        let read = self.core(flow).websocket_rules().read(request.as_bytes());
        let answer = match read {
            Ok(Some(upgrade)) => {
                self.core(flow).handle_websocket(now, flow);
                let actor = self.cast.get_mut(name).ok_or_else(|| nobody(name))?;
                actor.web = Some(Reader::default());
                actor.speaker.transport = "WSS";
                upgrade.answer
            }
            Err(denial) => {
                self.core(flow).handle_closed(flow);
                denial.answer()
            }
            Ok(None) => return Err("the edge waits for more of the request".to_owned()),
        };
        let answer = String::from_utf8_lossy(&answer).into_owned();
        self.deeds.push_back(Deed::Sent(name.to_owned(), answer));
        Ok(())
    }

    /// A browser sends one message in one frame.
    fn frame(&mut self, name: &str, message: &[u8]) -> Result<(), String> {
        let frame = masked(message)?;
        let flow = self.actor(name)?.flow;
        let limits = self.core(flow).frame_limits(flow);
        let actor = self.cast.get_mut(name).ok_or_else(|| nobody(name))?;
        let reader = actor.web.as_mut().ok_or("no WebSocket is open")?;
        let mut payload = Vec::new();
        let step = reader.next(&frame, limits.head + limits.body, &mut payload);
        if step != Ok(Step::Message { len: frame.len() }) {
            return Err(format!("the frame was taken for {step:?}"));
        }
        let now = self.now;
        let core = &mut self.cores[usize::from(flow.core)];
        match content::read(&payload, limits) {
            Ok(Framed::Message(message)) => core.handle_message(now, flow, &message),
            Ok(Framed::Ping) => core.handle_ping(now, flow),
            other => return Err(format!("the message was taken for {other:?}")),
        }
        Ok(())
    }

    fn receives(&mut self, name: &str, text: &Text) -> Result<(), String> {
        let of = |deed: &Deed| matches!(deed, Deed::Sent(to, _) if to == name);
        let Some(at) = self.deeds.iter().position(of) else {
            let first = self.deeds.front().map(Deed::tell);
            let instead = first.unwrap_or_else(|| "nothing".to_owned());
            return Err(format!("{name} gets no message; the edge did: {instead}"));
        };
        let Some(Deed::Sent(_, message)) = self.deeds.remove(at) else {
            return Err("it was just there".to_owned());
        };
        // Where nobody asks for it, 100 Trying is passed over.
        if message.starts_with("SIP/2.0 100 ") && !text.start.starts_with("100 ") {
            return self.receives(name, text);
        }
        if let Some(actor) = self.cast.get_mut(name) {
            actor.speaker.take(&message);
        }
        self.compare(text, &message)
            .map_err(|what| format!("{what}\n--- the edge sent to {name}:\n{message}---"))
    }

    fn compare(&mut self, text: &Text, message: &str) -> Result<(), String> {
        if text.start == "CRLF" {
            return if message == "\r\n" {
                Ok(())
            } else {
                Err("not the answer to a keep-alive".to_owned())
            };
        }
        let start = message::start(message);
        if !pattern::matches(&text.start, &start, &mut self.kept) {
            return Err(format!("the start line is {start:?}"));
        }
        let mut wanted: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in &text.headers {
            if let Some(name) = line.strip_prefix("no ") {
                wanted.push((name, Vec::new()));
                continue;
            }
            let (name, value) = line
                .split_once(": ")
                .ok_or_else(|| format!("not a header: {line}"))?;
            match wanted.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => wanted.push((name, vec![value])),
            }
        }
        for (name, patterns) in wanted {
            let values = message::values(message, name);
            let fit = values.len() == patterns.len()
                && patterns
                    .iter()
                    .zip(&values)
                    .all(|(pattern, value)| pattern::matches(pattern, value, &mut self.kept));
            if !fit {
                return Err(format!("{name} is {values:?}"));
            }
        }
        match &text.body {
            Some(body) if body != message::body(message) => Err("the body differs".to_owned()),
            Some(_) | None => Ok(()),
        }
    }

    fn dials(&mut self, target: &str) -> Result<(), String> {
        match self.deeds.pop_front() {
            Some(Deed::Dialled(dialled)) if dialled.to_string() == target => Ok(()),
            Some(deed) => Err(format!("the edge did {}", deed.tell())),
            None => Err("the edge dialled nobody".to_owned()),
        }
    }

    fn hung_up(&mut self, name: &str, reason: &str) -> Result<(), String> {
        match self.deeds.pop_front() {
            Some(Deed::HungUp(whom, why)) if whom == name && why == reason => Ok(()),
            Some(deed) => Err(format!("the edge did {}", deed.tell())),
            None => Err(format!("the edge did not hang up on {name}")),
        }
    }

    fn answers(&mut self, target: &str, name: &str) -> Result<(), String> {
        let (core, target) = self.taken(target)?;
        let certificate = target.host.to_string();
        let peer = partner(&certificate, Some(target));
        self.open(name, core, PARTNER, peer)
    }

    fn silent(&mut self, target: &str) -> Result<(), String> {
        let (core, target) = self.taken(target)?;
        let now = self.now;
        self.cores[core].handle_dial_failed(now, &target, Refusal::PartnerUnreachable);
        Ok(())
    }

    fn taken(&mut self, target: &str) -> Result<(usize, HostPort), String> {
        let of = |(_, dialled): &(usize, HostPort)| dialled.to_string() == target;
        let at = self.dialled.iter().position(of);
        let at = at.ok_or_else(|| format!("{target} was not dialled"))?;
        Ok(self.dialled.remove(at))
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let next = self.cores.iter().filter_map(Proxy::poll_timeout).min();
            let Some(at) = next.filter(|&at| at <= end) else {
                break;
            };
            // A wheel may ask to be turned at a moment that has passed.
            let step = at.saturating_duration_since(self.now.mono);
            self.turn(step.max(Duration::from_millis(1)));
        }
        self.turn(end.saturating_duration_since(self.now.mono));
    }

    fn turn(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        for core in &mut self.cores {
            core.handle_timeout(self.now);
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let mut parcels = Vec::new();
            for at in 0..self.cores.len() {
                while let Some(output) = self.cores[at].poll_output() {
                    match output {
                        Output::Transmit { flow, bytes } => {
                            let deed = transmitted(&self.cast, flow, bytes);
                            self.deeds.extend(deed);
                        }
                        Output::Close { flow, reason } => {
                            if let Some(name) = name_of(&self.cast, flow) {
                                self.deeds.push_back(Deed::HungUp(name, reason.label()));
                            }
                        }
                        Output::Cross(parcel) => parcels.push(parcel),
                        Output::Dial(target) => {
                            self.dialled.push((at, target.clone()));
                            self.deeds.push_back(Deed::Dialled(target));
                        }
                        Output::Ask(question) => self.authority.handle_question(self.now, question),
                        // There is no other member.
                        Output::Link(_) | Output::Event(_) => {}
                    }
                }
            }
            if parcels.is_empty() && !self.judge() {
                return;
            }
            for parcel in parcels {
                let core = usize::from(parcel.to.core);
                self.cores[core].handle_parcel(self.now, parcel);
            }
        }
    }

    /// Lets the owner of the verdicts do its work; `false` when it had none.
    fn judge(&mut self) -> bool {
        let mut worked = false;
        while let Some(output) = self.authority.poll_output() {
            worked = true;
            match output {
                federation::Output::Resolve(domain) => {
                    let resolved = self.lookup(&domain);
                    self.authority.handle_srv(self.now, &domain, resolved);
                }
                // Everybody on this stage shows a good certificate.
                federation::Output::NotCalled(_) => {}
                federation::Output::Call(call) => {
                    let nobody = Err(Fault::Unreachable);
                    self.authority.handle_called(self.now, &call, &nobody);
                }
                federation::Output::Answer(question, answer) => {
                    let core = usize::from(question.core());
                    self.cores[core].handle_answer(self.now, question, answer);
                }
            }
        }
        worked
    }

    fn lookup(&self, domain: &HostName) -> Resolved {
        let target = self
            .srv
            .get(domain.as_str())
            .and_then(|target| target.parse().ok());
        let answer = match target {
            Some(target) => SrvAnswer::Records(vec![SrvRecord {
                priority: 0,
                weight: 0,
                target,
            }]),
            None => SrvAnswer::Missing,
        };
        Resolved {
            answer: Ok(answer),
            ttl: Duration::from_secs(600),
        }
    }

    fn core(&mut self, flow: FlowKey) -> &mut Proxy {
        &mut self.cores[usize::from(flow.core)]
    }

    fn actor(&self, name: &str) -> Result<&Actor, String> {
        self.cast.get(name).ok_or_else(|| nobody(name))
    }
}

impl Deed {
    fn tell(&self) -> String {
        match self {
            Self::Sent(name, message) => format!("sent to {name}:\n{message}"),
            Self::HungUp(name, reason) => format!("hung up on {name}: {reason}"),
            Self::Dialled(target) => format!("dialled {target}"),
        }
    }
}

/// What arrives at whoever has that connection; what is sent on one that is gone arrives nowhere.
fn transmitted(cast: &BTreeMap<String, Actor>, flow: FlowKey, bytes: &[u8]) -> Option<Deed> {
    let name = name_of(cast, flow)?;
    let mut framed = Vec::new();
    let bytes = if cast.get(&name).is_some_and(|actor| actor.web.is_some()) {
        write::message(bytes, &mut framed);
        // One whole frame that is not masked: two bytes of head, or four.
        let head = if framed.get(1).is_some_and(|&len| len < 126) {
            2
        } else {
            4
        };
        &framed[head..]
    } else {
        bytes
    };
    let message = String::from_utf8_lossy(bytes).into_owned();
    Some(Deed::Sent(name, message))
}

fn name_of(cast: &BTreeMap<String, Actor>, flow: FlowKey) -> Option<String> {
    let mut actors = cast.iter();
    actors
        .find(|(_, actor)| actor.flow == flow)
        .map(|(name, _)| name.clone())
}

fn nobody(name: &str) -> String {
    format!("{name} has not entered")
}

/// A frame of a client (RFC 6455 §5.2).
fn masked(payload: &[u8]) -> Result<Vec<u8>, String> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x81];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..126) => frame.push(0x80 | len),
        Ok(_) | Err(_) => {
            let len = u16::try_from(payload.len()).map_err(|_| "too long for a scenario")?;
            frame.push(0x80 | 126);
            frame.extend_from_slice(&len.to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4]),
    );
    Ok(frame)
}

fn partner(certificate: &str, dialled: Option<HostPort>) -> Peer {
    let names = ProvenNames {
        dns: vec![host(certificate)],
        ..ProvenNames::default()
    };
    let issued = CertificateId {
        issuer: "CN=Public CA".to_owned(),
        serial: certificate.to_owned(),
    };
    Peer::Partner(Partner::new(Arc::new(names), Fingerprint([1; 32]), dialled).issued(issued))
}

fn settings(changes: &[Setting]) -> Settings {
    let mut federation = FederationRules {
        enabled: true,
        discovery: false,
        partners: Vec::new(),
        blocked: Vec::new(),
        port: 5061,
        pending: 8,
        ..FederationRules::default()
    };
    let mut anonymous_users = false;
    for change in changes {
        match change {
            Setting::Anonymous => anonymous_users = true,
            Setting::Discovery => federation.discovery = true,
            Setting::Blocked(domain) => federation.blocked.push(host(domain)),
            Setting::Partner(domain, edge) => {
                let edge = edge.as_deref().map(host);
                federation.partners.push((host(domain), edge));
            }
            Setting::Srv(..) => {}
        }
    }
    Settings {
        node: 1,
        epoch: 1,
        external: host("sip.contoso.test"),
        internal: host("edge.contoso.internal"),
        member: host("edge1.contoso.internal"),
        client_port: 443,
        federation_port: 5061,
        internal_port: 5061,
        domains: vec![SipDomain {
            domain: host("contoso.test"),
            remote_users_here: true,
            remote_users_edge: None,
        }],
        remote_users: true,
        anonymous_users,
        other_members: Vec::new(),
        inside_routes: InsideRoutes::Member,
        is_balanced: false,
        drain_percent_per_second: 1,
        register_mode: RegisterMode::Path,
        websocket: WebSocket::default(),
        clients: Clients::default(),
        disclosure: Disclosure::default(),
        next_hop: "director.contoso.internal:5061".parse().ok(),
        trusted_servers: Vec::new(),
        federation,
        limits: AccessLimits::default(),
    }
}

fn host(text: &str) -> HostName {
    text.parse().expect("a script names lawful hosts")
}

const INSIDE: &str = "10.10.0.50:5061";
const PARTNER: &str = "203.0.113.10:5061";

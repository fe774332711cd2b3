//! A world of two cores with an owner of the verdicts, driven by bytes and a virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use edge_common::cert::identity::{CertificateId, Fingerprint, KeyFingerprint, ProvenNames};
use edge_common::config::{
    AccessLimits, Clients, Disclosure, InsideRoutes, RegisterMode, SipDomain, WebSocket,
};
use edge_common::host_name::{HostName, HostPort};
use edge_common::partner_proof::Rules;
use edge_common::random::Seeded;
use edge_common::srv::{SrvAnswer, SrvRecord};
use edge_common::time::{Now, UnixTime};

use crate::proxy::callback::{Call, Called, Fault, Vouched};
use crate::proxy::federation::{self, Authority, Resolved, Unavailable};
use crate::proxy::flow::{Partner, Peer, Standing};
use crate::proxy::settings::{FederationRules, Settings};
use crate::proxy::token::{FlowKey, Tokens, tests::secrets};
use crate::proxy::watch::{Decision, Seen};
use crate::proxy::{CloseReason, Event, Linked, Output, Proxy};

pub(super) struct World {
    pub(super) now: Now,
    pub(super) cores: Vec<Proxy>,
    authority: Authority,
    /// Domain → targets; what is not here has no record.
    pub(super) dns: BTreeMap<&'static str, &'static str>,
    /// Bytes that left, per connection.
    sent: BTreeMap<FlowKey, VecDeque<String>>,
    pub(super) closed: Vec<(FlowKey, CloseReason)>,
    pub(super) dialled: Vec<HostPort>,
    pub(super) resolved: Vec<HostName>,
    pub(super) events: Vec<Event>,
    /// Host → certificate that it shows as a server: its key, and its number.
    pub(super) servers: BTreeMap<&'static str, (u8, &'static str)>,
    pub(super) called: Vec<HostPort>,
    /// What DNS is asked is lost.
    pub(super) deaf: bool,
    /// What left for other members.
    pub(super) linked: Vec<Linked>,
}

pub(super) fn name(text: &str) -> HostName {
    text.parse().expect("lawful name")
}

pub(in crate::proxy) fn settings() -> Settings {
    Settings {
        node: 3,
        epoch: 7,
        external: name("sip.contoso.test"),
        internal: name("edge.contoso.internal"),
        member: name("edge1.contoso.internal"),
        other_members: Vec::new(),
        inside_routes: InsideRoutes::Member,
        is_balanced: false,
        drain_percent_per_second: 1,
        client_port: 443,
        federation_port: 5061,
        internal_port: 5061,
        domains: vec![
            SipDomain {
                domain: name("contoso.test"),
                remote_users_here: true,
                remote_users_edge: None,
            },
            SipDomain {
                domain: name("other-site.test"),
                remote_users_here: false,
                remote_users_edge: None,
            },
        ],
        remote_users: true,
        anonymous_users: false,
        register_mode: RegisterMode::Both,
        websocket: WebSocket::default(),
        clients: Clients::default(),
        disclosure: Disclosure::default(),
        next_hop: Some("director.contoso.internal:5061".parse().expect("lawful")),
        trusted_servers: Vec::new(),
        federation: FederationRules {
            enabled: true,
            discovery: false,
            partners: vec![
                (name("fabrikam.test"), None),
                (name("northwind.test"), Some(name("edge.northwind.test"))),
            ],
            blocked: vec![name("evil.test")],
            port: 5061,
            pending: 2,
            mark_verified: true,
            lanes: 2,
            ..FederationRules::default()
        },
        limits: AccessLimits::default(),
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        };
        let (settings, tokens) = (Arc::new(settings), Arc::new(Tokens::new(&secrets())));
        let core = |core| {
            let rng = Box::new(Seeded::new(u64::from(core)));
            Proxy::new(now, core, Arc::clone(&settings), Arc::clone(&tokens), rng)
        };
        Self {
            now,
            cores: vec![core(0), core(1)],
            authority: Authority::new(Rules::default(), 5061, 10, 8),
            dns: BTreeMap::from([("fabrikam.test", "sip.fabrikam.test:5061")]),
            sent: BTreeMap::new(),
            closed: Vec::new(),
            dialled: Vec::new(),
            resolved: Vec::new(),
            events: Vec::new(),
            servers: BTreeMap::new(),
            called: Vec::new(),
            deaf: false,
            linked: Vec::new(),
        }
    }

    /// Opens a client's connection on a core.
    pub(super) fn client(&mut self, core: usize) -> FlowKey {
        let standing = Standing::Newcomer {
            requests: 0,
            in_flight: 0,
        };
        self.open(core, "192.0.2.10:51034", Peer::Client(standing))
    }

    /// A client that the inside has accepted.
    pub(super) fn promoted(&mut self, core: usize) -> FlowKey {
        self.open(core, "192.0.2.20:40000", Peer::Client(Standing::Promoted))
    }

    /// Our connection to the Director.
    pub(super) fn next_hop(&mut self, core: usize) -> FlowKey {
        let key = self.inside(core);
        self.cores[core].handle_next_hop(key, 0);
        key
    }

    /// A connection that the Director opened to us.
    pub(super) fn inside(&mut self, core: usize) -> FlowKey {
        let name = name("director.contoso.internal");
        self.open(core, "10.10.0.50:5061", Peer::Inside { name })
    }

    /// A partner's connection; `dialled` when we opened it.
    pub(super) fn partner(&mut self, core: usize, host: &str, dialled: Option<&str>) -> FlowKey {
        let names = ProvenNames {
            dns: vec![name(host)],
            ..ProvenNames::default()
        };
        let dialled = dialled.map(|target| target.parse().expect("lawful"));
        let certificate = CertificateId {
            issuer: "CN=Public CA".to_owned(),
            serial: host.to_owned(),
        };
        let partner =
            Partner::new(Arc::new(names), Fingerprint([1; 32]), dialled).issued(certificate);
        self.open(core, "203.0.113.10:5061", Peer::Partner(partner))
    }

    /// A connection of somebody who showed a certificate of that key and for that host, and proved nothing.
    pub(super) fn unproven(&mut self, core: usize, host: &str, key: u8) -> FlowKey {
        let names = ProvenNames {
            dns: vec![name(host)],
            ..ProvenNames::default()
        };
        let own = CertificateId {
            issuer: "CN=Nobody".to_owned(),
            serial: "1".to_owned(),
        };
        let partner = Partner::new(Arc::new(names), Fingerprint([key; 32]), None)
            .issued(own)
            .to_call_back(
                KeyFingerprint([key; 32]),
                "203.0.113.10".parse().expect("lawful"),
            );
        self.open(core, "203.0.113.10:5061", Peer::Partner(partner))
    }

    fn open(&mut self, core: usize, remote: &str, peer: Peer) -> FlowKey {
        let remote: SocketAddr = remote.parse().expect("lawful");
        let key = self.cores[core].handle_open(self.now, remote, peer);
        self.drain();
        key.expect("room")
    }

    pub(super) fn receive(&mut self, on: FlowKey, message: impl AsRef<[u8]>) {
        let core = &mut self.cores[usize::from(on.core)];
        core.handle_message(self.now, on, message.as_ref());
        self.drain();
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let next = self.cores.iter().filter_map(Proxy::poll_timeout).min();
            let Some(at) = next.filter(|&at| at <= end) else {
                break;
            };
            // A wheel may ask to be turned at a moment that has passed.
            self.now = self.now.plus(
                at.saturating_duration_since(self.now.mono)
                    .max(Duration::from_millis(1)),
            );
            self.turn();
        }
        self.now = self.now.plus(end.saturating_duration_since(self.now.mono));
        self.turn();
    }

    fn turn(&mut self) {
        for core in &mut self.cores {
            core.handle_timeout(self.now);
        }
        self.drain();
    }

    /// The next message that left on that connection, other than a 100.
    pub(super) fn sent(&mut self, on: FlowKey) -> Option<String> {
        let queue = self.sent.get_mut(&on)?;
        while queue
            .front()
            .is_some_and(|message| message.starts_with("SIP/2.0 100 "))
        {
            queue.pop_front();
        }
        queue.pop_front()
    }

    /// The next message that left on that connection, whatever it is.
    pub(super) fn sent_any(&mut self, on: FlowKey) -> Option<String> {
        self.sent.get_mut(&on)?.pop_front()
    }

    pub(super) fn dial_failed(
        &mut self,
        core: usize,
        target: &str,
        refusal: crate::proxy::refusal::Refusal,
    ) {
        let target = target.parse().expect("lawful");
        self.cores[core].handle_dial_failed(self.now, &target, refusal);
        self.drain();
    }

    pub(super) fn close(&mut self, key: FlowKey) {
        self.cores[usize::from(key.core)].handle_closed(key);
        self.drain();
    }

    pub(super) fn settings(&mut self, settings: Settings) {
        let settings = Arc::new(settings);
        for core in &mut self.cores {
            core.handle_settings(Arc::clone(&settings));
        }
    }

    /// The owner of the watch list looks at what was counted.
    pub(super) fn review(&mut self) {
        self.authority.watch_mut().review(self.now);
    }

    pub(super) fn watched(&self) -> Vec<Seen> {
        self.authority.watch().list()
    }

    pub(super) fn decide(&mut self, certificate: &CertificateId, decision: Decision) {
        let decided = self
            .authority
            .watch_mut()
            .decide(self.now, certificate, decision);
        assert!(decided.is_ok());
    }

    pub(super) fn drain(&mut self) {
        loop {
            let mut parcels = Vec::new();
            for core in 0..self.cores.len() {
                while let Some(output) = self.cores[core].poll_output() {
                    match output {
                        Output::Transmit { flow, bytes } => {
                            let text = String::from_utf8_lossy(bytes).into_owned();
                            self.sent.entry(flow).or_default().push_back(text);
                        }
                        Output::Close { flow, reason } => self.closed.push((flow, reason)),
                        Output::Cross(parcel) => parcels.push(parcel),
                        Output::Link(linked) => self.linked.push(linked),
                        Output::Dial(target) => self.dialled.push(target),
                        Output::Ask(question) => self.authority.handle_question(self.now, question),
                        Output::Event(event) => self.events.push(event),
                    }
                }
            }
            if parcels.is_empty() && !self.settle() {
                return;
            }
            for parcel in parcels {
                let core = usize::from(parcel.to.core);
                self.cores[core].handle_parcel(self.now, parcel);
            }
        }
    }

    /// Lets the owner of the verdicts do its work; `false` when it had none.
    fn settle(&mut self) -> bool {
        let mut worked = false;
        while let Some(output) = self.authority.poll_output() {
            worked = true;
            match output {
                federation::Output::Resolve(_) if self.deaf => {}
                federation::Output::Resolve(domain) => {
                    let resolved = self.lookup(&domain);
                    self.resolved.push(domain.clone());
                    self.authority.handle_srv(self.now, &domain, resolved);
                }
                federation::Output::NotCalled(_) => {}
                federation::Output::Call(call) => {
                    let called = self.call(&call);
                    self.authority.handle_called(self.now, &call, &called);
                }
                federation::Output::Answer(question, answer) => {
                    let core = usize::from(question.core());
                    self.cores[core].handle_answer(self.now, question, answer);
                }
            }
        }
        worked
    }

    fn call(&mut self, call: &Call) -> Called {
        self.called.push(call.target.clone());
        let &(key, serial) = self
            .servers
            .get(call.target.host.as_str())
            .ok_or(Fault::Unreachable)?;
        if KeyFingerprint([key; 32]) != call.key {
            return Err(Fault::OtherKey);
        }
        Ok(Vouched {
            names: Arc::new(ProvenNames {
                dns: vec![call.target.host.clone()],
                ..ProvenNames::default()
            }),
            certificate: Arc::new(CertificateId {
                issuer: "CN=Public CA".to_owned(),
                serial: serial.to_owned(),
            }),
        })
    }

    fn lookup(&self, domain: &HostName) -> Resolved {
        let answer = match self.dns.get(domain.as_str()) {
            Some(&"silence") => Err(Unavailable),
            Some(targets) => {
                let record = |target: &str| SrvRecord {
                    priority: 0,
                    weight: 0,
                    target: target.parse().expect("lawful"),
                };
                Ok(SrvAnswer::Records(targets.split(' ').map(record).collect()))
            }
            None => Ok(SrvAnswer::Missing),
        };
        Resolved {
            answer,
            ttl: Duration::from_secs(600),
        }
    }
}

/// A request with the mandatory headers and a branch of its own; `more` are whole lines, or replace a default of the same name.
pub(super) fn request(method: &str, uri: &str, from: &str, to: &str, more: &[&str]) -> String {
    static FRESH: AtomicU32 = AtomicU32::new(0);
    let fresh = FRESH.fetch_add(1, Ordering::Relaxed);
    let defaults = [
        format!("Via: SIP/2.0/TLS 10.1.0.10:5061;branch=z9hG4bKaa{fresh}"),
        format!("From: <sip:{from}>;tag=f1;epid=0123456789"),
        format!("To: <sip:{to}>"),
        "Call-ID: c1".to_owned(),
        format!("CSeq: 1 {method}"),
        "Max-Forwards: 70".to_owned(),
        "Content-Length: 0".to_owned(),
    ];
    let mut text = format!("{method} {uri} SIP/2.0\r\n");
    let label = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    for line in &defaults {
        if !more.iter().any(|given| label(given) == label(line)) {
            text += &format!("{line}\r\n");
        }
    }
    for line in more {
        text += &format!("{line}\r\n");
    }
    text + "\r\n"
}

/// The response that a far end would make to a request that it got.
pub(super) fn response(request: &str, status: &str, more: &[&str]) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.lines() {
        let copied = ["Via", "From", "Call-ID", "CSeq", "Record-Route"];
        let label = line.split(':').next().unwrap_or_default();
        if copied.contains(&label) {
            text += &format!("{line}\r\n");
        } else if label == "To" {
            let tag = if line.contains(";tag=") {
                ""
            } else {
                ";tag=t1"
            };
            text += &format!("{line}{tag}\r\n");
        }
    }
    for line in more {
        text += &format!("{line}\r\n");
    }
    text + "Content-Length: 0\r\n\r\n"
}

/// All values of one header, in order.
pub(super) fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    message
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .collect()
}

pub(super) fn status(message: Option<String>) -> String {
    let message = message.expect("an answer");
    let line = message.lines().next().expect("a status line");
    line.strip_prefix("SIP/2.0 ")
        .expect("a response")
        .to_owned()
}

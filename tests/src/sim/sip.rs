#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! The proxy's core in the simulated world, with phones and partners outside and Directors inside.
//!
//! Phones and Director are models written from the papers, line by line on text: slow, obvious, and
//! with none of the proxy's own code in them but the framer.

use super::world::{Address, Node, Packet};
use edge_access::proxy::federation::{Answer, Question};
use edge_access::proxy::flow::{Partner, Peer, Standing};
use edge_access::proxy::refusal::Refusal;
use edge_access::proxy::token::FlowKey;
use edge_access::proxy::{Event, Output, Proxy};
use edge_common::cert::identity::{Fingerprint, ProvenNames};
use edge_common::host_name::{HostName, HostPort};
use edge_common::sip::framer::{Framer, Limits, Opener, Step};
use edge_common::time::Now;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One core of the Access Edge: what its shell does, without sockets.
pub struct Edge {
    proxy: Proxy,
    /// Where clients connect to.
    client_port: Address,
    /// Our end of the connection to the Director.
    internal: Address,
    flows: BTreeMap<Address, Connection>,
    far_ends: BTreeMap<FlowKey, (Address, Address)>,
    out: VecDeque<Packet>,
    /// Everything that the proxy said.
    pub events: Vec<Event>,
    /// Connections that the proxy closed, by their far end, with the reason's label.
    pub closed: Vec<(Address, &'static str)>,
    /// Partners' domains, with the names and the addresses of their edges in order.
    pub partners: BTreeMap<HostName, Vec<(HostPort, Address)>>,
}

/// What an output of the proxy asks of the world.
enum Later {
    Dial(HostPort),
    Ask(Question),
}

struct Connection {
    key: FlowKey,
    framer: Framer,
    received: Vec<u8>,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge")
            .field("flows", &self.flows.len())
            .finish_non_exhaustive()
    }
}

impl Edge {
    /// An edge whose connection to `director` stands.
    #[must_use]
    pub fn new(
        now: Now,
        mut proxy: Proxy,
        client_port: Address,
        internal: Address,
        director: (Address, HostName),
    ) -> Self {
        let (director, name) = director;
        let inside = proxy.handle_open(now, director, Peer::Inside { name });
        let mut edge = Self {
            proxy,
            client_port,
            internal,
            flows: BTreeMap::new(),
            far_ends: BTreeMap::new(),
            out: VecDeque::new(),
            events: Vec::new(),
            closed: Vec::new(),
            partners: BTreeMap::new(),
        };
        if let Some(key) = inside {
            edge.proxy.handle_next_hop(key, 0);
            edge.keep(key, internal, director, Opener::Us);
        }
        edge
    }

    /// A connection to one more Director stands, which is taken when those of lower rank fail.
    pub fn add_next_hop(&mut self, now: Now, near: Address, far: (Address, HostName), rank: u8) {
        let (far, name) = far;
        if let Some(key) = self.proxy.handle_open(now, far, Peer::Inside { name }) {
            self.proxy.handle_next_hop(key, rank);
            self.keep(key, near, far, Opener::Us);
        }
    }

    /// So many bytes wait for the Director to read them.
    pub fn set_backlog(&mut self, bytes: usize) {
        self.proxy.handle_backlog(bytes);
    }

    /// Transactions under way.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.proxy.fill().transactions
    }

    /// Clients that are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.flows.len().saturating_sub(1)
    }

    /// The far end has closed its connection.
    pub fn hang_up(&mut self, now: Now, far: Address) {
        if let Some(connection) = self.flows.remove(&far) {
            self.far_ends.remove(&connection.key);
            self.proxy.handle_closed(connection.key);
            self.drain(now);
        }
    }

    fn keep(&mut self, key: FlowKey, near: Address, far: Address, opener: Opener) {
        let connection = Connection {
            key,
            framer: Framer::new(opener, self.proxy.frame_limits(key)),
            received: Vec::new(),
        };
        self.flows.insert(far, connection);
        self.far_ends.insert(key, (near, far));
    }

    fn accept(&mut self, now: Now, far: Address) {
        let newcomer = Standing::Newcomer {
            requests: 0,
            in_flight: 0,
        };
        if let Some(key) = self.proxy.handle_open(now, far, Peer::Client(newcomer)) {
            self.keep(key, self.client_port, far, Opener::Remote);
        }
    }

    fn read(&mut self, now: Now, far: Address) {
        while let Some(connection) = self.flows.get_mut(&far) {
            let key = connection.key;
            connection.framer.set_limits(self.proxy.frame_limits(key));
            let step = connection.framer.next(&connection.received);
            match step {
                Ok(Step::NeedMore) => return,
                Ok(Step::Skip { len } | Step::Pong { len }) => {
                    drop(connection.received.drain(..len));
                }
                Ok(Step::Ping { len }) => {
                    drop(connection.received.drain(..len));
                    self.proxy.handle_ping(now, key);
                }
                Ok(Step::Message { len }) => {
                    let message: Vec<u8> = connection.received.drain(..len).collect();
                    self.proxy.handle_message(now, key, &message);
                }
                Err(error) => {
                    let received = &connection.received;
                    self.proxy.handle_frame_error(key, received, error);
                }
            }
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Now) {
        let mut later = Vec::new();
        while let Some(output) = self.proxy.poll_output() {
            match output {
                Output::Transmit { flow, bytes } => {
                    if let Some(&(from, to)) = self.far_ends.get(&flow) {
                        let bytes = bytes.to_vec();
                        self.out.push_back(Packet { from, to, bytes });
                    }
                }
                Output::Close { flow, reason } => {
                    if let Some((_, far)) = self.far_ends.remove(&flow) {
                        self.flows.remove(&far);
                        self.closed.push((far, reason.label()));
                    }
                }
                Output::Event(event) => self.events.push(event),
                Output::Dial(target) => later.push(Later::Dial(target)),
                Output::Ask(question) => later.push(Later::Ask(question)),
                // There is one core in this world, and no other member.
                Output::Cross(_) | Output::Link(_) => {}
            }
        }
        for what in later {
            match what {
                Later::Dial(target) => self.dial(now, &target),
                Later::Ask(question) => self.resolve(now, question),
            }
            self.drain(now);
        }
    }

    fn dial(&mut self, now: Now, target: &HostPort) {
        let edges = self.partners.values().flatten();
        let Some(&(_, far)) = edges.clone().find(|(name, _)| name == target) else {
            let refusal = Refusal::PartnerUnreachable;
            return self.proxy.handle_dial_failed(now, target, refusal);
        };
        let names = ProvenNames {
            dns: vec![target.host.clone()],
            ..ProvenNames::default()
        };
        let partner = Partner::new(Arc::new(names), Fingerprint([0; 32]), Some(target.clone()));
        if let Some(key) = self.proxy.handle_open(now, far, Peer::Partner(partner)) {
            self.keep(key, self.client_port, far, Opener::Us);
        }
    }

    fn resolve(&mut self, now: Now, question: Question) {
        let edges = self.partners.get(question.domain());
        let outcome = edges
            .map(|edges| edges.iter().map(|(name, _)| name.clone()).collect())
            .ok_or(Refusal::SrvUnresolved);
        let until = now.mono + Duration::from_secs(600);
        self.proxy.handle_answer(
            now,
            question,
            Answer {
                outcome,
                until,
                meter: None,
            },
        );
    }
}

impl Node for Edge {
    fn handle_packet(&mut self, now: Now, packet: Packet) {
        let known = self.flows.contains_key(&packet.from);
        if !known && packet.to == self.client_port {
            self.accept(now, packet.from);
        }
        debug_assert!(
            known || packet.to != self.internal,
            "only the Director speaks inside"
        );
        if let Some(connection) = self.flows.get_mut(&packet.from) {
            connection.received.extend(packet.bytes);
            self.read(now, packet.from);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.proxy.handle_timeout(now);
        self.drain(now);
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.proxy.poll_timeout()
    }
}

/// Cuts a stream into messages for the models.
#[derive(Debug)]
struct Inbox {
    framer: Framer,
    received: Vec<u8>,
}

impl Inbox {
    fn new() -> Self {
        let limits = Limits {
            head: 64 * 1024,
            body: 64 * 1024,
        };
        Self {
            framer: Framer::new(Opener::Us, limits),
            received: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.received.extend_from_slice(bytes);
        let mut messages = Vec::new();
        loop {
            let (len, is_message) = match self.framer.next(&self.received) {
                Ok(Step::Message { len }) => (len, true),
                Ok(Step::Skip { len } | Step::Ping { len } | Step::Pong { len }) => (len, false),
                Ok(Step::NeedMore) | Err(_) => return messages,
            };
            let bytes: Vec<u8> = self.received.drain(..len).collect();
            if is_message {
                messages.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
}

/// A phone outside: signs in, answers messages, sends one when told.
#[derive(Debug)]
pub struct Phone {
    own: Address,
    edge: Address,
    user: String,
    inbox: Inbox,
    out: VecDeque<Packet>,
    cseq: u32,
    /// Whether the Director accepted it.
    pub signed_in: bool,
    /// Bodies of the messages that it received.
    pub heard: Vec<String>,
    /// Status codes of final answers to its own messages.
    pub answers: Vec<u16>,
    /// How long it rings before it answers a call.
    pub rings: Duration,
    /// Its requests have this Call-ID and no branch, as those of clients that draw by a seed of the second.
    pub same_call_id: Option<String>,
    /// Everything that it was told of its calls: status and method.
    pub told: Vec<(u16, String)>,
    /// The last request that it sent.
    last: String,
    /// A call that rings here, and until when.
    ringing: Option<(Instant, String)>,
}

impl Phone {
    /// A phone of `user@contoso.test` that connects from `own` to `edge`.
    #[must_use]
    pub fn new(user: &str, own: Address, edge: Address) -> Self {
        Self {
            own,
            edge,
            user: user.to_owned(),
            inbox: Inbox::new(),
            out: VecDeque::new(),
            cseq: 0,
            signed_in: false,
            heard: Vec::new(),
            answers: Vec::new(),
            rings: Duration::ZERO,
            same_call_id: None,
            told: Vec::new(),
            last: String::new(),
            ringing: None,
        }
    }

    /// Sends REGISTER, without credentials at first.
    pub fn register(&mut self) {
        self.request(
            "REGISTER",
            "sip:contoso.test",
            &format!("{}@contoso.test", self.user),
            &self.contact(),
            "",
        );
    }

    /// Sends a MESSAGE to another user of the domain.
    pub fn message(&mut self, to: &str, body: &str) {
        self.message_to(to, "contoso.test", body);
    }

    /// Sends a MESSAGE to a user of any domain.
    pub fn message_to(&mut self, to: &str, domain: &str, body: &str) {
        self.request(
            "MESSAGE",
            &format!("sip:{to}@{domain}"),
            &format!("{to}@{domain}"),
            "",
            body,
        );
    }

    /// Calls another user of the domain.
    pub fn call(&mut self, to: &str) {
        let to = format!("{to}@contoso.test");
        self.request("INVITE", &format!("sip:{to}"), &to, "", "");
    }

    /// Gives the call up, with a CANCEL as RFC 3261 §9.1 wants it.
    pub fn cancel(&mut self) {
        let text = self.of_last("CANCEL", None);
        self.send_raw(text.as_bytes());
    }

    /// Sends the last request a second time.
    pub fn repeat(&mut self) {
        let last = self.last.clone();
        self.send_raw(last.as_bytes());
    }

    /// The last request under another method, and with another To.
    fn of_last(&self, method: &str, to: Option<&str>) -> String {
        let mut text = String::new();
        for line in self.last.lines().take_while(|line| !line.is_empty()) {
            let changed = match (line.split(':').next().unwrap_or_default(), to) {
                ("CSeq", _) => line.replace("INVITE", method),
                ("To", Some(to)) => format!("To: {to}"),
                (start, _) if start.starts_with("INVITE ") => line.replacen("INVITE", method, 1),
                _ => line.to_owned(),
            };
            text += &changed;
            text += "\r\n";
        }
        text + "\r\n"
    }

    /// Sends bytes that are no SIP.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.out.push_back(Packet {
            from: self.own,
            to: self.edge,
            bytes: bytes.to_vec(),
        });
    }

    fn contact(&self) -> String {
        format!(
            "Contact: <sip:{}@{};transport=tls>\r\n",
            self.user, self.own
        )
    }

    fn request(&mut self, method: &str, uri: &str, to: &str, more: &str, body: &str) {
        self.cseq += 1;
        let Self {
            own, user, cseq, ..
        } = self;
        let (via, call_id) = match &self.same_call_id {
            Some(call_id) => ("SIP/2.0/tls 10.0.0.1:5061".to_owned(), call_id.clone()),
            None => (
                format!("SIP/2.0/TLS {own};branch=z9hG4bK{user}{cseq}"),
                format!("{user}{cseq}"),
            ),
        };
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@contoso.test>;tag={user}\r\n\
             To: <sip:{to}>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             {more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.last.clone_from(&text);
        self.send_raw(text.as_bytes());
    }

    fn handle(&mut self, now: Now, message: &str) {
        let Some(status) = status(message) else {
            return self.handle_request(now, message);
        };
        match (method_of(message), status) {
            ("REGISTER", 401) => {
                let more = format!(
                    "{}Authorization: Digest username=\"{}\"\r\n",
                    self.contact(),
                    self.user
                );
                self.request(
                    "REGISTER",
                    "sip:contoso.test",
                    &format!("{}@contoso.test", self.user),
                    &more,
                    "",
                );
            }
            ("REGISTER", 200) => self.signed_in = true,
            ("INVITE" | "CANCEL", _) => {
                self.told.push((status, method_of(message).to_owned()));
                if status >= 200 && method_of(message) == "INVITE" {
                    let to = values(message, "To").first().copied();
                    let ack = self.of_last("ACK", to);
                    self.send_raw(ack.as_bytes());
                }
            }
            (_, 200..) => self.answers.push(status),
            _ => {}
        }
    }

    fn handle_request(&mut self, now: Now, message: &str) {
        let method = message.split(' ').next().unwrap_or_default();
        let reply = |phone: &mut Self, request: &str, status: &str| {
            let answer = answer(request, status, "");
            phone.send_raw(answer.as_bytes());
        };
        match method {
            "INVITE" => {
                reply(self, message, "180 Ringing");
                self.ringing = Some((now.mono + self.rings, message.to_owned()));
            }
            "CANCEL" => {
                reply(self, message, "200 OK");
                if let Some((_, invite)) = self.ringing.take() {
                    reply(self, &invite, "487 Request Terminated");
                }
            }
            "ACK" => self.heard.push("ACK".to_owned()),
            _ => {
                self.heard.push(body(message).to_owned());
                reply(self, message, "200 OK");
            }
        }
    }
}

impl Node for Phone {
    fn handle_packet(&mut self, now: Now, packet: Packet) {
        for message in self.inbox.take(&packet.bytes) {
            self.handle(now, &message);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if let Some((_, invite)) = self.ringing.take_if(|(until, _)| *until <= now.mono) {
            let answer = answer(&invite, "200 OK", "");
            self.send_raw(answer.as_bytes());
        }
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.ringing.as_ref().map(|(until, _)| *until)
    }
}

/// The Director: challenges, registers with Path (RFC 3327), sends requests along it.
#[derive(Debug)]
pub struct Director {
    own: Address,
    edge: Address,
    inbox: Inbox,
    out: VecDeque<Packet>,
    /// It takes requests and says nothing to them.
    pub silent: bool,
    /// User to Path and Contact.
    pub bindings: BTreeMap<String, (Vec<String>, String)>,
    /// Requests that it saw, first lines.
    pub requests: Vec<String>,
}

impl Director {
    /// A Director at the other end of the edge's inside connection.
    #[must_use]
    pub fn new(own: Address, edge: Address) -> Self {
        Self {
            own,
            edge,
            inbox: Inbox::new(),
            out: VecDeque::new(),
            silent: false,
            bindings: BTreeMap::new(),
            requests: Vec::new(),
        }
    }

    fn send(&mut self, text: &str) {
        self.out.push_back(Packet {
            from: self.own,
            to: self.edge,
            bytes: text.as_bytes().to_vec(),
        });
    }

    fn handle(&mut self, message: &str) {
        if status(message).is_some() {
            // A response on its way back: our Via is on top.
            let back = without_first(message, "Via");
            return self.send(&back);
        }
        self.requests
            .push(message.lines().next().unwrap_or_default().to_owned());
        if self.silent {
            return;
        }
        if message.starts_with("REGISTER ") {
            self.register(message);
        } else {
            self.relay(message);
        }
    }

    fn register(&mut self, message: &str) {
        if values(message, "Authorization").is_empty() {
            let challenge = "WWW-Authenticate: Digest realm=\"contoso.test\", nonce=\"1\"\r\n";
            return self.send(&answer(message, "401 Unauthorized", challenge));
        }
        let path: Vec<String> = values(message, "Path")
            .into_iter()
            .map(str::to_owned)
            .collect();
        let contact = values(message, "Contact")
            .first()
            .map(|contact| uri(contact).to_owned());
        if let Some(contact) = contact {
            self.bindings
                .insert(user_of(message, "To").to_owned(), (path, contact));
        }
        self.send(&answer(message, "200 OK", "Expires: 300\r\n"));
    }

    fn relay(&mut self, message: &str) {
        let to = values(message, "To").first().copied().unwrap_or_default();
        let own = uri(to).ends_with("@contoso.test");
        let (path, target) = match self.bindings.get(user_of(message, "To")) {
            Some((path, contact)) if own => (path.clone(), contact.clone()),
            _ if !own => (Vec::new(), uri(to).to_owned()),
            _ if message.starts_with("ACK ") => return,
            _ => return self.send(&answer(message, "404 Not Found", "")),
        };
        let method = message.split(' ').next().unwrap_or_default();
        // The same for an INVITE, its ACK and its CANCEL (RFC 3261 §16.11).
        let first = |name| values(message, name).first().copied().unwrap_or_default();
        let number = first("CSeq").split(' ').next().unwrap_or_default();
        let mut text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/TLS {};branch=z9hG4bKdir{}{}{number}\r\n",
            self.own,
            user_of(message, "From"),
            first("Call-ID"),
        );
        for hop in path {
            text.push_str("Route: ");
            text.push_str(&hop);
            text.push_str("\r\n");
        }
        // What came in goes on below, without its request line and without the Route that led here.
        let rest = message.split_once("\r\n").map_or("", |(_, rest)| rest);
        text.push_str(&without_all(rest, "Route"));
        self.send(&text);
    }
}

impl Node for Director {
    fn handle_packet(&mut self, _now: Now, packet: Packet) {
        for message in self.inbox.take(&packet.bytes) {
            self.handle(&message);
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

/// A partner's edge that gives one answer to everything.
#[derive(Debug)]
pub struct PartnerEdge {
    own: Address,
    edge: Address,
    status: &'static str,
    inbox: Inbox,
    out: VecDeque<Packet>,
    /// First lines of what it was asked.
    pub asked: Vec<String>,
}

impl PartnerEdge {
    /// An edge that says `status` to each request of `edge`.
    #[must_use]
    pub fn new(own: Address, edge: Address, status: &'static str) -> Self {
        Self {
            own,
            edge,
            status,
            inbox: Inbox::new(),
            out: VecDeque::new(),
            asked: Vec::new(),
        }
    }
}

impl Node for PartnerEdge {
    fn handle_packet(&mut self, _now: Now, packet: Packet) {
        for message in self.inbox.take(&packet.bytes) {
            self.asked
                .push(message.lines().next().unwrap_or_default().to_owned());
            self.out.push_back(Packet {
                from: self.own,
                to: self.edge,
                bytes: answer(&message, self.status, "").into_bytes(),
            });
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

fn status(message: &str) -> Option<u16> {
    message.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
}

fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    message
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .collect()
}

fn method_of(message: &str) -> &str {
    let cseq = values(message, "CSeq").first().copied().unwrap_or_default();
    cseq.split(' ').nth(1).unwrap_or_default()
}

fn user_of<'a>(message: &'a str, header: &str) -> &'a str {
    let value = values(message, header).first().copied().unwrap_or_default();
    let address = uri(value).strip_prefix("sip:").unwrap_or_default();
    address.split('@').next().unwrap_or_default()
}

fn uri(name_addr: &str) -> &str {
    let inner = name_addr
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(name_addr, |(uri, _)| uri)
}

/// The response that RFC 3261 §8.2.6 asks for.
fn answer(request: &str, status: &str, more: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "From", "Call-ID", "CSeq", "Record-Route"].contains(&name) {
            text.push_str(line);
            text.push_str("\r\n");
        } else if name == "To" {
            let tag = if line.contains(";tag=") {
                ""
            } else {
                ";tag=answer"
            };
            text.push_str(line);
            text.push_str(tag);
            text.push_str("\r\n");
        }
    }
    text + more + "Content-Length: 0\r\n\r\n"
}

fn without_first(message: &str, name: &str) -> String {
    let mut done = false;
    filtered(message, |line| {
        let hit = !done && line.starts_with(name) && line[name.len()..].starts_with(':');
        done |= hit;
        !hit
    })
}

fn without_all(message: &str, name: &str) -> String {
    filtered(message, |line| {
        !(line.starts_with(name) && line[name.len()..].starts_with(':'))
    })
}

fn filtered(message: &str, mut keep: impl FnMut(&str) -> bool) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let lines: Vec<&str> = head.split("\r\n").filter(|line| keep(line)).collect();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

//! One control session, seen from the agent.
//!
//! ```text
//!   connected ─► HELLO ─► HELLO_ACK ─► REGISTER … ─► up: ADMIT, WANT, PING
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::ewrp::control::{Admit, Closed, Drain, Frame, Hello, HelloAck, Register};
use crate::ewrp::frame::{self, Step};
use crate::ewrp::{Number, SessionName, SessionSecret, Status, VERSION, data};

/// The control session with one edge. Made anew for each connection.
#[derive(Debug)]
pub struct Link {
    state: State,
    registrations: Vec<Register>,
    received: Vec<u8>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    /// The HELLO is on its way; the answer is due.
    Greeting {
        due: Instant,
    },
    Up(Box<Up>),
    /// Nothing more comes out of it.
    Over,
}

#[derive(Debug)]
struct Up {
    session: SessionName,
    secret: SessionSecret,
    next_seq: u64,
    registered: BTreeSet<u32>,
    heartbeat: Duration,
    next_beat: Instant,
    /// PINGs without an answer.
    unanswered: u8,
    nonce: u64,
    /// The edge takes no new clients.
    draining: bool,
}

/// Something for the shell to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send to the edge.
    Transmit(Vec<u8>),
    /// The session is up, and takes ADMIT.
    Up,
    /// The edge has answered a REGISTER.
    Registered(u32, Status),
    /// The edge has answered an ADMIT.
    Admitted(Number, Status),
    /// The edge wants so many data connections.
    Dial(u16),
    /// A relayed connection ended.
    Closed(Closed),
    /// The edge is about to stop.
    Draining(Drain),
    /// The edge knows that the agent is about to stop, and sends it no more clients.
    Drained,
    /// The session is over: close the connection.
    Down(Status, String),
}

impl Link {
    /// The connection is there; says HELLO.
    #[must_use]
    pub fn new(now: Instant, hello: Hello, registrations: Vec<Register>) -> Self {
        let mut link = Self {
            state: State::Greeting {
                due: now + ANSWER_TIMEOUT,
            },
            registrations,
            received: Vec::new(),
            outputs: VecDeque::new(),
        };
        link.send(&Frame::Hello(hello));
        link
    }

    /// The next thing to do; `None` until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Link::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Greeting { due } => Some(*due),
            State::Up(up) => Some(up.next_beat),
            State::Over => None,
        }
    }

    /// Whether it may be asked to admit numbers of this registration now.
    #[must_use]
    pub fn admits(&self, reg_id: u32) -> bool {
        matches!(&self.state, State::Up(up) if !up.draining && up.registered.contains(&reg_id))
    }

    /// Whether the session is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(&self.state, State::Up(_))
    }

    /// Asks the edge to let a number through.
    pub fn admit(&mut self, admit: &Admit) {
        if self.is_up() {
            self.send(&Frame::Admit(admit.clone()));
        }
    }

    /// Tells the edge that a number is void.
    pub fn revoke(&mut self, number: Number, cut: bool) {
        if self.is_up() {
            self.send(&Frame::Revoke { number, cut });
        }
    }

    /// Tells the edge that data connections did not come about.
    pub fn dial_failed(&mut self, count: u16) {
        if self.is_up() {
            let status = Status::DialTimeout;
            self.send(&Frame::DialFail { count, status });
        }
    }

    /// Tells the edge that the agent stops.
    pub fn drain(&mut self, within: Duration) {
        if self.is_up() {
            let deadline_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
            let reason = Status::Shutdown;
            self.send(&Frame::Drain(Drain {
                deadline_ms,
                reason,
            }));
        }
    }

    /// Says goodbye: the agent stops in order.
    pub fn goodbye(&mut self) {
        if !matches!(self.state, State::Over) {
            self.end(Status::Shutdown, "the agent stops");
        }
    }

    /// The first bytes of the next data connection; `None` when there is no session.
    pub fn data_hello(&mut self) -> Option<[u8; data::HELLO_LEN]> {
        let State::Up(up) = &mut self.state else {
            return None;
        };
        up.next_seq += 1;
        Some(data::hello(&up.session, up.next_seq, &up.secret))
    }

    /// The next bytes from the edge.
    pub fn handle_data(&mut self, now: Instant, bytes: &[u8]) {
        let mut pending = std::mem::take(&mut self.received);
        pending.extend_from_slice(bytes);
        let mut consumed = 0;
        while !matches!(self.state, State::Over) {
            match frame::next(&pending[consumed..]) {
                Ok(Step::NeedMore) => break,
                Ok(Step::Frame { kind, body, len }) => {
                    consumed += len;
                    match Frame::parse(kind, body) {
                        Ok(frame) => self.handle_frame(now, frame),
                        Err(error) => self.end(Status::Protocol, &error.to_string()),
                    }
                }
                Err(error) => self.end(Status::Protocol, &error.to_string()),
            }
        }
        pending.drain(..consumed);
        self.received = pending;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Greeting { due } if *due <= now => {
                self.end(Status::Idle, "the edge does not answer the HELLO");
            }
            State::Up(up) if up.next_beat <= now => {
                if up.unanswered >= MISSED_MAX {
                    return self.end(Status::Idle, "two PINGs were not answered");
                }
                up.unanswered += 1;
                up.nonce += 1;
                up.next_beat = now + up.heartbeat;
                let nonce = up.nonce;
                self.send(&Frame::Ping { nonce });
            }
            State::Greeting { .. } | State::Up(_) | State::Over => {}
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) {
        match (&mut self.state, frame) {
            (State::Over, _) => {}
            (State::Greeting { .. }, Frame::HelloAck(ack)) => self.greeted(now, ack),
            (_, Frame::Goaway { status, text }) => {
                self.state = State::Over;
                self.outputs.push_back(Output::Down(status, text.into()));
            }
            (State::Up(up), Frame::RegisterAck { reg_id, status }) => {
                if status == Status::Ok {
                    up.registered.insert(reg_id);
                }
                self.outputs.push_back(Output::Registered(reg_id, status));
            }
            (State::Up(_), Frame::AdmitAck { number, status }) => {
                self.outputs.push_back(Output::Admitted(number, status));
            }
            (State::Up(_), Frame::Want { count, .. }) => {
                self.outputs.push_back(Output::Dial(count));
            }
            (State::Up(_), Frame::Closed(closed)) => {
                self.outputs.push_back(Output::Closed(closed));
            }
            (State::Up(_), Frame::Ping { nonce }) => self.send(&Frame::Pong { nonce }),
            (State::Up(up), Frame::Pong { nonce }) => {
                if nonce == up.nonce {
                    up.unanswered = 0;
                }
            }
            (State::Up(up), Frame::Drain(drain)) => {
                up.draining = true;
                self.send(&Frame::DrainAck(drain));
                self.outputs.push_back(Output::Draining(drain));
            }
            (State::Up(_), Frame::DrainAck(_)) => self.outputs.push_back(Output::Drained),
            (
                State::Greeting { .. } | State::Up(_),
                other @ (Frame::Hello(_)
                | Frame::HelloAck(_)
                | Frame::Register(_)
                | Frame::RegisterAck { .. }
                | Frame::Unregister { .. }
                | Frame::Admit(_)
                | Frame::AdmitAck { .. }
                | Frame::Revoke { .. }
                | Frame::Want { .. }
                | Frame::DialFail { .. }
                | Frame::Closed(_)
                | Frame::Ping { .. }
                | Frame::Pong { .. }
                | Frame::Drain(_)
                | Frame::DrainAck(_)),
            ) => {
                let text = format!("{:?} from an edge", other.kind());
                self.end(Status::Protocol, &text);
            }
        }
    }

    fn greeted(&mut self, now: Instant, ack: HelloAck) {
        if ack.version != VERSION {
            return self.end(Status::Version, "the edge chose another version");
        }
        let heartbeat = Duration::from_millis(ack.heartbeat_ms.into());
        let heartbeat = heartbeat.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
        self.state = State::Up(Box::new(Up {
            session: ack.session,
            secret: ack.secret,
            next_seq: 0,
            registered: BTreeSet::new(),
            heartbeat,
            next_beat: now + heartbeat,
            unanswered: 0,
            nonce: 0,
            draining: false,
        }));
        for register in std::mem::take(&mut self.registrations) {
            self.send(&Frame::Register(register));
        }
        self.outputs.push_back(Output::Up);
    }

    fn end(&mut self, status: Status, text: &str) {
        self.send(&Frame::Goaway {
            status,
            text: text.into(),
        });
        self.state = State::Over;
        self.outputs
            .push_back(Output::Down(status, text.to_owned()));
    }

    fn send(&mut self, frame: &Frame) {
        self.outputs.push_back(Output::Transmit(frame.to_bytes()));
    }
}

/// The edge gives a HELLO as long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const MISSED_MAX: u8 = 2;
/// An edge does not get to make its agents busy, or deaf.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ewrp::control::RegistrationKind;

    fn link(now: Instant) -> Link {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            agent_id: [7; 16],
            epoch: 1,
            caps: 0,
            max_conns: 0,
            fqdn: "mcu1.test".into(),
        };
        let register = Register {
            reg_id: 1,
            kind: RegistrationKind::Server,
            weight: 100,
            max_conns: 0,
            ttl_s: 0,
            name: "mcu1.test".into(),
        };
        Link::new(now, hello, vec![register])
    }

    fn ack() -> Frame {
        Frame::HelloAck(HelloAck {
            version: 1,
            edge_id: [1; 16],
            session: [2; 16],
            secret: SessionSecret([3; 32]),
            heartbeat_ms: 15_000,
            pool_min: 2,
            pool_max: 4,
            unix_ms: 0,
        })
    }

    fn up(now: Instant) -> Link {
        let mut link = link(now);
        tell(&mut link, now, &ack());
        outputs(&mut link);
        link
    }

    fn tell(link: &mut Link, now: Instant, frame: &Frame) {
        link.handle_data(now, &frame.to_bytes());
    }

    fn outputs(link: &mut Link) -> Vec<Output> {
        std::iter::from_fn(|| link.poll_output()).collect()
    }

    fn is_goaway(output: &Output, status: Status) -> bool {
        let Output::Transmit(bytes) = output else {
            return false;
        };
        let Ok(Step::Frame { kind, body, .. }) = frame::next(bytes) else {
            return false;
        };
        matches!(Frame::parse(kind, body), Ok(Frame::Goaway { status: said, .. }) if said == status)
    }

    #[test]
    fn registers_and_then_takes_numbers() {
        let now = Instant::now();
        let mut link = link(now);
        assert!(matches!(outputs(&mut link)[..], [Output::Transmit(_)]));
        assert_eq!(link.data_hello(), None);
        tell(&mut link, now, &ack());
        assert!(matches!(
            outputs(&mut link)[..],
            [Output::Transmit(_), Output::Up]
        ));
        assert!(!link.admits(1));
        let status = Status::Ok;
        tell(&mut link, now, &Frame::RegisterAck { reg_id: 1, status });
        assert_eq!(outputs(&mut link), [Output::Registered(1, Status::Ok)]);
        assert!(link.admits(1) && !link.admits(2));
    }

    #[test]
    fn each_data_connection_has_its_own_number() {
        let now = Instant::now();
        let mut link = up(now);
        let claims: Vec<_> = (0..3)
            .map(|_| {
                let hello = link.data_hello().expect("in session");
                let claim = data::Claim::parse(&hello).expect("lawful").expect("whole");
                assert!(claim.is_signed_with(&SessionSecret([3; 32])));
                (claim.session, claim.seq)
            })
            .collect();
        assert_eq!(claims, [([2; 16], 1), ([2; 16], 2), ([2; 16], 3)]);
    }

    #[test]
    fn a_silent_edge_is_given_up() {
        let start = Instant::now();
        let mut silent = link(start);
        outputs(&mut silent);
        silent.handle_timeout(start + ANSWER_TIMEOUT);
        let end = outputs(&mut silent);
        assert!(is_goaway(&end[0], Status::Idle));
        assert!(matches!(end[1], Output::Down(Status::Idle, _)));
        assert_eq!(silent.poll_timeout(), None);

        let mut link = up(start);
        for _ in 0..2 {
            let due = link.poll_timeout().expect("beats");
            link.handle_timeout(due);
            assert!(matches!(outputs(&mut link)[..], [Output::Transmit(_)]));
        }
        tell(&mut link, start, &Frame::Pong { nonce: 2 });
        for _ in 0..2 {
            let due = link.poll_timeout().expect("beats");
            link.handle_timeout(due);
            assert!(matches!(outputs(&mut link)[..], [Output::Transmit(_)]));
        }
        let due = link.poll_timeout().expect("beats");
        link.handle_timeout(due);
        assert!(is_goaway(&outputs(&mut link)[0], Status::Idle));
    }

    #[test]
    fn what_an_edge_may_not_say_ends_the_session() {
        let now = Instant::now();
        let early = [
            Frame::Ping { nonce: 1 },
            Frame::Want {
                count: 1,
                deadline_ms: 1,
            },
        ];
        for frame in early {
            let mut link = link(now);
            outputs(&mut link);
            tell(&mut link, now, &frame);
            assert!(
                is_goaway(&outputs(&mut link)[0], Status::Protocol),
                "{frame:?}"
            );
        }
        let late = [ack(), Frame::Unregister { reg_id: 1 }];
        for frame in late {
            let mut link = up(now);
            tell(&mut link, now, &frame);
            assert!(
                is_goaway(&outputs(&mut link)[0], Status::Protocol),
                "{frame:?}"
            );
        }
        let mut link = up(now);
        link.handle_data(now, b"\x01\x20\0\0\0\0\0\x01x\x02");
        let end = outputs(&mut link);
        assert!(is_goaway(&end[0], Status::Protocol));
        assert_eq!(end.len(), 2, "nothing after the end: {end:?}");
    }

    #[test]
    fn an_agent_that_stops_says_so_and_goes() {
        let now = Instant::now();
        let mut link = up(now);
        link.drain(Duration::from_secs(60));
        let drain = Drain {
            deadline_ms: 60_000,
            reason: Status::Shutdown,
        };
        assert_eq!(
            outputs(&mut link),
            [Output::Transmit(Frame::Drain(drain).to_bytes())]
        );
        tell(&mut link, now, &Frame::DrainAck(drain));
        assert_eq!(outputs(&mut link), [Output::Drained]);
        link.goodbye();
        let end = outputs(&mut link);
        assert!(is_goaway(&end[0], Status::Shutdown));
        assert!(matches!(end[1], Output::Down(Status::Shutdown, _)));
        link.goodbye();
        assert_eq!(outputs(&mut link), []);
    }

    #[test]
    fn a_draining_edge_gets_no_numbers() {
        let now = Instant::now();
        let mut link = up(now);
        let status = Status::Ok;
        tell(&mut link, now, &Frame::RegisterAck { reg_id: 1, status });
        let drain = Drain {
            deadline_ms: 900_000,
            reason: Status::Shutdown,
        };
        tell(&mut link, now, &Frame::Drain(drain));
        assert!(!link.admits(1));
        let said = outputs(&mut link);
        assert_eq!(said.last(), Some(&Output::Draining(drain)));
        assert_eq!(said[1], Output::Transmit(Frame::DrainAck(drain).to_bytes()));
    }
}

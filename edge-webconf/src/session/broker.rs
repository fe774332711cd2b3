//! The broker: its tables, its clock, its end. What clients do is in `clients.rs`, what agents do
//! in `agents.rs` and `data.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use edge_common::random::Random;
use edge_common::time::Now;

use super::admission::Admission;
use super::agent::{Control, DataTable, NUMBERS_MAX, Session, SessionKey};
use super::client::{Client, Stage};
use super::timers::{Timer, Timers};
use super::tokens::Tokens;
use super::{ClientId, ControlId, Event, Gauges, Output, Settings, Trust};
use crate::ewrp::control::{Drain, Frame};
use crate::ewrp::{Number, SessionName, Status};

/// Decides who is relayed to whom.
///
/// One input, then [`Broker::poll_output`] until `None`, then the next input.
pub struct Broker {
    pub(super) settings: Settings,
    pub(super) rng: Box<dyn Random>,
    pub(super) controls: BTreeMap<ControlId, Control>,
    pub(super) sessions: BTreeMap<SessionKey, Session>,
    pub(super) by_name: BTreeMap<SessionName, SessionKey>,
    pub(super) data: DataTable,
    pub(super) clients: BTreeMap<ClientId, Client>,
    /// The clients past their match, by the number they used.
    pub(super) by_number: BTreeSet<(Number, ClientId)>,
    pub(super) relays: usize,
    pub(super) admission: Admission,
    pub(super) tokens: Tokens,
    pub(super) timers: Timers,
    outputs: VecDeque<Output>,
    pub(super) next_session: u64,
    pub(super) next_dial: u64,
    drain: Progress,
}

/// How far the end of the edge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Serving,
    Draining,
    Drained,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("gauges", &self.gauges())
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker without agents: it refuses every client.
    #[must_use]
    pub fn new(settings: Settings, rng: Box<dyn Random>) -> Self {
        Self {
            admission: Admission::new(settings.admitted, NUMBERS_MAX),
            tokens: Tokens::new(settings.tokens),
            settings,
            rng,
            controls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_name: BTreeMap::new(),
            data: DataTable::new(),
            clients: BTreeMap::new(),
            by_number: BTreeSet::new(),
            relays: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            next_session: 0,
            next_dial: 0,
            drain: Progress::Serving,
        }
    }

    /// The next thing to do; `None` until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Broker::handle_timeout`] is due at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.admission.next_expiry();
        [self.timers.next(), expiry].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.admission.expire(now.mono);
        while let Some(timer) = self.timers.pop_due(now.mono) {
            self.fire(now, timer);
        }
    }

    fn fire(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Hello(id) => self.dismiss(now, id, Status::Protocol, "no HELLO in time"),
            Timer::DataHello(id) => self.refuse_data(id, Status::Auth, "no hello in time"),
            Timer::Heartbeat(key) => self.beat(now, key),
            Timer::Pool(key) => self.tend_pool(now, key),
            Timer::Registration(key, reg_id) => self.unregister(now, key, reg_id),
            Timer::Preread(id) => self.end_preread(now, id, Status::Preread),
            Timer::Settle(id) => drop(self.settle(now, id)),
            Timer::Lease(id) => self.refuse(now, id, Status::DialTimeout),
            Timer::Open(id) => self.refuse(now, id, Status::UpstreamRefused),
            Timer::Drain => self.cut_all(now),
        }
    }

    /// Who is believed has changed: an agent that is no longer on the list is cut at once.
    pub fn handle_trust(&mut self, now: Now, trust: Trust) {
        self.settings.trust = trust;
        let lost: Vec<ControlId> = self
            .controls
            .iter()
            .filter(|(_, control)| !self.still_trusts(control))
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            self.dismiss(now, id, Status::NotTrusted, "no longer a trusted agent");
        }
    }

    /// A session stands on the name of its HELLO, whatever else its certificate proves.
    fn still_trusts(&self, control: &Control) -> bool {
        let session = control.session.and_then(|key| self.sessions.get(&key));
        match session {
            Some(session) => self.trusts_name(&session.agent),
            None => self.trusts(&control.peer.names),
        }
    }

    /// The edge is about to stop: agents send no new clients, relays have `within` to end. An
    /// [`Event::Drained`] tells when the process may go.
    pub fn handle_drain(&mut self, now: Now, within: Duration) {
        if self.drain != Progress::Serving {
            return;
        }
        self.drain = Progress::Draining;
        self.timers.arm(Timer::Drain, now.mono + within);
        let drain = Frame::Drain(Drain {
            deadline_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
            reason: Status::Shutdown,
        });
        for key in self.session_keys() {
            self.transmit(key, &drain);
        }
        self.finish_drain(now);
    }

    /// Every relay was given its time.
    fn cut_all(&mut self, now: Now) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in ids {
            self.cut(now, id, Status::Shutdown);
        }
    }

    /// Closes a relayed client, whose shell then tells its account; any other goes at once.
    pub(super) fn cut(&mut self, now: Now, id: ClientId, status: Status) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if let Stage::Relay { ending, .. } = &mut client.stage {
            *ending = Some(status);
            self.push(Output::Close(id.0));
        } else {
            self.refuse(now, id, status);
        }
    }

    /// Says goodbye once the last client is gone.
    pub(super) fn finish_drain(&mut self, now: Now) {
        if self.drain != Progress::Draining || !self.clients.is_empty() {
            return;
        }
        self.drain = Progress::Drained;
        self.timers.cancel(Timer::Drain);
        let controls: Vec<ControlId> = self.controls.keys().copied().collect();
        for id in controls {
            self.dismiss(now, id, Status::Shutdown, "the edge stops");
        }
        self.event(Event::Drained);
    }

    /// Whether the edge takes nothing new.
    pub(super) fn is_draining(&self) -> bool {
        self.drain != Progress::Serving
    }

    /// Sizes of the tables.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let sessions = self.sessions.values();
        let serving = sessions.clone().filter(|session| !session.draining);
        Gauges {
            sessions: self.sessions.len(),
            serving: if self.is_draining() {
                0
            } else {
                serving.count()
            },
            parked: sessions.clone().map(|session| session.pool.len()).sum(),
            waiting: sessions.map(|session| session.waiting.len()).sum(),
            prereading: self.clients.len() - self.by_number.len(),
            relays: self.relays,
            admitted: self.admission.len(),
            tokens: self.tokens.len(),
        }
    }

    pub(super) fn session_keys(&self) -> Vec<SessionKey> {
        self.sessions.keys().copied().collect()
    }

    /// Queues a frame for the agent of a session; nothing when the session is gone.
    pub(super) fn transmit(&mut self, key: SessionKey, frame: &Frame) {
        if let Some(session) = self.sessions.get(&key) {
            let to = session.control;
            self.push(Output::Transmit {
                to,
                bytes: frame.to_bytes(),
            });
        }
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }
}

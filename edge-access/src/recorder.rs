//! Shows what passes a core to those who trace it.
//!
//! ```text
//!  message in, out, across ─┬─► Tracer (headlines, in memory)
//!                           └─► Mirror (copies, to a collector inside)
//! ```
//!
//! While nobody traces, a message costs one look at a flag.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use edge_common::config::{Access, Config, Hep};
use edge_common::net::bind::Bind;
use edge_common::net::stream::{QueueError, Stream};
use edge_common::observe::hep::{Mirror, Tally};
use edge_common::observe::metrics::Metrics;
use edge_common::run;
use edge_common::time::Now;

use crate::proxy::token::{FlowKey, Realm};
use crate::proxy::{Event, Parcel};
use crate::trace::{End, Recording, Tracer, Way};

/// What one core shows.
#[derive(Debug)]
pub struct Recorder {
    /// Whether anybody wants to see anything.
    on: Cell<bool>,
    /// Whether that is the tracer.
    tracing: Cell<bool>,
    tracer: RefCell<Tracer>,
    mirror: RefCell<Option<Mirror>>,
    outlet: Outlet,
}

/// How copies leave this host.
#[derive(Clone, Debug)]
pub struct Outlet {
    addresses: Vec<IpAddr>,
    interface: String,
    node: u8,
    member: String,
    tally: Tally,
}

impl Outlet {
    /// By the internal interface.
    #[must_use]
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let member = config.local();
        Self {
            addresses: member.internal.ips().collect(),
            interface: config.internal.interface.clone(),
            node: member.id,
            member: member.name.clone(),
            tally: Tally::new(metrics),
        }
    }

    /// A mirror, when one is wanted and can be had: calls do not depend on it.
    fn mirror(&self, hep: Option<&Hep>) -> Option<Mirror> {
        let hep = hep?;
        let same_family = |own: &&IpAddr| own.is_ipv4() == hep.collector.is_ipv4();
        let Some(own) = self.addresses.iter().find(same_family) else {
            tracing::warn!(collector = %hep.address(), "no address of that family inside: nothing is copied");
            return None;
        };
        let from = Bind::on(SocketAddr::new(*own, 0), self.interface.as_str());
        match Mirror::open(hep, &from, self.node, &self.member, self.tally.clone()) {
            Ok(mirror) => Some(mirror),
            Err(error) => {
                tracing::warn!(collector = %hep.address(), %error, "nothing is copied");
                None
            }
        }
    }
}

impl Recorder {
    /// `began` is the same on all cores.
    #[must_use]
    pub fn new(access: &Access, began: Instant, outlet: Outlet) -> Self {
        let recording = by_default(access);
        let recorder = Self {
            on: Cell::default(),
            tracing: Cell::default(),
            tracer: RefCell::new(Tracer::new(access.trace.messages, recording, began)),
            mirror: RefCell::new(outlet.mirror(access.hep.as_ref())),
            outlet,
        };
        recorder.look_again();
        recorder
    }

    /// Takes a configuration that was read again. A recording that was asked for goes on.
    pub fn configure(&self, access: &Access) {
        let mut tracer = self.tracer.borrow_mut();
        tracer.set_len_max(access.trace.messages);
        if access.trace.always || tracer.recording() == Recording::Always {
            tracer.record(by_default(access));
        }
        drop(tracer);
        let mut mirror = self.mirror.borrow_mut();
        if mirror.as_ref().map(Mirror::hep) != access.hep.as_ref() {
            *mirror = self.outlet.mirror(access.hep.as_ref());
        }
        drop(mirror);
        self.look_again();
    }

    /// Keeps headlines from now on for that time; `None`: no longer.
    pub fn record_for(&self, time: Option<Duration>) {
        let recording = match time.and_then(|time| run::now().mono.checked_add(time)) {
            Some(end) => Recording::Until(end),
            None => Recording::Off,
        };
        self.tracer.borrow_mut().record(recording);
        self.look_again();
    }

    /// The headlines, to be looked at.
    pub fn with_tracer<T>(&self, look: impl FnOnce(&mut Tracer) -> T) -> T {
        look(&mut self.tracer.borrow_mut())
    }

    /// A message came in. What [`Self::event`] tells is about it, until it is [`Self::decided`].
    pub fn received(&self, now: Now, flow: FlowKey, realm: Realm, stream: &Stream, message: &[u8]) {
        if self.tracing.get() {
            let mut tracer = self.tracer.borrow_mut();
            if tracer.is_recording(now.mono) {
                tracer.received(now, end(flow, realm, stream), message);
            } else {
                drop(tracer);
                self.look_again();
            }
        }
        if let Some(mirror) = self.mirror.borrow_mut().as_mut()
            && let Ok(local) = stream.local()
        {
            mirror.copy(now, stream.remote(), local, message);
        }
    }

    /// A message was put into a connection's queue, or was not.
    pub fn sent(
        &self,
        flow: FlowKey,
        realm: Realm,
        stream: &Stream,
        message: &[u8],
        error: Option<&QueueError>,
    ) {
        if !self.on.get() || is_keep_alive(message) {
            return;
        }
        let now = run::now();
        if self.tracing.get() {
            let lost = error.map(|error| match error {
                QueueError::Full => "queue_full",
                QueueError::Closed => "connection_gone",
            });
            let way = Way::Out(end(flow, realm, stream));
            self.tracer.borrow_mut().sent(now, way, message, lost);
        }
        if error.is_none()
            && let Some(mirror) = self.mirror.borrow_mut().as_mut()
            && let Ok(local) = stream.local()
        {
            mirror.copy(now, local, stream.remote(), message);
        }
    }

    /// A message is handed to another core.
    pub fn crossed(&self, parcel: &Parcel) {
        if self.tracing.get() {
            let mut tracer = self.tracer.borrow_mut();
            tracer.sent(run::now(), Way::Across(parcel.to), &parcel.bytes, None);
        }
    }

    /// What the proxy tells.
    pub fn event(&self, event: &Event) {
        if self.tracing.get() {
            self.tracer.borrow_mut().event(event);
        }
    }

    /// The message that came in is done with.
    pub fn decided(&self) {
        if self.tracing.get() {
            self.tracer.borrow_mut().close();
        }
    }

    /// Whether anybody wants to see anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.get()
    }

    fn look_again(&self) {
        let tracing = self.tracer.borrow().recording() != Recording::Off;
        self.tracing.set(tracing);
        self.on.set(tracing || self.mirror.borrow().is_some());
    }
}

const fn by_default(access: &Access) -> Recording {
    if access.trace.always {
        Recording::Always
    } else {
        Recording::Off
    }
}

fn end(flow: FlowKey, realm: Realm, stream: &Stream) -> End {
    End {
        flow,
        realm,
        remote: stream.remote(),
    }
}

fn is_keep_alive(message: &[u8]) -> bool {
    message.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

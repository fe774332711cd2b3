//! Shows what passes a core to those who trace it.
//!
//! ```text
//!  message in, out, across ─► Tracer (headlines, in memory)
//! ```
//!
//! While nobody traces, a message costs one look at a flag.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use edge_common::config::Trace;
use edge_common::net::stream::{QueueError, Stream};
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
    tracer: RefCell<Tracer>,
}

impl Recorder {
    /// `began` is the same on all cores.
    #[must_use]
    pub fn new(trace: &Trace, began: Instant) -> Self {
        let recording = recording(trace);
        Self {
            on: Cell::new(recording != Recording::Off),
            tracer: RefCell::new(Tracer::new(trace.messages, recording, began)),
        }
    }

    /// Takes a configuration that was read again. A recording that was asked for goes on.
    pub fn configure(&self, trace: &Trace) {
        let mut tracer = self.tracer.borrow_mut();
        tracer.set_len_max(trace.messages);
        if trace.always || tracer.recording() == Recording::Always {
            tracer.record(recording(trace));
        }
        self.on.set(tracer.recording() != Recording::Off);
    }

    /// Keeps headlines from now on for that time; `None`: no longer.
    pub fn record_for(&self, time: Option<Duration>) {
        let recording = match time.and_then(|time| run::now().mono.checked_add(time)) {
            Some(end) => Recording::Until(end),
            None => Recording::Off,
        };
        self.tracer.borrow_mut().record(recording);
        self.on.set(recording != Recording::Off);
    }

    /// The headlines, to be looked at.
    pub fn with_tracer<T>(&self, look: impl FnOnce(&mut Tracer) -> T) -> T {
        look(&mut self.tracer.borrow_mut())
    }

    /// Whether anybody wants to see anything.
    pub fn is_on(&self, now: Instant) -> bool {
        if !self.on.get() {
            return false;
        }
        let on = self.tracer.borrow_mut().is_recording(now);
        self.on.set(on);
        on
    }

    /// A message came in. What [`Self::event`] tells is about it, until it is [`Self::decided`].
    pub fn received(&self, now: Now, flow: FlowKey, realm: Realm, stream: &Stream, message: &[u8]) {
        let from = End {
            flow,
            realm,
            remote: stream.remote(),
        };
        self.tracer.borrow_mut().received(now, from, message);
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
        let to = End {
            flow,
            realm,
            remote: stream.remote(),
        };
        let lost = error.map(|error| match error {
            QueueError::Full => "queue_full",
            QueueError::Closed => "connection_gone",
        });
        let mut tracer = self.tracer.borrow_mut();
        tracer.sent(run::now(), Way::Out(to), message, lost);
    }

    /// A message is handed to another core.
    pub fn crossed(&self, parcel: &Parcel) {
        if self.on.get() {
            let mut tracer = self.tracer.borrow_mut();
            tracer.sent(run::now(), Way::Across(parcel.to), &parcel.bytes, None);
        }
    }

    /// What the proxy tells.
    pub fn event(&self, event: &Event) {
        if self.on.get() {
            self.tracer.borrow_mut().event(event);
        }
    }

    /// The message that came in is done with.
    pub fn decided(&self) {
        if self.on.get() {
            self.tracer.borrow_mut().close();
        }
    }
}

const fn recording(trace: &Trace) -> Recording {
    if trace.always {
        Recording::Always
    } else {
        Recording::Off
    }
}

fn is_keep_alive(message: &[u8]) -> bool {
    message.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

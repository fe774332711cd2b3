//! What passed one core of late, a headline a message, for `edgectl trace`.
//!
//! ```text
//!  in   ─► Entry ─┐
//!  out  ─► Entry ─┼─► ring, the oldest goes ─► those of one Call-ID
//!  across cores ──┘
//! ```
//!
//! Of a message its start line without the URI, CSeq and Call-ID are kept: no addresses of users, no credentials, no
//! body. Nothing at all is kept while nobody records.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_common::sip::header::Name;
use edge_common::time::{Now, UnixTime};

use crate::proxy::Event;
use crate::proxy::token::{FlowKey, Realm};

/// The headlines of one core.
#[derive(Debug)]
pub struct Tracer {
    len_max: usize,
    recording: Recording,
    /// All cores of the process count from the same moment, so that their entries can be put in one order.
    began: Instant,
    ring: VecDeque<Entry>,
    /// The number of the next entry.
    next: u64,
    /// The message that is being decided on.
    open: Option<u64>,
}

/// Whether headlines are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// No.
    Off,
    /// Until then.
    Until(Instant),
    /// For as long as the configuration says so.
    Always,
}

/// One message as it passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number on this core; they rise by one.
    pub number: u64,
    /// When, by the wall clock.
    pub at: UnixTime,
    /// When, since all cores began to count.
    pub after: Duration,
    /// Which way.
    pub way: Way,
    /// What it was.
    pub headline: Headline,
    /// What became of it, as far as it is known.
    pub outcome: Option<Outcome>,
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It came in.
    In(End),
    /// It was put into a connection's queue.
    Out(End),
    /// It was handed to the core that owns that connection.
    Across(FlowKey),
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The connection.
    pub flow: FlowKey,
    /// What kind of far end it has.
    pub realm: Realm,
    /// Where that stands.
    pub remote: SocketAddr,
}

/// What is kept of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline {
    /// The method of a request, the status of a response.
    pub start: Start,
    /// `1 INVITE`; empty when there is none.
    pub cseq: Box<str>,
    /// As it was written, cut to [`CALL_ID_MAX`].
    pub call_id: Box<[u8]>,
}

/// The part of the start line that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// A request of that method.
    Request(Box<str>),
    /// A response of that status.
    Response(u16),
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went on to that kind of far end.
    Forwarded(Realm),
    /// It was answered here.
    Refused {
        /// With which status.
        status: u16,
        /// For which reason, by its counter.
        reason: &'static str,
    },
    /// It was thrown away for that reason.
    Dropped(&'static str),
}

impl Outcome {
    /// What an event says of the message at hand.
    fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Forwarded { to, .. } => Some(Self::Forwarded(*to)),
            Event::Answered(_, refusal) => Some(Self::Refused {
                status: refusal.status().0,
                reason: refusal.label(),
            }),
            Event::Dropped(drop) => Some(Self::Dropped(drop.label())),
            Event::Promoted(_)
            | Event::Verdict { .. }
            | Event::Stateless(_)
            | Event::Topology(_)
            | Event::FailedOver
            | Event::TimedOut => None,
        }
    }
}

impl Tracer {
    /// Keeps `len_max` entries at most. `began` is the same on all cores.
    #[must_use]
    pub const fn new(len_max: usize, recording: Recording, began: Instant) -> Self {
        Self {
            len_max,
            recording,
            began,
            ring: VecDeque::new(),
            next: 0,
            open: None,
        }
    }

    /// New bounds; what no longer fits goes.
    pub fn set_len_max(&mut self, len_max: usize) {
        self.len_max = len_max;
        let excess = self.ring.len().saturating_sub(len_max);
        self.ring.drain(..excess);
        self.ring.shrink_to(len_max);
    }

    /// Begins or ends to record. What was recorded stays.
    pub const fn record(&mut self, recording: Recording) {
        self.recording = recording;
    }

    /// Whether headlines are kept at `now`; a time that is over ends here.
    pub fn is_recording(&mut self, now: Instant) -> bool {
        match self.recording {
            Recording::Off => false,
            Recording::Always => true,
            Recording::Until(end) if now < end => true,
            Recording::Until(_) => {
                self.recording = Recording::Off;
                false
            }
        }
    }

    /// What was asked for last.
    #[must_use]
    pub const fn recording(&self) -> Recording {
        self.recording
    }

    /// A message came in; what is told by [`Self::event`] until [`Self::close`] is about it.
    pub fn received(&mut self, now: Now, from: End, message: &[u8]) {
        self.open = self.push(now, Way::In(from), message, None);
    }

    /// A message went out, or did not.
    pub fn sent(&mut self, now: Now, way: Way, message: &[u8], lost: Option<&'static str>) {
        self.push(now, way, message, lost.map(Outcome::Dropped));
    }

    /// What the proxy tells while a message is decided on; the first word counts.
    pub fn event(&mut self, event: &Event) {
        let Some(number) = self.open else { return };
        let Some(outcome) = Outcome::of(event) else {
            return;
        };
        let first = self.next - self.ring.len() as u64;
        let entry = number
            .checked_sub(first)
            .and_then(|at| self.ring.get_mut(usize::try_from(at).ok()?));
        if let Some(entry) = entry.filter(|entry| entry.outcome.is_none()) {
            entry.outcome = Some(outcome);
        }
    }

    /// The message at hand is done with.
    pub const fn close(&mut self) {
        self.open = None;
    }

    /// The entries of one Call-ID in their order; of more than `limit` the last ones.
    #[must_use]
    pub fn of_call(&self, call_id: &[u8], limit: usize) -> Vec<Entry> {
        let wanted = &call_id[..call_id.len().min(CALL_ID_MAX)];
        let mut found: Vec<_> = self
            .ring
            .iter()
            .rev()
            .filter(|entry| &*entry.headline.call_id == wanted)
            .take(limit)
            .cloned()
            .collect();
        found.reverse();
        found
    }

    /// The last `limit` requests that came in, the newest first, each Call-ID once.
    #[must_use]
    pub fn recent(&self, limit: usize) -> Vec<Entry> {
        let mut found: Vec<Entry> = Vec::new();
        for entry in self.ring.iter().rev() {
            if found.len() >= limit {
                break;
            }
            let is_request = matches!(entry.headline.start, Start::Request(_));
            let known = || {
                found
                    .iter()
                    .any(|one| one.headline.call_id == entry.headline.call_id)
            };
            if is_request && matches!(entry.way, Way::In(_)) && !known() {
                found.push(entry.clone());
            }
        }
        found
    }

    /// How many entries are kept, how many may be, and when the oldest was made.
    #[must_use]
    pub fn held(&self) -> (usize, usize, Option<UnixTime>) {
        let oldest = self.ring.front().map(|entry| entry.at);
        (self.ring.len(), self.len_max, oldest)
    }

    fn push(
        &mut self,
        now: Now,
        way: Way,
        message: &[u8],
        outcome: Option<Outcome>,
    ) -> Option<u64> {
        let headline = Headline::read(message)?;
        if self.ring.len() >= self.len_max {
            self.ring.pop_front();
        }
        let number = self.next;
        self.next += 1;
        self.ring.push_back(Entry {
            number,
            at: now.unix,
            after: now.mono.saturating_duration_since(self.began),
            way,
            headline,
            outcome,
        });
        Some(number)
    }
}

impl Headline {
    /// Reads no further than it must; `None` of what has no start line.
    fn read(message: &[u8]) -> Option<Self> {
        let mut lines = message.split(|byte| *byte == b'\n').map(trim);
        let start = Start::read(lines.next()?)?;
        let (mut call_id, mut cseq) = (None, None);
        for line in lines.take(LINES_MAX) {
            if line.is_empty() {
                break;
            }
            // Call-ID, i and CSeq begin with these; most lines are passed over by their first letter.
            if !matches!(line[0], b'C' | b'c' | b'I' | b'i') {
                continue;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let value = trim(&line[colon + 1..]);
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "a table of headers of which two matter"
            )]
            match Name::of(trim(&line[..colon])) {
                Name::CallId if call_id.is_none() => call_id = Some(value),
                Name::CSeq if cseq.is_none() => cseq = Some(value),
                _ => continue,
            }
            if call_id.is_some() && cseq.is_some() {
                break;
            }
        }
        let call_id = call_id.unwrap_or_default();
        Some(Self {
            start,
            cseq: printable(cseq.unwrap_or_default(), CSEQ_MAX),
            call_id: call_id[..call_id.len().min(CALL_ID_MAX)].into(),
        })
    }
}

impl Start {
    fn read(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let first = words.next().filter(|word| !word.is_empty())?;
        if !first.starts_with(b"SIP/") {
            return Some(Self::Request(printable(first, METHOD_MAX)));
        }
        let digits = std::str::from_utf8(words.next()?).ok()?;
        Some(Self::Response(digits.parse().ok()?))
    }
}

fn trim(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}

/// Cut to `len_max`, and nothing in it that a terminal would take for an order.
fn printable(bytes: &[u8], len_max: usize) -> Box<str> {
    bytes
        .iter()
        .take(len_max)
        .map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '?',
        })
        .collect()
}

/// Bytes of a Call-ID that are kept; longer ones that agree so far are taken for one.
pub const CALL_ID_MAX: usize = 128;
const CSEQ_MAX: usize = 32;
const METHOD_MAX: usize = 16;
/// Lines of a head that are looked at.
const LINES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::refusal::Refusal;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        }
    }

    fn end(slot: u32) -> End {
        End {
            flow: FlowKey {
                core: 0,
                slot,
                generation: 0,
            },
            realm: Realm::Client,
            remote: SocketAddr::from(([192, 0, 2, 1], 5061)),
        }
    }

    fn message(call_id: &str, number: u32) -> Vec<u8> {
        format!(
            "INVITE sip:bob@contoso.test SIP/2.0\r\nVia: SIP/2.0/TLS a\r\nContact: <sip:x>\r\n\
             Authorization: Digest secret\r\ni : {call_id}\r\nCSEQ: {number} INVITE\r\n\r\nbody"
        )
        .into_bytes()
    }

    #[test]
    fn of_a_message_its_headline_is_kept_and_nothing_else() {
        let mut tracer = Tracer::new(10, Recording::Always, Instant::now());
        tracer.received(now(), end(1), &message("a@b", 7));
        tracer.close();
        tracer.sent(
            now(),
            Way::Out(end(1)),
            b"SIP/2.0 403 Forbidden\r\nCall-ID: a@b\r\nCSeq: 7 INVITE\r\n\r\n",
            None,
        );
        let found = tracer.of_call(b"a@b", 10);
        assert_eq!(found[0].headline.start, Start::Request("INVITE".into()));
        assert_eq!(found[1].headline.start, Start::Response(403));
        assert!(
            found
                .iter()
                .all(|entry| &*entry.headline.cseq == "7 INVITE")
        );
        let all = format!("{found:?}");
        for kept_out in ["bob", "secret", "body"] {
            assert!(!all.contains(kept_out), "{all}");
        }
        assert!(tracer.of_call(b"a@", 10).is_empty());
    }

    #[test]
    fn what_was_decided_stands_with_the_message_that_it_was_decided_on() {
        let mut tracer = Tracer::new(10, Recording::Always, Instant::now());
        let refused = Event::Answered(Realm::Client, Refusal::DomainDenied);
        tracer.event(&refused);
        tracer.received(now(), end(1), &message("a", 1));
        tracer.event(&refused);
        tracer.event(&Event::Promoted(end(1).flow));
        tracer.close();
        tracer.event(&refused);
        tracer.received(now(), end(1), &message("a", 2));
        tracer.event(&Event::Forwarded {
            from: Realm::Client,
            to: Realm::Inside,
            response: false,
        });
        let outcomes: Vec<_> = tracer
            .of_call(b"a", 10)
            .into_iter()
            .map(|entry| entry.outcome)
            .collect();
        assert_eq!(
            outcomes,
            [
                Some(Outcome::Refused {
                    status: 403,
                    reason: "domain_denied"
                }),
                Some(Outcome::Forwarded(Realm::Inside))
            ]
        );
    }

    #[test]
    fn the_oldest_go_and_the_message_at_hand_may_be_gone_when_it_is_decided() {
        let mut tracer = Tracer::new(2, Recording::Always, Instant::now());
        tracer.received(now(), end(1), &message("a", 1));
        for number in 2..5 {
            tracer.sent(now(), Way::Out(end(1)), &message("a", number), None);
        }
        tracer.event(&Event::Answered(Realm::Client, Refusal::DomainDenied));
        let found = tracer.of_call(b"a", 10);
        let numbers: Vec<_> = found.iter().map(|entry| &*entry.headline.cseq).collect();
        assert_eq!(numbers, ["3 INVITE", "4 INVITE"]);
        assert!(found.iter().all(|entry| entry.outcome.is_none()));
        assert_eq!(&*tracer.of_call(b"a", 1)[0].headline.cseq, "4 INVITE");
        tracer.set_len_max(1);
        assert_eq!(tracer.held().0, 1);
    }

    #[test]
    fn a_time_that_is_over_ends_the_recording() {
        let start = Instant::now();
        let end = start + Duration::from_secs(60);
        let mut tracer = Tracer::new(2, Recording::Until(end), start);
        assert!(tracer.is_recording(start));
        assert!(!tracer.is_recording(end));
        assert_eq!(tracer.recording(), Recording::Off);
    }

    #[test]
    fn recent_calls_are_told_once_each_and_the_newest_first() {
        let mut tracer = Tracer::new(10, Recording::Always, Instant::now());
        for call_id in ["a", "b", "a"] {
            tracer.received(now(), end(1), &message(call_id, 1));
        }
        let recent: Vec<_> = tracer
            .recent(10)
            .into_iter()
            .map(|entry| String::from_utf8_lossy(&entry.headline.call_id).into_owned())
            .collect();
        assert_eq!(recent, ["a", "b"]);
        assert_eq!(tracer.recent(1).len(), 1);
    }

    #[test]
    fn nothing_that_comes_panics_or_reaches_a_terminal_as_it_is() {
        let whole = message("a\u{1b}[2Jb", 1);
        for len in 0..whole.len() {
            for at in [0, len / 2] {
                let mut tracer = Tracer::new(10, Recording::Always, Instant::now());
                tracer.received(now(), end(1), &whole[at..len]);
            }
        }
        let mut tracer = Tracer::new(10, Recording::Always, Instant::now());
        tracer.received(
            now(),
            end(1),
            b"IN\x1b[2JVITE x SIP/2.0\r\nCSeq: \x07\r\n\r\n",
        );
        let entry = &tracer.of_call(b"", 1)[0];
        assert_eq!(entry.headline.start, Start::Request("IN?[2JVITE".into()));
        assert_eq!(&*entry.headline.cseq, "?");
    }
}

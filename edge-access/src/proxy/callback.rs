//! Partners whose certificate proves nothing by itself: who is to be called back, once for all who wait for it.
//!
//! A certificate that is not good for a client may still be that of an edge which a domain names. Whoever holds its key
//! is found by a connection of ours to that edge: it has to show, as a server, a certificate of the same key that holds
//! there in every respect.
//!
//! ```text
//!  (key, edge) ─► known ──fresh──► Called
//!                   └──stale──► Dial ─► handle_called ─► all who asked
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::cert::identity::{CertificateId, KeyFingerprint, ProvenNames};
use edge_common::host_name::HostPort;
use edge_common::limit::Source;
use edge_common::time::Now;

use super::federation::Question;

/// What a partner showed that has yet to be called back.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What its certificate would prove.
    pub names: Arc<ProvenNames>,
    /// The key of its certificate.
    pub key: KeyFingerprint,
    /// Where it comes from.
    pub source: IpAddr,
}

/// An edge that is to show that key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The key that was shown to us.
    pub key: KeyFingerprint,
    /// Where a server has to show it.
    pub target: HostPort,
}

/// The certificate that the edge showed as a server, verified for its name; its key is the caller's.
#[derive(Clone, Debug)]
pub struct Vouched {
    /// What it proves.
    pub names: Arc<ProvenNames>,
    /// Its issuer and number.
    pub certificate: Arc<CertificateId>,
}

/// Why a call did not prove the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The edge has no address that may be dialled.
    Unresolved,
    /// Nobody there speaks TLS.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The server's certificate does not hold for its name.
    Untrusted,
    /// It is another server than the caller.
    OtherKey,
    /// The caller's network had us call too often.
    Budget,
    /// Too many are being called.
    Busy,
}

impl Fault {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unresolved => "callback_unresolved",
            Self::Unreachable => "callback_unreachable",
            Self::Timeout => "callback_timeout",
            Self::Untrusted => "callback_untrusted",
            Self::OtherKey => "callback_other_key",
            Self::Budget => "callback_budget",
            Self::Busy => "callback_busy",
        }
    }
}

/// What a call came to.
pub type Called = Result<Vouched, Fault>;

/// What is to be done for a question.
#[derive(Debug)]
pub enum Next {
    /// It is known, until then.
    Known(Box<Question>, Called, Instant),
    /// The call is made already.
    Wait,
    /// The call is to be made.
    Dial,
}

/// Calls that are made, and what became of the last ones.
#[derive(Debug)]
pub struct Callbacks {
    calls_max: usize,
    askers_max: usize,
    known_max: usize,
    calling: BTreeMap<Call, Vec<Question>>,
    known: BTreeMap<Call, (Called, Instant)>,
    /// Calls of each network within its minute.
    sources: BTreeMap<Source, (u8, Instant)>,
}

impl Callbacks {
    /// At most `calls_max` calls at a time with `askers_max` questions each; `known_max` are remembered.
    #[must_use]
    pub const fn new(calls_max: usize, askers_max: usize, known_max: usize) -> Self {
        Self {
            calls_max,
            askers_max,
            known_max,
            calling: BTreeMap::new(),
            known: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Takes a question of a caller from `source`.
    pub fn ask(&mut self, now: Now, call: &Call, source: IpAddr, question: Question) -> Next {
        let known = self.known.get(call);
        if let Some((called, until)) = known.filter(|(_, until)| *until > now.mono) {
            return Next::Known(Box::new(question), called.clone(), *until);
        }
        if let Some(askers) = self.calling.get_mut(call) {
            if askers.len() < self.askers_max {
                askers.push(question);
                return Next::Wait;
            }
            return Next::Known(Box::new(question), Err(Fault::Busy), now.mono);
        }
        if self.calling.len() >= self.calls_max {
            return Next::Known(Box::new(question), Err(Fault::Busy), now.mono);
        }
        if !self.spend(now, source) {
            return Next::Known(Box::new(question), Err(Fault::Budget), now.mono);
        }
        self.calling.insert(call.clone(), vec![question]);
        Next::Dial
    }

    /// Takes what a call came to; returns who asked, and until when it holds.
    pub fn handle_called(
        &mut self,
        now: Now,
        call: &Call,
        called: &Called,
    ) -> (Vec<Question>, Instant) {
        let holds = if called.is_ok() {
            PROVEN_FOR
        } else {
            REFUSED_FOR
        };
        let until = now.mono + holds;
        if self.known.len() >= self.known_max {
            self.known.retain(|_, (_, until)| *until > now.mono);
        }
        if self.known.len() >= self.known_max {
            let first = self.known.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(call) = first.map(|(call, _)| call.clone()) {
                self.known.remove(&call);
            }
        }
        self.known.insert(call.clone(), (called.clone(), until));
        (self.calling.remove(call).unwrap_or_default(), until)
    }

    /// Forgets what was found; calls that are made go on.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// How many calls are made.
    #[must_use]
    pub fn calling(&self) -> usize {
        self.calling.len()
    }

    /// Counts a call of that network; `false` when it has had its share.
    fn spend(&mut self, now: Now, source: IpAddr) -> bool {
        let source = Source::from(source);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sources.retain(|_, (_, ends)| *ends > now.mono);
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let (calls, ends) = self.sources.entry(source).or_insert((0, now.mono));
        if *ends <= now.mono {
            (*calls, *ends) = (0, now.mono + MINUTE);
        }
        let may = *calls < CALLS_PER_SOURCE;
        *calls = calls.saturating_add(1);
        may
    }
}

/// A partner that changes its key shows the new one, and is called anew.
const PROVEN_FOR: Duration = Duration::from_secs(60 * 60);
const REFUSED_FOR: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
/// Within a minute; a partner needs one for each of its edges.
const CALLS_PER_SOURCE: u8 = 6;
/// Networks whose calls are counted.
const SOURCES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::federation::Identity;
    use crate::proxy::token::FlowKey;
    use edge_common::time::UnixTime;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        }
    }

    fn question() -> Question {
        Question::Proof {
            flow: FlowKey {
                core: 0,
                slot: 0,
                generation: 0,
            },
            domain: "fabrikam.test".parse().expect("lawful"),
            names: Arc::default(),
            certificate: Arc::default(),
            discovered: false,
            providers: Arc::default(),
            providers_only: false,
            identity: Identity::Certified,
        }
    }

    fn call(number: u8) -> Call {
        Call {
            key: KeyFingerprint([number; 32]),
            target: "sip.fabrikam.test:5061".parse().expect("lawful"),
        }
    }

    fn ask(callbacks: &mut Callbacks, now: Now, number: u8, source: &str) -> String {
        let source = source.parse().expect("lawful");
        match callbacks.ask(now, &call(number), source, question()) {
            Next::Dial => "dial".to_owned(),
            Next::Wait => "wait".to_owned(),
            Next::Known(_, called, _) => called.map_or_else(|fault| fault.label(), |_| "ok").into(),
        }
    }

    #[test]
    fn one_call_is_made_for_all_who_ask_and_its_outcome_is_kept() {
        let (mut callbacks, start) = (Callbacks::new(2, 2, 10), now());
        let asked: Vec<_> = (0..3)
            .map(|_| ask(&mut callbacks, start, 1, "192.0.2.1"))
            .collect();
        assert_eq!(asked, ["dial", "wait", "callback_busy"]);
        let (askers, _) = callbacks.handle_called(start, &call(1), &Err(Fault::OtherKey));
        assert_eq!((askers.len(), callbacks.calling()), (2, 0));
        let soon = start.plus(Duration::from_secs(59));
        let later = start.plus(Duration::from_secs(61));
        assert_eq!(
            ask(&mut callbacks, soon, 1, "192.0.2.1"),
            "callback_other_key"
        );
        assert_eq!(ask(&mut callbacks, later, 1, "192.0.2.1"), "dial");
        callbacks.clear();
        assert_eq!(
            ask(&mut callbacks, later, 1, "192.0.2.1"),
            "wait",
            "it goes on"
        );
    }

    #[test]
    fn a_network_has_us_call_a_few_times_a_minute() {
        let (mut callbacks, start) = (Callbacks::new(100, 2, 10), now());
        let mut from = |now, number, source| ask(&mut callbacks, now, number, source);
        for number in 0..6 {
            assert_eq!(
                from(
                    start,
                    number,
                    ["2001:db8::1", "2001:db8::2"][usize::from(number) % 2]
                ),
                "dial"
            );
        }
        assert_eq!(from(start, 7, "2001:db8::ffff:1"), "callback_budget");
        assert_eq!(from(start, 7, "2001:db8:0:1::1"), "dial");
        let later = start.plus(Duration::from_secs(61));
        assert_eq!(from(later, 8, "2001:db8::1"), "dial");
    }

    #[test]
    fn no_more_calls_are_made_or_kept_than_there_is_room_for() {
        let (mut callbacks, start) = (Callbacks::new(2, 2, 2), now());
        for (number, told) in [(1, "dial"), (2, "dial"), (3, "callback_busy")] {
            assert_eq!(ask(&mut callbacks, start, number, "192.0.2.1"), told);
        }
        for number in 1..=3 {
            callbacks.handle_called(start, &call(number), &Err(Fault::Timeout));
        }
        assert_eq!(callbacks.known.len(), 2);
    }
}

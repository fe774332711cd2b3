//! The watch list: who was discovered, what it sends, and what an operator decided on it.
//!
//! Keyed by issuer and serial number of the certificate, as a partner may speak for several domains and a
//! certificate is what it cannot change at will. It has one owner, beside the verdicts; the counting is done by
//! the [`Meter`] of each entry, wherever the partner's connections are.
//!
//! ```text
//!            ≥ 50 answers in 5 min, more than half of them failures
//!   NORMAL ───────────────────────────────────────────────────────► SUSPECT (1 request a second)
//!          ◄─────────────────────────────────────────────────────── 30 min later, less than a fifth failures
//! ```
//!
//! What the admin socket answers (`admin`):
//!
//! ```text
//!  {"command":"federation.watch"} ─► {"entries":[{
//!      "issuer":"CN=…","serial":"04a1…","names":"sip.new.test","domains":["new.test"],
//!      "mode":"auto"|"allow"|"block","state":"normal"|"over-rate"|"over-contacts"|"suspect"|"blocked"|"allowed",
//!      "first_seen":unix,"last_seen":unix,"suspect_since":unix|null,"connected":true,
//!      "requests":n,"refused":{"rate":n,"contacts":n,"blocked":n},"unproven":n,"contacts":n,
//!      "window":{"good":n,"failed":n}}],
//!    "limits":{"rate":20,"suspicious_rate":1,"contacts":1000,"entries":1000}}
//!  {"command":"federation.watch.set","issuer":"CN=…","serial":"04a1…","mode":"allow"|"block"|"reset"}
//!      ─► {"changed":{…the entry…}}          a certificate that was not seen yet may be blocked or allowed as well
//!  {"command":"federation.partners"} ─► {"partners":[…listed…],"connections":[{"core":0,"remote":"…","direction":
//!      "in"|"out","names":"…","issuer":"…","serial":"…","domains":[{"domain":"…","outcome":"proven"|reason,
//!      "kind":"direct"|…,"edge":"host:port"}]}]}
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::cert::identity::CertificateId;
use edge_common::host_name::HostName;
use edge_common::limit::HashKey;
use edge_common::time::{Now, UnixTime};

use super::meter::{Allowance, Counted, Meter, Mode};

/// The list.
#[derive(Debug)]
pub struct Watch {
    allowance: Allowance,
    entries_max: usize,
    key: HashKey,
    entries: BTreeMap<CertificateId, Entry>,
    events: VecDeque<WatchEvent>,
    swept: Option<Instant>,
}

/// One certificate.
#[derive(Debug)]
struct Entry {
    names: String,
    domains: Vec<HostName>,
    meter: Arc<Meter>,
    /// Domains that it asked for and did not prove.
    unproven: u64,
    first_seen: UnixTime,
    last_seen: UnixTime,
    /// Requests at the last review, to see whether more came.
    requests: u64,
    refused: (u64, u64),
    /// Whether a limit was reached since it was last calm.
    over: Option<State>,
    calm_since: Instant,
    suspect_since: Option<Now>,
    /// Good and failed responses of the last minutes.
    window: VecDeque<Cell>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    begun: Instant,
    good: u32,
    failed: u32,
}

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Within its limits.
    Normal,
    /// Too many requests a second, lately.
    OverRate,
    /// Too many local addresses, lately.
    OverContacts,
    /// Most of what it asks fails.
    Suspect,
    /// An operator lifted its limits.
    Allowed,
    /// An operator blocked it.
    Blocked,
}

impl State {
    /// The word for it in answers, logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::OverRate => "over-rate",
            Self::OverContacts => "over-contacts",
            Self::Suspect => "suspect",
            Self::Allowed => "allowed",
            Self::Blocked => "blocked",
        }
    }
}

/// An entry came to stand otherwise; worth a log record and a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// Which one.
    pub certificate: CertificateId,
    /// What the certificate proves.
    pub names: String,
    /// How it stands now.
    pub state: State,
}

/// An entry as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The key.
    pub certificate: CertificateId,
    /// What the certificate proves.
    pub names: String,
    /// Domains that it was proven for.
    pub domains: Vec<HostName>,
    /// What an operator decided.
    pub mode: Mode,
    /// How it stands.
    pub state: State,
    /// When it was first proven, or an operator named it.
    pub first_seen: UnixTime,
    /// When it last sent something, to the minute or better.
    pub last_seen: UnixTime,
    /// Since when the lower rate holds.
    pub suspect_since: Option<UnixTime>,
    /// Whether a connection of it is open.
    pub connected: bool,
    /// What was counted since it was first seen by this process.
    pub counted: Counted,
    /// How often it named a domain that it did not prove.
    pub unproven: u64,
    /// Good and failed responses of the last minutes.
    pub window: (u32, u32),
}

/// What of an entry outlives the process: what was decided on it, not what was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The key.
    pub certificate: CertificateId,
    /// What the certificate proves.
    pub names: String,
    /// Domains that it was proven for.
    pub domains: Vec<HostName>,
    /// What an operator decided.
    pub mode: Mode,
    /// When it was first seen.
    pub first_seen: UnixTime,
    /// Since when it is suspicious.
    pub suspect_since: Option<UnixTime>,
}

/// What an operator wants done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No limit holds from now on.
    Allow,
    /// Nothing is taken from now on.
    Block,
    /// As if it had never been seen: counts, addresses and suspicion are forgotten, and the limits hold.
    Reset,
}

/// The list is full of certificates that are connected, decided on or suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the watch list is full of certificates that are connected or decided on")
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new(Allowance::default(), ENTRIES_MAX, HashKey::default())
    }
}

impl Watch {
    /// An empty list for `entries_max` certificates.
    #[must_use]
    pub const fn new(allowance: Allowance, entries_max: usize, key: HashKey) -> Self {
        Self {
            allowance,
            entries_max,
            key,
            entries: BTreeMap::new(),
            events: VecDeque::new(),
            swept: None,
        }
    }

    /// Takes in what an earlier process kept, as far as there is room.
    pub fn restore(&mut self, now: Now, kept: impl IntoIterator<Item = Kept>) {
        for kept in kept {
            let Ok(entry) = self.entry(now, &kept.certificate, &kept.names) else {
                return;
            };
            entry.domains = kept.domains;
            entry.domains.truncate(DOMAINS_MAX);
            entry.first_seen = kept.first_seen;
            entry.meter.set_mode(kept.mode);
            if let Some(since) = kept.suspect_since {
                // The half hour begins anew: what was answered meanwhile is not known.
                entry.suspect_since = Some(Now { unix: since, ..now });
                entry.meter.set_suspect(true);
            }
        }
    }

    /// What has to outlive the process: entries that an operator decided on, and suspicious ones.
    pub fn keep(&self) -> impl Iterator<Item = Kept> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.is_marked())
            .map(|(certificate, entry)| Kept {
                certificate: certificate.clone(),
                names: entry.names.clone(),
                domains: entry.domains.clone(),
                mode: entry.meter.mode(),
                first_seen: entry.first_seen,
                suspect_since: entry.suspect_since.map(|since| since.unix),
            })
    }

    /// A certificate was proven for a domain by discovery: its connections are to be counted by this.
    pub fn enter(
        &mut self,
        now: Now,
        certificate: &CertificateId,
        names: &dyn std::fmt::Display,
        domain: &HostName,
    ) -> Result<Arc<Meter>, Full> {
        let entry = self.entry(now, certificate, names)?;
        entry.last_seen = now.unix;
        if !entry.domains.contains(domain) && entry.domains.len() < DOMAINS_MAX {
            entry.domains.push(domain.clone());
        }
        Ok(Arc::clone(&entry.meter))
    }

    /// A certificate named a domain by discovery and did not prove it. It is shown as long as there is room.
    pub fn note_unproven(
        &mut self,
        now: Now,
        certificate: &CertificateId,
        names: &dyn std::fmt::Display,
    ) {
        if let Ok(entry) = self.entry(now, certificate, names) {
            entry.last_seen = now.unix;
            entry.unproven = entry.unproven.saturating_add(1);
        }
    }

    /// Whether an operator blocked that certificate.
    #[must_use]
    pub fn is_blocked(&self, certificate: &CertificateId) -> bool {
        self.entries
            .get(certificate)
            .is_some_and(|entry| entry.meter.mode() == Mode::Block)
    }

    /// Does what an operator decided, also on a certificate that was never seen.
    pub fn decide(
        &mut self,
        now: Now,
        certificate: &CertificateId,
        decision: Decision,
    ) -> Result<Seen, Full> {
        let entry = self.entry(now, certificate, &"")?;
        entry.meter.set_mode(match decision {
            Decision::Allow => Mode::Allow,
            Decision::Block => Mode::Block,
            Decision::Reset => Mode::Auto,
        });
        if decision == Decision::Reset {
            entry.meter.reset();
            entry.meter.set_suspect(false);
            entry.suspect_since = None;
            entry.over = None;
            entry.window.clear();
            entry.unproven = 0;
        }
        let event = WatchEvent {
            certificate: certificate.clone(),
            names: entry.names.clone(),
            state: entry.state(),
        };
        let seen = entry.seen(certificate);
        self.events.push_back(event);
        Ok(seen)
    }

    /// Looks at what was counted; to be called every second or so.
    pub fn review(&mut self, now: Now) {
        let sweep = self
            .swept
            .is_none_or(|swept| now.mono.saturating_duration_since(swept) >= SWEEP_INTERVAL);
        if sweep {
            self.swept = Some(now.mono);
        }
        for (certificate, entry) in &mut self.entries {
            let before = entry.state();
            if sweep {
                entry.meter.sweep(now.mono);
            }
            entry.review(now);
            let state = entry.state();
            if state != before {
                self.events.push_back(WatchEvent {
                    certificate: certificate.clone(),
                    names: entry.names.clone(),
                    state,
                });
            }
        }
    }

    /// What came to stand otherwise.
    pub fn poll_event(&mut self) -> Option<WatchEvent> {
        self.events.pop_front()
    }

    /// All entries, the most conspicuous ones first.
    #[must_use]
    pub fn list(&self) -> Vec<Seen> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(certificate, entry)| entry.seen(certificate))
            .collect();
        all.sort_by_key(|seen| std::cmp::Reverse((seen.state, seen.counted.requests)));
        all
    }

    /// What holds for entries that are in mode `auto`.
    #[must_use]
    pub const fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// How many entries there may be.
    #[must_use]
    pub const fn entries_max(&self) -> usize {
        self.entries_max
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(
        &mut self,
        now: Now,
        certificate: &CertificateId,
        names: &dyn std::fmt::Display,
    ) -> Result<&mut Entry, Full> {
        if !self.entries.contains_key(certificate) {
            self.make_room()?;
        }
        let (allowance, key) = (self.allowance, self.key);
        let entry = self.entries.entry(certificate.clone());
        let entry = entry.or_insert_with(|| Entry::new(now, allowance, key));
        if entry.names.is_empty() {
            entry.names = names.to_string();
        }
        Ok(entry)
    }

    /// The entry that was quiet for longest goes, if nothing is known of it that has to be kept; first of all
    /// those that never proved anything.
    fn make_room(&mut self) -> Result<(), Full> {
        if self.entries.len() < self.entries_max {
            return Ok(());
        }
        let idle = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.is_marked() && !entry.is_connected())
            .min_by_key(|(_, entry)| (!entry.domains.is_empty(), entry.last_seen))
            .map(|(certificate, _)| certificate.clone());
        let certificate = idle.ok_or(Full)?;
        self.entries.remove(&certificate);
        Ok(())
    }
}

impl Entry {
    fn new(now: Now, allowance: Allowance, key: HashKey) -> Self {
        Self {
            names: String::new(),
            domains: Vec::new(),
            meter: Arc::new(Meter::new(now.mono, allowance, key)),
            unproven: 0,
            first_seen: now.unix,
            last_seen: now.unix,
            requests: 0,
            refused: (0, 0),
            over: None,
            calm_since: now.mono,
            suspect_since: None,
            window: VecDeque::new(),
        }
    }

    fn review(&mut self, now: Now) {
        let counted = self.meter.counted();
        if counted.requests != self.requests {
            self.requests = counted.requests;
            self.last_seen = now.unix;
        }
        let refused = (counted.over_rate, counted.over_contacts);
        if refused != self.refused {
            self.over = Some(if refused.1 != self.refused.1 {
                State::OverContacts
            } else {
                State::OverRate
            });
            self.refused = refused;
            self.calm_since = now.mono;
        } else if now.mono.saturating_duration_since(self.calm_since) >= CALM {
            self.over = None;
        }
        self.note_responses(now.mono);
        self.judge(now);
    }

    fn note_responses(&mut self, now: Instant) {
        let (good, failed) = self.meter.take_responses();
        let age = |cell: &Cell| now.saturating_duration_since(cell.begun);
        while self
            .window
            .pop_front_if(|cell| age(cell) >= WINDOW)
            .is_some()
        {}
        if good == 0 && failed == 0 {
            return;
        }
        match self.window.back_mut().filter(|cell| age(cell) < CELL) {
            Some(cell) => {
                cell.good += good;
                cell.failed += failed;
            }
            None => self.window.push_back(Cell {
                begun: now,
                good,
                failed,
            }),
        }
    }

    fn judge(&mut self, now: Now) {
        let (good, failed) = self.ratio();
        let all = good + failed;
        match self.suspect_since {
            None if all >= SUSPECT_RESPONSES && failed * 2 > all => {
                self.suspect_since = Some(now);
                self.meter.set_suspect(true);
            }
            Some(since)
                if now.mono.saturating_duration_since(since.mono) >= SUSPECT_MIN
                    && (all == 0 || failed * 5 < all) =>
            {
                self.suspect_since = None;
                self.meter.set_suspect(false);
            }
            None | Some(_) => {}
        }
    }

    fn ratio(&self) -> (u32, u32) {
        self.window.iter().fold((0, 0), |(good, failed), cell| {
            (good + cell.good, failed + cell.failed)
        })
    }

    fn state(&self) -> State {
        match self.meter.mode() {
            Mode::Block => State::Blocked,
            Mode::Allow => State::Allowed,
            Mode::Auto if self.suspect_since.is_some() => State::Suspect,
            Mode::Auto => self.over.unwrap_or(State::Normal),
        }
    }

    fn is_marked(&self) -> bool {
        self.meter.mode() != Mode::Auto || self.suspect_since.is_some()
    }

    /// Each connection of the partner holds the meter as well.
    fn is_connected(&self) -> bool {
        Arc::strong_count(&self.meter) > 1
    }

    fn seen(&self, certificate: &CertificateId) -> Seen {
        Seen {
            certificate: certificate.clone(),
            names: self.names.clone(),
            domains: self.domains.clone(),
            mode: self.meter.mode(),
            state: self.state(),
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            suspect_since: self.suspect_since.map(|since| since.unix),
            connected: self.is_connected(),
            counted: self.meter.counted(),
            unproven: self.unproven,
            window: self.ratio(),
        }
    }
}

/// Certificates on the list unless the configuration says otherwise.
pub const ENTRIES_MAX: usize = 1000;
/// Domains that are shown of one certificate.
const DOMAINS_MAX: usize = 16;
/// Responses are weighed over so long,
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// in steps of this.
const CELL: Duration = Duration::from_secs(10);
/// With fewer responses nobody is judged.
const SUSPECT_RESPONSES: u32 = 50;
/// Suspicion lasts at least so long.
const SUSPECT_MIN: Duration = Duration::from_secs(30 * 60);
/// A limit that was reached is shown for so long after.
const CALM: Duration = Duration::from_secs(60 * 60);
/// Expired addresses are forgotten this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        }
    }

    fn id(serial: &str) -> CertificateId {
        CertificateId {
            issuer: "CN=Public CA".to_owned(),
            serial: serial.to_owned(),
        }
    }

    fn domain(text: &str) -> HostName {
        text.parse().expect("lawful")
    }

    fn enter(watch: &mut Watch, now: Now, serial: &str) -> Result<Arc<Meter>, Full> {
        watch.enter(now, &id(serial), &"sip.new.test", &domain("new.test"))
    }

    fn states(watch: &mut Watch) -> Vec<State> {
        std::iter::from_fn(|| watch.poll_event())
            .map(|event| event.state)
            .collect()
    }

    #[test]
    fn a_partner_whose_requests_fail_becomes_suspect_and_is_cleared_by_better_ones() {
        let (mut watch, start) = (Watch::default(), now());
        let meter = enter(&mut watch, start, "1").expect("room");
        for n in 0..49 {
            meter.answered(n % 5 == 0);
        }
        watch.review(start);
        assert_eq!(states(&mut watch), [], "too few to judge");
        meter.answered(false);
        let at = start.plus(Duration::from_secs(20));
        watch.review(at);
        assert_eq!(states(&mut watch), [State::Suspect]);
        assert!(meter.is_suspect());
        assert_eq!(watch.list()[0].window, (10, 40));
        // Good answers alone do not clear it before the half hour is over.
        let later = at.plus(Duration::from_secs(20 * 60));
        watch.review(later);
        assert!(meter.is_suspect());
        let bad_again = at.plus(SUSPECT_MIN);
        meter.answered(false);
        watch.review(bad_again);
        assert!(meter.is_suspect(), "still most of it fails");
        for _ in 0..9 {
            meter.answered(true);
        }
        watch.review(bad_again.plus(Duration::from_secs(1)));
        assert_eq!(states(&mut watch), [State::Normal]);
        assert!(!meter.is_suspect());
    }

    #[test]
    fn half_of_it_failing_is_not_suspicious() {
        let (mut watch, start) = (Watch::default(), now());
        let meter = enter(&mut watch, start, "1").expect("room");
        for n in 0..200 {
            meter.answered(n % 2 == 0);
        }
        watch.review(start);
        assert_eq!(states(&mut watch), []);
    }

    #[test]
    fn a_limit_that_is_reached_is_told_once_and_shown_for_an_hour() {
        let (mut watch, start) = (Watch::default(), now());
        let meter = enter(&mut watch, start, "1").expect("room");
        let refused = (0..60)
            .filter(|_| meter.admit(start.mono, None).is_err())
            .count();
        assert_eq!(refused, 20);
        for second in 0..5 {
            watch.review(start.plus(Duration::from_secs(second)));
        }
        assert_eq!(states(&mut watch), [State::OverRate]);
        let listed = &watch.list()[0];
        assert_eq!(
            (listed.state, listed.counted.over_rate),
            (State::OverRate, 20)
        );
        watch.review(start.plus(CALM + Duration::from_secs(9)));
        assert_eq!(states(&mut watch), [State::Normal]);
    }

    #[test]
    fn what_an_operator_decides_holds_at_once_and_after_a_restart() {
        let (mut watch, start) = (Watch::default(), now());
        let meter = enter(&mut watch, start, "1").expect("room");
        watch
            .decide(start, &id("1"), Decision::Block)
            .expect("room");
        watch
            .decide(start, &id("2"), Decision::Allow)
            .expect("also unseen");
        assert!(meter.admit(start.mono, None).is_err());
        assert!(watch.is_blocked(&id("1")) && !watch.is_blocked(&id("3")));
        assert_eq!(states(&mut watch), [State::Blocked, State::Allowed]);
        let kept: Vec<_> = watch.keep().collect();
        assert_eq!(kept.len(), 2);

        let (mut next, later) = (Watch::default(), now());
        next.restore(later, kept);
        assert!(next.is_blocked(&id("1")));
        assert_eq!(next.list()[0].domains, [domain("new.test")]);
        next.decide(later, &id("1"), Decision::Reset).expect("room");
        let meter = enter(&mut next, later, "1").expect("room");
        assert_eq!(meter.admit(later.mono, None), Ok(()));
        assert_eq!(next.keep().count(), 1, "the other one");
    }

    #[test]
    fn suspicion_outlives_the_process() {
        let (mut watch, start) = (Watch::default(), now());
        let meter = enter(&mut watch, start, "1").expect("room");
        (0..60).for_each(|_| meter.answered(false));
        watch.review(start);
        let mut next = Watch::default();
        next.restore(start, watch.keep().collect::<Vec<_>>());
        assert_eq!(next.list()[0].state, State::Suspect);
        next.review(start.plus(SUSPECT_MIN));
        assert_eq!(next.list()[0].state, State::Normal, "nothing bad came");
    }

    #[test]
    fn a_full_list_lets_go_who_is_idle_and_nobody_else() {
        let start = now();
        let mut watch = Watch::new(Allowance::default(), 2, [0; 16]);
        let held = enter(&mut watch, start, "1").expect("room");
        drop(enter(&mut watch, start, "2").expect("room"));
        let third = enter(&mut watch, start.plus(Duration::from_secs(1)), "3").expect("2 goes");
        assert_eq!(enter(&mut watch, start, "4").map(drop), Err(Full));
        drop(third);
        watch
            .decide(start, &id("3"), Decision::Block)
            .expect("known");
        assert_eq!(enter(&mut watch, start, "4").map(drop), Err(Full));
        drop(held);
        assert!(enter(&mut watch, start, "4").is_ok());
        assert!(watch.is_blocked(&id("3")), "decisions stay");
    }
}

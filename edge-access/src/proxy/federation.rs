//! The one place of the process that says which edge speaks for which domain.
//!
//! It is owned by one core and asked by all through their mailboxes, so that a domain is looked up
//! once however many messages wait for it.
//!
//! ```text
//!  Question ─► cache ──fresh──► Answer
//!                └──stale──► Resolve(domain) ─► handle_srv ─► an Answer to each who asked
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::cert::identity::{CertificateId, ProvenNames};
use edge_common::host_name::{HostName, HostPort};
use edge_common::partner_proof::{self, Proof, Rules, Verdict};
use edge_common::srv::SrvAnswer;
use edge_common::time::Now;

use super::callback::{Call, Callbacks, Called, Fault, Next, Shown, Vouched};
use super::meter::Meter;
use super::refusal::Refusal;
use super::token::FlowKey;
use super::watch::Watch;

/// What a core wants to know.
#[derive(Clone, Debug)]
pub enum Question {
    /// Does the far end of that connection speak for `domain`?
    Proof {
        /// The connection, for the answer to find back.
        flow: FlowKey,
        /// The domain in question.
        domain: HostName,
        /// What its certificate proves.
        names: Arc<ProvenNames>,
        /// Its certificate.
        certificate: Arc<CertificateId>,
        /// Nobody listed the domain: the limits of discovered partners hold.
        discovered: bool,
        /// Edges that may stand outside the domains that they speak for.
        providers: Arc<[HostName]>,
        /// No other edge than these may speak for it.
        providers_only: bool,
        /// Whether its certificate is known to be its own.
        identity: Identity,
    },
    /// Where is the edge of `domain`?
    Target {
        /// The core that asks.
        core: u8,
        /// The domain in question.
        domain: HostName,
        /// Edges that may stand outside the domains that they speak for.
        providers: Arc<[HostName]>,
        /// No other edge than these may speak for it.
        providers_only: bool,
    },
}

/// Whether the names of a connection's far end are its own.
#[derive(Clone, Debug)]
pub enum Identity {
    /// The handshake proved it.
    Certified,
    /// It has to be called back; until then it has no names.
    Shown {
        /// What it showed.
        shown: Arc<Shown>,
        /// The edge that an administrator listed for the domain; otherwise DNS names it.
        listed: Option<HostPort>,
    },
    /// It was called back: its names are those of the server there.
    CalledBack,
}

/// The edges that speak for a domain, or why none does.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was found: the edge that was proven, or those to dial in that order; never an empty list.
    pub outcome: Result<Vec<HostPort>, Refusal>,
    /// How long it holds.
    pub until: Instant,
    /// What counts the requests of the connection from now on, when it was discovered.
    pub meter: Option<Arc<Meter>>,
}

/// What DNS said, and for how long.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The records in the order in which they are to be tried, or that DNS did not answer.
    pub answer: Result<SrvAnswer, Unavailable>,
    /// Their time to live.
    pub ttl: Duration,
}

/// DNS gave no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// What the owner has to do.
#[derive(Debug)]
pub enum Output {
    /// Ask DNS for the federation record of that domain.
    Resolve(HostName),
    /// Connect to that edge, and compare the key that it shows.
    Call(Call),
    /// A call was asked for and is not made.
    NotCalled(Fault),
    /// Tell the core that asked.
    Answer(Question, Answer),
}

/// The table of domains.
#[derive(Debug)]
pub struct Authority {
    rules: Rules,
    port: u16,
    domains_max: usize,
    askers_max: usize,
    known: BTreeMap<HostName, Known>,
    waiting: BTreeMap<HostName, Vec<Question>>,
    callbacks: Callbacks,
    watch: Watch,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Debug)]
struct Known {
    answer: Result<SrvAnswer, Unavailable>,
    until: Instant,
}

impl Authority {
    /// `port` is where a domain's edge listens when only its certificate names it.
    #[must_use]
    pub fn new(rules: Rules, port: u16, domains_max: usize, askers_max: usize) -> Self {
        Self {
            rules,
            port,
            domains_max,
            askers_max,
            known: BTreeMap::new(),
            waiting: BTreeMap::new(),
            callbacks: Callbacks::new(CALLS_MAX, askers_max, domains_max),
            watch: Watch::default(),
            outputs: VecDeque::new(),
        }
    }

    /// With that list of discovered partners.
    #[must_use]
    pub fn watching(mut self, watch: Watch) -> Self {
        self.watch = watch;
        self
    }

    /// With room for that many calls at a time.
    #[must_use]
    pub fn calling_at_once(mut self, calls_max: usize) -> Self {
        self.callbacks = Callbacks::new(calls_max, self.askers_max, self.domains_max);
        self
    }

    /// Who was discovered.
    #[must_use]
    pub const fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Who was discovered, to be reviewed or decided on.
    pub const fn watch_mut(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Takes a question; its answer comes at once or when DNS has spoken.
    pub fn handle_question(&mut self, now: Now, question: Question) {
        if self.is_blocked(&question) {
            self.refuse(now, question, Refusal::PartnerBlocked);
            return;
        }
        if let Some(target) = question.listed().cloned() {
            self.call(now, question, target);
            return;
        }
        let domain = question.domain().clone();
        if let Some(known) = self
            .known
            .get(&domain)
            .filter(|known| known.until > now.mono)
            .cloned()
        {
            self.settle(now, question, &known);
            return;
        }
        if let Some(askers) = self.waiting.get_mut(&domain) {
            if askers.len() < self.askers_max {
                askers.push(question);
            } else {
                self.refuse(now, question, Refusal::PartnerBusy);
            }
        } else if self.waiting.len() < self.domains_max {
            self.waiting.insert(domain.clone(), vec![question]);
            self.outputs.push_back(Output::Resolve(domain));
        } else {
            self.refuse(now, question, Refusal::PartnerBusy);
        }
    }

    /// Takes what DNS said of a domain and answers whoever waits for it.
    pub fn handle_srv(&mut self, now: Now, domain: &HostName, resolved: Resolved) {
        let usable = matches!(resolved.answer, Ok(SrvAnswer::Records(_)));
        let ttl = if usable {
            resolved.ttl.clamp(TTL_MIN, TTL_MAX)
        } else {
            resolved.ttl.clamp(NEGATIVE_TTL_MIN, NEGATIVE_TTL_MAX)
        };
        let known = Known {
            answer: resolved.answer,
            until: now.mono + ttl,
        };
        for question in self.waiting.remove(domain).unwrap_or_default() {
            self.settle(now, question, &known);
        }
        self.make_room(now);
        self.known.insert(domain.clone(), known);
    }

    /// Takes what a call came to and answers whoever waits for it.
    pub fn handle_called(&mut self, now: Now, call: &Call, called: &Called) {
        let (askers, until) = self.callbacks.handle_called(now, call, called);
        for question in askers {
            self.called(now, question, called.clone(), until);
        }
    }

    /// Forgets everything that was learned, as after a change of the partners.
    pub fn clear(&mut self) {
        self.known.clear();
        self.callbacks.clear();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many domains are remembered, and how many are being looked up.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.known.len(), self.waiting.len())
    }

    /// Whether an operator blocked who is to be proven; DNS is not asked for his sake.
    fn is_blocked(&self, question: &Question) -> bool {
        match question {
            Question::Proof {
                certificate,
                discovered,
                ..
            } => *discovered && self.watch.is_blocked(certificate),
            Question::Target { .. } => false,
        }
    }

    /// How many partners are being called back.
    #[must_use]
    pub fn calling(&self) -> usize {
        self.callbacks.calling()
    }

    /// Answers by what DNS said; whoever has shown no more than a certificate is called back at first.
    fn settle(&mut self, now: Now, question: Question, known: &Known) {
        match self.callee(&question, known) {
            None => {
                let answer = self.answer(now, &question, known);
                self.outputs.push_back(Output::Answer(question, answer));
            }
            Some(Ok(target)) => self.call(now, question, target),
            Some(Err(refusal)) => self.refuse_until(question, refusal, known.until),
        }
    }

    /// The edge to call, for those who have to be called: one that their certificate names, or nobody. What the naming
    /// rule does not allow is not called.
    fn callee(&self, question: &Question, known: &Known) -> Option<Result<HostPort, Refusal>> {
        let Question::Proof {
            domain,
            providers,
            providers_only,
            identity: Identity::Shown { shown, .. },
            ..
        } = question
        else {
            return None;
        };
        let Ok(srv) = &known.answer else {
            return Some(Err(Refusal::SrvUnresolved));
        };
        let provided: Vec<_> = provided(srv, providers).cloned().collect();
        let targets = match provided.is_empty() {
            false => Ok(provided),
            true if *providers_only => Err(Refusal::DomainDenied),
            true => self.targets(domain, srv),
        };
        let named = |target: &HostPort| shown.names.proves_host(&target.host);
        Some(targets.and_then(|targets| {
            let callee = targets.into_iter().find(named);
            callee.ok_or(Refusal::Unproven("not_in_certificate"))
        }))
    }

    fn call(&mut self, now: Now, question: Question, target: HostPort) {
        let Some((key, source)) = question.shown().map(|shown| (shown.key, shown.source)) else {
            return self.refuse(now, question, Refusal::DomainDenied);
        };
        let call = Call { key, target };
        match self.callbacks.ask(now, &call, source, question) {
            Next::Wait => {}
            Next::Dial => self.outputs.push_back(Output::Call(call)),
            Next::Known(question, called, until) => {
                if let Err(fault @ (Fault::Budget | Fault::Busy)) = called {
                    self.outputs.push_back(Output::NotCalled(fault));
                }
                self.called(now, *question, called, until);
            }
        }
    }

    /// Goes on with the names that the server showed, as if the caller had shown them.
    fn called(&mut self, now: Now, question: Question, called: Called, until: Instant) {
        let vouched = match called {
            Ok(vouched) => vouched,
            Err(fault) => {
                return self.refuse_until(question, Refusal::Unproven(fault.label()), until);
            }
        };
        let listed = question.listed().cloned();
        let question = question.called_back(vouched);
        match listed {
            None => self.handle_question(now, question),
            Some(target) => {
                let answer = Answer {
                    outcome: Ok(vec![target]),
                    until,
                    meter: None,
                };
                self.outputs.push_back(Output::Answer(question, answer));
            }
        }
    }

    fn answer(&mut self, now: Now, question: &Question, known: &Known) -> Answer {
        let mut outcome = match (&known.answer, question) {
            (Err(Unavailable), _) => Err(Refusal::SrvUnresolved),
            (Ok(srv), _) => self.outcome(question, srv),
        };
        let mut meter = None;
        if let Question::Proof {
            domain,
            names,
            certificate,
            discovered: true,
            providers,
            ..
        } = question
        {
            match &outcome {
                Ok(proven) if proven.iter().any(|at| providers.contains(&at.host)) => {}
                Ok(_) => match self.watch.enter(now, certificate, names, domain) {
                    Ok(counting) => meter = Some(counting),
                    Err(_) => outcome = Err(Refusal::PartnerBusy),
                },
                Err(_) => self.watch.note_unproven(now, certificate, names),
            }
        }
        Answer {
            outcome,
            until: known.until,
            meter,
        }
    }

    fn outcome(&self, question: &Question, srv: &SrvAnswer) -> Result<Vec<HostPort>, Refusal> {
        match question {
            Question::Proof {
                domain,
                names,
                providers,
                providers_only,
                ..
            } => {
                let mut provided = provided(srv, providers).peekable();
                let has_provider = provided.peek().is_some();
                let proven = provided.find(|target| names.proves_host(&target.host));
                match proven {
                    Some(target) => Ok(vec![target.clone()]),
                    None if *providers_only => Err(Refusal::DomainDenied),
                    None if has_provider => Err(Refusal::Unproven("not_in_certificate")),
                    None => self.prove(domain, srv, names).map(|proven| vec![proven]),
                }
            }
            Question::Target {
                domain,
                providers,
                providers_only,
                ..
            } => {
                let provided: Vec<_> = provided(srv, providers)
                    .take(TARGETS_MAX)
                    .cloned()
                    .collect();
                match provided.is_empty() {
                    false => Ok(provided),
                    true if *providers_only => Err(Refusal::Unroutable),
                    true => self.targets(domain, srv),
                }
            }
        }
    }

    fn prove(
        &self,
        domain: &HostName,
        srv: &SrvAnswer,
        names: &ProvenNames,
    ) -> Result<HostPort, Refusal> {
        match partner_proof::prove(domain, srv, names, self.rules) {
            Verdict::Proven(Proof::Srv(host) | Proof::Listed(host)) => {
                let port = srv
                    .records()
                    .iter()
                    .find(|record| record.target.host == host)
                    .map_or(self.port, |record| record.target.port);
                Ok(HostPort { host, port })
            }
            // RFC 5922: the certificate names the domain; where its edge is, DNS may still tell.
            Verdict::Proven(Proof::Domain) => {
                let first = self
                    .targets(domain, srv)
                    .ok()
                    .and_then(|all| all.into_iter().next());
                Ok(first.unwrap_or_else(|| HostPort {
                    host: domain.clone(),
                    port: self.port,
                }))
            }
            Verdict::Refused(partner_proof::Refusal::Conflict { .. }) => Err(Refusal::SrvConflict),
            Verdict::Refused(
                refusal @ (partner_proof::Refusal::NoSrv
                | partner_proof::Refusal::NotOffered
                | partner_proof::Refusal::NotInCertificate { .. }),
            ) => Err(Refusal::Unproven(refusal.label())),
        }
    }

    fn targets(&self, domain: &HostName, srv: &SrvAnswer) -> Result<Vec<HostPort>, Refusal> {
        match partner_proof::lawful_targets(domain, srv, self.rules) {
            Ok(targets) if targets.is_empty() => Err(Refusal::SrvUnresolved),
            Ok(targets) => Ok(targets.into_iter().take(TARGETS_MAX).cloned().collect()),
            Err(partner_proof::Refusal::Conflict { .. }) => Err(Refusal::SrvConflict),
            Err(
                refusal @ (partner_proof::Refusal::NoSrv
                | partner_proof::Refusal::NotOffered
                | partner_proof::Refusal::NotInCertificate { .. }),
            ) => Err(Refusal::SrvUnusable(refusal.label())),
        }
    }

    fn refuse(&mut self, now: Now, question: Question, refusal: Refusal) {
        self.refuse_until(question, refusal, now.mono);
    }

    fn refuse_until(&mut self, question: Question, refusal: Refusal, until: Instant) {
        let answer = Answer {
            outcome: Err(refusal),
            until,
            meter: None,
        };
        self.outputs.push_back(Output::Answer(question, answer));
    }

    /// Drops what is stale; if that is not enough, what goes stale first.
    fn make_room(&mut self, now: Now) {
        if self.known.len() < self.domains_max {
            return;
        }
        self.known.retain(|_, known| known.until > now.mono);
        while self.known.len() >= self.domains_max {
            let first = self.known.iter().min_by_key(|(_, known)| known.until);
            let Some(domain) = first.map(|(domain, _)| domain.clone()) else {
                return;
            };
            self.known.remove(&domain);
        }
    }
}

impl Question {
    /// The domain in question.
    #[must_use]
    pub const fn domain(&self) -> &HostName {
        match self {
            Self::Proof { domain, .. } | Self::Target { domain, .. } => domain,
        }
    }

    const fn shown(&self) -> Option<&Arc<Shown>> {
        match self {
            Self::Proof {
                identity: Identity::Shown { shown, .. },
                ..
            } => Some(shown),
            Self::Proof { .. } | Self::Target { .. } => None,
        }
    }

    const fn listed(&self) -> Option<&HostPort> {
        match self {
            Self::Proof {
                identity: Identity::Shown { listed, .. },
                ..
            } => listed.as_ref(),
            Self::Proof { .. } | Self::Target { .. } => None,
        }
    }

    /// The same, with the names that the server showed.
    fn called_back(mut self, vouched: Vouched) -> Self {
        if let Self::Proof {
            names,
            certificate,
            identity,
            ..
        } = &mut self
        {
            *names = vouched.names;
            *certificate = vouched.certificate;
            *identity = Identity::CalledBack;
        }
        self
    }

    /// The core that asks.
    #[must_use]
    pub const fn core(&self) -> u8 {
        match self {
            Self::Proof { flow, .. } => flow.core,
            Self::Target { core, .. } => *core,
        }
    }
}

/// The targets that are providers: these may speak for domains that they do not lie in.
fn provided<'a>(
    srv: &'a SrvAnswer,
    providers: &'a [HostName],
) -> impl Iterator<Item = &'a HostPort> {
    let targets = srv.records().iter().map(|record| &record.target);
    targets.filter(|target| providers.contains(&target.host))
}

/// A record with a shorter life would have us ask for every message.
const TTL_MIN: Duration = Duration::from_secs(30);
/// A partner that moves is found again within the hour.
const TTL_MAX: Duration = Duration::from_secs(60 * 60);
/// Partners that are called back at a time, unless it is said otherwise.
const CALLS_MAX: usize = 16;
/// Edges of one domain that are tried.
const TARGETS_MAX: usize = 4;
const NEGATIVE_TTL_MIN: Duration = Duration::from_secs(60);
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::srv::SrvRecord;
    use edge_common::time::UnixTime;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        }
    }

    fn name(text: &str) -> HostName {
        text.parse().expect("lawful")
    }

    fn target(domain: &str) -> Question {
        Question::Target {
            core: 1,
            domain: name(domain),
            providers: Arc::default(),
            providers_only: false,
        }
    }

    fn records(target: &str) -> Resolved {
        Resolved {
            answer: Ok(SrvAnswer::Records(vec![SrvRecord {
                priority: 0,
                weight: 0,
                target: target.parse().expect("lawful"),
            }])),
            ttl: Duration::from_secs(600),
        }
    }

    fn drain(authority: &mut Authority) -> Vec<String> {
        std::iter::from_fn(|| authority.poll_output())
            .map(|output| match output {
                Output::Resolve(domain) => format!("resolve {domain}"),
                Output::Call(call) => format!("call {}", call.target),
                Output::NotCalled(fault) => format!("not called: {}", fault.label()),
                Output::Answer(question, answer) => {
                    format!(
                        "{} {:?}",
                        question.domain(),
                        answer.outcome.map(|at| at[0].to_string())
                    )
                }
            })
            .collect()
    }

    #[test]
    fn a_domain_is_looked_up_once_for_all_who_wait() {
        let (mut authority, start) = (Authority::new(Rules::default(), 5061, 10, 2), now());
        for _ in 0..3 {
            authority.handle_question(start, target("fabrikam.test"));
        }
        assert_eq!(
            drain(&mut authority),
            ["resolve fabrikam.test", "fabrikam.test Err(PartnerBusy)"]
        );
        authority.handle_srv(
            start,
            &name("fabrikam.test"),
            records("sip.fabrikam.test:5061"),
        );
        let found = "fabrikam.test Ok(\"sip.fabrikam.test:5061\")";
        assert_eq!(drain(&mut authority), [found, found]);
        authority.handle_question(
            start.plus(Duration::from_secs(599)),
            target("fabrikam.test"),
        );
        assert_eq!(drain(&mut authority), [found]);
        authority.handle_question(
            start.plus(Duration::from_secs(601)),
            target("fabrikam.test"),
        );
        assert_eq!(drain(&mut authority), ["resolve fabrikam.test"]);
    }

    #[test]
    fn a_target_outside_its_domain_and_a_silent_dns_are_told_apart() {
        let (mut authority, start) = (Authority::new(Rules::default(), 5061, 10, 2), now());
        authority.handle_question(start, target("evil.test"));
        authority.handle_srv(start, &name("evil.test"), records("sip.fabrikam.test:5061"));
        authority.handle_question(start, target("quiet.test"));
        let silence = Resolved {
            answer: Err(Unavailable),
            ttl: Duration::ZERO,
        };
        authority.handle_srv(start, &name("quiet.test"), silence);
        assert_eq!(
            drain(&mut authority),
            [
                "resolve evil.test",
                "evil.test Err(SrvConflict)",
                "resolve quiet.test",
                "quiet.test Err(SrvUnresolved)"
            ]
        );
    }

    #[test]
    fn every_reason_of_a_missing_proof_is_counted_by_its_own_label() {
        let start = now();
        let names = |dns: &str| {
            Arc::new(ProvenNames {
                dns: vec![name(dns)],
                ..ProvenNames::default()
            })
        };
        let silent = |answer| Resolved {
            answer: Ok(answer),
            ttl: Duration::from_secs(600),
        };
        let cases = [
            (silent(SrvAnswer::Missing), "fabrikam.test", "no_srv"),
            (
                silent(SrvAnswer::NotOffered),
                "fabrikam.test",
                "not_offered",
            ),
            (
                records("sip.fabrikam.test:5061"),
                "www.fabrikam.test",
                "not_in_certificate",
            ),
        ];
        for (resolved, certificate, label) in cases {
            let mut authority = Authority::new(Rules::default(), 5061, 10, 2);
            authority.handle_srv(start, &name("fabrikam.test"), resolved);
            let question = Question::Proof {
                flow: FlowKey {
                    core: 0,
                    slot: 0,
                    generation: 0,
                },
                domain: name("fabrikam.test"),
                names: names(certificate),
                certificate: Arc::default(),
                discovered: false,
                providers: Arc::default(),
                providers_only: false,
                identity: Identity::Certified,
            };
            authority.handle_question(start, question);
            let Some(Output::Answer(_, answer)) = authority.poll_output() else {
                panic!("no answer");
            };
            let refusal = answer.outcome.expect_err("not proven");
            assert_eq!(refusal.label(), label);
            assert_eq!(refusal.status(), Refusal::DomainDenied.status());
            assert_eq!(
                refusal.public_diagnostic(),
                Refusal::DomainDenied.public_diagnostic(),
                "outsiders are told no more"
            );
        }
    }

    #[test]
    fn a_full_table_forgets_what_goes_stale_first() {
        let (mut authority, start) = (Authority::new(Rules::default(), 5061, 2, 2), now());
        for (at, domain) in ["a.test", "b.test", "c.test"].into_iter().enumerate() {
            let later = start.plus(Duration::from_secs(at as u64));
            authority.handle_srv(later, &name(domain), records(&format!("sip.{domain}:5061")));
        }
        assert_eq!(authority.len(), (2, 0));
        authority.handle_question(start, target("a.test"));
        assert_eq!(drain(&mut authority), ["resolve a.test"]);
    }
}

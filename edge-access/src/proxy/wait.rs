//! Messages that cannot go on before something is known: a partner's proof, its address, a connection to it.
//!
//! What waits is kept as it came and is looked at again from the start. Each wait has a bound, and who
//! comes too late is told so.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::domain_rule::DomainRule;
use edge_common::host_name::{HostName, HostPort};
use edge_common::partner_proof::{self, Verdict};
use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;
use edge_common::time::Now;

use super::dispatch::Target;
use super::federation::{Answer, Identity, Question};
use super::flow::{Partner, PartnerKind, Peer, Proof};
use super::meter::Excess;
use super::refusal::{Drop, Refusal};
use super::request::Request;
use super::token::FlowKey;
use super::transaction::{TransactionId, bit};
use super::{Event, Output, Proxy, Stop, via};

/// What a message waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wait {
    /// Whether that connection speaks for that domain.
    Proof(FlowKey, HostName),
    /// Which edge speaks for that domain.
    Target(HostName),
    /// A connection to that edge.
    Link(HostPort),
}

impl Wait {
    const fn patience(&self) -> Duration {
        match self {
            Self::Proof(..) | Self::Target(_) => DOMAIN_WAIT_MAX,
            Self::Link(_) => LINK_WAIT_MAX,
        }
    }
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Held {
    flow: FlowKey,
    bytes: Vec<u8>,
    /// It was sent before, and waits for its next target.
    again: Option<TransactionId>,
}

/// Everything that waits for one thing, and until when.
#[derive(Debug)]
pub(super) struct Waiting {
    until: Instant,
    held: Vec<Held>,
}

/// A connection to a partner's edge.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    /// It is being opened.
    Dialling,
    /// It stands.
    Up(FlowKey),
    /// It could not be opened, and is not tried again before that time.
    Failed(Refusal, Instant),
}

/// Connections beside the first one to the same edge of a partner.
#[derive(Debug)]
pub(super) struct Lanes {
    more: Vec<FlowKey>,
    /// One more is being opened, or was not to be had; not again before then.
    dialling: Option<Instant>,
    /// Requests since the second began.
    sent: usize,
    second: Instant,
}

impl Lanes {
    const fn new(now: Now) -> Self {
        Self {
            more: Vec::new(),
            dialling: None,
            sent: 0,
            second: now.mono,
        }
    }

    /// Counts a request; says whether each connection has had many within this second.
    fn is_busy(&mut self, now: Now) -> bool {
        if now.mono.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now.mono;
            self.sent = 0;
        }
        self.sent += 1;
        self.sent > LANE_BUSY * (self.more.len() + 1)
    }
}

impl Link {
    pub(super) fn is(self, key: FlowKey) -> bool {
        matches!(self, Self::Up(own) if own == key)
    }
}

impl Proxy {
    /// The owner of the verdicts has answered.
    pub fn handle_answer(&mut self, now: Now, question: Question, answer: Answer) {
        match question {
            Question::Proof {
                flow,
                domain,
                discovered,
                names,
                certificate,
                identity,
                ..
            } => {
                let wait = Wait::Proof(flow, domain.clone());
                if let Some(partner) = self.partner_mut(flow) {
                    partner.meter = answer.meter.or_else(|| partner.meter.take());
                    partner.curb.judged(answer.outcome.is_ok());
                }
                if let (Identity::CalledBack, Some(partner)) = (identity, self.partner_mut(flow)) {
                    partner.called_back(names, certificate);
                    if answer.outcome.is_ok() && self.listed_edge(&domain).is_some() {
                        // Its name decides from now on, as if it had shown it at once.
                        return self.release(now, &wait);
                    }
                }
                let rules = &self.settings.federation;
                let proof = answer.outcome.map(|mut proven| {
                    let target = proven.swap_remove(0);
                    let kind = PartnerKind::by_dns(rules, &target.host, discovered);
                    Proof { target, kind }
                });
                let refusal = self.judge(now, flow, domain, proof, answer.until).err();
                match refusal {
                    None => self.release(now, &wait),
                    Some(refusal) => self.refuse_held(now, &wait, refusal),
                }
            }
            Question::Target { domain, .. } => {
                let wait = Wait::Target(domain.clone());
                match answer.outcome {
                    Err(refusal) => self.refuse_held(now, &wait, refusal),
                    Ok(_) => {
                        self.remember_target(now, domain, answer);
                        self.release(now, &wait);
                    }
                }
            }
        }
    }

    /// A connection that we opened stands. A second one to the same edge is a lane beside the first.
    pub(super) fn link_up(&mut self, now: Now, target: HostPort, key: FlowKey) {
        match self.links.get(&target) {
            Some(Link::Up(_)) => {
                let lanes = self.lanes.entry(target).or_insert_with(|| Lanes::new(now));
                lanes.dialling = None;
                lanes.more.push(key);
            }
            Some(Link::Dialling | Link::Failed(..)) | None => {
                self.links.insert(target.clone(), Link::Up(key));
                self.release(now, &Wait::Link(target));
            }
        }
    }

    /// A connection that we opened is gone; one of the lanes beside it takes its place.
    pub(super) fn link_down(&mut self, target: &HostPort, key: FlowKey) {
        let lanes = self.lanes.get_mut(target);
        if self.links.get(target).is_some_and(|link| link.is(key)) {
            match lanes.and_then(|lanes| lanes.more.pop()) {
                Some(other) => {
                    self.links.insert(target.clone(), Link::Up(other));
                }
                None => {
                    self.links.remove(target);
                    self.lanes.remove(target);
                }
            }
        } else if let Some(lanes) = lanes {
            lanes.more.retain(|lane| *lane != key);
        }
    }

    /// Which of the connections to an edge a request takes: one dialog stays on one of them, so that its messages do
    /// not overtake each other. When those that stand have much to do, one more is opened beside them.
    pub(super) fn lane(
        &mut self,
        now: Now,
        target: &HostPort,
        first: FlowKey,
        call_id: &[u8],
    ) -> FlowKey {
        let most = self.settings.federation.lanes;
        if most <= 1 || !self.links.get(target).is_some_and(|link| link.is(first)) {
            return first;
        }
        let lanes = self
            .lanes
            .entry(target.clone())
            .or_insert_with(|| Lanes::new(now));
        let dials = lanes.is_busy(now) && lanes.more.len() + 1 < most;
        let number = via::egress_mark(&[call_id]) as usize % (lanes.more.len() + 1);
        let lane = number.checked_sub(1).and_then(|at| lanes.more.get(at));
        let lane = lane.copied().unwrap_or(first);
        if dials && lanes.dialling.is_none_or(|until| until <= now.mono) {
            lanes.dialling = Some(now.mono + LINK_WAIT_MAX);
            self.push(Output::Dial(target.clone()));
        }
        lane
    }

    /// A partner's edge could not be reached; it is left alone for a while. What waited for it may
    /// find another edge of the same domain.
    pub fn handle_dial_failed(&mut self, now: Now, target: &HostPort, refusal: Refusal) {
        if matches!(self.links.get(target), Some(Link::Up(_))) {
            // One more beside those that stand was wanted; they go on.
            return;
        }
        let still_fails =
            |link: &Link| !matches!(link, Link::Failed(_, until) if *until <= now.mono);
        if self.links.len() >= LINKS_MAX {
            self.links.retain(|_, link| still_fails(link));
        }
        if self.links.len() >= LINKS_MAX && !self.links.contains_key(target) {
            self.forget_failed();
        }
        self.links.insert(
            target.clone(),
            Link::Failed(refusal, now.mono + REDIAL_AFTER),
        );
        self.release(now, &Wait::Link(target.clone()));
    }

    /// Makes room for one more edge: of those that failed the one goes that may be tried again first. Those that
    /// stand or are dialled are no more than the connections and the waits that there may be.
    fn forget_failed(&mut self) {
        let failed = self.links.iter().filter_map(|(target, link)| match link {
            Link::Failed(_, until) => Some((*until, target)),
            Link::Dialling | Link::Up(_) => None,
        });
        if let Some(target) = failed.min().map(|(_, target)| target.clone()) {
            self.links.remove(&target);
        }
    }

    /// How that connection proves `domain`, or what has to be waited for.
    pub(super) fn prove(
        &mut self,
        now: Now,
        key: FlowKey,
        domain: HostName,
    ) -> Result<Proof, Stop> {
        let Some(partner) = self.partner_mut(key) else {
            return Err(Refusal::DomainDenied.into());
        };
        let known = partner.verdict(&domain, now.mono).cloned();
        let names = Arc::clone(&partner.names);
        let shown = partner.shown.clone();
        let rules = &self.settings.federation;
        let listed =
            |target: HostPort, kind| match partner_proof::prove_listed(&target.host, &names) {
                Verdict::Proven(_) => Ok(Proof { target, kind }),
                Verdict::Refused(refusal) => Err(Refusal::Unproven(refusal.label())),
            };
        let verdict = match (rules.of_domain(&domain), &known) {
            (
                DomainRule::Automatic | DomainRule::Discovered | DomainRule::InPublicCloud,
                Some(known),
            ) => return known.clone().map_err(Stop::Refuse),
            (DomainRule::Automatic | DomainRule::Discovered | DomainRule::InPublicCloud, None) => {
                return Err(Wait::Proof(key, domain).into());
            }
            (
                DomainRule::Direct(target)
                | DomainRule::Provider(target)
                | DomainRule::DefaultRoute(target),
                _,
            ) => {
                if shown.is_some_and(|shown| shown.names.proves_host(&target.host)) {
                    return Err(match known {
                        Some(Err(refusal)) => Stop::Refuse(refusal),
                        Some(Ok(_)) | None => Wait::Proof(key, domain).into(),
                    });
                }
                let kind = PartnerKind::of_edge(rules, &target.host);
                listed(target, kind)
            }
            (DomainRule::Blocked | DomainRule::Unlisted, _) => Err(Refusal::DomainDenied),
        };
        if known.as_ref() == Some(&verdict) {
            return verdict.map_err(Stop::Refuse);
        }
        self.judge(now, key, domain, verdict, now.mono + JUDGED_FOR)
            .map_err(Stop::Refuse)
    }

    /// Counts a request of a discovered partner, and refuses it when that sends too much.
    pub(super) fn meter(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        in_dialog: bool,
        kind: PartnerKind,
    ) -> Result<(), Refusal> {
        if kind != PartnerKind::Discovered {
            return Ok(());
        }
        let Some(meter) = self
            .partner_mut(key)
            .and_then(|partner| partner.meter.as_ref())
        else {
            return Err(Refusal::PartnerBusy);
        };
        let uri = &request.uri;
        let address = (!in_dialog).then(|| [uri.user.unwrap_or_default(), uri.hostport]);
        meter
            .admit(now.mono, address)
            .map_err(|excess| match excess {
                Excess::Blocked => Refusal::PartnerBlocked,
                Excess::Rate => Refusal::PartnerRate,
                Excess::Contacts => Refusal::PartnerContacts,
            })
    }

    /// Writes a verdict down with the connection that it is about, and tells it when it is news.
    ///
    /// One connection is of one type of federation: who was let in as a provider does not speak as a discovered
    /// partner on it.
    fn judge(
        &mut self,
        now: Now,
        key: FlowKey,
        domain: HostName,
        verdict: Result<Proof, Refusal>,
        until: Instant,
    ) -> Result<Proof, Refusal> {
        let Some(partner) = self.partner_mut(key) else {
            return verdict;
        };
        let class = partner.class();
        let verdict = verdict.and_then(|proof| match class {
            Some(class) if class != proof.kind.class() => Err(Refusal::TypeMismatch),
            Some(_) | None => Ok(proof),
        });
        let is_news = partner.said(&domain) != Some(&verdict);
        partner.remember(domain.clone(), verdict.clone(), until);
        if is_news {
            let (names, certificate) = (
                Arc::clone(partner.shown_names()),
                Arc::clone(&partner.certificate),
            );
            let is_one_of_many = verdict.is_err() && !partner.curb.may_tell(now);
            self.event(Event::Verdict {
                domain,
                names,
                certificate,
                outcome: verdict.clone(),
                is_one_of_many,
            });
        }
        verdict
    }

    /// The connection to an edge of `domain`, or what has to be waited for: the first of its edges
    /// that has not just failed.
    pub(super) fn link_to(
        &mut self,
        now: Now,
        domain: HostName,
    ) -> Result<(HostPort, Target), Stop> {
        let targets = match self.targets.get(&domain) {
            Some(answer) if answer.until > now.mono => answer.outcome.clone()?,
            Some(_) | None => return Err(Wait::Target(domain).into()),
        };
        let mut stop = Stop::Refuse(Refusal::SrvUnresolved);
        let candidates = (0..)
            .zip(&targets)
            .fold(0, |all, (rank, _)| all | bit(rank));
        for (rank, edge) in (0..).zip(targets) {
            if self.was_tried(rank) {
                continue;
            }
            match self.link(now, &edge) {
                Ok(flow) => {
                    let target = Target {
                        flow,
                        rank,
                        candidates,
                    };
                    return Ok((edge, target));
                }
                Err(wait @ Stop::Wait(_)) => return Err(wait),
                Err(refused) => stop = refused,
            }
        }
        Err(stop)
    }

    /// The connection to a partner's edge, or what has to be waited for.
    pub(super) fn link(&self, now: Now, target: &HostPort) -> Result<FlowKey, Stop> {
        match self.links.get(target) {
            Some(Link::Up(key)) => Ok(*key),
            Some(Link::Failed(refusal, until)) if *until > now.mono => Err((*refusal).into()),
            Some(Link::Failed(..) | Link::Dialling) | None => {
                Err(Wait::Link(target.clone()).into())
            }
        }
    }

    /// Keeps a message until `wait` is over; the first to wait sets things going.
    pub(super) fn hold(&mut self, now: Now, flow: FlowKey, message: &Message<'_>, wait: Wait) {
        let held = Held {
            flow,
            bytes: message.bytes().to_vec(),
            again: self.again,
        };
        let bytes = message.bytes().len();
        if self.held_bytes + bytes > HELD_BYTES_MAX {
            self.refuse(now, flow, message, self.again, Refusal::PartnerBusy);
            return;
        }
        let room = self.waits.len() < WAITS_MAX;
        if let Wait::Proof(key, _) = &wait
            && room
            && !self.waits.contains_key(&wait)
            && let Some(partner) = self.partner_mut(*key)
            && !partner.curb.begin(now)
        {
            self.refuse(now, flow, message, self.again, Refusal::ProofRate);
            return;
        }
        match self.waits.get_mut(&wait) {
            Some(waiting) if waiting.held.len() < self.settings.federation.pending => {
                waiting.held.push(held);
                self.held_bytes += bytes;
            }
            None if room => {
                let until = now.mono + wait.patience();
                self.held_bytes += bytes;
                self.start(&wait);
                self.expiries.insert((until, wait.clone()));
                self.waits.insert(
                    wait,
                    Waiting {
                        until,
                        held: vec![held],
                    },
                );
            }
            Some(_) | None => self.refuse(now, flow, message, self.again, Refusal::PartnerBusy),
        }
    }

    fn refuse(
        &mut self,
        now: Now,
        flow: FlowKey,
        message: &Message<'_>,
        again: Option<TransactionId>,
        refusal: Refusal,
    ) {
        match again {
            Some(id) => self.give_up(now, id, refusal),
            None => self.answer(flow, message, refusal),
        }
    }

    /// Refuses what has waited too long; the answer that it waits for may have been lost on its way.
    pub(super) fn expire_waits(&mut self, now: Now) {
        while self
            .expiries
            .first()
            .is_some_and(|(until, _)| *until <= now.mono)
            && let Some((_, wait)) = self.expiries.pop_first()
        {
            match &wait {
                Wait::Link(target) => {
                    let target = target.clone();
                    self.handle_dial_failed(now, &target, Refusal::PartnerUnreachable);
                }
                Wait::Proof(..) | Wait::Target(_) => {
                    self.refuse_held(now, &wait, Refusal::PartnerTimeout);
                }
            }
        }
    }

    fn start(&mut self, wait: &Wait) {
        let output = match wait {
            Wait::Proof(flow, domain) => {
                let Some(partner) = self.partner_mut(*flow) else {
                    return;
                };
                let (names, certificate) =
                    (Arc::clone(&partner.names), Arc::clone(&partner.certificate));
                let shown = partner.shown.clone();
                let listed = self.listed_edge(domain);
                let rules = &self.settings.federation;
                let rule = rules.of_domain(domain);
                let identity = shown.map_or(Identity::Certified, |shown| Identity::Shown {
                    shown,
                    listed,
                });
                Output::Ask(Question::Proof {
                    flow: *flow,
                    domain: domain.clone(),
                    names,
                    certificate,
                    discovered: rule == DomainRule::Discovered,
                    providers: Arc::clone(&rules.provider_edges),
                    providers_only: rule == DomainRule::InPublicCloud,
                    identity,
                })
            }
            Wait::Target(domain) => {
                let rules = &self.settings.federation;
                Output::Ask(Question::Target {
                    core: self.core,
                    domain: domain.clone(),
                    providers: Arc::clone(&rules.provider_edges),
                    providers_only: rules.of_domain(domain) == DomainRule::InPublicCloud,
                })
            }
            Wait::Link(target) => {
                self.links.insert(target.clone(), Link::Dialling);
                Output::Dial(target.clone())
            }
        };
        self.push(output);
    }

    /// The edge that an administrator listed for that domain.
    fn listed_edge(&self, domain: &HostName) -> Option<HostPort> {
        match self.settings.federation.of_domain(domain) {
            DomainRule::Direct(target)
            | DomainRule::Provider(target)
            | DomainRule::DefaultRoute(target) => Some(target),
            DomainRule::Automatic
            | DomainRule::Discovered
            | DomainRule::InPublicCloud
            | DomainRule::Blocked
            | DomainRule::Unlisted => None,
        }
    }

    /// Looks again at everything that waited.
    pub(super) fn release(&mut self, now: Now, wait: &Wait) {
        for held in self.take_held(wait) {
            if let Some(id) = held.again {
                self.resume(now, id);
            } else if self.flows.get(held.flow).is_some() {
                self.receive(now, held.flow, &held.bytes);
            } else {
                self.event(Event::Dropped(Drop::SenderGone));
            }
        }
    }

    fn refuse_held(&mut self, now: Now, wait: &Wait, refusal: Refusal) {
        for held in self.take_held(wait) {
            let mut index = Index::new(self.settings.limits.headers);
            if let Ok(message) = Message::parse(&held.bytes, &mut index) {
                self.refuse(now, held.flow, &message, held.again, refusal);
            }
        }
    }

    fn take_held(&mut self, wait: &Wait) -> Vec<Held> {
        let waiting = self.waits.remove(wait);
        if waiting.is_some()
            && let Wait::Proof(key, _) = wait
            && let Some(partner) = self.partner_mut(*key)
        {
            partner.curb.end();
        }
        if let Some(waiting) = &waiting {
            self.expiries.remove(&(waiting.until, wait.clone()));
        }
        let held = waiting.map(|waiting| waiting.held).unwrap_or_default();
        self.held_bytes -= held.iter().map(|held| held.bytes.len()).sum::<usize>();
        held
    }

    fn remember_target(&mut self, now: Now, domain: HostName, answer: Answer) {
        if self.targets.len() >= TARGETS_MAX {
            self.targets.retain(|_, known| known.until > now.mono);
        }
        if self.targets.len() >= TARGETS_MAX {
            self.targets.pop_first();
        }
        self.targets.insert(domain, answer);
    }

    fn partner_mut(&mut self, key: FlowKey) -> Option<&mut Partner> {
        match &mut self.flows.get_mut(key)?.peer {
            Peer::Partner(partner) => Some(partner),
            Peer::Client(_) | Peer::Inside { .. } => None,
        }
    }
}

/// Requests a second on one connection before another is opened beside it.
const LANE_BUSY: usize = 20;
/// Things that are waited for at once, on one core.
const WAITS_MAX: usize = 1024;
/// How long a verdict of the configuration is not told again for the same connection.
const JUDGED_FOR: Duration = Duration::from_secs(60);
/// A domain's record comes in this time, or its messages are told to come again.
const DOMAIN_WAIT_MAX: Duration = Duration::from_secs(5);
/// DNS, TCP and TLS have 5 s each.
const LINK_WAIT_MAX: Duration = Duration::from_secs(15);
/// Bytes of all messages that wait, on one core: they are few, but each may be as long as a server's.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Domains whose edge is remembered, on one core; the owner of the verdicts has the others.
const TARGETS_MAX: usize = 256;
/// Edges of partners that are remembered before those are forgotten that failed long ago; the waits
/// bound how many can be added in the meantime.
const LINKS_MAX: usize = 1024;
/// A partner's edge that could not be reached is not dialled again sooner.
const REDIAL_AFTER: Duration = Duration::from_secs(5);

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
use super::federation::{Answer, Question};
use super::flow::{Partner, PartnerKind, Peer, Proof};
use super::meter::Excess;
use super::refusal::{Drop, Refusal};
use super::request::Request;
use super::token::FlowKey;
use super::transaction::{TransactionId, bit};
use super::{Event, Output, Proxy, Stop};

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
                ..
            } => {
                let wait = Wait::Proof(flow, domain.clone());
                if let (Some(meter), Some(partner)) = (answer.meter, self.partner_mut(flow)) {
                    partner.meter = Some(meter);
                }
                let proof = answer.outcome.map(|mut proven| Proof {
                    target: proven.swap_remove(0),
                    kind: if discovered {
                        PartnerKind::Discovered
                    } else {
                        PartnerKind::Automatic
                    },
                });
                let refusal = proof.as_ref().err().copied();
                self.judge(flow, domain, proof, answer.until);
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

    /// A partner's edge could not be reached; it is left alone for a while. What waited for it may
    /// find another edge of the same domain.
    pub fn handle_dial_failed(&mut self, now: Now, target: &HostPort, refusal: Refusal) {
        let still_fails =
            |link: &Link| !matches!(link, Link::Failed(_, until) if *until <= now.mono);
        if self.links.len() >= LINKS_MAX {
            self.links.retain(|_, link| still_fails(link));
        }
        self.links.insert(
            target.clone(),
            Link::Failed(refusal, now.mono + REDIAL_AFTER),
        );
        self.release(now, &Wait::Link(target.clone()));
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
        let verdict = match (self.settings.federation.of_domain(&domain), &known) {
            (DomainRule::Automatic | DomainRule::Discovered, Some(known)) => {
                return known.clone().map_err(Stop::Refuse);
            }
            (DomainRule::Automatic | DomainRule::Discovered, None) => {
                return Err(Wait::Proof(key, domain).into());
            }
            (DomainRule::Direct(target), _) => {
                match partner_proof::prove_listed(&target.host, &names) {
                    Verdict::Proven(_) => Ok(Proof {
                        target,
                        kind: PartnerKind::Direct,
                    }),
                    Verdict::Refused(refusal) => Err(Refusal::Unproven(refusal.label())),
                }
            }
            (DomainRule::Blocked | DomainRule::Unlisted, _) => Err(Refusal::DomainDenied),
        };
        // The configuration decides at once; it is told once for each connection.
        if known.as_ref() != Some(&verdict) {
            self.judge(key, domain, verdict.clone(), now.mono + JUDGED_FOR);
        }
        verdict.map_err(Stop::Refuse)
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

    /// Writes a verdict down with the connection that it is about, and tells it.
    fn judge(
        &mut self,
        key: FlowKey,
        domain: HostName,
        verdict: Result<Proof, Refusal>,
        until: Instant,
    ) {
        let Some(partner) = self.partner_mut(key) else {
            return;
        };
        partner.remember(domain.clone(), verdict.clone(), until);
        let names = Arc::clone(&partner.names);
        self.event(Event::Verdict {
            domain,
            names,
            outcome: verdict,
        });
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
        match self.waits.get_mut(&wait) {
            Some(waiting) if waiting.held.len() < self.settings.federation.pending => {
                waiting.held.push(held);
                self.held_bytes += bytes;
            }
            None if room => {
                let until = now.mono + WAIT_MAX;
                self.held_bytes += bytes;
                self.start(&wait);
                self.expiries.push_back((until, wait.clone()));
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
        while let Some((until, wait)) = self.expiries.pop_front_if(|(until, _)| *until <= now.mono)
        {
            if self
                .waits
                .get(&wait)
                .is_none_or(|waiting| waiting.until != until)
            {
                continue;
            }
            match &wait {
                Wait::Link(target) => {
                    let target = target.clone();
                    self.handle_dial_failed(now, &target, Refusal::PartnerUnreachable);
                }
                Wait::Proof(..) | Wait::Target(_) => {
                    self.refuse_held(now, &wait, Refusal::SrvUnresolved);
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
                let rule = self.settings.federation.of_domain(domain);
                Output::Ask(Question::Proof {
                    flow: *flow,
                    domain: domain.clone(),
                    names,
                    certificate,
                    discovered: rule == DomainRule::Discovered,
                })
            }
            Wait::Target(domain) => Output::Ask(Question::Target {
                core: self.core,
                domain: domain.clone(),
            }),
            Wait::Link(target) => {
                self.links.insert(target.clone(), Link::Dialling);
                Output::Dial(target.clone())
            }
        };
        self.push(output);
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

/// Things that are waited for at once, on one core.
const WAITS_MAX: usize = 1024;
/// How long a verdict of the configuration is not told again for the same connection.
const JUDGED_FOR: Duration = Duration::from_secs(60);
/// DNS, TCP and TLS have 5 s each.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Bytes of all messages that wait, on one core: they are few, but each may be as long as a server's.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Domains whose edge is remembered, on one core; the owner of the verdicts has the others.
const TARGETS_MAX: usize = 256;
/// Edges of partners that are remembered before those are forgotten that failed long ago; the waits
/// bound how many can be added in the meantime.
const LINKS_MAX: usize = 1024;
/// A partner's edge that could not be reached is not dialled again sooner.
const REDIAL_AFTER: Duration = Duration::from_secs(5);

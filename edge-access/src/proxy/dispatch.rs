//! Requests: who may send them and where they go.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::domain_rule::DomainRule;
use edge_common::host_name::{HostName, HostPort};
use edge_common::sip::header::Name;
use edge_common::sip::header::via::Via;
use edge_common::sip::message::Message;
use edge_common::time::Now;

use super::flow::{PartnerKind, Peer, Standing};
use super::forward::{INSIDE_MARK, Way, flow_mark, host_mark};
use super::policy;
use super::refusal::{Drop, Refusal};
use super::request::Request;
use super::route::{self, Destination, Routes};
use super::token::{FlowKey, FlowRef, Realm, RouteToken};
use super::transaction::{Matched, bit};
use super::trust::{self, Source};
use super::wait::Wait;
use super::{CloseReason, Event, Proxy, Stop, answer};

impl Proxy {
    pub(super) fn request(&mut self, now: Now, key: FlowKey, message: &Message<'_>) {
        if !self.spend(key) {
            self.close(key, CloseReason::NewcomerBudget);
            return;
        }
        match self.take_in(now, key, message) {
            Ok(()) => {}
            Err(Stop::Refuse(refusal)) => self.answer(key, message, refusal),
            Err(Stop::Wait(wait)) => self.hold(now, key, message, wait),
        }
    }

    /// A request that came over a connection: what belongs to a transaction under way ends here.
    fn take_in(&mut self, now: Now, key: FlowKey, message: &Message<'_>) -> Result<(), Stop> {
        let request = Request::read(*message)?;
        let hash = self.hash(&request);
        if self.matched(now, key, &request, hash) == Matched::Done {
            return Ok(());
        }
        if answer::is_ack_of_ours(&request) {
            self.event(Event::Dropped(Drop::AckOfRefusal));
            return Ok(());
        }
        self.route(now, key, &request, hash)
    }

    fn hash(&self, request: &Request<'_>) -> u64 {
        request
            .marked(b"")
            .transaction(&request.via, request.method, &self.table_key)
    }

    /// Finds out where a request goes, and sends it there. `hash` is that of its transaction.
    pub(super) fn route(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        hash: u64,
    ) -> Result<(), Stop> {
        let Some(realm) = self.flows.get(key).map(|flow| flow.peer.realm()) else {
            return Ok(());
        };
        policy::admit(request)?;
        let mut routes = Routes::read(request, &self.settings, &self.tokens, now.unix)?;
        routes.transaction = hash;
        self.refuse_loop(request, &routes, realm)?;
        match realm {
            Realm::Client => self.client_request(now, key, request, &routes),
            Realm::Partner => self.partner_request(now, key, request, &routes),
            Realm::Inside => self.inside_request(now, key, request, &routes),
        }
    }

    fn client_request(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
    ) -> Result<(), Stop> {
        // A client whose connection broke still has the old one in its route set. That leads inside
        // all the same: only requests towards clients are steered by the token.
        if matches!(routes.token, Some(RouteToken::Partner(_))) {
            return Err(Refusal::RouteInvalid.into());
        }
        if self.answer_own_options(key, request) {
            return Ok(());
        }
        policy::admit_client(&self.settings, request, routes)?;
        if self.again.is_none() && self.has_too_much_in_flight(key, request) {
            return Err(Refusal::Newcomer.into());
        }
        self.admit_work(now, key, request, routes)?;
        let target = self.next_hop(request, routes)?;
        let outside = RouteToken::Client(self.flow_ref(key));
        let way = Way {
            egress: target.flow,
            link: None,
            outbound: false,
            realm: Realm::Inside,
            mark: INSIDE_MARK,
            outside: &outside,
            source: Some(Source::Client),
            rank: target.rank,
            candidates: target.candidates,
            branch: None,
            hide: false,
        };
        self.forward(now, key, request, routes, &way)?;
        Ok(())
    }

    fn partner_request(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
    ) -> Result<(), Stop> {
        if !self.is_token_of_partner(key, routes.token.as_ref()) {
            return Err(Refusal::RouteInvalid.into());
        }
        if !self.has_to_be_called_back(key) && self.answer_own_options(key, request) {
            return Ok(());
        }
        let errand = policy::admit_partner(&self.settings, request, routes)?;
        let proof = self.prove(now, key, errand.from)?;
        if self.again.is_none() {
            self.meter(now, key, request, routes.in_dialog, proof.kind)?;
        }
        self.admit_work(now, key, request, routes)?;
        let rules = &self.settings.federation;
        let rule = proof
            .kind
            .verification(rules, &proof.target.host, request.from.domain);
        let source = Source::Partner {
            kind: proof.kind,
            host: &proof.target.host,
            verified: trust::is_verified(&request.message, rule),
        };
        if let Some(edge) = errand.transit {
            if proof.kind != PartnerKind::Direct {
                return Err(Refusal::RelayDenied.into());
            }
            let target = Target::only(self.link(now, &edge)?);
            return self.to_partner(now, key, request, routes, target, edge, Some(source));
        }
        let target = self.next_hop(request, routes)?;
        let outside = RouteToken::Partner(proof.target.clone());
        let way = Way {
            egress: target.flow,
            link: None,
            outbound: false,
            realm: Realm::Inside,
            mark: INSIDE_MARK,
            outside: &outside,
            source: Some(source),
            rank: target.rank,
            candidates: target.candidates,
            branch: None,
            hide: false,
        };
        self.forward(now, key, request, routes, &way)?;
        Ok(())
    }

    fn inside_request(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
    ) -> Result<(), Stop> {
        let destination = route::destination(
            request,
            routes.token.clone(),
            &self.settings,
            &self.tokens,
            now.unix,
        )?;
        match destination {
            Destination::Us if self.answer_own_options(key, request) => Ok(()),
            Destination::Us => Err(Refusal::Unroutable.into()),
            Destination::Token(RouteToken::Client(to)) => {
                self.towards_client(now, key, request, routes, to)
            }
            Destination::Token(RouteToken::Partner(target)) => {
                self.towards_partner(now, key, request, routes, target)
            }
            Destination::Domain(domain) => self.towards_domain(now, key, request, routes, domain),
        }
    }

    fn towards_client(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
        to: FlowRef,
    ) -> Result<(), Stop> {
        let link = self.is_of_another_member(to).then_some(to);
        let ours = self.flow_ref(to.key) == to;
        let here = to.key.core == self.core;
        if link.is_none() && (!ours || (here && !self.is_client(to.key))) {
            return Err(Refusal::gone(routes.outbound).into());
        }
        let way = Way {
            egress: link.map_or(to.key, |_| FlowKey::ELSEWHERE),
            link,
            outbound: routes.outbound,
            realm: Realm::Client,
            mark: flow_mark(to),
            outside: &RouteToken::Client(to),
            source: None,
            rank: 0,
            candidates: 1,
            branch: None,
            hide: false,
        };
        self.forward(now, key, request, routes, &way)?;
        Ok(())
    }

    /// A request whose only direction is another organisation's domain.
    fn towards_domain(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
        domain: HostName,
    ) -> Result<(), Stop> {
        policy::admit_federated_method(&self.settings, request)?;
        let (edge, target) = match self.settings.federation.of_domain(&domain) {
            DomainRule::Blocked | DomainRule::Unlisted => return Err(Refusal::Unroutable.into()),
            DomainRule::Direct(edge)
            | DomainRule::Provider(edge)
            | DomainRule::DefaultRoute(edge) => {
                let flow = self.link(now, &edge)?;
                (edge, Target::only(flow))
            }
            DomainRule::Automatic | DomainRule::Discovered | DomainRule::InPublicCloud => {
                self.link_to(now, domain)?
            }
        };
        self.to_partner(now, key, request, routes, target, edge, None)
    }

    /// A request in a dialog: its route names the partner's edge.
    fn towards_partner(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
        target: HostPort,
    ) -> Result<(), Stop> {
        policy::admit_federated_method(&self.settings, request)?;
        let egress = Target::only(self.link(now, &target)?);
        self.to_partner(now, key, request, routes, egress, target, None)
    }

    #[expect(
        clippy::wrong_self_convention,
        clippy::too_many_arguments,
        reason = "the request goes to the partner; nothing is converted, and all of it is needed"
    )]
    fn to_partner(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
        target: Target,
        edge: HostPort,
        source: Option<Source<'_>>,
    ) -> Result<(), Stop> {
        let flow = self.lane(now, &edge, target.flow, request.call_id);
        let target = Target { flow, ..target };
        let mark = host_mark(&edge.host);
        // What comes from another partner shows nothing of the inside.
        let hide = source.is_none() && self.hides_from_edge(&edge.host, request.to.domain);
        let way = Way {
            egress: target.flow,
            link: None,
            outbound: false,
            realm: Realm::Partner,
            mark,
            outside: &RouteToken::Partner(edge),
            source,
            rank: target.rank,
            candidates: target.candidates,
            branch: None,
            hide,
        };
        self.forward(now, key, request, routes, &way)?;
        Ok(())
    }

    /// The connection to the Director: the first that this request was not sent over, one that works rather
    /// than one that is suspect. While a single edge drains, what would start something new is told to come back;
    /// the members of an array go on until their clients have left.
    fn next_hop(&self, request: &Request<'_>, routes: &Routes<'_>) -> Result<Target, Refusal> {
        let starts_anew = self.draining
            && !self.settings.is_balanced
            && !routes.in_dialog
            && request.may_make_dialog();
        if starts_anew && self.again.is_none() {
            return Err(Refusal::Draining);
        }
        let suspect = |flow: FlowKey| self.flows.get(flow).is_none_or(|flow| flow.timeouts > 0);
        let candidates = self
            .next_hops
            .iter()
            .fold(0, |all, hop| all | bit(hop.rank));
        self.next_hops
            .iter()
            .filter(|hop| !self.was_tried(hop.rank))
            .min_by_key(|hop| (suspect(hop.flow), hop.rank))
            .map(|hop| Target {
                flow: hop.flow,
                rank: hop.rank,
                candidates,
            })
            .ok_or(Refusal::NextHopDown)
    }

    /// Whether the request that is being sent anew was sent to the target of that rank before.
    pub(super) fn was_tried(&self, rank: u8) -> bool {
        self.again
            .and_then(|id| self.transactions.get(id))
            .is_some_and(|entry| entry.tried & bit(rank) != 0)
    }

    /// Who is nobody yet is not even answered.
    fn has_to_be_called_back(&self, key: FlowKey) -> bool {
        matches!(
            self.flows.get(key).map(|flow| &flow.peer),
            Some(Peer::Partner(partner)) if partner.shown.is_some()
        )
    }

    /// A partner may only use routes that lead back to itself.
    fn is_token_of_partner(&self, key: FlowKey, token: Option<&RouteToken>) -> bool {
        match (token, self.flows.get(key).map(|flow| &flow.peer)) {
            (None, _) => true,
            (Some(RouteToken::Partner(target)), Some(Peer::Partner(partner))) => {
                partner.names.proves(&target.host)
            }
            (Some(_), _) => false,
        }
    }

    fn refuse_loop(
        &self,
        request: &Request<'_>,
        routes: &Routes<'_>,
        realm: Realm,
    ) -> Result<(), Refusal> {
        if request.via_count == 1 {
            return Ok(());
        }
        let mark = request.marked(routes.next).loop_mark(realm);
        let came_by = request
            .message
            .list(Name::Via)
            .filter_map(|element| Via::parse(element.text()).ok()?.branch())
            .filter_map(|branch| self.tokens.open_branch(branch))
            .any(|token| token.loop_mark == mark);
        if came_by { Err(Refusal::Loop) } else { Ok(()) }
    }

    /// Counts a request against the budget of a client that nobody vouched for; `false` when it is
    /// used up. What is refused here costs as much as what goes on.
    pub(super) fn spend(&mut self, key: FlowKey) -> bool {
        let peer = self.flows.get_mut(key).map(|flow| &mut flow.peer);
        let Some(Peer::Client(Standing::Newcomer { requests, .. })) = peer else {
            return true;
        };
        *requests += 1;
        *requests <= self.settings.clients.newcomer_requests
    }

    fn has_too_much_in_flight(&self, key: FlowKey, request: &Request<'_>) -> bool {
        match self.flows.get(key).map(|flow| &flow.peer) {
            Some(Peer::Client(Standing::Newcomer { in_flight, .. })) => {
                request.is_answered() && *in_flight >= self.settings.clients.newcomer_in_flight
            }
            Some(Peer::Client(Standing::Promoted) | Peer::Inside { .. } | Peer::Partner(_))
            | None => false,
        }
    }
}

/// One of the targets that a request can go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The connection.
    pub(super) flow: FlowKey,
    /// Its place among them.
    pub(super) rank: u8,
    /// The places of all, as bits.
    pub(super) candidates: u8,
}

impl Target {
    /// There is no other.
    pub(super) const fn only(flow: FlowKey) -> Self {
        Self {
            flow,
            rank: 0,
            candidates: 1,
        }
    }
}

impl From<Wait> for Stop {
    fn from(wait: Wait) -> Self {
        Self::Wait(wait)
    }
}

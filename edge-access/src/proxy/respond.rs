//! Responses: back to where their request came from, as the token in our branch says.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::config::Flatten;
use edge_common::host_name::HostName;
use edge_common::sip::edit::Edits;
use edge_common::sip::header::Name;
use edge_common::sip::header::cseq::CSeq;
use edge_common::sip::header::via::Via;
use edge_common::sip::message::{Message, StartLine};
use edge_common::sip::parse::Index;
use edge_common::sip::uri::{self, Host};
use edge_common::time::Now;

use super::flow::{PartnerKind, Peer, Standing};
use super::forward::{INSIDE_MARK, flow_mark, host_mark};
use super::hiding::{Stack, Step};
use super::hygiene::Crossing;
use super::output::Method;
use super::refusal::Drop;
use super::token::{BranchToken, FlowKey, Realm, RouteToken};
use super::transaction::{Fate, TransactionId};
use super::trust::{self, Source};
use super::{
    EDITED_HEADERS, Event, Output, Parcel, ParcelKind, Proxy, ResponseNote, contact, hygiene,
    keep_alive,
};

/// The way of one response; `from` is none when the edge made it.
#[derive(Clone, Copy)]
struct Back {
    from: Option<FlowKey>,
    to: FlowKey,
    note: ResponseNote,
}

impl Proxy {
    pub(super) fn respond(&mut self, now: Now, from: FlowKey, message: &Message<'_>) {
        if let Err(drop) = self.pass(now, Some(from), message) {
            self.event(Event::Dropped(drop));
        }
    }

    /// Sends back a response that the edge made to a request with our Via on top.
    pub(super) fn pass_own(&mut self, now: Now, message: &Message<'_>) {
        if let Err(drop) = self.pass(now, None, message) {
            self.event(Event::Dropped(drop));
        }
    }

    pub(super) fn pass(
        &mut self,
        now: Now,
        from: Option<FlowKey>,
        message: &Message<'_>,
    ) -> Result<(), Drop> {
        let status = message.status().ok_or(Drop::StatusInvalid)?;
        let token = self.top_token(message).ok_or(Drop::ResponseUnknown)?;
        if from.is_some_and(|from| !self.may_answer(from, token.egress)) {
            return Err(Drop::ResponseNotFromPeer);
        }
        let method = message
            .first(Name::CSeq)
            .and_then(|cseq| CSeq::parse(cseq.value()).ok())
            .map(|cseq| cseq.method)
            .ok_or(Drop::ResponseMalformed)?;
        // There is none, ever (MS-SIP 2.2): who answers one all the same is not heard.
        if method == b"BENOTIFY" {
            return Err(Drop::BenotifyAnswered);
        }
        let note = ResponseNote {
            status,
            method: match method {
                b"INVITE" => Method::Invite,
                b"CANCEL" => Method::Cancel,
                _ => Method::Other,
            },
            transaction: token
                .attempt
                .map(|attempt| (TransactionId::from_bits(token.transaction), attempt)),
            is_final: status >= 200,
            promotes: matches!(status, 200..=299) && matches!(method, b"REGISTER" | b"INVITE"),
            found: found(status, message),
            keeps_alive: matches!(status, 200..=299) && token.keep_alive,
            is_for_partner: token.realm == Realm::Partner,
        };
        if self.is_of_another_member(token.ingress) {
            return self.pass_over(now, from, message, &token);
        }
        let hidden = self.hidden_vias(message)?;
        // What cannot go back is the answer to nothing.
        let goes_on = hidden.is_some() || message.list(Name::Via).nth(1).is_some();
        if !goes_on && !self.ends_here(note) {
            return Err(Drop::ResponseMalformed);
        }
        if self.flow_ref(token.ingress.key) == token.ingress
            && token.ingress.key.core == self.core
            && let Fate::Absorb(drop) = self.fate(now, note, Some(message))
        {
            return Err(drop);
        }
        let to = self
            .upstream(&token, message)
            .ok_or(Drop::ResponseFlowGone)?;
        let back = Back { from, to, note };
        let mut edits = std::mem::take(&mut self.edits);
        edits.clear();
        let edited = self.edit_response(now, back, message, &token, hidden.as_ref(), &mut edits);
        if edited.is_ok() {
            self.send_response(now, back, token.realm, message, &mut edits);
        }
        self.edits = edits;
        if let Some(step) = edited? {
            self.event(Event::Topology(step));
        }
        Ok(())
    }

    /// What our Via, which stands on top, hides.
    fn hidden_vias(&self, message: &Message<'_>) -> Result<Option<Stack>, Drop> {
        let top = message.list(Name::Via).next();
        let top = top.and_then(|top| Via::parse(top.text()).ok());
        top.map_or(Ok(None), |top| Ok(self.tokens.hiding.open_vias(&top)?))
    }

    pub(super) fn top_token(&self, message: &Message<'_>) -> Option<BranchToken> {
        let top = message.list(Name::Via).next()?;
        let via = Via::parse(top.text()).ok()?;
        self.tokens.open_branch(via.branch()?)
    }

    /// Whether that connection is one that the request went to.
    fn may_answer(&self, from: FlowKey, egress: u32) -> bool {
        match self.flows.get(from).map(|flow| &flow.peer) {
            Some(Peer::Client(_)) => flow_mark(self.flow_ref(from)) == egress,
            Some(Peer::Inside { .. }) => egress == INSIDE_MARK,
            Some(Peer::Partner(partner)) => {
                let dialled = partner.dialled.as_ref().map(|target| &target.host);
                dialled
                    .into_iter()
                    .chain(partner.names.all())
                    .any(|host| host_mark(host) == egress)
            }
            None => false,
        }
    }

    /// The connection that the request came over. One of a server inside may have been replaced, and one of a partner.
    fn upstream(&self, token: &BranchToken, message: &Message<'_>) -> Option<FlowKey> {
        let key = token.ingress.key;
        let here = key.core == self.core;
        let stands =
            self.flow_ref(key) == token.ingress && (!here || self.flows.get(key).is_some());
        match token.realm {
            _ if stands => Some(key),
            Realm::Inside => self.next_hops.first().map(|hop| hop.flow),
            // Of another run or member nothing is known that could stand in.
            Realm::Partner if self.flow_ref(key) == token.ingress => {
                let via = message.list(Name::Via).nth(1)?;
                self.stand_in(via.text())
            }
            Realm::Client | Realm::Partner => None,
        }
    }

    /// The same for a response that another core has edited: the partner's Via is on top.
    fn stand_in_for(&self, note: ResponseNote, bytes: &[u8]) -> Option<FlowKey> {
        if !note.is_for_partner {
            return None;
        }
        let mut index = Index::new(self.settings.limits.headers + EDITED_HEADERS);
        let message = Message::parse(bytes, &mut index).ok()?;
        let via = message.list(Name::Via).next()?;
        self.stand_in(via.text())
    }

    /// Another connection of the partner whose Via that is (RFC 3261 §18.2.2), the newest one: its certificate proves
    /// the host that the Via names. An answer that a false Via leads elsewhere belongs to no request there.
    fn stand_in(&self, via: &[u8]) -> Option<FlowKey> {
        let (Host::Name(host), _) = uri::hostport(Via::parse(via).ok()?.sent_by).ok()? else {
            return None;
        };
        let host: HostName = host.parse().ok()?;
        let others = self.partners.iter().filter_map(|key| {
            let flow = self.flows.get(*key)?;
            match &flow.peer {
                Peer::Partner(partner) if partner.names.proves_host(&host) => {
                    Some((flow.opened, *key))
                }
                Peer::Partner(_) | Peer::Client(_) | Peer::Inside { .. } => None,
            }
        });
        others.max().map(|(_, key)| key)
    }

    fn edit_response(
        &self,
        now: Now,
        Back { from, to, note }: Back,
        message: &Message<'_>,
        token: &BranchToken,
        hidden: Option<&Stack>,
        edits: &mut Edits,
    ) -> Result<Option<Step>, Drop> {
        if let Some(stack) = hidden {
            self.restore(stack, message, edits)?;
        } else {
            for range in message.leading(Name::Via, 1) {
                edits.remove(range);
            }
        }
        let crossing = from
            .and_then(|from| self.flows.get(from))
            .and_then(|flow| self.crossing(flow.peer.realm(), to, token.realm, note.promotes));
        let sealed = self.edit_source(now, from, crossing, message, token, edits)?;
        if note.keeps_alive {
            let end = message.headers_end();
            let interval = keep_alive::interval(to, &self.settings.clients);
            edits.replace_with(end..end, |out| keep_alive::write_answer(interval, out));
        }
        Ok(sealed.or_else(|| hidden.map(|_| Step::Restored)))
    }

    /// What depends on who sent a response, and so is done where it came in.
    pub(super) fn edit_source(
        &self,
        now: Now,
        from: Option<FlowKey>,
        crossing: Option<Crossing>,
        message: &Message<'_>,
        token: &BranchToken,
        edits: &mut Edits,
    ) -> Result<Option<Step>, Drop> {
        let status = message.status().ok_or(Drop::StatusInvalid)?;
        if let Some(crossing) = crossing {
            hygiene::apply(message, crossing, &self.settings, edits);
        }
        if let Some(flow) = from.and_then(|from| self.flows.get(from))
            && matches!(flow.peer, Peer::Client(_))
        {
            let seal = |key| {
                let token = RouteToken::Client(self.flow_ref(key));
                self.tokens.seal_route(&token, None, now.unix)
            };
            let seal = || from.map(seal).unwrap_or_default();
            contact::replace(message, flow.remote, true, seal, edits)
                .map_err(|_| Drop::ResponseMalformed)?;
        }
        let end = message.headers_end();
        let mut sealed = false;
        if token.realm == Realm::Inside
            && let Some(from) = from
            && let Some(source) = self.source(from, message)
        {
            edits.replace_with(end..end, |out| {
                source.write_header(&self.settings.internal, out);
                // Whoever is only asked for his password has nothing to explain.
                if status >= 400 && !matches!(status, 401 | 407) {
                    self.diagnose(source, message, out);
                }
            });
        }
        if token.realm == Realm::Partner && from.is_some_and(|from| self.is_inside(from)) {
            sealed = self.hide_in_answer(now.unix, message, edits)?;
            self.edit_for_partner(message, status, edits);
        }
        // Our own speaks of us already.
        if status == 503 && from.is_some() && !is_signed(message) {
            edit_unavailable(message, edits);
        }
        Ok(sealed.then_some(Step::Sealed))
    }

    /// Puts the stacks of the inside where a partner's response has ours with what they are sealed in.
    fn restore(&self, vias: &Stack, message: &Message<'_>, edits: &mut Edits) -> Result<(), Drop> {
        for header in message.all(Name::Via) {
            edits.remove(header.range());
        }
        let start = message.headers_start();
        edits.replace_with(start..start, |out| vias.write(Name::Via, 0, out));
        let call_id = message.first(Name::CallId).map(|header| header.value());
        let own = &self.settings.external;
        self.tokens
            .hiding
            .restore_routes(message, own, call_id.unwrap_or_default(), edits)?;
        Ok(())
    }

    fn is_inside(&self, from: FlowKey) -> bool {
        self.flows
            .get(from)
            .is_some_and(|flow| matches!(flow.peer, Peer::Inside { .. }))
    }

    /// What the inside is told of a response's sender; nothing, when that is inside itself.
    fn source(&self, from: FlowKey, message: &Message<'_>) -> Option<Source<'_>> {
        match &self.flows.get(from)?.peer {
            Peer::Client(_) => Some(Source::Client),
            Peer::Inside { .. } => None,
            Peer::Partner(partner) => {
                let dialled = partner.dialled.as_ref().map(|target| &target.host);
                let host: &HostName = dialled.or_else(|| partner.names.hosts().next())?;
                let rules = &self.settings.federation;
                let kind = PartnerKind::of_edge(rules, host);
                // Whoever answers is whom the To names.
                let rule = kind.verification(rules, host, trust::domain_in(message, Name::To));
                Some(Source::Partner {
                    kind,
                    host,
                    verified: trust::is_verified(message, rule),
                })
            }
        }
    }

    /// What a partner may not learn of an answer, and what it is told besides.
    fn edit_for_partner(&self, message: &Message<'_>, status: u16, edits: &mut Edits) {
        let rules = &self.settings.federation;
        let flat: Option<&[u8]> = match rules.flatten_404 {
            Flatten::Forbidden => Some(b"SIP/2.0 403 Forbidden"),
            Flatten::Unavailable => Some(b"SIP/2.0 480 Temporarily Unavailable"),
            Flatten::Off => None,
        };
        if let Some(line) = flat.filter(|_| matches!(status, 404 | 604)) {
            let end = message
                .bytes()
                .iter()
                .position(|&b| b == b'\r')
                .unwrap_or_default();
            edits.replace(0..end, line);
            // It would say what the status no longer does.
            for header in message.headers() {
                if header.name() == Name::MsDiagnosticsPublic {
                    edits.remove(header.range());
                }
            }
        }
        if rules.mark_verified {
            let end = message.headers_end();
            edits.replace_with(end..end, trust::write_asserted);
        }
    }

    /// A failure that comes without a reason gets one that names who gave none (MS-OCER 8.2).
    fn diagnose(&self, source: Source<'_>, message: &Message<'_>, out: &mut Vec<u8>) {
        let Source::Partner { kind, host, .. } = source else {
            return;
        };
        if message.first(Name::MsDiagnosticsPublic).is_some() {
            return;
        }
        let (id, who) = match kind {
            PartnerKind::PublicProvider | PartnerKind::DefaultRoute { public: true } => {
                (1035, "public provider")
            }
            PartnerKind::Direct
            | PartnerKind::Automatic
            | PartnerKind::Discovered
            | PartnerKind::HostingProvider
            | PartnerKind::DefaultRoute { public: false } => (1034, "federated peer"),
        };
        let domain = trust::domain_in(message, Name::To).unwrap_or_default();
        let line = format!(
            "{}: {id};reason=\"Previous hop {who} did not report diagnostic information\";\
             Domain=\"{domain}\";PeerServer=\"{host}\";source=\"{}\"\r\n",
            Name::MsDiagnostics.as_str(),
            self.settings.internal
        );
        out.extend_from_slice(line.as_bytes());
    }

    fn send_response(
        &mut self,
        now: Now,
        Back { from, to, note }: Back,
        realm: Realm,
        message: &Message<'_>,
        edits: &mut Edits,
    ) {
        if to.core == self.core {
            self.note(now, to, note);
            self.transmit(to, |out| edits.write(message.bytes(), out));
        } else {
            let mut bytes = Vec::new();
            edits.write(message.bytes(), &mut bytes);
            self.push(Output::Cross(Parcel {
                to,
                bytes,
                kind: ParcelKind::Response(note),
            }));
        }
        if let Some(flow) = from.and_then(|from| self.flows.get(from)) {
            let from = flow.peer.realm();
            self.event(Event::Forwarded {
                from,
                to: realm,
                response: true,
            });
        }
    }

    /// Takes in a response that another core has edited.
    pub(super) fn deliver_response(
        &mut self,
        now: Now,
        to: FlowKey,
        note: ResponseNote,
        bytes: &[u8],
    ) {
        if let Fate::Absorb(drop) = self.fate(now, note, None) {
            self.event(Event::Dropped(drop));
            return;
        }
        let stands = self.flows.get(to).is_some();
        let Some(to) = stands
            .then_some(to)
            .or_else(|| self.stand_in_for(note, bytes))
        else {
            self.event(Event::Dropped(Drop::ResponseFlowGone));
            return;
        };
        // The other core could not know whether the inside has accepted the client.
        let crossing = self.crossing(Realm::Inside, to, Realm::Client, note.promotes);
        let mut index = Index::new(self.settings.limits.headers + EDITED_HEADERS);
        let mut edits = Edits::new();
        if crossing == Some(Crossing::ToStranger)
            && let Ok(message) = Message::parse(bytes, &mut index)
        {
            hygiene::apply(&message, Crossing::ToStranger, &self.settings, &mut edits);
        }
        self.note(now, to, note);
        self.transmit(to, |out| edits.write(bytes, out));
    }

    /// Which way across the edge a message goes; `None` when it stays inside. Of a client of another core
    /// this one knows nothing and takes it for accepted.
    pub(super) fn crossing(
        &self,
        from: Realm,
        to: FlowKey,
        to_realm: Realm,
        promotes: bool,
    ) -> Option<Crossing> {
        match (from, to_realm) {
            (Realm::Client, _) => Some(Crossing::FromClient),
            (Realm::Partner, _) => Some(Crossing::FromPartner),
            (Realm::Inside, Realm::Partner) => Some(Crossing::ToPartner),
            (Realm::Inside, Realm::Inside) => None,
            (Realm::Inside, Realm::Client) => match self.flows.get(to).map(|flow| &flow.peer) {
                Some(Peer::Client(Standing::Newcomer { .. })) if !promotes => {
                    Some(Crossing::ToStranger)
                }
                _ => Some(Crossing::ToUser),
            },
        }
    }

    /// What a response tells about the client that it goes to.
    fn note(&mut self, now: Now, to: FlowKey, note: ResponseNote) {
        let interval = keep_alive::interval(to, &self.settings.clients);
        let Some(flow) = self.flows.get_mut(to) else {
            return;
        };
        if note.keeps_alive && flow.keep_alive != Some(interval) {
            flow.keep_alive = Some(interval);
            self.set_timer(now, to);
        }
        let Some(flow) = self.flows.get_mut(to) else {
            return;
        };
        let standing = match &mut flow.peer {
            Peer::Client(standing) => standing,
            Peer::Partner(partner) => {
                partner.note(note.found);
                return;
            }
            Peer::Inside { .. } => return,
        };
        let Standing::Newcomer { in_flight, .. } = standing else {
            return;
        };
        if note.promotes {
            *standing = Standing::Promoted;
            self.event(Event::Promoted(to));
        } else if note.is_final {
            *in_flight = in_flight.saturating_sub(1);
        }
    }
}

/// What a final answer tells of whoever asked: he knows whom he calls, or he guesses.
///
/// Nobody is to blame for a dialog that ended meanwhile, for media that do not fit, or for our own trouble.
fn found(status: u16, message: &Message<'_>) -> Option<bool> {
    match status {
        0..=199 | 481 | 488 | 500..=599 => None,
        403 | 404 | 604 => Some(false),
        // Nobody is there: the diagnostics tell whether there ever was anybody (MS-OCER 8.2).
        480 => {
            let unknown = |value: &[u8]| value.starts_with(b"1003") || value.starts_with(b"4005");
            let header = message.first(Name::MsDiagnostics);
            Some(!header.is_some_and(|header| unknown(header.value())))
        }
        _ => Some(true),
    }
}

/// Whether a Communicator client would notice a change of the status: it is under the signature (MS-SIPAE).
fn is_signed(message: &Message<'_>) -> bool {
    message.first(Name::AuthenticationInfo).is_some()
}

/// A 503 speaks of the hop that says it: passed on, it would speak of us (RFC 3261 §16.7 step 6).
fn edit_unavailable(message: &Message<'_>, edits: &mut Edits) {
    let StartLine::Response {
        version, reason, ..
    } = message.start()
    else {
        return;
    };
    let start = message.range_of(version).end + 1;
    let end = message.range_of(reason).end.max(start + b"503".len());
    edits.replace(start..end, b"500 Server Internal Error");
    for header in message.all(Name::RetryAfter) {
        edits.remove(header.range());
    }
}

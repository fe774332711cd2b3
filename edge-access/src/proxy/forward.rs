//! Requests: what is changed in them on the way.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::config::{InsideRoutes, RegisterMode};
use edge_common::host_name::HostName;
use edge_common::sip::edit::Edits;
use edge_common::sip::header::{Name, max_forwards};
use edge_common::time::Now;

use super::flow::{Peer, Standing};
use super::hiding::{self, Step};
use super::refusal::Refusal;
use super::request::Request;
use super::route::Routes;
use super::token::{BranchToken, FlowKey, FlowRef, Realm, RouteToken};
use super::transaction::TransactionId;
use super::trust::{self, Source};
use super::{
    Event, LinkedKind, Output, Parcel, ParcelKind, Proxy, contact, hygiene, keep_alive, via,
};

/// Where a request goes on, and what has to be written into it for that.
pub(super) struct Way<'a> {
    pub(super) egress: FlowKey,
    /// The connection of another member, over whose link the request goes; `egress` is nowhere then.
    pub(super) link: Option<FlowRef>,
    /// Whoever sent it understands RFC 5626: 430 tells it something.
    pub(super) outbound: bool,
    pub(super) realm: Realm,
    /// Marks the far end in our branch, so that only it can answer.
    pub(super) mark: u32,
    /// The far end outside, which our routes lead to.
    pub(super) outside: &'a RouteToken,
    /// What the inside is told of the sender, when it goes there.
    pub(super) source: Option<Source<'a>>,
    /// Which of the targets that there are it is.
    pub(super) rank: u8,
    /// The ranks of all of them, as bits.
    pub(super) candidates: u8,
    /// The branch of the INVITE that a CANCEL or the ACK of a failure belongs to: these go one hop, so
    /// ours is their only Via.
    pub(super) branch: Option<BranchToken>,
    /// The partner that it goes to may not see the Via and Record-Route of servers inside.
    pub(super) hide: bool,
}

/// The stacks of a request that are hidden, sealed.
#[derive(Debug, Default)]
struct Hidden {
    vias: Option<String>,
    routes: Option<String>,
}

impl Proxy {
    pub(super) fn forward(
        &mut self,
        now: Now,
        ingress: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
        way: &Way<'_>,
    ) -> Result<(), Refusal> {
        let Some(realm) = self.flows.get(ingress).map(|flow| flow.peer.realm()) else {
            return Ok(());
        };
        let id = self.track(now, ingress, request, routes, way);
        let branch = way
            .branch
            .unwrap_or_else(|| self.branch(ingress, realm, request, routes, way, id));
        let mut edits = std::mem::take(&mut self.edits);
        edits.clear();
        let edited = self.edit(now, ingress, request, routes, way, &branch, &mut edits);
        if edited.is_ok() {
            self.send(ingress, request, way, &mut edits);
            if way.hide {
                self.event(Event::Topology(Step::Sealed));
            } else if routes.hidden.is_some() {
                self.event(Event::Topology(Step::Restored));
            }
            if let Some(id) = id {
                self.sent(now, id, &branch, way);
                if self.again.is_none() && request.method == b"INVITE" {
                    self.say_trying(ingress, &request.message);
                }
            }
        } else if let Some(id) = id
            && self.again.is_none()
        {
            self.end(id);
        }
        self.edits = edits;
        edited
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "from the most specific to the most general"
    )]
    fn edit(
        &self,
        now: Now,
        ingress: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
        way: &Way<'_>,
        branch: &BranchToken,
        edits: &mut Edits,
    ) -> Result<(), Refusal> {
        let Some(flow) = self.flows.get(ingress) else {
            return Ok(());
        };
        let (message, realm) = (&request.message, flow.peer.realm());
        let hidden = self.hide(now, request, way, branch, edits)?;
        for range in message.leading(Name::Route, routes.ours) {
            edits.remove(range);
        }
        self.edit_hops(request, edits);
        if let Some(crossing) = self.crossing(realm, way.egress, way.realm, false) {
            hygiene::apply(message, crossing, &self.settings, edits);
        }
        if way.branch.is_some() {
            for range in message.leading(Name::Via, request.via_count) {
                edits.remove(range);
            }
        } else if realm != Realm::Inside {
            via::note_source(message, flow.remote, ingress, edits);
        }
        if realm == Realm::Client {
            let token = || {
                let outside = RouteToken::Client(self.flow_ref(ingress));
                self.tokens.seal_route(&outside, None, now.unix)
            };
            contact::replace(message, flow.remote, request.via_count == 1, token, edits)?;
        }
        let start = message.headers_start();
        edits.replace_with(start..start, |out| {
            self.write_via(way, branch, &hidden, out);
            self.write_routes(now, ingress, request, way, &hidden, out);
            // Only the inside knows the way that we hid from a partner.
            if let Some(stack) = routes
                .hidden
                .as_ref()
                .filter(|_| way.realm == Realm::Inside)
            {
                stack.write_route(out);
            }
        });
        let end = message.headers_end();
        match way.source {
            Some(source) if way.realm == Realm::Inside => edits.replace_with(end..end, |out| {
                source.write_header(&self.settings.internal, out);
            }),
            source if way.realm == Realm::Partner => edits.replace_with(end..end, |out| {
                self.write_for_partner(source, out);
            }),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// What a partner's edge is told of the sender, and of what we do with messages.
    fn write_for_partner(&self, source: Option<Source<'_>>, out: &mut Vec<u8>) {
        let rules = &self.settings.federation;
        let verified = match source {
            // Whom the inside lets out it has authenticated.
            None | Some(Source::Client | Source::Edge) => true,
            Some(Source::Partner { verified, .. }) => verified,
        };
        if rules.mark_verified && verified {
            trust::write_asserted(out);
        }
        if let Some(notice) = &rules.archiving_notice {
            out.extend_from_slice(notice.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// One hop less, or the default where nobody set a limit (RFC 3261 §16.6 step 3).
    fn edit_hops(&self, request: &Request<'_>, edits: &mut Edits) {
        let message = &request.message;
        match (request.max_forwards, request.max_forwards_range()) {
            (Some(hops), Some(range)) => {
                edits.replace(range, hops.saturating_sub(1).to_string().as_bytes());
            }
            (_, _) => {
                let header = format!("Max-Forwards: {}\r\n", max_forwards::DEFAULT);
                edits.insert(message.headers_start(), header.as_bytes());
            }
        }
    }

    /// What our branch says: where the answer goes, and who may give it.
    fn branch(
        &self,
        ingress: FlowKey,
        realm: Realm,
        request: &Request<'_>,
        routes: &Routes<'_>,
        way: &Way<'_>,
        id: Option<TransactionId>,
    ) -> BranchToken {
        let attempt = id
            .and_then(|id| self.transactions.get(id))
            .map(|entry| entry.attempt);
        BranchToken {
            ingress: self.flow_ref(ingress),
            realm,
            keep_alive: realm == Realm::Client && keep_alive::asks(&request.message),
            egress: way.mark,
            loop_mark: request.marked(routes.next).loop_mark(realm),
            transaction: id.map_or(routes.transaction, TransactionId::to_bits),
            attempt,
        }
    }

    /// Takes the stacks of the inside out of a request that goes to a partner who may not see them.
    fn hide(
        &self,
        now: Now,
        request: &Request<'_>,
        way: &Way<'_>,
        branch: &BranchToken,
        edits: &mut Edits,
    ) -> Result<Hidden, Refusal> {
        if !way.hide {
            return Ok(Hidden::default());
        }
        let (message, hiding) = (&request.message, &self.tokens.hiding);
        let mut text = Vec::new();
        self.tokens.seal_branch(branch, &mut text);
        let vias = hiding.seal_vias(message, &text)?;
        // Where no dialog comes of it, a route is of use to nobody.
        let routes = if request.may_make_dialog() {
            let token = self
                .tokens
                .seal_route(way.outside, Some(request.call_id), now.unix);
            let inner = self.own_route(&format!("{token}@"), Realm::Inside, way.outside, false, "");
            let sealed =
                hiding.seal_routes(message, inner.as_bytes(), token.as_bytes(), request.call_id)?;
            Some(sealed)
        } else {
            None
        };
        for header in message.headers() {
            if matches!(header.name(), Name::Via | Name::RecordRoute) {
                edits.remove(header.range());
            }
        }
        Ok(Hidden {
            vias: Some(vias),
            routes,
        })
    }

    /// A member of our route, as far ends of that kind know us; `token` is empty or ends in an `@`.
    fn own_route(
        &self,
        token: &str,
        realm: Realm,
        outside: &RouteToken,
        web: bool,
        flag: &str,
    ) -> String {
        let (host, port) = self.route_address(realm, outside);
        let transport = if web { "ws" } else { "tls" };
        format!("<sip:{token}{host}:{port};transport={transport};lr{flag}>")
    }

    fn write_via(&self, way: &Way<'_>, branch: &BranchToken, hidden: &Hidden, out: &mut Vec<u8>) {
        let (host, port) = self.own_address(way.realm);
        let transport = if self.is_web(way.egress) {
            "WSS"
        } else {
            "TLS"
        };
        via::write_own(transport, host.as_str(), port, out, |out| {
            self.tokens.seal_branch(branch, out);
            if let Some(sealed) = &hidden.vias {
                push_hidden(sealed, out);
            }
        });
    }

    /// Keeps us in the dialog, once for each side; the topmost member faces where the request goes.
    fn write_routes(
        &self,
        now: Now,
        ingress: FlowKey,
        request: &Request<'_>,
        way: &Way<'_>,
        hidden: &Hidden,
        out: &mut Vec<u8>,
    ) {
        let Some(flow) = self.flows.get(ingress) else {
            return;
        };
        let (from, from_web) = (flow.peer.realm(), flow.web);
        let register = request.method == b"REGISTER";
        if !register && !request.may_make_dialog() {
            return;
        }
        // A registration is used by dialogs to come.
        let call_id = (!register).then_some(request.call_id);
        // Between partners it is From and To that lead on.
        let token = if from == Realm::Partner && way.realm == Realm::Partner {
            String::new()
        } else {
            self.tokens.seal_route(way.outside, call_id, now.unix) + "@"
        };
        let mut write = |name: Name, realm: Realm, web: bool, flag: &str| {
            let route = self.own_route(&token, realm, way.outside, web, flag);
            let line = format!("{}: {route}\r\n", name.as_str());
            out.extend_from_slice(line.as_bytes());
        };
        if let Some(sealed) = &hidden.routes {
            let flag = format!(";{}={sealed}", hiding::PARAM);
            write(Name::RecordRoute, way.realm, false, &flag);
            return;
        }
        if !register {
            write(Name::RecordRoute, way.realm, self.is_web(way.egress), "");
            write(Name::RecordRoute, from, from_web, "");
            return;
        }
        // What reaches the client later comes from inside, so one member that faces there is enough.
        // A browser's Contact names a host that does not exist: only the token finds it (RFC 7118 §5).
        if self.settings.register_mode != RegisterMode::RecordRoute || from_web {
            let flag = if request.supports("outbound") {
                ";ob"
            } else {
                ""
            };
            write(Name::Path, Realm::Inside, false, flag);
        }
        if self.settings.register_mode != RegisterMode::Path {
            write(Name::RecordRoute, Realm::Inside, false, "");
        }
    }

    /// The name and port in our routes. A client's token leads to one member, a partner's is everybody's.
    fn route_address(&self, realm: Realm, outside: &RouteToken) -> (&HostName, u16) {
        let settings = &self.settings;
        match (realm, outside, settings.inside_routes) {
            (Realm::Inside, RouteToken::Partner(_), _)
            | (Realm::Inside, RouteToken::Client(_), InsideRoutes::Array) => {
                (&settings.internal, settings.internal_port)
            }
            (Realm::Inside, RouteToken::Client(_), InsideRoutes::Member)
            | (Realm::Client | Realm::Partner, _, _) => self.own_address(realm),
        }
    }

    /// The name and port by which far ends of that kind know us.
    pub(super) fn own_address(&self, realm: Realm) -> (&HostName, u16) {
        let settings = &self.settings;
        match realm {
            Realm::Client => (&settings.external, settings.client_port),
            Realm::Partner => (&settings.external, settings.federation_port),
            Realm::Inside => (&settings.member, settings.internal_port),
        }
    }

    fn send(&mut self, ingress: FlowKey, request: &Request<'_>, way: &Way<'_>, edits: &mut Edits) {
        let source = request.message.bytes();
        if let Some(to) = way.link {
            let mut bytes = Vec::new();
            edits.write(source, &mut bytes);
            let outbound = way.outbound;
            self.link_out(to, LinkedKind::Request { outbound }, bytes);
        } else if way.egress.core == self.core {
            self.transmit(way.egress, |out| edits.write(source, out));
        } else {
            let mut bytes = Vec::new();
            edits.write(source, &mut bytes);
            self.push(Output::Cross(Parcel {
                to: way.egress,
                bytes,
                kind: ParcelKind::Request {
                    outbound: way.outbound,
                },
            }));
        }
        let Some(flow) = self.flows.get_mut(ingress) else {
            return;
        };
        let from = flow.peer.realm();
        if let Peer::Client(Standing::Newcomer { in_flight, .. }) = &mut flow.peer
            && request.is_answered()
            && self.again.is_none()
        {
            *in_flight += 1;
        }
        self.event(Event::Forwarded {
            from,
            to: way.realm,
            response: false,
        });
    }
}

fn push_hidden(sealed: &str, out: &mut Vec<u8>) {
    out.push(b';');
    out.extend_from_slice(hiding::PARAM.as_bytes());
    out.push(b'=');
    out.extend_from_slice(sealed.as_bytes());
}

/// Marks a client's connection, of whatever member, as the egress of a request.
pub(super) fn flow_mark(flow: FlowRef) -> u32 {
    let FlowRef { node, key, .. } = flow;
    via::egress_mark(&[
        b"flow",
        &[node],
        &[key.core],
        &key.slot.to_be_bytes(),
        &key.generation.to_be_bytes(),
    ])
}

/// Marks a partner's edge as the egress of a request.
pub(super) fn host_mark(host: &HostName) -> u32 {
    via::egress_mark(&[b"host", host.as_str().as_bytes()])
}

/// All trusted servers inside are one: a response may come over any of their connections.
pub(super) const INSIDE_MARK: u32 = 0;

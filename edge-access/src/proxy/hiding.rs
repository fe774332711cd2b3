//! Keeps the names of servers inside from partners: what they wrote into Via and Record-Route leaves sealed.
//!
//! ```text
//!  a request that leaves        Via: pool ◄ front             ─►  Via: edge;branch=…;hidden=[pool, front]
//!                               Record-Route: pool, front     ─►  Record-Route: <sip:…@edge;lr;hidden=[edge inside, pool, front]>
//!  its answer, a later request  the stacks stand again as they stood, each under what it belongs to
//!  an answer that leaves        Record-Route: front, pool, edge inside, edge, theirs
//!                                 ─►  Record-Route: <sip:…@edge;lr;hidden=[edge inside, pool, front]>, theirs
//! ```
//!
//! A stack is sealed by AES-SIV under a key that the whole array holds, so any member opens it and none
//! remembers it. It is sealed together with what it stands beside (our branch; our route token and the
//! Call-ID), so in another message it opens nothing. What says whether to seal is the configuration; what was
//! sealed is restored whatever the configuration says by then.
//!
//! ```text
//!  sealed     kind 1 │ { length 2 │ value … } …       kind: 1 Via, 2 route of a request, 3 route of an answer
//! ```
//!
//! A route's values stand in the order in which a request from outside follows them, our own inner member
//! first: whichever member of the array opens it is where that one would lead. Contact is nobody's business
//! here: it is the far end's address for the whole dialog, and who changes it within one loses calls.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::domain_rule::{DomainRule, FederationRules};
use edge_common::host_name::HostName;
use edge_common::seal::Sealer;
use edge_common::secret::{Label, Secrets};
use edge_common::sip::edit::Edits;
use edge_common::sip::header::name_addr::NameAddr;
use edge_common::sip::header::via::Via;
use edge_common::sip::header::{Name, elements};
use edge_common::sip::message::Message;
use edge_common::sip::uri::{Host, Uri};
use edge_common::time::UnixTime;

use super::Proxy;
use super::flow::PartnerKind;
use super::token::RouteToken;
use super::trust;

/// Seals and opens stacks.
#[derive(Debug)]
pub struct Hiding {
    stacks: Sealer,
}

/// A stack that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    kind: Kind,
    plain: Vec<u8>,
}

/// Which stack it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The Via below ours.
    Via,
    /// The Record-Route below ours of a request; the answer has it again.
    OfRequest,
    /// The Record-Route above ours of an answer; only requests that come back need it.
    OfAnswer,
}

/// The stack is longer than [`SEALED_MAX`] when it is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// The text does not open: altered, of another message, or sealed under a key that is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// What was done with a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It left sealed.
    Sealed,
    /// It stands in the message again.
    Restored,
}

impl Step {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Restored => "restored",
        }
    }
}

impl Hiding {
    /// With the keys of the array.
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        Self {
            stacks: Sealer::new(secrets, Label::SipTopology),
        }
    }

    /// All Via of a message, for a Via of ours with that branch.
    pub fn seal_vias(&self, message: &Message<'_>, branch: &[u8]) -> Result<String, TooLong> {
        let vias = message.all(Name::Via).map(|header| header.value());
        self.seal(Kind::Via, vias, branch)
    }

    /// What our Via hides.
    pub fn open_vias(&self, ours: &Via<'_>) -> Result<Option<Stack>, Forged> {
        let Some(param) = ours.params.get(PARAM) else {
            return Ok(None);
        };
        self.open(param.value, ours.branch().unwrap_or_default())
            .filter(|stack| stack.kind == Kind::Via)
            .map(Some)
            .ok_or(Forged)
    }

    /// All Record-Route of a request, for a member of ours with that user part; `inner` is our member that faces
    /// the inside.
    pub fn seal_routes(
        &self,
        message: &Message<'_>,
        inner: &[u8],
        user: &[u8],
        call_id: &[u8],
    ) -> Result<String, TooLong> {
        let routes = message.all(Name::RecordRoute).map(|header| header.value());
        let context = route_context(user, call_id);
        self.seal(
            Kind::OfRequest,
            std::iter::once(inner).chain(routes),
            &context,
        )
    }

    /// What a member of our route hides.
    pub fn open_routes(&self, ours: &Uri<'_>, call_id: &[u8]) -> Result<Option<Stack>, Forged> {
        let Some(param) = ours.params.get(PARAM) else {
            return Ok(None);
        };
        let context = route_context(ours.user.unwrap_or_default(), call_id);
        self.open(param.value, &context)
            .filter(|stack| stack.kind != Kind::Via)
            .map(Some)
            .ok_or(Forged)
    }

    fn seal<'a>(
        &self,
        kind: Kind,
        values: impl Iterator<Item = &'a [u8]>,
        context: &[u8],
    ) -> Result<String, TooLong> {
        let mut plain = vec![kind.number()];
        for value in values {
            let len = u16::try_from(value.len()).map_err(|_| TooLong)?;
            plain.extend_from_slice(&len.to_be_bytes());
            plain.extend_from_slice(value);
        }
        if plain.len() > PLAIN_MAX {
            return Err(TooLong);
        }
        Ok(self.stacks.seal_text(&plain, context))
    }

    fn open(&self, text: Option<&[u8]>, context: &[u8]) -> Option<Stack> {
        let text = text.filter(|text| text.len() <= SEALED_MAX)?;
        let mut plain = self.stacks.open_text(text, context).ok()?;
        let kind = Kind::of(*plain.first()?)?;
        plain.remove(0);
        Some(Stack { kind, plain })
    }

    /// Puts what a partner's answer brings back hidden under the members of our route that it belongs to.
    pub fn restore_routes(
        &self,
        message: &Message<'_>,
        own: &HostName,
        call_id: &[u8],
        edits: &mut Edits,
    ) -> Result<(), Forged> {
        for header in message.all(Name::RecordRoute) {
            let (mut lines, mut found) = (Vec::new(), false);
            for member in elements(message.bytes(), header.value_range()) {
                let text = member.text();
                let hidden = match own_uri(text, own) {
                    Some(uri) => self.open_routes(&uri, call_id)?.zip(uri.params.get(PARAM)),
                    None => None,
                };
                match hidden {
                    Some((stack, param)) if stack.kind == Kind::OfRequest => {
                        found = true;
                        let (before, after) = around(text, param.text);
                        push_line(Name::RecordRoute, &[before, after], &mut lines);
                        stack.write(Name::RecordRoute, 0, &mut lines);
                    }
                    // What we sealed in an answer is for requests from outside, and stays as it is.
                    Some(_) | None => push_line(Name::RecordRoute, &[text], &mut lines),
                }
            }
            if found {
                edits.replace(header.range(), &lines);
            }
        }
        Ok(())
    }
}

impl Stack {
    /// Appends the stack but its first `skip` values, a header line for each.
    pub fn write(&self, name: Name, skip: usize, out: &mut Vec<u8>) {
        for value in self.values().skip(skip) {
            push_line(name, &[value], out);
        }
    }

    /// Appends a route's way on inside as Route: all but our own inner member, where the request already is.
    pub fn write_route(&self, out: &mut Vec<u8>) {
        self.write(Name::Route, 1, out);
    }

    fn values(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.plain.as_slice();
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first_chunk::<2>()?;
            let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            rest = tail;
            Some(value)
        })
    }
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Via => 1,
            Self::OfRequest => 2,
            Self::OfAnswer => 3,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Via),
            2 => Some(Self::OfRequest),
            3 => Some(Self::OfAnswer),
            _ => None,
        }
    }
}

impl PartnerKind {
    /// Whether partners of that kind may not see the stacks; `domain` tells a listed one that DNS leads to
    /// from one that nobody listed.
    #[must_use]
    pub fn is_hidden_from(self, rules: &FederationRules, domain: Option<&str>) -> bool {
        let hide = &rules.hide_topology;
        match self {
            Self::Direct => hide.direct,
            Self::PublicProvider | Self::HostingProvider | Self::DefaultRoute { .. } => {
                hide.providers
            }
            Self::Discovered => hide.discovered,
            Self::Automatic => {
                let is_listed = |domain: &str| {
                    let mut listed = rules.partners.iter();
                    listed.any(|(listed, _)| listed.as_str().eq_ignore_ascii_case(domain))
                };
                if domain.is_some_and(is_listed) {
                    hide.allowed
                } else {
                    hide.discovered
                }
            }
        }
    }
}

impl Proxy {
    /// Whether a request from inside for `domain` goes to that edge with its stacks sealed.
    pub(super) fn hides_from_edge(&self, edge: &HostName, domain: Option<&str>) -> bool {
        let rules = &self.settings.federation;
        PartnerKind::of_edge(rules, edge).is_hidden_from(rules, domain)
    }

    /// Seals the route of an answer from inside that goes to a partner, whichever member or core the partner is
    /// connected to; `true` when it did.
    pub(super) fn hide_in_answer(
        &self,
        now: UnixTime,
        message: &Message<'_>,
        edits: &mut Edits,
    ) -> Result<bool, TooLong> {
        if message.first(Name::RecordRoute).is_none() {
            return Ok(false);
        }
        let call_id = message.first(Name::CallId).map(|header| header.value());
        let call_id = call_id.unwrap_or_default();
        let routes: Vec<&[u8]> = message
            .list(Name::RecordRoute)
            .map(|member| member.text())
            .collect();
        let mut lines = Vec::new();
        // Further down may be those of an earlier pass, whose stacks are sealed.
        let outer = routes.iter().enumerate().rev().find_map(|(at, text)| {
            let edge = self.edge_of_route(text, call_id, now)?;
            Some((at, edge))
        });
        let domain = trust::domain_in(message, Name::From);
        let edge = outer.as_ref().map(|(_, edge)| edge);
        if !self.hides_from(edge, domain) {
            return Ok(false);
        }
        // A route that we are not in leads a partner nowhere.
        if let Some((at, _)) = outer {
            self.write_hidden(&routes, at, call_id, &mut lines)?;
        }
        let mut lines = Some(lines);
        for header in message.all(Name::RecordRoute) {
            edits.replace(header.range(), &lines.take().unwrap_or_default());
        }
        Ok(outer.is_some())
    }

    fn write_hidden(
        &self,
        routes: &[&[u8]],
        at: usize,
        call_id: &[u8],
        lines: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        let (outer, inside) = (routes[at], &routes[..at]);
        let Some(uri) = own_uri(outer, &self.settings.external) else {
            return Ok(());
        };
        let user = uri.user.unwrap_or_default();
        let is_inner = |text: &&&[u8]| {
            uri_of(text).is_some_and(|inner| inner.user == uri.user && self.names_us(&inner))
        };
        // Its place is kept when somebody has taken it away.
        let placeholder = inside.last().filter(is_inner).is_none();
        let empty: &[u8] = b"";
        let values = placeholder
            .then_some(empty)
            .into_iter()
            .chain(inside.iter().rev().copied());
        let sealed =
            self.tokens
                .hiding
                .seal(Kind::OfAnswer, values, &route_context(user, call_id))?;
        let close = outer.iter().position(|&b| b == b'>').unwrap_or(outer.len());
        let (before, after) = outer.split_at(close);
        let param = format!(";{PARAM}={sealed}");
        push_line(Name::RecordRoute, &[before, param.as_bytes(), after], lines);
        for theirs in &routes[at + 1..] {
            push_line(Name::RecordRoute, &[theirs], lines);
        }
        Ok(())
    }

    fn names_us(&self, uri: &Uri<'_>) -> bool {
        matches!(uri.host, Host::Name(host) if self.settings.is_own_host(host))
    }

    /// The partner's edge, if that is our member which faces one and hides nothing yet.
    fn edge_of_route(&self, text: &[u8], call_id: &[u8], now: UnixTime) -> Option<HostName> {
        let uri = own_uri(text, &self.settings.external)?;
        if uri.params.get(PARAM).is_some() {
            return None;
        }
        match self.tokens.open_route(uri.user?, call_id, now)?.token {
            RouteToken::Partner(target) => Some(target.host),
            RouteToken::Client(_) => None,
        }
    }

    /// Whether a partner of whom that is known may not see the stacks.
    fn hides_from(&self, edge: Option<&HostName>, domain: Option<&str>) -> bool {
        if let Some(edge) = edge {
            return self.hides_from_edge(edge, domain);
        }
        let rules = &self.settings.federation;
        let rule = domain
            .and_then(|domain| domain.parse().ok())
            .map(|domain| rules.of_domain(&domain));
        match rule {
            Some(
                DomainRule::Direct(at) | DomainRule::Provider(at) | DomainRule::DefaultRoute(at),
            ) => self.hides_from_edge(&at.host, domain),
            Some(
                DomainRule::Automatic
                | DomainRule::Discovered
                | DomainRule::InPublicCloud
                | DomainRule::Blocked
                | DomainRule::Unlisted,
            )
            | None => PartnerKind::Automatic.is_hidden_from(rules, domain),
        }
    }
}

/// The URI of a member in brackets, when it names `own`.
fn own_uri<'a>(member: &'a [u8], own: &HostName) -> Option<Uri<'a>> {
    uri_of(member).filter(|uri| uri.host.is_name(own.as_str()))
}

fn uri_of(member: &[u8]) -> Option<Uri<'_>> {
    member.first().filter(|&&b| b == b'<')?;
    Uri::parse(NameAddr::parse(member).ok()?.uri).ok()
}

/// `text` without `part`, which is a slice of it.
fn around<'a>(text: &'a [u8], part: &[u8]) -> (&'a [u8], &'a [u8]) {
    let start = (part.as_ptr() as usize)
        .saturating_sub(text.as_ptr() as usize)
        .min(text.len());
    let end = (start + part.len()).min(text.len());
    (&text[..start], &text[end..])
}

fn push_line(name: Name, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// A route token has no blank.
fn route_context(user: &[u8], call_id: &[u8]) -> Vec<u8> {
    [user, b" ", call_id].concat()
}

/// The parameter of our Via and of our Record-Route that holds the sealed stack.
pub const PARAM: &str = "hidden";
/// A sealed stack as text, in bytes: some twenty servers inside.
pub const SEALED_MAX: usize = 4096;
const PLAIN_MAX: usize = SEALED_MAX / 4 * 3 - edge_common::seal::OVERHEAD;

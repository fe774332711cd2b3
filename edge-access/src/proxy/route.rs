//! Where a request goes: by the token in our own Route, else by its domain.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::host_name::HostName;
use edge_common::sip::header::Name;
use edge_common::sip::header::name_addr::NameAddr;
use edge_common::sip::uri::{Host, Uri};
use edge_common::time::UnixTime;

use super::hiding::{self, Stack};
use super::refusal::Refusal;
use super::request::Request;
use super::settings::Settings;
use super::token::{RouteToken, Tokens};

/// The Route headers of a request, ours taken apart from the rest.
#[derive(Clone, Debug)]
pub struct Routes<'a> {
    /// How many leading members are ours and have to go.
    pub ours: usize,
    /// What our members say.
    pub token: Option<RouteToken>,
    /// The request is within the dialog that the token was made for: it has the dialog's Call-ID and both of its tags.
    /// Whoever has a token of ours has it from a dialog; it gives him no way to anybody else.
    pub in_dialog: bool,
    /// The registrar has a client's connections apart: our member is from a Path that says `ob` (RFC 5626 §5.1).
    pub outbound: bool,
    /// The first member that stays, or the sealed text of those that are hidden; empty when there is neither.
    pub next: &'a [u8],
    /// What our members hide: the way on inside.
    pub hidden: Option<Stack>,
    /// The keyed hash of the transaction (`via::Marked::transaction`).
    pub transaction: u64,
}

impl<'a> Routes<'a> {
    /// Reads the leading members that name us.
    ///
    /// We put two members into a dialog, one for each side (RFC 5658), both with the same token; a
    /// spiral puts in two more with another token, and those are for the time it comes by again.
    pub fn read(
        request: &Request<'a>,
        settings: &Settings,
        tokens: &Tokens,
        now: UnixTime,
    ) -> Result<Self, Refusal> {
        let mut routes = Self {
            ours: 0,
            token: None,
            in_dialog: false,
            outbound: false,
            next: b"",
            hidden: None,
            transaction: 0,
        };
        for element in request.message.list(Name::Route) {
            let text = element.text();
            let address = NameAddr::parse(text).map_err(|wrong| Refusal::Malformed(wrong.0))?;
            if !routes.take(address.uri, request, settings, tokens, now)? {
                routes.next = text;
                break;
            }
        }
        Ok(routes)
    }

    /// `false`: the member stays.
    fn take(
        &mut self,
        uri: &'a [u8],
        request: &Request<'a>,
        settings: &Settings,
        tokens: &Tokens,
        now: UnixTime,
    ) -> Result<bool, Refusal> {
        let Ok(uri) = Uri::parse(uri) else {
            return Ok(false);
        };
        let Host::Name(host) = uri.host else {
            return Ok(false);
        };
        if !settings.is_own_host(host) || self.ours == PAIR {
            return Ok(false);
        }
        if let Some(user) = uri.user {
            let opened = tokens
                .open_route(user, request.call_id, now)
                .ok_or(Refusal::RouteInvalid)?;
            let other = |earlier: &RouteToken| *earlier != opened.token;
            if self.token.as_ref().is_some_and(other) {
                return Ok(false);
            }
            if let Some(stack) = tokens.hiding.open_routes(&uri, request.call_id)? {
                self.hidden = Some(stack);
                self.next = uri.params.value(hiding::PARAM).unwrap_or_default();
            }
            self.token = Some(opened.token);
            self.in_dialog |= opened.is_of_dialog && request.to.tag.is_some();
        }
        self.outbound |= uri.params.get("ob").is_some();
        self.ours += 1;
        Ok(true)
    }
}

/// Where a request from inside is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Over what the token says.
    Token(RouteToken),
    /// To the edge of that domain.
    Domain(HostName),
    /// The edge itself was asked.
    Us,
}

/// Reads the destination of a request from inside.
pub fn destination(
    request: &Request<'_>,
    token: Option<RouteToken>,
    settings: &Settings,
    tokens: &Tokens,
    now: UnixTime,
) -> Result<Destination, Refusal> {
    if let Some(token) = token {
        return Ok(Destination::Token(token));
    }
    // A Contact that we rewrote leads back here without any Route (MS-SIPRE, `proxy=replace`).
    if let Some(text) = request.uri.params.value(CONTACT_TOKEN) {
        return tokens
            .open_route(text, request.call_id, now)
            .map(|opened| Destination::Token(opened.token))
            .ok_or(Refusal::RouteInvalid);
    }
    let Host::Name(host) = request.uri.host else {
        return Err(Refusal::Unroutable);
    };
    if settings.is_own_host(host) {
        return Ok(Destination::Us);
    }
    if settings.own_domain(host).is_some() {
        return Err(Refusal::Unroutable);
    }
    // The Contact of a browser (RFC 7118 §5): without the token of its connection nothing finds it.
    if is_invalid(host) {
        return Err(Refusal::FlowGone);
    }
    host.parse()
        .map(Destination::Domain)
        .map_err(|_| Refusal::Unroutable)
}

/// Whether nothing ever resolves that name (RFC 2606 §2).
fn is_invalid(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|label| label.eq_ignore_ascii_case("invalid"))
}

/// The parameter of a rewritten Contact that holds the token of its connection (MS-SIPRE 4.10).
pub const CONTACT_TOKEN: &str = "ms-received-cid";
/// One member for each side.
const PAIR: usize = 2;

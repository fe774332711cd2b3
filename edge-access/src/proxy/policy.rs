//! Who may send what through the edge.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::domain_rule::DomainRule;
use edge_common::host_name::{HostName, HostPort};
use edge_common::sip::header::Name;
use edge_common::sip::message::Message;
use edge_common::sip::uri::Host;

use super::refusal::Refusal;
use super::request::Request;
use super::route::Routes;
use super::settings::Settings;

/// Checks that hold for every sender (RFC 3261 §16.3 steps 1 to 5).
pub fn admit(request: &Request<'_>) -> Result<(), Refusal> {
    // Compression is agreed between a client and its first hop, and we offer none (MS-SIPCOMP). Its
    // Max-Forwards of 0 says the same: it goes no further.
    if request.method == b"NEGOTIATE" {
        return Err(Refusal::HopLocal);
    }
    if request.max_forwards == Some(0) {
        return Err(Refusal::TooManyHops);
    }
    if unknown_extensions(request).next().is_some() {
        return Err(Refusal::Extension);
    }
    Ok(())
}

/// What Proxy-Require asks for and we do not know.
pub fn unknown_extensions<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    request
        .message
        .list(Name::ProxyRequire)
        .map(|element| element.text())
        .filter(|tag| {
            !EXTENSIONS
                .iter()
                .any(|known| tag.eq_ignore_ascii_case(known.as_bytes()))
        })
}

/// Checks that hold for clients.
pub fn admit_client(
    settings: &Settings,
    request: &Request<'_>,
    routes: &Routes<'_>,
) -> Result<(), Refusal> {
    let Some(domain) = request.from.domain else {
        return Err(Refusal::FromNotRemote);
    };
    if domain.eq_ignore_ascii_case(ANONYMOUS_DOMAIN) {
        return admit_anonymous(settings, request, routes);
    }
    let own = settings
        .own_domain(domain)
        .filter(|_| settings.remote_users);
    let Some(own) = own else {
        return Err(Refusal::FromNotRemote);
    };
    if !own.remote_users_here {
        // Only a sign-in can be sent elsewhere: whoever writes before it would not write there either.
        let elsewhere = own.remote_users_edge.is_some() && request.method == b"REGISTER";
        return Err(if elsewhere {
            Refusal::ServedElsewhere
        } else {
            Refusal::FromNotRemote
        });
    }
    if routes.in_dialog {
        return Ok(());
    }
    // Users sign in to their own servers, and to nobody else's through us.
    let served_by_own = matches!(request.method, b"REGISTER" | b"SERVICE" | b"PUBLISH");
    let foreign_uri = is_foreign(settings, request.uri.host);
    let foreign_to = request
        .to
        .domain
        .is_none_or(|domain| settings.own_domain(domain).is_none());
    if (served_by_own && foreign_uri)
        || (!settings.clients.any_domain && (foreign_uri || foreign_to))
    {
        return Err(Refusal::RelayDenied);
    }
    Ok(())
}

/// The edge where the users of the From's domain sign in.
#[must_use]
pub fn served_at<'a>(settings: &'a Settings, message: &Message<'_>) -> Option<&'a HostPort> {
    let request = Request::read(*message).ok()?;
    let own = settings.own_domain(request.from.domain?)?;
    own.remote_users_edge.as_ref()
}

/// Anonymous users join conferences and do nothing else (MS-SIPAE 3.2.4.3): what they start is for the
/// GRUU of a conference of ours, what they go on with is in its dialog.
fn admit_anonymous(
    settings: &Settings,
    request: &Request<'_>,
    routes: &Routes<'_>,
) -> Result<(), Refusal> {
    if !settings.anonymous_users {
        return Err(Refusal::Anonymous);
    }
    let params = request.uri.params;
    let to_conference = is_own(settings, request.uri.host)
        && params.get("gruu").is_some()
        && params
            .value("opaque")
            .is_some_and(|opaque| opaque.starts_with(b"app:conf:"));
    // CANCEL and the ACK of a refusal go where their INVITE went.
    let starts = matches!(
        request.method,
        b"INVITE" | b"ACK" | b"CANCEL" | b"INFO" | b"SUBSCRIBE" | b"OPTIONS" | b"SERVICE"
    );
    let goes_on = starts
        || matches!(
            request.method,
            b"BYE" | b"MESSAGE" | b"UPDATE" | b"PRACK" | b"NOTIFY" | b"BENOTIFY"
        );
    if (routes.in_dialog && goes_on) || (to_conference && starts) {
        refuse_chosen_server(routes)
    } else {
        Err(Refusal::Anonymous)
    }
}

/// What a partner's request asks for, as far as that can be told before anything is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The domain that the partner has to be proven for.
    pub from: HostName,
    /// The edge of another partner that it is for: we are their clearing house.
    pub transit: Option<HostPort>,
}

/// Checks that hold for partners before anything is proven.
pub fn admit_partner(
    settings: &Settings,
    request: &Request<'_>,
    routes: &Routes<'_>,
) -> Result<Errand, Refusal> {
    admit_federated_method(settings, request)?;
    let transit = transit(settings, request);
    // Between partners the To decides; what is left of the route is for the next edge.
    if transit.is_none() {
        refuse_chosen_server(routes)?;
    }
    let to_ours = request
        .to
        .domain
        .is_some_and(|domain| settings.own_domain(domain).is_some());
    let for_us = to_ours && is_own(settings, request.uri.host);
    if !routes.in_dialog && !for_us && transit.is_none() {
        return Err(Refusal::RelayDenied);
    }
    let domain = request.from.domain.ok_or(Refusal::DomainDenied)?;
    if settings.own_domain(domain).is_some() || domain.eq_ignore_ascii_case(ANONYMOUS_DOMAIN) {
        return Err(Refusal::DomainDenied);
    }
    let from = domain.parse().map_err(|_| Refusal::DomainDenied)?;
    Ok(Errand { from, transit })
}

/// Where a clearing house passes a request on: to a partner that is listed by name, and to nobody else.
fn transit(settings: &Settings, request: &Request<'_>) -> Option<HostPort> {
    let rules = &settings.federation;
    if !rules.clearing_house {
        return None;
    }
    match rules.of_domain(&request.to.domain?.parse().ok()?) {
        DomainRule::Direct(target) => Some(target),
        DomainRule::Blocked
        | DomainRule::Unlisted
        | DomainRule::Automatic
        | DomainRule::Discovered
        | DomainRule::Provider(_)
        | DomainRule::InPublicCloud
        | DomainRule::DefaultRoute(_) => None,
    }
}

/// A stranger has no business with our servers' names unless a dialog of ours told them.
fn refuse_chosen_server(routes: &Routes<'_>) -> Result<(), Refusal> {
    if routes.in_dialog || routes.next.is_empty() {
        Ok(())
    } else {
        Err(Refusal::RouteInvalid)
    }
}

/// Checks that hold for what goes to or comes from a partner.
pub fn admit_federated_method(settings: &Settings, request: &Request<'_>) -> Result<(), Refusal> {
    let exchanged = matches!(
        request.method,
        b"INVITE"
            | b"ACK"
            | b"BYE"
            | b"CANCEL"
            | b"OPTIONS"
            | b"MESSAGE"
            | b"INFO"
            | b"SUBSCRIBE"
            | b"NOTIFY"
            | b"BENOTIFY"
            | b"REFER"
            | b"UPDATE"
            | b"PRACK"
    );
    if settings.federation.enabled && exchanged {
        Ok(())
    } else {
        Err(Refusal::NotFederated)
    }
}

/// A name that is neither a domain of ours nor one of the edge's own; addresses are the next hop's to judge.
fn is_foreign(settings: &Settings, host: Host<'_>) -> bool {
    match host {
        Host::Name(name) => settings.own_domain(name).is_none() && !settings.is_own_host(name),
        Host::V4(_) | Host::V6(_) | Host::Doubtful => false,
    }
}

fn is_own(settings: &Settings, host: Host<'_>) -> bool {
    match host {
        Host::Name(name) => settings.own_domain(name).is_some(),
        Host::V4(_) | Host::V6(_) | Host::Doubtful => false,
    }
}

/// The domain of users who belong to nobody (MS-SIPAE).
const ANONYMOUS_DOMAIN: &str = "anonymous.invalid";
/// Option tags that a proxy has to know and we do; Communicator asks for the first one.
const EXTENSIONS: [&str; 4] = ["ms-benotify", "gruu-10", "outbound", "path"];

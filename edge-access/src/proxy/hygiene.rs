//! Which headers cross the edge: one table, by where a message comes from and where it goes.
//!
//! What is not in the table crosses untouched, and so does what clients sign. The inside tells users and
//! partners what is theirs to know; nobody outside tells the inside whom to trust. However a header is
//! written, its [`Name`] is the same, so the table is asked by name and no spelling slips through.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::sip::edit::Edits;
use edge_common::sip::header::name_addr::NameAddr;
use edge_common::sip::header::params::Params;
use edge_common::sip::header::{Element, Name, elements};
use edge_common::sip::message::{Header, Message};
use edge_common::sip::uri::{Host, Uri};

use super::settings::Settings;

/// A way across the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// From a client to the inside.
    FromClient,
    /// From another organisation's edge to the inside.
    FromPartner,
    /// To a client that the inside has not accepted yet.
    ToStranger,
    /// To a client that it has.
    ToUser,
    /// To another organisation's edge.
    ToPartner,
}

/// What becomes of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It crosses as it is.
    Pass,
    /// It goes, whole.
    Remove,
    /// It goes unless the operator lets diagnostics out that way.
    Diagnostics,
    /// It crosses without the name of the server that wrote it.
    NoSource,
    /// It crosses in the name of the edge instead of the server that warns.
    OwnAgent,
    /// It crosses without the text that a server wrote for people.
    NoText,
    /// It crosses if it names users of the sender's domain only and the sender does not hide.
    OfSender,
    /// It crosses if it names no host but SIP domains of ours or of either end.
    Domains,
}

use Name as N;
use Rule::{Diagnostics, Domains, NoSource, NoText, OfSender, OwnAgent, Pass, Remove};

/// The table. Its rows are tested one by one in every spelling that a header may have.
#[rustfmt::skip]
const TABLE: &[(Name, [Rule; WAYS])] = &[
    //                               inwards, from      outwards, to
    //                               client   partner   stranger     user      partner
    // Who sent it is for the edge to say, and to nobody outside (MS-SIPRE 2.2.15).
    (N::MsEdgeProxyMessageTrust,    [Remove,  Remove,   Remove,      Remove,   Remove]),
    (N::MsAssertedVerificationLevel,[Remove,  Remove,   Remove,      Remove,   Remove]),
    // The home server tells its user that he is outside.
    (N::MsUserLogonData,            [Remove,  Remove,   Pass,        Pass,     Remove]),
    // Servers say it about servers, and clients must not (MS-OCER 2.2.1.2).
    (N::MsDiagnostics,              [Remove,  Remove,   Diagnostics, Pass,     Diagnostics]),
    (N::MsDiagnosticsPublic,        [Remove,  NoSource, NoSource,    NoSource, NoSource]),
    (N::MsClientDiagnostics,        [Pass,    Remove,   Pass,        Pass,     Remove]),
    // The first hop agrees on it with the client; the edge puts its own answer in (MS-CONMGMT 2.2.1).
    (N::MsKeepAlive,                [Remove,  Remove,   Remove,      Remove,   Remove]),
    // Where a user sits.
    (N::MsSubnet,                   [Pass,    Remove,   Remove,      Pass,     Remove]),
    (N::MsEndpointLocationData,     [Pass,    Remove,   Remove,      Pass,     Remove]),
    (N::PAccessNetworkInfo,         [Remove,  Remove,   Remove,      Remove,   Remove]),
    // Clients sign it; a partner's word about identities counts for nothing inside (RFC 3325 §5, §6).
    (N::PAssertedIdentity,          [Pass,    Remove,   Pass,        Pass,     OfSender]),
    (N::PPreferredIdentity,         [Pass,    Remove,   Pass,        Pass,     Remove]),
    (N::RemotePartyId,              [Remove,  Remove,   Pass,        Pass,     Remove]),
    // Said within one domain of trust and nowhere else (RFC 6050 §4, RFC 7315 §5, RFC 5502 §6).
    (N::PAssertedService,           [Remove,  Remove,   Remove,      Remove,   Remove]),
    (N::PPreferredService,          [Pass,    Remove,   Remove,      Remove,   Remove]),
    (N::PServedUser,                [Remove,  Remove,   Remove,      Remove,   Remove]),
    (N::PVisitedNetworkId,          [Remove,  Remove,   Remove,      Remove,   Remove]),
    (N::PChargingVector,            [Remove,  Remove,   Remove,      Remove,   Remove]),
    (N::PChargingFunctionAddresses, [Remove,  Remove,   Remove,      Remove,   Remove]),
    // Users sign in to their own servers. No partner is told our users' credentials, tries any, or makes
    // our users give theirs.
    (N::Authorization,              [Pass,    Remove,   Pass,        Pass,     Remove]),
    (N::ProxyAuthorization,         [Pass,    Remove,   Pass,        Pass,     Remove]),
    (N::WwwAuthenticate,            [Pass,    Remove,   Pass,        Pass,     Remove]),
    (N::ProxyAuthenticate,          [Pass,    Remove,   Pass,        Pass,     Remove]),
    (N::AuthenticationInfo,         [Pass,    Remove,   Pass,        Pass,     Remove]),
    (N::ProxyAuthenticationInfo,    [Pass,    Remove,   Pass,        Pass,     Remove]),
    // What a server is and what it is called.
    (N::Server,                     [Pass,    Pass,     Remove,      Pass,     Remove]),
    (N::Warning,                    [Pass,    Pass,     OwnAgent,    Pass,     OwnAgent]),
    (N::Reason,                     [Pass,    Pass,     NoText,      Pass,     NoText]),
    (N::HistoryInfo,                [Pass,    Pass,     Domains,     Pass,     Domains]),
    (N::Diversion,                  [Pass,    Pass,     Domains,     Pass,     Domains]),
];

const WAYS: usize = 5;

/// [`TABLE`] by the number of the name.
const RULES: [[Rule; WAYS]; Name::COUNT] = {
    let mut rules = [[Pass; WAYS]; Name::COUNT];
    let mut row = 0;
    while row < TABLE.len() {
        rules[TABLE[row].0 as usize] = TABLE[row].1;
        row += 1;
    }
    rules
};

/// Takes out of a message what may not cross, or the part of it that may not.
pub fn apply(message: &Message<'_>, crossing: Crossing, settings: &Settings, edits: &mut Edits) {
    for header in message.headers() {
        let crosses = match RULES[header.name() as usize][crossing as usize] {
            Pass => continue,
            Remove => false,
            Diagnostics => lets_diagnostics_out(crossing, settings),
            NoSource => remove_param(message, header, "source", edits),
            OwnAgent => put_own_agent(message, header, settings, edits),
            NoText => remove_param(message, header, "text", edits),
            OfSender => !sender_hides(message) && is_of_sender(message, header),
            Domains => names_domains_only(message, header, settings),
        };
        if !crosses {
            edits.remove(header.range());
        }
    }
}

const fn lets_diagnostics_out(crossing: Crossing, settings: &Settings) -> bool {
    match crossing {
        Crossing::ToStranger => settings.disclosure.diagnostics_to_strangers,
        Crossing::ToPartner => settings.disclosure.diagnostics_to_partners,
        Crossing::FromClient | Crossing::FromPartner | Crossing::ToUser => false,
    }
}

/// `false`: the value cannot be read, so nobody knows what it gives away.
fn remove_param(message: &Message<'_>, header: Header<'_>, name: &str, edits: &mut Edits) -> bool {
    for element in elements(message.bytes(), header.value_range()) {
        let text = element.text();
        let start = text.iter().position(|&b| b == b';').unwrap_or(text.len());
        let Ok(params) = Params::parse(&text[start..]) else {
            return false;
        };
        for param in params.iter() {
            if param.name.eq_ignore_ascii_case(name.as_bytes()) {
                edits.remove(message.range_of(param.text));
            }
        }
    }
    true
}

/// `Warning: 399 agent "text", …` (RFC 3261 §20.43).
fn put_own_agent(
    message: &Message<'_>,
    header: Header<'_>,
    settings: &Settings,
    edits: &mut Edits,
) -> bool {
    for element in elements(message.bytes(), header.value_range()) {
        let words = element.text().splitn(3, u8::is_ascii_whitespace);
        let Some(agent) = words.skip(1).find(|word| !word.is_empty()) else {
            return false;
        };
        edits.replace(
            message.range_of(agent),
            settings.external.as_str().as_bytes(),
        );
    }
    true
}

/// `Privacy: id` (RFC 3325 §9.3).
fn sender_hides(message: &Message<'_>) -> bool {
    message.all(Name::Privacy).any(|header| {
        header
            .value()
            .split(|&b| matches!(b, b';' | b','))
            .any(|value| value.trim_ascii().eq_ignore_ascii_case(b"id"))
    })
}

/// Whether all asserted identities are SIP addresses of the From's domain; telephone numbers stay inside.
fn is_of_sender(message: &Message<'_>, header: Header<'_>) -> bool {
    let Some(domain) = message
        .first(Name::From)
        .and_then(|from| domain_of(from.value()))
    else {
        return false;
    };
    elements(message.bytes(), header.value_range()).all(|identity| {
        domain_of(identity.text()).is_some_and(|own| own.eq_ignore_ascii_case(domain))
    })
}

fn names_domains_only(message: &Message<'_>, header: Header<'_>, settings: &Settings) -> bool {
    let of = |name| message.first(name).and_then(|end| domain_of(end.value()));
    let ends = [of(Name::From), of(Name::To)];
    let lawful = |member: Element<'_>| {
        let Ok(address) = NameAddr::parse(member.text()) else {
            return false;
        };
        // A Reason that is folded into the URI has a text as well (RFC 7044 §5).
        let Ok(uri) = Uri::parse(address.uri) else {
            return false;
        };
        let Host::Name(host) = uri.host else {
            return false;
        };
        uri.headers.is_none()
            && (settings.own_domain(host).is_some()
                || ends
                    .iter()
                    .flatten()
                    .any(|end| end.eq_ignore_ascii_case(host)))
    };
    elements(message.bytes(), header.value_range()).all(lawful)
}

/// The domain of an address's SIP URI.
pub(super) fn domain_of(address: &[u8]) -> Option<&str> {
    let uri = Uri::parse(NameAddr::parse(address).ok()?.uri).ok()?;
    match uri.host {
        Host::Name(name) => Some(name),
        Host::V4(_) | Host::V6(_) | Host::Doubtful => None,
    }
}

#[cfg(test)]
#[path = "tests/hygiene.rs"]
mod tests;

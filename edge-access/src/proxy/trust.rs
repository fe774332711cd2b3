//! What the inside may believe, and what outsiders may see.
//!
//! Headers by which servers trust each other are taken off whatever comes from outside, however they
//! are written; then the edge says in `ms-edge-proxy-message-trust` where the message came from
//! (MS-SIPRE 2.2.15). What clients sign is never touched.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::host_name::HostName;
use edge_common::sip::edit::Edits;
use edge_common::sip::header::name_addr::NameAddr;
use edge_common::sip::header::{Name, elements};
use edge_common::sip::message::{Header, Message};
use edge_common::sip::uri::{Host, Uri};

use super::flow::PartnerKind;
use super::token::Realm;

/// Where a message came from, as the inside is told.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A client outside.
    Client,
    /// A partner, proven.
    Partner(PartnerKind, &'a HostName),
    /// The edge made it itself.
    Edge,
}

impl Source<'_> {
    /// Appends the whole header line.
    pub fn write_header(self, edge: &HostName, out: &mut Vec<u8>) {
        let source = match self {
            Self::Client => "InternetUser",
            Self::Partner(PartnerKind::Direct, _) => "DirectPartner",
            Self::Partner(PartnerKind::Automatic | PartnerKind::Discovered, _) => "AutoFederation",
            Self::Edge => "EdgeProxyGenerated",
        };
        let mut push = |text: &str| out.extend_from_slice(text.as_bytes());
        push(Name::MsEdgeProxyMessageTrust.as_str());
        push(": ms-source-type=");
        push(source);
        push(";ms-ep-fqdn=");
        push(edge.as_str());
        match self {
            Self::Client => push(";ms-source-verified-user=verified"),
            Self::Partner(_, remote) => {
                push(
                    ";ms-source-verified-user=verified;ms-source-network=federation;ms-remote-fqdn=",
                );
                push(remote.as_str());
            }
            Self::Edge => {}
        }
        push("\r\n");
    }
}

/// Takes out of a message what may not cross from `from` to `to`.
pub fn strip(message: &Message<'_>, from: Realm, to: Realm, edits: &mut Edits) {
    for header in message.headers() {
        if !may_cross(message, header, from, to) {
            edits.remove(header.range());
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every header that is not named here is the users' own"
)]
fn may_cross(message: &Message<'_>, header: Header<'_>, from: Realm, to: Realm) -> bool {
    match header.name() {
        Name::MsEdgeProxyMessageTrust => false,
        Name::MsUserLogonData => from == Realm::Inside && to == Realm::Client,
        Name::MsAssertedVerificationLevel => false,
        // Both are said by servers about servers; clients must not send them.
        Name::MsDiagnostics | Name::MsDiagnosticsPublic if from == Realm::Client => false,
        Name::MsDiagnostics => from == Realm::Inside && to == Realm::Client,
        Name::MsClientDiagnostics | Name::MsSubnet | Name::MsEndpointLocationData => {
            from != Realm::Partner && to != Realm::Partner
        }
        // A first hop's affair; the answer is put into the 2xx by the edge.
        Name::MsKeepAlive => from == Realm::Inside && to == Realm::Client,
        Name::AuthenticationInfo => to != Realm::Partner,
        // Clients sign it; a partner's word about identities counts for nothing inside.
        Name::PAssertedIdentity | Name::PPreferredIdentity if from == Realm::Partner => false,
        Name::PAssertedIdentity if to == Realm::Partner => is_of_sender(message, header),
        Name::PPreferredIdentity => to != Realm::Partner,
        _ => true,
    }
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

/// The domain of an address's SIP URI.
fn domain_of(address: &[u8]) -> Option<&str> {
    let uri = Uri::parse(NameAddr::parse(address).ok()?.uri).ok()?;
    match uri.host {
        Host::Name(name) => Some(name),
        Host::V4(_) | Host::V6(_) | Host::Doubtful => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::sip::parse::Index;

    const HEADERS: &str = "From: <sip:a@contoso.test>;tag=1\r\n\
        MS-Edge-Proxy-Message-Trust : ms-source-type=AuthorizedServer\r\n ;ms-ep-fqdn=x\r\n\
        ms-user-logon-data: RemoteUser\r\n\
        ms-asserted-verification-level: ms-source-verified-user=verified\r\n\
        ms-diagnostics: 1;source=\"inner\"\r\n\
        ms-diagnostics-public: 1\r\n\
        ms-client-diagnostics: 2\r\n\
        ms-keep-alive: UAC;hop-hop=yes\r\n\
        Authentication-Info: NTLM x\r\n\
        P-Asserted-Identity: <sip:a@contoso.test>\r\n\
        P-Asserted-Identity: <tel:+1>\r\n\
        X-Unknown: kept\r\n";

    fn left(from: Realm, to: Realm) -> Vec<String> {
        let bytes = format!("MESSAGE sip:b@c SIP/2.0\r\n{HEADERS}\r\n");
        let mut index = Index::new(99);
        let message = Message::parse(bytes.as_bytes(), &mut index).expect("lawful");
        let (mut edits, mut out) = (Edits::new(), Vec::new());
        strip(&message, from, to, &mut edits);
        edits.write(bytes.as_bytes(), &mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(!text.contains("ms-ep-fqdn"), "a folded header goes whole");
        let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
        text.lines()
            .skip(1)
            .filter(|l| !l.is_empty())
            .map(name)
            .collect()
    }

    #[test]
    fn a_client_keeps_what_it_signs_and_loses_what_servers_say() {
        assert_eq!(
            left(Realm::Client, Realm::Inside),
            [
                "From",
                "ms-client-diagnostics",
                "Authentication-Info",
                "P-Asserted-Identity",
                "P-Asserted-Identity",
                "X-Unknown"
            ]
        );
    }

    #[test]
    fn a_partner_asserts_nothing() {
        assert_eq!(
            left(Realm::Partner, Realm::Inside),
            [
                "From",
                "ms-diagnostics-public",
                "Authentication-Info",
                "X-Unknown"
            ]
        );
    }

    #[test]
    fn a_partner_sees_no_inner_workings_and_no_telephone_number() {
        assert_eq!(
            left(Realm::Inside, Realm::Partner),
            [
                "From",
                "ms-diagnostics-public",
                "P-Asserted-Identity",
                "X-Unknown"
            ]
        );
    }

    #[test]
    fn a_client_hears_its_home_server() {
        let seen = left(Realm::Inside, Realm::Client);
        for name in [
            "ms-user-logon-data",
            "Authentication-Info",
            "ms-diagnostics",
        ] {
            assert!(seen.iter().any(|header| header == name), "{name}");
        }
    }

    #[test]
    fn the_inside_is_told_where_a_message_came_from() {
        let (edge, remote) = ("edge.contoso.internal", "sip.fabrikam.test");
        let (edge, remote): (HostName, HostName) =
            (edge.parse().expect("name"), remote.parse().expect("name"));
        let text = |source: Source<'_>| {
            let mut out = Vec::new();
            source.write_header(&edge, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(
            text(Source::Client),
            "ms-edge-proxy-message-trust: ms-source-type=InternetUser;ms-ep-fqdn=edge.contoso.internal;\
             ms-source-verified-user=verified\r\n"
        );
        assert_eq!(
            text(Source::Partner(PartnerKind::Automatic, &remote)),
            "ms-edge-proxy-message-trust: ms-source-type=AutoFederation;ms-ep-fqdn=edge.contoso.internal;\
             ms-source-verified-user=verified;ms-source-network=federation;ms-remote-fqdn=sip.fabrikam.test\r\n"
        );
    }
}

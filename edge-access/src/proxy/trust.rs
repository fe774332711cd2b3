//! What the inside may believe: the edge says in `ms-edge-proxy-message-trust` where a message came from
//! (MS-SIPRE 2.2.15). What others say of that is taken off before ([`super::hygiene`]).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::config::Verification;
use edge_common::host_name::HostName;
use edge_common::sip::header::Name;
use edge_common::sip::message::Message;

use super::flow::PartnerKind;
use super::hygiene;

/// Where a message came from, as the inside is told.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A client outside.
    Client,
    /// A partner, proven.
    Partner {
        /// By which rule.
        kind: PartnerKind,
        /// Its edge.
        host: &'a HostName,
        /// Somebody vouches for the user who sent it.
        verified: bool,
    },
    /// The edge made it itself.
    Edge,
}

impl Source<'_> {
    /// Appends the whole header line.
    pub fn write_header(self, edge: &HostName, out: &mut Vec<u8>) {
        let source = match self {
            Self::Client => "InternetUser",
            Self::Partner { kind, .. } => source_type(kind),
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
            Self::Partner {
                kind,
                host,
                verified,
            } => {
                push(if verified {
                    ";ms-source-verified-user=verified"
                } else {
                    ";ms-source-verified-user=unverified"
                });
                push(if is_public(kind) {
                    ";ms-source-network=publiccloud"
                } else {
                    ";ms-source-network=federation"
                });
                push(";ms-remote-fqdn=");
                push(host.as_str());
            }
            Self::Edge => {}
        }
        push("\r\n");
    }
}

const fn source_type(kind: PartnerKind) -> &'static str {
    match kind {
        PartnerKind::PublicProvider
        | PartnerKind::HostingProvider
        | PartnerKind::DefaultRoute { public: true } => "AuthorizedServer",
        // A clearing house has no word of its own in the header's grammar.
        PartnerKind::Direct | PartnerKind::DefaultRoute { public: false } => "DirectPartner",
        PartnerKind::Automatic | PartnerKind::Discovered => "AutoFederation",
    }
}

const fn is_public(kind: PartnerKind) -> bool {
    matches!(
        kind,
        PartnerKind::PublicProvider | PartnerKind::DefaultRoute { public: true }
    )
}

/// Whether the sender of a partner's message counts as verified.
#[must_use]
pub fn is_verified(message: &Message<'_>, rule: Verification) -> bool {
    match rule {
        Verification::Always => true,
        Verification::Never => false,
        Verification::Source => message
            .first(Name::MsAssertedVerificationLevel)
            .is_some_and(|header| header.value().eq_ignore_ascii_case(VERIFIED)),
    }
}

/// Appends what tells a partner's edge that we verified the sender.
pub fn write_asserted(out: &mut Vec<u8>) {
    out.extend_from_slice(Name::MsAssertedVerificationLevel.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(VERIFIED);
    out.extend_from_slice(b"\r\n");
}

/// What edges say to each other of a sender.
const VERIFIED: &[u8] = b"ms-source-verified-user=verified";

/// The domain of the SIP address in a header that stands once.
pub(super) fn domain_in<'a>(message: &Message<'a>, name: Name) -> Option<&'a str> {
    hygiene::domain_of(message.first(name)?.value())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            text(Source::Partner {
                kind: PartnerKind::Automatic,
                host: &remote,
                verified: true
            }),
            "ms-edge-proxy-message-trust: ms-source-type=AutoFederation;ms-ep-fqdn=edge.contoso.internal;\
             ms-source-verified-user=verified;ms-source-network=federation;ms-remote-fqdn=sip.fabrikam.test\r\n"
        );
        assert_eq!(
            text(Source::Partner {
                kind: PartnerKind::PublicProvider,
                host: &remote,
                verified: false
            }),
            "ms-edge-proxy-message-trust: ms-source-type=AuthorizedServer;ms-ep-fqdn=edge.contoso.internal;\
             ms-source-verified-user=unverified;ms-source-network=publiccloud;ms-remote-fqdn=sip.fabrikam.test\r\n"
        );
    }
}

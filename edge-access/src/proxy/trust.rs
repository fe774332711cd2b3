//! What the inside may believe: the edge says in `ms-edge-proxy-message-trust` where a message came from
//! (MS-SIPRE 2.2.15). What others say of that is taken off before ([`super::hygiene`]).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::host_name::HostName;
use edge_common::sip::header::Name;

use super::flow::PartnerKind;

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
            text(Source::Partner(PartnerKind::Automatic, &remote)),
            "ms-edge-proxy-message-trust: ms-source-type=AutoFederation;ms-ep-fqdn=edge.contoso.internal;\
             ms-source-verified-user=verified;ms-source-network=federation;ms-remote-fqdn=sip.fabrikam.test\r\n"
        );
    }
}

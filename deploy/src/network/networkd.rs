//! The network as files for systemd-networkd and sysctl.d.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::side::Side;
use ipnet::IpNet;

use super::{Link, Network, Table, Way};
use crate::plan::{Document, line};

/// One `.network` file per side and one file for sysctl.d, with paths below `/etc`.
#[must_use]
pub fn files(network: &Network) -> Vec<Document> {
    let mut files: Vec<Document> = network
        .links
        .iter()
        .map(|(side, link)| Document {
            path: format!("systemd/network/10-edge-{side}.network").into(),
            text: link_file(side, link),
        })
        .collect();
    files.push(Document {
        path: "sysctl.d/60-edge.conf".into(),
        text: sysctl_file(network),
    });
    files
}

fn link_file(side: Side, link: &Link) -> String {
    let mut out = format!(
        "# The {side} side of this edge host. {MADE}\n[Match]\nName={}\n",
        link.interface
    );
    out.push_str(
        "\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\nIPForward=no\nLLMNR=no\nMulticastDNS=no\n",
    );
    for address in &link.addresses {
        line(&mut out, format_args!("\n[Address]\nAddress={address}"));
        if matches!(address, IpNet::V6(_)) {
            // The daemons bind at once; an address that is still being checked for a twin cannot be bound.
            out.push_str("DuplicateAddressDetection=none\n");
        }
    }
    for route in &link.routes {
        line(
            &mut out,
            format_args!("\n[Route]\nDestination={}", route.destination),
        );
        match route.way {
            Way::Via(gateway) => line(&mut out, format_args!("Gateway={gateway}")),
            Way::OnLink => out.push_str("Scope=link\n"),
            Way::Prohibit => out.push_str("Type=prohibit\n"),
        }
        match route.table {
            Table::Main => {}
            Table::Own => line(&mut out, format_args!("Table={}", link.table)),
        }
    }
    for rule in &link.rules {
        line(
            &mut out,
            format_args!(
                "\n[RoutingPolicyRule]\nFrom={}\nTable={}\nPriority={}",
                rule.from, link.table, rule.priority
            ),
        );
    }
    out
}

fn sysctl_file(network: &Network) -> String {
    let mut out = format!("# {MADE}\n");
    for (key, value) in &network.sysctls {
        line(&mut out, format_args!("{key} = {value}"));
    }
    out
}

const MADE: &str = "Made by `edgectl render network`: change edge.toml.";

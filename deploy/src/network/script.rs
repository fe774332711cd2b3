//! The network as a plain shell script, for hosts without systemd-networkd and for network namespaces.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use ipnet::IpNet;

use super::{Link, Network, Table, Way};
use crate::plan::line;

/// A script that may be run again: it replaces what an earlier run has set.
#[must_use]
pub fn script(network: &Network) -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n# kernel settings\n");
    for (key, value) in &network.sysctls {
        line(&mut out, format_args!("sysctl -qw {key}={}", quoted(value)));
    }
    for (side, link) in network.links.iter() {
        line(&mut out, format_args!("\n# {side} side"));
        one_link(&mut out, link);
    }
    out
}

fn one_link(out: &mut String, link: &Link) {
    let interface = quoted(&link.interface);
    for address in &link.addresses {
        // The daemons bind at once; an address that is still being checked for a twin cannot be bound.
        let nodad = match address {
            IpNet::V4(_) => "",
            IpNet::V6(_) => " nodad",
        };
        line(
            out,
            format_args!("ip address replace {address} dev {interface}{nodad}"),
        );
    }
    line(out, format_args!("ip link set {interface} up"));
    for family in families(&link.addresses) {
        line(
            out,
            format_args!(
                "ip {family} route flush table {} 2>/dev/null || true",
                link.table
            ),
        );
    }
    for route in &link.routes {
        let way = match route.way {
            Way::Via(gateway) => format!("via {gateway} dev {interface}"),
            Way::OnLink => format!("dev {interface}"),
            Way::Prohibit => String::new(),
        };
        let kind = match route.way {
            Way::Prohibit => "prohibit ",
            Way::Via(_) | Way::OnLink => "",
        };
        let table = match route.table {
            Table::Main => String::new(),
            Table::Own => format!(" table {}", link.table),
        };
        let command = format!(
            "ip {} route replace {kind}{} {way}{table}",
            family(route.destination),
            route.destination,
        );
        line(out, format_args!("{}", single_spaced(&command)));
    }
    for rule in &link.rules {
        let family = family(IpNet::from(rule.from));
        let priority = rule.priority;
        line(
            out,
            format_args!("ip {family} rule delete priority {priority} 2>/dev/null || true"),
        );
        line(
            out,
            format_args!(
                "ip {family} rule add from {} lookup {} priority {priority}",
                rule.from, link.table
            ),
        );
    }
}

const fn family(network: IpNet) -> &'static str {
    match network {
        IpNet::V4(_) => "-4",
        IpNet::V6(_) => "-6",
    }
}

fn families(addresses: &[IpNet]) -> Vec<&'static str> {
    let mut families: Vec<&str> = addresses.iter().copied().map(family).collect();
    families.sort_unstable();
    families.dedup();
    families
}

fn single_spaced(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// As one word of the shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

const HEAD: &str = "#!/bin/sh
# Addresses, routes and kernel settings of this edge host. Made by `edgectl render network`: change edge.toml.
set -eu
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_blanks_or_quotes_stays_one_word() {
        assert_eq!(quoted("ext"), "ext");
        assert_eq!(quoted("20000 49999"), "'20000 49999'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted(""), "''");
    }
}

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! What each address of contoso's edge offers to the Internet: the scans knock at everything else, and
//! the meters behind the firewall count whatever came through all the same.

use super::counters::SYN;
use super::plan::{CONTOSO, ipv6};
use std::ops::RangeInclusive;

/// One address with its open ports.
#[derive(Clone, Debug)]
pub struct Door {
    /// Letters, digits and underscores: part of the names of its meters.
    pub name: &'static str,
    /// The address as the Internet sends to it.
    pub address: &'static str,
    /// The address that the edge host itself holds.
    pub held: &'static str,
    /// TCP ports with a listener.
    pub tcp: &'static [u16],
    /// UDP ports that pass the firewall.
    pub udp: &'static [RangeInclusive<u16>],
}

/// Every address to which the Internet has a route, the internal one too: nothing is open there.
#[must_use]
pub fn all(av_held: &'static str) -> [Door; 5] {
    let closed = |name, address| Door {
        name,
        address,
        held: address,
        tcp: &[],
        udp: &[],
    };
    let relay = |name, address, held| Door {
        held,
        tcp: &[443],
        udp: MEDIA,
        ..closed(name, address)
    };
    [
        Door {
            tcp: &[443, 5061],
            ..closed("access", CONTOSO.access)
        },
        Door {
            tcp: &[443],
            ..closed("webconf", CONTOSO.webconf)
        },
        relay("av", CONTOSO.av, av_held),
        relay("av6", ipv6::AV, ipv6::AV),
        closed("internal", CONTOSO.internal),
    ]
}

impl Door {
    /// Whether a datagram to that port may pass.
    #[must_use]
    pub fn lets_in(&self, port: u16) -> bool {
        self.udp.iter().any(|range| range.contains(&port))
    }

    /// The meter of connection attempts that should not have passed the firewall.
    #[must_use]
    pub fn stray_tcp(&self) -> (String, String) {
        let open: Vec<_> = self.tcp.iter().map(ToString::to_string).collect();
        let rule = self.past("tcp", &open);
        (format!("stray_tcp_{}", self.name), format!("{rule} {SYN}"))
    }

    /// The meter of datagrams that should not have. Answers to what the host asked are no strays.
    #[must_use]
    pub fn stray_udp(&self) -> (String, String) {
        let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let open: Vec<_> = self.udp.iter().map(range).collect();
        let rule = self.past("udp", &open);
        let name = format!("stray_udp_{}", self.name);
        (name, format!("{rule} ct state new,untracked"))
    }

    /// The meter of knocks that came as far as the last router before the host.
    #[must_use]
    pub fn knocks(&self, transport: &str) -> (String, String) {
        let to = format!("oifname \"dmz\" {} daddr {}", self.family(), self.held);
        (
            format!("knocks_{transport}_{}", self.name),
            format!("{to} meta l4proto {transport}"),
        )
    }

    fn past(&self, transport: &str, open: &[String]) -> String {
        let to = format!("iifname \"ext\" {} daddr {}", self.family(), self.held);
        if open.is_empty() {
            format!("{to} meta l4proto {transport}")
        } else {
            format!("{to} {transport} dport != {{ {} }}", open.join(", "))
        }
    }

    fn family(&self) -> &'static str {
        if self.held.contains(':') { "ip6" } else { "ip" }
    }
}

/// TURN and the relay range.
const MEDIA: &[RangeInclusive<u16>] = &[3478..=3478, 50_000..=59_999];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_open_elsewhere_is_a_stray() {
        let doors = all(CONTOSO.av);
        let rules: Vec<_> = doors
            .iter()
            .flat_map(|door| [door.stray_tcp().1, door.stray_udp().1])
            .collect();
        assert_eq!(rules.join("\n") + "\n", RULES);
        for door in &doors {
            let media = door.name.starts_with("av");
            for port in [3478, 50_000, 59_999] {
                assert_eq!(door.lets_in(port), media, "{} {port}", door.name);
            }
            assert!(!door.lets_in(49_999) && !door.lets_in(60_000));
        }
    }

    const RULES: &str = "\
iifname \"ext\" ip daddr 198.51.100.10 tcp dport != { 443, 5061 } tcp flags & (syn | ack) == syn
iifname \"ext\" ip daddr 198.51.100.10 meta l4proto udp ct state new,untracked
iifname \"ext\" ip daddr 198.51.100.11 tcp dport != { 443 } tcp flags & (syn | ack) == syn
iifname \"ext\" ip daddr 198.51.100.11 meta l4proto udp ct state new,untracked
iifname \"ext\" ip daddr 198.51.100.12 tcp dport != { 443 } tcp flags & (syn | ack) == syn
iifname \"ext\" ip daddr 198.51.100.12 udp dport != { 3478, 50000-59999 } ct state new,untracked
iifname \"ext\" ip6 daddr 2001:db8:100::12 tcp dport != { 443 } tcp flags & (syn | ack) == syn
iifname \"ext\" ip6 daddr 2001:db8:100::12 udp dport != { 3478, 50000-59999 } ct state new,untracked
iifname \"ext\" ip daddr 10.10.0.10 meta l4proto tcp tcp flags & (syn | ack) == syn
iifname \"ext\" ip daddr 10.10.0.10 meta l4proto udp ct state new,untracked
";
}

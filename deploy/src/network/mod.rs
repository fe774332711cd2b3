//! The host's addresses, routes and kernel settings: one model, printed as a shell script or for
//! systemd-networkd.
//!
//! Each side has a routing table of its own, chosen by the source address, so an answer leaves where the
//! request came in:
//!
//! ```text
//!   from an external address ─► table 1001: default by the external gateway, inside networks prohibited
//!   from an internal address ─► table 1002: inside networks by the internal gateway, all else prohibited
//!   from no address yet      ─► main table: inside networks inside, the rest outside
//! ```
//!
//! A program that is confused about the sides gets an error from the kernel, never a packet on the wrong wire.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod networkd;
pub mod script;

use std::net::IpAddr;

use edge_common::config::Config;
use edge_common::ports::PortRange;
use edge_common::side::{Side, SidePair};
use ipnet::IpNet;

/// All that one host needs to stand between its two networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The two interfaces.
    pub links: SidePair<Link>,
    /// Kernel settings: key and value, in the order in which they are set.
    pub sysctls: Vec<(String, String)>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub interface: String,
    /// Its addresses with the prefixes of the link.
    pub addresses: Vec<IpNet>,
    /// Its own routing table.
    pub table: u32,
    /// Routes in the main table and in its own.
    pub routes: Vec<Route>,
    /// Who uses its own table.
    pub rules: Vec<Rule>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// By which way.
    pub way: Way,
    /// In which table.
    pub table: Table,
}

/// How a destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a router on the link.
    Via(IpAddr),
    /// It is on the link.
    OnLink,
    /// Not at all: the sender gets an error.
    Prohibit,
}

/// Which routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The one of everybody.
    Main,
    /// The one of the link.
    Own,
}

/// Packets from this address are routed by the link's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The source.
    pub from: IpAddr,
    /// Its place among the rules.
    pub priority: u32,
}

/// What this member of the configured edge needs.
#[must_use]
pub fn network(config: &Config) -> Network {
    let links = SidePair::from_fn(|side| link(config, side));
    let sysctls = sysctls(config, &links);
    Network { links, sysctls }
}

fn link(config: &Config, side: Side) -> Link {
    let member = config.local();
    let (interface, addresses, routes) = match side {
        Side::External => (
            &config.external.interface,
            &member.external.addresses,
            external_routes(config),
        ),
        Side::Internal => (
            &config.internal.interface,
            &member.internal.addresses,
            internal_routes(config),
        ),
    };
    let first = match side {
        Side::External => EXTERNAL_PRIORITY,
        Side::Internal => INTERNAL_PRIORITY,
    };
    Link {
        interface: interface.clone(),
        addresses: addresses.clone(),
        table: match side {
            Side::External => EXTERNAL_TABLE,
            Side::Internal => INTERNAL_TABLE,
        },
        routes,
        rules: (first..)
            .zip(addresses)
            .map(|(priority, net)| Rule {
                from: net.addr(),
                priority,
            })
            .collect(),
    }
}

fn external_routes(config: &Config) -> Vec<Route> {
    let mut routes = on_link(&config.local().external.addresses);
    for network in &config.external.networks {
        let Some(gateway) = gateway_for(*network, &config.external.gateway) else {
            continue;
        };
        for table in [Table::Main, Table::Own] {
            routes.push(Route {
                destination: network.trunc(),
                way: Way::Via(gateway),
                table,
            });
        }
    }
    // Longer than any route above, or equal to none: the check keeps inside networks off the external side.
    for network in inside(config) {
        routes.push(Route {
            destination: network,
            way: Way::Prohibit,
            table: Table::Own,
        });
    }
    routes
}

fn internal_routes(config: &Config) -> Vec<Route> {
    let addresses = &config.local().internal.addresses;
    let links: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
    let mut routes = on_link(addresses);
    for network in &config.internal.networks {
        let network = network.trunc();
        if links.iter().any(|link| link.contains(&network)) {
            continue;
        }
        let Some(gateway) = gateway_for(network, &config.internal.gateway) else {
            continue;
        };
        for table in [Table::Main, Table::Own] {
            routes.push(Route {
                destination: network,
                way: Way::Via(gateway),
                table,
            });
        }
    }
    for everything in [
        IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(ipnet::Ipv6Net::default()),
    ] {
        if links.iter().any(|link| is_same_family(*link, everything)) {
            routes.push(Route {
                destination: everything,
                way: Way::Prohibit,
                table: Table::Own,
            });
        }
    }
    routes
}

/// The links themselves, in the link's own table; the kernel puts them into the main table by itself.
fn on_link(addresses: &[IpNet]) -> Vec<Route> {
    let mut links: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
    links.sort_unstable();
    links.dedup();
    links
        .into_iter()
        .map(|destination| Route {
            destination,
            way: Way::OnLink,
            table: Table::Own,
        })
        .collect()
}

fn inside(config: &Config) -> Vec<IpNet> {
    let links = config.local().internal.addresses.iter();
    let networks: Vec<IpNet> = config
        .internal
        .networks
        .iter()
        .chain(links)
        .map(IpNet::trunc)
        .collect();
    IpNet::aggregate(&networks)
}

fn gateway_for(network: IpNet, gateways: &[IpAddr]) -> Option<IpAddr> {
    gateways
        .iter()
        .copied()
        .find(|gateway| is_same_family(IpNet::from(*gateway), network))
}

const fn is_same_family(one: IpNet, other: IpNet) -> bool {
    matches!(
        (one, other),
        (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
    )
}

fn sysctls(config: &Config, links: &SidePair<Link>) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut set = |key: String, value: &str| settings.push((key, value.to_owned()));
    // A host, not a router.
    set("net.ipv4.ip_forward".into(), "0");
    set("net.ipv6.conf.all.forwarding".into(), "0");
    let interfaces = links.iter().map(|(_, link)| link.interface.as_str());
    for name in ["all", "default"].into_iter().chain(interfaces) {
        for (family, key, value) in PER_INTERFACE {
            set(setting(family, name, key), value);
        }
    }
    set("net.ipv4.tcp_syncookies".into(), "1");
    let range = ephemeral_ports(config);
    set(
        "net.ipv4.ip_local_port_range".into(),
        &format!("{} {}", range.first(), range.last()),
    );
    settings
}

/// Slashes, because an interface may have a dot in its name.
fn setting(family: &str, interface: &str, key: &str) -> String {
    if interface.contains('.') {
        format!("net/{family}/conf/{interface}/{key}")
    } else {
        format!("net.{family}.conf.{interface}.{key}")
    }
}

/// The longest run of ports for outgoing connections that holds no relay port: a DNS query must not sit on a
/// port that the relay believes to be its own.
fn ephemeral_ports(config: &Config) -> PortRange {
    let everything = PortRange::new(EPHEMERAL_FIRST, u16::MAX).unwrap_or(PortRange::ANY);
    let Some(relay) = config.av.as_ref().map(|av| av.relay_ports) else {
        return everything;
    };
    let above = relay.last().checked_add(1);
    [
        PortRange::new(EPHEMERAL_FIRST, relay.first().saturating_sub(1)),
        above.and_then(|first| PortRange::new(first.max(EPHEMERAL_FIRST), u16::MAX)),
        // Only a relay range that takes all the rest leads here.
        PortRange::new(EPHEMERAL_FIRST_AT_NEED, EPHEMERAL_FIRST - 1),
    ]
    .into_iter()
    .flatten()
    .filter(|range| !range.overlaps(relay))
    .max_by_key(|range| range.count())
    .unwrap_or(everything)
}

/// Well above the services' own ports.
const EPHEMERAL_FIRST: u16 = 20_000;

/// Just above them.
const EPHEMERAL_FIRST_AT_NEED: u16 = 10_000;

const EXTERNAL_TABLE: u32 = 1001;
const INTERNAL_TABLE: u32 = 1002;

/// Before the main table's 32766.
const EXTERNAL_PRIORITY: u32 = 10_000;
const INTERNAL_PRIORITY: u32 = 11_000;

/// Strict reverse-path filter; ARP answers and questions only with addresses of the interface itself; routes
/// and addresses from nobody else.
const PER_INTERFACE: [(&str, &str, &str); 10] = [
    ("ipv4", "rp_filter", "1"),
    ("ipv4", "arp_ignore", "1"),
    ("ipv4", "arp_announce", "2"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "secure_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "accept_source_route", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "accept_redirects", "0"),
    ("ipv6", "accept_source_route", "0"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn ephemeral(relay: &str) -> String {
        let mut config = fixture::single();
        config.av.as_mut().unwrap().relay_ports = relay.parse().unwrap();
        ephemeral_ports(&config).to_string()
    }

    #[test]
    fn outgoing_connections_never_sit_on_a_relay_port() {
        assert_eq!(ephemeral("50000-59999"), "20000-49999");
        assert_eq!(ephemeral("20000-29999"), "30000-65535");
        assert_eq!(ephemeral("15000-65535"), "20000-65535", "nothing is left");
        assert_eq!(ephemeral("20000-65535"), "10000-19999");
        let mut config = fixture::single();
        config.av = None;
        assert_eq!(ephemeral_ports(&config).to_string(), "20000-65535");
    }

    #[test]
    fn outside_addresses_never_reach_the_inside_nor_inside_addresses_the_outside() {
        let network = network(&fixture::single());
        let prohibited = |side: Side| {
            let routes = network.links[side].routes.iter();
            let prohibited =
                routes.filter(|route| route.way == Way::Prohibit && route.table == Table::Own);
            prohibited
                .map(|route| route.destination.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(prohibited(Side::External), ["10.10.0.0/16"]);
        assert_eq!(prohibited(Side::Internal), ["0.0.0.0/0"]);
    }

    #[test]
    fn an_interface_with_a_dot_keeps_its_name_in_sysctl_keys() {
        let mut config = fixture::single();
        config.external.interface = "bond0.7".into();
        let keys: Vec<String> = network(&config)
            .sysctls
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert!(
            keys.contains(&"net/ipv4/conf/bond0.7/rp_filter".to_owned()),
            "{keys:?}"
        );
    }
}

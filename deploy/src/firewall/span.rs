//! Lists of networks as the kernel keeps them.
//!
//! A set with a network in it is an interval set: nft merges what touches, and lists what it has merged. The
//! plan does the same beforehand, so that both lists can be compared.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// One element of a set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A single address.
    One(IpAddr),
    /// A network.
    Net(IpNet),
    /// From the first to the last, which together are no network.
    Range(IpAddr, IpAddr),
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => write!(f, "{address}"),
            Self::Net(network) => write!(f, "{network}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// The elements of a set of `networks`, which are of one family.
#[must_use]
pub fn spans(networks: &[IpNet]) -> Vec<Span> {
    let mut networks = networks.to_vec();
    networks.sort_unstable();
    networks.dedup();
    if networks
        .iter()
        .all(|network| network.prefix_len() == network.max_prefix_len())
    {
        return networks
            .iter()
            .map(|network| Span::One(network.addr()))
            .collect();
    }
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for network in &networks {
        let (first, last) = (number(network.network()), number(network.broadcast()));
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            Some(_) | None => merged.push((first, last)),
        }
    }
    let is_v4 = matches!(networks.first(), Some(IpNet::V4(_)));
    merged
        .into_iter()
        .map(|(first, last)| span(address(first, is_v4), address(last, is_v4)))
        .collect()
}

fn span(first: IpAddr, last: IpAddr) -> Span {
    if first == last {
        return Span::One(first);
    }
    let longest = IpNet::from(first).max_prefix_len();
    (0..longest)
        .filter_map(|length| IpNet::new(first, length).ok())
        .find(|network| network.network() == first && network.broadcast() == last)
        .map_or(Span::Range(first, last), Span::Net)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, is_v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_v4 => IpAddr::V4(Ipv4Addr::from(number)),
        Ok(_) | Err(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(networks: &[&str]) -> String {
        let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
        let spans: Vec<String> = spans(&networks).iter().map(Span::to_string).collect();
        spans.join(" ")
    }

    #[test]
    fn single_addresses_stay_single() {
        assert_eq!(
            spelled(&["10.0.0.2/32", "10.0.0.1/32", "10.0.0.2/32"]),
            "10.0.0.1 10.0.0.2"
        );
    }

    #[test]
    fn neighbours_merge_once_a_network_is_among_them() {
        assert_eq!(
            spelled(&["10.0.1.0/24", "10.0.2.0/24"]),
            "10.0.1.0-10.0.2.255"
        );
        assert_eq!(spelled(&["10.0.2.0/24", "10.0.3.0/24"]), "10.0.2.0/23");
        assert_eq!(
            spelled(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32"]),
            "10.0.0.0/8 192.0.2.1"
        );
        assert_eq!(
            spelled(&["2001:db9::/32", "2001:dba::/32", "::/128"]),
            ":: 2001:db9::-2001:dba:ffff:ffff:ffff:ffff:ffff:ffff"
        );
    }

    #[test]
    fn everything_is_one_network() {
        assert_eq!(spelled(&["0.0.0.0/1", "128.0.0.0/1"]), "0.0.0.0/0");
        assert_eq!(spelled(&["::/1", "8000::/1"]), "::/0");
    }
}

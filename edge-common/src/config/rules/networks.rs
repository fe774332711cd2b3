//! Interfaces, gateways, what lies inside, the next hop and the resolvers.

use std::net::IpAddr;

use ipnet::IpNet;

use super::facts::family;
use super::{Check, repeated};
use crate::config::file::Member;
use crate::config::network::Revocation;
use crate::config::rule;
use crate::peer_range;

pub(super) fn apply(check: &mut Check<'_>) {
    interfaces_apart(check);
    inside_is_narrow(check);
    for side in [External, Internal] {
        gateways(check, side);
        gateways_there(check, side);
    }
    next_hop(check);
    trust(check);
    resolvers(check);
    revocation_lists(check);
}

use WhichSide::{External, Internal};

/// A side as the file spells it.
#[derive(Clone, Copy)]
enum WhichSide {
    External,
    Internal,
}

impl WhichSide {
    const fn word(self) -> &'static str {
        match self {
            External => "external",
            Internal => "internal",
        }
    }

    fn gateways<'c>(self, check: &Check<'c>) -> &'c [IpAddr] {
        match self {
            External => check
                .file
                .external
                .as_ref()
                .map_or(&[], |external| &external.gateway),
            Internal => check
                .file
                .internal
                .as_ref()
                .map_or(&[], |internal| &internal.gateway),
        }
    }

    fn networks<'c>(self, check: &Check<'c>) -> &'c [IpNet] {
        match self {
            External => check
                .file
                .external
                .as_ref()
                .map_or(&[], |external| &external.networks),
            Internal => check.file.networks_inside(),
        }
    }

    fn addresses(self, member: &Member) -> &[IpNet] {
        match self {
            External => member.external_addresses(),
            Internal => member.internal_addresses(),
        }
    }
}

fn interfaces_apart(check: &mut Check<'_>) {
    let (Some(external), Some(internal)) = (&check.file.external, &check.file.internal) else {
        return;
    };
    if internal.interface.is_some() && external.interface == internal.interface {
        check.tell(
            rule::SAME_INTERFACE,
            "internal.interface",
            "the external side has this interface",
        );
    }
}

fn inside_is_narrow(check: &mut Check<'_>) {
    for (index, network) in check.file.networks_inside().iter().enumerate() {
        let key = format!("internal.networks[{index}]");
        if network.prefix_len() == 0 {
            check.tell(
                rule::INTERNAL_EVERYTHING,
                key,
                format!("{network} is everything"),
            );
        } else if peer_range::classify(network.network()).is_none() {
            check.tell(
                rule::INTERNAL_NETWORK_PUBLIC,
                key,
                format!("{network} is public"),
            );
        }
    }
}

fn gateways(check: &mut Check<'_>, side: WhichSide) {
    let gateways = side.gateways(check);
    let keyed = || {
        gateways
            .iter()
            .enumerate()
            .map(|(at, gateway)| (format!("{}.gateway[{at}]", side.word()), *gateway))
    };
    for (key, gateway) in
        repeated(keyed().map(|(key, gateway)| (gateway.is_ipv4(), (key, gateway))))
    {
        check.tell(
            rule::GATEWAY_TWICE,
            key,
            format!("there is an {} gateway already", family(gateway)),
        );
    }
    for (key, gateway) in keyed() {
        let addresses = || {
            check
                .file
                .members
                .iter()
                .flat_map(|member| side.addresses(member))
        };
        let off_link = |member: &&Member| {
            let of_family = || {
                side.addresses(member)
                    .iter()
                    .filter(|own| own.addr().is_ipv4() == gateway.is_ipv4())
            };
            !side.addresses(member).is_empty() && !of_family().any(|own| own.contains(&gateway))
        };
        if addresses().any(|own| own.addr() == gateway) {
            check.tell(
                rule::GATEWAY_OWN,
                key,
                format!("{gateway} is an address of a member"),
            );
        } else if let Some(member) = check.file.members.iter().find(off_link) {
            let name = member.name.as_deref().unwrap_or_default();
            let message = format!("{gateway} is on no {} link of member {name:?}", side.word());
            check.tell(rule::GATEWAY_OFF_LINK, key, message);
        }
    }
}

fn gateways_there(check: &mut Check<'_>, side: WhichSide) {
    for is_v4 in [true, false] {
        let served = side
            .gateways(check)
            .iter()
            .any(|gateway| gateway.is_ipv4() == is_v4);
        let links = || {
            let all = check
                .file
                .members
                .iter()
                .flat_map(|member| side.addresses(member));
            all.filter(|own| own.addr().is_ipv4() == is_v4)
        };
        let beyond = |network: &&IpNet| {
            network.addr().is_ipv4() == is_v4 && !links().any(|own| own.contains(*network))
        };
        if served || links().next().is_none() {
            continue;
        }
        if let Some(network) = side.networks(check).iter().find(beyond) {
            let (word, family) = (side.word(), family(network.addr()));
            let message =
                format!("{network} goes beyond the {word} link, and there is no {family} gateway");
            check.tell(rule::GATEWAY_MISSING, format!("{word}.gateway"), message);
        }
    }
}

fn next_hop(check: &mut Check<'_>) {
    let file = check.file;
    let Some(internal) = &file.internal else {
        return;
    };
    let Some(next_hop) = &internal.next_hop else {
        if file.access.is_some() && check.is_blank("internal.next_hop") {
            check.tell(
                rule::NEXT_HOP_MISSING,
                "internal.next_hop",
                "internal.next_hop is missing",
            );
        }
        return;
    };
    let trusted = internal
        .trusted_servers
        .iter()
        .any(|pattern| pattern.matches(&next_hop.host));
    if file.own_names().any(|(_, own, _)| *own == next_hop.host) {
        check.tell(
            rule::NEXT_HOP_OURS,
            "internal.next_hop",
            format!("{} is this edge", next_hop.host),
        );
    } else if !trusted && !internal.trusted_servers.is_empty() {
        let message = format!("{} is not in internal.trusted_servers", next_hop.host);
        check.tell(rule::NEXT_HOP_UNTRUSTED, "internal.next_hop", message);
    }
    let unknown = check.is_blank("internal.next_hop_addresses") && check.is_blank("dns.internal");
    if unknown && file.access.is_some() {
        let message = format!(
            "neither next_hop_addresses nor dns.internal tells the address of {}",
            next_hop.host
        );
        check.tell(rule::INTERNAL_DNS_MISSING, "internal.next_hop", message);
    }
    for (index, address) in internal.next_hop_addresses.iter().enumerate() {
        if !file.is_inside(*address) {
            let message = format!("{address} is not in internal.networks");
            check.tell(
                rule::NEXT_HOP_OUTSIDE,
                format!("internal.next_hop_addresses[{index}]"),
                message,
            );
        }
    }
}

fn trust(check: &mut Check<'_>) {
    let file = check.file;
    let needed = file.internal.is_some() && (file.access.is_some() || file.av.is_some());
    if needed && check.is_blank("internal.trusted_servers") {
        let message = "internal.trusted_servers is empty";
        check.tell(rule::TRUST_MISSING, "internal.trusted_servers", message);
    }
}

fn resolvers(check: &mut Check<'_>) {
    let file = check.file;
    if file.federates() && check.is_blank("dns.external") {
        check.tell(
            rule::EXTERNAL_DNS_MISSING,
            "dns.external",
            "federation is enabled, and dns.external is empty",
        );
    }
    for (list, addresses, belongs_inside) in [
        ("dns.external", &file.dns.external, false),
        ("dns.internal", &file.dns.internal, true),
    ] {
        for (index, address) in addresses.iter().enumerate() {
            if file.is_inside(*address) != belongs_inside && file.inside().next().is_some() {
                let place = if belongs_inside { "not in" } else { "in" };
                let message = format!("{address} is {place} internal.networks");
                check.tell(
                    rule::RESOLVER_WRONG_SIDE,
                    format!("{list}[{index}]"),
                    message,
                );
            }
        }
    }
}

fn revocation_lists(check: &mut Check<'_>) {
    let Some(internal) = &check.file.internal else {
        return;
    };
    if internal.revocation == Revocation::Hard && check.is_blank("internal.crls") {
        check.tell(
            rule::CRL_MISSING,
            "internal.revocation",
            "internal.crls is empty",
        );
    }
}

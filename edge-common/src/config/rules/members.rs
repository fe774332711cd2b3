//! The hosts, their addresses, and which of these the services take.

use ipnet::IpNet;

use super::facts::{family, is_usable, overlap};
use super::{Check, repeated};
use crate::config::file::Member;
use crate::config::rule::{self, RuleId};
use crate::ports::Service;

pub(super) fn apply(check: &mut Check<'_>) {
    names_and_ids(check);
    addresses_once(check);
    families_agree(check);
    for (index, member) in check.file.members.iter().enumerate() {
        service_addresses_listed(check, index, member);
        external_addresses(check, index, member);
        internal_addresses(check, index, member);
        public_enough(check, index, member);
    }
    public_address(check);
}

fn names_and_ids(check: &mut Check<'_>) {
    let members = || check.file.members.iter().enumerate();
    let names =
        repeated(members().filter_map(|(index, member)| Some((member.name.as_ref()?, index))));
    let ids = repeated(members().filter_map(|(index, member)| Some((member.id?, index))));
    let bad: Vec<usize> = members()
        .filter(|(_, member)| {
            member
                .name
                .as_ref()
                .is_some_and(|name| !is_member_name(name))
        })
        .map(|(index, _)| index)
        .collect();
    for (id, indexes, key, message) in [
        (
            rule::MEMBER_NAME_TWICE,
            names,
            "name",
            "another member has this name",
        ),
        (
            rule::MEMBER_ID_TWICE,
            ids,
            "id",
            "another member has this id",
        ),
        (
            rule::BAD_MEMBER_NAME,
            bad,
            "name",
            "letters, digits and hyphens are expected",
        ),
    ] {
        for index in indexes {
            check.tell(id, format!("members[{index}].{key}"), message);
        }
    }
}

fn is_member_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn addresses_once(check: &mut Check<'_>) {
    let all = check
        .file
        .members
        .iter()
        .enumerate()
        .flat_map(|(index, member)| {
            let side = move |side: &'static str, addresses: &'_ [IpNet]| {
                let keyed = addresses.iter().map(IpNet::addr).enumerate();
                keyed
                    .map(move |(at, address)| {
                        (
                            address,
                            (format!("members[{index}].{side}.addresses[{at}]"), address),
                        )
                    })
                    .collect::<Vec<_>>()
            };
            let mut both = side("external", member.external_addresses());
            both.extend(side("internal", member.internal_addresses()));
            both
        });
    for (key, address) in repeated(all) {
        check.tell(
            rule::ADDRESS_TWICE,
            key,
            format!("{address} is given twice"),
        );
    }
}

fn families_agree(check: &mut Check<'_>) {
    let Some(first) = check.file.members.first() else {
        return;
    };
    let has = |addresses: &[IpNet], v6: bool| {
        addresses
            .iter()
            .any(|address| address.addr().is_ipv6() == v6)
    };
    for (index, member) in check.file.members.iter().enumerate().skip(1) {
        for (side, ours, firsts) in [
            (
                "external",
                member.external_addresses(),
                first.external_addresses(),
            ),
            (
                "internal",
                member.internal_addresses(),
                first.internal_addresses(),
            ),
        ] {
            let comparable = !ours.is_empty() && !firsts.is_empty();
            if comparable
                && [false, true]
                    .iter()
                    .any(|v6| has(ours, *v6) != has(firsts, *v6))
            {
                let message = "the first member has other address families on this side";
                check.tell(
                    rule::MEMBERS_DIFFER,
                    format!("members[{index}].{side}.addresses"),
                    message,
                );
            }
        }
    }
}

fn service_addresses_listed(check: &mut Check<'_>, index: usize, member: &Member) {
    let own = member.external_addresses();
    for service in Service::ALL {
        for (key, address) in member.taken_by(service) {
            if !own.is_empty() && !own.iter().any(|own| own.addr() == address) {
                let message = format!("{address} is not in external.addresses of this member");
                check.tell(
                    rule::SERVICE_ADDRESS_UNLISTED,
                    format!("members[{index}].{key}"),
                    message,
                );
            }
        }
    }
}

fn external_addresses(check: &mut Check<'_>, index: usize, member: &Member) {
    for (at, address) in member.external_addresses().iter().enumerate() {
        let key = format!("members[{index}].external.addresses[{at}]");
        if !is_usable(*address) {
            check.tell(
                rule::ADDRESS_UNUSABLE,
                key,
                format!("no host can have {address}"),
            );
        } else if check.file.is_inside(address.addr()) {
            check.tell(
                rule::EXTERNAL_ADDRESS_INSIDE,
                key,
                format!("{} lies in internal.networks", address.addr()),
            );
        } else if let Some(network) = check
            .file
            .inside()
            .find(|network| overlap(network, &address.trunc()))
        {
            let message = format!("the link {} overlaps {network} inside", address.trunc());
            check.tell(rule::SIDES_OVERLAP, key, message);
        }
    }
}

fn internal_addresses(check: &mut Check<'_>, index: usize, member: &Member) {
    let addresses = member.internal_addresses();
    for (at, address) in addresses.iter().enumerate() {
        let key = format!("members[{index}].internal.addresses[{at}]");
        if !is_usable(*address) {
            check.tell(
                rule::ADDRESS_UNUSABLE,
                key,
                format!("no host can have {address}"),
            );
        } else if check.file.inside().next().is_some() && !check.file.is_inside(address.addr()) {
            let message = format!("{} is not in internal.networks", address.addr());
            check.tell(rule::INTERNAL_ADDRESS_OUTSIDE, key, message);
        }
    }
    let unreached = check
        .file
        .networks_inside()
        .iter()
        .enumerate()
        .find(|(_, network)| {
            !addresses.is_empty()
                && !addresses
                    .iter()
                    .any(|own| own.addr().is_ipv4() == network.addr().is_ipv4())
        });
    if let Some((at, network)) = unreached {
        let family = family(network.addr());
        let message =
            format!("{network} is inside, and member {index} has no internal {family} address");
        check.tell(
            rule::FAMILY_INSIDE_MISSING,
            format!("internal.networks[{at}]"),
            message,
        );
    }
}

/// Addresses that are wrong in a way already told are not told again as not public.
fn public_enough(check: &mut Check<'_>, index: usize, member: &Member) {
    let file = check.file;
    let translated = file
        .av
        .as_ref()
        .is_some_and(|av| av.public_address.is_some())
        && !file.is_balanced();
    for service in Service::ALL
        .into_iter()
        .filter(|service| file.has(*service))
    {
        let rule: RuleId = match service {
            Service::Av => rule::AV_NOT_PUBLIC,
            // Behind a balancer the virtual address is what clients see.
            Service::Access | Service::Webconf if file.is_balanced() => continue,
            Service::Access | Service::Webconf => rule::EXTERNAL_NOT_PUBLIC,
        };
        for (key, address) in member.taken_by(service) {
            let own = member
                .external_addresses()
                .iter()
                .find(|own| own.addr() == address);
            let told = own.is_none_or(|own| !is_usable(*own)) || file.is_inside(address);
            if !told && !translated && !file.is_public(address) {
                let message = format!("{address} of {} is not public", service.daemon());
                check.tell(rule, format!("members[{index}].{key}"), message);
            }
        }
    }
}

fn public_address(check: &mut Check<'_>) {
    const KEY: &str = "av.public_address";
    let file = check.file;
    let Some(public) = file.av.as_ref().and_then(|av| av.public_address) else {
        return;
    };
    if file.is_balanced() {
        check.tell(rule::PUBLIC_ADDRESS_SCALED, KEY, "this edge is an array");
        return;
    }
    if !file.is_public(public) {
        check.tell(
            rule::PUBLIC_ADDRESS_NOT_PUBLIC,
            KEY,
            format!("{public} is not public"),
        );
        return;
    }
    let Some(member) = file
        .members
        .first()
        .filter(|member| member.external.is_some())
    else {
        return;
    };
    let av = member.taken_by(Service::Av);
    let local = av
        .iter()
        .filter(|(_, address)| address.is_ipv4() == public.is_ipv4())
        .count();
    if member
        .external_addresses()
        .iter()
        .any(|own| own.addr() == public)
    {
        check.tell(
            rule::PUBLIC_ADDRESS_OWN,
            KEY,
            format!("{public} is an address of the host itself"),
        );
    } else if local != 1 {
        let family = family(public);
        let message = format!(
            "{public} stands for one address, and the A/V Edge has {local} external {family} addresses"
        );
        check.tell(rule::PUBLIC_ADDRESS_FAMILY, KEY, message);
    }
}

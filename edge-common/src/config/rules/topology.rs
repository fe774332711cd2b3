//! Which hosts, which services, and what stands in front of them.

use std::time::Duration;

use super::facts::is_unicast;
use super::{Check, repeated};
use crate::config::organization::Topology;
use crate::config::rule;
use crate::config::units::duration_text;
use crate::ports::Service;

pub(super) fn apply(check: &mut Check<'_>) {
    some_service(check);
    domains_once(check);
    members_fit_topology(check);
    if check.file.is_balanced() {
        vips_there(check);
        balancers_there(check);
    } else {
        no_balancer(check);
    }
    vips_right(check);
    balancers_on_their_side(check);
    array_times(check);
    federation_here(check);
    remote_users_here(check);
}

fn some_service(check: &mut Check<'_>) {
    if !Service::ALL.iter().any(|service| check.file.has(*service)) {
        check.tell(
            rule::NO_SERVICE,
            "",
            "none of [access], [webconf] and [av] is there",
        );
    }
}

fn domains_once(check: &mut Check<'_>) {
    let domains = check
        .file
        .organization
        .iter()
        .flat_map(|organization| &organization.sip_domains);
    let twice = repeated(
        domains
            .enumerate()
            .map(|(index, entry)| (&entry.domain, (index, &entry.domain))),
    );
    for (index, domain) in twice {
        let key = format!("organization.sip_domains[{index}].domain");
        check.tell(
            rule::DUPLICATE_DOMAIN,
            key,
            format!("{domain} is listed twice"),
        );
    }
}

fn members_fit_topology(check: &mut Check<'_>) {
    let members = check.file.members.len();
    match check
        .file
        .organization
        .as_ref()
        .and_then(|organization| organization.topology)
    {
        Some(Topology::Single) if members > 1 => {
            let message = format!("the topology is single, and there are {members} members");
            check.tell(rule::SINGLE_WITH_MEMBERS, "organization.topology", message);
        }
        Some(Topology::Scaled) if members == 1 => {
            check.tell(
                rule::SCALED_ALONE,
                "organization.topology",
                "the array has one member",
            );
        }
        Some(Topology::Single | Topology::Scaled | Topology::MultiSite) | None => {}
    }
}

fn vips_there(check: &mut Check<'_>) {
    if check.file.array.is_none() {
        return;
    }
    for (service, key) in [
        (Service::Access, "array.vips.external.access"),
        (Service::Webconf, "array.vips.external.webconf"),
        (Service::Av, "array.vips.external.av"),
        (Service::Access, "array.vips.internal.access"),
        (Service::Av, "array.vips.internal.av"),
    ] {
        if check.file.has(service) && check.is_blank(key) {
            let message = format!("{key} is empty, and [{service}] is configured");
            check.tell(rule::VIP_MISSING, key, message);
        }
    }
}

fn balancers_there(check: &mut Check<'_>) {
    if check.file.array.is_none() {
        return;
    }
    for key in ["array.balancers.external", "array.balancers.internal"] {
        if check.is_blank(key) {
            check.tell(rule::BALANCER_MISSING, key, format!("{key} is empty"));
        }
    }
}

fn no_balancer(check: &mut Check<'_>) {
    let Some(array) = &check.file.array else {
        return;
    };
    let (outside, inside) = (&array.vips.external, &array.vips.internal);
    for (key, addresses) in [
        ("array.vips.external.access", &outside.access),
        ("array.vips.external.webconf", &outside.webconf),
        ("array.vips.external.av", &outside.av),
        ("array.vips.internal.access", &inside.access),
        ("array.vips.internal.av", &inside.av),
        ("array.balancers.external", &array.balancers.external),
        ("array.balancers.internal", &array.balancers.internal),
    ] {
        if !addresses.is_empty() {
            check.tell(
                rule::SINGLE_WITH_BALANCER,
                key,
                format!("{key} is set, and this is a single edge"),
            );
        }
    }
}

fn vips_right(check: &mut Check<'_>) {
    let file = check.file;
    let Some(array) = file.array.as_ref().filter(|_| file.is_balanced()) else {
        return;
    };
    let (outside, inside) = (&array.vips.external, &array.vips.internal);
    for (list, addresses, is_outside) in [
        ("array.vips.external.access", &outside.access, true),
        ("array.vips.external.webconf", &outside.webconf, true),
        ("array.vips.external.av", &outside.av, true),
        ("array.vips.internal.access", &inside.access, false),
        ("array.vips.internal.av", &inside.av, false),
    ] {
        for (index, address) in addresses.iter().enumerate() {
            let key = format!("{list}[{index}]");
            let own = file.members.iter().flat_map(|member| {
                member
                    .external_addresses()
                    .iter()
                    .chain(member.internal_addresses())
            });
            if own.into_iter().any(|own| own.addr() == *address) {
                check.tell(
                    rule::VIP_TAKEN,
                    key,
                    format!("{address} is an address of a member"),
                );
            } else if !is_unicast(*address) {
                check.tell(
                    rule::ADDRESS_UNUSABLE,
                    key,
                    format!("no host can have {address}"),
                );
            } else if is_outside && !file.is_public(*address) {
                check.tell(
                    rule::VIP_NOT_PUBLIC,
                    key,
                    format!("{address} is not public"),
                );
            } else if !is_outside && !file.is_inside(*address) {
                check.tell(
                    rule::VIP_OUTSIDE,
                    key,
                    format!("{address} is not in internal.networks"),
                );
            }
        }
    }
}

fn balancers_on_their_side(check: &mut Check<'_>) {
    let file = check.file;
    let Some(array) = file.array.as_ref().filter(|_| file.is_balanced()) else {
        return;
    };
    for (list, addresses, belongs_inside) in [
        ("array.balancers.external", &array.balancers.external, false),
        ("array.balancers.internal", &array.balancers.internal, true),
    ] {
        for (index, address) in addresses.iter().enumerate() {
            if file.is_inside(*address) != belongs_inside {
                let place = if belongs_inside { "not in" } else { "in" };
                let message = format!("{address} is {place} internal.networks");
                check.tell(
                    rule::BALANCER_WRONG_SIDE,
                    format!("{list}[{index}]"),
                    message,
                );
            }
        }
    }
}

/// Long enough to mean something, short enough for whoever waits.
fn array_times(check: &mut Check<'_>) {
    let Some(array) = &check.file.array else {
        return;
    };
    for (key, value, least, most) in [
        ("array.link_heartbeat", array.link_heartbeat, TENTH, MINUTE),
        (
            "array.drain.notice",
            array.drain.notice,
            Duration::ZERO,
            MINUTE,
        ),
        (
            "array.drain.timeout",
            array.drain.timeout,
            SECOND,
            10 * MINUTE,
        ),
    ] {
        if value < least || value > most {
            let [value, least, most] = [value, least, most].map(duration_text);
            check.tell(
                rule::ARRAY_TIME,
                key,
                format!("{value} is not between {least} and {most}"),
            );
        }
    }
}

fn federation_here(check: &mut Check<'_>) {
    let Some(organization) = &check.file.organization else {
        return;
    };
    if !organization.federation_here && check.file.federates() {
        let message = "federation is enabled, and organization.federation_here is false";
        check.tell(
            rule::FEDERATION_ELSEWHERE,
            "access.federation.enabled",
            message,
        );
    }
}

fn remote_users_here(check: &mut Check<'_>) {
    let (Some(organization), Some(access)) = (&check.file.organization, &check.file.access) else {
        return;
    };
    let none_here = !organization
        .sip_domains
        .iter()
        .any(|entry| entry.remote_users_here);
    if access.remote_users && none_here && !organization.sip_domains.is_empty() {
        let message = "remote users are allowed, and no SIP domain has remote_users_here";
        check.tell(rule::NO_REMOTE_DOMAIN, "access.remote_users", message);
    }
    for (at, entry) in organization.sip_domains.iter().enumerate() {
        let Some(edge) = &entry.remote_users_edge else {
            continue;
        };
        let is_us = access.fqdn.as_ref() == Some(&edge.host);
        if entry.remote_users_here || is_us {
            let what = if is_us { "is this edge" } else { "is not used" };
            check.tell(
                rule::REMOTE_EDGE_HERE,
                format!("organization.sip_domains[{at}].remote_users_edge"),
                format!("{edge} {what}"),
            );
        }
    }
}

const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

//! Who is served by the Access Edge, and who are partners.

use std::collections::BTreeSet;

use super::{Check, repeated};
use crate::config::build::parse_pin;
use crate::config::{Revocation, rule};
use crate::sip::header::Name;

pub(super) fn apply(check: &mut Check<'_>) {
    serves_someone(check);
    partners(check);
    blocked(check);
    revocation(check);
    name_in_a_domain(check);
    pins(check);
    default_route(check);
    providers(check);
    notice(check);
}

fn pins(check: &mut Check<'_>) {
    let file = check.file;
    let Some(access) = &file.access else { return };
    for (at, partner) in access.federation.partners.iter().enumerate() {
        for (number, pin) in partner.pins.iter().enumerate() {
            if parse_pin(pin).is_none() {
                check.tell(
                    rule::PIN_INVALID,
                    format!("access.federation.partners[{at}].pins[{number}]"),
                    format!("{pin:?} is not sha256/ and 44 characters of base64"),
                );
            }
        }
    }
}

fn default_route(check: &mut Check<'_>) {
    let file = check.file;
    let Some(access) = &file.access else { return };
    let federation = &access.federation;
    if federation.default_route.is_none() {
        return;
    }
    for (key, is_set) in [
        ("discovery", federation.discovery),
        ("providers", !federation.providers.is_empty()),
        ("clearing_house", federation.clearing_house),
    ] {
        if is_set {
            check.tell(
                rule::DEFAULT_ROUTE_ALONE,
                format!("access.federation.{key}"),
                format!("{key} and default_route exclude each other"),
            );
        }
    }
}

fn providers(check: &mut Check<'_>) {
    let file = check.file;
    let Some(access) = &file.access else { return };
    let federation = &access.federation;
    let mut taken: BTreeSet<_> = federation
        .partners
        .iter()
        .filter_map(|partner| partner.fqdn.as_ref())
        .collect();
    for (at, provider) in federation.providers.iter().enumerate() {
        let ours = file.own_names().any(|(_, own, _)| *own == provider.fqdn);
        if ours || !taken.insert(&provider.fqdn) {
            let message = format!("{} stands elsewhere as well", provider.fqdn);
            check.tell(
                rule::PROVIDER_FQDN_TAKEN,
                format!("access.federation.providers[{at}].fqdn"),
                message,
            );
        }
    }
}

/// A token, a colon, and something printable (RFC 3261 §25.1); nothing that the edge itself reads.
fn notice(check: &mut Check<'_>) {
    let file = check.file;
    let notice = file
        .access
        .as_ref()
        .and_then(|access| access.federation.archiving_notice.as_ref());
    let Some(notice) = notice else { return };
    let lawful = notice.split_once(':').is_some_and(|(name, value)| {
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
        let printable = |b: u8| (0x20..0x7f).contains(&b);
        name.len() > 1
            && name.bytes().all(token)
            && matches!(Name::of(name.as_bytes()), Name::Other)
            && !value.trim().is_empty()
            && value.bytes().all(printable)
    });
    if !lawful {
        check.tell(
            rule::NOTICE_INVALID,
            "access.federation.archiving_notice",
            format!("{notice:?} is not one header of nobody else's"),
        );
    }
}

fn serves_someone(check: &mut Check<'_>) {
    let Some(access) = &check.file.access else {
        return;
    };
    if !access.remote_users && !access.anonymous_users && !check.file.federates() {
        check.tell(
            rule::ACCESS_IDLE,
            "access",
            "remote users, anonymous users and federation are off",
        );
    }
}

fn partners(check: &mut Check<'_>) {
    let file = check.file;
    let Some(access) = &file.access else { return };
    let federation = &access.federation;
    let nobody = federation.partners.is_empty()
        && federation.providers.is_empty()
        && federation.default_route.is_none();
    if file.federates() && nobody && !federation.discovery {
        let message = "there are no partners, and discovery is off";
        check.tell(
            rule::FEDERATION_WITH_NOBODY,
            "access.federation.enabled",
            message,
        );
    }
    let keyed = || {
        federation
            .partners
            .iter()
            .enumerate()
            .map(|(at, partner)| (format!("access.federation.partners[{at}]"), partner))
    };
    for (key, partner) in repeated(keyed().map(|(key, partner)| (&partner.domain, (key, partner))))
    {
        let message = format!("{} is listed twice", partner.domain);
        check.tell(rule::PARTNER_TWICE, format!("{key}.domain"), message);
    }
    let blocked: BTreeSet<_> = federation.blocked.iter().collect();
    for (key, partner) in keyed() {
        let domain = &partner.domain;
        if file.owns(domain) {
            let message = format!("{domain} is a domain of this organisation");
            check.tell(rule::PARTNER_OURS, format!("{key}.domain"), message);
        }
        if blocked.contains(domain) {
            let message = format!("{domain} is blocked as well");
            check.tell(rule::PARTNER_BLOCKED, format!("{key}.domain"), message);
        }
        if let Some(fqdn) = partner
            .fqdn
            .as_ref()
            .filter(|fqdn| file.own_names().any(|(_, own, _)| own == *fqdn))
        {
            check.tell(
                rule::PARTNER_FQDN_OURS,
                format!("{key}.fqdn"),
                format!("{fqdn} is this edge"),
            );
        }
    }
}

fn blocked(check: &mut Check<'_>) {
    let file = check.file;
    let Some(access) = &file.access else { return };
    let keyed = || {
        let blocked = access.federation.blocked.iter().enumerate();
        blocked.map(|(at, domain)| (format!("access.federation.blocked[{at}]"), domain))
    };
    for (key, domain) in repeated(keyed().map(|(key, domain)| (domain, (key, domain)))) {
        check.tell(
            rule::BLOCKED_TWICE,
            key,
            format!("{domain} is listed twice"),
        );
    }
    for (key, domain) in keyed().filter(|(_, domain)| file.owns(domain)) {
        check.tell(
            rule::BLOCKED_OURS,
            key,
            format!("{domain} is a domain of this organisation"),
        );
    }
}

/// The default says nothing; whoever typed a value expects something of it.
fn revocation(check: &mut Check<'_>) {
    let file = check.file;
    let Some(access) = file.access.as_ref().filter(|_| file.federates()) else {
        return;
    };
    if access.federation.fetch_crls {
        return;
    }
    let general = "access.federation.revocation".to_owned();
    let own = access.federation.partners.iter().enumerate();
    let own = own.filter_map(|(at, partner)| {
        let key = format!("access.federation.partners[{at}].revocation");
        partner.revocation.map(|value| (key, value))
    });
    let typed = (!check.is_blank(&general)).then_some((general, access.federation.revocation));
    for (key, value) in typed.into_iter().chain(own) {
        let message = match value {
            Revocation::Off => continue,
            Revocation::Soft => "no lists are fetched, so that every partner passes",
            Revocation::Hard => "no lists are fetched, so that every partner is refused",
        };
        check.tell(rule::REVOCATION_UNFETCHED, key, message);
    }
}

fn name_in_a_domain(check: &mut Check<'_>) {
    let file = check.file;
    let (Some(organization), Some(access)) = (&file.organization, &file.access) else {
        return;
    };
    let Some(fqdn) = access
        .fqdn
        .as_ref()
        .filter(|_| file.federates() && !organization.sip_domains.is_empty())
    else {
        return;
    };
    if !organization
        .sip_domains
        .iter()
        .any(|own| fqdn.is_within(&own.domain))
    {
        check.tell(
            rule::FQDN_OUTSIDE_DOMAINS,
            "access.fqdn",
            format!("{fqdn} is in none of the SIP domains"),
        );
    }
}

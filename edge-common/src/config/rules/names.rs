//! Host names: which side they are of, and how they are spelled.

use super::facts::Whose;
use super::{Check, repeated};
use crate::config::rule;
use crate::host_name::HostName;

pub(super) fn apply(check: &mut Check<'_>) {
    spelling(check);
    one_side_each(check);
    members_apart(check);
}

fn spelling(check: &mut Check<'_>) {
    for (key, name, whose) in all_names(check) {
        let underscore = name.as_str().contains('_');
        match whose {
            Whose::OursOutside | Whose::OursInside | Whose::Public if underscore => {
                check.tell(
                    rule::UNDERSCORE,
                    &key,
                    format!("{name} holds an underscore"),
                );
            }
            Whose::ServerInside if underscore => {
                check.tell(
                    rule::UNDERSCORE_INSIDE,
                    &key,
                    format!("{name} holds an underscore"),
                );
            }
            Whose::ServerInside if !check.is_ascii(&key) => {
                check.tell(
                    rule::UNICODE_INSIDE,
                    &key,
                    format!("the name is taken as {name}"),
                );
            }
            Whose::OursOutside | Whose::OursInside | Whose::Public if !name.is_qualified() => {
                check.tell(
                    rule::NAME_NOT_QUALIFIED,
                    &key,
                    format!("{name} has no domain"),
                );
            }
            Whose::OursOutside | Whose::OursInside | Whose::Public | Whose::ServerInside => {}
        }
    }
}

fn one_side_each(check: &mut Check<'_>) {
    let file = check.file;
    for (key, name, _) in file
        .own_names()
        .filter(|(_, _, whose)| *whose == Whose::OursInside)
    {
        let mut outside = file
            .own_names()
            .filter(|(_, _, whose)| *whose == Whose::OursOutside);
        if let Some((other, ..)) = outside.find(|(_, outer, _)| *outer == name) {
            check.tell(
                rule::NAME_ON_BOTH_SIDES,
                key,
                format!("{name} is also {other}, which is outside"),
            );
        }
    }
}

fn members_apart(check: &mut Check<'_>) {
    let members = || check.file.members.iter().enumerate();
    let own = members().filter_map(|(index, member)| {
        Some((
            member.internal.as_ref()?.fqdn.as_ref()?,
            format!("members[{index}].internal.fqdn"),
        ))
    });
    let webconf = members().filter_map(|(index, member)| {
        let fqdn = || member.internal.as_ref()?.fqdn.as_ref();
        let name = member.webconf_internal_fqdn.as_ref().or_else(fqdn)?;
        Some((name, format!("members[{index}].webconf_internal_fqdn")))
    });
    let mut twice = repeated(own);
    // One host name given twice is one mistake, though the other name follows from it.
    twice.extend(
        repeated(webconf)
            .into_iter()
            .filter(|_| twice.is_empty())
            .collect::<Vec<_>>(),
    );
    for key in twice {
        check.tell(
            rule::INTERNAL_NAME_TWICE,
            key,
            "another member has this name inside",
        );
    }
}

fn all_names<'c>(check: &Check<'c>) -> Vec<(String, &'c HostName, Whose)> {
    let file = check.file;
    let mut names: Vec<_> = file.own_names().collect();
    let mut list = |key: &str, whose, list: &mut dyn Iterator<Item = &'c HostName>| {
        names.extend(
            list.enumerate()
                .map(|(index, name)| (format!("{key}[{index}]"), name, whose)),
        );
    };
    if let Some(internal) = &file.internal {
        let trusted = &mut internal
            .trusted_servers
            .iter()
            .map(|pattern| pattern.name());
        list("internal.trusted_servers", Whose::ServerInside, trusted);
    }
    if let Some(webconf) = &file.webconf {
        let agents = &mut webconf.agents.iter().map(|pattern| pattern.name());
        list("webconf.agents", Whose::ServerInside, agents);
        let conference = &mut webconf
            .conference_agents
            .iter()
            .map(|pattern| pattern.name());
        list("webconf.conference_agents", Whose::ServerInside, conference);
    }
    if let Some(access) = &file.access {
        list(
            "access.federation.blocked",
            Whose::Public,
            &mut access.federation.blocked.iter(),
        );
        for (index, provider) in access.federation.providers.iter().enumerate() {
            let key = format!("access.federation.providers[{index}]");
            names.push((format!("{key}.fqdn"), &provider.fqdn, Whose::Public));
        }
        for (index, partner) in access.federation.partners.iter().enumerate() {
            let key = format!("access.federation.partners[{index}]");
            names.push((format!("{key}.domain"), &partner.domain, Whose::Public));
            names.extend(
                partner
                    .fqdn
                    .iter()
                    .map(|fqdn| (format!("{key}.fqdn"), fqdn, Whose::Public)),
            );
        }
    }
    if let Some(next_hop) = file
        .internal
        .as_ref()
        .and_then(|internal| internal.next_hop.as_ref())
    {
        names.push((
            "internal.next_hop".to_owned(),
            &next_hop.host,
            Whose::ServerInside,
        ));
    }
    let domains = file
        .organization
        .iter()
        .flat_map(|organization| &organization.sip_domains)
        .enumerate();
    names.extend(domains.map(|(index, entry)| {
        (
            format!("organization.sip_domains[{index}].domain"),
            &entry.domain,
            Whose::Public,
        )
    }));
    names
}

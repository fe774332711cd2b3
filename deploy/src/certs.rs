//! Which certificates this host needs, and what each must hold.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::BTreeSet;

use edge_common::cert::role::{Role, Wanted};
use edge_common::config::{CertificateFiles, Config};
use edge_common::host_name::HostName;

/// One certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it is for.
    pub role: Role,
    /// Where the configuration says that it lies.
    pub files: CertificateFiles,
    /// The subject's common name.
    pub common_name: HostName,
    /// All names for the subjectAltName, the common name first.
    pub names: Vec<HostName>,
    /// What the daemons will ask of it.
    pub wanted: Wanted,
}

/// Every pair that the configuration names, in the order of the services.
#[must_use]
pub fn needs(config: &Config) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut add =
        |role, files: &[CertificateFiles], hosts: Vec<HostName>, domains: Vec<HostName>| {
            for pair in files {
                needs.extend(need(role, pair, &hosts, &domains));
            }
        };
    add(
        Role::Internal,
        &config.internal.certificates,
        internal_names(config),
        vec![],
    );
    if let Some(access) = &config.access {
        let domains = config.organization.sip_domains.iter();
        let domains = domains.map(|domain| domain.domain.clone()).collect();
        add(
            Role::AccessExternal,
            &access.certificates,
            vec![access.fqdn.clone()],
            domains,
        );
    }
    if let Some(webconf) = &config.webconf {
        add(
            Role::WebConfExternal,
            &webconf.certificates,
            vec![webconf.fqdn.clone()],
            vec![],
        );
    }
    if let Some(av) = &config.av {
        add(
            Role::AvExternal,
            &av.certificates,
            vec![av.fqdn.clone()],
            vec![],
        );
        let keys = &av.authentication;
        for pair in [
            Some(&keys.current),
            keys.next.as_ref(),
            keys.previous.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            let name = vec![av.internal_fqdn.clone()];
            add(
                Role::AvAuthentication,
                std::slice::from_ref(pair),
                name,
                vec![],
            );
        }
    }
    needs
}

fn need(
    role: Role,
    files: &CertificateFiles,
    hosts: &[HostName],
    sip_domains: &[HostName],
) -> Option<Need> {
    let mut names = hosts.to_vec();
    for domain in sip_domains {
        names.extend(format!("sip.{domain}").parse::<HostName>().ok());
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Some(Need {
        role,
        files: files.clone(),
        common_name: names.first()?.clone(),
        names,
        wanted: Wanted::new(role, hosts.iter().cloned())
            .with_sip_domains(sip_domains.iter().cloned()),
    })
}

/// One certificate stands for all services inside, and for this host of the array.
fn internal_names(config: &Config) -> Vec<HostName> {
    let member = config.local();
    let mut names = Vec::new();
    names.extend(
        config
            .access
            .as_ref()
            .map(|access| access.internal_fqdn.clone()),
    );
    names.extend(config.av.as_ref().map(|av| av.internal_fqdn.clone()));
    names.push(member.internal.fqdn.clone());
    if config.webconf.is_some() {
        names.push(member.webconf_internal_fqdn.clone());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn each_role_is_asked_for_the_names_that_its_peers_look_for() {
        let told: Vec<String> = needs(&fixture::single())
            .iter()
            .map(|need| {
                let names: Vec<&str> = need.names.iter().map(HostName::as_str).collect();
                format!("{}: {}", need.role, names.join(" "))
            })
            .collect();
        assert_eq!(
            told,
            [
                "internal: edge.contoso.internal edge1.contoso.internal",
                "Access Edge, external: sip.contoso.test",
                "Web Conferencing Edge, external: webconf.contoso.test",
                "A/V Edge, external: av.contoso.test",
                "A/V authentication: edge.contoso.internal",
            ]
        );
    }

    #[test]
    fn every_sip_domain_adds_its_own_name_to_the_access_certificate() {
        let mut config = fixture::single();
        let mut second = config.organization.sip_domains[0].clone();
        second.domain = "adatum.test".parse().unwrap();
        config.organization.sip_domains.push(second);
        let needs = needs(&config);
        let access = needs
            .iter()
            .find(|need| need.role == Role::AccessExternal)
            .unwrap();
        assert_eq!(access.names.len(), 2);
        assert_eq!(access.names[1].as_str(), "sip.adatum.test");
    }
}

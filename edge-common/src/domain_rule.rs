//! What the configuration says of another organisation's domain, before anything is proven.
//!
//! ```text
//!   domain ─► blocked? ─► listed with its edge? ─► listed? ─► discovery?
//! ```
//!
//! `edge-access` decides by it and `edgectl federation test` tells it, so that both say the same.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use crate::config::{Access, Config};
use crate::host_name::{HostName, HostPort};

/// Who is allowed to be a partner.
#[derive(Clone, Debug)]
pub struct FederationRules {
    /// There are partners at all, and this site is the one that speaks to them.
    pub enabled: bool,
    /// A domain that is not listed may prove itself.
    pub discovery: bool,
    /// Listed domains, with the name of their edge where that is fixed.
    pub partners: Vec<(HostName, Option<HostName>)>,
    /// Refused before anything else is looked at.
    pub blocked: Vec<HostName>,
    /// Where a fixed edge listens.
    pub port: u16,
    /// Messages that wait for one domain or one connection.
    pub pending: usize,
}

/// What the configuration says of another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainRule {
    /// It is refused by name.
    Blocked,
    /// Its edge is known by name.
    Direct(HostPort),
    /// DNS has to name its edge.
    Automatic,
    /// The same, and nobody listed it.
    Discovered,
    /// Nobody listed it, and nobody who is not listed may come.
    Unlisted,
}

impl DomainRule {
    /// The list that it stands on, in a word for operators.
    #[must_use]
    pub const fn list(&self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Direct(_) => "direct",
            Self::Automatic => "allowed",
            Self::Discovered => "discovered",
            Self::Unlisted => "unlisted",
        }
    }
}

impl FederationRules {
    /// From the checked configuration; `None` when this host runs no Access Edge.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        let access = config.access.as_ref()?;
        Some(Self::of_access(access, config.organization.federation_here))
    }

    fn of_access(access: &Access, federation_here: bool) -> Self {
        let federation = &access.federation;
        Self {
            enabled: federation.enabled && federation_here,
            discovery: federation.discovery,
            partners: federation
                .partners
                .iter()
                .map(|partner| (partner.domain.clone(), partner.fqdn.clone()))
                .collect(),
            blocked: federation.blocked.clone(),
            port: access.federation_port,
            pending: federation.pending_per_domain,
        }
    }

    /// What holds for `domain`; blocking always wins.
    #[must_use]
    pub fn of_domain(&self, domain: &HostName) -> DomainRule {
        if self.blocked.contains(domain) {
            return DomainRule::Blocked;
        }
        match self.partners.iter().find(|(listed, _)| listed == domain) {
            Some((_, Some(fqdn))) => DomainRule::Direct(HostPort {
                host: fqdn.clone(),
                port: self.port,
            }),
            Some((_, None)) => DomainRule::Automatic,
            None if self.discovery => DomainRule::Discovered,
            None => DomainRule::Unlisted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    #[test]
    fn blocking_wins_and_each_list_has_its_word() {
        let mut rules = FederationRules {
            enabled: true,
            discovery: false,
            partners: vec![
                (name("a.test"), None),
                (name("b.test"), Some(name("sip.b.test"))),
                (name("c.test"), None),
            ],
            blocked: vec![name("c.test"), name("d.test")],
            port: 5061,
            pending: 1,
        };
        let lists = |rules: &FederationRules| {
            ["a.test", "b.test", "c.test", "d.test", "e.test"]
                .map(|domain| rules.of_domain(&name(domain)).list())
        };
        assert_eq!(
            lists(&rules),
            ["allowed", "direct", "blocked", "blocked", "unlisted"]
        );
        rules.discovery = true;
        assert_eq!(lists(&rules)[4], "discovered");
        let direct = rules.of_domain(&name("b.test"));
        assert_eq!(
            direct,
            DomainRule::Direct(HostPort {
                host: name("sip.b.test"),
                port: 5061
            })
        );
    }
}

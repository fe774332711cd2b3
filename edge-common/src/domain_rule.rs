//! What the configuration says of another organisation's domain, before anything is proven.
//!
//! ```text
//!   domain ─► blocked? ─► listed with its edge? ─► default route? ─► a provider's? ─► listed? ─► discovery?
//!                                                                                      └─► a public provider by DNS?
//! ```
//!
//! `edge-access` decides by it and `edgectl federation test` tells it, so that both say the same.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::sync::Arc;

use crate::config::{Access, Config, DefaultRoute, Flatten, HideTopology, Provider, Verification};
use crate::host_name::{HostName, HostPort};

/// Who is allowed to be a partner.
#[derive(Clone, Debug, Default)]
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
    /// How senders of listed partners are marked; `source` for those that are not here.
    pub verification: Vec<(HostName, Verification)>,
    /// How senders of discovered partners are marked.
    pub discovered_verification: Verification,
    /// Edges that speak for many domains.
    pub providers: Vec<Provider>,
    /// Their names, as the owner of the verdicts is told them.
    pub provider_edges: Arc<[HostName]>,
    /// Where everything goes that has no partner of its own.
    pub default_route: Option<DefaultRoute>,
    /// Messages between partners that are listed by name are passed on.
    pub clearing_house: bool,
    /// What leaves is marked as verified.
    pub mark_verified: bool,
    /// A whole header line for requests that leave, without its end.
    pub archiving_notice: Option<String>,
    /// What partners hear instead of 404.
    pub flatten_404: Flatten,
    /// Connections that one core opens to one edge of a partner; 0 counts as 1.
    pub lanes: usize,
    /// Who may not see which servers are inside.
    pub hide_topology: HideTopology,
}

/// What the configuration says of another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainRule {
    /// It is refused by name.
    Blocked,
    /// Its edge is known by name.
    Direct(HostPort),
    /// It is with that provider, whatever DNS says.
    Provider(HostPort),
    /// Somebody else knows: all of federation runs through him.
    DefaultRoute(HostPort),
    /// DNS has to name its edge.
    Automatic,
    /// The same, and nobody listed it.
    Discovered,
    /// DNS has to name a public provider; no other edge speaks for it.
    InPublicCloud,
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
            Self::Provider(_) => "provider",
            Self::DefaultRoute(_) => "default-route",
            Self::InPublicCloud => "public-provider",
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
            verification: federation
                .partners
                .iter()
                .map(|partner| (partner.domain.clone(), partner.verification))
                .collect(),
            discovered_verification: federation.discovered_verification,
            providers: federation.providers.clone(),
            provider_edges: federation
                .providers
                .iter()
                .map(|provider| provider.fqdn.clone())
                .collect(),
            default_route: federation.default_route.clone(),
            clearing_house: federation.clearing_house,
            mark_verified: federation.mark_verified,
            archiving_notice: federation.archiving_notice.clone(),
            flatten_404: federation.flatten_404,
            lanes: federation.connections_per_partner,
            hide_topology: federation.hide_topology,
        }
    }

    /// What holds for `domain`; blocking always wins.
    #[must_use]
    pub fn of_domain(&self, domain: &HostName) -> DomainRule {
        if self.blocked.contains(domain) {
            return DomainRule::Blocked;
        }
        let listed = self.partners.iter().find(|(listed, _)| listed == domain);
        if let Some((_, Some(fqdn))) = listed {
            return DomainRule::Direct(self.at(fqdn));
        }
        if let Some(route) = &self.default_route {
            return DomainRule::DefaultRoute(self.at(&route.fqdn));
        }
        let has = |provider: &&Provider| provider.domains.contains(domain);
        if let Some(provider) = self.providers.iter().find(has) {
            return DomainRule::Provider(self.at(&provider.fqdn));
        }
        if listed.is_some() {
            DomainRule::Automatic
        } else if self.discovery {
            DomainRule::Discovered
        } else if self.providers.iter().any(|provider| provider.public) {
            DomainRule::InPublicCloud
        } else {
            DomainRule::Unlisted
        }
    }

    /// The provider whose edge has that name.
    #[must_use]
    pub fn provider(&self, host: &HostName) -> Option<&Provider> {
        self.providers
            .iter()
            .find(|provider| provider.fqdn == *host)
    }

    fn at(&self, host: &HostName) -> HostPort {
        HostPort {
            host: host.clone(),
            port: self.port,
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
            ..FederationRules::default()
        };
        let lists = |rules: &FederationRules| {
            ["a.test", "b.test", "c.test", "d.test", "e.test"]
                .map(|domain| rules.of_domain(&name(domain)).list())
        };
        assert_eq!(
            lists(&rules),
            ["allowed", "direct", "blocked", "blocked", "unlisted"]
        );
        rules.providers = vec![Provider {
            name: "P".to_owned(),
            fqdn: name("edge.p.test"),
            public: true,
            domains: vec![name("a.test")],
            verification: Verification::Source,
        }];
        assert_eq!(
            lists(&rules),
            [
                "provider",
                "direct",
                "blocked",
                "blocked",
                "public-provider"
            ]
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

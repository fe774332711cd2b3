//! What the proxy has to know of the configuration, and nothing else of it.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::config::{
    AccessLimits, Clients, Config, Disclosure, InsideRoutes, RegisterMode, SipDomain, WebSocket,
};
pub use edge_common::domain_rule::FederationRules;
use edge_common::host_name::{HostName, HostPort, NamePattern};

/// The proxy's settings; a reload brings new ones, and old flows go on under them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member of the array.
    pub node: u8,
    /// This run of the process; tokens of an earlier one name connections that are gone.
    pub epoch: u16,
    /// The name outside.
    pub external: HostName,
    /// The array's name inside.
    pub internal: HostName,
    /// This member's own name inside: what only this member can answer goes there.
    pub member: HostName,
    /// The numbers and the names inside of the other members.
    pub other_members: Vec<(u8, HostName)>,
    /// By which name routes towards a client are found from inside.
    pub inside_routes: InsideRoutes,
    /// While this member drains, the others take what is new.
    pub is_balanced: bool,
    /// Of the connections at its begin, as many per cent a second are closed at most.
    pub drain_percent_per_second: u32,
    /// The port of remote users.
    pub client_port: u16,
    /// The port of partners.
    pub federation_port: u16,
    /// The port of servers inside.
    pub internal_port: u16,
    /// The organisation's SIP domains.
    pub domains: Vec<SipDomain>,
    /// Users of the organisation may sign in from outside.
    pub remote_users: bool,
    /// Users of no organisation may join conferences.
    pub anonymous_users: bool,
    /// How a registration leads back here.
    pub register_mode: RegisterMode,
    /// Browsers on the port of remote users.
    pub websocket: WebSocket,
    /// What remote and anonymous users are given.
    pub clients: Clients,
    /// What outsiders are told of the inside.
    pub disclosure: Disclosure,
    /// The Director, or its virtual address.
    pub next_hop: Option<HostPort>,
    /// Who else may speak from inside.
    pub trusted_servers: Vec<NamePattern>,
    /// With whom messages are exchanged.
    pub federation: FederationRules,
    /// Bounds.
    pub limits: AccessLimits,
}

impl Settings {
    /// From the checked configuration; `None` when this host runs no Access Edge.
    #[must_use]
    pub fn of(config: &Config, epoch: u16) -> Option<Self> {
        let access = config.access.as_ref()?;
        let member = config.local();
        Some(Self {
            node: member.id,
            epoch,
            external: access.fqdn.clone(),
            internal: access.internal_fqdn.clone(),
            member: member.internal.fqdn.clone(),
            other_members: config
                .others()
                .map(|other| (other.id, other.internal.fqdn.clone()))
                .collect(),
            inside_routes: access.inside_routes,
            is_balanced: config.is_balanced(),
            drain_percent_per_second: config.array.drain.percent_per_second,
            client_port: access.client_port,
            federation_port: access.federation_port,
            internal_port: access.internal_port,
            domains: config.organization.sip_domains.clone(),
            remote_users: access.remote_users,
            anonymous_users: access.anonymous_users,
            register_mode: access.register_mode,
            websocket: access.websocket.clone(),
            clients: access.clients.clone(),
            disclosure: access.disclosure.clone(),
            next_hop: config.internal.next_hop.clone(),
            trusted_servers: config.internal.trusted_servers.clone(),
            federation: FederationRules::of(config)?,
            limits: access.limits.clone(),
        })
    }

    /// With its share of what all `cores` together may do.
    #[must_use]
    pub fn for_cores(mut self, cores: usize) -> Self {
        self.federation.lanes = (self.federation.lanes / cores.max(1)).max(1);
        self
    }

    /// The organisation's own domain of that name.
    #[must_use]
    pub fn own_domain(&self, host: &str) -> Option<&SipDomain> {
        self.domains
            .iter()
            .find(|own| own.domain.as_str().eq_ignore_ascii_case(host))
    }

    /// Whether that is one of the edge's own host names; what leads to one member may come by any.
    #[must_use]
    pub fn is_own_host(&self, host: &str) -> bool {
        [&self.external, &self.internal, &self.member]
            .into_iter()
            .chain(self.other_members.iter().map(|(_, name)| name))
            .any(|own| own.as_str().eq_ignore_ascii_case(host))
    }
}

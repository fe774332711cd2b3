//! From the file as typed to what it means, with every default in its place.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use super::file::{self, File};
use super::{
    Access, Array, Av, Config, External, Federation, Internal, Member, MemberExternal,
    MemberInternal, Organization, Partner, Provider, SipDomain, TrustRoots, Webconf,
};

/// The meaning of a file that passed the check; `None` when something is missing, which was told already.
pub(super) fn config(file: File, node: usize) -> Option<Config> {
    let organization = organization(file.organization?)?;
    let realm = organization.sip_domains.first()?.domain.to_string();
    let access = match file.access {
        Some(typed) => Some(access(typed, organization.federation_here)?),
        None => None,
    };
    let webconf = match file.webconf {
        Some(typed) => Some(webconf(typed)?),
        None => None,
    };
    let av = match file.av {
        Some(typed) => Some(av(typed, realm)?),
        None => None,
    };
    Some(Config {
        organization,
        members: file
            .members
            .into_iter()
            .map(member)
            .collect::<Option<_>>()?,
        node,
        external: external(file.external?)?,
        internal: internal(file.internal?)?,
        array: array(file.array?)?,
        access,
        webconf,
        av,
        firewall: file.firewall,
        dns: file.dns,
        log: file.log,
        admin: file.admin,
        health: file.health,
        state: file.state,
        lab: file.lab,
        runtime: file.runtime,
    })
}

fn organization(typed: file::Organization) -> Option<Organization> {
    let sip_domain = |entry: file::SipDomain| SipDomain {
        domain: entry.domain,
        remote_users_here: entry.remote_users_here,
        remote_users_edge: entry.remote_users_edge,
    };
    Some(Organization {
        sip_domains: typed.sip_domains.into_iter().map(sip_domain).collect(),
        topology: typed.topology?,
        federation_here: typed.federation_here,
    })
}

fn member(typed: file::Member) -> Option<Member> {
    let (external, internal) = (typed.external?, typed.internal?);
    let all: Vec<IpAddr> = external.addresses.iter().map(IpNet::addr).collect();
    let fqdn = internal.fqdn?;
    Some(Member {
        name: typed.name?,
        id: typed.id?,
        external: MemberExternal {
            addresses: external.addresses,
            access: external.access.unwrap_or_else(|| all.clone()),
            webconf: external.webconf.unwrap_or_else(|| all.clone()),
            av: external.av.unwrap_or(all),
        },
        webconf_internal_fqdn: typed.webconf_internal_fqdn.unwrap_or_else(|| fqdn.clone()),
        internal: MemberInternal {
            addresses: internal.addresses,
            fqdn,
        },
    })
}

fn external(typed: file::External) -> Option<External> {
    Some(External {
        interface: typed.interface?,
        gateway: typed.gateway,
        networks: typed.networks,
    })
}

fn internal(typed: file::Internal) -> Option<Internal> {
    Some(Internal {
        interface: typed.interface?,
        gateway: typed.gateway,
        networks: typed.networks,
        certificates: typed.certificates,
        ca: typed.ca?,
        crls: typed.crls,
        revocation: typed.revocation,
        trusted_servers: typed.trusted_servers,
        next_hop: typed.next_hop,
        next_hop_addresses: typed.next_hop_addresses,
    })
}

fn array(typed: file::Array) -> Option<Array> {
    Some(Array {
        secrets: typed.secrets?,
        vips: typed.vips,
        balancers: typed.balancers.into(),
        link_port: typed.link_port,
        link_heartbeat: typed.link_heartbeat,
        link_misses: typed.link_misses,
        drain: typed.drain,
    })
}

fn access(typed: file::Access, federation_here: bool) -> Option<Access> {
    Some(Access {
        fqdn: typed.fqdn?,
        internal_fqdn: typed.internal_fqdn?,
        certificates: typed.certificates,
        client_port: typed.client_port,
        federation_port: typed.federation_port,
        internal_port: typed.internal_port,
        remote_users: typed.remote_users,
        anonymous_users: typed.anonymous_users,
        register_mode: typed.register_mode,
        websocket: typed.websocket,
        clients: typed.clients,
        disclosure: typed.disclosure,
        inside_routes: typed.inside_routes,
        limits: typed.limits,
        trace: typed.trace,
        hep: typed.hep,
        federation: federation(typed.federation, federation_here),
    })
}

fn federation(typed: file::Federation, federation_here: bool) -> Federation {
    let general = typed.revocation;
    let partner = |entry: file::Partner| Partner {
        domain: entry.domain,
        fqdn: entry.fqdn,
        ca: entry.ca,
        revocation: entry.revocation.unwrap_or(general),
        pins: entry.pins.iter().filter_map(|pin| parse_pin(pin)).collect(),
        verification: entry.verification,
    };
    let provider = |entry: file::Provider| Provider {
        name: entry.name,
        fqdn: entry.fqdn,
        public: entry.public,
        domains: entry.domains,
        verification: entry.verification,
    };
    let enabled = |entry: &file::Provider| entry.enabled.unwrap_or(true);
    Federation {
        enabled: typed.enabled.unwrap_or(federation_here),
        discovery: typed.discovery,
        partners: typed.partners.into_iter().map(partner).collect(),
        blocked: typed.blocked,
        srv_order: typed.srv_order,
        client_eku: typed.client_eku,
        callback: typed.callback,
        revocation: general,
        fetch_crls: typed.fetch_crls,
        trust_roots: if typed.trust_roots.as_os_str() == file::SYSTEM_ROOTS {
            TrustRoots::System
        } else {
            TrustRoots::File(typed.trust_roots)
        },
        verdict_cache: typed.verdict_cache,
        pending_per_domain: typed.pending_per_domain,
        providers: typed
            .providers
            .into_iter()
            .filter(enabled)
            .map(provider)
            .collect(),
        default_route: typed.default_route,
        clearing_house: typed.clearing_house,
        discovered_verification: typed.discovered_verification,
        mark_verified: typed.mark_verified,
        archiving_notice: typed.archiving_notice,
        flatten_404: typed.flatten_404,
        connections_per_partner: typed.connections_per_partner,
        hide_topology: typed.hide_topology,
        limits: typed.limits,
    }
}

/// `sha256/` and base64 of 32 bytes, as RFC 7469 §2.4 digests keys.
pub(super) fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let digest = text.strip_prefix("sha256/")?;
    STANDARD.decode(digest).ok()?.try_into().ok()
}

fn webconf(typed: file::Webconf) -> Option<Webconf> {
    Some(Webconf {
        fqdn: typed.fqdn?,
        certificates: typed.certificates,
        port: typed.port,
        agent_port: typed.agent_port,
        agents: typed.agents,
        conference_agents: typed.conference_agents,
        scan: typed.scan,
        preface_keys: typed.preface_keys,
        limits: typed.limits,
    })
}

fn av(typed: file::Av, realm: String) -> Option<Av> {
    Some(Av {
        fqdn: typed.fqdn?,
        internal_fqdn: typed.internal_fqdn?,
        certificates: typed.certificates,
        public_address: typed.public_address,
        realm: typed.realm.unwrap_or(realm),
        udp_port: typed.udp_port,
        tcp_port: typed.tcp_port,
        mras_port: typed.mras_port,
        relay_ports: typed.relay_ports.parse().ok()?,
        relay_mode: typed.relay_mode,
        authentication: typed.authentication?,
        rest_secrets: typed.rest_secrets,
        token_lifetime_max: typed.token_lifetime_max,
        peer_allow: typed.peer_allow,
        limits: typed.limits,
    })
}

//! The records that make an edge findable, as fragments of BIND zone files.
//!
//! One zone for each SIP domain outside and inside, and one for every other domain that holds a name of the
//! edge. A fragment has no SOA and no NS: it is for `$INCLUDE` in a zone that exists, or for copying.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use edge_common::config::Config;
use edge_common::host_name::HostName;
use edge_common::peer_range::is_public;
use edge_common::side::Side;
use ipnet::IpNet;

use crate::plan::{Document, line};

/// All fragments of one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Whose view.
    pub side: Side,
    /// Zone to records; both in the order in which they are printed.
    pub zones: BTreeMap<HostName, BTreeSet<Record>>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Its owner, absolute, without the dot at the end.
    pub owner: String,
    /// What it says.
    pub data: Data,
}

/// The data of a record. Service records are printed before addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// A service is at this port of this host (RFC 2782).
    Srv {
        /// The port.
        port: u16,
        /// The host.
        target: HostName,
    },
    /// `A` or `AAAA`.
    Address(IpAddr),
    /// An address that the Internet cannot reach; printed as a comment, because only the operator knows what
    /// the NAT in front of it shows.
    BehindNat(IpAddr),
}

/// What the Internet has to be told.
#[must_use]
pub fn external(config: &Config) -> View {
    let mut view = View::new(Side::External);
    let domains = sip_domains(config);
    if let Some(access) = &config.access {
        for domain in &config.organization.sip_domains {
            if domain.remote_users_here && (access.remote_users || access.anonymous_users) {
                view.service(
                    &domain.domain,
                    "_sip._tls",
                    access.client_port,
                    &access.fqdn,
                );
            }
            if config.organization.federation_here && access.federation.enabled {
                view.service(
                    &domain.domain,
                    "_sipfederationtls._tcp",
                    access.federation_port,
                    &access.fqdn,
                );
            }
        }
        view.host(
            &access.fqdn,
            &domains,
            &outside_addresses(config, Outside::Access),
        );
    }
    if let Some(webconf) = &config.webconf {
        view.host(
            &webconf.fqdn,
            &domains,
            &outside_addresses(config, Outside::Webconf),
        );
    }
    if let Some(av) = &config.av {
        for domain in domains.iter().copied() {
            view.service(domain, "_stun._udp", av.udp_port, &av.fqdn);
            view.service(domain, "_turn._udp", av.udp_port, &av.fqdn);
            view.service(domain, "_turn._tcp", av.tcp_port, &av.fqdn);
            if !av.certificates.is_empty() {
                view.service(domain, "_turns._tcp", av.tcp_port, &av.fqdn);
            }
        }
        view.host(&av.fqdn, &domains, &outside_addresses(config, Outside::Av));
    }
    let lab = config.lab.as_ref();
    view.hide_unreachable(lab.map_or(&[], |lab| &lab.treat_as_public));
    view
}

/// What the organisation's own name servers have to tell inside.
#[must_use]
pub fn internal(config: &Config) -> View {
    let mut view = View::new(Side::Internal);
    let domains = sip_domains(config);
    if let Some(next_hop) = &config.internal.next_hop {
        for domain in domains.iter().copied() {
            view.service(
                domain,
                "_sipinternaltls._tcp",
                next_hop.port,
                &next_hop.host,
            );
        }
        view.host(
            &next_hop.host,
            &domains,
            &config.internal.next_hop_addresses,
        );
    }
    let vips = &config.array.vips.internal;
    if let Some(access) = &config.access {
        view.host(
            &access.internal_fqdn,
            &domains,
            &inside_addresses(config, &vips.access),
        );
    }
    if let Some(av) = &config.av {
        view.host(
            &av.internal_fqdn,
            &domains,
            &inside_addresses(config, &vips.av),
        );
    }
    for member in &config.members {
        let own: Vec<IpAddr> = member.internal.ips().collect();
        view.host(&member.internal.fqdn, &domains, &own);
        if config.webconf.is_some() {
            // Never the balancer's: agents dial each member by its own name.
            view.host(&member.webconf_internal_fqdn, &domains, &own);
        }
    }
    view
}

/// Both views as files `external/ZONE.zone` and `internal/ZONE.zone`.
#[must_use]
pub fn files(config: &Config) -> Vec<Document> {
    [external(config), internal(config)]
        .iter()
        .flat_map(|view| {
            view.zones.iter().map(|(zone, records)| Document {
                path: format!("{}/{zone}.zone", view.side).into(),
                text: fragment(view.side, zone, records),
            })
        })
        .collect()
}

impl View {
    const fn new(side: Side) -> Self {
        Self {
            side,
            zones: BTreeMap::new(),
        }
    }

    fn service(&mut self, domain: &HostName, service: &str, port: u16, target: &HostName) {
        self.zones
            .entry(domain.clone())
            .or_default()
            .insert(Record {
                owner: format!("{service}.{domain}"),
                data: Data::Srv {
                    port,
                    target: target.clone(),
                },
            });
    }

    fn host(&mut self, host: &HostName, domains: &[&HostName], addresses: &[IpAddr]) {
        let zone = zone_of(host, domains);
        for address in addresses {
            self.zones.entry(zone.clone()).or_default().insert(Record {
                owner: host.to_string(),
                data: Data::Address(*address),
            });
        }
    }

    /// Takes what nobody outside can reach off the record.
    fn hide_unreachable(&mut self, treated_as_public: &[IpNet]) {
        for records in self.zones.values_mut() {
            *records = std::mem::take(records)
                .into_iter()
                .map(|record| match record.data {
                    Data::Address(address) if !is_public(address, treated_as_public) => Record {
                        data: Data::BehindNat(address),
                        ..record
                    },
                    Data::Address(_) | Data::Srv { .. } | Data::BehindNat(_) => record,
                })
                .collect();
        }
    }
}

/// The longest SIP domain that holds the name, else the domain right above it.
fn zone_of(host: &HostName, domains: &[&HostName]) -> HostName {
    domains
        .iter()
        .copied()
        .filter(|domain| host.is_within(domain))
        .max_by_key(|domain| domain.as_str().len())
        .cloned()
        .or_else(|| host.parent())
        .unwrap_or_else(|| host.clone())
}

fn sip_domains(config: &Config) -> Vec<&HostName> {
    config
        .organization
        .sip_domains
        .iter()
        .map(|domain| &domain.domain)
        .collect()
}

/// Which addresses of the external side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    Access,
    Webconf,
    Av,
}

/// What the Internet sees: the balancer's addresses where there are any, else the members' own; an address
/// that the A/V Edge has behind a 1:1 NAT is known by its public one, whichever service listens there too.
fn outside_addresses(config: &Config, of: Outside) -> Vec<IpAddr> {
    let vips = &config.array.vips.external;
    let balanced = match of {
        Outside::Access => &vips.access,
        Outside::Webconf => &vips.webconf,
        Outside::Av => &vips.av,
    };
    if !balanced.is_empty() {
        return balanced.clone();
    }
    let own = config.members.iter().flat_map(|member| match of {
        Outside::Access => &member.external.access,
        Outside::Webconf => &member.external.webconf,
        Outside::Av => &member.external.av,
    });
    own.map(|address| translated(config, *address)).collect()
}

fn translated(config: &Config, address: IpAddr) -> IpAddr {
    let Some(public) = config.av.as_ref().and_then(|av| av.public_address) else {
        return address;
    };
    let is_behind = config
        .members
        .iter()
        .any(|member| member.external.av.contains(&address));
    if is_behind && public.is_ipv4() == address.is_ipv4() {
        public
    } else {
        address
    }
}

fn inside_addresses(config: &Config, balanced: &[IpAddr]) -> Vec<IpAddr> {
    if !balanced.is_empty() {
        return balanced.to_vec();
    }
    config
        .members
        .iter()
        .flat_map(|member| member.internal.ips())
        .collect()
}

fn fragment(side: Side, zone: &HostName, records: &BTreeSet<Record>) -> String {
    let mut out = format!(
        "; {zone} as seen from the {side} side. Made by `edgectl render dns`: change edge.toml.\n\
         $ORIGIN {zone}.\n$TTL {TTL}\n"
    );
    let mut ordered: Vec<&Record> = records.iter().collect();
    ordered.sort_by_key(|record| (&record.data, &record.owner));
    let width = ordered
        .iter()
        .map(|record| relative(&record.owner, zone).len())
        .max()
        .unwrap_or_default();
    for record in ordered {
        let owner = relative(&record.owner, zone);
        let data = match &record.data {
            Data::Srv { port, target } => format!("SRV 0 0 {port} {target}."),
            Data::Address(address) => host_record(*address),
            Data::BehindNat(address) => {
                let data = host_record(*address);
                line(
                    &mut out,
                    format_args!("; {owner} IN {data} is behind a NAT: publish what the NAT shows"),
                );
                continue;
            }
        };
        line(&mut out, format_args!("{owner:width$} IN {data}"));
    }
    out
}

fn host_record(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("A {address}"),
        IpAddr::V6(address) => format!("AAAA {address}"),
    }
}

/// The owner without the zone's name at its end; `@` is the zone itself.
fn relative<'a>(owner: &'a str, zone: &HostName) -> &'a str {
    if owner == zone.as_str() {
        return "@";
    }
    owner
        .strip_suffix(zone.as_str())
        .and_then(|front| front.strip_suffix('.'))
        .unwrap_or(owner)
}

/// Short enough to move an edge within the hour.
const TTL: u32 = 3600;

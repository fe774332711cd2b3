//! What several rules ask of a file.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::file::{File, Member};
use crate::config::organization::Topology;
use crate::host_name::HostName;
use crate::peer_range::{self, Kind};
use crate::ports::Service;

impl File {
    /// Says whether balancers stand in front of this edge.
    pub(super) fn is_balanced(&self) -> bool {
        match self
            .organization
            .as_ref()
            .and_then(|organization| organization.topology)
        {
            Some(Topology::Scaled) => true,
            Some(Topology::MultiSite) => self.members.len() > 1,
            Some(Topology::Single) | None => false,
        }
    }

    /// Says whether partners are spoken to.
    pub(super) fn federates(&self) -> bool {
        let here = self
            .organization
            .as_ref()
            .is_none_or(|organization| organization.federation_here);
        self.access
            .as_ref()
            .is_some_and(|access| access.federation.enabled.unwrap_or(here))
    }

    pub(super) fn has(&self, service: Service) -> bool {
        match service {
            Service::Access => self.access.is_some(),
            Service::Webconf => self.webconf.is_some(),
            Service::Av => self.av.is_some(),
        }
    }

    /// Networks inside; none when that part of the file is missing.
    ///
    /// A default route is left out: it has a rule of its own, and would make everything else wrong.
    pub(super) fn inside(&self) -> impl Iterator<Item = &IpNet> {
        self.networks_inside()
            .iter()
            .filter(|network| network.prefix_len() != 0)
    }

    /// `internal.networks` as typed.
    pub(super) fn networks_inside(&self) -> &[IpNet] {
        self.internal
            .as_ref()
            .map_or(&[], |internal| &internal.networks)
    }

    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        self.inside().any(|network| network.contains(&address))
    }

    /// Says whether hosts on the Internet reach `address`, or the lab pretends so.
    pub(super) fn is_public(&self, address: IpAddr) -> bool {
        let treated = self
            .lab
            .as_ref()
            .map_or(&[][..], |lab| &lab.treat_as_public);
        peer_range::is_public(address, treated)
    }

    pub(super) fn owns(&self, domain: &HostName) -> bool {
        self.organization
            .iter()
            .flat_map(|organization| &organization.sip_domains)
            .any(|own| own.domain == *domain)
    }

    /// Our own names, as far as the file has them, each with its key.
    pub(super) fn own_names(&self) -> impl Iterator<Item = (String, &HostName, Whose)> {
        let (access, webconf, av) = (
            self.access.as_ref(),
            self.webconf.as_ref(),
            self.av.as_ref(),
        );
        let services = [
            (
                "access.fqdn",
                access.and_then(|access| access.fqdn.as_ref()),
                Whose::OursOutside,
            ),
            (
                "webconf.fqdn",
                webconf.and_then(|webconf| webconf.fqdn.as_ref()),
                Whose::OursOutside,
            ),
            (
                "av.fqdn",
                av.and_then(|av| av.fqdn.as_ref()),
                Whose::OursOutside,
            ),
            (
                "access.internal_fqdn",
                access.and_then(|access| access.internal_fqdn.as_ref()),
                Whose::OursInside,
            ),
            (
                "av.internal_fqdn",
                av.and_then(|av| av.internal_fqdn.as_ref()),
                Whose::OursInside,
            ),
        ];
        let members = self.members.iter().enumerate().flat_map(|(index, member)| {
            let fqdn = member
                .internal
                .as_ref()
                .and_then(|internal| internal.fqdn.as_ref());
            [
                (
                    format!("members[{index}].internal.fqdn"),
                    fqdn,
                    Whose::OursInside,
                ),
                (
                    format!("members[{index}].webconf_internal_fqdn"),
                    member.webconf_internal_fqdn.as_ref(),
                    Whose::OursInside,
                ),
            ]
        });
        services
            .into_iter()
            .map(|(key, name, whose)| (key.to_owned(), name, whose))
            .chain(members)
            .filter_map(|(key, name, whose)| Some((key, name?, whose)))
    }
}

/// Who gave a name, and on which side it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    OursOutside,
    OursInside,
    /// SIP domains and partners: names that public DNS holds.
    Public,
    /// Servers inside, which the organisation named long ago.
    ServerInside,
}

impl Member {
    /// The external addresses that `service` takes, each with its key in the member's table.
    pub(super) fn taken_by(&self, service: Service) -> Vec<(String, IpAddr)> {
        let Some(external) = &self.external else {
            return Vec::new();
        };
        let chosen = match service {
            Service::Access => &external.access,
            Service::Webconf => &external.webconf,
            Service::Av => &external.av,
        };
        match chosen {
            Some(chosen) => numbered(&format!("external.{service}"), chosen.iter().copied()),
            None => numbered(
                "external.addresses",
                external.addresses.iter().map(IpNet::addr),
            ),
        }
    }

    pub(super) fn external_addresses(&self) -> &[IpNet] {
        self.external
            .as_ref()
            .map_or(&[], |external| &external.addresses)
    }

    pub(super) fn internal_addresses(&self) -> &[IpNet] {
        self.internal
            .as_ref()
            .map_or(&[], |internal| &internal.addresses)
    }
}

fn numbered(key: &str, addresses: impl Iterator<Item = IpAddr>) -> Vec<(String, IpAddr)> {
    addresses
        .enumerate()
        .map(|(index, address)| (format!("{key}[{index}]"), address))
        .collect()
}

/// Says whether a host can have this address on a link.
pub(super) fn is_usable(address: IpNet) -> bool {
    let ends = match address {
        IpNet::V4(v4) if v4.prefix_len() < 31 => {
            v4.addr() == v4.network() || v4.addr() == v4.broadcast()
        }
        IpNet::V4(_) | IpNet::V6(_) => false,
    };
    !ends && is_unicast(address.addr())
}

/// Says whether packets can be sent to this address over a network.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    match peer_range::classify(address).map(|range| range.kind) {
        Some(Kind::Local | Kind::Multicast | Kind::Reserved) => false,
        Some(Kind::Private | Kind::Example | Kind::Protocol | Kind::Embedded) | None => true,
    }
}

pub(super) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The words of messages.
pub(super) const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

//! Whose edge this is, and which hosts it consists of.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host_name::{HostName, HostPort};

/// The organisation that the edge stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its SIP domains; at least one, and the first is the default realm.
    pub sip_domains: Vec<SipDomain>,
    /// How the edge hosts of this site stand together.
    pub topology: Topology,
    /// Federation runs through this site; of several sites only one may have it.
    pub federation_here: bool,
}

impl Organization {
    /// Says whether the organisation answers for `domain`.
    #[must_use]
    pub fn owns(&self, domain: &HostName) -> bool {
        self.sip_domains.iter().any(|own| own.domain == *domain)
    }
}

/// One SIP domain of the organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipDomain {
    /// The part behind the `@` of its users' addresses.
    pub domain: HostName,
    /// Remote users of this domain sign in here, so its `_sip._tls` record names this edge.
    pub remote_users_here: bool,
    /// The edge of another site where they sign in instead; who tries it here is sent there.
    pub remote_users_edge: Option<HostPort>,
}

/// The topologies of the guide; there is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// One edge host.
    Single,
    /// Several behind a balancer on each side.
    Scaled,
    /// One of several sites; each is single or scaled.
    MultiSite,
}

/// One edge host of this site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What `--node` selects.
    pub name: String,
    /// Stands in tokens; unique in the array.
    pub id: u8,
    /// Its side towards the Internet.
    pub external: MemberExternal,
    /// Its side towards the organisation.
    pub internal: MemberInternal,
    /// The name by which conference servers reach exactly this host.
    pub webconf_internal_fqdn: HostName,
}

/// A member's addresses on the external interface and who takes which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberExternal {
    /// All of them, each with the prefix of its link.
    pub addresses: Vec<IpNet>,
    /// Where the Access Edge listens and dials from.
    pub access: Vec<IpAddr>,
    /// Where conference clients arrive.
    pub webconf: Vec<IpAddr>,
    /// Where the A/V Edge listens and relays.
    pub av: Vec<IpAddr>,
}

/// A member's addresses on the internal interface; every service takes them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInternal {
    /// All of them, each with the prefix of its link.
    pub addresses: Vec<IpNet>,
    /// The host's own name inside.
    pub fqdn: HostName,
}

impl MemberInternal {
    /// The addresses without their prefixes.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr)
    }
}

impl MemberExternal {
    /// The addresses without their prefixes.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr)
    }
}

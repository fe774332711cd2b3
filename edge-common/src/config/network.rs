//! The two networks of the host and what the array's members share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{schema_text, units};
use crate::host_name::{HostPort, NamePattern};
use crate::side::SidePair;

/// The network towards the Internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Its interface on every member.
    pub interface: String,
    /// At most one per address family.
    pub gateway: Vec<IpAddr>,
    /// What is reached over it.
    pub networks: Vec<IpNet>,
}

/// The network towards the organisation, and whom the edge trusts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Internal {
    /// Its interface on every member.
    pub interface: String,
    /// At most one per address family; none when everything inside is on the link.
    pub gateway: Vec<IpAddr>,
    /// What lies inside.
    pub networks: Vec<IpNet>,
    /// What the edge shows inside: one or two (ECDSA, RSA).
    pub certificates: Vec<CertificateFiles>,
    /// The only authority trusted inside.
    pub ca: PathBuf,
    /// Its revocation lists.
    pub crls: Vec<PathBuf>,
    /// What becomes of a peer inside whose revocation cannot be told.
    pub revocation: Revocation,
    /// Who may speak SIP to the edge from inside.
    pub trusted_servers: Vec<NamePattern>,
    /// The Director or its virtual address; always there when `[access]` is.
    pub next_hop: Option<HostPort>,
    /// Its addresses; when empty, DNS inside is asked. The first that is connected is taken, and up to three more in
    /// this order when it fails.
    pub next_hop_addresses: Vec<IpAddr>,
}

impl Internal {
    /// Says whether `address` lies inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// A certificate chain and its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate and its intermediates.
    #[schemars(with = "schema_text::Path")]
    pub chain: PathBuf,
    /// The private key.
    #[schemars(with = "schema_text::Path")]
    pub key: PathBuf,
}

/// How much is asked of a peer's revocation state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Revocation {
    /// Nothing is looked up.
    #[default]
    Off,
    /// A revoked certificate is refused; one whose list is missing passes.
    Soft,
    /// A certificate passes only when a list says that it is good.
    Hard,
}

/// What the members of the array share. A single edge is an array of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// The files of the shared secret.
    pub secrets: SecretFiles,
    /// What the balancers answer for; empty for a single edge.
    pub vips: Vips,
    /// Addresses the balancers speak from; only they may send PROXY headers, and they must.
    pub balancers: SidePair<Vec<IpAddr>>,
    /// The port of the link between members.
    pub link_port: u16,
    /// Between two questions to another member whether it is still there.
    pub link_heartbeat: Duration,
    /// Questions without an answer after which it counts as dead.
    pub link_misses: u32,
    /// What a member does when it ends in order.
    pub drain: Drain,
}

/// `[array.drain]`: how a member of an array ends in order, so that the others take over its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// From the moment at which `/readyz` says no until the listeners close: balancers need it to look elsewhere.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub notice: Duration,
    /// How long `edge-access` then waits for its connections to end; at most 10 min.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub timeout: Duration,
    /// As many per cent of them a second are closed at most, each when its client sent a keep-alive and nothing else lately.
    #[schemars(range(min = 1, max = 100))]
    pub percent_per_second: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            notice: Duration::from_secs(3),
            // Longer than clients are told to wait between two keep-alives.
            timeout: Duration::from_secs(6 * 60),
            percent_per_second: 1,
        }
    }
}

/// Files with one 32-byte secret each, as hex digits; three at a time so that a change loses nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFiles {
    /// Seals and opens.
    #[schemars(with = "schema_text::Path")]
    pub current: PathBuf,
    /// Opens already; will seal after the next change.
    #[schemars(with = "Option<schema_text::Path>")]
    pub next: Option<PathBuf>,
    /// Still opens.
    #[schemars(with = "Option<schema_text::Path>")]
    pub previous: Option<PathBuf>,
}

/// The virtual addresses of a scaled array.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vips {
    /// On the outside balancer.
    pub external: ExternalVips,
    /// On the inside balancer; 8057 has none, as conference servers dial each member by name.
    pub internal: InternalVips,
}

/// Virtual addresses outside, per service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalVips {
    /// Of the Access Edge.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 16))]
    pub access: Vec<IpAddr>,
    /// Of the Web Conferencing Edge.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 16))]
    pub webconf: Vec<IpAddr>,
    /// Of the A/V Edge.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 16))]
    pub av: Vec<IpAddr>,
}

/// Virtual addresses inside, per service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InternalVips {
    /// Of the Access Edge.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 16))]
    pub access: Vec<IpAddr>,
    /// Of the A/V Edge.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 16))]
    pub av: Vec<IpAddr>,
}

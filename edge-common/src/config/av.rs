//! The A/V Edge service as configured.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::CertificateFiles;
use super::{schema_text, units};
use crate::host_name::HostName;
use crate::ports::PortRange;

/// `[av]`: STUN, TURN and the credentials for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Av {
    /// The name outside.
    pub fqdn: HostName,
    /// The name inside, of the array as a whole.
    pub internal_fqdn: HostName,
    /// For TURN over TLS; without any there is none.
    pub certificates: Vec<CertificateFiles>,
    /// What a static 1:1 NAT shows outside in place of the member's external A/V address.
    pub public_address: Option<IpAddr>,
    /// The realm of challenges.
    pub realm: String,
    /// STUN and TURN over UDP, on both sides.
    pub udp_port: u16,
    /// STUN and TURN over TCP, on both sides.
    pub tcp_port: u16,
    /// Where servers inside ask for credentials.
    pub mras_port: u16,
    /// Where relayed packets leave and arrive.
    pub relay_ports: PortRange,
    /// Which directions and transports these ports are open for.
    pub relay_mode: RelayMode,
    /// The A/V authentication certificates.
    pub authentication: AuthenticationFiles,
    /// A second source of credentials, for servers that mint by themselves.
    pub rest_secrets: Option<RestSecretFiles>,
    /// The longest life of a credential.
    pub token_lifetime_max: Duration,
    /// Special-purpose ranges that are allowed as peers all the same.
    pub peer_allow: Vec<IpNet>,
    /// What one daemon takes on at most.
    pub limits: AvLimits,
}

/// What the relay ports are open for.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RelayMode {
    /// UDP both ways, TCP outwards.
    #[default]
    Open,
    /// UDP and TCP both ways, as partners before R2 need.
    PreR2,
    /// TCP outwards only.
    TcpOut,
    /// Nothing but hairpins between relayed addresses of this edge.
    Closed,
}

/// A/V authentication certificates; three at a time so that a change loses no credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthenticationFiles {
    /// Mints and verifies.
    pub current: CertificateFiles,
    /// Verifies already; will mint after the next change.
    pub next: Option<CertificateFiles>,
    /// Still verifies.
    pub previous: Option<CertificateFiles>,
}

/// Secrets shared with servers that mint credentials by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestSecretFiles {
    /// In use.
    #[schemars(with = "schema_text::Path")]
    pub current: PathBuf,
    /// Still accepted.
    #[schemars(with = "Option<schema_text::Path>")]
    pub previous: Option<PathBuf>,
}

/// Bounds of the A/V Edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AvLimits {
    /// Allocations at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub allocations: usize,
    /// Of these with one user name.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub allocations_per_user: usize,
    /// Of these from one source address (IPv6: one /64).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub allocations_per_source: usize,
    /// Permissions of one allocation.
    #[schemars(range(min = 1, max = 4096))]
    pub permissions: usize,
    /// Channels of one allocation.
    #[schemars(range(min = 1, max = 4096))]
    pub channels: usize,
    /// Client connections over TCP at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub tcp_connections: usize,
    /// Of these from one source address (IPv6: one /64).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub tcp_connections_per_source: usize,
    /// Connections at once of servers that ask for credentials.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub mras_connections: usize,
    /// Connections over TCP that begin at once: nothing has come yet that says what they speak, or TLS is under way.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handshakes: usize,
    /// Of these from one source address.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handshakes_per_source: usize,
    /// New connections a second from one source address, on average.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_second_per_source: u32,
    /// New connections in one moment from a source address that was quiet before.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_burst_per_source: u32,
    /// Answers a second to one source address that has not authenticated; over UDP and over TCP so many each.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub stranger_answers_per_second: usize,
    /// Without any byte from a TCP client that holds no allocation.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub stranger_silence: Duration,
    /// How long a TCP client may stay without an allocation, whatever it sends.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub stranger_stay: Duration,
    /// Messages waiting between two cores.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub mailbox: usize,
}

impl Default for AvLimits {
    fn default() -> Self {
        Self {
            allocations: 10_000,
            allocations_per_user: 64,
            allocations_per_source: 128,
            permissions: 64,
            channels: 64,
            tcp_connections: 5000,
            tcp_connections_per_source: 256,
            mras_connections: 1000,
            handshakes: 2048,
            handshakes_per_source: 64,
            connections_per_second_per_source: 100,
            connections_burst_per_source: 256,
            stranger_answers_per_second: 50,
            stranger_silence: Duration::from_secs(10),
            stranger_stay: Duration::from_secs(60),
            mailbox: 4096,
        }
    }
}

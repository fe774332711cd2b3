//! The Web Conferencing Edge service as configured.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::CertificateFiles;
use super::{schema_text, units};
use crate::host_name::{HostName, NamePattern};

/// `[webconf]`: conference streams from outside to agents inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webconf {
    /// The name outside.
    pub fqdn: HostName,
    /// Shown outside: one or two (ECDSA, RSA).
    pub certificates: Vec<CertificateFiles>,
    /// Where clients connect to.
    pub port: u16,
    /// Where agents inside connect to.
    pub agent_port: u16,
    /// Names of the agents that may register.
    pub agents: Vec<NamePattern>,
    /// Those of them with the role `conference`.
    pub conference_agents: Vec<NamePattern>,
    /// Whether what a client sends first is searched for an admitted number.
    pub scan: bool,
    /// Public keys of those who sign tokens; none: no token counts.
    pub preface_keys: Vec<PathBuf>,
    /// What one daemon takes on at most.
    pub limits: WebconfLimits,
}

/// Bounds of the Web Conferencing Edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebconfLimits {
    /// Client connections open at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Of these from one source address (IPv6: one /64).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_source: usize,
    /// Handshakes under way at once; on these nothing has been proven yet.
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
    /// Connections of agents open at once, of all agents together.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub agent_connections: usize,
    /// Handshakes with agents under way at once; one agent may have half of them.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub agent_handshakes: usize,
    /// New connections a second from one agent, which fills its pool; twice as many in one moment.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub agent_connections_per_second: u32,
    /// From the first byte of TLS to its last.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub handshake_timeout: Duration,
    /// Bytes searched for an admitted number before the client is turned away.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub preread: usize,
    /// Time for these bytes to come.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub preread_timeout: Duration,
    /// Time to wait for a connection from an agent's pool.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub lease_timeout: Duration,
    /// Clients that wait for one.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub lease_queue: usize,
    /// Numbers admitted at once.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub admitted: usize,
    /// Used tokens remembered at once; when so many are, no other token is taken.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub tokens: usize,
    /// The longest time that a token may be good for; at most 24 h, for so long the agents remember it.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub token_lifetime: Duration,
    /// A relayed stream without a byte either way.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub idle_timeout: Duration,
    /// After one end has finished, for the other to do so.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub half_close_timeout: Duration,
    /// Idle data connections each agent is asked to keep.
    #[schemars(range(min = 1, max = 65_535))]
    pub pool_min: usize,
    /// Idle data connections each agent may have.
    #[schemars(range(min = 1, max = 65_535))]
    pub pool_max: usize,
    /// Bytes held for each direction of a stream.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub relay_buffer: usize,
}

impl Default for WebconfLimits {
    fn default() -> Self {
        Self {
            connections: 25_000,
            connections_per_source: 256,
            handshakes: 512,
            handshakes_per_source: 64,
            connections_per_second_per_source: 20,
            connections_burst_per_source: 60,
            agent_connections: 50_000,
            agent_handshakes: 1024,
            agent_connections_per_second: 1000,
            handshake_timeout: Duration::from_secs(5),
            preread: 4 * units::KIB,
            preread_timeout: Duration::from_secs(10),
            lease_timeout: Duration::from_secs(5),
            lease_queue: 1024,
            admitted: 100_000,
            tokens: 100_000,
            token_lifetime: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(4 * 3600),
            half_close_timeout: Duration::from_secs(30),
            pool_min: 32,
            pool_max: 512,
            relay_buffer: 64 * units::KIB,
        }
    }
}

/// Agents remember for so long that a token was used.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

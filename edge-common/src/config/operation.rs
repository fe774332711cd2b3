//! What the operator's side of the daemons needs: resolvers, logs, sockets, health, the lab.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{schema_text, units};
use crate::side::Side;

/// `[firewall]`: what is open beside the services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// How operators reach the host.
    #[schemars(length(max = 64))]
    pub management: Vec<Management>,
}

/// One way in for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Management {
    /// On which interface.
    pub side: Side,
    /// From which networks.
    #[schemars(with = "Vec<schema_text::Network>", length(min = 1, max = 64))]
    pub from: Vec<IpNet>,
    /// To which TCP ports.
    #[schemars(extend("items" = { "type": "integer", "minimum": 1, "maximum": 65535 }, "minItems" = 1, "maxItems" = 64))]
    pub tcp: Vec<u16>,
}

/// `[dns]`: who is asked for names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Asked from the external address, for partners.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 16))]
    pub external: Vec<IpAddr>,
    /// Asked from the internal address, for the next hop.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 16))]
    pub internal: Vec<IpAddr>,
    /// For a whole look-up, retries and aliases included.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub timeout: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            external: Vec::new(),
            internal: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// `[log]`: what is told, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important line that is written.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
}

/// How important a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Needs a human now.
    Error,
    /// To be looked into in the morning.
    Warn,
    /// A change an operator cares about.
    #[default]
    Info,
    /// A turn taken.
    Debug,
    /// Follows packets; compiled out of release builds.
    Trace,
}

impl LogLevel {
    /// The word that filters of `tracing` take.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `[admin]`: where `edgectl` finds the daemons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Holds `edge-access/admin.sock` and its like.
    #[schemars(with = "schema_text::Path")]
    pub directory: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            directory: "/run".into(),
        }
    }
}

/// `[health]`: HTTP ports on the internal address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Of `edge-access`.
    #[schemars(range(min = 1))]
    pub access: u16,
    /// Of `edge-av`.
    #[schemars(range(min = 1))]
    pub av: u16,
    /// Of `edge-webconf`.
    #[schemars(range(min = 1))]
    pub webconf: u16,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            access: 9561,
            av: 9562,
            webconf: 9563,
        }
    }
}

/// `[state]`: what outlives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// Holds one directory per daemon.
    #[schemars(with = "schema_text::Path")]
    pub directory: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: "/var/lib".into(),
        }
    }
}

/// `[lab]`: only for tests; `check` warns of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lab {
    /// Ranges that count as public in the check, in the DNS guard and as peers.
    #[schemars(with = "Vec<schema_text::Network>", length(max = 64))]
    pub treat_as_public: Vec<IpNet>,
}

/// `[runtime]`: how much of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Cores for each daemon; 0: all there are.
    #[schemars(range(max = 255))]
    pub cores: usize,
}

//! What `edge.toml` means, once it is checked.
//!
//! The file is what the operator typed; [`Config`] is what it means. Field names are those of the file. After
//! the check nothing needs to be checked again, so every value here has the type of its meaning.
//!
//! ```text
//!  text ─► document ─► shape ─► file ─► rules ─► build ─► Config ─► at_start, paths
//!          syntax      │ keys,  typed   what values
//!          places      │ kinds, values  mean together
//!                    schema ◄── the same types      findings: rule, place, help
//! ```
//!
//! Pure but for `reload`, which reads the file, and `files`, which looks at the files that it names.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod access;
pub mod at_start;
pub mod av;
mod build;
mod check;
mod document;
mod file;
#[cfg(feature = "io")]
pub mod files;
pub mod finding;
pub mod manual;
mod nearest;
pub mod network;
pub mod operation;
pub mod organization;
pub mod paths;
#[cfg(feature = "io")]
pub mod reload;
pub mod rule;
mod rules;
mod schema;
pub mod schema_text;
mod shape;
pub mod units;
pub mod webconf;

pub use access::{
    Access, AccessLimits, Callback, ClientEku, Clients, DefaultRoute, Disclosure, Federation,
    FederationLimits, Flatten, Hep, HideTopology, InsideRoutes, Partner, Provider, RegisterMode,
    SrvOrder, Trace, TrustRoots, Verification, WebSocket,
};
pub use at_start::AtStart;
pub use av::{AuthenticationFiles, Av, AvLimits, RelayMode, RestSecretFiles};
pub use check::{Checked, check, check_file};
pub use finding::{Finding, Place};
pub use network::{
    Array, CertificateFiles, Drain, External, ExternalVips, Internal, InternalVips, Revocation,
    SecretFiles, Vips,
};
pub use operation::{
    Admin, Dns, Firewall, Health, Lab, Log, LogFormat, LogLevel, Management, Runtime, State,
};
pub use organization::{Member, MemberExternal, MemberInternal, Organization, SipDomain, Topology};
pub use paths::{Content, NamedFile};
pub use rule::{Rule, RuleId, Severity, catalogue};
pub use schema::schema;
pub use webconf::{Webconf, WebconfLimits};

use std::time::Duration;

use crate::ports::{self, Listener};

/// One checked `edge.toml`, seen from one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whose edge this is.
    pub organization: Organization,
    /// All hosts of this site; at least one.
    pub members: Vec<Member>,
    /// Which of `members` this host is.
    pub node: usize,
    /// The network towards the Internet.
    pub external: External,
    /// The network towards the organisation.
    pub internal: Internal,
    /// What the members share.
    pub array: Array,
    /// The Access Edge, when it runs here.
    pub access: Option<Access>,
    /// The Web Conferencing Edge, when it runs here.
    pub webconf: Option<Webconf>,
    /// The A/V Edge, when it runs here.
    pub av: Option<Av>,
    /// What is open beside the services.
    pub firewall: Firewall,
    /// Who is asked for names.
    pub dns: Dns,
    /// What is told, and how.
    pub log: Log,
    /// Where `edgectl` finds the daemons.
    pub admin: Admin,
    /// Ports of the health and metrics listeners.
    pub health: Health,
    /// What outlives a restart.
    pub state: State,
    /// Only in a lab.
    pub lab: Option<Lab>,
    /// How much of the machine is used.
    pub runtime: Runtime,
}

impl Config {
    /// The member that this host is.
    ///
    /// # Panics
    /// Never after the check, which has looked `node` up.
    #[must_use]
    pub fn local(&self) -> &Member {
        &self.members[self.node]
    }

    /// The members that this host is not.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != self.node)
            .map(|(_, member)| member)
    }

    /// Every socket that the configured services of this host listen on, relay ports apart.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        ports::listeners(self)
    }

    /// How long a daemon that ends goes on as before while the balancers learn of it; nothing for a single edge.
    #[must_use]
    pub fn drain_notice(&self) -> Duration {
        if self.is_balanced() {
            self.array.drain.notice
        } else {
            Duration::ZERO
        }
    }

    /// Says whether balancers stand in front of this edge.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        match self.organization.topology {
            Topology::Single => false,
            Topology::Scaled => true,
            Topology::MultiSite => self.members.len() > 1,
        }
    }
}

//! Everything around the daemons that follows from the configuration, before any of it is printed or applied.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt::Write as _;
use std::path::PathBuf;

use edge_common::config::Config;

use crate::certs::{self, Need};
use crate::dns::{self, View};
use crate::firewall::{self, Ruleset, Users};
use crate::network::{self, Network};
use crate::systemd::{self, Paths, Unit};

/// What one host of the edge needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its packet filter.
    pub firewall: Ruleset,
    /// Its addresses, routes and kernel settings.
    pub network: Network,
    /// Records for the world and for the inside.
    pub dns: [View; 2],
    /// Certificates, and what each must hold.
    pub certificates: Vec<Need>,
    /// Its units.
    pub units: Vec<Unit>,
}

impl Plan {
    /// Works it all out.
    #[must_use]
    pub fn new(config: &Config, users: Users, paths: &Paths) -> Self {
        Self {
            firewall: firewall::ruleset(config, users),
            network: network::network(config),
            dns: [dns::external(config), dns::internal(config)],
            certificates: certs::needs(config),
            units: systemd::units(config, paths),
        }
    }
}

/// A text with the place where it belongs, below a directory that the operator chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Relative.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// Adds one line to a text that is being printed.
#[expect(
    clippy::expect_used,
    reason = "a String takes whatever is written to it"
)]
pub(crate) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .and_then(|()| out.write_char('\n'))
        .expect("writing to a String cannot fail");
}

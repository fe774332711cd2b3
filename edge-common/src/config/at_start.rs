//! What a daemon takes from its configuration once, when it starts; a reload cannot change it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::IpAddr;
use std::path::PathBuf;

use super::{Config, Drain, FederationLimits, LogFormat, WebconfLimits};
use crate::ports::{Listener, Service};
use crate::side::SidePair;

/// The part of a configuration that is in force until the daemon ends.
///
/// A daemon keeps that of its first configuration and compares each later one with it, so that an operator is told
/// what the reload did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtStart {
    /// Sockets are bound before the rights to do so are given up.
    listeners: Vec<Listener>,
    /// Cores share their work by their number.
    cores: usize,
    /// Where the daemon is asked.
    admin: PathBuf,
    /// Where what it keeps is.
    state: PathBuf,
    /// A log that changes its form half-way is read by nobody.
    log_format: LogFormat,
    /// Who sends PROXY headers is told to the listeners when they are bound.
    balancers: SidePair<Vec<IpAddr>>,
    /// How long it takes to end is known from the beginning.
    drain: Drain,
    /// Its tables are made once; only `edge-webconf` has these.
    webconf_limits: Option<WebconfLimits>,
    /// What was counted is counted against these; only `edge-access` has them.
    federation_limits: Option<FederationLimits>,
}

impl AtStart {
    /// What `config` says of it to the daemon of `service`.
    #[must_use]
    pub fn of(config: &Config, service: Service) -> Self {
        Self {
            listeners: config
                .listeners()
                .into_iter()
                .filter(|listener| listener.service == service)
                .collect(),
            cores: config.runtime.cores,
            admin: config.admin.directory.clone(),
            state: config.state.directory.clone(),
            log_format: config.log.format,
            balancers: config.array.balancers.clone(),
            drain: config.array.drain.clone(),
            webconf_limits: match service {
                Service::Webconf => config
                    .webconf
                    .as_ref()
                    .map(|webconf| webconf.limits.clone()),
                Service::Access | Service::Av => None,
            },
            federation_limits: match service {
                Service::Access => config
                    .access
                    .as_ref()
                    .map(|access| access.federation.limits),
                Service::Webconf | Service::Av => None,
            },
        }
    }

    /// What of `later` has to wait for the next start, in words for the operator.
    #[must_use]
    pub fn changed(&self, later: &Self) -> Vec<&'static str> {
        [
            (
                "addresses, ports or interfaces of listeners",
                self.listeners != later.listeners,
            ),
            ("runtime.cores", self.cores != later.cores),
            ("admin.directory", self.admin != later.admin),
            ("state.directory", self.state != later.state),
            ("log.format", self.log_format != later.log_format),
            ("array.balancers", self.balancers != later.balancers),
            ("array.drain", self.drain != later.drain),
            (
                "webconf.limits",
                self.webconf_limits != later.webconf_limits,
            ),
            (
                "access.federation.limits",
                self.federation_limits != later.federation_limits,
            ),
        ]
        .into_iter()
        .filter_map(|(what, changed)| changed.then_some(what))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;

    #[test]
    fn only_the_daemon_concerned_has_to_start_again() {
        let single = include_str!("../../../deploy/examples/single.toml");
        let config = |text: &str| check(text, None).config.expect("it passes");
        let (before, after) = (
            config(single),
            config(&single.replace("[access]\n", "[access]\nclient_port = 444\n")),
        );
        let changed =
            |service| AtStart::of(&before, service).changed(&AtStart::of(&after, service));
        assert_eq!(
            changed(Service::Access),
            ["addresses, ports or interfaces of listeners"]
        );
        assert_eq!(changed(Service::Av), [""; 0]);

        let after = config(&single.replace("\"evil.test\"", "\"worse.test\""));
        let start = AtStart::of(&before, Service::Access);
        assert_eq!(
            start.changed(&AtStart::of(&after, Service::Access)),
            [""; 0],
            "partners are read at each reload"
        );

        let after = config(&format!(
            "{single}\n[runtime]\ncores = 1\n[log]\nformat = \"json\"\n"
        ));
        assert_eq!(
            start.changed(&AtStart::of(&after, Service::Access)),
            ["runtime.cores", "log.format"]
        );
    }
}

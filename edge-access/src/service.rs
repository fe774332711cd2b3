//! The Access Edge inside the scaffold of all daemons.

use std::sync::Arc;
use std::time::Duration;

use edge_common::config::{AtStart, Config, Finding};
use edge_common::net::bind::Bind;
use edge_common::observe::admin::Changers;
use edge_common::observe::http::Audience;
use edge_common::ports::{Listener, Purpose, Service as Owner};
use edge_common::run::{Arguments, Fault, Frame, Loaded, Running, Service, Shared};
use edge_common::side::Side;
use ipnet::IpNet;

use crate::admin;
use crate::daemon::{Daemon, Names};

/// The Access Edge.
#[derive(Debug)]
pub struct AccessEdge;

impl Service for AccessEdge {
    type Config = Config;
    type Finding = Finding;

    const NAME: &'static str = "edge-access";
    const METRICS: &'static str = "access";

    fn load(arguments: &Arguments) -> Result<Loaded<Self>, Vec<Finding>> {
        Config::load(&arguments.config, arguments.node.as_deref())
    }

    fn frame(config: &Config) -> Frame {
        Frame {
            log_level: config.log.level,
            log_format: config.log.format,
            admin: config.admin.directory.join(Self::NAME).join("admin.sock"),
            changers: Changers::default(),
            health: config
                .listeners()
                .iter()
                .filter(|at| at.service == Owner::Access && at.purpose == Purpose::Health)
                .map(|at| health(config, at))
                .collect(),
            notice: config.drain_notice(),
            drain: if config.is_balanced() {
                config.array.drain.timeout
            } else {
                DRAIN
            },
        }
    }

    async fn start(config: Config, shared: &Shared) -> Result<Running<Config>, Fault> {
        let names = Names::of(&config);
        let at_start = AtStart::of(&config, Owner::Access);
        let daemon = Daemon::start(Arc::new(config), &names, shared)?;
        let (cores, reloader) = daemon.into_parts();
        let mut commands = admin::commands(&reloader.host());
        commands.extend(reloader.federation_commands());
        Ok(Running {
            cores,
            reload: Box::new(move |config| {
                let later = AtStart::of(&config, Owner::Access);
                reloader.reload(config)?;
                for what in at_start.changed(&later) {
                    tracing::warn!(what, "takes effect when the daemon starts again");
                }
                Ok(())
            }),
            commands,
        })
    }
}

fn health(config: &Config, at: &Listener) -> (Bind, Audience) {
    let audience = match at.side {
        Side::Internal => Audience::Inside,
        Side::External => {
            let balancers = config.array.balancers.external.iter();
            Audience::Balancers(balancers.copied().map(IpNet::from).collect())
        }
    };
    (Bind::on(at.address, at.interface.as_str()), audience)
}

/// Of a single edge: calls that are being set up find their end in that time; whoever is connected comes back later.
const DRAIN: Duration = Duration::from_secs(10);

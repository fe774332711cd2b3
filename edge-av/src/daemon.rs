//! The daemon as [`edge_common::run`] sees it.

use std::rc::Rc;
use std::time::Duration;

use edge_common::config::{Config, finding::Finding};
use edge_common::net::bind::Bind;
use edge_common::observe::admin::{Changers, Commands, Effect};
use edge_common::observe::http::Audience;
use edge_common::ports::{Purpose, Service as Daemon};
use edge_common::run::{self, Arguments, Fault, Frame, Loaded, Running, Shared};
use edge_common::side::Side;
use ipnet::IpNet;
use serde_json::json;

use crate::parts::Parts;

/// `edge-av`.
#[derive(Debug)]
pub struct AvEdge;

impl run::Service for AvEdge {
    type Config = Config;
    type Finding = Finding;

    const NAME: &'static str = Daemon::Av.daemon();
    const METRICS: &'static str = Daemon::Av.as_str();

    fn load(arguments: &Arguments) -> Result<Loaded<Self>, Vec<Finding>> {
        Config::load(&arguments.config, arguments.node.as_deref())
    }

    fn frame(config: &Config) -> Frame {
        Frame {
            log_level: config.log.level,
            log_format: config.log.format,
            admin: config.admin.directory.join(Self::NAME).join("admin.sock"),
            changers: Changers::default(),
            health: health(config),
            notice: config.drain_notice(),
            drain: DRAIN,
        }
    }

    async fn start(config: Config, shared: &Shared) -> Result<Running<Config>, Fault> {
        let now = run::now();
        let parts = Parts::load(&config, now)?;
        let (cores, changes) = parts.start(&shared.metrics, now)?;
        let changes = Rc::new(changes);
        let mut commands = Commands::default();
        let status = Rc::clone(&changes);
        commands.add("allocations", Effect::Read, move |_| {
            let (allocations, ports) = (status.allocations(), status.ports_in_use());
            async move { Ok(json!({ "allocations": allocations, "relay_ports": ports })) }
        });
        Ok(Running {
            cores,
            reload: Box::new(move |config| Ok(changes.apply(Parts::load(&config, run::now())?)?)),
            commands,
        })
    }
}

fn health(config: &Config) -> Vec<(Bind, Audience)> {
    let listeners = config.listeners().into_iter();
    let health = listeners
        .filter(|listener| listener.service == Daemon::Av && listener.purpose == Purpose::Health);
    health
        .map(|listener| {
            let audience = match listener.side {
                Side::Internal => Audience::Inside,
                Side::External => {
                    let balancers = config.array.balancers.external.iter().copied();
                    Audience::Balancers(balancers.map(IpNet::from).collect())
                }
            };
            (Bind::on(listener.address, listener.interface), audience)
        })
        .collect()
}

/// Short calls end by themselves, others are ended then and set up again elsewhere: the unit gives a stop thirty seconds.
const DRAIN: Duration = Duration::from_secs(15);

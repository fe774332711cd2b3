//! `edge-webconf-agent` as a service: what it opens, what a reload changes, how it ends.

use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;

use edge_common::net::bind::Bind;
use edge_common::net::core_runtime::{CoreContext, Cores};
use edge_common::observe::admin::{Changers, Commands};
use edge_common::observe::http::{Audience, Condition};
use edge_common::observe::metrics::Metrics;
use edge_common::run::{Arguments, Fault, Frame, Loaded, Running, Service, Shared};
use tokio::net::{TcpListener, UnixListener};

use super::config::{AgentConfig, Fault as ConfigFault};
use super::ledger::Line;
use super::process::{Agent, AgentSecrets, AgentTls, bind_socket};
use super::record;

/// The agent next to a conference server.
#[derive(Debug)]
pub struct WebconfAgent;

impl Service for WebconfAgent {
    type Config = AgentConfig;
    type Finding = ConfigFault;

    const NAME: &'static str = "edge-webconf-agent";
    const METRICS: &'static str = "webconf_agent";

    fn load(arguments: &Arguments) -> Result<Loaded<Self>, Vec<ConfigFault>> {
        AgentConfig::load(&arguments.config).map(|config| (config, Vec::new()))
    }

    fn frame(config: &AgentConfig) -> Frame {
        let health = config.health.map(|at| (Bind::to(at), Audience::Inside));
        Frame {
            log_level: config.log.level,
            log_format: config.log.format,
            admin: config.socket.with_file_name("admin.sock"),
            changers: Changers::default(),
            health: health.into_iter().collect(),
            notice: Duration::ZERO,
            drain: config.limits.drain_timeout + Duration::from_secs(5),
        }
    }

    async fn start(config: AgentConfig, shared: &Shared) -> Result<Running<AgentConfig>, Fault> {
        let tls = AgentTls::load(&config)?;
        let seed = Seed {
            socket: bind_socket(&config)?,
            http: bind_http(&config)?,
            secrets: AgentSecrets::load(&config)?,
            tls: tls.clone(),
            recalled: match &config.state {
                Some(file) => record::read(file, &config)?,
                None => Vec::new(),
            },
            metrics: shared.metrics.clone(),
            ready: shared.readiness.condition("edge"),
            config,
        };
        // One core carries more than one conference server sends.
        let cores = Cores::start_with("webconf-agent", vec![seed], run_core)?;
        let reload = move |_| {
            tls.reload()?;
            tracing::info!(
                "certificate and revocation lists were read again; the rest of the file counts at the next start"
            );
            Ok(())
        };
        Ok(Running {
            cores,
            reload: Box::new(reload),
            commands: Commands::default(),
        })
    }
}

struct Seed {
    config: AgentConfig,
    socket: StdUnixListener,
    http: Option<StdTcpListener>,
    secrets: AgentSecrets,
    tls: AgentTls,
    recalled: Vec<Line>,
    metrics: Metrics,
    ready: Condition,
}

async fn run_core(core: CoreContext, seed: Seed) {
    let socket = match UnixListener::from_std(seed.socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "the admission socket"),
    };
    let http = match seed.http.map(TcpListener::from_std).transpose() {
        Ok(http) => http,
        Err(error) => return tracing::error!(%error, "the admission port"),
    };
    let (config, tls, secrets) = (seed.config, seed.tls, seed.secrets);
    let agent = Agent::new(core, config, tls, secrets, seed.ready, &seed.metrics);
    agent.recall(&seed.recalled);
    agent.run(socket, http).await;
}

fn bind_http(config: &AgentConfig) -> Result<Option<StdTcpListener>, Fault> {
    let Some(http) = &config.http else {
        return Ok(None);
    };
    let listeners = Bind::to(http.listen).tcp_listeners(1)?;
    Ok(listeners.into_iter().next())
}

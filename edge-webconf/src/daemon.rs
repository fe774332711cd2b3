//! `edge-webconf` as a service: what it opens, what a reload changes, how it ends.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use edge_common::cert::role::{Role, Wanted};
use edge_common::cert::tls::{self, ArrayTickets, PeerVerifier, Store, VerifyTally};
use edge_common::config::finding::Finding;
use edge_common::config::rule;
use edge_common::config::{AtStart, CertificateFiles, Config, Webconf};
use edge_common::join_token::VerifyingKeys;
use edge_common::limit::{HashKey, Rate};
use edge_common::net::accept::{self, Door, Gate, GateLimits, Security};
use edge_common::net::bind::{Bind, TcpOptions};
use edge_common::net::core_runtime::{CoreContext, Cores, core_count};
use edge_common::net::mailbox::{self, Inbox, Mailboxes, Outbox};
use edge_common::observe::admin::Changers;
use edge_common::observe::http::Audience;
use edge_common::ports::{self, Purpose};
use edge_common::random::{Random as _, SystemRandom};
use edge_common::run::{Arguments, Fault, Frame, Loaded, Running, Service, Shared, now};
use edge_common::secret_files::array_secrets;
use edge_common::side::Side;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::admin;
use crate::confine::{Confined, confine};
use crate::ewrp::{ALPN_CONTROL, ALPN_DATA};
use crate::observe::Observer;
use crate::relay::driver::Driver;
use crate::relay::shell::{BROKER_CORE, Parts, Shell};
use crate::relay::{Command, Input, RelayLimits, inside, outside};
use crate::session::{Broker, Settings, Trust};

/// The Web Conferencing Edge. `CONFINED`: once its sockets are open the kernel lets the process open no connection, for
/// ever; a program that does something else besides runs it without.
#[derive(Debug)]
pub struct EdgeWebconf<const CONFINED: bool = true>;

impl<const CONFINED: bool> Service for EdgeWebconf<CONFINED> {
    type Config = Config;
    type Finding = Finding;

    const NAME: &'static str = "edge-webconf";
    const METRICS: &'static str = "webconf";

    fn load(arguments: &Arguments) -> Result<Loaded<Self>, Vec<Finding>> {
        let (config, warnings) = Config::load(&arguments.config, arguments.node.as_deref())?;
        if config.webconf.is_some() {
            return Ok((config, warnings));
        }
        let message = "there is no [webconf], so edge-webconf has nothing to do here";
        Err(vec![Finding::new(
            rule::NO_SERVICE,
            "webconf",
            None,
            message,
        )])
    }

    fn frame(config: &Config) -> Frame {
        Frame {
            log_level: config.log.level,
            log_format: config.log.format,
            admin: config.admin.directory.join("edge-webconf/admin.sock"),
            changers: Changers::default(),
            health: health(config),
            // The broker cuts what is left at its own deadline; this one is for a broker that hangs.
            notice: config.drain_notice(),
            drain: DRAIN + Duration::from_secs(10),
        }
    }

    async fn start(config: Config, shared: &Shared) -> Result<Running<Config>, Fault> {
        let webconf = configured(&config)?;
        let at_start = AtStart::of(&config, ports::Service::Webconf);
        let tls = Listening::new(&config, webconf)?;
        tls.agents_passed.show_in("inside", &shared.metrics);
        let cores = core_count(config.runtime.cores);
        let (inputs, commands) = (
            mailbox::mesh::<Input>(1, INPUTS),
            mailbox::mesh::<Command>(cores, COMMANDS),
        );
        if let Some(mailboxes) = commands.first() {
            mailboxes.outbox.show_in(&shared.metrics);
        }
        let (inputs, inbox) = split(inputs);
        let doors = Doors::open(&config, webconf, &tls, shared, cores)?;
        let ways = Ways {
            inputs: inputs.clone(),
            observer: Arc::new(Observer::new(&shared.metrics)),
            limits: relay_limits(webconf),
            preread_limit: preread_limit(webconf),
        };
        let (drained, drained_seen) = watch::channel(false);
        let mut brokerage = Some(Brokerage {
            settings: settings(&config, webconf, trust(webconf)?),
            inbox,
            ready: shared.readiness.condition("agent"),
            drained,
        });
        let seeds = commands
            .into_iter()
            .zip(doors.per_core)
            .map(|(mailboxes, listeners)| Seed {
                mailboxes,
                listeners,
                ways: ways.clone(),
                brokerage: brokerage.take(),
                drained: drained_seen.clone(),
            })
            .collect();
        if CONFINED {
            let directories = [&config.admin.directory, &config.state.directory];
            let own = directories.map(|directory| directory.join(Self::NAME));
            report(&confine(&own), shared);
        }
        let cores = Cores::start_with("webconf", seeds, run_core)?;
        let commands = admin::commands(&inputs);
        let reload = move |config: Config| {
            reload(&config, &tls, &inputs)?;
            for what in at_start.changed(&AtStart::of(&config, ports::Service::Webconf)) {
                tracing::warn!(what, "takes effect when the daemon starts again");
            }
            Ok(())
        };
        Ok(Running {
            cores,
            reload: Box::new(reload),
            commands,
        })
    }
}

/// Says what the kernel keeps the daemon from.
fn report(confined: &Confined, shared: &Shared) {
    let gauges = shared.metrics.gauges(
        "confined",
        "Whether the kernel keeps the daemon from opening connections",
        ["by"],
    );
    let shown = |by: &str, is_there: bool| gauges.with([by]).set(is_there.into());
    shown("landlock", confined.landlock.is_ok());
    shown("seccomp", confined.seccomp.is_ok());
    match &confined.landlock {
        Ok(extent) => tracing::info!(?extent, "landlock is in force"),
        Err(error) => tracing::warn!(error, "no landlock"),
    }
    match &confined.seccomp {
        Ok(()) => tracing::info!("seccomp is in force: no socket but of AF_UNIX is made"),
        Err(error) => tracing::warn!(error, "no seccomp"),
    }
}

fn configured(config: &Config) -> Result<&Webconf, Fault> {
    let missing = "the configuration has no [webconf] table";
    config.webconf.as_ref().ok_or_else(|| missing.into())
}

fn split(mesh: Vec<Mailboxes<Input>>) -> (Outbox<Input>, Inbox<Input>) {
    let Mailboxes { inbox, outbox } = mesh.into_iter().next().expect("a mesh of one");
    (outbox, inbox)
}

/// The TLS configurations of the two listeners; the next connection takes what is there.
#[derive(Clone, Debug)]
struct Listening {
    client: Arc<ArcSwap<ServerConfig>>,
    agent: Arc<ArcSwap<ServerConfig>>,
    /// Agents that were let in although their revocation state was not certain.
    agents_passed: Arc<VerifyTally>,
}

impl Listening {
    fn new(config: &Config, webconf: &Webconf) -> Result<Self, Fault> {
        let agents_passed = Arc::default();
        Ok(Self {
            client: Arc::new(ArcSwap::new(client_tls(config, webconf)?)),
            agent: Arc::new(ArcSwap::new(agent_tls(config, &agents_passed)?)),
            agents_passed,
        })
    }

    /// Both or none of them.
    fn reload(&self, config: &Config, webconf: &Webconf) -> Result<(), Fault> {
        let client = client_tls(config, webconf)?;
        let agent = agent_tls(config, &self.agents_passed)?;
        self.client.store(client);
        self.agent.store(agent);
        Ok(())
    }
}

fn client_tls(config: &Config, webconf: &Webconf) -> Result<Arc<ServerConfig>, Fault> {
    let store = certificates(config, &webconf.certificates, Role::WebConfExternal)?;
    let secrets = array_secrets(&config.array.secrets)?;
    let tickets = ArrayTickets::new(&secrets, tls::system_clock());
    Ok(tls::client_listener(store, tickets))
}

fn agent_tls(config: &Config, passed: &Arc<VerifyTally>) -> Result<Arc<ServerConfig>, Fault> {
    let store = certificates(config, &config.internal.certificates, Role::Internal)?;
    let verifier = PeerVerifier::inside(&config.internal)?.counted_in(passed);
    let alpn = [ALPN_CONTROL, ALPN_DATA];
    Ok(tls::mutual_listener(store, verifier, &alpn))
}

fn certificates(
    config: &Config,
    files: &[CertificateFiles],
    role: Role,
) -> Result<Arc<Store>, Fault> {
    let wanted = Wanted::of(config, role).ok_or("the role has no certificate")?;
    let (store, problems) = Store::load(files, wanted, now().unix)?;
    for problem in problems {
        tracing::warn!(%problem, ?role, "certificate");
    }
    Ok(store)
}

/// The listeners of each core.
struct Doors {
    per_core: Vec<Vec<Way>>,
}

/// One listener of one core.
struct Way {
    listener: TcpListener,
    gate: Gate,
    door: Door,
    leads: Leads,
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    Client,
    Agent,
}

impl Doors {
    fn open(
        config: &Config,
        webconf: &Webconf,
        tls: &Listening,
        shared: &Shared,
        cores: usize,
    ) -> Result<Self, Fault> {
        let mut per_core: Vec<Vec<Way>> = (0..cores).map(|_| Vec::new()).collect();
        let client = Gate::new(
            "client",
            client_limits(webconf),
            hash_key(),
            now(),
            &shared.metrics,
        );
        let agent = Gate::new(
            "agent",
            agent_limits(webconf),
            hash_key(),
            now(),
            &shared.metrics,
        );
        let (client_door, agent_door) = (
            door(webconf, &tls.client, balancers(config)),
            door(webconf, &tls.agent, Vec::new()),
        );
        for listener in config.listeners() {
            let (gate, door, leads) = match (listener.service, listener.purpose) {
                (ports::Service::Webconf, Purpose::Conference) => {
                    (&client, &client_door, Leads::Client)
                }
                (ports::Service::Webconf, Purpose::Agent) => (&agent, &agent_door, Leads::Agent),
                _ => continue,
            };
            let bind = Bind::on(listener.address, listener.interface);
            let sockets = bind.tcp_listeners(cores)?;
            for (ways, listener) in per_core.iter_mut().zip(sockets) {
                ways.push(Way {
                    listener,
                    gate: gate.clone(),
                    door: door.clone(),
                    leads,
                });
            }
        }
        Ok(Self { per_core })
    }
}

fn hash_key() -> HashKey {
    let mut key = HashKey::default();
    SystemRandom.fill(&mut key);
    key
}

fn door(webconf: &Webconf, tls: &Arc<ArcSwap<ServerConfig>>, balancers: Vec<IpNet>) -> Door {
    Door {
        security: Security::Tls(Arc::clone(tls)),
        balancers,
        handshake_timeout: webconf.limits.handshake_timeout,
        stream: relay_limits(webconf).stream_options(),
        tcp: TcpOptions {
            socket_buffer: Some(SOCKET_BUFFER),
            ..TcpOptions::default()
        },
    }
}

fn balancers(config: &Config) -> Vec<IpNet> {
    let addresses = &config.array.balancers[Side::External];
    addresses.iter().copied().map(IpNet::from).collect()
}

fn client_limits(webconf: &Webconf) -> GateLimits {
    let limits = &webconf.limits;
    GateLimits {
        connections: limits.connections,
        per_source: u32::try_from(limits.connections_per_source).unwrap_or(u32::MAX),
        source_rate: Rate {
            per_second: limits.connections_per_second_per_source,
            burst: limits.connections_burst_per_source,
        },
        handshakes: limits.handshakes,
        handshakes_per_source: u32::try_from(limits.handshakes_per_source).unwrap_or(u32::MAX),
    }
}

/// Agents are few, known, and dial a whole pool from one address.
fn agent_limits(webconf: &Webconf) -> GateLimits {
    let limits = &webconf.limits;
    GateLimits {
        connections: limits.agent_connections,
        per_source: u32::try_from(limits.agent_connections).unwrap_or(u32::MAX),
        source_rate: Rate {
            per_second: limits.agent_connections_per_second,
            burst: limits.agent_connections_per_second.saturating_mul(2),
        },
        handshakes: limits.agent_handshakes,
        handshakes_per_source: u32::try_from(limits.agent_handshakes / 2).unwrap_or(u32::MAX),
    }
}

fn relay_limits(webconf: &Webconf) -> RelayLimits {
    RelayLimits {
        buffer: webconf.limits.relay_buffer,
        idle_timeout: webconf.limits.idle_timeout,
        half_close_timeout: webconf.limits.half_close_timeout,
    }
}

fn preread_limit(webconf: &Webconf) -> usize {
    let most = crate::ewrp::data::PREREAD_LEN_MAX as usize;
    webconf.limits.preread.min(most)
}

/// Who is believed, with the keys read from their files.
fn trust(webconf: &Webconf) -> Result<Trust, Fault> {
    let mut token_keys = VerifyingKeys::default();
    for file in &webconf.preface_keys {
        let at =
            |error: &dyn std::fmt::Display| Fault::from(format!("{}: {error}", file.display()));
        let text = std::fs::read(file).map_err(|error| at(&error))?;
        token_keys.add_pem(&text).map_err(|error| at(&error))?;
    }
    Ok(Trust {
        agents: webconf.agents.clone(),
        conference_agents: webconf.conference_agents.clone(),
        token_keys,
    })
}

fn settings(config: &Config, webconf: &Webconf, trust: Trust) -> Settings {
    let limits = &webconf.limits;
    let pool = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
    Settings {
        edge_id: edge_id(config),
        trust,
        scan: webconf.scan,
        clients: limits.connections,
        preread: preread_limit(webconf),
        preread_timeout: limits.preread_timeout,
        lease_timeout: limits.lease_timeout,
        lease_queue: limits.lease_queue,
        admitted: limits.admitted,
        tokens: limits.tokens,
        token_lifetime: limits.token_lifetime,
        pool_min: pool(limits.pool_min),
        pool_max: pool(limits.pool_max),
    }
}

/// The same after a restart, another for each member.
fn edge_id(config: &Config) -> [u8; 16] {
    let member = config.local();
    let text = format!("edge-webconf\n{}\n{}", member.name, member.internal.fqdn);
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    id
}

fn health(config: &Config) -> Vec<(Bind, Audience)> {
    let ours = |listener: &ports::Listener| {
        listener.service == ports::Service::Webconf && listener.purpose == Purpose::Health
    };
    let listeners = config.listeners().into_iter().filter(ours);
    listeners
        .map(|listener| {
            let audience = match listener.side {
                Side::Internal => Audience::Inside,
                Side::External => Audience::Balancers(balancers(config)),
            };
            let address: SocketAddr = listener.address;
            (Bind::on(address, listener.interface), audience)
        })
        .collect()
}

/// The way to the broker, and what every shell goes by.
#[derive(Clone)]
struct Ways {
    inputs: Outbox<Input>,
    observer: Arc<Observer>,
    limits: RelayLimits,
    preread_limit: usize,
}

/// What makes the broker; one core gets it.
struct Brokerage {
    settings: Settings,
    inbox: Inbox<Input>,
    ready: edge_common::observe::http::Condition,
    drained: watch::Sender<bool>,
}

struct Seed {
    mailboxes: Mailboxes<Command>,
    listeners: Vec<Way>,
    ways: Ways,
    brokerage: Option<Brokerage>,
    drained: watch::Receiver<bool>,
}

async fn run_core(core: CoreContext, seed: Seed) {
    let Mailboxes { inbox, outbox } = seed.mailboxes;
    let shell = Shell::new(
        core.clone(),
        Parts {
            inputs: seed.ways.inputs.clone(),
            commands: outbox.clone(),
            limits: seed.ways.limits,
            preread_limit: seed.ways.preread_limit,
            observer: Arc::clone(&seed.ways.observer),
        },
    );
    core.spawn(shell.clone().serve(inbox));
    if let Some(brokerage) = seed.brokerage {
        let driver = Driver {
            broker: Broker::new(brokerage.settings, Box::new(SystemRandom)),
            commands: outbox,
            observer: seed.ways.observer,
            ready: brokerage.ready,
            drained: brokerage.drained,
        };
        core.spawn(driver.run(core.clone(), brokerage.inbox));
    }
    for way in seed.listeners {
        core.spawn(accept_by(core.clone(), shell.clone(), way));
    }
    core.draining().await;
    if core.index() == BROKER_CORE {
        shell.tell(Input::Drain(DRAIN)).await;
    }
    let mut drained = seed.drained;
    tokio::select! {
        _ = drained.wait_for(|&drained| drained) => {}
        () = core.stopping() => {}
    }
    // Every connection has been told to end; a far end that takes nothing is not waited for.
    tokio::select! {
        () = core.streams_ended() => {}
        () = core.stopping() => {}
        () = tokio::time::sleep(FAREWELL) => tracing::debug!("connections are left"),
    }
}

async fn accept_by(core: CoreContext, shell: Shell, way: Way) {
    let (leads, gate) = (way.leads, way.gate.clone());
    let served = accept::serve(core, way.listener, way.gate, way.door, move |stream| {
        let (shell, gate) = (shell.clone(), gate.clone());
        async move {
            match leads {
                Leads::Client => outside::serve(shell, gate, stream).await,
                Leads::Agent => inside::serve(shell, stream).await,
            }
        }
    });
    if let Err(error) = served.await {
        tracing::error!(%error, ?leads, "a listener is lost");
    }
}

/// New certificates, secrets and lists for the connections that come; the trusted list for all.
fn reload(config: &Config, tls: &Listening, inputs: &Outbox<Input>) -> Result<(), Fault> {
    let webconf = configured(config)?;
    let trust = Input::Trust(Box::new(trust(webconf)?));
    tls.reload(config, webconf)?;
    inputs
        .send(BROKER_CORE, trust)
        .map_err(|full| Fault::from(format!("who is trusted was not taken: {full}")))
}

/// How long relays may go on when the edge is told to stop.
const DRAIN: Duration = Duration::from_secs(15 * 60);
/// For GOAWAY and `close_notify` to leave.
const FAREWELL: Duration = Duration::from_secs(5);
/// What all connections may tell the broker before they have to wait.
const INPUTS: usize = 4096;
/// What the broker may tell one core before it has to wait.
const COMMANDS: usize = 4096;
/// Each way of each socket: what a stalled reader can hold in the kernel.
const SOCKET_BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::config::check;

    #[test]
    fn a_file_without_a_table_of_its_own_does_not_pass() {
        let load = |example: &str| {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
            let arguments = Arguments {
                config: std::path::Path::new(directory).join(example),
                node: None,
                check: true,
            };
            EdgeWebconf::<true>::load(&arguments).map(|_| ())
        };
        assert_eq!(load("single.toml"), Ok(()));
        let findings = load("federation-only.toml").expect_err("it has no [webconf]");
        assert!(findings[0].message.contains("[webconf]"), "{findings:?}");
        assert!(findings[0].is_error());
    }

    #[test]
    fn the_gates_take_their_bounds_from_the_configuration() {
        let single = include_str!("../../deploy/examples/single.toml");
        let limits = "[webconf.limits]\nconnections = 11\nconnections_per_source = 10\nhandshakes = 9\nhandshakes_per_source = 8\nconnections_per_second_per_source = 7\nconnections_burst_per_source = 6\nagent_connections = 5\nagent_handshakes = 4\nagent_connections_per_second = 3\n[av]\n";
        let config = check(&single.replace("[av]\n", limits), None).config;
        let webconf = config.expect("it passes").webconf.expect("it has one");
        let rate = |per_second, burst| Rate { per_second, burst };
        assert_eq!(
            client_limits(&webconf),
            GateLimits {
                connections: 11,
                per_source: 10,
                source_rate: rate(7, 6),
                handshakes: 9,
                handshakes_per_source: 8,
            }
        );
        assert_eq!(
            agent_limits(&webconf),
            GateLimits {
                connections: 5,
                per_source: 5,
                source_rate: rate(3, 6),
                handshakes: 4,
                handshakes_per_source: 2,
            }
        );
    }
}

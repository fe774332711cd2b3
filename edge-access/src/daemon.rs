//! The daemon: everything is loaded and bound first, then the cores start.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use arc_swap::ArcSwap;
use edge_common::config::{Access, Config, FederationLimits};
use edge_common::dns::{ResolverSettings, SipResolver};
use edge_common::limit::{HashKey, Rate};
use edge_common::net::core_runtime::{CoreContext, Cores, core_count};
use edge_common::net::mailbox::{Mailboxes, Outbox, mesh};
use edge_common::observe::admin::Commands;
use edge_common::observe::metrics::Metrics;
use edge_common::partner_proof::Rules;
use edge_common::random::{Random, SystemRandom};
use edge_common::run::{self, Shared};
use edge_common::secret::{Label, Secrets};
use edge_common::secret_files;
use serde_json::{Value, json};

use crate::admin::Host;
use crate::array::link::{Array, Figures};
use crate::connector::{Exit, NEXT_HOPS_MAX, NextHop, Partners};
use crate::crl::Fetcher;
use crate::epoch;
use crate::federation_admin;
use crate::flow::{Core, Errand, Letter, VERDICTS_CORE};
use crate::listener::{self, Listening};
use crate::observe::Observer;
use crate::proxy::Proxy;
use crate::proxy::federation::Authority;
use crate::proxy::meter::Allowance;
use crate::proxy::settings::Settings;
use crate::proxy::token::Tokens;
use crate::proxy::watch::Watch;
use crate::recorder::{Outlet, Recorder};
use crate::resolver::Verdicts;
use crate::tls::Tls;
use crate::watch_file::WatchFile;

/// A running Access Edge.
#[derive(Debug)]
pub struct Daemon {
    cores: Cores,
    reloader: Reloader,
}

/// Brings a configuration that was read again to the cores of a running Access Edge.
#[derive(Debug)]
pub struct Reloader {
    config: Arc<ArcSwap<Config>>,
    outbox: Outbox<Letter>,
    tls: Tls,
    epoch: u16,
}

/// What each core is given.
struct Seed {
    index: u8,
    mailboxes: Mailboxes<Letter>,
    listening: Vec<Listening>,
    resolvers: Resolvers,
}

/// Who is asked for names on each side; the look-ups of a core run on that core.
#[derive(Clone)]
struct Resolvers {
    external: SipResolver,
    internal: SipResolver,
}

impl Resolvers {
    fn new(names: &Names) -> anyhow::Result<Self> {
        Ok(Self {
            external: SipResolver::new(names.external.clone()).context("dns.external")?,
            internal: SipResolver::new(names.internal.clone()).context("dns.internal")?,
        })
    }
}

/// What all cores share.
#[derive(Clone)]
struct Plan {
    /// What the daemon was started with: sockets and limits.
    config: Arc<Config>,
    access: Arc<Access>,
    /// What is in force now.
    current: Arc<ArcSwap<Config>>,
    settings: Arc<Settings>,
    tokens: Arc<Tokens>,
    /// For tables whose slots strangers must not choose.
    key: HashKey,
    tls: Tls,
    observer: Observer,
    links: Figures,
    /// From when on all cores count.
    began: Instant,
    outlet: Outlet,
}

/// How names are asked for on each side; every core has its own resolvers.
#[derive(Clone)]
pub struct Names {
    /// For partners.
    pub external: ResolverSettings,
    /// For the next hop.
    pub internal: ResolverSettings,
}

impl Names {
    /// As the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            external: ResolverSettings::external(config),
            internal: ResolverSettings::internal(config),
        }
    }
}

impl Daemon {
    /// Starts everything that the configuration says; nothing runs if any of it fails.
    pub fn start(config: Arc<Config>, names: &Names, shared: &Shared) -> anyhow::Result<Self> {
        let metrics = &shared.metrics;
        let access = config.access.as_ref().context(NO_ACCESS)?;
        let secrets = secret_files::array_secrets(&config.array.secrets)?;
        let epoch = next_epoch(&config);
        let settings = Settings::of(&config, epoch).context(NO_ACCESS)?;
        let tls = Tls::load(run::now(), &config, access, &secrets)?;
        let count = core_count(config.runtime.cores);
        let settings = settings.for_cores(count);
        let resolvers: Vec<_> = (0..count)
            .map(|_| Resolvers::new(names))
            .collect::<Result<_, _>>()?;
        let key = hash_key(&secrets);
        let sockets = listener::bind(&config, &access.limits, &tls, key, count, metrics)?;
        let mailboxes = mesh(count, access.limits.mailbox);
        let outbox = mailboxes[VERDICTS_CORE].outbox.clone();
        outbox.show_in(metrics);
        tls.show_in(metrics);
        show_resolvers(&resolvers, metrics);
        let current = Arc::new(ArcSwap::new(Arc::clone(&config)));
        let plan = Plan {
            settings: Arc::new(settings),
            tokens: Arc::new(Tokens::new(&secrets)),
            key,
            tls: tls.clone(),
            began: run::now().mono,
            outlet: Outlet::new(&config, metrics),
            links: Figures::new(metrics),
            observer: Observer::new(metrics, count, shared.readiness.condition("next_hop")),
            access: Arc::new(access.clone()),
            config,
            current: Arc::clone(&current),
        };
        let seeds = mailboxes
            .into_iter()
            .zip(sockets)
            .zip(resolvers)
            .zip(0..=u8::MAX)
            .map(|(((mailboxes, listening), resolvers), index)| Seed {
                index,
                mailboxes,
                listening,
                resolvers,
            })
            .collect();
        let cores = Cores::start_with("access", seeds, move |context, seed| {
            run_core(context, seed, plan.clone())
        })?;
        Ok(Self {
            cores,
            reloader: Reloader {
                config: current,
                outbox,
                tls,
                epoch,
            },
        })
    }

    /// The cores, to be drained and stopped, and what brings them new configurations.
    #[must_use]
    pub fn into_parts(self) -> (Cores, Reloader) {
        (self.cores, self.reloader)
    }
}

impl Reloader {
    /// Who answers `edgectl`.
    #[must_use]
    pub fn host(&self) -> Host {
        let config = self.config.load();
        let member = config.local();
        Host {
            member: member.name.clone(),
            node: member.id,
            outbox: self.outbox.clone(),
        }
    }

    /// What operators may ask of federation and change in it.
    #[must_use]
    pub fn federation_commands(&self) -> Commands {
        let config = Arc::clone(&self.config);
        federation_admin::commands(&self.outbox, move || listed(&config.load()))
    }

    /// Takes a configuration that was read again, for new connections and new messages.
    pub fn reload(&self, config: Config) -> anyhow::Result<()> {
        let access = config.access.as_ref().context(NO_ACCESS)?;
        let secrets = secret_files::array_secrets(&config.array.secrets)?;
        self.tls.reload(run::now(), &config, access, &secrets)?;
        let settings = Settings::of(&config, self.epoch).context(NO_ACCESS)?;
        let settings = Arc::new(settings.for_cores(self.outbox.cores()));
        let access = Arc::new(access.clone());
        self.config.store(Arc::new(config));
        for core in 0..self.outbox.cores() {
            let letter = Letter::Settings(Arc::clone(&settings));
            if self.outbox.send(core, letter).is_err() {
                anyhow::bail!("core {core} is too busy to take new settings; try again");
            }
            let access = Arc::clone(&access);
            let errand = Errand::new(move |core| core.recorder().configure(&access));
            if self.outbox.send(core, Letter::Errand(errand)).is_err() {
                anyhow::bail!("core {core} is too busy to take new settings; try again");
            }
        }
        Ok(())
    }
}

/// The partners that are configured, as operators are told.
fn listed(config: &Config) -> Value {
    let partners = config
        .access
        .iter()
        .flat_map(|access| &access.federation.partners);
    partners
        .map(|partner| {
            json!({
                "domain": partner.domain.as_str(),
                "fqdn": partner.fqdn.as_ref().map(|fqdn| fqdn.as_str()),
            })
        })
        .collect()
}

async fn run_core(context: CoreContext, seed: Seed, plan: Plan) {
    let core = make_core(&context, &seed, &plan);
    for listening in seed.listening {
        context.spawn(listener::serve(
            core.clone(),
            listening,
            Arc::clone(&plan.current),
            Arc::clone(&plan.tls.partners),
        ));
    }
    let mailbox = core.clone();
    let inbox = seed.mailboxes.inbox;
    context.spawn(async move { mailbox.read_mailbox(inbox).await });
    let time = core.clone();
    context.spawn(async move { time.keep_time().await });
    if context.index() == VERDICTS_CORE && plan.access.federation.fetch_crls {
        context.spawn(fetcher(&plan, seed.resolvers.external.clone()).keep());
    }
    let watch = core.clone();
    context.spawn(async move { watch.keep_watch().await });
    core.array().keep_all(&core);
    for rank in 0..NEXT_HOPS_MAX {
        let next_hop = next_hop(&plan, seed.resolvers.internal.clone(), rank);
        context.spawn(next_hop.keep(core.clone()));
    }
    context.draining().await;
    core.drain();
    tokio::select! {
        () = core.deserted() => {}
        () = context.stopping() => {}
    }
    core.close_all();
}

fn show_resolvers(resolvers: &[Resolvers], metrics: &Metrics) {
    let side = |of: fn(&Resolvers) -> &SipResolver| -> Vec<_> {
        resolvers.iter().map(of).cloned().collect()
    };
    SipResolver::show_in(&side(|of| &of.external), "external", metrics);
    SipResolver::show_in(&side(|of| &of.internal), "internal", metrics);
}

fn make_core(context: &CoreContext, seed: &Seed, plan: &Plan) -> Core {
    let access = &plan.access;
    let proxy = Proxy::new(
        run::now(),
        seed.index,
        Arc::clone(&plan.settings),
        Arc::clone(&plan.tokens),
        Box::new(SystemRandom),
    );
    let dns = seed.resolvers.external.clone();
    let exit = Exit::external(&plan.config, &access.limits, Arc::clone(&plan.tls.partner));
    let partners = Partners::new(exit, dns.clone());
    let verdicts = (context.index() == VERDICTS_CORE).then(|| {
        let federation = &access.federation;
        let directory = plan.config.state.directory.join("edge-access");
        let file = WatchFile::new(&directory, federation.limits.watch_list);
        let mut watch = Watch::new(
            allowance(federation.limits),
            federation.limits.watch_list,
            plan.key,
        );
        watch.restore(run::now(), file.read());
        let authority = Authority::new(
            Rules::default(),
            access.federation_port,
            federation.verdict_cache,
            federation.pending_per_domain,
        );
        let authority = authority
            .calling_at_once(federation.limits.callbacks)
            .watching(watch);
        Verdicts::new(authority, dns.clone(), partners.clone(), file)
    });
    Core::new(
        context.clone(),
        proxy,
        seed.mailboxes.outbox.clone(),
        plan.observer.clone(),
        Recorder::new(access, plan.began, plan.outlet.clone()),
        (partners, array(plan)),
        verdicts,
    )
}

fn array(plan: &Plan) -> Array {
    let tls = Arc::clone(&plan.tls.next_hop);
    let exit = Exit::internal(&plan.config, &plan.access.limits, tls);
    let epoch = plan.settings.epoch;
    Array::new(Arc::clone(&plan.current), exit, epoch, plan.links.clone())
}

fn next_hop(plan: &Plan, dns: SipResolver, rank: u8) -> NextHop {
    let tls = Arc::clone(&plan.tls.next_hop);
    NextHop {
        config: Arc::clone(&plan.current),
        exit: Exit::internal(&plan.config, &plan.access.limits, tls),
        dns,
        rank,
    }
}

fn fetcher(plan: &Plan, dns: SipResolver) -> Fetcher {
    let config = &plan.config;
    Fetcher {
        store: plan.tls.partner_crls(),
        directory: config.state.directory.join("edge-access/crl"),
        lists_max: plan.access.federation.limits.crls,
        dns,
        addresses: config.local().external.access.clone(),
        interface: config.external.interface.clone(),
        observer: plan.observer.clone(),
    }
}

fn allowance(limits: FederationLimits) -> Allowance {
    Allowance {
        rate: Rate {
            per_second: limits.discovered_rate,
            burst: limits.discovered_rate.saturating_mul(2),
        },
        suspicious: Rate {
            per_second: limits.suspicious_rate,
            burst: limits.suspicious_rate.saturating_mul(2),
        },
        contacts: limits.discovered_contacts,
    }
}

/// Without a number that can be read the run gets one by lot: a token of an earlier run is then taken for one of
/// ours once in 65536 times, and even then its slot has to match.
fn next_epoch(config: &Config) -> u16 {
    let directory = config.state.directory.join("edge-access");
    let lot = (SystemRandom.next_u32() & 0xffff) as u16;
    epoch::advance(&directory, lot).unwrap_or_else(|error| {
        tracing::warn!(directory = %directory.display(), %error, "the number of this run cannot be kept");
        lot
    })
}

fn hash_key(secrets: &Secrets) -> HashKey {
    let key = secrets.derive(Label::TableHash).current;
    let mut half = HashKey::default();
    let len = half.len();
    half.copy_from_slice(&key.as_bytes()[..len]);
    half
}

const NO_ACCESS: &str = "this configuration has no [access]";

//! What every daemon does around its work: the clock, signals, readiness, drain and the exit code.
//!
//! ```text
//!   load ─► start ─► READY ─┬─ HUP ─► load again ─► reload (a bad file changes nothing)
//!   (--check ends here)     ├─ TERM ─► drain ─► all cores ended, or deadline ─► stop
//!                           └─ a core ended ─► fault
//! ```
//!
//! The main thread does nothing but this, the health pages and the admin socket; the work is on the cores.

use std::cell::RefCell;
use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::config::{LogFormat, LogLevel};
use crate::net::bind::Bind;
use crate::net::core_runtime::{Cores, Heartbeats};
use crate::observe::admin::{AdminSocket, Changers, Commands, Effect};
use crate::observe::http::{self, Audience, DeathWatch, Pages, Readiness};
use crate::observe::log::{self, Log};
use crate::observe::metrics::Metrics;
use crate::time::{Now, UnixTime};

/// The only clock. Everything else is told the time.
#[must_use]
pub fn now() -> Now {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Now {
        mono: Instant::now(),
        unix: UnixTime::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// What every daemon is told on its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The configuration file.
    pub config: PathBuf,
    /// Which member this is; otherwise the file or the host name says it.
    pub node: Option<String>,
    /// Only say what is wrong with the configuration.
    pub check: bool,
}

/// A daemon, as this module sees it.
pub trait Service {
    /// What the file means to it.
    type Config;
    /// Something that is wrong with a file, or odd about it, in words for the operator.
    type Finding: Display;

    /// The binary's name, `edge-access`.
    const NAME: &'static str;
    /// The part of it that metrics are named by, `access`.
    const METRICS: &'static str;

    /// Reads and checks the configuration: what it means and warnings, or everything that is wrong with it.
    fn load(arguments: &Arguments) -> Result<Loaded<Self>, Vec<Self::Finding>>;

    /// What this module has to know of it.
    fn frame(config: &Self::Config) -> Frame;

    /// Opens everything and starts the cores; when it returns, the daemon serves. It runs on the main thread, inside a
    /// `LocalSet`, and may leave tasks there.
    fn start(
        config: Self::Config,
        shared: &Shared,
    ) -> impl Future<Output = Result<Running<Self::Config>, Fault>>;
}

/// A configuration that may be used, and what is odd about it.
pub type Loaded<S> = (<S as Service>::Config, Vec<<S as Service>::Finding>);

/// Something of ours is wrong, in words for the operator.
pub type Fault = Box<dyn Error>;

/// What the scaffold has to know of a configuration.
#[derive(Clone, Debug)]
pub struct Frame {
    /// How talkative the log is.
    pub log_level: LogLevel,
    /// What its lines look like.
    pub log_format: LogFormat,
    /// Where the admin socket is.
    pub admin: PathBuf,
    /// Who may change something there.
    pub changers: Changers,
    /// Where the health pages are, and who is answered.
    pub health: Vec<(Bind, Audience)>,
    /// From the moment at which `/readyz` says no to the drain: nothing changes meanwhile but that balancers look
    /// elsewhere.
    pub notice: Duration,
    /// How long a drain may take.
    pub drain: Duration,
}

/// What a daemon's parts share with the scaffold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The daemon's metrics.
    pub metrics: Metrics,
    /// What must hold before it is ready.
    pub readiness: Readiness,
}

/// A daemon that serves.
pub struct Running<C> {
    /// Its cores. When one of them ends before it is told to, the daemon has failed.
    pub cores: Cores,
    /// Takes a new configuration for what comes from now on. An error leaves the old one in force.
    pub reload: Box<dyn FnMut(C) -> Result<(), Fault>>,
    /// Its own admin commands, beside `status`, `metrics`, `drain`, `reload` and `log-level`.
    pub commands: Commands,
}

/// Runs a daemon from its arguments to its exit code.
#[must_use]
pub fn run<S: Service>(arguments: &Arguments) -> ExitCode {
    let (config, warnings) = match S::load(arguments) {
        Ok(loaded) => loaded,
        Err(findings) => {
            tell(&findings);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    tell(&warnings);
    if arguments.check {
        return ExitCode::SUCCESS;
    }
    let frame = S::frame(&config);
    let log = log::init(frame.log_level, frame.log_format);
    log_panics();
    raise_descriptor_limit();
    match on_main_thread(serve::<S>(arguments, config, frame, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!(daemon = S::NAME, fault = %Chain(fault.as_ref()), "the daemon has failed");
            ExitCode::FAILURE
        }
    }
}

/// Findings are for whoever started the daemon, before there is a log.
fn tell(findings: &[impl Display]) {
    use std::io::Write as _;
    let mut stderr = io::stderr().lock();
    for finding in findings {
        // Nobody may be listening; that is no reason not to run.
        let _written = writeln!(stderr, "{finding}");
    }
}

/// A panic is a fault of ours that one task or core pays for; it has to be found in the log.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(thread, %panic, "a panic");
    }));
}

/// As many descriptors as the service manager allows: the connection caps count on them.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    match raised {
        Ok(()) => tracing::debug!(?current, ?maximum, "descriptor limit raised"),
        Err(error) => tracing::warn!(%error, ?current, "the descriptor limit stays"),
    }
}

fn on_main_thread(work: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, work)
}

async fn serve<S: Service>(
    arguments: &Arguments,
    config: S::Config,
    frame: Frame,
    log: Log,
) -> Result<(), Fault> {
    let mut signals = Signals::new()?;
    let shared = Shared {
        metrics: Metrics::new(S::METRICS),
        readiness: Readiness::default(),
    };
    let serving = shared.readiness.condition("serving");
    // All of ours is open before the daemon's own parts start: what fails, fails before anybody is served.
    let health = open_health(&frame)?;
    let admin = AdminSocket::open(&frame.admin)
        .map_err(|error| format!("admin socket {}: {error}", frame.admin.display()))?;
    let Running {
        cores,
        reload,
        commands: own,
    } = S::start(config, &shared).await?;

    let asked = Rc::new(Asked::default());
    let mut commands = built_in(&shared, &asked, log.clone(), S::NAME);
    commands.extend(own);
    let (changers, metrics) = (frame.changers, shared.metrics.clone());
    tokio::task::spawn_local(async move { admin.serve(commands, changers, &metrics).await });
    serve_health(health, &shared, cores.heartbeats());

    serving.set(true);
    notify(&[NotifyState::Ready]);
    tracing::info!(daemon = S::NAME, cores = cores.count(), "serving");
    let mut running = Supervised::<S> {
        arguments,
        cores,
        reload,
        asked,
        log,
    };
    let ended = running.until_told_to_end(&mut signals).await;
    serving.set(false);
    notify(&[NotifyState::Stopping]);
    ended?;
    running
        .drain((frame.notice, frame.drain), &mut signals)
        .await
}

/// A running daemon, and what it needs to reload and to end.
struct Supervised<'a, S: Service> {
    arguments: &'a Arguments,
    cores: Cores,
    reload: Box<dyn FnMut(S::Config) -> Result<(), Fault>>,
    asked: Rc<Asked>,
    log: Log,
}

impl<S: Service> Supervised<'_, S> {
    async fn until_told_to_end(&mut self, signals: &mut Signals) -> Result<(), Fault> {
        let mut watchdog = Watchdog::new();
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::End => return Ok(()),
                    Told::Reload => if let Err(error) = self.reload_file() {
                        tracing::error!(%error, "the old configuration stays in force");
                    },
                },
                () = self.asked.drain.notified() => return Ok(()),
                () = self.asked.reload.notified() => {
                    let result = self.reload_file();
                    self.asked.answer_reload(result);
                }
                () = self.cores.any_ended() => return Err("a core has ended".into()),
                () = watchdog.tick() => watchdog.report(&self.cores.heartbeats()),
            }
        }
    }

    fn reload_file(&mut self) -> Result<(), String> {
        notify(&reloading());
        let result = self.try_reload();
        notify(&[NotifyState::Ready]);
        result
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let (config, warnings) = S::load(self.arguments).map_err(|findings| {
            let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
            texts.join("\n")
        })?;
        for warning in warnings {
            tracing::warn!(%warning, "configuration");
        }
        let level = S::frame(&config).log_level;
        (self.reload)(config).map_err(|fault| Chain(fault.as_ref()).to_string())?;
        self.log.set(level.as_str()).map_err(|e| e.to_string())?;
        tracing::info!("the new configuration is in force");
        Ok(())
    }

    /// Lets the cores end by themselves; a second signal or the deadline makes them.
    async fn drain(
        self,
        (notice, within): (Duration, Duration),
        signals: &mut Signals,
    ) -> Result<(), Fault> {
        let finished = async {
            tokio::time::sleep(notice).await;
            tracing::info!(within = ?within, "draining");
            self.cores.drain();
            tokio::select! {
                () = self.cores.all_ended() => {}
                () = tokio::time::sleep(within) => tracing::info!("the drain's deadline has come"),
            }
        };
        tokio::select! {
            () = finished => {}
            () = signals.end() => tracing::info!("told to end at once"),
        }
        self.cores.stop();
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.cores.all_ended()).await;
        if ended.is_err() {
            return Err("the cores do not end".into());
        }
        self.cores.join()?;
        tracing::info!("ended");
        Ok(())
    }
}

/// What admin commands ask of the main loop.
#[derive(Default)]
struct Asked {
    drain: Notify,
    reload: Notify,
    reloaded: Notify,
    reload_result: RefCell<Option<Result<(), String>>>,
}

impl Asked {
    fn answer_reload(&self, result: Result<(), String>) {
        self.reload_result.replace(Some(result));
        self.reloaded.notify_one();
    }
}

fn built_in(shared: &Shared, asked: &Rc<Asked>, log: Log, name: &'static str) -> Commands {
    let mut commands = Commands::default();
    let begun = now();
    let readiness = shared.readiness.clone();
    commands.add("status", Effect::Read, move |_| {
        let conditions: serde_json::Map<String, Value> = readiness
            .conditions()
            .into_iter()
            .map(|(condition, holds)| (condition.to_owned(), Value::Bool(holds)))
            .collect();
        let status = json!({
            "daemon": name,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": begun.mono.elapsed().as_secs(),
            "ready": readiness.is_ready(),
            "conditions": conditions,
        });
        async { Ok(status) }
    });
    let metrics = shared.metrics.clone();
    commands.add("metrics", Effect::Read, move |_| {
        let text = metrics.text();
        async { Ok(Value::String(text)) }
    });
    let drain = Rc::clone(asked);
    commands.add("drain", Effect::Change, move |_| {
        drain.drain.notify_one();
        async { Ok(Value::Null) }
    });
    let reload = Rc::clone(asked);
    commands.add("reload", Effect::Change, move |_| {
        let asked = Rc::clone(&reload);
        async move {
            asked.reload.notify_one();
            asked.reloaded.notified().await;
            let result = asked.reload_result.take();
            result.unwrap_or(Ok(())).map(|()| Value::Null)
        }
    });
    commands.add("log-level", Effect::Change, move |request| {
        let set = match request.get("filter").and_then(Value::as_str) {
            Some(filter) => log.set(filter).map_err(|error| error.to_string()),
            None => Err("the request has no `filter`".to_owned()),
        };
        async { set.map(|()| Value::Null) }
    });
    commands
}

fn open_health(frame: &Frame) -> Result<Vec<(std::net::TcpListener, Audience)>, Fault> {
    let open = |(bind, audience): &(Bind, Audience)| {
        let listener = bind.tcp_listener()?;
        Ok((listener, audience.clone()))
    };
    frame.health.iter().map(open).collect()
}

fn serve_health(
    listeners: Vec<(std::net::TcpListener, Audience)>,
    shared: &Shared,
    heartbeats: Heartbeats,
) {
    let pages = Pages {
        metrics: shared.metrics.clone(),
        readiness: shared.readiness.clone(),
        dead: Arc::new(heartbeats),
    };
    for (listener, audience) in listeners {
        let pages = pages.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = http::serve(listener, audience, pages).await {
                tracing::error!(%error, "a health port is lost");
            }
        });
    }
}

impl DeathWatch for Heartbeats {
    fn hanging(&self) -> Option<String> {
        let silent = self.silent_for(SILENCE_MAX);
        (!silent.is_empty()).then(|| format!("cores {silent:?} hang"))
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    async fn end(&mut self) {
        while self.next().await != Told::End {}
    }
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    End,
    Reload,
}

/// systemd's watchdog: it is fed only while all cores turn.
struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    fn new() -> Self {
        Self(sd_notify::watchdog_enabled().map(|limit| tokio::time::interval(limit / 3)))
    }

    async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    fn report(&self, cores: &Heartbeats) {
        match cores.hanging() {
            None => notify(&[NotifyState::Watchdog]),
            Some(what) => tracing::error!(what, "the watchdog is not fed"),
        }
    }
}

fn reloading() -> Vec<NotifyState<'static>> {
    let mut state = vec![NotifyState::Reloading];
    match NotifyState::monotonic_usec_now() {
        Ok(moment) => state.push(moment),
        Err(error) => tracing::debug!(%error, "systemd is not told when the reload began"),
    }
    state
}

/// Without systemd there is nobody to tell, and that is fine.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// An error with all its causes on one line.
struct Chain<'e>(&'e dyn Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut told = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors print their cause themselves.
            if !told.contains(&text) {
                write!(f, ": {text}")?;
            }
            told = text;
            cause = error.source();
        }
        Ok(())
    }
}

/// As sysexits.h has it: systemd does not try again, and `edgectl` tells it from a fault.
const EXIT_CONFIG: u8 = 78;
/// A core that was told to stop has only its tasks to drop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A core's heart beats twice a second.
const SILENCE_MAX: Duration = Duration::from_secs(2);

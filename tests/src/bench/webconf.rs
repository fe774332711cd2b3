//! The benchmark of the Web Conferencing Edge: beside HAProxy, which relays TLS to mutual TLS as well.
//!
//! ```text
//!   host "load", CPU 1                     host "server", CPU 0
//!   clients      198.51.100.1 ─── veth ─── 198.51.100.10   edge-webconf, or HAProxy
//!   agent, echo    10.10.0.50 ─── veth ─── 10.10.0.10
//! ```
//!
//! Both have the same RSA-2048 keys. HAProxy dials the echo over mutual TLS; to our daemon the agent has dialled in over
//! mutual TLS and goes on to the same echo, without TLS. The agent is part of the load: the edge's CPU and memory are
//! what is counted. Every stream begins with the same bytes on both: a number that the agent has admitted.

use super::credentials::{Authority, Key};
use super::driver::Load;
use super::host::{self, EXTERNAL, INSIDE, INTERNAL, LOAD_CPU, Options, Places, SERVER_CPU, at};
use super::load::target::{Own, Target};
use super::load::{Order, Report, idle, joins, pipe, stalled, standin};
use super::record::{self, Record, Server as _, Shown};
use super::server::Server;
use super::table::{Bar, Row};
use crate::lab::bounded;
use crate::lab::conference::admit_at;
use crate::lab::metrics;
use crate::lab::netns::Netns;
use crate::lab::process::Process;
use crate::lab::sandbox::eprintln_line;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs all of it; the rows, and the raw results as JSON lines.
pub fn run(options: Options, places: &Places) -> Result<(Vec<Row>, String)> {
    let plan = Plan::of(options);
    let mut bench = Bench::prepare(places)?;
    let head = host::head("webconf", options, &places.daemon, &["haproxy", "-v"])?;
    bench.record.note(&head);
    for round in 1..=options.rounds {
        bench.record.round = round;
        eprintln_line(&format!("round {round} of {}", options.rounds));
        for who in [Who::Edge, Who::Haproxy] {
            bench.streams(&plan, who)?;
            bench.joins(&plan, who)?;
            // Memory does not vary; that of the peer is measured once, for comparison.
            if who == Who::Edge || round == 1 {
                bench.idle(&plan, who)?;
                bench.stalled(&plan, who)?;
            }
        }
    }
    Ok((bench.rows(&plan), bench.record.raw()))
}

/// Lengths and numbers of a run.
struct Plan {
    streams_s: f64,
    joins_s: f64,
    pings: usize,
    idle: usize,
    stalled: usize,
}

impl Plan {
    const fn of(options: Options) -> Self {
        if options.quick {
            Self {
                streams_s: 1.5,
                joins_s: 1.5,
                pings: 300,
                idle: 1_000,
                stalled: 200,
            }
        } else {
            Self {
                streams_s: 4.0,
                joins_s: 3.0,
                pings: 2_000,
                idle: 8_000,
                stalled: 1_000,
            }
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// Our daemon.
    Edge,
    /// The peer.
    Haproxy,
}

impl record::Server for Who {
    fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Haproxy => "haproxy",
        }
    }
}

/// A server under test, and what lets a stream through it.
struct Running {
    server: Server,
    /// Of the edge.
    _agent: Option<Process>,
    preface: String,
}

/// Everything that is ready before the first round.
struct Bench<'p> {
    places: &'p Places,
    certs: PathBuf,
    server_host: Netns,
    load_host: Netns,
    load: Load,
    record: Record<Who>,
}

impl<'p> Bench<'p> {
    fn prepare(places: &'p Places) -> Result<Self> {
        let (server_host, load_host) = host::hosts(&places.work)?;
        let certs = places.work.join("certs");
        let authority = Authority::new(&certs)?;
        authority.issue("webconf", Key::Rsa, &[NAME_OUTSIDE])?;
        authority.issue("edgeint", Key::Rsa, &[NAME_EDGE])?;
        authority.issue("mcu1", Key::Rsa, &[NAME_AGENT])?;
        let echo = authority.issue("echo", Key::Rsa, &[NAME_ECHO])?;
        for label in ["webconf", "edgeint"] {
            join_pem(&certs, label)?;
        }
        write_files(places, &certs)?;
        let standins = [
            standin::Plan {
                address: ECHO_TLS,
                tls: Some(standin::Tls {
                    own: Own {
                        chain: echo.chain.clone(),
                        key: echo.key.clone(),
                    },
                    ca: authority.file(),
                }),
                does: standin::Does::Echo,
            },
            standin::Plan {
                address: ECHO_PLAIN,
                tls: None,
                does: standin::Does::Echo,
            },
        ];
        Ok(Self {
            load: Load::start(&load_host, LOAD_CPU, &standins)?,
            places,
            certs,
            server_host,
            load_host,
            record: Record::new(),
        })
    }

    /// Throughput with long and with short pieces, and a ping beside bulk.
    fn streams(&mut self, plan: &Plan, who: Who) -> Result<()> {
        let running = self.start(who)?;
        for (key, chunk, connections) in [("16KiB", 16 * 1024, 4), ("512B", 512, 4)] {
            let report = self.pipe(key, who, &running, connections, chunk, plan, 0)?;
            self.record.sample(key, who, report.mb_per_cpu_s);
        }
        let report = self.pipe("ping", who, &running, BULK, 16 * 1024, plan, plan.pings)?;
        self.record.sample("ping", who, report.ping_p99_ms);
        let beside = format!(
            "p50 {:.2} ms, {:.0} MB for each CPU second beside it",
            report.ping_p50_ms, report.mb_per_cpu_s
        );
        self.record.remark("ping", who, beside);
        self.end(running)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the columns of one table of runs"
    )]
    fn pipe(
        &mut self,
        key: &'static str,
        who: Who,
        running: &Running,
        connections: usize,
        chunk: usize,
        plan: &Plan,
        pings: usize,
    ) -> Result<pipe::Report> {
        let order = Order::Pipe(pipe::Plan {
            target: self.target(who),
            server: running.server.processes(),
            prefaces: vec![running.preface.clone(); connections + 1],
            connections,
            chunk,
            window: WINDOW,
            seconds: plan.streams_s,
            pings,
            beside: pings > 0,
        });
        let Report::Pipe(report) = self.order(key, who, &order, plan.streams_s)? else {
            bail!("another report than ordered");
        };
        Ok(report)
    }

    fn joins(&mut self, plan: &Plan, who: Who) -> Result<()> {
        let running = self.start(who)?;
        let order = Order::Joins(joins::Plan {
            target: self.target(who),
            server: running.server.processes(),
            preface: running.preface.clone(),
            at_once: AT_ONCE,
            seconds: plan.joins_s,
        });
        let Report::Joins(report) = self.order("join", who, &order, plan.joins_s)? else {
            bail!("another report than ordered");
        };
        self.record.sample("join", who, report.server_cpu_ms);
        self.record
            .remark("join", who, format!("{} joins", report.joins));
        if report.failed > 0 {
            self.record.fail(
                "join",
                format!("{} of {}: failed", report.failed, who.name()),
            );
        }
        self.end(running)
    }

    fn idle(&mut self, plan: &Plan, who: Who) -> Result<()> {
        let running = self.start(who)?;
        let order = Order::Idle(idle::Plan {
            target: self.target(who),
            server: running.server.processes(),
            sip_domain: None,
            preface: Some(running.preface.clone()),
            connections: plan.idle,
        });
        let Report::Idle(report) = self.order("idle", who, &order, plan.idle as f64 / 50.0)? else {
            bail!("another report than ordered");
        };
        self.record.sample("idle", who, report.rss_kib_each);
        let kernel = report.kernel_kib_each.map_or_else(
            || "kernel memory not readable".to_owned(),
            |kib| format!("{kib:.1} KiB in the kernel for all ends"),
        );
        self.record
            .remark("idle", who, format!("{} pairs, {kernel}", report.open));
        if report.failed > 0 && who == Who::Edge {
            self.record
                .fail("idle", format!("{} did not get through", report.failed));
        }
        self.end(running)
    }

    fn stalled(&mut self, plan: &Plan, who: Who) -> Result<()> {
        let running = self.start(who)?;
        let order = Order::Stalled(stalled::Plan {
            target: self.target(who),
            server: running.server.processes(),
            preface: Some(running.preface.clone()),
            connections: plan.stalled,
            bytes: STALLED_BYTES,
        });
        let Report::Stalled(report) = self.order("stalled", who, &order, 60.0)? else {
            bail!("another report than ordered");
        };
        self.record.sample("stalled", who, report.rss_mb);
        self.end(running)
    }

    fn rows(&self, plan: &Plan) -> Vec<Row> {
        let idle = format!(
            "KiB resident for each of {} idle relayed connections",
            plan.idle
        );
        let stalled = format!("MB resident for {} clients that never read", plan.stalled);
        let ping = format!("ms of a 100-byte round trip beside {BULK} bulk streams, 99 % at most");
        let shapes: [(&'static str, &str, usize, Bar); 6] = [
            (
                "16KiB",
                "MB relayed for each CPU second, both ways together, pieces of 16 KiB",
                0,
                Bar::AtLeast(1.6),
            ),
            (
                "512B",
                "the same, pieces of 512 bytes",
                0,
                Bar::AtLeast(1.4),
            ),
            ("idle", &idle, 2, Bar::AtMost(15.0)),
            (
                "join",
                "CPU ms for a join: handshake, match, lease, first bytes, end",
                3,
                Bar::Ratio(1.2),
            ),
            ("stalled", &stalled, 1, Bar::AtMost(100.0)),
            ("ping", &ping, 2, Bar::Ratio(0.5)),
        ];
        shapes
            .into_iter()
            .map(|(key, what, digits, bar)| {
                self.record.row(&Shown {
                    key,
                    what,
                    ours: Who::Edge,
                    peer: Who::Haproxy,
                    digits,
                    bar,
                })
            })
            .collect()
    }

    fn order(
        &mut self,
        key: &'static str,
        who: Who,
        order: &Order,
        seconds: f64,
    ) -> Result<Report> {
        let limit = Duration::from_secs_f64(seconds) + GRACE;
        let report = self
            .load
            .order(order, limit)
            .with_context(|| format!("{}, {key}", who.name()))?;
        self.record.report(key, who, &report);
        Ok(report)
    }

    fn start(&self, who: Who) -> Result<Running> {
        let work = &self.places.work;
        let config = |name: &str| {
            work.join("webconf")
                .join(name)
                .to_string_lossy()
                .into_owned()
        };
        match who {
            Who::Edge => {
                let server = Server::start(
                    "edge-webconf",
                    &self.server_host,
                    SERVER_CPU,
                    &self.places.daemon,
                    &["--config", &config("edge.toml")],
                    &[EDGE_CLIENTS, EDGE_HEALTH],
                    work,
                )?;
                let agent = self.start_agent(&config("agent.toml"))?;
                let (number, _) = admit_at(&work.join("webconf/admit.sock"), ADMIT)?;
                Ok(Running {
                    server,
                    _agent: Some(agent),
                    preface: format!("JOIN {number} \r\n"),
                })
            }
            Who::Haproxy => {
                let server = Server::start(
                    "haproxy",
                    &self.server_host,
                    SERVER_CPU,
                    Path::new("haproxy"),
                    &["-db", "-f", &config("haproxy.cfg")],
                    &[HAPROXY_CLIENTS],
                    work,
                )?;
                Ok(Running {
                    server,
                    _agent: None,
                    preface: "JOIN 1234567890123456789 \r\n".to_owned(),
                })
            }
        }
    }

    /// Beside the load, on its CPU; ready when the edge has let it in.
    fn start_agent(&self, config: &str) -> Result<Process> {
        let program = self.places.daemon.with_file_name("edge-webconf-agent");
        let mut command = self.load_host.command("taskset");
        command.args(["-c", &LOAD_CPU.to_string()]).arg(program);
        command.args(["--config", config]);
        let mut agent = Process::start("edge-webconf-agent", &mut command, &self.places.work)?;
        bounded::until("the edge has an agent", START_LIMIT, || {
            agent.still_runs()?;
            let ready = metrics::get(&self.server_host, EDGE_HEALTH, "/readyz");
            Ok(ready.is_ok_and(|(status, _)| status == 200))
        })?;
        Ok(agent)
    }

    fn end(&self, mut running: Running) -> Result<()> {
        let words = running.server.last_words();
        running.server.still_runs().context(words)?;
        running.server.stop();
        Ok(())
    }

    fn target(&self, who: Who) -> Target {
        Target {
            address: match who {
                Who::Edge => EDGE_CLIENTS,
                Who::Haproxy => HAPROXY_CLIENTS,
            },
            name: NAME_OUTSIDE.to_owned(),
            ca: self.certs.join("ca.pem"),
            own: None,
        }
    }
}

/// Chain and key in one file, as HAProxy wants them.
fn join_pem(certs: &Path, label: &str) -> Result<()> {
    let read = |end: &str| {
        let file = certs.join(format!("{label}.{end}"));
        fs::read_to_string(&file).with_context(|| format!("{file:?}"))
    };
    let both = read("pem")? + &read("key")?;
    crate::lab::ca::write_private(&certs.join(format!("{label}.both.pem")), &both)
}

/// The configurations as they are committed, with places filled in.
fn write_files(places: &Places, certs: &Path) -> Result<()> {
    let directory = places.work.join("webconf");
    fs::create_dir_all(directory.join("run"))?;
    fs::create_dir_all(directory.join("state"))?;
    crate::lab::ca::write_private(
        &directory.join("secret"),
        &("0123456789abcdef".repeat(4) + "\n"),
    )?;
    for file in ["edge.toml", "agent.toml", "haproxy.cfg"] {
        let from = places.benches.join("webconf").join(file);
        let text = fs::read_to_string(&from).with_context(|| format!("{from:?}"))?;
        let text = text
            .replace("@CERTS@", &certs.to_string_lossy())
            .replace("@DIR@", &directory.to_string_lossy())
            .replace("@EXTERNAL@", &EXTERNAL.to_string())
            .replace("@ECHO@", &ECHO_TLS.to_string());
        fs::write(directory.join(file), text)?;
    }
    Ok(())
}

const EDGE_CLIENTS: SocketAddr = at(EXTERNAL, 17_443);
const EDGE_HEALTH: SocketAddr = at(INTERNAL, 9563);
const HAPROXY_CLIENTS: SocketAddr = at(EXTERNAL, 16_443);
const ECHO_TLS: SocketAddr = at(INSIDE, 15_057);
const ECHO_PLAIN: SocketAddr = at(INSIDE, 15_058);
const NAME_OUTSIDE: &str = "webconf.contoso.test";
const NAME_EDGE: &str = "edge1.contoso.internal";
const NAME_AGENT: &str = "mcu1.contoso.internal";
const NAME_ECHO: &str = "echo.contoso.internal";
/// One number for a whole run: how numbers are handed out is not what is measured.
const ADMIT: &str = "{\"ttl\": \"1 h\", \"uses\": 65000}";
const BULK: usize = 20;
/// Bytes of a stream that are under way.
const WINDOW: usize = 256 * 1024;
const AT_ONCE: usize = 8;
/// More than the kernel and the relay hold for one stream together.
const STALLED_BYTES: usize = 1_500_000;
const START_LIMIT: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(90);

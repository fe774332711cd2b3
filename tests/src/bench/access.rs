//! The benchmark of the Access Edge: beside Kamailio, which does the same relay work.
//!
//! ```text
//!   host "load", CPU 1                     host "server", CPU 0
//!   clients      198.51.100.1 ─── veth ─── 198.51.100.10   edge-access, or Kamailio
//!   stand-in       10.10.0.50 ─── veth ─── 10.10.0.10
//! ```
//!
//! Both have the same RSA-2048 keys and relay to the same stand-in over mutual TLS. In each round every row runs on the
//! one and then on the other. Kamailio is started anew for each row of handshakes, because it does not survive many.

use super::credentials::{Authority, Key};
use super::driver::Load;
use super::host::{
    self, CLIENTS, EXTERNAL, INSIDE, INTERNAL, LOAD_CPU, Options, Places, SERVER_CPU, at,
};
use super::load::target::{Own, Target};
use super::load::{Order, Report, handshakes, idle, sip, standin};
use super::record::{self, Record, Server as _, Shown};
use super::server::Server;
use super::table::{Bar, Row};
use crate::lab::bounded;
use crate::lab::ca::{Pair, write_private};
use crate::lab::metrics;
use crate::lab::netns::Netns;
use crate::lab::sandbox::eprintln_line;
use anyhow::{Context as _, Result, bail};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs all of it; the rows, and the raw results as JSON lines.
pub fn run(options: Options, places: &Places) -> Result<(Vec<Row>, String)> {
    let plan = Plan::of(options);
    let mut bench = Bench::prepare(places)?;
    let head = host::head(
        "access",
        options,
        &places.daemon,
        &["kamailio", "--version"],
    )?;
    bench.record.note(&head);
    for round in 1..=options.rounds {
        bench.record.round = round;
        eprintln_line(&format!("round {round} of {}", options.rounds));
        bench.transactions(&plan)?;
        bench.handshakes(&plan)?;
        bench.idle(&plan)?;
    }
    bench.churn(&plan)?;
    Ok((bench.rows(&plan), bench.record.raw()))
}

/// Lengths and numbers of a run.
struct Plan {
    transactions_s: f64,
    handshakes_s: f64,
    idle_clients: usize,
    churn_s: f64,
}

impl Plan {
    const fn of(options: Options) -> Self {
        if options.quick {
            Self {
                transactions_s: 1.5,
                handshakes_s: 1.0,
                idle_clients: 2_000,
                churn_s: 10.0,
            }
        } else {
            Self {
                transactions_s: 4.0,
                handshakes_s: 2.0,
                idle_clients: 10_000,
                churn_s: 60.0,
            }
        }
    }
}

/// One kind of transaction load.
struct Shape {
    key: &'static str,
    what: &'static str,
    connections: usize,
    window: usize,
    rate: u32,
    bar: f64,
}

const SHAPES: [Shape; 3] = [
    Shape {
        key: "10x8",
        what: "CPU s for 10,000 MESSAGE transactions, 10 clients with 8 open each",
        connections: 10,
        window: 8,
        rate: 0,
        bar: 0.30,
    },
    Shape {
        key: "200x1",
        what: "the same, 200 clients with 1 open each",
        connections: 200,
        window: 1,
        rate: 0,
        bar: 0.38,
    },
    Shape {
        key: "4000/s",
        what: "the same, 4,000 a second from 50 clients, evenly spaced",
        connections: 50,
        window: 0,
        rate: 4_000,
        bar: 0.55,
    },
];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// Our daemon with the RSA key.
    Edge,
    /// Our daemon with the P-256 key.
    EdgeP256,
    /// The peer.
    Kamailio,
}

impl record::Server for Who {
    fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::EdgeP256 => "edge-p256",
            Self::Kamailio => "kamailio",
        }
    }
}

/// Everything that is ready before the first round.
struct Bench<'p> {
    places: &'p Places,
    certs: PathBuf,
    host: Netns,
    load: Load,
    record: Record<Who>,
}

impl<'p> Bench<'p> {
    fn prepare(places: &'p Places) -> Result<Self> {
        let (host, load) = host::hosts(&places.work)?;
        let certs = places.work.join("certs");
        let authority = Authority::new(&certs)?;
        let issue = |label, key, names: &[&str]| authority.issue(label, key, names);
        issue("edge", Key::Rsa, &[NAME_OUTSIDE])?;
        issue("edge-ec", Key::P256, &[NAME_OUTSIDE])?;
        issue("edgeint", Key::Rsa, &NAMES_INSIDE)?;
        let pool = issue("pool", Key::Rsa, &[NAME_POOL])?;
        issue("fed", Key::Rsa, &[NAME_PARTNER])?;
        let standin = standin::Plan {
            address: POOL,
            tls: Some(standin::Tls {
                own: own(&pool),
                ca: authority.file(),
            }),
            does: standin::Does::Sip,
        };
        write_edge(places, &certs, Who::Edge)?;
        write_edge(places, &certs, Who::EdgeP256)?;
        write_kamailio(places, &certs)?;
        Ok(Self {
            places,
            certs,
            host,
            load: Load::start(&load, LOAD_CPU, &[standin])?,
            record: Record::new(),
        })
    }

    fn transactions(&mut self, plan: &Plan) -> Result<()> {
        for who in [Who::Edge, Who::Kamailio] {
            let mut server = self.start(who)?;
            for shape in &SHAPES {
                let order = Order::Sip(sip::Plan {
                    target: self.client_target(who),
                    server: server.processes(),
                    domain: DOMAIN.to_owned(),
                    connections: shape.connections,
                    window: shape.window,
                    rate: shape.rate,
                    body: BODY,
                    seconds: plan.transactions_s,
                });
                let report = self.order(shape.key, who, &order, plan.transactions_s)?;
                let Report::Sip(report) = report else {
                    bail!("another report than ordered");
                };
                self.record
                    .sample(shape.key, who, report.server_cpu_s_per_10k);
                self.record.remark(
                    shape.key,
                    who,
                    format!(
                        "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} failed",
                        report.transactions as f64 / report.seconds,
                        report.p50_ms,
                        report.p99_ms,
                        report.failed
                    ),
                );
                if report.failed > 0 && who != Who::Kamailio {
                    let why = format!("{} transactions failed", report.failed);
                    self.record.fail(shape.key, why);
                }
                server.still_runs().with_context(|| server.last_words())?;
            }
            server.stop();
        }
        Ok(())
    }

    fn handshakes(&mut self, plan: &Plan) -> Result<()> {
        for who in [Who::Edge, Who::EdgeP256, Who::Kamailio] {
            for (key, mutual) in [("handshake", false), ("mtls", true)] {
                if mutual && who == Who::EdgeP256 {
                    continue;
                }
                self.handshake(plan, who, key, mutual)?;
            }
        }
        Ok(())
    }

    fn handshake(&mut self, plan: &Plan, who: Who, key: &'static str, mutual: bool) -> Result<()> {
        // Kamailio dies of longer runs.
        let seconds = match who {
            Who::Kamailio => plan.handshakes_s.min(1.0),
            Who::Edge | Who::EdgeP256 => plan.handshakes_s,
        };
        let target = if mutual {
            self.partner_target(who)
        } else {
            self.client_target(who)
        };
        for attempt in 1..=ATTEMPTS {
            let server = self.start(who)?;
            let order = Order::Handshakes(handshakes::Plan {
                target: target.clone(),
                server: server.processes(),
                at_once: AT_ONCE,
                seconds,
            });
            match self.order(key, who, &order, seconds) {
                Ok(Report::Handshakes(report)) => {
                    self.record.sample(key, who, report.server_cpu_ms);
                    if report.failed > 0 {
                        let why = format!("{}: {} failed", who.name(), report.failed);
                        self.record.remark(key, who, why);
                    }
                    server.stop();
                    return Ok(());
                }
                Ok(_) => bail!("another report than ordered"),
                Err(error) if who == Who::Kamailio && attempt < ATTEMPTS => {
                    self.record.note(&json!({ "row": key, "server": who.name(), "attempt": attempt, "error": format!("{error:#}") }));
                    server.stop();
                }
                Err(error) => return Err(error.context(server.last_words())),
            }
        }
        Ok(())
    }

    fn idle(&mut self, plan: &Plan) -> Result<()> {
        for who in [Who::Edge, Who::Kamailio] {
            // The peer is measured for comparison only, and once.
            if who == Who::Kamailio && self.record.round > 1 {
                continue;
            }
            let connections = match who {
                Who::Kamailio => plan.idle_clients.min(KAMAILIO_IDLE),
                Who::Edge | Who::EdgeP256 => plan.idle_clients,
            };
            let server = self.start(who)?;
            let order = Order::Idle(idle::Plan {
                target: self.client_target(who),
                server: server.processes(),
                sip_domain: Some(DOMAIN.to_owned()),
                preface: None,
                connections,
            });
            let outcome = self.order("idle", who, &order, connections as f64 / 100.0);
            match outcome {
                Ok(Report::Idle(report)) => {
                    let each = match who {
                        // Its processes share most of their memory.
                        Who::Kamailio => report.pss_kib_each,
                        Who::Edge | Who::EdgeP256 => report.rss_kib_each,
                    };
                    self.record.sample("idle", who, each);
                    let kernel = report.kernel_kib_each.map_or_else(
                        || "kernel memory not readable".to_owned(),
                        |kib| format!("{kib:.1} KiB in the kernel for both ends"),
                    );
                    self.record
                        .remark("idle", who, format!("{} clients, {kernel}", report.open));
                    if report.failed > 0 && who != Who::Kamailio {
                        let why = format!("{} clients could not sign in", report.failed);
                        self.record.fail("idle", why);
                    }
                }
                Ok(_) => bail!("another report than ordered"),
                Err(error) if who == Who::Kamailio => {
                    self.record.remark("idle", who, format!("failed: {error}"));
                }
                Err(error) => return Err(error.context(server.last_words())),
            }
            server.stop();
        }
        Ok(())
    }

    fn churn(&mut self, plan: &Plan) -> Result<()> {
        for who in [Who::Edge, Who::Kamailio] {
            let mut server = self.start(who)?;
            let order = Order::Churn(handshakes::Churn {
                targets: vec![self.client_target(who), self.partner_target(who)],
                server: server.processes(),
                at_once: AT_ONCE,
                seconds: plan.churn_s,
            });
            let Report::Churn(report) = self.order("churn", who, &order, plan.churn_s)? else {
                bail!("another report than ordered");
            };
            let fate = match report.died_after_s {
                Some(seconds) => format!("died after {seconds:.0} s"),
                None => format!("lived, {:+} KiB", report.growth_kib()),
            };
            self.record.remark(
                "churn",
                who,
                format!("{} handshakes, {fate}", report.handshakes),
            );
            if who == Who::Edge {
                self.record.sample("churn", who, report.growth_kib() as f64);
                let ended = server.still_runs().is_err() || report.died_after_s.is_some();
                if ended {
                    self.record.fail("churn", server.last_words());
                } else if report.failed > 0 {
                    let why = format!("{} handshakes failed", report.failed);
                    self.record.fail("churn", why);
                }
            }
            server.stop();
        }
        Ok(())
    }

    fn rows(&self, plan: &Plan) -> Vec<Row> {
        let mut rows = Vec::new();
        for shape in &SHAPES {
            rows.push(self.row(shape.key, Who::Edge, shape.what, 3, Bar::Ratio(shape.bar)));
        }
        let handshake = "CPU ms for a TLS 1.3 handshake";
        let rows_of_handshakes = [
            ("handshake", Who::Edge, "the same RSA-2048 key", 0.70),
            (
                "handshake",
                Who::EdgeP256,
                "our P-256 key, its RSA-2048",
                0.32,
            ),
            ("mtls", Who::Edge, "mutual, RSA-2048 on both sides", 0.40),
        ];
        for (key, who, what, bar) in rows_of_handshakes {
            let what = format!("{handshake}, {what}");
            rows.push(self.row(key, who, &what, 3, Bar::Ratio(bar)));
        }
        let idle = format!(
            "KiB resident for each of {} idle signed-in TLS clients",
            plan.idle_clients
        );
        rows.push(self.row("idle", Who::Edge, &idle, 2, Bar::AtMost(10.0)));
        let churn = format!(
            "KiB of growth in {:.0} s of handshakes dropped at once, 8 at a time, plain and mutual",
            plan.churn_s
        );
        rows.push(self.row("churn", Who::Edge, &churn, 0, Bar::AtMost(FLAT_KIB)));
        rows
    }

    fn row(&self, key: &'static str, who: Who, what: &str, digits: usize, bar: Bar) -> Row {
        self.record.row(&Shown {
            key,
            what,
            ours: who,
            peer: Who::Kamailio,
            digits,
            bar,
        })
    }

    fn order(&mut self, key: &str, who: Who, order: &Order, seconds: f64) -> Result<Report> {
        let limit = Duration::from_secs_f64(seconds) + GRACE;
        let report = self.load.order(order, limit);
        let server = who.name();
        match &report {
            Ok(report) => self.record.report(key, who, report),
            Err(error) => eprintln_line(&format!("{server}, {key}: {error:#}")),
        }
        report.with_context(|| format!("{server}, {key}"))
    }

    fn start(&self, who: Who) -> Result<Server> {
        let work = &self.places.work;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        match who {
            Who::Edge | Who::EdgeP256 => {
                let config = text(work.join(format!("{}.toml", who.name())));
                let listeners = [EDGE_CLIENTS, EDGE_PARTNERS, EDGE_HEALTH];
                let arguments = ["--config", &config];
                let server = Server::start(
                    who.name(),
                    &self.host,
                    SERVER_CPU,
                    &self.places.daemon,
                    &arguments,
                    &listeners,
                    work,
                )?;
                ready(&self.host)?;
                Ok(server)
            }
            Who::Kamailio => {
                let directory = text(work.join("kamailio"));
                let (config, pid) = (
                    format!("{directory}/kamailio.cfg"),
                    format!("{directory}/kam.pid"),
                );
                let mut arguments = vec!["-f", &config, "-w", &directory, "-P", &pid];
                arguments.extend(["-Y", &directory]);
                arguments.extend(KAMAILIO_ARGUMENTS);
                Server::start(
                    who.name(),
                    &self.host,
                    SERVER_CPU,
                    Path::new("kamailio"),
                    &arguments,
                    &[KAMAILIO_CLIENTS, KAMAILIO_PARTNERS],
                    work,
                )
            }
        }
    }

    fn client_target(&self, who: Who) -> Target {
        let address = match who {
            Who::Edge | Who::EdgeP256 => EDGE_CLIENTS,
            Who::Kamailio => KAMAILIO_CLIENTS,
        };
        self.target(address, None)
    }

    fn partner_target(&self, who: Who) -> Target {
        let address = match who {
            Who::Edge | Who::EdgeP256 => EDGE_PARTNERS,
            Who::Kamailio => KAMAILIO_PARTNERS,
        };
        let own = Own {
            chain: self.certs.join("fed.pem"),
            key: self.certs.join("fed.key"),
        };
        self.target(address, Some(own))
    }

    fn target(&self, address: SocketAddr, own: Option<Own>) -> Target {
        Target {
            address,
            name: NAME_OUTSIDE.to_owned(),
            ca: self.certs.join("ca.pem"),
            own,
        }
    }
}

/// Waits until the edge has its connection to the inside.
fn ready(host: &Netns) -> Result<()> {
    let limit = Duration::from_secs(15);
    let asked =
        || metrics::get(host, EDGE_HEALTH, "/readyz").is_ok_and(|(status, _)| status == 200);
    bounded::until("the edge is ready", limit, || Ok(asked())).map(drop)
}

fn own(pair: &Pair) -> Own {
    Own {
        chain: pair.chain.clone(),
        key: pair.key.clone(),
    }
}

/// The peer's configuration as it is committed, with the two directories filled in.
fn write_kamailio(places: &Places, certs: &Path) -> Result<()> {
    let directory = places.work.join("kamailio");
    fs::create_dir_all(&directory)?;
    for file in ["kamailio.cfg", "tls.cfg"] {
        let from = places.benches.join("access").join(file);
        let text = fs::read_to_string(&from).with_context(|| format!("{from:?}"))?;
        let text = text
            .replace("@CERTS@", &certs.to_string_lossy())
            .replace("@DIR@", &directory.to_string_lossy())
            .replace("@EXTERNAL@", &EXTERNAL.to_string())
            .replace("@INTERNAL@", &INTERNAL.to_string())
            .replace("@CLIENTS@", &CLIENTS.to_string())
            .replace("@POOL@", &INSIDE.to_string());
        fs::write(directory.join(file), text)?;
    }
    Ok(())
}

fn write_edge(places: &Places, certs: &Path, who: Who) -> Result<()> {
    let from = places.benches.join("access/edge.toml");
    let text = fs::read_to_string(&from).with_context(|| format!("{from:?}"))?;
    let directory = places.work.join(who.name());
    fs::create_dir_all(directory.join("run"))?;
    fs::create_dir_all(directory.join("state"))?;
    write_private(
        &directory.join("secret"),
        &("0123456789abcdef".repeat(4) + "\n"),
    )?;
    let key = if who == Who::EdgeP256 {
        "edge-ec"
    } else {
        "edge"
    };
    let text = text
        .replace("@CERTS@", &certs.to_string_lossy())
        .replace("@DIR@", &directory.to_string_lossy())
        .replace("@KEY@", key);
    fs::write(places.work.join(format!("{}.toml", who.name())), text)?;
    Ok(())
}

const EDGE_CLIENTS: SocketAddr = at(EXTERNAL, 17_443);
const EDGE_PARTNERS: SocketAddr = at(EXTERNAL, 17_061);
const EDGE_HEALTH: SocketAddr = at(INTERNAL, 9561);
const KAMAILIO_CLIENTS: SocketAddr = at(EXTERNAL, 16_443);
const KAMAILIO_PARTNERS: SocketAddr = at(EXTERNAL, 16_061);
const POOL: SocketAddr = at(INSIDE, 15_061);
const DOMAIN: &str = "contoso.test";
const NAME_OUTSIDE: &str = "access.contoso.test";
const NAMES_INSIDE: [&str; 2] = ["edge1.contoso.internal", "edge.contoso.internal"];
const NAME_POOL: &str = "pool.contoso.test";
const NAME_PARTNER: &str = "access.fabrikam.test";
/// The arguments of the floor that it has to be measured with: its default allocator would flatter us.
const KAMAILIO_ARGUMENTS: [&str; 10] = [
    "-DD", "-E", "-m", "512", "-M", "32", "-x", "tlsf", "-X", "tlsf",
];
/// With the head this makes a request of about 850 bytes.
const BODY: usize = 400;
const AT_ONCE: usize = 8;
/// Its shared memory holds no more than about 10,000; the figure for each does not depend on the number.
const KAMAILIO_IDLE: usize = 2_000;
const ATTEMPTS: usize = 3;
const GRACE: Duration = Duration::from_secs(60);
/// Growth that counts as none: the allocator's own play.
const FLAT_KIB: f64 = 1_024.0;

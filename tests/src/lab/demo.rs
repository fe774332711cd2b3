//! The demo from beginning to end: which worlds are built, which steps are shown in them.

use super::array::ArrayWorld;
use super::plan::CONTOSO;
use super::report::{Report, Seen};
use super::sandbox::{self, eprintln_line};
use super::step;
use super::topology::Variant;
use super::world::World;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the demo is to do besides showing its steps.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Leave the lab running at the end.
    pub stay: bool,
    /// Also write the rows as JSON to this file.
    pub json: Option<PathBuf>,
    /// Build this world only.
    pub only: Option<Which>,
}

/// The worlds that are built one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// The edge behind a static 1:1 NAT.
    Nat,
    /// Two edge hosts behind balancers.
    Array,
    /// The edge with public addresses.
    Direct,
}

/// Shows everything; the report says what passed.
pub fn run(options: &Options, work: &Path) -> Result<Report> {
    let mut report = Report::default();
    let shown = |world| options.only.is_none_or(|only| only == world);
    if shown(Which::Nat) {
        behind_nat(&mut report, work);
    }
    if shown(Which::Array) {
        array(&mut report, work);
    }
    let world = if shown(Which::Direct) {
        direct(&mut report, work)
    } else {
        None
    };
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(file, text).with_context(|| format!("cannot write {file:?}"))?;
    }
    if options.stay {
        stay(&report, world.as_ref(), work)?;
    }
    Ok(report)
}

/// The edge behind a static 1:1 NAT, its daemons under strace: the call once more, and enough of the
/// rest that each daemon has done all that it does.
fn behind_nat(report: &mut Report, work: &Path) {
    let work = work.join("behind-nat");
    let traces = work.join("traces");
    let mut built = None;
    report.check(
        "0",
        "the lab with the edge behind a 1:1 NAT, traced",
        || {
            fs::create_dir_all(&traces)?;
            built = Some(World::build(Variant::OneToOneNat, &work, Some(&traces))?);
            Ok(Seen::text(format!(
                "{} is {} on the host",
                CONTOSO.av,
                Variant::OneToOneNat.av_address()
            )))
        },
    );
    let Some(mut world) = built else { return };
    not_started(&mut world.failed, report);
    step::call::show(&mut world, report, "2n");
    let mut aside = Report::default();
    step::federation::show(&mut world, &mut aside);
    step::conference::show(&mut world, &mut aside, TRACED_STREAM);
    report.check("u", "the traced world did its work", || {
        did_its_work(&aside)
    });
    step::units::show(&mut world, report, &traces);
}

/// What is shown in full in the other world is one row here; a trace of what failed would prove little.
fn did_its_work(aside: &Report) -> Result<Seen> {
    let failed: Vec<_> = aside
        .rows()
        .iter()
        .filter(|row| !row.pass)
        .map(|row| format!("{}: {}", row.what, row.seen))
        .collect();
    if !aside.all_pass() {
        bail!("{} failed: {}", failed.len(), failed.join("; "));
    }
    Ok(Seen::text(format!(
        "{} checks of federation and conference passed",
        aside.rows().len()
    )))
}

/// Two members behind balancers: what one alone cannot show.
fn array(report: &mut Report, work: &Path) {
    let work = work.join("array");
    let mut built = None;
    report.check("0", "the lab with two edges behind balancers", || {
        built = Some(ArrayWorld::build(&work)?);
        Ok(Seen::text(
            "two members from one edge.toml, a balancer on each side",
        ))
    });
    let Some(mut world) = built else { return };
    not_started(&mut world.failed, report);
    step::array::show(&mut world, report);
    step::conference_array::show(&mut world, report);
}

/// The edge with public addresses: every step.
fn direct(report: &mut Report, work: &Path) -> Option<World> {
    let work = work.join("direct");
    let mut built = None;
    report.check(
        "0",
        "the lab: hosts, NATs, firewalls, two organisations",
        || {
            built = Some(World::build(Variant::Direct, &work, None)?);
            Ok(Seen::text(
                "13 hosts; two edges with the rendered firewall and network settings",
            ))
        },
    );
    let mut world = built?;
    not_started(&mut world.failed, report);
    step::sign_in::show(&mut world, report);
    step::call::show(&mut world, report, "2");
    step::federation::show(&mut world, report);
    step::federation_depth::show(&mut world, report);
    step::conference::show(&mut world, report, STREAM);
    step::services::show(&mut world, report);
    step::operator::show(&mut world, report);
    step::closed::show(&mut world, report);
    step::metrics::show(&mut world, report);
    step::browser::show(&mut world, report);
    report.check("6", "every daemon lived through all of it", || {
        world.contoso.still_runs()?;
        world.fabrikam.still_runs()?;
        Ok(Seen::text("six daemons"))
    });
    Some(world)
}

/// Each daemon that did not start is a row of its own; what does not need it is shown all the same.
fn not_started(failed: &mut Vec<(String, anyhow::Error)>, report: &mut Report) {
    for (what, error) in failed.drain(..) {
        report.add("0", &what, Duration::ZERO, Err(error));
    }
}

fn stay(report: &Report, world: Option<&World>, work: &Path) -> Result<()> {
    eprintln_line(&report.table());
    let Some(world) = world else {
        bail!("there is no lab to leave running");
    };
    let relay = world.contoso.mras_credentials("alice@contoso.test");
    let relay = relay.map_or_else(
        |error| format!("no media credentials: {error:#}"),
        |relay| {
            format!(
                "TURN {}:3478 (UDP) or 443 (TCP), user {} password {}",
                relay.host, relay.username, relay.password
            )
        },
    );
    eprintln_line(&format!(
        "\nThe lab stays until Ctrl-C. It is closed: enter one of its hosts to use it.\n\
         \n  {program} enter homea YOUR-SOFTPHONE     in alice's home, behind her NAT\n  \
         {program} enter homeb YOUR-SOFTPHONE     in bob's home\n  \
         {program} enter inside-c YOUR-PROGRAM    next to contoso's Director\n\
         \nAccount: sip:alice@contoso.test, password alice-secret (bob: bob-secret)\n\
         Outbound proxy: sip:{sip}:443;transport=tls, trusted authority {ca}\n{relay}\n\
         Logs: {work}",
        program = std::env::current_exe().unwrap_or_default().display(),
        sip = CONTOSO.public_name("sip"),
        ca = world.public_ca.file.display(),
        work = world.work.display(),
    ));
    sandbox::announce(work, &world.work)?;
    loop {
        std::thread::park();
    }
}

/// A hundred megabytes each way.
const STREAM: usize = 100_000_000;
/// Enough to fill every buffer on the way some times over.
const TRACED_STREAM: usize = 4_000_000;

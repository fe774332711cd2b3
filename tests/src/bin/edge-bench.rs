//! `edge-bench`: the daemons and their peers under load, and the instructions of their cores.

use clap::{Parser, Subcommand};
use edge_tests::bench::host::{self, Options, Places};
use edge_tests::bench::{access, instructions, load, table, webconf};
use edge_tests::lab::sandbox::{self, eprintln_line};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

#[derive(Parser)]
#[command(version, about = "Benchmarks of the Edge Server")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The Access Edge beside Kamailio: prints the table and writes it into the results and the page.
    Access(Beside),
    /// The Web Conferencing Edge beside HAProxy; its agent is taken from beside the daemon.
    Webconf(Beside),
    /// Orders on standard input, reports on standard output, one JSON object a line each.
    Load {
        /// A stand-in for a server inside, as JSON; there may be several.
        #[arg(long = "standin", value_name = "JSON")]
        standins: Vec<String>,
    },
    /// Counts the instructions of the core of the Access Edge under callgrind, and holds them to their bounds.
    Instructions {
        /// Where the bounds stand.
        #[arg(long, value_name = "FILE")]
        bounds: PathBuf,
    },
    /// What `instructions` runs under callgrind: one stage, so many times.
    Stage {
        /// Its name.
        name: String,
        /// How often.
        times: usize,
    },
}

/// What every benchmark beside a peer is told.
#[derive(clap::Args)]
struct Beside {
    /// How often each row is measured on each server.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Short runs, to see that it works; nothing is written.
    #[arg(long)]
    quick: bool,
    /// The daemon.
    #[arg(long, value_name = "FILE")]
    daemon: PathBuf,
    /// tests/benches of the checkout.
    #[arg(long, value_name = "DIRECTORY")]
    benches: PathBuf,
    /// The page that shows the table.
    #[arg(long, value_name = "FILE")]
    page: PathBuf,
    /// Keep logs and configurations.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Access(beside) => bench("access", "Kamailio", &beside, access::run),
        What::Webconf(beside) => bench("webconf", "HAProxy", &beside, webconf::run),
        What::Load { standins } => serve_load(&standins),
        What::Instructions { bounds } => count(&bounds),
        What::Stage { name, times } => {
            instructions::run_stage(&name, times).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln_line(&format!("edge-bench: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Runs a benchmark in a sandbox of its own.
fn bench(
    name: &str,
    peer: &str,
    beside: &Beside,
    run: impl FnOnce(Options, &Places) -> anyhow::Result<(Vec<table::Row>, String)>,
) -> anyhow::Result<ExitCode> {
    host::raise_open_files()?;
    let Some(work) = sandbox::inside() else {
        return sandbox::enter(beside.keep).map(exit_code);
    };
    sandbox::furnish()?;
    sandbox::end_on_signal()?;
    let options = Options {
        rounds: beside.rounds,
        quick: beside.quick,
    };
    let places = Places {
        daemon: beside.daemon.clone(),
        benches: beside.benches.clone(),
        work,
    };
    let (rows, raw) = run(options, &places)?;
    if beside.quick {
        print(&table::markdown(&rows, peer));
    } else {
        print(&host::publish(
            name,
            peer,
            &rows,
            &raw,
            &beside.benches,
            &beside.page,
        )?);
    }
    let all_pass = rows.iter().all(table::Row::passes);
    Ok(if all_pass {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn serve_load(standins: &[String]) -> anyhow::Result<ExitCode> {
    host::raise_open_files()?;
    let plans = standins.iter().map(|plan| serde_json::from_str(plan));
    load::serve(plans.collect::<Result<_, _>>()?)?;
    Ok(ExitCode::SUCCESS)
}

fn count(bounds: &Path) -> anyhow::Result<ExitCode> {
    let outcome = instructions::check(bounds)?;
    print(&outcome.text);
    Ok(if outcome.all_within {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn print(text: &str) {
    println!("{text}");
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

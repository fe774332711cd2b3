//! `edge-bench`: the daemons and their peers under load, and the instructions of their cores.

use clap::{Parser, Subcommand};
use edge_tests::bench::access::{self, Options, Places};
use edge_tests::bench::{instructions, load, table};
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
    Access {
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
    },
    /// Orders on standard input, reports on standard output, one JSON object a line each.
    Load {
        /// A stand-in for the server inside, as JSON.
        #[arg(long, value_name = "JSON")]
        standin: Option<String>,
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

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Access {
            rounds,
            quick,
            daemon,
            benches,
            page,
            keep,
        } => {
            let options = Options { rounds, quick };
            bench_access(options, &daemon, &benches, &page, keep)
        }
        What::Load { standin } => serve_load(standin.as_deref()),
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

fn bench_access(
    options: Options,
    daemon: &Path,
    benches: &Path,
    page: &Path,
    keep: bool,
) -> anyhow::Result<ExitCode> {
    access::raise_open_files()?;
    let Some(work) = sandbox::inside() else {
        return sandbox::enter(keep).map(exit_code);
    };
    sandbox::furnish()?;
    sandbox::end_on_signal()?;
    let places = Places {
        daemon: daemon.to_owned(),
        benches: benches.to_owned(),
        work,
    };
    let (rows, raw) = access::run(options, &places)?;
    if options.quick {
        print(&table::markdown(&rows, "Kamailio"));
    } else {
        print(&access::publish(&rows, &raw, benches, page)?);
    }
    let all_pass = rows.iter().all(table::Row::passes);
    Ok(if all_pass {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn serve_load(standin: Option<&str>) -> anyhow::Result<ExitCode> {
    access::raise_open_files()?;
    let standin = standin.map(serde_json::from_str).transpose()?;
    load::serve(standin)?;
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

//! `edge-lab`: the whole edge at work with software that nobody here wrote.

use clap::{Parser, Subcommand};
use edge_tests::lab::demo::{self, Options, Which};
use edge_tests::lab::sandbox::{self, eprintln_line};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

#[derive(Parser)]
#[command(
    version,
    about = "The Edge Server in network namespaces, with real clients and servers"
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Build the lab, show every step, print the table.
    Run {
        /// Leave the lab running at the end.
        #[arg(long)]
        stay: bool,
        /// Write the rows as JSON to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Keep logs, configurations and recordings.
        #[arg(long)]
        keep: bool,
        /// Build one of the worlds only.
        #[arg(long, value_name = "WORLD")]
        only: Option<Which>,
    },
    /// Run a program on one host of a lab that was left running.
    Enter {
        /// homea, homeb, stranger, inside-c, edge-c, …
        host: String,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Run {
            stay,
            json,
            keep,
            only,
        } => run(Options { stay, json, only }, keep),
        What::Enter { host, command } => sandbox::visit(&host, &command).map(exit_code),
    };
    result.unwrap_or_else(|error| {
        eprintln_line(&format!("edge-lab: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run(options: Options, keep: bool) -> anyhow::Result<ExitCode> {
    let Some(work) = sandbox::inside() else {
        return sandbox::enter(keep).map(exit_code);
    };
    sandbox::furnish()?;
    sandbox::end_on_signal()?;
    let report = demo::run(&options, &work)?;
    println_table(&report.table());
    Ok(if report.all_pass() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn println_table(table: &str) {
    println!("{table}");
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

//! `edge-lab`: the whole edge at work with software that nobody here wrote.

use clap::{Parser, Subcommand};
use edge_tests::lab::demo::{self, Options, Which};
use edge_tests::lab::sandbox::{self, eprintln_line};
use edge_webconf::confine::confine;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

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
    /// Confine this process as edge-webconf confines itself, then try to dial.
    #[command(hide = true)]
    ConfinedDial {
        /// Whom.
        to: SocketAddr,
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
        What::ConfinedDial { to } => confined_dial(to),
        What::Enter { host, command } => sandbox::visit(&host, &command).map(exit_code),
    };
    result.unwrap_or_else(|error| {
        eprintln_line(&format!("edge-lab: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Dials once before, which has to succeed, and by TCP and UDP afterwards.
fn confined_dial(to: SocketAddr) -> anyhow::Result<ExitCode> {
    TcpStream::connect_timeout(&to, DIAL_LIMIT)?;
    let confined = confine(&[]);
    let refused = |result: std::io::Result<()>| match result {
        Ok(()) => "allowed".to_owned(),
        Err(error) => error.kind().to_string(),
    };
    let tcp = refused(TcpStream::connect_timeout(&to, DIAL_LIMIT).map(drop));
    let udp = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(to));
    let udp = refused(udp);
    println_table(&format!("confined: TCP {tcp}, UDP {udp}"));
    let denied = ErrorKind::PermissionDenied.to_string();
    anyhow::ensure!(tcp == denied && udp == denied, "{confined:?}");
    Ok(ExitCode::SUCCESS)
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

const DIAL_LIMIT: Duration = Duration::from_secs(3);

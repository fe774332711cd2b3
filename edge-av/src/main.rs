//! `edge-av`: reads its arguments and runs the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use edge_av::daemon::AvEdge;
use edge_common::run::{self, Arguments};

/// The A/V Edge: STUN, TURN and the A/V authentication service.
#[derive(Debug, Parser)]
#[command(name = "edge-av", version)]
struct CommandLine {
    /// The configuration of the array, the same file on all members.
    #[arg(long, default_value = "/etc/edge/edge.toml")]
    config: PathBuf,
    /// Which member this host is.
    #[arg(long)]
    node: Option<String>,
    /// Says what is wrong with the configuration, and ends.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let CommandLine {
        config,
        node,
        check,
    } = CommandLine::parse();
    run::run::<AvEdge>(&Arguments {
        config,
        node,
        check,
    })
}

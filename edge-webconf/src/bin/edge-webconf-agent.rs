//! The agent `edge-webconf-agent`, which runs inside next to a conference server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use edge_common::run::{self, Arguments};
use edge_webconf::agent::service::WebconfAgent;

/// Opens the way from the Web Conferencing Edge to a conference server inside.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The configuration file.
    #[arg(long, default_value = "/etc/edge/agent.toml")]
    config: PathBuf,
    /// Only say what is wrong with the configuration.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let Cli { config, check } = Cli::parse();
    run::run::<WebconfAgent>(&Arguments {
        config,
        node: None,
        check,
    })
}

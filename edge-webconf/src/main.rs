//! The daemon `edge-webconf`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use edge_common::run::{self, Arguments};
use edge_webconf::daemon::EdgeWebconf;

/// The Web Conferencing Edge: conference streams from outside to agents inside.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The configuration file.
    #[arg(long, default_value = "/etc/edge/edge.toml")]
    config: PathBuf,
    /// Which member this host is.
    #[arg(long)]
    node: Option<String>,
    /// Only say what is wrong with the configuration.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let Cli {
        config,
        node,
        check,
    } = Cli::parse();
    run::run::<EdgeWebconf<true>>(&Arguments {
        config,
        node,
        check,
    })
}

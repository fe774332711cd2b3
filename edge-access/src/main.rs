//! `edge-access`: the Access Edge as a process.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use edge_access::service::AccessEdge;
use edge_common::run::{self, Arguments};

/// SIP for remote users and federation.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The configuration of the edge.
    #[arg(long, value_name = "FILE", default_value = "/etc/edge/edge.toml")]
    config: PathBuf,
    /// The member that this host is; otherwise the file or the host name says it.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Say what is wrong with the configuration, and do nothing else.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run::run::<AccessEdge>(&Arguments {
        config: cli.config,
        node: cli.node,
        check: cli.check,
    })
}

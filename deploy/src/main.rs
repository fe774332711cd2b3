//! `edgectl`: see [`edge_deploy::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_deploy::cli::main()
}

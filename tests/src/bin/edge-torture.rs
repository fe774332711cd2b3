//! `edge-torture`: what the edge does with the torture messages of RFC 4475 and RFC 5118.

use clap::Parser;
use edge_tests::torture;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    version,
    about = "Feeds the torture messages of RFC 4475 and RFC 5118 to the proxy's core"
)]
struct Arguments {
    /// The folder that holds rfc4475, rfc5118 and SHA256SUMS.
    directory: PathBuf,
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn main() -> ExitCode {
    let outcome = torture::run(&Arguments::parse().directory);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("{}", outcome.summary());
    if outcome.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

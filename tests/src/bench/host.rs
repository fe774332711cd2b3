//! The two hosts of a benchmark, where its files are, and what every benchmark says of itself.

use super::procfs;
use super::table::{self, Row};
use crate::lab::bounded;
use crate::lab::netns::Netns;
use anyhow::{Context as _, Result};
use serde_json::json;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How thorough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How often each row is measured on each server.
    pub rounds: usize,
    /// Short runs, fewer idle clients: to see that it works, not to claim anything.
    pub quick: bool,
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The daemon to measure.
    pub daemon: PathBuf,
    /// `tests/benches`: the peer's configuration, and where results go.
    pub benches: PathBuf,
    /// A directory of this run.
    pub work: PathBuf,
}

/// The host of the servers and the host of the load, with two wires between them.
pub fn hosts(work: &Path) -> Result<(Netns, Netns)> {
    let server = Netns::create("server", None, work)?;
    let load = Netns::create("load", None, work)?;
    server.link("ext", &load, "ext")?;
    server.link("int", &load, "int")?;
    for (host, external, internal) in [(&server, EXTERNAL, INTERNAL), (&load, CLIENTS, INSIDE)] {
        host.addresses("ext", &[&format!("{external}/24")])?;
        host.addresses("int", &[&format!("{internal}/24")])?;
    }
    Ok((server, load))
}

/// What the first line of the raw results says. `peer` is the command that tells the peer's version.
pub fn head(
    benchmark: &str,
    options: Options,
    daemon: &Path,
    peer: &[&str],
) -> Result<serde_json::Value> {
    let version = |command: &mut Command| -> Result<String> {
        let text = bounded::run(command, Duration::from_secs(5))?.text();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    let (program, arguments) = peer.split_first().context("the peer has a name")?;
    Ok(json!({
        "benchmark": benchmark,
        "rounds": options.rounds,
        "quick": options.quick,
        "machine": procfs::machine(),
        "edge": version(Command::new(daemon).arg("--version"))?,
        "peer": version(Command::new(program).args(arguments)).unwrap_or_default(),
    }))
}

/// Writes the raw results and the table of the benchmark `name`, and puts the table into the page.
pub fn publish(
    name: &str,
    peer: &str,
    rows: &[Row],
    raw: &str,
    benches: &Path,
    page: &Path,
) -> Result<String> {
    let results = benches.join("results");
    fs::create_dir_all(&results)?;
    fs::write(results.join(format!("{name}.jsonl")), raw)?;
    let table = table::markdown(rows, peer);
    fs::write(results.join(format!("{name}.md")), &table)?;
    table::put_into(page, name, &table)?;
    Ok(table)
}

/// Every process of a benchmark may have as many descriptors as the machine allows.
pub fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// An address with a port.
#[must_use]
pub const fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

/// The server, towards the clients.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The server, towards the inside.
pub const INTERNAL: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 10);
/// The clients.
pub const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// What stands behind the server.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 50);
/// Where the server runs.
pub const SERVER_CPU: usize = 0;
/// Where the load runs.
pub const LOAD_CPU: usize = 1;

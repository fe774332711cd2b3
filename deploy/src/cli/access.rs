//! `edgectl access`.

use std::io::Write;
use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use edge_common::host_name::HostName;
use edge_common::ports::Service;
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::{Global, Verdict};

/// Arguments of `edgectl access`.
#[derive(Debug, Args)]
pub(super) struct Access {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List who is connected to the Access Edge of this host.
    ///
    /// The answer is a page: `next` leads to the following one. All that match are counted.
    Connections(Connections),
}

#[derive(Debug, Args)]
struct Connections {
    /// Only far ends of that kind.
    #[arg(long, value_enum)]
    side: Option<Side>,
    /// Only far ends that are trusted so far.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only this remote address.
    #[arg(long, value_name = "ADDRESS")]
    remote: Option<IpAddr>,
    /// Only far ends that proved this name, or a name within this domain.
    #[arg(long, value_name = "NAME")]
    name: Option<HostName>,
    /// Only those for which at least so many bytes wait.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    queued: u64,
    /// At most so many, from 1 to 1000.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u64,
    /// From there on: what an answer named as `next`.
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    /// Users outside.
    Client,
    /// Other organisations' edges.
    Partner,
    /// Servers inside.
    Inside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    /// A client that the inside has not accepted yet.
    Newcomer,
    /// A client that the inside has accepted.
    Promoted,
    /// A partner that has spoken for no domain yet, or not rightly.
    Unproven,
    /// A partner that speaks for a domain.
    Proven,
    /// A server inside.
    Trusted,
}

impl Access {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let What::Connections(connections) = &self.what;
        connections.run(global, out)
    }
}

impl Connections {
    fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let socket = self.daemon.socket(Service::Access, || global.load())?;
        let request = json!({
            "command": "connections",
            "side": self.side.map(word),
            "state": self.state.map(word),
            "remote": self.remote,
            "name": self.name,
            "queued": self.queued,
            "limit": self.limit,
            "after": self.after,
        });
        let answer = self.daemon.ask(&socket, &request)?;
        if self.json {
            writeln!(out, "{answer}")?;
        } else {
            print(&answer, out)?;
        }
        Ok(Verdict::Good)
    }
}

fn word(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn print(answer: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:12} {:8} {:9} {:26} {:>9} {:>7} {:>9} NAMES",
        "FLOW", "SIDE", "STATE", "REMOTE", "AGE s", "IDLE s", "QUEUED"
    )?;
    for row in answer["connections"].as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let names = row["names"].as_array().into_iter().flatten();
        let names: Vec<_> = names.filter_map(Value::as_str).collect();
        writeln!(
            out,
            "{:12} {:8} {:9} {:26} {:>9} {:>7} {:>9} {}",
            text("flow"),
            text("side"),
            text("state"),
            text("remote"),
            row["age_s"],
            row["idle_s"],
            row["queued_bytes"],
            names.join(", ")
        )?;
    }
    writeln!(
        out,
        "{} of {} connections of {} match",
        answer["matching"],
        answer["total"],
        answer["member"].as_str().unwrap_or_default()
    )?;
    if let Some(next) = answer["next"].as_str() {
        writeln!(out, "more with --after {next}")?;
    }
    Ok(())
}

//! `edgectl trace`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use edge_common::config::units;
use edge_common::ports::Service;
use edge_common::time::UnixTime;
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::{Global, Verdict, duration};
use crate::calendar;
use crate::ladder::{self, Told};

/// Show how a call passed the Access Edge, as one timeline over its cores and, when told, over several members.
///
/// Headlines of messages are kept in memory only while somebody asks for it: `edgectl trace --record "10 min"`, or
/// access.trace.always. They hold no bodies, no credentials and no addresses of users.
///
/// Several members: name the socket of each, brought here by `ssh -L /tmp/edge2.sock:/run/edge-access/admin.sock edge2`,
/// with --member; or run `edgectl trace CALL-ID --json` on each and put the files together with --merge.
#[derive(Debug, Args)]
pub(super) struct Trace {
    /// The Call-ID; without it, the calls that passed last are listed.
    #[arg(value_name = "CALL-ID")]
    call_id: Option<String>,
    /// Keep headlines from now on for that time, 24 h at most.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = ["call_id", "stop", "merge"])]
    record: Option<Duration>,
    /// Keep no more headlines; those that are there stay.
    #[arg(long, conflicts_with_all = ["call_id", "merge"])]
    stop: bool,
    /// Only say what --record or --stop would do.
    #[arg(long)]
    dry_run: bool,
    /// Also ask the member whose admin socket this is.
    #[arg(long, value_name = "PATH")]
    member: Vec<PathBuf>,
    /// Also take in what another member said, as a file of `--json`.
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    /// At most so many headlines of each member, from 1 to 2000.
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    limit: u64,
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON: what each member said.
    #[arg(long)]
    json: bool,
}

impl Trace {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let own = self.daemon.socket(Service::Access, || global.load())?;
        let sockets: Vec<_> = std::iter::once(&own).chain(&self.member).collect();
        if self.record.is_some() || self.stop {
            return self.change(&sockets, out);
        }
        let request = json!({ "command": "trace", "call_id": self.call_id, "limit": self.limit });
        let mut told: Vec<Told> = Vec::new();
        for socket in sockets {
            told.push(serde_json::from_value(self.daemon.ask(socket, &request)?)?);
        }
        for file in &self.merge {
            let more: Vec<Told> = serde_json::from_str(&super::read(file)?).with_context(|| {
                format!("{}: not what `edgectl trace --json` prints", file.display())
            })?;
            told.extend(more);
        }
        let found = told.iter().any(|told| !told.entries.is_empty());
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&told)?)?;
        } else if self.call_id.is_some() {
            self.picture(told, out)?;
        } else {
            list(told, out)?;
        }
        Ok(if found { Verdict::Good } else { Verdict::Bad })
    }

    fn change(&self, sockets: &[&PathBuf], out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let time = self
            .record
            .map_or_else(|| "off".to_owned(), units::duration_text);
        let request = json!({ "command": "trace.record", "for": time });
        for socket in sockets {
            if self.dry_run {
                writeln!(out, "{} would be told {request}", socket.display())?;
                continue;
            }
            let answer: Value = self.daemon.ask(socket, &request)?;
            if self.json {
                writeln!(out, "{answer}")?;
            } else {
                let member = answer["member"].as_str().unwrap_or_default();
                writeln!(
                    out,
                    "{member}: headlines are kept for {} s from now",
                    answer["seconds"]
                )?;
            }
        }
        Ok(Verdict::Good)
    }

    fn picture(&self, told: Vec<Told>, out: &mut dyn Write) -> anyhow::Result<()> {
        let call_id = self.call_id.as_deref().unwrap_or_default();
        let states: Vec<_> = told.iter().map(state).collect();
        let entries = ladder::merge(told);
        if entries.is_empty() {
            writeln!(out, "nothing is known of {call_id}")?;
        } else {
            let first = entries.first().map_or(0, |entry| entry.at_ms);
            writeln!(
                out,
                "{call_id}, {}\n",
                calendar::moment(UnixTime::from_millis(first))
            )?;
            write!(out, "{}", ladder::draw(&entries))?;
            writeln!(out)?;
        }
        for state in states {
            writeln!(out, "{state}")?;
        }
        Ok(())
    }
}

fn list(told: Vec<Told>, out: &mut dyn Write) -> anyhow::Result<()> {
    let states: Vec<_> = told.iter().map(state).collect();
    writeln!(
        out,
        "{:24} {:10} {:10} {:28} CALL-ID",
        "TIME", "MEMBER", "METHOD", "FROM"
    )?;
    for entry in ladder::merge(told).iter().rev() {
        let remote = entry
            .remote
            .map_or_else(String::new, |remote| remote.to_string());
        writeln!(
            out,
            "{:24} {:10} {:10} {remote:28} {}",
            calendar::moment(UnixTime::from_millis(entry.at_ms)),
            entry.member,
            entry.message,
            entry.call_id
        )?;
    }
    for state in states {
        writeln!(out, "{state}")?;
    }
    Ok(())
}

/// Why there may be less than what passed.
fn state(told: &Told) -> String {
    let recording = match (
        told.recording.as_str(),
        told.recording["seconds_left"].as_u64(),
    ) {
        (Some("always"), _) => "records always".to_owned(),
        (_, Some(left)) => format!("records for another {left} s"),
        (_, None) => "does not record; `edgectl trace --record \"10 min\"` begins".to_owned(),
    };
    let oldest = told.oldest_ms.map_or_else(String::new, |at| {
        format!(
            ", the oldest of {}",
            calendar::moment(UnixTime::from_millis(at))
        )
    });
    format!(
        "{} {recording}; {} of {} headlines are kept{oldest}",
        told.member, told.held, told.held_max
    )
}

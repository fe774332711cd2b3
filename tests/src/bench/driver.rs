//! The load process, as the benchmark holds it: an order in, a report out.

use super::load::{Order, Report, standin};
use crate::lab::netns::Netns;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A load process on a CPU of its own; it ends with this value.
#[derive(Debug)]
pub struct Load {
    child: Child,
    orders: ChildStdin,
    reports: Receiver<String>,
}

impl Load {
    /// Starts this very program again as `load` on host `netns`, pinned to `cpu`, with stand-ins for servers inside.
    pub fn start(netns: &Netns, cpu: usize, standins: &[standin::Plan]) -> Result<Self> {
        let mut command = netns.command("taskset");
        command
            .args(["-c", &cpu.to_string()])
            .arg(std::env::current_exe().context("cannot find this program's own file")?)
            .arg("load");
        for plan in standins {
            command.args(["--standin", &serde_json::to_string(plan)?]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start taskset (package util-linux)")?;
        let orders = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let (said, reports) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            orders,
            reports,
        })
    }

    /// Has an order carried out, within `limit`.
    pub fn order(&mut self, order: &Order, limit: Duration) -> Result<Report> {
        let line = serde_json::to_string(order)? + "\n";
        self.orders
            .write_all(line.as_bytes())
            .context("the load has ended")?;
        let report = self
            .reports
            .recv_timeout(limit)
            .with_context(|| format!("the load gave no report within {limit:?}"))?;
        let report = serde_json::from_str(&report).with_context(|| report.clone())?;
        if let Report::Failed { error } = &report {
            bail!("{error}");
        }
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

//! What each daemon did under strace is a subset of what its systemd unit allows.

use crate::lab::conference;
use crate::lab::report::{Report, Seen};
use crate::lab::strace::{self, Deeds};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use edge_deploy::{apply, systemd, systemd::AGENT};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Ends contoso's traced daemons, each after a reload, and judges their traces in `directory`.
pub fn show(world: &mut World, report: &mut Report, directory: &Path) {
    let units = match Units::render(world) {
        Ok(units) => units,
        Err(error) => {
            report.check("u", "the units allow what the daemons did", || {
                Err(error.context("not run: the units cannot be rendered"))
            });
            return;
        }
    };
    for service in Service::ALL {
        let name = service.daemon();
        let home = world.contoso.directory();
        let own = [home.join("run").join(name), home.join("state").join(name)];
        report.check("u", &title(name), || {
            // Reload and end are part of a daemon's life.
            world.contoso.daemon(service)?.signal(Signal::HUP)?;
            thread::sleep(Duration::from_secs(1));
            world.contoso.stop_one(service)?;
            units.judge(name, &own, &deeds(name, directory)?)
        });
    }
    // The conference step has reloaded and ended the agent.
    report.check("u", &title(AGENT), || {
        let own = [conference::own_directory(&world.work)];
        units.judge(AGENT, &own, &deeds(AGENT, directory)?)
    });
}

fn title(name: &str) -> String {
    format!("{name} did only what its unit allows")
}

fn deeds(name: &str, directory: &Path) -> Result<Deeds> {
    let trace = directory.join(format!("{name}.strace"));
    let trace = fs::read(&trace).with_context(|| format!("no trace {trace:?}"))?;
    Ok(strace::read(&String::from_utf8_lossy(&trace)))
}

struct Units {
    text: String,
    calls: BTreeSet<String>,
}

impl Units {
    fn render(world: &World) -> Result<Self> {
        Ok(Self {
            text: world.contoso.edgectl(&["render", "systemd"])?,
            calls: systemd::allowed_system_calls(apply::system_call_group)
                .context("cannot expand the groups of system calls")?,
        })
    }

    /// `own`: the directories that the unit gives to the program called `name`.
    fn judge(&self, name: &str, own: &[PathBuf], deeds: &Deeds) -> Result<Seen> {
        if deeds.calls.len() < 10 {
            bail!("the trace holds only {:?}", deeds.calls);
        }
        let mut calls = self.calls.clone();
        if name == Service::Webconf.daemon() {
            let confining = systemd::CONFINING_SYSTEM_CALLS.iter();
            calls.extend(confining.map(|&call| call.to_owned()));
        }
        let foreign: Vec<_> = deeds.calls.difference(&calls).collect();
        if !foreign.is_empty() {
            bail!("system calls that the unit forbids: {foreign:?}");
        }
        let unit =
            section(&self.text, name).with_context(|| format!("no unit of {name} was rendered"))?;
        files(own, unit, deeds)?;
        let families: BTreeSet<_> = values(unit, "RestrictAddressFamilies").collect();
        if let Some(family) = deeds
            .families
            .iter()
            .find(|f| !families.contains(f.as_str()))
        {
            bail!("a socket of {family}; the unit allows {families:?}");
        }
        if deeds.writable_code {
            bail!("memory that is writable and executable; the unit has MemoryDenyWriteExecute");
        }
        Ok(Seen::text(format!(
            "{} system calls, {} files read, {} written, sockets {:?}",
            deeds.calls.len(),
            deeds.read.len(),
            deeds.written.len(),
            deeds.families
        )))
    }
}

/// Writing only into its own directories; reading nothing that its unit hides.
fn files(own: &[PathBuf], unit: &str, deeds: &Deeds) -> Result<()> {
    for file in &deeds.written {
        let lawful = own
            .iter()
            .any(|directory| Path::new(file).starts_with(directory));
        if !lawful && !DEVICES.contains(&file.as_str()) {
            bail!("it wrote {file}, which is neither in {own:?} nor a device that it may use");
        }
    }
    let hidden: Vec<_> = values(unit, "InaccessiblePaths")
        .map(|path| path.trim_start_matches('-'))
        .collect();
    if let Some(file) = deeds
        .read
        .iter()
        .find(|file| hidden.contains(&file.as_str()))
    {
        bail!("it read {file}, which its unit hides");
    }
    Ok(())
}

/// The part of a rendered listing that holds the unit whose user is `name`.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("User={name}\n"))?;
    let from = text[..start].rfind("[Unit]")?;
    let rest = &text[from + 1..];
    let end = rest.find("[Unit]").unwrap_or(rest.len());
    Some(&rest[..end])
}

fn values<'a>(unit: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    unit.lines()
        .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
        .flat_map(str::split_whitespace)
}

const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/tty"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_among_others() {
        let text =
            "[Unit]\na\n[Service]\nUser=edge-access\nX=1 2\n[Unit]\n[Service]\nUser=edge-av\nX=3\n";
        let unit = section(text, "edge-access").expect("access");
        assert_eq!(values(unit, "X").collect::<Vec<_>>(), ["1", "2"]);
        let unit = section(text, "edge-av").expect("av");
        assert_eq!(values(unit, "X").collect::<Vec<_>>(), ["3"]);
    }
}

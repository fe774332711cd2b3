//! What a server's processes have used, from `/proc`.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The processes of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Processes(pub Vec<u32>);

/// Memory of a server: all its processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident memory in KiB; what two processes share counts twice.
    pub rss_kib: u64,
    /// The same with what is shared counted once.
    pub pss_kib: u64,
}

impl Processes {
    /// The process and all that descend from it.
    #[must_use]
    pub fn below(first: u32) -> Self {
        let mut found = vec![first];
        let mut at = 0;
        while let Some(&process) = found.get(at) {
            found.extend(children(process));
            at += 1;
        }
        Self(found)
    }

    /// CPU seconds used so far, in the kernel and outside; an error when one of them has ended.
    pub fn cpu(&self) -> Result<f64> {
        self.0.iter().map(|&process| cpu(process)).sum()
    }

    /// What they hold now.
    pub fn memory(&self) -> Result<Memory> {
        let mut sum = Memory::default();
        for process in &self.0 {
            let file = format!("/proc/{process}/smaps_rollup");
            let text = fs::read_to_string(&file).with_context(|| file.clone())?;
            sum.rss_kib += kib(&text, "Rss:");
            sum.pss_kib += kib(&text, "Pss:");
        }
        Ok(sum)
    }

    /// Whether all of them still run; one that has ended and waits for its parent does not.
    #[must_use]
    pub fn are_alive(&self) -> bool {
        self.0.iter().all(|process| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            fields(&stat)
                .next()
                .is_some_and(|state| !matches!(state, "Z" | "X"))
        })
    }
}

/// Kernel memory of all sockets of this machine: `None` where only the machine's own root may know.
#[must_use]
pub fn kernel_slab_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let bytes: u64 = text
        .lines()
        .skip(2)
        .filter_map(|line| {
            let mut columns = line.split_whitespace().skip(2);
            let objects: u64 = columns.next()?.parse().ok()?;
            let size: u64 = columns.next()?.parse().ok()?;
            Some(objects * size)
        })
        .sum();
    Some(bytes / 1024)
}

/// What the machine is, for the head of the results.
#[must_use]
pub fn machine() -> String {
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// The load average of the last minute: how busy the machine is with other things.
#[must_use]
pub fn load_average() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn cpu(process: u32) -> Result<f64> {
    let file = format!("/proc/{process}/stat");
    let stat =
        fs::read_to_string(&file).with_context(|| format!("{file}: the server has ended"))?;
    let ticks: f64 = fields(&stat)
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// The fields behind the name, which may itself hold blanks and brackets.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
}

fn children(process: u32) -> Vec<u32> {
    let list = read(format!("/proc/{process}/task/{process}/children"));
    list.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

fn kib(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(key)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_default()
}

fn read(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// USER_HZ, the unit of `/proc/PID/stat`, is 100 on every Linux; the kernel scales the sum to what it measured exactly.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_uses_memory() {
        let own = Processes::below(std::process::id());
        assert!(own.are_alive());
        assert!(own.cpu().expect("a number") >= 0.0);
        let memory = own.memory().expect("numbers");
        assert!(memory.rss_kib >= memory.pss_kib && memory.pss_kib > 100);
    }

    #[test]
    fn a_process_that_does_not_exist_is_not_alive() {
        let nobody = Processes(vec![u32::MAX]);
        assert!(!nobody.are_alive() && nobody.cpu().is_err());
    }
}

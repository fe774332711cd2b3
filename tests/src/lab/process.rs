//! One long-running program of the lab: its log, its readiness, its end.

use super::bounded;
use super::netns::Netns;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A program that was started and is ended by its PID when this value goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`; both of its output streams go to `work/NAME.log`.
    pub fn start(name: &str, command: &mut Command, work: &Path) -> Result<Self> {
        let log = work.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {log:?}"))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Waits until `address` (as `ss` prints it, e.g. `10.0.0.1:5061`) listens in `netns`.
    ///
    /// It asks the kernel's tables and opens no connection: the lab compares connection counters.
    pub fn wait_listening(&mut self, netns: &Netns, listeners: &[Listener<'_>]) -> Result<()> {
        for listener in listeners {
            let what = format!("{} listening on {} {}", self.name, listener.0, listener.1);
            bounded::until(&what, START_LIMIT, || {
                self.still_runs()?;
                listens(netns, *listener)
            })
            .with_context(|| self.words())?;
        }
        Ok(())
    }

    /// An error with the end of the log when the program has ended by itself.
    pub fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself: {status}: {}", self.name, self.words());
        }
        Ok(())
    }

    /// The program's process id, as seen inside the lab.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut();
        let input = input.context("its standard input is open while it runs")?;
        writeln!(input, "{line}").with_context(|| format!("{} reads nothing any more", self.name))
    }

    /// Sends one signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a child's process id is positive")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to end and waits. A daemon that drains for longer than `patience` is asked again, which
    /// means at once; one that is still there after that is killed, which is an error.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        for _ in 0..2 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            self.signal(Signal::TERM)?;
            if let Some(status) = bounded::wait(&mut self.child, patience)? {
                return Ok(status);
            }
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        bail!("{} did not end on SIGTERM, twice ({status})", self.name);
    }

    fn words(&self) -> String {
        format!(
            "last words of {}: {}",
            self.name,
            bounded::tail(self.log().trim(), 1500)
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of the lab's process namespace would take it too; this frees its ports earlier.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Transport (`tcp` or `udp`) and address of a listening socket, as `ss` prints it.
pub type Listener<'a> = (&'a str, &'a str);

fn listens(netns: &Netns, (transport, address): Listener<'_>) -> Result<bool> {
    let mut command = netns.command("ss");
    command.args(["-Hln", if transport == "udp" { "-u" } else { "-t" }]);
    let listing = bounded::run(&mut command, START_LIMIT)?
        .success("ss")?
        .text();
    Ok(listing
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        // `ss` marks a socket that is bound to an interface: 198.51.100.10%ext:443.
        .any(|local| without_interface(local) == address))
}

fn without_interface(local: &str) -> String {
    let Some((host, rest)) = local.split_once('%') else {
        return local.to_owned();
    };
    let port = rest.rsplit_once(':').map_or("", |(_, port)| port);
    format!("{host}:{port}")
}

const START_LIMIT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_in_a_listing_is_not_part_of_the_address() {
        assert_eq!(
            without_interface("198.51.100.10%ext:443"),
            "198.51.100.10:443"
        );
        assert_eq!(without_interface("10.0.0.1:5061"), "10.0.0.1:5061");
    }

    #[test]
    fn a_process_that_ends_at_once_is_reported_with_its_words() {
        let work = tempfile::tempdir().expect("directory");
        let mut command = Command::new("sh");
        command.args(["-c", "echo bad option; exit 1"]);
        let mut process = Process::start("peer", &mut command, work.path()).expect("start");
        bounded::wait(&mut process.child, Duration::from_secs(5)).expect("wait");
        let text = format!("{:#}", process.still_runs().expect_err("it ended"));
        assert!(text.contains("bad option"), "{text}");
    }
}

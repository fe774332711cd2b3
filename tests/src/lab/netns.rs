//! One network namespace: a host of the lab.
//!
//! Every veth end is created inside its namespace, so short interface names (`ext`, `int`, `eth0`)
//! repeat and nothing appears on the machine that runs the lab.

use super::bounded::{self, Finished};
use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// A named network namespace. It goes away together with the lab's mount namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    /// What programs started here see as `/etc/resolv.conf`.
    resolv: PathBuf,
    /// Files and directories that programs started here see in the place of others: hosts of one lab share its disk.
    own: Vec<(PathBuf, PathBuf)>,
}

impl Netns {
    /// Makes the namespace with a loopback interface and nothing else.
    ///
    /// `resolv` is written so that programs started here ask `nameserver` and nobody else.
    pub fn create(name: &str, nameserver: Option<&str>, work: &Path) -> Result<Self> {
        let resolv = work.join(format!("resolv.{name}"));
        let line = nameserver.map_or_else(String::new, |at| {
            format!("nameserver {at}\noptions timeout:1 attempts:2\n")
        });
        std::fs::write(&resolv, line).with_context(|| format!("cannot write {resolv:?}"))?;
        tool("ip", &["netns", "add", name])?;
        let made = Self {
            name: name.to_owned(),
            resolv,
            own: Vec::new(),
        };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// The same host, on which programs see `own` in the place of `common`. Both are there already.
    #[must_use]
    pub fn with_own(mut self, own: &Path, common: &Path) -> Self {
        self.own.push((own.to_owned(), common.to_owned()));
        self
    }

    /// The name that `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME …`; the words are split at blanks.
    pub fn ip(&self, words: &str) -> Result<()> {
        let mut args = vec!["-n", &self.name];
        args.extend(words.split_whitespace());
        tool("ip", &args).map(drop)
    }

    /// Puts a veth pair between `interface` here and `far_interface` in `far`, both up.
    pub fn link(&self, interface: &str, far: &Self, far_interface: &str) -> Result<()> {
        self.ip(&format!(
            "link add {interface} type veth peer name {far_interface} netns {}",
            far.name
        ))?;
        self.ip(&format!("link set {interface} up"))?;
        far.ip(&format!("link set {far_interface} up"))
    }

    /// Gives `interface` its addresses. IPv6 without duplicate detection, which would keep a
    /// listener from binding for the first seconds.
    pub fn addresses(&self, interface: &str, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("addr add {address} dev {interface}{nodad}"))?;
        }
        Ok(())
    }

    /// Sets one kernel parameter of this namespace, written with dots.
    pub fn sysctl(&self, assignment: &str) -> Result<()> {
        let mut command = self.bare("sysctl");
        command.args(["-qw", assignment]);
        finish(
            &mut command,
            &format!("sysctl {assignment} in {}", self.name),
        )
        .map(drop)
    }

    /// Loads a rule set written in nft's own language.
    pub fn nft(&self, script: &str) -> Result<()> {
        let mut command = self.bare("nft");
        command.args(["-f", "-"]);
        bounded::run_with_input(&mut command, script.as_bytes().to_vec(), TOOL_LIMIT)?
            .success(&format!("nft in {}: {script}", self.name))
            .map(drop)
    }

    /// `program`, to be started here with this namespace's own resolver.
    ///
    /// The process that is started becomes the program itself (two `exec`s), so its PID is the
    /// program's and signals reach it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut script = String::from("mount --bind \"$0\" /etc/resolv.conf && ");
        for _ in &self.own {
            script += "mount --bind \"$1\" \"$2\" && shift 2 && ";
        }
        let mut command = self.bare("sh");
        command
            .arg("-c")
            .arg(script + "exec \"$@\"")
            .arg(&self.resolv);
        for (own, common) in &self.own {
            command.arg(own).arg(common);
        }
        command.arg(program);
        command
    }

    /// Runs `work` on a thread that sits in this namespace. A socket stays where it was made, so
    /// what `work` opens can be used from anywhere afterwards.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new(DIRECTORY).join(&self.name);
        let handle = File::open(&path).with_context(|| format!("cannot open {path:?}"))?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("cannot enter {path:?}"))?;
                Ok(work())
            });
            inside
                .join()
                .map_err(|_| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    fn bare(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

/// Ends every named namespace. The names are the lab's own: its `/run` is private.
pub fn remove_all() -> Result<()> {
    let entries = std::fs::read_dir(DIRECTORY).with_context(|| DIRECTORY.to_owned())?;
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        tool("ip", &["netns", "del", &name])?;
    }
    Ok(())
}

/// Runs one of the system's tools to its end.
pub fn tool(program: &str, args: &[&str]) -> Result<Finished> {
    let mut command = Command::new(program);
    command.args(args);
    finish(&mut command, &format!("{program} {}", args.join(" ")))
}

fn finish(command: &mut Command, what: &str) -> Result<Finished> {
    bounded::run(command, TOOL_LIMIT)?.success(what)
}

const DIRECTORY: &str = "/run/netns";
const TOOL_LIMIT: Duration = Duration::from_secs(10);

//! The lab's own namespaces: mounts, processes and (without root) users.
//!
//! ```text
//!  edge-lab run            owns the work directory, waits
//!    └ unshare             new mount, network, process and, if not root, user namespace
//!        └ edge-lab run    process 1 of the lab: when it ends, the kernel ends everything else
//! ```
//!
//! `/run` is a private tmpfs in there, so the names of network namespaces are private too: two labs
//! may run side by side, and whatever ends the lab (its end, Ctrl-C, a panic, SIGKILL) leaves
//! neither a process nor a namespace behind.

use super::bounded;
use super::netns::tool;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The work directory of the lab that this process is the first process of, if it is one.
#[must_use]
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(WORK).map(PathBuf::from)
}

/// Runs this very program again, with the same arguments, in namespaces of its own.
///
/// Returns how it ended; the work directory is gone by then unless `keep` is set.
pub fn enter(keep: bool) -> Result<ExitStatus> {
    let flags = namespaces()?;
    let work = tempfile::Builder::new()
        .prefix(PREFIX)
        .disable_cleanup(keep)
        .tempdir()
        .context("cannot make a work directory")?;
    // The programs of the lab run under their own users where they drop privileges.
    fs::set_permissions(
        work.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let stop = interrupted()?;
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(flags)
        .arg(std::env::current_exe().context("cannot find this program's own file")?)
        .args(std::env::args_os().skip(1))
        .env(WORK, work.path())
        .env("PATH", search_path())
        .spawn()
        .context("cannot start setpriv and unshare (package util-linux)")?;
    note_first_process(work.path(), &child);
    let status = loop {
        if let Some(status) = bounded::wait(&mut child, Duration::from_millis(200))? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            // Ctrl-C reached the lab as well; a TERM to us alone did not.
            let ended = bounded::wait(&mut child, Duration::from_secs(5))?;
            child.kill().ok();
            break ended.map_or_else(|| child.wait(), Ok)?;
        }
    };
    if keep {
        eprintln_line(&format!(
            "logs and recordings stay in {}",
            work.path().display()
        ));
    }
    Ok(status)
}

/// Makes the mounts of the lab. To be called once, by its first process.
pub fn furnish() -> Result<()> {
    let resolv = fs::read_link("/etc/resolv.conf").ok();
    tool("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    fs::create_dir_all("/run/netns")?;
    // Where the machine's resolv.conf is a link into /run, programs need something to mount over.
    if let Some(target) = resolv {
        let target = Path::new("/etc").join(target);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).ok();
        }
        fs::write(&target, "").ok();
    }
    // A container may forbid a new /proc; the lab's own needs do without.
    tool("mount", &["-t", "proc", "proc", "/proc"]).ok();
    Ok(())
}

/// Ends the lab at once when the terminal says so. The kernel then ends all that it started.
pub fn end_on_signal() -> Result<()> {
    let stop = interrupted()?;
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        eprintln_line("interrupted: everything that the lab started is ended");
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(())
}

/// Runs `words` on `host` of the youngest lab that was left running.
pub fn visit(host: &str, words: &[String]) -> Result<ExitStatus> {
    let (first, world) = youngest_lab()?;
    let mut command = Command::new("nsenter");
    command.env("PATH", search_path());
    command.args(["--target", &first, "--mount", "--pid"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--preserve-credentials"]);
    }
    command
        .args(["ip", "netns", "exec", host, "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
        .arg(world.join(format!("resolv.{host}")))
        .args(words);
    command.status().context("cannot start nsenter")
}

/// Tells [`visit`] that the lab in `work` stays, and where its world is.
pub fn announce(work: &Path, world: &Path) -> Result<()> {
    fs::write(work.join(STAYING), world.as_os_str().as_encoded_bytes()).context("cannot announce")
}

fn namespaces() -> Result<Vec<&'static str>> {
    let mut flags = vec!["--mount", "--net", "--pid", "--fork", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }
    let mut probe = Command::new("unshare");
    probe
        .args(&flags)
        .args(["mount", "-t", "tmpfs", "tmpfs", "/run"]);
    let answer = bounded::run(&mut probe, Duration::from_secs(10))
        .context("cannot start unshare (package util-linux)")?;
    if !answer.status.success() {
        bail!(
            "the lab needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), or a kernel that lets a user \
             make user namespaces (sysctl user.max_user_namespaces above 0; on Debian also \
             kernel.unprivileged_userns_clone = 1): unshare said: {}",
            answer.stderr.trim()
        );
    }
    Ok(flags)
}

/// Where programs are looked for. The path of a user who is not root often leaves out what only
/// administrators run: `ip`, `nft`, `kamailio`.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

fn interrupted() -> Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime for signals")?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        seen.store(true, Ordering::Relaxed);
        // Later signals still find a handler, so none of them ends us before the lab is gone.
        runtime.block_on(std::future::pending::<()>());
    });
    Ok(flag)
}

/// Notes the process id of the lab's first process as this side sees it, for [`visit`].
fn note_first_process(work: &Path, unshare: &Child) {
    let id = unshare.id();
    let children = format!("/proc/{id}/task/{id}/children");
    let found = bounded::until("first process", Duration::from_secs(2), || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        let Some(first) = text.split_whitespace().next() else {
            return Ok(false);
        };
        fs::write(work.join(FIRST), first)?;
        Ok(true)
    });
    // Only `edge-lab enter` needs it, and that says so itself.
    found.ok();
}

/// The first process and the world's directory of the lab that was left running last.
fn youngest_lab() -> Result<(String, PathBuf)> {
    let mut labs: Vec<_> = fs::read_dir(std::env::temp_dir())?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .filter_map(|entry| {
            let staying = entry.path().join(STAYING);
            let since = fs::metadata(&staying)
                .and_then(|meta| meta.modified())
                .ok()?;
            let pid = fs::read_to_string(entry.path().join(FIRST)).ok()?;
            let world = PathBuf::from(fs::read_to_string(staying).ok()?);
            Path::new("/proc")
                .join(&pid)
                .exists()
                .then_some((since, pid, world))
        })
        .collect();
    labs.sort();
    let (_, pid, world) = labs
        .pop()
        .context("no lab stays here (edge-lab run --stay)")?;
    Ok((pid, world))
}

/// One line on standard error: progress and complaints never mix with the result on standard output.
#[expect(
    clippy::print_stderr,
    reason = "a command-line program talks to its user"
)]
pub fn eprintln_line(line: &str) {
    eprintln!("{line}");
}

const WORK: &str = "EDGE_LAB_WORK";
const PREFIX: &str = "edge-lab-";
const FIRST: &str = "first-process";
const STAYING: &str = "staying";
const EXIT_INTERRUPTED: i32 = 130;

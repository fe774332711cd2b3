//! Network namespaces for tests: whatever is loaded or bound there is gone with them.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot prepare itself has failed"
)]

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace with `lo` up and nothing else.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// `None`, told on stderr, for anybody but root: only root may make one.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: only root may make a network namespace");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgectl-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// An interface here that is a cable to an interface there; both are up.
    pub(crate) fn cable(&self, interface: &str, there: &Self, far: &str) {
        self.ip(&[
            "link",
            "add",
            interface,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "netns",
            &there.name,
        ]);
        self.ip(&["link", "set", interface, "up"]);
        there.ip(&["link", "set", far, "up"]);
    }

    /// Runs `ip` on what is here.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        ip(&all);
    }

    /// Runs a program here.
    pub(crate) fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().unwrap()
    }

    /// A program that will run here.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .arg(program.as_ref());
        command
    }

    /// Runs `body` on a thread that lives here, and so do the programs that it starts and the sockets that it
    /// opens.
    pub(crate) fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let outcome = thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                body()
            });
            inside.join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.name]);
    }
}

/// Runs `body` in a fresh namespace; for anybody but root it proves nothing.
pub(crate) fn in_namespace(body: impl FnOnce() + Send) {
    if let Some(namespace) = Namespace::new() {
        namespace.enter(body);
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

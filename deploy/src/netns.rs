//! Tests that load rules into a kernel do so in a network namespace of their own.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `body` on a thread that lives in a fresh namespace, and so do the programs it starts.
///
/// Only root may make one; for anybody else the test says so and proves nothing.
pub(crate) fn in_namespace(body: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root may make a network namespace");
        return;
    }
    let namespace = Namespace::new();
    let file = File::open(format!("/run/netns/{}", namespace.name)).unwrap();
    let outcome = thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        body();
    })
    .join();
    drop(namespace);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgectl-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        Self { name }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments:?}: {status}");
}

//! Connections that are signed in and say nothing: what each of them holds.

use super::pipe::open;
use super::sip::Users;
use super::target::Target;
use crate::bench::procfs::{Memory, Processes, kernel_slab_kib};
use anyhow::{Result, bail};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::stream::Stream;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How many, where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Its processes.
    pub server: Processes,
    /// Clients sign in as users of this domain; `None`: the handshake is all.
    pub sip_domain: Option<String>,
    /// What each connection says first, to an echo; its echo is read.
    #[serde(default)]
    pub preface: Option<String>,
    /// Connections.
    pub connections: usize,
}

/// What they hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections that stood at the end.
    pub open: usize,
    /// Those that did not come about.
    pub failed: usize,
    /// Memory of the server without any.
    pub before: Memory,
    /// And with all.
    pub after: Memory,
    /// Growth of resident memory for each, KiB.
    pub rss_kib_each: f64,
    /// Growth of proportional memory for each, KiB.
    pub pss_kib_each: f64,
    /// Growth of the kernel's own objects for each connection, both of its ends together, KiB.
    pub kernel_kib_each: Option<f64>,
}

/// Opens them, waits, and reads memory.
pub async fn run(core: &CoreContext, plan: &Plan) -> Result<Report> {
    let dialer = plan.target.dialer()?;
    let (before, kernel) = (plan.server.memory()?, kernel_slab_kib());
    let users = plan.sip_domain.as_deref().map(Users::of);
    let next = Rc::new(Cell::new(0));
    let kept: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (own, dialer, next, kept) = (
                core.clone(),
                dialer.clone(),
                Rc::clone(&next),
                Rc::clone(&kept),
            );
            let (count, users) = (plan.connections, users.clone());
            let preface = plan.preface.clone();
            core.spawn(async move {
                loop {
                    let number = next.replace(next.get() + 1);
                    if number >= count {
                        return Ok(());
                    }
                    let stream = match &users {
                        Some(users) => users.sign_in(&own, &dialer, number).await?,
                        None => open(&own, &dialer, preface.as_deref()).await?,
                    };
                    kept.borrow_mut().push(stream);
                }
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for worker in workers {
        let outcome: Result<()> = worker.await?;
        outcomes.push(outcome);
    }
    let open = kept.borrow().len();
    if let (0, Some(Err(error))) = (open, outcomes.into_iter().find(Result::is_err)) {
        return Err(error);
    }
    if open == 0 {
        bail!("not one connection");
    }
    tokio::time::sleep(SETTLE).await;
    let (after, kernel_after) = (plan.server.memory()?, kernel_slab_kib());
    for stream in kept.borrow().iter() {
        stream.abort();
    }
    let each = |before: u64, after: u64| (after as f64 - before as f64) / open as f64;
    Ok(Report {
        open,
        failed: plan.connections - open,
        before,
        after,
        rss_kib_each: each(before.rss_kib, after.rss_kib),
        pss_kib_each: each(before.pss_kib, after.pss_kib),
        kernel_kib_each: kernel
            .zip(kernel_after)
            .map(|(before, after)| each(before, after)),
    })
}

const AT_ONCE: usize = 8;
const SETTLE: Duration = Duration::from_secs(2);

//! Joins: a client connects, says what lets it in, hears the echo of it from inside, and leaves.

use super::PATIENCE;
use super::pipe::open;
use super::target::{Dialer, Target};
use crate::bench::procfs::Processes;
use anyhow::{Result, bail};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::stream::{Read, StreamError};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Joins, one after the other for each of some clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The relay, with an echo behind it.
    pub target: Target,
    /// Its processes.
    pub server: Processes,
    /// What each connection says first.
    pub preface: String,
    /// How many at a time.
    pub at_once: usize,
    /// For how long, seconds.
    pub seconds: f64,
}

/// What they cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Joins that heard the echo.
    pub joins: u64,
    /// Those that did not.
    pub failed: u64,
    /// CPU of the relay, seconds.
    pub server_cpu_s: f64,
    /// The same for each join, ms.
    pub server_cpu_ms: f64,
}

/// Measures joins.
pub async fn run(core: &CoreContext, plan: &Plan) -> Result<Report> {
    let dialer = plan.target.dialer()?;
    join(core, &dialer, &plan.preface).await?;
    let before = plan.server.cpu()?;
    let end = Instant::now() + Duration::from_secs_f64(plan.seconds);
    let counts: Rc<[Cell<u64>; 2]> = Rc::default();
    let workers: Vec<_> = (0..plan.at_once)
        .map(|_| {
            let (own, dialer, counts) = (core.clone(), dialer.clone(), Rc::clone(&counts));
            let preface = plan.preface.clone();
            core.spawn(async move {
                while Instant::now() < end {
                    let joined = join(&own, &dialer, &preface).await.is_ok();
                    let which = &counts[usize::from(!joined)];
                    which.set(which.get() + 1);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await?;
    }
    // What a join leaves behind (a new connection into the pool) belongs to it.
    tokio::time::sleep(SETTLE).await;
    let used = plan.server.cpu()? - before;
    let [joins, failed] = [counts[0].get(), counts[1].get()];
    if joins == 0 {
        bail!("not one join succeeded");
    }
    Ok(Report {
        joins,
        failed,
        server_cpu_s: used,
        server_cpu_ms: used * 1e3 / joins as f64,
    })
}

/// A whole one: both ends have closed in order.
async fn join(core: &CoreContext, dialer: &Dialer, preface: &str) -> Result<()> {
    let stream = open(core, dialer, Some(preface)).await?;
    stream.finish();
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match stream.read(<[u8]>::len).await {
                Ok(Read::Data) => {}
                Ok(Read::End) | Err(StreamError::Truncated | StreamError::Socket(_)) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    });
    Ok(ended.await??)
}

const SETTLE: Duration = Duration::from_millis(500);

//! Handshakes: what one costs, and whether a server survives many.

use super::PATIENCE;
use super::target::{Dialer, Target};
use crate::bench::procfs::Processes;
use anyhow::{Result, bail};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::stream::{Read, StreamError};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Handshakes, each ended in order, so that the server has done all of its part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Its processes.
    pub server: Processes,
    /// How many at a time.
    pub at_once: usize,
    /// For how long, seconds.
    pub seconds: f64,
}

/// What they cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Handshakes that succeeded.
    pub handshakes: u64,
    /// Those that did not.
    pub failed: u64,
    /// CPU of the server, seconds.
    pub server_cpu_s: f64,
    /// The same for each handshake, ms.
    pub server_cpu_ms: f64,
    /// Handshakes a second; the load is the slower side, as a rule.
    pub per_second: f64,
}

/// Connections that are dropped as soon as their handshake is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Churn {
    /// The listeners, by turns.
    pub targets: Vec<Target>,
    /// The processes of the server.
    pub server: Processes,
    /// How many at a time.
    pub at_once: usize,
    /// For how long, seconds.
    pub seconds: f64,
}

/// How the server took it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChurnReport {
    /// Handshakes that succeeded.
    pub handshakes: u64,
    /// Those that did not.
    pub failed: u64,
    /// After how many seconds a process of the server was gone, if one was.
    pub died_after_s: Option<f64>,
    /// Resident memory each second, KiB.
    pub rss_kib: Vec<u64>,
    /// CPU of the server, seconds; none when it died.
    pub server_cpu_s: Option<f64>,
}

impl ChurnReport {
    /// By how much memory grew from the end of the first quarter to the end, KiB; what comes earlier is warm-up.
    #[must_use]
    pub fn growth_kib(&self) -> i64 {
        let early = self.rss_kib.get(self.rss_kib.len() / 4).copied();
        let late = self.rss_kib.last().copied();
        match (early, late) {
            (Some(early), Some(late)) => late.cast_signed() - early.cast_signed(),
            (_, _) => 0,
        }
    }
}

/// Measures handshakes.
pub async fn run(core: &CoreContext, plan: &Plan) -> Result<Report> {
    let dialer = plan.target.dialer()?;
    // The first one may load something.
    whole(core, &dialer).await?;
    let before = plan.server.cpu()?;
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(plan.seconds);
    let counts = Rc::new(Counts::default());
    let workers: Vec<_> = (0..plan.at_once)
        .map(|_| {
            let (own, dialer, counts) = (core.clone(), dialer.clone(), Rc::clone(&counts));
            core.spawn(async move {
                while Instant::now() < end {
                    counts.count(whole(&own, &dialer).await.is_ok());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let used = plan.server.cpu()? - before;
    let done = counts.done.get();
    if done == 0 {
        bail!("not one handshake succeeded");
    }
    Ok(Report {
        handshakes: done,
        failed: counts.failed.get(),
        server_cpu_s: used,
        server_cpu_ms: used * 1e3 / done as f64,
        per_second: done as f64 / seconds,
    })
}

/// Drops connections for a long time and watches the server.
pub async fn churn(core: &CoreContext, plan: &Churn) -> Result<ChurnReport> {
    let dialers = plan
        .targets
        .iter()
        .map(Target::dialer)
        .collect::<Result<Vec<_>>>()?;
    let dialers: Rc<[Dialer]> = dialers.into();
    let before = plan.server.cpu()?;
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(plan.seconds);
    let counts = Rc::new(Counts::default());
    let workers: Vec<_> = (0..plan.at_once)
        .map(|first| {
            let (own, dialers, counts) = (core.clone(), Rc::clone(&dialers), Rc::clone(&counts));
            core.spawn(async move {
                let mut turn = first;
                while Instant::now() < end {
                    let dialer = &dialers[turn % dialers.len()];
                    turn += 1;
                    let done = dropped(&own, dialer).await;
                    if done.is_err() {
                        // A server that is gone refuses at once.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    counts.count(done.is_ok());
                }
            })
        })
        .collect();
    let (died_after_s, rss_kib) = watch(plan, begun, end).await;
    for worker in workers {
        if died_after_s.is_some() {
            worker.abort();
        } else {
            worker.await?;
        }
    }
    Ok(ChurnReport {
        handshakes: counts.done.get(),
        failed: counts.failed.get(),
        died_after_s,
        rss_kib,
        server_cpu_s: plan.server.cpu().ok().map(|after| after - before),
    })
}

async fn watch(plan: &Churn, begun: Instant, end: Instant) -> (Option<f64>, Vec<u64>) {
    let mut seen = Vec::new();
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match plan.server.memory() {
            Ok(memory) if plan.server.are_alive() => seen.push(memory.rss_kib),
            Ok(_) | Err(_) => return (Some(begun.elapsed().as_secs_f64()), seen),
        }
    }
    (None, seen)
}

#[derive(Default)]
struct Counts {
    done: Cell<u64>,
    failed: Cell<u64>,
}

impl Counts {
    fn count(&self, well: bool) {
        let which = if well { &self.done } else { &self.failed };
        which.set(which.get() + 1);
    }
}

/// A handshake that the server has finished too: it has read our end, and said its own.
async fn whole(core: &CoreContext, dialer: &Dialer) -> Result<()> {
    let stream = dialer.connect(core).await?;
    stream.finish();
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match stream.read(<[u8]>::len).await {
                Ok(Read::Data) => {}
                // A server may end without a word; one that minds our certificate sends an alert.
                Ok(Read::End) | Err(StreamError::Truncated | StreamError::Socket(_)) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    });
    Ok(ended.await??)
}

/// A handshake, and a reset as soon as our side is done with it.
async fn dropped(core: &CoreContext, dialer: &Dialer) -> Result<()> {
    let stream = tokio::time::timeout(PATIENCE, dialer.connect(core)).await??;
    stream.abort();
    Ok(())
}

//! Bytes through a relay to an echo behind it: throughput, and the round trip of a small piece.

use super::target::{Dialer, Target};
use super::{PATIENCE, percentile};
use crate::bench::procfs::Processes;
use anyhow::{Result, bail};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::stream::{Read, Stream};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many streams, of which pieces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The relay.
    pub target: Target,
    /// Its processes.
    pub server: Processes,
    /// What each connection says first, for a relay that looks at it; the echo sends it back as well. One is taken for
    /// each connection, and the ping takes the last: `connections` + 1, or none at all.
    #[serde(default)]
    pub prefaces: Vec<String>,
    /// Streams at once.
    pub connections: usize,
    /// Bytes of one piece: each is written by itself.
    pub chunk: usize,
    /// The most bytes of a stream that are under way at a time.
    pub window: usize,
    /// For how long, seconds.
    pub seconds: f64,
    /// Round trips of 100 bytes that are timed.
    pub pings: usize,
    /// They are timed beside the streams, which last until the last of them; else afterwards.
    #[serde(default)]
    pub beside: bool,
}

/// What it cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Bytes that the relay passed in the window, both ways together, MB.
    pub relayed_mb: f64,
    /// CPU of the relay, seconds.
    pub server_cpu_s: f64,
    /// MB for each CPU second.
    pub mb_per_cpu_s: f64,
    /// Half of the pings took, ms.
    pub ping_p50_ms: f64,
    /// 99 % of the pings took, ms.
    pub ping_p99_ms: f64,
}

/// Sends, counts what comes back, and pings.
pub async fn run(core: &CoreContext, plan: &Plan) -> Result<Report> {
    let dialer = plan.target.dialer()?;
    let shared = Rc::new(Shared::default());
    let mut tasks = Vec::new();
    let mut streams = Vec::new();
    for number in 0..plan.connections {
        let preface = plan.prefaces.get(number).map(String::as_str);
        let stream = open(core, &dialer, preface).await?;
        streams.push(stream.clone());
        tasks.push(core.spawn(echo(stream, plan.chunk, plan.window, Rc::clone(&shared))));
    }
    tokio::time::sleep(SETTLE).await;
    let before = (plan.server.cpu()?, shared.came.get());
    let beside = if plan.beside {
        ping(core, &dialer, plan).await?
    } else {
        tokio::time::sleep(Duration::from_secs_f64(plan.seconds)).await;
        Vec::new()
    };
    let after = (plan.server.cpu()?, shared.came.get());
    shared.stops.set(true);
    for stream in &streams {
        stream.abort();
    }
    for task in tasks {
        task.abort();
    }
    if after.1 == before.1 {
        bail!("nothing came back");
    }
    let pings = if plan.beside {
        beside
    } else {
        ping(core, &dialer, plan).await?
    };
    let used = after.0 - before.0;
    let relayed_mb = (after.1 - before.1) as f64 * 2.0 / 1e6;
    let millis = |share| f64::from(percentile(&pings, share)) / 1000.0;
    Ok(Report {
        relayed_mb,
        server_cpu_s: used,
        mb_per_cpu_s: relayed_mb / used.max(0.001),
        ping_p50_ms: millis(0.5),
        ping_p99_ms: millis(0.99),
    })
}

#[derive(Default)]
struct Shared {
    came: Cell<u64>,
    stops: Cell<bool>,
}

/// Connects and says the preface; what the echo makes of it is taken off.
pub(super) async fn open(
    core: &CoreContext,
    dialer: &Dialer,
    preface: Option<&str>,
) -> Result<Stream> {
    let stream = dialer.connect(core).await?;
    if let Some(preface) = preface {
        stream.queue(preface.as_bytes())?;
        take(&stream, preface.len()).await?;
    }
    Ok(stream)
}

/// Keeps `window` bytes under way until it is told to stop.
async fn echo(stream: Stream, chunk: usize, window: usize, shared: Rc<Shared>) {
    let piece = vec![0x5a; chunk];
    let mut under_way = 0;
    while !shared.stops.get() {
        while under_way + chunk <= window.max(chunk) {
            if stream.queue(&piece).is_err() {
                return;
            }
            under_way += chunk;
        }
        let mut len = 0;
        let read = stream.read(|bytes| {
            len = bytes.len();
            len
        });
        if !matches!(read.await, Ok(Read::Data)) {
            return;
        }
        under_way -= len.min(under_way);
        shared.came.set(shared.came.get() + len as u64);
    }
}

async fn ping(core: &CoreContext, dialer: &Dialer, plan: &Plan) -> Result<Vec<u32>> {
    let mut took = Vec::with_capacity(plan.pings);
    if plan.pings == 0 {
        return Ok(took);
    }
    let preface = plan.prefaces.get(plan.connections).map(String::as_str);
    let stream = open(core, dialer, preface).await?;
    for _ in 0..plan.pings {
        let begun = Instant::now();
        stream.queue(&[0x5a; PING])?;
        take(&stream, PING).await?;
        took.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    stream.close();
    took.sort_unstable();
    Ok(took)
}

/// Waits until `len` bytes have come.
async fn take(stream: &Stream, len: usize) -> Result<()> {
    let mut left = len;
    while left > 0 {
        let read = stream.read(|bytes| {
            let used = bytes.len().min(left);
            left -= used;
            used
        });
        match tokio::time::timeout(PATIENCE, read).await?? {
            Read::Data => {}
            Read::End => bail!("the relay closed"),
        }
    }
    Ok(())
}

const PING: usize = 100;
const SETTLE: Duration = Duration::from_millis(500);

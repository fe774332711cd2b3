//! Clients that send and never read: what each of them costs the relay between.

use super::PATIENCE;
use super::pipe::open;
use super::target::Target;
use crate::bench::procfs::{Memory, Processes};
use anyhow::Result;
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::stream::Stream;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many, where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The relay, with an echo behind it.
    pub target: Target,
    /// Its processes.
    pub server: Processes,
    /// What each connection says first; the echo of it is read.
    pub preface: Option<String>,
    /// Connections.
    pub connections: usize,
    /// What each of them sends then; the echo of it is not read.
    pub bytes: usize,
}

/// What they hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Memory of the relay without any.
    pub before: Memory,
    /// And with all.
    pub after: Memory,
    /// Growth of resident memory, MB of a million bytes.
    pub rss_mb: f64,
    /// Connections that had sent everything in time; the others had no room left on the way.
    pub sent_all: usize,
}

/// Opens them all, has them send, and reads memory when nothing moves any more.
pub async fn run(core: &CoreContext, plan: &Plan) -> Result<Report> {
    let dialer = plan.target.dialer()?;
    let before = plan.server.memory()?;
    let mut streams = Vec::new();
    for _ in 0..plan.connections {
        streams.push(open(core, &dialer, plan.preface.as_deref()).await?);
    }
    let senders: Vec<_> = streams
        .iter()
        .map(|stream| core.spawn(send(stream.clone(), plan.bytes)))
        .collect();
    let mut sent_all = 0;
    for sender in senders {
        sent_all += usize::from(sender.await?);
    }
    tokio::time::sleep(SETTLE).await;
    let after = plan.server.memory()?;
    streams.iter().for_each(Stream::abort);
    Ok(Report {
        before,
        after,
        rss_mb: (after.rss_kib as f64 - before.rss_kib as f64) * 1024.0 / 1e6,
        sent_all,
    })
}

/// Whether everything was taken before nothing moved any more.
async fn send(stream: Stream, bytes: usize) -> bool {
    let piece = vec![0x5a; PIECE];
    for _ in 0..bytes / PIECE {
        let room = tokio::time::timeout(PATIENCE, stream.queued_below(PIECE));
        if !matches!(room.await, Ok(Ok(()))) || stream.queue(&piece).is_err() {
            return false;
        }
    }
    true
}

const PIECE: usize = 16 * 1024;
const SETTLE: Duration = Duration::from_secs(2);

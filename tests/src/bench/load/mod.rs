//! The load: clients, and what stands behind the server.
//!
//! A load process is given the address where it stands in for the server inside, and then one [`Order`] a line; it
//! answers each with one [`Report`] a line. Everything runs in one thread, on the product's own streams: both servers
//! meet the same client. What a server used during an order is read by the load itself, at the edges of the window
//! that counts: connecting and signing in are not in it.

pub mod handshakes;
pub mod idle;
pub mod joins;
pub mod pipe;
pub mod sip;
pub mod stalled;
pub mod standin;
pub mod target;
pub mod wire;

use anyhow::{Context as _, Result};
use edge_common::net::core_runtime::CoreContext;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io::Write as _;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::LocalSet;

/// What the load shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Order {
    /// MESSAGE transactions through a SIP proxy.
    Sip(sip::Plan),
    /// Handshakes, each brought to its end.
    Handshakes(handshakes::Plan),
    /// Connect, handshake, drop, for a long time.
    Churn(handshakes::Churn),
    /// Connections that are signed in and say nothing.
    Idle(idle::Plan),
    /// Bytes through a relay and back.
    Pipe(pipe::Plan),
    /// Clients of a relay that come and go.
    Joins(joins::Plan),
    /// Clients of a relay that never read.
    Stalled(stalled::Plan),
}

/// What came of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Report {
    /// Of [`Order::Sip`].
    Sip(sip::Report),
    /// Of [`Order::Handshakes`].
    Handshakes(handshakes::Report),
    /// Of [`Order::Churn`].
    Churn(handshakes::ChurnReport),
    /// Of [`Order::Idle`].
    Idle(idle::Report),
    /// Of [`Order::Pipe`].
    Pipe(pipe::Report),
    /// Of [`Order::Joins`].
    Joins(joins::Report),
    /// Of [`Order::Stalled`].
    Stalled(stalled::Report),
    /// It could not be done.
    Failed {
        /// Why.
        error: String,
    },
}

/// Carries out one order.
pub async fn carry_out(core: &CoreContext, order: Order) -> Report {
    let done = match order {
        Order::Sip(plan) => sip::run(core, &plan).await.map(Report::Sip),
        Order::Handshakes(plan) => handshakes::run(core, &plan).await.map(Report::Handshakes),
        Order::Churn(plan) => handshakes::churn(core, &plan).await.map(Report::Churn),
        Order::Idle(plan) => idle::run(core, &plan).await.map(Report::Idle),
        Order::Pipe(plan) => pipe::run(core, &plan).await.map(Report::Pipe),
        Order::Joins(plan) => joins::run(core, &plan).await.map(Report::Joins),
        Order::Stalled(plan) => stalled::run(core, &plan).await.map(Report::Stalled),
    };
    done.unwrap_or_else(|error| Report::Failed {
        error: format!("{error:#}"),
    })
}

/// The whole life of a load process: orders on standard input, reports on standard output, until the input ends.
pub fn serve(standins: Vec<standin::Plan>) -> Result<()> {
    on_one_thread(|core| async move {
        for plan in &standins {
            standin::start(&core, plan).await?;
        }
        let mut orders = lines_of_input();
        while let Some(line) = orders.recv().await {
            let order = serde_json::from_str(&line).with_context(|| line.clone())?;
            let report = carry_out(&core, order).await;
            let mut out = std::io::stdout();
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
            out.flush()?;
        }
        Ok(())
    })
}

/// Standard input, read by a thread of its own: the load's thread goes on meanwhile.
fn lines_of_input() -> UnboundedReceiver<String> {
    let (said, heard) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    heard
}

/// Runs `main` with a core of its own on this thread.
pub fn on_one_thread<F, Fut>(main: F) -> Result<()>
where
    F: FnOnce(CoreContext) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async { main(CoreContext::alone()).await })
}

/// The value below which that share of `sorted` lies; 0 of nothing.
#[must_use]
pub fn percentile(sorted: &[u32], share: f64) -> u32 {
    let at = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Whatever a single far end has to do, it does within this time.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        assert_eq!(percentile(&[], 0.5), 0);
        assert_eq!(percentile(&[1, 2, 3], 0.5), 2);
        assert_eq!(percentile(&[1, 2, 3], 1.0), 3);
    }
}

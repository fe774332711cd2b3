//! Bounded mailboxes between cores: what arrives on one core for a connection of another.
//!
//! ```text
//!   core 0  outbox ──┬────────────► inbox  core 1
//!                    └──► inbox  core 0        (a core may write to itself; it costs the same)
//! ```
//!
//! A full mailbox refuses and gives the message back. The sender decides what that means (an answer 503, a dropped
//! packet); nobody waits for another core.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::observe::metrics::Metrics;

/// One set for each core, in the order of their numbers: every core can write to every core.
#[must_use]
pub fn mesh<T: Send>(cores: usize, capacity: usize) -> Vec<Mailboxes<T>> {
    let (boxes, inboxes): (Vec<_>, Vec<_>) = (0..cores).map(|_| mailbox(capacity)).unzip();
    let outbox = Outbox(boxes.into());
    inboxes
        .into_iter()
        .map(|inbox| Mailboxes {
            inbox,
            outbox: outbox.clone(),
        })
        .collect()
}

/// What one core holds of a [`mesh`].
#[derive(Debug)]
pub struct Mailboxes<T> {
    /// What the other cores write to this one.
    pub inbox: Inbox<T>,
    /// The way to all cores.
    pub outbox: Outbox<T>,
}

/// The receiving end; it stays on its core.
#[derive(Debug)]
pub struct Inbox<T>(mpsc::Receiver<T>);

impl<T> Inbox<T> {
    /// Waits for the next message; `None` when every [`Outbox`] is gone. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    /// Waits for messages and moves up to `limit` of them to the end of `batch`: one wake-up for what came together.
    /// Gives how many; 0 when every [`Outbox`] is gone.
    pub async fn recv_batch(&mut self, batch: &mut Vec<T>, limit: usize) -> usize {
        self.0.recv_many(batch, limit).await
    }

    /// The next message if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// The sending end, to all cores; cheap to clone, and free to move between threads.
#[derive(Debug)]
pub struct Outbox<T>(Arc<[Mailbox<T>]>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Outbox<T> {
    /// Puts a message into the mailbox of `core`, or gives it back: the mailbox is full, the core has ended, or there
    /// is no such core. All three are counted as refused.
    pub fn send(&self, core: usize, message: T) -> Result<(), Full<T>> {
        let Some(to) = self.0.get(core) else {
            return Err(Full(message));
        };
        match to.sender.try_send(message) {
            Ok(()) => {
                to.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(
                mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back),
            ) => {
                to.refused.fetch_add(1, Ordering::Relaxed);
                Err(Full(back))
            }
        }
    }

    /// How many cores the mesh has.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.0.len()
    }

    /// Figures of the mailbox of `core` for the metrics; `None` if there is no such core.
    #[must_use]
    pub fn figures(&self, core: usize) -> Option<Figures> {
        let to = self.0.get(core)?;
        Some(Figures {
            depth: to.sender.max_capacity() - to.sender.capacity(),
            capacity: to.sender.max_capacity(),
            sent: to.sent.load(Ordering::Relaxed),
            refused: to.refused.load(Ordering::Relaxed),
        })
    }
}

impl<T: Send + 'static> Outbox<T> {
    /// Shows depth and refusals of every mailbox of the mesh as `mailbox_messages`, `mailbox_sent` and `mailbox_refused`.
    pub fn show_in(&self, metrics: &Metrics) {
        let depth = metrics.gauges(
            "mailbox_messages",
            "Messages that wait for a core",
            ["core"],
        );
        let sent = metrics.counters("mailbox_sent", "Messages put into mailboxes", ["core"]);
        let refused = metrics.counters(
            "mailbox_refused",
            "Messages that found a mailbox full",
            ["core"],
        );
        for core in 0..self.cores() {
            let name = core.to_string();
            let read = || {
                let outbox = self.clone();
                move || outbox.figures(core)
            };
            let figures = read();
            depth.watch([&name], move || figures().map_or(0, |f| f.depth as i64));
            let figures = read();
            sent.watch([&name], move || figures().map_or(0, |f| f.sent));
            let figures = read();
            refused.watch([&name], move || figures().map_or(0, |f| f.refused));
        }
    }
}

/// What the metrics say about one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Messages that wait now.
    pub depth: usize,
    /// The most that may wait.
    pub capacity: usize,
    /// Messages taken in since the start.
    pub sent: u64,
    /// Messages given back since the start.
    pub refused: u64,
}

/// The mailbox took no more; here is the message.
#[derive(PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mailbox of the core is full")
    }
}

impl<T> std::error::Error for Full<T> {}

#[derive(Debug)]
struct Mailbox<T> {
    sender: mpsc::Sender<T>,
    sent: AtomicU64,
    refused: AtomicU64,
}

fn mailbox<T>(capacity: usize) -> (Mailbox<T>, Inbox<T>) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let slot = Mailbox {
        sender,
        sent: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    };
    (slot, Inbox(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::core_runtime::Cores;

    #[test]
    fn a_full_mailbox_gives_the_message_back_and_counts() {
        let mut mesh = mesh::<u32>(1, 2);
        let Mailboxes { mut inbox, outbox } = mesh.remove(0);
        assert_eq!(outbox.send(0, 1), Ok(()));
        assert_eq!(outbox.send(0, 2), Ok(()));
        assert_eq!(outbox.send(0, 3), Err(Full(3)));
        let figures = outbox.figures(0).expect("core 0");
        assert_eq!((figures.depth, figures.sent, figures.refused), (2, 2, 1));
        let metrics = Metrics::new("test");
        outbox.show_in(&metrics);
        let text = metrics.text();
        assert!(
            text.contains("edge_test_mailbox_messages{core=\"0\"} 2"),
            "{text}"
        );
        assert!(text.contains("edge_test_mailbox_refused_total{core=\"0\"} 1"));
        assert_eq!(inbox.try_recv(), Some(1));
        assert_eq!(outbox.send(0, 4), Ok(()));
        assert_eq!((inbox.try_recv(), inbox.try_recv()), (Some(2), Some(4)));
    }

    #[test]
    fn a_core_that_ended_or_never_was_refuses() {
        let mut mesh = mesh::<u32>(2, 2);
        let gone = mesh.remove(1);
        drop(gone.inbox);
        assert_eq!(gone.outbox.send(1, 7), Err(Full(7)));
        assert_eq!(gone.outbox.send(9, 8), Err(Full(8)));
    }

    #[test]
    fn two_core_threads_talk_both_ways() {
        const ROUNDS: u32 = 10_000;
        let (result, results) = std::sync::mpsc::channel();
        let seeds = mesh::<u32>(2, 8)
            .into_iter()
            .map(|boxes| (boxes, result.clone()))
            .collect();
        let cores = Cores::start_with(
            "mailbox-test",
            seeds,
            |core, (mut boxes, result)| async move {
                let other = 1 - core.index();
                if core.index() == 0 {
                    boxes.outbox.send(other, 0).expect("empty mailbox");
                }
                let mut last = 0;
                while last < ROUNDS {
                    last = boxes.inbox.recv().await.expect("the other core lives");
                    if boxes.outbox.send(other, last + 1).is_err() {
                        break;
                    }
                }
                result
                    .send((core.index(), last, std::thread::current().id()))
                    .expect("the test waits");
            },
        )
        .expect("threads start");
        let seen: Vec<_> = results.iter().take(2).collect();
        cores.join().expect("no core panicked");
        assert!(
            seen.iter().all(|(_, last, _)| *last >= ROUNDS - 1),
            "{seen:?}"
        );
        assert_ne!(seen[0].2, seen[1].2, "one thread for each core");
    }
}

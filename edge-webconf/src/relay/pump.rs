//! Moves the bytes of one relayed connection, both ways, until both have ended.
//!
//! ```text
//!   left ─ read ─► right.queue ─ empty again? ─► read …      one direction
//!   left ◄─ … ──── right                                     the other
//! ```
//!
//! A direction reads on only when what it read before has left, so a far end that takes nothing
//! stops its direction at one buffer. The end of one direction is passed on and leaves the other
//! open. How long a turn may be and when an idle connection holds no buffer is the stream's part.

use std::cell::Cell;

use edge_common::net::stream::{QueueError, Read, Stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::RelayLimits;

/// One relayed connection.
#[derive(Debug)]
pub struct Pump<'a, C> {
    left: &'a Stream,
    right: &'a Stream,
    limits: RelayLimits,
    /// Told about bytes as they move.
    count: C,
    moved: Cell<Moved>,
    last_move: Cell<Instant>,
    one_ended: Cell<bool>,
    end_seen: Notify,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From left to right.
    Rightward,
    /// From right to left.
    Leftward,
}

/// Bytes that were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From left to right.
    pub rightward: u64,
    /// From right to left.
    pub leftward: u64,
}

/// Where the streams stand when the relay begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// So many bytes of the left were looked at, are shown again, and are no part of the stream.
    pub left_skip: usize,
    /// The same of the right.
    pub right_skip: usize,
    /// The left has sent all that it ever will.
    pub left_ended: bool,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PumpEnd {
    /// Both directions were closed properly.
    Finished,
    /// Nothing moved for too long.
    Idle,
    /// The left connection broke.
    LeftFailed,
    /// The right connection broke.
    RightFailed,
}

impl<'a, C: Fn(Way, u64)> Pump<'a, C> {
    /// A relay between two streams that have nothing queued that is not theirs.
    pub fn new(left: &'a Stream, right: &'a Stream, limits: RelayLimits, count: C) -> Self {
        Self {
            left,
            right,
            limits,
            count,
            moved: Cell::default(),
            last_move: Cell::new(Instant::now()),
            one_ended: Cell::new(false),
            end_seen: Notify::new(),
        }
    }

    /// Counts bytes that went before the relay began.
    pub fn moved_before(&self, way: Way, bytes: usize) {
        self.note(way, bytes);
    }

    /// What was moved up to now.
    pub fn moved(&self) -> Moved {
        self.moved.get()
    }

    /// Relays until the end.
    pub async fn run(&self, start: Start) -> PumpEnd {
        let end = tokio::select! {
            biased;
            end = self.both(start) => end,
            () = self.silence() => PumpEnd::Idle,
        };
        if end != PumpEnd::Finished {
            // The other end must not take what it has for all there is.
            self.left.abort();
            self.right.abort();
        }
        end
    }

    async fn both(&self, start: Start) -> PumpEnd {
        let rightward = self.direction(Way::Rightward, start.left_skip, start.left_ended);
        let leftward = self.direction(Way::Leftward, start.right_skip, false);
        match tokio::try_join!(rightward, leftward) {
            Ok(((), ())) => PumpEnd::Finished,
            Err(end) => end,
        }
    }

    async fn direction(&self, way: Way, skip: usize, ended: bool) -> Result<(), PumpEnd> {
        let (from, to, from_failed, to_failed) = match way {
            Way::Rightward => (
                self.left,
                self.right,
                PumpEnd::LeftFailed,
                PumpEnd::RightFailed,
            ),
            Way::Leftward => (
                self.right,
                self.left,
                PumpEnd::RightFailed,
                PumpEnd::LeftFailed,
            ),
        };
        let (mut skip, mut ended) = (skip, ended);
        while !ended {
            to.queued_below(0).await.map_err(|_| to_failed)?;
            let mut queued: Result<usize, QueueError> = Ok(0);
            let read = from.read(|bytes| {
                let stream = bytes.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(bytes.len());
                queued = to.queue(stream).map(|()| stream.len());
                bytes.len()
            });
            ended = read.await.map_err(|_| from_failed)? == Read::End;
            self.note(way, queued.map_err(|_| to_failed)?);
        }
        to.finish();
        self.one_ended.set(true);
        self.end_seen.notify_one();
        to.finished().await.map_err(|_| to_failed)
    }

    fn note(&self, way: Way, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let (bytes, mut moved) = (bytes as u64, self.moved.get());
        match way {
            Way::Rightward => moved.rightward += bytes,
            Way::Leftward => moved.leftward += bytes,
        }
        self.moved.set(moved);
        self.last_move.set(Instant::now());
        (self.count)(way, bytes);
    }

    /// Ends when nothing has moved for as long as the state of the connection allows.
    async fn silence(&self) {
        loop {
            let allowed = if self.one_ended.get() {
                self.limits.half_close_timeout
            } else {
                self.limits.idle_timeout
            };
            let due = self.last_move.get() + allowed;
            if due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.end_seen.notified() => self.last_move.set(Instant::now()),
            }
        }
    }
}

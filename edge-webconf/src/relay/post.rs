//! Where a connection's task finds what it is told.

use std::cell::RefCell;

use edge_common::net::stream::Stream;
use tokio::sync::Notify;

use super::Lease;

/// One order.
#[derive(Debug)]
pub enum Order {
    /// Close the connection.
    Close,
    /// Count it once more in the rate of its source, when it is closed.
    Charge,
    /// Hand it over to a client: for a data connection.
    Lease(Lease),
    /// Here is your data connection: for a client.
    Handover(Stream, Lease),
    /// Start relaying.
    Relay,
    /// Show the broker the next bytes.
    Read,
}

/// The orders of one connection. There is at most one of each kind at a time, so it needs no queue.
#[derive(Debug, Default)]
pub struct Post {
    waiting: RefCell<Waiting>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    close: bool,
    charge: bool,
    lease: Option<Lease>,
    handover: Option<(Stream, Lease)>,
    relay: bool,
    read: bool,
}

impl Post {
    /// Leaves an order. One that is there already is replaced.
    pub fn put(&self, order: Order) {
        let mut waiting = self.waiting.borrow_mut();
        match order {
            Order::Close => waiting.close = true,
            Order::Charge => waiting.charge = true,
            Order::Lease(lease) => waiting.lease = Some(lease),
            Order::Handover(stream, lease) => waiting.handover = Some((stream, lease)),
            Order::Relay => waiting.relay = true,
            Order::Read => waiting.read = true,
        }
        drop(waiting);
        self.arrival.notify_one();
    }

    /// Waits for an order; a close comes before all others. Cancelling it loses nothing.
    pub async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.take() {
                return order;
            }
            self.arrival.notified().await;
        }
    }

    /// Whether it counts once more in the rate of its source.
    pub fn is_charged(&self) -> bool {
        self.waiting.borrow().charge
    }

    /// Waits for the order to close, and leaves others where they are.
    pub async fn closed(&self) {
        while !self.waiting.borrow().close {
            self.arrival.notified().await;
        }
    }

    fn take(&self) -> Option<Order> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.close {
            return Some(Order::Close);
        }
        if let Some(lease) = waiting.lease.take() {
            return Some(Order::Lease(lease));
        }
        if let Some((stream, lease)) = waiting.handover.take() {
            return Some(Order::Handover(stream, lease));
        }
        if std::mem::take(&mut waiting.relay) {
            return Some(Order::Relay);
        }
        std::mem::take(&mut waiting.read).then_some(Order::Read)
    }
}

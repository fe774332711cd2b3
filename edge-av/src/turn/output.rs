//! What the server wants done, and what it wants known.

use std::net::SocketAddr;
use std::time::Duration;

use super::allocation::Traffic;
use super::drop_reason::Reason;
use super::five_tuple::FiveTuple;
use super::refusal::Refusal;
use super::relayed::Relayed;
use crate::stun::message::Method;

/// What the server wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this message to a client.
    Transmit {
        /// Which client.
        to: FiveTuple,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Open a relayed socket, and say what came of it before the next input: [`super::Server::handle_opened`].
    Open {
        /// The allocation that waits for it.
        relayed: Relayed,
        /// The address to bind.
        local: SocketAddr,
    },
    /// Close a relayed socket, and say so before the next input: [`super::Server::handle_closed`].
    Close {
        /// The allocation that it belonged to.
        relayed: Relayed,
    },
    /// Something that counters and logs want to know.
    Event(Event),
}

/// A fact for counters and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request was granted.
    Answered(Method),
    /// A request was refused.
    Refused(Method, Refusal),
    /// A datagram was neither answered nor relayed.
    Dropped(Reason),
    /// An allocation is in use.
    Opened {
        /// Whose it is.
        client: FiveTuple,
        /// What its peers see.
        relayed: SocketAddr,
    },
    /// An allocation has ended.
    Closed {
        /// Whose it was.
        client: FiveTuple,
        /// What its peers saw.
        relayed: SocketAddr,
        /// Why it ended.
        why: Closed,
        /// How long it was there.
        lasted: Duration,
        /// What it relayed.
        traffic: Traffic,
    },
}

/// Why an allocation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// It was not refreshed in time.
    Expired,
    /// The client asked for it.
    Released,
    /// The client's connection ended.
    Disconnected,
    /// No relayed socket could be opened.
    NotOpened,
}

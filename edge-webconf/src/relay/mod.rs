//! The shell around the broker: the sockets of the Web Conferencing Edge.
//!
//! ```text
//!   core 0                                     core 1
//!   driver (the broker) ◄──── Input ────────── shell ◄─► outside, inside tasks
//!      │      └──────────── Command ─────────►   │
//!      └─ Command ─► shell ◄─► tasks             │
//!                      ▲                         │
//!                      └── Handover of a parked data connection to the client's core ──┘
//! ```
//!
//! A connection stays on the core that accepted it, with one exception: a parked data connection
//! is leased to a client of another core when that core has none of its own. It moves as a whole,
//! socket and TLS state, before its first byte of stream; so every relay runs on one core.

pub mod driver;
pub mod inside;
pub mod outside;
pub mod post;
pub mod pump;
pub mod shell;

use std::time::Duration;

use edge_common::net::stream::{Detached, PLAIN_PER_READ_MAX, StreamOptions};

use crate::admin::Ask;
use crate::ewrp::Status;
use crate::session::{Arrival, ClientId, ConnId, ControlId, DataId, Peer, RelayEnd, Trust};

/// What connections tell the broker.
#[derive(Debug)]
pub enum Input {
    /// A client finished its TLS handshake.
    Client(ClientId, Arrival),
    /// Its next bytes.
    ClientData(ClientId, Vec<u8>),
    /// It sends nothing more.
    ClientEnd(ClientId),
    /// It is gone.
    ClientLost(ClientId),
    /// An agent opened a control connection.
    Control(ControlId, Peer),
    /// Its next bytes.
    ControlData(ControlId, Vec<u8>),
    /// It is gone.
    ControlClosed(ControlId),
    /// An agent opened a data connection.
    Data(DataId, Peer),
    /// Its next bytes.
    DataBytes(DataId, Vec<u8>),
    /// It is gone.
    DataClosed(DataId),
    /// The leased data connection was gone before a byte was sent.
    LeaseFailed(ClientId),
    /// The agent's answer to the OPEN of a client.
    OpenAck(ClientId, Status),
    /// A relay is over.
    RelayEnded(ClientId, RelayEnd),
    /// Who is believed was read anew.
    Trust(Box<Trust>),
    /// The edge is about to stop.
    Drain(Duration),
    /// An operator asks.
    Ask(Ask),
}

/// What the broker, or another core, tells the shell of a core.
#[derive(Debug)]
pub enum Command {
    /// Show the broker the next bytes.
    Read(ConnId),
    /// Count this client once more in the rate of its source.
    Charge(ClientId),
    /// Send to an agent.
    Transmit(ControlId, Vec<u8>),
    /// Send what is queued, then close.
    Close(ConnId),
    /// Hand this data connection over to the client.
    Lease(DataId, Lease),
    /// The data connection of a client of this core.
    Handover(Detached, Lease),
    /// Start relaying.
    Relay(ClientId),
}

/// For whom a data connection is, and what goes over it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The client.
    pub client: ClientId,
    /// The OPEN without its preread bytes.
    pub open: Vec<u8>,
    /// So many of the client's first bytes are a preface, and no part of the stream.
    pub skip: usize,
    /// How many bytes of the client behind these it announces.
    pub preread_len: usize,
}

/// Bounds of one relayed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Bytes read at once for each direction; nothing more is read until they are written.
    pub buffer: usize,
    /// Silence on both directions.
    pub idle_timeout: Duration,
    /// Silence after one direction has ended.
    pub half_close_timeout: Duration,
}

impl RelayLimits {
    /// The bounds of a stream that is relayed with these limits.
    #[must_use]
    pub const fn stream_options(self) -> StreamOptions {
        StreamOptions {
            // A read is queued only on an empty queue; the first bytes of a client come on top.
            queue_max: self.buffer + 2 * PLAIN_PER_READ_MAX,
            pending_max: 2 * PLAIN_PER_READ_MAX,
            read_max: self.buffer,
        }
    }
}

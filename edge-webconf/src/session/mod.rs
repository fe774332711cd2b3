//! Who may pass: the decide step of the Web Conferencing Edge.
//!
//! ```text
//!   client   ──► PREREAD ─ number ─► MATCHED ─► LEASE ─► OPEN_SENT ─► RELAY ──► gone
//!                   │  scan.rs         │ admission.rs  │ pool.rs
//!   control  ──► HELLO ─► REGISTER, ADMIT …            │
//!   data     ──► hello ─► parked ──────────────────────┘
//! ```
//!
//! One [`Broker`] decides for the whole process, whichever core a connection lives on: an admitted
//! number is used up in one place. It sees the few bytes in front of each stream, never the stream.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod admission;
mod agent;
mod agents;
mod broker;
mod client;
mod clients;
mod data;
pub mod operator;
mod pool;
mod sequence;
mod timers;
mod tokens;

#[cfg(test)]
mod simulation;

use std::net::SocketAddr;
use std::time::Duration;

use edge_common::host_name::{HostName, NamePattern};
use edge_common::join_token::{TokenError, VerifyingKeys};

use crate::ewrp::data::PREREAD_LEN_MAX;
use crate::ewrp::{Number, Status};
use crate::scan::Encoding;

pub use broker::Broker;

/// Names one connection of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The core that accepted it. A lease prefers a data connection of the client's own core.
    pub core: u16,
    /// Never used twice on one core.
    pub serial: u64,
}

/// The connection of a client outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub ConnId);

/// The control connection of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlId(pub ConnId);

/// A data connection of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataId(pub ConnId);

/// What the broker goes by; the rest is constants of EWRP/1.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names this edge to the agents.
    pub edge_id: [u8; 16],
    /// Who is believed.
    pub trust: Trust,
    /// Whether the first bytes of a client are searched for an admitted number.
    pub scan: bool,
    /// Clients at once, relayed ones included.
    pub clients: usize,
    /// Bytes searched for a number.
    pub preread: usize,
    /// Time for them to come.
    pub preread_timeout: Duration,
    /// Time to wait for a parked data connection.
    pub lease_timeout: Duration,
    /// Clients that wait for one.
    pub lease_queue: usize,
    /// Numbers admitted at once.
    pub admitted: usize,
    /// Used tokens remembered at once, and as many revoked ones.
    pub tokens: usize,
    /// The longest time that a token may be good for.
    pub token_lifetime: Duration,
    /// Data connections kept parked for each agent.
    pub pool_min: u16,
    /// And parked at most.
    pub pool_max: u16,
}

impl Settings {
    /// How many bytes of a client are searched, and at most announced in its OPEN.
    #[must_use]
    pub fn preread_limit(&self) -> usize {
        self.preread.min(PREREAD_LEN_MAX as usize)
    }
}

/// Who is believed; a reload may change it at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whose certificates may hold a session.
    pub agents: Vec<NamePattern>,
    /// Those of them that may register conferences.
    pub conference_agents: Vec<NamePattern>,
    /// Whose tokens let a client in.
    pub token_keys: VerifyingKeys,
}

/// What TLS told about the far end of a connection to the agent port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Every DNS name of the certificate, sorted.
    pub names: Vec<HostName>,
    /// Where it comes from; for logs only.
    pub address: SocketAddr,
}

/// A client that has finished its TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where it comes from.
    pub address: SocketAddr,
    /// The server name that it asked for, or nothing.
    pub sni: Box<str>,
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Show the broker what comes next on this connection. Without it the shell does not read, so
    /// at most one arrival of a connection waits for the broker.
    Read(ConnId),
    /// Send to the agent.
    Transmit {
        /// On its control connection.
        to: ControlId,
        /// Whole frames.
        bytes: Vec<u8>,
    },
    /// The client has shown nothing that lets it in: count it once more in the rate of its source.
    Charge(ClientId),
    /// Send what was queued, then close. Every refused client gets this and nothing else.
    Close(ConnId),
    /// Join the two connections: send `open`, behind it what the client has sent so far, and tell
    /// the broker the agent's answer.
    Lease {
        /// The client; its core gets the data connection.
        client: ClientId,
        /// Parked until now.
        data: DataId,
        /// An OPEN without its preread bytes.
        open: Vec<u8>,
        /// So many of the client's first bytes are a preface, and no part of the stream.
        skip: usize,
        /// How many bytes behind these it announces; what came behind them is stream.
        preread_len: usize,
    },
    /// The agent took the client: relay until both directions ended.
    Relay(ClientId),
    /// For logs and counters.
    Event(Event),
}

/// What happened, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A control connection became a session.
    AgentUp {
        /// The name of its HELLO.
        agent: HostName,
        /// Where it is.
        address: SocketAddr,
    },
    /// The session is over.
    AgentDown {
        /// The name of its HELLO.
        agent: HostName,
        /// Why.
        status: Status,
    },
    /// A session gave way to a newer one of the same agent id that comes from elsewhere: two agents may have one
    /// instance, and end each other's sessions in turn.
    AgentMoved {
        /// The name of its HELLO.
        agent: HostName,
        /// Where the older session is.
        from: SocketAddr,
        /// Where the newer one is.
        to: SocketAddr,
    },
    /// A revoked token could not be remembered: as many are as may be.
    RevocationLost,
    /// A control or data connection did not become anything.
    AgentRefused {
        /// Where it came from.
        address: SocketAddr,
        /// Why.
        status: Status,
        /// What was wrong, in words.
        detail: String,
    },
    /// The agent registered something, or was not allowed to.
    Registered {
        /// The name of its HELLO.
        agent: HostName,
        /// What it registered.
        name: Box<str>,
        /// [`Status::Ok`] or why not.
        status: Status,
    },
    /// The agent admitted a number, or was not allowed to.
    Admitted {
        /// The name of its HELLO.
        agent: HostName,
        /// The number.
        number: Number,
        /// [`Status::Ok`] or why not.
        status: Status,
    },
    /// An agent could not dial.
    DialFailed {
        /// The name of its HELLO.
        agent: HostName,
        /// How many.
        count: u16,
        /// Why.
        status: Status,
    },
    /// A client goes away before anything was relayed.
    Refused {
        /// Where it came from.
        client: SocketAddr,
        /// Why; the client is not told.
        status: Status,
    },
    /// A client showed what lets it in.
    Matched(Shown),
    /// A client began with a preface whose token lets nobody in.
    TokenRefused(TokenError),
    /// An agent took the client.
    Opened {
        /// From the match to the agent's answer.
        waited: Duration,
    },
    /// A relayed connection ended.
    Closed(Record),
    /// Every relay has ended or was cut; the process may go.
    Drained,
}

/// What let a client in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// An admitted number, written so.
    Number(Encoding),
    /// A token.
    Token,
}

impl Shown {
    /// The value of the `encoding` label of the counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Number(encoding) => encoding.label(),
            Self::Token => "token",
        }
    }
}

/// The account of one relayed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Unique at this edge; the agent logs it too.
    pub dial_id: u64,
    /// What the client showed; printed as a hash.
    pub number: Number,
    /// Where it came from.
    pub client: SocketAddr,
    /// Who served it.
    pub agent: HostName,
    /// Under which registration.
    pub registration: Box<str>,
    /// From the client to the server.
    pub bytes_in: u64,
    /// From the server to the client.
    pub bytes_out: u64,
    /// From the agent's answer to the end.
    pub lasted: Duration,
    /// How it ended.
    pub status: Status,
}

/// How a relay ended, as the shell saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayEnd {
    /// From the client to the server.
    pub bytes_in: u64,
    /// From the server to the client.
    pub bytes_out: u64,
    /// [`Status::Ok`] when both ends finished.
    pub status: Status,
}

/// Sizes of the tables, for gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Sessions of agents.
    pub sessions: usize,
    /// Of these, sessions that take new clients.
    pub serving: usize,
    /// Parked data connections.
    pub parked: usize,
    /// Clients that wait for one.
    pub waiting: usize,
    /// Clients that have not shown a number yet.
    pub prereading: usize,
    /// Relayed connections.
    pub relays: usize,
    /// Admitted numbers, used ones included until their time is over.
    pub admitted: usize,
    /// Used tokens that are remembered.
    pub tokens: usize,
}

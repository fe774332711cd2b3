//! A simulated world: the cores of the daemons, other parties, links that delay, lose and reorder,
//! and a clock that is moved.
//!
//! - [`link`]: the faults of one path
//! - [`world`]: nodes, packets under way, time
//! - [`conference`]: the broker's core with an agent and clients, over streams that arrive in pieces
//! - [`sip`]: the proxy's core with phones and a Director, over streams that arrive in pieces
//! - [`turn`]: the relay's core, a client that follows RFC 8489's timers, a peer that echoes

pub mod conference;
pub mod link;
pub mod sip;
pub mod turn;
pub mod world;

//! The A/V Edge: STUN and TURN for media on both sides of the host, and the A/V authentication service (MRAS).
//!
//! Pure modules:
//! - [`stun`]: messages on the wire, their proofs, what a datagram is, the framing over TCP;
//! - [`turn`]: the server of one core, from a request to what is to be done, and the way of a media packet;
//! - [`credentials`]: what the server asks about a user name;
//! - [`mras`]: the A/V authentication service.

//!
//! Modules that touch the world:
//! - [`daemon`]: what runs, reloads and drains;
//! - [`parts`]: what the configuration comes to;
//! - [`cores`]: from there to sockets and running cores;
//! - [`relay`]: sockets, batches and cores around the server;
//! - [`mras_listener`]: SIP over mutual TLS around the service;
//! - [`observe`]: counters and logs.

#[cfg(feature = "io")]
pub mod cores;
pub mod credentials;
#[cfg(feature = "io")]
pub mod daemon;
pub mod mras;
#[cfg(feature = "io")]
pub mod mras_listener;
#[cfg(feature = "io")]
pub mod observe;
#[cfg(feature = "io")]
pub mod parts;
#[cfg(feature = "io")]
pub mod relay;
pub mod stun;
pub mod turn;

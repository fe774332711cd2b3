//! The A/V Edge: STUN and TURN for media on both sides of the host, and the A/V authentication service (MRAS).
//!
//! ```text
//!   clients, UDP 3478 and TCP 443, both sides          peers, UDP 50000-59999, external side only
//!        │                                                  │
//!        ▼                                                  ▼
//!   stun::demux ─► turn::route ──────── media ────────► relayed socket of the allocation
//!   stun::frame        │  └─ hairpin: another allocation of this core, or by relay::crossing of the other
//!                      └─ control ─► turn::method ─► answer
//!
//!   servers inside, SIP over mutual TLS 5062 ─► mras::service ─► credentials that turn::authority knows again
//! ```
//!
//! Not there: MS-TURN, its framing over TCP and its pseudo-TLS are recognised, refused and counted; DTLS likewise. Of
//! RFC 8656, RESERVATION-TOKEN and DONT-FRAGMENT get 420, EVEN-PORT gets an even port but never keeps the next one (508),
//! ADDITIONAL-ADDRESS-FAMILY is skipped, and the TCP allocations of RFC 6062 get 442.
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

//! The A/V Edge: STUN and TURN for media on both sides of the host, and the A/V authentication service (MRAS).
//!
//! Pure modules:
//! - [`stun`]: messages on the wire, their proofs, what a datagram is, the framing over TCP;
//! - [`turn`]: the server of one core, from a request to what is to be done, and the way of a media packet;
//! - [`credentials`]: what the server asks about a user name.

pub mod credentials;
pub mod stun;
pub mod turn;

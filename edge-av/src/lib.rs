//! The A/V Edge: STUN and TURN for media on both sides of the host, and the A/V authentication service (MRAS).
//!
//! - [`stun`] (pure): messages on the wire, their proofs, what a datagram is, the framing over TCP.

pub mod stun;

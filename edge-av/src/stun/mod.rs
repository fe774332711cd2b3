//! STUN messages on the wire (RFC 8489, and the Binding of RFC 3489).
//!
//! ```text
//!   0               4                 8                        20
//!  | type  | length | 21 12 A4 42     | transaction id (12)    | attributes …
//!  └ RFC 3489: no cookie, the transaction id is 16 bytes long ─┘
//! ```
//!
//! [`message`] is the view, [`fields`] what a request means, [`writer`] builds an answer, [`integrity`] signs and
//! proves, [`demux`] tells what a datagram is, [`frame`] cuts a TCP stream.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod attribute;
pub mod demux;
pub mod fields;
pub mod frame;
pub mod integrity;
pub mod message;
pub mod writer;

#[cfg(test)]
mod vectors;

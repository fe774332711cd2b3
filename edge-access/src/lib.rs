//! The Access Edge: SIP for remote users and federation.
//!
//! ```text
//!  socket ─► framer ─► parse ─► Proxy ─► edits ─► queue ─► socket
//! ```
//!
//! Pure: [`proxy`] decides; everything in it is told the time, the sender and the bytes.

pub mod proxy;

//! SIP on the wire: framing, an index over the received bytes, edits on them, and the headers we read.
//!
//! A message keeps the bytes it came in ([`message::Message`] is a view with an index); what a proxy
//! changes is a list of splices ([`edit::Edits`]) that is applied while the message is written into
//! the outgoing queue. What nobody edited leaves as it came.
//!
//! ```text
//!  stream ─► framer ─► parse (Index) ─► Message ─► header::* (typed, read on demand)
//!                                          │
//!                                          └─► Edits ─► bytes of the next hop
//!  request::Request, response::Response ─► messages of our own
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod edit;
pub mod framer;
#[doc(hidden)]
pub mod fuzz;
pub mod header;
pub mod message;
pub mod parse;
pub mod request;
pub mod response;
pub mod uri;

//! The Access Edge: SIP for remote users and federation.
//!
//! ```text
//!  socket ─► framer ─► parse ─► Proxy ─► edits ─► queue ─► socket
//!                                 │
//!              mailboxes ◄────────┼────────► verdicts (one core), partners' edges, next hop
//! ```
//!
//! Pure: [`proxy`] decides; everything in it is told the time, the sender and the bytes. [`ws`] takes SIP out of the
//! frames of browsers and puts it in. [`trace`] keeps headlines of what passed, [`connections`] lists who is there.
//!
//! With sockets: [`array`] links the members, [`listener`] lets connections in, [`connector`] opens those to the next hop and to
//! partners, [`flow`] runs each of them on its core and does what the proxy says, [`resolver`] owns the
//! verdicts on domains and the watch list, [`watch_file`] keeps that over a restart, [`tls`] holds the certificates, [`crl`] fetches
//! revocation lists,
//! [`observe`] counts, [`recorder`] shows what passes to those who trace it, [`admin`] and [`federation_admin`] answer
//! `edgectl`, [`daemon`] puts it together,
//! [`service`] runs it in the scaffold of all daemons.

pub mod array;
pub mod connections;
pub mod proxy;
pub mod trace;
pub mod ws;

#[cfg(feature = "io")]
pub mod admin;
#[cfg(feature = "io")]
pub mod connector;
#[cfg(feature = "io")]
pub mod crl;
#[cfg(feature = "io")]
pub mod daemon;
#[cfg(feature = "io")]
pub mod epoch;
#[cfg(feature = "io")]
pub mod federation_admin;
#[cfg(feature = "io")]
pub mod flow;
#[cfg(feature = "io")]
pub mod listener;
#[cfg(feature = "io")]
pub mod observe;
#[cfg(feature = "io")]
pub mod recorder;
#[cfg(feature = "io")]
pub mod resolver;
#[cfg(feature = "io")]
pub mod service;
#[cfg(feature = "io")]
pub mod tls;
#[cfg(feature = "io")]
pub mod watch_file;

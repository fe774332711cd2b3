//! The agent: runs inside, next to a conference server, and opens the way to it.
//!
//! ```text
//!   conference server ── POST /admit ──► api ─► ledger            (unix socket)
//!                                              │ ADMIT, wait for the ACKs
//!   edge 1 ◄── control ── link ◄───────────────┤
//!   edge 2 ◄── control ── link ◄───────────────┘
//!   edge   ◄── data ───── dialled when an edge wants them; OPEN ─► target ─► relay
//! ```
//!
//! Pure: [`link`] (one control session), [`ledger`] (what was admitted and used), [`backoff`].
//! I/O: [`record`] (the ledger on disk), [`config`], [`edge`] (keeps a link up), [`data`] (one data connection), [`api`],
//! [`process`] (all of it together), [`service`] (start, reload, end).

pub mod api;
pub mod backoff;
pub mod config;
pub mod data;
pub mod edge;
pub mod ledger;
pub mod link;
pub mod process;
pub mod record;
pub mod service;

//! The shell around [`crate::turn::Server`]: sockets, batches, cores.
//!
//! ```text
//!   core 0                                          core 1
//!   UDP 3478 (SO_REUSEPORT) ─┐                       …
//!   TCP 443 connections ─────┤► Shard ─► Server ─► sockets
//!   relayed sockets ─────────┘    └──── crossing (bounded mailbox) ────► Shard
//! ```
//!
//! - [`batch`]: many datagrams with one system call, and the only unsafe code of the workspace;
//! - [`poller`]: readiness of all sockets of a core in one place, without a task for each;
//! - [`sockets`]: the UDP sockets of a core;
//! - [`crossing`]: packets on their way to another core;
//! - [`shard`]: what happens when a packet, a message, a deadline or a crossing arrives;
//! - [`tcp`]: one connection of a client.

pub mod batch;
pub mod crossing;
pub mod poller;
pub mod shard;
pub mod sockets;
pub mod tcp;

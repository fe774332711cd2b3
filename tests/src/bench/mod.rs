//! The benchmarks: our daemons and their peers under the same load, one after the other.
//!
//! ```text
//!   edge-bench access ──► server (ours or the peer), pinned to CPU 0
//!         │                    ▲
//!         └─ orders (JSON) ─► edge-bench load, pinned to CPU 1 ─ reports (JSON) ─► results/*.jsonl ─► table
//! ```
//!
//! [`load`] is the load: SIP transactions, handshakes, idle connections, bytes through a relay; it reads what the
//! server's processes cost from [`procfs`]. [`server`] starts and ends servers, [`credentials`] makes their
//! certificates, [`host`] the two hosts, [`record`] keeps what was measured, [`table`] judges. [`access`] is the benchmark
//! of the Access Edge, [`webconf`] that of the Web Conferencing Edge; [`instructions`] counts instructions of the core of
//! the former, which no neighbour on the machine can change.

pub mod access;
pub mod credentials;
pub mod driver;
pub mod host;
pub mod instructions;
pub mod load;
pub mod procfs;
pub mod record;
pub mod server;
pub mod table;
pub mod webconf;

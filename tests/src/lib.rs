//! The lab and the simulated world.
//!
//! - [`bench`]: the benchmarks and the instruction counts (`edge-bench`).
//! - [`lab`]: network namespaces with the real daemons and other people's software (`edge-lab`).
//! - [`scenario`]: scripts of SIP call flows, played against the proxy.
//! - [`sim`]: the daemons' cores under a virtual clock, with links that lose and reorder.
//! - [`torture`]: the torture messages of RFC 4475 and RFC 5118 (`edge-torture`).

pub mod bench;
pub mod lab;
pub mod scenario;
pub mod sim;
pub mod torture;

//! The lab and the simulated world.
//!
//! - [`lab`]: network namespaces with the real daemons and other people's software (`edge-lab`).
//! - [`sim`]: the daemons' cores under a virtual clock, with links that lose and reorder.

pub mod lab;
pub mod sim;

//! The lab and the simulated world.
//!
//! - [`lab`]: network namespaces with the real daemons and other people's software (`edge-lab`).

pub mod lab;

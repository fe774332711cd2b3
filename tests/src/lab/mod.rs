//! The lab: the real daemons against software that nobody here wrote, in network namespaces.
//!
//! ```text
//!  sandbox ─► plan, topology ─► ca, dns, director, edge_host ─► step::* ─► report
//!  re-exec    hosts, cables     servers                         checks     table, JSON
//! ```
//!
//! Pure: [`plan`], [`wav`], [`tone`], [`netstring`]. Everything else starts programs and waits for
//! them, always with a limit.

pub mod bounded;
pub mod ca;
pub mod counters;
pub mod director;
pub mod dns;
pub mod metrics;
pub mod netns;
pub mod netstring;
pub mod phone;
pub mod plan;
pub mod process;
pub mod report;
pub mod sandbox;
pub mod tone;
pub mod topology;
pub mod wav;

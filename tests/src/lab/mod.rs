//! The lab: the real daemons against software that nobody here wrote, in network namespaces.
//!
//! ```text
//!  sandbox ─► plan, topology ─► ca, dns, director, edge_host ─► step::* ─► report
//!  re-exec    hosts, cables     servers                         checks     table, JSON
//! ```
//!
//! Pure: [`plan`], [`wav`], [`tone`], [`netstring`], [`strace`]. Everything else starts programs and waits for
//! them, always with a limit.

pub mod agents;
pub mod array;
pub mod array_net;
pub mod balancer;
pub mod bounded;
pub mod ca;
pub mod conference;
pub mod counters;
pub mod demo;
pub mod director;
pub mod dns;
pub mod doors;
pub mod edge_host;
pub mod metrics;
pub mod netns;
pub mod netstring;
pub mod phone;
pub mod plan;
pub mod port_scan;
pub mod process;
pub mod report;
pub mod sandbox;
pub mod sip_client;
pub mod step;
pub mod strace;
pub mod tls_client;
pub mod tls_stream;
pub mod tone;
pub mod topology;
pub mod turn_client;
pub mod wav;
pub mod world;

//! What stands around the daemons: plans, printers, and the operator's one tool.
//!
//! ```text
//!   edge.toml ─► Config ─► plan::Plan ─┬─► firewall ─► apply: nft
//!                                      ├─► network   script, networkd
//!                                      ├─► dns       zone fragments
//!                                      └─► systemd   units
//! ```
//!
//! Pure: [`plan`] and the printers [`firewall`], [`network`], [`dns`], [`systemd`].
//! With files, processes and sockets: [`apply`].

pub mod apply;
pub mod certs;
pub mod credentials;
pub mod dns;
pub mod firewall;
pub mod fresh;
pub mod furnish;
pub mod issue;
pub mod mras;
pub mod network;
pub mod plan;
pub mod probe;
pub mod systemd;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod netns;

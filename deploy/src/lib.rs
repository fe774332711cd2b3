//! What stands around the daemons: plans, printers, and the operator's one tool.
//!
//! ```text
//!   answers ─► edge.toml ─► Config ─► plan::Plan ─┬─► firewall ─► apply: nft
//!                             │                   ├─► network   script, networkd
//!                             │                   ├─► dns       zone fragments
//!                             │                   ├─► certs ─► furnish: keys, certificates, secrets
//!                             │                   └─► systemd   units
//!                             └─► probe, credentials, admin_client: asks what runs
//! ```
//!
//! Pure: [`plan`], [`answers`], [`certs`], [`mras`] and the printers [`firewall`], [`network`], [`dns`],
//! [`systemd`], [`federation_card`], [`ladder`] with [`calendar`] and [`certificate_facts`]. With files, processes and sockets: [`apply`], [`issue`], [`furnish`], [`fresh`], [`contents`],
//! [`credentials`], [`probe`], [`federation_test`], [`admin_client`]. The command line is [`cli`].

pub mod admin_client;
pub mod answers;
pub mod apply;
pub mod calendar;
pub mod certificate_facts;
pub mod certs;
pub mod cli;
pub mod contents;
pub mod credentials;
pub mod dns;
pub mod federation_card;
pub mod federation_test;
pub mod firewall;
pub mod fresh;
pub mod furnish;
pub mod issue;
pub mod ladder;
pub mod mras;
pub mod network;
pub mod plan;
pub mod probe;
pub mod systemd;

#[cfg(test)]
mod fixture;
#[cfg(test)]
#[path = "../tests/namespace/mod.rs"]
mod netns;

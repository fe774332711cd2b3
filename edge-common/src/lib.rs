//! What the three daemons and edgectl share.
//!
//! ```text
//!                    edge.toml ─► config ─► Config ─► ports ─► listeners, firewall, DNS, documents
//!                                             │
//!      socket ─► net ─► sip framing, parse ─► a daemon's own decisions ─► sip edits ─► net ─► socket
//!                 │                           │
//!      cert: who we are and who they are      secret, seal, credential, partner_proof, srv: what proves what
//! ```
//!
//! Pure, and all there is without the feature `io`:
//! - [`time`], [`side`], [`host_name`], [`punycode`], [`random`]: values that everything is written in;
//! - [`config`]: what was typed → what it means, every finding at once; [`ports`]: THE port table;
//! - [`peer_range`]: special-purpose addresses and what an IPv6 address hides;
//! - [`secret`], [`seal`], [`credential`], [`join_token`]: keys, sealed tokens, media credentials, tokens of joins;
//! - [`domain_rule`]: which list a domain stands on; [`srv`], [`partner_proof`]: DNS order, and whether a connection speaks for a domain;
//! - [`sip`]: framing, byte-preserving messages, edits, URIs, headers;
//! - [`limit`], [`timer`]: caps, token buckets, the timer wheel;
//! - of [`cert`]: what a certificate must hold and proves; of [`net`]: a balancer's header and the name in a
//!   ClientHello.
//!
//! With I/O, behind the feature `io`:
//! - [`net`]: one runtime per core, TLS without sockets and streams with them, mailboxes between cores;
//! - [`cert`]: stores, trust, revocation, tickets, the TLS configurations;
//! - `dns`: partners and the next hop, looked up and guarded;
//! - `observe`, `run`: logs, metrics, health, the admin socket, copies of messages, signals, drain;
//! - `config::reload`, `config::files`, `secret_files`, `private_file`: what is read from disk.

pub mod cert;
pub mod config;
pub mod credential;
#[cfg(feature = "io")]
pub mod dns;
pub mod domain_rule;
pub mod host_name;
pub mod join_token;
pub mod limit;
pub mod net;
#[cfg(feature = "io")]
pub mod observe;
pub mod partner_proof;
pub mod peer_range;
pub mod ports;
#[cfg(feature = "io")]
pub mod private_file;
pub mod punycode;
pub mod random;
#[cfg(feature = "io")]
pub mod run;
pub mod seal;
pub mod secret;
#[cfg(feature = "io")]
pub mod secret_files;
pub mod side;
pub mod sip;
pub mod srv;
pub mod time;
pub mod timer;

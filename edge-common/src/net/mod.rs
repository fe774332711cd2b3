//! Sockets, TLS and the runtime that carries them.
//!
//! ```text
//!  bind ─► accept ─► handshake ─► Stream ─► the daemon's own code
//!                        │           │
//!                    tls_driver   core_runtime (shared buffers, one flush per turn)
//! ```
//!
//! - [`proxy_protocol`] (pure): the client's address, told by a balancer;
//! - [`client_hello`] (pure): the name a client asked for;
//! - [`bind`]: sockets on an address and an interface;
//! - [`core_runtime`]: one thread and one runtime for each core;
//! - [`mailbox`]: bounded ways between the cores;
//! - [`tls_driver`]: TLS without sockets;
//! - [`stream`]: a connection, plain or TLS, with one face;

#[cfg(feature = "io")]
pub mod accept;
#[cfg(feature = "io")]
pub mod bind;
pub mod client_hello;
#[cfg(feature = "io")]
pub mod core_runtime;
#[cfg(feature = "io")]
pub mod dial;
#[cfg(feature = "io")]
pub mod handshake;
#[cfg(feature = "io")]
pub mod mailbox;
pub mod proxy_protocol;
#[cfg(feature = "io")]
pub mod stream;
#[cfg(all(test, feature = "io"))]
pub(crate) mod test_tls;
#[cfg(feature = "io")]
pub mod tls_driver;

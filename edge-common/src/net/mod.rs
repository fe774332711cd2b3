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
//!
//! A daemon puts them together like this:
//!
//! ```no_run
//! # use edge_common::net::accept::{self, Door, Gate};
//! # use edge_common::net::bind::Bind;
//! # use edge_common::net::core_runtime::Cores;
//! # use edge_common::net::stream::{Read, Stream};
//! # fn example(bind: &Bind, gate: Gate, door: Door) -> Result<(), Box<dyn std::error::Error>> {
//! // All listeners are open before the first core serves.
//! let listeners = bind.tcp_listeners(2)?;
//! let cores = Cores::start_with("edge-echo", listeners, move |core, listener| {
//!     let serving = accept::serve(core.clone(), listener, gate.clone(), door.clone(), echo);
//!     async move {
//!         core.spawn(serving);
//!         core.draining().await;
//!         tokio::select! {
//!             () = core.streams_ended() => {}
//!             () = core.stopping() => {}
//!         }
//!     }
//! })?;
//! # drop(cores); Ok(()) }
//!
//! /// One connection: the future is its task, and the stream closes when it is dropped.
//! async fn echo(stream: Stream) {
//!     while let Ok(Read::Data) = stream
//!         .read(|bytes| match stream.queue(bytes) {
//!             Ok(()) => bytes.len(),
//!             Err(_) => 0,
//!         })
//!         .await
//!     {
//!         // Back-pressure: nothing more is read while the far end is slow.
//!         if stream.queued_below(16 * 1024).await.is_err() {
//!             return;
//!         }
//!     }
//! }
//! ```

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

//! EWRP/1, the relay protocol between the edge and the agents of the conference servers.
//!
//! ```text
//!   agent ── control connection (ALPN ewrp/1) ──────► edge     frame.rs: where a frame ends
//!            HELLO, REGISTER, ADMIT, PING …                    control.rs: what it says
//!         ── data connection (ewrp-data/1), many ───► edge     data.rs: hello, OPEN, OPEN_ACK,
//!            hello │ OPEN │ OPEN_ACK │ raw bytes               then the stream of one client
//! ```
//!
//! Everything here is bytes in, values out. All integers are big-endian.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod control;
pub mod data;
pub mod frame;
pub mod number;
pub mod status;
mod wire;

pub use number::Number;
pub use status::Status;

/// The ALPN name of a control connection.
pub const ALPN_CONTROL: &[u8] = b"ewrp/1";
/// The ALPN name of a data connection.
pub const ALPN_DATA: &[u8] = b"ewrp-data/1";
/// The one version that is spoken.
pub const VERSION: u8 = 1;

/// Names one control session for the data connections that belong to it.
pub type SessionName = [u8; 16];

/// The key that signs the hello of data connections; it never shows in a log.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct SessionSecret(pub [u8; 32]);

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

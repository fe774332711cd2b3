//! Certificates: what ours must hold, what a peer's prove, and the TLS configurations made of both.
//!
//! ```text
//!   files ──► pem ──► store ───────────────┐
//!                └──► role (what is wrong) ├──► tls: client_listener, mutual_listener, dialer
//!   roots, partners' CAs, CRLs ──► verify ─┘        (array-shared tickets on client listeners only)
//!   peer's certificate ──► identity: the names that it proves
//! ```
//!
//! Pure: [`identity`], [`role`], [`pem`], [`der`]. With files and rustls: [`store`], [`tls`], [`trust`],
//! [`verify`], [`revocation`], [`tickets`]. No other module of the product names rustls' builders.

pub mod der;
pub mod identity;
pub mod pem;
pub mod role;

#[cfg(feature = "io")]
pub mod revocation;
#[cfg(feature = "io")]
pub mod store;
#[cfg(test)]
#[cfg(feature = "io")]
pub(crate) mod test_handshake;
#[cfg(test)]
#[cfg(feature = "io")]
pub(crate) mod test_pki;
#[cfg(feature = "io")]
pub mod tickets;
#[cfg(feature = "io")]
pub mod tls;
#[cfg(feature = "io")]
pub mod trust;
#[cfg(feature = "io")]
pub mod verify;

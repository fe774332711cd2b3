//! Credentials for the A/V Edge: minted inside, verified at the relay, stored nowhere.
//!
//! ```text
//!   private key of the A/V authentication certificate ─► key_material ─HKDF─► AvKeys ─► KeyRing
//!                                                                                         │
//!       MRAS request ─► mint ─► username (the token, 56 bytes) + password ─► client ─► verify
//! ```
//!
//! Every member of an array holds the same key, so each verifies what another minted. One pair serves both
//! dialects: MS-TURN takes the raw bytes, RFC TURN their base64 text (which OpaqueString leaves as it is).
//!
//! [`RestSecrets`] are a second source, keyed apart: the `EXPIRY:name` scheme that web applications know.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod key_material;
mod keys;
mod rest;
mod token;

pub use key_material::{KeyMaterialError, key_material};
pub use keys::{AvKeys, KeyRing};
pub use rest::{
    RestCredential, RestRefusal, RestSecret, RestSecretError, RestSecrets, RestVerified,
};
pub use token::{
    ClientId, Credential, Identity, Location, MintRequest, PASSWORD_LEN, Refusal, USERNAME_LEN,
    Verified, mint, verify, verify_text,
};

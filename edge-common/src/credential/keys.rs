//! The keys that one A/V authentication certificate gives, and the ring of up to three of them.
//!
//! ```text
//!   ikm = key material            prk  = HKDF-Extract-SHA256(SHA-256(SPKI), ikm)
//!   key id = first byte of SHA-256(SPKI)     K_x = HKDF-Expand(prk, "edge-av/mras/1/" x, 32)
//! ```
//!
//! A certificate is changed in three steps: the new one as `next` on every member; then as `current`, the old
//! one as `previous`; then the old one goes, when its last credential and the calls on it have ended.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use super::key_material::{KeyMaterialError, key_material};
use crate::secret::KeyId;

/// What one certificate's private key gives.
#[derive(Clone)]
pub struct AvKeys {
    id: KeyId,
    public_key: [u8; 32],
    token: hmac::Key,
    password: hmac::Key,
    client_id: hmac::Key,
}

impl AvKeys {
    /// Derives the keys from a private key and the SubjectPublicKeyInfo (DER) of its certificate.
    ///
    /// That the two belong together is the caller's to check, as it is with every pair that is loaded.
    pub fn derive(spki: &[u8], key: &PrivateKeyDer<'_>) -> Result<Self, KeyMaterialError> {
        let material = key_material(key)?;
        let mut public_key = [0; 32];
        public_key.copy_from_slice(digest(&SHA256, spki).as_ref());
        let prk = Salt::new(HKDF_SHA256, &public_key).extract(&material);
        Ok(Self {
            id: KeyId(public_key[0]),
            public_key,
            token: expand(&prk, TOKEN),
            password: expand(&prk, PASSWORD),
            client_id: expand(&prk, CLIENT_ID),
        })
    }

    /// Stands in each token.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Says whether these keys come from the key pair with this SubjectPublicKeyInfo (DER).
    ///
    /// A key that peers see in a listener's certificate must not make credentials as well.
    #[must_use]
    pub fn are_of(&self, spki: &[u8]) -> bool {
        digest(&SHA256, spki).as_ref() == self.public_key
    }

    pub(super) const fn token(&self) -> &hmac::Key {
        &self.token
    }

    pub(super) const fn password(&self) -> &hmac::Key {
        &self.password
    }

    pub(super) const fn client_id(&self) -> &hmac::Key {
        &self.client_id
    }
}

impl fmt::Debug for AvKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AvKeys({:#04x}, …)", self.id.0)
    }
}

/// The keys in use: one mints, up to three verify.
#[derive(Clone, Debug)]
pub struct KeyRing {
    /// Mints and verifies.
    pub current: AvKeys,
    /// Verifies: other members may mint with it already.
    pub next: Option<AvKeys>,
    /// Verifies: its credentials are still out there.
    pub previous: Option<AvKeys>,
}

impl KeyRing {
    /// A single key, no change under way.
    #[must_use]
    pub const fn only(current: AvKeys) -> Self {
        Self {
            current,
            next: None,
            previous: None,
        }
    }

    /// All keys, the likeliest first.
    pub fn accepted(&self) -> impl Iterator<Item = &AvKeys> {
        [
            Some(&self.current),
            self.previous.as_ref(),
            self.next.as_ref(),
        ]
        .into_iter()
        .flatten()
    }

    /// Says whether one of the keys is that of the SubjectPublicKeyInfo; see [`AvKeys::are_of`].
    #[must_use]
    pub fn holds(&self, spki: &[u8]) -> bool {
        self.accepted().any(|keys| keys.are_of(spki))
    }
}

fn expand(prk: &hkdf::Prk, purpose: &[u8]) -> hmac::Key {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    prk.expand(&[INFO, purpose], HMAC_SHA256)
        .and_then(|okm| okm.fill(&mut *key))
        .expect("HKDF-SHA256 gives 32 bytes when asked for 32");
    hmac::Key::new(HMAC_SHA256, &*key)
}

const INFO: &[u8] = b"edge-av/mras/1/";
const TOKEN: &[u8] = b"token";
const PASSWORD: &[u8] = b"password";
const CLIENT_ID: &[u8] = b"client-id";
const KEY_LEN: usize = 32;

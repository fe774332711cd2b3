//! Seals what the edge gives away and wants back unchanged: tokens in SIP headers, join tokens, TURN reservations.
//!
//! AES-SIV (RFC 5297) under a key of the array secret. It needs no nonce, so equal inputs give equal
//! tokens on every member, and a repeated input gives nothing away but that it is repeated.
//!
//! ```text
//!   0        1                    17
//!   ┌────────┬────────────────────┬───────────────┐
//!   │ key id │ synthetic IV = tag │ encrypted …   │
//!   └────────┴────────────────────┴───────────────┘
//!   authenticated beside it: the key id, and the context that the caller names on both ways
//! ```
//!
//! What stands inside is the caller's matter; layouts live with their daemon.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use aes_siv::KeyInit;
use aes_siv::siv::Aes128Siv;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::{DerivedKey, DerivedKeys, KeyId, Label, Secrets};

/// Seals and opens under one label.
#[derive(Clone, Debug)]
pub struct Sealer {
    keys: DerivedKeys,
}

impl Sealer {
    /// The keys of `label`: seals with the current one, opens with any of the three.
    #[must_use]
    pub fn new(secrets: &Secrets, label: Label) -> Self {
        Self {
            keys: secrets.derive(label),
        }
    }

    /// Seals `plain`. Only who names the same `context` can open it, so a token made for one place is useless in another.
    #[must_use]
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let key = &self.keys.current;
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.push(key.id().0);
        sealed.extend_from_slice(&[0; IV_LEN]);
        sealed.extend_from_slice(plain);
        let iv = cipher(key)
            .encrypt_in_place_detached([&[key.id().0], context], &mut sealed[OVERHEAD..])
            .expect("two headers are fewer than the 126 that S2V takes");
        sealed[1..OVERHEAD].copy_from_slice(&iv);
        sealed
    }

    /// Opens what [`Self::seal`] of any member gave.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, OpenError> {
        let [id, iv_and_rest @ ..] = sealed else {
            return Err(OpenError::TooShort);
        };
        if iv_and_rest.len() < IV_LEN {
            return Err(OpenError::TooShort);
        }
        let mut outcome = Err(OpenError::UnknownKey);
        for key in self.keys.with_id(KeyId(*id)) {
            match cipher(key).decrypt([&[*id], context], iv_and_rest) {
                Ok(plain) => return Ok(plain),
                Err(aes_siv::Error) => outcome = Err(OpenError::Forged),
            }
        }
        outcome
    }

    /// [`Self::seal`], as base64url without padding: fit for a SIP user part, a branch or a URL.
    #[must_use]
    pub fn seal_text(&self, plain: &[u8], context: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.seal(plain, context))
    }

    /// Opens the text form. There is one spelling of a token only; others are [`OpenError::NotText`].
    pub fn open_text(&self, text: &[u8], context: &[u8]) -> Result<Vec<u8>, OpenError> {
        let sealed = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| OpenError::NotText)?;
        self.open(&sealed, context)
    }
}

/// Why a token was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// Fewer bytes than any token has.
    #[error("too short for a sealed token")]
    TooShort,
    /// Not base64url.
    #[error("not base64url")]
    NotText,
    /// Sealed under a secret that has been retired, or never was ours.
    #[error("sealed under a key that is not known here")]
    UnknownKey,
    /// Altered, made by someone else, or shown in another context than it was made for.
    #[error("altered, or not made for this place")]
    Forged,
}

fn cipher(key: &DerivedKey) -> Aes128Siv {
    Aes128Siv::new(key.as_bytes().into())
}

/// How many bytes a token is longer than what it holds.
pub const OVERHEAD: usize = 1 + IV_LEN;
/// RFC 5297 §2.6: the synthetic IV is one AES block.
const IV_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Seeded;
    use crate::secret::ArraySecret;

    fn secret(seed: u64) -> ArraySecret {
        ArraySecret::generate(&mut Seeded::new(seed))
    }

    fn sealer(seed: u64) -> Sealer {
        Sealer::new(&Secrets::only(secret(seed)), Label::SipFlow)
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_in_its_context_only(
            plain in proptest::collection::vec(any::<u8>(), 0..80),
            context in proptest::collection::vec(any::<u8>(), 0..20),
            other in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let sealer = sealer(1);
            let sealed = sealer.seal(&plain, &context);
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(sealer.open(&sealed, &context), Ok(plain.clone()));
            let text = sealer.seal_text(&plain, &context);
            prop_assert_eq!(sealer.open_text(text.as_bytes(), &context), Ok(plain));
            if other != context {
                prop_assert_eq!(sealer.open(&sealed, &other), Err(OpenError::Forged));
            }
        }

        #[test]
        fn a_changed_bit_is_noticed(
            plain in proptest::collection::vec(any::<u8>(), 0..40),
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
        ) {
            let sealer = sealer(1);
            let mut sealed = sealer.seal(&plain, b"x");
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            let expected = if at == 0 { OpenError::UnknownKey } else { OpenError::Forged };
            prop_assert_eq!(sealer.open(&sealed, b"x"), Err(expected));
        }

        #[test]
        fn foreign_bytes_never_open_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(sealer(1).open(&bytes, b"").is_err());
            prop_assert!(sealer(1).open_text(&bytes, b"").is_err());
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let sealer = sealer(1);
        let sealed = sealer.seal(b"seventeen bytes!!", b"");
        for len in 0..sealed.len() {
            let expected = if len < OVERHEAD {
                OpenError::TooShort
            } else {
                OpenError::Forged
            };
            assert_eq!(sealer.open(&sealed[..len], b""), Err(expected), "{len}");
        }
    }

    #[test]
    fn members_agree_and_labels_do_not() {
        assert_eq!(sealer(1).seal(b"flow", b""), sealer(1).seal(b"flow", b""));
        let branch = Sealer::new(&Secrets::only(secret(1)), Label::SipBranch);
        assert_eq!(
            branch.open(&sealer(1).seal(b"flow", b""), b""),
            Err(OpenError::Forged)
        );
    }

    #[test]
    fn a_rotation_in_three_steps_never_loses_a_token() {
        let (old, new) = (secret(1), secret(2));
        let stages = [
            Secrets::only(old.clone()),
            Secrets {
                current: old.clone(),
                next: Some(new.clone()),
                previous: None,
            },
            Secrets {
                current: new.clone(),
                next: None,
                previous: Some(old),
            },
            Secrets::only(new),
        ]
        .map(|secrets| Sealer::new(&secrets, Label::SipFlow));
        for (here, there) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)] {
            let sealed = stages[here].seal(b"flow", b"");
            assert!(
                stages[there].open(&sealed, b"").is_ok(),
                "{here} to {there}"
            );
        }
        assert_eq!(
            stages[3].open(&stages[0].seal(b"flow", b""), b""),
            Err(OpenError::UnknownKey)
        );
    }

    #[test]
    fn two_secrets_with_one_key_id_are_both_tried() {
        let first = secret(0);
        let id = |secret: &ArraySecret| {
            Secrets::only(secret.clone())
                .derive(Label::SipFlow)
                .current
                .id()
        };
        let twin = (1..)
            .map(secret)
            .find(|other| id(other) == id(&first))
            .unwrap();
        let from_twin =
            Sealer::new(&Secrets::only(twin.clone()), Label::SipFlow).seal(b"flow", b"");
        let both = Sealer::new(
            &Secrets {
                current: first,
                next: None,
                previous: Some(twin),
            },
            Label::SipFlow,
        );
        assert_eq!(both.open(&from_twin, b""), Ok(b"flow".to_vec()));
    }

    #[test]
    fn a_token_has_one_spelling() {
        let sealer = sealer(1);
        let text = sealer.seal_text(b"flow", b"");
        let spellings = [
            format!("{text}="),
            format!(" {text}"),
            format!("{text}\n"),
            text.replace(['-', '_'], "+"),
        ];
        for other in spellings.iter().filter(|other| **other != text) {
            assert!(sealer.open_text(other.as_bytes(), b"").is_err(), "{other}");
        }
    }
}

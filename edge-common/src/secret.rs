//! The array secret, and the keys that are derived from it (RFC 5869).
//!
//! All members of an array hold the same one, two or three secrets. No secret is used as it is: each
//! use has a [`Label`], and its keys come from HKDF-SHA256 under that label.
//!
//! ```text
//!   secret file, 64 hex digits ─► ArraySecret ─HKDF─► DerivedKey { id, 32 bytes }
//!                                                      └ first byte of HKDF(secret, "key-id")
//! ```
//!
//! A secret changes in three steps, none of which ends a call: install the new one as `next` on every
//! member (it is accepted, not used); make it `current` and the old one `previous`; drop `previous` when
//! all that was sealed with it has expired. The id of a key depends on the secret alone, not on the slot
//! that it stands in, so members that are one step apart understand each other.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;

use aws_lc_rs::hkdf::{self, HKDF_SHA256, Salt};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::random::Random;

/// One 32-byte secret that all members of the array share. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ArraySecret([u8; SECRET_LEN]);

impl ArraySecret {
    /// Takes the bytes as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    /// Makes a new secret.
    #[must_use]
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut secret = Self([0; SECRET_LEN]);
        rng.fill(&mut secret.0);
        secret
    }

    /// Reads what a secret file holds: 64 hexadecimal digits, blanks and line ends around them allowed.
    pub fn from_hex(text: &[u8]) -> Result<Self, SecretError> {
        let skipped = text.len() - text.trim_ascii_start().len();
        let digits = text.trim_ascii();
        let mut secret = Self([0; SECRET_LEN]);
        for (at, &digit) in digits.iter().enumerate() {
            let value = hex_value(digit).ok_or(SecretError::NotHex {
                offset: skipped + at,
            })?;
            if let Some(byte) = secret.0.get_mut(at / 2) {
                *byte = *byte << 4 | value;
            }
        }
        if digits.len() != 2 * SECRET_LEN {
            return Err(SecretError::Length {
                digits: digits.len(),
            });
        }
        if secret.0.iter().all(|&byte| byte == secret.0[0]) {
            return Err(SecretError::Constant);
        }
        Ok(secret)
    }

    /// The text of a secret file, with its line end.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let mut text = String::with_capacity(2 * SECRET_LEN + 1);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 0x0f] {
                text.push(char::from(HEX_DIGITS[usize::from(nibble)]));
            }
        }
        text.push('\n');
        Zeroizing::new(text)
    }

    fn derive(&self, label: Label) -> DerivedKey {
        let prk = Salt::new(HKDF_SHA256, EXTRACT_SALT).extract(&self.0);
        let mut id = [0; 1];
        expand(&prk, KEY_ID_INFO, &mut id);
        let mut bytes = [0; KEY_LEN];
        expand(&prk, label.info(), &mut bytes);
        DerivedKey {
            id: KeyId(id[0]),
            bytes,
        }
    }
}

impl fmt::Debug for ArraySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArraySecret(…)")
    }
}

/// Why a secret file was refused. It never quotes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// A byte that is no hexadecimal digit.
    #[error("byte {offset} is not a hexadecimal digit")]
    NotHex {
        /// Counted from the start of the file.
        offset: usize,
    },
    /// Too short or too long.
    #[error("{digits} hexadecimal digits instead of 64")]
    Length {
        /// What was found.
        digits: usize,
    },
    /// All bytes are equal: a placeholder that nobody replaced.
    #[error("all bytes are equal; make a real secret with `edgectl init`")]
    Constant,
}

/// What a key is for. Keys of two labels have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Flow tokens in Path and Record-Route of the Access Edge.
    SipFlow,
    /// Via branches of the Access Edge.
    SipBranch,
    /// Stacks of Via and Record-Route that outsiders may not read.
    SipTopology,
    /// TLS 1.3 session tickets of the client listeners.
    TlsTicket,
    /// Join tokens and numbers of the Web Conferencing Edge.
    ConferenceToken,
    /// Nonces of the TURN server.
    TurnNonce,
    /// Reservation tokens and mobility tickets of the TURN server.
    TurnReservation,
    /// Spreads the keys of tables that strangers fill (hash flooding).
    TableHash,
    /// The link between the members of an array.
    ArrayLink,
}

impl Label {
    /// The `info` of HKDF. A changed text makes everything sealed before unreadable.
    const fn info(self) -> &'static [u8] {
        match self {
            Self::SipFlow => b"edge/1/sip-flow",
            Self::SipBranch => b"edge/1/sip-branch",
            Self::SipTopology => b"edge/1/sip-topology",
            Self::TlsTicket => b"edge/1/tls-ticket",
            Self::ConferenceToken => b"edge/1/conference-token",
            Self::TurnNonce => b"edge/1/turn-nonce",
            Self::TurnReservation => b"edge/1/turn-reservation",
            Self::TableHash => b"edge/1/table-hash",
            Self::ArrayLink => b"edge/1/array-link",
        }
    }
}

/// Tells keys of one label apart. Eight bits: two secrets may share an id, so a reader tries every key that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u8);

/// One key of one label. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DerivedKey {
    #[zeroize(skip)]
    id: KeyId,
    bytes: [u8; KEY_LEN],
}

impl DerivedKey {
    /// Which secret it comes from.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The key itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    /// A key for a narrower use, such as one period of time.
    #[must_use]
    pub fn narrow(&self, info: &[u8]) -> Self {
        let prk = hkdf::Prk::new_less_safe(HKDF_SHA256, &self.bytes);
        let mut bytes = [0; KEY_LEN];
        expand(&prk, info, &mut bytes);
        Self { id: self.id, bytes }
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DerivedKey({:#04x}, …)", self.id.0)
    }
}

/// The keys of one label: one to use, up to three to accept.
#[derive(Clone, Debug)]
pub struct DerivedKeys {
    /// What new things are sealed with.
    pub current: DerivedKey,
    /// Accepted, because other members may use it already.
    pub next: Option<DerivedKey>,
    /// Accepted, because what it sealed is still out there.
    pub previous: Option<DerivedKey>,
}

impl DerivedKeys {
    /// All keys that are accepted, the likeliest first.
    pub fn accepted(&self) -> impl Iterator<Item = &DerivedKey> {
        [
            Some(&self.current),
            self.previous.as_ref(),
            self.next.as_ref(),
        ]
        .into_iter()
        .flatten()
    }

    /// The accepted keys that carry this id: none, one, or by chance more.
    pub fn with_id(&self, id: KeyId) -> impl Iterator<Item = &DerivedKey> {
        self.accepted().filter(move |key| key.id == id)
    }
}

/// The secrets of the array, as the configuration names them.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// In use.
    pub current: ArraySecret,
    /// To be used soon.
    pub next: Option<ArraySecret>,
    /// Used until a while ago.
    pub previous: Option<ArraySecret>,
}

impl Secrets {
    /// A single secret, no change under way.
    #[must_use]
    pub const fn only(current: ArraySecret) -> Self {
        Self {
            current,
            next: None,
            previous: None,
        }
    }

    /// The keys for one use.
    #[must_use]
    pub fn derive(&self, label: Label) -> DerivedKeys {
        DerivedKeys {
            current: self.current.derive(label),
            next: self.next.as_ref().map(|secret| secret.derive(label)),
            previous: self.previous.as_ref().map(|secret| secret.derive(label)),
        }
    }
}

fn expand(prk: &hkdf::Prk, info: &[u8], out: &mut [u8]) {
    prk.expand(&[info], OutputLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF-SHA256 gives up to 8160 bytes and the lengths are equal");
}

struct OutputLen(usize);

impl hkdf::KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Bytes in a secret.
pub const SECRET_LEN: usize = 32;
/// Bytes in a derived key.
pub const KEY_LEN: usize = 32;

const EXTRACT_SALT: &[u8] = b"edge array secret";
const KEY_ID_INFO: &[u8] = b"edge/1/key-id";
const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seeded;

    const LABELS: [Label; 9] = [
        Label::SipFlow,
        Label::SipBranch,
        Label::SipTopology,
        Label::TlsTicket,
        Label::ConferenceToken,
        Label::TurnNonce,
        Label::TurnReservation,
        Label::TableHash,
        Label::ArrayLink,
    ];

    fn secret(seed: u64) -> ArraySecret {
        ArraySecret::generate(&mut Seeded::new(seed))
    }

    #[test]
    fn a_secret_survives_its_file() {
        let made = secret(1);
        let text = made.to_hex();
        assert_eq!(text.len(), 65);
        let read = ArraySecret::from_hex(text.as_bytes()).unwrap();
        assert_eq!(read.0, made.0);
        let upper = format!("\r\n {}", text.to_uppercase());
        assert_eq!(ArraySecret::from_hex(upper.as_bytes()).unwrap().0, made.0);
    }

    #[test]
    fn a_bad_file_is_refused_with_place_and_reason() {
        let refused = |text: &str| ArraySecret::from_hex(text.as_bytes()).unwrap_err();
        assert_eq!(refused(""), SecretError::Length { digits: 0 });
        assert_eq!(
            refused(&"ab".repeat(31)),
            SecretError::Length { digits: 62 }
        );
        assert_eq!(
            refused(&"ab".repeat(33)),
            SecretError::Length { digits: 66 }
        );
        assert_eq!(
            refused(&format!("\n0x{}", "ab".repeat(31))),
            SecretError::NotHex { offset: 2 }
        );
        assert_eq!(refused(&"00".repeat(32)), SecretError::Constant);
    }

    #[test]
    fn labels_and_secrets_give_unrelated_keys() {
        let mut seen = Vec::new();
        for seed in [1, 2] {
            let secrets = Secrets::only(secret(seed));
            for label in LABELS {
                seen.push(*secrets.derive(label).current.as_bytes());
            }
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn the_derivation_is_pinned_because_members_of_two_versions_must_agree() {
        let keys = Secrets::only(ArraySecret::from_bytes([0x0b; 32])).derive(Label::SipFlow);
        insta::assert_snapshot!(format!(
            "{:02x?} {:02x?}",
            keys.current.id.0,
            keys.current.as_bytes()
        ));
    }

    #[test]
    fn a_key_keeps_its_id_when_its_secret_moves_to_another_slot() {
        let (old, new) = (secret(1), secret(2));
        let before = Secrets {
            current: old.clone(),
            next: Some(new.clone()),
            previous: None,
        };
        let after = Secrets {
            current: new,
            next: None,
            previous: Some(old),
        };
        let (before, after) = (
            before.derive(Label::TurnNonce),
            after.derive(Label::TurnNonce),
        );
        assert_eq!(before.next.as_ref().unwrap().id(), after.current.id());
        assert_eq!(
            after
                .with_id(before.current.id())
                .next()
                .unwrap()
                .as_bytes(),
            before.current.as_bytes()
        );
    }

    #[test]
    fn narrowing_separates_periods() {
        let key = Secrets::only(secret(1)).derive(Label::TlsTicket).current;
        assert_ne!(key.narrow(b"1").as_bytes(), key.narrow(b"2").as_bytes());
        assert_eq!(key.narrow(b"1").as_bytes(), key.narrow(b"1").as_bytes());
        assert_eq!(key.narrow(b"1").id(), key.id());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let secrets = Secrets::only(ArraySecret::from_bytes([0xab; 32]));
        let shown = format!("{secrets:?} {:?}", secrets.derive(Label::SipFlow));
        assert!(!shown.contains("171") && !shown.contains("ab, "), "{shown}");
    }
}

//! The token that lets a client in where its own protocol cannot carry an admitted number.
//!
//! ```text
//!   v1 . KEY-ID . base64url(payload) . base64url(signature)            no padding, at most 1,017 bytes
//!                 {"reg":"ssh.mcu1.contoso.internal","exp":1700000000,"jti":"…","uses":1,"src":"203.0.113.0/24"}
//! ```
//!
//! The signature is Ed25519 (RFC 8032) over all that stands before the last dot. The edge holds public keys only, so
//! whoever breaks into it cannot mint. A key is named by the first eight hex digits of the SHA-256 of its 32 bytes;
//! keys are files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::cert::pem;
use crate::random::Random;
use crate::time::UnixTime;

/// What a token says. Nothing of it counts before [`VerifyingKeys::open`] has said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// The name of the registration that it leads to.
    pub registration: Box<str>,
    /// It is good until then, and [`SKEW`] longer.
    pub expires: UnixTime,
    /// Tells tokens apart; two with one id are one token.
    pub id: Box<str>,
    /// How many clients it lets in.
    pub uses: u16,
    /// From where they have to come; anywhere without it.
    pub source: Option<IpNet>,
}

/// Why a token lets nobody in. The client is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not four parts, too long, or a part that is no base64url.
    #[error("not a token")]
    Malformed,
    /// Signed with a key that is not on the list.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the signature is wrong")]
    Signature,
    /// Signed, and yet it does not say what a token says.
    #[error("the payload is wrong")]
    Payload,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// It would be good for longer than the edge remembers its uses.
    #[error("good for too long")]
    TooLong,
    /// The client comes from somewhere else.
    #[error("for another source")]
    Source,
}

impl TokenError {
    /// A name from a short fixed list, for the label of a counter.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Payload => "payload",
            Self::Expired => "expired",
            Self::TooLong => "too_long",
            Self::Source => "source",
        }
    }
}

/// A key file is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM.
    #[error("{0}")]
    Pem(String),
    /// PEM without the section that is needed.
    #[error("there is no section {0:?}")]
    Missing(&'static str),
    /// The section holds something else.
    #[error("not an Ed25519 key")]
    NotEd25519,
    /// More keys than are looked through.
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

impl JoinToken {
    /// A token with an id of its own.
    #[must_use]
    pub fn new(
        registration: &str,
        expires: UnixTime,
        uses: u16,
        source: Option<IpNet>,
        rng: &mut dyn Random,
    ) -> Self {
        let mut id = [0; ID_LEN];
        rng.fill(&mut id);
        Self {
            registration: registration.into(),
            expires,
            id: URL_SAFE_NO_PAD.encode(id).into(),
            uses,
            source,
        }
    }

    /// The token as text.
    #[must_use]
    pub fn signed_with(&self, key: &SigningKey) -> String {
        let payload = Payload {
            reg: self.registration.clone(),
            exp: self.expires.as_secs(),
            jti: self.id.clone(),
            uses: self.uses,
            src: self.source,
        };
        let payload = serde_json::to_vec(&payload).expect("text and numbers only");
        let claim = format!("{VERSION}.{}.{}", key.id, URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(claim.as_bytes()));
        format!("{claim}.{signature}")
    }

    /// Whether it may be used now, by a client from there. `lifetime_max` bounds how long its uses are remembered.
    pub fn check(
        &self,
        now: UnixTime,
        lifetime_max: Duration,
        client: IpAddr,
    ) -> Result<(), TokenError> {
        if self.forgotten_at() <= now {
            return Err(TokenError::Expired);
        }
        if self.expires > now + lifetime_max + SKEW {
            return Err(TokenError::TooLong);
        }
        match self.source {
            Some(source) if !source.contains(&client.to_canonical()) => Err(TokenError::Source),
            Some(_) | None => Ok(()),
        }
    }

    /// From then on nobody has to remember that it was used.
    #[must_use]
    pub fn forgotten_at(&self) -> UnixTime {
        self.expires + SKEW
    }

    /// What stands for the token where an admitted number would stand: the first eight bytes of the SHA-256 of its
    /// id, with the top bit set, which no admitted number has.
    #[must_use]
    pub fn number(&self) -> u64 {
        let digest = digest::digest(&digest::SHA256, self.id.as_bytes());
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(first) | TOP_BIT
    }
}

/// Signs tokens. It never shows in a log.
pub struct SigningKey {
    id: KeyId,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// Reads a `PRIVATE KEY` (PKCS #8).
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let sections = pem::sections(text).map_err(|error| KeyError::Pem(error.to_string()))?;
        let section = sections
            .iter()
            .find(|section| section.label == PRIVATE)
            .ok_or(KeyError::Missing(PRIVATE))?;
        // OpenSSL writes the private half alone.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&section.der)
            .map_err(|_| KeyError::NotEd25519)?;
        let public = public_bytes(pair.public_key().as_ref()).ok_or(KeyError::NotEd25519)?;
        Ok(Self {
            id: KeyId::of(&public),
            pair,
        })
    }

    /// The name of the key in its tokens.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }
}

fn public_bytes(bytes: &[u8]) -> Option<[u8; PUBLIC_LEN]> {
    bytes.try_into().ok()
}

/// The keys whose tokens count; a few, so that they can be changed one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyingKeys(Vec<(KeyId, [u8; PUBLIC_LEN])>);

impl VerifyingKeys {
    /// Adds every `PUBLIC KEY` of a file.
    pub fn add_pem(&mut self, text: &[u8]) -> Result<(), KeyError> {
        let sections = pem::sections(text).map_err(|error| KeyError::Pem(error.to_string()))?;
        let mut found = false;
        for section in sections.iter().filter(|section| section.label == PUBLIC) {
            found = true;
            let key = section.der.strip_prefix(&SPKI_PREFIX);
            let key = key.and_then(public_bytes).ok_or(KeyError::NotEd25519)?;
            if self.0.len() >= KEYS_MAX {
                return Err(KeyError::TooMany);
            }
            self.0.push((KeyId::of(&key), key));
        }
        if found {
            Ok(())
        } else {
            Err(KeyError::Missing(PUBLIC))
        }
    }

    /// Whether there is none: no token counts.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a token that one of the keys has signed.
    pub fn open(&self, text: &[u8]) -> Result<JoinToken, TokenError> {
        let parts = Parts::of(text).ok_or(TokenError::Malformed)?;
        let mut known = self.0.iter().filter(|(id, _)| id.0 == *parts.key_id);
        let (_, key) = known.next().ok_or(TokenError::UnknownKey)?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(parts.claim, &parts.signature)
            .map_err(|_| TokenError::Signature)?;
        let payload: Payload =
            serde_json::from_slice(&parts.payload).map_err(|_| TokenError::Payload)?;
        if payload.uses == 0 || payload.reg.is_empty() || payload.jti.len() < ID_TEXT_LEN_MIN {
            return Err(TokenError::Payload);
        }
        Ok(JoinToken {
            registration: payload.reg,
            expires: UnixTime::from_secs(payload.exp),
            id: payload.jti,
            uses: payload.uses,
            source: payload.src,
        })
    }
}

/// The name of a key: eight hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    fn of(public: &[u8; PUBLIC_LEN]) -> Self {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let digest = digest::digest(&digest::SHA256, public);
        let nibble = |at: usize| {
            let byte = digest.as_ref()[at / 2];
            usize::from(if at.is_multiple_of(2) {
                byte >> 4
            } else {
                byte & 0x0f
            })
        };
        Self(std::array::from_fn(|at| DIGITS[nibble(at)]))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// What is signed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    reg: Box<str>,
    exp: u64,
    jti: Box<str>,
    uses: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    src: Option<IpNet>,
}

/// A token cut at its dots.
struct Parts<'a> {
    claim: &'a [u8],
    key_id: &'a [u8],
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a [u8]) -> Option<Self> {
        if text.len() > TOKEN_LEN_MAX {
            return None;
        }
        let dot = text.iter().rposition(|&byte| byte == b'.')?;
        let claim = text.get(..dot)?;
        let mut parts = claim.split(|&byte| byte == b'.');
        let (version, key_id, payload) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || version != VERSION.as_bytes() {
            return None;
        }
        Some(Self {
            claim,
            key_id,
            payload: URL_SAFE_NO_PAD.decode(payload).ok()?,
            signature: URL_SAFE_NO_PAD.decode(text.get(dot + 1..)?).ok()?,
        })
    }
}

/// What clocks may differ by.
pub const SKEW: Duration = Duration::from_secs(60);
/// The longest token: a line of 1,024 bytes holds it, its magic word and its end.
pub const TOKEN_LEN_MAX: usize = 1017;
const VERSION: &str = "v1";
const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// RFC 8410: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING } in front of the 32 bytes.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0,
];
const PUBLIC_LEN: usize = 32;
/// Current, next and previous of a few who mint.
const KEYS_MAX: usize = 16;
const ID_LEN: usize = 16;
/// A shorter id is one that somebody made up, and may come twice.
const ID_TEXT_LEN_MIN: usize = 8;
const TOP_BIT: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Seeded;

    const KEY: &[u8] = include_bytes!("../tests/data/keys/ed25519.pkcs8.pem");
    const KEY_PUBLIC: &[u8] = include_bytes!("../tests/data/keys/ed25519.pub.pem");
    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn keys() -> VerifyingKeys {
        let mut keys = VerifyingKeys::default();
        keys.add_pem(KEY_PUBLIC).expect("a public key");
        keys
    }

    fn token() -> JoinToken {
        let source = Some("203.0.113.0/24".parse().expect("a network"));
        let mut rng = Seeded::new(1);
        JoinToken::new("ssh.mcu1.test", NOW + HOUR, 3, source, &mut rng)
    }

    fn text() -> String {
        token().signed_with(&SigningKey::from_pem(KEY).expect("a key"))
    }

    #[test]
    fn what_was_signed_reads_back() {
        assert_eq!(keys().open(text().as_bytes()), Ok(token()));
        assert!(text().len() < 400, "{}", text().len());
        assert_eq!(token().number() >> 63, 1);
    }

    #[test]
    fn a_changed_byte_anywhere_is_no_token() {
        let good = text();
        for at in 0..good.len() {
            for flip in [1, 0x20] {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= flip;
                assert!(keys().open(&bytes).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn every_wrong_part_has_its_reason() {
        let good = text();
        let (claim, signature) = good.rsplit_once('.').expect("dots");
        let open = |text: &str| keys().open(text.as_bytes());
        for wrong in [
            String::new(),
            "v1".to_owned(),
            claim.to_owned(),
            format!("{good}.x"),
            format!("v2{}", &good[2..]),
            format!("{good}="),
            "v1.aaaaaaaa.!.AA".to_owned(),
            "v".repeat(TOKEN_LEN_MAX + 1),
        ] {
            assert_eq!(open(&wrong), Err(TokenError::Malformed), "{wrong}");
        }
        let unknown = good.replacen(&good[3..11], "00000000", 1);
        assert_eq!(open(&unknown), Err(TokenError::UnknownKey));
        let cut = format!("{claim}.{}", &signature[..signature.len() - 6]);
        assert_eq!(open(&cut), Err(TokenError::Signature));
        assert_eq!(open(&format!("{claim}.")), Err(TokenError::Signature));
        let none = VerifyingKeys::default();
        assert_eq!(none.open(good.as_bytes()), Err(TokenError::UnknownKey));
    }

    #[test]
    fn a_signature_makes_no_nonsense_a_token() {
        let key = SigningKey::from_pem(KEY).expect("a key");
        for payload in [
            "",
            "[]",
            "{}",
            r#"{"reg":"a","exp":1,"jti":"12345678","uses":0}"#,
            r#"{"reg":"","exp":1,"jti":"12345678","uses":1}"#,
            r#"{"reg":"a","exp":1,"jti":"1234567","uses":1}"#,
            r#"{"reg":"a","exp":-1,"jti":"12345678","uses":1}"#,
            r#"{"reg":"a","exp":1,"jti":"12345678","uses":65536}"#,
            r#"{"reg":"a","exp":1,"jti":"12345678","uses":1,"adm":true}"#,
            r#"{"reg":"a","exp":1,"jti":"12345678","uses":1,"src":"10.0.0.0/33"}"#,
        ] {
            let claim = format!("v1.{}.{}", key.id, URL_SAFE_NO_PAD.encode(payload));
            let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(claim.as_bytes()));
            let opened = keys().open(format!("{claim}.{signature}").as_bytes());
            assert_eq!(opened, Err(TokenError::Payload), "{payload}");
        }
    }

    #[test]
    fn time_and_source_are_checked_on_both_sides_of_their_bounds() {
        let from = "203.0.113.9".parse().expect("address");
        let check = |now, max| token().check(now, max, from);
        let ms = Duration::from_millis;
        assert_eq!(check(NOW, HOUR), Ok(()));
        let end = token().expires + SKEW;
        let last = UnixTime::from_millis(end.as_millis() - 1);
        assert_eq!(check(last, HOUR), Ok(()));
        assert_eq!(check(end, HOUR), Err(TokenError::Expired));
        assert_eq!(check(NOW, HOUR - SKEW), Ok(()));
        let short = HOUR - SKEW - ms(1);
        assert_eq!(check(NOW, short), Err(TokenError::TooLong));
        let mapped = "::ffff:203.0.113.9".parse().expect("address");
        assert_eq!(token().check(NOW, HOUR, mapped), Ok(()));
        for other in ["203.0.114.1", "2001:db8::1"] {
            let other = other.parse().expect("address");
            assert_eq!(token().check(NOW, HOUR, other), Err(TokenError::Source));
        }
    }

    #[test]
    fn what_is_no_key_is_said_so() {
        let rsa = include_bytes!("../tests/data/keys/rsa.pkcs8.pem");
        let p256 = include_bytes!("../tests/data/keys/p256.pub.pem");
        let error = |text: &[u8]| SigningKey::from_pem(text).map(|_| ()).expect_err("no key");
        assert_eq!(error(rsa), KeyError::NotEd25519);
        assert_eq!(error(KEY_PUBLIC), KeyError::Missing(PRIVATE));
        let mut keys = VerifyingKeys::default();
        assert_eq!(keys.add_pem(p256), Err(KeyError::NotEd25519));
        assert_eq!(keys.add_pem(KEY), Err(KeyError::Missing(PUBLIC)));
        for _ in 0..KEYS_MAX {
            keys.add_pem(KEY_PUBLIC).expect("room");
        }
        assert_eq!(keys.add_pem(KEY_PUBLIC), Err(KeyError::TooMany));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(keys().open(&bytes).is_err());
        }
    }
}

//! The username that is a token, and the password that follows from it (MS-AVEDGEA's shape, version 2).
//!
//! ```text
//!   off  size
//!    0    4   02 00 00 24            version 2.0, 36 bytes before the tag
//!    4    8   expiry                 FILETIME, low word then high word
//!   12   20   client id              HMAC(K_client-id, lower-case identity): a pseudonym for quotas
//!   32    4   flags                  key id 8 bits │ location 2 │ node 8 │ salt 14
//!   36   20   tag                    HMAC(K_token, bytes 0..36)
//!
//!   password, 20 bytes: HMAC(K_password, username)          every HMAC: SHA-256, cut to 20 bytes
//! ```
//!
//! Words are big-endian. A client may strip zeros and quotes at the ends of what it stores, so a salt is taken
//! under which neither text begins or ends with one.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::keys::{AvKeys, KeyRing};
use crate::random::Random;
use crate::secret::KeyId;
use crate::time::UnixTime;

/// Who asks for a credential, as the MRAS request names it; case does not matter.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Box<str>);

impl Identity {
    /// Takes any text; the longest that MRAS allows is 64 K characters.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase().into_boxed_str())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.0)
    }
}

/// Where the client said it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// It did not say.
    Any,
    /// Outside.
    Internet,
    /// Inside.
    Intranet,
}

impl Location {
    const fn bits(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Internet => 1,
            Self::Intranet => 2,
        }
    }

    const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::Any),
            1 => Some(Self::Internet),
            2 => Some(Self::Intranet),
            _ => None,
        }
    }
}

/// What is to be minted.
#[derive(Clone, Debug)]
pub struct MintRequest<'a> {
    /// For whom.
    pub identity: &'a Identity,
    /// Where the client is.
    pub location: Location,
    /// The member that mints.
    pub node: u8,
    /// For how long; the caller has held it to the configured limit.
    pub lifetime: Duration,
}

/// A username and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The token, raw: 56 bytes.
    pub username: Vec<u8>,
    /// Raw: 20 bytes.
    pub password: Vec<u8>,
    /// The last moment at which it opens an allocation.
    pub expires: UnixTime,
}

impl Credential {
    /// As MRAS answers it, and as RFC TURN uses it.
    #[must_use]
    pub fn username_text(&self) -> String {
        STANDARD.encode(&self.username)
    }

    /// As MRAS answers it, and as RFC TURN uses it.
    #[must_use]
    pub fn password_text(&self) -> String {
        STANDARD.encode(&self.password)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Mints a credential with the current key.
#[must_use]
pub fn mint(
    now: UnixTime,
    ring: &KeyRing,
    request: &MintRequest<'_>,
    rng: &mut dyn Random,
) -> Credential {
    let keys = &ring.current;
    // Whole seconds, so that what is told is what the token says.
    let expires = UnixTime::from_secs((now + request.lifetime).as_secs());
    let mut username = [0; USERNAME_LEN];
    username[..EXPIRY].copy_from_slice(&HEADER);
    username[EXPIRY..CLIENT].copy_from_slice(&filetime(expires));
    username[CLIENT..FLAGS]
        .copy_from_slice(&cut_mac(keys.client_id(), request.identity.0.as_bytes()));
    let fixed = u32::from(keys.id().0) << 24
        | request.location.bits() << 22
        | u32::from(request.node) << 14;

    let first = rng.below(SALTS);
    let mut password = [0; PASSWORD_LEN];
    // One salt in fifty is passed over; that all are has a probability of 10^-27000.
    for step in 0..SALTS {
        let flags = fixed | ((first + step) % SALTS);
        username[FLAGS..TAG].copy_from_slice(&flags.to_be_bytes());
        let tag = cut_mac(keys.token(), &username[..TAG]);
        username[TAG..].copy_from_slice(&tag);
        password = cut_mac(keys.password(), &username);
        if survives_stripping(&username) && survives_stripping(&password) {
            break;
        }
    }
    Credential {
        username: username.to_vec(),
        password: password.to_vec(),
        expires,
    }
}

/// What a good username proves.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    /// The password that goes with it.
    pub password: [u8; PASSWORD_LEN],
    /// The last moment at which it opens an allocation.
    pub expires: UnixTime,
    /// The pseudonym of its user.
    pub client_id: ClientId,
    /// Where the client said it was.
    pub location: Location,
    /// The member that minted it.
    pub node: u8,
}

impl Verified {
    /// As RFC TURN uses it.
    #[must_use]
    pub fn password_text(&self) -> String {
        STANDARD.encode(self.password)
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("expires", &self.expires)
            .field("client_id", &self.client_id)
            .field("location", &self.location)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Stands for a user in quotas and logs without naming him.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 20]);

impl fmt::Display for ClientId {
    /// The first eight bytes are enough to follow somebody through a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// Verifies a raw username, as MS-TURN carries it.
pub fn verify(now: UnixTime, ring: &KeyRing, username: &[u8]) -> Result<Verified, Refusal> {
    let username: &[u8; USERNAME_LEN] = username.try_into().map_err(|_| Refusal::NotAToken)?;
    if username[..EXPIRY] != HEADER {
        return Err(Refusal::NotAToken);
    }
    let flags = u32::from_be_bytes([username[32], username[33], username[34], username[35]]);
    let keys = signer(ring, username, KeyId((flags >> 24) as u8))?;
    let location = Location::from_bits(flags >> 22 & 0b11).ok_or(Refusal::NotAToken)?;
    let expires = from_filetime(&username[EXPIRY..CLIENT]).ok_or(Refusal::NotAToken)?;
    let mut client_id = ClientId([0; 20]);
    client_id.0.copy_from_slice(&username[CLIENT..FLAGS]);
    let verified = Verified {
        password: cut_mac(keys.password(), username),
        expires,
        client_id,
        location,
        node: (flags >> 14) as u8,
    };
    if expires + CLOCK_SKEW <= now {
        return Err(Refusal::Expired(Box::new(verified)));
    }
    Ok(verified)
}

/// Verifies a username in its base64 text, as RFC TURN carries it.
pub fn verify_text(now: UnixTime, ring: &KeyRing, username: &[u8]) -> Result<Verified, Refusal> {
    if username.len() != USERNAME_TEXT_LEN {
        return Err(Refusal::NotAToken);
    }
    let mut raw = [0; USERNAME_TEXT_LEN];
    let len = STANDARD
        .decode_slice(username, &mut raw)
        .map_err(|_| Refusal::NotAToken)?;
    verify(now, ring, &raw[..len])
}

/// Why a username was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not of our making: another size, version or form.
    #[error("not a token of this edge")]
    NotAToken,
    /// Signed by a key that is not in the ring.
    #[error("signed by a key that is not known here")]
    UnknownKey,
    /// The tag is wrong.
    #[error("altered or forged")]
    Forged,
    /// It was good until then. An allocation that it opened may go on.
    #[error("expired at {}", .0.expires)]
    Expired(Box<Verified>),
}

fn signer<'a>(
    ring: &'a KeyRing,
    username: &[u8; USERNAME_LEN],
    id: KeyId,
) -> Result<&'a AvKeys, Refusal> {
    let mut refusal = Refusal::UnknownKey;
    // Two keys of a ring share an id once in 256 rings.
    for keys in ring.accepted().filter(|keys| keys.id() == id) {
        let tag = cut_mac(keys.token(), &username[..TAG]);
        if bool::from(tag.ct_eq(&username[TAG..])) {
            return Ok(keys);
        }
        refusal = Refusal::Forged;
    }
    Err(refusal)
}

fn cut_mac(key: &hmac::Key, data: &[u8]) -> [u8; MAC_LEN] {
    let mut cut = [0; MAC_LEN];
    cut.copy_from_slice(&hmac::sign(key, data).as_ref()[..MAC_LEN]);
    cut
}

fn survives_stripping(bytes: &[u8]) -> bool {
    const QUOTE: u8 = 0x22;
    bytes.first().is_some_and(|&first| first != QUOTE)
        && bytes.last().is_some_and(|&last| last != 0 && last != QUOTE)
}

/// 100-nanosecond steps since 1601, low word first.
fn filetime(at: UnixTime) -> [u8; 8] {
    let steps = at
        .as_secs()
        .saturating_add(FILETIME_EPOCH_SECS)
        .saturating_mul(FILETIME_PER_SEC);
    let (low, high) = (steps as u32, (steps >> 32) as u32);
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&low.to_be_bytes());
    bytes[4..].copy_from_slice(&high.to_be_bytes());
    bytes
}

fn from_filetime(bytes: &[u8]) -> Option<UnixTime> {
    let (low, high) = bytes.split_first_chunk::<4>()?;
    let high: &[u8; 4] = high.try_into().ok()?;
    let steps = u64::from(u32::from_be_bytes(*high)) << 32 | u64::from(u32::from_be_bytes(*low));
    (steps / FILETIME_PER_SEC)
        .checked_sub(FILETIME_EPOCH_SECS)
        .map(UnixTime::from_secs)
}

/// Bytes of a raw username.
pub const USERNAME_LEN: usize = 56;
/// Bytes of a raw password.
pub const PASSWORD_LEN: usize = MAC_LEN;

const USERNAME_TEXT_LEN: usize = USERNAME_LEN.div_ceil(3) * 4;
const MAC_LEN: usize = 20;
/// Major, minor, size of what precedes the tag.
const HEADER: [u8; 4] = [2, 0, 0, 0x24];
const EXPIRY: usize = 4;
const CLIENT: usize = 12;
const FLAGS: usize = 32;
const TAG: usize = 36;
const SALTS: u32 = 1 << 14;
/// Seconds from 1601 to 1970.
const FILETIME_EPOCH_SECS: u64 = 11_644_473_600;
const FILETIME_PER_SEC: u64 = 10_000_000;
/// Members' clocks may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls_pki_types::PrivatePkcs8KeyDer;

    use super::*;
    use crate::random::Seeded;

    const NOW: UnixTime = UnixTime::from_secs(1_780_000_000);

    fn keys(seed: u8) -> AvKeys {
        // The head of a PKCS#8 Ed25519 key (RFC 8410 §10.3), then the seed.
        let head = [
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        let der = [&head[..], &[seed; 32]].concat();
        AvKeys::derive(&[seed], &PrivatePkcs8KeyDer::from(der).into()).unwrap()
    }

    fn request(identity: &Identity) -> MintRequest<'_> {
        MintRequest {
            identity,
            location: Location::Internet,
            node: 201,
            lifetime: Duration::from_secs(28_800),
        }
    }

    fn minted(ring: &KeyRing, seed: u64) -> Credential {
        mint(
            NOW,
            ring,
            &request(&Identity::new("sip:Alice@contoso.test")),
            &mut Seeded::new(seed),
        )
    }

    #[test]
    fn what_one_member_mints_another_verifies_in_both_dialects() {
        let credential = minted(&KeyRing::only(keys(1)), 1);
        let other = KeyRing::only(keys(1));
        let raw = verify(NOW, &other, &credential.username).unwrap();
        let text = verify_text(NOW, &other, credential.username_text().as_bytes()).unwrap();
        assert_eq!(raw, text);
        assert_eq!(raw.password.as_slice(), credential.password);
        assert_eq!(raw.password_text(), credential.password_text());
        assert_eq!(
            (raw.expires, raw.location, raw.node),
            (credential.expires, Location::Internet, 201)
        );
        assert_eq!(credential.expires, NOW + Duration::from_secs(28_800));
        assert_eq!(
            (credential.username.len(), credential.username_text().len()),
            (56, 76)
        );
        assert_eq!(
            (credential.password.len(), credential.password_text().len()),
            (20, 28)
        );
    }

    #[test]
    fn the_layout_is_pinned_because_members_of_two_versions_must_agree() {
        let credential = minted(&KeyRing::only(keys(1)), 1);
        insta::assert_snapshot!(format!(
            "{:02x?}\n{:02x?}",
            credential.username, credential.password
        ));
    }

    #[test]
    fn a_user_keeps_his_pseudonym_whatever_the_case() {
        let ring = KeyRing::only(keys(1));
        let pseudonym = |name: &str| {
            let credential = mint(
                NOW,
                &ring,
                &request(&Identity::new(name)),
                &mut Seeded::new(2),
            );
            verify(NOW, &ring, &credential.username).unwrap().client_id
        };
        assert_eq!(
            pseudonym("sip:alice@contoso.test"),
            pseudonym("sip:Alice@CONTOSO.test")
        );
        assert_ne!(
            pseudonym("sip:alice@contoso.test"),
            pseudonym("sip:bob@contoso.test")
        );
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let ring = KeyRing::only(keys(1));
        let username = minted(&ring, 1).username;
        for bit in 0..username.len() * 8 {
            let mut changed = username.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..4 => Refusal::NotAToken,
                32 => Refusal::UnknownKey,
                _ => Refusal::Forged,
            };
            assert_eq!(verify(NOW, &ring, &changed), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn it_expires_a_minute_after_its_time_and_still_tells_whose_it_was() {
        let ring = KeyRing::only(keys(1));
        let credential = minted(&ring, 1);
        let at = |later| {
            verify(
                credential.expires + Duration::from_secs(later),
                &ring,
                &credential.username,
            )
        };
        assert!(at(0).is_ok() && at(59).is_ok());
        let Err(Refusal::Expired(was)) = at(60) else {
            panic!("still good")
        };
        assert_eq!(was.password.as_slice(), credential.password);
    }

    #[test]
    fn neither_text_ends_in_what_clients_strip() {
        let ring = KeyRing::only(keys(1));
        let identity = Identity::new("x");
        for seed in 0..2_000 {
            let made = mint(NOW, &ring, &request(&identity), &mut Seeded::new(seed));
            assert!(!matches!(made.username[55], 0 | 0x22));
            assert!(made.password[0] != 0x22 && !matches!(made.password[19], 0 | 0x22));
        }
    }

    #[test]
    fn a_certificate_is_changed_in_three_steps_without_losing_a_call() {
        let (old, new) = (keys(1), keys(2));
        let stages = [
            KeyRing::only(old.clone()),
            KeyRing {
                current: old.clone(),
                next: Some(new.clone()),
                previous: None,
            },
            KeyRing {
                current: new.clone(),
                next: None,
                previous: Some(old),
            },
            KeyRing::only(new),
        ];
        for (here, there) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)] {
            assert!(
                verify(NOW, &stages[there], &minted(&stages[here], 1).username).is_ok(),
                "{here} to {there}"
            );
        }
        assert_eq!(
            verify(NOW, &stages[3], &minted(&stages[0], 1).username),
            Err(Refusal::UnknownKey)
        );
    }

    #[test]
    fn two_certificates_with_one_key_id_are_both_tried() {
        let first = keys(1);
        let twin = (0..=255)
            .map(keys)
            .find(|other| other.id() == first.id() && !other.are_of(&[1]));
        let twin = twin
            .or_else(|| {
                // 256 seeds need not hit; a longer SPKI gives as many more as are needed.
                (0..10_000u32)
                    .map(|n| {
                        let head = [
                            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
                        ];
                        let der = [&head[..], &[9; 32]].concat();
                        AvKeys::derive(&n.to_be_bytes(), &PrivatePkcs8KeyDer::from(der).into())
                            .unwrap()
                    })
                    .find(|other| other.id() == first.id())
            })
            .unwrap();
        let username = minted(&KeyRing::only(twin.clone()), 1).username;
        assert_eq!(
            verify(NOW, &KeyRing::only(first.clone()), &username),
            Err(Refusal::Forged)
        );
        let ring = KeyRing {
            current: first,
            next: None,
            previous: Some(twin),
        };
        assert!(verify(NOW, &ring, &username).is_ok());
    }

    #[test]
    fn the_ring_knows_the_key_of_a_listener() {
        let ring = KeyRing {
            current: keys(1),
            next: Some(keys(2)),
            previous: None,
        };
        assert!(ring.holds(&[1]) && ring.holds(&[2]));
        assert!(!ring.holds(&[3]));
    }

    #[test]
    fn the_filetime_of_a_known_day() {
        // 2026-01-01T00:00:00Z is 134 116 992 000 000 000 steps after 1601.
        let bytes = filetime(UnixTime::from_secs(1_767_225_600));
        let steps = 134_116_992_000_000_000u64;
        assert_eq!(bytes[..4], (steps as u32).to_be_bytes());
        assert_eq!(bytes[4..], ((steps >> 32) as u32).to_be_bytes());
        assert_eq!(from_filetime(&[0; 8]), None);
    }

    proptest! {
        #[test]
        fn mint_then_verify_gives_back_what_was_asked(
            seed in any::<u64>(), node in any::<u8>(), lifetime in 1..10_000_000u64, place in 0..3u32, name in "\\PC{0,40}",
        ) {
            let ring = KeyRing::only(keys(1));
            let location = Location::from_bits(place).unwrap();
            let identity = Identity::new(&name);
            let request = MintRequest { identity: &identity, location, node, lifetime: Duration::from_secs(lifetime) };
            let made = mint(NOW, &ring, &request, &mut Seeded::new(seed));
            let seen = verify(NOW, &ring, &made.username).unwrap();
            prop_assert_eq!((seen.node, seen.location, seen.expires), (node, location, made.expires));
        }

        #[test]
        fn foreign_usernames_never_verify_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let ring = KeyRing::only(keys(1));
            prop_assert!(verify(NOW, &ring, &bytes).is_err());
            prop_assert!(verify_text(NOW, &ring, &bytes).is_err());
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let ring = KeyRing::only(keys(1));
        let credential = minted(&ring, 1);
        let shown = format!(
            "{ring:?} {credential:?} {:?}",
            verify(NOW, &ring, &credential.username)
        );
        let password = format!("{:?}", credential.password);
        assert!(
            !shown.contains(&credential.password_text())
                && !shown.contains(password.trim_matches(['[', ']']))
        );
    }
}

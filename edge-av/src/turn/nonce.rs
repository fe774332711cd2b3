//! Nonces that need no table: a time and a MAC over it and the client's address (RFC 8489 §9.2).
//!
//! ```text
//!   base64, 16 characters ── │ seconds since 1970 (4) │ HMAC-SHA256(key, seconds ‖ address), first 8 bytes │
//! ```
//!
//! The key comes from the array secret, so that every member accepts what another gave out.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use edge_common::secret::DerivedKeys;
use edge_common::time::Now;
use subtle::ConstantTimeEq as _;

/// Gives out nonces and knows them again.
#[derive(Debug)]
pub struct Nonces {
    /// The first one makes new nonces.
    keys: Vec<hmac::Key>,
    lifetime: Duration,
}

/// The nonce is not ours, not this client's, or too old; the answer is 438 with a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl Nonces {
    /// Uses the keys of [`edge_common::secret::Label::TurnNonce`].
    #[must_use]
    pub fn new(keys: &DerivedKeys) -> Self {
        let mut all = vec![hmac_key(keys.current.as_bytes())];
        all.extend(keys.accepted().map(|key| hmac_key(key.as_bytes())));
        Self {
            keys: all,
            lifetime: NONCE_LIFETIME,
        }
    }

    /// A nonce for `client`.
    #[must_use]
    pub fn issue(&self, now: Now, client: IpAddr) -> [u8; NONCE_LEN] {
        let seconds = (now.unix.as_secs() as u32).to_be_bytes();
        let mut raw = [0; RAW_LEN];
        raw[..4].copy_from_slice(&seconds);
        raw[4..].copy_from_slice(&mac(&self.keys[0], seconds, client));
        let mut text = [0; NONCE_LEN];
        STANDARD_NO_PAD
            .encode_slice(raw, &mut text)
            .expect("twelve bytes are sixteen characters");
        text
    }

    /// Whether `nonce` was given to `client` and is not too old.
    pub fn check(&self, now: Now, client: IpAddr, nonce: &[u8]) -> Result<(), Stale> {
        let mut raw = [0; RAW_LEN];
        if nonce.len() != NONCE_LEN || STANDARD_NO_PAD.decode_slice(nonce, &mut raw) != Ok(RAW_LEN)
        {
            return Err(Stale);
        }
        let (seconds, received) = raw.split_at(4);
        let seconds = [seconds[0], seconds[1], seconds[2], seconds[3]];
        let known = self
            .keys
            .iter()
            .any(|key| mac(key, seconds, client).ct_eq(received).into());
        if known && self.is_fresh(now, u64::from(u32::from_be_bytes(seconds))) {
            Ok(())
        } else {
            Err(Stale)
        }
    }

    fn is_fresh(&self, now: Now, issued: u64) -> bool {
        let now = now.unix.as_secs();
        issued <= now + CLOCK_SKEW.as_secs() && now <= issued + self.lifetime.as_secs()
    }
}

fn hmac_key(secret: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn mac(key: &hmac::Key, seconds: [u8; 4], client: IpAddr) -> [u8; MAC_LEN] {
    let mut context = hmac::Context::with_key(key);
    context.update(&seconds);
    match client {
        IpAddr::V4(ip) => context.update(&ip.octets()),
        IpAddr::V6(ip) => context.update(&ip.octets()),
    }
    let mut cut = [0; MAC_LEN];
    cut.copy_from_slice(&context.sign().as_ref()[..MAC_LEN]);
    cut
}

/// Characters of a nonce.
pub const NONCE_LEN: usize = 16;
const RAW_LEN: usize = 4 + MAC_LEN;
/// Enough that guessing one costs 2^63 answers, each of which is budgeted; short, because it goes to strangers.
const MAC_LEN: usize = 8;
/// RFC 8656 §5 wants a new one at least once an hour.
const NONCE_LIFETIME: Duration = Duration::from_secs(3600);
/// How far the clocks of two members may be apart.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::random::Seeded;
    use edge_common::secret::{ArraySecret, Label, Secrets};
    use edge_common::time::UnixTime;
    use std::time::Instant;

    fn nonces(current: u64, previous: Option<u64>) -> Nonces {
        let secret = |seed| ArraySecret::generate(&mut Seeded::new(seed));
        let secrets = Secrets {
            current: secret(current),
            next: None,
            previous: previous.map(secret),
        };
        Nonces::new(&secrets.derive(Label::TurnNonce))
    }

    fn start() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        }
    }

    #[test]
    fn a_nonce_is_for_one_address_and_one_hour() {
        let (nonces, now) = (nonces(1, None), start());
        let (ann, bob) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let nonce = nonces.issue(now, ann);
        let later = |secs| now.plus(Duration::from_secs(secs));
        assert_eq!(nonces.check(now, ann, &nonce), Ok(()));
        assert_eq!(nonces.check(later(3600), ann, &nonce), Ok(()));
        assert_eq!(nonces.check(later(3601), ann, &nonce), Err(Stale));
        assert_eq!(nonces.check(now, bob, &nonce), Err(Stale));
        assert_eq!(nonces.check(now, ann, b"AAAAAAAAAAAAAAAA"), Err(Stale));
        assert_eq!(nonces.check(now, ann, &nonce[..15]), Err(Stale));
    }

    #[test]
    fn members_one_step_apart_in_a_change_of_secrets_agree() {
        let (old, new, now, ann) = (
            nonces(1, None),
            nonces(2, Some(1)),
            start(),
            IpAddr::from([192, 0, 2, 1]),
        );
        assert_eq!(new.check(now, ann, &old.issue(now, ann)), Ok(()));
        assert_eq!(old.check(now, ann, &new.issue(now, ann)), Err(Stale));
    }
}

//! TLS session tickets that every member of the array can open (RFC 8446 §4.6.1).
//!
//! There is nothing to distribute and nothing to rotate by hand: the key of each six-hour period is derived
//! from the array secret, so members agree as soon as they share the secret and roughly the time.
//!
//! ```text
//!   0        1        5            17
//!   ┌────────┬────────┬────────────┬───────────────────────────┬──────────┐
//!   │ key id │ period │ nonce      │ session, AES-256-GCM      │ tag (16) │
//!   └────────┴────────┴────────────┴───────────────────────────┴──────────┘
//!    └─ authenticated ┘
//! ```
//!
//! Only TLS 1.3 sessions get a ticket. Resuming one still makes a fresh key exchange; with TLS 1.2 whoever
//! learns the secret later could read what was recorded.
//!
//! Listeners that ask for a client certificate issue none at all: a resumed session would skip revocation.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

use crate::random::{Random, SystemRandom};
use crate::secret::{DerivedKey, DerivedKeys, KeyId, Label, Secrets};

/// Seals and opens tickets with the keys of the array.
pub struct ArrayTickets {
    keys: DerivedKeys,
    clock: Arc<dyn TimeProvider>,
}

impl ArrayTickets {
    /// Tickets under the array's secrets.
    #[must_use]
    pub fn new(secrets: &Secrets, clock: Arc<dyn TimeProvider>) -> Arc<Self> {
        Arc::new(Self {
            keys: secrets.derive(Label::TlsTicket),
            clock,
        })
    }

    fn period(&self) -> Option<u32> {
        u32::try_from(self.clock.current_time()?.as_secs() / PERIOD_SECS).ok()
    }
}

impl ProducesTickets for ArrayTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if session_version(plain)? != TLS13 {
            return None;
        }
        let period = self.period()?;
        let key = &self.keys.current;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom.fill(&mut nonce);

        let mut ticket = Vec::with_capacity(OVERHEAD + plain.len());
        ticket.push(key.id().0);
        ticket.extend_from_slice(&period.to_be_bytes());
        let header: [u8; HEADER_LEN] = ticket.as_slice().try_into().ok()?;
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let tag = cipher(key, period)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                &mut ticket[HEADER_LEN + NONCE_LEN..],
            )
            .ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() < OVERHEAD {
            return None;
        }
        let (header, rest) = ticket.split_first_chunk::<HEADER_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let [id, period @ ..] = *header;
        let period = u32::from_be_bytes(period);
        // One period ahead: the clocks of two members may differ at the turn.
        if self.period()?.abs_diff(period) > 1 {
            return None;
        }
        self.keys.with_id(KeyId(id)).find_map(|key| {
            let mut plain = sealed.to_vec();
            let opened = cipher(key, period)
                .open_in_place(
                    Nonce::assume_unique_for_key(*nonce),
                    Aad::from(*header),
                    &mut plain,
                )
                .ok()?
                .len();
            plain.truncate(opened);
            Some(plain)
        })
    }
}

impl fmt::Debug for ArrayTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayTickets")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

fn cipher(key: &DerivedKey, period: u32) -> LessSafeKey {
    let key = key.narrow(&period.to_be_bytes());
    let unbound = UnboundKey::new(&AES_256_GCM, key.as_bytes())
        .expect("a derived key has the 32 bytes of AES-256");
    LessSafeKey::new(unbound)
}

/// The TLS version within rustls' encoding of a session: a flag, the SNI if it is set, then the version.
///
/// Should rustls change that encoding, tickets stop and the tests below say so.
fn session_version(plain: &[u8]) -> Option<[u8; 2]> {
    let version = match plain {
        [0, rest @ ..] => rest,
        [1, len, rest @ ..] => rest.get(usize::from(*len)..)?,
        _ => return None,
    };
    version.first_chunk().copied()
}

/// How long one key is used.
const PERIOD_SECS: u64 = 6 * 60 * 60;
/// A ticket made at the end of its period lives through the next one.
const LIFETIME_SECS: u32 = 6 * 60 * 60;
/// RFC 8446 §4.1.3.
const TLS13: [u8; 2] = [3, 4];
const HEADER_LEN: usize = 1 + 4;
const TAG_LEN: usize = 16;
const OVERHEAD: usize = HEADER_LEN + NONCE_LEN + TAG_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::test_pki::FixedClock;
    use crate::random::Seeded;
    use crate::secret::ArraySecret;

    /// As rustls writes it: no SNI, TLS 1.3.
    const SESSION: &[u8] = &[0, 3, 4, 0x13, 1, 9, 9, 9];

    fn secret(seed: u64) -> ArraySecret {
        ArraySecret::generate(&mut Seeded::new(seed))
    }

    fn tickets(secrets: &Secrets, secs: u64) -> Arc<ArrayTickets> {
        ArrayTickets::new(secrets, FixedClock::at(secs))
    }

    #[test]
    fn members_open_each_others_tickets_for_six_hours_and_not_for_thirteen() {
        let secrets = Secrets::only(secret(1));
        for start in [0, 1, PERIOD_SECS - 1] {
            let begin = 300_000 * PERIOD_SECS + start;
            let ticket = tickets(&secrets, begin).encrypt(SESSION).unwrap();
            let opened = |later: u64| tickets(&secrets, begin + later).decrypt(&ticket);
            assert_eq!(opened(0).as_deref(), Some(SESSION));
            assert_eq!(opened(u64::from(LIFETIME_SECS)).as_deref(), Some(SESSION));
            assert_eq!(opened(13 * 60 * 60), None);
        }
    }

    #[test]
    fn a_member_whose_clock_is_a_minute_behind_still_opens() {
        let secrets = Secrets::only(secret(1));
        let ticket = tickets(&secrets, 10 * PERIOD_SECS)
            .encrypt(SESSION)
            .unwrap();
        assert!(
            tickets(&secrets, 10 * PERIOD_SECS - 60)
                .decrypt(&ticket)
                .is_some()
        );
    }

    #[test]
    fn a_changed_bit_or_a_cut_is_noticed() {
        let member = tickets(&Secrets::only(secret(1)), 1_000_000);
        let ticket = member.encrypt(SESSION).unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(member.decrypt(&changed), None, "byte {at}");
            assert_eq!(member.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn tickets_outlive_a_change_of_the_secret() {
        let (old, new) = (secret(1), secret(2));
        let before = tickets(&Secrets::only(old.clone()), 1_000_000)
            .encrypt(SESSION)
            .unwrap();
        let after = Secrets {
            current: new.clone(),
            next: None,
            previous: Some(old),
        };
        assert!(tickets(&after, 1_000_000).decrypt(&before).is_some());
        assert!(
            tickets(&Secrets::only(new), 1_000_000)
                .decrypt(&before)
                .is_none()
        );
    }

    #[test]
    fn sessions_of_tls_1_2_get_none() {
        let member = tickets(&Secrets::only(secret(1)), 1_000_000);
        assert_eq!(member.encrypt(&[0, 3, 3, 0xc0, 0x2f]), None);
        assert_eq!(member.encrypt(&[1, 2, b'a', b'b', 3, 3, 0xc0]), None);
        assert!(member.encrypt(&[1, 2, b'a', b'b', 3, 4, 0x13]).is_some());
        assert_eq!(member.encrypt(&[]), None);
        assert_eq!(member.encrypt(&[1, 200, 3]), None);
    }
}

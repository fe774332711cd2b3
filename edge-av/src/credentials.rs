//! The credentials of this edge as the TURN server asks for them: tokens of the A/V authentication service, and user
//! names that a server inside has signed with a shared secret.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use aws_lc_rs::digest;
use edge_common::credential::{self, KeyRing, Refusal, RestRefusal, RestSecrets};
use edge_common::time::Now;
use zeroize::Zeroizing;

use crate::turn::authority::{Authority, Denied, Verified};
use crate::turn::quota::UserId;

/// Both sources of credentials; a token is long and has no colon, so they do not overlap.
#[derive(Debug)]
pub struct Credentials {
    /// Keys of the A/V authentication certificates.
    pub ring: KeyRing,
    /// Shared secrets, when configured.
    pub rest: Option<RestSecrets>,
}

impl Authority for Credentials {
    fn verify(&self, now: Now, username: &[u8]) -> Result<Verified, Denied> {
        match credential::verify_text(now.unix, &self.ring, username) {
            Ok(token) => Ok(Verified {
                passwords: vec![Zeroizing::new(token.password_text().into_bytes())],
                user: user_id(&token.client_id.0),
            }),
            Err(Refusal::NotAToken) => self.verify_rest(now, username),
            Err(Refusal::UnknownKey | Refusal::Forged) => Err(Denied::Unknown),
            Err(Refusal::Expired(_)) => Err(Denied::Expired),
        }
    }
}

impl Credentials {
    fn verify_rest(&self, now: Now, username: &[u8]) -> Result<Verified, Denied> {
        let rest = self.rest.as_ref().ok_or(Denied::Unknown)?;
        let verified = rest
            .verify(now.unix, username)
            .map_err(|refusal| match refusal {
                RestRefusal::NotRest => Denied::Unknown,
                RestRefusal::Expired { .. } => Denied::Expired,
            })?;
        // What stands behind the time is the user; the time differs each time that it signs in.
        let name = username
            .splitn(2, |&byte| byte == b':')
            .nth(1)
            .unwrap_or(username);
        Ok(Verified {
            passwords: verified
                .passwords
                .into_iter()
                .map(|password| Zeroizing::new(password.into_bytes()))
                .collect(),
            user: user_id(name),
        })
    }
}

fn user_id(name: &[u8]) -> UserId {
    let hash = digest::digest(&digest::SHA256, name);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    UserId(u64::from_be_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::credential::{AvKeys, Identity, Location, MintRequest, RestSecret};
    use edge_common::random::Seeded;
    use edge_common::time::UnixTime;
    use std::time::{Duration, Instant};

    fn start() -> Now {
        Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        }
    }

    fn credentials() -> Credentials {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let der = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let key = pair.serialize_der().try_into().expect("PKCS #8");
        let keys = AvKeys::derive(&der, &key).expect("a usable key");
        let rest = RestSecret::from_text(b"a-secret-that-is-long-enough-for-anybody")
            .expect("long enough");
        Credentials {
            ring: KeyRing::only(keys),
            rest: Some(RestSecrets::only(rest)),
        }
    }

    #[test]
    fn a_minted_token_and_its_user_are_known_again_until_it_expires() {
        let (credentials, now) = (credentials(), start());
        let mint = |seed, who| {
            let identity = Identity::new(who);
            let lifetime = Duration::from_secs(3600);
            let request = MintRequest {
                identity: &identity,
                location: Location::Any,
                node: 0,
                lifetime,
            };
            credential::mint(
                now.unix,
                &credentials.ring,
                &request,
                &mut Seeded::new(seed),
            )
        };
        let (first, second, other) = (
            mint(1, "sip:ann@contoso.test"),
            mint(2, "sip:ann@contoso.test"),
            mint(3, "sip:bob@contoso.test"),
        );
        let verify = |now, token: &str| credentials.verify(now, token.as_bytes());
        let known = verify(now, &first.username_text()).expect("minted here");
        assert_eq!(
            known.passwords[0].as_slice(),
            first.password_text().as_bytes()
        );
        assert_eq!(
            known.user,
            verify(now, &second.username_text())
                .expect("minted here")
                .user
        );
        assert_ne!(
            known.user,
            verify(now, &other.username_text())
                .expect("minted here")
                .user
        );
        let late = now.plus(Duration::from_secs(3700));
        assert_eq!(
            verify(late, &first.username_text()).err(),
            Some(Denied::Expired)
        );
        let mut forged = first.username_text();
        forged.replace_range(20..21, if &forged[20..21] == "A" { "B" } else { "A" });
        assert_eq!(verify(now, &forged).err(), Some(Denied::Unknown));
    }

    #[test]
    fn a_rest_name_is_known_by_the_part_behind_its_time() {
        let (credentials, now) = (credentials(), start());
        let rest = credentials.rest.as_ref().expect("configured");
        let mint = |name, secs| rest.mint(now.unix, name, Duration::from_secs(secs));
        let verify = |username: &str| credentials.verify(now, username.as_bytes());
        let (early, late) = (mint("ann", 60), mint("ann", 600));
        let known = verify(&early.username).expect("signed here");
        assert_eq!(known.passwords[0].as_slice(), early.password.as_bytes());
        assert_eq!(
            known.user,
            verify(&late.username).expect("signed here").user
        );
        assert_eq!(verify("1600000000:ann").err(), Some(Denied::Expired));
        assert_eq!(verify("ann").err(), Some(Denied::Unknown));
    }
}

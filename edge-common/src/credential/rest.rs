//! Credentials by a shared secret: `EXPIRY:name` and base64(HMAC-SHA1(secret, username)).
//!
//! Web applications and other TURN servers know this scheme; whoever has the secret makes credentials without
//! asking us. It has nothing in common with the keys of MRAS.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::time::UnixTime;

/// One shared secret.
#[derive(Clone)]
pub struct RestSecret(hmac::Key);

impl RestSecret {
    /// The text of a secret file, without blanks and line ends around it; the text itself is the HMAC key, as elsewhere.
    pub fn from_text(text: &[u8]) -> Result<Self, RestSecretError> {
        let secret = text.trim_ascii();
        if secret.len() < SECRET_LEN_MIN {
            return Err(RestSecretError::Short { len: secret.len() });
        }
        if secret.iter().any(u8::is_ascii_whitespace) {
            return Err(RestSecretError::SeveralWords);
        }
        Ok(Self(hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret)))
    }

    fn password(&self, username: &[u8]) -> String {
        STANDARD.encode(hmac::sign(&self.0, username))
    }
}

impl fmt::Debug for RestSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestSecret(…)")
    }
}

/// Why a secret file was refused. It never quotes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestSecretError {
    /// Too easily guessed.
    #[error("{len} characters; at least {SECRET_LEN_MIN} are needed")]
    Short {
        /// What was found.
        len: usize,
    },
    /// Two lines, or a comment.
    #[error("blanks within the secret; the file holds the secret and nothing else")]
    SeveralWords,
}

/// The secrets in use.
#[derive(Clone, Debug)]
pub struct RestSecrets {
    /// Mints and verifies.
    pub current: RestSecret,
    /// Verifies.
    pub previous: Option<RestSecret>,
}

/// A username and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RestCredential {
    /// `EXPIRY:name`.
    pub username: String,
    /// base64 text.
    pub password: String,
    /// The last moment at which it opens an allocation.
    pub expires: UnixTime,
}

impl fmt::Debug for RestCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestCredential")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What a lawful username gives.
///
/// Nothing is proven yet: whoever asks has the password only if the message's integrity holds under one of these.
#[derive(Clone, PartialEq, Eq)]
pub struct RestVerified {
    /// The passwords that go with it, by the current secret first.
    pub passwords: Vec<String>,
    /// The last moment at which it opens an allocation.
    pub expires: UnixTime,
}

impl fmt::Debug for RestVerified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestVerified")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl RestSecrets {
    /// A single secret.
    #[must_use]
    pub const fn only(current: RestSecret) -> Self {
        Self {
            current,
            previous: None,
        }
    }

    /// Makes a credential for `name`.
    #[must_use]
    pub fn mint(&self, now: UnixTime, name: &str, lifetime: Duration) -> RestCredential {
        let expires = UnixTime::from_secs((now + lifetime).as_secs());
        let username = format!("{}:{name}", expires.as_secs());
        let password = self.current.password(username.as_bytes());
        RestCredential {
            username,
            password,
            expires,
        }
    }

    /// Says which passwords go with a username; the name after the colon may be missing.
    pub fn verify(&self, now: UnixTime, username: &[u8]) -> Result<RestVerified, RestRefusal> {
        let digits = username
            .split(|&byte| byte == b':')
            .next()
            .unwrap_or_default();
        let expires = decimal(digits)
            .map(UnixTime::from_secs)
            .ok_or(RestRefusal::NotRest)?;
        if expires + CLOCK_SKEW <= now {
            return Err(RestRefusal::Expired { since: expires });
        }
        let secrets = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten();
        Ok(RestVerified {
            passwords: secrets.map(|secret| secret.password(username)).collect(),
            expires,
        })
    }
}

/// Why a username was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestRefusal {
    /// It does not begin with a time.
    #[error("not of the form EXPIRY:name")]
    NotRest,
    /// It was good until then.
    #[error("expired at {since}")]
    Expired {
        /// Its end.
        since: UnixTime,
    },
}

/// Digits and nothing else; `parse` alone would take a sign.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |value, digit| value * 10 + u64::from(digit - b'0')),
    )
}

/// 96 bits, if well chosen.
const SECRET_LEN_MIN: usize = 16;
/// The year 5138; enough to fit, too few to overflow.
const DIGITS_MAX: usize = 11;
/// The application's clock may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_780_000_000);

    fn secret(text: &str) -> RestSecret {
        RestSecret::from_text(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_password_is_the_one_that_openssl_computes() {
        // printf %s 1780003600:alice | openssl dgst -sha1 -hmac north-wind-blows -binary | base64
        let made = RestSecrets::only(secret("north-wind-blows\n")).mint(
            NOW,
            "alice",
            Duration::from_secs(3_600),
        );
        assert_eq!(made.username, "1780003600:alice");
        assert_eq!(made.password, OPENSSL);
    }

    const OPENSSL: &str = "8Z5lDUysw9wwmkJWTelTOm3WMp4=";

    #[test]
    fn both_secrets_of_a_change_verify() {
        let (old, new) = (
            secret("an-old-secret-of-ours"),
            secret("a-new-secret-of-ours"),
        );
        let made = RestSecrets::only(old.clone()).mint(NOW, "alice", Duration::from_secs(60));
        let during = RestSecrets {
            current: new.clone(),
            previous: Some(old),
        };
        let seen = during.verify(NOW, made.username.as_bytes()).unwrap();
        assert_eq!(seen.passwords.len(), 2);
        assert_eq!(
            (&seen.passwords[1], seen.expires),
            (&made.password, made.expires)
        );
        let after = RestSecrets::only(new)
            .verify(NOW, made.username.as_bytes())
            .unwrap();
        assert!(!after.passwords.contains(&made.password));
    }

    #[test]
    fn it_expires() {
        let secrets = RestSecrets::only(secret("north-wind-blows"));
        let at = |secs| secrets.verify(UnixTime::from_secs(secs), b"1780000000:a");
        assert!(at(1_780_000_059).is_ok());
        assert_eq!(at(1_780_000_060), Err(RestRefusal::Expired { since: NOW }));
    }

    #[test]
    fn only_a_time_comes_first() {
        let secrets = RestSecrets::only(secret("north-wind-blows"));
        assert!(secrets.verify(NOW, b"1880000000").is_ok());
        assert!(secrets.verify(NOW, b"1880000000:a:b").is_ok());
        for username in [
            "",
            ":a",
            "alice",
            "+1880000000:a",
            " 1880000000:a",
            "188000000000:a",
            "alice:1880000000",
        ] {
            assert_eq!(
                secrets.verify(NOW, username.as_bytes()),
                Err(RestRefusal::NotRest),
                "{username}"
            );
        }
    }

    #[test]
    fn a_weak_file_is_refused() {
        let refused = |text: &str| RestSecret::from_text(text.as_bytes()).unwrap_err();
        assert_eq!(refused(" short \n"), RestSecretError::Short { len: 5 });
        assert_eq!(
            refused("the north wind blows"),
            RestSecretError::SeveralWords
        );
    }
}

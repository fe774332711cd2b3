//! Who sent a request: the long-term mechanism of RFC 8489 §9.2.

use std::sync::Arc;
use std::time::Duration;

use edge_common::time::Now;

use super::Server;
use super::five_tuple::FiveTuple;
use super::quota::UserId;
use super::refusal::Refusal;
use crate::stun::fields::Fields;
use crate::stun::integrity::{Algorithm, Key};

/// Somebody who has proven that it knows the password of its user name.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    /// As it was sent.
    pub(super) username: &'a [u8],
    /// What it signs with.
    pub(super) key: Arc<Key>,
    /// How it signs.
    pub(super) algorithm: Algorithm,
    /// Known when the token was looked at, which an existing allocation makes unnecessary.
    pub(super) user: Option<UserId>,
}

impl Server {
    /// The long-term mechanism of RFC 8489 §9.2.4, in its order.
    pub(super) fn authenticate<'a>(
        &self,
        now: Now,
        from: FiveTuple,
        fields: &Fields<'a>,
    ) -> Result<Caller<'a>, Refusal> {
        let proof = fields.proof.ok_or(Refusal::Unauthenticated)?;
        let (Some(username), Some(realm), Some(nonce)) =
            (fields.username, fields.realm, fields.nonce)
        else {
            return Err(Refusal::BadRequest);
        };
        self.shared
            .nonces
            .check(now, from.client.ip(), nonce)
            .map_err(|_| Refusal::StaleNonce)?;
        if realm != self.settings.realm.as_bytes() {
            return Err(Refusal::Unauthenticated);
        }
        let (key, user) = match self.session_key(now, from, username) {
            Some(key) => (Some(key).filter(|key| fields.proven_by(key)), None),
            None => self.token_key(now, username, fields)?,
        };
        let key = key.ok_or(Refusal::Unauthenticated)?;
        Ok(Caller {
            username,
            key,
            algorithm: proof.algorithm,
            user,
        })
    }

    /// An allocation keeps its key: a call does not end because the token that began it has expired meanwhile. But a
    /// session ends some time.
    fn session_key(&self, now: Now, from: FiveTuple, username: &[u8]) -> Option<Arc<Key>> {
        let held = self.allocation_of(from)?;
        let current = *held.username == *username && now.mono < held.since + SESSION_MAX;
        current.then(|| Arc::clone(&held.key))
    }

    /// The key, among those that belong to the user name, that made the message's MAC.
    fn token_key(
        &self,
        now: Now,
        username: &[u8],
        fields: &Fields<'_>,
    ) -> Result<(Option<Arc<Key>>, Option<UserId>), Refusal> {
        let verified = self
            .shared
            .authority
            .verify(now, username)
            .map_err(|_| Refusal::Unauthenticated)?;
        let realm = self.settings.realm.as_bytes();
        let mut keys = verified
            .passwords
            .iter()
            .map(|password| Key::long_term(username, realm, password));
        Ok((
            keys.find(|key| fields.proven_by(key)).map(Arc::new),
            Some(verified.user),
        ))
    }
}

/// How long an allocation may be refreshed with a token that has expired meanwhile.
pub(super) const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);

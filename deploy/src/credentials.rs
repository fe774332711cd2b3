//! Media credentials without a running daemon: whoever may read the key may mint.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_common::cert::store::{self, LoadError};
use edge_common::config::Av;
use edge_common::credential::{
    self, AvKeys, Identity, KeyMaterialError, KeyRing, Location, MintRequest, RestSecret,
    RestSecretError, RestSecrets,
};
use edge_common::random::Random;
use edge_common::time::UnixTime;
use serde::Serialize;

/// A username and password for TURN.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Minted {
    /// As RFC TURN takes it.
    pub username: String,
    /// As RFC TURN takes it.
    pub password: String,
    /// The realm that the relay will name.
    pub realm: String,
    /// Seconds since 1970.
    pub expires: u64,
}

/// Says when it ends and nothing else.
impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What is to be minted.
#[derive(Clone, Debug)]
pub struct Order {
    /// For whom.
    pub user: String,
    /// Where that user is.
    pub location: Location,
    /// The member that mints.
    pub node: u8,
    /// For how long.
    pub lifetime: Duration,
}

/// Why nothing was minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Longer than the relay's operator allows.
    #[error("{asked:?} is longer than av.token_lifetime_max, {max:?}")]
    TooLong {
        /// What was asked.
        asked: Duration,
        /// What is allowed.
        max: Duration,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The key is of a kind that nothing can be derived from.
    #[error("{}: {error}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why.
        error: KeyMaterialError,
    },
    /// No such source is configured.
    #[error("av.rest_secrets is not configured")]
    NoRestSecret,
    /// The secret's file cannot be read.
    #[error("{}: {error}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The secret cannot be used.
    #[error("{}: {error}", path.display())]
    SecretText {
        /// The file.
        path: PathBuf,
        /// Why.
        error: RestSecretError,
    },
}

/// Mints with the A/V authentication key, as MRAS does.
///
/// # Errors
/// When the key cannot be used or the lifetime is too long.
pub fn mint(
    av: &Av,
    base: &Path,
    order: &Order,
    now: UnixTime,
    rng: &mut dyn Random,
) -> Result<Minted, MintError> {
    check_lifetime(av, order)?;
    let mut files = av.authentication.current.clone();
    files.chain = base.join(files.chain);
    files.key = base.join(files.key);
    let pair = store::load_pair(&files)?;
    let key = store::read_key(&files.key).map_err(|fault| LoadError::new(&files.key, fault))?;
    let keys = AvKeys::derive(&pair.facts.public_key, &key).map_err(|error| MintError::Key {
        path: files.key.clone(),
        error,
    })?;
    let identity = Identity::new(&order.user);
    let request = MintRequest {
        identity: &identity,
        location: order.location,
        node: order.node,
        lifetime: order.lifetime,
    };
    let minted = credential::mint(now, &KeyRing::only(keys), &request, rng);
    Ok(Minted {
        username: minted.username_text(),
        password: minted.password_text(),
        realm: av.realm.clone(),
        expires: minted.expires.as_secs(),
    })
}

/// Mints with the secret that is shared with other servers.
///
/// # Errors
/// When there is no such secret or the lifetime is too long.
pub fn mint_rest(av: &Av, base: &Path, order: &Order, now: UnixTime) -> Result<Minted, MintError> {
    check_lifetime(av, order)?;
    let files = av.rest_secrets.as_ref().ok_or(MintError::NoRestSecret)?;
    let path = base.join(&files.current);
    let text = fs::read(&path)
        .map(zeroize::Zeroizing::new)
        .map_err(|error| MintError::Secret {
            path: path.clone(),
            error,
        })?;
    let secret =
        RestSecret::from_text(&text).map_err(|error| MintError::SecretText { path, error })?;
    let minted = RestSecrets::only(secret).mint(now, &order.user, order.lifetime);
    Ok(Minted {
        username: minted.username,
        password: minted.password,
        realm: av.realm.clone(),
        expires: minted.expires.as_secs(),
    })
}

fn check_lifetime(av: &Av, order: &Order) -> Result<(), MintError> {
    if order.lifetime <= av.token_lifetime_max {
        return Ok(());
    }
    Err(MintError::TooLong {
        asked: order.lifetime,
        max: av.token_lifetime_max,
    })
}

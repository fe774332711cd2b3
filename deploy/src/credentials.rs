//! Media credentials without a running daemon: whoever may read the key may mint.

use std::time::Duration;

use edge_common::cert::role::{Role, Wanted};
use edge_common::config::{Av, units};
use edge_common::credential::{self, Identity, Location, MintRequest};
use edge_common::random::Random;
use edge_common::secret_files::{self, SecretFileError};
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
    #[error("{} is longer than av.token_lifetime_max, {}", units::duration_text(*.asked), units::duration_text(*.max))]
    TooLong {
        /// What was asked.
        asked: Duration,
        /// What is allowed.
        max: Duration,
    },
    /// The certificate, its key or the secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// No such source is configured.
    #[error("av.rest_secrets is not configured")]
    NoRestSecret,
}

/// Mints with the A/V authentication key, as MRAS does. Paths in `av` are taken as they are.
///
/// # Errors
/// When the key cannot be used or the lifetime is too long.
pub fn mint(
    av: &Av,
    order: &Order,
    now: UnixTime,
    rng: &mut dyn Random,
) -> Result<Minted, MintError> {
    check_lifetime(av, order)?;
    // Whether a listener shows the key is for the check and the daemon to judge.
    let wanted = Wanted::new(Role::AvAuthentication, [av.internal_fqdn.clone()]);
    let (ring, _) = secret_files::av_key_ring(&av.authentication, &wanted, &[], now)?;
    let identity = Identity::new(&order.user);
    let request = MintRequest {
        identity: &identity,
        location: order.location,
        node: order.node,
        lifetime: order.lifetime,
    };
    let minted = credential::mint(now, &ring, &request, rng);
    Ok(Minted {
        username: minted.username_text(),
        password: minted.password_text(),
        realm: av.realm.clone(),
        expires: minted.expires.as_secs(),
    })
}

/// Mints with the secret that is shared with other servers. Paths in `av` are taken as they are.
///
/// # Errors
/// When there is no such secret or the lifetime is too long.
pub fn mint_rest(av: &Av, order: &Order, now: UnixTime) -> Result<Minted, MintError> {
    check_lifetime(av, order)?;
    let files = av.rest_secrets.as_ref().ok_or(MintError::NoRestSecret)?;
    let minted = secret_files::rest_secrets(files)?.mint(now, &order.user, order.lifetime);
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

#[cfg(test)]
mod tests {
    use edge_common::config::Config;
    use edge_common::random::Seeded;

    use super::*;
    use crate::fixture;
    use crate::fresh::write_all;
    use crate::furnish::{LabAuthorities, Signers, Workshop};
    use crate::issue::Algorithm;

    const NOW: UnixTime = UnixTime::from_secs(1_795_334_400);

    fn furnished(directory: &std::path::Path, algorithm: Algorithm) -> Config {
        let mut config = fixture::single();
        config.rebase(directory);
        let (lab, _) = LabAuthorities::open(directory, NOW).unwrap();
        let signers = Signers::Lab(Box::new(lab));
        let workshop = Workshop {
            signers: &signers,
            algorithm,
            now: NOW,
            base: directory,
        };
        let furniture = workshop.furnish(&config, &mut Seeded::new(3)).unwrap();
        write_all(&furniture.files, None).unwrap();
        config
    }

    fn order(hours: u64) -> Order {
        Order {
            user: "sip:alice@contoso.test".into(),
            location: Location::Internet,
            node: 7,
            lifetime: Duration::from_secs(hours * 3600),
        }
    }

    #[test]
    fn what_is_minted_here_opens_the_relay_for_as_long_as_it_was_ordered() {
        for algorithm in [Algorithm::P256, Algorithm::Rsa] {
            let directory = tempfile::tempdir().unwrap();
            let config = furnished(directory.path(), algorithm);
            let av = config.av.as_ref().unwrap();
            let minted = mint(av, &order(8), NOW, &mut Seeded::new(1)).unwrap();
            assert_eq!(minted.realm, "contoso.test");

            let wanted = Wanted::new(Role::AvAuthentication, [av.internal_fqdn.clone()]);
            let (ring, _) =
                secret_files::av_key_ring(&av.authentication, &wanted, &[], NOW).unwrap();
            let verified = credential::verify_text(NOW, &ring, minted.username.as_bytes()).unwrap();
            assert_eq!(verified.password_text(), minted.password);
            assert_eq!(verified.expires.as_secs(), minted.expires);
            assert_eq!((verified.location, verified.node), (Location::Internet, 7));
            assert_eq!(minted.expires, NOW.as_secs() + 8 * 3600);
        }
    }

    #[test]
    fn a_lifetime_beyond_the_limit_and_a_source_that_is_not_there_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let config = furnished(directory.path(), Algorithm::P256);
        let av = config.av.as_ref().unwrap();
        let long = mint(av, &order(9), NOW, &mut Seeded::new(1))
            .unwrap_err()
            .to_string();
        assert_eq!(long, "9 h is longer than av.token_lifetime_max, 8 h");
        let none = mint_rest(av, &order(1), NOW).unwrap_err();
        assert!(matches!(none, MintError::NoRestSecret));
    }
}

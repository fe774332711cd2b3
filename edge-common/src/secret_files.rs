//! Reads the secrets that the configuration names: array secrets, shared TURN secrets, A/V authentication keys.

use std::path::{Path, PathBuf};

use zeroize::Zeroize;

use crate::cert::role::{Problem, Severity, Wanted, check};
use crate::cert::store::{self, LoadError, LoadFault, Pair};
use crate::config::{AuthenticationFiles, CertificateFiles, RestSecretFiles, SecretFiles};
use crate::credential::{
    AvKeys, KeyMaterialError, KeyRing, RestSecret, RestSecretError, RestSecrets,
};
use crate::private_file::{self, PrivateFileFault};
use crate::secret::{ArraySecret, SecretError, Secrets};
use crate::time::UnixTime;

/// The secrets of the array.
pub fn array_secrets(files: &SecretFiles) -> Result<Secrets, SecretFileError> {
    let read = |path: &PathBuf| {
        secret(path, |text| {
            ArraySecret::from_hex(text).map_err(SecretFault::Array)
        })
    };
    Ok(Secrets {
        current: read(&files.current)?,
        next: files.next.as_ref().map(read).transpose()?,
        previous: files.previous.as_ref().map(read).transpose()?,
    })
}

/// The secrets shared with web applications.
pub fn rest_secrets(files: &RestSecretFiles) -> Result<RestSecrets, SecretFileError> {
    let read = |path: &PathBuf| {
        secret(path, |text| {
            RestSecret::from_text(text).map_err(SecretFault::Rest)
        })
    };
    Ok(RestSecrets {
        current: read(&files.current)?,
        previous: files.previous.as_ref().map(read).transpose()?,
    })
}

/// The keys that mint A/V credentials, and what to look into.
///
/// `shown` are the pairs that the daemon's listeners show. A key among them is refused: who breaks into a
/// listener, or has it sign what he likes, must not come by the power to mint.
pub fn av_key_ring(
    files: &AuthenticationFiles,
    wanted: &Wanted,
    shown: &[Pair],
    now: UnixTime,
) -> Result<(KeyRing, Vec<Problem>), SecretFileError> {
    let mut warnings = Vec::new();
    let mut read = |files: &CertificateFiles| av_keys(files, wanted, shown, now, &mut warnings);
    let ring = KeyRing {
        current: read(&files.current)?,
        next: files.next.as_ref().map(&mut read).transpose()?,
        previous: files.previous.as_ref().map(&mut read).transpose()?,
    };
    Ok((ring, warnings))
}

fn av_keys(
    files: &CertificateFiles,
    wanted: &Wanted,
    shown: &[Pair],
    now: UnixTime,
    warnings: &mut Vec<Problem>,
) -> Result<AvKeys, SecretFileError> {
    let fault = |fault| SecretFileError {
        path: files.key.clone(),
        fault,
    };
    let pair = store::load_pair(files)?;
    let (errors, mild): (Vec<_>, Vec<_>) = check(&pair.facts, wanted, now)
        .into_iter()
        .partition(|problem| problem.severity() == Severity::Error);
    if !errors.is_empty() {
        return Err(LoadError::new(&files.chain, LoadFault::Role(errors)).into());
    }
    warnings.extend(mild);
    if shown
        .iter()
        .any(|listener| listener.facts.public_key == pair.facts.public_key)
    {
        return Err(fault(SecretFault::ShownByListener));
    }
    let mut key = store::read_key(&files.key).map_err(|error| LoadError::new(&files.key, error))?;
    let keys = AvKeys::derive(&pair.facts.public_key, &key)
        .map_err(|error| fault(SecretFault::Key(error)));
    key.zeroize();
    keys
}

fn secret<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, SecretFault>,
) -> Result<T, SecretFileError> {
    let fault = |fault| SecretFileError {
        path: path.to_owned(),
        fault,
    };
    let text = private_file::read(path, SECRET_FILE_LEN_MAX)
        .map_err(|error| fault(SecretFault::File(error)))?;
    parse(&text).map_err(fault)
}

/// A secret that could not be used. The text never quotes the secret.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct SecretFileError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: SecretFault,
}

impl From<LoadError> for SecretFileError {
    fn from(error: LoadError) -> Self {
        Self {
            path: error.path,
            fault: SecretFault::Certificate(error.fault),
        }
    }
}

/// What can be wrong with a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    /// It cannot be read, or is not kept like a secret.
    #[error(transparent)]
    File(PrivateFileFault),
    /// Not an array secret.
    #[error(transparent)]
    Array(SecretError),
    /// Not a shared TURN secret.
    #[error(transparent)]
    Rest(RestSecretError),
    /// The certificate or key of A/V authentication cannot be used.
    #[error(transparent)]
    Certificate(LoadFault),
    /// Nothing can be derived from the key.
    #[error("no credentials can be derived from it: {0}")]
    Key(KeyMaterialError),
    /// One key for two purposes.
    #[error("is also the key of a listener; A/V authentication needs a key of its own")]
    ShownByListener,
}

/// Room for a comment-free secret of any kind.
const SECRET_FILE_LEN_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::cert::role::Role;
    use crate::cert::test_pki::{Authority, Issued, TODAY, Wish};

    fn write(place: &TempDir, name: &str, mode: u32, content: &str) -> PathBuf {
        let path = place.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn pair(place: &TempDir, name: &str, issued: &Issued) -> CertificateFiles {
        CertificateFiles {
            chain: write(place, &format!("{name}.pem"), 0o644, &issued.pem),
            key: write(
                place,
                &format!("{name}.key"),
                0o600,
                &issued.key.serialize_pem(),
            ),
        }
    }

    #[test]
    fn secrets_are_read_with_their_slots() {
        let place = TempDir::new().unwrap();
        let hex = |digit: char| format!("0{}", digit.to_string().repeat(63));
        let files = SecretFiles {
            current: write(&place, "current", 0o640, &hex('1')),
            next: Some(write(&place, "next", 0o600, &hex('2'))),
            previous: None,
        };
        let secrets = array_secrets(&files).unwrap();
        assert!(secrets.next.is_some() && secrets.previous.is_none());
    }

    #[test]
    fn a_bad_secret_is_told_with_its_file_and_without_its_content() {
        let place = TempDir::new().unwrap();
        let refused = |mode, content: &str| {
            let current = write(&place, "s", mode, content);
            let error = array_secrets(&SecretFiles {
                current,
                next: None,
                previous: None,
            })
            .unwrap_err();
            error.to_string().rsplit_once("/s: ").unwrap().1.to_owned()
        };
        assert_eq!(
            refused(0o604, &"ab".repeat(32)),
            "is open to everybody on this host; take that away with `chmod o=`"
        );
        assert_eq!(
            refused(0o600, "topsecret"),
            "byte 0 is not a hexadecimal digit"
        );
        assert_eq!(
            refused(0o600, "abcdef"),
            "6 hexadecimal digits instead of 64"
        );
        assert_eq!(
            refused(0o600, &"a".repeat(5_000)),
            "5000 bytes; at most 4096 are read"
        );
    }

    #[test]
    fn the_key_of_a_listener_may_not_mint() {
        let (place, ca) = (TempDir::new().unwrap(), Authority::new("CA"));
        let now = UnixTime::from_secs(TODAY);
        let wanted = Wanted::new(Role::AvAuthentication, []);
        let (own, shown) = (
            pair(&place, "own", &ca.issue(&Wish::named("a.test"))),
            pair(&place, "tls", &ca.issue(&Wish::named("b.test"))),
        );
        let listeners = [store::load_pair(&shown).unwrap()];
        let ring = |current: &CertificateFiles, next: Option<&CertificateFiles>| {
            let files = AuthenticationFiles {
                current: current.clone(),
                next: next.cloned(),
                previous: None,
            };
            av_key_ring(&files, &wanted, &listeners, now)
        };
        let (good, warnings) = ring(&own, None).unwrap();
        assert!(warnings.is_empty() && !good.holds(&listeners[0].facts.public_key));
        assert!(matches!(
            ring(&shown, None).unwrap_err().fault,
            SecretFault::ShownByListener
        ));
        assert!(matches!(
            ring(&own, Some(&shown)).unwrap_err().fault,
            SecretFault::ShownByListener
        ));
        let crossed = CertificateFiles {
            chain: own.chain.clone(),
            key: shown.key,
        };
        assert!(matches!(
            ring(&crossed, None).unwrap_err().fault,
            SecretFault::Certificate(LoadFault::KeyMismatch { .. })
        ));
    }
}

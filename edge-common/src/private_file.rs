//! Reads files that hold a secret, if they are kept like one.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

/// The content of `path`; the copy in memory is wiped when it is dropped.
pub fn read(path: &Path, len_max: u64) -> Result<Zeroizing<Vec<u8>>, PrivateFileFault> {
    let metadata = fs::metadata(path).map_err(PrivateFileFault::Read)?;
    if metadata.permissions().mode() & OTHERS != 0 {
        return Err(PrivateFileFault::OpenToAll);
    }
    if metadata.len() > len_max {
        return Err(PrivateFileFault::TooLarge {
            len: metadata.len(),
            max: len_max,
        });
    }
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(PrivateFileFault::Read)
}

/// Why a secret was not read.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileFault {
    /// The system said no.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// Everybody on the host can read or write it.
    #[error("is open to everybody on this host; take that away with `chmod o=`")]
    OpenToAll,
    /// More than such a file ever has.
    #[error("{len} bytes; at most {max} are read")]
    TooLarge {
        /// Its length.
        len: u64,
        /// What is allowed.
        max: u64,
    },
}

/// Reading and writing for those who are neither owner nor group.
const OTHERS: u32 = 0o006;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_from_others() {
        let place = tempfile::TempDir::new().unwrap();
        let path = place.path().join("secret");
        fs::write(&path, "1234").unwrap();
        let with = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path, 4)
        };
        assert_eq!(with(0o600).unwrap().as_slice(), b"1234");
        assert!(with(0o640).is_ok());
        assert!(matches!(with(0o644), Err(PrivateFileFault::OpenToAll)));
        assert!(matches!(with(0o602), Err(PrivateFileFault::OpenToAll)));
        with(0o600).unwrap();
        assert!(matches!(
            read(&path, 3),
            Err(PrivateFileFault::TooLarge { len: 4, max: 3 })
        ));
        assert!(matches!(
            read(&place.path().join("none"), 3),
            Err(PrivateFileFault::Read(_))
        ));
    }
}

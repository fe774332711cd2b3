//! Files that come into being: never over what is there, with the mode that they need from the first byte on.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// One file to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Fresh {
    /// Where.
    pub path: PathBuf,
    /// Who may read it.
    pub secrecy: Secrecy,
    /// All of it; wiped when it is dropped, as it may be a key.
    pub contents: Zeroizing<String>,
    /// What it is, for the operator.
    pub what: String,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Everybody: 0644.
    Public,
    /// The owner, who may change it: 0600.
    Private,
    /// The owner, and the group that the daemons share where there is one; nobody changes it: 0400 or 0440.
    Key,
}

/// Says what it would write without what is in it.
impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh")
            .field("path", &self.path)
            .field("secrecy", &self.secrecy)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

/// Why files were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Some are there; none was touched and none was written.
    #[error("refusing to overwrite {}", list(.0))]
    Exist(Vec<PathBuf>),
    /// A file or directory could not be made.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Writes all of them, or nothing when one exists.
///
/// With a `group`, the keys are its to read: daemons run as users of their own and share that group.
///
/// # Errors
/// When a file exists, or the disk says no.
pub fn write_all(files: &[Fresh], group: Option<u32>) -> Result<(), WriteError> {
    let existing: Vec<PathBuf> = files
        .iter()
        .map(|file| file.path.clone())
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    if !existing.is_empty() {
        return Err(WriteError::Exist(existing));
    }
    for file in files {
        write(file, group).map_err(|error| WriteError::Io {
            path: file.path.clone(),
            error,
        })?;
    }
    Ok(())
}

fn write(file: &Fresh, group: Option<u32>) -> io::Result<()> {
    if let Some(directory) = file.path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut handle = fs::OpenOptions::new()
        .write(true)
        // Not a name that somebody made in the meantime, nor where a symbolic link leads.
        .create_new(true)
        .mode(file.secrecy.mode(group))
        .open(&file.path)?;
    handle.write_all(file.contents.as_bytes())?;
    handle.sync_all()?;
    if let (Secrecy::Key, Some(group)) = (file.secrecy, group) {
        chown(&file.path, None, Some(group))?;
    }
    Ok(())
}

impl Secrecy {
    const fn mode(self, group: Option<u32>) -> u32 {
        match (self, group) {
            (Self::Public, _) => 0o644,
            (Self::Private, _) => 0o600,
            (Self::Key, None) => 0o400,
            (Self::Key, Some(_)) => 0o440,
        }
    }
}

/// The number of a group or user in a file like `/etc/group` or `/etc/passwd`.
///
/// # Errors
/// When the file cannot be read; a name that is not in it is `None`.
pub fn number_of(name: &str, file: &Path) -> io::Result<Option<u32>> {
    let text = fs::read_to_string(file)?;
    Ok(text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        fields.nth(1)?.parse().ok()
    }))
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn fresh(path: PathBuf, secrecy: Secrecy) -> Fresh {
        Fresh {
            path,
            secrecy,
            contents: Zeroizing::new("x\n".to_owned()),
            what: "a test".to_owned(),
        }
    }

    #[test]
    fn modes_are_tight_from_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join("deep").join(name);
        let files = [
            fresh(at("public"), Secrecy::Public),
            fresh(at("private"), Secrecy::Private),
            fresh(at("key"), Secrecy::Key),
        ];
        write_all(&files, None).unwrap();
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode("private"), mode("key")], [0o600, 0o400]);
        assert_eq!(mode("public") & 0o600, 0o600);
    }

    #[test]
    fn one_file_that_exists_keeps_all_others_from_being_written() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("second"), "mine").unwrap();
        let files = [
            fresh(at("first"), Secrecy::Public),
            fresh(at("second"), Secrecy::Key),
        ];
        let error = write_all(&files, None).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("refusing to overwrite {}", at("second").display())
        );
        assert!(!at("first").exists());
        assert_eq!(fs::read_to_string(at("second")).unwrap(), "mine");
    }

    #[test]
    fn a_group_is_found_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("group");
        fs::write(&file, "root:x:0:\nedge:x:998:edge-access,edge-av\n").unwrap();
        assert_eq!(number_of("edge", &file).unwrap(), Some(998));
        assert_eq!(number_of("edg", &file).unwrap(), None);
    }
}

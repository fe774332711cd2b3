//! The folder that holds the messages, and the checksums that say which bytes are meant.

use aws_lc_rs::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::table::TABLE;

/// The messages of one folder.
#[derive(Debug)]
pub struct Collection {
    directory: PathBuf,
    /// File to SHA-256 in hex digits.
    sums: BTreeMap<String, String>,
}

impl Collection {
    /// The collection of that folder. One without `SHA256SUMS` is a collection without messages.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let text = fs::read_to_string(directory.join("SHA256SUMS")).unwrap_or_default();
        let sums = text
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, file)| (file.to_owned(), sum.to_owned()))
            .collect();
        Self {
            directory: directory.to_owned(),
            sums,
        }
    }

    /// The bytes of one message, if they are those that the checksum names.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, String> {
        let bytes =
            fs::read(self.directory.join(file)).map_err(|error| format!("not read: {error}"))?;
        match self.sums.get(file) {
            None => Err("SHA256SUMS does not name it".to_owned()),
            Some(sum) if *sum != hex(digest(&SHA256, &bytes).as_ref()) => {
                Err("its SHA-256 is another than SHA256SUMS says".to_owned())
            }
            Some(_) => Ok(bytes),
        }
    }

    /// Messages of the two papers that the table does not know.
    pub fn strangers(&self) -> impl Iterator<Item = String> + use<'_> {
        self.sums
            .keys()
            .filter(|file| file.starts_with("rfc4475/") || file.starts_with("rfc5118/"))
            .filter(|file| TABLE.iter().all(|row| row.file != *file))
            .cloned()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "a String takes every write");
        text
    })
}

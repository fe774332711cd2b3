//! Looks at the files that a configuration names: are they there, are they files, who may read them.
//!
//! What they hold is the business of whoever loads them; here only the file system is asked, so that `edgectl
//! check` can tell all of it at once and without the right to read a key.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the io half of the configuration"
)]

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use super::finding::{Finding, Place};
use super::paths::{Content, NamedFile};
use super::rule;
use super::{Config, document::Document};

/// Tells of every named file that is not as it has to be. `text` is the text of the configuration, for places.
#[must_use]
pub fn look_at(config: &Config, text: &str) -> Vec<Finding> {
    let (document, _) = Document::parse(text);
    config
        .named_files()
        .iter()
        .filter_map(|file| {
            let (id, message) = fault(file)?;
            Some(Finding::new(
                id,
                &*file.key,
                Some(document.place(&file.key)),
                message,
            ))
        })
        .collect()
}

/// Where `key` stands in the text of a configuration, or the nearest thing around it, for findings about what a
/// named file holds.
#[must_use]
pub fn place_of(text: &str, key: &str) -> Place {
    Document::parse(text).0.place(key)
}

fn fault(file: &NamedFile) -> Option<(rule::RuleId, String)> {
    let path = file.path.display();
    let metadata = match fs::metadata(&file.path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Some((rule::FILE_MISSING, format!("{path} does not exist")));
        }
        Err(error) => return Some((rule::FILE_UNREADABLE, format!("{path}: {error}"))),
    };
    if !metadata.is_file() {
        return Some((
            rule::FILE_IRREGULAR,
            format!("{path} is not a regular file"),
        ));
    }
    if metadata.len() == 0 {
        return Some((rule::FILE_EMPTY, format!("{path} is empty")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    (file.content == Content::Private && is_open(&metadata))
        .then(|| (rule::SECRET_OPEN, format!("{path} has mode {mode:04o}")))
}

/// The daemon's group may read a private file; nobody else may, and nobody but the owner writes it.
fn is_open(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & OPEN_BITS != 0
}

/// Write and execute for the group, anything for others.
const OPEN_BITS: u32 = 0o037;

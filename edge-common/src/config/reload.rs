//! Loads `edge.toml`, when a daemon starts and each time it is told to read it again.
//!
//! A load gives a whole `Config` or none, so whoever holds the old one goes on with it when the new file is bad;
//! `run` hands a good one to the daemon, which passes it to its cores.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the io half of the configuration"
)]

use std::fs;
use std::io::Read;
use std::path::Path;

use super::check::TEXT_LEN_MAX;
use super::finding::Finding;
use super::{Config, check, rule};

impl Config {
    /// Reads and checks the file at `path`, as seen by the member called `node`.
    ///
    /// Relative paths in it start at its directory.
    ///
    /// # Errors
    /// Everything that is wrong with it; also when only one finding among warnings is an error.
    pub fn load(path: &Path, node: Option<&str>) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let text = read(path).map_err(|finding| vec![finding])?;
        let (mut config, warnings) = check(&text, node).into_result()?;
        config.rebase(path.parent().unwrap_or_else(|| Path::new("")));
        Ok((config, warnings))
    }
}

/// Reads the text of a configuration, and no more of a file that is none.
///
/// # Errors
/// One finding that says why it cannot be read.
pub fn read(path: &Path) -> Result<String, Finding> {
    let unreadable = |error: std::io::Error| {
        Finding::new(
            rule::CONFIG_UNREADABLE,
            "",
            None,
            format!("{}: {error}", path.display()),
        )
    };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(TEXT_LEN_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    Ok(text)
}

//! Loads `edge.toml`, and publishes a new one without a moment that has none.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the io half of the configuration"
)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

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

/// The configuration in force, read by everyone and replaced as a whole.
#[derive(Debug)]
pub struct Live {
    path: PathBuf,
    node: Option<String>,
    current: ArcSwap<Config>,
}

impl Live {
    /// Loads the file for the first time; the warnings are for the log.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path, node: Option<&str>) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let (config, warnings) = Config::load(path, node)?;
        let live = Self {
            path: path.to_owned(),
            node: node.map(str::to_owned),
            current: ArcSwap::from_pointee(config),
        };
        Ok((live, warnings))
    }

    /// What is in force now. Keep it for one piece of work, not for the life of the process.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Reads the file again. An error leaves in force what was.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn reload(&self) -> Result<Reloaded, Vec<Finding>> {
        let (config, warnings) = Config::load(&self.path, self.node.as_deref())?;
        let before = self.current.swap(Arc::new(config));
        let needs_restart = needs_restart(&before, &self.current.load());
        Ok(Reloaded {
            warnings,
            needs_restart,
        })
    }
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// For the log.
    pub warnings: Vec<Finding>,
    /// Tables whose change takes effect only when the daemon starts again.
    pub needs_restart: Vec<&'static str>,
}

/// Sockets are bound and cores are started once; everything else is read where it is used.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    [
        ("listeners", before.listeners() != after.listeners()),
        ("members", before.members != after.members),
        ("external", before.external != after.external),
        ("admin", before.admin != after.admin),
        ("runtime", before.runtime != after.runtime),
    ]
    .into_iter()
    .filter_map(|(table, changed)| changed.then_some(table))
    .collect()
}

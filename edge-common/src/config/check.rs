//! From text to [`Config`]: syntax, then shape, then meaning, and everything that is wrong in one go.

use super::Config;
use super::build;
use super::document::Document;
use super::file::File;
use super::finding::Finding;
use super::rule;
use super::{rules, schema, shape};

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What the file means; `None` when it has an error.
    pub config: Option<Config>,
    /// Everything there is to say, in the order of the file.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// The configuration with its warnings, or everything that was found.
    ///
    /// # Errors
    /// All findings, when one of them is an error.
    pub fn into_result(self) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
        match self.config {
            Some(config) => Ok((config, self.findings)),
            None => Err(self.findings),
        }
    }
}

/// Checks the text of an `edge.toml` as seen by the member called `node`.
///
/// Without `node` the only member is meant. Paths stay as they are written; see [`Config::rebase`].
#[must_use]
pub fn check(text: &str, node: Option<&str>) -> Checked {
    checked(text, node.map_or(Seat::Only, Seat::Named))
}

/// Checks the text as seen by the first member, for who looks at the file and not at one host.
///
/// What is wrong with a file is wrong for every member; only what it means differs.
#[must_use]
pub fn check_file(text: &str) -> Checked {
    checked(text, Seat::First)
}

/// Which member looks at the file.
#[derive(Clone, Copy)]
enum Seat<'n> {
    Named(&'n str),
    Only,
    First,
}

fn checked(text: &str, seat: Seat<'_>) -> Checked {
    let mut findings = Vec::new();
    let config = read(text, seat, &mut findings);
    // By place; what has none comes last.
    findings.sort_by_key(|finding| finding.place.map_or((1, None), |place| (0, Some(place))));
    let config = config.filter(|_| !findings.iter().any(Finding::is_error));
    Checked { config, findings }
}

fn read(text: &str, seat: Seat<'_>, findings: &mut Vec<Finding>) -> Option<Config> {
    if text.len() > TEXT_LEN_MAX {
        let message = format!(
            "the file has {} bytes, {TEXT_LEN_MAX} are allowed",
            text.len()
        );
        findings.push(Finding::new(rule::FILE_TOO_LARGE, "", None, message));
        return None;
    }
    let (document, syntax) = Document::parse(text);
    if !syntax.is_empty() {
        // What the parser made of the rest is a guess; findings about it would be guesses too.
        findings.extend(syntax);
        return None;
    }
    let right = shape::check(&document, &schema::working(), findings);
    let file = match serde_json::from_value::<File>(right) {
        Ok(file) => file,
        Err(error) => {
            findings.push(Finding::new(rule::NOT_TAKEN, "", None, error.to_string()));
            return None;
        }
    };
    rules::apply(&file, &document, findings);
    let node = member(&file, seat, findings)?;
    build::config(file, node)
}

/// Which member is meant.
fn member(file: &File, seat: Seat<'_>, findings: &mut Vec<Finding>) -> Option<usize> {
    let names = || {
        file.members
            .iter()
            .map(|member| member.name.as_deref().unwrap_or_default())
    };
    match seat {
        Seat::Named(node) => {
            let found = names().position(|name| name == node);
            if found.is_none() && !file.members.is_empty() {
                let known = names().collect::<Vec<_>>().join(", ");
                let message = format!("{node:?} is not a member; there are {known}");
                findings.push(Finding::new(rule::NODE_UNKNOWN, "members", None, message));
            }
            found
        }
        Seat::Only if file.members.len() > 1 => {
            let known = names().collect::<Vec<_>>().join(", ");
            let message = format!("there are the members {known}");
            findings.push(Finding::new(rule::NODE_NEEDED, "members", None, message));
            None
        }
        Seat::Only | Seat::First => (!file.members.is_empty()).then_some(0),
    }
}

/// The largest text that is looked at.
pub(super) const TEXT_LEN_MAX: usize = 1 << 20;
/// More findings help nobody; beyond these only an error is told, if there was none yet.
pub(super) const FINDINGS_MAX: usize = 500;

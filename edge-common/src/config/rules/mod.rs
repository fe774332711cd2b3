//! The second half of the check: what single values mean together.
//!
//! Each rule is a function over the file as typed; it tells what it finds and knows nothing of the others. Where
//! one mistake would break several rules, the narrower one tells it and the wider one looks away.

mod access;
mod av;
mod facts;
mod keys;
mod limits;
mod members;
mod names;
mod networks;
mod operation;
mod ports;
mod topology;

use std::collections::BTreeSet;
use std::fmt::Display;

use super::check::FINDINGS_MAX;
use super::document::{Document, Value};
use super::file::File;
use super::finding::Finding;
use super::rule::RuleId;

/// A file under check, and what was found so far.
pub(super) struct Check<'c> {
    file: &'c File,
    document: &'c Document<'c>,
    findings: &'c mut Vec<Finding>,
}

/// Applies every rule.
pub(super) fn apply(file: &File, document: &Document<'_>, findings: &mut Vec<Finding>) {
    let mut check = Check {
        file,
        document,
        findings,
    };
    for rules in RULES {
        rules(&mut check);
    }
}

/// In the order of the catalogue.
const RULES: &[fn(&mut Check<'_>)] = &[
    topology::apply,
    members::apply,
    names::apply,
    networks::apply,
    ports::apply,
    keys::apply,
    access::apply,
    limits::apply,
    av::apply,
    operation::apply,
];

impl Check<'_> {
    /// Tells of what stands at `key`, or around it when the file leaves it to its default.
    fn tell(&mut self, id: RuleId, key: impl Display, message: impl Into<String>) {
        let key = key.to_string();
        let place = self.document.place(&key);
        let finding = Finding::new(id, key, Some(place), message);
        // However many warnings there are, the first error is kept.
        let kept = self.findings.len() < FINDINGS_MAX
            || finding.is_error() && !self.findings.iter().any(Finding::is_error);
        if kept {
            self.findings.push(finding);
        }
    }

    /// Says whether nothing was typed at `key`. What was typed and refused is not missing.
    fn is_blank(&self, key: &str) -> bool {
        match self.document.find(key) {
            None => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(
                Value::String(_)
                | Value::Integer(_)
                | Value::Boolean(_)
                | Value::Table(_)
                | Value::Other(_),
            ) => false,
        }
    }

    /// Says whether what was typed at `key` is ASCII.
    fn is_ascii(&self, key: &str) -> bool {
        match self.document.find(key) {
            Some(Value::String(text)) => text.is_ascii(),
            Some(
                Value::Integer(_)
                | Value::Boolean(_)
                | Value::Array(_)
                | Value::Table(_)
                | Value::Other(_),
            )
            | None => true,
        }
    }

    /// The first of `keys` that was typed, or else the first: defaults are not to blame.
    fn blame<'k>(&self, keys: &[&'k str]) -> &'k str {
        let typed = keys.iter().find(|key| self.document.find(key).is_some());
        typed.or_else(|| keys.first()).copied().unwrap_or_default()
    }
}

/// The things whose key an earlier one has already.
fn repeated<K: Ord, T>(things: impl IntoIterator<Item = (K, T)>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    things
        .into_iter()
        .filter_map(|(key, thing)| (!seen.insert(key)).then_some(thing))
        .collect()
}

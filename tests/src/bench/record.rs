//! What a benchmark has measured so far: samples, remarks, what went wrong, and the raw reports.

use super::procfs;
use super::table::{Bar, Row, Samples};
use crate::lab::sandbox::eprintln_line;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// The samples of every row and server. `S` tells the servers apart.
#[derive(Debug)]
pub struct Record<S> {
    /// Which round is under way.
    pub round: usize,
    raw: String,
    samples: BTreeMap<(&'static str, S), Samples>,
    remarks: BTreeMap<(&'static str, S), String>,
    broken: BTreeMap<&'static str, String>,
}

/// A server that is measured.
pub trait Server: Copy + Ord {
    /// What the results call it.
    fn name(self) -> &'static str;
}

/// How a row is shown.
#[derive(Clone, Debug)]
pub struct Shown<'a, S> {
    /// The name of its samples.
    pub key: &'static str,
    /// What is measured, with its unit.
    pub what: &'a str,
    /// Ours.
    pub ours: S,
    /// The peer.
    pub peer: S,
    /// Digits behind the point.
    pub digits: usize,
    /// What has to hold.
    pub bar: Bar,
}

impl<S: Server> Record<S> {
    /// Nothing measured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            round: 0,
            raw: String::new(),
            samples: BTreeMap::new(),
            remarks: BTreeMap::new(),
            broken: BTreeMap::new(),
        }
    }

    /// One more sample of a row.
    pub fn sample(&mut self, key: &'static str, who: S, value: f64) {
        eprintln_line(&format!("  {key:10} {:10} {value:.3}", who.name()));
        self.samples.entry((key, who)).or_default().add(value);
    }

    /// What else has to be known of the row; the last remark stays.
    pub fn remark(&mut self, key: &'static str, who: S, text: String) {
        self.remarks.insert((key, who), text);
    }

    /// The row could not be measured as it has to be.
    pub fn fail(&mut self, key: &'static str, why: String) {
        self.broken.insert(key, why);
    }

    /// A report as it came.
    pub fn report(&mut self, key: &str, who: S, report: &impl Serialize) {
        self.note(&json!({
            "round": self.round,
            "row": key,
            "server": who.name(),
            "load_average": procfs::load_average(),
            "report": report,
        }));
    }

    /// Any other line of the raw results.
    pub fn note(&mut self, line: &serde_json::Value) {
        self.raw.push_str(&line.to_string());
        self.raw.push('\n');
    }

    /// The raw results, one JSON object a line.
    #[must_use]
    pub fn raw(self) -> String {
        self.raw
    }

    /// A row of the table.
    #[must_use]
    pub fn row(&self, shown: &Shown<'_, S>) -> Row {
        let samples = |who| {
            self.samples
                .get(&(shown.key, who))
                .cloned()
                .unwrap_or_default()
        };
        let note = [shown.ours, shown.peer]
            .into_iter()
            .filter_map(|who| {
                let remark = self.remarks.get(&(shown.key, who))?;
                Some(format!("{}: {remark}", who.name()))
            })
            .collect::<Vec<_>>()
            .join("; ");
        Row {
            what: shown.what.to_owned(),
            ours: samples(shown.ours),
            peer: samples(shown.peer),
            digits: shown.digits,
            bar: shown.bar,
            note,
            broken: self.broken.get(shown.key).cloned(),
        }
    }
}

impl<S: Server> Default for Record<S> {
    fn default() -> Self {
        Self::new()
    }
}

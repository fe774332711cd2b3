//! What the lab found: rows of PASS and FAIL, as a table for people and as JSON for machines.

use anyhow::Result;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Step of the demo, e.g. `2` or `2n` for the run behind the 1:1 NAT.
    pub step: String,
    /// What was to be shown.
    pub what: String,
    /// Whether it was.
    pub pass: bool,
    /// What was seen, or why it failed.
    pub seen: String,
    /// How long it took.
    pub millis: u128,
    /// Bytes that moved, where that means something.
    pub bytes: Option<u64>,
}

/// What a check that passed has to say.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// One line.
    pub text: String,
    /// Bytes that moved.
    pub bytes: Option<u64>,
}

impl Seen {
    /// A line without a byte count.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            bytes: None,
        }
    }

    /// A line with the bytes that moved.
    pub fn bytes(text: impl Into<String>, bytes: u64) -> Self {
        Self {
            text: text.into(),
            bytes: Some(bytes),
        }
    }
}

/// All rows so far.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Does `work` and adds its row; an error is a FAIL row with its whole chain, and the next check
    /// goes on. Says whether it passed.
    pub fn check(&mut self, step: &str, what: &str, work: impl FnOnce() -> Result<Seen>) -> bool {
        super::sandbox::eprintln_line(&format!("[{step}] {what} …"));
        let began = Instant::now();
        let result = work();
        self.add(step, what, began.elapsed(), result)
    }

    /// Adds a row for work that was done elsewhere.
    pub fn add(&mut self, step: &str, what: &str, took: Duration, result: Result<Seen>) -> bool {
        let pass = result.is_ok();
        let seen = result.unwrap_or_else(|error| Seen::text(format!("{error:#}")));
        super::sandbox::eprintln_line(&format!(
            "[{step}] {} {what}: {}",
            verdict(pass),
            one_line(&seen.text)
        ));
        self.rows.push(Row {
            step: step.to_owned(),
            what: what.to_owned(),
            pass,
            seen: seen.text,
            millis: took.as_millis(),
            bytes: seen.bytes,
        });
        pass
    }

    /// Whether something was tried and nothing failed.
    #[must_use]
    pub fn all_pass(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.pass)
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The table that ends the demo.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self
            .rows
            .iter()
            .map(|row| row.what.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = format!(
            "step  {:<width$}  result  {:>8}  {:>13}  seen\n",
            "what", "ms", "bytes"
        );
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|one, other| one.step.cmp(&other.step));
        for row in rows {
            let bytes = row
                .bytes
                .map_or_else(String::new, |bytes| bytes.to_string());
            // Writing to a String cannot fail.
            writeln!(
                text,
                "{:<4}  {:<width$}  {:<6}  {:>8}  {bytes:>13}  {}",
                row.step,
                row.what,
                verdict(row.pass),
                row.millis,
                one_line(&row.seen)
            )
            .ok();
        }
        let failed = self.rows.iter().filter(|row| !row.pass).count();
        writeln!(text, "{} checks, {failed} failed", self.rows.len()).ok();
        text
    }
}

const fn verdict(pass: bool) -> &'static str {
    if pass { "PASS" } else { "FAIL" }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn an_error_is_a_fail_row_with_its_cause_and_the_rest_goes_on() {
        let mut report = Report::default();
        assert!(report.check("1", "signs in", || Ok(Seen::bytes("200", 7))));
        assert!(!report.check("2", "calls", || Err(
            anyhow!("no answer").context("the call")
        )));
        assert!(report.check("3", "writes", || Ok(Seen::default())));
        assert!(!report.all_pass());
        let table = report.table();
        assert!(table.contains("FAIL"), "{table}");
        assert!(table.contains("the call: no answer"), "{table}");
        assert!(table.contains("3 checks, 1 failed"), "{table}");
    }

    #[test]
    fn nothing_tried_is_nothing_passed() {
        assert!(!Report::default().all_pass());
    }
}

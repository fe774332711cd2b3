//! Medians, bars and verdicts, and the table that a page shows of them.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;

/// What one row measured, in each round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// One more round.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one; of an even number the mean of both in the middle. `None` without a round.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        Some(if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], upper)
        } else {
            upper
        })
    }

    /// `median (min to max)` with so many digits behind the point.
    #[must_use]
    pub fn text(&self, digits: usize) -> String {
        let Some(median) = self.median() else {
            return "none".to_owned();
        };
        let min = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.0.len() == 1 {
            format!("{median:.digits$}")
        } else {
            format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
        }
    }
}

/// What a row has to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Ours is at most so many times the peer's.
    Ratio(f64),
    /// Ours is at least so many times the peer's.
    AtLeast(f64),
    /// Ours is at most that, whatever the peer's is.
    AtMost(f64),
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured, with its unit.
    pub what: String,
    /// Ours.
    pub ours: Samples,
    /// The peer's; empty where it is not measured.
    pub peer: Samples,
    /// Digits behind the point.
    pub digits: usize,
    /// What has to hold.
    pub bar: Bar,
    /// What else has to be known.
    pub note: String,
    /// It could not be measured as it has to be: fails, whatever the figures are.
    pub broken: Option<String>,
}

impl Row {
    /// Ours divided by the peer's.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let peer = self.peer.median().filter(|&peer| peer > 0.0)?;
        Some(self.ours.median()? / peer)
    }

    /// Whether the bar is kept. What was not measured keeps none.
    #[must_use]
    pub fn passes(&self) -> bool {
        let within = match self.bar {
            Bar::Ratio(bar) => self.ratio().is_some_and(|ratio| ratio <= bar),
            Bar::AtLeast(bar) => self.ratio().is_some_and(|ratio| ratio >= bar),
            Bar::AtMost(bar) => self.ours.median().is_some_and(|ours| ours <= bar),
        };
        within && self.broken.is_none()
    }

    fn markdown(&self) -> String {
        let bar = match self.bar {
            Bar::Ratio(bar) => format!("≤ {bar:.2} ×"),
            Bar::AtLeast(bar) => format!("≥ {bar:.2} ×"),
            Bar::AtMost(bar) => format!("≤ {bar}"),
        };
        let ratio = self
            .ratio()
            .map_or_else(String::new, |ratio| format!("{ratio:.2} ×"));
        let verdict = match &self.broken {
            Some(why) => format!("FAIL: {why}"),
            None if self.passes() => "pass".to_owned(),
            None => "FAIL".to_owned(),
        };
        format!(
            "| {} | {} | {} | {ratio} | {bar} | {verdict} | {} |\n",
            self.what,
            self.ours.text(self.digits),
            self.peer.text(self.digits),
            self.note
        )
    }
}

/// The table, as Markdown.
#[must_use]
pub fn markdown(rows: &[Row], peer: &str) -> String {
    let head = format!(
        "| what | edge | {peer} | ratio | bar | verdict | beside it |\n|---|---|---|---|---|---|---|\n"
    );
    rows.iter().map(Row::markdown).fold(head, |mut table, row| {
        table.push_str(&row);
        table
    })
}

/// Puts `text` between the two marks of that name in `page`.
pub fn put_into(page: &Path, name: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(page).with_context(|| format!("{page:?}"))?;
    let new =
        replaced(&old, name, text).with_context(|| format!("{page:?} has no marks {name}"))?;
    fs::write(page, new).with_context(|| format!("{page:?}"))
}

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- {name}:begin -->\n"),
        format!("<!-- {name}:end -->"),
    );
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], peer: &[f64], bar: Bar) -> Row {
        Row {
            what: "x".to_owned(),
            ours: Samples(ours.to_vec()),
            peer: Samples(peer.to_vec()),
            digits: 1,
            bar,
            note: String::new(),
            broken: None,
        }
    }

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let row = row(&[9.0, 1.0, 2.0], &[4.0, 8.0], Bar::Ratio(0.34));
        assert_eq!(row.ours.median(), Some(2.0));
        assert_eq!(row.peer.median(), Some(6.0));
        assert!(row.passes());
        assert!(
            row.markdown()
                .contains("| 2.0 (1.0 to 9.0) | 6.0 (4.0 to 8.0) | 0.33 × | ≤ 0.34 × | pass |")
        );
    }

    #[test]
    fn what_was_not_measured_or_went_wrong_fails() {
        assert!(!row(&[1.0], &[], Bar::Ratio(9.0)).passes());
        assert!(!row(&[], &[], Bar::AtMost(9.0)).passes());
        assert!(row(&[1.0], &[], Bar::AtMost(1.0)).passes());
        assert!(!row(&[1.0], &[1.0], Bar::AtLeast(1.1)).passes());
        let broken = Row {
            broken: Some("died".to_owned()),
            ..row(&[1.0], &[], Bar::AtMost(1.0))
        };
        assert!(!broken.passes());
    }

    #[test]
    fn a_page_gets_its_table_between_the_marks() {
        let page = "a\n<!-- t:begin -->\nold\n<!-- t:end -->\nb\n";
        let new = replaced(page, "t", "new\n").expect("marks");
        assert_eq!(new, "a\n<!-- t:begin -->\nnew\n<!-- t:end -->\nb\n");
        assert_eq!(replaced(page, "u", ""), None);
    }
}

//! The torture messages of RFC 4475 and RFC 5118 against the proxy's core, byte for byte.
//!
//! The messages are not part of the project: a folder holds them, with a `SHA256SUMS` that says which
//! bytes are meant.
//!
//! - [`table`]: what the edge must do with each message
//! - [`collection`]: the folder with the messages
//! - [`text`]: a message cut into lines, without the proxy's own reader
//! - [`stage`]: a signed-in client, the edge and a server inside; what is seen of the edge there
//! - [`verdict`]: what was seen, held against the table

pub mod collection;
pub mod stage;
pub mod table;
pub mod text;
pub mod verdict;

use collection::Collection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use table::{Row, TABLE};

/// What became of all messages, one line each.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One line a message, in the order of the table.
    pub lines: Vec<String>,
    /// Messages with which the edge does what it must.
    pub passed: usize,
    /// The others, missing ones among them.
    pub failed: usize,
}

/// Feeds every message of the table to an edge of its own.
#[must_use]
pub fn run(directory: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let collection = Collection::open(directory);
    for row in TABLE {
        outcome.note(row.file, &judge(&collection, row));
    }
    for file in collection.strangers() {
        outcome.note(&file, &Err("no row says what the edge must do".to_owned()));
    }
    outcome
}

fn judge(collection: &Collection, row: &Row) -> Result<String, String> {
    let bytes = collection.read(row.file)?;
    catch_unwind(AssertUnwindSafe(|| verdict::of(row.must, &bytes)))
        .unwrap_or_else(|_| Err("the proxy or the test panicked".to_owned()))
}

impl Outcome {
    fn note(&mut self, file: &str, result: &Result<String, String>) {
        let (word, seen) = match result {
            Ok(seen) => ("PASS", seen),
            Err(wrong) => ("FAIL", wrong),
        };
        self.lines.push(format!("{word}  {file:42} {seen}"));
        match result {
            Ok(_) => self.passed += 1,
            Err(_) => self.failed += 1,
        }
    }

    /// The line that everything comes down to.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }
}

//! The file as a tree that knows where each part of it stands.

use std::cell::Cell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::FINDINGS_MAX;
use super::finding::{Finding, Place};
use super::rule;

/// A parsed file.
#[derive(Debug)]
pub(super) struct Document<'t> {
    pub(super) text: &'t str,
    pub(super) root: Node,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
    /// Told to be wrong and left out: entries of a list are counted without it from then on.
    pub(super) left_out: Cell<bool>,
}

/// A TOML value as far as the configuration uses TOML.
#[derive(Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// A float, a date, an integer beyond 64 bits: nothing here takes one. Holds the name of its kind.
    Other(&'static str),
}

/// A key, where it stands, and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) node: Node,
}

impl<'t> Document<'t> {
    /// Parses as much as can be parsed, so that one stray character does not hide what else is wrong.
    pub(super) fn parse(text: &'t str) -> (Self, Vec<Finding>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let root = Node::new(0..0, convert_table(table.get_ref()));
        let findings = errors
            .iter()
            .take(FINDINGS_MAX)
            .map(|error| syntax(text, error))
            .collect();
        (Self { text, root }, findings)
    }

    /// Where `path` stands, or the nearest thing around it that the file holds.
    pub(super) fn place(&self, path: &str) -> Place {
        let mut node = &self.root;
        let mut offset = 0;
        for step in steps(path) {
            let Some((next, at)) = node.child(&step) else {
                break;
            };
            (node, offset) = (next, at);
        }
        Place::of(self.text, offset)
    }

    /// What the file holds at `path`.
    pub(super) fn find(&self, path: &str) -> Option<&Value> {
        let found = steps(path).try_fold(&self.root, |node, step| {
            node.child(&step).map(|(next, _)| next)
        });
        found.map(|node| &node.value)
    }
}

impl Node {
    const fn new(span: Range<usize>, value: Value) -> Self {
        Self {
            span,
            value,
            left_out: Cell::new(false),
        }
    }

    /// The child at `step`, and where a finding about it points: at a value, but at the name of a table.
    fn child(&self, step: &Step<'_>) -> Option<(&Self, usize)> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => {
                let entry = entries.iter().find(|entry| entry.key == *key)?;
                Some((&entry.node, entry.pointed_at()))
            }
            (Value::Array(items), Step::Index(index)) => {
                let item = items
                    .iter()
                    .filter(|item| !item.left_out.get())
                    .nth(*index)?;
                Some((item, item.span.start))
            }
            (
                Value::String(_)
                | Value::Integer(_)
                | Value::Boolean(_)
                | Value::Array(_)
                | Value::Table(_)
                | Value::Other(_),
                Step::Key(_) | Step::Index(_),
            ) => None,
        }
    }

    /// The word for its kind in messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

impl Entry {
    /// A header `[table]` stands at its name; the span of what it holds says nothing to a reader.
    pub(super) const fn pointed_at(&self) -> usize {
        match self.node.value {
            Value::Table(_) => self.key_span.start,
            Value::String(_)
            | Value::Integer(_)
            | Value::Boolean(_)
            | Value::Array(_)
            | Value::Other(_) => self.node.span.start,
        }
    }
}

/// One step of a path such as `members[0].external`.
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(
            |part| match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
                Some(index) => Step::Index(index),
                None => Step::Key(part),
            },
        )
}

fn convert_table(table: &DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            node: convert(value),
        })
        .collect();
    // Findings come in the order of the file.
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Table(entries)
}

fn convert(spanned: &Spanned<DeValue<'_>>) -> Node {
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
        DeValue::Float(_) => Value::Other("a float"),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::Array(items.iter().map(convert).collect()),
        DeValue::Table(table) => convert_table(table),
    };
    Node::new(spanned.span(), value)
}

fn syntax(text: &str, error: &toml::de::Error) -> Finding {
    let place = error.span().map(|span| Place::of(text, span.start));
    Finding::new(rule::SYNTAX, "", place, error.message().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[a]\nb = { c = [1, 2] }\n[[m]]\nn = \"x\"\n[[m]]\nn = \"y\"\n";

    fn at(path: &str) -> (usize, usize) {
        let (document, findings) = Document::parse(TEXT);
        assert_eq!(findings, []);
        let place = document.place(path);
        (place.line, place.column)
    }

    #[test]
    fn each_part_has_its_place() {
        assert_eq!(at(""), (1, 1));
        assert_eq!(at("a"), (1, 2));
        assert_eq!(at("a.b"), (2, 1));
        assert_eq!(at("a.b.c[1]"), (2, 15));
        assert_eq!(at("m[1].n"), (6, 5));
    }

    #[test]
    fn what_is_not_there_is_placed_around_where_it_would_be() {
        assert_eq!(at("a.z"), (1, 2));
        assert_eq!(at("a.b.c[7]"), (2, 11));
        assert_eq!(at("nothing"), (1, 1));
        assert_eq!(at("m[1]").0, 5);
    }

    #[test]
    fn several_errors_of_syntax_are_told_at_once() {
        let (_, findings) = Document::parse("a = = 1\nb = 'x\nc = 3\n");
        assert!(findings.len() >= 2, "{findings:?}");
        assert!(
            findings
                .iter()
                .all(|finding| finding.id == rule::SYNTAX && finding.place.is_some())
        );
    }
}

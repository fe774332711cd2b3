//! What the check has to say: a rule, a place in the file, a sentence.

use std::fmt;

use super::rule::{self, Rule, RuleId, Severity};

/// One thing that is wrong, or worth a look, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that was broken; `edgectl explain` tells more of it.
    pub id: RuleId,
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// What is wrong with this file.
    pub message: String,
    /// Where; `None` when the fault is not in the file.
    pub place: Option<Place>,
    /// The key it is about, as in `members[0].internal.fqdn`; empty for the whole file.
    pub key: String,
    /// What to do about it.
    pub help: String,
}

/// A position in a text, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset`; an offset beyond the end is the end.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Finding {
    /// A finding with the remedy of its rule as help.
    #[must_use]
    pub fn new(
        id: RuleId,
        key: impl Into<String>,
        place: Option<Place>,
        message: impl Into<String>,
    ) -> Self {
        let Rule {
            severity, remedy, ..
        } = rule::rule(id);
        Self {
            id,
            severity: *severity,
            message: message.into(),
            place,
            key: key.into(),
            help: (*remedy).to_owned(),
        }
    }

    /// The same with a help that fits this case better than the rule's remedy.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        Self {
            help: help.into(),
            ..self
        }
    }

    /// Says whether the file is refused for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// As a compiler shows it: with the name of the file, the line and a mark under the place.
    #[must_use]
    pub fn render(&self, file: &str, text: &str) -> String {
        let Self {
            id,
            severity,
            message,
            help,
            ..
        } = self;
        let mut out = format!("{severity}[{id}]: {message}\n");
        let Some(place) = self.place else {
            out.push_str(&format!(" --> {file}\n  = help: {help}\n"));
            return out;
        };
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        let line = text.lines().nth(place.line - 1).unwrap_or_default();
        // Tabs are kept, so that the mark stands under its character.
        let lead: String = line
            .chars()
            .take(place.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        out.push_str(&format!(
            "{gutter}--> {file}:{place}\n{gutter} |\n{number} | {line}\n{gutter} | {lead}^"
        ));
        if !self.key.is_empty() {
            out.push_str(&format!(" {}", self.key));
        }
        out.push_str(&format!("\n{gutter} = help: {help}\n"));
        out
    }
}

/// The short form, for logs and for where the text of the file is not at hand.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            severity,
            message,
            place,
            key,
            help,
        } = self;
        write!(f, "{severity}[{id}]: {message}")?;
        match (place, key.is_empty()) {
            (Some(place), false) => {
                write!(
                    f,
                    "
 --> line {}, column {}: {key}",
                    place.line, place.column
                )?;
            }
            (Some(place), true) => write!(
                f,
                "
 --> line {}, column {}",
                place.line, place.column
            )?,
            (None, false) => write!(
                f,
                "
 --> {key}"
            )?,
            (None, true) => {}
        }
        write!(f, "\n  = help: {help}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a\n\u{fc}b\n";
        assert_eq!(Place::of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of(text, 2), Place { line: 2, column: 1 });
        assert_eq!(
            Place::of(text, 3),
            Place { line: 2, column: 1 },
            "inside a character"
        );
        assert_eq!(Place::of(text, 4), Place { line: 2, column: 2 });
        assert_eq!(Place::of(text, 6), Place { line: 3, column: 1 });
        assert_eq!(Place::of(text, 99), Place { line: 3, column: 1 });
    }

    #[test]
    fn shown_as_a_compiler_does() {
        let text = "[access]\n\tclient_prot = 443\n";
        let finding = Finding::new(
            rule::UNKNOWN_KEY,
            "access.client_prot",
            Some(Place { line: 2, column: 2 }),
            "unknown key `client_prot`",
        )
        .with_help("did you mean `client_port`?");
        assert_eq!(
            finding.render("edge.toml", text),
            "error[EDGE-C0002]: unknown key `client_prot`\n --> edge.toml:2:2\n  |\n2 | \tclient_prot = 443\n  | \t^ access.client_prot\n  = help: did you mean `client_port`?\n"
        );
        assert_eq!(
            finding.to_string(),
            "error[EDGE-C0002]: unknown key `client_prot`\n --> line 2, column 2: access.client_prot\n  = help: did you mean `client_port`?"
        );
    }
}

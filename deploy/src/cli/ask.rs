//! Questions on a terminal.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write};

/// Asks for what the command line leaves open.
pub(super) struct Asker<'a> {
    out: &'a mut dyn Write,
    /// Somebody is there, and has to be asked for something anyway.
    asks: bool,
    /// The options that would have said what was answered.
    pub(super) typed: Vec<String>,
}

impl<'a> Asker<'a> {
    pub(super) fn new(asks: bool, out: &'a mut dyn Write) -> Self {
        Self {
            out,
            asks,
            typed: Vec::new(),
        }
    }

    pub(super) fn one<T: Clone, E: Display>(
        &mut self,
        question: Question,
        parse: impl Fn(&str) -> Result<T, E>,
        given: Option<&T>,
    ) -> anyhow::Result<T> {
        if let Some(given) = given {
            return Ok(given.clone());
        }
        loop {
            let mut answers = self.some(question, &parse, &[])?;
            if answers.len() == 1 {
                return Ok(answers.remove(0));
            }
            self.typed.truncate(self.typed.len() - 2 * answers.len());
            writeln!(self.out, "  one answer is expected")?;
        }
    }

    /// One answer or more, with blanks or commas between them.
    pub(super) fn some<T: Clone, E: Display>(
        &mut self,
        question: Question,
        parse: impl Fn(&str) -> Result<T, E>,
        given: &[T],
    ) -> anyhow::Result<Vec<T>> {
        loop {
            let answers = self.perhaps(question, &parse, given)?;
            if !answers.is_empty() {
                return Ok(answers);
            }
        }
    }

    /// The same, and nothing is an answer too.
    pub(super) fn perhaps<T: Clone, E: Display>(
        &mut self,
        question: Question,
        parse: impl Fn(&str) -> Result<T, E>,
        given: &[T],
    ) -> anyhow::Result<Vec<T>> {
        if !given.is_empty() || !self.asks {
            return Ok(given.to_vec());
        }
        loop {
            write!(self.out, "{}: ", question.text)?;
            self.out.flush()?;
            let mut line = String::new();
            anyhow::ensure!(
                io::stdin().lock().read_line(&mut line)? > 0,
                "{} is needed",
                question.option
            );
            let words: Vec<&str> = line
                .split([' ', ',', '\t', '\n'])
                .filter(|word| !word.is_empty())
                .collect();
            match words.iter().map(|word| parse(word)).collect() {
                Ok(answers) => {
                    for word in words {
                        self.typed.push(question.option.to_owned());
                        self.typed.push(word.to_owned());
                    }
                    return Ok(answers);
                }
                Err(error) => writeln!(self.out, "  {error}")?,
            }
        }
    }
}

/// Somebody is there to be asked.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Something to be told, by option or on a terminal.
#[derive(Clone, Copy)]
pub(super) struct Question {
    pub(super) option: &'static str,
    pub(super) text: &'static str,
}

pub(super) const fn question(option: &'static str, text: &'static str) -> Question {
    Question { option, text }
}

//! `edgectl check` and `edgectl explain`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use edge_common::config::{self, Checked, Config, Finding, RuleId, files};
use serde_json::json;

use super::{Global, Verdict, now, read};
use crate::contents;

/// Arguments of `edgectl check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// As JSON: one array of findings.
    #[arg(long)]
    json: bool,
    /// Look at the configuration alone, not at the files that it names.
    #[arg(long)]
    no_files: bool,
}

/// Arguments of `edgectl explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The id of a finding, like EDGE-C0123; without it, all rules are listed.
    id: Option<String>,
}

impl Check {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let text = read(&global.config)?;
        let mut checked = match &global.node {
            Some(node) => config::check(&text, Some(node)),
            None => config::check_file(&text),
        };
        if let (Some(config), false) = (&mut checked.config, self.no_files) {
            config.rebase(&global.base());
            checked.findings.extend(files::look_at(config, &text));
            for finding in contents::findings(config, &text, now()) {
                let is_told =
                    |other: &Finding| (other.id, &other.key) == (finding.id, &finding.key);
                if !checked.findings.iter().any(is_told) {
                    checked.findings.push(finding);
                }
            }
        }
        let errors = checked
            .findings
            .iter()
            .filter(|finding| finding.is_error())
            .count();
        if self.json {
            let list: Vec<_> = checked.findings.iter().map(as_json).collect();
            writeln!(out, "{}", serde_json::to_string(&list)?)?;
        } else {
            report(&checked, &global.config, &text, out)?;
            let warnings = checked.findings.len() - errors;
            writeln!(
                out,
                "{}: {}, {}",
                global.config.display(),
                counted(errors, "error"),
                counted(warnings, "warning")
            )?;
        }
        Ok(if errors == 0 {
            Verdict::Good
        } else {
            Verdict::Bad
        })
    }
}

impl Explain {
    pub(super) fn run(&self, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let Some(id) = &self.id else {
            for rule in config::catalogue() {
                writeln!(
                    out,
                    "{} {:7} {}",
                    rule.id,
                    rule.severity.to_string(),
                    rule.title
                )?;
            }
            return Ok(Verdict::Good);
        };
        let id: RuleId = id.parse()?;
        for rule in config::catalogue().iter().filter(|rule| rule.id == id) {
            writeln!(
                out,
                "{} ({}): {}\n\nCause: {}\n\nRemedy: {}",
                rule.id, rule.severity, rule.title, rule.cause, rule.remedy
            )?;
        }
        Ok(Verdict::Good)
    }
}

/// Prints all findings like a compiler; the configuration, when it can be used.
pub(super) fn report<'a>(
    checked: &'a Checked,
    file: &Path,
    text: &str,
    out: &mut dyn Write,
) -> anyhow::Result<Option<&'a Config>> {
    for finding in &checked.findings {
        writeln!(out, "{}", finding.render(&file.display().to_string(), text))?;
    }
    Ok(checked.config.as_ref())
}

fn as_json(finding: &Finding) -> serde_json::Value {
    json!({
        "id": finding.id.to_string(),
        "severity": finding.severity.to_string(),
        "message": finding.message,
        "key": finding.key,
        "line": finding.place.map(|place| place.line),
        "column": finding.place.map(|place| place.column),
        "help": finding.help,
    })
}

/// "1 error", "2 errors".
pub(super) fn counted(number: usize, thing: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{s}")
}

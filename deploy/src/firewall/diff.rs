//! What stands in the kernel against what should stand there, rule by rule, found by their comments.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{COMMENT_PREFIX, Ruleset, json, text};

/// One difference between the kernel and the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The plan has it, the kernel does not.
    Missing {
        /// What it is.
        what: String,
        /// The line to be added.
        planned: String,
    },
    /// The kernel has it, the plan does not.
    Foreign {
        /// What it is.
        what: String,
        /// The kernel's line, as far as it could be found.
        found: String,
    },
    /// Both have it, with other contents.
    Changed {
        /// What it is.
        what: String,
        /// The kernel's line.
        found: String,
        /// The plan's line.
        planned: String,
    },
    /// Same rules, other order.
    Order {
        /// The chain.
        chain: String,
    },
}

/// Like a patch: `-` stands in the kernel, `+` will.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what, planned } => write!(f, "+ {what}: {planned}"),
            Self::Foreign { what, found } => write!(f, "- {what}: {found}"),
            Self::Changed {
                what,
                found,
                planned,
            } => write!(f, "- {what}: {found}\n+ {what}: {planned}"),
            Self::Order { chain } => write!(f, "~ chain {chain}: the rules stand in another order"),
        }
    }
}

/// What the kernel was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// The answer to `nft -j list table inet edge`; `None`: there is no such table.
    pub json: Option<Value>,
    /// The answer to `nft -s list table inet edge`, for people.
    pub text: String,
}

/// Every difference, in the order of the plan, foreign things last. Empty: the kernel holds the plan.
///
/// # Errors
/// As [`json::listing`].
pub fn differences(ruleset: &Ruleset, held: &Held) -> Result<Vec<Difference>, serde_json::Error> {
    let planned = things(&json::listing(ruleset)?);
    let found = held.json.as_ref().map(things).unwrap_or_default();
    let lines = Lines::new(ruleset, &held.text);

    let mut differences = Vec::new();
    for (what, value) in &planned.by_name {
        match found.by_name.get(what) {
            None => differences.push(Difference::Missing {
                what: what.clone(),
                planned: lines.planned(what, value),
            }),
            Some(other) if other != value => differences.push(Difference::Changed {
                what: what.clone(),
                found: lines.found(what, other),
                planned: lines.planned(what, value),
            }),
            Some(_) => {}
        }
    }
    for (what, value) in &found.by_name {
        if !planned.by_name.contains_key(what) {
            differences.push(Difference::Foreign {
                what: what.clone(),
                found: lines.found(what, value),
            });
        }
    }
    if differences.is_empty() {
        for (chain, order) in &planned.order {
            if found.order.get(chain) != Some(order) {
                differences.push(Difference::Order {
                    chain: chain.clone(),
                });
            }
        }
    }
    Ok(differences)
}

/// A listing taken apart: each thing by its name without what only the kernel knows, and the order of rules.
#[derive(Debug, Default)]
struct Things {
    by_name: BTreeMap<String, Value>,
    order: BTreeMap<String, Vec<String>>,
}

fn things(listing: &Value) -> Things {
    let mut things = Things::default();
    let objects = listing["nftables"].as_array().into_iter().flatten();
    for (position, object) in objects.enumerate() {
        let Some((kind, body)) = object.as_object().and_then(|map| map.iter().next()) else {
            continue;
        };
        if kind == "metainfo" {
            continue;
        }
        let mut body = body.clone();
        strip(&mut body);
        let what = match (kind.as_str(), body["comment"].as_str()) {
            ("rule", Some(comment)) => {
                let name = comment.strip_prefix(COMMENT_PREFIX).unwrap_or(comment);
                format!("rule {name}")
            }
            ("rule", None) => format!("rule without a name, no. {position}"),
            (kind, _) => format!("{kind} {}", body["name"].as_str().unwrap_or_default()),
        };
        if let Some(chain) = body["chain"].as_str() {
            things
                .order
                .entry(chain.to_owned())
                .or_default()
                .push(what.clone());
        }
        // Two rules with one name: the second is found under a name that no plan has.
        let what = if things.by_name.contains_key(&what) {
            format!("{what} (again, no. {position})")
        } else {
            what
        };
        things.by_name.insert(what, canonical(body));
    }
    things
}

/// Takes off what the kernel adds: handles and what has been counted.
fn strip(body: &mut Value) {
    if let Value::Object(map) = body {
        for key in ["handle", "packets", "bytes", "newname", "dev", "index"] {
            map.remove(key);
        }
        // The crate writes keys that are not set as null; the kernel leaves them out.
        map.retain(|_, value| !value.is_null());
    }
}

/// Sets have no order, and a list of one is its element.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, inner)| {
                    let inner = canonical(inner);
                    let inner = if key == "set" { sorted(inner) } else { inner };
                    (key, inner)
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(canonical).collect()),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut list) => {
            list.sort_by_cached_key(Value::to_string);
            Value::Array(list)
        }
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)) => other,
    }
}

/// Rules as lines of text, by name.
struct Lines<'a> {
    planned: BTreeMap<String, String>,
    found: BTreeMap<&'a str, &'a str>,
}

impl<'a> Lines<'a> {
    fn new(ruleset: &Ruleset, held: &'a str) -> Self {
        let planned = ruleset
            .rules
            .iter()
            .map(|rule| (format!("rule {}", rule.name), text::rule(rule)))
            .collect();
        let found = held
            .lines()
            .filter_map(|line| Some((name(line)?, line.trim())))
            .collect();
        Self { planned, found }
    }

    fn planned(&self, what: &str, value: &Value) -> String {
        self.planned
            .get(what)
            .cloned()
            .unwrap_or_else(|| value.to_string())
    }

    fn found(&self, what: &str, value: &Value) -> String {
        what.strip_prefix("rule ")
            .and_then(|name| self.found.get(name))
            .map_or_else(|| value.to_string(), |line| (*line).to_owned())
    }
}

/// The name in the comment at the end of a listed rule.
fn name(line: &str) -> Option<&str> {
    let (_, comment) = line.rsplit_once("comment \"")?;
    let comment = comment.strip_suffix('"')?;
    Some(comment.strip_prefix(COMMENT_PREFIX).unwrap_or(comment))
}

//! The first half of the check: keys, kinds, bounds and forms of single values, all told at once.
//!
//! Walks the file along the JSON Schema. What is wrong is told and left out, so that the rules of the second half
//! see what is right of a file that is wrong elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value as Json, json};

use super::check::FINDINGS_MAX;
use super::document::{Document, Entry, Node, Value};
use super::finding::{Finding, Place};
use super::nearest::nearest;
use super::rule::{self, RuleId};
use super::units;
use crate::host_name::{HostName, HostNameError, HostPort, HostPortError, NamePattern};
use crate::ports::PortRange;

/// Tells what is wrong in the shape of `document`, and returns what is right.
pub(super) fn check(document: &Document<'_>, schema: &Json, findings: &mut Vec<Finding>) -> Json {
    let mut walk = Walk {
        text: document.text,
        path: String::new(),
        findings,
    };
    walk.value(&document.root, 0, schema)
        .unwrap_or_else(|| json!({}))
}

struct Walk<'w> {
    text: &'w str,
    /// The key at hand, as in `members[0].id`.
    path: String,
    findings: &'w mut Vec<Finding>,
}

impl Walk<'_> {
    /// What is right of `node`; `at` is where a finding about it as a whole points.
    fn value(&mut self, node: &Node, at: usize, schema: &Json) -> Option<Json> {
        if let Some(words) = words(schema) {
            return self.word(node, &words);
        }
        match (schema["type"].as_str(), &node.value) {
            (Some("object"), Value::Table(entries)) => self.table(entries, at, schema),
            (Some("array"), Value::Array(items)) => self.list(items, at, schema),
            (Some("string"), Value::String(text)) => self.text(text, node, schema),
            (Some("integer"), Value::Integer(number)) => self.integer(*number, node, schema),
            (Some("boolean"), Value::Boolean(flag)) => Some(json!(flag)),
            (expected, _) => self.wrong_type(node, at, expected),
        }
    }

    fn table(&mut self, entries: &[Entry], at: usize, schema: &Json) -> Option<Json> {
        let Json::Object(properties) = &schema["properties"] else {
            return Some(json!({}));
        };
        let mut right = Map::new();
        let mut whole = true;
        for entry in entries {
            let Some(property) = properties.get(&entry.key) else {
                self.unknown_key(entry, properties);
                continue;
            };
            let outer = self.enter(&format!(".{}", entry.key));
            match self.value(&entry.node, entry.pointed_at(), property) {
                Some(value) => {
                    right.insert(entry.key.clone(), value);
                }
                None => whole &= !is_required(schema, &entry.key),
            }
            self.path.truncate(outer);
        }
        for name in required(schema).filter(|name| !entries.iter().any(|entry| entry.key == *name))
        {
            self.tell(
                rule::MISSING_KEY,
                at,
                format!("`{}` is missing", joined(&self.path, name)),
            );
            whole = false;
        }
        // A table that is read only as a whole is left out as a whole.
        (whole || schema["x-partial"] == json!(true)).then_some(Json::Object(right))
    }

    fn list(&mut self, items: &[Node], at: usize, schema: &Json) -> Option<Json> {
        let bound = |name: &str| {
            schema[name]
                .as_u64()
                .and_then(|bound| usize::try_from(bound).ok())
        };
        if let Some(least) = bound("minItems").filter(|least| items.len() < *least) {
            self.tell(
                rule::LIST_TOO_SHORT,
                at,
                format!("the list needs at least {least} {}", entries_word(least)),
            );
        }
        let most = bound("maxItems").unwrap_or(usize::MAX);
        if items.len() > most {
            let place = items.get(most).map_or(at, |item| item.span.start);
            self.tell(
                rule::LIST_TOO_LONG,
                place,
                format!("the list takes at most {most} {}", entries_word(most)),
            );
        }
        // What is beyond the bound is not looked at, so that the rules work on bounded lists.
        let mut right = Vec::new();
        for (index, item) in items.iter().take(most).enumerate() {
            let outer = self.enter(&format!("[{index}]"));
            let value = self.value(item, item.span.start, &schema["items"]);
            self.path.truncate(outer);
            item.left_out.set(value.is_none());
            right.extend(value);
        }
        Some(Json::Array(right))
    }

    fn word(&mut self, node: &Node, words: &[&str]) -> Option<Json> {
        let Value::String(text) = &node.value else {
            return self.wrong_type(node, node.span.start, Some("string"));
        };
        if words.contains(&text.as_str()) {
            return Some(json!(text));
        }
        let choice = words.join(", ");
        let help = match nearest(text, words.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"? One of {choice}"),
            None => format!("use one of {choice}"),
        };
        self.tell_with_help(
            rule::UNKNOWN_VALUE,
            node.span.start,
            format!("{text:?} is not one of the words allowed here"),
            help,
        );
        None
    }

    fn integer(&mut self, number: i64, node: &Node, schema: &Json) -> Option<Json> {
        let bound = |name: &str| schema[name].as_i64();
        let (least, most) = (bound("minimum"), bound("maximum"));
        if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
            return Some(json!(number));
        }
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            (None, None) => String::new(),
        };
        self.tell(
            rule::OUT_OF_RANGE,
            node.span.start,
            format!("{number} is out of range: {range} is allowed"),
        );
        None
    }

    fn text(&mut self, text: &str, node: &Node, schema: &Json) -> Option<Json> {
        let bound = |name: &str| schema[name].as_u64();
        let len = text.chars().count() as u64;
        if bound("minLength").is_some_and(|least| len < least)
            || bound("maxLength").is_some_and(|most| len > most)
        {
            let (least, most) = (
                bound("minLength").unwrap_or(0),
                bound("maxLength").unwrap_or(u64::MAX),
            );
            self.tell(
                rule::BAD_TEXT,
                node.span.start,
                format!("the text has {len} characters, {least} to {most} are allowed"),
            );
            return None;
        }
        let Some(format) = schema["format"].as_str() else {
            return Some(json!(text));
        };
        match form(format, text) {
            Ok(()) => Some(json!(text)),
            Err((id, why)) => {
                self.tell(id, node.span.start, format!("{text:?}: {why}"));
                None
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, at: usize, expected: Option<&str>) -> Option<Json> {
        let expected = match expected {
            Some("object") => "a table",
            Some("array") => "a list",
            Some("string") => "a string",
            Some("integer") => "an integer",
            Some("boolean") => "true or false",
            _ => "something else",
        };
        self.tell(
            rule::WRONG_TYPE,
            at,
            format!("{expected} is expected, this is {}", node.kind()),
        );
        None
    }

    fn unknown_key(&mut self, entry: &Entry, properties: &Map<String, Json>) {
        let known = properties.keys().map(String::as_str);
        let help = match nearest(&entry.key, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
        };
        let outer = self.enter(&format!(".{}", entry.key));
        self.tell_with_help(
            rule::UNKNOWN_KEY,
            entry.key_span.start,
            format!("unknown key `{}`", self.path),
            help,
        );
        self.path.truncate(outer);
    }

    /// Goes one step down the path; the answer is the length to cut it back to.
    fn enter(&mut self, step: &str) -> usize {
        let outer = self.path.len();
        self.path.push_str(if outer == 0 {
            step.trim_start_matches('.')
        } else {
            step
        });
        outer
    }

    fn tell(&mut self, id: RuleId, at: usize, message: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding::new(
                id,
                &*self.path,
                Some(Place::of(self.text, at)),
                message,
            ));
        }
    }

    fn tell_with_help(&mut self, id: RuleId, at: usize, message: String, help: String) {
        if self.findings.len() < FINDINGS_MAX {
            let place = Some(Place::of(self.text, at));
            self.findings
                .push(Finding::new(id, &*self.path, place, message).with_help(help));
        }
    }
}

/// The words that an enum takes; schemars writes documented ones as a choice of constants.
pub(super) fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Json::Array(words) = &schema["enum"] {
        return words.iter().map(Json::as_str).collect();
    }
    let Json::Array(choices) = &schema["oneOf"] else {
        return None;
    };
    let groups: Option<Vec<Vec<&str>>> = choices
        .iter()
        .map(|choice| {
            choice["const"]
                .as_str()
                .map(|word| vec![word])
                .or_else(|| words(choice))
        })
        .collect();
    Some(groups?.into_iter().flatten().collect())
}

fn required(schema: &Json) -> impl Iterator<Item = &str> {
    schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
}

fn is_required(schema: &Json, key: &str) -> bool {
    required(schema).any(|name| name == key)
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

const fn entries_word(count: usize) -> &'static str {
    if count == 1 { "entry" } else { "entries" }
}

/// Checks a text against the `format` of the schema.
fn form(format: &str, text: &str) -> Result<(), (RuleId, String)> {
    match format {
        "duration" => match units::parse_duration(text) {
            Ok(duration) if duration.is_zero() => Err((
                rule::OUT_OF_RANGE,
                "the duration must not be zero".to_owned(),
            )),
            Ok(_) => Ok(()),
            Err(error) => Err((rule::BAD_DURATION, error.to_string())),
        },
        "size" => match units::parse_size(text) {
            Ok(0) => Err((rule::OUT_OF_RANGE, "the size must not be zero".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err((rule::BAD_SIZE, error.to_string())),
        },
        "ip" => match text.parse::<IpAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err((
                rule::BAD_ADDRESS,
                "an IPv4 or IPv6 address is expected".to_owned(),
            )),
        },
        "interface-address" => match text.parse::<IpNet>() {
            Ok(_) => Ok(()),
            Err(_) => Err((
                rule::BAD_INTERFACE_ADDRESS,
                "an address with its prefix length is expected".to_owned(),
            )),
        },
        "network" => network(text),
        "hostname" => HostName::with_underscores(text).map(drop).map_err(bad_name),
        "host-pattern" => NamePattern::try_from(text.to_owned())
            .map(drop)
            .map_err(bad_name),
        "host-port" => HostPort::try_from(text.to_owned())
            .map(drop)
            .map_err(|error| match error {
                HostPortError::Host(error) => bad_name(error),
                HostPortError::PortMissing | HostPortError::PortInvalid => {
                    (rule::BAD_HOST_PORT, error.to_string())
                }
            }),
        "port-range" => text
            .parse::<PortRange>()
            .map(drop)
            .map_err(|error| (rule::BAD_PORT_RANGE, error.to_string())),
        "path" => path(text),
        "request-path" => request_path(text),
        "interface" => interface(text),
        _ => Ok(()),
    }
}

fn bad_name(error: HostNameError) -> (RuleId, String) {
    (rule::BAD_NAME, error.to_string())
}

fn network(text: &str) -> Result<(), (RuleId, String)> {
    let Ok(network) = text.parse::<IpNet>() else {
        return Err((
            rule::BAD_NETWORK,
            "a network with its prefix length is expected".to_owned(),
        ));
    };
    if network.addr() == network.network() {
        return Ok(());
    }
    Err((
        rule::NETWORK_HOST_BITS,
        format!(
            "bits are set behind the prefix; the network is {}",
            network.trunc()
        ),
    ))
}

fn path(text: &str) -> Result<(), (RuleId, String)> {
    match text {
        "" => Err((rule::BAD_PATH, "the path is empty".to_owned())),
        _ if text.contains('\0') => {
            Err((rule::BAD_PATH, "the path holds a NUL character".to_owned()))
        }
        _ => Ok(()),
    }
}

/// What stands in a request line as it is (RFC 3986 §3.3), without a query.
fn request_path(text: &str) -> Result<(), (RuleId, String)> {
    let lawful = |c: char| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c);
    if text.starts_with('/') && text.len() <= REQUEST_PATH_LEN_MAX && text.chars().all(lawful) {
        return Ok(());
    }
    Err((
        rule::BAD_REQUEST_PATH,
        format!(
            "the path begins with '/', has no query and at most {REQUEST_PATH_LEN_MAX} characters"
        ),
    ))
}

/// What the kernel takes for a name of an interface (`dev_valid_name`), and nft without quoting.
fn interface(text: &str) -> Result<(), (RuleId, String)> {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=INTERFACE_LEN_MAX).contains(&text.len())
        && text.chars().all(lawful)
        && text != "."
        && text != ".."
    {
        return Ok(());
    }
    Err((
        rule::BAD_INTERFACE,
        format!("1 to {INTERFACE_LEN_MAX} letters, digits, '-', '_' or '.' are expected"),
    ))
}

/// Ours.
const REQUEST_PATH_LEN_MAX: usize = 200;
/// `IFNAMSIZ` less the final NUL.
const INTERFACE_LEN_MAX: usize = 15;

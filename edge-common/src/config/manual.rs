//! `docs/configuration.md`: every key, port and finding, written from what the program itself uses.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::rule::{self, Rule};
use super::schema;
use crate::ports::{Direction, End, Reach, Row, Standing, TABLE};

/// The manual of `edge.toml` as Markdown.
#[must_use]
pub fn manual() -> String {
    let schema = schema();
    let mut out = String::from(HEAD);
    out.push_str("\n## Keys\n");
    table(&mut out, "", &schema);
    ports(&mut out);
    findings(&mut out);
    out
}

/// One table of the file: its keys, then the tables in it.
fn table(out: &mut String, path: &str, schema: &Value) {
    let Value::Object(keys) = &schema["properties"] else {
        return;
    };
    let (inner, plain): (Vec<_>, Vec<_>) = keys.iter().partition(|(_, key)| inner(key).is_some());
    if !path.is_empty() {
        line(
            out,
            format_args!("\n### {path}\n\n{}", text(schema, "description")),
        );
    }
    if !plain.is_empty() {
        line(
            out,
            format_args!("\n| key | value | default | |\n|---|---|---|---|"),
        );
        for (name, key) in plain {
            let default = default_text(schema, name, key);
            line(
                out,
                format_args!(
                    "| `{name}` | {} | {default} | {} |",
                    value_text(key),
                    text(key, "description")
                ),
            );
        }
    }
    for (name, key) in inner {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match key["type"].as_str() {
            Some("array") => table(out, &format!("{path}[ ]"), &described(&key["items"], key)),
            _ => table(out, &path, key),
        }
    }
}

/// The table that a key holds, or holds a list of.
fn inner(key: &Value) -> Option<&Map<String, Value>> {
    key["properties"]
        .as_object()
        .or_else(|| key["items"]["properties"].as_object())
}

/// What is said of the field goes before what is said of its type.
fn described(item: &Value, list: &Value) -> Value {
    let mut item = item.clone();
    if let (Value::Object(item), Some(description)) = (&mut item, list.get("description")) {
        item.insert("description".to_owned(), description.clone());
    }
    item
}

fn value_text(key: &Value) -> String {
    if let Some(words) = super::shape::words(key) {
        return words
            .iter()
            .map(|word| format!("`\"{word}\"`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    match key["type"].as_str() {
        Some("array") => format!(
            "list{} of {}",
            bounds(&key["minItems"], &key["maxItems"]),
            value_text(&key["items"])
        ),
        Some("integer") => format!("number{}", bounds(&key["minimum"], &key["maximum"])),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("string") => match key["format"].as_str() {
            Some("duration") => "duration, `\"20 min\"`",
            Some("size") => "size, `\"64 KiB\"`",
            Some("ip") => "address",
            Some("interface-address") => "address/prefix",
            Some("network") => "network/prefix",
            Some("hostname") => "name",
            Some("host-pattern") => "name or `*.`name",
            Some("host-port") => "name:port",
            Some("port-range") => "port-port",
            Some("path") => "path",
            Some("request-path") => "`\"/\"` and what follows",
            Some("interface") => "interface",
            _ => "text",
        }
        .to_owned(),
        _ => String::new(),
    }
}

fn bounds(least: &Value, most: &Value) -> String {
    match (least.as_i64(), most.as_i64()) {
        (Some(least), Some(most)) => format!(" {least} to {most}"),
        (Some(least), None) if least > 0 => format!(" from {least}"),
        (None, Some(most)) => format!(" up to {most}"),
        (Some(_) | None, None) => String::new(),
    }
}

fn default_text(table: &Value, name: &str, key: &Value) -> String {
    let required = table["required"]
        .as_array()
        .is_some_and(|names| names.iter().any(|required| required == name));
    match &key["default"] {
        _ if required => "**needed**".to_owned(),
        Value::Null => String::new(),
        Value::Array(items) if items.is_empty() => String::new(),
        default @ (Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => {
            format!("`{default}`")
        }
    }
}

fn ports(out: &mut String) {
    out.push_str(PORTS_HEAD);
    for row in TABLE {
        let Row {
            id,
            transport,
            protocol,
            words,
            ..
        } = row;
        let port = match row.key {
            Some(key) => format!("{} (`{key}`)", row.default),
            None => row.default.to_string(),
        };
        line(
            out,
            format_args!(
                "| `{id}` | {transport} {port} | {protocol} | {} | {words} |",
                far_end(row)
            ),
        );
    }
}

fn far_end(row: &Row) -> String {
    let who = match row.reach {
        Reach::Anyone => "anyone",
        Reach::Inside => "internal.networks",
        Reach::NextHop => "the next hop",
        Reach::Resolvers => "the resolvers of the side",
        Reach::Balancers => "the balancers",
        Reach::Members => "the other members",
        Reach::Collector => "the collector",
    };
    let flow = match (row.direction, row.end) {
        (Direction::Listen, _) => "in, from",
        (Direction::Dial, End::Remote) => "out, to",
        (Direction::Dial, End::Local) => "out from it, to",
    };
    let standing = match row.standing {
        Standing::InUse => "",
        Standing::InModes(_) => "; depends on `av.relay_mode`",
        Standing::Reserved => "; reserved, not open",
    };
    format!("{flow} {who}{standing}")
}

fn findings(out: &mut String) {
    out.push_str(FINDINGS_HEAD);
    for Rule {
        id,
        severity,
        title,
        cause,
        remedy,
    } in rule::catalogue()
    {
        line(
            out,
            format_args!("\n### {id}\n\n**{title}** ({severity}) {cause}\n\n*Remedy:* {remedy}"),
        );
    }
}

fn text<'s>(schema: &'s Value, key: &str) -> &'s str {
    schema[key].as_str().unwrap_or_default()
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

const HEAD: &str = "\
# Configuration

<!-- Written by the program: UPDATE_GOLDEN=1 cargo test -p edge-common --test config_manual -->

All daemons and `edgectl` read one file, `/etc/edge/edge.toml`, byte for byte the same on all members of an array;
`--node NAME` says which member a host is. `edgectl check` tells everything that is wrong with it in one go,
`edgectl explain EDGE-C0002` why that is wrong and what to do, `edgectl schema` prints the JSON Schema for editors.
Complete files stand in `deploy/examples/`.

- Durations and sizes carry their unit: ms, s, min, h, d and B, KiB, MiB, GiB.
- Relative paths start at the directory of the file.
- A key that is not known is an error.
- A key without a default that is not needed is off or empty when it is left out.
- `[ ]` stands for each entry of a list.
";

const PORTS_HEAD: &str = "
## Ports

Listeners, firewall and DNS records are made from this table. What is switched off is neither listened on nor opened.

| id | port | protocol | flows | |
|---|---|---|---|---|
";

const FINDINGS_HEAD: &str = "
## Findings

An error refuses the file; a daemon that runs keeps what it had. A warning is told and taken.
";

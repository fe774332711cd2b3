//! The text of a scenario, read into steps.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::time::Duration;

use super::Mismatch;

/// A whole scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub(super) settings: Vec<Setting>,
    pub(super) lines: Vec<Line>,
}

/// One step with the number of its first line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) content: Content,
}

/// What differs from the edge that most scenarios meet.
#[derive(Clone, Debug)]
pub(super) enum Setting {
    /// `anonymous users may join`
    Anonymous,
    /// `DOMAIN is a partner`, `… whose edge is HOST`
    Partner(String, Option<String>),
    /// `DOMAIN is blocked`
    Blocked(String),
    /// `partners are discovered`
    Discovery,
    /// `the SRV record of DOMAIN names HOST:PORT`
    Srv(String, String),
}

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// `NAME is a client at ADDRESS`, …
    Enters(String, Role),
    /// `NAME -> edge …`
    Sends(String, Text),
    /// `edge -> NAME …`
    Receives(String, Text),
    /// `edge dials HOST:PORT`
    Dials(String),
    /// `HOST:PORT answers as NAME`
    Answers(String, String),
    /// `HOST:PORT does not answer`
    Silent(String),
    /// `NAME hangs up`
    HangsUp(String),
    /// `edge hangs up on NAME: REASON`
    HungUp(String, String),
    /// `after 32 s`
    After(Duration),
}

/// Who somebody is.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// A client outside, or a browser before its handshake.
    Client { address: String, core: usize },
    /// The connection to the Director.
    NextHop,
    /// A connection that the Director has opened.
    Inside { core: usize },
    /// A partner's edge that has connected, with the name in its certificate.
    Partner { host: String },
}

/// A start line and what stands below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    pub(super) start: String,
    /// Whole lines; `no NAME` among what is received.
    pub(super) headers: Vec<String>,
    pub(super) body: Option<String>,
}

impl Script {
    pub(super) fn read(text: &str) -> Result<Self, Mismatch> {
        let mut script = Self::default();
        for (at, line) in text.lines().enumerate() {
            let number = at + 1;
            let wrong = |what: &str| Mismatch {
                line: number,
                what: format!("{what}: {line:?}"),
            };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(below) = line.strip_prefix(INDENT) {
                let text = script.lines.last_mut().and_then(|line| line.content.text());
                let text = text.ok_or_else(|| wrong("a header of nothing"))?;
                text.add(below);
                continue;
            }
            if let Some(setting) = setting(line) {
                script.settings.push(setting);
                continue;
            }
            let content = step(line).ok_or_else(|| wrong("not a step"))?;
            script.lines.push(Line { number, content });
        }
        Ok(script)
    }
}

impl Content {
    fn text(&mut self) -> Option<&mut Text> {
        match self {
            Self::Sends(_, text) | Self::Receives(_, text) => Some(text),
            Self::Enters(..)
            | Self::Dials(_)
            | Self::Answers(..)
            | Self::Silent(_)
            | Self::HangsUp(_)
            | Self::HungUp(..)
            | Self::After(_) => None,
        }
    }
}

impl Text {
    fn add(&mut self, below: &str) {
        match below.strip_prefix("| ") {
            Some(line) => {
                let body = self.body.get_or_insert_default();
                body.push_str(line);
                body.push_str("\r\n");
            }
            // A folded line stays with its header.
            None if below.starts_with([' ', '\t']) && !self.headers.is_empty() => {
                if let Some(header) = self.headers.last_mut() {
                    header.push_str("\r\n");
                    header.push_str(below);
                }
            }
            None => self.headers.push(below.to_owned()),
        }
    }
}

fn setting(line: &str) -> Option<Setting> {
    if line == "anonymous users may join" {
        return Some(Setting::Anonymous);
    }
    if line == "partners are discovered" {
        return Some(Setting::Discovery);
    }
    if let Some(rest) = line.strip_prefix("the SRV record of ") {
        let (domain, target) = rest.split_once(" names ")?;
        return Some(Setting::Srv(domain.to_owned(), target.to_owned()));
    }
    let (domain, what) = line.split_once(" is ")?;
    match what {
        "blocked" => Some(Setting::Blocked(domain.to_owned())),
        "a partner" => Some(Setting::Partner(domain.to_owned(), None)),
        _ => {
            let edge = what.strip_prefix("a partner whose edge is ")?;
            Some(Setting::Partner(domain.to_owned(), Some(edge.to_owned())))
        }
    }
}

fn step(line: &str) -> Option<Content> {
    if let Some(time) = line.strip_prefix("after ") {
        let seconds = time.strip_suffix(" s")?.parse().ok()?;
        return Some(Content::After(Duration::from_secs_f64(seconds)));
    }
    if let Some(target) = line.strip_prefix("edge dials ") {
        return Some(Content::Dials(target.to_owned()));
    }
    if let Some(rest) = line.strip_prefix("edge hangs up on ") {
        let (name, reason) = rest.split_once(": ")?;
        return Some(Content::HungUp(name.to_owned(), reason.to_owned()));
    }
    if let Some((from, rest)) = line.split_once(" -> ") {
        let (to, start) = rest.split_once(' ')?;
        let text = Text {
            start: start.trim().to_owned(),
            ..Text::default()
        };
        return match (from, to) {
            ("edge", name) => Some(Content::Receives(name.to_owned(), text)),
            (name, "edge") => Some(Content::Sends(name.to_owned(), text)),
            _ => None,
        };
    }
    if let Some(name) = line.strip_suffix(" hangs up") {
        return Some(Content::HangsUp(name.to_owned()));
    }
    if let Some(target) = line.strip_suffix(" does not answer") {
        return Some(Content::Silent(target.to_owned()));
    }
    if let Some((target, name)) = line.split_once(" answers as ") {
        return Some(Content::Answers(target.to_owned(), name.to_owned()));
    }
    let (name, role) = line.split_once(" is ")?;
    Some(Content::Enters(name.to_owned(), self::role(role)?))
}

fn role(text: &str) -> Option<Role> {
    let (text, core) = match text.strip_suffix(" on the other core") {
        Some(text) => (text, 1),
        None => (text, 0),
    };
    if text == "the next hop" {
        return Some(Role::NextHop);
    }
    if text == "a server inside" {
        return Some(Role::Inside { core });
    }
    let outside = ["a client at ", "a browser at "];
    if let Some(address) = outside.iter().find_map(|role| text.strip_prefix(role)) {
        let address = address.to_owned();
        return Some(Role::Client { address, core });
    }
    let host = text.strip_prefix("the edge ")?.to_owned();
    Some(Role::Partner { host })
}

const INDENT: &str = "    ";

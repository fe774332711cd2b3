//! One call through the edge as a picture of arrows.
//!
//! ```text
//!   client 203.0.113.7:40112        edge1          inside 10.20.0.5:5061
//!             |--------- INVITE ------>|                       |
//!             |                        |-------- INVITE ------>|
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::SocketAddr;

use edge_common::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::calendar;
use crate::plan::line;

/// What one member says of a call; the answer of its admin command `trace`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Told {
    /// The member.
    pub member: String,
    /// Whether headlines are kept at present.
    pub recording: serde_json::Value,
    /// How many are kept.
    pub held: u64,
    /// How many may be.
    pub held_max: u64,
    /// When the oldest was made.
    pub oldest_ms: Option<u64>,
    /// What it kept of the call.
    pub entries: Vec<Entry>,
}

/// One headline.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Entry {
    /// Which member kept it; filled in when several are put together.
    #[serde(default)]
    pub member: String,
    /// Milliseconds of Unix time.
    pub at_ms: u64,
    /// Microseconds since the member's daemon started.
    pub after_us: u64,
    /// Its number on its core.
    pub number: u64,
    /// The core.
    pub core: u64,
    /// `in`, `out` or `across`.
    pub direction: String,
    /// The connection.
    pub flow: String,
    /// What kind of far end it has.
    pub side: Option<String>,
    /// Where that stands.
    pub remote: Option<SocketAddr>,
    /// Method or status.
    pub message: String,
    /// Whether it is a response.
    pub response: bool,
    /// `1 INVITE`.
    pub cseq: String,
    /// The call.
    pub call_id: String,
    /// What was decided.
    pub outcome: Option<Outcome>,
}

/// What was decided on a message.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// `forwarded`, `refused` or `dropped`.
    pub kind: String,
    /// Of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of a refusal or drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it went on to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Puts together what members told: one timeline by the clocks of the hosts, each member's own order kept.
#[must_use]
pub fn merge(told: Vec<Told>) -> Vec<Entry> {
    let mut all: Vec<Entry> = told
        .into_iter()
        .flat_map(|told| {
            let member = told.member;
            told.entries.into_iter().map(move |entry| Entry {
                member: member.clone(),
                ..entry
            })
        })
        .collect();
    all.sort_by(|one, other| order(one).cmp(&order(other)));
    all
}

fn order(entry: &Entry) -> (u64, &str, u64, u64, u64) {
    (
        entry.at_ms,
        &entry.member,
        entry.after_us,
        entry.core,
        entry.number,
    )
}

/// Draws the timeline. What only went from core to core is left out.
#[must_use]
pub fn draw(entries: &[Entry]) -> String {
    let lanes = Lanes::of(entries);
    let mut out = String::new();
    for row in lanes.heads() {
        line(&mut out, format_args!("{:MARGIN$}{}", "", row.trim_end()));
    }
    for entry in entries {
        let Some((from, to)) = lanes.ends(entry) else {
            continue;
        };
        let picture = lanes.arrow(from, to, &label(entry));
        let note = entry.outcome.as_ref().map(note).unwrap_or_default();
        let time = calendar::clock(UnixTime::from_millis(entry.at_ms));
        line(&mut out, format_args!("{time}  {picture}{note}"));
    }
    out
}

fn label(entry: &Entry) -> String {
    let cseq = &entry.cseq;
    if entry.response {
        format!(" {} ({cseq}) ", entry.message)
    } else {
        let number = cseq.split(' ').next().unwrap_or_default();
        format!(" {} {number} ", entry.message)
    }
}

/// Nothing is said of what simply went on.
fn note(outcome: &Outcome) -> String {
    let reason = outcome.reason.as_deref().unwrap_or_default();
    match (outcome.kind.as_str(), outcome.status) {
        ("refused", Some(status)) => format!("  refused here: {status} {reason}"),
        ("dropped", _) => format!("  dropped: {reason}"),
        (_, _) => String::new(),
    }
}

/// Who stands where: far ends outside on the left, members in the middle, far ends inside on the right.
struct Lanes(Vec<Lane>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Lane {
    Far { side: String, remote: SocketAddr },
    Member(String),
}

impl Lanes {
    fn of(entries: &[Entry]) -> Self {
        let (mut left, mut middle, mut right) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            let member = Lane::Member(entry.member.clone());
            if !middle.contains(&member) {
                middle.push(member);
            }
            if let Some(far) = far(entry) {
                let inside = entry.side.as_deref() == Some("inside");
                let lanes = if inside { &mut right } else { &mut left };
                if !lanes.contains(&far) {
                    lanes.push(far);
                }
            }
        }
        Self([left, middle, right].concat())
    }

    fn ends(&self, entry: &Entry) -> Option<(usize, usize)> {
        let place = |lane: &Lane| self.0.iter().position(|one| one == lane);
        let far = place(&far(entry)?)?;
        let member = place(&Lane::Member(entry.member.clone()))?;
        Some(if entry.direction == "in" {
            (far, member)
        } else {
            (member, far)
        })
    }

    fn heads(&self) -> [String; 2] {
        let row = |word: &dyn Fn(&Lane) -> String| {
            self.0
                .iter()
                .map(|lane| format!("{:^LANE$}", word(lane)))
                .collect::<String>()
        };
        [
            row(&|lane| match lane {
                Lane::Far { side, .. } => side.clone(),
                Lane::Member(member) => member.clone(),
            }),
            row(&|lane| match lane {
                Lane::Far { remote, .. } => remote.to_string(),
                Lane::Member(_) => "edge".to_owned(),
            }),
        ]
    }

    fn arrow(&self, from: usize, to: usize, label: &str) -> String {
        let mut row = vec![' '; self.0.len() * LANE];
        let middle = |lane: usize| lane * LANE + LANE / 2;
        for lane in 0..self.0.len() {
            row[middle(lane)] = '|';
        }
        let (start, end) = (middle(from.min(to)) + 1, middle(from.max(to)));
        row[start..end].fill('-');
        if from < to {
            row[end - 1] = '>';
        } else {
            row[start] = '<';
        }
        let room = end - start - 2;
        let text: Vec<char> = label.chars().take(room).collect();
        let at = start + 1 + (room - text.len()) / 2;
        row[at..at + text.len()].copy_from_slice(&text);
        let text: String = row.into_iter().collect();
        text.trim_end().to_owned()
    }
}

fn far(entry: &Entry) -> Option<Lane> {
    Some(Lane::Far {
        side: entry.side.clone()?,
        remote: entry.remote?,
    })
}

/// Room for an address and a port, and for ` 200 (1 SUBSCRIBE) ` between two lanes.
const LANE: usize = 28;
/// Behind `12:34:56.789  `.
const MARGIN: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, direction: &str, side: &str, message: &str) -> Entry {
        let port = if side == "inside" { 5061 } else { 40_112 };
        Entry {
            member: String::new(),
            at_ms: 1_790_000_000_000 + number,
            after_us: number,
            number,
            core: 0,
            direction: direction.to_owned(),
            flow: "0.1.0".to_owned(),
            side: (direction != "across").then(|| side.to_owned()),
            remote: (direction != "across").then(|| SocketAddr::from(([192, 0, 2, 1], port))),
            message: message.to_owned(),
            response: message.parse::<u16>().is_ok(),
            cseq: "1 INVITE".to_owned(),
            call_id: "a".to_owned(),
            outcome: None,
        }
    }

    fn told(member: &str, entries: Vec<Entry>) -> Told {
        Told {
            member: member.to_owned(),
            recording: "off".into(),
            held: 0,
            held_max: 0,
            oldest_ms: None,
            entries,
        }
    }

    #[test]
    fn a_call_is_a_picture() {
        let mut refused = entry(5, "in", "client", "BYE");
        refused.outcome = Some(Outcome {
            kind: "refused".to_owned(),
            status: Some(481),
            reason: Some("route_invalid".to_owned()),
            to: None,
        });
        let entries = merge(vec![told(
            "edge1",
            vec![
                entry(1, "in", "client", "INVITE"),
                entry(2, "across", "", "INVITE"),
                entry(3, "out", "inside", "INVITE"),
                entry(4, "in", "inside", "200"),
                refused,
            ],
        )]);
        let picture = draw(&entries);
        let lines: Vec<_> = picture.lines().collect();
        assert_eq!(lines.len(), 6, "{picture}");
        assert!(
            lines[0].contains("client")
                && lines[0].contains("edge1")
                && lines[0].contains("inside")
        );
        assert!(lines[1].contains("192.0.2.1:40112"));
        assert_eq!(
            lines[2],
            "14:13:20.001                |-------- INVITE 1 -------->|                           |"
        );
        assert!(
            lines[4].contains("|<---- 200 (1 INVITE) ------|"),
            "{picture}"
        );
        assert!(
            lines[5].ends_with("refused here: 481 route_invalid"),
            "{picture}"
        );
    }

    #[test]
    fn members_are_put_in_one_order_and_each_keeps_its_own() {
        let (mut early, mut late) = (
            entry(9, "in", "client", "INVITE"),
            entry(9, "out", "inside", "INVITE"),
        );
        (early.after_us, late.after_us) = (500, 501);
        let other = entry(8, "in", "inside", "200");
        let merged = merge(vec![
            told("edge1", vec![late, early]),
            told("edge2", vec![other]),
        ]);
        let order: Vec<_> = merged
            .iter()
            .map(|e| (e.member.as_str(), e.direction.as_str()))
            .collect();
        assert_eq!(order, [("edge2", "in"), ("edge1", "in"), ("edge1", "out")]);
        assert!(draw(&merged).contains("edge2"));
    }

    #[test]
    fn a_long_label_is_cut_and_nothing_panics() {
        let mut long = entry(1, "in", "client", &"X".repeat(100));
        long.cseq = String::new();
        let picture = draw(&[long]);
        assert!(picture.lines().all(|line| line.len() < 100), "{picture}");
        assert_eq!(draw(&[]).trim(), "");
    }
}

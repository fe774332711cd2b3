//! The admin commands of the Access Edge; `edgectl` asks them.
//!
//! ```text
//!  admin socket ─► command ─► Errand ─► mailbox ─► core ─► oneshot ─► answer
//! ```
//!
//! A command runs on the main thread and may not touch what a core owns, so it sends an errand there.

use std::net::IpAddr;
use std::time::Duration;

use edge_common::config::units;
use edge_common::host_name::HostName;
use edge_common::net::mailbox::Outbox;
use edge_common::observe::admin::{Commands, Effect};
use edge_common::run;
use edge_common::time::UnixTime;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::connections::{Filter, Page, Row, State};
use crate::flow::{Core, Errand, Letter};
use crate::proxy::token::{FlowKey, Realm};
use crate::trace::{Entry, Outcome, Recording, Start, Way};

/// Who answers.
#[derive(Clone, Debug)]
pub struct Host {
    /// The member's name.
    pub member: String,
    /// Its number in tokens.
    pub node: u8,
    /// The way to its cores.
    pub outbox: Outbox<Letter>,
}

/// The commands of a running Access Edge.
#[must_use]
pub fn commands(host: &Host) -> Commands {
    let mut commands = Commands::default();
    let asked = host.clone();
    commands.add("connections", Effect::Read, move |request| {
        let host = asked.clone();
        async move { connections(&host, &request).await }
    });
    let asked = host.clone();
    commands.add("trace", Effect::Read, move |request| {
        let host = asked.clone();
        async move { trace(&host, &request).await }
    });
    let asked = host.clone();
    commands.add("trace.record", Effect::Change, move |request| {
        let host = asked.clone();
        async move { record(&host, &request).await }
    });
    commands
}

/// Does something on a core and waits for what it says.
pub async fn on_core<T: Send + 'static>(
    outbox: &Outbox<Letter>,
    core: usize,
    work: impl FnOnce(&Core) -> T + Send + 'static,
) -> Result<T, String> {
    let (tell, told) = oneshot::channel();
    let errand = Errand::new(move |core| {
        // Whoever asked may have given up.
        drop(tell.send(work(core)));
    });
    outbox
        .send(core, Letter::Errand(errand))
        .map_err(|_| format!("core {core} is too busy to be asked; try again"))?;
    told.await
        .map_err(|_| format!("core {core} ended before it answered"))
}

async fn connections(host: &Host, request: &Value) -> Result<Value, String> {
    let filter = filter(request)?;
    let limit = limit(request, ROWS_DEFAULT, ROWS_MAX)?;
    let (first_core, first_slot) = match request["after"].as_str() {
        Some(cursor) => parse_cursor(cursor)?,
        None => (0, 0),
    };
    let mut rows = Vec::new();
    let (mut matching, mut total) = (0, 0);
    let mut last = None;
    for core in 0..host.outbox.cores() {
        let from = if core == first_core { first_slot } else { 0 };
        let room = if core < first_core {
            0
        } else {
            limit - rows.len()
        };
        let filter = filter.clone();
        let page: Page = on_core(&host.outbox, core, move |core| {
            core.connections(&filter, from, room)
        })
        .await?;
        matching += page.matching;
        total += page.total;
        last = page.rows.last().map(|row| row.key).or(last);
        rows.extend(page.rows.iter().map(|row| row_json(host, row)));
    }
    // A full page may be the last one; the next is then empty.
    let next = last.filter(|_| rows.len() == limit).map(cursor_behind);
    Ok(json!({
        "member": host.member,
        "node": host.node,
        "connections": rows,
        "matching": matching,
        "total": total,
        "next": next,
    }))
}

async fn trace(host: &Host, request: &Value) -> Result<Value, String> {
    let call_id = request["call_id"]
        .as_str()
        .map(|text| text.as_bytes().to_vec());
    let limit = limit(request, ENTRIES_DEFAULT, ENTRIES_MAX)?;
    let mut found = Vec::new();
    let (mut held, mut held_max, mut oldest) = (0, 0, None);
    let mut recording = json!("off");
    for core in 0..host.outbox.cores() {
        let call_id = call_id.clone();
        let seen = on_core(&host.outbox, core, move |core| {
            core.recorder().with_tracer(|tracer| {
                let now = run::now().mono;
                // A time that is over is told as over.
                tracer.is_recording(now);
                let entries = match &call_id {
                    Some(call_id) => tracer.of_call(call_id, limit),
                    None => tracer.recent(limit),
                };
                let left = match tracer.recording() {
                    Recording::Off => json!("off"),
                    Recording::Always => json!("always"),
                    Recording::Until(end) => {
                        json!({ "seconds_left": end.saturating_duration_since(now).as_secs() })
                    }
                };
                (entries, tracer.held(), left)
            })
        })
        .await?;
        let (entries, (len, len_max, first), state) = seen;
        found.extend(entries.into_iter().map(|entry| (core, entry)));
        held += len;
        held_max += len_max;
        oldest = match (oldest, first) {
            (Some(one), Some(other)) => Some(std::cmp::min::<UnixTime>(one, other)),
            (one, other) => one.or(other),
        };
        recording = state;
    }
    found.sort_by_key(|(core, entry)| (entry.after, *core, entry.number));
    if call_id.is_none() {
        found.reverse();
        found.truncate(limit);
    } else {
        let excess = found.len().saturating_sub(limit);
        found.drain(..excess);
    }
    let entries: Vec<_> = found
        .iter()
        .map(|(core, entry)| entry_json(host, *core, entry))
        .collect();
    Ok(json!({
        "member": host.member,
        "node": host.node,
        "recording": recording,
        "held": held,
        "held_max": held_max,
        "oldest_ms": oldest.map(UnixTime::as_millis),
        "entries": entries,
    }))
}

async fn record(host: &Host, request: &Value) -> Result<Value, String> {
    let time = match request["for"].as_str() {
        Some("off") => None,
        Some(text) => Some(units::parse_duration(text).map_err(|error| error.to_string())?),
        None => return Err("`for` is a time like \"10 min\", or \"off\"".into()),
    };
    if time.is_some_and(|time| time > RECORD_MAX) {
        return Err(format!(
            "a recording lasts {} at most; set access.trace.always for a longer one",
            units::duration_text(RECORD_MAX)
        ));
    }
    for core in 0..host.outbox.cores() {
        on_core(&host.outbox, core, move |core| {
            core.recorder().record_for(time);
        })
        .await?;
    }
    tracing::info!(?time, "headlines are recorded");
    Ok(json!({ "member": host.member, "seconds": time.map_or(0, |time| time.as_secs()) }))
}

fn filter(request: &Value) -> Result<Filter, String> {
    let text = |key: &str| request[key].as_str();
    let realm = match text("side") {
        None => None,
        Some("client") => Some(Realm::Client),
        Some("partner") => Some(Realm::Partner),
        Some("inside") => Some(Realm::Inside),
        Some(other) => {
            return Err(format!(
                "`{other}` is no side; there are client, partner, inside"
            ));
        }
    };
    let state = match text("state") {
        None => None,
        Some(word) => Some(
            State::ALL
                .into_iter()
                .find(|state| state.as_str() == word)
                .ok_or_else(|| {
                    let all = State::ALL.map(State::as_str).join(", ");
                    format!("`{word}` is no state; there are {all}")
                })?,
        ),
    };
    let remote = match text("remote") {
        None => None,
        Some(word) => Some(
            word.parse::<IpAddr>()
                .map_err(|_| format!("`{word}` is no address"))?,
        ),
    };
    let name = match text("name") {
        None => None,
        Some(word) => {
            Some(HostName::with_underscores(word).map_err(|error| format!("`{word}`: {error}"))?)
        }
    };
    let queued = request["queued"].as_u64().unwrap_or(0);
    Ok(Filter {
        realm,
        state,
        remote,
        name,
        queued: usize::try_from(queued).unwrap_or(usize::MAX),
    })
}

fn limit(request: &Value, default: usize, most: usize) -> Result<usize, String> {
    let Some(value) = request.get("limit").filter(|value| !value.is_null()) else {
        return Ok(default);
    };
    value
        .as_u64()
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| (1..=most).contains(limit))
        .ok_or_else(|| format!("`limit` is a number from 1 to {most}"))
}

fn parse_cursor(text: &str) -> Result<(usize, u32), String> {
    text.split_once('.')
        .and_then(|(core, slot)| Some((core.parse().ok()?, slot.parse().ok()?)))
        .ok_or_else(|| format!("`{text}` is not what an answer named as `next`"))
}

fn cursor_behind(key: FlowKey) -> String {
    format!("{}.{}", key.core, u64::from(key.slot) + 1)
}

fn row_json(host: &Host, row: &Row) -> Value {
    json!({
        "node": host.node,
        "core": row.key.core,
        "flow": flow_name(row.key),
        "side": side(row.realm),
        "state": row.state.as_str(),
        "remote": row.remote,
        "opened_by": if row.dialled { "edge" } else { "peer" },
        "age_s": row.age.as_secs(),
        "idle_s": row.idle.as_secs(),
        "queued_bytes": row.queued,
        "names": row.names,
    })
}

fn entry_json(host: &Host, core: usize, entry: &Entry) -> Value {
    let (direction, flow, end) = match entry.way {
        Way::In(end) => ("in", end.flow, Some(end)),
        Way::Out(end) => ("out", end.flow, Some(end)),
        Way::Across(flow) => ("across", flow, None),
    };
    let headline = &entry.headline;
    let (message, response) = match &headline.start {
        Start::Request(method) => (method.to_string(), false),
        Start::Response(status) => (status.to_string(), true),
    };
    json!({
        "at_ms": entry.at.as_millis(),
        "after_us": u64::try_from(entry.after.as_micros()).unwrap_or(u64::MAX),
        "number": entry.number,
        "node": host.node,
        "core": core,
        "direction": direction,
        "flow": flow_name(flow),
        "side": end.map(|end| side(end.realm)),
        "remote": end.map(|end| end.remote),
        "message": message,
        "response": response,
        "cseq": headline.cseq,
        "call_id": String::from_utf8_lossy(&headline.call_id),
        "outcome": entry.outcome.as_ref().map(outcome_json),
    })
}

fn outcome_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Forwarded(to) => json!({ "kind": "forwarded", "to": side(*to) }),
        Outcome::Refused { status, reason } => {
            json!({ "kind": "refused", "status": status, "reason": reason })
        }
        Outcome::Dropped(reason) => json!({ "kind": "dropped", "reason": reason }),
    }
}

fn flow_name(key: FlowKey) -> String {
    format!("{}.{}.{}", key.core, key.slot, key.generation)
}

const fn side(realm: Realm) -> &'static str {
    match realm {
        Realm::Client => "client",
        Realm::Partner => "partner",
        Realm::Inside => "inside",
    }
}

const ROWS_DEFAULT: usize = 100;
const ROWS_MAX: usize = 1000;
const ENTRIES_DEFAULT: usize = 500;
const ENTRIES_MAX: usize = 2000;
/// A recording that somebody forgot ends by itself.
const RECORD_MAX: Duration = Duration::from_secs(24 * 3600);

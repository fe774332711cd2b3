//! `edgectl webconf`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use edge_common::host_name::HostName;
use edge_common::join_token::{JoinToken, SigningKey};
use edge_common::ports::Service;
use edge_common::private_file;
use edge_common::random::SystemRandom;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Global, Verdict, duration, now};
use crate::admin_client;

/// Arguments of `edgectl webconf`.
#[derive(Debug, Args)]
pub(super) struct Webconf {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Clients that have shown a number or a token, from their match to the end of their relay.
    Sessions {
        #[command(flatten)]
        list: List,
        /// Close this one, by its id in the list.
        #[arg(long, value_name = "ID")]
        cut: Option<u64>,
    },
    /// Agents that are in session with this edge.
    Agents {
        #[command(flatten)]
        list: List,
        /// End the sessions of this agent; it comes back unless it is taken off webconf.agents.
        #[arg(long, value_name = "NAME")]
        drop: Option<HostName>,
    },
    /// Numbers that are admitted, by their hashes.
    Admissions {
        #[command(flatten)]
        list: List,
        /// Make the number of this hash void.
        #[arg(long, value_name = "HASH")]
        revoke: Option<String>,
        /// And close the clients that came in by it.
        #[arg(long, requires = "revoke")]
        cut: bool,
    },
    /// Sign a token for `edge-join`, without asking a daemon.
    ///
    /// Who may read the key may do so; the edges hold its public half in webconf.preface_keys. An agent takes tokens that it
    /// has not signed itself only where its file says how often (`token_uses`).
    Token(Token),
}

#[derive(Debug, Args)]
struct List {
    /// How many rows.
    #[arg(long, value_name = "ROWS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max: u16,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// How long to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Debug, Args)]
struct Token {
    /// The Ed25519 key (PKCS #8, PEM).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The registration of an agent that it leads to.
    #[arg(long, value_name = "NAME")]
    registration: String,
    /// For how long; no longer than webconf.limits.token_lifetime.
    #[arg(long, value_name = "TIME", default_value = "5 min", value_parser = duration)]
    lifetime: Duration,
    /// How many clients it lets in.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    uses: u16,
    /// From where they have to come; default: anywhere.
    #[arg(long, value_name = "NETWORK")]
    source: Option<IpNet>,
}

impl Webconf {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        match &self.what {
            What::Sessions { list, cut } => {
                let change = cut.map(|id| json!({ "command": "sessions.cut", "dial_id": id }));
                list.run(global, "sessions", SESSIONS, change, out)
            }
            What::Agents { list, drop } => {
                let drop = drop.as_ref();
                let change =
                    drop.map(|name| json!({ "command": "agents.drop", "agent": name.as_str() }));
                list.run(global, "agents", AGENTS, change, out)
            }
            What::Admissions { list, revoke, cut } => {
                let revoke = revoke.as_ref();
                let change = revoke.map(
                    |hash| json!({ "command": "admissions.revoke", "number": hash, "cut": cut }),
                );
                list.run(global, "admissions", ADMISSIONS, change, out)
            }
            What::Token(token) => token.run(out),
        }
    }
}

/// The columns of a list: heading, key, width.
type Columns = &'static [(&'static str, &'static str, usize)];

const SESSIONS: Columns = &[
    ("ID", "dial_id", 6),
    ("STAGE", "stage", 9),
    ("CLIENT", "client", 24),
    ("REGISTRATION", "registration", 28),
    ("AGENT", "agent", 28),
    ("NUMBER", "number", 16),
    ("SECONDS", "seconds", 9),
];
const AGENTS: Columns = &[
    ("AGENT", "agent", 28),
    ("ADDRESS", "address", 24),
    ("PARKED", "parked", 6),
    ("WAITING", "waiting", 7),
    ("CLIENTS", "clients", 7),
    ("ADMITTED", "admitted", 8),
    ("DRAINING", "draining", 8),
    ("SECONDS", "seconds", 9),
];
const ADMISSIONS: Columns = &[
    ("NUMBER", "number", 16),
    ("USES", "uses_left", 5),
    ("SECONDS", "seconds_left", 9),
    ("REGISTRATION", "registration", 28),
    ("AGENT", "agent", 28),
];

impl List {
    fn run(
        &self,
        global: &Global,
        command: &str,
        columns: Columns,
        change: Option<Value>,
        out: &mut dyn Write,
    ) -> anyhow::Result<Verdict> {
        let is_change = change.is_some();
        let request = change.unwrap_or_else(|| json!({ "command": command, "max": self.max }));
        let answer = self.ask(global, &request)?;
        if self.json {
            writeln!(out, "{answer}")?;
        } else if is_change {
            for (key, value) in answer.as_object().into_iter().flatten() {
                writeln!(out, "{key}: {value}")?;
            }
        } else {
            print(&answer, columns, out)?;
        }
        let did_nothing = answer
            .as_object()
            .is_some_and(|fields| fields.values().all(is_nothing));
        Ok(if is_change && did_nothing {
            Verdict::Bad
        } else {
            Verdict::Good
        })
    }

    fn ask(&self, global: &Global, request: &Value) -> anyhow::Result<Value> {
        let config = global.load()?;
        anyhow::ensure!(
            config.webconf.is_some(),
            "there is no [webconf] in the configuration"
        );
        let daemon = Service::Webconf.daemon();
        let socket = config.admin.directory.join(daemon).join("admin.sock");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(admin_client::ask(&socket, request, self.timeout))?)
    }
}

fn is_nothing(value: &Value) -> bool {
    *value == json!(0) || *value == json!(false)
}

fn print(answer: &Value, columns: Columns, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = answer["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let mut line = String::new();
    for (heading, _, width) in columns {
        line.push_str(&format!("{heading:width$}  "));
    }
    writeln!(out, "{}", line.trim_end())?;
    for row in rows {
        line.clear();
        for (_, key, width) in columns {
            line.push_str(&format!("{:width$}  ", cell(&row[*key])));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    let (shown, total) = (rows.len(), answer["total"].as_u64().unwrap_or(0));
    if total > shown as u64 {
        writeln!(out, "{shown} of {total}; --max shows more")?;
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.1}", number.as_f64().unwrap_or_default())
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

impl Token {
    fn run(&self, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let what = || self.key.display().to_string();
        let text = private_file::read(&self.key, KEY_LEN_MAX).with_context(what)?;
        let key = SigningKey::from_pem(&text).with_context(what)?;
        let expires = now() + self.lifetime;
        let token = JoinToken::new(
            &self.registration,
            expires,
            self.uses,
            self.source,
            &mut SystemRandom,
        );
        writeln!(out, "{}", token.signed_with(&key))?;
        Ok(Verdict::Good)
    }
}

const KEY_LEN_MAX: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table_and_tells_that_there_is_more() {
        let answer = json!({ "total": 7, "rows": [{
            "number": "00112233445566aa", "uses_left": 1, "seconds_left": 59.25,
            "registration": "mcu1.test", "agent": "mcu1.test",
        }] });
        let mut out = Vec::new();
        print(&answer, ADMISSIONS, &mut out).expect("writes");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "NUMBER            USES   SECONDS    REGISTRATION                  AGENT\n\
             00112233445566aa  1      59.2       mcu1.test                     mcu1.test\n\
             1 of 7; --max shows more\n"
        );
    }

    #[test]
    fn nothing_done_is_a_no() {
        assert!(is_nothing(&json!(0)) && is_nothing(&json!(false)));
        assert!(!is_nothing(&json!(2)) && !is_nothing(&json!(true)));
    }
}

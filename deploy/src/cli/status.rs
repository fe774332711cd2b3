//! `edgectl status`.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use edge_common::config::Config;
use edge_common::ports::{self, Purpose, Service};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Global, Verdict, duration};
use crate::admin_client;

/// Arguments of `edgectl status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// How long to wait for each answer.
    #[arg(long, value_name = "TIME", default_value = "2 s", value_parser = duration)]
    timeout: Duration,
}

/// What one daemon said.
#[derive(Debug, Serialize)]
struct Row {
    daemon: &'static str,
    live: bool,
    ready: bool,
    /// What `/readyz` said, or why it said nothing.
    health: String,
    /// What the admin socket said; null, when it said nothing.
    status: Value,
}

impl Status {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let config = global.load()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let rows = runtime.block_on(self.ask_all(&config));
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&rows)?)?;
        } else {
            print(&rows, out)?;
        }
        let is_good = rows.iter().all(|row| row.ready);
        Ok(if is_good { Verdict::Good } else { Verdict::Bad })
    }

    async fn ask_all(&self, config: &Config) -> Vec<Row> {
        let mut rows = Vec::new();
        for service in Service::ALL {
            if let Some(address) = health_address(service, config) {
                rows.push(self.ask(service, address, config).await);
            }
        }
        rows
    }

    async fn ask(&self, service: Service, address: SocketAddr, config: &Config) -> Row {
        let live = admin_client::page(address, "/livez", self.timeout).await;
        let ready = admin_client::page(address, "/readyz", self.timeout).await;
        let socket = config
            .admin
            .directory
            .join(service.daemon())
            .join("admin.sock");
        let status =
            admin_client::ask(&socket, &json!({ "command": "status" }), self.timeout).await;
        Row {
            daemon: service.daemon(),
            live: live.is_ok_and(|page| page.status == 200),
            ready: ready.as_ref().is_ok_and(|page| page.status == 200),
            health: match ready {
                Ok(page) => page.text.trim().to_owned(),
                Err(error) => format!(
                    "{error}; `systemctl status {0}` and `journalctl -u {0}` tell more",
                    service.daemon()
                ),
            },
            status: status.unwrap_or(Value::Null),
        }
    }
}

/// Where the daemon's health is asked for, by the port table.
fn health_address(service: Service, config: &Config) -> Option<SocketAddr> {
    ports::listeners(config)
        .into_iter()
        .find(|listener| listener.service == service && listener.purpose == Purpose::Health)
        .map(|listener| listener.address)
}

fn print(rows: &[Row], out: &mut dyn Write) -> anyhow::Result<()> {
    let word = |yes: bool| if yes { "yes" } else { "no" };
    writeln!(out, "{:14} {:5} {:6} HEALTH", "DAEMON", "LIVE", "READY")?;
    for row in rows {
        let health = row.health.lines().next().unwrap_or_default();
        writeln!(
            out,
            "{:14} {:5} {:6} {health}",
            row.daemon,
            word(row.live),
            word(row.ready)
        )?;
        for (key, value) in row.status.as_object().into_iter().flatten() {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            writeln!(out, "  {key}: {value}")?;
        }
    }
    Ok(())
}

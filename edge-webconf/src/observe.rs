//! What others get to know: counters, gauges, log lines and the record of each relay.
//!
//! The number of a client shows nowhere; its hash does, the same one at the agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_common::limit::Source;
use edge_common::observe::metrics::{Counter, Counters, Gauge, Histogram, Metrics};
use edge_common::run::now;

use crate::ewrp::Status;
use crate::session::{Event, Gauges, Record};

/// What the process counts; every core counts into the same counters.
#[derive(Debug)]
pub struct Observer {
    relayed_in: Counter,
    relayed_out: Counter,
    refused: Counters<1>,
    agents_refused: Counters<1>,
    sessions_ended: Counters<1>,
    registrations: Counters<1>,
    admissions: Counters<1>,
    matched: Counters<1>,
    tokens_refused: Counters<1>,
    opened: Counter,
    lease: Histogram,
    closed: Counters<1>,
    dials_failed: Counter,
    moved: Counter,
    sessions: Gauge,
    parked: Gauge,
    waiting: Gauge,
    prereading: Gauge,
    relays: Gauge,
    admitted: Gauge,
    tokens: Gauge,
    denials: Denials,
}

impl Observer {
    /// Under the names of `edge-webconf`.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let relayed = metrics.counters(
            "relayed_bytes",
            "Bytes of relayed streams; in is from clients to servers",
            ["direction"],
        );
        let by_status = |name, help| metrics.counters(name, help, ["status"]);
        Self {
            relayed_in: relayed.with(["in"]),
            relayed_out: relayed.with(["out"]),
            refused: by_status(
                "clients_refused",
                "Clients turned away before anything was relayed",
            ),
            agents_refused: by_status("agents_refused", "Connections of agents turned away"),
            sessions_ended: by_status(
                "agent_sessions_ended",
                "Sessions of agents that ended, by why",
            ),
            registrations: by_status(
                "registrations",
                "Servers, conferences and services that agents asked to register, by the answer",
            ),
            admissions: by_status(
                "admissions",
                "Numbers that agents asked to admit, by the answer",
            ),
            matched: metrics.counters(
                "numbers_matched",
                "Admitted numbers that clients showed, by how they were written, and tokens",
                ["encoding"],
            ),
            tokens_refused: metrics.counters(
                "tokens_refused",
                "Prefaces of clients whose token lets nobody in, by what was wrong with it",
                ["reason"],
            ),
            opened: metrics.counter("relays_opened", "Clients that an agent took"),
            lease: metrics.histogram(
                "lease_seconds",
                "From the number of a client to the answer of its agent",
                LEASE_BOUNDS,
            ),
            closed: by_status("relays_closed", "Relayed connections that ended, by how"),
            dials_failed: metrics.counter(
                "dials_failed",
                "Data connections that agents could not open",
            ),
            moved: metrics.counter(
                "leases_across_cores",
                "Data connections that moved to the core of their client",
            ),
            sessions: metrics.gauge("agent_sessions", "Agents in session"),
            parked: metrics.gauge("parked_connections", "Data connections ready for a client"),
            waiting: metrics.gauge("waiting_clients", "Clients that wait for a data connection"),
            prereading: metrics.gauge("prereading_clients", "Clients that have not shown a number"),
            relays: metrics.gauge("relays", "Relayed connections"),
            admitted: metrics.gauge("admitted_numbers", "Numbers in the admission table"),
            tokens: metrics.gauge("used_tokens", "Used tokens that are remembered"),
            denials: Denials::default(),
        }
    }

    /// Bytes from a client to its server.
    pub fn relayed_in(&self, bytes: u64) {
        self.relayed_in.add(bytes);
    }

    /// Bytes from a server to its client.
    pub fn relayed_out(&self, bytes: u64) {
        self.relayed_out.add(bytes);
    }

    /// A data connection moved to the core of its client.
    pub fn lease_moved(&self) {
        self.moved.inc();
    }

    /// The sizes of the broker's tables now.
    pub fn set_gauges(&self, gauges: &Gauges) {
        for (gauge, size) in [
            (&self.sessions, gauges.sessions),
            (&self.parked, gauges.parked),
            (&self.waiting, gauges.waiting),
            (&self.prereading, gauges.prereading),
            (&self.relays, gauges.relays),
            (&self.admitted, gauges.admitted),
            (&self.tokens, gauges.tokens),
        ] {
            gauge.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }

    /// Counts and logs what happened.
    pub fn record(&self, event: &Event) {
        let by_status = |counters: &Counters<1>, status: Status| {
            counters.with([status.label()]).inc();
        };
        match event {
            Event::AgentUp { agent, address } => {
                tracing::info!(%agent, %address, "agent in session");
            }
            Event::AgentMoved { agent, from, to } => {
                tracing::warn!(%agent, %from, %to, "replaced by a session from elsewhere; two agents of one fqdn need an instance each");
            }
            Event::RevocationLost => {
                tracing::error!(
                    "a token was revoked, but too many revoked ones are remembered already"
                );
            }
            Event::AgentDown { agent, status } => {
                by_status(&self.sessions_ended, *status);
                tracing::warn!(%agent, status = status.label(), "agent session ended");
            }
            Event::AgentRefused {
                address,
                status,
                detail,
            } => {
                by_status(&self.agents_refused, *status);
                tracing::warn!(%address, status = status.label(), detail, "agent refused");
            }
            Event::Registered {
                agent,
                name,
                status,
            } => {
                by_status(&self.registrations, *status);
                tracing::info!(%agent, name, status = status.label(), "registration");
            }
            Event::Admitted {
                agent,
                number,
                status,
            } => {
                by_status(&self.admissions, *status);
                let number = hex(number.hash());
                tracing::debug!(%agent, number, status = status.label(), "admission");
            }
            Event::DialFailed {
                agent,
                count,
                status,
            } => {
                self.dials_failed.add((*count).into());
                tracing::warn!(%agent, count, status = status.label(), "agent cannot dial");
            }
            Event::Refused { client, status } => {
                by_status(&self.refused, *status);
                self.denials.log(*status, client, now().mono);
            }
            Event::Matched(shown) => self.matched.with([shown.label()]).inc(),
            Event::TokenRefused(error) => {
                self.tokens_refused.with([error.reason()]).inc();
                tracing::debug!(reason = error.reason(), "token refused");
            }
            Event::Opened { waited } => {
                self.opened.inc();
                self.lease.observe(*waited);
            }
            Event::Closed(record) => {
                by_status(&self.closed, record.status);
                log_relay(record);
            }
            Event::Drained => tracing::info!("every relay has ended"),
        }
    }
}

/// The record of one relayed connection; in JSON logs it is one object with these fields.
fn log_relay(record: &Record) {
    tracing::info!(
        target: "edge_webconf::relay",
        dial_id = record.dial_id,
        number = hex(record.number.hash()),
        client = %record.client,
        agent = %record.agent,
        registration = &*record.registration,
        bytes_in = record.bytes_in,
        bytes_out = record.bytes_out,
        seconds = record.lasted.as_secs_f64(),
        status = record.status.label(),
        "relay"
    );
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// One line for each status and source a minute, with how many there were since the last one; a flood of sources
/// shares one line a minute of each status.
#[derive(Debug, Default)]
struct Denials(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    since: Option<Instant>,
    lines: BTreeMap<(Status, Option<Source>), (u64, SocketAddr)>,
}

impl Denials {
    fn log(&self, status: Status, client: &SocketAddr, now: Instant) {
        let nth = self.nth(status, client, now);
        if nth == 1 {
            tracing::info!(%client, status = status.label(), "client refused");
        } else {
            tracing::debug!(%client, status = status.label(), nth, "client refused");
        }
    }

    /// The how manieth of its kind within the minute.
    fn nth(&self, status: Status, client: &SocketAddr, now: Instant) -> u64 {
        // Nothing that holds the lock can leave the table half written.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = told.since.is_none_or(|since| now >= since + MINUTE);
        if is_over {
            for ((status, source), (nth, last)) in std::mem::take(&mut told.lines) {
                if nth > 1 {
                    let status = status.label();
                    let of_many = source.is_none();
                    tracing::info!(%last, status, nth, of_many, "clients refused within a minute");
                }
            }
            told.since = Some(now);
        }
        let is_full = told.lines.len() >= SOURCES_MAX;
        let own = (status, Some(Source::from(client.ip())));
        let key = if is_full && !told.lines.contains_key(&own) {
            (status, None)
        } else {
            own
        };
        let (nth, last) = told.lines.entry(key).or_insert((0, *client));
        (*nth, *last) = (*nth + 1, *client);
        *nth
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// Sources that have lines of their own within one minute.
const SOURCES_MAX: usize = 256;
/// A parked connection answers within one round trip and what the server takes; a wait ends at five seconds.
const LEASE_BOUNDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_a_minute_and_source() {
        let denials = Denials::default();
        let start = Instant::now();
        let from = |at: u32| SocketAddr::from((at.to_be_bytes(), 5));
        let nth = |status, at, now| denials.nth(status, &from(at), now);
        assert_eq!(nth(Status::Preread, 1, start), 1);
        assert_eq!(nth(Status::Preread, 1, start), 2);
        assert_eq!(nth(Status::TokenUsed, 1, start), 1);
        assert_eq!(nth(Status::Preread, 2, start), 1);
        assert_eq!(nth(Status::Preread, 1, start + MINUTE), 1);
        for at in 2..1000 {
            nth(Status::Preread, at, start + MINUTE);
        }
        assert_eq!(nth(Status::Preread, 5000, start + MINUTE), 1000 - 256);
        assert!(denials.0.lock().expect("a lock").lines.len() <= SOURCES_MAX + 1);
    }

    #[test]
    fn names_and_labels_are_those_that_others_read() {
        let metrics = Metrics::new("webconf");
        let observer = Observer::new(&metrics);
        observer.relayed_in(70);
        observer.relayed_out(7);
        observer.record(&Event::Refused {
            client: "192.0.2.1:5".parse().expect("address"),
            status: Status::TokenUsed,
        });
        observer.record(&Event::Opened {
            waited: Duration::from_millis(3),
        });
        observer.record(&Event::AgentDown {
            agent: "mcu.contoso.internal".parse().expect("name"),
            status: Status::Protocol,
        });
        observer.set_gauges(&Gauges {
            parked: 32,
            ..Gauges::default()
        });
        let text = metrics.text();
        for line in [
            "edge_webconf_relayed_bytes_total{direction=\"in\"} 70",
            "edge_webconf_relayed_bytes_total{direction=\"out\"} 7",
            "edge_webconf_clients_refused_total{status=\"token_used\"} 1",
            "edge_webconf_lease_seconds_sum 0.003",
            "edge_webconf_lease_seconds_bucket{le=\"0.005\"} 1",
            "edge_webconf_agent_sessions_ended_total{status=\"protocol\"} 1",
            "edge_webconf_parked_connections 32",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }
}

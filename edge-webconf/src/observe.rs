//! What others get to know: counters, gauges, log lines and the record of each relay.
//!
//! The number of a client shows nowhere; its hash does, the same one at the agent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::ewrp::Status;
use crate::session::{Event, Gauges, Record};

/// One label with one of a few values.
type Label = [(&'static str, &'static str); 1];

/// The counters and gauges of the process; every core counts into the same ones.
#[derive(Debug)]
pub struct Metrics {
    accepted: Family<Label, Counter>,
    handshakes_failed: Family<Label, Counter>,
    relayed: Family<Label, Counter>,
    // Looked up once: these are on the path of every byte.
    relayed_in: Counter,
    relayed_out: Counter,
    refused: Family<Label, Counter>,
    agents_refused: Family<Label, Counter>,
    admissions: Family<Label, Counter>,
    matched: Family<Label, Counter>,
    closed: Family<Label, Counter>,
    dials_failed: Counter,
    lease_seconds: Histogram,
    sessions: Gauge,
    parked: Gauge,
    waiting: Gauge,
    prereading: Gauge,
    relays: Gauge,
    admitted: Gauge,
    serving: AtomicBool,
    drained: AtomicBool,
    denials: Denials,
}

/// Which listener a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Port 443 outside.
    Client,
    /// Port 8057 inside.
    Agent,
}

impl Listener {
    const fn label(self) -> Label {
        [(
            "listener",
            match self {
                Self::Client => "client",
                Self::Agent => "agent",
            },
        )]
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let relayed = Family::<Label, Counter>::default();
        let (relayed_in, relayed_out) = (
            relayed.get_or_create(&[("direction", "in")]).clone(),
            relayed.get_or_create(&[("direction", "out")]).clone(),
        );
        let metrics = Self {
            accepted: Family::default(),
            handshakes_failed: Family::default(),
            relayed,
            relayed_in,
            relayed_out,
            refused: Family::default(),
            agents_refused: Family::default(),
            admissions: Family::default(),
            matched: Family::default(),
            closed: Family::default(),
            dials_failed: Counter::default(),
            lease_seconds: Histogram::new(LEASE_BUCKETS),
            sessions: Gauge::default(),
            parked: Gauge::default(),
            waiting: Gauge::default(),
            prereading: Gauge::default(),
            relays: Gauge::default(),
            admitted: Gauge::default(),
            serving: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            denials: Denials::default(),
        };
        // A counter that is not there looks like one that was never reset.
        for listener in [Listener::Client, Listener::Agent] {
            drop(metrics.accepted.get_or_create(&listener.label()));
        }
        metrics
    }
}

impl Metrics {
    /// Makes them known under their names.
    pub fn register(&self, registry: &mut Registry) {
        let families = [
            (
                "edge_webconf_connections_accepted",
                "TCP connections taken in",
                &self.accepted,
            ),
            (
                "edge_webconf_handshakes_failed",
                "TLS handshakes that came to nothing",
                &self.handshakes_failed,
            ),
            (
                "edge_webconf_relayed_bytes",
                "Bytes of relayed streams; in is from clients to servers",
                &self.relayed,
            ),
            (
                "edge_webconf_clients_refused",
                "Clients turned away before a byte was relayed to them",
                &self.refused,
            ),
            (
                "edge_webconf_agents_refused",
                "Connections of agents turned away",
                &self.agents_refused,
            ),
            (
                "edge_webconf_admissions",
                "Numbers that agents asked to admit, by the answer",
                &self.admissions,
            ),
            (
                "edge_webconf_numbers_matched",
                "Admitted numbers that clients showed, by how they were written",
                &self.matched,
            ),
            (
                "edge_webconf_relays_closed",
                "Relayed connections that ended, by how",
                &self.closed,
            ),
        ];
        for (name, help, family) in families {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "edge_webconf_dials_failed",
            "Data connections that agents could not open",
            self.dials_failed.clone(),
        );
        registry.register(
            "edge_webconf_lease_seconds",
            "From the number of a client to the answer of its agent",
            self.lease_seconds.clone(),
        );
        let gauges = [
            (
                "edge_webconf_agent_sessions",
                "Agents in session",
                &self.sessions,
            ),
            (
                "edge_webconf_parked_connections",
                "Data connections ready for a client",
                &self.parked,
            ),
            (
                "edge_webconf_waiting_clients",
                "Clients that wait for a data connection",
                &self.waiting,
            ),
            (
                "edge_webconf_prereading_clients",
                "Clients that have not shown a number",
                &self.prereading,
            ),
            ("edge_webconf_relays", "Relayed connections", &self.relays),
            (
                "edge_webconf_admitted_numbers",
                "Numbers in the admission table",
                &self.admitted,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    /// A TCP connection was taken in.
    pub fn accepted(&self, listener: Listener) {
        self.accepted.get_or_create(&listener.label()).inc();
    }

    /// A TLS handshake came to nothing.
    pub fn handshake_failed(&self, listener: Listener) {
        self.handshakes_failed
            .get_or_create(&listener.label())
            .inc();
    }

    /// Bytes from a client to its server.
    pub fn relayed_in(&self, bytes: u64) {
        self.relayed_in.inc_by(bytes);
    }

    /// Bytes from a server to its client.
    pub fn relayed_out(&self, bytes: u64) {
        self.relayed_out.inc_by(bytes);
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
        ] {
            gauge.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        self.serving.store(gauges.serving > 0, Ordering::Relaxed);
    }

    /// Whether a client that comes now has a chance: an agent is in session and the edge is not
    /// about to stop.
    pub fn is_ready(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Whether the last relay has ended after a drain.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Counts and logs what happened.
    pub fn record(&self, event: &Event) {
        let by_status = |family: &Family<Label, Counter>, status: Status| {
            family.get_or_create(&[("status", status.label())]).inc();
        };
        match event {
            Event::AgentUp { agent, address } => {
                tracing::info!(%agent, %address, "agent in session");
            }
            Event::AgentDown { agent, status } => {
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
                self.dials_failed.inc_by((*count).into());
                tracing::warn!(%agent, count, status = status.label(), "agent cannot dial");
            }
            Event::Refused { client, status } => {
                by_status(&self.refused, *status);
                self.denials.log(*status, client);
            }
            Event::Matched { encoding } => {
                let label = [("encoding", encoding.label())];
                self.matched.get_or_create(&label).inc();
            }
            Event::Opened { waited } => self.lease_seconds.observe(waited.as_secs_f64()),
            Event::Closed(record) => {
                by_status(&self.closed, record.status);
                log_relay(record);
            }
            Event::Drained => {
                self.drained.store(true, Ordering::Relaxed);
                tracing::info!("every relay has ended");
            }
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

/// Keeps a flood of refusals from becoming a flood of log lines: of each status a few are told,
/// then each power of two.
#[derive(Debug, Default)]
struct Denials([AtomicU64; Status::ALL.len()]);

impl Denials {
    fn log(&self, status: Status, client: &std::net::SocketAddr) {
        let nth = self.0[usize::from(status.code())].fetch_add(1, Ordering::Relaxed) + 1;
        if nth <= TOLD_IN_FULL || nth.is_power_of_two() {
            tracing::info!(%client, status = status.label(), nth, "client refused");
        }
    }
}

const TOLD_IN_FULL: u64 = 16;
/// From a warm pool to the end of the lease timeout.
const LEASE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("a string takes all");
        text
    }

    #[test]
    fn names_and_labels_are_those_that_others_read() {
        let metrics = Metrics::default();
        metrics.accepted(Listener::Client);
        metrics.accepted(Listener::Client);
        metrics.relayed_in(70);
        metrics.relayed_out(7);
        metrics.record(&Event::Refused {
            client: "192.0.2.1:5".parse().expect("address"),
            status: Status::TokenUsed,
        });
        metrics.record(&Event::Opened {
            waited: Duration::from_millis(3),
        });
        metrics.set_gauges(&Gauges {
            parked: 32,
            serving: 1,
            ..Gauges::default()
        });
        let text = text(&metrics);
        for line in [
            "edge_webconf_connections_accepted_total{listener=\"client\"} 2",
            "edge_webconf_connections_accepted_total{listener=\"agent\"} 0",
            "edge_webconf_relayed_bytes_total{direction=\"in\"} 70",
            "edge_webconf_relayed_bytes_total{direction=\"out\"} 7",
            "edge_webconf_clients_refused_total{status=\"token_used\"} 1",
            "edge_webconf_lease_seconds_count 1",
            "edge_webconf_parked_connections 32",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
        assert!(metrics.is_ready());
    }
}

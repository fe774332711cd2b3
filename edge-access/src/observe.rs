//! What the proxy did, as counters and as log records.

use std::sync::{Arc, Mutex, PoisonError};

use edge_common::observe::http::Condition;
use edge_common::observe::metrics::{Counter, Counters, Gauge, Gauges, Metrics};

use crate::proxy::token::Realm;
use crate::proxy::watch::WatchEvent;
use crate::proxy::{CloseReason, Event, Fill};

/// The counters of the daemon; clones share them.
#[derive(Clone, Debug)]
pub struct Observer {
    /// By sender, receiver and kind; looked up once, as they count every message.
    forwarded: [[[Counter; 2]; 3]; 3],
    answered: Counters<3>,
    dropped: Counters<1>,
    closed: Counters<1>,
    stacks: Counters<1>,
    stateless: Counters<1>,
    failed_over: Counter,
    timed_out: Counter,
    promoted: Counter,
    verdicts: Counters<1>,
    watched: Counters<1>,
    crl_fetches: Counters<1>,
    crl_lists: Gauge,
    watch_entries: Gauge,
    dials: Counters<2>,
    callbacks: Counters<1>,
    calling: Gauge,
    refused_peers: Counters<1>,
    next_hops: NextHops,
    flows: Gauge,
    websockets: Gauge,
    websocket_handshakes: Counters<1>,
    tables: [Gauges<1>; 7],
    verdicts_known: Gauge,
    verdicts_pending: Gauge,
}

/// How full the tables of one core are.
#[derive(Clone, Debug)]
pub struct Tables {
    waits: Gauge,
    held_bytes: Gauge,
    links: Gauge,
    targets: Gauge,
    transactions: Gauge,
    transaction_bytes: Gauge,
    registration_rate: Gauge,
}

impl Tables {
    /// Takes in what they hold now.
    pub fn set(&self, fill: Fill) {
        set(&self.waits, fill.waits);
        set(&self.held_bytes, fill.held_bytes);
        set(&self.links, fill.links);
        set(&self.targets, fill.targets);
        set(&self.transactions, fill.transactions);
        set(&self.transaction_bytes, fill.transaction_bytes);
        set(&self.registration_rate, fill.registration_rate);
    }
}

fn set(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

impl Observer {
    /// Registers everything; `ready` holds while all `cores` reach the next hop.
    #[must_use]
    pub fn new(metrics: &Metrics, cores: usize, ready: Condition) -> Self {
        let forwarded = metrics.counters(
            "messages_forwarded",
            "SIP messages that were sent on",
            ["from", "to", "kind"],
        );
        let kinds = |from, to| {
            ["request", "response"].map(|kind| forwarded.with([label(from), label(to), kind]))
        };
        Self {
            forwarded: REALMS.map(|from| REALMS.map(|to| kinds(from, to))),
            answered: metrics.counters(
                "requests_refused",
                "Requests that the edge answered itself",
                ["from", "status", "reason"],
            ),
            dropped: metrics.counters(
                "messages_dropped",
                "Messages that were thrown away",
                ["reason"],
            ),
            closed: metrics.counters(
                "connections_closed",
                "Connections that the edge closed",
                ["reason"],
            ),
            stateless: metrics.counters(
                "requests_stateless",
                "Requests that went on without an entry in the table of transactions",
                ["reason"],
            ),
            stacks: metrics.counters(
                "topology_hidden",
                "Messages whose Via and Record-Route of the inside were sealed for a partner, or restored",
                ["step"],
            ),
            failed_over: metrics.counter(
                "requests_failed_over",
                "Requests that were sent to their next target",
            ),
            timed_out: metrics.counter(
                "requests_timed_out",
                "Requests that a target did not answer in time",
            ),
            promoted: metrics.counter("clients_accepted", "Clients that the inside has accepted"),
            verdicts: metrics.counters(
                "federation_verdicts",
                "Proofs of a partner for a domain, by outcome",
                ["outcome"],
            ),
            crl_fetches: metrics.counters(
                "crl_fetches",
                "Revocation lists of partners' authorities that were fetched, or not",
                ["outcome"],
            ),
            crl_lists: metrics.gauge(
                "crl_lists",
                "Revocation lists of partners' authorities that are held",
            ),
            watched: metrics.counters(
                "federation_watch_changes",
                "Discovered partners that came to stand otherwise, by how they stand now",
                ["state"],
            ),
            watch_entries: metrics
                .gauge("federation_watch_entries", "Certificates on the watch list"),
            dials: metrics.counters(
                "dials",
                "Connections that the edge tried to open",
                ["to", "outcome"],
            ),
            callbacks: metrics.counters(
                "federation_callbacks",
                "Partners that were to be called back at their edge",
                ["outcome"],
            ),
            calling: metrics.gauge(
                "federation_callbacks_pending",
                "Partners that are being called back",
            ),
            refused_peers: metrics.counters(
                "peers_refused",
                "Connections whose certificate proves nobody who may speak there",
                ["listener"],
            ),
            next_hops: NextHops {
                up: Arc::new(Mutex::new(vec![0; cores])),
                gauge: metrics.gauge(
                    "next_hop_connections",
                    "Connections to the next hop, one for each core and address",
                ),
                ready,
            },
            flows: metrics.gauge("flows", "SIP connections in the tables of the cores"),
            websockets: metrics.gauge("websockets", "Of these, connections of browsers"),
            websocket_handshakes: metrics.counters(
                "websocket_handshakes",
                "Requests to open a WebSocket, by outcome",
                ["outcome"],
            ),
            tables: [
                ("waits", "Things that messages wait for"),
                ("held_bytes", "Bytes of the messages that wait"),
                (
                    "links",
                    "Partners' edges that are connected, dialled or left alone",
                ),
                ("targets", "Domains whose edge is remembered"),
                ("transactions", "Transactions under way"),
                (
                    "transaction_bytes",
                    "Bytes of the requests that transactions keep",
                ),
                (
                    "registration_rate",
                    "Registrations a second that are let in at present",
                ),
            ]
            .map(|(name, help)| metrics.gauges(name, help, ["core"])),
            verdicts_known: metrics.gauge(
                "verdict_domains",
                "Domains whose federation record is remembered",
            ),
            verdicts_pending: metrics.gauge(
                "verdict_domains_pending",
                "Domains whose federation record is looked up",
            ),
        }
    }

    /// How full the tables of that core are.
    #[must_use]
    pub fn tables(&self, core: usize) -> Tables {
        let core = core.to_string();
        let [
            waits,
            held_bytes,
            links,
            targets,
            transactions,
            transaction_bytes,
            registration_rate,
        ] = &self.tables;
        Tables {
            waits: waits.with([&core]),
            held_bytes: held_bytes.with([&core]),
            links: links.with([&core]),
            targets: targets.with([&core]),
            transactions: transactions.with([&core]),
            transaction_bytes: transaction_bytes.with([&core]),
            registration_rate: registration_rate.with([&core]),
        }
    }

    /// How many domains the owner of the verdicts remembers, and how many it looks up.
    pub fn verdicts_held(&self, (known, pending): (usize, usize)) {
        set(&self.verdicts_known, known);
        set(&self.verdicts_pending, pending);
    }

    /// Counts and logs what the proxy tells.
    pub fn event(&self, event: &Event) {
        match event {
            Event::Forwarded { from, to, response } => {
                self.forwarded[index(*from)][index(*to)][usize::from(*response)].inc();
            }
            Event::Answered(from, refusal) => {
                let status = refusal.status().0.to_string();
                self.answered
                    .with([label(*from), &status, refusal.label()])
                    .inc();
                tracing::debug!(from = label(*from), ?refusal, "request refused");
            }
            Event::Dropped(drop) => {
                self.dropped.with([drop.label()]).inc();
                tracing::debug!(reason = drop.label(), "message dropped");
            }
            Event::Stateless(reason) => {
                self.stateless.with([reason.label()]).inc();
                tracing::debug!(reason = reason.label(), "request without a transaction");
            }
            Event::Topology(step) => {
                self.stacks.with([step.label()]).inc();
            }
            Event::FailedOver => {
                self.failed_over.inc();
                tracing::debug!("request sent to its next target");
            }
            Event::TimedOut => {
                self.timed_out.inc();
                tracing::debug!("request not answered in time");
            }
            Event::Promoted(flow) => {
                self.promoted.inc();
                tracing::debug!(?flow, "client accepted");
            }
            Event::Verdict {
                domain,
                names,
                certificate,
                outcome,
                is_one_of_many,
            } => {
                let label = outcome
                    .as_ref()
                    .map_or_else(|refusal| refusal.label(), |_| "proven");
                self.verdicts.with([label]).inc();
                if *is_one_of_many {
                    return;
                }
                let proof = outcome.as_ref().ok();
                let target = proof.map(|proof| proof.target.to_string());
                let kind = proof.map(|proof| proof.kind.label());
                tracing::info!(
                    %domain,
                    certificate = %names,
                    issuer = certificate.issuer,
                    serial = certificate.serial,
                    outcome = label,
                    kind,
                    target,
                    "federation verdict"
                );
            }
        }
    }

    /// An entry of the watch list came to stand otherwise.
    pub fn watched(&self, watched: &WatchEvent) {
        let state = watched.state.label();
        self.watched.with([state]).inc();
        tracing::warn!(
            issuer = watched.certificate.issuer,
            serial = watched.certificate.serial,
            certificate = watched.names,
            state,
            "federation watch"
        );
    }

    /// How many certificates are on the watch list.
    pub fn watch_entries(&self, entries: usize) {
        set(&self.watch_entries, entries);
    }

    /// A revocation list was fetched, or not.
    pub fn crl_fetched(&self, outcome: &str) {
        self.crl_fetches.with([outcome]).inc();
    }

    /// How many revocation lists are held.
    pub fn crl_lists(&self, lists: usize) {
        set(&self.crl_lists, lists);
    }

    /// A message was lost at a queue.
    pub fn dropped(&self, reason: &str) {
        self.dropped.with([reason]).inc();
    }

    /// The edge closed a connection.
    pub fn closed(&self, reason: CloseReason) {
        self.closed_by(reason.label());
    }

    /// The edge closed a connection for a reason of the shell's.
    pub fn closed_by(&self, reason: &str) {
        self.closed.with([reason]).inc();
    }

    /// A connection was opened, or could not be.
    pub fn dialled(&self, to: &str, outcome: &str) {
        self.dials.with([to, outcome]).inc();
    }

    /// A partner was called back, or should have been.
    pub fn called_back(&self, outcome: &str) {
        self.callbacks.with([outcome]).inc();
    }

    /// So many are being called back.
    pub fn calling_back(&self, calls: usize) {
        set(&self.calling, calls);
    }

    /// Somebody with a good certificate may not speak on that listener.
    pub fn peer_refused(&self, listener: &str) {
        self.refused_peers.with([listener]).inc();
    }

    /// One more or one fewer connection in the tables.
    pub fn flows(&self, change: i64) {
        self.flows.add(change);
    }

    /// A browser's handshake was accepted or denied.
    pub fn websocket(&self, outcome: &str) {
        self.websocket_handshakes.with([outcome]).inc();
    }

    /// One more or one fewer connection of a browser.
    pub fn websockets(&self, change: i64) {
        self.websockets.add(change);
    }

    /// A core has got its connection to the next hop, or has lost it.
    pub fn next_hop(&self, core: usize, is_up: bool) {
        self.next_hops.change(core, is_up);
    }
}

/// On how many cores the next hop is connected; the daemon is ready when it is on all.
#[derive(Clone, Debug)]
struct NextHops {
    /// Under a lock, so that the condition never says what held before.
    up: Arc<Mutex<Vec<usize>>>,
    gauge: Gauge,
    ready: Condition,
}

impl NextHops {
    fn change(&self, core: usize, is_up: bool) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(up) = up.get_mut(core) {
            *up = if is_up { *up + 1 } else { up.saturating_sub(1) };
        }
        set(&self.gauge, up.iter().sum());
        self.ready.set(up.iter().all(|&up| up > 0));
    }
}

const REALMS: [Realm; 3] = [Realm::Client, Realm::Partner, Realm::Inside];

const fn index(realm: Realm) -> usize {
    match realm {
        Realm::Client => 0,
        Realm::Partner => 1,
        Realm::Inside => 2,
    }
}

const fn label(realm: Realm) -> &'static str {
    match realm {
        Realm::Client => "client",
        Realm::Partner => "partner",
        Realm::Inside => "inside",
    }
}

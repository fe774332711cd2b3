//! What the operator sees: every fact of the core becomes a counter, and some become a line in the log.
//!
//! `edge_av_datagrams_total` counts what the kernel handed over and what it took, on UDP 3478 and on the relay ports, so
//! that it equals what a firewall counts on the same ports. What stays in memory between two allocations is counted
//! apart, in `edge_av_hairpins_total`.

use edge_common::observe::metrics::{Counter, Gauge, Metrics};
use edge_common::side::{Side, SidePair};

use crate::mras::Phrase;
use crate::mras::service::Outcome;
use crate::stun::frame::FrameError;
use crate::stun::message::Method;
use crate::turn::drop_reason::Reason;
use crate::turn::port_pool::ShardId;
use crate::turn::refusal::Refusal;
use crate::turn::{Closed, Event};

/// The counters of the relay; clones count together, and each core counts without waiting for another.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Datagrams on UDP 3478.
    pub turn: SidePair<Datagrams>,
    /// Datagrams on the relay ports, which exist outside only.
    pub relay: Datagrams,
    /// Packets between two allocations of one core.
    pub hairpins: Counter,
    /// Packets between allocations of two cores.
    pub crossings: Counter,
    /// Allocations of this shard.
    pub allocations: Gauge,
    drops: [Counter; Reason::ALL.len()],
    requests: [[Counter; Refusal::ALL.len() + 1]; METHODS.len()],
    opened: Counter,
    closed: [Counter; CLOSED.len()],
    streams: [Counter; STREAMS.len()],
    /// Connections of clients that were silent, or stayed, without an allocation.
    pub stranger_ended: Counter,
}

/// Datagrams in both directions.
#[derive(Clone, Debug)]
pub struct Datagrams {
    /// The kernel handed them over.
    pub received: Counter,
    /// The kernel took them.
    pub sent: Counter,
}

impl Figures {
    /// Registers all of them, so that a scrape shows zeros and not nothing.
    #[must_use]
    pub fn new(metrics: &Metrics, shard: ShardId) -> Self {
        let datagrams = metrics.counters(
            "datagrams",
            "Datagrams that the kernel handed over or took",
            ["port", "side", "direction"],
        );
        let both = |port: &str, side: Side| Datagrams {
            received: datagrams.with([port, side.as_str(), "in"]),
            sent: datagrams.with([port, side.as_str(), "out"]),
        };
        let hairpins = metrics.counters(
            "hairpins",
            "Packets relayed in memory between two allocations",
            ["cores"],
        );
        let drops = metrics.counters(
            "dropped",
            "Datagrams neither answered nor relayed",
            ["reason"],
        );
        let requests = metrics.counters(
            "requests",
            "STUN and TURN requests that were answered",
            ["method", "code"],
        );
        let closed = metrics.counters("allocations_closed", "Allocations that have ended", ["why"]);
        let streams = metrics.counters(
            "connections_ended",
            "Client connections that we ended",
            ["reason"],
        );
        let answers = |method: Method| {
            std::array::from_fn(|index| match Refusal::ALL.get(index) {
                Some(refusal) => requests.with([method_name(method), &refusal.code().to_string()]),
                None => requests.with([method_name(method), "ok"]),
            })
        };
        Self {
            turn: SidePair::from_fn(|side| both("turn", side)),
            relay: both("relay", Side::External),
            hairpins: hairpins.with(["one"]),
            crossings: hairpins.with(["two"]),
            allocations: metrics
                .gauges("allocations", "Allocations in use", ["shard"])
                .with([&shard.0.to_string()]),
            drops: Reason::ALL.map(|reason| drops.with([reason.as_str()])),
            requests: METHODS.map(answers),
            opened: metrics.counter("allocations_opened", "Allocations that came into use"),
            closed: CLOSED.map(|why| closed.with([closed_name(why)])),
            streams: STREAMS.map(|error| streams.with([stream_name(error)])),
            stranger_ended: streams.with(["no_allocation"]),
        }
    }

    /// Counts a datagram that went nowhere.
    pub fn drop(&self, reason: Reason) {
        self.drops[reason as usize].inc();
    }

    /// Counts a connection that we ended.
    pub fn stream_ended(&self, error: FrameError) {
        self.streams[stream_index(error)].inc();
    }

    /// Counts a fact, and tells those that somebody may want to read later.
    pub fn note(&self, event: Event) {
        match event {
            Event::Answered(method) => {
                self.requests[method_index(method)][Refusal::ALL.len()].inc();
            }
            Event::Refused(method, refusal) => {
                self.requests[method_index(method)][refusal as usize].inc();
            }
            Event::Dropped(reason) => self.drop(reason),
            Event::Opened { client, relayed } => {
                self.opened.inc();
                self.allocations.add(1);
                tracing::debug!(client = %client.client, listener = client.listener.0, %relayed, "allocation");
            }
            Event::Closed {
                client,
                relayed,
                why,
                lasted,
                traffic,
            } => {
                self.closed[closed_index(why)].inc();
                // One that never opened was never counted.
                if why != Closed::NotOpened {
                    self.allocations.add(-1);
                }
                tracing::info!(
                    client = %client.client,
                    listener = client.listener.0,
                    %relayed,
                    why = closed_name(why),
                    seconds = lasted.as_secs(),
                    packets_out = traffic.packets_out,
                    bytes_out = traffic.bytes_out,
                    packets_in = traffic.packets_in,
                    bytes_in = traffic.bytes_in,
                    "relay session"
                );
            }
        }
    }
}

/// The counters of the A/V authentication service.
#[derive(Clone, Debug)]
pub struct MrasFigures {
    requests: [Counter; OUTCOMES.len()],
    ended: [Counter; Ended::ALL.len()],
}

/// Why we ended a connection of a server inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its certificate cannot be read.
    Certificate,
    /// It is not certain where its messages end.
    Framing,
    /// The head of a message cannot be read.
    Head,
    /// It does not take its answers.
    Answers,
}

impl Ended {
    const ALL: [Self; 4] = [Self::Certificate, Self::Framing, Self::Head, Self::Answers];

    /// The label of its counter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Framing => "framing_lost",
            Self::Head => "head_malformed",
            Self::Answers => "queue_full",
        }
    }
}

impl MrasFigures {
    /// Registers all of them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let requests = metrics.counters(
            "mras_requests",
            "Requests to the A/V authentication service",
            ["result"],
        );
        let ended = metrics.counters(
            "mras_connections_ended",
            "Connections to the A/V authentication service that we ended",
            ["reason"],
        );
        Self {
            requests: OUTCOMES.map(|outcome| requests.with([outcome_name(outcome)])),
            ended: Ended::ALL.map(|why| ended.with([why.as_str()])),
        }
    }

    /// Counts a connection that we ended.
    pub fn ended(&self, why: Ended) {
        self.ended[why as usize].inc();
    }

    /// Counts one.
    pub fn note(&self, outcome: Outcome) {
        if let Some(index) = OUTCOMES.iter().position(|&known| known == outcome) {
            self.requests[index].inc();
        }
    }
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Answered(Phrase::Ok),
    Outcome::Answered(Phrase::RequestMalformed),
    Outcome::Answered(Phrase::RequestTooLarge),
    Outcome::Answered(Phrase::Forbidden),
    Outcome::Answered(Phrase::VersionMismatch),
    Outcome::WrongMethod,
    Outcome::WrongType,
    Outcome::Ignored,
];

const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(Phrase::Ok) => "ok",
        Outcome::Answered(Phrase::RequestMalformed) => "malformed",
        Outcome::Answered(Phrase::RequestTooLarge) => "too_large",
        Outcome::Answered(Phrase::Forbidden) => "forbidden",
        Outcome::Answered(Phrase::VersionMismatch) => "version",
        Outcome::WrongMethod => "method",
        Outcome::WrongType => "content_type",
        Outcome::Ignored => "ignored",
    }
}

const METHODS: [Method; 6] = [
    Method::Binding,
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
    Method::Other(0),
];
const CLOSED: [Closed; 4] = [
    Closed::Expired,
    Closed::Released,
    Closed::Disconnected,
    Closed::NotOpened,
];
const STREAMS: [FrameError; 6] = [
    FrameError::Tls,
    FrameError::PseudoTls,
    FrameError::MsFraming,
    FrameError::Unknown,
    FrameError::Lost,
    FrameError::TooLong,
];

const fn method_index(method: Method) -> usize {
    match method {
        Method::Binding => 0,
        Method::Allocate => 1,
        Method::Refresh => 2,
        Method::CreatePermission => 3,
        Method::ChannelBind => 4,
        // Numbers of a stranger's choice share one counter.
        Method::Send | Method::Data | Method::Other(_) => 5,
    }
}

const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Binding => "binding",
        Method::Allocate => "allocate",
        Method::Refresh => "refresh",
        Method::CreatePermission => "create_permission",
        Method::ChannelBind => "channel_bind",
        Method::Send | Method::Data | Method::Other(_) => "other",
    }
}

const fn closed_index(why: Closed) -> usize {
    match why {
        Closed::Expired => 0,
        Closed::Released => 1,
        Closed::Disconnected => 2,
        Closed::NotOpened => 3,
    }
}

const fn closed_name(why: Closed) -> &'static str {
    match why {
        Closed::Expired => "expired",
        Closed::Released => "released",
        Closed::Disconnected => "disconnected",
        Closed::NotOpened => "not_opened",
    }
}

const fn stream_index(error: FrameError) -> usize {
    match error {
        FrameError::Tls => 0,
        FrameError::PseudoTls => 1,
        FrameError::MsFraming => 2,
        FrameError::Unknown => 3,
        FrameError::Lost => 4,
        FrameError::TooLong => 5,
    }
}

const fn stream_name(error: FrameError) -> &'static str {
    match error {
        FrameError::Tls => "tls",
        FrameError::PseudoTls => "pseudo_tls",
        FrameError::MsFraming => "ms_framing",
        FrameError::Unknown => "unknown_protocol",
        FrameError::Lost => "framing_lost",
        FrameError::TooLong => "too_long",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_reaches_the_counter_of_its_name() {
        let metrics = Metrics::new("av");
        let figures = Figures::new(&metrics, ShardId(0));
        for (index, method) in METHODS.into_iter().enumerate() {
            assert_eq!(method_index(method), index);
            for refusal in Refusal::ALL {
                figures.note(Event::Refused(method, refusal));
            }
            figures.note(Event::Answered(method));
        }
        for reason in Reason::ALL {
            figures.note(Event::Dropped(reason));
        }
        for (index, error) in STREAMS.into_iter().enumerate() {
            assert_eq!(stream_index(error), index);
            figures.stream_ended(error);
        }
        let text = metrics.text();
        let ones = |name: &str| {
            text.lines()
                .filter(|line| line.starts_with(name) && line.ends_with(" 1"))
                .count()
        };
        assert_eq!(
            ones("edge_av_requests_total{"),
            METHODS.len() * (Refusal::ALL.len() + 1)
        );
        assert_eq!(ones("edge_av_dropped_total{"), Reason::ALL.len());
        assert_eq!(ones("edge_av_connections_ended_total{"), STREAMS.len());
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
        for (index, why) in CLOSED.into_iter().enumerate() {
            assert_eq!(closed_index(why), index);
        }
    }
}

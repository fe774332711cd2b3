//! Where log lines go and what they look like: JSON for machines, text for people, on standard error.
//!
//! Lines about a connection carry `connection`, lines about a call or a join carry `correlation`: the same value in each
//! daemon that had to do with it. Values go in fields; secrets and message bodies go nowhere.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as lines, reload};

use crate::config::{LogFormat, LogLevel};

/// The log of this process; it can be made more or less talkative while the process runs.
#[derive(Clone, Debug)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

/// Sets up the log for the whole process, once. A second call leaves the first one's set-up in force.
#[must_use]
pub fn init(level: LogLevel, format: LogFormat) -> Log {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(level.as_str()));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = lines::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = if json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed()
    } else {
        lines.boxed()
    };
    let installed = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if installed.is_err() {
        tracing::debug!("the log was set up before");
    }
    Log(handle)
}

/// The text is no filter: see [`Log::set`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no log filter")]
pub struct NotAFilter(String);

impl Log {
    /// Takes a level (`debug`) or a filter by module (`info,edge_common::net=debug`).
    pub fn set(&self, filter: &str) -> Result<(), NotAFilter> {
        let refuse = || NotAFilter(filter.to_owned());
        if filter.is_empty() {
            return Err(refuse());
        }
        let filter = EnvFilter::from_str(filter).map_err(|_| refuse())?;
        self.0.reload(filter).map_err(|_| refuse())
    }
}

/// Names a connection in the log, unique in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// Gives out the [`ConnectionId`]s of one core.
#[derive(Debug)]
pub struct ConnectionIds {
    core: u64,
    next: u64,
}

impl ConnectionIds {
    /// For the core with this number.
    #[must_use]
    pub const fn new(core: usize) -> Self {
        Self {
            core: (core as u64) << 48,
            next: 0,
        }
    }

    /// The next one.
    pub const fn take(&mut self) -> ConnectionId {
        self.next += 1;
        ConnectionId(self.core | self.next)
    }
}

/// As in `1-2a`: the core, and the number in hexadecimal.
impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.0 >> 48, self.0 & ((1 << 48) - 1))
    }
}

/// Names a call or a join in the logs of all daemons: the same for the same Call-ID, and no way back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CorrelationId(u64);

impl CorrelationId {
    /// From what identifies the call everywhere: its Call-ID, the number of the conference's join.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name);
        let first = hash.as_ref().iter().take(size_of::<u64>());
        Self(first.fold(0, |id, &byte| id << 8 | u64::from(byte)))
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_two_cores_have_other_names() {
        let (mut first, mut second) = (ConnectionIds::new(0), ConnectionIds::new(1));
        assert_eq!(first.take().to_string(), "0-1");
        assert_eq!(first.take().to_string(), "0-2");
        assert_eq!(second.take().to_string(), "1-1");
    }

    #[test]
    fn a_call_has_one_name_in_every_daemon() {
        // SHA-256 of "abc" begins with these bytes (FIPS 180-4, example).
        assert_eq!(CorrelationId::of(b"abc").to_string(), "ba7816bf8f01cfea");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let log = init(LogLevel::Info, LogFormat::Json);
        assert_eq!(log.set("debug"), Ok(()));
        assert_eq!(log.set("info,edge_common::net=debug"), Ok(()));
        assert_eq!(log.set(""), Err(NotAFilter(String::new())));
        assert!(log.set("edge_common=loud").is_err());
    }
}

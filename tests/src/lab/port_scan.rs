//! Which TCP ports of an address answer a connection attempt.

use super::netns::Netns;
use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::{JoinError, JoinSet};

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Listeners that accepted.
    pub listening: BTreeSet<u16>,
    /// Other ports that accepted.
    pub stray: BTreeSet<u16>,
}

/// Tries every port from 1 to 65535 of `address` from `netns`. The known `listeners` are tried with
/// patience, the rest in a crowd.
pub fn tcp(netns: &Netns, address: IpAddr, listeners: &[u16]) -> Result<Scan> {
    let at_once = open_file_limit()
        .saturating_sub(RESERVED_FILES)
        .clamp(100, AT_ONCE_MAX);
    netns.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        runtime.block_on(async {
            let others = (1..=u16::MAX).filter(|port| !listeners.contains(port));
            Ok(Scan {
                stray: scan(address, others, at_once, PATIENCE).await?,
                listening: scan(address, listeners.iter().copied(), 1, LISTENER_PATIENCE).await?,
            })
        })
    })?
}

/// Sends one datagram to every port of `address` that `wanted` names.
pub fn knock_udp(
    netns: &Netns,
    address: IpAddr,
    wanted: impl Fn(u16) -> bool + Send + Sync,
) -> Result<u32> {
    netns.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        runtime.block_on(async {
            let any = match address {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            let mut sent = 0;
            for port in (1..=u16::MAX).filter(|&port| wanted(port)) {
                // A port that refuses makes a later send fail with its ICMP error; try once more.
                let to = SocketAddr::from((address, port));
                if socket.send_to(b"?", to).await.is_err() {
                    socket.send_to(b"?", to).await.ok();
                }
                sent += 1;
            }
            Ok(sent)
        })
    })?
}

async fn scan(
    address: IpAddr,
    ports: impl Iterator<Item = u16>,
    at_once: usize,
    patience: Duration,
) -> Result<BTreeSet<u16>> {
    let mut open = BTreeSet::new();
    let mut running = JoinSet::new();
    for port in ports {
        if running.len() >= at_once {
            open.extend(ended(running.join_next().await)?);
        }
        running.spawn(attempt(address, port, patience));
    }
    while let Some(next) = running.join_next().await {
        open.extend(ended(Some(next))?);
    }
    Ok(open)
}

/// The port if it is open. A scan that could not try a port is an error: it would call it closed.
async fn attempt(address: IpAddr, port: u16, patience: Duration) -> Result<Option<u16>> {
    match tokio::time::timeout(patience, TcpStream::connect((address, port))).await {
        Ok(Ok(_)) => Ok(Some(port)),
        Err(_) => Ok(None),
        Ok(Err(error)) if SHUT.contains(&error.kind()) => Ok(None),
        Ok(Err(error)) => Err(error).with_context(|| format!("cannot try {address} {port}")),
    }
}

fn ended(next: Option<Result<Result<Option<u16>>, JoinError>>) -> Result<Option<u16>> {
    next.map_or(Ok(None), |ended| ended.context("a scan panicked")?)
}

/// Raises the soft limit of open files to the hard one and says what it is.
fn open_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() {
        raised
    } else {
        limit
    };
    now.current
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(AT_ONCE_MAX)
}

/// What an answer other than yes looks like.
const SHUT: [ErrorKind; 5] = [
    ErrorKind::ConnectionRefused,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::PermissionDenied,
    ErrorKind::TimedOut,
];
const AT_ONCE_MAX: usize = 4000;
/// Files that are open for other reasons.
const RESERVED_FILES: usize = 200;
/// The lab's network answers in well under a millisecond; silence means that nobody will.
const PATIENCE: Duration = Duration::from_millis(400);
/// A listener's answer must not be missed because this machine is busy.
const LISTENER_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_among_the_listeners_or_as_a_stray() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ports = [port, 1];
        let open = runtime.block_on(scan(address, ports.into_iter(), 2, PATIENCE));
        assert_eq!(open.expect("a scan"), BTreeSet::from([port]));
    }
}

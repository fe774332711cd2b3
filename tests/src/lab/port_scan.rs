//! Which TCP ports of an address answer a connection attempt.

use super::netns::Netns;
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Tries every port from 1 to 65535 of `address` from `netns`; returns those that accepted.
pub fn open_tcp_ports(netns: &Netns, address: Ipv4Addr) -> Result<BTreeSet<u16>> {
    netns.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        Ok(runtime.block_on(scan(address)))
    })?
}

/// Sends one datagram to every port of `address` that `wanted` names.
pub fn knock_udp(
    netns: &Netns,
    address: Ipv4Addr,
    wanted: impl Fn(u16) -> bool + Send + Sync,
) -> Result<u32> {
    netns.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        runtime.block_on(async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
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

async fn scan(address: Ipv4Addr) -> BTreeSet<u16> {
    let mut open = BTreeSet::new();
    let mut running = JoinSet::new();
    for port in 1..=u16::MAX {
        if running.len() >= AT_ONCE {
            note(&mut open, running.join_next().await);
        }
        running.spawn(async move {
            let attempt = TcpStream::connect((address, port));
            let answer = tokio::time::timeout(PATIENCE, attempt).await;
            matches!(answer, Ok(Ok(_))).then_some(port)
        });
    }
    while let Some(ended) = running.join_next().await {
        note(&mut open, Some(ended));
    }
    open
}

fn note(open: &mut BTreeSet<u16>, ended: Option<Result<Option<u16>, tokio::task::JoinError>>) {
    if let Some(Ok(Some(port))) = ended {
        open.insert(port);
    }
}

/// Well below the limit of open files, 20 000 on small machines.
const AT_ONCE: usize = 4000;
/// The lab's network answers in well under a millisecond; silence means that nobody will.
const PATIENCE: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_and_nothing_else_is_made_up() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let open = runtime.block_on(scan(Ipv4Addr::LOCALHOST));
        assert!(open.contains(&port), "{open:?}");
        assert!(
            open.len() < 2000,
            "a scan that finds everything finds nothing"
        );
    }
}

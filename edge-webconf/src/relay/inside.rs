//! The tasks of the connections of agents.

use edge_common::cert::identity::ProvenNames;
use edge_common::net::stream::{Read, Stream};
use rustls::ProtocolVersion;

use super::post::Order;
use super::shell::Shell;
use super::{Input, Lease};
use crate::ewrp::{ALPN_CONTROL, ALPN_DATA, Status};
use crate::session::{ControlId, DataId, Event, Peer};

/// Serves a connection to the agent port whose TLS handshake is done; what it is for is its ALPN.
pub async fn serve(shell: Shell, stream: Stream) {
    if stream.tls_version() != Some(ProtocolVersion::TLSv1_3) {
        return refuse(&shell, &stream, Status::Version, "no TLS 1.3");
    }
    let Some(peer) = peer_of(&stream) else {
        // The verifier has accepted the certificate, but it holds no name that we can read.
        let detail = "a certificate without a name that can be read";
        return refuse(&shell, &stream, Status::NotTrusted, detail);
    };
    match stream.alpn().as_deref() {
        Some(ALPN_CONTROL) => control(shell, stream, peer).await,
        Some(ALPN_DATA) => data(shell, stream, peer).await,
        Some(_) | None => refuse(&shell, &stream, Status::Protocol, "no ALPN of EWRP"),
    }
}

fn refuse(shell: &Shell, stream: &Stream, status: Status, detail: &str) {
    shell.observer().record(&Event::AgentRefused {
        address: stream.remote(),
        status,
        detail: detail.to_owned(),
    });
    stream.close();
}

/// The DNS names of the certificate, never its common name.
fn peer_of(stream: &Stream) -> Option<Peer> {
    let chain = stream.peer_certificates();
    let proven = ProvenNames::from_certificate(chain.first()?).ok()?;
    let mut names = proven.dns;
    names.sort_unstable();
    names.dedup();
    Some(Peer {
        names,
        address: stream.remote(),
    })
}

async fn control(shell: Shell, stream: Stream, peer: Peer) {
    let entered = shell.enter(Some(stream.clone()));
    let id = ControlId(entered.id);
    shell.tell(Input::Control(id, peer)).await;
    loop {
        match entered.post.next().await {
            Order::Close => break,
            Order::Read => {}
            Order::Charge | Order::Lease(_) | Order::Handover(..) | Order::Relay => continue,
        }
        let received = tokio::select! {
            biased;
            () = entered.post.closed() => break,
            received = receive_unhurried(&stream) => received,
        };
        match received {
            Some(bytes) => shell.tell(Input::ControlData(id, bytes)).await,
            None => {
                shell.tell(Input::ControlClosed(id)).await;
                break;
            }
        }
    }
    stream.close();
}

async fn data(shell: Shell, stream: Stream, peer: Peer) {
    let entered = shell.enter(None);
    let id = DataId(entered.id);
    shell.tell(Input::Data(id, peer)).await;
    let mut reading = false;
    loop {
        let received = tokio::select! {
            biased;
            order = entered.post.next() => match order {
                Order::Read => {
                    reading = true;
                    continue;
                }
                Order::Lease(lease) => return leased(&shell, entered, stream, lease).await,
                Order::Close => break,
                Order::Charge | Order::Handover(..) | Order::Relay => continue,
            },
            received = receive(&stream), if reading => received,
        };
        reading = false;
        match received {
            Some(bytes) => shell.tell(Input::DataBytes(id, bytes)).await,
            None => shell.tell(Input::DataClosed(id)).await,
        }
    }
    stream.close();
}

/// The connection is the client's from here, and the broker has no more to say about it.
async fn leased(shell: &Shell, entered: super::shell::Entered, stream: Stream, lease: Lease) {
    drop(entered);
    shell.pass_on(stream, lease).await;
}

/// Reads on only when the agent has taken most of the answers to what it said before.
async fn receive_unhurried(stream: &Stream) -> Option<Vec<u8>> {
    stream.queued_below(ANSWERS_MAX).await.ok()?;
    receive(stream).await
}

/// What has come; `None` at the end of the connection.
async fn receive(stream: &Stream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = stream.read(|received| {
        bytes.extend_from_slice(received);
        received.len()
    });
    match read.await {
        Ok(Read::Data) => Some(bytes),
        Ok(Read::End) | Err(_) => None,
    }
}

/// Answers that may wait for an agent; one read of requests makes fewer than as much again.
const ANSWERS_MAX: usize = 32 * 1024;

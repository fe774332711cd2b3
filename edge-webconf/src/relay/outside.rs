//! The task of one client, from the end of its TLS handshake to the end of its relay.

use edge_common::net::accept::Gate;
use edge_common::net::stream::{Read, Stream};
use edge_common::run::now;

use super::post::{Order, Post};
use super::pump::{Pump, PumpEnd, Start, Way};
use super::shell::Shell;
use super::{Input, Lease};
use crate::ewrp::Status;
use crate::ewrp::data::{HEAD_LEN, OpenAck};
use crate::session::{Arrival, ClientId, RelayEnd};

/// What a client has sent before it was let in.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// So many of them the broker knows.
    told: usize,
    /// The client sends nothing more.
    ended: bool,
}

/// Serves a client. Whatever the reason to turn it away, it sees the same close. One that has
/// shown nothing that lets it in counts twice in the rate of its source, since whoever guesses numbers has to connect often.
pub async fn serve(shell: Shell, gate: Gate, client: Stream) {
    let entered = shell.enter(None);
    let id = ClientId(entered.id);
    let arrival = Arrival {
        address: client.remote(),
        sni: client.sni().unwrap_or_default().into(),
    };
    shell.tell(Input::Client(id, arrival)).await;
    let Some((held, mut data, mut lease)) = preread(&shell, id, &entered.post, &client).await
    else {
        if entered.post.is_charged() {
            gate.charge(now(), client.remote().ip(), 1);
        }
        client.close();
        return;
    };
    loop {
        match open(&shell, id, &entered.post, &data, &held, &lease).await {
            Opened::Taken => {
                relay(&shell, id, &entered.post, &client, &data, held, &lease).await;
                break;
            }
            Opened::Refused => break,
            Opened::Dead => match next_handover(&entered.post).await {
                Some(handover) => (data, lease) = handover,
                None => break,
            },
        }
    }
    client.close();
    data.close();
}

/// What came of an OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// The agent took the client, and so did the broker.
    Taken,
    /// The client is turned away.
    Refused,
    /// The data connection was gone before a byte was sent; the broker looks for another.
    Dead,
}

/// The next data connection for a client whose first one was dead; `None`: it is turned away.
async fn next_handover(post: &Post) -> Option<(Stream, Lease)> {
    loop {
        match post.next().await {
            Order::Handover(data, lease) => return Some((data, lease)),
            Order::Close => return None,
            Order::Read | Order::Charge | Order::Lease(_) | Order::Relay => {}
        }
    }
}

/// Shows the broker the first bytes, one arrival at a time, until it sends a data connection.
/// `None`: the client is turned away, or gone.
async fn preread(
    shell: &Shell,
    id: ClientId,
    post: &Post,
    client: &Stream,
) -> Option<(Held, Stream, Lease)> {
    let mut held = Held::default();
    loop {
        let mut order = post.next().await;
        if matches!(order, Order::Read) {
            let Some(other) = read_for_broker(shell, id, post, client, &mut held).await else {
                continue;
            };
            order = other;
        }
        match order {
            Order::Handover(data, lease) => return Some((held, data, lease)),
            Order::Close => return None,
            Order::Read | Order::Charge | Order::Lease(_) | Order::Relay => {}
        }
    }
}

/// Reads once and tells the broker, unless an order comes first.
async fn read_for_broker(
    shell: &Shell,
    id: ClientId,
    post: &Post,
    client: &Stream,
    held: &mut Held,
) -> Option<Order> {
    let limit = shell.preread_limit();
    let bytes = &mut held.bytes;
    let read = client.read(|received| {
        bytes.extend_from_slice(received);
        received.len()
    });
    let read = tokio::select! {
        biased;
        order = post.next() => return Some(order),
        read = read => read,
    };
    let input = match read {
        Ok(Read::Data) => {
            let fresh = held.bytes[held.told..held.bytes.len().min(limit)].to_vec();
            held.told += fresh.len();
            Input::ClientData(id, fresh)
        }
        Ok(Read::End) => {
            held.ended = true;
            Input::ClientEnd(id)
        }
        Err(_) => Input::ClientLost(id),
    };
    shell.tell(input).await;
    None
}

/// Sends OPEN and what the client has sent, and tells the broker the agent's answer.
async fn open(
    shell: &Shell,
    id: ClientId,
    post: &Post,
    data: &Stream,
    held: &Held,
    lease: &Lease,
) -> Opened {
    let stream = held.bytes.get(lease.skip..).unwrap_or_default();
    let preread = stream.get(..lease.preread_len).unwrap_or_default();
    if data.queue(&lease.open).is_err() || data.queue(preread).is_err() {
        shell.tell(Input::LeaseFailed(id)).await;
        return Opened::Dead;
    }
    let answer = data.peek(|bytes| OpenAck::parse(bytes).transpose());
    let status = tokio::select! {
        biased;
        () = post.closed() => return Opened::Refused,
        answer = answer => match answer {
            Ok(Some(Ok(OpenAck(status)))) => status,
            Ok(Some(Err(_))) => Status::Protocol,
            Ok(None) | Err(_) => Status::UpstreamRefused,
        },
    };
    shell.tell(Input::OpenAck(id, status)).await;
    loop {
        match post.next().await {
            Order::Relay => return Opened::Taken,
            Order::Close => return Opened::Refused,
            Order::Read | Order::Charge | Order::Lease(_) | Order::Handover(..) => {}
        }
    }
}

async fn relay(
    shell: &Shell,
    id: ClientId,
    post: &Post,
    client: &Stream,
    data: &Stream,
    held: Held,
    lease: &Lease,
) {
    let observer = shell.observer();
    let pump = Pump::new(client, data, shell.limits(), |way, bytes| match way {
        Way::Rightward => observer.relayed_in(bytes),
        Way::Leftward => observer.relayed_out(bytes),
    });
    // What came behind the announced bytes before the relay began.
    let stream = held.bytes.get(lease.skip..).unwrap_or_default();
    let rest = stream.get(lease.preread_len..).unwrap_or_default();
    let queued = data.queue(rest).is_ok();
    pump.moved_before(Way::Rightward, stream.len());
    let start = Start {
        right_skip: HEAD_LEN,
        left_ended: held.ended,
        ..Start::default()
    };
    drop(held);
    let end = if queued {
        tokio::select! {
            biased;
            () = post.closed() => {
                // Neither end may take what it has for all there is.
                client.abort();
                data.abort();
                None
            }
            end = pump.run(start) => Some(end),
        }
    } else {
        Some(PumpEnd::RightFailed)
    };
    let moved = pump.moved();
    let end = RelayEnd {
        bytes_in: moved.rightward,
        bytes_out: moved.leftward,
        status: match end {
            Some(PumpEnd::Finished) => Status::Ok,
            Some(PumpEnd::Idle) => Status::Idle,
            Some(PumpEnd::LeftFailed) => Status::Protocol,
            Some(PumpEnd::RightFailed) => Status::UpstreamRefused,
            // The broker knows why.
            None => Status::Shutdown,
        },
    };
    shell.tell(Input::RelayEnded(id, end)).await;
}

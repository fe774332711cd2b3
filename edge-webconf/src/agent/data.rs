//! One data connection: dialled, parked, and then one client's way to its server.

use std::rc::Rc;
use std::sync::Arc;

use edge_common::net::dial::DialTls;
use edge_common::net::stream::Stream;
use edge_common::net::{handshake, proxy_protocol};
use edge_common::run::now;
use tokio::sync::watch;

use super::config::{Server, Target};
use super::edge::{self, EdgeState};
use super::process::Agent;
use crate::ewrp::Status;
use crate::ewrp::data::{Open, OpenAck};
use crate::relay::pump::{Pump, PumpEnd, Start, Way};

/// Dials, waits for a client, and relays it.
pub async fn run(agent: Rc<Agent>, index: usize, session_end: watch::Receiver<()>) {
    let state = &agent.edges[index];
    let Some((stream, open, len)) = wait_for_client(&agent, state, session_end).await else {
        return;
    };
    let relay = Relaying::begin(&agent);
    serve(&agent, index, &stream, &open, len).await;
    stream.close();
    drop(relay);
}

/// `None`: the connection did not come about, or ended without a client.
async fn wait_for_client(
    agent: &Agent,
    state: &EdgeState,
    mut session_end: watch::Receiver<()>,
) -> Option<(Stream, Open, usize)> {
    let _idle = Idle::begin(state);
    let options = agent.relay_limits().stream_options();
    let stream = match edge::connect(agent, &state.config, &agent.tls.data, options).await {
        Ok(stream) => stream,
        Err(error) => {
            agent.counters.dials_failed.inc();
            tracing::warn!(edge = %state.config.fqdn, error, "a data connection failed");
            state.dial_failed(1);
            return None;
        }
    };
    let hello = state.data_hello()?;
    stream.queue(&hello).ok()?;
    let open = stream.peek(|bytes| Open::parse(bytes).transpose());
    let open = tokio::select! {
        biased;
        open = open => open,
        _ = session_end.changed() => return None,
    };
    match open {
        Ok(Some(Ok((open, len)))) => Some((stream, open, len)),
        Ok(Some(Err(error))) => {
            tracing::warn!(edge = %state.config.fqdn, %error, "not an OPEN");
            None
        }
        Ok(None) | Err(_) => None,
    }
}

/// Takes the client to its server, if this agent has let it in.
async fn serve(agent: &Agent, index: usize, stream: &Stream, open: &Open, len: usize) {
    let server = match reach(agent, index, open).await {
        Ok(server) => server,
        Err(status) => {
            answer(agent, stream, open, status);
            return;
        }
    };
    if !answer(agent, stream, open, Status::Ok) {
        return;
    }
    let counters = &agent.counters;
    let pump = Pump::new(
        stream,
        &server,
        agent.relay_limits(),
        |way, bytes| match way {
            Way::Rightward => counters.relayed_in.add(bytes),
            Way::Leftward => counters.relayed_out.add(bytes),
        },
    );
    let start = Start {
        left_skip: len,
        ..Start::default()
    };
    let end = pump.run(start).await;
    let moved = pump.moved();
    tracing::info!(
        dial_id = open.dial_id,
        number = format!("{:016x}", open.number.hash()),
        client = %open.client,
        bytes_in = moved.rightward,
        bytes_out = moved.leftward,
        end = end_label(end),
        "relay"
    );
}

/// Counts the use of the number first: whatever comes of it, it is used.
async fn reach(agent: &Agent, index: usize, open: &Open) -> Result<Stream, Status> {
    let (server, tls) = target(agent, open.reg_id).ok_or(Status::NameDenied)?;
    let (now, token_uses) = (now().mono, server.token_uses);
    let counted = agent
        .ledger
        .borrow_mut()
        .open(now, open.number, open.reg_id, token_uses);
    if counted != Status::Ok {
        return Err(counted);
    }
    agent.note();
    if agent.ledger.borrow().is_spent(open.number) {
        // Each edge counts for itself; those that do not know yet need not ask.
        for (_, edge) in agent
            .edges
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != index)
        {
            edge.revoke(open.number, false);
        }
    }
    if agent.relays.get() > agent.config.limits.connections {
        return Err(Status::Limit);
    }
    let dialled = async {
        let addresses = match &server.target {
            Target::Address(address) => vec![*address],
            Target::Name(at) => edge::look_up(at.host.as_str(), at.port).await?,
        };
        let options = agent.relay_limits().stream_options();
        let stream = edge::dial_any(agent, &addresses, None, options).await?;
        if server.proxy {
            let header = proxy_protocol::client_header(open.client, stream.remote());
            stream.queue(&header).map_err(|error| error.to_string())?;
            // What is still queued when TLS begins would be sealed.
            let left = stream.queued_below(0).await;
            left.map_err(|error| error.to_string())?;
        }
        if let Some(DialTls { config, name }) = tls {
            let (config, name) = (Arc::clone(config), name.clone());
            let done = handshake::client(&stream, config, name, agent.config.limits.dial_timeout);
            done.await.map_err(|error| format!("TLS: {error}"))?;
        }
        Ok::<_, String>(stream)
    };
    let within = agent.config.limits.dial_timeout;
    match tokio::time::timeout(within, dialled).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            tracing::warn!(name = &*server.name, error, "cannot reach the server");
            Err(Status::UpstreamRefused)
        }
        Err(_) => {
            tracing::warn!(name = &*server.name, "the server does not answer");
            Err(Status::UpstreamRefused)
        }
    }
}

/// What the file says about a registration, and how TLS is spoken there, if it is.
fn target(agent: &Agent, reg_id: u32) -> Option<(&Server, Option<&DialTls>)> {
    let server = agent.config.server(reg_id)?;
    let index = usize::try_from(reg_id).ok()?.checked_sub(1)?;
    Some((server, agent.tls.targets.get(index)?.as_ref()))
}

fn answer(agent: &Agent, stream: &Stream, open: &Open, status: Status) -> bool {
    agent.counters.opens.with([status.label()]).inc();
    if status != Status::Ok {
        tracing::info!(
            dial_id = open.dial_id,
            number = format!("{:016x}", open.number.hash()),
            client = %open.client,
            status = status.label(),
            "client refused"
        );
    }
    stream.queue(&OpenAck(status).to_bytes()).is_ok()
}

const fn end_label(end: PumpEnd) -> &'static str {
    match end {
        PumpEnd::Finished => "finished",
        PumpEnd::Idle => "idle",
        PumpEnd::LeftFailed => "edge_lost",
        PumpEnd::RightFailed => "server_lost",
    }
}

/// Counts a connection without a client.
struct Idle<'a>(&'a EdgeState);

impl<'a> Idle<'a> {
    fn begin(state: &'a EdgeState) -> Self {
        state.idle_data.set(state.idle_data.get() + 1);
        Self(state)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.idle_data.set(self.0.idle_data.get() - 1);
    }
}

/// Counts a connection with one.
struct Relaying<'a>(&'a Agent);

impl<'a> Relaying<'a> {
    fn begin(agent: &'a Agent) -> Self {
        agent.relays.set(agent.relays.get() + 1);
        agent.counters.relays.add(1);
        Self(agent)
    }
}

impl Drop for Relaying<'_> {
    fn drop(&mut self) {
        self.0.relays.set(self.0.relays.get() - 1);
        self.0.counters.relays.add(-1);
    }
}

//! Runs the broker on its core: inputs in, outputs to the shells of all cores.

use std::sync::Arc;
use std::time::Duration;

use edge_common::net::core_runtime::{CoreContext, Phase};
use edge_common::net::mailbox::{Full, Inbox, Outbox};
use edge_common::observe::http::Condition;
use edge_common::run::now;
use edge_common::time::Now;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::{Command, Input, Lease};
use crate::observe::Observer;
use crate::session::{Broker, ConnId, Event, Output};

/// The broker and its ways out.
#[derive(Debug)]
pub struct Driver {
    /// Decides.
    pub broker: Broker,
    /// To the shells.
    pub commands: Outbox<Command>,
    /// Learns what happens.
    pub observer: Arc<Observer>,
    /// Whether a client that comes now has a chance: an agent is in session.
    pub ready: Condition,
    /// Turns true when the last relay has ended after a drain.
    pub drained: watch::Sender<bool>,
}

impl Driver {
    /// Runs until every core is gone.
    pub async fn run(mut self, core: CoreContext, mut inbox: Inbox<Input>) {
        let (mut batch, mut ready) = (Vec::new(), false);
        loop {
            let due = self.broker.poll_timeout();
            tokio::select! {
                biased;
                count = inbox.recv_batch(&mut batch, BATCH) => if count == 0 { return },
                () = wait_until(due) => {}
            }
            for input in batch.drain(..) {
                self.apply(now(), input);
                self.drain_outputs(&core).await;
            }
            self.broker.handle_timeout(now());
            self.drain_outputs(&core).await;
            let gauges = self.broker.gauges();
            self.observer.set_gauges(&gauges);
            if ready != (gauges.serving > 0) {
                ready = !ready;
                self.ready.set(ready);
            }
        }
    }

    fn apply(&mut self, now: Now, input: Input) {
        let broker = &mut self.broker;
        match input {
            Input::Client(id, arrival) => broker.handle_client(now, id, arrival),
            Input::ClientData(id, bytes) => broker.handle_client_data(now, id, &bytes),
            Input::ClientEnd(id) => broker.handle_client_end(now, id),
            Input::ClientLost(id) => broker.handle_client_lost(now, id),
            Input::Control(id, peer) => broker.handle_control(now, id, peer),
            Input::ControlData(id, bytes) => broker.handle_control_data(now, id, &bytes),
            Input::ControlClosed(id) => broker.handle_control_closed(now, id),
            Input::Data(id, peer) => broker.handle_data(now, id, peer),
            Input::DataBytes(id, bytes) => broker.handle_data_bytes(now, id, &bytes),
            Input::DataClosed(id) => broker.handle_data_closed(now, id),
            Input::LeaseFailed(id) => broker.handle_lease_failed(now, id),
            Input::OpenAck(id, status) => broker.handle_open_ack(now, id, status),
            Input::RelayEnded(id, end) => broker.handle_relay_ended(now, id, end),
            Input::Trust(trust) => broker.handle_trust(now, *trust),
            Input::Drain(within) => broker.handle_drain(now, within),
            Input::Ask(ask) => ask.run(broker, now),
        }
    }

    async fn drain_outputs(&mut self, core: &CoreContext) {
        while let Some(output) = self.broker.poll_output() {
            let (to, command) = match output {
                Output::Event(event) => {
                    self.observer.record(&event);
                    if event == Event::Drained {
                        self.drained.send_replace(true);
                    }
                    continue;
                }
                Output::Read(id) => (id, Command::Read(id)),
                Output::Charge(client) => (client.0, Command::Charge(client)),
                Output::Close(id) => (id, Command::Close(id)),
                Output::Transmit { to, bytes } => (to.0, Command::Transmit(to, bytes)),
                Output::Relay(client) => (client.0, Command::Relay(client)),
                Output::Lease {
                    client,
                    data,
                    open,
                    skip,
                    preread_len,
                } => {
                    let lease = Lease {
                        client,
                        open,
                        skip,
                        preread_len,
                    };
                    (data.0, Command::Lease(data, lease))
                }
            };
            self.send(core, to, command).await;
        }
    }

    /// A shell never waits for the broker to take a command in, so this ends; meanwhile the inbox
    /// fills, and the connections wait.
    async fn send(&self, core: &CoreContext, to: ConnId, command: Command) {
        let mut command = command;
        while let Err(Full(back)) = self.commands.send(to.core.into(), command) {
            if core.phase() == Phase::Stopping {
                return;
            }
            command = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn wait_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Inputs taken in one turn.
const BATCH: usize = 64;

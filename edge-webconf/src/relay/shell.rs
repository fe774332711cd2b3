//! What all connections of one core share: the way to the broker, and the way back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use edge_common::net::core_runtime::{CoreContext, Phase};
use edge_common::net::mailbox::{Full, Inbox, Outbox};
use edge_common::net::stream::Stream;

use super::post::{Order, Post};
use super::{Command, Input, Lease, RelayLimits};
use crate::observe::Observer;
use crate::session::{ClientId, ConnId, ControlId, DataId};

/// The shell of one core; clones are the same shell.
#[derive(Clone, Debug)]
pub struct Shell(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    core: CoreContext,
    index: u16,
    inputs: Outbox<Input>,
    commands: Outbox<Command>,
    connections: RefCell<BTreeMap<u64, Entry>>,
    next_serial: Cell<u64>,
    limits: RelayLimits,
    preread_limit: usize,
    observer: Arc<Observer>,
}

#[derive(Debug)]
struct Entry {
    post: Rc<Post>,
    /// Of a control connection: frames go out without waking its task.
    control: Option<Stream>,
}

/// What a [`Shell`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// To the broker.
    pub inputs: Outbox<Input>,
    /// To the shells of all cores.
    pub commands: Outbox<Command>,
    /// Of each relayed connection.
    pub limits: RelayLimits,
    /// Bytes of a client that the broker wants to see.
    pub preread_limit: usize,
    /// Of the process.
    pub observer: Arc<Observer>,
}

impl Shell {
    /// The shell of this core.
    #[must_use]
    pub fn new(core: CoreContext, parts: Parts) -> Self {
        let index = u16::try_from(core.index()).expect("a machine has fewer cores");
        Self(Rc::new(Inner {
            core,
            index,
            inputs: parts.inputs,
            commands: parts.commands,
            connections: RefCell::default(),
            next_serial: Cell::new(0),
            limits: parts.limits,
            preread_limit: parts.preread_limit,
            observer: parts.observer,
        }))
    }

    /// The core that it serves.
    #[must_use]
    pub fn core(&self) -> &CoreContext {
        &self.0.core
    }

    /// Bounds of each relayed connection.
    #[must_use]
    pub fn limits(&self) -> RelayLimits {
        self.0.limits
    }

    /// Bytes of a client that the broker wants to see.
    #[must_use]
    pub fn preread_limit(&self) -> usize {
        self.0.preread_limit
    }

    /// The counters of the process.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.0.observer
    }

    /// Enters a connection; it can be told things until the guard is dropped.
    #[must_use]
    pub fn enter(&self, control: Option<Stream>) -> Entered {
        let serial = self.0.next_serial.get();
        self.0.next_serial.set(serial + 1);
        let post = Rc::new(Post::default());
        let entry = Entry {
            post: Rc::clone(&post),
            control,
        };
        self.0.connections.borrow_mut().insert(serial, entry);
        Entered {
            shell: self.clone(),
            id: ConnId {
                core: self.0.index,
                serial,
            },
            post,
        }
    }

    /// Tells the broker something, and waits while it has too much to do: a connection that has
    /// more to say waits with it, the others do not.
    pub async fn tell(&self, input: Input) {
        self.deliver(&self.0.inputs, BROKER_CORE, input).await;
    }

    async fn deliver<T>(&self, outbox: &Outbox<T>, core: usize, message: T) {
        let mut message = message;
        while let Err(Full(back)) = outbox.send(core, message) {
            if self.0.core.phase() == Phase::Stopping {
                return;
            }
            message = back;
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Carries out what the broker and other cores tell, until they are gone.
    pub async fn serve(self, mut inbox: Inbox<Command>) {
        let mut batch = Vec::new();
        while inbox.recv_batch(&mut batch, BATCH).await > 0 {
            for command in batch.drain(..) {
                self.carry_out(command);
            }
        }
    }

    /// Never waits: the broker waits for this core when its mailbox is full.
    fn carry_out(&self, command: Command) {
        match command {
            Command::Read(id) => self.order(id, Order::Read),
            Command::Close(id) => self.order(id, Order::Close),
            Command::Charge(ClientId(id)) => self.order(id, Order::Charge),
            Command::Relay(ClientId(id)) => self.order(id, Order::Relay),
            Command::Transmit(to, bytes) => self.transmit(to, &bytes),
            Command::Lease(data, lease) => self.lease(data, lease),
            Command::Handover(detached, lease) => match Stream::attach(&self.0.core, detached) {
                Ok(stream) => self.hand_over(stream, lease),
                Err(error) => {
                    tracing::warn!(%error, "a data connection was lost on its way between cores");
                    self.lease_failed(lease.client);
                }
            },
        }
    }

    fn order(&self, id: ConnId, order: Order) {
        if let Some(entry) = self.0.connections.borrow().get(&id.serial) {
            entry.post.put(order);
        }
    }

    fn transmit(&self, ControlId(id): ControlId, bytes: &[u8]) {
        let connections = self.0.connections.borrow();
        let entry = connections.get(&id.serial);
        let Some(stream) = entry.and_then(|entry| entry.control.as_ref()) else {
            return;
        };
        if let Err(error) = stream.queue(bytes) {
            // An agent that does not read its control connection is of no use; it may come back.
            tracing::warn!(remote = %stream.remote(), %error, "control connection dropped");
            stream.abort();
        }
    }

    fn lease(&self, DataId(id): DataId, lease: Lease) {
        match self.0.connections.borrow().get(&id.serial) {
            Some(entry) => entry.post.put(Order::Lease(lease)),
            None => self.lease_failed(lease.client),
        }
    }

    /// Gives a data connection to the task of its client, on whatever core that is.
    pub async fn pass_on(&self, data: Stream, lease: Lease) {
        let core = lease.client.0.core;
        if core == self.0.index {
            return self.hand_over(data, lease);
        }
        match data.detach() {
            Ok(detached) => {
                self.0.observer.lease_moved();
                let command = Command::Handover(detached, lease);
                self.deliver(&self.0.commands, core.into(), command).await;
            }
            // A parked connection on which its agent says something is in use, and broken.
            Err(error) => {
                tracing::warn!(%error, "a data connection cannot move between cores");
                self.lease_failed(lease.client);
            }
        }
    }

    fn hand_over(&self, data: Stream, lease: Lease) {
        // A client that is gone drops it, which closes it.
        self.order(lease.client.0, Order::Handover(data, lease));
    }

    /// The broker finds another data connection for the client.
    pub fn lease_failed(&self, client: ClientId) {
        let shell = self.clone();
        self.0
            .core
            .spawn(async move { shell.tell(Input::LeaseFailed(client)).await });
    }
}

/// A connection that the broker can reach.
#[derive(Debug)]
pub struct Entered {
    shell: Shell,
    /// Its name.
    pub id: ConnId,
    /// Its orders.
    pub post: Rc<Post>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut connections = self.shell.0.connections.borrow_mut();
        let entry = connections.remove(&self.id.serial);
        drop(connections);
        // Dropping a stream may run code of ours, so not while the table is borrowed.
        drop(entry);
    }
}

/// The core that runs the broker.
pub const BROKER_CORE: usize = 0;
/// Between two attempts to reach a full mailbox.
const RETRY: Duration = Duration::from_millis(1);
/// Commands taken in one turn.
const BATCH: usize = 64;

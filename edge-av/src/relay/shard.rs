//! One core of the relay: takes what arrives, asks the [`Server`], does what it says.
//!
//! ```text
//!   UDP ready ─► receive a batch ─► route each ─► send the batch
//!   frame of a TCP client ──────► route ─► send
//!   crossing from another core ─► route ─► send, give the buffer back
//!   deadline ───────────────────► handle_timeout
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::net::bind::Bind;
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::mailbox::Inbox;
use edge_common::net::stream::Stream;
use edge_common::run;
use edge_common::time::Now;
use tokio::sync::watch;

use super::batch::Batch;
use super::crossing::{Crossing, Crossings, ToShard};
use super::poller::{Poller, Registrar};
use super::sockets::{SocketId, Sockets};
use crate::observe::{Datagrams, Figures};
use crate::stun::frame::{FRAME_MAX, FrameError};
use crate::turn::authority::Authority;
use crate::turn::drop_reason::Reason;
use crate::turn::five_tuple::{FiveTuple, Transport};
use crate::turn::header::{HEADROOM, TAILROOM};
use crate::turn::nonce::Nonces;
use crate::turn::port_pool::ShardId;
use crate::turn::relayed::Relayed;
use crate::turn::route::{Route, Span};
use crate::turn::{Output, Server, Settings};

/// What an operator can change while the shards run.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What the server decides by.
    pub settings: Arc<Settings>,
    /// Who knows the passwords.
    pub authority: Arc<dyn Authority>,
    /// Nonces of the array.
    pub nonces: Arc<Nonces>,
}

/// The shard of a core, shared by the tasks of that core.
pub type SharedShard = Rc<RefCell<Shard>>;

/// A server with its sockets.
#[derive(Debug)]
pub struct Shard {
    wires: Wires,
    batch: Batch,
    /// Where the packets wait to go that [`Batch::push`] has taken.
    pending: Option<SocketId>,
    /// A frame of a stream, with room around it.
    scratch: Box<[u8]>,
}

/// All but the buffers.
#[derive(Debug)]
struct Wires {
    server: Server,
    sockets: Sockets,
    registrar: Registrar,
    connections: HashMap<FiveTuple, Connection>,
    next_connection: u64,
    crossings: Crossings,
    interface: Option<String>,
    figures: Figures,
}

/// A client's connection. The number tells it from a later one of the same addresses, whose accept may be seen before the
/// end of this one.
#[derive(Debug)]
struct Connection {
    number: u64,
    stream: Stream,
}

/// A packet that is ready to leave.
struct Departure {
    by: SocketId,
    to: SocketAddr,
    /// Where it lies in the buffer that received it.
    bytes: Range<usize>,
}

impl Shard {
    /// A shard whose client sockets are watched from now on; `interface` is the one that relayed sockets belong to.
    pub fn new(
        server: Server,
        sockets: Sockets,
        crossings: Crossings,
        registrar: Registrar,
        interface: Option<String>,
        figures: Figures,
    ) -> io::Result<Self> {
        for (id, socket) in sockets.listeners() {
            registrar.add(socket, SocketId::Listener(id))?;
        }
        Ok(Self {
            wires: Wires {
                server,
                sockets,
                registrar,
                connections: HashMap::new(),
                next_connection: 0,
                crossings,
                interface,
                figures,
            },
            batch: Batch::new(),
            pending: None,
            scratch: vec![0; HEADROOM + FRAME_MAX + TAILROOM].into(),
        })
    }

    /// Takes one batch from a socket that is readable.
    pub fn serve(&mut self, id: SocketId) {
        let Some(socket) = self.wires.sockets.get(id) else {
            return;
        };
        let count = match self.batch.receive(socket.as_fd()) {
            Ok(count) => count,
            Err(error) => {
                if !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) {
                    tracing::debug!(?id, %error, "a socket could not be read");
                }
                return;
            }
        };
        let now = run::now();
        self.wires.datagrams(id).received.add(count as u64);
        for index in 0..count {
            self.packet(now, id, index);
        }
        self.flush();
    }

    fn packet(&mut self, now: Now, id: SocketId, index: usize) {
        let received = self.batch.received(index);
        if received.cut {
            return self.wires.figures.drop(Reason::TooLong);
        }
        let slot = self.batch.slot(index);
        let departure = match id {
            SocketId::Listener(listener) => {
                let from = FiveTuple {
                    listener,
                    client: received.from,
                };
                self.wires.client_packet(now, from, slot, received.len)
            }
            SocketId::Relayed(relayed) => {
                let span = Span {
                    start: 0,
                    len: received.len as u16,
                };
                let route = self
                    .wires
                    .server
                    .route_peer(now, relayed, received.from, span);
                self.wires.depart(route, slot)
            }
        };
        let Some(Departure { by, to, bytes }) = departure else {
            return;
        };
        if self.pending != Some(by) {
            self.flush();
        }
        self.pending = Some(by);
        self.batch.push(index, bytes, to);
    }

    fn flush(&mut self) {
        let Some(by) = self.pending.take() else {
            return;
        };
        if let Some(socket) = self.wires.sockets.get(by) {
            let sent = self.batch.send(socket.as_fd());
            self.wires.datagrams(by).sent.add(sent.taken as u64);
            (0..sent.failed).for_each(|_| self.wires.figures.drop(Reason::SendFailed));
        }
    }

    /// One frame of a client's stream.
    pub fn frame(&mut self, now: Now, from: FiveTuple, frame: &[u8]) {
        let Some(room) = self.scratch.get_mut(HEADROOM..HEADROOM + frame.len()) else {
            return self.wires.figures.drop(Reason::TooLong);
        };
        room.copy_from_slice(frame);
        if let Some(departure) = self
            .wires
            .client_packet(now, from, &mut self.scratch, frame.len())
        {
            self.wires.send_now(&departure, &self.scratch);
        }
    }

    /// Something from another core.
    pub fn cross(&mut self, now: Now, message: ToShard) {
        match message {
            ToShard::Return(buffer) => self.wires.crossings.take_back(buffer),
            ToShard::Packet(crossing) => self.wires.arrive(now, crossing),
        }
    }

    /// A client's connection is there; gives the number to end it by.
    pub fn connect(&mut self, now: Now, from: FiveTuple, stream: Stream) -> u64 {
        self.wires.next_connection += 1;
        let number = self.wires.next_connection;
        if self
            .wires
            .connections
            .insert(from, Connection { number, stream })
            .is_some()
        {
            self.forget(now, from);
        }
        number
    }

    /// A client's connection has ended.
    pub fn disconnect(&mut self, now: Now, from: FiveTuple, number: u64) {
        if self
            .wires
            .connections
            .get(&from)
            .is_some_and(|connection| connection.number == number)
        {
            self.wires.connections.remove(&from);
            self.forget(now, from);
        }
    }

    fn forget(&mut self, now: Now, from: FiveTuple) {
        self.wires.server.handle_disconnect(now, from);
        self.wires.perform(now);
    }

    /// Counts a connection that we end.
    pub fn stream_ended(&self, error: FrameError) {
        self.wires.figures.stream_ended(error);
    }

    /// A client that held no allocation was sent away.
    pub fn stranger_ended(&self) {
        self.wires.figures.stranger_ended.inc();
    }

    /// Whether a client holds an allocation.
    #[must_use]
    pub fn is_known(&self, from: FiveTuple) -> bool {
        self.wires.server.is_known(from)
    }

    /// Allocations of this shard.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.wires.server.allocations()
    }

    /// From now on other rules hold.
    pub fn change(
        &mut self,
        Rules {
            settings,
            authority,
            nonces,
        }: Rules,
    ) {
        self.wires
            .server
            .handle_settings(settings, authority, nonces);
    }

    /// From now on there are no new allocations.
    pub const fn drain(&mut self) {
        self.wires.server.handle_drain();
    }

    fn timeout(&mut self, now: Now) {
        self.wires.server.handle_timeout(now);
        self.wires.perform(now);
    }

    fn deadline(&self) -> Option<Instant> {
        self.wires.server.poll_timeout()
    }
}

impl Wires {
    /// A packet of `len` bytes that lies at [`HEADROOM`] of `slot`.
    fn client_packet(
        &mut self,
        now: Now,
        from: FiveTuple,
        slot: &mut [u8],
        len: usize,
    ) -> Option<Departure> {
        let packet = &slot[HEADROOM..HEADROOM + len];
        let route = self.server.route_client(now, from, packet);
        match route {
            Route::Control => {
                self.server.handle_client(now, from, packet);
                self.perform(now);
                None
            }
            Route::Client { .. } => {
                self.figures.hairpins.inc();
                self.depart(route, slot)
            }
            Route::Peer { .. } | Route::Shard { .. } | Route::Drop(_) => self.depart(route, slot),
        }
    }

    fn arrive(&mut self, now: Now, crossing: Crossing) {
        let Crossing {
            relayed,
            from,
            len,
            owner,
            mut buffer,
        } = crossing;
        let route = self
            .server
            .route_peer(now, relayed, from, Span { start: 0, len });
        if let Some(departure) = self.depart(route, buffer.bytes()) {
            self.send_now(&departure, buffer.bytes());
        }
        self.crossings.give_back(owner, buffer);
    }

    /// Writes the header in front; what is not to leave by a UDP socket has left when this returns.
    fn depart(&mut self, route: Route, slot: &mut [u8]) -> Option<Departure> {
        match route {
            Route::Peer { by, to, payload } => Some(Departure {
                by: SocketId::Relayed(by),
                to,
                bytes: place(payload),
            }),
            Route::Client {
                to,
                header,
                payload,
            } => {
                let transport = self.server.listener(to.listener)?.transport;
                let body = place(payload);
                let begin = body.start - header.front_len();
                let end = body.end + header.padding(body.len(), transport);
                header.write(&mut slot[begin..body.start], payload.len);
                slot[body.end..end].fill(0);
                match transport {
                    Transport::Udp => Some(Departure {
                        by: SocketId::Listener(to.listener),
                        to: to.client,
                        bytes: begin..end,
                    }),
                    Transport::Tcp => {
                        self.stream_media(to, &slot[begin..end]);
                        None
                    }
                }
            }
            Route::Shard {
                shard,
                relayed,
                from,
                payload,
            } => {
                match self
                    .crossings
                    .send(shard, relayed, from, &slot[place(payload)])
                {
                    Ok(()) => self.figures.crossings.inc(),
                    Err(reason) => self.figures.drop(reason),
                }
                None
            }
            Route::Drop(reason) => {
                self.figures.drop(reason);
                None
            }
            Route::Control => None,
        }
    }

    /// Late media is worth little: when the connection is slow, the oldest frames give way.
    fn stream_media(&self, to: FiveTuple, frame: &[u8]) {
        let queued = self
            .connections
            .get(&to)
            .is_some_and(|connection| connection.stream.queue_media(frame).is_ok());
        if !queued {
            self.figures.drop(Reason::QueueFull);
        }
    }

    fn send_now(&self, departure: &Departure, slot: &[u8]) {
        if let Some(socket) = self.sockets.get(departure.by) {
            self.send(
                departure.by,
                socket,
                &slot[departure.bytes.clone()],
                departure.to,
            );
        }
    }

    fn send(&self, by: SocketId, socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
        match socket.send_to(bytes, to) {
            Ok(_) => self.datagrams(by).sent.inc(),
            Err(_) => self.figures.drop(Reason::SendFailed),
        }
    }

    /// Does what the server wants done, until it wants nothing more.
    fn perform(&mut self, now: Now) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Transmit { to, bytes } => self.transmit(to, &bytes),
                Output::Open { relayed, local } => self.open(now, relayed, local),
                Output::Close { relayed } => self.close(relayed),
                Output::Event(event) => self.figures.note(event),
            }
        }
    }

    fn transmit(&self, to: FiveTuple, bytes: &[u8]) {
        let by = SocketId::Listener(to.listener);
        if let Some(socket) = self.sockets.get(by) {
            return self.send(by, socket, bytes, to.client);
        }
        let queued = self
            .connections
            .get(&to)
            .is_some_and(|connection| connection.stream.queue(bytes).is_ok());
        if !queued {
            self.figures.drop(Reason::QueueFull);
        }
    }

    fn open(&mut self, now: Now, relayed: Relayed, local: SocketAddr) {
        let bind = Bind {
            interface: self.interface.clone(),
            ..Bind::to(local)
        };
        let opened = match self.sockets.open(relayed, &bind) {
            Ok(socket) => self
                .registrar
                .add(socket, SocketId::Relayed(relayed))
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &opened {
            tracing::debug!(%local, %error, "a relayed socket could not be opened");
            drop(self.sockets.close(relayed));
        }
        self.server.handle_opened(now, relayed, opened.is_ok());
    }

    /// What had arrived before the end is counted, as the kernel has counted it.
    fn close(&mut self, relayed: Relayed) {
        if let Some(socket) = self.sockets.close(relayed) {
            let left = (0..LEFT_MAX)
                .take_while(|_| socket.recv_from(&mut [0; 1]).is_ok())
                .count();
            self.figures.relay.received.add(left as u64);
            (0..left).for_each(|_| self.figures.drop(Reason::NoSuchRelay));
        }
        self.server.handle_closed(relayed);
    }

    fn datagrams(&self, id: SocketId) -> &Datagrams {
        match id {
            SocketId::Relayed(_) => &self.figures.relay,
            SocketId::Listener(listener) => match self.server.listener(listener) {
                Some(listener) => &self.figures.turn[listener.side],
                None => &self.figures.relay,
            },
        }
    }
}

/// Where a part of a packet lies in the buffer that received it.
fn place(span: Span) -> Range<usize> {
    let start = HEADROOM + usize::from(span.start);
    start..start + usize::from(span.len)
}

/// Serves a core's sockets and mailbox until the core shall end, or drains and has nothing left.
pub async fn run(
    core: CoreContext,
    shard: SharedShard,
    mut poller: Poller,
    mut inbox: Inbox<ToShard>,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    let far = tokio::time::Instant::now() + NEVER;
    let sleep = tokio::time::sleep_until(far);
    tokio::pin!(sleep);
    let mut arrived = Vec::with_capacity(CROSSINGS);
    let (mut draining, mut turn) = (false, 0_u32);
    while !draining || shard.borrow().allocations() > 0 {
        let deadline = shard
            .borrow()
            .deadline()
            .map_or(far, tokio::time::Instant::from_std);
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        tokio::select! {
            ready = poller.readable() => {
                let mut shard = shard.borrow_mut();
                ready?.iter().for_each(|&id| shard.serve(id));
            }
            count = inbox.recv_batch(&mut arrived, CROSSINGS) => {
                let (mut shard, now) = (shard.borrow_mut(), run::now());
                arrived.drain(..count).for_each(|message| shard.cross(now, message));
            }
            () = &mut sleep => shard.borrow_mut().timeout(run::now()),
            Ok(()) = rules.changed() => shard.borrow_mut().change(rules.borrow_and_update().clone()),
            () = core.draining(), if !draining => {
                shard.borrow_mut().drain();
                draining = true;
            }
            () = core.stopping() => break,
        }
        // While the sockets are never empty, TCP clients and the flusher have their turn in between. Where they are,
        // the wait above lets the others run, and a turn of the runtime for each packet would cost a system call.
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(TURNS) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// The shard number of a core.
#[must_use]
pub fn shard_of(core: &CoreContext) -> ShardId {
    ShardId(u8::try_from(core.index()).unwrap_or(u8::MAX))
}

/// Turns of the loop after which other tasks run in any case.
const TURNS: u32 = 8;
/// Crossings taken at once.
const CROSSINGS: usize = 64;
/// Datagrams that are looked for in a relayed socket that closes; its buffer holds fewer.
const LEFT_MAX: usize = 4096;
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

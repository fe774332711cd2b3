//! The link between the members of an array: what reached one member and is for a connection of another.
//!
//! ```text
//!  Proxy ─► Output::Link ─► send ─► own link of this core ══5063══► serve ─► Letter::Linked ─► Proxy of the core
//!                            └► no link, or full: Proxy::handle_unlinked
//! ```
//!
//! Each core dials every other member and keeps that link; what it accepts it only reads. Who dials or is dialled has
//! to prove the internal name of another member: nobody else is let in, whatever the inside's authority has signed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edge_common::cert::identity::ProvenNames;
use edge_common::config::{Config, Member};
use edge_common::host_name::HostPort;
use edge_common::net::stream::{QueueError, Read, Stream};
use edge_common::observe::metrics::{Counters, Gauges, Metrics};
use edge_common::run;

use super::frame::{self, Cut, Frame};
use super::heart::{Beat, Heart};
use crate::connector::{Exit, identity, spread};
use crate::flow::Core;
use crate::proxy::token::FlowRef;
use crate::proxy::{Linked, Unlinked};

/// The links of one core. Clones are the same.
#[derive(Clone, Debug)]
pub struct Array(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<ArcSwap<Config>>,
    exit: Exit,
    epoch: u16,
    figures: Figures,
    /// Links that we dialled and that stand, by the member's number.
    links: RefCell<BTreeMap<u8, Stream>>,
    /// Members whose link is kept: one task each.
    kept: RefCell<BTreeSet<u8>>,
    /// A frame on its way into a queue.
    scratch: RefCell<Vec<u8>>,
}

/// What the links count; clones share it.
#[derive(Clone, Debug)]
pub struct Figures {
    up: Gauges<1>,
    sent: Counters<1>,
    received: Counters<1>,
    refused: Counters<2>,
    ended: Counters<1>,
}

impl Figures {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            up: metrics.gauges(
                "array_links",
                "Links to other members that stand, one for each core",
                ["member"],
            ),
            sent: metrics.counters(
                "array_messages_sent",
                "SIP messages handed to another member",
                ["member"],
            ),
            received: metrics.counters(
                "array_messages_received",
                "SIP messages handed over by another member",
                ["member"],
            ),
            refused: metrics.counters(
                "array_messages_refused",
                "SIP messages that could not be handed to another member",
                ["member", "reason"],
            ),
            ended: metrics.counters(
                "array_links_ended",
                "Links between members that ended or were refused",
                ["reason"],
            ),
        }
    }
}

impl Array {
    /// The links of one core; none is dialled before [`Self::keep_all`].
    #[must_use]
    pub fn new(config: Arc<ArcSwap<Config>>, exit: Exit, epoch: u16, figures: Figures) -> Self {
        Self(Rc::new(Inner {
            config,
            exit,
            epoch,
            figures,
            links: RefCell::default(),
            kept: RefCell::default(),
            scratch: RefCell::default(),
        }))
    }

    /// Dials every other member of the configuration that is not dialled yet, and goes on doing so while it is one.
    pub fn keep_all(&self, core: &Core) {
        let config = self.0.config.load();
        for member in config.others() {
            if self.0.kept.borrow_mut().insert(member.id) {
                let (array, core, node) = (self.clone(), core.clone(), member.id);
                let context = core.context().clone();
                context.spawn(async move { array.keep(core, node).await });
            }
        }
    }

    /// Puts a message on the link to its member.
    pub fn send(&self, linked: &Linked) -> Result<(), Unlinked> {
        let sent = self.try_send(linked);
        let member = self.name(linked.to.node);
        match sent {
            Ok(()) => self.0.figures.sent.with([&member]).inc(),
            Err(why) => self.0.figures.refused.with([&member, why.label()]).inc(),
        }
        sent
    }

    fn try_send(&self, linked: &Linked) -> Result<(), Unlinked> {
        let links = self.0.links.borrow();
        let link = links.get(&linked.to.node).ok_or(Unlinked::Down)?;
        let mut scratch = self.0.scratch.borrow_mut();
        scratch.clear();
        let frame = Frame::Message {
            epoch: linked.to.epoch,
            to: linked.to.key,
            kind: linked.kind,
            bytes: &linked.bytes,
        };
        frame.write(&mut scratch);
        let queued = link.queue(&scratch);
        scratch.shrink_to(SCRATCH_KEPT);
        queued.map_err(|error| match error {
            QueueError::Full => Unlinked::Full,
            QueueError::Closed => Unlinked::Down,
        })
    }

    /// The member's name; a number that is nobody's comes from a configuration that was replaced.
    fn name(&self, node: u8) -> String {
        let config = self.0.config.load();
        let member = config.members.iter().find(|member| member.id == node);
        member.map_or_else(|| "unknown".to_owned(), |member| member.name.clone())
    }

    /// Keeps the link to one member for as long as it is one.
    async fn keep(self, core: Core, node: u8) {
        let mut pause = PAUSE_MIN;
        loop {
            let config = self.0.config.load_full();
            let Some(member) = config.others().find(|member| member.id == node) else {
                break;
            };
            let target = HostPort {
                host: member.internal.fqdn.clone(),
                port: config.array.link_port,
            };
            let addresses: Vec<IpAddr> = member.internal.ips().collect();
            match self.0.exit.open(&core, &target, &addresses).await {
                Ok(stream) => {
                    pause = PAUSE_MIN;
                    core.observer().dialled("member", "open");
                    self.speak(&config, member, stream).await;
                }
                Err(failure) => {
                    core.observer().dialled("member", failure.label());
                    tracing::debug!(member = %target, %failure, "member not reached");
                }
            }
            drop(config);
            tokio::time::sleep(spread(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.0.kept.borrow_mut().remove(&node);
    }

    /// Our end of a link that we dialled, until it ends.
    async fn speak(&self, config: &Config, member: &Member, stream: Stream) {
        let hello = Frame::Hello {
            node: config.local().id,
            epoch: self.0.epoch,
        };
        let up = self.0.figures.up.with([&member.name]);
        if queue(&stream, &hello).is_ok() {
            self.0.links.borrow_mut().insert(member.id, stream.clone());
            up.add(1);
            tracing::info!(member = %member.name, remote = %stream.remote(), "member linked");
            let why = beat(&stream, config).await;
            self.0.links.borrow_mut().remove(&member.id);
            up.add(-1);
            self.0.figures.ended.with([why]).inc();
            tracing::warn!(member = %member.name, why, "member no longer linked");
        }
        stream.abort();
    }

    /// A link that another member dialled, until it ends.
    pub async fn serve(&self, core: &Core, stream: Stream) {
        let config = self.0.config.load_full();
        let proven = identity(&stream).map(|(names, _)| names);
        let Some(names) = proven.filter(|names| config.others().any(|member| is(member, names)))
        else {
            core.observer().peer_refused("link");
            tracing::warn!(remote = %stream.remote(), "no member of the array may link here");
            stream.abort();
            return;
        };
        let mut session = Session {
            array: self,
            core,
            config: &config,
            names: &names,
            member: None,
        };
        let why = session.run(&stream).await;
        self.0.figures.ended.with([why]).inc();
        tracing::debug!(remote = %stream.remote(), why, "a link from another member ended");
        stream.close();
    }
}

/// A link that was accepted.
struct Session<'a> {
    array: &'a Array,
    core: &'a Core,
    config: &'a Config,
    names: &'a ProvenNames,
    /// Who dialled, when that was said.
    member: Option<&'a Member>,
}

impl Session<'_> {
    async fn run(&mut self, stream: &Stream) -> &'static str {
        let silence = silence(self.config);
        let len_max = frame_max(self.config);
        loop {
            let mut wrong = None;
            let read = stream.read(|bytes| match self.take(stream, bytes, len_max) {
                Ok(consumed) => consumed,
                Err(why) => {
                    wrong = Some(why);
                    bytes.len()
                }
            });
            match tokio::time::timeout(silence, read).await {
                Err(_) => return "silent",
                Ok(Err(error)) => return error.reason(),
                Ok(Ok(Read::End)) => return "ended",
                Ok(Ok(Read::Data)) => {}
            }
            if let Some(why) = wrong {
                return why;
            }
        }
    }

    /// Takes whole frames off the front; says how many bytes they were.
    fn take(
        &mut self,
        stream: &Stream,
        received: &[u8],
        len_max: usize,
    ) -> Result<usize, &'static str> {
        let mut at = 0;
        loop {
            match frame::cut(&received[at..], len_max).map_err(frame::FrameError::reason)? {
                Cut::NeedMore => return Ok(at),
                Cut::Frame { frame, len } => {
                    self.obey(stream, frame)?;
                    at += len;
                }
            }
        }
    }

    fn obey(&mut self, stream: &Stream, frame: Frame<'_>) -> Result<(), &'static str> {
        match (self.member, frame) {
            (None, Frame::Hello { node, epoch }) => {
                let member = self.config.others().find(|member| member.id == node);
                let member = member.filter(|member| is(member, self.names));
                let member = member.ok_or("not_its_name")?;
                tracing::info!(member = %member.name, epoch, "another member has linked");
                self.member = Some(member);
                Ok(())
            }
            (Some(_), Frame::Ping) => queue(stream, &Frame::Pong).map_err(|_| "queue"),
            (
                Some(member),
                Frame::Message {
                    epoch,
                    to: key,
                    kind,
                    bytes,
                },
            ) => {
                self.array.0.figures.received.with([&member.name]).inc();
                let to = FlowRef {
                    node: self.config.local().id,
                    epoch,
                    key,
                };
                self.core.linked(Linked {
                    to,
                    kind,
                    bytes: bytes.to_vec(),
                });
                Ok(())
            }
            (Some(_), Frame::Hello { .. } | Frame::Pong)
            | (None, Frame::Ping | Frame::Pong | Frame::Message { .. }) => Err("out_of_order"),
        }
    }
}

/// Pings, and waits for answers, until the link ends; says why it did.
async fn beat(stream: &Stream, config: &Config) -> &'static str {
    let array = &config.array;
    let mut heart = Heart::new(run::now().mono, array.link_heartbeat, array.link_misses);
    loop {
        let mut wrong = None;
        let read = stream.read(|bytes| {
            let (consumed, why) = pongs(bytes);
            wrong = why;
            consumed
        });
        tokio::select! {
            read = read => match read {
                Ok(Read::Data) => heart.handle_answer(),
                Ok(Read::End) => return "ended",
                Err(error) => return error.reason(),
            },
            () = tokio::time::sleep_until(heart.poll_timeout().into()) => {
                match heart.handle_timeout(run::now().mono) {
                    Beat::Rest => {}
                    // A queue that takes no ping has not moved for a while; the answers that do not come say so.
                    Beat::Ask => { queue(stream, &Frame::Ping).ok(); }
                    Beat::Dead => return "silent",
                }
            }
        }
        if let Some(why) = wrong {
            return why;
        }
    }
}

/// Whoever accepted a link answers pings and says nothing else.
fn pongs(received: &[u8]) -> (usize, Option<&'static str>) {
    let mut at = 0;
    loop {
        match frame::cut(&received[at..], SHORT_MAX) {
            Ok(Cut::NeedMore) => return (at, None),
            Ok(Cut::Frame {
                frame: Frame::Pong,
                len,
            }) => at += len,
            Ok(Cut::Frame {
                frame: Frame::Hello { .. } | Frame::Ping | Frame::Message { .. },
                ..
            }) => return (received.len(), Some("out_of_order")),
            Err(error) => return (received.len(), Some(error.reason())),
        }
    }
}

fn queue(stream: &Stream, frame: &Frame<'_>) -> Result<(), QueueError> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    stream.queue(&bytes)
}

fn is(member: &Member, names: &ProvenNames) -> bool {
    names.proves_host(&member.internal.fqdn)
}

/// A link on which even the pings have stopped for that long is given up by the side that accepted it.
fn silence(config: &Config) -> Duration {
    let array = &config.array;
    array.link_heartbeat * (array.link_misses + 1)
}

/// The longest message with what we and the link add to it.
fn frame_max(config: &Config) -> usize {
    let limits = config.access.as_ref().map(|access| &access.limits);
    let message = limits.map_or(0, |limits| limits.head + limits.server_body);
    message + EDITS_MAX + frame::OVERHEAD
}

/// What our edits add to a message: Via, routes, trust.
const EDITS_MAX: usize = 8 * 1024;
/// No frame without a message is longer.
const SHORT_MAX: usize = 16;
/// Kept of the buffer for frames.
const SCRATCH_KEPT: usize = 64 * 1024;
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// A member that comes back is linked soon.
const PAUSE_MAX: Duration = Duration::from_secs(2);

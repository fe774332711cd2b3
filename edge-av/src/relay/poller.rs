//! Readiness of all sockets of a core, asked for in one place: an epoll instance that tokio watches as one descriptor.
//!
//! A task for each allocation would cost memory and a wake-up each; here ten thousand relayed sockets cost one entry in
//! the kernel each and nothing in the runtime.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::unix::AsyncFd;

use super::sockets::SocketId;

/// Waits for sockets.
#[derive(Debug)]
pub struct Poller {
    epoll: Rc<AsyncFd<OwnedFd>>,
    ready: Vec<SocketId>,
}

/// Adds sockets to a [`Poller`]; they leave it when they are closed.
#[derive(Clone, Debug)]
pub struct Registrar(Rc<AsyncFd<OwnedFd>>);

impl Poller {
    /// Watches nothing yet. Call it inside the core's runtime.
    #[expect(
        deprecated,
        reason = "an OwnedFd keeps its descriptor, and the other constructor is unsafe to call"
    )]
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: Rc::new(AsyncFd::new(epoll)?),
            ready: Vec::with_capacity(EVENTS),
        })
    }

    /// A handle that adds sockets.
    #[must_use]
    pub fn registrar(&self) -> Registrar {
        Registrar(Rc::clone(&self.epoll))
    }

    /// Waits until sockets are readable and gives some of them. Cancelling it loses nothing.
    pub async fn readable(&mut self) -> io::Result<&[SocketId]> {
        loop {
            let mut guard = self.epoll.readable().await?;
            let mut events = [const { MaybeUninit::uninit() }; EVENTS];
            let (events, _) = epoll::wait(self.epoll.get_ref(), &mut events, Some(&NO_WAIT))?;
            if events.is_empty() {
                // No packet can be missed: the next one makes the epoll descriptor readable again.
                guard.clear_ready();
                continue;
            }
            self.ready.clear();
            self.ready.extend(
                events
                    .iter()
                    .filter_map(|event| SocketId::from_bits(event.data.u64())),
            );
            return Ok(&self.ready);
        }
    }
}

impl Registrar {
    /// Watches one more socket.
    pub fn add(&self, socket: impl AsFd, id: SocketId) -> io::Result<()> {
        epoll::add(
            self.0.get_ref(),
            socket,
            EventData::new_u64(id.to_bits()),
            EventFlags::IN,
        )?;
        Ok(())
    }
}

/// Sockets served before the core looks at its other work again.
const EVENTS: usize = 64;
const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

//! An idle connection goes from one core to another.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::inner::{Ours, Writer};
use super::{Stream, StreamOptions};
use crate::net::core_runtime::CoreContext;
use crate::net::tls_driver::TlsDriver;

/// A connection on its way from one core to another: the socket, its TLS state and its guard.
pub struct Detached {
    tcp: std::net::TcpStream,
    tls: Option<Box<TlsDriver>>,
    remote: SocketAddr,
    options: StreamOptions,
    guard: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// A connection stays on its core, or is lost.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// It has other handles, has failed or ended, or bytes wait on either side. Here it is.
    #[error("the connection is in use")]
    Busy(Stream),
    /// The runtime did not give the socket back.
    #[error("the socket cannot leave its runtime: {0}")]
    Socket(io::Error),
}

impl Stream {
    /// Takes an idle connection off its core, to be attached to another.
    pub fn detach(self) -> Result<Detached, DetachError> {
        if !self.is_idle() {
            return Err(DetachError::Busy(self));
        }
        let inner = Rc::clone(&self.0);
        // The handle goes, the connection stays: its drop must not close it.
        inner.handles.set(2);
        drop(self);
        let inner = Rc::try_unwrap(inner).map_err(|inner| {
            inner.handles.set(1);
            DetachError::Busy(Self(inner))
        })?;
        Ok(Detached {
            tcp: inner.tcp.into_std().map_err(DetachError::Socket)?,
            tls: inner.state.into_inner().tls,
            remote: inner.remote.get(),
            options: inner.options,
            guard: inner.guard.into_inner(),
        })
    }

    /// Puts a detached connection on this core.
    pub fn attach(core: &CoreContext, detached: Detached) -> io::Result<Self> {
        let tcp = TcpStream::from_std(detached.tcp)?;
        let stream = Self::new(core, tcp, detached.remote, detached.options);
        stream.0.state.borrow_mut().tls = detached.tls;
        stream.0.guard.replace(detached.guard);
        Ok(stream)
    }

    fn is_idle(&self) -> bool {
        let state = self.0.state.borrow();
        let settled = state.failure.is_none() && !state.closed && !state.theirs_ended;
        let quiet = state.pending.is_empty() && !state.has_work() && !state.is_handshaking();
        settled && quiet && state.ours == Ours::Open && state.writer == Writer::Nobody
    }
}

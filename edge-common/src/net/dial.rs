//! Opens connections: from a chosen address, to one address, within deadlines, with TLS or without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;

use super::bind::{Bind, BindError, TcpOptions};
use super::core_runtime::CoreContext;
use super::handshake::{self, HandshakeError};
use super::stream::{Stream, StreamOptions};

/// Everything about one call.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Our end: the address and interface of the side that the peer is on. Port 0 as a rule.
    pub from: Bind,
    /// The far end.
    pub to: SocketAddr,
    /// TLS, and the name that the server has to prove; `None` is plain TCP.
    pub tls: Option<DialTls>,
    /// How long TCP may take.
    pub connect_timeout: Duration,
    /// How long TLS may take after that.
    pub handshake_timeout: Duration,
    /// The bounds of the stream.
    pub stream: StreamOptions,
    /// The socket's behaviour.
    pub tcp: TcpOptions,
}

/// The TLS part of a [`Dial`].
#[derive(Clone, Debug)]
pub struct DialTls {
    /// Trust, our certificate, versions, ALPN.
    pub config: Arc<ClientConfig>,
    /// The name that we ask for and that the server's certificate must prove, if the verifier of `config` compares it.
    pub name: ServerName<'static>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Our own end could not be had: a fault of the host or its configuration.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TCP failed.
    #[error("cannot connect to {to}: {source}")]
    Connect {
        /// The far end.
        to: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// TCP took too long.
    #[error("{0} does not answer")]
    Timeout(SocketAddr),
    /// TLS failed.
    #[error("TLS with {to}: {source}")]
    Handshake {
        /// The far end.
        to: SocketAddr,
        /// What failed.
        source: HandshakeError,
    },
}

impl DialError {
    /// A name from a short fixed list, for the label of a counter.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Bind(_) => "bind",
            Self::Connect { .. } => "connect",
            Self::Timeout(_) => "connect_timeout",
            Self::Handshake { source, .. } => source.reason(),
        }
    }
}

impl Dial {
    /// Opens the connection. When it is there, [`Stream::peer_certificates`] says who answered.
    pub async fn open(&self, core: &CoreContext) -> Result<Stream, DialError> {
        let to = self.to;
        let connect = |source| DialError::Connect { to, source };
        let socket = TcpSocket::from_std_stream(self.from.dial_socket()?.into());
        let tcp = tokio::time::timeout(self.connect_timeout, socket.connect(to))
            .await
            .map_err(|_| DialError::Timeout(to))?
            .map_err(connect)?;
        self.tcp.apply(&tcp).map_err(connect)?;
        let stream = Stream::new(core, tcp, to, self.stream);
        if let Some(DialTls { config, name }) = &self.tls {
            handshake::client(
                &stream,
                Arc::clone(config),
                name.clone(),
                self.handshake_timeout,
            )
            .await
            .map_err(|source| DialError::Handshake { to, source })?;
        }
        Ok(stream)
    }
}

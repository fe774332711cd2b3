//! TLS begins on a connection, on either side, within its own deadline.
//!
//! A stream begins as plain TCP, whoever opened it. What was received before the handshake (behind a PROXY header, or
//! peeked at to tell TLS from something else) is the beginning of the handshake.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::stream::{Stream, StreamError};
use super::tls_driver::TlsDriver;

/// Why there is no TLS on the connection. It is of no further use; the far end was told if TLS has words for it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// The far end took longer than it was given.
    #[error("the handshake took too long")]
    Timeout,
    /// TLS or the socket failed.
    #[error(transparent)]
    Failed(#[from] StreamError),
}

impl HandshakeError {
    /// A name from a short fixed list, for the label of a counter.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Failed(error) => error.reason(),
        }
    }
}

/// We were called: the far end begins.
pub async fn server(
    stream: &Stream,
    config: Arc<ServerConfig>,
    within: Duration,
) -> Result<(), HandshakeError> {
    let driver = TlsDriver::server(config).map_err(StreamError::from)?;
    complete(stream, driver, within).await
}

/// We called: `name` is what the server's certificate has to prove.
pub async fn client(
    stream: &Stream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    within: Duration,
) -> Result<(), HandshakeError> {
    let driver = TlsDriver::client(config, name).map_err(StreamError::from)?;
    complete(stream, driver, within).await
}

async fn complete(
    stream: &Stream,
    driver: TlsDriver,
    within: Duration,
) -> Result<(), HandshakeError> {
    stream.start_tls(driver)?;
    // Boxed, so that the task of a connection does not keep the room of its handshake for ever.
    match Box::pin(tokio::time::timeout(within, stream.handshaken())).await {
        Ok(done) => Ok(done?),
        Err(_) => {
            stream.abort();
            Err(HandshakeError::Timeout)
        }
    }
}

//! Asks a running edge what its clients would ask.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::host_name::HostPort;
use edge_common::random::Random;
use edge_common::sip::framer::{FrameError, Framer, Limits, Opener, Step};
use edge_common::sip::message::Message;
use edge_common::sip::parse::{Index, ParseError};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::{InvalidDnsNameError, ServerName};

use crate::mras::{self, Answer, AnswerError, Marks, Question};

/// Where the service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name that its certificate must prove, and its port.
    pub service: HostPort,
    /// Its address, when it shall not be looked up.
    pub address: Option<SocketAddr>,
}

/// Why a probe did not bring what it was sent for.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The name does not lead to an address.
    #[error("{name}: {error}")]
    Lookup {
        /// The name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// No connection, or it broke.
    #[error("{address}: {error}")]
    Connection {
        /// With whom.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The name cannot be asked for in TLS.
    #[error("{0}")]
    Name(#[from] InvalidDnsNameError),
    /// TLS cannot begin.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No final answer in time.
    #[error("no final answer within {0:?}")]
    Silence(Duration),
    /// What came is no SIP.
    #[error("what came is not framed as SIP: {0}")]
    Frame(#[from] FrameError),
    /// What came is no SIP.
    #[error("what came is not SIP: {0}")]
    Parse(#[from] ParseError),
    /// The service says no.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// Fetches A/V credentials over mutual TLS, as a server inside does it for its users.
///
/// # Errors
/// When there are none, with the reason.
pub fn mras(
    target: &Target,
    tls: Arc<ClientConfig>,
    question: &Question,
    rng: &mut dyn Random,
    within: Duration,
) -> Result<Answer, ProbeError> {
    let deadline = Instant::now() + within;
    let address = resolve(target)?;
    let at = |error: io::Error| {
        if is_timeout(&error) {
            ProbeError::Silence(within)
        } else {
            ProbeError::Connection { address, error }
        }
    };
    let socket = TcpStream::connect_timeout(&address, within).map_err(at)?;
    socket.set_write_timeout(Some(within)).map_err(at)?;
    let sent_by = socket.local_addr().map_err(at)?.to_string();
    let name = ServerName::try_from(target.service.host.to_string())?;
    let mut stream = StreamOwned::new(ClientConnection::new(tls, name)?, socket);

    let request = mras::request(question, &marks(rng), &sent_by);
    stream
        .sock
        .set_read_timeout(Some(left(deadline)))
        .map_err(at)?;
    stream
        .write_all(&request)
        .and_then(|()| stream.flush())
        .map_err(at)?;
    let response = read_final(
        |chunk| {
            stream.sock.set_read_timeout(Some(left(deadline)))?;
            stream.read(chunk)
        },
        deadline,
    )
    .map_err(|fault| match fault {
        ReadFault::Io(error) => at(error),
        ReadFault::Frame(error) => error.into(),
        ReadFault::Parse(error) => error.into(),
    })?;
    let mut index = Index::new(HEADERS_MAX);
    Ok(mras::answer(&Message::parse(&response, &mut index)?)?)
}

fn resolve(target: &Target) -> Result<SocketAddr, ProbeError> {
    if let Some(address) = target.address {
        return Ok(address);
    }
    let HostPort { host, port } = &target.service;
    let lookup = |error| ProbeError::Lookup {
        name: host.to_string(),
        error,
    };
    (host.as_str(), *port)
        .to_socket_addrs()
        .map_err(lookup)?
        .next()
        .ok_or_else(|| lookup(io::Error::other("no address")))
}

enum ReadFault {
    Io(io::Error),
    Frame(FrameError),
    Parse(ParseError),
}

/// Reads until a whole message stands there that is no provisional response.
fn read_final(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    deadline: Instant,
) -> Result<Vec<u8>, ReadFault> {
    let mut framer = Framer::new(Opener::Us, LIMITS);
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match framer.next(&received).map_err(ReadFault::Frame)? {
            Step::NeedMore => {
                if Instant::now() >= deadline {
                    return Err(ReadFault::Io(io::ErrorKind::TimedOut.into()));
                }
                let len = read(&mut chunk).map_err(ReadFault::Io)?;
                if len == 0 {
                    return Err(ReadFault::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                received.extend_from_slice(&chunk[..len]);
            }
            Step::Skip { len } | Step::Ping { len } | Step::Pong { len } => {
                received.drain(..len);
            }
            Step::Message { len } => {
                let message: Vec<u8> = received.drain(..len).collect();
                let mut index = Index::new(HEADERS_MAX);
                let status = Message::parse(&message, &mut index)
                    .map_err(ReadFault::Parse)?
                    .status();
                if status.is_some_and(|status| status >= 200) {
                    return Ok(message);
                }
            }
        }
    }
}

fn marks(rng: &mut dyn Random) -> Marks {
    let mut mark = || {
        let mut bytes = [0; 12];
        rng.fill(&mut bytes);
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    Marks {
        branch: mark(),
        tag: mark(),
        call_id: mark(),
        request_id: mark(),
    }
}

/// Linux says the one for a socket that has a time-out, and other calls the other.
fn is_timeout(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind())
}

/// A socket's time-out of zero would mean for ever.
fn left(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

/// The answer to one request is small.
const LIMITS: Limits = Limits {
    head: 16 * 1024,
    body: 64 * 1024,
};

const HEADERS_MAX: usize = 64;

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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use edge_common::cert::tls::{
        CrlStore, PeerPolicy, PeerVerifier, Store, TrustStore, dialer, mutual_listener,
    };
    use edge_common::config::{ClientEku, Revocation};
    use edge_common::host_name::HostName;
    use edge_common::random::Seeded;
    use edge_common::time::UnixTime;
    use rustls::{ServerConfig, ServerConnection};
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;
    use crate::issue::{Algorithm, Authority, Subject};

    /// The inside of a laboratory: one authority, and whoever it has given a certificate.
    struct Inside {
        authority: Authority,
        now: UnixTime,
    }

    impl Inside {
        fn new() -> Self {
            let now = edge_common::run::now().unix;
            Self {
                authority: Authority::generate("Inside", now).unwrap(),
                now,
            }
        }

        fn certificate(&self, name: &str) -> Arc<Store> {
            let subject = Subject::host(name.parse::<HostName>().unwrap());
            let issued = self
                .authority
                .issue(&subject, Algorithm::P256, self.now)
                .unwrap();
            let chain = CertificateDer::from_pem_slice(issued.document.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            Store::of(vec![chain], &key).unwrap()
        }

        fn verifier(&self) -> Arc<PeerVerifier> {
            let ca = CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap();
            let policy = PeerPolicy {
                client_eku: ClientEku::ClientOrServer,
                revocation: Revocation::Off,
            };
            PeerVerifier::new(
                TrustStore::of(&[ca]).unwrap(),
                policy,
                CrlStore::load(&[]).unwrap(),
            )
        }

        fn client(&self) -> Arc<ClientConfig> {
            dialer(
                self.certificate("director.contoso.internal"),
                self.verifier(),
                &[],
            )
        }

        fn server(&self) -> Arc<ServerConfig> {
            mutual_listener(
                self.certificate("edge.contoso.internal"),
                self.verifier(),
                &[],
            )
        }
    }

    /// Answers one request with these messages, byte by byte.
    fn serve(tls: Arc<ServerConfig>, answers: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), socket);
            let mut seen = Vec::new();
            let mut chunk = [0; 1024];
            while !seen.ends_with(b"</request>") {
                match stream.read(&mut chunk) {
                    Ok(len) if len > 0 => seen.extend_from_slice(&chunk[..len]),
                    Ok(_) | Err(_) => return,
                }
            }
            for byte in answers.as_bytes() {
                if stream
                    .write_all(&[*byte])
                    .and_then(|()| stream.flush())
                    .is_err()
                {
                    return;
                }
            }
            // The probe says when it is over.
            while stream.read(&mut chunk).is_ok_and(|len| len > 0) {}
        });
        address
    }

    fn response(status: &str, body: &str) -> String {
        format!(
            "SIP/2.0 {status}\r\nCSeq: 1 SERVICE\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    const GRANT: &str = "<response reasonPhrase=\"OK\"><credentialsResponse><credentials><username>dQ==</username>\
        <password>cA==</password><duration>60</duration></credentials></credentialsResponse></response>";

    fn ask(
        inside: &Inside,
        address: SocketAddr,
        host: &HostName,
        within: Duration,
    ) -> Result<Answer, ProbeError> {
        let target = Target {
            service: HostPort {
                host: host.clone(),
                port: address.port(),
            },
            address: Some(address),
        };
        let question = Question {
            service: "sip:mras@contoso.test".into(),
            asker: "sip:alice@contoso.test".into(),
            identity: "sip:alice@contoso.test".into(),
            location: None,
            minutes: Some(60),
        };
        mras(
            &target,
            inside.client(),
            &question,
            &mut Seeded::new(7),
            within,
        )
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn credentials_come_after_keep_alives_and_provisional_responses() {
        let inside = Inside::new();
        let answers = format!(
            "\r\n{}{}",
            response("100 Trying", ""),
            response("200 OK", GRANT)
        );
        let address = serve(inside.server(), answers);
        let answer = ask(&inside, address, &name("edge.contoso.internal"), SOON).unwrap();
        assert_eq!(answer.credentials[0].username, "dQ==");
    }

    #[test]
    fn a_service_with_another_name_is_not_asked() {
        let inside = Inside::new();
        let address = serve(inside.server(), response("200 OK", GRANT));
        let error = ask(&inside, address, &name("other.contoso.internal"), SOON).unwrap_err();
        assert!(matches!(error, ProbeError::Connection { .. }), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }

    #[test]
    fn a_service_of_another_authority_is_not_asked() {
        let (inside, foreign) = (Inside::new(), Inside::new());
        let address = serve(foreign.server(), response("200 OK", GRANT));
        let error = ask(&inside, address, &name("edge.contoso.internal"), SOON).unwrap_err();
        assert!(matches!(error, ProbeError::Connection { .. }), "{error}");
    }

    #[test]
    fn a_refusal_silence_and_nonsense_are_told_apart() {
        let inside = Inside::new();
        let host = &name("edge.contoso.internal");
        let refused = serve(
            inside.server(),
            response("403 Forbidden", "<response reasonPhrase=\"Forbidden\"/>"),
        );
        let error = ask(&inside, refused, host, SOON).unwrap_err();
        assert_eq!(error.to_string(), "403 Forbidden ('Forbidden')");

        let silent = serve(inside.server(), response("100 Trying", ""));
        let error = ask(&inside, silent, host, Duration::from_millis(700)).unwrap_err();
        assert!(matches!(error, ProbeError::Silence(_)), "{error}");

        let nonsense = serve(inside.server(), "HTTP/1.1 200 OK\r\n\r\n".into());
        let error = ask(&inside, nonsense, host, SOON).unwrap_err();
        assert!(matches!(error, ProbeError::Frame(_)), "{error}");
    }
}

//! TLS without sockets: ciphertext in, plaintext out, and the other way round.
//!
//! ```text
//!            shared read buffer of the core
//!   socket ─►│ kept part of a record │ new bytes │─► receive ─► plaintext (shared)
//!                                                      └─────► answers (handshake, alerts) ─► socket
//!   plaintext of one turn ─► seal ─► one run of records ─► socket
//! ```
//!
//! It stands on rustls' *unbuffered* API: a buffered connection keeps a 4 KiB deframer buffer for ever, here
//! an idle connection keeps nothing but keys. Between two reads only the beginning of an incomplete record stays, in a
//! `Vec` that exists while it holds bytes.
//!
//! What that API of rustls 0.23 cannot do, and what we do instead:
//!
//! - It has no `Acceptor`, so the configuration cannot be chosen by the ClientHello. The certificate can, by the
//!   `ResolvesServerCert` of the configuration; nothing of ours needs more.
//! - It does not tell the SNI; [`client_hello`] reads it.
//! - A received fatal alert is told by its name only inside [`rustls::Error::AlertReceived`], which is enough to count.
//! - `close_notify` can be sent only when application data can: a handshake that is given up ends without one.

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{
    AlertDescription, ClientConfig, CommonState, HandshakeKind, ProtocolVersion, ServerConfig,
};

use super::client_hello::{self, Hello};

/// One side of one TLS connection.
pub struct TlsDriver {
    connection: Connection,
    /// The beginning of a record, or of a handshake message in several records. rustls remembers places in it, so it is
    /// given back to rustls exactly as rustls left it.
    partial: Vec<u8>,
    hello: HelloState,
    peer_closed: bool,
    failed: Option<TlsError>,
}

enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// The server side learns the name from the first bytes.
enum HelloState {
    Waiting,
    Read(Option<Box<str>>),
}

impl TlsDriver {
    /// The side that was called.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Connection::Server(Box::new(connection))))
    }

    /// The side that calls; `name` is what the server has to prove.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(Connection::Client(Box::new(connection))))
    }

    const fn new(connection: Connection) -> Self {
        Self {
            connection,
            partial: Vec::new(),
            hello: HelloState::Waiting,
            peer_closed: false,
            failed: None,
        }
    }

    /// Puts what was kept of the last read at the front of `buffer` and says how long it is: the next bytes from the
    /// socket belong right behind it. `buffer` must be longer than [`PARTIAL_MAX`].
    pub fn restore(&self, buffer: &mut [u8]) -> usize {
        buffer[..self.partial.len()].copy_from_slice(&self.partial);
        self.partial.len()
    }

    /// Takes in ciphertext: `received` is what [`TlsDriver::restore`] wrote and the new bytes behind it. Plaintext is
    /// added to `plain`, what must be sent in answer to `answers`. After an error `answers` holds our alert.
    ///
    /// With nothing received it starts a client's handshake.
    pub fn receive(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
        answers: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        if let Some(error) = &self.failed {
            // What rustls had marks in is gone.
            return Err(error.clone());
        }
        self.read_hello(received);
        let mut io = Io { plain, answers };
        let progress = match &mut self.connection {
            Connection::Client(client) => pump(client.as_mut(), received, &mut io, &mut Nothing),
            Connection::Server(server) => pump(server.as_mut(), received, &mut io, &mut Nothing),
        };
        self.peer_closed |= progress.peer_closed;
        if let Err(error) = progress.result {
            return Err(self.fail(error));
        }
        self.keep(if self.peer_closed {
            // Nothing that stands behind a close_notify counts.
            &[]
        } else {
            &received[progress.used..]
        })
    }

    /// Encrypts `plain` into as few records as it needs and adds them to `sealed`. Before the handshake is done it
    /// refuses, and takes nothing.
    pub fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.is_handshaking() {
            return Err(rustls::Error::HandshakeNotComplete.into());
        }
        self.send(&mut Seal(plain), sealed)
    }

    /// Adds a close_notify: our direction has ended, the other one may go on. In the midst of a handshake it adds
    /// nothing.
    pub fn close(&mut self, sealed: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.is_handshaking() {
            return Ok(());
        }
        self.send(&mut CloseNotify, sealed)
    }

    /// No application data can be sent and received yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// The peer sent its close_notify: what was received until then is all.
    #[must_use]
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The peer's chain, its own certificate first; empty if it showed none.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }

    /// The application protocol both agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.common().alpn_protocol()
    }

    /// The name the client asked for; on the client's side always `None`.
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        match &self.hello {
            HelloState::Read(name) => name.as_deref(),
            HelloState::Waiting => None,
        }
    }

    /// TLS 1.2 or 1.3, once it is known.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.common().protocol_version()
    }

    /// Whether the handshake was a full one or resumed, once it is known.
    #[must_use]
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.common().handshake_kind()
    }

    /// Bytes of buffers that this driver holds now, keys apart.
    #[must_use]
    pub const fn buffered(&self) -> usize {
        self.partial.capacity()
    }

    fn send(&mut self, action: &mut dyn OnWrite, sealed: &mut Vec<u8>) -> Result<(), TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // rustls must see the kept bytes: it has marks in them, and panics over a slice that is too short for these.
        let mut partial = std::mem::take(&mut self.partial);
        let mut plain = Vec::new();
        let mut io = Io {
            plain: &mut plain,
            answers: sealed,
        };
        let progress = match &mut self.connection {
            Connection::Client(client) => pump(client.as_mut(), &mut partial, &mut io, action),
            Connection::Server(server) => pump(server.as_mut(), &mut partial, &mut io, action),
        };
        debug_assert!(plain.is_empty(), "receive has read all whole records");
        self.partial = partial;
        self.partial.drain(..progress.used);
        progress.result.map_err(|error| self.fail(error))
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), TlsError> {
        if rest.len() > PARTIAL_MAX {
            return Err(self.fail(TlsError::PartialTooLong));
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn fail(&mut self, error: TlsError) -> TlsError {
        self.partial = Vec::new();
        self.failed = Some(error.clone());
        error
    }

    fn read_hello(&mut self, received: &[u8]) {
        let (Connection::Server(_), HelloState::Waiting) = (&self.connection, &self.hello) else {
            return;
        };
        self.hello = match client_hello::read(received) {
            Hello::NeedMore => HelloState::Waiting,
            Hello::Complete { server_name } => {
                HelloState::Read(server_name.map(String::into_boxed_str))
            }
            Hello::Other => HelloState::Read(None),
        };
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }
}

impl fmt::Debug for TlsDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.connection {
            Connection::Client(_) => "client",
            Connection::Server(_) => "server",
        };
        f.debug_struct("TlsDriver")
            .field("side", &side)
            .field("handshaking", &self.is_handshaking())
            .field("partial", &self.partial.len())
            .field("peer_closed", &self.peer_closed)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Why a TLS connection ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// rustls refused, or the peer did.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// A handshake message longer than we keep.
    #[error("a handshake message is longer than {PARTIAL_MAX} bytes")]
    PartialTooLong,
    /// Early data, which no configuration of ours allows.
    #[error("early data was not offered")]
    EarlyData,
    /// The keys may encrypt no more; only a peer without key update (TLS 1.2) gets there.
    #[error("the traffic keys are worn out")]
    KeysExhausted,
}

impl TlsError {
    /// A name from a short fixed list, for the label of a counter.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Rustls(error) => rustls_reason(error),
            Self::PartialTooLong => "handshake_too_long",
            Self::EarlyData => "early_data",
            Self::KeysExhausted => "keys_exhausted",
        }
    }
}

/// rustls may add errors, so the rest has one name together.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is not ours and grows; only its large families are told apart"
)]
const fn rustls_reason(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::AlertReceived(alert) => alert_reason(*alert),
        rustls::Error::InvalidCertificate(_) => "certificate_invalid",
        rustls::Error::InvalidCertRevocationList(_) => "crl_invalid",
        rustls::Error::NoCertificatesPresented => "certificate_missing",
        rustls::Error::InvalidMessage(_) => "message_invalid",
        rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::PeerMisbehaved(_) => "peer_misbehaved",
        rustls::Error::PeerIncompatible(_) => "peer_incompatible",
        rustls::Error::NoApplicationProtocol => "alpn",
        rustls::Error::DecryptError | rustls::Error::PeerSentOversizedRecord => "record_invalid",
        _ => "other",
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "alerts are an open list of numbers; those about certificates are what an operator looks for"
)]
const fn alert_reason(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA => "alert_unknown_ca",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired => "alert_certificate",
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            "alert_incompatible"
        }
        _ => "alert_other",
    }
}

/// Both kinds of connection give the same states; rustls has no common trait for them.
trait Records {
    type Data;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Records for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

struct Io<'v> {
    plain: &'v mut Vec<u8>,
    answers: &'v mut Vec<u8>,
}

struct Progress {
    used: usize,
    peer_closed: bool,
    result: Result<(), TlsError>,
}

/// Lets rustls work on `received` until it wants more bytes or has nothing to do.
fn pump<R: Records>(
    connection: &mut R,
    received: &mut [u8],
    io: &mut Io<'_>,
    on_write: &mut dyn OnWrite,
) -> Progress {
    let mut progress = Progress {
        used: 0,
        peer_closed: false,
        result: Ok(()),
    };
    loop {
        let UnbufferedStatus { discard, state } =
            connection.process(&mut received[progress.used..]);
        let step = state
            .map_err(TlsError::from)
            .and_then(|state| turn(state, io, on_write));
        progress.used += discard;
        match step {
            Ok(Step::Again { discard }) => progress.used += discard,
            Ok(Step::PeerClosed) => progress.peer_closed = true,
            Ok(Step::Enough) => return progress,
            Err(error) => {
                our_alert(connection, &mut received[progress.used..], io.answers);
                progress.result = Err(error);
                return progress;
            }
        }
    }
}

enum Step {
    Again { discard: usize },
    PeerClosed,
    Enough,
}

fn turn<D>(
    state: ConnectionState<'_, '_, D>,
    io: &mut Io<'_>,
    on_write: &mut dyn OnWrite,
) -> Result<Step, TlsError> {
    match state {
        ConnectionState::ReadTraffic(traffic) => read_traffic(traffic, io.plain),
        ConnectionState::EncodeTlsData(data) => {
            encode(data, io.answers);
            Ok(Step::Again { discard: 0 })
        }
        ConnectionState::TransmitTlsData(data) => {
            // What was encoded is in `answers`, whose order the socket keeps.
            data.done();
            Ok(Step::Again { discard: 0 })
        }
        ConnectionState::WriteTraffic(mut traffic) => {
            on_write.write(&mut traffic, io.answers)?;
            Ok(Step::Enough)
        }
        ConnectionState::PeerClosed => Ok(Step::PeerClosed),
        ConnectionState::BlockedHandshake | ConnectionState::Closed => Ok(Step::Enough),
        ConnectionState::ReadEarlyData(_) => Err(TlsError::EarlyData),
        // The enum is not exhaustive: a state that rustls adds is one that we did not ask for.
        _ => Err(TlsError::Rustls(rustls::Error::General(
            "unknown state of the unbuffered connection".into(),
        ))),
    }
}

fn read_traffic<D>(
    mut traffic: ReadTraffic<'_, '_, D>,
    plain: &mut Vec<u8>,
) -> Result<Step, TlsError> {
    let mut discard = 0;
    while let Some(record) = traffic.next_record() {
        let record = record?;
        discard += record.discard;
        plain.extend_from_slice(record.payload);
    }
    Ok(Step::Again { discard })
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, answers: &mut Vec<u8>) {
    let at = answers.len();
    let mut room = ANSWER_ROOM;
    loop {
        answers.resize(at + room, 0);
        match data.encode(&mut answers[at..]) {
            Ok(written) => return answers.truncate(at + written),
            Err(EncodeError::InsufficientSize(more)) => room = more.required_size,
            // It is encoded once, here.
            Err(EncodeError::AlreadyEncoded) => return answers.truncate(at),
        }
    }
}

/// After an error one alert waits in rustls; it is handed out before rustls looks at the input again.
fn our_alert<R: Records>(connection: &mut R, rest: &mut [u8], answers: &mut Vec<u8>) {
    let UnbufferedStatus { discard: _, state } = connection.process(rest);
    if let Ok(ConnectionState::EncodeTlsData(data)) = state {
        encode(data, answers);
    }
}

/// What to do once rustls may send application data.
trait OnWrite {
    fn write(&mut self, to: &mut dyn Writer, sealed: &mut Vec<u8>) -> Result<(), TlsError>;
}

/// [`WriteTraffic`] of either side.
trait Writer {
    fn encrypt(&mut self, plain: &[u8], sealed: &mut [u8]) -> Result<usize, EncryptError>;
    fn close_notify(&mut self, sealed: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<D> Writer for WriteTraffic<'_, D> {
    fn encrypt(&mut self, plain: &[u8], sealed: &mut [u8]) -> Result<usize, EncryptError> {
        WriteTraffic::encrypt(self, plain, sealed)
    }

    fn close_notify(&mut self, sealed: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(sealed)
    }
}

struct Nothing;

impl OnWrite for Nothing {
    fn write(&mut self, _: &mut dyn Writer, _: &mut Vec<u8>) -> Result<(), TlsError> {
        Ok(())
    }
}

struct Seal<'p>(&'p [u8]);

impl OnWrite for Seal<'_> {
    fn write(&mut self, to: &mut dyn Writer, sealed: &mut Vec<u8>) -> Result<(), TlsError> {
        let plain = std::mem::take(&mut self.0);
        let records = plain.len().div_ceil(RECORD_PLAIN_MAX);
        append(sealed, plain.len() + (records + 1) * RECORD_EXTRA, |room| {
            to.encrypt(plain, room)
        })
    }
}

struct CloseNotify;

impl OnWrite for CloseNotify {
    fn write(&mut self, to: &mut dyn Writer, sealed: &mut Vec<u8>) -> Result<(), TlsError> {
        append(sealed, RECORD_EXTRA, |room| to.close_notify(room))
    }
}

/// Lets `write` fill `room` bytes behind `sealed`, or as many as it then asks for.
fn append(
    sealed: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    let at = sealed.len();
    loop {
        sealed.resize(at + room, 0);
        match write(&mut sealed[at..]) {
            Ok(written) => {
                sealed.truncate(at + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(more)) if more.required_size > room => {
                room = more.required_size;
            }
            Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                sealed.truncate(at);
                return Err(TlsError::KeysExhausted);
            }
        }
    }
}

/// The most that is kept between two reads: the longest handshake message that rustls takes (64 KiB), and the framing
/// of its records. Application data needs one record, 16 KiB and a little.
pub const PARTIAL_MAX: usize = 80 * 1024;
/// RFC 8446 §5.1.
const RECORD_PLAIN_MAX: usize = 16 * 1024;
/// Header, nonce, tag and content type of a record in either version are under 32 bytes; a key update fits as well.
const RECORD_EXTRA: usize = 64;
/// Enough for most answers of a handshake; rustls says when it needs more.
const ANSWER_ROOM: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_tls::{BOTH, Pki, edge_test};

    #[test]
    fn every_cut_of_the_stream_gives_the_same_plaintext() {
        for version in BOTH {
            let mut link = Link::shake_hands(&Pki::new(version));
            let messages: [&[u8]; 3] = [b"REGISTER", b"", b" sip:contoso.test"];
            let wire = link.client.sealed(&messages);
            assert_eq!(link.server.feed(&wire), messages.concat());
            // rustls cannot go back, so each cut has records of its own, of the same length.
            for cut in 0..wire.len() {
                let wire = link.client.sealed(&messages);
                let (head, tail) = wire.split_at(cut);
                let mut got = link.server.feed(head);
                got.extend(link.server.feed(tail));
                assert_eq!(got, messages.concat(), "cut at {cut}");
                assert_eq!(link.server.driver.buffered(), 0);
            }
        }
    }

    #[test]
    fn a_handshake_byte_by_byte_is_a_handshake() {
        for version in BOTH {
            let pki = Pki::new(version);
            let (mut client, mut server) = ends(&pki);
            let mut to_server = client.start();
            let mut to_client = Vec::new();
            while !to_server.is_empty() || !to_client.is_empty() {
                for byte in std::mem::take(&mut to_server) {
                    server.feed(&[byte]);
                }
                to_client.append(&mut server.answers);
                for byte in std::mem::take(&mut to_client) {
                    client.feed(&[byte]);
                }
                to_server.append(&mut client.answers);
            }
            assert!(!client.driver.is_handshaking() && !server.driver.is_handshaking());
            assert_eq!(server.driver.sni(), Some("edge.test"));
            assert_eq!(server.driver.peer_certificates().len(), 1);
            assert_eq!(client.driver.alpn(), Some(&b"sip"[..]));
            assert_eq!(client.driver.version(), Some(version.version));
            assert_eq!((client.driver.buffered(), server.driver.buffered()), (0, 0));
        }
    }

    #[test]
    fn every_cut_of_the_handshake_is_a_handshake() {
        for version in BOTH {
            let pki = Pki::new(version);
            let mut link = ends(&pki);
            let hello = link.0.start().len();
            for cut in 0..hello {
                let (mut client, mut server) = ends(&pki);
                let hello = client.start();
                let cut = cut.min(hello.len());
                server.feed(&hello[..cut]);
                server.feed(&hello[cut..]);
                let flight = std::mem::take(&mut server.answers);
                // The server's flight is longer: it is cut at the same share of its length.
                let cut = flight.len() * cut / hello.len();
                client.feed(&flight[..cut]);
                client.feed(&flight[cut..]);
                let link = Link::of(client, server);
                assert!(!link.server.driver.is_handshaking(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn while_a_record_is_incomplete_only_its_beginning_is_kept() {
        for version in BOTH {
            let mut link = Link::shake_hands(&Pki::new(version));
            let wire = link.client.sealed(&[&[7; 40_000]]);
            let (head, tail) = wire.split_at(wire.len() - 100);
            let first = link.server.feed(head);
            assert_eq!(first.len(), 32 * 1024, "two whole records");
            assert_eq!(
                link.server.driver.buffered(),
                head.len() - whole_records(head)
            );
            // What is sent meanwhile must not disturb what is kept.
            let answer = link.server.sealed(&[b"100 Trying"]);
            assert_eq!(link.client.feed(&answer), b"100 Trying");
            assert_eq!(first.len() + link.server.feed(tail).len(), 40_000);
            assert_eq!(link.server.driver.buffered(), 0);
        }
    }

    #[test]
    fn each_direction_is_closed_by_itself() {
        for version in BOTH {
            let mut link = Link::shake_hands(&Pki::new(version));
            let mut last = link.client.sealed(&[b"last"]);
            link.client.driver.close(&mut last).expect("closes");
            last.extend(b"not even a record");
            assert_eq!(link.server.feed(&last), b"last");
            assert!(link.server.driver.peer_closed());
            assert!(!link.client.driver.peer_closed());
            let answer = link.server.sealed(&[b"one more thing"]);
            assert_eq!(link.client.feed(&answer), b"one more thing");
        }
    }

    #[test]
    fn a_wrong_name_is_refused_and_the_server_is_told_why() {
        for version in BOTH {
            let pki = Pki::new(version);
            let other = ServerName::try_from("other.test").expect("name");
            let mut client = End::new(TlsDriver::client(pki.client(), other).expect("client"));
            let mut server = End::new(TlsDriver::server(pki.server(false)).expect("server"));
            server.feed(&client.start());
            let error = client.refuse(&std::mem::take(&mut server.answers));
            assert_eq!(error.reason(), "certificate_invalid");
            let told = server.refuse(&std::mem::take(&mut client.answers));
            assert_eq!(told.reason(), "alert_certificate");
        }
    }

    #[test]
    fn a_missing_client_certificate_is_told_as_such() {
        for version in BOTH {
            let (own, foreign) = (Pki::new(version), Pki::new(version));
            // The client trusts our CA and has its certificate from another one.
            let config = foreign.client_trusting(&own);
            let mut client = End::new(TlsDriver::client(config, edge_test()).expect("client"));
            let mut server = End::new(TlsDriver::server(own.server(true)).expect("server"));
            server.feed(&client.start());
            client.feed(&std::mem::take(&mut server.answers));
            let error = server.refuse(&std::mem::take(&mut client.answers));
            assert!(["certificate_missing", "certificate_invalid"].contains(&error.reason()));
            assert!(!server.answers.is_empty(), "our alert");
        }
    }

    #[test]
    fn what_is_no_tls_is_refused_at_once() {
        let pki = Pki::new(BOTH[1]);
        let (_, mut server) = ends(&pki);
        let error = server.refuse(b"REGISTER sip:contoso.test SIP/2.0\r\n");
        assert_eq!(error.reason(), "message_invalid");
        assert!(server.driver.seal(b"x", &mut Vec::new()).is_err());
    }

    #[test]
    fn a_changed_byte_anywhere_ends_the_connection() {
        for version in BOTH {
            for at in [0, 3, 5, 20] {
                let mut link = Link::shake_hands(&Pki::new(version));
                let mut wire = link.client.sealed(&[b"INVITE sip:a SIP/2.0"]);
                wire[at] ^= 0x55;
                // A changed length may leave it waiting for a record that never ends.
                let mut buffer = vec![0; PARTIAL_MAX + wire.len()];
                buffer[..wire.len()].copy_from_slice(&wire);
                let mut plain = Vec::new();
                let result = link.server.driver.receive(
                    &mut buffer[..wire.len()],
                    &mut plain,
                    &mut Vec::new(),
                );
                assert!(
                    result.is_err() || link.server.driver.buffered() > 0,
                    "byte {at}"
                );
                assert_eq!(plain, b"");
            }
        }
    }

    #[test]
    fn nothing_is_sealed_before_the_handshake_is_done() {
        let pki = Pki::new(BOTH[1]);
        let (mut client, _) = ends(&pki);
        client.start();
        let mut sealed = Vec::new();
        assert!(client.driver.seal(b"too early", &mut sealed).is_err());
        assert_eq!(client.driver.close(&mut sealed), Ok(()));
        assert!(sealed.is_empty());
    }

    #[test]
    fn an_endless_handshake_message_is_refused() {
        let pki = Pki::new(BOTH[1]);
        let (_, mut server) = ends(&pki);
        // A ClientHello that says it has 65,535 bytes, in records of one byte each.
        let mut wire = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
        wire.extend([22, 3, 1, 0, 1, 0].repeat(20_000));
        let mut failed = false;
        for piece in wire.chunks(16 * 1024) {
            let mut buffer = vec![0; PARTIAL_MAX + piece.len()];
            let start = server.driver.restore(&mut buffer);
            buffer[start..start + piece.len()].copy_from_slice(piece);
            let received = &mut buffer[..start + piece.len()];
            let end = server
                .driver
                .receive(received, &mut Vec::new(), &mut Vec::new());
            failed |= end == Err(TlsError::PartialTooLong);
            assert!(server.driver.buffered() <= PARTIAL_MAX);
        }
        assert!(failed);
    }

    /// Both ends of a connection whose wire is in the hands of the test.
    struct Link {
        client: End,
        server: End,
    }

    struct End {
        driver: TlsDriver,
        answers: Vec<u8>,
    }

    impl Link {
        fn shake_hands(pki: &Pki) -> Self {
            let (mut client, mut server) = ends(pki);
            server.feed(&client.start());
            Self::of(client, server)
        }

        fn of(mut client: End, mut server: End) -> Self {
            loop {
                client.feed(&std::mem::take(&mut server.answers));
                if client.answers.is_empty() {
                    return Self { client, server };
                }
                server.feed(&std::mem::take(&mut client.answers));
            }
        }
    }

    impl End {
        const fn new(driver: TlsDriver) -> Self {
            Self {
                driver,
                answers: Vec::new(),
            }
        }

        fn start(&mut self) -> Vec<u8> {
            self.feed(b"");
            std::mem::take(&mut self.answers)
        }

        fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
            let (plain, result) = self.receive(bytes);
            result.expect("lawful bytes");
            plain
        }

        fn refuse(&mut self, bytes: &[u8]) -> TlsError {
            self.receive(bytes).1.expect_err("unlawful bytes")
        }

        fn receive(&mut self, bytes: &[u8]) -> (Vec<u8>, Result<(), TlsError>) {
            let mut buffer = vec![0; PARTIAL_MAX + bytes.len()];
            let start = self.driver.restore(&mut buffer);
            buffer[start..start + bytes.len()].copy_from_slice(bytes);
            let mut plain = Vec::new();
            let received = &mut buffer[..start + bytes.len()];
            let result = self.driver.receive(received, &mut plain, &mut self.answers);
            (plain, result)
        }

        fn sealed(&mut self, messages: &[&[u8]]) -> Vec<u8> {
            let mut wire = Vec::new();
            for message in messages {
                self.driver.seal(message, &mut wire).expect("seals");
            }
            wire
        }
    }

    fn ends(pki: &Pki) -> (End, End) {
        let client = TlsDriver::client(pki.client(), edge_test()).expect("client");
        let server = TlsDriver::server(pki.server(true)).expect("server");
        (End::new(client), End::new(server))
    }

    /// How many bytes the whole records at the front take.
    fn whole_records(mut wire: &[u8]) -> usize {
        let before = wire.len();
        while let Some((&[_, _, _, high, low], rest)) = wire.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let Some(next) = rest.get(len..) else {
                break;
            };
            wire = next;
        }
        before - wire.len()
    }
}

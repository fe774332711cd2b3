//! A far end that speaks SIP over TLS, one message at a time; whoever waits longer than 5 s has failed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    tcp: TcpStream,
    received: Vec<u8>,
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

impl Peer {
    pub(crate) fn dial(to: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Self {
        let tcp = TcpStream::connect(to).expect("connected");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(config, name).expect("a client");
        Self::over(tcp.try_clone().expect("cloned"), StreamOwned::new(tls, tcp))
    }

    /// The next connection that somebody opens to `listener`.
    pub(crate) fn accept(listener: &TcpListener, config: Arc<ServerConfig>) -> Self {
        let (tcp, _) = listener.accept().expect("a connection");
        let tls = ServerConnection::new(config).expect("a server");
        let mut peer = Self::over(tcp.try_clone().expect("cloned"), StreamOwned::new(tls, tcp));
        // Nothing is said yet, but the handshake has to be done.
        peer.stream.flush().expect("handshake");
        peer
    }

    fn over(tcp: TcpStream, stream: impl Stream + 'static) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).expect("set");
        Self {
            stream: Box::new(stream),
            tcp,
            received: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, message: impl AsRef<[u8]>) {
        self.stream.write_all(message.as_ref()).expect("sent");
        self.stream.flush().expect("sent");
    }

    /// The next message other than a 100; its body is in the text.
    pub(crate) fn receive(&mut self) -> String {
        loop {
            let message = self.try_receive(PATIENCE).expect("a message in time");
            if !message.starts_with("SIP/2.0 100 ") {
                return message;
            }
        }
    }

    /// The next message, if one comes within `patience`.
    pub(crate) fn try_receive(&mut self, patience: Duration) -> Option<String> {
        self.tcp.set_read_timeout(Some(patience)).expect("set");
        loop {
            if let Some(len) = message_len(&self.received) {
                let message: Vec<u8> = self.received.drain(..len).collect();
                return Some(String::from_utf8_lossy(&message).into_owned());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(len) if len > 0 => self.received.extend_from_slice(&chunk[..len]),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// Sends an HTTP request and gives the head of its answer.
    pub(crate) fn http(&mut self, request: &str) -> String {
        self.send(request);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let len = self.stream.read(&mut byte).expect("an answer in time");
            assert_eq!(len, 1, "{:?}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("ASCII")
    }

    /// What follows goes in frames, as a client sends them.
    pub(crate) fn into_websocket(self) -> WebSocket<impl Read + Write> {
        WebSocket::from_raw_socket(self.stream, Role::Client, None)
    }

    /// Sends what the far end may no longer want to read.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) {
        // Whether it is read is seen in what comes back.
        let _sent = self
            .stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush());
    }

    /// Whatever bytes come within `patience`, messages or not.
    pub(crate) fn try_receive_any(&mut self, patience: Duration) -> Option<String> {
        self.tcp.set_read_timeout(Some(patience)).expect("set");
        let mut bytes = std::mem::take(&mut self.received);
        let mut chunk = [0; 4096];
        if bytes.is_empty()
            && let Ok(len) = self.stream.read(&mut chunk)
        {
            bytes.extend_from_slice(&chunk[..len]);
        }
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until the far end has closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

fn message_len(received: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(received);
    let head = text.find("\r\n\r\n")? + 4;
    let length = text[..head]
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))?;
    let len = head + length.parse::<usize>().ok()?;
    (received.len() >= len).then_some(len)
}

const PATIENCE: Duration = Duration::from_secs(5);

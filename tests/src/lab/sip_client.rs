//! A small SIP client over TLS, many of which make a load: it registers, writes, answers and calls.
//!
//! It is ours, so it proves nothing about other people's clients; phones do that. It is there in numbers, and counts.

use super::netns::Netns;
use anyhow::{Context as _, Result, bail};
use edge_common::cert::tls::{CrlStore, PeerPolicy, PeerVerifier, TrustStore, anonymous_dialer};
use edge_common::config::{ClientEku, Revocation};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What clients of one domain trust.
pub fn trust(ca: &Path) -> Result<Arc<ClientConfig>> {
    let policy = PeerPolicy {
        client_eku: ClientEku::ClientOrServer,
        revocation: Revocation::Off,
    };
    let verifier = PeerVerifier::new(TrustStore::from_pem_file(ca)?, policy, CrlStore::empty());
    Ok(anonymous_dialer(verifier, &[]))
}

/// One client with its connection.
pub struct SipClient {
    user: String,
    domain: &'static str,
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
    next: u32,
    label: String,
    /// Requests that came and were answered, by method.
    pub answered: Vec<String>,
}

impl std::fmt::Debug for SipClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SipClient")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A dialog as its caller holds it.
#[derive(Clone, Debug)]
pub struct Dialog {
    call_id: String,
    local: String,
    remote: String,
    target: String,
    routes: Vec<String>,
    cseq: u32,
}

impl SipClient {
    /// Connects from `netns` and finishes the handshake.
    pub fn connect(
        netns: &Netns,
        to: SocketAddr,
        name: &str,
        tls: Arc<ClientConfig>,
        (user, domain): (&str, &'static str),
    ) -> Result<Self> {
        let tcp = netns.within(|| TcpStream::connect_timeout(&to, CONNECT_LIMIT))??;
        tcp.set_read_timeout(Some(ANSWER_LIMIT))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned())?;
        let mut stream = StreamOwned::new(ClientConnection::new(tls, name)?, tcp);
        stream.flush()?;
        let began = std::process::id();
        Ok(Self {
            user: user.to_owned(),
            domain,
            stream,
            received: Vec::new(),
            next: 0,
            label: format!("{user}-{began}-{:?}", Instant::now())
                .replace(|letter: char| !letter.is_ascii_alphanumeric(), ""),
            answered: Vec::new(),
        })
    }

    /// Registers; an answer other than 200 is an error.
    pub fn register(&mut self) -> Result<()> {
        let uri = format!("sip:{}", self.domain);
        let own = self.own();
        let contact = self.contact();
        let more = [
            contact,
            "Supported: path, outbound".into(),
            "Expires: 600".into(),
        ];
        let request = self.request("REGISTER", &uri, &own, &own, &more);
        self.ask(&request).map(drop)
    }

    /// Sends a MESSAGE to another user of the domain; an answer other than 200 is an error.
    pub fn message(&mut self, to: &str) -> Result<()> {
        let uri = format!("sip:{to}@{}", self.domain);
        let own = self.own();
        let request = self.request("MESSAGE", &uri, &own, &uri, &[]);
        self.ask(&request).map(drop)
    }

    /// Asks the edge itself whether it is there.
    pub fn options(&mut self) -> Result<()> {
        let uri = format!("sip:sip.{}", self.domain);
        let own = self.own();
        let request = self.request("OPTIONS", &uri, &own, &uri, &[]);
        self.ask(&request).map(drop)
    }

    /// Calls another user and holds the dialog.
    pub fn invite(&mut self, to: &str) -> Result<Dialog> {
        let uri = format!("sip:{to}@{}", self.domain);
        let own = self.own();
        let contact = self.contact();
        let request = self.request("INVITE", &uri, &own, &uri, &[contact]);
        let answer = self.ask(&request)?;
        let mut routes = values(&answer, "Record-Route");
        routes.reverse();
        let target = value(&answer, "Contact")?;
        let target = target
            .split(['<', '>'])
            .nth(1)
            .context("a Contact in angle brackets")?;
        let mut dialog = Dialog {
            call_id: value(&answer, "Call-ID")?,
            local: value(&answer, "From")?,
            remote: value(&answer, "To")?,
            target: target.to_owned(),
            routes,
            cseq: self.next,
        };
        let ack = self.within(&mut dialog, "ACK");
        self.send(&ack)?;
        Ok(dialog)
    }

    /// Sends a request within a dialog and waits for its 200.
    pub fn in_dialog(&mut self, dialog: &mut Dialog, method: &str) -> Result<()> {
        let request = self.within(dialog, method);
        self.ask(&request).map(drop)
    }

    /// Answers what comes for `time`.
    pub fn serve(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if let Some(message) = self.next_message(left)? {
                self.answer(&message)?;
            }
        }
    }

    fn within(&mut self, dialog: &mut Dialog, method: &str) -> String {
        if method != "ACK" {
            dialog.cseq += 1;
        }
        self.next += 1;
        let mut text = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/TLS {}.invalid;branch=z9hG4bK{}{}\r\n",
            dialog.target, self.user, self.label, self.next
        );
        for route in &dialog.routes {
            text += &format!("Route: {route}\r\n");
        }
        text + &format!(
            "From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {method}\r\nMax-Forwards: 70\r\n\
             Content-Length: 0\r\n\r\n",
            dialog.local, dialog.remote, dialog.call_id, dialog.cseq
        )
    }

    fn request(
        &mut self,
        method: &str,
        uri: &str,
        from: &str,
        to: &str,
        more: &[String],
    ) -> String {
        self.next += 1;
        let (label, next) = (&self.label, self.next);
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TLS {}.invalid;branch=z9hG4bK{label}{next}\r\n\
             From: <{from}>;tag=f{label}{next}\r\nTo: <{to}>\r\nCall-ID: {label}{next}\r\n\
             CSeq: {next} {method}\r\nMax-Forwards: 70\r\n",
            self.user
        );
        for line in more {
            text += &format!("{line}\r\n");
        }
        text + "Content-Length: 0\r\n\r\n"
    }

    fn own(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }

    fn contact(&self) -> String {
        format!("Contact: <sip:{}@10.255.0.1:5061;transport=tls>", self.user)
    }

    /// Sends a request and waits for its final answer, which has to be a 200; meanwhile others are answered.
    fn ask(&mut self, request: &str) -> Result<String> {
        self.send(request)?;
        let (call, cseq) = (value(request, "Call-ID")?, value(request, "CSeq")?);
        let end = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{}: no answer to {cseq} within {ANSWER_LIMIT:?}", self.user);
            }
            let Some(message) = self.next_message(left)? else {
                continue;
            };
            let Some(status) = message.strip_prefix("SIP/2.0 ") else {
                self.answer(&message)?;
                continue;
            };
            let mine = value(&message, "Call-ID")? == call && value(&message, "CSeq")? == cseq;
            match status.as_bytes() {
                [b'1', ..] => {}
                [b'2', ..] if mine => return Ok(message),
                _ if mine => bail!("{cseq}: {}", status.lines().next().unwrap_or_default()),
                _ => {}
            }
        }
    }

    fn answer(&mut self, request: &str) -> Result<()> {
        let method = request.split(' ').next().unwrap_or_default();
        if method.starts_with("SIP/") || method == "ACK" {
            return Ok(());
        }
        self.answered.push(method.to_owned());
        let mut text = "SIP/2.0 200 OK\r\n".to_owned();
        for line in head(request) {
            let label = line.split(':').next().unwrap_or_default();
            if ["Via", "From", "Call-ID", "CSeq", "Record-Route"].contains(&label) {
                text += &format!("{line}\r\n");
            } else if label == "To" {
                let tag = if line.contains(";tag=") { "" } else { ";tag=t" };
                text += &format!("{line}{tag}\r\n");
            }
        }
        let contact = self.contact();
        self.send(&format!("{text}{contact}\r\nContent-Length: 0\r\n\r\n"))
    }

    fn send(&mut self, message: &str) -> Result<()> {
        self.stream.write_all(message.as_bytes())?;
        self.stream.flush()?;
        Ok(())
    }

    /// The next whole message; `None` when none came in `patience`.
    fn next_message(&mut self, patience: Duration) -> Result<Option<String>> {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            if let Some(end) = text.find("\r\n\r\n") {
                let len = end + 4 + body_len(&text[..end]);
                if self.received.len() >= len {
                    self.received.drain(..len);
                    return Ok(Some(text[..len].to_owned()));
                }
            }
            let wait = patience.max(Duration::from_millis(1));
            self.stream.sock.set_read_timeout(Some(wait))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("{}: the connection was closed", self.user),
                Ok(len) => self.received.extend_from_slice(&chunk[..len]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn head(message: &str) -> impl Iterator<Item = &str> {
    message.split("\r\n").take_while(|line| !line.is_empty())
}

fn values(message: &str, name: &str) -> Vec<String> {
    head(message)
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .map(str::to_owned)
        .collect()
}

fn value(message: &str, name: &str) -> Result<String> {
    let first = values(message, name).into_iter().next();
    first.with_context(|| format!("no {name} in {message:?}"))
}

fn body_len(head: &str) -> usize {
    head.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

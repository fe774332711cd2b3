//! What stands behind the server: a SIP server inside that accepts everything, and an echo for relays.

use super::PATIENCE;
use super::target::Own;
use super::wire;
use anyhow::{Context as _, Result};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::handshake;
use edge_common::net::stream::{Read, Stream, StreamOptions};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

/// A listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where it listens.
    pub address: SocketAddr,
    /// Mutual TLS, or none.
    pub tls: Option<Tls>,
    /// What it does with what comes.
    pub does: Does,
}

/// What a stand-in shows, and whom it believes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tls {
    /// What it shows.
    pub own: Own,
    /// Who has to have signed what it is shown.
    pub ca: PathBuf,
}

/// What a stand-in does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// Answers each SIP request with 200.
    Sip,
    /// Sends every byte back.
    Echo,
}

/// Listens, and serves whoever comes for as long as the process lives.
pub async fn start(core: &CoreContext, plan: &Plan) -> Result<()> {
    let listener = TcpListener::bind(plan.address)
        .await
        .with_context(|| format!("cannot listen on {}", plan.address))?;
    let tls = plan.tls.as_ref();
    let tls = tls.map(|tls| tls.own.listener(&tls.ca)).transpose()?;
    let (own, does) = (core.clone(), plan.does);
    core.spawn(async move {
        while let Ok((tcp, remote)) = listener.accept().await {
            // Without it the answers only come later.
            tcp.set_nodelay(true).ok();
            let stream = Stream::new(&own, tcp, remote, OPTIONS);
            own.spawn(serve(stream, tls.clone(), does));
        }
    });
    Ok(())
}

async fn serve(stream: Stream, tls: Option<Arc<ServerConfig>>, does: Does) {
    if let Some(tls) = tls
        && handshake::server(&stream, tls, PATIENCE).await.is_err()
    {
        return;
    }
    let mut out = Vec::new();
    loop {
        out.clear();
        let read = stream.read(|bytes| match does {
            Does::Sip => answer_all(bytes, &mut out),
            Does::Echo => {
                out.extend_from_slice(bytes);
                bytes.len()
            }
        });
        if !matches!(read.await, Ok(Read::Data)) || stream.queue(&out).is_err() {
            break;
        }
        if stream.queued_below(OPTIONS.queue_max / 2).await.is_err() {
            break;
        }
    }
    stream.close();
}

/// Answers every whole request at the front; says how many bytes they were.
fn answer_all(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let mut at = 0;
    // Keep-alives between messages are passed over.
    loop {
        let rest = &bytes[at..];
        let blank = rest.len() - rest.trim_ascii_start().len();
        at += blank;
        let Some((head, len)) = wire::first_message(&rest[blank..]) else {
            return at;
        };
        answer(head, out);
        at += len;
    }
}

fn answer(head: &[u8], out: &mut Vec<u8>) {
    if wire::status(head).is_some() || head.starts_with(b"ACK") {
        return;
    }
    out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
    for line in wire::lines(head) {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let name = &line[..colon];
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"to") {
            out.extend_from_slice(line);
            if memchr::memmem::find(line, b";tag=").is_none() {
                out.extend_from_slice(b";tag=inside");
            }
        } else if [&b"via"[..], b"record-route", b"from", b"call-id", b"cseq"]
            .iter()
            .any(|known| is(known))
            || (is(b"contact") && head.starts_with(b"REGISTER"))
        {
            out.extend_from_slice(line);
        } else {
            continue;
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// What a server of this family puts on each answer: a signature that has to pass untouched.
const SIGNATURE: &[u8] = b"Authentication-Info: NTLM rspauth=\"01000000191e4a74aac906fe64000000\", \
srand=\"7FC816AD\", snum=\"2\", opaque=\"A94A2922\", qop=\"auth\", targetname=\"pool.contoso.test\", \
realm=\"SIP Communications Service\"\r\n";

const OPTIONS: StreamOptions = StreamOptions {
    queue_max: 16 * 1024 * 1024,
    pending_max: 1024 * 1024,
    read_max: 64 * 1024,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_with_its_own_fields() {
        let request = b"\r\n\r\nMESSAGE sip:b@c SIP/2.0\r\nVia: SIP/2.0/TLS x;branch=z9hG4bK1\r\n\
                        From: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\nCall-ID: 7\r\nCSeq: 1 MESSAGE\r\n\
                        Content-Length: 2\r\n\r\nhiMESSAGE";
        let mut out = Vec::new();
        assert_eq!(answer_all(request, &mut out), request.len() - 7);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.starts_with("SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS x;branch=z9hG4bK1\r\n"));
        assert!(text.contains("To: <sip:b@c>;tag=inside\r\nCall-ID: 7\r\nCSeq: 1 MESSAGE\r\n"));
    }
}

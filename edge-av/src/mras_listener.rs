//! SIP over mutual TLS on 5062: one connection of a server inside.

use std::sync::Arc;
use std::time::Duration;

use edge_common::cert::identity::ProvenNames;
use edge_common::net::stream::{Read, Stream, StreamOptions};
use edge_common::random::SystemRandom;
use edge_common::run;
use edge_common::sip::framer::{Framer, Limits, Opener, Step};
use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;

use crate::mras::request::BODY_MAX;
use crate::mras::service::{Outcome, Service};
use crate::observe::{Ended, MrasFigures};

/// Room for the longest message that is answered, be it only by a refusal.
#[must_use]
pub fn stream_options() -> StreamOptions {
    let options = StreamOptions::default();
    StreamOptions {
        pending_max: LIMITS.head + LIMITS.body + options.read_max,
        ..options
    }
}

/// Serves one connection whose handshake is done, to its end.
pub async fn serve(service: Arc<Service>, figures: MrasFigures, stream: Stream) {
    let certificates = stream.peer_certificates();
    let peer = certificates
        .first()
        .map(|leaf| ProvenNames::from_certificate(leaf));
    let Some(Ok(peer)) = peer else {
        end(&figures, &stream, Ended::Certificate, "no name can be read");
        return stream.abort();
    };
    let mut framer = Framer::new(Opener::Remote, LIMITS);
    let mut fine = true;
    while fine {
        let read = stream.read(|bytes| {
            take_messages(
                &service,
                &figures,
                &peer,
                &stream,
                &mut framer,
                bytes,
                &mut fine,
            )
        });
        match tokio::time::timeout(IDLE_TIMEOUT, read).await {
            Ok(Ok(Read::Data)) => {}
            Ok(Ok(Read::End) | Err(_)) | Err(_) => break,
        }
    }
    stream.close();
}

/// Answers what stands whole in `bytes` and says how much that was; `fine` tells whether framing still holds.
fn take_messages(
    service: &Service,
    figures: &MrasFigures,
    peer: &ProvenNames,
    stream: &Stream,
    framer: &mut Framer,
    bytes: &[u8],
    fine: &mut bool,
) -> usize {
    let (mut at, mut rng) = (0, SystemRandom);
    loop {
        let rest = &bytes[at..];
        let answer = match framer.next(rest) {
            Ok(Step::NeedMore) => return at,
            Ok(Step::Skip { len } | Step::Pong { len }) => {
                at += len;
                None
            }
            Ok(Step::Ping { len }) => {
                at += len;
                Some(b"\r\n".to_vec())
            }
            Ok(Step::Message { len }) => {
                at += len;
                let mut index = Index::new(HEADERS_MAX);
                let message = match Message::parse(&rest[..len], &mut index) {
                    Ok(message) => message,
                    Err(error) => {
                        end(figures, stream, Ended::Head, error);
                        *fine = false;
                        return bytes.len();
                    }
                };
                let (outcome, answer) =
                    service.handle_request(run::now(), peer, &message, &mut rng);
                note(figures, peer, stream, outcome);
                answer
            }
            Err(error) => {
                end(figures, stream, Ended::Framing, error);
                *fine = false;
                return bytes.len();
            }
        };
        // Whoever does not read its answers gets no more of them.
        if let Some(Err(error)) = answer.map(|answer| stream.queue(&answer)) {
            end(figures, stream, Ended::Answers, error);
            *fine = false;
            return bytes.len();
        }
    }
}

fn end(figures: &MrasFigures, stream: &Stream, why: Ended, error: impl std::fmt::Display) {
    figures.ended(why);
    tracing::debug!(remote = %stream.remote(), why = why.as_str(), %error, "connection ended");
}

fn note(figures: &MrasFigures, peer: &ProvenNames, stream: &Stream, outcome: Outcome) {
    figures.note(outcome);
    tracing::debug!(remote = %stream.remote(), %peer, ?outcome, "credentials request");
}

const LIMITS: Limits = Limits {
    head: 16 * 1024,
    body: BODY_MAX + 1,
};
/// A connection to the service is kept by its peer; one that nobody uses for long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1200);
/// Headers of one message.
const HEADERS_MAX: usize = 64;

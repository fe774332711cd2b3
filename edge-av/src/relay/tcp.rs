//! A client's connection on TCP 443: TURN in the clear, or in TLS where there is a certificate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use edge_common::config::AvLimits;
use edge_common::net::accept::Gate;
use edge_common::net::handshake;
use edge_common::net::stream::{Read, Stream, StreamOptions};
use edge_common::run;
use rustls::ServerConfig;

use super::shard::SharedShard;
use crate::stun::frame::{FRAME_MAX, FrameError, Framer, Step};
use crate::turn::five_tuple::{FiveTuple, ListenerId};

/// How connections of clients are bounded.
#[must_use]
pub const fn stream_options() -> StreamOptions {
    StreamOptions {
        queue_max: QUEUE_MAX,
        pending_max: 2 * FRAME_MAX,
        read_max: READ_MAX,
    }
}

/// How long somebody without an allocation is borne.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    silence: Duration,
    stay: Duration,
}

impl From<&AvLimits> for Patience {
    fn from(limits: &AvLimits) -> Self {
        Self {
            silence: limits.stranger_silence,
            stay: limits.stranger_stay,
        }
    }
}

/// Serves one connection to its end. With `tls`, a ClientHello as the first bytes is answered.
pub async fn serve(
    shard: SharedShard,
    listener: ListenerId,
    stream: Stream,
    gate: Gate,
    patience: Patience,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
) {
    let from = FiveTuple {
        listener,
        client: stream.remote(),
    };
    // Until it is known what it speaks, it is one of those that begin.
    let Some(beginning) = gate.begin_handshake(stream.remote().ip()) else {
        return stream.abort();
    };
    if let Err(error) = begin(&stream, patience, tls).await {
        shard.borrow().stream_ended(error);
        return stream.abort();
    }
    drop(beginning);
    let number = shard.borrow_mut().connect(run::now(), from, stream.clone());
    if let Err(error) = read_frames(&shard, from, &stream, patience).await {
        shard.borrow().stream_ended(error);
    }
    shard.borrow_mut().disconnect(run::now(), from, number);
    stream.close();
}

/// Looks at the first bytes: TURN needs nothing, TLS a handshake, and all else is refused.
async fn begin(
    stream: &Stream,
    patience: Patience,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
) -> Result<(), FrameError> {
    let spoken = tokio::time::timeout(patience.silence, stream.peek(Framer::opening)).await;
    match spoken {
        Ok(Ok(Some(Ok(())))) => Ok(()),
        Ok(Ok(Some(Err(FrameError::Tls)))) => {
            let config = tls.ok_or(FrameError::Tls)?.load_full();
            handshake::server(stream, config, patience.silence)
                .await
                .map_err(|_| FrameError::Tls)
        }
        Ok(Ok(Some(Err(error)))) => Err(error),
        // Nothing, or too little, in time.
        Ok(Ok(None) | Err(_)) | Err(_) => Err(FrameError::Unknown),
    }
}

/// Ends when the far end does, when framing is lost, or when a stranger stays silent or stays too long.
async fn read_frames(
    shard: &SharedShard,
    from: FiveTuple,
    stream: &Stream,
    patience: Patience,
) -> Result<(), FrameError> {
    let (mut framer, mut stranger_since) = (Framer::new(), Instant::now());
    loop {
        let mut lost = None;
        let read = stream.read(|bytes| take_frames(shard, from, &mut framer, bytes, &mut lost));
        match tokio::time::timeout(patience.silence, read).await {
            Ok(Ok(Read::Data)) => {}
            Ok(Ok(Read::End) | Err(_)) => return Ok(()),
            // Who holds an allocation may listen only; its lifetime bounds that.
            Err(_) if shard.borrow().is_known(from) => {}
            Err(_) => break,
        }
        if let Some(error) = lost {
            return Err(error);
        }
        if shard.borrow().is_known(from) {
            stranger_since = Instant::now();
        } else if stranger_since.elapsed() >= patience.stay {
            break;
        }
    }
    shard.borrow().stranger_ended();
    Ok(())
}

fn take_frames(
    shard: &SharedShard,
    from: FiveTuple,
    framer: &mut Framer,
    bytes: &[u8],
    lost: &mut Option<FrameError>,
) -> usize {
    let (mut shard, now, mut at) = (shard.borrow_mut(), run::now(), 0);
    loop {
        let rest = &bytes[at..];
        let len = match framer.next(rest) {
            Ok(Step::NeedMore) => return at,
            Ok(Step::Message { len } | Step::ChannelData { len, .. }) if len > rest.len() => {
                return at;
            }
            Ok(step @ (Step::Message { len } | Step::ChannelData { len, .. })) => {
                at += step.consumed();
                len
            }
            Err(error) => {
                *lost = Some(error);
                return bytes.len();
            }
        };
        shard.frame(now, from, &rest[..len]);
        if shard.is_known(from) {
            framer.trust();
        }
    }
}

/// Half a second of video; what waits longer is late anyway.
const QUEUE_MAX: usize = 256 * 1024;
const READ_MAX: usize = 16 * 1024;

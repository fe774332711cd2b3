//! A stream from outside: two ends over loopback, plain and in both TLS versions.

use std::cell::RefCell;
use std::net::Shutdown;

use socket2::SockRef;

use super::inner::TURN_MAX;
use super::*;
use crate::net::test_tls::{BOTH, on_a_core, pair, read_exactly, tls_pair};

#[test]
fn what_is_queued_in_a_turn_leaves_in_one_seal_and_one_write() {
    for version in BOTH {
        on_a_core(async |core| {
            let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
            let before = client.stats();
            for number in 0..50 {
                let message = format!("MESSAGE sip:{number:04} SIP/2.0\r\n");
                client.queue(message.as_bytes()).expect("room");
            }
            let got = read_exactly(&server, 50 * 26).await;
            assert!(got.starts_with(b"MESSAGE sip:0000 SIP/2.0\r\nMESSAGE sip:0001"));
            let after = client.stats();
            assert_eq!(after.seals - before.seals, 1);
            assert_eq!(after.writes - before.writes, 1);
        });
    }
}

#[test]
fn messages_of_several_tasks_ride_together() {
    on_a_core(async |core| {
        let (near, far) = pair(&core, StreamOptions::default()).await;
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let near = near.clone();
                core.spawn(async move { near.queue(b"0123456789") })
            })
            .collect();
        assert_eq!(read_exactly(&far, 100).await, b"0123456789".repeat(10));
        for task in tasks {
            assert_eq!(task.await.expect("no panic"), Ok(()));
        }
        assert_eq!(near.stats().writes, 1);
    });
}

#[test]
fn both_ends_know_who_the_other_is() {
    for version in BOTH {
        on_a_core(async |core| {
            let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
            assert_eq!(client.peer_certificates().len(), 1);
            assert_eq!(server.peer_certificates().len(), 1);
            assert_ne!(client.peer_certificates(), server.peer_certificates());
            assert_eq!(server.sni().as_deref(), Some("edge.test"));
            assert_eq!(server.alpn().as_deref(), Some(&b"sip"[..]));
            assert_eq!(client.tls_version(), Some(version.version));
        });
    }
}

#[test]
fn a_queue_has_an_end_and_refuses_whole_messages() {
    for version in BOTH {
        on_a_core(async |core| {
            let options = StreamOptions {
                queue_max: 100_000,
                ..StreamOptions::default()
            };
            let (client, _server) = tls_pair(&core, version, options).await;
            let message = [7; 1000];
            // The far end never reads: what the kernel takes at first is all that leaves.
            let mut taken = 0;
            loop {
                match client.queue(&message) {
                    Ok(()) => taken += 1000,
                    Err(QueueError::Full) if is_stuck(&client).await => break,
                    Err(QueueError::Full) => {}
                    Err(QueueError::Closed) => panic!("nobody closed it"),
                }
            }
            assert!(client.queued() <= options.queue_max);
            assert!(client.queued() > options.queue_max - 2000);
            assert_eq!(client.stats().queued, taken);
            assert!(client.buffered() < 2 * options.queue_max + 2 * TURN_MAX);
        });
    }
}

#[test]
fn each_direction_ends_by_itself() {
    for version in BOTH {
        on_a_core(async |core| {
            let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
            client.queue(b"request").expect("room");
            client.finish();
            assert_eq!(client.queue(b"more"), Err(QueueError::Closed));
            assert_eq!(read_exactly(&server, 7).await, b"request");
            assert_eq!(server.read(nothing).await, Ok(Read::End));

            server.queue(&[5; 200_000]).expect("room");
            server.finish();
            assert_eq!(read_exactly(&client, 200_000).await, vec![5; 200_000]);
            assert_eq!(client.read(nothing).await, Ok(Read::End));
            assert_eq!(client.finished().await, Ok(()));
            assert_eq!(server.finished().await, Ok(()));
        });
    }
}

#[test]
fn plain_tcp_has_the_same_face() {
    on_a_core(async |core| {
        let (near, far) = pair(&core, StreamOptions::default()).await;
        near.queue(b"one").expect("room");
        near.finish();
        assert_eq!(read_exactly(&far, 3).await, b"one");
        assert_eq!(far.read(nothing).await, Ok(Read::End));
        far.queue(b"two").expect("room");
        assert_eq!(read_exactly(&near, 3).await, b"two");
        assert!(!near.is_tls() && near.peer_certificates().is_empty());
    });
}

#[test]
fn an_end_without_close_notify_is_no_end() {
    for version in BOTH {
        on_a_core(async |core| {
            let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
            SockRef::from(&client.0.tcp)
                .shutdown(Shutdown::Write)
                .expect("FIN");
            assert_eq!(server.read(nothing).await, Err(StreamError::Truncated));
        });
    }
}

#[test]
fn what_is_not_consumed_is_shown_again_with_more() {
    on_a_core(async |core| {
        let (near, far) = pair(&core, StreamOptions::default()).await;
        let mut seen = Vec::new();
        near.queue(b"INVITE").expect("room");
        let first = far.read(|bytes| {
            seen.push(bytes.to_vec());
            2
        });
        assert_eq!(first.await, Ok(Read::Data));
        near.queue(b" sip:").expect("room");
        let second = far.read(|bytes| {
            seen.push(bytes.to_vec());
            bytes.len()
        });
        assert_eq!(second.await, Ok(Read::Data));
        assert_eq!(seen, [b"INVITE".to_vec(), b"VITE sip:".to_vec()]);
        assert_eq!(far.buffered(), 0);
    });
}

#[test]
fn too_much_that_nobody_consumes_ends_the_stream() {
    on_a_core(async |core| {
        let options = StreamOptions {
            pending_max: 100,
            ..StreamOptions::default()
        };
        let (near, far) = pair(&core, options).await;
        near.queue(&[1; 101]).expect("room");
        assert_eq!(far.read(|_| 0).await, Err(StreamError::PendingFull));
    });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    for version in BOTH {
        on_a_core(async |core| {
            let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
            client.queue(&[1; 30_000]).expect("room");
            assert_eq!(read_exactly(&server, 30_000).await.len(), 30_000);
            server.queue(&[2; 30_000]).expect("room");
            assert_eq!(read_exactly(&client, 30_000).await.len(), 30_000);
            client.queued_below(0).await.expect("lives");
            assert_eq!((client.buffered(), server.buffered()), (0, 0));
        });
    }
    // What each connection costs before rustls: a change here is a change of the memory budget.
    assert!(size_of::<Inner>() <= 512, "{}", size_of::<Inner>());
}

#[test]
fn a_relay_stops_reading_while_the_other_side_is_slow() {
    const MARK: usize = 16 * 1024;
    on_a_core(async |core| {
        let options = StreamOptions {
            queue_max: MARK + PLAIN_PER_READ_MAX,
            ..StreamOptions::default()
        };
        let (source, relay_in) = tls_pair(&core, &rustls::version::TLS13, options).await;
        let (relay_out, sink) = tls_pair(&core, &rustls::version::TLS12, options).await;
        core.spawn(pump(relay_in, relay_out.clone(), MARK));
        let sent = core.spawn(async move {
            for number in 0..600u32 {
                source.queued_below(MARK).await.expect("lives");
                source.queue(&[number as u8; 10_000]).expect("room");
            }
            source.finish();
            source.finished().await
        });
        // Nobody reads at the far end: the relay holds no more than its bound.
        while !is_stuck(&relay_out).await {
            assert!(relay_out.queued() <= MARK + PLAIN_PER_READ_MAX);
        }
        assert!(!sent.is_finished());
        let got = read_exactly(&sink, 6_000_000).await;
        assert!(
            got.chunks(10_000)
                .zip(0..600u32)
                .all(|(c, n)| c == [n as u8; 10_000])
        );
        assert_eq!(sink.read(nothing).await, Ok(Read::End));
        assert_eq!(sent.await.expect("no panic"), Ok(()));
    });
}

#[test]
fn old_media_gives_way_to_new_and_answers_stay() {
    on_a_core(async |core| {
        let options = StreamOptions {
            queue_max: 10_000,
            ..StreamOptions::default()
        };
        let (near, far) = pair(&core, options).await;
        // All in one turn, so that nothing is written in between.
        near.queue(b"answer 1").expect("room");
        for number in 0..30u8 {
            near.queue_media(&[number; 1000])
                .expect("old media gives way");
        }
        near.queue(b"answer 2")
            .expect("half the queue is free at least once");
        let dropped = near.stats().media_dropped as usize;
        let got = read_exactly(&far, 8 + (30 - dropped) * 1000 + 8).await;
        assert!(dropped >= 20);
        assert!(got.starts_with(b"answer 1") && got.ends_with(b"answer 2"));
        let media = &got[8..got.len() - 8];
        let numbers: Vec<u8> = media.chunks(1000).map(|frame| frame[0]).collect();
        assert!(media.chunks(1000).all(|frame| frame == [frame[0]; 1000]));
        assert_eq!(numbers, (dropped as u8..30).collect::<Vec<_>>());
    });
}

#[test]
fn closing_writes_what_is_queued_and_ends_a_waiting_read() {
    on_a_core(async |core| {
        let (client, server) = tls_pair(&core, BOTH[1], StreamOptions::default()).await;
        let reader = core.spawn({
            let server = server.clone();
            async move { server.read(nothing).await }
        });
        tokio::task::yield_now().await;
        server
            .queue(b"SIP/2.0 403 Forbidden\r\n\r\n")
            .expect("room");
        server.close();
        assert_eq!(reader.await.expect("no panic"), Err(StreamError::Closed));
        assert_eq!(
            read_exactly(&client, 25).await,
            b"SIP/2.0 403 Forbidden\r\n\r\n"
        );
        assert_eq!(client.read(nothing).await, Ok(Read::End));
    });
}

#[test]
fn dropping_the_last_handle_closes_and_frees_what_was_held() {
    on_a_core(async |core| {
        let (near, far) = pair(&core, StreamOptions::default()).await;
        let permit = std::sync::Arc::new(());
        near.hold(std::sync::Arc::clone(&permit));
        near.queue(b"bye").expect("room");
        drop(near);
        assert_eq!(read_exactly(&far, 3).await, b"bye");
        assert_eq!(far.read(nothing).await, Ok(Read::End));
        drop(far);
        while std::sync::Arc::strong_count(&permit) > 1 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_detached_connection_goes_on_elsewhere() {
    for version in BOTH {
        on_a_core(async |core| {
            let (client, server) = tls_pair(&core, version, StreamOptions::default()).await;
            client.queue(b"before").expect("room");
            let Err(DetachError::Busy(client)) = client.detach() else {
                panic!("something is queued");
            };
            assert_eq!(read_exactly(&server, 6).await, b"before");
            let detached = server.detach().expect("idle");
            let server = Stream::attach(&core, detached).expect("a socket of ours");
            client.queue(b"after").expect("room");
            server.queue(b"answer").expect("room");
            assert_eq!(read_exactly(&server, 5).await, b"after");
            assert_eq!(read_exactly(&client, 6).await, b"answer");
            assert_eq!(server.sni().as_deref(), Some("edge.test"));
        });
    }
}

#[test]
fn a_far_end_that_takes_nothing_cannot_keep_an_aborted_connection() {
    on_a_core(async |core| {
        let (near, _far) = pair(&core, StreamOptions::default()).await;
        while near.queue(&[0; 1000]).is_ok() || !is_stuck(&near).await {}
        near.abort();
        drop(near);
        let gone = async {
            while core.streams() > 1 {
                tokio::task::yield_now().await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(5), gone)
                .await
                .is_ok()
        );
    });
}

#[test]
fn a_core_knows_when_its_last_stream_is_gone() {
    on_a_core(async |core| {
        core.streams_ended().await;
        let (near, far) = pair(&core, StreamOptions::default()).await;
        assert_ne!(near.id(), far.id());
        assert_eq!(core.streams(), 2);
        near.queue(b"last words").expect("room");
        drop(near);
        let reader = core.spawn(async move {
            assert_eq!(read_exactly(&far, 10).await, b"last words");
            assert_eq!(far.read(nothing).await, Ok(Read::End));
        });
        core.streams_ended().await;
        assert_eq!(core.streams(), 0);
        reader.await.expect("no panic");
    });
}

#[test]
fn asking_for_room_again_and_again_costs_one_place() {
    on_a_core(async |core| {
        let (near, _far) = pair(&core, StreamOptions::default()).await;
        near.queue(b"waits").expect("room");
        poll_fn(|context| {
            for _ in 0..100 {
                let mut room = std::pin::pin!(near.queued_below(0));
                assert!(room.as_mut().poll(context).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(near.0.state.borrow().for_room.len(), 1);
    });
}

#[test]
fn an_abort_resets_the_connection() {
    on_a_core(async |core| {
        let (near, far) = pair(&core, StreamOptions::default()).await;
        near.queue(b"never sent").expect("room");
        near.abort();
        assert_eq!(near.queue(b"more"), Err(QueueError::Closed));
        drop(near);
        let reset = StreamError::Socket(io::ErrorKind::ConnectionReset);
        assert_eq!(far.read(nothing).await, Err(reset));
    });
}

#[test]
fn bulk_on_one_connection_lets_another_have_its_turn() {
    on_a_core(async |core| {
        let options = StreamOptions {
            queue_max: 8 << 20,
            ..StreamOptions::default()
        };
        let (bulk, bulk_far) = pair(&core, options).await;
        let (small, small_far) = pair(&core, options).await;
        bulk.queue(&vec![0; 4 << 20]).expect("room");
        small.queue(b"ping").expect("room");
        let order = Rc::new(RefCell::new(Vec::new()));
        let (seen, log) = (Rc::clone(&order), Rc::clone(&order));
        let reader = core.spawn(async move {
            let mut left = 4 << 20;
            while left > 0 {
                left -= read_some(&bulk_far).await;
                seen.borrow_mut().push("bulk");
            }
        });
        core.spawn(async move {
            assert_eq!(read_exactly(&small_far, 4).await, b"ping");
            log.borrow_mut().push("small");
        });
        reader.await.expect("no panic");
        let at = order.borrow().iter().position(|&who| who == "small");
        assert!(at.is_some_and(|at| at < 8), "after {at:?} bulk reads");
    });
}

async fn read_some(stream: &Stream) -> usize {
    let mut len = 0;
    let read = stream.read(|bytes| {
        len = bytes.len();
        len
    });
    assert_eq!(read.await, Ok(Read::Data));
    len
}

/// What a relay does with one direction.
async fn pump(from: Stream, to: Stream, mark: usize) -> Result<(), StreamError> {
    loop {
        let read = from.read(|bytes| {
            to.queue(bytes).expect("the mark keeps room");
            bytes.len()
        });
        if read.await? == Read::End {
            to.finish();
            return to.finished().await;
        }
        to.queued_below(mark).await?;
    }
}

/// The socket takes no more, also after a while.
async fn is_stuck(stream: &Stream) -> bool {
    let before = stream.stats().bytes_out;
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.stats().bytes_out == before && stream.queued() > 0
}

fn nothing(bytes: &[u8]) -> usize {
    panic!("nothing should come, but {} bytes did", bytes.len())
}

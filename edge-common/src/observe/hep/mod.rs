//! Copies of SIP messages for a collector inside, after TLS was taken off them: HEP version 3 over UDP.
//!
//! ```text
//!   message ─► sample by Call-ID ─► redact ─► packet ─► one datagram, or counted as dropped
//! ```
//!
//! The mirror never waits: what the socket does not take at once is lost and counted. A call is copied whole or not at
//! all, by every member of an array alike.

pub mod packet;
pub mod redact;

use std::io;
use std::net::{SocketAddr, UdpSocket};

use self::packet::Envelope;
use crate::config::Hep;
use crate::net::bind::{Bind, BindError};
use crate::observe::metrics::{Counter, Metrics};
use crate::sip::edit::Edits;
use crate::sip::header::Name;
use crate::sip::message::Message;
use crate::sip::parse::Index;
use crate::time::Now;

/// The mirror of one core.
#[derive(Debug)]
pub struct Mirror {
    socket: UdpSocket,
    hep: Hep,
    agent: u32,
    node: String,
    tally: Tally,
    index: Index,
    edits: Edits,
    text: Vec<u8>,
    packet: Vec<u8>,
}

/// What became of copies; all cores count in one. Clones share it.
#[derive(Clone, Debug)]
pub struct Tally {
    sent: Counter,
    unreadable: Counter,
    too_long: Counter,
    busy: Counter,
    refused: Counter,
    failed: Counter,
}

impl Tally {
    /// Registers `hep_packets` and `hep_dropped`.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let dropped = metrics.counters(
            "hep_dropped",
            "Copies of messages that did not go to the collector",
            ["reason"],
        );
        Self {
            sent: metrics.counter("hep_packets", "Copies of messages for the collector"),
            unreadable: dropped.with(["unreadable"]),
            too_long: dropped.with(["too_long"]),
            busy: dropped.with(["busy"]),
            refused: dropped.with(["refused"]),
            failed: dropped.with(["failed"]),
        }
    }

    fn lost(&self, error: &io::Error) {
        let counter = match error.raw_os_error() {
            // EAGAIN, ENOBUFS
            Some(11 | 105) => &self.busy,
            // ECONNREFUSED: nobody listens there.
            Some(111) => &self.refused,
            Some(_) | None => &self.failed,
        };
        counter.inc();
    }
}

impl Mirror {
    /// A mirror to the collector of `hep`, from an address inside; `agent` and `node` say whose copies these are.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn open(
        hep: &Hep,
        from: &Bind,
        agent: u8,
        node: &str,
        tally: Tally,
    ) -> Result<Self, BindError> {
        let socket = from.udp_socket()?;
        Ok(Self {
            socket,
            hep: hep.clone(),
            agent: agent.into(),
            node: node.to_owned(),
            tally,
            index: Index::new(HEADERS_MAX),
            edits: Edits::new(),
            text: Vec::new(),
            packet: Vec::new(),
        })
    }

    /// What it was opened for.
    #[must_use]
    pub const fn hep(&self) -> &Hep {
        &self.hep
    }

    /// Copies one message, if its call is among those that are copied.
    pub fn copy(&mut self, now: Now, from: SocketAddr, to: SocketAddr, message: &[u8]) {
        let Ok(message) = Message::parse(message, &mut self.index) else {
            // Where its credentials and its body are is not certain.
            self.tally.unreadable.inc();
            return;
        };
        let call_id = message
            .first(Name::CallId)
            .map_or(&b""[..], |id| id.value());
        if !is_sampled(call_id, self.hep.percent) {
            return;
        }
        self.text.clear();
        redact::write(&message, self.hep.bodies, &mut self.edits, &mut self.text);
        let envelope = Envelope {
            at: now.unix,
            from,
            to,
            agent: self.agent,
            node: &self.node,
            call_id,
        };
        if packet::write(&envelope, &self.text, &mut self.packet).is_err() {
            self.tally.too_long.inc();
            return;
        }
        match self.socket.send_to(&self.packet, self.hep.address()) {
            Ok(_) => self.tally.sent.inc(),
            Err(error) => self.tally.lost(&error),
        }
    }
}

/// The same for every message of a call, on every member (FNV-1a).
fn is_sampled(call_id: &[u8], percent: u8) -> bool {
    let hash = call_id
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    // The low bits of this hash alone are not even.
    (hash >> 32) % 100 < u64::from(percent)
}

/// More than any listener lets pass.
const HEADERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;
    use std::net::IpAddr;
    use std::time::Duration;

    fn collector() -> (UdpSocket, Hep) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let hep = Hep {
            collector: address.ip(),
            port: address.port(),
            percent: 100,
            bodies: false,
        };
        (socket, hep)
    }

    fn mirror(hep: &Hep, metrics: &Metrics) -> Mirror {
        let from = Bind::to(SocketAddr::from(([127, 0, 0, 1], 0)));
        Mirror::open(hep, &from, 3, "edge1", Tally::new(metrics)).unwrap()
    }

    const MESSAGE: &[u8] = b"MESSAGE sip:bob@contoso.test SIP/2.0\r\nCall-ID: a@b\r\n\
        Authorization: Digest response=\"SECRET\"\r\nContent-Length: 6\r\n\r\nSECRET";

    fn ends() -> (SocketAddr, SocketAddr) {
        (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 5061).into())
    }

    #[test]
    fn the_collector_gets_the_message_and_not_its_secrets() {
        let metrics = Metrics::new("test");
        let (socket, hep) = collector();
        let mut mirror = mirror(&hep, &metrics);
        let (from, to) = ends();
        mirror.copy(run::now(), from, to, MESSAGE);
        let mut packet = [0; 2048];
        let len = socket.recv(&mut packet).unwrap();
        let text = String::from_utf8_lossy(&packet[..len]);
        assert!(text.starts_with("HEP3") && text.contains("MESSAGE sip:bob@contoso.test"));
        assert!(!text.contains("SECRET"), "{text}");
        assert!(
            metrics.text().contains("hep_packets_total 1"),
            "{}",
            metrics.text()
        );
    }

    #[test]
    fn what_cannot_be_copied_is_counted_and_nobody_waits() {
        let metrics = Metrics::new("test");
        let (socket, mut hep) = collector();
        drop(socket);
        let (from, to) = ends();
        let mut gone = mirror(&hep, &metrics);
        gone.copy(run::now(), from, to, b"no SIP");
        let long = [
            &MESSAGE[..MESSAGE.len() - 10],
            &b"x: "[..],
            &vec![b'x'; 70_000],
            b"\r\n\r\n",
        ]
        .concat();
        gone.copy(run::now(), from, to, &long);
        hep.collector = IpAddr::from([255, 255, 255, 255]);
        mirror(&hep, &metrics).copy(run::now(), from, to, MESSAGE);
        for line in ["unreadable\"} 1", "too_long\"} 1", "failed\"} 1"] {
            assert!(metrics.text().contains(line), "{}", metrics.text());
        }
    }

    #[test]
    fn a_part_of_the_calls_is_copied_evenly_and_each_one_whole() {
        let copied = |percent: u8| {
            (0..10_000)
                .filter(|n| is_sampled(format!("{n:x}@host").as_bytes(), percent))
                .count()
        };
        assert_eq!(copied(100), 10_000);
        for percent in [1, 10, 50] {
            let (seen, wanted) = (copied(percent), usize::from(percent) * 100);
            assert!(seen.abs_diff(wanted) < 150, "{percent} %: {seen}");
        }
        let few = |n: u32| is_sampled(format!("{n}").as_bytes(), 10);
        assert!((0..100).all(|n| few(n) == few(n)));
    }
}

//! One HEP packet, version 3 (the protocol of Homer's collectors; all numbers big endian).
//!
//! ```text
//!  "HEP3" │ length 2 │ chunk …
//!  chunk:   vendor 2 = 0 │ kind 2 │ length 2, these six bytes included │ value
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::time::UnixTime;

/// What stands around a copied message.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// When it passed; the packet has microseconds, we know milliseconds.
    pub at: UnixTime,
    /// Who sent it.
    pub from: SocketAddr,
    /// Who got it.
    pub to: SocketAddr,
    /// The number of the capturing host.
    pub agent: u32,
    /// Its name.
    pub node: &'a str,
    /// What ties the messages of one call together.
    pub call_id: &'a [u8],
}

/// The message does not fit one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not fit one datagram")]
pub struct TooLong;

/// Writes the packet of a SIP message over TCP or TLS in place of what `out` held.
///
/// # Errors
/// When it would be longer than a datagram may be.
pub fn write(envelope: &Envelope<'_>, message: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    out.clear();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0, 0]);
    // One family for both ends: a connection has no other.
    match (envelope.from.ip(), envelope.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            chunk(out, kind::FAMILY, &[FAMILY_IPV4]);
            chunk(out, kind::IPV4_FROM, &from.octets());
            chunk(out, kind::IPV4_TO, &to.octets());
        }
        (from, to) => {
            chunk(out, kind::FAMILY, &[FAMILY_IPV6]);
            chunk(out, kind::IPV6_FROM, &six(from));
            chunk(out, kind::IPV6_TO, &six(to));
        }
    }
    chunk(out, kind::TRANSPORT, &[TRANSPORT_TCP]);
    chunk(out, kind::PORT_FROM, &envelope.from.port().to_be_bytes());
    chunk(out, kind::PORT_TO, &envelope.to.port().to_be_bytes());
    let since_1970 = Duration::from_millis(envelope.at.as_millis());
    // The format's seconds end in 2106.
    let seconds = u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX);
    chunk(out, kind::SECONDS, &seconds.to_be_bytes());
    let micros = since_1970.subsec_micros();
    chunk(out, kind::MICROSECONDS, &micros.to_be_bytes());
    chunk(out, kind::PROTOCOL, &[PROTOCOL_SIP]);
    chunk(out, kind::AGENT, &envelope.agent.to_be_bytes());
    let node = envelope.node.as_bytes();
    chunk(out, kind::NODE, &node[..node.len().min(TEXT_MAX)]);
    let call_id = envelope.call_id;
    chunk(
        out,
        kind::CORRELATION,
        &call_id[..call_id.len().min(TEXT_MAX)],
    );
    if out.len() + CHUNK_HEAD + message.len() > DATAGRAM_MAX {
        return Err(TooLong);
    }
    chunk(out, kind::MESSAGE, message);
    let len = u16::try_from(out.len()).map_err(|_| TooLong)?;
    out[MAGIC.len()..HEAD].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

/// `value` is shorter than a datagram: the caller has seen to it.
fn chunk(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(CHUNK_HEAD + value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&VENDOR_GENERIC.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value);
}

fn six(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Kinds of generic chunks (HEP3 specification, section 4.2).
mod kind {
    pub(super) const FAMILY: u16 = 0x0001;
    pub(super) const TRANSPORT: u16 = 0x0002;
    pub(super) const IPV4_FROM: u16 = 0x0003;
    pub(super) const IPV4_TO: u16 = 0x0004;
    pub(super) const IPV6_FROM: u16 = 0x0005;
    pub(super) const IPV6_TO: u16 = 0x0006;
    pub(super) const PORT_FROM: u16 = 0x0007;
    pub(super) const PORT_TO: u16 = 0x0008;
    pub(super) const SECONDS: u16 = 0x0009;
    pub(super) const MICROSECONDS: u16 = 0x000a;
    pub(super) const PROTOCOL: u16 = 0x000b;
    pub(super) const AGENT: u16 = 0x000c;
    pub(super) const MESSAGE: u16 = 0x000f;
    pub(super) const CORRELATION: u16 = 0x0011;
    pub(super) const NODE: u16 = 0x0013;
}

const MAGIC: &[u8] = b"HEP3";
const HEAD: usize = 6;
const CHUNK_HEAD: usize = 6;
const VENDOR_GENERIC: u16 = 0;
/// `AF_INET` and `AF_INET6` of Linux.
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
/// What IP carries; the format has no number for TLS.
const TRANSPORT_TCP: u8 = 6;
const PROTOCOL_SIP: u8 = 1;
/// Of names and Call-IDs.
const TEXT_MAX: usize = 255;
/// The most that one UDP datagram over IPv4 carries.
const DATAGRAM_MAX: usize = 65_507;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn envelope<'a>(from: &str, to: &str) -> Envelope<'a> {
        Envelope {
            at: UnixTime::from_millis(1_790_000_000_123),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            agent: 7,
            node: "edge1",
            call_id: b"a@b",
        }
    }

    /// A reader that knows nothing of the writer.
    fn read(packet: &[u8]) -> BTreeMap<u16, Vec<u8>> {
        let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(&packet[..4], b"HEP3");
        assert_eq!(usize::from(number(4)), packet.len());
        let (mut at, mut chunks) = (6, BTreeMap::new());
        while at < packet.len() {
            assert_eq!(number(at), 0, "a generic chunk");
            let len = usize::from(number(at + 4));
            let value = packet[at + 6..at + len].to_vec();
            assert!(
                chunks.insert(number(at + 2), value).is_none(),
                "a kind stands once"
            );
            at += len;
        }
        assert_eq!(at, packet.len());
        chunks
    }

    #[test]
    fn a_packet_byte_for_byte() {
        let mut out = vec![1, 2, 3];
        write(&envelope("192.0.2.1:1025", "10.0.0.2:5061"), b"X", &mut out).unwrap();
        let chunk = |kind: u8, value: &[u8]| {
            let mut text = vec![0, 0, 0, kind, 0, 6 + value.len() as u8];
            text.extend_from_slice(value);
            text
        };
        let expected = [
            b"HEP3\x00\x78".to_vec(),
            chunk(1, &[2]),
            chunk(3, &[192, 0, 2, 1]),
            chunk(4, &[10, 0, 0, 2]),
            chunk(2, &[6]),
            chunk(7, &[4, 1]),
            chunk(8, &[0x13, 0xc5]),
            chunk(9, &1_790_000_000_u32.to_be_bytes()),
            chunk(10, &123_000_u32.to_be_bytes()),
            chunk(11, &[1]),
            chunk(12, &[0, 0, 0, 7]),
            chunk(19, b"edge1"),
            chunk(17, b"a@b"),
            chunk(15, b"X"),
        ]
        .concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn both_families_are_read_back() {
        let mut out = Vec::new();
        write(
            &envelope("[2001:db8::1]:1", "[2001:db8::2]:2"),
            b"X",
            &mut out,
        )
        .unwrap();
        let chunks = read(&out);
        assert_eq!(chunks[&1], [10]);
        assert_eq!((chunks[&5].len(), chunks[&6][15]), (16, 2));
        assert!(!chunks.contains_key(&3));
        write(&envelope("192.0.2.1:1", "192.0.2.2:2"), b"X", &mut out).unwrap();
        assert!(!read(&out).contains_key(&5));
    }

    #[test]
    fn the_longest_message_fits_and_one_byte_more_does_not() {
        let mut out = Vec::new();
        let envelope = envelope("192.0.2.1:1", "192.0.2.2:2");
        write(&envelope, b"", &mut out).unwrap();
        let room = DATAGRAM_MAX - out.len();
        write(&envelope, &vec![b'x'; room], &mut out).unwrap();
        assert_eq!(read(&out)[&15].len(), room);
        assert_eq!(
            write(&envelope, &vec![b'x'; room + 1], &mut out),
            Err(TooLong)
        );
    }

    #[test]
    fn a_long_name_is_cut() {
        let (mut out, long) = (Vec::new(), "n".repeat(1000));
        let envelope = Envelope {
            node: &long,
            call_id: long.as_bytes(),
            ..envelope("192.0.2.1:1", "192.0.2.2:2")
        };
        write(&envelope, b"X", &mut out).unwrap();
        let chunks = read(&out);
        assert_eq!((chunks[&17].len(), chunks[&19].len()), (255, 255));
    }
}

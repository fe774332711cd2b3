//! What stands in front of a payload on its way to a client: written into the headroom of the buffer that received it.
//!
//! ```text
//!  headroom ────────────────────────────┐ payload ────────┐ tailroom
//!                        │ number │ len │ …               │ (padding over TCP)      ChannelData, 4 bytes
//!  │ STUN header 20 │ XOR-PEER-ADDRESS 12 or 24 │ DATA 4  │ … │ padding             Data indication, 36 or 48 bytes
//! ```

use std::net::{IpAddr, SocketAddr};

use super::five_tuple::Transport;
use crate::stun::attribute::{FAMILY_IPV4, FAMILY_IPV6, kind, toggle};
use crate::stun::message::{Class, HEADER_LEN, MAGIC_COOKIE, Method, Transaction};

/// Bytes that a receive buffer keeps free in front of a datagram.
pub const HEADROOM: usize = 64;
/// Bytes that it keeps free behind.
pub const TAILROOM: usize = 4;

/// How a payload reaches a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// ChannelData: the client gave the peer this number.
    Channel(u16),
    /// A Data indication that names the peer.
    Data {
        /// The peer as the client knows it.
        peer: SocketAddr,
        /// Makes the transaction id differ from the one before.
        serial: u64,
    },
}

impl Header {
    /// Bytes in front of the payload.
    #[must_use]
    pub const fn front_len(self) -> usize {
        match self {
            Self::Channel(_) => CHANNEL_HEADER_LEN,
            Self::Data { peer, .. } => HEADER_LEN + 4 + address_len(peer) + 4,
        }
    }

    /// Bytes of padding behind a payload of `len` bytes: attributes always have it, ChannelData on a stream only.
    #[must_use]
    pub const fn padding(self, len: usize, transport: Transport) -> usize {
        match (self, transport) {
            (Self::Channel(_), Transport::Udp) => 0,
            (Self::Channel(_), Transport::Tcp) | (Self::Data { .. }, _) => {
                len.next_multiple_of(4) - len
            }
        }
    }

    /// Writes the header for a payload of `len` bytes into `front`, which is as long as [`Header::front_len`] says.
    pub fn write(self, front: &mut [u8], len: u16) {
        match self {
            Self::Channel(number) => {
                front[..2].copy_from_slice(&number.to_be_bytes());
                front[2..].copy_from_slice(&len.to_be_bytes());
            }
            Self::Data { peer, serial } => write_data(front, len, peer, serial),
        }
    }
}

fn write_data(front: &mut [u8], len: u16, peer: SocketAddr, serial: u64) {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&MAGIC_COOKIE);
    id[8..].copy_from_slice(&serial.to_be_bytes());
    let address_len = address_len(peer);
    let total = 4 + address_len + 4 + usize::from(len).next_multiple_of(4);
    front[..2].copy_from_slice(&Method::Data.kind(Class::Indication).to_be_bytes());
    front[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    front[4..HEADER_LEN].copy_from_slice(&id);
    let attributes = &mut front[HEADER_LEN..];
    attributes[..2].copy_from_slice(&kind::XOR_PEER_ADDRESS.to_be_bytes());
    attributes[2..4].copy_from_slice(&(address_len as u16).to_be_bytes());
    write_address(
        &mut attributes[4..4 + address_len],
        toggle(peer, Transaction(id)),
    );
    let data = &mut attributes[4 + address_len..];
    data[..2].copy_from_slice(&kind::DATA.to_be_bytes());
    data[2..].copy_from_slice(&len.to_be_bytes());
}

fn write_address(value: &mut [u8], address: SocketAddr) {
    value[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            (value[0], value[1]) = (0, FAMILY_IPV4);
            value[4..].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            (value[0], value[1]) = (0, FAMILY_IPV6);
            value[4..].copy_from_slice(&ip.octets());
        }
    }
}

const fn address_len(address: SocketAddr) -> usize {
    if address.is_ipv4() { 8 } else { 20 }
}

const CHANNEL_HEADER_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::fields::Fields;
    use crate::stun::message::Message;

    #[test]
    fn a_data_indication_around_a_payload_is_a_lawful_message() {
        for peer in ["192.0.2.1:7000", "[2001:db8::9]:1"] {
            let peer: SocketAddr = peer.parse().expect("an address");
            for payload in [&b""[..], b"a", b"four", b"seven!!"] {
                let header = Header::Data { peer, serial: 7 };
                assert!(
                    header.front_len() <= HEADROOM
                        && header.padding(payload.len(), Transport::Udp) <= TAILROOM
                );
                let mut bytes = vec![0; header.front_len()];
                header.write(&mut bytes, payload.len() as u16);
                bytes.extend_from_slice(payload);
                bytes.resize(
                    bytes.len() + header.padding(payload.len(), Transport::Udp),
                    0,
                );
                let fields = Fields::read(Message::parse(&bytes).expect("lawful"));
                assert_eq!((fields.peer, fields.data), (Some(peer), Some(payload)));
            }
        }
    }

    #[test]
    fn channel_data_is_filled_up_on_a_stream_only() {
        let header = Header::Channel(0x4001);
        let mut bytes = [0; 4];
        header.write(&mut bytes, 5);
        assert_eq!(bytes, [0x40, 1, 0, 5]);
        assert_eq!(
            (
                header.padding(5, Transport::Udp),
                header.padding(5, Transport::Tcp)
            ),
            (0, 3)
        );
    }
}

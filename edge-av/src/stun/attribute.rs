//! Attributes: their numbers, walking over them, and the two forms of an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::{Malformed, Transaction};

/// Attribute numbers (RFC 8489 §18.3, RFC 8656 §18). Below 0x8000 a receiver must understand them.
pub mod kind {
    #![expect(missing_docs, reason = "each name is the attribute's name in the RFC")]
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const CHANNEL_NUMBER: u16 = 0x000C;
    pub const LIFETIME: u16 = 0x000D;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const EVEN_PORT: u16 = 0x0018;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const FINGERPRINT: u16 = 0x8028;
}

/// First number that a receiver may skip when it does not know it.
pub const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// One attribute as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number.
    pub kind: u16,
    /// Its value without padding.
    pub value: &'a [u8],
    /// Where its header begins, counted from the first attribute.
    pub at: usize,
}

/// Walks over attributes whose lengths have been checked.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether every attribute ends, with its padding, inside `bytes`.
    pub(super) fn check(bytes: &[u8]) -> Result<(), Malformed> {
        let mut rest = bytes;
        while let [_, _, high, low, behind @ ..] = rest {
            let padded = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
            rest = behind.get(padded..).ok_or(Malformed::AttributeOverrun)?;
        }
        Ok(())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let [k1, k2, l1, l2, rest @ ..] = self.bytes.get(self.at..)? else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([*l1, *l2]));
        let value = rest.get(..len)?;
        let at = self.at;
        self.at += 4 + len.next_multiple_of(4);
        Some(Attribute {
            kind: u16::from_be_bytes([*k1, *k2]),
            value,
            at,
        })
    }
}

/// Reads an address that is obfuscated with the transaction (RFC 8489 §14.2).
#[must_use]
pub fn read_xor_address(value: &[u8], transaction: Transaction) -> Option<SocketAddr> {
    read_address(value).map(|plain| toggle(plain, transaction))
}

/// Reads an address in the clear (RFC 8489 §14.1).
#[must_use]
pub fn read_address(value: &[u8]) -> Option<SocketAddr> {
    match *value {
        [_, FAMILY_IPV4, p1, p2, a, b, c, d] => Some(SocketAddr::from((
            Ipv4Addr::new(a, b, c, d),
            u16::from_be_bytes([p1, p2]),
        ))),
        [_, FAMILY_IPV6, p1, p2, ref rest @ ..] => {
            let octets: [u8; 16] = rest.try_into().ok()?;
            Some(SocketAddr::from((
                Ipv6Addr::from(octets),
                u16::from_be_bytes([p1, p2]),
            )))
        }
        _ => None,
    }
}

/// Obfuscation is its own inverse.
pub(crate) fn toggle(address: SocketAddr, Transaction(id): Transaction) -> SocketAddr {
    let port = address.port() ^ u16::from_be_bytes([id[0], id[1]]);
    let ip = match address.ip() {
        IpAddr::V4(ip) => {
            let mask = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ mask))
        }
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ u128::from_be_bytes(id))),
    };
    SocketAddr::new(ip, port)
}

/// Family octet of an IPv4 address (RFC 8489 §14.1).
pub const FAMILY_IPV4: u8 = 1;
/// Family octet of an IPv6 address.
pub const FAMILY_IPV6: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn obfuscation_is_its_own_inverse(ip in any::<[u8; 16]>(), v4 in any::<bool>(), port in any::<u16>(), id in any::<[u8; 16]>()) {
            let ip = if v4 { IpAddr::from([ip[0], ip[1], ip[2], ip[3]]) } else { IpAddr::from(ip) };
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(toggle(toggle(address, Transaction(id)), Transaction(id)), address);
        }
    }

    #[test]
    fn an_address_of_the_wrong_length_is_none() {
        assert_eq!(read_address(&[0, 1, 0, 1, 1, 2, 3]), None);
        assert_eq!(read_address(&[0, 2, 0, 1, 1, 2, 3, 4]), None);
        assert_eq!(read_address(&[0, 3, 0, 1, 1, 2, 3, 4]), None);
        assert_eq!(
            read_address(&[0, 1, 0, 1, 1, 2, 3, 4]),
            Some("1.2.3.4:1".parse().expect("an address"))
        );
    }
}

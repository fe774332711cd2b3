//! Builds a STUN message from its front to its end.

use std::net::{IpAddr, SocketAddr};

use super::attribute::{self, FAMILY_IPV4, FAMILY_IPV6, kind};
use super::integrity::{self, Algorithm, Key};
use super::message::{Class, HEADER_LEN, Method, Transaction};

/// A message under construction; the length field is right after each step.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    transaction: Transaction,
}

impl Writer {
    /// An empty message.
    #[must_use]
    pub fn new(method: Method, class: Class, transaction: Transaction) -> Self {
        let mut bytes = Vec::with_capacity(TYPICAL_LEN);
        bytes.extend_from_slice(&method.kind(class).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&transaction.0);
        Self { bytes, transaction }
    }

    /// Adds one attribute and its padding.
    ///
    /// # Panics
    /// Where the message would outgrow its 16-bit length: what this server writes is bounded far below by its
    /// configuration, so that is a fault of the caller and not of anything received.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len()).expect("an attribute is shorter than 64 KiB");
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let total =
            u16::try_from(self.bytes.len() - HEADER_LEN).expect("a message is shorter than 64 KiB");
        self.bytes[2..4].copy_from_slice(&total.to_be_bytes());
        self
    }

    /// Adds an address in the clear.
    #[must_use]
    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        let port = address.port().to_be_bytes();
        match address.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                self.attribute(kind, &[0, FAMILY_IPV4, port[0], port[1], a, b, c, d])
            }
            IpAddr::V6(ip) => {
                let mut value = [0; 20];
                (value[1], value[2], value[3]) = (FAMILY_IPV6, port[0], port[1]);
                value[4..].copy_from_slice(&ip.octets());
                self.attribute(kind, &value)
            }
        }
    }

    /// Adds an address obfuscated with the transaction.
    #[must_use]
    pub fn xor_address(self, kind: u16, address: SocketAddr) -> Self {
        let hidden = attribute::toggle(address, self.transaction);
        self.address(kind, hidden)
    }

    /// Adds ERROR-CODE without words: what is not sent cannot amplify.
    #[must_use]
    pub fn error_code(self, code: u16) -> Self {
        let (hundreds, rest) = ((code / 100) as u8, (code % 100) as u8);
        self.attribute(kind::ERROR_CODE, &[0, 0, hundreds, rest])
    }

    /// Adds the MAC over everything so far.
    #[must_use]
    pub fn integrity(self, algorithm: Algorithm, key: &Key) -> Self {
        let len = algorithm.full_len();
        let tag = key.mac(algorithm, &self.bytes, self.bytes.len(), len);
        let kind = match algorithm {
            Algorithm::Sha1 => kind::MESSAGE_INTEGRITY,
            Algorithm::Sha256 => kind::MESSAGE_INTEGRITY_SHA256,
        };
        self.attribute(kind, &tag.as_ref()[..len])
    }

    /// Adds the checksum; nothing may follow it.
    #[must_use]
    pub fn fingerprint(self) -> Self {
        let crc = integrity::fingerprint(&self.bytes, self.bytes.len());
        self.attribute(kind::FINGERPRINT, &crc.to_be_bytes())
    }

    /// The message.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Room for any answer of this server in one allocation.
const TYPICAL_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::message::Message;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            attributes in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            id in any::<[u8; 16]>(),
        ) {
            let mut writer = Writer::new(Method::Allocate, Class::Success, Transaction(id));
            for (kind, value) in &attributes {
                writer = writer.attribute(*kind, value);
            }
            let bytes = writer.finish();
            let message = Message::parse(&bytes).expect("our own message is lawful");
            prop_assert_eq!(message.transaction(), Transaction(id));
            let read: Vec<_> = message.attributes().map(|a| (a.kind, a.value.to_vec())).collect();
            prop_assert_eq!(read, attributes);
        }
    }
}

//! What the attributes of a request mean: each at most once, only those that the MAC covers.

use std::net::SocketAddr;

use super::attribute::{Attribute, COMPREHENSION_OPTIONAL, kind, read_xor_address};
use super::integrity::{self, Algorithm, Key};
use super::message::{Era, HEADER_LEN, Message};

/// The attributes of one request or indication.
///
/// Of an attribute that is repeated the first counts, and what follows the MAC is not read (RFC 8489 §14, §14.5).
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: Message<'a>,
    /// USERNAME.
    pub username: Option<&'a [u8]>,
    /// REALM.
    pub realm: Option<&'a [u8]>,
    /// NONCE.
    pub nonce: Option<&'a [u8]>,
    /// LIFETIME, in seconds.
    pub lifetime: Option<u32>,
    /// REQUESTED-TRANSPORT: a protocol number of IP.
    pub transport: Option<u8>,
    /// REQUESTED-ADDRESS-FAMILY.
    pub family: Option<u8>,
    /// EVEN-PORT: whether the port above is to be kept too.
    pub even_port: Option<bool>,
    /// CHANNEL-NUMBER.
    pub channel: Option<u16>,
    /// The first XOR-PEER-ADDRESS.
    pub peer: Option<SocketAddr>,
    /// DATA.
    pub data: Option<&'a [u8]>,
    /// The MAC, the stronger one if there are two.
    pub proof: Option<Proof<'a>>,
    /// FINGERPRINT: whether it is right.
    pub fingerprint: Option<bool>,
    /// Attributes that must be understood and are not.
    pub unknown: Unknown,
    /// A known attribute has a value of the wrong shape.
    pub misshapen: bool,
}

/// A MAC as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// Which MAC it is.
    pub algorithm: Algorithm,
    at: usize,
    mac: &'a [u8],
}

/// The first few attribute numbers that we do not know; enough to tell the sender why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    kinds: [u16; UNKNOWN_MAX],
    len: usize,
}

impl<'a> Fields<'a> {
    /// Reads a message once.
    #[must_use]
    pub fn read(message: Message<'a>) -> Self {
        let mut fields = Self {
            message,
            username: None,
            realm: None,
            nonce: None,
            lifetime: None,
            transport: None,
            family: None,
            even_port: None,
            channel: None,
            peer: None,
            data: None,
            proof: None,
            fingerprint: None,
            unknown: Unknown::default(),
            misshapen: false,
        };
        for attribute in message.attributes() {
            fields.take(attribute);
        }
        fields
    }

    /// Every XOR-PEER-ADDRESS that the MAC covers; `None` for one that cannot be read.
    pub fn peers(&self) -> impl Iterator<Item = Option<SocketAddr>> + use<'a> {
        let (transaction, end) = (self.message.transaction(), self.covered());
        self.message
            .attributes()
            .take_while(move |attribute| HEADER_LEN + attribute.at < end)
            .filter(|attribute| attribute.kind == kind::XOR_PEER_ADDRESS)
            .map(move |attribute| read_xor_address(attribute.value, transaction))
    }

    /// Whether the message carries a MAC and `key` made it.
    #[must_use]
    pub fn proven_by(&self, key: &Key) -> bool {
        self.proof.is_some_and(|proof| {
            key.proves(proof.algorithm, self.message.bytes(), proof.at, proof.mac)
        })
    }

    /// Where the part that the MAC covers ends.
    fn covered(&self) -> usize {
        self.proof.map_or(usize::MAX, |proof| proof.at)
    }

    fn take(&mut self, attribute: Attribute<'a>) {
        let (value, at) = (attribute.value, HEADER_LEN + attribute.at);
        match attribute.kind {
            // Both MACs may follow each other, and the checksum may follow both.
            kind::MESSAGE_INTEGRITY => self.take_proof(Algorithm::Sha1, at, value),
            kind::MESSAGE_INTEGRITY_SHA256 => self.take_proof(Algorithm::Sha256, at, value),
            kind::FINGERPRINT => self.fingerprint = Some(self.fingerprint_is_right(at, value)),
            _ if self.proof.is_some() => {}
            kind::USERNAME => first(&mut self.username, Some(value), &mut self.misshapen),
            kind::REALM => first(&mut self.realm, Some(value), &mut self.misshapen),
            kind::NONCE => first(&mut self.nonce, Some(value), &mut self.misshapen),
            kind::DATA => first(&mut self.data, Some(value), &mut self.misshapen),
            kind::LIFETIME => first(&mut self.lifetime, word(value), &mut self.misshapen),
            kind::REQUESTED_TRANSPORT => first(
                &mut self.transport,
                word(value).map(top),
                &mut self.misshapen,
            ),
            kind::REQUESTED_ADDRESS_FAMILY => {
                first(&mut self.family, word(value).map(top), &mut self.misshapen);
            }
            kind::EVEN_PORT => first(
                &mut self.even_port,
                value.first().map(|flags| flags & RESERVE != 0),
                &mut self.misshapen,
            ),
            kind::CHANNEL_NUMBER => {
                first(
                    &mut self.channel,
                    word(value).map(|word| (word >> 16) as u16),
                    &mut self.misshapen,
                );
            }
            kind::XOR_PEER_ADDRESS => {
                let peer = read_xor_address(value, self.message.transaction());
                first(&mut self.peer, peer, &mut self.misshapen);
            }
            kind::MAPPED_ADDRESS
            | kind::ERROR_CODE
            | kind::UNKNOWN_ATTRIBUTES
            | kind::XOR_RELAYED_ADDRESS
            | kind::XOR_MAPPED_ADDRESS => {}
            // Clients of RFC 3489 send it with both flags clear, which asks for what we do anyway.
            CHANGE_REQUEST if self.message.era() == Era::Classic && word(value) == Some(0) => {}
            COMPREHENSION_OPTIONAL.. => {}
            other => self.unknown.push(other),
        }
    }

    fn take_proof(&mut self, algorithm: Algorithm, at: usize, mac: &'a [u8]) {
        match self.proof {
            Some(earlier) if earlier.algorithm == algorithm || algorithm == Algorithm::Sha1 => {}
            None | Some(_) => self.proof = Some(Proof { algorithm, at, mac }),
        }
    }

    /// It has to be the last attribute, over all that stands in front of it.
    fn fingerprint_is_right(&self, at: usize, value: &[u8]) -> bool {
        let bytes = self.message.bytes();
        at + 8 == bytes.len() && word(value) == Some(integrity::fingerprint(bytes, at))
    }
}

impl Unknown {
    fn push(&mut self, kind: u16) {
        if let Some(slot) = self.kinds.get_mut(self.len) {
            *slot = kind;
            self.len += 1;
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of UNKNOWN-ATTRIBUTES.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.kinds[..self.len]
            .iter()
            .flat_map(|kind| kind.to_be_bytes())
            .collect()
    }
}

/// Keeps the first value; `None` is a value of the wrong shape.
fn first<T>(field: &mut Option<T>, value: Option<T>, misshapen: &mut bool) {
    match value {
        None => *misshapen = true,
        Some(value) => {
            field.get_or_insert(value);
        }
    }
}

fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Protocol and family stand in the first of four bytes; the others are reserved.
const fn top(word: u32) -> u8 {
    (word >> 24) as u8
}

/// CHANGE-REQUEST of RFC 3489 §11.2.4.
const CHANGE_REQUEST: u16 = 0x0003;
/// The R bit of EVEN-PORT (RFC 8656 §18.7).
const RESERVE: u8 = 0x80;
const UNKNOWN_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::message::{Class, Method, Transaction};
    use crate::stun::writer::Writer;

    const ID: Transaction = Transaction([
        0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ]);

    fn writer() -> Writer {
        Writer::new(Method::Allocate, Class::Request, ID)
    }

    fn fields(bytes: &[u8]) -> Fields<'_> {
        Fields::read(Message::parse(bytes).expect("a lawful message"))
    }

    #[test]
    fn nothing_behind_the_mac_is_read() {
        let key = Key::long_term(b"u", b"r", b"p");
        let peer = "192.0.2.1:7".parse().expect("an address");
        let bytes = writer()
            .attribute(kind::USERNAME, b"u")
            .integrity(Algorithm::Sha1, &key)
            .attribute(kind::LIFETIME, &[0; 4])
            .xor_address(kind::XOR_PEER_ADDRESS, peer)
            .attribute(0x7777, b"")
            .finish();
        let read = fields(&bytes);
        assert!(read.proven_by(&key));
        assert_eq!(
            (read.lifetime, read.peer, read.peers().count()),
            (None, None, 0)
        );
        assert!(read.unknown.is_empty());
    }

    #[test]
    fn the_stronger_mac_counts() {
        let (right, wrong) = (
            Key::long_term(b"u", b"r", b"p"),
            Key::long_term(b"u", b"r", b"q"),
        );
        let both = |sha1: &Key, sha256: &Key| {
            writer()
                .integrity(Algorithm::Sha1, sha1)
                .integrity(Algorithm::Sha256, sha256)
                .fingerprint()
                .finish()
        };
        assert!(fields(&both(&wrong, &right)).proven_by(&right));
        assert!(!fields(&both(&right, &wrong)).proven_by(&right));
        assert_eq!(fields(&both(&right, &right)).fingerprint, Some(true));
    }

    #[test]
    fn the_first_of_two_counts_and_a_wrong_length_is_seen() {
        let bytes = writer()
            .attribute(kind::LIFETIME, &[0, 0, 0, 1])
            .attribute(kind::LIFETIME, &[0, 0, 0, 2])
            .attribute(kind::CHANNEL_NUMBER, &[0x40])
            .finish();
        let read = fields(&bytes);
        assert_eq!(
            (read.lifetime, read.channel, read.misshapen),
            (Some(1), None, true)
        );
    }

    #[test]
    fn what_must_be_understood_is_listed_up_to_a_bound() {
        let mut request = writer().attribute(0x8001, b"skipped");
        for kind in 0x7000..0x7020 {
            request = request.attribute(kind, b"");
        }
        let bytes = request.finish();
        let listed = fields(&bytes).unknown.to_bytes();
        assert_eq!(
            (listed.len(), &listed[..4]),
            (2 * UNKNOWN_MAX, &[0x70, 0, 0x70, 1][..])
        );
    }

    #[test]
    fn a_fingerprint_that_is_wrong_or_not_last_is_false() {
        let mut bytes = writer().fingerprint().finish();
        assert_eq!(fields(&bytes).fingerprint, Some(true));
        *bytes.last_mut().expect("not empty") ^= 1;
        assert_eq!(fields(&bytes).fingerprint, Some(false));
        let bytes = writer().fingerprint().attribute(0x8022, b"late").finish();
        assert_eq!(fields(&bytes).fingerprint, Some(false));
    }
}

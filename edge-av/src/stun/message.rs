//! A received STUN message: bytes whose lengths have been checked once.

use super::attribute::Attributes;

/// Bytes of the header, which is all that an empty message has (RFC 8489 §5).
pub const HEADER_LEN: usize = 20;
/// Bytes 4..8 of every message since RFC 5389.
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// What is copied from a request into its answer: the cookie (or, in RFC 3489, four more random bytes) and the
/// transaction id. Addresses are obfuscated with exactly these sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transaction(pub [u8; 16]);

/// The two bits that tell requests from answers (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// An answer that did what was asked.
    Success,
    /// An answer that refuses.
    Error,
}

/// The twelve bits that say what is asked (RFC 8489 §18.2, RFC 8656 §17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// 0x001: which address do you see?
    Binding,
    /// 0x003: give me a relayed address.
    Allocate,
    /// 0x004: keep it, or end it.
    Refresh,
    /// 0x006: a payload for a peer.
    Send,
    /// 0x007: a payload from a peer.
    Data,
    /// 0x008: let this peer through.
    CreatePermission,
    /// 0x009: give this peer a number.
    ChannelBind,
    /// One that this server does not speak.
    Other(u16),
}

/// Which paper the sender follows; the cookie tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// RFC 5389 and later.
    Cookie,
    /// RFC 3489.
    Classic,
}

/// Why bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer than twenty bytes.
    HeaderCut,
    /// The two top bits are not zero.
    NotStun,
    /// The length field is no multiple of four, or not what arrived.
    Length,
    /// An attribute is longer than what is left of the message.
    AttributeOverrun,
}

/// A message whose header and attribute lengths agree with the bytes that hold them.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks every length; afterwards nothing can overrun.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let [first, _, length @ ..] = bytes else {
            return Err(Malformed::HeaderCut);
        };
        if bytes.len() < HEADER_LEN {
            return Err(Malformed::HeaderCut);
        }
        if first & 0xC0 != 0 {
            return Err(Malformed::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length % 4 != 0 || length != bytes.len() - HEADER_LEN {
            return Err(Malformed::Length);
        }
        Attributes::check(&bytes[HEADER_LEN..])?;
        Ok(Self { bytes })
    }

    /// What this message is to its receiver.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.kind() & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// What is asked or answered.
    #[must_use]
    pub fn method(&self) -> Method {
        let kind = self.kind();
        // The class bits stand between the method's (RFC 8489 figure 3).
        Method::from_bits((kind & 0x000F) | ((kind & 0x00E0) >> 1) | ((kind & 0x3E00) >> 2))
    }

    /// Whether the magic cookie is there.
    #[must_use]
    pub fn era(&self) -> Era {
        if self.bytes[4..8] == MAGIC_COOKIE {
            Era::Cookie
        } else {
            Era::Classic
        }
    }

    /// The sixteen bytes that an answer repeats.
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[4..HEADER_LEN]);
        Transaction(id)
    }

    /// All attributes in their order, those behind MESSAGE-INTEGRITY too.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(&self.bytes[HEADER_LEN..])
    }

    /// The message as it arrived.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }
}

impl Method {
    const fn from_bits(bits: u16) -> Self {
        match bits {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            other => Self::Other(other),
        }
    }

    /// The method's number.
    #[must_use]
    pub const fn bits(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
            Self::Other(bits) => bits & 0x0FFF,
        }
    }

    /// The 14-bit message type of this method in `class`.
    #[must_use]
    pub const fn kind(self, class: Class) -> u16 {
        let bits = self.bits();
        let method = (bits & 0x000F) | ((bits & 0x0070) << 1) | ((bits & 0x0F80) << 2);
        method
            | match class {
                Class::Request => 0x0000,
                Class::Indication => 0x0010,
                Class::Success => 0x0100,
                Class::Error => 0x0110,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_length_field_must_be_what_arrived() {
        let mut request = [0_u8; 24];
        request[1] = 1;
        assert_eq!(Message::parse(&request).err(), Some(Malformed::Length));
        request[3] = 4;
        assert!(Message::parse(&request).is_ok());
        request[3] = 3;
        assert_eq!(
            Message::parse(&request[..23]).err(),
            Some(Malformed::Length)
        );
        assert_eq!(
            Message::parse(&request[..19]).err(),
            Some(Malformed::HeaderCut)
        );
        request[0] = 0x40;
        assert_eq!(Message::parse(&request).err(), Some(Malformed::NotStun));
    }

    #[test]
    fn an_attribute_may_not_reach_behind_the_end() {
        let mut request = [0_u8; 28];
        (request[1], request[3]) = (1, 8);
        request[20..24].copy_from_slice(&[0, 6, 0, 5]);
        assert_eq!(
            Message::parse(&request).err(),
            Some(Malformed::AttributeOverrun)
        );
        request[23] = 4;
        assert!(Message::parse(&request).is_ok());
    }

    proptest! {
        #[test]
        fn type_bits_are_put_together_as_they_are_taken_apart(bits in 0_u16..0x1000, class in 0_usize..4) {
            let class = [Class::Request, Class::Indication, Class::Success, Class::Error][class];
            let method = Method::from_bits(bits);
            let mut bytes = [0; HEADER_LEN];
            bytes[..2].copy_from_slice(&method.kind(class).to_be_bytes());
            let message = Message::parse(&bytes).expect("an empty message is lawful");
            prop_assert_eq!((message.method(), message.class()), (method, class));
        }

        #[test]
        fn no_bytes_bring_the_parser_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::parse(&bytes) {
                let walked: usize = message.attributes().map(|a| 4 + a.value.len().next_multiple_of(4)).sum();
                prop_assert_eq!(walked, bytes.len() - HEADER_LEN);
            }
        }
    }
}

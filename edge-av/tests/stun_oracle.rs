//! A second opinion: stun-rs reads what we write, we read what it writes, and whatever it makes of damaged bytes, we make
//! the same of them.

use std::net::SocketAddr;

use edge_av::stun::attribute::{kind, read_xor_address};
use edge_av::stun::fields::Fields;
use edge_av::stun::integrity::{Algorithm, Key};
use edge_av::stun::message::{Class, MAGIC_COOKIE, Message, Method, Transaction};
use edge_av::stun::writer::Writer;
use proptest::prelude::*;
use stun_rs::attributes::stun::{
    Fingerprint, MessageIntegrity, Nonce, Realm, UserName, XorMappedAddress,
};
use stun_rs::methods::BINDING;
use stun_rs::{
    DecoderContextBuilder, HMACKey, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder,
    StunMessage, StunMessageBuilder,
};

const PASSWORD: &str = "PeTqDoj2CZLZBWGrAscPWF2fb9c=";

/// What both readers are asked about a message.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    username: Option<Vec<u8>>,
    realm: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    mapped: Option<SocketAddr>,
}

/// Ours; `None` unless checksum and MAC are there and right.
fn we_see(bytes: &[u8], key: &Key) -> Option<Seen> {
    let message = Message::parse(bytes).ok()?;
    let fields = Fields::read(message);
    let whole = fields.fingerprint == Some(true) && fields.proven_by(key);
    whole.then(|| seen(message, &fields))
}

fn seen(message: Message<'_>, fields: &Fields<'_>) -> Seen {
    let mapped = message
        .attributes()
        .find(|found| found.kind == kind::XOR_MAPPED_ADDRESS);
    Seen {
        username: fields.username.map(<[u8]>::to_vec),
        realm: fields.realm.map(<[u8]>::to_vec),
        nonce: fields.nonce.map(<[u8]>::to_vec),
        mapped: mapped.and_then(|found| read_xor_address(found.value, message.transaction())),
    }
}

fn they_decode(bytes: &[u8], key: Option<&str>) -> Option<StunMessage> {
    let decoder = MessageDecoderBuilder::default();
    let decoder = match key {
        None => decoder.build(),
        Some(password) => {
            let key = HMACKey::new_short_term(password).expect("a password");
            decoder
                .with_context(
                    DecoderContextBuilder::default()
                        .with_key(key)
                        .with_validation()
                        .build(),
                )
                .build()
        }
    };
    let (message, len) = decoder.decode(bytes).ok()?;
    (len == bytes.len()).then_some(message)
}

fn they_saw(message: &StunMessage) -> Seen {
    let text = |text: &str| text.as_bytes().to_vec();
    Seen {
        username: message
            .get::<UserName>()
            .and_then(|a| a.as_user_name().ok())
            .map(|a| text(a.as_ref())),
        realm: message
            .get::<Realm>()
            .and_then(|a| a.as_realm().ok())
            .map(|a| text(a.as_str())),
        nonce: message
            .get::<Nonce>()
            .and_then(|a| a.as_nonce().ok())
            .map(|a| text(a.as_str())),
        mapped: message
            .get::<XorMappedAddress>()
            .and_then(|a| a.as_xor_mapped_address().ok())
            .map(|a| *a.socket_address()),
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    prop_oneof![v4, v6]
}

/// A message of ours with everything that both know.
fn ours(id: [u8; 12], username: &str, mapped: SocketAddr, sign: bool) -> Vec<u8> {
    let mut transaction = [0; 16];
    transaction[..4].copy_from_slice(&MAGIC_COOKIE);
    transaction[4..].copy_from_slice(&id);
    let message = Writer::new(Method::Binding, Class::Request, Transaction(transaction))
        .attribute(kind::USERNAME, username.as_bytes())
        .attribute(kind::REALM, b"contoso.test")
        .attribute(kind::NONCE, b"f//499k954d6OL34")
        .xor_address(kind::XOR_MAPPED_ADDRESS, mapped);
    if sign {
        message
            .integrity(Algorithm::Sha1, &Key::from_bytes(PASSWORD.as_bytes()))
            .fingerprint()
            .finish()
    } else {
        message.finish()
    }
}

proptest! {
    #[test]
    fn they_read_what_we_write(id in any::<[u8; 12]>(), username in "[A-Za-z0-9+/=:]{1,80}", mapped in address()) {
        let bytes = ours(id, &username, mapped, true);
        let theirs = they_decode(&bytes, Some(PASSWORD)).map(|message| they_saw(&message));
        prop_assert_eq!(theirs, we_see(&bytes, &Key::from_bytes(PASSWORD.as_bytes())));
        prop_assert!(they_decode(&bytes, Some("another")).is_none());
    }

    #[test]
    fn we_read_what_they_write(username in "[A-Za-z0-9+/=:]{1,80}", mapped in address()) {
        let message = StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_attribute(UserName::new(&username).expect("plain text"))
            .with_attribute(Realm::new("contoso.test").expect("plain text"))
            .with_attribute(Nonce::new("f//499k954d6OL34").expect("plain text"))
            .with_attribute(XorMappedAddress::from(mapped))
            .with_attribute(MessageIntegrity::new(HMACKey::new_short_term(PASSWORD).expect("a password")))
            .with_attribute(Fingerprint::default())
            .build();
        let mut bytes = [0; 400];
        let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message).expect("it fits");
        let read = we_see(&bytes[..len], &Key::from_bytes(PASSWORD.as_bytes()));
        prop_assert_eq!(read, Some(they_saw(&message)));
    }

    /// Any change shows, to both.
    #[test]
    fn a_damaged_message_proves_nothing(username in "[a-z]{1,40}", mapped in address(), at in 0_usize..400, flip in 1_u8..=255) {
        let mut bytes = ours([7; 12], &username, mapped, true);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        prop_assert_eq!(we_see(&bytes, &Key::from_bytes(PASSWORD.as_bytes())), None);
    }

    /// Without checksum and MAC damage may pass; then both have to see the same.
    #[test]
    fn what_they_can_read_of_damaged_bytes_we_read_alike(
        username in "[a-z]{1,40}",
        mapped in address(),
        damage in proptest::collection::vec((20_usize..400, any::<u8>()), 1..4),
    ) {
        let mut bytes = ours([7; 12], &username, mapped, false);
        for (at, byte) in damage {
            let at = 20 + at % (bytes.len() - 20);
            bytes[at] = byte;
        }
        if let Some(theirs) = they_decode(&bytes, None) {
            let message = Message::parse(&bytes);
            prop_assert!(message.is_ok(), "they read {theirs:?}");
            let message = message.expect("just looked");
            prop_assert_eq!(seen(message, &Fields::read(message)), they_saw(&theirs));
        }
    }
}

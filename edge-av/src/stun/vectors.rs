//! The sample messages of RFC 5769: facts against which all of this module is held.

use super::attribute::{kind, read_xor_address};
use super::fields::Fields;
use super::integrity::Key;
use super::message::{Class, Message, Method};

/// §2.1, a request with a short-term credential.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
    002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020\
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
/// §2.2, an answer with an IPv4 address.
const ANSWER_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
/// §2.3, an answer with an IPv6 address.
const ANSWER_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9\
    00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";
/// §2.4, a request with a long-term credential.
const LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e\
    00060012e3839ee38388e383aae38383e382afe382b90000\
    0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700\
    00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";
const SHORT_TERM_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex")
    };
    digits.chunks(2).map(pair).collect()
}

#[test]
fn the_request_proves_its_sender() {
    let bytes = bytes(REQUEST);
    let message = Message::parse(&bytes).expect("a lawful message");
    assert_eq!(
        (message.class(), message.method()),
        (Class::Request, Method::Binding)
    );
    let fields = Fields::read(message);
    assert_eq!(fields.username, Some(&b"evtj:h6vY"[..]));
    assert_eq!(fields.fingerprint, Some(true));
    assert!(fields.proven_by(&Key::from_bytes(SHORT_TERM_PASSWORD)));
    assert!(!fields.proven_by(&Key::from_bytes(b"another")));
}

#[test]
fn the_answers_hold_their_addresses() {
    let cases = [
        (ANSWER_V4, "192.0.2.1:32853"),
        (ANSWER_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ];
    for (hex, address) in cases {
        let bytes = bytes(hex);
        let message = Message::parse(&bytes).expect("a lawful message");
        let mapped = message
            .attributes()
            .find(|a| a.kind == kind::XOR_MAPPED_ADDRESS)
            .expect("it is there");
        let read = read_xor_address(mapped.value, message.transaction());
        assert_eq!(read, Some(address.parse().expect("an address")));
        let fields = Fields::read(message);
        assert_eq!(fields.fingerprint, Some(true));
        assert!(fields.proven_by(&Key::from_bytes(SHORT_TERM_PASSWORD)));
    }
}

#[test]
fn the_long_term_key_is_bound_to_user_and_realm() {
    let bytes = bytes(LONG_TERM);
    let fields = Fields::read(Message::parse(&bytes).expect("a lawful message"));
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".as_bytes();
    assert_eq!(
        (fields.username, fields.realm),
        (Some(user), Some(&b"example.org"[..]))
    );
    assert!(fields.proven_by(&Key::long_term(user, b"example.org", b"TheMatrIX")));
    assert!(!fields.proven_by(&Key::long_term(user, b"example.com", b"TheMatrIX")));
}

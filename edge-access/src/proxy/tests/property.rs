//! Whatever comes in, nothing panics, and what goes out is one message as everybody else frames it.

use edge_common::sip::framer::{Framer, Limits, Opener, Step};
use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;
use proptest::prelude::*;

use super::world::{World, request, response};
use crate::proxy::token::FlowKey;

/// Who sends the spoilt message.
#[derive(Clone, Copy, Debug)]
enum Sender {
    Client,
    Partner,
    Director,
}

/// One change of the text: at a place, so many bytes out, these in.
type Change = (prop::sample::Index, usize, String);

fn change() -> impl Strategy<Value = Change> {
    let text = prop_oneof![
        "\\PC{0,3}",
        Just("\r\n".to_owned()),
        Just("\r\n ".to_owned()),
        Just("\r\nVia: SIP/2.0/TLS x\r\n".to_owned()),
        Just("\r\nContent-Length: 7\r\n".to_owned()),
        Just(",".to_owned()),
        Just("<sip:x@sip.contoso.test;lr>".to_owned()),
        Just(";proxy=replace".to_owned()),
        Just("\"".to_owned()),
    ];
    (any::<prop::sample::Index>(), 0usize..6, text)
}

fn spoil(text: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, out, put) in changes {
        let at = at.index(bytes.len() + 1);
        let end = (at + out).min(bytes.len());
        bytes.splice(at..end, put.bytes());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_that_is_sent_on_hides_a_second_message(
        sender in prop_oneof![Just(Sender::Client), Just(Sender::Partner), Just(Sender::Director)],
        is_response in any::<bool>(),
        changes in proptest::collection::vec(change(), 0..5),
    ) {
        let mut world = World::new();
        let (director, client) = (world.next_hop(0), world.promoted(0));
        let partner = world.partner(0, "sip.fabrikam.test", None);
        let (from, to, far_end) = match sender {
            Sender::Client => ("alice@contoso.test", "bob@contoso.test", client),
            Sender::Partner => ("carol@fabrikam.test", "bob@contoso.test", partner),
            Sender::Director => ("bob@contoso.test", "carol@fabrikam.test", director),
        };
        let uri = format!("sip:{to}");
        let contact = "Contact: <sip:alice@10.1.0.10:4000;transport=tls>;proxy=replace";
        let whole = request("INVITE", &uri, from, to, &[contact, "Route: <sip:sip.contoso.test;lr>"]);
        let text = if is_response { lead(&mut world, client, director) } else { whole };
        receive(&mut world, far_end, &spoil(&text, &changes));
        for flow in [director, client, partner] {
            while let Some(sent) = world.sent(flow) {
                assert_one_message(&sent);
            }
        }
    }
}

/// The Director's response to a request of the client.
fn lead(world: &mut World, client: FlowKey, director: FlowKey) -> String {
    let asked = request(
        "MESSAGE",
        "sip:bob@contoso.test",
        "alice@contoso.test",
        "bob@contoso.test",
        &[],
    );
    world.receive(client, asked);
    let inside = world.sent(director).expect("forwarded");
    response(&inside, "200 OK", &["Supported: a"])
}

fn receive(world: &mut World, on: FlowKey, bytes: &[u8]) {
    let mut framer = Framer::new(Opener::Remote, LIMITS);
    let mut at = 0;
    loop {
        at += match framer.next(&bytes[at..]) {
            Ok(Step::Message { len }) => {
                world.receive(on, &bytes[at..at + len]);
                len
            }
            Ok(Step::Skip { len } | Step::Ping { len } | Step::Pong { len }) => len,
            Ok(Step::NeedMore) | Err(_) => return,
        };
    }
}

fn assert_one_message(sent: &str) {
    let bytes = sent.as_bytes();
    let step = Framer::new(Opener::Remote, LIMITS).next(bytes);
    // Bytes that are no UTF-8 are longer in the text of the world.
    if !sent.contains(char::REPLACEMENT_CHARACTER) {
        assert_eq!(step, Ok(Step::Message { len: bytes.len() }), "{sent}");
    }
    let mut index = Index::new(999);
    assert!(Message::parse(bytes, &mut index).is_ok(), "{sent}");
}

const LIMITS: Limits = Limits {
    head: 64 * 1024,
    body: 64 * 1024,
};

//! What anybody can make the server do: little, and nothing that stays.

use super::*;
use proptest::prelude::*;

/// One request from nobody in particular; gives the answer.
fn probe(world: &mut World, from: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let before = world.to_clients.len();
    let from = FiveTuple {
        listener: UDP,
        client: addr(from),
    };
    world.client_sends(0, from, bytes);
    world.to_clients.get(before).map(|(_, bytes)| bytes.clone())
}

fn request(method: Method) -> Writer {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&MAGIC_COOKIE);
    Writer::new(method, Class::Request, Transaction(id))
}

#[test]
fn a_binding_answer_is_at_most_1_6_times_its_request_and_2_2_times_for_ipv6() {
    let mut world = World::usual();
    let bytes = request(Method::Binding).finish();
    let v4 = probe(&mut world, "203.0.113.1:4000", &bytes).expect("an answer");
    let v6 = probe(&mut world, "[2001:db8::1]:4000", &bytes).expect("an answer");
    assert!(v4.len() * 10 <= bytes.len() * 16, "{}", v4.len());
    assert!(v6.len() * 10 <= bytes.len() * 22, "{}", v6.len());
    let bytes = request(Method::Binding).fingerprint().finish();
    let answer = probe(&mut world, "203.0.113.1:4000", &bytes).expect("an answer");
    assert_eq!(
        Fields::read(Message::parse(&answer).expect("lawful")).fingerprint,
        Some(true)
    );
    assert!(answer.len() * 10 <= bytes.len() * 16);
}

#[test]
fn a_challenge_is_at_most_100_bytes() {
    let mut world = World::usual();
    assert_eq!(REALM.len(), 12);
    let bytes = request(Method::Allocate)
        .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .finish();
    let plain = probe(&mut world, "203.0.113.1:4000", &bytes).expect("a challenge");
    assert!(plain.len() <= 100, "{}", plain.len());
    let bytes = request(Method::Allocate)
        .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .fingerprint()
        .finish();
    let checked = probe(&mut world, "203.0.113.1:4000", &bytes).expect("a challenge");
    assert!(checked.len() <= 100, "{}", checked.len());
}

#[test]
fn a_bare_allocate_gets_nothing_and_is_counted() {
    let mut world = World::usual();
    assert_eq!(
        probe(
            &mut world,
            "203.0.113.1:4000",
            &request(Method::Allocate).finish()
        ),
        None
    );
    assert_eq!(world.drops, [Reason::BareAllocate]);
}

#[test]
fn answers_to_one_source_are_budgeted_and_other_sources_are_not_its_victims() {
    let limits = AvLimits {
        stranger_answers_per_second: 5,
        ..AvLimits::default()
    };
    let mut world = World::new(&Plan {
        limits,
        ..Plan::default()
    });
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    let bytes = request(Method::Binding).finish();
    let answers = |world: &mut World, from: &str| {
        (0..20)
            .filter(|_| probe(world, from, &bytes).is_some())
            .count()
    };
    assert_eq!(
        answers(&mut world, "203.0.113.1:9999"),
        4,
        "the challenge was the fifth"
    );
    assert_eq!(
        answers(&mut world, "203.0.113.1:4000"),
        20,
        "who holds an allocation is no stranger"
    );
    assert_eq!(answers(&mut world, "203.0.113.2:9999"), 5);
    assert_eq!(world.drops, [Reason::StrangerBudget; 31]);
    world.wait(Duration::from_secs(1));
    assert_eq!(answers(&mut world, "203.0.113.2:9999"), 5);
}

#[test]
fn a_flood_in_somebodys_name_reaches_neither_its_calls_nor_its_streams_nor_who_has_a_nonce() {
    let limits = AvLimits {
        stranger_answers_per_second: 5,
        ..AvLimits::default()
    };
    let mut world = World::new(&Plan {
        limits,
        ..Plan::default()
    });
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let mut bob = world.client(0, "203.0.113.1:4001", "bob");
    ann.relay(&mut world);
    bob.fetch_nonce(&mut world);
    for _ in 0..100 {
        probe(
            &mut world,
            "203.0.113.1:9999",
            &request(Method::Binding).finish(),
        );
    }
    assert!(world.drops.contains(&Reason::StrangerBudget));
    assert_eq!(ann.refresh(&mut world, 600).code, 0);
    bob.relay(&mut world);
    // A newcomer has to come by TCP.
    let stream = FiveTuple {
        listener: ListenerId(1),
        client: addr("203.0.113.1:4002"),
    };
    let before = world.to_clients.len();
    world.client_sends(0, stream, &request(Method::Binding).finish());
    assert_eq!(world.to_clients.len(), before + 1);
}

#[test]
fn a_client_of_rfc_3489_is_told_its_address_in_the_clear() {
    let mut world = World::usual();
    let mut bytes = vec![0, 1, 0, 8];
    bytes.extend([9; 16]);
    bytes.extend([0, 3, 0, 4, 0, 0, 0, 0]);
    let answer = probe(&mut world, "203.0.113.1:4000", &bytes).expect("an answer");
    assert_eq!(answer, b"\x01\x01\x00\x0c\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x00\x01\x00\x08\x00\x01\x0f\xa0\xcb\x00\x71\x01");
    // It may not have the answer sent from elsewhere.
    *bytes.last_mut().expect("not empty") = 4;
    let refused = probe(&mut world, "203.0.113.1:4000", &bytes).expect("an answer");
    assert_eq!(&refused[20..28], b"\x00\x09\x00\x04\x00\x00\x04\x14");
}

#[test]
fn an_attribute_that_must_be_understood_is_named() {
    let mut world = World::usual();
    let bytes = request(Method::Binding).attribute(0x7ABC, b"").finish();
    let answer = probe(&mut world, "203.0.113.1:4000", &bytes).expect("an answer");
    assert_eq!(
        &answer[20..],
        b"\x00\x09\x00\x04\x00\x00\x04\x14\x00\x0a\x00\x02\x7a\xbc\x00\x00"
    );
}

#[test]
fn other_protocols_are_recognised_and_dropped() {
    let mut world = World::usual();
    let mut ms = request(Method::Allocate)
        .attribute(0x000F, &[0x72, 0xC6, 0x4B, 0xC6])
        .finish();
    let mut send = ms.clone();
    (send[0], send[1]) = (0, 4);
    let mut bad_checksum = request(Method::Binding).fingerprint().finish();
    *bad_checksum.last_mut().expect("not empty") ^= 1;
    let answer = Writer::new(Method::Binding, Class::Success, Transaction([7; 16])).finish();
    let mut answer_with_cookie = answer.clone();
    answer_with_cookie[4..8].copy_from_slice(&MAGIC_COOKIE);
    let cases: [(&[u8], Reason); 9] = [
        (&ms, Reason::MsTurn),
        (&send, Reason::MsTurn),
        (&[0xFF, 0x10, 0, 0], Reason::MsMultiplexed),
        (&[0x16, 0xFE, 0xFD], Reason::Dtls),
        (&[0x80, 0, 0], Reason::UnknownProtocol),
        (&answer, Reason::UnknownProtocol),
        (&answer_with_cookie, Reason::Unexpected),
        (&bad_checksum, Reason::Fingerprint),
        (&[0x40, 0, 0, 0], Reason::NoAllocation),
    ];
    for (bytes, reason) in cases {
        assert_eq!(probe(&mut world, "203.0.113.1:4000", bytes), None);
        assert_eq!(world.drops.pop(), Some(reason), "{bytes:02x?}");
    }
    ms.truncate(26);
    assert_eq!(probe(&mut world, "203.0.113.1:4000", &ms), None);
    assert_eq!(world.drops.pop(), Some(Reason::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_leave_a_trace(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..20)) {
        let mut world = World::usual();
        for packet in &packets {
            probe(&mut world, "203.0.113.1:4000", packet);
            // The same bytes with a header that lets them further in.
            let mut inner = request(Method::Allocate).finish();
            inner.extend(packet);
            inner.truncate(20 + packet.len() / 4 * 4);
            let length = (inner.len() as u16 - 20).to_be_bytes();
            inner[2..4].copy_from_slice(&length);
            probe(&mut world, "203.0.113.1:4000", &inner);
        }
        prop_assert_eq!((world.allocations(), world.sockets.len(), world.shared.allocations.used()), (0, 0, 0));
        prop_assert!(world.shared.ports.v4.is_empty());
    }
}

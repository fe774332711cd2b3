//! Who gets an allocation, and with which code the others are refused.

use super::*;

#[test]
fn a_challenge_then_a_proof_then_a_relayed_address() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let answer = ann.allocate(&mut world);
    assert_eq!(
        (answer.code, answer.signed, answer.lifetime),
        (0, true, Some(600))
    );
    assert_eq!(answer.mapped, Some(ann.from.client));
    let relayed = answer.relayed.expect("granted");
    assert_eq!((relayed.ip(), world.sockets.len()), (ip(RELAY_V4), 1));
    assert!((50_000..=59_999).contains(&relayed.port()));
    assert!(world.events.contains(&Event::Opened {
        client: ann.from,
        relayed
    }));
}

#[test]
fn nobody_gets_in_without_the_password() {
    let mut world = World::usual();
    for username in ["old", "nobody knows me"] {
        let mut client = world.client(0, "203.0.113.1:4000", username);
        assert_eq!(client.allocate(&mut world).code, 401, "{username}");
    }
    let mut eve = world.client(0, "203.0.113.1:4000", "ann");
    eve.key = Key::long_term(b"ann", REALM.as_bytes(), b"guessed");
    assert_eq!(eve.allocate(&mut world).code, 401);
    eve.key = Key::long_term(b"ann", b"another.test", b"ANN");
    assert_eq!(eve.allocate(&mut world).code, 401);
    assert_eq!((world.allocations(), world.sockets.len()), (0, 0));
}

#[test]
fn a_nonce_is_not_for_another_address_and_not_for_ever() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.fetch_nonce(&mut world);
    let mut eve = world.client(0, "203.0.113.66:4000", "ann");
    eve.nonce = ann.nonce.clone();
    let answer = eve.allocate(&mut world);
    assert_eq!((answer.code, answer.signed), (438, false));
    assert_ne!(eve.nonce, ann.nonce, "a new nonce comes with it");
    assert_eq!(eve.allocate(&mut world).code, 0);
    world.wait(Duration::from_secs(3601));
    assert_eq!(ann.allocate(&mut world).code, 438);
    assert_eq!(ann.allocate(&mut world).code, 0);
}

#[test]
fn the_same_request_gets_the_same_answer_and_another_one_437() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.fetch_nonce(&mut world);
    let request = ann
        .begin(Method::Allocate)
        .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let request = ann.sign(request);
    ann.send(&mut world, &request);
    let first = world.received(&ann).map(<[u8]>::to_vec);
    ann.send(&mut world, &request);
    assert_eq!(world.received(&ann).map(<[u8]>::to_vec), first);
    let answer = ann.allocate(&mut world);
    assert_eq!(
        (answer.code, answer.signed, world.allocations()),
        (437, true, 1)
    );
}

#[test]
fn an_allocation_belongs_to_the_user_who_made_it() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    let mut bob = world.client(0, "203.0.113.1:4000", "bob");
    let answer = bob.refresh(&mut world, 0);
    assert_eq!((answer.code, answer.signed), (441, true));
    let mut eve = world.client(0, "203.0.113.1:4000", "ann");
    eve.key = Key::long_term(b"ann", REALM.as_bytes(), b"guessed");
    assert_eq!(eve.refresh(&mut world, 0).code, 401);
    assert_eq!(world.allocations(), 1);
}

#[test]
fn a_request_is_refused_by_what_is_wrong_with_it() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let transport: &[u8] = &[17, 0, 0, 0];
    type Case<'a> = (&'a [(u16, &'a [u8])], u16);
    let cases: [Case<'_>; 7] = [
        (&[(0x8777, b"optional")], 400),
        (&[(kind::REQUESTED_TRANSPORT, &[17])], 400),
        (&[(kind::REQUESTED_TRANSPORT, &[6, 0, 0, 0])], 442),
        (
            &[
                (kind::REQUESTED_TRANSPORT, transport),
                (kind::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0]),
            ],
            440,
        ),
        // EVEN-PORT that keeps a second port, DONT-FRAGMENT, RESERVATION-TOKEN
        (
            &[
                (kind::REQUESTED_TRANSPORT, transport),
                (kind::EVEN_PORT, &[0x80]),
            ],
            508,
        ),
        (
            &[(kind::REQUESTED_TRANSPORT, transport), (0x001A, b"")],
            420,
        ),
        (
            &[(kind::REQUESTED_TRANSPORT, transport), (0x0022, &[0; 8])],
            420,
        ),
    ];
    for (attributes, code) in cases {
        let mut request = ann.begin(Method::Allocate);
        for (kind, value) in attributes {
            request = request.attribute(*kind, value);
        }
        let answer = ann.ask(&mut world, request);
        assert_eq!(
            (answer.code, answer.signed),
            (code, true),
            "{attributes:02x?}"
        );
    }
    let request = ann.begin(Method::Other(0x00A));
    assert_eq!(ann.ask(&mut world, request).code, 400);
    assert_eq!(ann.permit(&mut world, &[addr("203.0.113.9:1")]), 437);
    assert_eq!(ann.refresh(&mut world, 600).code, 437);
    assert_eq!(world.allocations(), 0);
    ann.relay(&mut world);
    assert_eq!(ann.permit(&mut world, &[]), 400);
}

#[test]
fn a_mac_without_name_or_nonce_is_a_bad_request() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let transport = |request: Writer| request.attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let bytes = transport(ann.begin(Method::Allocate))
        .integrity(Algorithm::Sha1, &ann.key)
        .finish();
    let answer = ann.send(&mut world, &bytes).expect("an answer");
    assert_eq!((answer.code, answer.signed), (400, false));
}

#[test]
fn the_answer_is_signed_and_checked_as_the_request_was() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.fetch_nonce(&mut world);
    let bytes = ann
        .begin(Method::Allocate)
        .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .attribute(kind::USERNAME, b"ann")
        .attribute(kind::REALM, REALM.as_bytes())
        .attribute(kind::NONCE, &ann.nonce)
        .integrity(Algorithm::Sha256, &ann.key)
        .fingerprint()
        .finish();
    assert!(ann.send(&mut world, &bytes).expect("an answer").signed);
    let answer = world.received(&ann).expect("an answer");
    let message = Message::parse(answer).expect("lawful");
    assert!(
        message
            .attributes()
            .any(|attribute| attribute.kind == kind::MESSAGE_INTEGRITY_SHA256)
    );
    assert_eq!(Fields::read(message).fingerprint, Some(true));
}

#[test]
fn users_sources_and_the_process_have_their_share() {
    let limits = AvLimits {
        allocations: 5,
        allocations_per_user: 2,
        allocations_per_source: 3,
        ..Plan::default().limits
    };
    let mut world = World::new(&Plan {
        shards: 2,
        limits,
        ..Plan::default()
    });
    let ask = |world: &mut World, from: &str, user: &str| {
        let shard = from.as_bytes()[from.len() - 1] % 2;
        world.client(shard, from, user).allocate(world).code
    };
    assert_eq!(ask(&mut world, "203.0.113.1:1001", "ann"), 0);
    assert_eq!(ask(&mut world, "203.0.113.2:1002", "ann"), 0);
    assert_eq!(ask(&mut world, "203.0.113.3:1003", "ann"), 486);
    assert_eq!(ask(&mut world, "203.0.113.1:1004", "bob"), 0);
    assert_eq!(ask(&mut world, "203.0.113.1:1005", "cid"), 0);
    assert_eq!(ask(&mut world, "203.0.113.1:1006", "dan"), 486);
    assert_eq!(ask(&mut world, "203.0.113.4:1007", "dan"), 0);
    assert_eq!(ask(&mut world, "203.0.113.5:1008", "eli"), 508);
    let mut ann = world.client(1, "203.0.113.1:1001", "ann");
    assert_eq!(ann.refresh(&mut world, 0).code, 0);
    assert_eq!(ask(&mut world, "203.0.113.3:1003", "ann"), 0);
}

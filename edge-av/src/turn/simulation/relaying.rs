//! Payloads between clients, peers and each other.

use super::*;
use crate::turn::allocation::{CHANNEL_LIFETIME, PERMISSION_LIFETIME};

const PEER: &str = "203.0.113.9:7000";

#[test]
fn a_permitted_peer_and_a_client_exchange_payloads_by_indication_and_by_channel() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let relayed = ann.relay(&mut world);
    ann.send_data(&mut world, addr(PEER), b"too early");
    world.peer_sends(0, relayed, PEER, b"too early");
    assert_eq!(world.drops, [Reason::NoPermission, Reason::NoPermission]);

    assert_eq!(ann.permit(&mut world, &[addr("203.0.113.9:1")]), 0);
    ann.send_data(&mut world, addr(PEER), b"hello");
    assert_eq!(
        world.to_peers.last(),
        Some(&(relayed, addr(PEER), b"hello".to_vec()))
    );
    world.peer_sends(0, relayed, PEER, b"hello yourself");
    assert_eq!(
        world.received(&ann).and_then(data_of),
        Some((addr(PEER), b"hello yourself".to_vec()))
    );

    assert_eq!(ann.bind(&mut world, 0x4001, addr(PEER)), 0);
    ann.send_channel(&mut world, 0x4001, b"numbered");
    assert_eq!(
        world.to_peers.last(),
        Some(&(relayed, addr(PEER), b"numbered".to_vec()))
    );
    world.peer_sends(0, relayed, PEER, b"seven!!");
    assert_eq!(world.received(&ann), Some(&b"\x40\x01\x00\x07seven!!"[..]));
    // Another port of the same host is permitted, but has no number.
    world.peer_sends(0, relayed, "203.0.113.9:7001", b"x");
    assert_eq!(
        world.received(&ann).and_then(data_of),
        Some((addr("203.0.113.9:7001"), b"x".to_vec()))
    );
    world.peer_sends(0, relayed, "203.0.113.10:7000", b"x");
    assert_eq!(world.drops.last(), Some(&Reason::NoPermission));
}

#[test]
fn ipv6_relays_ipv6_and_nothing_else() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let request = ann
        .begin(Method::Allocate)
        .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .attribute(kind::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    let relayed = ann.ask(&mut world, request).relayed.expect("granted");
    assert_eq!(relayed.ip(), ip(RELAY_V6));
    let peer = addr("[2001:db8:9::1]:7");
    assert_eq!(ann.permit(&mut world, &[addr(PEER)]), 443);
    assert_eq!(
        ann.permit(&mut world, &[addr("[::ffff:10.10.0.10]:7")]),
        403
    );
    assert_eq!(ann.permit(&mut world, &[peer]), 0);
    ann.send_data(&mut world, peer, b"six");
    assert_eq!(world.to_peers, [(relayed, peer, b"six".to_vec())]);
    world.peer_sends(0, relayed, "[2001:db8:9::1]:7", b"back");
    assert_eq!(
        world.received(&ann).and_then(data_of),
        Some((peer, b"back".to_vec()))
    );
}

#[test]
fn permissions_and_channels_end_by_themselves() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let relayed = ann.relay(&mut world);
    assert_eq!(ann.refresh(&mut world, 3600).lifetime, Some(3600));
    assert_eq!(ann.bind(&mut world, 0x4001, addr(PEER)), 0);
    world.wait(PERMISSION_LIFETIME);
    world.peer_sends(0, relayed, PEER, b"x");
    assert_eq!(world.drops, [Reason::NoPermission]);
    ann.send_channel(&mut world, 0x4001, b"still bound");
    assert_eq!(world.to_peers.len(), 1);
    world.wait(CHANNEL_LIFETIME - PERMISSION_LIFETIME);
    ann.send_channel(&mut world, 0x4001, b"no more");
    assert_eq!(world.drops.last(), Some(&Reason::NoChannel));
}

#[test]
fn a_length_beyond_the_packet_leaks_nothing() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    ann.bind(&mut world, 0x4001, addr(PEER));
    for bytes in [&b"\x40\x01\xff\xffabc"[..], b"\x40\x01\x00", b"\x40"] {
        world.client_sends(0, ann.from, bytes);
    }
    // What lies behind the length is no part of the payload.
    world.client_sends(0, ann.from, b"\x40\x01\x00\x02abcd");
    assert_eq!(world.drops, [Reason::Malformed; 3]);
    assert_eq!(world.to_peers.len(), 1);
    assert_eq!(world.to_peers[0].2, b"ab");
}

#[test]
fn numbers_and_peers_are_bound_one_to_one() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    assert_eq!(ann.bind(&mut world, 0x4000, addr(PEER)), 437);
    ann.relay(&mut world);
    let other = addr("203.0.113.9:7001");
    assert_eq!(ann.bind(&mut world, 0x4000, addr(PEER)), 0);
    assert_eq!(ann.bind(&mut world, 0x4000, addr(PEER)), 0);
    assert_eq!(ann.bind(&mut world, 0x4000, other), 400);
    assert_eq!(ann.bind(&mut world, 0x4001, addr(PEER)), 400);
    assert_eq!(ann.bind(&mut world, 0x7FFE, other), 0);
    assert_eq!(ann.bind(&mut world, 0x3FFF, addr("203.0.113.9:7002")), 400);
    assert_eq!(ann.bind(&mut world, 0x7FFF, addr("203.0.113.9:7002")), 400);
}

#[test]
fn peers_that_nobody_may_reach_are_refused_in_every_disguise() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    let refused = [
        "10.10.0.10:80",
        "10.10.3.4:80",
        "198.51.100.10:443",
        "127.0.0.1:1",
        "0.0.0.0:1",
        "169.254.169.254:80",
        "192.168.1.1:1",
        "172.16.0.1:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "240.0.0.1:1",
    ];
    for peer in refused {
        assert_eq!(ann.permit(&mut world, &[addr(peer)]), 403, "{peer}");
        assert_eq!(ann.bind(&mut world, 0x4000, addr(peer)), 403, "{peer}");
    }
    // One forbidden peer spoils the request, and nobody gets in.
    assert_eq!(ann.permit(&mut world, &[addr(PEER), addr(refused[0])]), 403);
    ann.send_data(&mut world, addr(PEER), b"x");
    assert_eq!(
        (world.drops.last(), world.to_peers.len()),
        (Some(&Reason::NoPermission), 0)
    );
    // Our own address is a peer as far as it relays.
    assert_eq!(ann.permit(&mut world, &[addr("198.51.100.12:1")]), 0);
    assert_eq!(
        ann.bind(&mut world, 0x4000, addr("198.51.100.12:3478")),
        403
    );
    ann.send_data(&mut world, addr("198.51.100.12:3478"), b"to ourselves");
    ann.send_data(&mut world, addr("198.51.100.12:50000"), b"to nobody");
    assert_eq!(world.drops[1..], [Reason::NoSuchRelay; 2]);
}

/// Two users of one host: `shards` tells whether they share a core, `public` whether the host is behind a 1:1 NAT.
fn hairpin(shards: u8, public: Option<IpAddr>) -> World {
    let mut world = World::new(&Plan {
        shards,
        public,
        ..Plan::default()
    });
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let mut bob = world.client(shards - 1, "203.0.113.2:4000", "bob");
    let (to_ann, to_bob) = (ann.relay(&mut world), bob.relay(&mut world));
    assert_eq!(to_ann.ip(), public.unwrap_or_else(|| ip(RELAY_V4)));

    assert_eq!(ann.permit(&mut world, &[to_bob]), 0);
    ann.send_data(&mut world, to_bob, b"not let in yet");
    assert_eq!(world.drops, [Reason::NoPermission]);
    assert_eq!(bob.bind(&mut world, 0x4005, to_ann), 0);
    ann.send_data(&mut world, to_bob, b"hello bob");
    assert_eq!(
        world.received(&bob),
        Some(&b"\x40\x05\x00\x09hello bob"[..])
    );
    bob.send_channel(&mut world, 0x4005, b"hello ann");
    assert_eq!(
        world.received(&ann).and_then(data_of),
        Some((to_bob, b"hello ann".to_vec()))
    );
    assert!(world.to_peers.is_empty(), "a hairpin never leaves");
    world
}

#[test]
fn two_users_of_one_core_hear_each_other() {
    assert_eq!(hairpin(1, None).crossed, 0);
}

#[test]
fn two_users_of_two_cores_hear_each_other() {
    assert_eq!(hairpin(2, None).crossed, 3);
}

#[test]
fn two_users_behind_one_nat_hear_each_other_by_the_public_address() {
    assert_eq!(hairpin(2, Some(ip("203.0.113.200"))).crossed, 3);
}

#[test]
fn a_closed_edge_relays_between_its_own_users_only() {
    let mut world = World::new(&Plan {
        udp_leaves: false,
        ..Plan::default()
    });
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let relayed = ann.relay(&mut world);
    assert_eq!(ann.permit(&mut world, &[addr(PEER)]), 403);
    assert_eq!(ann.permit(&mut world, &[relayed]), 0);
}

#[test]
fn each_table_has_its_bound() {
    let limits = AvLimits {
        permissions: 3,
        channels: 2,
        ..Plan::default().limits
    };
    let mut world = World::new(&Plan {
        limits,
        ..Plan::default()
    });
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    let peer = |n: u8| addr(&format!("203.0.113.{n}:7"));
    assert_eq!(ann.bind(&mut world, 0x4001, peer(1)), 0);
    assert_eq!(ann.bind(&mut world, 0x4002, peer(2)), 0);
    assert_eq!(ann.bind(&mut world, 0x4003, peer(3)), 508);
    assert_eq!(ann.permit(&mut world, &[peer(3), peer(4)]), 508);
    assert_eq!(ann.permit(&mut world, &[peer(3)]), 0);
    assert_eq!(ann.permit(&mut world, &[peer(4)]), 508);
    assert_eq!(ann.permit(&mut world, &[peer(1), peer(2), peer(3)]), 0);
}

#[test]
fn a_client_that_wants_an_even_port_gets_one() {
    let mut world = World::usual();
    for n in 1..=10 {
        let mut client = world.client(0, &format!("203.0.113.{n}:4000"), "ann");
        let request = client
            .begin(Method::Allocate)
            .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
            .attribute(kind::EVEN_PORT, &[0]);
        let relayed = client.ask(&mut world, request).relayed.expect("granted");
        assert!(relayed.port().is_multiple_of(2));
    }
}

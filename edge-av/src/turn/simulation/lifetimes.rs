//! How allocations begin and end.

use super::*;
use crate::turn::authentication::SESSION_MAX;
use crate::turn::output::Closed;

fn closed(world: &World) -> Vec<Closed> {
    let why = |event: &Event| match event {
        Event::Closed { why, .. } => Some(*why),
        Event::Answered(_) | Event::Refused(..) | Event::Dropped(_) | Event::Opened { .. } => None,
    };
    world.events.iter().filter_map(why).collect()
}

#[test]
fn an_allocation_lives_as_long_as_it_is_refreshed() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    for _ in 0..5 {
        world.wait(Duration::from_secs(599));
        assert_eq!(ann.refresh(&mut world, 600).lifetime, Some(600));
    }
    world.wait(Duration::from_secs(599));
    assert_eq!(world.allocations(), 1);
    world.wait(Duration::from_secs(1));
    assert_eq!(
        (world.allocations(), world.sockets.len(), closed(&world)),
        (0, 0, vec![Closed::Expired])
    );
    assert!(world.shared.ports.v4.is_empty());
    assert_eq!(ann.refresh(&mut world, 600).code, 437);
}

#[test]
fn the_deadline_is_always_the_nearest() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    let mut bob = world.client(0, "203.0.113.2:4000", "bob");
    assert_eq!(world.server(0).poll_timeout(), None);
    ann.relay(&mut world);
    let first = world.now.mono + Duration::from_secs(600);
    world.wait(Duration::from_secs(10));
    bob.relay(&mut world);
    assert_eq!(world.server(0).poll_timeout(), Some(first));
    ann.refresh(&mut world, 3600);
    assert_eq!(
        world.server(0).poll_timeout(),
        Some(first + Duration::from_secs(10))
    );
    assert_eq!(bob.refresh(&mut world, 0).lifetime, Some(0));
    assert_eq!(
        world.server(0).poll_timeout(),
        Some(first + Duration::from_secs(10 + 3000))
    );
    assert_eq!(closed(&world), [Closed::Released]);
}

#[test]
fn lifetimes_are_held_between_default_and_maximum() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    for (asked, granted) in [
        (1, 600),
        (600, 600),
        (1000, 1000),
        (3600, 3600),
        (u32::MAX, 3600),
    ] {
        assert_eq!(ann.refresh(&mut world, asked).lifetime, Some(granted));
    }
}

#[test]
fn a_call_outlives_its_token_but_not_for_ever() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "brief");
    ann.relay(&mut world);
    assert_eq!(ann.refresh(&mut world, 3600).code, 0);
    let end = world.now.mono + SESSION_MAX;
    let mut other = world.client(0, "203.0.113.1:4001", "brief");
    while world.now.mono + Duration::from_secs(3000) < end {
        world.wait(Duration::from_secs(3000));
        // The first attempt may be refused for the old nonce.
        let answers = [
            ann.refresh(&mut world, 3600).code,
            ann.refresh(&mut world, 3600).code,
        ];
        assert_eq!(answers[1], 0, "{answers:?}");
    }
    assert_eq!(
        other.allocate(&mut world).code,
        401,
        "the token opens nothing any more"
    );
    world.wait(Duration::from_secs(3000));
    ann.refresh(&mut world, 3600);
    assert_eq!(ann.refresh(&mut world, 3600).code, 401);
}

#[test]
fn a_connection_takes_its_allocation_with_it() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.from.listener = ListenerId(1);
    ann.relay(&mut world);
    let now = world.now;
    world.server(0).handle_disconnect(now, ann.from);
    world.drain(0);
    assert_eq!(
        (world.allocations(), closed(&world)),
        (0, vec![Closed::Disconnected])
    );
}

#[test]
fn a_port_that_somebody_else_holds_is_passed_over() {
    let mut world = World::new(&Plan {
        ports: "50000-50063",
        ..Plan::default()
    });
    world.occupied = (50_000..50_064).filter(|port| port % 2 == 0).collect();
    for n in 1..=20 {
        let mut client = world.client(0, &format!("203.0.113.{n}:4000"), "ann");
        let code = client.allocate(&mut world).code;
        assert!(code == 0 || code == 508, "{code}");
    }
    assert!(world.allocations() > 10);
    assert_eq!(world.allocations() as u32, world.shared.ports.v4.taken());
    world.occupied = (50_000..50_064).collect();
    let mut late = world.client(0, "203.0.113.99:4000", "bob");
    let answer = late.allocate(&mut world);
    assert_eq!((answer.code, answer.signed), (508, true));
    assert_eq!(
        world.allocations() as u32,
        world.shared.ports.v4.taken(),
        "no port is lost"
    );
}

#[test]
fn every_port_is_given_out_whichever_shard_asks() {
    let limits = AvLimits {
        allocations_per_user: 1000,
        allocations_per_source: 1000,
        ..Plan::default().limits
    };
    let mut world = World::new(&Plan {
        shards: 2,
        ports: "50000-50499",
        limits,
        ..Plan::default()
    });
    let ask = |world: &mut World, n: u16| {
        // All but ten ask on one shard.
        let shard = u8::from(n.is_multiple_of(50));
        world
            .client(shard, &format!("203.0.113.7:{}", 1000 + n), "ann")
            .allocate(world)
            .code
    };
    assert!((0..500).all(|n| ask(&mut world, n) == 0));
    assert_eq!((ask(&mut world, 500), world.sockets.len()), (508, 500));
    world.wait(Duration::from_secs(600));
    assert_eq!(
        (
            world.allocations(),
            world.sockets.len(),
            world.shared.allocations.used()
        ),
        (0, 0, 0)
    );
    assert!((0..500).all(|n| ask(&mut world, n) == 0));
}

#[test]
fn a_draining_server_keeps_what_it_has() {
    let mut world = World::usual();
    let mut ann = world.client(0, "203.0.113.1:4000", "ann");
    ann.relay(&mut world);
    world.server(0).handle_drain();
    assert_eq!(
        world
            .client(0, "203.0.113.2:4000", "bob")
            .allocate(&mut world)
            .code,
        508
    );
    assert_eq!(ann.refresh(&mut world, 600).code, 0);
}

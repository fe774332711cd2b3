//! Every state of an allocation with everything that can happen to it, held against `snapshots/`.

use super::*;
use std::fmt::Write as _;

#[derive(Clone, Copy, Debug)]
enum State {
    None,
    Opening,
    Open,
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    AllocateAgain,
    AllocateAnew,
    Refresh,
    RefreshToZero,
    CreatePermission,
    ChannelBind,
    SendIndication,
    ChannelData,
    PacketFromPeer,
    SocketOpened,
    SocketNotOpened,
    Deadline,
    Disconnect,
}

const STATES: [State; 3] = [State::None, State::Opening, State::Open];
const ALL: [Happens; 13] = [
    Happens::AllocateAgain,
    Happens::AllocateAnew,
    Happens::Refresh,
    Happens::RefreshToZero,
    Happens::CreatePermission,
    Happens::ChannelBind,
    Happens::SendIndication,
    Happens::ChannelData,
    Happens::PacketFromPeer,
    Happens::SocketOpened,
    Happens::SocketNotOpened,
    Happens::Deadline,
    Happens::Disconnect,
];

#[test]
fn every_state_answers_every_event() {
    let mut table = String::new();
    for state in STATES {
        for event in ALL {
            let line = format!("{state:?} + {event:?}: {}", outcome(state, event));
            writeln!(table, "{line}").expect("a String takes everything");
        }
    }
    insta::assert_snapshot!(table);
}

/// Brings an allocation into `state`, lets `event` happen, and tells what came of it.
fn outcome(state: State, event: Happens) -> String {
    let mut world = World::new(&Plan {
        ports: "50000-50000",
        ..Plan::default()
    });
    let mut client = world.client(0, "203.0.113.1:4000", "ann");
    let relayed = Relayed {
        family: super::super::relayed::Family::V4,
        port: 50_000,
    };
    client.fetch_nonce(&mut world);
    world.slow = true;
    let first = client
        .begin(Method::Allocate)
        .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let first = client.sign(first);
    match state {
        State::None => {}
        State::Opening => assert_eq!(client.send(&mut world, &first), None),
        State::Open => {
            world.slow = false;
            client.send(&mut world, &first).expect("an answer");
        }
    }
    world.drops.clear();
    let answer = happen(&mut world, &mut client, relayed, &first, event);
    let answer = answer.map_or_else(
        || "no answer".to_owned(),
        |answer| match answer.code {
            0 => "success".to_owned(),
            code => code.to_string(),
        },
    );
    let after = match (world.allocations(), world.sockets.len()) {
        (0, 0) => State::None,
        (1, 0) => State::Opening,
        (1, 1) => State::Open,
        other => panic!("{other:?}"),
    };
    let dropped: Vec<&str> = world.drops.iter().map(|reason| reason.as_str()).collect();
    format!(
        "{answer}{}{} -> {after:?}",
        if dropped.is_empty() {
            ""
        } else {
            ", dropped: "
        },
        dropped.join(" ")
    )
}

fn happen(
    world: &mut World,
    client: &mut Client,
    relayed: Relayed,
    first: &[u8],
    event: Happens,
) -> Option<Answer> {
    let (now, peer) = (world.now, addr("203.0.113.9:7000"));
    let allocate = |client: &mut Client| {
        client
            .begin(Method::Allocate)
            .attribute(kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    };
    match event {
        Happens::AllocateAgain => client.send(world, first),
        Happens::AllocateAnew => {
            let request = allocate(client);
            client.try_ask(world, request)
        }
        Happens::Refresh => Some(client.refresh(world, 600)),
        Happens::RefreshToZero => Some(client.refresh(world, 0)),
        Happens::CreatePermission => {
            let request = client
                .begin(Method::CreatePermission)
                .xor_address(kind::XOR_PEER_ADDRESS, peer);
            client.try_ask(world, request)
        }
        Happens::ChannelBind => {
            let request = client
                .begin(Method::ChannelBind)
                .attribute(kind::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
            client.try_ask(world, request.xor_address(kind::XOR_PEER_ADDRESS, peer))
        }
        Happens::SendIndication => {
            client.send_data(world, peer, b"x");
            None
        }
        Happens::ChannelData => {
            client.send_channel(world, 0x4000, b"x");
            None
        }
        Happens::PacketFromPeer => {
            let route = world
                .server(0)
                .route_peer(now, relayed, peer, Span { start: 0, len: 0 });
            world.perform(route, b"");
            None
        }
        Happens::SocketOpened | Happens::SocketNotOpened => {
            let before = world.to_clients.len();
            if matches!(event, Happens::SocketNotOpened) {
                world.occupied.insert(relayed.port);
            }
            world.open_what_waits();
            let (_, bytes) = world.to_clients.get(before)?.clone();
            let message = Message::parse(&bytes).expect("lawful");
            let code = if message.class() == Class::Success {
                0
            } else {
                508
            };
            Some(Answer {
                code,
                relayed: None,
                mapped: None,
                lifetime: None,
                signed: true,
            })
        }
        Happens::Deadline => {
            world.wait(Duration::from_secs(600));
            None
        }
        Happens::Disconnect => {
            world.server(0).handle_disconnect(now, client.from);
            world.drain(0);
            None
        }
    }
}

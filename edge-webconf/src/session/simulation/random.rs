//! Whatever comes, in whatever order.

use edge_common::random::Random as _;
use proptest::prelude::*;

use super::clients::stage_of;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes in whatever order: no table leaks, no number lets more clients in than it
    /// has uses, and at the end nothing is left.
    #[test]
    fn no_order_of_inputs_leaves_anything_behind(seed in any::<u64>()) {
        let mut world = World::new();
        let mut rng = Seeded::new(seed);
        let mut walk = Walk::default();
        for _ in 0..300 {
            walk.step(&mut world, &mut rng);
            world.check();
        }
        prop_assert!(world.leases_of_each_number_are_within(&walk));
        for id in walk.controls.iter().map(|mcu| mcu.control) {
            world.act(|broker, now| broker.handle_control_closed(now, id));
        }
        let clients: Vec<ClientId> = world.broker.clients.keys().copied().collect();
        for id in clients {
            world.act(|broker, now| broker.handle_client_lost(now, id));
        }
        world.pass(3700 * SECOND);
        world.assert_empty();
    }
}

proptest! {
    /// Lawful frames with a few bytes changed, and plain noise: an agent that is not one of ours
    /// ends its own session at most.
    #[test]
    fn no_bytes_of_an_agent_hurt_anybody_else(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut world = World::new();
        let mut good = world.agent_named("mcu2.pool.test", 1);
        let relayed = world.relayed(&mut good, number(1));
        let mut stream: Vec<u8> = [
            hello(MCU, 1),
            register(1, RegistrationKind::Server, MCU),
            Frame::Admit(Admit { reg_id: 1, number: number(2), ttl_ms: 1000, uses: 1 }),
            Frame::Revoke { number: number(1), cut: true },
            Frame::DialFail { count: 9, status: Status::Limit },
            Frame::Unregister { reg_id: 1 },
        ]
        .iter()
        .flat_map(Frame::to_bytes)
        .collect();
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.extend(noise);
        let control = world.control(&[MCU]);
        let (head, tail) = stream.split_at(cut.index(stream.len()));
        for part in [head, tail] {
            world.act(|broker, now| broker.handle_control_data(now, control, part));
            world.check();
        }
        let id = world.data_with(&[MCU], &stream, 0);
        prop_assert!(world.is_closed(id.0));
        world.check();
        prop_assert!(!world.is_closed(relayed.0) && !world.is_closed(good.control.0));
        prop_assert_eq!(world.admit(&good, number(3)), Status::Ok);
    }
}

/// A random life of the edge.
#[derive(Default)]
struct Walk {
    controls: Vec<Mcu>,
    clients: Vec<ClientId>,
    data: Vec<DataId>,
    epoch: u64,
    /// Uses that were admitted, by number, over the whole life.
    uses: BTreeMap<Number, usize>,
}

impl Walk {
    fn step(&mut self, world: &mut World, rng: &mut Seeded) {
        let mut pick = |len: usize| rng.below(len as u32) as usize;
        let n = number(pick(12) as u64);
        let core = pick(2) as u16;
        let (what, which) = (pick(14), pick(1_000_000));
        let client = self.clients.get(which % self.clients.len().max(1)).copied();
        let index = which % self.controls.len().max(1);
        match what {
            0 if self.controls.len() < 4 => {
                self.epoch += 1;
                let names = [MCU, "mcu2.pool.test"];
                let mcu = world.agent_named(names[which % 2], self.epoch);
                self.controls.push(mcu);
            }
            1 | 2 => {
                if let Some(mcu) = self.controls.get(index)
                    && world.broker.controls.contains_key(&mcu.control)
                {
                    let uses = 1 + (which % 2) as u16;
                    if world.admit_with(mcu, n, 20_000, uses) == Status::Ok {
                        *self.uses.entry(n).or_default() += usize::from(uses);
                    }
                }
            }
            3 | 4 => {
                if let Some(mcu) = self.controls.get_mut(index) {
                    let hello = mcu.data_hello();
                    let name = mcu.name.clone();
                    self.data.push(world.data_with(&[&name], &hello, core));
                }
            }
            5 | 6 => self.clients.push(world.visitor(n)),
            7 => self.clients.push(world.client()),
            8 => {
                if let Some(id) = client {
                    let status = [Status::Ok, Status::UpstreamRefused][which % 2];
                    world.act(|broker, now| broker.handle_open_ack(now, id, status));
                }
            }
            9 => {
                if let Some(id) = client {
                    let end = RelayEnd {
                        bytes_in: 1,
                        bytes_out: 1,
                        status: Status::Ok,
                    };
                    if stage_of(world, id) == "relay" {
                        world.act(|broker, now| broker.handle_relay_ended(now, id, end));
                    }
                }
            }
            10 => {
                if let Some(id) = client {
                    world.act(|broker, now| broker.handle_client_lost(now, id));
                }
            }
            11 => {
                if let Some(&id) = self.data.get(which % self.data.len().max(1)) {
                    world.act(|broker, now| broker.handle_data_closed(now, id));
                }
            }
            12 if !self.controls.is_empty() && which.is_multiple_of(4) => {
                let mcu = self.controls.swap_remove(index);
                world.act(|broker, now| broker.handle_control_closed(now, mcu.control));
            }
            _ => world.pass(Duration::from_millis((which % 3000) as u64)),
        }
    }
}

impl World {
    fn leases_of_each_number_are_within(&self, walk: &Walk) -> bool {
        let mut opened = BTreeMap::<Number, usize>::new();
        for (_, _, open) in &self.leases {
            *opened.entry(open.number).or_default() += 1;
        }
        opened
            .iter()
            .all(|(number, count)| *count <= walk.uses.get(number).copied().unwrap_or(0))
    }
}

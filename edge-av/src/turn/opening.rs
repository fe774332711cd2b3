//! From a port number to a socket: the shell opens it, and says what came of it.

use edge_common::time::Now;

use super::Server;
use super::allocation::Phase;
use super::output::{Closed, Event, Output};
use super::refusal::Refusal;
use super::relayed::Relayed;
use crate::stun::message::{Class, Method};
use crate::stun::writer::Writer;

impl Server {
    /// Has the socket of an allocation opened.
    pub(super) fn open(&mut self, relayed: Relayed) {
        if let Some(local) = self.local_address(relayed) {
            self.outputs.push_back(Output::Open { relayed, local });
        }
    }

    /// What came of [`Output::Open`].
    pub fn handle_opened(&mut self, now: Now, relayed: Relayed, opened: bool) {
        let Some(allocation) = self.allocation_at_mut(relayed) else {
            return;
        };
        let Phase::Opening {
            tries,
            algorithm,
            fingerprint,
        } = allocation.phase
        else {
            return;
        };
        if opened {
            allocation.phase = Phase::Open;
            self.greet(relayed, algorithm, fingerprint);
        } else if tries < OPEN_TRIES {
            self.try_another_port(
                now,
                relayed,
                Phase::Opening {
                    tries: tries + 1,
                    algorithm,
                    fingerprint,
                },
            );
        } else {
            self.give_up(now, relayed);
        }
    }

    /// Somebody else on this host sits on the port: another one is taken before this one is given back.
    fn try_another_port(&mut self, now: Now, relayed: Relayed, phase: Phase) {
        let Some(port) = self.shared.ports[relayed.family].take(self.shard, &mut *self.rng) else {
            return self.give_up(now, relayed);
        };
        let Some(mut allocation) = self.remove(relayed) else {
            return;
        };
        self.shared.ports[relayed.family].release(relayed.port);
        allocation.relayed.port = port;
        allocation.phase = phase;
        let relayed = allocation.relayed;
        self.insert(*allocation);
        self.open(relayed);
    }

    fn give_up(&mut self, now: Now, relayed: Relayed) {
        let Some(allocation) = self.allocation_at(relayed) else {
            return;
        };
        let Phase::Opening {
            algorithm,
            fingerprint,
            ..
        } = allocation.phase
        else {
            return;
        };
        let (client, refusal) = (allocation.client, Refusal::InsufficientCapacity);
        let answer = Writer::new(Method::Allocate, Class::Error, allocation.made_by)
            .error_code(refusal.code())
            .integrity(algorithm, &allocation.key);
        self.event(Event::Refused(Method::Allocate, refusal));
        self.transmit(
            client,
            if fingerprint {
                answer.fingerprint()
            } else {
                answer
            },
        );
        self.close(now, relayed, Closed::NotOpened);
    }
}

/// Ports that are tried before a client is told that there is none.
const OPEN_TRIES: u8 = 8;

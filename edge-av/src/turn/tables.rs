//! The tables of a server: by client, by relayed address, by deadline. They agree on every allocation.

use std::net::SocketAddr;
use std::time::Instant;

use edge_common::time::Now;

use super::Server;
use super::allocation::Allocation;
use super::five_tuple::FiveTuple;
use super::output::{Closed, Event, Output};
use super::relayed::Relayed;

impl Server {
    pub(super) fn allocation_of(&self, client: FiveTuple) -> Option<&Allocation> {
        self.allocation_at(*self.clients.get(&client)?)
    }

    pub(super) fn allocation_of_mut(&mut self, client: FiveTuple) -> Option<&mut Allocation> {
        self.allocation_at_mut(*self.clients.get(&client)?)
    }

    pub(super) fn allocation_at(&self, relayed: Relayed) -> Option<&Allocation> {
        let index = self.shared.ports[relayed.family].index(relayed.port)?;
        self.relays[relayed.family].get(index)?.as_deref()
    }

    pub(super) fn allocation_at_mut(&mut self, relayed: Relayed) -> Option<&mut Allocation> {
        let index = self.shared.ports[relayed.family].index(relayed.port)?;
        self.relays[relayed.family].get_mut(index)?.as_deref_mut()
    }

    /// The three tables agree on every allocation; only this, [`Server::remove`] and [`Server::prolong`] write them.
    pub(super) fn insert(&mut self, allocation: Allocation) {
        let relayed = allocation.relayed;
        let Some(index) = self.shared.ports[relayed.family].index(relayed.port) else {
            return;
        };
        self.clients.insert(allocation.client, relayed);
        self.deadlines.insert((allocation.expires, relayed));
        self.relays[relayed.family][index] = Some(Box::new(allocation));
        debug_assert_eq!(self.clients.len(), self.deadlines.len());
    }

    pub(super) fn remove(&mut self, relayed: Relayed) -> Option<Box<Allocation>> {
        let index = self.shared.ports[relayed.family].index(relayed.port)?;
        let allocation = self.relays[relayed.family].get_mut(index)?.take()?;
        self.clients.remove(&allocation.client);
        self.deadlines.remove(&(allocation.expires, relayed));
        debug_assert_eq!(self.clients.len(), self.deadlines.len());
        Some(allocation)
    }

    pub(super) fn prolong(&mut self, relayed: Relayed, expires: Instant) {
        let Some(allocation) = self.allocation_at_mut(relayed) else {
            return;
        };
        let before = std::mem::replace(&mut allocation.expires, expires);
        self.deadlines.remove(&(before, relayed));
        self.deadlines.insert((expires, relayed));
    }

    pub(super) fn close(&mut self, now: Now, relayed: Relayed, why: Closed) {
        let Some(allocation) = self.remove(relayed) else {
            return;
        };
        self.outputs.push_back(Output::Close { relayed });
        if let Some(address) = self.public_address(relayed) {
            self.event(Event::Closed {
                client: allocation.client,
                relayed: address,
                why,
                lasted: now.mono.saturating_duration_since(allocation.since),
                traffic: allocation.traffic,
            });
        }
    }

    pub(super) fn local_address(&self, relayed: Relayed) -> Option<SocketAddr> {
        let ip = self.settings.policy.relay_address(relayed.family)?;
        Some(SocketAddr::new(ip, relayed.port))
    }

    pub(super) fn public_address(&self, relayed: Relayed) -> Option<SocketAddr> {
        self.local_address(relayed)
            .map(|local| self.settings.policy.outward(local))
    }
}

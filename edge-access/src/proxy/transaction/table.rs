//! The transactions of one core: a slab of small entries, found by their place in our branch, or by a
//! keyed hash when a request comes again.
//!
//! ```text
//!  branch of a response ── slot, generation ──► entry
//!  CANCEL, ACK, repeated request ── hash ──► bucket ──► entry ──► next of the bucket
//!  connection that is gone ── its first ──► entry ──► next of the connection
//! ```
//!
//! The bytes of a request are kept in buffers that are used again, until its first answer.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::time::Instant;

use edge_common::timer::TimerId;

use super::{Timer, invite_client, invite_server, other_client, other_server};
use crate::proxy::token::{FlowKey, FlowRef, Realm};

/// Names one transaction of one core; a slot that is used again has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    /// Its place in the table.
    pub slot: u32,
    /// How often the place was used before.
    pub generation: u32,
}

impl TransactionId {
    /// As it stands in a branch.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.slot as u64) << 32 | self.generation as u64
    }

    /// From a branch.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            slot: (bits >> 32) as u32,
            generation: bits as u32,
        }
    }
}

/// Both machines of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machines {
    /// Of an INVITE.
    Invite(invite_server::State, invite_client::State),
    /// Of any other request.
    Other(other_server::State, other_client::State),
    /// Of an OPTIONS that we sent ourselves to see whether a connection still works.
    Ping,
}

/// One transaction.
#[derive(Debug)]
pub struct Entry {
    /// Where its machines stand.
    pub machines: Machines,
    /// The connection that the request came over.
    pub ingress: FlowKey,
    /// The connection that it went over.
    pub egress: FlowKey,
    /// Where it went over the link to another member.
    pub link: Option<FlowRef>,
    /// Whoever sent it understands RFC 5626.
    pub outbound: bool,
    /// What kind of far end that is.
    pub towards: Realm,
    /// What kind of far end the request came from.
    pub from: Realm,
    /// Marks that far end in our branch.
    pub mark: u32,
    /// The loop mark in our branch.
    pub loop_mark: u32,
    /// The keep-alive flag in our branch.
    pub keep_alive: bool,
    /// How many targets were tried before this one.
    pub attempt: u8,
    /// Targets that were tried, by their rank.
    pub tried: u8,
    /// Targets that there are, by their rank.
    pub candidates: u8,
    /// Whether a target before this one said nothing at all.
    pub timed_out: bool,
    /// Whether it is a REGISTER, whose answers tell how much the Director can take.
    pub is_register: bool,
    /// When the request went out.
    pub sent: Instant,
    /// What it waits for.
    pub timer: Timer,
    pub(super) timer_id: Option<TimerId>,
    /// The request as it came; after an INVITE's first answer, what a CANCEL or an ACK needs of it.
    pub kept: Vec<u8>,
    /// Whether nothing of the request was thrown away yet.
    pub is_whole: bool,
    /// A CANCEL that came before any answer.
    pub cancel: Option<Vec<u8>>,
    hash: u64,
    next_of_bucket: u32,
    of_egress: Neighbours,
}

/// The neighbours in the list of one connection's transactions.
#[derive(Clone, Copy, Debug)]
struct Neighbours {
    previous: u32,
    next: u32,
}

/// What is known of a transaction when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Its keyed hash.
    pub hash: u64,
    /// Whether it is an INVITE's, another's or our own.
    pub machines: Machines,
    /// The connection that the request came over.
    pub ingress: FlowKey,
    /// The keep-alive flag in our branch.
    pub keep_alive: bool,
    /// Whether it is a REGISTER.
    pub is_register: bool,
    /// When that was.
    pub at: Instant,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    buckets: Vec<u32>,
    buffers: Vec<Vec<u8>>,
    kept_bytes: usize,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    entry: Option<Entry>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            buckets: vec![NONE; BUCKETS_MIN],
            buffers: Vec::new(),
            kept_bytes: 0,
        }
    }

    /// How many transactions are under way.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the requests that are kept.
    #[must_use]
    pub const fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Takes a transaction in. How many there may be is for the caller to watch.
    pub fn insert(&mut self, start: Start) -> TransactionId {
        if self.len() >= self.buckets.len() {
            self.grow();
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                entry: None,
            });
            self.places.len() as u32 - 1
        });
        let bucket = self.bucket(start.hash);
        let place = &mut self.places[slot as usize];
        place.entry = Some(Entry {
            machines: start.machines,
            ingress: start.ingress,
            egress: start.ingress,
            link: None,
            outbound: false,
            towards: Realm::Inside,
            from: Realm::Inside,
            mark: 0,
            loop_mark: 0,
            keep_alive: start.keep_alive,
            attempt: 0,
            tried: 0,
            candidates: 0,
            timed_out: false,
            is_register: start.is_register,
            sent: start.at,
            timer: Timer::Lost,
            timer_id: None,
            kept: self.buffers.pop().unwrap_or_default(),
            is_whole: true,
            cancel: None,
            hash: start.hash,
            next_of_bucket: self.buckets[bucket],
            of_egress: Neighbours {
                previous: NONE,
                next: NONE,
            },
        });
        self.buckets[bucket] = slot;
        TransactionId {
            slot,
            generation: place.generation,
        }
    }

    /// The transaction, if it is still under way.
    #[must_use]
    pub fn get(&self, id: TransactionId) -> Option<&Entry> {
        let place = self.places.get(id.slot as usize)?;
        (place.generation == id.generation).then_some(place.entry.as_ref())?
    }

    /// The transaction, to be changed.
    pub fn get_mut(&mut self, id: TransactionId) -> Option<&mut Entry> {
        let place = self.places.get_mut(id.slot as usize)?;
        (place.generation == id.generation).then_some(place.entry.as_mut())?
    }

    /// The transaction of a request that came over `ingress`: real clients repeat branches and Call-IDs, so
    /// the connection is always part of the question.
    #[must_use]
    pub fn find(&self, hash: u64, ingress: FlowKey) -> Option<TransactionId> {
        let mut slot = self.buckets[self.bucket(hash)];
        while let Some(place) = self.places.get(slot as usize) {
            let entry = place.entry.as_ref()?;
            if entry.hash == hash && entry.ingress == ingress {
                let generation = place.generation;
                return Some(TransactionId { slot, generation });
            }
            slot = entry.next_of_bucket;
        }
        None
    }

    /// Keeps the bytes of the request.
    pub fn keep(&mut self, id: TransactionId, bytes: &[u8]) {
        let Some(entry) = self.get_mut(id) else {
            return;
        };
        let before = entry.kept.len();
        entry.kept.clear();
        entry.kept.extend_from_slice(bytes);
        self.kept_bytes = self.kept_bytes - before + bytes.len();
    }

    /// Lends the kept bytes out, or gives those of another request in their place.
    pub fn swap_kept(&mut self, id: TransactionId, bytes: Vec<u8>) -> Vec<u8> {
        let Some(entry) = self.get_mut(id) else {
            return Vec::new();
        };
        let len = bytes.len();
        let before = std::mem::replace(&mut entry.kept, bytes);
        self.kept_bytes = self.kept_bytes - before.len() + len;
        before
    }

    /// Keeps a CANCEL until the INVITE has been answered.
    pub fn keep_cancel(&mut self, id: TransactionId, bytes: &[u8]) {
        let Some(entry) = self.get_mut(id) else {
            return;
        };
        if entry.cancel.is_none() {
            entry.cancel = Some(bytes.to_vec());
            self.kept_bytes += bytes.len();
        }
    }

    /// Takes a CANCEL that was kept.
    pub fn take_cancel(&mut self, id: TransactionId) -> Option<Vec<u8>> {
        let cancel = self.get_mut(id)?.cancel.take()?;
        self.kept_bytes -= cancel.len();
        Some(cancel)
    }

    /// Takes a transaction out of the list of its connection, whose first it may be.
    pub fn unlink(&mut self, id: TransactionId, first: Option<&mut u32>) {
        let Some(entry) = self.get_mut(id) else {
            return;
        };
        let Neighbours { previous, next } = entry.of_egress;
        entry.of_egress = Neighbours {
            previous: NONE,
            next: NONE,
        };
        if let Some(entry) = self.at(previous) {
            entry.of_egress.next = next;
        } else if let Some(first) = first
            && *first == id.slot
        {
            *first = next;
        }
        if let Some(entry) = self.at(next) {
            entry.of_egress.previous = previous;
        }
    }

    /// Puts a transaction in front of the list of its connection.
    pub fn link(&mut self, id: TransactionId, first: &mut u32) {
        let second = std::mem::replace(first, id.slot);
        if let Some(entry) = self.at(second) {
            entry.of_egress.previous = id.slot;
        }
        if let Some(entry) = self.get_mut(id) {
            entry.of_egress = Neighbours {
                previous: NONE,
                next: second,
            };
        }
    }

    /// The first of a connection's transactions, and the one after it.
    #[must_use]
    pub fn follow(&self, slot: u32) -> Option<(TransactionId, u32)> {
        let place = self.places.get(slot as usize)?;
        let entry = place.entry.as_ref()?;
        let generation = place.generation;
        Some((TransactionId { slot, generation }, entry.of_egress.next))
    }

    /// Lets a transaction go; its id never names another one. It has been taken out of its connection's list.
    pub fn remove(&mut self, id: TransactionId) -> Option<Entry> {
        let hash = self.get(id)?.hash;
        self.leave_bucket(id.slot, hash);
        let place = &mut self.places[id.slot as usize];
        let mut entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.kept_bytes -= entry.kept.len() + entry.cancel.as_ref().map_or(0, Vec::len);
        let mut buffer = std::mem::take(&mut entry.kept);
        if self.buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
        Some(entry)
    }

    fn at(&mut self, slot: u32) -> Option<&mut Entry> {
        self.places.get_mut(slot as usize)?.entry.as_mut()
    }

    /// The number of buckets is a power of two.
    const fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn leave_bucket(&mut self, slot: u32, hash: u64) {
        let bucket = self.bucket(hash);
        let next =
            |table: &mut Self, slot: u32| table.at(slot).map_or(NONE, |entry| entry.next_of_bucket);
        let after = next(self, slot);
        let mut at = self.buckets[bucket];
        if at == slot {
            self.buckets[bucket] = after;
            return;
        }
        while let Some(entry) = self.at(at) {
            if entry.next_of_bucket == slot {
                entry.next_of_bucket = after;
                return;
            }
            at = entry.next_of_bucket;
        }
    }

    fn grow(&mut self) {
        let count = self.buckets.len() * 2;
        self.buckets.clear();
        self.buckets.resize(count, NONE);
        for (slot, place) in self.places.iter_mut().enumerate() {
            if let Some(entry) = &mut place.entry {
                let bucket = entry.hash as usize & (count - 1);
                entry.next_of_bucket = std::mem::replace(&mut self.buckets[bucket], slot as u32);
            }
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

/// The end of a list.
pub const NONE: u32 = u32::MAX;
const BUCKETS_MIN: usize = 64;
/// Buffers that are kept for use again, and how long one of them may be.
const BUFFERS_MAX: usize = 1024;
const BUFFER_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn flow(slot: u32) -> FlowKey {
        FlowKey {
            core: 0,
            slot,
            generation: 0,
        }
    }

    fn start(hash: u64, ingress: u32) -> Start {
        Start {
            hash,
            machines: Machines::Other(other_server::State::Trying, other_client::State::Trying),
            ingress: flow(ingress),
            keep_alive: false,
            is_register: false,
            at: Instant::now(),
        }
    }

    #[test]
    fn an_id_names_one_transaction_for_ever_and_buffers_are_used_again() {
        let mut table = Table::new();
        let first = table.insert(start(5, 0));
        table.keep(first, &[1; 900]);
        assert_eq!((table.len(), table.kept_bytes()), (1, 900));
        assert!(table.remove(first).is_some());
        assert_eq!((table.len(), table.kept_bytes()), (0, 0));
        let second = table.insert(start(5, 0));
        assert_eq!(first.slot, second.slot);
        assert!(table.get(first).is_none() && table.remove(first).is_none());
        let entry = table.get(second).expect("there");
        assert!(entry.kept.is_empty() && entry.kept.capacity() >= 900);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Place>() <= 192, "{}", size_of::<Place>());
    }

    #[test]
    fn equal_hashes_of_two_connections_are_two_transactions() {
        let mut table = Table::new();
        let (one, two) = (table.insert(start(9, 1)), table.insert(start(9, 2)));
        assert_eq!(table.find(9, flow(1)), Some(one));
        assert_eq!(table.find(9, flow(2)), Some(two));
        assert_eq!(table.find(9, flow(3)), None);
        table.remove(two);
        assert_eq!(table.find(9, flow(1)), Some(one));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u32, usize),
        Remove(usize),
        Close(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..40u64, 0..4u32, 0..3usize).prop_map(|(h, i, e)| Step::Insert(h, i, e)),
            2 => any::<usize>().prop_map(Step::Remove),
            1 => (0..3usize).prop_map(Step::Close),
        ]
    }

    proptest! {
        /// The oracle is a plain list; connections' lists hold exactly what goes over them.
        #[test]
        fn agrees_with_a_plain_list(steps in proptest::collection::vec(step(), 1..300)) {
            let mut table = Table::new();
            let mut firsts = [NONE; 3];
            let mut list: Vec<(TransactionId, u64, u32, usize)> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(hash, ingress, egress) => {
                        if table.find(hash, flow(ingress)).is_some() {
                            continue;
                        }
                        let id = table.insert(start(hash, ingress));
                        table.link(id, &mut firsts[egress]);
                        list.push((id, hash, ingress, egress));
                    }
                    Step::Remove(at) if !list.is_empty() => {
                        let (id, _, _, egress) = list.swap_remove(at % list.len());
                        table.unlink(id, Some(&mut firsts[egress]));
                        prop_assert!(table.remove(id).is_some());
                    }
                    Step::Remove(_) => {}
                    Step::Close(egress) => {
                        let mut of_it: Vec<_> = list.iter().filter(|one| one.3 == egress).map(|one| one.0).collect();
                        let (mut at, mut walked) = (firsts[egress], Vec::new());
                        while let Some((id, next)) = table.follow(at) {
                            walked.push(id);
                            at = next;
                        }
                        walked.sort_unstable();
                        of_it.sort_unstable();
                        prop_assert_eq!(walked, of_it);
                    }
                }
                prop_assert_eq!(table.len(), list.len());
                for &(id, hash, ingress, _) in &list {
                    prop_assert_eq!(table.find(hash, flow(ingress)), Some(id));
                }
            }
        }
    }
}

//! The streams of one core's flows, by the slots that the proxy gave them.

use edge_common::net::stream::Stream;

use crate::proxy::token::{FlowKey, Realm};

/// Streams by slot. The proxy's own table says which slots are in use; this one follows it.
#[derive(Debug, Default)]
pub(super) struct Streams(Vec<Option<Place>>);

#[derive(Debug)]
struct Place {
    key: FlowKey,
    realm: Realm,
    stream: Stream,
}

impl Streams {
    /// Takes in the stream of a new flow.
    pub(super) fn insert(&mut self, key: FlowKey, realm: Realm, stream: Stream) {
        let slot = key.slot as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(Place { key, realm, stream });
    }

    /// The stream of a flow that is still there.
    #[must_use]
    pub(super) fn get(&self, key: FlowKey) -> Option<&Stream> {
        self.place(key).map(|place| &place.stream)
    }

    /// The same, with the kind of its far end.
    #[must_use]
    pub(super) fn with_realm(&self, key: FlowKey) -> Option<(Realm, &Stream)> {
        self.place(key).map(|place| (place.realm, &place.stream))
    }

    /// Lets a flow's stream go.
    pub(super) fn remove(&mut self, key: FlowKey) -> Option<Stream> {
        self.get(key)?;
        self.0[key.slot as usize].take().map(|place| place.stream)
    }

    /// All that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.0.iter().flatten().map(|place| &place.stream)
    }

    fn place(&self, key: FlowKey) -> Option<&Place> {
        let place = self.0.get(key.slot as usize)?.as_ref()?;
        (place.key == key).then_some(place)
    }
}

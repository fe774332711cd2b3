//! The streams of one core's flows, by the slots that the proxy gave them.

use edge_common::net::stream::Stream;

use crate::proxy::token::{FlowKey, Realm};
use crate::ws::write;

/// Streams by slot. The proxy's own table says which slots are in use; this one follows it.
#[derive(Debug, Default)]
pub(super) struct Streams(Vec<Option<Place>>);

/// One flow's way out.
#[derive(Debug)]
pub(super) struct Place {
    key: FlowKey,
    pub(super) realm: Realm,
    /// What it sends goes in frames of a WebSocket.
    pub(super) web: bool,
    pub(super) stream: Stream,
}

impl Streams {
    /// Takes in the stream of a new flow.
    pub(super) fn insert(&mut self, key: FlowKey, realm: Realm, stream: Stream) {
        let slot = key.slot as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(Place {
            key,
            realm,
            stream,
            web: false,
        });
    }

    /// From here on that flow's messages leave in frames; `false`: it is not there any more.
    pub(super) fn becomes_web(&mut self, key: FlowKey) -> bool {
        let place = self.0.get_mut(key.slot as usize).and_then(Option::as_mut);
        let Some(place) = place.filter(|place| place.key == key) else {
            return false;
        };
        place.web = true;
        true
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
    pub(super) fn remove(&mut self, key: FlowKey) -> Option<Place> {
        self.get(key)?;
        self.0[key.slot as usize].take()
    }

    /// All that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().flatten()
    }

    /// All that is known of a flow's way out.
    #[must_use]
    pub(super) fn place(&self, key: FlowKey) -> Option<&Place> {
        let place = self.0.get(key.slot as usize)?.as_ref()?;
        (place.key == key).then_some(place)
    }
}

impl Place {
    /// Ends the connection behind what is queued; a browser is told why with `code` (RFC 6455 §7.4).
    pub(super) fn close(&self, code: u16) {
        if self.web {
            let mut frame = Vec::new();
            write::close(code, &mut frame);
            // Without room for it the browser sees the connection end all the same.
            self.stream.queue(&frame).ok();
        }
        self.stream.close();
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_browser_makes_no_other_flow_larger() {
        let without_web = size_of::<(crate::proxy::token::FlowKey, usize)>();
        assert_eq!(size_of::<Option<Place>>(), without_web);
    }
}

//! Messages for connections of other members of the array, and those that other members have handed over.
//!
//! A request for a client of another member is edited like any other and goes to that member, which only sends it. The
//! response comes in there, is checked and edited by whoever knows the client, and comes back under our own Via; its
//! token tells the rest. What was handed over is for a connection of ours or for nobody: it never goes on to a member.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;
use edge_common::time::Now;

use super::hygiene::Crossing;
use super::refusal::{Drop, Refusal};
use super::token::{BranchToken, FlowKey, FlowRef, Realm};
use super::{
    EDITED_HEADERS, Event, Linked, LinkedKind, Output, Parcel, ParcelKind, Proxy, Unlinked,
};

impl Proxy {
    /// Another member handed over a message. It comes to the core that its connection is of, if that is one of ours.
    pub fn handle_linked(&mut self, now: Now, linked: Linked) {
        match linked.kind {
            LinkedKind::Request { outbound } if self.flow_ref(linked.to.key) == linked.to => {
                self.handle_parcel(
                    now,
                    Parcel {
                        to: linked.to.key,
                        bytes: linked.bytes,
                        kind: ParcelKind::Request { outbound },
                    },
                );
            }
            // The connection was one of an earlier run.
            LinkedKind::Request { outbound } => {
                self.bounce(now, &linked.bytes, Refusal::gone(outbound));
            }
            LinkedKind::Response => self.take_back(now, &linked.bytes),
        }
    }

    /// A message could not be put on its link.
    pub fn handle_unlinked(&mut self, now: Now, linked: &Linked, why: Unlinked) {
        match (linked.kind, why) {
            (LinkedKind::Request { outbound }, Unlinked::Down) => {
                self.bounce(now, &linked.bytes, Refusal::gone(outbound));
            }
            (LinkedKind::Request { .. }, Unlinked::Full) => {
                self.bounce(now, &linked.bytes, Refusal::Overload);
            }
            (LinkedKind::Response, Unlinked::Down) => {
                self.event(Event::Dropped(Drop::ResponseFlowGone));
            }
            (LinkedKind::Response, Unlinked::Full) => {
                self.event(Event::Dropped(Drop::ResponseLinkFull));
            }
        }
    }

    /// Whether a connection is one of a member that this one is not, as far as the configuration knows.
    pub(super) fn is_of_another_member(&self, flow: FlowRef) -> bool {
        self.settings
            .other_members
            .iter()
            .any(|(node, _)| *node == flow.node)
    }

    pub(super) fn link_out(&mut self, to: FlowRef, kind: LinkedKind, bytes: Vec<u8>) {
        self.push(Output::Link(Linked { to, kind, bytes }));
    }

    /// Sends a response to the member whose Via is on top.
    pub(super) fn pass_over(
        &mut self,
        now: Now,
        from: Option<FlowKey>,
        message: &Message<'_>,
        token: &BranchToken,
    ) -> Result<(), Drop> {
        let mut edits = std::mem::take(&mut self.edits);
        edits.clear();
        let crossing = from.and_then(|from| self.flows.get(from)).and_then(|flow| {
            match (flow.peer.realm(), token.realm) {
                // Whether the inside has accepted it only its own member knows.
                (Realm::Inside, Realm::Client) => Some(Crossing::ToStranger),
                (realm, towards) => self.crossing(realm, FlowKey::ELSEWHERE, towards, false),
            }
        });
        let edited = self.edit_source(now, from, crossing, message, token, &mut edits);
        let mut bytes = Vec::new();
        if edited.is_ok() {
            edits.write(message.bytes(), &mut bytes);
        }
        self.edits = edits;
        if let Some(step) = edited? {
            self.event(Event::Topology(step));
        }
        self.link_out(token.ingress, LinkedKind::Response, bytes);
        Ok(())
    }

    /// A response to a request that we had sent over a link. Who answered was checked there.
    fn take_back(&mut self, now: Now, bytes: &[u8]) {
        let mut index = Index::new(self.settings.limits.headers + EDITED_HEADERS);
        let Ok(message) = Message::parse(bytes, &mut index) else {
            self.event(Event::Dropped(Drop::ResponseMalformed));
            return;
        };
        let is_ours = |token: BranchToken| !self.is_of_another_member(token.ingress);
        if message.is_response() && self.top_token(&message).is_some_and(is_ours) {
            self.pass_own(now, &message);
        } else {
            self.event(Event::Dropped(Drop::ResponseUnknown));
        }
    }
}

//! Answers that the edge gives itself.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::SocketAddr;

use edge_common::sip::header::Name;
use edge_common::sip::header::cseq::CSeq;
use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;
use edge_common::sip::response::Response;
use edge_common::sip::uri::Host;

use super::flow::Peer;
use super::refusal::Refusal;
use super::request::Request;
use super::token::{FlowKey, Realm};
use super::trust::Source;
use super::{Event, Proxy, admission, policy, via};

impl Proxy {
    /// Refuses a request, unless it is one that nothing answers.
    pub(super) fn answer(&mut self, to: FlowKey, message: &Message<'_>, refusal: Refusal) {
        let Some(flow) = self.flows.get(to) else {
            return;
        };
        let (realm, remote) = (flow.peer.realm(), flow.remote);
        if let Some(drop) = Request::is_unanswered(message) {
            self.event(Event::Dropped(drop));
            return;
        }
        if let Some(Peer::Partner(partner)) = self.flows.get(to).map(|flow| &flow.peer) {
            partner.note(refusal.is_guess().then_some(false));
        }
        let hop = (realm != Realm::Inside).then_some((to, remote));
        if let Some(bytes) = self.compose(message, realm, hop, refusal) {
            self.transmit(to, |out| out.extend_from_slice(&bytes));
            self.event(Event::Answered(realm, refusal));
        }
    }

    /// The last word on a connection whose next message has a whole head but no certain end. Who left no
    /// Via would not know what the answer is to.
    pub(super) fn answer_head(&mut self, to: FlowKey, received: &[u8], refusal: Refusal) {
        let mut index = Index::new(self.settings.limits.headers);
        let Ok(message) = Message::parse(received, &mut index) else {
            return;
        };
        if !message.is_response() && message.first(Name::Via).is_some() {
            self.answer(to, &message, refusal);
        }
    }

    /// The last word on a connection whose next message has no head that can be read to its end: whoever put a Via
    /// before the fault is told.
    pub(super) fn answer_front(&mut self, to: FlowKey, received: &[u8], refusal: Refusal) {
        let mut index = Index::new(self.settings.limits.headers);
        let Some(message) = Message::parse_front(received, &mut index) else {
            return;
        };
        if !message.is_response() && message.first(Name::Via).is_some() {
            self.answer(to, &message, refusal);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "few refusals have a header of their own"
    )]
    /// The refusal as `realm` may read it; `None` for a request that nothing answers. Whoever sent it to us
    /// over `hop` is told in its own Via where we see it.
    pub(super) fn compose(
        &mut self,
        message: &Message<'_>,
        realm: Realm,
        hop: Option<(FlowKey, SocketAddr)>,
        refusal: Refusal,
    ) -> Option<Vec<u8>> {
        if Request::is_unanswered(message).is_some() {
            return None;
        }
        let (status, phrase) = refusal.status();
        let mut response = own_response(message, hop, status, phrase);
        response = match refusal {
            Refusal::Extension => response.header(Name::Unsupported, &unsupported(message)),
            Refusal::HopLocal => response.header(Name::Allow, ALLOW),
            Refusal::ServedElsewhere => match policy::served_at(&self.settings, message) {
                Some(edge) => {
                    response.header(Name::Contact, &format!("<sip:{edge};transport=tls>"))
                }
                None => response,
            },
            Refusal::RegistrationStorm => {
                let wait = admission::retry_after(message, &mut *self.rng);
                response.header(Name::RetryAfter, &wait.to_string())
            }
            _ if refusal.is_passing() => {
                let wait = RETRY_AFTER_MIN + self.rng.below(RETRY_AFTER_SPREAD);
                response.header(Name::RetryAfter, &wait.to_string())
            }
            _ => response,
        };
        if realm != Realm::Inside {
            let known = if realm == Realm::Partner {
                refusal.partner_diagnostic()
            } else {
                refusal.public_diagnostic()
            };
            if let Some((id, reason)) = known {
                let text = format!("{id};reason=\"{reason}\"");
                response = response.header(Name::MsDiagnosticsPublic, &text);
            }
            return Some(response.finish());
        }
        if let Some((id, reason)) = refusal.diagnostic() {
            let text = format!(
                "{id};reason=\"{reason}\";source=\"{}\"",
                self.settings.internal
            );
            response = response.header(Name::MsDiagnostics, &text);
        }
        let mut trust = Vec::new();
        Source::Edge.write_header(&self.settings.internal, &mut trust);
        Some(response.line(&trust).finish())
    }

    /// Says that we are there to whoever asks us, and nobody behind us, with OPTIONS.
    pub(super) fn answer_own_options(&mut self, key: FlowKey, request: &Request<'_>) -> bool {
        let asks_us = request.method == b"OPTIONS"
            && request.uri.user.is_none()
            && matches!(request.uri.host, Host::Name(host) if self.settings.is_own_host(host));
        if asks_us {
            let message = &request.message;
            let flow = self.flows.get(key);
            let outside = flow.filter(|flow| flow.peer.realm() != Realm::Inside);
            let hop = outside.map(|flow| (key, flow.remote));
            let bytes = own_response(message, hop, 200, "OK")
                .header(Name::Allow, ALLOW)
                .finish();
            self.transmit(key, |out| out.extend_from_slice(&bytes));
        }
        asks_us
    }
}

fn own_response(
    message: &Message<'_>,
    hop: Option<(FlowKey, SocketAddr)>,
    status: u16,
    phrase: &str,
) -> Response {
    let tag = to_tag(message);
    match hop {
        Some((flow, remote)) => Response::noting(message, status, phrase, &tag, |top, out| {
            via::write_answered(top, remote, flow, out);
        }),
        None => Response::to(message, status, phrase, &tag),
    }
}

/// Whether that is the ACK of a refusal of ours; it would be news to everybody behind us.
pub(super) fn is_ack_of_ours(request: &Request<'_>) -> bool {
    request.method == b"ACK" && request.to.tag == Some(to_tag(&request.message).as_bytes())
}

/// The same for a retransmission, as we keep no memory of the first answer (RFC 3261 §8.2.7), and for
/// the ACK of it, which differs only in its method and To tag.
pub(super) fn to_tag(message: &Message<'_>) -> String {
    let value = |name| message.first(name).map(|h| h.value()).unwrap_or_default();
    let cseq = CSeq::parse(value(Name::CSeq)).map_or(0, |cseq| cseq.number);
    let via = message.list(Name::Via).next();
    let parts = [
        value(Name::CallId),
        &cseq.to_be_bytes(),
        value(Name::From),
        via.as_ref().map(|via| via.text()).unwrap_or_default(),
    ];
    format!("e{:08x}", via::egress_mark(&parts))
}

fn unsupported(message: &Message<'_>) -> String {
    let Ok(request) = Request::read(*message) else {
        return String::new();
    };
    let tags: Vec<_> = policy::unknown_extensions(&request)
        .map(String::from_utf8_lossy)
        .collect();
    tags.join(", ")
}

/// What may pass the edge.
const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, SUBSCRIBE, NOTIFY, BENOTIFY, REFER, \
                     UPDATE, PRACK, REGISTER, SERVICE, PUBLISH";
/// Clients that were refused together should not come back together; some never come back after more
/// than a minute.
const RETRY_AFTER_MIN: u32 = 5;
const RETRY_AFTER_SPREAD: u32 = 26;

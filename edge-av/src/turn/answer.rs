//! Answers, granting and refusing ones.

use std::sync::Arc;
use std::time::Duration;

use edge_common::limit::Source;
use edge_common::time::Now;

use super::drop_reason::Reason;
use super::five_tuple::{FiveTuple, Transport};
use super::output::{Event, Output};
use super::refusal::Refusal;
use super::relayed::Relayed;
use super::{Request, Server};
use crate::stun::attribute::kind;
use crate::stun::fields::Fields;
use crate::stun::integrity::{Algorithm, Key};
use crate::stun::message::{Class, Message, Method};
use crate::stun::writer::Writer;

/// What a granted request gets.
pub(super) enum Reply {
    /// Nothing but yes.
    Done,
    /// LIFETIME.
    Lifetime(Duration),
    /// The relayed address and what goes with it.
    Allocated(Relayed, Duration),
    /// The answer comes when the socket is open.
    Later,
}

impl Server {
    pub(super) fn grant(&mut self, request: &Request<'_>, method: Method, reply: Reply) {
        if matches!(reply, Reply::Later) {
            return;
        }
        let answer = Writer::new(method, Class::Success, request.message.transaction());
        let answer = match reply {
            Reply::Done | Reply::Later => answer,
            Reply::Lifetime(lifetime) => answer.attribute(kind::LIFETIME, &seconds(lifetime)),
            Reply::Allocated(relayed, lifetime) => {
                self.allocated(answer, relayed, lifetime, request.from)
            }
        };
        let answer = answer.integrity(request.caller.algorithm, &request.caller.key);
        self.event(Event::Answered(method));
        self.transmit(request.from, finish_like(answer, request.fields));
    }

    fn allocated(
        &self,
        answer: Writer,
        relayed: Relayed,
        lifetime: Duration,
        client: FiveTuple,
    ) -> Writer {
        let answer = match self.public_address(relayed) {
            Some(address) => answer.xor_address(kind::XOR_RELAYED_ADDRESS, address),
            None => answer,
        };
        answer
            .attribute(kind::LIFETIME, &seconds(lifetime))
            .xor_address(kind::XOR_MAPPED_ADDRESS, client.client)
    }

    /// The answer that an Allocate has waited for.
    pub(super) fn greet(&mut self, relayed: Relayed, algorithm: Algorithm, fingerprint: bool) {
        let Some((allocation, address)) = self
            .allocation_at(relayed)
            .zip(self.public_address(relayed))
        else {
            return;
        };
        let (client, lifetime) = (allocation.client, allocation.first_lifetime);
        let answer = Writer::new(Method::Allocate, Class::Success, allocation.made_by);
        let answer = self
            .allocated(answer, relayed, lifetime, client)
            .integrity(algorithm, &allocation.key);
        self.event(Event::Answered(Method::Allocate));
        self.event(Event::Opened {
            client,
            relayed: address,
        });
        self.transmit(
            client,
            if fingerprint {
                answer.fingerprint()
            } else {
                answer
            },
        );
    }

    /// Somebody who has shown nothing gets few answers, unless it holds an allocation already.
    ///
    pub(super) fn refuse_stranger(
        &mut self,
        now: Now,
        from: FiveTuple,
        message: Message<'_>,
        fields: &Fields<'_>,
        refusal: Refusal,
    ) {
        if !self.may_answer(now, from) {
            return self.drop(Reason::StrangerBudget);
        }
        self.refuse(from, message, fields, refusal, None, now);
    }

    /// Whether `from` may be answered although it has proven nothing.
    ///
    /// A flood of datagrams in somebody else's name can use up what is meant for that address. Then a new client there
    /// gets no challenge by UDP while the flood lasts, and has to come by TCP, which has a budget of its own: no
    /// address can be borrowed there. Who holds an allocation, and who shows credentials with a nonce, is not
    /// concerned. To answer all would be worse: this server would be the flood's amplifier against that very address.
    pub(super) fn may_answer(&self, now: Now, from: FiveTuple) -> bool {
        let budget = match self.listener(from.listener).map(|own| own.transport) {
            Some(Transport::Tcp) => &self.shared.stream_strangers,
            Some(Transport::Udp) | None => &self.shared.strangers,
        };
        self.is_known(from) || budget.take(now, Source::from(from.client.ip()))
    }

    pub(super) fn refuse(
        &mut self,
        from: FiveTuple,
        message: Message<'_>,
        fields: &Fields<'_>,
        refusal: Refusal,
        signer: Option<(Arc<Key>, Algorithm)>,
        now: Now,
    ) {
        let method = message.method();
        let mut answer =
            Writer::new(method, Class::Error, message.transaction()).error_code(refusal.code());
        if refusal == Refusal::UnknownAttribute {
            answer = answer.attribute(kind::UNKNOWN_ATTRIBUTES, &fields.unknown.to_bytes());
        }
        if refusal.is_challenge() {
            answer = answer
                .attribute(kind::REALM, self.settings.realm.as_bytes())
                .attribute(
                    kind::NONCE,
                    &self.shared.nonces.issue(now, from.client.ip()),
                );
        } else if let Some((key, algorithm)) = signer {
            answer = answer.integrity(algorithm, &key);
        }
        self.event(Event::Refused(method, refusal));
        self.transmit(from, finish_like(answer, fields));
    }

    pub(super) fn transmit(&mut self, to: FiveTuple, answer: Writer) {
        self.outputs.push_back(Output::Transmit {
            to,
            bytes: answer.finish(),
        });
    }
}

/// An answer carries FINGERPRINT when the request did.
fn finish_like(answer: Writer, request: &Fields<'_>) -> Writer {
    if request.fingerprint.is_some() {
        answer.fingerprint()
    } else {
        answer
    }
}

fn seconds(duration: Duration) -> [u8; 4] {
    (duration.as_secs() as u32).to_be_bytes()
}

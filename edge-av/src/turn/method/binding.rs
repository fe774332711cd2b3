//! Binding: which address do you see? (RFC 8489 §2, RFC 3489 §8.1)

use edge_common::time::Now;

use crate::stun::attribute::kind;
use crate::stun::fields::Fields;
use crate::stun::message::{Class, Era, Message, Method};
use crate::stun::writer::Writer;
use crate::turn::Server;
use crate::turn::drop_reason::Reason;
use crate::turn::five_tuple::FiveTuple;
use crate::turn::output::Event;
use crate::turn::refusal::Refusal;

impl Server {
    /// Anybody may ask, so the answer is as short as it can be and comes out of the source's budget.
    pub(in crate::turn) fn handle_binding(
        &mut self,
        now: Now,
        from: FiveTuple,
        message: Message<'_>,
        fields: &Fields<'_>,
    ) {
        if !self.may_answer(now, from) {
            return self.drop(Reason::StrangerBudget);
        }
        if !fields.unknown.is_empty() {
            return self.refuse(from, message, fields, Refusal::UnknownAttribute, None, now);
        }
        let answer = Writer::new(Method::Binding, Class::Success, message.transaction());
        let answer = match message.era() {
            Era::Cookie => answer.xor_address(kind::XOR_MAPPED_ADDRESS, from.client),
            Era::Classic => answer.address(kind::MAPPED_ADDRESS, from.client),
        };
        self.event(Event::Answered(Method::Binding));
        self.transmit(
            from,
            if fields.fingerprint.is_some() {
                answer.fingerprint()
            } else {
                answer
            },
        );
    }
}

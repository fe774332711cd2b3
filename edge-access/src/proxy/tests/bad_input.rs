//! Every odd and wrong message, cut at every byte: what is answered, counted and forwarded.

use edge_common::sip::framer::{Framer, Opener, Step};

use super::world::World;
use crate::proxy::Event;
use crate::proxy::token::FlowKey;

#[path = "../../../tests/support/torture.rs"]
mod torture;

use torture::Must::{Answer, AnswerAndClose, Close, Drop, Forward, ForwardAndClose, Wait};
use torture::Sender::{Director, Partner, Stranger, User};
use torture::{Case, Must, bytes, torture_cases, usual};

/// What the edge did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Messages that reached anybody but their sender.
    forwarded: usize,
    /// Final answers to the sender: their status, and the counters of refusals.
    answers: Vec<u16>,
    refused: Vec<&'static str>,
    dropped: Vec<&'static str>,
    closed: Option<&'static str>,
}

struct Stage {
    world: World,
    sender: FlowKey,
    everybody: Vec<FlowKey>,
    bytes: Vec<u8>,
}

impl Stage {
    fn set(case: &Case) -> Self {
        let mut world = World::new();
        let director = world.next_hop(0);
        let (user, stranger) = (world.promoted(0), world.client(0));
        let partner = world.partner(0, "sip.fabrikam.test", None);
        let mut vias = String::new();
        if case.sender == Director {
            world.receive(user, bytes(&usual(torture::M, ""), b""));
            let asked = world.sent(director).expect("forwarded");
            let lines = asked.split_inclusive("\r\n");
            vias.extend(lines.filter(|line| line.starts_with("Via: ")));
            world.events.clear();
        }
        Self {
            world,
            sender: match case.sender {
                User => user,
                Stranger => stranger,
                Partner => partner,
                Director => director,
            },
            everybody: vec![director, user, stranger, partner],
            bytes: replaced(&case.bytes, b"Via: @\r\n", vias.as_bytes()),
        }
    }

    /// Sends the bytes in these pieces.
    fn send(&mut self, pieces: &[&[u8]]) -> Seen {
        let core = usize::from(self.sender.core);
        let limits = self.world.cores[core].frame_limits(self.sender);
        let mut framer = Framer::new(Opener::Remote, limits);
        let mut received = Vec::new();
        for piece in pieces {
            received.extend_from_slice(piece);
            while self.world.closed.is_empty() {
                let len = match framer.next(&received) {
                    Ok(Step::NeedMore) => break,
                    Ok(Step::Message { len }) => {
                        self.world.receive(self.sender, &received[..len]);
                        len
                    }
                    Ok(Step::Skip { len } | Step::Ping { len } | Step::Pong { len }) => len,
                    Err(error) => {
                        self.world.cores[core].handle_frame_error(self.sender, &received, error);
                        self.world.drain();
                        received.len()
                    }
                };
                received.drain(..len);
            }
        }
        self.collect()
    }

    fn collect(&mut self) -> Seen {
        let mut seen = Seen::default();
        for at in self.everybody.clone() {
            while let Some(sent) = self.world.sent(at) {
                assert!(!sent.contains("AuthorizedServer"), "{sent}");
                let status = sent.strip_prefix("SIP/2.0 ").map(|rest| rest[..3].parse());
                match status {
                    Some(Ok(100)) if at == self.sender => {}
                    Some(Ok(status)) if at == self.sender => seen.answers.push(status),
                    _ => seen.forwarded += 1,
                }
            }
        }
        for event in self.world.events.drain(..) {
            if let Event::Answered(_, refusal) = event {
                seen.refused.push(refusal.label());
            } else if let Event::Dropped(drop) = event {
                seen.dropped.push(drop.label());
            }
        }
        seen.closed = self.world.closed.first().map(|(_, reason)| reason.label());
        seen
    }
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match text.windows(from.len()).position(|window| window == from) {
        Some(at) => [&text[..at], to, &text[at + from.len()..]].concat(),
        None => text.to_vec(),
    }
}

fn expected(must: Must) -> Seen {
    let mut seen = Seen::default();
    match must {
        Forward(count) => seen.forwarded = count,
        ForwardAndClose(count, reason) => {
            (seen.forwarded, seen.closed) = (count, Some(reason));
        }
        Answer(status, reason) => {
            (seen.answers, seen.refused) = (vec![status], vec![reason]);
        }
        AnswerAndClose(status, reason, closed) => {
            (seen.answers, seen.refused) = (vec![status], vec![reason]);
            seen.closed = Some(closed);
        }
        Close(reason) => seen.closed = Some(reason),
        Drop(reason) => seen.dropped = vec![reason],
        Wait => {}
    }
    seen
}

fn check(case: &Case) {
    let whole = case.bytes.clone();
    let mut stage = Stage::set(case);
    let sent = stage.bytes.clone();
    assert_eq!(stage.send(&[&sent]), expected(case.must), "{}", case.name);
    let drip: Vec<&[u8]> = sent.chunks(1).collect();
    if whole.len() <= EVERY_CUT_MAX {
        assert_eq!(
            Stage::set(case).send(&drip),
            expected(case.must),
            "{} byte by byte",
            case.name
        );
    }
    let step = sent.len() / EVERY_CUT_MAX + 1;
    for cut in (1..sent.len()).step_by(step) {
        let seen = Stage::set(case).send(&[&sent[..cut], &sent[cut..]]);
        assert_eq!(seen, expected(case.must), "{} cut at {cut}", case.name);
    }
}

macro_rules! each {
    ($($name:ident: $sender:ident, $must:expr, $bytes:expr;)*) => { $(
        #[test]
        fn $name() {
            use torture::*;
            check(&Case { name: stringify!($name), sender: $sender, must: $must, bytes: $bytes });
        }
    )* };
}

torture_cases!(each);

/// Longer messages are cut at some bytes only.
const EVERY_CUT_MAX: usize = 1200;

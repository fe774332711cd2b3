//! How much is taken on when there is too much: registrations at the rate that the Director bears, and
//! the less urgent requests not at all while the way inside fills up.
//!
//! ```text
//!  REGISTER ──► tokens of the present rate ──► Director
//!                  ▲ + a little for a quick answer, half for a late one or a 503
//!  request ──► how urgent? ──► how full is the way inside? ──► on, or 503
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::time::{Duration, Instant};

use edge_common::random::Random;
use edge_common::sip::header::Name;
use edge_common::sip::message::Message;
use edge_common::time::Now;

use super::Proxy;
use super::flow::{Peer, Standing};
use super::refusal::Refusal;
use super::request::Request;
use super::route::Routes;
use super::token::FlowKey;
use super::transaction::TransactionId;

/// The rate of registrations: additive increase, multiplicative decrease.
///
/// It starts at its upper bound, so that it is felt only when the Director is.
#[derive(Debug)]
pub struct Admission {
    /// A second, at present.
    rate: u32,
    rate_max: u32,
    /// Thousandths of a registration that may go at once.
    tokens: u64,
    counted: Instant,
    /// No sooner than this the rate is halved again: what is under way was sent under the old one.
    next_cut: Instant,
    next_raise: Instant,
}

/// What a registration is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Of a client that is signed in, or is answering a challenge: it has work behind it already.
    Begun,
    /// Of a client that comes anew.
    New,
}

/// What came of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The Director answered after that time.
    Answered(Duration),
    /// It said 503, or nothing.
    Failed,
}

impl Admission {
    /// At most `rate_max` a second.
    #[must_use]
    pub fn new(now: Instant, rate_max: u32) -> Self {
        Self {
            rate: rate_max,
            rate_max,
            tokens: u64::from(rate_max) * TOKEN,
            counted: now,
            next_cut: now,
            next_raise: now,
        }
    }

    /// Another bound.
    pub fn set_max(&mut self, rate_max: u32) {
        self.rate_max = rate_max;
        self.rate = self.rate.min(rate_max);
    }

    /// Registrations a second that are let through at present.
    #[must_use]
    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// Whether one more may go. A quarter of what there is stays for those that have begun.
    pub fn take(&mut self, now: Instant, what: Registration) -> bool {
        let burst = u64::from(self.rate) * TOKEN;
        let gained =
            now.saturating_duration_since(self.counted).as_micros() * u128::from(self.rate) / 1000;
        if gained > 0 {
            self.counted = now;
            let gained = u64::try_from(gained).unwrap_or(burst);
            self.tokens = self.tokens.saturating_add(gained).min(burst);
        }
        let reserve = match what {
            Registration::Begun => 0,
            Registration::New => burst / 4,
        };
        if self.tokens < reserve + TOKEN {
            return false;
        }
        self.tokens -= TOKEN;
        true
    }

    /// Takes in how the Director did.
    pub fn note(&mut self, now: Instant, outcome: Outcome) {
        let is_good = matches!(outcome, Outcome::Answered(after) if after <= LATENCY_MAX);
        if is_good && now >= self.next_raise {
            self.rate = (self.rate + self.rate_max.div_ceil(RAISE)).min(self.rate_max);
            self.next_raise = now + STEP;
        } else if !is_good && now >= self.next_cut {
            self.rate = (self.rate / 2).max(RATE_MIN.min(self.rate_max));
            self.next_cut = now + STEP;
            self.next_raise = now + STEP;
        }
    }
}

/// How full the way inside is, in hundredths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(pub u8);

/// Kinds of requests, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// ACK, BYE and CANCEL: they end work.
    Ends,
    /// Any other request of a dialog.
    InDialog,
    /// A REGISTER of a client that is signed in.
    Refresh,
    /// A new call.
    Invite,
    /// MESSAGE, and whatever has no line of its own.
    Message,
    /// A new subscription.
    Subscribe,
    /// OPTIONS.
    Options,
    /// Anything of a client that the inside has not accepted.
    Newcomer,
}

impl Urgency {
    /// Of a request from outside.
    #[must_use]
    pub fn of(request: &Request<'_>, is_newcomer: bool, in_dialog: bool) -> Self {
        match request.method {
            b"ACK" | b"BYE" | b"CANCEL" => Self::Ends,
            _ if is_newcomer => Self::Newcomer,
            _ if in_dialog => Self::InDialog,
            b"REGISTER" => Self::Refresh,
            b"INVITE" => Self::Invite,
            b"SUBSCRIBE" => Self::Subscribe,
            b"OPTIONS" => Self::Options,
            _ => Self::Message,
        }
    }

    /// Up to which load it is let through.
    #[must_use]
    pub const fn bears(self) -> Load {
        Load(match self {
            Self::Ends => u8::MAX,
            Self::InDialog => 95,
            Self::Refresh => 90,
            Self::Invite => 80,
            Self::Message => 70,
            Self::Subscribe => 60,
            Self::Options => 50,
            Self::Newcomer => 40,
        })
    }
}

/// When a client that was turned away should come back: spread, so that they do not come back together.
///
/// Clients of the Communicator family wait as long as they are told; others are known to give up when that is long.
pub(super) fn retry_after(request: &Message<'_>, rng: &mut dyn Random) -> u32 {
    let agent = request
        .first(Name::UserAgent)
        .map(|agent| agent.value())
        .unwrap_or_default();
    let patient = PATIENT
        .iter()
        .any(|name| agent.starts_with(name.as_bytes()));
    let spread = if patient { AFTER_PATIENT } else { AFTER_OTHERS };
    AFTER_MIN + rng.below(spread - AFTER_MIN + 1)
}

impl Proxy {
    /// How many bytes wait in the fullest of the queues towards the next hop.
    pub fn handle_backlog(&mut self, bytes: usize) {
        let bytes_max = self.settings.limits.server_queue.max(1);
        let hundredths = (bytes * 100).div_ceil(bytes_max);
        self.load = Load(u8::try_from(hundredths).unwrap_or(u8::MAX));
    }

    /// With more bytes in a queue towards the next hop nothing more is read from those who would add to them.
    #[must_use]
    pub fn backlog_max(&self) -> usize {
        self.settings.limits.server_queue / 100 * HELD_BACK
    }

    /// Turns away what the inside could not take.
    pub(super) fn admit_work(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
    ) -> Result<(), Refusal> {
        // It was let in when it came.
        if self.again.is_some() {
            return Ok(());
        }
        let peer = self.flows.get(key).map(|flow| &flow.peer);
        let is_newcomer = matches!(peer, Some(Peer::Client(Standing::Newcomer { .. })));
        let in_dialog = routes.in_dialog || request.to.tag.is_some();
        if self.load > Urgency::of(request, is_newcomer, in_dialog).bears() {
            return Err(Refusal::LowPriority);
        }
        if request.method != b"REGISTER" {
            return Ok(());
        }
        let has_answer = request.message.first(Name::Authorization).is_some();
        let what = if is_newcomer && !has_answer {
            Registration::New
        } else {
            Registration::Begun
        };
        if self.admission.take(now.mono, what) {
            Ok(())
        } else {
            Err(Refusal::RegistrationStorm)
        }
    }

    /// Learns from the answer to a REGISTER; a status of 0 is no answer.
    pub(super) fn measure(&mut self, now: Now, id: TransactionId, status: u16) {
        let Some(entry) = self.transactions.get(id).filter(|entry| entry.is_register) else {
            return;
        };
        let outcome = match status {
            0 | 503 => Outcome::Failed,
            1..=199 => return,
            _ => Outcome::Answered(now.mono.saturating_duration_since(entry.sent)),
        };
        self.admission.note(now.mono, outcome);
    }
}

/// Hundredths of a queue. Even of what is urgent there can be too much.
const HELD_BACK: usize = 97;
/// What one registration costs.
const TOKEN: u64 = 1000;
/// The rate never falls below this.
const RATE_MIN: u32 = 2;
/// Quick answers bring back a fiftieth of the full rate in each step.
const RAISE: u32 = 50;
/// How often the rate changes at most.
const STEP: Duration = Duration::from_secs(1);
/// A Director that takes longer has too much to do.
const LATENCY_MAX: Duration = Duration::from_secs(1);
/// Seconds. SIP.js and others stop for good when they are told to wait for more than a minute or so.
const AFTER_MIN: u32 = 30;
const AFTER_OTHERS: u32 = 60;
const AFTER_PATIENT: u32 = 300;
/// How the User-Agent of Communicator clients begins.
const PATIENT: [&str; 4] = ["UCCAPI/", "OC/", "RTC/", "CPE/"];

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::random::Seeded;
    use edge_common::sip::parse::Index;
    use std::fmt::Write as _;

    /// A Director with a queue: it serves so many a second, and each waits for those before it.
    #[test]
    fn the_rate_settles_at_what_the_director_takes_and_comes_back() {
        let start = Instant::now();
        let mut admission = Admission::new(start, 1000);
        let run = |admission: &mut Admission, from: u32, seconds: u32, capacity: u32| {
            let (mut queue, mut admitted) = (0f64, 0);
            for ms in from * 1000..(from + seconds) * 1000 {
                let now = start + Duration::from_millis(ms.into());
                queue = (queue - f64::from(capacity) / 1000.0).max(0.0);
                // A storm: five come in each millisecond.
                for _ in 0..5 {
                    if admission.take(now, Registration::Begun) {
                        admitted += 1;
                        queue += 1.0;
                        let wait = Duration::from_secs_f64(queue / f64::from(capacity));
                        admission.note(now, Outcome::Answered(wait));
                    }
                }
            }
            admitted / seconds
        };
        assert!(
            run(&mut admission, 0, 10, 2000) > 950,
            "nothing is held back without need"
        );
        run(&mut admission, 10, 20, 200);
        let slow = run(&mut admission, 30, 60, 200);
        assert!((100..=260).contains(&slow), "{slow}");
        run(&mut admission, 90, 60, 2000);
        assert_eq!(admission.rate(), 1000);
    }

    #[test]
    fn a_part_is_kept_for_those_that_have_begun() {
        let now = Instant::now();
        let mut admission = Admission::new(now, 8);
        let taken =
            |admission: &mut Admission, what| (0..20).filter(|_| admission.take(now, what)).count();
        assert_eq!(taken(&mut admission, Registration::New), 6);
        assert_eq!(taken(&mut admission, Registration::Begun), 2);
        let later = now + Duration::from_secs(1);
        assert!(admission.take(later, Registration::New));
    }

    #[test]
    fn the_rate_never_falls_to_nothing_and_falls_once_a_second() {
        let now = Instant::now();
        let mut admission = Admission::new(now, 100);
        for _ in 0..50 {
            admission.note(now, Outcome::Failed);
        }
        assert_eq!(admission.rate(), 50);
        for second in 1..20 {
            admission.note(now + Duration::from_secs(second), Outcome::Failed);
        }
        assert_eq!(admission.rate(), 2);
    }

    #[test]
    fn who_is_turned_away_comes_back_spread_over_a_time_that_he_bears() {
        let waits = |agent: &str| {
            let text = format!("REGISTER sip:a SIP/2.0\r\nUser-Agent: {agent}\r\n\r\n");
            let mut index = Index::new(4);
            let message = Message::parse(text.as_bytes(), &mut index).expect("lawful");
            let mut rng = Seeded::new(1);
            let all: Vec<_> = (0..4000).map(|_| retry_after(&message, &mut rng)).collect();
            (all.iter().min().copied(), all.iter().max().copied(), all)
        };
        let (min, max, all) = waits("baresip v1.0.0");
        assert_eq!((min, max), (Some(30), Some(60)));
        let first_half = all.iter().filter(|&&wait| wait < 45).count();
        assert!((1700..=2200).contains(&first_half), "{first_half}");
        let (min, max, _) = waits("UCCAPI/3.5.6907.0 OC/3.5.6907.0");
        assert_eq!((min, max), (Some(30), Some(300)));
    }

    #[test]
    fn the_order_of_urgency() {
        let mut table = String::new();
        for load in [0, 45, 55, 65, 75, 85, 92, 100] {
            let passes: Vec<_> = [
                Urgency::Ends,
                Urgency::InDialog,
                Urgency::Refresh,
                Urgency::Invite,
                Urgency::Message,
                Urgency::Subscribe,
                Urgency::Options,
                Urgency::Newcomer,
            ]
            .into_iter()
            .filter(|urgency| Load(load) <= urgency.bears())
            .collect();
            writeln!(table, "{load:3} %: {passes:?}").expect("a String takes everything");
        }
        insta::assert_snapshot!(table);
    }
}

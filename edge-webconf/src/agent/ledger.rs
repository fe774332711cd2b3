//! What the agent has admitted, and how often it was used.
//!
//! Each edge of an array knows a number by itself and counts its uses by itself. Every use ends
//! here in an OPEN, so here a number is used up for all of them.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use edge_common::config::webconf::TOKEN_LIFETIME_MAX;
use edge_common::join_token::SKEW;
use edge_common::time::{Now, UnixTime};

use crate::ewrp::control::{Admit, TTL_MS_MAX};
use crate::ewrp::{Number, Status};

/// The numbers of one agent.
#[derive(Debug)]
pub struct Ledger {
    entries: BTreeMap<Number, Entry>,
    by_expiry: BTreeSet<(Instant, Number)>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    reg_id: u32,
    uses_left: u16,
    expires: Instant,
    /// A token that was revoked; edges that come back are told so.
    revoked: bool,
}

impl Ledger {
    /// An empty ledger for so many numbers.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            capacity,
        }
    }

    /// Enters a number that nobody has; `false` when it is taken, or the ledger is full.
    pub fn enter(&mut self, now: Instant, admit: &Admit) -> bool {
        self.expire(now);
        if self.entries.len() >= self.capacity || self.entries.contains_key(&admit.number) {
            return false;
        }
        let expires = now + Duration::from_millis(admit.ttl_ms.into());
        self.by_expiry.insert((expires, admit.number));
        self.entries.insert(
            admit.number,
            Entry {
                reg_id: admit.reg_id,
                uses_left: admit.uses,
                expires,
                revoked: false,
            },
        );
        true
    }

    /// Forgets a number that no edge has taken.
    pub fn forget(&mut self, number: Number) {
        if let Some(entry) = self.entries.remove(&number) {
            self.by_expiry.remove(&(entry.expires, number));
        }
    }

    /// Nobody comes in by this number any more. It stays taken for its time, and a token for as long as any edge may take
    /// it, whoever has signed it. `false`: a token that cannot be remembered, because the ledger is full.
    pub fn revoke(&mut self, now: Instant, number: Number) -> bool {
        self.expire(now);
        let is_of_token = number.is_of_token();
        let old = self.entries.get(&number).copied();
        if old.is_none() && (!is_of_token || self.entries.len() >= self.capacity) {
            return !is_of_token;
        }
        let expires = old.map_or(now, |entry| entry.expires);
        let expires = if is_of_token {
            expires.max(now + TOKEN_LIFETIME_MAX + 2 * SKEW)
        } else {
            expires
        };
        let entry = Entry {
            reg_id: old.map_or(0, |entry| entry.reg_id),
            uses_left: 0,
            expires,
            revoked: is_of_token,
        };
        if let Some(old) = old {
            self.by_expiry.remove(&(old.expires, number));
        }
        self.by_expiry.insert((expires, number));
        self.entries.insert(number, entry);
        true
    }

    /// The tokens that were revoked: an edge that has forgotten everything has to be told of these again, too.
    pub fn revoked(&self) -> impl Iterator<Item = Number> + '_ {
        let entries = self.entries.iter();
        entries.filter_map(|(&number, entry)| entry.revoked.then_some(number))
    }

    /// Whether this number was admitted here and has no use left.
    #[must_use]
    pub fn is_spent(&self, number: Number) -> bool {
        let entry = self.entries.get(&number);
        number.is_admissible() && entry.is_some_and(|entry| entry.uses_left == 0)
    }

    /// All of it, to be written down.
    pub fn lines(&self, now: Now) -> impl Iterator<Item = Line> + '_ {
        self.entries.iter().map(move |(&number, entry)| Line {
            number,
            reg_id: entry.reg_id,
            uses_left: entry.uses_left,
            revoked: entry.revoked,
            expires: now.unix + entry.expires.saturating_duration_since(now.mono),
        })
    }

    /// Enters what an earlier run has written down, if it is not over; `false`: it is over, or there is no room.
    pub fn restore(&mut self, now: Now, line: &Line) -> bool {
        let longest = if line.number.is_of_token() {
            TOKEN_LIFETIME_MAX + 2 * SKEW
        } else {
            Duration::from_millis(TTL_MS_MAX.into())
        };
        let left = line.expires.checked_duration_since(now.unix);
        // A clock that was set back prolongs nothing.
        let left = left.unwrap_or_default().min(longest);
        let is_known = self.entries.contains_key(&line.number);
        if left.is_zero() || is_known || self.entries.len() >= self.capacity {
            return false;
        }
        let expires = now.mono + left;
        self.by_expiry.insert((expires, line.number));
        let entry = Entry {
            reg_id: line.reg_id,
            uses_left: line.uses_left,
            expires,
            revoked: line.revoked,
        };
        self.entries.insert(line.number, entry);
        true
    }

    /// A client came with this number: takes one use of it. A little time is given beyond the end,
    /// because the edge has let it through before. What stands for a token that somebody else has signed counts
    /// `token_uses` times.
    pub fn open(&mut self, now: Instant, number: Number, reg_id: u32, token_uses: u16) -> Status {
        if token_uses > 0 && number.is_of_token() && !self.entries.contains_key(&number) {
            return self.enter_token(now, number, reg_id, token_uses);
        }
        match self.entries.get_mut(&number) {
            None => Status::TokenUnknown,
            Some(entry) if entry.reg_id != reg_id => Status::TokenUnknown,
            Some(entry) if entry.expires + GRACE <= now => Status::TokenExpired,
            Some(entry) => match entry.uses_left.checked_sub(1) {
                None => Status::TokenUsed,
                Some(left) => {
                    entry.uses_left = left;
                    Status::Ok
                }
            },
        }
    }

    /// Remembers the first use of a token for as long as an edge may take it.
    fn enter_token(&mut self, now: Instant, number: Number, reg_id: u32, uses: u16) -> Status {
        self.expire(now);
        if self.entries.len() >= self.capacity {
            return Status::Limit;
        }
        let expires = now + TOKEN_LIFETIME_MAX + SKEW;
        self.by_expiry.insert((expires, number));
        let entry = Entry {
            reg_id,
            uses_left: uses.saturating_sub(1),
            expires,
            revoked: false,
        };
        self.entries.insert(number, entry);
        Status::Ok
    }

    /// What an edge that has forgotten everything has to be told again.
    pub fn still_open(&self, now: Instant) -> impl Iterator<Item = Admit> + '_ {
        self.entries.iter().filter_map(move |(&number, entry)| {
            let left = entry.expires.checked_duration_since(now)?;
            let ttl_ms = u32::try_from(left.as_millis()).ok()?.min(TTL_MS_MAX);
            let open = ttl_ms > 0 && entry.uses_left > 0 && !number.is_of_token();
            open.then_some(Admit {
                reg_id: entry.reg_id,
                number,
                ttl_ms,
                uses: entry.uses_left,
            })
        })
    }

    /// Forgets what is over, and what comes after it within the grace.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(expires, number)) = self.by_expiry.first()
            && expires + GRACE <= now
        {
            self.by_expiry.remove(&(expires, number));
            self.entries.remove(&number);
        }
    }

    /// How many numbers it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// One number, as it outlives the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number.
    pub number: Number,
    /// Its registration; 0 for a token that was revoked unseen.
    pub reg_id: u32,
    /// How often it may still be used.
    pub uses_left: u16,
    /// A token that was revoked.
    pub revoked: bool,
    /// When its time is over, by the clock on the wall.
    pub expires: UnixTime,
}

/// The longest that an edge lets a client wait for its data connection and its answer.
const GRACE: Duration = Duration::from_secs(10);
/// EWRP/1: numbers of one agent.
pub const NUMBERS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ewrp::number::LEAST;

    fn admit(number: u64, uses: u16) -> Admit {
        Admit {
            reg_id: 1,
            number: Number(LEAST + number),
            ttl_ms: 60_000,
            uses,
        }
    }

    #[test]
    fn opens_are_counted_over_all_edges() {
        let (start, mut ledger) = (Instant::now(), Ledger::new(10));
        assert!(ledger.enter(start, &admit(1, 2)));
        assert!(!ledger.enter(start, &admit(1, 2)));
        let number = Number(LEAST + 1);
        assert_eq!(ledger.open(start, number, 2, 0), Status::TokenUnknown);
        assert_eq!(ledger.open(start, number, 1, 0), Status::Ok);
        assert_eq!(ledger.open(start, number, 1, 0), Status::Ok);
        assert_eq!(ledger.open(start, number, 1, 0), Status::TokenUsed);
        assert_eq!(
            ledger.open(start, Number(LEAST), 1, 0),
            Status::TokenUnknown
        );
    }

    #[test]
    fn a_number_ends_a_little_after_its_time() {
        let (start, mut ledger) = (Instant::now(), Ledger::new(10));
        assert!(ledger.enter(start, &admit(1, 9)));
        let end = start + Duration::from_secs(60);
        let number = Number(LEAST + 1);
        assert_eq!(ledger.open(end, number, 1, 0), Status::Ok);
        assert_eq!(ledger.open(end + GRACE, number, 1, 0), Status::TokenExpired);
        ledger.expire(end + GRACE);
        assert!(ledger.is_empty());
        assert_eq!(ledger.open(end, number, 1, 0), Status::TokenUnknown);
    }

    #[test]
    fn a_new_session_is_told_what_is_left() {
        let (start, mut ledger) = (Instant::now(), Ledger::new(10));
        for (number, uses) in [(1, 1), (2, 3), (3, 1)] {
            assert!(ledger.enter(start, &admit(number, uses)));
        }
        assert_eq!(ledger.open(start, Number(LEAST + 1), 1, 0), Status::Ok);
        assert_eq!(ledger.open(start, Number(LEAST + 2), 1, 0), Status::Ok);
        ledger.forget(Number(LEAST + 3));
        let later = start + Duration::from_secs(20);
        let left: Vec<Admit> = ledger.still_open(later).collect();
        let expected = Admit {
            ttl_ms: 40_000,
            ..admit(2, 2)
        };
        assert_eq!(left, [expected]);
        assert_eq!(
            ledger.still_open(start + Duration::from_secs(60)).count(),
            0
        );
    }

    #[test]
    fn a_token_of_somebody_else_counts_as_often_as_the_file_says() {
        let (start, mut ledger) = (Instant::now(), Ledger::new(2));
        let token = Number(1 << 63 | 7);
        assert_eq!(ledger.open(start, token, 1, 0), Status::TokenUnknown);
        assert_eq!(ledger.open(start, token, 1, 2), Status::Ok);
        assert_eq!(ledger.open(start, token, 2, 2), Status::TokenUnknown);
        let late = start + TOKEN_LIFETIME_MAX;
        assert_eq!(ledger.open(late, token, 1, 2), Status::Ok);
        assert_eq!(ledger.open(late, token, 1, 2), Status::TokenUsed);
        // An edge is not told of it, and a number is not taken for a token.
        assert_eq!(ledger.still_open(start).count(), 0);
        let number = Number(LEAST);
        assert_eq!(ledger.open(start, number, 1, 9), Status::TokenUnknown);
        assert_eq!(ledger.open(start, Number(1 << 63), 1, 1), Status::Ok);
        assert_eq!(ledger.open(start, Number(1 << 63 | 8), 1, 1), Status::Limit);
    }

    #[test]
    fn a_revoked_token_does_not_come_back_as_that_of_somebody_else() {
        let (start, mut ledger) = (Instant::now(), Ledger::new(3));
        let (own, foreign) = (Number(1 << 63 | 1), Number(1 << 63 | 2));
        let own_admit = Admit {
            number: own,
            ..admit(0, 5)
        };
        assert!(ledger.enter(start, &own_admit));
        assert!(ledger.revoke(start, own) && ledger.revoke(start, foreign));
        let late = start + TOKEN_LIFETIME_MAX + 2 * SKEW;
        for now in [start, late] {
            for token in [own, foreign] {
                assert_ne!(ledger.open(now, token, 1, 9), Status::Ok);
            }
        }
        assert_eq!(ledger.revoked().collect::<Vec<_>>(), [own, foreign]);
        assert!(ledger.enter(start, &admit(1, 1)));
        assert!(!ledger.revoke(start, Number(1 << 63 | 3)), "a full ledger");
        ledger.expire(late + GRACE);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_revoked_or_spent_number_stays_taken_for_its_time() {
        let (start, mut ledger) = (Instant::now(), Ledger::new(3));
        let number = Number(LEAST + 1);
        assert!(ledger.enter(start, &admit(1, 2)));
        assert_eq!(ledger.open(start, number, 1, 0), Status::Ok);
        assert!(!ledger.is_spent(number));
        assert!(ledger.revoke(start, number));
        assert!(ledger.is_spent(number));
        assert_eq!(ledger.open(start, number, 1, 0), Status::TokenUsed);
        assert!(!ledger.enter(start, &admit(1, 1)));
        assert_eq!(ledger.still_open(start).count(), 0);
        assert_eq!(ledger.revoked().count(), 0);
        assert!(ledger.revoke(start, Number(LEAST)), "nobody's");
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn what_was_written_down_comes_back_until_its_time_is_over() {
        let start = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        };
        let mut ledger = Ledger::new(10);
        for (number, uses) in [(1, 1), (2, 3)] {
            assert!(ledger.enter(start.mono, &admit(number, uses)));
        }
        assert_eq!(ledger.open(start.mono, Number(LEAST + 1), 1, 0), Status::Ok);
        assert!(ledger.revoke(start.mono, Number(1 << 63)));
        let lines: Vec<Line> = ledger.lines(start).collect();

        let later = start.plus(Duration::from_secs(20));
        let mut again = Ledger::new(10);
        assert!(lines.iter().all(|line| again.restore(later, line)));
        assert!(
            !lines.iter().any(|line| again.restore(later, line)),
            "twice"
        );
        let left: Vec<Admit> = again.still_open(later.mono).collect();
        let expected = Admit {
            ttl_ms: 40_000,
            ..admit(2, 3)
        };
        assert_eq!(left, [expected]);
        let used = again.open(later.mono, Number(LEAST + 1), 1, 0);
        assert_eq!(used, Status::TokenUsed);
        assert_eq!(again.revoked().count(), 1);

        let over = start.plus(Duration::from_secs(60));
        let mut none = Ledger::new(10);
        assert!(!none.restore(over, &lines[0]));
        let mut back = start;
        back.unix = UnixTime::from_secs(1_000_000_000);
        assert!(none.restore(back, &lines[0]), "the clock was set back");
        let hour = Duration::from_millis(TTL_MS_MAX.into());
        assert_eq!(
            none.by_expiry.first().map(|&(at, _)| at),
            Some(back.mono + hour)
        );
    }

    #[test]
    fn a_full_ledger_takes_nothing_until_something_is_over() {
        let (start, mut ledger) = (Instant::now(), Ledger::new(1));
        assert!(ledger.enter(start, &admit(1, 1)));
        assert!(!ledger.enter(start, &admit(2, 1)));
        let over = start + Duration::from_secs(60) + GRACE;
        assert!(ledger.enter(over, &admit(2, 1)));
        assert_eq!(ledger.len(), 1);
    }
}

//! The numbers that let a client in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use super::agent::SessionKey;
use crate::ewrp::Number;

/// Where a number leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// The session that admitted it.
    pub(super) session: SessionKey,
    /// The registration within it.
    pub(super) reg_id: u32,
    /// The number itself.
    pub(super) number: Number,
}

/// What the table says about a number that a client showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Never admitted, or long gone.
    Unknown,
    /// Its time is over.
    Expired,
    /// No uses left.
    Used,
    /// One use was taken.
    Granted(Grant),
}

/// A number was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdmitError {
    /// Not of 19 digits, no time, too much time, or no uses.
    Range,
    /// Admitted already. Telling so to an agent gives nothing away: a guess is as good as hopeless.
    Taken,
    /// The table, or the agent's share of it, is full.
    Full,
}

/// All admitted numbers of all agents. Used ones stay until their time is over, so that they stay
/// taken.
#[derive(Debug)]
pub(super) struct Admission {
    entries: HashMap<u64, Entry, BuildHasherDefault<NumberHasher>>,
    by_expiry: BTreeSet<(Instant, u64)>,
    by_owner: BTreeSet<(SessionKey, u32, u64)>,
    /// How many are whose.
    shares: BTreeMap<SessionKey, usize>,
    capacity: usize,
    share_max: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) grant: Grant,
    pub(super) uses_left: u16,
    pub(super) expires: Instant,
}

impl Admission {
    /// A table of `capacity` numbers, of which one session may hold `share_max`.
    pub(super) fn new(capacity: usize, share_max: usize) -> Self {
        Self {
            entries: HashMap::default(),
            by_expiry: BTreeSet::new(),
            by_owner: BTreeSet::new(),
            shares: BTreeMap::new(),
            capacity,
            share_max,
        }
    }

    pub(super) fn admit(
        &mut self,
        now: Instant,
        grant: Grant,
        ttl: Duration,
        uses: u16,
    ) -> Result<(), AdmitError> {
        if !grant.number.is_admissible() || uses == 0 || ttl.is_zero() || ttl > TTL_MAX {
            return Err(AdmitError::Range);
        }
        self.expire(now);
        let key = grant.number.0;
        if self.entries.contains_key(&key) {
            return Err(AdmitError::Taken);
        }
        let share = self.shares.get(&grant.session).copied().unwrap_or(0);
        if self.entries.len() >= self.capacity || share >= self.share_max {
            return Err(AdmitError::Full);
        }
        let expires = now + ttl;
        self.by_expiry.insert((expires, key));
        self.by_owner.insert((grant.session, grant.reg_id, key));
        self.shares.insert(grant.session, share + 1);
        let entry = Entry {
            grant,
            uses_left: uses,
            expires,
        };
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Takes one use of the number, if it has any: what was granted once is not granted again,
    /// whatever happens before the next call.
    pub(super) fn take(&mut self, now: Instant, number: Number) -> Verdict {
        let Some(entry) = self.entries.get_mut(&number.0) else {
            return Verdict::Unknown;
        };
        if entry.expires <= now {
            return Verdict::Expired;
        }
        let Some(uses_left) = entry.uses_left.checked_sub(1) else {
            return Verdict::Used;
        };
        entry.uses_left = uses_left;
        Verdict::Granted(entry.grant)
    }

    /// Gives a use back; only for a client of which no byte went inside.
    pub(super) fn give_back(&mut self, grant: Grant) {
        if let Some(entry) = self.entries.get_mut(&grant.number.0)
            && entry.grant == grant
        {
            entry.uses_left = entry.uses_left.saturating_add(1);
        }
    }

    /// Forgets the number; `false` when it is not this session's.
    pub(super) fn revoke(&mut self, session: SessionKey, number: Number) -> bool {
        let owned = self
            .entries
            .get(&number.0)
            .is_some_and(|entry| entry.grant.session == session);
        if owned {
            self.remove(number.0);
        }
        owned
    }

    /// Forgets all numbers of a registration.
    pub(super) fn forget_registration(&mut self, session: SessionKey, reg_id: u32) {
        self.forget(session, reg_id..=reg_id);
    }

    /// Forgets all numbers of a session.
    pub(super) fn forget_session(&mut self, session: SessionKey) {
        self.forget(session, 0..=u32::MAX);
    }

    fn forget(&mut self, session: SessionKey, reg_ids: std::ops::RangeInclusive<u32>) {
        let range = (session, *reg_ids.start(), 0)..=(session, *reg_ids.end(), u64::MAX);
        let keys: Vec<u64> = self.by_owner.range(range).map(|&(_, _, key)| key).collect();
        for key in keys {
            self.remove(key);
        }
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(expires, key)) = self.by_expiry.first()
            && expires <= now
        {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: u64) {
        let Some(entry) = self.entries.remove(&key) else {
            return;
        };
        self.by_expiry.remove(&(entry.expires, key));
        let Grant {
            session, reg_id, ..
        } = entry.grant;
        self.by_owner.remove(&(session, reg_id, key));
        let left = self.shares.get(&session).map_or(0, |share| share - 1);
        if left == 0 {
            self.shares.remove(&session);
        } else {
            self.shares.insert(session, left);
        }
    }

    /// When the next number is over.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.by_expiry.first().map(|&(expires, _)| expires)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them, the one whose time ends first in front.
    pub(super) fn soonest(&self) -> impl Iterator<Item = &Entry> {
        let keys = self.by_expiry.iter();
        keys.filter_map(|(_, key)| self.entries.get(key))
    }

    /// How many are that session's.
    pub(super) fn share_of(&self, session: SessionKey) -> usize {
        self.shares.get(&session).copied().unwrap_or(0)
    }
}

/// The keys are random numbers that the inside chose, so there is nothing to defend against; and
/// a scan asks eight thousand times per client.
#[derive(Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // An odd factor moves the entropy into the high bits, which the map looks at first.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// EWRP/1: `ttl_ms <= 3,600,000`.
const TTL_MAX: Duration = Duration::from_millis(crate::ewrp::control::TTL_MS_MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ewrp::number::{GREATEST, LEAST};

    const MINUTE: Duration = Duration::from_secs(60);

    fn grant(session: u64, reg_id: u32, number: u64) -> Grant {
        Grant {
            session: SessionKey(session),
            reg_id,
            number: Number(LEAST + number),
        }
    }

    #[test]
    fn a_number_is_good_for_its_uses_and_its_time() {
        let (start, mut table) = (Instant::now(), Admission::new(10, 10));
        let one = grant(1, 1, 7);
        assert_eq!(table.admit(start, one, MINUTE, 2), Ok(()));
        assert_eq!(table.take(start, one.number), Verdict::Granted(one));
        assert_eq!(table.take(start, one.number), Verdict::Granted(one));
        assert_eq!(table.take(start, one.number), Verdict::Used);
        table.give_back(one);
        assert_eq!(table.take(start + MINUTE, one.number), Verdict::Expired);
        let last = start + MINUTE - Duration::from_nanos(1);
        assert_eq!(table.take(last, one.number), Verdict::Granted(one));
        table.expire(start + MINUTE);
        assert_eq!(table.take(start, one.number), Verdict::Unknown);
        assert_eq!((table.len(), table.next_expiry()), (0, None));
    }

    #[test]
    fn out_of_range_taken_and_full_are_refused() {
        let (start, mut table) = (Instant::now(), Admission::new(3, 2));
        let mut admit = |grant, ttl, uses| table.admit(start, grant, ttl, uses);
        assert_eq!(admit(grant(1, 1, 0), MINUTE, 0), Err(AdmitError::Range));
        let no_time = Duration::ZERO;
        assert_eq!(admit(grant(1, 1, 0), no_time, 1), Err(AdmitError::Range));
        let long = TTL_MAX + Duration::from_millis(1);
        assert_eq!(admit(grant(1, 1, 0), long, 1), Err(AdmitError::Range));
        let mut large = grant(1, 1, 0);
        large.number = Number(GREATEST + 1);
        assert_eq!(admit(large, MINUTE, 1), Err(AdmitError::Range));

        assert_eq!(admit(grant(1, 1, 0), TTL_MAX, 1), Ok(()));
        assert_eq!(admit(grant(2, 1, 0), MINUTE, 1), Err(AdmitError::Taken));
        assert_eq!(admit(grant(1, 1, 1), MINUTE, 1), Ok(()));
        // The share of one session, then the table.
        assert_eq!(admit(grant(1, 1, 2), MINUTE, 1), Err(AdmitError::Full));
        assert_eq!(admit(grant(2, 1, 2), MINUTE, 1), Ok(()));
        assert_eq!(admit(grant(3, 1, 3), MINUTE, 1), Err(AdmitError::Full));
    }

    #[test]
    fn what_is_over_makes_room() {
        let (start, mut table) = (Instant::now(), Admission::new(1, 1));
        assert_eq!(table.admit(start, grant(1, 1, 0), MINUTE, 1), Ok(()));
        let later = start + MINUTE;
        assert_eq!(table.admit(later, grant(1, 1, 0), MINUTE, 1), Ok(()));
        assert_eq!(table.next_expiry(), Some(later + MINUTE));
    }

    #[test]
    fn a_session_forgets_its_own_numbers_only() {
        let (start, mut table) = (Instant::now(), Admission::new(10, 10));
        for (session, reg_id, number) in [(1, 1, 0), (1, 2, 1), (1, 2, 2), (2, 2, 3)] {
            let grant = grant(session, reg_id, number);
            assert_eq!(table.admit(start, grant, MINUTE, 1), Ok(()));
        }
        assert!(!table.revoke(SessionKey(2), Number(LEAST)));
        assert!(table.revoke(SessionKey(1), Number(LEAST)));
        assert!(!table.revoke(SessionKey(1), Number(LEAST)));
        assert_eq!(table.shares.get(&SessionKey(1)), Some(&2));
        table.forget_registration(SessionKey(1), 2);
        assert_eq!(table.shares.get(&SessionKey(1)), None);
        table.forget_session(SessionKey(1));
        assert_eq!(table.len(), 1);
        assert_eq!(table.by_expiry.len(), 1);
        table.forget_session(SessionKey(2));
        assert_eq!((table.len(), table.by_owner.len()), (0, 0));
    }

    #[test]
    fn a_use_is_not_given_back_to_a_number_of_someone_else() {
        let (start, mut table) = (Instant::now(), Admission::new(10, 10));
        let (old, new) = (grant(1, 1, 0), grant(2, 1, 0));
        assert_eq!(table.admit(start, old, MINUTE, 1), Ok(()));
        assert_eq!(table.take(start, old.number), Verdict::Granted(old));
        table.forget_session(SessionKey(1));
        assert_eq!(table.admit(start, new, MINUTE, 1), Ok(()));
        table.give_back(old);
        assert_eq!(table.take(start, new.number), Verdict::Granted(new));
        assert_eq!(table.take(start, new.number), Verdict::Used);
    }
}

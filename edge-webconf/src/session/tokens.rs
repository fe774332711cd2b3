//! The tokens that were used, for as long as they could be used again.

use std::collections::{BTreeMap, BTreeSet};

use edge_common::join_token::JoinToken;
use edge_common::time::UnixTime;

use crate::ewrp::{Number, Status};

/// Tokens by the number that stands for each. Unlike an admitted number a token is not known before a client shows it,
/// so what is remembered is what was used: at most `capacity` of them, each until nobody could use it any more.
#[derive(Debug)]
pub(super) struct Tokens {
    uses_left: BTreeMap<Number, (u16, UnixTime)>,
    by_end: BTreeSet<(UnixTime, Number)>,
    /// Hashes of the numbers of revoked tokens, most of which were never shown: `capacity` of them.
    void: BTreeMap<u64, UnixTime>,
    void_by_end: BTreeSet<(UnixTime, u64)>,
    capacity: usize,
}

impl Tokens {
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            uses_left: BTreeMap::new(),
            by_end: BTreeSet::new(),
            void: BTreeMap::new(),
            void_by_end: BTreeSet::new(),
            capacity,
        }
    }

    /// Takes one use of a token that was checked: what was taken once is not taken again.
    pub(super) fn take(&mut self, now: UnixTime, token: &JoinToken) -> Result<Number, Status> {
        self.expire(now);
        let number = Number(token.number());
        if !self.void.is_empty() && self.void.contains_key(&number.hash()) {
            return Err(Status::TokenUsed);
        }
        if let Some((uses_left, _)) = self.uses_left.get_mut(&number) {
            *uses_left = uses_left.checked_sub(1).ok_or(Status::TokenUsed)?;
            return Ok(number);
        }
        if self.uses_left.len() >= self.capacity {
            return Err(Status::Limit);
        }
        let uses_left = token.uses.checked_sub(1).ok_or(Status::TokenUsed)?;
        let end = token.forgotten_at();
        self.uses_left.insert(number, (uses_left, end));
        self.by_end.insert((end, number));
        Ok(number)
    }

    /// Gives a use back; only for a client of which no byte went inside.
    pub(super) fn give_back(&mut self, number: Number) {
        if let Some((uses_left, _)) = self.uses_left.get_mut(&number) {
            *uses_left = uses_left.saturating_add(1);
        }
    }

    /// No client comes in by the token of that hash until then, by when it is over in any case. `false`: as many are
    /// remembered as may be.
    pub(super) fn void(&mut self, now: UnixTime, hash: u64, until: UnixTime) -> bool {
        self.expire(now);
        if let Some(end) = self.void.remove(&hash) {
            self.void_by_end.remove(&(end, hash));
        }
        let has_room = self.void.len() < self.capacity;
        if has_room {
            self.void.insert(hash, until);
            self.void_by_end.insert((until, hash));
        }
        has_room
    }

    fn expire(&mut self, now: UnixTime) {
        while let Some(&(end, number)) = self.by_end.first()
            && end <= now
        {
            self.by_end.remove(&(end, number));
            self.uses_left.remove(&number);
        }
        while let Some(&(end, hash)) = self.void_by_end.first()
            && end <= now
        {
            self.void_by_end.remove(&(end, hash));
            self.void.remove(&hash);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.uses_left.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn token(id: &str, uses: u16) -> JoinToken {
        JoinToken {
            registration: "ssh.test".into(),
            expires: NOW + MINUTE,
            id: id.into(),
            uses,
            source: None,
        }
    }

    #[test]
    fn a_token_is_good_for_its_uses_and_remembered_to_its_end() {
        let mut tokens = Tokens::new(10);
        let twice = token("twice", 2);
        let number = tokens.take(NOW, &twice).expect("a use");
        assert_eq!(tokens.take(NOW, &twice), Ok(number));
        assert_eq!(tokens.take(NOW, &twice), Err(Status::TokenUsed));
        tokens.give_back(number);
        assert_eq!(tokens.take(NOW, &twice), Ok(number));
        let last = UnixTime::from_millis(twice.forgotten_at().as_millis() - 1);
        assert_eq!(tokens.take(last, &twice), Err(Status::TokenUsed));
        assert_eq!(tokens.len(), 1);
        tokens.expire(twice.forgotten_at());
        assert_eq!((tokens.len(), tokens.by_end.len()), (0, 0));
    }

    #[test]
    fn a_revoked_token_is_void_before_its_first_use_and_after_a_use_was_given_back() {
        let (mut tokens, until) = (Tokens::new(2), NOW + 10 * MINUTE);
        let (unused, used) = (token("unused", 3), token("used", 3));
        let number = tokens.take(NOW, &used).expect("a use");
        assert!(tokens.void(NOW, Number(unused.number()).hash(), until));
        assert!(tokens.void(NOW, number.hash(), until));
        assert!(tokens.void(NOW, number.hash(), until), "again");
        tokens.give_back(number);
        for token in [&unused, &used] {
            assert_eq!(tokens.take(NOW, token), Err(Status::TokenUsed));
        }
        assert!(!tokens.void(NOW, 1, until), "a full table");
        let last = UnixTime::from_millis(until.as_millis() - 1);
        assert!(!tokens.void(last, 1, until));
        assert!(tokens.void(until, 1, until + MINUTE), "they are over");
        assert_eq!((tokens.void.len(), tokens.void_by_end.len()), (1, 1));
    }

    #[test]
    fn a_full_table_refuses_new_tokens_and_knows_the_old() {
        let mut tokens = Tokens::new(1);
        let old = token("old", 2);
        assert!(tokens.take(NOW, &old).is_ok());
        assert_eq!(tokens.take(NOW, &token("new", 1)), Err(Status::Limit));
        assert!(tokens.take(NOW, &old).is_ok());
        let later = old.forgotten_at();
        let mut new = token("new", 1);
        new.expires = later + MINUTE;
        assert!(tokens.take(later, &new).is_ok());
    }
}

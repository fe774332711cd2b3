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
    capacity: usize,
}

impl Tokens {
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            uses_left: BTreeMap::new(),
            by_end: BTreeSet::new(),
            capacity,
        }
    }

    /// Takes one use of a token that was checked: what was taken once is not taken again.
    pub(super) fn take(&mut self, now: UnixTime, token: &JoinToken) -> Result<Number, Status> {
        self.expire(now);
        let number = Number(token.number());
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

    /// No client comes in by this token any more; `false` when nobody has used it yet.
    pub(super) fn revoke(&mut self, number: Number) -> bool {
        let entry = self.uses_left.get_mut(&number);
        entry.map(|(uses_left, _)| *uses_left = 0).is_some()
    }

    fn expire(&mut self, now: UnixTime) {
        while let Some(&(end, number)) = self.by_end.first()
            && end <= now
        {
            self.by_end.remove(&(end, number));
            self.uses_left.remove(&number);
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
        assert!(tokens.revoke(number));
        assert_eq!(tokens.len(), 1);
        tokens.expire(twice.forgotten_at());
        assert_eq!((tokens.len(), tokens.by_end.len()), (0, 0));
        assert!(!tokens.revoke(number));
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

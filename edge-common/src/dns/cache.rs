//! Answers with their ends, up to a fixed number.

use std::collections::BTreeMap;
use std::time::Instant;

/// When full, what expires soonest makes room.
pub(super) struct Cache<K, V> {
    capacity: usize,
    entries: BTreeMap<K, (V, Expiry)>,
    by_expiry: BTreeMap<Expiry, K>,
    /// Tells entries apart that expire at one moment.
    inserted: u64,
}

type Expiry = (Instant, u64);

impl<K: Ord + Clone, V: Clone> Cache<K, V> {
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: BTreeMap::new(),
            by_expiry: BTreeMap::new(),
            inserted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, now: Instant, key: &K) -> Option<V> {
        let (value, (expires, _)) = self.entries.get(key)?;
        (*expires > now).then(|| value.clone())
    }

    pub(super) fn insert(&mut self, now: Instant, key: K, value: V, expires: Instant) {
        if let Some((_, expiry)) = self.entries.remove(&key) {
            self.by_expiry.remove(&expiry);
        }
        if expires <= now || self.capacity == 0 {
            return;
        }
        while self.entries.len() >= self.capacity {
            let Some((_, oldest)) = self.by_expiry.pop_first() else {
                break;
            };
            self.entries.remove(&oldest);
        }
        self.inserted += 1;
        let expiry = (expires, self.inserted);
        self.by_expiry.insert(expiry, key.clone());
        self.entries.insert(key, (value, expiry));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_end_and_are_replaced() {
        let (start, sec) = (Instant::now(), Duration::from_secs(1));
        let mut cache = Cache::new(2);
        cache.insert(start, 'a', 1, start + sec);
        assert_eq!(cache.get(start, &'a'), Some(1));
        assert_eq!(cache.get(start + sec, &'a'), None);
        cache.insert(start, 'a', 2, start + 2 * sec);
        assert_eq!(cache.get(start + sec, &'a'), Some(2));
        cache.insert(start, 'a', 3, start);
        assert_eq!(cache.get(start, &'a'), None, "already over");
        assert!(cache.by_expiry.is_empty());
    }

    #[test]
    fn what_expires_soonest_makes_room() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut cache = Cache::new(2);
        cache.insert(start, 'a', 1, at(9));
        cache.insert(start, 'b', 2, at(3));
        cache.insert(start, 'c', 3, at(5));
        assert_eq!(
            [
                cache.get(start, &'a'),
                cache.get(start, &'b'),
                cache.get(start, &'c')
            ],
            [Some(1), None, Some(3)]
        );
        for n in 0..1_000 {
            cache.insert(start, char::from(b'd' + n as u8 % 20), n, at(5));
            assert!(cache.entries.len() <= 2 && cache.by_expiry.len() == cache.entries.len());
        }
    }
}

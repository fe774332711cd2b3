//! DNS SRV records (RFC 2782): what an answer says, and in which order its hosts are tried.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::cmp::Reverse;

pub use crate::config::SrvOrder as Order;
use crate::host_name::HostPort;
use crate::random::Random;

/// The service under which partners are found; no other is asked for.
pub const SIP_FEDERATION_TLS: &str = "_sipfederationtls._tcp";
/// The service under which clients outside find their Access Edge.
pub const SIP_TLS: &str = "_sip._tls";

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// Lower goes first.
    pub priority: u16,
    /// Among equals, higher goes first or more often.
    pub weight: u16,
    /// The host and its port.
    pub target: HostPort,
}

/// What the name servers say about a service of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SrvAnswer {
    /// These hosts offer it, in the order of the answer until [`order`] has seen them.
    Records(Vec<SrvRecord>),
    /// The domain says that it does not offer the service: a single target `.`.
    NotOffered,
    /// There is no such record.
    Missing,
}

impl SrvAnswer {
    /// The hosts; none when the service is not offered.
    #[must_use]
    pub fn records(&self) -> &[SrvRecord] {
        match self {
            Self::Records(records) => records,
            Self::NotOffered | Self::Missing => &[],
        }
    }
}

/// Brings records into the order in which they are tried.
pub fn order(records: &mut Vec<SrvRecord>, order: Order, rng: &mut dyn Random) {
    // Stable: what is equal stays in the order of the answer.
    records.sort_by_key(|record| (record.priority, Reverse(record.weight)));
    match order {
        Order::Ocs => {}
        Order::Rfc2782 => draw(records, rng),
    }
}

/// RFC 2782, "Weight": within a priority the next host is drawn by lot, a host of twice the weight twice as often.
fn draw(records: &mut Vec<SrvRecord>, rng: &mut dyn Random) {
    let mut sorted = std::mem::take(records);
    while let Some(priority) = sorted.first().map(|record| record.priority) {
        let mut group: Vec<_> = sorted
            .extract_if(.., |record| record.priority == priority)
            .collect();
        // Hosts of weight 0 stand in front, so that a draw of 0 gives them their small chance.
        group.reverse();
        while !group.is_empty() {
            records.push(group.remove(lot(&group, rng)));
        }
    }
}

fn lot(group: &[SrvRecord], rng: &mut dyn Random) -> usize {
    let total: u32 = group.iter().map(|record| u32::from(record.weight)).sum();
    let drawn = rng.below(total + 1);
    let mut sum = 0;
    let reached = group.iter().position(|record| {
        sum += u32::from(record.weight);
        sum >= drawn
    });
    reached.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seeded;

    fn record(priority: u16, weight: u16, host: &str) -> SrvRecord {
        SrvRecord {
            priority,
            weight,
            target: HostPort {
                host: host.parse().unwrap(),
                port: 5061,
            },
        }
    }

    fn hosts(records: &[SrvRecord]) -> Vec<&str> {
        records
            .iter()
            .map(|record| record.target.host.as_str())
            .collect()
    }

    #[test]
    fn ocs_takes_lowest_priority_then_highest_weight_then_the_first_returned() {
        let answer = vec![
            record(10, 5, "c.test"),
            record(10, 60, "a.test"),
            record(20, 99, "d.test"),
            record(10, 60, "b.test"),
        ];
        for seed in 0..20 {
            let mut records = answer.clone();
            order(&mut records, Order::Ocs, &mut Seeded::new(seed));
            assert_eq!(hosts(&records), ["a.test", "b.test", "c.test", "d.test"]);
        }
    }

    #[test]
    fn rfc_2782_draws_by_weight_and_never_across_priorities() {
        let answer = [
            record(1, 30, "a.test"),
            record(1, 10, "b.test"),
            record(1, 0, "c.test"),
            record(2, 100, "d.test"),
        ];
        let (mut first, mut rng) = ([0; 3], Seeded::new(1));
        for _ in 0..8_000 {
            let mut records = answer.to_vec();
            order(&mut records, Order::Rfc2782, &mut rng);
            assert_eq!(records.len(), 4);
            assert_eq!(records[3].target.host.as_str(), "d.test");
            first[answer.iter().position(|a| *a == records[0]).unwrap()] += 1;
        }
        // A draw from 0..=40: 30, 10 and 1 of 41.
        assert!((5_650..6_050).contains(&first[0]), "{first:?}");
        assert!((1_800..2_100).contains(&first[1]), "{first:?}");
        assert!((120..280).contains(&first[2]), "{first:?}");
    }

    #[test]
    fn no_record_is_lost_or_doubled() {
        let answer: Vec<_> = (0..40)
            .map(|n| record(n % 3, n % 5, &format!("h{n}.test")))
            .collect();
        for kind in [Order::Ocs, Order::Rfc2782] {
            let mut records = answer.clone();
            order(&mut records, kind, &mut Seeded::new(3));
            assert!(records.is_sorted_by_key(|record| record.priority));
            let mut names = hosts(&records);
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), answer.len());
            order(&mut Vec::new(), kind, &mut Seeded::new(3));
        }
    }
}

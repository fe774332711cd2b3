//! The connections of one core as an operator sees them, a page at a time.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use edge_common::host_name::HostName;

use crate::proxy::flow::{Flow, Peer, Standing};
use crate::proxy::token::{FlowKey, Realm};

/// Which connections are asked for; what is not named is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The kind of far end.
    pub realm: Option<Realm>,
    /// How far it is trusted.
    pub state: Option<State>,
    /// Its address.
    pub remote: Option<IpAddr>,
    /// A name that it proved, or a name within that domain.
    pub name: Option<HostName>,
    /// Bytes that wait for it, at least.
    pub queued: usize,
}

/// How far the far end of a connection is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A client that the inside has not accepted yet.
    Newcomer,
    /// A client that the inside has accepted.
    Promoted,
    /// A partner that has spoken for no domain yet, or not rightly.
    Unproven,
    /// A partner that speaks for a domain.
    Proven,
    /// A server inside.
    Trusted,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Newcomer,
        Self::Promoted,
        Self::Unproven,
        Self::Proven,
        Self::Trusted,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newcomer => "newcomer",
            Self::Promoted => "promoted",
            Self::Unproven => "unproven",
            Self::Proven => "proven",
            Self::Trusted => "trusted",
        }
    }

    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Client(Standing::Newcomer { .. }) => Self::Newcomer,
            Peer::Client(Standing::Promoted) => Self::Promoted,
            Peer::Partner(partner) if partner.is_proven() => Self::Proven,
            Peer::Partner(_) => Self::Unproven,
            Peer::Inside { .. } => Self::Trusted,
        }
    }
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub key: FlowKey,
    /// The kind of far end.
    pub realm: Realm,
    /// How far it is trusted.
    pub state: State,
    /// Where it stands.
    pub remote: SocketAddr,
    /// How long it is there.
    pub age: Duration,
    /// For how long no byte came.
    pub idle: Duration,
    /// Bytes that wait for it.
    pub queued: usize,
    /// Whether we opened it.
    pub dialled: bool,
    /// The names it proved, [`NAMES_MAX`] at most.
    pub names: Vec<String>,
}

/// A part of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their places in the table.
    pub rows: Vec<Row>,
    /// How many there are in all that the filter lets pass.
    pub matching: usize,
    /// How many connections there are.
    pub total: usize,
}

/// Those of `flows` that `filter` lets pass: at most `limit` from the place `from` on; all are counted.
pub fn page<'a>(
    now: Instant,
    flows: impl Iterator<Item = (FlowKey, &'a Flow)>,
    queued: impl Fn(FlowKey) -> usize,
    filter: &Filter,
    from: u32,
    limit: usize,
) -> Page {
    let mut page = Page::default();
    for (key, flow) in flows {
        page.total += 1;
        let queued = queued(key);
        if !filter.passes(flow, queued) {
            continue;
        }
        page.matching += 1;
        if key.slot >= from && page.rows.len() < limit {
            page.rows.push(row(now, key, flow, queued));
        }
    }
    page
}

impl Filter {
    fn passes(&self, flow: &Flow, queued: usize) -> bool {
        let within = |name: &HostName| {
            hosts(&flow.peer).any(|proven| proven == name || proven.is_within(name))
        };
        self.realm.is_none_or(|realm| realm == flow.peer.realm())
            && self
                .state
                .is_none_or(|state| state == State::of(&flow.peer))
            && self.remote.is_none_or(|remote| remote == flow.remote.ip())
            && self.name.as_ref().is_none_or(within)
            && queued >= self.queued
    }
}

fn row(now: Instant, key: FlowKey, flow: &Flow, queued: usize) -> Row {
    Row {
        key,
        realm: flow.peer.realm(),
        state: State::of(&flow.peer),
        remote: flow.remote,
        age: now.saturating_duration_since(flow.opened),
        idle: now.saturating_duration_since(flow.heard),
        queued,
        dialled: matches!(&flow.peer, Peer::Partner(partner) if partner.dialled.is_some()),
        names: hosts(&flow.peer)
            .take(NAMES_MAX)
            .map(ToString::to_string)
            .collect(),
    }
}

fn hosts(peer: &Peer) -> Box<dyn Iterator<Item = &HostName> + '_> {
    match peer {
        Peer::Client(_) => Box::new(std::iter::empty()),
        Peer::Inside { name } => Box::new(std::iter::once(name)),
        Peer::Partner(partner) => Box::new(partner.names.all()),
    }
}

/// A certificate may hold hundreds of names.
pub const NAMES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edge_common::cert::identity::{Fingerprint, ProvenNames};

    use super::*;
    use crate::proxy::flow::Partner;

    fn name(text: &str) -> HostName {
        text.parse().expect("lawful")
    }

    fn flow(now: Instant, last: u8, peer: Peer) -> Flow {
        Flow::new(now, SocketAddr::from(([192, 0, 2, last], 5061)), peer)
    }

    fn flows(now: Instant) -> Vec<(FlowKey, Flow)> {
        let names = ProvenNames {
            dns: vec![name("sip.fabrikam.test")],
            ..ProvenNames::default()
        };
        let partner = Partner::new(Arc::new(names), Fingerprint([0; 32]), None);
        let newcomer = Standing::Newcomer {
            requests: 0,
            in_flight: 0,
        };
        let peers = [
            Peer::Client(newcomer),
            Peer::Client(Standing::Promoted),
            Peer::Partner(partner),
            Peer::Inside {
                name: name("director.contoso.internal"),
            },
        ];
        let key = |slot| FlowKey {
            core: 0,
            slot,
            generation: 0,
        };
        peers
            .into_iter()
            .zip(0..)
            .map(|(peer, slot)| (key(u32::from(slot)), flow(now, slot, peer)))
            .collect()
    }

    fn ask(filter: &Filter, from: u32, limit: usize) -> (Vec<u32>, usize, usize) {
        let now = Instant::now();
        let flows = flows(now);
        let all = flows.iter().map(|(key, flow)| (*key, flow));
        let page = page(now, all, |key| key.slot as usize * 100, filter, from, limit);
        let slots = page.rows.iter().map(|row| row.key.slot).collect();
        (slots, page.matching, page.total)
    }

    #[test]
    fn every_condition_of_the_filter_counts() {
        let any = Filter::default();
        let cases = [
            (any.clone(), vec![0, 1, 2, 3]),
            (
                Filter {
                    realm: Some(Realm::Client),
                    ..any.clone()
                },
                vec![0, 1],
            ),
            (
                Filter {
                    state: Some(State::Promoted),
                    ..any.clone()
                },
                vec![1],
            ),
            (
                Filter {
                    state: Some(State::Unproven),
                    ..any.clone()
                },
                vec![2],
            ),
            (
                Filter {
                    remote: Some([192, 0, 2, 3].into()),
                    ..any.clone()
                },
                vec![3],
            ),
            (
                Filter {
                    name: Some(name("fabrikam.test")),
                    ..any.clone()
                },
                vec![2],
            ),
            (
                Filter {
                    name: Some(name("abrikam.test")),
                    ..any.clone()
                },
                vec![],
            ),
            (Filter { queued: 200, ..any }, vec![2, 3]),
        ];
        for (filter, expected) in cases {
            let (slots, matching, total) = ask(&filter, 0, 10);
            assert_eq!(
                (&slots, matching, total),
                (&expected, expected.len(), 4),
                "{filter:?}"
            );
        }
    }

    #[test]
    fn a_page_is_bounded_and_the_next_begins_behind_it() {
        let any = Filter::default();
        assert_eq!(ask(&any, 0, 3), (vec![0, 1, 2], 4, 4));
        assert_eq!(ask(&any, 3, 3), (vec![3], 4, 4));
        assert_eq!(ask(&any, 4, 3), (vec![], 4, 4));
    }
}

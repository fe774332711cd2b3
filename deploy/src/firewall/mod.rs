//! The host's packet filter: one typed list of rules, and its printers.
//!
//! ```text
//!  ports::openings(config) ─► rules::ruleset ─► Ruleset ─┬─► json: what `nft -j -f -` is given
//!                                                        ├─► text: what people review (equal to `nft list table`)
//!                                                        └─► diff: against what the kernel holds
//! ```
//!
//! Only the table `inet edge` is ours; what else is loaded stays as it is. Each rule carries its name as a
//! comment, and whatever is worth counting has a named counter, so that what the kernel saw can be compared
//! with what the daemons say.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod diff;
pub mod json;
pub mod rules;
pub mod span;
pub mod text;

use edge_common::ports::{PortRange, Transport};
use ipnet::IpNet;

pub use rules::{Users, ruleset};

/// The only table that is ever written.
pub const TABLE: &str = "edge";

/// Stands before a rule's name in its comment.
pub const COMMENT_PREFIX: &str = "edge:";

/// Everything that the table holds, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Rules of all chains; those of one chain are in the order in which they are tried.
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// The rules of one chain, in order.
    pub fn of(&self, chain: Chain) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }

    /// The counters that the rules name, each once, sorted.
    #[must_use]
    pub fn counters(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .rules
            .iter()
            .filter_map(|rule| rule.counter.as_deref())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique: the port table's row, with the address family behind it when there is one rule for each.
    pub name: String,
    /// Where it stands.
    pub chain: Chain,
    /// All of these must hold.
    pub matches: Vec<Match>,
    /// The named counter of what got this far.
    pub counter: Option<String>,
    /// What becomes of the packet.
    pub action: Action,
}

impl Rule {
    /// The comment that finds the rule again in the kernel's list.
    #[must_use]
    pub fn comment(&self) -> String {
        format!("{COMMENT_PREFIX}{}", self.name)
    }
}

/// The base chains of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// Before connection tracking: what is not tracked, and what nobody honest sends.
    RawIn,
    /// The same for what the host sends.
    RawOut,
    /// What is for the host.
    Input,
    /// What the host sends.
    Output,
    /// What is for others: nothing.
    Forward,
}

impl Chain {
    /// In the order of the table.
    pub const ALL: [Self; 5] = [
        Self::RawIn,
        Self::RawOut,
        Self::Input,
        Self::Output,
        Self::Forward,
    ];

    /// Its name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawIn => "raw_in",
            Self::RawOut => "raw_out",
            Self::Input => "input",
            Self::Output => "output",
            Self::Forward => "forward",
        }
    }

    /// The netfilter hook.
    #[must_use]
    pub const fn hook(self) -> &'static str {
        match self {
            Self::RawIn => "prerouting",
            Self::RawOut | Self::Output => "output",
            Self::Input => "input",
            Self::Forward => "forward",
        }
    }

    /// Before connection tracking, or at the filter's place.
    #[must_use]
    pub const fn priority(self) -> Priority {
        match self {
            Self::RawIn | Self::RawOut => Priority::Raw,
            Self::Input | Self::Output | Self::Forward => Priority::Filter,
        }
    }

    /// What becomes of a packet that no rule has decided on.
    #[must_use]
    pub const fn policy(self) -> Action {
        match self {
            Self::RawIn | Self::RawOut => Action::Accept,
            Self::Input | Self::Output | Self::Forward => Action::Drop,
        }
    }
}

/// Where a chain stands among those of one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Before connection tracking.
    Raw,
    /// The filter's usual place.
    Filter,
}

impl Priority {
    /// netfilter's number.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Raw => -300,
            Self::Filter => 0,
        }
    }

    /// nft's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Filter => "filter",
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Accept,
    /// It vanishes.
    Drop,
    /// It passes by connection tracking.
    Notrack,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Came in by this interface.
    From(String),
    /// Goes out by this interface.
    To(String),
    /// An address is one of these, which are of one family.
    Address(AddressField, Vec<IpNet>),
    /// The source address is none of these, which are of one family.
    NotSource(Vec<IpNet>),
    /// A port is one of these.
    Port(Transport, PortField, Vec<PortRange>),
    /// The first packet of a TCP connection and nothing else.
    Opening,
    /// What connection tracking makes of it.
    State(&'static [&'static str]),
    /// ICMP types, by nft's names.
    Icmp(&'static [&'static str]),
    /// ICMPv6 types, by nft's names.
    Icmp6(&'static [&'static str]),
    /// The IPv6 hop limit; 255 proves that no router has passed it on (RFC 4861 §7.1.1).
    HopLimit(u8),
    /// The sending socket belongs to this user.
    User(u32),
    /// No more than so many a second.
    Rate(u32),
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressField {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Which port of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortField {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl AddressField {
    /// nft's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "saddr",
            Self::Destination => "daddr",
        }
    }
}

impl PortField {
    /// nft's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "sport",
            Self::Destination => "dport",
        }
    }
}

/// nft's word for the family of networks that are all of one family.
#[must_use]
pub fn family_word(networks: &[IpNet]) -> &'static str {
    match networks.first() {
        Some(IpNet::V6(_)) => "ip6",
        Some(IpNet::V4(_)) | None => "ip",
    }
}

//! From the port table and the configuration to the list of rules.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::IpAddr;

use edge_common::config::Config;
use edge_common::ports::{self, Direction, End, Opening, PortRange, Purpose, Reach, Transport};
use edge_common::side::Side;
use ipnet::IpNet;

use super::{Action, AddressField, Chain, Match, PortField, Rule, Ruleset};

/// Users of the host whose sockets are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Who runs `edge-webconf`, which never dials; `None`: there is no such user here.
    pub webconf: Option<u32>,
}

/// The whole table for this host.
#[must_use]
pub fn ruleset(config: &Config, users: Users) -> Ruleset {
    let openings = ports::openings(config);
    let mut rules = Vec::new();
    rules.extend(impostors(config));
    rules.extend(untracked(&openings));
    rules.extend(input(config, &openings));
    rules.extend(output(config, &openings, users));
    rules.push(rule("forward/any", Chain::Forward, vec![], Action::Drop).counted());
    Ruleset { rules }
}

/// What nobody honest sends: an inside address as sender outside or as destination outside, or a foreign
/// sender inside. They fall before routing, so that they are counted even where the reverse-path filter
/// would have dropped them without a word.
fn impostors(config: &Config) -> Vec<Rule> {
    let (external, internal) = (&config.external.interface, &config.internal.interface);
    let member = config.local();
    let own_inside: Vec<IpNet> = member.internal.ips().map(IpNet::from).collect();
    let own_outside: Vec<IpNet> = member.external.ips().map(IpNet::from).collect();
    let inside = inside(config);

    let mut rules = Vec::new();
    for family in Family::BOTH {
        let at_inside_address = family.of(&own_inside);
        if !at_inside_address.is_empty() {
            rules.push(
                rule(
                    family.name("guard/ext/internal-address"),
                    Chain::RawIn,
                    vec![
                        Match::From(external.clone()),
                        Match::Address(AddressField::Destination, at_inside_address),
                    ],
                    Action::Drop,
                )
                .counted_as("guard/ext/internal-address"),
            );
        }
        let ours = family.of(&[inside.as_slice(), own_outside.as_slice()].concat());
        if !ours.is_empty() && !is_everything(&ours) {
            rules.push(
                rule(
                    family.name("guard/ext/spoofed"),
                    Chain::RawIn,
                    vec![
                        Match::From(external.clone()),
                        Match::Address(AddressField::Source, ours),
                    ],
                    Action::Drop,
                )
                .counted_as("guard/ext/spoofed"),
            );
        }
        let mut known = inside.clone();
        known.extend(link_local());
        let known = family.of(&known);
        if !known.is_empty() && !is_everything(&known) {
            rules.push(
                rule(
                    family.name("guard/int/spoofed"),
                    Chain::RawIn,
                    vec![Match::From(internal.clone()), Match::NotSource(known)],
                    Action::Drop,
                )
                .counted_as("guard/int/spoofed"),
            );
        }
    }
    rules
}

/// Media would fill the connection table and gain nothing from it.
fn untracked(openings: &[Opening]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for open in openings.iter().filter(|open| is_media(open)) {
        for (family, addresses) in families(&open.addresses) {
            let ports = |field| Match::Port(Transport::Udp, field, vec![open.ports]);
            if open.row.direction == Direction::Listen {
                rules.push(rule(
                    family.name(&format!("{}/untracked-in", open.row.id)),
                    Chain::RawIn,
                    vec![
                        Match::From(open.interface.clone()),
                        Match::Address(AddressField::Destination, addresses.clone()),
                        ports(PortField::Destination),
                    ],
                    Action::Notrack,
                ));
            }
            if answers_untracked(open) || open.row.direction == Direction::Dial {
                rules.push(rule(
                    family.name(&format!("{}/untracked-out", open.row.id)),
                    Chain::RawOut,
                    vec![
                        Match::To(open.interface.clone()),
                        Match::Address(AddressField::Source, addresses),
                        ports(PortField::Source),
                    ],
                    Action::Notrack,
                ));
            }
        }
    }
    rules
}

fn input(config: &Config, openings: &[Opening]) -> Vec<Rule> {
    let chain = Chain::Input;
    let mut rules = vec![
        rule(
            "in/lo",
            chain,
            vec![Match::From("lo".into())],
            Action::Accept,
        ),
        rule(
            "in/established",
            chain,
            vec![Match::State(ESTABLISHED)],
            Action::Accept,
        ),
        rule(
            "in/invalid",
            chain,
            vec![Match::State(&["invalid"])],
            Action::Drop,
        )
        .counted(),
        rule(
            "in/icmp",
            chain,
            vec![Match::Icmp(ICMP_ERRORS)],
            Action::Accept,
        ),
        rule(
            "in/icmp6",
            chain,
            vec![Match::Icmp6(ICMP6_ERRORS)],
            Action::Accept,
        ),
        rule(
            "in/neighbours",
            chain,
            vec![Match::Icmp6(NEIGHBOURS), Match::HopLimit(255)],
            Action::Accept,
        ),
        rule(
            "in/multicast-query",
            chain,
            vec![Match::Icmp6(&["mld-listener-query"])],
            Action::Accept,
        ),
        rule(
            "in/echo",
            chain,
            vec![Match::Icmp(&["echo-request"]), Match::Rate(ECHO_PER_SECOND)],
            Action::Accept,
        )
        .counted(),
        rule(
            "in/echo6",
            chain,
            vec![
                Match::Icmp6(&["echo-request"]),
                Match::Rate(ECHO_PER_SECOND),
            ],
            Action::Accept,
        )
        .counted(),
    ];
    for open in openings
        .iter()
        .filter(|open| open.row.direction == Direction::Listen)
    {
        rules.extend(listen(config, open));
    }
    rules.extend(management(config));
    rules.extend(leftovers(config, chain));
    rules
}

fn output(config: &Config, openings: &[Opening], users: Users) -> Vec<Rule> {
    let chain = Chain::Output;
    let mut rules = Vec::new();
    if let (Some(user), Some(_)) = (users.webconf, &config.webconf) {
        rules.push(
            rule(
                "webconf/never-dials",
                chain,
                vec![Match::User(user), Match::State(&["new"])],
                Action::Drop,
            )
            .counted(),
        );
    }
    rules.extend([
        rule(
            "out/lo",
            chain,
            vec![Match::To("lo".into())],
            Action::Accept,
        ),
        rule(
            "out/established",
            chain,
            vec![Match::State(ESTABLISHED)],
            Action::Accept,
        ),
        rule(
            "out/icmp",
            chain,
            vec![Match::Icmp(ICMP_ERRORS)],
            Action::Accept,
        ),
        rule(
            "out/icmp6",
            chain,
            vec![Match::Icmp6(ICMP6_ERRORS)],
            Action::Accept,
        ),
        rule(
            "out/neighbours",
            chain,
            vec![Match::Icmp6(NEIGHBOURS), Match::HopLimit(255)],
            Action::Accept,
        ),
        rule(
            "out/multicast-report",
            chain,
            vec![Match::Icmp6(MULTICAST_REPORTS)],
            Action::Accept,
        ),
    ]);
    let (narrow, wide): (Vec<&Opening>, Vec<&Opening>) = openings
        .iter()
        .partition(|open| open.ports != PortRange::ANY);
    // A rule for every port comes last, or what the narrow ones allow would be counted there.
    for open in narrow.into_iter().chain(wide) {
        match open.row.direction {
            Direction::Listen if answers_untracked(open) => rules.extend(answer(open)),
            Direction::Listen => {}
            Direction::Dial => rules.extend(dial(config, open)),
        }
    }
    rules.extend(leftovers(config, chain));
    rules
}

/// Lets a listener be reached, at its address and by its interface only.
fn listen(config: &Config, open: &Opening) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, addresses) in families(&open.addresses) {
        let Some(sources) = peers(config, open).of(family) else {
            continue;
        };
        let mut matches = vec![Match::From(open.interface.clone())];
        matches.extend(sources.map(|nets| Match::Address(AddressField::Source, nets)));
        matches.push(Match::Address(AddressField::Destination, addresses));
        matches.push(Match::Port(
            open.row.transport,
            PortField::Destination,
            vec![open.ports],
        ));
        matches.extend(opening(open));
        rules.push(
            rule(
                family.name(open.row.id),
                Chain::Input,
                matches,
                Action::Accept,
            )
            .counted_as(open.row.id),
        );
    }
    rules
}

/// Lets the answers of an untracked listener leave.
fn answer(open: &Opening) -> Vec<Rule> {
    let counter = format!("{}/out", open.row.id);
    families(&open.addresses)
        .into_iter()
        .map(|(family, addresses)| {
            let matches = vec![
                Match::To(open.interface.clone()),
                Match::Address(AddressField::Source, addresses),
                Match::Port(open.row.transport, PortField::Source, vec![open.ports]),
            ];
            rule(
                family.name(&counter),
                Chain::Output,
                matches,
                Action::Accept,
            )
            .counted_as(&counter)
        })
        .collect()
}

/// Lets the host open flows of its own.
fn dial(config: &Config, open: &Opening) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, addresses) in families(&open.addresses) {
        let Some(destinations) = peers(config, open).of(family) else {
            continue;
        };
        let mut matches = vec![
            Match::To(open.interface.clone()),
            Match::Address(AddressField::Source, addresses),
        ];
        matches.extend(destinations.map(|nets| Match::Address(AddressField::Destination, nets)));
        let field = match open.row.end {
            End::Local => PortField::Source,
            End::Remote => PortField::Destination,
        };
        matches.push(Match::Port(open.row.transport, field, vec![open.ports]));
        matches.extend(opening(open));
        rules.push(
            rule(
                family.name(open.row.id),
                Chain::Output,
                matches,
                Action::Accept,
            )
            .counted_as(open.row.id),
        );
    }
    rules
}

/// The operators' own way in; without it a default of drop would lock them out.
fn management(config: &Config) -> Vec<Rule> {
    let member = config.local();
    let mut rules = Vec::new();
    for (index, way) in config.firewall.management.iter().enumerate() {
        let (interface, addresses): (_, Vec<IpAddr>) = match way.side {
            Side::External => (&config.external.interface, member.external.ips().collect()),
            Side::Internal => (&config.internal.interface, member.internal.ips().collect()),
        };
        let counter = format!("management/{index}");
        for (family, addresses) in families(&addresses) {
            let sources = family.of(&way.from);
            if sources.is_empty() {
                continue;
            }
            let mut ports: Vec<PortRange> = way.tcp.iter().copied().map(PortRange::one).collect();
            ports.sort_unstable();
            ports.dedup();
            let mut matches = vec![Match::From(interface.clone())];
            if !is_everything(&sources) {
                matches.push(Match::Address(AddressField::Source, sources));
            }
            matches.extend([
                Match::Address(AddressField::Destination, addresses),
                Match::Port(Transport::Tcp, PortField::Destination, ports),
                Match::Opening,
                Match::State(&["new"]),
            ]);
            rules.push(
                rule(family.name(&counter), Chain::Input, matches, Action::Accept)
                    .counted_as(&counter),
            );
        }
    }
    rules
}

/// Counts what the policy would have dropped in silence, per side.
fn leftovers(config: &Config, chain: Chain) -> Vec<Rule> {
    let sides = [
        ("ext", &config.external.interface),
        ("int", &config.internal.interface),
    ];
    sides
        .into_iter()
        .map(|(side, interface)| {
            let (way, on) = match chain {
                Chain::Output | Chain::RawOut => ("out", Match::To(interface.clone())),
                Chain::Input | Chain::RawIn | Chain::Forward => {
                    ("in", Match::From(interface.clone()))
                }
            };
            rule(
                format!("{way}/{side}/refused"),
                chain,
                vec![on],
                Action::Drop,
            )
            .counted()
        })
        .collect()
}

/// What opens a tracked flow; media is not tracked.
fn opening(open: &Opening) -> Vec<Match> {
    match open.row.transport {
        Transport::Udp if is_media(open) => vec![],
        Transport::Udp => vec![Match::State(&["new"])],
        Transport::Tcp => vec![Match::Opening, Match::State(&["new"])],
    }
}

/// UDP of the A/V Edge: many short flows with a high packet rate.
fn is_media(open: &Opening) -> bool {
    open.row.transport == Transport::Udp
        && matches!(open.row.purpose, Purpose::TurnUdp | Purpose::Relay)
}

/// TURN answers from the port that it listens on; relay ports have a row of their own for what leaves.
fn answers_untracked(open: &Opening) -> bool {
    is_media(open) && open.row.purpose == Purpose::TurnUdp
}

/// The far ends of an opening.
enum Peers {
    Anyone,
    Only(Vec<IpNet>),
}

impl Peers {
    /// Of one family: `None` when there are none, `Some(None)` when all are.
    #[expect(
        clippy::option_option,
        reason = "no rule, a rule for all, and a rule for some are three things"
    )]
    fn of(self, family: Family) -> Option<Option<Vec<IpNet>>> {
        match self {
            Self::Anyone => Some(None),
            Self::Only(networks) => {
                let networks = family.of(&networks);
                if networks.is_empty() {
                    return None;
                }
                Some((!is_everything(&networks)).then_some(networks))
            }
        }
    }
}

fn peers(config: &Config, open: &Opening) -> Peers {
    let addresses = |list: &[IpAddr]| list.iter().copied().map(IpNet::from).collect::<Vec<_>>();
    match (open.row.reach, open.row.side) {
        (Reach::Anyone, _) => Peers::Anyone,
        (Reach::Inside, _) => Peers::Only(inside(config)),
        (Reach::NextHop, _) if config.internal.next_hop_addresses.is_empty() => {
            Peers::Only(inside(config))
        }
        (Reach::NextHop, _) => Peers::Only(addresses(&config.internal.next_hop_addresses)),
        // Without resolvers of its own the host asks those of the system, wherever they are.
        (Reach::Resolvers, Side::External) if config.dns.external.is_empty() => Peers::Anyone,
        (Reach::Resolvers, Side::Internal) if config.dns.internal.is_empty() => {
            Peers::Only(inside(config))
        }
        (Reach::Resolvers, Side::External) => Peers::Only(addresses(&config.dns.external)),
        (Reach::Resolvers, Side::Internal) => Peers::Only(addresses(&config.dns.internal)),
        (Reach::Balancers, side) => Peers::Only(addresses(&config.array.balancers[side])),
        (Reach::Members, side) => Peers::Only(addresses(&others(config, side))),
        (Reach::Collector, _) => {
            let hep = config
                .access
                .as_ref()
                .and_then(|access| access.hep.as_ref());
            let collector: Vec<_> = hep.map(|hep| hep.collector).into_iter().collect();
            Peers::Only(addresses(&collector))
        }
    }
}

fn others(config: &Config, side: Side) -> Vec<IpAddr> {
    config
        .others()
        .flat_map(|member| match side {
            Side::External => member.external.ips().collect::<Vec<_>>(),
            Side::Internal => member.internal.ips().collect(),
        })
        .collect()
}

/// Everything that may stand at the far end of the internal interface.
fn inside(config: &Config) -> Vec<IpNet> {
    let links = config.local().internal.addresses.iter();
    let mut networks: Vec<IpNet> = config
        .internal
        .networks
        .iter()
        .chain(links)
        .map(IpNet::trunc)
        .collect();
    networks.extend(
        config
            .array
            .balancers
            .internal
            .iter()
            .copied()
            .map(IpNet::from),
    );
    networks
}

/// Neighbour discovery speaks from these, whatever the networks are (RFC 4861 §4.3, RFC 4862 §5.4.2).
fn link_local() -> Vec<IpNet> {
    let unspecified = IpNet::from(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));
    let link = IpNet::new(
        IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)),
        10,
    );
    link.into_iter().chain([unspecified]).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn name(self, of: &str) -> String {
        match self {
            Self::V4 => format!("{of}/ip4"),
            Self::V6 => format!("{of}/ip6"),
        }
    }

    /// Those of the family.
    fn of(self, networks: &[IpNet]) -> Vec<IpNet> {
        networks
            .iter()
            .filter(|network| matches!(network, IpNet::V4(_)) == (self == Self::V4))
            .map(IpNet::trunc)
            .collect()
    }
}

/// The addresses by family, families without any left out.
fn families(addresses: &[IpAddr]) -> Vec<(Family, Vec<IpNet>)> {
    let networks: Vec<IpNet> = addresses.iter().copied().map(IpNet::from).collect();
    Family::BOTH
        .into_iter()
        .map(|family| (family, family.of(&networks)))
        .filter(|(_, networks)| !networks.is_empty())
        .collect()
}

/// No condition at all, and nft prints none for it.
fn is_everything(networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.prefix_len() == 0)
}

fn rule(name: impl Into<String>, chain: Chain, matches: Vec<Match>, action: Action) -> Rule {
    Rule {
        name: name.into(),
        chain,
        matches,
        counter: None,
        action,
    }
}

impl Rule {
    fn counted(self) -> Self {
        let name = self.name.clone();
        self.counted_as(&name)
    }

    fn counted_as(mut self, counter: &str) -> Self {
        self.counter = Some(counter.to_owned());
        self
    }
}

const ESTABLISHED: &[&str] = &["established", "related"];

/// Answers to pings, for the whole host.
const ECHO_PER_SECOND: u32 = 10;

/// Without these, path MTU discovery and the errors of untracked media would be lost (RFC 4890 §4.3).
const ICMP_ERRORS: &[&str] = &[
    "destination-unreachable",
    "time-exceeded",
    "parameter-problem",
];

const ICMP6_ERRORS: &[&str] = &[
    "destination-unreachable",
    "packet-too-big",
    "time-exceeded",
    "parameter-problem",
];

const NEIGHBOURS: &[&str] = &["nd-neighbor-solicit", "nd-neighbor-advert"];

/// Switches that listen for them pass neighbour discovery on only to those who have reported (RFC 4541 §3).
const MULTICAST_REPORTS: &[&str] = &[
    "mld-listener-report",
    "mld-listener-done",
    "mld2-listener-report",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use edge_common::config::RelayMode;

    use super::*;
    use crate::fixture;

    fn names(config: &Config) -> BTreeSet<String> {
        let rules = ruleset(config, Users::default()).rules;
        rules.into_iter().map(|rule| rule.name).collect()
    }

    #[test]
    fn names_are_unique_and_every_opening_has_its_rules() {
        let config = fixture::single();
        let rules = ruleset(&config, Users { webconf: Some(1) }).rules;
        let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names.len(), rules.len());
        for open in ports::openings(&config) {
            assert!(
                names.contains(format!("{}/ip4", open.row.id).as_str()),
                "{}",
                open.row.id
            );
        }
    }

    #[test]
    fn what_lets_a_flow_in_names_interface_and_address() {
        let ruleset = ruleset(&fixture::single(), Users::default());
        let general = [
            "in/lo",
            "in/established",
            "in/icmp",
            "in/icmp6",
            "in/neighbours",
            "in/multicast-query",
            "in/echo",
            "in/echo6",
        ];
        for rule in ruleset
            .of(Chain::Input)
            .filter(|rule| rule.action == Action::Accept)
        {
            if general.contains(&rule.name.as_str()) {
                continue;
            }
            let has = |wanted: fn(&Match) -> bool| rule.matches.iter().any(wanted);
            assert!(has(|one| matches!(one, Match::From(_))), "{}", rule.name);
            assert!(
                has(|one| matches!(one, Match::Address(AddressField::Destination, _))),
                "{}",
                rule.name
            );
            assert!(
                has(|one| matches!(one, Match::Port(_, PortField::Destination, _))),
                "{}",
                rule.name
            );
        }
    }

    #[test]
    fn the_relay_mode_decides_which_relay_ports_are_open() {
        let mut config = fixture::single();
        let mut relays = |mode| {
            config.av.as_mut().unwrap().relay_mode = mode;
            names(&config)
                .into_iter()
                .filter(|name| {
                    name.contains("/relay-")
                        && name.ends_with("/ip4")
                        && !name.contains("untracked")
                })
                .map(|name| name.replace("av/ext/relay-", "").replace("/ip4", ""))
                .collect::<Vec<_>>()
        };
        assert_eq!(relays(RelayMode::Open), ["tcp-out", "udp-in", "udp-out"]);
        assert_eq!(
            relays(RelayMode::PreR2),
            ["tcp-in", "tcp-out", "udp-in", "udp-out"]
        );
        assert_eq!(relays(RelayMode::TcpOut), ["tcp-out"]);
        assert_eq!(relays(RelayMode::Closed), Vec::<String>::new());
    }

    #[test]
    fn a_service_that_does_not_run_here_opens_nothing() {
        let mut config = fixture::single();
        config.webconf = None;
        config.av = None;
        let names = names(&config);
        assert!(
            !names
                .iter()
                .any(|name| name.starts_with("webconf/") || name.starts_with("av/")),
            "{names:?}"
        );
        assert!(names.contains("access/ext/client/ip4"));
    }

    #[test]
    fn only_media_is_untracked() {
        let ruleset = ruleset(&fixture::single(), Users::default());
        for rule in ruleset
            .rules
            .iter()
            .filter(|rule| rule.action == Action::Notrack)
        {
            let is_udp = rule
                .matches
                .iter()
                .any(|one| matches!(one, Match::Port(Transport::Udp, ..)));
            assert!(is_udp && rule.name.starts_with("av/"), "{}", rule.name);
        }
    }
}

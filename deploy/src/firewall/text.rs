//! The table as people review it: byte for byte what `nft -s list table inet edge` answers once it is loaded.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt::Display;

use super::span::spans;
use super::{Action, Chain, Match, Rule, Ruleset, TABLE, family_word};
use crate::plan::line;

/// The whole table.
#[must_use]
pub fn table(ruleset: &Ruleset) -> String {
    let mut out = format!("table inet {TABLE} {{\n");
    for counter in ruleset.counters() {
        line(&mut out, format_args!("\tcounter {counter} {{\n\t}}\n"));
    }
    let chains: Vec<String> = Chain::ALL
        .into_iter()
        .map(|which| chain(ruleset, which))
        .collect();
    out.push_str(&chains.join("\n"));
    out.push_str("}\n");
    out
}

fn chain(ruleset: &Ruleset, chain: Chain) -> String {
    let mut out = format!("\tchain {} {{\n", chain.name());
    line(
        &mut out,
        format_args!(
            "\t\ttype filter hook {} priority {}; policy {};",
            chain.hook(),
            chain.priority().word(),
            action(chain.policy()),
        ),
    );
    for one in ruleset.of(chain) {
        line(&mut out, format_args!("\t\t{}", rule(one)));
    }
    out.push_str("\t}\n");
    out
}

/// One rule on one line.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(condition).collect();
    words.extend(
        rule.counter
            .iter()
            .map(|name| format!("counter name \"{name}\"")),
    );
    words.push(action(rule.action).to_owned());
    words.push(format!("comment \"{}\"", rule.comment()));
    words.join(" ")
}

const fn action(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Drop => "drop",
        Action::Notrack => "notrack",
    }
}

fn condition(condition: &Match) -> String {
    match condition {
        Match::From(interface) => format!("iifname \"{interface}\""),
        Match::To(interface) => format!("oifname \"{interface}\""),
        Match::Address(field, networks) => format!(
            "{} {} {}",
            family_word(networks),
            field.word(),
            set(spans(networks)),
        ),
        Match::NotSource(networks) => format!(
            "{} saddr != {}",
            family_word(networks),
            set(spans(networks)),
        ),
        Match::Port(transport, field, ports) => {
            format!("{transport} {} {}", field.word(), set(ports))
        }
        Match::Opening => "tcp flags syn / fin,syn,rst,ack".to_owned(),
        Match::State(states) => format!("ct state {}", states.join(",")),
        Match::Icmp(types) => format!("icmp type {}", set(types.iter())),
        Match::Icmp6(types) => format!("icmpv6 type {}", set(types.iter())),
        Match::HopLimit(hops) => format!("ip6 hoplimit {hops}"),
        Match::User(user) => format!("meta skuid {user}"),
        Match::Rate(per_second) => format!("limit rate {per_second}/second"),
    }
}

fn set(elements: impl IntoIterator<Item = impl Display>) -> String {
    let elements: Vec<String> = elements.into_iter().map(|one| one.to_string()).collect();
    match elements.as_slice() {
        [one] => one.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    }
}

//! What `nft -j -f -` is given: one document, which the kernel takes as one transaction.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::borrow::Cow;
use std::net::IpAddr;

use edge_common::ports::{PortRange, Transport};
use nftables::expr::{
    BinaryOperation, CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix,
    Range, SetItem,
};
use nftables::schema::{
    Chain as NftChain, Counter, NfCmd, NfListObject, NfObject, Nftables, Rule as NftRule, Table,
};
use nftables::stmt::{
    Accept, Counter as CounterStatement, Drop, Limit, Match as NftMatch, Operator, Statement,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::Value;

use super::span::{Span, spans};
use super::{Action, Chain, Match, Rule, Ruleset, TABLE, family_word};

/// The commands that put `ruleset` in the place of whatever the table holds.
///
/// # Errors
/// When the types of the `nftables` crate cannot be written as JSON, which would be its fault.
pub fn replace(ruleset: &Ruleset) -> Result<Value, serde_json::Error> {
    // Adding first makes the removal succeed on a host that has no such table yet.
    let mut objects = vec![
        NfObject::CmdObject(NfCmd::Add(NfListObject::Table(table()))),
        NfObject::CmdObject(NfCmd::Delete(NfListObject::Table(table()))),
    ];
    objects.extend(contents(ruleset).map(|object| NfObject::CmdObject(NfCmd::Add(object))));
    document(objects)
}

/// The commands that remove the table.
///
/// # Errors
/// As [`replace`].
pub fn remove() -> Result<Value, serde_json::Error> {
    document(vec![
        NfObject::CmdObject(NfCmd::Add(NfListObject::Table(table()))),
        NfObject::CmdObject(NfCmd::Delete(NfListObject::Table(table()))),
    ])
}

/// What `nft -j list table` should answer, handles and counts apart.
///
/// # Errors
/// As [`replace`].
pub fn listing(ruleset: &Ruleset) -> Result<Value, serde_json::Error> {
    document(contents(ruleset).map(NfObject::ListObject).collect())
}

fn contents<'a>(ruleset: &'a Ruleset) -> impl Iterator<Item = NfListObject<'a>> {
    let counters = ruleset.counters().into_iter().map(counter);
    let chains = Chain::ALL.into_iter().map(chain);
    let rules = Chain::ALL
        .into_iter()
        .flat_map(|chain| ruleset.of(chain))
        .map(rule);
    std::iter::once(NfListObject::Table(table()))
        .chain(counters)
        .chain(chains)
        .chain(rules)
}

fn document(objects: Vec<NfObject<'_>>) -> Result<Value, serde_json::Error> {
    let mut document = serde_json::to_value(Nftables {
        objects: objects.into(),
    })?;
    spell_statements(&mut document);
    Ok(document)
}

/// nft takes a statement without arguments as `{"notrack": null}` only; the crate writes `"notrack"`.
fn spell_statements(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                if key == "expr"
                    && let Value::Array(statements) = inner
                {
                    for statement in statements.iter_mut() {
                        if let Value::String(word) = statement {
                            *statement = serde_json::json!({ word.as_str(): null });
                        }
                    }
                }
                spell_statements(inner);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(spell_statements),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn table<'a>() -> Table<'a> {
    Table {
        family: NfFamily::INet,
        name: TABLE.into(),
        handle: None,
    }
}

fn counter(name: &str) -> NfListObject<'_> {
    NfListObject::Counter(Counter {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        handle: None,
        packets: None,
        bytes: None,
    })
}

fn chain<'a>(chain: Chain) -> NfListObject<'a> {
    NfListObject::Chain(NftChain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: chain.name().into(),
        newname: None,
        handle: None,
        _type: Some(NfChainType::Filter),
        hook: Some(match chain {
            Chain::RawIn => NfHook::Prerouting,
            Chain::RawOut | Chain::Output => NfHook::Output,
            Chain::Input => NfHook::Input,
            Chain::Forward => NfHook::Forward,
        }),
        prio: Some(chain.priority().number()),
        dev: None,
        policy: Some(match chain.policy() {
            Action::Accept | Action::Notrack => NfChainPolicy::Accept,
            Action::Drop => NfChainPolicy::Drop,
        }),
    })
}

fn rule(rule: &Rule) -> NfListObject<'_> {
    let mut statements: Vec<Statement<'_>> = rule.matches.iter().map(condition).collect();
    statements.extend(
        rule.counter
            .as_deref()
            .map(|name| Statement::Counter(CounterStatement::Named(name.into()))),
    );
    statements.push(match rule.action {
        Action::Accept => Statement::Accept(None::<Accept>),
        Action::Drop => Statement::Drop(None::<Drop>),
        Action::Notrack => Statement::Notrack,
    });
    NfListObject::Rule(NftRule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: rule.chain.name().into(),
        expr: Cow::Owned(statements),
        handle: None,
        index: None,
        comment: Some(rule.comment().into()),
    })
}

fn condition(condition: &Match) -> Statement<'_> {
    match condition {
        Match::From(interface) => equal(meta(MetaKey::Iifname), word(interface)),
        Match::To(interface) => equal(meta(MetaKey::Oifname), word(interface)),
        Match::Address(field, networks) => equal(
            field_of(family_word(networks), field.word()),
            one_of(spans(networks).into_iter().map(span)),
        ),
        Match::NotSource(networks) => matching(
            field_of(family_word(networks), "saddr"),
            Operator::NEQ,
            one_of(spans(networks).into_iter().map(span)),
        ),
        Match::Port(transport, field, ports) => equal(
            field_of(transport_word(*transport), field.word()),
            one_of(ports.iter().map(|range| port_range(*range))),
        ),
        Match::Opening => equal(
            Expression::BinaryOperation(Box::new(BinaryOperation::AND(
                field_of("tcp", "flags"),
                Expression::List(["fin", "syn", "rst", "ack"].map(word).into()),
            ))),
            word("syn"),
        ),
        Match::State(states) => matching(
            Expression::Named(NamedExpression::CT(CT {
                key: "state".into(),
                family: None,
                dir: None,
            })),
            Operator::IN,
            match states {
                [state] => word(state),
                several => Expression::List(several.iter().map(|state| word(state)).collect()),
            },
        ),
        Match::Icmp(types) => equal(
            field_of("icmp", "type"),
            one_of(types.iter().map(|name| word(name))),
        ),
        Match::Icmp6(types) => equal(
            field_of("icmpv6", "type"),
            one_of(types.iter().map(|name| word(name))),
        ),
        Match::HopLimit(hops) => equal(
            field_of("ip6", "hoplimit"),
            Expression::Number(u32::from(*hops)),
        ),
        Match::User(user) => equal(meta(MetaKey::Skuid), Expression::Number(*user)),
        Match::Rate(per_second) => Statement::Limit(Limit {
            rate: *per_second,
            rate_unit: None,
            per: Some("second".into()),
            burst: Some(RATE_BURST),
            burst_unit: None,
            inv: None,
        }),
    }
}

/// nft's own default, written out because it lists it back.
const RATE_BURST: u32 = 5;

fn equal<'a>(left: Expression<'a>, right: Expression<'a>) -> Statement<'a> {
    matching(left, Operator::EQ, right)
}

fn matching<'a>(left: Expression<'a>, op: Operator, right: Expression<'a>) -> Statement<'a> {
    Statement::Match(NftMatch { left, right, op })
}

fn meta<'a>(key: MetaKey) -> Expression<'a> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn field_of<'a>(protocol: &'static str, field: &'static str) -> Expression<'a> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(
        PayloadField {
            protocol: protocol.into(),
            field: field.into(),
        },
    )))
}

fn word(text: &str) -> Expression<'_> {
    Expression::String(text.into())
}

/// A set of one is written as its element, as nft lists it.
fn one_of<'a>(elements: impl Iterator<Item = Expression<'a>>) -> Expression<'a> {
    let mut elements: Vec<Expression<'a>> = elements.collect();
    if elements.len() == 1 {
        return elements.remove(0);
    }
    Expression::Named(NamedExpression::Set(
        elements.into_iter().map(SetItem::Element).collect(),
    ))
}

fn span<'a>(span: Span) -> Expression<'a> {
    let word = |address: IpAddr| Expression::String(address.to_string().into());
    match span {
        Span::One(address) => word(address),
        Span::Net(network) => Expression::Named(NamedExpression::Prefix(Prefix {
            addr: Box::new(word(network.addr())),
            len: u32::from(network.prefix_len()),
        })),
        Span::Range(first, last) => Expression::Range(Box::new(Range {
            range: [word(first), word(last)],
        })),
    }
}

fn port_range<'a>(range: PortRange) -> Expression<'a> {
    let port = |port: u16| Expression::Number(u32::from(port));
    if range.count() == 1 {
        return port(range.first());
    }
    Expression::Range(Box::new(Range {
        range: [port(range.first()), port(range.last())],
    }))
}

const fn transport_word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

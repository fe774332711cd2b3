//! Limits that contradict each other or real traffic.

use std::time::Duration;

use super::Check;
use crate::config::rule;
use crate::config::units::{KIB, MIB, duration_text, size_text};
use crate::config::webconf::TOKEN_LIFETIME_MAX;
use crate::host_name::NamePattern;

pub(super) fn apply(check: &mut Check<'_>) {
    parts(check);
    sizes(check);
    durations(check);
    queues(check);
    pools(check);
    ways_in(check);
}

/// No part is larger than its whole.
fn parts(check: &mut Check<'_>) {
    let file = check.file;
    let mut parts = Vec::new();
    if let Some(limits) = file.access.as_ref().map(|access| &access.limits) {
        parts.push((
            "access.limits.connections_per_source",
            limits.connections_per_source,
            limits.connections,
        ));
        parts.push((
            "access.limits.handshakes_per_source",
            limits.handshakes_per_source,
            limits.handshakes,
        ));
    }
    if let Some(limits) = file.webconf.as_ref().map(|webconf| &webconf.limits) {
        parts.push((
            "webconf.limits.connections_per_source",
            limits.connections_per_source,
            limits.connections,
        ));
        parts.push((
            "webconf.limits.handshakes_per_source",
            limits.handshakes_per_source,
            limits.handshakes,
        ));
    }
    if let Some(limits) = file.av.as_ref().map(|av| &av.limits) {
        parts.push((
            "av.limits.allocations_per_user",
            limits.allocations_per_user,
            limits.allocations,
        ));
        parts.push((
            "av.limits.allocations_per_source",
            limits.allocations_per_source,
            limits.allocations,
        ));
        parts.push((
            "av.limits.tcp_connections_per_source",
            limits.tcp_connections_per_source,
            limits.tcp_connections,
        ));
        parts.push((
            "av.limits.handshakes_per_source",
            limits.handshakes_per_source,
            limits.handshakes,
        ));
    }
    for (key, part, whole) in parts.into_iter().filter(|(_, part, whole)| part > whole) {
        check.tell(
            rule::LIMIT_ORDER,
            key,
            format!("{part} is more than the limit of all, {whole}"),
        );
    }
}

/// Large enough for lawful messages, small enough to be a limit.
fn sizes(check: &mut Check<'_>) {
    let file = check.file;
    let mut sizes = Vec::new();
    if let Some(limits) = file.access.as_ref().map(|access| &access.limits) {
        sizes.extend([
            ("access.limits.head", limits.head, 4 * KIB, MIB),
            (
                "access.limits.client_body",
                limits.client_body,
                4 * KIB,
                64 * MIB,
            ),
            (
                "access.limits.server_body",
                limits.server_body,
                4 * KIB,
                64 * MIB,
            ),
            (
                "access.limits.client_queue",
                limits.client_queue,
                16 * KIB,
                256 * MIB,
            ),
            (
                "access.limits.server_queue",
                limits.server_queue,
                64 * KIB,
                256 * MIB,
            ),
        ]);
    }
    if let Some(clients) = file.access.as_ref().map(|access| &access.clients) {
        let body = clients.newcomer_body;
        sizes.push(("access.clients.newcomer_body", body, 4 * KIB, 64 * MIB));
    }
    if let Some(limits) = file.webconf.as_ref().map(|webconf| &webconf.limits) {
        sizes.extend([
            ("webconf.limits.preread", limits.preread, 256, 64 * KIB),
            (
                "webconf.limits.relay_buffer",
                limits.relay_buffer,
                2 * KIB,
                MIB,
            ),
        ]);
    }
    for (key, size, least, most) in sizes {
        if size < least {
            check.tell(
                rule::LIMIT_SMALL,
                key,
                format!("{} is less than {}", size_text(size), size_text(least)),
            );
        } else if size > most {
            check.tell(
                rule::LIMIT_LARGE,
                key,
                format!("{} is more than {}", size_text(size), size_text(most)),
            );
        }
    }
}

/// A client that sends no keep-alive for longer is cut off by a NAT on its way, or by us (MS-SIPRE).
fn durations(check: &mut Check<'_>) {
    let Some(clients) = check.file.access.as_ref().map(|access| &access.clients) else {
        return;
    };
    let durations = [
        (
            "access.clients.keep_alive",
            clients.keep_alive,
            Duration::from_secs(60),
            Duration::from_secs(20 * 60),
        ),
        (
            "access.clients.newcomer_time",
            clients.newcomer_time,
            Duration::from_secs(5),
            Duration::from_secs(10 * 60),
        ),
    ];
    for (key, duration, least, most) in durations {
        let text = duration_text;
        if duration < least {
            let message = format!("{} is less than {}", text(duration), text(least));
            check.tell(rule::LIMIT_SMALL, key, message);
        } else if duration > most {
            let message = format!("{} is more than {}", text(duration), text(most));
            check.tell(rule::LIMIT_LARGE, key, message);
        }
    }
}

/// A queue takes a message as a whole or not at all.
fn queues(check: &mut Check<'_>) {
    let Some(limits) = check.file.access.as_ref().map(|access| &access.limits) else {
        return;
    };
    let (head, client, server) = (limits.head, limits.client_body, limits.server_body);
    let queues = [
        ("client_queue", limits.client_queue, "client_body", client),
        ("server_queue", limits.server_queue, "server_body", server),
    ];
    for (key, queue, body_key, body) in queues {
        let message = head.saturating_add(body);
        if queue < message {
            let (queue, message) = (size_text(queue), size_text(message));
            check.tell(
                rule::QUEUE_SMALL,
                format!("access.limits.{key}"),
                format!("{queue} is less than head and {body_key}, {message}"),
            );
        }
    }
}

fn pools(check: &mut Check<'_>) {
    let Some(limits) = check.file.webconf.as_ref().map(|webconf| &webconf.limits) else {
        return;
    };
    if limits.token_lifetime > TOKEN_LIFETIME_MAX {
        let message = format!("{} is more than 24 h", duration_text(limits.token_lifetime));
        check.tell(rule::TOKENS_LONG, "webconf.limits.token_lifetime", message);
    }
    if limits.pool_min > limits.pool_max {
        let message = format!(
            "{} is more than pool_max, {}",
            limits.pool_min, limits.pool_max
        );
        check.tell(rule::POOL_ORDER, "webconf.limits.pool_min", message);
    }
    let has_tokens = check
        .file
        .webconf
        .as_ref()
        .is_some_and(|webconf| !webconf.preface_keys.is_empty());
    if has_tokens && limits.preread < TOKEN_LINE {
        let message = format!("{} is less than 1 KiB", size_text(limits.preread));
        check.tell(rule::PREREAD_SMALL, "webconf.limits.preread", message);
    }
    if limits.preread > limits.relay_buffer {
        let (preread, buffer) = (size_text(limits.preread), size_text(limits.relay_buffer));
        let message = format!("{preread} is more than relay_buffer, {buffer}");
        check.tell(rule::PREREAD_LARGE, "webconf.limits.preread", message);
    }
}

/// EWRP/1: the longest preface line.
const TOKEN_LINE: usize = 1024;

/// Somebody must be able to come in, and a role belongs to somebody.
fn ways_in(check: &mut Check<'_>) {
    let Some(webconf) = check.file.webconf.as_ref() else {
        return;
    };
    if !webconf.scan && webconf.preface_keys.is_empty() {
        let message = "neither numbers nor tokens are looked for";
        check.tell(rule::NO_WAY_IN, "webconf.scan", message);
    }
    for (index, name) in webconf.conference_agents.iter().enumerate() {
        let covered = webconf.agents.iter().any(|agent| covers(agent, name));
        if !covered {
            let key = format!("webconf.conference_agents[{index}]");
            let message = format!("{name} is not among webconf.agents");
            check.tell(rule::ROLE_OF_NOBODY, key, message);
        }
    }
}

fn covers(agent: &NamePattern, name: &NamePattern) -> bool {
    match name {
        NamePattern::Exact(name) => agent.matches(name),
        NamePattern::OneBelow(_) => agent == name,
    }
}

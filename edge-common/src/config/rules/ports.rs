//! Who listens where, and that no one else does.

use std::net::IpAddr;

use super::Check;
use crate::config::file::{Array, File, Member};
use crate::config::rule;
use crate::ports::{Direction, PortRange, Purpose, Row, Service, Standing, TABLE, Transport};
use crate::side::Side;

pub(super) fn apply(check: &mut Check<'_>) {
    one_listener_each(check);
    one_vip_each(check);
    relay_apart(check);
    relay_wide_enough(check);
    management(check);
}

/// Tells each pair of services once, however many addresses and members they meet on.
fn one_listener_each(check: &mut Check<'_>) {
    let rows = listening(check.file);
    for (index, (row, port)) in rows.iter().enumerate() {
        for (other, _) in rows[..index]
            .iter()
            .filter(|(other, taken)| meets(row, other) && taken == port)
        {
            let shared = check
                .file
                .members
                .iter()
                .find_map(|member| shared(member, row, other));
            if let Some(address) = shared {
                let message = format!(
                    "{} and {} both listen on {address} {} {port}",
                    other.id, row.id, row.transport
                );
                let key =
                    check.blame(&[row.key.unwrap_or_default(), other.key.unwrap_or_default()]);
                check.tell(rule::PORT_CONFLICT, key, message);
            }
        }
    }
}

fn one_vip_each(check: &mut Check<'_>) {
    let file = check.file;
    let Some(array) = file.array.as_ref().filter(|_| file.is_balanced()) else {
        return;
    };
    let vips = |row: &Row| match (row.side, row.service) {
        (Side::External, Service::Access) => &array.vips.external.access[..],
        (Side::External, Service::Webconf) => &array.vips.external.webconf,
        (Side::External, Service::Av) => &array.vips.external.av,
        (Side::Internal, Service::Access) => &array.vips.internal.access,
        (Side::Internal, Service::Av) => &array.vips.internal.av,
        (Side::Internal, Service::Webconf) => &[],
    };
    // Health is asked of each member, and members link with each other, past the array's addresses.
    let rows: Vec<_> = listening(file)
        .into_iter()
        .filter(|(row, _)| !matches!(row.purpose, Purpose::Health | Purpose::Link))
        .collect();
    for (index, (row, port)) in rows.iter().enumerate() {
        for (other, _) in rows[..index]
            .iter()
            .filter(|(other, taken)| meets(row, other) && taken == port)
        {
            if let Some(address) = vips(row).iter().find(|vip| vips(other).contains(vip)) {
                let key = format!("array.vips.{}.{}", row.side, row.service);
                let message = format!(
                    "{} and {} share {address} {} {port}",
                    other.id, row.id, row.transport
                );
                check.tell(rule::PORT_CONFLICT, key, message);
            }
        }
    }
}

fn relay_apart(check: &mut Check<'_>) {
    let Some(relay) = relay_ports(check.file) else {
        return;
    };
    if relay.first() < 1024 {
        check.tell(
            rule::RELAY_PRIVILEGED,
            "av.relay_ports",
            format!("the range begins at {}", relay.first()),
        );
    }
    let external = listening(check.file)
        .into_iter()
        .filter(|(row, _)| row.side == Side::External);
    for (row, port) in external.filter(|(_, port)| relay.contains(*port)) {
        let message = format!("{} listens on {port}, which is in {relay}", row.id);
        let key = check.blame(&["av.relay_ports", row.key.unwrap_or_default()]);
        check.tell(rule::RELAY_OVERLAPS, key, message);
    }
}

fn relay_wide_enough(check: &mut Check<'_>) {
    let (Some(relay), Some(av)) = (relay_ports(check.file), &check.file.av) else {
        return;
    };
    // Each external address has the whole range.
    let addresses = |member: &Member| member.taken_by(Service::Av).len();
    let fewest = check
        .file
        .members
        .iter()
        .map(addresses)
        .min()
        .unwrap_or(1)
        .max(1);
    if relay.count() * fewest < av.limits.allocations {
        let message = format!(
            "{} ports for {} allocations",
            relay.count() * fewest,
            av.limits.allocations
        );
        check.tell(rule::RELAY_RANGE_SMALL, "av.relay_ports", message);
    }
}

fn management(check: &mut Check<'_>) {
    let file = check.file;
    if check.is_blank("firewall.management") {
        check.tell(
            rule::MANAGEMENT_MISSING,
            "firewall.management",
            "firewall.management is empty",
        );
    }
    for (index, entry) in file.firewall.management.iter().enumerate() {
        let key = format!("firewall.management[{index}]");
        for (at, network) in entry.from.iter().enumerate() {
            let inside = file.inside().any(|inside| inside.contains(network));
            let key = format!("{key}.from[{at}]");
            match entry.side {
                Side::External if network.prefix_len() == 0 => {
                    check.tell(
                        rule::MANAGEMENT_WORLD,
                        key,
                        format!("{network} is everyone"),
                    );
                }
                Side::External if inside => {
                    check.tell(
                        rule::MANAGEMENT_WRONG_SIDE,
                        key,
                        format!("{network} is inside"),
                    );
                }
                Side::Internal if !inside && file.inside().next().is_some() => {
                    check.tell(
                        rule::MANAGEMENT_WRONG_SIDE,
                        key,
                        format!("{network} is not in internal.networks"),
                    );
                }
                Side::External | Side::Internal => {}
            }
        }
        let rows = listening(file);
        for (at, port) in entry.tcp.iter().enumerate() {
            let taken = |(row, taken): &&(&Row, u16)| {
                row.side == entry.side && row.transport == Transport::Tcp && taken == port
            };
            if let Some((row, _)) = rows.iter().find(taken) {
                let message = format!("port {port} is that of {}", row.id);
                check.tell(
                    rule::MANAGEMENT_PORT_TAKEN,
                    format!("{key}.tcp[{at}]"),
                    message,
                );
            }
        }
    }
}

/// Two rows that could be in each other's way.
fn meets(row: &Row, other: &Row) -> bool {
    row.side == other.side && row.transport == other.transport
}

/// An address of `member` that both rows take.
fn shared(member: &Member, row: &Row, other: &Row) -> Option<IpAddr> {
    if row.side == Side::Internal {
        return member
            .internal_addresses()
            .first()
            .map(|address| address.addr());
    }
    let others = member.taken_by(other.service);
    let both = |(_, address): &(String, IpAddr)| others.iter().any(|(_, taken)| taken == address);
    member
        .taken_by(row.service)
        .into_iter()
        .find(both)
        .map(|(_, address)| address)
}

/// The rows of the port table that listen on one port in this file, in the table's order.
fn listening(file: &File) -> Vec<(&'static Row, u16)> {
    TABLE
        .iter()
        .filter(|row| {
            row.direction == Direction::Listen
                && row.standing == Standing::InUse
                && is_served(row, file)
        })
        .filter_map(|row| Some((row, port(file, row.key?)?)))
        .collect()
}

/// As the port table decides for a finished configuration.
fn is_served(row: &Row, file: &File) -> bool {
    let Some(access) = file
        .access
        .as_ref()
        .filter(|_| row.service == Service::Access)
    else {
        return file.has(row.service);
    };
    match row.purpose {
        Purpose::Client => access.remote_users || access.anonymous_users,
        Purpose::Federation => file.federates(),
        Purpose::Mirror => access.hep.is_some(),
        Purpose::Internal
        | Purpose::NextHop
        | Purpose::Dns
        | Purpose::Crl
        | Purpose::Conference
        | Purpose::Agent
        | Purpose::TurnUdp
        | Purpose::TurnTcp
        | Purpose::Relay
        | Purpose::Mras
        | Purpose::TurnRest
        | Purpose::Health => true,
        // A single edge has nobody to link with.
        Purpose::Link => file.members.len() != 1,
    }
}

fn relay_ports(file: &File) -> Option<PortRange> {
    file.av.as_ref()?.relay_ports.parse().ok()
}

/// The port that a key of the port table has in the file, or by default.
fn port(file: &File, key: &str) -> Option<u16> {
    let (access, webconf, av) = (
        file.access.as_ref(),
        file.webconf.as_ref(),
        file.av.as_ref(),
    );
    match key {
        "access.client_port" => Some(access?.client_port),
        "access.federation_port" => Some(access?.federation_port),
        "access.internal_port" => Some(access?.internal_port),
        "array.link_port" => Some(
            file.array
                .as_ref()
                .map_or_else(|| Array::default().link_port, |array| array.link_port),
        ),
        "webconf.port" => Some(webconf?.port),
        "webconf.agent_port" => Some(webconf?.agent_port),
        "av.udp_port" => Some(av?.udp_port),
        "av.tcp_port" => Some(av?.tcp_port),
        "av.mras_port" => Some(av?.mras_port),
        "health.access" => Some(file.health.access),
        "health.webconf" => Some(file.health.webconf),
        "health.av" => Some(file.health.av),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{Access, Av, Webconf};

    #[test]
    fn every_listening_row_finds_its_default_in_an_empty_file() {
        let file = File {
            access: Some(Access::default()),
            webconf: Some(Webconf::default()),
            av: Some(Av::default()),
            ..File::default()
        };
        let expected: Vec<_> = TABLE
            .iter()
            .filter(|row| row.direction == Direction::Listen && row.standing == Standing::InUse)
            .map(|row| (row.id, row.default.first()))
            .collect();
        let found: Vec<_> = listening(&file)
            .into_iter()
            .map(|(row, port)| (row.id, port))
            .collect();
        assert_eq!(found, expected);
    }
}

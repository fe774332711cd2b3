//! Step 5: from the Internet every other port is refused, also on the internal address sent to the
//! external interface; the relay does not reach what it must not.

use crate::lab::doors::{self, Door};
use crate::lab::phone::Relay;
use crate::lab::plan::{CONTOSO, STRANGER, ipv6};
use crate::lab::port_scan;
use crate::lab::report::{Report, Seen};
use crate::lab::turn_client::{self, Run};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;

/// Shows step 5.
pub fn show(world: &mut World, report: &mut Report) {
    report.check(
        "5",
        "every TCP port but the listeners is closed to the Internet",
        || tcp_ports(world),
    );
    report.check(
        "5",
        "no datagram passes but to UDP 3478 and the relay range",
        || udp_ports(world),
    );
    let credentials = world.contoso.mras_credentials("alice@contoso.test");
    let relay = match credentials {
        Ok(relay) => relay,
        Err(error) => {
            report.check(
                "5",
                "the relay refuses inside, own and disguised peers",
                || Err(error.context("not run: there are no credentials")),
            );
            return;
        }
    };
    report.check(
        "5",
        "the relay refuses inside, own and disguised peers",
        || forbidden_peers(world, &relay),
    );
}

fn tcp_ports(world: &World) -> Result<Seen> {
    let mut lines = Vec::new();
    for door in doors::all(world.net.variant.av_address()) {
        let address = door.address;
        let scan = arriving(world, &door, "tcp", || {
            let scan = port_scan::tcp(&world.net.stranger, address.parse()?, door.tcp)?;
            Ok((scan, u64::from(u16::MAX)))
        })?;
        // A relay port listens only while somebody holds an allocation; nobody does now.
        let listeners: BTreeSet<u16> = door.tcp.iter().copied().collect();
        if !scan.stray.is_empty() || scan.listening != listeners {
            bail!("{address}: {scan:?}, listeners are {listeners:?}");
        }
        none_passed(world, &door.stray_tcp().0, address)?;
        lines.push(format!("{address} {listeners:?}"));
    }
    inside_address_is_shut(world)?;
    Ok(Seen::text(format!(
        "65535 ports each: {}",
        lines.join(", ")
    )))
}

fn udp_ports(world: &World) -> Result<Seen> {
    let mut lines = Vec::new();
    for door in doors::all(world.net.variant.av_address()) {
        let address = door.address;
        // Also the ports that are open on another address: there the address is wrong, not the port.
        let closed = |port| !door.lets_in(port);
        let sent = arriving(world, &door, "udp", || {
            let sent = port_scan::knock_udp(&world.net.stranger, address.parse()?, closed)?;
            Ok((sent, u64::from(sent)))
        })?;
        none_passed(world, &door.stray_udp().0, address)?;
        lines.push(format!("{address} {sent}"));
    }
    inside_address_is_shut(world)?;
    Ok(Seen::text(format!(
        "datagrams sent: {}; 0 passed",
        lines.join(", ")
    )))
}

/// Does `knock`, which says how many packets it sent at least, and sees that they came to the host: a
/// packet that was lost on the way there says nothing about the firewall.
fn arriving<T>(
    world: &World,
    door: &Door,
    transport: &str,
    knock: impl FnOnce() -> Result<(T, u64)>,
) -> Result<T> {
    let (meter, _) = door.knocks(transport);
    let before = world.meters.perimeter.count(&meter)?.packets;
    let (value, sent) = knock()?;
    let arrived = world.meters.perimeter.count(&meter)?.packets - before;
    if arrived * 100 < sent * 99 {
        bail!("{}: of {sent} knocks only {arrived} arrived", door.address);
    }
    Ok(value)
}

fn none_passed(world: &World, meter: &str, address: &str) -> Result<()> {
    let passed = world.meters.edge.count(meter)?.packets;
    if passed != 0 {
        bail!("{address}: {passed} packets to closed ports passed the firewall ({meter})");
    }
    Ok(())
}

fn inside_address_is_shut(world: &World) -> Result<()> {
    let passed = world.meters.edge.count("inside_address")?.packets;
    if passed != 0 {
        bail!(
            "{passed} packets for {} passed on the external interface",
            CONTOSO.internal
        );
    }
    Ok(())
}

fn forbidden_peers(world: &World, relay: &Relay) -> Result<Seen> {
    let ipv4 = refused_peers(world, relay, STRANGER, &FORBIDDEN)?;
    let ipv6 = refused_peers(world, relay, ipv6::STRANGER, &FORBIDDEN_IPV6)?;
    Ok(Seen::text(format!("403 for {ipv4}, {ipv6}")))
}

/// One honest peer, which is served, and its neighbours that differ in the address only.
fn refused_peers(
    world: &World,
    relay: &Relay,
    honest: &str,
    forbidden: &[(&str, &str)],
) -> Result<String> {
    let host = &world.net.stranger;
    let _peer = turn_client::echo_peer(host, honest, &world.work)?;
    let run = |peer| Run {
        server: CONTOSO.av,
        port: 3478,
        tcp: false,
        peer: Some(peer),
        ipv6: honest.contains(':'),
        messages: 2,
    };
    turn_client::run(host, relay, &run(honest)).with_context(|| format!("honest peer {honest}"))?;
    let mut refused = Vec::new();
    for &(peer, what) in forbidden {
        match turn_client::run(host, relay, &run(peer)) {
            Ok(counted) => bail!("{what} {peer} was accepted as a peer: {counted:?}"),
            Err(error) => {
                let text = format!("{error:#}");
                if !text.contains("403") {
                    bail!("{what} {peer} failed, but not by a refusal (403): {text}");
                }
                refused.push(format!("{peer} ({what})"));
            }
        }
    }
    Ok(refused.join(", "))
}

/// Peers that a relayed packet must never reach.
const FORBIDDEN: [(&str, &str); 8] = [
    (CONTOSO.director, "an inside server"),
    (CONTOSO.internal, "the host's internal address"),
    (CONTOSO.access, "the host's own external address"),
    (CONTOSO.av, "the relay's own address, no relay port of ours"),
    ("127.0.0.1", "loopback"),
    ("169.254.169.254", "link-local"),
    ("192.168.1.1", "a private network elsewhere"),
    ("224.0.0.1", "multicast"),
];

/// The same in IPv6, and IPv4 addresses in their disguises.
const FORBIDDEN_IPV6: [(&str, &str); 13] = [
    ("::ffff:10.10.0.50", "the Director, IPv4-mapped"),
    ("::10.10.0.50", "the Director, IPv4-compatible"),
    ("64:ff9b::a0a:32", "the Director behind NAT64"),
    ("2002:a0a:32::1", "the Director by 6to4"),
    ("2001:0:c000:22a::f5f5:ffcd", "the Director by Teredo"),
    ("::ffff:10.10.0.10", "the internal address, IPv4-mapped"),
    ("64:ff9b::c633:640a", "an external address behind NAT64"),
    ("2002:c633:640c::1", "the relay's IPv4 address by 6to4"),
    ("::ffff:127.0.0.1", "loopback, IPv4-mapped"),
    (ipv6::AV, "the relay's own address"),
    ("::1", "loopback"),
    ("fe80::1", "link-local"),
    ("fd00::1", "a private network"),
];

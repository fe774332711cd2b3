//! Step 5: from the Internet every other port is refused, also on the internal address sent to the
//! external interface; the relay does not reach what it must not.

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
    let expected: [(&str, &[u16]); 4] = [
        (CONTOSO.access, &[443, 5061]),
        (CONTOSO.webconf, &[443]),
        (CONTOSO.av, &[443]),
        (CONTOSO.internal, &[]),
    ];
    for (address, allowed) in expected {
        let scan = port_scan::tcp(&world.net.stranger, address.parse()?, allowed)?;
        // A relay port listens only while somebody holds an allocation; nobody does now.
        let allowed: BTreeSet<u16> = allowed.iter().copied().collect();
        if !scan.stray.is_empty() || scan.listening != allowed {
            bail!("{address}: {scan:?}, listeners are {allowed:?}");
        }
        lines.push(format!("{address} {allowed:?}"));
    }
    let passed = world.meters.edge.count("stray_tcp")?.packets;
    if passed != 0 {
        bail!("{passed} connection attempts to other ports passed the firewall");
    }
    inside_address_is_shut(world)?;
    Ok(Seen::text(format!(
        "65535 ports each: {}",
        lines.join(", ")
    )))
}

fn udp_ports(world: &World) -> Result<Seen> {
    let closed = |port: u16| port != 3478 && !(50_000..=59_999).contains(&port);
    let mut sent = 0;
    for address in [CONTOSO.access, CONTOSO.webconf, CONTOSO.av] {
        sent += port_scan::knock_udp(&world.net.stranger, address.parse()?, closed)?;
    }
    // Here also the ports that are open elsewhere: the address is wrong, not only the port.
    sent += port_scan::knock_udp(&world.net.stranger, CONTOSO.internal.parse()?, |_| true)?;
    let passed = world.meters.edge.count("stray_udp")?.packets;
    if passed != 0 {
        bail!("{passed} of {sent} datagrams passed the firewall");
    }
    inside_address_is_shut(world)?;
    Ok(Seen::text(format!("{sent} datagrams sent, 0 passed")))
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
const FORBIDDEN_IPV6: [(&str, &str); 8] = [
    ("::ffff:10.10.0.50", "the Director, IPv4-mapped"),
    ("::10.10.0.50", "the Director, IPv4-compatible"),
    ("64:ff9b::a0a:32", "the Director behind NAT64"),
    ("2002:a0a:32::1", "the Director by 6to4"),
    (ipv6::AV, "the relay's own address"),
    ("::1", "loopback"),
    ("fe80::1", "link-local"),
    ("fd00::1", "a private network"),
];

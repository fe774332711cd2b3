//! Step 6: the daemons' metrics equal what others counted.

use crate::lab::counters::Count;
use crate::lab::report::{Report, Seen};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use std::collections::BTreeMap;

/// Shows step 6.
pub fn show(world: &mut World, report: &mut Report) {
    report.check(
        "6",
        "accepted connections equal the SYNs that nft saw",
        || connections(world),
    );
    report.check("6", "datagrams equal nft's, per port and interface", || {
        datagrams(world)
    });
}

/// One listener: who counts it inside the daemon, and which meters outside.
const LISTENERS: [(Service, &str, &[&str]); 8] = [
    (Service::Access, "client", &["access_client"]),
    (Service::Access, "federation", &["access_federation"]),
    (Service::Access, "internal", &["access_internal"]),
    (Service::Webconf, "client", &["webconf_client"]),
    (Service::Webconf, "agent", &["webconf_agent"]),
    (Service::Av, "mras", &["av_mras"]),
    (
        Service::Av,
        "turn_external",
        &["av_external", "av_external_ipv6"],
    ),
    (Service::Av, "turn_internal", &["av_internal"]),
];

/// A meter that is not there is an error, and not a zero that a daemon's zero would agree with.
fn metered(outside: &BTreeMap<String, Count>, meter: &str) -> Result<Count> {
    let found = outside.get(meter).copied();
    found.with_context(|| format!("there is no meter {meter}"))
}

fn connections(world: &World) -> Result<Seen> {
    let outside = world.metered()?;
    let (mut agreed, mut differ) = (Vec::new(), Vec::new());
    for (service, listener, meters) in LISTENERS {
        let name = format!("edge_{service}_connections_accepted_total");
        let said = world
            .contoso
            .metrics(service)?
            .count(&name, &[("listener", listener)])?;
        let mut seen = 0;
        for meter in meters {
            let packets = metered(&outside, meter)?.packets;
            if packets == 0 {
                differ.push(format!(
                    "{service}/{listener}: {meter}: no step has used it"
                ));
            }
            seen += packets;
        }
        let line = format!("{service}/{listener} {said}");
        if said == seen {
            agreed.push(line);
        } else {
            differ.push(format!("{line} but nft saw {seen} SYNs"));
        }
    }
    if !differ.is_empty() {
        bail!("{}", differ.join(", "));
    }
    Ok(Seen::text(agreed.join(", ")))
}

fn datagrams(world: &World) -> Result<Seen> {
    let outside = world.metered()?;
    let page = world.contoso.metrics(Service::Av)?;
    let (mut agreed, mut differ, mut bytes) = (Vec::new(), Vec::new(), 0);
    for port in ["turn", "relay"] {
        for side in ["external", "internal"] {
            // Relay ports are on the external side only: inside, nothing may have come or gone. All the
            // others have been used by the steps before, or equality would show nothing.
            let relays = port == "turn" || side == "external";
            for direction in ["in", "out"] {
                let labels = [("port", port), ("side", side), ("direction", direction)];
                let said = match page.count("edge_av_datagrams_total", &labels) {
                    Ok(said) => said,
                    Err(_) if !relays => 0,
                    Err(error) => return Err(error),
                };
                let meter = format!("{port}_{side}_{direction}");
                let seen = metered(&outside, &meter)?;
                bytes += seen.bytes;
                let line = format!("{port}/{side}/{direction} {said}");
                if relays != (seen.packets > 0) {
                    differ.push(format!("{line}, nft saw {}", seen.packets));
                } else if said == seen.packets {
                    agreed.push(line);
                } else {
                    differ.push(format!("{line} but nft saw {}", seen.packets));
                }
            }
        }
    }
    if !differ.is_empty() {
        bail!("{}", differ.join(", "));
    }
    Ok(Seen::bytes(agreed.join(", "), bytes))
}

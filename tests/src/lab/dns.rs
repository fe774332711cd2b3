//! An authoritative name server (knot) with the root zone and whatever zones it is given.

use super::netns::Netns;
use super::process::Process;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// One zone: its name without the last dot, and the text of its file.
#[derive(Clone, Debug)]
pub struct Zone {
    /// E.g. `contoso.test`.
    pub name: String,
    /// Master file (RFC 1035 §5).
    pub text: String,
}

/// Starts knot on `address` port 53, UDP and TCP.
///
/// It always serves a root zone of its own, so a name that nobody has is NXDOMAIN and not REFUSED.
pub fn start(
    name: &str,
    netns: &Netns,
    address: &str,
    zones: &[Zone],
    work: &Path,
) -> Result<Process> {
    let directory = work.join(name);
    fs::create_dir_all(&directory)?;
    let mut all = vec![root(address, zones)];
    all.extend_from_slice(zones);
    for zone in &all {
        fs::write(directory.join(file_name(&zone.name)), &zone.text)?;
    }
    let conf = directory.join("knot.conf");
    fs::write(&conf, configuration(&directory, address, &all))?;
    let mut check = netns.command("knotc");
    check.arg("-c").arg(&conf).arg("conf-check");
    super::bounded::run(&mut check, std::time::Duration::from_secs(10))?
        .success("knotc conf-check")
        .with_context(|| format!("zones of {name}"))?;
    let mut command = netns.command("knotd");
    command.arg("-c").arg(&conf);
    let mut server = Process::start(name, &mut command, work)?;
    let socket = format!("{address}:53");
    server.wait_listening(netns, &[("udp", &socket), ("tcp", &socket)])?;
    Ok(server)
}

fn root(address: &str, zones: &[Zone]) -> Zone {
    let mut text = format!(
        ". 60 SOA ns.root-servers.test. hostmaster.root-servers.test. 1 60 60 3600 5\n\
         . 60 NS ns.root-servers.test.\nns.root-servers.test. 60 A {address}\n"
    );
    for zone in zones {
        // Writing to a String cannot fail.
        writeln!(text, "{}. 60 NS ns.root-servers.test.", zone.name).ok();
    }
    Zone {
        name: ".".to_owned(),
        text,
    }
}

fn configuration(directory: &Path, address: &str, zones: &[Zone]) -> String {
    let directory = directory.display();
    let mut text = format!(
        "server:\n    rundir: \"{directory}\"\n    listen: [ {address}@53 ]\n    udp-workers: 1\n    \
         tcp-workers: 1\n    background-workers: 1\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n    storage: \"{directory}\"\n\
         template:\n  - id: default\n    storage: \"{directory}\"\n    zonefile-sync: -1\n    \
         zonefile-load: whole\n    journal-content: none\nzone:\n"
    );
    for zone in zones {
        writeln!(
            text,
            "  - domain: {}\n    file: {}",
            zone.name,
            file_name(&zone.name)
        )
        .ok();
    }
    text
}

fn file_name(zone: &str) -> String {
    let name = if zone == "." { "root" } else { zone };
    format!("{name}.zone")
}

//! Independent counters: nft in the namespaces, beside whatever the daemons say of themselves.

use super::bounded;
use super::netns::Netns;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// What one counter has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP headers included.
    pub bytes: u64,
}

/// One rule that counts: a name, the hook where it looks, and what it matches.
#[derive(Clone, Copy, Debug)]
pub struct Meter<'a> {
    /// Name of the counter; letters, digits and underscores.
    pub name: &'a str,
    /// Where it looks.
    pub hook: Hook,
    /// nft's match, e.g. `ip daddr 198.51.100.10 tcp dport 443`.
    pub matches: &'a str,
}

/// Where a counter looks at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// For this host, after its firewall has let it pass.
    Input,
    /// From this host.
    Output,
    /// Through this host.
    Forward,
}

impl Hook {
    /// Chain type, hook and priority: input after every filter, the others before any.
    const fn chain(self) -> (&'static str, &'static str) {
        match self {
            Self::Input => (
                "input",
                "type filter hook input priority 300; policy accept;",
            ),
            Self::Output => (
                "output",
                "type filter hook output priority -300; policy accept;",
            ),
            Self::Forward => (
                "forward",
                "type filter hook forward priority -300; policy accept;",
            ),
        }
    }
}

/// Counters in one namespace, in a table of their own that only counts.
#[derive(Clone, Debug)]
pub struct Counters {
    netns: Netns,
}

impl Counters {
    /// Sets the meters up, all at zero.
    pub fn set(netns: &Netns, meters: &[Meter<'_>]) -> Result<Self> {
        netns.nft(&table(meters))?;
        Ok(Self {
            netns: netns.clone(),
        })
    }

    /// Reads them all.
    pub fn read(&self) -> Result<BTreeMap<String, Count>> {
        let mut command = self.netns.command("nft");
        command.args(["-j", "list", "counters", "table", "inet", TABLE]);
        let text = bounded::run(&mut command, Duration::from_secs(10))?
            .success("nft list counters")?
            .text();
        parse(&text)
    }

    /// One counter; a name that was never set is an error.
    pub fn count(&self, name: &str) -> Result<Count> {
        self.read()?
            .get(name)
            .copied()
            .with_context(|| format!("no counter {name} in {}", self.netns.name()))
    }
}

/// Matches the packet that opens a TCP connection.
pub const SYN: &str = "tcp flags & (syn | ack) == syn";

fn table(meters: &[Meter<'_>]) -> String {
    let mut text = format!("table inet {TABLE} {{\n");
    for meter in meters {
        // Writing to a String cannot fail.
        writeln!(text, "  counter {} {{ }}", meter.name).ok();
    }
    for hook in [Hook::Input, Hook::Output, Hook::Forward] {
        let (name, head) = hook.chain();
        writeln!(text, "  chain {name} {{ {head}").ok();
        for meter in meters.iter().filter(|meter| meter.hook == hook) {
            writeln!(text, "    {} counter name {}", meter.matches, meter.name).ok();
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

fn parse(text: &str) -> Result<BTreeMap<String, Count>> {
    let listing: Value = serde_json::from_str(text).context("nft -j printed no JSON")?;
    let items = listing.get("nftables").and_then(Value::as_array);
    let items = items.context("nft -j printed no list")?;
    Ok(items
        .iter()
        .filter_map(|item| item.get("counter"))
        .filter_map(|counter| {
            let number = |key| counter.get(key).and_then(Value::as_u64);
            let name = counter.get("name")?.as_str()?.to_owned();
            let (packets, bytes) = (number("packets")?, number("bytes")?);
            Some((name, Count { packets, bytes }))
        })
        .collect())
}

const TABLE: &str = "lab_meters";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_of_nft_is_read() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"counter": {"family":
            "inet", "name": "syn", "table": "lab_meters", "handle": 1, "packets": 3, "bytes": 180}}]}"#;
        let counts = parse(text).expect("JSON");
        assert_eq!(
            counts.get("syn"),
            Some(&Count {
                packets: 3,
                bytes: 180
            })
        );
        assert!(parse("oops").is_err());
    }

    #[test]
    fn each_meter_stands_in_its_own_chain() {
        let text = table(&[
            Meter {
                name: "a",
                hook: Hook::Input,
                matches: "udp dport 1",
            },
            Meter {
                name: "b",
                hook: Hook::Forward,
                matches: "udp dport 2",
            },
        ]);
        let (input, rest) = text.split_once("chain output").expect("chains in order");
        assert!(input.contains("udp dport 1 counter name a"));
        assert!(rest.contains("udp dport 2 counter name b"));
    }
}

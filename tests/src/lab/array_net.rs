//! The hosts and cables of the scaled lab: two edge hosts, a balancer on each side.
//!
//! The router of the perimeter network is the outside balancer as well, so that the answers of UDP, which it sends on
//! with another destination, come back through it. The inside balancer is one of the servers inside.

use super::netns::{self, Netns};
use super::plan::{
    ARRAY, ARRAY_AV_INSIDE, BALANCER_INSIDE, BALANCER_OUTSIDE, HOME_A, HOME_B, INTERNET_DNS,
    PERIMETER,
};
use super::topology::{attach, home, internet, servers, stranger};
use anyhow::{Context as _, Result};
use std::path::Path;

/// Every host of the scaled lab.
#[derive(Debug)]
pub struct ArrayNet {
    /// Router and name server of the Internet.
    pub internet: Netns,
    /// Alice's home.
    pub home_a: Netns,
    /// Alice's NAT.
    pub nat_a: Netns,
    /// Bob's home.
    pub home_b: Netns,
    /// Bob's NAT.
    pub nat_b: Netns,
    /// Somebody on the Internet with no account anywhere.
    pub stranger: Netns,
    /// Router of the perimeter network and outside balancer.
    pub perimeter: Netns,
    /// The edge hosts, in the order of `ARRAY.members`: `ext` and `int`.
    pub edges: Vec<Netns>,
    /// Contoso's inside, the inside balancer included.
    pub inside: Netns,
}

impl ArrayNet {
    /// Makes all namespaces and cables; see [`super::topology`].
    pub fn build(work: &Path) -> Result<Self> {
        // What a world that was shown before has left.
        netns::remove_all()?;
        let public = |name: &str| Netns::create(name, Some(INTERNET_DNS), work);
        let edges = ARRAY.members.iter().map(|member| {
            let number = member.name.trim_start_matches("edge");
            public(&format!("edge-c{number}"))
        });
        let made = Self {
            internet: public("inet")?,
            home_a: public(HOME_A.name)?,
            nat_a: public(HOME_A.nat)?,
            home_b: public(HOME_B.name)?,
            nat_b: public(HOME_B.nat)?,
            stranger: public("stranger")?,
            perimeter: public("perimeter")?,
            edges: edges.collect::<Result<_>>()?,
            inside: Netns::create("inside-c", Some(ARRAY.internal_dns), work)?,
        };
        internet(&made.internet)?;
        home(&made.internet, &made.home_a, &made.nat_a, &HOME_A)?;
        home(&made.internet, &made.home_b, &made.nat_b, &HOME_B)?;
        stranger(&made.internet, &made.stranger)?;
        made.perimeter()?;
        made.inside()?;
        Ok(made)
    }

    /// The host of the member of that name.
    pub fn edge(&self, name: &str) -> Result<&Netns> {
        let mut members = ARRAY.members.iter().zip(&self.edges);
        let found = members.find(|(member, _)| member.name == name);
        found
            .map(|(_, host)| host)
            .with_context(|| format!("no member {name}"))
    }

    fn perimeter(&self) -> Result<()> {
        let perimeter = &self.perimeter;
        attach(&self.internet, perimeter, PERIMETER)?;
        perimeter.sysctl("net.ipv4.ip_forward=1")?;
        perimeter.sysctl("net.ipv4.conf.all.send_redirects=0")?;
        perimeter.ip(&format!("link add dmz type bridge {AT_ONCE}"))?;
        perimeter.ip("link set dmz up")?;
        let own = [
            ARRAY.gateway,
            BALANCER_OUTSIDE,
            ARRAY.access,
            ARRAY.webconf,
            ARRAY.av,
        ];
        for address in own {
            perimeter.addresses("dmz", &[&format!("{address}/24")])?;
        }
        for (member, edge) in ARRAY.members.iter().zip(&self.edges) {
            connect(edge, "ext", perimeter, "dmz", member.name)?;
            for address in [member.access, member.webconf, member.av] {
                edge.addresses("ext", &[&format!("{address}/24")])?;
            }
        }
        perimeter.nft(&udp_balancer())
    }

    fn inside(&self) -> Result<()> {
        self.inside
            .ip(&format!("link add eth0 type bridge {AT_ONCE}"))?;
        self.inside.ip("link set eth0 up")?;
        servers(&self.inside, &ARRAY)?;
        for address in [BALANCER_INSIDE, ARRAY.internal, ARRAY_AV_INSIDE] {
            self.inside.addresses("eth0", &[&format!("{address}/24")])?;
        }
        for (member, edge) in ARRAY.members.iter().zip(&self.edges) {
            connect(edge, "int", &self.inside, "eth0", member.name)?;
            edge.addresses("int", &[&format!("{}/24", member.internal)])?;
        }
        Ok(())
    }
}

/// Plugs `interface` of an edge host into `bridge`, whose end of the cable has the member's name.
fn connect(edge: &Netns, interface: &str, at: &Netns, bridge: &str, member: &str) -> Result<()> {
    let port = format!("to-{member}");
    edge.link(interface, at, &port)?;
    at.ip(&format!("link set {port} master {bridge}"))
}

/// One source meets one member, whose answer comes back this way. Relay ports are not balanced: a relayed address is a
/// member's own. Without a seed each load of the rules would choose anew.
fn udp_balancer() -> String {
    let members: Vec<_> = ARRAY
        .members
        .iter()
        .enumerate()
        .map(|(index, member)| format!("{index} : {}", member.av))
        .collect();
    format!(
        "table ip balancer {{
  chain pre {{ type nat hook prerouting priority dstnat;
    ip daddr {} udp dport 3478 dnat to jhash ip saddr mod {} seed 0x1 map {{ {} }}
  }}
}}",
        ARRAY.av,
        members.len(),
        members.join(", ")
    )
}

/// Otherwise a bridge is deaf for its first 30 seconds.
const AT_ONCE: &str = "stp_state 0 forward_delay 0";

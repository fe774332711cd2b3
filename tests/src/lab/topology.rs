//! The hosts and cables of the lab, as [`super::plan`] draws them.
//!
//! No namespace has a route that leaves the lab: the machine's own interfaces are in none of them.

use super::netns::{self, Netns};
use super::plan::{
    AV_BEHIND_NAT, CONTOSO, FABRIKAM, HOME_A, HOME_B, Home, INTERNET_DNS, INTERNET_ROUTER,
    NORTHWIND, PERIMETER, STRANGER, Site, ipv6,
};
use anyhow::Result;
use std::path::Path;

/// How contoso's edge host meets the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// All its external addresses are public.
    Direct,
    /// The A/V address is private, behind a static 1:1 NAT.
    OneToOneNat,
}

impl Variant {
    /// The A/V address that contoso's edge host itself holds.
    #[must_use]
    pub const fn av_address(self) -> &'static str {
        match self {
            Self::Direct => CONTOSO.av,
            Self::OneToOneNat => AV_BEHIND_NAT,
        }
    }
}

/// Every host of the lab.
#[derive(Debug)]
pub struct Topology {
    /// How contoso's edge meets the Internet.
    pub variant: Variant,
    /// Router and name server of the Internet.
    pub internet: Netns,
    /// Alice's home and her NAT.
    pub home_a: Netns,
    /// Alice's NAT.
    pub nat_a: Netns,
    /// Bob's home.
    pub home_b: Netns,
    /// Bob's NAT.
    pub nat_b: Netns,
    /// Somebody on the Internet with no account anywhere.
    pub stranger: Netns,
    /// The domain whose certificate does not prove its From.
    pub northwind: Netns,
    /// The router in front of contoso's edge.
    pub perimeter: Netns,
    /// Contoso's edge host: `ext` and `int`.
    pub edge_c: Netns,
    /// Contoso's inside.
    pub inside_c: Netns,
    /// Fabrikam's edge host: `ext` and `int`.
    pub edge_f: Netns,
    /// Fabrikam's inside.
    pub inside_f: Netns,
}

impl Topology {
    /// Makes all namespaces and cables. Edge hosts get links and addresses only: routes, kernel
    /// parameters and firewall come from what `edgectl` renders.
    pub fn build(variant: Variant, work: &Path) -> Result<Self> {
        // What a world that could not be finished has left.
        netns::remove_all()?;
        let public = |name| Netns::create(name, Some(INTERNET_DNS), work);
        let made = Self {
            variant,
            internet: public("inet")?,
            home_a: public(HOME_A.name)?,
            nat_a: public(HOME_A.nat)?,
            home_b: public(HOME_B.name)?,
            nat_b: public(HOME_B.nat)?,
            stranger: public("stranger")?,
            northwind: public("northwind")?,
            perimeter: public("perimeter")?,
            edge_c: public("edge-c")?,
            inside_c: Netns::create("inside-c", Some(CONTOSO.internal_dns), work)?,
            edge_f: public("edge-f")?,
            inside_f: Netns::create("inside-f", Some(FABRIKAM.internal_dns), work)?,
        };
        internet(&made.internet)?;
        home(&made.internet, &made.home_a, &made.nat_a, &HOME_A)?;
        home(&made.internet, &made.home_b, &made.nat_b, &HOME_B)?;
        stranger(&made.internet, &made.stranger)?;
        attach(&made.internet, &made.northwind, NORTHWIND)?;
        made.contoso()?;
        made.fabrikam()?;
        Ok(made)
    }

    fn contoso(&self) -> Result<()> {
        let (edge, perimeter) = (&self.edge_c, &self.perimeter);
        attach(&self.internet, perimeter, PERIMETER)?;
        perimeter.addresses("ext", &[&format!("{}/64", ipv6::PERIMETER)])?;
        perimeter.ip(&format!("-6 route add default via {}", ipv6::ROUTER))?;
        perimeter.sysctl("net.ipv6.conf.all.forwarding=1")?;
        perimeter.link("dmz", edge, "ext")?;
        perimeter.addresses(
            "dmz",
            &[
                &format!("{}/24", CONTOSO.gateway),
                &format!("{}/64", ipv6::GATEWAY),
            ],
        )?;
        perimeter.sysctl("net.ipv4.ip_forward=1")?;
        // The hop that a packet for the inside would take if the edge host let it through.
        perimeter.ip(&format!(
            "route add {} via {}",
            CONTOSO.internal_network, CONTOSO.access
        ))?;
        let av = format!("{}/24", self.variant.av_address());
        edge.addresses(
            "ext",
            &[
                &format!("{}/24", CONTOSO.access),
                &format!("{}/24", CONTOSO.webconf),
                &av,
                &format!("{}/64", ipv6::AV),
            ],
        )?;
        if self.variant == Variant::OneToOneNat {
            perimeter.addresses("dmz", &["10.30.0.1/24"])?;
            perimeter.nft(&one_to_one(CONTOSO.av, AV_BEHIND_NAT))?;
        }
        inside(edge, &self.inside_c, &CONTOSO)
    }

    fn fabrikam(&self) -> Result<()> {
        let (edge, inet) = (&self.edge_f, &self.internet);
        inet.link("fabrikam", edge, "ext")?;
        inet.addresses("fabrikam", &[&format!("{}/24", FABRIKAM.gateway)])?;
        let external: Vec<_> = [FABRIKAM.access, FABRIKAM.webconf, FABRIKAM.av]
            .map(|address| format!("{address}/24"))
            .to_vec();
        let external: Vec<_> = external.iter().map(String::as_str).collect();
        edge.addresses("ext", &external)?;
        inside(edge, &self.inside_f, &FABRIKAM)
    }
}

/// Router and name server of the Internet.
pub(super) fn internet(inet: &Netns) -> Result<()> {
    // Without the first two settings the bridge is deaf for the first 30 seconds.
    inet.ip("link add access type bridge stp_state 0 forward_delay 0")?;
    inet.ip("link set access up")?;
    inet.addresses(
        "access",
        &[
            &format!("{INTERNET_ROUTER}/24"),
            &format!("{INTERNET_DNS}/24"),
        ],
    )?;
    inet.sysctl("net.ipv4.ip_forward=1")?;
    // Hosts of one segment would be told to talk past the router that counts their packets.
    inet.sysctl("net.ipv4.conf.all.send_redirects=0")?;
    inet.sysctl("net.ipv4.conf.access.send_redirects=0")?;
    inet.addresses("access", &[&format!("{}/64", ipv6::ROUTER)])?;
    inet.sysctl("net.ipv6.conf.all.forwarding=1")?;
    inet.ip(&format!("route add 198.51.100.0/24 via {PERIMETER}"))?;
    inet.ip(&format!(
        "-6 route add 2001:db8:100::/64 via {}",
        ipv6::PERIMETER
    ))?;
    // A route to contoso's inside that no honest router has: what comes by it must be refused.
    inet.ip(&format!(
        "route add {} via {PERIMETER}",
        CONTOSO.internal_network
    ))
}

/// Puts a host with one interface `ext` into the Internet's access segment.
pub(super) fn attach(inet: &Netns, host: &Netns, address: &str) -> Result<()> {
    let port = format!("to-{}", host.name());
    host.link("ext", inet, &port)?;
    inet.ip(&format!("link set {port} master access"))?;
    host.addresses("ext", &[&format!("{address}/24")])?;
    host.ip(&format!("route add default via {INTERNET_ROUTER}"))
}

/// A home behind its NAT.
pub(super) fn home(inet: &Netns, home: &Netns, nat: &Netns, plan: &Home) -> Result<()> {
    attach(inet, nat, plan.public)?;
    nat.link("in", home, "eth0")?;
    nat.addresses("in", &[&format!("{}/24", plan.router)])?;
    home.addresses("eth0", &[&format!("{}/24", plan.host)])?;
    home.ip(&format!("route add default via {}", plan.router))?;
    nat.sysctl("net.ipv4.ip_forward=1")?;
    nat.nft(HOME_NAT)
}

/// Somebody on the Internet, with both families.
pub(super) fn stranger(inet: &Netns, host: &Netns) -> Result<()> {
    attach(inet, host, STRANGER)?;
    host.addresses("ext", &[&format!("{}/64", ipv6::STRANGER)])?;
    host.ip(&format!("-6 route add default via {}", ipv6::ROUTER))
}

/// The inside has no default route: nothing in there can reach the Internet.
fn inside(edge: &Netns, inside: &Netns, site: &Site) -> Result<()> {
    edge.link("int", inside, "eth0")?;
    edge.addresses("int", &[&format!("{}/24", site.internal)])?;
    servers(inside, site)
}

/// The addresses of the servers inside.
pub(super) fn servers(inside: &Netns, site: &Site) -> Result<()> {
    let servers = [
        site.internal_gateway,
        site.director,
        site.internal_dns,
        site.conference,
    ];
    for address in servers {
        inside.addresses("eth0", &[&format!("{address}/24")])?;
    }
    Ok(())
}

/// Linux keeps the source port and filters by address and port.
///
/// The input rule keeps an unwanted packet from occupying the tuple that a later packet of the home
/// would need, which no NAT box on sale does.
const HOME_NAT: &str = "
table ip nat {
  chain post { type nat hook postrouting priority srcnat; oifname \"ext\" masquerade; }
}
table inet guard {
  chain forward { type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname \"in\" accept
  }
  chain input { type filter hook input priority filter; policy accept;
    iifname \"ext\" ct state new drop
  }
}
";

fn one_to_one(public: &str, private: &str) -> String {
    format!(
        "table ip static {{
  chain pre {{ type nat hook prerouting priority dstnat; ip daddr {public} dnat to {private}; }}
  chain post {{ type nat hook postrouting priority srcnat; oifname \"ext\" ip saddr {private} snat to {public}; }}
}}"
    )
}

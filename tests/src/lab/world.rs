//! The whole lab put together: hosts, authorities, name servers, Directors, two edges.

use super::ca::Authority;
use super::counters::{Count, Counters, Hook, Meter, SYN};
use super::director::{Director, PHONE_PORT};
use super::dns::{self, Zone};
use super::doors;
use super::edge_host::{EdgeHost, Parts};
use super::phone::{Account, Relay};
use super::plan::{CONTOSO, FABRIKAM, INTERNET_DNS, NORTHWIND, NORTHWIND_DOMAIN, Site, ipv6};
use super::process::Process;
use super::sandbox::eprintln_line;
use super::topology::{Topology, Variant};
use anyhow::{Context as _, Result};
use edge_common::ports::Service;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Everything that runs; dropping it ends the programs.
#[derive(Debug)]
pub struct World {
    /// Hosts and cables.
    pub net: Topology,
    /// Logs, recordings, keys.
    pub work: PathBuf,
    /// Whom the Internet trusts.
    pub public_ca: Authority,
    /// Whom contoso's inside trusts.
    pub inside_ca: Authority,
    /// Contoso's edge.
    pub contoso: EdgeHost,
    /// Fabrikam's edge.
    pub fabrikam: EdgeHost,
    /// Contoso's Director.
    pub director_c: Director,
    /// Fabrikam's Director.
    pub director_f: Director,
    /// What others than the daemons counted.
    pub meters: Meters,
    /// Whom fabrikam's inside trusts.
    pub inside_ca_f: Authority,
    /// Daemons that did not start, and why.
    pub failed: Vec<(String, anyhow::Error)>,
    /// What the meters of edge-av showed when it was last started; its own counters began at zero.
    av_began: BTreeMap<String, Count>,
    _name_servers: Vec<Process>,
}

/// Counters in the namespaces around contoso's edge.
#[derive(Debug)]
pub struct Meters {
    /// Packets that open connections from the Internet, and all knocks, in front of the edge host.
    pub perimeter: Counters,
    /// Packets that open connections from the inside, where they are sent.
    pub inside: Counters,
    /// Datagrams of the A/V Edge on its own interfaces, behind the firewall.
    pub edge: Counters,
    /// Media at alice's NAT.
    pub nat_a: Counters,
    /// Media at bob's NAT.
    pub nat_b: Counters,
}

impl World {
    /// Builds everything; both edges run and are ready when it returns.
    pub fn build(variant: Variant, work: &Path, trace: Option<&Path>) -> Result<Self> {
        let began = Instant::now();
        let say =
            |what: &str| eprintln_line(&format!("[{} ms] {what}", began.elapsed().as_millis()));
        fs::create_dir_all(work)?;
        let net = Topology::build(variant, work)?;
        say("hosts and cables");
        let certs = work.join("certs");
        let public_ca = Authority::new("public-ca", &certs)?;
        let inside_ca = Authority::new("inside-ca-contoso", &certs)?;
        let inside_ca_f = Authority::new("inside-ca-fabrikam", &certs)?;
        let parts = |site, partner, av_address, inside_ca| Parts {
            site,
            partner,
            av_address,
            av_ipv6: None,
            gateway_ipv6: None,
            public_ca: &public_ca,
            inside_ca,
        };
        let mut contoso = EdgeHost::configure(
            &Parts {
                av_ipv6: Some(ipv6::AV),
                gateway_ipv6: Some(ipv6::GATEWAY),
                ..parts(&CONTOSO, &FABRIKAM, variant.av_address(), &inside_ca)
            },
            &net.edge_c,
            &net.inside_c,
            work,
        )?;
        let mut fabrikam = EdgeHost::configure(
            &parts(&FABRIKAM, &CONTOSO, FABRIKAM.av, &inside_ca_f),
            &net.edge_f,
            &net.inside_f,
            work,
        )?;
        say("certificates and configurations, checked");
        let name_servers = name_servers(&net, &contoso, &fabrikam, work)?;
        say("name servers with the rendered zones");
        contoso.apply()?;
        fabrikam.apply()?;
        say("rendered network settings and firewalls applied");
        let meters = Meters::set(&net)?;
        let director_c = Director::start(&CONTOSO, &net.inside_c, &inside_ca, work)?;
        let director_f = Director::start(&FABRIKAM, &net.inside_f, &inside_ca_f, work)?;
        say("Directors");
        if let Some(directory) = trace {
            contoso.trace_into(directory);
        }
        let mut failed = Vec::new();
        for edge in [&mut contoso, &mut fabrikam] {
            let name = edge.site.name;
            let named = |(service, error): (Service, anyhow::Error)| {
                (format!("{} of {name} starts", service.daemon()), error)
            };
            failed.extend(edge.start().into_iter().map(named));
        }
        say(&format!("daemons; {} did not start", failed.len()));
        Ok(Self {
            net,
            work: work.to_owned(),
            public_ca,
            inside_ca,
            contoso,
            fabrikam,
            director_c,
            director_f,
            meters,
            inside_ca_f,
            failed,
            av_began: BTreeMap::new(),
            _name_servers: name_servers,
        })
    }

    /// Starts contoso's edge-av again after it was ended.
    pub fn restart_av(&mut self) -> Result<()> {
        self.av_began = self.meters.read_all()?;
        self.contoso.start_one(Service::Av)
    }

    /// What a meter has counted since the daemon that it is compared with was started.
    pub fn metered(&self) -> Result<BTreeMap<String, Count>> {
        let mut all = self.meters.read_all()?;
        for (name, began) in &self.av_began {
            let of_av = ["av_", "turn_", "relay_"]
                .iter()
                .any(|start| name.starts_with(start));
            if let Some(count) = all.get_mut(name).filter(|_| of_av) {
                count.packets -= began.packets.min(count.packets);
                count.bytes -= began.bytes.min(count.bytes);
            }
        }
        Ok(all)
    }

    /// The account of a contoso user who is outside.
    pub fn remote_account(
        &self,
        user: &str,
        friend: &str,
        relay: Option<Relay>,
    ) -> Result<Account> {
        remote_account(user, friend, relay)
    }

    /// The account of a fabrikam user who sits inside, next to the Director.
    pub fn inside_account(&self, user: &str, friend: &str) -> Result<Account> {
        let known = FABRIKAM.user(user).context("no such user in the plan")?;
        Ok(Account {
            user: known.name.to_owned(),
            domain: FABRIKAM.domain.to_owned(),
            password: known.password.to_owned(),
            proxy: format!("sip:{}:{PHONE_PORT};transport=tls", FABRIKAM.director),
            friend: friend.to_owned(),
            tone: known.tone,
            dns: format!("{}:53", FABRIKAM.internal_dns),
            relay: None,
        })
    }
}

/// The account of a contoso user who is outside, in either world.
pub(super) fn remote_account(user: &str, friend: &str, relay: Option<Relay>) -> Result<Account> {
    let known = CONTOSO.user(user).context("no such user in the plan")?;
    Ok(Account {
        user: known.name.to_owned(),
        domain: CONTOSO.domain.to_owned(),
        password: known.password.to_owned(),
        proxy: format!("sip:{}:443;transport=tls", CONTOSO.public_name("sip")),
        friend: friend.to_owned(),
        tone: known.tone,
        dns: format!("{INTERNET_DNS}:53"),
        relay,
    })
}

impl Meters {
    /// What all the meters that a daemon's own counters are compared with show now.
    pub fn read_all(&self) -> Result<BTreeMap<String, Count>> {
        let mut all = self.perimeter.read()?;
        all.extend(self.inside.read()?);
        all.extend(self.edge.read()?);
        Ok(all)
    }

    /// Sets up all counters, at zero.
    pub fn set(net: &Topology) -> Result<Self> {
        let av = format!(
            "ip daddr {{ {}, {} }}",
            CONTOSO.av,
            net.variant.av_address()
        );
        let av = if CONTOSO.av == net.variant.av_address() {
            format!("ip daddr {}", CONTOSO.av)
        } else {
            av
        };
        let from_internet = |to: &str, port| format!("iifname \"ext\" {to} tcp dport {port} {SYN}");
        let av_ipv6 = format!("ip6 daddr {}", ipv6::AV);
        let to_access = format!("ip daddr {}", CONTOSO.access);
        let to_webconf = format!("ip daddr {}", CONTOSO.webconf);
        let mut opened = vec![
            ("access_client".to_owned(), from_internet(&to_access, 443)),
            (
                "access_federation".to_owned(),
                from_internet(&to_access, 5061),
            ),
            ("webconf_client".to_owned(), from_internet(&to_webconf, 443)),
            ("av_external".to_owned(), from_internet(&av, 443)),
            ("av_external_ipv6".to_owned(), from_internet(&av_ipv6, 443)),
        ];
        for door in doors::all(net.variant.av_address()) {
            opened.extend([door.knocks("tcp"), door.knocks("udp")]);
        }
        let from_inside = |port| format!("ip daddr {} tcp dport {port} {SYN}", CONTOSO.internal);
        let dialled = [
            ("access_internal".to_owned(), from_inside(5061)),
            ("webconf_agent".to_owned(), from_inside(8057)),
            ("av_mras".to_owned(), from_inside(5062)),
            ("av_internal".to_owned(), from_inside(443)),
        ];
        Ok(Self {
            perimeter: set(&net.perimeter, Hook::Forward, &opened)?,
            inside: set(&net.inside_c, Hook::Output, &dialled)?,
            edge: edge_meters(net)?,
            nat_a: media_meters(&net.nat_a)?,
            nat_b: media_meters(&net.nat_b)?,
        })
    }
}

fn set(host: &super::netns::Netns, hook: Hook, rules: &[(String, String)]) -> Result<Counters> {
    let meters: Vec<_> = rules
        .iter()
        .map(|(name, matches)| Meter {
            name,
            hook,
            matches,
        })
        .collect();
    Counters::set(host, &meters)
}

/// Datagrams per kind of port, interface and direction, where the daemon's own socket is next; and
/// whatever else a firewall that is too loose would let through.
fn edge_meters(net: &Topology) -> Result<Counters> {
    let mut rules = Vec::new();
    for (side, interface) in [("external", "ext"), ("internal", "int")] {
        for (port, range) in [("turn", "3478"), ("relay", "50000-59999")] {
            // Of what reaches a relay port only that for which a socket is open: the last packets of a
            // call come when its ports are closed, and the kernel answers them.
            let owned = if port == "relay" {
                " socket wildcard 0"
            } else {
                ""
            };
            let inward = format!("iifname \"{interface}\" udp dport {range}{owned}");
            rules.push((format!("{port}_{side}_in"), Hook::Input, inward));
            let outward = format!("oifname \"{interface}\" udp sport {range}");
            rules.push((format!("{port}_{side}_out"), Hook::Output, outward));
        }
    }
    for door in doors::all(net.variant.av_address()) {
        for (name, matches) in [door.stray_tcp(), door.stray_udp()] {
            rules.push((name, Hook::Input, matches));
        }
    }
    let inside_address = format!("iifname \"ext\" ip daddr {}", CONTOSO.internal);
    rules.push(("inside_address".to_owned(), Hook::Input, inside_address));
    let meters: Vec<_> = rules
        .iter()
        .map(|(name, hook, matches)| Meter {
            name,
            hook: *hook,
            matches,
        })
        .collect();
    Counters::set(&net.edge_c, &meters)
}

/// UDP through a home's NAT: to and from the relay, and everything else but DNS.
fn media_meters(nat: &super::netns::Netns) -> Result<Counters> {
    let relay = CONTOSO.av;
    let rules = [
        (
            "relay_out".to_owned(),
            format!("iifname \"in\" ip daddr {relay} meta l4proto udp"),
        ),
        (
            "relay_in".to_owned(),
            format!("iifname \"ext\" ip saddr {relay} meta l4proto udp"),
        ),
        (
            "direct_out".to_owned(),
            format!("iifname \"in\" ip daddr != {relay} udp dport != 53"),
        ),
        (
            "direct_in".to_owned(),
            format!("iifname \"ext\" ip saddr != {relay} udp sport != 53"),
        ),
    ];
    set(nat, Hook::Forward, &rules)
}

/// One server for the Internet and one for each inside, with the zones that `edgectl` rendered.
fn name_servers(
    net: &Topology,
    contoso: &EdgeHost,
    fabrikam: &EdgeHost,
    work: &Path,
) -> Result<Vec<Process>> {
    let mut public = Vec::new();
    let mut servers = Vec::new();
    for (edge, inside) in [(contoso, &net.inside_c), (fabrikam, &net.inside_f)] {
        let rendered = edge.render_dns()?;
        public.extend(zones(&rendered.external, INTERNET_DNS));
        let mut internal = zones(&rendered.internal, edge.site.internal_dns);
        add_inside_servers(&mut internal, edge.site);
        let name = format!("dns-{}", edge.site.name);
        servers.push(dns::start(
            &name,
            inside,
            edge.site.internal_dns,
            &internal,
            work,
        )?);
    }
    public.push(northwind());
    public.extend(discovered());
    servers.push(dns::start(
        "dns-internet",
        &net.internet,
        INTERNET_DNS,
        &public,
        work,
    )?);
    Ok(servers)
}

/// The rendered fragments hold the edge's records; apex records are the zone owner's to write.
pub(super) fn zones(fragments: &[(String, String)], server: &str) -> Vec<Zone> {
    fragments
        .iter()
        .map(|(name, records)| Zone {
            name: name.clone(),
            text: format!("{}{records}", apex(name, server)),
        })
        .collect()
}

fn apex(zone: &str, server: &str) -> String {
    format!(
        "$TTL 60\n{zone}. SOA ns.{zone}. hostmaster.{zone}. 1 60 60 3600 5\n{zone}. NS ns.{zone}.\n\
         ns.{zone}. A {server}\n"
    )
}

/// Servers inside that are no part of the edge: the Director and the conference server.
pub(super) fn add_inside_servers(zones: &mut Vec<Zone>, site: &Site) {
    let records = format!(
        "{}. A {}\n{}. A {}\n",
        site.inside_name("director"),
        site.director,
        site.inside_name("mcu1"),
        site.conference
    );
    match zones
        .iter_mut()
        .find(|zone| zone.name == site.internal_domain)
    {
        Some(zone) => zone.text.push_str(&records),
        None => zones.push(Zone {
            name: site.internal_domain.to_owned(),
            text: apex(site.internal_domain, site.internal_dns) + &records,
        }),
    }
}

/// Domains that nobody listed, all of them on northwind's host.
fn discovered() -> [Zone; 2] {
    let record = "_sipfederationtls._tcp";
    let alpine = format!(
        "sip.alpine.test. A {NORTHWIND}\ncrl.alpine.test. A {NORTHWIND}\n\
         {record}.alpine.test. SRV 0 0 5061 sip.alpine.test.\n"
    );
    let conflict = format!("{record}.conflict.test. SRV 0 0 5061 sip.alpine.test.\n");
    [("alpine.test", alpine), ("conflict.test", conflict)].map(|(name, records)| Zone {
        name: name.to_owned(),
        text: apex(name, INTERNET_DNS) + &records,
    })
}

fn northwind() -> Zone {
    let mut text = apex(NORTHWIND_DOMAIN, INTERNET_DNS);
    // Writing to a String cannot fail.
    write!(
        text,
        "sip.{NORTHWIND_DOMAIN}. A {NORTHWIND}\n\
         _sipfederationtls._tcp.{NORTHWIND_DOMAIN}. SRV 0 0 5061 sip.{NORTHWIND_DOMAIN}.\n"
    )
    .ok();
    Zone {
        name: NORTHWIND_DOMAIN.to_owned(),
        text,
    }
}

//! The scaled lab: contoso with two edge hosts of one array behind balancers, both from one `edge.toml`.

use super::array_net::ArrayNet;
use super::balancer::Balancer;
use super::ca::Authority;
use super::director::Director;
use super::dns;
use super::edge_host::{EdgeHost, Parts};
use super::phone::{Account, Relay};
use super::plan::{ARRAY, FABRIKAM, INTERNET_DNS, Member};
use super::process::Process;
use super::sandbox::eprintln_line;
use super::world::{add_inside_servers, remote_account, zones};
use anyhow::{Context as _, Result};
use edge_common::ports::Service;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Everything that runs; dropping it ends the programs.
#[derive(Debug)]
pub struct ArrayWorld {
    /// Hosts and cables.
    pub net: ArrayNet,
    /// Logs, recordings, keys.
    pub work: PathBuf,
    /// Whom the Internet trusts.
    pub public_ca: Authority,
    /// Whom contoso's inside trusts.
    pub inside_ca: Authority,
    /// The members, in the order of `ARRAY.members`.
    pub members: Vec<EdgeHost>,
    /// Contoso's Director; it reaches the edge by the inside balancer.
    pub director: Director,
    /// In front of the members outside.
    pub outside: Balancer,
    /// In front of the members inside.
    pub inside: Balancer,
    /// Daemons that did not start, and why.
    pub failed: Vec<(String, anyhow::Error)>,
    _name_servers: Vec<Process>,
}

impl ArrayWorld {
    /// Builds everything; all daemons of both members run and are ready when it returns.
    pub fn build(work: &Path) -> Result<Self> {
        let began = Instant::now();
        let say =
            |what: &str| eprintln_line(&format!("[{} ms] {what}", began.elapsed().as_millis()));
        fs::create_dir_all(work)?;
        let net = ArrayNet::build(work)?;
        say("hosts and cables of the array");
        let certs = work.join("certs");
        let public_ca = Authority::new("public-ca", &certs)?;
        let inside_ca = Authority::new("inside-ca-contoso", &certs)?;
        let parts = Parts {
            site: &ARRAY,
            partner: &FABRIKAM,
            av_address: ARRAY.av,
            av_ipv6: None,
            gateway_ipv6: None,
            public_ca: &public_ca,
            inside_ca: &inside_ca,
        };
        let hosts: Vec<_> = net.edges.iter().collect();
        let mut members = EdgeHost::configure_all(&parts, &hosts, &net.inside, work)?;
        say("certificates and one configuration, checked on each member");
        let name_servers = name_servers(&net, &members, work)?;
        for member in &members {
            member.apply()?;
        }
        say("name servers; rendered network settings and firewalls applied");
        let director = Director::start(&ARRAY, &net.inside, &inside_ca, work)?;
        say("Director");
        let mut failed = Vec::new();
        for member in &mut members {
            let name = member.name.clone();
            let named = |(service, error): (Service, anyhow::Error)| {
                (format!("{} of {name} starts", service.daemon()), error)
            };
            failed.extend(member.start().into_iter().map(named));
        }
        if failed.is_empty() {
            for member in &members {
                for service in Service::ALL.into_iter().filter(needs_nobody) {
                    member.wait_ready(service)?;
                }
            }
        }
        say(&format!("daemons; {} did not start", failed.len()));
        let outside = Balancer::outside(&net.perimeter, work)?;
        let inside = Balancer::inside(&net.inside, work)?;
        say("balancers");
        Ok(Self {
            net,
            work: work.to_owned(),
            public_ca,
            inside_ca,
            members,
            director,
            outside,
            inside,
            failed,
            _name_servers: name_servers,
        })
    }

    /// The member of that name.
    pub fn member(&mut self, name: &str) -> Result<&mut EdgeHost> {
        let found = self
            .members
            .iter_mut()
            .find(|host| host.member.name == name);
        found.with_context(|| format!("no member {name}"))
    }

    /// The account of a contoso user who is outside and knows nothing but the array's name.
    pub fn remote_account(
        &self,
        user: &str,
        friend: &str,
        relay: Option<Relay>,
    ) -> Result<Account> {
        remote_account(user, friend, relay)
    }

    /// The same, for somebody who goes past the balancer to one member.
    pub fn account_at(&self, member: &Member, user: &str, friend: &str) -> Result<Account> {
        Ok(Account {
            proxy: format!("sip:{}:443;transport=tls", member.access),
            ..remote_account(user, friend, None)?
        })
    }
}

/// `edge-webconf` is ready when agents have dialled in, which is up to whoever starts them.
const fn needs_nobody(service: &Service) -> bool {
    !matches!(service, Service::Webconf)
}

/// One server for the Internet and one for the inside, with the zones that `edgectl` rendered.
fn name_servers(net: &ArrayNet, members: &[EdgeHost], work: &Path) -> Result<Vec<Process>> {
    let first = members.first().context("the array has members")?;
    let rendered = first.render_dns()?;
    let mut internal = zones(&rendered.internal, ARRAY.internal_dns);
    add_inside_servers(&mut internal, &ARRAY);
    let public = zones(&rendered.external, INTERNET_DNS);
    Ok(vec![
        dns::start(
            "dns-contoso",
            &net.inside,
            ARRAY.internal_dns,
            &internal,
            work,
        )?,
        dns::start("dns-internet", &net.internet, INTERNET_DNS, &public, work)?,
    ])
}

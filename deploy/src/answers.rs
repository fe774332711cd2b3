//! What `edgectl init` is told, and the `edge.toml` that follows from it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::IpAddr;

use edge_common::host_name::{HostName, HostPort};
use edge_common::ports::Service;
use ipnet::IpNet;

use crate::plan::line;

/// A single edge in the operator's words. What is not asked here keeps its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// SIP domains; the first is the main one.
    pub domains: Vec<HostName>,
    /// The host's name in the configuration.
    pub node: String,
    /// Services that run here.
    pub services: Vec<Service>,
    /// The network towards the Internet.
    pub external: Network,
    /// The network towards the organisation.
    pub internal: Network,
    /// What lies inside.
    pub inside: Vec<IpNet>,
    /// The host's own name inside.
    pub internal_fqdn: HostName,
    /// The Director or pool; only where the Access Edge runs.
    pub next_hop: Option<HostPort>,
    /// Its addresses; none: DNS inside is asked.
    pub next_hop_addresses: Vec<IpAddr>,
    /// Who may speak SIP to the edge; the next hop always may.
    pub trusted_servers: Vec<String>,
    /// Names of the agents next to conference servers.
    pub agents: Vec<String>,
    /// What a 1:1 NAT shows in place of the A/V address.
    pub public_address: Option<IpAddr>,
    /// Federation with other organisations.
    pub federates: bool,
    /// Domains to federate with.
    pub partners: Vec<HostName>,
    /// From where operators reach the host's port 22, on the internal side.
    pub management: Vec<IpNet>,
    /// Resolvers asked from the external address.
    pub external_dns: Vec<IpAddr>,
    /// Resolvers asked from the internal address.
    pub internal_dns: Vec<IpAddr>,
    /// Ranges that a laboratory treats as public.
    pub lab_ranges: Vec<IpNet>,
    /// Partners' certificates come from the laboratory's own public CA.
    pub lab_roots: bool,
    /// TURN over TLS.
    pub turns: bool,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub interface: String,
    /// The host's addresses on it.
    pub addresses: Vec<IpNet>,
    /// One per family at most.
    pub gateway: Vec<IpAddr>,
}

impl Answers {
    /// The whole file. It is checked before it is written.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut out = Toml::default();
        self.shared(&mut out);
        for service in &self.services {
            match service {
                Service::Access => self.access(&mut out),
                Service::Webconf => self.webconf(&mut out),
                Service::Av => self.av(&mut out),
            }
        }
        self.operation(&mut out);
        out.text
    }

    fn shared(&self, out: &mut Toml) {
        out.comment(
            "Configuration of the Edge Server. `edgectl check` reads it as the daemons do.",
        );
        out.table("organization");
        let domains: Vec<String> = self
            .domains
            .iter()
            .map(|domain| {
                format!(
                    "{{ domain = {}, remote_users_here = true }}",
                    string(domain.as_str())
                )
            })
            .collect();
        out.raw("sip_domains", &list(&domains));
        out.text("topology", "single");
        out.raw("federation_here", "true");

        out.line("\n[[members]]");
        out.text("name", &self.node);
        out.raw("id", "0");
        out.raw("external", &self.external_member());
        out.raw(
            "internal",
            &format!(
                "{{ addresses = {}, fqdn = {} }}",
                strings(&self.internal.addresses),
                string(self.internal_fqdn.as_str())
            ),
        );

        out.table("external");
        out.text("interface", &self.external.interface);
        out.raw("gateway", &strings(&self.external.gateway));

        out.table("internal");
        out.text("interface", &self.internal.interface);
        if !self.internal.gateway.is_empty() {
            out.raw("gateway", &strings(&self.internal.gateway));
        }
        out.raw("networks", &strings(&self.inside));
        out.raw("certificates", &pair("internal"));
        out.text("ca", "certs/inside-ca.pem");
        if let Some(next_hop) = &self.next_hop {
            out.text("next_hop", &next_hop.to_string());
            if !self.next_hop_addresses.is_empty() {
                out.raw("next_hop_addresses", &strings(&self.next_hop_addresses));
            }
        }
        out.raw("trusted_servers", &strings(&self.trusted()));

        out.table("array");
        out.raw("secrets", "{ current = \"secrets/array.current\" }");
    }

    /// Three addresses or more outside: each service has its own, with the default ports.
    fn external_member(&self) -> String {
        let mut parts = vec![format!("addresses = {}", strings(&self.external.addresses))];
        if self.has_own_addresses() {
            for service in &self.services {
                let addresses = self.own_addresses(*service);
                parts.push(format!("{service} = {}", strings(&addresses)));
            }
        }
        format!("{{ {} }}", parts.join(", "))
    }

    fn has_own_addresses(&self) -> bool {
        self.services.len() > 1 && self.external_of(true).len() >= self.services.len()
    }

    /// The service's place in the list is the place of its address; in a family with fewer addresses than
    /// services all go to the A/V Edge, which gains most from a second family.
    fn own_addresses(&self, service: Service) -> Vec<IpAddr> {
        let place = self
            .services
            .iter()
            .position(|one| *one == service)
            .unwrap_or_default();
        let mut own = Vec::new();
        for is_v4 in [true, false] {
            let family = self.external_of(is_v4);
            if family.len() >= self.services.len() {
                own.extend(family.get(place));
            } else if service == Service::Av {
                own.extend(family);
            }
        }
        own
    }

    fn external_of(&self, is_v4: bool) -> Vec<IpAddr> {
        self.external
            .addresses
            .iter()
            .map(IpNet::addr)
            .filter(|address| address.is_ipv4() == is_v4)
            .collect()
    }

    fn trusted(&self) -> Vec<String> {
        let mut trusted: Vec<String> = self
            .next_hop
            .iter()
            .map(|next_hop| next_hop.host.to_string())
            .collect();
        trusted.extend(self.trusted_servers.iter().cloned());
        if self.services.contains(&Service::Av) {
            // So that `edgectl probe mras` is answered on the host itself.
            trusted.push(self.internal_fqdn.to_string());
        }
        trusted.dedup();
        trusted
    }

    fn access(&self, out: &mut Toml) {
        out.table("access");
        out.text("fqdn", &format!("sip.{}", self.main_domain()));
        out.text("internal_fqdn", self.internal_fqdn.as_str());
        out.raw("certificates", &pair("access"));
        if self.shares_address() {
            out.comment("One address for all services outside, so each has ports of its own.");
            out.raw("client_port", "443");
        }
        out.table("access.federation");
        out.raw("enabled", if self.federates { "true" } else { "false" });
        let partners: Vec<String> = self
            .partners
            .iter()
            .map(|domain| format!("{{ domain = {} }}", string(domain.as_str())))
            .collect();
        out.raw("partners", &list(&partners));
        if self.lab_roots {
            out.text("trust_roots", "certs/outside-ca.pem");
        }
    }

    fn webconf(&self, out: &mut Toml) {
        out.table("webconf");
        out.text("fqdn", &format!("webconf.{}", self.main_domain()));
        out.raw("certificates", &pair("webconf"));
        if self.shares_address() {
            out.raw("port", "444");
        }
        out.raw("agents", &strings(&self.agents));
    }

    fn av(&self, out: &mut Toml) {
        out.table("av");
        out.text("fqdn", &format!("av.{}", self.main_domain()));
        out.text("internal_fqdn", self.internal_fqdn.as_str());
        if self.turns {
            out.raw("certificates", &pair("av"));
        }
        if let Some(address) = self.public_address {
            out.text("public_address", &address.to_string());
        }
        if self.shares_address() {
            out.raw("tcp_port", "442");
        }
        out.raw(
            "authentication",
            "{ current = { chain = \"certs/av-auth.pem\", key = \"certs/av-auth.key\" } }",
        );
        out.raw(
            "rest_secrets",
            "{ current = \"secrets/turn-rest.current\" }",
        );
    }

    fn operation(&self, out: &mut Toml) {
        if !self.management.is_empty() {
            out.table("firewall");
            out.raw(
                "management",
                &format!(
                    "[{{ side = \"internal\", from = {}, tcp = [22] }}]",
                    strings(&self.management)
                ),
            );
        }
        if !self.external_dns.is_empty() || !self.internal_dns.is_empty() {
            out.table("dns");
            out.raw("external", &strings(&self.external_dns));
            out.raw("internal", &strings(&self.internal_dns));
        }
        if !self.lab_ranges.is_empty() {
            out.table("lab");
            out.raw("treat_as_public", &strings(&self.lab_ranges));
        }
    }

    fn shares_address(&self) -> bool {
        self.services.len() > 1 && !self.has_own_addresses()
    }

    fn main_domain(&self) -> &str {
        self.domains.first().map_or("", HostName::as_str)
    }
}

#[derive(Default)]
struct Toml {
    text: String,
}

impl Toml {
    fn table(&mut self, name: &str) {
        self.line(&format!("\n[{name}]"));
    }

    fn comment(&mut self, text: &str) {
        self.line(&format!("# {text}"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, &string(value));
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {value}"));
    }

    fn line(&mut self, text: &str) {
        line(&mut self.text, format_args!("{text}"));
    }
}

/// A TOML string with whatever has to be escaped.
fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn strings(values: &[impl ToString]) -> String {
    let quoted: Vec<String> = values
        .iter()
        .map(|value| string(&value.to_string()))
        .collect();
    list(&quoted)
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

fn pair(name: &str) -> String {
    format!("[{{ chain = \"certs/{name}.pem\", key = \"certs/{name}.key\" }}]")
}

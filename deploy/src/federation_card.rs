//! The page that a partner's administrator needs to federate with us.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::IpAddr;

use edge_common::config::{ClientEku, Config, Revocation};
use edge_common::time::UnixTime;
use serde::Serialize;

use crate::calendar;
use crate::certificate_facts::Facts;
use crate::dns::{self, Data};
use crate::plan::line;

/// Everything on the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Our SIP domains.
    pub domains: Vec<String>,
    /// The name of our edge.
    pub fqdn: String,
    /// Its port.
    pub port: u16,
    /// Where it is; empty when only the operator knows what a NAT shows.
    pub addresses: Vec<IpAddr>,
    /// The records that lead to it, as zone lines.
    pub records: Vec<String>,
    /// What it shows, each with its chain, the host's own first.
    pub certificates: Vec<Vec<Facts>>,
    /// What we ask of the partner.
    pub requirements: Vec<String>,
    /// Whom to ask.
    pub contact: String,
}

impl Card {
    /// From the configuration and what its certificate files hold; `None` when this site does not federate.
    #[must_use]
    pub fn of(
        config: &Config,
        certificates: Vec<Vec<Facts>>,
        contact: Option<&str>,
    ) -> Option<Self> {
        let access = config.access.as_ref()?;
        if !access.federation.enabled || !config.organization.federation_here {
            return None;
        }
        let domains = &config.organization.sip_domains;
        let view = dns::external(config);
        let mut addresses = Vec::new();
        let mut records = Vec::new();
        for record in view.zones.values().flatten() {
            match &record.data {
                Data::Srv { port, target } if record.owner.starts_with("_sipfederationtls.") => {
                    records.push(format!("{}. SRV 0 0 {port} {target}.", record.owner));
                }
                Data::Address(address) if record.owner == access.fqdn.as_str() => {
                    addresses.push(*address);
                    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                    records.push(format!("{}. {kind} {address}", record.owner));
                }
                Data::Srv { .. } | Data::Address(_) | Data::BehindNat(_) => {}
            }
        }
        Some(Self {
            domains: domains.iter().map(|own| own.domain.to_string()).collect(),
            fqdn: access.fqdn.to_string(),
            port: access.federation_port,
            addresses,
            records,
            certificates,
            requirements: requirements(config),
            contact: contact.unwrap_or(NO_CONTACT).to_owned(),
        })
    }

    /// As Markdown, which is readable as it stands.
    #[must_use]
    pub fn markdown(&self, now: UnixTime) -> String {
        let mut out = String::new();
        let own = self.domains.join(", ");
        line(&mut out, format_args!("# Federation with {own}\n"));
        line(&mut out, format_args!("As of {}.\n", calendar::date(now)));
        line(&mut out, format_args!("- SIP domains: {own}"));
        line(
            &mut out,
            format_args!(
                "- Access Edge: {}, TCP port {}, SIP over mutual TLS 1.2 or 1.3",
                self.fqdn, self.port
            ),
        );
        line(
            &mut out,
            format_args!("- Addresses: {}", self.address_words()),
        );
        line(&mut out, format_args!("- Contact: {}", self.contact));
        line(&mut out, format_args!("\n## DNS\n\n```"));
        for record in &self.records {
            line(&mut out, format_args!("{record}"));
        }
        line(&mut out, format_args!("```\n\n## Our certificate"));
        for chain in &self.certificates {
            for (at, facts) in chain.iter().enumerate() {
                certificate(&mut out, facts, at);
            }
        }
        line(
            &mut out,
            format_args!(
                "\nWe show it in both directions. Public authorities issue for `serverAuth` only; your side has to take such a certificate from us also when we connect to you.\n"
            ),
        );
        line(&mut out, format_args!("## What we ask of you\n"));
        for requirement in &self.requirements {
            line(&mut out, format_args!("- {requirement}"));
        }
        out
    }

    /// The same as a page for a browser.
    #[must_use]
    pub fn html(&self, now: UnixTime) -> String {
        let text = escaped(&self.markdown(now));
        let title = escaped(&self.domains.join(", "));
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Federation with {title}</title></head>\n\
             <body><pre>\n{text}</pre></body></html>\n"
        )
    }

    fn address_words(&self) -> String {
        if self.addresses.is_empty() {
            return "ask us; the edge stands behind a NAT".to_owned();
        }
        let words: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        words.join(", ")
    }
}

fn certificate(out: &mut String, facts: &Facts, at: usize) {
    let usage = if facts.usage.is_empty() {
        "any".to_owned()
    } else {
        facts.usage.join(", ")
    };
    let what = if at == 0 { "Certificate" } else { "Issued by" };
    line(out, format_args!("\n{what}: {}\n", facts.subject));
    if at == 0 {
        line(out, format_args!("- names: {}", facts.names.join(", ")));
    }
    line(out, format_args!("- issuer: {}", facts.issuer));
    line(out, format_args!("- serial number: {}", facts.serial));
    line(out, format_args!("- extended key usage: {usage}"));
    line(
        out,
        format_args!("- valid until: {}", calendar::moment(facts.expires())),
    );
    line(out, format_args!("- SHA-256: {}", facts.sha256));
}

fn requirements(config: &Config) -> Vec<String> {
    let Some(access) = &config.access else {
        return Vec::new();
    };
    let federation = &access.federation;
    let admission = if federation.discovery {
        "Any domain may federate that proves itself as below; we need not be told before."
    } else {
        "Only domains that we list may federate: tell us your SIP domains, and the name of your edge if no SRV record leads to it."
    };
    let eku = match federation.client_eku {
        ClientEku::Client => "Its extended key usage holds clientAuth and serverAuth.",
        ClientEku::ClientOrServer => {
            "Its extended key usage holds serverAuth; clientAuth is not needed."
        }
        ClientEku::Any => {
            "Its extended key usage holds serverAuth; when you connect to us we do not look at it."
        }
    };
    let revocation = match federation.revocation {
        Revocation::Off => "We do not ask for its revocation state.",
        Revocation::Soft => "Its revocation lists should be reachable over HTTP.",
        Revocation::Hard => "Its revocation lists have to be reachable over HTTP and in date.",
    };
    [
        admission,
        "A record `_sipfederationtls._tcp.<your domain>` names your edge, and the edge's name lies within that domain (sip.<your domain> is common).",
        "Your edge shows a certificate in both directions that names the SRV target as dNSName; wildcards prove nothing.",
        eku,
        "The chain is complete up to an authority that we trust: a public one, or send us yours.",
        revocation,
        "TLS 1.2 or 1.3. Your edge's addresses are public.",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const NO_CONTACT: &str = "(name, telephone and mail of whoever answers for federation: --contact)";

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::config::check;

    const SINGLE: &str = include_str!("../examples/single.toml");

    fn config(text: &str) -> Config {
        check(text, None).config.unwrap()
    }

    fn facts() -> Facts {
        Facts {
            subject: "CN=sip.contoso.test".into(),
            issuer: "CN=Public <CA>".into(),
            serial: "04a1".into(),
            names: vec!["sip.contoso.test".into()],
            usage: vec!["serverAuth".into()],
            not_before: 0,
            not_after: 1_790_000_000,
            sha256: "ab".repeat(32),
        }
    }

    #[test]
    fn the_page_tells_all_that_a_partner_has_to_know() {
        let card = Card::of(
            &config(SINGLE),
            vec![vec![facts()]],
            Some("Ann, ann@contoso.test"),
        )
        .unwrap();
        let page = card.markdown(UnixTime::from_secs(0));
        for told in [
            "contoso.test",
            "sip.contoso.test, TCP port 5061",
            "_sipfederationtls._tcp.contoso.test. SRV 0 0 5061 sip.contoso.test.",
            "sip.contoso.test. A 198.51.100.10",
            "serial number: 04a1",
            "CN=Public <CA>",
            "valid until: 2026-09-21 14:13:20 UTC",
            &"ab".repeat(32),
            "extended key usage: serverAuth",
            "Ann, ann@contoso.test",
            "clientAuth is not needed",
        ] {
            assert!(page.contains(told), "{told} is not in\n{page}");
        }
        let html = card.html(UnixTime::from_secs(0));
        assert!(
            html.contains("CN=Public &lt;CA&gt;") && !html.contains("<CA>"),
            "{html}"
        );
    }

    #[test]
    fn what_we_ask_for_follows_the_configuration() {
        let page = |text: &str| {
            let card = Card::of(&config(text), Vec::new(), None).unwrap();
            card.markdown(UnixTime::from_secs(0))
        };
        assert!(page(SINGLE).contains(NO_CONTACT));
        let strict = SINGLE.replace(
            "[access.federation]\n",
            "[access.federation]\nclient_eku = \"client\"\n",
        );
        assert!(page(&strict).contains("holds clientAuth and serverAuth"));
    }

    #[test]
    fn a_site_that_does_not_federate_has_no_card() {
        let mut config = config(SINGLE);
        config.organization.federation_here = false;
        assert_eq!(Card::of(&config, Vec::new(), None), None);
    }
}

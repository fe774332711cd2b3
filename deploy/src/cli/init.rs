//! `edgectl init`.

use std::convert::Infallible;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use edge_common::config::{Config, Finding};
use edge_common::host_name::{HostName, HostPort};
use edge_common::ports::Service;
use edge_common::random::SystemRandom;
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::ask::{Asker, Question, is_terminal, question};
use super::check::report;
use super::{Global, Verdict, now, read};
use crate::answers::{Answers, Network};
use crate::fresh::{self, Fresh, Secrecy, write_all};
use crate::furnish::{Furniture, LabAuthorities, Signers, Workshop};
use crate::issue::Algorithm;

/// Arguments of `edgectl init`. On a terminal, what is not given and has no default is asked for.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Where everything is written; edge.toml, certs and secrets are below it.
    #[arg(long, short, value_name = "DIR", default_value = "/etc/edge")]
    output: PathBuf,
    /// edge.toml is there already (see --config): only make the files that it names and that are missing.
    #[arg(long, conflicts_with_all = ["output", "domain", "external_address", "internal_address"])]
    complete: bool,
    /// Issue certificates from authorities of a laboratory instead of writing requests. They lie in DIR,
    /// by default lab-ca beside edge.toml, and are made when they are not there.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    lab_ca: Option<Option<PathBuf>>,
    /// The kind of keys.
    #[arg(long, value_enum, default_value_t)]
    algorithm: Algorithm,
    /// The group that the daemons share: keys become readable for it (0440 instead of 0400).
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    dry_run: bool,

    /// A SIP domain; the first is the main one.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    domain: Vec<HostName>,
    /// The services of this host, separated by commas; by default all of them.
    #[arg(long, value_enum, value_delimiter = ',', help_heading = "Answers")]
    services: Vec<ServiceName>,
    /// The interface towards the Internet.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    external_interface: Option<String>,
    /// An address on it, with its prefix length; with one for each service all keep their default ports.
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = network, help_heading = "Answers")]
    external_address: Vec<IpNet>,
    /// The router outside, one per address family.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    external_gateway: Vec<IpAddr>,
    /// The interface towards the organisation.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    internal_interface: Option<String>,
    /// An address on it, with its prefix length.
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = network, help_heading = "Answers")]
    internal_address: Vec<IpNet>,
    /// The router inside; not needed when everything inside is on the link.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    internal_gateway: Vec<IpAddr>,
    /// A network that lies inside; by default those of the internal addresses.
    #[arg(long, value_name = "NETWORK", value_parser = network, help_heading = "Answers")]
    internal_network: Vec<IpNet>,
    /// The host's own name inside, like edge1.contoso.internal.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    internal_fqdn: Option<HostName>,
    /// The Director or pool, like director.contoso.internal:5061.
    #[arg(long, value_name = "NAME:PORT", help_heading = "Answers")]
    next_hop: Option<HostPort>,
    /// Its address; by default DNS inside is asked.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    next_hop_address: Vec<IpAddr>,
    /// Another server inside that may speak SIP to the edge; *.NAME stands for all below NAME.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    trusted_server: Vec<String>,
    /// The name of an agent next to a conference server; webconf needs one.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    agent: Vec<String>,
    /// What a 1:1 NAT shows outside in the place of the A/V address.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    public_address: Option<IpAddr>,
    /// No federation with other organisations.
    #[arg(long, conflicts_with = "partner", help_heading = "Answers")]
    no_federation: bool,
    /// A domain to federate with.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    partner: Vec<HostName>,
    /// A network inside from which operators reach this host's port 22.
    #[arg(long, value_name = "NETWORK", value_parser = network, help_heading = "Answers")]
    management: Vec<IpNet>,
    /// A resolver outside; federation looks partners up there, and needs one.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    external_dns: Vec<IpAddr>,
    /// A resolver inside; needed where --next-hop-address does not tell the next hop's address.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    internal_dns: Vec<IpAddr>,
    /// A range that a laboratory treats as public.
    #[arg(long, value_name = "NETWORK", value_parser = network, help_heading = "Answers")]
    lab_range: Vec<IpNet>,
    /// TURN over TLS too, with a certificate of its own.
    #[arg(long, help_heading = "Answers")]
    turns: bool,
}

/// A service on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceName {
    Access,
    Webconf,
    Av,
}

impl From<ServiceName> for Service {
    fn from(name: ServiceName) -> Self {
        match name {
            ServiceName::Access => Self::Access,
            ServiceName::Webconf => Self::Webconf,
            ServiceName::Av => Self::Av,
        }
    }
}

impl Init {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        // What can be refused at once is refused before anybody is asked anything.
        let group = self.group_number()?;
        let (file, text, typed) = if self.complete {
            let file = global.config.clone();
            let text = read(&file)?;
            (file, text, Vec::new())
        } else {
            let file = self.output.join("edge.toml");
            anyhow::ensure!(
                file.symlink_metadata().is_err(),
                "refusing to overwrite {0}: `edgectl init --complete --config {0}` makes the files that it names and \
                 that are missing; another --output makes another tree",
                file.display()
            );
            let (answers, typed) = self.answers(global, out)?;
            (file, answers.toml(), typed)
        };
        let mut checked = edge_common::config::check(&text, global.node.as_deref());
        if !self.complete {
            checked.findings.iter_mut().for_each(name_options);
        }
        let Some(config) = report(&checked, &file, &text, out)? else {
            nothing_written(&typed, out)?;
            return Ok(Verdict::Bad);
        };
        let base = file.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        let (mut files, furniture) = self.furniture(config, &base)?;
        if !self.complete {
            let configuration = Fresh {
                path: file.clone(),
                secrecy: Secrecy::Public,
                contents: Zeroizing::new(text),
                what: "configuration".to_owned(),
            };
            files.insert(0, configuration);
        }
        if !self.dry_run {
            write_all(&files, group)?;
        }
        self.summary(&files, &furniture, out)?;
        next_steps(&file, !furniture.wanted.is_empty(), out)?;
        Ok(Verdict::Good)
    }

    /// All files to be written, authorities of the laboratory included.
    fn furniture(&self, config: &Config, base: &Path) -> anyhow::Result<(Vec<Fresh>, Furniture)> {
        let mut files = Vec::new();
        let signers = match &self.lab_ca {
            None => Signers::Requests,
            Some(directory) => {
                let directory = directory.clone().unwrap_or_else(|| base.join("lab-ca"));
                let (lab, fresh) = LabAuthorities::open(&directory, now())?;
                files = fresh;
                Signers::Lab(Box::new(lab))
            }
        };
        let workshop = Workshop {
            signers: &signers,
            algorithm: self.algorithm,
            now: now(),
            base,
        };
        let mut furniture = workshop.furnish(config, &mut SystemRandom)?;
        for file in std::mem::take(&mut furniture.files) {
            // The configuration may point right at a file of the laboratory's authorities.
            if !files.iter().any(|other| other.path == file.path) {
                files.push(file);
            }
        }
        Ok((files, furniture))
    }

    fn group_number(&self) -> anyhow::Result<Option<u32>> {
        let Some(name) = &self.group else {
            return Ok(None);
        };
        let file = Path::new("/etc/group");
        let number = fresh::number_of(name, file).with_context(|| file.display().to_string())?;
        number.map(Some).with_context(|| {
            format!(
                "--group: there is no group {name}; `groupadd --force --system {name}` makes it"
            )
        })
    }

    fn summary(
        &self,
        files: &[Fresh],
        furniture: &Furniture,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let done = if self.dry_run { "would write" } else { "wrote" };
        for file in files {
            writeln!(out, "{done} {}  ({})", file.path.display(), file.what)?;
        }
        for path in &furniture.kept {
            writeln!(out, "kept {}", path.display())?;
        }
        if !furniture.wanted.is_empty() {
            writeln!(out, "\nStill to be brought:")?;
            for line in &furniture.wanted {
                writeln!(out, "  {line}")?;
            }
        }
        if self.group.is_none() && files.iter().any(|file| file.secrecy == Secrecy::Key) {
            writeln!(
                out,
                "\nThe keys are for their owner alone; the packaged units need `--group edge`."
            )?;
        }
        Ok(())
    }

    /// What the options say; on a terminal, what they leave open is asked for. With it, all that was typed there.
    fn answers(
        &self,
        global: &Global,
        out: &mut dyn Write,
    ) -> anyhow::Result<(Answers, Vec<String>)> {
        let mut ask = Asker::new(self.anything_missing()?, out);
        let domains = ask.some(DOMAIN, HostName::from_str, &self.domain)?;
        let mut services = ask.perhaps(SERVICES, service, &self.services)?;
        if services.is_empty() {
            services = ServiceName::value_variants().to_vec();
        }
        let services: Vec<Service> = services.into_iter().map(Service::from).collect();
        let external = Network {
            interface: ask.one(EXTERNAL_INTERFACE, word, self.external_interface.as_ref())?,
            addresses: ask.some(EXTERNAL_ADDRESS, network, &self.external_address)?,
            gateway: ask.some(EXTERNAL_GATEWAY, IpAddr::from_str, &self.external_gateway)?,
        };
        let internal = Network {
            interface: ask.one(INTERNAL_INTERFACE, word, self.internal_interface.as_ref())?,
            addresses: ask.some(INTERNAL_ADDRESS, network, &self.internal_address)?,
            gateway: self.internal_gateway.clone(),
        };
        let mut inside = ask.perhaps(INTERNAL_NETWORK, network, &self.internal_network)?;
        if inside.is_empty() {
            inside = internal.addresses.iter().map(IpNet::trunc).collect();
        }
        let internal_fqdn: HostName = ask.one(
            INTERNAL_FQDN,
            HostName::from_str,
            self.internal_fqdn.as_ref(),
        )?;
        let has_access = services.contains(&Service::Access);
        let next_hop = has_access
            .then(|| ask.one(NEXT_HOP, HostPort::from_str, self.next_hop.as_ref()))
            .transpose()?;
        let mut internal_dns = self.internal_dns.clone();
        if has_access && self.next_hop_address.is_empty() {
            internal_dns = ask.some(INTERNAL_DNS, IpAddr::from_str, &self.internal_dns)?;
        }
        let federates = has_access && !self.no_federation;
        let (mut external_dns, mut partners) = (self.external_dns.clone(), self.partner.clone());
        if federates {
            external_dns = ask.some(EXTERNAL_DNS, IpAddr::from_str, &self.external_dns)?;
            partners = ask.perhaps(PARTNER, HostName::from_str, &self.partner)?;
        }
        let mut agents = self.agent.clone();
        if services.contains(&Service::Webconf) {
            agents = ask.some(AGENT, word, &self.agent)?;
        }
        let management = ask.perhaps(MANAGEMENT, network, &self.management)?;
        let first_label = internal_fqdn.labels().next().unwrap_or("edge1").to_owned();
        let answers = Answers {
            domains,
            node: global.node.clone().unwrap_or(first_label),
            services,
            external,
            internal,
            inside,
            internal_fqdn,
            next_hop,
            next_hop_addresses: self.next_hop_address.clone(),
            trusted_servers: self.trusted_server.clone(),
            agents,
            public_address: self.public_address,
            partners,
            management,
            federates,
            external_dns,
            internal_dns,
            lab_ranges: self.lab_range.clone(),
            lab_roots: self.lab_ca.is_some(),
            turns: self.turns,
        };
        Ok((answers, ask.typed))
    }

    /// Whether there is something to ask; an error that names all of it, when nobody is there to answer.
    fn anything_missing(&self) -> anyhow::Result<bool> {
        let runs = |service| self.services.is_empty() || self.services.contains(&service);
        let has_access = runs(ServiceName::Access);
        let needs = [
            (DOMAIN, self.domain.is_empty()),
            (EXTERNAL_INTERFACE, self.external_interface.is_none()),
            (EXTERNAL_ADDRESS, self.external_address.is_empty()),
            (EXTERNAL_GATEWAY, self.external_gateway.is_empty()),
            (INTERNAL_INTERFACE, self.internal_interface.is_none()),
            (INTERNAL_ADDRESS, self.internal_address.is_empty()),
            (INTERNAL_FQDN, self.internal_fqdn.is_none()),
            (NEXT_HOP, has_access && self.next_hop.is_none()),
            (
                INTERNAL_DNS,
                has_access && self.next_hop_address.is_empty() && self.internal_dns.is_empty(),
            ),
            (
                EXTERNAL_DNS,
                has_access && !self.no_federation && self.external_dns.is_empty(),
            ),
            (AGENT, runs(ServiceName::Webconf) && self.agent.is_empty()),
        ];
        let missing: Vec<String> = needs
            .into_iter()
            .filter(|(_, is_missing)| *is_missing)
            .map(|(question, _)| format!("\n  {:21} {}", question.option, question.text))
            .collect();
        anyhow::ensure!(
            missing.is_empty() || is_terminal(),
            "these options are needed, as there is no terminal to ask at:{}",
            missing.concat()
        );
        Ok(!missing.is_empty())
    }
}

const DOMAIN: Question = question("--domain", "SIP domain");
const SERVICES: Question = question(
    "--services",
    "Services of this host (nothing: access webconf av)",
);
const EXTERNAL_INTERFACE: Question =
    question("--external-interface", "Interface towards the Internet");
const EXTERNAL_ADDRESS: Question =
    question("--external-address", "Addresses on it, with prefix lengths");
const EXTERNAL_GATEWAY: Question = question("--external-gateway", "Router outside");
const INTERNAL_INTERFACE: Question =
    question("--internal-interface", "Interface towards the organisation");
const INTERNAL_ADDRESS: Question =
    question("--internal-address", "Addresses on it, with prefix lengths");
const INTERNAL_NETWORK: Question = question(
    "--internal-network",
    "Networks inside (nothing: those of the addresses)",
);
const INTERNAL_FQDN: Question = question("--internal-fqdn", "This host's name inside");
const NEXT_HOP: Question = question("--next-hop", "Director or pool, NAME:PORT");
const INTERNAL_DNS: Question = question(
    "--internal-dns",
    "Resolver inside, for the address of the Director or pool",
);
const EXTERNAL_DNS: Question = question("--external-dns", "Resolver outside, for partners");
const PARTNER: Question = question("--partner", "Domains to federate with (nothing: none yet)");
const AGENT: Question = question("--agent", "Names of the agents next to conference servers");
const MANAGEMENT: Question = question(
    "--management",
    "Networks inside from which operators reach port 22 (nothing: none)",
);

fn service(text: &str) -> Result<ServiceName, String> {
    ServiceName::from_str(text, true).map_err(|_| format!("{text} is none of access, webconf, av"))
}

fn word(text: &str) -> Result<String, Infallible> {
    Ok(text.to_owned())
}

/// A network or an address with its prefix length, with an error that says which part is missing.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|_| "write address and prefix length, as in 198.51.100.10/24".to_owned())
}

/// There is no file yet that could be corrected: what it is made from has to be.
fn name_options(finding: &mut Finding) {
    let known = OPTIONS.iter().find(|(key, _)| finding.key.starts_with(key));
    if let Some((_, options)) = known {
        finding.help = format!("{} Here: {options}.", finding.help);
    }
}

fn nothing_written(typed: &[String], out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "Nothing was written.")?;
    if typed.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = std::env::args()
        .chain(typed.iter().cloned())
        .map(|word| quoted(&word))
        .collect();
    writeln!(
        out,
        "The same with your answers, to be corrected and run again:\n  {}",
        words.join(" ")
    )?;
    Ok(())
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn next_steps(file: &Path, is_waiting: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let edgectl = if file == Path::new("/etc/edge/edge.toml") {
        "edgectl".to_owned()
    } else {
        format!("edgectl --config {}", quoted(&file.display().to_string()))
    };
    let first = if is_waiting {
        "bring these files, then "
    } else {
        ""
    };
    writeln!(
        out,
        "\nNext: {first}{edgectl} check; the commands behind it: render dns, render systemd, apply firewall; then start \
         the daemons."
    )?;
    Ok(())
}

/// Which options the keys of a fresh configuration come from, the first match counts.
const OPTIONS: &[(&str, &str)] = &[
    ("organization.sip_domains", "--domain"),
    (
        "members[0].external",
        "--external-address, --public-address",
    ),
    ("members[0].internal.addresses", "--internal-address"),
    ("members[0].internal.fqdn", "--internal-fqdn"),
    ("members[0].name", "--node"),
    ("external.interface", "--external-interface"),
    ("external.gateway", "--external-gateway"),
    ("internal.interface", "--internal-interface"),
    ("internal.gateway", "--internal-gateway"),
    ("internal.networks", "--internal-network"),
    (
        "internal.next_hop",
        "--next-hop, --next-hop-address, --internal-dns",
    ),
    (
        "internal.trusted_servers",
        "--trusted-server, --next-hop, --internal-fqdn",
    ),
    ("access.internal_fqdn", "--internal-fqdn"),
    ("access.fqdn", "--domain"),
    ("access.federation", "--partner, --no-federation"),
    ("webconf.fqdn", "--domain"),
    ("webconf.agents", "--agent"),
    ("av.internal_fqdn", "--internal-fqdn"),
    ("av.fqdn", "--domain"),
    ("av.public_address", "--public-address"),
    ("firewall.management", "--management"),
    ("dns.external", "--external-dns"),
    ("dns.internal", "--internal-dns"),
    ("lab", "--lab-range"),
];

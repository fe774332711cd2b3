//! `edgectl init`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use edge_common::config::Config;
use edge_common::host_name::{HostName, HostPort};
use edge_common::ports::Service;
use edge_common::random::SystemRandom;
use ipnet::IpNet;
use zeroize::Zeroizing;

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
    /// The services of this host.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [ServiceName::Access, ServiceName::Webconf, ServiceName::Av], help_heading = "Answers")]
    services: Vec<ServiceName>,
    /// The interface towards the Internet.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    external_interface: Option<String>,
    /// An address on it, with its prefix length; with one for each service all keep their default ports.
    #[arg(long, value_name = "ADDRESS/LENGTH", help_heading = "Answers")]
    external_address: Vec<IpNet>,
    /// The router outside, one per address family.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    external_gateway: Vec<IpAddr>,
    /// The interface towards the organisation.
    #[arg(long, value_name = "NAME", help_heading = "Answers")]
    internal_interface: Option<String>,
    /// An address on it, with its prefix length.
    #[arg(long, value_name = "ADDRESS/LENGTH", help_heading = "Answers")]
    internal_address: Vec<IpNet>,
    /// The router inside; not needed when everything inside is on the link.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    internal_gateway: Vec<IpAddr>,
    /// A network that lies inside; by default those of the internal addresses.
    #[arg(long, value_name = "NETWORK", help_heading = "Answers")]
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
    /// The name of an agent next to a conference server.
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
    #[arg(long, value_name = "NETWORK", help_heading = "Answers")]
    management: Vec<IpNet>,
    /// A resolver outside; federation looks partners up there.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    external_dns: Vec<IpAddr>,
    /// A resolver inside.
    #[arg(long, value_name = "ADDRESS", help_heading = "Answers")]
    internal_dns: Vec<IpAddr>,
    /// A range that a laboratory treats as public.
    #[arg(long, value_name = "NETWORK", help_heading = "Answers")]
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
        let (file, text) = if self.complete {
            (global.config.clone(), read(&global.config)?)
        } else {
            (
                self.output.join("edge.toml"),
                self.answers(global, out)?.toml(),
            )
        };
        let checked = edge_common::config::check(&text, global.node.as_deref());
        let Some(config) = report(&checked, &file, &text, out)? else {
            writeln!(out, "Nothing was written.")?;
            return Ok(Verdict::Bad);
        };
        let base = file.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        let (mut files, furniture) = self.furniture(config, &base)?;
        if !self.complete {
            files.insert(
                0,
                Fresh {
                    path: file,
                    secrecy: Secrecy::Public,
                    contents: Zeroizing::new(text),
                    what: "configuration".to_owned(),
                },
            );
        }
        if !self.dry_run {
            write_all(&files, self.group_number()?)?;
        }
        self.summary(&files, &furniture, out)?;
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
        number
            .map(Some)
            .with_context(|| format!("there is no group {name}"))
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
        writeln!(
            out,
            "\nNext: edgectl check, edgectl render dns, edgectl apply firewall, then start the daemons."
        )?;
        Ok(())
    }

    fn answers(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Answers> {
        let mut ask = Asker::new(out);
        let domains = ask.some("--domain", "SIP domain", &self.domain)?;
        let services: Vec<Service> = self.services.iter().copied().map(Service::from).collect();
        let external = Network {
            interface: ask.one(
                "--external-interface",
                "Interface towards the Internet",
                self.external_interface.as_ref(),
            )?,
            addresses: ask.some(
                "--external-address",
                "Addresses on it, with prefix lengths",
                &self.external_address,
            )?,
            gateway: ask.some(
                "--external-gateway",
                "Router outside",
                &self.external_gateway,
            )?,
        };
        let internal = Network {
            interface: ask.one(
                "--internal-interface",
                "Interface towards the organisation",
                self.internal_interface.as_ref(),
            )?,
            addresses: ask.some(
                "--internal-address",
                "Addresses on it, with prefix lengths",
                &self.internal_address,
            )?,
            gateway: self.internal_gateway.clone(),
        };
        let internal_fqdn: HostName = ask.one(
            "--internal-fqdn",
            "This host's name inside",
            self.internal_fqdn.as_ref(),
        )?;
        let next_hop = if services.contains(&Service::Access) {
            Some(ask.one(
                "--next-hop",
                "Director or pool, NAME:PORT",
                self.next_hop.as_ref(),
            )?)
        } else {
            None
        };
        let federates = services.contains(&Service::Access) && !self.no_federation;
        let external_dns = if federates {
            ask.some("--external-dns", "Resolver outside", &self.external_dns)?
        } else {
            self.external_dns.clone()
        };
        let inside = if self.internal_network.is_empty() {
            internal.addresses.iter().map(IpNet::trunc).collect()
        } else {
            self.internal_network.clone()
        };
        let first_label = internal_fqdn.labels().next().unwrap_or("edge1").to_owned();
        Ok(Answers {
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
            agents: self.agent.clone(),
            public_address: self.public_address,
            partners: self.partner.clone(),
            management: self.management.clone(),
            federates,
            external_dns,
            internal_dns: self.internal_dns.clone(),
            lab_ranges: self.lab_range.clone(),
            lab_roots: self.lab_ca.is_some(),
            turns: self.turns,
        })
    }
}

/// Asks for what the command line leaves open, when somebody is there to answer.
struct Asker<'a> {
    out: &'a mut dyn Write,
    is_terminal: bool,
}

impl<'a> Asker<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        Self { out, is_terminal }
    }

    fn one<T: FromStr + Clone>(
        &mut self,
        flag: &str,
        question: &str,
        given: Option<&T>,
    ) -> anyhow::Result<T>
    where
        T::Err: std::fmt::Display,
    {
        let given: Vec<T> = given.cloned().into_iter().collect();
        let mut answers = self.some(flag, question, &given)?;
        anyhow::ensure!(answers.len() == 1, "{flag}: one answer is expected");
        Ok(answers.remove(0))
    }

    /// One answer or more, with blanks or commas between them.
    fn some<T: FromStr + Clone>(
        &mut self,
        flag: &str,
        question: &str,
        given: &[T],
    ) -> anyhow::Result<Vec<T>>
    where
        T::Err: std::fmt::Display,
    {
        if !given.is_empty() {
            return Ok(given.to_vec());
        }
        anyhow::ensure!(
            self.is_terminal,
            "{flag} is needed: {}",
            question.to_lowercase()
        );
        loop {
            write!(self.out, "{question}: ")?;
            self.out.flush()?;
            let mut line = String::new();
            anyhow::ensure!(
                io::stdin().lock().read_line(&mut line)? > 0,
                "{flag} is needed"
            );
            let words = line.split([' ', ',', '\n']).filter(|word| !word.is_empty());
            match words.map(T::from_str).collect::<Result<Vec<T>, _>>() {
                Ok(answers) if !answers.is_empty() => return Ok(answers),
                Ok(_) => {}
                Err(error) => writeln!(self.out, "  {error}")?,
            }
        }
    }
}

//! `edgectl render`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use edge_common::config::Config;

use super::apply::UserArguments;
use super::{Global, Verdict};
use crate::firewall::{self, json, text};
use crate::network::{networkd, script};
use crate::plan::Document;
use crate::systemd::{self, Paths};
use crate::{dns, network};

/// Arguments of `edgectl render`.
#[derive(Debug, Args)]
pub(super) struct Render {
    #[command(subcommand)]
    what: What,
    /// Write files below this directory instead of printing them; what is there is replaced.
    #[arg(long, global = true, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The packet filter, as `nft list table inet edge` will show it once it is applied.
    Firewall {
        /// Text for people, or the JSON that `apply firewall` gives to nft.
        #[arg(long, value_enum, default_value_t)]
        format: FirewallFormat,
        #[command(flatten)]
        users: UserArguments,
    },
    /// Fragments of zone files in BIND's format: external/ZONE.zone and internal/ZONE.zone.
    Dns,
    /// Addresses, policy routing and kernel settings; with --output /etc they lie where systemd looks for them.
    Network {
        /// Files for systemd-networkd and sysctl.d, or one shell script of ip and sysctl commands.
        #[arg(long, value_enum, default_value_t)]
        format: NetworkFormat,
    },
    /// Hardened units for the daemons, the agent and the firewall, and the users that they need; with --output
    /// /etc they lie where systemd looks for them.
    Systemd {
        /// The directory of the daemons and of edgectl.
        #[arg(long, value_name = "DIR", default_value = "/usr/bin")]
        binaries: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FirewallFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum NetworkFormat {
    #[default]
    Networkd,
    Script,
}

impl Render {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let documents = self.documents(global)?;
        match &self.output {
            Some(directory) => write(&documents, directory, out)?,
            None => print(&documents, out)?,
        }
        Ok(Verdict::Good)
    }

    fn documents(&self, global: &Global) -> anyhow::Result<Vec<Document>> {
        let config = global.load()?;
        Ok(match &self.what {
            What::Firewall { format, users } => {
                let ruleset = firewall::ruleset(&config, users.find()?);
                let (path, text) = match format {
                    FirewallFormat::Text => ("edge.nft", text::table(&ruleset)),
                    FirewallFormat::Json => {
                        ("edge.nft.json", format!("{:#}\n", json::replace(&ruleset)?))
                    }
                };
                vec![Document {
                    path: path.into(),
                    text,
                }]
            }
            What::Dns => dns::files(&config),
            What::Network { format } => {
                let network = network::network(&config);
                match format {
                    NetworkFormat::Networkd => networkd::files(&network),
                    NetworkFormat::Script => vec![Document {
                        path: "edge-network.sh".into(),
                        text: script::script(&network),
                    }],
                }
            }
            What::Systemd { binaries } => {
                let paths = Paths {
                    binaries: binaries.clone(),
                    config: std::path::absolute(&global.config)?,
                    ..Paths::default()
                };
                systemd_documents(&config, &paths)
            }
        })
    }
}

/// Units and the users whom they name, with paths below `/etc`.
fn systemd_documents(config: &Config, paths: &Paths) -> Vec<Document> {
    let mut documents: Vec<Document> = systemd::units(config, paths)
        .into_iter()
        .map(|unit| Document {
            path: Path::new("systemd/system").join(unit.name),
            text: unit.text,
        })
        .collect();
    documents.push(Document {
        path: "sysusers.d/edge.conf".into(),
        text: systemd::users(config),
    });
    documents
}

/// One document as it is, so that it can be piped; several with their names between them.
fn print(documents: &[Document], out: &mut dyn Write) -> anyhow::Result<()> {
    if let [only] = documents {
        out.write_all(only.text.as_bytes())?;
        return Ok(());
    }
    for (index, document) in documents.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        writeln!(out, "{gap}# ==> {} <==", document.path.display())?;
        out.write_all(document.text.as_bytes())?;
    }
    Ok(())
}

fn write(documents: &[Document], directory: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    for document in documents {
        let path = directory.join(&document.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&path, &document.text).with_context(|| path.display().to_string())?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

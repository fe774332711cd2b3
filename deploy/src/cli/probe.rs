//! `edgectl probe`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use edge_common::cert::role::Wanted;
use edge_common::cert::store::LoadError;
use edge_common::cert::tls::{self, CrlStore, PeerPolicy, PeerVerifier, Store, TrustStore};
use edge_common::config::{CertificateFiles, ClientEku, Config, Revocation};
use edge_common::host_name::{HostName, HostPort};
use edge_common::random::SystemRandom;

use super::{Global, Verdict, duration, now};
use crate::mras::{Answer, Location, Question};
use crate::probe::{self, ProbeError, Target};

/// Arguments of `edgectl probe`.
#[derive(Debug, Args)]
pub(super) struct Probe {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Fetch A/V credentials as a server inside does it: a SIP SERVICE over mutual TLS.
    ///
    /// Runs on the edge itself or on any host inside; there, --certificate, --key and --ca take the place of what
    /// the configuration names. The service must have the name of --host in its certificate, and ours must be
    /// among its trusted servers.
    Mras(Mras),
}

#[derive(Debug, Args)]
struct Mras {
    /// The name of the A/V Edge inside; by default av.internal_fqdn.
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// Its port; by default av.mras_port, or 5062.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Its address; by default the name is looked up, or on a single edge taken from the configuration.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// For whom, like sip:alice@contoso.com; `sip:` may be left out.
    #[arg(long, value_name = "URI", value_parser = sip_uri)]
    user: String,
    /// Who asks; by default the user.
    #[arg(long, value_name = "URI", value_parser = sip_uri)]
    from: Option<String>,
    /// The service's URI; by default one made of --host and the user's domain.
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// Where the user is; by default relays of both sides are told.
    #[arg(long, value_enum)]
    location: Option<Location>,
    /// For how long.
    #[arg(long, value_name = "TIME", default_value = "8 h", value_parser = duration)]
    lifetime: Duration,
    /// How long to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = duration)]
    timeout: Duration,
    /// The certificate to show, PEM.
    #[arg(
        long,
        value_name = "FILE",
        requires = "key",
        requires = "ca",
        requires = "host"
    )]
    certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The authority that the service's certificate must come from, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    ca: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Probe {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let What::Mras(mras) = &self.what;
        mras.run(global, out)
    }
}

impl Mras {
    fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let setup = self.setup(global)?;
        let service = &setup.target.service;
        let question = Question {
            service: self.uri.clone().unwrap_or_else(|| {
                let domain = self
                    .user
                    .rsplit_once('@')
                    .map_or(service.host.as_str(), |(_, domain)| domain);
                format!("sip:{}@{domain};gruu;opaque=srvr:MRAS:0", service.host)
            }),
            asker: self.from.clone().unwrap_or_else(|| self.user.clone()),
            identity: self.user.clone(),
            location: self.location,
            minutes: u32::try_from(self.lifetime.as_secs() / 60).ok(),
        };
        let tls = tls::dialer(setup.certificate, setup.verifier, &[]);
        match probe::mras(
            &setup.target,
            tls,
            &question,
            &mut SystemRandom,
            self.timeout,
        ) {
            Ok(answer) => {
                self.print(&answer, out)?;
                Ok(Verdict::Good)
            }
            // Somebody answered, and the answer is no.
            Err(ProbeError::Answer(refusal)) => {
                writeln!(out, "{}: {refusal}", service.host)?;
                Ok(Verdict::Bad)
            }
            Err(error) => Err(error).with_context(|| format!("probing {service}")),
        }
    }

    fn setup(&self, global: &Global) -> anyhow::Result<Setup> {
        match (&self.certificate, &self.key, &self.ca) {
            (Some(chain), Some(key), Some(ca)) => self.as_server_inside(chain, key, ca),
            _ => self.as_edge(&global.load()?),
        }
    }

    fn as_server_inside(&self, chain: &Path, key: &Path, ca: &Path) -> anyhow::Result<Setup> {
        let files = CertificateFiles {
            chain: chain.to_owned(),
            key: key.to_owned(),
        };
        let host = self
            .host
            .clone()
            .context("--host is needed with --certificate")?;
        self.target(host, DEFAULT_PORT, None, &files, trusting(ca)?)
    }

    fn as_edge(&self, config: &Config) -> anyhow::Result<Setup> {
        let files = config
            .internal
            .certificates
            .first()
            .context("[internal] has no certificate")?;
        let verifier = PeerVerifier::inside(&config.internal)?;
        let Some(av) = &config.av else {
            let host = self
                .host
                .clone()
                .context("--host is needed: there is no [av] in the configuration")?;
            return self.target(host, DEFAULT_PORT, None, files, verifier);
        };
        let host = self
            .host
            .clone()
            .unwrap_or_else(|| av.internal_fqdn.clone());
        // The one edge that there is need not be looked up; of several the name tells which.
        let only = match config.members.as_slice() {
            [member] if host == av.internal_fqdn => member.internal.ips().next(),
            _ => None,
        };
        self.target(host, av.mras_port, only, files, verifier)
    }

    fn target(
        &self,
        host: HostName,
        port: u16,
        address: Option<IpAddr>,
        files: &CertificateFiles,
        verifier: Arc<PeerVerifier>,
    ) -> anyhow::Result<Setup> {
        let port = self.port.unwrap_or(port);
        let address = self.address.or(address);
        let (certificate, _) = Store::load(std::slice::from_ref(files), Wanted::nothing(), now())?;
        Ok(Setup {
            target: Target {
                service: HostPort { host, port },
                address: address.map(|address| SocketAddr::new(address, port)),
            },
            certificate,
            verifier,
        })
    }

    fn print(&self, answer: &Answer, out: &mut dyn Write) -> anyhow::Result<()> {
        if self.json {
            writeln!(out, "{}", serde_json::to_string(answer)?)?;
            return Ok(());
        }
        for credentials in &answer.credentials {
            writeln!(
                out,
                "username  {}\npassword  {}\nduration  {} min",
                credentials.username, credentials.password, credentials.minutes
            )?;
            if let Some(realm) = &credentials.realm {
                writeln!(out, "realm     {realm}")?;
            }
            for relay in &credentials.relays {
                let port = |port: Option<u16>| {
                    port.map_or_else(|| "-".to_owned(), |port| port.to_string())
                };
                writeln!(
                    out,
                    "relay     {} {}, UDP {}, TCP {}",
                    relay.location,
                    relay.host,
                    port(relay.udp_port),
                    port(relay.tcp_port)
                )?;
            }
        }
        Ok(())
    }
}

struct Setup {
    target: Target,
    certificate: Arc<Store>,
    verifier: Arc<PeerVerifier>,
}

/// The service takes no user without scheme.
fn sip_uri(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("sip" | "sips" | "tel", rest)) if !rest.is_empty() => Ok(text.to_owned()),
        None if text.contains('@') => Ok(format!("sip:{text}")),
        Some(_) | None => Err("write it as in sip:alice@contoso.com".to_owned()),
    }
}

/// On a host inside that has no edge.toml.
fn trusting(ca: &Path) -> Result<Arc<PeerVerifier>, LoadError> {
    let policy = PeerPolicy {
        client_eku: ClientEku::ClientOrServer,
        revocation: Revocation::Off,
    };
    Ok(PeerVerifier::new(
        TrustStore::from_pem_file(ca)?,
        policy,
        CrlStore::load(&[])?,
    ))
}

/// The guide's port for MRAS.
const DEFAULT_PORT: u16 = 5062;

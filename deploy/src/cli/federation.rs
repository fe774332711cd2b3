//! `edgectl federation`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use edge_common::cert::role::{Role, Wanted};
use edge_common::cert::tls::{CrlStore, PeerVerifier, Store};
use edge_common::config::Config;
use edge_common::dns::SipResolver;
use edge_common::host_name::HostName;
use edge_common::ports::Service;
use edge_common::time::UnixTime;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::{Global, Verdict, duration, now};
use crate::calendar;
use crate::certificate_facts::Facts;
use crate::federation_card::Card;
use crate::federation_test::{self, Tester};

/// Arguments of `edgectl federation`.
#[derive(Debug, Args)]
pub(super) struct Federation {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether edge-access would federate with a domain, step by step, and what to do if not.
    ///
    /// Runs on the edge host: names are asked for and the connection is opened as the daemon does it, and verified by the
    /// same code. Nothing but a TLS handshake is sent. Ends with 1 when a step fails.
    Test(Test),
    /// Print the page that a partner's administrator needs: names, records, certificate, what we ask for.
    Card(CardArguments),
    /// Discovered partners and those under suspicion: list them, or allow, block or reset one by its certificate.
    Watch(Watch),
}

#[derive(Debug, Args)]
struct Test {
    /// The partner's SIP domain.
    #[arg(value_name = "DOMAIN")]
    domain: HostName,
    /// For the connection and for the handshake each.
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = duration)]
    timeout: Duration,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CardArguments {
    /// Whom the partner may ask: a name, a telephone, a mail address.
    #[arg(long, value_name = "TEXT")]
    contact: Option<String>,
    /// As JSON.
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// As a page for a browser.
    #[arg(long)]
    html: bool,
}

#[derive(Debug, Args)]
struct Watch {
    /// What to do with one of them.
    #[arg(value_enum, requires = "issuer")]
    action: Option<Action>,
    /// The issuer's name, as the list prints it.
    #[arg(value_name = "ISSUER", requires = "serial")]
    issuer: Option<String>,
    /// The serial number, hexadecimal, with or without colons.
    #[arg(value_name = "SERIAL")]
    serial: Option<String>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Let it pass without the limits for discovered partners.
    Allow,
    /// Refuse everything that comes with this certificate.
    Block,
    /// Forget what was decided and counted.
    Reset,
}

impl Federation {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        match &self.what {
            What::Test(test) => test.run(global, out),
            What::Card(card) => card.run(global, out),
            What::Watch(watch) => watch.run(global, out),
        }
    }
}

impl Test {
    fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let tester = tester(global.load()?, self.timeout)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let report = runtime.block_on(tester.run(&self.domain));
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            write!(out, "{}", federation_test::text(&report))?;
        }
        Ok(if report.pass {
            Verdict::Good
        } else {
            Verdict::Bad
        })
    }
}

fn tester(config: Config, within: Duration) -> anyhow::Result<Tester> {
    let access = config.access.as_ref().context(NO_ACCESS)?;
    let wanted = Wanted::of(&config, Role::AccessExternal).unwrap_or_else(Wanted::nothing);
    let (certificate, _) = Store::load(&access.certificates, wanted, now())
        .context("access.certificates; the test shows them, so it needs to read the key")?;
    let verifier = PeerVerifier::federation(&access.federation, CrlStore::empty())
        .context("access.federation.trust_roots")?;
    Ok(Tester {
        dns: SipResolver::external(&config).context("dns.external")?,
        certificate,
        verifier: Arc::clone(&verifier),
        within,
        config,
    })
}

impl CardArguments {
    fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let config = global.load()?;
        let access = config.access.as_ref().context(NO_ACCESS)?;
        let chains = access
            .certificates
            .iter()
            .map(|files| chain(&files.chain))
            .collect::<anyhow::Result<_>>()?;
        let card = Card::of(&config, chains, self.contact.as_deref())
            .context("this edge does not federate: access.federation.enabled or organization.federation_here is off")?;
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&card)?)?;
        } else if self.html {
            write!(out, "{}", card.html(now()))?;
        } else {
            write!(out, "{}", card.markdown(now()))?;
        }
        Ok(Verdict::Good)
    }
}

fn chain(file: &Path) -> anyhow::Result<Vec<Facts>> {
    let at = || file.display().to_string();
    CertificateDer::pem_file_iter(file)
        .with_context(at)?
        .map(|der| Ok(Facts::of(&der?)?))
        .collect::<anyhow::Result<_>>()
        .with_context(at)
}

impl Watch {
    fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let socket = self.daemon.socket(Service::Access, || global.load())?;
        let request = match (self.action, &self.issuer, &self.serial) {
            (Some(action), Some(issuer), Some(serial)) => json!({
                "command": "federation.watch.set",
                "mode": action.word(),
                "issuer": issuer,
                "serial": serial,
            }),
            (_, _, _) => json!({ "command": "federation.watch" }),
        };
        if self.action.is_some() && self.dry_run {
            writeln!(out, "{} would be told {request}", socket.display())?;
            return Ok(Verdict::Good);
        }
        let answer = self.daemon.ask(&socket, &request)?;
        if self.json {
            writeln!(out, "{answer}")?;
        } else if self.action.is_some() {
            writeln!(out, "done")?;
            entry(&answer, out)?;
        } else {
            list(&answer, out)?;
        }
        Ok(Verdict::Good)
    }
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Reset => "reset",
        }
    }
}

fn list(answer: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let entries = answer["entries"].as_array();
    for one in entries.into_iter().flatten() {
        entry(one, out)?;
    }
    let limits = &answer["limits"];
    writeln!(
        out,
        "{} on the list, of {}; limits: {} requests a second, {} under suspicion, {} contacts",
        entries.map_or(0, Vec::len),
        limits["entries"],
        limits["rate"],
        limits["suspicious_rate"],
        limits["contacts"]
    )?;
    Ok(())
}

fn entry(one: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(issuer) = one["issuer"].as_str() else {
        return Ok(());
    };
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    let words = |key: &str| {
        let list = one[key].as_array().into_iter().flatten();
        let list: Vec<_> = list.filter_map(Value::as_str).collect();
        if list.is_empty() {
            text(key).to_owned()
        } else {
            list.join(", ")
        }
    };
    let moment = |key: &str| {
        let at = one[key].as_u64().map(UnixTime::from_secs);
        at.map_or_else(|| "-".to_owned(), calendar::moment)
    };
    writeln!(out, "{} of {issuer}", text("serial"))?;
    writeln!(out, "  names     {}", words("names"))?;
    writeln!(out, "  domains   {}", words("domains"))?;
    writeln!(
        out,
        "  mode      {}, {}{}",
        text("mode"),
        text("state"),
        if one["connected"].as_u64() > Some(0) || one["connected"] == true {
            ", connected"
        } else {
            ""
        }
    )?;
    writeln!(
        out,
        "  seen      {} to {}",
        moment("first_seen"),
        moment("last_seen")
    )?;
    let refused = &one["refused"];
    writeln!(
        out,
        "  requests  {}, refused {} by rate, {} by contacts, {} blocked; {} contacts; {} unproven",
        one["requests"],
        refused["rate"],
        refused["contacts"],
        refused["blocked"],
        one["contacts"],
        one["unproven"]
    )?;
    Ok(())
}

const NO_ACCESS: &str = "there is no [access] in the configuration";

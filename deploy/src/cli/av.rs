//! `edgectl av`.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use edge_common::config::units;
use edge_common::credential::Location;
use edge_common::random::SystemRandom;

use super::{Global, Verdict, duration, now};
use crate::credentials::{self, Order};

/// Arguments of `edgectl av`.
#[derive(Debug, Args)]
pub(super) struct Av {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Mint a username and password for TURN on this host, without asking a daemon.
    ///
    /// Who may read the A/V authentication key may do so; every member of the array accepts the result.
    Credentials(Credentials),
}

#[derive(Debug, Args)]
struct Credentials {
    /// For whom, like sip:alice@contoso.com; quotas are counted per user.
    #[arg(long, value_name = "URI", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: String,
    /// For how long; no longer than av.token_lifetime_max.
    #[arg(long, value_name = "TIME", default_value = "8 h", value_parser = duration)]
    lifetime: Duration,
    /// Where the user is.
    #[arg(long, value_enum, default_value_t = Where::Any)]
    location: Where,
    /// From which secret.
    #[arg(long, value_enum, default_value_t = Source::Authentication)]
    source: Source,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// Not told.
    Any,
    /// Outside.
    Internet,
    /// Inside.
    Intranet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    /// The key of the A/V authentication certificate, as MRAS uses it.
    Authentication,
    /// The secret that is shared with servers which mint by themselves.
    Rest,
}

impl Av {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let What::Credentials(credentials) = &self.what;
        credentials.run(global, out)
    }
}

impl Credentials {
    fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let config = global.load()?;
        let av = config
            .av
            .as_ref()
            .context("there is no [av] in the configuration")?;
        let order = Order {
            user: self.user.clone(),
            location: match self.location {
                Where::Any => Location::Any,
                Where::Internet => Location::Internet,
                Where::Intranet => Location::Intranet,
            },
            node: config.local().id,
            lifetime: self.lifetime,
        };
        let minted = match self.source {
            Source::Authentication => credentials::mint(av, &order, now(), &mut SystemRandom)?,
            Source::Rest => credentials::mint_rest(av, &order, now())?,
        };
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&minted)?)?;
        } else {
            writeln!(
                out,
                "username  {}\npassword  {}\nrealm     {}\nexpires   in {}, at {} seconds of Unix time",
                minted.username,
                minted.password,
                minted.realm,
                units::duration_text(self.lifetime),
                minted.expires,
            )?;
        }
        Ok(Verdict::Good)
    }
}

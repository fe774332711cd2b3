//! `edgectl apply`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use edge_common::config::units;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::check::counted;
use super::{Global, Verdict, duration};
use crate::apply::{self, ApplyError, Nft, Waiting};
use crate::firewall::{self, Ruleset, Users};
use crate::fresh;

/// Arguments of `edgectl apply`.
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Load the packet filter into the kernel: the table `inet edge` and no other.
    ///
    /// Prints the differences between kernel and plan, rule by rule, and loads the plan in one transaction when
    /// there are any. On a terminal the old table comes back after 60 s unless you confirm, so that a rule which
    /// cuts off your own connection does not last.
    Firewall(Firewall),
    /// Take an unconfirmed change back when its time is over. Started by `apply firewall`.
    #[command(hide = true)]
    Guard {
        #[arg(long)]
        id: String,
        #[arg(long, value_parser = duration)]
        within: Duration,
        #[arg(long)]
        run_directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Firewall {
    /// Print the differences and change nothing.
    #[arg(long, conflicts_with_all = ["confirm", "confirm_within"])]
    dry_run: bool,
    /// Take the change back after this time, like "60 s", unless it is confirmed.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "no_confirm")]
    confirm_within: Option<Duration>,
    /// Change for good at once, even on a terminal.
    #[arg(long)]
    no_confirm: bool,
    /// Confirm a change that waits, from this or another terminal.
    #[arg(long, conflicts_with = "no_confirm")]
    confirm: bool,
    /// Where a change waits for its confirmation.
    #[arg(long, value_name = "DIR", default_value = "/run/edge-firewall")]
    run_directory: PathBuf,
    #[command(flatten)]
    users: UserArguments,
}

/// Whose sockets the rules look at.
#[derive(Debug, Args)]
pub(super) struct UserArguments {
    /// The user who runs edge-webconf; its sockets may not open connections.
    #[arg(long, value_name = "USER", default_value = "edge-webconf")]
    webconf_user: String,
    /// Fail when that user does not exist, instead of leaving its rule out.
    #[arg(long)]
    users: bool,
}

impl UserArguments {
    pub(super) fn find(&self) -> anyhow::Result<Users> {
        let passwd = Path::new("/etc/passwd");
        let webconf = fresh::number_of(&self.webconf_user, passwd)
            .with_context(|| passwd.display().to_string())?;
        if self.users && webconf.is_none() {
            anyhow::bail!("there is no user {}", self.webconf_user);
        }
        Ok(Users { webconf })
    }
}

impl Apply {
    pub(super) fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        match &self.what {
            What::Firewall(firewall) => firewall.run(global, out),
            What::Guard {
                id,
                within,
                run_directory,
            } => {
                Waiting::at(run_directory).guard(&Nft::default(), id, *within)?;
                Ok(Verdict::Good)
            }
        }
    }
}

impl Firewall {
    fn run(&self, global: &Global, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let waiting = Waiting::at(&self.run_directory);
        if self.confirm {
            return confirm(&waiting, out);
        }
        let ruleset = firewall::ruleset(&global.load()?, self.users.find()?);
        let nft = Nft::default();
        let differences = apply::differences(&nft, &ruleset)?;
        for difference in &differences {
            writeln!(out, "{difference}")?;
        }
        let time = self.time_to_confirm();
        if time.is_none() && !self.dry_run && waiting.is_pending() {
            // For good means for good: the guard of an earlier change would load the table before that.
            confirm(&waiting, out)?;
        }
        if differences.is_empty() {
            writeln!(
                out,
                "The kernel holds the plan: {} rules, nothing to change.",
                ruleset.rules.len()
            )?;
            if waiting.is_pending() {
                writeln!(
                    out,
                    "They are taken back unless you confirm: edgectl apply firewall --confirm"
                )?;
            }
            return Ok(Verdict::Good);
        }
        if self.dry_run {
            nft.check(&ruleset)?;
            writeln!(
                out,
                "{}; nothing was changed.",
                counted(differences.len(), "difference")
            )?;
            return Ok(Verdict::Good);
        }
        match time {
            None => {
                nft.load(&ruleset)?;
                verify(&nft, &ruleset)?;
                writeln!(
                    out,
                    "Loaded {} rules into the table inet edge.",
                    ruleset.rules.len()
                )?;
                Ok(Verdict::Good)
            }
            Some(within) => tentatively(&waiting, &nft, &ruleset, within, out),
        }
    }

    fn time_to_confirm(&self) -> Option<Duration> {
        if self.no_confirm {
            return None;
        }
        self.confirm_within.or_else(|| {
            (io::stdin().is_terminal() && io::stdout().is_terminal()).then_some(DEFAULT_TIME)
        })
    }
}

fn confirm(waiting: &Waiting, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    match waiting.confirm() {
        Ok(()) => {
            writeln!(out, "Confirmed: the rules stay.")?;
            Ok(Verdict::Good)
        }
        Err(error @ ApplyError::NothingPending) => {
            writeln!(out, "{error}")?;
            Ok(Verdict::Bad)
        }
        Err(error) => Err(error.into()),
    }
}

fn tentatively(
    waiting: &Waiting,
    nft: &Nft,
    ruleset: &Ruleset,
    within: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<Verdict> {
    waiting.apply(nft, ruleset, within)?;
    let time = units::duration_text(within);
    writeln!(
        out,
        "Loaded {} rules into the table inet edge. They are taken back after {time} unless you confirm:\n  \
         edgectl apply firewall --confirm",
        ruleset.rules.len()
    )?;
    if !io::stdin().is_terminal() {
        return Ok(Verdict::Good);
    }
    write!(out, "Or press Enter here, if this terminal still works: ")?;
    out.flush()?;
    if enter_within(waiting, within)? {
        return confirm(waiting, out);
    }
    writeln!(out)?;
    await_decision(waiting);
    if !apply::differences(nft, ruleset)?.is_empty() {
        writeln!(out, "Nobody confirmed: the old rules are back.")?;
        return Ok(Verdict::Bad);
    }
    writeln!(out, "Confirmed from elsewhere: the rules stay.")?;
    Ok(Verdict::Good)
}

/// Waits for a line on the terminal; false when the change is decided without one.
fn enter_within(waiting: &Waiting, within: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + within;
    let stdin = io::stdin();
    while Instant::now() < deadline && waiting.is_pending() {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        if poll(&mut ready, Some(&tick)).map_err(io::Error::from)? > 0 {
            let mut line = String::new();
            return Ok(stdin.lock().read_line(&mut line)? > 0);
        }
    }
    Ok(false)
}

/// Gives the guard the moment that it needs behind the deadline.
fn await_decision(waiting: &Waiting) {
    let patience = Instant::now() + Duration::from_secs(5);
    while waiting.is_undecided() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What stands in the kernel afterwards is what was meant, or nft's JSON means something else here.
fn verify(nft: &Nft, ruleset: &Ruleset) -> anyhow::Result<()> {
    let left = apply::differences(nft, ruleset)?;
    if let Some(first) = left.first() {
        anyhow::bail!(
            "the kernel holds something else than what was loaded; first difference: {first}"
        );
    }
    Ok(())
}

const DEFAULT_TIME: Duration = Duration::from_secs(60);

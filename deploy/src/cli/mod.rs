//! The command line of `edgectl`.
//!
//! Every command ends with one of these: 0, it is done, or the answer is yes; 1, the answer is no (the check
//! found errors, a daemon is not ready, a probe was refused); 2, the command line is wrong; 3, it could not be
//! done (a file, a socket or a program is missing).

mod access;
mod apply;
mod ask;
mod av;
mod check;
mod daemon;
mod federation;
mod init;
mod probe;
mod render;
mod status;
mod trace;
mod webconf;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use edge_common::config::{self, Config};
use edge_common::time::UnixTime;

/// The operator's tool for the Edge Server.
///
/// It plans, checks, renders and applies what stands around the daemons, and asks them how they are.
#[derive(Debug, Parser)]
#[command(name = "edgectl", version, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What all commands share.
#[derive(Debug, Args)]
struct Global {
    /// The configuration; relative paths in it are below its directory.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/edge/edge.toml",
        env = "EDGE_CONFIG"
    )]
    config: PathBuf,
    /// Which of the configuration's members this host is; not needed when there is only one.
    #[arg(long, global = true, value_name = "NAME", env = "EDGE_NODE")]
    node: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a configuration with keys, certificates (or requests for them) and secrets.
    Init(Box<init::Init>),
    /// Check the configuration, and the files that it names.
    Check(check::Check),
    /// Tell cause and remedy of a finding, like EDGE-C0123; without an id, list all rules.
    Explain(check::Explain),
    /// Print the JSON Schema of edge.toml, for editors.
    Schema,
    /// Print what stands around the daemons: firewall, DNS, network, units.
    Render(render::Render),
    /// Put what was rendered into force on this host.
    Apply(apply::Apply),
    /// Ask the daemons of this host how they are.
    Status(status::Status),
    /// Federation: test a partner, print our card, look at the watch list.
    Federation(federation::Federation),
    /// The Access Edge: who is connected.
    Access(access::Access),
    Trace(trace::Trace),
    /// Audio and video: media credentials.
    Av(av::Av),
    /// Web conferences: sessions, agents, admissions, tokens.
    Webconf(webconf::Webconf),
    /// Ask a running edge what its clients would ask.
    Probe(probe::Probe),
}

/// What a command has to say by its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Done, or yes.
    Good,
    /// No.
    Bad,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let matches = documented(Arguments::command()).get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let mut out = io::stdout().lock();
    match run(arguments, &mut out).and_then(|verdict| Ok(out.flush().map(|()| verdict)?)) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(BAD),
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(UNABLE)
        }
    }
}

/// Every command's help ends with what its exit status means.
fn documented(command: clap::Command) -> clap::Command {
    command.after_help(EXIT_CODES).mut_subcommands(documented)
}

fn run(arguments: Arguments, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let global = arguments.global;
    match arguments.command {
        Command::Init(init) => init.run(&global, out),
        Command::Check(check) => check.run(&global, out),
        Command::Explain(explain) => explain.run(out),
        Command::Schema => {
            writeln!(out, "{:#}", config::schema())?;
            Ok(Verdict::Good)
        }
        Command::Render(render) => render.run(&global, out),
        Command::Apply(apply) => apply.run(&global, out),
        Command::Status(status) => status.run(&global, out),
        Command::Federation(federation) => federation.run(&global, out),
        Command::Access(access) => access.run(&global, out),
        Command::Trace(trace) => trace.run(&global, out),
        Command::Av(av) => av.run(&global, out),
        Command::Webconf(webconf) => webconf.run(&global, out),
        Command::Probe(probe) => probe.run(&global, out),
    }
}

impl Global {
    /// The checked configuration, without warnings: `edgectl check` tells those.
    fn load(&self) -> anyhow::Result<Config> {
        match Config::load(&self.config, self.node.as_deref()) {
            Ok((config, _)) => Ok(config),
            Err(findings) => {
                let errors: Vec<_> = findings.iter().filter(|one| one.is_error()).collect();
                let file = self.config.display();
                anyhow::ensure!(
                    self.config.is_file(),
                    "{file} cannot be read; `edgectl init` makes a configuration, --config names another"
                );
                let first = errors.first().map_or("", |first| first.message.as_str());
                anyhow::bail!(
                    "{file}: {first}{}; `edgectl --config {file} check` tells the place and the remedy",
                    if errors.len() > 1 {
                        format!(" (and {} more)", errors.len() - 1)
                    } else {
                        String::new()
                    },
                )
            }
        }
    }

    /// Where relative paths of the configuration begin.
    fn base(&self) -> PathBuf {
        match self.config.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        }
    }
}

fn now() -> UnixTime {
    edge_common::run::now().unix
}

/// "60 s" or "60s", as in the configuration.
fn duration(text: &str) -> Result<Duration, String> {
    config::units::parse_duration(text).map_err(|error| error.to_string())
}

/// A file's text, with its name in the error.
fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[expect(
    clippy::print_stderr,
    reason = "this is where errors of the command line go"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("edgectl: {error:#}");
}

/// The exit status of a no.
const BAD: u8 = 1;

/// The exit status of what could not be done.
const UNABLE: u8 = 3;

const EXIT_CODES: &str = "\
Exit status:
  0  done, or the answer is yes
  1  the answer is no: errors were found, a daemon is not ready, a probe was refused
  2  the command line is wrong
  3  it could not be done: a file, a socket or a program is missing";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_help_tells_the_exit_status() {
        documented(Arguments::command()).debug_assert();
        for words in [
            &["check"][..],
            &["apply", "firewall"],
            &["av", "credentials"],
            &["federation", "test"],
            &["federation", "card"],
            &["federation", "watch"],
            &["access", "connections"],
            &["trace"],
        ] {
            let line = ["edgectl"].iter().chain(words).chain(&["--help"]);
            let help = documented(Arguments::command())
                .try_get_matches_from(line)
                .unwrap_err();
            assert!(
                help.to_string().contains("3  it could not be done"),
                "{help}"
            );
        }
    }
}

//! Puts the packet filter into the kernel by the program `nft`, and takes it back when nobody confirms.
//!
//! ```text
//!   plan ─► differences? ─no─► nothing to do
//!              │yes
//!              ├─ keep the table that stands there, start the guard ─┐ only with a time to confirm
//!              └─ one transaction: nft -j -f -                       │
//!                                                                    ▼
//!                              confirmed in time: the guard ends   else: it loads the old table again
//! ```
//!
//! The guard is a process of its own session: it outlives the terminal that the new rules may have cut off.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::firewall::diff::{self, Difference, Held};
use crate::firewall::{Ruleset, TABLE, json};

/// The program that speaks with the kernel.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
}

impl Default for Nft {
    fn default() -> Self {
        Self {
            program: "nft".into(),
        }
    }
}

/// Why nft did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It cannot be started.
    #[error("{}: {error} (is the package nftables installed?)", program.display())]
    Start {
        /// What was to be started.
        program: PathBuf,
        /// Why it was not.
        error: io::Error,
    },
    /// It said no; nothing has changed, as a document is one transaction.
    #[error("nft {arguments}: {message}")]
    Refused {
        /// How it was called.
        arguments: String,
        /// What it said.
        message: String,
    },
    /// It could not be spoken to.
    #[error("nft {arguments}: {error}")]
    Pipe {
        /// How it was called.
        arguments: String,
        /// What went wrong.
        error: io::Error,
    },
    /// It answered with something else than JSON, or we could not write any.
    #[error("nft's JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Nft {
    /// Another program than the `nft` of the search path.
    #[must_use]
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// Loads the rules in the place of what the table holds, all or nothing.
    ///
    /// # Errors
    /// What nft says.
    pub fn load(&self, ruleset: &Ruleset) -> Result<(), NftError> {
        let document = json::replace(ruleset)?.to_string();
        self.run(&["-j", "-f", "-"], &document).map(drop)
    }

    /// Asks nft whether it would take these rules.
    ///
    /// # Errors
    /// What nft says.
    pub fn check(&self, ruleset: &Ruleset) -> Result<(), NftError> {
        let document = json::replace(ruleset)?.to_string();
        self.run(&["-c", "-j", "-f", "-"], &document).map(drop)
    }

    /// What the table holds now.
    ///
    /// # Errors
    /// What nft says; a table that does not exist is no error.
    pub fn held(&self) -> Result<Held, NftError> {
        let tables: Value =
            serde_json::from_str(&self.run(&["-j", "list", "tables", "inet"], "")?)?;
        let exists = tables["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|object| object["table"]["name"] == TABLE);
        if !exists {
            return Ok(Held::default());
        }
        Ok(Held {
            json: Some(serde_json::from_str(
                &self.run(&["-j", "list", "table", "inet", TABLE], "")?,
            )?),
            text: self.run(&["-s", "list", "table", "inet", TABLE], "")?,
        })
    }

    /// Packets and bytes of every named counter.
    ///
    /// # Errors
    /// What nft says.
    pub fn counters(&self) -> Result<BTreeMap<String, Count>, NftError> {
        let answer: Value = serde_json::from_str(
            &self.run(&["-j", "list", "counters", "table", "inet", TABLE], "")?,
        )?;
        Ok(answer["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|object| {
                let counter = object.get("counter")?;
                let count = Count {
                    packets: counter["packets"].as_u64()?,
                    bytes: counter["bytes"].as_u64()?,
                };
                Some((counter["name"].as_str()?.to_owned(), count))
            })
            .collect())
    }

    /// Puts a table back that [`Nft::held`] has read; `None` removes it.
    fn restore(&self, table: Option<&str>) -> Result<(), NftError> {
        let document = format!(
            "add table inet {TABLE}\ndelete table inet {TABLE}\n{}",
            table.unwrap_or_default()
        );
        self.run(&["-f", "-"], &document).map(drop)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String, NftError> {
        let line = || arguments.join(" ");
        let pipe = |error| NftError::Pipe {
            arguments: line(),
            error,
        };
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| NftError::Start {
                program: self.program.clone(),
                error,
            })?;
        // nft reads all of its input before it writes, so one after the other cannot block.
        let written = child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().map_err(pipe)?;
        if !output.status.success() {
            return Err(NftError::Refused {
                arguments: line(),
                message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        written.map_err(pipe)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What a counter has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, headers of the network layer included.
    pub bytes: u64,
}

/// What keeps a table from being changed for good.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// nft says no.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The place for what is pending cannot be used.
    #[error("{}: {error}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// Two changes cannot wait at once.
    #[error(
        "an earlier change still waits; run `edgectl apply firewall --confirm`, or wait until it is taken back"
    )]
    Pending,
    /// Nothing waits.
    #[error("no change waits for confirmation; it may have been taken back already")]
    NothingPending,
    /// Nobody would take the change back.
    #[error("the guard that would take the change back did not start: {0}")]
    Guard(String),
}

/// What is different between the kernel and the plan.
///
/// # Errors
/// What nft says.
pub fn differences(nft: &Nft, ruleset: &Ruleset) -> Result<Vec<Difference>, NftError> {
    Ok(diff::differences(ruleset, &nft.held()?)?)
}

/// A change that waits for someone to say that the host can still be reached.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    /// Tells this change from an earlier one.
    id: String,
    /// The table before, as text; `None`: there was none.
    previous: Option<String>,
    /// Who takes it back.
    guard: u32,
}

/// The place where changes wait; lost with a restart, which loads the configured rules anyway.
#[derive(Clone, Debug)]
pub struct Waiting {
    directory: PathBuf,
}

impl Waiting {
    /// Below this directory, which is made when it is needed.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Keeps what stands in the kernel, starts the guard and loads the rules.
    ///
    /// # Errors
    /// When a change waits already, when the guard does not start, or when nft says no; nothing has changed then.
    pub fn apply(&self, nft: &Nft, ruleset: &Ruleset, within: Duration) -> Result<(), ApplyError> {
        fs::create_dir_all(&self.directory).map_err(self.at_fault(&self.directory))?;
        let held = nft.held()?;
        nft.check(ruleset)?;
        let id = format!("{}-{:?}", std::process::id(), Instant::now());
        let mut pending = Pending {
            id,
            previous: held.json.map(|_| held.text),
            guard: 0,
        };
        self.begin(&pending)?;
        let armed = self.start_guard(&pending.id, within).and_then(|guard| {
            pending.guard = guard;
            self.write(&pending)
        });
        if let Err(error) = armed {
            self.forget();
            return Err(error);
        }
        nft.load(ruleset).map_err(|error| {
            self.forget();
            error.into()
        })
    }

    /// Says that the host can be reached: the rules stay.
    ///
    /// # Errors
    /// When nothing waits.
    pub fn confirm(&self) -> Result<(), ApplyError> {
        // Whoever moves the file away decides; the guard does the same.
        let path = self.file();
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ApplyError::NothingPending)
            }
            Err(error) => Err(ApplyError::State { path, error }),
        }
    }

    /// Says whether a change still waits.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.file().exists()
    }

    /// Says whether a change waits or is just being taken back.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.is_pending() || self.directory.join(REVERTING).exists()
    }

    /// The guard's whole life: says that it is there, waits, and takes the change back unless it was confirmed.
    ///
    /// # Errors
    /// When the old table cannot be loaded again.
    pub fn guard(&self, nft: &Nft, id: &str, within: Duration) -> Result<Outcome, ApplyError> {
        // In a session of its own no terminal can end it. It fails only where it is the leader already.
        rustix::process::setsid().ok();
        let deadline = Instant::now() + within;
        let mut out = io::stdout();
        writeln!(out, "{READY}")
            .and_then(|()| out.flush())
            .map_err(|error| ApplyError::Guard(error.to_string()))?;
        while Instant::now() < deadline {
            if self.read().is_none_or(|pending| pending.id != id) {
                return Ok(Outcome::Confirmed);
            }
            thread::sleep(GUARD_TICK.min(deadline.saturating_duration_since(Instant::now())));
        }
        self.take_back(nft, id)
    }

    fn take_back(&self, nft: &Nft, id: &str) -> Result<Outcome, ApplyError> {
        let Some(pending) = self.read().filter(|pending| pending.id == id) else {
            return Ok(Outcome::Confirmed);
        };
        let taken = self.directory.join(REVERTING);
        if fs::rename(self.file(), &taken).is_err() {
            return Ok(Outcome::Confirmed);
        }
        // Between the two a confirmation and a new change may have come.
        if read(&taken).is_none_or(|moved| moved.id != id) {
            fs::rename(&taken, self.file()).map_err(self.at_fault(&taken))?;
            return Ok(Outcome::Confirmed);
        }
        nft.restore(pending.previous.as_deref())?;
        fs::remove_file(&taken).map_err(self.at_fault(&taken))?;
        Ok(Outcome::TakenBack)
    }

    fn start_guard(&self, id: &str, within: Duration) -> Result<u32, ApplyError> {
        let fault = |error: io::Error| ApplyError::Guard(error.to_string());
        let mut child = Command::new(std::env::current_exe().map_err(fault)?)
            .args(["apply", "guard", "--id", id, "--within"])
            .arg(format!("{} ms", within.as_millis()))
            .arg("--run-directory")
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(fault)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(fault)?;
        }
        if line.trim() == READY {
            return Ok(child.id());
        }
        let status = child.wait().map_err(fault)?;
        Err(ApplyError::Guard(status.to_string()))
    }

    fn begin(&self, pending: &Pending) -> Result<(), ApplyError> {
        let path = self.file();
        let text = serde_json::to_vec(pending).map_err(NftError::from)?;
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path);
        match file.and_then(|mut file| file.write_all(&text)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ApplyError::Pending),
            Err(error) => Err(ApplyError::State { path, error }),
        }
    }

    /// In one step, because the guard reads it all the time.
    fn write(&self, pending: &Pending) -> Result<(), ApplyError> {
        let text = serde_json::to_vec(pending).map_err(NftError::from)?;
        let fresh = self.directory.join("pending.new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, self.file()))
            .map_err(self.at_fault(&fresh))
    }

    fn read(&self) -> Option<Pending> {
        read(&self.file())
    }

    fn forget(&self) {
        // Nothing was changed; a file that stays would only make the next change wait.
        fs::remove_file(self.file()).ok();
    }

    fn file(&self) -> PathBuf {
        self.directory.join("pending.json")
    }

    #[expect(clippy::unused_self, reason = "reads as a word of the type")]
    fn at_fault(&self, path: &Path) -> impl FnOnce(io::Error) -> ApplyError {
        let path = path.to_owned();
        |error| ApplyError::State { path, error }
    }
}

fn read(file: &Path) -> Option<Pending> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// What became of a change that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stays.
    Confirmed,
    /// The old table is back.
    TakenBack,
}

/// The members of one of systemd's groups of system calls, for [`crate::systemd::allowed_system_calls`].
///
/// # Errors
/// When `systemd-analyze` is not there or does not know the group.
pub fn system_call_group(group: &str) -> io::Result<Vec<String>> {
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager", group])
        .output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!(
            "systemd-analyze syscall-filter {group}: {message}"
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .map(str::trim)
        .filter(|word| !word.is_empty() && !word.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

/// How often the guard looks.
const GUARD_TICK: Duration = Duration::from_millis(100);

/// A pending change that the guard has taken into its hands.
const REVERTING: &str = "reverting.json";

/// The guard's one line.
const READY: &str = "ready";

#[cfg(test)]
mod tests {
    use edge_common::config;

    use super::*;
    use crate::firewall::{self, Users, text};
    use crate::fixture;
    use crate::netns::in_namespace;

    fn plan() -> Ruleset {
        firewall::ruleset(
            &fixture::single(),
            Users {
                webconf: Some(1234),
            },
        )
    }

    const EXAMPLES: [(&str, &str); 4] = [
        ("single", include_str!("../examples/single.toml")),
        ("nat", include_str!("../examples/nat.toml")),
        ("scaled", include_str!("../examples/scaled.toml")),
        (
            "federation-only",
            include_str!("../examples/federation-only.toml"),
        ),
    ];

    #[test]
    fn the_kernel_lists_what_the_text_says_and_differs_in_nothing() {
        in_namespace(|| {
            let nft = Nft::default();
            let before = differences(&nft, &plan()).unwrap();
            assert!(
                before.len() > plan().rules.len(),
                "an empty kernel lacks everything: {before:?}"
            );
            for (example, config) in EXAMPLES {
                let config = config::check(config, None)
                    .config
                    .or_else(|| config::check(config, Some("edge1")).config);
                let plan = firewall::ruleset(
                    &config.unwrap(),
                    Users {
                        webconf: Some(1234),
                    },
                );
                nft.load(&plan).unwrap();
                assert_eq!(nft.held().unwrap().text, text::table(&plan), "{example}");
                assert_eq!(differences(&nft, &plan).unwrap(), [], "{example}");
                nft.run(&["-c", "-f", "-"], &text::table(&plan)).unwrap();
            }
        });
    }

    #[test]
    fn networks_that_touch_are_listed_as_they_were_loaded() {
        in_namespace(|| {
            let nft = Nft::default();
            let mut config = fixture::single();
            let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
            config.internal.networks = [
                "10.10.0.0/16",
                "10.11.0.0/16",
                "10.12.0.0/16",
                "172.16.5.9/32",
                "fd00::/64",
            ]
            .map(net)
            .into();
            config.internal.next_hop_addresses =
                vec!["10.10.0.50".parse().unwrap(), "10.10.0.51".parse().unwrap()];
            config.firewall.management[0].from = vec![net("0.0.0.0/0"), net("fd00::/64")];
            config.firewall.management[0].tcp = vec![2222, 22, 22];
            let plan = firewall::ruleset(&config, Users::default());
            nft.load(&plan).unwrap();
            assert_eq!(nft.held().unwrap().text, text::table(&plan));
            assert_eq!(differences(&nft, &plan).unwrap(), []);
        });
    }

    #[test]
    fn every_kind_of_difference_is_told_by_the_name_of_the_rule() {
        in_namespace(|| {
            let (nft, plan) = (Nft::default(), plan());
            let mut other = plan.clone();
            let changed = other
                .rules
                .iter_mut()
                .find(|rule| rule.name == "in/echo")
                .unwrap();
            changed.action = firewall::Action::Drop;
            other.rules.retain(|rule| rule.name != "av/int/mras/ip4");
            nft.load(&other).unwrap();
            nft.run(
                &[
                    "add", "rule", "inet", TABLE, "input", "tcp", "dport", "23", "accept",
                ],
                "",
            )
            .unwrap();

            let told: Vec<String> = differences(&nft, &plan)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect();
            let told = told.join("\n");
            assert!(told.contains("+ counter av/int/mras"), "{told}");
            assert!(
                told.contains("+ rule av/int/mras/ip4: iifname \"int\""),
                "{told}"
            );
            assert!(told.contains("- rule in/echo: icmp type echo-request limit rate 10/second counter name \"in/echo\" drop"), "{told}");
            assert!(told.contains("+ rule in/echo: icmp type echo-request limit rate 10/second counter name \"in/echo\" accept"), "{told}");
            assert!(told.contains("- rule without a name"), "{told}");
            assert_eq!(told.lines().count(), 5, "{told}");

            let mut swapped = plan.clone();
            let first = swapped
                .rules
                .iter()
                .position(|rule| rule.name == "in/icmp")
                .unwrap();
            swapped.rules.swap(first, first + 1);
            nft.load(&swapped).unwrap();
            let order = Difference::Order {
                chain: "input".into(),
            };
            assert_eq!(differences(&nft, &plan).unwrap(), [order]);
        });
    }

    #[test]
    fn one_bad_rule_leaves_the_old_table_untouched_and_nft_says_why() {
        in_namespace(|| {
            let (nft, plan) = (Nft::default(), plan());
            nft.load(&plan).unwrap();
            let mut bad = plan.clone();
            bad.rules[0]
                .matches
                .push(firewall::Match::Icmp(&["no-such-type"]));
            let error = nft.load(&bad).unwrap_err().to_string();
            assert!(error.contains("Could not parse ICMP type"), "{error}");
            assert_eq!(differences(&nft, &plan).unwrap(), []);
        });
    }

    #[test]
    fn other_tables_are_left_alone() {
        in_namespace(|| {
            let nft = Nft::default();
            nft.run(&["add", "table", "ip", "neighbour"], "").unwrap();
            nft.load(&plan()).unwrap();
            let tables = nft.run(&["list", "tables"], "").unwrap();
            assert_eq!(tables, "table ip neighbour\ntable inet edge\n");
        });
    }

    #[test]
    fn a_missing_nft_is_named() {
        let error = Nft::at("/nowhere/nft").held().unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/nft") && error.contains("nftables"),
            "{error}"
        );
    }
}

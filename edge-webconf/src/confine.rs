//! What the kernel keeps the daemon from, from the moment when all its sockets are open.
//!
//! ```text
//!   landlock   no TCP connection is opened, nothing is run, nothing is written but below the directories given
//!   seccomp    no socket is made but of AF_UNIX: no UDP, no TCP, nothing else; no io_uring, which is not filtered
//! ```
//!
//! The code of the edge never dials; this is for code that is not ours any more. Where the kernel lacks one of them the
//! daemon says so and goes on: the unit's settings and the firewall, which knows the daemon by its user, stand in any
//! case. Both hold for the whole process, for ever, and for everything that it could run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// By landlock: whole, in part (an older kernel), or why not at all.
    pub landlock: Result<Extent, String>,
    /// By seccomp, or why not.
    pub seccomp: Result<(), String>,
}

/// How much of what was asked for the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// It is older than TCP rules, or than some right to files.
    Part,
}

/// Confines the process; it may go on writing below `writable` only. It has to have one thread: landlock holds for those
/// that are made later.
#[must_use]
pub fn confine(writable: &[PathBuf]) -> Confined {
    Confined {
        landlock: landlock(writable),
        seccomp: seccomp(),
    }
}

fn landlock(writable: &[PathBuf]) -> Result<Extent, String> {
    let changes = AccessFs::from_write(FULL) | AccessFs::Execute;
    let there: Vec<&Path> = writable.iter().map(PathBuf::as_path).collect();
    let enforce = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(changes)?
            .handle_access(AccessNet::ConnectTcp)?
            .create()?
            .add_rules(path_beneath_rules(there, AccessFs::from_write(FULL)))?
            .restrict_self()
    };
    match enforce() {
        Ok(status) => match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(Extent::Whole),
            RulesetStatus::PartiallyEnforced => Ok(Extent::Part),
            RulesetStatus::NotEnforced => Err("the kernel has none".to_owned()),
        },
        Err(error) => Err(error.to_string()),
    }
}

fn seccomp() -> Result<(), String> {
    let program = program().map_err(|error| error.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let foreign = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Ne,
        u64::from(libc::AF_UNIX.unsigned_abs()),
    )?;
    let rules = BTreeMap::from([
        (libc::SYS_socket, vec![SeccompRule::new(vec![foreign])?]),
        (libc::SYS_io_uring_setup, Vec::new()),
    ]);
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
}

/// The newest that is asked for; an older kernel gives what it has.
const FULL: ABI = ABI::V5;

//! What is rendered for each example, against the files under `golden/` and `systemd/`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p edge-deploy --test golden` writes them anew; what changed is then in the diff
//! that is reviewed.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its files has failed"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use edge_common::config::{self, Config};
use edge_deploy::firewall::{Users, json, text};
use edge_deploy::network::{networkd, script};
use edge_deploy::plan::{Document, Plan};
use edge_deploy::systemd::{self, Paths};
use edge_deploy::{apply, dns};

const EXAMPLES: [(&str, Option<&str>); 4] = [
    ("single", None),
    ("nat", None),
    ("scaled", Some("edge1")),
    ("federation-only", None),
];

/// A user that every rendering here knows.
const USERS: Users = Users { webconf: Some(990) };

fn load(example: &str, node: Option<&str>) -> Config {
    let file = here(&format!("examples/{example}.toml"));
    let checked = config::check(&fs::read_to_string(&file).unwrap(), node);
    checked
        .config
        .unwrap_or_else(|| panic!("{example}: {:?}", checked.findings))
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares, or writes when asked to. Files that nobody renders any more are told as well.
fn compare(directory: &Path, documents: &[Document]) {
    let rendered: BTreeMap<PathBuf, &str> = documents
        .iter()
        .map(|document| (directory.join(&document.path), document.text.as_str()))
        .collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        if directory.exists() {
            fs::remove_dir_all(directory).unwrap();
        }
        for (path, text) in &rendered {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        return;
    }
    for (path, text) in &rendered {
        let golden =
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            golden == *text,
            "{} is not what is rendered:\n{text}",
            path.display()
        );
    }
    for path in files_below(directory) {
        assert!(
            rendered.contains_key(&path),
            "{} is not rendered any more",
            path.display()
        );
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_example_renders_to_its_golden_files() {
    for (example, node) in EXAMPLES {
        let config = load(example, node);
        let plan = Plan::new(&config, USERS, &Paths::default());
        let mut documents = vec![
            Document {
                path: "edge.nft".into(),
                text: text::table(&plan.firewall),
            },
            Document {
                path: "edge.nft.json".into(),
                text: format!("{:#}\n", json::replace(&plan.firewall).unwrap()),
            },
            Document {
                path: "edge-network.sh".into(),
                text: script::script(&plan.network),
            },
        ];
        documents.extend(networkd::files(&plan.network));
        documents.extend(dns::files(&config));
        compare(&here("golden").join(example), &documents);
    }
}

#[test]
fn the_packaged_units_are_those_of_the_single_edge() {
    let config = load("single", None);
    let mut documents: Vec<Document> = systemd::units(&config, &Paths::default())
        .into_iter()
        .map(|unit| Document {
            path: unit.name.into(),
            text: unit.text,
        })
        .collect();
    documents.push(Document {
        path: "sysusers.d/edge.conf".into(),
        text: systemd::users(&config),
    });
    compare(&here("systemd"), &documents);
}

/// systemd's own judgement: 0 is locked up, 10 is unprotected.
#[test]
fn every_unit_is_exposed_by_two_at_most() {
    let files = files_below(&here("systemd")).into_iter();
    for unit in files.filter(|file| file.extension().is_some_and(|ending| ending == "service")) {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
            .arg(&unit)
            .output()
            .unwrap_or_else(|error| panic!("systemd-analyze (tests/setup.sh brings it): {error}"));
        assert!(
            output.status.success(),
            "{}:\n{}{}",
            unit.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_allowed_system_calls_are_what_daemons_need_and_no_more() {
    let allowed = systemd::allowed_system_calls(apply::system_call_group)
        .unwrap_or_else(|error| panic!("systemd-analyze (tests/setup.sh brings it): {error}"));
    for needed in [
        "read",
        "epoll_wait",
        "accept4",
        "sendmmsg",
        "recvmmsg",
        "futex",
        "getrandom",
        "execve",
    ] {
        assert!(allowed.contains(needed), "{needed} is missing");
    }
    for dangerous in [
        "bpf",
        "chroot",
        "setuid",
        "sched_setaffinity",
        "mount",
        "ptrace",
        "init_module",
        "reboot",
    ] {
        assert!(!allowed.contains(dangerous), "{dangerous} is allowed");
    }
}

//! The pure halves of the crates stay pure: no tokio in them, and the deny line at their head.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn no_pure_half_depends_on_tokio() {
    for member in ["edge-common", "edge-access", "edge-webconf", "edge-av"] {
        let tree = Command::new(env!("CARGO"))
            .current_dir(root())
            .args([
                "tree",
                "-p",
                member,
                "--no-default-features",
                "-e",
                "normal",
                "--offline",
            ])
            .args(["--prefix", "none", "--format", "{p}"])
            .output()
            .expect("cargo tree");
        let text = String::from_utf8_lossy(&tree.stdout);
        assert!(
            tree.status.success(),
            "{}",
            String::from_utf8_lossy(&tree.stderr)
        );
        assert!(text.starts_with(member), "cargo tree printed {text:?}");
        let found: Vec<_> = text
            .lines()
            .filter(|line| FORBIDDEN.contains(&line.split(' ').next().unwrap_or_default()))
            .collect();
        assert!(
            found.is_empty(),
            "{member} without its `io` feature holds {found:?}"
        );
    }
}

#[test]
fn every_module_that_is_not_declared_io_begins_with_the_deny_line() {
    let declared = declared();
    let mut missing = Vec::new();
    let mut pure = 0;
    for file in sources() {
        if declared.iter().any(|entry| covers(entry, &file)) {
            continue;
        }
        pure += 1;
        // A lint level holds for the modules below as well.
        if !std::iter::once(file.clone())
            .chain(ancestors(&file))
            .any(|file| is_denied(&file))
        {
            missing.push(file);
        }
    }
    assert!(pure > 20, "only {pure} pure modules: the walk is broken");
    assert!(
        missing.is_empty(),
        "neither on {IO_LIST} nor beginning with the deny line:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_list_of_io_modules_names_only_what_exists() {
    let sources = sources();
    for entry in declared() {
        let used = sources.iter().any(|file| covers(&entry, file));
        assert!(used, "{IO_LIST} names {entry}, which covers no file");
    }
}

/// The files that may hold the modules around `file`, from the inside out; `lib.rs` is none of them,
/// as it names io modules too.
fn ancestors(file: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut place = Path::new(file);
    while let Some(parent) = place.parent().filter(|parent| !parent.ends_with("src")) {
        found.push(parent.join("mod.rs"));
        found.push(parent.with_extension("rs"));
        place = parent;
    }
    found
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

/// Only documents and blank lines may stand before the line.
fn is_denied(file: &str) -> bool {
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("//"))
        .is_some_and(|line| line == DENY_LINE)
}

/// An entry is a file, or a folder with a slash at its end.
fn covers(entry: &str, file: &str) -> bool {
    file == entry || (entry.ends_with('/') && file.starts_with(entry))
}

fn declared() -> Vec<String> {
    let text = fs::read_to_string(root().join(IO_LIST)).expect(IO_LIST);
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Every source file of the library crates, relative to the workspace, sorted.
fn sources() -> Vec<String> {
    let mut files = Vec::new();
    for member in [
        "edge-common",
        "edge-access",
        "edge-webconf",
        "edge-av",
        "deploy",
    ] {
        walk(&root().join(member).join("src"), &mut files);
    }
    let mut files: Vec<String> = files
        .iter()
        .filter_map(|path| path.strip_prefix(root()).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    files.sort();
    files
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the workspace")
}

const FORBIDDEN: [&str; 5] = ["tokio", "hyper", "hickory-resolver", "socket2", "mio"];
const IO_LIST: &str = "tests/io-modules.txt";
const DENY_LINE: &str =
    "#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]";

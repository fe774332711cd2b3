//! Runs the lab as a user would: the release program, the whole demo, and looks at its rows.
//!
//! It takes minutes and needs root or user namespaces, so it is run on its own:
//! `cargo test -p edge-tests --test lab -- --ignored` (`make lab`).

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
#[ignore = "takes minutes; `make lab` builds the release programs and runs it"]
fn every_row_of_the_demo_passes() {
    let program = release_program();
    let results = tempfile::NamedTempFile::new().expect("a file for the results");
    let status = Command::new(&program)
        .args(["run", "--json"])
        .arg(results.path())
        .status()
        .unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
    let rows = rows(results.path());
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| row.get("pass").and_then(Value::as_bool) != Some(true))
        .map(ToString::to_string)
        .collect();
    assert!(
        failed.is_empty(),
        "{} rows failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(
        status.success(),
        "all rows passed, yet edge-lab ended with {status}"
    );
    for step in [
        "0", "1", "1w", "2", "2n", "3", "4", "5", "6", "7", "8", "9", "o", "u",
    ] {
        let shown = rows
            .iter()
            .any(|row| row.get("step").and_then(Value::as_str) == Some(step));
        assert!(shown, "step {step} was not shown");
    }
}

/// `make bins` builds it; a test program of cargo stands in another profile's directory.
fn release_program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let program = target.join("release/edge-lab");
    assert!(
        program.exists(),
        "{program:?} is not there: run `cargo build --release --workspace --bins` first"
    );
    program
}

fn rows(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("the results");
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("edge-lab left no results ({error}): {text:?}"));
    report
        .get("rows")
        .and_then(Value::as_array)
        .expect("rows")
        .clone()
}

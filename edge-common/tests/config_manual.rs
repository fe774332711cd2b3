//! `docs/configuration.md` says what the program does.
//!
//! `UPDATE_GOLDEN=1 cargo test -p edge-common --test config_manual` writes it anew.

use std::fs;
use std::path::Path;

use edge_common::config::manual::manual;
use edge_common::config::{catalogue, schema};
use edge_common::ports::TABLE;

#[test]
fn the_manual_is_the_one_that_the_program_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let written = manual();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("docs/");
        fs::write(&path, &written).expect("written");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = golden
        .lines()
        .zip(written.lines())
        .position(|(old, new)| old != new);
    assert!(
        golden == written,
        "docs/configuration.md differs from line {} on; UPDATE_GOLDEN=1 writes it anew",
        differs.unwrap_or_else(|| golden.lines().count().min(written.lines().count())) + 1
    );
}

#[test]
fn nothing_is_left_out_of_the_manual() {
    let manual = manual();
    for rule in catalogue() {
        assert!(manual.contains(&format!("### {}", rule.id)), "{}", rule.id);
    }
    for row in TABLE {
        assert!(manual.contains(&format!("`{}`", row.id)), "{}", row.id);
    }
    fn keys(schema: &serde_json::Value, told: &mut dyn FnMut(&str, &str)) {
        for (name, key) in schema["properties"].as_object().into_iter().flatten() {
            told(name, key["description"].as_str().unwrap_or_default());
            keys(key, told);
            keys(&key["items"], told);
        }
    }
    keys(&schema(), &mut |name, description| {
        assert!(!description.is_empty(), "{name} has no description");
        assert!(
            manual.contains(&format!("`{name}`")) || manual.contains(name),
            "{name}"
        );
        assert!(
            !description.contains('|') && !description.contains('\n'),
            "{name} breaks its row: {description:?}"
        );
    });
}

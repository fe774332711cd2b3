//! Plays every script of `tests/scenarios` and tells where the edge differs from one.

use std::fs;
use std::path::Path;
use std::time::Instant;

#[test]
fn the_edge_does_what_each_scenario_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(&folder).expect("the folder of the scenarios");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sip"));
    assert!(files.len() >= 12, "only {} scenarios", files.len());
    let mut failed = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a script");
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Err(mismatch) = edge_tests::scenario::play(&text, Instant::now()) {
            failed.push(format!("tests/scenarios/{name}:{mismatch}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} scenarios:\n{}",
        failed.len(),
        files.len(),
        failed.join("\n\n")
    );
}

#[test]
fn a_script_that_says_something_else_is_told_with_its_line() {
    let script = "alice is a client at 192.0.2.10:51034\ndirector is the next hop\n\n\
        alice -> edge REGISTER sip:contoso.test\n";
    let play = |more: &str| {
        let played = edge_tests::scenario::play(&format!("{script}{more}"), Instant::now());
        played.map_err(|mismatch| mismatch.line)
    };
    assert_eq!(play("edge -> director REGISTER sip:contoso.test\n"), Ok(4));
    assert_eq!(play("edge -> director OPTIONS sip:contoso.test\n"), Err(5));
    assert_eq!(play("edge -> director REGISTER *\n    no Path\n"), Err(5));
    assert_eq!(play("edge -> alice 200 OK\n"), Err(5));
    assert_eq!(play(""), Err(4), "what the edge did is not in the script");
    assert_eq!(play("what is this\n"), Err(5));
}

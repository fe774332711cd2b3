//! The edge takes connections in and opens none: whatever a client sends, nothing in the daemon can
//! be talked into connecting somewhere.

use std::path::{Path, PathBuf};

/// What opens a connection, in this workspace and below it.
const DIALS: [&str; 7] = [
    "net::dial",
    "TcpStream::connect",
    "TcpSocket",
    "UdpSocket",
    "UnixStream",
    "lookup_host",
    ".connect(",
];

#[test]
fn nothing_in_the_daemon_opens_a_connection() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut looked_at, mut agent_dials) = (0, false);
    for file in rust_files(&source) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let code: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let dials = DIALS
            .iter()
            .find(|dial| code.iter().any(|line| line.contains(**dial)));
        if file.starts_with(source.join("agent")) {
            agent_dials |= dials.is_some();
            continue;
        }
        // The program next to a client outside, which no edge host has.
        if file.starts_with(source.join("join")) || file.ends_with("bin/edge-join.rs") {
            continue;
        }
        looked_at += 1;
        assert_eq!(dials, None, "{}", file.display());
    }
    // The words are those that code of ours really dials with, and the daemon was really read.
    assert!(agent_dials);
    assert!(looked_at > 20, "{looked_at} files");
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}

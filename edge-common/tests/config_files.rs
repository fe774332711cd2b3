//! Loading, and the files that a configuration names.
#![cfg(feature = "io")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use edge_common::config::reload;
use edge_common::config::{Config, Content, files, rule};
use tempfile::TempDir;

const SINGLE: &str = include_str!("../../deploy/examples/single.toml");

/// A directory with the example and every file it names.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        host.write("edge.toml", SINGLE);
        for file in host.config().named_files() {
            fs::create_dir_all(file.path.parent().expect("a directory")).expect("created");
            fs::write(&file.path, "something").expect("written");
            mode(
                &file.path,
                if file.content == Content::Private {
                    0o640
                } else {
                    0o644
                },
            );
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn config(&self) -> Config {
        Config::load(&self.path("edge.toml"), None)
            .expect("the example passes")
            .0
    }

    /// Which rule is broken, at which key.
    fn faults(&self) -> Vec<(rule::RuleId, String)> {
        files::look_at(&self.config(), SINGLE)
            .into_iter()
            .map(|finding| (finding.id, finding.key))
            .collect()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

#[test]
fn relative_paths_start_at_the_directory_of_the_file() {
    let host = Host::new();
    let config = host.config();
    assert_eq!(config.internal.ca, host.path("certs/inside-ca.pem"));
    assert_eq!(
        config.array.secrets.current,
        host.path("secrets/array.current")
    );

    let mut moved = config.clone();
    moved.rebase(Path::new("/elsewhere"));
    assert_eq!(moved, config, "absolute paths stay");
}

#[test]
fn every_fault_of_a_named_file_is_told_at_its_key() {
    let host = Host::new();
    assert_eq!(host.faults(), []);

    fs::remove_file(host.path("certs/inside-ca.pem")).expect("removed");
    fs::remove_file(host.path("certs/webconf.pem")).expect("removed");
    fs::create_dir(host.path("certs/webconf.pem")).expect("created");
    host.write("certs/av.pem", "");
    mode(&host.path("certs/access.key"), 0o644);
    mode(&host.path("secrets/array.current"), 0o660);
    let told = |id, key: &str| (id, key.to_owned());
    assert_eq!(
        host.faults(),
        [
            told(rule::FILE_MISSING, "internal.ca"),
            told(rule::SECRET_OPEN, "array.secrets.current"),
            told(rule::SECRET_OPEN, "access.certificates[0].key"),
            told(rule::FILE_IRREGULAR, "webconf.certificates[0].chain"),
            told(rule::FILE_EMPTY, "av.certificates[0].chain"),
        ]
    );
    let place = files::look_at(&host.config(), SINGLE)[0]
        .place
        .expect("a place");
    assert!(
        SINGLE
            .lines()
            .nth(place.line - 1)
            .expect("a line")
            .starts_with("ca = "),
        "{place}"
    );

    mode(&host.path("certs/access.key"), 0o600);
    mode(&host.path("secrets/array.current"), 0o640);
    assert!(
        host.faults().iter().all(|(id, _)| *id != rule::SECRET_OPEN),
        "owner and group may read"
    );
}

#[test]
fn a_file_is_loaded_as_a_whole_or_not_at_all() {
    let host = Host::new();
    let path = host.path("edge.toml");
    let (_, warnings) = Config::load(&path, Some("edge1")).expect("the example passes");
    assert_eq!(
        warnings
            .iter()
            .map(|finding| finding.id)
            .collect::<Vec<_>>(),
        [rule::LAB]
    );

    host.write(
        "edge.toml",
        &SINGLE.replace("\"evil.test\"", "\"contoso.test\""),
    );
    let refused = Config::load(&path, None).expect_err("a blocked domain of ours");
    assert!(
        refused
            .iter()
            .any(|finding| finding.id == rule::BLOCKED_OURS)
    );

    fs::remove_file(&path).expect("removed");
    let refused = Config::load(&path, None).expect_err("no file");
    assert_eq!(refused[0].id, rule::CONFIG_UNREADABLE);
}

#[test]
fn what_is_no_text_is_refused_without_reading_all_of_it() {
    let host = Host::new();
    fs::write(host.path("bytes"), [0xff, 0xfe, 0]).expect("written");
    assert_eq!(
        reload::read(&host.path("bytes")).expect_err("no UTF-8").id,
        rule::CONFIG_UNREADABLE
    );
    assert_eq!(
        reload::read(host.directory.path())
            .expect_err("a directory")
            .id,
        rule::CONFIG_UNREADABLE
    );
    let endless = Config::load(Path::new("/dev/zero"), None).expect_err("no configuration");
    assert_eq!(endless[0].id, rule::FILE_TOO_LARGE);
}

//! What operators decided on discovered partners, and who is suspicious, kept over a restart.
//!
//! One JSON object a line in `STATE/edge-access/watch.jsonl`; a line that is not understood is left out and told.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use edge_common::cert::identity::CertificateId;
use edge_common::time::UnixTime;
use serde_json::{Value, json};

use crate::proxy::meter::Mode;
use crate::proxy::watch::Kept;

/// The file, and how much of it is read at most.
#[derive(Clone, Debug)]
pub struct WatchFile {
    directory: PathBuf,
    entries_max: usize,
}

impl WatchFile {
    /// In that directory.
    #[must_use]
    pub fn new(directory: &Path, entries_max: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            entries_max,
        }
    }

    /// Reads what an earlier process wrote; nothing, when there is no file.
    #[must_use]
    pub fn read(&self) -> Vec<Kept> {
        let file = self.directory.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the watch list is not read");
                return Vec::new();
            }
        };
        let mut kept = Vec::new();
        for (line, text) in text.lines().take(self.entries_max).enumerate() {
            match serde_json::from_str(text)
                .ok()
                .and_then(|line| parse(&line))
            {
                Some(entry) => kept.push(entry),
                None => {
                    tracing::warn!(file = %file.display(), line = line + 1, "not an entry of the watch list");
                }
            }
        }
        kept
    }

    /// Writes all of it; either the old file is there afterwards or the new one.
    pub fn write(&self, kept: &[Kept]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let fresh = self.directory.join(FRESH);
        let mut file = fs::File::create(&fresh)?;
        for entry in kept {
            writeln!(file, "{}", line(entry))?;
        }
        file.sync_all()?;
        fs::rename(&fresh, self.directory.join(FILE))
    }
}

fn line(kept: &Kept) -> Value {
    json!({
        "issuer": kept.certificate.issuer,
        "serial": kept.certificate.serial,
        "names": kept.names,
        "domains": kept.domains.iter().map(|domain| domain.as_str()).collect::<Vec<_>>(),
        "mode": kept.mode.label(),
        "first_seen": kept.first_seen.as_secs(),
        "suspect_since": kept.suspect_since.map(UnixTime::as_secs),
    })
}

fn parse(line: &Value) -> Option<Kept> {
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let modes = [Mode::Auto, Mode::Allow, Mode::Block];
    let mode = line["mode"].as_str()?;
    Some(Kept {
        certificate: CertificateId {
            issuer: text("issuer")?,
            serial: text("serial")?,
        },
        names: text("names")?,
        domains: line["domains"]
            .as_array()?
            .iter()
            .filter_map(|domain| domain.as_str()?.parse().ok())
            .collect(),
        mode: modes.into_iter().find(|known| known.label() == mode)?,
        first_seen: UnixTime::from_secs(line["first_seen"].as_u64()?),
        suspect_since: line["suspect_since"].as_u64().map(UnixTime::from_secs),
    })
}

const FILE: &str = "watch.jsonl";
const FRESH: &str = "watch.jsonl.new";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_spoilt_line_costs_only_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = WatchFile::new(&directory.path().join("edge-access"), 10);
        assert_eq!(file.read(), []);
        let entry = |serial: &str, mode, suspect_since| Kept {
            certificate: CertificateId {
                issuer: "CN=\"Public\" CA, C=US".to_owned(),
                serial: serial.to_owned(),
            },
            names: "sip.new.test".to_owned(),
            domains: vec!["new.test".parse().expect("lawful")],
            mode,
            first_seen: UnixTime::from_secs(1_790_000_000),
            suspect_since,
        };
        let kept = [
            entry("01", Mode::Block, None),
            entry("02", Mode::Auto, Some(UnixTime::from_secs(1_790_000_100))),
        ];
        file.write(&kept).expect("written");
        assert_eq!(file.read(), kept);
        let path = directory.path().join("edge-access/watch.jsonl");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, format!("what\n{text}")).expect("written");
        assert_eq!(file.read(), kept);
    }
}

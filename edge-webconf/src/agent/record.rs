//! The ledger on disk, so that an agent that starts again admits again what is open, and knows what was used and revoked.
//!
//! ```text
//!   {"number":"1234567890123456789","registration":"mcu1.contoso.internal","uses":1,"expires":1700000060000}
//! ```
//!
//! One line for each number; `expires` is in milliseconds since 1970. Numbers let people in, so only the agent's user
//! may read the file.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use edge_common::private_file::{self, PrivateFileFault};
use edge_common::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::config::AgentConfig;
use super::ledger::{Line, NUMBERS_MAX};
use crate::ewrp::Number;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Noted<'a> {
    number: String,
    /// By name: the file of the agent may list its servers in another order by then. `None`: a token revoked unseen.
    registration: Option<&'a str>,
    uses: u16,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
    expires: u64,
}

/// What was written down; nothing when there is no file yet. Numbers of servers that are not in the file any more are
/// left out.
pub fn read(file: &Path, config: &AgentConfig) -> anyhow::Result<Vec<Line>> {
    let what = || format!("{}: remove it to forget all numbers", file.display());
    let text = match private_file::read(file, FILE_LEN_MAX) {
        Ok(text) => text,
        Err(PrivateFileFault::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(fault) => return Err(fault).with_context(what),
    };
    let mut lines = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        if !line.is_empty() {
            let noted: Noted<'_> = serde_json::from_slice(line).with_context(what)?;
            lines.extend(meaning(&noted, config));
        }
    }
    Ok(lines)
}

fn meaning(noted: &Noted<'_>, config: &AgentConfig) -> Option<Line> {
    let number = noted.number.parse().map(Number).ok()?;
    let place = |name: &str| config.servers.iter().position(|it| *it.name == *name);
    let reg_id = match noted.registration {
        Some(name) => place(name).map(AgentConfig::reg_id),
        None => Some(0),
    };
    // What was revoked stays so, wherever it led.
    let reg_id = reg_id.or_else(|| noted.revoked.then_some(0))?;
    let is_lawful = number.is_admissible() || number.is_of_token();
    is_lawful.then_some(Line {
        number,
        reg_id,
        uses_left: noted.uses,
        revoked: noted.revoked,
        expires: UnixTime::from_millis(noted.expires),
    })
}

/// The content of the file.
#[must_use]
pub fn text(lines: impl Iterator<Item = Line>, config: &AgentConfig) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        let noted = Noted {
            number: line.number.0.to_string(),
            registration: config.server(line.reg_id).map(|server| &*server.name),
            uses: line.uses_left,
            revoked: line.revoked,
            expires: line.expires.as_millis(),
        };
        serde_json::to_writer(&mut text, &noted).expect("text and numbers only");
        text.push(b'\n');
    }
    text
}

/// Writes all of it; either the old file is there afterwards or the new one.
pub fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut to = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY)
        .open(&fresh)?;
    to.set_permissions(fs::Permissions::from_mode(OWNER_ONLY))?;
    to.write_all(text)?;
    to.sync_all()?;
    fs::rename(&fresh, file)
}

const OWNER_ONLY: u32 = 0o600;
/// A full ledger, every name as long as names may be.
const FILE_LEN_MAX: u64 = 400 * NUMBERS_MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ewrp::number::LEAST;

    fn config(servers: &str) -> AgentConfig {
        let text = format!(
            "fqdn = \"mcu1.test\"\ncertificate = {{ chain = \"c\", key = \"k\" }}\nca = \"ca\"\nsocket = \"s\"\n\
             edges = [{{ fqdn = \"edge1.test\" }}]\nservers = [{servers}]\n"
        );
        AgentConfig::check(&text, Path::new("/")).expect("a lawful file")
    }

    const BOTH: &str = "{ name = \"mcu1.test\", target = \"127.0.0.1:1\" }, { name = \"ssh.mcu1.test\", target = \"127.0.0.1:2\" }";
    const OTHER: &str = "{ name = \"ssh.mcu1.test\", target = \"127.0.0.1:2\" }";

    fn line(number: u64, reg_id: u32, revoked: bool) -> Line {
        Line {
            number: Number(number),
            reg_id,
            uses_left: u16::from(!revoked),
            revoked,
            expires: UnixTime::from_millis(1_700_000_060_123),
        }
    }

    #[test]
    fn what_is_written_is_read_and_only_the_owner_may() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("numbers");
        assert_eq!(read(&file, &config(BOTH)).expect("no file"), []);
        let lines = [
            line(LEAST + 1, 1, false),
            line(LEAST + 2, 2, false),
            line(1 << 63, 0, true),
            line(1 << 63 | 1, 1, true),
        ];
        // A left-over of a run that was cut short, open to all.
        fs::write(file.with_extension("new"), "half").expect("written");
        write(&file, &text(lines.into_iter(), &config(BOTH))).expect("written");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!file.with_extension("new").exists());
        assert_eq!(read(&file, &config(BOTH)).expect("lawful"), lines);
        // The servers stand in another order, and one is gone.
        let moved = [
            line(LEAST + 2, 1, false),
            line(1 << 63, 0, true),
            line(1 << 63 | 1, 0, true),
        ];
        assert_eq!(read(&file, &config(OTHER)).expect("lawful"), moved);
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_broken_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("numbers");
        write(&file, b"{\"number\":\"1\"").expect("written");
        assert!(read(&file, &config(BOTH)).is_err());
        write(&file, b"").expect("written");
        assert!(read(&file, &config(BOTH)).is_ok());
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&file, open).expect("changed");
        assert!(read(&file, &config(BOTH)).is_err());
    }
}

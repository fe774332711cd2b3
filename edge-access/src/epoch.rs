//! The number of this run of the process, so that a token of an earlier run names no connection of this one.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Reads the number of the last run from `directory`, writes the next one down and gives it.
///
/// When the last number is not readable the next one is `lot`, which is written down as well: to start anew would give
/// the numbers of earlier runs again, and with them life to their tokens.
pub fn advance(directory: &Path, lot: u16) -> io::Result<u16> {
    let (file, fresh) = (directory.join(FILE), directory.join(FRESH));
    let next = match fs::read(&file) {
        Ok(text) => after(&text).unwrap_or(lot),
        Err(error) if error.kind() == io::ErrorKind::NotFound => lot,
        Err(error) => return Err(error),
    };
    fs::create_dir_all(directory)?;
    let mut written = fs::File::create(&fresh)?;
    written.write_all(format!("{next}\n").as_bytes())?;
    written.sync_all()?;
    // Either the old number or the new one is there, whatever happens in between.
    fs::rename(&fresh, &file)?;
    Ok(next)
}

fn after(last: &[u8]) -> Option<u16> {
    let last: u16 = str::from_utf8(last).ok()?.trim().parse().ok()?;
    Some(last.wrapping_add(1))
}

const FILE: &str = "epoch";
const FRESH: &str = "epoch.new";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_another_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("edge-access");
        assert_eq!(advance(&path, 900).ok(), Some(900), "the first one by lot");
        assert_eq!(advance(&path, 7).ok(), Some(901));
        fs::write(path.join(FILE), "65535\n").expect("written");
        assert_eq!(advance(&path, 7).ok(), Some(0));
    }

    #[test]
    fn a_spoilt_file_gives_a_number_by_lot_and_no_earlier_one() {
        let directory = tempfile::tempdir().expect("a directory");
        for spoilt in [&b""[..], b"what", b"70000", b"-1", b"\xff\xfe", b"1 2"] {
            fs::write(directory.path().join(FILE), spoilt).expect("written");
            assert_eq!(advance(directory.path(), 4711).ok(), Some(4711));
            assert_eq!(advance(directory.path(), 1).ok(), Some(4712));
        }
    }
}

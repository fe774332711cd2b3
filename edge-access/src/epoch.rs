//! The number of this run of the process, so that a token of an earlier run names no connection of this one.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Reads the number of the last run from `directory`, writes the next one down and gives it.
pub fn advance(directory: &Path) -> io::Result<u16> {
    let (file, fresh) = (directory.join(FILE), directory.join(FRESH));
    let last = match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let next = u16::wrapping_add(last, 1);
    fs::create_dir_all(directory)?;
    let mut written = fs::File::create(&fresh)?;
    written.write_all(format!("{next}\n").as_bytes())?;
    written.sync_all()?;
    // Either the old number or the new one is there, whatever happens in between.
    fs::rename(&fresh, &file)?;
    Ok(next)
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
        assert_eq!(advance(&path).ok(), Some(1));
        assert_eq!(advance(&path).ok(), Some(2));
        fs::write(path.join(FILE), "65535\n").expect("written");
        assert_eq!(advance(&path).ok(), Some(0));
        fs::write(path.join(FILE), "what").expect("written");
        assert_eq!(advance(&path).ok(), Some(1), "a spoilt file starts anew");
    }
}

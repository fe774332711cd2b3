//! A TLS client that is not ours: `openssl s_client`.

use super::bounded;
use super::ca::Pair;
use super::netns::Netns;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Whom to dial and what to believe and to show.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// Address of the server.
    pub address: &'a str,
    /// Its port.
    pub port: u16,
    /// The name that its certificate must prove; also sent as SNI.
    pub name: &'a str,
    /// Who must have signed it.
    pub ca: &'a Path,
    /// What we show when asked for a certificate.
    pub pair: Option<&'a Pair>,
}

/// Sends `request` and returns all that came back within `time`, or until the server closed.
///
/// A certificate that does not prove the name is an error; so is a refused connection.
pub fn exchange(netns: &Netns, dial: &Dial<'_>, request: &[u8], time: Duration) -> Result<Vec<u8>> {
    let mut command = client(netns, dial, time);
    let done = bounded::run_with_input(&mut command, request.to_vec(), time + GRACE)?;
    // 124: `timeout` ended it, with everything that it had received on standard output.
    if !done.status.success() && done.status.code() != Some(124) && done.stdout.is_empty() {
        let closed = done.stderr.contains("unexpected eof") || done.stderr.trim().is_empty();
        if !closed {
            anyhow::bail!("openssl s_client: {}", done.stderr.trim());
        }
    }
    Ok(done.stdout)
}

/// Sends the file `upload` and writes what comes back into `download`, until the server closes.
pub fn transfer(
    netns: &Netns,
    dial: &Dial<'_>,
    upload: &Path,
    download: &Path,
    limit: Duration,
) -> Result<()> {
    let mut child = client(netns, dial, limit)
        .stdin(File::open(upload).with_context(|| format!("{upload:?}"))?)
        .stdout(File::create(download).with_context(|| format!("{download:?}"))?)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start openssl")?;
    let ended = bounded::wait(&mut child, limit + GRACE)?;
    if ended.is_none() {
        child.kill().ok();
        child.wait().ok();
    }
    match ended.and_then(|status| status.code()) {
        Some(0 | 1) => Ok(()),
        _ => anyhow::bail!("openssl s_client was not done within {limit:?}"),
    }
}

/// The command, with its ends still free.
pub(super) fn client(netns: &Netns, dial: &Dial<'_>, time: Duration) -> Command {
    let mut command = netns.command("timeout");
    command
        .arg(format!("{:.1}", time.as_secs_f64()))
        .args(["openssl", "s_client", "-quiet", "-verify_return_error"])
        .args(["-connect", &format!("{}:{}", dial.address, dial.port)])
        .args(["-servername", dial.name, "-verify_hostname", dial.name])
        .arg("-CAfile")
        .arg(dial.ca);
    if let Some(pair) = dial.pair {
        command
            .arg("-cert")
            .arg(&pair.chain)
            .arg("-key")
            .arg(&pair.key);
    }
    command
}

const GRACE: Duration = Duration::from_secs(3);

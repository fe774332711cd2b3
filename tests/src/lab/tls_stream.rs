//! A TLS client that stays: `openssl s_client` with a line in and a line out whenever the lab wants one.

use super::bounded;
use super::netns::Netns;
use super::tls_client::{self, Dial};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// A connection that stands until it is dropped, or the far end closes it.
#[derive(Debug)]
pub struct TlsStream {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl TlsStream {
    /// Connects from `netns`. Whether it succeeded shows with the first line that is heard.
    pub fn open(netns: &Netns, dial: &Dial<'_>) -> Result<Self> {
        let mut child = tls_client::client(netns, dial, LIFE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start openssl")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        let (heard, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    /// Sends a line and waits for the same line to come back.
    pub fn echoes(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("the connection has ended")?;
        match self.lines.recv_timeout(PATIENCE) {
            Ok(heard) if heard == line => Ok(()),
            Ok(heard) => bail!("{heard:?} came back for {line:?}"),
            Err(RecvTimeoutError::Timeout) => bail!("nothing came back for {line:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("closed before {line:?} came back"),
        }
    }

    /// Sends as it is.
    pub fn say(&mut self, text: &str) -> Result<()> {
        let said = self.input.write_all(text.as_bytes());
        said.and_then(|()| self.input.flush())
            .context("the connection has ended")
    }

    /// The lines that come until none has come for `quiet`.
    pub fn heard(&mut self, quiet: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(quiet) {
            lines.push(line);
        }
        lines
    }

    /// Waits until the far end has closed; nothing may come before that.
    pub fn ends(&mut self) -> Result<()> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(heard) => bail!("{heard:?} came"),
            Err(RecvTimeoutError::Timeout) => bail!("still open after {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                bounded::wait(&mut self.child, PATIENCE)?;
                Ok(())
            }
        }
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // `timeout` passes it on to openssl; killed, it would leave openssl with the connection.
        let timeout = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(timeout) = timeout {
            kill_process(timeout, Signal::TERM).ok();
        }
        self.child.wait().ok();
    }
}

/// Longer than any step of the lab.
const LIFE: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(8);

//! Running a program to its end, but never longer than it was given.
//!
//! Nothing in the lab waits without a limit: a peer that hangs has to become a FAIL row with its
//! last words in it, not a demo that stands still.

use anyhow::{Context as _, Result, bail};
use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a finished program left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error, as text.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Turns an exit status other than zero into an error that carries the program's own words.
    pub fn success(self, what: &str) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let words = format!("{}{}", self.text(), self.stderr);
        bail!("{what}: {}: {}", self.status, tail(words.trim(), WORDS_MAX));
    }
}

/// Runs `command` with `input` on its standard input; kills it when `limit` has passed.
pub fn run_with_input(command: &mut Command, input: Vec<u8>, limit: Duration) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdin = child.stdin.take();
    // A program that closes its input early is judged by its exit status, not by our broken pipe.
    let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let ended = wait(&mut child, limit)?;
    if ended.is_none() {
        child.kill().ok();
        child.wait().ok();
    }
    let (stdout, stderr) = (stdout.join(), stderr.join());
    drop(writer.join());
    let stdout = stdout.unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr.unwrap_or_default()).into_owned();
    let Some(status) = ended else {
        let words = format!("{}{stderr}", String::from_utf8_lossy(&stdout));
        bail!(
            "{name} did not end within {limit:?}; its last words: {}",
            tail(words.trim(), WORDS_MAX)
        );
    };
    Ok(Finished {
        status,
        stdout,
        stderr,
    })
}

/// Runs `command` with nothing on its standard input.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    run_with_input(command, Vec::new(), limit)
}

/// Waits for the end of `child`; `None` when `limit` passes first.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Asks `ready` again and again until it says yes; names `what` when `limit` passes first.
pub fn until(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let began = Instant::now();
    loop {
        if ready()? {
            return Ok(began.elapsed());
        }
        if began.elapsed() >= limit {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(POLL);
    }
}

/// The last `max` bytes of `text`, cut at a character.
#[must_use]
pub fn tail(text: &str, max: usize) -> &str {
    let mut from = text.len().saturating_sub(max);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

const POLL: Duration = Duration::from_millis(20);
/// Enough for the end of a log in a table row, little enough to read.
const WORDS_MAX: usize = 1200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended_and_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo waiting for godot; exec sleep 60"]);
        let error = run(&mut command, Duration::from_millis(300)).expect_err("it hangs");
        let text = format!("{error:#}");
        assert!(text.contains("did not end within"), "{text}");
        assert!(text.contains("waiting for godot"), "{text}");
    }

    #[test]
    fn input_larger_than_a_pipe_passes_through() {
        let input = vec![b'x'; 1 << 20];
        let done = run_with_input(&mut Command::new("cat"), input.clone(), LIMIT).expect("cat");
        assert_eq!(done.stdout, input);
    }

    #[test]
    fn a_failed_program_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck >&2; exit 3"]);
        let done = run(&mut command, LIMIT).expect("sh");
        let text = format!("{:#}", done.success("the attempt").expect_err("3"));
        assert!(
            text.contains("the attempt") && text.contains("no such luck"),
            "{text}"
        );
    }

    #[test]
    fn a_tail_never_cuts_a_character() {
        assert_eq!(tail("aé", 1), "");
        assert_eq!(tail("aé", 2), "é");
        assert_eq!(tail("aé", 9), "aé");
    }

    const LIMIT: Duration = Duration::from_secs(10);
}

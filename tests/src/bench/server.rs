//! A server under load: started on its CPU, known by its processes, ended.

use super::procfs::Processes;
use crate::lab::bounded;
use crate::lab::netns::Netns;
use crate::lab::process::Process;
use anyhow::{Context as _, Result, bail};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Process,
}

impl Server {
    /// Starts `program` with `arguments` on host `netns` and CPU `cpu`, and waits until all of `listeners` take
    /// connections.
    pub fn start(
        name: &str,
        netns: &Netns,
        cpu: usize,
        program: &Path,
        arguments: &[&str],
        listeners: &[SocketAddr],
        work: &Path,
    ) -> Result<Self> {
        let mut command = netns.command("taskset");
        command
            .args(["-c", &cpu.to_string()])
            .arg(program)
            .args(arguments);
        let mut process = Process::start(name, &mut command, work)?;
        for listener in listeners {
            let what = format!("{name} listening on {listener}");
            bounded::until(&what, START_LIMIT, || {
                process.still_runs()?;
                let connected = || TcpStream::connect_timeout(listener, CONNECT_LIMIT).is_ok();
                netns.within(connected)
            })
            .with_context(|| bounded::tail(process.log().trim(), LOG_TAIL).to_owned())?;
        }
        let server = Self { process };
        server.settle();
        Ok(server)
    }

    /// A server may listen before it has all its processes.
    fn settle(&self) {
        let mut known = self.processes();
        loop {
            std::thread::sleep(SETTLE);
            let now = self.processes();
            if now == known {
                return;
            }
            known = now;
        }
    }

    /// Its processes: what started it has become the first of them.
    #[must_use]
    pub fn processes(&self) -> Processes {
        Processes::below(self.process.id())
    }

    /// An error with its last words, if it has ended by itself.
    pub fn still_runs(&mut self) -> Result<()> {
        self.process.still_runs()?;
        if self.processes().are_alive() {
            Ok(())
        } else {
            bail!("a process of the server has ended")
        }
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) {
        // Whether it ends in order is not what is measured; dropping it kills what is left.
        self.process.stop(STOP_LIMIT).ok();
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        bounded::tail(self.process.log().trim(), LOG_TAIL).to_owned()
    }
}

const START_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_millis(300);
const STOP_LIMIT: Duration = Duration::from_secs(3);
const LOG_TAIL: usize = 600;

//! A balancer (HAProxy) in front of the array, as `docs/operating.md` tells to set one up.
//!
//! It asks each member's `/readyz`, tells where a client really comes from by PROXY v2, and leaves a connection where it
//! is as long as the member is ready or drains.

use super::bounded;
use super::netns::Netns;
use super::plan::{ARRAY, ARRAY_AV_INSIDE, BALANCER_INSIDE, BALANCER_OUTSIDE, Member};
use super::process::Process;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running balancer.
#[derive(Debug)]
pub struct Balancer {
    process: Process,
    socket: PathBuf,
}

/// One virtual address and port, and where a member has that service.
struct Door {
    name: &'static str,
    address: &'static str,
    port: u16,
    of: fn(&Member) -> &'static str,
    /// Where the same daemon answers `/readyz`.
    health: u16,
}

const OUTSIDE: [Door; 4] = [
    Door {
        name: "clients",
        address: ARRAY.access,
        port: 443,
        of: |member| member.access,
        health: 9561,
    },
    Door {
        name: "partners",
        address: ARRAY.access,
        port: 5061,
        of: |member| member.access,
        health: 9561,
    },
    Door {
        name: "conferences",
        address: ARRAY.webconf,
        port: 443,
        of: |member| member.webconf,
        health: 9563,
    },
    Door {
        name: "turn",
        address: ARRAY.av,
        port: 443,
        of: |member| member.av,
        health: 9562,
    },
];

/// Agents dial each member by its own name: 8057 is never balanced.
const INSIDE: [Door; 3] = [
    Door {
        name: "sip",
        address: ARRAY.internal,
        port: 5061,
        of: |member| member.internal,
        health: 9561,
    },
    Door {
        name: "mras",
        address: ARRAY_AV_INSIDE,
        port: 5062,
        of: |member| member.internal,
        health: 9562,
    },
    Door {
        name: "turn",
        address: ARRAY_AV_INSIDE,
        port: 443,
        of: |member| member.internal,
        health: 9562,
    },
];

impl Balancer {
    /// Starts the one that the Internet meets.
    pub fn outside(netns: &Netns, work: &Path) -> Result<Self> {
        Self::start("balancer-outside", netns, BALANCER_OUTSIDE, &OUTSIDE, work)
    }

    /// Starts the one that the inside meets.
    pub fn inside(netns: &Netns, work: &Path) -> Result<Self> {
        Self::start("balancer-inside", netns, BALANCER_INSIDE, &INSIDE, work)
    }

    fn start(name: &str, netns: &Netns, source: &str, doors: &[Door], work: &Path) -> Result<Self> {
        let socket = work.join(format!("{name}.sock"));
        let file = work.join(format!("{name}.cfg"));
        fs::write(&file, configuration(source, doors, &socket))?;
        let mut check = netns.command("haproxy");
        check.args(["-c", "-f"]).arg(&file);
        bounded::run(&mut check, Duration::from_secs(10))?.success("haproxy -c")?;
        let mut command = netns.command("haproxy");
        command.args(["-db", "-f"]).arg(&file);
        let mut process = Process::start(name, &mut command, work)?;
        for door in doors {
            let at = format!("{}:{}", door.address, door.port);
            process.wait_listening(netns, &[("tcp", &at)])?;
        }
        Ok(Self { process, socket })
    }

    /// It still runs.
    pub fn still_runs(&mut self) -> Result<()> {
        self.process.still_runs()
    }

    /// Whether new connections of `door` are sent to `member`.
    pub fn sends_to(&self, door: &str, member: &str) -> Result<bool> {
        let state = self.field(door, member, STATUS)?;
        Ok(state.starts_with("UP"))
    }

    /// Waits until new connections of `door` are sent to `member`, or are not.
    pub fn wait(&self, door: &str, member: &str, sends: bool) -> Result<Duration> {
        let what = format!("the balancer sends {door} to {member}: {sends}");
        bounded::until(&what, Duration::from_secs(10), || {
            Ok(self.sends_to(door, member)? == sends)
        })
    }

    /// Connections of `door` that `member` could not take.
    pub fn failed_connections(&self, door: &str, member: &str) -> Result<u64> {
        let text = self.field(door, member, CONNECTION_ERRORS)?;
        text.parse()
            .with_context(|| format!("no number of failed connections: {text:?}"))
    }

    fn field(&self, door: &str, member: &str, index: usize) -> Result<String> {
        let table = self.ask("show stat")?;
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("{door},{member},")))
            .with_context(|| format!("no {door} of {member} in {table:?}"))?;
        let field = line.split(',').nth(index);
        Ok(field.unwrap_or_default().to_owned())
    }

    fn ask(&self, question: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("cannot reach {:?}", self.socket))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        writeln!(stream, "{question}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn configuration(source: &str, doors: &[Door], socket: &Path) -> String {
    let mut text = format!(
        "global\n  maxconn 8000\n  nbthread 1\n  log stdout format raw local0\n  \
         stats socket {} mode 600 level admin\n\
         defaults\n  mode tcp\n  log global\n  option tcplog\n  balance leastconn\n  \
         timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout check 1s\n  \
         option redispatch\n  retries 2\n",
        socket.display()
    );
    for door in doors {
        // Writing to a String cannot fail.
        write!(
            text,
            "listen {name}\n  bind {address}:{port}\n  source {source}\n  option httpchk GET /readyz\n  \
             http-check expect status 200\n  default-server send-proxy-v2 check port {health} inter 500ms \
             fastinter 200ms fall 2 rise 1\n",
            name = door.name,
            address = door.address,
            port = door.port,
            health = door.health,
        )
        .ok();
        for member in ARRAY.members {
            let address = (door.of)(member);
            writeln!(text, "  server {} {address}:{}", member.name, door.port).ok();
        }
    }
    text
}

/// Columns of `show stat` (HAProxy's management guide, 9.1).
const STATUS: usize = 17;
const CONNECTION_ERRORS: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_never_balanced() {
        for doors in [&OUTSIDE[..], &INSIDE] {
            let text = configuration("192.0.2.1", doors, Path::new("/s"));
            assert!(!text.contains("8057"), "{text}");
            assert_eq!(text.matches("  server edge").count(), 2 * doors.len());
        }
    }
}

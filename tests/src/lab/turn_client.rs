//! A TURN client that is not ours: coturn's `turnutils_uclient`, and `turnutils_peer` as its peer.

use super::bounded;
use super::netns::Netns;
use super::phone::Relay;
use super::process::Process;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How the client reaches the relay and what it does there.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Address of the relay.
    pub server: &'a str,
    /// The relay's port.
    pub port: u16,
    /// UDP or TCP towards the relay.
    pub tcp: bool,
    /// Two clients of one relay send to each other (the hairpin); else one echo peer.
    pub peer: Option<&'a str>,
    /// The relayed address is to be IPv6.
    pub ipv6: bool,
    /// Messages to send.
    pub messages: u32,
}

/// What the client counted itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Messages sent.
    pub sent: u64,
    /// Messages that came back.
    pub received: u64,
    /// Addresses of its allocations, as the relay told it.
    pub relayed: BTreeSet<String>,
}

/// Runs the client to its end. Credentials refused, or a peer refused, is an error with its words.
pub fn run(netns: &Netns, relay: &Relay, run: &Run<'_>) -> Result<Counted> {
    let mut command = netns.command("turnutils_uclient");
    command
        .args(["-v", "-c", "-u", &relay.username, "-w", &relay.password])
        .args([
            "-p",
            &run.port.to_string(),
            "-m",
            "1",
            "-l",
            &PAYLOAD.to_string(),
        ])
        .args(["-n", &run.messages.to_string()]);
    if run.tcp {
        command.arg("-t");
    }
    if run.ipv6 {
        command.arg("-x");
    }
    match run.peer {
        Some(peer) => command.args(["-e", peer, "-r", &PEER_PORT.to_string()]),
        None => command.arg("-y"),
    };
    command.arg(run.server);
    let done = bounded::run(&mut command, RUN_LIMIT)?;
    let words = format!("{}{}", done.text(), done.stderr);
    let trouble: Vec<_> = words.lines().filter(|line| is_trouble(line)).collect();
    let counted = parse(&words);
    match counted {
        Some(counted) if trouble.is_empty() && done.status.success() => Ok(counted),
        _ => bail!(
            "turnutils_uclient: {}",
            if trouble.is_empty() {
                bounded::tail(words.trim(), 400).to_owned()
            } else {
                trouble.join("; ")
            }
        ),
    }
}

/// Starts the echo peer on `address` of `netns`.
pub fn echo_peer(netns: &Netns, address: &str, work: &Path) -> Result<Process> {
    let mut command = netns.command("turnutils_peer");
    command.args(["-L", address, "-p", &PEER_PORT.to_string()]);
    let mut peer = Process::start("turn-echo-peer", &mut command, work)?;
    let shown = if address.contains(':') {
        format!("[{address}]:{PEER_PORT}")
    } else {
        format!("{address}:{PEER_PORT}")
    };
    peer.wait_listening(netns, &[("udp", &shown)])
        .context("the echo peer did not start")?;
    Ok(peer)
}

fn is_trouble(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("error ") || line.contains("cannot complete") || line.contains("wrong")
}

/// `tot_send_msgs=20, tot_recv_msgs=20` on the last line that has both.
fn parse(words: &str) -> Option<Counted> {
    let number = |line: &str, key: &str| -> Option<u64> {
        let rest = &line[line.find(key)? + key.len()..];
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .ok()
    };
    words.lines().rev().find_map(|line| {
        Some(Counted {
            sent: number(line, "tot_send_msgs=")?,
            received: number(line, "tot_recv_msgs=")?,
            relayed: relayed(words),
        })
    })
}

/// `IPv4. Received relay addr: 198.51.100.12:50123`, without the ports.
fn relayed(words: &str) -> BTreeSet<String> {
    words
        .lines()
        .filter_map(|line| line.split_once("Received relay addr: "))
        .filter_map(|(_, address)| address.trim().rsplit_once(':'))
        .map(|(host, _)| host.trim_matches(['[', ']']).to_owned())
        .collect()
}

/// Bytes of one message: 20 ms of G.711 with its RTP header.
pub const PAYLOAD: u32 = 172;
const PEER_PORT: u16 = 3480;
const RUN_LIMIT: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_totals_are_read() {
        let words = "0: : IPv4. Received relay addr: 198.51.100.12:50123\n\
            0: : start_mclient: tot_send_msgs=3, tot_recv_msgs=0\n\
            1: : start_mclient: tot_send_msgs=20, tot_recv_msgs=19\nx\n";
        assert_eq!(
            parse(words),
            Some(Counted {
                sent: 20,
                received: 19,
                relayed: BTreeSet::from(["198.51.100.12".to_owned()]),
            })
        );
        assert_eq!(parse("nothing"), None);
    }
}

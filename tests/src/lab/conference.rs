//! A conference server inside (socat around two files) with the agent that dials the edge.

use super::ca::Authority;
use super::edge_host::{self, programs};
use super::netns::Netns;
use super::plan::{Member, Site};
use super::process::Process;
use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use edge_deploy::systemd::AGENT;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The agent and the server whose streams it serves.
#[derive(Debug)]
pub struct Conference {
    server: Process,
    agent: Process,
    socket: PathBuf,
    directory: PathBuf,
}

impl Conference {
    /// Starts both, the agent under `strace` if there is a directory `trace` for that. The server sends the file `download` to whoever connects, and keeps the first
    /// `upload_len` bytes that it receives.
    pub fn start(
        site: &Site,
        netns: &Netns,
        inside_ca: &Authority,
        download: &Path,
        upload_len: usize,
        work: &Path,
        trace: Option<&Path>,
    ) -> Result<Self> {
        let directory = work.join("conference");
        let own = own_directory(work);
        fs::create_dir_all(&own)?;
        let server = start_server(site, netns, download, upload_len, &directory)?;
        let name = site.inside_name("mcu1");
        let pair = inside_ca.issue("mcu1", &[&name])?;
        let socket = own.join("admit.sock");
        let config = directory.join("agent.toml");
        fs::write(&config, agent_toml(site, &pair, inside_ca, &socket))?;
        let mut command = edge_host::command(netns, &programs()?.join(AGENT), trace);
        command.arg("--config").arg(&config);
        let mut agent = Process::start(AGENT, &mut command, work)?;
        super::bounded::until(
            "the agent's admission socket",
            Duration::from_secs(10),
            || {
                agent.still_runs()?;
                Ok(socket.exists())
            },
        )?;
        Ok(Self {
            server,
            agent,
            socket,
            directory,
        })
    }

    /// Asks the agent for a number that lets one client in.
    pub fn admit(&mut self) -> Result<String> {
        self.agent.still_runs()?;
        self.server.still_runs()?;
        let (number, _) = admit_at(&self.socket, "{\"ttl\":\"60 s\"}")?;
        Ok(number)
    }

    /// Has the agent read its configuration again, then ends it in order. It has to say that all is well.
    pub fn end_agent(&mut self) -> Result<()> {
        self.agent.signal(Signal::HUP)?;
        thread::sleep(Duration::from_secs(1));
        self.agent.still_runs()?;
        let status = self.agent.stop(END_PATIENCE)?;
        if !status.success() {
            bail!("{AGENT} ended with {status}");
        }
        Ok(())
    }

    /// What the server received from its clients, one file a client, in the order of their ends.
    pub fn received(&self) -> Result<Vec<PathBuf>> {
        let mut files: Vec<_> = fs::read_dir(&self.directory)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "received"))
            .collect();
        files.sort();
        Ok(files)
    }
}

/// The only directory of the lab in `work` in which the agent has anything to write.
#[must_use]
pub fn own_directory(work: &Path) -> PathBuf {
    work.join("conference").join("run").join(AGENT)
}

/// Where the server listens, inside.
const SERVER_PORT: u16 = 6000;
/// No stream is open any more when the agent is ended.
const END_PATIENCE: Duration = Duration::from_secs(12);

fn start_server(
    site: &Site,
    netns: &Netns,
    download: &Path,
    upload_len: usize,
    directory: &Path,
) -> Result<Process> {
    let script = directory.join("serve.sh");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\n# One client: send the file, keep what comes; both at once.\n\
             cat {download:?} &\nhead -c {upload_len} >{directory:?}/$$.received\nwait\n"
        ),
    )?;
    let mut command = netns.command("socat");
    command
        .arg(format!(
            "TCP-LISTEN:{SERVER_PORT},bind={},reuseaddr,fork,backlog=64",
            site.conference
        ))
        .arg(format!("EXEC:sh {}", script.display()));
    let mut server = Process::start("conference-server", &mut command, directory)?;
    let at = format!("{}:{SERVER_PORT}", site.conference);
    server.wait_listening(netns, &[("tcp", &at)])?;
    Ok(server)
}

/// The configuration of an agent that knows every edge of the site.
pub(super) fn agent_toml(
    site: &Site,
    pair: &super::ca::Pair,
    ca: &Authority,
    socket: &Path,
) -> String {
    let name = site.inside_name("mcu1");
    let clients = site.public_name("webconf");
    let edge = |member: &Member| {
        let edge = site.inside_name(member.name);
        format!("{{ fqdn = \"{edge}\", port = 8057, clients = \"{clients}:443\" }}")
    };
    let edges: Vec<_> = site.members.iter().map(edge).collect();
    format!(
        "fqdn = \"{name}\"\nedges = [{edges}]\n\
         certificate = {{ chain = {:?}, key = {:?} }}\nca = {:?}\nsocket = {socket:?}\n\
         servers = [{{ name = \"{name}\", target = \"{}:{SERVER_PORT}\" }}]\n",
        pair.chain,
        pair.key,
        ca.file,
        site.conference,
        edges = edges.join(", "),
    )
}

/// Asks the agent behind `socket` for a number; also says how many edges have acknowledged it.
pub fn admit_at(socket: &Path, request: &str) -> Result<(String, usize)> {
    let answer = post(socket, "/admit", request)?;
    let number = answer.get("number").and_then(Value::as_str);
    let number = number.context("the agent's answer holds no number")?;
    let edges = answer.get("edges").and_then(Value::as_array);
    Ok((number.to_owned(), edges.map_or(0, Vec::len)))
}

/// One POST over a unix socket; returns the JSON of a 200.
pub fn post(socket: &Path, path: &str, body: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("{socket:?}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.take(1 << 16).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!(
            "POST {path}: {} {body}",
            head.lines().next().unwrap_or_default()
        );
    }
    serde_json::from_str(body.trim()).with_context(|| format!("POST {path}: {body:?}"))
}

/// SHA-256 of a whole file, as hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

/// A file of `len` random bytes: nothing on the way could guess or compress it.
pub fn random_file(path: &Path, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    for block in bytes.chunks_mut(1 << 20) {
        aws_lc_rs::rand::fill(block).context("no randomness")?;
    }
    fs::write(path, &bytes).with_context(|| format!("cannot write {path:?}"))?;
    Ok(bytes)
}

//! Two agents of one conference server inside; the server (socat) sends back what it gets.

use super::bounded;
use super::ca::Authority;
use super::conference::{admit_at, agent_toml, own_directory};
use super::edge_host::{self, programs};
use super::netns::Netns;
use super::plan::Site;
use super::process::Process;
use anyhow::{Context as _, Result, bail};
use edge_deploy::systemd::AGENT;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The agents, by their instance, and the server.
#[derive(Debug)]
pub struct Agents {
    agents: Vec<Agent>,
    _server: Process,
}

#[derive(Debug)]
struct Agent {
    instance: &'static str,
    socket: PathBuf,
    process: Process,
}

impl Agents {
    /// Starts the server and an agent for each of `instances`; all of them register the same server.
    pub fn start(
        site: &Site,
        netns: &Netns,
        inside_ca: &Authority,
        instances: &[&'static str],
        work: &Path,
    ) -> Result<Self> {
        let at = format!("{}:{SERVER_PORT}", site.conference);
        let listen = format!(
            "TCP-LISTEN:{SERVER_PORT},bind={},reuseaddr,fork,backlog=64",
            site.conference
        );
        let mut command = netns.command("socat");
        command.arg(listen).arg("EXEC:cat");
        let mut server = Process::start("echo-server", &mut command, work)?;
        server.wait_listening(netns, &[("tcp", &at)])?;
        let pair = inside_ca.issue("mcu1", &[&site.inside_name("mcu1")])?;
        let mut agents = Vec::new();
        for &instance in instances {
            let directory = own_directory(work).join(instance);
            fs::create_dir_all(&directory)?;
            let socket = directory.join("admit.sock");
            let config = work.join(format!("agent-{instance}.toml"));
            let text = agent_toml(site, &pair, inside_ca, &socket);
            fs::write(&config, format!("instance = \"{instance}\"\n{text}"))?;
            let mut command = edge_host::command(netns, &programs()?.join(AGENT), None);
            command.arg("--config").arg(&config);
            let name = format!("{AGENT}-{instance}");
            let mut process = Process::start(&name, &mut command, work)?;
            bounded::until("the agent's admission socket", START_LIMIT, || {
                process.still_runs()?;
                Ok(socket.exists())
            })?;
            agents.push(Agent {
                instance,
                socket,
                process,
            });
        }
        Ok(Self {
            agents,
            _server: server,
        })
    }

    /// Has that agent admit one client; the number, and the edges that have acknowledged it.
    pub fn admit(&mut self, instance: &str) -> Result<(String, usize)> {
        let agent = self.agent(instance)?;
        agent.process.still_runs()?;
        admit_at(&agent.socket, "{\"ttl\": \"60 s\"}")
    }

    /// Ends one in order.
    pub fn end(&mut self, instance: &str) -> Result<()> {
        let status = self.agent(instance)?.process.stop(END_LIMIT)?;
        if !status.success() {
            bail!("{AGENT} ended with {status}");
        }
        self.agents.retain(|agent| agent.instance != instance);
        Ok(())
    }

    fn agent(&mut self, instance: &str) -> Result<&mut Agent> {
        let mut agents = self.agents.iter_mut();
        let found = agents.find(|agent| agent.instance == instance);
        found.with_context(|| format!("no agent {instance}"))
    }
}

const SERVER_PORT: u16 = 6000;
const START_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(12);

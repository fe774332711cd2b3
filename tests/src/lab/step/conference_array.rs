//! Step 8: conference streams through an array. Any edge serves any admitted client; an edge that dies takes only its
//! own streams with it.

use crate::lab::agents::Agents;
use crate::lab::array::ArrayWorld;
use crate::lab::bounded;
use crate::lab::netns::Netns;
use crate::lab::plan::ARRAY;
use crate::lab::report::{Report, Seen};
use crate::lab::tls_client::{self, Dial};
use crate::lab::tls_stream::TlsStream;
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use std::time::{Duration, Instant};

/// Shows step 8.
pub fn show(world: &mut ArrayWorld, report: &mut Report) {
    let started = Agents::start(
        &ARRAY,
        &world.net.inside,
        &world.inside_ca,
        &AGENTS,
        &world.work,
    );
    let mut agents = match started {
        Ok(agents) => agents,
        Err(error) => {
            report.check("8", "two agents of one conference server", || Err(error));
            return;
        }
    };
    report.check("8", "both agents are in session with both edges", || {
        in_session(world)
    });
    report.check(
        "8",
        "clients through the balancer are served by either edge",
        || either_edge(world, &mut agents),
    );
    report.check("8", "a number counts once, whichever edge sees it", || {
        once(world, &mut agents)
    });
    report.check(
        "8",
        "a killed edge takes its own streams only, and a new admission gets in",
        || killed(world, &mut agents),
    );
    report.check("8", "one agent ends, the other serves on", || {
        one_agent(world, &mut agents)
    });
}

fn in_session(world: &ArrayWorld) -> Result<Seen> {
    for member in &world.members {
        let what = format!("two agents in session with {}", member.name);
        bounded::until(&what, PATIENCE, || {
            let page = member.metrics(Service::Webconf)?;
            Ok(page.sum("edge_webconf_agent_sessions", &[]) == Some(2.0))
        })?;
        member.wait_ready(Service::Webconf)?;
        // It learns of that at its next check; until then it has nowhere to send a client.
        let name = member.member.name;
        world.outside.wait("conferences", name, true)?;
    }
    Ok(Seen::text("2 agents at each of 2 edges"))
}

fn either_edge(world: &ArrayWorld, agents: &mut Agents) -> Result<Seen> {
    let mut served = Vec::new();
    // The balancer takes a member in a moment after that has said that it is ready.
    bounded::until("both edges serve", PATIENCE, || {
        for (home, agent) in [(&world.net.home_a, "a"), (&world.net.home_b, "b")] {
            TlsStream::open(home, &dial(world))?.echoes(&admitted(agents, agent)?)?;
        }
        served = relayed(world)?;
        Ok(!served.contains(&0))
    })
    .with_context(|| format!("bytes relayed by each edge: {served:?}"))?;
    Ok(Seen::text(format!(
        "bytes relayed by each edge: {served:?}"
    )))
}

/// A number that both edges have acknowledged; a new agent may have said to one of them only what it serves.
fn admitted(agents: &mut Agents, agent: &str) -> Result<String> {
    let mut found = None;
    bounded::until("a number that both edges know", PATIENCE, || {
        let (number, edges) = agents.admit(agent)?;
        found = (edges == ARRAY.members.len()).then_some(number);
        Ok(found.is_some())
    })?;
    found.context("no number")
}

fn once(world: &ArrayWorld, agents: &mut Agents) -> Result<Seen> {
    let number = admitted(agents, "a")?;
    TlsStream::open(&world.net.home_a, &dial(world))?.echoes(&number)?;
    let request = format!("{number}\n");
    for home in [&world.net.home_b, &world.net.home_a] {
        let answer = again(home, world, &request)?;
        if !answer.is_empty() {
            bail!(
                "{} bytes came back for a number that was used",
                answer.len()
            );
        }
    }
    Ok(Seen::text("0 bytes at the other edge, 0 at the same"))
}

fn again(home: &Netns, world: &ArrayWorld, request: &str) -> Result<Vec<u8>> {
    let time = Duration::from_secs(4);
    tls_client::exchange(home, &dial(world), request.as_bytes(), time)
}

fn killed(world: &mut ArrayWorld, agents: &mut Agents) -> Result<Seen> {
    let before = relayed(world)?;
    let mut alices = TlsStream::open(&world.net.home_a, &dial(world))?;
    alices.echoes(&agents.admit("a")?.0)?;
    let after = relayed(world)?;
    let serves = |index: usize| after.get(index) > before.get(index);
    let victim = (0..after.len())
        .find(|&index| serves(index))
        .context("no edge has relayed alice's stream")?;
    let mut bobs = TlsStream::open(&world.net.home_b, &dial(world))?;
    bobs.echoes(&agents.admit("b")?.0)?;
    let host = world.members.get_mut(victim).context("no such member")?;
    let name = host.name.clone();
    host.kill_one(Service::Webconf);
    alices.ends().context("alice's stream")?;
    bobs.echoes("bob goes on").context("bob's stream")?;
    let retried = retry(world, agents)?;
    bobs.echoes("bob is still here").context("bob's stream")?;
    let host = world.members.get_mut(victim).context("no such member")?;
    host.start_one(Service::Webconf)?;
    in_session(world)?;
    Ok(Seen::text(format!(
        "{name} killed: alice cut and in again after {} ms, bob went on; both agents came back to it",
        retried.as_millis()
    )))
}

/// What a client does: it asks for a new admission and connects to the same name.
fn retry(world: &ArrayWorld, agents: &mut Agents) -> Result<Duration> {
    let began = Instant::now();
    let mut last = None;
    bounded::until("alice gets in again", PATIENCE, || {
        let tried = agents.admit("a").and_then(|(number, _)| {
            TlsStream::open(&world.net.home_a, &dial(world))?.echoes(&number)
        });
        last = tried.err();
        Ok(last.is_none())
    })
    .map_err(|error| {
        last.take()
            .map_or(error, |cause| cause.context("not in again"))
    })?;
    Ok(began.elapsed())
}

fn one_agent(world: &ArrayWorld, agents: &mut Agents) -> Result<Seen> {
    let mut alices = TlsStream::open(&world.net.home_a, &dial(world))?;
    alices.echoes(&agents.admit("b")?.0)?;
    agents.end("a")?;
    alices.echoes("served by the other").context("alice")?;
    TlsStream::open(&world.net.home_b, &dial(world))?.echoes(&agents.admit("b")?.0)?;
    Ok(Seen::text(
        "a stream of the other agent went on, a new client got in",
    ))
}

/// Bytes relayed by each member so far.
fn relayed(world: &ArrayWorld) -> Result<Vec<u64>> {
    let members = world.members.iter();
    members
        .map(|member| {
            let page = member.metrics(Service::Webconf)?;
            let sum = page.sum("edge_webconf_relayed_bytes_total", &[]);
            // Bytes are whole.
            Ok(sum.map_or(0, |sum| sum as u64))
        })
        .collect()
}

fn dial(world: &ArrayWorld) -> Dial<'_> {
    Dial {
        address: ARRAY.webconf,
        port: 443,
        name: "webconf.contoso.test",
        ca: &world.public_ca.file,
        pair: None,
    }
}

const AGENTS: [&str; 2] = ["a", "b"];
const PATIENCE: Duration = Duration::from_secs(15);

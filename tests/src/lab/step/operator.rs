//! Step o: what an operator asks of a running edge: partners judged by the daemon's own code, a call traced, counted and
//! mirrored, and certificates replaced under it.

use crate::lab::bounded::{self, Finished};
use crate::lab::edge_host;
use crate::lab::netns::Netns;
use crate::lab::phone::Phone;
use crate::lab::plan::{CONTOSO, NORTHWIND, NORTHWIND_DOMAIN};
use crate::lab::process::Process;
use crate::lab::report::{Report, Seen};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail, ensure};
use edge_common::ports::Service;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shows step o.
pub fn show(world: &mut World, report: &mut Report) {
    report.check(STEP, "`federation test` accepts a good partner", || {
        good_partner(world)
    });
    report.check(
        STEP,
        "`federation test` names the step at which a bad one fails",
        || bad_partner(world),
    );
    report.check(
        STEP,
        "the card shows the certificate that OpenSSL sees",
        || card(world),
    );
    report.check(
        STEP,
        "a certificate is blocked on the watch list and let go",
        || watch(world),
    );
    let mut call = None;
    report.check(
        STEP,
        "a call outlives two changes of the certificate, OpenSSL sees both",
        || {
            let done = Call::make(world)?;
            let seen = done.serials.join(", then ");
            call = Some(done);
            Ok(Seen::text(format!(
                "serial {seen}; the call was ended over the old connections"
            )))
        },
    );
    let Some(call) = call else {
        for what in ["connections", "the trace", "the mirror"] {
            report.check(STEP, what, || bail!("not run: there was no call"));
        }
        return;
    };
    report.check(STEP, "`access connections` counts what ss counts", || {
        Ok(Seen::text(call.counted.clone()))
    });
    report.check(
        STEP,
        "`trace` shows the call from INVITE to BYE in order",
        || traced(world),
    );
    report.check(
        STEP,
        "sngrep and tshark read the mirror, and find no credentials and no body",
        || mirrored(world, &call),
    );
}

/// The JSON that `edgectl` printed on contoso's edge, and whether its answer was yes.
fn ask(world: &World, words: &[&str]) -> Result<(bool, Value)> {
    let done = edgectl(world, words)?;
    let text = done.text();
    let yes = match done.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => bail!(
            "edgectl {}: {} {}",
            words.join(" "),
            done.status,
            done.stderr
        ),
    };
    let json = serde_json::from_str(&text)
        .with_context(|| format!("edgectl {} printed {text:?}", words.join(" ")))?;
    Ok((yes, json))
}

fn edgectl(world: &World, words: &[&str]) -> Result<Finished> {
    let program = edge_host::programs()?.join("edgectl");
    let mut command = world.net.edge_c.command(program);
    let config = world.contoso.directory().join("edge.toml");
    command.arg("--config").arg(config).args(words);
    bounded::run(&mut command, LIMIT)
}

fn good_partner(world: &World) -> Result<Seen> {
    let (yes, told) = ask(world, &["federation", "test", "fabrikam.test", "--json"])?;
    ensure!(
        yes && told["pass"] == true && told["list"] == "allowed",
        "{told}"
    );
    ensure!(told["records"][0]["chosen"] == true, "{told}");
    let steps = told["steps"].as_array().map_or(0, Vec::len);
    Ok(Seen::text(format!("{steps} steps, {}", told["target"])))
}

/// The first step that failed; none when the partner is accepted.
fn failed_at(world: &World, domain: &str) -> Result<Option<String>> {
    let (yes, told) = ask(world, &["federation", "test", domain, "--json"])?;
    let steps = told["steps"].as_array().cloned().unwrap_or_default();
    let failed = steps.iter().find(|step| step["result"] == "fail");
    ensure!(
        failed.is_none() == yes,
        "exit status and report differ: {told}"
    );
    Ok(failed.and_then(|step| Some(step["step"].as_str()?.to_owned())))
}

fn bad_partner(world: &World) -> Result<Seen> {
    let mut seen = Vec::new();
    let mut expect = |what: &str, domain: &str, step: Option<&str>| -> Result<()> {
        let found = failed_at(world, domain)?;
        ensure!(
            found.as_deref() == step,
            "{what}: failed at {found:?}, not at {step:?}"
        );
        seen.push(format!("{what}: {}", step.unwrap_or("passes")));
        Ok(())
    };
    expect("nobody listed it", "tailspin.test", Some("list"))?;
    expect("ours", CONTOSO.domain, Some("list"))?;
    expect("nobody listens", NORTHWIND_DOMAIN, Some("connection"))?;
    let name = format!("sip.{NORTHWIND_DOMAIN}");
    let foreign = world.inside_ca.issue("northwind-foreign", &[&name])?;
    let wrong = world
        .public_ca
        .issue("northwind-wrong", &["sip.tailspin.test"])?;
    let right = world.public_ca.issue("northwind-right", &[&name])?;
    for (what, pair, step) in [
        ("another's name", &wrong, Some("certificate")),
        ("a foreign authority", &foreign, Some("chain")),
        ("a good certificate", &right, None),
    ] {
        let at = format!("{NORTHWIND}:5061");
        let mut command = world.net.northwind.command("openssl");
        command.args(["s_server", "-quiet", "-verify", "1", "-accept", &at]);
        command
            .arg("-cert")
            .arg(&pair.chain)
            .arg("-key")
            .arg(&pair.key);
        let mut server = Process::start("northwind-s_server", &mut command, &world.work)?;
        server.wait_listening(&world.net.northwind, &[("tcp", &at)])?;
        expect(what, NORTHWIND_DOMAIN, step)?;
    }
    Ok(Seen::text(seen.join("; ")))
}

fn card(world: &World) -> Result<Seen> {
    let page = edgectl(world, &["federation", "card"])?
        .success("edgectl federation card")?
        .text();
    let (_, card) = ask(world, &["federation", "card", "--json"])?;
    let seen = openssl(world, &["-fingerprint", "-sha256"])?;
    let seen = seen
        .rsplit('=')
        .next()
        .unwrap_or_default()
        .replace(':', "")
        .to_lowercase();
    let told = card["certificates"][0][0]["sha256"]
        .as_str()
        .unwrap_or_default();
    ensure!(
        told == seen.trim() && page.contains(told),
        "the card says {told}, OpenSSL {seen}"
    );
    let record = format!(
        "_sipfederationtls._tcp.{}. SRV 0 0 5061 {}.",
        CONTOSO.domain,
        CONTOSO.public_name("sip")
    );
    ensure!(page.contains(&record), "{page}");
    Ok(Seen::text(format!(
        "SHA-256 {}…",
        &told[..16.min(told.len())]
    )))
}

fn watch(world: &World) -> Result<Seen> {
    let (issuer, serial) = ("CN=Lab public-ca", "0a");
    let modes = || -> Result<Vec<String>> {
        let (_, told) = ask(world, &["federation", "watch", "--json"])?;
        let entries = told["entries"].as_array().context("no entries")?;
        let ours = entries
            .iter()
            .filter(|one| one["serial"] == serial && one["issuer"] == issuer);
        Ok(ours.map(|one| one["mode"].to_string()).collect())
    };
    let before = modes()?;
    edgectl(
        world,
        &["federation", "watch", "block", issuer, serial, "--dry-run"],
    )?
    .success("a dry run")?;
    ensure!(modes()? == before, "a dry run changed the list");
    edgectl(world, &["federation", "watch", "block", issuer, serial])?.success("block")?;
    let blocked = modes()?;
    ensure!(
        blocked == ["\"block\""] || blocked == ["\"blocked\""],
        "{blocked:?}"
    );
    edgectl(world, &["federation", "watch", "reset", issuer, serial])?.success("reset")?;
    let after = modes()?;
    ensure!(after != blocked, "{after:?}");
    Ok(Seen::text(format!(
        "{before:?}, then {blocked:?}, then {after:?}"
    )))
}

/// A call that was made while everybody looked on.
struct Call {
    /// Serial numbers of the certificates that OpenSSL was shown, in their order.
    serials: Vec<String>,
    /// What ss and `edgectl` counted.
    counted: String,
    /// What came to the collector.
    capture: PathBuf,
    /// Copies that the edge says it sent meanwhile.
    copies: u64,
}

impl Call {
    fn make(world: &mut World) -> Result<Self> {
        let capture = world.work.join("mirror.pcap");
        let mut sngrep = start_collector(world, &capture)?;
        let before = copies(world)?;
        edgectl(world, &["trace", "--record", "2 min"])?.success("edgectl trace --record")?;
        let relay = world.contoso.mras_credentials("alice@contoso.test")?;
        let sign_in = |user: &str, friend: &str, home: &Netns| {
            let account = world.remote_account(user, friend, Some(relay.clone()))?;
            Phone::sign_in(home, &account, &world.public_ca.file, &world.work)
        };
        let mut alice = sign_in("alice", "bob@contoso.test", &world.net.home_a)?;
        let mut bob = sign_in("bob", "alice@contoso.test", &world.net.home_b)?;
        alice.command("dial", "sip:bob@contoso.test")?;
        bob.wait("CALL_ESTABLISHED", CALL_LIMIT)?;
        alice.wait("CALL_ESTABLISHED", CALL_LIMIT)?;
        let counted = counted(world)?;
        let mut serials = vec![serial(world)?];
        for _ in 0..2 {
            serials.push(replace_certificate(world, serials.last())?);
        }
        alice.command("hangup", "")?;
        bob.wait("CALL_CLOSED", CALL_LIMIT)?;
        alice.quit()?;
        bob.quit()?;
        // The last copies are on their way to the file.
        std::thread::sleep(Duration::from_millis(800));
        let copies = copies(world)? - before;
        sngrep.signal(Signal::INT)?;
        sngrep.stop(LIMIT)?;
        Ok(Self {
            serials,
            counted,
            capture,
            copies,
        })
    }
}

/// sngrep takes the place of a collector: it reads HEP with code of its own, and writes what was copied to a file.
fn start_collector(world: &World, capture: &Path) -> Result<Process> {
    let at = format!("{}:9060", CONTOSO.director);
    let mut command = world.net.inside_c.command("sngrep");
    command
        .args(["-N", "-q", "-L", &format!("udp:{at}"), "-O"])
        .arg(capture);
    let mut sngrep = Process::start("sngrep", &mut command, &world.work)?;
    sngrep.wait_listening(&world.net.inside_c, &[("udp", &at)])?;
    Ok(sngrep)
}

fn copies(world: &World) -> Result<u64> {
    world
        .contoso
        .metrics(Service::Access)?
        .count("edge_access_hep_packets_total", &[])
}

/// The edge's own count of connections against the kernel's.
fn counted(world: &World) -> Result<String> {
    let mut last = (0, 0);
    let agreed = bounded::until("ss and edgectl agree", LIMIT, || {
        let (_, told) = ask(world, &["access", "connections", "--json"])?;
        let told = told["total"].as_u64().context("no total")?;
        last = (told, established(world)?);
        Ok(last.0 == last.1)
    });
    agreed.with_context(|| format!("edgectl says {}, ss {}", last.0, last.1))?;
    ensure!(
        last.0 >= 4,
        "two phones and two cores to the Director make four, not {}",
        last.0
    );
    let (_, phones) = ask(
        world,
        &["access", "connections", "--state", "promoted", "--json"],
    )?;
    ensure!(phones["matching"].as_u64() >= Some(2), "{phones}");
    Ok(format!("{} each, {} signed in", last.0, phones["matching"]))
}

/// Established connections of edge-access: outside on its own address, inside on SIP's port at either end.
fn established(world: &World) -> Result<u64> {
    let mut command = world.net.edge_c.command("ss");
    command.args(["-Htn", "state", "established"]);
    let listing = bounded::run(&mut command, LIMIT)?.success("ss")?.text();
    let sip = |address: &str| address.ends_with(":5061");
    let host = |address: &str| {
        address
            .split(['%', ':'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let counted = listing.lines().filter(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (Some(local), Some(peer)) = (words.get(2), words.get(3)) else {
            return false;
        };
        host(local) == CONTOSO.access
            || (host(local) == CONTOSO.internal && (sip(local) || sip(peer)))
    });
    Ok(counted.count() as u64)
}

/// A new certificate in the place of the old one, and SIGHUP; its serial number as OpenSSL sees it.
fn replace_certificate(world: &mut World, old: Option<&String>) -> Result<String> {
    let label = format!("{}-sip", CONTOSO.name);
    world
        .public_ca
        .issue(&label, &[&CONTOSO.public_name("sip")])?;
    world.contoso.daemon(Service::Access)?.signal(Signal::HUP)?;
    let mut shown = String::new();
    bounded::until("the new certificate is shown", LIMIT, || {
        shown = serial(world)?;
        Ok(Some(&shown) != old)
    })?;
    Ok(shown)
}

fn serial(world: &World) -> Result<String> {
    Ok(openssl(world, &["-serial"])?.trim().replace("serial=", ""))
}

/// What `openssl x509` says of the certificate that remote users are shown.
fn openssl(world: &World, words: &[&str]) -> Result<String> {
    let script = format!(
        "openssl s_client -connect {}:443 -servername {name} -verify_hostname {name} -verify_return_error -CAfile {ca} \
         </dev/null 2>/dev/null | openssl x509 -noout {}",
        CONTOSO.access,
        words.join(" "),
        name = CONTOSO.public_name("sip"),
        ca = world.public_ca.file.display(),
    );
    let mut shell = world.net.stranger.command("sh");
    shell.args(["-c", &script]);
    Ok(bounded::run(&mut shell, LIMIT)?.success("openssl")?.text())
}

fn traced(world: &World) -> Result<Seen> {
    let (_, told) = ask(world, &["trace", "--json"])?;
    let entries = |told: &Value| told[0]["entries"].as_array().cloned().unwrap_or_default();
    let call = entries(&told)
        .into_iter()
        .find(|entry| entry["message"] == "BYE");
    let call = call.with_context(|| format!("no BYE was recorded: {told}"))?;
    let call_id = call["call_id"].as_str().context("a Call-ID")?.to_owned();
    let (_, told) = ask(world, &["trace", &call_id, "--json"])?;
    let passed: Vec<String> = entries(&told)
        .iter()
        .map(|entry| {
            let word = |key: &str| entry[key].as_str().unwrap_or_default();
            format!("{} {} {}", word("direction"), word("message"), word("side"))
        })
        .collect();
    let mut rest = passed.iter();
    for wanted in CALL_FLOW {
        ensure!(
            rest.any(|seen| seen == wanted),
            "{wanted} is missing, or out of order: {}",
            passed.join(", ")
        );
    }
    let picture = edgectl(world, &["trace", &call_id])?
        .success("edgectl trace")?
        .text();
    ensure!(
        picture.contains("INVITE") && picture.contains("BYE") && picture.contains("-->|"),
        "{picture}"
    );
    edgectl(world, &["trace", "--stop"])?.success("edgectl trace --stop")?;
    Ok(Seen::text(format!(
        "{} messages in one timeline",
        passed.len()
    )))
}

fn mirrored(world: &World, call: &Call) -> Result<Seen> {
    let read = |filter: &str, field: &str| -> Result<Vec<String>> {
        let mut command = world.net.inside_c.command("tshark");
        command.arg("-r").arg(&call.capture);
        command.args(["-Y", filter, "-T", "fields", "-e", field]);
        let text = bounded::run(&mut command, LIMIT)?.success("tshark")?.text();
        Ok(text.lines().map(str::to_owned).collect())
    };
    let packets = read("frame", "frame.number")?.len() as u64;
    ensure!(
        packets == call.copies && packets > 0,
        "sngrep took {packets} packets, the edge sent {}",
        call.copies
    );
    let messages = read("sip", "sip.CSeq.method")?;
    ensure!(
        messages.len() as u64 == packets,
        "{} of {packets} are SIP to tshark",
        messages.len()
    );
    let broken = read("_ws.malformed", "frame.number")?;
    ensure!(broken.is_empty(), "malformed to tshark: {broken:?}");
    for method in ["REGISTER", "INVITE", "BYE"] {
        ensure!(
            messages.iter().any(|seen| seen.contains(method)),
            "no {method}: {messages:?}"
        );
    }
    let raw = fs::read(&call.capture)?;
    let holds = |text: &str| raw.windows(text.len()).any(|part| part == text.as_bytes());
    for secret in [
        "response=\"",
        "alice-secret",
        "bob-secret",
        "v=0\r\n",
        "a=ice-pwd",
    ] {
        ensure!(!holds(secret), "{secret:?} is in what was copied");
    }
    ensure!(
        holds("Digest withheld") && holds("X-Edge-Body"),
        "nothing was withheld"
    );
    Ok(Seen::bytes(
        format!("{packets} messages, credentials and bodies withheld"),
        raw.len() as u64,
    ))
}

/// What must be seen of the call in this order, whatever else there is: from alice to the Director, and from there to bob.
const CALL_FLOW: [&str; 12] = [
    "in INVITE client",
    "out INVITE inside",
    "in INVITE inside",
    "out INVITE client",
    "in 200 client",
    "out 200 inside",
    "in 200 inside",
    "out 200 client",
    "in BYE client",
    "out BYE inside",
    "in BYE inside",
    "out BYE client",
];
const STEP: &str = "o";
const LIMIT: Duration = Duration::from_secs(20);
const CALL_LIMIT: Duration = Duration::from_secs(10);

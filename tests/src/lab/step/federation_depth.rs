//! Step 9: partners whom nobody listed, and how far they come: limits and the watch list, blocking before DNS, the
//! naming rule, providers and the default route, the usage of certificates, and revocation.
//!
//! The partners are OpenSSL clients on one host with certificates for many names; names are asked of Knot DNS, and the
//! revocation list lies on nginx. Contoso's edge reads its configuration again between the rows.

use crate::lab::ca::{Pair, Wish};
use crate::lab::counters::{Counters, Hook, Meter};
use crate::lab::plan::{CONTOSO, NORTHWIND};
use crate::lab::process::Process;
use crate::lab::report::{Report, Seen};
use crate::lab::tls_client::{self, Dial};
use crate::lab::tls_stream::TlsStream;
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

/// Shows step 9; contoso's edge has its own configuration again afterwards.
pub fn show(world: &mut World, report: &mut Report) {
    let own = CONTOSO_RULES;
    let mut web = None;
    report.check("9", "contoso's edge lets anybody prove himself", || {
        web = Some(publish(world)?);
        world.contoso.reconfigure(own, DISCOVERY)?;
        let seen = passes(world, &partner(world, "sip.alpine.test")?, "alpine.test")?;
        Ok(Seen::text(format!(
            "sip.alpine.test for alpine.test: {seen}"
        )))
    });
    report.check(
        "9",
        "a discovered partner over its rate is told to wait",
        || over_rate(world),
    );
    report.check(
        "9",
        "a blocked domain is refused, and DNS is not asked",
        || blocked(world),
    );
    report.check(
        "9",
        "a record that points outside its domain proves nothing",
        || {
            let pair = partner(world, "sip.alpine.test")?;
            refused(world, &pair, "conflict.test", "504", "1009;")
        },
    );
    report.check(
        "9",
        "a provider speaks for its domain, and nobody else does",
        || {
            let seen = passes(world, &partner(world, "edge.provider.test")?, "live.test")?;
            refused(
                world,
                &partner(world, "sip.alpine.test")?,
                "live.test",
                "403",
                "1027;",
            )?;
            Ok(Seen::text(seen))
        },
    );
    report.check(
        "9",
        "a certificate for servers is taken from a client, unless told not to",
        || {
            let pair = server_only(world, "server-only")?;
            let seen = passes(world, &pair, "alpine.test")?;
            world.contoso.reconfigure(DISCOVERY, STRICT)?;
            no_answer(world, &pair, "alpine.test")?;
            passes(world, &partner(world, "sip.alpine.test")?, "alpine.test")?;
            Ok(Seen::text(format!(
                "{seen}; refused under client_eku = \"client\""
            )))
        },
    );
    report.check(
        "9",
        "without a client's certificate, a partner is called back at its edge",
        || {
            world.contoso.reconfigure(STRICT, CALLING)?;
            let (_, edge) = web.as_ref().context("alpine's edge does not listen")?;
            let seen = called_back(world, edge)?;
            world.contoso.reconfigure(CALLING, REVOKING)?;
            Ok(seen)
        },
    );
    report.check(
        "9",
        "a revoked certificate is refused, by a list from port 80",
        || revoked(world),
    );
    report.check(
        "9",
        "all goes through the default route, by one certificate",
        || {
            world.contoso.reconfigure(REVOKING, DEFAULT_ROUTE)?;
            let seen = passes(
                world,
                &partner(world, "edge.clearing.test")?,
                "anybody.test",
            )?;
            refused(
                world,
                &partner(world, "sip.alpine.test")?,
                "alpine.test",
                "403",
                "1027;",
            )?;
            Ok(Seen::text(seen))
        },
    );
    report.check("9", "contoso's edge is as it was", || {
        world.contoso.reconfigure(DEFAULT_ROUTE, own)?;
        Ok(Seen::text("the first configuration is in force"))
    });
}

fn partner(world: &World, name: &str) -> Result<Pair> {
    world
        .public_ca
        .issue_as(&format!("depth-{name}"), &[name], &Wish::default())
}

/// A certificate for servers; each label has a key of its own.
fn server_only(world: &World, label: &str) -> Result<Pair> {
    let wish = Wish {
        server_only: true,
        ..Wish::default()
    };
    world.public_ca.issue_as(label, &["sip.alpine.test"], &wish)
}

/// The list of the public authority, with one number on it, at a web server. The same program is what listens as
/// alpine's edge: a handshake is all that is asked of it.
fn publish(world: &World) -> Result<(Process, Pair)> {
    let root = world.work.join("crl");
    fs::create_dir_all(&root)?;
    fs::write(root.join("public.crl"), world.public_ca.crl(&[REVOKED])?)?;
    let edge = server_only(world, "alpine-edge")?;
    let (chain, key) = (edge.chain.display(), edge.key.display());
    let conf = root.join("nginx.conf");
    let place = root.display();
    fs::write(
        &conf,
        format!(
            "daemon off;\nuser root;\nmaster_process off;\npid {place}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{ access_log {place}/access.log;\n\
             client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;\n\
             uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
             server {{ listen {NORTHWIND}:80; root {place}; }}\n\
             server {{ listen {NORTHWIND}:5061 ssl; ssl_certificate {chain}; ssl_certificate_key {key}; }} }}\n"
        ),
    )?;
    let mut command = world.net.northwind.command("nginx");
    command.arg("-c").arg(&conf).args(["-e", "stderr"]);
    let mut server = Process::start("nginx-crl", &mut command, &world.work)?;
    server.wait_listening(&world.net.northwind, &[("tcp", &format!("{NORTHWIND}:80"))])?;
    Ok((server, edge))
}

/// Alpine's edge, by the key that its listener shows; then somebody else with as good a certificate.
fn called_back(world: &World, edge: &Pair) -> Result<Seen> {
    let seen = passes(world, edge, "alpine.test")?;
    let other = server_only(world, "alpine-other")?;
    refused(world, &other, "alpine.test", "403", "1027;")?;
    Ok(Seen::text(format!("{seen}; another key: 403")))
}

fn over_rate(world: &World) -> Result<Seen> {
    let pair = partner(world, "sip.alpine.test")?;
    let name = CONTOSO.public_name("sip");
    let mut stream = TlsStream::open(&world.net.northwind, &dial(world, &pair, &name))?;
    // More than a few messages do not wait for a proof: it has to stand before the burst.
    stream.say(&message("alpine.test", "first"))?;
    let first = stream.heard(EXCHANGE).join("\n");
    if !first.contains("SIP/2.0 ") {
        bail!("no answer to the first message");
    }
    let mut all = String::new();
    for number in 0..BURST {
        all += &message("alpine.test", &format!("burst{number}"));
    }
    stream.say(&all)?;
    let answer = stream.heard(EXCHANGE).join("\n");
    let told = answer.matches("SIP/2.0 503 ").count();
    let when = answer.matches("Retry-After: ").count();
    if told == 0 || when < told {
        bail!("{told} of {BURST} were told to wait, {when} of them until when");
    }
    let list = world.contoso.edgectl(&["federation", "watch", "--json"])?;
    let list: serde_json::Value = serde_json::from_str(&list).context("the watch list")?;
    let entries = list
        .pointer("/entries")
        .and_then(serde_json::Value::as_array);
    let over = entries.into_iter().flatten().any(|entry| {
        entry["domains"][0] == "alpine.test" && entry["refused"]["rate"].as_u64() > Some(0)
    });
    if !over {
        bail!("it is not on the watch list: {list}");
    }
    Ok(Seen::text(format!(
        "{told} of {BURST} at once: 503 with Retry-After, and on the watch list"
    )))
}

fn blocked(world: &World) -> Result<Seen> {
    let asked = Counters::set(
        &world.net.internet,
        &[Meter {
            name: "dns_of_contoso",
            hook: Hook::Input,
            matches: &format!("ip saddr {} udp dport 53", CONTOSO.access),
        }],
    )?;
    let pair = partner(world, "sip.alpine.test")?;
    refused(world, &pair, "evil.test", "403", "1027;")?;
    let count = asked.count("dns_of_contoso")?.packets;
    if count != 0 {
        bail!("{count} packets went to the name server");
    }
    // The counter does count: an unknown domain is asked for.
    refused(world, &pair, "nowhere.test", "403", "1027;")?;
    let count = asked.count("dns_of_contoso")?.packets;
    if count == 0 {
        bail!("the counter counts nothing");
    }
    Ok(Seen::text(format!(
        "403 and no question; {count} for a domain that is not blocked"
    )))
}

fn revoked(world: &mut World) -> Result<Seen> {
    let issue = |label: &str, serial| {
        let wish = Wish {
            serial: Some(serial),
            crl: Some(CRL_URL.to_owned()),
            ..Wish::default()
        };
        world.public_ca.issue_as(label, &["sip.alpine.test"], &wish)
    };
    let (good, bad) = (issue("crl-good", REVOKED + 1)?, issue("crl-bad", REVOKED)?);
    // "hard" lets nobody in whose list is not there yet; seeing the certificate has it fetched.
    no_answer(world, &good, "alpine.test")?;
    crate::lab::bounded::until("the list fetched", Duration::from_secs(8), || {
        Ok(world
            .contoso
            .daemon(Service::Access)?
            .log()
            .contains("revocation list fetched"))
    })?;
    let seen = passes(world, &good, "alpine.test")?;
    no_answer(world, &bad, "alpine.test")?;
    Ok(Seen::text(format!("its neighbour: {seen}")))
}

fn passes(world: &World, pair: &Pair, domain: &str) -> Result<String> {
    let before = world.director_c.requests("MESSAGE").len();
    let answer = exchange(world, pair, &message(domain, "pass"))?;
    if world.director_c.requests("MESSAGE").len() == before {
        bail!("it did not reach the Director: {answer:?}");
    }
    let line = answer
        .lines()
        .find(|line| line.starts_with("SIP/2.0 "))
        .unwrap_or_default();
    Ok(format!("the Director says {line:?}"))
}

fn refused(world: &World, pair: &Pair, domain: &str, status: &str, why: &str) -> Result<Seen> {
    let before = world.director_c.requests("MESSAGE").len();
    let answer = exchange(world, pair, &message(domain, "refuse"))?;
    if world.director_c.requests("MESSAGE").len() != before {
        bail!("it reached the Director");
    }
    let told = answer.contains(&format!("SIP/2.0 {status} "))
        && answer.contains(&format!("ms-diagnostics-public: {why}"));
    if !told {
        bail!("answered {answer:?}");
    }
    Ok(Seen::text(format!("{domain}: {status}, {why}")))
}

/// The handshake fails; what is written into it is lost.
fn no_answer(world: &World, pair: &Pair, domain: &str) -> Result<()> {
    let before = world.director_c.requests("MESSAGE").len();
    let answer = exchange(world, pair, &message(domain, "nobody")).unwrap_or_default();
    if answer.contains("SIP/2.0 ") || world.director_c.requests("MESSAGE").len() != before {
        bail!("it was let in: {answer:?}");
    }
    Ok(())
}

fn exchange(world: &World, pair: &Pair, text: &str) -> Result<String> {
    let name = CONTOSO.public_name("sip");
    let dial = dial(world, pair, &name);
    tls_client::exchange(&world.net.northwind, &dial, text.as_bytes(), EXCHANGE)
        .map(|answer| String::from_utf8_lossy(&answer).into_owned())
}

fn dial<'a>(world: &'a World, pair: &'a Pair, name: &'a str) -> Dial<'a> {
    Dial {
        address: CONTOSO.access,
        port: 5061,
        name,
        ca: &world.public_ca.file,
        pair: Some(pair),
    }
}

fn message(domain: &str, label: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    write!(
        text,
        "MESSAGE sip:bob@contoso.test SIP/2.0\r\n\
         Via: SIP/2.0/TLS {NORTHWIND}:5061;branch=z9hG4bK-{label}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:carol@{domain}>;tag={label}\r\n\
         To: <sip:bob@contoso.test>\r\n\
         Call-ID: {label}@{domain}\r\n\
         CSeq: 1 MESSAGE\r\n\
         Content-Type: text/plain\r\n\
         Content-Length: 2\r\n\r\nhi"
    )
    .ok();
    text
}

/// What the lab's own configuration says.
const CONTOSO_RULES: &str = "enabled = true\ndiscovery = false\nrevocation = \"off\"\n";
const DISCOVERY: &str = "enabled = true\ndiscovery = true\nblocked = [\"evil.test\"]\n\
    providers = [{ name = \"Live\", fqdn = \"edge.provider.test\", public = true, domains = [\"live.test\"] }]\n\
    revocation = \"off\"\n";
const STRICT: &str =
    "enabled = true\ndiscovery = true\nclient_eku = \"client\"\nrevocation = \"off\"\n";
const CALLING: &str = "enabled = true\ndiscovery = true\nclient_eku = \"client\"\n\
    callback = \"when-needed\"\nrevocation = \"off\"\n";
const REVOKING: &str = "enabled = true\ndiscovery = true\nrevocation = \"hard\"\n";
const DEFAULT_ROUTE: &str =
    "enabled = true\ndefault_route = { fqdn = \"edge.clearing.test\" }\nrevocation = \"off\"\n";
const CRL_URL: &str = "http://crl.alpine.test/public.crl";
const REVOKED: u64 = 4711;
/// More than the burst of 40 by far.
const BURST: usize = 70;
const EXCHANGE: Duration = Duration::from_millis(1500);

//! Step 3: a user of fabrikam.test and a user of contoso.test exchange messages over two edges that
//! found each other by DNS; a domain whose certificate does not prove its From is refused.

use crate::lab::phone::Phone;
use crate::lab::plan::{CONTOSO, NORTHWIND, NORTHWIND_DOMAIN};
use crate::lab::report::{Report, Seen};
use crate::lab::tls_client::{self, Dial};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail};
use std::time::Duration;

/// Shows step 3.
pub fn show(world: &mut World, report: &mut Report) {
    report.check("3", "a partner's user and ours exchange messages", || {
        exchange(world)
    });
    report.check("3", "a certificate that proves its From is let in", || {
        genuine(world)
    });
    report.check(
        "3",
        "a certificate that does not prove its From is refused",
        || refused(world, "sip.tailspin.test", NORTHWIND_DOMAIN),
    );
    report.check(
        "3",
        "a partner's certificate does not speak for another partner",
        || refused(world, "sip.northwind.test", "fabrikam.test"),
    );
    report.check("3", "a partner does not speak for our own domain", || {
        refused(world, "sip.northwind.test", CONTOSO.domain)
    });
}

fn exchange(world: &World) -> Result<Seen> {
    let bob = world.remote_account("bob", "carol@fabrikam.test", None)?;
    let carol = world.inside_account("carol", "bob@contoso.test")?;
    let mut bob = Phone::sign_in(&world.net.home_b, &bob, &world.public_ca.file, &world.work)?;
    let mut carol = Phone::sign_in(
        &world.net.inside_f,
        &carol,
        &world.inside_ca_f.file,
        &world.work,
    )?;
    carol.command("message", QUESTION)?;
    let there = bob
        .wait_logged(QUESTION, MESSAGE_LIMIT)
        .with_context(|| last_words(&carol))?;
    bob.command("message", ANSWER)?;
    let back = carol
        .wait_logged(ANSWER, MESSAGE_LIMIT)
        .with_context(|| last_words(&bob))?;
    bob.quit()?;
    carol.quit()?;
    Ok(Seen::bytes(
        format!(
            "there in {} ms, back in {} ms",
            there.as_millis(),
            back.as_millis()
        ),
        u64::try_from(QUESTION.len() + ANSWER.len())?,
    ))
}

/// The neighbour of the refusals below: the same request, with a certificate for the right name.
fn genuine(world: &World) -> Result<Seen> {
    let bob = world.remote_account("bob", "carol@fabrikam.test", None)?;
    let mut bob = Phone::sign_in(&world.net.home_b, &bob, &world.public_ca.file, &world.work)?;
    let answer = message(world, "sip.northwind.test", NORTHWIND_DOMAIN, "genuine")?;
    expect(&answer, |status| status == 200)?;
    bob.wait_logged(GREETING, MESSAGE_LIMIT)?;
    bob.quit()?;
    Ok(Seen::text(format!(
        "answered {:?}, and the phone shows it",
        first_line(&answer)
    )))
}

/// Sends one MESSAGE as northwind's edge would, over mutual TLS with a certificate for `name`.
fn message(world: &World, name: &str, from_domain: &str, label: &str) -> Result<String> {
    let pair = world
        .public_ca
        .issue(&format!("northwind-{name}"), &[name])?;
    let dial = Dial {
        address: CONTOSO.access,
        port: 5061,
        name: &CONTOSO.public_name("sip"),
        ca: &world.public_ca.file,
        pair: Some(&pair),
    };
    let request = format!(
        "MESSAGE sip:bob@contoso.test SIP/2.0\r\n\
         Via: SIP/2.0/TLS {NORTHWIND}:5061;branch=z9hG4bK-{label}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:mallory@{from_domain}>;tag={label}\r\n\
         To: <sip:bob@contoso.test>\r\n\
         Call-ID: {label}@{NORTHWIND}\r\n\
         CSeq: 1 MESSAGE\r\n\
         Content-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{GREETING}",
        GREETING.len()
    );
    tls_client::exchange(&world.net.northwind, &dial, request.as_bytes(), EXCHANGE)
        .map(|answer| String::from_utf8_lossy(&answer).into_owned())
}

fn refused(world: &World, name: &str, from_domain: &str) -> Result<Seen> {
    let before = world.director_c.requests("MESSAGE").len();
    let label = format!("forged-{}", from_domain.replace('.', "-"));
    let answer = message(world, name, from_domain, &label)?;
    let after = world.director_c.requests("MESSAGE");
    if after.len() != before {
        bail!("it reached the Director: {:?}", after.last());
    }
    expect(&answer, |status| status == 403)?;
    Ok(Seen::text(format!(
        "certificate of {name}, From {from_domain}: {:?}, nothing reached the inside",
        first_line(&answer)
    )))
}

fn expect(answer: &str, lawful: impl Fn(u16) -> bool) -> Result<()> {
    let status = answer
        .split("SIP/2.0 ")
        .filter_map(|rest| rest.get(..3)?.parse().ok())
        // 100 is no answer yet.
        .find(|&status| status >= 200);
    match status {
        Some(status) if lawful(status) => Ok(()),
        Some(status) => bail!("answered {status}: {answer:?}"),
        None => bail!("no final answer: {answer:?}"),
    }
}

fn first_line(answer: &str) -> &str {
    let last = answer.rfind("SIP/2.0 ").unwrap_or(0);
    answer[last..].lines().next().unwrap_or_default()
}

fn last_words(phone: &Phone) -> String {
    let log = phone.log();
    format!(
        "{} said: {}",
        phone.user,
        crate::lab::bounded::tail(log.trim(), 300)
    )
}

const QUESTION: &str = "Is the drawing done?";
const ANSWER: &str = "It is in your mail.";
const GREETING: &str = "Greetings from northwind";
const MESSAGE_LIMIT: Duration = Duration::from_secs(10);
const EXCHANGE: Duration = Duration::from_secs(3);

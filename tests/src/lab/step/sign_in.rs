//! Step 1: two remote users sign in from behind different NATs; a wrong password is refused.

use crate::lab::phone::{Phone, param};
use crate::lab::plan::{CONTOSO, HOME_A, HOME_B};
use crate::lab::report::{Report, Seen};
use crate::lab::world::World;
use anyhow::{Result, bail};
use std::time::Duration;

/// Shows step 1.
pub fn show(world: &mut World, report: &mut Report) {
    report.check("1", "two remote users sign in through the edge", || {
        both_sign_in(world)
    });
    report.check("1", "a wrong password is refused", || wrong_password(world));
}

fn both_sign_in(world: &World) -> Result<Seen> {
    let ca = &world.public_ca.file;
    let alice = world.remote_account("alice", "bob@contoso.test", None)?;
    let bob = world.remote_account("bob", "alice@contoso.test", None)?;
    let alice = Phone::sign_in(&world.net.home_a, &alice, ca, &world.work)?;
    let bob = Phone::sign_in(&world.net.home_b, &bob, ca, &world.work)?;
    let registers = world.director_c.requests("REGISTER");
    // The Director must have seen both, and from nobody but the edge.
    for user in ["alice", "bob"] {
        let from = format!("from=sip:{user}@{}", CONTOSO.domain);
        if !registers.iter().any(|line| line.starts_with(&from)) {
            bail!("the Director saw no REGISTER of {user}: {registers:?}");
        }
    }
    let peer = format!("peer={}", CONTOSO.internal);
    if let Some(stranger) = registers.iter().find(|line| !line.ends_with(&peer)) {
        bail!("a REGISTER did not come from the edge: {stranger}");
    }
    alice.quit()?;
    bob.quit()?;
    Ok(Seen::text(format!(
        "alice from {}, bob from {}; {} REGISTER requests at the Director, all from the edge",
        HOME_A.public,
        HOME_B.public,
        registers.len()
    )))
}

fn wrong_password(world: &World) -> Result<Seen> {
    let mut account = world.remote_account("alice", "bob@contoso.test", None)?;
    account.password = "not-the-password".to_owned();
    let host = &world.net.home_a;
    let mut phone = Phone::start(host, &account, &world.public_ca.file, &world.work)?;
    phone.register(&account)?;
    let answer = phone.wait_any(&["REGISTER_OK", "REGISTER_FAIL"], Duration::from_secs(10))?;
    if answer.get("type").and_then(serde_json::Value::as_str) != Some("REGISTER_FAIL") {
        bail!("the phone signed in with a wrong password");
    }
    let reason = param(&answer);
    // 401 is the Director's own answer; anything else would be a fault on the way, not a refusal.
    if !reason.starts_with("401") {
        bail!("refused with {reason:?} instead of the Director's 401");
    }
    phone.quit()?;
    Ok(Seen::text(format!("the phone was told {reason:?}")))
}

//! Step 7: an array. Whatever member a client came to, the array is one edge.

use crate::lab::array::ArrayWorld;
use crate::lab::phone::Phone;
use crate::lab::plan::{ARRAY, HOME_A, HOME_B};
use crate::lab::report::{Report, Seen};
use anyhow::{Result, bail};
use edge_common::ports::Service;

/// Shows step 7.
pub fn show(world: &mut ArrayWorld, report: &mut Report) {
    report.check(
        "7",
        "two users sign in through the balancer, each at another member",
        || sign_in(world),
    );
}

fn sign_in(world: &ArrayWorld) -> Result<Seen> {
    let ca = &world.public_ca.file;
    let alice = world.remote_account("alice", "bob@contoso.test", None)?;
    let bob = world.remote_account("bob", "alice@contoso.test", None)?;
    let alice = Phone::sign_in(&world.net.home_a, &alice, ca, &world.work)?;
    let bob = Phone::sign_in(&world.net.home_b, &bob, ca, &world.work)?;
    let mut clients = Vec::new();
    for host in &world.members {
        let open = [("listener", "client")];
        clients.push(
            host.metrics(Service::Access)?
                .count("edge_access_connections", &open)?,
        );
    }
    if clients != [1, 1] {
        bail!("the members have {clients:?} clients");
    }
    let registers = world.director.requests("REGISTER");
    for member in ARRAY.members {
        let peer = format!("peer={}", member.internal);
        if !registers.iter().any(|line| line.ends_with(&peer)) {
            bail!(
                "the Director saw no REGISTER from {}: {registers:?}",
                member.name
            );
        }
    }
    alice.quit()?;
    bob.quit()?;
    Ok(Seen::text(format!(
        "alice from {} at one member, bob from {} at the other",
        HOME_A.public, HOME_B.public
    )))
}

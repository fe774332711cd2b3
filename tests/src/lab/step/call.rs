//! Step 2: one user calls the other; every packet of sound goes over edge-av.

use crate::lab::counters::{Count, Counters};
use crate::lab::phone::{Phone, Relay};
use crate::lab::plan::{CONTOSO, HOME_A, HOME_B, STRANGER};
use crate::lab::report::{Report, Seen};
use crate::lab::tone;
use crate::lab::turn_client::{self, PAYLOAD, Run};
use crate::lab::world::{Meters, World};
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

/// Shows step 2. `step` names the rows, as it is shown once more behind the 1:1 NAT.
pub fn show(world: &mut World, report: &mut Report, step: &str) {
    let mut fetched = None;
    report.check(
        step,
        "an inside server fetches media credentials (MRAS)",
        || {
            let relay = world.contoso.mras_credentials("alice@contoso.test")?;
            let seen = format!(
                "user name of {} characters for {}",
                relay.username.len(),
                relay.host
            );
            fetched = Some(relay);
            Ok(Seen::text(seen))
        },
    );
    let Some(relay) = fetched else {
        report.check(step, "a call over the relay", || {
            bail!("not run: there are no credentials")
        });
        return;
    };
    report.check(
        step,
        "a foreign TURN client uses them, and none that is changed",
        || changed_credentials(world, &relay),
    );
    report.check(
        step,
        "stopping edge-av stops the sound, and nothing takes another way",
        || relay_is_the_only_way(world, &relay),
    );
    report.check(
        step,
        "two calls; the phones sit on different shards at least once",
        || call_until_shards_differ(world, &relay),
    );
    report.check(
        step,
        "a user inside relays over the internal interface",
        || from_inside(world, &relay),
    );
    report.check(
        step,
        "two users relayed by one host hear each other over TURN/TCP too",
        || hairpin_over_tcp(world, &relay),
    );
    report.check(
        step,
        "the meters at the homes count what goes straight between them",
        || straight_is_counted(world),
    );
}

fn changed_credentials(world: &World, relay: &Relay) -> Result<Seen> {
    let host = &world.net.stranger;
    let _peer = turn_client::echo_peer(host, STRANGER, &world.work)?;
    let run = Run {
        server: CONTOSO.av,
        port: 3478,
        tcp: false,
        peer: Some(STRANGER),
        ipv6: false,
        messages: 20,
    };
    let counted = turn_client::run(host, relay, &run).context("with good credentials")?;
    if counted.sent != u64::from(run.messages) || counted.received < counted.sent {
        bail!(
            "good credentials, but {counted:?} of {} messages",
            run.messages
        );
    }
    // Behind a 1:1 NAT too: the host's own address there would be of no use to anybody.
    if counted.relayed != BTreeSet::from([CONTOSO.av.to_owned()]) {
        bail!(
            "the relayed address is {:?} and not {}",
            counted.relayed,
            CONTOSO.av
        );
    }
    let wrong = [
        Relay {
            password: changed(&relay.password),
            ..relay.clone()
        },
        Relay {
            username: changed(&relay.username),
            ..relay.clone()
        },
    ];
    for relay in &wrong {
        match turn_client::run(host, relay, &run) {
            Ok(counted) => bail!("a changed credential was accepted: {counted:?}"),
            Err(error) => {
                let text = format!("{error:#}");
                if !text.contains("Cannot complete Allocation") {
                    bail!("a changed credential failed, but not at Allocate: {text}");
                }
            }
        }
    }
    Ok(Seen::bytes(
        format!(
            "{} of {} echoed by way of {}; changed password and changed user name refused",
            counted.received, counted.sent, CONTOSO.av
        ),
        counted.received * u64::from(PAYLOAD) * 2,
    ))
}

/// Another letter or digit in place of the fifth character: still well-formed base64.
fn changed(text: &str) -> String {
    text.char_indices()
        .map(|(at, letter)| match (at, letter) {
            (4, 'A') => 'B',
            (4, _) => 'A',
            (_, letter) => letter,
        })
        .collect()
}

/// The two phones of a call.
struct Pair {
    alice: Phone,
    bob: Phone,
}

impl Pair {
    fn sign_in(world: &World, relay: &Relay) -> Result<Self> {
        let account = |user, friend| world.remote_account(user, friend, Some(relay.clone()));
        let ca = &world.public_ca.file;
        let alice = account("alice", "bob@contoso.test")?;
        let bob = account("bob", "alice@contoso.test")?;
        Ok(Self {
            alice: Phone::sign_in(&world.net.home_a, &alice, ca, &world.work)?,
            bob: Phone::sign_in(&world.net.home_b, &bob, ca, &world.work)?,
        })
    }

    fn call(&mut self) -> Result<()> {
        self.alice.command("dial", "sip:bob@contoso.test")?;
        self.bob.wait("CALL_ESTABLISHED", CALL_LIMIT)?;
        self.alice.wait("CALL_ESTABLISHED", CALL_LIMIT)?;
        // Sound is there: before it, nothing that is counted would mean anything.
        self.alice.wait("CALL_RTPESTAB", CALL_LIMIT).map(drop)
    }

    fn hang_up(&mut self) -> Result<()> {
        self.alice.command("hangup", "")?;
        self.bob.wait("CALL_CLOSED", CALL_LIMIT)?;
        // The summaries and the recordings are written after the event.
        thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    fn quit(self) -> Result<()> {
        self.alice.quit()?;
        self.bob.quit()
    }
}

fn relay_is_the_only_way(world: &mut World, relay: &Relay) -> Result<Seen> {
    let mut phones = Pair::sign_in(world, relay)?;
    phones.call()?;
    thread::sleep(Duration::from_secs(1));
    let flowing = Media::read(&world.meters)?;
    thread::sleep(Duration::from_secs(1));
    let before = Media::read(&world.meters)?;
    let rate = before.heard_since(&flowing)?;
    if rate < 50 {
        bail!("only {rate} packets in a second before the stop");
    }
    world.contoso.kill_one(Service::Av);
    // What is on the wire at that moment may still arrive.
    thread::sleep(Duration::from_millis(300));
    let stopped = Media::read(&world.meters)?;
    thread::sleep(Duration::from_secs(2));
    let after = Media::read(&world.meters)?;
    let still = after.heard_since(&stopped)?;
    phones.alice.command("hangup", "")?;
    phones.quit()?;
    world.restart_av()?;
    if still != 0 {
        bail!("{still} packets arrived at the homes after edge-av had gone");
    }
    after.nothing_direct()?;
    Ok(Seen::text(format!(
        "{rate} packets a second into the homes before, 0 in the 2 s after; 0 on any other way"
    )))
}

fn call_until_shards_differ(world: &World, relay: &Relay) -> Result<Seen> {
    let (mut seen, mut moved, mut crossed) = (Vec::new(), 0, false);
    for round in 1..=CALLS_MAX {
        let mut phones = Pair::sign_in(world, relay)?;
        let before = Media::read(&world.meters)?;
        let (one, two) = world.contoso.hairpins()?;
        phones.call()?;
        thread::sleep(TALK);
        phones.hang_up()?;
        let media = Media::read(&world.meters)?;
        let line = judge(&phones, &before, &media)?;
        moved += media.bytes_since(&before)?;
        let (one, two) = {
            let after = world.contoso.hairpins()?;
            (after.0 - one, after.1 - two)
        };
        // The sound is nearly all that was relayed; the few packets of RTCP have sockets of their own.
        crossed |= two > one;
        seen.push(format!(
            "call {round}: {two} packets between shards, {one} within one; {line}"
        ));
        phones.quit()?;
        if round >= CALLS_MIN && crossed {
            return Ok(Seen::bytes(seen.join("; "), moved));
        }
    }
    bail!(
        "in {CALLS_MAX} calls the phones never sat on different shards: {}",
        seen.join("; ")
    )
}

/// Sound both ways: counted by the phones, counted by nft, and the right pitch.
fn judge(phones: &Pair, before: &Media, after: &Media) -> Result<String> {
    let (sent_a, got_a) = phones.alice.rtp_packets()?;
    let (sent_b, got_b) = phones.bob.rtp_packets()?;
    let talk = u64::try_from(TALK.as_millis() / 20)?;
    for (who, sent, got) in [
        ("alice to bob", sent_a, got_b),
        ("bob to alice", sent_b, got_a),
    ] {
        if sent < talk * 9 / 10 {
            bail!("{who}: only {sent} packets were sent in {TALK:?}");
        }
        if got * 100 < sent * 95 {
            bail!("{who}: {got} of {sent} packets arrived, fewer than 95 %");
        }
    }
    let at_alice = tone::listen(&phones.alice.heard()?, TONE_B);
    let at_bob = tone::listen(&phones.bob.heard()?, TONE_A);
    if !at_alice.is_tone(TONE_B) || !at_bob.is_tone(TONE_A) {
        bail!("not the tones that were sent: alice heard {at_alice:?}, bob heard {at_bob:?}");
    }
    after.nothing_direct()?;
    // Each packet that a phone got came through its NAT from the relay's address.
    let relayed = after.heard_since(before)?;
    if relayed < got_a + got_b {
        bail!(
            "nft saw {relayed} packets from the relay, the phones {}",
            got_a + got_b
        );
    }
    Ok(format!(
        "a→b {got_b}/{sent_a} at {:.0} Hz, b→a {got_a}/{sent_b} at {:.0} Hz, 0 packets direct",
        at_bob.hertz, at_alice.hertz
    ))
}

/// The internal interface serves users inside, over UDP and TCP; what they send leaves outside.
fn from_inside(world: &World, relay: &Relay) -> Result<Seen> {
    let _peer = turn_client::echo_peer(&world.net.stranger, STRANGER, &world.work)?;
    let mut moved = 0;
    for (tcp, port) in [(false, 3478), (true, 443)] {
        let run = Run {
            server: CONTOSO.internal,
            port,
            tcp,
            peer: Some(STRANGER),
            ipv6: false,
            messages: 20,
        };
        let counted = turn_client::run(&world.net.inside_c, relay, &run)?;
        if counted.sent == 0 || counted.received < counted.sent {
            bail!("port {port}: {counted:?}");
        }
        moved += counted.received * u64::from(PAYLOAD) * 2;
    }
    Ok(Seen::bytes(
        "20 of 20 over UDP 3478, 20 of 20 over TCP 443",
        moved,
    ))
}

fn hairpin_over_tcp(world: &World, relay: &Relay) -> Result<Seen> {
    let run = Run {
        server: CONTOSO.av,
        port: 443,
        tcp: true,
        peer: None,
        ipv6: false,
        messages: 20,
    };
    let counted = turn_client::run(&world.net.stranger, relay, &run)?;
    if counted.received < counted.sent || counted.sent == 0 {
        bail!("{counted:?}");
    }
    Ok(Seen::bytes(
        format!(
            "{} of {} messages between two TCP clients",
            counted.received, counted.sent
        ),
        counted.received * u64::from(PAYLOAD),
    ))
}

/// The zeros above are worth something: a datagram from one home to the other is counted where it leaves.
/// To be shown last, as it ends those zeros.
fn straight_is_counted(world: &World) -> Result<Seen> {
    let before = Media::read(&world.meters)?;
    before.nothing_direct()?;
    for (home, other) in [
        (&world.net.home_a, HOME_B.public),
        (&world.net.home_b, HOME_A.public),
    ] {
        let other: Ipv4Addr = other.parse()?;
        home.within(|| -> Result<()> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"straight", (other, STRAIGHT_PORT))?;
            Ok(())
        })??;
    }
    thread::sleep(Duration::from_millis(200));
    let after = Media::read(&world.meters)?;
    let at = |counts: &BTreeMap<String, Count>| meter(counts, "direct_out").map(|one| one.packets);
    let (a, b) = (at(&after.at_a)?, at(&after.at_b)?);
    if (a, b) != (1, 1) || after.heard_since(&before)? != 0 {
        bail!("one datagram was sent from each home; the meters show {a} and {b}");
    }
    Ok(Seen::text(
        "0 in all calls; 1 from each home when one was sent",
    ))
}

/// What the two NATs have seen.
struct Media {
    at_a: BTreeMap<String, Count>,
    at_b: BTreeMap<String, Count>,
}

impl Media {
    fn read(meters: &Meters) -> Result<Self> {
        let read = |counters: &Counters| counters.read();
        Ok(Self {
            at_a: read(&meters.nat_a)?,
            at_b: read(&meters.nat_b)?,
        })
    }

    /// Packets from the relay into the homes since `earlier`.
    fn heard_since(&self, earlier: &Self) -> Result<u64> {
        let (now, then) = (self.total("relay_in")?, earlier.total("relay_in")?);
        Ok(now.packets.saturating_sub(then.packets))
    }

    fn bytes_since(&self, earlier: &Self) -> Result<u64> {
        let sum = |media: &Self| -> Result<u64> {
            Ok(media.total("relay_in")?.bytes + media.total("relay_out")?.bytes)
        };
        Ok(sum(self)?.saturating_sub(sum(earlier)?))
    }

    fn nothing_direct(&self) -> Result<()> {
        let direct = self.total("direct_in")?.packets + self.total("direct_out")?.packets;
        if direct != 0 {
            bail!(
                "{direct} packets went past the relay: {:?} {:?}",
                self.at_a,
                self.at_b
            );
        }
        Ok(())
    }

    fn total(&self, name: &str) -> Result<Count> {
        let (a, b) = (meter(&self.at_a, name)?, meter(&self.at_b, name)?);
        Ok(Count {
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
        })
    }
}

fn meter(counts: &BTreeMap<String, Count>, name: &str) -> Result<Count> {
    let found = counts.get(name).copied();
    found.with_context(|| format!("a home has no meter {name}"))
}

const TONE_A: f64 = 440.0;
const TONE_B: f64 = 880.0;
const TALK: Duration = Duration::from_secs(4);
/// Nobody listens there, and no rule of the lab names it.
const STRAIGHT_PORT: u16 = 20_000;
const CALLS_MIN: u32 = 2;
/// Each call falls on one shard with probability one half: all of these on one is 1 in 4096.
const CALLS_MAX: u32 = 12;
const CALL_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_text_differs_and_keeps_its_length() {
        for text in ["abcdefgh", "abcdAfgh"] {
            assert_ne!(changed(text), text);
            assert_eq!(changed(text).len(), text.len());
        }
    }
}

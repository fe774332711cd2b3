//! Step 7: an array. Whatever member a client came to, the array is one edge.

use crate::lab::array::ArrayWorld;
use crate::lab::bounded;
use crate::lab::phone::Phone;
use crate::lab::plan::{ARRAY, HOME_A, HOME_B, Member};
use crate::lab::report::{Report, Seen};
use crate::lab::sip_client::{self, SipClient};
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Shows step 7.
pub fn show(world: &mut ArrayWorld, report: &mut Report) {
    let mut row = |what, shown: &mut dyn FnMut() -> Result<Seen>| report.check("7", what, shown);
    row(
        "two users sign in through the balancer, each at another member",
        &mut || sign_in(world),
    );
    row(
        "they write and call each other, over the link where it is needed",
        &mut || over_the_link(world),
    );
    row(
        "a TLS ticket of one member resumes at the other",
        &mut || tickets(world),
    );
    row(
        "a PROXY header from anybody but the balancer, and none from it, are refused",
        &mut || proxy_headers(world),
    );
    row("nobody but a member may link", &mut || {
        strangers_link(world)
    });
    row(
        "a member drains: /readyz says no, no connection fails, the other takes over",
        &mut || drained(world),
    );
    row(
        "a member is killed under load: every client is served again, live dialogs go on",
        &mut || killed(world),
    );
}

fn sign_in(world: &ArrayWorld) -> Result<Seen> {
    let (alice, bob) = phones(world)?;
    let clients = clients(world)?;
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

fn phones(world: &ArrayWorld) -> Result<(Phone, Phone)> {
    let ca = &world.public_ca.file;
    let alice = world.remote_account("alice", "bob@contoso.test", None)?;
    let bob = world.remote_account("bob", "alice@contoso.test", None)?;
    Ok((
        Phone::sign_in(&world.net.home_a, &alice, ca, &world.work)?,
        Phone::sign_in(&world.net.home_b, &bob, ca, &world.work)?,
    ))
}

/// Clients of each member.
fn clients(world: &ArrayWorld) -> Result<Vec<u64>> {
    let count = |host: &crate::lab::edge_host::EdgeHost| {
        let page = host.metrics(Service::Access)?;
        page.count("edge_access_connections", &[("listener", "client")])
    };
    world.members.iter().map(count).collect()
}

/// Messages that went over the links, of both members together.
fn linked(world: &ArrayWorld) -> Result<u64> {
    let mut sum = 0;
    for host in &world.members {
        let page = host.metrics(Service::Access)?;
        let sent = page.sum("edge_access_array_messages_sent_total", &[]);
        sum += sent.map_or(0, |value| format!("{value:.0}").parse().unwrap_or(0));
    }
    Ok(sum)
}

fn over_the_link(world: &ArrayWorld) -> Result<Seen> {
    let before = linked(world)?;
    let (mut alice, mut bob) = phones(world)?;
    writes(&mut alice, &mut bob, "from one member to the other")?;
    writes(&mut bob, &mut alice, "and back again")?;
    let messages = linked(world)? - before;
    alice.command("dial", "sip:bob@contoso.test")?;
    bob.wait("CALL_ESTABLISHED", Duration::from_secs(5))?;
    alice.wait("CALL_ESTABLISHED", Duration::from_secs(5))?;
    bob.command("hangup", "")?;
    alice.wait("CALL_CLOSED", Duration::from_secs(5))?;
    let all = linked(world)? - before;
    if all == 0 {
        bail!("nothing went over the link: the Director reached each client by its own member");
    }
    alice.quit()?;
    bob.quit()?;
    Ok(Seen::text(format!(
        "2 messages and a call, dialled and hung up; {all} SIP messages over the link, {messages} of them for the messages"
    )))
}

fn writes(from: &mut Phone, to: &mut Phone, text: &str) -> Result<()> {
    from.command("message", text)?;
    to.wait_logged(text, Duration::from_secs(5)).map(drop)
}

fn tickets(world: &ArrayWorld) -> Result<Seen> {
    let [first, second] = members()?;
    let file = world.work.join("session.pem");
    let path = file.to_string_lossy().into_owned();
    let ask = |member: &Member, option: &str| {
        let mut command = world.net.stranger.command("openssl");
        command
            .args(["s_client", "-tls1_3", "-ign_eof"])
            .args(["-connect", &format!("{}:443", member.access)])
            .args(["-servername", &ARRAY.public_name("sip")])
            .arg("-CAfile")
            .arg(&world.public_ca.file)
            .args([option, &path]);
        // Tickets come with the first bytes that are sent back: the answer to a keep-alive.
        let done = bounded::run_with_input(&mut command, b"\r\n\r\n".to_vec(), TLS_LIMIT);
        done.map(|done| done.text())
    };
    // s_client stays until the edge closes a connection without a message: the limit ends it, and that is no fault.
    let ask = |member: &Member, option: &str| ask(member, option).or_else(|error| quoted(&error));
    ask(first, "-sess_out")?;
    if std::fs::metadata(&file).map_or(0, |meta| meta.len()) == 0 {
        bail!("{} gave no ticket", first.name);
    }
    let own = ask(first, "-sess_in")?;
    let other = ask(second, "-sess_in")?;
    for (member, text) in [(first, own), (second, other)] {
        if !text.contains("Reused, TLSv1.3") {
            bail!(
                "{} did not resume: {}",
                member.name,
                bounded::tail(&text, 400)
            );
        }
    }
    Ok(Seen::text("Reused, TLSv1.3 at both"))
}

/// What a program had printed when its time was over.
fn quoted(error: &anyhow::Error) -> Result<String> {
    Ok(format!("{error:#}"))
}

fn members() -> Result<[&'static Member; 2]> {
    let [first, second] = ARRAY.members else {
        bail!("the plan has two members");
    };
    Ok([first, second])
}

fn proxy_headers(world: &ArrayWorld) -> Result<Seen> {
    let [first, _] = members()?;
    let before = refused(world)?;
    // Whoever could forge one would have any source address: caps and logs would speak of somebody else.
    let forged = [&SIGNATURE[..], &FORGED[..]].concat();
    for port in [443, 5061] {
        let at: SocketAddr = format!("{}:{port}", first.access).parse()?;
        let stranger = (&world.net.stranger, None);
        ends_without_a_byte(stranger, at, &forged).context("the forged header")?;
        // The balancer itself without a header: a mistake in its configuration would hide every client.
        let balancer: SocketAddr = format!("{}:0", crate::lab::plan::BALANCER_OUTSIDE).parse()?;
        let balancer = (&world.net.perimeter, Some(balancer));
        ends_without_a_byte(balancer, at, CLIENT_HELLO).context("no header")?;
    }
    let after = refused(world)?;
    let counted = (after.0 - before.0, after.1 - before.1);
    if counted != (2, 2) {
        bail!("refused and counted: {counted:?} of (2, 2)");
    }
    Ok(Seen::text(
        "ports 443 and 5061: closed without a byte, counted as proxy_forbidden and proxy_missing",
    ))
}

/// Connections of the first member that were refused for a header, and for none.
fn refused(world: &ArrayWorld) -> Result<(u64, u64)> {
    let first = world.members.first().context("a member")?;
    let page = first.metrics(Service::Access)?;
    let count = |reason| {
        page.sum(
            "edge_access_connections_refused_total",
            &[("reason", reason)],
        )
        .map_or(0, |value| format!("{value:.0}").parse().unwrap_or(0))
    };
    Ok((count("proxy_forbidden"), count("proxy_missing")))
}

fn ends_without_a_byte(
    (from, own): (&crate::lab::netns::Netns, Option<SocketAddr>),
    to: SocketAddr,
    bytes: &[u8],
) -> Result<()> {
    let mut tcp = from.within(|| dial(own, to))??;
    tcp.set_read_timeout(Some(Duration::from_secs(8)))?;
    tcp.write_all(bytes)?;
    let mut answer = Vec::new();
    match tcp.read_to_end(&mut answer) {
        Ok(_) if answer.is_empty() => Ok(()),
        Ok(_) => bail!("{to} answered with {} bytes", answer.len()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{to} did not close")),
    }
}

/// From an address of the host's own choice, if it is to be another than the first.
fn dial(own: Option<SocketAddr>, to: SocketAddr) -> Result<TcpStream> {
    let Some(own) = own else {
        return Ok(TcpStream::connect_timeout(&to, Duration::from_secs(2))?);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let tcp = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(own)?;
        socket.connect(to).await
    })?;
    let tcp = tcp.into_std()?;
    tcp.set_nonblocking(false)?;
    Ok(tcp)
}

/// A server inside with a good certificate of its own dials the link port: it is no member.
fn strangers_link(world: &ArrayWorld) -> Result<Seen> {
    let [first, _] = members()?;
    let pair = world
        .inside_ca
        .issue("mcu-link", &[&ARRAY.inside_name("mcu1")])?;
    // The firewall lets members' addresses pass and no other.
    let name = ARRAY.inside_name(first.name);
    let dial = crate::lab::tls_client::Dial {
        address: first.internal,
        port: LINK_PORT,
        name: &name,
        ca: &world.inside_ca.file,
        pair: Some(&pair),
    };
    let time = Duration::from_secs(2);
    let from_inside = crate::lab::tls_client::exchange(&world.net.inside, &dial, HELLO, time);
    if from_inside.is_ok_and(|answer| !answer.is_empty()) {
        bail!("a server inside was answered on the link port");
    }
    // From a member's address the firewall lets it pass; the certificate still proves no member.
    let before = strangers_refused(world)?;
    let other = world.net.edge("edge2")?;
    let answer = crate::lab::tls_client::exchange(other, &dial, HELLO, time);
    if answer.is_ok_and(|answer| !answer.is_empty()) {
        bail!("somebody who is no member was answered on the link");
    }
    let refused = strangers_refused(world)? - before;
    if refused != 1 {
        bail!("{refused} refusals were counted instead of 1");
    }
    Ok(Seen::text(
        "dropped by the firewall from a server inside; refused and counted from a member's address",
    ))
}

fn strangers_refused(world: &ArrayWorld) -> Result<u64> {
    let first = world.members.first().context("a member")?;
    let page = first.metrics(Service::Access)?;
    let sum = page.sum("edge_access_peers_refused_total", &[("listener", "link")]);
    Ok(sum.map_or(0, |value| format!("{value:.0}").parse().unwrap_or(0)))
}

fn drained(world: &mut ArrayWorld) -> Result<Seen> {
    let [first, _] = members()?;
    let stop = Arc::new(AtomicBool::new(false));
    let tally = Arc::new(Mutex::new((0_u32, Vec::new())));
    let tls = sip_client::trust(&world.public_ca.file)?;
    let to: SocketAddr = format!("{}:443", ARRAY.access).parse()?;
    let prober = {
        let (stop, tally, net) = (
            Arc::clone(&stop),
            Arc::clone(&tally),
            world.net.stranger.clone(),
        );
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let name = ARRAY.public_name("sip");
                let user = ("probe", ARRAY.domain);
                let served = SipClient::connect(&net, to, &name, Arc::clone(&tls), user)
                    .and_then(|mut client| client.options());
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                match served {
                    Ok(()) => tally.0 += 1,
                    Err(error) => tally.1.push(format!("{error:#}")),
                }
                drop(tally);
                thread::sleep(Duration::from_millis(30));
            }
        })
    };
    let shown = (|| {
        thread::sleep(Duration::from_millis(500));
        let host = world.member(first.name)?;
        host.begin_stop(Service::Access)?;
        world.outside.wait("clients", first.name, false)?;
        if world.member(first.name)?.is_ready(Service::Access) {
            bail!("/readyz still says yes");
        }
        // Listeners close after the notice; then everything goes to the other member.
        thread::sleep(Duration::from_secs(4));
        world.member(first.name)?.finish_stop(Service::Access)
    })();
    stop.store(true, Ordering::Relaxed);
    prober.join().ok();
    shown?;
    world.member(first.name)?.start_one(Service::Access)?;
    world.member(first.name)?.wait_ready(Service::Access)?;
    world.outside.wait("clients", first.name, true)?;
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(failed) = tally.1.first() {
        bail!(
            "{} of {} connections failed: {failed}",
            tally.1.len(),
            tally.0
        );
    }
    Ok(Seen::text(format!(
        "{} new connections meanwhile, 0 failed; the member came back",
        tally.0
    )))
}

/// One client of the load, and what became of it.
#[derive(Clone, Debug, Default)]
struct Fate {
    served_before: u32,
    reconnected: bool,
    served_after: u32,
    last_error: String,
}

fn killed(world: &mut ArrayWorld) -> Result<Seen> {
    let [first, second] = members()?;
    let load = Load::start(world, CLIENTS)?;
    // A dialog between two clients of the member that lives, set up while both members do.
    let name = ARRAY.public_name("sip");
    let at = format!("{}:443", second.access).parse()?;
    let tls = sip_client::trust(&world.public_ca.file)?;
    let connect = |user| {
        let tls = Arc::clone(&tls);
        SipClient::connect(&world.net.stranger, at, &name, tls, (user, ARRAY.domain))
    };
    let (mut caller, mut callee) = (connect("load900")?, connect("load901")?);
    caller.register()?;
    callee.register()?;
    let done = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&done);
    let answering = thread::spawn(move || -> Result<Vec<String>> {
        while !until.load(Ordering::Relaxed) {
            callee.serve(Duration::from_millis(50))?;
        }
        Ok(callee.answered)
    });
    let shown = (|| {
        let mut dialog = caller.invite("load901")?;
        load.wait_until_all_served(Duration::from_secs(15))?;
        load.kill.store(true, Ordering::Relaxed);
        world.member(first.name)?.kill_one(Service::Access);
        let killed = Instant::now();
        world.outside.wait("clients", first.name, false)?;
        let out = killed.elapsed();
        let mut sent = 0;
        while killed.elapsed() < Duration::from_secs(4) {
            caller.in_dialog(&mut dialog, "INFO")?;
            sent += 1;
            thread::sleep(Duration::from_millis(100));
        }
        caller.in_dialog(&mut dialog, "BYE")?;
        load.wait_until_all_served_again(Duration::from_secs(15))?;
        Ok::<_, anyhow::Error>((out, sent))
    })();
    done.store(true, Ordering::Relaxed);
    let answered = answering.join();
    let fates = load.end();
    let (out, sent) = shown?;
    let answered = answered.map_err(|_| anyhow::anyhow!("the callee's thread panicked"))??;
    let infos = answered.iter().filter(|method| *method == "INFO").count();
    if infos != sent {
        bail!("{sent} requests were sent in the dialog and {infos} arrived");
    }
    let moved = fates.iter().filter(|fate| fate.reconnected).count();
    if moved == 0 {
        bail!("no client was at the member that was killed");
    }
    world.member(first.name)?.start_one(Service::Access)?;
    world.member(first.name)?.wait_ready(Service::Access)?;
    world.outside.wait("clients", first.name, true)?;
    let before: u32 = fates.iter().map(|fate| fate.served_before).sum();
    let after: u32 = fates.iter().map(|fate| fate.served_after).sum();
    Ok(Seen::text(format!(
        "{CLIENTS} clients, {before} messages before; the balancer noticed in {} ms; {moved} connected anew, all \
         {CLIENTS} served, {after} messages after; {sent} of {sent} requests of a live dialog arrived",
        out.as_millis()
    )))
}

/// Clients that sign in through the balancer and write to each other without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    /// From here on the member is dead.
    kill: Arc<AtomicBool>,
    fates: Arc<Vec<Mutex<Fate>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(world: &ArrayWorld, clients: usize) -> Result<Self> {
        let to: SocketAddr = format!("{}:443", ARRAY.access).parse()?;
        let tls = sip_client::trust(&world.public_ca.file)?;
        let fates: Vec<_> = (0..clients).map(|_| Mutex::default()).collect();
        let mut load = Self {
            stop: Arc::default(),
            kill: Arc::default(),
            fates: Arc::new(fates),
            threads: Vec::new(),
        };
        for number in 0..clients {
            let (stop, kill) = (Arc::clone(&load.stop), Arc::clone(&load.kill));
            let (fates, tls) = (Arc::clone(&load.fates), Arc::clone(&tls));
            let net = world.net.stranger.clone();
            load.threads.push(thread::spawn(move || {
                let (user, friend) = (format!("load{number}"), format!("load{}", number ^ 1));
                while !stop.load(Ordering::Relaxed) {
                    let connected = SipClient::connect(
                        &net,
                        to,
                        &ARRAY.public_name("sip"),
                        Arc::clone(&tls),
                        (&user, ARRAY.domain),
                    );
                    let lived = connected
                        .and_then(|client| live(client, &friend, &stop, &kill, &fates[number]));
                    let mut fate = lock(&fates[number]);
                    if let Err(error) = lived {
                        fate.last_error = format!("{error:#}");
                    }
                    fate.reconnected |=
                        kill.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed);
                    drop(fate);
                    thread::sleep(Duration::from_millis(100));
                }
            }));
        }
        Ok(load)
    }

    fn wait_until_all_served(&self, limit: Duration) -> Result<()> {
        self.wait("before", limit, |fate| fate.served_before >= 2)
    }

    fn wait_until_all_served_again(&self, limit: Duration) -> Result<()> {
        self.wait("after", limit, |fate| fate.served_after >= 2)
    }

    fn wait(&self, when: &str, limit: Duration, served: fn(&Fate) -> bool) -> Result<()> {
        let waiting = || -> Vec<(usize, Fate)> {
            let fates = self.fates.iter().map(|fate| lock(fate).clone()).enumerate();
            fates.filter(|(_, fate)| !served(fate)).collect()
        };
        bounded::until(&format!("all clients served {when}"), limit, || {
            Ok(waiting().is_empty())
        })
        .with_context(|| format!("{:?}", waiting().first()))
        .map(drop)
    }

    fn end(self) -> Vec<Fate> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok();
        }
        self.fates.iter().map(|fate| lock(fate).clone()).collect()
    }
}

fn lock(fate: &Mutex<Fate>) -> std::sync::MutexGuard<'_, Fate> {
    fate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Signs in, then writes to its friend and answers what comes, until the connection or the load ends.
fn live(
    mut client: SipClient,
    friend: &str,
    stop: &AtomicBool,
    kill: &AtomicBool,
    fate: &Mutex<Fate>,
) -> Result<()> {
    client.register()?;
    while !stop.load(Ordering::Relaxed) {
        // The friend may be signing in anew: that it is not there is an answer too, but not counted as service.
        let after = kill.load(Ordering::Relaxed);
        match client.message(friend) {
            Ok(()) if after => lock(fate).served_after += 1,
            Ok(()) => lock(fate).served_before += 1,
            Err(error) if error.to_string().contains("MESSAGE: ") => {
                lock(fate).last_error = error.to_string();
            }
            Err(error) => return Err(error),
        }
        client.serve(Duration::from_millis(100))?;
    }
    Ok(())
}

const CLIENTS: usize = 40;
const LINK_PORT: u16 = 5063;
const TLS_LIMIT: Duration = Duration::from_secs(3);
/// PROXY v2 (the PROXY protocol's paper, 2.2): signature, command PROXY, TCP over IPv4, 12 bytes, 203.0.113.99 to the VIP.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FORGED: [u8; 16] = [
    0x21, 0x11, 0, 12, 203, 0, 113, 99, 198, 51, 100, 101, 0x30, 0x39, 0x01, 0xbb,
];
/// The beginning of one; nobody answers before the PROXY header.
const CLIENT_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7, 7, 7];
/// The link's greeting in the name of the second member.
const HELLO: &[u8] = &[0, 0, 0, 5, 1, 1, 1, 0, 1];

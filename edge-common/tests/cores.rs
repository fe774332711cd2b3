//! Two cores behind one address: connections stay where they were accepted, and what arrives on one core for a
//! connection of the other gets there by mailbox.
#![cfg(feature = "io")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use edge_common::limit::Rate;
use edge_common::net::accept::{self, Door, Gate, GateLimits, Security};
use edge_common::net::bind::{Bind, TcpOptions};
use edge_common::net::core_runtime::{CoreContext, Cores};
use edge_common::net::mailbox::{self, Mailboxes, Outbox};
use edge_common::net::stream::{Read, Stream, StreamOptions};
use edge_common::observe::metrics::Metrics;
use edge_common::run::now;

const CORES: usize = 2;
const CLIENTS: usize = 40;
const LIMITS: GateLimits = GateLimits {
    connections: 1000,
    per_source: 256,
    source_rate: Rate {
        per_second: 100,
        burst: 256,
    },
    handshakes: 512,
    handshakes_per_source: 64,
};

/// A line for a connection of some core.
struct Line {
    to: u32,
    text: Vec<u8>,
}

/// What one core knows.
#[derive(Clone)]
struct Switch {
    core: CoreContext,
    connections: Rc<RefCell<BTreeMap<u32, Stream>>>,
    outbox: Outbox<Line>,
}

#[test]
fn a_line_for_a_connection_of_the_other_core_gets_there() {
    let metrics = Metrics::new("test");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = Bind::to(any).tcp_listeners(CORES).expect("binds");
    let address = listeners[0].local_addr().expect("bound");
    let gate = Gate::new("client", LIMITS, [3; 16], now(), &metrics);
    let mesh = mailbox::mesh::<Line>(CORES, 1024);
    mesh[0].outbox.show_in(&metrics);
    let seeds = listeners.into_iter().zip(mesh).collect();
    let cores = Cores::start_with("switch", seeds, move |core, (listener, boxes)| {
        serve(core, listener, gate.clone(), boxes)
    })
    .expect("threads start");

    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(address)).collect();
    let used: BTreeSet<u32> = clients.iter().map(|client| client.core).collect();
    // The kernel spreads by a hash; that 40 connections meet one core only happens once in 2^39.
    assert_eq!(used.len(), CORES);

    // Everybody writes to everybody's neighbour in the list, mostly across the cores.
    for from in 0..CLIENTS {
        let to = (from + 1) % CLIENTS;
        let (core, number) = (clients[to].core, clients[to].number);
        clients[from].say(&format!("{core} {number} hello from {from}"));
        assert_eq!(clients[to].hear(), format!("hello from {from}"));
    }
    let text = metrics.text();
    assert!(
        text.contains("edge_test_mailbox_refused_total{core=\"0\"} 0"),
        "{text}"
    );
    assert!(
        !text.contains("edge_test_mailbox_sent_total{core=\"0\"} 0"),
        "{text}"
    );
    assert!(
        !text.contains("edge_test_mailbox_sent_total{core=\"1\"} 0"),
        "{text}"
    );
    assert!(
        text.contains("edge_test_connections{listener=\"client\"} 40"),
        "{text}"
    );

    // A drain waits for the last connection, and for no longer.
    cores.drain();
    drop(clients);
    cores.join().expect("no core panicked");
}

async fn serve(
    core: CoreContext,
    listener: std::net::TcpListener,
    gate: Gate,
    boxes: Mailboxes<Line>,
) {
    let switch = Switch {
        core: core.clone(),
        connections: Rc::default(),
        outbox: boxes.outbox,
    };
    let mut inbox = boxes.inbox;
    let local = switch.clone();
    core.spawn(async move {
        while let Some(line) = inbox.recv().await {
            local.deliver(&line);
        }
    });
    let door = Door {
        security: Security::Plain,
        balancers: Vec::new(),
        handshake_timeout: Duration::from_secs(5),
        stream: StreamOptions::default(),
        tcp: TcpOptions::default(),
    };
    let served = accept::serve(core.clone(), listener, gate, door, move |stream| {
        switch.clone().connection(stream)
    });
    core.spawn(served);
    core.draining().await;
    core.streams_ended().await;
}

impl Switch {
    async fn connection(self, stream: Stream) {
        // All clients are on one host, so a port names one of them.
        let number = u32::from(stream.remote().port());
        let greeting = format!("{} {number}\n", self.core.index());
        stream.queue(greeting.as_bytes()).expect("an empty queue");
        self.connections.borrow_mut().insert(number, stream.clone());
        while let Ok(Read::Data) = stream.read(|bytes| self.take_lines(bytes)).await {}
        self.connections.borrow_mut().remove(&number);
    }

    fn take_lines(&self, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            if line.ends_with(b"\n") {
                consumed += line.len();
                self.switch(line);
            }
        }
        consumed
    }

    fn switch(&self, line: &[u8]) {
        let line = std::str::from_utf8(line).expect("the test's lines");
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let (core, to): (u32, u32) = number().zip(number()).expect("core and number");
        let text = words.next().expect("a text").as_bytes().to_vec();
        let line = Line { to, text };
        if core as usize == self.core.index() {
            self.deliver(&line);
        } else {
            self.outbox.send(core as usize, line).expect("room");
        }
    }

    fn deliver(&self, line: &Line) {
        let connections = self.connections.borrow();
        let stream = connections.get(&line.to).expect("the connection is here");
        stream.queue(&line.text).expect("room");
    }
}

struct Client {
    core: u32,
    number: u32,
    tcp: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).expect("connects");
        tcp.set_read_timeout(Some(Duration::from_secs(20)))
            .expect("option");
        let mut client = Self {
            core: 0,
            number: 0,
            tcp: BufReader::new(tcp),
        };
        let greeting = client.hear();
        let (core, number) = greeting.split_once(' ').expect("two numbers");
        client.core = core.parse().expect("a number");
        client.number = number.parse().expect("a number");
        client
    }

    fn say(&mut self, line: &str) {
        writeln!(self.tcp.get_mut(), "{line}").expect("writes");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.tcp.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }
}

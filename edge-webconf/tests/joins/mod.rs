//! Services whose protocol cannot carry a number, the agent's API over TCP, and what an agent says to its servers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread::JoinHandle;

use edge_common::net::core_runtime::CoreContext;
use edge_common::net::proxy_protocol::{self, Origin, Step};
use edge_webconf::join::{Join, TokenSource, Way};
use edge_webconf::preface;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::support::{self, Agent, PATIENCE, Server, World, assert_closed, until};
use super::unchanged;

/// `edge-join` on a thread of its own.
struct Joining {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Joining {
    fn start(world: &World, token: &str) -> Self {
        let edge = world.external();
        let join = Join {
            edge: format!("webconf.contoso.test:{}", edge.port())
                .parse()
                .unwrap(),
            address: Some(edge.ip()),
            ca: Some(world.outside.file()),
            token: TokenSource::Given(token.to_owned()),
        };
        let (end, ended) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            LocalSet::new().block_on(&runtime, async {
                let way: Rc<Way> = Way::new(CoreContext::alone(), join).unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = way.serve(listener) => served.unwrap(),
                    _ = ended => {}
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            end: Some(end),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn agent_of_tokens(world: &World, server: &Server, top: &str, of_server: &str) -> Agent {
    let top = format!("token_key = \"join.key\"\n{top}");
    let edges = [world.internal()];
    let (authority, name) = (&world.inside, support::AGENT);
    world.agent_with(authority, name, server.address, &edges, &top, of_server)
}

fn token_of(agent: &Agent, body: &str) -> String {
    let mut token = String::new();
    until("a token", || {
        let (status, answer) = agent.post("/token", body);
        if status == 200 {
            assert_eq!(answer["edges"][0]["port"], 443);
            token = answer["token"].as_str().unwrap().to_owned();
        }
        status == 200
    });
    token
}

#[test]
fn a_service_that_speaks_first_is_reached_with_a_token_and_told_the_clients_address() {
    let world = World::new(30, unchanged);
    let server = Server::new();
    let agent = agent_of_tokens(&world, &server, "", ", proxy = true");
    let token = token_of(&agent, "{\"ttl\":\"60 s\"}");
    let joining = Joining::start(&world, &token);
    let mut client = joining.connect();

    let mut stream = server.accept();
    let mut header = [0; 28];
    stream.read_exact(&mut header).unwrap();
    let Ok(Step::Header { len: 28, origin }) = proxy_protocol::read(&header) else {
        panic!("no PROXY header: {header:?}");
    };
    let Origin::Client {
        source,
        destination,
    } = origin
    else {
        panic!("a header that tells of nobody");
    };
    assert_eq!(source.ip().to_string(), "127.0.0.1");
    assert_eq!(destination, server.address);

    stream.write_all(b"SSH-2.0-server\r\n").unwrap();
    let mut said = [0; 16];
    client.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"SSH-2.0-server\r\n");
    client.write_all(b"SSH-2.0-client\r\n").unwrap();
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"SSH-2.0-client\r\n");
    drop(client);
    assert_eq!(stream.read(&mut said).unwrap(), 0);
    drop(stream);
    world.until_metric("edge_webconf_relays_closed_total{status=\"ok\"}", 1);
    // The preface is no part of the stream.
    assert_eq!(
        world.metric("edge_webconf_relayed_bytes_total{direction=\"in\"}"),
        16
    );
    assert_eq!(
        world.metric("edge_webconf_numbers_matched_total{encoding=\"token\"}"),
        1
    );

    // Once is once.
    let mut again = joining.connect();
    assert_eq!(again.read(&mut said).unwrap(), 0);
    assert!(server.is_untouched());
    world.until_metric(
        "edge_webconf_clients_refused_total{status=\"token_used\"}",
        1,
    );
    assert_eq!(world.metric("edge_webconf_used_tokens "), 1);
}

#[test]
fn a_token_that_another_has_signed_is_the_agents_own_decision() {
    let world = World::new(31, unchanged);
    let server = Server::new();
    let minter = agent_of_tokens(&world, &server, "", "");
    let token = token_of(&minter, "{\"uses\":9}");
    drop(minter);
    // This agent is the same in name and knows nothing of the token.
    let closed = agent_of_tokens(&world, &server, "", "");
    until("in session", || {
        closed.metric("edge_webconf_agent_sessions ") == 1
    });
    closed.admit("{}");
    let show = |token: &str| {
        let mut client = world.client();
        client.write_all(&preface::line(token)).unwrap();
        client
    };
    assert_closed(&mut show(&token));
    assert!(server.is_untouched());
    assert_eq!(
        closed.metric("edge_webconf_agent_opens_total{status=\"token_unknown\"}"),
        1
    );
    drop(closed);
    let open = agent_of_tokens(&world, &server, "", ", token_uses = 2");
    open.admit("{}");
    for _ in 0..2 {
        let _client = show(&token);
        drop(server.accept());
    }
    assert_closed(&mut show(&token));
    assert!(server.is_untouched());
    assert_eq!(
        open.metric("edge_webconf_agent_opens_total{status=\"token_used\"}"),
        1
    );
}

#[test]
fn a_server_that_asks_the_next_agent_brings_the_number_along() {
    let world = World::new(32, unchanged);
    let server = Server::new();
    let first = world.agent(server.address);
    let number = first.admit("{}");
    drop(first);
    let second = world.agent(server.address);
    until("lost with its agent", || {
        world.metric("edge_webconf_admitted_numbers ") == 0
    });
    let mut early = world.client();
    writeln!(early, "{number}").unwrap();
    assert_closed(&mut early);
    assert_eq!(
        second.admit(&format!("{{\"number\":\"{number}\"}}")),
        number
    );
    let again = second.post("/admit", &format!("{{\"number\":\"{number}\"}}"));
    assert_eq!(again.0, 409);
    for wrong in ["1", "9999999999999999999", "x"] {
        let answer = second.post("/admit", &format!("{{\"number\":\"{wrong}\"}}"));
        assert_eq!(answer.0, 400, "{wrong}");
    }
    let mut client = world.client();
    writeln!(client, "{number}").unwrap();
    drop(server.accept());
}

#[test]
fn over_tcp_a_request_bears_the_token_and_no_web_page_gets_in() {
    let world = World::new(33, unchanged);
    let server = Server::new();
    let bearer = "00112233445566778899aabbccddeeff";
    support::private(&world.directory.path().join("admit.token"), bearer);
    let top = "http = { listen = \"127.20.33.9:19565\", token = \"admit.token\" }";
    let agent = agent_of_tokens(&world, &server, top, "");
    agent.admit("{}");
    let post = |headers: &str| {
        let mut stream = TcpStream::connect("127.20.33.9:19565").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "POST /admit HTTP/1.1\r\nHost: agent\r\n{headers}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    let good = format!("Authorization: Bearer {bearer}\r\n");
    assert_eq!(post(&good), "200");
    let before = world.metric("edge_webconf_admissions_total{status=\"ok\"}");
    assert_eq!(post(""), "401");
    assert_eq!(post("Authorization: Bearer 0\r\n"), "401");
    // What a browser sends for a page that posts to it, even if the page has learnt the token.
    assert_eq!(post(&format!("{good}Origin: https://evil.test\r\n")), "403");
    assert_eq!(post("Origin: null\r\nContent-Type: text/plain\r\n"), "403");
    let after = world.metric("edge_webconf_admissions_total{status=\"ok\"}");
    assert_eq!(before, after, "no edge was asked");
    for (status, count) in [("200", 2), ("401", 2), ("403", 2)] {
        let counter = format!("edge_webconf_agent_admit_requests_total{{status=\"{status}\"}}");
        assert_eq!(agent.metric(&counter), count, "{status}");
    }
}

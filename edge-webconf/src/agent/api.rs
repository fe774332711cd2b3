//! What a conference server asks: `POST /admit`, `/token` and `/revoke` on a unix socket, or on a TCP port with a
//! bearer token. A request with an Origin header comes from a web page in somebody's browser, and is refused.
//!
//! ```text
//!   {"registration": "mcu1.contoso.internal", "ttl": "60 s", "uses": 1}        all of it optional
//!   ─► {"number": "1234567890123456789", "edges": [{"fqdn": "webconf.contoso.com", "port": 443}]}
//! ```
//!
//! The answer lists the edges that have acknowledged the number, and no other: a client that is
//! offered one of them gets in. `registration` names a server of the file; `conference` is the same
//! under the word that conference servers use; without either the first server is meant. The
//! number is text, because it has more digits than a number of JSON keeps everywhere. A server that asks the next agent
//! when one is lost gives the `number` that its client was told.
//!
//! ```text
//!   {"registration": "ssh.mcu1.contoso.internal", "ttl": "5 min", "source": "203.0.113.0/24"}     POST /token
//!   ─► {"token": "v1.0a1b2c3d.…", "number": "…", "edges": […]}         for `edge-join`; `number` is for /revoke
//! ```

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time;
use edge_common::config::units;
use edge_common::join_token::JoinToken;
use edge_common::random::{Random as _, SystemRandom};
use edge_common::run::now;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::config::AgentConfig;
use super::process::{Agent, Answer};
use crate::ewrp::control::{Admit, TTL_MS_MAX};
use crate::ewrp::{Number, Status};

/// Answers until the task is aborted.
pub async fn serve(agent: Rc<Agent>, listener: UnixListener) {
    let accept = async || listener.accept().await.map(|(stream, _)| stream);
    serve_all(agent, "unix socket", accept, connection).await;
}

/// The same on a TCP port, for those who bear the token.
pub async fn serve_tcp(agent: Rc<Agent>, listener: TcpListener) {
    let accept = async || listener.accept().await.map(|(stream, _)| stream);
    let by_tcp = |agent, stream| converse(agent, stream, Asks::ByTcp);
    serve_all(agent, "TCP port", accept, by_tcp).await;
}

async fn serve_all<S, T>(
    agent: Rc<Agent>,
    listener: &'static str,
    accept: impl AsyncFn() -> io::Result<S>,
    talk: impl Fn(Rc<Agent>, S) -> T,
) where
    T: Future<Output = ()> + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match accept().await {
            Ok(stream) => {
                let talk = talk(Rc::clone(&agent), stream);
                agent.core.spawn(async move {
                    talk.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!(%error, listener, "admissions cannot be asked for");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// What a request has to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// The kernel has said who it is.
    BySocket,
    /// It bears the token.
    ByTcp,
}

async fn connection(agent: Rc<Agent>, stream: UnixStream) {
    let refused = |why: &str| agent.counters.admissions.with([why]).inc();
    match stream.peer_cred() {
        Ok(peer) if may_ask(&agent.config, peer.uid()) => {}
        Ok(peer) => {
            refused("user");
            return tracing::warn!(uid = peer.uid(), "this user may not admit");
        }
        Err(error) => {
            refused("user");
            return tracing::warn!(%error, "who asks is not known");
        }
    }
    converse(agent, stream, Asks::BySocket).await;
}

async fn converse<S>(agent: Rc<Agent>, stream: S, asks: Asks)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| answer(Rc::clone(&agent), asks, request));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admission request");
    }
}

/// Root, the agent's own user, and those of the file.
fn may_ask(config: &AgentConfig, uid: u32) -> bool {
    is_allowed(config, rustix::process::geteuid().as_raw(), uid)
}

fn is_allowed(config: &AgentConfig, own: u32, uid: u32) -> bool {
    uid == 0 || uid == own || config.admit_users.contains(&uid)
}

/// Why a request is not granted.
#[derive(Debug, PartialEq, Eq)]
struct Refused(StatusCode, String);

impl Refused {
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

async fn answer(
    agent: Rc<Agent>,
    asks: Asks,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = match may_come(asks, agent.secrets.bearer.as_deref(), request.headers()) {
        Ok(()) => route(&agent, request).await,
        Err(refused) => Err(refused),
    };
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(Refused(status, error)) => (status, json(&Failure { error })),
    };
    agent.counters.admissions.with([status.as_str()]).inc();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// A browser adds Origin to what a page posts, whatever the page; a bearer token is nothing that it adds by itself.
fn may_come(asks: Asks, bearer: Option<&Vec<u8>>, headers: &HeaderMap) -> Result<(), Refused> {
    if headers.contains_key(header::ORIGIN) {
        let text = "not for web pages".to_owned();
        return Err(Refused(StatusCode::FORBIDDEN, text));
    }
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let is_good = match asks {
        Asks::BySocket => true,
        Asks::ByTcp => shown.zip(bearer).is_some_and(|(shown, bearer)| {
            constant_time::verify_slices_are_equal(shown, bearer).is_ok()
        }),
    };
    if is_good {
        Ok(())
    } else {
        let text = "a bearer token is needed".to_owned();
        Err(Refused(StatusCode::UNAUTHORIZED, text))
    }
}

async fn route(agent: &Agent, request: Request<Incoming>) -> Result<String, Refused> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if !["/admit", "/token", "/revoke"].contains(&path) {
        let text = "there is /admit, /token and /revoke".to_owned();
        return Err(Refused(StatusCode::NOT_FOUND, text));
    }
    if parts.method != Method::POST {
        let text = "POST it".to_owned();
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let body = Limited::new(body, BODY_MAX).collect();
    let body = match tokio::time::timeout(HEADER_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(Refused::bad(error.to_string())),
        Err(_) => return Err(Refused::bad("the body does not come")),
    };
    match path {
        "/admit" => admit(agent, read(&body)?).await,
        "/token" => token(agent, &read(&body)?),
        _ => revoke(agent, &read(&body)?),
    }
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
struct AdmitRequest {
    conference: Option<String>,
    registration: Option<String>,
    ttl: Option<Ttl>,
    uses: Option<u16>,
    /// For /admit: the number that another agent has drawn.
    number: Option<String>,
    /// For /token: where its clients come from.
    source: Option<IpNet>,
}

/// `"60 s"`, or seconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
enum Ttl {
    Seconds(u32),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeRequest {
    number: String,
    #[serde(default)]
    cut: bool,
}

#[derive(Debug, Serialize)]
struct Admitted<'a> {
    number: String,
    edges: Vec<Offered<'a>>,
}

#[derive(Debug, Serialize)]
struct Minted<'a> {
    token: String,
    number: String,
    edges: Vec<Offered<'a>>,
}

#[derive(Debug, Serialize)]
struct Offered<'a> {
    fqdn: &'a str,
    port: u16,
}

#[derive(Debug, Serialize)]
struct Failure {
    error: String,
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refused> {
    // serde would take an array for a structure too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refused::bad("the body is no JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| Refused::bad(error.to_string()))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text and numbers only")
}

async fn admit(agent: &Agent, request: AdmitRequest) -> Result<String, Refused> {
    let reg_id = registration(&agent.config, &request)?;
    let admit = Admit {
        reg_id,
        number: Number(0),
        ttl_ms: ttl_ms(request.ttl.as_ref())?,
        uses: uses(&request)?,
    };
    if request.source.is_some() {
        return Err(Refused::bad("source is for tokens"));
    }
    let admit = match &request.number {
        Some(number) => enter_given(agent, admit, number)?,
        None => enter(agent, admit)?,
    };
    let edges = ask_edges(agent, &admit).await;
    agent.note();
    if edges.is_empty() {
        agent.ledger.borrow_mut().forget(admit.number);
        let text = "no edge has acknowledged the number".to_owned();
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    Ok(json(&Admitted {
        number: admit.number.0.to_string(),
        edges: offered(agent, &edges),
    }))
}

fn uses(request: &AdmitRequest) -> Result<u16, Refused> {
    match request.uses {
        Some(0) => Err(Refused::bad("uses is 0")),
        uses => Ok(uses.unwrap_or(1)),
    }
}

fn offered<'a>(agent: &'a Agent, edges: &[usize]) -> Vec<Offered<'a>> {
    let clients = edges
        .iter()
        .map(|&index| &agent.edges[index].config.clients);
    clients
        .map(|clients| Offered {
            fqdn: clients.host.as_str(),
            port: clients.port,
        })
        .collect()
}

/// Signs a token. No edge has to be asked: it is good at each that has the public key and this registration.
fn token(agent: &Agent, request: &AdmitRequest) -> Result<String, Refused> {
    let Some(key) = &agent.secrets.token_key else {
        let text = "agent.toml has no token_key".to_owned();
        return Err(Refused(StatusCode::NOT_FOUND, text));
    };
    if request.number.is_some() {
        return Err(Refused::bad("a token has no number of one's own"));
    }
    let reg_id = registration(&agent.config, request)?;
    let (uses, ttl_ms) = (uses(request)?, ttl_ms(request.ttl.as_ref())?);
    let edges: Vec<usize> = (0..agent.edges.len())
        .filter(|&index| agent.edges[index].serves(reg_id))
        .collect();
    if edges.is_empty() {
        let text = "no edge serves the registration".to_owned();
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let name = agent
        .config
        .server(reg_id)
        .map_or("", |server| &server.name);
    let now = now();
    let expires = now.unix + Duration::from_millis(ttl_ms.into());
    let token = JoinToken::new(name, expires, uses, request.source, &mut SystemRandom);
    let admit = Admit {
        reg_id,
        number: Number(token.number()),
        ttl_ms,
        uses,
    };
    if !agent.ledger.borrow_mut().enter(now.mono, &admit) {
        return Err(too_many());
    }
    agent.note();
    Ok(json(&Minted {
        token: token.signed_with(key),
        number: admit.number.0.to_string(),
        edges: offered(agent, &edges),
    }))
}

fn registration(config: &AgentConfig, request: &AdmitRequest) -> Result<u32, Refused> {
    let name = match (&request.registration, &request.conference) {
        (Some(_), Some(_)) => {
            return Err(Refused::bad("registration or conference, not both"));
        }
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => return Ok(AgentConfig::reg_id(0)),
    };
    let place = config
        .servers
        .iter()
        .position(|server| *server.name == **name);
    place
        .map(AgentConfig::reg_id)
        .ok_or_else(|| Refused::bad(format!("{name:?} is no server of agent.toml")))
}

fn ttl_ms(ttl: Option<&Ttl>) -> Result<u32, Refused> {
    let ttl = match ttl {
        None => TTL_DEFAULT,
        Some(Ttl::Seconds(seconds)) => Duration::from_secs((*seconds).into()),
        Some(Ttl::Text(text)) => units::parse_duration(text)
            .map_err(|error| Refused::bad(format!("ttl {text:?}: {error}")))?,
    };
    u32::try_from(ttl.as_millis())
        .ok()
        .filter(|ms| (1..=TTL_MS_MAX).contains(ms))
        .ok_or_else(|| Refused::bad("ttl is from 1 ms to 1 h"))
}

/// Draws a number that nobody has.
fn enter(agent: &Agent, admit: Admit) -> Result<Admit, Refused> {
    let mut ledger = agent.ledger.borrow_mut();
    for _ in 0..DRAWS_MAX {
        let mut bits = [0; 8];
        SystemRandom.fill(&mut bits);
        let Some(number) = Number::from_random(bits) else {
            continue;
        };
        let admit = Admit {
            number,
            ..admit.clone()
        };
        if ledger.enter(now().mono, &admit) {
            return Ok(admit);
        }
    }
    Err(too_many())
}

/// A number that the server has from somebody else: this agent serves it only if nobody has it here.
fn enter_given(agent: &Agent, admit: Admit, number: &str) -> Result<Admit, Refused> {
    let number = number.parse().map(Number).ok();
    let Some(number) = number.filter(|number| number.is_admissible()) else {
        return Err(Refused::bad("number has 19 digits and 63 bits"));
    };
    let admit = Admit { number, ..admit };
    if agent.ledger.borrow_mut().enter(now().mono, &admit) {
        Ok(admit)
    } else {
        let text = "the number is taken, or too many are admitted".to_owned();
        Err(Refused(StatusCode::CONFLICT, text))
    }
}

fn too_many() -> Refused {
    let text = "too many numbers are admitted".to_owned();
    Refused(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// The edges that have acknowledged the number, in the order of the file.
async fn ask_edges(agent: &Agent, admit: &Admit) -> Vec<usize> {
    let (answers, mut answered) = mpsc::channel(agent.edges.len());
    let _waiting = Waiting::begin(agent, admit.number, answers);
    let asked = (0..agent.edges.len()).filter(|&index| agent.edges[index].admit(admit));
    let mut asked: BTreeSet<usize> = asked.collect();
    let deadline = tokio::time::Instant::now() + agent.config.limits.admit_timeout;
    let mut edges = Vec::new();
    while !asked.is_empty() {
        let Ok(Some(Answer { edge, status })) =
            tokio::time::timeout_at(deadline, answered.recv()).await
        else {
            break;
        };
        asked.remove(&edge);
        if status == Status::Ok {
            edges.push(edge);
        }
    }
    // What an edge acknowledges later must not let anybody in there: nobody is sent to it.
    for edge in asked {
        agent.edges[edge].revoke(admit.number, false);
    }
    edges.sort_unstable();
    edges
}

/// The way back for the answers of the edges; gone when nobody waits.
struct Waiting<'a> {
    agent: &'a Agent,
    number: Number,
}

impl<'a> Waiting<'a> {
    fn begin(agent: &'a Agent, number: Number, answers: mpsc::Sender<Answer>) -> Self {
        agent.waiting.borrow_mut().insert(number, answers);
        Self { agent, number }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.agent.waiting.borrow_mut().remove(&self.number);
    }
}

fn revoke(agent: &Agent, request: &RevokeRequest) -> Result<String, Refused> {
    let number = request.number.parse().map(Number);
    let number = number.map_err(|_| Refused::bad("number is no number"))?;
    let kept = agent.ledger.borrow_mut().revoke(now().mono, number);
    agent.note();
    for edge in &agent.edges {
        edge.revoke(number, request.cut);
    }
    if !kept {
        let text = "the edges were told, but the agent cannot remember more numbers".to_owned();
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    Ok("{}".to_owned())
}

const TTL_DEFAULT: Duration = Duration::from_secs(60);
/// Nine draws in ten are good.
const DRAWS_MAX: usize = 64;
const BODY_MAX: usize = 4096;
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> AgentConfig {
        let text = r#"fqdn = "mcu1.test"
certificate = { chain = "c", key = "k" }
ca = "ca"
socket = "s"
edges = [{ fqdn = "edge1.test" }]
servers = [{ name = "mcu1.test", target = "127.0.0.1:1" }, { name = "abcd1234", kind = "conference", target = "127.0.0.1:2" }]
"#;
        AgentConfig::check(text, Path::new("/")).expect("a lawful file")
    }

    fn request(body: &str) -> Result<(u32, u32), Refused> {
        let request: AdmitRequest = read(body.as_bytes())?;
        let reg_id = registration(&config(), &request)?;
        Ok((reg_id, ttl_ms(request.ttl.as_ref())?))
    }

    #[test]
    fn what_is_asked_for_is_found() {
        assert_eq!(request("{}"), Ok((1, 60_000)));
        assert_eq!(request(r#"{"ttl":"5 s"}"#), Ok((1, 5_000)));
        assert_eq!(request(r#"{"ttl":3600,"uses":3}"#), Ok((1, 3_600_000)));
        let conference = r#"{"conference":"abcd1234"}"#;
        assert_eq!(request(conference), Ok((2, 60_000)));
        let server = r#"{"registration":"mcu1.test"}"#;
        assert_eq!(request(server), Ok((1, 60_000)));
    }

    #[test]
    fn a_user_who_is_neither_root_nor_the_agent_has_to_be_in_the_file() {
        let mut config = config();
        config.admit_users = vec![1001, 1002];
        for (uid, may) in [
            (0, true),
            (990, true),
            (1001, true),
            (1002, true),
            (1000, false),
            (991, false),
            (u32::MAX, false),
        ] {
            assert_eq!(is_allowed(&config, 990, uid), may, "{uid}");
        }
        config.admit_users.clear();
        assert!(!is_allowed(&config, 990, 1001));
        let own = rustix::process::geteuid().as_raw();
        assert!(may_ask(&config, own));
        assert!(!may_ask(&config, own.wrapping_add(1).max(1)));
    }

    #[test]
    fn web_pages_and_strangers_are_refused() {
        let bearer = b"0123456789abcdef0123456789abcdef".to_vec();
        let come = |asks, name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            may_come(asks, Some(&bearer), &headers).map_err(|refused| refused.0.as_u16())
        };
        let good = "Bearer 0123456789abcdef0123456789abcdef";
        for (asks, name, value, result) in [
            (Asks::BySocket, "host", "agent", Ok(())),
            (Asks::BySocket, "origin", "https://evil.test", Err(403)),
            (Asks::BySocket, "origin", "null", Err(403)),
            (Asks::ByTcp, "authorization", good, Ok(())),
            (Asks::ByTcp, "host", "agent", Err(401)),
            (Asks::ByTcp, "authorization", "Bearer ", Err(401)),
            (
                Asks::ByTcp,
                "authorization",
                &good[..good.len() - 1],
                Err(401),
            ),
            (Asks::ByTcp, "authorization", "Basic Zm9vOmJhcg==", Err(401)),
        ] {
            assert_eq!(come(asks, name, value), result, "{asks:?} {name}: {value}");
        }
        let mut both = HeaderMap::new();
        both.insert("authorization", good.parse().expect("a header"));
        both.insert("origin", "https://evil.test".parse().expect("a header"));
        assert!(may_come(Asks::ByTcp, Some(&bearer), &both).is_err());
        assert!(may_come(Asks::ByTcp, None, &HeaderMap::new()).is_err());
    }

    #[test]
    fn what_is_wrong_is_a_bad_request() {
        for body in [
            "",
            "[]",
            "{\"tll\":1}",
            "{\"ttl\":0}",
            "{\"ttl\":\"2 h\"}",
            "{\"ttl\":\"5\"}",
            "{\"ttl\":-1}",
            "{\"uses\":65536}",
            "{\"conference\":\"nobody\"}",
            "{\"conference\":\"abcd1234\",\"registration\":\"mcu1.test\"}",
        ] {
            let refused = request(body).expect_err(body);
            assert_eq!(refused.0, StatusCode::BAD_REQUEST, "{body}: {}", refused.1);
        }
    }
}

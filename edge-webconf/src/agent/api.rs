//! What a conference server asks: `POST /admit` and `POST /revoke` on a unix socket.
//!
//! ```text
//!   {"registration": "mcu1.contoso.internal", "ttl": "60 s", "uses": 1}        all of it optional
//!   ─► {"number": "1234567890123456789", "edges": [{"fqdn": "webconf.contoso.com", "port": 443}]}
//! ```
//!
//! The answer lists the edges that have acknowledged the number, and no other: a client that is
//! offered one of them gets in. `registration` names a server of the file; `conference` is the same
//! under the word that conference servers use; without either the first server is meant. The
//! number is text, because it has more digits than a number of JSON keeps everywhere.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use edge_common::config::units;
use edge_common::random::{Random as _, SystemRandom};
use edge_common::run::now;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::config::AgentConfig;
use super::process::{Agent, Answer};
use crate::ewrp::control::{Admit, TTL_MS_MAX};
use crate::ewrp::{Number, Status};

/// Answers until the task is aborted.
pub async fn serve(agent: Rc<Agent>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let agent = Rc::clone(&agent);
                agent.core.clone().spawn(async move {
                    connection(agent, stream).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!(%error, "the admission socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(agent: Rc<Agent>, stream: UnixStream) {
    match stream.peer_cred() {
        Ok(peer) if may_ask(&agent.config, peer.uid()) => {}
        Ok(peer) => return tracing::warn!(uid = peer.uid(), "this user may not admit"),
        Err(error) => return tracing::warn!(%error, "who asks is not known"),
    }
    let service = service_fn(|request| answer(Rc::clone(&agent), request));
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
    uid == 0 || uid == rustix::process::geteuid().as_raw() || config.admit_users.contains(&uid)
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
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = route(&agent, request).await;
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(Refused(status, error)) => (status, json(&Failure { error })),
    };
    agent.counters.admissions.with([status.as_str()]).inc();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

async fn route(agent: &Agent, request: Request<Incoming>) -> Result<String, Refused> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path != "/admit" && path != "/revoke" {
        let text = "there is /admit and /revoke".to_owned();
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
    if path == "/admit" {
        admit(agent, read(&body)?).await
    } else {
        revoke(agent, &read(&body)?)
    }
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
struct AdmitRequest {
    conference: Option<String>,
    registration: Option<String>,
    ttl: Option<Ttl>,
    uses: Option<u16>,
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
        uses: match request.uses {
            Some(0) => return Err(Refused::bad("uses is 0")),
            uses => uses.unwrap_or(1),
        },
    };
    let admit = enter(agent, admit)?;
    let edges = ask_edges(agent, &admit).await;
    if edges.is_empty() {
        agent.ledger.borrow_mut().forget(admit.number);
        let text = "no edge has acknowledged the number".to_owned();
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let edges = edges.iter().map(|&index| {
        let clients = &agent.edges[index].config.clients;
        Offered {
            fqdn: clients.host.as_str(),
            port: clients.port,
        }
    });
    Ok(json(&Admitted {
        number: admit.number.0.to_string(),
        edges: edges.collect(),
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
    let text = "too many numbers are admitted".to_owned();
    Err(Refused(StatusCode::SERVICE_UNAVAILABLE, text))
}

/// The edges that have acknowledged the number, in the order of the file.
async fn ask_edges(agent: &Agent, admit: &Admit) -> Vec<usize> {
    let (answers, mut answered) = mpsc::channel(agent.edges.len());
    let _waiting = Waiting::begin(agent, admit.number, answers);
    let mut asked = agent.edges.iter().filter(|edge| edge.admit(admit)).count();
    let deadline = tokio::time::Instant::now() + agent.config.limits.admit_timeout;
    let mut edges = Vec::new();
    while asked > 0 {
        let Ok(Some(Answer { edge, status })) =
            tokio::time::timeout_at(deadline, answered.recv()).await
        else {
            break;
        };
        asked -= 1;
        if status == Status::Ok {
            edges.push(edge);
        }
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
    agent.ledger.borrow_mut().forget(number);
    for edge in &agent.edges {
        edge.revoke(number, request.cut);
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

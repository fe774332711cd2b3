//! HTTP for machines: `/livez`, `/readyz` and `/metrics`, one request a connection.
//!
//! On the inside all three are answered; on the external side `/readyz` only, and to balancers only.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{IpAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};

use super::metrics::Metrics;
use crate::limit::{Cap, Permit};

/// Named conditions that must all hold before work is sent here. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// A new condition, which does not hold yet: `listeners`, `next_hop`, `certificates`.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        self.lock().insert(name, false);
        Condition {
            name,
            readiness: self.clone(),
        }
    }

    /// All conditions hold, and there is at least one.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let conditions = self.lock();
        !conditions.is_empty() && conditions.values().all(|&holds| holds)
    }

    /// Every condition and whether it holds.
    #[must_use]
    pub fn conditions(&self) -> Vec<(&'static str, bool)> {
        self.lock()
            .iter()
            .map(|(&name, &holds)| (name, holds))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One condition of a [`Readiness`].
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Condition {
    /// Says whether it holds now.
    pub fn set(&self, holds: bool) {
        let before = self.readiness.lock().insert(self.name, holds);
        if before != Some(holds) {
            tracing::info!(condition = self.name, holds, "readiness has changed");
        }
    }
}

/// Who gets what from a listener.
#[derive(Clone, Debug)]
pub enum Audience {
    /// The inside: everything, for everybody whom the firewall lets through.
    Inside,
    /// The external side: `/readyz` for these, nothing for anybody else.
    Balancers(Vec<IpNet>),
}

/// What the pages say.
#[derive(Clone, Debug)]
pub struct Pages {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/livez`: why the process is to be restarted, if it is.
    pub dead: Arc<dyn DeathWatch>,
}

/// Finds out whether the process still works.
pub trait DeathWatch: Send + Sync + std::fmt::Debug {
    /// What hangs, if anything does.
    fn hanging(&self) -> Option<String>;
}

/// Serves for ever, on the current thread's `LocalSet`.
pub async fn serve(listener: StdListener, audience: Audience, pages: Pages) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let cap = Cap::new("health_connections", CONNECTIONS_MAX);
    let refusals = pages.metrics.counters(
        "health_connections_refused",
        "Connections to the health port that were closed unread",
        ["reason"],
    );
    let refusals = Refused::ALL.map(|refused| refusals.with([refused.as_str()]));
    let (audience, pages) = (Rc::new(audience), Rc::new(pages));
    loop {
        let (tcp, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the health port cannot accept");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let permit = match enter(&cap, &audience, remote.ip()) {
            Ok(permit) => permit,
            Err(refused) => {
                refusals[refused as usize].inc();
                tracing::debug!(%remote, reason = refused.as_str(), "a health connection is refused");
                continue;
            }
        };
        let (audience, pages) = (Rc::clone(&audience), Rc::clone(&pages));
        tokio::task::spawn_local(async move {
            let _permit = permit;
            let served = tokio::time::timeout(REQUEST_TIMEOUT, one_request(tcp, audience, pages));
            if served.await.is_err() {
                tracing::debug!(%remote, "a health request took too long");
            }
        });
    }
}

/// Why a connection was closed unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// Nothing is told to this address.
    Source,
    /// As many as may be are open.
    Connections,
}

impl Refused {
    const ALL: [Self; 2] = [Self::Source, Self::Connections];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Connections => "connections",
        }
    }
}

fn enter(cap: &Cap, audience: &Audience, from: IpAddr) -> Result<Permit, Refused> {
    if !audience.knows(from) {
        return Err(Refused::Source);
    }
    cap.enter().ok_or(Refused::Connections)
}

async fn one_request(tcp: TcpStream, audience: Rc<Audience>, pages: Rc<Pages>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &audience, &pages);
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(REQUEST_LEN_MAX)
        .serve_connection(TokioIo::new(tcp), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a health request failed");
    }
}

fn answer(
    method: &Method,
    path: &str,
    audience: &Audience,
    pages: &Pages,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
    }
    match (path, audience) {
        ("/readyz", _) => ready(&pages.readiness),
        ("/livez", Audience::Inside) => live(pages.dead.as_ref()),
        ("/metrics", Audience::Inside) => page(StatusCode::OK, OPEN_METRICS, pages.metrics.text()),
        (_, Audience::Inside | Audience::Balancers(_)) => {
            page(StatusCode::NOT_FOUND, PLAIN, "not here\n")
        }
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let mut text = String::new();
    for (name, holds) in readiness.conditions() {
        let state = if holds { "ok" } else { "not ready" };
        // Writing to a String does not fail.
        let _written = writeln!(text, "{name}: {state}");
    }
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    page(status, PLAIN, text)
}

fn live(dead: &dyn DeathWatch) -> Response<Full<Bytes>> {
    match dead.hanging() {
        None => page(StatusCode::OK, PLAIN, "ok\n"),
        Some(what) => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, what + "\n"),
    }
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Audience {
    fn knows(&self, remote: IpAddr) -> bool {
        match self {
            Self::Inside => true,
            Self::Balancers(networks) => {
                let remote = remote.to_canonical();
                networks.iter().any(|network| network.contains(&remote))
            }
        }
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A scraper and a few balancers ask every few seconds, one connection each time.
const CONNECTIONS_MAX: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// hyper takes no smaller buffer.
const REQUEST_LEN_MAX: usize = 8192;
const BACK_OFF: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bind::Bind;
    use crate::net::test_tls::on_a_core;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn ready_means_that_every_condition_holds() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        let (listeners, next_hop) = (
            readiness.condition("listeners"),
            readiness.condition("next_hop"),
        );
        listeners.set(true);
        assert!(!readiness.is_ready());
        next_hop.set(true);
        assert!(readiness.is_ready());
        listeners.set(false);
        assert_eq!(
            readiness.conditions(),
            [("listeners", false), ("next_hop", true)]
        );
    }

    #[test]
    fn the_inside_gets_every_page() {
        on_a_core(async |_core| {
            let (address, pages) = served(Audience::Inside);
            pages.metrics.counter("reloads", "Reloads").inc();
            let metrics = get(address, "GET /metrics").await;
            assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
            assert!(metrics.contains("edge_access_reloads_total 1"));
            assert!(get(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
            let not_ready = get(address, "GET /readyz").await;
            assert!(not_ready.starts_with("HTTP/1.1 503"), "{not_ready}");
            assert!(not_ready.ends_with("listeners: not ready\n"));
            pages.readiness.condition("listeners").set(true);
            assert!(
                get(address, "GET /readyz")
                    .await
                    .starts_with("HTTP/1.1 200")
            );
            assert!(get(address, "GET /etc").await.starts_with("HTTP/1.1 404"));
            assert!(
                get(address, "POST /readyz")
                    .await
                    .starts_with("HTTP/1.1 405")
            );
        });
    }

    #[test]
    fn a_core_that_hangs_is_not_alive() {
        let response = live(&Hanging);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn outside_only_balancers_are_answered_and_only_ready() {
        on_a_core(async |_core| {
            let here = vec!["127.0.0.1/32".parse().expect("network")];
            let (address, _) = served(Audience::Balancers(here));
            assert!(
                get(address, "GET /readyz")
                    .await
                    .starts_with("HTTP/1.1 503")
            );
            assert!(
                get(address, "GET /metrics")
                    .await
                    .starts_with("HTTP/1.1 404")
            );
            assert!(get(address, "GET /livez").await.starts_with("HTTP/1.1 404"));
            let elsewhere = vec!["192.0.2.0/24".parse().expect("network")];
            let (address, pages) = served(Audience::Balancers(elsewhere));
            assert_eq!(get(address, "GET /readyz").await, "");
            assert_eq!(refused(&pages, "source"), 1);
        });
    }

    #[test]
    fn whoever_is_one_too_many_is_counted() {
        on_a_core(async |_core| {
            let (address, pages) = served(Audience::Inside);
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                silent.push(TcpStream::connect(address).await.expect("connects"));
            }
            assert_eq!(get(address, "GET /livez").await, "");
            assert_eq!(refused(&pages, "connections"), 1);
            assert_eq!(refused(&pages, "source"), 0);
        });
    }

    fn refused(pages: &Pages, reason: &str) -> u64 {
        let counters = pages
            .metrics
            .counters("health_connections_refused", "", ["reason"]);
        counters.with([reason]).get()
    }

    fn served(audience: Audience) -> (std::net::SocketAddr, Pages) {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Bind::to(any).tcp_listener().expect("binds");
        let address = listener.local_addr().expect("bound");
        let pages = Pages {
            metrics: Metrics::new("access"),
            readiness: Readiness::default(),
            dead: Arc::new(Alive),
        };
        // Not ready until somebody says so.
        drop(pages.readiness.condition("listeners"));
        tokio::task::spawn_local(serve(listener, audience, pages.clone()));
        (address, pages)
    }

    async fn get(address: std::net::SocketAddr, request: &str) -> String {
        let mut tcp = TcpStream::connect(address).await.expect("connects");
        let request = format!("{request} HTTP/1.1\r\nHost: edge\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        // A connection that is refused after our request ends with a reset.
        let _read = tcp.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("text")
    }

    #[derive(Debug)]
    struct Alive;

    impl DeathWatch for Alive {
        fn hanging(&self) -> Option<String> {
            None
        }
    }

    #[derive(Debug)]
    struct Hanging;

    impl DeathWatch for Hanging {
        fn hanging(&self) -> Option<String> {
            Some("core 1 is silent".to_owned())
        }
    }
}

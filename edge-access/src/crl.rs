//! Fetches the revocation lists of partners' authorities, over HTTP on port 80 from the external address.
//!
//! ```text
//!  handshake ─► CrlStore::want ─► due ─► DNS (guarded) ─► GET ─► parses? ─► STATE/edge-access/crl/ ─► CrlStore
//!                                  └──────── before its next update, or a failure's pause ◄────┘
//! ```
//!
//! What is fetched is only named by certificates whose chain held. A list is believed when its signature holds, which
//! is asked at each handshake; so that a forged one cannot push a good one out, the one before it stays beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use edge_common::cert::revocation::{CRL_FILE_LEN_MAX, Crl, CrlStore};
use edge_common::dns::SipResolver;
use edge_common::host_name::HostName;
use edge_common::net::bind::Bind;
use edge_common::run;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, LOCATION};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

use crate::observe::Observer;

/// What a fetcher needs.
#[derive(Clone)]
pub struct Fetcher {
    /// Where lists are asked for and put.
    pub store: Arc<CrlStore>,
    /// Where they are kept.
    pub directory: PathBuf,
    /// Lists that are kept at most.
    pub lists_max: usize,
    /// Names are asked for from outside, and answers guarded.
    pub dns: SipResolver,
    /// Our own addresses outside.
    pub addresses: Vec<IpAddr>,
    /// The interface outside.
    pub interface: String,
    /// Counts.
    pub observer: Observer,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// One place, and what is held of it.
struct Place {
    due: Instant,
    /// When a handshake asked for it last.
    wanted: Instant,
    failures: u32,
    newest: Option<Arc<Crl>>,
    /// The one before, as long as it differs.
    former: Option<Arc<Crl>>,
}

impl Fetcher {
    /// Fetches for as long as the core lives.
    pub async fn keep(self) {
        let mut places = self.kept();
        self.publish(&places);
        loop {
            for url in self.store.take_wanted() {
                if let Some(gone) = want(&mut places, url, self.lists_max, Instant::now()) {
                    self.observer.crl_fetched("too_many");
                    self.forget(&gone);
                }
            }
            let now = Instant::now();
            let due: Vec<_> = places
                .iter()
                .filter(|(_, place)| place.due <= now)
                .map(|(url, _)| url.clone())
                .collect();
            for url in due {
                let fetched = self.fetch(&url).await;
                if let Some(place) = places.get_mut(&url) {
                    self.take(&url, place, fetched);
                }
                self.publish(&places);
            }
            tokio::time::sleep(TURN).await;
        }
    }

    /// What an earlier process fetched; it is asked for anew soon.
    fn kept(&self) -> BTreeMap<String, Place> {
        let mut places = BTreeMap::new();
        let Ok(files) = fs::read_dir(&self.directory) else {
            return places;
        };
        for file in files.filter_map(Result::ok).map(|entry| entry.path()) {
            if file.extension().is_none_or(|extension| extension != "url") {
                continue;
            }
            let list = file.with_extension("crl");
            let read = fs::read_to_string(&file).and_then(|url| Ok((url, fs::read(&list)?)));
            let Ok((url, bytes)) = read else { continue };
            if places.len() < self.lists_max
                && let Ok(crl) = Crl::from_bytes(&bytes, &list)
            {
                let place = Place {
                    newest: Some(Arc::new(crl)),
                    ..Place::new()
                };
                places.insert(url.trim().to_owned(), place);
            }
        }
        places
    }

    fn take(&self, url: &str, place: &mut Place, fetched: Result<Vec<u8>, Failure>) {
        let file = self.file(url);
        let parsed = fetched.and_then(|bytes| match Crl::from_bytes(&bytes, &file) {
            Ok(crl) => Ok((crl, bytes)),
            Err(fault) => Err(Failure::List(fault.to_string())),
        });
        match parsed {
            Ok((crl, bytes)) => {
                self.observer.crl_fetched("fetched");
                tracing::info!(url, next_update = ?crl.next_update(), "revocation list fetched");
                place.failures = 0;
                place.due = Instant::now() + pause_until_next(&crl);
                let is_new = place
                    .newest
                    .as_ref()
                    .is_none_or(|old| old.this_update() < crl.this_update());
                if is_new {
                    place.former = place.newest.replace(Arc::new(crl));
                    if let Err(error) = write(&file, url, &bytes) {
                        tracing::warn!(url, %error, "a revocation list cannot be kept");
                    }
                }
            }
            Err(failure) => {
                self.observer.crl_fetched(failure.label());
                tracing::warn!(url, %failure, "revocation list not fetched");
                place.due = Instant::now() + RETRY_MIN * 2_u32.pow(place.failures.min(6));
                place.failures += 1;
            }
        }
    }

    fn publish(&self, places: &BTreeMap<String, Place>) {
        let lists: Vec<_> = places
            .values()
            .flat_map(|place| place.newest.iter().chain(&place.former))
            .map(Arc::clone)
            .collect();
        self.observer.crl_lists(lists.len());
        self.store.replace(lists);
    }

    /// Its files go as well, so that the next process does not begin with it.
    fn forget(&self, url: &str) {
        let file = self.file(url);
        for file in [file.with_extension("url"), file] {
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(url, %error, "a revocation list cannot be removed");
            }
        }
    }

    fn file(&self, url: &str) -> PathBuf {
        let name: String = digest(&SHA256, url.as_bytes()).as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.directory.join(name).with_extension("crl")
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, Failure> {
        let hops = async {
            let mut url = url.to_owned();
            for _ in 0..=REDIRECTS_MAX {
                match self.get(&url).await? {
                    Got::List(bytes) => return Ok(bytes),
                    Got::Elsewhere(next) => url = next,
                }
            }
            Err(Failure::Redirects)
        };
        tokio::time::timeout(FETCH_TIMEOUT, hops)
            .await
            .unwrap_or(Err(Failure::Timeout))
    }

    async fn get(&self, url: &str) -> Result<Got, Failure> {
        let (host, path) = parse(url).ok_or(Failure::Url)?;
        let stream = self.connect(&host).await?;
        let http = |error: hyper::Error| Failure::Http(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(http)?;
        let request = Request::get(path)
            .header(HOST, host.as_str())
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::Http(error.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(http)?;
            let status = response.status();
            if status.is_redirection() {
                let next = response.headers().get(LOCATION);
                let next = next.and_then(|next| next.to_str().ok());
                return next
                    .map(|next| Got::Elsewhere(next.to_owned()))
                    .ok_or(Failure::Redirects);
            }
            if status != StatusCode::OK {
                return Err(Failure::Status(status.as_u16()));
            }
            let most = usize::try_from(CRL_FILE_LEN_MAX).unwrap_or(usize::MAX);
            let body = Limited::new(response.into_body(), most)
                .collect()
                .await
                .map_err(|error| Failure::Http(error.to_string()))?;
            Ok(Got::List(body.to_bytes().to_vec()))
        };
        // The connection is driven beside its exchange and ends with it.
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            got = &mut exchange => got,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(http(error)),
            },
        }
    }

    async fn connect(&self, host: &HostName) -> Result<tokio::net::TcpStream, Failure> {
        let found = self
            .dns
            .addresses(host)
            .await
            .map_err(|fault| Failure::Dns(fault.to_string()))?;
        let mut failure = Failure::Dns("no address of a family that we have".to_owned());
        for address in found.value {
            let own = self
                .addresses
                .iter()
                .find(|own| own.is_ipv4() == address.is_ipv4());
            let Some(own) = own else { continue };
            let bind = Bind::on(SocketAddr::new(*own, 0), self.interface.as_str());
            match connect(&bind, SocketAddr::new(address, HTTP)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Failure::Connect(error.to_string()),
            }
        }
        Err(failure)
    }
}

/// Notes that a place is wanted; the one that goes for it is given back. That is one that never gave a list, and
/// otherwise the one that nobody wanted for longest.
fn want(
    places: &mut BTreeMap<String, Place>,
    url: String,
    lists_max: usize,
    now: Instant,
) -> Option<String> {
    if let Some(place) = places.get_mut(&url) {
        place.wanted = now;
        return None;
    }
    let gone = (places.len() >= lists_max).then(|| {
        let first = places
            .iter()
            .min_by_key(|(_, place)| (!place.is_barren(), place.wanted));
        first.map(|(url, _)| url.clone())
    });
    let gone = gone.flatten();
    if let Some(gone) = &gone {
        places.remove(gone);
    }
    let place = Place {
        wanted: now,
        ..Place::new()
    };
    places.insert(url, place);
    gone
}

impl Place {
    /// Whether it was asked and never gave a list.
    const fn is_barren(&self) -> bool {
        self.failures > 0 && self.newest.is_none()
    }

    fn new() -> Self {
        Self {
            due: Instant::now(),
            wanted: Instant::now(),
            failures: 0,
            newest: None,
            former: None,
        }
    }
}

enum Got {
    List(Vec<u8>),
    Elsewhere(String),
}

/// Why a list was not fetched.
#[derive(Debug)]
enum Failure {
    Url,
    Dns(String),
    Connect(String),
    Http(String),
    Status(u16),
    Redirects,
    Timeout,
    List(String),
}

impl Failure {
    const fn label(&self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Dns(_) => "dns",
            Self::Connect(_) => "connect",
            Self::Http(_) => "http",
            Self::Status(_) => "status",
            Self::Redirects => "redirects",
            Self::Timeout => "timeout",
            Self::List(_) => "no_list",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("not http to a name on port 80"),
            Self::Dns(why) | Self::Connect(why) | Self::Http(why) | Self::List(why) => {
                f.write_str(why)
            }
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::Redirects => f.write_str("too many redirections"),
            Self::Timeout => f.write_str("it took too long"),
        }
    }
}

async fn connect(bind: &Bind, to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = bind.dial_socket().map_err(io::Error::other)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(to))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Host and path of a URL that may be fetched: plain HTTP, a name, port 80. Addresses are nobody's publication.
fn parse(url: &str) -> Option<(HostName, String)> {
    let rest = url.strip_prefix("http://")?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let host = authority.strip_suffix(":80").unwrap_or(authority);
    let host: HostName = host.parse().ok()?;
    let path = path.split('#').next().unwrap_or_default();
    let lawful = path.bytes().all(|b| b.is_ascii_graphic());
    let path = if path.is_empty() { "/" } else { path };
    lawful.then(|| (host, path.to_owned()))
}

/// A tenth of the list's life before its end, within bounds.
fn pause_until_next(crl: &Crl) -> Duration {
    let now = i64::try_from(run::now().unix.as_secs()).unwrap_or(i64::MAX);
    let Some(next) = crl.next_update() else {
        return PAUSE_MAX;
    };
    let life = next.saturating_sub(crl.this_update()).max(0);
    let left = next.saturating_sub(life / 10).saturating_sub(now).max(0);
    Duration::from_secs(u64::try_from(left).unwrap_or(0)).clamp(PAUSE_MIN, PAUSE_MAX)
}

fn write(file: &Path, url: &str, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let fresh = file.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, file)?;
    fs::write(file.with_extension("url"), url)
}

const HTTP: u16 = 80;
/// How late a list that is wanted for the first time is asked for.
const TURN: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 2;
/// Doubled with each failure, up to an hour or so.
const RETRY_MIN: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_secs(10 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_place_takes_that_of_a_barren_one_or_of_the_longest_unwanted() {
        let (mut places, start) = (BTreeMap::new(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let mut want = |url: &str, second| want(&mut places, url.to_owned(), 3, at(second));
        for (second, url) in (0..).zip(["a", "b", "c"]) {
            assert_eq!(want(url, second), None);
        }
        assert_eq!(want("a", 3), None, "wanted again");
        assert_eq!(want("d", 4).as_deref(), Some("b"));
        assert_eq!(want("e", 5).as_deref(), Some("c"));
        places.get_mut("e").expect("there").failures = 1;
        let mut want = |url: &str, second| super::want(&mut places, url.to_owned(), 3, at(second));
        assert_eq!(want("f", 6).as_deref(), Some("e"), "it never gave a list");
        assert_eq!(places.keys().collect::<Vec<_>>(), ["a", "d", "f"]);
    }

    #[test]
    fn only_plain_http_to_a_name_on_port_80_is_fetched() {
        let parsed = |url| parse(url).map(|(host, path)| format!("{host} {path}"));
        for (url, expected) in [
            ("http://crl.test/r3.crl", Some("crl.test /r3.crl")),
            ("http://crl.test:80/a?b=c#d", Some("crl.test /a?b=c")),
            ("http://crl.test", Some("crl.test /")),
            ("https://crl.test/a", None),
            ("ldap://crl.test/a", None),
            ("http://crl.test:8080/a", None),
            ("http://10.0.0.1/a", None),
            ("http://[::1]/a", None),
            ("http://user@crl.test/a", None),
            ("http://crl.test/a b", None),
        ] {
            assert_eq!(parsed(url).as_deref(), expected, "{url}");
        }
    }
}

//! Names of partners and of the next hop, resolved for SIP.
//!
//! ```text
//!   question ─► cache ─► flight (one per question) ─► hickory ─► aliases ─► guard ─► cache ─► everybody who asked
//!                 └ good answers by their TTL, missing ones at least 30 s, failures 5 s
//! ```
//!
//! hickory-resolver does the protocol. What it leaves open is closed here:
//!
//! - An SRV owner that is an alias (CNAME): hickory goes astray when both come in one answer, so the alias is
//!   asked for by itself and followed.
//! - Missing names that come without SOA are not cached by it, failures never. Here both are, or a stranger
//!   who makes up domains would have us ask at every message.
//! - A look-up has one deadline, retries and aliases included.
//! - Source ports keep off the relay's, else a look-up could hold a port that a call needs. (hickory draws ten
//!   times; should all ten be the relay's, the system chooses, whose own range lies off them as well.)
//! - Addresses are looked at before anybody dials them: a partner's DNS may point at our inside.
//!
//! A resolver belongs to the runtime that first uses it; clones of it are cheap and share everything.

mod cache;
pub mod guard;
mod question;
#[cfg(test)]
mod test_server;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::cache::Cache;
use self::guard::AddressRules;
use self::question::Asker;
use crate::config::Config;
use crate::host_name::HostName;
use crate::observe::metrics::Metrics;
use crate::random::SystemRandom;
use crate::run;
use crate::srv::{self, SrvAnswer};

/// Says whether an address that DNS gave may be dialled.
pub type AddressGuard = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How a resolver asks.
#[derive(Clone)]
pub struct ResolverSettings {
    /// Who is asked; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// The addresses that questions come from, at most one per family; without one the system chooses.
    pub bind: Vec<IpAddr>,
    /// For a whole look-up.
    pub deadline: Duration,
    /// UDP source ports that belong to others.
    pub avoid_ports: Arc<HashSet<u16>>,
    /// Which addresses may be dialled.
    pub guard: AddressGuard,
    /// How SRV records are ordered.
    pub order: srv::Order,
    /// What is held at most.
    pub limits: ResolverLimits,
}

/// What a resolver holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolverLimits {
    /// Answers in the cache; when it is full, what expires soonest goes.
    pub cached: usize,
    /// Questions under way; the rest waits.
    pub concurrent: usize,
    /// Questions under way or waiting; the rest is refused as [`DnsFault::Busy`].
    pub pending: usize,
}

impl Default for ResolverLimits {
    fn default() -> Self {
        Self {
            cached: 4096,
            concurrent: 32,
            pending: 512,
        }
    }
}

/// An answer and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The answer.
    pub value: T,
    /// It may be kept until then.
    pub expires: Instant,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DnsFault {
    /// The name servers took too long.
    #[error("the name servers did not answer in time")]
    Timeout,
    /// The name servers answered that they cannot answer, or not at all.
    #[error("the name servers failed: {reason}")]
    Failed {
        /// In their words.
        reason: String,
    },
    /// More questions at once than are allowed.
    #[error("too many look-ups at once")]
    Busy,
    /// The host has no address.
    #[error("the host has no address")]
    NoAddress,
    /// The host has addresses, and none may be dialled.
    #[error("the host's address {address} may not be dialled")]
    Refused {
        /// The first of them.
        address: IpAddr,
    },
    /// Aliases that lead too far, or in a circle.
    #[error("too many aliases")]
    Aliases,
}

impl DnsFault {
    /// The label of its counter.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Failed { .. } => "failed",
            Self::Busy => "busy",
            Self::NoAddress => "no_address",
            Self::Refused { .. } => "refused_address",
            Self::Aliases => "aliases",
        }
    }

    /// All labels, for a metric that shows each from the start.
    pub const LABELS: [&str; 6] = [
        "timeout",
        "failed",
        "busy",
        "no_address",
        "refused_address",
        "aliases",
    ];

    const fn cached_for(&self) -> Duration {
        match self {
            Self::NoAddress | Self::Refused { .. } | Self::Aliases => MISSING_TTL_MIN,
            Self::Timeout | Self::Failed { .. } | Self::Busy => FAILURE_TTL,
        }
    }
}

/// For metrics. The labels of `faults` are those of [`DnsFault::label`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverTally {
    /// Answers in the cache.
    pub cached: usize,
    /// Questions under way or waiting.
    pub pending: usize,
    /// Questions that the cache answered.
    pub hits: u64,
    /// Questions that went out and were answered.
    pub answered: u64,
    /// Questions that were not answered, by reason.
    pub faults: BTreeMap<&'static str, u64>,
}

impl ResolverTally {
    fn count(&mut self, answer: &Answer) {
        match answer {
            Ok(_) => self.answered += 1,
            Err(fault) => *self.faults.entry(fault.label()).or_default() += 1,
        }
    }
}

/// Resolves names; see the module.
#[derive(Clone)]
pub struct SipResolver(Arc<Shared>);

impl ResolverSettings {
    /// For partners: asked from the external address of the Access Edge, answers guarded.
    #[must_use]
    pub fn external(config: &Config) -> Self {
        let access = &config.local().external.access;
        let rules = AddressRules::for_partners(config);
        Self {
            guard: Arc::new(move |address| rules.allow(address)),
            order: config
                .access
                .as_ref()
                .map(|access| access.federation.srv_order)
                .unwrap_or_default(),
            ..Self::common(config, &config.dns.external, access)
        }
    }

    /// For the next hop and others inside: asked from the internal address. What DNS inside says is believed.
    #[must_use]
    pub fn internal(config: &Config) -> Self {
        let own: Vec<IpAddr> = config.local().internal.ips().collect();
        Self::common(config, &config.dns.internal, &own)
    }

    fn common(config: &Config, servers: &[IpAddr], bind: &[IpAddr]) -> Self {
        let first = |v4: bool| bind.iter().copied().find(|address| address.is_ipv4() == v4);
        let relay = config
            .av
            .iter()
            .flat_map(|av| av.relay_ports.iter().chain([av.udp_port]));
        Self {
            servers: servers
                .iter()
                .map(|&server| SocketAddr::new(server, DNS_PORT))
                .collect(),
            bind: [first(true), first(false)].into_iter().flatten().collect(),
            deadline: config.dns.timeout,
            avoid_ports: Arc::new(relay.collect()),
            guard: Arc::new(|_| true),
            order: srv::Order::default(),
            limits: ResolverLimits::default(),
        }
    }
}

impl SipResolver {
    /// Makes a resolver; nothing is asked yet.
    pub fn new(settings: ResolverSettings) -> io::Result<Self> {
        let asker = Asker::new(&settings)?;
        let state = State {
            cache: Cache::new(settings.limits.cached),
            flights: BTreeMap::new(),
            tally: ResolverTally::default(),
        };
        Ok(Self(Arc::new(Shared {
            asker,
            running: Semaphore::new(settings.limits.concurrent),
            state: Mutex::new(state),
            settings,
        })))
    }

    /// For partners: asked from the external address of the Access Edge, answers guarded.
    pub fn external(config: &Config) -> io::Result<Self> {
        Self::new(ResolverSettings::external(config))
    }

    /// For the next hop and others inside: asked from the internal address. What DNS inside says is believed.
    pub fn internal(config: &Config) -> io::Result<Self> {
        Self::new(ResolverSettings::internal(config))
    }

    /// The hosts that offer `service` for `domain`, in the order in which they are to be tried.
    pub async fn srv(
        &self,
        service: &'static str,
        domain: &HostName,
    ) -> Result<Found<SrvAnswer>, DnsFault> {
        let mut found = self
            .ask(Question::Srv {
                service,
                domain: domain.clone(),
            })
            .await?;
        let Reply::Srv(answer) = &mut found.value else {
            return Err(DnsFault::Failed {
                reason: MIXED_UP.to_owned(),
            });
        };
        if let SrvAnswer::Records(records) = answer {
            srv::order(records, self.0.settings.order, &mut SystemRandom);
        }
        Ok(Found {
            value: answer.clone(),
            expires: found.expires,
        })
    }

    /// The addresses of `host` that may be dialled, IPv4 first; never an empty list.
    pub async fn addresses(&self, host: &HostName) -> Result<Found<Vec<IpAddr>>, DnsFault> {
        let found = self.ask(Question::Addresses { host: host.clone() }).await?;
        match found.value {
            Reply::Addresses(value) => Ok(Found {
                value,
                expires: found.expires,
            }),
            Reply::Srv(_) => Err(DnsFault::Failed {
                reason: MIXED_UP.to_owned(),
            }),
        }
    }

    /// What was asked and answered since the start, and what is held now.
    #[must_use]
    pub fn tally(&self) -> ResolverTally {
        let state = self.0.state();
        ResolverTally {
            cached: state.cache.len(),
            pending: state.flights.len(),
            ..state.tally.clone()
        }
    }

    /// Shows the sum of the tallies of all `resolvers` of one side of the host, which are those of its cores.
    pub fn show_in(resolvers: &[Self], side: &str, metrics: &Metrics) {
        let resolvers: Arc<[Self]> = resolvers.into();
        let sum = |read: fn(&ResolverTally) -> u64| {
            let resolvers = Arc::clone(&resolvers);
            move || {
                resolvers
                    .iter()
                    .map(|resolver| read(&resolver.tally()))
                    .sum()
            }
        };
        let gauge = |read: fn(&ResolverTally) -> u64| {
            let sum: Box<dyn Fn() -> u64 + Send + Sync> = Box::new(sum(read));
            move || i64::try_from(sum()).unwrap_or(i64::MAX)
        };
        metrics
            .gauges("dns_cached", "Answers that are remembered", ["side"])
            .watch([side], gauge(|tally| tally.cached as u64));
        metrics
            .gauges("dns_pending", "Questions under way or waiting", ["side"])
            .watch([side], gauge(|tally| tally.pending as u64));
        metrics
            .counters("dns_hits", "Questions that the cache answered", ["side"])
            .watch([side], sum(|tally| tally.hits));
        metrics
            .counters(
                "dns_answered",
                "Questions that a name server answered",
                ["side"],
            )
            .watch([side], sum(|tally| tally.answered));
        let faults = metrics.counters(
            "dns_faults",
            "Questions that were not answered",
            ["side", "reason"],
        );
        for label in DnsFault::LABELS {
            let resolvers = Arc::clone(&resolvers);
            faults.watch([side, label], move || {
                let count = |resolver: &Self| resolver.tally().faults.get(label).copied();
                resolvers.iter().filter_map(count).sum()
            });
        }
    }

    /// Forgets everything, as after a change of the configuration.
    pub fn forget(&self) {
        self.0.state().cache = Cache::new(self.0.settings.limits.cached);
    }

    async fn ask(&self, question: Question) -> Answer {
        let mut landed = {
            let mut state = self.0.state();
            if let Some(hit) = state.cache.get(run::now().mono, &question) {
                state.tally.hits += 1;
                return hit;
            }
            match state.flights.get(&question) {
                Some(flight) => flight.clone(),
                None if state.flights.len() >= self.0.settings.limits.pending => {
                    let refused = Err(DnsFault::Busy);
                    state.tally.count(&refused);
                    return refused;
                }
                None => self.take_off(&mut state, question),
            }
        };
        match landed.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(Err(DnsFault::Timeout)),
            // Only when the runtime goes down under the flight.
            Err(_) => Err(DnsFault::Failed {
                reason: "the look-up was abandoned".to_owned(),
            }),
        }
    }

    /// The flight has a task of its own: whoever asked first may go away without the others losing the answer.
    fn take_off(&self, state: &mut State, question: Question) -> watch::Receiver<Option<Answer>> {
        let (sender, receiver) = watch::channel(None);
        state.flights.insert(question.clone(), receiver.clone());
        let flight = Flight {
            shared: Arc::clone(&self.0),
            question,
        };
        tokio::spawn(async move {
            let answer = flight.fly().await;
            flight.land(&answer);
            // Nobody may be waiting any more.
            sender.send_replace(Some(answer));
        });
        receiver
    }
}

impl fmt::Debug for SipResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SipResolver")
            .field("servers", &self.0.settings.servers)
            .finish_non_exhaustive()
    }
}

type Answer = Result<Found<Reply>, DnsFault>;

struct Shared {
    asker: Asker,
    settings: ResolverSettings,
    running: Semaphore,
    state: Mutex<State>,
}

struct State {
    cache: Cache<Question, Answer>,
    flights: BTreeMap<Question, watch::Receiver<Option<Answer>>>,
    tally: ResolverTally,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Srv {
        service: &'static str,
        domain: HostName,
    },
    Addresses {
        host: HostName,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Srv(SrvAnswer),
    Addresses(Vec<IpAddr>),
}

impl Shared {
    /// Nothing is done under the lock that could panic half-way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question on its way. When it ends, even with the runtime, it leaves the list of those under way.
struct Flight {
    shared: Arc<Shared>,
    question: Question,
}

impl Flight {
    async fn fly(&self) -> Answer {
        let shared = &self.shared;
        let work = async {
            let _turn = shared.running.acquire().await.map_err(|_| DnsFault::Busy)?;
            match &self.question {
                Question::Srv { service, domain } => shared.asker.srv(service, domain).await,
                Question::Addresses { host } => shared.asker.addresses(host).await,
            }
        };
        timeout(shared.settings.deadline, work)
            .await
            .unwrap_or(Err(DnsFault::Timeout))
    }

    fn land(&self, answer: &Answer) {
        let now = run::now().mono;
        let expires = match answer {
            Ok(found) => found.expires,
            Err(fault) => now + fault.cached_for(),
        };
        let mut state = self.shared.state();
        state.tally.count(answer);
        state
            .cache
            .insert(now, self.question.clone(), answer.clone(), expires);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.shared.state().flights.remove(&self.question);
    }
}

/// RFC 1035 §4.2.
pub const DNS_PORT: u16 = 53;

/// What a stranger makes up must not cost a question each time.
const MISSING_TTL_MIN: Duration = Duration::from_secs(30);
/// Long enough that a storm does not reach the name servers, short enough that nobody notices their return.
const FAILURE_TTL: Duration = Duration::from_secs(5);
const MIXED_UP: &str = "an answer to another question";
#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::proto::op::ResponseCode;
    use hickory_resolver::proto::rr::RecordType;

    use super::test_server::{Script, Server, Zone, cname, srv};
    use super::*;

    const SERVICE: &str = srv::SIP_FEDERATION_TLS;
    const OWNER: &str = "_sipfederationtls._tcp.fabrikam.test.";

    fn host(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn settings(servers: Vec<SocketAddr>) -> ResolverSettings {
        ResolverSettings {
            servers,
            bind: vec![Ipv4Addr::LOCALHOST.into()],
            deadline: Duration::from_secs(5),
            avoid_ports: Arc::default(),
            guard: Arc::new(|_| true),
            order: srv::Order::Ocs,
            limits: ResolverLimits::default(),
        }
    }

    async fn resolver(zone: Zone) -> (Server, SipResolver) {
        let server = Server::start(zone).await;
        let resolver = SipResolver::new(settings(vec![server.address])).unwrap();
        (server, resolver)
    }

    async fn targets(resolver: &SipResolver) -> Vec<String> {
        let found = resolver.srv(SERVICE, &host("fabrikam.test")).await.unwrap();
        found
            .value
            .records()
            .iter()
            .map(|record| record.target.to_string())
            .collect()
    }

    #[tokio::test]
    async fn srv_records_come_in_the_order_of_ocs_and_from_the_cache_the_second_time() {
        let zone = Zone::default().srv(
            OWNER,
            &[
                (20, 0, 5061, "c.fabrikam.test."),
                (10, 1, 5061, "b.fabrikam.test."),
                (10, 9, 5062, "a.fabrikam.test."),
            ],
        );
        let (server, resolver) = resolver(zone).await;
        let expected = [
            "a.fabrikam.test:5062",
            "b.fabrikam.test:5061",
            "c.fabrikam.test:5061",
        ];
        assert_eq!(targets(&resolver).await, expected);
        assert_eq!(targets(&resolver).await, expected);
        assert_eq!(server.questions(), [format!("{OWNER} SRV")]);
        assert_eq!((resolver.tally().hits, resolver.tally().answered), (1, 1));
        resolver.forget();
        targets(&resolver).await;
        assert_eq!(server.questions().len(), 2);
    }

    #[tokio::test]
    async fn an_srv_owner_may_be_an_alias_in_one_answer_or_in_two() {
        let (alias, real) = (
            cname(OWNER, "_sip.provider.test."),
            srv("_sip.provider.test.", (1, 1, 5061, "sip.fabrikam.test.")),
        );
        let two_steps = Zone::default()
            .with(OWNER, RecordType::SRV, Script::Records(vec![alias.clone()]))
            .with(
                OWNER,
                RecordType::CNAME,
                Script::Records(vec![alias.clone()]),
            )
            .with(
                "_sip.provider.test.",
                RecordType::SRV,
                Script::Records(vec![real.clone()]),
            )
            .a("sip.fabrikam.test.", &["192.0.2.1"]);
        let one_answer =
            two_steps
                .clone()
                .with(OWNER, RecordType::SRV, Script::Records(vec![alias, real]));
        for zone in [two_steps, one_answer] {
            let (_server, resolver) = resolver(zone).await;
            assert_eq!(targets(&resolver).await, ["sip.fabrikam.test:5061"]);
        }
    }

    #[tokio::test]
    async fn aliases_in_a_circle_end() {
        let (to_b, to_a) = (cname(OWNER, "b.test."), cname("b.test.", OWNER));
        let zone = Zone::default()
            .with(OWNER, RecordType::CNAME, Script::Records(vec![to_b]))
            .with("b.test.", RecordType::CNAME, Script::Records(vec![to_a]));
        let (server, resolver) = resolver(zone).await;
        assert_eq!(
            resolver.srv(SERVICE, &host("fabrikam.test")).await,
            Err(DnsFault::Aliases)
        );
        assert!(server.questions().len() <= 16);
    }

    #[tokio::test]
    async fn a_domain_that_is_missing_without_soa_is_asked_for_once() {
        let (server, resolver) = resolver(Zone::default()).await;
        for _ in 0..3 {
            let found = resolver.srv(SERVICE, &host("fabrikam.test")).await.unwrap();
            assert_eq!(found.value, SrvAnswer::Missing);
            assert!(found.expires > run::now().mono + Duration::from_secs(25));
        }
        assert_eq!(server.questions(), [format!("{OWNER} SRV")]);
    }

    #[tokio::test]
    async fn a_root_target_means_that_the_service_is_not_offered() {
        let (_server, resolver) = resolver(Zone::default().srv(OWNER, &[(0, 0, 0, ".")])).await;
        let found = resolver.srv(SERVICE, &host("fabrikam.test")).await.unwrap();
        assert_eq!(found.value, SrvAnswer::NotOffered);
    }

    #[tokio::test]
    async fn a_failing_server_is_told_and_not_asked_again_at_once() {
        let zone =
            Zone::default().with(OWNER, RecordType::SRV, Script::Code(ResponseCode::ServFail));
        let (server, resolver) = resolver(zone).await;
        let fault = resolver
            .srv(SERVICE, &host("fabrikam.test"))
            .await
            .unwrap_err();
        assert_eq!(fault.label(), "failed");
        let asked = server.questions().len();
        assert_eq!(
            resolver.srv(SERVICE, &host("fabrikam.test")).await,
            Err(fault)
        );
        assert_eq!(server.questions().len(), asked);
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let zone = Zone::default().with(OWNER, RecordType::SRV, Script::Silence);
        let server = Server::start(zone).await;
        let deadline = Duration::from_millis(300);
        let resolver = SipResolver::new(ResolverSettings {
            deadline,
            ..settings(vec![server.address])
        })
        .unwrap();
        let start = run::now().mono;
        assert_eq!(
            resolver.srv(SERVICE, &host("fabrikam.test")).await,
            Err(DnsFault::Timeout)
        );
        let took = run::now().mono - start;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test]
    async fn one_of_two_servers_is_enough() {
        let silent =
            Server::start(Zone::default().with(OWNER, RecordType::SRV, Script::Silence)).await;
        let good =
            Server::start(Zone::default().srv(OWNER, &[(0, 0, 5061, "sip.fabrikam.test.")])).await;
        let resolver = SipResolver::new(settings(vec![silent.address, good.address])).unwrap();
        assert_eq!(targets(&resolver).await, ["sip.fabrikam.test:5061"]);
    }

    #[tokio::test]
    async fn what_does_not_fit_a_datagram_comes_over_tcp() {
        let records = (0..60)
            .map(|n| srv(OWNER, (n, 0, 5061, &format!("edge{n}.fabrikam.test."))))
            .collect();
        let (server, resolver) =
            resolver(Zone::default().with(OWNER, RecordType::SRV, Script::Truncated(records)))
                .await;
        assert_eq!(targets(&resolver).await.len(), 60);
        let ways: Vec<bool> = server.seen().iter().map(|seen| seen.tcp).collect();
        assert_eq!(ways, [false, true]);
    }

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_question() {
        let (server, resolver) =
            resolver(Zone::default().a("sip.fabrikam.test.", &["192.0.2.1"])).await;
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let resolver = resolver.clone();
                tokio::spawn(async move {
                    resolver
                        .addresses(&host("sip.fabrikam.test"))
                        .await
                        .unwrap()
                        .value
                })
            })
            .collect();
        for asker in asking {
            assert_eq!(
                asker.await.unwrap(),
                ["192.0.2.1".parse::<IpAddr>().unwrap()]
            );
        }
        let mut questions = server.questions();
        questions.sort_unstable();
        assert_eq!(
            questions,
            ["sip.fabrikam.test. A", "sip.fabrikam.test. AAAA"]
        );
    }

    #[tokio::test]
    async fn whoever_asked_first_may_go_away() {
        let (server, resolver) =
            resolver(Zone::default().a("sip.fabrikam.test.", &["192.0.2.1"])).await;
        let first = resolver.clone();
        let abandoned =
            tokio::spawn(async move { first.addresses(&host("sip.fabrikam.test")).await });
        tokio::task::yield_now().await;
        abandoned.abort();
        assert!(resolver.addresses(&host("sip.fabrikam.test")).await.is_ok());
        assert_eq!(server.questions().len(), 2);
    }

    #[tokio::test]
    async fn more_at_once_than_allowed_are_refused_and_leave_nothing_behind() {
        let zone = Zone::default()
            .with(OWNER, RecordType::SRV, Script::Silence)
            .a("a.test.", &["192.0.2.1"]);
        let server = Server::start(zone).await;
        let limits = ResolverLimits {
            cached: 10,
            concurrent: 1,
            pending: 1,
        };
        let deadline = Duration::from_millis(200);
        let resolver = SipResolver::new(ResolverSettings {
            limits,
            deadline,
            ..settings(vec![server.address])
        })
        .unwrap();
        let (fabrikam, a_test) = (host("fabrikam.test"), host("a.test"));
        let (waiting, refused) = tokio::join!(
            resolver.srv(SERVICE, &fabrikam),
            resolver.addresses(&a_test)
        );
        assert_eq!(
            (waiting, refused),
            (Err(DnsFault::Timeout), Err(DnsFault::Busy))
        );
        assert!(resolver.0.state().flights.is_empty());
        assert!(
            resolver.addresses(&host("a.test")).await.is_ok(),
            "a refusal for lack of room is not remembered"
        );
    }

    #[tokio::test]
    async fn addresses_of_both_families_pass_the_guard() {
        let zone = Zone::default()
            .a("sip.fabrikam.test.", &["10.0.0.1", "192.0.2.1"])
            .aaaa("sip.fabrikam.test.", &["2001:db8::1"])
            .a("inside.fabrikam.test.", &["10.0.0.1", "127.0.0.1"]);
        let server = Server::start(zone).await;
        let guard: AddressGuard = Arc::new(|address| match address {
            IpAddr::V4(v4) => !v4.is_private() && !v4.is_loopback(),
            IpAddr::V6(v6) => !v6.is_loopback(),
        });
        let resolver = SipResolver::new(ResolverSettings {
            guard,
            ..settings(vec![server.address])
        })
        .unwrap();
        let found = resolver
            .addresses(&host("sip.fabrikam.test"))
            .await
            .unwrap()
            .value;
        assert_eq!(
            found,
            [
                "192.0.2.1".parse::<IpAddr>().unwrap(),
                "2001:db8::1".parse().unwrap()
            ]
        );
        let fault = resolver
            .addresses(&host("inside.fabrikam.test"))
            .await
            .unwrap_err();
        assert_eq!(
            fault,
            DnsFault::Refused {
                address: "10.0.0.1".parse().unwrap()
            }
        );
        assert_eq!(
            resolver
                .addresses(&host("localhost"))
                .await
                .unwrap_err()
                .label(),
            "refused_address"
        );
        assert_eq!(
            resolver.addresses(&host("nowhere.test")).await,
            Err(DnsFault::NoAddress)
        );
    }

    #[tokio::test]
    async fn questions_come_from_the_bound_address_and_off_the_relay_ports() {
        let (server, resolver) = {
            let server = Server::start(Zone::default()).await;
            // A quarter of all ports is the relay's: that it is kept off by chance has one in 10^10.
            let avoid_ports = Arc::new((10_000..=25_999).collect());
            let settings = ResolverSettings {
                avoid_ports,
                bind: vec!["127.0.0.7".parse().unwrap()],
                ..settings(vec![server.address])
            };
            (server, SipResolver::new(settings).unwrap())
        };
        for n in 0..40 {
            let fault = resolver.addresses(&host(&format!("h{n}.test"))).await;
            assert_eq!(fault, Err(DnsFault::NoAddress));
        }
        for seen in server.seen() {
            assert_eq!(seen.from.ip(), "127.0.0.7".parse::<IpAddr>().unwrap());
            assert!(!(10_000..=25_999).contains(&seen.from.port()), "{seen:?}");
        }
    }

    #[tokio::test]
    async fn resolvers_follow_from_the_configuration() {
        let example = include_str!("../../../deploy/examples/single.toml");
        let config = crate::config::check(example, None).config.unwrap();
        let (outside, inside) = (
            SipResolver::external(&config).unwrap(),
            SipResolver::internal(&config).unwrap(),
        );
        let (outside, inside) = (&outside.0.settings, &inside.0.settings);
        assert_eq!(outside.servers, ["192.0.2.53:53".parse().unwrap()]);
        assert_eq!(
            outside.bind,
            [
                "198.51.100.10".parse::<IpAddr>().unwrap(),
                "2001:db8:100::10".parse().unwrap()
            ]
        );
        assert_eq!(inside.servers, ["10.10.0.53:53".parse().unwrap()]);
        assert_eq!(inside.bind, ["10.10.0.10".parse::<IpAddr>().unwrap()]);
        for port in [3_478, 50_000, 59_999] {
            assert!(outside.avoid_ports.contains(&port) && inside.avoid_ports.contains(&port));
        }
        assert_eq!(outside.avoid_ports.len(), 10_001);
        let director = "10.10.0.20".parse().unwrap();
        assert!((inside.guard)(director) && !(outside.guard)(director));
    }

    #[tokio::test]
    async fn a_resolver_on_the_host_itself_is_asked_from_the_host_itself() {
        let server = Server::start(Zone::default().a("a.test.", &["192.0.2.1"])).await;
        let bind = vec!["192.0.2.200".parse().unwrap()];
        let resolver = SipResolver::new(ResolverSettings {
            bind,
            ..settings(vec![server.address])
        })
        .unwrap();
        assert!(resolver.addresses(&host("a.test")).await.is_ok());
    }

    #[tokio::test]
    async fn the_cache_is_bounded() {
        let server = Server::start(Zone::default()).await;
        let limits = ResolverLimits {
            cached: 2,
            ..ResolverLimits::default()
        };
        let resolver = SipResolver::new(ResolverSettings {
            limits,
            ..settings(vec![server.address])
        })
        .unwrap();
        for n in [1, 2, 3, 3, 1] {
            assert!(
                resolver
                    .srv(SERVICE, &host(&format!("d{n}.test")))
                    .await
                    .is_ok()
            );
        }
        assert_eq!(
            server.questions().len(),
            4,
            "the third stayed, the first had to go"
        );
    }
}

//! One question: put to hickory, followed through aliases, and its answer made into what SIP needs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::{
    AddressGuard, Answer, DNS_PORT, DnsFault, Found, MISSING_TTL_MIN, Reply, ResolverSettings,
};
use crate::host_name::{HostName, HostPort};
use crate::run;
use crate::srv::{SrvAnswer, SrvRecord};

/// hickory, and which of the addresses that it finds may be dialled.
pub(super) struct Asker {
    hickory: TokioResolver,
    guard: AddressGuard,
}

impl Asker {
    pub(super) fn new(settings: &ResolverSettings) -> io::Result<Self> {
        Ok(Self {
            hickory: hickory(settings)?,
            guard: Arc::clone(&settings.guard),
        })
    }

    pub(super) async fn srv(&self, service: &str, domain: &HostName) -> Answer {
        let mut owner = name(&format!("{service}.{domain}."))?;
        for _ in 0..ALIASES_MAX {
            let found = self.lookup(&owner, RecordType::SRV).await?;
            if let Some(answer) = srv_answer(&found, &owner) {
                return Ok(answer);
            }
            if found.name_missing {
                return Ok(missing(found.ttl));
            }
            match self.alias(&owner).await? {
                Some(target) => owner = target,
                None => return Ok(missing(found.ttl)),
            }
        }
        Err(DnsFault::Aliases)
    }

    async fn alias(&self, owner: &Name) -> Result<Option<Name>, DnsFault> {
        let found = self.lookup(owner, RecordType::CNAME).await?;
        Ok(found.records.into_iter().find_map(|record| match record {
            (name, RData::CNAME(target)) if name == *owner => Some(target.0),
            _ => None,
        }))
    }

    pub(super) async fn addresses(&self, host: &HostName) -> Answer {
        let host = name(&format!("{host}."))?;
        let (v4, v6) = tokio::join!(
            self.lookup(&host, RecordType::A),
            self.lookup(&host, RecordType::AAAA)
        );
        let (v4, v6) = match (v4, v6) {
            // One family is enough, if there is something in it.
            (Ok(found), Err(_)) if !found.records.is_empty() => (found, Records::default()),
            (Err(_), Ok(found)) if !found.records.is_empty() => (Records::default(), found),
            (Ok(v4), Ok(v6)) => (v4, v6),
            (Err(fault), _) | (_, Err(fault)) => return Err(fault),
        };
        let ttl = [v4.ttl, v6.ttl].into_iter().flatten().min();
        let all: Vec<IpAddr> = v4
            .records
            .iter()
            .chain(&v6.records)
            .filter_map(|(_, data)| data.ip_addr())
            .take(RECORDS_MAX)
            .collect();
        let Some(&first) = all.first() else {
            return Err(DnsFault::NoAddress);
        };
        let allowed: Vec<IpAddr> = all
            .into_iter()
            .filter(|&address| (self.guard)(address))
            .collect();
        if allowed.is_empty() {
            return Err(DnsFault::Refused { address: first });
        }
        Ok(found(Reply::Addresses(allowed), ttl, TTL_MIN))
    }

    async fn lookup(&self, name: &Name, record_type: RecordType) -> Result<Records, DnsFault> {
        match self.hickory.lookup(name.clone(), record_type).await {
            Ok(lookup) => Ok(Records::of(&lookup)),
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Ok(Records {
                records: Vec::new(),
                ttl: nothing
                    .negative_ttl
                    .map(|secs| Duration::from_secs(secs.into())),
                // hickory may have gone on to another name, whose absence says nothing about this one.
                name_missing: nothing.response_code == ResponseCode::NXDomain
                    && nothing.query.name() == name,
            }),
            Err(NetError::Timeout) => Err(DnsFault::Timeout),
            Err(error) => Err(DnsFault::Failed {
                reason: error.to_string(),
            }),
        }
    }
}

#[derive(Default)]
struct Records {
    records: Vec<(Name, RData)>,
    /// The shortest of the answer, or what it says about the absence.
    ttl: Option<Duration>,
    /// The very name that was asked for does not exist.
    name_missing: bool,
}

impl Records {
    fn of(lookup: &Lookup) -> Self {
        let answers = lookup.answers();
        Self {
            records: answers
                .iter()
                .map(|record| (record.name.clone(), record.data.clone()))
                .collect(),
            ttl: answers
                .iter()
                .map(|record| Duration::from_secs(record.ttl.into()))
                .min(),
            name_missing: false,
        }
    }
}

fn srv_answer(found: &Records, owner: &Name) -> Option<Found<Reply>> {
    let mut records = Vec::new();
    let mut not_offered = false;
    for (name, data) in found.records.iter().take(RECORDS_MAX) {
        let RData::SRV(srv) = data else { continue };
        if name != owner {
            continue;
        }
        not_offered |= srv.target.is_root();
        // A target that is no host name, or a port of 0, cannot be dialled.
        let Ok(host) = HostName::with_underscores(&srv.target.to_ascii()) else {
            continue;
        };
        if srv.port != 0 {
            let target = HostPort {
                host,
                port: srv.port,
            };
            records.push(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                target,
            });
        }
    }
    let answer = match (records.is_empty(), not_offered) {
        (false, _) => SrvAnswer::Records(records),
        (true, true) => SrvAnswer::NotOffered,
        (true, false) => return None,
    };
    Some(self::found(Reply::Srv(answer), found.ttl, TTL_MIN))
}

fn missing(ttl: Option<Duration>) -> Found<Reply> {
    found(Reply::Srv(SrvAnswer::Missing), ttl, MISSING_TTL_MIN)
}

fn found(value: Reply, ttl: Option<Duration>, floor: Duration) -> Found<Reply> {
    let ttl = ttl.unwrap_or(floor).clamp(floor, TTL_MAX);
    Found {
        value,
        expires: run::now().mono + ttl,
    }
}

fn name(text: &str) -> Result<Name, DnsFault> {
    Name::from_ascii(text).map_err(|error| DnsFault::Failed {
        reason: error.to_string(),
    })
}

fn hickory(settings: &ResolverSettings) -> io::Result<TokioResolver> {
    let servers = if settings.servers.is_empty() {
        system_servers()?
    } else {
        settings.servers.clone()
    };
    let servers = servers
        .into_iter()
        .map(|server| name_server(server, &settings.bind))
        .collect();
    let mut options = ResolverOpts::default();
    options.timeout = TRY_TIMEOUT.min(settings.deadline / 2);
    options.attempts = RETRIES;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.avoid_local_udp_ports = Arc::clone(&settings.avoid_ports);
    options.case_randomization = true;
    TokioResolver::builder_with_config(
        ResolverConfig::from_name_servers(servers),
        TokioRuntimeProvider::default(),
    )
    .with_options(options)
    .build()
    .map_err(io::Error::other)
}

fn name_server(server: SocketAddr, bind: &[IpAddr]) -> NameServerConfig {
    // A resolver on the host itself answers nobody from another address.
    let from = bind.iter().find(|address| {
        address.is_ipv4() == server.is_ipv4() && address.is_loopback() == server.ip().is_loopback()
    });
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection.bind_addr = from.map(|&address| SocketAddr::new(address, 0));
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

fn system_servers() -> io::Result<Vec<SocketAddr>> {
    let (config, _) =
        hickory_resolver::system_conf::read_system_conf().map_err(io::Error::other)?;
    let servers: Vec<_> = config
        .name_servers()
        .iter()
        .map(|server| SocketAddr::new(server.ip, DNS_PORT))
        .collect();
    if servers.is_empty() {
        return Err(io::Error::other(
            "no name server is configured, and /etc/resolv.conf names none",
        ));
    }
    Ok(servers)
}

/// One try with one server; two of them and an alias fit into the deadline of 5 s.
const TRY_TIMEOUT: Duration = Duration::from_millis(1_200);
const RETRIES: usize = 1;
/// A domain whose owner says 0 would be asked for at every message.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_secs(3_600);
/// More hosts than any federation has.
const RECORDS_MAX: usize = 64;
const ALIASES_MAX: usize = 8;

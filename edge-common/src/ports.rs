//! THE port table: listeners, firewall, DNS records, documents and tests all read it.
//!
//! A [`Row`] says what one port is for in general; [`openings`] says what it comes to on one member of one
//! configured edge; [`listeners`] is the part of these that a daemon binds when it starts.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::config::{Config, Hep, RelayMode};
use crate::side::Side;

/// One port or range of the edge.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable name, `service/side/use`; in firewall comments and findings.
    pub id: &'static str,
    /// Who uses it.
    pub service: Service,
    /// What for.
    pub purpose: Purpose,
    /// On which interface.
    pub side: Side,
    /// Over what.
    pub transport: Transport,
    /// Who opens the flow.
    pub direction: Direction,
    /// Whose port it is, of the two ends of a flow.
    pub end: End,
    /// What is spoken there.
    pub protocol: &'static str,
    /// The key of `edge.toml` that changes it; `None`: fixed.
    pub key: Option<&'static str>,
    /// The port when the key is not set.
    pub default: PortRange,
    /// Who is at the far end.
    pub reach: Reach,
    /// Whether this release uses it. A reserved row opens nothing.
    pub standing: Standing,
    /// What it is for, for documents.
    pub words: &'static str,
}

/// Who uses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// `edge-access`.
    Access,
    /// `edge-webconf`.
    Webconf,
    /// `edge-av`.
    Av,
}

impl Service {
    /// All of them, in the order of the documents.
    pub const ALL: [Self; 3] = [Self::Access, Self::Webconf, Self::Av];

    /// The name of its table in `edge.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Webconf => "webconf",
            Self::Av => "av",
        }
    }

    /// The name of its daemon, unit, state and admin directory.
    #[must_use]
    pub const fn daemon(self) -> &'static str {
        match self {
            Self::Access => "edge-access",
            Self::Webconf => "edge-webconf",
            Self::Av => "edge-av",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Remote users sign in.
    Client,
    /// Partners, in and out.
    Federation,
    /// SIP from servers inside.
    Internal,
    /// SIP to the next hop inside.
    NextHop,
    /// Names are looked up.
    Dns,
    /// Revocation lists are fetched.
    Crl,
    /// Conference clients.
    Conference,
    /// Agents next to conference servers.
    Agent,
    /// STUN and TURN over UDP.
    TurnUdp,
    /// STUN and TURN over TCP, plain or in TLS.
    TurnTcp,
    /// Relayed packets.
    Relay,
    /// Servers ask for media credentials.
    Mras,
    /// Media credentials over HTTPS.
    TurnRest,
    /// `/livez`, `/readyz` and `/metrics`.
    Health,
    /// Members of the array among themselves.
    Link,
    /// Copies of messages go to a collector.
    Mirror,
}

/// Over what a port is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Who opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The far end; we listen.
    Listen,
    /// We do.
    Dial,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Ours.
    Local,
    /// The far one.
    Remote,
}

/// Who is at the far end of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Any address that is routed over the interface.
    Anyone,
    /// `internal.networks`.
    Inside,
    /// The next hop, by its addresses where they are given, else `internal.networks`.
    NextHop,
    /// The resolvers of that side.
    Resolvers,
    /// `array.balancers` of that side.
    Balancers,
    /// The other members' addresses on that side.
    Members,
    /// The collector of copied messages.
    Collector,
}

/// Whether a row is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Built, and open whenever its service is configured.
    InUse,
    /// Built, and open in these relay modes only.
    InModes(&'static [RelayMode]),
    /// Kept free for a later release; nothing listens, nothing is opened.
    Reserved,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port there is.
    pub const ANY: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// A single port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// From `first` to `last`; `None` when they are the wrong way round or `first` is 0.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last {
            None
        } else {
            Some(Self { first, last })
        }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports; never 0.
    #[must_use]
    pub const fn count(self) -> usize {
        (self.last - self.first) as usize + 1
    }

    /// Says whether `port` is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Says whether some port is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The ports from the lowest on.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u16> {
        self.first..=self.last
    }
}

/// `5061` or `50000-59999`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (
            port(first).ok_or(PortRangeError::Port)?,
            port(last).ok_or(PortRangeError::Port)?,
        );
        Self::new(first, last).ok_or(PortRangeError::Order)
    }
}

/// A port in digits; `parse` alone would take a sign.
fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// Why a text is no range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// An end of it.
    #[error("two numbers from 1 to 65535 with '-' between them are expected")]
    Port,
    /// The ends are the wrong way round.
    #[error("the first port is higher than the last")]
    Order,
}

/// What a row comes to on one configured member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The row.
    pub row: &'static Row,
    /// The host's addresses at our end.
    pub addresses: Vec<IpAddr>,
    /// The configured ports, at the end that `row.end` says.
    pub ports: PortRange,
    /// The interface.
    pub interface: String,
}

/// A socket that a daemon binds when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Who binds it.
    pub service: Service,
    /// What for.
    pub purpose: Purpose,
    /// On which side.
    pub side: Side,
    /// Over what.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
    /// The interface that it is bound to beside the address.
    pub interface: String,
}

/// Every row that is in use by the configured services of this host, with its addresses and ports.
#[must_use]
pub fn openings(config: &Config) -> Vec<Opening> {
    TABLE
        .iter()
        .filter(|row| is_open(row, config))
        .map(|row| opening(row, config))
        .collect()
}

/// What the daemons bind when they start: the listening openings, relay ports apart.
#[must_use]
pub fn listeners(config: &Config) -> Vec<Listener> {
    openings(config)
        .into_iter()
        .filter(|open| {
            open.row.direction == Direction::Listen && open.row.purpose != Purpose::Relay
        })
        .flat_map(|open| {
            let Opening {
                row,
                addresses,
                ports,
                interface,
            } = open;
            addresses.into_iter().map(move |address| Listener {
                service: row.service,
                purpose: row.purpose,
                side: row.side,
                transport: row.transport,
                address: SocketAddr::new(address, ports.first()),
                interface: interface.clone(),
            })
        })
        .collect()
}

/// The port or range that `row` has in `config`.
#[must_use]
pub fn configured(row: &Row, config: &Config) -> PortRange {
    row.key
        .and_then(|key| config_port(key, config))
        .unwrap_or(row.default)
}

fn opening(row: &'static Row, config: &Config) -> Opening {
    let interface = match row.side {
        Side::External => &config.external.interface,
        Side::Internal => &config.internal.interface,
    };
    Opening {
        row,
        addresses: addresses(row, config),
        ports: configured(row, config),
        interface: interface.clone(),
    }
}

fn is_open(row: &Row, config: &Config) -> bool {
    is_served(row, config)
        && match row.standing {
            Standing::InUse => true,
            Standing::InModes(modes) => config
                .av
                .as_ref()
                .is_some_and(|av| modes.contains(&av.relay_mode)),
            Standing::Reserved => false,
        }
}

/// Whether anybody is there to use the row: what is switched off is not listened for.
fn is_served(row: &Row, config: &Config) -> bool {
    if (row.side, row.purpose) == (Side::External, Purpose::Health)
        && config.array.balancers.external.is_empty()
    {
        // Nobody else is answered there.
        return false;
    }
    match (row.service, row.side, row.purpose) {
        (Service::Webconf, ..) => config.webconf.is_some(),
        (Service::Av, ..) => config.av.is_some(),
        (Service::Access, _, Purpose::Client) => config
            .access
            .as_ref()
            .is_some_and(|access| access.remote_users || access.anonymous_users),
        (Service::Access, _, Purpose::Federation | Purpose::Crl)
        | (Service::Access, Side::External, Purpose::Dns) => config
            .access
            .as_ref()
            .is_some_and(|access| access.federation.enabled),
        (Service::Access, _, Purpose::Mirror) => config
            .access
            .as_ref()
            .is_some_and(|access| access.hep.is_some()),
        (Service::Access, _, Purpose::Link) => {
            config.access.is_some() && config.others().next().is_some()
        }
        (Service::Access, Side::Internal, Purpose::Dns) => {
            config.access.is_some() && config.internal.next_hop_addresses.is_empty()
        }
        (Service::Access, ..) => config.access.is_some(),
    }
}

fn addresses(row: &Row, config: &Config) -> Vec<IpAddr> {
    let member = config.local();
    match (row.side, row.service) {
        (Side::Internal, _) => member.internal.ips().collect(),
        (Side::External, Service::Access) => member.external.access.clone(),
        (Side::External, Service::Webconf) => member.external.webconf.clone(),
        (Side::External, Service::Av) => member.external.av.clone(),
    }
}

/// The only place where a row's key meets its field.
fn config_port(key: &str, config: &Config) -> Option<PortRange> {
    let (access, webconf, av) = (
        config.access.as_ref(),
        config.webconf.as_ref(),
        config.av.as_ref(),
    );
    let one = match key {
        "access.client_port" => access?.client_port,
        "access.federation_port" => access?.federation_port,
        "access.internal_port" => access?.internal_port,
        "access.hep.port" => access?.hep.as_ref().map_or(Hep::PORT, |hep| hep.port),
        "internal.next_hop" => config.internal.next_hop.as_ref()?.port,
        "webconf.port" => webconf?.port,
        "webconf.agent_port" => webconf?.agent_port,
        "av.udp_port" => av?.udp_port,
        "av.tcp_port" => av?.tcp_port,
        "av.mras_port" => av?.mras_port,
        "av.relay_ports" => return Some(av?.relay_ports),
        "array.link_port" => config.array.link_port,
        "health.access" => config.health.access,
        "health.webconf" => config.health.webconf,
        "health.av" => config.health.av,
        _ => return None,
    };
    Some(PortRange::one(one))
}

/// Outside and inside apart, each service in the order of the guide.
pub const TABLE: &[Row] = &[
    Row {
        id: "access/ext/client",
        protocol: "SIP/TLS",
        key: Some("access.client_port"),
        default: PortRange::one(443),
        words: "Remote and anonymous users sign in.",
        ..listen(
            Service::Access,
            Purpose::Client,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "access/ext/federation",
        protocol: "SIP/mTLS",
        key: Some("access.federation_port"),
        default: PortRange::one(5061),
        words: "Partners connect to this organisation.",
        ..listen(
            Service::Access,
            Purpose::Federation,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "access/ext/federation-out",
        protocol: "SIP/mTLS",
        // A partner's SRV record may name any port.
        default: PortRange::ANY,
        words: "This organisation connects to partners, at the port that their SRV record names.",
        ..dial(
            Service::Access,
            Purpose::Federation,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "access/ext/dns-udp",
        protocol: "DNS",
        default: PortRange::one(53),
        words: "Partners' domains are looked up.",
        ..dial(
            Service::Access,
            Purpose::Dns,
            Side::External,
            Transport::Udp,
            Reach::Resolvers,
        )
    },
    Row {
        id: "access/ext/dns-tcp",
        protocol: "DNS",
        default: PortRange::one(53),
        words: "Partners' domains are looked up, when the answer is long.",
        ..dial(
            Service::Access,
            Purpose::Dns,
            Side::External,
            Transport::Tcp,
            Reach::Resolvers,
        )
    },
    Row {
        id: "access/ext/crl",
        protocol: "HTTP",
        default: PortRange::one(80),
        words: "Certificate revocation lists are downloaded.",
        ..dial(
            Service::Access,
            Purpose::Crl,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "access/ext/health",
        protocol: "HTTP",
        key: Some("health.access"),
        default: PortRange::one(9561),
        words: "The outside balancer asks whether this member is ready.",
        ..listen(
            Service::Access,
            Purpose::Health,
            Side::External,
            Transport::Tcp,
            Reach::Balancers,
        )
    },
    Row {
        id: "access/int/sip",
        protocol: "SIP/mTLS",
        key: Some("access.internal_port"),
        default: PortRange::one(5061),
        words: "Servers inside send requests for users and partners outside.",
        ..listen(
            Service::Access,
            Purpose::Internal,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
    Row {
        id: "access/int/next-hop",
        protocol: "SIP/mTLS",
        key: Some("internal.next_hop"),
        default: PortRange::one(5061),
        words: "Requests from outside go to the Director or pool.",
        ..dial(
            Service::Access,
            Purpose::NextHop,
            Side::Internal,
            Transport::Tcp,
            Reach::NextHop,
        )
    },
    Row {
        id: "access/int/hep",
        protocol: "HEP",
        key: Some("access.hep.port"),
        default: PortRange::one(Hep::PORT),
        words: "Copies of messages go to the collector, when one is configured.",
        ..dial(
            Service::Access,
            Purpose::Mirror,
            Side::Internal,
            Transport::Udp,
            Reach::Collector,
        )
    },
    Row {
        id: "access/int/dns-udp",
        protocol: "DNS",
        default: PortRange::one(53),
        words: "The next hop is looked up.",
        ..dial(
            Service::Access,
            Purpose::Dns,
            Side::Internal,
            Transport::Udp,
            Reach::Resolvers,
        )
    },
    Row {
        id: "access/int/dns-tcp",
        protocol: "DNS",
        default: PortRange::one(53),
        words: "The next hop is looked up, when the answer is long.",
        ..dial(
            Service::Access,
            Purpose::Dns,
            Side::Internal,
            Transport::Tcp,
            Reach::Resolvers,
        )
    },
    Row {
        id: "access/int/health",
        protocol: "HTTP",
        key: Some("health.access"),
        default: PortRange::one(9561),
        words: "Health and metrics of edge-access.",
        ..listen(
            Service::Access,
            Purpose::Health,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
    Row {
        id: "access/int/link",
        protocol: "edge link/mTLS",
        key: Some("array.link_port"),
        default: PortRange::one(5063),
        words: "Members of the array hand messages to each other.",
        ..listen(
            Service::Access,
            Purpose::Link,
            Side::Internal,
            Transport::Tcp,
            Reach::Members,
        )
    },
    Row {
        id: "access/int/link-out",
        protocol: "edge link/mTLS",
        key: Some("array.link_port"),
        default: PortRange::one(5063),
        words: "Each member dials every other one.",
        ..dial(
            Service::Access,
            Purpose::Link,
            Side::Internal,
            Transport::Tcp,
            Reach::Members,
        )
    },
    Row {
        id: "webconf/ext/client",
        protocol: "PSOM/TLS",
        key: Some("webconf.port"),
        default: PortRange::one(443),
        words: "Conference clients join meetings inside.",
        ..listen(
            Service::Webconf,
            Purpose::Conference,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "webconf/ext/health",
        protocol: "HTTP",
        key: Some("health.webconf"),
        default: PortRange::one(9563),
        words: "The outside balancer asks whether this member is ready.",
        ..listen(
            Service::Webconf,
            Purpose::Health,
            Side::External,
            Transport::Tcp,
            Reach::Balancers,
        )
    },
    Row {
        id: "webconf/int/agent",
        protocol: "EWRP/mTLS",
        key: Some("webconf.agent_port"),
        default: PortRange::one(8057),
        words: "Agents next to the conference servers dial each member; never balanced.",
        ..listen(
            Service::Webconf,
            Purpose::Agent,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
    Row {
        id: "webconf/int/health",
        protocol: "HTTP",
        key: Some("health.webconf"),
        default: PortRange::one(9563),
        words: "Health and metrics of edge-webconf.",
        ..listen(
            Service::Webconf,
            Purpose::Health,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
    Row {
        id: "av/ext/turn-udp",
        protocol: "STUN/UDP",
        key: Some("av.udp_port"),
        default: PortRange::one(3478),
        words: "Users outside reach media and A/V sessions.",
        ..listen(
            Service::Av,
            Purpose::TurnUdp,
            Side::External,
            Transport::Udp,
            Reach::Anyone,
        )
    },
    Row {
        id: "av/ext/turn-tcp",
        protocol: "STUN/TCP",
        key: Some("av.tcp_port"),
        default: PortRange::one(443),
        words: "Users outside reach media and A/V sessions from behind strict firewalls.",
        ..listen(
            Service::Av,
            Purpose::TurnTcp,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "av/ext/relay-udp-in",
        protocol: "RTP/UDP",
        key: Some("av.relay_ports"),
        default: RELAY_PORTS,
        standing: Standing::InModes(&[RelayMode::Open, RelayMode::PreR2]),
        words: "Peers send media to relayed addresses.",
        ..listen(
            Service::Av,
            Purpose::Relay,
            Side::External,
            Transport::Udp,
            Reach::Anyone,
        )
    },
    Row {
        id: "av/ext/relay-udp-out",
        end: End::Local,
        protocol: "RTP/UDP",
        key: Some("av.relay_ports"),
        default: RELAY_PORTS,
        standing: Standing::InModes(&[RelayMode::Open, RelayMode::PreR2]),
        words: "Relayed addresses send media to peers.",
        ..dial(
            Service::Av,
            Purpose::Relay,
            Side::External,
            Transport::Udp,
            Reach::Anyone,
        )
    },
    Row {
        id: "av/ext/relay-tcp-in",
        protocol: "RTP/TCP",
        key: Some("av.relay_ports"),
        default: RELAY_PORTS,
        standing: Standing::InModes(&[RelayMode::PreR2]),
        words: "Partners of before R2 connect to relayed addresses.",
        ..listen(
            Service::Av,
            Purpose::Relay,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "av/ext/relay-tcp-out",
        end: End::Local,
        protocol: "RTP/TCP",
        key: Some("av.relay_ports"),
        default: RELAY_PORTS,
        standing: Standing::InModes(&[RelayMode::Open, RelayMode::PreR2, RelayMode::TcpOut]),
        words: "Relayed addresses connect to peers.",
        ..dial(
            Service::Av,
            Purpose::Relay,
            Side::External,
            Transport::Tcp,
            Reach::Anyone,
        )
    },
    Row {
        id: "av/ext/health",
        protocol: "HTTP",
        key: Some("health.av"),
        default: PortRange::one(9562),
        words: "The outside balancer asks whether this member is ready.",
        ..listen(
            Service::Av,
            Purpose::Health,
            Side::External,
            Transport::Tcp,
            Reach::Balancers,
        )
    },
    Row {
        id: "av/int/turn-udp",
        protocol: "STUN/UDP",
        key: Some("av.udp_port"),
        default: PortRange::one(3478),
        words: "Users inside exchange media with users outside.",
        ..listen(
            Service::Av,
            Purpose::TurnUdp,
            Side::Internal,
            Transport::Udp,
            Reach::Inside,
        )
    },
    Row {
        id: "av/int/turn-tcp",
        protocol: "STUN/TCP",
        key: Some("av.tcp_port"),
        default: PortRange::one(443),
        words: "Users inside exchange media with users outside where UDP does not pass.",
        ..listen(
            Service::Av,
            Purpose::TurnTcp,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
    Row {
        id: "av/int/mras",
        protocol: "SIP/mTLS",
        key: Some("av.mras_port"),
        default: PortRange::one(5062),
        words: "Servers inside ask for the media credentials of their users.",
        ..listen(
            Service::Av,
            Purpose::Mras,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
    Row {
        id: "av/int/health",
        protocol: "HTTP",
        key: Some("health.av"),
        default: PortRange::one(9562),
        words: "Health and metrics of edge-av.",
        ..listen(
            Service::Av,
            Purpose::Health,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
    Row {
        id: "av/int/turn-rest",
        protocol: "HTTPS",
        default: PortRange::one(8443),
        standing: Standing::Reserved,
        words: "Servers inside ask for TURN credentials over HTTPS.",
        ..listen(
            Service::Av,
            Purpose::TurnRest,
            Side::Internal,
            Transport::Tcp,
            Reach::Inside,
        )
    },
];

/// The guide's range for media.
pub const RELAY_PORTS: PortRange = PortRange {
    first: 50_000,
    last: 59_999,
};

const fn listen(
    service: Service,
    purpose: Purpose,
    side: Side,
    transport: Transport,
    reach: Reach,
) -> Row {
    row(
        service,
        purpose,
        side,
        transport,
        reach,
        Direction::Listen,
        End::Local,
    )
}

const fn dial(
    service: Service,
    purpose: Purpose,
    side: Side,
    transport: Transport,
    reach: Reach,
) -> Row {
    row(
        service,
        purpose,
        side,
        transport,
        reach,
        Direction::Dial,
        End::Remote,
    )
}

const fn row(
    service: Service,
    purpose: Purpose,
    side: Side,
    transport: Transport,
    reach: Reach,
    direction: Direction,
    end: End,
) -> Row {
    Row {
        id: "",
        service,
        purpose,
        side,
        transport,
        direction,
        end,
        protocol: "",
        key: None,
        default: PortRange::ANY,
        reach,
        standing: Standing::InUse,
        words: "",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::check;

    fn example(text: &str) -> Config {
        check(text, Some("edge1")).config.expect("examples pass")
    }

    fn single() -> Config {
        example(include_str!("../../deploy/examples/single.toml"))
    }

    #[test]
    fn every_row_has_its_own_id_and_the_id_says_where_it_is() {
        let ids: BTreeSet<&str> = TABLE.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), TABLE.len());
        for row in TABLE {
            let side = &row.side.as_str()[..3];
            assert!(
                row.id.starts_with(&format!("{}/{side}/", row.service)),
                "{}",
                row.id
            );
            assert!(
                !row.protocol.is_empty() && row.words.ends_with('.'),
                "{}",
                row.id
            );
            assert!(
                row.direction == Direction::Dial || row.end == End::Local,
                "{} listens at its own end",
                row.id
            );
        }
    }

    #[test]
    fn every_key_of_the_table_is_a_field_of_the_configuration() {
        let config = single();
        for row in TABLE {
            if let Some(key) = row.key {
                assert_eq!(
                    config_port(key, &config),
                    Some(row.default),
                    "{}: the example keeps the defaults",
                    row.id
                );
            }
        }
    }

    #[test]
    fn what_listens_is_what_the_guide_lists_and_health() {
        let listening: Vec<String> = TABLE
            .iter()
            .filter(|row| row.direction == Direction::Listen && row.standing != Standing::Reserved)
            .map(|row| format!("{} {} {}", row.side, row.transport, row.default))
            .collect();
        assert_eq!(
            listening,
            [
                "external tcp 443",
                "external tcp 5061",
                "external tcp 9561",
                "internal tcp 5061",
                "internal tcp 9561",
                "internal tcp 5063",
                "external tcp 443",
                "external tcp 9563",
                "internal tcp 8057",
                "internal tcp 9563",
                "external udp 3478",
                "external tcp 443",
                "external udp 50000-59999",
                "external tcp 50000-59999",
                "external tcp 9562",
                "internal udp 3478",
                "internal tcp 443",
                "internal tcp 5062",
                "internal tcp 9562",
            ]
        );
        let reserved: Vec<&str> = TABLE
            .iter()
            .filter(|row| row.standing == Standing::Reserved)
            .map(|row| row.id)
            .collect();
        assert_eq!(reserved, ["av/int/turn-rest"]);
    }

    #[test]
    fn the_health_ports_outside_are_there_for_balancers_only() {
        let outside = |config: &Config| -> Vec<u16> {
            let all = listeners(config).into_iter();
            all.filter(|at| at.side == Side::External && at.purpose == Purpose::Health)
                .map(|at| at.address.port())
                .collect()
        };
        assert_eq!(outside(&single()), [0; 0]);
        let scaled = example(include_str!("../../deploy/examples/scaled.toml"));
        assert_eq!(outside(&scaled), [9561, 9563, 9562]);
    }

    #[test]
    fn relay_rows_follow_the_mode() {
        let relay = |mode| {
            let mut config = single();
            config.av.as_mut().expect("[av]").relay_mode = mode;
            let open = openings(&config).into_iter().map(|open| open.row.id);
            open.filter(|id| id.contains("relay")).collect::<Vec<_>>()
        };
        let [udp_in, udp_out, tcp_in, tcp_out] = [
            "av/ext/relay-udp-in",
            "av/ext/relay-udp-out",
            "av/ext/relay-tcp-in",
            "av/ext/relay-tcp-out",
        ];
        assert_eq!(relay(RelayMode::Open), [udp_in, udp_out, tcp_out]);
        assert_eq!(relay(RelayMode::PreR2), [udp_in, udp_out, tcp_in, tcp_out]);
        assert_eq!(relay(RelayMode::TcpOut), [tcp_out]);
        assert_eq!(relay(RelayMode::Closed), [""; 0]);
    }

    #[test]
    fn what_is_switched_off_is_closed() {
        let mut config = single();
        let access = config.access.as_mut().expect("[access]");
        (access.remote_users, access.federation.enabled) = (false, false);
        config.internal.next_hop_addresses = vec![[10, 10, 0, 20].into()];
        (config.webconf, config.av) = (None, None);
        let open: Vec<&str> = openings(&config)
            .into_iter()
            .map(|open| open.row.id)
            .collect();
        assert_eq!(
            open,
            ["access/int/sip", "access/int/next-hop", "access/int/health"]
        );
    }

    #[test]
    fn both_families_are_listened_on() {
        let listeners = listeners(&single());
        let turn: Vec<String> = listeners
            .iter()
            .filter(|listener| {
                listener.purpose == Purpose::TurnUdp && listener.side == Side::External
            })
            .map(|listener| listener.address.to_string())
            .collect();
        assert_eq!(turn, ["198.51.100.12:3478", "[2001:db8:100::12]:3478"]);
    }

    #[test]
    fn a_range_is_read_as_it_is_written() {
        for text in ["50000-59999", "5061", "1-65535"] {
            assert_eq!(
                text.parse::<PortRange>()
                    .map(|range| range.to_string())
                    .as_deref(),
                Ok(text)
            );
        }
        assert_eq!("50000 - 59999".parse(), Ok(RELAY_PORTS));
        assert_eq!(RELAY_PORTS.count(), 10_000);
        for text in ["", "-", "0-5", "1-", "+1-5", "1-65536", "1-2-3"] {
            assert_eq!(
                text.parse::<PortRange>(),
                Err(PortRangeError::Port),
                "{text}"
            );
        }
        assert_eq!("5-4".parse::<PortRange>(), Err(PortRangeError::Order));
        assert!(
            RELAY_PORTS.contains(50_000)
                && RELAY_PORTS.contains(59_999)
                && !RELAY_PORTS.contains(60_000)
        );
        assert!(
            RELAY_PORTS.overlaps(PortRange::one(50_000))
                && !RELAY_PORTS.overlaps(PortRange::one(49_999))
        );
    }
}

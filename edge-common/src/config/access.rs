//! The Access Edge service as configured.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::{CertificateFiles, Revocation};
use super::{schema_text, units};
use crate::host_name::{HostName, NamePattern};

/// `[access]`: SIP for remote users and federation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The name outside, in the external certificate and in DNS.
    pub fqdn: HostName,
    /// The name inside, of the array as a whole.
    pub internal_fqdn: HostName,
    /// Shown outside: one or two (ECDSA, RSA).
    pub certificates: Vec<CertificateFiles>,
    /// Where remote users sign in.
    pub client_port: u16,
    /// Where partners connect to.
    pub federation_port: u16,
    /// Where servers inside connect to.
    pub internal_port: u16,
    /// Users of the organisation may sign in from outside.
    pub remote_users: bool,
    /// Users of no organisation may join conferences.
    pub anonymous_users: bool,
    /// By which header a REGISTER leads answers and requests back through here.
    pub register_mode: RegisterMode,
    /// SIP over WebSocket, on the port of remote users.
    pub websocket: WebSocket,
    /// What remote and anonymous users are given.
    pub clients: Clients,
    /// What outsiders are told of the inside.
    pub disclosure: Disclosure,
    /// By which name servers inside come back with a request for a client.
    pub inside_routes: InsideRoutes,
    /// What one daemon takes on at most.
    pub limits: AccessLimits,
    /// Headlines of messages, for `edgectl trace`.
    pub trace: Trace,
    /// Copies of messages for a collector inside; `None`: none are made.
    pub hep: Option<Hep>,
    /// SIP with other organisations.
    pub federation: Federation,
}

/// `[access.trace]`: which headlines of messages are kept in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// Headlines are always kept; otherwise only for the time that `edgectl trace --record` asks for.
    pub always: bool,
    /// Headlines that each core keeps, some 200 bytes each; the oldest go.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub messages: usize,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            always: false,
            messages: 8192,
        }
    }
}

/// `[access.hep]`: copies of SIP messages for a collector inside (HEP version 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hep {
    /// Where the collector is, inside.
    #[schemars(with = "schema_text::Ip")]
    pub collector: IpAddr,
    /// Its UDP port.
    #[serde(default = "Hep::default_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Of a hundred calls so many are copied, each of them whole.
    #[serde(default = "Hep::default_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: u8,
    /// Bodies are copied as well: texts of messages, and keys of media. Credentials never are.
    #[serde(default)]
    pub bodies: bool,
}

impl Hep {
    /// What Homer's collectors listen on.
    pub const PORT: u16 = 9060;

    /// The collector's socket.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.collector, self.port)
    }

    const fn default_port() -> u16 {
        Self::PORT
    }

    const fn default_percent() -> u8 {
        100
    }
}

/// How requests towards a registered client find their way back through this edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegisterMode {
    /// `Path` (RFC 3327).
    Path,
    /// `Record-Route`, as Communicator's servers expect.
    RecordRoute,
    /// Both headers.
    #[default]
    Both,
}

/// `[access.websocket]`: browsers on the port of remote users (RFC 7118).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocket {
    /// Browsers are served.
    pub enabled: bool,
    /// The path of the address that browsers connect to.
    #[schemars(with = "schema_text::RequestPath")]
    pub path: String,
    /// Hosts of pages (https) that may connect, `*.` for one label; default: our names outside and hosts below them.
    #[schemars(length(max = 1000))]
    pub origins: Vec<NamePattern>,
    /// Who names no page is refused. Browsers always name one; SIP clients that are no browsers may not.
    pub origin_required: bool,
    /// The longest HTTP request that is read.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub request_max: usize,
    /// A browser that was silent for this long is pinged; one that answers none of three pings is let go.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub ping_interval: Duration,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/".to_owned(),
            origins: Vec::new(),
            origin_required: true,
            request_max: 8 * units::KIB,
            // Below the time after which home routers forget a TCP connection, as RFC 5626 has it.
            ping_interval: Duration::from_secs(100),
        }
    }
}

/// `[access.clients]`: what remote and anonymous users are given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// After how much silence a client that asks for it sends a keep-alive; each is told its own, up to a tenth more or less.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub keep_alive: Duration,
    /// Remote users write to other organisations as well; else what is for them is refused here.
    pub any_domain: bool,
    /// Requests of a client in all before the inside has accepted it; with one more it is cut off.
    #[schemars(range(min = 4, max = 10_000))]
    pub newcomer_requests: u16,
    /// Of these without a final answer.
    #[schemars(range(min = 1, max = 1_000))]
    pub newcomer_in_flight: u16,
    /// From the handshake until the inside must have accepted a client.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub newcomer_time: Duration,
    /// Body of one message of a client that the inside has not accepted yet.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub newcomer_body: usize,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(5 * 60),
            any_domain: true,
            newcomer_requests: 30,
            newcomer_in_flight: 5,
            newcomer_time: Duration::from_secs(60),
            newcomer_body: 16 * units::KIB,
        }
    }
}

/// `[access.disclosure]`: what outsiders are told of the inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Disclosure {
    /// `ms-diagnostics`, which names servers, reaches clients that the inside has not accepted yet.
    pub diagnostics_to_strangers: bool,
    /// `ms-diagnostics` reaches partners.
    pub diagnostics_to_partners: bool,
}

/// The name in the routes that servers inside get towards a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InsideRoutes {
    /// The name inside of the member that has the client's connection: no detour, and nobody who answers when it is gone.
    #[default]
    Member,
    /// The array's name inside: any member takes the request and hands it on, or says at once that the client is gone.
    Array,
}

/// Bounds of the Access Edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLimits {
    /// Connections open at once from outside, and as many again from inside; further ones are closed on arrival.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Of these from one source address (IPv6: one /64).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_source: usize,
    /// Handshakes under way at once; on these nothing has been proven yet.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handshakes: usize,
    /// Of these from one source address.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handshakes_per_source: usize,
    /// New connections a second from one source address, on average; from a server inside, four times as many.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_second_per_source: u32,
    /// New connections in one moment from a source that was quiet before; from a server inside, four times as many.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_burst_per_source: u32,
    /// From the first byte of TLS to its last.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub handshake_timeout: Duration,
    /// From the end of the handshake to the first whole message.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub first_message_timeout: Duration,
    /// Without any byte from the far end.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub idle_timeout: Duration,
    /// Start line and headers of one message.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub head: usize,
    /// Headers of one message.
    #[schemars(range(min = 16, max = 4096))]
    pub headers: usize,
    /// Body of one message from outside.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub client_body: usize,
    /// Body of one message from inside or from a partner.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub server_body: usize,
    /// Bytes waiting for one client to read them; a longer message is refused, also one from inside.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub client_queue: usize,
    /// Bytes waiting for one server to read them; a longer message is refused.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub server_queue: usize,
    /// Messages waiting between two cores.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub mailbox: usize,
    /// Transactions of one core that are under way; further requests go on without timers and fail-over.
    #[schemars(range(min = 1, max = 16_000_000))]
    pub transactions: usize,
    /// Bytes of the requests that one core keeps for them until the first answer.
    #[serde(with = "units::size")]
    #[schemars(with = "schema_text::Size")]
    pub transaction_bytes: usize,
    /// Registrations a second of one core that go inside; fewer while the next hop is slow to answer them.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub registrations_per_second: u32,
}

impl Default for AccessLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_source: 256,
            handshakes: 2048,
            handshakes_per_source: 64,
            // A company behind one address signs in anew after an outage: no more at once than may be open.
            connections_per_second_per_source: 100,
            connections_burst_per_source: 256,
            handshake_timeout: Duration::from_secs(5),
            first_message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20 * 60),
            head: 64 * units::KIB,
            headers: 256,
            client_body: 128 * units::KIB,
            server_body: 5000 * units::KIB,
            client_queue: 256 * units::KIB,
            server_queue: 8 * units::MIB,
            mailbox: 4096,
            transactions: 65_536,
            transaction_bytes: 64 * units::MIB,
            registrations_per_second: 2000,
        }
    }
}

/// `[access.federation]`: with whom, and what proves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    /// Partners are spoken to at all.
    pub enabled: bool,
    /// Domains that nobody listed may prove themselves by DNS SRV.
    pub discovery: bool,
    /// Domains that are allowed.
    pub partners: Vec<Partner>,
    /// Domains that are refused, whatever they prove.
    pub blocked: Vec<HostName>,
    /// Which SRV record is asked first.
    pub srv_order: SrvOrder,
    /// Which extended key usage a partner's certificate needs as a client.
    pub client_eku: ClientEku,
    /// When a partner that connects to us is proven by a connection of ours to its edge.
    pub callback: Callback,
    /// For partners that have no own value.
    pub revocation: Revocation,
    /// Revocation lists are fetched from where partners' certificates say.
    pub fetch_crls: bool,
    /// Who may issue partners' certificates.
    pub trust_roots: TrustRoots,
    /// Verdicts on domains that are remembered.
    pub verdict_cache: usize,
    /// Messages that wait for the verdict on one domain.
    pub pending_per_domain: usize,
    /// Edges that speak for many domains.
    pub providers: Vec<Provider>,
    /// The one edge that everything goes to which has no partner of its own.
    pub default_route: Option<DefaultRoute>,
    /// We pass messages between partners that are listed by name.
    pub clearing_house: bool,
    /// How the senders of partners that nobody listed are marked for the inside.
    pub discovered_verification: Verification,
    /// What leaves is marked as sent by a user whom we verified.
    pub mark_verified: bool,
    /// A whole header line that tells partners that messages are archived.
    pub archiving_notice: Option<String>,
    /// What partners hear instead of 404.
    pub flatten_404: Flatten,
    /// Connections that we open to one edge of a partner, at most.
    pub connections_per_partner: usize,
    /// From which partners the Via and Record-Route of servers inside are hidden.
    pub hide_topology: HideTopology,
    /// What discovered partners may do, and other bounds.
    pub limits: FederationLimits,
}

/// From which partners the Via and Record-Route of servers inside are hidden. They leave sealed and are restored
/// when they come back; a message whose stack is longer than 4 KiB when it is sealed (some twenty servers) is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HideTopology {
    /// Partners that nobody listed.
    pub discovered: bool,
    /// Partners that are listed by their domain, without an fqdn.
    pub allowed: bool,
    /// Providers, and the default route.
    pub providers: bool,
    /// Partners that are listed with an fqdn.
    pub direct: bool,
}

impl Default for HideTopology {
    fn default() -> Self {
        Self {
            discovered: true,
            allowed: false,
            providers: false,
            direct: false,
        }
    }
}

/// Bounds of federation. Those of discovered partners hold for one certificate, over all its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FederationLimits {
    /// Requests a second of a partner that nobody listed; twice as many may come in one moment.
    #[schemars(range(min = 1, max = 100_000))]
    pub discovered_rate: u32,
    /// The same, while most of what it asks fails.
    #[schemars(range(min = 1, max = 100_000))]
    pub suspicious_rate: u32,
    /// Distinct addresses of ours that it may write to within a day; 16 bytes each.
    #[schemars(range(min = 1, max = 100_000))]
    pub discovered_contacts: usize,
    /// Revocation lists that are fetched and kept; each may have 20 MiB.
    #[schemars(range(min = 1, max = 1000))]
    pub crls: usize,
    /// Certificates on the watch list; those that are connected, suspicious or decided on stay.
    #[schemars(range(min = 1, max = 100_000))]
    pub watch_list: usize,
    /// Partners that are called back at the same time.
    #[schemars(range(min = 1, max = 1000))]
    pub callbacks: usize,
}

impl Default for FederationLimits {
    fn default() -> Self {
        Self {
            discovered_rate: 20,
            suspicious_rate: 1,
            discovered_contacts: 1000,
            crls: 64,
            watch_list: 1000,
            callbacks: 16,
        }
    }
}

/// A domain that is allowed to federate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// Its SIP domain.
    pub domain: HostName,
    /// Its edge by name, so that no SRV record decides; its port is `federation_port`.
    pub fqdn: Option<HostName>,
    /// The one authority for it instead of the trust roots.
    pub ca: Option<PathBuf>,
    /// Its own value, or that of `[access.federation]`.
    pub revocation: Revocation,
    /// SHA-256 of the public keys (SubjectPublicKeyInfo) that its certificates may have; empty: any.
    pub pins: Vec<[u8; 32]>,
    /// How its senders are marked for the inside.
    pub verification: Verification,
}

/// An edge that speaks for many domains: a provider of public messaging, or a host of other organisations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// What it is called.
    pub name: String,
    /// Its edge.
    pub fqdn: HostName,
    /// Everybody may be there; the inside is told `publiccloud`.
    pub public: bool,
    /// Domains that it has whatever DNS says; the others prove by their SRV record that they are there.
    pub domains: Vec<HostName>,
    /// How its senders are marked for the inside.
    pub verification: Verification,
}

/// The clearing house, or the provider, that all of federation runs through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefaultRoute {
    /// Its edge.
    pub fqdn: HostName,
    /// It is a provider of public messaging.
    #[serde(default)]
    pub public: bool,
    /// How its senders are marked for the inside.
    #[serde(default)]
    pub verification: Verification,
}

/// Whether the inside is told that a partner verified the sender (`ms-source-verified-user`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// Always.
    Always,
    /// Never: only whoever has the sender on his list hears him.
    Never,
    /// As the partner says of each message; who says nothing has not verified.
    #[default]
    Source,
}

/// What partners hear instead of 404, which would tell them who exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Flatten {
    /// The truth.
    #[default]
    #[serde(rename = "off")]
    Off,
    /// 403 Forbidden.
    #[serde(rename = "403")]
    Forbidden,
    /// 480 Temporarily Unavailable.
    #[serde(rename = "480")]
    Unavailable,
}

/// Order among SRV records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SrvOrder {
    /// Lowest priority, then highest weight, then the first returned; no chance in it.
    #[default]
    Ocs,
    /// Weighted by chance (RFC 2782).
    Rfc2782,
}

/// Extended key usage that a partner has to show when it connects to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientEku {
    /// `clientAuth`, which public authorities no longer issue.
    Client,
    /// `clientAuth` or `serverAuth`.
    #[default]
    ClientOrServer,
    /// Not looked at.
    Any,
}

/// When a partner that connects to us is proven by a connection of ours to its edge, where the same key has to be
/// shown by a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Callback {
    /// Its certificate has to be good for a client; the handshake fails otherwise.
    #[default]
    Never,
    /// When its certificate has not the usage of a client, or no chain to a root.
    WhenNeeded,
    /// Each of them, whatever it shows.
    Always,
}

/// Roots for partners' certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrustRoots {
    /// Those of the operating system.
    #[default]
    System,
    /// Those in this PEM file and no others.
    File(PathBuf),
}

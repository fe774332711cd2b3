//! `edge.toml` as it is typed.
//!
//! These types are read from what is left of a file after its shape was checked, so a key that has to be there is
//! an `Option` all the same: what is missing was told already, and the rules look at the rest. Doc comments here
//! are the descriptions in the JSON Schema and in `docs/configuration.md`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{
    AccessLimits, Callback, ClientEku, Clients, DefaultRoute, Disclosure, FederationLimits,
    Flatten, Hep, HideTopology, InsideRoutes, RegisterMode, SrvOrder, Trace, Verification,
    WebSocket,
};
use super::av::{AuthenticationFiles, AvLimits, RelayMode, RestSecretFiles};
use super::network::{CertificateFiles, Drain, Revocation, SecretFiles, Vips};
use super::operation::{Admin, Dns, Firewall, Health, Lab, Log, Runtime, State};
use super::organization::Topology;
use super::webconf::WebconfLimits;
use super::{schema_text, units};
use crate::host_name::{HostName, HostPort, NamePattern};
use crate::side::SidePair;

/// The configuration of an Edge Server: one file, byte for byte the same on all members of an array.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    /// Whose edge this is.
    #[schemars(required, extend("x-required" = true))]
    pub(super) organization: Option<Organization>,
    /// The edge hosts of this site.
    #[schemars(length(min = 1, max = 256), extend("x-required" = true))]
    pub(super) members: Vec<Member>,
    /// The network towards the Internet.
    #[schemars(required, extend("x-required" = true))]
    pub(super) external: Option<External>,
    /// The network towards the organisation.
    #[schemars(required, extend("x-required" = true))]
    pub(super) internal: Option<Internal>,
    /// What the members share.
    #[schemars(required, extend("x-required" = true))]
    pub(super) array: Option<Array>,
    /// SIP for remote users and federation; leave it out where `edge-access` does not run.
    pub(super) access: Option<Access>,
    /// Web conferences; leave it out where `edge-webconf` does not run.
    pub(super) webconf: Option<Webconf>,
    /// Audio and video; leave it out where `edge-av` does not run.
    pub(super) av: Option<Av>,
    /// What is open beside the services.
    pub(super) firewall: Firewall,
    /// Who is asked for names.
    pub(super) dns: Dns,
    /// What is told, and how.
    pub(super) log: Log,
    /// Where edgectl finds the daemons.
    pub(super) admin: Admin,
    /// Ports of health and metrics, on the internal address.
    pub(super) health: Health,
    /// What outlives a restart.
    pub(super) state: State,
    /// Only for tests: which reserved ranges count as public. The check warns of it.
    pub(super) lab: Option<Lab>,
    /// How much of the machine is used.
    pub(super) runtime: Runtime,
}

/// Whose edge this is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Organization {
    /// Its SIP domains; the first is the default realm.
    #[schemars(length(min = 1, max = 1000), extend("x-required" = true))]
    pub(super) sip_domains: Vec<SipDomain>,
    /// How the edge hosts of this site stand together.
    #[schemars(required, extend("x-required" = true))]
    pub(super) topology: Option<Topology>,
    /// Federation runs through this site.
    pub(super) federation_here: bool,
}

impl Default for Organization {
    fn default() -> Self {
        Self {
            sip_domains: Vec::new(),
            topology: None,
            federation_here: true,
        }
    }
}

/// One SIP domain.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SipDomain {
    /// The part behind the @ of its users' addresses.
    pub(super) domain: HostName,
    /// Remote users of this domain sign in here.
    #[serde(default = "yes")]
    pub(super) remote_users_here: bool,
    /// Where they sign in instead, as host and port; who tries it here is sent there.
    #[serde(default)]
    pub(super) remote_users_edge: Option<HostPort>,
}

/// One edge host.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Member {
    /// What --node selects.
    #[schemars(required, length(min = 1, max = 63), extend("x-required" = true))]
    pub(super) name: Option<String>,
    /// Stands in tokens; unique in the array.
    #[schemars(required, extend("x-required" = true))]
    pub(super) id: Option<u8>,
    /// Its side towards the Internet.
    #[schemars(required, extend("x-required" = true))]
    pub(super) external: Option<MemberExternal>,
    /// Its side towards the organisation.
    #[schemars(required, extend("x-required" = true))]
    pub(super) internal: Option<MemberInternal>,
    /// The name by which conference servers reach exactly this host; default: internal.fqdn.
    pub(super) webconf_internal_fqdn: Option<HostName>,
}

/// A member's addresses on the external interface.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MemberExternal {
    /// All of them, each with the prefix of its link.
    #[schemars(with = "Vec<schema_text::InterfaceAddress>", length(min = 1, max = 64), extend("x-required" = true))]
    pub(super) addresses: Vec<IpNet>,
    /// Those of the Access Edge; default: all.
    #[schemars(with = "Option<Vec<schema_text::Ip>>", length(min = 1, max = 64))]
    pub(super) access: Option<Vec<IpAddr>>,
    /// Those of the Web Conferencing Edge; default: all.
    #[schemars(with = "Option<Vec<schema_text::Ip>>", length(min = 1, max = 64))]
    pub(super) webconf: Option<Vec<IpAddr>>,
    /// Those of the A/V Edge; default: all.
    #[schemars(with = "Option<Vec<schema_text::Ip>>", length(min = 1, max = 64))]
    pub(super) av: Option<Vec<IpAddr>>,
}

/// A member's addresses on the internal interface.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MemberInternal {
    /// All of them, each with the prefix of its link.
    #[schemars(with = "Vec<schema_text::InterfaceAddress>", length(min = 1, max = 64), extend("x-required" = true))]
    pub(super) addresses: Vec<IpNet>,
    /// The host's own name inside.
    #[schemars(required, extend("x-required" = true))]
    pub(super) fqdn: Option<HostName>,
}

/// The network towards the Internet.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct External {
    /// Its interface, the same on every member.
    #[schemars(required, extend("x-required" = true, "format" = "interface"))]
    pub(super) interface: Option<String>,
    /// One per address family.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 8))]
    pub(super) gateway: Vec<IpAddr>,
    /// What is reached over it; default: everything.
    #[schemars(with = "Vec<schema_text::Network>", length(min = 1, max = 256))]
    pub(super) networks: Vec<IpNet>,
}

impl Default for External {
    fn default() -> Self {
        let everything = [
            IpNet::V4(ipnet::Ipv4Net::default()),
            IpNet::V6(ipnet::Ipv6Net::default()),
        ];
        Self {
            interface: None,
            gateway: Vec::new(),
            networks: everything.to_vec(),
        }
    }
}

/// The network towards the organisation.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Internal {
    /// Its interface, the same on every member.
    #[schemars(required, extend("x-required" = true, "format" = "interface"))]
    pub(super) interface: Option<String>,
    /// One per address family; none when everything inside is on the link.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 8))]
    pub(super) gateway: Vec<IpAddr>,
    /// What lies inside.
    #[schemars(with = "Vec<schema_text::Network>", length(min = 1, max = 256), extend("x-required" = true))]
    pub(super) networks: Vec<IpNet>,
    /// What the edge shows inside: up to two, of different key types.
    #[schemars(length(min = 1, max = 2), extend("x-required" = true))]
    pub(super) certificates: Vec<CertificateFiles>,
    /// The only authority that is trusted inside, PEM.
    #[schemars(required, with = "schema_text::Path", extend("x-required" = true))]
    pub(super) ca: Option<PathBuf>,
    /// Its revocation lists.
    #[schemars(with = "Vec<schema_text::Path>", length(max = 100))]
    pub(super) crls: Vec<PathBuf>,
    /// How much is asked of the revocation state of servers inside.
    pub(super) revocation: Revocation,
    /// Names of the servers inside that may speak SIP to the edge; `*.` in front covers one label.
    #[schemars(length(max = 1000))]
    pub(super) trusted_servers: Vec<NamePattern>,
    /// The Director, pool or its virtual address: name and port.
    pub(super) next_hop: Option<HostPort>,
    /// Addresses of the next hop, the first to be tried in front; without them DNS inside is asked. Up to four are kept connected.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 64))]
    pub(super) next_hop_addresses: Vec<IpAddr>,
}

/// What the members share.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Array {
    /// The files of the shared secret.
    #[schemars(required, extend("x-required" = true))]
    pub(super) secrets: Option<SecretFiles>,
    /// Virtual addresses of the balancers, per side and service.
    pub(super) vips: Vips,
    /// Addresses that the balancers speak from, per side.
    pub(super) balancers: Balancers,
    /// Port of the link between members.
    #[schemars(range(min = 1))]
    pub(super) link_port: u16,
    /// How often each member asks every other one whether it is still there.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub(super) link_heartbeat: Duration,
    /// After that many questions without an answer the other member counts as dead.
    #[schemars(range(min = 1, max = 100))]
    pub(super) link_misses: u32,
    /// What a member does when it ends in order.
    pub(super) drain: Drain,
}

impl Default for Array {
    fn default() -> Self {
        Self {
            secrets: None,
            vips: Vips::default(),
            balancers: Balancers::default(),
            link_port: 5063,
            link_heartbeat: Duration::from_secs(2),
            link_misses: 3,
            drain: Drain::default(),
        }
    }
}

/// Addresses that the balancers speak from.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Balancers {
    /// Of the balancer outside.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 64))]
    pub(super) external: Vec<IpAddr>,
    /// Of the balancer inside.
    #[schemars(with = "Vec<schema_text::Ip>", length(max = 64))]
    pub(super) internal: Vec<IpAddr>,
}

impl From<Balancers> for SidePair<Vec<IpAddr>> {
    fn from(Balancers { external, internal }: Balancers) -> Self {
        Self { external, internal }
    }
}

/// The Access Edge.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Access {
    /// The name outside, in the external certificate and in DNS.
    #[schemars(required, extend("x-required" = true))]
    pub(super) fqdn: Option<HostName>,
    /// The name inside, of the array as a whole.
    #[schemars(required, extend("x-required" = true))]
    pub(super) internal_fqdn: Option<HostName>,
    /// Shown outside: up to two, of different key types.
    #[schemars(length(min = 1, max = 2), extend("x-required" = true))]
    pub(super) certificates: Vec<CertificateFiles>,
    /// Where remote users sign in.
    #[schemars(range(min = 1))]
    pub(super) client_port: u16,
    /// Where partners connect to.
    #[schemars(range(min = 1))]
    pub(super) federation_port: u16,
    /// Where servers inside connect to.
    #[schemars(range(min = 1))]
    pub(super) internal_port: u16,
    /// Users of the organisation may sign in from outside.
    pub(super) remote_users: bool,
    /// Users of no organisation may join conferences.
    pub(super) anonymous_users: bool,
    /// By which header answers and requests for a registered client are led back through the edge.
    pub(super) register_mode: RegisterMode,
    /// SIP over WebSocket, on the port of remote users.
    pub(super) websocket: WebSocket,
    /// What remote and anonymous users are given.
    pub(super) clients: Clients,
    /// What outsiders are told of the inside.
    pub(super) disclosure: Disclosure,
    /// Servers inside find a client by the name of its member, or by the array's, whose members hand requests to each other.
    pub(super) inside_routes: InsideRoutes,
    /// What one daemon takes on at most.
    pub(super) limits: AccessLimits,
    /// Headlines of messages that are kept in memory for `edgectl trace`.
    pub(super) trace: Trace,
    /// Copies of SIP messages for a collector inside (HEP version 3); leave it out, and none are made.
    pub(super) hep: Option<Hep>,
    /// SIP with other organisations.
    pub(super) federation: Federation,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            fqdn: None,
            internal_fqdn: None,
            certificates: Vec::new(),
            client_port: 443,
            federation_port: 5061,
            internal_port: 5061,
            remote_users: true,
            anonymous_users: false,
            register_mode: RegisterMode::default(),
            websocket: WebSocket::default(),
            clients: Clients::default(),
            disclosure: Disclosure::default(),
            inside_routes: InsideRoutes::default(),
            limits: AccessLimits::default(),
            trace: Trace::default(),
            hep: None,
            federation: Federation::default(),
        }
    }
}

/// SIP with other organisations.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Federation {
    /// Partners are spoken to at all; default: what organization.federation_here says.
    pub(super) enabled: Option<bool>,
    /// Domains that are not listed may prove themselves by DNS SRV and certificate.
    pub(super) discovery: bool,
    /// Domains that are allowed.
    #[schemars(length(max = 10_000))]
    pub(super) partners: Vec<Partner>,
    /// Domains that are refused, whatever they prove.
    #[schemars(length(max = 10_000))]
    pub(super) blocked: Vec<HostName>,
    /// Which SRV record is asked first.
    pub(super) srv_order: SrvOrder,
    /// Extended key usage that a partner has to show when it connects to us.
    pub(super) client_eku: ClientEku,
    /// When a partner that connects to us is proven by a connection of ours to its edge, instead of by what it shows.
    pub(super) callback: Callback,
    /// How much is asked of the revocation state of partners that have no own value.
    pub(super) revocation: Revocation,
    /// Revocation lists are fetched over HTTP, port 80, from where partners' certificates say.
    pub(super) fetch_crls: bool,
    /// Who may issue partners' certificates: `system`, or the path of a PEM file.
    #[schemars(with = "schema_text::Path")]
    pub(super) trust_roots: PathBuf,
    /// Verdicts on domains that are remembered.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) verdict_cache: usize,
    /// Messages that wait for the verdict on one domain.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) pending_per_domain: usize,
    /// Edges that speak for many domains: providers of public messaging, hosts of other organisations.
    #[schemars(length(max = 100))]
    pub(super) providers: Vec<Provider>,
    /// The one edge that everything goes to which has no partner of its own, a clearing house or a provider.
    pub(super) default_route: Option<DefaultRoute>,
    /// This edge is a clearing house: it passes messages between partners that are listed with an fqdn.
    pub(super) clearing_house: bool,
    /// How the senders of partners that nobody listed are marked for the inside.
    pub(super) discovered_verification: Verification,
    /// What leaves is marked as sent by a user whom we verified.
    pub(super) mark_verified: bool,
    /// A whole header line, `Name: value`, that tells partners that messages are archived; added to requests.
    pub(super) archiving_notice: Option<String>,
    /// What partners hear instead of 404, which tells them who exists.
    pub(super) flatten_404: Flatten,
    /// Connections that we open to one edge of a partner; each core opens at least one of its own.
    #[schemars(range(min = 1, max = 4))]
    pub(super) connections_per_partner: usize,
    /// From which partners the Via and Record-Route of servers inside are hidden, up to 4 KiB when they are sealed.
    pub(super) hide_topology: HideTopology,
    /// What discovered partners may do, and other bounds.
    pub(super) limits: FederationLimits,
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            enabled: None,
            discovery: false,
            partners: Vec::new(),
            blocked: Vec::new(),
            srv_order: SrvOrder::default(),
            client_eku: ClientEku::default(),
            callback: Callback::default(),
            revocation: Revocation::Soft,
            fetch_crls: true,
            trust_roots: SYSTEM_ROOTS.into(),
            verdict_cache: 1000,
            pending_per_domain: 32,
            providers: Vec::new(),
            default_route: None,
            clearing_house: false,
            discovered_verification: Verification::default(),
            mark_verified: true,
            archiving_notice: None,
            flatten_404: Flatten::default(),
            connections_per_partner: 4,
            hide_topology: HideTopology::default(),
            limits: FederationLimits::default(),
        }
    }
}

/// A domain that is allowed to federate.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Partner {
    /// Its SIP domain.
    pub(super) domain: HostName,
    /// Its edge by name, so that no SRV record decides.
    pub(super) fqdn: Option<HostName>,
    /// The one authority for it instead of the trust roots, PEM.
    #[schemars(with = "Option<schema_text::Path>")]
    pub(super) ca: Option<PathBuf>,
    /// How much is asked of its revocation state; default: that of access.federation.
    pub(super) revocation: Option<Revocation>,
    /// Public keys that its certificates may have, as `sha256/` and the base64 of the key's digest; empty: any.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) pins: Vec<String>,
    /// How its senders are marked for the inside.
    #[serde(default)]
    pub(super) verification: Verification,
}

/// An edge that speaks for many domains.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    /// What it is called.
    pub(super) name: String,
    /// Its edge; it has to stand in its certificate.
    pub(super) fqdn: HostName,
    /// It is spoken to; default: true.
    pub(super) enabled: Option<bool>,
    /// Everybody may have an address there: domains that are not listed are let in, and the inside is told so.
    #[serde(default)]
    pub(super) public: bool,
    /// Domains that it has whatever DNS says; the others prove by their SRV record that they are there.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub(super) domains: Vec<HostName>,
    /// How its senders are marked for the inside.
    #[serde(default)]
    pub(super) verification: Verification,
}

/// The Web Conferencing Edge.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Webconf {
    /// The name outside.
    #[schemars(required, extend("x-required" = true))]
    pub(super) fqdn: Option<HostName>,
    /// Shown outside: up to two, of different key types.
    #[schemars(length(min = 1, max = 2), extend("x-required" = true))]
    pub(super) certificates: Vec<CertificateFiles>,
    /// Where clients connect to.
    #[schemars(range(min = 1))]
    pub(super) port: u16,
    /// Where agents inside connect to.
    #[schemars(range(min = 1))]
    pub(super) agent_port: u16,
    /// Names of the agents that may register; `*.` in front covers one label.
    #[schemars(length(min = 1, max = 1000), extend("x-required" = true))]
    pub(super) agents: Vec<NamePattern>,
    /// Those of them with the role `conference`: only these may register conferences by their ids.
    #[schemars(length(max = 1000))]
    pub(super) conference_agents: Vec<NamePattern>,
    /// Search what a client sends first for an admitted number.
    pub(super) scan: bool,
    /// Public keys (Ed25519, PEM) of those who sign tokens, which `edge-join` shows; default: none, and no token counts.
    #[schemars(length(max = 16))]
    pub(super) preface_keys: Vec<PathBuf>,
    /// What one daemon takes on at most.
    pub(super) limits: WebconfLimits,
}

impl Default for Webconf {
    fn default() -> Self {
        Self {
            fqdn: None,
            certificates: Vec::new(),
            port: 443,
            agent_port: 8057,
            agents: Vec::new(),
            conference_agents: Vec::new(),
            scan: true,
            preface_keys: Vec::new(),
            limits: WebconfLimits::default(),
        }
    }
}

/// The A/V Edge.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Av {
    /// The name outside.
    #[schemars(required, extend("x-required" = true))]
    pub(super) fqdn: Option<HostName>,
    /// The name inside, of the array as a whole.
    #[schemars(required, extend("x-required" = true))]
    pub(super) internal_fqdn: Option<HostName>,
    /// For TURN over TLS: up to two, of different key types; without any there is none.
    #[schemars(length(max = 2))]
    pub(super) certificates: Vec<CertificateFiles>,
    /// What a static 1:1 NAT shows in place of the external A/V address; single edge only.
    #[schemars(with = "Option<schema_text::Ip>")]
    pub(super) public_address: Option<IpAddr>,
    /// The realm of challenges; default: the first SIP domain.
    #[schemars(length(min = 1, max = 127))]
    pub(super) realm: Option<String>,
    /// STUN and TURN over UDP, on both sides.
    #[schemars(range(min = 1))]
    pub(super) udp_port: u16,
    /// STUN and TURN over TCP, on both sides.
    #[schemars(range(min = 1))]
    pub(super) tcp_port: u16,
    /// Where servers inside ask for credentials.
    #[schemars(range(min = 1))]
    pub(super) mras_port: u16,
    /// Where relayed packets leave and arrive.
    #[schemars(with = "schema_text::Ports")]
    pub(super) relay_ports: String,
    /// What these ports are open for.
    pub(super) relay_mode: RelayMode,
    /// The A/V authentication certificates, from whose keys credentials are made.
    #[schemars(required, extend("x-required" = true))]
    pub(super) authentication: Option<AuthenticationFiles>,
    /// A second source of credentials: secrets shared with servers that mint by themselves.
    pub(super) rest_secrets: Option<RestSecretFiles>,
    /// The longest life of a credential.
    #[serde(with = "units::duration")]
    #[schemars(with = "schema_text::Duration")]
    pub(super) token_lifetime_max: Duration,
    /// Special-purpose ranges that are allowed as peers all the same.
    #[schemars(with = "Vec<schema_text::Network>", length(max = 256))]
    pub(super) peer_allow: Vec<IpNet>,
    /// What one daemon takes on at most.
    pub(super) limits: AvLimits,
}

impl Default for Av {
    fn default() -> Self {
        Self {
            fqdn: None,
            internal_fqdn: None,
            certificates: Vec::new(),
            public_address: None,
            realm: None,
            udp_port: 3478,
            tcp_port: 443,
            mras_port: 5062,
            relay_ports: crate::ports::RELAY_PORTS.to_string(),
            relay_mode: RelayMode::default(),
            authentication: None,
            rest_secrets: None,
            token_lifetime_max: Duration::from_secs(8 * 3600),
            peer_allow: Vec::new(),
            limits: AvLimits::default(),
        }
    }
}

/// The word for the roots of the operating system.
pub(super) const SYSTEM_ROOTS: &str = "system";

const fn yes() -> bool {
    true
}

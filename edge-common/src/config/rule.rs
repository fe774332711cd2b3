//! The catalogue of findings: what `edgectl explain EDGE-C0123` tells.
//!
//! A number once given keeps its meaning; a rule that goes leaves a gap. Hundreds group the rules: 0 the text
//! itself, 1 topology, 2 members and names, 3 networks, 4 ports, 5 access and federation, 6 conferences,
//! 7 audio and video, 8 operation, 9 the files that are named.

use std::fmt;
use std::str::FromStr;

/// The stable number of a rule, printed `EDGE-C0123`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u16);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EDGE-C{:04}", self.0)
    }
}

/// `EDGE-C0123` or `C0123` in any case, or the bare number, as an operator types it behind `explain`.
impl FromStr for RuleId {
    type Err = RuleIdUnknown;

    fn from_str(text: &str) -> Result<Self, RuleIdUnknown> {
        let upper = text.trim().to_ascii_uppercase();
        let number = upper.strip_prefix("EDGE-").unwrap_or(&upper);
        let digits = number.strip_prefix('C').unwrap_or(number);
        let id = digits.parse().map(Self).map_err(|_| RuleIdUnknown)?;
        lookup(id).map(|rule| rule.id).ok_or(RuleIdUnknown)
    }
}

/// No rule has this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no rule has this number; they look like EDGE-C0002")]
pub struct RuleIdUnknown;

/// Whether a configuration is refused for a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It is refused.
    Error,
    /// It is taken, and may not do what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One rule of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: RuleId,
    /// Whether breaking it is an error.
    pub severity: Severity,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// Why that is wrong.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// Every rule, by number.
#[must_use]
pub const fn catalogue() -> &'static [Rule] {
    CATALOGUE
}

/// The rule with this number, if there is one.
#[must_use]
pub fn lookup(id: RuleId) -> Option<&'static Rule> {
    CATALOGUE
        .binary_search_by_key(&id, |rule| rule.id)
        .ok()
        .map(|index| &CATALOGUE[index])
}

/// The rule of an id that this module made.
pub(super) fn rule(id: RuleId) -> &'static Rule {
    lookup(id).expect("an id is only made by the catalogue or looked up in it")
}

/// One constant per rule and the catalogue of all.
macro_rules! rules {
    ($($name:ident = $number:literal $severity:ident, $title:literal, $cause:literal, $remedy:literal;)+) => {
        $(
            #[doc = $title]
            pub const $name: RuleId = RuleId($number);
        )+
        const CATALOGUE: &[Rule] = &[$(
            Rule { id: $name, severity: Severity::$severity, title: $title, cause: $cause, remedy: $remedy },
        )+];
    };
}

rules! {
    SYNTAX = 1 Error, "The file is not TOML.",
        "The text cannot be read at the place named, so what follows may have been taken for something else.",
        "Correct the line; strings need quotes, lists need commas, a table begins with its name in brackets.";
    UNKNOWN_KEY = 2 Error, "A key is not known.",
        "A key that nothing reads is mostly a slip, and the setting that was meant would silently keep its default.",
        "Correct the spelling, move the key to the table it belongs to, or remove it.";
    MISSING_KEY = 3 Error, "A key is missing.",
        "The table cannot work without this key, and no default would be right for everyone.",
        "Add the key.";
    WRONG_TYPE = 4 Error, "A value is of the wrong kind.",
        "The key takes another kind of TOML value.",
        "Write a value of the kind named; durations and sizes are strings with a unit.";
    OUT_OF_RANGE = 5 Error, "A number is out of range.",
        "Below the lower bound the service would not work; beyond the upper one it would not be bounded.",
        "Choose a value within the bounds named.";
    UNKNOWN_VALUE = 6 Error, "A word is not one of those allowed.",
        "The key takes one of a few words.",
        "Use one of the words named.";
    LIST_TOO_SHORT = 7 Error, "A list has too few entries.",
        "The service needs at least this many.",
        "Add entries to the list.";
    LIST_TOO_LONG = 8 Error, "A list has too many entries.",
        "More entries cannot be used; a listener, for one, shows at most an ECDSA and an RSA certificate.",
        "Remove entries from the list.";
    BAD_DURATION = 9 Error, "A duration cannot be read.",
        "Durations carry their unit, so that no one has to guess it.",
        "Write a whole number and one of ms, s, min, h, d, as in \"20 min\".";
    BAD_SIZE = 10 Error, "A size cannot be read.",
        "Sizes carry their unit, so that no one has to guess it.",
        "Write a whole number and one of B, KiB, MiB, GiB, as in \"64 KiB\".";
    BAD_ADDRESS = 11 Error, "An address cannot be read.",
        "The key takes a single IPv4 or IPv6 address without prefix, port or brackets.",
        "Write the address alone, as in \"198.51.100.10\" or \"2001:db8::10\".";
    BAD_INTERFACE_ADDRESS = 12 Error, "An interface address cannot be read.",
        "A member's address carries the prefix of its link, from which routes and on-link checks follow.",
        "Write address and prefix length, as in \"198.51.100.10/24\".";
    BAD_NETWORK = 13 Error, "A network cannot be read.",
        "The key takes networks with their prefix length.",
        "Write network and prefix length, as in \"10.10.0.0/16\".";
    NETWORK_HOST_BITS = 14 Error, "A network has bits set behind its prefix.",
        "It is not certain whether the one host or the network was meant.",
        "Clear the bits behind the prefix, or write /32 (IPv6: /128) for one host.";
    BAD_NAME = 15 Error, "A host name cannot be read.",
        "DNS and certificates carry only letters, digits and hyphens, in labels of at most 63 characters.",
        "Write a DNS name; a name in another script is written in its xn-- form.";
    BAD_HOST_PORT = 16 Error, "A name with port cannot be read.",
        "The key takes a host name and a port with a colon between them.",
        "Write it as in \"director.contoso.internal:5061\".";
    BAD_PORT_RANGE = 17 Error, "A range of ports cannot be read.",
        "The key takes the first and the last port with a hyphen between them.",
        "Write it as in \"50000-59999\".";
    BAD_PATH = 18 Error, "A path cannot be used.",
        "An empty path, or one with a NUL character, names no file.",
        "Write the path of the file; a relative one starts at the directory of the configuration.";
    FILE_TOO_LARGE = 19 Error, "The file is too large.",
        "No configuration comes near a mebibyte, so this is some other file.",
        "Name the right file.";
    BAD_INTERFACE = 20 Error, "An interface name cannot be used.",
        "The kernel takes 1 to 15 characters, no blank, no slash, no colon.",
        "Write the name as `ip link` shows it.";
    BAD_TEXT = 21 Error, "A text is too short or too long.",
        "The text is carried in fields of limited length.",
        "Choose a text within the bounds named.";
    NOT_TAKEN = 22 Error, "A value is read as no type.",
        "The value has the right form, but cannot be taken over; this is a fault of the program.",
        "Report it with the line of the file that is named.";
    BAD_REQUEST_PATH = 23 Error, "The path of an address cannot be used.",
        "Browsers write it into their request as it is.",
        "Write what follows the host, from the first '/' on and without '?'.";

    NO_SERVICE = 101 Error, "No service is configured.",
        "Without any of [access], [webconf] and [av] this host has nothing to do.",
        "Add the table of at least one service.";
    DUPLICATE_DOMAIN = 102 Error, "A SIP domain is listed twice.",
        "The entries could contradict each other.",
        "Remove one of them.";
    SINGLE_WITH_MEMBERS = 103 Error, "A single edge has several members.",
        "Several hosts are an array and need balancers on both sides.",
        "Set topology = \"scaled\" and describe the balancers in [array], or remove the other members.";
    VIP_MISSING = 104 Error, "A service has no virtual address.",
        "Clients, partners and servers reach an array by the virtual addresses of its balancers; each service needs one outside, and access and av one inside.",
        "Add the address in array.vips.";
    BALANCER_MISSING = 105 Error, "The balancers of a side are not listed.",
        "Only listed balancers may send PROXY headers, so an array without any hears nobody.",
        "List the addresses that the balancer speaks from in array.balancers.";
    SINGLE_WITH_BALANCER = 106 Error, "A single edge has balancers or virtual addresses.",
        "They belong to the scaled topology, and a single edge would refuse every connection that lacks their PROXY header.",
        "Remove array.vips and array.balancers, or set topology = \"scaled\".";
    NODE_UNKNOWN = 107 Error, "The node is not a member.",
        "The name given with --node is none of [[members]].",
        "Give the name of a member.";
    NODE_NEEDED = 108 Error, "It is not said which member this host is.",
        "The file describes several members and is the same on all of them.",
        "Start with --node NAME.";
    SCALED_ALONE = 109 Warning, "An array has only one member.",
        "It works, and nothing takes over when this member fails.",
        "Add the other members, or set topology = \"single\".";
    FEDERATION_ELSEWHERE = 110 Error, "Federation is enabled at a site that has none.",
        "Federation runs through one site only, as partners find it by one SRV record.",
        "Set organization.federation_here = true, or access.federation.enabled = false.";
    NO_REMOTE_DOMAIN = 111 Warning, "Remote users are allowed, and no domain has them here.",
        "No _sip._tls record would name this edge, so no client finds it.",
        "Set remote_users_here = true for a domain, or access.remote_users = false.";
    REMOTE_EDGE_HERE = 112 Error, "Remote users of a domain are sent elsewhere and here.",
        "Who is sent away comes back and is sent away again.",
        "Set remote_users_here = false and name the edge of the other site, or leave remote_users_edge out.";
    ARRAY_TIME = 113 Error, "A time of the array is unreasonable.",
        "A heartbeat that is too fast or too slow finds no dead member in time; the unit of edge-access gives a drain ten minutes.",
        "Use array.link_heartbeat from 100 ms to 1 min, array.drain.notice up to 1 min, array.drain.timeout from 1 s to 10 min.";

    MEMBER_NAME_TWICE = 201 Error, "Two members have one name.",
        "--node would not know which is meant.",
        "Give each member its own name.";
    MEMBER_ID_TWICE = 202 Error, "Two members have one id.",
        "The id stands in tokens and leads answers back to the member that made them.",
        "Give each member its own id.";
    ADDRESS_TWICE = 203 Error, "An address is given twice.",
        "Two hosts, or both sides of one host, cannot hold the same address.",
        "Give each interface of each member its own addresses.";
    INTERNAL_NAME_TWICE = 204 Error, "Two members have one internal name.",
        "Servers inside and the other members could not tell them apart.",
        "Give each member its own internal.fqdn and webconf_internal_fqdn.";
    SERVICE_ADDRESS_UNLISTED = 205 Error, "A service takes an address that its member does not have.",
        "The listener could not bind.",
        "Add the address to external.addresses, or correct it.";
    AV_NOT_PUBLIC = 206 Error, "The A/V Edge has an external address that is not public.",
        "Relayed addresses are given to peers on the Internet as they are. A single edge may stand behind a static 1:1 NAT; an array may not.",
        "Use a public address; for a single edge behind NAT set av.public_address.";
    EXTERNAL_NOT_PUBLIC = 207 Warning, "A service has an external address that is not public.",
        "It is reached from the Internet only when something in front translates to it.",
        "Use a public address, or see to it that the device in front forwards the service's ports.";
    ADDRESS_UNUSABLE = 208 Error, "An address can never be that of a host.",
        "Loopback, link-local, multicast, unspecified and broadcast addresses, and the first and last of an IPv4 link, cannot be used there.",
        "Use an address of the host.";
    PUBLIC_ADDRESS_SCALED = 209 Error, "An array has av.public_address.",
        "Behind a balancer the A/V Edge needs public addresses of its own; NAT is for the single edge.",
        "Give each member a public A/V address and remove av.public_address.";
    PUBLIC_ADDRESS_NOT_PUBLIC = 210 Error, "av.public_address is not public.",
        "It is what peers on the Internet send to.",
        "Write the address that the NAT shows to the Internet.";
    PUBLIC_ADDRESS_FAMILY = 211 Error, "av.public_address does not stand for exactly one local address.",
        "A static 1:1 NAT maps one address of one family, so the member needs exactly one A/V address of that family.",
        "Let external.av hold one address of the family of av.public_address.";
    PUBLIC_ADDRESS_OWN = 212 Error, "av.public_address is an address of the host.",
        "Then nothing is translated, and the setting has no meaning.",
        "Remove av.public_address, or write the address that the NAT shows.";
    INTERNAL_NETWORK_PUBLIC = 213 Warning, "A network inside is public.",
        "Everything in it is refused as a media peer and as a partner.",
        "Check that the network is the organisation's own.";
    INTERNAL_ADDRESS_OUTSIDE = 214 Error, "An internal address is not in internal.networks.",
        "What lies inside is told by internal.networks; the host's own internal side is part of it.",
        "Add its network to internal.networks, or correct the address.";
    EXTERNAL_ADDRESS_INSIDE = 215 Error, "An external address lies in internal.networks.",
        "The same address cannot be outside and inside; packets would be sent to the wrong interface.",
        "Correct the address, or narrow internal.networks.";
    SIDES_OVERLAP = 216 Error, "An external link overlaps a network inside.",
        "The host could not tell by which interface a neighbour is reached.",
        "Use different networks for the two sides.";
    BAD_MEMBER_NAME = 217 Error, "A member's name cannot be used.",
        "The name stands in file names, metrics and logs.",
        "Use letters, digits and hyphens.";
    NAME_ON_BOTH_SIDES = 218 Error, "One name is used on both sides.",
        "Each name leads to one side. The same name on both would lead clients to whichever address DNS gives first, and one certificate would prove both.",
        "Use different names inside and outside.";
    UNDERSCORE = 219 Error, "A name holds an underscore.",
        "External DNS and public certificate authorities refuse such names.",
        "Use letters, digits and hyphens.";
    UNDERSCORE_INSIDE = 220 Warning, "A name of a server inside holds an underscore.",
        "It works as long as the DNS and the authority inside take it; both may stop at any update.",
        "Rename the server when there is an occasion.";
    NAME_NOT_QUALIFIED = 221 Error, "A name has no domain.",
        "A single label means different hosts on different networks, and no public authority signs it.",
        "Write the name with its domain.";
    SAME_INTERFACE = 222 Error, "Both sides use one interface.",
        "The edge needs an interface per side; rules could not tell the Internet from the inside.",
        "Name two different interfaces.";
    FAMILY_INSIDE_MISSING = 223 Error, "A network inside cannot be reached.",
        "internal.networks has an address family of which a member has no internal address.",
        "Give the member an internal address of that family, or remove the network.";
    UNICODE_INSIDE = 224 Warning, "A name of a server inside is in another script.",
        "It is taken in its xn-- form, which the DNS and the certificates inside have to carry as well.",
        "Write the xn-- form, or rename the server when there is an occasion.";

    GATEWAY_TWICE = 301 Error, "Two gateways of one address family.",
        "Each side has one way out per family.",
        "Remove one of them.";
    GATEWAY_OFF_LINK = 302 Error, "A gateway is not on the link.",
        "The gateway has to be a neighbour of each member's addresses of its family, on the same side.",
        "Correct the gateway, or the prefix of the member's addresses.";
    GATEWAY_OWN = 303 Error, "A gateway is an address of a member.",
        "A host that is its own gateway sends packets nowhere.",
        "Write the address of the router.";
    GATEWAY_MISSING = 304 Error, "A network is not reached without a gateway.",
        "The networks of a side go beyond its link, in an address family that the members have and no gateway serves.",
        "Add a gateway of that family, or narrow the networks to the link.";
    NEXT_HOP_MISSING = 305 Error, "The Access Edge has no next hop.",
        "Everything from outside goes to the Director or pool.",
        "Set internal.next_hop.";
    NEXT_HOP_UNTRUSTED = 306 Error, "The next hop is not a trusted server.",
        "Its requests would be refused, and its certificate would not be accepted.",
        "Add its name to internal.trusted_servers.";
    NEXT_HOP_OUTSIDE = 307 Error, "An address of the next hop is not inside.",
        "The next hop is reached over the internal interface, which leads to internal.networks only.",
        "Correct the address, or add its network to internal.networks.";
    NEXT_HOP_OURS = 308 Error, "The next hop is the edge itself.",
        "Requests would go round until Max-Forwards ends them.",
        "Name the Director or pool inside.";
    INTERNAL_DNS_MISSING = 309 Error, "The next hop cannot be looked up.",
        "internal.next_hop is a name, and neither its addresses nor a resolver inside are given.",
        "Set internal.next_hop_addresses or dns.internal.";
    EXTERNAL_DNS_MISSING = 310 Error, "Partners cannot be looked up.",
        "Federation finds and proves partners by DNS, and no resolver outside is given.",
        "Set dns.external, or access.federation.enabled = false.";
    RESOLVER_WRONG_SIDE = 311 Error, "A resolver is on the other side.",
        "Resolvers outside are asked from the external address and those inside from the internal one.",
        "Move the address to the other list, or correct it.";
    CRL_MISSING = 312 Error, "Revocation is hard, and there is no list.",
        "Every server inside would be refused.",
        "List the revocation lists of the inside authority in internal.crls, or use \"soft\" or \"off\".";
    SECRET_TWICE = 313 Error, "Two secrets share a file.",
        "Secrets that are equal are one secret: a change would change nothing, or one use would open what another sealed.",
        "Give each secret its own file.";
    VIP_TAKEN = 314 Error, "A virtual address is an address of a member.",
        "The balancer answers for it, so no member may.",
        "Use an address of the balancer.";
    VIP_NOT_PUBLIC = 315 Error, "A virtual address outside is not public.",
        "Clients on the Internet connect to it.",
        "Use a public address.";
    VIP_OUTSIDE = 316 Error, "A virtual address inside is not in internal.networks.",
        "Servers inside connect to it.",
        "Correct the address, or add its network to internal.networks.";
    BALANCER_WRONG_SIDE = 317 Error, "A balancer is on the other side.",
        "The outside balancer speaks from outside and the inside one from internal.networks.",
        "Move the address to the other list, or correct it.";
    TRUST_MISSING = 318 Error, "No server inside is trusted.",
        "access and av take SIP from trusted servers only, so nobody inside could use them.",
        "List the servers in internal.trusted_servers.";
    INTERNAL_EVERYTHING = 319 Error, "Everything counts as inside.",
        "internal.networks holds a default route, which belongs to the external side.",
        "List the networks of the organisation.";
    MEMBERS_DIFFER = 320 Error, "Members have different address families on one side.",
        "A balancer sends any client to any member, so all members need the same families.",
        "Give every member addresses of the same families.";

    PORT_CONFLICT = 401 Error, "Two services share an address and port.",
        "Only one of them could bind.",
        "Give each service its own external address, which keeps the default ports, or change a port.";
    RELAY_OVERLAPS = 402 Error, "The relay range holds a port that listens.",
        "A relayed address would take the packets of a service, or the other way round.",
        "Move the port out of av.relay_ports, or narrow the range.";
    RELAY_RANGE_SMALL = 403 Warning, "There are fewer relay ports than allocations.",
        "Each allocation takes at least one port, so av.limits.allocations is never reached.",
        "Widen av.relay_ports or lower av.limits.allocations.";
    RELAY_PRIVILEGED = 404 Error, "The relay range reaches below port 1024.",
        "Low ports belong to services; a peer could be made to talk to what looks like one.",
        "Use a range above 1023; the guide's is 50000-59999.";
    MANAGEMENT_PORT_TAKEN = 405 Error, "A management port belongs to a service.",
        "The rule would open the service's port to whom the port table does not.",
        "Use another port for management.";
    MANAGEMENT_WORLD = 406 Warning, "Management is open to the whole Internet.",
        "Anyone may try to log in to the host.",
        "List the networks of the operators, or manage from the internal side.";
    MANAGEMENT_MISSING = 407 Warning, "There is no management rule.",
        "Once the firewall is applied, the host is reached at its console only.",
        "Add an entry to firewall.management.";
    MANAGEMENT_WRONG_SIDE = 408 Error, "A management network is on the other side.",
        "Strict reverse-path filtering drops packets that arrive on the interface their source is not routed over.",
        "Name the side on which the network lies.";

    CHAIN_IS_KEY = 501 Error, "Chain and key are one file.",
        "The chain is readable by many and the key must not be.",
        "Keep the private key in a file of its own.";
    CERTIFICATE_TWICE = 502 Error, "A certificate is listed twice.",
        "A listener shows one certificate per key type, so the second adds nothing.",
        "Remove it, or name the certificate of the other key type.";
    PARTNER_TWICE = 503 Error, "A partner is listed twice.",
        "The entries could contradict each other.",
        "Remove one of them.";
    PARTNER_BLOCKED = 504 Error, "A domain is both partner and blocked.",
        "It is not certain which was meant.",
        "Remove it from one of the lists.";
    BLOCKED_TWICE = 505 Warning, "A blocked domain is listed twice.",
        "The second entry does nothing.",
        "Remove the entry.";
    PARTNER_OURS = 506 Error, "A partner is a domain of the organisation.",
        "Requests of our own users would be taken for a partner's.",
        "Remove it from access.federation.partners.";
    BLOCKED_OURS = 507 Error, "A blocked domain is one of the organisation.",
        "Nobody could reach its users.",
        "Remove it from access.federation.blocked.";
    FEDERATION_WITH_NOBODY = 508 Warning, "Federation is enabled with nobody.",
        "There are no partners, and discovery is off.",
        "List partners, set discovery = true, or switch federation off.";
    ACCESS_IDLE = 509 Error, "The Access Edge serves nobody.",
        "Remote users, anonymous users and federation are all off.",
        "Switch one of them on, or remove [access].";
    KEY_ON_BOTH_SIDES = 510 Error, "One private key is used on both sides.",
        "Inside and outside trust different authorities; whoever takes the key outside would be a trusted server inside.",
        "Use a certificate of its own on each side.";
    FQDN_OUTSIDE_DOMAINS = 511 Warning, "The Access Edge's name is in none of the SIP domains.",
        "Partners prove us by an SRV record whose target is in the domain itself, usually sip.<domain>.",
        "Use a name such as sip.<domain>.";
    LIMIT_ORDER = 512 Error, "A part is larger than its whole.",
        "A limit per source, user or agent above the limit of all is never reached.",
        "Lower it, or raise the limit of all.";
    PARTNER_FQDN_OURS = 513 Error, "A partner's edge has one of our names.",
        "The edge would connect to itself.",
        "Name the partner's edge.";
    LIMIT_SMALL = 514 Error, "A limit is too small for real traffic.",
        "Lawful messages of common clients would be refused.",
        "Use at least the value named.";
    LIMIT_LARGE = 515 Error, "A limit is too large to be one.",
        "What one peer may make the daemon hold has to stay small beside the memory of a host.",
        "Use at most the value named.";
    REVOCATION_UNFETCHED = 516 Warning, "Partners' revocation lists are asked for, and none are fetched.",
        "fetch_crls is off. So \"hard\" refuses every partner, and \"soft\" lets every partner pass as \"off\" does.",
        "Write fetch_crls = true, or revocation = \"off\" and block a partner whose key was stolen in access.federation.blocked.";
    QUEUE_SMALL = 517 Error, "A queue is too small for the messages that go through it.",
        "A message waits as a whole. One that is longer than the queue is refused, however fast its receiver reads.",
        "Let client_queue hold head and client_body, and server_queue head and server_body.";
    PIN_INVALID = 518 Error, "A pin is no digest of a key.",
        "The partner would be let in with any key.",
        "Write sha256/ and the base64 of the SHA-256 of the key's SubjectPublicKeyInfo.";
    DEFAULT_ROUTE_ALONE = 519 Error, "There is a default route and something that it excludes.",
        "All of federation goes through the default route but what is listed with an fqdn: discovery, providers and being a clearing house have nothing left to do.",
        "Remove the default route, or what is named here.";
    PROVIDER_FQDN_TAKEN = 520 Error, "A provider's edge is somebody else's as well.",
        "One connection would belong to two kinds of partners.",
        "Remove it from one of the lists.";
    NOTICE_INVALID = 521 Error, "The archiving notice is no header line.",
        "Partners' servers would refuse every message.",
        "Write one line, Name: value, with a header name that the edge does not use itself.";

    POOL_ORDER = 601 Error, "The smallest pool is larger than the largest.",
        "Agents could not satisfy both.",
        "Let webconf.limits.pool_min be at most pool_max.";
    PREREAD_LARGE = 602 Error, "What is read ahead does not fit the relay's buffer.",
        "The first bytes of a client are passed on by the relay, which holds relay_buffer of them.",
        "Let webconf.limits.preread be at most relay_buffer.";
    NO_WAY_IN = 603 Error, "No client of the Web Conferencing Edge could be let in.",
        "Clients show an admitted number, which `scan` looks for, or a token, which one of `preface_keys` has signed.",
        "Set webconf.scan = true, or name the public keys in webconf.preface_keys.";
    TOKENS_LONG = 604 Error, "Tokens may be good for longer than agents remember them.",
        "Across an array it is the agent that sees a token used twice, and it remembers for a day.",
        "Let webconf.limits.token_lifetime be at most 24 h.";
    ROLE_OF_NOBODY = 605 Warning, "A role is given to a name that is no agent.",
        "Only names that webconf.agents covers get a session, so nobody has this role.",
        "Add the name to webconf.agents, or remove it from webconf.conference_agents.";
    PREREAD_SMALL = 606 Error, "What is read ahead does not hold a token.",
        "A client's token stands on its first line, which may be 1 KiB long and is part of what is read ahead.",
        "Let webconf.limits.preread be at least 1 KiB, or remove webconf.preface_keys.";

    AUTH_KEY_SHARED = 701 Error, "The A/V authentication key is also a listener's.",
        "Credentials are derived from this key alone. It must live and end on its own, and must not lie where listeners' keys lie.",
        "Make a certificate for A/V authentication and nothing else.";
    AUTH_TWICE = 702 Error, "An A/V authentication certificate is listed twice.",
        "Next and previous are there to change the key; with an equal one nothing changes.",
        "Give each its own certificate and key, or remove it.";
    PEER_ALLOW_INSIDE = 703 Error, "Peers inside are allowed.",
        "The relay never sends to the inside, to itself or to members, whatever is allowed.",
        "Remove the network from av.peer_allow.";
    PEER_ALLOW_PUBLIC = 704 Warning, "A public network is allowed as peer.",
        "Public peers are allowed anyway; the entry does nothing.",
        "Remove the entry.";
    BAD_REALM = 705 Error, "The realm cannot be used.",
        "It is quoted in challenges, so it holds no quote, backslash or control character.",
        "Use a domain name.";
    TOKEN_LIFETIME = 706 Error, "The longest life of credentials is unreasonable.",
        "Less than five minutes ends calls that are being set up; more than seven days is no limit for a credential that cannot be taken back.",
        "Use a value between 5 min and 7 d; 8 h is common.";

    LAB = 801 Warning, "This is a lab.",
        "Reserved ranges count as public in the check, in the DNS guard and as media peers.",
        "Remove [lab] before this host meets the Internet.";
    LAB_RANGE_PUBLIC = 802 Warning, "A range of the lab is public anyway.",
        "The entry does nothing.",
        "Remove the entry.";
    LOG_TRACE = 803 Warning, "The log level is trace.",
        "Trace lines are not in release builds; the log will hold what debug holds.",
        "Use \"debug\".";
    DIRECTORY_RELATIVE = 804 Error, "A directory is not absolute.",
        "Daemons and edgectl are started in different directories and would not meet.",
        "Write the path from the root.";
    LAB_RANGE_INSIDE = 805 Error, "A range of the lab lies inside.",
        "What lies inside is never public, not even in a lab.",
        "Remove the range, or narrow internal.networks.";
    COLLECTOR_PLACE = 806 Error, "The collector of copied messages is not another host inside.",
        "Copies of signalling leave by the internal interface only: they tell who speaks with whom.",
        "Name an address in internal.networks that no edge host has.";
    COLLECTOR_BODIES = 807 Warning, "Bodies are copied to the collector.",
        "They hold the texts of messages and the keys of media; whoever reads the collector reads these.",
        "Leave access.hep.bodies out, unless a fault is hunted that needs them.";

    FILE_MISSING = 901 Error, "A file does not exist.",
        "The configuration names a file that is not there.",
        "Create it (`edgectl init` makes keys, certificates and secrets), or correct the path.";
    FILE_UNREADABLE = 902 Error, "A file cannot be read.",
        "The user that runs the daemon may not read it.",
        "Let the file belong to the daemon's group, and let the group read it.";
    FILE_IRREGULAR = 903 Error, "A path does not name a regular file.",
        "A directory, device or socket holds no certificate or key.",
        "Correct the path.";
    SECRET_OPEN = 904 Error, "A private file is open to others.",
        "Whoever reads a key or secret can stand in for the edge or open its tokens.",
        "Take the rights of others away: chmod o-rwx,g-w FILE.";
    FILE_EMPTY = 905 Error, "A file is empty.",
        "It holds no certificate, key or secret.",
        "Write the file again.";
    CERTIFICATE_UNREADABLE = 906 Error, "A certificate file cannot be read as PEM.",
        "It holds no certificate, or a broken one.",
        "Write the chain as PEM, the host's own certificate first.";
    KEY_MISMATCH = 907 Error, "A private key does not belong to its certificate.",
        "No handshake would succeed.",
        "Name the key that the certificate was made for.";
    CERTIFICATE_EXPIRED = 908 Error, "A certificate is not valid now.",
        "Peers refuse it.",
        "Renew it; check the host's clock.";
    CERTIFICATE_NAME = 909 Error, "A certificate does not prove the configured name.",
        "Peers compare the name that they connect to with the names in the certificate.",
        "Have a certificate made that holds the name as subject alternative name.";
    CERTIFICATE_EXPIRES_SOON = 910 Warning, "A certificate expires soon.",
        "Peers will refuse it from then on.",
        "Renew it before that day.";
    CERTIFICATE_USAGE = 911 Error, "A certificate has the wrong extended key usage.",
        "Each role needs its usage: servers need serverAuth.",
        "Have a certificate made with the usage named.";
    SECRET_UNREADABLE = 912 Error, "A secret file cannot be used.",
        "It has to hold 32 random bytes as 64 hexadecimal digits.",
        "Make it with `edgectl init`.";
    KEY_UNREADABLE = 913 Error, "A private key cannot be read as PEM.",
        "It holds no key, a broken one, or one that is locked with a passphrase.",
        "Write the key as unencrypted PKCS#8 PEM.";
    CONFIG_UNREADABLE = 914 Error, "The configuration cannot be read.",
        "The file does not exist, may not be read, or is not UTF-8 text.",
        "Name the right file with --config, and let the daemon's group read it.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_only_rise_and_every_text_says_something() {
        assert!(CATALOGUE.is_sorted_by(|a, b| a.id < b.id));
        for rule in CATALOGUE {
            for text in [rule.title, rule.cause, rule.remedy] {
                assert!(
                    text.len() > 10 && text.ends_with('.'),
                    "{}: {text}",
                    rule.id
                );
            }
        }
    }

    #[test]
    fn an_id_is_found_as_it_is_typed() {
        for text in [
            "EDGE-C0002",
            "edge-c0002",
            "c0002",
            "C2",
            "0002",
            "2",
            " EDGE-C2 ",
        ] {
            assert_eq!(text.parse(), Ok(UNKNOWN_KEY), "{text}");
        }
        assert_eq!(UNKNOWN_KEY.to_string(), "EDGE-C0002");
        for text in [
            "",
            "EDGE-C",
            "c",
            "cc2",
            "EDGE-C9999",
            "99999",
            "-2",
            "EDGE-A0002",
        ] {
            assert_eq!(text.parse::<RuleId>(), Err(RuleIdUnknown), "{text}");
        }
    }

    #[test]
    fn enough_of_them_are_errors() {
        assert!(
            CATALOGUE
                .iter()
                .filter(|rule| rule.severity == Severity::Error)
                .count()
                >= 60
        );
    }
}

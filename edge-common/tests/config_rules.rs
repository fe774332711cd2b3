//! Wrong configurations, each beside a right one that differs in one value.
//!
//! `«` stands in front of the character that the finding has to point at. Where that is not in the changed text,
//! `elsewhere` shows it.

use std::collections::BTreeSet;

use edge_common::config::rule::{self, RuleId};
use edge_common::config::{Finding, Place, Severity, catalogue, check};

struct Case {
    rule: RuleId,
    base: &'static str,
    /// Changed in the base beforehand, for both files.
    given: (&'static str, &'static str),
    /// What differs, at its first occurrence.
    at: &'static str,
    /// Put there, the file is right.
    good: &'static str,
    /// Put there, the file breaks the rule and no other.
    bad: &'static str,
    elsewhere: &'static str,
}

impl Case {
    const fn good(self, good: &'static str) -> Self {
        Self { good, ..self }
    }

    const fn elsewhere(self, elsewhere: &'static str) -> Self {
        Self { elsewhere, ..self }
    }

    const fn given(self, from: &'static str, to: &'static str) -> Self {
        Self {
            given: (from, to),
            ..self
        }
    }
}

const SINGLE: &str = include_str!("../../deploy/examples/single.toml");
const NAT: &str = include_str!("../../deploy/examples/nat.toml");
const SCALED: &str = include_str!("../../deploy/examples/scaled.toml");
const FEDERATION: &str = include_str!("../../deploy/examples/federation-only.toml");

/// The base itself is right, `at` is what goes wrong.
const fn case(rule: RuleId, base: &'static str, at: &'static str, bad: &'static str) -> Case {
    added(rule, base, at, at, bad)
}

/// Lines are added behind the header of a table.
const fn added(
    rule: RuleId,
    base: &'static str,
    at: &'static str,
    good: &'static str,
    bad: &'static str,
) -> Case {
    Case {
        rule,
        base,
        given: ("", ""),
        at,
        good,
        bad,
        elsewhere: "",
    }
}

const CASES: &[Case] = &[
    // The text itself.
    case(rule::SYNTAX, SINGLE, "interface = \"ext\"", "interface = «ext"),
    added(rule::UNKNOWN_KEY, SINGLE, "[access]\n", "[access]\nclient_port = 443\n", "[access]\n«client_prot = 443\n"),
    added(rule::UNKNOWN_KEY, SINGLE, "[dns]", "[health]\naccess = 9564\n[dns]", "[«helth]\naccess = 9564\n[dns]"),
    case(rule::MISSING_KEY, SINGLE, "[access]\nfqdn = \"sip.contoso.test\"\n", "[«access]\n"),
    case(rule::MISSING_KEY, FEDERATION, "{ domain = \"northwind.test\" }", "«{ fqdn = \"sip.northwind.test\" }"),
    added(rule::WRONG_TYPE, SINGLE, "[access]\n", "[access]\nclient_port = 443\n", "[access]\nclient_port = «\"443\"\n"),
    case(rule::WRONG_TYPE, SINGLE, "external = [\"192.0.2.53\"]", "external = «\"192.0.2.53\""),
    added(
        rule::WRONG_TYPE,
        SINGLE,
        "[dns]",
        "[log]\nlevel = \"info\"\n[dns]",
        "«[[log]]\nlevel = \"info\"\n[dns]",
    ),
    added(rule::OUT_OF_RANGE, SINGLE, "[access]\n", "[access]\nclient_port = 65535\n", "[access]\nclient_port = «65536\n"),
    case(rule::OUT_OF_RANGE, SINGLE, "id = 0", "id = «256"),
    added(rule::OUT_OF_RANGE, SINGLE, "[dns]\n", "[dns]\ntimeout = \"1 s\"\n", "[dns]\ntimeout = «\"0 s\"\n"),
    case(rule::UNKNOWN_VALUE, SINGLE, "topology = \"single\"", "topology = «\"singel\""),
    case(rule::LIST_TOO_SHORT, SINGLE, "agents = [\"mcu1.contoso.internal\"]", "agents = «[]"),
    case(
        rule::LIST_TOO_LONG,
        SCALED,
        "key = \"certs/internal-rsa.key\" }]",
        "key = \"certs/internal-rsa.key\" }, «{ chain = \"certs/third.pem\", key = \"certs/third.key\" }]",
    ),
    added(rule::BAD_DURATION, SINGLE, "[dns]\n", "[dns]\ntimeout = \"5 s\"\n", "[dns]\ntimeout = «\"5 sec\"\n"),
    added(
        rule::BAD_SIZE,
        SINGLE,
        "[access.federation]\n",
        "[access.limits]\nhead = \"64 KiB\"\n[access.federation]\n",
        "[access.limits]\nhead = «\"64 kB\"\n[access.federation]\n",
    ),
    case(rule::BAD_ADDRESS, SINGLE, "\"192.0.2.53\"", "«\"192.0.2.530\""),
    case(rule::BAD_INTERFACE_ADDRESS, SINGLE, "\"10.10.0.10/24\"", "«\"10.10.0.10/33\""),
    case(rule::BAD_NETWORK, SINGLE, "from = [\"10.10.0.0/16\"]", "from = [«\"10.10.0.0\"]"),
    case(rule::NETWORK_HOST_BITS, SINGLE, "from = [\"10.10.0.0/16\"]", "from = [«\"10.10.0.1/16\"]"),
    case(rule::BAD_NAME, SINGLE, "\"webconf.contoso.test\"", "«\"web conf.contoso.test\""),
    case(rule::BAD_NAME, SINGLE, "\"av.contoso.test\"", "«\"\u{e4}v.contoso.test\""),
    case(rule::BAD_HOST_PORT, SINGLE, "\"director.contoso.internal:5061\"", "«\"director.contoso.internal\""),
    added(
        rule::BAD_PORT_RANGE,
        SINGLE,
        "[av]\n",
        "[av]\nrelay_ports = \"50000-59999\"\n",
        "[av]\nrelay_ports = «\"59999-50000\"\n",
    ),
    case(rule::BAD_PATH, SINGLE, "ca = \"certs/inside-ca.pem\"", "ca = «\"\""),
    added(
        rule::BAD_REQUEST_PATH,
        SINGLE,
        "[access]\n",
        "[access]\nwebsocket.path = \"/sip\"\n",
        "[access]\nwebsocket.path = «\"sip\"\n",
    ),
    case(rule::BAD_INTERFACE, SINGLE, "interface = \"ext\"", "interface = «\"ext/0\""),
    added(
        rule::BAD_TEXT,
        SINGLE,
        "[av]\n",
        "[av]\nrealm = \"contoso\"\n",
        "[av]\nrealm = «\"\"\n",
    ),
    // Topology.
    case(
        rule::DUPLICATE_DOMAIN,
        SCALED,
        "{ domain = \"contoso.example\", remote",
        "{ domain = «\"Contoso.TEST\", remote",
    ),
    case(rule::VIP_MISSING, SCALED, "webconf = [\"198.51.100.102\"]", "webconf = «[]"),
    case(rule::BALANCER_MISSING, SCALED, "internal = [\"10.10.0.5\"]", "internal = «[]"),
    added(
        rule::SINGLE_WITH_BALANCER,
        SINGLE,
        "[array]\n",
        "[array]\nbalancers = { external = [] }\n",
        "[array]\nbalancers = { external = «[\"198.51.100.5\"] }\n",
    ),
    added(
        rule::FEDERATION_ELSEWHERE,
        SINGLE,
        "[access.federation]\n",
        "[access.federation]\nenabled = false\n",
        "[access.federation]\nenabled = «true\n",
    )
    .given("federation_here = true", "federation_here = false"),
    case(
        rule::SINGLE_WITH_MEMBERS,
        FEDERATION,
        "[external]\n",
        "[[members]]\nname = \"edge2\"\nid = 1\nexternal = { addresses = [\"198.51.100.20/24\"] }\ninternal = { addresses = [\"10.10.0.20/24\"], fqdn = \"edge2.contoso.internal\" }\n[external]\n",
    )
    .elsewhere("topology = «\"single\""),
    case(
        rule::SCALED_ALONE,
        SCALED,
        "[[members]]\nname = \"edge2\"\nid = 1\nexternal = { addresses = [\"198.51.100.12/24\", \"198.51.100.22/24\", \"198.51.100.32/24\"], access = [\"198.51.100.12\"], webconf = [\"198.51.100.22\"], av = [\"198.51.100.32\"] }\ninternal = { addresses = [\"10.10.0.12/24\"], fqdn = \"edge2.contoso.internal\" }\n",
        "",
    )
    .elsewhere("topology = «\"scaled\""),
    case(rule::NO_REMOTE_DOMAIN, SINGLE, "remote_users_here = true", "remote_users_here = false")
        .elsewhere("[«access]\n"),
    added(
        rule::REMOTE_EDGE_HERE,
        SCALED,
        "{ domain = \"contoso.example\", remote_users_here = false",
        "{ domain = \"contoso.example\", remote_users_here = false, remote_users_edge = \"sip.other.test:443\"",
        "{ domain = \"contoso.example\", remote_users_here = true, remote_users_edge = «\"sip.other.test:443\"",
    ),
    added(
        rule::ARRAY_TIME,
        SCALED,
        "[array]\n",
        "[array]\nlink_heartbeat = \"100 ms\"\n",
        "[array]\nlink_heartbeat = «\"99 ms\"\n",
    ),
    added(
        rule::ARRAY_TIME,
        SCALED,
        "[access]\n",
        "[array.drain]\ntimeout = \"10 min\"\n[access]\n",
        "[array.drain]\ntimeout = «\"11 min\"\n[access]\n",
    ),
    // Members and names.
    case(rule::MEMBER_NAME_TWICE, SCALED, "name = \"edge2\"", "name = «\"edge1\""),
    case(rule::MEMBER_ID_TWICE, SCALED, "id = 1", "id = «0"),
    case(rule::ADDRESS_TWICE, SCALED, "[\"10.10.0.12/24\"]", "[«\"10.10.0.11/24\"]"),
    case(rule::INTERNAL_NAME_TWICE, SCALED, "\"edge2.contoso.internal\"", "«\"edge1.contoso.internal\""),
    case(
        rule::SERVICE_ADDRESS_UNLISTED,
        NAT,
        "webconf = [\"192.168.100.11\"]",
        "webconf = [«\"192.168.100.13\"]",
    ),
    case(
        rule::AV_NOT_PUBLIC,
        SCALED,
        "treat_as_public = [\"198.51.100.0/24\"]",
        "treat_as_public = [\"198.51.100.0/27\", \"198.51.100.96/28\"]",
    )
    .elsewhere("av = [«\"198.51.100.32\"]"),
    case(rule::EXTERNAL_NOT_PUBLIC, FEDERATION, "treat_as_public = [\"198.51.100.0/24\"]", "treat_as_public = [\"203.0.113.0/24\"]")
        .elsewhere("addresses = [«\"198.51.100.10/24\"]")
        .good("treat_as_public = [\"198.51.100.0/23\"]"),
    case(rule::ADDRESS_UNUSABLE, FEDERATION, "\"10.10.0.10/24\"", "«\"10.10.0.255/24\""),
    case(rule::ADDRESS_UNUSABLE, FEDERATION, "\"198.51.100.10/24\"", "«\"198.51.100.0/24\""),
    case(rule::PUBLIC_ADDRESS_NOT_PUBLIC, NAT, "\"198.51.100.12\"", "«\"192.168.200.12\""),
    case(rule::PUBLIC_ADDRESS_FAMILY, NAT, "\"198.51.100.12\"", "«\"2600::12\""),
    case(rule::PUBLIC_ADDRESS_SCALED, SCALED, "[av]\n", "[av]\npublic_address = «\"198.51.100.200\"\n"),
    added(
        rule::PUBLIC_ADDRESS_OWN,
        SINGLE,
        "[av]\n",
        "[av]\npublic_address = \"198.51.100.13\"\n",
        "[av]\npublic_address = «\"198.51.100.12\"\n",
    ),
    case(rule::INTERNAL_NETWORK_PUBLIC, FEDERATION, "networks = [\"10.10.0.0/16\"]", "networks = [\"10.10.0.0/16\", «\"192.1.0.0/16\"]"),
    case(rule::INTERNAL_ADDRESS_OUTSIDE, FEDERATION, "\"10.10.0.10/24\"", "«\"10.11.0.10/8\""),
    case(
        rule::EXTERNAL_ADDRESS_INSIDE,
        FEDERATION,
        "networks = [\"10.10.0.0/16\"]",
        "networks = [\"10.10.0.0/16\", \"198.51.100.0/28\"]",
    )
    .given("treat_as_public = [\"198.51.100.0/24\"]", "treat_as_public = []")
    .elsewhere("addresses = [«\"198"),
    case(
        rule::SIDES_OVERLAP,
        FEDERATION,
        "networks = [\"10.10.0.0/16\"]",
        "networks = [\"10.10.0.0/16\", \"198.51.100.128/25\"]",
    )
    .given("treat_as_public = [\"198.51.100.0/24\"]", "treat_as_public = []")
    .elsewhere("addresses = [«\"198"),
    case(rule::BAD_MEMBER_NAME, SCALED, "name = \"edge2\"", "name = «\"edge/2\""),
    case(
        rule::NAME_ON_BOTH_SIDES,
        SINGLE,
        "internal_fqdn = \"edge.contoso.internal\"\ncertificates = [{ chain = \"certs/av",
        "internal_fqdn = «\"sip.contoso.test\"\ncertificates = [{ chain = \"certs/av",
    ),
    case(rule::UNDERSCORE, SINGLE, "\"webconf.contoso.test\"", "«\"web_conf.contoso.test\""),
    case(rule::UNDERSCORE_INSIDE, SINGLE, "\"mcu1.contoso.internal\"", "«\"mcu_1.contoso.internal\""),
    case(
        rule::UNICODE_INSIDE,
        SINGLE,
        "\"mcu1.contoso.internal\"",
        "«\"m\u{fc}nchen.contoso.internal\"",
    ),
    case(rule::NAME_NOT_QUALIFIED, SINGLE, "\"webconf.contoso.test\"", "«\"webconf\""),
    case(rule::SAME_INTERFACE, SINGLE, "interface = \"int\"", "interface = «\"ext\""),
    case(rule::FAMILY_INSIDE_MISSING, FEDERATION, "networks = [\"10.10.0.0/16\"]", "networks = [\"10.10.0.0/16\", «\"fd00:10::/32\"]"),
    // Networks.
    case(
        rule::GATEWAY_TWICE,
        SINGLE,
        "gateway = [\"198.51.100.1\", \"2001:db8:100::1\"]",
        "gateway = [\"198.51.100.1\", «\"198.51.100.2\", \"2001:db8:100::1\"]",
    ),
    case(rule::GATEWAY_OFF_LINK, SINGLE, "gateway = [\"10.10.0.1\"]", "gateway = [«\"10.10.1.1\"]"),
    case(rule::GATEWAY_OWN, SINGLE, "gateway = [\"10.10.0.1\"]", "gateway = [«\"10.10.0.10\"]"),
    case(
        rule::GATEWAY_MISSING,
        SINGLE,
        "gateway = [\"198.51.100.1\", \"2001:db8:100::1\"]",
        "gateway = «[\"198.51.100.1\"]",
    ),
    case(rule::GATEWAY_MISSING, SINGLE, "gateway = [\"10.10.0.1\"]\n", "").elsewhere("[«internal]"),
    case(rule::NEXT_HOP_MISSING, SINGLE, "next_hop = \"director.contoso.internal:5061\"\n", "").elsewhere("[«internal]"),
    case(rule::NEXT_HOP_UNTRUSTED, SINGLE, "\"director.contoso.internal:5061\"", "«\"other.contoso.internal:5061\""),
    case(rule::NEXT_HOP_OUTSIDE, NAT, "[\"10.10.0.20\"]", "[«\"10.11.0.20\"]"),
    case(rule::NEXT_HOP_OURS, SINGLE, "\"director.contoso.internal:5061\"", "«\"edge.contoso.internal:5061\""),
    case(rule::INTERNAL_DNS_MISSING, SINGLE, "internal = [\"10.10.0.53\"]", "internal = []").elsewhere("next_hop = «\""),
    case(rule::EXTERNAL_DNS_MISSING, SINGLE, "external = [\"192.0.2.53\"]", "external = «[]"),
    case(rule::RESOLVER_WRONG_SIDE, SINGLE, "internal = [\"10.10.0.53\"]", "internal = [«\"10.11.0.53\"]"),
    case(rule::CRL_MISSING, SCALED, "crls = [\"certs/inside-ca.crl\"]", "crls = []").elsewhere("revocation = «\"hard\"\ntrusted"),
    case(rule::SECRET_TWICE, SCALED, "\"secrets/array.next\"", "«\"./secrets/array.current\""),
    case(rule::VIP_TAKEN, SCALED, "\"198.51.100.102\"", "«\"198.51.100.21\""),
    case(rule::VIP_NOT_PUBLIC, SCALED, "\"198.51.100.102\"", "«\"192.168.1.1\""),
    case(rule::VIP_OUTSIDE, SCALED, "\"10.10.0.103\"", "«\"10.11.0.103\""),
    case(rule::BALANCER_WRONG_SIDE, SCALED, "\"198.51.100.5\"", "«\"10.10.0.6\""),
    case(
        rule::TRUST_MISSING,
        SINGLE,
        "trusted_servers = [\"director.contoso.internal\", \"*.pool.contoso.internal\"]",
        "trusted_servers = «[]",
    ),
    case(rule::INTERNAL_EVERYTHING, SINGLE, "networks = [\"10.10.0.0/16\"]", "networks = [\"10.10.0.0/16\", «\"0.0.0.0/0\"]"),
    case(
        rule::MEMBERS_DIFFER,
        SCALED,
        "\"198.51.100.32/24\"], access",
        "\"198.51.100.32/24\", \"2001:db8::12/64\"], access",
    )
    .given("gateway = [\"198.51.100.1\"]", "gateway = [\"198.51.100.1\"]\nnetworks = [\"0.0.0.0/0\"]")
    .elsewhere("addresses = «[\"198.51.100.12/24\""),
    // Ports.
    added(
        rule::PORT_CONFLICT,
        SINGLE,
        "[access]\n",
        "[access]\nfederation_port = 5062\n",
        "[access]\nfederation_port = «443\n",
    ),
    added(
        rule::RELAY_OVERLAPS,
        SINGLE,
        "[av]\n",
        "[av]\nudp_port = 49999\n",
        "[av]\nudp_port = «50000\n",
    ),
    added(
        rule::RELAY_RANGE_SMALL,
        NAT,
        "[av]\n",
        "[av]\nrelay_ports = \"50000-59999\"\n",
        "[av]\nrelay_ports = «\"50000-59998\"\n",
    ),
    added(
        rule::RELAY_PRIVILEGED,
        NAT,
        "[av]\n",
        "[av]\nrelay_ports = \"1024-3000\"\n",
        "[av]\nrelay_ports = «\"1023-3000\"\n",
    ),
    case(rule::MANAGEMENT_PORT_TAKEN, SINGLE, "tcp = [22]", "tcp = [22, «8057]"),
    case(rule::MANAGEMENT_WORLD, SINGLE, "management = [", "management = [{ side = \"external\", from = [«\"0.0.0.0/0\"], tcp = [22] }, ")
        .good("management = [{ side = \"external\", from = [\"203.0.113.0/24\"], tcp = [22] }, "),
    case(
        rule::MANAGEMENT_MISSING,
        SINGLE,
        "management = [{ side = \"internal\", from = [\"10.10.0.0/16\"], tcp = [22] }]",
        "management = «[]",
    ),
    case(rule::MANAGEMENT_WRONG_SIDE, SINGLE, "side = \"internal\", from = [\"", "side = \"external\", from = [«\""),
    // Access and federation.
    case(rule::CHAIN_IS_KEY, SINGLE, "key = \"certs/access.key\"", "key = «\"certs/access.pem\""),
    case(rule::CERTIFICATE_TWICE, SCALED, "\"certs/access-rsa.pem\"", "«\"certs/access.pem\""),
    case(rule::PARTNER_TWICE, FEDERATION, "\"northwind.test\"", "«\"fabrikam.test\""),
    case(rule::PARTNER_BLOCKED, SINGLE, "blocked = [\"evil.test\"]", "blocked = [\"fabrikam.test\"]")
        .elsewhere("{ domain = «\"fabrikam.test\""),
    case(rule::BLOCKED_TWICE, SINGLE, "blocked = [\"evil.test\"]", "blocked = [\"evil.test\", «\"evil.test\"]"),
    case(rule::PARTNER_OURS, FEDERATION, "\"northwind.test\"", "«\"contoso.test\""),
    case(rule::BLOCKED_OURS, SINGLE, "\"evil.test\"", "«\"contoso.test\""),
    added(
        rule::FEDERATION_WITH_NOBODY,
        NAT,
        "partners = [{ domain = \"fabrikam.test\" }]",
        "enabled = true\npartners = [{ domain = \"fabrikam.test\" }]",
        "enabled = «true\npartners = []",
    ),
    case(rule::ACCESS_IDLE, FEDERATION, "[access.federation]\n", "[access.federation]\nenabled = false\n")
        .elsewhere("[«access]\nfqdn")
        .good("[access.federation]\nenabled = true\n"),
    case(rule::KEY_ON_BOTH_SIDES, SINGLE, "\"certs/access.key\"", "«\"certs/internal.key\""),
    case(rule::FQDN_OUTSIDE_DOMAINS, SINGLE, "\"sip.contoso.test\"", "«\"sip.contoso.example\""),
    added(
        rule::LIMIT_ORDER,
        SINGLE,
        "[webconf]\n",
        "[access.limits]\nconnections = 1000\nconnections_per_source = 1000\n[webconf]\n",
        "[access.limits]\nconnections = 1000\nconnections_per_source = «1001\n[webconf]\n",
    ),
    case(
        rule::PIN_INVALID,
        SINGLE,
        "{ domain = \"fabrikam.test\"",
        "{ pins = [«\"sha256/AAAA\"], domain = \"fabrikam.test\"",
    )
    .good("{ pins = [\"sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"], domain = \"fabrikam.test\""),
    case(
        rule::DEFAULT_ROUTE_ALONE,
        SINGLE,
        "[access.federation]\n",
        "[access.federation]\ndefault_route = { fqdn = \"edge.clearing.test\" }\nclearing_house = «true\n",
    )
    .good("[access.federation]\ndefault_route = { fqdn = \"edge.clearing.test\" }\n"),
    case(
        rule::PROVIDER_FQDN_TAKEN,
        SINGLE,
        "[access.federation]\n",
        "[access.federation]\nproviders = [{ name = \"P\", fqdn = «\"sip.northwind.test\" }]\n",
    )
    .good("[access.federation]\nproviders = [{ name = \"P\", fqdn = \"edge.provider.test\" }]\n"),
    case(
        rule::NOTICE_INVALID,
        SINGLE,
        "[access.federation]\n",
        "[access.federation]\narchiving_notice = «\"Route: <sip:x@y>\"\n",
    )
    .good("[access.federation]\narchiving_notice = \"X-Archived: yes\"\n"),
    added(
        rule::REVOCATION_UNFETCHED,
        SINGLE,
        "[access.federation]\n",
        "[access.federation]\nfetch_crls = true\nrevocation = \"soft\"\n",
        "[access.federation]\nfetch_crls = false\nrevocation = «\"soft\"\n",
    ),
    added(
        rule::QUEUE_SMALL,
        SINGLE,
        "[webconf]\n",
        "[access.limits]\nclient_queue = \"192 KiB\"\n[webconf]\n",
        "[access.limits]\nclient_queue = «\"191 KiB\"\n[webconf]\n",
    ),
    added(
        rule::LIMIT_ORDER,
        SINGLE,
        "[webconf]\n",
        "[access.limits]\nhandshakes = 100\nhandshakes_per_source = 100\n[webconf]\n",
        "[access.limits]\nhandshakes = 100\nhandshakes_per_source = «101\n[webconf]\n",
    ),
    added(
        rule::LIMIT_ORDER,
        SINGLE,
        "[av]\n",
        "[webconf.limits]\nhandshakes_per_source = 512\n[av]\n",
        "[webconf.limits]\nhandshakes_per_source = «513\n[av]\n",
    ),
    case(rule::PARTNER_FQDN_OURS, SINGLE, "\"sip.northwind.test\"", "«\"sip.contoso.test\""),
    added(
        rule::LIMIT_SMALL,
        SINGLE,
        "[webconf]\n",
        "[access.limits]\nhead = \"4 KiB\"\n[webconf]\n",
        "[access.limits]\nhead = «\"4095 B\"\n[webconf]\n",
    ),
    added(
        rule::LIMIT_LARGE,
        SINGLE,
        "[webconf]\n",
        "[access.limits]\nclient_queue = \"4 MiB\"\nhead = \"1 MiB\"\n[webconf]\n",
        "[access.limits]\nclient_queue = \"4 MiB\"\nhead = «\"2 MiB\"\n[webconf]\n",
    ),
    // Conferences.
    added(
        rule::POOL_ORDER,
        SINGLE,
        "[av]\n",
        "[webconf.limits]\npool_min = 512\n[av]\n",
        "[webconf.limits]\npool_min = «513\n[av]\n",
    ),
    added(
        rule::PREREAD_LARGE,
        SINGLE,
        "[av]\n",
        "[webconf.limits]\npreread = \"16 KiB\"\nrelay_buffer = \"16 KiB\"\n[av]\n",
        "[webconf.limits]\npreread = «\"17 KiB\"\nrelay_buffer = \"16 KiB\"\n[av]\n",
    ),
    added(
        rule::PREREAD_SMALL,
        SINGLE,
        "[webconf]\n",
        "[webconf]\npreface_keys = [\"join.pub\"]\nlimits = { preread = \"1 KiB\" }\n",
        "[webconf]\npreface_keys = [\"join.pub\"]\nlimits = { preread = «\"1023 B\" }\n",
    ),
    added(
        rule::NO_WAY_IN,
        SINGLE,
        "[webconf]\n",
        "[webconf]\nscan = true\n",
        "[webconf]\nscan = «false\n",
    ),
    added(
        rule::TOKENS_LONG,
        SINGLE,
        "[av]\n",
        "[webconf.limits]\ntoken_lifetime = \"24 h\"\n[av]\n",
        "[webconf.limits]\ntoken_lifetime = «\"25 h\"\n[av]\n",
    ),
    added(
        rule::ROLE_OF_NOBODY,
        SINGLE,
        "[webconf]\n",
        "[webconf]\nconference_agents = [\"mcu1.contoso.internal\"]\n",
        "[webconf]\nconference_agents = [«\"mcu2.contoso.internal\"]\n",
    ),
    // Audio and video.
    case(rule::AUTH_KEY_SHARED, SINGLE, "\"certs/av-auth.key\"", "«\"certs/av.key\""),
    case(rule::AUTH_TWICE, SCALED, "\"certs/av-auth-next.key\"", "«\"certs/av-auth.key\""),
    added(
        rule::PEER_ALLOW_INSIDE,
        SINGLE,
        "[av]\n",
        "[av]\npeer_allow = [\"10.11.0.0/16\"]\n",
        "[av]\npeer_allow = [«\"10.0.0.0/8\"]\n",
    ),
    added(
        rule::PEER_ALLOW_PUBLIC,
        SINGLE,
        "[av]\n",
        "[av]\npeer_allow = [\"100.64.0.0/10\"]\n",
        "[av]\npeer_allow = [«\"8.0.0.0/9\"]\n",
    ),
    added(
        rule::BAD_REALM,
        SINGLE,
        "[av]\n",
        "[av]\nrealm = \"contoso\"\n",
        "[av]\nrealm = «'con\"toso'\n",
    ),
    added(
        rule::TOKEN_LIFETIME,
        SINGLE,
        "[av]\n",
        "[av]\ntoken_lifetime_max = \"7 d\"\n",
        "[av]\ntoken_lifetime_max = «\"8 d\"\n",
    ),
    // Operation.
    case(rule::LAB_RANGE_PUBLIC, SINGLE, "\"203.0.113.0/24\"", "«\"203.0.112.0/24\""),
    case(rule::LAB_RANGE_INSIDE, SINGLE, "\"203.0.113.0/24\"", "«\"10.10.5.0/24\""),
    added(
        rule::LOG_TRACE,
        SINGLE,
        "[dns]\n",
        "[log]\nlevel = \"debug\"\n[dns]\n",
        "[log]\nlevel = «\"trace\"\n[dns]\n",
    ),
    added(
        rule::DIRECTORY_RELATIVE,
        SINGLE,
        "[dns]\n",
        "[state]\ndirectory = \"/srv/edge\"\n[dns]\n",
        "[state]\ndirectory = «\"srv/edge\"\n[dns]\n",
    ),
    added(
        rule::COLLECTOR_PLACE,
        SINGLE,
        "[dns]\n",
        "[access.hep]\ncollector = \"10.10.0.60\"\n[dns]\n",
        "[access.hep]\ncollector = «\"192.0.2.60\"\n[dns]\n",
    ),
    added(
        rule::COLLECTOR_PLACE,
        SINGLE,
        "[dns]\n",
        "[access.hep]\ncollector = \"10.10.0.11\"\n[dns]\n",
        "[access.hep]\ncollector = «\"10.10.0.10\"\n[dns]\n",
    ),
    added(
        rule::COLLECTOR_BODIES,
        SINGLE,
        "[dns]\n",
        "[access.hep]\ncollector = \"10.10.0.60\"\nbodies = false\n[dns]\n",
        "[access.hep]\ncollector = \"10.10.0.60\"\nbodies = «true\n[dns]\n",
    ),
];

#[test]
fn each_wrong_file_breaks_its_rule_and_its_neighbour_does_not() {
    let mut failed = Vec::new();
    for case in CASES {
        if let Err(why) = verdict(case) {
            failed.push(format!("{} {:?}: {why}", case.rule, case.bad));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn enough_rules_are_tried() {
    let severity = |id: RuleId| rule::lookup(id).expect("a rule").severity;
    let errors: BTreeSet<RuleId> = CASES
        .iter()
        .map(|case| case.rule)
        .filter(|id| severity(*id) == Severity::Error)
        .collect();
    assert!(errors.len() >= 60, "{} different errors", errors.len());

    // The rest needs no file, or another one than a changed value: `config_check` and `config_files` have those.
    let tried: BTreeSet<RuleId> = CASES.iter().map(|case| case.rule).collect();
    let rest: Vec<RuleId> = catalogue()
        .iter()
        .map(|rule| rule.id)
        .filter(|id| !tried.contains(id) && *id < rule::FILE_MISSING)
        .collect();
    let elsewhere = [
        rule::FILE_TOO_LARGE,
        rule::NOT_TAKEN,
        rule::NO_SERVICE,
        rule::NODE_UNKNOWN,
        rule::NODE_NEEDED,
        // Warned of in every example.
        rule::LAB,
    ];
    assert_eq!(rest, elsewhere);
}

fn verdict(case: &Case) -> Result<(), String> {
    let base = case.base.replacen(case.given.0, case.given.1, 1);
    if !base.contains(case.at) {
        return Err("the base does not hold what is changed".to_owned());
    }
    let good = base.replacen(case.at, case.good, 1);
    let marked = base.replacen(case.at, case.bad, 1);
    let bad = marked.replace(MARK, "");

    let neighbour = check(&good, Some("edge1"));
    if neighbour.config.is_none() {
        return Err(format!(
            "the neighbour is refused:\n{}",
            told(&neighbour.findings, &good)
        ));
    }
    let before: BTreeSet<RuleId> = neighbour
        .findings
        .iter()
        .map(|finding| finding.id)
        .collect();
    let checked = check(&bad, Some("edge1"));
    let new: Vec<&Finding> = checked
        .findings
        .iter()
        .filter(|finding| !before.contains(&finding.id))
        .collect();
    let [finding] = new[..] else {
        return Err(format!(
            "{} findings are new:\n{}",
            new.len(),
            told(&checked.findings, &bad)
        ));
    };
    let expected = place(case, &marked, &bad)?;
    if finding.id != case.rule || finding.place != Some(expected) {
        return Err(format!(
            "expected at {expected}:\n{}",
            finding.render("bad.toml", &bad)
        ));
    }
    if checked.config.is_none() != finding.is_error() {
        return Err("it is refused for a warning or taken with an error".to_owned());
    }
    Ok(())
}

fn place(case: &Case, marked: &str, bad: &str) -> Result<Place, String> {
    if case.elsewhere.is_empty() {
        let at = marked.find(MARK).ok_or("nothing is marked")?;
        return Ok(Place::of(marked, at));
    }
    let around = bad
        .find(&case.elsewhere.replace(MARK, ""))
        .ok_or("the place elsewhere is not in the file")?;
    let at = case.elsewhere.find(MARK).ok_or("nothing is marked")?;
    Ok(Place::of(bad, around + at))
}

fn told(findings: &[Finding], text: &str) -> String {
    findings
        .iter()
        .map(|finding| finding.render("file", text))
        .collect()
}

const MARK: char = '«';

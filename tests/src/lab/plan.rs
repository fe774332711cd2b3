//! The address plan: who has which name and address. One table, so that a picture, a rule and a
//! configuration cannot disagree.
//!
//! ```text
//!  homea 10.1.0.10 ─ nata 192.0.2.10 ─┐                         ┌ edge-c ext 198.51.100.10 .11 .12
//!  homeb 10.2.0.10 ─ natb 192.0.2.20 ─┤  inet      ┌ perimeter ─┘   │ int 10.10.0.10
//!  stranger 192.0.2.66 ───────────────┼─ router ───┘ 192.0.2.40     └ inside-c 10.10.0.50 Director
//!  northwind 192.0.2.77 ──────────────┘  DNS .53                                .53 DNS, .60 conference
//!                                          │
//!                                          └─ edge-f ext 203.0.113.10 .11 .12 │ int 10.20.0.10
//!                                                                             └ inside-f 10.20.0.50 …
//! ```
//!
//! Public addresses are documentation ranges (RFC 5737); homes and insides are private (RFC 1918).

/// One organisation with its edge host and its inside.
#[derive(Debug)]
pub struct Site {
    /// Short name, also the first label of its domains.
    pub name: &'static str,
    /// The SIP domain.
    pub domain: &'static str,
    /// The DNS domain of its inside servers.
    pub internal_domain: &'static str,
    /// External address of the Access Edge.
    pub access: &'static str,
    /// External address of the Web Conferencing Edge.
    pub webconf: &'static str,
    /// Public address of the A/V Edge, as the Internet sees it.
    pub av: &'static str,
    /// Router of the perimeter network.
    pub gateway: &'static str,
    /// Internal address of the edge host.
    pub internal: &'static str,
    /// What lies inside.
    pub internal_network: &'static str,
    /// Router of the inside, and a host from which administrators come.
    pub internal_gateway: &'static str,
    /// The Director.
    pub director: &'static str,
    /// The inside's name server.
    pub internal_dns: &'static str,
    /// The conference server and its agent.
    pub conference: &'static str,
    /// The edge hosts, one or several.
    pub members: &'static [Member],
    /// Users whom the Director knows, with their passwords.
    pub users: &'static [User],
}

/// One edge host.
#[derive(Debug)]
pub struct Member {
    /// Its label inside, and its name in the configuration.
    pub name: &'static str,
    /// Its number in tokens.
    pub id: u8,
    /// Its own external address of the Access Edge.
    pub access: &'static str,
    /// Its own external address of the Web Conferencing Edge.
    pub webconf: &'static str,
    /// Its own external address of the A/V Edge.
    pub av: &'static str,
    /// Its internal address.
    pub internal: &'static str,
}

/// Somebody whom a Director knows.
#[derive(Debug)]
pub struct User {
    /// User part of the SIP address.
    pub name: &'static str,
    /// Password for digest authentication.
    pub password: &'static str,
    /// What this user's phone plays, in hertz.
    pub tone: u32,
}

impl Site {
    /// `label.contoso.test`.
    #[must_use]
    pub fn public_name(&self, label: &str) -> String {
        format!("{label}.{}", self.domain)
    }

    /// `label.contoso.internal`.
    #[must_use]
    pub fn inside_name(&self, label: &str) -> String {
        format!("{label}.{}", self.internal_domain)
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&'static User> {
        self.users.iter().find(|user| user.name == name)
    }
}

/// The organisation whose remote users, calls and conferences the lab shows.
pub const CONTOSO: Site = Site {
    name: "contoso",
    domain: "contoso.test",
    internal_domain: "contoso.internal",
    access: "198.51.100.10",
    webconf: "198.51.100.11",
    av: "198.51.100.12",
    gateway: "198.51.100.1",
    internal: "10.10.0.10",
    internal_network: "10.10.0.0/16",
    internal_gateway: "10.10.0.1",
    director: "10.10.0.50",
    internal_dns: "10.10.0.53",
    conference: "10.10.0.60",
    members: &[Member {
        name: "edge1",
        id: 0,
        access: "198.51.100.10",
        webconf: "198.51.100.11",
        av: "198.51.100.12",
        internal: "10.10.0.10",
    }],
    users: CONTOSO_USERS,
};

const CONTOSO_USERS: &[User] = &[
    User {
        name: "alice",
        password: "alice-secret",
        tone: 440,
    },
    User {
        name: "bob",
        password: "bob-secret",
        tone: 880,
    },
];

/// The same organisation with two edge hosts behind a balancer on each side: what stands here as addresses of
/// its services are those of the balancers.
///
/// ```text
///                      perimeter: router and outside balancer 198.51.100.1 .5, VIPs .101 .102 .103
///                      ├ edge-c1 ext 198.51.100.11 .21 .31 │ int 10.10.0.11 ┐
///                      └ edge-c2 ext 198.51.100.12 .22 .32 │ int 10.10.0.12 ┴ inside-c: inside balancer
///                                                            10.10.0.5, VIPs .101 .103, Director .50, …
/// ```
pub const ARRAY: Site = Site {
    access: "198.51.100.101",
    webconf: "198.51.100.102",
    av: "198.51.100.103",
    internal: "10.10.0.101",
    members: &[
        Member {
            name: "edge1",
            id: 0,
            access: "198.51.100.11",
            webconf: "198.51.100.21",
            av: "198.51.100.31",
            internal: "10.10.0.11",
        },
        Member {
            name: "edge2",
            id: 1,
            access: "198.51.100.12",
            webconf: "198.51.100.22",
            av: "198.51.100.32",
            internal: "10.10.0.12",
        },
    ],
    ..CONTOSO
};
/// The inside balancer's address for the A/V Edge of the array.
pub const ARRAY_AV_INSIDE: &str = "10.10.0.103";
/// The address that the array's outside balancer speaks from.
pub const BALANCER_OUTSIDE: &str = "198.51.100.5";
/// The address that its inside balancer speaks from.
pub const BALANCER_INSIDE: &str = "10.10.0.5";

/// Its federation partner.
pub const FABRIKAM: Site = Site {
    name: "fabrikam",
    domain: "fabrikam.test",
    internal_domain: "fabrikam.internal",
    access: "203.0.113.10",
    webconf: "203.0.113.11",
    av: "203.0.113.12",
    gateway: "203.0.113.1",
    internal: "10.20.0.10",
    internal_network: "10.20.0.0/16",
    internal_gateway: "10.20.0.1",
    director: "10.20.0.50",
    internal_dns: "10.20.0.53",
    conference: "10.20.0.60",
    members: &[Member {
        name: "edge1",
        id: 0,
        access: "203.0.113.10",
        webconf: "203.0.113.11",
        av: "203.0.113.12",
        internal: "10.20.0.10",
    }],
    users: &[User {
        name: "carol",
        password: "carol-secret",
        tone: 660,
    }],
};

/// The domain whose certificate does not prove its From.
pub const NORTHWIND_DOMAIN: &str = "northwind.test";
/// Where northwind.test says that its edge is.
pub const NORTHWIND: &str = "192.0.2.77";
/// A host on the Internet that nobody has heard of.
pub const STRANGER: &str = "192.0.2.66";
/// The Internet's name server: root and every zone of the lab.
pub const INTERNET_DNS: &str = "192.0.2.53";
/// The Internet's router.
pub const INTERNET_ROUTER: &str = "192.0.2.1";
/// The router in front of contoso's edge; it holds the 1:1 NAT in that variant.
pub const PERIMETER: &str = "192.0.2.40";
/// The A/V address that contoso's edge itself holds when it stands behind the 1:1 NAT.
pub const AV_BEHIND_NAT: &str = "10.30.0.12";

/// IPv6 of the Internet: contoso's A/V Edge, its router, and the stranger (RFC 3849).
pub mod ipv6 {
    /// The A/V Edge of contoso.
    pub const AV: &str = "2001:db8:100::12";
    /// The router of contoso's perimeter network.
    pub const GATEWAY: &str = "2001:db8:100::1";
    /// That router on the Internet.
    pub const PERIMETER: &str = "2001:db8:2::40";
    /// The Internet's router.
    pub const ROUTER: &str = "2001:db8:2::1";
    /// The stranger.
    pub const STRANGER: &str = "2001:db8:2::66";
}

/// One home network behind its NAT.
#[derive(Debug)]
pub struct Home {
    /// Namespace of the home.
    pub name: &'static str,
    /// Namespace of its NAT.
    pub nat: &'static str,
    /// The phone's address.
    pub host: &'static str,
    /// The NAT's address inside the home.
    pub router: &'static str,
    /// The NAT's address on the Internet.
    pub public: &'static str,
}

/// Where alice is.
pub const HOME_A: Home = Home {
    name: "homea",
    nat: "nata",
    host: "10.1.0.10",
    router: "10.1.0.1",
    public: "192.0.2.10",
};

/// Where bob is.
pub const HOME_B: Home = Home {
    name: "homeb",
    nat: "natb",
    host: "10.2.0.10",
    router: "10.2.0.1",
    public: "192.0.2.20",
};

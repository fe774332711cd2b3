//! Addresses that are not simply someone on the Internet, and IPv6 addresses that hide an IPv4 one.
//!
//! [`classify`] looks an address up in IANA's registries of special-purpose addresses (RFC 6890 and what was added
//! since), completed by multicast and by what is reserved of the IPv6 space. [`unmasked`] gives an address and
//! every IPv4 address that some translator on the way may read out of it:
//!
//! ```text
//!  ::ffff:a.b.c.d           mapped                     RFC 4291 §2.5.5.2
//!  ::a.b.c.d                compatible, deprecated     RFC 4291 §2.5.5.1
//!  ::ffff:0:a.b.c.d         translated (SIIT)          RFC 2765 §2.1
//!  64:ff9b::a.b.c.d         NAT64, well-known          RFC 6052 §2.1
//!  64:ff9b:1:…              NAT64, local use           RFC 8215; a.b.c.d at one of the places of RFC 6052 §2.2
//!  2002:aabb:ccdd:…         6to4                       RFC 3056 §2
//!  2001:0:server:…:~client  Teredo                     RFC 4380 §4
//!  …:[02]00:5efe:a.b.c.d    ISATAP, under any prefix   RFC 5214 §6.1
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses with a purpose of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialRange {
    /// The addresses.
    pub network: IpNet,
    /// The registry's name for it.
    pub name: &'static str,
    /// Where that is laid down.
    pub source: &'static str,
    /// What kind of purpose.
    pub kind: Kind,
}

/// What kind of purpose a range has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Someone's own network; may stand behind a translator.
    Private,
    /// The host itself or its link.
    Local,
    /// Many hosts at once.
    Multicast,
    /// For documents and measurements.
    Example,
    /// A protocol's own addresses, some reached globally.
    Protocol,
    /// An IPv4 address in the form of an IPv6 one.
    Embedded,
    /// Not given to anyone.
    Reserved,
}

/// The narrowest special-purpose range around `address`; `None` for the public addresses of hosts.
///
/// An IPv6 address that hides an IPv4 one is in the range of its form; see [`unmasked`] for what it hides.
#[must_use]
pub fn classify(address: IpAddr) -> Option<&'static SpecialRange> {
    let rows = match address {
        IpAddr::V4(_) => IPV4,
        IpAddr::V6(_) => IPV6,
    };
    rows.iter()
        .filter(|row| row.network.contains(&address))
        .max_by_key(|row| row.network.prefix_len())
}

/// Says whether hosts anywhere on the Internet reach `address`, in every reading of it.
///
/// Ranges in `treated` count as public; only a lab has any.
#[must_use]
pub fn is_public(address: IpAddr, treated: &[IpNet]) -> bool {
    unmasked(address)
        .all(|read| treated.iter().any(|range| range.contains(&read)) || classify(read).is_none())
}

/// Every special-purpose range, the IPv4 ones first.
pub fn all() -> impl Iterator<Item = &'static SpecialRange> {
    IPV4.iter().chain(IPV6)
}

/// `address` itself and every IPv4 address hidden in it, by whatever form it could be read.
#[must_use]
pub fn unmasked(address: IpAddr) -> Unmasked {
    let mut found = Unmasked {
        addresses: [address; UNMASKED_MAX],
        len: 1,
        next: 0,
    };
    if let IpAddr::V6(v6) = address {
        hidden(v6.octets(), |v4| found.push(v4));
    }
    found
}

/// The addresses that [`unmasked`] found.
#[derive(Clone, Debug)]
pub struct Unmasked {
    addresses: [IpAddr; UNMASKED_MAX],
    len: usize,
    next: usize,
}

impl Unmasked {
    fn push(&mut self, v4: Ipv4Addr) {
        self.addresses[self.len] = IpAddr::V4(v4);
        self.len += 1;
    }
}

impl Iterator for Unmasked {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        let address = self.addresses[..self.len].get(self.next).copied()?;
        self.next += 1;
        Some(address)
    }
}

/// Itself, four readings of a NAT64 address of local use, and ISATAP's.
const UNMASKED_MAX: usize = 6;

fn hidden(octets: [u8; 16], mut tell: impl FnMut(Ipv4Addr)) {
    let mut at = |places: [usize; 4]| tell(Ipv4Addr::from(places.map(|place| octets[place])));
    match octets {
        // Mapped, compatible, translated, NAT64: the last 32 bits.
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, ..]
        | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, ..] => at(LAST),
        // The translator's own prefix is a /48, /56, /64 or /96 of this one; octet 8 is never part of the address.
        [0, 0x64, 0xff, 0x9b, 0, 1, ..] => {
            for places in [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], LAST] {
                at(places);
            }
        }
        [0x20, 0x02, ..] => at([2, 3, 4, 5]),
        [0x20, 0x01, 0, 0, ..] => {
            at([4, 5, 6, 7]);
            // The client's address is sent with every bit flipped, so that no translator rewrites it.
            tell(Ipv4Addr::from(LAST.map(|place| !octets[place])));
        }
        _ => {}
    }
    if let [_, _, _, _, _, _, _, _, 0 | 2, 0, 0x5e, 0xfe, a, b, c, d] = octets {
        tell(Ipv4Addr::new(a, b, c, d));
    }
}

const LAST: [usize; 4] = [12, 13, 14, 15];

/// IANA IPv4 Special-Purpose Address Registry, and multicast.
const IPV4: &[SpecialRange] = &[
    v4([0, 0, 0, 0], 8, "This network", "RFC 791", Kind::Local),
    v4([10, 0, 0, 0], 8, "Private-Use", "RFC 1918", Kind::Private),
    v4(
        [100, 64, 0, 0],
        10,
        "Shared Address Space",
        "RFC 6598",
        Kind::Private,
    ),
    v4([127, 0, 0, 0], 8, "Loopback", "RFC 1122", Kind::Local),
    v4([169, 254, 0, 0], 16, "Link Local", "RFC 3927", Kind::Local),
    v4(
        [172, 16, 0, 0],
        12,
        "Private-Use",
        "RFC 1918",
        Kind::Private,
    ),
    v4(
        [192, 0, 0, 0],
        24,
        "IETF Protocol Assignments",
        "RFC 6890",
        Kind::Protocol,
    ),
    v4(
        [192, 0, 0, 0],
        29,
        "IPv4 Service Continuity Prefix",
        "RFC 7335",
        Kind::Protocol,
    ),
    v4(
        [192, 0, 0, 8],
        32,
        "IPv4 dummy address",
        "RFC 7600",
        Kind::Protocol,
    ),
    v4(
        [192, 0, 0, 9],
        32,
        "Port Control Protocol Anycast",
        "RFC 7723",
        Kind::Protocol,
    ),
    v4(
        [192, 0, 0, 10],
        32,
        "Traversal Using Relays around NAT Anycast",
        "RFC 8155",
        Kind::Protocol,
    ),
    v4(
        [192, 0, 0, 170],
        31,
        "NAT64/DNS64 Discovery",
        "RFC 8880",
        Kind::Protocol,
    ),
    v4(
        [192, 0, 2, 0],
        24,
        "Documentation (TEST-NET-1)",
        "RFC 5737",
        Kind::Example,
    ),
    v4(
        [192, 31, 196, 0],
        24,
        "AS112-v4",
        "RFC 7535",
        Kind::Protocol,
    ),
    v4([192, 52, 193, 0], 24, "AMT", "RFC 7450", Kind::Protocol),
    v4(
        [192, 88, 99, 0],
        24,
        "Deprecated (6to4 Relay Anycast)",
        "RFC 7526",
        Kind::Protocol,
    ),
    v4(
        [192, 88, 99, 2],
        32,
        "6a44-relay anycast address",
        "RFC 6751",
        Kind::Protocol,
    ),
    v4(
        [192, 168, 0, 0],
        16,
        "Private-Use",
        "RFC 1918",
        Kind::Private,
    ),
    v4(
        [192, 175, 48, 0],
        24,
        "Direct Delegation AS112 Service",
        "RFC 7534",
        Kind::Protocol,
    ),
    v4(
        [198, 18, 0, 0],
        15,
        "Benchmarking",
        "RFC 2544",
        Kind::Example,
    ),
    v4(
        [198, 51, 100, 0],
        24,
        "Documentation (TEST-NET-2)",
        "RFC 5737",
        Kind::Example,
    ),
    v4(
        [203, 0, 113, 0],
        24,
        "Documentation (TEST-NET-3)",
        "RFC 5737",
        Kind::Example,
    ),
    v4([224, 0, 0, 0], 4, "Multicast", "RFC 5771", Kind::Multicast),
    v4([240, 0, 0, 0], 4, "Reserved", "RFC 1112", Kind::Reserved),
    v4(
        [255, 255, 255, 255],
        32,
        "Limited Broadcast",
        "RFC 919",
        Kind::Local,
    ),
];

/// IANA IPv6 Special-Purpose Address Registry, multicast, the forms that hide IPv4, and what is no global unicast.
const IPV6: &[SpecialRange] = &[
    v6(
        [0, 0, 0, 0, 0, 0, 0, 0],
        8,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0, 0, 0, 0, 0, 0, 0, 0],
        96,
        "IPv4-compatible Address",
        "RFC 4291",
        Kind::Embedded,
    ),
    v6(
        [0, 0, 0, 0, 0, 0, 0, 0],
        128,
        "Unspecified Address",
        "RFC 4291",
        Kind::Local,
    ),
    v6(
        [0, 0, 0, 0, 0, 0, 0, 1],
        128,
        "Loopback Address",
        "RFC 4291",
        Kind::Local,
    ),
    v6(
        [0, 0, 0, 0, 0, 0xffff, 0, 0],
        96,
        "IPv4-mapped Address",
        "RFC 4291",
        Kind::Embedded,
    ),
    v6(
        [0, 0, 0, 0, 0xffff, 0, 0, 0],
        96,
        "IPv4-translated Address",
        "RFC 2765",
        Kind::Embedded,
    ),
    v6(
        [0x64, 0xff9b, 0, 0, 0, 0, 0, 0],
        96,
        "IPv4-IPv6 Translat.",
        "RFC 6052",
        Kind::Embedded,
    ),
    v6(
        [0x64, 0xff9b, 1, 0, 0, 0, 0, 0],
        48,
        "IPv4-IPv6 Translat. (local use)",
        "RFC 8215",
        Kind::Embedded,
    ),
    v6(
        [0x100, 0, 0, 0, 0, 0, 0, 0],
        8,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0x100, 0, 0, 0, 0, 0, 0, 0],
        64,
        "Discard-Only Address Block",
        "RFC 6666",
        Kind::Protocol,
    ),
    v6(
        [0x100, 0, 0, 1, 0, 0, 0, 0],
        64,
        "Dummy IPv6 Prefix",
        "RFC 9780",
        Kind::Protocol,
    ),
    v6(
        [0x200, 0, 0, 0, 0, 0, 0, 0],
        7,
        "Reserved by IETF",
        "RFC 4048",
        Kind::Reserved,
    ),
    v6(
        [0x400, 0, 0, 0, 0, 0, 0, 0],
        6,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0x800, 0, 0, 0, 0, 0, 0, 0],
        5,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0x1000, 0, 0, 0, 0, 0, 0, 0],
        4,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0x2001, 0, 0, 0, 0, 0, 0, 0],
        23,
        "IETF Protocol Assignments",
        "RFC 2928",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 0, 0, 0, 0, 0, 0, 0],
        32,
        "TEREDO",
        "RFC 4380",
        Kind::Embedded,
    ),
    v6(
        [0x2001, 1, 0, 0, 0, 0, 0, 1],
        128,
        "Port Control Protocol Anycast",
        "RFC 7723",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 1, 0, 0, 0, 0, 0, 2],
        128,
        "Traversal Using Relays around NAT Anycast",
        "RFC 8155",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 1, 0, 0, 0, 0, 0, 3],
        128,
        "DNS-SD Service Registration Protocol Anycast",
        "RFC 9665",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 2, 0, 0, 0, 0, 0, 0],
        48,
        "Benchmarking",
        "RFC 5180",
        Kind::Example,
    ),
    v6(
        [0x2001, 3, 0, 0, 0, 0, 0, 0],
        32,
        "AMT",
        "RFC 7450",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 4, 0x112, 0, 0, 0, 0, 0],
        48,
        "AS112-v6",
        "RFC 7535",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 0x10, 0, 0, 0, 0, 0, 0],
        28,
        "Deprecated (ORCHID)",
        "RFC 4843",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 0x20, 0, 0, 0, 0, 0, 0],
        28,
        "ORCHIDv2",
        "RFC 7343",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 0x30, 0, 0, 0, 0, 0, 0],
        28,
        "Drone Remote ID Protocol Entity Tags",
        "RFC 9374",
        Kind::Protocol,
    ),
    v6(
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0],
        32,
        "Documentation",
        "RFC 3849",
        Kind::Example,
    ),
    v6(
        [0x2002, 0, 0, 0, 0, 0, 0, 0],
        16,
        "6to4",
        "RFC 3056",
        Kind::Embedded,
    ),
    v6(
        [0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0],
        48,
        "Direct Delegation AS112 Service",
        "RFC 7534",
        Kind::Protocol,
    ),
    v6(
        [0x3fff, 0, 0, 0, 0, 0, 0, 0],
        20,
        "Documentation",
        "RFC 9637",
        Kind::Example,
    ),
    v6(
        [0x4000, 0, 0, 0, 0, 0, 0, 0],
        3,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0x5f00, 0, 0, 0, 0, 0, 0, 0],
        16,
        "Segment Routing (SRv6) SIDs",
        "RFC 9602",
        Kind::Protocol,
    ),
    v6(
        [0x6000, 0, 0, 0, 0, 0, 0, 0],
        3,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0x8000, 0, 0, 0, 0, 0, 0, 0],
        3,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0xa000, 0, 0, 0, 0, 0, 0, 0],
        3,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0xc000, 0, 0, 0, 0, 0, 0, 0],
        3,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0xe000, 0, 0, 0, 0, 0, 0, 0],
        4,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0xf000, 0, 0, 0, 0, 0, 0, 0],
        5,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0xf800, 0, 0, 0, 0, 0, 0, 0],
        6,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0xfc00, 0, 0, 0, 0, 0, 0, 0],
        7,
        "Unique-Local",
        "RFC 4193",
        Kind::Private,
    ),
    v6(
        [0xfe00, 0, 0, 0, 0, 0, 0, 0],
        9,
        "Reserved by IETF",
        "RFC 4291",
        Kind::Reserved,
    ),
    v6(
        [0xfe80, 0, 0, 0, 0, 0, 0, 0],
        10,
        "Link-Local Unicast",
        "RFC 4291",
        Kind::Local,
    ),
    v6(
        [0xfec0, 0, 0, 0, 0, 0, 0, 0],
        10,
        "Deprecated (Site-Local Unicast)",
        "RFC 3879",
        Kind::Private,
    ),
    v6(
        [0xff00, 0, 0, 0, 0, 0, 0, 0],
        8,
        "Multicast",
        "RFC 4291",
        Kind::Multicast,
    ),
];

const fn v4(
    octets: [u8; 4],
    prefix: u8,
    name: &'static str,
    source: &'static str,
    kind: Kind,
) -> SpecialRange {
    let [a, b, c, d] = octets;
    let network = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix));
    SpecialRange {
        network,
        name,
        source,
        kind,
    }
}

const fn v6(
    groups: [u16; 8],
    prefix: u8,
    name: &'static str,
    source: &'static str,
    kind: Kind,
) -> SpecialRange {
    let [a, b, c, d, e, f, g, h] = groups;
    let network = IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, e, f, g, h),
        prefix,
    ));
    SpecialRange {
        network,
        name,
        source,
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    /// The address with this number in the family of `like`.
    fn address(like: IpAddr, number: u128) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => u32::try_from(number)
                .ok()
                .map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
            IpAddr::V6(_) => Some(IpAddr::V6(Ipv6Addr::from(number))),
        }
    }

    /// The slow way: whether the bits in front agree.
    fn inside(row: &SpecialRange, candidate: IpAddr) -> bool {
        if candidate.is_ipv4() != row.network.addr().is_ipv4() {
            return false;
        }
        let bits = if candidate.is_ipv4() { 32 } else { 128 };
        let shift = bits - u32::from(row.network.prefix_len());
        number(candidate).checked_shr(shift) == number(row.network.addr()).checked_shr(shift)
    }

    #[test]
    fn first_middle_last_and_both_neighbours_of_every_row() {
        for row in all() {
            let (first, last) = (row.network.network(), row.network.broadcast());
            let middle = number(first) + (number(last) - number(first)) / 2;
            let inner = [Some(first), address(first, middle), Some(last)];
            for candidate in inner.into_iter().flatten() {
                let found = classify(candidate).expect("a special address");
                let narrower = found.network.prefix_len() > row.network.prefix_len();
                assert!(
                    found == row || narrower,
                    "{candidate} is in {} and not in {}",
                    found.name,
                    row.name
                );
                assert!(inside(found, candidate));
            }
            let before = number(first).checked_sub(1).and_then(|n| address(first, n));
            let after = number(last).checked_add(1).and_then(|n| address(last, n));
            for neighbour in before.into_iter().chain(after) {
                assert_ne!(
                    classify(neighbour),
                    Some(row),
                    "{neighbour} is beside {}",
                    row.name
                );
                let slow = all()
                    .filter(|other| inside(other, neighbour))
                    .max_by_key(|other| other.network.prefix_len());
                assert_eq!(classify(neighbour), slow, "{neighbour}");
            }
        }
    }

    #[test]
    fn every_row_is_the_answer_for_its_own_first_address_or_a_narrower_one_is() {
        for row in all() {
            assert_eq!(
                row.network.addr(),
                row.network.network(),
                "{} has bits behind its prefix",
                row.name
            );
            let twins = all().filter(|other| other.network == row.network).count();
            assert_eq!(twins, 1, "{} is there twice", row.network);
        }
    }

    #[test]
    fn known_addresses() {
        for (text, name) in [
            ("10.1.2.3", "Private-Use"),
            ("172.31.255.255", "Private-Use"),
            ("192.168.0.1", "Private-Use"),
            ("100.127.255.255", "Shared Address Space"),
            ("169.254.169.254", "Link Local"),
            ("192.0.0.9", "Port Control Protocol Anycast"),
            ("192.0.0.171", "NAT64/DNS64 Discovery"),
            ("198.19.255.255", "Benchmarking"),
            ("239.255.255.250", "Multicast"),
            ("255.255.255.255", "Limited Broadcast"),
            ("::1", "Loopback Address"),
            ("::", "Unspecified Address"),
            ("fd00::1", "Unique-Local"),
            ("fe80::1", "Link-Local Unicast"),
            ("ff02::1", "Multicast"),
            ("2001:db8::1", "Documentation"),
            ("3fff:fff::1", "Documentation"),
            ("5f00::1", "Segment Routing (SRv6) SIDs"),
            ("5e00::1", "Reserved by IETF"),
        ] {
            assert_eq!(classify(ip(text)).map(|row| row.name), Some(name), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "100.128.0.0",
            "172.32.0.0",
            "192.0.1.0",
            "223.255.255.255",
        ] {
            assert_eq!(classify(ip(text)), None, "{text}");
        }
        for text in [
            "2000::1",
            "2001:200::1",
            "2600::1",
            "2a00:1450::1",
            "3ffe:ffff::1",
        ] {
            assert_eq!(classify(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn every_disguise_gives_what_it_hides() {
        let hidden = |text: &str| {
            unmasked(ip(text))
                .skip(1)
                .map(|found| found.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(hidden("::ffff:10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(hidden("::10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(hidden("::ffff:0:10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(hidden("64:ff9b::10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(hidden("2002:a00:1::1"), ["10.0.0.1"]);
        // Server 192.0.2.1, client 10.0.0.1 with its bits flipped.
        assert_eq!(
            hidden("2001:0:c000:201:0:ffff:f5ff:fffe"),
            ["192.0.2.1", "10.0.0.1"]
        );
        assert_eq!(hidden("2a00:1450::5efe:10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(hidden("2a00:1450::200:5efe:10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(hidden("2a00:1450::100:5efe:10.0.0.1"), [""; 0]);
        assert_eq!(
            hidden("2002:a00:1::5efe:10.0.0.2"),
            ["10.0.0.1", "10.0.0.2"]
        );
        assert_eq!(hidden("2a00:1450::1"), [""; 0]);
        assert_eq!(hidden("10.0.0.1"), [""; 0]);
    }

    #[test]
    fn local_use_nat64_is_read_at_each_place_of_rfc_6052() {
        for disguise in [
            // /48: 16 bits, octet 8, 16 bits.
            "64:ff9b:1:a00:0:100::",
            // /56: 8 bits, octet 8, 24 bits.
            "64:ff9b:1:aa0a:0:1::",
            // /64: all behind octet 8.
            "64:ff9b:1:aabb:a:0:100:0",
            // /96: the last 32 bits.
            "64:ff9b:1::10.0.0.1",
        ] {
            assert!(
                unmasked(ip(disguise)).any(|found| found == ip("10.0.0.1")),
                "{disguise}"
            );
        }
    }

    #[test]
    fn every_disguise_is_special_by_itself_apart_from_isatap() {
        for text in [
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "2002::1",
            "2001::1",
        ] {
            assert_eq!(
                classify(ip(text)).map(|row| row.kind),
                Some(Kind::Embedded),
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn the_table_agrees_with_the_slow_way(bits: u128, v4: u32) {
            for candidate in [IpAddr::V6(Ipv6Addr::from(bits)), IpAddr::V4(Ipv4Addr::from(v4))] {
                let slow = all().filter(|row| inside(row, candidate)).max_by_key(|row| row.network.prefix_len());
                proptest::prop_assert_eq!(classify(candidate), slow);
                proptest::prop_assert_eq!(unmasked(candidate).next(), Some(candidate));
                proptest::prop_assert!(unmasked(candidate).skip(1).all(|found| found.is_ipv4()));
            }
        }
    }
}

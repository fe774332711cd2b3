//! Which peers may be reached through a relayed address, and the two names of an address behind a 1:1 NAT.
//!
//! A relayed packet leaves on the external interface only. In this order:
//!
//! 1. one of our relay addresses: a hairpin, which never leaves the process;
//! 2. any other address of any member, and what lies inside: refused, whatever the configuration says;
//! 3. `peer_allow`, and in a lab what counts as public there: allowed;
//! 4. any other special-purpose range: refused;
//! 5. what is left is the Internet: allowed unless the relay mode keeps UDP from leaving.
//!
//! An IPv6 address that hides an IPv4 address is judged by both, and the worse verdict counts.

use std::net::{IpAddr, SocketAddr};

use edge_common::config::{Av, Config, RelayMode};
use edge_common::peer_range;
use ipnet::IpNet;

use super::relayed::{Family, FamilyPair};

/// What the configuration says about peers.
#[derive(Clone, Debug)]
pub struct PeerPolicy {
    /// Own addresses from which packets leave, one of each family at most.
    pub relays: FamilyPair<Option<IpAddr>>,
    /// What the world sees in place of the relay address of the same family.
    pub public: Option<IpAddr>,
    /// Our hosts and what lies inside.
    pub ours: Vec<IpNet>,
    /// Special-purpose ranges that are reached all the same.
    pub allowed: Vec<IpNet>,
    /// Whether the relay mode lets UDP out.
    pub udp_leaves: bool,
}

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// To one of our own relay addresses, in memory.
    Hairpin,
    /// Out of the external interface.
    Outside,
    /// None.
    Refused(Forbidden),
}

/// Why there is no way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// An address of this edge or of another member.
    Own,
    /// It lies inside.
    Internal,
    /// A range with a special purpose that nothing allows.
    SpecialPurpose,
    /// The relay mode lets no UDP out.
    RelayMode,
}

impl PeerPolicy {
    /// Reads what the configuration says; the checked configuration has at most one relay address in use per family:
    /// the first of the member's A/V addresses.
    #[must_use]
    pub fn new(config: &Config, av: &Av) -> Self {
        let local = config.local();
        let relay = |family| {
            local
                .external
                .av
                .iter()
                .copied()
                .find(|&ip| Family::of(ip) == family)
        };
        let hosts = config
            .members
            .iter()
            .flat_map(|member| member.external.ips().chain(member.internal.ips()));
        let mut ours: Vec<IpNet> = hosts.map(IpNet::from).collect();
        let (outside, inside) = (&config.array.vips.external, &config.array.vips.internal);
        for vips in [
            &outside.access,
            &outside.webconf,
            &outside.av,
            &inside.access,
            &inside.av,
        ] {
            ours.extend(vips.iter().copied().map(IpNet::from));
        }
        ours.extend(av.public_address.map(IpNet::from));
        ours.extend(&config.internal.networks);
        let lab = config.lab.iter().flat_map(|lab| &lab.treat_as_public);
        Self {
            relays: FamilyPair::from_fn(relay),
            public: av.public_address,
            ours,
            allowed: av.peer_allow.iter().chain(lab).copied().collect(),
            udp_leaves: match av.relay_mode {
                RelayMode::Open | RelayMode::PreR2 => true,
                RelayMode::TcpOut | RelayMode::Closed => false,
            },
        }
    }

    /// The address that relayed packets of `family` leave from, as the interface has it.
    #[must_use]
    pub fn relay_address(&self, family: Family) -> Option<IpAddr> {
        self.relays[family]
    }

    /// The way to `peer`, which is an address as [`PeerPolicy::inward`] gives it.
    #[must_use]
    pub fn judge(&self, peer: IpAddr) -> Leg {
        if self.relays[Family::of(peer)] == Some(peer) {
            return Leg::Hairpin;
        }
        match peer_range::unmasked(peer).find_map(|meaning| self.forbids(meaning)) {
            Some(forbidden) => Leg::Refused(forbidden),
            None if self.udp_leaves => Leg::Outside,
            None => Leg::Refused(Forbidden::RelayMode),
        }
    }

    fn forbids(&self, peer: IpAddr) -> Option<Forbidden> {
        if let Some(range) = self.ours.iter().find(|range| range.contains(&peer)) {
            let single = range.prefix_len() == range.max_prefix_len();
            return Some(if single {
                Forbidden::Own
            } else {
                Forbidden::Internal
            });
        }
        if self.allowed.iter().any(|range| range.contains(&peer)) {
            return None;
        }
        peer_range::classify(peer).map(|_| Forbidden::SpecialPurpose)
    }

    /// An address as clients and peers name it, turned into the one that the interface has.
    #[must_use]
    pub fn inward(&self, address: SocketAddr) -> SocketAddr {
        match (self.public, self.relays[Family::of(address.ip())]) {
            (Some(public), Some(relay)) if public == address.ip() => {
                SocketAddr::new(relay, address.port())
            }
            _ => address,
        }
    }

    /// The reverse of [`PeerPolicy::inward`]: what a client has to be told.
    #[must_use]
    pub fn outward(&self, address: SocketAddr) -> SocketAddr {
        match (self.public, self.relays[Family::of(address.ip())]) {
            (Some(public), Some(relay))
                if relay == address.ip() && Family::of(public) == Family::of(relay) =>
            {
                SocketAddr::new(public, address.port())
            }
            _ => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PeerPolicy {
        let net = |text: &str| text.parse().expect("a network");
        PeerPolicy {
            relays: FamilyPair {
                v4: Some(ip("198.51.100.12")),
                v6: Some(ip("2001:db8:100::10")),
            },
            public: None,
            ours: [
                "198.51.100.12/32",
                "198.51.100.10/32",
                "10.10.0.10/32",
                "10.10.0.0/16",
                "44.0.0.0/8",
                "2001:db8:100::10/128",
            ]
            .map(net)
            .to_vec(),
            allowed: ["203.0.113.0/24", "192.168.7.0/24", "198.51.100.0/24"]
                .map(net)
                .to_vec(),
            udp_leaves: true,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_form_of_an_inside_address_is_refused() {
        let hidden = [
            "10.10.3.4",
            "::ffff:10.10.3.4",
            "::10.10.3.4",
            "::ffff:0:10.10.3.4",
            "64:ff9b::10.10.3.4",
            "64:ff9b:1:a0a:3:400::",
            "2002:a0a:304::1",
            "2001:0:4136:e378:8000:63bf:f5f5:fcfb",
            "2001:db8::5efe:10.10.3.4",
        ];
        for address in hidden {
            assert!(
                matches!(policy().judge(ip(address)), Leg::Refused(_)),
                "{address}"
            );
        }
        assert_eq!(
            policy().judge(ip("10.10.3.4")),
            Leg::Refused(Forbidden::Internal)
        );
        // Inside is inside, whatever the registry says of the range.
        assert_eq!(
            policy().judge(ip("44.1.2.3")),
            Leg::Refused(Forbidden::Internal)
        );
    }

    #[test]
    fn own_addresses_are_refused_but_for_those_that_relay() {
        assert_eq!(policy().judge(ip("198.51.100.12")), Leg::Hairpin);
        assert_eq!(policy().judge(ip("2001:db8:100::10")), Leg::Hairpin);
        // The list of what is allowed names its range, and does not reach our own host.
        assert_eq!(
            policy().judge(ip("198.51.100.10")),
            Leg::Refused(Forbidden::Own)
        );
        assert!(matches!(
            policy().judge(ip("::ffff:198.51.100.12")),
            Leg::Refused(_)
        ));
    }

    #[test]
    fn special_purpose_ranges_need_permission_and_the_internet_does_not() {
        for address in [
            "192.168.8.1",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
        ] {
            assert_eq!(
                policy().judge(ip(address)),
                Leg::Refused(Forbidden::SpecialPurpose),
                "{address}"
            );
        }
        for address in ["192.168.7.1", "203.0.113.9", "9.9.9.9", "2620:fe::fe"] {
            assert_eq!(policy().judge(ip(address)), Leg::Outside, "{address}");
        }
        let closed = PeerPolicy {
            udp_leaves: false,
            ..policy()
        };
        assert_eq!(
            closed.judge(ip("9.9.9.9")),
            Leg::Refused(Forbidden::RelayMode)
        );
        assert_eq!(closed.judge(ip("198.51.100.12")), Leg::Hairpin);
    }

    #[test]
    fn the_public_address_and_the_local_one_are_one_host() {
        let policy = PeerPolicy {
            public: Some(ip("192.0.2.77")),
            ..policy()
        };
        let (local, public): (SocketAddr, SocketAddr) = (
            "198.51.100.12:50000".parse().expect("an address"),
            "192.0.2.77:50000".parse().expect("an address"),
        );
        assert_eq!(
            (policy.inward(public), policy.outward(local)),
            (local, public)
        );
        assert_eq!(
            (policy.inward(local), policy.outward(public)),
            (local, public)
        );
        let six: SocketAddr = "[2001:db8:100::10]:50000".parse().expect("an address");
        assert_eq!(
            (policy.inward(six), policy.outward(six)),
            (six, six),
            "the NAT is for IPv4"
        );
    }
}

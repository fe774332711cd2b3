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

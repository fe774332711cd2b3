//! The relayed address of an allocation, kept as family and port: each family has one address.

use std::net::IpAddr;

use crate::stun::attribute::{FAMILY_IPV4, FAMILY_IPV6};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Names an allocation by what its peers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relayed {
    /// Which of the two relay addresses.
    pub family: Family,
    /// The relay port.
    pub port: u16,
}

/// One `T` for each family.
#[derive(Clone, Debug, Default)]
pub struct FamilyPair<T> {
    /// Of IPv4.
    pub v4: T,
    /// Of IPv6.
    pub v6: T,
}

impl Family {
    /// Both, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family that REQUESTED-ADDRESS-FAMILY asks for (RFC 8656 §18.6).
    #[must_use]
    pub const fn from_wire(octet: u8) -> Option<Self> {
        match octet {
            FAMILY_IPV4 => Some(Self::V4),
            FAMILY_IPV6 => Some(Self::V6),
            _ => None,
        }
    }
}

impl<T> FamilyPair<T> {
    /// Makes one `T` per family.
    pub fn from_fn(mut make: impl FnMut(Family) -> T) -> Self {
        Self {
            v4: make(Family::V4),
            v6: make(Family::V6),
        }
    }
}

impl<T> std::ops::Index<Family> for FamilyPair<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> std::ops::IndexMut<Family> for FamilyPair<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

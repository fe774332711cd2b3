//! The UDP sockets of a core: those that clients reach, and one for each allocation.

use std::net::UdpSocket;
use std::sync::Arc;

use edge_common::net::bind::{Bind, BindError};

use crate::turn::five_tuple::ListenerId;
use crate::turn::port_pool::PortPool;
use crate::turn::relayed::{Family, FamilyPair, Relayed};

/// Names a socket of this core; fits the 64 bits that epoll keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketId {
    /// Clients send here.
    Listener(ListenerId),
    /// Peers send here.
    Relayed(Relayed),
}

/// The sockets themselves.
#[derive(Debug)]
pub struct Sockets {
    listeners: Vec<Option<UdpSocket>>,
    relayed: FamilyPair<Vec<Option<UdpSocket>>>,
    ports: Arc<FamilyPair<PortPool>>,
}

impl SocketId {
    /// The kind in bits 24 to 31, the family in 16 to 23, the port below.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Listener(id) => id.0 as u64,
            Self::Relayed(Relayed {
                family: Family::V4,
                port,
            }) => RELAYED_V4 | port as u64,
            Self::Relayed(Relayed {
                family: Family::V6,
                port,
            }) => RELAYED_V6 | port as u64,
        }
    }

    /// The reverse of [`SocketId::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let low = bits & 0xFFFF;
        match bits - low {
            0 => Some(Self::Listener(ListenerId(low as u8))),
            RELAYED_V4 => Some(Self::Relayed(Relayed {
                family: Family::V4,
                port: low as u16,
            })),
            RELAYED_V6 => Some(Self::Relayed(Relayed {
                family: Family::V6,
                port: low as u16,
            })),
            _ => None,
        }
    }
}

impl Sockets {
    /// Takes the sockets that clients reach, in the order of their [`ListenerId`]; TCP listeners have none here.
    #[must_use]
    pub fn new(listeners: Vec<Option<UdpSocket>>, ports: Arc<FamilyPair<PortPool>>) -> Self {
        let relayed =
            FamilyPair::from_fn(|family| (0..ports[family].len()).map(|_| None).collect());
        Self {
            listeners,
            relayed,
            ports,
        }
    }

    /// Those that clients reach.
    pub fn listeners<'a>(&'a self) -> impl Iterator<Item = (ListenerId, &'a UdpSocket)> {
        let named = |(index, socket): (usize, &'a Option<UdpSocket>)| {
            Some((ListenerId(index as u8), socket.as_ref()?))
        };
        self.listeners.iter().enumerate().filter_map(named)
    }

    /// Opens a relayed socket; nobody else on the host can have its address.
    pub fn open(&mut self, relayed: Relayed, bind: &Bind) -> Result<&UdpSocket, BindError> {
        let socket = bind.udp_socket()?;
        let index = self.ports[relayed.family].index(relayed.port).unwrap_or(0);
        Ok(self.relayed[relayed.family][index].insert(socket))
    }

    /// Takes a relayed socket away; dropping it closes it.
    pub fn close(&mut self, relayed: Relayed) -> Option<UdpSocket> {
        let index = self.ports[relayed.family].index(relayed.port)?;
        self.relayed[relayed.family].get_mut(index)?.take()
    }

    /// The socket of that name.
    #[must_use]
    pub fn get(&self, id: SocketId) -> Option<&UdpSocket> {
        match id {
            SocketId::Listener(ListenerId(index)) => {
                self.listeners.get(usize::from(index))?.as_ref()
            }
            SocketId::Relayed(relayed) => {
                let index = self.ports[relayed.family].index(relayed.port)?;
                self.relayed[relayed.family].get(index)?.as_ref()
            }
        }
    }
}

const RELAYED_V4: u64 = 1 << 24;
const RELAYED_V6: u64 = 1 << 24 | 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_kernel() {
        let relayed = |family, port| SocketId::Relayed(Relayed { family, port });
        for id in [
            SocketId::Listener(ListenerId(0)),
            SocketId::Listener(ListenerId(255)),
            relayed(Family::V4, 65_535),
            relayed(Family::V6, 0),
        ] {
            assert_eq!(SocketId::from_bits(id.to_bits()), Some(id));
        }
        assert_eq!(SocketId::from_bits(u64::MAX), None);
    }
}

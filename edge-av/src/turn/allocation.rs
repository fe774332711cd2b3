//! One allocation: a client, its relayed address, and the peers that it talks to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_common::limit::{Permit, SourcePermit};

use super::five_tuple::FiveTuple;
use super::quota::UserPlace;
use super::relayed::Relayed;
use crate::stun::integrity::{Algorithm, Key};
use crate::stun::message::Transaction;

/// What the server keeps for one client.
#[derive(Debug)]
pub struct Allocation {
    /// Whose it is.
    pub client: FiveTuple,
    /// What its peers see.
    pub relayed: Relayed,
    /// Whether its socket is there.
    pub phase: Phase,
    /// The user name that made it; others get 441.
    pub username: Box<[u8]>,
    /// Its key, so that a refresh needs no token any more.
    pub key: Arc<Key>,
    /// The request that made it: the same one again gets the same answer.
    pub made_by: Transaction,
    /// What LIFETIME said then.
    pub first_lifetime: Duration,
    /// When it began.
    pub since: Instant,
    /// When it ends unless it is refreshed.
    pub expires: Instant,
    /// Peers that may send to it.
    pub permissions: Permissions,
    /// Peers that have a number.
    pub channels: Channels,
    /// What it has relayed.
    pub traffic: Traffic,
    /// Its places under the limits, given back with it.
    pub places: Places,
}

/// The life of an allocation's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The shell has been asked to open the port; the client waits for its answer.
    Opening {
        /// Ports tried so far, this one included.
        tries: u8,
        /// The MAC of the waiting answer.
        algorithm: Algorithm,
        /// Whether the waiting answer carries FINGERPRINT.
        fingerprint: bool,
    },
    /// Packets flow.
    Open,
}

/// Places under the limits of user, source and process.
#[derive(Debug)]
#[expect(dead_code, reason = "held for what dropping them does")]
pub struct Places {
    pub(super) process: Permit,
    pub(super) source: SourcePermit,
    pub(super) user: UserPlace,
}

/// Packets and payload bytes in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from the client to peers.
    pub packets_out: u64,
    /// Their payload.
    pub bytes_out: u64,
    /// Packets from peers to the client.
    pub packets_in: u64,
    /// Their payload.
    pub bytes_in: u64,
}

/// The peers that may send (RFC 8656 §9): by address, any port. A few, looked through in order.
#[derive(Debug, Default)]
pub struct Permissions(Vec<Permission>);

#[derive(Clone, Copy, Debug)]
struct Permission {
    peer: IpAddr,
    expires: Instant,
}

/// The peers with a number (RFC 8656 §12). A few, looked through in order.
#[derive(Debug, Default)]
pub struct Channels(Vec<Channel>);

#[derive(Clone, Copy, Debug)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    expires: Instant,
}

/// Why a peer gets no permission or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// The number has another peer, or the peer another number.
    Conflict,
    /// The table is full.
    Full,
}

impl Permissions {
    /// Whether `peer` may send now. Traffic does not prolong it (RFC 8656 §9).
    #[must_use]
    pub fn allow(&self, now: Instant, peer: IpAddr) -> bool {
        self.0
            .iter()
            .any(|permission| permission.peer == peer && now < permission.expires)
    }

    /// Whether all of `peers` would fit; a request for several is all or nothing (RFC 8656 §10.2).
    pub fn have_room(&mut self, now: Instant, peers: &[IpAddr], limit: usize) -> bool {
        self.0.retain(|permission| now < permission.expires);
        let mut new: Vec<IpAddr> = peers
            .iter()
            .copied()
            .filter(|&peer| !self.allow(now, peer))
            .collect();
        new.sort_unstable();
        new.dedup();
        self.0.len() + new.len() <= limit
    }

    /// Lets `peer` in from now on for five minutes.
    pub fn install(&mut self, now: Instant, peer: IpAddr) {
        let expires = now + PERMISSION_LIFETIME;
        match self.0.iter_mut().find(|permission| permission.peer == peer) {
            Some(permission) => permission.expires = expires,
            None => self.0.push(Permission { peer, expires }),
        }
    }

    /// Permissions that have not been cleared away yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody was ever let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Channels {
    /// The peer behind `number`.
    #[must_use]
    pub fn peer(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        self.0
            .iter()
            .find(|channel| channel.number == number && now < channel.expires)
            .map(|channel| channel.peer)
    }

    /// The number of `peer`.
    #[must_use]
    pub fn number(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        self.0
            .iter()
            .find(|channel| channel.peer == peer && now < channel.expires)
            .map(|channel| channel.number)
    }

    /// Whether `number` can be bound to `peer`.
    pub fn check(
        &mut self,
        now: Instant,
        number: u16,
        peer: SocketAddr,
        limit: usize,
    ) -> Result<(), BindError> {
        self.0.retain(|channel| now < channel.expires);
        let (mut known, mut conflict) = (false, false);
        for channel in &self.0 {
            match (channel.number == number, channel.peer == peer) {
                (true, true) => known = true,
                (true, false) | (false, true) => conflict = true,
                (false, false) => {}
            }
        }
        match (conflict, known || self.0.len() < limit) {
            (true, _) => Err(BindError::Conflict),
            (false, false) => Err(BindError::Full),
            (false, true) => Ok(()),
        }
    }

    /// Binds `number` to `peer` from now on for ten minutes.
    pub fn bind(&mut self, now: Instant, number: u16, peer: SocketAddr) {
        let expires = now + CHANNEL_LIFETIME;
        match self.0.iter_mut().find(|channel| channel.number == number) {
            Some(channel) => channel.expires = expires,
            None => self.0.push(Channel {
                number,
                peer,
                expires,
            }),
        }
    }
}

/// RFC 8656 §9.
pub const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// RFC 8656 §12.
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::new(ip(last), 7000)
    }

    #[test]
    fn a_permission_ends_after_five_minutes_unless_renewed() {
        let (mut permissions, now) = (Permissions::default(), Instant::now());
        permissions.install(now, ip(1));
        let at = |secs| now + Duration::from_secs(secs);
        assert!(permissions.allow(at(299), ip(1)));
        assert!(!permissions.allow(at(299), ip(2)));
        assert!(!permissions.allow(at(300), ip(1)));
        permissions.install(at(299), ip(1));
        assert!(permissions.allow(at(300), ip(1)));
    }

    #[test]
    fn peers_named_twice_need_one_place_and_old_ones_make_room() {
        let (mut permissions, now) = (Permissions::default(), Instant::now());
        permissions.install(now, ip(1));
        assert!(permissions.have_room(now, &[ip(1), ip(2), ip(2)], 2));
        assert!(!permissions.have_room(now, &[ip(2), ip(3)], 2));
        assert!(permissions.have_room(now + PERMISSION_LIFETIME, &[ip(2), ip(3)], 2));
    }

    #[test]
    fn a_number_has_one_peer_and_a_peer_one_number() {
        let (mut channels, now) = (Channels::default(), Instant::now());
        assert_eq!(channels.check(now, 0x4000, peer(1), 2), Ok(()));
        channels.bind(now, 0x4000, peer(1));
        assert_eq!(channels.check(now, 0x4000, peer(1), 1), Ok(()));
        assert_eq!(
            channels.check(now, 0x4000, peer(2), 2),
            Err(BindError::Conflict)
        );
        assert_eq!(
            channels.check(now, 0x4001, peer(1), 2),
            Err(BindError::Conflict)
        );
        assert_eq!(
            channels.check(now, 0x4001, peer(2), 1),
            Err(BindError::Full)
        );
        let later = now + CHANNEL_LIFETIME;
        assert_eq!(
            (
                channels.peer(later, 0x4000),
                channels.number(later, peer(1))
            ),
            (None, None)
        );
        assert_eq!(channels.check(later, 0x4000, peer(2), 1), Ok(()));
    }
}

//! The way of a media packet: two look-ups and a small value; nothing is allocated, queued, logged or waited for.

use std::net::SocketAddr;

use edge_common::time::Now;

use super::Server;
use super::allocation::Phase;
use super::drop_reason::Reason;
use super::five_tuple::FiveTuple;
use super::header::Header;
use super::port_pool::ShardId;
use super::relayed::Relayed;
use crate::stun::demux::Datagram;
use crate::stun::fields::Fields;
use crate::stun::message::Message;

/// Where the payload of a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of the relayed socket.
    Peer {
        /// Whose socket.
        by: Relayed,
        /// The peer.
        to: SocketAddr,
        /// What of the packet goes there.
        payload: Span,
    },
    /// To a client, behind a header.
    Client {
        /// Which client.
        to: FiveTuple,
        /// What is put in front.
        header: Header,
        /// What of the packet goes there.
        payload: Span,
    },
    /// To one of our own relayed addresses that another shard holds: its [`Server::route_peer`] goes on.
    Shard {
        /// Who holds it.
        shard: ShardId,
        /// The address it goes to.
        relayed: Relayed,
        /// The relayed address it comes from.
        from: SocketAddr,
        /// What of the packet goes there.
        payload: Span,
    },
    /// Nothing to relay: [`Server::handle_client`] takes it.
    Control,
    /// Nowhere.
    Drop(Reason),
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub start: u16,
    /// Its length.
    pub len: u16,
}

impl Server {
    /// A packet from a client.
    pub fn route_client(&mut self, now: Now, from: FiveTuple, packet: &[u8]) -> Route {
        let routed = match *packet {
            [0x40..=0x7F, ..] => self.route_channel_data(now, from, packet),
            [0x00, 0x16, ..] if Datagram::classify(packet) == Datagram::Stun => {
                self.route_send(now, from, packet)
            }
            _ => return Route::Control,
        };
        routed.unwrap_or_else(Route::Drop)
    }

    /// A payload that reached `relayed`, from the network or as a hairpin.
    pub fn route_peer(
        &mut self,
        now: Now,
        relayed: Relayed,
        from: SocketAddr,
        payload: Span,
    ) -> Route {
        let peer = self.settings.policy.inward(from);
        let shown = self.settings.policy.outward(peer);
        let serial = self.next_serial();
        let Some(allocation) = self
            .allocation_at_mut(relayed)
            .filter(|allocation| allocation.phase == Phase::Open)
        else {
            return Route::Drop(Reason::NoSuchRelay);
        };
        if !allocation.permissions.allow(now.mono, peer.ip()) {
            return Route::Drop(Reason::NoPermission);
        }
        allocation.traffic.packets_in += 1;
        allocation.traffic.bytes_in += u64::from(payload.len);
        let header = match allocation.channels.number(now.mono, peer) {
            Some(number) => Header::Channel(number),
            None => Header::Data {
                peer: shown,
                serial,
            },
        };
        Route::Client {
            to: allocation.client,
            header,
            payload,
        }
    }

    /// ChannelData (RFC 8656 §12.6). The channel itself lets the payload out: its peer was admitted when it was bound.
    fn route_channel_data(
        &mut self,
        now: Now,
        from: FiveTuple,
        packet: &[u8],
    ) -> Result<Route, Reason> {
        let [n1, n2, l1, l2, ref behind @ ..] = *packet else {
            return Err(Reason::Malformed);
        };
        let len = u16::from_be_bytes([l1, l2]);
        // A length beyond the packet would send what happens to lie behind it in memory.
        if usize::from(len) > behind.len() {
            return Err(Reason::Malformed);
        }
        let number = u16::from_be_bytes([n1, n2]);
        let allocation = self.allocation_of(from).ok_or(Reason::NoAllocation)?;
        let peer = allocation
            .channels
            .peer(now.mono, number)
            .ok_or(Reason::NoChannel)?;
        let by = allocation.relayed;
        Ok(self.forward(
            now,
            by,
            peer,
            Span {
                start: CHANNEL_HEADER_LEN,
                len,
            },
        ))
    }

    /// A Send indication (RFC 8656 §11.2).
    fn route_send(&mut self, now: Now, from: FiveTuple, packet: &[u8]) -> Result<Route, Reason> {
        let message = Message::parse(packet).map_err(|_| Reason::Malformed)?;
        let fields = Fields::read(message);
        if fields.fingerprint == Some(false) {
            return Err(Reason::Fingerprint);
        }
        if !fields.unknown.is_empty() {
            return Err(Reason::UnknownAttribute);
        }
        let (peer, data) = fields.peer.zip(fields.data).ok_or(Reason::Malformed)?;
        let peer = self.settings.policy.inward(peer);
        let allocation = self.allocation_of(from).ok_or(Reason::NoAllocation)?;
        // The policy was asked when the permission was given.
        if !allocation.permissions.allow(now.mono, peer.ip()) {
            return Err(Reason::NoPermission);
        }
        let start = data.as_ptr().addr() - packet.as_ptr().addr();
        let payload = Span {
            start: start as u16,
            len: data.len() as u16,
        };
        let by = allocation.relayed;
        Ok(self.forward(now, by, peer, payload))
    }

    /// From `by` to `to`, which is an address as the interface has it.
    fn forward(&mut self, now: Now, by: Relayed, to: SocketAddr, payload: Span) -> Route {
        if let Some(allocation) = self.allocation_at_mut(by) {
            allocation.traffic.packets_out += 1;
            allocation.traffic.bytes_out += u64::from(payload.len);
        }
        let Some(relay) = self.settings.policy.relay_address(by.family) else {
            return Route::Drop(Reason::NoAllocation);
        };
        if to.ip() != relay {
            return Route::Peer { by, to, payload };
        }
        let relayed = Relayed {
            family: by.family,
            port: to.port(),
        };
        let from = SocketAddr::new(relay, by.port);
        match self.shared.ports[relayed.family].owner(relayed.port) {
            None => Route::Drop(Reason::NoSuchRelay),
            Some(shard) if shard == self.shard => self.route_peer(now, relayed, from, payload),
            Some(shard) => Route::Shard {
                shard,
                relayed,
                from,
                payload,
            },
        }
    }
}

/// Number and length (RFC 8656 §12.4).
const CHANNEL_HEADER_LEN: u16 = 4;

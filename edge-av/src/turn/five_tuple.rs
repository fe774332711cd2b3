//! Who talks to the server: the five-tuple of RFC 8656 §2, with the server's half kept as a number.

use std::net::SocketAddr;

use edge_common::side::Side;

/// One of the server's own addresses: a UDP socket, or a TCP port that accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u8);

/// Protocol, own address and side of a [`ListenerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// How its clients reach it.
    pub transport: Transport,
    /// On which network it stands.
    pub side: Side,
    /// Its address.
    pub local: SocketAddr,
}

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram, one message.
    Udp,
    /// A stream of messages.
    Tcp,
}

/// Names a client: where it comes from and which of our addresses it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Protocol and our address.
    pub listener: ListenerId,
    /// Its address.
    pub client: SocketAddr,
}

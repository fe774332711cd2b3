//! Sockets on one address and, where the host has two networks, on one interface.
//!
//! Listeners for the same address on several cores share it by `SO_REUSEPORT`: the kernel gives each connection to one
//! of them by a hash of the addresses. All of them are opened before any serves, else the early ones would get
//! everything and a late failure would leave half a service.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The local address; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// The interface, so that what comes in by another one is not for us; `None` in tests and on one-legged hosts.
    pub interface: Option<String>,
    /// The address may not be there yet (a virtual address that the standby member holds too).
    pub freebind: bool,
}

impl Bind {
    /// An address on whatever interface has it.
    #[must_use]
    pub const fn to(address: SocketAddr) -> Self {
        Self {
            address,
            interface: None,
            freebind: false,
        }
    }

    /// The same on one interface only.
    #[must_use]
    pub fn on(address: SocketAddr, interface: impl Into<String>) -> Self {
        Self {
            interface: Some(interface.into()),
            ..Self::to(address)
        }
    }

    /// One listener for each core, all on the same address. If the port is 0 the first one's port is taken by all.
    pub fn tcp_listeners(&self, cores: usize) -> Result<Vec<TcpListener>, BindError> {
        let mut bind = self.clone();
        (0..cores.max(1))
            .map(|_| {
                let listener = bind.tcp_listener()?;
                bind.address = bind.done(listener.local_addr())?;
                Ok(listener)
            })
            .collect()
    }

    /// One listener, not blocking, sharing its address with others of ours.
    pub fn tcp_listener(&self) -> Result<TcpListener, BindError> {
        let open = || {
            let socket = self.socket(Type::STREAM, Protocol::TCP)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&self.address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        self.done(open())
    }

    /// One UDP socket for each core, all on the same address.
    pub fn udp_sockets(&self, cores: usize) -> Result<Vec<UdpSocket>, BindError> {
        let mut bind = self.clone();
        (0..cores.max(1))
            .map(|_| {
                let socket = bind.shared_udp()?;
                bind.address = bind.done(socket.local_addr())?;
                Ok(socket)
            })
            .collect()
    }

    /// A UDP socket, not blocking, that has its address for itself.
    pub fn udp_socket(&self) -> Result<UdpSocket, BindError> {
        let open = || {
            let socket = self.socket(Type::DGRAM, Protocol::UDP)?;
            socket.bind(&self.address.into())?;
            Ok(socket.into())
        };
        self.done(open())
    }

    /// A TCP socket that is bound but not connected, for dialing out.
    pub fn dial_socket(&self) -> Result<Socket, BindError> {
        let open = || {
            let socket = self.socket(Type::STREAM, Protocol::TCP)?;
            socket.bind(&self.address.into())?;
            Ok(socket)
        };
        self.done(open())
    }

    fn shared_udp(&self) -> Result<UdpSocket, BindError> {
        let open = || {
            let socket = self.socket(Type::DGRAM, Protocol::UDP)?;
            socket.set_reuse_port(true)?;
            socket.bind(&self.address.into())?;
            Ok(socket.into())
        };
        self.done(open())
    }

    fn socket(&self, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if self.address.is_ipv6() {
            // One socket, one family: else [::]:443 would take the IPv4 address of another service as well.
            socket.set_only_v6(true)?;
        }
        if self.freebind {
            match self.address.ip() {
                IpAddr::V4(_) => socket.set_freebind_v4(true)?,
                IpAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
        }
        socket.bind_device(self.interface.as_deref().map(str::as_bytes))?;
        Ok(socket)
    }

    fn done<T>(&self, result: io::Result<T>) -> Result<T, BindError> {
        result.map_err(|source| BindError {
            bind: self.clone(),
            source,
        })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} on {interface}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {bind}: {source}")]
pub struct BindError {
    /// What was asked for.
    pub bind: Bind,
    /// What the kernel said.
    pub source: io::Error,
}

/// How a TCP connection behaves; the same for those that we accepted and those that we opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// `SO_SNDBUF` and `SO_RCVBUF`; `None` leaves them to the kernel's tuning. What many stalled readers may hold in
    /// the kernel is this times their number.
    pub socket_buffer: Option<usize>,
    /// How long sent bytes may stay without an acknowledgement (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            socket_buffer: None,
            user_timeout: Duration::from_secs(120),
        }
    }
}

impl TcpOptions {
    /// No delay for small writes, keep-alive after a minute, and the limits of this value.
    pub fn apply<'s>(&self, socket: impl Into<SockRef<'s>>) -> io::Result<()> {
        let socket = socket.into();
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(Duration::from_secs(60))
                .with_interval(Duration::from_secs(15))
                .with_retries(4),
        )?;
        socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        if let Some(bytes) = self.socket_buffer {
            socket.set_send_buffer_size(bytes)?;
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(())
    }
}

/// The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_all_cores_share_one_address() {
        let listeners = Bind::to(loopback()).tcp_listeners(3).expect("binds");
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().ok()).collect();
        assert_eq!(addresses.len(), 3);
        assert!(addresses.iter().all(|a| *a == addresses[0] && a.is_some()));
    }

    #[test]
    fn udp_sockets_share_one_address_and_a_lone_one_does_not() {
        let sockets = Bind::to(loopback()).udp_sockets(2).expect("binds");
        let taken = sockets[0].local_addr().expect("bound");
        assert_eq!(sockets[1].local_addr().expect("bound"), taken);
        let error = Bind::to(taken).udp_socket().expect_err("address is taken");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_ipv6_listener_leaves_the_ipv4_port_alone() {
        let any_v6 = Bind::to("[::]:0".parse().expect("address"));
        if any_v6.tcp_listener().is_err() {
            return; // The host has no IPv6.
        }
        // Somebody else may hold the IPv4 port of that number, but hardly ten times in a row.
        let mut tries = std::iter::repeat_with(|| {
            let v6 = any_v6.tcp_listener().expect("binds");
            let port = v6.local_addr().expect("bound").port();
            let v4 = SocketAddr::from(([0, 0, 0, 0], port));
            let plain = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            plain.bind(&v4.into())
        });
        assert!(tries.by_ref().take(10).any(|bound| bound.is_ok()));
    }

    #[test]
    fn an_error_names_address_and_interface() {
        let error = Bind::on(loopback(), "no-such-if0")
            .tcp_listener()
            .expect_err("no such interface");
        assert!(error.to_string().contains("127.0.0.1:0 on no-such-if0"));
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }
}

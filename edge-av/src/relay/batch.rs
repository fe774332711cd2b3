//! Many datagrams with one system call: `recvmmsg` and `sendmmsg`.
//!
//! ```text
//!   slot │ headroom 64 │ datagram, up to 8 KiB │ tailroom 4 │        × 32
//! ```
//!
//! What goes out lies in the same slots: a header is written in front of a payload where it was received.

#![expect(
    unsafe_code,
    reason = "the standard library has no call that takes several datagrams"
)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::turn::header::{HEADROOM, TAILROOM};

/// Datagrams in one system call.
pub const BATCH: usize = 32;
/// The largest datagram that is relayed; longer ones are cut by the kernel and dropped by us.
pub const DATAGRAM_MAX: usize = 8 * 1024;
/// One datagram and the room around it.
pub const SLOT_LEN: usize = HEADROOM + DATAGRAM_MAX + TAILROOM;

/// Buffers for one batch and what of it is to be sent.
#[derive(Debug)]
pub struct Batch {
    slots: Box<[u8]>,
    received: Vec<Received>,
    outgoing: Vec<Outgoing>,
}

/// A datagram in its slot.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Who sent it.
    pub from: SocketAddr,
    /// Its bytes in the slot; fewer than were sent if it was cut.
    pub len: usize,
    /// It was longer than [`DATAGRAM_MAX`].
    pub cut: bool,
}

#[derive(Clone, Debug)]
struct Outgoing {
    to: SocketAddr,
    bytes: Range<usize>,
}

/// What became of a run of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The kernel took them.
    pub taken: usize,
    /// It did not.
    pub failed: usize,
}

impl Batch {
    /// Empty slots.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: vec![0; SLOT_LEN * BATCH].into(),
            received: Vec::with_capacity(BATCH),
            outgoing: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what waits at a socket, up to [`BATCH`] datagrams, without waiting; gives how many.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        let mut names = [const { MaybeUninit::<Name>::zeroed() }; BATCH];
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut headers = [EMPTY_HEADER; BATCH];
        for (index, slot) in self.slots.chunks_exact_mut(SLOT_LEN).enumerate() {
            let data = &mut slot[HEADROOM..HEADROOM + DATAGRAM_MAX];
            vectors[index] = libc::iovec {
                iov_base: data.as_mut_ptr().cast(),
                iov_len: data.len(),
            };
            headers[index].msg_hdr.msg_name = names[index].as_mut_ptr().cast();
            headers[index].msg_hdr.msg_namelen = size_of::<Name>() as libc::socklen_t;
            headers[index].msg_hdr.msg_iov = &raw mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each of the BATCH headers points to one name and one vector of the arrays above, which outlive the
        // call, and each vector to DATAGRAM_MAX bytes of a slot that is borrowed mutably and overlaps no other.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (name, header) in names.iter().zip(&headers).take(count) {
            // SAFETY: the union was zeroed, so all of its bytes are initialised whatever the kernel wrote.
            let name = unsafe { name.assume_init_ref() };
            self.received.push(Received {
                from: name.read(),
                len: (header.msg_len as usize).min(DATAGRAM_MAX),
                cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            });
        }
        Ok(count)
    }

    /// The datagram in slot `index`.
    ///
    /// # Panics
    /// When the last [`Batch::receive`] gave fewer.
    #[must_use]
    pub fn received(&self, index: usize) -> Received {
        self.received[index]
    }

    /// The slot `index`: the datagram begins at [`HEADROOM`].
    pub fn slot(&mut self, index: usize) -> &mut [u8] {
        &mut self.slots[index * SLOT_LEN..(index + 1) * SLOT_LEN]
    }

    /// Puts `bytes` of slot `index` on the list of what [`Batch::send`] sends. At most [`BATCH`] are on the list.
    pub fn push(&mut self, index: usize, bytes: Range<usize>, to: SocketAddr) {
        debug_assert!(bytes.end <= SLOT_LEN && self.outgoing.len() < BATCH);
        let base = index * SLOT_LEN;
        self.outgoing.push(Outgoing {
            to,
            bytes: base + bytes.start..base + bytes.end,
        });
    }

    /// Whether nothing is on the list.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Sends all that is on the list by one socket. What the kernel refuses is lost, as any datagram may be.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Sent {
        let mut sent = Sent::default();
        let (mut names, mut vectors, mut headers) = (
            [Name::EMPTY; BATCH],
            [EMPTY_VECTOR; BATCH],
            [EMPTY_HEADER; BATCH],
        );
        let total = self.outgoing.len().min(BATCH);
        for (index, outgoing) in self.outgoing.iter().take(total).enumerate() {
            let bytes = &self.slots[outgoing.bytes.clone()];
            names[index] = Name::from(outgoing.to);
            vectors[index] = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            headers[index].msg_hdr.msg_name = (&raw mut names[index]).cast();
            headers[index].msg_hdr.msg_namelen = Name::len(outgoing.to);
            headers[index].msg_hdr.msg_iov = &raw mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
        }
        let mut done = 0;
        while done < total {
            let rest = &mut headers[done..total];
            // SAFETY: each header of `rest` points to one name and one vector of the arrays above, and each vector to
            // initialised bytes of our slots; the kernel only reads them, and all of them outlive the call.
            let count = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(count) {
                Ok(count) if count > 0 => {
                    sent.taken += count;
                    done += count;
                }
                // The first of them was refused: the others may have another way.
                Ok(_) | Err(_) => {
                    sent.failed += 1;
                    done += 1;
                }
            }
        }
        self.outgoing.clear();
        sent
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// A socket address as the kernel has it.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    const EMPTY: Self = Self { family: 0 };

    const fn len(address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(_) => size_of::<libc::sockaddr_in>() as libc::socklen_t,
            SocketAddr::V6(_) => size_of::<libc::sockaddr_in6>() as libc::socklen_t,
        }
    }

    fn read(&self) -> SocketAddr {
        // SAFETY: all bytes are initialised (see `receive`), every bit pattern is a lawful value of these integer
        // fields, and the family says which of the two structures the kernel wrote.
        unsafe {
            if libc::c_int::from(self.family) == libc::AF_INET6 {
                let (ip, port) = (
                    Ipv6Addr::from(self.v6.sin6_addr.s6_addr),
                    u16::from_be(self.v6.sin6_port),
                );
                SocketAddr::V6(SocketAddrV6::new(ip, port, 0, self.v6.sin6_scope_id))
            } else {
                let (ip, port) = (
                    Ipv4Addr::from(u32::from_be(self.v4.sin_addr.s_addr)),
                    u16::from_be(self.v4.sin_port),
                );
                SocketAddr::V4(SocketAddrV4::new(ip, port))
            }
        }
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*address.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(address) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                },
            },
        }
    }
}

const EMPTY_VECTOR: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};
const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    fn sockets(ip: &str) -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind((ip, 0)).expect("loopback has free ports");
        (bind(), bind())
    }

    fn echo(ip: &str) {
        let (near, far) = sockets(ip);
        let (near_address, far_address) = (
            near.local_addr().expect("bound"),
            far.local_addr().expect("bound"),
        );
        for number in 0..5_u8 {
            far.send_to(&[number; 3], near_address).expect("sent");
        }
        let mut batch = Batch::new();
        assert_eq!(batch.receive(near.as_fd()).expect("five wait"), 5);
        for index in 0..5 {
            let received = batch.received(index);
            assert_eq!(
                (received.from, received.len, received.cut),
                (far_address, 3, false)
            );
            // A header in front, written into the headroom.
            batch.slot(index)[HEADROOM - 1] = 0xAA;
            batch.push(index, HEADROOM - 1..HEADROOM + 3, received.from);
        }
        assert_eq!(
            batch.send(near.as_fd()),
            Sent {
                taken: 5,
                failed: 0
            }
        );
        assert!(batch.is_empty());
        let mut bytes = [0; 16];
        for number in 0..5 {
            let (len, from) = far.recv_from(&mut bytes).expect("five come back");
            assert_eq!(
                (&bytes[..len], from),
                (&[0xAA, number, number, number][..], near_address)
            );
        }
    }

    #[test]
    fn what_arrives_goes_back_with_a_header() {
        echo("127.0.0.1");
    }

    #[test]
    fn ipv6_does_the_same() {
        if UdpSocket::bind("[::1]:0").is_ok() {
            echo("::1");
        }
    }

    #[test]
    fn an_empty_socket_would_block_and_a_long_datagram_is_cut() {
        let (near, far) = sockets("127.0.0.1");
        let mut batch = Batch::new();
        let error = batch.receive(near.as_fd()).expect_err("nothing waits");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        far.send_to(
            &vec![1; DATAGRAM_MAX + 1],
            near.local_addr().expect("bound"),
        )
        .expect("sent");
        far.send_to(&[], near.local_addr().expect("bound"))
            .expect("sent");
        assert_eq!(batch.receive(near.as_fd()).expect("two wait"), 2);
        assert_eq!(
            (batch.received(0).len, batch.received(0).cut),
            (DATAGRAM_MAX, true)
        );
        assert_eq!((batch.received(1).len, batch.received(1).cut), (0, false));
    }

    #[test]
    fn one_that_cannot_be_sent_does_not_hold_up_the_others() {
        let (near, far) = sockets("127.0.0.1");
        let to = far.local_addr().expect("bound");
        let mut batch = Batch::new();
        for (index, to) in [to, SocketAddr::from(([127, 0, 0, 1], 0)), to]
            .into_iter()
            .enumerate()
        {
            batch.push(index, HEADROOM..HEADROOM + 1, to);
        }
        assert_eq!(
            batch.send(near.as_fd()),
            Sent {
                taken: 2,
                failed: 1
            }
        );
    }
}

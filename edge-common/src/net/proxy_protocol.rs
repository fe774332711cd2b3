//! PROXY protocol version 2: the client's address, told by a balancer in front of the first byte.
//!
//! ```text
//!   0        12   13   14     16            16 + addresses        16 + length
//!   │signature│v/c │f/p │length│ addresses    │ TLVs (skipped)      │ the client's own bytes
//! ```
//!
//! The reader owns no buffer: it is shown all that was received and says what stands at the front. Version 1 (text) is
//! not spoken. Section numbers are those of HAProxy's `proxy-protocol.txt`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What stands at the front of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Too few bytes to say.
    NeedMore,
    /// No header begins here, whatever comes next.
    Absent,
    /// A whole header of `len` bytes.
    Header {
        /// Consume so many bytes.
        len: usize,
        /// Whom the balancer speaks for.
        origin: Origin,
    },
}

/// Whom a balancer speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Itself (`LOCAL`): a health check.
    Balancer,
    /// A client.
    Client {
        /// The client's address.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// A header that begins well and goes on badly; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not version 2.
    #[error("PROXY header of version {0}, only 2 is spoken")]
    Version(u8),
    /// Neither LOCAL nor PROXY.
    #[error("PROXY header with the unknown command {0}")]
    Command(u8),
    /// Not TCP over IPv4 or IPv6.
    #[error("PROXY header for family and protocol {0:#04x}, only TCP is served")]
    Family(u8),
    /// Longer than any balancer needs.
    #[error("PROXY header of {0} bytes")]
    TooLong(usize),
    /// Too short for the addresses that it announces.
    #[error("PROXY header too short for its addresses")]
    TooShort,
    /// A TLV that goes beyond the header.
    #[error("PROXY header with a broken TLV")]
    Tlv,
    /// The checksum is there and wrong.
    #[error("PROXY header with a wrong checksum")]
    Checksum,
}

impl HeaderError {
    /// A name from a short fixed list, for the label of a counter.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Version(_) => "proxy_version",
            Self::Command(_) => "proxy_command",
            Self::Family(_) => "proxy_family",
            Self::TooLong(_) => "proxy_too_long",
            Self::TooShort => "proxy_too_short",
            Self::Tlv => "proxy_tlv",
            Self::Checksum => "proxy_checksum",
        }
    }
}

/// Says what stands at the front of `received`, which begins with the first byte of the connection.
pub fn read(received: &[u8]) -> Result<Step, HeaderError> {
    let seen = received.len().min(SIGNATURE.len());
    if received[..seen] != SIGNATURE[..seen] {
        return Ok(Step::Absent);
    }
    let Some((&[version_command, family, high, low], _)) = received
        .get(SIGNATURE.len()..)
        .and_then(<[u8]>::split_first_chunk)
    else {
        return Ok(Step::NeedMore);
    };
    let (version, command) = (version_command >> 4, version_command & 0x0f);
    if version != VERSION {
        return Err(HeaderError::Version(version));
    }
    let len = FIXED_LEN + usize::from(u16::from_be_bytes([high, low]));
    if len > HEADER_LEN_MAX {
        return Err(HeaderError::TooLong(len));
    }
    let Some(header) = received.get(..len) else {
        return Ok(Step::NeedMore);
    };
    let (origin, addresses_len) = match command {
        // §2.2: what a LOCAL header says about addresses is to be ignored.
        LOCAL => (Origin::Balancer, addresses_len(family).unwrap_or(0)),
        PROXY => client(family, &header[FIXED_LEN..])?,
        other => return Err(HeaderError::Command(other)),
    };
    let tlvs = header
        .get(FIXED_LEN + addresses_len..)
        .ok_or(HeaderError::TooShort)?;
    check_tlvs(header, tlvs)?;
    Ok(Step::Header { len, origin })
}

/// The header that tells `destination`'s server of a client at `source`, to be sent in front of the first byte.
///
/// Where the families differ, both addresses are written as IPv6, the IPv4 one mapped.
#[must_use]
pub fn client_header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(VERSION << 4 | PROXY);
    let (source_ip, destination_ip) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let addresses = match (source_ip, destination_ip) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.push(TCP_OVER_IPV4);
            [source.octets(), destination.octets()].concat()
        }
        (source, destination) => {
            header.push(TCP_OVER_IPV6);
            [mapped(source).octets(), mapped(destination).octets()].concat()
        }
    };
    let len = u16::try_from(addresses.len() + 2 * PORT_LEN).expect("36 at most");
    header.extend_from_slice(&len.to_be_bytes());
    header.extend_from_slice(&addresses);
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

const fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Both addresses, and how many bytes they take.
fn client(family: u8, body: &[u8]) -> Result<(Origin, usize), HeaderError> {
    let len = addresses_len(family).ok_or(HeaderError::Family(family))?;
    let body = body.get(..len).ok_or(HeaderError::TooShort)?;
    let (addresses, ports) = body.split_at(len - 2 * PORT_LEN);
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let (source_port, destination_port) = ports.split_at(PORT_LEN);
    let end = |ip: &[u8], port: &[u8]| Some(SocketAddr::new(address(ip)?, self::port(port)?));
    let origin = end(source, source_port)
        .zip(end(destination, destination_port))
        .map(|(source, destination)| Origin::Client {
            source,
            destination,
        });
    Ok((origin.ok_or(HeaderError::TooShort)?, len))
}

const fn addresses_len(family: u8) -> Option<usize> {
    match family {
        TCP_OVER_IPV4 => Some(2 * 4 + 2 * PORT_LEN),
        TCP_OVER_IPV6 => Some(2 * 16 + 2 * PORT_LEN),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes)
        .map(Ipv4Addr::from)
        .map(IpAddr::V4);
    let v6 = || {
        <[u8; 16]>::try_from(bytes)
            .map(Ipv6Addr::from)
            .map(IpAddr::V6)
    };
    v4.or_else(|_| v6()).ok()
}

fn port(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().map(u16::from_be_bytes).ok()
}

/// TLVs are walked and not understood, but for the checksum, which §2.2.3 wants to be checked where it is there.
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), HeaderError> {
    while !tlvs.is_empty() {
        let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk() else {
            return Err(HeaderError::Tlv);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(len).ok_or(HeaderError::Tlv)?;
        if kind == CRC32C {
            let told = <[u8; 4]>::try_from(value).map_err(|_| HeaderError::Tlv)?;
            let at = header.len() - rest.len() - value.len();
            if crc32c_without(header, at) != u32::from_be_bytes(told) {
                return Err(HeaderError::Checksum);
            }
        }
        tlvs = rest;
    }
    Ok(())
}

/// CRC-32C (Castagnoli, RFC 3720 B.4) of the header, with its own four bytes at `at` counted as zero.
fn crc32c_without(header: &[u8], at: usize) -> u32 {
    let own = at..at + 4;
    let mut crc = u32::MAX;
    for (place, &byte) in header.iter().enumerate() {
        crc ^= u32::from(if own.contains(&place) { 0 } else { byte });
        for _ in 0..8 {
            // Subtracting the lowest bit from 0 gives the polynomial's mask without a branch.
            crc = crc >> 1 ^ CASTAGNOLI & 0u32.wrapping_sub(crc & 1);
        }
    }
    !crc
}

/// The longest header that we take: both addresses, and 468 bytes of TLVs. A header has to come in one
/// segment, and §2.2 promises that 536 bytes always do.
pub const HEADER_LEN_MAX: usize = 536;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_LEN: usize = SIGNATURE.len() + 4;
const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const PORT_LEN: usize = 2;
/// `PP2_TYPE_CRC32C`, §2.2.3.
const CRC32C: u8 = 0x03;
/// The polynomial, lowest bit first.
const CASTAGNOLI: u32 = 0x82f6_3b78;

/// For fuzzing: one answer that does not change once it is there, and addresses that are written as they came.
///
/// # Panics
/// When an answer changes with what comes behind it, or reaches past what is there.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let whole = read(bytes);
    for cut in 0..bytes.len().min(FUZZ_CUTS) {
        let early = read(&bytes[..cut]);
        assert!(
            early == Ok(Step::NeedMore) || early == whole,
            "cut at {cut}"
        );
    }
    let Ok(Step::Header { len, origin }) = whole else {
        return;
    };
    assert!(len <= bytes.len());
    let Origin::Client {
        source,
        destination,
    } = origin
    else {
        return;
    };
    let written = client_header(source, destination);
    let origin = Origin::Client {
        source,
        destination,
    };
    let len = written.len();
    assert_eq!(read(&written), Ok(Step::Header { len, origin }));
    assert!(!(cfg!(planted_bug) && source.is_ipv6()), "planted bug");
}

const FUZZ_CUTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_cut_of_the_header_needs_more_and_the_whole_one_gives_the_client() {
        for header in [v4(&[]), v6(&[]), v4(&tlv(0x04, b"no-op")), checksummed()] {
            for cut in 0..header.len() {
                assert_eq!(read(&header[..cut]), Ok(Step::NeedMore), "cut at {cut}");
            }
            let mut with_more = header.clone();
            with_more.extend(b"\x16\x03\x01");
            let Ok(Step::Header { len, origin }) = read(&with_more) else {
                panic!("{:?}", read(&with_more));
            };
            assert_eq!(len, header.len());
            assert!(matches!(origin, Origin::Client { source, .. } if source.port() == 40_000));
        }
    }

    #[test]
    fn addresses_and_ports_are_read_in_their_order() {
        let step = read(&v4(&[])).expect("lawful");
        let expected = Origin::Client {
            source: "192.0.2.7:40000".parse().expect("address"),
            destination: "198.51.100.10:443".parse().expect("address"),
        };
        assert_eq!(
            step,
            Step::Header {
                len: 28,
                origin: expected
            }
        );
        let step = read(&v6(&[])).expect("lawful");
        let expected = Origin::Client {
            source: "[2001:db8::7]:40000".parse().expect("address"),
            destination: "[2001:db8:100::10]:443".parse().expect("address"),
        };
        assert_eq!(
            step,
            Step::Header {
                len: 52,
                origin: expected
            }
        );
    }

    #[test]
    fn a_health_check_speaks_for_the_balancer_itself() {
        let header = header(0x20, 0x00, &[]);
        let origin = Origin::Balancer;
        assert_eq!(read(&header), Ok(Step::Header { len: 16, origin }));
    }

    #[test]
    fn what_is_no_header_is_known_at_its_first_other_byte() {
        assert_eq!(read(b""), Ok(Step::NeedMore));
        assert_eq!(read(b"\x16\x03\x01"), Ok(Step::Absent));
        assert_eq!(read(b"\r\n\r\nREGISTER"), Ok(Step::Absent));
        assert_eq!(read(b"PROXY TCP4 192.0.2.7"), Ok(Step::Absent));
    }

    #[test]
    fn a_header_that_goes_on_badly_is_refused_with_its_reason() {
        assert_eq!(
            read(&header(0x11, 0x11, &[0; 12])),
            Err(HeaderError::Version(1))
        );
        assert_eq!(
            read(&header(0x22, 0x11, &[0; 12])),
            Err(HeaderError::Command(2))
        );
        assert_eq!(
            read(&header(0x21, 0x12, &[0; 12])),
            Err(HeaderError::Family(0x12))
        );
        assert_eq!(
            read(&header(0x21, 0x31, &[0; 216])),
            Err(HeaderError::Family(0x31))
        );
        assert_eq!(
            read(&header(0x21, 0x11, &[0; 11])),
            Err(HeaderError::TooShort)
        );
        assert_eq!(
            read(&header(0x20, 0x11, &[0; 11])),
            Err(HeaderError::TooShort)
        );
        assert_eq!(
            read(&header(0x21, 0x11, &[0; 521])),
            Err(HeaderError::TooLong(537))
        );
        assert_eq!(read(&v4(&[0x04, 0, 9, 1])), Err(HeaderError::Tlv));
        assert_eq!(read(&v4(&[0x04, 0])), Err(HeaderError::Tlv));
        assert_eq!(read(&v4(&tlv(CRC32C, &[0; 4]))), Err(HeaderError::Checksum));
        assert_eq!(read(&v4(&tlv(CRC32C, &[0; 3]))), Err(HeaderError::Tlv));
    }

    #[test]
    fn what_is_written_reads_back() {
        for (source, destination, seen) in [
            ("192.0.2.7:5", "10.0.0.1:6000", "192.0.2.7:5"),
            ("[2001:db8::1]:5", "[fd00::1]:6000", "[2001:db8::1]:5"),
            ("[2001:db8::1]:5", "10.0.0.1:6000", "[2001:db8::1]:5"),
            ("192.0.2.7:5", "[fd00::1]:6000", "192.0.2.7:5"),
        ] {
            let end = |text: &str| text.parse::<SocketAddr>().expect("an address");
            let written = client_header(end(source), end(destination));
            let Ok(Step::Header { len, origin }) = read(&written) else {
                panic!("{source} to {destination} does not read back");
            };
            assert_eq!(len, written.len());
            let Origin::Client { source, .. } = origin else {
                panic!("no client");
            };
            let canonical = SocketAddr::new(source.ip().to_canonical(), source.port());
            assert_eq!(canonical, end(seen));
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720 B.4 ends with vectors; nine digits are the customary one. The place of no byte is skipped.
        assert_eq!(crc32c_without(b"123456789", 100), 0xe306_9283);
        assert_eq!(crc32c_without(&[0; 32], 100), 0x8a91_36aa);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(tail in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = SIGNATURE.to_vec();
            bytes.extend(&tail);
            if let Ok(Step::Header { len, .. }) = read(&bytes) {
                prop_assert!(len <= bytes.len());
            }
            for (at, value) in [(12, 0x21), (13, 0x11), (14, 0), (15, 40)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if let Ok(Step::Header { len, .. }) = read(&bytes) {
                prop_assert_eq!(len, 56);
            }
        }
    }

    fn v4(tlvs: &[u8]) -> Vec<u8> {
        let body = [&[192, 0, 2, 7, 198, 51, 100, 10][..], &PORTS, tlvs].concat();
        header(0x21, TCP_OVER_IPV4, &body)
    }

    fn v6(tlvs: &[u8]) -> Vec<u8> {
        let ip = |text: &str| text.parse::<Ipv6Addr>().expect("address").octets();
        let (source, destination) = (ip("2001:db8::7"), ip("2001:db8:100::10"));
        let body = [&source[..], &destination, &PORTS, tlvs].concat();
        header(0x21, TCP_OVER_IPV6, &body)
    }

    fn checksummed() -> Vec<u8> {
        let mut header = v4(&tlv(CRC32C, &[0; 4]));
        let at = header.len() - 4;
        let crc = crc32c_without(&header, at).to_be_bytes();
        header[at..].copy_from_slice(&crc);
        header
    }

    fn header(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &len, body].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let len = (value.len() as u16).to_be_bytes();
        [&[kind], &len[..], value].concat()
    }

    const PORTS: [u8; 4] = [0x9c, 0x40, 0x01, 0xbb];
}

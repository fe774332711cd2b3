//! Reads the name a client asked for (RFC 6066 §3) out of the first TLS records.
//!
//! rustls knows it, but its unbuffered server connection has no way to ask (0.23). What is read here is what rustls
//! reads, from the same bytes, and the handshake's Finished covers it.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

/// What the bytes received so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The first handshake message is not complete.
    NeedMore,
    /// A whole ClientHello; the name is as the client wrote it.
    Complete {
        /// The `host_name` of the server_name extension.
        server_name: Option<String>,
    },
    /// Not a ClientHello: rustls will say what is wrong with it.
    Other,
}

/// Looks at everything received from the client so far, from the first byte on.
#[must_use]
pub fn read(received: &[u8]) -> Hello {
    let message = match handshake_bytes(received) {
        Ok(message) => message,
        Err(NotHandshake) => return Hello::Other,
    };
    let Some((&[CLIENT_HELLO, a, b, c], body)) = message.split_first_chunk() else {
        let other = message.first().is_some_and(|&kind| kind != CLIENT_HELLO);
        return if other { Hello::Other } else { Hello::NeedMore };
    };
    let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    match body.get(..len) {
        Some(body) => Hello::Complete {
            server_name: server_name(body),
        },
        None if len > HELLO_LEN_MAX => Hello::Other,
        None => Hello::NeedMore,
    }
}

struct NotHandshake;

/// Joins the payloads of the records: a ClientHello may be cut anywhere (RFC 8446 §5.1).
fn handshake_bytes(mut received: &[u8]) -> Result<Vec<u8>, NotHandshake> {
    let mut message = Vec::new();
    while let Some((&[kind, _, _, high, low], rest)) = received.split_first_chunk() {
        if kind != HANDSHAKE_RECORD {
            return Err(NotHandshake);
        }
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        message.extend_from_slice(&rest[..len]);
        received = &rest[len..];
    }
    match received.first() {
        Some(&kind) if kind != HANDSHAKE_RECORD => Err(NotHandshake),
        Some(_) | None => Ok(message),
    }
}

/// `None` also when the body is malformed: then rustls ends the handshake.
fn server_name(body: &[u8]) -> Option<String> {
    let mut body = Reader(body);
    body.take(VERSION_LEN + RANDOM_LEN)?;
    body.vector::<1>()?; // session id
    body.vector::<2>()?; // cipher suites
    body.vector::<1>()?; // compression methods
    let mut extensions = Reader(body.vector::<2>()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number::<2>()?;
        let content = extensions.vector::<2>()?;
        if kind == SERVER_NAME {
            return host_name(content);
        }
    }
    None
}

fn host_name(content: &[u8]) -> Option<String> {
    let mut names = Reader(Reader(content).vector::<2>()?);
    while !names.0.is_empty() {
        let kind = names.number::<1>()?;
        let name = names.vector::<2>()?;
        if kind == HOST_NAME {
            return String::from_utf8(name.to_vec()).ok();
        }
    }
    None
}

/// Takes from the front of a slice, or says that it is too short.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(N)?;
        Some(bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b)))
    }

    /// Bytes behind a length of `N` bytes.
    fn vector<const N: usize>(&mut self) -> Option<&'b [u8]> {
        let len = self.number::<N>()?;
        self.take(len)
    }
}

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const VERSION_LEN: usize = 2;
const RANDOM_LEN: usize = 32;
const SERVER_NAME: usize = 0;
const HOST_NAME: usize = 0;
/// rustls takes no longer handshake message.
const HELLO_LEN_MAX: usize = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_name_is_found_at_every_cut_and_not_before_the_end() {
        let whole = hello(&[(0x2b, b"\x02\x03\x04"), (0, &sni(b"sip.contoso.test"))]);
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), Hello::NeedMore, "cut at {cut}");
        }
        assert_eq!(read(&whole), named("sip.contoso.test"));
    }

    #[test]
    fn a_hello_in_many_records_is_one_hello() {
        let whole = hello(&[(0, &sni(b"sip.contoso.test"))]);
        let message = &whole[5..];
        let cut: Vec<u8> = message.chunks(7).flat_map(record).collect();
        assert_eq!(read(&cut), named("sip.contoso.test"));
    }

    #[test]
    fn a_hello_may_have_no_name() {
        let none = Hello::Complete { server_name: None };
        assert_eq!(read(&hello(&[(0x2b, b"\x02\x03\x04")])), none);
        assert_eq!(read(&hello(&[])), none);
    }

    #[test]
    fn what_is_no_hello_is_left_to_rustls() {
        assert_eq!(read(b"INVITE sip:a SIP/2.0\r\n"), Hello::Other);
        assert_eq!(read(&record(b"\x02\x00\x00\x01x")), Hello::Other);
        assert_eq!(read(&record(b"\x01\xff\xff\xff")), Hello::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = record(&bytes);
            prop_assert_ne!(read(&framed), named(""));
            framed[5..].iter_mut().take(1).for_each(|kind| *kind = CLIENT_HELLO);
            prop_assert_ne!(read(&framed), named(""));
        }
    }

    fn named(name: &str) -> Hello {
        Hello::Complete {
            server_name: Some(name.to_owned()),
        }
    }

    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend(long(content));
        }
        let mut body = vec![3, 3];
        body.extend([9; RANDOM_LEN]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend(long(&list));
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend(long(&body));
        record(&message)
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        let mut entry = vec![0];
        entry.extend(long(name));
        long(&entry)
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
        out.extend(bytes);
        out
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut out = vec![HANDSHAKE_RECORD, 3, 1];
        out.extend(long(payload));
        out
    }
}

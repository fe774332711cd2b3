//! The few bytes around the stream on a data connection.
//!
//! ```text
//!  A>E  "EWRD" │ 1 │ session 16 │ seq 8 │ HMAC-SHA256 32                 61 bytes, then it is parked
//!  E>A  1 │ 0x40 │ len 2 │ dial_id 8 │ reg_id 4 │ number 8 │ ip 16 │ port 2 │ preread_len 4 │ sni
//!       followed by the `preread_len` bytes that the client has sent already
//!  A>E  1 │ 0x41 │ status 2                                              then raw bytes both ways
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;

use super::wire::{BodyError, Fields, put_text};
use super::{Number, SessionName, SessionSecret, Status, VERSION};

/// Why the bytes of a data connection are not lawful; it has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The hello does not begin with its magic word.
    #[error("the magic word of a data connection is wrong")]
    Magic,
    /// Another version than [`VERSION`].
    #[error("version {0} on a data connection")]
    Version(u8),
    /// Another message than the one due.
    #[error("message {0:#04x} on a data connection")]
    UnknownType(u8),
    /// Longer than its fields can be.
    #[error("a message of {0} bytes")]
    TooLong(u16),
    /// More preread bytes than [`PREREAD_LEN_MAX`].
    #[error("{0} preread bytes")]
    PrereadTooLong(u32),
    /// A field is wrong.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// What a data connection claims in its first bytes. Nothing of it counts before
/// [`Claim::is_signed_with`] said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The control session that it belongs to.
    pub session: SessionName,
    /// Used once per session.
    pub seq: u64,
    mac: [u8; MAC_LEN],
}

/// The hello of a data connection, signed.
#[must_use]
pub fn hello(session: &SessionName, seq: u64, secret: &SessionSecret) -> [u8; HELLO_LEN] {
    let mut hello = [0; HELLO_LEN];
    let (claim, mac) = hello.split_at_mut(CLAIM_LEN);
    claim.copy_from_slice(&claim_bytes(session, seq));
    mac.copy_from_slice(hmac::sign(&key(secret), claim).as_ref());
    hello
}

impl Claim {
    /// Reads the hello at the front of `received`; `None` while it is not whole.
    pub fn parse(received: &[u8]) -> Result<Option<Self>, DataError> {
        let magic = received.len().min(MAGIC.len());
        if received[..magic] != MAGIC[..magic] {
            return Err(DataError::Magic);
        }
        if let Some(&version) = received.get(MAGIC.len())
            && version != VERSION
        {
            return Err(DataError::Version(version));
        }
        let Some(hello) = received.first_chunk::<HELLO_LEN>() else {
            return Ok(None);
        };
        let mut fields = Fields::of(&hello[MAGIC.len() + 1..]);
        Ok(Some(Self {
            session: fields.take()?,
            seq: fields.u64()?,
            mac: fields.take()?,
        }))
    }

    /// Compares the signature in constant time.
    #[must_use]
    pub fn is_signed_with(&self, secret: &SessionSecret) -> bool {
        let claim = claim_bytes(&self.session, self.seq);
        hmac::verify(&key(secret), &claim, &self.mac).is_ok()
    }
}

fn claim_bytes(session: &SessionName, seq: u64) -> [u8; CLAIM_LEN] {
    let mut claim = [0; CLAIM_LEN];
    claim[..4].copy_from_slice(&MAGIC);
    claim[4] = VERSION;
    claim[5..21].copy_from_slice(session);
    claim[21..].copy_from_slice(&seq.to_be_bytes());
    claim
}

fn key(secret: &SessionSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

/// The edge hands a client over to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Unique at this edge; CLOSED names it.
    pub dial_id: u64,
    /// Where the client is taken.
    pub reg_id: u32,
    /// What it showed.
    pub number: Number,
    /// Where it comes from.
    pub client: SocketAddr,
    /// How many bytes follow that it has sent already.
    pub preread_len: u32,
    /// The server name of its TLS handshake, or nothing.
    pub sni: Box<str>,
}

impl Open {
    /// Reads the OPEN at the front of `received` and says how long it is; `None` while it is not
    /// whole. The preread bytes come behind it.
    pub fn parse(received: &[u8]) -> Result<Option<(Self, usize)>, DataError> {
        let Some(head) = head(received, OPEN)? else {
            return Ok(None);
        };
        let body_len = u16::from_be_bytes(head);
        if usize::from(body_len) > OPEN_BODY_LEN_MAX {
            return Err(DataError::TooLong(body_len));
        }
        let len = HEAD_LEN + usize::from(body_len);
        let Some(body) = received.get(HEAD_LEN..len) else {
            return Ok(None);
        };
        Ok(Some((Self::take(body)?, len)))
    }

    fn take(body: &[u8]) -> Result<Self, DataError> {
        let mut fields = Fields::of(body);
        let open = Self {
            dial_id: fields.u64()?,
            reg_id: fields.u32()?,
            number: Number(fields.u64()?),
            client: {
                let ip = IpAddr::V6(Ipv6Addr::from(fields.take::<16>()?)).to_canonical();
                SocketAddr::new(ip, fields.u16()?)
            },
            preread_len: fields.u32()?,
            sni: fields.text()?,
        };
        fields.end()?;
        if open.preread_len > PREREAD_LEN_MAX {
            return Err(DataError::PrereadTooLong(open.preread_len));
        }
        Ok(open)
    }

    /// The OPEN without the preread bytes, which the caller sends behind it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION, OPEN, 0, 0];
        out.extend_from_slice(&self.dial_id.to_be_bytes());
        out.extend_from_slice(&self.reg_id.to_be_bytes());
        out.extend_from_slice(&self.number.0.to_be_bytes());
        let ip = match self.client.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.client.port().to_be_bytes());
        out.extend_from_slice(&self.preread_len.to_be_bytes());
        put_text(&mut out, &self.sni);
        let body_len = u16::try_from(out.len() - HEAD_LEN).expect("at most OPEN_BODY_LEN_MAX");
        out[2..HEAD_LEN].copy_from_slice(&body_len.to_be_bytes());
        out
    }
}

/// The agent's answer to OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenAck(pub Status);

impl OpenAck {
    /// Reads the answer at the front of `received`, [`HEAD_LEN`] bytes; `None` while it is not
    /// whole. What follows is the stream of the server.
    pub fn parse(received: &[u8]) -> Result<Option<Self>, DataError> {
        let Some(code) = head(received, OPEN_ACK)? else {
            return Ok(None);
        };
        let code = u16::from_be_bytes(code);
        let status = Status::from_code(code).ok_or(BodyError::Status(code))?;
        Ok(Some(Self(status)))
    }

    /// The answer as bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEAD_LEN] {
        let [high, low] = self.0.code().to_be_bytes();
        [VERSION, OPEN_ACK, high, low]
    }
}

/// Checks version and type as soon as they are there and gives the two bytes behind them.
fn head(received: &[u8], due: u8) -> Result<Option<[u8; 2]>, DataError> {
    match received {
        [version, ..] if *version != VERSION => Err(DataError::Version(*version)),
        [_, kind, ..] if *kind != due => Err(DataError::UnknownType(*kind)),
        [_, _, high, low, ..] => Ok(Some([*high, *low])),
        [] | [_] | [_, _] | [_, _, _] => Ok(None),
    }
}

/// For fuzzing: no bytes that nobody has signed prove a session, in whatever pieces they come.
///
/// # Panics
/// When they do.
pub fn fuzz_hello(bytes: &[u8]) {
    let secret = SessionSecret([0x5a; 32]);
    for cut in 0..=bytes.len().min(HELLO_LEN) {
        match Claim::parse(&bytes[..cut]) {
            Ok(Some(claim)) => {
                assert_eq!(cut, HELLO_LEN);
                assert!(!claim.is_signed_with(&secret));
                assert!(!(cfg!(planted_bug) && claim.seq == 0x0102), "planted bug");
                let signed = hello(&claim.session, claim.seq, &secret);
                assert_eq!(signed[..CLAIM_LEN], bytes[..CLAIM_LEN]);
            }
            Ok(None) => assert!(cut < HELLO_LEN),
            Err(_) => return,
        }
    }
}

/// For fuzzing: an OPEN that is read is written as it came, and so is its answer.
///
/// # Panics
/// When it is not.
pub fn fuzz_open(bytes: &[u8]) {
    if let Ok(Some((open, len))) = Open::parse(bytes) {
        assert!(len <= OPEN_LEN_MAX && open.preread_len <= PREREAD_LEN_MAX);
        let written = open.to_bytes();
        let again = Open::parse(&written);
        assert_eq!(again, Ok(Some((open, written.len()))));
        assert_eq!(written.len(), len);
        assert!(!(cfg!(planted_bug) && len > 60), "planted bug");
    }
    if let Ok(Some(ack)) = OpenAck::parse(bytes) {
        assert_eq!(ack.to_bytes(), bytes[..HEAD_LEN]);
    }
}

const MAGIC: [u8; 4] = *b"EWRD";
const OPEN: u8 = 0x40;
const OPEN_ACK: u8 = 0x41;
/// Magic word, version, session, sequence number: what is signed.
const CLAIM_LEN: usize = 29;
const MAC_LEN: usize = 32;
/// The hello is always so long.
pub const HELLO_LEN: usize = CLAIM_LEN + MAC_LEN;
/// Version, type and length (OPEN) or status (`OPEN_ACK`); an `OPEN_ACK` is nothing else.
pub const HEAD_LEN: usize = 4;
/// The fixed fields, a length byte and the longest string.
const OPEN_BODY_LEN_MAX: usize = 8 + 4 + 8 + 16 + 2 + 4 + 1 + 255;
/// What an agent has to hold at most to see one OPEN whole.
pub const OPEN_LEN_MAX: usize = HEAD_LEN + OPEN_BODY_LEN_MAX;
/// Ours: the edge prereads 4 KiB by default; an agent holds no more than this for a target that
/// has not answered yet.
pub const PREREAD_LEN_MAX: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hex;

    const HELLO: &str = "4557524401202122232425262728292a2b2c2d2e2f0000000000000001\
                         556d4a2a0c815729acccb8e3c51beeba079b8e54ebad5c6af5a39f62fd3f4cfe";
    /// With the preread bytes `abc` behind it.
    const OPEN_ABC: &str = "0140003b000000000000000900000001112210f47de9811500000000000000000000ffffc0000207\
                            c75a0000000310636f6e662e636f6e746f736f2e636f6d616263";

    fn session() -> SessionName {
        std::array::from_fn(|i| 0x20 + i as u8)
    }

    fn secret() -> SessionSecret {
        SessionSecret(std::array::from_fn(|i| 0x40 + i as u8))
    }

    fn open() -> Open {
        Open {
            dial_id: 9,
            reg_id: 1,
            number: Number(1_234_567_890_123_456_789),
            client: "192.0.2.7:51034".parse().expect("address"),
            preread_len: 3,
            sni: "conf.contoso.com".into(),
        }
    }

    #[test]
    fn the_vectors_of_the_description_hold_both_ways() {
        assert_eq!(hello(&session(), 1, &secret()).to_vec(), hex(HELLO));
        let claim = Claim::parse(&hex(HELLO)).expect("lawful").expect("whole");
        assert_eq!((claim.session, claim.seq), (session(), 1));
        assert!(claim.is_signed_with(&secret()));

        let wire = hex(OPEN_ABC);
        assert_eq!([&open().to_bytes()[..], b"abc"].concat(), wire);
        assert_eq!(Open::parse(&wire), Ok(Some((open(), wire.len() - 3))));

        let ack = hex("01410000");
        assert_eq!(OpenAck(Status::Ok).to_bytes().to_vec(), ack);
        assert_eq!(OpenAck::parse(&ack), Ok(Some(OpenAck(Status::Ok))));
    }

    #[test]
    fn every_cut_of_a_message_waits_for_the_rest() {
        let (hello, open, ack) = (hex(HELLO), hex(OPEN_ABC), hex("0141000c"));
        for cut in 0..hello.len() {
            assert_eq!(Claim::parse(&hello[..cut]), Ok(None), "cut at {cut}");
        }
        for cut in 0..open.len() - 3 {
            assert_eq!(Open::parse(&open[..cut]), Ok(None), "cut at {cut}");
        }
        for cut in 0..ack.len() {
            assert_eq!(OpenAck::parse(&ack[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_bit_anywhere_in_the_hello_is_no_signature() {
        for bit in 0..HELLO_LEN * 8 {
            let mut wire = hex(HELLO);
            wire[bit / 8] ^= 1 << (bit % 8);
            let signed =
                Claim::parse(&wire).map(|claim| claim.expect("whole").is_signed_with(&secret()));
            assert!(matches!(signed, Ok(false) | Err(_)), "bit {bit}");
        }
        let claim = Claim::parse(&hex(HELLO)).expect("lawful").expect("whole");
        assert!(!claim.is_signed_with(&SessionSecret([0; 32])));
    }

    #[test]
    fn every_wrong_field_has_its_reason() {
        assert_eq!(Claim::parse(b"EWRP"), Err(DataError::Magic));
        assert_eq!(Claim::parse(b"G"), Err(DataError::Magic));
        assert_eq!(Claim::parse(b"EWRD\x02"), Err(DataError::Version(2)));

        let refused = |at: usize, byte: u8| {
            let mut wire = hex(OPEN_ABC);
            wire[at] = byte;
            Open::parse(&wire)
        };
        assert_eq!(refused(0, 2), Err(DataError::Version(2)));
        assert_eq!(refused(1, 0x41), Err(DataError::UnknownType(0x41)));
        assert_eq!(refused(2, 0x02), Err(DataError::TooLong(0x023b)));
        assert_eq!(refused(3, 0x3a), Err(BodyError::Short.into()));
        assert_eq!(refused(3, 0x3c), Err(BodyError::Trailing.into()));
        assert_eq!(refused(42, 1), Err(DataError::PrereadTooLong(0x0100_0003)));
        assert_eq!(refused(47, 0xff), Err(BodyError::Text.into()));

        assert_eq!(OpenAck::parse(&[0]), Err(DataError::Version(0)));
        assert_eq!(
            OpenAck::parse(&[1, 0x40]),
            Err(DataError::UnknownType(0x40))
        );
        let unknown = OpenAck::parse(&[1, 0x41, 0, 19]);
        assert_eq!(unknown, Err(BodyError::Status(19).into()));
    }

    proptest! {
        #[test]
        fn what_is_emitted_reads_back(
            (dial_id, reg_id, number, port) in any::<(u64, u32, u64, u16)>(),
            ip in any::<IpAddr>(),
            preread_len in 0..=PREREAD_LEN_MAX,
            sni in "[a-z0-9.-]{0,255}",
        ) {
            let open = Open {
                dial_id,
                reg_id,
                number: Number(number),
                client: SocketAddr::new(ip.to_canonical(), port),
                preread_len,
                sni: sni.into_boxed_str(),
            };
            let wire = open.to_bytes();
            prop_assert!(wire.len() <= OPEN_LEN_MAX);
            prop_assert_eq!(Open::parse(&wire), Ok(Some((open, wire.len()))));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz_hello(&bytes);
            fuzz_open(&bytes);
            fuzz_hello(&[b"EWRD\x01", &bytes[..]].concat());
            fuzz_open(&[b"\x01\x40\x00\x2b", &bytes[..]].concat());
            fuzz_open(&[b"\x01\x41", &bytes[..]].concat());
        }
    }
}

//! What a control frame says.
//!
//! A [`Frame`] that exists is lawful by itself; whether it may come now, from this agent, is the
//! broker's question. `parse(emit(frame))` is the frame again.

use super::frame::{self, Kind};
use super::wire::{Fields, put_text};
use super::{Number, SessionName, SessionSecret, Status};

pub use super::wire::BodyError;

/// One control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// See [`Kind::Hello`].
    Hello(Hello),
    /// See [`Kind::HelloAck`].
    HelloAck(HelloAck),
    /// See [`Kind::Register`].
    Register(Register),
    /// See [`Kind::RegisterAck`].
    RegisterAck {
        /// The registration.
        reg_id: u32,
        /// [`Status::Ok`] or why not.
        status: Status,
    },
    /// See [`Kind::Unregister`].
    Unregister {
        /// The registration.
        reg_id: u32,
    },
    /// See [`Kind::Admit`].
    Admit(Admit),
    /// See [`Kind::AdmitAck`].
    AdmitAck {
        /// The number.
        number: Number,
        /// [`Status::Ok`] or why not.
        status: Status,
    },
    /// See [`Kind::Revoke`].
    Revoke {
        /// The number.
        number: Number,
        /// Whether live connections that used it are closed too.
        cut: bool,
    },
    /// See [`Kind::Want`].
    Want {
        /// So many more.
        count: u16,
        /// After this time the edge asks anew.
        deadline_ms: u32,
    },
    /// See [`Kind::DialFail`].
    DialFail {
        /// So many of those wanted.
        count: u16,
        /// Why.
        status: Status,
    },
    /// See [`Kind::Closed`].
    Closed(Closed),
    /// See [`Kind::Ping`].
    Ping {
        /// Comes back in the PONG.
        nonce: u64,
    },
    /// See [`Kind::Pong`].
    Pong {
        /// Of the PING.
        nonce: u64,
    },
    /// See [`Kind::Drain`].
    Drain(Drain),
    /// See [`Kind::DrainAck`].
    DrainAck(Drain),
    /// See [`Kind::Goaway`].
    Goaway {
        /// Why.
        status: Status,
        /// The same for a human.
        text: Box<str>,
    },
}

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The least version it speaks.
    pub version_min: u8,
    /// The greatest version it speaks.
    pub version_max: u8,
    /// Made once per installation of the agent.
    pub agent_id: [u8; 16],
    /// Grows with each control connection of the agent.
    pub epoch: u64,
    /// Capability bits; none is defined yet, unknown ones are ignored.
    pub caps: u32,
    /// Relayed connections that it takes at once; 0 means that it knows no limit.
    pub max_conns: u32,
    /// Must be a DNS name of its certificate.
    pub fqdn: Box<str>,
}

/// The session that the edge opened for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAck {
    /// The version that both speak from here.
    pub version: u8,
    /// Which edge it is.
    pub edge_id: [u8; 16],
    /// What data connections name.
    pub session: SessionName,
    /// What they sign with.
    pub secret: SessionSecret,
    /// Time between two PINGs.
    pub heartbeat_ms: u32,
    /// Data connections that the edge keeps parked at least.
    pub pool_min: u16,
    /// And at most.
    pub pool_max: u16,
    /// The clock of the edge, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// What kind of thing is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RegistrationKind {
    /// A conference server.
    Server = 1,
    /// One conference.
    Conference = 2,
    /// Any other service over TCP.
    TcpService = 3,
}

/// A server, a conference or a service behind the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Chosen by the agent; what ADMIT and OPEN name.
    pub reg_id: u32,
    /// Decides which names are allowed.
    pub kind: RegistrationKind,
    /// Share among registrations of one name; for later versions.
    pub weight: u16,
    /// Relayed connections at once; 0 means no limit.
    pub max_conns: u32,
    /// It ends by itself after so many seconds; 0 means with the session.
    pub ttl_s: u32,
    /// Its name.
    pub name: Box<str>,
}

/// Lets the client through that shows the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admit {
    /// Where the client is taken.
    pub reg_id: u32,
    /// What it shows.
    pub number: Number,
    /// How long it may come.
    pub ttl_ms: u32,
    /// How often.
    pub uses: u16,
}

/// What a relayed connection came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Of the OPEN.
    pub dial_id: u64,
    /// How it ended.
    pub status: Status,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
}

/// When and why the sender stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// What still runs then is cut.
    pub deadline_ms: u32,
    /// Why.
    pub reason: Status,
}

impl Frame {
    /// Reads the body of a frame.
    pub fn parse(kind: Kind, body: &[u8]) -> Result<Self, BodyError> {
        let mut fields = Fields::of(body);
        let frame = Self::take(kind, &mut fields)?;
        fields.end()?;
        Ok(frame)
    }

    fn take(kind: Kind, fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        Ok(match kind {
            Kind::Hello => Self::Hello(Hello::take(fields)?),
            Kind::HelloAck => Self::HelloAck(HelloAck::take(fields)?),
            Kind::Register => Self::Register(Register::take(fields)?),
            Kind::RegisterAck => Self::RegisterAck {
                reg_id: u32::try_from(fields.u64()?).map_err(|_| BodyError::Key)?,
                status: fields.status()?,
            },
            Kind::Unregister => Self::Unregister {
                reg_id: fields.u32()?,
            },
            Kind::Admit => Self::Admit(Admit {
                reg_id: fields.u32()?,
                number: Number(fields.u64()?),
                ttl_ms: fields.u32()?,
                uses: fields.u16()?,
            }),
            Kind::AdmitAck => Self::AdmitAck {
                number: Number(fields.u64()?),
                status: fields.status()?,
            },
            Kind::Revoke => Self::Revoke {
                number: Number(fields.u64()?),
                cut: fields.flag()?,
            },
            Kind::Want => Self::Want {
                count: fields.u16()?,
                deadline_ms: fields.u32()?,
            },
            Kind::DialFail => Self::DialFail {
                count: fields.u16()?,
                status: fields.status()?,
            },
            Kind::Closed => Self::Closed(Closed {
                dial_id: fields.u64()?,
                status: fields.status()?,
                bytes_in: fields.u64()?,
                bytes_out: fields.u64()?,
            }),
            Kind::Ping => Self::Ping {
                nonce: fields.u64()?,
            },
            Kind::Pong => Self::Pong {
                nonce: fields.u64()?,
            },
            Kind::Drain => Self::Drain(Drain::take(fields)?),
            Kind::DrainAck => Self::DrainAck(Drain::take(fields)?),
            Kind::Goaway => Self::Goaway {
                status: fields.status()?,
                text: fields.text()?,
            },
        })
    }

    /// The type byte that it is sent under.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::HelloAck(_) => Kind::HelloAck,
            Self::Register(_) => Kind::Register,
            Self::RegisterAck { .. } => Kind::RegisterAck,
            Self::Unregister { .. } => Kind::Unregister,
            Self::Admit(_) => Kind::Admit,
            Self::AdmitAck { .. } => Kind::AdmitAck,
            Self::Revoke { .. } => Kind::Revoke,
            Self::Want { .. } => Kind::Want,
            Self::DialFail { .. } => Kind::DialFail,
            Self::Closed(_) => Kind::Closed,
            Self::Ping { .. } => Kind::Ping,
            Self::Pong { .. } => Kind::Pong,
            Self::Drain(_) => Kind::Drain,
            Self::DrainAck(_) => Kind::DrainAck,
            Self::Goaway { .. } => Kind::Goaway,
        }
    }

    /// Appends the frame, head and body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        frame::emit(out, self.kind(), |out| self.put_body(out));
    }

    /// The frame as bytes of its own.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.emit(&mut out);
        out
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => hello.put(out),
            Self::HelloAck(ack) => ack.put(out),
            Self::Register(register) => register.put(out),
            Self::RegisterAck { reg_id, status } => {
                out.extend_from_slice(&u64::from(*reg_id).to_be_bytes());
                put_status(out, *status);
            }
            Self::Unregister { reg_id } => out.extend_from_slice(&reg_id.to_be_bytes()),
            Self::Admit(admit) => {
                out.extend_from_slice(&admit.reg_id.to_be_bytes());
                out.extend_from_slice(&admit.number.0.to_be_bytes());
                out.extend_from_slice(&admit.ttl_ms.to_be_bytes());
                out.extend_from_slice(&admit.uses.to_be_bytes());
            }
            Self::AdmitAck { number, status } => {
                out.extend_from_slice(&number.0.to_be_bytes());
                put_status(out, *status);
            }
            Self::Revoke { number, cut } => {
                out.extend_from_slice(&number.0.to_be_bytes());
                out.push(u8::from(*cut));
            }
            Self::Want { count, deadline_ms } => {
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(&deadline_ms.to_be_bytes());
            }
            Self::DialFail { count, status } => {
                out.extend_from_slice(&count.to_be_bytes());
                put_status(out, *status);
            }
            Self::Closed(closed) => {
                out.extend_from_slice(&closed.dial_id.to_be_bytes());
                put_status(out, closed.status);
                out.extend_from_slice(&closed.bytes_in.to_be_bytes());
                out.extend_from_slice(&closed.bytes_out.to_be_bytes());
            }
            Self::Ping { nonce } | Self::Pong { nonce } => {
                out.extend_from_slice(&nonce.to_be_bytes());
            }
            Self::Drain(drain) | Self::DrainAck(drain) => {
                out.extend_from_slice(&drain.deadline_ms.to_be_bytes());
                put_status(out, drain.reason);
            }
            Self::Goaway { status, text } => {
                put_status(out, *status);
                put_text(out, text);
            }
        }
    }
}

impl Hello {
    fn take(fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        if fields.take()? != MAGIC {
            return Err(BodyError::Magic);
        }
        let hello = Self {
            version_min: fields.u8()?,
            version_max: fields.u8()?,
            agent_id: fields.take()?,
            epoch: fields.u64()?,
            caps: fields.u32()?,
            max_conns: fields.u32()?,
            fqdn: fields.text()?,
        };
        if hello.version_min > hello.version_max {
            return Err(BodyError::VersionRange);
        }
        Ok(hello)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.version_min, self.version_max]);
        out.extend_from_slice(&self.agent_id);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.caps.to_be_bytes());
        out.extend_from_slice(&self.max_conns.to_be_bytes());
        put_text(out, &self.fqdn);
    }
}

impl HelloAck {
    fn take(fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            version: fields.u8()?,
            edge_id: fields.take()?,
            session: fields.take()?,
            secret: SessionSecret(fields.take()?),
            heartbeat_ms: fields.u32()?,
            pool_min: fields.u16()?,
            pool_max: fields.u16()?,
            unix_ms: fields.u64()?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.version);
        out.extend_from_slice(&self.edge_id);
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&self.secret.0);
        out.extend_from_slice(&self.heartbeat_ms.to_be_bytes());
        out.extend_from_slice(&self.pool_min.to_be_bytes());
        out.extend_from_slice(&self.pool_max.to_be_bytes());
        out.extend_from_slice(&self.unix_ms.to_be_bytes());
    }
}

impl Register {
    fn take(fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            reg_id: fields.u32()?,
            kind: RegistrationKind::from_byte(fields.u8()?)?,
            weight: fields.u16()?,
            max_conns: fields.u32()?,
            ttl_s: fields.u32()?,
            name: fields.text()?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.reg_id.to_be_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&self.weight.to_be_bytes());
        out.extend_from_slice(&self.max_conns.to_be_bytes());
        out.extend_from_slice(&self.ttl_s.to_be_bytes());
        put_text(out, &self.name);
    }
}

impl RegistrationKind {
    const fn from_byte(byte: u8) -> Result<Self, BodyError> {
        match byte {
            1 => Ok(Self::Server),
            2 => Ok(Self::Conference),
            3 => Ok(Self::TcpService),
            other => Err(BodyError::Kind(other)),
        }
    }
}

impl Drain {
    fn take(fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            deadline_ms: fields.u32()?,
            reason: fields.status()?,
        })
    }
}

fn put_status(out: &mut Vec<u8>, status: Status) {
    out.extend_from_slice(&status.code().to_be_bytes());
}

/// For fuzzing: what is framed and read is written as it came.
///
/// # Panics
/// When it is not.
pub fn fuzz(mut bytes: &[u8]) {
    while let Ok(frame::Step::Frame { kind, body, len }) = frame::next(bytes) {
        assert!(len <= bytes.len() && len <= frame::FRAME_LEN_MAX);
        if let Ok(read) = Frame::parse(kind, body) {
            assert_eq!(read.kind(), kind);
            assert!(!(cfg!(planted_bug) && len > 40), "planted bug");
            assert_eq!(read.to_bytes(), bytes[..len], "{kind:?}");
        }
        bytes = &bytes[len..];
    }
}

/// The first four bytes of a HELLO.
const MAGIC: [u8; 4] = *b"EWRP";
/// The longest time that a number may be admitted for.
pub const TTL_MS_MAX: u32 = 3_600_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{HEAD_LEN, Step};
    use super::*;
    use crate::hex;

    /// The vectors of EWRP/1, typed in from its description.
    fn vectors() -> Vec<(Frame, &'static str)> {
        let number = Number(1_234_567_890_123_456_789);
        vec![
            (
                Frame::Hello(Hello {
                    version_min: 1,
                    version_max: 1,
                    agent_id: *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f",
                    epoch: 7,
                    caps: 0,
                    max_conns: 20_000,
                    fqdn: "mcu1.test".into(),
                }),
                "0101000000000030455752500101000102030405060708090a0b0c0d0e0f0000000000000007\
                 0000000000004e20096d6375312e74657374",
            ),
            (
                Frame::HelloAck(HelloAck {
                    version: 1,
                    edge_id: std::array::from_fn(|i| 0x10 + i as u8),
                    session: std::array::from_fn(|i| 0x20 + i as u8),
                    secret: SessionSecret(std::array::from_fn(|i| 0x40 + i as u8)),
                    heartbeat_ms: 15_000,
                    pool_min: 32,
                    pool_max: 512,
                    unix_ms: 1_700_000_000_000,
                }),
                "010200000000005101101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f\
                 404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f\
                 00003a98002002000000018bcfe56800",
            ),
            (
                Frame::Register(Register {
                    reg_id: 1,
                    kind: RegistrationKind::Server,
                    weight: 100,
                    max_conns: 0,
                    ttl_s: 0,
                    name: "mcu1.test".into(),
                }),
                "0103000000000019000000010100640000000000000000096d6375312e74657374",
            ),
            (
                Frame::RegisterAck {
                    reg_id: 1,
                    status: Status::Ok,
                },
                "010400000000000a00000000000000010000",
            ),
            (
                Frame::Admit(Admit {
                    reg_id: 1,
                    number,
                    ttl_ms: 60_000,
                    uses: 1,
                }),
                "010600000000001200000001112210f47de981150000ea600001",
            ),
            (
                Frame::AdmitAck {
                    number,
                    status: Status::Limit,
                },
                "010700000000000a112210f47de981150006",
            ),
            (
                Frame::Want {
                    count: 8,
                    deadline_ms: 5_000,
                },
                "0110000000000006000800001388",
            ),
            (Frame::Ping { nonce: 1 }, "01200000000000080000000000000001"),
            (
                Frame::Drain(Drain {
                    deadline_ms: 900_000,
                    reason: Status::Shutdown,
                }),
                "0130000000000006000dbba00011",
            ),
            (
                Frame::Goaway {
                    status: Status::Protocol,
                    text: "bad frame".into(),
                },
                "013f00000000000c000109626164206672616d65",
            ),
        ]
    }

    #[test]
    fn the_vectors_of_the_description_hold_both_ways() {
        for (frame, wire) in vectors() {
            let wire = hex(wire);
            assert_eq!(frame.to_bytes(), wire, "{frame:?}");
            assert_eq!(read(&wire), Ok(frame));
        }
    }

    #[test]
    fn every_cut_of_the_vectors_gives_the_same_frames() {
        let stream: Vec<u8> = vectors().iter().flat_map(|(_, wire)| hex(wire)).collect();
        let whole: Vec<Frame> = vectors().into_iter().map(|(frame, _)| frame).collect();
        for cut in 0..=stream.len() {
            let (mut pending, mut seen) = (Vec::new(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                pending.extend_from_slice(part);
                loop {
                    let (frame, len) = match frame::next(&pending).expect("lawful") {
                        Step::NeedMore => break,
                        Step::Frame { kind, body, len } => {
                            (Frame::parse(kind, body).expect("lawful"), len)
                        }
                    };
                    seen.push(frame);
                    pending.drain(..len);
                }
            }
            assert_eq!(seen, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_body_one_byte_short_or_long_is_refused() {
        for (frame, wire) in vectors() {
            let body = &hex(wire)[HEAD_LEN..];
            for len in 0..body.len() {
                let cut = Frame::parse(frame.kind(), &body[..len]);
                assert_eq!(cut, Err(BodyError::Short), "{frame:?} cut to {len}");
            }
            let long = [body, b"x"].concat();
            let refused = Frame::parse(frame.kind(), &long);
            assert_eq!(refused, Err(BodyError::Trailing), "{frame:?}");
        }
    }

    #[test]
    fn every_wrong_field_has_its_reason() {
        let refused = |at: usize, byte: u8, wire: &str, error: BodyError| {
            let mut wire = hex(wire);
            wire[at] = byte;
            assert_eq!(read(&wire), Err(error));
        };
        let hello = vectors()[0].1;
        refused(8, b'e', hello, BodyError::Magic);
        refused(12, 2, hello, BodyError::VersionRange);
        refused(HEAD_LEN + 39, 0xff, hello, BodyError::Text);
        refused(12, 4, vectors()[2].1, BodyError::Kind(4));
        refused(12, 0, vectors()[2].1, BodyError::Kind(0));
        refused(8, 1, vectors()[3].1, BodyError::Key);
        refused(17, 19, vectors()[3].1, BodyError::Status(19));
        refused(16, 1, vectors()[5].1, BodyError::Status(0x0106));
        refused(12, 0xff, vectors()[8].1, BodyError::Status(0xff11));
        refused(8, 0x7f, vectors()[9].1, BodyError::Status(0x7f01));
        let revoke = "0108000000000009112210f47de9811501";
        assert!(read(&hex(revoke)).is_ok());
        refused(16, 2, revoke, BodyError::Flag(2));
    }

    proptest! {
        #[test]
        fn what_is_emitted_reads_back(frame in any_frame()) {
            fuzz(&frame.to_bytes());
            prop_assert_eq!(read(&frame.to_bytes()), Ok(frame));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            for kind in Kind::ALL {
                // What is accepted is exactly what we would have sent.
                if let Ok(frame) = Frame::parse(kind, &bytes) {
                    prop_assert_eq!(&frame.to_bytes()[HEAD_LEN..], &bytes[..]);
                }
            }
        }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let status = any_status;
        let text = || "[a-z0-9.é]{0,60}".prop_map(|text: String| text.into_boxed_str());
        let drain = move || {
            (any::<u32>(), status()).prop_map(|(deadline_ms, reason)| Drain {
                deadline_ms,
                reason,
            })
        };
        prop_oneof![
            (any::<([u8; 16], u64, u32, u32)>(), 1..=3u8, text()).prop_map(
                |((agent_id, epoch, caps, max_conns), version_min, fqdn)| Frame::Hello(Hello {
                    version_min,
                    version_max: 3,
                    agent_id,
                    epoch,
                    caps,
                    max_conns,
                    fqdn,
                })
            ),
            any::<([u8; 16], [u8; 16], [u8; 32], u32, u16, u16, u64)>().prop_map(
                |(edge_id, session, secret, heartbeat_ms, pool_min, pool_max, unix_ms)| {
                    Frame::HelloAck(HelloAck {
                        version: 1,
                        edge_id,
                        session,
                        secret: SessionSecret(secret),
                        heartbeat_ms,
                        pool_min,
                        pool_max,
                        unix_ms,
                    })
                }
            ),
            (any::<(u32, u16, u32, u32)>(), 1..=3u8, text()).prop_map(
                |((reg_id, weight, max_conns, ttl_s), kind, name)| Frame::Register(Register {
                    reg_id,
                    kind: RegistrationKind::from_byte(kind).expect("1 to 3"),
                    weight,
                    max_conns,
                    ttl_s,
                    name,
                })
            ),
            (any::<u32>(), status())
                .prop_map(|(reg_id, status)| Frame::RegisterAck { reg_id, status }),
            any::<u32>().prop_map(|reg_id| Frame::Unregister { reg_id }),
            any::<(u32, u64, u32, u16)>().prop_map(|(reg_id, number, ttl_ms, uses)| {
                Frame::Admit(Admit {
                    reg_id,
                    number: Number(number),
                    ttl_ms,
                    uses,
                })
            }),
            (any::<u64>(), status()).prop_map(|(number, status)| Frame::AdmitAck {
                number: Number(number),
                status
            }),
            any::<(u64, bool)>().prop_map(|(number, cut)| Frame::Revoke {
                number: Number(number),
                cut
            }),
            any::<(u16, u32)>().prop_map(|(count, deadline_ms)| Frame::Want { count, deadline_ms }),
            (any::<u16>(), status()).prop_map(|(count, status)| Frame::DialFail { count, status }),
            (any::<(u64, u64, u64)>(), status()).prop_map(
                |((dial_id, bytes_in, bytes_out), status)| Frame::Closed(Closed {
                    dial_id,
                    status,
                    bytes_in,
                    bytes_out
                })
            ),
            any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
            any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
            drain().prop_map(Frame::Drain),
            drain().prop_map(Frame::DrainAck),
            (status(), text()).prop_map(|(status, text)| Frame::Goaway { status, text }),
        ]
    }

    fn any_status() -> impl Strategy<Value = Status> {
        (0..Status::ALL.len()).prop_map(|at| Status::ALL[at])
    }

    fn read(wire: &[u8]) -> Result<Frame, BodyError> {
        let Ok(Step::Frame { kind, body, len }) = frame::next(wire) else {
            panic!("no whole frame in {wire:02x?}");
        };
        assert_eq!(len, wire.len());
        Frame::parse(kind, body)
    }
}

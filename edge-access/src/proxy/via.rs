//! Our Via on the way out, the sender's Via on the way in, and marks that tell requests apart.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::hash::Hasher;
use std::io::Write;
use std::net::SocketAddr;

use edge_common::host_name::HostName;
use edge_common::sip::edit::Edits;
use edge_common::sip::header::Name;
use edge_common::sip::header::via::{MAGIC_COOKIE, Via};
use edge_common::sip::message::Message;

use super::token::{FlowKey, Realm};

/// Notes on the sender's Via where the request really came from (RFC 3261 §18.2.1, RFC 3581, MS-SIPRE).
///
/// ```text
///  Via: SIP/2.0/tls 10.1.0.10:51034;rport;branch=…
///     → SIP/2.0/tls 10.1.0.10:51034;rport=51034;branch=…;received=192.0.2.10;ms-received-port=51034;ms-received-cid=2A00
/// ```
/// What it claimed of this itself is taken out.
pub fn note_source(message: &Message<'_>, remote: SocketAddr, flow: FlowKey, edits: &mut Edits) {
    let Some(element) = message.list(Name::Via).next() else {
        return;
    };
    let Ok(via) = Via::parse(element.text()) else {
        return;
    };
    edits.replace_with(element.range(), |out| {
        write_noted(element.text(), &via, remote, flow, out);
    });
}

/// Appends the sender's topmost Via, as [`note_source`] leaves it, for an answer of our own; what cannot be
/// read is left as it is.
pub fn write_answered(via: &[u8], remote: SocketAddr, flow: FlowKey, out: &mut Vec<u8>) {
    match Via::parse(via) {
        Ok(read) => write_noted(via, &read, remote, flow, out),
        Err(_) => out.extend_from_slice(via),
    }
}

fn write_noted(text: &[u8], via: &Via<'_>, remote: SocketAddr, flow: FlowKey, out: &mut Vec<u8>) {
    out.extend_from_slice(&text[..text.len() - via.params.text().len()]);
    let mut written = Ok(());
    for param in via.params.iter() {
        let is = |name: &str| param.name.eq_ignore_ascii_case(name.as_bytes());
        if is("received") || is("ms-received-port") || is("ms-received-cid") {
            continue;
        }
        if is("rport") {
            written = written.and_then(|()| write!(out, ";rport={}", remote.port()));
        } else {
            out.extend_from_slice(param.text);
        }
    }
    written = written.and_then(|()| {
        write!(
            out,
            ";received={};ms-received-port={};ms-received-cid={:X}{:02X}{:02X}",
            remote.ip().to_canonical(),
            remote.port(),
            flow.slot,
            flow.core,
            flow.generation & 0xff,
        )
    });
    debug_assert!(written.is_ok(), "a Vec takes every write");
}

/// Appends our whole Via header with the branch that `write_branch` appends.
pub fn write_own(
    transport: &str,
    host: &str,
    port: u16,
    out: &mut Vec<u8>,
    write_branch: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(b"Via: SIP/2.0/");
    out.extend_from_slice(transport.as_bytes());
    out.push(b' ');
    out.extend_from_slice(host.as_bytes());
    out.push(b':');
    out.extend_from_slice(port.to_string().as_bytes());
    out.extend_from_slice(b";branch=");
    write_branch(out);
    out.extend_from_slice(b"\r\n");
}

/// Mixed into the hashes by which a table is searched.
pub type TableKey = [u8; 16];

/// Copies a request that another core wrote for one of our clients, who turned out to be behind a WebSocket: in our Via
/// and in the member of our route that faces the client the transport is another (RFC 7118 §5.2, RFC 5658).
///
/// Both stand on top of their kind; a member of somebody else's route is not touched.
pub fn carry_by_websocket(request: &[u8], host: &HostName, port: u16, out: &mut Vec<u8>) {
    let ours = format!("@{host}:{port};transport=tls;lr>");
    let (mut via, mut route) = (false, false);
    let mut rest = request;
    while let Some(end) = memchr::memmem::find(rest, b"\r\n").filter(|end| *end > 0) {
        let line = &rest[..end];
        if !via && line.starts_with(VIA_TLS) {
            via = true;
            out.extend_from_slice(VIA_WSS);
            out.extend_from_slice(&line[VIA_TLS.len()..]);
        } else if !route && line.starts_with(RECORD_ROUTE) && line.ends_with(ours.as_bytes()) {
            let kept = line.len() - "tls;lr>".len();
            out.extend_from_slice(&line[..kept]);
            out.extend_from_slice(b"ws;lr>");
        } else {
            out.extend_from_slice(line);
        }
        via |= line.starts_with(b"Via:");
        route |= line.starts_with(RECORD_ROUTE);
        out.extend_from_slice(b"\r\n");
        rest = &rest[end + 2..];
    }
    out.extend_from_slice(rest);
}

const VIA_TLS: &[u8] = b"Via: SIP/2.0/TLS ";
const VIA_WSS: &[u8] = b"Via: SIP/2.0/WSS ";
const RECORD_ROUTE: &[u8] = b"Record-Route:";

/// What the marks are made of; all of it was checked before.
#[derive(Clone, Copy, Debug)]
pub struct Marked<'a> {
    /// The Request-URI.
    pub uri: &'a [u8],
    /// The From tag.
    pub from_tag: &'a [u8],
    /// The Call-ID.
    pub call_id: &'a [u8],
    /// The number of the CSeq.
    pub cseq: u32,
    /// What is left of the topmost Route after ours are taken off.
    pub route: &'a [u8],
}

impl Marked<'_> {
    /// Equal when a request comes by again from the same kind of sender with the same destination
    /// (RFC 3261 §16.6 step 8); a spiral differs in one of them.
    #[must_use]
    pub fn loop_mark(&self, realm: Realm) -> u32 {
        let mut hash = Fields::new();
        hash.field(&[realm as u8]);
        hash.field(self.uri);
        hash.field(self.route);
        self.dialog(&mut hash);
        hash.low32()
    }

    /// Equal for all that belongs to one transaction of one sender (RFC 3261 §16.11).
    ///
    /// `key` is this process's secret, so that nobody can make requests that collide. An INVITE, its CANCEL and
    /// its ACK are one. A branch without the cookie says nothing, so the fields of RFC 2543 are always in it; the To tag
    /// is not, as the ACK of a failure has one that its INVITE has not.
    #[must_use]
    pub fn transaction(&self, top: &Via<'_>, method: &[u8], key: &TableKey) -> u64 {
        let mut hash = Fields::new();
        hash.field(key);
        hash.field(match method {
            b"ACK" | b"CANCEL" => b"INVITE",
            other => other,
        });
        let branch = top.branch().unwrap_or_default();
        if branch.len() > MAGIC_COOKIE.len() && branch.starts_with(MAGIC_COOKIE) {
            hash.field(branch);
        }
        hash.field(top.sent_by);
        hash.field(self.uri);
        self.dialog(&mut hash);
        hash.finish()
    }

    fn dialog(&self, hash: &mut Fields) {
        hash.field(self.from_tag);
        hash.field(self.call_id);
        hash.field(&self.cseq.to_be_bytes());
    }
}

/// A short mark of a far end, by which a response is known to come from where its request went.
#[must_use]
pub fn egress_mark(parts: &[&[u8]]) -> u32 {
    let mut hash = Fields::new();
    for part in parts {
        hash.field(part);
    }
    hash.low32()
}

/// A hash over fields none of which can run into the next. Its values are sealed before they leave, so
/// nobody who could profit from a collision sees one.
struct Fields(std::hash::DefaultHasher);

impl Fields {
    fn new() -> Self {
        Self(std::hash::DefaultHasher::new())
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0.write_usize(bytes.len());
        self.0.write(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn low32(&self) -> u32 {
        (self.0.finish() & u64::from(u32::MAX)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::sip::parse::Index;

    fn noted(via: &str) -> String {
        let bytes = format!("BYE sip:b@c SIP/2.0\r\n{via}\r\n\r\n");
        let mut index = Index::new(9);
        let message = Message::parse(bytes.as_bytes(), &mut index).expect("lawful");
        let (mut edits, mut out) = (Edits::new(), Vec::new());
        let flow = FlowKey {
            core: 1,
            slot: 0x2a,
            generation: 0x103,
        };
        let remote = SocketAddr::from(([192, 0, 2, 10], 51034));
        note_source(&message, remote, flow, &mut edits);
        edits.write(bytes.as_bytes(), &mut out);
        let text = String::from_utf8(out).expect("ASCII");
        text.lines().nth(1).expect("second line").to_owned()
    }

    #[test]
    fn the_source_is_noted_on_the_topmost_via_only() {
        assert_eq!(
            noted("Via: SIP/2.0/tls 10.1.0.10:1 , SIP/2.0/TLS z;branch=q"),
            "Via: SIP/2.0/tls 10.1.0.10:1;received=192.0.2.10;ms-received-port=51034;ms-received-cid=2A0103 , \
             SIP/2.0/TLS z;branch=q"
        );
    }

    #[test]
    fn a_forged_source_is_replaced_and_rport_filled_in() {
        assert_eq!(
            noted("v: SIP/2.0/TLS h;received=10.0.0.1;rport;branch=z9hG4bKx;ms-received-cid=00"),
            "v: SIP/2.0/TLS h;rport=51034;branch=z9hG4bKx;received=192.0.2.10;ms-received-port=51034;\
             ms-received-cid=2A0103"
        );
    }

    #[test]
    fn a_request_for_a_browser_names_its_transport_in_what_is_ours_and_nowhere_else() {
        let request = "NOTIFY sip:a@x.invalid SIP/2.0\r\nMax-Forwards: 69\r\nVia: SIP/2.0/TLS e:443;branch=1\r\n\
            Record-Route: <sip:t@sip.contoso.test:443;transport=tls;lr>\r\n\
            Record-Route: <sip:t@sip.contoso.test:443;transport=tls;lr>\r\n\
            Via: SIP/2.0/TLS d\r\n\r\nVia: SIP/2.0/TLS body\r\n";
        let carried = |request: &str| {
            let host = "sip.contoso.test".parse().expect("lawful");
            let mut out = Vec::new();
            carry_by_websocket(request.as_bytes(), &host, 443, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        let expected = request.replacen("TLS", "WSS", 1).replacen("=tls", "=ws", 1);
        assert_eq!(carried(request), expected);
        let foreign = request.replace("sip.contoso.test:443", "pool.contoso.test:443");
        assert_eq!(carried(&foreign), foreign.replacen("TLS", "WSS", 1));
    }

    #[test]
    fn ack_and_cancel_belong_to_their_invite_and_a_spiral_is_no_loop() {
        let via = |text: &'static str| Via::parse(text.as_bytes()).expect("lawful");
        let marked = Marked {
            uri: b"sip:b@c",
            from_tag: b"1",
            call_id: b"x",
            cseq: 7,
            route: b"",
        };
        let transaction =
            |marked: &Marked<'_>, top: &Via<'_>| marked.transaction(top, b"INVITE", &[7; 16]);
        let with_branch = via("SIP/2.0/TLS a;branch=z9hG4bK1");
        for method in [b"CANCEL".as_slice(), b"ACK"] {
            assert_eq!(
                transaction(&marked, &with_branch),
                marked.transaction(&with_branch, method, &[7; 16])
            );
        }
        let others = [
            transaction(&marked, &via("SIP/2.0/TLS a;branch=z9hG4bK2")),
            transaction(&marked, &via("SIP/2.0/TLS a;branch=z9hG4bK")),
            transaction(&Marked { cseq: 8, ..marked }, &with_branch),
            // Two fields that run into each other would make these equal.
            transaction(
                &Marked {
                    from_tag: b"1x",
                    call_id: b"",
                    ..marked
                },
                &with_branch,
            ),
            marked.transaction(&with_branch, b"OPTIONS", &[7; 16]),
            marked.transaction(&with_branch, b"INVITE", &[8; 16]),
        ];
        assert!(
            others
                .iter()
                .all(|&other| other != transaction(&marked, &with_branch))
        );

        let spiral = Marked {
            uri: b"sip:b@192.0.2.1",
            ..marked
        };
        assert_ne!(
            spiral.loop_mark(Realm::Inside),
            marked.loop_mark(Realm::Inside)
        );
        assert_ne!(
            marked.loop_mark(Realm::Client),
            marked.loop_mark(Realm::Inside)
        );
    }
}

//! A whole sign-in in the shapes that pidgin-sipe 1.25.0 (libpurple 2.14.12) sends, byte for byte: what it and its
//! home server sign is the same on both sides of the edge (MS-SIPAE, protocol version 4).
//!
//! The messages are our own; their shapes are the client's: `tls` in small letters, `Supported` lines that stand
//! alone, no branch in dialogs, `proxy=replace`, `ms-keep-alive` without a blank.

use super::world::{World, values};
use crate::proxy::token::FlowKey;

/// What is read of a message by who signs it, without the proxy's own reader.
#[derive(Debug, PartialEq, Eq)]
struct Signed(String);

impl Signed {
    /// `<protocol><rand><num><realm><target><Call-ID><CSeq><method><From><tag><To><tag><sip id><tel id><Expires><status>`.
    fn of(message: &str) -> Self {
        let one = |name: &str| values(message, name).first().copied().unwrap_or_default();
        let auth = [
            "Authorization",
            "Proxy-Authorization",
            "Authentication-Info",
            "WWW-Authenticate",
        ]
        .iter()
        .map(|name| one(name))
        .find(|value| !value.is_empty())
        .unwrap_or_default();
        let field = |name: &str| between(auth, &format!("{name}=\""), "\"");
        let uri = |value: &str| between(value, "<", ">");
        let tag = |value: &str| between(value, ";tag=", ";");
        let (from, to, cseq) = (one("From"), one("To"), one("CSeq"));
        let (number, method) = cseq.split_once(' ').unwrap_or_default();
        let identities = values(message, "P-Asserted-Identity").join(",");
        let status = message
            .strip_prefix("SIP/2.0 ")
            .map_or("", |rest| &rest[..3]);
        let parts = [
            "NTLM".to_owned(),
            field("crand") + &field("srand"),
            field("cnum") + &field("snum"),
            field("realm"),
            field("targetname"),
            one("Call-ID").to_owned(),
            number.to_owned(),
            method.to_owned(),
            uri(from),
            tag(from),
            uri(to),
            tag(to),
            between(&identities, "<sip:", ">"),
            between(&identities, "<tel:", ">"),
            one("Expires").to_owned(),
            status.to_owned(),
        ];
        Self(format!("<{}>{auth}", parts.join("><")))
    }
}

fn between(text: &str, from: &str, to: &str) -> String {
    let Some((_, rest)) = text.split_once(from) else {
        return String::new();
    };
    rest.split(to).next().unwrap_or_default().to_owned()
}

const FROM: &str = "From: <sip:alice@contoso.test>;tag=3871546904;epid=8f2c10a4be77\r\n";
const AGENT: &str = "User-Agent: Purple/2.14.12 Sipe/1.25.0 (linux-x86_64)\r\n";
const CONTACT: &str = "Contact: <sip:10.1.0.10:51034;transport=tls;ms-opaque=d3470f2e1d>;methods=\"INVITE, MESSAGE, INFO, SUBSCRIBE, OPTIONS, BYE, CANCEL, NOTIFY, ACK, REFER, BENOTIFY\";proxy=replace;+sip.instance=\"<urn:uuid:4b1682a8-f968-5701-83fc-7c6741dc6697>\"\r\n";

fn register(cseq: u32, authorization: &str) -> String {
    format!(
        "REGISTER sip:contoso.test SIP/2.0\r\n\
         Via: SIP/2.0/tls 10.1.0.10:51034;branch=z9hG4bK5D1A8E0F93B24C7761A{cseq}\r\n{FROM}\
         To: <sip:alice@contoso.test>\r\nMax-Forwards: 70\r\nCSeq: {cseq} REGISTER\r\n{AGENT}\
         Call-ID: 1E68g10C9aA068iE4F1tC2F0b4D19x\r\n{CONTACT}\
         Supported: gruu-10, adhoclist, msrtc-event-categories, com.microsoft.msrtc.presence\r\n\
         Event: registration\r\nAllow-Events: presence\r\nms-keep-alive: UAC;hop-hop=yes\r\n\
         {authorization}Content-Length: 0\r\n\r\n"
    )
}

fn signature(num: u32) -> String {
    format!(
        "NTLM qop=\"auth\", opaque=\"7E4A19C3\", realm=\"SIP Communications Service\", targetname=\"director.contoso.test\", \
         crand=\"6c0a9f1{num}\", cnum=\"{num}\", response=\"0100000066383766653964616{num}00064\""
    )
}

/// A request after the sign-in; `to` may have a tag, and the branch may be missing.
fn signed(
    method: &str,
    uri: &str,
    to: &str,
    num: u32,
    branch: &str,
    more: &str,
    body: &str,
) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/tls 10.1.0.10:51034{branch}\r\n{FROM}To: {to}\r\n\
         Max-Forwards: 70\r\nCSeq: 1 {method}\r\n{AGENT}Call-ID: 77BEg4AE1a8DE0i4tDC2F0b{num}x\r\n{more}\
         Proxy-Authorization: {}\r\nContent-Length: {}\r\n\r\n{body}",
        signature(num),
        body.len()
    )
}

/// The home server's answer; `more` are its own lines.
fn answered(inside: &str, status: &str, more: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in inside
        .split_inclusive("\r\n")
        .take_while(|line| *line != "\r\n")
    {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "From", "Call-ID", "CSeq", "Record-Route"].contains(&name) {
            text += line;
        } else if name == "To" {
            let tag = if line.contains(";tag=") {
                ""
            } else {
                ";tag=9C1D0E"
            };
            text += &line.replace("\r\n", &format!("{tag}\r\n"));
        }
    }
    format!("{text}{more}Content-Length: 0\r\n\r\n")
}

struct Sipe {
    world: World,
    director: FlowKey,
    client: FlowKey,
}

impl Sipe {
    /// One request and its answer; both arrive with what was signed, and every line that is not the edge's to change.
    fn ask(&mut self, request: &str, status: &str, more: &str) -> (String, String) {
        self.world.receive(self.client, request);
        let inside = self.world.sent(self.director).expect("forwarded");
        assert_eq!(Signed::of(&inside), Signed::of(request), "{inside}");
        let own = [
            "Via",
            "Max-Forwards",
            "Contact",
            "Record-Route",
            "Path",
            "ms-keep-alive",
            "ms-edge-proxy-message-trust",
            "Route",
        ];
        let kept = |message: &str| -> Vec<String> {
            let lines = message.split("\r\n").skip(1);
            lines
                .filter(|line| !own.iter().any(|name| line.starts_with(&format!("{name}:"))))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(
            kept(&inside),
            kept(request),
            "each line as it came, and none joined with another"
        );
        let response = answered(&inside, status, more);
        self.world.receive(self.director, &response);
        let mut back = self.world.sent(self.client).expect("answered");
        if back.starts_with("SIP/2.0 100 ") {
            back = self.world.sent(self.client).expect("answered");
        }
        assert_eq!(Signed::of(&back), Signed::of(&response), "{back}");
        for line in more.split("\r\n").filter(|line| !line.is_empty()) {
            assert!(
                back.contains(&format!("\r\n{line}\r\n")),
                "{line} in {back}"
            );
        }
        (inside, back)
    }
}

#[test]
fn a_whole_sign_in_is_signed_alike_on_both_sides_of_the_edge() {
    let mut world = World::new();
    let (director, client) = (world.next_hop(0), world.client(0));
    let mut sipe = Sipe {
        world,
        director,
        client,
    };
    let realm = "realm=\"SIP Communications Service\", targetname=\"director.contoso.test\"";

    let challenge = format!(
        "WWW-Authenticate: NTLM {realm}, version=4\r\nDate: Sun, 22 Nov 2026 11:00:00 GMT\r\n"
    );
    sipe.ask(&register(1, ""), "401 Unauthorized", &challenge);
    let start =
        format!("Authorization: NTLM qop=\"auth\", {realm}, gssapi-data=\"\", version=4\r\n");
    let challenge = format!(
        "WWW-Authenticate: NTLM opaque=\"7E4A19C3\", gssapi-data=\"TlRMTVNTUAACAAAA\", {realm}, version=4\r\n"
    );
    sipe.ask(&register(2, &start), "401 Unauthorized", &challenge);
    let proof = format!(
        "Authorization: {}, gssapi-data=\"TlRMTVNTUAADAAAA\", version=4\r\n",
        signature(1)
    );
    let welcome = "Expires: 7200\r\nContact: <sip:10.1.0.10:51034;transport=tls>;expires=7200;+sip.instance=\"<urn:uuid:4b1682a8-f968-5701-83fc-7c6741dc6697>\";gruu=\"sip:alice@contoso.test;opaque=user:epid:qIIWS2j5AVeD_HxnQdxmlwAA;gruu\"\r\n\
        Supported: msrtc-event-categories\r\nSupported: adhoclist\r\nAllow-Events: vnd-microsoft-provisioning-v2,vnd-microsoft-roaming-contacts,vnd-microsoft-roaming-self\r\n\
        ms-user-logon-data: RemoteUser\r\nAuthentication-Info: NTLM rspauth=\"01000000\", srand=\"0D5FAC1E\", snum=\"1\", opaque=\"7E4A19C3\", qop=\"auth\", targetname=\"director.contoso.test\", realm=\"SIP Communications Service\"\r\n";
    let (inside, back) = sipe.ask(&register(3, &proof), "200 OK", welcome);
    let contact = values(&inside, "Contact")[0];
    assert!(
        contact.starts_with(
            "<sip:192.0.2.10:51034;transport=tls;ms-opaque=d3470f2e1d;ms-received-cid="
        ),
        "{contact}"
    );
    assert!(
        contact.contains(">;methods=\"INVITE, MESSAGE,") && !contact.contains("proxy="),
        "{contact}"
    );
    let told = values(&back, "ms-keep-alive");
    assert!(
        told[0].starts_with("UAS; tcp=no; hop-hop=yes; end-end=no; timeout="),
        "{told:?}"
    );

    let own = "<sip:alice@contoso.test>";
    let notify = "Supported: ms-benotify\r\nProxy-Require: ms-benotify\r\nSupported: ms-piggyback-first-notify\r\n";
    for (num, event) in [
        (2, "vnd-microsoft-roaming-contacts"),
        (3, "vnd-microsoft-provisioning-v2"),
        (4, "vnd-microsoft-roaming-self"),
    ] {
        let more = format!(
            "Event: {event}\r\nAccept: application/vnd-microsoft-roaming-contacts+xml\r\nExpires: 0\r\n{notify}"
        );
        let branch = format!(";branch=z9hG4bK7A{num}");
        let request = signed(
            "SUBSCRIBE",
            "sip:alice@contoso.test",
            own,
            num,
            &branch,
            &more,
            "<provisioningGroupList/>",
        );
        sipe.ask(
            &request,
            "200 OK",
            "ms-piggyback-cseq: 1\r\nSupported: ms-benotify\r\n",
        );
    }
    let mras =
        "sip:MRASLoc.contoso.test@contoso.test;gruu;opaque=srvr:MRAS:0M9gIdY0hVuTd4JUFVi3XwAA";
    let kind = "Content-Type: application/msrtc-media-relay-auth+xml\r\n";
    let request = signed(
        "SERVICE",
        mras,
        &format!("<{mras}>"),
        5,
        ";branch=z9hG4bK7A5",
        kind,
        "<request/>",
    );
    let (inside, _) = sipe.ask(&request, "200 OK", "");
    assert!(
        inside.starts_with(&format!("SERVICE {mras} SIP/2.0\r\n")),
        "a GRUU passes whole"
    );

    // The probe for a group chat, without a branch; its ACK has none either and a signature of its own.
    let chat = "sip:ocschat@contoso.test";
    let request = signed(
        "INVITE",
        chat,
        "<sip:ocschat@contoso.test>",
        6,
        "",
        CONTACT,
        "",
    );
    sipe.ask(&request, "200 OK", CONTACT_INSIDE);
    let ack = signed(
        "ACK",
        chat,
        "<sip:ocschat@contoso.test>;tag=9C1D0E",
        6,
        "",
        "",
        "",
    );
    sipe.world.receive(client, &ack);
    let inside = sipe.world.sent(director).expect("forwarded");
    assert_eq!(Signed::of(&inside), Signed::of(&ack));

    // The server signs what it tells without being asked; nobody answers.
    let path = "Route: <sip:x>\r\n";
    let (inside, _) = {
        let refresh = register(
            4,
            &format!("Authorization: {}, version=4\r\n", signature(7)),
        );
        sipe.ask(&refresh, "200 OK", "Expires: 7200\r\n")
    };
    let route = path.replace("<sip:x>", values(&inside, "Path")[0]);
    let benotify = format!(
        "BENOTIFY sip:192.0.2.10:51034;transport=tls SIP/2.0\r\nVia: SIP/2.0/TLS 10.10.0.50:5061;branch=z9hG4bKD1\r\n\
         Authentication-Info: NTLM rspauth=\"0100\", srand=\"AA\", snum=\"9\", opaque=\"7E4A19C3\", qop=\"auth\", targetname=\"director.contoso.test\", realm=\"SIP Communications Service\"\r\n\
         Max-Forwards: 70\r\nTo: <sip:alice@contoso.test>;tag=3871546904;epid=8f2c10a4be77\r\nFrom: <sip:alice@contoso.test>;tag=9C1D0E\r\n\
         Call-ID: 77BEg4AE1a8DE0i4tDC2F0b4x\r\nCSeq: 2 BENOTIFY\r\n{route}Event: vnd-microsoft-roaming-self\r\nsubscription-state: active;expires=7200\r\nContent-Length: 0\r\n\r\n"
    );
    sipe.world.receive(director, &benotify);
    let outside = sipe.world.sent(client).expect("forwarded");
    assert_eq!(Signed::of(&outside), Signed::of(&benotify));
    assert_eq!(
        (sipe.world.sent(director), &sipe.world.closed[..]),
        (None, &[][..])
    );
}

const CONTACT_INSIDE: &str = "Contact: <sip:ocschat@contoso.test;opaque=user:epid:AAAA;gruu>\r\n";

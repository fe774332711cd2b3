//! `Contact: <…>;proxy=replace`: the first hop puts in where the client really is (MS-SIPRE 2.2, 3.5).
//!
//! ```text
//!  <sip:10.1.0.10:4000;maddr=10.1.0.10;transport=tls;ms-opaque=1>;proxy=replace;q=1
//!  <sip:192.0.2.10:51034;maddr=192.0.2.10;transport=tls;ms-opaque=1;ms-received-cid=TOKEN>;q=1
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::{IpAddr, SocketAddr};

use edge_common::sip::edit::Edits;
use edge_common::sip::header::Name;
use edge_common::sip::header::name_addr::NameAddr;
use edge_common::sip::message::Message;
use edge_common::sip::uri::Uri;

use super::refusal::Refusal;
use super::route::CONTACT_TOKEN;

/// Rewrites every Contact that asks for it.
///
/// `token` is asked for once at most. A message that is not from its first hop, or whose Contact
/// names another transport, cannot be granted it.
pub fn replace(
    message: &Message<'_>,
    remote: SocketAddr,
    first_hop: bool,
    token: impl Fn() -> String,
    edits: &mut Edits,
) -> Result<(), Refusal> {
    for element in message.list(Name::Contact) {
        let Ok(contact) = NameAddr::parse(element.text()) else {
            continue;
        };
        let Some(asked) = contact.params.get("proxy") else {
            continue;
        };
        let uri = Uri::parse(contact.uri).map_err(|_| Refusal::ContactNotReplaceable)?;
        let transport = uri.params.value("transport");
        let lawful = first_hop
            && asked
                .value
                .is_some_and(|v| v.eq_ignore_ascii_case(b"replace"))
            && transport.is_none_or(|t| t.eq_ignore_ascii_case(b"tls"));
        if !lawful {
            return Err(Refusal::ContactNotReplaceable);
        }
        let ip = remote.ip().to_canonical();
        edits.replace(
            message.range_of(uri.hostport),
            SocketAddr::new(ip, remote.port()).to_string().as_bytes(),
        );
        if let Some(maddr) = uri.params.value("maddr") {
            edits.replace(message.range_of(maddr), bracketed(ip).as_bytes());
        }
        for param in uri.params.iter() {
            // All of them: whoever reads ours takes the first.
            if param.name.eq_ignore_ascii_case(CONTACT_TOKEN.as_bytes()) {
                edits.remove(message.range_of(param.text));
            }
        }
        let end = message.range_of(uri.params.text()).end;
        // Without brackets ours would be a parameter of the header, and not come back in a Request-URI.
        let close = if element.text().contains(&b'<') {
            ""
        } else {
            edits.insert(message.range_of(contact.uri).start, b"<");
            ">"
        };
        let own = format!(";{CONTACT_TOKEN}={}{close}", token());
        edits.insert(end, own.as_bytes());
        edits.remove(message.range_of(asked.text));
    }
    Ok(())
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::sip::parse::Index;

    #[expect(
        clippy::unwrap_in_result,
        reason = "the result is what is tested, not the set-up"
    )]
    fn replaced(contact: &str, first_hop: bool) -> Result<String, Refusal> {
        let bytes = format!("REGISTER sip:c SIP/2.0\r\nContact: {contact}\r\n\r\n");
        let mut index = Index::new(9);
        let message = Message::parse(bytes.as_bytes(), &mut index).expect("lawful");
        let (mut edits, mut out) = (Edits::new(), Vec::new());
        let remote = SocketAddr::from(([192, 0, 2, 10], 51034));
        replace(&message, remote, first_hop, || "T".to_owned(), &mut edits).map(|()| {
            edits.write(bytes.as_bytes(), &mut out);
            let text = String::from_utf8_lossy(&out);
            text.lines().nth(1).unwrap_or_default()[9..].to_owned()
        })
    }

    #[test]
    fn the_address_is_replaced_and_everything_else_kept() {
        assert_eq!(
            replaced(
                "<sip:10.1.0.10:4000;maddr=10.1.0.10;transport=tls;ms-opaque=d3470f2e1d>;methods=\"A, B\";proxy=replace;\
                 +sip.instance=\"<urn:uuid:1>\"",
                true
            )
            .as_deref(),
            Ok("<sip:192.0.2.10:51034;maddr=192.0.2.10;transport=tls;ms-opaque=d3470f2e1d;ms-received-cid=T>;\
                methods=\"A, B\";+sip.instance=\"<urn:uuid:1>\"")
        );
        assert_eq!(
            replaced("<sip:a@h?x=y>;proxy=replace", true).as_deref(),
            Ok("<sip:a@192.0.2.10:51034;ms-received-cid=T?x=y>")
        );
        let forged = "<sip:a@h;ms-received-cid=X;q;MS-Received-CID=Y>;proxy=replace";
        assert_eq!(
            replaced(forged, true).as_deref(),
            Ok("<sip:a@192.0.2.10:51034;q;ms-received-cid=T>")
        );
        assert_eq!(replaced("<sip:a@h>", false).as_deref(), Ok("<sip:a@h>"));
        assert_eq!(replaced("*", false).as_deref(), Ok("*"));
    }

    #[test]
    fn a_contact_without_brackets_gets_them_around_what_leads_back() {
        for contact in [
            "sip:a@h:4000;proxy=replace;q=1",
            "sip:a@h:4000 ;proxy=replace;q=1",
        ] {
            let (before, _) = contact.split_once(";proxy").expect("it asks");
            let blank = &before["sip:a@h:4000".len()..];
            assert_eq!(
                replaced(contact, true),
                Ok(format!(
                    "<sip:a@192.0.2.10:51034;ms-received-cid=T>{blank};q=1"
                ))
            );
        }
    }

    #[test]
    fn what_cannot_be_granted_is_refused() {
        let refused = Err(Refusal::ContactNotReplaceable);
        assert_eq!(replaced("<sip:a@h>;proxy=replace", false), refused);
        assert_eq!(replaced("<sip:a@h>;proxy=keep", true), refused);
        assert_eq!(replaced("<sip:a@h>;proxy", true), refused);
        assert_eq!(
            replaced("<sip:a@h;transport=udp>;proxy=replace", true),
            refused
        );
        assert_eq!(replaced("<tel:+1>;proxy=replace", true), refused);
    }
}

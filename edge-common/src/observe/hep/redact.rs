//! What of a message may be shown to those who look at signalling.
//!
//! Credentials never leave: of `Authorization`, `Proxy-Authorization`, `Authentication-Info` and
//! `Proxy-Authentication-Info` the name of the scheme stays. A body leaves only where the operator said so; otherwise its
//! length stays in a header of ours.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use crate::sip::edit::Edits;
use crate::sip::header::Name;
use crate::sip::message::{Header, Message};

/// Writes `message` without its secrets behind what `out` holds. `edits` is only lent for its memory.
pub fn write(message: &Message<'_>, bodies: bool, edits: &mut Edits, out: &mut Vec<u8>) {
    edits.clear();
    for header in message.headers().filter(is_credential) {
        edits.replace_with(header.value_range(), |out| {
            if let Some(scheme) = scheme(header.value()) {
                out.extend_from_slice(scheme.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(WITHHELD);
        });
    }
    let body = message.body().len();
    if !bodies && body > 0 {
        for length in message.all(Name::ContentLength) {
            edits.replace(length.value_range(), b"0");
        }
        let note = format!("{BODY_HEADER}: {body} bytes withheld\r\n");
        edits.insert(message.headers_end(), note.as_bytes());
        let end = message.bytes().len();
        edits.remove(end - body..end);
    }
    edits.write(message.bytes(), out);
}

fn is_credential(header: &Header<'_>) -> bool {
    matches!(
        header.name(),
        Name::Authorization | Name::ProxyAuthorization | Name::AuthenticationInfo
    ) || header
        .written_name()
        .trim_ascii()
        .eq_ignore_ascii_case(b"Proxy-Authentication-Info")
}

/// The scheme, if it is one that is known: a first word that is not may be the secret itself.
fn scheme(value: &[u8]) -> Option<&'static str> {
    let word = value.split(u8::is_ascii_whitespace).next()?;
    SCHEMES
        .into_iter()
        .find(|scheme| word.eq_ignore_ascii_case(scheme.as_bytes()))
}

const SCHEMES: [&str; 6] = ["Digest", "NTLM", "Kerberos", "TLS-DSK", "Basic", "Bearer"];
const WITHHELD: &[u8] = b"withheld";
const BODY_HEADER: &str = "X-Edge-Body";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::parse::Index;

    fn redacted(text: &str, bodies: bool) -> String {
        let mut index = Index::new(64);
        let message = Message::parse(text.as_bytes(), &mut index).unwrap();
        let mut out = Vec::new();
        write(&message, bodies, &mut Edits::new(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_form_of_a_credential_is_withheld() {
        let values = [
            (
                "Digest username=\"a\", response=\"SECRET\"",
                "Digest withheld",
            ),
            ("NTLM qop=\"auth\", gssapi-data=\"SECRET\"", "NTLM withheld"),
            ("TLS-DSK SECRET", "TLS-DSK withheld"),
            ("nextnonce=\"SECRET\"", "withheld"),
            ("SECRET", "withheld"),
            (
                "Digest username=\"a\",\r\n response=\"SECRET\",\r\n\t nonce=\"SECRET\"",
                "Digest withheld",
            ),
            ("", "withheld"),
        ];
        for name in [
            "Authorization",
            "PROXY-authorization",
            "Authentication-Info",
            "Proxy-Authentication-Info",
            "Authorization ",
        ] {
            for (value, shown) in values {
                let text = format!(
                    "REGISTER sip:a SIP/2.0\r\n{name}: {value}\r\nCall-ID: x\r\n{name}: {value}\r\n\r\n"
                );
                let out = redacted(&text, true);
                assert!(!out.contains("SECRET"), "{out}");
                assert_eq!(out.matches(shown).count(), 2, "{name}: {value}: {out}");
                assert!(out.contains("Call-ID: x\r\n"));
            }
        }
    }

    #[test]
    fn a_body_leaves_its_length_behind() {
        let text = "MESSAGE sip:a SIP/2.0\r\nl: 6\r\nContent-Type: text/plain\r\n\r\nSECRET";
        let out = redacted(text, false);
        assert_eq!(
            out,
            "MESSAGE sip:a SIP/2.0\r\nl: 0\r\nContent-Type: text/plain\r\nX-Edge-Body: 6 bytes withheld\r\n\r\n"
        );
        assert_eq!(redacted(text, true), text);
    }

    #[test]
    fn a_message_without_secrets_leaves_as_it_came() {
        let text = "SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"a\"\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(redacted(text, false), text);
    }
}

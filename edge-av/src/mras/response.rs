//! The document of a response.

use std::fmt::Write as _;
use std::net::IpAddr;

use quick_xml::escape::escape;

use super::request::Head;
use super::{NAMESPACE, Phrase};

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub phrase: Phrase,
    /// What of the request is repeated: to and from as they were, not exchanged.
    pub head: Head,
    /// One for each that was asked for; none unless the phrase is OK.
    pub entries: Vec<Answer>,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// credentialsRequestID.
    pub id: String,
    /// The user name, base64.
    pub username: String,
    /// The password, base64.
    pub password: String,
    /// Minutes that it lasts.
    pub minutes: u64,
    /// The realm of the relays.
    pub realm: String,
    /// Where it is good.
    pub relays: Vec<Relay>,
}

/// A relay as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// `internet` or `intranet`.
    pub location: &'static str,
    /// How it is reached.
    pub host: Host,
    /// STUN and TURN over UDP.
    pub udp_port: u16,
    /// STUN and TURN over TCP.
    pub tcp_port: u16,
}

/// A relay's name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// hostName.
    Name(String),
    /// directIPAddress.
    Address(IpAddr),
}

impl Response {
    /// The document. The version is the asker's, where we speak it.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let version = match self.head.version.as_str() {
            "1.0" => "1.0",
            _ => SERVER_VERSION,
        };
        let Head { id, to, from, .. } = &self.head;
        let mut xml = format!(
            "<?xml version=\"1.0\"?>\r\n<response requestID=\"{}\" version=\"{version}\" serverVersion=\"{SERVER_VERSION}\" \
             to=\"{}\" from=\"{}\" reasonPhrase=\"{}\" xmlns=\"{NAMESPACE}\">",
            escape(id),
            escape(to),
            escape(from),
            self.phrase.as_str(),
        );
        self.entries
            .iter()
            .for_each(|answer| answer.push_to(&mut xml));
        xml.push_str("</response>\r\n");
        xml
    }
}

impl Answer {
    fn push_to(&self, xml: &mut String) {
        let Self {
            id,
            username,
            password,
            minutes,
            realm,
            relays,
        } = self;
        let (id, realm) = (escape(id), escape(realm));
        append(
            xml,
            format_args!(
                "<credentialsResponse credentialsRequestID=\"{id}\"><credentials><username>{username}</username>\
                 <password>{password}</password><duration>{minutes}</duration><realm>{realm}</realm></credentials>\
                 <mediaRelayList>"
            ),
        );
        for relay in relays {
            let host = match &relay.host {
                Host::Name(name) => format!("<hostName>{}</hostName>", escape(name)),
                Host::Address(ip) => format!("<directIPAddress>{ip}</directIPAddress>"),
            };
            append(
                xml,
                format_args!(
                    "<mediaRelay><location>{}</location>{host}<udpPort>{}</udpPort><tcpPort>{}</tcpPort></mediaRelay>",
                    relay.location, relay.udp_port, relay.tcp_port
                ),
            );
        }
        xml.push_str("</mediaRelayList></credentialsResponse>");
    }
}

fn append(xml: &mut String, text: std::fmt::Arguments<'_>) {
    xml.write_fmt(text).expect("a String takes everything");
}

/// The latest version that we speak.
const SERVER_VERSION: &str = "2.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_repeats_what_could_be_read_and_escapes_it() {
        let head = Head {
            id: "a\"b".into(),
            version: "9.0".into(),
            to: "sip:x<y".into(),
            from: String::new(),
        };
        let xml = Response {
            phrase: Phrase::VersionMismatch,
            head,
            entries: Vec::new(),
        }
        .to_xml();
        assert!(xml.contains("requestID=\"a&quot;b\" version=\"2.0\" serverVersion=\"2.0\" to=\"sip:x&lt;y\" from=\"\""), "{xml}");
        assert!(xml.contains("reasonPhrase=\"Version Mismatch\""), "{xml}");
    }
}

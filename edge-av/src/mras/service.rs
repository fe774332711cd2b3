//! Answers a SIP request to the A/V authentication service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_common::cert::identity::ProvenNames;
use edge_common::config::{Av, Config};
use edge_common::credential::{self, Identity, Location, MintRequest};
use edge_common::host_name::NamePattern;
use edge_common::random::Random;
use edge_common::side::{Side, SidePair};
use edge_common::sip::header::Name;
use edge_common::sip::message::Message;
use edge_common::sip::response::Response as SipResponse;
use edge_common::time::Now;

use super::request::{self, Entry, Head, Request, Route};
use super::response::{Answer, Host, Relay, Response};
use super::{CONTENT_TYPE, Phrase};
use crate::credentials::Credentials;

/// Mints for those who may ask.
#[derive(Debug)]
pub struct Service {
    credentials: Arc<Credentials>,
    trusted: Vec<NamePattern>,
    node: u8,
    realm: String,
    lifetime_max: Duration,
    names: SidePair<String>,
    /// This member's own addresses, for those who want no balancer in between.
    addresses: SidePair<Option<IpAddr>>,
    udp_port: u16,
    tcp_port: u16,
}

/// What became of a SIP request, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An MRAS answer.
    Answered(Phrase),
    /// Another method than SERVICE.
    WrongMethod,
    /// Another content than a credentials request.
    WrongType,
    /// An ACK or a response, which nobody answers.
    Ignored,
}

impl Service {
    /// What the configuration says.
    #[must_use]
    pub fn new(config: &Config, av: &Av, credentials: Arc<Credentials>) -> Self {
        let local = config.local();
        let outside = av
            .public_address
            .or_else(|| local.external.av.first().copied());
        Self {
            credentials,
            trusted: config.internal.trusted_servers.clone(),
            node: local.id,
            realm: av.realm.clone(),
            lifetime_max: av.token_lifetime_max,
            names: SidePair {
                external: av.fqdn.to_string(),
                internal: av.internal_fqdn.to_string(),
            },
            addresses: SidePair {
                external: outside,
                internal: local.internal.ips().next(),
            },
            udp_port: av.udp_port,
            tcp_port: av.tcp_port,
        }
    }

    /// Answers `request`, which came from somebody who proved `peer`; `None`: it wants no answer.
    pub fn handle_request(
        &self,
        now: Now,
        peer: &ProvenNames,
        request: &Message<'_>,
        rng: &mut dyn Random,
    ) -> (Outcome, Option<Vec<u8>>) {
        let tag = format!("{:016x}", rng.next_u64());
        match request.method() {
            Some(b"SERVICE") => {}
            Some(b"ACK") | None => return (Outcome::Ignored, None),
            Some(_) => {
                let answer = SipResponse::to(request, 405, "Method Not Allowed", &tag)
                    .other("Allow", "SERVICE");
                return (Outcome::WrongMethod, Some(answer.finish()));
            }
        }
        if !is_credentials_request(request) {
            let answer = SipResponse::to(request, 415, "Unsupported Media Type", &tag)
                .other("Accept", CONTENT_TYPE);
            return (Outcome::WrongType, Some(answer.finish()));
        }
        let response = self.decide(now, peer, request.body(), rng);
        let phrase = response.phrase;
        let xml = response.to_xml();
        let answer = SipResponse::to(request, phrase.status(), phrase.as_str(), &tag);
        (
            Outcome::Answered(phrase),
            Some(answer.body(CONTENT_TYPE, xml.as_bytes())),
        )
    }

    fn decide(&self, now: Now, peer: &ProvenNames, body: &[u8], rng: &mut dyn Random) -> Response {
        let refuse = |phrase: Phrase, head: Head| Response {
            phrase,
            head,
            entries: Vec::new(),
        };
        let parsed = request::parse(body);
        // Whom the certificate names decides, not what From says: the asker speaks for its users.
        if peer.first_allowed(&self.trusted).is_none() {
            let head = parsed.map_or_else(|refused| refused.head, |request| request.head);
            return refuse(Phrase::Forbidden, head);
        }
        match parsed {
            Err(refused) => refuse(refused.phrase, refused.head),
            Ok(Request {
                head,
                route,
                entries,
            }) => Response {
                phrase: Phrase::Ok,
                head,
                entries: entries
                    .iter()
                    .map(|entry| self.mint(now, entry, route, rng))
                    .collect(),
            },
        }
    }

    fn mint(&self, now: Now, entry: &Entry, route: Route, rng: &mut dyn Random) -> Answer {
        let asked = entry
            .minutes
            .map_or(LIFETIME_DEFAULT, |minutes| MINUTE * minutes.get());
        let lifetime = asked.min(self.lifetime_max);
        let identity = Identity::new(&entry.identity);
        let request = MintRequest {
            identity: &identity,
            location: entry.location,
            node: self.node,
            lifetime,
        };
        let minted = credential::mint(now.unix, &self.credentials.ring, &request, rng);
        Answer {
            id: entry.id.clone(),
            username: minted.username_text(),
            password: minted.password_text(),
            minutes: lifetime.as_secs() / MINUTE.as_secs(),
            realm: self.realm.clone(),
            relays: self.relays(entry.location, route),
        }
    }

    /// Whoever says where it is gets the relays of that side, others those of both.
    fn relays(&self, location: Location, route: Route) -> Vec<Relay> {
        let sides: &[Side] = match location {
            Location::Any => &[Side::Internal, Side::External],
            Location::Internet => &[Side::External],
            Location::Intranet => &[Side::Internal],
        };
        sides.iter().map(|&side| self.relay(side, route)).collect()
    }

    fn relay(&self, side: Side, route: Route) -> Relay {
        let host = match (route, self.addresses[side]) {
            (Route::DirectIp, Some(address)) => Host::Address(address),
            (Route::LoadBalanced, _) | (Route::DirectIp, None) => {
                Host::Name(self.names[side].clone())
            }
        };
        let location = match side {
            Side::External => "internet",
            Side::Internal => "intranet",
        };
        Relay {
            location,
            host,
            udp_port: self.udp_port,
            tcp_port: self.tcp_port,
        }
    }
}

/// The media type may carry parameters and is compared without regard to case.
fn is_credentials_request(request: &Message<'_>) -> bool {
    let Ok(Some(header)) = request.only(Name::ContentType) else {
        return false;
    };
    let kind = header
        .value()
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default();
    kind.trim_ascii()
        .eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}

const MINUTE: Duration = Duration::from_secs(60);
/// What clients of the time ask for.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(480 * 60);

#[cfg(test)]
mod tests {
    use super::super::request::tests::ASKED;
    use super::*;
    use crate::turn::authority::Authority as _;
    use edge_common::credential::{AvKeys, KeyRing};
    use edge_common::random::Seeded;
    use edge_common::sip::parse::Index;
    use edge_common::time::UnixTime;
    use std::time::Instant;

    fn service() -> Service {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let der = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let key = pair.serialize_der().try_into().expect("PKCS #8");
        let ring = KeyRing::only(AvKeys::derive(&der, &key).expect("a usable key"));
        Service {
            credentials: Arc::new(Credentials { ring, rest: None }),
            trusted: vec!["*.contoso.internal".parse().expect("a pattern")],
            node: 3,
            realm: "contoso.test".into(),
            lifetime_max: Duration::from_secs(8 * 3600),
            names: SidePair {
                external: "av.contoso.test".into(),
                internal: "edge.contoso.internal".into(),
            },
            addresses: SidePair {
                external: Some(IpAddr::from([198, 51, 100, 12])),
                internal: None,
            },
            udp_port: 3478,
            tcp_port: 443,
        }
    }

    fn director() -> ProvenNames {
        ProvenNames {
            dns: vec!["director.contoso.internal".parse().expect("a name")],
            ..ProvenNames::default()
        }
    }

    fn ask(peer: &ProvenNames, head: &str, body: &str) -> (Outcome, String) {
        let bytes = format!(
            "{head} sip:edge@contoso.test SIP/2.0\r\nVia: SIP/2.0/TLS director;branch=z9hG4bK1\r\nFrom: <sip:ann@contoso.test>;tag=1\r\n\
             To: <sip:edge@contoso.test>\r\nCall-ID: c\r\nCSeq: 1 {head}\r\nContent-Type: {CONTENT_TYPE}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut index = Index::new(64);
        let message = Message::parse(bytes.as_bytes(), &mut index).expect("lawful");
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        };
        let (outcome, answer) = service().handle_request(now, peer, &message, &mut Seeded::new(1));
        (
            outcome,
            String::from_utf8(answer.unwrap_or_default()).expect("text"),
        )
    }

    fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
        text.split_once(from)
            .and_then(|(_, rest)| rest.split_once(to))
            .map_or("", |(found, _)| found)
    }

    #[test]
    fn a_trusted_server_gets_a_credential_that_the_relay_accepts() {
        let service = service();
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_700_000_000),
        };
        let response = service.decide(now, &director(), ASKED.as_bytes(), &mut Seeded::new(1));
        let answer = &response.entries[0];
        assert_eq!(
            (response.phrase, answer.id.as_str(), answer.minutes),
            (Phrase::Ok, "7", 480)
        );
        let verified = service
            .credentials
            .verify(now, answer.username.as_bytes())
            .expect("our own");
        assert_eq!(verified.passwords[0].as_slice(), answer.password.as_bytes());
        let xml = response.to_xml();
        assert_eq!(
            between(&xml, "<mediaRelayList>", "</mediaRelayList>"),
            "<mediaRelay><location>internet</location><hostName>av.contoso.test</hostName><udpPort>3478</udpPort><tcpPort>443</tcpPort></mediaRelay>"
        );
        assert_eq!(between(&xml, "<realm>", "</realm>"), "contoso.test");
    }

    #[test]
    fn without_a_location_both_sides_are_listed_and_directip_wants_addresses() {
        let asked = ASKED
            .replace("<location>internet</location>", "")
            .replace("<request ", "<request route=\"directip\" ");
        let (_, text) = ask(&director(), "SERVICE", &asked);
        assert!(
            text.contains(
                "<location>intranet</location><hostName>edge.contoso.internal</hostName>"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "<location>internet</location><directIPAddress>198.51.100.12</directIPAddress>"
            ),
            "{text}"
        );
    }

    #[test]
    fn nobody_gets_more_time_than_is_allowed() {
        for (asked, granted) in [
            ("1", "1"),
            ("480", "480"),
            ("9999", "480"),
            ("4294967295", "480"),
        ] {
            let (_, text) = ask(&director(), "SERVICE", &ASKED.replace("480", asked));
            assert_eq!(between(&text, "<duration>", "</duration>"), granted);
        }
    }

    #[test]
    fn each_refusal_has_its_status_and_says_why() {
        let stranger = ProvenNames {
            dns: vec!["www.fabrikam.test".parse().expect("a name")],
            ..ProvenNames::default()
        };
        let cases = [
            (
                &stranger,
                "SERVICE",
                ASKED.to_owned(),
                "SIP/2.0 403 Forbidden",
                "reasonPhrase=\"Forbidden\"",
            ),
            (
                &director(),
                "SERVICE",
                "<nonsense".to_owned(),
                "SIP/2.0 400 Request Malformed",
                "reasonPhrase=\"Request Malformed\"",
            ),
            (
                &director(),
                "MESSAGE",
                ASKED.to_owned(),
                "SIP/2.0 405 Method Not Allowed",
                "Allow: SERVICE",
            ),
        ];
        for (peer, method, body, status, words) in cases {
            let (_, text) = ask(peer, method, &body);
            assert!(
                text.starts_with(status) && text.contains(words) && !text.contains("<password>"),
                "{text}"
            );
        }
        assert_eq!(ask(&director(), "ACK", "").0, Outcome::Ignored);
    }

    #[test]
    fn another_content_type_is_told_the_right_one() {
        let bytes = b"SERVICE sip:edge@contoso.test SIP/2.0\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n";
        let mut index = Index::new(64);
        let message = Message::parse(bytes, &mut index).expect("lawful");
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::EPOCH,
        };
        let (outcome, answer) =
            service().handle_request(now, &director(), &message, &mut Seeded::new(1));
        let text = String::from_utf8(answer.expect("an answer")).expect("text");
        assert_eq!(outcome, Outcome::WrongType);
        assert!(
            text.starts_with("SIP/2.0 415") && text.contains(&format!("Accept: {CONTENT_TYPE}")),
            "{text}"
        );
    }
}

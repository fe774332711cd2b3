//! What a server inside says to the A/V authentication service, and what it is told (MS-AVEDGEA).
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::sip::header::Name;
use edge_common::sip::message::{Message, StartLine};
use edge_common::sip::request::Request;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde::Serialize;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The service's URI: request URI, To, and `to` in the document.
    pub service: String,
    /// Who asks: From, and `from` in the document.
    pub asker: String,
    /// For whom.
    pub identity: String,
    /// Where that user is; `None`: relays of both sides are wanted.
    pub location: Option<Location>,
    /// For how long, in minutes.
    pub minutes: Option<u32>,
}

/// A side, as clients name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Location {
    /// Outside.
    Internet,
    /// Inside.
    Intranet,
}

impl Location {
    const fn word(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::Intranet => "intranet",
        }
    }
}

/// What keeps one exchange apart from others; random, except in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The branch of our Via without its cookie.
    pub branch: String,
    /// The tag of From.
    pub tag: String,
    /// The Call-ID.
    pub call_id: String,
    /// The document's requestID.
    pub request_id: String,
}

/// The SERVICE request; `sent_by` is our own name or address for the Via.
#[must_use]
pub fn request(question: &Question, marks: &Marks, sent_by: &str) -> Vec<u8> {
    let Marks {
        branch,
        tag,
        call_id,
        ..
    } = marks;
    Request::new("SERVICE", &question.service)
        .header(
            Name::Via,
            &format!("SIP/2.0/TLS {sent_by};branch=z9hG4bK{branch}"),
        )
        .header(Name::MaxForwards, "70")
        .header(Name::From, &format!("<{}>;tag={tag}", question.asker))
        .header(Name::To, &format!("<{}>", question.service))
        .header(Name::CallId, call_id)
        .header(Name::CSeq, "1 SERVICE")
        .header(Name::UserAgent, "edgectl")
        .body(CONTENT_TYPE, document(question, marks).as_bytes())
}

fn document(question: &Question, marks: &Marks) -> String {
    let text = |text: &str| quick_xml::escape::escape(text).into_owned();
    let location = question
        .location
        .map(|location| format!("<location>{}</location>", location.word()))
        .unwrap_or_default();
    let duration = question
        .minutes
        .map(|minutes| format!("<duration>{minutes}</duration>"))
        .unwrap_or_default();
    format!(
        "<?xml version=\"1.0\"?>\
         <request requestID=\"{id}\" version=\"2.0\" to=\"{to}\" from=\"{from}\" xmlns=\"{NAMESPACE}\">\
         <credentialsRequest credentialsRequestID=\"{id}\">\
         <identity>{identity}</identity>{location}{duration}\
         </credentialsRequest></request>",
        id = text(&marks.request_id),
        to = text(&question.service),
        from = text(&question.asker),
        identity = text(&question.identity),
    )
}

/// Credentials and where they are good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What the service says of the whole; `OK`.
    pub reason: String,
    /// One for each that was asked for.
    pub credentials: Vec<Credentials>,
}

/// One credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Credentials {
    /// The user name, base64; RFC TURN takes the text, MS-TURN what it stands for.
    pub username: String,
    /// The password, likewise.
    pub password: String,
    /// Minutes that it lasts.
    pub minutes: u32,
    /// The realm, where it is told.
    pub realm: Option<String>,
    /// Where it is good.
    pub relays: Vec<Relay>,
}

/// One relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Relay {
    /// `internet` or `intranet`.
    pub location: String,
    /// A name or an address.
    pub host: String,
    /// Its UDP port.
    pub udp_port: Option<u16>,
    /// Its TCP port.
    pub tcp_port: Option<u16>,
}

/// Why an answer holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The SIP status is no success.
    #[error("{status} {phrase}{}", told(.reason.as_deref()))]
    Status {
        /// The status code.
        status: u16,
        /// Its phrase.
        phrase: String,
        /// What the document says, when there is one.
        reason: Option<String>,
    },
    /// The document says something else than `OK`.
    #[error("the service says '{0}'")]
    Reason(String),
    /// The document is not what MS-AVEDGEA describes.
    #[error("not an MRAS response: {0}")]
    Document(String),
}

fn told(reason: Option<&str>) -> String {
    reason
        .map(|reason| format!(" ('{reason}')"))
        .unwrap_or_default()
}

/// Reads a final response.
///
/// # Errors
/// When it holds no credentials.
pub fn answer(response: &Message<'_>) -> Result<Answer, AnswerError> {
    let status = response.status().unwrap_or_default();
    let parsed = parse(response.body());
    if !(200..300).contains(&status) {
        return Err(AnswerError::Status {
            status,
            phrase: phrase(response),
            reason: parsed.ok().map(|answer| answer.reason),
        });
    }
    let answer = parsed?;
    if answer.reason != "OK" {
        return Err(AnswerError::Reason(answer.reason));
    }
    if answer.credentials.is_empty() {
        return Err(AnswerError::Document("OK, but no credentials".into()));
    }
    Ok(answer)
}

fn phrase(response: &Message<'_>) -> String {
    match response.start() {
        StartLine::Response { reason, .. } => String::from_utf8_lossy(reason).into_owned(),
        StartLine::Request { .. } => String::new(),
    }
}

/// Reads the document. Entities other than XML's own five, and anything beyond the depth that the schema has,
/// are refused.
fn parse(body: &[u8]) -> Result<Answer, AnswerError> {
    let fault = |error: &dyn std::fmt::Display| AnswerError::Document(error.to_string());
    let text = std::str::from_utf8(body).map_err(|error| fault(&error))?;
    let mut reader = Reader::from_str(text);
    let mut answer = Answer::default();
    let mut path: Vec<String> = Vec::new();
    let mut words = String::new();
    loop {
        match reader.read_event().map_err(|error| fault(&error))? {
            Event::Start(element) => {
                path.push(local_name(&element));
                if path.len() > DEPTH_MAX {
                    return Err(AnswerError::Document("nested too deep".into()));
                }
                words.clear();
                open(&mut answer, &path, &element)?;
            }
            Event::Empty(element) => {
                path.push(local_name(&element));
                open(&mut answer, &path, &element)?;
                path.pop();
            }
            Event::Text(chunk) => {
                words.push_str(&chunk);
            }
            Event::GeneralRef(entity) => {
                let name: &str = &entity;
                words.push_str(
                    quick_xml::escape::resolve_predefined_entity(name)
                        .ok_or_else(|| AnswerError::Document(format!("entity &{name};")))?,
                );
            }
            Event::End(_) => {
                close(&mut answer, &path, words.trim())?;
                words.clear();
                path.pop();
            }
            Event::DocType(_) => return Err(AnswerError::Document("a document type".into())),
            Event::Eof => break,
            Event::CData(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    if !path.is_empty() {
        return Err(AnswerError::Document("it ends too early".into()));
    }
    if answer.reason.is_empty() {
        return Err(AnswerError::Document(
            "no <response> with a reasonPhrase".into(),
        ));
    }
    Ok(answer)
}

fn open(answer: &mut Answer, path: &[String], element: &BytesStart<'_>) -> Result<(), AnswerError> {
    let attribute = |name: &str| -> Result<Option<String>, AnswerError> {
        let found = element
            .try_get_attribute(name)
            .map_err(|error| AnswerError::Document(error.to_string()))?;
        Ok(found.map(|found| found.value.into_owned()))
    };
    match names(path).as_slice() {
        ["response"] => answer.reason = attribute("reasonPhrase")?.unwrap_or_default(),
        ["response", "credentialsResponse"] => answer.credentials.push(Credentials::default()),
        [
            "response",
            "credentialsResponse",
            "mediaRelayList",
            "mediaRelay",
        ] => {
            if let Some(credentials) = answer.credentials.last_mut() {
                credentials.relays.push(Relay::default());
            }
        }
        _ => {}
    }
    Ok(())
}

fn close(answer: &mut Answer, path: &[String], text: &str) -> Result<(), AnswerError> {
    let Some(credentials) = answer.credentials.last_mut() else {
        return Ok(());
    };
    let names = names(path);
    let ["response", "credentialsResponse", rest @ ..] = names.as_slice() else {
        return Ok(());
    };
    match *rest {
        ["credentials", "username"] => credentials.username = text.to_owned(),
        ["credentials", "password"] => credentials.password = text.to_owned(),
        ["credentials", "realm"] => credentials.realm = Some(text.to_owned()),
        ["credentials", "duration"] => credentials.minutes = number("duration", text)?,
        ["mediaRelayList", "mediaRelay", field] => {
            let Some(relay) = credentials.relays.last_mut() else {
                return Ok(());
            };
            match field {
                "location" => relay.location = text.to_owned(),
                "hostName" | "directIPAddress" => relay.host = text.to_owned(),
                "udpPort" => relay.udp_port = Some(number("udpPort", text)?),
                "tcpPort" => relay.tcp_port = Some(number("tcpPort", text)?),
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn number<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, AnswerError> {
    text.parse()
        .map_err(|_| AnswerError::Document(format!("<{what}> holds '{text}'")))
}

fn names(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

fn local_name(element: &BytesStart<'_>) -> String {
    element.local_name().as_ref().to_owned()
}

/// What requests and responses carry.
pub const CONTENT_TYPE: &str = "application/msrtc-media-relay-auth+xml";

const NAMESPACE: &str = "http://schemas.microsoft.com/2006/09/sip/mrasp";

/// The schema has five levels.
const DEPTH_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use edge_common::sip::parse::Index;

    use super::*;

    fn question() -> Question {
        Question {
            service: "sip:edge.contoso.internal@contoso.test;gruu;opaque=srvr:MRAS:0".into(),
            asker: "sip:director@contoso.test".into(),
            identity: "sip:al<ice@contoso.test".into(),
            location: Some(Location::Internet),
            minutes: Some(480),
        }
    }

    fn marks() -> Marks {
        Marks {
            branch: "b1".into(),
            tag: "t1".into(),
            call_id: "c1".into(),
            request_id: "r1".into(),
        }
    }

    #[test]
    fn the_request_is_a_sip_message_with_an_escaped_document() {
        let bytes = request(&question(), &marks(), "10.10.0.50:5061");
        let mut index = Index::new(64);
        let message = Message::parse(&bytes, &mut index).unwrap();
        assert_eq!(message.method(), Some(&b"SERVICE"[..]));
        let body = std::str::from_utf8(message.body()).unwrap();
        assert!(
            body.contains(
                "<identity>sip:al&lt;ice@contoso.test</identity><location>internet</location>"
            ),
            "{body}"
        );
        insta::assert_snapshot!(String::from_utf8(bytes).unwrap().replace("\r\n", "\n"));
    }

    fn respond(status: &str, body: &str) -> Result<Answer, AnswerError> {
        let bytes = format!(
            "SIP/2.0 {status}\r\nVia: SIP/2.0/TLS a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut index = Index::new(64);
        let Ok(message) = Message::parse(bytes.as_bytes(), &mut index) else {
            panic!("{bytes}")
        };
        answer(&message)
    }

    const GOOD: &str = r#"<?xml version="1.0"?>
        <m:response xmlns:m="http://schemas.microsoft.com/2006/09/sip/mrasp" requestID="r1" version="2.0" serverVersion="2.0" to="sip:a" from="sip:b" reasonPhrase="OK">
          <m:credentialsResponse credentialsRequestID="r1">
            <m:credentials><m:username>dXNlcg==</m:username><m:password>cGFzcw==</m:password><m:duration>480</m:duration><m:realm>a&amp;b</m:realm></m:credentials>
            <m:mediaRelayList>
              <m:mediaRelay><m:location>internet</m:location><m:hostName>av.contoso.test</m:hostName><m:udpPort>3478</m:udpPort><m:tcpPort>443</m:tcpPort></m:mediaRelay>
              <m:mediaRelay><m:location>intranet</m:location><m:directIPAddress>10.10.0.10</m:directIPAddress></m:mediaRelay>
            </m:mediaRelayList>
          </m:credentialsResponse>
        </m:response>"#;

    #[test]
    fn a_good_answer_gives_credentials_and_relays() {
        let answer = respond("200 OK", GOOD).unwrap();
        let [one] = answer.credentials.as_slice() else {
            panic!("{answer:?}")
        };
        assert_eq!(
            (one.username.as_str(), one.password.as_str(), one.minutes),
            ("dXNlcg==", "cGFzcw==", 480)
        );
        assert_eq!(one.realm.as_deref(), Some("a&b"));
        assert_eq!(one.relays.len(), 2);
        assert_eq!(
            (
                one.relays[0].host.as_str(),
                one.relays[0].udp_port,
                one.relays[0].tcp_port
            ),
            ("av.contoso.test", Some(3478), Some(443))
        );
        assert_eq!(
            (one.relays[1].host.as_str(), one.relays[1].udp_port),
            ("10.10.0.10", None)
        );
    }

    #[test]
    fn refusals_say_what_the_service_says() {
        let refused = r#"<response reasonPhrase="Forbidden" />"#;
        let told = |status, body| respond(status, body).unwrap_err().to_string();
        assert_eq!(
            told("403 Forbidden", refused),
            "403 Forbidden ('Forbidden')"
        );
        assert_eq!(
            told("415 Unsupported Media Type", ""),
            "415 Unsupported Media Type"
        );
        assert_eq!(told("200 OK", refused), "the service says 'Forbidden'");
        assert_eq!(
            told("200 OK", r#"<response reasonPhrase="OK"/>"#),
            "not an MRAS response: OK, but no credentials"
        );
    }

    #[test]
    fn what_is_no_answer_is_told_and_never_believed() {
        for (body, part) in [
            ("", "no <response>"),
            ("<response reasonPhrase='OK'>", "ends too early"),
            (
                "<!DOCTYPE a [<!ENTITY b 'c'>]><response reasonPhrase='OK'/>",
                "document type",
            ),
            (
                "<response reasonPhrase='OK'><credentialsResponse><credentials><username>&b;</username></credentials></credentialsResponse></response>",
                "entity &b;",
            ),
            (
                "<response reasonPhrase='OK'><credentialsResponse><credentials><duration>-1</duration></credentials></credentialsResponse></response>",
                "'-1'",
            ),
            (
                "<a><a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a></a>",
                "too deep",
            ),
        ] {
            let error = respond("200 OK", body).unwrap_err().to_string();
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn every_cut_of_a_good_answer_is_no_answer() {
        for end in 0..GOOD.len() - 1 {
            assert!(parse(&GOOD.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }
}

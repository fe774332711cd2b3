//! The document of a request.
//!
//! ```text
//!  <request requestID version to from route?>
//!    <credentialsRequest credentialsRequestID>      1 to 100 of them
//!      <identity/> <location/>? <duration/>?
//! ```
//!
//! Checked in the order that decides the answer: well-formed, root and namespace, version, URIs, entries. One bad entry
//! fails the whole. Document types and entities other than XML's own five are refused, and nothing is ever expanded.

use std::num::NonZeroU32;

use edge_common::credential::Location;
use edge_common::sip::uri::Uri;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

use super::{NAMESPACE, Phrase};

/// A request that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the answer repeats.
    pub head: Head,
    /// Names or addresses.
    pub route: Route,
    /// What is asked for.
    pub entries: Vec<Entry>,
}

/// Attributes of the root; what can be read of them goes into refusals too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// requestID.
    pub id: String,
    /// version, as it was written.
    pub version: String,
    /// to.
    pub to: String,
    /// from.
    pub from: String,
}

/// How relays are to be named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// By name, so that a balancer chooses.
    #[default]
    LoadBalanced,
    /// By the address of this member.
    DirectIp,
}

/// One credential that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// credentialsRequestID.
    pub id: String,
    /// For whom.
    pub identity: String,
    /// Where that user is.
    pub location: Location,
    /// For how long.
    pub minutes: Option<NonZeroU32>,
}

/// Why there is nothing to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the answer says.
    pub phrase: Phrase,
    /// What of the head could be read.
    pub head: Head,
}

/// Reads a request.
pub fn parse(body: &[u8]) -> Result<Request, Refused> {
    if body.len() > BODY_MAX {
        return Err(Refused {
            phrase: Phrase::RequestTooLarge,
            head: Head::default(),
        });
    }
    let mut document = Document::default();
    match document.read(body).and_then(|()| document.check()) {
        Ok(()) => Ok(Request {
            head: document.head,
            route: document.route,
            entries: document.entries,
        }),
        Err(phrase) => Err(Refused {
            phrase,
            head: document.head,
        }),
    }
}

#[derive(Debug, Default)]
struct Document {
    head: Head,
    route: Route,
    entries: Vec<Entry>,
    /// More entries than are taken; told only when the rest is well-formed.
    overfull: bool,
    path: Vec<Element>,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Request,
    CredentialsRequest,
    Identity,
    Location,
    Duration,
}

impl Document {
    fn read(&mut self, body: &[u8]) -> Result<(), Phrase> {
        let text = std::str::from_utf8(body).map_err(|_| Phrase::RequestMalformed)?;
        let mut reader = NsReader::from_str(text.trim_start_matches('\u{FEFF}'));
        let mut rooted = false;
        loop {
            let (namespace, event) = reader
                .read_resolved_event()
                .map_err(|_| Phrase::RequestMalformed)?;
            let ours = namespace == ResolveResult::Bound(Namespace(NAMESPACE));
            match event {
                Event::Start(_) | Event::Empty(_) if !ours || (rooted && self.path.is_empty()) => {
                    return Err(Phrase::RequestMalformed);
                }
                Event::Start(start) => {
                    rooted = true;
                    self.open(&start)?;
                }
                Event::Empty(start) => {
                    rooted = true;
                    self.open(&start)?;
                    self.close()?;
                }
                Event::End(_) => self.close()?,
                Event::Text(text) => self.push(&text)?,
                Event::CData(text) => self.push(&text)?,
                Event::GeneralRef(entity) => {
                    let known = entity
                        .resolve_char_ref()
                        .map_err(|_| Phrase::RequestMalformed)?;
                    match (known, resolve_predefined_entity(&entity)) {
                        (Some(character), _) => self.push(character.encode_utf8(&mut [0; 4]))?,
                        (None, Some(text)) => self.push(text)?,
                        (None, None) => return Err(Phrase::RequestMalformed),
                    }
                }
                Event::DocType(_) => return Err(Phrase::RequestMalformed),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof if rooted && self.path.is_empty() => return Ok(()),
                Event::Eof => return Err(Phrase::RequestMalformed),
            }
        }
    }

    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), Phrase> {
        let element = match (self.path.last(), start.local_name().as_ref()) {
            (None, "request") => Element::Request,
            (Some(Element::Request), "credentialsRequest") => Element::CredentialsRequest,
            (Some(Element::CredentialsRequest), "identity") => Element::Identity,
            (Some(Element::CredentialsRequest), "location") => Element::Location,
            (Some(Element::CredentialsRequest), "duration") => Element::Duration,
            _ => return Err(Phrase::RequestMalformed),
        };
        // `try_get_attribute` takes the first of two and says nothing of the second.
        if start.attributes().any(|attribute| attribute.is_err()) {
            return Err(Phrase::RequestMalformed);
        }
        self.path.push(element);
        self.text.clear();
        match element {
            Element::Request => self.read_head(start),
            Element::CredentialsRequest => {
                let id = attribute(start, "credentialsRequestID")?.unwrap_or_default();
                self.overfull |= self.entries.len() >= ENTRIES_MAX;
                if !self.overfull {
                    self.entries.push(Entry {
                        id,
                        identity: String::new(),
                        location: Location::Any,
                        minutes: None,
                    });
                }
                Ok(())
            }
            Element::Identity | Element::Location | Element::Duration => Ok(()),
        }
    }

    fn read_head(&mut self, start: &BytesStart<'_>) -> Result<(), Phrase> {
        let read = |name| attribute(start, name).map(Option::unwrap_or_default);
        self.head = Head {
            id: read("requestID")?,
            version: read("version")?,
            to: read("to")?,
            from: read("from")?,
        };
        self.route = match attribute(start, "route")?.as_deref() {
            None | Some("loadbalanced") => Route::LoadBalanced,
            Some("directip") => Route::DirectIp,
            Some(_) => return Err(Phrase::RequestMalformed),
        };
        Ok(())
    }

    fn push(&mut self, text: &str) -> Result<(), Phrase> {
        match self.path.last() {
            Some(Element::Identity | Element::Location | Element::Duration) => {
                self.text.push_str(text);
            }
            // Between the elements stand line ends and blanks only.
            _ if text.trim_ascii().is_empty() => {}
            _ => return Err(Phrase::RequestMalformed),
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Phrase> {
        let text = std::mem::take(&mut self.text);
        let (element, entry) = (self.path.pop(), self.entries.last_mut());
        let (Some(element), Some(entry)) = (element, entry) else {
            return Ok(());
        };
        match element {
            Element::Identity => text.trim().clone_into(&mut entry.identity),
            Element::Location => {
                entry.location = match text.trim() {
                    "internet" => Location::Internet,
                    "intranet" => Location::Intranet,
                    _ => return Err(Phrase::RequestMalformed),
                }
            }
            Element::Duration => {
                let minutes = text.trim().parse().map_err(|_| Phrase::RequestMalformed)?;
                entry.minutes = Some(minutes);
            }
            Element::Request | Element::CredentialsRequest => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Phrase> {
        match self.head.version.as_str() {
            "1.0" | "2.0" => {}
            other if is_version(other) => return Err(Phrase::VersionMismatch),
            _ => return Err(Phrase::RequestMalformed),
        }
        let sip = |uri: &str| Uri::parse(uri.as_bytes()).is_ok();
        let id = |id: &str| !id.is_empty() && id.len() <= ID_MAX;
        if !sip(&self.head.to) || !sip(&self.head.from) || !id(&self.head.id) {
            return Err(Phrase::RequestMalformed);
        }
        if self.overfull {
            return Err(Phrase::RequestTooLarge);
        }
        let sound = |entry: &Entry| id(&entry.id) && !entry.identity.is_empty();
        if self.entries.is_empty() || !self.entries.iter().all(sound) {
            return Err(Phrase::RequestMalformed);
        }
        Ok(())
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, Phrase> {
    let found = start
        .try_get_attribute(name)
        .map_err(|_| Phrase::RequestMalformed)?;
    found
        .map(|found| {
            found
                .normalized_value(XmlVersion::Implicit1_0)
                .map(std::borrow::Cow::into_owned)
        })
        .transpose()
        .map_err(|_| Phrase::RequestMalformed)
}

/// Digits, a point, digits.
fn is_version(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.')
        .is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// MS-AVEDGEA lets an identity alone have 64 K characters; no real one is a hundredth of that.
pub const BODY_MAX: usize = 64 * 1024;
const ENTRIES_MAX: usize = 100;
const ID_MAX: usize = 64;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const ASKED: &str = "<?xml version=\"1.0\"?>\n<request requestID=\"1\" version=\"1.0\" \
        to=\"sip:edge.contoso.internal@contoso.test;gruu;opaque=srvr:MRAS:x\" from=\"sip:ann@contoso.test\" \
        xmlns=\"http://schemas.microsoft.com/2006/09/sip/mrasp\">\n <credentialsRequest credentialsRequestID=\"7\">\n  \
        <identity>sip:ann@contoso.test</identity>\n  <location>internet</location>\n  <duration>480</duration>\n \
        </credentialsRequest>\n</request>\n";

    fn refused(body: &str) -> Phrase {
        parse(body.as_bytes()).expect_err("it is refused").phrase
    }

    #[test]
    fn what_a_client_asks_is_understood() {
        let request = parse(ASKED.as_bytes()).expect("lawful");
        assert_eq!(
            (
                request.head.id.as_str(),
                request.head.version.as_str(),
                request.route
            ),
            ("1", "1.0", Route::LoadBalanced)
        );
        let entry = Entry {
            id: "7".into(),
            identity: "sip:ann@contoso.test".into(),
            location: Location::Internet,
            minutes: NonZeroU32::new(480),
        };
        assert_eq!(request.entries, [entry]);
    }

    #[test]
    fn prefixes_references_and_a_byte_order_mark_change_nothing() {
        let prefixed = ASKED
            .replace("<request ", "<m:request ")
            .replace("</request>", "</m:request>")
            .replace("<credentialsRequest", "<m:credentialsRequest")
            .replace("</credentialsRequest", "</m:credentialsRequest")
            .replace("<identity>sip:ann@", "<m:identity>&#115;ip:ann&#x40;")
            .replace("</identity", "</m:identity")
            .replace("location>", "m:location>")
            .replace("</m:m:", "</m:")
            .replace("<location", "<m:location")
            .replace("</location", "</m:location")
            .replace("duration>", "m:duration>")
            .replace("</m:m:", "</m:")
            .replace("xmlns=", "xmlns:m=");
        assert_eq!(
            parse(format!("\u{FEFF}{prefixed}").as_bytes()),
            parse(ASKED.as_bytes())
        );
    }

    #[test]
    fn what_is_wrong_decides_the_phrase() {
        let cases = [
            (ASKED.replace("</request>", ""), Phrase::RequestMalformed),
            (
                ASKED.replace("2006/09", "2006/10"),
                Phrase::RequestMalformed,
            ),
            (
                ASKED
                    .replace("version=\"1.0\" \n", "")
                    .replace("version=\"1.0\" to", "version=\"3.0\" to"),
                Phrase::VersionMismatch,
            ),
            (
                ASKED.replace("version=\"1.0\" to", "version=\"x\" to"),
                Phrase::RequestMalformed,
            ),
            (
                ASKED.replace("from=\"sip:", "from=\"tel:"),
                Phrase::RequestMalformed,
            ),
            (
                ASKED.replace("requestID=\"1\"", ""),
                Phrase::RequestMalformed,
            ),
            (
                ASKED.replace("requestID=\"1\"", "requestID=\"1\" requestID=\"2\""),
                Phrase::RequestMalformed,
            ),
            (ASKED.replace("480", "0"), Phrase::RequestMalformed),
            (ASKED.replace("480", "-1"), Phrase::RequestMalformed),
            (ASKED.replace("internet", "moon"), Phrase::RequestMalformed),
            (
                ASKED.replace("sip:ann@contoso.test</identity>", "</identity>"),
                Phrase::RequestMalformed,
            ),
            (
                ASKED.replace("<request ", "<request route=\"loop\" "),
                Phrase::RequestMalformed,
            ),
            (
                format!("{ASKED}{}", ASKED.replace("<?xml version=\"1.0\"?>", "")),
                Phrase::RequestMalformed,
            ),
            (
                ASKED.replace("<location>", "<surprise/><location>"),
                Phrase::RequestMalformed,
            ),
            (String::new(), Phrase::RequestMalformed),
            (
                ASKED.replace("480", &"9".repeat(BODY_MAX)),
                Phrase::RequestTooLarge,
            ),
        ];
        for (body, phrase) in cases {
            assert_eq!(refused(&body), phrase, "{}", &body[..body.len().min(400)]);
        }
    }

    #[test]
    fn entities_are_never_expanded() {
        let bomb = ASKED.replace(
            "<request ",
            "<!DOCTYPE request [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>\n<request ",
        );
        assert_eq!(refused(&bomb), Phrase::RequestMalformed);
        assert_eq!(
            refused(&ASKED.replace("480", "&b;")),
            Phrase::RequestMalformed
        );
        assert_eq!(
            refused(&ASKED.replace("requestID=\"1\"", "requestID=\"&b;\"")),
            Phrase::RequestMalformed
        );
    }

    #[test]
    fn a_hundred_entries_are_answered_and_one_more_is_not() {
        let entry = ASKED
            .split_once("<credentialsRequest")
            .and_then(|(_, rest)| rest.split_once("</request>"));
        let entry = format!("<credentialsRequest{}", entry.expect("it has one").0);
        let many = |count: usize| ASKED.replace(&entry, &entry.repeat(count));
        assert_eq!(
            parse(many(100).as_bytes()).expect("lawful").entries.len(),
            100
        );
        assert_eq!(refused(&many(101)), Phrase::RequestTooLarge);
        assert_eq!(refused(&many(0)), Phrase::RequestMalformed);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(at in 0_usize..600, byte in any::<u8>(), cut in 0_usize..600) {
            let mut bytes = ASKED.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            let _whatever = parse(&bytes).is_ok();
        }
    }
}

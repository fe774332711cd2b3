//! A request whose fields that the edge acts on were read and found lawful (RFC 3261 §16.3).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::ops::Range;

use edge_common::sip::header::cseq::CSeq;
use edge_common::sip::header::name_addr::NameAddr;
use edge_common::sip::header::via::Via;
use edge_common::sip::header::{Malformed, Name, max_forwards};
use edge_common::sip::message::{Header, Message, Repeated};
use edge_common::sip::parse::is_token;
use edge_common::sip::uri::{Host, Uri, UriError};

use super::refusal::Refusal;
use super::via::Marked;

/// The view that policy and routing work on.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The whole message.
    pub message: Message<'a>,
    /// The method, as written.
    pub method: &'a [u8],
    /// The Request-URI.
    pub uri: Uri<'a>,
    /// The sender's address and tag.
    pub from: Party<'a>,
    /// The receiver's address and tag.
    pub to: Party<'a>,
    /// The Call-ID.
    pub call_id: &'a [u8],
    /// The number of the CSeq.
    pub cseq: u32,
    /// Hops that are left, if the request says so.
    pub max_forwards: Option<u8>,
    /// The sender's own Via.
    pub via: Via<'a>,
    /// How many Via there are.
    pub via_count: usize,
}

/// From or To.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// The domain, when the address is a SIP URI with a name.
    pub domain: Option<&'a str>,
    /// The tag.
    pub tag: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Whether the sender names that extension in a Supported header.
    #[must_use]
    pub fn supports(&self, tag: &str) -> bool {
        let mut tags = self.message.list(Name::Supported);
        tags.any(|element| element.text().eq_ignore_ascii_case(tag.as_bytes()))
    }

    /// Reads a request; the first thing found wrong is why it is refused.
    pub fn read(message: Message<'a>) -> Result<Self, Refusal> {
        let (method, uri) = start_line(&message)?;
        let cseq = CSeq::parse(mandatory(&message, Name::CSeq)?.value()).map_err(malformed)?;
        if cseq.method != method {
            return Err(Refusal::CSeqMismatch);
        }
        let call_id = mandatory(&message, Name::CallId)?.value();
        if call_id.is_empty() {
            return Err(Refusal::Malformed("an empty Call-ID"));
        }
        let from = Party::read(mandatory(&message, Name::From)?)?;
        let to = Party::read(mandatory(&message, Name::To)?)?;
        let (via, via_count) = vias(&message)?;
        contacts(&message)?;
        let max_forwards = message
            .only(Name::MaxForwards)?
            .map(|header| max_forwards::parse(header.value()))
            .transpose()
            .map_err(malformed)?;
        Ok(Self {
            message,
            method,
            uri,
            from,
            to,
            call_id,
            cseq: cseq.number,
            max_forwards,
            via,
            via_count,
        })
    }

    /// Whether nothing may be answered: the sender would not know what to do with it (RFC 3261 §17, MS-SIP).
    #[must_use]
    pub fn is_unanswered(message: &Message<'_>) -> Option<super::refusal::Drop> {
        match message.method() {
            Some(b"ACK") => Some(super::refusal::Drop::Ack),
            Some(b"BENOTIFY") => Some(super::refusal::Drop::Benotify),
            Some(_) | None => None,
        }
    }

    /// Whether a dialog may come of it, or its route set be changed by it, so that our route has to be in it.
    #[must_use]
    pub fn may_make_dialog(&self) -> bool {
        // What is not known may make one.
        !matches!(
            self.method,
            b"ACK"
                | b"BENOTIFY"
                | b"BYE"
                | b"CANCEL"
                | b"INFO"
                | b"MESSAGE"
                | b"NEGOTIATE"
                | b"OPTIONS"
                | b"PRACK"
                | b"PUBLISH"
                | b"REGISTER"
                | b"SERVICE"
        )
    }

    /// Whether a final answer will come.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        Self::is_unanswered(&self.message).is_none()
    }

    /// What the branch is made of; `route` is the topmost Route that stays.
    #[must_use]
    pub fn marked(&self, route: &'a [u8]) -> Marked<'a> {
        Marked {
            uri: self.message.request_uri().unwrap_or_default(),
            from_tag: self.from.tag.unwrap_or_default(),
            call_id: self.call_id,
            cseq: self.cseq,
            route,
        }
    }

    /// Where the value of Max-Forwards stands.
    #[must_use]
    pub fn max_forwards_range(&self) -> Option<Range<usize>> {
        self.message
            .first(Name::MaxForwards)
            .map(|header| header.value_range())
    }
}

impl<'a> Party<'a> {
    /// A URI of another scheme has no domain; whether that matters is for the policy to say.
    fn read(header: Header<'a>) -> Result<Self, Refusal> {
        let address = NameAddr::parse(header.value()).map_err(malformed)?;
        let domain = match Uri::parse(address.uri) {
            Ok(uri) => match uri.host {
                Host::Name(name) => Some(name),
                Host::V4(_) | Host::V6(_) | Host::Doubtful => None,
            },
            Err(UriError::SchemeUnknown) => None,
            Err(UriError::Malformed(why)) => return Err(Refusal::Malformed(why)),
        };
        Ok(Self {
            domain,
            tag: address.tag(),
        })
    }
}

fn start_line<'a>(message: &Message<'a>) -> Result<(&'a [u8], Uri<'a>), Refusal> {
    use edge_common::sip::message::StartLine;
    let StartLine::Request {
        method,
        uri,
        version,
    } = message.start()
    else {
        return Err(Refusal::Malformed("a response where a request should be"));
    };
    if version != b"SIP/2.0" {
        let other = version.len() > 4 && version[..4].eq_ignore_ascii_case(b"SIP/");
        return Err(if other {
            Refusal::Version
        } else {
            Refusal::Malformed("a request line that does not end in a version")
        });
    }
    if !is_token(method) {
        return Err(Refusal::Malformed("a method that is not a token"));
    }
    let uri = Uri::parse(uri).map_err(|wrong| match wrong {
        UriError::SchemeUnknown => Refusal::Scheme,
        UriError::Malformed(why) => Refusal::Malformed(why),
    })?;
    // Headers in a Request-URI would be for us to act on (RFC 3261 §19.1.1).
    if uri.headers.is_some() {
        return Err(Refusal::Malformed("headers in the Request-URI"));
    }
    Ok((method, uri))
}

fn mandatory<'a>(message: &Message<'a>, name: Name) -> Result<Header<'a>, Refusal> {
    message.only(name)?.ok_or(Refusal::Missing(name))
}

fn vias<'a>(message: &Message<'a>) -> Result<(Via<'a>, usize), Refusal> {
    let (mut top, mut count) = (None, 0);
    for element in message.list(Name::Via) {
        let via = Via::parse(element.text()).map_err(malformed)?;
        top = top.or(Some(via));
        count += 1;
        if count > VIAS_MAX {
            return Err(Refusal::ViaTooDeep);
        }
    }
    Ok((top.ok_or(Refusal::Missing(Name::Via))?, count))
}

fn contacts(message: &Message<'_>) -> Result<(), Refusal> {
    for contact in message.list(Name::Contact) {
        if contact.text() != b"*" {
            NameAddr::parse(contact.text()).map_err(malformed)?;
        }
    }
    Ok(())
}

const fn malformed(wrong: Malformed) -> Refusal {
    Refusal::Malformed(wrong.0)
}

impl From<Repeated> for Refusal {
    fn from(repeated: Repeated) -> Self {
        Self::Repeated(repeated.0)
    }
}

/// For fuzzing: no message panics the reader of requests, and what is lawful has what the proxy counts on.
///
/// # Panics
/// When it has not.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let mut index = edge_common::sip::parse::Index::new(256);
    let Ok(message) = Message::parse(bytes, &mut index) else {
        return;
    };
    let Ok(request) = Request::read(message) else {
        return;
    };
    assert!(request.via_count > 0 && request.via_count <= VIAS_MAX && !request.call_id.is_empty());
    let planted = cfg!(planted_bug) && request.via_count > 1 && request.to.tag.is_some();
    assert!(!planted, "planted bug");
}

/// More than any honest path has; RFC 4475 §3.1.1.7 has 34.
const VIAS_MAX: usize = 64;

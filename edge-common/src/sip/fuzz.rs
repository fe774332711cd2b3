//! Bodies of the fuzz targets of this module: plain functions that panic when something holds no longer.
//!
//! `tests/fuzz` calls them with what libFuzzer makes up, `make test` with the corpus. With `--cfg planted_bug`, which
//! only `make fuzz-proof` sets, each has one bug that lies behind the parser's checks.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::edit::Edits;
use super::framer::{Framer, Limits, Opener, Step};
use super::header::cseq::CSeq;
use super::header::name_addr::NameAddr;
use super::header::params::Params;
use super::header::via::Via;
use super::header::{Name, max_forwards};
use super::message::Message;
use super::parse::Index;
use super::uri::{Host, Uri};

/// The stream gives the same whatever its cuts; the first byte says into how many bytes it is cut, and who opened it.
///
/// # Panics
/// When it does not.
pub fn framer(bytes: &[u8]) {
    let Some((&first, stream)) = bytes.split_first() else {
        return;
    };
    let opener = if first & 0x80 == 0 {
        Opener::Remote
    } else {
        Opener::Us
    };
    let piece = usize::from(first & 0x7f) + 1;
    let whole = steps(opener, stream, stream.len().max(1));
    assert_eq!(whole, steps(opener, stream, piece), "in pieces of {piece}");
    let bodies = whole
        .iter()
        .filter(|step| matches!(step, Ok(Step::Message { len }) if *len > 60));
    assert!(!(cfg!(planted_bug) && bodies.count() > 1), "planted bug");
}

fn steps(
    opener: Opener,
    stream: &[u8],
    piece: usize,
) -> Vec<Result<Step, super::framer::FrameError>> {
    let mut framer = Framer::new(opener, LIMITS);
    let (mut at, mut seen) = (0, Vec::new());
    for end in (1..=stream.len()).filter(|end| end % piece == 0 || *end == stream.len()) {
        loop {
            let step = framer.next(&stream[at..end]);
            at += match step {
                Ok(Step::NeedMore) => break,
                Ok(
                    Step::Skip { len }
                    | Step::Ping { len }
                    | Step::Pong { len }
                    | Step::Message { len },
                ) => len,
                Err(_) => {
                    seen.push(step);
                    return seen;
                }
            };
            assert!(at <= end, "more is consumed than there is");
            seen.push(step);
        }
    }
    seen
}

/// What parses is made of pieces of itself, and leaves as the bytes that came.
///
/// # Panics
/// When it is not, or does not.
pub fn message(bytes: &[u8]) {
    let mut index = Index::new(HEADERS_MAX);
    let Ok(message) = Message::parse(bytes, &mut index) else {
        return;
    };
    let mut out = Vec::new();
    Edits::new().write(message.bytes(), &mut out);
    assert_eq!(out, bytes);
    let mut folded = false;
    for header in message.headers() {
        let value = header.value();
        assert_eq!(value, &bytes[message.range_of(value)]);
        folded |= value.contains(&b'\n');
    }
    for name in [Name::Via, Name::Contact, Name::Route, Name::ProxyRequire] {
        for element in message.list(name) {
            assert_eq!(element.text(), &bytes[element.range()]);
        }
    }
    let vias = message.list(Name::Via).count();
    assert!(!(cfg!(planted_bug) && folded && vias > 2), "planted bug");
}

/// # Panics
/// When what was read is not in the text.
pub fn via(bytes: &[u8]) {
    let Ok(via) = Via::parse(bytes) else { return };
    within(bytes, via.sent_by);
    params(via.params, bytes);
    let long = via.branch().is_some_and(|branch| branch.len() > 20);
    assert!(
        !(cfg!(planted_bug) && long && via.params.get("rport").is_some()),
        "planted bug"
    );
}

/// # Panics
/// When what was read is not in the text.
pub fn name_addr(bytes: &[u8]) {
    let Ok(address) = NameAddr::parse(bytes) else {
        return;
    };
    within(bytes, address.display);
    within(bytes, address.uri);
    params(address.params, bytes);
    uri(address.uri);
    let quoted = address.display.contains(&b'\\');
    assert!(
        !(cfg!(planted_bug) && quoted && address.tag().is_some()),
        "planted bug"
    );
}

/// # Panics
/// When what was read is not in the text.
pub fn uri(bytes: &[u8]) {
    let Ok(uri) = Uri::parse(bytes) else { return };
    within(bytes, uri.hostport);
    params(uri.params, bytes);
    let six = matches!(uri.host, Host::V6(_));
    assert!(
        !(cfg!(planted_bug) && six && uri.port.is_some() && uri.headers.is_some()),
        "planted bug"
    );
}

/// # Panics
/// When what was read is not what was written.
pub fn cseq(bytes: &[u8]) {
    let Ok(cseq) = CSeq::parse(bytes) else { return };
    within(bytes, cseq.method);
    let written = [cseq.number.to_string().as_bytes(), b" ", cseq.method].concat();
    assert_eq!(CSeq::parse(&written), Ok(cseq));
    assert!(
        !(cfg!(planted_bug) && cseq.number > 0x7000_0000),
        "planted bug"
    );
}

/// # Panics
/// When what was read is not what was written.
pub fn hops(bytes: &[u8]) {
    let Ok(hops) = max_forwards::parse(bytes) else {
        return;
    };
    assert_eq!(max_forwards::parse(hops.to_string().as_bytes()), Ok(hops));
    assert!(!(cfg!(planted_bug) && hops == 217), "planted bug");
}

fn params(params: Params<'_>, bytes: &[u8]) {
    for param in params.iter() {
        within(bytes, param.text);
        within(bytes, param.name);
    }
}

fn within(whole: &[u8], part: &[u8]) {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    let inside = whole.start <= part.start && part.end <= whole.end;
    assert!(inside || part.is_empty(), "a piece of something else");
}

const LIMITS: Limits = Limits {
    head: 600,
    body: 200,
};
const HEADERS_MAX: usize = 64;

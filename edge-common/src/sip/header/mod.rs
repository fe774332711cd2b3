//! Header names and the typed readers of the values that we act on.
//!
//! Readers look at bytes that may hold folds; a fold counts as a blank (RFC 3261 §25.1, LWS).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod cseq;
pub mod max_forwards;
mod name;
pub mod name_addr;
pub mod params;
pub mod via;

use std::ops::Range;

pub use name::Name;

/// A value does not follow its grammar; the text says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// One member of a list header, without the blanks around it.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    bytes: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Element<'a> {
    /// The member's bytes.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        &self.bytes[self.start..self.end]
    }

    /// Where it stands in the message.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Cuts `bytes[value]` at the commas that stand outside quotes and angle brackets.
///
/// Empty members are kept, for their reader to refuse; an empty value has no members.
pub fn elements(bytes: &[u8], value: Range<usize>) -> impl Iterator<Item = Element<'_>> {
    let (mut at, end, mut done) = (value.start, value.end, value.is_empty());
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let text = &bytes[at..end];
        let cut = comma(text);
        let member = &text[..cut.unwrap_or(text.len())];
        let start = at + (member.len() - member.trim_ascii_start().len());
        let element = Element {
            bytes,
            start,
            end: start + member.trim_ascii().len(),
        };
        match cut {
            Some(cut) => at += cut + 1,
            None => done = true,
        }
        Some(element)
    })
}

fn comma(text: &[u8]) -> Option<usize> {
    let first = memchr::memchr(b',', text)?;
    if memchr::memchr2(b'"', b'<', &text[..first]).is_none() {
        return Some(first);
    }
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !angle => quoted = !quoted,
            _ if quoted => {}
            b'<' => angle = true,
            b'>' => angle = false,
            b',' if !angle => return Some(at),
            _ => {}
        }
    }
    None
}

/// Blank, tab, and the line end of a fold.
const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_do_not_cut() {
        let value = br#""a, \" b" <sip:x,y@z>;q="1,2" , <sip:c>,,d"#;
        let members: Vec<_> = elements(value, 0..value.len()).map(|e| e.text()).collect();
        assert_eq!(
            members,
            [
                &br#""a, \" b" <sip:x,y@z>;q="1,2""#[..],
                b"<sip:c>",
                b"",
                b"d"
            ]
        );
        assert_eq!(elements(b"", 0..0).count(), 0);
    }
}

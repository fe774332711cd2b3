//! What a proxy changes in a message: splices over the received bytes, applied while writing.
//!
//! ```text
//!  received   …Max-Forwards: 70 CRLF Route: <…> CRLF Call-ID:…
//!  splices                   └┘"69"  └─── "" ────┘
//!  written    …Max-Forwards: 69 CRLF Call-ID:…
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::ops::Range;

/// A list of splices; kept from message to message, so that its memory is reused.
#[derive(Debug, Default)]
pub struct Edits {
    splices: Vec<Splice>,
    /// The inserted text of all splices, one behind the other.
    text: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Splice {
    removed: Range<usize>,
    text: Range<usize>,
}

impl Edits {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all splices and keeps the memory.
    pub fn clear(&mut self) {
        self.splices.clear();
        self.text.clear();
    }

    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.splices.is_empty()
    }

    /// Puts `text` in front of the byte at `at`; several at one place stand in the order of the calls.
    pub fn insert(&mut self, at: usize, text: &[u8]) {
        self.replace(at..at, text);
    }

    /// Takes bytes out.
    pub fn remove(&mut self, range: Range<usize>) {
        self.replace(range, b"");
    }

    /// Puts `text` in the place of `range`.
    pub fn replace(&mut self, range: Range<usize>, text: &[u8]) {
        self.replace_with(range, |out| out.extend_from_slice(text));
    }

    /// Puts what `write` appends in the place of `range`.
    pub fn replace_with(&mut self, range: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.text.len();
        write(&mut self.text);
        self.splices.push(Splice {
            removed: range,
            text: from..self.text.len(),
        });
    }

    /// Appends `source` with the splices applied to `out`.
    ///
    /// Of two splices that remove the same byte the second removes what is left; both texts are written.
    pub fn write(&mut self, source: &[u8], out: &mut Vec<u8>) {
        self.splices.sort_by_key(|splice| splice.removed.start);
        out.reserve(source.len() + self.text.len());
        let mut at = 0;
        for splice in &self.splices {
            let start = splice.removed.start.clamp(at, source.len());
            out.extend_from_slice(&source[at..start]);
            out.extend_from_slice(&self.text[splice.text.clone()]);
            at = splice.removed.end.clamp(start, source.len());
        }
        out.extend_from_slice(&source[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splices_apply_by_place_and_at_one_place_by_order() {
        let mut edits = Edits::new();
        edits.remove(4..6);
        edits.insert(0, b"<");
        edits.insert(0, b"-");
        edits.replace(2..3, b"XY");
        edits.insert(7, b">");
        let mut out = b"out:".to_vec();
        edits.write(b"abcdefg", &mut out);
        assert_eq!(out, b"out:<-abXYdg>");
        edits.clear();
        assert!(edits.is_empty());
    }

    proptest! {
        /// The model: apply the splices one by one from the back.
        #[test]
        fn disjoint_splices_equal_replacing_from_the_back(
            source in proptest::collection::vec(any::<u8>(), 0..80),
            cuts in proptest::collection::vec((0usize..80, 0usize..8, proptest::collection::vec(any::<u8>(), 0..6)), 0..8),
        ) {
            let (mut edits, mut model, mut floor) = (Edits::new(), source.clone(), source.len());
            let mut cuts = cuts;
            cuts.sort_by_key(|cut| std::cmp::Reverse(cut.0));
            for (start, len, text) in cuts {
                let (start, end) = (start.min(source.len()), (start + len).min(source.len()));
                if end > floor || (start == floor && start != source.len()) || (start == floor && !edits.is_empty()) { continue; }
                floor = start;
                edits.replace(start..end, &text);
                model.splice(start..end, text);
            }
            let mut out = Vec::new();
            edits.write(&source, &mut out);
            prop_assert_eq!(out, model);
        }
    }
}

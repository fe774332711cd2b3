//! Finds an admitted number in the first bytes of a client, whatever protocol they belong to.
//!
//! The number may come as decimal digits in ASCII, UTF-16LE or UTF-16BE, or as a 64-bit integer of
//! either byte order, at any offset:
//!
//! ```text
//!   "id=1234567890123456789;"     digits count as a whole run only: one more or less is no match
//!   31 00 32 00 33 00 …           both alignments of both UTF-16 orders are followed; a run that
//!                                 is longer when read in the other order is no match in either
//!   11 22 10 f4 7d e9 81 15       each window of eight bytes
//! ```
//!
//! The scanner holds what it needs across two arrivals, so each byte is looked at once, and where
//! the stream was cut makes no difference. A run of digits at the very end of what has arrived is
//! not decided yet; [`Scanner::finish`] decides it once the client is known to be waiting.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use crate::ewrp::number::{DIGITS, Number};

/// How the number was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// Decimal digits of one byte.
    Ascii,
    /// Decimal digits of two bytes, the low one first.
    Utf16Le,
    /// Decimal digits of two bytes, the high one first.
    Utf16Be,
    /// A 64-bit integer, the high byte first.
    I64Be,
    /// A 64-bit integer, the low byte first.
    I64Le,
}

impl Encoding {
    /// The value of the field in logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ascii => "ascii",
            Self::Utf16Le => "utf16le",
            Self::Utf16Be => "utf16be",
            Self::I64Be => "i64be",
            Self::I64Le => "i64le",
        }
    }
}

/// A number that the caller accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The number.
    pub number: Number,
    /// How it was written.
    pub encoding: Encoding,
}

/// Follows one client's stream.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// The last eight bytes, the latest lowest.
    window: u64,
    seen: usize,
    ascii: Run,
    /// By the parity of the offset at which their units end.
    utf16le: [Run; 2],
    utf16be: [Run; 2],
}

impl Scanner {
    /// Looks at bytes that have not been shown before. `accept` is asked about every admissible
    /// number that stands there; at the first one that it takes the search ends.
    pub fn feed(&mut self, bytes: &[u8], mut accept: impl FnMut(Number) -> bool) -> Option<Hit> {
        bytes.iter().find_map(|&byte| self.step(byte, &mut accept))
    }

    /// The client sends nothing more for now: a run of digits at the end is whole.
    pub fn finish(&mut self, mut accept: impl FnMut(Number) -> bool) -> Option<Hit> {
        self.ends()
            .into_iter()
            .find_map(|(encoding, value)| check(value, encoding, &mut accept))
    }

    /// Whether [`Scanner::finish`] would ask about anything.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        let mut ahead = self.clone();
        ahead.ends().iter().any(|(_, value)| value.is_some())
    }

    fn step(&mut self, byte: u8, accept: &mut impl FnMut(Number) -> bool) -> Option<Hit> {
        let [.., before, previous] = self.window.to_be_bytes();
        self.window = self.window << 8 | u64::from(byte);
        self.seen += 1;

        let mut hit = check(self.ascii.step(digit(byte)), Encoding::Ascii, accept);
        if self.seen >= 2 {
            let parity = self.seen % 2;
            hit = hit.or_else(|| {
                let value = self.utf16le[parity].step_le(previous, byte);
                check(value, Encoding::Utf16Le, accept)
            });
            hit = hit.or_else(|| {
                let value = self.utf16be[parity].step_be(before, previous, byte);
                check(value, Encoding::Utf16Be, accept)
            });
        }
        if self.seen >= 8 {
            let (be, le) = (self.window, self.window.swap_bytes());
            hit = hit.or_else(|| check(Some(be), Encoding::I64Be, accept));
            hit = hit.or_else(|| check(Some(le), Encoding::I64Le, accept));
        }
        hit
    }

    /// The values of the runs, were the stream to end here.
    fn ends(&mut self) -> [(Encoding, Option<u64>); 5] {
        // One alignment of UTF-16LE has half a unit left over.
        let [.., last] = self.window.to_be_bytes();
        let [even, odd] = &mut self.utf16le;
        let (whole, half) = if self.seen.is_multiple_of(2) {
            (even, odd)
        } else {
            (odd, even)
        };
        if last.is_ascii_digit() {
            *half = Run::default();
        }
        [
            (Encoding::Ascii, self.ascii.end()),
            (Encoding::Utf16Le, whole.end()),
            (Encoding::Utf16Le, half.end()),
            (Encoding::Utf16Be, self.utf16be[0].end()),
            (Encoding::Utf16Be, self.utf16be[1].end()),
        ]
    }
}

fn check(
    value: Option<u64>,
    encoding: Encoding,
    accept: &mut impl FnMut(Number) -> bool,
) -> Option<Hit> {
    let number = Number(value?);
    (number.is_admissible() && accept(number)).then_some(Hit { number, encoding })
}

const fn digit(byte: u8) -> Option<u8> {
    if byte.is_ascii_digit() {
        Some(byte - b'0')
    } else {
        None
    }
}

/// A run of digits: its value as long as it is short enough to be a number.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    digits: u8,
    value: u64,
}

impl Run {
    /// Takes the next unit. Gives the value of the run that a unit which is no digit ends.
    fn step(&mut self, digit: Option<u8>) -> Option<u64> {
        let Some(digit) = digit else {
            return self.end();
        };
        // Beyond DIGITS the run is too long, whatever follows; so neither field can overflow.
        if self.digits < DIGITS {
            self.value = self.value * 10 + u64::from(digit);
        }
        self.digits = self.digits.saturating_add(1);
        None
    }

    /// The unit `low high`. A digit with another high byte spoils the run that it ends: the same
    /// bytes read as UTF-16BE, one byte on, have that digit in the run.
    fn step_le(&mut self, low: u8, high: u8) -> Option<u64> {
        match digit(low) {
            Some(digit) if high == 0 => self.step(Some(digit)),
            Some(_) => {
                *self = Self::default();
                None
            }
            None => self.end(),
        }
    }

    /// The unit `high low` behind the byte `before`. A digit right in front spoils the run that
    /// begins here, for the same reason.
    fn step_be(&mut self, before: u8, high: u8, low: u8) -> Option<u64> {
        let digit_here = digit(low).filter(|_| high == 0);
        if digit_here.is_some() && self.digits == 0 && before.is_ascii_digit() {
            self.digits = DIGITS;
        }
        self.step(digit_here)
    }

    fn end(&mut self) -> Option<u64> {
        let Self { digits, value } = std::mem::take(self);
        (digits == DIGITS).then_some(value)
    }
}

/// For fuzzing: the first two bytes say where the rest is cut in three; what is found does not depend on it, and it does
/// stand there.
///
/// # Panics
/// When it depends, or does not.
pub fn fuzz(bytes: &[u8]) {
    let [first, second, stream @ ..] = bytes else {
        return;
    };
    let (first, second) = (usize::from(*first), usize::from(*second));
    let (front, back) = stream.split_at(first.min(stream.len()));
    let (middle, end) = back.split_at(second.min(back.len()));
    let asked = |pieces: &[&[u8]]| {
        let (mut scanner, mut asked) = (Scanner::default(), Vec::new());
        let mut note = |number: Number| {
            asked.push(number);
            false
        };
        for piece in pieces {
            scanner.feed(piece, &mut note);
        }
        scanner.finish(&mut note);
        asked
    };
    let numbers = asked(&[stream]);
    assert_eq!(numbers, asked(&[front, middle, end]));
    for number in numbers {
        assert!(number.is_admissible());
        assert!(stands(number, stream), "{number:?}");
        assert!(!(cfg!(planted_bug) && number.0 % 8 == 5), "planted bug");
    }
}

/// The slow, obvious search for one of the forms, wherever it stands.
fn stands(number: Number, stream: &[u8]) -> bool {
    let digits = number.0.to_string();
    let wide = |big: bool| -> Vec<u8> {
        let unit = |digit: u8| if big { [0, digit] } else { [digit, 0] };
        digits.bytes().flat_map(unit).collect()
    };
    [
        digits.clone().into_bytes(),
        wide(false),
        wide(true),
        number.0.to_be_bytes().to_vec(),
        number.0.to_le_bytes().to_vec(),
    ]
    .iter()
    .any(|form| stream.windows(form.len()).any(|window| window == form))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hex;

    const NUMBER: Number = Number(1_234_567_890_123_456_789);
    /// The forms of the number, typed in from the description of EWRP/1.
    const FORMS: [(Encoding, &str); 5] = [
        (Encoding::Ascii, "31323334353637383930313233343536373839"),
        (
            Encoding::Utf16Le,
            "3100320033003400350036003700380039003000310032003300340035003600370038003900",
        ),
        (
            Encoding::Utf16Be,
            "0031003200330034003500360037003800390030003100320033003400350036003700380039",
        ),
        (Encoding::I64Be, "112210f47de98115"),
        (Encoding::I64Le, "1581e97df4102211"),
    ];

    #[test]
    fn all_five_encodings_are_found_at_every_offset_and_cut() {
        for (encoding, form) in FORMS {
            for offset in 0..10 {
                let mut stream = vec![b'x'; offset];
                stream.extend(hex(form));
                stream.extend_from_slice(b"\r\n tail");
                for cut in 0..=stream.len() {
                    let (head, tail) = stream.split_at(cut);
                    let hit = search(&[head, tail]);
                    let expected = Hit {
                        number: NUMBER,
                        encoding,
                    };
                    assert_eq!(hit, Some(expected), "offset {offset}, cut {cut}");
                }
                let drip: Vec<&[u8]> = stream.chunks(1).collect();
                assert!(search(&drip).is_some(), "{encoding:?} byte by byte");
            }
        }
    }

    #[test]
    fn digits_match_as_a_whole_run_only() {
        let number = NUMBER.0.to_string();
        for text in [
            format!("7{number} "),
            format!("0{number} "),
            format!("{number}0 "),
            format!("{} ", &number[1..]),
            format!("{} ", &number[..18]),
            format!("{}.{} ", &number[..9], &number[9..]),
        ] {
            for form in [ascii(&text), utf16(&text, true), utf16(&text, false)] {
                for cut in 0..=form.len() {
                    let (head, tail) = form.split_at(cut);
                    assert_eq!(search(&[head, tail]), None, "{text:?} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_run_at_the_end_is_decided_by_finish() {
        let number = NUMBER.0.to_string();
        for form in [ascii(&number), utf16(&number, true), utf16(&number, false)] {
            let mut scanner = Scanner::default();
            // The last unit of UTF-16LE is followed by nothing, so none of the forms is decided.
            assert_eq!(scanner.feed(&form, |found| found == NUMBER), None);
            assert!(scanner.is_undecided());
            let hit = scanner.finish(|found| found == NUMBER);
            assert_eq!(hit.map(|hit| hit.number), Some(NUMBER));
            assert!(!scanner.is_undecided());
        }
        let mut scanner = Scanner::default();
        assert_eq!(scanner.feed(&ascii(&number[1..]), |_| false), None);
        assert!(!scanner.is_undecided());
    }

    #[test]
    fn the_search_goes_on_after_a_number_that_is_not_taken() {
        let stream = b"1111111111111111111 1234567890123456789 ";
        let mut asked = Vec::new();
        let hit = Scanner::default().feed(stream, |number| {
            if number.0.to_string().bytes().all(|b| b.is_ascii_digit()) && number.0 % 10 == 1 {
                asked.push(number);
            }
            number == NUMBER
        });
        assert!(asked.contains(&Number(1_111_111_111_111_111_111)));
        assert_eq!(hit.map(|hit| hit.encoding), Some(Encoding::Ascii));
    }

    #[test]
    fn a_number_with_the_top_bit_or_too_small_is_never_asked_about() {
        let mut stream = ascii("9999999999999999999 0999999999999999999 ");
        stream.extend(u64::MAX.to_be_bytes());
        Scanner::default().feed(&stream, |number| {
            assert!(number.is_admissible());
            false
        });
    }

    proptest! {
        /// The slow, obvious search over all that was sent is the judge.
        #[test]
        fn agrees_with_a_search_over_the_whole(
            parts in proptest::collection::vec(any_part(), 0..6),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        ) {
            let stream = parts.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let mut arrivals = Vec::new();
            let mut from = 0;
            for cut in cuts {
                arrivals.push(&stream[from..cut]);
                from = cut;
            }
            arrivals.push(&stream[from..]);

            prop_assert_eq!(search(&arrivals).is_some(), obvious(&stream));
            fuzz(&[&[7, 9], &stream[..]].concat());
        }
    }

    /// Pieces that come near a match: the number in each form, digits, zeros, noise.
    fn any_part() -> impl Strategy<Value = Vec<u8>> {
        let form = (0..FORMS.len()).prop_map(|at| hex(FORMS[at].1));
        let near = (0..FORMS.len(), any::<proptest::sample::Index>()).prop_map(|(at, cut)| {
            let form = hex(FORMS[at].1);
            let cut = cut.index(form.len());
            form[cut..].to_vec()
        });
        prop_oneof![
            form,
            near,
            "[0-9]{1,3}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..4),
            Just(vec![0]),
        ]
    }

    fn obvious(stream: &[u8]) -> bool {
        let number = NUMBER.0.to_string();
        let integers = [NUMBER.0.to_be_bytes(), NUMBER.0.to_le_bytes()];
        let digit = |at: usize| stream.get(at).is_some_and(u8::is_ascii_digit);
        let zero = |at: usize| stream.get(at) == Some(&0);
        let unit_before = |at: usize| at >= 2 && digit(at - 2) && zero(at - 1);
        let byte_before = |at: usize| at >= 1 && digit(at - 1);
        let unit_behind = |at: usize| zero(at) && digit(at + 1);
        integers.iter().any(|form| places(stream, form).count() > 0)
            || places(stream, &ascii(&number)).any(|(at, end)| !byte_before(at) && !digit(end))
            || places(stream, &utf16(&number, true))
                .any(|(at, end)| !unit_before(at) && !digit(end))
            || places(stream, &utf16(&number, false))
                .any(|(at, end)| !byte_before(at) && !unit_behind(end))
    }

    /// Where the form stands: its first byte and the one behind it.
    fn places<'a>(stream: &'a [u8], form: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
        let windows = stream.windows(form.len()).enumerate();
        windows
            .filter(move |(_, window)| *window == form)
            .map(move |(at, _)| (at, at + form.len()))
    }

    fn ascii(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| {
                if little {
                    unit.to_le_bytes()
                } else {
                    unit.to_be_bytes()
                }
            })
            .collect()
    }

    fn search(arrivals: &[&[u8]]) -> Option<Hit> {
        let mut scanner = Scanner::default();
        let accept = |number| number == NUMBER;
        arrivals
            .iter()
            .find_map(|bytes| scanner.feed(bytes, accept))
            .or_else(|| scanner.finish(accept))
    }
}

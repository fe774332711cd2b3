//! A strict reader of DER (X.690 §10), as far as private keys need it.
//!
//! One form of each length, no indefinite lengths, numbers without spare bytes, nothing left over. Every
//! error tells the offset from the start of the outermost value.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

/// Walks over the values of one DER structure.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the outermost value.
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the outermost value.
    #[must_use]
    pub const fn new(der: &'a [u8]) -> Self {
        Self {
            rest: der,
            offset: 0,
        }
    }

    /// The tag of the next value; `None` at the end.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The content of the next value, which must carry `tag`.
    pub fn value(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        let start = self.offset;
        match self.peek() {
            None => {
                return Err(DerError {
                    offset: start,
                    fault: DerFault::Truncated,
                });
            }
            Some(found) if found != tag => {
                return Err(DerError {
                    offset: start,
                    fault: DerFault::Tag {
                        expected: tag,
                        found,
                    },
                });
            }
            Some(_) => self.advance(1),
        }
        let len = self.length()?;
        if self.rest.len() < len {
            return Err(DerError {
                offset: start,
                fault: DerFault::Truncated,
            });
        }
        let content = &self.rest[..len];
        self.advance(len);
        Ok(content)
    }

    /// Enters the next value, which must carry `tag`.
    pub fn enter(&mut self, tag: u8) -> Result<Self, DerError> {
        let content = self.value(tag)?;
        Ok(Self {
            rest: content,
            offset: self.offset - content.len(),
        })
    }

    /// The magnitude of the next INTEGER, which must not be negative, without leading zeros.
    pub fn unsigned(&mut self) -> Result<&'a [u8], DerError> {
        let offset = self.offset;
        let content = self.value(INTEGER)?;
        let fault = |fault| Err(DerError { offset, fault });
        match content {
            [] => fault(DerFault::EmptyNumber),
            [0] => Ok(&[]),
            [0, next, ..] if next & 0x80 == 0 => fault(DerFault::PaddedNumber),
            [0, magnitude @ ..] => Ok(magnitude),
            [first, ..] if first & 0x80 != 0 => fault(DerFault::NegativeNumber),
            magnitude => Ok(magnitude),
        }
    }

    /// The end must be here.
    pub const fn finish(&self) -> Result<(), DerError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DerError {
            offset: self.offset,
            fault: DerFault::LeftOver {
                bytes: self.rest.len(),
            },
        })
    }

    /// Where the next value begins.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    fn length(&mut self) -> Result<usize, DerError> {
        let offset = self.offset;
        let fault = |fault| DerError { offset, fault };
        let first = self.peek().ok_or_else(|| fault(DerFault::Truncated))?;
        self.advance(1);
        if first < 0x80 {
            return Ok(usize::from(first));
        }
        let count = usize::from(first & 0x7f);
        if count == 0 || count > LENGTH_BYTES_MAX {
            return Err(fault(DerFault::Length));
        }
        let bytes = self
            .rest
            .get(..count)
            .ok_or_else(|| fault(DerFault::Truncated))?;
        let len = bytes
            .iter()
            .fold(0, |len, &byte| len << 8 | usize::from(byte));
        // DER: the short form where it fits, and no leading zero in the long one.
        if bytes[0] == 0 || len < 0x80 {
            return Err(fault(DerFault::Length));
        }
        self.advance(count);
        Ok(len)
    }

    fn advance(&mut self, by: usize) {
        self.rest = &self.rest[by..];
        self.offset += by;
    }
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("DER offset {offset}: {fault}")]
pub struct DerError {
    /// Bytes from the start of the outermost value.
    pub offset: usize,
    /// What is wrong there.
    pub fault: DerFault,
}

/// What can be wrong with DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerFault {
    /// The bytes end within a value.
    #[error("the bytes end within a value")]
    Truncated,
    /// Another type than the structure has here.
    #[error("tag {found:#04x} instead of {expected:#04x}")]
    Tag {
        /// What the structure has here.
        expected: u8,
        /// What stands here.
        found: u8,
    },
    /// Indefinite, absurdly long, or not written in the shortest form.
    #[error("a length that DER does not allow")]
    Length,
    /// INTEGER without content.
    #[error("a number without bytes")]
    EmptyNumber,
    /// INTEGER with spare leading zeros.
    #[error("a number with spare leading zeros")]
    PaddedNumber,
    /// INTEGER below zero where that makes no sense.
    #[error("a negative number")]
    NegativeNumber,
    /// More bytes than the structure has.
    #[error("{bytes} bytes after the end")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
}

/// X.690 §8.3.
pub const INTEGER: u8 = 0x02;
/// X.690 §8.6.
pub const BIT_STRING: u8 = 0x03;
/// X.690 §8.7.
pub const OCTET_STRING: u8 = 0x04;
/// X.690 §8.8.
pub const NULL: u8 = 0x05;
/// X.690 §8.19.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// X.690 §8.9, constructed.
pub const SEQUENCE: u8 = 0x30;
/// A constructed, context-specific `[0]`.
pub const CONTEXT_0: u8 = 0xa0;
/// A constructed, context-specific `[1]`.
pub const CONTEXT_1: u8 = 0xa1;

/// 4 GiB in one value are enough for everybody.
const LENGTH_BYTES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(der: &[u8], read: impl Fn(&mut Reader<'_>) -> Result<(), DerError>) -> DerError {
        read(&mut Reader::new(der)).unwrap_err()
    }

    #[test]
    fn nested_values_know_where_they_are() {
        let der = [0x30, 0x06, 0x02, 0x01, 0x05, 0x02, 0x01, 0x80];
        let mut inside = Reader::new(&der).enter(SEQUENCE).unwrap();
        assert_eq!(inside.unsigned(), Ok(&[5][..]));
        assert_eq!(
            inside.unsigned(),
            Err(DerError {
                offset: 5,
                fault: DerFault::NegativeNumber
            })
        );
    }

    #[test]
    fn only_the_shortest_form_of_a_length_is_taken() {
        let long = [&[0x04, 0x81, 0x80][..], &[7; 128]].concat();
        assert_eq!(Reader::new(&long).value(OCTET_STRING).unwrap().len(), 128);
        for der in [
            &[0x04, 0x81, 0x01, 7][..],
            &[0x04, 0x82, 0, 0x80],
            &[0x04, 0x80, 0, 0],
            &[0x04, 0x85, 1, 0, 0, 0, 0],
        ] {
            let error = fault(der, |reader| reader.value(OCTET_STRING).map(drop));
            assert_eq!(
                error,
                DerError {
                    offset: 1,
                    fault: DerFault::Length
                }
            );
        }
    }

    #[test]
    fn numbers_have_one_spelling() {
        let number = |der: &'static [u8]| Reader::new(der).unsigned().map_err(|error| error.fault);
        assert_eq!(number(&[2, 1, 0]), Ok(&[][..]));
        assert_eq!(number(&[2, 2, 0, 0x80]), Ok(&[0x80][..]));
        assert_eq!(number(&[2, 2, 0, 0x7f]), Err(DerFault::PaddedNumber));
        assert_eq!(number(&[2, 0]), Err(DerFault::EmptyNumber));
    }

    #[test]
    fn what_is_left_over_is_told() {
        let mut reader = Reader::new(&[5, 0, 1, 2]);
        reader.value(NULL).unwrap();
        assert_eq!(
            reader.finish(),
            Err(DerError {
                offset: 2,
                fault: DerFault::LeftOver { bytes: 2 }
            })
        );
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(der in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut open = vec![Reader::new(&der)];
            while let Some(mut reader) = open.pop() {
                while let Some(tag) = reader.peek() {
                    let Ok(inner) = reader.enter(tag) else { break };
                    open.push(inner);
                }
            }
        }
    }
}

//! Reading and writing the integers and strings of EWRP bodies.

use super::Status;

/// Why a body is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A field reaches past the end.
    #[error("the body ends inside a field")]
    Short,
    /// Bytes are left after the last field.
    #[error("bytes are left after the last field")]
    Trailing,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Text,
    /// The HELLO does not begin with its magic word.
    #[error("the magic word is wrong")]
    Magic,
    /// The least version is above the greatest.
    #[error("the range of versions is empty")]
    VersionRange,
    /// A status code that EWRP/1 does not have.
    #[error("unknown status {0}")]
    Status(u16),
    /// A kind of registration that EWRP/1 does not have.
    #[error("unknown kind of registration {0}")]
    Kind(u8),
    /// A flag that is neither 0 nor 1.
    #[error("a flag is {0}")]
    Flag(u8),
    /// The key of a REGISTER_ACK does not fit in a registration id.
    #[error("the key is wider than a registration id")]
    Key,
}

/// Takes fields from the front of a body.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn of(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], BodyError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(BodyError::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, BodyError> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, BodyError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BodyError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BodyError> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn status(&mut self) -> Result<Status, BodyError> {
        let code = self.u16()?;
        Status::from_code(code).ok_or(BodyError::Status(code))
    }

    pub(super) fn flag(&mut self) -> Result<bool, BodyError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(BodyError::Flag(other)),
        }
    }

    /// A string of up to 255 bytes behind its length.
    pub(super) fn text(&mut self) -> Result<Box<str>, BodyError> {
        let len = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(len).ok_or(BodyError::Short)?;
        self.0 = rest;
        std::str::from_utf8(text)
            .map(Box::from)
            .map_err(|_| BodyError::Text)
    }

    /// Every body has exactly its fields.
    pub(super) const fn end(self) -> Result<(), BodyError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(BodyError::Trailing)
        }
    }
}

/// Appends a string behind its length. What does not fit is cut at a character: the only texts of
/// ours without a bound of their own are words for a human in GOAWAY.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.push(u8::try_from(len).expect("TEXT_LEN_MAX fits in a byte"));
    out.extend_from_slice(&text.as_bytes()[..len]);
}

/// The length of a string is one byte.
const TEXT_LEN_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let mut out = Vec::new();
        put_text(&mut out, &"é".repeat(200));
        assert_eq!(out.len(), 255);
        let mut fields = Fields::of(&out);
        assert_eq!(fields.text().expect("text").chars().count(), 127);
    }
}

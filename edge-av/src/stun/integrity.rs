//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT (RFC 8489 §14.5 to §14.7).

use aws_lc_rs::hmac;
use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::message::HEADER_LEN;

/// What a password becomes once it is bound to a user and a realm.
///
/// Kept with an allocation, so that a refresh costs one HMAC. The schedule of the common MAC is kept too; the other one
/// is made when it is asked for, as each takes more memory than the rest of an allocation.
pub struct Key {
    sha1: hmac::Key,
    secret: Zeroizing<Box<[u8]>>,
}

/// Which of the two MACs a request carries; its answer carries the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// MESSAGE-INTEGRITY, twenty bytes.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256, possibly cut (RFC 8489 §14.6).
    Sha256,
}

impl Key {
    /// The long-term key: MD5 over user, realm and password (RFC 8489 §9.2.2).
    ///
    /// Our user names and passwords are base64 text or decimal digits, which OpaqueString leaves as they are.
    #[must_use]
    pub fn long_term(username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        let mut md5 = Md5::new();
        md5.update(username);
        md5.update(b":");
        md5.update(realm);
        md5.update(b":");
        md5.update(password);
        let secret: Zeroizing<[u8; 16]> = Zeroizing::new(md5.finalize().into());
        Self::from_bytes(secret.as_slice())
    }

    /// A key used as it is, which is what short-term credentials do (RFC 8489 §9.1.1).
    #[must_use]
    pub fn from_bytes(secret: &[u8]) -> Self {
        Self {
            sha1: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret),
            secret: Zeroizing::new(secret.into()),
        }
    }

    /// Whether `mac`, whose attribute begins at `at` of `message`, is ours.
    #[must_use]
    pub fn proves(&self, algorithm: Algorithm, message: &[u8], at: usize, mac: &[u8]) -> bool {
        if !algorithm.allows(mac.len()) {
            return false;
        }
        let ours = self.mac(algorithm, message, at, mac.len());
        ours.as_ref()[..mac.len()].ct_eq(mac).into()
    }

    /// The MAC over the first `at` bytes, for an attribute that will hold `len` bytes.
    ///
    /// The length field counts up to the end of this attribute and not what stands behind it.
    pub(super) fn mac(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        at: usize,
        len: usize,
    ) -> hmac::Tag {
        let length = u16::try_from(at + 4 + len - HEADER_LEN).unwrap_or(u16::MAX);
        let sha256;
        let mut context = hmac::Context::with_key(match algorithm {
            Algorithm::Sha1 => &self.sha1,
            Algorithm::Sha256 => {
                sha256 = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
                &sha256
            }
        });
        context.update(&message[..2]);
        context.update(&length.to_be_bytes());
        context.update(&message[4..at]);
        context.sign()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Algorithm {
    const fn allows(self, len: usize) -> bool {
        match self {
            Self::Sha1 => len == SHA1_LEN,
            // Cut to a multiple of four and never below sixteen: less could be guessed.
            Self::Sha256 => len >= SHA256_LEN_MIN && len <= SHA256_LEN && len.is_multiple_of(4),
        }
    }

    /// Bytes that this server's own MACs have.
    #[must_use]
    pub const fn full_len(self) -> usize {
        match self {
            Self::Sha1 => SHA1_LEN,
            Self::Sha256 => SHA256_LEN,
        }
    }
}

/// The value of a FINGERPRINT attribute that begins at `at` of `message`.
#[must_use]
pub fn fingerprint(message: &[u8], at: usize) -> u32 {
    let length = u16::try_from(at + FINGERPRINT_ATTRIBUTE_LEN - HEADER_LEN).unwrap_or(u16::MAX);
    let crc = crc32(u32::MAX, &message[..2]);
    let crc = crc32(crc, &length.to_be_bytes());
    let crc = crc32(crc, &message[4..at]);
    !crc ^ FINGERPRINT_MASK
}

/// CRC-32 as in ITU V.42, carried on over several slices.
fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, &byte| {
        (crc >> 8) ^ CRC_TABLE[usize::from((crc as u8) ^ byte)]
    })
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

/// "STUN" in ASCII; keeps the value apart from other protocols' CRC (RFC 8489 §14.7).
const FINGERPRINT_MASK: u32 = 0x5354_554E;
const FINGERPRINT_ATTRIBUTE_LEN: usize = 8;
const SHA1_LEN: usize = 20;
const SHA256_LEN: usize = 32;
const SHA256_LEN_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_usual_one() {
        assert_eq!(!crc32(u32::MAX, b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_cut_sha256_counts_and_a_shorter_one_does_not() {
        let key = Key::long_term(b"u", b"r", b"p");
        let message = [0_u8; HEADER_LEN];
        for len in [16, 20, 24, 28, 32] {
            let mac = key.mac(Algorithm::Sha256, &message, HEADER_LEN, len);
            assert!(key.proves(
                Algorithm::Sha256,
                &message,
                HEADER_LEN,
                &mac.as_ref()[..len]
            ));
        }
        for len in [0, 12, 18, 31] {
            let mac = key.mac(Algorithm::Sha256, &message, HEADER_LEN, len);
            assert!(!key.proves(
                Algorithm::Sha256,
                &message,
                HEADER_LEN,
                &mac.as_ref()[..len]
            ));
        }
        assert!(!key.proves(Algorithm::Sha1, &message, HEADER_LEN, &[0; 16]));
    }
}

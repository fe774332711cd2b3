//! The secret number inside a private key, whatever container the key came in.
//!
//! Members of an array may hold one key as PKCS#8, PKCS#1 or SEC1; what credentials are derived from must be
//! the same. So it is not the file that counts but the number:
//!
//! | key | what is taken |
//! |---|---|
//! | RSA | the two primes in ascending order (`d` is not unique: some tools reduce it by λ(n), some by φ(n)) |
//! | EC | the scalar, as many bytes as the field has |
//! | Ed25519 | the seed |

use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::cert::der::{
    BIT_STRING, CONTEXT_0, CONTEXT_1, DerError, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING,
    Reader, SEQUENCE,
};

/// The bytes that credentials are derived from; the same for one key in every container.
///
/// ```text
///   ┌──────┬────────────────┬────────┬────────────────┬────────┐
///   │ kind │ length (u16)   │ number │ length (u16)   │ number │   the second only with RSA
///   └──────┴────────────────┴────────┴────────────────┴────────┘
/// ```
pub fn key_material(key: &PrivateKeyDer<'_>) -> Result<Zeroizing<Vec<u8>>, KeyMaterialError> {
    match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => elliptic(key.secret_sec1_der(), None),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        _ => Err(KeyMaterialError::Kind),
    }
}

/// Why no credentials can be derived from a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyMaterialError {
    /// The container is broken.
    #[error(transparent)]
    Der(#[from] DerError),
    /// Neither RSA, nor EC on a NIST curve, nor Ed25519.
    #[error("only RSA, ECDSA on P-256, P-384 or P-521, and Ed25519 keys can be used")]
    Kind,
    /// RSA with three or more primes (RFC 8017 §3.2): few libraries can use it.
    #[error("an RSA key of more than two primes")]
    ManyPrimes,
    /// An EC key that nowhere names its curve, or spells it out.
    #[error("the key does not name its curve")]
    CurveUnnamed,
    /// The curve of the container and that of the key differ.
    #[error("the key names two curves")]
    CurveContradicted,
    /// The secret number has not the size that its kind has.
    #[error("the secret number has a wrong size")]
    Size,
}

/// PrivateKeyInfo (RFC 5208) or OneAsymmetricKey (RFC 5958).
fn pkcs8(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyMaterialError> {
    let mut outer = Reader::new(der);
    let mut info = outer.enter(SEQUENCE)?;
    outer.finish()?;
    info.value(INTEGER)?;
    let mut algorithm = info.enter(SEQUENCE)?;
    let kind = algorithm.value(OBJECT_IDENTIFIER)?;
    let secret = info.value(OCTET_STRING)?;
    // Attributes, and the public key of RFC 5958, add nothing.
    for tag in [CONTEXT_0, PUBLIC_KEY, CONTEXT_1] {
        if info.peek() == Some(tag) {
            info.value(tag)?;
        }
    }
    info.finish()?;
    match kind {
        RSA_ENCRYPTION => {
            if algorithm.peek().is_some() {
                algorithm.value(NULL)?;
            }
            algorithm.finish()?;
            rsa(secret)
        }
        EC_PUBLIC_KEY => elliptic(secret, Some(named_curve(&mut algorithm)?)),
        ED25519 => ed25519(secret),
        _ => Err(KeyMaterialError::Kind),
    }
}

/// RSAPrivateKey (RFC 8017 §A.1.2).
fn rsa(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyMaterialError> {
    let mut outer = Reader::new(der);
    let mut key = outer.enter(SEQUENCE)?;
    outer.finish()?;
    if !key.unsigned()?.is_empty() {
        return Err(KeyMaterialError::ManyPrimes);
    }
    let _modulus = key.unsigned()?;
    let _public_exponent = key.unsigned()?;
    let _private_exponent = key.unsigned()?;
    let (p, q) = (key.unsigned()?, key.unsigned()?);
    let _crt_exponents = (key.unsigned()?, key.unsigned()?);
    let _crt_coefficient = key.unsigned()?;
    key.finish()?;
    if p.is_empty() || q.is_empty() || p == q {
        return Err(KeyMaterialError::Size);
    }
    // Without leading zeros the longer number is the larger one.
    let ascending = (p.len(), p) < (q.len(), q);
    let (smaller, larger) = if ascending { (p, q) } else { (q, p) };
    material(Kind::Rsa, &[smaller, larger])
}

/// ECPrivateKey (RFC 5915 §3); the curve may be named outside, inside, or on both sides.
fn elliptic(der: &[u8], outside: Option<Curve>) -> Result<Zeroizing<Vec<u8>>, KeyMaterialError> {
    let mut outer = Reader::new(der);
    let mut key = outer.enter(SEQUENCE)?;
    outer.finish()?;
    if key.unsigned()? != [1] {
        return Err(KeyMaterialError::Kind);
    }
    let scalar = key.value(OCTET_STRING)?;
    let inside = match key.peek() {
        Some(CONTEXT_0) => Some(named_curve(&mut key.enter(CONTEXT_0)?)?),
        _ => None,
    };
    if key.peek() == Some(CONTEXT_1) {
        key.enter(CONTEXT_1)?.value(BIT_STRING)?;
    }
    key.finish()?;
    let curve = match (outside, inside) {
        (Some(a), Some(b)) if a != b => return Err(KeyMaterialError::CurveContradicted),
        (Some(curve), _) | (None, Some(curve)) => curve,
        (None, None) => return Err(KeyMaterialError::CurveUnnamed),
    };
    // Some tools drop leading zeros, which RFC 5915 forbids; the number is the same.
    let significant = scalar
        .iter()
        .position(|&byte| byte != 0)
        .ok_or(KeyMaterialError::Size)?;
    let number = &scalar[significant..];
    let zeros = curve
        .field_len()
        .checked_sub(number.len())
        .ok_or(KeyMaterialError::Size)?;
    let mut padded = Zeroizing::new(vec![0; zeros]);
    padded.extend_from_slice(number);
    material(curve.kind(), &[&padded])
}

/// CurvePrivateKey (RFC 8410 §7).
fn ed25519(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyMaterialError> {
    let mut outer = Reader::new(der);
    let seed = outer.value(OCTET_STRING)?;
    outer.finish()?;
    if seed.len() != SEED_LEN {
        return Err(KeyMaterialError::Size);
    }
    material(Kind::Ed25519, &[seed])
}

fn named_curve(parameters: &mut Reader<'_>) -> Result<Curve, KeyMaterialError> {
    if parameters.peek() != Some(OBJECT_IDENTIFIER) {
        return Err(KeyMaterialError::CurveUnnamed);
    }
    let curve = match parameters.value(OBJECT_IDENTIFIER)? {
        P256 => Curve::P256,
        P384 => Curve::P384,
        P521 => Curve::P521,
        _ => return Err(KeyMaterialError::Kind),
    };
    parameters.finish()?;
    Ok(curve)
}

fn material(kind: Kind, numbers: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, KeyMaterialError> {
    // Room for all from the start: growing would leave copies of the secret behind.
    let len = numbers.iter().map(|number| 2 + number.len()).sum::<usize>();
    let mut material = Zeroizing::new(Vec::with_capacity(1 + len));
    material.push(kind as u8);
    for number in numbers {
        let len = u16::try_from(number.len()).map_err(|_| KeyMaterialError::Size)?;
        material.extend_from_slice(&len.to_be_bytes());
        material.extend_from_slice(number);
    }
    Ok(material)
}

/// Keeps numbers of two kinds apart that happen to be equal.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Rsa = 1,
    P256 = 2,
    P384 = 3,
    P521 = 4,
    Ed25519 = 5,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::P256 => Kind::P256,
            Self::P384 => Kind::P384,
            Self::P521 => Kind::P521,
        }
    }
}

/// RFC 8017 §A.1: 1.2.840.113549.1.1.1.
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// RFC 5480 §2.1.1: 1.2.840.10045.2.1.
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// RFC 8410 §3: 1.3.101.112.
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// RFC 5480 §2.1.1.1: 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// RFC 5480 §2.1.1.1: 1.3.132.0.34.
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// RFC 5480 §2.1.1.1: 1.3.132.0.35.
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
/// RFC 5958 §2: `publicKey [1] IMPLICIT BIT STRING`.
const PUBLIC_KEY: u8 = 0x81;
/// RFC 8032 §5.1.5.
const SEED_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

    use super::*;
    use crate::cert::pem;

    macro_rules! file {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/keys/", $name, ".pem"))
        };
    }

    fn key(text: &str) -> PrivateKeyDer<'static> {
        let section = pem::sections(text.as_bytes()).unwrap().remove(0);
        let der = section.der.to_vec();
        match section.label.as_str() {
            "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der).into(),
            "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der).into(),
            _ => PrivatePkcs8KeyDer::from(der).into(),
        }
    }

    fn of(text: &str) -> Vec<u8> {
        key_material(&key(text)).unwrap().to_vec()
    }

    #[test]
    fn one_key_in_every_container_of_openssl_gives_one_material() {
        assert_eq!(of(file!("rsa.pkcs1")), of(file!("rsa.pkcs8")));
        assert_eq!(of(file!("p256.sec1")), of(file!("p256.pkcs8")));
        assert_eq!(of(file!("p256.sec1")), of(file!("p256.no-public")));
        assert_eq!(of(file!("p384.sec1")), of(file!("p384.pkcs8")));
        assert_eq!(of(file!("p521.sec1")), of(file!("p521.pkcs8")));
        let lengths = [
            file!("rsa.pkcs1"),
            file!("p256.sec1"),
            file!("p384.sec1"),
            file!("p521.sec1"),
            file!("ed25519.pkcs8"),
        ]
        .map(|text| of(text).len());
        assert_eq!(
            lengths,
            [
                1 + 2 * (2 + 128),
                1 + 2 + 32,
                1 + 2 + 48,
                1 + 2 + 66,
                1 + 2 + 32
            ]
        );
    }

    #[test]
    fn rcgens_pkcs8_with_the_public_key_inside_is_read_too() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            let made = rcgen::KeyPair::generate_for(algorithm).unwrap();
            key_material(&PrivatePkcs8KeyDer::from(made.serialize_der()).into()).unwrap();
        }
    }

    /// The nine numbers of an RSA key, written again in DER.
    fn rsa_der(numbers: &[&[u8]]) -> Vec<u8> {
        let mut content = Vec::new();
        for number in numbers {
            let zero = number.first().is_none_or(|first| first & 0x80 != 0);
            let len = number.len() + usize::from(zero);
            content.push(INTEGER);
            content.extend(length(len));
            content.extend(zero.then_some(0));
            content.extend_from_slice(number);
        }
        [vec![SEQUENCE], length(content.len()), content].concat()
    }

    fn length(len: usize) -> Vec<u8> {
        match len {
            0..0x80 => vec![len as u8],
            0x80..0x100 => vec![0x81, len as u8],
            _ => vec![0x82, (len >> 8) as u8, len as u8],
        }
    }

    #[test]
    fn the_order_of_the_primes_does_not_matter() {
        let original = key(file!("rsa.pkcs1"));
        let mut reader = Reader::new(original.secret_der()).enter(SEQUENCE).unwrap();
        let mut numbers: Vec<&[u8]> = (0..9).map(|_| reader.unsigned().unwrap()).collect();
        assert_eq!(rsa_der(&numbers), original.secret_der());
        numbers.swap(4, 5);
        let swapped = PrivatePkcs1KeyDer::from(rsa_der(&numbers)).into();
        assert_eq!(
            key_material(&swapped).unwrap().to_vec(),
            of(file!("rsa.pkcs1"))
        );
    }

    #[test]
    fn a_scalar_without_its_leading_zeros_is_the_same_number() {
        let scalar = |scalar: &[u8]| {
            let inner = [&[INTEGER, 1, 1, OCTET_STRING, scalar.len() as u8], scalar].concat();
            let der = [&[SEQUENCE, inner.len() as u8][..], &inner].concat();
            elliptic(&der, Some(Curve::P256)).map(|material| material.to_vec())
        };
        let mut full = [7; 32];
        (full[0], full[1]) = (0, 0);
        assert_eq!(scalar(&full), scalar(&full[2..]));
        assert_eq!(scalar(&[7; 33]), Err(KeyMaterialError::Size));
        assert_eq!(scalar(&[0; 32]), Err(KeyMaterialError::Size));
    }

    #[test]
    fn keys_that_cannot_be_used_are_told_apart() {
        let refused = |text| key_material(&key(text)).unwrap_err();
        assert_eq!(
            refused(file!("rsa-three-primes")),
            KeyMaterialError::ManyPrimes
        );
        assert_eq!(
            refused(file!("p256.explicit")),
            KeyMaterialError::CurveUnnamed
        );
    }

    #[test]
    fn every_cut_is_refused_and_no_changed_byte_panics() {
        for text in [
            file!("rsa.pkcs1"),
            file!("rsa.pkcs8"),
            file!("p256.sec1"),
            file!("p256.pkcs8"),
            file!("ed25519.pkcs8"),
        ] {
            let whole = key(text);
            let der = whole.secret_der();
            let again = |der: Vec<u8>| match &whole {
                PrivateKeyDer::Pkcs1(_) => key_material(&PrivatePkcs1KeyDer::from(der).into()),
                PrivateKeyDer::Sec1(_) => key_material(&PrivateSec1KeyDer::from(der).into()),
                PrivateKeyDer::Pkcs8(_) | _ => key_material(&PrivatePkcs8KeyDer::from(der).into()),
            };
            for len in 0..der.len() {
                assert!(
                    matches!(again(der[..len].to_vec()), Err(KeyMaterialError::Der(_))),
                    "cut at {len}"
                );
            }
            for at in 0..der.len() {
                let mut changed = der.to_vec();
                changed[at] ^= 0x55;
                if let Ok(material) = again(changed) {
                    assert!(material.len() >= 35);
                }
            }
        }
    }
}

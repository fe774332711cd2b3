//! Keys, requests for certificates, and a small authority for laboratories.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use edge_common::host_name::HostName;
use edge_common::time::UnixTime;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, RsaKeySize, SanType, date_time_ymd,
};
use zeroize::Zeroizing;

/// The kind of key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// ECDSA on P-256: a fifteenth of RSA's cost for each handshake.
    #[default]
    P256,
    /// RSA with 2048 bits, for peers that know nothing else.
    Rsa,
}

impl Algorithm {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
    }
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The common name; also the first of the names.
    pub common_name: HostName,
    /// Names for the subjectAltName.
    pub names: Vec<HostName>,
    /// Addresses for the subjectAltName; servers inside that are dialled by address need them.
    pub addresses: Vec<IpAddr>,
}

impl Subject {
    /// One host.
    #[must_use]
    pub fn host(name: HostName) -> Self {
        Self {
            common_name: name.clone(),
            names: vec![name],
            addresses: Vec::new(),
        }
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let names: Vec<String> = self.names.iter().map(HostName::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params
            .subject_alt_names
            .extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(params)
    }
}

/// A private key with a certificate or with the request for one.
#[derive(Debug)]
pub struct Issued {
    /// PEM of the certificate or of the request.
    pub document: String,
    /// PEM of the key, PKCS#8.
    pub key: Zeroizing<String>,
}

/// Makes a key and a request for an authority of the operator's choice.
///
/// # Errors
/// When the key cannot be made.
pub fn request(subject: &Subject, algorithm: Algorithm) -> Result<Issued, rcgen::Error> {
    let key = algorithm.generate()?;
    Ok(Issued {
        document: subject.params()?.serialize_request(&key)?.pem()?,
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// Makes a key and a certificate that it signs itself, good for ten years from yesterday on: for keys whose
/// certificate is never shown to anybody.
///
/// # Errors
/// When the key cannot be made.
pub fn self_signed(
    subject: &Subject,
    algorithm: Algorithm,
    now: UnixTime,
) -> Result<Issued, rcgen::Error> {
    let key = algorithm.generate()?;
    let mut params = subject.params()?;
    set_validity(&mut params, now, AUTHORITY_YEARS);
    Ok(Issued {
        document: params.self_signed(&key)?.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// An authority that lives in two files. It is for laboratories: nobody guards its key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: Zeroizing<String>,
}

/// Why an authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It does not hold what it should.
    #[error("{}: {error}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        error: rcgen::Error,
    },
    /// A key could not be made.
    #[error("a key could not be made: {0}")]
    Key(#[from] rcgen::Error),
}

impl Authority {
    /// Makes one, good for ten years from yesterday on.
    ///
    /// # Errors
    /// When its key cannot be made.
    pub fn generate(name: &str, now: UnixTime) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, AUTHORITY_YEARS);
        let key = Algorithm::P256.generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            key: Zeroizing::new(key.serialize_pem()),
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Reads `NAME.pem` and `NAME.key`; `None`: neither is there.
    ///
    /// # Errors
    /// When one of them is missing or holds something else.
    pub fn load(directory: &Path, name: &str) -> Result<Option<Self>, AuthorityError> {
        let (chain, key_file) = Self::files(directory, name);
        if !chain.exists() && !key_file.exists() {
            return Ok(None);
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| AuthorityError::File {
                path: path.to_owned(),
                error,
            })
        };
        let content = |path: PathBuf| move |error| AuthorityError::Content { path, error };
        let pem = read(&chain)?;
        let key = Zeroizing::new(read(&key_file)?);
        let pair = KeyPair::from_pem(&key).map_err(content(key_file))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, pair).map_err(content(chain))?;
        Ok(Some(Self { issuer, pem, key }))
    }

    /// Where an authority of this name lies.
    #[must_use]
    pub fn files(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        (
            directory.join(format!("{name}.pem")),
            directory.join(format!("{name}.key")),
        )
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, PEM.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Makes a key and a certificate for it, good for two years from yesterday on.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn issue(
        &self,
        subject: &Subject,
        algorithm: Algorithm,
        now: UnixTime,
    ) -> Result<Issued, rcgen::Error> {
        let key = algorithm.generate()?;
        let mut params = subject.params()?;
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_YEARS);
        Ok(Issued {
            document: params.signed_by(&key, &self.issuer)?.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        })
    }
}

/// From yesterday on, because the clocks of two machines differ.
fn set_validity(params: &mut CertificateParams, now: UnixTime, years: i32) {
    let (year, month, day) = civil(now.as_secs().saturating_sub(DAY) / DAY);
    params.not_before = date_time_ymd(year, month, day);
    // The 29th of February has no namesake in the years to come.
    params.not_after = date_time_ymd(year + years, month, day.min(28));
}

/// Year, month and day of the Gregorian calendar, counted in days from 1970-01-01.
///
/// Years are counted from March on, so that the leap day is the last of its year; an era is 400 of them.
pub(crate) fn civil(days: u64) -> (i32, u8, u8) {
    let days = days + DAYS_TO_1970_FROM_MARCH_0000;
    let (era, of_era) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // 153 days are five months from March or August on.
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let narrow = |number: u64| u8::try_from(number).unwrap_or(1);
    (
        i32::try_from(year).unwrap_or(i32::MAX),
        narrow(month),
        narrow(day),
    )
}

const DAY: u64 = 86_400;
const DAYS_OF_ERA: u64 = 146_097;
const DAYS_TO_1970_FROM_MARCH_0000: u64 = 719_468;

const AUTHORITY_YEARS: i32 = 10;
const LEAF_YEARS: i32 = 2;

#[cfg(test)]
mod tests {
    use edge_common::cert::role::{self, Facts, Role, Severity, Wanted};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_795_334_400);

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_779), (2026, 11, 22));
        assert_eq!(civil(47_540), (2100, 2, 28));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }

    #[test]
    fn what_the_lab_authority_issues_fits_every_role() {
        let authority = Authority::generate("Lab", NOW).unwrap();
        for algorithm in [Algorithm::P256, Algorithm::Rsa] {
            let host = name("sip.contoso.test");
            let issued = authority
                .issue(&Subject::host(host.clone()), algorithm, NOW)
                .unwrap();
            let der = CertificateDer::from_pem_slice(issued.document.as_bytes()).unwrap();
            let facts = Facts::read(&der).unwrap();
            for role in Role::ALL {
                let wanted = Wanted::new(role, [host.clone()]);
                let errors: Vec<_> = role::check(&facts, &wanted, NOW)
                    .into_iter()
                    .filter(|problem| problem.severity() == Severity::Error)
                    .collect();
                assert_eq!(errors, [], "{role} {algorithm:?}");
            }
        }
    }

    #[test]
    fn an_authority_goes_on_from_its_files() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Authority::load(directory.path(), "ca").unwrap().is_none());
        let first = Authority::generate("Lab", NOW).unwrap();
        let (chain, key) = Authority::files(directory.path(), "ca");
        fs::write(&chain, first.pem()).unwrap();
        let half = Authority::load(directory.path(), "ca")
            .unwrap_err()
            .to_string();
        assert!(half.contains("ca.key"), "{half}");
        fs::write(&key, first.key()).unwrap();
        let again = Authority::load(directory.path(), "ca").unwrap().unwrap();
        let issued = again
            .issue(&Subject::host(name("a.test")), Algorithm::P256, NOW)
            .unwrap();

        let anchor = CertificateDer::from_pem_slice(first.pem().as_bytes()).unwrap();
        let leaf = CertificateDer::from_pem_slice(issued.document.as_bytes()).unwrap();
        let (_, ca) = x509_parser::parse_x509_certificate(&anchor).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        assert_eq!(leaf.issuer(), ca.subject());
    }

    #[test]
    fn a_request_holds_the_names_and_no_more() {
        let mut subject = Subject::host(name("edge.contoso.internal"));
        subject.names.push(name("edge1.contoso.internal"));
        let issued = request(&subject, Algorithm::P256).unwrap();
        assert!(
            issued
                .document
                .starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        );
        assert!(issued.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(
            issued.document.as_bytes(),
        )
        .unwrap();
        let text = String::from_utf8_lossy(&der);
        assert!(text.contains("edge.contoso.internal") && text.contains("edge1.contoso.internal"));
    }
}

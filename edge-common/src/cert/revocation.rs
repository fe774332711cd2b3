//! Certificate revocation lists (RFC 5280 §5): loaded from files, picked for the certificate at hand.
//!
//! A CA that changed its key has two lists with one issuer name. A list is therefore picked by the issuer's
//! name *and* by the key identifier, where both the certificate and the list state one; what remains is tried
//! newest first, and a list that another key signed is passed over.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::pem;
use super::store::{LoadError, LoadFault};

/// One list and what picks it.
pub struct Crl {
    list: CertRevocationList<'static>,
    authority_key: Option<Vec<u8>>,
    this_update: i64,
    next_update: Option<i64>,
    source: PathBuf,
}

impl Crl {
    /// Reads one list as it was published, DER or PEM; `source` is only for messages.
    pub fn from_bytes(bytes: &[u8], source: &Path) -> Result<Self, LoadFault> {
        if bytes.first() == Some(&super::der::SEQUENCE) {
            return Self::from_der(bytes, source);
        }
        let sections = pem::sections(bytes)?;
        let section = sections.iter().find(|section| section.label == "X509 CRL");
        let section = section.ok_or(LoadFault::Nothing { wanted: "X509 CRL" })?;
        Self::from_der(&section.der, source)
    }

    /// Reads one list; `source` is only for messages.
    pub fn from_der(der: &[u8], source: &Path) -> Result<Self, LoadFault> {
        let invalid = |reason: String| LoadFault::Crl { reason };
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|error| invalid(format!("{error:?}")))?;
        let (_, parsed) =
            CertificateRevocationList::from_der(der).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            list: list.into(),
            authority_key: authority_key(parsed.extensions()),
            this_update: parsed.last_update().timestamp(),
            next_update: parsed.next_update().map(|at| at.timestamp()),
            source: source.to_owned(),
        })
    }

    /// The list as webpki takes it.
    #[must_use]
    pub const fn list(&self) -> &CertRevocationList<'static> {
        &self.list
    }

    /// Says whether a newer list should have been here by `now`.
    #[must_use]
    pub fn is_stale(&self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.next_update.is_none_or(|next| next <= now)
    }

    /// Seconds since 1970 at which a newer one is due; `None`: the CA did not say, which RFC 5280 forbids it.
    #[must_use]
    pub const fn next_update(&self) -> Option<i64> {
        self.next_update
    }

    /// Seconds since 1970 at which it was made.
    #[must_use]
    pub const fn this_update(&self) -> i64 {
        self.this_update
    }

    /// The file it comes from.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    fn may_cover(&self, issuer: &[u8], authority_key: Option<&[u8]>) -> bool {
        let same_key = match (&self.authority_key, authority_key) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, _) | (_, None) => true,
        };
        self.list.issuer() == issuer && same_key
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crl")
            .field("source", &self.source)
            .field("this_update", &self.this_update)
            .field("next_update", &self.next_update)
            .finish_non_exhaustive()
    }
}

/// All lists of one side; replaced as a whole.
#[derive(Debug)]
pub struct CrlStore {
    lists: ArcSwap<Vec<Arc<Crl>>>,
    /// Where peers' authorities publish theirs, as seen in certificates whose chain held, until somebody takes it.
    wanted: Mutex<BTreeSet<String>>,
}

impl CrlStore {
    /// No lists.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Self::of(Vec::new())
    }

    /// These lists.
    #[must_use]
    pub fn of(lists: Vec<Crl>) -> Arc<Self> {
        Arc::new(Self {
            lists: ArcSwap::from_pointee(newest_first(lists)),
            wanted: Mutex::default(),
        })
    }

    /// Replaces all lists.
    pub fn replace(&self, mut lists: Vec<Arc<Crl>>) {
        lists.sort_by_key(|crl| std::cmp::Reverse(crl.this_update));
        self.lists.store(Arc::new(lists));
    }

    /// Notes where the list that covers `certificate` is published. Only of a certificate whose chain holds: a stranger
    /// has no say in what is fetched. What does not fit waits for the next handshake.
    pub fn want(&self, certificate: &CertificateDer<'_>) {
        let points = distribution_points(certificate);
        if points.is_empty() {
            return;
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for point in points {
            if wanted.len() < WANTED_MAX {
                wanted.insert(point);
            }
        }
    }

    /// The places that were noted since the last call.
    #[must_use]
    pub fn take_wanted(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lists in these files, PEM or DER.
    pub fn load(files: &[PathBuf]) -> Result<Arc<Self>, LoadError> {
        Ok(Self::of(read_files(files)?))
    }

    /// Reads the files again. On an error the lists stay as they are.
    pub fn reload(&self, files: &[PathBuf]) -> Result<(), LoadError> {
        let lists = read_files(files)?;
        self.lists.store(Arc::new(newest_first(lists)));
        Ok(())
    }

    /// The lists that may say something about `certificate`, newest first, at most a handful.
    #[must_use]
    pub fn candidates(&self, certificate: &CertificateDer<'_>) -> Vec<Arc<Crl>> {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Vec::new();
        };
        let key = authority_key(parsed.extensions());
        let issuer = issuer_content(parsed.issuer().as_raw());
        let lists = self.lists.load();
        lists
            .iter()
            .filter(|crl| crl.may_cover(issuer, key.as_deref()))
            .take(CANDIDATES_MAX)
            .map(Arc::clone)
            .collect()
    }

    /// All lists, for status and metrics.
    #[must_use]
    pub fn lists(&self) -> Arc<Vec<Arc<Crl>>> {
        self.lists.load_full()
    }
}

/// The `http` URLs at which the issuer publishes the list for `certificate` (RFC 5280 §4.2.1.13), at most a handful.
#[must_use]
pub fn distribution_points(certificate: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for extension in parsed.extensions() {
        let ParsedExtension::CRLDistributionPoints(points) = extension.parsed_extension() else {
            continue;
        };
        for point in points.iter() {
            let Some(DistributionPointName::FullName(names)) = &point.distribution_point else {
                continue;
            };
            for name in names {
                if let GeneralName::URI(uri) = name
                    && uri.starts_with("http://")
                    && uri.len() <= URL_LEN_MAX
                {
                    found.push((*uri).to_owned());
                }
            }
        }
    }
    found.truncate(POINTS_MAX);
    found
}

fn newest_first(mut lists: Vec<Crl>) -> Vec<Arc<Crl>> {
    lists.sort_by_key(|crl| std::cmp::Reverse(crl.this_update));
    lists.into_iter().map(Arc::new).collect()
}

fn read_files(files: &[PathBuf]) -> Result<Vec<Crl>, LoadError> {
    let mut lists = Vec::new();
    for file in files {
        let found = read_file(file).map_err(|fault| LoadError::new(file, fault))?;
        lists.extend(found);
    }
    Ok(lists)
}

/// CAs publish DER; operators keep PEM. Both are welcome.
fn read_file(file: &Path) -> Result<Vec<Crl>, LoadFault> {
    let len = fs::metadata(file).map_err(LoadFault::Read)?.len();
    if len > CRL_FILE_LEN_MAX {
        return Err(LoadFault::TooLarge {
            len,
            max: CRL_FILE_LEN_MAX,
        });
    }
    let bytes = fs::read(file).map_err(LoadFault::Read)?;
    if bytes.first() == Some(&super::der::SEQUENCE) {
        return Ok(vec![Crl::from_der(&bytes, file)?]);
    }
    let lists = pem::sections(&bytes)?
        .iter()
        .filter(|section| section.label == "X509 CRL")
        .map(|section| Crl::from_der(&section.der, file))
        .collect::<Result<Vec<_>, _>>()?;
    if lists.is_empty() {
        return Err(LoadFault::Nothing { wanted: "X509 CRL" });
    }
    Ok(lists)
}

fn authority_key(extensions: &[X509Extension<'_>]) -> Option<Vec<u8>> {
    extensions.iter().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(authority) = extension.parsed_extension()
        else {
            return None;
        };
        authority.key_identifier.as_ref().map(|key| key.0.to_vec())
    })
}

/// webpki keeps the issuer without the outer SEQUENCE; this takes it off.
fn issuer_content(raw: &[u8]) -> &[u8] {
    super::der::Reader::new(raw)
        .value(super::der::SEQUENCE)
        .unwrap_or(raw)
}

/// The largest lists of public CAs have some 10 MB.
pub const CRL_FILE_LEN_MAX: u64 = 20 * 1024 * 1024;
/// Places that wait to be looked at.
const WANTED_MAX: usize = 64;
/// Places that one certificate may name.
const POINTS_MAX: usize = 4;
const URL_LEN_MAX: usize = 1024;
/// Key changes and shards of one issuer; each may cost a signature check per handshake.
const CANDIDATES_MAX: usize = 8;

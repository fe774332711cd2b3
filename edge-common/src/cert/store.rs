//! Our own certificates: loaded, checked, and replaced while running.
//!
//! A listener has one or two pairs, an ECDSA one and an RSA one. Which of them a peer sees is decided per
//! handshake by what the peer can verify. [`Store::reload`] reads the files again; on any error the pairs
//! stay as they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{CipherSuite, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use super::pem::{self, PemError, Section};
use super::role::{self, Facts, FactsError, Problem, Severity, Wanted};
use super::tls;
use crate::config::CertificateFiles;
use crate::private_file::{self, PrivateFileFault};
use crate::time::UnixTime;

/// A certificate with its chain and key, proven to belong together.
#[derive(Debug)]
pub struct Pair {
    /// What rustls works with.
    pub certified: Arc<CertifiedKey>,
    /// What the certificate says.
    pub facts: Facts,
}

impl Pair {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.certified.key.algorithm()
    }

    /// Says whether a peer that announced this can verify what the pair signs.
    fn suits(&self, schemes: &[SignatureScheme], suites: Option<&[CipherSuite]>) -> bool {
        self.certified.key.choose_scheme(schemes).is_some()
            && suites
                .is_none_or(|suites| suites.iter().any(|suite| carries(*suite, self.algorithm())))
    }
}

/// Reads a chain and its key.
pub fn load_pair(files: &CertificateFiles) -> Result<Pair, LoadError> {
    let (chain, facts) =
        read_own_chain(&files.chain).map_err(|fault| LoadError::new(&files.chain, fault))?;
    let key = read_key(&files.key).map_err(|fault| LoadError::new(&files.key, fault))?;
    let key = signing_key(&key).map_err(|fault| LoadError::new(&files.key, fault))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(Pair {
            certified: Arc::new(certified),
            facts,
        }),
        Err(_) => Err(LoadError::new(
            &files.key,
            LoadFault::KeyMismatch {
                chain: files.chain.clone(),
            },
        )),
    }
}

/// The pairs of one listener.
#[derive(Debug)]
pub struct Store {
    files: Vec<CertificateFiles>,
    wanted: Wanted,
    pairs: ArcSwap<Vec<Pair>>,
}

impl Store {
    /// Loads one or two pairs and checks them for their role. The problems are warnings; an error among them fails the load.
    pub fn load(
        files: &[CertificateFiles],
        wanted: Wanted,
        now: UnixTime,
    ) -> Result<(Arc<Self>, Vec<Problem>), LoadError> {
        let (pairs, warnings) = load_pairs(files, &wanted, now)?;
        let store = Self {
            files: files.to_vec(),
            wanted,
            pairs: ArcSwap::from_pointee(pairs),
        };
        Ok((Arc::new(store), warnings))
    }

    /// A store of one pair that did not come from files, for tests and probes; it cannot be reloaded.
    pub fn of(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Arc<Self>, LoadFault> {
        Self::of_pairs(&[(&chain, key)])
    }

    /// As [`Self::of`], of one or two pairs.
    pub fn of_pairs(
        pairs: &[(&[CertificateDer<'static>], &PrivateKeyDer<'_>)],
    ) -> Result<Arc<Self>, LoadFault> {
        let mut made = Vec::with_capacity(pairs.len());
        for (chain, key) in pairs {
            let leaf = chain.first().ok_or(LoadFault::Nothing {
                wanted: "CERTIFICATE",
            })?;
            let facts =
                Facts::read(leaf).map_err(|error| LoadFault::Certificate { index: 1, error })?;
            let certified = Arc::new(CertifiedKey::new(chain.to_vec(), signing_key(key)?));
            made.push(Pair { certified, facts });
        }
        Ok(Arc::new(Self {
            files: Vec::new(),
            wanted: Wanted::nothing(),
            pairs: ArcSwap::from_pointee(preferred_first(made)),
        }))
    }

    /// Reads the files again; new handshakes see the new pairs. On an error the old ones stay.
    pub fn reload(&self, now: UnixTime) -> Result<Vec<Problem>, LoadError> {
        let (pairs, warnings) = load_pairs(&self.files, &self.wanted, now)?;
        self.pairs.store(Arc::new(pairs));
        Ok(warnings)
    }

    /// The pairs now in use, the ECDSA one first.
    #[must_use]
    pub fn pairs(&self) -> Arc<Vec<Pair>> {
        self.pairs.load_full()
    }

    /// When the first of the certificates expires.
    #[must_use]
    pub fn not_after(&self) -> Option<UnixTime> {
        self.pairs
            .load()
            .iter()
            .map(|pair| pair.facts.not_after)
            .min()
    }

    fn choose(
        &self,
        schemes: &[SignatureScheme],
        suites: Option<&[CipherSuite]>,
    ) -> Option<Arc<CertifiedKey>> {
        let pairs = self.pairs.load();
        pairs
            .iter()
            .find(|pair| pair.suits(schemes, suites))
            .map(|pair| Arc::clone(&pair.certified))
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.signature_schemes(), Some(hello.cipher_suites()))
    }
}

impl ResolvesClientCert for Store {
    /// The authorities that a peer hints at are not looked at: many hint at none, or at too few.
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.choose(schemes, None)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn load_pairs(
    files: &[CertificateFiles],
    wanted: &Wanted,
    now: UnixTime,
) -> Result<(Vec<Pair>, Vec<Problem>), LoadError> {
    let mut pairs = Vec::with_capacity(files.len());
    let mut warnings = Vec::new();
    for file in files {
        let pair = load_pair(file)?;
        let (errors, mild): (Vec<_>, Vec<_>) = role::check(&pair.facts, wanted, now)
            .into_iter()
            .partition(|p| p.severity() == Severity::Error);
        if !errors.is_empty() {
            return Err(LoadError::new(&file.chain, LoadFault::Role(errors)));
        }
        warnings.extend(mild);
        pairs.push(pair);
    }
    let pairs = preferred_first(pairs);
    match (files, pairs.as_slice()) {
        ([], _) => Err(LoadError::new(Path::new(""), LoadFault::NoPair)),
        ([_, second, ..], [a, b]) if a.algorithm() == b.algorithm() => {
            Err(LoadError::new(&second.chain, LoadFault::SameKind))
        }
        ([_, _, third, ..], _) => Err(LoadError::new(&third.chain, LoadFault::TooMany)),
        _ => Ok((pairs, warnings)),
    }
}

/// Signing with ECDSA P-256 costs a fifteenth of RSA-2048.
fn preferred_first(mut pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.sort_by_key(|pair| pair.algorithm() == SignatureAlgorithm::RSA);
    pairs
}

/// Our certificate with its issuers, and what it says. Peers get the file as it is, and strict ones want the order of RFC 5246.
fn read_own_chain(file: &Path) -> Result<(Vec<CertificateDer<'static>>, Facts), LoadFault> {
    let chain = read_chain(file)?;
    let parse = |(at, certificate): (usize, &CertificateDer<'_>)| {
        Facts::read(certificate).map_err(|error| LoadFault::Certificate {
            index: at + 1,
            error,
        })
    };
    let mut facts = chain
        .iter()
        .enumerate()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?;
    let stray = facts
        .windows(2)
        .position(|pair| pair[0].issuer != pair[1].subject);
    match stray {
        Some(at) => Err(LoadFault::ChainOrder { index: at + 1 }),
        None => Ok((chain, facts.swap_remove(0))),
    }
}

/// The certificates of a PEM file, at least one.
pub fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, LoadFault> {
    let sections = read_public(file)?;
    let chain: Vec<_> = sections
        .iter()
        .filter(|section| is_certificate(section))
        .map(|section| CertificateDer::from(section.der.to_vec()))
        .collect();
    if chain.is_empty() {
        return Err(LoadFault::Nothing {
            wanted: "CERTIFICATE",
        });
    }
    Ok(chain)
}

/// The only private key of a PEM file.
pub fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, LoadFault> {
    let sections = pem::sections(&private_file::read(file, KEY_FILE_LEN_MAX)?)?;
    let mut keys = sections
        .iter()
        .filter(|section| section.label.ends_with("PRIVATE KEY"));
    let key = keys.next().ok_or(LoadFault::Nothing {
        wanted: "PRIVATE KEY",
    })?;
    if let Some(second) = keys.next() {
        return Err(LoadFault::SeveralKeys { line: second.line });
    }
    let der = key.der.to_vec();
    match key.label.as_str() {
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(der).into()),
        "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(der).into()),
        "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(der).into()),
        "ENCRYPTED PRIVATE KEY" => Err(LoadFault::KeyEncrypted { line: key.line }),
        _ => Err(LoadFault::KeyKind {
            line: key.line,
            label: key.label.clone(),
        }),
    }
}

fn signing_key(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, LoadFault> {
    tls::provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|error| LoadFault::KeyUnusable {
            reason: error.to_string(),
        })
}

fn read_public(file: &Path) -> Result<Vec<Section>, LoadFault> {
    let len = fs::metadata(file).map_err(LoadFault::Read)?.len();
    if len > PEM_FILE_LEN_MAX {
        return Err(LoadFault::TooLarge {
            len,
            max: PEM_FILE_LEN_MAX,
        });
    }
    Ok(pem::sections(&fs::read(file).map_err(LoadFault::Read)?)?)
}

fn is_certificate(section: &Section) -> bool {
    matches!(
        section.label.as_str(),
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"
    )
}

/// Says whether a suite can be used with a certificate whose key signs by `algorithm`.
///
/// A peer of TLS 1.2 may know ECDSA signatures and yet offer no ECDHE_ECDSA suite; suites of TLS 1.3 go with all.
fn carries(suite: CipherSuite, algorithm: SignatureAlgorithm) -> bool {
    let of_tls12: &[CipherSuite] = if algorithm == SignatureAlgorithm::RSA {
        &RSA_SUITES
    } else {
        &ECDSA_SUITES
    };
    TLS13_SUITES.contains(&suite) || of_tls12.contains(&suite)
}

const TLS13_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];
const RSA_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];
const ECDSA_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// A file that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct LoadError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: LoadFault,
}

impl LoadError {
    /// Names the file.
    #[must_use]
    pub fn new(path: &Path, fault: LoadFault) -> Self {
        Self {
            path: path.to_owned(),
            fault,
        }
    }
}

/// What can be wrong with a file of certificates, keys or lists.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The system said no.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// More than such a file ever has.
    #[error("{len} bytes; at most {max} are read")]
    TooLarge {
        /// Its length.
        len: u64,
        /// What is allowed.
        max: u64,
    },
    /// A key that cannot be read, or is not kept like one.
    #[error(transparent)]
    Private(#[from] PrivateFileFault),
    /// Certificates in another order than each followed by its issuer.
    #[error(
        "certificate {index} was not issued by the next one; put ours first and then each one's issuer"
    )]
    ChainOrder {
        /// Counted from 1.
        index: usize,
    },
    /// Not PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// PEM without what is looked for.
    #[error("no \"{wanted}\" in it")]
    Nothing {
        /// The label.
        wanted: &'static str,
    },
    /// A section that is no certificate.
    #[error("certificate {index}: {error}")]
    Certificate {
        /// Counted from 1.
        index: usize,
        /// What is wrong.
        error: FactsError,
    },
    /// A certificate that cannot vouch for others.
    #[error("certificate {index} cannot be used as a CA: {reason}")]
    Authority {
        /// Counted from 1.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A list that cannot be read.
    #[error("not a usable revocation list: {reason}")]
    Crl {
        /// What is wrong.
        reason: String,
    },
    /// Which one is meant?
    #[error("line {line}: a second private key")]
    SeveralKeys {
        /// Where the second begins.
        line: usize,
    },
    /// There is nobody who could type the pass phrase.
    #[error("line {line}: the key is encrypted; store it without a pass phrase and guard the file")]
    KeyEncrypted {
        /// Where it begins.
        line: usize,
    },
    /// DSA and other kinds that TLS no longer has.
    #[error("line {line}: a \"{label}\" cannot be used; PKCS#8, PKCS#1 (RSA) and SEC1 (EC) can")]
    KeyKind {
        /// Where it begins.
        line: usize,
        /// What it says it is.
        label: String,
    },
    /// The key is broken or of a size that is not supported.
    #[error("the private key cannot be used: {reason}")]
    KeyUnusable {
        /// What the cryptography says.
        reason: String,
    },
    /// A key of another certificate.
    #[error("this is not the key of the first certificate in {}", chain.display())]
    KeyMismatch {
        /// The file with the certificate.
        chain: PathBuf,
    },
    /// The certificate does not serve its purpose.
    #[error("{}", list(.0))]
    Role(Vec<Problem>),
    /// A listener without any.
    #[error("no certificate is configured")]
    NoPair,
    /// Two certificates are for two kinds of keys.
    #[error(
        "the second certificate has a key of the same kind as the first; one ECDSA and one RSA make sense"
    )]
    SameKind,
    /// More than two.
    #[error("a third certificate; a listener has one ECDSA and one RSA")]
    TooMany,
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// RSA-8192 with comments.
const KEY_FILE_LEN_MAX: u64 = 64 * 1024;
/// A bundle of all public roots has a quarter of this.
const PEM_FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::cert::role::Role;
    use crate::cert::test_pki::{Authority, Issued, TODAY, Wish};

    const HOST: &str = "webconf.contoso.test";

    fn now() -> UnixTime {
        UnixTime::from_secs(TODAY)
    }

    fn wanted() -> Wanted {
        Wanted::new(Role::WebConfExternal, [HOST.parse().unwrap()])
    }

    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            Self(TempDir::new().unwrap())
        }

        fn write(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, content).unwrap();
            if name.ends_with(".key") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            path
        }

        fn pair(&self, name: &str, issued: &Issued) -> CertificateFiles {
            CertificateFiles {
                chain: self.write(&format!("{name}.pem"), &issued.pem),
                key: self.write(&format!("{name}.key"), &issued.key.serialize_pem()),
            }
        }
    }

    fn rsa() -> Wish {
        Wish {
            algorithm: &rcgen::PKCS_RSA_SHA256,
            ..Wish::named(HOST)
        }
    }

    #[test]
    fn the_ecdsa_pair_is_preferred_and_the_rsa_pair_serves_the_rest() {
        let (place, ca) = (Place::new(), Authority::new("CA"));
        let files = [
            place.pair("rsa", &ca.issue(&rsa())),
            place.pair("ec", &ca.issue(&Wish::named(HOST))),
        ];
        let (store, _) = Store::load(&files, wanted(), now()).unwrap();
        let chosen = |schemes: &[SignatureScheme], suites: &[CipherSuite]| {
            store
                .choose(schemes, Some(suites))
                .map(|pair| pair.key.algorithm())
        };
        let both = [
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ];
        let (ec, rsa) = (
            Some(SignatureAlgorithm::ECDSA),
            Some(SignatureAlgorithm::RSA),
        );
        assert_eq!(chosen(&both, &TLS13_SUITES), ec);
        assert_eq!(chosen(&both[..1], &TLS13_SUITES), rsa);
        assert_eq!(chosen(&both, &ECDSA_SUITES), ec);
        assert_eq!(
            chosen(&both, &RSA_SUITES),
            rsa,
            "a TLS 1.2 client without ECDHE_ECDSA"
        );
        assert_eq!(chosen(&both[1..], &RSA_SUITES), None);
        assert_eq!(
            chosen(&both, &[CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA]),
            None
        );
    }

    #[test]
    fn a_bad_file_on_reload_keeps_the_old_pair() {
        let (place, ca) = (Place::new(), Authority::new("CA"));
        let files = [place.pair("a", &ca.issue(&Wish::named(HOST)))];
        let (store, _) = Store::load(&files, wanted(), now()).unwrap();
        let serving = || store.pairs()[0].certified.cert[0].clone();
        let first = serving();

        let renewed = ca.issue(&Wish::named(HOST));
        place.write("a.pem", &renewed.pem);
        assert!(matches!(
            store.reload(now()).unwrap_err().fault,
            LoadFault::KeyMismatch { .. }
        ));
        assert_eq!(serving(), first, "the new certificate came without its key");
        place.pair("a", &renewed);
        store.reload(now()).unwrap();
        assert_eq!(serving(), renewed.chain[0]);
        place.write("a.key", "");
        store.reload(now()).unwrap_err();
        assert_eq!(serving(), renewed.chain[0]);
    }

    #[test]
    fn errors_name_the_file_the_place_and_the_reason() {
        let (place, ca) = (Place::new(), Authority::new("CA"));
        let (good, other) = (
            ca.issue(&Wish::named(HOST)),
            ca.issue(&Wish::named("other.test")),
        );
        let key = good.key.serialize_pem();
        let cases = [
            ("", key.as_str(), "a.pem: no \"CERTIFICATE\" in it"),
            (
                &good.pem[..200],
                &key,
                "a.pem: line 4: \"CERTIFICATE\", begun in line 1, has no end",
            ),
            (
                &good.pem.replace("MII", "M!I"),
                &key,
                "a.pem: line 2: byte 0x21 is not base64",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &key,
                "a.pem: certificate 1: not a certificate: ",
            ),
            (&good.pem, "", "a.key: no \"PRIVATE KEY\" in it"),
            (
                &good.pem,
                &format!("{key}{key}"),
                "a.key: line 6: a second private key",
            ),
            (
                &good.pem,
                &other.key.serialize_pem(),
                "a.key: this is not the key of the first certificate in ",
            ),
            (
                &good.pem,
                &key.replace("PRIVATE", "ENCRYPTED PRIVATE"),
                "a.key: line 1: the key is encrypted",
            ),
            (
                &good.pem,
                &key.replace("PRIVATE", "DSA PRIVATE"),
                "a.key: line 1: a \"DSA PRIVATE KEY\" cannot be used",
            ),
            (
                &good.pem,
                "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n",
                "a.key: the private key cannot be used: ",
            ),
            (
                &other.pem,
                &other.key.serialize_pem(),
                "a.pem: does not name webconf.contoso.test",
            ),
        ];
        for (chain, key, expected) in cases {
            let files = CertificateFiles {
                chain: place.write("a.pem", chain),
                key: place.write("a.key", key),
            };
            let error = Store::load(&[files], wanted(), now())
                .unwrap_err()
                .to_string();
            let told = error
                .rsplit('/')
                .find(|part| part.starts_with("a."))
                .unwrap_or(&error);
            assert!(error.contains(expected), "{expected}: {told}");
        }
        let nowhere = CertificateFiles {
            chain: "/nonexistent/a.pem".into(),
            key: "/nonexistent/a.key".into(),
        };
        let error = load_pair(&nowhere).unwrap_err().to_string();
        assert_eq!(
            error,
            "/nonexistent/a.pem: cannot be read: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_chain_is_in_order_and_its_key_is_kept_private() {
        let (place, ca) = (Place::new(), Authority::new("CA"));
        let issued = ca.issue(&Wish::named(HOST));
        let mut files = place.pair("a", &issued);
        files.chain = place.write("chain.pem", &format!("{}{}", issued.pem, ca.pem()));
        assert_eq!(load_pair(&files).unwrap().certified.cert.len(), 2);
        files.chain = place.write("chain.pem", &format!("{}{}", ca.pem(), issued.pem));
        assert!(matches!(
            load_pair(&files).unwrap_err().fault,
            LoadFault::ChainOrder { index: 1 }
        ));
        files.chain = place.write("chain.pem", &issued.pem);
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            load_pair(&files).unwrap_err().fault,
            LoadFault::Private(PrivateFileFault::OpenToAll)
        ));
    }

    #[test]
    fn two_pairs_are_of_two_kinds_and_a_third_is_too_many() {
        let (place, ca) = (Place::new(), Authority::new("CA"));
        let pair = |name: &str, wish: &Wish| place.pair(name, &ca.issue(wish));
        let refused =
            |files: &[CertificateFiles]| Store::load(files, wanted(), now()).unwrap_err().fault;
        let (a, b, c) = (
            pair("a", &Wish::named(HOST)),
            pair("b", &Wish::named(HOST)),
            pair("c", &rsa()),
        );
        assert!(matches!(
            refused(&[a.clone(), b.clone()]),
            LoadFault::SameKind
        ));
        assert!(matches!(refused(&[a, c, b]), LoadFault::TooMany));
        assert!(matches!(refused(&[]), LoadFault::NoPair));
    }

    #[test]
    fn a_bundle_without_a_ca_that_can_be_used_is_refused() {
        let (place, ca) = (Place::new(), Authority::new("CA"));
        let bundle = format!("# inside\n{}", ca.pem());
        let trust =
            crate::cert::trust::TrustStore::from_pem_file(&place.write("ca.pem", &bundle)).unwrap();
        assert_eq!(trust.len(), 1);
        let broken = format!(
            "{}-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
            ca.pem()
        );
        let broken = crate::cert::trust::TrustStore::from_pem_file(&place.write("ca.pem", &broken));
        assert!(matches!(
            broken.unwrap_err().fault,
            LoadFault::Authority { index: 2, .. }
        ));
        let empty = crate::cert::trust::TrustStore::from_pem_file(&place.write("ca.pem", "# soon"));
        assert!(matches!(
            empty.unwrap_err().fault,
            LoadFault::Nothing { .. }
        ));
    }

    #[test]
    fn lists_are_read_as_pem_and_as_der() {
        use crate::cert::revocation::CrlStore;
        let place = Place::new();
        let (pem, der) = (
            place.write(
                "a.crl",
                "-----BEGIN X509 CRL-----\nMAAA\n-----END X509 CRL-----\n",
            ),
            place.0.path().join("b.crl"),
        );
        fs::write(&der, [0x30, 0x03, 0x02, 0x01, 0x00]).unwrap();
        for file in [pem, der] {
            let error = CrlStore::load(std::slice::from_ref(&file))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(".crl: not a usable revocation list: "),
                "{error}"
            );
        }
        let no_list = place.write("c.crl", &Authority::new("CA").pem());
        assert!(matches!(
            CrlStore::load(&[no_list]).unwrap_err().fault,
            LoadFault::Nothing { .. }
        ));
    }
}

//! Certificates of a benchmark: one RSA authority, leaves with RSA-2048 or P-256 keys.

use crate::lab::ca::{Pair, write_private};
use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Which key a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// RSA with 2048 bits: what every peer can use.
    Rsa,
    /// ECDSA on P-256.
    P256,
}

/// The authority that both servers and the load trust.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Writes `ca.pem` into `directory`.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Bench CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key_pair(Key::Rsa)?)?;
        let authority = Self {
            issuer,
            directory: directory.to_owned(),
        };
        fs::write(authority.file(), authority.issuer.pem())?;
        Ok(authority)
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A certificate for `names` that may act as server and as client: `LABEL.pem` and `LABEL.key`.
    pub fn issue(&self, label: &str, key: Key, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let first = names.first().context("a certificate needs a name")?.clone();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, first);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let pair = Pair {
            chain: self.directory.join(format!("{label}.pem")),
            key: self.directory.join(format!("{label}.key")),
        };
        let key = key_pair(key)?;
        fs::write(&pair.chain, params.signed_by(&key, &self.issuer)?.pem())?;
        write_private(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

fn key_pair(key: Key) -> Result<KeyPair> {
    Ok(match key {
        Key::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        Key::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
    })
}

//! Certificate authorities of the lab and what they sign: ECDSA P-256, made anew for each run.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::path::{Path, PathBuf};

/// One authority, with its certificate in a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub file: PathBuf,
    directory: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Files of one certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, followed by nothing: the authority signs leaves directly.
    pub chain: PathBuf,
    /// PKCS #8.
    pub key: PathBuf,
}

impl Authority {
    /// A self-signed authority whose files are `directory/NAME.pem`.
    pub fn new(name: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Lab {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let file = directory.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).with_context(|| format!("cannot write {file:?}"))?;
        Ok(Self {
            issuer,
            file,
            directory: directory.to_owned(),
        })
    }

    /// Signs a certificate for `names` (DNS names and addresses; the first is also the common name)
    /// that may act as server and as client.
    pub fn issue(&self, label: &str, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let first = names.first().context("a certificate needs a name")?.clone();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, first);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            chain: self.directory.join(format!("{label}.pem")),
            key: self.directory.join(format!("{label}.key")),
        };
        fs::write(&pair.chain, certificate.pem())?;
        write_private(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

/// Writes a file that only its owner may read: whoever reads keys insists on it.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).with_context(|| format!("cannot write {path:?}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn openssl_accepts_a_leaf_for_its_name_only() {
        let work = tempfile::tempdir().expect("directory");
        let authority = Authority::new("root", work.path()).expect("authority");
        let pair = authority
            .issue("leaf", &["sip.contoso.test", "192.0.2.1"])
            .expect("leaf");
        let verify = |name: &str| {
            Command::new("openssl")
                .args([
                    "verify",
                    "-verify_hostname",
                    name,
                    "-purpose",
                    "sslserver",
                    "-CAfile",
                ])
                .arg(&authority.file)
                .arg(&pair.chain)
                .output()
                .expect("openssl")
                .status
                .success()
        };
        assert!(verify("sip.contoso.test"));
        assert!(!verify("sip.fabrikam.test"));
    }
}

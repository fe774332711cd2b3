//! Certificate authorities of the lab and what they sign: ECDSA P-256, made anew for each run.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
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

/// What a certificate has otherwise than the usual one.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// No usage as a client.
    pub server_only: bool,
    /// Its number; by lot without.
    pub serial: Option<u64>,
    /// Where its issuer's revocation list is said to be.
    pub crl: Option<String>,
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
        self.issue_as(label, names, &Wish::default())
    }

    /// The list of revoked numbers, DER, good for a day around now and long after.
    pub fn crl(&self, serials: &[u64]) -> Result<Vec<u8>> {
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.der().to_vec())
    }

    /// As [`Self::issue`], with what is different.
    pub fn issue_as(&self, label: &str, names: &[&str], wish: &Wish) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let first = names.first().context("a certificate needs a name")?.clone();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, first);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if !wish.server_only {
            let client = ExtendedKeyUsagePurpose::ClientAuth;
            params.extended_key_usages.push(client);
        }
        params.serial_number = wish.serial.map(SerialNumber::from);
        params.crl_distribution_points = wish
            .crl
            .iter()
            .map(|url| CrlDistributionPoint {
                uris: vec![url.clone()],
            })
            .collect();
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

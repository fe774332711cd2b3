//! One authority for all, as files for the daemon and as TLS configurations for the peers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use edge_common::cert::tls::{
    CrlStore, PeerPolicy, PeerVerifier, Store, TrustStore, anonymous_dialer, dialer,
    mutual_listener,
};
use edge_common::config::{CertificateFiles, ClientEku, Revocation};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ServerConfig};

pub(crate) struct Pki(CertifiedIssuer<'static, KeyPair>);

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    /// Writes the CA certificate and gives its path.
    pub(crate) fn write_ca(&self, file: &Path) {
        fs::write(file, self.0.pem()).expect("written");
    }

    /// Writes a certificate for `names` and its key into `directory`.
    pub(crate) fn write(&self, directory: &Path, stem: &str, names: &[&str]) -> CertificateFiles {
        let (certificate, key) = self.issue(names);
        let files = CertificateFiles {
            chain: directory.join(format!("{stem}.pem")),
            key: directory.join(format!("{stem}.key")),
        };
        fs::write(&files.chain, certificate.pem()).expect("written");
        fs::write(&files.key, key.serialize_pem()).expect("written");
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("private");
        files
    }

    /// A peer that shows nothing.
    pub(crate) fn anonymous(&self) -> Arc<ClientConfig> {
        anonymous_dialer(self.verifier(), &[])
    }

    /// A peer that shows a certificate for `name`, as the one that connects.
    pub(crate) fn client(&self, name: &str) -> Arc<ClientConfig> {
        dialer(self.store(name), self.verifier(), &[])
    }

    /// A peer that shows a certificate of another authority than the one it trusts.
    pub(crate) fn client_of(&self, name: &str, issuer: &Self) -> Arc<ClientConfig> {
        dialer(issuer.store(name), self.verifier(), &[])
    }

    /// Both sides of one server: it connects with a certificate of `issuer`, and listens with one of ours for the same key.
    pub(crate) fn two_faces(
        &self,
        name: &str,
        issuer: &Self,
    ) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let key = KeyPair::generate().expect("a key");
        let face = |authority: &Self| {
            let certificate = authority.sign(&[name], &key);
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            Store::of(vec![certificate.der().clone()], &key).expect("a pair")
        };
        (
            dialer(face(issuer), self.verifier(), &[]),
            mutual_listener(face(self), self.verifier(), &[]),
        )
    }

    /// A peer that shows a certificate for `name`, as the one that listens.
    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        mutual_listener(self.store(name), self.verifier(), &[])
    }

    fn store(&self, name: &str) -> Arc<Store> {
        let (certificate, key) = self.issue(&[name]);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Store::of(vec![certificate.der().clone()], &key).expect("a pair")
    }

    fn verifier(&self) -> Arc<PeerVerifier> {
        let trust = TrustStore::of(&[self.0.der().clone()]).expect("a CA");
        let policy = PeerPolicy {
            client_eku: ClientEku::ClientOrServer,
            revocation: Revocation::Off,
        };
        PeerVerifier::new(trust, policy, CrlStore::empty())
    }

    fn issue(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        (self.sign(names, &key), key)
    }

    fn sign(&self, names: &[&str], key: &KeyPair) -> rcgen::Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let start = rcgen::date_time_ymd(2026, 1, 1);
        params.not_before = start;
        params.not_after = rcgen::date_time_ymd(2046, 1, 1);
        params.use_authority_key_identifier_extension = true;
        params.signed_by(key, &self.0).expect("signed")
    }
}

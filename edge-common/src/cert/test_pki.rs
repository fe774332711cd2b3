//! A small PKI for the tests of this crate.

use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use super::revocation::Crl;
use super::store::Store;

/// Noon of 2026-06-15, at which the certificates of this PKI are good.
pub(crate) const TODAY: u64 = 1_781_524_800;

#[derive(Debug)]
pub(crate) struct FixedClock(u64);

impl FixedClock {
    pub(crate) fn at(secs: u64) -> Arc<Self> {
        Arc::new(Self(secs))
    }
}

impl TimeProvider for FixedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            self.0,
        )))
    }
}

/// A certification authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Two authorities with one name are one that changed its key.
    pub(crate) fn new(name: &str) -> Self {
        let params = authority_params(name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// An authority that this one vouches for.
    pub(crate) fn subordinate(&self, name: &str) -> Self {
        let params = authority_params(name);
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, wish: &Wish) -> Issued {
        let key = KeyPair::generate_for(wish.algorithm).unwrap();
        let certificate = wish.params().signed_by(&key, &self.0).unwrap();
        Issued {
            chain: vec![certificate.der().clone()],
            pem: certificate.pem(),
            key,
        }
    }

    /// A list of these serial numbers, in date from 2026-06-`from` to 2026-06-`to`.
    pub(crate) fn crl(&self, serials: &[u64], (from, to): (u8, u8), with_key_id: bool) -> Crl {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 6, from),
            next_update: date_time_ymd(2026, 6, to),
            crl_number: SerialNumber::from(u64::from(from)),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|&serial| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: date_time_ymd(2026, 6, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: if with_key_id {
                KeyIdMethod::Sha256
            } else {
                KeyIdMethod::PreSpecified(vec![])
            },
        };
        let list = params.signed_by(&self.0).unwrap();
        Crl::from_der(list.der(), std::path::Path::new("test.crl")).unwrap()
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2036, 1, 1);
    params
}

/// What a certificate should hold.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) names: Vec<&'static str>,
    pub(crate) common_name: &'static str,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) serial: u64,
    pub(crate) key_id: bool,
    pub(crate) years: (i32, i32),
    pub(crate) algorithm: &'static rcgen::SignatureAlgorithm,
}

impl Wish {
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            names: vec![name],
            common_name: "test",
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            serial: 7,
            key_id: true,
            years: (2026, 2027),
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }

    pub(crate) fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name);
        params.subject_alt_names = self
            .names
            .iter()
            .map(|name| {
                let text = Ia5String::try_from(*name).unwrap();
                if name.contains(':') {
                    SanType::URI(text)
                } else {
                    SanType::DnsName(text)
                }
            })
            .collect();
        params.extended_key_usages.clone_from(&self.usages);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.use_authority_key_identifier_extension = self.key_id;
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        params
    }
}

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
}

impl Issued {
    pub(crate) fn store(&self) -> Arc<Store> {
        Store::of(self.chain.clone(), &self.private_key()).unwrap()
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

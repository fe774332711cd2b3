//! What a certificate says of itself, for people who compare certificates.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::cert::identity::{CertificateId, Fingerprint, IdentityError};
use edge_common::time::UnixTime;
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// One certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// To whom it was given.
    pub subject: String,
    /// By whom.
    pub issuer: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Its alternative names: `sip.contoso.com`, `URI:sip:contoso.com`.
    pub names: Vec<String>,
    /// Its extended key usage; empty: for everything.
    pub usage: Vec<String>,
    /// From then on, in seconds of Unix time.
    pub not_before: u64,
    /// Until then.
    pub not_after: u64,
    /// SHA-256 over all of it, hexadecimal.
    pub sha256: String,
}

impl Facts {
    /// Of a certificate's DER.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(der: &[u8]) -> Result<Self, IdentityError> {
        let id = CertificateId::of(der)?;
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let moment = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: id.issuer,
            serial: id.serial,
            names: names(&certificate),
            usage: usage(&certificate),
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
            sha256: Fingerprint::of(der).to_string(),
        })
    }

    /// The moment after which nobody takes it.
    #[must_use]
    pub const fn expires(&self) -> UnixTime {
        UnixTime::from_secs(self.not_after)
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is x509-parser's; other kinds name no server"
    )]
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        _ => None,
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect()
}

fn usage(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.extended_key_usage() else {
        return Vec::new();
    };
    let usage = extension.value;
    let mut words: Vec<String> = [
        (usage.any, "any"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .map(|(_, word)| word.to_owned())
    .collect();
    if words.is_empty() {
        words.push("other".to_owned());
    }
    words
}

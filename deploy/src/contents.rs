//! What the named certificates, keys and secrets hold, against what they are for.

use std::path::Path;

use edge_common::cert::role::{self, Problem};
use edge_common::cert::store::{self, LoadError, LoadFault};
use edge_common::cert::tls::TrustStore;
use edge_common::config::{CertificateFiles, Config, Finding, RuleId, Severity, TrustRoots, rule};
use edge_common::secret_files;
use edge_common::time::UnixTime;

use crate::certs::{self, Need};

/// Everything that is wrong with the contents of files that are there. Files that are missing are told by
/// [`edge_common::config::files::look_at`], and not once more here.
///
/// Paths of `config` are taken as they are, so it has been rebased.
#[must_use]
pub fn findings(config: &Config, now: UnixTime) -> Vec<Finding> {
    let mut findings: Vec<Finding> = certs::needs(config)
        .iter()
        .flat_map(|need| pair(need, now))
        .collect();
    findings.extend(secrets(config));
    findings.extend(authorities(config));
    findings.extend(shared_keys(config));
    findings
}

fn pair(need: &Need, now: UnixTime) -> Vec<Finding> {
    let CertificateFiles { chain, key } = &need.files;
    if !chain.exists() || !key.exists() {
        return Vec::new();
    }
    let pair = match store::load_pair(&need.files) {
        Ok(pair) => pair,
        Err(error) => return vec![load_finding(&error, chain)],
    };
    role::check(&pair.facts, &need.wanted, now)
        .iter()
        .map(|problem| role_finding(problem, need))
        .collect()
}

fn load_finding(error: &LoadError, chain: &Path) -> Finding {
    let id = if matches!(error.fault, LoadFault::KeyMismatch { .. }) {
        rule::KEY_MISMATCH
    } else if matches!(error.fault, LoadFault::Private(_)) {
        rule::SECRET_OPEN
    } else if matches!(error.fault, LoadFault::Read(_)) {
        rule::FILE_UNREADABLE
    } else if error.path == *chain {
        rule::CERTIFICATE_UNREADABLE
    } else {
        rule::KEY_UNREADABLE
    };
    finding(id, error.to_string())
}

fn role_finding(problem: &Problem, need: &Need) -> Finding {
    let id = match problem {
        Problem::Expired { .. } | Problem::NotYetValid { .. } => rule::CERTIFICATE_EXPIRED,
        Problem::ExpiresSoon { .. } | Problem::ExpiredUnseen { .. } => {
            rule::CERTIFICATE_EXPIRES_SOON
        }
        Problem::HostMissing { .. }
        | Problem::SipNameMissing { .. }
        | Problem::NoAlternativeName => rule::CERTIFICATE_NAME,
        Problem::KeyShort { .. }
        | Problem::KeyLong { .. }
        | Problem::KeyUnsupported
        | Problem::KeyUncommon
        | Problem::Authority
        | Problem::NotForServers
        | Problem::NotForClients
        | Problem::MayNotSign
        | Problem::WeakSignature
        | Problem::NoCrlLocation => rule::CERTIFICATE_USAGE,
    };
    let message = format!("{} ({}): {problem}", need.files.chain.display(), need.role);
    let mut finding = finding(id, message).with_help(remedy(problem));
    // The same rule may be broken badly or mildly; the certificate's own judgement is the finer one.
    finding.severity = match problem.severity() {
        role::Severity::Error => Severity::Error,
        role::Severity::Warning => Severity::Warning,
    };
    finding
}

const fn remedy(problem: &Problem) -> &'static str {
    match problem {
        Problem::Expired { .. } | Problem::ExpiresSoon { .. } => "Renew it.",
        Problem::NotYetValid { .. } => "Check the host's clock.",
        Problem::ExpiredUnseen { .. } => {
            "Nothing has to be done; renew it when its key is changed."
        }
        Problem::HostMissing { .. }
        | Problem::SipNameMissing { .. }
        | Problem::NoAlternativeName => {
            "Have a certificate made that holds the name as subject alternative name."
        }
        Problem::NoCrlLocation => {
            "Ask the CA for one with a CRL distribution point: without it no peer learns that it was revoked."
        }
        Problem::NotForClients => {
            "Nothing has to be done while peers take serverAuth from a client, as this edge does."
        }
        Problem::KeyShort { .. }
        | Problem::KeyLong { .. }
        | Problem::KeyUnsupported
        | Problem::KeyUncommon => {
            "Have one made for a key of ECDSA P-256 or RSA-2048; `edgectl init` makes the key and the request."
        }
        Problem::Authority
        | Problem::NotForServers
        | Problem::MayNotSign
        | Problem::WeakSignature => {
            "Have one made for a server, from the request that `edgectl init` makes."
        }
    }
}

fn secrets(config: &Config) -> Vec<Finding> {
    let files = &config.array.secrets;
    let mut findings = Vec::new();
    if files.current.exists()
        && let Err(error) = secret_files::array_secrets(files)
    {
        findings.push(finding(rule::SECRET_UNREADABLE, error.to_string()));
    }
    let rest = config.av.as_ref().and_then(|av| av.rest_secrets.as_ref());
    if let Some(files) = rest.filter(|files| files.current.exists())
        && let Err(error) = secret_files::rest_secrets(files)
    {
        findings.push(finding(rule::SECRET_UNREADABLE, error.to_string()));
    }
    findings
}

fn authorities(config: &Config) -> Vec<Finding> {
    let mut files = vec![&config.internal.ca];
    if let Some(access) = &config.access {
        if let TrustRoots::File(file) = &access.federation.trust_roots {
            files.push(file);
        }
        files.extend(
            access
                .federation
                .partners
                .iter()
                .filter_map(|partner| partner.ca.as_ref()),
        );
    }
    files
        .into_iter()
        .filter(|file| file.exists())
        .filter_map(|file| TrustStore::from_pem_file(file).err())
        .map(|error| finding(rule::CERTIFICATE_UNREADABLE, error.to_string()))
        .collect()
}

/// The A/V authentication key makes credentials; a listener that shows its certificate would let everybody who
/// breaks into that listener make them too.
fn shared_keys(config: &Config) -> Vec<Finding> {
    let key_of = |need: &Need| {
        store::load_pair(&need.files)
            .ok()
            .map(|pair| pair.facts.public_key)
    };
    let needs = certs::needs(config);
    let (secret, shown): (Vec<&Need>, Vec<&Need>) = needs
        .iter()
        .partition(|need| need.role == role::Role::AvAuthentication);
    let mut findings = Vec::new();
    for need in secret {
        let Some(key) = key_of(need) else { continue };
        if let Some(other) = shown
            .iter()
            .find(|other| key_of(other).as_ref() == Some(&key))
        {
            findings.push(finding(
                rule::AUTH_KEY_SHARED,
                format!(
                    "{} has the key of {}",
                    need.files.chain.display(),
                    other.files.chain.display()
                ),
            ));
        }
    }
    findings
}

fn finding(id: RuleId, message: String) -> Finding {
    Finding::new(id, "", None, message)
}

//! What the named certificates, keys and secrets hold, against what they are for.

use std::path::{Path, PathBuf};

use edge_common::cert::role::{self, Problem};
use edge_common::cert::store::{self, LoadError, LoadFault};
use edge_common::cert::tls::TrustStore;
use edge_common::config::{
    CertificateFiles, Config, Finding, NamedFile, RuleId, Severity, TrustRoots, files, rule,
};
use edge_common::secret_files;
use edge_common::time::UnixTime;

use crate::certs::{self, Need};

/// Everything that is wrong with the contents of files that are there. Files that are missing are told by
/// [`files::look_at`], and not once more here.
///
/// Paths of `config` are taken as they are, so it has been rebased; `text` is that of the configuration.
#[must_use]
pub fn findings(config: &Config, text: &str, now: UnixTime) -> Vec<Finding> {
    let mut faults: Vec<Fault> = certs::needs(config)
        .iter()
        .flat_map(|need| pair(need, now))
        .collect();
    faults.extend(secrets(config));
    faults.extend(authorities(config));
    faults.extend(shared_keys(config));
    let named = config.named_files();
    faults
        .into_iter()
        .map(|fault| fault.finding(&named, text))
        .collect()
}

/// Something wrong with one file.
struct Fault {
    id: RuleId,
    file: PathBuf,
    message: String,
    /// The certificate's own judgement of how bad it is, and what to do; else those of the rule.
    judgement: Option<(Severity, &'static str)>,
}

impl Fault {
    fn new(id: RuleId, file: &Path, message: String) -> Self {
        Self {
            id,
            file: file.to_owned(),
            message,
            judgement: None,
        }
    }

    /// Points at the line that names the file.
    fn finding(self, named: &[NamedFile], text: &str) -> Finding {
        let key = named
            .iter()
            .find(|named| named.path == self.file)
            .map(|named| named.key.as_str());
        let place = key.map(|key| files::place_of(text, key));
        let mut finding = Finding::new(self.id, key.unwrap_or_default(), place, self.message);
        if let Some((severity, remedy)) = self.judgement {
            finding.severity = severity;
            finding = finding.with_help(remedy);
        }
        finding
    }
}

fn pair(need: &Need, now: UnixTime) -> Vec<Fault> {
    let CertificateFiles { chain, key } = &need.files;
    if !chain.exists() || !key.exists() {
        return Vec::new();
    }
    let pair = match store::load_pair(&need.files) {
        Ok(pair) => pair,
        Err(error) => return vec![load_fault(&error, chain)],
    };
    role::check(&pair.facts, &need.wanted, now)
        .iter()
        .map(|problem| role_fault(problem, need))
        .collect()
}

fn load_fault(error: &LoadError, chain: &Path) -> Fault {
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
    Fault::new(id, &error.path, error.to_string())
}

fn role_fault(problem: &Problem, need: &Need) -> Fault {
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
    let severity = match problem.severity() {
        role::Severity::Error => Severity::Error,
        role::Severity::Warning => Severity::Warning,
    };
    let chain = &need.files.chain;
    Fault {
        id,
        file: chain.clone(),
        message: format!("{} ({}): {problem}", chain.display(), need.role),
        judgement: Some((severity, remedy(problem))),
    }
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

fn secrets(config: &Config) -> Vec<Fault> {
    let array = &config.array.secrets;
    let rest = config.av.as_ref().and_then(|av| av.rest_secrets.as_ref());
    let errors = [
        array
            .current
            .exists()
            .then(|| secret_files::array_secrets(array).err()),
        rest.filter(|rest| rest.current.exists())
            .map(|rest| secret_files::rest_secrets(rest).err()),
    ];
    errors
        .into_iter()
        .flatten()
        .flatten()
        .map(|error| Fault::new(rule::SECRET_UNREADABLE, &error.path, error.to_string()))
        .collect()
}

fn authorities(config: &Config) -> Vec<Fault> {
    let mut files = vec![&config.internal.ca];
    if let Some(access) = &config.access {
        if let TrustRoots::File(file) = &access.federation.trust_roots {
            files.push(file);
        }
        let partners = access.federation.partners.iter();
        files.extend(partners.filter_map(|partner| partner.ca.as_ref()));
    }
    files
        .into_iter()
        .filter(|file| file.exists())
        .filter_map(|file| Some((file, TrustStore::from_pem_file(file).err()?)))
        .map(|(file, error)| Fault::new(rule::CERTIFICATE_UNREADABLE, file, error.to_string()))
        .collect()
}

/// The A/V authentication key makes credentials; a listener that shows its certificate would let everybody who
/// breaks into that listener make them too.
fn shared_keys(config: &Config) -> Vec<Fault> {
    let key_of = |need: &Need| {
        store::load_pair(&need.files)
            .ok()
            .map(|pair| pair.facts.public_key)
    };
    let needs = certs::needs(config);
    let (secret, shown): (Vec<&Need>, Vec<&Need>) = needs
        .iter()
        .partition(|need| need.role == role::Role::AvAuthentication);
    let mut faults = Vec::new();
    for need in secret {
        let Some(key) = key_of(need) else { continue };
        if let Some(other) = shown
            .iter()
            .find(|other| key_of(other).as_ref() == Some(&key))
        {
            let (chain, shown) = (&need.files.chain, &other.files.chain);
            let message = format!("{} has the key of {}", chain.display(), shown.display());
            faults.push(Fault::new(rule::AUTH_KEY_SHARED, chain, message));
        }
    }
    faults
}

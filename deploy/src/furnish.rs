//! Everything that a configuration names and that does not exist yet: keys, certificates, secrets.

use std::path::{Path, PathBuf};

use edge_common::config::{CertificateFiles, Config, TrustRoots};
use edge_common::random::Random;
use edge_common::secret::ArraySecret;
use edge_common::time::UnixTime;
use zeroize::Zeroizing;

use crate::certs::{self, Need};
use crate::fresh::{Fresh, Secrecy};
use crate::issue::{self, Algorithm, Authority, AuthorityError, Issued, Subject};
use edge_common::cert::role::Role;

/// Who signs.
#[derive(Debug)]
pub enum Signers {
    /// Nobody yet: requests are written beside the keys.
    Requests,
    /// Authorities of a laboratory, one for each side.
    Lab(Box<LabAuthorities>),
}

/// What a laboratory has in place of the two worlds' authorities.
#[derive(Debug)]
pub struct LabAuthorities {
    /// In place of the organisation's own.
    pub inside: Authority,
    /// In place of a public one; partners in the laboratory share it.
    pub outside: Authority,
}

impl LabAuthorities {
    /// The files' names without their endings.
    pub const NAMES: [&str; 2] = ["inside-ca", "outside-ca"];

    /// Takes those of `directory`, and makes those that are not there; the new ones are to be written.
    ///
    /// # Errors
    /// When one is there by half, or a key cannot be made.
    pub fn open(directory: &Path, now: UnixTime) -> Result<(Self, Vec<Fresh>), AuthorityError> {
        let mut fresh = Vec::new();
        let mut open = |file: &str, name: &str| {
            if let Some(authority) = Authority::load(directory, file)? {
                return Ok::<_, AuthorityError>(authority);
            }
            let authority = Authority::generate(name, now)?;
            let (chain, key) = Authority::files(directory, file);
            fresh.push(public(
                chain,
                authority.pem(),
                format!("{name}, certificate"),
            ));
            fresh.push(Fresh {
                path: key,
                secrecy: Secrecy::Private,
                contents: Zeroizing::new(authority.key().to_owned()),
                what: format!("{name}, key"),
            });
            Ok(authority)
        };
        let [inside, outside] = Self::NAMES;
        let authorities = Self {
            inside: open(inside, "Laboratory inside CA")?,
            outside: open(outside, "Laboratory public CA")?,
        };
        Ok((authorities, fresh))
    }
}

/// What has to be written, and what the operator has to bring.
#[derive(Debug, Default)]
pub struct Furniture {
    /// New files.
    pub files: Vec<Fresh>,
    /// What is there already and stays as it is.
    pub kept: Vec<PathBuf>,
    /// What has to come from somebody else, a sentence each.
    pub wanted: Vec<String>,
}

/// How files are made.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// Who signs.
    pub signers: &'a Signers,
    /// The kind of keys.
    pub algorithm: Algorithm,
    /// For validity.
    pub now: UnixTime,
    /// Relative paths of the configuration are below this directory.
    pub base: &'a Path,
}

impl Workshop<'_> {
    /// Makes everything that `config` names and that is not there.
    ///
    /// # Errors
    /// When a key cannot be made.
    pub fn furnish(
        &self,
        config: &Config,
        rng: &mut dyn Random,
    ) -> Result<Furniture, rcgen::Error> {
        let mut furniture = Furniture::default();
        let mut seen = Vec::new();
        for need in certs::needs(config) {
            if seen.contains(&need.files) {
                continue;
            }
            seen.push(need.files.clone());
            self.pair(&need, &mut furniture)?;
        }
        self.secrets(config, rng, &mut furniture);
        self.authorities(config, &mut furniture);
        Ok(furniture)
    }

    fn pair(&self, need: &Need, furniture: &mut Furniture) -> Result<(), rcgen::Error> {
        let CertificateFiles { chain, key } = self.located(&need.files);
        let (has_chain, has_key) = (chain.exists(), key.exists());
        if has_key || has_chain {
            furniture.kept.extend(has_chain.then(|| chain.clone()));
            furniture.kept.extend(has_key.then(|| key.clone()));
            if !has_chain {
                furniture.wanted.push(format!(
                    "{}: the certificate for the key {}",
                    chain.display(),
                    key.display()
                ));
            }
            return Ok(());
        }
        let subject = Subject {
            common_name: need.common_name.clone(),
            names: need.names.clone(),
            addresses: Vec::new(),
        };
        let (issued, is_certificate) = match self.signer(need.role) {
            Some(authority) => (authority.issue(&subject, self.algorithm, self.now)?, true),
            // Nobody sees it, only its key counts: nobody else has to sign it.
            None if need.role == Role::AvAuthentication => (
                issue::self_signed(&subject, self.algorithm, self.now)?,
                true,
            ),
            None => (issue::request(&subject, self.algorithm)?, false),
        };
        let Issued { document, key: pem } = issued;
        furniture.files.push(Fresh {
            path: key,
            secrecy: Secrecy::Key,
            contents: pem,
            what: format!("key: {}", need.role),
        });
        if is_certificate {
            furniture.files.push(public(
                chain,
                &document,
                format!("certificate: {}", need.role),
            ));
        } else {
            let request = chain.with_extension("csr");
            furniture.wanted.push(format!(
                "{}: signed from {} ({})",
                chain.display(),
                request.display(),
                need.role
            ));
            furniture.files.push(public(
                request,
                &document,
                format!("request: {}", need.role),
            ));
        }
        Ok(())
    }

    fn signer(&self, role: Role) -> Option<&Authority> {
        let Signers::Lab(lab) = self.signers else {
            return None;
        };
        Some(match role {
            Role::Internal | Role::AvAuthentication => &lab.inside,
            Role::AccessExternal | Role::WebConfExternal | Role::AvExternal => &lab.outside,
        })
    }

    fn secrets(&self, config: &Config, rng: &mut dyn Random, furniture: &mut Furniture) {
        let array = &config.array.secrets;
        let files = [
            Some(&array.current),
            array.next.as_ref(),
            array.previous.as_ref(),
        ];
        for (path, name) in files
            .into_iter()
            .flatten()
            .zip(["current", "next", "previous"])
        {
            self.secret(path, format!("secret of the array, {name}"), rng, furniture);
        }
        let Some(rest) = config.av.as_ref().and_then(|av| av.rest_secrets.as_ref()) else {
            return;
        };
        for path in [Some(&rest.current), rest.previous.as_ref()]
            .into_iter()
            .flatten()
        {
            self.secret(
                path,
                "secret shared with servers that mint credentials".into(),
                rng,
                furniture,
            );
        }
    }

    fn secret(&self, path: &Path, what: String, rng: &mut dyn Random, furniture: &mut Furniture) {
        let path = self.base.join(path);
        if path.exists() {
            furniture.kept.push(path);
            return;
        }
        let mut contents = ArraySecret::generate(rng).to_hex();
        contents.push('\n');
        furniture.files.push(Fresh {
            path,
            secrecy: Secrecy::Key,
            contents,
            what,
        });
    }

    fn authorities(&self, config: &Config, furniture: &mut Furniture) {
        let inside = self.base.join(&config.internal.ca);
        let roots =
            config
                .access
                .as_ref()
                .and_then(|access| match &access.federation.trust_roots {
                    TrustRoots::File(path) => Some(self.base.join(path)),
                    TrustRoots::System => None,
                });
        let places = [(Some(inside), true), (roots, false)];
        for (path, is_inside) in places {
            let Some(path) = path else { continue };
            if path.exists() {
                furniture.kept.push(path);
            } else if furniture.files.iter().any(|file| file.path == path) {
                // The laboratory keeps its authority right there.
            } else if let Signers::Lab(lab) = self.signers {
                let authority = if is_inside { &lab.inside } else { &lab.outside };
                furniture.files.push(public(
                    path,
                    authority.pem(),
                    "authority to be trusted".into(),
                ));
            } else if is_inside {
                furniture.wanted.push(format!(
                    "{}: the certificate of the organisation's own CA",
                    path.display()
                ));
            } else {
                furniture
                    .wanted
                    .push(format!("{}: the CAs that partners may use", path.display()));
            }
        }
    }

    fn located(&self, files: &CertificateFiles) -> CertificateFiles {
        CertificateFiles {
            chain: self.base.join(&files.chain),
            key: self.base.join(&files.key),
        }
    }
}

fn public(path: PathBuf, text: &str, what: String) -> Fresh {
    Fresh {
        path,
        secrecy: Secrecy::Public,
        contents: Zeroizing::new(text.to_owned()),
        what,
    }
}

#[cfg(test)]
mod tests {
    use edge_common::cert::store;
    use edge_common::random::Seeded;

    use super::*;
    use crate::fixture;
    use crate::fresh::write_all;

    const NOW: UnixTime = UnixTime::from_secs(1_795_334_400);

    fn furnish(base: &Path, signers: &Signers) -> Furniture {
        let workshop = Workshop {
            signers,
            algorithm: Algorithm::P256,
            now: NOW,
            base,
        };
        workshop
            .furnish(&fixture::single(), &mut Seeded::new(1))
            .unwrap()
    }

    #[test]
    fn a_laboratory_gets_a_whole_tree_and_a_second_run_adds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let (lab, fresh) = LabAuthorities::open(&base.join("lab-ca"), NOW).unwrap();
        write_all(&fresh, None).unwrap();
        let signers = Signers::Lab(Box::new(lab));
        let furniture = furnish(base, &signers);
        assert_eq!(furniture.wanted, Vec::<String>::new());
        write_all(&furniture.files, None).unwrap();

        for need in certs::needs(&fixture::single()) {
            let files = CertificateFiles {
                chain: base.join(&need.files.chain),
                key: base.join(&need.files.key),
            };
            store::Store::load(&[files], need.wanted, NOW).unwrap();
        }
        let again = furnish(base, &signers);
        assert_eq!(again.files, []);
        assert_eq!(again.kept.len(), furniture.files.len());
        let (_, fresh) = LabAuthorities::open(&base.join("lab-ca"), NOW).unwrap();
        assert_eq!(fresh, []);
    }

    #[test]
    fn without_an_authority_there_are_requests_and_a_list_of_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let furniture = furnish(directory.path(), &Signers::Requests);
        let requests = furniture
            .files
            .iter()
            .filter(|file| file.path.extension().is_some_and(|ext| ext == "csr"));
        assert_eq!(requests.count(), 4);
        assert_eq!(furniture.wanted.len(), 5, "{:?}", furniture.wanted);
        assert!(
            furniture
                .wanted
                .iter()
                .any(|line| line.contains("inside-ca.pem"))
        );
    }
}

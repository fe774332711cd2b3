//! The files that a configuration names, and where they are.

use std::path::{Path, PathBuf};

use super::network::{CertificateFiles, SecretFiles};
use super::{Config, TrustRoots};

/// What a named file holds; it decides who may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Certificates or revocation lists: everyone may read them.
    Public,
    /// A private key or secret: the owner and the daemon's group only.
    Private,
}

/// One file that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The key that names it, as in `access.certificates[0].key`.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub content: Content,
}

impl Config {
    /// Takes relative paths as starting at `directory`, which is where the file itself lies.
    pub fn rebase(&mut self, directory: &Path) {
        self.each_path(&mut |_, _, path| {
            if path.is_relative() {
                *path = directory.join(&*path);
            }
        });
    }

    /// Every file that is named, in the order of the keys' tables.
    #[must_use]
    pub fn named_files(&self) -> Vec<NamedFile> {
        let mut files = Vec::new();
        // One walk serves both, so that a new key cannot be forgotten by one of them.
        self.clone().each_path(&mut |key, content, path| {
            files.push(NamedFile {
                key,
                path: path.clone(),
                content,
            });
        });
        files
    }

    fn each_path(&mut self, visit: &mut Visit<'_>) {
        visit(
            "internal.ca".to_owned(),
            Content::Public,
            &mut self.internal.ca,
        );
        for (index, path) in self.internal.crls.iter_mut().enumerate() {
            visit(format!("internal.crls[{index}]"), Content::Public, path);
        }
        list(
            "internal.certificates",
            &mut self.internal.certificates,
            visit,
        );
        secrets("array.secrets", &mut self.array.secrets, visit);
        if let Some(access) = &mut self.access {
            list("access.certificates", &mut access.certificates, visit);
            for (index, partner) in access.federation.partners.iter_mut().enumerate() {
                if let Some(path) = &mut partner.ca {
                    visit(
                        format!("access.federation.partners[{index}].ca"),
                        Content::Public,
                        path,
                    );
                }
            }
            if let TrustRoots::File(path) = &mut access.federation.trust_roots {
                visit(
                    "access.federation.trust_roots".to_owned(),
                    Content::Public,
                    path,
                );
            }
        }
        if let Some(webconf) = &mut self.webconf {
            list("webconf.certificates", &mut webconf.certificates, visit);
            for (index, path) in webconf.preface_keys.iter_mut().enumerate() {
                visit(
                    format!("webconf.preface_keys[{index}]"),
                    Content::Public,
                    path,
                );
            }
        }
        if let Some(av) = &mut self.av {
            list("av.certificates", &mut av.certificates, visit);
            let keys = &mut av.authentication;
            pair("av.authentication.current", &mut keys.current, visit);
            for (name, files) in [("next", &mut keys.next), ("previous", &mut keys.previous)] {
                if let Some(files) = files {
                    pair(&format!("av.authentication.{name}"), files, visit);
                }
            }
            if let Some(rest) = &mut av.rest_secrets {
                visit(
                    "av.rest_secrets.current".to_owned(),
                    Content::Private,
                    &mut rest.current,
                );
                if let Some(path) = &mut rest.previous {
                    visit(
                        "av.rest_secrets.previous".to_owned(),
                        Content::Private,
                        path,
                    );
                }
            }
        }
    }
}

type Visit<'v> = dyn FnMut(String, Content, &mut PathBuf) + 'v;

fn list(key: &str, files: &mut [CertificateFiles], visit: &mut Visit<'_>) {
    for (index, files) in files.iter_mut().enumerate() {
        pair(&format!("{key}[{index}]"), files, visit);
    }
}

fn pair(key: &str, files: &mut CertificateFiles, visit: &mut Visit<'_>) {
    visit(format!("{key}.chain"), Content::Public, &mut files.chain);
    visit(format!("{key}.key"), Content::Private, &mut files.key);
}

fn secrets(key: &str, files: &mut SecretFiles, visit: &mut Visit<'_>) {
    visit(
        format!("{key}.current"),
        Content::Private,
        &mut files.current,
    );
    for (name, path) in [("next", &mut files.next), ("previous", &mut files.previous)] {
        if let Some(path) = path {
            visit(format!("{key}.{name}"), Content::Private, path);
        }
    }
}

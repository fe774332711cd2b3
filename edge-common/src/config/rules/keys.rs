//! Certificates, private keys and secrets: which file may serve for what.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Check, repeated};
use crate::config::file::File;
use crate::config::network::CertificateFiles;
use crate::config::rule;

pub(super) fn apply(check: &mut Check<'_>) {
    pairs(check);
    listed_once(check);
    sides_apart(check);
    authentication(check);
    secrets_apart(check);
}

fn pairs(check: &mut Check<'_>) {
    let listeners = listeners(check.file)
        .into_iter()
        .flat_map(|(list, files)| keyed(list, files));
    for (key, files) in listeners.chain(authentication_files(check.file)) {
        if plain(&files.chain) == plain(&files.key) {
            check.tell(
                rule::CHAIN_IS_KEY,
                format!("{key}.key"),
                "chain and key are one file",
            );
        }
    }
}

fn listed_once(check: &mut Check<'_>) {
    for (list, files) in listeners(check.file) {
        let twice = repeated(keyed(list, files).map(|(key, files)| (plain(&files.chain), key)));
        for key in twice {
            check.tell(
                rule::CERTIFICATE_TWICE,
                format!("{key}.chain"),
                "this certificate is listed twice",
            );
        }
    }
}

fn sides_apart(check: &mut Check<'_>) {
    let (inside, outside): (Vec<_>, Vec<_>) = listeners(check.file)
        .into_iter()
        .partition(|(list, _)| *list == INTERNAL);
    let inside: BTreeSet<PathBuf> = inside
        .iter()
        .flat_map(|(_, files)| *files)
        .map(|files| plain(&files.key))
        .collect();
    for (key, files) in outside
        .into_iter()
        .flat_map(|(list, files)| keyed(list, files))
    {
        if inside.contains(&plain(&files.key)) {
            check.tell(
                rule::KEY_ON_BOTH_SIDES,
                format!("{key}.key"),
                "this key is also used inside",
            );
        }
    }
}

fn authentication(check: &mut Check<'_>) {
    let shown: BTreeSet<PathBuf> = listeners(check.file)
        .iter()
        .flat_map(|(_, files)| *files)
        .map(|files| plain(&files.key))
        .collect();
    let files = authentication_files(check.file);
    for (key, files) in &files {
        if shown.contains(&plain(&files.key)) {
            check.tell(
                rule::AUTH_KEY_SHARED,
                format!("{key}.key"),
                "a listener shows this key",
            );
        }
    }
    for key in repeated(
        files
            .into_iter()
            .map(|(key, files)| (plain(&files.key), key)),
    ) {
        check.tell(
            rule::AUTH_TWICE,
            format!("{key}.key"),
            "this key is listed twice",
        );
    }
}

fn secrets_apart(check: &mut Check<'_>) {
    let file = check.file;
    let secrets = file
        .array
        .iter()
        .filter_map(|array| array.secrets.as_ref())
        .flat_map(|secrets| {
            [
                ("array.secrets.current", Some(&secrets.current)),
                ("array.secrets.next", secrets.next.as_ref()),
                ("array.secrets.previous", secrets.previous.as_ref()),
            ]
        });
    let rest = file
        .av
        .iter()
        .filter_map(|av| av.rest_secrets.as_ref())
        .flat_map(|secrets| {
            [
                ("av.rest_secrets.current", Some(&secrets.current)),
                ("av.rest_secrets.previous", secrets.previous.as_ref()),
            ]
        });
    let files = secrets
        .chain(rest)
        .filter_map(|(key, path)| Some((plain(path?), key)));
    for key in repeated(files) {
        check.tell(rule::SECRET_TWICE, key, "another secret is in this file");
    }
}

const INTERNAL: &str = "internal.certificates";

/// What the listeners show, by key of the list.
fn listeners(file: &File) -> Vec<(&'static str, &[CertificateFiles])> {
    [
        file.internal
            .as_ref()
            .map(|internal| (INTERNAL, &internal.certificates[..])),
        file.access
            .as_ref()
            .map(|access| ("access.certificates", &access.certificates[..])),
        file.webconf
            .as_ref()
            .map(|webconf| ("webconf.certificates", &webconf.certificates[..])),
        file.av
            .as_ref()
            .map(|av| ("av.certificates", &av.certificates[..])),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn keyed<'f>(
    list: &'static str,
    files: &'f [CertificateFiles],
) -> impl Iterator<Item = (String, &'f CertificateFiles)> {
    files
        .iter()
        .enumerate()
        .map(move |(index, files)| (format!("{list}[{index}]"), files))
}

fn authentication_files(file: &File) -> Vec<(String, &CertificateFiles)> {
    let Some(files) = file.av.as_ref().and_then(|av| av.authentication.as_ref()) else {
        return Vec::new();
    };
    [
        ("current", Some(&files.current)),
        ("next", files.next.as_ref()),
        ("previous", files.previous.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, files)| Some((format!("av.authentication.{name}"), files?)))
    .collect()
}

/// The path without `.`, so that `./a` and `a` are one file. Links are a matter of the file system.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

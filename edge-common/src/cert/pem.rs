//! Reads PEM (RFC 7468) and says which line is wrong.
//!
//! Text outside of the sections is skipped, as `openssl x509 -text` and many CAs put some there.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// One `-----BEGIN …-----` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The words after BEGIN, such as `CERTIFICATE`.
    pub label: String,
    /// The bytes within; wiped when dropped, as they may be a key.
    pub der: Zeroizing<Vec<u8>>,
    /// The line of BEGIN, counted from 1.
    pub line: usize,
}

/// All sections of `text` in their order.
pub fn sections(text: &[u8]) -> Result<Vec<Section>, PemError> {
    if text.first() == Some(&DER_SEQUENCE) {
        return Err(PemError {
            line: 1,
            fault: PemFault::Der,
        });
    }
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    let mut last_line = 0;
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        last_line = at + 1;
        let line = line.trim_ascii();
        let fault = |fault| PemError {
            line: last_line,
            fault,
        };
        match (marker(line), &mut open) {
            (Some(Marker::Begin(label)), None) => {
                open = Some(Open {
                    label,
                    line: last_line,
                    text: Zeroizing::default(),
                });
            }
            (Some(Marker::End(label)), Some(section)) if label == section.label => {
                found.push(open.take().expect("matched as open").close()?);
            }
            (Some(Marker::Begin(_)), Some(section)) => {
                return Err(fault(PemFault::NotEnded {
                    label: section.label.clone(),
                    begun: section.line,
                }));
            }
            (Some(Marker::End(label)), _) => {
                return Err(fault(PemFault::EndWithoutBegin { label }));
            }
            (None, Some(section)) => section.take(line).map_err(fault)?,
            (None, None) => {}
        }
    }
    match open {
        Some(section) => Err(PemError {
            line: last_line,
            fault: PemFault::NotEnded {
                label: section.label,
                begun: section.line,
            },
        }),
        None => Ok(found),
    }
}

/// A section whose end has not come yet.
struct Open {
    label: String,
    line: usize,
    text: Zeroizing<Vec<u8>>,
}

impl Open {
    fn take(&mut self, line: &[u8]) -> Result<(), PemFault> {
        // Headers of RFC 1421: an encrypted key in OpenSSL's old form.
        if line.contains(&b':') {
            return Err(PemFault::Encrypted);
        }
        if let Some(&byte) = line.iter().find(|byte| !is_base64(**byte)) {
            return Err(PemFault::NotBase64 { byte });
        }
        self.text.extend_from_slice(line);
        Ok(())
    }

    fn close(self) -> Result<Section, PemError> {
        let fault = |fault| PemError {
            line: self.line,
            fault,
        };
        if self.text.is_empty() {
            return Err(fault(PemFault::Empty));
        }
        let der = STANDARD
            .decode(&*self.text)
            .map_err(|_| fault(PemFault::BadEnding))?;
        Ok(Section {
            label: self.label,
            der: Zeroizing::new(der),
            line: self.line,
        })
    }
}

enum Marker {
    Begin(String),
    End(String),
}

fn marker(line: &[u8]) -> Option<Marker> {
    let text = std::str::from_utf8(line.strip_prefix(DASHES)?.strip_suffix(DASHES)?).ok()?;
    text.strip_prefix("BEGIN ")
        .map(|label| Marker::Begin(label.to_owned()))
        .or_else(|| {
            text.strip_prefix("END ")
                .map(|label| Marker::End(label.to_owned()))
        })
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// What is wrong with a PEM file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct PemError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: PemFault,
}

/// What can be wrong with PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    /// Binary instead of text.
    #[error("this is DER, not PEM; convert it with `openssl x509 -inform der`")]
    Der,
    /// A section is cut off.
    #[error("\"{label}\", begun in line {begun}, has no end")]
    NotEnded {
        /// What it says it is.
        label: String,
        /// The line of its BEGIN.
        begun: usize,
    },
    /// An end that ends nothing.
    #[error("END {label} without its BEGIN")]
    EndWithoutBegin {
        /// What it says it ends.
        label: String,
    },
    /// Neither base64 nor a marker.
    #[error("byte {byte:#04x} is not base64")]
    NotBase64 {
        /// The first such byte of the line.
        byte: u8,
    },
    /// The base64 text has not the length that it must have, or bits beyond its end.
    #[error("the base64 text of this section is cut off or does not end well")]
    BadEnding,
    /// BEGIN and END with nothing between.
    #[error("an empty section")]
    Empty,
    /// A key that needs a pass phrase. The daemons start without anybody there to type one.
    #[error("the key is encrypted; store it without a pass phrase and guard the file")]
    Encrypted,
}

/// SEQUENCE, the first byte of every DER certificate, key and list.
const DER_SEQUENCE: u8 = 0x30;
const DASHES: &[u8] = b"-----";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &str = "comment: here\r\n-----BEGIN A B-----\r\nAAEC\r\nAw==\r\n-----END A B-----\n\n-----BEGIN C-----\n/w==\n-----END C-----";

    fn error(text: &str) -> String {
        sections(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn sections_come_in_order_with_their_lines() {
        let found = sections(TWO.as_bytes()).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|s| (s.label.as_str(), s.line, s.der.as_slice()))
            .collect();
        assert_eq!(shown, [("A B", 2, &[0, 1, 2, 3][..]), ("C", 7, &[255])]);
        assert_eq!(sections(b"").unwrap(), []);
    }

    #[test]
    fn every_cut_within_a_section_is_refused_with_a_line() {
        let first = TWO.find("-----\r\nAAEC").unwrap() + 5;
        let end = TWO.find("-----\n\n").unwrap() + 5;
        for len in first..end {
            let error = sections(&TWO.as_bytes()[..len]).unwrap_err();
            assert!((2..=5).contains(&error.line), "cut at {len}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert_eq!(
            error("0\u{1}"),
            "line 1: this is DER, not PEM; convert it with `openssl x509 -inform der`"
        );
        assert_eq!(
            error("-----BEGIN A-----\nAA*A\n"),
            "line 2: byte 0x2a is not base64"
        );
        assert_eq!(
            error("-----BEGIN A-----\nAAA\n-----END A-----"),
            "line 1: the base64 text of this section is cut off or does not end well"
        );
        assert_eq!(
            error("-----BEGIN A-----\nAAAA\n-----END B-----"),
            "line 3: END B without its BEGIN"
        );
        assert_eq!(
            error("-----BEGIN A-----\n-----BEGIN A-----"),
            "line 2: \"A\", begun in line 1, has no end"
        );
        assert_eq!(
            error("-----BEGIN A-----\n-----END A-----"),
            "line 1: an empty section"
        );
        assert!(
            error("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n")
                .starts_with("line 2: the key is encrypted")
        );
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read = sections(&text);
            prop_assert!(read.is_err() || read.is_ok());
        }

        #[test]
        fn what_openssl_writes_is_read(der in proptest::collection::vec(any::<u8>(), 1..300)) {
            let body = STANDARD.encode(&der);
            let lines: Vec<_> = body.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
            let text = format!("-----BEGIN X-----\n{}\n-----END X-----\n", lines.join("\n"));
            let found = sections(text.as_bytes()).unwrap();
            prop_assert_eq!(found[0].der.as_slice(), der.as_slice());
        }
    }
}

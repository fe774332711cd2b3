//! Every row of the table, in every spelling.

use edge_common::sip::parse::Index;

use super::*;
use crate::proxy::tests::world::settings;

const WAYS_ALL: [Crossing; WAYS] = [
    Crossing::FromClient,
    Crossing::FromPartner,
    Crossing::ToStranger,
    Crossing::ToUser,
    Crossing::ToPartner,
];

/// What is left of the one header between From and the end, after it crossed.
fn left_of(line: &str, crossing: Crossing, settings: &Settings) -> String {
    let bytes = format!(
        "MESSAGE sip:b@fabrikam.test SIP/2.0\r\nFrom: <sip:a@contoso.test>;tag=1\r\n{line}\r\nX-After: kept\r\n\r\nbody"
    );
    let mut index = Index::new(99);
    let message = Message::parse(bytes.as_bytes(), &mut index).expect("lawful");
    let (mut edits, mut out) = (Edits::new(), Vec::new());
    apply(&message, crossing, settings, &mut edits);
    edits.write(bytes.as_bytes(), &mut out);
    let text = String::from_utf8(out).expect("ASCII");
    let start = text.find(";tag=1\r\n").expect("From stays") + 8;
    let end = text
        .find("X-After: kept\r\n\r\nbody")
        .expect("what follows stays");
    text[start..end].trim_end().to_owned()
}

/// All ways to write the name of a header, and its value with and without folds (RFC 3261 §7.3).
fn spellings(name: Name, value: &str) -> Vec<String> {
    let long = name.as_str();
    let mixed: String = long
        .chars()
        .enumerate()
        .map(|(at, c)| {
            if at % 2 == 0 {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect();
    let mut names = vec![
        long.to_owned(),
        long.to_uppercase(),
        long.to_lowercase(),
        mixed,
    ];
    if let Some(letter) = name.compact() {
        names.extend([letter.to_string(), letter.to_ascii_uppercase().to_string()]);
    }
    let mut lines = Vec::new();
    for name in names {
        for colon in [
            ": ",
            ":",
            " : ",
            "\t:\t",
            " \t :\r\n ",
            ":\r\n\t",
            ": \r\n  \r\n\t",
        ] {
            lines.push(format!("{name}{colon}{value}"));
        }
        lines.push(format!("{name}: {}", value.replacen(';', "\r\n\t;", 1)));
    }
    lines
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "few headers are looked into"
)]
/// A value with everything in it that some rule looks for.
fn value_of(name: Name) -> &'static str {
    match name {
        Name::MsDiagnosticsPublic | Name::MsDiagnostics => {
            "1007;reason=\"a;source=b\";source=\"fe1.inner\";x=\"y\""
        }
        Name::Warning => "399 fe1.inner:5061 \"no, thanks\", 301 10.0.0.7 \"x\"",
        Name::Reason => "SIP;cause=404;text=\"fe1.inner said so\"",
        Name::PAssertedIdentity => "<sip:a@contoso.test>",
        Name::HistoryInfo | Name::Diversion => "<sip:b@contoso.test>;index=1",
        _ => "a;b=\"c\"",
    }
}

/// What the rules leave of these values, without folds.
fn expected(name: Name, rule: Rule) -> Option<String> {
    let value = value_of(name);
    match rule {
        Pass | OfSender | Domains => Some(value.to_owned()),
        Remove | Diagnostics => None,
        NoSource => Some(value.replacen(";source=\"fe1.inner\"", "", 1)),
        NoText => Some("SIP;cause=404".to_owned()),
        OwnAgent => {
            Some("399 sip.contoso.test \"no, thanks\", 301 sip.contoso.test \"x\"".to_owned())
        }
    }
}

fn unfolded(line: &str) -> String {
    let (_, value) = line.split_once(':').expect("a header");
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    words.join(" ").replace(" ;", ";")
}

#[test]
fn every_row_holds_in_every_spelling() {
    let settings = settings();
    for &(name, rules) in TABLE {
        for (crossing, rule) in WAYS_ALL.into_iter().zip(rules) {
            for line in spellings(name, value_of(name)) {
                let left = left_of(&line, crossing, &settings);
                match expected(name, rule) {
                    None => assert_eq!(left, "", "{line:?} {crossing:?}"),
                    Some(value) => {
                        assert_eq!(unfolded(&left), value, "{line:?} {crossing:?}");
                        // Nothing but the part that goes is touched.
                        if rule == Pass {
                            assert_eq!(left, line.trim_end());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn no_header_stands_twice_in_the_table_and_the_others_cross_untouched() {
    let settings = settings();
    for name in Name::all() {
        let rows = TABLE.iter().filter(|(row, _)| *row == name).count();
        assert!(rows <= 1, "{}", name.as_str());
        if rows == 0 && name != Name::From {
            for crossing in WAYS_ALL {
                for line in spellings(name, "1 x;source=\"y\"") {
                    assert_eq!(left_of(&line, crossing, &settings), line.trim_end());
                }
            }
        }
    }
    for line in [
        "X-Unknown: a",
        "Ms-Conversation-ID: b",
        "EndPoints: <sip:a@contoso.test>",
    ] {
        for crossing in WAYS_ALL {
            assert_eq!(left_of(line, crossing, &settings), line);
        }
    }
}

/// What clients sign (MS-SIPAE; the list of the strings is in docs/clients.md).
#[test]
fn nothing_that_is_signed_is_in_the_way_between_a_client_and_the_inside() {
    let signed = [
        Name::From,
        Name::To,
        Name::CallId,
        Name::CSeq,
        Name::Expires,
        Name::PAssertedIdentity,
        Name::PPreferredIdentity,
        Name::Authorization,
        Name::ProxyAuthorization,
        Name::WwwAuthenticate,
        Name::ProxyAuthenticate,
        Name::AuthenticationInfo,
        Name::ProxyAuthenticationInfo,
    ];
    for name in signed {
        for crossing in [Crossing::FromClient, Crossing::ToStranger, Crossing::ToUser] {
            assert_eq!(RULES[name as usize][crossing as usize], Pass, "{name:?}");
        }
    }
}

#[test]
fn diagnostics_leave_where_the_operator_lets_them() {
    let mut settings = settings();
    let line = "ms-diagnostics: 1;source=\"fe1\"";
    for crossing in [Crossing::ToStranger, Crossing::ToPartner] {
        assert_eq!(left_of(line, crossing, &settings), "");
    }
    settings.disclosure.diagnostics_to_strangers = true;
    assert_eq!(left_of(line, Crossing::ToStranger, &settings), line);
    assert_eq!(left_of(line, Crossing::ToPartner, &settings), "");
    settings.disclosure.diagnostics_to_partners = true;
    assert_eq!(left_of(line, Crossing::ToPartner, &settings), line);
}

#[test]
fn a_value_that_cannot_be_read_goes_whole_where_a_part_of_it_would_have_to() {
    let settings = settings();
    for line in [
        "ms-diagnostics-public: 1;reason=\"open;source=\"fe1\"",
        "Reason: SIP;;text=\"fe1\"",
        "Warning: 399",
        "Diversion: fe1.inner",
        "Diversion: <sip:a@fe1.inner>",
        "Diversion: <sip:a@10.0.0.1>",
        "Diversion: <tel:+15550100>",
        "History-Info: <sip:a@contoso.test>;index=1, <sip:a@fe1.inner>;index=1.1",
        "History-Info: <sip:a@contoso.test?Reason=SIP%3Btext%3D%22fe1%22>;index=1",
    ] {
        assert_eq!(left_of(line, Crossing::ToPartner, &settings), "", "{line}");
    }
}

#[test]
fn a_partner_hears_of_no_telephone_number_and_of_nobody_who_hides() {
    let settings = settings();
    let crosses = |line: &str| !left_of(line, Crossing::ToPartner, &settings).is_empty();
    assert!(crosses("P-Asserted-Identity: \"A\" <sip:a@CONTOSO.test>"));
    assert!(!crosses(
        "P-Asserted-Identity: <sip:a@contoso.test>,<tel:+15550100>"
    ));
    assert!(!crosses("P-Asserted-Identity: <sip:a@inner.contoso.test>"));
    let hidden = left_of(
        "Privacy: header; ID\r\nP-Asserted-Identity: <sip:a@contoso.test>",
        Crossing::ToPartner,
        &settings,
    );
    assert_eq!(hidden, "Privacy: header; ID");
}

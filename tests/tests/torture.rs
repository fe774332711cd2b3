//! The torture run itself, with messages of our own.

use edge_access::proxy::refusal::Drop;
use edge_tests::torture::table::{Must, TABLE};
use edge_tests::torture::{self, verdict};
use std::collections::BTreeSet;
use std::fs;

#[test]
fn every_message_has_one_row() {
    let files: BTreeSet<_> = TABLE.iter().map(|row| row.file).collect();
    assert_eq!(files.len(), TABLE.len(), "a file stands twice");
    let of = |folder: &str| files.iter().filter(|file| file.starts_with(folder)).count();
    assert_eq!((of("rfc4475/"), of("rfc5118/")), (50, 12));
}

#[test]
fn messages_that_are_missing_or_others_than_meant_are_failures() {
    let directory = tempfile::tempdir().expect("a folder");
    let nothing = torture::run(directory.path());
    assert_eq!((nothing.passed, nothing.failed), (0, TABLE.len()));
    fs::create_dir(directory.path().join("rfc4475")).expect("a folder");
    fs::write(directory.path().join("rfc4475/zeromf.dat"), options(0)).expect("a file");
    let sums = format!(
        "{0}  rfc4475/zeromf.dat\n{0}  rfc4475/unheard.dat\n",
        "0".repeat(64)
    );
    fs::write(directory.path().join("SHA256SUMS"), sums).expect("a file");
    let other = torture::run(directory.path());
    assert_eq!((other.passed, other.failed), (0, TABLE.len() + 1));
    let told = |what: &str| other.lines.iter().any(|line| line.contains(what));
    assert!(
        told("another than SHA256SUMS says") && told("no row says"),
        "{other:?}"
    );
}

#[test]
fn each_verdict_tells_its_own_messages_from_the_others() {
    let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS h.example.com;branch=z9hG4bKr\r\nFrom: <sip:a@example.com>;tag=1\r\n\
                    To: <sip:b@example.com>;tag=2\r\nCall-ID: r\r\nCSeq: 4 BYE\r\nContent-Length: 0\r\n\r\n";
    let samples = [
        (Must::Forward(1), options(9)),
        (
            Must::Forward(2),
            options(9) + &options(9).replace("bKq", "bKr"),
        ),
        (Must::Answer(483), options(0)),
        (
            Must::AnswerAndClose(400, "content_length_invalid"),
            options(9).replace("Content-Length: 0", "Content-Length: 0x"),
        ),
        (
            // With a Via before the fault there would be an answer.
            Must::Close("bare_line_feed"),
            options(9).replace("\r\nVia", "\nVia"),
        ),
        (
            Must::Wait,
            options(9).replace("Content-Length: 0", "Content-Length: 50"),
        ),
        (Must::GoBack, response.to_owned()),
        (
            Must::Discard(Drop::StatusInvalid),
            response.replace("200 OK", "2000 OK"),
        ),
    ];
    for (must, _) in &samples {
        for (of, sample) in &samples {
            let verdict = verdict::of(*must, sample.as_bytes());
            assert_eq!(
                verdict.is_ok(),
                must == of,
                "{must:?} of {sample:?}: {verdict:?}"
            );
        }
    }
}

fn options(hops: u8) -> String {
    format!(
        "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/TLS h.example.com;branch=z9hG4bKq\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.com>\r\nCall-ID: q\r\nCSeq: 4 OPTIONS\r\nMax-Forwards: {hops}\r\nContent-Length: 0\r\n\r\n"
    )
}

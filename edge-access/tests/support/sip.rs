//! Messages of the far ends.

use std::sync::atomic::{AtomicU32, Ordering};

/// A request with the mandatory headers, a branch and a Call-ID of its own, and `more` lines.
pub(crate) fn request(method: &str, uri: &str, from: &str, to: &str, more: &[&str]) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut text = format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/TLS 10.1.0.10:5061;branch=z9hG4bKtest{n}\r\n\
         From: <sip:{from}>;tag=f{n}\r\n\
         To: <sip:{to}>\r\n\
         Call-ID: call{n}\r\n\
         CSeq: {n} {method}\r\n\
         Max-Forwards: 70\r\n"
    );
    for line in more {
        text += &format!("{line}\r\n");
    }
    text + "Content-Length: 0\r\n\r\n"
}

/// The response that a far end makes to a request that it got.
pub(crate) fn response(request: &str, status: &str) -> String {
    let copied = ["Via: ", "From: ", "Call-ID: ", "CSeq: ", "Record-Route: "];
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        if copied.iter().any(|label| line.starts_with(label)) {
            text += &format!("{line}\r\n");
        } else if line.starts_with("To: ") {
            let tag = if line.contains(";tag=") { "" } else { ";tag=t" };
            text += &format!("{line}{tag}\r\n");
        }
    }
    text + "Content-Length: 0\r\n\r\n"
}

/// All values of one header, in order.
pub(crate) fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    message
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .collect()
}

pub(crate) fn status(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    line.strip_prefix("SIP/2.0 ").unwrap_or(line)
}

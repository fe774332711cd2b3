//! SIP text: what a call flow leaves out is put in, and what arrived is looked into. Slow, obvious, and with none of
//! the edge's own code.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use super::script::Text;

/// Somebody who sends and receives, as far as messages are concerned.
#[derive(Clone, Debug, Default)]
pub(super) struct Speaker {
    pub(super) name: String,
    /// The transport in its Via.
    pub(super) transport: &'static str,
    /// The number of its last request.
    cseq: u32,
    /// Requests that it received, the last one at the end.
    received: Vec<String>,
}

impl Speaker {
    /// Takes in what the edge sent to it.
    pub(super) fn take(&mut self, message: &str) {
        if !message.starts_with("SIP/2.0 ") {
            self.received.push(message.to_owned());
        }
    }

    /// The whole message that `text` tells in short.
    pub(super) fn compose(&mut self, text: &Text) -> Result<String, String> {
        match text.start.chars().next() {
            Some('1'..='6') => self.response(text),
            Some(_) => Ok(self.request(text)),
            None => Err("a message without a start line".to_owned()),
        }
    }

    fn request(&mut self, text: &Text) -> String {
        let (method, rest) = text.start.split_once(' ').unwrap_or((&text.start, ""));
        let uri = rest.trim();
        // A CANCEL and an ACK belong to the INVITE before them (RFC 3261 §9.1, §17.1.1.3).
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        let (name, cseq, transport) = (&self.name, self.cseq, self.transport);
        let address = uri.split(';').next().unwrap_or_default();
        let defaults = [
            format!("Via: SIP/2.0/{transport} {name}.invalid;branch=z9hG4bK{name}{cseq}"),
            "Max-Forwards: 70".to_owned(),
            format!("From: <sip:{name}@contoso.test>;tag={name}"),
            format!("To: <{address}>"),
            "Call-ID: a-call".to_owned(),
            format!("CSeq: {cseq} {method}"),
        ];
        finish(&format!("{method} {uri} SIP/2.0"), &defaults, text)
    }

    /// `200 OK`, or `200 OK (INVITE)` where it is not the last request that is answered.
    fn response(&self, text: &Text) -> Result<String, String> {
        let (status, method) = match text.start.split_once(" (") {
            Some((status, method)) => (status, Some(method.trim_end_matches(')'))),
            None => (text.start.as_str(), None),
        };
        let asked = |request: &&String| match method {
            Some(method) => request.starts_with(method),
            None => !request.starts_with("ACK "),
        };
        let request = self.received.iter().rev().find(asked);
        let request = request.ok_or_else(|| format!("{} was asked nothing", self.name))?;
        let mut copied = Vec::new();
        for line in head(request).skip(1) {
            match label(line) {
                "Via" | "From" | "Call-ID" | "CSeq" | "Record-Route" => {
                    copied.push(line.to_owned());
                }
                "To" if line.contains(";tag=") => copied.push(line.to_owned()),
                "To" => copied.push(format!("{line};tag={}", self.name)),
                _ => {}
            }
        }
        Ok(finish(&format!("SIP/2.0 {status}"), &copied, text))
    }
}

/// All values of a header, whatever its case.
pub(super) fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    head(message)
        .skip(1)
        .filter(|line| label(line).eq_ignore_ascii_case(name))
        .filter_map(|line| line.split_once(':'))
        .map(|(_, value)| value.trim())
        .collect()
}

/// The start line, without what every SIP message has in it.
pub(super) fn start(message: &str) -> String {
    let line = head(message).next().unwrap_or_default();
    let line = line.strip_suffix(" SIP/2.0").unwrap_or(line);
    line.strip_prefix("SIP/2.0 ").unwrap_or(line).to_owned()
}

pub(super) fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn finish(start: &str, defaults: &[String], text: &Text) -> String {
    let given = |line: &String| {
        let same = |own: &String| label(own).eq_ignore_ascii_case(label(line));
        text.headers.iter().any(same)
    };
    let mut message = format!("{start}\r\n");
    for line in defaults.iter().filter(|line| !given(line)) {
        message.push_str(line);
        message.push_str("\r\n");
    }
    for line in &text.headers {
        message.push_str(line);
        message.push_str("\r\n");
    }
    let body = text.body.as_deref().unwrap_or_default();
    let length = format!("Content-Length: {}", body.len());
    if !given(&length) {
        message.push_str(&length);
        message.push_str("\r\n");
    }
    message.push_str("\r\n");
    message.push_str(body);
    message
}

fn head(message: &str) -> impl Iterator<Item = &str> {
    let head = message
        .split_once("\r\n\r\n")
        .map_or(message, |(head, _)| head);
    head.split("\r\n")
}

fn label(line: &str) -> &str {
    line.split(':').next().unwrap_or_default().trim()
}

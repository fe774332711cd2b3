//! Scenarios: scripts that read like the call flows of the RFCs, and the world that they are played in.
//!
//! ```text
//! # What it shows, and the section that says so.
//!
//! alice is a client at 192.0.2.10:51034
//! director is the next hop
//!
//! alice -> edge       REGISTER sip:contoso.test
//!     Contact: <sip:alice@10.1.0.10:5061;transport=tls>
//! edge -> director    REGISTER sip:contoso.test
//!     Path: <sip:{flow}@edge1.contoso.internal:5061;transport=tls;lr;ob>
//!     no ms-edge-proxy-message-trust-that-alice-sent
//! director -> edge    200 OK
//! edge -> alice       200 OK
//! ```
//!
//! What somebody sends has the headers that a call flow leaves out: Via, From, To, Call-ID, CSeq, Max-Forwards, and in a
//! response those of the request that came last (RFC 3261 §8.2.6). Lines below replace or add; `| text` is the body.
//! What the edge sends must match: the start line, and below it all values of each header that is named, in their order. `*` stands
//! for anything, `{name}` as well, and can be used from there on; `no Header` says that it is not there.
//!
//! Nothing that the edge does may be left out of a script, but 100 Trying.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod message;
mod pattern;
mod script;
mod stage;

use std::fmt;
use std::time::Instant;

use script::{Line, Script};
use stage::Stage;

/// Where a script and the edge differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The line of the script, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Plays a script; `start` is where its clock begins. Says how many steps it had.
pub fn play(text: &str, start: Instant) -> Result<usize, Mismatch> {
    let script = Script::read(text)?;
    let mut stage = Stage::new(start, &script.settings);
    for Line { number, content } in &script.lines {
        stage.play(content).map_err(|what| Mismatch {
            line: *number,
            what,
        })?;
    }
    stage.quiet().map_err(|what| Mismatch {
        line: text.lines().count(),
        what,
    })?;
    Ok(script.lines.len())
}

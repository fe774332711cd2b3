//! The Web Conferencing Edge: lets a client outside through to a conference server inside, if the
//! inside has admitted the number that the client shows.
//!
//! ```text
//!   client ── TLS 443 ──► edge-webconf ◄── mTLS 8057 ── edge-webconf-agent ── TCP ──► server
//! ```
//!
//! Pure: [`ewrp`] (the protocol on 8057), [`scan`] (the number in what a client sends),
//! [`preface`] (the line that shows a token instead), [`session`] (who may pass).
//!
//! I/O: [`daemon`] (start, reload, end), [`confine`] (what the kernel keeps it from), [`relay`] (the sockets around the broker), [`observe`]
//! (logs and metrics), [`admin`] (what an operator asks),
//! [`agent`] (the agent's own program), [`join`] (the program next to a client outside).

#[cfg(feature = "io")]
pub mod admin;
#[cfg(feature = "io")]
pub mod agent;
#[cfg(feature = "io")]
pub mod confine;
#[cfg(feature = "io")]
pub mod daemon;
pub mod ewrp;
#[cfg(feature = "io")]
pub mod join;
#[cfg(feature = "io")]
pub mod observe;
pub mod preface;
#[cfg(feature = "io")]
pub mod relay;
pub mod scan;
pub mod session;

/// Bytes of a hex string, for vectors in tests.
#[cfg(test)]
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ascii");
            u8::from_str_radix(pair, 16).expect("hex digits")
        })
        .collect()
}

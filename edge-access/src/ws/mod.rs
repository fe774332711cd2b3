//! SIP over WebSocket (RFC 7118), in memory: bytes in, bytes out.
//!
//! ```text
//!  TLS plaintext ─► is it "GET /"? ─► handshake ─► frame::Reader ─► content ─► Proxy
//!                        │ no                                                    │
//!                        └─► sip::framer                TLS ◄── write ◄──────────┘
//! ```
//!
//! A browser shares the port of all remote users; the first bytes inside TLS tell the two apart. Before the
//! handshake is complete nothing is allocated for it, and after it the flow is a newcomer like any other.
//! HTTP is read by httparse, frame headers and close codes are tungstenite's; neither sees a socket.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod content;
pub mod frame;
pub mod handshake;
pub mod write;

/// Whether a connection begins with an HTTP request; `None` while the bytes that came fit both.
///
/// No Request-URI of SIP begins with a slash, so a SIP method named GET would still be one.
#[must_use]
pub fn begins_as_http(received: &[u8]) -> Option<bool> {
    let len = received.len().min(HTTP_START.len());
    if received[..len] != HTTP_START[..len] {
        return Some(false);
    }
    (len == HTTP_START.len()).then_some(true)
}

const HTTP_START: &[u8] = b"GET /";

#[cfg(test)]
mod tests {
    use super::begins_as_http;

    #[test]
    fn the_first_bytes_tell_a_browser_from_a_sip_client() {
        for sip in [
            "REGISTER sip:a SIP/2.0",
            "\r\n\r\n",
            "GET sip:a",
            "\x16\x03\x01",
        ] {
            assert_eq!(begins_as_http(sip.as_bytes()), Some(false), "{sip}");
        }
        for cut in 0..5 {
            assert_eq!(begins_as_http(&b"GET / HTTP/1.1"[..cut]), None);
        }
        assert_eq!(begins_as_http(b"GET /"), Some(true));
    }
}

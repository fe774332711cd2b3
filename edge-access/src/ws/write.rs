//! Frames to a client: whole and unmasked (RFC 6455 §5.1).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Appends a SIP message or keep-alive as one frame: a text where it is one, so that every browser reads it without
/// asking.
pub fn message(bytes: &[u8], out: &mut Vec<u8>) {
    let data = match std::str::from_utf8(bytes) {
        Ok(_) => Data::Text,
        Err(_) => Data::Binary,
    };
    frame(OpCode::Data(data), bytes, out);
}

/// Appends a ping.
pub fn ping(out: &mut Vec<u8>) {
    frame(OpCode::Control(Control::Ping), b"", out);
}

/// Appends the answer to a ping with that payload.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(OpCode::Control(Control::Pong), payload, out);
}

/// Appends a close with that code (RFC 6455 §7.4).
pub fn close(code: u16, out: &mut Vec<u8>) {
    frame(OpCode::Control(Control::Close), &code.to_be_bytes(), out);
}

fn frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader {
        is_final: true,
        opcode,
        ..FrameHeader::default()
    };
    let written = header.format(payload.len() as u64, out);
    debug_assert!(written.is_ok(), "a Vec takes every write");
    out.extend_from_slice(payload);
}

/// We go away, or nothing was heard for too long (RFC 6455 §7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// What came was no SIP.
pub const PROTOCOL: u16 = 1002;
/// A rule of ours was broken.
pub const POLICY: u16 = 1008;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_unmasked_and_text_where_they_can_be() {
        let mut out = Vec::new();
        message(b"\r\n", &mut out);
        assert_eq!(out, [0x81, 2, b'\r', b'\n']);
        out.clear();
        message(&[0xff; 126], &mut out);
        assert_eq!(out[..4], [0x82, 126, 0, 126]);
        out.clear();
        message("ü".repeat(0x8000).as_bytes(), &mut out);
        assert_eq!(out[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        out.clear();
        ping(&mut out);
        pong(b"x", &mut out);
        close(GOING_AWAY, &mut out);
        assert_eq!(out, [0x89, 0, 0x8a, 1, b'x', 0x88, 2, 0x03, 0xe9]);
    }
}

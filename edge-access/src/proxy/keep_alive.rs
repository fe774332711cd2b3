//! `ms-keep-alive` between a client and the edge, its first hop (MS-CONMGMT 2.2.1).
//!
//! A client asks in any request, and is answered in the 2xx. Then it sends CRLF CRLF after that much
//! silence and expects nothing back.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::io::Write;
use std::time::Duration;

use edge_common::config::Clients;
use edge_common::sip::header::Name;
use edge_common::sip::header::params::Params;
use edge_common::sip::message::Message;

use super::token::FlowKey;
use super::via::egress_mark;

/// Whether a request asks its first hop for a time: `UAC;hop-hop=yes`, once.
#[must_use]
pub fn asks(request: &Message<'_>) -> bool {
    let Ok(Some(header)) = request.only(Name::MsKeepAlive) else {
        return false;
    };
    let value = header.value();
    let (role, rest) = value.split_at(value.iter().position(|&b| b == b';').unwrap_or(value.len()));
    let hop = |params: Params<'_>| {
        params
            .value("hop-hop")
            .is_none_or(|told| told.eq_ignore_ascii_case(b"yes"))
    };
    role.trim_ascii().eq_ignore_ascii_case(b"UAC") && Params::parse(rest).is_ok_and(hop)
}

/// The time of one connection, the same whenever it asks: up to a tenth more or less than configured, so
/// that clients that came together do not speak together.
#[must_use]
pub fn interval(flow: FlowKey, clients: &Clients) -> Duration {
    let mean = clients.keep_alive.as_secs();
    let mark = u64::from(egress_mark(&[
        b"keep-alive",
        &[flow.core],
        &flow.slot.to_be_bytes(),
        &flow.generation.to_be_bytes(),
    ]));
    let tenth = mean / 10;
    Duration::from_secs(mean - tenth + mark % (2 * tenth + 1))
}

/// After how much silence a client that agreed on `interval` is taken for gone.
#[must_use]
pub const fn patience(interval: Duration) -> Duration {
    interval.saturating_mul(2).saturating_add(GRACE)
}

/// Appends the whole header; clients compare its text.
pub fn write_answer(interval: Duration, out: &mut Vec<u8>) {
    let written = write!(
        out,
        "ms-keep-alive: UAS; tcp=no; hop-hop=yes; end-end=no; timeout={}\r\n",
        interval.as_secs()
    );
    debug_assert!(written.is_ok(), "a Vec takes every write");
}

/// For a client whose clock or network is slow.
const GRACE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use edge_common::sip::parse::Index;

    fn asked(lines: &str) -> bool {
        let bytes = format!("REGISTER sip:a SIP/2.0\r\n{lines}\r\n");
        let mut index = Index::new(9);
        asks(&Message::parse(bytes.as_bytes(), &mut index).expect("lawful"))
    }

    #[test]
    fn a_client_asks_its_first_hop_and_nobody_else() {
        for asks in [
            "ms-keep-alive: UAC;hop-hop=yes\r\n",
            "Ms-Keep-Alive : uac ; HOP-HOP=YES;end-end=no\r\n",
            "ms-keep-alive: UAC\r\n",
            "ms-keep-alive: UAC;tcp=no;\r\n hop-hop=yes\r\n",
        ] {
            assert!(asked(asks), "{asks}");
        }
        for no in [
            "",
            "ms-keep-alive: UAS;hop-hop=yes\r\n",
            "ms-keep-alive: UAC;hop-hop=no\r\n",
            "ms-keep-alive: UAC;;hop-hop=yes\r\n",
            "ms-keep-alive:\r\n",
            "ms-keep-alive: UAC\r\nms-keep-alive: UAC\r\n",
        ] {
            assert!(!asked(no), "{no}");
        }
    }

    #[test]
    fn every_connection_has_its_own_time_within_a_tenth() {
        let clients = Clients::default();
        let times: Vec<u64> = (0..2000)
            .map(|slot| {
                let flow = FlowKey {
                    core: 1,
                    slot,
                    generation: 0,
                };
                assert_eq!(interval(flow, &clients), interval(flow, &clients));
                interval(flow, &clients).as_secs()
            })
            .collect();
        assert_eq!(
            (times.iter().min(), times.iter().max()),
            (Some(&270), Some(&330))
        );
        let mut out = Vec::new();
        write_answer(Duration::from_secs(300), &mut out);
        assert_eq!(
            out,
            b"ms-keep-alive: UAS; tcp=no; hop-hop=yes; end-end=no; timeout=300\r\n"
        );
        assert_eq!(patience(Duration::from_secs(300)).as_secs(), 630);
    }
}

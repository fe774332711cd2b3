//! Connections that stand and do not work: requests go in, nothing comes out.
//!
//! Three requests in a row without any byte from the far end, or one and then an OPTIONS of ours, and the
//! connection is closed: a new one may lead to a process that lives.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::time::Now;

use super::flow::Peer;
use super::forward::{INSIDE_MARK, Way, host_mark};
use super::token::{BranchToken, FlowKey, Realm, RouteToken};
use super::transaction::TransactionId;
use super::transaction::table::{Machines, Start};
use super::{CloseReason, Proxy, via};

impl Proxy {
    /// A request got no answer in time; was it the connection?
    pub(super) fn suspect(&mut self, now: Now, id: TransactionId) {
        let Some(entry) = self.transactions.get(id) else {
            return;
        };
        let (egress, sent) = (entry.egress, entry.sent);
        let Some(flow) = self.flows.get_mut(egress) else {
            return;
        };
        // It works; only this request was not answered.
        if flow.heard > sent {
            flow.timeouts = 0;
            return;
        }
        flow.timeouts += 1;
        let (timeouts, is_server) = (flow.timeouts, flow.peer.realm() != Realm::Client);
        if timeouts >= TIMEOUTS_MAX {
            self.close(egress, CloseReason::Wedged);
        } else if is_server && timeouts == 1 {
            self.ping(now, egress);
        }
    }

    /// Nothing answered our OPTIONS either.
    pub(super) fn ping_timer(&mut self, id: TransactionId) {
        let Some(entry) = self.transactions.get(id) else {
            return;
        };
        let (egress, sent) = (entry.egress, entry.sent);
        self.end(id);
        let is_silent = self
            .flows
            .get(egress)
            .is_some_and(|flow| flow.heard <= sent);
        if is_silent {
            self.close(egress, CloseReason::Wedged);
        }
    }

    fn ping(&mut self, now: Now, key: FlowKey) {
        let Some((host, mark)) = self.flows.get(key).and_then(|flow| match &flow.peer {
            Peer::Inside { name } => Some((name.clone(), INSIDE_MARK)),
            Peer::Partner(partner) => {
                let host = partner.dialled.as_ref().map(|target| &target.host)?;
                Some((host.clone(), host_mark(host)))
            }
            Peer::Client(_) => None,
        }) else {
            return;
        };
        let id = self.transactions.insert(Start {
            hash: self.rng.next_u64(),
            machines: Machines::Ping,
            ingress: key,
            keep_alive: false,
            is_register: false,
            at: now.mono,
        });
        let realm = if mark == INSIDE_MARK {
            Realm::Inside
        } else {
            Realm::Partner
        };
        let branch = BranchToken {
            ingress: self.flow_ref(key),
            realm,
            keep_alive: false,
            egress: mark,
            loop_mark: 0,
            transaction: id.to_bits(),
            attempt: Some(0),
        };
        let call = self.rng.next_u64();
        let (own, port) = self.own_address(realm);
        let mut bytes = format!("OPTIONS sip:{host};transport=tls SIP/2.0\r\n").into_bytes();
        via::write_own("TLS", own.as_str(), port, &mut bytes, |out| {
            self.tokens.seal_branch(&branch, out);
        });
        let rest = format!(
            "Max-Forwards: 70\r\nFrom: <sip:{own}>;tag={call:x}\r\nTo: <sip:{host}>\r\n\
             Call-ID: {call:x}@{own}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        bytes.extend_from_slice(rest.as_bytes());
        self.transmit(key, |out| out.extend_from_slice(&bytes));
        let outside = RouteToken::Client(self.flow_ref(key));
        let way = Way {
            egress: key,
            link: None,
            outbound: false,
            realm,
            mark,
            outside: &outside,
            source: None,
            rank: 0,
            candidates: 0,
            branch: None,
            hide: false,
        };
        self.sent(now, id, &branch, &way);
    }
}

/// Requests in a row without a byte from the far end.
const TIMEOUTS_MAX: u8 = 3;

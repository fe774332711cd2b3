//! What agents do on their data connections until these are leased.

use edge_common::time::Now;

use super::agent::{Data, HELLO_TIMEOUT, SessionKey};
use super::broker::Broker;
use super::timers::Timer;
use super::{DataId, Event, Output, Peer};
use crate::ewrp::Status;
use crate::ewrp::data::{Claim, HELLO_LEN};

/// Why a data connection is closed.
struct Refusal(Status, &'static str);

impl Broker {
    /// A connection to the agent port has finished its TLS handshake as a data connection.
    pub fn handle_data(&mut self, now: Now, id: DataId, peer: Peer) {
        let trusted = self.trusts(&peer.names);
        let hello = Data::Hello {
            peer,
            received: Vec::new(),
        };
        let full = self.unproven() >= UNPROVEN_MAX;
        self.data.insert(id, hello);
        if !trusted {
            self.refuse_data(id, Status::NotTrusted, "not a trusted agent");
        } else if full {
            self.refuse_data(id, Status::Limit, "too many data connections before hello");
        } else {
            self.timers
                .arm(Timer::DataHello(id), now.mono + HELLO_TIMEOUT);
            self.push(Output::Read(id.0));
        }
    }

    /// What has a deadline for its hello is what has not proven itself.
    fn unproven(&self) -> usize {
        let parked: usize = self
            .sessions
            .values()
            .map(|session| session.pool.len())
            .sum();
        self.data.len().saturating_sub(parked)
    }

    /// The next bytes of a data connection that is not leased.
    pub fn handle_data_bytes(&mut self, now: Now, id: DataId, bytes: &[u8]) {
        let Some(Data::Hello { received, .. }) = self.data.get_mut(&id) else {
            return self.refuse_data(id, Status::Protocol, "bytes on a parked connection");
        };
        if received.len() + bytes.len() > HELLO_LEN {
            return self.refuse_data(id, Status::Protocol, "bytes behind the hello");
        }
        received.extend_from_slice(bytes);
        match Claim::parse(received) {
            Ok(None) => self.push(Output::Read(id.0)),
            Ok(Some(claim)) => match self.prove(id, &claim) {
                Ok(session) => self.park(now, id, session),
                Err(Refusal(status, text)) => self.refuse_data(id, status, text),
            },
            Err(error) => self.refuse_data(id, Status::Protocol, &error.to_string()),
        }
    }

    /// The signature first: nothing of what a stranger claims may change a session.
    fn prove(&mut self, id: DataId, claim: &Claim) -> Result<SessionKey, Refusal> {
        let unknown = Refusal(Status::Auth, "no such session");
        let Some(&key) = self.by_name.get(&claim.session) else {
            return Err(unknown);
        };
        let (Some(session), Some(Data::Hello { peer, .. })) =
            (self.sessions.get_mut(&key), self.data.get(&id))
        else {
            return Err(unknown);
        };
        if !claim.is_signed_with(&session.secret) {
            return Err(Refusal(Status::Auth, "the signature is wrong"));
        }
        if peer.names != session.names {
            let text = "not the certificate names of the control connection";
            return Err(Refusal(Status::NotTrusted, text));
        }
        if !session.sequence.take(claim.seq) {
            return Err(Refusal(Status::Auth, "the sequence number was used"));
        }
        if session.draining {
            return Err(Refusal(Status::Draining, "the agent is draining"));
        }
        Ok(key)
    }

    fn park(&mut self, now: Now, id: DataId, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        if !session.pool.park(now.mono, id) {
            return self.refuse_data(id, Status::Limit, "the pool is full");
        }
        self.timers.cancel(Timer::DataHello(id));
        self.data.insert(id, Data::Parked { session: key });
        // To see it close: a parked connection has nothing to say.
        self.push(Output::Read(id.0));
        self.serve(now, key);
        self.tend_pool(now, key);
    }

    /// A data connection is gone. One that was leased meanwhile is its client's: the shell finds it
    /// dead when it hands it over, and asks for another.
    pub fn handle_data_closed(&mut self, now: Now, id: DataId) {
        self.timers.cancel(Timer::DataHello(id));
        let Some(data) = self.data.remove(&id) else {
            return;
        };
        self.push(Output::Close(id.0));
        if let Data::Parked { session: key } = data {
            if let Some(session) = self.sessions.get_mut(&key) {
                session.pool.remove(id);
            }
            self.tend_pool(now, key);
        }
    }

    /// Closes a data connection that is not leased, without a word to its far end.
    pub(super) fn refuse_data(&mut self, id: DataId, status: Status, text: &str) {
        self.timers.cancel(Timer::DataHello(id));
        match self.data.remove(&id) {
            Some(Data::Hello { peer, .. }) => self.event(Event::AgentRefused {
                address: peer.address,
                status,
                detail: text.to_owned(),
            }),
            Some(Data::Parked { session }) => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.pool.remove(id);
                }
            }
            // Leased meanwhile: it is its client's now.
            None => return,
        }
        self.push(Output::Close(id.0));
    }
}

/// Data connections at once that have not said hello.
const UNPROVEN_MAX: usize = 1024;

//! What clients do, from the end of their TLS handshake to the account of their relay.

use std::time::Duration;

use edge_common::host_name::HostName;
use edge_common::join_token::JoinToken;
use edge_common::time::Now;

use super::admission::Grant;
use super::agent::{Session, SessionKey};
use super::broker::Broker;
use super::client::{Client, Found, Join, Judges, Stage};
use super::timers::Timer;
use super::{Arrival, ClientId, DataId, Event, Output, Record, RelayEnd, Shown};
use crate::ewrp::control::{Closed, Frame};
use crate::ewrp::data::Open;
use crate::ewrp::{Number, Status};

impl Broker {
    /// A client has finished its TLS handshake.
    pub fn handle_client(&mut self, now: Now, id: ClientId, arrival: Arrival) {
        if self.clients.len() >= self.settings.clients {
            self.event(Event::Refused {
                client: arrival.address,
                status: Status::Limit,
            });
            self.push(Output::Close(id.0));
            return;
        }
        self.clients.insert(id, Client::new(arrival));
        let deadline = now.mono + self.settings.preread_timeout;
        self.timers.arm(Timer::Preread(id), deadline);
        self.push(Output::Read(id.0));
    }

    /// The next bytes of a client, each shown once. Bytes that come when the number was found
    /// already are none of the broker's business.
    pub fn handle_client_data(&mut self, now: Now, id: ClientId, bytes: &[u8]) {
        let Some(Client {
            address,
            stage: Stage::Preread(preread),
            ..
        }) = self.clients.get_mut(&id)
        else {
            return;
        };
        self.timers.cancel(Timer::Settle(id));
        let mut judges = Judges {
            settings: &self.settings,
            admission: &mut self.admission,
            tokens: &mut self.tokens,
            client: address.ip(),
        };
        let (found, error) = preread.search(now, bytes, &mut judges);
        if let Some(error) = error {
            self.event(Event::TokenRefused(error));
        }
        match found {
            Found::Number(hit, grant) => {
                let shown = Shown::Number(hit.encoding);
                self.matched(now, id, shown, grant, 0);
            }
            Found::Token {
                token,
                number,
                line_len,
            } => self.matched_token(now, id, &token, number, line_len),
            Found::Undecided => {
                self.timers.arm(Timer::Settle(id), now.mono + SETTLE);
                self.push(Output::Read(id.0));
            }
            Found::More => self.push(Output::Read(id.0)),
            Found::Nothing => self.end_preread(now, id, Status::TokenUnknown),
        }
    }

    /// The client has sent all that it will ever send.
    pub fn handle_client_end(&mut self, now: Now, id: ClientId) {
        if self.settle(now, id) {
            self.end_preread(now, id, Status::TokenUnknown);
        }
    }

    /// The connection of the client broke before anything was relayed.
    pub fn handle_client_lost(&mut self, now: Now, id: ClientId) {
        let status = match self.clients.get(&id).map(|client| &client.stage) {
            Some(Stage::Preread(preread)) => preread.refusal(Status::Preread),
            Some(Stage::Lease(_) | Stage::OpenSent(_) | Stage::Relay { .. }) => Status::Preread,
            None => return,
        };
        self.refuse(now, id, status);
    }

    /// How many bytes of a client are searched, and at most announced in its OPEN.
    #[must_use]
    pub fn preread_limit(&self) -> usize {
        self.settings.preread_limit()
    }

    /// Takes a run of digits at the end of what came for whole. `true`: still no number.
    pub(super) fn settle(&mut self, now: Now, id: ClientId) -> bool {
        let Some(Client {
            stage: Stage::Preread(preread),
            ..
        }) = self.clients.get_mut(&id)
        else {
            return false;
        };
        match preread.finish(now.mono, &mut self.admission) {
            Found::Number(hit, grant) => {
                let shown = Shown::Number(hit.encoding);
                self.matched(now, id, shown, grant, 0);
                false
            }
            Found::Token { .. } | Found::Undecided | Found::More | Found::Nothing => true,
        }
    }

    /// No number came in the limits that there are.
    pub(super) fn end_preread(&mut self, now: Now, id: ClientId, otherwise: Status) {
        let Some(Client {
            stage: Stage::Preread(preread),
            ..
        }) = self.clients.get(&id)
        else {
            return;
        };
        let status = preread.refusal(otherwise);
        self.refuse(now, id, status);
    }

    /// The client has shown a token, and one use of it is taken: one of the agents that have registered its name gets
    /// it, each as often as its weight says.
    fn matched_token(
        &mut self,
        now: Now,
        id: ClientId,
        token: &JoinToken,
        number: Number,
        line_len: usize,
    ) {
        let Some((session, reg_id)) = self.place_for(&token.registration) else {
            self.event(Event::Matched(Shown::Token));
            self.tokens.give_back(number);
            return self.refuse(now, id, Status::NoAgent);
        };
        let grant = Grant {
            session,
            reg_id,
            number,
        };
        self.matched(now, id, Shown::Token, grant, line_len);
    }

    /// A weight of 0 is a spare: it gets clients when nobody else does.
    fn place_for(&mut self, name: &str) -> Option<(SessionKey, u32)> {
        let places: Vec<(SessionKey, u32, u32)> = self
            .sessions
            .iter()
            .flat_map(|(&key, session)| {
                let places = session.places(name);
                places.map(move |(reg_id, weight)| (key, reg_id, u32::from(weight)))
            })
            .collect();
        // At most 256 sessions with 64 registrations each: far from overflow.
        let total = places.iter().map(|(_, _, weight)| weight).sum();
        let mut drawn = self.rng.below(total);
        let place = places.iter().find(|(_, _, weight)| {
            let found = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            found
        });
        let (key, reg_id, _) = place.or_else(|| places.first())?;
        Some((*key, *reg_id))
    }

    /// The client has shown what lets it in, and one use of it is taken.
    fn matched(&mut self, now: Now, id: ClientId, shown: Shown, grant: Grant, skip: usize) {
        self.timers.cancel(Timer::Preread(id));
        self.timers.cancel(Timer::Settle(id));
        self.event(Event::Matched(shown));
        // A number is gone with its session, so a number that was found has one.
        let Some(session) = self.sessions.get_mut(&grant.session) else {
            return self.end_preread(now, id, Status::NoAgent);
        };
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Stage::Preread(preread) = &client.stage else {
            return;
        };
        client.stage = Stage::Lease(Join {
            grant,
            skip,
            preread_len: preread.seen().saturating_sub(skip),
            matched_at: now.mono,
            dial_id: self.next_dial,
            agent: session.agent.clone(),
            registration: session.registration_name(grant.reg_id),
        });
        self.next_dial += 1;
        self.by_number.insert((grant.number, id));
        let (draining, has_room) = (session.draining, session.has_room(grant.reg_id));
        session.occupy(grant.reg_id);
        if draining {
            self.refuse(now, id, Status::Draining);
        } else if has_room {
            self.lease(now, id, grant.session);
        } else {
            self.refuse(now, id, Status::Limit);
        }
    }

    fn lease(&mut self, now: Now, id: ClientId, key: SessionKey) {
        let waiting = self.gauges().waiting;
        let Some(session) = self.sessions.get_mut(&key) else {
            return self.refuse(now, id, Status::NoAgent);
        };
        if let Some(data) = session.pool.lease(now.mono, id.0.core) {
            self.open(now, id, data);
        } else if waiting >= self.settings.lease_queue {
            return self.refuse(now, id, Status::Limit);
        } else {
            session.waiting.push_back(id);
            let deadline = now.mono + self.settings.lease_timeout;
            self.timers.arm(Timer::Lease(id), deadline);
        }
        self.tend_pool(now, key);
    }

    /// A data connection came: the first client that waits gets it.
    pub(super) fn serve(&mut self, now: Now, key: SessionKey) {
        while let Some(session) = self.sessions.get_mut(&key)
            && let Some(&id) = session.waiting.front()
            && let Some(data) = session.pool.lease(now.mono, id.0.core)
        {
            session.waiting.pop_front();
            self.timers.cancel(Timer::Lease(id));
            self.open(now, id, data);
        }
    }

    fn open(&mut self, now: Now, id: ClientId, data: DataId) {
        self.data.remove(&data);
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Stage::Lease(join) = &client.stage else {
            return;
        };
        let open = Open {
            dial_id: join.dial_id,
            reg_id: join.grant.reg_id,
            number: join.grant.number,
            client: client.address,
            preread_len: u32::try_from(join.preread_len).expect("at most PREREAD_LEN_MAX"),
            sni: client.sni.clone(),
        };
        let (skip, preread_len) = (join.skip, join.preread_len);
        client.stage = Stage::OpenSent(join.clone());
        self.timers.arm(Timer::Open(id), now.mono + OPEN_TIMEOUT);
        self.push(Output::Lease {
            client: id,
            data,
            open: open.to_bytes(),
            skip,
            preread_len,
        });
    }

    /// The data connection was gone when it was leased, and no byte went over it: another one.
    pub fn handle_lease_failed(&mut self, now: Now, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Stage::OpenSent(join) = &client.stage else {
            return;
        };
        let key = join.grant.session;
        client.stage = Stage::Lease(join.clone());
        self.timers.cancel(Timer::Open(id));
        self.lease(now, id, key);
    }

    /// The agent has answered the OPEN, or will not ([`Status::UpstreamRefused`]).
    pub fn handle_open_ack(&mut self, now: Now, id: ClientId, status: Status) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Stage::OpenSent(join) = &client.stage else {
            return;
        };
        if status != Status::Ok {
            return self.refuse(now, id, status);
        }
        let waited = now.mono.saturating_duration_since(join.matched_at);
        client.stage = Stage::Relay {
            join: join.clone(),
            since: now.mono,
            ending: None,
        };
        self.relays += 1;
        self.timers.cancel(Timer::Open(id));
        self.event(Event::Opened { waited });
        self.push(Output::Relay(id));
    }

    /// Both directions of a relayed client have ended.
    pub fn handle_relay_ended(&mut self, now: Now, id: ClientId, end: RelayEnd) {
        let Some(Client {
            address,
            stage:
                Stage::Relay {
                    join,
                    since,
                    ending,
                },
            ..
        }) = self.clients.get(&id)
        else {
            return;
        };
        let (client, join, since, ending) = (*address, join.clone(), *since, *ending);
        self.clients.remove(&id);
        self.relays -= 1;
        self.forget_join(id, &join);
        let status = ending.unwrap_or(end.status);
        let account = Frame::Closed(Closed {
            dial_id: join.dial_id,
            status,
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
        });
        if let Some(session) = self.session_for(&join) {
            self.transmit(session, &account);
        }
        self.event(Event::Closed(Record {
            dial_id: join.dial_id,
            number: join.grant.number,
            client,
            agent: join.agent,
            registration: join.registration,
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
            lasted: now.mono.saturating_duration_since(since),
            status,
        }));
        self.finish_drain(now);
    }

    /// Turns a client away. Whatever the status, it sees the same close.
    pub(super) fn refuse(&mut self, now: Now, id: ClientId, status: Status) {
        self.drop_client(id, status);
        self.finish_drain(now);
    }

    fn drop_client(&mut self, id: ClientId, status: Status) {
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        for timer in [
            Timer::Preread(id),
            Timer::Settle(id),
            Timer::Lease(id),
            Timer::Open(id),
        ] {
            self.timers.cancel(timer);
        }
        match &client.stage {
            Stage::Preread(_) if is_a_guess(status) => self.push(Output::Charge(id)),
            Stage::Preread(_) => {}
            Stage::Lease(join) => {
                // No byte of this client went inside, so its number is as good as before.
                self.admission.give_back(join.grant);
                self.tokens.give_back(join.grant.number);
                self.forget_join(id, join);
            }
            Stage::OpenSent(join) => self.forget_join(id, join),
            Stage::Relay { join, .. } => {
                self.relays -= 1;
                self.forget_join(id, join);
            }
        }
        self.event(Event::Refused {
            client: client.address,
            status,
        });
        self.push(Output::Close(id.0));
    }

    /// The registration that a client is on its way to.
    pub(super) fn registration_of(&self, id: ClientId) -> Option<u32> {
        let client = self.clients.get(&id)?;
        client.join().map(|join| join.grant.reg_id)
    }

    /// The agent that a client is on its way to.
    pub(super) fn agent_of(&self, id: ClientId) -> Option<&HostName> {
        let client = self.clients.get(&id)?;
        client.join().map(|join| &join.agent)
    }

    /// The session that let the client in, or the one that its agent has instead by now.
    fn session_for(&self, join: &Join) -> Option<SessionKey> {
        if self.sessions.contains_key(&join.grant.session) {
            return Some(join.grant.session);
        }
        let same = |(_, session): &(&SessionKey, &Session)| session.agent == join.agent;
        self.sessions.iter().find(same).map(|(&key, _)| key)
    }

    fn forget_join(&mut self, id: ClientId, join: &Join) {
        self.by_number.remove(&(join.grant.number, id));
        if let Some(session) = self.sessions.get_mut(&join.grant.session) {
            session.release(join.grant.reg_id);
            session.waiting.retain(|&waiting| waiting != id);
        }
    }
}

/// What a client may come to that has shown nothing good; other ends of a pre-read are not its fault.
const fn is_a_guess(status: Status) -> bool {
    matches!(
        status,
        Status::Preread | Status::TokenUnknown | Status::TokenExpired | Status::TokenUsed
    )
}

/// EWRP/1: the answer to an OPEN.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A client whose last bytes are a whole number and that sends nothing more for this long means
/// that number. Longer than what lies between two segments of one message, short for a human.
const SETTLE: Duration = Duration::from_millis(200);

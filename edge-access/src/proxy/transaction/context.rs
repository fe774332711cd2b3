//! What a proxy does between the two machines of a transaction (RFC 3261 §16.7 to §16.10).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::sip::header::Name;
use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;
use edge_common::sip::response::Response;
use edge_common::time::Now;

use super::table::{Entry, Machines, NONE, Start};
use super::{
    SILENT_TARGET, Timer, TransactionId, bit, invite_client, invite_server, other_client,
    other_server,
};
use crate::proxy::flow::{Peer, Standing};
use crate::proxy::forward::Way;
use crate::proxy::output::{Method, StatelessReason};
use crate::proxy::refusal::{Drop, Refusal};
use crate::proxy::request::Request;
use crate::proxy::route::Routes;
use crate::proxy::token::{BranchToken, FlowKey, Realm, RouteToken};
use crate::proxy::{Event, Proxy, ResponseNote, Stop};

/// What becomes of a request that is looked up in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Matched {
    /// It goes on.
    New,
    /// The table has dealt with it.
    Done,
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Fate {
    /// It goes back to the sender of the request.
    Pass,
    /// It ends here.
    Absorb(Drop),
}

impl Proxy {
    /// Looks a request up that may belong to a transaction under way: the same request, its CANCEL or its ACK.
    pub(in crate::proxy) fn matched(
        &mut self,
        now: Now,
        key: FlowKey,
        request: &Request<'_>,
        hash: u64,
    ) -> Matched {
        let Some(id) = self.transactions.find(hash, key) else {
            return Matched::New;
        };
        match self.transactions.get(id).map(|entry| entry.machines) {
            Some(Machines::Invite(server, _)) => {
                let event = match request.method {
                    b"ACK" => invite_server::Event::Ack,
                    b"CANCEL" => invite_server::Event::Cancel,
                    _ => invite_server::Event::Invite,
                };
                self.invite_comes_again(now, key, id, request, (server, event))
            }
            Some(Machines::Other(server, _)) => {
                let cell = other_server::step(server, other_server::Event::Request);
                self.set_server(id, cell.next);
                if cell.acts.contains(&other_server::Act::Trying) {
                    self.say_trying(key, &request.message);
                }
                self.event(Event::Dropped(Drop::Retransmission));
                Matched::Done
            }
            Some(Machines::Ping) | None => Matched::New,
        }
    }

    fn invite_comes_again(
        &mut self,
        now: Now,
        key: FlowKey,
        id: TransactionId,
        request: &Request<'_>,
        (state, event): (invite_server::State, invite_server::Event),
    ) -> Matched {
        let cell = invite_server::step(state, event);
        self.set_invite_server(id, cell.next);
        for act in cell.acts {
            match act {
                // It has a branch of its own, and whoever said 2xx is not asked to answer it.
                invite_server::Act::SendAck => return Matched::New,
                invite_server::Act::Trying => self.say_trying(key, &request.message),
                invite_server::Act::AnswerCancel => self.answer_cancel(key, &request.message),
                invite_server::Act::Cancel => {
                    let cancel = Some(&request.message);
                    self.invite_happens(now, id, invite_client::Event::Cancel, cancel);
                }
                // Only what the proxy hands up starts these.
                invite_server::Act::Send
                | invite_server::Act::StartH
                | invite_server::Act::StartL => {}
            }
        }
        match event {
            invite_server::Event::Ack => {
                self.event(Event::Dropped(Drop::AckAbsorbed));
                self.pass_ack(now, id, &request.message);
            }
            invite_server::Event::Invite => self.event(Event::Dropped(Drop::Retransmission)),
            invite_server::Event::Cancel
            | invite_server::Event::Provisional
            | invite_server::Event::Success
            | invite_server::Event::Failure
            | invite_server::Event::TimerH
            | invite_server::Event::TimerL => {}
        }
        if cell.next == invite_server::State::Ended {
            self.end(id);
        }
        Matched::Done
    }

    /// Takes a request into the table before it is sent on; `None`: it goes without an entry.
    pub(in crate::proxy) fn track(
        &mut self,
        now: Now,
        ingress: FlowKey,
        request: &Request<'_>,
        routes: &Routes<'_>,
        way: &Way<'_>,
    ) -> Option<TransactionId> {
        if let Some(id) = self.again {
            self.start_again(id);
            return Some(id);
        }
        if way.branch.is_some() || !self.is_tracked(request, way) {
            return None;
        }
        if let Err(reason) = self.room_for(request) {
            self.event(Event::Stateless(reason));
            return None;
        }
        let machines = if request.method == b"INVITE" {
            Machines::Invite(
                invite_server::State::Proceeding,
                invite_client::State::Calling,
            )
        } else {
            Machines::Other(other_server::State::Trying, other_client::State::Trying)
        };
        let id = self.transactions.insert(Start {
            hash: routes.transaction,
            machines,
            ingress,
            keep_alive: request.message.first(Name::MsKeepAlive).is_some(),
            is_register: request.method == b"REGISTER",
            at: now.mono,
        });
        self.transactions.keep(id, request.message.bytes());
        Some(id)
    }

    /// The request goes to its target now: notes which one, and waits for its answer.
    pub(in crate::proxy) fn sent(
        &mut self,
        now: Now,
        id: TransactionId,
        branch: &BranchToken,
        way: &Way<'_>,
    ) {
        let Some(entry) = self.transactions.get_mut(id) else {
            return;
        };
        entry.egress = way.egress;
        entry.link = way.link;
        entry.outbound = way.outbound;
        entry.towards = way.realm;
        entry.from = branch.realm;
        entry.mark = branch.egress;
        entry.loop_mark = branch.loop_mark;
        entry.tried |= bit(way.rank);
        entry.candidates = way.candidates;
        entry.sent = now.mono;
        let (egress, machines) = (entry.egress, entry.machines);
        if let Some(flow) = self.flows.get_mut(egress) {
            self.transactions.link(id, &mut flow.pending);
        }
        let timer = match machines {
            Machines::Invite(..) => Timer::B,
            Machines::Other(..) => Timer::Patience,
            Machines::Ping => Timer::Ping,
        };
        self.await_on(now, id, timer);
    }

    /// Whether a response is to a request that began at this hop, and so has no other Via than ours.
    pub(in crate::proxy) fn ends_here(&self, note: ResponseNote) -> bool {
        let entry = note
            .transaction
            .and_then(|(id, _)| self.transactions.get(id));
        note.method == Method::Cancel || entry.is_some_and(|entry| entry.machines == Machines::Ping)
    }

    /// What becomes of a response to a request that went out from this core; `message` is at hand when it
    /// came over a connection of this core.
    pub(in crate::proxy) fn fate(
        &mut self,
        now: Now,
        note: ResponseNote,
        message: Option<&Message<'_>>,
    ) -> Fate {
        let Some((id, attempt)) = note.transaction else {
            return Fate::Pass;
        };
        // We have said 200 to the CANCEL ourselves.
        if note.method == Method::Cancel {
            return Fate::Absorb(Drop::ResponseAbsorbed);
        }
        let success = note.method == Method::Invite && matches!(note.status, 200..=299);
        let Some(entry) = self.transactions.get(id) else {
            // RFC 3261 §16.7 step 5: a 2xx to an INVITE is never held back. RFC 4320 §4.3: all else is.
            return if success {
                Fate::Pass
            } else {
                Fate::Absorb(Drop::ResponseLate)
            };
        };
        let (machines, egress) = (entry.machines, entry.egress);
        if entry.attempt != attempt {
            return if success {
                Fate::Pass
            } else {
                Fate::Absorb(Drop::ResponseLate)
            };
        }
        if message.is_some()
            && let Some(flow) = self.flows.get_mut(egress)
        {
            flow.timeouts = 0;
        }
        match machines {
            Machines::Invite(..) => {
                let event = match note.status {
                    ..=100 => invite_client::Event::Trying,
                    101..=199 => invite_client::Event::Provisional,
                    200..=299 => invite_client::Event::Success,
                    503 => invite_client::Event::Unavailable,
                    _ => invite_client::Event::Failure,
                };
                self.invite_happens(now, id, event, message)
            }
            Machines::Other(..) => {
                self.measure(now, id, note.status);
                let event = match note.status {
                    ..=199 => other_client::Event::Provisional,
                    408 => other_client::Event::Timeout,
                    503 => other_client::Event::Unavailable,
                    _ => other_client::Event::Final,
                };
                self.other_happens(now, id, event)
            }
            Machines::Ping => {
                self.end(id);
                Fate::Absorb(Drop::ResponseAbsorbed)
            }
        }
    }

    /// Runs the client machine of an INVITE; `message` is the response or the CANCEL that makes it happen.
    fn invite_happens(
        &mut self,
        now: Now,
        id: TransactionId,
        event: invite_client::Event,
        message: Option<&Message<'_>>,
    ) -> Fate {
        use invite_client::Act;
        let Some(Machines::Invite(_, state)) =
            self.transactions.get(id).map(|entry| entry.machines)
        else {
            return Fate::Absorb(Drop::ResponseLate);
        };
        let cell = invite_client::step(state, event);
        self.set_invite_client(id, cell.next);
        let mut fate = Fate::Absorb(Drop::ResponseAbsorbed);
        for act in cell.acts {
            match act {
                Act::Pass => fate = self.hand_up_invite(now, id, event),
                Act::Ack => self.acknowledge(now, id, message),
                Act::Cancel => self.cancel(now, id, message.filter(|m| !m.is_response())),
                Act::HoldCancel => {
                    if let Some(cancel) = message {
                        self.transactions.keep_cancel(id, cancel.bytes());
                    }
                }
                Act::TryNext if event == invite_client::Event::Lost => {
                    if !self.try_next(now, id) {
                        self.fail(now, id);
                    }
                }
                Act::TryNext => {
                    if !self.try_next(now, id) {
                        fate = self.hand_up_unavailable(now, id);
                    }
                }
                Act::TryNextOrTimeout => {
                    self.note_timeout(id);
                    if !self.try_next(now, id) {
                        self.give_up(now, id, Refusal::Timeout);
                    }
                }
                Act::Timeout => self.give_up(now, id, Refusal::Timeout),
                Act::Fail => self.fail(now, id),
                Act::StartC => {
                    self.trim(id);
                    self.await_on(now, id, Timer::C);
                }
                Act::StartCancelled => self.await_on(now, id, Timer::Cancelled),
                // The server machine waits as long, and starts with the same answer.
                Act::StartM => {}
            }
        }
        self.release_cancel(now, id);
        fate
    }

    /// Runs the client machine of another request.
    fn other_happens(&mut self, now: Now, id: TransactionId, event: other_client::Event) -> Fate {
        use other_client::Act;
        let Some(Machines::Other(server, state)) =
            self.transactions.get(id).map(|entry| entry.machines)
        else {
            return Fate::Absorb(Drop::ResponseLate);
        };
        let cell = other_client::step(state, event);
        if let Some(entry) = self.transactions.get_mut(id) {
            entry.machines = Machines::Other(server, cell.next);
        }
        let mut fate = Fate::Absorb(Drop::ResponseAbsorbed);
        for act in cell.acts {
            match act {
                Act::Pass => fate = self.hand_up_other(id, other_server::Event::Final),
                Act::Trim => self.trim(id),
                Act::Silence => {
                    self.event(Event::TimedOut);
                    self.settle_newcomer(id);
                    fate = self.hand_up_other(id, other_server::Event::Silence);
                }
                Act::TryNext if event == other_client::Event::Lost => {
                    if !self.try_next(now, id) {
                        self.fail(now, id);
                    }
                }
                Act::TryNext => {
                    if !self.try_next(now, id) {
                        fate = self.hand_up_other(id, other_server::Event::Final);
                    }
                }
                Act::Fail => self.fail(now, id),
            }
        }
        fate
    }

    fn hand_up_invite(&mut self, now: Now, id: TransactionId, event: invite_client::Event) -> Fate {
        let event = match event {
            invite_client::Event::Trying | invite_client::Event::Provisional => {
                invite_server::Event::Provisional
            }
            invite_client::Event::Success => invite_server::Event::Success,
            invite_client::Event::Unavailable
            | invite_client::Event::Failure
            | invite_client::Event::Cancel
            | invite_client::Event::TimerB
            | invite_client::Event::TimerC
            | invite_client::Event::CancelledInVain
            | invite_client::Event::TimerM
            | invite_client::Event::Lost => invite_server::Event::Failure,
        };
        self.tell_invite_server(now, id, event)
    }

    fn tell_invite_server(
        &mut self,
        now: Now,
        id: TransactionId,
        event: invite_server::Event,
    ) -> Fate {
        let Some(Machines::Invite(state, _)) =
            self.transactions.get(id).map(|entry| entry.machines)
        else {
            return Fate::Absorb(Drop::ResponseLate);
        };
        let cell = invite_server::step(state, event);
        self.set_invite_server(id, cell.next);
        let mut fate = Fate::Absorb(Drop::ResponseAbsorbed);
        for act in cell.acts {
            match act {
                invite_server::Act::Send => fate = Fate::Pass,
                invite_server::Act::StartH => {
                    self.trim(id);
                    self.await_on(now, id, Timer::H);
                }
                invite_server::Act::StartL => {
                    drop(self.transactions.swap_kept(id, Vec::new()));
                    self.await_on(now, id, Timer::LM);
                }
                invite_server::Act::Trying
                | invite_server::Act::SendAck
                | invite_server::Act::AnswerCancel
                | invite_server::Act::Cancel => {}
            }
        }
        if cell.next == invite_server::State::Ended {
            self.end(id);
        }
        fate
    }

    fn hand_up_other(&mut self, id: TransactionId, event: other_server::Event) -> Fate {
        let Some(Machines::Other(state, _)) = self.transactions.get(id).map(|entry| entry.machines)
        else {
            return Fate::Absorb(Drop::ResponseLate);
        };
        let cell = other_server::step(state, event);
        self.set_server(id, cell.next);
        let sends = cell.acts.contains(&other_server::Act::Send);
        if cell.next == other_server::State::Ended {
            self.end(id);
        }
        if sends {
            Fate::Pass
        } else {
            Fate::Absorb(Drop::ResponseAbsorbed)
        }
    }

    /// The last target has said 503. Of all answers the one of the lowest class counts (RFC 3261 §16.7 step 6).
    fn hand_up_unavailable(&mut self, now: Now, id: TransactionId) -> Fate {
        if self
            .transactions
            .get(id)
            .is_some_and(|entry| entry.timed_out)
        {
            self.give_up(now, id, Refusal::Timeout);
            return Fate::Absorb(Drop::ResponseAbsorbed);
        }
        self.hand_up_invite(now, id, invite_client::Event::Unavailable)
    }

    /// Sends the request to the next target that it has not been sent to; `false` when there is none, or the
    /// request is no longer whole, or nobody waits for its answer.
    fn try_next(&mut self, now: Now, id: TransactionId) -> bool {
        let Some(entry) = self.transactions.get(id) else {
            return false;
        };
        let ingress = entry.ingress;
        let is_cancelled = entry.cancel.is_some();
        let has_next = entry.candidates & !entry.tried != 0;
        if !has_next || is_cancelled || !entry.is_whole || self.flows.get(ingress).is_none() {
            return false;
        }
        self.send_again(now, id)
    }

    /// What had to wait for a connection before it could be sent again.
    pub(in crate::proxy) fn resume(&mut self, now: Now, id: TransactionId) {
        if !self.send_again(now, id) {
            self.fail(now, id);
        }
    }

    fn send_again(&mut self, now: Now, id: TransactionId) -> bool {
        let Some(entry) = self.transactions.get(id) else {
            return true;
        };
        let ingress = entry.ingress;
        self.detach(id);
        let bytes = self.transactions.swap_kept(id, Vec::new());
        let mut index = Index::new(self.settings.limits.headers);
        let mut sent = false;
        if let Ok(message) = Message::parse(&bytes, &mut index) {
            let outer = self.again.replace(id);
            // The entry has its hash already.
            let routed = Request::read(message)
                .map_err(Stop::Refuse)
                .and_then(|request| self.route(now, ingress, &request, 0));
            sent = match routed {
                Ok(()) => true,
                Err(Stop::Refuse(_)) => false,
                Err(Stop::Wait(wait)) => {
                    self.hold(now, ingress, &message, wait);
                    true
                }
            };
            self.again = outer;
        }
        if self.transactions.get(id).is_some() {
            drop(self.transactions.swap_kept(id, bytes));
        }
        if sent {
            self.event(Event::FailedOver);
        }
        sent
    }

    /// The way is gone, and there is no other.
    fn fail(&mut self, now: Now, id: TransactionId) {
        let refusal = match self.transactions.get(id) {
            Some(entry) if entry.timed_out => Refusal::Timeout,
            Some(Entry {
                towards: Realm::Client,
                outbound,
                ..
            }) => Refusal::gone(*outbound),
            Some(Entry {
                towards: Realm::Partner,
                ..
            }) => Refusal::PartnerUnreachable,
            Some(Entry {
                towards: Realm::Inside,
                ..
            }) => Refusal::NextHopLost,
            None => return,
        };
        self.give_up(now, id, refusal);
    }

    /// Answers the request ourselves and is done with its target.
    pub(in crate::proxy) fn give_up(&mut self, now: Now, id: TransactionId, refusal: Refusal) {
        let Some(entry) = self.transactions.get(id) else {
            return;
        };
        let (ingress, machines) = (entry.ingress, entry.machines);
        let bytes = self.transactions.swap_kept(id, Vec::new());
        let mut index = Index::new(self.settings.limits.headers);
        if let Ok(message) = Message::parse(&bytes, &mut index) {
            self.answer(ingress, &message, refusal);
        }
        drop(self.transactions.swap_kept(id, bytes));
        self.settle_newcomer(id);
        match machines {
            Machines::Invite(server, _) => {
                self.set_invite_client(id, invite_client::State::Ended);
                debug_assert!(server != invite_server::State::Ended, "it was under way");
                self.tell_invite_server(now, id, invite_server::Event::Failure);
            }
            Machines::Other(..) => {
                self.hand_up_other(id, other_server::Event::Final);
            }
            Machines::Ping => self.end(id),
        }
    }

    /// Looks at everything whose time has come.
    pub(in crate::proxy) fn expire_transactions(&mut self, now: Now) {
        while let Some(id) = self.transaction_timers.pop_due(now.mono) {
            let Some(entry) = self.transactions.get_mut(id) else {
                continue;
            };
            entry.timer_id = None;
            let (timer, machines) = (entry.timer, entry.machines);
            match machines {
                Machines::Invite(..) => self.invite_timer(now, id, timer),
                Machines::Other(server, _) => self.other_timer(now, id, timer, server),
                Machines::Ping => self.ping_timer(id),
            }
        }
    }

    fn invite_timer(&mut self, now: Now, id: TransactionId, timer: Timer) {
        let event = match timer {
            Timer::B => {
                self.suspect(now, id);
                invite_client::Event::TimerB
            }
            Timer::C => invite_client::Event::TimerC,
            Timer::Cancelled => invite_client::Event::CancelledInVain,
            Timer::Lost => invite_client::Event::Lost,
            Timer::H => {
                self.tell_invite_server(now, id, invite_server::Event::TimerH);
                return;
            }
            Timer::LM => {
                self.tell_invite_server(now, id, invite_server::Event::TimerL);
                return;
            }
            // Of other machines.
            Timer::Patience | Timer::F | Timer::Ping => return,
        };
        self.invite_happens(now, id, event, None);
    }

    fn other_timer(
        &mut self,
        now: Now,
        id: TransactionId,
        timer: Timer,
        server: other_server::State,
    ) {
        match timer {
            Timer::Patience => {
                let cell = other_server::step(server, other_server::Event::Patience);
                self.set_server(id, cell.next);
                for act in cell.acts {
                    match act {
                        other_server::Act::Trying => self.say_trying_of(id),
                        other_server::Act::StartF => self.await_on(now, id, Timer::F),
                        other_server::Act::Send => {}
                    }
                }
            }
            Timer::F => {
                self.suspect(now, id);
                self.measure(now, id, 0);
                self.other_happens(now, id, other_client::Event::TimerF);
            }
            Timer::Lost => {
                self.other_happens(now, id, other_client::Event::Lost);
            }
            // Of other machines.
            Timer::B | Timer::C | Timer::Cancelled | Timer::H | Timer::LM | Timer::Ping => {}
        }
    }

    /// The connection is gone: what went over it is looked at as soon as time is told.
    pub(in crate::proxy) fn lose(&mut self, first: u32) {
        let mut at = first;
        while let Some((id, next)) = self.transactions.follow(at) {
            at = next;
            self.transactions.unlink(id, None);
            let Some(entry) = self.transactions.get_mut(id) else {
                return;
            };
            // Answered already; what is still waited for comes from the other side.
            if matches!(entry.timer, Timer::H | Timer::LM) {
                continue;
            }
            entry.timer = Timer::Lost;
            let (due, before) = (entry.sent, entry.timer_id.take());
            if let Some(timer) = before {
                self.transaction_timers.cancel(timer);
            }
            let timer = self.transaction_timers.insert(due, id).ok();
            if let Some(entry) = self.transactions.get_mut(id) {
                entry.timer_id = timer;
            }
        }
    }

    /// Forgets a transaction.
    pub(in crate::proxy) fn end(&mut self, id: TransactionId) {
        self.detach(id);
        self.transactions.remove(id);
    }

    /// Takes a transaction off its connection and its timer.
    fn detach(&mut self, id: TransactionId) {
        let Some(entry) = self.transactions.get_mut(id) else {
            return;
        };
        let (egress, timer) = (entry.egress, entry.timer_id.take());
        if let Some(timer) = timer {
            self.transaction_timers.cancel(timer);
        }
        let first = self.flows.get_mut(egress).map(|flow| &mut flow.pending);
        self.transactions.unlink(id, first);
    }

    fn start_again(&mut self, id: TransactionId) {
        if let Some(entry) = self.transactions.get_mut(id) {
            entry.attempt += 1;
            entry.machines = match entry.machines {
                Machines::Invite(server, _) => {
                    Machines::Invite(server, invite_client::State::Calling)
                }
                Machines::Other(server, _) => Machines::Other(server, other_client::State::Trying),
                Machines::Ping => Machines::Ping,
            };
        }
    }

    fn await_on(&mut self, now: Now, id: TransactionId, timer: Timer) {
        let Some(entry) = self.transactions.get_mut(id) else {
            return;
        };
        let has_next = entry.candidates & !entry.tried != 0;
        let time = if timer == Timer::B && has_next {
            SILENT_TARGET
        } else {
            timer.duration()
        };
        entry.timer = timer;
        if let Some(before) = entry.timer_id.take() {
            self.transaction_timers.cancel(before);
        }
        // The wheel has room for every entry of the table.
        entry.timer_id = self.transaction_timers.insert(now.mono + time, id).ok();
    }

    /// Which requests are worth an entry: all but those that nothing answers, and those of a dialog whose
    /// way is known to work; these have nowhere else to go.
    fn is_tracked(&self, request: &Request<'_>, way: &Way<'_>) -> bool {
        match request.method {
            b"ACK" | b"BENOTIFY" | b"CANCEL" => false,
            b"INVITE" => true,
            _ if request.to.tag.is_none() => true,
            _ => self
                .flows
                .get(way.egress)
                .is_some_and(|flow| flow.timeouts > 0),
        }
    }

    fn room_for(&self, request: &Request<'_>) -> Result<(), StatelessReason> {
        let limits = &self.settings.limits;
        let room = limits.transactions.min(self.transactions_max);
        if self.transactions.len() >= room {
            Err(StatelessReason::TableFull)
        } else if self.transactions.kept_bytes() + request.message.bytes().len()
            > limits.transaction_bytes
        {
            Err(StatelessReason::BytesFull)
        } else {
            Ok(())
        }
    }

    fn note_timeout(&mut self, id: TransactionId) {
        self.event(Event::TimedOut);
        if let Some(entry) = self.transactions.get_mut(id) {
            entry.timed_out = true;
        }
    }

    fn set_server(&mut self, id: TransactionId, state: other_server::State) {
        if let Some(Entry {
            machines: Machines::Other(server, _),
            ..
        }) = self.transactions.get_mut(id)
        {
            *server = state;
        }
    }

    fn set_invite_server(&mut self, id: TransactionId, state: invite_server::State) {
        if let Some(Entry {
            machines: Machines::Invite(server, _),
            ..
        }) = self.transactions.get_mut(id)
        {
            *server = state;
        }
    }

    fn set_invite_client(&mut self, id: TransactionId, state: invite_client::State) {
        if let Some(Entry {
            machines: Machines::Invite(_, client),
            ..
        }) = self.transactions.get_mut(id)
        {
            *client = state;
        }
    }

    /// A newcomer may send the next one.
    fn settle_newcomer(&mut self, id: TransactionId) {
        let ingress = self.transactions.get(id).map(|entry| entry.ingress);
        if let Some(flow) = ingress.and_then(|ingress| self.flows.get_mut(ingress))
            && let Peer::Client(Standing::Newcomer { in_flight, .. }) = &mut flow.peer
        {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// RFC 3261 §16.2: the sender knows within 200 ms that somebody works on it.
    pub(in crate::proxy) fn say_trying(&mut self, to: FlowKey, request: &Message<'_>) {
        let bytes = Response::to(request, 100, "Trying", "").finish();
        self.transmit(to, |out| out.extend_from_slice(&bytes));
    }

    fn say_trying_of(&mut self, id: TransactionId) {
        let Some(ingress) = self.transactions.get(id).map(|entry| entry.ingress) else {
            return;
        };
        if self.flows.get(ingress).is_none() {
            return;
        }
        let bytes = self.transactions.swap_kept(id, Vec::new());
        let mut index = Index::new(self.settings.limits.headers);
        if let Ok(message) = Message::parse(&bytes, &mut index) {
            self.say_trying(ingress, &message);
        }
        drop(self.transactions.swap_kept(id, bytes));
    }

    /// RFC 3261 §16.10: a proxy that knows the INVITE answers for itself.
    fn answer_cancel(&mut self, to: FlowKey, cancel: &Message<'_>) {
        let tag = crate::proxy::answer::to_tag(cancel);
        let bytes = Response::to(cancel, 200, "OK", &tag).finish();
        self.transmit(to, |out| out.extend_from_slice(&bytes));
    }

    /// A CANCEL that came too early goes out as soon as the INVITE has been answered provisionally.
    fn release_cancel(&mut self, now: Now, id: TransactionId) {
        let Some(entry) = self.transactions.get(id) else {
            return;
        };
        if entry.cancel.is_none()
            || !matches!(
                entry.machines,
                Machines::Invite(_, invite_client::State::Proceeding)
            )
        {
            return;
        }
        let bytes = self.transactions.take_cancel(id).unwrap_or_default();
        let mut index = Index::new(self.settings.limits.headers);
        if let Ok(cancel) = Message::parse(&bytes, &mut index) {
            self.invite_happens(now, id, invite_client::Event::Cancel, Some(&cancel));
        }
    }

    /// Sends CANCEL after the INVITE: the sender's own, with whatever signs it, or one that we make.
    fn cancel(&mut self, now: Now, id: TransactionId, cancel: Option<&Message<'_>>) {
        match cancel {
            Some(cancel) => self.send_along(now, id, cancel.bytes()),
            None => {
                let bytes = self.derive(id, "CANCEL", None);
                self.send_along(now, id, &bytes);
            }
        }
    }

    /// RFC 3261 §17.1.1.3. A client checks signatures, and only the sender can sign: its own ACK is passed on.
    fn acknowledge(&mut self, now: Now, id: TransactionId, response: Option<&Message<'_>>) {
        let towards = self.transactions.get(id).map(|entry| entry.towards);
        let to = response.and_then(|response| response.first(Name::To));
        if let (Some(Realm::Inside | Realm::Partner), Some(to)) = (towards, to) {
            let bytes = self.derive(id, "ACK", Some(to.value()));
            self.send_along(now, id, &bytes);
        }
    }

    fn pass_ack(&mut self, now: Now, id: TransactionId, ack: &Message<'_>) {
        if self.transactions.get(id).map(|entry| entry.towards) == Some(Realm::Client) {
            self.send_along(now, id, ack.bytes());
        }
    }

    /// Sends what belongs to an INVITE of the table the same way with the same branch (RFC 3261 §9.1, §17.1.1.3).
    fn send_along(&mut self, now: Now, id: TransactionId, bytes: &[u8]) {
        let Some(entry) = self.transactions.get(id) else {
            return;
        };
        let (ingress, egress, realm, mark) =
            (entry.ingress, entry.egress, entry.towards, entry.mark);
        let link = entry.link;
        let branch = self.branch_of(id, entry);
        let mut index = Index::new(self.settings.limits.headers);
        let Ok(message) = Message::parse(bytes, &mut index) else {
            return;
        };
        let Ok(request) = Request::read(message) else {
            return;
        };
        let Ok(routes) = Routes::read(&request, &self.settings, &self.tokens, now.unix) else {
            return;
        };
        // No dialog comes of these, so nothing reads it.
        let outside = RouteToken::Client(self.flow_ref(ingress));
        let way = Way {
            egress,
            link,
            // What it belongs to went there already.
            outbound: false,
            realm,
            mark,
            outside: &outside,
            source: None,
            rank: 0,
            candidates: 0,
            branch: Some(branch),
            hide: false,
        };
        if self.forward(now, ingress, &request, &routes, &way).is_err() {
            self.event(Event::Dropped(Drop::Along));
        }
    }

    fn branch_of(&self, id: TransactionId, entry: &Entry) -> BranchToken {
        BranchToken {
            ingress: self.flow_ref(entry.ingress),
            realm: entry.from,
            keep_alive: entry.keep_alive && entry.from == Realm::Client,
            egress: entry.mark,
            loop_mark: entry.loop_mark,
            transaction: id.to_bits(),
            attempt: Some(entry.attempt),
        }
    }

    /// A request of another method that belongs to a kept INVITE.
    fn derive(&self, id: TransactionId, method: &str, to: Option<&[u8]>) -> Vec<u8> {
        let Some(entry) = self.transactions.get(id) else {
            return Vec::new();
        };
        let mut index = Index::new(self.settings.limits.headers);
        match Message::parse(&entry.kept, &mut index) {
            Ok(invite) => skeleton(&invite, method, to),
            Err(_) => Vec::new(),
        }
    }

    /// Throws away what is no longer needed of a request that somebody works on.
    fn trim(&mut self, id: TransactionId) {
        let Some(entry) = self.transactions.get_mut(id) else {
            return;
        };
        if !entry.is_whole {
            return;
        }
        entry.is_whole = false;
        let mut index = Index::new(self.settings.limits.headers);
        let bytes = match Message::parse(&entry.kept, &mut index) {
            Ok(request) => skeleton(
                &request,
                &String::from_utf8_lossy(request.method().unwrap_or_default()),
                None,
            ),
            Err(_) => return,
        };
        self.transactions.keep(id, &bytes);
    }
}

/// What of an INVITE identifies it and leads the same way, under another method.
fn skeleton(invite: &Message<'_>, method: &str, to: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(invite.request_uri().unwrap_or_default());
    out.extend_from_slice(b" SIP/2.0\r\n");
    for header in invite.headers() {
        let name = header.name();
        if !SKELETON.contains(&name) {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        match (name, to) {
            (Name::To, Some(to)) => out.extend_from_slice(to),
            (Name::CSeq, _) => {
                let digits = header.value().split(|&b| !b.is_ascii_digit()).next();
                out.extend_from_slice(digits.unwrap_or_default());
                out.push(b' ');
                out.extend_from_slice(method.as_bytes());
            }
            (_, _) => out.extend_from_slice(header.value()),
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    out
}

const SKELETON: [Name; 7] = [
    Name::Via,
    Name::Route,
    Name::MaxForwards,
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
];

/// No connection has a transaction yet.
pub(in crate::proxy) const NO_TRANSACTION: u32 = NONE;

//! What routes a message is sealed in the message itself, so a restart, a full table or another member
//! of the array costs nothing but timers.
//!
//! ```text
//!  flow token     kind 1 │ node 1 │ epoch 2 │ core 1 │ slot 4 │ generation 4 │ minute 4
//!  partner token  kind 1 │ port 2 │ host …
//!  branch         node 1 │ epoch 2 │ core 1 │ slot 4 │ generation 4 │ flags 1 │ egress 4 │ loop 4 │ transaction 8
//!                 flags: realm 2 bits │ keep-alive 1 │ in the table 1 │ attempt 4
//! ```
//!
//! Each is sealed by AES-SIV under a key that the whole array holds and written in base64url, which
//! may stand in a user part and in a branch. A route of a dialog is sealed together with its Call-ID, so
//! it opens in no other dialog; that of a registration holds for whatever comes later. The same plain text gives the same token, so a
//! retransmission, a CANCEL and an ACK get the branch of their INVITE (RFC 3261 §16.11).

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::host_name::{HostName, HostPort};
use edge_common::seal::Sealer;
use edge_common::secret::{Label, Secrets};
use edge_common::sip::header::via::MAGIC_COOKIE;
use edge_common::time::UnixTime;

use super::hiding::Hiding;

/// A connection of this process. A slot that is used again has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The core that owns the connection.
    pub core: u8,
    /// Its place in that core's table.
    pub slot: u32,
    /// How often the place was used before.
    pub generation: u32,
}

impl FlowKey {
    /// Names no connection of any core: what stands where a message went over the link.
    pub const ELSEWHERE: Self = Self {
        core: u8::MAX,
        slot: u32::MAX,
        generation: u32::MAX,
    };
}

/// A connection of some member of the array, in some run of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRef {
    /// The member.
    pub node: u8,
    /// The run.
    pub epoch: u16,
    /// The connection.
    pub key: FlowKey,
}

/// What stands in the user part of our Path and Record-Route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteToken {
    /// The far end is a client on this connection.
    Client(FlowRef),
    /// The far end is the edge of that name and port. It outlives its connections.
    Partner(HostPort),
}

/// A route token that opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRoute {
    /// What it says.
    pub token: RouteToken,
    /// It was made for the dialog or call that presents it.
    pub is_of_dialog: bool,
}

/// Which kind of far end a message came from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Realm {
    /// A client outside.
    Client,
    /// Another organisation's edge.
    Partner,
    /// A server inside.
    Inside,
}

/// What stands in the branch of our Via: where the response goes and who may send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchToken {
    /// Where the request came from.
    pub ingress: FlowRef,
    /// What kind of far end that is.
    pub realm: Realm,
    /// The client asked for keep-alives on its first hop, and a 2xx has to carry the answer.
    pub keep_alive: bool,
    /// Where the request went: only from there a response counts.
    pub egress: u32,
    /// Equal when the same request comes by a second time.
    pub loop_mark: u32,
    /// Equal for a request, its retransmissions, its CANCEL and the ACK of its failure: its place in the table of
    /// transactions, or without one a hash.
    pub transaction: u64,
    /// With a place in the table: how many targets were tried before (0 to 15).
    pub attempt: Option<u8>,
}

/// Seals and opens tokens.
#[derive(Debug)]
pub struct Tokens {
    routes: Sealer,
    branches: Sealer,
    /// Beside them: stacks of the inside that partners carry.
    pub(super) hiding: Hiding,
}

impl Tokens {
    /// With the keys of the array.
    #[must_use]
    pub fn new(secrets: &Secrets) -> Self {
        Self {
            routes: Sealer::new(secrets, Label::SipFlow),
            branches: Sealer::new(secrets, Label::SipBranch),
            hiding: Hiding::new(secrets),
        }
    }

    /// Writes a route token; `now` says until when it will be taken. With a Call-ID it is for that dialog only.
    #[must_use]
    pub fn seal_route(&self, token: &RouteToken, call_id: Option<&[u8]>, now: UnixTime) -> String {
        let mut plain = Vec::with_capacity(ROUTE_FLOW_LEN);
        match token {
            RouteToken::Client(flow) => {
                plain.push(KIND_CLIENT);
                push_flow(&mut plain, *flow);
                plain.extend_from_slice(&minute(now).to_be_bytes());
            }
            RouteToken::Partner(target) => {
                plain.push(KIND_PARTNER);
                plain.extend_from_slice(&target.port.to_be_bytes());
                plain.extend_from_slice(target.host.as_str().as_bytes());
            }
        }
        // A Call-ID is never empty.
        self.routes.seal_text(&plain, call_id.unwrap_or_default())
    }

    /// Reads a route token of this array that is not too old and not of another dialog than `call_id`.
    #[must_use]
    pub fn open_route(&self, text: &[u8], call_id: &[u8], now: UnixTime) -> Option<OpenRoute> {
        if text.len() > ROUTE_TEXT_MAX {
            return None;
        }
        let (plain, is_of_dialog) = match self.routes.open_text(text, call_id) {
            Ok(plain) => (plain, !call_id.is_empty()),
            Err(_) => (self.routes.open_text(text, b"").ok()?, false),
        };
        let token = Self::read_route(&plain, now)?;
        Some(OpenRoute {
            token,
            is_of_dialog,
        })
    }

    fn read_route(plain: &[u8], now: UnixTime) -> Option<RouteToken> {
        match plain.split_first()? {
            (&KIND_CLIENT, rest) => {
                let (flow, rest) = take_flow(rest)?;
                let issued = u32::from_be_bytes(rest.try_into().ok()?);
                let age = minute(now).saturating_sub(issued);
                (age <= AGE_MAX_MINUTES).then_some(RouteToken::Client(flow))
            }
            (&KIND_PARTNER, rest) => {
                let (port, host) = rest.split_first_chunk::<2>()?;
                let host: HostName = std::str::from_utf8(host).ok()?.parse().ok()?;
                let port = u16::from_be_bytes(*port);
                Some(RouteToken::Partner(HostPort { host, port }))
            }
            (_, _) => None,
        }
    }

    /// Writes a whole branch, magic cookie included.
    pub fn seal_branch(&self, token: &BranchToken, out: &mut Vec<u8>) {
        let mut plain = Vec::with_capacity(BRANCH_LEN);
        push_flow(&mut plain, token.ingress);
        let tracked = token
            .attempt
            .map_or(0, |attempt| 1 << 3 | (attempt & 0xf) << 4);
        plain.push(realm_flag(token.realm) | u8::from(token.keep_alive) << 2 | tracked);
        plain.extend_from_slice(&token.egress.to_be_bytes());
        plain.extend_from_slice(&token.loop_mark.to_be_bytes());
        plain.extend_from_slice(&token.transaction.to_be_bytes());
        out.extend_from_slice(MAGIC_COOKIE);
        out.extend_from_slice(self.branches.seal_text(&plain, b"").as_bytes());
    }

    /// Reads a branch of this array.
    #[must_use]
    pub fn open_branch(&self, branch: &[u8]) -> Option<BranchToken> {
        let text = branch.strip_prefix(MAGIC_COOKIE)?;
        if text.len() != BRANCH_TEXT_LEN {
            return None;
        }
        let plain = self.branches.open_text(text, b"").ok()?;
        let (ingress, rest) = take_flow(&plain)?;
        let (&flags, rest) = rest.split_first()?;
        let (egress, rest) = rest.split_first_chunk::<4>()?;
        let (loop_mark, rest) = rest.split_first_chunk::<4>()?;
        Some(BranchToken {
            ingress,
            realm: flag_realm(flags & 3)?,
            keep_alive: flags & 4 != 0,
            egress: u32::from_be_bytes(*egress),
            loop_mark: u32::from_be_bytes(*loop_mark),
            transaction: u64::from_be_bytes(rest.try_into().ok()?),
            attempt: (flags & 8 != 0).then_some(flags >> 4),
        })
    }
}

fn push_flow(plain: &mut Vec<u8>, flow: FlowRef) {
    plain.push(flow.node);
    plain.extend_from_slice(&flow.epoch.to_be_bytes());
    plain.push(flow.key.core);
    plain.extend_from_slice(&flow.key.slot.to_be_bytes());
    plain.extend_from_slice(&flow.key.generation.to_be_bytes());
}

fn take_flow(plain: &[u8]) -> Option<(FlowRef, &[u8])> {
    let (&node, rest) = plain.split_first()?;
    let (epoch, rest) = rest.split_first_chunk::<2>()?;
    let (&core, rest) = rest.split_first()?;
    let (slot, rest) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<4>()?;
    let key = FlowKey {
        core,
        slot: u32::from_be_bytes(*slot),
        generation: u32::from_be_bytes(*generation),
    };
    let epoch = u16::from_be_bytes(*epoch);
    Some((FlowRef { node, epoch, key }, rest))
}

const fn realm_flag(realm: Realm) -> u8 {
    match realm {
        Realm::Client => 0,
        Realm::Partner => 1,
        Realm::Inside => 2,
    }
}

const fn flag_realm(flag: u8) -> Option<Realm> {
    match flag {
        0 => Some(Realm::Client),
        1 => Some(Realm::Partner),
        2 => Some(Realm::Inside),
        _ => None,
    }
}

fn minute(now: UnixTime) -> u32 {
    u32::try_from(now.as_secs() / 60).unwrap_or(u32::MAX)
}

const KIND_CLIENT: u8 = 1;
const KIND_PARTNER: u8 = 2;
/// A registration or a dialog that is older than this has to be made anew.
const AGE_MAX_MINUTES: u32 = 30 * 24 * 60;
const ROUTE_FLOW_LEN: usize = 17;
/// A partner token with the longest host name, sealed and in base64.
const ROUTE_TEXT_MAX: usize = 400;
const BRANCH_LEN: usize = 29;
const BRANCH_TEXT_LEN: usize = (BRANCH_LEN + edge_common::seal::OVERHEAD).div_ceil(3) * 4
    - (3 - (BRANCH_LEN + edge_common::seal::OVERHEAD) % 3) % 3;

/// For fuzzing: text that nobody sealed opens nothing, and of what was sealed only what can be a token.
///
/// # Panics
/// When a forged text opens, or a token that opens is not the one that seals to the same.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let secrets = Secrets::only(edge_common::secret::ArraySecret::generate(
        &mut edge_common::random::Seeded::new(7),
    ));
    let tokens = Tokens::new(&secrets);
    let now = UnixTime::from_secs(1_790_000_000);
    assert!(tokens.open_route(bytes, b"call", now).is_none());
    assert!(tokens.open_branch(bytes).is_none());
    let sealed = tokens.routes.seal_text(bytes, b"");
    let opened = tokens.open_route(sealed.as_bytes(), b"call", now);
    let planted = matches!(&opened, Some(open) if matches!(&open.token, RouteToken::Partner(to) if to.port == 5061));
    assert!(!(cfg!(planted_bug) && planted), "planted bug");
    let mut branch = MAGIC_COOKIE.to_vec();
    branch.extend_from_slice(tokens.branches.seal_text(bytes, b"").as_bytes());
    if let Some(opened) = tokens.open_branch(&branch) {
        let mut again = Vec::new();
        tokens.seal_branch(&opened, &mut again);
        assert_eq!(tokens.open_branch(&again), Some(opened));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use edge_common::random::Seeded;
    use edge_common::secret::ArraySecret;
    use proptest::prelude::*;
    use std::time::Duration;

    pub(crate) fn secrets() -> Secrets {
        Secrets::only(ArraySecret::generate(&mut Seeded::new(7)))
    }

    const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

    fn flow() -> impl Strategy<Value = FlowRef> {
        any::<(u8, u16, u8, u32, u32)>().prop_map(|(node, epoch, core, slot, generation)| FlowRef {
            node,
            epoch,
            key: FlowKey {
                core,
                slot,
                generation,
            },
        })
    }

    fn branch() -> impl Strategy<Value = BranchToken> {
        let realm = prop_oneof![
            Just(Realm::Client),
            Just(Realm::Partner),
            Just(Realm::Inside)
        ];
        (
            flow(),
            realm,
            any::<(bool, u32, u32, u64)>(),
            prop::option::of(0..16u8),
        )
            .prop_map(
                |(ingress, realm, (keep_alive, egress, loop_mark, transaction), attempt)| {
                    BranchToken {
                        ingress,
                        realm,
                        keep_alive,
                        egress,
                        loop_mark,
                        transaction,
                        attempt,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn a_branch_opens_to_what_was_sealed(token in branch()) {
            let tokens = Tokens::new(&secrets());
            let (mut text, mut again) = (Vec::new(), Vec::new());
            tokens.seal_branch(&token, &mut text);
            tokens.seal_branch(&token, &mut again);
            prop_assert_eq!(&text, &again);
            prop_assert_eq!(tokens.open_branch(&text), Some(token));
        }

        #[test]
        fn a_flow_token_opens_until_it_is_too_old(flow in flow()) {
            let tokens = Tokens::new(&secrets());
            let text = tokens.seal_route(&RouteToken::Client(flow), None, NOW);
            prop_assert_eq!(text.len(), 46);
            let days = |n: u64| NOW + Duration::from_secs(n * 24 * 3600);
            let opened = OpenRoute { token: RouteToken::Client(flow), is_of_dialog: false };
            prop_assert_eq!(tokens.open_route(text.as_bytes(), b"c1", days(30)), Some(opened));
            prop_assert_eq!(tokens.open_route(text.as_bytes(), b"c1", days(31)), None);
        }

        #[test]
        fn a_changed_character_opens_nothing(token in branch(), at in any::<prop::sample::Index>()) {
            let tokens = Tokens::new(&secrets());
            let mut text = Vec::new();
            tokens.seal_branch(&token, &mut text);
            let at = at.index(text.len());
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(tokens.open_branch(&text), None);
        }
    }

    #[test]
    fn a_partner_is_named_in_its_token() {
        let tokens = Tokens::new(&secrets());
        let partner = RouteToken::Partner("sip.fabrikam.test:5061".parse().expect("lawful"));
        let text = tokens.seal_route(&partner, Some(b"c1"), NOW);
        let opened = OpenRoute {
            token: partner,
            is_of_dialog: true,
        };
        assert_eq!(tokens.open_route(text.as_bytes(), b"c1", NOW), Some(opened));
        assert_eq!(
            tokens.open_route(text.as_bytes(), b"c2", NOW),
            None,
            "another dialog's"
        );
        assert_eq!(tokens.open_branch(text.as_bytes()), None);
        assert_eq!(tokens.open_route(b"bob", b"c1", NOW), None);
    }
}

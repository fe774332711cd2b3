//! What the proxy wants done, and what it wants known.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::sync::Arc;

use edge_common::cert::identity::{CertificateId, ProvenNames};
use edge_common::host_name::{HostName, HostPort};
use edge_common::sip::framer::FrameError;
use edge_common::sip::parse::ParseError;

use super::federation::Question;
use super::flow::Proof;
use super::hiding::Step;
use super::refusal::{Drop, Refusal};
use super::token::{FlowKey, FlowRef, Realm};
use super::transaction::TransactionId;

/// Something for the shell to do.
#[derive(Debug)]
pub enum Output<'a> {
    /// Put these bytes into the connection's queue.
    Transmit {
        /// The connection, which is of this core.
        flow: FlowKey,
        /// What to send.
        bytes: &'a [u8],
    },
    /// Close the connection; the proxy has forgotten it.
    Close {
        /// The connection.
        flow: FlowKey,
        /// Why, for the counter.
        reason: CloseReason,
    },
    /// Hand this to the core that owns its connection.
    Cross(Parcel),
    /// Hand this to the member of the array that owns its connection.
    Link(Linked),
    /// Open a connection to a partner's edge.
    Dial(HostPort),
    /// Put this to the owner of the verdicts.
    Ask(Question),
    /// Count or log this.
    Event(Event),
}

/// A message for another core's connection, ready to be sent.
#[derive(Debug)]
pub struct Parcel {
    /// The connection.
    pub to: FlowKey,
    /// The whole message.
    pub bytes: Vec<u8>,
    /// What it is.
    pub kind: ParcelKind,
}

/// What a [`Parcel`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParcelKind {
    /// A request towards a client.
    Request {
        /// Whoever sent it understands RFC 5626.
        outbound: bool,
    },
    /// A response on its way back.
    Response(ResponseNote),
}

/// A message for a connection of another member of the array. What came as one is never sent on as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The connection.
    pub to: FlowRef,
    /// What it is.
    pub kind: LinkedKind,
    /// The whole message.
    pub bytes: Vec<u8>,
}

/// What a [`Linked`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkedKind {
    /// A request towards a client, ready to be sent.
    Request {
        /// Whoever sent it understands RFC 5626.
        outbound: bool,
    },
    /// A response on its way back, with the Via of the member that it goes to on top.
    Response,
}

/// Why a message could not be put on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// That member is not there.
    Down,
    /// Too much waits for it already.
    Full,
}

impl Unlinked {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Full => "full",
        }
    }
}

/// What a response means to its transaction and to the connection it goes back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseNote {
    /// Its status.
    pub status: u16,
    /// What it answers.
    pub method: Method,
    /// The transaction of the core that it goes to, and which of its attempts.
    pub transaction: Option<(TransactionId, u8)>,
    /// No more responses follow.
    pub is_final: bool,
    /// The inside accepts the client.
    pub promotes: bool,
    /// Whether a partner's request found what it asked for; `None` when the answer tells nothing about that.
    pub found: Option<bool>,
    /// The client is told after how much silence it has to speak.
    pub keeps_alive: bool,
    /// A partner asked.
    pub is_for_partner: bool,
}

/// Methods, as far as transactions tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// INVITE.
    Invite,
    /// CANCEL.
    Cancel,
    /// Any other.
    Other,
}

/// Why a request goes on without an entry in the table of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatelessReason {
    /// The table has no room.
    TableFull,
    /// The requests that are kept take as much memory as they may.
    BytesFull,
}

impl StatelessReason {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TableFull => "table_full",
            Self::BytesFull => "bytes_full",
        }
    }
}

/// Why a connection is closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Where messages start and end is no longer certain.
    Frame(FrameError),
    /// Where headers start and end is no longer certain.
    Parse(ParseError),
    /// Nothing came after the handshake.
    FirstMessageTimeout,
    /// Nothing came for too long.
    Idle,
    /// The inside never accepted the client.
    NewcomerTimeout,
    /// A client that nobody vouched for sent too much.
    NewcomerBudget,
    /// Requests go in and nothing comes out.
    Wedged,
    /// This member of the array is about to end.
    Drained,
}

impl CloseReason {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Frame(FrameError::ContentLengthInvalid) => "content_length_invalid",
            Self::Frame(FrameError::ContentLengthMissing) => "content_length_missing",
            Self::Frame(FrameError::BareLineFeed) | Self::Parse(ParseError::BareLineFeed) => {
                "bare_line_feed"
            }
            Self::Frame(FrameError::BareCarriageReturn)
            | Self::Parse(ParseError::BareCarriageReturn) => "bare_carriage_return",
            Self::Frame(FrameError::HeadTooLong) => "head_too_long",
            Self::Frame(FrameError::BodyTooLong) => "body_too_long",
            Self::Parse(ParseError::HeadIncomplete) => "head_incomplete",
            Self::Parse(ParseError::StartLineBlank) => "start_line_blank",
            Self::Parse(ParseError::Nul) => "nul",
            Self::Parse(ParseError::HeaderWithoutColon) => "header_without_colon",
            Self::Parse(ParseError::HeaderNameInvalid) => "header_name_invalid",
            Self::Parse(ParseError::TooManyHeaders) => "too_many_headers",
            Self::FirstMessageTimeout => "first_message_timeout",
            Self::Idle => "idle",
            Self::NewcomerTimeout => "newcomer_timeout",
            Self::NewcomerBudget => "newcomer_budget",
            Self::Wedged => "wedged",
            Self::Drained => "drained",
        }
    }
}

/// Something worth a counter or a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message went on.
    Forwarded {
        /// From what kind of far end.
        from: Realm,
        /// To what kind of far end.
        to: Realm,
        /// Whether it is a response.
        response: bool,
    },
    /// A request was answered here.
    Answered(Realm, Refusal),
    /// A message was thrown away.
    Dropped(Drop),
    /// A request went on without an entry in the table of transactions.
    Stateless(StatelessReason),
    /// A request was sent to its next target.
    FailedOver,
    /// A request got no answer in time.
    TimedOut,
    /// A message crossed whose Via and Record-Route of the inside partners do not see.
    Topology(Step),
    /// The inside accepted a client.
    Promoted(FlowKey),
    /// A partner came to be proven for a domain, or ceased to be; told once for each change on a connection.
    Verdict {
        /// The domain.
        domain: HostName,
        /// What the certificate proves.
        names: Arc<ProvenNames>,
        /// Which certificate it is.
        certificate: Arc<CertificateId>,
        /// The edge that speaks for it and by which rule, or why none does.
        outcome: Result<Proof, Refusal>,
        /// The connection had many refusals lately: this one is counted and not written down.
        is_one_of_many: bool,
    },
}

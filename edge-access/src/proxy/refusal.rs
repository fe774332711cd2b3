//! Why the edge answers a request itself, or throws a message away.
//!
//! Signed-in Communicator clients ignore answers that nobody signed, so the edge refuses only what may
//! not go inside or cannot.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use edge_common::sip::header::Name;

use super::hiding::{Forged, TooLong};

/// A request is answered here, with the status and the diagnostics that this tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The text says what does not follow its grammar.
    Malformed(&'static str),
    /// A mandatory header is not there.
    Missing(Name),
    /// A header that may stand once stands twice.
    Repeated(Name),
    /// Method and CSeq disagree.
    CSeqMismatch,
    /// Not SIP/2.0.
    Version,
    /// A Request-URI of another scheme.
    Scheme,
    /// Max-Forwards is used up.
    TooManyHops,
    /// More Via than any honest path has.
    ViaTooDeep,
    /// The same request came by before.
    Loop,
    /// Proxy-Require names what we do not know.
    Extension,
    /// A request of the first hop that is ours to refuse (NEGOTIATE).
    HopLocal,
    /// `proxy=replace` where it cannot be granted.
    ContactNotReplaceable,
    /// From names a domain whose users do not sign in here.
    FromNotRemote,
    /// The domain's users sign in at another edge, which is named in the answer.
    ServedElsewhere,
    /// Anonymous users are not let in, or not to there.
    Anonymous,
    /// A route of ours that does not open, or is not this sender's.
    RouteInvalid,
    /// What a route of ours hides does not open.
    HiddenInvalid,
    /// The Via and Record-Route of servers inside are too long to be hidden from the partner.
    HiddenTooLong,
    /// The client's connection is gone, and whoever asks may know another one (RFC 5626 §11.3).
    FlowGone,
    /// The client's connection is gone, and whoever asks knows nothing of connections.
    ClientGone,
    /// Nobody is known at that address.
    Unroutable,
    /// The next hop inside is not connected.
    NextHopDown,
    /// The edge is about to stop.
    Draining,
    /// A client that nobody vouched for asks too much.
    Newcomer,
    /// This method is not exchanged with partners.
    NotFederated,
    /// A partner asks for a domain that is not ours.
    RelayDenied,
    /// The other domain is blocked or not allowed.
    DomainDenied,
    /// The other domain is not proven; the label tells what was missing (`partner_proof::Refusal`).
    Unproven(&'static str),
    /// A discovered partner sends too many requests a second.
    PartnerRate,
    /// A discovered partner writes to too many addresses of ours.
    PartnerContacts,
    /// An operator blocked the partner's certificate.
    PartnerBlocked,
    /// The domain is of another type of federation than what the connection was proven for.
    TypeMismatch,
    /// What a message waited for did not come in time.
    PartnerTimeout,
    /// Too many messages wait for that domain or its connection.
    PartnerBusy,
    /// A connection names new domains faster than they are looked up for one.
    ProofRate,
    /// DNS did not tell the domain's SRV record in time.
    SrvUnresolved,
    /// The domain has no SRV record that says where to go; the label tells why (`partner_proof::Refusal`).
    SrvUnusable(&'static str),
    /// The SRV record points outside its domain.
    SrvConflict,
    /// The partner's host has no usable address.
    HostUnresolved,
    /// The partner's host does not answer.
    PartnerUnreachable,
    /// TLS with the partner failed.
    PartnerTls,
    /// The partner's certificate does not prove its name.
    PartnerUntrusted,
    /// A queue on the way was full.
    Overload,
    /// The message does not fit the queue of its receiver.
    TooLong,
    /// Nobody answered an INVITE in time.
    Timeout,
    /// The connection inside that the request went over is gone, and there is no other.
    NextHopLost,
    /// The Director takes no more registrations at present.
    RegistrationStorm,
    /// What is less urgent has to wait while there is too much to do.
    LowPriority,
    /// More headers than a message may have.
    TooManyHeaders,
    /// More bytes before the body than a message may have.
    HeadTooLong,
    /// The body is longer than this sender may send.
    BodyTooLong,
}

/// Diagnostics of MS-OCER: the number and its short reason.
pub type Diagnostic = (u16, &'static str);

impl Refusal {
    /// A client's connection is gone; `outbound` says whether the asker understands RFC 5626.
    #[must_use]
    pub const fn gone(outbound: bool) -> Self {
        if outbound {
            Self::FlowGone
        } else {
            Self::ClientGone
        }
    }

    /// The status code and phrase.
    #[must_use]
    pub const fn status(self) -> (u16, &'static str) {
        match self {
            Self::Malformed(_)
            | Self::Missing(_)
            | Self::Repeated(_)
            | Self::CSeqMismatch
            | Self::ContactNotReplaceable => (400, "Bad Request"),
            Self::ServedElsewhere => (301, "Moved Permanently"),
            Self::FromNotRemote
            | Self::Anonymous
            | Self::NotFederated
            | Self::RelayDenied
            | Self::DomainDenied
            | Self::PartnerContacts
            | Self::PartnerBlocked
            | Self::TypeMismatch
            | Self::Unproven(_) => (403, "Forbidden"),
            Self::Unroutable => (404, "Not Found"),
            Self::HopLocal => (405, "Method Not Allowed"),
            Self::Scheme => (416, "Unsupported URI Scheme"),
            Self::Extension => (420, "Bad Extension"),
            Self::Timeout => (408, "Request Timeout"),
            Self::FlowGone => (430, "Flow Failed"),
            Self::ClientGone => (480, "Temporarily Unavailable"),
            Self::RouteInvalid | Self::HiddenInvalid => (481, "Call/Transaction Does Not Exist"),
            Self::Loop => (482, "Loop Detected"),
            Self::TooManyHops | Self::ViaTooDeep => (483, "Too Many Hops"),
            Self::NextHopDown
            | Self::Draining
            | Self::Newcomer
            | Self::PartnerRate
            | Self::PartnerBusy
            | Self::ProofRate
            | Self::RegistrationStorm
            | Self::LowPriority
            | Self::Overload => (503, "Service Unavailable"),
            Self::SrvUnresolved
            | Self::PartnerTimeout
            | Self::SrvUnusable(_)
            | Self::SrvConflict
            | Self::HostUnresolved
            | Self::PartnerUnreachable
            | Self::PartnerTls
            | Self::NextHopLost
            | Self::PartnerUntrusted => (504, "Server time-out"),
            Self::Version => (505, "Version Not Supported"),
            Self::BodyTooLong => (413, "Request Entity Too Large"),
            Self::TooLong | Self::TooManyHeaders | Self::HeadTooLong | Self::HiddenTooLong => {
                (513, "Message Too Large")
            }
        }
    }

    /// What a server inside may know of the reason.
    #[must_use]
    pub const fn diagnostic(self) -> Option<Diagnostic> {
        match self {
            Self::Malformed(why) => Some((1018, why)),
            Self::Missing(_) => Some((1018, "Missing header")),
            Self::Repeated(_) => Some((1018, "Repeated header")),
            Self::CSeqMismatch => Some((1018, "CSeq and method differ")),
            Self::ContactNotReplaceable => Some((1018, "Contact cannot be replaced")),
            Self::FromNotRemote | Self::Anonymous => {
                Some((1012, "From URI is not allowed to communicate from outside"))
            }
            Self::RouteInvalid | Self::HiddenInvalid | Self::FlowGone => {
                Some((1004, "Route set is no longer valid"))
            }
            Self::ClientGone => Some((1006, "Error routing on client connection")),
            Self::Unroutable | Self::RelayDenied => {
                Some((1005, "Cannot route to destination domain"))
            }
            Self::NextHopDown
            | Self::NextHopLost
            | Self::Draining
            | Self::PartnerRate
            | Self::PartnerTimeout
            | Self::PartnerBusy
            | Self::ProofRate
            | Self::RegistrationStorm
            | Self::LowPriority
            | Self::Overload => Some((1007, "Temporarily cannot route")),
            Self::NotFederated | Self::PartnerContacts => Some((
                1027,
                "Cannot route this type of SIP request to or from federated partners",
            )),
            Self::TypeMismatch => Some((
                1016,
                "Asserted domain traffic type does not match source domain",
            )),
            Self::DomainDenied | Self::PartnerBlocked | Self::Unproven(_) => {
                Some((1015, "Cannot route from message source domain"))
            }
            Self::SrvUnresolved | Self::SrvUnusable(_) => {
                Some((1008, "Unable to resolve DNS SRV record"))
            }
            Self::SrvConflict => Some((1009, "Conflicting SRV and host domains in DNS")),
            Self::HostUnresolved => Some((1014, "Unable to resolve DNS A record")),
            Self::PartnerUnreachable => {
                Some((1046, "Failed to connect to a federated peer server"))
            }
            Self::PartnerTls => Some((
                1047,
                "Failed to complete TLS negotiation with a federated peer server",
            )),
            Self::PartnerUntrusted => Some((
                1010,
                "Certificate trust with next-hop server could not be established",
            )),
            Self::Version
            | Self::ServedElsewhere
            | Self::Scheme
            | Self::TooManyHops
            | Self::ViaTooDeep
            | Self::Loop
            | Self::Extension
            | Self::HopLocal
            | Self::Newcomer
            | Self::Timeout
            | Self::TooManyHeaders
            | Self::HeadTooLong
            | Self::HiddenTooLong
            | Self::BodyTooLong
            | Self::TooLong => None,
        }
    }

    /// What an outsider may know: which domains are allowed, and what their proof lacked, is nobody's business.
    #[must_use]
    pub const fn public_diagnostic(self) -> Option<Diagnostic> {
        if matches!(
            self,
            Self::DomainDenied
                | Self::PartnerBlocked
                | Self::TypeMismatch
                | Self::Unproven(_)
                | Self::RelayDenied
        ) {
            return Self::NotFederated.diagnostic();
        }
        self.diagnostic()
    }

    /// What a partner may know: whether it may come back, or what is wrong with its DNS and its certificate
    /// (access to anything else would tell it about the inside).
    #[must_use]
    pub fn partner_diagnostic(self) -> Option<Diagnostic> {
        self.public_diagnostic()
            .filter(|(id, _)| matches!(id, 1007..=1010 | 1014 | 1018 | 1027))
    }

    /// Whether a partner that asks for this tries what it has no business with.
    #[must_use]
    pub const fn is_guess(self) -> bool {
        matches!(
            self,
            Self::RelayDenied
                | Self::NotFederated
                | Self::RouteInvalid
                | Self::HiddenInvalid
                | Self::Unproven(_)
        )
    }

    /// Whether the sender may come back, and so is told when.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        self.status().0 == 503
    }

    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Missing(_) => "header_missing",
            Self::Repeated(_) => "header_repeated",
            Self::CSeqMismatch => "cseq_mismatch",
            Self::Version => "version",
            Self::Scheme => "scheme",
            Self::TooManyHops => "too_many_hops",
            Self::ViaTooDeep => "via_too_deep",
            Self::Loop => "loop",
            Self::Extension => "extension",
            Self::HopLocal => "hop_local",
            Self::ContactNotReplaceable => "contact_not_replaceable",
            Self::FromNotRemote => "from_not_remote",
            Self::ServedElsewhere => "served_elsewhere",
            Self::Anonymous => "anonymous",
            Self::RouteInvalid => "route_invalid",
            Self::HiddenInvalid => "hidden_invalid",
            Self::HiddenTooLong => "hidden_too_long",
            Self::FlowGone => "flow_gone",
            Self::ClientGone => "client_gone",
            Self::Unroutable => "unroutable",
            Self::NextHopDown => "next_hop_down",
            Self::Draining => "draining",
            Self::Newcomer => "newcomer",
            Self::NotFederated => "not_federated",
            Self::RelayDenied => "relay_denied",
            Self::DomainDenied => "domain_denied",
            Self::Unproven(why) | Self::SrvUnusable(why) => why,
            Self::TypeMismatch => "type_mismatch",
            Self::PartnerTimeout => "partner_timeout",
            Self::PartnerRate => "partner_rate",
            Self::PartnerContacts => "partner_contacts",
            Self::PartnerBlocked => "partner_blocked",
            Self::PartnerBusy => "partner_busy",
            Self::ProofRate => "proof_rate",
            Self::SrvUnresolved => "srv_unresolved",
            Self::SrvConflict => "srv_conflict",
            Self::HostUnresolved => "host_unresolved",
            Self::PartnerUnreachable => "partner_unreachable",
            Self::PartnerTls => "partner_tls",
            Self::PartnerUntrusted => "partner_untrusted",
            Self::Overload => "overload",
            Self::TooLong => "too_long",
            Self::Timeout => "timeout",
            Self::NextHopLost => "next_hop_lost",
            Self::RegistrationStorm => "registration_storm",
            Self::LowPriority => "low_priority",
            Self::TooManyHeaders => "too_many_headers",
            Self::HeadTooLong => "head_too_long",
            Self::BodyTooLong => "body_too_long",
        }
    }
}

impl From<Forged> for Refusal {
    fn from(Forged: Forged) -> Self {
        Self::HiddenInvalid
    }
}

impl From<TooLong> for Refusal {
    fn from(TooLong: TooLong) -> Self {
        Self::HiddenTooLong
    }
}

impl From<Forged> for Drop {
    fn from(Forged: Forged) -> Self {
        Self::HiddenInvalid
    }
}

impl From<TooLong> for Drop {
    fn from(TooLong: TooLong) -> Self {
        Self::HiddenTooLong
    }
}

/// A message is thrown away without an answer, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// The status line holds no status.
    StatusInvalid,
    /// The topmost Via of a response is not ours.
    ResponseUnknown,
    /// A response that does not come from where its request went.
    ResponseNotFromPeer,
    /// Who waited for the response is gone.
    ResponseFlowGone,
    /// Too much waits on the link to the member that the response is for.
    ResponseLinkFull,
    /// The response cannot be handed on as it is.
    ResponseMalformed,
    /// What our Via or Record-Route in a partner's response hides does not open.
    HiddenInvalid,
    /// The Record-Route of servers inside are too long to be hidden from the partner.
    HiddenTooLong,
    /// An ACK that had to be refused; nothing answers it.
    Ack,
    /// An ACK or CANCEL of a call under way that cannot be sent on as it is; its sender has his answer.
    Along,
    /// The ACK of a refusal of ours: it is for nobody else (RFC 3261 §17.1.1.3).
    AckOfRefusal,
    /// A BENOTIFY that had to be refused; nothing answers it.
    Benotify,
    /// The answer to a BENOTIFY, which has none.
    BenotifyAnswered,
    /// The connection of a message that had to wait is gone.
    SenderGone,
    /// A response that does not fit the queue of its receiver.
    ResponseTooLong,
    /// A response for which the queue towards the next hop has no room.
    ResponseCongested,
    /// A response that ends at this hop: a 100, or one that another target was asked after (RFC 3261 §16.7).
    ResponseAbsorbed,
    /// A response to a request that is over (RFC 4320 §4.3).
    ResponseLate,
    /// A request that is under way already (RFC 3261 §17.2).
    Retransmission,
    /// The ACK of a failure, which this hop has acknowledged itself (RFC 3261 §17.2.1).
    AckAbsorbed,
}

impl Drop {
    /// The label of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::StatusInvalid => "status_invalid",
            Self::ResponseUnknown => "response_unknown",
            Self::ResponseNotFromPeer => "response_not_from_peer",
            Self::ResponseFlowGone => "response_flow_gone",
            Self::ResponseLinkFull => "response_link_full",
            Self::ResponseMalformed => "response_malformed",
            Self::HiddenInvalid => "hidden_invalid",
            Self::HiddenTooLong => "hidden_too_long",
            Self::Ack => "ack_refused",
            Self::Along => "ack_or_cancel_unlawful",
            Self::AckOfRefusal => "ack_of_refusal",
            Self::Benotify => "benotify_refused",
            Self::BenotifyAnswered => "benotify_answered",
            Self::SenderGone => "sender_gone",
            Self::ResponseTooLong => "response_too_long",
            Self::ResponseCongested => "response_congested",
            Self::ResponseAbsorbed => "response_absorbed",
            Self::ResponseLate => "response_late",
            Self::Retransmission => "retransmission",
            Self::AckAbsorbed => "ack_absorbed",
        }
    }
}

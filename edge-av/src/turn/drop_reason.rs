//! Why a datagram is not answered and not relayed: each reason has a counter of its own.

/// We stay silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No STUN message although its first bytes say so.
    Malformed,
    /// FINGERPRINT is wrong.
    Fingerprint,
    /// None of the protocols of this port.
    UnknownProtocol,
    /// A DTLS record.
    Dtls,
    /// A control message of MS-TURN.
    MsTurn,
    /// Multiplexed MS-TURN.
    MsMultiplexed,
    /// An answer, or an indication that no client sends.
    Unexpected,
    /// An Allocate of twenty bytes: it asks for nothing, and its challenge would be the largest amplification.
    BareAllocate,
    /// The source has had its share of unauthenticated answers for now.
    StrangerBudget,
    /// Data from a client that holds no allocation.
    NoAllocation,
    /// ChannelData for a number that is not bound, or longer than its datagram.
    NoChannel,
    /// No permission for this peer.
    NoPermission,
    /// An indication with an attribute that must be understood and is not.
    UnknownAttribute,
    /// For an address of our own that relays for nobody.
    NoSuchRelay,
    /// Longer than anything that is relayed.
    TooLong,
    /// The mailbox of the other core is full.
    MailboxFull,
    /// All buffers for packets to other cores are on their way.
    NoBuffer,
    /// The kernel did not take it: no route, no buffer, or the firewall.
    SendFailed,
    /// The client's connection takes no more.
    QueueFull,
}

impl Reason {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::Fingerprint,
        Self::UnknownProtocol,
        Self::Dtls,
        Self::MsTurn,
        Self::MsMultiplexed,
        Self::Unexpected,
        Self::BareAllocate,
        Self::StrangerBudget,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::UnknownAttribute,
        Self::NoSuchRelay,
        Self::TooLong,
        Self::MailboxFull,
        Self::NoBuffer,
        Self::SendFailed,
        Self::QueueFull,
    ];

    /// The word of the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Fingerprint => "fingerprint",
            Self::UnknownProtocol => "unknown_protocol",
            Self::Dtls => "dtls",
            Self::MsTurn => "ms_turn",
            Self::MsMultiplexed => "ms_multiplexed",
            Self::Unexpected => "unexpected",
            Self::BareAllocate => "bare_allocate",
            Self::StrangerBudget => "stranger_budget",
            Self::NoAllocation => "no_allocation",
            Self::NoChannel => "no_channel",
            Self::NoPermission => "no_permission",
            Self::UnknownAttribute => "unknown_attribute",
            Self::NoSuchRelay => "no_such_relay",
            Self::TooLong => "too_long",
            Self::MailboxFull => "mailbox_full",
            Self::NoBuffer => "no_buffer",
            Self::SendFailed => "send_failed",
            Self::QueueFull => "queue_full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_own_place() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }
}

//! What a client may not have, with the code that says so (RFC 8489 §14.8, RFC 8656 §19).

/// An error answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// An attribute is missing or has no sense.
    BadRequest,
    /// No proof, or a wrong one; comes with realm and nonce.
    Unauthenticated,
    /// The peer is one that nobody may reach through this edge.
    Forbidden,
    /// An attribute must be understood and is not; comes with the list.
    UnknownAttribute,
    /// The client holds no allocation, or holds one already.
    AllocationMismatch,
    /// The nonce is old; comes with a new one.
    StaleNonce,
    /// There is no relay address of this family.
    FamilyNotSupported,
    /// The allocation belongs to another user.
    WrongCredentials,
    /// Only UDP is relayed.
    TransportNotSupported,
    /// The peer's family is not the relayed address's.
    PeerFamilyMismatch,
    /// The user or the source holds its share of allocations.
    QuotaReached,
    /// No port, no place in a table.
    InsufficientCapacity,
}

impl Refusal {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::UnknownAttribute,
        Self::AllocationMismatch,
        Self::StaleNonce,
        Self::FamilyNotSupported,
        Self::WrongCredentials,
        Self::TransportNotSupported,
        Self::PeerFamilyMismatch,
        Self::QuotaReached,
        Self::InsufficientCapacity,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::UnknownAttribute => 420,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::FamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::TransportNotSupported => 442,
            Self::PeerFamilyMismatch => 443,
            Self::QuotaReached => 486,
            Self::InsufficientCapacity => 508,
        }
    }

    /// Whether the answer carries realm and nonce, and therefore no MAC.
    #[must_use]
    pub const fn is_challenge(self) -> bool {
        matches!(self, Self::Unauthenticated | Self::StaleNonce)
    }
}

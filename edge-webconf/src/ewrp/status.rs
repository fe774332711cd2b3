//! What both ends tell each other about how something ended.

/// Status codes of EWRP/1. None of them is ever shown to an outside client: it sees a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The peer broke the protocol.
    Protocol = 1,
    /// No version in common.
    Version = 2,
    /// A signature or a sequence number was wrong.
    Auth = 3,
    /// The certificate proves no name of the trusted list.
    NotTrusted = 4,
    /// A registration is not below a name of the certificate, or not there.
    NameDenied = 5,
    /// A table is full, or a value is out of its range.
    Limit = 6,
    /// No admitted number was found.
    TokenUnknown = 7,
    /// The number's time is over.
    TokenExpired = 8,
    /// The number has no uses left.
    TokenUsed = 9,
    /// The agent that admitted the number is gone.
    NoAgent = 10,
    /// No data connection came in time.
    DialTimeout = 11,
    /// The conference server did not take the connection.
    UpstreamRefused = 12,
    /// The agent or the edge is about to stop.
    Draining = 13,
    /// Nothing moved for too long.
    Idle = 14,
    /// Too many attempts from one source.
    Rate = 15,
    /// The client sent too little in the time it had.
    Preread = 16,
    /// The process stops.
    Shutdown = 17,
    /// A fault of our own.
    Internal = 18,
}

impl Status {
    /// All of them, in order of their codes.
    pub const ALL: [Self; 19] = [
        Self::Ok,
        Self::Protocol,
        Self::Version,
        Self::Auth,
        Self::NotTrusted,
        Self::NameDenied,
        Self::Limit,
        Self::TokenUnknown,
        Self::TokenExpired,
        Self::TokenUsed,
        Self::NoAgent,
        Self::DialTimeout,
        Self::UpstreamRefused,
        Self::Draining,
        Self::Idle,
        Self::Rate,
        Self::Preread,
        Self::Shutdown,
        Self::Internal,
    ];

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The status of a code; `None` for a code that EWRP/1 does not have.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The value of the `status` label in metrics and of the field in logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Protocol => "protocol",
            Self::Version => "version",
            Self::Auth => "auth",
            Self::NotTrusted => "not_trusted",
            Self::NameDenied => "name_denied",
            Self::Limit => "limit",
            Self::TokenUnknown => "token_unknown",
            Self::TokenExpired => "token_expired",
            Self::TokenUsed => "token_used",
            Self::NoAgent => "no_agent",
            Self::DialTimeout => "dial_timeout",
            Self::UpstreamRefused => "upstream_refused",
            Self::Draining => "draining",
            Self::Idle => "idle",
            Self::Rate => "rate",
            Self::Preread => "preread",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_read_back() {
        for (code, status) in (0..).zip(Status::ALL) {
            assert_eq!(status.code(), code);
            assert_eq!(Status::from_code(code), Some(status));
        }
        assert_eq!(Status::from_code(19), None);
        assert_eq!(Status::from_code(u16::MAX), None);
    }
}

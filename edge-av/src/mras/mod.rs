//! The A/V authentication service (MS-AVEDGEA): a server inside asks on behalf of a user, and gets a user name, a
//! password and the relays where they are good.
//!
//! ```text
//!   SIP SERVICE ─► request ─► service ─► response ─► SIP 200, 400, 403, 413
//!     application/msrtc-media-relay-auth+xml
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod request;
pub mod response;
pub mod service;

/// The media type of requests and responses.
pub const CONTENT_TYPE: &str = "application/msrtc-media-relay-auth+xml";
/// The namespace of both documents.
pub const NAMESPACE: &str = "http://schemas.microsoft.com/2006/09/sip/mrasp";

/// What a response says of the whole request, and the SIP status that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phrase {
    /// Every part was answered.
    Ok,
    /// The document is not what the schema describes.
    RequestMalformed,
    /// More entries or bytes than are taken.
    RequestTooLarge,
    /// The asker may not ask.
    Forbidden,
    /// A later version than this server speaks.
    VersionMismatch,
}

impl Phrase {
    /// The value of reasonPhrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::RequestMalformed => "Request Malformed",
            Self::RequestTooLarge => "Request Too Large",
            Self::Forbidden => "Forbidden",
            Self::VersionMismatch => "Version Mismatch",
        }
    }

    /// The SIP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::RequestMalformed | Self::VersionMismatch => 400,
            Self::RequestTooLarge => 413,
            Self::Forbidden => 403,
        }
    }
}

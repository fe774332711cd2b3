//! The headers that we know by name, with their compact forms (RFC 3261 §7.3.3 and the IANA registry).

/// One line per header gives the enum, both spellings and the look-up tables.
macro_rules! names {
    ($($variant:ident $long:literal $($compact:literal)?,)*) => {
        /// Which header a line is; what we never look at is [`Name::Other`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Name {
            $(#[doc = concat!("`", $long, "`")] $variant,)*
            /// Any other.
            Other,
        }

        impl Name {
            /// The long form as we write it; empty for [`Name::Other`].
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $long,)*
                    Self::Other => "",
                }
            }
        }

        impl Name {
            /// How many there are, [`Name::Other`] among them; `name as usize` is below it.
            pub const COUNT: usize = LONG.len() + 1;

            /// All that have a name.
            pub fn all() -> impl Iterator<Item = Self> {
                LONG.iter().map(|&(_, name)| name)
            }

            /// The compact form, of those that have one.
            #[must_use]
            pub const fn compact(self) -> Option<char> {
                match self {
                    $($(Self::$variant => Some($compact as char),)?)*
                    _ => None,
                }
            }
        }

        const LONG: &[(&str, Name)] = &[$(($long, Name::$variant),)*];
        const COMPACT: [Name; 256] = {
            let mut table = [Name::Other; 256];
            $($(
                table[$compact as usize] = Name::$variant;
                table[($compact - b'a' + b'A') as usize] = Name::$variant;
            )?)*
            table
        };
    };
}

names! {
    Allow "Allow",
    AllowEvents "Allow-Events" b'u',
    AuthenticationInfo "Authentication-Info",
    Authorization "Authorization",
    CallId "Call-ID" b'i',
    Contact "Contact" b'm',
    ContentEncoding "Content-Encoding" b'e',
    ContentLength "Content-Length" b'l',
    ContentType "Content-Type" b'c',
    CSeq "CSeq",
    Diversion "Diversion",
    Event "Event" b'o',
    Expires "Expires",
    From "From" b'f',
    HistoryInfo "History-Info",
    MaxForwards "Max-Forwards",
    MsAssertedVerificationLevel "ms-asserted-verification-level",
    MsClientDiagnostics "ms-client-diagnostics",
    MsDiagnostics "ms-diagnostics",
    MsDiagnosticsPublic "ms-diagnostics-public",
    MsEdgeProxyMessageTrust "ms-edge-proxy-message-trust",
    MsEndpointLocationData "ms-endpoint-location-data",
    MsKeepAlive "ms-keep-alive",
    MsSubnet "ms-subnet",
    MsUserLogonData "ms-user-logon-data",
    PAccessNetworkInfo "P-Access-Network-Info",
    PAssertedIdentity "P-Asserted-Identity",
    PAssertedService "P-Asserted-Service",
    Path "Path",
    PChargingFunctionAddresses "P-Charging-Function-Addresses",
    PChargingVector "P-Charging-Vector",
    PPreferredIdentity "P-Preferred-Identity",
    PPreferredService "P-Preferred-Service",
    Privacy "Privacy",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthenticationInfo "Proxy-Authentication-Info",
    ProxyAuthorization "Proxy-Authorization",
    ProxyRequire "Proxy-Require",
    PServedUser "P-Served-User",
    PVisitedNetworkId "P-Visited-Network-ID",
    Reason "Reason",
    RecordRoute "Record-Route",
    RemotePartyId "Remote-Party-ID",
    Require "Require",
    RetryAfter "Retry-After",
    Route "Route",
    Server "Server",
    Subject "Subject" b's',
    Supported "Supported" b'k',
    To "To" b't',
    Unsupported "Unsupported",
    UserAgent "User-Agent",
    Via "Via" b'v',
    Warning "Warning",
    WwwAuthenticate "WWW-Authenticate",
}

impl Name {
    /// Recognises a name in either form and any case.
    #[must_use]
    pub fn of(written: &[u8]) -> Self {
        if let [letter] = written {
            return COMPACT[usize::from(*letter)];
        }
        let Some(&(from, to)) = BY_LEN.get(written.len()) else {
            return Self::Other;
        };
        // The first letter tells most names of one length apart.
        let like = |long: &str| {
            let first = |text: &[u8]| text.first().map(u8::to_ascii_lowercase);
            first(long.as_bytes()) == first(written)
                && written.eq_ignore_ascii_case(long.as_bytes())
        };
        SORTED[from..to]
            .iter()
            .find(|(long, _)| like(long))
            .map_or(Self::Other, |&(_, name)| name)
    }
}

/// `LONG`, shortest first.
const SORTED: [(&str, Name); LONG.len()] = {
    let mut sorted = [("", Name::Other); LONG.len()];
    let mut i = 0;
    while i < LONG.len() {
        let mut at = i;
        while at > 0 && sorted[at - 1].0.len() > LONG[i].0.len() {
            sorted[at] = sorted[at - 1];
            at -= 1;
        }
        sorted[at] = LONG[i];
        i += 1;
    }
    sorted
};

/// For each length where its names stand in `SORTED`.
const BY_LEN: [(usize, usize); LEN_MAX + 1] = {
    let mut table = [(0, 0); LEN_MAX + 1];
    let mut i = 0;
    while i < SORTED.len() {
        let len = SORTED[i].0.len();
        if table[len].1 == 0 {
            table[len].0 = i;
        }
        table[len].1 = i + 1;
        i += 1;
    }
    table
};

const LEN_MAX: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_in_any_case_and_no_prefix_is() {
        for &(long, name) in LONG {
            assert_eq!(Name::of(long.as_bytes()), name);
            assert_eq!(Name::of(long.to_uppercase().as_bytes()), name);
            assert_eq!(Name::of(long.to_lowercase().as_bytes()), name);
            assert_eq!(name.as_str(), long);
            assert_eq!(
                Name::of(format!("{long}x").as_bytes()),
                Name::Other,
                "{long}x"
            );
        }
        assert_eq!(Name::of(b"v"), Name::Via);
        assert_eq!(Name::of(b"L"), Name::ContentLength);
        assert_eq!(Name::of(b""), Name::Other);
        assert_eq!(Name::of(b"z"), Name::Other);
    }
}

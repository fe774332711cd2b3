//! Real far ends for the real daemon, all on loopback: a PKI, a name server, peers that speak SIP over TLS.

pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod peer;
pub(crate) mod pki;
pub(crate) mod sip;
pub(crate) mod torture;

//! Two parties that meet in memory, for the tests of this crate.

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};

use super::revocation::CrlStore;
use super::store::Store;
use super::test_pki::{Authority, FixedClock, Issued, TODAY};
use super::tls::{dialer_at, mutual_listener_at};
use super::trust::TrustStore;
use super::verify::{PeerPolicy, PeerVerifier};
use crate::config::{ClientEku, Revocation};

pub(crate) const EDGE: &str = "sip.contoso.test";

pub(crate) const PARTNER: &str = "sip.fabrikam.test";

pub(crate) fn policy(client_eku: ClientEku, revocation: Revocation) -> PeerPolicy {
    PeerPolicy {
        client_eku,
        revocation,
    }
}

pub(crate) fn lenient() -> PeerPolicy {
    policy(ClientEku::ClientOrServer, Revocation::Off)
}

pub(crate) fn trusting(authority: &Authority) -> TrustStore {
    TrustStore::of(&[authority.certificate()]).unwrap()
}

/// One organisation: what it shows, and whom it believes.
pub(crate) struct Party {
    pub(crate) shown: Arc<Store>,
    pub(crate) verifier: Arc<PeerVerifier>,
}

impl Party {
    pub(crate) fn new(shown: &Issued, trust: TrustStore, policy: PeerPolicy) -> Self {
        Self::with_lists(shown, trust, policy, CrlStore::empty())
    }

    pub(crate) fn with_lists(
        shown: &Issued,
        trust: TrustStore,
        policy: PeerPolicy,
        crls: Arc<CrlStore>,
    ) -> Self {
        Self {
            shown: shown.store(),
            verifier: PeerVerifier::new(trust, policy, crls),
        }
    }

    pub(crate) fn listener(&self) -> Arc<ServerConfig> {
        let clock = FixedClock::at(TODAY);
        mutual_listener_at(
            Arc::clone(&self.shown),
            Arc::clone(&self.verifier),
            &[],
            clock,
        )
    }

    pub(crate) fn dialer(&self) -> Arc<ClientConfig> {
        let clock = FixedClock::at(TODAY);
        dialer_at(
            Arc::clone(&self.shown),
            Arc::clone(&self.verifier),
            &[],
            clock,
        )
    }
}

#[derive(Debug)]
pub(crate) enum Failed {
    AtClient(Box<Error>),
    AtServer(Box<Error>),
}

impl Failed {
    pub(crate) fn at_server(self) -> Error {
        match self {
            Self::AtServer(error) => *error,
            Self::AtClient(error) => panic!("refused by the client: {error}"),
        }
    }

    pub(crate) fn at_client(self) -> Error {
        match self {
            Self::AtClient(error) => *error,
            Self::AtServer(error) => panic!("refused by the server: {error}"),
        }
    }
}

/// Runs a handshake in memory, and on until tickets have arrived.
#[expect(
    clippy::unwrap_in_result,
    reason = "an error is the refusal that a test asks about; all else fails it"
)]
pub(crate) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &'static str,
) -> Result<(ClientConnection, ServerConnection), Failed> {
    let mut client = ClientConnection::new(Arc::clone(client), name.try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        if let Err(error) = server.process_new_packets() {
            return Err(Failed::AtServer(Box::new(error)));
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        if let Err(error) = client.process_new_packets() {
            return Err(Failed::AtClient(Box::new(error)));
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

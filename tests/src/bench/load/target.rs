//! Where the load connects to, and as whom.

use super::PATIENCE;
use anyhow::{Context as _, Result};
use edge_common::cert::store;
use edge_common::cert::tls::{
    CrlStore, PeerPolicy, PeerVerifier, Store, TrustStore, anonymous_dialer, dialer,
    mutual_listener,
};
use edge_common::config::{ClientEku, Revocation};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::handshake;
use edge_common::net::stream::{Stream, StreamOptions};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;

/// A TLS server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The name that its certificate proves; sent as SNI.
    pub name: String,
    /// Who has signed that.
    pub ca: PathBuf,
    /// What the load shows, on a listener that asks.
    pub own: Option<Own>,
}

/// A certificate of the load's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Own {
    /// The chain, PEM.
    pub chain: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// A [`Target`] with its files read.
#[derive(Clone)]
pub struct Dialer {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// Reads the files. No session is resumed: every handshake is a whole one.
    pub fn dialer(&self) -> Result<Dialer> {
        let verifier = verifier(&self.ca)?;
        let tls = match &self.own {
            Some(own) => dialer(own.store()?, verifier, &[]),
            None => anonymous_dialer(verifier, &[]),
        };
        Ok(Dialer {
            address: self.address,
            name: ServerName::try_from(self.name.clone()).context("the target's name")?,
            tls,
        })
    }
}

impl Own {
    fn store(&self) -> Result<Arc<Store>> {
        let chain = store::read_chain(&self.chain).with_context(|| format!("{:?}", self.chain))?;
        let key = store::read_key(&self.key).with_context(|| format!("{:?}", self.key))?;
        Store::of(chain, &key).context("a certificate of the load")
    }

    /// The configuration of a server that asks for certificates of `ca`.
    pub fn listener(&self, ca: &std::path::Path) -> Result<Arc<ServerConfig>> {
        Ok(mutual_listener(self.store()?, verifier(ca)?, &[]))
    }
}

impl Dialer {
    /// Connects and shakes hands.
    pub async fn connect(&self, core: &CoreContext) -> Result<Stream> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let stream = Stream::new(core, tcp, self.address, StreamOptions::default());
        handshake::client(&stream, Arc::clone(&self.tls), self.name.clone(), PATIENCE).await?;
        Ok(stream)
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn verifier(ca: &std::path::Path) -> Result<Arc<PeerVerifier>> {
    let trust = TrustStore::from_pem_file(ca).context("the authority")?;
    let policy = PeerPolicy {
        client_eku: ClientEku::ClientOrServer,
        revocation: Revocation::Off,
    };
    Ok(PeerVerifier::new(trust, policy, CrlStore::empty()))
}

//! `edge-join`: the way out for a client whose own protocol cannot carry a number.
//!
//! ```text
//!   ssh, vncviewer, curl ── TCP ──► edge-join ── TLS, `EWC1 TOKEN` ──► edge ──► agent ──► the service
//!                                   on loopback
//! ```
//!
//! It runs where the client runs. What the client says goes through unchanged; the service's own login, certificate and
//! host key are between the two of them.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use edge_common::cert::tls::{self, CrlStore, PeerPolicy, PeerVerifier, TrustStore};
use edge_common::config::{ClientEku, Revocation};
use edge_common::host_name::HostPort;
use edge_common::join_token::TOKEN_LEN_MAX;
use edge_common::net::bind::{Bind, TcpOptions};
use edge_common::net::core_runtime::CoreContext;
use edge_common::net::dial::{Dial, DialTls};
use edge_common::net::stream::Stream;
use edge_common::private_file;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::preface;
use crate::relay::RelayLimits;
use crate::relay::pump::{Pump, PumpEnd, Start};

/// Where to, and with what.
#[derive(Clone, Debug)]
pub struct Join {
    /// The edge, whose certificate has to prove this name.
    pub edge: HostPort,
    /// Where the edge is; its name is looked up without it.
    pub address: Option<IpAddr>,
    /// Who may have issued its certificate; the system's authorities without it.
    pub ca: Option<PathBuf>,
    /// Each connection shows one.
    pub token: TokenSource,
}

/// Where tokens come from.
#[derive(Clone)]
pub enum TokenSource {
    /// This one, for as often as it is good.
    Given(String),
    /// This file, read for each connection.
    File(PathBuf),
    /// What this command prints, run by the shell for each connection.
    Command(String),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(..)"),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Command(_) => f.write_str("Command(..)"),
        }
    }
}

/// A way out that is set up.
#[derive(Debug)]
pub struct Way {
    core: CoreContext,
    join: Join,
    tls: DialTls,
    room: Arc<Semaphore>,
}

impl Way {
    /// Loads whom to believe.
    pub fn new(core: CoreContext, join: Join) -> anyhow::Result<Rc<Self>> {
        let trust = match &join.ca {
            Some(file) => TrustStore::from_pem_file(file)?,
            None => TrustStore::system()?,
        };
        let policy = PeerPolicy {
            client_eku: ClientEku::ClientOrServer,
            revocation: Revocation::Off,
        };
        let verifier = PeerVerifier::new(trust, policy, CrlStore::empty());
        let tls = DialTls {
            config: tls::anonymous_dialer(verifier, &[]),
            name: ServerName::try_from(join.edge.host.as_str().to_owned())?,
        };
        Ok(Rc::new(Self {
            core,
            join,
            tls,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }))
    }

    /// Takes connections until the listener breaks; at most so many at once, the others wait in the kernel.
    pub async fn serve(self: Rc<Self>, listener: TcpListener) -> anyhow::Result<()> {
        loop {
            let permit = Arc::clone(&self.room).acquire_owned().await?;
            let (local, remote) = listener.accept().await?;
            let way = Rc::clone(&self);
            self.core.spawn(async move {
                match way.carry(local, remote).await {
                    Ok(end) => tracing::info!(%remote, ?end, "connection ended"),
                    Err(error) => tracing::error!(%remote, "{error:#}"),
                }
                drop(permit);
            });
        }
    }

    /// One connection, from its token to its end.
    async fn carry(&self, local: TcpStream, remote: SocketAddr) -> anyhow::Result<PumpEnd> {
        local.set_nodelay(true)?;
        let options = LIMITS.stream_options();
        let local = Stream::new(&self.core, local, remote, options);
        let token = self.join.token.next().await?;
        let edge = self.dial().await?;
        edge.queue(&preface::line(&token))?;
        let pump = Pump::new(&local, &edge, LIMITS, |_, _| ());
        let end = pump.run(Start::default()).await;
        local.close();
        edge.close();
        Ok(end)
    }

    async fn dial(&self) -> anyhow::Result<Stream> {
        let HostPort { host, port } = &self.join.edge;
        let addresses: Vec<SocketAddr> = match self.join.address {
            Some(address) => vec![SocketAddr::new(address, *port)],
            None => {
                let what = || format!("cannot look up {host}");
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                found.with_context(what)?.collect()
            }
        };
        let mut last = anyhow::anyhow!("{host} has no address");
        for to in addresses {
            let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
            let dial = Dial {
                from: Bind::to(SocketAddr::new(any.parse()?, 0)),
                to,
                tls: Some(self.tls.clone()),
                connect_timeout: DIAL_TIMEOUT,
                handshake_timeout: DIAL_TIMEOUT,
                stream: LIMITS.stream_options(),
                tcp: TcpOptions::default(),
            };
            match dial.open(&self.core).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

impl TokenSource {
    /// The token of the next connection.
    async fn next(&self) -> anyhow::Result<String> {
        let text = match self {
            Self::Given(token) => token.clone(),
            Self::File(path) => from_file(path)?,
            Self::Command(command) => from_command(command.clone()).await?,
        };
        let token = text.trim();
        anyhow::ensure!(
            !token.is_empty() && token.len() <= TOKEN_LEN_MAX,
            "what should be a token has {} characters",
            token.len()
        );
        let line = preface::line(token);
        let is_line =
            matches!(preface::read(&line), preface::Step::Line { len, .. } if len == line.len());
        anyhow::ensure!(
            is_line,
            "what should be a token has characters that no token has"
        );
        Ok(token.to_owned())
    }
}

fn from_file(path: &Path) -> anyhow::Result<String> {
    let what = || path.display().to_string();
    let text = private_file::read(path, FILE_LEN_MAX).with_context(what)?;
    Ok(String::from_utf8(text.to_vec())?)
}

/// Beside the other connections, which go on meanwhile.
async fn from_command(command: String) -> anyhow::Result<String> {
    let run = move || -> io::Result<std::process::Output> {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.arg("-c").arg(command);
        shell.stdin(Stdio::null()).stderr(Stdio::inherit());
        shell.output()
    };
    let output = tokio::task::spawn_blocking(run).await??;
    let status = output.status;
    anyhow::ensure!(status.success(), "the token command ended with {status}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The edge has bounds of its own; these are only for one that is silent.
const LIMITS: RelayLimits = RelayLimits {
    buffer: 16 * 1024,
    idle_timeout: Duration::from_secs(5 * 3600),
    half_close_timeout: Duration::from_secs(60),
};
/// For TCP and for TLS.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
const FILE_LEN_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn next(source: TokenSource) -> anyhow::Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(source.next())
    }

    #[test]
    fn a_token_comes_from_where_it_was_said_and_is_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("token");
        std::fs::write(&file, "v1.a.b.c\n").expect("writes");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("sets the mode");
        let from = |source| next(source).map_err(|error| error.to_string());
        let token = Ok("v1.a.b.c".to_owned());
        assert_eq!(from(TokenSource::Given("v1.a.b.c".to_owned())), token);
        assert_eq!(from(TokenSource::File(file)), token);
        let command = |text: &str| TokenSource::Command(text.to_owned());
        assert_eq!(from(command("echo v1.a.b.c")), token);
        for wrong in ["false", "true", "echo 'a b'", "printf 'a\\r\\nb'", "echo é"] {
            assert!(from(command(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_does_not_show_in_what_is_printed() {
        let source = TokenSource::Given("v1.secret".to_owned());
        assert!(!format!("{source:?}").contains("secret"));
    }
}

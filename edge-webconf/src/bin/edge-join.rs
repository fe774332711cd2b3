//! `edge-join`, which runs next to a client outside.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser};
use edge_common::config::{LogFormat, LogLevel};
use edge_common::host_name::HostPort;
use edge_common::net::core_runtime::CoreContext;
use edge_common::observe::log;
use edge_webconf::join::{Join, TokenSource, Way};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Takes connections of any client on this host to a service behind a Web Conferencing Edge.
///
/// Give it a token, point the client to the local port, and log in as usual:
/// `edge-join --edge webconf.example.com:443 --listen 127.0.0.1:2222 --token-file token` and `ssh -p 2222 127.0.0.1`.
#[derive(Debug, Parser)]
#[command(name = "edge-join", version, max_term_width = 110)]
struct Cli {
    /// The edge, by the name that its certificate proves.
    #[arg(long, value_name = "NAME:PORT")]
    edge: HostPort,
    /// Where the edge is, if its name is not to be looked up.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Where clients on this host connect to; port 0 takes a free one, and the log says which.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Listen on an address that other hosts can reach: whoever connects there uses the token.
    #[arg(long)]
    for_other_hosts: bool,
    /// Who may have issued the edge's certificate; default: the system's authorities.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    token: Token,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Token {
    /// The token, by the environment: a command line can be seen by everybody on the host.
    #[arg(long, env = "EDGE_JOIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with a token, read for each connection.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A command that prints a fresh token for each connection.
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _log = log::init(LogLevel::Info, LogFormat::Auto);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let is_local = cli.listen.ip().is_loopback();
    anyhow::ensure!(
        is_local || cli.for_other_hosts,
        "{} can be reached by other hosts; --for-other-hosts says that this is meant",
        cli.listen
    );
    let token = match (
        cli.token.token,
        cli.token.token_file,
        cli.token.token_command,
    ) {
        (Some(token), ..) => TokenSource::Given(token),
        (None, Some(file), _) => TokenSource::File(file),
        (None, None, Some(command)) => TokenSource::Command(command),
        (None, None, None) => anyhow::bail!("there is no token"),
    };
    let join = Join {
        edge: cli.edge,
        address: cli.address,
        ca: cli.ca,
        token,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let way = Way::new(CoreContext::alone(), join)?;
        let what = || format!("cannot listen on {}", cli.listen);
        let listener = TcpListener::bind(cli.listen).await.with_context(what)?;
        tracing::info!(address = %listener.local_addr()?, "listening");
        way.serve(listener).await
    })
}

//! Asking a daemon of this host over its admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use edge_common::config::Config;
use edge_common::ports::Service;
use serde_json::Value;

use super::duration;
use crate::admin_client;

/// Where the daemon is, and for how long it is waited for.
#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// The admin socket, when it is not where the configuration says; one of another member that was brought here
    /// (`ssh -L`) will do.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How long to wait for an answer.
    #[arg(long, value_name = "TIME", default_value = "5 s", value_parser = duration)]
    timeout: Duration,
}

impl Daemon {
    /// The socket of `service`.
    pub(super) fn socket(
        &self,
        service: Service,
        load: impl FnOnce() -> anyhow::Result<Config>,
    ) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let directory = load()?.admin.directory;
        Ok(directory.join(service.daemon()).join("admin.sock"))
    }

    /// The result of one command.
    pub(super) fn ask(&self, socket: &Path, request: &Value) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(admin_client::ask(socket, request, self.timeout))?)
    }
}

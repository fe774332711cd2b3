//! The admin socket: one JSON object a line each way, on a unix socket that `edgectl` asks.
//!
//! ```text
//!   {"command":"status"}                 ─►  {"ok":true,"result":{…}}
//!   {"command":"log-level","filter":"debug"} ─► {"ok":false,"error":"this user may only read"}
//! ```
//!
//! Whoever may connect (mode 0660, the socket's group) may read. Changing takes root, the daemon's own user, or a user or
//! group that is named for it.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};

use crate::limit::Cap;
use crate::observe::metrics::Metrics;

/// What a command does to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It tells something.
    Read,
    /// It changes something.
    Change,
}

/// The commands of a daemon, by name.
#[derive(Clone, Default)]
pub struct Commands(BTreeMap<&'static str, Command>);

#[derive(Clone)]
struct Command {
    effect: Effect,
    run: Rc<dyn Fn(Value) -> Answer>,
}

/// A command's answer; the error is a sentence for the operator.
pub type Answer = Pin<Box<dyn Future<Output = Result<Value, String>>>>;

impl Commands {
    /// Adds a command; it is handed the whole request object.
    pub fn add<F, Fut>(&mut self, name: &'static str, effect: Effect, run: F)
    where
        F: Fn(Value) -> Fut + 'static,
        Fut: Future<Output = Result<Value, String>> + 'static,
    {
        let run = Rc::new(move |request| -> Answer { Box::pin(run(request)) });
        self.0.insert(name, Command { effect, run });
    }

    /// Takes over all commands of `others`.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Names and effects, for `help`.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, Effect)> {
        self.0.iter().map(|(&name, command)| (name, command.effect))
    }

    async fn answer(&self, line: &[u8], may_change: bool) -> Value {
        let request: Value = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return refusal(&format!("not JSON: {error}")),
        };
        let Some(name) = request.get("command").and_then(Value::as_str) else {
            return refusal("the request has no `command`");
        };
        let Some(command) = self.0.get(name) else {
            let known: Vec<_> = self.0.keys().copied().collect();
            return refusal(&format!(
                "no command `{name}`; there are {}",
                known.join(", ")
            ));
        };
        if command.effect == Effect::Change && !may_change {
            return refusal("this user may only read");
        }
        let run = (command.run)(request);
        match tokio::time::timeout(COMMAND_TIMEOUT, run).await {
            Ok(Ok(result)) => json!({ "ok": true, "result": result }),
            Ok(Err(error)) => refusal(&error),
            Err(_) => refusal("the daemon took too long"),
        }
    }
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Who, besides root and the daemon's own user, may change something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changers {
    /// User ids.
    pub users: Vec<u32>,
    /// Group ids; only a process's primary group counts.
    pub groups: Vec<u32>,
}

impl Changers {
    fn include(&self, peer: UCred) -> bool {
        let own = rustix::process::geteuid().as_raw();
        peer.uid() == 0
            || peer.uid() == own
            || self.users.contains(&peer.uid())
            || self.groups.contains(&peer.gid())
    }
}

/// The socket, open but not yet served.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Makes the socket. One that a dead daemon left is replaced; one that somebody answers is not.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another daemon answers there",
            ));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves for ever, on the current thread's `LocalSet`.
    pub async fn serve(self, commands: Commands, changers: Changers, metrics: &Metrics) {
        let cap = Cap::new("admin_connections", CONNECTIONS_MAX);
        let refused = metrics.counters(
            "admin_connections_refused",
            "Connections to the admin socket that were closed unread",
            ["reason"],
        );
        let too_many = refused.with(["connections"]);
        let commands = Rc::new(commands);
        loop {
            let peer = match self.listener.accept().await {
                Ok((peer, _)) => peer,
                Err(error) => {
                    tracing::warn!(%error, "the admin socket cannot accept");
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            let Some(permit) = cap.enter() else {
                too_many.inc();
                tracing::warn!(
                    open = CONNECTIONS_MAX,
                    "the admin socket has too many connections"
                );
                continue;
            };
            let may_change = peer.peer_cred().is_ok_and(|who| changers.include(who));
            let commands = Rc::clone(&commands);
            tokio::task::spawn_local(async move {
                let _permit = permit;
                if let Err(error) = converse(peer, &commands, may_change).await {
                    tracing::debug!(%error, "an admin connection failed");
                }
            });
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the admin socket was gone already");
        }
    }
}

/// Requests and answers in turn until the peer ends, is silent for long, or sends a line that is too long.
async fn converse(mut peer: UnixStream, commands: &Commands, may_change: bool) -> io::Result<()> {
    let (read, mut write) = peer.split();
    let mut lines = BufReader::new(read.take(0));
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.get_mut().set_limit(LINE_LEN_MAX);
        let read = lines.read_until(b'\n', &mut line);
        let Ok(len) = tokio::time::timeout(IDLE_TIMEOUT, read).await else {
            return Ok(());
        };
        if len? == 0 {
            return Ok(());
        }
        let too_long = line.len() as u64 >= LINE_LEN_MAX;
        let answer = if too_long {
            refusal("the request is too long")
        } else {
            commands.answer(&line, may_change).await
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
        if too_long {
            return Ok(());
        }
    }
}

fn refusal(error: &str) -> Value {
    json!({ "ok": false, "error": error })
}

const MODE: u32 = 0o660;
const CONNECTIONS_MAX: usize = 32;
const LINE_LEN_MAX: u64 = 64 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
const BACK_OFF: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_tls::on_a_core;

    #[test]
    fn commands_are_answered_one_line_each() {
        on_a_core(async |_core| {
            let directory = tempfile::tempdir().expect("directory");
            let path = directory.path().join("edge-test/admin.sock");
            let socket = AdminSocket::open(&path).expect("opens");
            let mode = fs::metadata(&path).expect("socket").permissions().mode();
            assert_eq!(mode & 0o777, 0o660);
            serve(socket);

            let answers = ask(&path, b"{\"command\":\"add\",\"a\":2,\"b\":3}\n{}\nhello\n").await;
            assert_eq!(answers[0], json!({ "ok": true, "result": 5 }));
            assert_eq!(answers[1]["error"], "the request has no `command`");
            assert!(
                answers[2]["error"]
                    .as_str()
                    .is_some_and(|e| e.starts_with("not JSON"))
            );
        });
    }

    #[test]
    fn a_second_daemon_does_not_take_a_live_socket_but_a_dead_one() {
        on_a_core(async |_core| {
            let directory = tempfile::tempdir().expect("directory");
            let path = directory.path().join("admin.sock");
            let first = AdminSocket::open(&path).expect("opens");
            let taken = AdminSocket::open(&path).expect_err("somebody answers");
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            // Dead: the file stays, nobody listens.
            drop(first);
            drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
            assert!(path.exists());
            AdminSocket::open(&path).expect("replaces it");
        });
    }

    #[test]
    fn reading_and_changing_are_told_apart() {
        on_a_core(async |_core| {
            let change = b"{\"command\":\"change\"}";
            assert_eq!(
                commands().answer(change, false).await,
                refusal("this user may only read")
            );
            let done = json!({ "ok": true, "result": null });
            assert_eq!(commands().answer(change, true).await, done);
            let read = commands()
                .answer(b"{\"command\":\"add\",\"a\":1,\"b\":1}", false)
                .await;
            assert_eq!(read["ok"], true);
            let unknown = commands().answer(b"{\"command\":\"destroy\"}", true).await;
            assert_eq!(
                unknown["error"],
                "no command `destroy`; there are add, change"
            );
        });
    }

    #[test]
    fn a_request_without_end_is_refused() {
        on_a_core(async |_core| {
            let directory = tempfile::tempdir().expect("directory");
            let path = directory.path().join("admin.sock");
            let socket = AdminSocket::open(&path).expect("opens");
            serve(socket);
            let endless = vec![b' '; LINE_LEN_MAX as usize];
            assert_eq!(
                ask(&path, &endless).await,
                [refusal("the request is too long")]
            );
        });
    }

    #[test]
    fn whoever_is_one_too_many_is_counted() {
        on_a_core(async |_core| {
            let directory = tempfile::tempdir().expect("directory");
            let path = directory.path().join("admin.sock");
            let socket = AdminSocket::open(&path).expect("opens");
            let metrics = serve(socket);
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                silent.push(UnixStream::connect(&path).await.expect("connects"));
            }
            let mut late = UnixStream::connect(&path).await.expect("connects");
            assert_eq!(late.read(&mut [0]).await.expect("an end"), 0);
            let refused = metrics.counters("admin_connections_refused", "", ["reason"]);
            assert_eq!(refused.with(["connections"]).get(), 1);
        });
    }

    fn serve(socket: AdminSocket) -> Metrics {
        let metrics = Metrics::new("test");
        let counted = metrics.clone();
        tokio::task::spawn_local(async move {
            socket
                .serve(commands(), Changers::default(), &counted)
                .await;
        });
        metrics
    }

    fn commands() -> Commands {
        let mut commands = Commands::default();
        commands.add("add", Effect::Read, |request: Value| async move {
            let number = |key: &str| request[key].as_i64().ok_or_else(|| format!("no `{key}`"));
            Ok(json!(number("a")? + number("b")?))
        });
        commands.add("change", Effect::Change, |_| async { Ok(Value::Null) });
        commands
    }

    async fn ask(path: &Path, request: &[u8]) -> Vec<Value> {
        let mut peer = UnixStream::connect(path).await.expect("connects");
        peer.write_all(request).await.expect("writes");
        peer.shutdown().await.expect("ends");
        let mut text = String::new();
        peer.read_to_string(&mut text).await.expect("answers");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

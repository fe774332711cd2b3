//! A whole daemon in its own process: it is asked, reloaded by signal, refuses a bad file, drains and ends.
#![cfg(feature = "io")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edge_common::config::{LogFormat, LogLevel};
use edge_common::net::bind::Bind;
use edge_common::net::core_runtime::Cores;
use edge_common::observe::admin::{Changers, Commands, Effect};
use edge_common::observe::http::Audience;
use edge_common::run::{Arguments, Fault, Frame, Loaded, Running, Service, Shared, run};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

/// The file's text is one word, and the daemon tells it.
struct Echo;

/// What the last reload brought; the test's window into the daemon.
static WORD: Mutex<String> = Mutex::new(String::new());
static DRAINED: AtomicUsize = AtomicUsize::new(0);

impl Service for Echo {
    type Config = (String, PathBuf);
    type Finding = String;

    const NAME: &'static str = "edge-echo";
    const METRICS: &'static str = "echo";

    fn load(arguments: &Arguments) -> Result<Loaded<Self>, Vec<String>> {
        let text = std::fs::read_to_string(&arguments.config).map_err(|e| vec![e.to_string()])?;
        if text.contains("bad") {
            return Err(vec!["EDGE-T0001: the word is bad".to_owned()]);
        }
        let directory = arguments.config.parent().expect("a file in a directory");
        Ok(((text, directory.to_owned()), Vec::new()))
    }

    fn frame((_, directory): &Self::Config) -> Frame {
        Frame {
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            admin: directory.join("admin.sock"),
            changers: Changers::default(),
            health: vec![(Bind::to(health()), Audience::Inside)],
            notice: Duration::from_millis(300),
            drain: Duration::from_secs(20),
        }
    }

    async fn start(
        (word, _): Self::Config,
        shared: &Shared,
    ) -> Result<Running<Self::Config>, Fault> {
        let listeners = shared.readiness.condition("listeners");
        set_word(word);
        let cores = Cores::start("edge-echo", 2, |core| async move {
            core.draining().await;
            DRAINED.fetch_add(1, Ordering::SeqCst);
        })?;
        let mut commands = Commands::default();
        commands.add("word", Effect::Read, |_| async { Ok(json!(word_now())) });
        listeners.set(true);
        Ok(Running {
            cores,
            reload: Box::new(|(word, _)| {
                set_word(word);
                Ok(())
            }),
            commands,
        })
    }
}

#[test]
fn a_daemon_lives_reloads_and_drains() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("edge.toml");
    let socket = directory.path().join("admin.sock");
    std::fs::write(&file, "first").expect("writes");
    let arguments = Arguments {
        config: file.clone(),
        node: None,
        check: false,
    };
    let daemon = std::thread::spawn(move || run::<Echo>(&arguments));
    wait_for("ready", || page("/readyz").starts_with("HTTP/1.1 200"));

    let status = ask(&socket, "status");
    assert_eq!(status["result"]["daemon"], "edge-echo");
    assert_eq!(status["result"]["conditions"]["listeners"], true);
    assert_eq!(ask(&socket, "word")["result"], "first");
    assert!(page("/livez").starts_with("HTTP/1.1 200"));

    std::fs::write(&file, "second").expect("writes");
    kill_process(getpid(), Signal::HUP).expect("signal");
    wait_for("reload", || word_now() == "second");

    std::fs::write(&file, "bad").expect("writes");
    let refused = ask(&socket, "reload");
    assert_eq!(refused["error"], "EDGE-T0001: the word is bad");
    assert_eq!(word_now(), "second");
    std::fs::write(&file, "third").expect("writes");
    assert_eq!(ask(&socket, "reload")["ok"], true);
    assert_eq!(word_now(), "third");

    kill_process(getpid(), Signal::TERM).expect("signal");
    let code = daemon.join().expect("no panic");
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(DRAINED.load(Ordering::SeqCst), 2);
    assert!(!socket.exists());
}

#[test]
fn a_check_says_what_is_wrong_and_starts_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let check = |text: &str| {
        let config = directory.path().join("checked.toml");
        std::fs::write(&config, text).expect("writes");
        let arguments = Arguments {
            config,
            node: None,
            check: true,
        };
        format!("{:?}", run::<Echo>(&arguments))
    };
    assert_eq!(check("good"), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(check("bad"), format!("{:?}", ExitCode::from(78)));
    assert!(!directory.path().join("admin.sock").exists());
}

fn set_word(word: String) {
    *WORD.lock().expect("not poisoned") = word;
}

fn word_now() -> String {
    WORD.lock().expect("not poisoned").clone()
}

/// One port for the test's process, free when it began.
fn health() -> SocketAddr {
    static PORT: Mutex<Option<u16>> = Mutex::new(None);
    let mut port = PORT.lock().expect("not poisoned");
    let port = *port.get_or_insert_with(|| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        free.local_addr().expect("bound").port()
    });
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn page(path: &str) -> String {
    let Ok(mut tcp) = TcpStream::connect(health()) else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
    let mut answer = String::new();
    let told = tcp
        .write_all(request.as_bytes())
        .and_then(|()| tcp.read_to_string(&mut answer));
    told.map(|_| answer).unwrap_or_default()
}

fn ask(socket: &Path, command: &str) -> Value {
    let mut peer = UnixStream::connect(socket).expect("connects");
    writeln!(peer, "{}", json!({ "command": command })).expect("writes");
    let mut line = String::new();
    BufReader::new(peer).read_line(&mut line).expect("answers");
    serde_json::from_str(&line).expect("JSON")
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what} never came"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

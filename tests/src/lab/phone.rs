//! A softphone (baresip 1.0.0, headless), driven over its `ctrl_tcp` module.

use super::netns::Netns;
use super::netstring::{self, Step};
use super::process::Process;
use super::{bounded, wav};
use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What a phone is and whom it talks to.
#[derive(Clone, Debug)]
pub struct Account {
    /// User part of the address.
    pub user: String,
    /// SIP domain.
    pub domain: String,
    /// Digest password.
    pub password: String,
    /// Where it sends everything, e.g. `sip:sip.contoso.test:443;transport=tls`.
    pub proxy: String,
    /// Whom a `message` goes to: `user@domain`.
    pub friend: String,
    /// The sine it plays in a call, in hertz.
    pub tone: u32,
    /// Name server, `address:53`.
    pub dns: String,
    /// Media relay, when calls are to go through one.
    pub relay: Option<Relay>,
}

/// A TURN server with credentials.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Host name or address; UDP port 3478.
    pub host: String,
    /// TURN user name.
    pub username: String,
    /// TURN password.
    pub password: String,
}

/// A running phone with its control connection.
pub struct Phone {
    /// Its user name, for messages.
    pub user: String,
    directory: PathBuf,
    process: Process,
    control: TcpStream,
    events: Receiver<Value>,
}

impl std::fmt::Debug for Phone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Phone")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Phone {
    /// Starts the phone in `netns`, and signs it in when that was answered with 200.
    pub fn sign_in(netns: &Netns, account: &Account, ca: &Path, work: &Path) -> Result<Self> {
        let mut phone = Self::start(netns, account, ca, work)?;
        phone.register(account)?;
        let answer = phone.wait_any(&["REGISTER_OK", "REGISTER_FAIL"], SIGN_IN_LIMIT)?;
        match answer.get("type").and_then(Value::as_str) {
            Some("REGISTER_OK") => Ok(phone),
            _ => bail!("{} could not sign in: {}", phone.user, param(&answer)),
        }
    }

    /// Starts the phone without an account: events are lost until somebody listens to them.
    pub fn start(netns: &Netns, account: &Account, ca: &Path, work: &Path) -> Result<Self> {
        let directory = work.join(format!("phone-{}", account.user));
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        fs::write(
            directory.join("config"),
            configuration(account, ca, &directory),
        )?;
        fs::write(
            directory.join("accounts"),
            "# the account comes over the control connection\n",
        )?;
        fs::write(
            directory.join("contacts"),
            format!("\"friend\" <sip:{}>\n", account.friend),
        )?;
        let mut command = netns.command("stdbuf");
        command
            .args(["-oL", "baresip", "-4", "-f"])
            .arg(&directory)
            .env("HOME", &directory);
        let log = directory.join("log");
        fs::create_dir_all(&log)?;
        let mut process = Process::start(&account.user, &mut command, &log)?;
        let control = process
            .wait_listening(netns, &[("tcp", "127.0.0.1:4444")])
            .and_then(|()| {
                netns
                    .within(|| {
                        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, CONTROL_PORT));
                        TcpStream::connect_timeout(&at, Duration::from_secs(2))
                    })?
                    .context("cannot reach the phone's control port")
            })?;
        let events = read_events(control.try_clone()?);
        Ok(Self {
            user: account.user.clone(),
            directory,
            process,
            control,
            events,
        })
    }

    /// Gives the phone its account, which makes it send REGISTER.
    pub fn register(&mut self, account: &Account) -> Result<()> {
        self.command("uanew", &account_line(account))
    }

    /// Sends one command without waiting for what comes of it.
    pub fn command(&mut self, command: &str, params: &str) -> Result<()> {
        let body = serde_json::json!({"command": command, "params": params, "token": "lab"});
        self.control
            .write_all(&netstring::emit(body.to_string().as_bytes()))
            .with_context(|| format!("{} takes no commands any more", self.user))
    }

    /// Waits for one of these events and returns it; other events are passed over.
    pub fn wait_any(&mut self, types: &[&str], limit: Duration) -> Result<Value> {
        let end = Instant::now() + limit;
        let mut seen = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    let kind = event
                        .get("type")
                        .and_then(Value::as_str)
                        .unwrap_or("response");
                    if types.contains(&kind) {
                        return Ok(event);
                    }
                    seen.push(format!("{kind} {}", param(&event)));
                }
                Err(RecvTimeoutError::Timeout) => bail!(
                    "{}: no {} within {limit:?}; it saw [{}] and said: {}",
                    self.user,
                    types.join(" or "),
                    seen.join(", "),
                    bounded::tail(self.log().trim(), 600)
                ),
                Err(RecvTimeoutError::Disconnected) => {
                    self.process.still_runs()?;
                    bail!("{}: the phone closed its control connection", self.user);
                }
            }
        }
    }

    /// Waits for one event.
    pub fn wait(&mut self, kind: &str, limit: Duration) -> Result<Value> {
        self.wait_any(&[kind], limit)
    }

    /// Waits until the phone's own log holds `text`.
    pub fn wait_logged(&mut self, text: &str, limit: Duration) -> Result<Duration> {
        let what = format!("{:?} in the log of {}", text, self.user);
        let waited = bounded::until(&what, limit, || {
            self.process.still_runs()?;
            Ok(self.log().contains(text))
        });
        waited.with_context(|| bounded::tail(self.log().trim(), 600).to_owned())
    }

    /// Everything the phone has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The sound that it received in its latest call.
    pub fn heard(&self) -> Result<wav::Recording> {
        let mut dumps: Vec<_> = fs::read_dir(&self.directory)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().ends_with("-dec.wav"))
            .collect();
        dumps.sort();
        let file = dumps
            .pop()
            .ok_or_else(|| anyhow!("{} recorded nothing", self.user))?;
        wav::read(&fs::read(&file)?).with_context(|| format!("{file:?}"))
    }

    /// RTP packets sent and received in its latest call, as the phone counted them itself.
    pub fn rtp_packets(&self) -> Result<(u64, u64)> {
        parse_packets(&self.log())
            .with_context(|| format!("{} printed no packet counts", self.user))
    }

    /// Signs out and ends.
    pub fn quit(mut self) -> Result<()> {
        self.command("quit", "")?;
        let ended = bounded::until("the phone's end", Duration::from_secs(8), || {
            Ok(self.process.still_runs().is_err())
        });
        ended
            .map(drop)
            .with_context(|| format!("{} does not quit", self.user))
    }
}

/// The text that an event carries: a reason, an address, a response.
#[must_use]
pub fn param(event: &Value) -> String {
    ["param", "data"]
        .iter()
        .find_map(|key| event.get(key).and_then(Value::as_str))
        .unwrap_or_default()
        .to_owned()
}

fn read_events(mut stream: TcpStream) -> Receiver<Value> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (mut pending, mut block) = (Vec::new(), vec![0; 16 * 1024]);
        while let Ok(len @ 1..) = stream.read(&mut block) {
            pending.extend_from_slice(&block[..len]);
            while let Step::Frame { body, len } = netstring::next(&pending) {
                let event = serde_json::from_slice(body).unwrap_or(Value::Null);
                pending.drain(..len);
                if sender.send(event).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// `packets:     251     251` in the summary that follows a call: sent, received.
fn parse_packets(log: &str) -> Option<(u64, u64)> {
    let line = log
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("packets:"))?;
    let mut counts = line.split_whitespace().map(str::parse);
    Some((counts.next()?.ok()?, counts.next()?.ok()?))
}

fn account_line(account: &Account) -> String {
    let Account {
        user,
        domain,
        password,
        proxy,
        ..
    } = account;
    let relay = account.relay.as_ref().map_or_else(String::new, |relay| {
        format!(
            ";medianat=turn;stunserver=\"turn:{}:3478\";stunuser={};stunpass={}",
            relay.host, relay.username, relay.password
        )
    });
    format!(
        "<sip:{user}@{domain};transport=tls>;auth_pass={password};outbound=\"{proxy}\";regint=300;\
         answermode=auto;audio_codecs=pcmu{relay}"
    )
}

/// `ausine` works with 48 kHz and two channels only; the phone converts to PCMU by itself.
fn configuration(account: &Account, ca: &Path, directory: &Path) -> String {
    let modules = [
        "module g711.so",
        "module ausine.so",
        "module sndfile.so",
        "module stdio.so",
        "module stun.so",
        "module turn.so",
        "module_tmp uuid.so",
        "module_tmp account.so",
        "module_app contact.so",
        "module_app menu.so",
        "module_app ctrl_tcp.so",
    ]
    .join("\n");
    format!(
        "poll_method epoll\nsip_listen 0.0.0.0:5060\nsip_cafile {ca}\ncall_local_timeout 120\n\
         call_max_calls 4\naudio_path /nonexistent\naudio_player none,nil\n\
         audio_source ausine,{tone}\naudio_alert none,nil\nausrc_srate 48000\nauplay_srate 8000\n\
         ausrc_channels 2\nauplay_channels 1\naudio_buffer 20-160\nrtp_ports 20000-29998\n\
         jitter_buffer_delay 1-5\nrtp_stats yes\nrtp_timeout 20\ndns_server {dns}\n\
         module_path /usr/lib/baresip/modules\n{modules}\nsnd_path {directory}\n\
         ctrl_tcp_listen 127.0.0.1:{CONTROL_PORT}\nringback_disabled yes\nstatmode_default off\n",
        ca = ca.display(),
        tone = account.tone,
        dns = account.dns,
        directory = directory.display(),
    )
}

const CONTROL_PORT: u16 = 4444;
const SIGN_IN_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_summary_counts() {
        let log = "packets:  1  2\nfoo\n packets:     251     250\nlost: 0 0\n";
        assert_eq!(parse_packets(log), Some((251, 250)));
        assert_eq!(parse_packets("packets: many"), None);
    }

    #[test]
    fn an_account_carries_relay_credentials_unquoted() {
        let account = Account {
            user: "alice".into(),
            domain: "contoso.test".into(),
            password: "pw".into(),
            proxy: "sip:p".into(),
            friend: "bob@contoso.test".into(),
            tone: 440,
            dns: "192.0.2.53:53".into(),
            relay: Some(Relay {
                host: "av.contoso.test".into(),
                username: "AA+/=".into(),
                password: "pp==".into(),
            }),
        };
        let line = account_line(&account);
        assert!(line.ends_with(";stunuser=AA+/=;stunpass=pp=="), "{line}");
    }
}

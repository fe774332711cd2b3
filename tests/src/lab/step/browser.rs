//! Step 1w: a JavaScript SIP phone in headless Chromium signs in over WebSocket and exchanges messages.
//!
//! The browser verifies the edge's certificate as it does on anybody's machine: the lab's authority stands in its own
//! store and no switch turns the verification off.

use crate::lab::bounded;
use crate::lab::phone::Phone;
use crate::lab::plan::CONTOSO;
use crate::lab::process::Process;
use crate::lab::report::{Report, Seen};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Shows step 1w.
pub fn show(world: &mut World, report: &mut Report) {
    let mut browser = None;
    report.check(
        "1w",
        "no WebSocket for a foreign page, nor from a browser that does not know the authority",
        || {
            let mut started = Browser::start(world)?;
            let refused = started.event("refused")?;
            browser = Some(started);
            refusals(&refused)
        },
    );
    report.check(
        "1w",
        "a JavaScript phone in Chromium signs in over WebSocket; messages go both ways",
        || match browser.take() {
            Some(browser) => messages(world, browser),
            None => bail!("not run: there is no browser"),
        },
    );
}

fn refusals(refused: &Value) -> Result<Seen> {
    let told = |key: &str| refused[key].as_str().unwrap_or_default().to_owned();
    // 1006: the browser tells a page nothing of why.
    for key in ["unknown", "foreign"] {
        if told(key) != "closed 1006" {
            bail!("the {key} page saw {:?}", told(key));
        }
    }
    Ok(Seen::text(format!(
        "both closed; Chromium {}",
        told("version")
    )))
}

fn messages(world: &World, mut browser: Browser) -> Result<Seen> {
    let bob = world.remote_account("bob", "alice@contoso.test", None)?;
    let ca = &world.public_ca.file;
    browser.event("registered")?;
    let mut bob = Phone::sign_in(&world.net.home_b, &bob, ca, &world.work)?;
    browser.says("go")?;
    let sent = browser.event("sent")?;
    if sent["status"] != 200 {
        bail!("the browser's MESSAGE was answered with {sent}");
    }
    bob.wait_logged(TO_BOB, PATIENCE)?;
    bob.command("message", TO_ALICE)?;
    let received = browser.event("received")?;
    if received["text"] != TO_ALICE {
        bail!("the browser received {received}");
    }
    let via = received["via"].as_str().unwrap_or_default();
    if !via.starts_with(&format!("SIP/2.0/WSS {}:443;", CONTOSO.public_name("sip"))) {
        bail!("the edge named another transport to the browser: {via}");
    }
    browser.event("done")?;
    bob.quit()?;
    Ok(Seen::text(
        "JsSIP and baresip each received the other's MESSAGE; verified certificate; signed off",
    ))
}

/// The program that drives Chromium.
struct Browser {
    process: Process,
}

impl Browser {
    fn start(world: &World) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/phone.mjs");
        let home = world.work.join("browser");
        let (trusting, doubting) = (home.join("trusting"), home.join("doubting"));
        trust(&trusting, &world.public_ca.file)?;
        fs::create_dir_all(&doubting)?;
        let alice = world.remote_account("alice", "bob@contoso.test", None)?;
        let plan = json!({
            "chromium": chromium()?,
            "wss": format!("wss://{}", CONTOSO.public_name("sip")),
            "user": alice.user, "password": alice.password, "domain": alice.domain,
            "peer": format!("sip:{}", alice.friend), "text": TO_BOB,
            "page": format!("https://phone.{}", CONTOSO.domain), "foreign": "https://phone.evil.test",
            "trusting": trusting, "doubting": doubting,
        });
        let mut command = world.net.home_a.command("node");
        command.arg(script).arg(plan.to_string());
        let process = Process::start("browser", &mut command, &home)?;
        Ok(Self { process })
    }

    /// Waits for one event.
    fn event(&mut self, kind: &str) -> Result<Value> {
        let mut found = None;
        let waited = bounded::until(&format!("{kind:?} from the browser"), PATIENCE, || {
            found = self.seen(kind);
            if found.is_none() {
                self.process.still_runs()?;
            }
            Ok(found.is_some())
        });
        waited.with_context(|| bounded::tail(self.process.log().trim(), 1500).to_owned())?;
        found.context("it was just there")
    }

    fn seen(&self, kind: &str) -> Option<Value> {
        let log = self.process.log();
        let mut events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find(|event| event["event"] == kind)
    }

    fn says(&mut self, line: &str) -> Result<()> {
        self.process.say(line)
    }
}

/// Puts an authority into the store that Chromium reads below its HOME.
fn trust(home: &Path, ca: &Path) -> Result<()> {
    let store = home.join(".pki/nssdb");
    fs::create_dir_all(&store)?;
    let database = format!("sql:{}", store.display());
    let certutil = |words: &[&str]| -> Result<()> {
        let mut command = Command::new("certutil");
        command.args(["-d", &database]).args(words);
        bounded::run(&mut command, PATIENCE)?
            .success("certutil")
            .map(drop)
    };
    certutil(&["-N", "--empty-password"])?;
    let ca = ca.to_str().context("a path in ASCII")?;
    certutil(&["-A", "-t", "C,,", "-n", "lab", "-i", ca])
}

/// Debian's browser; what a developer has under another name will do.
fn chromium() -> Result<PathBuf> {
    let known = ["/usr/bin/chromium", "/usr/bin/google-chrome"];
    let found = known.iter().map(PathBuf::from).find(|path| path.exists());
    found.context("chromium is not installed: run `make setup`")
}

const TO_BOB: &str = "hello from a browser";
const TO_ALICE: &str = "hello from a softphone";
/// A browser's start on a busy machine is what takes long.
const PATIENCE: Duration = Duration::from_secs(60);

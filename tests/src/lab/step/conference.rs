//! Step 4: a client outside joins a stream served inside with an admitted number; a client without
//! one gets nothing.

use crate::lab::bounded;
use crate::lab::conference::{Conference, random_file, sha256};
use crate::lab::plan::CONTOSO;
use crate::lab::report::{Report, Seen};
use crate::lab::tls_client::{self, Dial};
use crate::lab::world::World;
use anyhow::{Context as _, Result, bail};
use edge_common::ports::Service;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shows step 4, with `len` bytes each way; also that step 6's byte counts agree.
pub fn show(world: &mut World, report: &mut Report, len: usize) {
    let mut stage = match Stage::set(world, len) {
        Ok(stage) => stage,
        Err(error) => {
            report.check("4", "a conference stream with an admitted number", || {
                Err(error.context("not run: the conference server or its agent did not start"))
            });
            return;
        }
    };
    report.check("4", "a client without a number gets nothing", || {
        stage.stranger(world)
    });
    let moved = report.check("4", "a client with an admitted number, both ways", || {
        stage.admitted(world)
    });
    report.check(
        "4",
        "the same number does not let a second client in",
        || stage.again(world),
    );
    if moved {
        report.check("6", "relayed conference bytes equal the file sizes", || {
            stage.bytes(world)
        });
    }
    report.check("4", "the agent reloads and ends in order", || {
        stage.conference.end_agent()?;
        Ok(Seen::text("SIGHUP, SIGTERM, status 0"))
    });
}

struct Stage {
    conference: Conference,
    download: PathBuf,
    download_bytes: Vec<u8>,
    body: Vec<u8>,
    number: Option<String>,
    directory: PathBuf,
}

impl Stage {
    fn set(world: &World, len: usize) -> Result<Self> {
        let directory = world.work.join("streams");
        fs::create_dir_all(&directory)?;
        let download = directory.join("down");
        let download_bytes = random_file(&download, len)?;
        let body = random_file(&directory.join("body"), len)?;
        let conference = Conference::start(
            &CONTOSO,
            &world.net.inside_c,
            &world.inside_ca,
            &download,
            PREFACE_LEN + len,
            &world.work,
            world.contoso.trace(),
        )?;
        Ok(Self {
            conference,
            download,
            download_bytes,
            body,
            number: None,
            directory,
        })
    }

    fn stranger(&mut self, world: &World) -> Result<Seen> {
        let request = b"1234567890123456789\nlet me in\n";
        let host = &world.net.stranger;
        let answer = tls_client::exchange(host, &dial(world), request, Duration::from_secs(4))?;
        if !answer.is_empty() {
            bail!("{} bytes came back", answer.len());
        }
        let served = self.conference.received()?;
        if !served.is_empty() {
            bail!("the server inside was reached: {served:?}");
        }
        Ok(Seen::text(
            "0 bytes back, no connection at the server inside",
        ))
    }

    fn admitted(&mut self, world: &World) -> Result<Seen> {
        let number = bounded_admit(&mut self.conference)?;
        let mut upload = format!("{number}\n").into_bytes();
        if upload.len() != PREFACE_LEN {
            bail!("the number {number} has not 19 digits");
        }
        upload.extend_from_slice(&self.body);
        let (up, got) = (self.directory.join("up"), self.directory.join("got"));
        fs::write(&up, &upload)?;
        self.number = Some(number);
        tls_client::transfer(&world.net.stranger, &dial(world), &up, &got, TRANSFER_LIMIT)?;
        same("from the inside", &self.download, &got)?;
        let received = self.conference.received()?;
        let [received] = received.as_slice() else {
            bail!("the server inside served {} clients", received.len());
        };
        same("from the client", &up, received)?;
        Ok(Seen::bytes(
            format!(
                "{} up (SHA-256 {}…), {} down ({}…), both equal",
                upload.len(),
                &sha256(&upload)[..12],
                self.download_bytes.len(),
                &sha256(&self.download_bytes)[..12]
            ),
            u64::try_from(upload.len() + self.download_bytes.len())?,
        ))
    }

    fn again(&mut self, world: &World) -> Result<Seen> {
        let number = self
            .number
            .as_ref()
            .context("not run: no number was admitted")?;
        let request = format!("{number}\nonce more\n");
        let host = &world.net.stranger;
        let time = Duration::from_secs(4);
        let answer = tls_client::exchange(host, &dial(world), request.as_bytes(), time)?;
        if !answer.is_empty() || self.conference.received()?.len() != 1 {
            bail!(
                "{} bytes came back for a number that was used",
                answer.len()
            );
        }
        Ok(Seen::text("0 bytes back"))
    }

    fn bytes(&self, world: &World) -> Result<Seen> {
        let (up, down) = (PREFACE_LEN + self.body.len(), self.download_bytes.len());
        let page = world.contoso.metrics(Service::Webconf)?;
        let name = "edge_webconf_relayed_bytes_total";
        let (said_in, said_out) = (
            page.count(name, &[("direction", "in")])?,
            page.count(name, &[("direction", "out")])?,
        );
        if (said_in, said_out) != (u64::try_from(up)?, u64::try_from(down)?) {
            bail!(
                "the daemon says {said_in} in and {said_out} out, the files have {up} and {down}"
            );
        }
        Ok(Seen::bytes(
            format!("{said_in} in, {said_out} out"),
            said_in + said_out,
        ))
    }
}

fn bounded_admit(conference: &mut Conference) -> Result<String> {
    let mut number = None;
    // The agent answers only once an edge has acknowledged: it may still be connecting.
    let mut last = None;
    bounded::until("an admitted number", Duration::from_secs(10), || {
        match conference.admit() {
            Ok(digits) => number = Some(digits),
            Err(error) => last = Some(error),
        }
        Ok(number.is_some())
    })
    .map_err(|error| {
        last.take()
            .map_or(error, |cause| cause.context("no admitted number"))
    })?;
    number.context("no number")
}

fn dial(world: &World) -> Dial<'_> {
    Dial {
        address: CONTOSO.webconf,
        port: 443,
        name: WEBCONF_NAME,
        ca: &world.public_ca.file,
        pair: None,
    }
}

fn same(what: &str, sent: &Path, arrived: &Path) -> Result<()> {
    let (sent, arrived) = (fs::read(sent)?, fs::read(arrived)?);
    if sha256(&sent) != sha256(&arrived) {
        bail!(
            "{what}: sent {} bytes, {} arrived, not the same",
            sent.len(),
            arrived.len()
        );
    }
    Ok(())
}

/// Nineteen digits and a line end.
const PREFACE_LEN: usize = 20;
const WEBCONF_NAME: &str = "webconf.contoso.test";
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);

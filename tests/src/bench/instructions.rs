//! How many instructions the core of the Access Edge takes for a MESSAGE, counted by callgrind.
//!
//! Time on a shared machine says little; instructions are the same on a busy day. Each stage runs twice with different
//! numbers of messages, and the difference counts: what the start of the program costs falls out.
//!
//! ```text
//!   made        the request of this round is written
//!   parsed      made + framed, indexed, its fields read
//!   indexed     made + indexed
//!   spliced     indexed + the usual edits written
//!   requests    made + the whole way through the proxy, from outside to inside
//!   answers     requests + an answer is written
//!   exchanges   answers + its whole way back
//! ```

use crate::lab::bounded;
use anyhow::{Context as _, Result, bail};
use edge_access::proxy::flow::{Peer, Standing};
use edge_access::proxy::request::Request;
use edge_access::proxy::settings::Settings;
use edge_access::proxy::token::{FlowKey, Tokens};
use edge_access::proxy::{Output, Proxy};
use edge_common::config::check as check_config;
use edge_common::random::Seeded;
use edge_common::secret::{ArraySecret, Secrets};
use edge_common::sip::edit::Edits;
use edge_common::sip::framer::{Framer, Limits, Opener, Step};
use edge_common::sip::header::Name;
use edge_common::sip::message::Message;
use edge_common::sip::parse::Index;
use edge_common::time::{Now, UnixTime};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What [`check`] found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The table, with what is over its bound.
    pub text: String,
    /// Nothing is.
    pub all_within: bool,
}

/// Counts all stages and compares them with the bounds in `file`.
pub fn check(file: &Path) -> Result<Outcome> {
    let text = fs::read_to_string(file).with_context(|| format!("{file:?}"))?;
    let bounds: BTreeMap<String, u64> =
        toml::from_str(&text).with_context(|| format!("{file:?}"))?;
    let counts = Counts::take()?;
    let mut outcome = Outcome {
        text: format!("instructions for a MESSAGE of {LEN} bytes      counted    bound\n"),
        all_within: true,
    };
    for (name, what, count) in counts.rows() {
        let bound = *bounds
            .get(name)
            .with_context(|| format!("{file:?} has no bound for {name}"))?;
        let verdict = if count > bound {
            outcome.all_within = false;
            "OVER ITS BOUND"
        } else if count < bound / 4 * 3 {
            "well within: the bound may come down"
        } else {
            "ok"
        };
        writeln!(
            outcome.text,
            "{name:10} {what:36} {count:8} {bound:8}  {verdict}"
        )?;
    }
    if !outcome.all_within {
        write!(
            outcome.text,
            "\nThe core has become slower. `callgrind_annotate` shows where (valgrind --tool=callgrind edge-bench stage \
             exchanges 4000).\nIf it is worth it, raise the bound in {} and say in the commit what it buys.",
            file.display()
        )?;
    }
    Ok(outcome)
}

/// Instructions for one message.
struct Counts {
    parse: u64,
    emit: u64,
    request: u64,
    response: u64,
}

impl Counts {
    fn take() -> Result<Self> {
        let [made, parsed, indexed, spliced, requests, answers, exchanges] =
            STAGES.map(per_message);
        let made = made?;
        Ok(Self {
            parse: parsed?.saturating_sub(made),
            emit: spliced?.saturating_sub(indexed?),
            request: requests?.saturating_sub(made),
            response: exchanges?.saturating_sub(answers?),
        })
    }

    fn rows(&self) -> [(&'static str, &'static str, u64); 5] {
        let decide = self.request.saturating_sub(self.parse + self.emit);
        [
            ("parse", "frame, index, read the fields", self.parse),
            ("decide", "what is left of the request", decide),
            ("emit", "write the edited request", self.emit),
            ("request", "the whole way in", self.request),
            (
                "response",
                "the whole way back of its answer",
                self.response,
            ),
        ]
    }
}

fn per_message(stage: &str) -> Result<u64> {
    let few = total(stage, FEW)?;
    let many = total(stage, 2 * FEW)?;
    Ok(many.saturating_sub(few) / FEW as u64)
}

fn total(stage: &str, times: usize) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().context("cannot find this program's own file")?)
        .args(["stage", stage, &times.to_string()]);
    let done = bounded::run(&mut command, LIMIT)?.success("valgrind")?;
    let collected = done
        .stderr
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.with_context(|| format!("callgrind counted nothing: {}", done.stderr))
}

/// Runs one stage, under callgrind or not.
pub fn run_stage(name: &str, times: usize) -> Result<()> {
    if !STAGES.contains(&name) {
        bail!("there is no stage {name}");
    }
    let mut world = World::new()?;
    for number in 0..times {
        world.round(name, number)?;
    }
    Ok(())
}

/// A proxy with a client that is signed in and a connection to the inside.
struct World {
    proxy: Proxy,
    now: Now,
    client: FlowKey,
    inside: FlowKey,
    framer: Framer,
    index: Index,
    edits: Edits,
    /// The request, and where its number stands.
    request: Vec<u8>,
    numbers: Vec<usize>,
    answer: Vec<u8>,
    /// What left last.
    out: Vec<u8>,
}

impl World {
    fn new() -> Result<Self> {
        let (config, _) = check_config(EXAMPLE, Some("edge1"))
            .into_result()
            .map_err(|_| anyhow::anyhow!("the example is wrong"))?;
        let settings = Settings::of(&config, 1).context("the example has an Access Edge")?;
        let now = Now {
            mono: Instant::now(),
            unix: UnixTime::from_secs(1_790_000_000),
        };
        let secrets = Secrets::only(ArraySecret::generate(&mut Seeded::new(7)));
        let limits = Limits {
            head: settings.limits.head,
            body: settings.limits.client_body,
        };
        let index = Index::new(settings.limits.headers);
        let tokens = Arc::new(Tokens::new(&secrets));
        let mut proxy = Proxy::new(now, 0, Arc::new(settings), tokens, Box::new(Seeded::new(1)));
        let director = Peer::Inside {
            name: "director.contoso.internal".parse()?,
        };
        let inside = proxy.handle_open(now, address("10.10.0.50:5061")?, director);
        let inside = inside.context("an empty table has room")?;
        proxy.handle_next_hop(inside, 0);
        let client = Peer::Client(Standing::Promoted);
        let client = proxy.handle_open(now, address("203.0.113.77:50123")?, client);
        let request = request();
        Ok(Self {
            proxy,
            now,
            client: client.context("an empty table has room")?,
            inside,
            framer: Framer::new(Opener::Remote, limits),
            index,
            edits: Edits::new(),
            numbers: memchr::memmem::find_iter(&request, NUMBER).collect(),
            request,
            answer: Vec::new(),
            out: Vec::new(),
        })
    }

    fn round(&mut self, stage: &str, number: usize) -> Result<()> {
        self.make(number);
        match stage {
            "parsed" => self.parse(),
            "indexed" => self.index(),
            "spliced" => self.splice(),
            "requests" => self.pass_request(),
            "answers" => {
                self.pass_request()?;
                self.compose();
                Ok(())
            }
            "exchanges" => {
                self.pass_request()?;
                self.compose();
                self.pass_answer()
            }
            _ => Ok(()),
        }
    }

    /// Another request: its branch, its Call-ID and the time differ from the last one's.
    fn make(&mut self, number: usize) {
        let text = format!("{number:0width$}", width = NUMBER.len());
        for &at in &self.numbers {
            self.request[at..at + NUMBER.len()].copy_from_slice(text.as_bytes());
        }
        self.now = self.now.plus(Duration::from_micros(250));
        black_box(&self.request);
    }

    fn parse(&mut self) -> Result<()> {
        let step = self.framer.next(&self.request);
        let Ok(Step::Message { len }) = step else {
            bail!("no message: {step:?}");
        };
        let message = Message::parse(&self.request[..len], &mut self.index)?;
        let request = Request::read(message);
        black_box(request.is_ok());
        Ok(())
    }

    fn index(&mut self) -> Result<()> {
        let message = Message::parse(&self.request, &mut self.index)?;
        black_box(message.headers_start());
        Ok(())
    }

    /// The edits of a request that goes inside, with texts of their usual lengths.
    fn splice(&mut self) -> Result<()> {
        let message = Message::parse(&self.request, &mut self.index)?;
        let start = message.headers_start();
        let via = message.list(Name::Via).next().context("a Via")?.range().end;
        let hops = message.first(Name::MaxForwards).context("Max-Forwards")?;
        self.edits.clear();
        self.edits.replace(hops.value_range(), b"69");
        self.edits.insert(via, &[b'v'; 70]);
        self.edits.insert(start, &[b'V'; 125]);
        self.edits.insert(message.headers_end(), &[b'T'; 130]);
        self.out.clear();
        self.edits.write(&self.request, &mut self.out);
        black_box(&self.out);
        Ok(())
    }

    fn pass_request(&mut self) -> Result<()> {
        let step = self.framer.next(&self.request);
        let Ok(Step::Message { len }) = step else {
            bail!("no message: {step:?}");
        };
        if self
            .proxy
            .poll_timeout()
            .is_some_and(|at| at <= self.now.mono)
        {
            self.proxy.handle_timeout(self.now);
        }
        self.proxy
            .handle_message(self.now, self.client, &self.request[..len]);
        self.drain(self.inside)
    }

    fn pass_answer(&mut self) -> Result<()> {
        let step = self.framer.next(&self.answer);
        let Ok(Step::Message { len }) = step else {
            bail!("no message: {step:?}");
        };
        self.proxy
            .handle_message(self.now, self.inside, &self.answer[..len]);
        self.drain(self.client)
    }

    /// Takes all outputs; one message has to go to `to`.
    fn drain(&mut self, to: FlowKey) -> Result<()> {
        self.out.clear();
        while let Some(output) = self.proxy.poll_output() {
            if let Output::Transmit { flow, bytes } = &output
                && *flow == to
            {
                self.out.extend_from_slice(bytes);
            }
            black_box(&output);
        }
        if self.out.is_empty() {
            bail!("nothing went on");
        }
        Ok(())
    }

    /// 200 to what went inside, with its own header lines.
    fn compose(&mut self) {
        self.answer.clear();
        self.answer.extend_from_slice(b"SIP/2.0 200 OK\r\n");
        for line in self.out.split_inclusive(|&byte| byte == b'\n').skip(1) {
            if line == b"\r\n" {
                break;
            }
            if ECHOED.iter().any(|name| line.starts_with(name)) {
                self.answer.extend_from_slice(line);
            }
        }
        self.answer.extend_from_slice(ANSWER_END);
    }
}

/// A MESSAGE of [`LEN`] bytes as Communicator writes it.
fn request() -> Vec<u8> {
    let number = "00000000";
    let head = |len: usize| {
        format!(
            "MESSAGE sip:bob@contoso.test SIP/2.0\r\n\
             Via: SIP/2.0/TLS 192.0.2.7:50000;branch=z9hG4bK{number}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:alice@contoso.test>;tag=a1b2c3;epid=abb2cb12b77f\r\n\
             To: <sip:bob@contoso.test>;epid=0123456789\r\n\
             Call-ID: {number}8f2c41d09a7e\r\n\
             CSeq: 1 MESSAGE\r\n\
             Contact: <sip:alice@contoso.test;opaque=user:epid:MGUzMjQ3NTItZTFhYi01NmAA;gruu>\r\n\
             User-Agent: UCCAPI/3.5.6907.0\r\n\
             Content-Type: text/plain; charset=UTF-8\r\n\
             Content-Length: {len:03}\r\n\r\n"
        )
    };
    let body = LEN - head(0).len();
    let mut bytes = head(body).into_bytes();
    bytes.resize(LEN, b'x');
    bytes
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().context("an address with a port")
}

const STAGES: [&str; 7] = [
    "made",
    "parsed",
    "indexed",
    "spliced",
    "requests",
    "answers",
    "exchanges",
];
const EXAMPLE: &str = include_str!("../../../deploy/examples/single.toml");
const LEN: usize = 600;
const NUMBER: &[u8] = b"00000000";
const ECHOED: [&[u8]; 5] = [b"Via:", b"From:", b"To:", b"Call-ID:", b"CSeq:"];
const ANSWER_END: &[u8] = b"Content-Length: 0\r\n\r\n";
/// Enough that a table which grows by doubling weighs little.
const FEW: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_runs() {
        assert_eq!(request().len(), LEN);
        for stage in STAGES {
            run_stage(stage, 3).expect(stage);
        }
        assert!(run_stage("other", 1).is_err());
    }
}

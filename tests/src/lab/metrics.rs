//! What a daemon says of itself: its Prometheus page, scraped over HTTP from the inside.

use super::netns::Netns;
use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Page {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Page {
    /// Asks `address` for `/metrics` from inside `netns`.
    pub fn scrape(netns: &Netns, address: SocketAddr) -> Result<Self> {
        let (status, body) = get(netns, address, "/metrics")?;
        if status != 200 {
            bail!("GET http://{address}/metrics: status {status}");
        }
        Ok(Self::parse(&body))
    }

    /// Reads the text format; comments and what is no sample are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter_map(sample).collect();
        Self { samples }
    }

    /// The sum over all samples of `name` whose labels include `labels`; `None` if there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && sample.has(labels))
            .map(|sample| sample.value)
            .peekable();
        found.peek().copied().map(|_| found.sum())
    }

    /// Like [`Self::sum`], as a count; a daemon that has no such metric is an error.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole numbers far below 2^53"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        self.sum(name, labels)
            .map(|value| value as u64)
            .with_context(|| format!("no metric {name} with {labels:?}"))
    }

    /// The values of `label` on the samples of `name`, with their value.
    #[must_use]
    pub fn by_label(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        self.samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter_map(|sample| {
                let (_, value) = sample.labels.iter().find(|(key, _)| key == label)?;
                Some((value.clone(), sample.value))
            })
            .collect()
    }
}

impl Sample {
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(key, value)| self.labels.iter().any(|(k, v)| k == key && v == value))
    }
}

/// One GET; returns status and body.
pub fn get(netns: &Netns, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = netns
        .within(|| TcpStream::connect_timeout(&address, LIMIT))?
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_MAX)
        .read_to_end(&mut answer)
        .with_context(|| format!("GET {path}"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("{address} does not speak HTTP"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, value) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, value) = rest.rsplit_once('}')?;
            (name, labels, value)
        }
        None => {
            let (name, value) = line.split_once(' ')?;
            (name, "", value)
        }
    };
    let labels = labels
        .split("\",")
        .filter_map(|pair| {
            let (key, value) = pair.split_once("=\"")?;
            Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
        })
        .collect();
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

const LIMIT: Duration = Duration::from_secs(5);
const ANSWER_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_that_are_not_named() {
        let page = Page::parse(
            "# HELP x y\n# TYPE x counter\nx_total{side=\"external\",port=\"turn\"} 3\n\
             x_total{side=\"external\",port=\"relay\"} 4\nx_total{side=\"internal\",port=\"turn\"} 5\n\
             plain 7\n# EOF\n",
        );
        assert_eq!(page.count("x_total", &[("side", "external")]).ok(), Some(7));
        assert_eq!(page.count("x_total", &[("port", "turn")]).ok(), Some(8));
        assert_eq!(page.count("plain", &[]).ok(), Some(7));
        assert!(page.count("absent", &[]).is_err());
        assert!(page.count("x_total", &[("side", "up")]).is_err());
    }
}

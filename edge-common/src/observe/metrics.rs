//! Counters and gauges, cheap to count and bounded in their labels; written out in the OpenMetrics text format.
//!
//! Names are `edge_SERVICE_THING_UNIT`; the exporter adds `_total` to counters. Asking twice for a name gives the same
//! metric, so that several listeners can share one. A counter has a slot for each of a few threads, on cache
//! lines of their own: counting on two cores does not make them wait for each other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// All metrics of a daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<MetricsState>);

#[derive(Debug)]
struct MetricsState {
    prefix: String,
    families: Mutex<BTreeMap<String, Family>>,
}

impl Metrics {
    /// `service` is `access`, `webconf` or `av`: all names begin with `edge_SERVICE_`.
    #[must_use]
    pub fn new(service: &str) -> Self {
        Self(Arc::new(MetricsState {
            prefix: format!("edge_{service}"),
            families: Mutex::default(),
        }))
    }

    /// A counter without labels. `name` is without prefix and without `_total`.
    #[must_use]
    pub fn counter(&self, name: &str, help: &'static str) -> Counter {
        self.counters(name, help, []).with([])
    }

    /// Counters that are told apart by labels.
    #[must_use]
    pub fn counters<const N: usize>(
        &self,
        name: &str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Counters<N> {
        Counters(self.family(name, help, &labels, MetricType::Counter))
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &'static str) -> Gauge {
        self.gauges(name, help, []).with([])
    }

    /// Gauges that are told apart by labels.
    #[must_use]
    pub fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Gauges<N> {
        Gauges(self.family(name, help, &labels, MetricType::Gauge))
    }

    /// How long something took, counted by `bounds` in seconds, in ascending order; no labels.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &'static str, bounds: &'static [f64]) -> Histogram {
        let family = self.family(name, help, &[], MetricType::Histogram);
        match family.value(&[], || Value::Histogram(Histogram::new(bounds))) {
            Value::Histogram(histogram) => histogram,
            // The name is taken by another metric: a fault of ours that a test of the daemon's names shows.
            Value::Counter(_)
            | Value::Gauge(_)
            | Value::WatchedCounter(_)
            | Value::WatchedGauge(_) => Histogram::new(bounds),
        }
    }

    /// Everything, as `/metrics` gives it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut registry = Registry::with_prefix(&self.0.prefix);
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing to a String does not fail; if a value could not be encoded the scraper has to see it.
            Err(fmt::Error) => "# a metric could not be encoded\n".to_owned(),
        }
    }

    fn family(
        &self,
        name: &str,
        help: &'static str,
        labels: &[&'static str],
        kind: MetricType,
    ) -> Family {
        lock(&self.0.families)
            .entry(name.to_owned())
            .or_insert_with(|| {
                Family(Arc::new(FamilyState {
                    help,
                    labels: labels.into(),
                    kind,
                    values: Mutex::default(),
                }))
            })
            .clone()
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, family) in &*lock(&self.0.families) {
            let values = lock(&family.0.values);
            let metric = encoder.encode_descriptor(name, family.0.help, None, family.0.kind)?;
            family.0.encode(&values, metric)?;
        }
        Ok(())
    }
}

/// Counters of one name; each set of label values has its own.
#[derive(Clone, Debug)]
pub struct Counters<const N: usize>(Family);

impl<const N: usize> Counters<N> {
    /// The counter for these label values. It looks them up under a lock: keep the result where counting is
    /// frequent. Beyond 256 sets of values the rest are counted together as `other`.
    #[must_use]
    pub fn with(&self, values: [&str; N]) -> Counter {
        match self.0.value(&values, || Value::Counter(Counter::default())) {
            Value::Counter(counter) => counter,
            // The name is taken by a gauge: a fault of ours that a test of the daemon's names shows.
            Value::Gauge(_)
            | Value::Histogram(_)
            | Value::WatchedCounter(_)
            | Value::WatchedGauge(_) => Counter::default(),
        }
    }
}

impl<const N: usize> Counters<N> {
    /// A counter that something else keeps (a cap, a mailbox) and that is asked for at each scrape.
    pub fn watch(&self, values: [&str; N], read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0
            .watch(&values, Value::WatchedCounter(Watch(Arc::new(read))));
    }
}

/// Gauges of one name; each set of label values has its own.
#[derive(Clone, Debug)]
pub struct Gauges<const N: usize>(Family);

impl<const N: usize> Gauges<N> {
    /// The gauge for these label values; bounded like [`Counters::with`].
    #[must_use]
    pub fn with(&self, values: [&str; N]) -> Gauge {
        match self.0.value(&values, || Value::Gauge(Gauge::default())) {
            Value::Gauge(gauge) => gauge,
            Value::Counter(_)
            | Value::Histogram(_)
            | Value::WatchedCounter(_)
            | Value::WatchedGauge(_) => Gauge::default(),
        }
    }

    /// A gauge whose value is asked for at each scrape: the depth of a queue, the use of a table.
    pub fn watch(&self, values: [&str; N], read: impl Fn() -> i64 + Send + Sync + 'static) {
        self.0
            .watch(&values, Value::WatchedGauge(Watch(Arc::new(read))));
    }
}

/// Counts up. Clones are the same counter.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<[Slot; SLOTS]>);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0[thread_slot()].0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// What all threads have counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0
            .iter()
            .map(|slot| slot.0.load(Ordering::Relaxed))
            .sum()
    }
}

/// Goes up and down. Clones are the same gauge.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to it; a negative number takes away.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// Its value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took. Clones are the same histogram.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond.
    counts: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self(Arc::new(Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_micros: AtomicU64::new(0),
        }))
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = self.0.bounds.partition_point(|&bound| bound < seconds);
        if let Some(count) = self.0.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn encode(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        let counts = self.0.counts.iter().map(|it| it.load(Ordering::Relaxed));
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        metric.encode_histogram::<[(&str, &str); 0]>(sum, total, &buckets, None)
    }
}

#[derive(Clone, Debug)]
struct Family(Arc<FamilyState>);

#[derive(Debug)]
struct FamilyState {
    help: &'static str,
    labels: Box<[&'static str]>,
    kind: MetricType,
    values: Mutex<Values>,
}

type Values = BTreeMap<Vec<String>, Value>;

#[derive(Clone, Debug)]
enum Value {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    WatchedCounter(Watch<u64>),
    WatchedGauge(Watch<i64>),
}

#[derive(Clone)]
struct Watch<T>(Arc<dyn Fn() -> T + Send + Sync>);

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Family {
    fn value(&self, values: &[&str], new: impl FnOnce() -> Value) -> Value {
        let mut known = lock(&self.0.values);
        let mut key = key(values);
        if known.len() >= VALUES_MAX && !known.contains_key(&key) {
            key = vec!["other".to_owned(); values.len()];
        }
        known.entry(key).or_insert_with(new).clone()
    }

    fn watch(&self, values: &[&str], watch: Value) {
        let mut known = lock(&self.0.values);
        if known.len() < VALUES_MAX {
            known.insert(key(values), watch);
        }
    }
}

impl FamilyState {
    fn encode(&self, values: &Values, mut metric: MetricEncoder<'_>) -> fmt::Result {
        for (texts, value) in values {
            let labels: Vec<(&str, &str)> = self
                .labels
                .iter()
                .copied()
                .zip(texts.iter().map(String::as_str))
                .collect();
            if labels.is_empty() {
                value.encode(metric)?;
                // A family without labels has one value.
                return Ok(());
            }
            value.encode(metric.encode_family(&labels.as_slice())?)?;
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, metric: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(counter) => ConstCounter::new(counter.get()).encode(metric),
            Self::Gauge(gauge) => ConstGauge::new(gauge.get()).encode(metric),
            Self::Histogram(histogram) => histogram.encode(metric),
            Self::WatchedCounter(watch) => ConstCounter::new(watch.0()).encode(metric),
            Self::WatchedGauge(watch) => ConstGauge::new(watch.0()).encode(metric),
        }
    }
}

/// A counter's part for some of the threads, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(AtomicU64);

fn thread_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS);
    }
    MINE.get()
}

fn key(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

/// Nothing that holds these locks can leave a value half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// More cores than that share lines again, which costs speed and nothing else.
const SLOTS: usize = 8;
/// A label that a stranger could fill would else fill the memory.
const VALUES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_prefix_labels_and_totals() {
        let metrics = Metrics::new("access");
        metrics.counter("reloads", "Reloads").inc();
        let accepted = metrics.counters("connections_accepted", "Accepted", ["listener"]);
        accepted.with(["client"]).add(3);
        accepted.with(["federation"]).inc();
        metrics.gauge("draining", "Draining").set(1);
        metrics
            .gauges("connections", "Open", ["listener"])
            .watch(["client"], || 42);
        metrics
            .counters("mailbox_refused", "Refused", ["core"])
            .watch(["0"], || 7);
        insta::assert_snapshot!(metrics.text());
    }

    #[test]
    fn a_histogram_counts_below_its_bounds_and_beyond() {
        let metrics = Metrics::new("webconf");
        let lease = metrics.histogram("lease_seconds", "Lease", &[0.001, 0.01]);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 5_000_000] {
            lease.observe(Duration::from_micros(micros));
        }
        let text = metrics.text();
        for line in [
            "# TYPE edge_webconf_lease_seconds histogram",
            "edge_webconf_lease_seconds_sum 5.022002",
            "edge_webconf_lease_seconds_count 6",
            "edge_webconf_lease_seconds_bucket{le=\"0.001\"} 2",
            "edge_webconf_lease_seconds_bucket{le=\"0.01\"} 4",
            "edge_webconf_lease_seconds_bucket{le=\"+Inf\"} 6",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn one_name_is_one_metric() {
        let metrics = Metrics::new("av");
        let count = || metrics.counters("datagrams", "Datagrams", ["port", "side"]);
        count().with(["turn", "external"]).add(2);
        count().with(["turn", "external"]).add(3);
        assert_eq!(count().with(["turn", "external"]).get(), 5);
        assert_eq!(count().with(["turn", "internal"]).get(), 0);
    }

    #[test]
    fn threads_count_together() {
        let counter = Metrics::new("av").counter("things", "Things");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.get(), 40_000);
    }

    #[test]
    fn labels_do_not_grow_without_end() {
        let metrics = Metrics::new("access");
        let by_domain = metrics.counters("messages", "Messages", ["domain"]);
        for number in 0..1000 {
            by_domain.with([&format!("d{number}.test")]).inc();
        }
        assert_eq!(by_domain.with(["other"]).get(), 1000 - VALUES_MAX as u64);
        assert_eq!(
            metrics
                .text()
                .lines()
                .filter(|l| l.contains("domain="))
                .count(),
            VALUES_MAX + 1
        );
    }
}

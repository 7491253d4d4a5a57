//! Metrics as text for monitoring systems, in the format that Prometheus scrapes (version 0.0.4).
//!
//! The crate `prometheus-client` writes it; what it is given are snapshots, through a [`Collector`], since its own
//! counters, locked words each, are not for workers. Names get a prefix (`uthread_`), counters the ending `_total`,
//! times are in seconds. Of a histogram's buckets four are put together, which leaves one per power of two: a monitoring
//! system keeps each as a series of its own.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Histogram, Metric, MetricKind, MetricValue, Row, SchedStat, Stats, WorkerStat};

/// The text for one runtime: its figures, those of workers by their indices, and those of groups by their names.
pub(crate) fn prometheus(
    stats: Stats,
    workers: Vec<WorkerStat>,
    groups: impl Iterator<Item = (String, SchedStat)>,
) -> String {
    let mut by_name: BTreeMap<String, SchedStat> = BTreeMap::new();
    // Names need not differ, but series do.
    groups.for_each(|(name, stat)| by_name.entry(name).or_default().add(&stat));
    let mut registry = Registry::with_prefix("uthread");
    let workers = workers.into_iter().map(|worker| (worker.index.to_string(), worker)).collect();
    registry.register_collector(Box::new(Snapshot { stats, workers, groups: by_name }));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes all");
    text
}

#[derive(Debug)]
struct Snapshot {
    stats: Stats,
    workers: Vec<(String, WorkerStat)>,
    groups: BTreeMap<String, SchedStat>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let metrics: Vec<_> = self.stats.metrics().collect();
        for family in metrics.chunk_by(|(one, _), (next, _)| one.name == next.name) {
            let mut described = describe(&mut encoder, family[0].0)?;
            for (metric, value) in family {
                let labels = Vec::from_iter(metric.label);
                encode(metric.kind, value, described.encode_family(&labels)?)?;
            }
        }
        let workers = self.workers.iter().map(|(index, worker)| (index, worker));
        encode_each(WorkerStat::TABLE, "worker", workers, &mut encoder)?;
        encode_each(SchedStat::TABLE, "group", self.groups.iter(), &mut encoder)
    }
}

/// The metrics of each of several, told apart by the label with this key.
fn encode_each<'a, S: 'a>(
    table: &'static [Row<S>],
    key: &str,
    all: impl Iterator<Item = (&'a String, &'a S)> + Clone,
    encoder: &mut DescriptorEncoder,
) -> fmt::Result {
    for row in table {
        let mut described = describe(encoder, &row.metric)?;
        for (label, stat) in all.clone() {
            let (metric, value) = row.of(stat);
            encode(metric.kind, &value, described.encode_family(&[(key, label.as_str())])?)?;
        }
    }
    Ok(())
}

fn describe<'a>(
    encoder: &'a mut DescriptorEncoder,
    metric: &'a Metric,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    let kind = match metric.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    encoder.encode_descriptor(metric.name, metric.help, None, kind)
}

fn encode(kind: MetricKind, value: &MetricValue<'_>, encoder: MetricEncoder) -> fmt::Result {
    match (kind, *value) {
        (_, MetricValue::Histogram(times)) => encode_times(times, encoder),
        (MetricKind::Gauge, MetricValue::Number(n)) => ConstGauge::new(n).encode(encoder),
        (_, MetricValue::Number(n)) => ConstCounter::new(n).encode(encoder),
        (_, MetricValue::Time(time)) => ConstCounter::new(time.as_secs_f64()).encode(encoder),
    }
}

fn encode_times(times: &Histogram, mut encoder: MetricEncoder) -> fmt::Result {
    let buckets: Vec<_> = times.doublings().map(|(end, n)| (end.as_secs_f64(), n)).collect();
    encoder.encode_histogram::<NoLabelSet>(times.sum().as_secs_f64(), times.count(), &buckets, None)
}

//! What the service counts, as text for Prometheus, beside what the runtime counts.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Which requests.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Answered {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByRoute {
    route: &'static str,
}

/// What is looked up when somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// Requests under way.
    pub under_way: u64,
    /// Jobs in the queue.
    pub queued: u64,
    /// Lines of the log that were dropped.
    pub log_dropped: u64,
}

/// What the service counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    times: Family<ByRoute, Histogram>,
    shed: Counter,
    under_way: Gauge<u64, AtomicU64>,
    queued: Gauge<u64, AtomicU64>,
    log_dropped: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// Nothing, so far.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("backend");
        // From a millisecond to 16 seconds.
        let times = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let metrics = Metrics {
            requests: Family::default(),
            times: Family::new_with_constructor(times),
            shed: Counter::default(),
            under_way: Gauge::default(),
            queued: Gauge::default(),
            log_dropped: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests answered", metrics.requests.clone());
        let help = "Time from the arrival of a request to its answer";
        registry.register_with_unit("request_time", help, Unit::Seconds, metrics.times.clone());
        let help = "Requests turned away because too many were under way";
        registry.register("shed", help, metrics.shed.clone());
        registry.register("under_way", "Requests under way", metrics.under_way.clone());
        registry.register("jobs_queued", "Jobs in the queue", metrics.queued.clone());
        let help = "Lines of the log that were dropped so far";
        registry.register("log_dropped", help, metrics.log_dropped.clone());
        Metrics { registry, ..metrics }
    }

    /// Counts an answer.
    pub fn count(&self, route: &'static str, status: u16, time: Duration) {
        self.requests.get_or_create(&Answered { route, status }).inc();
        self.times.get_or_create(&ByRoute { route }).observe(time.as_secs_f64());
    }

    /// Counts a request that was turned away.
    pub fn count_shed(&self) {
        self.shed.inc();
    }

    /// Requests that were turned away.
    pub fn shed(&self) -> u64 {
        self.shed.get()
    }

    /// The runtime's figures and the service's.
    ///
    /// # Panics
    ///
    /// A string takes no more.
    pub fn text(&self, present: Present) -> String {
        self.under_way.set(present.under_way);
        self.queued.set(present.queued);
        self.log_dropped.set(present.log_dropped);
        let mut text = uthread::prometheus();
        prometheus_text::encode(&mut text, &self.registry).expect("a string takes all");
        text
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

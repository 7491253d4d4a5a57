//! Counters and histograms.
//!
//! **One table.** Each metric is declared once, in [`table`]: its name, its kind, where it is counted, and a sentence
//! that says what it is. From that come the words that are counted in ([`words`]), the snapshot that is given
//! out ([`Stats`]; of workers, [`WorkerStat`]; of groups and threads, [`SchedStat`]), their documentation and their text, and what
//! exporters see ([`Stats::metrics`]).
//!
//! **Cost.** Each worker counts for itself in plain memory words that it alone writes: no locked instruction and
//! no shared cache line on the way of a switch. Times come from the one reading of the clock that a switch takes
//! anyway. A reader sums up whenever it likes; since words are read one after the other while workers go on, sums may
//! differ by what happened meanwhile.
//!
//! - [`busy`]: how long workers were busy. - [`histogram`]: distributions of times. - `prometheus`: the text for
//!   monitoring systems.

mod busy;
mod histogram;
#[cfg(feature = "prometheus")]
mod prometheus;
mod table;
mod words;

use std::fmt;
use std::time::Duration;

use crate::context::pool;
use crate::worker::{Runtime, Worker};

pub use histogram::Histogram;
#[cfg(feature = "prometheus")]
pub(crate) use prometheus::prometheus;
pub use table::{OpLatency, SchedStat, Stats, WorkerStat};
pub(crate) use table::{RuntimeCounters, WorkerCounters};
pub(crate) use words::Counter;

/// What is known of a metric beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// What it is called, with its unit if it has one (`stack_reserved_bytes`).
    pub name: &'static str,
    /// What tells it from others of the same name, if there are any: key and value.
    pub label: Option<(&'static str, &'static str)>,
    /// How its values are to be understood.
    pub kind: MetricKind,
    /// A sentence that says what it is.
    pub help: &'static str,
}

/// How a [`Metric`]'s values are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It has only grown since the runtime's start.
    Counter,
    /// A state, which comes and goes.
    Gauge,
    /// How often times of which length were seen since the runtime's start.
    Histogram,
}

/// The value of a [`Metric`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum MetricValue<'a> {
    /// A number, in the unit that the name says.
    Number(u64),
    /// A time, whatever unit the name says.
    Time(Duration),
    /// A histogram.
    Histogram(&'a Histogram),
}

/// A metric, and where its value is in a snapshot.
struct Row<S> {
    metric: Metric,
    read: for<'a> fn(&'a S) -> MetricValue<'a>,
}

impl<S> Row<S> {
    fn of<'a>(&'static self, snapshot: &'a S) -> (&'static Metric, MetricValue<'a>) {
        (&self.metric, (self.read)(snapshot))
    }
}

/// What a snapshot consists of: it can be read, and subtracted from a later one.
trait Value: Copy {
    fn value<'a>(self) -> MetricValue<'a>;
    fn less(self, earlier: Self) -> Self;
}

impl Value for u64 {
    fn value<'a>(self) -> MetricValue<'a> {
        MetricValue::Number(self)
    }

    fn less(self, earlier: u64) -> u64 {
        self.saturating_sub(earlier)
    }
}

impl Value for Duration {
    fn value<'a>(self) -> MetricValue<'a> {
        MetricValue::Time(self)
    }

    fn less(self, earlier: Duration) -> Duration {
        self.saturating_sub(earlier)
    }
}

impl Stats {
    pub(crate) fn of(runtime: &Runtime) -> Stats {
        let mut stats = Stats::gauges(&Source { runtime, pools: pool::totals() });
        runtime.counters.add_to(&mut stats);
        runtime.workers().iter().for_each(|worker| worker.counters.add_to(&mut stats));
        stats
    }

    /// All metrics, one after the other, those of the same name together.
    ///
    /// # Examples
    ///
    /// ```
    /// use uthread::MetricValue;
    ///
    /// for (metric, value) in uthread::stats().metrics() {
    ///     match value {
    ///         MetricValue::Histogram(times) => println!("{}: {times:?}", metric.name),
    ///         value => println!("{}: {value:?} ({})", metric.name, metric.help),
    ///     }
    /// }
    /// ```
    pub fn metrics(&self) -> impl Iterator<Item = (&'static Metric, MetricValue<'_>)> {
        Stats::TABLE.iter().map(|row| row.of(self))
    }
}

impl SchedStat {
    /// All figures, one after the other.
    pub fn metrics(&self) -> impl Iterator<Item = (&'static Metric, MetricValue<'_>)> {
        SchedStat::TABLE.iter().map(|row| row.of(self))
    }
}

impl WorkerStat {
    pub(crate) fn of(worker: &Worker) -> WorkerStat {
        WorkerStat {
            index: worker.index(),
            os_thread: worker.os_thread(),
            queued: worker.queue_length() as u64,
            busy: worker.counters.busy.get(),
            switches: worker.counters.switches.get(),
            sleeps: worker.counters.sleeps.get(),
        }
    }

    /// All figures, one after the other.
    pub fn metrics(&self) -> impl Iterator<Item = (&'static Metric, MetricValue<'_>)> {
        WorkerStat::TABLE.iter().map(|row| row.of(self))
    }
}

/// Where gauges are read.
struct Source<'a> {
    runtime: &'a Runtime,
    pools: pool::Totals,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (metric, value) in self.metrics() {
            let name = match metric.label {
                None => metric.name.to_owned(),
                Some((_, value)) => format!("{value}_{}", metric.name),
            };
            match value {
                MetricValue::Number(number) => writeln!(f, "{name} {number}")?,
                MetricValue::Time(time) => writeln!(f, "{name} {}", time.as_secs_f64())?,
                MetricValue::Histogram(times) => {
                    let name = name.trim_end_matches("_seconds");
                    let mut line = |what: &str, time: Duration| {
                        writeln!(f, "{name}_{what} {}", time.as_nanos())
                    };
                    line("p50_ns", times.quantile(0.5))?;
                    line("p99_ns", times.quantile(0.99))?;
                    line("p999_ns", times.quantile(0.999))?;
                    writeln!(f, "{name}_count {}", times.count())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::reason::WaitReason;

    #[test]
    fn names_say_units_and_none_is_there_twice() {
        let stats = Stats::default();
        let (of_workers, of_groups) = (WorkerStat::default(), SchedStat::default());
        let of_each = of_workers.metrics().chain(of_groups.metrics());
        let all: Vec<_> = stats.metrics().chain(of_each).collect();
        for (i, (metric, value)) in all.iter().enumerate() {
            let is_time = matches!(value, MetricValue::Time(_) | MetricValue::Histogram(_));
            assert_eq!(metric.name.ends_with("_seconds"), is_time, "{metric:?}");
            assert!(metric.help.ends_with('.') && !metric.help.starts_with(' '), "{metric:?}");
            assert!(!metric.help.contains('['), "links mean nothing there: {metric:?}");
            let same = |(other, _): &&(&Metric, _)| {
                (other.name, other.label) == (metric.name, metric.label)
            };
            assert_eq!(all[i + 1..].iter().find(same), None);
        }
    }

    #[test]
    fn those_of_the_same_name_stand_together_and_are_of_one_kind() {
        let stats = Stats::default();
        let all: Vec<_> = stats.metrics().map(|(metric, _)| metric).collect();
        let of_ops: Vec<_> =
            all.chunk_by(|a, b| a.name == b.name).filter(|same| same.len() > 1).collect();
        assert_eq!(of_ops.len(), 1);
        assert!(
            of_ops[0]
                .iter()
                .all(|m| m.help == of_ops[0][0].help && m.kind == MetricKind::Histogram)
        );
        assert_eq!(of_ops[0].len(), WaitReason::OPERATIONS);
    }

    #[test]
    fn a_difference_has_counts_of_the_time_between_and_the_later_state() {
        let words = WorkerCounters::default();
        let mut earlier = Stats { threads_live: 7, ..Stats::default() };
        words.switches.step();
        words.run_delay.record(100);
        words.add_to(&mut earlier);
        words.switches.step();
        words.run_delay.record(1_000);
        words.op_latency(WaitReason::RecvMsg).record(50_000);
        let mut later = Stats { threads_live: 5, ..Stats::default() };
        words.add_to(&mut later);
        let between = later.since(&earlier);
        assert_eq!((between.switches, between.threads_live), (1, 5));
        assert_eq!((between.run_delay.count(), between.op_latency.recvmsg.count()), (1, 1));
        assert_eq!(between.run_delay.sum(), Duration::from_nanos(1_000));
        assert_eq!(earlier.since(&later).switches, 0, "saturates");
    }
}

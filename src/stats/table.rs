//! The table of all metrics.

use std::time::Duration;

use super::busy::Busy;
use super::histogram::Histogram;
use super::words::{Counter, SharedCounter, Times};
use super::{Metric, MetricKind, MetricValue, Row, Source, Value};
use crate::reason::{WaitReason, with_operations};

/// One row of the table.
macro_rules! row {
    ($kind:ident, $name:expr, $label:expr, $help:expr, $read:expr) => {
        Row {
            metric: Metric {
                name: $name,
                label: $label,
                kind: MetricKind::$kind,
                help: $help.trim_ascii(),
            },
            read: $read,
        }
    };
}

/// What is counted for each operation, by their numbers. On the heap: a worker is made on a stack, which may be small.
#[derive(Debug)]
struct OpTimes(Box<[Times]>);

impl Default for OpTimes {
    fn default() -> OpTimes {
        OpTimes((0..WaitReason::OPERATIONS).map(|_| Times::default()).collect())
    }
}

macro_rules! metrics {
    ({
        gauges($source:ident) { $($(#[doc = $gauge_doc:literal])+ $gauge:ident = $gauge_value:expr,)+ }
        counters of workers and outside { $($(#[doc = $both_doc:literal])+ $both:ident,)+ }
        counters of workers { $($(#[doc = $worker_doc:literal])+ $worker:ident,)+ }
        times of workers { $($(#[doc = $time_doc:literal])+ $time:ident: $clock:ident as $time_name:literal,)+ }
        counters of runtimes { $($(#[doc = $runtime_doc:literal])+ $runtime:ident,)+ }
        histograms { $($(#[doc = $times_doc:literal])+ $times:ident as $times_name:literal,)+ }
        histograms of operations { $(#[doc = $op_doc:literal])+ $ops:ident as $ops_name:literal }
    } $($kind:ident $op:ident,)+) => {
        /// What one worker counts.
        #[derive(Debug, Default)]
        pub(crate) struct WorkerCounters {
            $($(#[doc = $both_doc])+ pub(crate) $both: Counter,)+
            $($(#[doc = $worker_doc])+ pub(crate) $worker: Counter,)+
            $($(#[doc = $time_doc])+ pub(crate) $time: $clock,)+
            $($(#[doc = $times_doc])+ pub(crate) $times: Times,)+
            $ops: OpTimes,
        }

        impl WorkerCounters {
            /// How long ops of a kind took; it must be one of an operation.
            pub(crate) fn $ops(&self, kind: WaitReason) -> &Times {
                &self.$ops.0[kind as usize]
            }

            pub(super) fn add_to(&self, stats: &mut Stats) {
                $(stats.$both += self.$both.get();)+
                $(stats.$worker += self.$worker.get();)+
                $(stats.$time += self.$time.get();)+
                $(self.$times.add_to(&mut stats.$times);)+
                $(self.$ops(WaitReason::$kind).add_to(&mut stats.$ops.$op);)+
            }
        }

        /// What is counted once for a runtime, and what OS threads outside of it do.
        #[derive(Debug, Default)]
        pub(crate) struct RuntimeCounters {
            $($(#[doc = $both_doc])+ pub(crate) $both: SharedCounter,)+
            $($(#[doc = $runtime_doc])+ pub(crate) $runtime: SharedCounter,)+
        }

        impl RuntimeCounters {
            pub(super) fn add_to(&self, stats: &mut Stats) {
                $(stats.$both += self.$both.get();)+
                $(stats.$runtime += self.$runtime.get();)+
            }
        }

        /// Counts since a runtime's start, summed over its workers, its state, and that of the process's
        /// stacks. Made by [`stats`](fn@crate::stats) and [`Runtime::stats`](crate::Runtime::stats).
        ///
        /// `Display` writes one line for each, its name and its value; of a histogram, quantiles and number.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $gauge_doc])+ pub $gauge: u64,)+
            $($(#[doc = $both_doc])+ pub $both: u64,)+
            $($(#[doc = $worker_doc])+ pub $worker: u64,)+
            $($(#[doc = $time_doc])+ pub $time: Duration,)+
            $($(#[doc = $runtime_doc])+ pub $runtime: u64,)+
            $($(#[doc = $times_doc])+ pub $times: Histogram,)+
            $(#[doc = $op_doc])+
            pub $ops: OpLatency,
        }

        /// How long ops took, by what was asked of the kernel. Part of [`Stats`].
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct OpLatency {
            $(#[doc = concat!("Of `", stringify!($op), "`.")] pub $op: Histogram,)+
        }

        const OP_HELP: &str = concat!($($op_doc),+);

        impl Stats {
            pub(super) const TABLE: &[Row<Stats>] = &[
                $(row!(Gauge, stringify!($gauge), None, concat!($($gauge_doc),+), |s| s.$gauge.value()),)+
                $(row!(Counter, stringify!($both), None, concat!($($both_doc),+), |s| s.$both.value()),)+
                $(row!(Counter, stringify!($worker), None, concat!($($worker_doc),+), |s| s.$worker.value()),)+
                $(row!(Counter, $time_name, None, concat!($($time_doc),+), |s| s.$time.value()),)+
                $(row!(Counter, stringify!($runtime), None, concat!($($runtime_doc),+), |s| s.$runtime.value()),)+
                $(row!(Histogram, $times_name, None, concat!($($times_doc),+), |s| MetricValue::Histogram(&s.$times)),)+
                $(row!(
                    Histogram, $ops_name, Some(("op", stringify!($op))), OP_HELP,
                    |s| MetricValue::Histogram(&s.$ops.$op)
                ),)+
            ];

            pub(super) fn gauges($source: &Source<'_>) -> Stats {
                Stats { $($gauge: $gauge_value,)+ ..Stats::default() }
            }

            /// What was counted since an earlier reading of the same runtime's; states are those of this reading.
            ///
            /// # Examples
            ///
            /// ```
            /// let before = uthread::stats();
            /// uthread::spawn(uthread::yield_now).join().unwrap();
            /// let difference = uthread::stats().since(&before);
            /// assert_eq!((difference.spawned, difference.yields), (1, 1));
            /// ```
            #[must_use]
            pub fn since(&self, earlier: &Stats) -> Stats {
                Stats {
                    $($gauge: self.$gauge,)+
                    $($both: self.$both.less(earlier.$both),)+
                    $($worker: self.$worker.less(earlier.$worker),)+
                    $($time: self.$time.less(earlier.$time),)+
                    $($runtime: self.$runtime.less(earlier.$runtime),)+
                    $($times: self.$times.since(&earlier.$times),)+
                    $ops: OpLatency { $($op: self.$ops.$op.since(&earlier.$ops.$op),)+ },
                }
            }
        }
    };
}

with_operations!(metrics {
    gauges(of) {
        /// Workers of the runtime.
        workers = of.runtime.workers().len() as u64,
        /// Green threads that were created and have not ended.
        threads_live = of.runtime.live() as u64,
        /// Helpers of the runtime: OS threads for green threads that block in the kernel.
        helpers = of.runtime.helpers().count() as u64,
        /// Stacks cut from slabs so far, in the whole process.
        stacks_mapped = of.pools.mapped as u64,
        /// Stacks without an occupant that lie in the process's pools. Up to 128 more may lie with each worker that is
        /// not idle.
        stacks_pooled = of.pools.pooled as u64,
        /// Bytes of address space reserved for stacks in the whole process.
        stack_reserved_bytes = of.pools.reserved as u64,
    }
    counters of workers and outside {
        /// Green threads created, by threads of the runtime and from outside.
        spawned,
        /// Green threads made runnable again after a wait of any kind.
        wakeups,
        /// Green threads moved to a helper because they were blocked in the kernel, or queued behind one that was.
        helper_moves,
    }
    counters of workers {
        /// Green threads ended.
        finished,
        /// Times that a worker switched to a green thread.
        switches,
        /// Switches away from a green thread that yielded.
        yields,
        /// Switches away from a green thread that parked: joins and scopes included, I/O and sleep not.
        parks,
        /// Times that a worker took threads from another.
        steals,
        /// Green threads that a worker took from another.
        stolen,
        /// Times that a green thread began to run on another worker than before; the first time included.
        arrivals,
        /// Ticks: times that a worker's timer interrupted it.
        ticks,
        /// Switches away from a green thread that was interrupted.
        forced_switches,
        /// Interruptions put off because the thread was in a section without preemption, the runtime's own or
        /// one of `without_preemption`.
        deferred_disabled,
        /// Interruptions put off because the worker was between two threads, or on a signal handler's stack.
        deferred_elsewhere,
        /// Interruptions put off because the thread had blocked signals, or was in a signal handler.
        deferred_signals,
        /// Interruptions put off because the thread's stack had no room for its registers.
        deferred_stack,
        /// Calls of `blocking`, each of which moves its thread to a helper.
        blocking_calls,
        /// Calls of blocking functions of the C library that green threads made and that came to this crate instead, so
        /// that they could block no worker.
        interposed,
        /// Times that a worker had nothing to do and slept in the kernel.
        sleeps,
        /// Calls of `io_uring_enter`.
        ring_enters,
        /// Entries submitted to rings.
        submissions,
        /// Ops completed.
        completions,
    }
    times of workers {
        /// Time that workers were busy: that they did not sleep in the kernel. Time in the scheduler and in the kernel's
        /// network stack is in it, which no thread's run time has.
        busy: Busy as "busy_seconds",
    }
    counters of runtimes {
        /// Signals sent to a worker because a thread was woken from outside while a long turn went on.
        wake_signals,
        /// Signals sent to a worker or a helper by the monitor.
        monitor_signals,
        /// Stalls: times that a thread kept its worker from others for too long and could not be interrupted.
        stalls,
    }
    histograms {
        /// Time from a thread's being runnable to its running, for whatever reason it did not run.
        run_delay as "run_delay_seconds",
        /// Time from the end of a thread's wait to its running.
        wakeup_latency as "wakeup_latency_seconds",
        /// Length of turns: times that a worker ran one thread without a switch.
        slice_length as "slice_length_seconds",
    }
    histograms of operations {
        /// Time from the beginning of an op to its thread's being runnable, what it waited for included.
        op_latency as "op_latency_seconds"
    }
});

/// Figures of each of several: workers, threads, groups.
macro_rules! metrics_of_each {
    (
        $(#[doc = $about:literal])+
        $stat:ident
        who { $($(#[doc = $who_doc:literal])+ $who:ident: $who_type:ty,)* }
        gauges { $($(#[doc = $gauge_doc:literal])+ $gauge:ident: $gauge_type:ty as $gauge_name:literal,)* }
        counters { $($(#[doc = $doc:literal])+ $field:ident: $type:ty as $name:literal,)+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $stat {
            $($(#[doc = $who_doc])+ pub $who: $who_type,)*
            $($(#[doc = $gauge_doc])+ pub $gauge: $gauge_type,)*
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl $stat {
            pub(super) const TABLE: &[Row<$stat>] = &[
                $(row!(Gauge, $gauge_name, None, concat!($($gauge_doc),+), |s| s.$gauge.value()),)*
                $(row!(Counter, $name, None, concat!($($doc),+), |s| s.$field.value()),)+
            ];

            /// What was counted since an earlier reading of the same; states are those of this reading.
            #[must_use]
            pub fn since(&self, earlier: &$stat) -> $stat {
                $stat {
                    $($who: self.$who,)*
                    $($gauge: self.$gauge,)*
                    $($field: self.$field.less(earlier.$field),)+
                }
            }

            /// Adds what another one has used.
            #[cfg(feature = "prometheus")]
            #[allow(dead_code, reason = "nobody sums up workers: Stats has their sums")]
            pub(super) fn add(&mut self, other: &$stat) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

metrics_of_each! {
    /// What a worker does. Made by [`Runtime::workers`](crate::Runtime::workers).
    WorkerStat
    who {
        /// Its place among the workers of the runtime.
        index: usize,
        /// The kernel's id of its OS thread: what gettid(2) says there, `top -H` shows, and `/proc/self/task` lists. 0 until
        /// it has started.
        os_thread: u32,
    }
    gauges {
        /// Threads that wait there for their turns.
        queued: u64 as "worker_queued",
    }
    counters {
        /// Time that the worker was busy: that it did not sleep in the kernel. If nothing else wants its core, this is the
        /// CPU time that the kernel counts for its OS thread; else it may be more.
        busy: Duration as "worker_busy_seconds",
        /// Times that the worker switched to a green thread.
        switches: u64 as "worker_switches",
        /// Times that the worker had nothing to do and slept in the kernel.
        sleeps: u64 as "worker_sleeps",
    }
}

metrics_of_each! {
    /// What a thread or a group has used.
    ///
    /// As the kernel's schedstat, of a green thread ([`schedstat`](crate::schedstat)) or of a group
    /// ([`Group::stats`](crate::Group::stats)). Time that a thread spends on a helper, blocked in the kernel, is
    /// not in it; nor is what the kernel does for its I/O, which is the worker's ([`WorkerStat::busy`]).
    SchedStat
    who {}
    gauges {}
    counters {
        /// Time on workers.
        run_time: Duration as "group_run_time_seconds",
        /// Time runnable but waiting for a worker.
        run_delay: Duration as "group_run_delay_seconds",
        /// Turns begun.
        turns: u64 as "group_turns",
        /// Turns ended of the thread's own accord: it waited, yielded, or ended.
        voluntary_switches: u64 as "group_voluntary_switches",
        /// Turns ended by an interruption.
        forced_switches: u64 as "group_forced_switches",
        /// Times that a wait ended; of a group, those ended on a worker of the runtime.
        wakeups: u64 as "group_wakeups",
        /// Turns begun on another worker than the one before.
        migrations: u64 as "group_migrations",
        /// Time during which a cap kept the group from running; of groups only.
        throttled: Duration as "group_throttled_seconds",
    }
}

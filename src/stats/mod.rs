//! Counters.
//!
//! Each worker counts for itself in plain memory words that it alone writes: no locked instruction and
//! no shared cache line on the way of a switch. A reader sums up whenever it likes; since counters
//! are read one after the other while workers go on, sums may differ by what happened meanwhile.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::pool;
use crate::worker::Runtime;

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the writer may call it.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.set(self.0.load(Ordering::Relaxed) + n);
    }

    /// Sets; only the writer may call it.
    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads; anyone may.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What one worker counts.
        #[derive(Debug, Default)]
        pub(crate) struct WorkerCounters {
            $($(#[doc = $doc])+ pub(crate) $name: Counter,)+
        }

        impl WorkerCounters {
            fn add_to(&self, stats: &mut Stats) {
                $(stats.$name += self.$name.get();)+
            }
        }

        /// Counts since a runtime's start, summed over its workers, and the state of the process's
        /// stacks. Made by [`stats`](fn@crate::stats) and [`Runtime::stats`](crate::Runtime::stats).
        ///
        /// `Display` writes one line for each, its name and its value.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            /// Workers of the runtime.
            pub workers: u64,
            /// Green threads that were created and have not ended.
            pub threads_live: u64,
            /// Helpers of the runtime: OS threads for green threads that block in the kernel.
            pub helpers: u64,
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Stacks cut from slabs so far, in the whole process.
            pub stacks_mapped: u64,
            /// Stacks without an occupant that lie in the process's pools. (Up to 128 more may lie with
            /// each worker that is not idle.)
            pub stacks_pooled: u64,
            /// Bytes of address space reserved for stacks in the whole process.
            pub stack_reserved_bytes: u64,
        }

        impl fmt::Display for Stats {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut line = |name: &str, value: u64| writeln!(f, "{name} {value}");
                line("workers", self.workers)?;
                line("threads_live", self.threads_live)?;
                line("helpers", self.helpers)?;
                $(line(stringify!($name), self.$name)?;)+
                line("stacks_mapped", self.stacks_mapped)?;
                line("stacks_pooled", self.stacks_pooled)?;
                line("stack_reserved_bytes", self.stack_reserved_bytes)
            }
        }
    };
}

counters! {
    /// Green threads created, by threads of the runtime and from outside.
    spawned,
    /// Green threads ended.
    finished,
    /// Times that a worker switched to a green thread.
    switches,
    /// Switches away from a green thread that yielded.
    yields,
    /// Switches away from a green thread that parked: joins and scopes included, I/O and sleep not.
    parks,
    /// Green threads made runnable again after a wait of any kind.
    wakeups,
    /// Times that a worker took threads from another.
    steals,
    /// Green threads so taken.
    stolen,
    /// Times that a green thread began to run on another worker than before; the first time included.
    arrivals,
    /// Ticks: times that a worker's timer interrupted it.
    ticks,
    /// Switches away from a green thread that was interrupted.
    forced_switches,
    /// Interruptions put off because the thread was in a section without preemption, the runtime's own or
    /// one of [`without_preemption`](crate::without_preemption).
    deferred_disabled,
    /// Interruptions put off because the worker was between two threads, or on a signal handler's stack.
    deferred_elsewhere,
    /// Interruptions put off because the thread had blocked signals, or was in a signal handler.
    deferred_signals,
    /// Interruptions put off because the thread's stack had no room for its registers.
    deferred_stack,
    /// Signals sent to a worker because a thread was woken from outside while a long turn went on.
    wake_signals,
    /// Signals sent to a worker or a helper by the monitor.
    monitor_signals,
    /// Green threads moved to a helper because they were blocked in the kernel, or queued behind one that was.
    helper_moves,
    /// Calls of [`blocking`](crate::blocking), each of which moves its thread to a helper.
    blocking_calls,
    /// Stalls: see [`Stall`](crate::Stall).
    stalls,
    /// Times that a worker had nothing to do and slept in the kernel.
    sleeps,
    /// Calls of `io_uring_enter`.
    ring_enters,
    /// Entries submitted to rings.
    submissions,
    /// Ops completed.
    completions,
}

impl Stats {
    pub(crate) fn of(runtime: &Runtime) -> Stats {
        let pools = pool::totals();
        let mut stats = Stats {
            workers: runtime.workers().len() as u64,
            threads_live: runtime.live() as u64,
            spawned: runtime.remote_spawns.load(Ordering::Relaxed),
            wakeups: runtime.remote_wakeups.load(Ordering::Relaxed),
            wake_signals: runtime.wake_signals.load(Ordering::Relaxed),
            monitor_signals: runtime.monitor_signals.load(Ordering::Relaxed),
            stalls: runtime.stalls.load(Ordering::Relaxed),
            helpers: runtime.helpers().count() as u64,
            stacks_mapped: pools.mapped as u64,
            stacks_pooled: pools.pooled as u64,
            stack_reserved_bytes: pools.reserved as u64,
            ..Stats::default()
        };
        for worker in runtime.workers() {
            worker.counters.add_to(&mut stats);
        }
        stats.helper_moves += runtime.reliefs.load(Ordering::Relaxed);
        stats
    }
}

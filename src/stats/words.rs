//! The words that are counted in.
//!
//! In a build with `--cfg uthread_bare`, which `cargo bench --bench instruments` makes to find out what
//! instrumentation costs, nothing is counted but what the runtime itself needs to know.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{BUCKETS, Histogram, bucket_of};

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the writer may call it.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        if !cfg!(uthread_bare) {
            self.set(self.get() + n);
        }
    }

    /// Counts one more, in a bare build, too: the runtime itself looks at it. Only the writer may call it.
    #[inline]
    pub(crate) fn step(&self) {
        self.set(self.get() + 1);
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

/// A counter that anyone may add to, which takes a locked instruction: for what is rare, or comes from OS threads
/// outside of the runtime.
#[derive(Debug, Default)]
pub(crate) struct SharedCounter(AtomicU64);

impl SharedCounter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of times, with one writer.
#[derive(Debug)]
pub(crate) struct Times {
    buckets: [Counter; BUCKETS],
    /// Nanoseconds.
    sum: Counter,
}

impl Default for Times {
    fn default() -> Times {
        Times { buckets: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

impl Times {
    /// Counts a time, in nanoseconds; only the writer may call it.
    #[inline]
    pub(crate) fn record(&self, time: u64) {
        if !cfg!(uthread_bare) {
            self.buckets[bucket_of(time)].add(1);
            self.sum.add(time);
        }
    }

    /// Adds what was counted to a snapshot.
    pub(super) fn add_to(&self, histogram: &mut Histogram) {
        histogram.add(self.buckets.iter().map(Counter::get), self.sum.get());
    }
}

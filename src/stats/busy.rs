//! How long a worker was busy.
//!
//! **Problem.** What threads have run for is not what a worker has worked for: under a server most of its time goes
//! by in the network stack, which the kernel runs within `io_uring_enter`, and some in the scheduler. The same call
//! is where a worker sleeps, so that the time spent in it says nothing; and in the kernel's clock of CPU time, which
//! knows, a reading is a system call, 0.2 µs, too dear for each of a hundred thousand waits in a second.
//!
//! **Choice.** A worker is busy while it does not wait in its ring; that takes only what the monotonic clock says when a
//! wait begins and ends. The work that was done within waits is added afterwards: at the end of a wait, if the
//! last time is [`SELDOM`] ago, the clock of CPU time is read, and if that has advanced by more, so does the busy
//! time. So it is the greater of two, over stretches of a millisecond: time outside of waits, and CPU time. Where no
//! other process wants the core, these differ by the work within waits only. Where one does, a worker
//! that waits for the core outside of its ring is busy, as the thread on it waits, too.
//!
//! **One word** says it all, so that a reader never sees half of a change. Its lowest bit tells how to read the others:
//!
//! | lowest bit | others | busy time |
//! |---|---|---|
//! | 0, awake | the time at which the busy time would have been 0, had the worker never waited | the present time less that |
//! | 1, waiting | the busy time when the wait began | that |
//!
//! A worker that goes to wait reads the clock before it changes the word; a reader who reads it in between sees a little
//! more than the word says afterwards. So readers remember the most that any of them has seen.
//!
//! Times are nanoseconds of the kernel's monotonic clock, not of the worker's own, which may be a little before it: a
//! busy time that went back by a nanosecond would be taken for a restart of the process by monitoring systems.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{now, thread_cpu_time};

/// Nanoseconds from one reading of the clock of CPU time to the next, at least: 0.2 µs per millisecond are nothing, and
/// nobody looks at busy times more finely.
const SELDOM: u64 = 1_000_000;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Busy {
    /// Written by the worker's OS thread, read by anyone.
    word: AtomicU64,
    /// The most that a reader has seen.
    seen: AtomicU64,
    // Owned by the worker's OS thread:
    /// When the clock of CPU time was read last.
    read_at: Cell<u64>,
    /// By how much the busy time was ahead of the CPU time then.
    ahead: Cell<u64>,
}

// SAFETY: of the cells, only the worker's OS thread makes use, as the functions require that do.
unsafe impl Sync for Busy {}

impl Default for Busy {
    fn default() -> Busy {
        Busy {
            word: AtomicU64::new(waiting(0)),
            seen: AtomicU64::new(0),
            read_at: Cell::new(0),
            ahead: Cell::new(0),
        }
    }
}

/// The word of a worker that is awake.
fn awake(zero: u64) -> u64 {
    zero << 1
}

/// The word of a worker that waits.
fn waiting(busy: u64) -> u64 {
    busy << 1 | 1
}

/// What a word says at a time when it is in force.
fn busy_time(word: u64, now: u64) -> u64 {
    if word & 1 == 0 { now.saturating_sub(word >> 1) } else { word >> 1 }
}

impl Busy {
    /// The worker waits from now on, or has ended. For the worker's OS thread, as the next.
    pub(crate) fn waits(&self) {
        if !cfg!(uthread_bare) {
            let busy = busy_time(self.word.load(Ordering::Relaxed), now());
            self.word.store(waiting(busy), Ordering::Release);
        }
    }

    /// The worker begins, or has waited.
    pub(crate) fn goes_on(&self) {
        if cfg!(uthread_bare) {
            return;
        }
        let now = now();
        let mut busy = busy_time(self.word.load(Ordering::Relaxed), now);
        if now.saturating_sub(self.read_at.get()) >= SELDOM {
            let used = thread_cpu_time();
            busy = busy.max(used + self.ahead.get());
            self.ahead.set(busy - used);
            self.read_at.set(now);
        }
        self.word.store(awake(now.saturating_sub(busy)), Ordering::Release);
    }

    /// The busy time up to now. Anyone may ask.
    ///
    /// If the word is the same before and after the clock is read, it was in force at that time: two stretches awake
    /// are told by different words, since the worker has waited in between.
    pub(crate) fn get(&self) -> Duration {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let now = now();
            let again = self.word.load(Ordering::Acquire);
            if word == again {
                let busy = busy_time(word, now);
                let before = self.seen.fetch_max(busy, Ordering::Relaxed);
                return Duration::from_nanos(busy.max(before));
            }
            word = again;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    fn spin(nanoseconds: u64) {
        let end = now() + nanoseconds;
        while now() < end {}
    }

    #[test]
    fn it_advances_while_the_worker_is_awake_and_not_while_it_waits() {
        let busy = Busy::default();
        assert_eq!(busy.get(), Duration::ZERO);
        busy.goes_on();
        let (before, began) = (busy.get(), now());
        spin(2_000_000);
        let between = busy.get() - before;
        assert!(between >= Duration::from_millis(2));
        assert!(between <= Duration::from_nanos(now() - began + 1_000));
        busy.waits();
        let asleep = busy.get();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(busy.get(), asleep);
        busy.goes_on();
        assert!(busy.get() - asleep < Duration::from_millis(4), "the sleep does not count");
    }

    #[test]
    fn work_within_a_wait_counts_as_soon_as_it_has_ended() {
        let busy = Busy::default();
        busy.goes_on();
        let before = thread_cpu_time();
        for _ in 0..5 {
            busy.waits();
            let asleep = busy.get();
            spin(2_000_000);
            assert_eq!(busy.get(), asleep);
            busy.goes_on();
        }
        let used = Duration::from_nanos(thread_cpu_time() - before);
        assert!(busy.get() >= used, "{:?} of {used:?}", busy.get());
    }

    #[test]
    fn a_reader_never_sees_it_go_back() {
        let (busy, over) = (Busy::default(), AtomicBool::new(false));
        std::thread::scope(|s| {
            s.spawn(|| {
                busy.goes_on();
                for _ in 0..100_000 {
                    busy.waits();
                    busy.goes_on();
                }
                over.store(true, Relaxed);
            });
            let mut last = Duration::ZERO;
            while !over.load(Relaxed) {
                let next = busy.get();
                assert!(next >= last, "{last:?} was followed by {next:?}");
                last = next;
            }
        });
    }
}

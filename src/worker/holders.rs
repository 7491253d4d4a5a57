//! Who makes a runtime's threads runnable from outside, and needs its memory for that.
//!
//! **Problem.** A thread that is queued may run, end, and be the last one that its runtime waited for, while the one that
//! has queued it still rings a worker's bell. A counted reference would keep the memory, but the last of them frees it; and
//! whoever wakes a thread may be a signal handler, which must not free anything (signal-safety(7)).
//!
//! **Choice.** They are counted, and the monitor, which has a reference, keeps it until there are none.
//!
//! **The argument.** Who holds the runtime says so before it gives away the thread that it owns; the thread ends after that,
//! and the monitor looks here when it has seen that all threads have ended. So it sees everybody, and nobody comes after
//! that. Sections are pinned, so that they are short.

use crate::atomic::{AtomicUsize, Ordering, yield_now};
use crate::preempt::pin::Pin;

/// Counts of those who hold a runtime.
pub(super) struct Holders(AtomicUsize);

/// Keeps a runtime.
pub(super) struct Held<'a> {
    holders: &'a Holders,
    // Its end may switch, which is after the drop of what it is in.
    _pin: Pin,
}

impl Holders {
    pub(super) fn new() -> Holders {
        Holders(AtomicUsize::new(0))
    }

    /// Keeps the runtime as long as the guard exists. For whoever owns one of its threads. Async-signal-safe.
    pub(super) fn hold(&self) -> Held<'_> {
        let pin = Pin::new();
        self.0.fetch_add(1, Ordering::Relaxed);
        Held { holders: self, _pin: pin }
    }

    /// Waits until nobody holds the runtime, all threads of which have ended.
    pub(super) fn await_none(&self) {
        // Acquire: what they have done with it is done.
        while self.0.load(Ordering::Acquire) > 0 {
            yield_now();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Afterwards there may be no runtime any more.
        self.holders.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    struct World {
        holders: Holders,
        /// Stands for the queue's lock, by which the thread is given away.
        queued: AtomicUsize,
        /// Threads that have not ended.
        live: AtomicUsize,
        /// Stands for the runtime's memory: used by holders, freed when there are none.
        memory: UnsafeCell<u32>,
    }

    #[test]
    fn whoever_queues_the_last_thread_is_done_before_the_runtime_is_freed() {
        loom::model(|| {
            let w = Arc::new(World {
                holders: Holders::new(),
                queued: AtomicUsize::new(0),
                live: AtomicUsize::new(1),
                memory: UnsafeCell::new(7),
            });
            let (waker, worker) = (w.clone(), w.clone());
            let waker = loom::thread::spawn(move || {
                let _held = waker.holders.hold();
                waker.queued.store(1, Ordering::Release);
                // It rings the worker's bell.
                // SAFETY: loom checks that nobody writes meanwhile.
                assert_eq!(waker.memory.with(|m| unsafe { *m }), 7);
            });
            let worker = loom::thread::spawn(move || {
                // Else it would look again.
                if worker.queued.load(Ordering::Acquire) == 1 {
                    worker.live.fetch_sub(1, Ordering::SeqCst);
                }
            });
            // The monitor; likewise.
            if w.live.load(Ordering::SeqCst) == 0 {
                w.holders.await_none();
                // SAFETY: as above, nobody reads.
                w.memory.with_mut(|m| unsafe { *m = 0 });
            }
            waker.join().unwrap();
            worker.join().unwrap();
        });
    }
}

//! A spin lock for a few instructions, as a kernel's run-queue lock.
//!
//! A worker's queue and timers are touched a few million times a second by their owner and now and
//! then by another worker. An uncontended acquisition is one atomic instruction; a lock-free deque would
//! need as many and could do less (take from the front, look at the length, move half). A mutex that
//! sleeps in the kernel would do so through thread-local storage, which the scheduler must not touch
//! between two green threads (see `worker`).
//!
//! What is done under the lock never blocks, never runs code of users, and never allocates. A holder must
//! not be interrupted, else all others would spin until it has its next turn: workers are not, and green
//! threads are pinned meanwhile ([`SpinLock::with_pinned`]), as a kernel's `spin_lock` disables preemption.

use crate::atomic::{AtomicBool, Ordering, UnsafeCell, spin_loop};
use crate::preempt::pin::Pin;

/// A value behind a spin lock.
pub(crate) struct SpinLock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives one thread at a time access to the value, which may be sent.
unsafe impl<T: Send> Sync for SpinLock<T> {}
// SAFETY: it owns the value.
unsafe impl<T: Send> Send for SpinLock<T> {}

impl<T> SpinLock<T> {
    #[cfg(not(loom))] // Loom's atomics cannot be made at compile time.
    pub(crate) const fn new(value: T) -> SpinLock<T> {
        SpinLock { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> SpinLock<T> {
        SpinLock { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Calls `f` with the value, alone. For green threads and OS threads of any kind.
    #[inline]
    pub(crate) fn with_pinned<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let _pin = Pin::new();
        self.with(f)
    }

    /// Calls `f` with the value, alone. For workers, and for threads that are pinned.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // Acquire pairs with the release below: what the last holder did is seen.
        if !self.try_acquire() {
            self.contend();
        }
        let _release = Release(&self.held);
        // SAFETY: this thread set `held`, so it is alone until the release.
        self.value.with_mut(|value| f(unsafe { &mut *value }))
    }

    /// Makes it a new one, whoever held it.
    ///
    /// # Safety
    ///
    /// No other thread exists that uses it: this is the child of a fork(2). The caller does not hold it.
    #[cfg(all(feature = "interpose", not(loom)))]
    pub(crate) unsafe fn reset(&self, value: T) {
        // SAFETY: nobody else uses it. What a thread that is no more may have left half-changed is not dropped.
        self.value.with_mut(|old| unsafe { old.write(value) });
        self.held.store(false, Ordering::Release);
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn contend(&self) {
        // The holder needs nanoseconds, unless the kernel took its processor away.
        const SPINS: u32 = 200;
        loop {
            for _ in 0..SPINS {
                spin_loop();
                // A load first leaves the cache line with the holder. (In a model, where a load may
                // return an old value for ever, only the exchange makes progress.)
                let seems_free = cfg!(loom) || !self.held.load(Ordering::Relaxed);
                if seems_free && self.try_acquire() {
                    return;
                }
            }
            // SAFETY: no preconditions. It never fails and so leaves errno alone.
            unsafe { libc::sched_yield() };
        }
    }
}

/// Unlocks, also when unwinding.
struct Release<'a>(&'a AtomicBool);

impl Drop for Release<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn holders_exclude_each_other_and_see_each_others_writes() {
        loom::model(|| {
            let lock = Arc::new(SpinLock::new(0));
            let other = lock.clone();
            let thread = loom::thread::spawn(move || other.with(|n| *n += 1));
            lock.with(|n| *n += 1);
            thread.join().unwrap();
            assert_eq!(lock.with(|n| *n), 2);
        });
    }
}

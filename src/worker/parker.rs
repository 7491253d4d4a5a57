//! The park word: how a thread waits for another without losing its wake-up.
//!
//! One word, three kinds of value:
//!
//! | value | meaning | who may change it, to what |
//! |---|---|---|
//! | `EMPTY` | nobody waits, nothing was announced | the waiter's committer, to a waiter; anyone, to `NOTIFIED` |
//! | `NOTIFIED` | announced, not yet seen | the waiter, to `EMPTY` |
//! | a waiter | it is parked | anyone, to `NOTIFIED`; a time-out, to `EMPTY` |
//!
//! There is one waiter at a time. Whoever replaces a waiter's value, and by the exchange that is
//! exactly one, owns it and must make it runnable.
//!
//! **No wake-up is lost.** Name the events: *C*, the compare-and-exchange from `EMPTY` to a waiter in
//! [`Parker::commit`], made by the worker after the waiter's context is saved; *N*, the exchange to
//! `NOTIFIED` in [`Parker::notify`]. Both are on one word, so one is first. If N is first, C finds
//! `NOTIFIED`, fails, and the worker lets the thread go on. If C is first, N gets the waiter and its
//! caller makes it runnable. There is no third order, and no other thread can be handed the waiter,
//! since N leaves no waiter behind.
//!
//! **What the notifier did before is seen after.** N releases; the waiter's `take` (or the failed C,
//! followed by `take`) acquires.
//!
//! **A context is saved before it runs elsewhere.** C releases after the save; N acquires before the
//! waiter is queued.

use crate::atomic::{AtomicUsize, Ordering};

/// See the module's documentation. A waiter is any value that is neither 0 nor 1.
#[derive(Debug)]
pub(crate) struct Parker {
    word: AtomicUsize,
}

const EMPTY: usize = 0;
const NOTIFIED: usize = 1;

impl Parker {
    #[inline]
    pub(crate) fn new() -> Parker {
        Parker { word: AtomicUsize::new(EMPTY) }
    }

    /// The waiter takes the announcement, if there is one. Not to be called while parked.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        // The load spares the exchange when there is nothing, the case before every wait.
        self.word.load(Ordering::Relaxed) == NOTIFIED
            && self.word.swap(EMPTY, Ordering::Acquire) == NOTIFIED
    }

    /// Parks a waiter, unless it was notified: then it must go on.
    #[inline]
    #[must_use = "a waiter that is not parked must go on"]
    pub(crate) fn commit(&self, waiter: usize) -> bool {
        debug_assert!(waiter != EMPTY && waiter != NOTIFIED, "a waiter is a pointer");
        self.word.compare_exchange(EMPTY, waiter, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Announces; the waiter that is now to be made runnable, if one was parked.
    #[inline]
    #[must_use = "a waiter that is handed out and not made runnable is lost"]
    pub(crate) fn notify(&self) -> Option<usize> {
        match self.word.swap(NOTIFIED, Ordering::AcqRel) {
            EMPTY | NOTIFIED => None,
            waiter => Some(waiter),
        }
    }

    /// Takes a waiter back whose time is up; false if it was notified first.
    #[must_use = "a waiter that is handed out and not made runnable is lost"]
    pub(crate) fn withdraw(&self, waiter: usize) -> bool {
        self.word.compare_exchange(waiter, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Whether that waiter is parked.
    pub(crate) fn holds(&self, waiter: usize) -> bool {
        self.word.load(Ordering::Acquire) == waiter
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn announcements_before_the_wait_are_one_announcement() {
        let p = Parker::new();
        assert_eq!((p.notify(), p.notify()), (None, None));
        assert!(!p.commit(8), "must go on");
        assert!(p.take() && !p.take());
        assert!(p.commit(8));
        assert_eq!(p.notify(), Some(8));
        assert!(p.take());
    }

    #[test]
    fn a_waiter_is_handed_out_once() {
        let p = Parker::new();
        assert!(p.commit(8));
        assert!(p.withdraw(8) && !p.withdraw(8));
        assert_eq!(p.notify(), None);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    const WAITER: usize = 64;

    struct Table {
        parker: Parker,
        data: UnsafeCell<u32>,
        /// Stands for the saved context: written before commit, read by who resumes.
        context: UnsafeCell<u32>,
    }

    // SAFETY: loom checks the accesses.
    unsafe impl Sync for Table {}
    // SAFETY: as above.
    unsafe impl Send for Table {}

    fn table() -> Arc<Table> {
        Arc::new(Table {
            parker: Parker::new(),
            data: UnsafeCell::new(0),
            context: UnsafeCell::new(0),
        })
    }

    #[test]
    fn either_the_wait_is_refused_or_the_waiter_is_handed_out() {
        loom::model(|| {
            let t = table();
            let notifier = t.clone();
            let thread = loom::thread::spawn(move || {
                // SAFETY: loom checks.
                notifier.data.with_mut(|d| unsafe { *d = 1 });
                let waiter = notifier.parker.notify();
                if waiter.is_some() {
                    // SAFETY: loom checks: the resumer sees the saved context.
                    notifier.context.with(|c| assert_eq!(unsafe { *c }, 7));
                }
                waiter.is_some()
            });
            // SAFETY: loom checks.
            t.context.with_mut(|c| unsafe { *c = 7 });
            let parked = t.parker.commit(WAITER);
            if !parked {
                // Nothing but the word synchronises here.
                assert!(t.parker.take());
                // SAFETY: loom checks.
                t.data.with(|d| assert_eq!(unsafe { *d }, 1));
                assert!(!thread.join().unwrap(), "woken without being parked");
                return;
            }
            let handed_out = thread.join().unwrap();
            assert_eq!(parked, handed_out, "parked and never woken, or woken without being parked");
            assert!(t.parker.take());
            // SAFETY: loom checks: what was done before the announcement is seen.
            t.data.with(|d| assert_eq!(unsafe { *d }, 1));
        });
    }

    #[test]
    fn of_two_notifiers_and_a_time_out_exactly_one_gets_the_waiter() {
        loom::model(|| {
            let t = table();
            assert!(t.parker.commit(WAITER));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let t = t.clone();
                    loom::thread::spawn(move || t.parker.notify().is_some())
                })
                .collect();
            let withdrawn = t.parker.withdraw(WAITER);
            let notified: Vec<bool> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            assert_eq!([withdrawn, notified[0], notified[1]].iter().filter(|w| **w).count(), 1);
            assert!(t.parker.take(), "the announcement stays even if the time-out won");
        });
    }
}

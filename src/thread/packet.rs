//! How a thread's result gets to who joins it.
//!
//! A packet is shared by the thread and its handle. Its state says whose the result is:
//!
//! | state | meaning | next |
//! |---|---|---|
//! | `RUNNING` | the result is the thread's to write | `DONE` by the thread, `DETACHED` by the handle's end |
//! | `DETACHED` | nobody will ask: the thread drops its result | `DONE` |
//! | `DONE` | the result is the handle's, or gone | – |
//!
//! As in `std`, whoever joins sees the thread's end complete: thread-local destructors run before the
//! result is published. That leaves one subtlety: a handle may go between the thread's check for
//! `DETACHED` and its publication; then the thread drops the result after its destructors, and runs the
//! destructors of what that drop may have made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Result;
use super::scope::ScopeData;
use crate::atomic::{AtomicU8, Ordering, UnsafeCell};
use crate::reason::WaitReason;
use crate::worker::parker::Parker;
use crate::worker::{self, finish_thread_locals};

const RUNNING: u8 = 0;
const DETACHED: u8 = 1;
const DONE: u8 = 2;

/// See the module's documentation.
pub(super) struct Packet<T> {
    state: AtomicU8,
    /// Where the handle waits.
    done: Parker,
    result: UnsafeCell<Option<Result<T>>>,
    scope: Option<Arc<ScopeData>>,
}

/// A thread that its scope waits for although it does not exist yet.
pub(super) struct Announced(Option<Arc<ScopeData>>);

impl Announced {
    /// It exists now, and will leave the scope itself.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(scope) = &self.0 {
            scope.leave(false);
        }
    }
}

// SAFETY: the state says who may access the result, and its changes synchronise. What is shared is a
// `T` that moves from one thread to another.
unsafe impl<T: Send> Sync for Packet<T> {}

impl<T> Packet<T> {
    pub(super) fn new(scope: Option<Arc<ScopeData>>) -> Packet<T> {
        Packet {
            state: AtomicU8::new(RUNNING),
            done: Parker::new(),
            result: UnsafeCell::new(None),
            scope,
        }
    }

    /// The thread is about to be created; unless that is kept, it was not.
    pub(super) fn announce(&self) -> Announced {
        if let Some(scope) = &self.scope {
            scope.enter();
        }
        Announced(self.scope.clone())
    }

    /// Called by the thread at its end.
    pub(super) fn finish(&self, result: Result<T>) {
        let panicked = result.is_err();
        // SAFETY: in RUNNING and DETACHED the result is this thread's.
        self.result.with_mut(|own| unsafe { *own = Some(result) });
        if self.state.load(Ordering::Acquire) == DETACHED {
            self.drop_result();
        }
        finish_thread_locals();
        let detached = self.state.swap(DONE, Ordering::AcqRel) == DETACHED;
        if detached {
            // Nobody else looks at the result: the handle is gone.
            self.drop_result();
            finish_thread_locals();
        }
        worker::notify(&self.done);
        if let Some(scope) = &self.scope {
            scope.leave(detached && panicked);
        }
    }

    /// Drops the result, if there is one, for good or for worse.
    ///
    /// The caller has exclusive access by the state.
    fn drop_result(&self) {
        // SAFETY: as the caller says.
        let result = self.result.with_mut(|own| unsafe { (*own).take() });
        // As `std` has it: there is nobody left to whom a second panic could be told.
        if catch_unwind(AssertUnwindSafe(|| drop(result))).is_err() {
            eprintln!("fatal runtime error: thread result panicked on drop, aborting");
            std::process::abort();
        }
    }

    /// Called by the handle: waits for the end and takes the result.
    pub(super) fn wait(&self) -> Result<T> {
        while !self.is_finished() {
            worker::wait(&self.done, None, WaitReason::Join);
        }
        // SAFETY: in DONE the result is the handle's, which calls this once.
        let result = self.result.with_mut(|own| unsafe { (*own).take() });
        result.expect("a joined thread leaves a result")
    }

    /// Called at the handle's end.
    pub(super) fn detach(&self) {
        let detached =
            self.state.compare_exchange(RUNNING, DETACHED, Ordering::AcqRel, Ordering::Acquire);
        if detached.is_ok() {
            return;
        }
        // SAFETY: in DONE the result is the handle's.
        let is_panic =
            |own: *mut Option<Result<T>>| unsafe { (*own).as_ref() }.is_some_and(Result::is_err);
        let unjoined_panic = self.result.with_mut(is_panic);
        if let Some(scope) = &self.scope
            && unjoined_panic
        {
            scope.note_panic();
        }
        // Here and not where the last reference goes: that may be the thread's, which by then has run
        // its thread-local destructors and, if scoped, has left what the result borrows from.
        self.drop_result();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::atomic::AtomicUsize;

    /// A result that is dropped in a model.
    struct Counted(loom::sync::Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The thread ends while the handle is used: somebody drops the result, once.
    fn ends_while(used: fn(&Packet<Counted>)) {
        loom::model(move || {
            let drops = loom::sync::Arc::new(AtomicUsize::new(0));
            let packet = loom::sync::Arc::new(Packet::new(None));
            let (own, counted) = (packet.clone(), drops.clone());
            let thread = loom::thread::spawn(move || own.finish(Ok(Counted(counted))));
            used(&packet);
            thread.join().unwrap();
            assert_eq!(drops.load(Ordering::Relaxed), 1, "a result that is lost, or two");
        });
    }

    #[test]
    fn a_result_goes_to_who_joins() {
        ends_while(|packet| {
            while !packet.is_finished() {
                loom::thread::yield_now();
            }
            assert!(packet.wait().is_ok());
            packet.detach();
        });
    }

    #[test]
    fn a_result_that_nobody_asks_for_is_dropped_once() {
        ends_while(|packet| packet.detach());
    }
}

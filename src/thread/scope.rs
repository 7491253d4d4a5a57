//! Threads that borrow from the frame that spawned them.
//!
//! The scope counts its threads and does not return before the count is zero. A thread leaves the count
//! last of all, when its result is published and its thread-local destructors have run.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Builder, Joining, Result, Thread};
use crate::reason::WaitReason;
use crate::worker;
use crate::worker::parker::Parker;

/// What a scope and its threads share.
pub(super) struct ScopeData {
    running: AtomicUsize,
    panicked: AtomicBool,
    /// Where the scope waits.
    empty: Parker,
}

impl ScopeData {
    pub(super) fn enter(&self) {
        // Not wrapping: a scope of 2⁶³ threads does not fit into memory.
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, panicked: bool) {
        if panicked {
            self.note_panic();
        }
        // Releases what the thread did to the frame that it borrowed from.
        if self.running.fetch_sub(1, Ordering::Release) == 1 {
            worker::notify(&self.empty);
        }
    }

    pub(super) fn note_panic(&self) {
        self.panicked.store(true, Ordering::Relaxed);
    }
}

/// A scope in which green threads can be spawned that borrow from outside of it. See [`scope()`].
pub struct Scope<'scope, 'env: 'scope> {
    data: Arc<ScopeData>,
    /// Invariant in both lifetimes, as `std`'s, so that neither can be shortened or extended.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Creates a scope for green threads that borrow. As [`std::thread::scope`].
///
/// All threads that were spawned in the scope and not joined are joined before this returns.
///
/// # Panics
///
/// If a thread that was not joined panicked, this panics; if `f` panics, that panic goes on.
///
/// # Blocking
///
/// Parks the green thread while it waits; an OS thread blocks.
///
/// # Examples
///
/// ```
/// let words = ["green", "threads", "borrow"];
/// let mut lengths = [0; 3];
/// uthread::scope(|s| {
///     for (word, length) in words.iter().zip(&mut lengths) {
///         s.spawn(move || *length = word.len());
///     }
/// });
/// assert_eq!(lengths, [5, 7, 6]);
/// ```
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let data = ScopeData {
        running: AtomicUsize::new(0),
        panicked: AtomicBool::new(false),
        empty: Parker::new(),
    };
    let scope = Scope { data: Arc::new(data), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    while scope.data.running.load(Ordering::Acquire) != 0 {
        worker::wait(&scope.data.empty, None, WaitReason::Scope);
    }
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if scope.data.panicked.load(Ordering::Relaxed) => panic!("a scoped thread panicked"),
        Ok(result) => result,
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Spawns a green thread that may borrow what outlives the scope. As
    /// [`std::thread::Scope::spawn`].
    ///
    /// # Panics
    ///
    /// Panics if the thread cannot be created; [`Builder::spawn_scoped`] returns the error.
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        Builder::new().spawn_scoped(self, f).expect("failed to spawn thread")
    }

    pub(super) fn data(&self) -> Option<Arc<ScopeData>> {
        Some(self.data.clone())
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("running", &self.data.running.load(Ordering::Relaxed))
            .field("panicked", &self.data.panicked.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// The right to join a scoped green thread. As [`std::thread::ScopedJoinHandle`].
pub struct ScopedJoinHandle<'scope, T> {
    joining: Joining<T>,
    scope: PhantomData<&'scope ()>,
}

// SAFETY: as for `JoinHandle`.
unsafe impl<T> Send for ScopedJoinHandle<'_, T> {}
// SAFETY: as for `JoinHandle`.
unsafe impl<T> Sync for ScopedJoinHandle<'_, T> {}

impl<T> ScopedJoinHandle<'_, T> {
    pub(super) fn new(joining: Joining<T>) -> Self {
        ScopedJoinHandle { joining, scope: PhantomData }
    }

    /// The thread.
    pub fn thread(&self) -> &Thread {
        &self.joining.thread
    }

    /// Waits for the thread to end.
    ///
    /// # Errors
    ///
    /// The thread panicked; the payload.
    ///
    /// # Panics
    ///
    /// Panics if a thread joins itself.
    ///
    /// # Blocking
    ///
    /// Parks the green thread; an OS thread blocks.
    pub fn join(self) -> Result<T> {
        self.joining.join()
    }

    /// Whether the thread has ended, so that [`join`](Self::join) returns at once.
    pub fn is_finished(&self) -> bool {
        self.joining.packet.is_finished()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("thread", self.thread()).finish_non_exhaustive()
    }
}

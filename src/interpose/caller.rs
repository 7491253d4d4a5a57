//! Who calls a function of the C library, and whether that one may park.

pub(super) use crate::preempt::in_signal_handler;
use crate::preempt::pin::{self, Pin};
use crate::worker::{self, GreenRef};

/// The calling green thread, if it may park: not in a section of the runtime's own or of
/// [`without_preemption`](crate::without_preemption), whose callers did not ask for other threads to run; not in
/// [`blocking`](crate::blocking), where it may block; and only on its own stack, since one that left an alternate
/// stack, that of its OS thread's signal handlers, would find it in use by others when it comes back.
///
/// Between two threads the scheduler runs with the thread-locals of one of them in force, pinned ones, but on its
/// own stack. After fork(2) the child's only thread is pinned for good.
#[inline]
pub(super) fn green() -> Option<GreenRef> {
    let thread = worker::current()?;
    let here = 0_u8;
    let may_park = !pin::is_pinned()
        && thread.get().blocking().get() == 0
        && thread.get().stack().contains(std::ptr::from_ref(&here).addr());
    may_park.then_some(thread)
}

/// Whether the caller may wake others itself: what it takes for that it cannot have interrupted.
///
/// - If the thread block in force is of one thread alone, that thread has begun, and the runtime has not pinned it, it is that
///   thread which runs, on whatever stack, or a handler on top of it: an OS thread of the program's, a helper or monitor between
///   two sections, or a green thread. (In a green thread's block the runtime works only while it is pinned.)
/// - Of green threads that share their worker's block, the stack tells whether it is the thread or the worker that runs.
///   They are all counted in one word, so for most this says no.
/// - All others are workers, threads that have not begun, and children of fork(2).
#[inline]
pub(super) fn may_wake() -> bool {
    pin::is_at_large() || is_green()
}

#[cold]
fn is_green() -> bool {
    green().is_some()
}

/// Counts a call that was served for a thread.
#[inline]
pub(super) fn count(thread: GreenRef) {
    let _pin = Pin::new();
    // Threads on helpers are on their way back to a worker.
    if let Some(worker) = thread.get().worker() {
        worker.counters.interposed.add(1);
    }
}

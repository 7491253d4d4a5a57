//! Who calls a function of the C library, and whether that one may park.

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

/// Counts a call that was served for a thread.
#[inline]
pub(super) fn count(thread: GreenRef) {
    let _pin = Pin::new();
    // Threads on helpers are on their way back to a worker.
    if let Some(worker) = thread.get().worker() {
        worker.counters.interposed.add(1);
    }
}

/// Whether the caller is in a signal handler, for functions that may be called in one (signal-safety(7)). If it runs on the
/// stack of the thread that it interrupted, the thread must not leave its OS thread, whose alternate stack and mask the
/// handler's end restores.
///
/// While a handler runs there is no alternate stack (`SS_AUTODISARM`), and otherwise there is. To ask takes a system
/// call, so this is for the moment before a wait.
#[cold]
pub(super) fn in_signal_handler() -> bool {
    // SAFETY: a structure of integers and a pointer that may be null.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid; the alternate stack stays as it is.
    unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) };
    stack.ss_flags & libc::SS_DISABLE != 0
}

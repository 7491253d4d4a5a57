//! The C library's blocking functions, for code that knows nothing of green threads.
//!
//! **Problem.** `std`, the crates that are built on it, and C libraries reach the kernel through functions of the C
//! library: `recv`, `nanosleep`, `syscall(SYS_futex, ..)`. On a green thread such a call blocks the worker, until
//! the monitor moves the thread to a helper: right, but slow, and helpers are few.
//!
//! **Alternatives.** Types of our own for everything that blocks split the ecosystem in two, which is what this
//! crate exists to avoid. Rewriting code that is loaded (as binary instrumentation does) finds the inlined system
//! calls, too, at a price in start-up time and in trust. `LD_PRELOAD` needs whoever starts the program to
//! know.
//!
//! **Choice.** A program may define functions of the C library itself: the linker then binds all of its calls to
//! them, and the dynamic linker those of libraries. This module defines the ones that block. Each asks first
//! who calls ([`caller::green`]): on an OS thread it jumps to the C library's own, a few instructions
//! later; on a green thread it does what the kernel would, but parks the thread. Nothing depends on it:
//! a call that is made in another way blocks in the kernel, and the thread is moved.
//!
//! **What a replacement owes.** The results, errors and side effects of the function in the C library, of which
//! the calling thread must not be able to tell that it parked, with two exceptions: a signal does not end
//! the wait of a green thread (it interrupts the OS thread on which some green thread runs, so `EINTR` is
//! never returned, as if another thread had got the signal), and `pthread_cancel`, which does not exist for
//! green threads. What it cannot do, or cannot do here, it leaves to the C library ([`Answer::Forward`]).
//!
//! - [`symbols`]: the table of functions. - [`caller`]: who calls. - [`next`]: the C library's own. - [`futex`]: what
//!   `std::sync` waits on. - [`sleep`]: time. - [`descriptor`]: whether a call on a descriptor waits, and how. -
//!   [`sockets`], [`files`], [`mod@poll`], [`children`]: what they say. - [`mutex`], [`semaphore`], [`condition`]: the C
//!   library's locks; [`word`]: waiting for their words. - [`helped`]: what blocks on a helper: names, locks of
//!   files, and other locks.

/// In a child of fork(2): green threads that waited are not there.
pub(crate) extern "C" fn forget_waiters() {
    // SAFETY: the child has one thread.
    unsafe {
        futex::TABLE.forget();
        condition::TABLE.forget();
    }
    futex::nobody_wakes();
}

pub(crate) use futex::wake_handed_over;

mod answer;
mod caller;
mod children;
mod condition;
mod descriptor;
mod files;
mod futex;
mod helped;
mod mutex;
mod next;
mod poll;
mod semaphore;
mod sleep;
mod sockets;
mod symbols;
mod word;

use answer::Answer;

//! Forced preemption: interrupting a green thread at any instruction, and going on with it anywhere.
//!
//! **Vocabulary.** A *tick* is the signal of a worker's timer. A *seat* is an OS thread on which green
//! threads run, a worker or a helper, as the signal's handler sees it. A *detour* is what an interrupted
//! thread makes to the scheduler and back. A thread is *pinned* while it must not be interrupted. A *hog*
//! is a thread that has been interrupted and has not yet proved that it can be short.
//!
//! **Problem.** A thread that computes keeps its worker from all others. It must be switched away from
//! although it does not ask for it, wherever it is: in a loop without a call, in C code, in malloc. What it
//! then holds half-done must harm nobody else. That is so because thread-locals are its own (`context::tls`):
//! to the program, an interruption here is what an interruption by the kernel is to an OS thread.
//!
//! **Alternatives.** Polls that the compiler inserts (early Go, wasm engines) do not reach into C or
//! unmodified crates. A handler that switches stacks itself, on the thread's own stack, works, but the
//! kernel writes its frame before anyone can look whether there is room, so that a thread near its guard
//! page dies of a tick; and the frame, which is resumed from on another OS thread, carries the first one's
//! signal mask and alternate stack with it. A monitor that measures all turns and sends all signals is one
//! more thread to be scheduled in time, on a machine that may be full of hogs.
//!
//! **Choice.** Each worker has a timer of the kernel's that signals just its OS thread ([`tick`]). The
//! handler runs on the alternate stack and only decides. If the thread shall leave, the handler changes the
//! address to which it returns, and returns: the frame is gone, the mask and the alternate stack are back,
//! on the OS thread to which they belong. The thread goes on in `uthread_detour` (`asm/`), which saves every
//! register on the thread's own stack, below the red zone, and leaves to the scheduler by the way that
//! all waits take. When it is resumed, on any worker, it restores the registers and jumps to where it was.
//!
//! # Which instants are preemptible
//!
//! [`seat::Seat::examine`] is the one predicate. All of this must hold:
//!
//! 1. The stack pointer is on the stack of the green thread that the seat runs. On the worker's own stack
//!    there is nothing to switch away from; between the change of the thread pointer and the change of
//!    stacks the two disagree; and a handler of the program's that runs on the alternate stack cannot move.
//! 2. The thread has begun and not ended, and is not pinned ([`pin`]): it holds no lock of the
//!    runtime's and refers to no worker.
//! 3. It is not at the ends of an earlier detour, with its registers half saved.
//! 4. It is not in a signal handler of the program's, whose return restores the mask and the alternate
//!    stack of *this* OS thread; and it has blocked the same signals as its worker: if not, it is between two
//!    calls that change the mask of *this* OS thread.
//! 5. Its stack has room for its registers.
//!
//! Otherwise the interruption is put off. A pinned thread finds the note when it is unpinned; in the other
//! cases the timer tries again.
//!
//! # Progress
//!
//! An interrupted thread may hold a lock, malloc's for example, on which the next one blocks in the kernel,
//! and its worker with it. The next tick finds that thread in its system call, and it is moved to a
//! helper, so that the worker goes on and sooner or later runs the holder. It takes that (1) every thread
//! that runs can be interrupted after a finite time: pinned sections are finite and wait for nothing but spin
//! locks, whose holders are pinned or workers (what programs do in
//! [`without_preemption`](crate::without_preemption) need not be so; then the monitor gives the threads that
//! wait behind them to others); and that (2) the scheduler itself never waits for what an
//! interrupted thread may hold: it neither allocates nor frees and takes no lock but its own (see [`pin`]).
//!
//! - [`pin`]: sections without interruption. - [`tick`]: the timer. - [`seat`]: the predicate, and how
//!   signals find the seat. - [`stall`]: reports. *When* a thread shall leave is decided by
//!   `worker::turn`; `worker::monitor` is the OS thread that watches.

pub(crate) mod pin;
pub(crate) mod probe;
pub(crate) mod seat;
mod stall;
pub(crate) mod tick;

use std::time::Duration;

pub use stall::{Stall, StallKind};
pub(crate) use stall::{StallHook, Stalls};

/// The slice of a runtime that asks for no other.
pub(crate) const DEFAULT_SLICE: Duration = Duration::from_millis(2);
/// The shortest slice: about what an interrupt and a switch take on a slow virtual machine.
pub(crate) const LEAST_SLICE: Duration = Duration::from_micros(20);

/// Keeps the calling thread's `errno` as it is, whatever fails while this exists: an interruption must not change
/// it, nor what the worker does with the thread's thread-locals in force.
pub(crate) struct KeepErrno(i32);

impl KeepErrno {
    pub(crate) fn new() -> KeepErrno {
        KeepErrno(nix::errno::Errno::last_raw())
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        nix::errno::Errno::set_raw(self.0);
    }
}

/// Whether the caller is in a signal handler of the program's. If it runs on the stack of the thread that it interrupted, the
/// thread must not leave its OS thread, whose alternate stack and mask the handler's end restores.
///
/// While a handler runs there is no alternate stack (`SS_AUTODISARM`), and otherwise there is, on workers and helpers. To
/// ask takes a system call, so this is for the moment before a wait. It does not fail, and so leaves `errno` alone.
#[cold]
pub(crate) fn in_signal_handler() -> bool {
    // SAFETY: a structure of integers and a pointer that may be null.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid; the alternate stack stays as it is.
    unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) };
    stack.ss_flags & libc::SS_DISABLE != 0
}

/// `Ok` where green threads that have thread blocks can be interrupted, else the reason why not.
pub(crate) fn available() -> Result<(), &'static str> {
    crate::arch::detours_available()
}

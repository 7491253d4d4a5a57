//! Operations of the kernel that a green thread waits for, and time.
//!
//! **Problem.** A green thread that blocks in the kernel blocks its worker. Its I/O must be started
//! without waiting, and its end be learned later, at as few system calls as possible.
//!
//! **Choice.** A green thread's stack does not go away while it waits, so the kernel may write
//! straight into the buffer that the caller lent: no owned buffers, no copies, `std::io::Read` as it is.
//! The price is one rule: **an op's frame does not return before the op's completion.** To time out
//! is to cancel *and wait*, and to hand over what was transferred before the cancellation.
//!
//! - [`op`]: what can be asked for, and the record of one op in flight, on the asker's stack.
//! - [`uring`]: the driver on io_uring. One per worker, used by its OS thread alone.
//! - [`timer`]: deadlines, kept in user space; a wait in the kernel is bounded by the next one.
//!
//! [`Driver`] is the seam at which another driver fits, for kernels and containers that forbid
//! io_uring. Until there is one, starting a runtime there is an error that says why.

pub(crate) mod op;
pub(crate) mod timer;
pub(crate) mod uring;

use std::ptr::NonNull;
use std::time::Duration;

use op::{Op, Request};

/// How long [`Driver::poll`] may wait for a completion or a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all, and what was collected may stay collected: a poll that hands over will follow soon.
    Defer,
    /// Not at all.
    No,
    /// At most this long.
    For(Duration),
    /// Until there is one.
    Forever,
}

/// The driver has no room for another op just now; try again after the next [`Driver::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Counts since the driver's start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Calls into the kernel.
    pub(crate) enters: u64,
    /// Ops and cancellations handed over.
    pub(crate) submissions: u64,
    /// Ops completed.
    pub(crate) completions: u64,
}

/// One worker's way to the kernel. `W` is what the worker knows a waiting thread by.
///
/// Order of calls: any number of [`submit`](Driver::submit) and [`cancel`](Driver::cancel), which may
/// only collect, then [`poll`](Driver::poll), which hands over what was collected and reports
/// completions.
pub(crate) trait Driver<W> {
    /// Starts an op.
    ///
    /// # Errors
    ///
    /// [`Full`]; nothing was started then.
    ///
    /// # Safety
    ///
    /// Both the op and what the request points to stay valid and in place until `poll` reports the op.
    /// What the request lends for writing is not accessed until then.
    unsafe fn submit(&mut self, op: NonNull<Op<W>>, request: &Request) -> Result<(), Full>;

    /// Asks for an early end of an op in flight, which completes nonetheless: with its result, if that
    /// was first, or with `ECANCELED`.
    ///
    /// # Safety
    ///
    /// The op was submitted to this driver and not yet reported.
    unsafe fn cancel(&mut self, op: NonNull<Op<W>>);

    /// Hands over what was collected, waits as told, and calls `completed` for each op that ended, its
    /// result set. Returns early when woken through the driver's waker, or by a signal.
    fn poll(&mut self, wait: Wait, completed: impl FnMut(NonNull<Op<W>>));

    /// Hands over what was collected, if anything was, and reports nothing: for when no poll will follow soon.
    fn hand_over(&mut self);

    /// Whether there are completions that `poll` would report now.
    fn has_completions(&mut self) -> bool;

    /// Whether an op is in flight.
    fn in_flight(&self) -> bool;

    /// Whether each completion from now on shall be announced through the driver's alarm, so that another
    /// thread learns of it while this one does not poll. What completed before is not: look at
    /// [`has_completions`](Driver::has_completions) afterwards. Takes no system call.
    fn raise_alarms(&mut self, on: bool);

    /// Counts since the start.
    fn counts(&self) -> Counts;
}

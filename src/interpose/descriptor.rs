//! Whether a call on a descriptor waits, for how long, and how a green thread waits in its stead.
//!
//! **Problem.** `O_NONBLOCK`, `SO_RCVTIMEO` and `SO_SNDTIMEO` are settings of the open file, which other descriptors and
//! processes may share and change. Ops of io_uring heed none of them.
//!
//! **Choice.** Nothing is remembered. A call is first made so that it cannot wait (`MSG_DONTWAIT`, `RWF_NOWAIT`, a
//! time-out of zero). Most calls that send end there, and those that receive when there is something: no ring
//! is needed, and the kernel itself has done what it does. Only a call that would wait asks for the settings,
//! some hundred nanoseconds, which the wait outweighs.

use std::ffi::c_int;
use std::time::Duration;

use nix::errno::Errno;

use super::caller::in_signal_handler;
use crate::reactor::op::{MAX_TRANSFER, Request};
use crate::worker;

/// A length that the kernel takes.
pub(super) fn length(bytes: usize) -> u32 {
    bytes.min(MAX_TRANSFER) as u32
}

/// What a call that would wait is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It returns `EAGAIN`: the file is in non-blocking mode, or nothing at all is known of the descriptor.
    None,
    /// It blocks, in a signal handler.
    Blocks,
    /// It parks the thread.
    Parks,
}

/// What a call that would wait for the descriptor is to do.
pub(super) fn patience(fd: c_int) -> Patience {
    // SAFETY: the command takes no argument and touches no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_NONBLOCK != 0 {
        Patience::None
    } else if in_signal_handler() {
        Patience::Blocks
    } else {
        Patience::Parks
    }
}

/// How long calls on a socket wait: `SO_RCVTIMEO` or `SO_SNDTIMEO`. `None` is for ever, and what other files do.
pub(super) fn time_out(fd: c_int, option: c_int) -> Option<Duration> {
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut length = size_of_val(&time) as libc::socklen_t;
    // SAFETY: the pointers are valid, the length is that of what the kernel writes.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut time).cast(), &mut length)
    };
    let time = Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    (result == 0 && !time.is_zero()).then_some(time)
}

/// Does an op; the error if it takes longer than the time given is `expired`.
///
/// Nobody cancels it but its time-out. The kernel does (`ECANCELED`) if it wants a thread of its own for the op and can start
/// none just then, because a signal is pending, as ticks are: nothing was done, and it is tried again.
///
/// # Safety
///
/// The pointers of the request are valid. To be called on a green thread that may park.
pub(super) unsafe fn perform(
    request: Request,
    limit: Option<Duration>,
    expired: c_int,
) -> Result<usize, c_int> {
    loop {
        // SAFETY: as the caller says.
        match unsafe { worker::perform(request, limit) } {
            Ok(n) => return Ok(n as usize),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => worker::yield_now(),
            Err(error) => return Err(error.raw_os_error().unwrap_or(expired)),
        }
    }
}

/// Waits until the descriptor is ready for one of the events (poll(2)), or for the time given; what was found, 0 if nothing.
pub(super) fn wait_for(fd: c_int, events: u32, limit: Option<Duration>) -> Result<usize, c_int> {
    // SAFETY: the request has no pointers; the callers are functions that replace the C library's.
    match unsafe { perform(Request::Poll { fd, events }, limit, libc::ETIMEDOUT) } {
        Err(libc::ETIMEDOUT) => Ok(0),
        result => result,
    }
}

/// A result of the C library's, with its error.
pub(super) fn checked(result: isize) -> Result<usize, c_int> {
    usize::try_from(result).map_err(|_| Errno::last_raw())
}

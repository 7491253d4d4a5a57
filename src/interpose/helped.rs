//! Calls that are made on a helper: what blocks, but is no operation of the ring's, and no word to wait for.
//!
//! The thread is moved before the call ([`Answer::Help`]) and not when it is found to block, so that it stalls nobody. What
//! can be tried first, at no risk of blocking, is, so that a lock that is free costs no move.
//!
//! There are so many helpers and no more: who gets none makes the call on its worker, for a slice at a time in turns with the
//! others there. A crowd of waiters is slow then, but goes on.
//!
//! **Left to the monitor**, which moves threads that it finds blocked: `sigwait` and its relatives, which wait for
//! signals of the OS thread; `pthread_once`, of which one cannot tell whether it will wait, and whose routine is the program's;
//! message queues and semaphores of System V (`msgrcv`, `msgsnd`, `semop`), message queues of POSIX
//! (`mq_receive`, `mq_send`); C11's `mtx_lock`, `cnd_wait`, `thrd_join`; `flockfile` and with it stdio's
//! locks; users and groups that come from a network (`getpwnam_r`), `res_query`.

use std::ffi::c_int;

use super::Answer;
use super::caller::in_signal_handler;
use super::sleep::Until;
use crate::preempt::KeepErrno;

/// Tries a call of the threads' library, whose result is an error: what is said to be busy is waited for.
pub(super) fn try_lock(attempt: impl FnOnce() -> c_int) -> Answer {
    match attempt() {
        libc::EBUSY => Answer::Help,
        result => Answer::Quick(result as isize),
    }
}

/// The same, until a time, which is looked at first, as the C library does.
pub(super) fn try_lock_until(until: Option<Until>, attempt: impl FnOnce() -> c_int) -> Answer {
    if until.is_none() { Answer::Forward } else { try_lock(attempt) }
}

/// `flock`. A lock of the other kind that the file has is lost by the attempt, as it is by the call.
pub(super) fn flock(operation: c_int, flock: impl FnOnce(c_int) -> c_int) -> Answer {
    match operation {
        libc::LOCK_EX | libc::LOCK_SH => try_file(|| flock(operation | libc::LOCK_NB)),
        _ => Answer::Forward,
    }
}

/// `fcntl`: locks of parts of files. The other commands do not block.
pub(super) fn fcntl(command: c_int, fcntl: impl FnOnce(c_int) -> c_int) -> Answer {
    match command {
        libc::F_SETLKW => try_file(|| fcntl(libc::F_SETLK)),
        libc::F_OFD_SETLKW => try_file(|| fcntl(libc::F_OFD_SETLK)),
        _ => Answer::Forward,
    }
}

/// `lockf`.
pub(super) fn lockf(command: c_int, lockf: impl FnOnce(c_int) -> c_int) -> Answer {
    match command {
        libc::F_LOCK => try_file(|| lockf(libc::F_TLOCK)),
        _ => Answer::Forward,
    }
}

/// Tries a system call that locks: if that fails, the one that waits knows why, or waits.
fn try_file(attempt: impl FnOnce() -> c_int) -> Answer {
    let _errno = KeepErrno::new();
    if attempt() == 0 { Answer::Quick(0) } else { outside_handlers() }
}

/// Of what may be called in signal handlers (signal-safety(7)), where it has to be made on this OS thread.
pub(super) fn outside_handlers() -> Answer {
    if in_signal_handler() { Answer::Forward } else { Answer::Help }
}

//! `waitpid` and its relatives.
//!
//! A child is waited for by an op that leaves it to be collected (`WNOWAIT`); then the C library's function, told not to
//! wait, collects it. Another thread may have been faster: then the wait begins anew.

use std::ffi::c_int;

use libc::{
    P_ALL, P_PGID, P_PID, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED, WUNTRACED, id_t,
    idtype_t, pid_t, rusage, siginfo_t,
};

use super::Answer;
use super::caller::in_signal_handler;
use super::descriptor::{Patience, checked, patience, perform};
use super::symbols::next;
use crate::reactor::op::Request;

/// `wait4`, and what is less.
///
/// # Safety
///
/// As wait4(2), on a green thread that may park.
pub(super) unsafe fn wait4(
    child: pid_t,
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> Answer {
    let (kind, id) = match child {
        -1 => (P_ALL, 0),
        0 => (P_PGID, 0),
        // It has no absolute value.
        pid_t::MIN => return Answer::Forward,
        group if group < 0 => (P_PGID, group.unsigned_abs()),
        child => (P_PID, child as id_t),
    };
    let mut events = WEXITED | options & (libc::__WALL | libc::__WCLONE | WCONTINUED);
    if options & WUNTRACED != 0 {
        events |= WSTOPPED;
    }
    // SAFETY: as the caller says.
    let collect = || unsafe { next::wait4.get()(child, status, options | WNOHANG, usage) as isize };
    collect_when_there(kind, id, events, options, collect)
}

/// `waitid`.
///
/// # Safety
///
/// As waitid(2), on a green thread that may park.
pub(super) unsafe fn waitid(
    kind: idtype_t,
    id: id_t,
    info: *mut siginfo_t,
    options: c_int,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        // The kernel says that there is none by a process of number 0; and tells nobody where there is no pointer.
        let mut own: siginfo_t = std::mem::zeroed();
        let info = if info.is_null() { &raw mut own } else { info };
        let collect = || {
            (*info).si_signo = 0;
            match next::waitid.get()(kind, id, info, options | WNOHANG) {
                0 if (*info).si_signo == 0 => 0,
                0 => 1,
                error => error as isize,
            }
        };
        match collect_when_there(kind, id, options & !WNOHANG, options, collect) {
            Answer::Done(_) => Answer::Done(0),
            answer => answer,
        }
    }
}

/// Calls `collect` when there is a child to be collected, until it has collected one: it says 0 if not.
fn collect_when_there(
    kind: idtype_t,
    id: id_t,
    events: c_int,
    options: c_int,
    collect: impl Fn() -> isize,
) -> Answer {
    // Children of one OS thread alone cannot be waited for on another.
    if options & (WNOHANG | libc::__WNOTHREAD) != 0
        || kind == libc::P_PIDFD && patience(id as c_int) == Patience::None
        || in_signal_handler()
    {
        return Answer::Forward;
    }
    loop {
        match checked(collect()) {
            Ok(0) => {}
            result => return result.into(),
        }
        let options = events | WNOWAIT;
        let request = Request::WaitId { kind, id, info: std::ptr::null_mut(), options };
        // SAFETY: the request has no pointers.
        let result = unsafe { perform(request, None, libc::EINTR) };
        // A kernel before 6.7 does not know the op. Of other errors, the function itself is to tell.
        if let Err(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) = result {
            return Answer::Help;
        }
    }
}

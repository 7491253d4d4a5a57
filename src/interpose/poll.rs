//! `poll`, `select`, `epoll_wait`: waiting for several descriptors, so that an event loop can live on a green thread.
//!
//! **Choice.** Who waits for one descriptor waits by an op on it; an epoll instance is one descriptor, too. For several,
//! an epoll instance is made for the one wait: that is as many system calls as descriptors, but one op, and
//! none has to be cancelled afterwards. In any case the result is that of the C library's function, called with a
//! time-out of zero before the wait and after it, so that what it says is what the kernel says.
//!
//! Functions that also change the signal mask for as long as they wait do so on a helper.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{epoll_event, fd_set, pollfd, sigset_t, timespec, timeval};
use nix::errno::Errno;

use super::Answer;
use super::caller::in_signal_handler;
use super::descriptor::wait_for;
use super::sleep::duration;
use super::symbols::next;
use crate::worker;

/// Until when a call waits.
#[derive(Clone, Copy)]
struct Limit {
    begin: Instant,
    /// `None` is for ever.
    time: Option<Duration>,
}

impl Limit {
    /// In the way of poll(2): for ever if it is negative.
    fn milliseconds(time: c_int) -> Limit {
        Limit::new(u64::try_from(time).ok().map(Duration::from_millis))
    }

    fn new(time: Option<Duration>) -> Limit {
        Limit { begin: Instant::now(), time }
    }

    fn remaining(self) -> Option<Duration> {
        self.time.map(|time| time.saturating_sub(self.begin.elapsed()))
    }

    fn is_over(self) -> bool {
        self.remaining().is_some_and(|rest| rest.is_zero())
    }
}

/// Asks, waits, and asks again, until there is an answer other than 0 or the time is over.
fn wait(
    limit: Limit,
    ask: impl Fn() -> c_int,
    sleep: impl Fn(Option<Duration>) -> Result<usize, c_int>,
) -> Answer {
    let mut checked_handler = false;
    loop {
        let is_over = limit.is_over();
        let found = ask();
        if found < 0 && Errno::last_raw() == libc::EINTR {
            // Even who does not wait is told of a signal, if nothing else is found.
            continue;
        }
        if found != 0 || is_over {
            return Answer::of(found as isize);
        }
        if !checked_handler && in_signal_handler() {
            return Answer::Forward;
        }
        checked_handler = true;
        // The helper's call is told how long to wait in all; the beginning of the wait counts for little.
        if sleep(limit.remaining()).is_err() {
            return Answer::Help;
        }
    }
}

/// `poll`.
///
/// # Safety
///
/// As poll(2), on a green thread that may park; also for the other functions here, each as its system call.
pub(super) unsafe fn poll(fds: *mut pollfd, count: libc::nfds_t, time: c_int) -> Answer {
    // SAFETY: as the caller says.
    unsafe { poll_until(fds, count, Limit::milliseconds(time)) }
}

/// `ppoll`.
///
/// # Safety
///
/// See [`poll`].
pub(super) unsafe fn ppoll(
    fds: *mut pollfd,
    count: libc::nfds_t,
    time: *const timespec,
    mask: *const sigset_t,
) -> Answer {
    // SAFETY: as the caller says.
    match unsafe { time.as_ref() }.map(|time| duration(*time)) {
        // SAFETY: as the caller says.
        _ if !mask.is_null() => unsafe {
            help_masked(mask, |mask| next::ppoll.get()(fds, count, time, mask))
        },
        Some(None) => Answer::Forward,
        // SAFETY: as the caller says.
        time => unsafe { poll_until(fds, count, Limit::new(time.flatten())) },
    }
}

/// # Safety
///
/// See [`poll`].
unsafe fn poll_until(fds: *mut pollfd, count: libc::nfds_t, limit: Limit) -> Answer {
    // SAFETY: as the caller says.
    let ask = || unsafe { next::poll.get()(fds, count, 0) };
    wait(limit, ask, |time| {
        // A list that is empty may be a null pointer; one that is too long was an error.
        let fds: &[pollfd] =
            // SAFETY: as the caller says.
            if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(fds, count as usize) } };
        wait_for_any(fds.iter().map(|fd| (fd.fd, fd.events as u16 as u32)), time)
    })
}

/// `select`. As Linux does, it writes the rest of the time.
///
/// # Safety
///
/// See [`poll`].
pub(super) unsafe fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time: *mut timeval,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        let limit = match time.as_ref() {
            None => Limit::new(None),
            Some(t) if t.tv_sec < 0 || t.tv_usec < 0 => return Answer::Forward,
            Some(t) => Limit::new(Some(
                Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64),
            )),
        };
        let answer = select_until(count, [read, write, except], limit);
        if let (Some(time), Some(rest)) = (time.as_mut(), limit.remaining())
            && let Answer::Done(_) = answer
        {
            time.tv_sec = rest.as_secs() as libc::time_t;
            time.tv_usec = rest.subsec_micros().into();
        }
        answer
    }
}

/// `pselect`.
///
/// # Safety
///
/// See [`poll`].
pub(super) unsafe fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    time: *const timespec,
    mask: *const sigset_t,
) -> Answer {
    // SAFETY: as the caller says.
    match unsafe { time.as_ref() }.map(|time| duration(*time)) {
        // SAFETY: as the caller says.
        _ if !mask.is_null() => unsafe {
            help_masked(mask, |mask| next::pselect.get()(count, read, write, except, time, mask))
        },
        Some(None) => Answer::Forward,
        // SAFETY: as the caller says.
        time => unsafe { select_until(count, [read, write, except], Limit::new(time.flatten())) },
    }
}

/// # Safety
///
/// See [`poll`].
unsafe fn select_until(count: c_int, sets: [*mut fd_set; 3], limit: Limit) -> Answer {
    if count < 0 {
        return Answer::Forward;
    }
    if count as usize > libc::FD_SETSIZE {
        // Longer than their type says. The kernel looks at no more of them than there are descriptors.
        return help();
    }
    const BITS: usize = u64::BITS as usize;
    const WORDS: usize = libc::FD_SETSIZE / BITS;
    let words = (count as usize).div_ceil(BITS);
    let asked = sets.map(|set| {
        let set = set.cast_const().cast::<u64>();
        (!set.is_null()).then(|| {
            let mut own = [0; WORDS];
            // SAFETY: as the caller says; there are no more words.
            unsafe { own.as_mut_ptr().copy_from_nonoverlapping(set, words) };
            own
        })
    });
    let ask = || {
        let mut found = asked;
        let pointers = found.each_mut().map(|set| {
            set.as_mut().map_or(std::ptr::null_mut(), |set| set.as_mut_ptr().cast::<fd_set>())
        });
        let mut zero = timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: the sets are as long as they have to be.
        let n =
            unsafe { next::select.get()(count, pointers[0], pointers[1], pointers[2], &mut zero) };
        if n >= 0 {
            for (set, found) in sets.iter().zip(&found) {
                if let Some(found) = found {
                    // SAFETY: as the caller says.
                    unsafe { set.cast::<u64>().copy_from_nonoverlapping(found.as_ptr(), words) };
                }
            }
        }
        n
    };
    let restore = || {
        for (set, asked) in sets.iter().zip(&asked) {
            if let Some(asked) = asked {
                // SAFETY: as the caller says.
                unsafe { set.cast::<u64>().copy_from_nonoverlapping(asked.as_ptr(), words) };
            }
        }
    };
    let events = [
        libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND,
        libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND,
        libc::POLLPRI,
    ];
    let answer = wait(limit, ask, |time| {
        let wanted = (0..count as usize).filter_map(|fd| {
            let has = |set: &&Option<[u64; WORDS]>| {
                set.as_ref().is_some_and(|set| set[fd / BITS] & (1 << (fd % BITS)) != 0)
            };
            let events =
                asked.iter().zip(events).filter(|(set, _)| has(set)).map(|(_, e)| e as u32);
            events.reduce(|a, b| a | b).map(|events| (fd as c_int, events))
        });
        wait_for_any(wanted, time)
    });
    if let Answer::Help | Answer::Forward = answer {
        restore();
    }
    answer
}

/// `epoll_wait`.
///
/// # Safety
///
/// See [`poll`].
pub(super) unsafe fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    time: c_int,
) -> Answer {
    // SAFETY: as the caller says.
    let ask = || unsafe { next::epoll_wait.get()(epoll, events, most, 0) };
    wait(Limit::milliseconds(time), ask, |time| wait_for(epoll, libc::EPOLLIN as u32, time))
}

/// `epoll_pwait`.
///
/// # Safety
///
/// See [`poll`].
pub(super) unsafe fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    time: c_int,
    mask: *const sigset_t,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        if !mask.is_null() {
            return help_masked(mask, |mask| {
                next::epoll_pwait.get()(epoll, events, most, time, mask)
            });
        }
        epoll_wait(epoll, events, most, time)
    }
}

/// `epoll_pwait2`.
///
/// # Safety
///
/// See [`poll`].
pub(super) unsafe fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    time: *const timespec,
    mask: *const sigset_t,
) -> Answer {
    // SAFETY: as the caller says.
    let limit = match unsafe { time.as_ref() }.map(|time| duration(*time)) {
        // SAFETY: as the caller says.
        _ if !mask.is_null() => unsafe {
            return help_masked(mask, |mask| {
                next::epoll_pwait2.get()(epoll, events, most, time, mask)
            });
        },
        Some(None) => return Answer::Forward,
        time => Limit::new(time.flatten()),
    };
    // SAFETY: as the caller says.
    let ask = || unsafe { next::epoll_wait.get()(epoll, events, most, 0) };
    wait(limit, ask, |time| wait_for(epoll, libc::EPOLLIN as u32, time))
}

/// For calls that can be done on a helper only; in a signal handler not even there.
fn help() -> Answer {
    if in_signal_handler() { Answer::Forward } else { Answer::Help }
}

/// Calls a function with a signal mask on a helper. There the runtime's own signal, which the caller knows nothing of and
/// which would end the wait, stays blocked. If no helper is to be had the call is made on the worker, which only that
/// signal can rescue: then it ends with `EINTR`.
///
/// # Safety
///
/// The mask is valid, and the call as its caller says.
unsafe fn help_masked(
    mask: *const sigset_t,
    call: impl FnOnce(*const sigset_t) -> c_int,
) -> Answer {
    if in_signal_handler() {
        return Answer::Forward;
    }
    // SAFETY: as the caller says.
    let mut own = unsafe { *mask };
    worker::blocking(|| {
        if worker::current().is_some_and(|thread| thread.get().worker().is_none()) {
            // SAFETY: the set is a valid one.
            unsafe { libc::sigaddset(&mut own, libc::SIGURG) };
        }
        Answer::of(call(&own) as isize)
    })
}

/// Waits until one of the descriptors may be ready, or for the time given.
fn wait_for_any(
    fds: impl Iterator<Item = (c_int, u32)> + Clone,
    time: Option<Duration>,
) -> Result<usize, c_int> {
    let all = fds.filter(|(fd, _)| *fd >= 0);
    let mut fds = all.clone();
    let Some((first, events)) = fds.next() else {
        let Some(time) = time else { return Err(libc::EDEADLK) };
        crate::time::sleep(time);
        return Ok(0);
    };
    let mut fds = fds.peekable();
    if fds.peek().is_none() {
        return wait_for(first, events, time);
    }
    // SAFETY: the descriptor that is made has no other owner.
    let epoll = unsafe {
        match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
            -1 => return Err(Errno::last_raw()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let control = |operation, fd: c_int, events: u32| {
        let mut event = epoll_event { events, u64: events.into() };
        // SAFETY: the pointer is valid.
        match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(Errno::last_raw()),
        }
    };
    for (fd, events) in std::iter::once((first, events)).chain(fds) {
        match control(libc::EPOLL_CTL_ADD, fd, events) {
            // One that is listed several times.
            Err(libc::EEXIST) => {
                let all = all.clone().filter(|(other, _)| *other == fd);
                control(libc::EPOLL_CTL_MOD, fd, all.fold(0, |events, (_, more)| events | more))?;
            }
            result => result?,
        }
    }
    wait_for(epoll.as_raw_fd(), libc::EPOLLIN as u32, time)
}

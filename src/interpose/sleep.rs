//! `nanosleep` and its relatives.

use std::ffi::c_int;
use std::time::Duration;

use libc::timespec;

use super::Answer;
use super::caller::in_signal_handler;
use crate::worker::{self, Deadline};

/// How long at most to wait at a time for a point of a clock that can be set: after that it is asked again.
const GLANCE: Duration = Duration::from_secs(1);

/// `nanosleep`. The rest is not written: no signal ends the sleep.
///
/// # Safety
///
/// `request` is valid for reads.
pub(super) unsafe fn nanosleep(request: *const timespec, _rest: *mut timespec) -> Answer {
    // SAFETY: as the caller says.
    let Some(time) = duration(unsafe { *request }) else { return Answer::Failed(libc::EINVAL) };
    sleep_for(time)
}

/// `clock_nanosleep`, whose errors are results.
///
/// # Safety
///
/// `request` is valid for reads.
pub(super) unsafe fn clock_nanosleep(
    clock: libc::clockid_t,
    flags: c_int,
    request: *const timespec,
    _rest: *mut timespec,
) -> Answer {
    // Clocks that count CPU time cannot be slept on here.
    if !matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME) {
        return Answer::Forward;
    }
    // SAFETY: as the caller says.
    let Some(time) = duration(unsafe { *request }) else {
        return Answer::Done(libc::EINVAL as isize);
    };
    if flags & libc::TIMER_ABSTIME == 0 {
        return sleep_for(time);
    }
    if in_signal_handler() {
        return Answer::Forward;
    }
    while let Some(deadline) = deadline_on(clock, time) {
        worker::sleep_until(deadline);
    }
    Answer::Done(0)
}

/// `sleep`: 0, since no signal ends it.
pub(super) fn sleep(seconds: u32) -> Answer {
    sleep_for(Duration::from_secs(seconds.into()))
}

/// `usleep`.
pub(super) fn usleep(microseconds: u32) -> Answer {
    sleep_for(Duration::from_micros(microseconds.into()))
}

/// `sched_yield`.
pub(super) fn sched_yield() -> Answer {
    if in_signal_handler() {
        return Answer::Forward;
    }
    worker::yield_now();
    Answer::Done(0)
}

fn sleep_for(time: Duration) -> Answer {
    if in_signal_handler() {
        return Answer::Forward;
    }
    worker::sleep_until(Deadline::after(time));
    Answer::Done(0)
}

/// A time as C says it, if it is a valid one.
pub(super) fn duration(time: timespec) -> Option<Duration> {
    let nanoseconds = u32::try_from(time.tv_nsec).ok().filter(|&n| n < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanoseconds))
}

/// Until when to wait for `time` on `clock`; `None` if it has come. Ask again at the deadline: clocks other than the
/// monotonic one can be set meanwhile, or run on while the machine sleeps.
pub(super) fn deadline_on(clock: libc::clockid_t, time: Duration) -> Option<Deadline> {
    rest_on(clock, time).map(Deadline::after)
}

/// How long that is, from now.
fn rest_on(clock: libc::clockid_t, time: Duration) -> Option<Duration> {
    let mut on_clock = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid, and the callers know the clock to exist.
    unsafe { libc::clock_gettime(clock, &mut on_clock) };
    let rest = time.checked_sub(duration(on_clock)?).filter(|rest| !rest.is_zero())?;
    Some(if clock == libc::CLOCK_MONOTONIC { rest } else { rest.min(GLANCE) })
}

/// Until when to wait for a lock: a point of a clock.
#[derive(Clone, Copy)]
pub(super) struct Until {
    clock: libc::clockid_t,
    time: Duration,
}

impl Until {
    /// `None` if the C library refuses it, and so fails without waiting, or if waiting would be in vain since the time
    /// has long passed.
    ///
    /// # Safety
    ///
    /// The pointer is valid for reads.
    pub(super) unsafe fn new(clock: libc::clockid_t, time: *const timespec) -> Option<Until> {
        let is_known = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC);
        // SAFETY: as the caller says.
        let time = duration(unsafe { *time }).filter(|_| is_known)?;
        Some(Until { clock, time })
    }

    /// How long that is from now, as [`deadline_on`]; `None` if it has come.
    pub(super) fn rest(self) -> Option<Duration> {
        rest_on(self.clock, self.time)
    }

    /// The same as a deadline.
    pub(super) fn deadline(self) -> Option<Deadline> {
        deadline_on(self.clock, self.time)
    }
}

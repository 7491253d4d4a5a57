//! Time: sleeping, and the clock of deadlines.

mod clock;

use std::time::Duration;

pub(crate) use clock::Clock;

use crate::worker;

/// Nanoseconds of `CLOCK_MONOTONIC`.
///
/// `Instant` is the same clock but does not give out the number, which heaps and system calls want.
#[inline]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid; CLOCK_MONOTONIC exists always, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds for which the calling OS thread has had a processor. A system call.
pub(crate) fn thread_cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid; the clock exists always, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Puts the current thread to sleep for at least the given time.
///
/// As [`std::thread::sleep`]. Deadlines are kept in nanoseconds; nothing is rounded up to a tick.
///
/// # Blocking
///
/// Parks the green thread; an OS thread blocks.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let before = Instant::now();
/// uthread::spawn(|| uthread::sleep(Duration::from_millis(2))).join().unwrap();
/// assert!(before.elapsed() >= Duration::from_millis(2));
/// ```
pub fn sleep(time: Duration) {
    worker::sleep_until(worker::Deadline::after(time));
}

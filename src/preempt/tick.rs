//! A worker's timer.
//!
//! One POSIX timer per worker, on the monotonic clock, that signals the worker's own OS thread
//! (`SIGEV_THREAD_ID`, timer_create(2)). It shoots once and is armed again when there is a reason: nobody
//! is interrupted for nothing. An interrupt of a timer costs some 10–20 µs on a virtual machine, many times
//! the switch that it causes.
//!
//! **Sharing interrupts.** A busy core is interrupted by the kernel's own tick anyway (`CONFIG_HZ`, usually 100
//! to 1,000 times a second), and timers that are due by then are handled in the same interrupt, which
//! makes them nearly free. Since Linux 6.4 the ticks of all cores come at multiples of their period on the
//! monotonic clock. So a timer that may shoot a little sooner or later is set to such a point
//! ([`Tick::aligned`]). Older kernels have their ticks elsewhere; there it does neither good nor harm.

use std::io;
use std::sync::atomic::AtomicPtr;

use super::seat::{SIGNAL, Seat};
use crate::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// See the module's documentation.
pub(crate) struct Tick {
    timer: AtomicPtr<libc::c_void>,
    exists: AtomicBool,
    due: Due,
    /// The period of the kernel's tick, in nanoseconds; 0 if it is unknown.
    period: AtomicU64,
}

/// When a timer is due, in nanoseconds of the monotonic clock. 0 if it is not armed; [`Due::NEVER`] if there is
/// none.
pub(crate) struct Due(AtomicU64);

impl Due {
    const NEVER: u64 = u64::MAX;

    pub(crate) fn new(at: u64) -> Due {
        Due(AtomicU64::new(at))
    }

    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Notes it for a timer that is not armed; whether it must be set now. From another OS thread.
    #[must_use = "a timer that seems to be armed must be"]
    pub(crate) fn note_if_idle(&self, at: u64) -> bool {
        // Pairs with the fence in `fired`.
        fence(Ordering::SeqCst);
        !self.is_armed()
            && self.0.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Its signal has come: what is looked at after this was queued before, or finds it not armed.
    pub(crate) fn fired(&self) {
        if self.0.load(Ordering::Relaxed) != Self::NEVER {
            self.0.store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// As if it were not armed, unless it is due by then. What is looked at after this was queued before, or finds it
    /// not armed.
    pub(crate) fn forget_after(&self, at: u64) {
        let due = self.get();
        if due > at && due != Self::NEVER {
            // If it has just shot, somebody else may have armed it.
            let _ = self.0.compare_exchange(due, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, at: u64) {
        self.0.store(at, Ordering::Relaxed);
    }
}

/// Whether those who queue a thread at a worker must signal it.
pub(crate) struct Alert(AtomicBool);

impl Alert {
    pub(crate) fn new() -> Alert {
        Alert(AtomicBool::new(false))
    }

    /// They must. What was queued before is seen by who looks after this.
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// They need not.
    pub(crate) fn lower(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the caller is the one who must. To be called after a sequentially consistent fence, which itself is
    /// after what the worker is to look at.
    #[must_use = "nobody else signals"]
    pub(crate) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

impl Tick {
    /// No timer yet; as if it were armed for the end of time.
    pub(crate) fn none() -> Tick {
        Tick {
            timer: AtomicPtr::new(std::ptr::null_mut()),
            exists: AtomicBool::new(false),
            due: Due::new(Due::NEVER),
            period: AtomicU64::new(0),
        }
    }

    /// Creates the timer, for the calling OS thread, which has taken the seat.
    ///
    /// # Errors
    ///
    /// The kernel has no memory for it, or the limit on pending signals is reached.
    pub(crate) fn create(&self, seat: &Seat) -> io::Result<()> {
        // SAFETY: a plain structure of numbers and a pointer that is not followed.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = seat.thread();
        event.sigev_value.sival_ptr = seat.token();
        let mut timer = std::ptr::null_mut();
        // SAFETY: both pointers are valid.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } != 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(
                error.kind(),
                format!(
                    "cannot create a worker's timer: {error}; raise the limit on pending signals (RLIMIT_SIGPENDING)"
                ),
            ));
        }
        // The coarse clock is advanced by the tick (clock_getres(2)).
        let period = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE);
        let period = period.map_or(0, |p| std::time::Duration::from(p).as_nanos() as u64);
        self.period.store(period, Ordering::Relaxed);
        self.timer.store(timer, Ordering::Relaxed);
        self.due.set(0);
        self.exists.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether it is armed. If not, and something is to be waited for, it must be.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.due.is_armed()
    }

    /// When it is due, if it is armed.
    pub(crate) fn due(&self) -> Option<u64> {
        Some(self.due.get()).filter(|at| *at != 0 && *at != Due::NEVER)
    }

    /// The tick of the kernel's that is nearest to `at`, if it is no more than `sooner` before it and
    /// `later` after it; else `at`.
    pub(crate) fn aligned(&self, at: u64, sooner: u64, later: u64) -> u64 {
        let period = self.period.load(Ordering::Relaxed);
        let Some(since) = at.checked_rem(period) else { return at };
        let until = period - since;
        match (since <= sooner, until <= later) {
            (true, false) => at - since,
            (false, true) => at + until,
            (true, true) if since < until => at - since,
            (true, true) => at + until,
            (false, false) => at,
        }
    }

    /// Sets it to a point in time, whatever it was set to. Async-signal-safe (signal-safety(7)).
    pub(crate) fn arm(&self, at: u64) {
        if self.exists.load(Ordering::Acquire) {
            self.due.set(at.max(1));
            self.set(at.max(1));
        }
    }

    /// Arms it from another OS thread unless it is armed.
    ///
    /// The worker may arm it at the same time. Then either time may win; both are soon.
    pub(crate) fn arm_if_idle(&self, at: u64) {
        // Until it exists it is never idle.
        if self.exists.load(Ordering::Acquire) && self.due.note_if_idle(at) {
            self.set(at);
        }
    }

    /// Takes it to be not armed, unless it is due by then. It may shoot nevertheless.
    pub(crate) fn forget_after(&self, at: u64) {
        self.due.forget_after(at);
    }

    /// Whether its signal should have come long ago.
    pub(crate) fn is_overdue(&self, now: u64) -> bool {
        const LONG: u64 = 10_000_000;
        self.due().is_some_and(|due| now > due + LONG)
    }

    /// The signal has come. Whoever makes something runnable and then sees the timer armed, relies on
    /// the handler to see it: it must look after this, hence the fence.
    pub(crate) fn fired(&self) {
        self.due.fired();
    }

    fn set(&self, at: u64) {
        let at = libc::timespec {
            tv_sec: (at / 1_000_000_000) as libc::time_t,
            tv_nsec: (at % 1_000_000_000) as libc::c_long,
        };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::itimerspec { it_interval: once, it_value: at };
        // SAFETY: the timer exists, and the time is a valid one. (One that is deleted meanwhile is an
        // error, which is as good.)
        unsafe {
            libc::timer_settime(
                self.timer.load(Ordering::Relaxed),
                libc::TIMER_ABSTIME,
                &value,
                std::ptr::null_mut(),
            )
        };
    }

    /// Ends it.
    pub(crate) fn delete(&self) {
        if self.exists.swap(false, Ordering::AcqRel) {
            self.due.set(Due::NEVER);
            // SAFETY: it was created and is deleted once.
            unsafe { libc::timer_delete(self.timer.load(Ordering::Relaxed)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_moves_to_the_nearest_tick_within_its_bounds() {
        let tick = Tick::none();
        assert_eq!(
            tick.aligned(1_234, 1_000, 1_000),
            1_234,
            "nothing is known of the kernel's tick"
        );
        tick.period.store(4_000, Ordering::Relaxed);
        assert_eq!(tick.aligned(8_000, 0, 0), 8_000);
        assert_eq!(tick.aligned(8_300, 300, 0), 8_000);
        assert_eq!(tick.aligned(8_300, 299, 0), 8_300);
        assert_eq!(tick.aligned(7_700, 0, 300), 8_000);
        assert_eq!(tick.aligned(7_700, 9_999, 299), 4_000);
        assert_eq!(tick.aligned(9_000, 4_000, 4_000), 8_000);
        assert_eq!(tick.aligned(11_000, 4_000, 4_000), 12_000);
    }
}

//! A worker's clock: the monotonic one, read at half the cost.
//!
//! **Problem.** The clock is read once per switch, and `clock_gettime`, though it does not enter the kernel, is then
//! the dearest part of it: 12–17 ns, of which most goes into waiting for all earlier instructions.
//!
//! **Choice.** What that call does is done here, without the waiting: the processor's counter of cycles (`rdtsc`) is
//! read and scaled. Scale and base belong to one worker and are touched by its OS thread only, so that
//! nothing is to be synchronised. Every [`AGAIN`] the kernel's clock is asked, and the scale chosen so that both agree
//! at the next time: the clock never jumps back, and is right to well below a microsecond. A switch wants no more;
//! deadlines of timers are the kernel's business all the same.
//!
//! It is used where the kernel itself has found the counter good for its clock: if that is constant, goes on in
//! all states of the processor and is the same on all cores. Elsewhere, and until the scale is known, the kernel's
//! clock is read.

use std::cell::Cell;
use std::sync::OnceLock;

use super::now;
use crate::arch;

/// Nanoseconds from one comparison with the kernel's clock to the next.
const AGAIN: u64 = 10_000_000;
/// Stretches from which a scale can be told: in shorter ones the time that reading takes is too great a part.
const TELLING: std::ops::Range<u64> = 2_000_000..1_000_000_000;
/// Bits of the scale's fraction.
const FRACTION: u32 = 32;
/// How far the clock may be ahead before it is set back.
const FAR_AHEAD: u64 = 1_000_000;
/// Cycles within which the kernel's clock is read, unless the thread was interrupted meanwhile.
const UNDISTURBED: u64 = 2_000;

/// See the module's documentation. To be used by one OS thread.
pub(crate) struct Clock {
    /// Cycles are a measure of time. Found out beforehand, since whoever reads the clock may have no
    /// thread-locals of its own.
    steady: bool,
    /// A time, and the count of cycles then.
    base: Cell<u64>,
    cycles: Cell<u64>,
    /// Nanoseconds per cycle, and for how many cycles that is to be used: none if it is not known.
    scale: Cell<u64>,
    limit: Cell<u64>,
    /// What the kernel's clock said at the last comparison, 0 if there was none; and the scale measured by it.
    kernel: Cell<u64>,
    measured: Cell<u64>,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {
            steady: is_steady(),
            base: Cell::new(0),
            cycles: Cell::new(0),
            scale: Cell::new(0),
            limit: Cell::new(0),
            kernel: Cell::new(0),
            measured: Cell::new(0),
        }
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`, nearly.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        let passed = arch::cycles().wrapping_sub(self.cycles.get());
        if passed < self.limit.get() {
            self.base.get() + ((passed * self.scale.get()) >> FRACTION)
        } else {
            self.compare()
        }
    }

    /// What the clock says at that count of cycles, if the scale is known. (The stretch may be longer than the scale is
    /// good for.)
    fn extrapolated(&self, cycles: u64) -> Option<u64> {
        let passed = cycles.wrapping_sub(self.cycles.get());
        let scaled = (u128::from(passed) * u128::from(self.scale.get())) >> FRACTION;
        (self.scale.get() != 0).then(|| self.base.get().saturating_add(scaled as u64))
    }

    /// Asks the kernel.
    #[cold]
    #[inline(never)]
    fn compare(&self) -> u64 {
        if !self.steady {
            return now();
        }
        let before = arch::cycles();
        let time = now();
        let cycles = arch::cycles();
        // Behind, the clock jumps; ahead, it waits, or goes slower for a while.
        let ahead = self.extrapolated(before).map_or(0, |mine| mine.saturating_sub(time));
        let ahead = if ahead > FAR_AHEAD { 0 } else { ahead };
        let passed = cycles.wrapping_sub(self.cycles.get());
        let stretch = time.saturating_sub(self.kernel.get());
        let is_first = self.kernel.get() == 0;
        if cycles.wrapping_sub(before) > UNDISTURBED || stretch < TELLING.start && !is_first {
            // Nobody knows when in between it was, or it is too soon to tell: the next time, then.
            self.limit.set(0);
            return time + ahead;
        }
        if TELLING.contains(&stretch) && passed != 0 {
            self.measured.set((stretch << FRACTION) / passed);
        }
        self.base.set(time + ahead);
        self.cycles.set(cycles);
        self.kernel.set(time);
        let measured = self.measured.get();
        if measured != 0 {
            self.scale.set(
                measured - (u128::from(measured) * u128::from(ahead) / u128::from(AGAIN)) as u64,
            );
            self.limit.set((AGAIN << FRACTION) / measured);
        }
        time + ahead
    }
}

/// Whether cycles are a measure of time.
fn is_steady() -> bool {
    static STEADY: OnceLock<bool> = OnceLock::new();
    *STEADY.get_or_init(|| {
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        arch::cycles_are_steady()
            && std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_kernels_clock_and_never_goes_back() {
        let clock = Clock::new();
        let mut last = 0;
        let end = now() + 50_000_000;
        while now() < end {
            let before = now();
            let time = clock.now();
            let after = now();
            assert!(time >= last, "{last} was followed by {time}");
            assert!(time + 20_000 >= before, "{} behind", before - time);
            assert!(time <= after + 20_000, "{} ahead", time - after);
            last = time;
        }
        assert!(!clock.steady || clock.scale.get() != 0);
    }

    #[test]
    fn after_a_long_time_it_asks_the_kernel() {
        let clock = Clock::new();
        let start = now();
        while now() < start + 5_000_000 {
            clock.now();
        }
        // As if it had not been read for minutes.
        clock.cycles.set(clock.cycles.get().wrapping_sub(1 << 40));
        clock.base.set(clock.base.get() - 1_000_000_000);
        clock.kernel.set(clock.kernel.get().saturating_sub(1 << 39));
        let (before, time, after) = (now(), clock.now(), now());
        assert!(time <= after + 20_000 && time + 20_000 >= before);
    }
}

//! Runtimes that interrupt their threads as often as can be, and evidence that they did.

#![allow(dead_code)] // each test file uses a part

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uthread::{Runtime, RuntimeBuilder, Stats};

use super::watchdog::watched;

/// The slice of these runtimes.
pub(crate) const SLICE: Duration = Duration::from_micros(50);

/// Forced switches without which a scenario is not over.
const ENOUGH: u64 = 60;

/// A runtime with very short slices.
pub(crate) fn hectic(workers: usize) -> RuntimeBuilder {
    Runtime::builder().workers(workers).slice(SLICE)
}

/// Plays a scenario on hectic runtimes of one, two and four workers, again and again until its threads were
/// interrupted often enough. There are no others: it must have more of them than there are workers, and
/// they must compute.
pub(crate) fn interrupted(scenario: impl Fn() + Sync) {
    for workers in [1, 2, 4] {
        until(&hectic(workers).build().unwrap(), |now| now.forced_switches >= ENOUGH, &scenario);
    }
}

/// Plays a scenario again and again until the counters of the runtime show what they shall.
pub(crate) fn until(
    runtime: &Runtime,
    shown: impl Fn(&Stats) -> bool + Sync,
    scenario: impl Fn() + Sync,
) {
    watched(runtime, || {
        runtime.run(|| {
            while {
                scenario();
                !shown(&uthread::stats())
            } {}
        });
    });
}

/// Sets a flag when it is dropped, by a panic too: others wait for it.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Plays a scenario on a runtime of which the other workers are kept busy by threads that cannot be interrupted: all
/// threads of the scenario share one worker. (Those that come back from a helper may be sent to another one, and
/// wait there until this one has nothing else to do.)
pub(crate) fn on_the_last_worker(runtime: &Runtime, scenario: impl Fn() + Sync) {
    runtime.run(|| {
        let (busy, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let others = uthread::stats().workers - 1;
        uthread::scope(|s| {
            for _ in 0..others {
                s.spawn(|| {
                    uthread::without_preemption(|| {
                        busy.fetch_add(1, Ordering::Relaxed);
                        spin_until(&over);
                    });
                });
            }
            let _over = SetAtEnd(&over);
            while busy.load(Ordering::Relaxed) < others {
                uthread::yield_now();
            }
            scenario();
        });
    });
}

/// Times that threads went on on another worker than before, the first time not included.
pub(crate) fn migrations(stats: &Stats) -> u64 {
    let elsewhere = stats.helper_moves + stats.blocking_calls;
    stats.arrivals.saturating_sub(stats.spawned + elsewhere)
}

/// Runs `body` with the thread's number on so many green threads at once.
pub(crate) fn on_each(threads: usize, body: impl Fn(usize) + Sync) {
    uthread::scope(|s| {
        let body = &body;
        for i in 0..threads {
            s.spawn(move || body(i));
        }
    });
}

/// Plays a body with ever new seeds on several threads at once.
pub(crate) fn several_at_once(body: impl Fn(u64) + Sync) {
    let seeds = AtomicU64::new(1);
    interrupted(|| {
        on_each(10, |_| for_some_slices(|| body(seeds.fetch_add(1, Ordering::Relaxed))));
    });
}

/// Repeats what may be shorter than a slice, depending on machine and compiler.
pub(crate) fn for_some_slices(mut body: impl FnMut()) {
    let began = Instant::now();
    while {
        body();
        began.elapsed() < 5 * SLICE
    } {}
}

/// Computes until a flag is set, without a call.
pub(crate) fn spin_until(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
}

/// The OS thread underneath.
pub(crate) fn os_thread() -> libc::pid_t {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }
}

/// The name of the OS thread underneath: workers are called by the runtime's name and a number, helpers have
/// an `h` before the number.
pub(crate) fn os_thread_name() -> String {
    let mut name = [0_u8; 16];
    // SAFETY: the array is as long as this call demands (prctl(2)).
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether one of so many throws of a die comes up.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A sum that depends on every byte and its place (Fletcher's, with larger words).
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let (a, b) = bytes.iter().fold((1_u64, 0_u64), |(a, b), byte| {
        let a = a.wrapping_add(u64::from(*byte));
        (a, b.wrapping_add(a))
    });
    a ^ b.rotate_left(32)
}

/// Tells whoever spins, or looks now and then.
pub(crate) fn tell(it: &AtomicBool) {
    it.store(true, Ordering::Release);
}

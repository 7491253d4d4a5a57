//! Runtimes that interrupt their threads as often as can be.

#![allow(dead_code)] // each test file uses a part

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uthread::{Runtime, RuntimeBuilder, Stats};

use super::watchdog::watched;

/// A runtime with very short slices.
pub(crate) fn hectic(workers: usize) -> RuntimeBuilder {
    Runtime::builder().workers(workers).slice(Duration::from_micros(50))
}

/// Runs a scenario on hectic runtimes of one, two and four workers, together with hogs that see to it that
/// there is always a reason to interrupt; until the scenario is over and some threads were interrupted.
pub(crate) fn interrupted(scenario: impl Fn() + Sync) {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).build().unwrap();
        let forced = |stats: Stats| stats.forced_switches;
        watched(&runtime, || {
            runtime.run(|| {
                let over = AtomicBool::new(false);
                uthread::scope(|s| {
                    for _ in 0..workers {
                        s.spawn(|| {
                            while !over.load(Ordering::Relaxed) {
                                std::hint::spin_loop();
                            }
                        });
                    }
                    let _over = OnDrop(&over);
                    while forced(uthread::stats()) < 100 {
                        scenario();
                    }
                });
            });
        });
    }
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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

//! Making a green thread go on elsewhere, on purpose.
//!
//! A green thread that yields with another one behind it lets that one run. If the other one, a
//! [`Hog`], never leaves its worker, the first is runnable and unserved, and an idle worker takes it.
//! That it did is read off the kernel's thread id, which is the worker's.

#[path = "watchdog.rs"]
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use uthread::Runtime;

/// More than the processors of a small machine, so that the kernel preempts workers wherever they are.
pub(crate) const WORKERS: usize = 4;

/// How long an idle worker may take to come, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a scenario as a green thread of a runtime with several workers.
pub(crate) fn among_several_workers<T: Send>(scenario: impl FnOnce() -> T + Send) -> T {
    let runtime = Runtime::builder().workers(WORKERS).build().unwrap();
    watchdog::watched(&runtime, || runtime.run(scenario))
}

/// The OS thread underneath, that is, the worker.
fn worker() -> libc::pid_t {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }
}

/// A green thread that keeps a worker busy until it is dropped, or until patience ends.
struct Hog(Arc<AtomicBool>);

impl Hog {
    fn spawn() -> Hog {
        let sated = Arc::new(AtomicBool::new(false));
        let stop = sated.clone();
        uthread::spawn(move || {
            // For two threads behind a busy one, a sleeping worker is sent for at once; for one alone it
            // comes when it next looks around.
            uthread::spawn(|| ());
            let began = Instant::now();
            while !stop.load(Relaxed) && began.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        });
        Hog(sated)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Makes the calling green thread go on on another worker.
///
/// That takes a worker without work: at most `WORKERS - 1` threads may call this at a time.
pub(crate) fn migrate() {
    migrate_after(|| ());
}

/// As [`migrate`]; between the last call of `prepare` and the return, the thread calls nothing but
/// `yield_now` and `gettid`.
pub(crate) fn migrate_after(mut prepare: impl FnMut()) {
    let before = worker();
    let began = Instant::now();
    // An idle worker may take the hog instead. Then the next one will do.
    while began.elapsed() < PATIENCE {
        let _hog = Hog::spawn();
        prepare();
        uthread::yield_now();
        if worker() != before {
            return;
        }
    }
    panic!("the other workers are busy, or do not take what waits");
}

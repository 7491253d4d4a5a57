//! A shared library that uses green threads, for a program that knows nothing of them. What it takes is that
//! `crate-type` is `cdylib` in `Cargo.toml`; `tests/shared_library.rs` loads it.

use std::sync::atomic::{AtomicBool, Ordering};

use uthread::Runtime;

/// Has a thread that computes interrupted in favour of another one, and returns how often that was done; 0 if
/// it cannot be.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_forced_switches() -> u64 {
    let Ok(runtime) = Runtime::builder().workers(1).build() else { return 0 };
    if runtime.preemption().is_err() {
        return 0;
    }
    let told = AtomicBool::new(false);
    runtime.run(|| {
        uthread::scope(|s| {
            s.spawn(|| {
                while !told.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            s.spawn(|| told.store(true, Ordering::Relaxed));
        });
    });
    runtime.stats().forced_switches
}

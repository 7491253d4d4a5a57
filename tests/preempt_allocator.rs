//! An allocator that makes system calls while it holds its lock, as malloc does now and then.
//!
//! A thread that is found in one is taken to be blocked, and is moved to a helper. To start one takes memory.
#![cfg(target_arch = "x86_64")] // elsewhere nobody is interrupted yet

#[path = "common/preempt.rs"]
mod preempt;
#[path = "common/watchdog.rs"]
mod watchdog;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use preempt::{hectic, on_each};
use watchdog::watched;

/// The system's allocator, under a lock.
struct Locked(Mutex<()>);

/// What is slow to allocate: a call as of `mmap` on a busy machine.
const SLOW: usize = 12_345;
const DELAY: Duration = Duration::from_millis(2);

/// By a system call that does not come to the runtime.
fn sleep_in_the_kernel() {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: DELAY.subsec_nanos().into() };
    let at = &raw mut time;
    // SAFETY: the pointers are valid. If it is interrupted, the kernel writes the rest.
    while unsafe { libc::syscall(libc::SYS_nanosleep, at, at) } != 0 {}
}

// SAFETY: whatever is asked is asked of the system's.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if layout.size() == SLOW {
            sleep_in_the_kernel();
        }
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Locked = Locked(Mutex::new(()));

#[test]
fn threads_that_block_with_the_allocators_lock_in_hand_get_on() {
    for workers in [1, 2, 4] {
        let runtime = hectic(workers).build().unwrap();
        watched(&runtime, || {
            runtime.run(|| {
                while uthread::stats().helper_moves < 20 {
                    on_each(3 * workers, |i| {
                        let bytes = std::hint::black_box(vec![i as u8; SLOW]);
                        assert!(bytes.iter().all(|b| *b == i as u8));
                    });
                }
            });
        });
    }
}

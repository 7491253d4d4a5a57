//! `sem_wait` and its relatives.
//!
//! As mutexes ([`mutex`](super::mutex)), semaphores are waited for by the ring, and `sem_post`, which may be called in
//! signal handlers, is the C library's. A semaphore is one word of 64 bits (glibc 2.21, 64-bit targets): its value, and
//! above that how many wait, so that who posts knows whether to wake. A second word says whether processes share it.

use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libc::{clockid_t, sem_t, timespec};

use super::Answer;
use super::sleep::Until;
use super::word::{Outcome, wait_for};
use crate::preempt::KeepErrno;

/// One that waits, in the upper half of the word.
const WAITER: u64 = 1 << 32;
/// Which word of 32 bits is zero unless processes share the semaphore.
const SHARED: usize = 2;

/// `sem_wait`.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn wait(semaphore: *mut sem_t) -> Answer {
    // SAFETY: as the caller says.
    unsafe { wait_until(semaphore, None) }
}

/// `sem_clockwait`, and `sem_timedwait`. Time and clock are looked at in any case.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    time: *const timespec,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        match Until::new(clock, time) {
            None => Answer::Forward,
            until => wait_until(semaphore, until),
        }
    }
}

/// # Safety
///
/// It is a semaphore.
unsafe fn wait_until(semaphore: *mut sem_t, until: Option<Until>) -> Answer {
    let _errno = KeepErrno::new();
    // SAFETY: as the caller says.
    if unsafe { libc::sem_trywait(semaphore) } == 0 {
        return Answer::Quick(0);
    }
    if !is_as_known() {
        return Answer::Help;
    }
    // SAFETY: a semaphore is four words, aligned for the first two together, and accessed atomically by all.
    let (both, value, shared) = unsafe {
        let words = semaphore.cast::<u32>();
        let both = AtomicU64::from_ptr(words.cast());
        (both, AtomicU32::from_ptr(words), words.add(SHARED).read() != 0)
    };
    both.fetch_add(WAITER, Ordering::Relaxed);
    loop {
        let taken = both.fetch_update(Ordering::Acquire, Ordering::Relaxed, |both| {
            (both as u32 > 0).then(|| both - 1 - WAITER)
        });
        if taken.is_ok() {
            return Answer::Done(0);
        }
        let outcome = wait_for(value, 0, !shared, until);
        if let Outcome::Again = outcome {
            continue;
        }
        both.fetch_sub(WAITER, Ordering::Relaxed);
        return match outcome {
            Outcome::TimeIsUp => Answer::Failed(libc::ETIMEDOUT),
            _ => Answer::Help,
        };
    }
}

/// Whether semaphores are as this module says.
fn is_as_known() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        [0, 1].into_iter().all(|shared| {
            let mut semaphore = MaybeUninit::<sem_t>::zeroed();
            let semaphore = semaphore.as_mut_ptr();
            // SAFETY: a semaphore of this function's, which nobody else knows and nobody waits for.
            unsafe {
                let made = libc::sem_init(semaphore, shared, 3) == 0;
                let both = AtomicU64::from_ptr(semaphore.cast());
                let new = both.fetch_add(WAITER, Ordering::Relaxed);
                let posted = libc::sem_post(semaphore) == 0;
                let is_shared = semaphore.cast::<u32>().add(SHARED).read() != 0;
                let four = both.load(Ordering::Relaxed);
                let taken = libc::sem_trywait(semaphore) == 0;
                made && posted
                    && taken
                    && is_shared == (shared == 1)
                    && [new, four, both.load(Ordering::Relaxed)] == [3, WAITER + 4, WAITER + 3]
            }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn semaphores_are_as_this_module_says() {
        assert!(super::is_as_known());
    }
}

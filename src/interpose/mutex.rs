//! `pthread_mutex_lock` and its relatives.
//!
//! **Problem.** A mutex of the C library's that is taken makes its callers wait in a futex(2) that is compiled into the library:
//! there is no call to define. Who unlocks wakes them by another, from within `pthread_mutex_unlock`,
//! `pthread_cond_wait`, C11's `mtx_unlock`.
//!
//! **Alternatives.** To wait in a table of this process means to define all that unlocks; what is missed is a thread
//! that waits for ever, and every unlocking pays for the look into the table. To wait on helpers is right, but helpers are
//! few.
//!
//! **Choice.** The ring can wait for a futex's word (Linux 6.7), in the kernel, where *whoever* unlocks wakes. So a
//! green thread does what the C library does, and only waits otherwise. Nothing that unlocks is defined; OS threads
//! and green ones wait in one queue, first come, first served.
//!
//! **The word** has three values: 0 free, 1 taken, 2 taken and perhaps waited for. Who wants to wait makes it 2, and waits as long
//! as it is 2. Who unlocks makes it 0, and wakes one waiter if it was 2. Who has waited and then takes the lock does not
//! know of others that wait, so it leaves 2 behind:
//!
//! | event | word |
//! |---|---|
//! | `pthread_mutex_trylock` succeeds | 0 → 1 |
//! | the same after a wait, by the owner | 0 → 1 → 2 |
//! | before a wait | 1 → 2 |
//! | `pthread_mutex_unlock` | 1 → 0; 2 → 0, and one is woken |
//!
//! No wake-up is lost: as long as somebody waits, the word is 2, or it is not and somebody is awake who was woken and will
//! make it so, or find it so, before it waits or unlocks. (Between 0 → 1 and 1 → 2 the one who does it is the owner.)
//!
//! **Whose word.** Its place, its values and where the mutex says of which kind it is are compiled into programs by
//! `PTHREAD_MUTEX_INITIALIZER` and its relatives, and into other libraries' ideas; still, they are looked at before the
//! first wait ([`is_as_known`]). If they are others, or the kernel is older, waiting is done on helpers. So it is
//! for mutexes that are robust or whose owners inherit priority, and those whose locks may be elided: the kernel or
//! the processor has a part in these.
//!
//! **Who owns it** says the tid in the thread block. A green thread has its own, wherever it runs.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{clockid_t, pthread_mutex_t, pthread_mutexattr_t, timespec};

use super::Answer;
use super::sleep::Until;
use super::symbols::next;
use super::word::{Outcome, wait_for};

use crate::preempt::KeepErrno;

/// Values of the word.
const FREE: u32 = 0;
const TAKEN: u32 = 1;
const WAITED_FOR: u32 = 2;

/// Words of a mutex.
const WORDS: usize = size_of::<pthread_mutex_t>() / size_of::<u32>();
/// In which of them its kind is, and what the bits mean.
const KIND: usize = 4;
const TYPE: u32 = 3;
const CHECKS_OWNER: u32 = libc::PTHREAD_MUTEX_ERRORCHECK as u32;
const ROBUST: u32 = 16;
const INHERITS_PRIORITY: u32 = 32;
const HAS_CEILING: u32 = 64;
const SHARED: u32 = 128;
const ELIDED: u32 = 256;

/// A time that has passed.
const PAST: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

/// `pthread_mutex_lock`.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn lock(mutex: *mut pthread_mutex_t) -> Answer {
    // SAFETY: as the caller says.
    unsafe { lock_or(mutex, || wait(mutex, None)) }
}

/// `pthread_mutex_timedlock`. The time is looked at if it has to wait.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn timedlock(mutex: *mut pthread_mutex_t, time: *const timespec) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        lock_or(mutex, || match Until::new(libc::CLOCK_REALTIME, time) {
            None => Answer::Forward,
            until => wait(mutex, until),
        })
    }
}

/// `pthread_mutex_clocklock`. The clock is looked at in any case.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn clocklock(
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    time: *const timespec,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        match Until::new(clock, time) {
            None => Answer::Forward,
            until => lock_or(mutex, || wait(mutex, until)),
        }
    }
}

/// Locks a mutex that is free, or says why it cannot be locked; if somebody has it, what `wait` says.
///
/// # Safety
///
/// It is a mutex.
unsafe fn lock_or(mutex: *mut pthread_mutex_t, wait: impl FnOnce() -> Answer) -> Answer {
    // SAFETY: as the caller says.
    match unsafe { libc::pthread_mutex_trylock(mutex) } {
        libc::EBUSY => wait(),
        result => Answer::Quick(result as isize),
    }
}

/// Waits for a mutex that somebody has, perhaps the caller.
///
/// # Safety
///
/// As the C library's.
#[cold]
unsafe fn wait(mutex: *mut pthread_mutex_t, until: Option<Until>) -> Answer {
    let _errno = KeepErrno::new();
    let at = |index: usize| {
        // SAFETY: a mutex is larger than that, aligned for integers, and accessed atomically by all.
        unsafe { AtomicU32::from_ptr(mutex.cast::<u32>().add(index)) }
    };
    let kind = at(KIND).load(Ordering::Relaxed);
    let is_plain = kind & (ROBUST | INHERITS_PRIORITY | HAS_CEILING | ELIDED) == 0;
    if !is_plain || !is_as_known() {
        return Answer::Help;
    }
    if kind & TYPE == CHECKS_OWNER {
        // The C library knows its owner: for others the time is up.
        // SAFETY: as the caller says.
        match unsafe { next::pthread_mutex_timedlock.get()(mutex, &PAST) } {
            libc::ETIMEDOUT => {}
            result => return Answer::Done(result as isize),
        }
    }
    let (word, private) = (at(0), kind & SHARED == 0);
    loop {
        match word.compare_exchange(TAKEN, WAITED_FOR, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) | Err(WAITED_FOR) => match wait_for(word, WAITED_FOR, private, until) {
                Outcome::Again => {}
                Outcome::TimeIsUp => return Answer::Done(libc::ETIMEDOUT as isize),
                Outcome::Unknown => return Answer::Help,
            },
            Err(FREE) => {}
            Err(_) => return Answer::Help,
        }
        // SAFETY: as the caller says.
        match unsafe { libc::pthread_mutex_trylock(mutex) } {
            libc::EBUSY => {}
            0 => {
                // Others may wait.
                let _ =
                    word.compare_exchange(TAKEN, WAITED_FOR, Ordering::Relaxed, Ordering::Relaxed);
                return Answer::Done(0);
            }
            result => return Answer::Done(result as isize),
        }
    }
}

/// Whether mutexes are as this module says.
fn is_as_known() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(probe)
}

fn probe() -> bool {
    /// A mutex's words when it is new, with attributes as `set` makes them.
    fn new(set: impl FnOnce(*mut pthread_mutexattr_t) -> c_int) -> Option<[u32; WORDS]> {
        let mut attributes = MaybeUninit::uninit();
        let mut mutex = MaybeUninit::<pthread_mutex_t>::zeroed();
        // SAFETY: attributes and mutex are made before they are used, and unmade after that.
        unsafe {
            let made = libc::pthread_mutexattr_init(attributes.as_mut_ptr()) == 0
                && set(attributes.as_mut_ptr()) == 0
                && libc::pthread_mutex_init(mutex.as_mut_ptr(), attributes.as_ptr()) == 0;
            let words = mutex.as_ptr().cast::<[u32; WORDS]>().read();
            libc::pthread_mutexattr_destroy(attributes.as_mut_ptr());
            made.then_some(words)
        }
    }

    // SAFETY: the attributes are valid where these are called.
    let kinds = unsafe {
        [
            (new(|_| 0), 0),
            (new(|a| libc::pthread_mutexattr_settype(a, CHECKS_OWNER as c_int)), CHECKS_OWNER),
            (new(|a| libc::pthread_mutexattr_setpshared(a, libc::PTHREAD_PROCESS_SHARED)), SHARED),
            (new(|a| libc::pthread_mutexattr_setrobust(a, libc::PTHREAD_MUTEX_ROBUST)), ROBUST),
            (
                new(|a| libc::pthread_mutexattr_setprotocol(a, libc::PTHREAD_PRIO_INHERIT)),
                INHERITS_PRIORITY,
            ),
            (
                new(|a| libc::pthread_mutexattr_setprotocol(a, libc::PTHREAD_PRIO_PROTECT)),
                HAS_CEILING,
            ),
        ]
    };
    // Robust ones are shared, too: the kernel wakes those who wait for them.
    let is_so = |(words, kind): &(Option<[u32; WORDS]>, u32)| {
        words.is_some_and(|w| w[KIND] == *kind || *kind == ROBUST && w[KIND] == ROBUST | SHARED)
    };
    if !kinds.iter().all(is_so) {
        return false;
    }

    let mutex = UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER);
    // SAFETY: the word is the mutex's first.
    let word = || unsafe { AtomicU32::from_ptr(mutex.get().cast()) }.load(Ordering::Relaxed);
    // SAFETY: a mutex of this function's, which nobody else knows, and which is not locked at the end.
    unsafe {
        let new = word();
        let locked = libc::pthread_mutex_trylock(mutex.get()) == 0;
        let taken = word();
        let busy = next::pthread_mutex_timedlock.get()(mutex.get(), &PAST) == libc::ETIMEDOUT;
        let waited_for = word();
        let unlocked = libc::pthread_mutex_unlock(mutex.get()) == 0;
        locked
            && busy
            && unlocked
            && [new, taken, waited_for, word()] == [FREE, TAKEN, WAITED_FOR, FREE]
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutexes_are_as_this_module_says() {
        assert!(super::is_as_known());
    }
}

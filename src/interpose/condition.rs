//! `pthread_cond_wait` and its relatives.
//!
//! **Problem.** What a condition variable of the C library's consists of is the library's own affair and changes
//! between its versions, so that green threads cannot wait in it. To wait on helpers is right, but a thousand threads
//! that wait for work would need a thousand.
//!
//! **Choice.** Green threads wait in a table of this process, by the condition variable's address; OS threads in the C
//! library. `pthread_cond_signal` and `pthread_cond_broadcast` are defined, too, and wake in both: a signal, which is
//! to wake at least one, wakes one of each. Of the variable itself no green thread changes anything.
//!
//! **No wake-up is lost.** A waiter is in the table before it unlocks the mutex. Who signals has changed, with the mutex
//! locked, what the waiter waits for; so it has locked the mutex after the waiter unlocked it, and sees the waiter
//! in the table, or before the waiter locked it, and the waiter has seen the change. Hence a look at how many wait is
//! enough where nobody does, without a fence.
//!
//! **Who signals in another way** is not heard: a library that is bound to the C library by itself (`RTLD_DEEPBIND`) may
//! have condition variables of its own, but not wake others' waiters. Where the program as a whole is bound
//! like that, and this crate's functions are not those that others find (it is part of a plugin, for example), green
//! threads wait on helpers.
//!
//! Variables that processes share are waited for on helpers: the others do not know the table. What a variable says of
//! that, and of its clock, is found by a look at new ones.
//!
//! **Versions.** In the C library of x86-64 these functions exist twice, since those of before 2003 took a smaller
//! variable; dlsym(3) finds the current ones. Programs of that age are not served.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::{clockid_t, pthread_cond_t, pthread_condattr_t, pthread_mutex_t, timespec};

use super::Answer;
use super::sleep::Until;
use super::symbols;
use crate::preempt::KeepErrno;
use crate::reason::WaitReason;
use crate::worker::wait_table::{WaitTable, Waiter};
use crate::worker::{self, Deadline, end_wait};

/// Green threads that wait.
pub(super) static TABLE: WaitTable = WaitTable::new();

/// They have no masks.
const ANY: u32 = u32::MAX;

/// Whether others find this crate's functions.
static IS_HEARD: AtomicBool = AtomicBool::new(false);

/// When the program is loaded.
pub(super) fn look_up() {
    let ours = symbols::pthread_cond_signal as unsafe extern "C" fn(_) -> _;
    // SAFETY: the name is a C string.
    let theirs = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_cond_signal".as_ptr()) };
    IS_HEARD.store(std::ptr::eq(ours as *const (), theirs.cast()), Ordering::Relaxed);
}

/// `pthread_cond_wait`.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn wait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        match Traits::of(condition) {
            Some(Traits { shared: false, .. }) => park(condition, mutex, None),
            _ => Answer::Help,
        }
    }
}

/// `pthread_cond_timedwait`.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    time: *const timespec,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        match Traits::of(condition) {
            Some(Traits { shared: false, clock }) => park_until(condition, mutex, clock, time),
            _ => Answer::Help,
        }
    }
}

/// `pthread_cond_clockwait`.
///
/// # Safety
///
/// As the C library's.
pub(super) unsafe fn clockwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    time: *const timespec,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        match Traits::of(condition) {
            Some(Traits { shared: false, .. }) => park_until(condition, mutex, clock, time),
            _ => Answer::Help,
        }
    }
}

/// # Safety
///
/// As the C library's.
unsafe fn park_until(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    time: *const timespec,
) -> Answer {
    // SAFETY: as the caller says.
    unsafe {
        match Until::new(clock, time) {
            None => Answer::Forward,
            until => park(condition, mutex, until),
        }
    }
}

/// Wakes up to `most` green threads that wait for the condition variable at that address.
#[inline]
pub(super) fn wake(address: usize, most: u32) {
    let bucket = TABLE.bucket(address);
    if !bucket.is_empty() {
        bucket.wake(address, most, ANY, end_wait);
    }
}

/// # Safety
///
/// As the C library's.
unsafe fn park(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: Option<Until>,
) -> Answer {
    let _errno = KeepErrno::new();
    let bucket = TABLE.bucket(condition.addr());
    let waiter = Waiter::new(condition.addr(), ANY);
    // SAFETY: the waiter stays here until it is out of the bucket's list: it is when it was notified, and when it
    // was taken out.
    unsafe { bucket.wait(&waiter, || true) };
    // SAFETY: as the caller says.
    let error = unsafe { libc::pthread_mutex_unlock(mutex) };
    if error != 0 {
        // Not the caller's mutex.
        if !withdraw(&waiter) {
            wake(condition.addr(), 1);
        }
        return Answer::Done(error as isize);
    }
    let woken = loop {
        let (deadline, is_final) = match until.map(Until::deadline) {
            None => (None, true),
            Some(Some(deadline)) => (Some(deadline), false),
            Some(None) => (Some(Deadline::at(0)), true),
        };
        if worker::wait(&waiter.parker, deadline, WaitReason::Condition) {
            break true;
        }
        if is_final {
            break !withdraw(&waiter);
        }
    };
    // SAFETY: as the caller says.
    let error = unsafe { libc::pthread_mutex_lock(mutex) };
    Answer::Done(match error {
        0 if woken => 0,
        0 => libc::ETIMEDOUT as isize,
        error => error as isize,
    })
}

/// Takes the caller's waiter out of the table; false if somebody has done so, to wake it.
fn withdraw(waiter: &Waiter) -> bool {
    let removed = TABLE.bucket(waiter.address()).remove(waiter);
    if !removed {
        worker::wait(&waiter.parker, None, WaitReason::Condition);
    }
    removed
}

/// What a condition variable was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traits {
    shared: bool,
    clock: clockid_t,
}

/// Words of a condition variable.
const WORDS: usize = size_of::<pthread_cond_t>() / size_of::<u32>();

/// A bit of one of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bit {
    word: usize,
    mask: u32,
}

impl Traits {
    /// `None` if they cannot be read, or green threads cannot wait in the table.
    ///
    /// # Safety
    ///
    /// It is a condition variable.
    unsafe fn of(condition: *mut pthread_cond_t) -> Option<Traits> {
        static BITS: OnceLock<Option<(Bit, Bit)>> = OnceLock::new();
        let (shared, monotonic) = (*BITS.get_or_init(find_bits))?;
        let is_set = |bit: Bit| {
            // SAFETY: it is within the variable, aligned, and accessed atomically by all.
            let word = unsafe { AtomicU32::from_ptr(condition.cast::<u32>().add(bit.word)) };
            word.load(Ordering::Relaxed) & bit.mask != 0
        };
        let clock = if is_set(monotonic) { libc::CLOCK_MONOTONIC } else { libc::CLOCK_REALTIME };
        IS_HEARD.load(Ordering::Relaxed).then(|| Traits { shared: is_set(shared), clock })
    }
}

/// Which bits say that a variable is shared, and that its clock is the monotonic one: those by which new ones differ
/// that were made so.
fn find_bits() -> Option<(Bit, Bit)> {
    fn new(set: impl FnOnce(*mut pthread_condattr_t) -> c_int) -> Option<[u32; WORDS]> {
        let mut attributes = MaybeUninit::uninit();
        let mut condition = MaybeUninit::<pthread_cond_t>::zeroed();
        // SAFETY: attributes and variable are made before they are used, and unmade after that.
        unsafe {
            let made = libc::pthread_condattr_init(attributes.as_mut_ptr()) == 0
                && set(attributes.as_mut_ptr()) == 0
                && libc::pthread_cond_init(condition.as_mut_ptr(), attributes.as_ptr()) == 0;
            let words = condition.as_ptr().cast::<[u32; WORDS]>().read();
            libc::pthread_condattr_destroy(attributes.as_mut_ptr());
            made.then_some(words)
        }
    }
    let bit = |words: [u32; WORDS]| {
        let mut set = (0..WORDS).filter(|&word| words[word] != 0);
        let word = set.next()?;
        let mask = words[word];
        (set.next().is_none() && mask.is_power_of_two()).then_some(Bit { word, mask })
    };
    // SAFETY: the attributes are valid where these are called.
    let (plain, shared, monotonic) = unsafe {
        (
            new(|_| 0)?,
            new(|a| libc::pthread_condattr_setpshared(a, libc::PTHREAD_PROCESS_SHARED))?,
            new(|a| libc::pthread_condattr_setclock(a, libc::CLOCK_MONOTONIC))?,
        )
    };
    if plain != [0; WORDS] {
        return None;
    }
    Some((bit(shared)?, bit(monotonic)?)).filter(|(shared, monotonic)| shared != monotonic)
}

#[cfg(test)]
mod tests {
    use super::super::symbols::{NEXT_BROADCAST, NEXT_SIGNAL, next};
    use super::*;

    #[test]
    fn the_bits_are_found_and_the_functions_heard() {
        let mut condition = libc::PTHREAD_COND_INITIALIZER;
        // SAFETY: it is a condition variable.
        let traits = unsafe { Traits::of(&mut condition) };
        assert_eq!(traits, Some(Traits { shared: false, clock: libc::CLOCK_REALTIME }));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_current_versions_are_called() {
        for (name, found) in [
            (c"pthread_cond_wait", next::pthread_cond_wait.look_up()),
            (c"pthread_cond_timedwait", next::pthread_cond_timedwait.look_up()),
            (c"pthread_cond_signal", NEXT_SIGNAL.look_up()),
            (c"pthread_cond_broadcast", NEXT_BROADCAST.look_up()),
        ] {
            // SAFETY: both are C strings.
            let current =
                unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), c"GLIBC_2.3.2".as_ptr()) };
            assert_eq!(found, current, "{name:?}");
        }
    }
}

//! futex(2): what `std::sync`, `std::thread::park`, and most locks of other crates wait on.
//!
//! **Problem.** A lock that is taken makes its callers wait until a word of memory changes, and the kernel's futex is where
//! they do. Green threads wait in a table of this process ([`WaitTable`]) instead; OS threads go on to wait in the
//! kernel. Both may wait on one word, and whoever wakes them knows of neither.
//!
//! **Who is woken.** A wake-up is for the green waiters first, since to ask the kernel costs a system call, and
//! for those in the kernel if it asks for more than there are. So that OS threads are not passed over for ever by a crowd
//! of green ones, they are counted per bucket while they wait, and as long as there are any, half of the wake-ups
//! go to the kernel first. The count is for fairness alone: OS threads that wait without it (by a system
//! call of their own) are woken when no green thread waits.
//!
//! **Signal handlers** may call futex(2) to wake (not to wait), since to the kernel a wake-up is a system call as any other,
//! and some do, by `std`'s `unpark`. But here it takes the bucket's lock and a run queue's, and changes what a worker alone
//! changes; and the handler may have interrupted, on this very OS thread, whoever holds these locks or is in the middle of
//! such a change. So a wake-up is made only if it is on top of no code of the runtime's ([`caller::may_wake`]). If it cannot
//! be told, it is **handed over**: the kernel wakes its waiters as it was asked to, the bucket is noted, and a monitor wakes all
//! green threads in it, by and by. That is more than were asked for, and the result says less; but waiters expect
//! wake-ups for no reason, and nobody knows better how many there are.
//!
//! - *Nobody waits for himself, and nothing is changed while it is being changed*: to hand over takes two system calls and
//!   one atomic instruction, and no lock. To wake directly takes locks, but whoever it has interrupted has none: the locks
//!   and the state of workers are the workers', in their loops, and others' only when they are pinned by the runtime.
//! - *No wake-up is lost*: [`worker::wait_table`]. There is a monitor as long as a green thread
//!   waits, that of its runtime, which listens from before that thread's beginning; and all are told.
//! - *Who is handed over to waits for nobody who waits for that.* The wake-ups of locks are all direct, but for those in
//!   pinned sections of the runtime's, for whose locks only OS threads and pinned ones wait, in the kernel.
//!
//! **Private and shared.** Words that processes share are the kernel's alone: there green threads wait on a helper.
//!
//! **Requeueing** moves waiters from one word to another so that they do not all run at once. Green ones are
//! woken instead: a waiter has to expect wake-ups for no reason.

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::timespec;

use super::next::Next;
use super::sleep::{deadline_on, duration};
use super::{Answer, caller};
use crate::preempt::KeepErrno;
use crate::reason::WaitReason;
use crate::worker::wait_table::{Enlistment, WaitTable, Waiter};
use crate::worker::{self, Deadline, GreenRef, end_wait, wait, wait_by_address};

type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

/// The C library's `syscall`.
// SAFETY: the arguments of a variadic function are passed as those of one with seven.
pub(super) static SYSCALL: Next<Syscall> = unsafe { Next::new(c"syscall") };

/// Looks it up, when the program is loaded.
pub(super) fn look_up() {
    SYSCALL.look_up();
}

/// Green threads that wait.
pub(super) static TABLE: WaitTable = WaitTable::new();

/// Any bit of a waiter's mask wakes it.
const ANY: u32 = u32::MAX;

/// The system call.
///
/// # Safety
///
/// As futex(2): the pointers that the operation uses are valid; except that for the word of a wait it is not an error
/// (`EFAULT`) but undefined behaviour if it is not readable.
pub(super) unsafe fn futex(
    word: usize,
    operation: c_int,
    value: u32,
    timeout: usize,
    second: usize,
    mask: u32,
) -> Answer {
    let private = operation & libc::FUTEX_PRIVATE_FLAG != 0;
    let realtime = operation & libc::FUTEX_CLOCK_REALTIME != 0;
    let command = operation & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    if !private || !word.is_multiple_of(align_of::<AtomicU32>()) {
        return Answer::Forward;
    }
    let kernel = |operation: c_int, value: u32, timeout: usize| {
        // SAFETY: the system call that was asked for, with another number of waiters perhaps.
        unsafe {
            SYSCALL.get()(
                libc::SYS_futex,
                word,
                operation as usize,
                value as usize,
                timeout,
                second,
                mask as usize,
            )
        }
    };
    match command {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
            let mask = if command == libc::FUTEX_WAIT { ANY } else { mask };
            let timeout = timeout as *const timespec;
            let Some(thread) = caller::green() else {
                let in_kernel = || Answer::of(kernel(operation, value, timeout.addr()) as isize);
                return TABLE.bucket(word).in_kernel(in_kernel);
            };
            if mask == 0 || realtime && command == libc::FUTEX_WAIT {
                return Answer::Forward;
            }
            // SAFETY: the caller vouches for the pointer.
            let limit = match unsafe { timeout.as_ref() } {
                None => Limit::None,
                Some(&time) => match duration(time) {
                    None => return Answer::Failed(libc::EINVAL),
                    Some(time) if command == libc::FUTEX_WAIT => Limit::At(Deadline::after(time)),
                    Some(time) if realtime => Limit::On(libc::CLOCK_REALTIME, time),
                    Some(time) => Limit::On(libc::CLOCK_MONOTONIC, time),
                },
            };
            // SAFETY: the word is aligned, and readable as the caller says.
            let word = unsafe { AtomicU32::from_ptr(word as *mut u32) };
            wait_on(thread, word, value, mask, limit)
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            let mask = if command == libc::FUTEX_WAKE { ANY } else { mask };
            // The kernel wakes one where none is asked for.
            let most = value.clamp(1, i32::MAX as u32);
            wake(word, most, mask, |most| kernel(operation, most, timeout))
        }
        libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP => {
            let result = kernel(operation, value, timeout);
            if result < 0 {
                return Answer::of(result as isize);
            }
            let woken = |word: usize| {
                if caller::may_wake() {
                    TABLE.bucket(word).wake(word, u32::MAX, ANY, end_wait)
                } else {
                    hand_over(word);
                    0
                }
            };
            let both = command == libc::FUTEX_WAKE_OP;
            let woken = woken(word) + if both { woken(second) } else { 0 };
            Answer::Done(result as isize + woken as isize)
        }
        _ => Answer::Forward,
    }
}

/// How long to wait.
#[derive(Clone, Copy)]
enum Limit {
    None,
    At(Deadline),
    /// Until a point of a clock that may be set meanwhile.
    On(libc::clockid_t, std::time::Duration),
}

fn wait_on(thread: GreenRef, word: &AtomicU32, expected: u32, mask: u32, limit: Limit) -> Answer {
    let address = std::ptr::from_ref(word).addr();
    let bucket = TABLE.bucket(address);
    let waiter = &Waiter::new(address, mask);
    if matches!(limit, Limit::None) {
        // The look before it leaves its worker is for the sake of speed.
        let waits = word.load(Ordering::SeqCst) == expected
            && wait_by_address(
                thread,
                &Enlistment { waiter, bucket, word, expected },
                WaitReason::Futex,
            );
        return if waits { Answer::Done(0) } else { Answer::Failed(libc::EAGAIN) };
    }
    // SAFETY: the waiter stays here until it is out of the bucket's list: it is when it was notified, and
    // when it was taken out below.
    let waits = unsafe { bucket.wait(waiter, || word.load(Ordering::SeqCst) == expected) };
    if !waits {
        return Answer::Failed(libc::EAGAIN);
    }
    caller::count(thread);
    if wait_until(waiter, limit) {
        return Answer::Done(0);
    }
    if bucket.remove(waiter) {
        return Answer::Failed(libc::ETIMEDOUT);
    }
    // Somebody has taken it out and is going to notify it.
    wait(&waiter.parker, None, WaitReason::Futex);
    Answer::Done(0)
}

/// Waits for a wake-up or the limit; whether there was a wake-up.
fn wait_until(waiter: &Waiter, limit: Limit) -> bool {
    loop {
        let (deadline, is_final) = match limit {
            Limit::None => (None, true),
            Limit::At(deadline) => (Some(deadline), true),
            Limit::On(clock, time) => {
                let deadline = deadline_on(clock, time);
                (Some(deadline.unwrap_or(Deadline::at(0))), deadline.is_none())
            }
        };
        if wait(&waiter.parker, deadline, WaitReason::Futex) {
            return true;
        }
        if is_final {
            return false;
        }
    }
}

/// Has the kernel wake its waiters, and a monitor the green ones; what the kernel says.
#[cold]
fn wake_by_others(word: usize, kernel: impl FnOnce() -> c_long) -> Answer {
    let result = Answer::of(kernel() as isize);
    if let Answer::Done(_) = result {
        hand_over(word);
    }
    result
}

/// Has a monitor wake all green threads that wait on the word, and perhaps more. Async-signal-safe.
#[cold]
fn hand_over(word: usize) {
    if IS_CHILD.load(Ordering::Relaxed) {
        return;
    }
    TABLE.hand_over(word);
    let _errno = KeepErrno::new();
    worker::poke_all();
}

/// What a monitor does about it.
pub(crate) fn wake_handed_over() {
    TABLE.wake_handed_over(end_wait);
}

/// This is the child of a fork(2), where there are neither green threads that wait nor monitors; the bell that wakes these
/// is its parent's.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// See [`IS_CHILD`].
pub(super) fn nobody_wakes() {
    IS_CHILD.store(true, Ordering::Relaxed);
}

/// Wakes up to `most` waiters, and says how many.
fn wake(word: usize, most: u32, mask: u32, kernel: impl Fn(u32) -> c_long) -> Answer {
    if !caller::may_wake() {
        return wake_by_others(word, || kernel(most));
    }
    let bucket = TABLE.bucket(word);
    let kernel_first = bucket.is_the_kernels_turn();
    let mut woken = 0;
    for from_kernel in [kernel_first, !kernel_first] {
        if woken == most {
            break;
        }
        woken += match from_kernel {
            true => match kernel(most - woken) {
                n if n >= 0 => n as u32,
                error if woken == 0 => return Answer::of(error as isize),
                _ => 0,
            },
            false => bucket.wake(word, most - woken, mask, end_wait),
        };
    }
    Answer::Done(woken as isize)
}

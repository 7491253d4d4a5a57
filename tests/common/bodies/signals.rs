//! Signals of the program's own, with handlers that compute for longer than a slice.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::preempt::{checksum, for_some_slices, os_thread};

/// Times that a handler has run, and times that it found something wrong.
pub(crate) static HANDLED: AtomicU64 = AtomicU64::new(0);
pub(crate) static BROKEN: AtomicU64 = AtomicU64::new(0);
/// Handlers that have not returned.
pub(crate) static ACTIVE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Handlers of this thread that have not returned. (Without a destructor, hence usable in a handler.)
    static DEPTH: Cell<u64> = const { Cell::new(0) };
}

extern "C" fn handler(signal: libc::c_int) {
    ACTIVE.fetch_add(1, Ordering::Relaxed);
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    // SAFETY: the location is valid as long as the thread.
    let errno = unsafe { *libc::__errno_location() };
    let here = os_thread();
    let mut bytes = [signal as u8; 256];
    for_some_slices(|| {
        for change in [1, 1] {
            bytes.iter_mut().for_each(|byte| *byte ^= change);
            std::hint::black_box(checksum(&bytes));
        }
    });
    let whole = bytes == [signal as u8; 256] && DEPTH.get() == depth + 1 && os_thread() == here;
    BROKEN.fetch_add(u64::from(!whole), Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    DEPTH.set(depth);
    HANDLED.fetch_add(1, Ordering::Relaxed);
    ACTIVE.fetch_sub(1, Ordering::Relaxed);
}

/// Installs the handler, for the process.
pub(crate) fn install(signal: libc::c_int, flags: libc::c_int) {
    // SAFETY: the handler uses atomics, thread-locals without destructors, and system calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

/// Sends a signal to an OS thread of this process.
pub(crate) fn send(thread: libc::pid_t, signal: libc::c_int) {
    // SAFETY: neither call has preconditions; the signal has a handler.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

/// Computes, with something to lose.
pub(crate) fn compute(seed: u64) {
    let bytes: [u8; 512] = std::array::from_fn(|i| seed.wrapping_add(i as u64) as u8);
    let sum = checksum(&bytes);
    for_some_slices(|| assert_eq!(checksum(std::hint::black_box(&bytes)), sum));
}

/// Signals itself, now pinned, when the signal arrives at once and here, now not: then it may find who runs
/// on the OS thread that this one was on a moment ago.
pub(crate) fn signal_self(seed: u64, signal: libc::c_int) {
    let before = HANDLED.load(Ordering::Relaxed);
    uthread::without_preemption(|| {
        send(os_thread(), signal);
        assert!(HANDLED.load(Ordering::Relaxed) > before);
    });
    send(os_thread(), signal);
    compute(seed);
    assert_eq!(BROKEN.load(Ordering::Relaxed), 0);
}

/// Installs a handler on the thread's stack or on the alternate one, and signals itself.
pub(crate) fn handle(seed: u64) {
    let signal = if seed.is_multiple_of(2) { libc::SIGUSR1 } else { libc::SIGUSR2 };
    install(signal, if signal == libc::SIGUSR1 { 0 } else { libc::SA_ONSTACK });
    signal_self(seed, signal);
}

/// Blocks a signal for a while, and stays on its OS thread for as long.
pub(crate) fn block(seed: u64) {
    use nix::sys::signal::{SigSet, Signal};

    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    set.thread_block().unwrap();
    let here = os_thread();
    compute(seed);
    assert_eq!(os_thread(), here);
    assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGWINCH));
    set.thread_unblock().unwrap();
    compute(seed);
}
